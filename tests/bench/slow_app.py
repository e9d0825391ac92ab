"""The commands of slow.py and growth.py on top of slackbot.py."""

import time

import slackbot


@slackbot.command("/slow")
def slow(request, number: int):
    """Answer at once, and again two seconds later."""
    yield f"started {number}"
    time.sleep(2)
    yield f"done {number}"


@slackbot.command("/plain")
def plain(request, number: int):
    """Take two seconds."""
    time.sleep(2)
    return f"done {number}"


@slackbot.command("/twice")
def twice(request, number: int):
    """Answer at once, and again at once."""
    yield f"started {number}"
    yield f"done {number}"


slackbot.main()
