"""Mentions of the bot and direct messages to it, by POST /slack/events."""

import concurrent.futures
import json
import re
import signal

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import (BAD_JSON, BOT_ID, BOT_USER, JSON, NO_OBJECT, accepted, answers_to_event,
                       check_log, direct, finish, mention, run_services, serial, tell, texts,
                       until, until_logged)
from fakes import PATIENCE, SOON_OVER

OWN = api_fakes.COMMANDS


# ---- whether the URL is ours

def challenge(got):
    """The challenge in an answer, which may be text, a form or JSON."""
    assert got.status == 200, got.text
    return got.json["challenge"] if got.headers["Content-Type"].startswith(JSON) else \
        got.text.removeprefix("challenge=")


@pytest.mark.parametrize("environ", [{}, {"SLACK_TEAM_ID": "T1"}, {
    "SLACK_VERIFICATION_TOKEN": "verification", "SLACK_SIGNING_SECRET": None}], ids=str)
def test_slacks_url_verification_is_answered_with_its_challenge(environ):
    asked = {"type": "url_verification", "token": "verification", "challenge": "3eZbrw1aB"}
    with fakes.Bot(**environ) as bot:
        assert challenge(tell(bot, asked)) == "3eZbrw1aB"
        assert tell(bot, {**asked, "token": "x"}, secret="wrong").status == 401


# ---- what a message says

MENTIONS = ["<@U0BOT> echo a 'b c'", "<@U0BOT> /echo a 'b c'", "<@U0BOT|qa-bot> echo a 'b c'",
            "  <@U0BOT>   echo a 'b c'  ", "<@U0BOT>\u00a0echo a 'b c'", "<@U0BOT>echo a 'b c'",
            "<@U0BOT>\necho a 'b c'", "<@U0BOT> echo a “b c”", "<@U0BOT> echo  a  'b c'",
            "hey <@U0BOT>: echo a 'b c'", "<@U9> and <@U0BOT>, echo a 'b c'"]


@pytest.mark.parametrize("make, text", [
    *((mention, text) for text in MENTIONS), *((direct, text) for text in MENTIONS[:2]),
    (direct, "echo a 'b c'"), (direct, "/echo a 'b c'"), (direct, " echo a 'b c'\n")])
def test_a_mention_and_a_direct_message_are_command_lines(make, text):
    line = slackbot.request_of_event(make(text)).line
    assert [word for _, word in slackbot.split_words(line)] == ["/echo", "a", "b c"]


@pytest.mark.parametrize("make, text", [
    (mention, "<@U0BOT>"), (mention, "<@U0BOT> "), (mention, "<@U0BOT> /"), (direct, "/"),
    (direct, ""), (mention, "hey <@U0BOT>:")])
def test_a_message_without_a_command_asks_for_help(make, text):
    assert slackbot.request_of_event(make(text)).line == "/help"


@pytest.mark.parametrize("text, line", [
    ("1 &amp; 2 &lt; 3", "/echo 1 & 2 < 3"), ("&amp;lt;", "/echo &lt;"),
    ("<@U9|ann> <#C9|general>", "/echo @ann #general"),
    ("<http://example.com|example.com>", "/echo example.com"),
    ("<mailto:a@b.c|a@b.c>", "/echo a@b.c"), ("&lt;!channel&gt;", "/echo <!channel>"),
    ("it's", "/echo it's")])
def test_links_and_entities_in_a_mention_become_plain_text(text, line):
    assert slackbot.request_of_event(mention(f"<@U0BOT> echo {text}")).line == line


def test_a_mention_gets_its_answer_with_entities_escaped_once(services):
    answer, = answers_to_event(services, mention("<@U0BOT> echo &lt;!channel&gt; &amp; 'b c'"))
    assert answer["text"] == "echo: &lt;!channel&gt; | &amp; | b c"


def test_a_mention_is_answered_in_a_thread_beneath_it(services):
    answer, = answers_to_event(services, mention("<@U0BOT> echo a"))
    assert answer["thread_ts"] == "1700000000.000100"
    call, = services.api.of("chat.postMessage", channel=answer["channel"])
    assert call.authorization == f"Bearer {api_fakes.TOKEN}" and "token" not in answer


def test_a_mention_in_a_thread_is_answered_in_that_thread(services):
    body = mention("<@U0BOT> many 2", thread_ts="1600000000.000200")
    answers = answers_to_event(services, body, 2)
    assert {each["thread_ts"] for each in answers} == {"1600000000.000200"}
    assert texts(answers) == ["0", "1"]


def test_a_direct_message_is_answered_in_a_thread_beneath_it(services):
    answer, = answers_to_event(services, direct("echo a"))
    assert (answer["text"], answer["thread_ts"]) == ("echo: a", "1700000000.000100")


def test_half_a_character_in_a_mention_is_no_reason_to_say_nothing(services):
    answer, = answers_to_event(services, mention("<@U0BOT> echo a\ud83d"))
    assert answer["text"].startswith("echo: a")


def test_a_mention_runs_in_the_name_of_its_author(services):
    answer, = answers_to_event(services, mention("<@U0BOT> who"))
    assert re.fullmatch(rf"who: \S+ U1 {answer['channel']} T0001", answer["text"])


@pytest.mark.parametrize("make, text, word", [
    (mention, "<@U0BOT> unknown", "/echo"), (mention, "<@U0BOT>", "/echo"),
    (direct, "hi there", "/echo"), (mention, "<@U0BOT> many x", "COUNT"),
    (mention, "<@U0BOT> oops", "Not today."), (direct, "fail", "Sorry"),
    (mention, "<@U0BOT> help many", "/many COUNT")])
def test_a_message_that_is_no_command_or_fails_gets_one_answer_that_says_so(
        services, make, text, word):
    answer, = answers_to_event(services, make(text))
    assert word in answer["text"]


def test_a_command_with_nothing_to_say_posts_nothing(services):
    assert tell(services.bot, mention("<@U0BOT> quiet", "CQUIET")).status == 200
    finish(services.bot)
    assert services.api.of("chat.postMessage", channel="CQUIET") == []


def test_an_event_is_acknowledged_at_once_and_nothing_but_the_answer_is_posted(services, gate):
    assert tell(services.bot, mention(f"<@U0BOT> late {gate}", "CSLOW")).status == 200
    gate.touch()  # not earlier
    finish(services.bot)
    assert texts(call.given for call in services.api.of("chat.postMessage", channel="CSLOW")) == [
        "late"]


def test_an_answer_that_slack_refuses_keeps_no_other_message_from_its_answer(services):
    channel = f"Cnot_found-{next(serial)}"
    for word in ("first", "second"):
        assert tell(services.bot, mention(f"<@U0BOT> echo {word}", channel)).status == 200
    finish(services.bot)
    calls = services.api.of("chat.postMessage", channel=channel)
    assert sorted(texts(call.given for call in calls)) == ["echo: first", "echo: second"]


def test_an_answer_to_a_mention_keeps_within_slacks_limits(services):
    answer, = answers_to_event(services, mention("<@U0BOT> long"))
    assert 1000 < len(answer["text"]) <= 13_000
    answer, = answers_to_event(services, mention("<@U0BOT> blocks"))
    assert [block["type"] for block in answer["blocks"]] == ["section", "actions"]


# ---- the same event again

def test_an_event_that_comes_several_times_runs_once(services):
    body = mention("<@U0BOT> echo once", "CONCE")
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        got = [pool.submit(tell, services.bot, body) for _ in range(6)]
        assert {each.result().status for each in got} == {200}
    for number in range(1, 4):
        assert tell(services.bot, body, **{"X-Slack-Retry-Num": f"{number}",
                                           "X-Slack-Retry-Reason": "http_timeout"}).status == 200
    services.api.wait("chat.postMessage", channel="CONCE")
    finish(services.bot)
    assert len(services.api.of("chat.postMessage", channel="CONCE")) == 1


def test_an_event_that_comes_again_while_it_runs_runs_once(services, gate):
    body = mention(f"<@U0BOT> late {gate}", "CWHILE")
    before = accepted(services.bot)
    for _ in range(3):
        assert tell(services.bot, body, **{"X-Slack-Retry-Num": "1"}).status == 200
    assert accepted(services.bot) == before + 1
    gate.touch()
    finish(services.bot)


def test_a_retry_of_an_event_that_never_arrived_runs(services):
    body = mention("<@U0BOT> echo retried", "CRETRY")
    assert tell(services.bot, body, **{"X-Slack-Retry-Num": "2"}).status == 200
    services.api.wait("chat.postMessage", channel="CRETRY")


def test_the_same_words_in_another_event_run_again(services):
    for _ in range(2):
        assert len(answers_to_event(services, mention("<@U0BOT> echo again"))) == 1


# ---- what is not for the bot

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


@pytest.mark.parametrize("body", IGNORED, ids=lambda body: str(body.get("event", body))[:80])
def test_messages_of_bots_and_to_others_are_no_requests(body):
    assert slackbot.request_of_event(body) is None


def test_an_event_that_is_ignored_is_acknowledged_and_runs_nothing(services):
    before, calls = accepted(services.bot), len(services.api.calls)
    got = tell(services.bot, IGNORED[0])
    assert (got.status, got.body) == (200, b"")
    assert accepted(services.bot) == before and len(services.api.calls) == calls


def test_without_a_bot_token_events_are_acknowledged_and_the_log_says_what_is_missing(script):
    with run_services(script, SLACK_BOT_TOKEN=None) as made:
        for body in (mention("<@U0BOT> echo a"), direct("echo a"), direct("unknown")):
            assert tell(made.bot, body).status == 200
        until_logged(made.bot, "SLACK_BOT_TOKEN")
        assert made.api.calls == [] and accepted(made.bot) == 0
        check_log(made.bot)


@pytest.mark.parametrize("text", BAD_JSON + NO_OBJECT, ids=lambda text: ascii(text)[:30])
def test_an_event_that_is_no_json_object_gets_400(services, text):
    got = tell(services.bot, text.encode())
    assert got.status == 400 and list(got.json) == ["error"]


STRANGE = [
    b"\xff{}", b'{"type": "event_callback"}', b'{"type": "event_callback", "event": "x"}',
    b'{"type": "event_callback", "event": []}', b'{"type": 5}', b"{}", b'{"type": NaN}',
    b'{"type": "url_verification"}', b'{"type": "url_verification", "challenge": {}}',
    rb'{"type": "url_verification", "challenge": "\ud800"}',
    b'{"type": "url_verification", "challenge": "a\\r\\nSet-Cookie: b"}', *(
        json.dumps(mention("<@U0BOT> echo a", **changes)).encode() for changes in (
            {"channel": None}, {"channel": {}}, {"text": None}, {"text": 5}, {"ts": None},
            {"user": None}, {"user": []}, {"ts": {}, "thread_ts": []}, {"text": "\ud800"})),
    json.dumps({**mention("<@U0BOT> echo a"), "event_id": {}}).encode(),
    json.dumps({**mention("<@U0BOT> echo a"), "authorizations": "x"}).encode()]


@pytest.mark.parametrize("body", STRANGE, ids=lambda body: ascii(body)[:60])
def test_a_strange_event_gets_200_or_400_and_breaks_nothing(services, body):
    got = tell(services.bot, body)
    assert got.status in (200, 400) and "Set-Cookie" not in got.headers
    finish(services.bot)


# ---- when Slack is busy or says no

def test_a_post_that_fails_is_tried_again_and_the_answers_keep_their_order(services):
    channels = {word: f"C{word}-{next(serial)}" for word in ("429", "500")}
    for channel in channels.values():
        assert tell(services.bot, mention("<@U0BOT> many 3", channel)).status == 200
    for word, channel in channels.items():
        calls = services.api.wait("chat.postMessage", 3, channel=channel)
        assert texts(call.given for call in calls) == ["0", "1", "2"]
        failed, *_ = services.api.of("chat.postMessage", channel=channel)
        assert calls[0].at - failed.at >= (0.99 if word == "429" else 0.1)


@pytest.mark.parametrize("word", ["not_found", "garbage"])
def test_a_post_that_slack_refuses_is_not_tried_again_and_is_logged(services, word):
    channel = f"C{word}-{next(serial)}"
    lines = len(services.bot.lines)
    assert tell(services.bot, mention("<@U0BOT> echo a", channel)).status == 200
    finish(services.bot)
    assert len(services.api.of("chat.postMessage", channel=channel)) == 1
    said = {"not_found": "channel_not_found", "garbage": "HTTP status 200"}[word]
    until(lambda: [line for line in services.bot.lines[lines:]
                   if "event=post_failed" in line and said in line])


# ---- the end

def test_the_author_of_a_mention_is_told_once_when_the_process_ends(script):
    with run_services(script, SOON_OVER, SLACKBOT_GRACE_SECONDS=0.1) as made:
        assert tell(made.bot, mention("<@U0BOT> late never", "CEND")).status == 200
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(PATIENCE) == 0
        answer, = [call.given for call in made.api.of("chat.postMessage", channel="CEND")]
        assert "restart" in answer["text"] and "`/late never`" in answer["text"]
        assert answer["thread_ts"] == "1700000000.000100"


def test_the_author_of_a_mention_is_told_when_the_process_ends_even_if_slack_fails_once(script):
    channel = f"C500-{next(serial)}"
    with run_services(script, SOON_OVER, SLACKBOT_GRACE_SECONDS=0.1) as made:
        assert tell(made.bot, mention("<@U0BOT> late never", channel)).status == 200
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(PATIENCE) == 0
        call, = [call for call in made.api.of("chat.postMessage", channel=channel) if call.ok]
        assert "restart" in call.given["text"]


def test_a_post_that_hangs_keeps_no_other_author_from_being_told(script):
    with run_services(script, {**SOON_OVER, "TELL_SECONDS": 1},
                      SLACKBOT_GRACE_SECONDS=0.1) as made:
        for line in ("echo hang", "late never", "late for-ever"):
            assert tell(made.bot, mention(f"<@U0BOT> {line}", "CHANG")).status == 200
        until(lambda: made.api.seen)
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(PATIENCE) == 0
        posted = [call.given["text"] for call in made.api.of("chat.postMessage", channel="CHANG")]
        for line in ("/late never", "/late for-ever"):
            assert len([text for text in posted if "restart" in text and line in text]) == 1
