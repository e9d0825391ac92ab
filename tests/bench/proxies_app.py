"""The commands of proxies.py. IDLE_SECONDS in the environment sets slackbot.py's own."""

import os
import time

import slackbot

slackbot.IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", slackbot.IDLE_SECONDS))


class Connection(slackbot.Connection):
    """Counts how many there have been."""

    count = 0

    def __init__(self, server, sock):
        super().__init__(server, sock)
        Connection.count += 1


@slackbot.command("/greet")
def greet(request, name: str):
    """Greet somebody after 0.3 seconds."""
    time.sleep(0.3)
    return f"Hello {slackbot.escape(name)}!"


@slackbot.command("/connections", inline=True)
def connections(request):
    """Say how many connections there have been."""
    return str(Connection.count)


slackbot.Connection = Connection
slackbot.main()
