"""What is the same for all ways in: who may send what, and the answers that a command gives."""

import json
import random
import re

import pytest

import api_fakes
import fakes
import slackbot
import socket_fakes
from api_fakes import (FORM, HOOK_TOKEN, JSON, OTHER_ACTIONS, accepted, action, answers_to_event,
                       answers_to_press, check_log, finish, mention, payload, printed_by,
                       run_in_terminal, send, tell)

OWN = api_fakes.COMMANDS
REQUESTS = [("/slack/interactions", FORM, payload(action("/echo a"))),
            ("/slack/interactions", FORM, payload(action("/echo a", **OTHER_ACTIONS[0]))),
            ("/slack/events", JSON, json.dumps(mention("<@U0BOT> echo a")).encode()),
            ("/slack/events", JSON, b'{"type": "url_verification", "challenge": "abc"}')]


# ---- the request must be Slack's

@pytest.mark.parametrize("path, kind, body", REQUESTS)
def test_an_interaction_or_event_that_slack_did_not_sign_gets_401(services, path, kind, body):
    before = accepted(services.bot)
    for headers in ({"X-Slack-Signature": None}, {"X-Slack-Signature": "v0=é".encode()},
                    {"X-Slack-Request-Timestamp": "abc"}, {"secret": "wrong"}):
        got = send(services.bot, path, body, kind, **headers)
        assert got.status == 401 and list(got.json) == ["error"]
    assert accepted(services.bot) == before


def test_without_a_secret_interactions_and_events_get_503():
    with fakes.Bot(SLACK_SIGNING_SECRET=None, SLACK_BOT_TOKEN=api_fakes.TOKEN) as bot:
        for path, kind, body in REQUESTS:
            got = send(bot, path, body, kind, secret="")
            assert got.status == 503 and list(got.json) == ["error"]


@pytest.mark.parametrize("path", ["/slack/interactions", "/slack/events", "/post", "/post/text"])
def test_a_method_other_than_post_gets_405(services, path):
    for method in ("GET", "PUT", "DELETE"):
        got = services.bot.request(method, path, headers={"Content-Length": "0"})
        assert (got.status, got.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path, kind, body", [REQUESTS[0], REQUESTS[2]])
def test_another_content_type_gets_415(services, path, kind, body):
    other = {FORM: JSON, JSON: FORM}[kind]
    for wrong in (other, "text/plain", "multipart/form-data; boundary=x", None, "", "x" * 500):
        assert send(services.bot, path, body, wrong).status == 415
    assert send(services.bot, path, body, f"{kind.title()} ; charset=utf-8").status == 200


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
        check_log(bot)


def test_an_ssl_check_of_the_url_for_buttons_is_answered_without_verification(services):
    got = send(services.bot, "/slack/interactions", b"token=abc&ssl_check=1", secret="wrong")
    assert (got.status, got.body) == (200, b"")


ACCIDENTS = [b"\0", b"\r\n", b"\x7f", b"\xff", b"\xed\xa0\x80", b"%", b"&", b"=", b"<", b"9", b'"',
             b"{", b"[", b"\\ud800"]


def mutated(chance, data):
    """*data* with one to six accidents."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data) + 1)
        piece = data[place:place + chance.randint(1, 20)]
        match chance.randrange(4):
            case 0:
                data[place:place + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[place:place + len(piece)]
            case 2:
                data[place:place] = piece * chance.choice([1, 2, 50])
            case 3:
                data[place:place] = chance.choice(ACCIDENTS)
    return bytes(data)


def test_bodies_with_accidents_in_them_get_200_or_400(services):
    bodies = [*REQUESTS, ("/post", JSON, b'{"action": "opened", "issue": {"title": "x"}}'),
              ("/post/text", FORM, b"a=b&c=d%20e&f=%C3%BC")]
    for seed in range(200):
        chance = random.Random(seed)
        path, kind, body = chance.choice(bodies)
        got = send(services.bot, path, mutated(chance, body), kind,
                   Authorization=f"Bearer {HOOK_TOKEN}")
        assert got.status in (200, 400), (seed, got.text)
    finish(services.bot)


# ---- a command gives the same answers whichever way it comes

def plain(message):
    """A message as the terminal shows it, but for what is random."""
    return re.sub(r"`[0-9a-f]{8}`", "`REFERENCE`", slackbot.plain(message))


def by_path(made, line, count):
    """All answers to *line*, sent to the path that has the command's name."""
    name, _, text = slackbot.escape(line).partition(" ")
    url = made.slack.response_url()
    first = made.bot.command(f"/renamed {text}", f"/slash-commands{name}", response_url=url)
    finish(made.bot)
    return ([first.json] if first.body else []) + [
        post.message for post in made.slack.posts[url]]


def by_mention(made, line, count):
    """All answers to *line*, said to the bot in a channel."""
    return answers_to_event(made, mention(f"<@U0BOT> {slackbot.escape(line)[1:]}"), count)


def by_socket(made, line, count):
    """All answers to *line* in an envelope."""
    url = made.workspace.response_url()
    made.workspace.link().ask(socket_fakes.slash(slackbot.escape(line), url))
    made.workspace.wait(url, count)
    finish(made.socket_bot)
    return [post.message for post in made.workspace.posts[url]]


@pytest.fixture(scope="module")
def ways(script, services):
    """`services`, and a bot with the same commands that uses Socket Mode: `socket_bot`; its Slack
    is `workspace`."""
    with socket_fakes.Workspace() as workspace:
        jira = {name: value for name, value in services.environ.items() if name[:5] == "JIRA_"}
        with fakes.Bot(script=script, SLACK_APP_TOKEN=socket_fakes.APP_TOKEN,
                       SLACK_BOT_TOKEN=socket_fakes.BOT_TOKEN, SLACK_API_URL=workspace.api_url,
                       SLACK_HOOKS_ORIGINS=workspace.origin, **jira) as bot:
            services.workspace = workspace
            services.socket_bot = bot
            workspace.link()
            yield services


# Each takes `ways`, a line and how many messages are to come, and gives all that come.
WAYS = {"path": by_path, "button": answers_to_press, "mention": by_mention, "socket": by_socket}
LINES = ["/echo a b", '/echo "two words" it\'s', "/echo 1 & 2 < 3 &amp; <!channel>", "/who a",
         "/echo", "/echo a --public", "/many 3", "/oops", "/quiet", "/many x", "/fail", "/blocks",
         "/help echo", "/jira release 9.9"]


def check_answers(ways, line, names, fails):
    """The ways with some *names*, and the terminal, give the same answers to a line."""
    process = run_in_terminal(ways, line)
    wanted = ways.slack.ask(ways.bot, slackbot.escape(line))
    for name in names:
        got = WAYS[name](ways, line, len(wanted))
        assert list(map(plain, got)) == list(map(plain, wanted)), name
        if name != "mention":
            assert [each["response_type"] for each in got] == [
                each["response_type"] for each in wanted], name
    assert printed_by(process) == ("".join(plain(each) + "\n" for each in wanted), int(fails))


@pytest.mark.parametrize("line", LINES)
def test_a_command_gives_the_same_answers_by_every_way(ways, line):
    fails = line in ("/oops", "/fail", "/many x", "/who a", "/jira release 9.9")
    check_answers(ways, line, WAYS, fails)


def test_an_unknown_command_is_answered_with_the_list_by_every_way(ways):
    check_answers(ways, "/unknown x", WAYS.keys() - {"path"}, True)
