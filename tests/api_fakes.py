"""Slack's Web API and an incoming webhook as a real server, with Slack's own objections; what
Slack posts beside slash commands; and a bot in front of all that it talks to."""

import contextlib
import itertools
import json
import re
import subprocess
import threading
import time
import types
import urllib.parse

import fakes

TOKEN, APP_TOKEN = "xoxb-1-notarealtoken", "xapp-1-notarealtoken"
HOOK_TOKEN = "webhook-5ecret"  # that /post asks for
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
TEAM, BOT_NAME, BOT_USER, BOT_ID = "Example <Team>", "qa-bot", "U0BOT", "B0BOT"
TEXT_CHARACTERS = 40_000  # Slack cuts off what is longer


def refusal(word, status=200, **headers):
    """The answer with which the Web API says no."""
    return fakes.reply(status, {"ok": False, "error": word}, **headers)


def arguments(seen):
    """The arguments of a call, however they came: in a query, a form or as JSON."""
    kind = seen.headers.get("Content-Type", "").partition(";")[0].lower()
    if kind == "application/json":
        return {**seen.query, **json.loads(seen.body)}
    form = urllib.parse.parse_qsl(seen.body.decode()) if kind.endswith("urlencoded") else ()
    given = {**seen.query, **dict(form)}
    for name in {"blocks", "files"} & set(given):
        given[name] = json.loads(given[name])
    return given


class Call:
    """A call that has arrived, when (monotonic), with what, and what it was answered."""

    def __init__(self, seen, method, given, answer):
        self.method, self.given, self.answer, self.at = method, given, answer, seen.started
        self.body, self.authorization = seen.body, seen.headers.get("Authorization")

    @property
    def ok(self):
        return self.answer[1] == 200 and b'"ok": false' not in self.answer[3]


class Api(fakes.Fake):
    """https://slack.com/api/, the URLs to upload files to, and an incoming webhook.

    *faults* is a function of the method ("upload" and "hook" are two as well) and its arguments,
    and gives the answer of a call that fails, or None."""

    def __init__(self, faults=lambda method, given: None):
        self.faults, self.calls, self.arrival = faults, [], threading.Condition()
        self.numbers, self.files = itertools.count(1), {}

    @property
    def url(self):
        return self.origin + "/api/"

    @property
    def hook(self):
        return self.origin + "/services/T1/B1/5ecret"

    def answer(self, seen):
        _, first, method = seen.path.split("/", 2)
        method = {"upload": "upload", "services": "hook"}.get(first, method)
        try:
            given = {} if method == "upload" else arguments(seen)
            answer = self.faults(method, given) or self._take(seen, method, given)
        except (ValueError, TypeError, AttributeError):
            given, answer = {}, refusal("invalid_json")
        with self.arrival:
            self.calls.append(Call(seen, method, given, answer))
            self.arrival.notify_all()
        return answer

    def _take(self, seen, method, given):
        if method == "hook":
            word = fakes.objection(given)
            return ("status", 400, {"Content-Type": "text/plain"}, word.encode()) if word else \
                ("status", 200, {"Content-Type": "text/plain"}, b"ok")
        if method == "upload":
            file = self.files[seen.path]
            file["data"] = seen.body
            return "status", 200, {"Content-Type": "text/plain"}, b"OK - %d" % len(seen.body)
        call = getattr(self, "_" + method.replace(".", "_"), None)
        if not call:
            return refusal("unknown_method")
        token = APP_TOKEN if method == "apps.connections.open" else TOKEN
        if seen.headers.get("Authorization") != f"Bearer {token}":
            return refusal("invalid_auth" if seen.headers.get("Authorization") else "not_authed")
        word, more = call(given)
        return refusal(word) if word else fakes.reply(200, {"ok": True, **more})

    def _auth_test(self, given):
        return "", {"url": "https://example.slack.com/", "team": TEAM, "team_id": "T0001",
                    "user": BOT_NAME, "user_id": BOT_USER, "bot_id": BOT_ID}

    def _apps_connections_open(self, given):
        return "", {"url": "ws://127.0.0.1:9/link?ticket=1"}

    def _chat_postMessage(self, given):
        if not given.get("channel"):
            return "channel_not_found", {}
        if len(given.get("text") or "") > TEXT_CHARACTERS:
            return "msg_too_long", {}
        return fakes.objection(given), {
            "channel": given["channel"], "ts": f"1700000000.{next(self.numbers):06}"}

    def _files_getUploadURLExternal(self, given):
        if not given.get("filename") or int(given.get("length") or 0) < 1:
            return "invalid_arguments", {}
        name = f"F{next(self.numbers):05}"
        path = f"/upload/v1/{name}"
        self.files[path] = {"id": name, "name": given["filename"], "length": int(given["length"])}
        # Slack's is another host, to which no token may go: localhost is, beside 127.0.0.1.
        return "", {"upload_url": f"http://localhost:{self.server.server_port}{path}?ticket=1",
                    "file_id": name}

    def _files_completeUploadExternal(self, given):
        known = {file["id"]: file for file in self.files.values()}
        for each in given.get("files") or [{}]:
            file = known.get(each.get("id"), {})
            if len(file.get("data", b"")) != file.get("length"):
                return "file_not_found", {}
            file["channel"] = given.get("channel_id") or given.get("channels")
        return "", {"files": given["files"]}

    def of(self, method, **given):
        """The calls of a *method* so far, those with the arguments *given*."""
        with self.arrival:
            return [call for call in self.calls if call.method == method
                    and given.items() <= call.given.items()]

    def wait(self, method, count=1, timeout=fakes.PATIENCE, **given):
        """The calls of a *method* as soon as there are *count* of them that went well."""
        deadline = time.monotonic() + timeout
        while len(found := [call for call in self.of(method, **given) if call.ok]) < count:
            assert time.monotonic() < deadline, \
                f"{len(found)} of {count} calls of {method} came within {timeout} s"
            with self.arrival:
                self.arrival.wait(0.01)
        return found


# ---- what Slack posts

serial = itertools.count(1)
DEEP = "[" * 100_000
BAD_JSON = ["", "{", "null null", "'x'", DEEP, '{"a":' * 20_000, '{"type": ' + "1" * 5000 + "}",
            "{\0}"]
NO_OBJECT = ["[]", "null", '"x"', "5", "true", '["block_actions"]']


def send(bot, path, body, kind=FORM, secret=fakes.SECRET, **headers):
    """Post *body* (bytes) as Slack does, signed; a header that is None is left out."""
    headers = {"Content-Type": kind, **fakes.sign(body, secret), **headers}
    return bot.request("POST", path, body, {name: value for name, value in headers.items()
                                            if value is not None})


def action(value, url="", /, **changes):
    """The payload of a press of a button; a change to None leaves a field out."""
    payload = {
        "type": "block_actions", "token": "verification", "api_app_id": "A1",
        "team": {"id": "T0001", "domain": "example"}, "enterprise": None,
        "user": {"id": "U1", "username": "ann", "name": "ann", "team_id": "T0001"},
        "channel": {"id": "C1", "name": "test"}, "trigger_id": f"1.2.{next(serial)}",
        "container": {"type": "message", "message_ts": "1.2", "channel_id": "C1"},
        "message": {"type": "message", "text": "x", "ts": "1.2", "bot_id": BOT_ID},
        "response_url": url, "actions": [{
            "type": "button", "action_id": "run", "block_id": "b1", "value": value,
            "text": {"type": "plain_text", "text": "Run"}, "action_ts": "1.2"}], **changes}
    return {name: value for name, value in payload.items() if value is not None}


# Interactions that aren't with a button of the bot's, as changes to an `action`.
OTHER_ACTIONS = [
    {"actions": [{"type": "button", "action_id": "other", "value": "/echo a"}]},
    {"actions": [{"type": "button", "action_id": "run2", "value": "/echo a"}]},
    {"actions": [{"type": "static_select", "action_id": "x",
                  "selected_option": {"value": "/echo a"}}]},
    {"type": "view_submission", "actions": None, "view": {"id": "V1", "state": {"values": {}}}},
    {"type": "view_closed", "actions": None, "view": {"id": "V1"}},
    {"type": "shortcut", "callback_id": "run", "actions": None, "channel": None},
    {"type": "message_action", "callback_id": "run", "actions": None},
    {"type": "block_suggestion", "action_id": "run", "value": "/echo a", "actions": None},
    {"type": "interactive_message", "callback_id": "run"}]


def payload(data):
    """*data* as the form that an interaction comes in."""
    data = data if isinstance(data, str) else json.dumps(data)
    return urllib.parse.urlencode({"payload": data}).encode()


def mention(said, channel="C2", /, **changes):
    """The body of a mention, as a dict; *changes* are to its event."""
    event = {"type": "app_mention", "user": "U1", "text": said, "ts": "1700000000.000100",
             "event_ts": "1700000000.000100", "channel": channel, "client_msg_id": "x",
             "team": "T0001", **changes}
    return {"type": "event_callback", "token": "verification", "team_id": "T0001",
            "api_app_id": "A1", "event_id": f"Ev{next(serial):09}", "event_time": 1700000000,
            "event": {name: value for name, value in event.items() if value is not None},
            "authorizations": [{"enterprise_id": None, "team_id": "T0001", "user_id": BOT_USER,
                                "is_bot": True, "is_enterprise_install": False}]}


def direct(said, channel="D2", /, **changes):
    """The body of a direct message, as a dict."""
    return mention(said, channel, **{"type": "message", "channel_type": "im", **changes})


def tell(bot, body, **headers):
    """Send an event: the HTTP answer."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(bot, "/slack/events", body, JSON, **headers)


# ---- a bot, and all that it talks to

COMMANDS = '''
import pathlib, time, slackbot
from slackbot import escape

@slackbot.command("/echo")
def echo(request, *words: str):
    "Say the words again."
    return "echo: " + escape(" | ".join(words))

@slackbot.command("/who")
def who(request):
    "Say who asks, and where."
    return " ".join(["who:", request.user_name or "?", request.user_id, request.channel_id,
                     request.team_id])

@slackbot.command("/late")
def late(request, gate):
    "Wait for a file before the first word."
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)
    return "late"

@slackbot.command("/many")
def many(request, count: int):
    "Say several things."
    for number in range(count):
        yield f"{number}"

@slackbot.command("/oops")
def oops(request):
    "Refuse."
    raise slackbot.UserError("Not today.")

@slackbot.command("/fail")
def fail(request):
    "Fail."
    raise RuntimeError("a bug")

@slackbot.command("/quiet")
def quiet(request):
    "Say nothing."

@slackbot.command("/long")
def long(request):
    "Say too much."
    return "x" * 50_000

@slackbot.command("/blocks")
def blocks(request):
    "Show a button."
    return {"text": "blocks", "blocks": [
        {"type": "section", "text": {"type": "mrkdwn", "text": "blocks"}},
        {"type": "actions", "elements": [slackbot.button("Again", "/blocks")]}]}

@slackbot.webhook("text")
def text(data):
    return f"got {escape(data)}"

@slackbot.webhook("dict")
def dict_(data):
    return {"text": "a dict", "blocks": [{"type": "divider"}]}

@slackbot.webhook("none")
def none(data):
    pass

@slackbot.webhook("bug")
def bug(data):
    raise RuntimeError("a bug in a webhook")

@slackbot.webhook("slow")
def slow(data):
    late(None, data["gate"])
    return "slow is done"

slackbot.main()
'''


class Faults:
    """Faults of an `Api`, by the channel's name or the text of what is posted to the webhook:
    429-N and 500-N fail once, not_found-N, not_in_channel-N and garbage-N always; a text with
    "hang" in it gets no answer."""

    def __init__(self):
        self.failed = set()

    def __call__(self, method, given):
        if "hang" in str(given.get("text")):
            return "silence"
        said = str(given.get("channel", given.get("text", "")))
        found = re.search("(429|500|garbage|not_found|not_in_channel)-([0-9]+)", said)
        if not found or found[0] in self.failed:
            return None
        if found[1] in ("429", "500"):
            self.failed.add(found[0])
        return {"429": refusal("ratelimited", 429, **{"Retry-After": "1"}),
                "500": ("status", 500), "garbage": ("status", 200),
                "not_found": refusal("channel_not_found"),
                "not_in_channel": refusal("not_in_channel")}[found[1]]


@contextlib.contextmanager
def run_services(script, constants=None, **environ):
    """A *script*'s bot, its *constants* and *environ* as of a `Bot`, in front of a Slack, its Web
    API and a JIRA: `bot`, `slack`, `api`, `jira`, the `script`, and the `environ` in which it
    runs."""
    with fakes.Slack() as slack, Api(Faults()) as api, fakes.Jira("cloud") as jira:
        jira.reset(issues=fakes.issues(12))
        settings = {"SLACK_BOT_TOKEN": TOKEN, "SLACK_API_URL": api.url,
                    "SLACK_HOOKS_ORIGINS": slack.origin, "SLACK_WEBHOOK_URL": api.hook,
                    "SLACKBOT_WEBHOOK_TOKEN": HOOK_TOKEN, "SLACKBOT_ACK_SECONDS": 2.5,
                    "JIRA_URL": jira.origin, "JIRA_USERNAME": jira.username,
                    "JIRA_API_TOKEN": jira.token, "JIRA_PROJECT": "APP", **environ}
        with fakes.Bot(script=script, constants=constants, **settings) as bot:
            yield types.SimpleNamespace(bot=bot, slack=slack, api=api, jira=jira, script=script,
                                        environ=bot.environ)


def until(condition, timeout=fakes.PATIENCE):
    """Wait until *condition* is true; what it is then."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.005)
    return found


def until_logged(bot, words, timeout=fakes.PATIENCE):
    """Wait until the bot's log has some *words*: its lines are written a moment later."""
    until(lambda: words in bot.output or bot.process.poll() is not None, timeout)
    assert words in bot.output, bot.output


def check_log(bot):
    """There is no traceback in the bot's log, but those of handlers that raise "a bug"."""
    marker = f"the-end-of-the-log-{next(serial):06}"
    bot.get("/healthz", **{"X-Request-ID": marker})
    until_logged(bot, marker)
    errors = re.findall(r"^Traceback .*\n(?:[ \t].*\n)*(.*)$", bot.output, re.MULTILINE)
    assert [error for error in errors if "a bug" not in error] == [], bot.output


def accepted(bot):
    """How many commands the bot has accepted up to now. One that is just ending may count twice
    for a moment, as done and as running; so the least of some looks is right."""
    looks = [bot.get("/healthz").json for _ in range(3)]
    return min(state["running"] + state["waiting"] + state["done"] for state in looks)


def finish(bot):
    """Wait until no command is running or waiting."""
    until(lambda: not (state := bot.get("/healthz").json)["running"] + state["waiting"])


def texts(messages):
    return [message["text"] for message in messages]


def press(made, value, /, **changes):
    """Press a button: its response_url, once the bot has acknowledged it."""
    url = made.slack.response_url()
    got = send(made.bot, "/slack/interactions", payload(action(value, url, **changes)))
    assert (got.status, got.body) == (200, b""), got.text
    return url


def answers_to_press(made, value, count=0, /, **changes):
    """All messages that a press of a button brings, *count* at least."""
    url = press(made, value, **changes)
    made.slack.wait(url, count)
    finish(made.bot)
    return [post.message for post in made.slack.posts[url]]


def answers_to_event(made, body, count=1):
    """All messages that an event brings, *count* at least, in a channel of its own."""
    channel = body["event"]["channel"] = f"{body['event']['channel']}{next(serial)}"
    got = tell(made.bot, body)
    assert (got.status, got.body) == (200, b""), got.text
    made.api.wait("chat.postMessage", count, channel=channel)
    finish(made.bot)
    return [call.given for call in made.api.of("chat.postMessage", channel=channel)]


# ---- the bot's command line

def start(*arguments, script=fakes.ROOT / "slackbot.py", environ=()):
    """`python slackbot.py` until it ends, with nothing but *environ* in its environment."""
    bot = fakes.Bot(*arguments, script=script, **{
        "PORT": None, "HOST": None, "SLACK_SIGNING_SECRET": None, **dict(environ)})
    return subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=fakes.PATIENCE)


def run_in_terminal(made, line):
    """`run` with *line* beside the bot of *made*, with its settings: a process."""
    return subprocess.Popen([*fakes.Bot("run", line, script=made.script).command_line],
                            env=made.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            text=True)


def printed_by(process):
    """What a process prints, but for what is random; and its exit status."""
    said, _ = process.communicate(timeout=fakes.PATIENCE)
    return re.sub(r"`[0-9a-f]{8}`", "`REFERENCE`", said), process.returncode


def buttons(message):
    """The buttons of a message by their labels."""
    rows = [block for block in message["blocks"] if block["type"] == "actions"]
    for row in rows:
        names = [each["action_id"] for each in row["elements"]]
        assert len(set(names)) == len(names), "Slack refuses the same action_id twice in a block"
    return {each["text"]["text"]: each for row in rows for each in row["elements"]}
