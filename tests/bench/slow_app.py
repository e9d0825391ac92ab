"""The commands of slow.py, growth.py and socket_mode.py, for slackbot.py."""

import time

import slackbot


@slackbot.command("/slow")
def slow(request, number: int):
    """Give one answer at once and one two seconds later."""
    yield f"started {number}"
    time.sleep(2)
    yield f"done {number}"


@slackbot.command("/plain")
def plain(request, number: int):
    """Answer after two seconds."""
    time.sleep(2)
    return f"done {number}"


@slackbot.command("/twice")
def twice(request, number: int):
    """Give two answers at once."""
    yield f"started {number}"
    yield f"done {number}"


slackbot.main()
