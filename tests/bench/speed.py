"""Measure slackbot.py and its peers in interleaved rounds; see README.md."""

import argparse
import os
import statistics
import time

import harness
import load

HELLO_FIGURES = {  # name: (title, unit, decimals)
    "start": ("start to first answer", "ms", 0),
    "memory": ("memory after 5,000", "MB", 1),
    "kept": ("kept alive, 16", "/s", 0),
    "kept_p99": ("p99", "ms", 2),
    "kept_cpu": ("CPU time", "µs", 0),
    "each": ("connection each, 16", "/s", 0),
    "each_p99": ("p99", "ms", 2),
    "each_cpu": ("CPU time", "µs", 0),
    "one": ("one at a time, p50", "ms", 3),
}
GREET_FIGURES = {
    "greet": ("connection each, 16", "/s", 0),
    "greet_p99": ("p99", "ms", 2),
    "greet_cpu": ("CPU time", "µs", 0),
}
GOALS = {  # name: (what it is, limit of the ratio to FastAPI, whether more is better)
    "kept": ("/hello, commands per second, kept alive", 2.2, True),
    "each": ("/hello, commands per second, a connection each", 2.5, True),
    "one": ("/hello, p50 one at a time", 1, False),
    "kept_p99": ("/hello, p99 at 16 kept connections", 1, False),
    "each_p99": ("/hello, p99 at 16 at once, a connection each", 1, False),
    "start": ("start to first answer", 1 / 3, False),
    "memory": ("memory after 5,000 commands", 1 / 2, False),
    "greet": ("/greet, commands per second, a connection each", 5, True),
    "greet_p99": ("/greet, p99 at 16 at once, a connection each", 1 / 3, False),
}


def measure_16(server, commands, name, seconds):
    """Run a load of 16 commands at once; return its rate, p99 and CPU time per command."""
    used = server.cpu()
    commands.run(16, seconds=seconds)
    cost = 1e6 * (server.cpu() - used) / max(1, len(commands.latencies))
    return {name: commands.rate, f"{name}_p99": commands.quantile(0.99), f"{name}_cpu": cost}


def measure_hello(name, options):
    """Measure the first case, `/hello`; return the figures and the wrong answers."""
    with harness.Server(harness.SERVERS[name]) as server:
        figures = {"start": 1000 * server.wait()}
        warm = load.hello_load(server.port).run(16, count=5000, seconds=options.warm)
        figures["memory"] = server.memory()
        kept = load.hello_load(server.port)
        figures |= measure_16(server, kept, "kept", options.seconds)
        each = load.hello_load(server.port, keep_alive=False)
        figures |= measure_16(server, each, "each", options.seconds)
        one = load.hello_load(server.port).run(1, seconds=options.seconds / 2)
        figures["one"] = one.quantile(0.5)
    if len(warm.latencies) < 5000:
        print(f"{name}: memory after only {len(warm.latencies)} commands", flush=True)
    return figures, warm.errors + kept.errors + each.errors + one.errors


def measure_greet(name, options):
    """Measure the second case, `/greet`; return the figures and the wrong answers."""
    with harness.Server(harness.POOL_SERVERS[name]) as server:
        server.wait()
        warm = load.greet_load(server.port).run(16, count=500, seconds=options.warm)
        commands = load.greet_load(server.port)
        figures = measure_16(server, commands, "greet", options.seconds)
    return figures, warm.errors + commands.errors


def measure(name, options):
    """Measure one server in each of its cases; return its figures."""
    figures, errors = measure_hello(name, options)
    if name in harness.POOL_SERVERS:
        greet_figures, greet_errors = measure_greet(name, options)
        figures |= greet_figures
        errors += greet_errors
    if errors:
        print(f"{name}: {len(errors)} wrong answers, for example {errors[0]}", flush=True)
    return {**figures, "errors": len(errors)}


def run_rounds(names, options):
    """Measure every server in every round; each round starts with a different server."""
    rounds = []
    for number in range(options.rounds):
        shift = number % len(names)
        order = names[shift:] + names[:shift]
        rounds.append({name: measure(name, options) for name in order})
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    return rounds


def ratio(rounds, name, figure):
    """The median of the ratios to FastAPI within each round; None without FastAPI."""
    if "fastapi" not in rounds[0]:
        return None
    return statistics.median(each[name][figure] / each["fastapi"][figure] for each in rounds)


def print_table(title, rounds, names, figures):
    """Print the medians of the rounds and, in brackets, the ratios to FastAPI."""
    titles = [f"{title}, {unit}" for title, unit, _ in figures.values()]
    print(f"\n{title}\n\n| server |", " | ".join(titles), "|")
    print("|---" * (len(figures) + 1) + "|")
    for name in names:
        cells = []
        for figure, (_, _, decimals) in figures.items():
            median = statistics.median(each[name][figure] for each in rounds)
            share = ratio(rounds, name, figure)
            cells.append(f"{median:,.{decimals}f}" + (f" ({share:.2f})" if share else ""))
        print(f"| {name} |", " | ".join(cells), "|")


def print_goals(rounds):
    """Print which goals slackbot.py reaches; return whether it reaches all."""
    passed = True
    for figure, (title, limit, more) in GOALS.items():
        share = ratio(rounds, "slackbot", figure)
        good = share >= limit if more else share <= limit
        passed = passed and good
        word = "at least" if more else "at most"
        print(f"{'pass' if good else 'FAIL'}  {title}: {share:.2f} times FastAPI's, "
              f"goal {word} {limit:.2f}")
    wrong = sum(each["slackbot"]["errors"] for each in rounds)
    print(f"{'FAIL' if wrong else 'pass'}  wrong answers: {wrong}")
    return passed and not wrong


def main():
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="per figure and server")
    parser.add_argument("--warm", type=float, default=20,
                        help="at most so many seconds for the commands before the measurement")
    parser.add_argument("--only", action="append", choices=harness.SERVERS, help="repeatable")
    parser.add_argument("--quick", action="store_true", help="one short round")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.warm = 1, 0.5, 1
    names = options.only or list(harness.SERVERS)
    print(f"load average {os.getloadavg()[0]:.1f} at the start")
    begun = time.monotonic()
    rounds = run_rounds(names, options)
    print_table("/hello", rounds, names, HELLO_FIGURES)
    if pool_names := [name for name in names if name in harness.POOL_SERVERS]:
        print_table("/greet, on the thread pool", rounds, pool_names, GREET_FIGURES)
    print(f"\n{options.rounds} rounds in {time.monotonic() - begun:.0f} s")
    if {"slackbot", "fastapi"} <= set(names):
        raise SystemExit(not print_goals(rounds))


if __name__ == "__main__":
    main()
