"""Files: /jira release --csv uploads the issues of a release."""

import contextlib
import csv
import io
import itertools
import re

import pytest

import api_fakes
import fakes
from api_fakes import answers_to_event, buttons, check_log, mention, refusal, run_services, until

OWN = api_fakes.COMMANDS
EVIL = ['=HYPERLINK("http://evil.example","x")', "+1+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "="]
PLAIN = ["it's", 'a "quoted", word', "two\nlines", "Größe 名 🚀", "1=1", "<b> & co", " a "]


def release_issues(count):
    """*count* issues whose texts a spreadsheet would take for formulas, and others."""
    summaries = itertools.cycle([*EVIL, *PLAIN, "half \ud83d a character"])
    return [{**each, "summary": summary, "assignee": "=cmd|' /C calc'!A0" if number % 5 else None}
            for number, (each, summary) in enumerate(zip(fakes.issues(count), summaries))]


@contextlib.contextmanager
def run_with_jira(script, flavour, count):
    """A bot whose JIRA is of a *flavour* and has *count* issues in its release."""
    with fakes.Jira(flavour) as jira:
        jira.reset(issues=release_issues(count))
        login = {} if jira.cloud else {"JIRA_USERNAME": None, "JIRA_API_TOKEN": None,
                                       "JIRA_PERSONAL_TOKEN": jira.token}
        with run_services(script, JIRA_URL=jira.origin, **login) as made:
            yield made


@pytest.mark.parametrize("flavour", ["cloud", "server"])
def test_all_issues_of_a_release_are_uploaded_as_a_file(script, flavour):
    with run_with_jira(script, flavour, 130) as made:
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
        check_log(made.bot)
    head, *rows = csv.reader(io.StringIO(file["data"].decode("utf-8-sig"), newline=""))
    assert {"key", "summary", "status", "assignee", "priority"} <= set(map(str.lower, head))
    assert sorted(row[0] for row in rows) == sorted(f"APP-{n}" for n in range(1, 131))
    assert {len(row) for row in rows} == {len(head)}
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@\t\r")]
    summaries = {row[list(map(str.lower, head)).index("summary")] for row in rows}
    assert set(PLAIN) <= summaries
    assert all(any(cell.endswith(evil) and cell != evil for cell in summaries) for evil in EVIL)


def test_a_file_has_the_names_of_assignees_and_not_their_accounts(script):
    with run_with_jira(script, "server", 12) as made:
        made.slack.ask(made.bot, "/jira release 2.3 --csv")
        file, = made.api.files.values()
    rows = csv.DictReader(io.StringIO(file["data"].decode("utf-8-sig"), newline=""))
    assert {row["assignee"] for row in rows} == {"", "'=cmd|' /C calc'!A0"}


@pytest.mark.parametrize("line", [
    "/jira release 2.3 --csv", "/jira release 2.3 APP --csv", "/jira release 2.3 --csv --public",
    "/jira release 2.3 —csv", "/jira release 2.3 --csv APP"])
def test_the_word_csv_may_stand_anywhere_behind_the_version(services, line):
    files = len(services.api.files)
    said = services.slack.ask(services.bot, line)
    assert len(services.api.files) == files + 1
    assert any("APP 2.3" in each["text"] for each in said)
    report = next(each for each in said if each.get("blocks"))
    assert "--csv --public" not in buttons(report)["Share"]["value"]


def test_a_mention_gets_its_file_in_its_channel(services):
    said = answers_to_event(services, mention("<@U0BOT> jira release 2.3 --csv"))
    until(lambda: said[0]["channel"] in [
        file.get("channel") for file in services.api.files.values()])


def test_without_a_bot_token_the_report_comes_and_says_what_is_missing(script):
    with run_services(script, SLACK_BOT_TOKEN=None) as made:
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
def test_when_slack_refuses_a_file_the_report_comes_and_the_user_is_told_why(
        services, method, answer, word):
    faults = services.api.faults
    services.api.faults = lambda called, given: answer if called == method else None
    try:
        said = services.slack.ask(services.bot, "/jira release 2.3 --csv")
    finally:
        services.api.faults = faults
    assert any("APP 2.3" in each["text"] for each in said)
    assert word in said[-1]["text"] and "Sorry" not in said[-1]["text"]
