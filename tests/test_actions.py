"""Buttons: what a press of one does, by POST /slack/interactions."""

import signal
import time
import urllib.parse

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import (BAD_JSON, NO_OBJECT, OTHER_ACTIONS, accepted, action, answers_to_event,
                       answers_to_press, buttons, check_log, finish, mention, payload, press,
                       printed_by, run_in_terminal, run_services, send, texts)
from fakes import PATIENCE, SOON_OVER

OWN = api_fakes.COMMANDS


# ---- what a press does

def test_a_button_runs_its_command_line_and_the_answer_is_posted(services):
    message, = answers_to_press(services, "/echo a 'b c'")
    assert message["text"] == "echo: a | b c" and message["response_type"] == "ephemeral"


def test_a_button_runs_in_the_name_of_the_user_who_pressed_it(services):
    assert texts(answers_to_press(services, "/who")) == ["who: ann U1 C1 T0001"]


def test_a_press_is_acknowledged_at_once_and_nothing_but_the_answer_is_posted(services, gate):
    url = press(services, f"/late {gate}")
    gate.touch()  # not earlier
    finish(services.bot)
    assert texts(services.slack.wait(url)) == ["late"]


@pytest.mark.parametrize("count, wanted", [(0, ""), (1, "0"), (3, "012"), (5, "01234"),
                                           (9, "01238")])
def test_a_press_gets_at_most_five_answers_in_order(services, count, wanted):
    assert texts(answers_to_press(services, f"/many {count}", len(wanted))) == list(wanted)


@pytest.mark.parametrize("line, word", [
    ("/oops", "Not today."), ("/fail", "Sorry"), ("/unknown", "/echo"), ("/many x", "COUNT"),
    ("/many", "/many COUNT"), ("", "/echo"), ("/", "/echo"), ("nonsense", "/echo")])
def test_a_press_that_fails_posts_why(services, line, word):
    message, = answers_to_press(services, line, 1)
    assert word in message["text"] and message["response_type"] == "ephemeral"


def test_a_command_with_nothing_to_say_posts_nothing(services):
    assert answers_to_press(services, "/quiet") == []


def test_a_button_can_do_no_more_than_its_user_could_type(services):
    for line in ("/echo &amp; &lt;!channel&gt;", "/echo <!channel> <@U1|ann>", "/echo 'a\\' b"):
        typed = services.bot.command(slackbot.escape(line)).json["text"]
        posted, = texts(answers_to_press(services, line))
        assert posted == typed and "<!channel>" not in posted


def test_half_a_character_in_a_button_is_no_reason_to_say_nothing(services):
    assert texts(answers_to_press(services, "/echo a\ud83d", 1))[0].startswith("echo: a")


@pytest.mark.parametrize("changes", [{"channel": None}, {"team": None, "enterprise": {"id": "E1"}},
                                     {"container": None, "message": None}, {"enterprise": {}}],
                         ids=str)
def test_a_press_is_served_without_the_fields_that_slack_may_leave_out(services, changes):
    assert texts(answers_to_press(services, "/echo a", **changes)) == ["echo: a"]


def test_a_press_without_a_response_url_is_acknowledged(services):
    for changes in ({}, {"response_url": None}):
        body = payload(action("/echo a", **changes))
        assert send(services.bot, "/slack/interactions", body).status == 200
    finish(services.bot)


# ---- what is no press of a button of ours

@pytest.mark.parametrize("changes", OTHER_ACTIONS, ids=str)
def test_other_interactions_are_acknowledged_and_run_nothing(services, changes):
    before = accepted(services.bot)
    assert answers_to_press(services, "/echo a", **changes) == []
    assert accepted(services.bot) == before


@pytest.mark.parametrize("text", BAD_JSON + NO_OBJECT, ids=lambda text: ascii(text)[:30])
def test_a_payload_that_is_no_json_object_gets_400(services, text):
    got = send(services.bot, "/slack/interactions", payload(text))
    assert got.status == 400 and list(got.json) == ["error"]


@pytest.mark.parametrize("body", [b"", b"payload", b"a=b", b"Payload={}", b"payload=%ff%fe",
                                  b"payload=%", b"&" * 5000], ids=lambda body: ascii(body)[:20])
def test_an_interaction_without_a_payload_gets_400(services, body):
    assert send(services.bot, "/slack/interactions", body).status == 400


@pytest.mark.parametrize("changes", [{"type": None}, {"type": 5}], ids=str)
def test_a_press_without_a_type_is_malformed(changes):
    with pytest.raises(slackbot.HTTPError) as error:
        slackbot.request_of_action(action("/echo a", **changes))
    assert error.value.status == 400


@pytest.mark.parametrize("actions", [None, [], {}, "x", [1], [[]]], ids=str)
def test_a_press_of_no_button_runs_nothing(actions):
    assert slackbot.request_of_action(action("/echo a", actions=actions)) is None


@pytest.mark.parametrize("user", [None, "U1", [], {"id": {}}], ids=str)
def test_a_press_of_nobody_runs_in_nobodys_name(user):
    assert slackbot.request_of_action(action("/echo a", user=user)).user_id == ""


@pytest.mark.parametrize("value", [None, 5, {}, [], True, "\ud800", "\0", "x" * 100_000,
                                   "/" * 3000], ids=lambda value: ascii(value)[:20])
def test_a_button_with_a_strange_value_breaks_nothing(services, value):
    url = services.slack.response_url()
    got = send(services.bot, "/slack/interactions", payload(action(value, url)))
    assert got.status in (200, 400)
    finish(services.bot)


@pytest.mark.parametrize("url", ["https://evil.example/", "http://hooks.slack.com/x", "x", "/x",
                                 "https://hooks.slack.com@evil.example/", "file:///etc/passwd"])
def test_a_press_with_a_foreign_response_url_gets_400_and_runs_nothing(services, url):
    before = accepted(services.bot)
    for changes in ({}, OTHER_ACTIONS[0]):
        body = payload(action("/echo a", url, **changes))
        got = send(services.bot, "/slack/interactions", body)
        assert got.status == 400 and list(got.json) == ["error"]
    assert accepted(services.bot) == before


# ---- many, slow, and at the end

def test_while_slack_takes_no_answers_presses_and_commands_are_served(script):
    with fakes.Slack(faults=lambda seen: "silence") as slack, \
            fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin) as bot:
        begun = time.monotonic()
        for _ in range(3):
            body = payload(action("/echo a", slack.response_url()))
            assert send(bot, "/slack/interactions", body).status == 200
            assert bot.command("/echo b").json["text"] == "echo: b"
        assert time.monotonic() - begun < slackbot.POST_SECONDS, "the first post has been given up"


def test_many_presses_start_no_more_threads_than_there_are_workers(script):
    with run_services(script, SLACKBOT_WORKERS=2) as made:
        for _ in range(30):
            press(made, "/late never")
        status = open(f"/proc/{made.bot.process.pid}/status").read()
        threads = int(status.partition("Threads:")[2].split()[0])
        assert threads == 7, "main, log, server, a poster of each kind, two workers"
        check_log(made.bot)


@pytest.fixture
def slack():
    """A Slack that a bot in this process posts to."""
    with fakes.Slack() as slack:
        yield slack


def make_bot(slack, **environ):
    """A Bot in this process, whose threads do nothing before the test lets them."""
    config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET,
                              "SLACK_HOOKS_ORIGINS": slack.origin, **environ})
    return slackbot.Bot(config, None, clock=fakes.Clock(), make_pool=fakes.Pool)


def posted(slack, url):
    return texts(post.message for post in slack.posts[url])


def test_a_press_that_finds_the_queue_full_is_told_to_try_again(slack):
    bot = make_bot(slack, SLACKBOT_WORKERS="1", SLACKBOT_QUEUE="1")
    urls = [slack.response_url() for _ in range(3)]
    for url in urls:
        assert bot.handle_action(action("/help", url)) is None
    assert slack.attempts == 0, "nothing is posted on the thread that accepts"
    bot.posters.run()
    assert posted(slack, urls[2]) == ["Too many commands at once, please try again in a minute."]
    bot.workers.run()
    assert [len(posted(slack, url)) for url in urls] == [1, 1, 1]


def test_a_press_while_the_process_ends_is_told_to_try_again(slack):
    bot, url = make_bot(slack), slack.response_url()
    bot.draining = True
    bot.handle_action(action("/help", url))
    assert bot.workers.work == []
    bot.posters.run()
    assert posted(slack, url) == ["I'm being restarted, please try again in a minute."]


def test_the_process_waits_until_a_press_is_told_to_try_again():
    with fakes.Slack(faults=lambda seen: time.sleep(0.1)) as slack:
        config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET,
                                  "SLACK_HOOKS_ORIGINS": slack.origin})
        bot, url = slackbot.Bot(config, None), slack.response_url()
        posters = bot.posters
        bot.draining = True
        bot.handle_action(action("/help", url))
        bot.wait_for_jobs(PATIENCE)
        bot.tell_users()
        told = posted(slack, url)
        posters.shutdown()  # which posts it in any case
    assert told == ["I'm being restarted, please try again in a minute."]


def test_users_of_buttons_are_told_once_when_the_process_ends(script):
    with run_services(script, SOON_OVER, SLACKBOT_WORKERS=1, SLACKBOT_GRACE_SECONDS=0.1) as made:
        urls = {line: press(made, line) for line in ("/late never", "/late for-ever")}
        made.bot.process.send_signal(signal.SIGTERM)
        assert made.bot.process.wait(PATIENCE) == 0
        for line, url in urls.items():
            text, = posted(made.slack, url)
            assert "restart" in text and f"`{line}`" in text


# ---- a press that replaces its message

def press_of(action_id, line):
    """A change to an `action`: the button's action_id and line."""
    return {"actions": [{"type": "button", "action_id": action_id, "value": line}]}


@pytest.mark.parametrize("action_id", ["run", "run:", "run:replace", "run:anything"])
def test_a_button_whose_action_id_is_run_or_begins_with_it_runs_its_line(services, action_id):
    message, = answers_to_press(services, "", **press_of(action_id, "/echo a"))
    assert message["text"] == "echo: a"
    assert message.get("replace_original", False) == (action_id == "run:replace")


@pytest.mark.parametrize("action_id", ["", "ru", "run2", "runs:replace", "xrun", "Run", " run",
                                       "run replace"])
def test_a_button_with_another_action_id_runs_nothing(services, action_id):
    before = accepted(services.bot)
    url = services.slack.response_url()
    got = send(services.bot, "/slack/interactions",
               payload(action("", url, **press_of(action_id, "/echo a"))))
    assert got.status == 200
    assert accepted(services.bot) == before


@pytest.mark.parametrize("line, count", [("/many 4", 4), ("/many 9", 5), ("/blocks", 1),
                                         ("/oops", 1), ("/fail", 1), ("/nonsense", 1),
                                         ("/many", 1)])
def test_every_answer_to_a_press_that_replaces_takes_the_place_of_the_message(
        services, line, count):
    got = answers_to_press(services, "", **press_of("run:replace", line))
    assert [message.get("replace_original") for message in got] == [True] * count
    assert not any(message.get("replace_original")
                   for message in answers_to_press(services, line, count))


def test_a_late_answer_to_a_press_that_replaces_takes_the_place_of_the_message(services, gate):
    url = press(services, "", **press_of("run:replace", f"/late {gate}"))
    gate.touch()
    assert [message.get("replace_original") for message in services.slack.wait(url)] == [True]


def test_refresh_replaces_the_report_through_its_progress_line_and_share_posts_a_new_one(services):
    found = buttons(release(services))
    for label, replaces in (("Refresh", True), ("Share", None)):
        each = found[label]
        progress, report = answers_to_press(services, "", 2,
                                            **press_of(each["action_id"], each["value"]))
        assert progress["text"].startswith("Asking JIRA") and "APP 2.3" in report["text"]
        assert [each.get("replace_original") for each in (progress, report)] == [replaces] * 2
        assert buttons(report).keys() == found.keys()


def test_a_refreshed_report_replaces_its_message_where_data_blocks_are_refused_too(services):
    services.slack.refuses_data_blocks = True
    try:
        *_, report = answers_to_press(services, "", 2, team={"id": "T9", "domain": "other"},
                                      **press_of("run:replace", "/jira release 2.3"))
    finally:
        services.slack.refuses_data_blocks = False
    assert report["replace_original"] and "APP 2.3" in report["text"]
    assert {block["type"] for block in report["blocks"]} == {"section", "context", "actions"}
    assert set(buttons(report)) == {"Refresh", "Share"}


# ---- the buttons that messages have

def test_a_button_is_what_slack_takes_for_one():
    made = slackbot.button("Refresh", "/jira release 2.3")
    assert made.pop("text").items() >= {"type": "plain_text", "text": "Refresh"}.items()
    assert made == {"type": "button", "action_id": "run", "value": "/jira release 2.3"}


@pytest.mark.parametrize("label, line", [("x" * 75, "/echo"), ("x" * 76, "/echo"),
                                         ("a", "/echo " + "x" * 1994), ("👍" * 80, "/echo é")])
def test_a_button_keeps_within_slacks_limits(label, line):
    made = slackbot.button(label, line)
    assert 1 <= len(made["text"]["text"]) <= 75 and made["value"] == line


def test_a_button_may_have_an_action_id_of_its_own():
    made = slackbot.button("Refresh", "/jira release 2.3", "run:replace")
    assert made["action_id"] == "run:replace" and made["value"] == "/jira release 2.3"


def test_a_command_line_that_is_too_long_for_a_button_is_an_error_and_is_not_cut_off():
    with pytest.raises(ValueError, match="long"):
        slackbot.button("Refresh", "/echo " + "x" * 1995)


def release(services, line="/jira release 2.3", **fields):
    """The last answer to *line*, which is a report that Slack takes."""
    report = services.slack.ask(services.bot, slackbot.escape(line), **fields)[-1]
    assert fakes.objection(report) == ""
    return report


@pytest.mark.parametrize("line", [
    "/jira release 2.3", "/jira release 2.3 APP", "/jira  release  2.3", "/jira release '2.3'",
    "/jira release 2.3 --public", "/jira release “2.3” app"])
def test_a_release_report_has_buttons_to_refresh_and_to_share_it(services, line):
    found = buttons(release(services, line))
    assert set(found) == {"Refresh", "Share"}
    assert [each["action_id"] for each in found.values()] == ["run:replace", "run"]
    typed = line.removesuffix(" --public")
    assert found["Refresh"]["value"] in (line, typed)
    assert found["Share"]["value"] == f"{typed} --public"
    for label, kind in (("Refresh", "ephemeral"), ("Share", "in_channel")):
        *_, report = answers_to_press(services, found[label]["value"], 1)
        assert set(buttons(report)) == {"Refresh", "Share"} and "APP 2.3" in report["text"]
        if "--public" not in line:
            assert report["response_type"] == kind


@pytest.mark.parametrize("count", [493, 494, 496, 600], ids=lambda count: 17 + 4 * count)
def test_a_report_whose_command_line_is_too_long_for_a_button_comes_all_the_same(services, count):
    report = release(services, "/jira release 2.3" + " APP" * count)
    assert "APP 2.3" in report["text"]
    assert all(len(each["value"]) <= 2000 for each in buttons(report).values())


def test_a_report_for_a_mention_has_its_buttons_too(services):
    *_, report = answers_to_event(services, mention("<@U0BOT> jira release 2.3"))
    assert buttons(report)["Refresh"]["value"] == "/jira release 2.3"


def test_the_report_of_the_sample_project_has_its_buttons_too():
    with fakes.Bot("demo", SLACK_SIGNING_SECRET=None) as bot:
        host = {"Host": f"127.0.0.1:{bot.port}"}
        secret = bot.request("GET", "/demo/secret", headers=host).json["signing_secret"]
        url = bot.request("POST", "/demo/hooks", b"", host).json["response_url"]
        path = urllib.parse.urlsplit(url).path
        body = payload(action("/jira release 2.3", url))
        assert send(bot, "/slack/interactions", body, secret=secret).status == 200
        finish(bot)
        messages = bot.request("GET", path, headers=host).json["messages"]
        assert set(buttons(messages[-1]["message"])) == {"Refresh", "Share"}
        check_log(bot)


def test_in_the_terminal_a_report_has_no_buttons(services):
    said, status = printed_by(run_in_terminal(services, "/jira release 2.3"))
    assert status == 0 and "APP 2.3" in said
    assert "Refresh" not in said and "Share" not in said
