"""Thousands of commands while posts to Slack fail and the bot is stopped and killed at random.

A command is *accepted* when the whole first answer was read and didn't refuse it. It has *ended*
when `final N` or an apology was in the first answer or was recorded by the fake Slack. These are
wrong: an accepted command that never ended or ended more than once, a refused one that ended, an
interrupted one (its connection closed before the whole answer) that ended more than once, and a
sixth message to a response_url.

When the process is killed during a post, the next process can't know whether the post arrived. If
it posts again, there may be two answers; if it doesn't, there may be none. So a second end is
counted separately, as "in doubt", if the first was recorded within IN_DOUBT seconds of a
kill -9."""

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
RIGHT = ("answered", "apologised", "in doubt", "refused", "interrupted")


class Restarts(threading.Thread):
    """Runs the bot; ends it by SIGTERM or kill -9 at random moments, and starts it again."""

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
        """End and start the bot until `stop` is called."""
        try:
            while not self.over.wait(self.random.uniform(0.5, 5)):
                self.end_bot(self.random.choice(["kill", "kill", "terminate", "both"]))
                self.begin()
        except SystemExit as error:
            self.problems.append(str(error))

    def stop(self):
        """Stop ending the bot; it keeps running."""
        self.over.set()
        self.join()

    def end_bot(self, kind):
        """End the bot by kill -9, by SIGTERM, or by SIGTERM and then kill -9 (kind "both")."""
        process = self.server.process
        if kind != "kill":
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            timeout = GRACE + 6 if kind == "terminate" else self.random.uniform(0, GRACE + 2)
            code = self.server.wait_for_exit(timeout)
            self.codes.append(code)
            if kind == "terminate" and code != 0:
                self.problems.append(f"exit {code} {time.monotonic() - asked:.1f} s after SIGTERM")
        if process.poll() is None:
            self.kills.append(time.monotonic())
            process.kill()
            process.wait()
        self.server.__exit__()


class Commands:
    """The commands that have been sent, and the first answer to each."""

    def __init__(self, port, hooks, seed, end):
        self.port, self.hooks, self.seed, self.end = port, hooks, seed, end
        self.numbers, self.first, self.wrong = itertools.count(1), {}, []

    def send(self, _):
        """Send one command; send it again as a new one while the bot refuses it."""
        while True:
            number = next(self.numbers)
            chance = random.Random(f"{self.seed} {number}")
            kind = chance.choices(list(KINDS), KINDS.values())[0]
            time.sleep(chance.uniform(0, 1))
            self.first[number] = outcome = kind, self.exchange(f"{kind} {number}", number)
            if outcome[1] != "refused" or time.monotonic() > self.end:
                return

    def exchange(self, line, number):
        """Get the first answer to one command; return its class, see `classify`."""
        while time.monotonic() < self.end:
            try:
                request = harness.command_request(line, number, self.hooks)
                status, answer = harness.ask(self.port, request, timeout=8)
                if status != 200:
                    self.wrong.append(f"{line}: {status} {answer}")
                return classify(answer.get("text", ""))
            except ConnectionRefusedError:  # the bot isn't listening: nothing was sent
                time.sleep(0.05)
            except TimeoutError:
                self.wrong.append(f"{line}: no first answer within 8 s")
                return "interrupted"
            except (OSError, ValueError):
                return "interrupted"
        self.wrong.append(f"{line}: the bot stopped listening")
        return "interrupted"


def classify(text):
    """The class of a message: pending, refused, step, final, sixth or, for any other, apology."""
    if text == REFUSED:
        return "sixth"
    if match := re.fullmatch(r"(step|final) .*\d", text):
        return match[1]
    if text.startswith("Working on"):
        return "pending"
    return "refused" if "try again in a minute" in text else "apology"


def result_of(outcome, ends, kills):
    """The result of one command; those in RIGHT are right."""
    kind, first = outcome
    if first in ("final", "apology"):
        ends = [(float("-inf"), first), *ends]  # not in the journal, so never in doubt
    if first == "refused":
        return "ended though refused" if ends else "refused"
    if len(ends) > 1:
        doubtful = all(any(abs(when - kill) < IN_DOUBT for kill in kills)
                       for when, _ in sorted(ends)[:-1])
        return "in doubt" if doubtful else "ended twice"
    if first == "interrupted":
        return "interrupted"
    if not ends or ends[0][1] == "sixth":
        return "lost"
    if kind in ("/broken", "/breaks") and ends[0][1] == "final":
        return "final though it raised"
    return "answered" if ends[0][1] == "final" else "apologised"


def tally(commands, slack, kills):
    """The results of all commands, by what has been delivered: {result: commands}."""
    ends = collections.defaultdict(list)
    for when, name, text in slack.report()["deliveries"]:
        if classify(text) != "step":
            ends[int(name)].append((when, classify(text)))
    results = collections.defaultdict(list)
    for number, outcome in sorted(commands.first.items()):
        result = result_of(outcome, ends[number], kills)
        results[result].append((number, *outcome, ends[number]))
    return results


def run(options):
    """Run commands and restarts; return both, the results and the fake Slack's faults."""
    with FakeSlack(options.seed) as slack, tempfile.TemporaryDirectory() as directory:
        port = harness.free_port()
        restarts = Restarts(lambda: harness.Server(
            [str(harness.HERE / "faults_app.py")], port, options.log,
            SLACK_HOOKS_ORIGINS=slack.origins, SLACKBOT_JOURNAL=f"{directory}/journal",
            SLACKBOT_ACK_SECONDS="0.3", SLACKBOT_GRACE_SECONDS=str(GRACE)), options.seed)
        end = options.begun + options.limit
        commands = Commands(port, slack.hooks, options.seed, end)
        slack.fail(options.share)
        restarts.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
                list(pool.map(commands.send, range(options.commands)))
            restarts.stop()
            slack.fail(0)
            await_last(commands, slack, restarts, end)
        finally:
            restarts.stop()
            restarts.end_bot("terminate")
        return commands, restarts, tally(commands, slack, restarts.kills), slack.report()["faults"]


def await_last(commands, slack, restarts, end):
    """Wait until no answer is missing, then two seconds more for second ones."""
    while tally(commands, slack, restarts.kills)["lost"] and time.monotonic() < end:
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
    commands, restarts, results, faults = run(options)
    print(f"seed {options.seed}: {options.commands} commands in "
          f"{time.monotonic() - options.begun:.0f} s, {len(restarts.kills)} kill -9, "
          f"{len(restarts.codes)} SIGTERM (exit codes {restarts.codes}), failed posts {faults}")
    counts = {result: len(found) for result, found in results.items()}
    accepted = sum(counts.values()) - counts.get("refused", 0) - counts.get("interrupted", 0)
    print(f"accepted {accepted} of {len(commands.first)} sent:", counts)
    wrong = [f"{result}: {one}" for result, found in results.items() if result not in RIGHT
             for one in found]
    wrong += restarts.problems + commands.wrong
    print(*(wrong[:20] or ["pass: each exactly once"]), sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
