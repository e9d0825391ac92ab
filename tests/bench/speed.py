"""Measure slackbot.py and its peers side by side in interleaved rounds; see README.md."""

import argparse
import os
import statistics
import time

import harness
import load

FIGURES = {  # name: (title, unit, decimals)
    "start": ("start to first answer", "ms", 0),
    "memory": ("memory after 5,000", "MB", 1),
    "kept": ("kept alive, 16", "/s", 0),
    "kept_p99": ("its p99", "ms", 2),
    "kept_cpu": ("its processor", "µs", 0),
    "each": ("connection each, 16", "/s", 0),
    "each_p99": ("its p99", "ms", 2),
    "each_cpu": ("its processor", "µs", 0),
    "one": ("one at a time, p50", "ms", 3),
}
GOALS = {  # name: (what it is, limit on the ratio to FastAPI, whether more is better)
    "kept": ("commands per second, kept alive", 2.5, True),
    "each": ("commands per second, a connection each", 2.5, True),
    "one": ("p50 one at a time", 1, False),
    "kept_p99": ("p99 at 16 kept connections", 1, False),
    "each_p99": ("p99 at 16 at once, a connection each", 1, False),
    "start": ("start to first answer", 1 / 3, False),
    "memory": ("memory after 5,000 commands", 1 / 2, False),
}


def crowd(server, keep_alive, prefix, seconds):
    """Keep 16 commands under way: the load and its figures."""
    commands, used = load.hello_load(server.port, keep_alive), server.cpu()
    commands.run(16, seconds=seconds)
    cost = 1e6 * (server.cpu() - used) / max(1, len(commands.latencies))
    return commands, {prefix: commands.rate, f"{prefix}_p99": commands.quantile(0.99),
                      f"{prefix}_cpu": cost}


def measure(name, options):
    """Start one server, measure all figures, stop it."""
    with harness.Server(harness.SERVERS[name]) as server:
        figures = {"start": 1000 * server.wait()}
        warm = load.hello_load(server.port).run(16, count=5000, seconds=options.warm)
        figures["memory"] = server.memory()
        kept, of_kept = crowd(server, True, "kept", options.seconds)
        each, of_each = crowd(server, False, "each", options.seconds)
        one = load.hello_load(server.port).run(1, seconds=options.seconds / 2)
    errors = warm.errors + kept.errors + each.errors + one.errors
    if errors:
        print(f"{name}: {len(errors)} wrong answers, for example {errors[0]}", flush=True)
    if len(warm.latencies) < 5000:
        print(f"{name}: memory after {len(warm.latencies)} commands only", flush=True)
    return {**figures, **of_kept, **of_each, "one": one.quantile(0.5), "errors": len(errors)}


def run_rounds(names, options):
    """Measure every server in every round, each round beginning with another one."""
    rounds = []
    for number in range(options.rounds):
        shift = number % len(names)
        order = names[shift:] + names[:shift]
        rounds.append({name: measure(name, options) for name in order})
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    return rounds


def ratio(rounds, name, figure):
    """The median of the ratios to FastAPI, each within its own round; None without FastAPI."""
    if "fastapi" not in rounds[0]:
        return None
    return statistics.median(each[name][figure] / each["fastapi"][figure] for each in rounds)


def print_table(rounds, names):
    """Print medians and, in brackets, ratios to FastAPI."""
    titles = [f"{title}, {unit}" for title, unit, _ in FIGURES.values()]
    print("\n| server |", " | ".join(titles), "|")
    print("|---" * (len(FIGURES) + 1) + "|")
    for name in names:
        cells = []
        for figure, (_, _, decimals) in FIGURES.items():
            median = statistics.median(each[name][figure] for each in rounds)
            share = ratio(rounds, name, figure)
            cells.append(f"{median:,.{decimals}f}" + (f" ({share:.2f})" if share else ""))
        print(f"| {name} |", " | ".join(cells), "|")


def print_verdict(rounds):
    """Print what of the goals slackbot.py reaches: whether it is all."""
    passed = True
    for figure, (title, limit, more) in GOALS.items():
        share = ratio(rounds, "slackbot", figure)
        good = share >= limit if more else share <= limit
        passed = passed and good
        word = "at least" if more else "at most"
        print(f"{'pass' if good else 'FAIL'}  {title}: {share:.2f} of FastAPI's, "
              f"{word} {limit:.2f} wanted")
    wrong = sum(each["slackbot"]["errors"] for each in rounds)
    print(f"{'FAIL' if wrong else 'pass'}  wrong answers: {wrong}")
    return passed and not wrong


def main():
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="per figure and server")
    parser.add_argument("--warm", type=float, default=20, help="at most, for 5,000 commands")
    parser.add_argument("--only", action="append", choices=harness.SERVERS, help="repeatable")
    parser.add_argument("--quick", action="store_true", help="one short round")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.warm = 1, 0.5, 1
    names = options.only or [name for name in harness.SERVERS
                             if name != "slackbot" or harness.BOT.exists()]
    print(f"load average {os.getloadavg()[0]:.1f} at the start")
    begun = time.monotonic()
    rounds = run_rounds(names, options)
    print_table(rounds, names)
    print(f"\n{options.rounds} rounds in {time.monotonic() - begun:.0f} s")
    if {"slackbot", "fastapi"} <= set(names):
        raise SystemExit(not print_verdict(rounds))


if __name__ == "__main__":
    main()
