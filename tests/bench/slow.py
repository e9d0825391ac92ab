"""200 two-second commands at once, with 50 fast ones beside them or SIGTERM after a second."""

import argparse
import collections
import tempfile
import threading
import time

import harness
import load
from fake_slack import FakeSlack

APP = [str(harness.HERE / "slow_app.py")]
CASES = {  # name: (arguments, command, environment, limit of the first answer in seconds)
    "generator": (APP, "/slow", {}, 0.5),
    "generator, journal": (APP, "/slow", {"SLACKBOT_JOURNAL": "{}/journal"}, 0.5),
    "plain, ack 0": (APP, "/plain", {"SLACKBOT_ACK_SECONDS": "0"}, 0.5),
    "plain": (APP, "/plain", {}, 3),
    "fastapi": (harness.SERVERS["fastapi"], "/slow", {}, 0.5),
    "flask": (harness.SERVERS["flask"], "/slow", {}, 0.5),
    "bolt": (harness.SERVERS["bolt"], "/slow", {}, 0.5),
    "bolt-flask": (harness.SERVERS["bolt-flask"], "/slow", {}, 0.5),
}
BOT_CASES = list(CASES)[:4]
ENDS = ("done", "Hello")
LAST_SECONDS, FAST_MS = 2.2, 50  # goals: last delayed answer; p99 of the fast ones


class Commands:
    """The slow commands, all at once, and the fast ones beside them, with their answers."""

    def __init__(self, server, slack, line, count):
        self.server, self.slack, self.count = server, slack, count
        self.first, self.fast = {}, []
        requests = [harness.command_request(f"{line} {number}", number, slack.hooks)
                    for number in range(count)]
        self.load = load.Load(server.port, requests, self.note, keep_alive=False)

    def note(self, number, answer):
        """Keep the text of a first answer; every JSON answer is right."""
        self.first[number] = answer.get("text", "")
        return True

    def send_slow(self):
        """Send the slow commands and wait for their first answers."""
        self.sent = time.monotonic()
        self.load.run(self.count, count=self.count, timeout=30)

    def send_fast(self, count):
        """Send *count* fast commands one at a time over 1.8 seconds; note their latencies (ms)."""
        begun = time.monotonic()
        for turn in range(count):
            time.sleep(max(0, begun + 1.8 * turn / count - time.monotonic()))
            number, sent = self.count + turn, time.monotonic()
            request = harness.command_request(f"/hello {number}", number, self.slack.hooks)
            try:
                right = harness.ask(self.server.port, request, 10)
                right = right[0] == 200 and self.note(number, right[1])
            except OSError:
                right = False
            self.fast.append(1000 * (time.monotonic() - sent) if right else float("inf"))

    def await_last(self, total, seconds):
        """Wait until *total* commands have their last answer, at most *seconds*.

        Returns how many last answers each command has, and the seconds from sending the slow
        ones to the last delayed answer."""
        end = time.monotonic() + seconds
        while True:
            posts = [(when, int(name)) for when, name, text in self.slack.report()["deliveries"]
                     if text.startswith(ENDS)]
            done = collections.Counter(number for _, number in posts)
            done.update(number for number, text in self.first.items() if text.startswith(ENDS))
            if len(done) >= total or time.monotonic() > end:
                times = [when for when, number in posts if number < self.count]
                return done, max(times, default=float("nan")) - self.sent
            time.sleep(0.05)


def run_case(name, options, terminate):
    """Run one case; return its figures."""
    arguments, line, environ, limit = CASES[name]
    with tempfile.TemporaryDirectory() as directory, FakeSlack() as slack, harness.Server(
            arguments, SLACK_HOOKS_ORIGINS=slack.origins,
            **{key: value.format(directory) for key, value in environ.items()}) as server:
        server.wait()
        commands = Commands(server, slack, line, options.commands)
        if terminate:
            total, other = options.commands, threading.Timer(1, server.process.terminate)
        else:
            total = options.commands + options.fast
            other = threading.Thread(target=commands.send_fast, args=(options.fast,))
        other.start()
        commands.send_slow()
        other.join()
        done, last = commands.await_last(total, options.timeout)
        code = server.wait_for_exit(options.timeout) if terminate else None
    whole = sum(commands.first.get(number, "").startswith(ENDS)
                for number in range(options.commands, total))
    return {"case": name, "limit": limit, "errors": commands.load.errors,
            "p50": commands.load.quantile(0.5), "first": commands.load.quantile(1), "last": last,
            "refused": sum("try again" in text for text in commands.first.values()),
            "lost": total - len(done), "twice": sum(done.values()) - len(done),
            "fast": sorted(commands.fast), "whole": whole, "code": code}


def report(figures):
    """Print the figures and goals of one case; return whether it passed."""
    limit = figures["limit"]
    checks = {
        f"first answers p50 {figures['p50']:.0f} ms, last {figures['first']:.0f} ms "
        f"(limit {limit} s), {len(figures['errors'])} wrong {figures['errors'][:1]}":
            figures["first"] <= 1000 * limit and not figures["errors"],
        f"lost {figures['lost']} ({figures['refused']} told to try again), "
        f"twice {figures['twice']}":
            not figures["lost"] and not figures["twice"],
        f"last delayed answer {figures['last']:.2f} s (limit {LAST_SECONDS} s)":
            figures["last"] <= LAST_SECONDS,
    }
    if figures["fast"]:
        count = len(figures["fast"])
        p50, p99 = (figures["fast"][int(share * (count - 1) + 0.5)] for share in (0.5, 0.99))
        checks[f"{count} fast ones: p50 {p50:.1f} ms, p99 {p99:.1f} ms (limit {FAST_MS} ms), "
               f"{figures['whole']} answered at once, the others later"] = p99 <= FAST_MS
    if figures["code"] is not None:
        checks[f"exit code {figures['code']} after SIGTERM"] = figures["code"] == 0
    title = f"{figures['case']}{', SIGTERM after 1 s' if figures['code'] is not None else ''}"
    return harness.report(title, checks)


def main():
    """Read the options, run every case with and without SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--fast", type=int, default=50)
    parser.add_argument("--timeout", type=float, default=15, help="for the last answer, seconds")
    parser.add_argument("--only", action="append", choices=CASES, help="repeatable")
    parser.add_argument("--peers", action="store_true", help="the peers too")
    options = parser.parse_args()
    names = options.only or (list(CASES) if options.peers else BOT_CASES)
    passed = [report(run_case(name, options, terminate))
              for name in names for terminate in (False, True)]
    raise SystemExit(not all(passed))


if __name__ == "__main__":
    main()
