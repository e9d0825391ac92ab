"""Thousands of commands while Slack fails and the bot is terminated and killed at random moments.

A command is *acked* when the whole first answer was read and didn't refuse it. It has *ended* with
`final N` or an apology, in the first answer or recorded by the fake Slack. Counted as wrong: an
acked command that has ended never or more than once, a refused one that ended, one whose answer
was cut off (its user has seen an error) that ended more than once, and a sixth message.

Nothing can tell whether a post that arrived just as the process was killed had arrived: whoever
posts again may post twice, whoever doesn't may lose. An apology that follows an end recorded
within IN_DOUBT seconds of a kill -9 is therefore counted apart, as "in doubt"."""

import argparse
import collections
import concurrent.futures
import itertools
import random
import re
import signal
import tempfile
import threading
import time

import harness
from fake_slack import REFUSED, FakeSlack

KINDS = {"/instant": 2, "/later": 3, "/two": 3, "/many": 1, "/broken": 1, "/breaks": 2}
IN_DOUBT = 0.1
GRACE = 3
RIGHT = ("answered", "apologised", "in doubt", "refused", "cut off")


class Chaos(threading.Thread):
    """Keeps the bot running, apart from SIGTERM and kill -9 at random moments."""

    def __init__(self, make_server, seed):
        super().__init__()
        self.make_server, self.random = make_server, random.Random(seed)
        self.over, self.kills, self.codes, self.problems = threading.Event(), [], [], []
        self.begin()

    def begin(self):
        """Start the bot on its port, with its journal."""
        self.server = self.make_server().__enter__()
        try:
            self.server.wait()
        except SystemExit:
            self.server.__exit__()
            raise

    def run(self):
        """Strike again and again until told that it is over."""
        try:
            while not self.over.wait(self.random.uniform(0.5, 5)):
                self.strike(self.random.choice(["kill", "kill", "terminate", "both"]))
                self.begin()
        except SystemExit as error:
            self.problems.append(str(error))

    def stop(self):
        """Strike no more."""
        self.over.set()
        self.join()

    def strike(self, kind):
        """End the bot: kill it, ask it to end, or kill it while it is about to end."""
        process = self.server.process
        if kind != "kill":
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            patience = GRACE + 6 if kind == "terminate" else self.random.uniform(0, GRACE + 2)
            code = self.server.wait_for_exit(patience)
            self.codes.append(code)
            if kind == "terminate" and code != 0:
                self.problems.append(f"exit {code} {time.monotonic() - asked:.1f} s after SIGTERM")
        if process.poll() is None:
            self.kills.append(time.monotonic())
            process.kill()
            process.wait()
        self.server.__exit__()


class Commands:
    """What has been sent, and what the first answer to each was."""

    def __init__(self, port, hooks, seed, end):
        self.port, self.hooks, self.seed, self.end = port, hooks, seed, end
        self.numbers, self.first, self.wrong = itertools.count(1), {}, []

    def send(self, _):
        """Send one command, again (as a new one) whenever the bot says that it is restarting."""
        while True:
            number = next(self.numbers)
            chance = random.Random(f"{self.seed} {number}")
            kind = chance.choices(list(KINDS), KINDS.values())[0]
            time.sleep(chance.uniform(0, 1))
            self.first[number] = outcome = kind, self.exchange(f"{kind} {number}", number)
            if outcome[1] != "refused" or time.monotonic() > self.end:
                return

    def exchange(self, line, number):
        """Get one first answer: what became of the command."""
        while time.monotonic() < self.end:
            try:
                request = harness.command_request(line, number, self.hooks)
                status, answer = harness.ask(self.port, request, timeout=8)
                if status != 200:
                    self.wrong.append(f"{line}: {status} {answer}")
                return classify(answer.get("text", ""))
            except ConnectionRefusedError:  # nobody listens: it was never sent
                time.sleep(0.05)
            except TimeoutError:
                self.wrong.append(f"{line}: no first answer within 8 s")
                return "cut off"
            except (OSError, ValueError):
                return "cut off"
        self.wrong.append(f"{line}: nobody listened any more")
        return "cut off"


def classify(text):
    """Say what a message does: promise, refuse, step, final or, anything else, apologise."""
    if text == REFUSED:
        return "sixth"
    if match := re.fullmatch(r"(step|final) .*\d", text):
        return match[1]
    if text.startswith("Working on"):
        return "promise"
    return "refused" if "try again in a minute" in text else "apology"


def judge(outcome, ends, kills):
    """Say what became of one command; those of RIGHT are as they should be."""
    kind, first = outcome
    if first in ("final", "apology"):
        ends = [(float("-inf"), first), *ends]  # written down nowhere, so never in doubt
    if first == "refused":
        return "ended though refused" if ends else "refused"
    if len(ends) > 1:
        doubtful = all(any(abs(when - kill) < IN_DOUBT for kill in kills)
                       for when, _ in sorted(ends)[:-1])
        return "in doubt" if doubtful else "ended twice"
    if first == "cut off":
        return "cut off"
    if not ends or ends[0][1] == "sixth":
        return "lost"
    if kind in ("/broken", "/breaks") and ends[0][1] == "final":
        return "final though it raised"
    return "answered" if ends[0][1] == "final" else "apologised"


def tally(commands, slack, kills):
    """Judge every command by what has been delivered: {verdict: commands}."""
    ends = collections.defaultdict(list)
    for when, name, text in slack.report()["deliveries"]:
        if classify(text) != "step":
            ends[int(name)].append((when, classify(text)))
    verdicts = collections.defaultdict(list)
    for number, outcome in sorted(commands.first.items()):
        verdict = judge(outcome, ends[number], kills)
        verdicts[verdict].append((number, *outcome, ends[number]))
    return verdicts


def run(options):
    """Run it all: commands, chaos and the fake Slack's report."""
    with FakeSlack(options.seed) as slack, tempfile.TemporaryDirectory() as directory:
        port = harness.free_port()
        chaos = Chaos(lambda: harness.Server(
            [str(harness.HERE / "faults_app.py")], port, options.log,
            SLACK_HOOKS_ORIGINS=slack.origins, SLACKBOT_JOURNAL=f"{directory}/journal",
            SLACKBOT_ACK_SECONDS="0.3", SLACKBOT_GRACE_SECONDS=str(GRACE)), options.seed)
        end = options.begun + options.limit
        commands = Commands(port, slack.hooks, options.seed, end)
        slack.fail(options.share)
        chaos.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
                list(pool.map(commands.send, range(options.commands)))
            chaos.stop()
            slack.fail(0)
            settle(commands, slack, chaos, end)
        finally:
            chaos.stop()
            chaos.strike("terminate")
        return commands, chaos, tally(commands, slack, chaos.kills), slack.report()["faults"]


def settle(commands, slack, chaos, end):
    """Wait until nothing is missing any more, then a little for what comes too often."""
    while tally(commands, slack, chaos.kills)["lost"] and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(2)


def main():
    """Read the options, run, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.3, help="of the posts that fail")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=170, help="seconds in all")
    parser.add_argument("--log", help="file that the bot's output is appended to")
    options = parser.parse_args()
    options.begun = time.monotonic()
    commands, chaos, verdicts, faults = run(options)
    print(f"seed {options.seed}: {options.commands} commands in "
          f"{time.monotonic() - options.begun:.0f} s, {len(chaos.kills)} kill -9, "
          f"{len(chaos.codes)} SIGTERM (exit codes {chaos.codes}), failed posts {faults}")
    counts = {verdict: len(found) for verdict, found in verdicts.items()}
    acked = sum(counts.values()) - counts.get("refused", 0) - counts.get("cut off", 0)
    print(f"acked {acked} of {len(commands.first)} sent:", counts)
    wrong = [f"{verdict}: {one}" for verdict, found in verdicts.items() if verdict not in RIGHT
             for one in found]
    wrong += chaos.problems + commands.wrong
    print(*(wrong[:20] or ["pass: each exactly once"]), sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
