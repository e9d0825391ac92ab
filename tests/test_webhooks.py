"""Webhooks: what other programs post to /post, and what of it comes to the channel."""

import functools
import hmac
import json
import re
import signal
import threading
import time
import types
import urllib.parse

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import (BAD_JSON, DEEP, FORM, HOOK_TOKEN, JSON, check_log, serial, until,
                       until_logged)
from fakes import PATIENCE

OWN = api_fakes.COMMANDS
BEARER = {"Authorization": f"Bearer {HOOK_TOKEN}"}


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


# ---- what is posted, and what becomes of it

@pytest.mark.parametrize("kind, encode", [
    (JSON, lambda data: json.dumps(data).encode()),
    (FORM, lambda data: urllib.parse.urlencode(data).encode()),
    (FORM, lambda data: urllib.parse.urlencode({"payload": json.dumps(data)}).encode()),  # GitHub's
    (JSON + "; charset=utf-8", lambda data: json.dumps(data, ensure_ascii=False).encode())])
def test_what_is_posted_is_logged_and_summarized_in_the_channel(services, kind, encode):
    word = f"word{next(serial)}"
    data = encode({"title": f"A {word} ü", "who": "<!channel> & co"})
    got = post(services.bot, data, kind=kind)
    assert got.status == 200 and got.json == {"message": "JSON data posted"}
    assert got.headers["Content-Type"] == JSON
    message, = hooked(services, word)
    for part in ("title", f"A {word} ü", "who", "&lt;!channel&gt; &amp; co"):
        assert part in message["text"]
    assert "<" not in message["text"]
    until_logged(services.bot, word)


GITHUB = {"action": "opened", "number": 7, "sender": {"login": "octo", "id": 1},
          "pull_request": {"title": "Fix <b>", "html_url": "https://github.example/7"},
          "repository": {"full_name": "example/repository"}, "labels": ["a", "b"],
          "commits": [{"id": "1"}] * 3, "nothing": None, "yes": True}


def test_the_summary_of_a_nested_event_is_readable(services):
    word = f"word{next(serial)}"
    assert post(services.bot, {**GITHUB, "ref": word}).status == 200
    text = hooked(services, word)[0]["text"]
    for part in ("opened", "octo", "Fix &lt;b&gt;", "example/repository"):
        assert part in text
    assert "{" not in text


@pytest.mark.parametrize("data", [
    {"word": "W", "x": "y" * 900_000}, {"word": "W", **{f"f{n}": n for n in range(5000)}},
    {"word": "W", "x" * 100_000: 1}, {"word": "W", "x": ["y" * 100_000] * 5},
    ["W"] * 50_000, {"word": "W", "x": "<&>" * 100_000}], ids=lambda data: str(data)[:30])
def test_a_summary_is_short_enough_for_slack_however_much_was_posted(services, data):
    word = f"word{next(serial)}"
    got = post(services.bot, json.loads(json.dumps(data).replace('"W"', f'"{word}"')))
    assert got.status == 200
    message, = hooked(services, word)
    assert 0 < len(message["text"]) <= 13_000


@pytest.mark.parametrize("data", [{}, [], None, "x", 5, 1.5, True, {"": ""}, {"a": None}, [[]],
                                  {"a": {}}, {"a": []}, {"a": [{}]}, {"\ud800": "\ud800"}],
                         ids=ascii)
def test_any_json_may_be_posted(services, data):
    assert post(services.bot, data).status in (200, 400)
    assert post(services.bot, data, "/post/text").status in (200, 400)


def test_what_is_posted_cannot_forge_a_line_of_the_log(services):
    word = f"word{next(serial)}"
    assert post(services.bot, {"a": f"{word}\nlevel=ERROR forged\r\n\x1b[2J\u2028"}).status == 200
    until_logged(services.bot, word)
    assert not any(line.startswith("level=ERROR forged") or "\x1b" in line
                   for line in services.bot.lines)


# ---- who may post

def signature(body, token=HOOK_TOKEN, kind="sha256"):
    return f"{kind}=" + hmac.new(token.encode(), body, kind).hexdigest()


BODY = b'{"a": 1}'
CREDENTIALS = [  # (headers, the status of the answer)
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


@pytest.mark.parametrize("headers, status", CREDENTIALS, ids=str)
def test_only_a_sender_who_knows_the_token_may_post(services, headers, status):
    for path in ("/post", "/post/none", "/post?token=" + HOOK_TOKEN):
        got = post(services.bot, BODY, path, **headers)
        assert got.status == status and list(got.json) == ["message" if status == 200 else "error"]


def test_a_sender_without_the_token_learns_nothing_from_the_answers(services):
    for path in ("/post", "/post/text", "/post/unknown"):
        for body, kind in ((b"{}", JSON), (b"{", JSON), (DEEP.encode(), JSON), (b"", "text/xml")):
            assert post(services.bot, body, path, kind, X="y").status == 401


@pytest.mark.parametrize("arguments, environ, status", [
    ([], {}, 503), ([], {"SLACKBOT_WEBHOOK_TOKEN": " "}, 503), (["demo"], {}, 200),
    ([], {"SLACK_SIGNING_SECRET": None}, 503)], ids=str)
def test_without_a_token_only_the_demo_can_be_posted_to(arguments, environ, status):
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
def test_a_post_that_is_no_json_gets_400(services, text):
    for path in ("/post", "/post/text"):
        got = post(services.bot, text.encode(), path)
        assert got.status == 400 and list(got.json) == ["error"]


def test_a_post_that_is_neither_json_nor_a_form_gets_415(services):
    for kind in ("text/plain", "multipart/form-data; boundary=x", "", "application/xml"):
        assert post(services.bot, BODY, kind=kind).status == 415


def test_a_post_to_an_unknown_webhook_gets_404(services):
    for path in ("/post/unknown", "/post/", "/post/text/more", "/post/TEXT", "/post/post"):
        assert post(services.bot, BODY, path).status == 404


# ---- webhooks of one's own

def test_what_a_webhooks_function_returns_is_posted_to_the_channel(services):
    word = f"word{next(serial)}"
    assert post(services.bot, {"a": word}, "/post/text").json == {"message": "JSON data posted"}
    assert hooked(services, word)[0]["text"] == f"got {{'a': '{word}'}}"
    assert post(services.bot, f"a={word}%26".encode(), "/post/text", FORM).status == 200
    assert hooked(services, word + "&amp;")[0]["text"] == f"got {{'a': '{word}&amp;'}}"
    assert post(services.bot, {}, "/post/dict").status == 200
    assert hooked(services, "a dict")[0]["blocks"] == [{"type": "divider"}]


def test_a_webhook_that_returns_nothing_or_fails_posts_nothing(services):
    before = len(services.api.of("hook"))
    for path in ("/post/none", "/post/bug"):
        assert post(services.bot, {}, path).json == {"message": "JSON data posted"}
    until_logged(services.bot, "a bug in a webhook")
    word = f"word{next(serial)}"
    assert post(services.bot, {"a": word}, "/post/text").status == 200
    hooked(services, word)
    assert len(services.api.of("hook")) == before + 1


def test_a_slow_webhook_keeps_nobody_waiting(services, gate):
    assert post(services.bot, {"gate": str(gate)}, "/post/slow").status == 200
    assert services.bot.command("/echo a").json["text"] == "echo: a"
    gate.touch()  # not earlier
    hooked(services, "slow is done")


# ---- when the channel can't be reached

def test_a_post_that_slack_does_not_take_is_posted_again_later(services):
    words = [f"{status}-{next(serial)}" for status in ("429", "500")]
    for word in words:
        assert post(services.bot, {"a": word}).status == 200
    for word in words:
        assert len(hooked(services, word, 2)) == 2


@pytest.fixture
def stuck(script):
    """A bot that has more posts to pass on than posters, to a webhook that is down; its Slack."""
    with fakes.Slack() as slack, api_fakes.Api(lambda method, given: ("status", 500)) as api, \
            fakes.Bot(script=script, SLACKBOT_WEBHOOK_TOKEN=HOOK_TOKEN, SLACK_WEBHOOK_URL=api.hook,
                      SLACK_HOOKS_ORIGINS=slack.origin, SLACKBOT_WORKERS=2,
                      SLACKBOT_ACK_SECONDS=0, SLACKBOT_GRACE_SECONDS=0.1) as bot:
        for number in range(slackbot.POSTERS + 6):
            assert post(bot, {"a": number}).status == 200
        until(lambda: len(api.of("hook")) >= slackbot.WEBHOOK_POSTERS)
        yield bot, slack


def test_posts_that_cannot_be_posted_keep_no_command_from_running(stuck):
    bot, slack = stuck
    assert slack.ask(bot, "/echo a")[-1]["text"] == "echo: a"


def test_posts_that_cannot_be_posted_keep_no_user_from_being_told_when_the_process_ends(stuck):
    bot, slack = stuck
    url = slack.response_url()
    assert "Working on" in bot.command("/late never", response_url=url).json["text"]
    bot.process.send_signal(signal.SIGTERM)
    assert bot.process.wait(PATIENCE) == 0
    assert ["restart" in post.message["text"] for post in slack.posts[url]] == [True]


def test_without_an_incoming_webhook_a_post_is_refused_with_the_reason(script):
    with fakes.Bot(script=script, SLACKBOT_WEBHOOK_TOKEN=HOOK_TOKEN) as bot:
        for path in ("/post", "/post/text"):
            answer = post(bot, {"a": 1}, path)
            assert answer.status == 503 and "SLACK_WEBHOOK_URL" in answer.json["error"]
        check_log(bot)

IMPATIENT = """
import slackbot, time
slackbot.WEBHOOK_SECONDS = 2

@slackbot.webhook("later")
def later(data):
    time.sleep(0.3)
    raise RuntimeError("a bug")

@slackbot.webhook("empty")
def empty(data):
    return {"nothing": None, "text": "", "blank": " \\n", "dict": {}}[data["what"]]

@slackbot.webhook("text")
def text(data):
    return data["a"]

slackbot.main()
"""


@pytest.fixture
def impatient(tmp_path):
    """A bot that gives a post up after 2 seconds, and its Slack, which refuses what has "bad" in
    it."""
    script = tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    def faults(method, given):
        return ("status", 500) if "bad" in json.dumps(given) else None
    with api_fakes.Api(faults) as api, fakes.Bot(
            script=script, SLACKBOT_WEBHOOK_TOKEN=HOOK_TOKEN, SLACK_WEBHOOK_URL=api.hook,
            SLACKBOT_GRACE_SECONDS=0.1) as bot:
        yield types.SimpleNamespace(api=api, bot=bot)


def test_posts_that_slack_refuses_hold_up_others_for_webhook_seconds_at_most(impatient):
    for number in range(slackbot.WEBHOOK_POSTERS):
        assert post(impatient.bot, {"a": f"bad {number}"}).status == 200
    assert post(impatient.bot, {"a": "good"}).status == 200
    hooked(impatient, "good")
    until_logged(impatient.bot, "event=undelivered")


def test_a_bug_in_webhooks_leaves_no_post_behind_that_waits(impatient):
    for _ in range(slackbot.WEBHOOK_POSTERS):
        assert post(impatient.bot, {}, "/post/later").status == 200
    assert post(impatient.bot, {"a": "good"}, "/post/text").status == 200
    assert hooked(impatient, "good")


@pytest.mark.parametrize("what", ["nothing", "text", "blank", "dict"])
def test_an_empty_answer_of_a_webhook_is_not_posted(impatient, what):
    assert post(impatient.bot, {"what": what}, "/post/empty").status == 200
    assert post(impatient.bot, {"a": "good"}, "/post/text").status == 200
    hooked(impatient, "good")
    time.sleep(0.1)
    assert len(impatient.api.of("hook")) == 1


def test_sigterm_logs_each_post_that_is_lost(stuck):
    bot, _ = stuck
    count = slackbot.POSTERS + 6
    bot.process.send_signal(signal.SIGTERM)
    assert bot.process.wait(PATIENCE) == 0
    bot.reader.join(PATIENCE)
    lines = [line for line in bot.lines if "event=webhook_post_lost" in line]
    assert len(lines) == count, bot.output[-3000:]
    numbers = [int(re.search(r"a\W+(\d+)", line)[1]) for line in lines]
    assert sorted(numbers) == list(range(count))


@pytest.fixture
def server():
    """A server whose webhook posts wait until the test lets them be passed on."""
    config = slackbot.Config({"PORT": "0", "HOST": "127.0.0.1", "SLACK_SIGNING_SECRET": "s",
                              "SLACKBOT_WEBHOOK_TOKEN": HOOK_TOKEN,
                              "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/1"})
    server = slackbot.WebServer(config, slackbot.Bot(config, None, make_pool=fakes.Pool))
    yield server
    server.server_close()


def post_to(server):
    """Post to /post: the status of the answer."""
    headers = {"content-type": JSON, "authorization": f"Bearer {HOOK_TOKEN}"}
    request = slackbot.HTTPRequest("POST", "/post", "", headers, b'{"a": 1}', True)
    return server.respond(types.SimpleNamespace(request=request, request_id="x")).status


def test_beyond_webhook_queue_posts_are_refused_with_503_until_there_is_room(server):
    assert [post_to(server) for _ in range(slackbot.WEBHOOK_QUEUE)] == [
        200] * slackbot.WEBHOOK_QUEUE
    assert [post_to(server), post_to(server)] == [503, 503]
    server.bot.webhook_posts.pop()
    assert [post_to(server), post_to(server)] == [200, 503]


def test_a_post_waits_until_it_is_passed_on_even_if_its_handler_fails(server, monkeypatch):
    monkeypatch.setattr(slackbot, "response_url_post", lambda url: lambda body: (200, {}, "ok"))
    taken = []

    def handler(data):
        taken.append((data, list(server.bot.webhook_posts)))
        return data["a"]["text"]
    monkeypatch.setitem(slackbot.webhooks, "own", handler)
    server.bot.take_webhook_post(handler, {"a": {"text": "fine"}})
    server.bot.take_webhook_post(handler, {"a": 1})
    with pytest.raises(TypeError):  # the pool logs it
        server.bot.webhook_posters.run()
    assert [len(waiting) for _, waiting in taken] == [2, 1] and not server.bot.webhook_posts


def test_during_a_stop_a_post_is_refused_with_503_as_nobody_would_pass_it_on(server):
    server.bot.draining = True
    assert post_to(server) == 503
    assert not server.bot.webhook_posts and not server.bot.webhook_posters.work


@pytest.mark.parametrize("waited", [0, 25, slackbot.WEBHOOK_SECONDS + 1])
def test_a_post_is_tried_for_webhook_seconds_however_long_it_has_waited_for_the_others(
        server, monkeypatch, waited):
    def refuse(body):
        tried.append(clock.now - 1000)
        return 500, {"Retry-After": "10"}, ""

    clock = fakes.Clock()
    tried = []
    monkeypatch.setattr(slackbot, "response_url_post", lambda url: refuse)
    monkeypatch.setattr(slackbot, "Replies", functools.partial(slackbot.Replies, clock=clock,
                                                               sleep=clock.sleep))
    assert post_to(server) == 200
    clock.now += waited  # until a poster has time for it
    server.bot.webhook_posters.run()
    assert tried == [*range(waited, waited + slackbot.WEBHOOK_SECONDS + 1, 10)]
