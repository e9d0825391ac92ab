"""The other doors: buttons, mentions, webhooks, files; and what `check` and `manifest` say."""

import concurrent.futures
import contextlib
import csv
import hashlib
import hmac
import io
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
import types
import urllib.parse

import pytest

import api_fakes
import fakes
import slackbot
import socket_fakes
from api_fakes import BOT_ID, BOT_USER, refusal
from test_server import calm, mutate

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
HOOK_TOKEN = "webhook-5ecret"
DOWN = "http://127.0.0.1:9/"
BEARER = {"Authorization": f"Bearer {HOOK_TOKEN}"}
serial = itertools.count(1)

COMMANDS = '''
import time, slackbot
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
def late(request, seconds: float):
    "Take some seconds before the first word."
    time.sleep(seconds)
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
    raise RuntimeError("a bug in a hook")

@slackbot.webhook("slow")
def slow(data):
    time.sleep(1.2)
    return "slow is done"

slackbot.main()
'''


def shaky(method, given):
    """Slack's Web API, which fails as the channel's name or the hook's text says."""
    if "hang" in str(given.get("text")):
        time.sleep(6)
    said = str(given.get("channel", given.get("text", "")))
    wanted = re.search("(429|500|garbage|not_found|not_in_channel)-([0-9]+)", said)
    if not wanted or method == "auth.test" or shaken.setdefault(wanted[0], 0):
        return None
    shaken[wanted[0]] = wanted[1] in ("429", "500")
    return {"429": refusal("ratelimited", 429, **{"Retry-After": "1"}),
            "500": ("status", 500), "garbage": ("status", 200),
            "not_found": refusal("channel_not_found"),
            "not_in_channel": refusal("not_in_channel")}[wanted[1]]


shaken = {}  # what has failed once


@contextlib.contextmanager
def world(script, **environ):
    """A bot with commands of its own in front of a Slack, its Web API and a JIRA."""
    with fakes.Slack() as slack, api_fakes.Api(shaky) as api, fakes.Jira("cloud") as jira:
        jira.reset(issues=fakes.issues(12))
        settings = {"SLACK_BOT_TOKEN": api_fakes.TOKEN, "SLACK_API_URL": api.url,
                    "SLACK_HOOKS_ORIGINS": slack.origin, "SLACK_WEBHOOK_URL": api.hook,
                    "SLACKBOT_WEBHOOK_TOKEN": HOOK_TOKEN, "SLACKBOT_ACK_SECONDS": 0.6,
                    "JIRA_URL": jira.origin, "JIRA_USERNAME": jira.username,
                    "JIRA_API_TOKEN": jira.token, "JIRA_PROJECT": "APP", **environ}
        with fakes.Bot(script=script, **settings) as bot:
            yield types.SimpleNamespace(bot=bot, slack=slack, api=api, jira=jira, script=script,
                                        environ=bot.environ)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The path of a bot with commands and webhooks of its own."""
    path = tmp_path_factory.mktemp("doors") / "own.py"
    path.write_text(COMMANDS)
    return path


@pytest.fixture(scope="module")
def all_(script):
    """One world for all tests that don't need one of their own."""
    with world(script) as made:
        yield made
        assert "5ecret" not in made.bot.output and api_fakes.TOKEN not in made.bot.output


@pytest.fixture(autouse=True)
def no_bugs(request):
    """After each test, nothing has gone wrong inside the bot but for what should."""
    yield
    if "all_" in request.fixturenames:
        bot = request.getfixturevalue("all_").bot
        bot.lines[:] = [line for line in bot.lines if "in fail" not in line]
        told = "".join(bot.lines[getattr(bot, "read", 0):])
        if "a bug" in told:
            bot.read = len(bot.lines)
        calm(bot)


def send(bot, path, body, kind=FORM, secret=fakes.SECRET, **headers):
    """Post *body* (bytes) as Slack does, signed."""
    headers = {"Content-Type": kind, **fakes.sign(body, secret), **headers}
    return bot.request("POST", path, body, {name: value for name, value in headers.items()
                                            if value is not None})


def until(test, timeout=10):
    """Wait until *test* is true, and give what it gives."""
    deadline = time.monotonic() + timeout
    while not (found := test()):
        assert time.monotonic() < deadline, "it doesn't happen"
        time.sleep(0.02)
    return found


def taken(bot):
    """How many commands the bot has taken up to now."""
    state = bot.get("/healthz").json
    return state["running"] + state["waiting"] + state["done"]


def idle(bot):
    """Wait until no command is running."""
    until(lambda: not (state := bot.get("/healthz").json)["running"] + state["waiting"])


def texts(messages):
    return [message["text"] for message in messages]


# ---- buttons: POST /slack/interactions ----

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


def payload(data):
    """*data* as the form that an interaction comes in."""
    data = data if isinstance(data, str) else json.dumps(data)
    return urllib.parse.urlencode({"payload": data}).encode()


def press(made, value, /, **changes):
    """Press a button: its response_url, once the bot has taken it."""
    url = made.slack.response_url()
    got = send(made.bot, "/slack/interactions", payload(action(value, url, **changes)))
    assert (got.status, got.body) == (200, b""), got.text
    return url


def pressed(made, value, count=0, /, **changes):
    """All messages that a press of a button brings, *count* at least."""
    url = press(made, value, **changes)
    made.slack.wait(url, count)
    idle(made.bot)
    return [post.message for post in made.slack.posts[url]]


def test_a_button_runs_its_command_line_and_the_response_url_gets_the_answer(all_):
    message, = pressed(all_, "/echo a 'b c'")
    assert message["text"] == "echo: a | b c" and message["response_type"] == "ephemeral"


def test_a_button_is_pressed_in_the_name_of_its_presser(all_):
    assert texts(pressed(all_, "/who")) == ["who: ann U1 C1 T0001"]


def test_a_press_is_answered_at_once_and_told_of_work_only_if_it_is_slow(all_):
    begin = time.monotonic()
    url = press(all_, "/late 1.2")
    assert time.monotonic() - begin < 0.58
    said = texts(all_.slack.wait(url, 2))
    assert "Working on" in said[0] and "/late 1.2" in said[0] and said[1:] == ["late"]


@pytest.mark.parametrize("count, wanted", [(0, ["Done."]), (1, "0"), (3, "012"), (5, "01234"),
                                           (9, "01238")])
def test_a_press_gets_at_most_five_answers_in_their_order(all_, count, wanted):
    said = texts(pressed(all_, f"/many {count}"))
    assert said == list(wanted) or not count and said == []


@pytest.mark.parametrize("line, word", [
    ("/oops", "Not today."), ("/fail", "Sorry"), ("/unknown", "/echo"), ("/many x", "COUNT"),
    ("/many", "/many COUNT"), ("", "/echo"), ("/", "/echo"), ("nonsense", "/echo")])
def test_a_press_that_fails_says_why(all_, line, word):
    message, = pressed(all_, line, 1)
    assert word in message["text"] and message["response_type"] == "ephemeral"


def test_a_press_with_nothing_to_say_says_nothing(all_):
    assert pressed(all_, "/quiet") == []


def test_a_button_can_do_no_more_than_its_presser_could_type(all_):
    for line in ("/echo &amp; &lt;!channel&gt;", "/echo <!channel> <@U1|ann>", "/echo 'a\\' b"):
        typed = all_.bot.command(slackbot.escape(line)).json["text"]
        said, = texts(pressed(all_, line))
        assert said == typed and "<!channel>" not in said


OTHER_PRESSES = [
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


@pytest.mark.parametrize("changes", OTHER_PRESSES, ids=str)
def test_what_is_no_button_of_ours_is_taken_and_nothing_happens(all_, changes):
    before = taken(all_.bot)
    assert pressed(all_, "/echo a", **changes) == [] and taken(all_.bot) == before


@pytest.mark.parametrize("changes", [{"channel": None}, {"team": None, "enterprise": {"id": "E1"}},
                                     {"container": None, "message": None}, {"enterprise": {}}],
                         ids=str)
def test_a_press_is_served_where_slack_leaves_out_what_it_may(all_, changes):
    assert texts(pressed(all_, "/echo a", **changes)) == ["echo: a"]


DEEP = "[" * 100_000
BAD_JSON = ["", "{", "null null", "'x'", DEEP, '{"a":' * 20_000, '{"type": ' + "1" * 5000 + "}",
            "{\0}"]
NO_OBJECT = ["[]", "null", '"x"', "5", "true", '["block_actions"]']


@pytest.mark.parametrize("text", BAD_JSON + NO_OBJECT, ids=lambda text: ascii(text)[:30])
def test_a_payload_that_is_no_json_object_is_refused(all_, text):
    got = send(all_.bot, "/slack/interactions", payload(text))
    assert got.status == 400 and list(got.json) == ["error"]


@pytest.mark.parametrize("body", [b"", b"payload", b"a=b", b"Payload={}", b"payload=%ff%fe",
                                  b"payload=%", b"&" * 5000], ids=lambda body: ascii(body)[:20])
def test_an_interaction_without_a_payload_is_refused(all_, body):
    assert send(all_.bot, "/slack/interactions", body).status == 400


LACKING = [{"type": None}, {"type": 5}, {"actions": None}, {"actions": []}, {"actions": {}},
           {"actions": "x"}, {"actions": [1]}, {"actions": [[]]}, {"user": None}, {"user": "U1"},
           {"user": []}, {"user": {"id": {}}}]


@pytest.mark.parametrize("changes", LACKING, ids=str)
def test_a_press_that_lacks_what_it_must_have_is_refused(all_, changes):
    before = taken(all_.bot)
    got = send(all_.bot, "/slack/interactions", payload(action("/echo a", **changes)))
    assert got.status == 400 and list(got.json) == ["error"]
    assert taken(all_.bot) == before


@pytest.mark.parametrize("value", [None, 5, {}, [], True, "\ud800", "\0", "x" * 100_000,
                                   "/" * 3000], ids=lambda value: ascii(value)[:20])
def test_a_press_of_an_odd_value_breaks_nothing(all_, value):
    url = all_.slack.response_url()
    got = send(all_.bot, "/slack/interactions", payload(action(value, url)))
    assert got.status in (200, 400)
    idle(all_.bot)


@pytest.mark.parametrize("url", ["https://evil.example/", "http://hooks.slack.com/x", "x", "/x",
                                 "https://hooks.slack.com@evil.example/", "file:///etc/passwd"])
def test_a_press_with_a_foreign_response_url_is_refused(all_, url):
    before = taken(all_.bot)
    for changes in ({}, *OTHER_PRESSES[:1]):
        got = send(all_.bot, "/slack/interactions", payload(action("/echo a", url, **changes)))
        assert got.status == 400 and list(got.json) == ["error"]
    assert taken(all_.bot) == before


def test_a_press_without_response_url_is_taken(all_):
    for changes in ({}, {"response_url": None}):
        assert send(all_.bot, "/slack/interactions",
                    payload(action("/echo a", **changes))).status == 200
    idle(all_.bot)


def test_slow_slack_keeps_neither_the_presser_nor_the_door(script):
    with fakes.Slack(faults=lambda seen: "silence") as slack, \
            fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin) as bot:
        for _ in range(3):
            begin = time.monotonic()
            body = payload(action("/echo a", slack.response_url()))
            assert send(bot, "/slack/interactions", body).status == 200
            assert bot.command("/echo b").json["text"] == "echo: b"
            assert time.monotonic() - begin < 2


# ---- mentions and direct messages: POST /slack/events ----

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


def told(made, body, count=1):
    """The arguments of the messages in the channel of an event that is sent."""
    channel = body["event"]["channel"] = f"{body['event']['channel']}{next(serial)}"
    got = tell(made.bot, body)
    assert got.status == 200, got.text
    made.api.wait("chat.postMessage", count, channel=channel)
    idle(made.bot)
    return [call.given for call in made.api.of("chat.postMessage", channel=channel)]


def challenge(got):
    """The challenge in an answer, which may be text, a form or JSON."""
    assert got.status == 200, got.text
    return got.json["challenge"] if got.headers["Content-Type"].startswith(JSON) else \
        got.text.removeprefix("challenge=")


@pytest.mark.parametrize("environ", [{}, {"SLACK_TEAM_ID": "T1"}, {
    "SLACK_VERIFICATION_TOKEN": "verification", "SLACK_SIGNING_SECRET": None}], ids=str)
def test_the_question_whether_it_is_us_is_answered(environ):
    asked = {"type": "url_verification", "token": "verification", "challenge": "3eZbrw1aB"}
    with fakes.Bot(**environ) as bot:
        assert challenge(tell(bot, asked)) == "3eZbrw1aB"
        assert tell(bot, {**asked, "token": "x"}, secret="wrong").status == 401


SAID = ["<@U0BOT> echo a 'b c'", "<@U0BOT> /echo a 'b c'", "<@U0BOT|qa-bot> echo a 'b c'",
        "  <@U0BOT>   echo a 'b c'  ", "<@U0BOT>\u00a0echo a 'b c'", "<@U0BOT>echo a 'b c'",
        "<@U0BOT>\necho a 'b c'", "<@U0BOT> echo a “b c”", "<@U0BOT> echo  a  'b c'"]


@pytest.mark.parametrize("make, text", [
    *((mention, text) for text in SAID), *((direct, text) for text in SAID[:2]),
    (direct, "echo a 'b c'"), (direct, "/echo a 'b c'"), (direct, " echo a 'b c'\n")])
def test_a_mention_and_a_direct_message_are_command_lines(all_, make, text):
    said, = told(all_, make(text))
    assert said["text"] == "echo: a | b c"


def test_a_mention_is_answered_in_a_thread_beneath_it(all_):
    said, = told(all_, mention("<@U0BOT> echo a"))
    assert said["thread_ts"] == "1700000000.000100"
    call, = all_.api.of("chat.postMessage", channel=said["channel"])
    assert call.authorization == f"Bearer {api_fakes.TOKEN}" and "token" not in said


def test_a_mention_in_a_thread_is_answered_in_that_thread(all_):
    said = told(all_, mention("<@U0BOT> many 2", thread_ts="1600000000.000200"), 2)
    assert {each["thread_ts"] for each in said} == {"1600000000.000200"}
    assert texts(said) == ["0", "1"]


@pytest.mark.parametrize("text, shown", [
    ("1 &amp; 2 &lt; 3", "1 | &amp; | 2 | &lt; | 3"),
    ("&amp;lt;", "&amp;lt;"), ("<@U9|ann> <#C9|general>", "@ann | #general"),
    ("<http://example.com|example.com>", "example.com"), ("<mailto:a@b.c|a@b.c>", "a@b.c"),
    ("&lt;!channel&gt;", "&lt;!channel&gt;"), ("it's", "it's")])
def test_what_slack_has_dressed_up_in_a_mention_is_undressed(all_, text, shown):
    said, = told(all_, mention(f"<@U0BOT> echo {text}"))
    assert said["text"] == f"echo: {shown}"


def test_half_a_character_is_no_reason_to_say_nothing(all_):
    said, = told(all_, mention("<@U0BOT> echo a\ud83d"))
    assert said["text"].startswith("echo: a")
    assert texts(pressed(all_, "/echo a\ud83d", 1))[0].startswith("echo: a")


def test_a_mention_runs_in_the_name_of_who_said_it(all_):
    said, = told(all_, mention("<@U0BOT> who"))
    assert re.fullmatch(rf"who: \S+ U1 {said['channel']} T0001", said["text"])


@pytest.mark.parametrize("make, text, word", [
    (mention, "<@U0BOT> unknown", "/echo"), (mention, "<@U0BOT>", "/echo"),
    (mention, "<@U0BOT> ", "/echo"), (direct, "hi there", "/echo"), (direct, "/", "/echo"),
    (mention, "<@U0BOT> many x", "COUNT"), (mention, "<@U0BOT> oops", "Not today."),
    (mention, "hey <@U0BOT> oops", "Not today."), (mention, "<@U9> and <@U0BOT> oops", "Not to"),
    (direct, "fail", "Sorry"), (mention, "<@U0BOT> help many", "/many COUNT")])
def test_a_mention_that_is_no_command_gets_help(all_, make, text, word):
    said, = told(all_, make(text))
    assert word in said["text"]


def test_a_mention_of_nothing_to_say_is_taken(all_):
    body = mention("<@U0BOT> quiet", "CQUIET")
    assert tell(all_.bot, body).status == 200
    idle(all_.bot)
    assert all_.api.of("chat.postMessage", channel="CQUIET") == []


def test_a_slow_command_keeps_slack_waiting_for_no_second(all_):
    begin = time.monotonic()
    assert tell(all_.bot, mention("<@U0BOT> late 1.2", "CSLOW")).status == 200
    assert time.monotonic() - begin < 0.58
    until(lambda: [call for call in all_.api.of("chat.postMessage", channel="CSLOW")
                   if call.given["text"] == "late"])


def test_the_first_answers_to_messages_keep_their_order_in_a_channel(all_):
    channel, lines = f"CORDER{next(serial)}", ["late 0.25", "echo 1", "late 0.1", "echo 2", "oops",
                                               "unknown", "late 1.2", "echo 3", "many 2", "quiet",
                                               "echo 4"]
    for line in lines:
        assert tell(all_.bot, mention(f"<@U0BOT> {line}", channel)).status == 200
    other = mention("<@U0BOT> echo elsewhere", f"{channel}B")
    begin = time.monotonic()
    assert len(told(all_, other)) == 1  # which waits for nobody
    said = texts(call.given for call in all_.api.wait("chat.postMessage", 12, channel=channel))
    idle(all_.bot)
    words = ["late", "echo: 1", "late", "echo: 2", "Not today", "There is no", "Working on",
             "echo: 3", "0", "echo: 4"]
    firsts = [text for text in said if text != "1"]
    late = max(place for place, text in enumerate(firsts) if text == "late")
    assert late > 6 and len(firsts) == 11
    del firsts[late]  # of which "Working on" was the first answer
    assert all(word in text for word, text in zip(words, firsts, strict=True)), said
    assert time.monotonic() - begin < 5


def test_messages_that_wait_for_their_turn_keep_no_other_channel_waiting(script):
    with world(script) as made:
        for line in ["late 600", *["unknown"] * slackbot.TELL_THREADS]:
            assert tell(made.bot, mention(f"<@U0BOT> {line}", "CBUSY")).status == 200
        assert tell(made.bot, mention("<@U0BOT> late 600", "COTHER")).status == 200
        call, = made.api.wait("chat.postMessage", timeout=6, channel="COTHER")
        assert "Working on" in call.given["text"]


def test_an_answer_that_slack_refuses_keeps_the_next_one_in_its_channel_from_nothing(all_):
    channel = f"Cnot_found-{next(serial)}"
    for word in ("first", "second"):
        assert tell(all_.bot, mention(f"<@U0BOT> echo {word}", channel)).status == 200
    calls = until(lambda: (found := all_.api.of("chat.postMessage", channel=channel))[1:] and found)
    assert texts(call.given for call in calls) == ["echo: first", "echo: second"]
    idle(all_.bot)


def test_the_sizes_of_messages_are_kept(all_):
    said, = told(all_, mention("<@U0BOT> long"))
    assert 1000 < len(said["text"]) <= 13_000
    said, = told(all_, mention("<@U0BOT> blocks"))
    assert [block["type"] for block in said["blocks"]] == ["section", "actions"]


def test_the_same_event_runs_once(all_):
    body = mention("<@U0BOT> echo once", "CONCE")
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        got = [pool.submit(tell, all_.bot, body) for _ in range(6)]
        assert {each.result().status for each in got} == {200}
    for number in range(1, 4):
        assert tell(all_.bot, body, **{"X-Slack-Retry-Num": f"{number}",
                                       "X-Slack-Retry-Reason": "http_timeout"}).status == 200
    all_.api.wait("chat.postMessage", channel="CONCE")
    idle(all_.bot)
    assert len(all_.api.of("chat.postMessage", channel="CONCE")) == 1


def test_the_same_event_runs_once_even_while_it_runs(all_):
    body = mention("<@U0BOT> late 0.3", "CWHILE")
    for _ in range(3):
        assert tell(all_.bot, body, **{"X-Slack-Retry-Num": "1"}).status == 200
        time.sleep(0.05)
    idle(all_.bot)
    assert texts(call.given for call in all_.api.of(
        "chat.postMessage", channel="CWHILE")).count("late") == 1


def test_a_retry_of_an_event_that_never_arrived_runs(all_):
    body = mention("<@U0BOT> echo retried", "CRETRY")
    assert tell(all_.bot, body, **{"X-Slack-Retry-Num": "2"}).status == 200
    all_.api.wait("chat.postMessage", channel="CRETRY")


def test_the_same_words_in_another_event_run_again(all_):
    assert all(len(told(all_, mention("<@U0BOT> echo again"))) == 1 for _ in range(2))


IGNORED = [
    mention("<@U0BOT> echo a", bot_id="B9"), mention("<@U0BOT> echo a", bot_id=BOT_ID),
    mention("<@U0BOT> echo a", user=BOT_USER), direct("echo a", user=BOT_USER),
    direct("echo a", bot_id=BOT_ID, user=BOT_USER), direct("echo a", subtype="bot_message"),
    direct("echo a", subtype="message_changed", message={"text": "echo a", "user": "U1"}),
    direct("echo a", subtype="message_deleted", text=None), direct("echo a", subtype="me_message"),
    mention("echo a", type="message", channel_type="channel"), mention("echo a", type="message"),
    mention("<@U0BOT> echo a", type="message", channel_type="group"),
    mention("x", type="reaction_added", text=None), mention("x", type="app_home_opened"),
    mention("x", type=None), {**mention("echo a"), "type": "app_rate_limited"},
    {"type": "app_rate_limited", "token": "x", "team_id": "T0001", "minute_rate_limited": 1}]


def test_bots_itself_and_what_is_said_to_others_are_ignored(all_):
    before, calls = taken(all_.bot), len(all_.api.of("chat.postMessage"))
    for body in IGNORED:
        assert tell(all_.bot, body).status == 200, body
    assert len(told(all_, mention("<@U0BOT> echo a"))) == 1
    assert taken(all_.bot) == before + 1
    assert len(all_.api.of("chat.postMessage")) == calls + 1


def test_without_a_bot_token_events_are_taken_and_the_log_says_what_is_missing(script):
    with world(script, SLACK_BOT_TOKEN=None) as made:
        for body in (mention("<@U0BOT> echo a"), direct("echo a"), direct("unknown")):
            assert tell(made.bot, body).status == 200
        until(lambda: "SLACK_BOT_TOKEN" in made.bot.output)
        assert made.api.calls == [] and taken(made.bot) == 0
        calm(made.bot)


def test_slack_is_waited_for_and_asked_again_in_order(all_):
    channels = {word: f"C{word}-{next(serial)}" for word in ("429", "500")}
    for channel in channels.values():
        assert tell(all_.bot, mention("<@U0BOT> many 3", channel)).status == 200
    for word, channel in channels.items():
        calls = all_.api.wait("chat.postMessage", 3, channel=channel)
        assert texts(call.given for call in calls) == ["0", "1", "2"]
        failed, *_ = all_.api.of("chat.postMessage", channel=channel)
        assert calls[0].at - failed.at >= (0.99 if word == "429" else 0.1)


@pytest.mark.parametrize("word", ["not_found", "garbage"])
def test_slacks_no_is_final_and_logged(all_, word):
    channel = f"C{word}-{next(serial)}"
    assert tell(all_.bot, mention("<@U0BOT> echo a", channel)).status == 200
    until(lambda: all_.api.of("chat.postMessage", channel=channel))
    idle(all_.bot)
    time.sleep(0.1)
    assert len(all_.api.of("chat.postMessage", channel=channel)) == 1
    assert ("channel_not_found" if word == "not_found" else "WARNING") in all_.bot.output
    assert api_fakes.TOKEN not in all_.bot.output


@pytest.mark.parametrize("text", BAD_JSON + NO_OBJECT, ids=lambda text: ascii(text)[:30])
def test_an_event_that_is_no_json_object_is_refused(all_, text):
    got = tell(all_.bot, text.encode())
    assert got.status == 400 and list(got.json) == ["error"]


ODD = [b"\xff{}", b'{"type": "event_callback"}', b'{"type": "event_callback", "event": "x"}',
       b'{"type": "event_callback", "event": []}', b'{"type": 5}', b"{}", b'{"type": NaN}',
       b'{"type": "url_verification"}', b'{"type": "url_verification", "challenge": {}}',
       rb'{"type": "url_verification", "challenge": "\ud800"}',
       b'{"type": "url_verification", "challenge": "a\\r\\nSet-Cookie: b"}', *(
           json.dumps(mention("<@U0BOT> echo a", **changes)).encode() for changes in (
               {"channel": None}, {"channel": {}}, {"text": None}, {"text": 5}, {"ts": None},
               {"user": None}, {"user": []}, {"ts": {}, "thread_ts": []}, {"text": "\ud800"})),
       json.dumps({**mention("<@U0BOT> echo a"), "event_id": {}}).encode(),
       json.dumps({**mention("<@U0BOT> echo a"), "authorizations": "x"}).encode()]


@pytest.mark.parametrize("body", ODD, ids=lambda body: ascii(body)[:60])
def test_an_odd_event_is_taken_or_refused_but_breaks_nothing(all_, body):
    got = tell(all_.bot, body)
    assert got.status in (200, 400) and "Set-Cookie" not in got.headers
    idle(all_.bot)


def test_who_waits_for_an_answer_to_a_mention_is_told_when_the_process_ends(script):
    with world(script, SLACKBOT_GRACE_SECONDS=0.2) as made:
        assert tell(made.bot, mention("<@U0BOT> late 60", "CEND")).status == 200
        until(lambda: taken(made.bot))
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(6) == 0
        said = texts(call.given for call in made.api.of("chat.postMessage", channel="CEND"))
        assert said and "restart" in said[-1] and len(said) <= 2


def test_who_waits_is_told_when_the_process_ends_even_if_slack_fails_once(script):
    channel = f"C500-{next(serial)}"
    with world(script, SLACKBOT_GRACE_SECONDS=0.1, SLACKBOT_ACK_SECONDS=2.5) as made:
        assert tell(made.bot, mention("<@U0BOT> late 60", channel)).status == 200
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(8) == 0
        call, = [call for call in made.api.of("chat.postMessage", channel=channel) if call.ok]
        assert "restart" in call.given["text"]


def test_who_waits_for_a_turn_is_told_when_the_process_ends_too(script):
    with world(script, SLACKBOT_GRACE_SECONDS=0.5) as made:
        for line in ("echo hang", "late 60", "late 61"):  # the first one's post takes 6 seconds
            assert tell(made.bot, mention(f"<@U0BOT> {line}", "CTURN")).status == 200
        until(lambda: taken(made.bot) == 3)
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(10) == 0
        said = texts(call.given for call in made.api.of("chat.postMessage", channel="CTURN"))
        for line in ("/late 60", "/late 61"):
            assert any("restart" in text and line in text for text in said), said


def test_many_presses_take_no_more_threads_than_there_are_workers(script):
    with world(script, SLACKBOT_WORKERS=2, SLACKBOT_QUEUE=100) as made:
        for _ in range(60):
            press(made, "/late 0.3")
        status = open(f"/proc/{made.bot.process.pid}/status").read()
        assert int(re.search(r"Threads:\s+(\d+)", status)[1]) < 50
        calm(made.bot)


@pytest.mark.parametrize("door", ["button", "mention"])
def test_the_journal_knows_who_waits_at_the_other_doors(script, tmp_path, door):
    journal = {"SLACKBOT_JOURNAL": tmp_path / "journal", "SLACKBOT_ACK_SECONDS": 0.1}
    with world(script, **journal) as made:
        url = made.slack.response_url()
        if door == "button":
            send(made.bot, "/slack/interactions", payload(action("/late 60", url)))
            made.slack.wait(url)
        else:
            tell(made.bot, mention("<@U0BOT> late 60", "CJOURNAL"))
            made.api.wait("chat.postMessage", channel="CJOURNAL")
        made.bot.process.kill()
        made.bot.process.wait()
        with fakes.Bot(script=made.script, **made.environ):
            said = made.slack.wait(url, 2) if door == "button" else [
                call.given for call in made.api.wait("chat.postMessage", 2, channel="CJOURNAL")]
    assert "Working on" in said[0]["text"] and "restart" in said[1]["text"]


# ---- both doors: it must be Slack who knocks ----

KNOCKS = [("/slack/interactions", FORM, payload(action("/echo a"))),
          ("/slack/interactions", FORM, payload(action("/echo a", **OTHER_PRESSES[0]))),
          ("/slack/events", JSON, json.dumps(mention("<@U0BOT> echo a")).encode()),
          ("/slack/events", JSON, b'{"type": "url_verification", "challenge": "abc"}')]


@pytest.mark.parametrize("path, kind, body", KNOCKS)
def test_every_door_for_slack_asks_for_the_signature(all_, path, kind, body):
    before = taken(all_.bot)
    for headers in ({"X-Slack-Signature": None}, {"X-Slack-Signature": "v0=é".encode()},
                    {"X-Slack-Request-Timestamp": "abc"}, {"secret": "wrong"}):
        got = send(all_.bot, path, body, kind, **headers)
        assert got.status == 401 and list(got.json) == ["error"]
    assert taken(all_.bot) == before


def test_without_a_secret_no_door_is_open():
    with fakes.Bot(SLACK_SIGNING_SECRET=None, SLACK_BOT_TOKEN=api_fakes.TOKEN) as bot:
        for path, kind, body in KNOCKS:
            got = send(bot, path, body, kind, secret="")
            assert got.status == 503 and list(got.json) == ["error"]


@pytest.mark.parametrize("path", ["/slack/interactions", "/slack/events", "/post", "/post/text"])
def test_another_method_is_refused(all_, path):
    for method in ("GET", "PUT", "DELETE"):
        got = all_.bot.request(method, path, headers={"Content-Length": "0"})
        assert (got.status, got.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path, kind, body", [KNOCKS[0], KNOCKS[2]])
def test_another_type_of_content_is_refused(all_, path, kind, body):
    other = {FORM: JSON, JSON: FORM}[kind]
    for wrong in (other, "text/plain", "multipart/form-data; boundary=x", None, "", "x" * 500):
        assert send(all_.bot, path, body, wrong).status == 415
    assert send(all_.bot, path, body, f"{kind.title()} ; charset=utf-8").status == 200


def test_the_token_and_the_team_are_checked_where_slack_puts_them():
    environ = {"SLACK_VERIFICATION_TOKEN": "right", "SLACK_TEAM_ID": "T1,T2"}
    rows = [("right", "T2", 200), ("wrong", "T2", 401), ("right", "T3", 401), (None, "T1", 401),
            ("right", None, 401), ("", "", 401), ({}, [], 401)]
    with fakes.Bot(**environ) as bot:
        for token, team, status in rows:
            body = payload(action("/hello", token=token, team=team and {"id": team}))
            assert send(bot, "/slack/interactions", body).status == status, (token, team)
            body = {**mention("<@U0BOT> hello"), "token": token, "team_id": team}
            assert tell(bot, body).status == status, (token, team)
        calm(bot)


def test_an_ssl_check_is_answered_at_the_door_for_buttons_too(all_):
    got = send(all_.bot, "/slack/interactions", b"token=abc&ssl_check=1", secret="wrong")
    assert (got.status, got.body) == (200, b"")


def test_accidents_on_the_way_are_answered(all_):
    bodies = [*KNOCKS, ("/post", JSON, b'{"action": "opened", "issue": {"title": "x"}}'),
              ("/post/text", FORM, b"a=b&c=d%20e&f=%C3%BC")]
    for seed in range(200):
        chance = random.Random(seed)
        path, kind, body = chance.choice(bodies)
        got = send(all_.bot, path, mutate(chance, body), kind, **BEARER)
        assert got.status in (200, 400), (seed, got.text)
    idle(all_.bot)


# ---- buttons in messages ----

def test_a_button_is_what_slack_takes_for_one():
    made = slackbot.button("Refresh", "/jira release 2.3")
    assert made.pop("text").items() >= {"type": "plain_text", "text": "Refresh"}.items()
    assert made == {"type": "button", "action_id": "run", "value": "/jira release 2.3"}


@pytest.mark.parametrize("label, line", [("x" * 75, "/echo"), ("x" * 76, "/echo"),
                                         ("a", "/echo " + "x" * 1994), ("👍" * 80, "/echo é")])
def test_a_button_keeps_slacks_limits(label, line):
    made = slackbot.button(label, line)
    assert 1 <= len(made["text"]["text"]) <= 75 and made["value"] == line


def test_a_command_line_that_is_too_long_for_a_button_is_a_mistake_not_another_command():
    with pytest.raises(ValueError, match="long"):
        slackbot.button("Refresh", "/echo " + "x" * 1995)


def buttons(message):
    """The buttons of a message by their labels."""
    rows = [block for block in message["blocks"] if block["type"] == "actions"]
    for row in rows:
        names = [each["action_id"] for each in row["elements"]]
        assert len(set(names)) == len(names), "Slack refuses the same action_id twice in a block"
    return {each["text"]["text"]: each for row in rows for each in row["elements"]}


def release(made, line="/jira release 2.3", **fields):
    """The last answer to *line*, which is a report that Slack takes."""
    report = made.slack.ask(made.bot, slackbot.escape(line), **fields)[-1]
    assert fakes.objection(report) == ""
    return report


@pytest.mark.parametrize("line", [
    "/jira release 2.3", "/jira release 2.3 APP", "/jira  release  2.3", "/jira release '2.3'",
    "/jira release 2.3 --public", "/jira release “2.3” app"])
def test_a_release_report_has_buttons_to_refresh_and_to_share_it(all_, line):
    found = buttons(release(all_, line))
    assert set(found) == {"Refresh", "Share"}
    typed = line.removesuffix(" --public")
    assert found["Refresh"]["value"] in (line, typed)
    assert found["Share"]["value"] == f"{typed} --public"
    for label, kind in (("Refresh", "ephemeral"), ("Share", "in_channel")):
        *_, report = pressed(all_, found[label]["value"])
        assert set(buttons(report)) == {"Refresh", "Share"} and "APP 2.3" in report["text"]
        if "--public" not in line:
            assert report["response_type"] == kind


@pytest.mark.parametrize("count", [493, 494, 496, 600], ids=lambda count: 17 + 4 * count)
def test_a_release_that_is_asked_for_at_length_is_reported_all_the_same(all_, count):
    report = release(all_, "/jira release 2.3" + " APP" * count)
    assert "APP 2.3" in report["text"]
    assert all(len(each["value"]) <= 2000 for each in buttons(report).values())


def test_a_release_that_was_mentioned_has_its_buttons_too(all_):
    *_, report = told(all_, mention("<@U0BOT> jira release 2.3"), 2)
    assert buttons(report)["Refresh"]["value"] == "/jira release 2.3"


def test_the_sample_has_the_buttons_too():
    with fakes.Bot("demo", SLACK_SIGNING_SECRET=None) as bot:
        host = {"Host": f"127.0.0.1:{bot.port}"}
        secret = bot.request("GET", "/demo/secret", headers=host).json["signing_secret"]
        url = bot.request("POST", "/demo/hooks", b"", host).json["response_url"]
        path = urllib.parse.urlsplit(url).path
        body = payload(action("/jira release 2.3", url))
        assert send(bot, "/slack/interactions", body, secret=secret).status == 200
        messages = until(lambda: (found := bot.request(
            "GET", path + "?after=0", headers=host).json["messages"]) and found[1:] and found)
        assert set(buttons(messages[-1]["message"])) == {"Refresh", "Share"}
        calm(bot)


def test_in_the_terminal_a_report_has_no_buttons(all_):
    said, status = printed_by(terminal(all_, "/jira release 2.3"))
    assert status == 0 and "APP 2.3" in said
    assert "Refresh" not in said and "Share" not in said


# ---- webhooks: POST /post ----

def post(bot, data, path="/post", kind=JSON, **headers):
    """Post what another program has to say: the HTTP answer."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    headers = {"Content-Type": kind, **(headers or BEARER)}
    return bot.request("POST", path, data, {name.replace("_", "-"): value
                                            for name, value in headers.items() if value})


def hooked(made, word, count=1):
    """The messages with *word* that have come to the incoming webhook."""
    def found():
        return [call.given for call in made.api.of("hook") if word in json.dumps(call.given)]
    until(lambda: len(found()) >= count)
    return found()


@pytest.mark.parametrize("kind, encode", [
    (JSON, lambda data: json.dumps(data).encode()),
    (FORM, lambda data: urllib.parse.urlencode(data).encode()),
    (FORM, lambda data: urllib.parse.urlencode({"payload": json.dumps(data)}).encode()),  # GitHub's
    (JSON + "; charset=utf-8", lambda data: json.dumps(data, ensure_ascii=False).encode())])
def test_what_is_posted_is_logged_and_summed_up_in_the_channel(all_, kind, encode):
    word = f"word{next(serial)}"
    got = post(all_.bot, encode({"title": f"A {word} ü", "who": "<!channel> & co"}), kind=kind)
    assert got.status == 200 and got.json == {"message": "JSON data posted"}
    assert got.headers["Content-Type"] == JSON
    message, = hooked(all_, word)
    for part in ("title", f"A {word} ü", "who", "&lt;!channel&gt; &amp; co"):
        assert part in message["text"]
    assert "<" not in message["text"]
    until(lambda: word in all_.bot.output)


GITHUB = {"action": "opened", "number": 7, "sender": {"login": "octo", "id": 1},
          "pull_request": {"title": "Fix <b>", "html_url": "https://github.example/7"},
          "repository": {"full_name": "example/repository"}, "labels": ["a", "b"],
          "commits": [{"id": "1"}] * 3, "nothing": None, "yes": True}


def test_a_nested_event_is_summed_up_readably(all_):
    word = f"word{next(serial)}"
    assert post(all_.bot, {**GITHUB, "ref": word}).status == 200
    text = hooked(all_, word)[0]["text"]
    for part in ("opened", "octo", "Fix &lt;b&gt;", "example/repository"):
        assert part in text
    assert "{" not in text


@pytest.mark.parametrize("data", [
    {"word": "W", "x": "y" * 900_000}, {"word": "W", **{f"f{n}": n for n in range(5000)}},
    {"word": "W", "x" * 100_000: 1}, {"word": "W", "x": ["y" * 100_000] * 5},
    ["W"] * 50_000, {"word": "W", "x": "<&>" * 100_000}], ids=lambda data: str(data)[:30])
def test_a_summary_is_a_message_that_slack_takes_however_much_was_posted(all_, data):
    word = f"word{next(serial)}"
    got = post(all_.bot, json.loads(json.dumps(data).replace('"W"', f'"{word}"')))
    assert got.status == 200
    message, = hooked(all_, word)
    assert 0 < len(message["text"]) <= 13_000


@pytest.mark.parametrize("data", [{}, [], None, "x", 5, 1.5, True, {"": ""}, {"a": None}, [[]],
                                  {"a": {}}, {"a": []}, {"a": [{}]}, {"\ud800": "\ud800"}],
                         ids=ascii)
def test_any_json_may_be_posted(all_, data):
    assert post(all_.bot, data).status in (200, 400)
    assert post(all_.bot, data, "/post/text").status in (200, 400)


def test_what_is_posted_cannot_forge_a_line_of_the_log(all_):
    word = f"word{next(serial)}"
    assert post(all_.bot, {"a": f"{word}\nlevel=ERROR forged\r\n\x1b[2J\u2028"}).status == 200
    hooked(all_, word)
    assert not any(line.startswith("level=ERROR forged") or "\x1b" in line
                   for line in all_.bot.lines)


def signature(body, token=HOOK_TOKEN, kind="sha256"):
    return f"{kind}=" + hmac.new(token.encode(), body, kind).hexdigest()


BODY = b'{"a": 1}'
KEYS = [  # (headers, whether they open)
    ({"Authorization": f"Bearer {HOOK_TOKEN}"}, 200),
    ({"X-Hub-Signature-256": signature(BODY)}, 200),
    ({"X-Hub-Signature-256": signature(BODY), "X-Hub-Signature": "sha1=0"}, 200),
    ({"X": "y"}, 401), ({"Authorization": "Bearer wrong"}, 401),
    ({"Authorization": "Bearer "}, 401),
    ({"Authorization": "Bearer"}, 401), ({"Authorization": HOOK_TOKEN}, 401),
    ({"Authorization": f"Basic {HOOK_TOKEN}"}, 401),
    ({"Authorization": f"Bearer {HOOK_TOKEN}x"}, 401),
    ({"Authorization": f"Bearer {HOOK_TOKEN[:-1]}"}, 401),
    ({"Authorization": f"Bearer {HOOK_TOKEN.upper()}"}, 401),
    ({"Authorization": "Bearer é".encode()}, 401), ({"Authorization": "Bearer None"}, 401),
    ({"X-Hub-Signature": signature(BODY, kind="sha1")}, 401),
    ({"X-Hub-Signature-256": signature(BODY, "wrong")}, 401),
    ({"X-Hub-Signature-256": signature(BODY + b" ")}, 401),
    ({"X-Hub-Signature-256": signature(BODY, "")}, 401),
    ({"X-Hub-Signature-256": signature(BODY)[7:]}, 401), ({"X-Hub-Signature-256": "sha256="}, 401),
    ({"X-Hub-Signature-256": signature(BODY, kind="sha1")}, 401),
    ({"X-Hub-Signature-256": "sha256=é".encode()}, 401), ({"X-Slackbot-Token": HOOK_TOKEN}, 401)]


@pytest.mark.parametrize("headers, status", KEYS, ids=str)
def test_post_is_open_to_who_knows_the_token(all_, headers, status):
    for path in ("/post", "/post/none", "/post?token=" + HOOK_TOKEN):
        got = post(all_.bot, BODY, path, **headers)
        assert got.status == status and list(got.json) == ["message" if status == 200 else "error"]


def test_who_does_not_know_the_token_learns_nothing(all_):
    for path in ("/post", "/post/text", "/post/unknown"):
        for body, kind in ((b"{}", JSON), (b"{", JSON), (DEEP.encode(), JSON), (b"", "text/xml")):
            assert post(all_.bot, body, path, kind, X="y").status == 401


@pytest.mark.parametrize("arguments, environ, status", [
    ([], {}, 503), ([], {"SLACKBOT_WEBHOOK_TOKEN": " "}, 503), (["demo"], {}, 200),
    ([], {"SLACK_SIGNING_SECRET": None}, 503)], ids=str)
def test_without_a_token_post_is_open_in_the_demo_alone(arguments, environ, status):
    with fakes.Bot(*arguments, **environ) as bot:
        got = post(bot, BODY, **{"Authorization": "Bearer "})
        assert got.status == status and list(got.json) == ["message" if status == 200 else "error"]
        assert post(bot, BODY, **{"X-Hub-Signature-256": signature(BODY, "")}).status == status


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"},
    {"Sec_Fetch_Site": "cross-site"}], ids=str)
def test_no_other_web_page_posts_through_the_demo(headers):
    with api_fakes.Api() as api, fakes.Bot("demo", SLACK_WEBHOOK_URL=api.hook) as bot:
        for path in ("/post", "/post/any"):
            assert post(bot, b"text=evil", path, FORM, **headers).status in (403, 404)
        assert post(bot, BODY, X="y").status == 200
        until(lambda: api.of("hook"))
        assert not [call for call in api.of("hook") if "evil" in call.given["text"]]


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: ascii(text)[:30])
def test_what_is_no_json_is_refused(all_, text):
    for path in ("/post", "/post/text"):
        got = post(all_.bot, text.encode(), path)
        assert got.status == 400 and list(got.json) == ["error"]


def test_only_json_and_forms_may_be_posted(all_):
    for kind in ("text/plain", "multipart/form-data; boundary=x", "", "application/xml"):
        assert post(all_.bot, BODY, kind=kind).status == 415


def test_an_unknown_webhook_is_not_there(all_):
    for path in ("/post/unknown", "/post/", "/post/text/more", "/post/TEXT", "/post/post"):
        assert post(all_.bot, BODY, path).status == 404


def test_a_webhooks_own_answer_is_posted_instead(all_):
    word = f"word{next(serial)}"
    assert post(all_.bot, {"a": word}, "/post/text").json == {"message": "JSON data posted"}
    assert hooked(all_, word)[0]["text"] == f"got {{'a': '{word}'}}"
    assert post(all_.bot, f"a={word}%26".encode(), "/post/text", FORM).status == 200
    assert hooked(all_, word + "&amp;")[0]["text"] == f"got {{'a': '{word}&amp;'}}"
    assert post(all_.bot, {}, "/post/dict").status == 200
    assert hooked(all_, "a dict")[0]["blocks"] == [{"type": "divider"}]


def test_a_webhook_that_says_nothing_or_fails_posts_nothing_and_is_answered(all_):
    before = len(all_.api.of("hook"))
    for path in ("/post/none", "/post/bug"):
        assert post(all_.bot, {}, path).json == {"message": "JSON data posted"}
    until(lambda: "a bug in a hook" in all_.bot.output)
    hooked(all_, "got", 2) if post(all_.bot, {}, "/post/text").status != 200 else None
    until(lambda: len(all_.api.of("hook")) > before)
    assert len(all_.api.of("hook")) == before + 1


def test_a_slow_webhook_keeps_nobody_waiting(all_):
    begin = time.monotonic()
    assert post(all_.bot, {}, "/post/slow").status == 200
    assert all_.bot.command("/echo a").status == 200
    assert time.monotonic() - begin < 1
    hooked(all_, "slow is done")


def test_a_channel_that_is_busy_or_down_gets_its_report_later(all_):
    words = [f"{status}-{next(serial)}" for status in ("429", "500")]
    for word in words:
        assert post(all_.bot, {"a": word}).status == 200
    for word in words:
        assert len(hooked(all_, word, 2)) == 2


def test_a_channel_that_stays_down_keeps_no_command_from_running(script):
    with api_fakes.Api(lambda method, given: ("status", 500)) as api, fakes.Bot(
            script=script, SLACKBOT_WEBHOOK_TOKEN=HOOK_TOKEN, SLACK_WEBHOOK_URL=api.hook,
            SLACKBOT_WORKERS=2, SLACKBOT_ACK_SECONDS=1) as bot:
        for number in range(6):
            assert post(bot, {"a": number}).status == 200
        until(lambda: len(api.of("hook")) >= 2)
        for _ in range(3):  # the first may be run on the door's thread, the others are slow
            assert bot.command("/late 0.05").json["text"] == "late"


def test_without_a_channel_what_is_posted_is_logged(script):
    with fakes.Bot(script=script, SLACKBOT_WEBHOOK_TOKEN=HOOK_TOKEN) as bot:
        for path in ("/post", "/post/text"):
            assert post(bot, {"a": "hello-there"}, path).status == 200
        until(lambda: "hello-there" in bot.output)
        assert "5ecret" not in bot.output
        calm(bot)


# ---- files: /jira release --csv ----

EVIL = ['=HYPERLINK("http://evil.example","x")', "+1+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "="]
PLAIN = ["it's", 'a "quoted", word', "two\nlines", "Größe 名 🚀", "1=1", "<b> & co", " a "]


def release_issues(count):
    """*count* issues whose texts a spreadsheet would trip over."""
    summaries = itertools.cycle([*EVIL, *PLAIN, "half \ud83d a character"])
    return [{**each, "summary": summary, "assignee": "=cmd|' /C calc'!A0" if number % 5 else None}
            for number, (each, summary) in enumerate(zip(fakes.issues(count), summaries))]


@contextlib.contextmanager
def jira_world(script, flavour, count, **environ):
    """A world whose JIRA is of a *flavour* and has *count* issues in its release."""
    with fakes.Jira(flavour) as jira:
        jira.reset(issues=release_issues(count))
        login = {} if jira.cloud else {"JIRA_USERNAME": None, "JIRA_API_TOKEN": None,
                                       "JIRA_PERSONAL_TOKEN": jira.token}
        with world(script, JIRA_URL=jira.origin, **login, **environ) as made:
            yield made


@pytest.mark.parametrize("flavour", ["cloud", "server"])
def test_all_issues_of_a_release_are_uploaded_as_a_file(script, flavour):
    with jira_world(script, flavour, 130) as made:
        said = made.slack.ask(made.bot, "/jira release 2.3 --csv", channel_id="C777")
        assert any("APP 2.3" in message["text"] for message in said), said
        file, = made.api.files.values()
        assert re.fullmatch(r"[\w .-]*2\.3[\w .-]*\.csv", file["name"])
        assert file["channel"] == "C777" and file["length"] == len(file["data"])
        calls = [call for call in made.api.calls if call.method != "auth.test"]
        assert [call.method for call in calls] == [
            "files.getUploadURLExternal", "upload", "files.completeUploadExternal"]
        bearer = f"Bearer {api_fakes.TOKEN}"
        assert [call.authorization for call in calls] == [bearer, None, bearer]
        calm(made.bot)
    head, *rows = csv.reader(io.StringIO(file["data"].decode("utf-8-sig"), newline=""))
    assert {"key", "summary", "status", "assignee", "priority"} <= set(map(str.lower, head))
    assert sorted(row[0] for row in rows) == sorted(f"APP-{n}" for n in range(1, 131))
    assert {len(row) for row in rows} == {len(head)}
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@\t\r")]
    summaries = {row[list(map(str.lower, head)).index("summary")] for row in rows}
    assert set(PLAIN) <= summaries
    assert all(any(cell.endswith(evil) and cell != evil for cell in summaries) for evil in EVIL)


def test_a_file_has_the_names_of_assignees_and_not_their_accounts(script):
    with jira_world(script, "server", 12) as made:
        made.slack.ask(made.bot, "/jira release 2.3 --csv")
        file, = made.api.files.values()
    rows = csv.DictReader(io.StringIO(file["data"].decode("utf-8-sig"), newline=""))
    assert {row["assignee"] for row in rows} == {"", "'=cmd|' /C calc'!A0"}


@pytest.mark.parametrize("line", [
    "/jira release 2.3 --csv", "/jira release 2.3 APP --csv", "/jira release 2.3 --csv --public",
    "/jira release 2.3 —csv", "/jira release 2.3 --csv APP"])
def test_the_word_csv_may_stand_where_one_would_type_it(all_, line):
    files = len(all_.api.files)
    said = all_.slack.ask(all_.bot, line)
    assert len(all_.api.files) == files + 1 and any("APP 2.3" in each["text"] for each in said)
    report = next(each for each in said if each.get("blocks"))
    assert "--csv --public" not in buttons(report)["Share"]["value"]


def test_a_mention_gets_its_file_too(all_):
    said = told(all_, mention("<@U0BOT> jira release 2.3 --csv"), 2)
    until(lambda: said[0]["channel"] in [file.get("channel") for file in all_.api.files.values()])


def test_without_a_bot_token_the_report_comes_and_says_what_is_missing(script):
    with world(script, SLACK_BOT_TOKEN=None) as made:
        said = made.slack.ask(made.bot, "/jira release 2.3 --csv")
        assert any("SLACK_BOT_TOKEN" in each["text"] for each in said)
        assert any("APP 2.3" in each["text"] for each in said)
        assert made.api.calls == []


@pytest.mark.parametrize("method, answer, word", [
    ("files.completeUploadExternal", refusal("not_in_channel"), "not_in_channel"),
    ("files.getUploadURLExternal", refusal("missing_scope"), "missing_scope"),
    ("files.getUploadURLExternal", ("status", 200), "getUploadURLExternal"),
    ("files.getUploadURLExternal", fakes.reply(200, {"ok": True}), "upload"),
    ("upload", ("status", 413, {}, b"Payload too large"), "`Payload too large`"),
    ("upload", ("status", 500, {}, b""), "500"), ("upload", "reset", "upload")])
def test_slacks_no_to_a_file_is_told_and_the_report_comes_all_the_same(
        all_, method, answer, word):
    all_.api.faults = lambda called, given: answer if called == method else None
    try:
        said = all_.slack.ask(all_.bot, "/jira release 2.3 --csv")
    finally:
        all_.api.faults = shaky
    assert any("APP 2.3" in each["text"] for each in said)
    assert word in said[-1]["text"] and "Sorry" not in said[-1]["text"]


# ---- python slackbot.py check ----

def start(*arguments, script=fakes.ROOT / "slackbot.py", environ=()):
    """`python slackbot.py` until it ends, with nothing but *environ* in its environment."""
    bot = fakes.Bot(*arguments, script=script, **{
        "PORT": None, "HOST": None, "SLACK_SIGNING_SECRET": None, **dict(environ)})
    return subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=20)


@pytest.fixture(scope="module")
def outside():
    """What `check` asks: the Web API and a JIRA, and the variables that lead there."""
    with api_fakes.Api() as api, fakes.Jira("cloud") as jira, fakes.Jira("server") as server:
        yield {"SLACK_SIGNING_SECRET": "signing-5ecret", "SLACK_BOT_TOKEN": api_fakes.TOKEN,
               "SLACK_API_URL": api.url, "JIRA_URL": jira.origin, "JIRA_USERNAME": jira.username,
               "JIRA_API_TOKEN": jira.token}, server


@pytest.fixture(scope="module", autouse=True)
def nobody():
    """A check of what isn't there; it tries for some seconds, so it begins with the first test."""
    environ = {"SLACK_BOT_TOKEN": "xoxb-5ecret", "SLACK_API_URL": DOWN, "JIRA_URL": DOWN}
    with subprocess.Popen([sys.executable, fakes.ROOT / "slackbot.py", "check"], env=environ,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.kill()


def check(**environ):
    done = start("check", environ=environ)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    for name, value in environ.items():
        assert not ("SECRET" in name or "TOKEN" in name) or value not in said, name
    return done.returncode, said


def test_check_says_who_the_bot_is(outside):
    status, said = check(**outside[0])
    assert status == 0
    slack, = [line for line in said.splitlines() if api_fakes.TEAM in line]
    jira, = [line for line in said.splitlines() if "QA <lead>" in line]
    assert api_fakes.BOT_NAME in slack or BOT_USER in slack
    assert slack != jira


def test_check_knows_data_center_too(outside):
    server = outside[1]
    status, said = check(JIRA_URL=server.origin, JIRA_PERSONAL_TOKEN=server.token)
    assert status == 0 and "QA <lead>" in said


def test_check_says_what_is_missing():
    status, said = check()
    assert status == 0
    for name in ("SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "JIRA_URL"):
        assert any(name in line for line in said.splitlines()), name
    assert 2 <= len(said.splitlines()) <= 10


BAD_CHECKS = [  # (what is changed, what is said, what of the other is said all the same)
    ({"SLACK_BOT_TOKEN": "xoxb-wrong-5ecret"}, "invalid_auth", "QA <lead>"),
    ({"JIRA_API_TOKEN": "wrong-5ecret"}, "JIRA", api_fakes.TEAM),
    ({"JIRA_URL": DOWN}, "JIRA", api_fakes.TEAM)]


@pytest.mark.parametrize("changes, word, other", BAD_CHECKS, ids=str)
def test_check_says_what_does_not_work_and_fails(outside, changes, word, other):
    status, said = check(**{**outside[0], **changes})
    assert status == 1 and word in said and other in said


def test_check_says_that_nobody_answers_and_fails(nobody):
    said, status = printed_by(nobody)
    assert status == 1 and len(said.splitlines()) <= 10 and "5ecret" not in said
    for name in ("Slack", "JIRA"):
        assert re.search(f"{name}.*refused", said)


def test_check_warns_of_a_jira_to_which_anybody_could_listen(outside):
    environ = {**outside[0], "JIRA_URL": outside[0]["JIRA_URL"].replace("127.0.0.1", "0.0.0.0")}
    status, said = check(**environ)
    assert status == 0 and "https" in said or "insecure" in said


# ---- python slackbot.py manifest ----

OWN = '''
import slackbot

@slackbot.command("/greet")
def greet(request, name: str, times: int = 1):
    """Greet somebody."""

@slackbot.command("/bare")
def bare(request):
    pass

for name in ("/silent one", "/silent two"):
    slackbot.command(name)(lambda request: None)

@slackbot.command("/family one")
def one(request, name: str):
    """Be one."""

@slackbot.command("/family two")
def two(request):
    """Be two."""

@slackbot.command("/" + "n" * 31, usage="X" * 1500)
def long(request):
    pass

long.__doc__ = "d" * 3000
slackbot.command("/wordy", usage="X" * 1500)(long)
slackbot.main()
'''
SCOPES = {"commands", "chat:write", "app_mentions:read", "im:history", "files:write"}
# By slackapi/manifest-schema, manifest.schema.2.0.0.json: the keys that there are, and how long
# a text may be; no text is empty.
LONGEST = {"display_information": {"name": 35, "description": 140, "long_description": 4000,
                                   "background_color": 7},
           "bot_user": {"display_name": 80, "always_online": None},
           "app_home": {"home_tab_enabled": None, "messages_tab_enabled": None,
                        "messages_tab_read_only_enabled": None},
           "slash_commands": {"command": 32, "url": 3000, "description": 2000, "usage_hint": 1000,
                              "should_escape": None},
           "event_subscriptions": {"request_url": 3500, "bot_events": None},
           "interactivity": {"is_enabled": None, "request_url": 3500},
           "scopes": {"bot": None}, "oauth_config": {"scopes": None},
           "features": dict.fromkeys(["app_home", "bot_user", "slash_commands"]),
           "settings": dict.fromkeys(["event_subscriptions", "interactivity", "org_deploy_enabled",
                                      "socket_mode_enabled", "token_rotation_enabled"]),
           "_metadata": dict.fromkeys(["major_version", "minor_version"]),
           "": dict.fromkeys(["_metadata", "display_information", "features", "oauth_config",
                              "settings"])}


def accept(part, name=""):
    """Fail where Slack wouldn't take a *part* of a manifest, called *name*."""
    if isinstance(part, list):
        for each in part:
            accept(each, name)
    elif isinstance(part, dict):
        for key, value in part.items():
            assert key in LONGEST[name], f"there is no {key} in {name or 'a manifest'}"
            if isinstance(value, str):
                assert value.strip(), f"{name}.{key} is blank"
                assert len(value) <= LONGEST[name][key], f"{name}.{key} is too long"
            accept(value, key)


def manifest(*arguments, script=fakes.ROOT / "slackbot.py"):
    """The manifest that is printed, which Slack would take; without any configuration."""
    done = subprocess.run([sys.executable, script, "manifest", *arguments], capture_output=True,
                          text=True, timeout=10, env={"PYTHONPATH": str(fakes.ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    accept(made)
    return made


@pytest.fixture(scope="module")
def printed():
    return manifest("https://bot.example")


def test_a_manifest_has_all_that_an_app_needs(printed):
    settings, features = printed["settings"], printed["features"]
    assert printed["display_information"]["name"] and features["bot_user"]["display_name"]
    assert set(printed["oauth_config"]["scopes"]["bot"]) == SCOPES
    events = settings["event_subscriptions"]
    assert events["request_url"] == "https://bot.example/slack/events"
    assert sorted(events["bot_events"]) == ["app_mention", "message.im"]
    assert settings["interactivity"] == {
        "is_enabled": True, "request_url": "https://bot.example/slack/interactions"}
    assert settings["socket_mode_enabled"] is False


def test_a_manifest_has_every_command_once_by_its_first_word(printed):
    made = printed["features"]["slash_commands"]
    names = [each["command"] for each in made]
    assert sorted(names) == sorted({name.split()[0] for name, one in slackbot.commands.items()
                                    if one.handler.__module__ == "slackbot"})
    for each in made:
        assert each["url"] == "https://bot.example/slack/commands"
        assert each["should_escape"] is False and each["description"]
    by_name = {each["command"]: each for each in made}
    assert by_name["/dig"]["usage_hint"] == "NAME [TYPE]"
    assert by_name["/dig"]["description"] == slackbot.commands["/dig"].summary
    assert "usage_hint" not in by_name["/hello-world"]
    assert "release" in by_name["/jira"]["usage_hint"] + by_name["/jira"]["description"]


def test_direct_messages_can_be_typed_at_all(printed):
    # Without this tab Slack says "Sending messages to this app has been turned off".
    home = printed["features"]["app_home"]
    assert home["messages_tab_enabled"] is True and home["messages_tab_read_only_enabled"] is False


def test_a_manifest_for_the_socket_has_no_url():
    made = manifest("--socket")
    assert made["settings"]["socket_mode_enabled"] is True and "://" not in json.dumps(made)
    assert made["settings"]["interactivity"] == {"is_enabled": True}
    assert sorted(made["settings"]["event_subscriptions"]["bot_events"]) == [
        "app_mention", "message.im"]
    assert all("url" not in each for each in made["features"]["slash_commands"])


def test_a_manifest_has_ones_own_commands(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    made = manifest("https://bot.example", script=path)["features"]["slash_commands"]
    by_name = {each["command"]: each for each in made}
    assert len(by_name) == len(made)
    assert by_name["/greet"]["description"] == "Greet somebody."
    assert by_name["/greet"]["usage_hint"] == "NAME [TIMES]"
    assert "usage_hint" not in by_name["/bare"]
    assert [by_name[name]["description"] for name in ("/bare", "/silent")] == ["/bare", "/silent"]
    hint = by_name["/family"]["usage_hint"]
    assert "one NAME" in hint and "two" in hint
    assert {"/wordy", "/" + "n" * 31, "/hello", "/jira"} <= set(by_name)


def test_a_manifest_of_more_commands_than_slack_takes_is_printed_and_it_says_so(tmp_path):
    path = tmp_path / "many.py"
    path.write_text("import slackbot\nfor number in range(50):\n"
                    "    slackbot.command(f'/c{number}')(lambda request: None)\nslackbot.main()\n")
    done = start("manifest", "https://bot.example", script=path)
    made = json.loads(done.stdout)
    accept(made)
    count = len(made["features"]["slash_commands"])
    assert count > 50 and done.returncode == 1
    assert re.search(rf"\b50\b.*\b{count}\b", done.stderr) and "Traceback" not in done.stderr


def test_a_manifest_needs_no_slash_at_the_end_of_its_address(printed):
    assert manifest("https://bot.example/") == printed


@pytest.mark.parametrize("arguments", [
    [], ["http://bot.example"], ["bot.example"], ["https://"], ["https://a b"], ["ftp://a"], [""],
    ["--sockets"], ["https://a.example", "https://b.example"], ["https://a.example\n"],
    ["https://bob:5ecret@bot.example"], ["https://bot.example?x=y"], ["https://bot.example#x"]],
    ids=str)
def test_a_manifest_for_no_good_address_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        slackbot.main(["manifest", *arguments])
    assert end.value.code not in (0, None) and capsys.readouterr().out == ""
    assert isinstance(end.value.code, int) or "manifest" in end.value.code


# ---- the same answers through every door ----

def plain(message):
    """A message as the terminal shows it, but for what is random."""
    return re.sub(r"`[0-9a-f]{8}`", "`REFERENCE`", slackbot.plain(message))


def terminal(made, line):
    """`run` with *line* in the world of *made*: a process."""
    return subprocess.Popen([sys.executable, made.script, "run", line], env=made.environ,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def printed_by(process):
    """What a process prints, but for what is random; and its exit status."""
    said, _ = process.communicate(timeout=20)
    return re.sub(r"`[0-9a-f]{8}`", "`REFERENCE`", said), process.returncode


def by_path(made, line, count):
    """All answers to *line*, sent to the path that has the command's name."""
    name, _, text = slackbot.escape(line).partition(" ")
    url = made.slack.response_url()
    first = made.bot.command(f"/renamed {text}", f"/slash-commands{name}", response_url=url)
    idle(made.bot)
    return ([first.json] if first.body else []) + [
        post.message for post in made.slack.posts[url]]


def by_mention(made, line, count):
    """All answers to *line*, said to the bot."""
    channel = f"CALL{next(serial)}"
    assert tell(made.bot, mention(f"<@U0BOT> {slackbot.escape(line)[1:]}", channel)).status == 200
    made.api.wait("chat.postMessage", count, channel=channel)
    idle(made.bot)
    return [call.given for call in made.api.of("chat.postMessage", channel=channel)]


@pytest.fixture(scope="module")
def socketed(script, all_):
    """The same bot as that of `all_`, but with a socket to a Slack of its own."""
    with socket_fakes.Workspace() as workspace:
        environ = {name: value for name, value in all_.environ.items() if name.startswith("JIRA_")}
        with fakes.Bot(script=script, SLACK_APP_TOKEN=socket_fakes.APP_TOKEN,
                       SLACK_BOT_TOKEN=socket_fakes.BOT_TOKEN, SLACKBOT_ACK_SECONDS=0.4,
                       SLACK_API_URL=workspace.api_url,
                       SLACK_HOOKS_ORIGINS=workspace.origin, **environ) as bot:
            all_.workspace, all_.socketed = workspace, bot
            workspace.link()
            yield


def by_socket(made, line, count):
    """All answers to *line* in an envelope: the one in the ack, and the posted ones."""
    url = made.workspace.response_url()
    ack = made.workspace.link().ask(socket_fakes.slash(slackbot.escape(line), url))
    idle(made.socketed)
    return ([ack["payload"]] if "payload" in ack else []) + [
        post.message for post in made.workspace.posts[url]]


# Each door takes the world, a line and how many messages are to come, and gives all that come.
DOORS = {"path": by_path, "button": pressed, "mention": by_mention, "socket": by_socket}
LINES = ["/echo a b", '/echo "two words" it\'s', "/echo 1 & 2 < 3 &amp; <!channel>", "/who a",
         "/echo", "/echo a --public", "/many 3", "/oops", "/quiet", "/many x", "/fail", "/blocks",
         "/help echo", "/jira release 9.9"]


@pytest.mark.parametrize("line", LINES)
def test_a_command_gives_the_same_answers_through_every_door(all_, socketed, line):
    process = terminal(all_, line)
    wanted = all_.slack.ask(all_.bot, slackbot.escape(line))
    for name, door in DOORS.items():
        got = door(all_, line, len(wanted))
        assert list(map(plain, got)) == list(map(plain, wanted)), name
        if name != "mention":
            assert [each["response_type"] for each in got] == [
                each["response_type"] for each in wanted], name
    fails = line in ("/oops", "/fail", "/many x", "/who a", "/jira release 9.9")
    assert printed_by(process) == ("".join(plain(each) + "\n" for each in wanted), int(fails))


def test_an_unknown_command_is_answered_with_the_list_at_every_door(all_):
    wanted, = all_.slack.ask(all_.bot, "/unknown x")
    for name in ("button", "mention"):
        assert list(map(plain, DOORS[name](all_, "/unknown x", 1))) == [plain(wanted)], name
    assert printed_by(terminal(all_, "/unknown x")) == (plain(wanted) + "\n", 1)
