"""Commands of all kinds by all ways in, with faults at Slack and JIRA and restarts of the bot.

A command comes as a slash command, a button, a mention, by Socket Mode or as a post to /post. What
comes by HTTP comes straight or through haproxy or nginx, if they are installed (see proxies.py). In
the first third of the time the bot is ended by SIGTERM or kill -9 now and then; after that it runs
on, and its memory and descriptors are measured. What is right is as in faults.py. In addition:

- A button, a mention or an envelope is accepted when it has been acknowledged. Its row of the
  journal is written after that, so one that was acknowledged within IN_DOUBT seconds of a kill -9
  and never ended is "in doubt".
- A webhook's post must arrive once. The queue isn't in the journal: one that never arrived is "post
  lost" if the bot was ended within a minute after it, and wrong otherwise."""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time

import faults
import harness
import proxies

sys.path.insert(0, str(harness.ROOT / "tests"))
import api_fakes
import fakes
import socket_fakes

LINES = {**{f"{kind} {{}}": weight for kind, weight in faults.KINDS.items()},
         "/hello {}": 3, "/jira APP-1 ": 1, "/jira release 2.3": 1}
WAYS = {"http": 4, "button": 2, "mention": 2, "socket": 2, "socket button": 1,
        "socket mention": 1, "webhook": 1}
RIGHT = {*faults.RIGHT, "passed on", "post lost"}
KEPT = 200  # acknowledgements of a WebSocket that are remembered
WEBHOOK_SECONDS = 60  # for which a webhook's post is tried again
GROWTH = 1.5  # how many times as much at the end, and
MEGABYTES, DESCRIPTORS = 10, 20  # so much more, may be there


def fault(share):
    """A fault of a server, or None, by chance."""
    return random.random() < share and random.choice(
        [("status", 429, {"Retry-After": "1"}), ("status", 500), "reset"]) or None


class Slack(socket_fakes.Workspace):
    """Slack with faults; what has arrived is in `deliveries`: (when, number or text, text)."""

    share = 0

    def answer(self, seen):
        if "auth.test" in seen.path or "connections.open" in seen.path:
            return super().answer(seen)
        failure = fault(self.share)
        if failure:
            return failure
        if seen.path.startswith("/services/"):
            text = json.loads(seen.body)["text"]
            self.deliveries.append((time.monotonic(), re.search(r"webhook-(\d+)", text)[1], text))
            return "status", 200
        answer = super().answer(seen)
        if answer[1] == 200:
            if seen.path.startswith("/api/"):
                said = api_fakes.arguments(seen)
                number = said["channel"][1:]
            else:
                said = json.loads(seen.body)
                number = seen.path.rpartition("/")[2]
            self.deliveries.append((time.monotonic(), number, said.get("text") or "blocks"))
        return answer


class Link(socket_fakes.Link):
    """A WebSocket that forgets what is long over: whoever waits for an acknowledgement looks
    through all of them, and after half an hour that took longer than the bot."""

    def acknowledged(self, ack, now):
        super().acknowledged(ack, now)
        del self.acks[:-KEPT]
        del self.sent[:-KEPT]


socket_fakes.Link = Link


class Jira(fakes.Jira):
    """JIRA with faults."""

    share = 0

    def answer(self, seen):
        return fault(self.share) or super().answer(seen)


class Restarts(faults.Restarts):
    """Restarts with longer lives between them."""

    def run(self):
        try:
            while not self.over.wait(self.random.uniform(3, 20)):
                self.ends.append(time.monotonic())
                self.end_bot(self.random.choice(["kill", "terminate", "both"]))
                self.begin()
        except SystemExit as error:
            self.problems.append(str(error))


class Commands(faults.Commands):
    """The commands that have been sent; `when` has the moment after which each was accepted."""

    def __init__(self, slack, *arguments):
        super().__init__(*arguments)
        self.slack = slack
        self.when, self.ways = {}, {}
        self.ports = [self.port]  # the bot's, and those of the proxies

    def send_until(self, end):
        """Send one command after the other."""
        chance = random.Random(f"{self.seed} {threading.get_ident()}")
        while time.monotonic() < end:
            number = next(self.numbers)
            way = chance.choices(list(WAYS), WAYS.values())[0]
            line = chance.choices(list(LINES), LINES.values())[0].format(number)
            url = f"{self.hooks}/commands/T0001/{number}"
            self.slack.made[url], self.slack.posts[url] = time.monotonic(), []
            try:
                first = self.enter(way, line, number, url)
            except (ConnectionRefusedError, AssertionError):
                first = None  # nobody listens, or the socket isn't there: nothing was sent
            except (OSError, ValueError, fakes.http.client.HTTPException):
                first = "interrupted"
            self.when[number], self.ways[number] = time.monotonic(), way
            if first:
                self.first[number] = line.split()[0], first
            time.sleep(chance.uniform(0, 1))

    def enter(self, way, line, number, url):
        """Send a command: the class of its first answer."""
        bot = fakes.Bot()
        bot.host, bot.port = "127.0.0.1", random.choice(self.ports)
        if way == "http":
            status, answer = harness.ask(
                bot.port, harness.command_request(line, number, self.hooks), timeout=8)
            text = answer.get("text", "")
            return classify(text) if text else "pending"
        if way.startswith("socket"):
            return self.enter_socket(way, line, number, url)
        if way == "button":
            body = api_fakes.payload(api_fakes.action(line, url))
            got = api_fakes.send(bot, "/slack/interactions", body)
        elif way == "mention":
            got = api_fakes.tell(bot, api_fakes.mention(f"<@U0BOT> {line[1:]}", f"C{number}"))
        else:
            got = bot.request("POST", "/post", json.dumps({"a": f"webhook-{number}"}).encode(), {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {api_fakes.HOOK_TOKEN}"})
        if got.status in (502, 503) and (bot.port != self.port or way == "webhook"):
            return "interrupted"  # no bot behind the proxy; or a post came during a stop
        if got.status != 200:
            self.wrong.append(f"{way} {line}: {got.status} {got.text}")
        return "pending"

    def enter_socket(self, way, line, number, url):
        """Send a command by Socket Mode, and wait until it is acknowledged."""
        envelope = {"socket": lambda: socket_fakes.slash(line, url),
                    "socket button": lambda: socket_fakes.press(line, url),
                    "socket mention": lambda: socket_fakes.mention(line[1:], channel=f"C{number}")
                    }[way]()
        link = self.slack.current()
        link.send(envelope)
        try:
            self.slack.until(lambda: link.acks_of(envelope) or link.ended)
        except AssertionError:
            self.wrong.append(f"{way} {line}: no acknowledgement within 3 s")
        return "pending" if link.acks_of(envelope) else "interrupted"


def classify(text):
    """As in faults.py; the progress of a report on a release is a step."""
    return "step" if re.search("^Asking JIRA|answered…$", text) else faults.classify(text)


def tally(commands, slack, restarts):
    """The results of all commands: {result: commands}."""
    ends = collections.defaultdict(list)
    for when, number, text in list(slack.deliveries):
        if classify(text) not in ("step", "pending"):
            ends[int(number)].append((when, classify(text)))
    results = collections.defaultdict(list)
    for number, outcome in sorted(commands.first.copy().items()):
        when, way = commands.when[number], commands.ways[number]
        result = result_of(outcome, way, when, ends[number], restarts)
        results[result].append((number, way, *outcome, ends[number]))
    return results


def result_of(outcome, way, when, ends, restarts):
    """The result of one command."""
    if way == "webhook":
        if len(ends) == 1 or outcome[1] == "interrupted":
            return "passed on" if ends else "interrupted"
        was_ended = any(-1 < end - when < WEBHOOK_SECONDS + 10 for end in restarts.ends)
        return "post lost" if was_ended and not ends else f"a post that came {len(ends)} times"
    result = faults.result_of(outcome, ends, restarts.kills)
    if result == "lost" and way != "http" and any(
            abs(when - kill) < faults.IN_DOUBT for kill in restarts.kills):
        return "in doubt"
    return result


class Watch(threading.Thread):
    """Measures the bot's memory (MB) and descriptors each second."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over, self.samples = server, threading.Event(), []

    def run(self):
        while not self.over.wait(1):
            descriptors = len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
            self.samples.append((self.server.memory(), descriptors))

    def first_and_last(self, place):
        """The medians of the second tenth (the first warms up) and of the last."""
        tenth = max(1, len(self.samples) // 10)
        values = [sample[place] for sample in self.samples]
        return statistics.median(values[tenth:2 * tenth]), statistics.median(values[-tenth:])


def run(options, slack, jira, directory):
    """Run all; return the commands, the restarts, the watch and the results."""
    port = harness.free_port()
    restarts = Restarts(lambda: harness.Server(
        [str(harness.HERE / "faults_app.py")], port, options.log,
        SLACK_HOOKS_ORIGINS=f"{slack.origin},{harness.NOWHERE}", SLACK_API_URL=slack.api_url,
        SLACK_APP_TOKEN=socket_fakes.APP_TOKEN, SLACK_BOT_TOKEN=socket_fakes.BOT_TOKEN,
        SLACK_WEBHOOK_URL=f"{slack.origin}/services/1", JIRA_URL=jira.origin, JIRA_PROJECT="APP",
        JIRA_USERNAME=jira.username, JIRA_API_TOKEN=jira.token,
        SLACKBOT_WEBHOOK_TOKEN=api_fakes.HOOK_TOKEN, SLACKBOT_JOURNAL=f"{directory}/journal",
        SLACKBOT_ACK_SECONDS="0.3", SLACKBOT_GRACE_SECONDS=str(faults.GRACE)), options.seed)
    restarts.ends = []
    begun = time.monotonic()
    end = begun + 60 * options.minutes
    commands = Commands(slack, port, slack.origin, options.seed, end)
    slack.share, jira.share = options.share, options.share / 3
    senders = [threading.Thread(target=commands.send_until, args=(end,), daemon=True)
               for _ in range(options.at_once)]
    watch = None
    running = contextlib.ExitStack()
    try:
        for name in proxies.PROXIES:
            if shutil.which(name, path=proxies.PATH):
                proxy = running.enter_context(proxies.Proxy(name, port, directory))
                commands.ports.append(proxy.port)
        for thread in [restarts, *senders]:
            thread.start()
        time.sleep((end - begun) / 3)
        restarts.stop()
        watch = Watch(restarts.server)
        watch.start()
        for thread in senders:
            thread.join()
        watch.over.set()
        slack.share = jira.share = 0
        last = time.monotonic() + 90
        while time.monotonic() < last and set(tally(commands, slack, restarts)) - RIGHT:
            time.sleep(1)
        time.sleep(2)
    finally:
        restarts.stop()
        restarts.end_bot("terminate")
        running.close()
    return commands, restarts, watch, tally(commands, slack, restarts)


def main():
    """Read the options, run, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.2, help="of the posts that fail")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", help="file that the bot's output is appended to")
    options = parser.parse_args()
    random.seed(options.seed)
    with Slack() as slack, Jira(issues=fakes.issues(12)) as jira, \
            tempfile.TemporaryDirectory() as directory:
        slack.deliveries = []
        commands, restarts, watch, results = run(options, slack, jira, directory)
    counts = {result: len(found) for result, found in results.items()}
    ways = collections.Counter(commands.ways[number] for number in commands.first)
    print(f"seed {options.seed}, {options.minutes:g} minutes: {len(commands.first)} commands "
          f"{dict(ways)}, {len(restarts.kills)} kill -9, {len(restarts.codes)} SIGTERM "
          f"(exit codes {restarts.codes})")
    print("results:", counts)
    wrong = [f"{result}: {one}" for result, found in results.items() if result not in RIGHT
             for one in found] + restarts.problems + commands.wrong
    if 2 * counts.get("answered", 0) < counts.get("apologised", 0):
        wrong.append("most commands ended in an apology")
    for place, name, more in ((0, "memory, MB", MEGABYTES), (1, "descriptors", DESCRIPTORS)):
        first, last = watch.first_and_last(place)
        print(f"{name}: {first:.0f} at first, {last:.0f} at last")
        if last > GROWTH * first + more:
            wrong.append(f"{name} grow")
    if wrong:
        began = restarts.ends[0] if restarts.ends else 0
        print("restarts, s after the first:", [f"{end - began:.2f}" for end in restarts.ends],
              "kills:", [f"{kill - began:.2f}" for kill in restarts.kills])
        print("accepted:", {one[0]: f"{commands.when[one[0]] - began:.2f}" for result, found
                            in results.items() if result not in RIGHT for one in found})
    print(*(wrong[:20] or ["pass: each exactly once, memory and descriptors flat"]), sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
