"""CPU time per command and memory after 100, 1,000 and 10,000 commands."""

import argparse
import statistics
import time

import harness
import load
from fake_slack import FakeSlack

WARM = 50
FIRST = ("started", "Working on")  # the second where all workers are busy with posts
STEPS = (100, 1000, 10000)
FLAT = 1.2  # limit of the last CPU time divided by the first


def instant(server, slack, numbers):
    """Make a load of commands with one answer."""
    return load.hello_load(server.port, distinct=len(numbers))


def delayed(server, slack, numbers):
    """Make a load of commands with a first and a delayed answer."""
    requests = [harness.command_request(f"/twice {number}", number, slack.hooks, keep_alive=True)
                for number in numbers]
    return load.Load(server.port, requests, lambda _, answer: answer["text"].startswith(FIRST))


CASES = {name: (arguments, instant) for name, arguments in harness.SERVERS.items()}
CASES["delayed"] = [str(harness.HERE / "slow_app.py")], delayed


def await_last(slack, total):
    """Wait until the fake Slack has received *total* last answers, at most 60 seconds."""
    end = time.monotonic() + 60
    while sum(text.startswith("done") for _, _, text in slack.report()["deliveries"]) < total:
        if time.monotonic() > end:
            raise SystemExit(f"fewer than {total} last answers within 60 seconds")
        time.sleep(0.2)


def measure(name, most):
    """Start a server and send commands in steps; return (CPU µs per command, MB) for each."""
    arguments, make_load = CASES[name]
    figures, sent = [], 0
    with FakeSlack() as slack, harness.Server(
            arguments, SLACK_HOOKS_ORIGINS=slack.origins, SLACKBOT_QUEUE="20000") as server:
        server.wait()
        for total in (WARM, *(WARM + step for step in STEPS if step <= most)):
            commands = make_load(server, slack, range(sent, total))
            used = server.cpu()
            commands.run(16, count=total - sent)
            if commands.errors:
                raise SystemExit(f"{name}: wrong answers, {commands.errors[0]}")
            if make_load is delayed:
                await_last(slack, total)
            figures.append((1e6 * (server.cpu() - used) / (total - sent), server.memory()))
            sent = total
    return figures[1:]


def report(name, rounds):
    """Print a row of medians; return whether the CPU time per command is flat."""
    medians = [[statistics.median(values) for values in zip(*step)] for step in zip(*rounds)]
    growth = medians[-1][0] / medians[0][0]
    print(f"| {name} |", " | ".join(f"{cost:.0f} µs, {memory:.1f} MB" for cost, memory in medians),
          f"| {growth:.2f} {'pass' if growth <= FLAT else 'FAIL'} |", flush=True)
    return growth <= FLAT


def main():
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=STEPS[-1], help="commands")
    parser.add_argument("--only", action="append", choices=CASES, help="repeatable")
    options = parser.parse_args()
    names = options.only or ["slackbot", "delayed"]
    print("| server |", " | ".join(f"{step:,}" for step in STEPS if step <= options.most),
          "| last / first |")
    flat = [report(name, [measure(name, options.most) for _ in range(options.rounds)])
            for name in names]
    raise SystemExit(not all(flat))


if __name__ == "__main__":
    main()
