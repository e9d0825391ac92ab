"""The commands of faults.py: each ends once, in `final N`, or in an apology where it raises."""

import random
import time

import slackbot


def pause(number, longest=3):
    """Sleep for a time that depends on the number alone."""
    time.sleep(random.Random(number).uniform(0, longest))


@slackbot.command("/instant")
def instant(request, number: int):
    """Answer at once."""
    return f"final {number}"


@slackbot.command("/later")
def later(request, number: int):
    """Answer when it is ready."""
    pause(number)
    return f"final {number}"


@slackbot.command("/two")
def two(request, number: int):
    """Answer at once, and again later."""
    yield f"step 0 of {number}"
    pause(number)
    yield f"final {number}"


@slackbot.command("/many")
def many(request, number: int):
    """Answer more often than Slack allows."""
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
    """Answer at once and raise later."""
    yield f"step 0 of {number}"
    pause(number)
    raise ValueError(number)


slackbot.main()
