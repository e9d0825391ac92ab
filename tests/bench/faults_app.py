"""The commands of faults.py. Each ends once: with `final N`, or with an apology if it raises."""

import random
import time

import slackbot


def pause(number, longest=3):
    """Sleep for a time that depends only on the number."""
    time.sleep(random.Random(number).uniform(0, longest))


@slackbot.command("/instant")
def instant(request, number: int):
    """Answer at once."""
    return f"final {number}"


@slackbot.command("/later")
def later(request, number: int):
    """Answer after a pause."""
    pause(number)
    return f"final {number}"


@slackbot.command("/two")
def two(request, number: int):
    """Give one answer at once and one later."""
    yield f"step 0 of {number}"
    pause(number)
    yield f"final {number}"


@slackbot.command("/many")
def many(request, number: int):
    """Give more answers than Slack allows."""
    for step in range(9):
        yield f"step {step} of {number}"
        pause(number, 0.4)
    yield f"final {number}"


@slackbot.command("/broken")
def broken(request, number: int):
    """Raise at once."""
    raise ValueError(number)


@slackbot.command("/breaks")
def breaks(request, number: int):
    """Give one answer at once and raise later."""
    yield f"step 0 of {number}"
    pause(number)
    raise ValueError(number)


slackbot.main()
