"""slack_bolt: its own server when run, Flask's adapter when gunicorn imports `flask_app`."""

import os
import time

from slack_bolt import App
from slack_bolt.authorization import AuthorizeResult

import common


def authorize(enterprise_id, team_id):
    """Authorize every request without asking slack.com, which this machine can't reach."""
    return AuthorizeResult(enterprise_id=enterprise_id, team_id=team_id, bot_token="xoxb-1",
                           bot_id="B1", bot_user_id="U1")


app = App(signing_secret=common.SECRET.decode(), authorize=authorize)


@app.command("/hello")
def hello(ack, command):
    """Answer one command; bolt has verified and parsed it."""
    ack(**common.hello(command))


@app.command("/slow")
def slow(ack, respond, command):
    """Send the first answer at once and the delayed one two seconds later."""
    ack(**common.started(command))
    time.sleep(2)
    respond(f"done {command['text']}")


def flask_app():
    """Make the Flask application that bolt's documentation shows."""
    from flask import Flask, request
    from slack_bolt.adapter.flask import SlackRequestHandler
    flask, handler = Flask(__name__), SlackRequestHandler(app)
    flask.post("/slack/commands")(lambda: handler.handle(request))
    return flask


if __name__ == "__main__":
    app.start(int(os.environ["PORT"]), path="/slack/commands")
