"""The second case of speed.py: a user's own command, which slackbot.py runs on its thread pool."""

import slackbot


@slackbot.command("/greet")
def greet(request, name: str):
    """Greet somebody."""
    return f"Hello {slackbot.escape(name)}!"


if __name__ == "__main__":
    slackbot.main()
