"""The /jira commands of a real bot, in front of a fake JIRA of either flavour and a fake Slack."""

import base64
import concurrent.futures
import contextlib
import datetime
import html
import io
import itertools
import json
import math
import re
import socket
import subprocess
import threading
import time
import types
import urllib.parse

import pytest
from api_fakes import until
from fakes import (DATA_BLOCKS, PAGE, PATIENCE, Bot, Jira, Seen, Slack, cell_text, issue,
                   issues, objection, reply, texts, time_with, version, wrong)

import slackbot

TITLES = ("Blockers", "In progress", "To do", "Unassigned", "Reopened", "Stale", "Inconsistent",
          "Done")
FIRST = 'project = "APP"'  # stands in every query of these tests
READY, NOT_READY, UNKNOWN = "🟢 *Ready*", "🔴 *Not ready*", "⚪ *Unknown*"
LINK = re.compile(r"<([^|>]+)\|([^>]*)>")


def environ(jira, **more):
    """What a bot needs to be told about *jira*."""
    login = {"JIRA_USERNAME": jira.username, "JIRA_API_TOKEN": jira.token} if jira.cloud else \
        {"JIRA_PERSONAL_TOKEN": jira.token}
    return {"JIRA_URL": jira.origin + jira.context, "JIRA_PROJECT": "APP", **login, **more}


@pytest.fixture(scope="module")
def sites():
    """A function that gives the bot, the JIRA and the Slack of a flavour, made when first used."""
    with contextlib.ExitStack() as stack:
        made = {}

        def site(flavour):
            if flavour not in made:
                slack, jira = map(stack.enter_context, (Slack(), Jira(flavour)))
                bot = stack.enter_context(Bot(**environ(
                    jira, SLACK_HOOKS_ORIGINS=slack.origin, LOG_LEVEL="DEBUG")))
                made[flavour] = types.SimpleNamespace(bot=bot, jira=jira, slack=slack)
            made[flavour].jira.reset()
            return made[flavour]
        yield site


@pytest.fixture(params=["cloud", "server"])
def site(sites, request):
    return sites(request.param)


@pytest.fixture
def cloud(sites):
    return sites("cloud")


@pytest.fixture
def server(sites):
    return sites("server")


def ask(site, line="/jira release 2.3", **fields):
    """Every answer of the bot to *line*, which is typed as it stands; Slack takes each of them."""
    def refused():
        return site.slack.attempts - sum(map(len, site.slack.posts.values()))
    before = refused()
    answers = site.slack.ask(site.bot, html.escape(line, quote=False), **fields)
    assert refused() == before or site.slack.refuses_data_blocks, "Slack has refused a message"
    assert [objection(answer) for answer in answers] == [""] * len(answers)
    return answers


def shown(message):
    """All that a message says in mrkdwn, in one text; what its data blocks hold is left out."""
    blocks = [block for block in message.get("blocks") or () if block["type"] not in DATA_BLOCKS]
    return "\n".join(texts(blocks)) if blocks else message["text"]


def block(message, kind):
    """The only block of a *kind* that a message has; None if there is none."""
    found = [block for block in message.get("blocks") or () if block["type"] == kind]
    assert len(found) < 2, f"{len(found)} blocks of the kind {kind}"
    return found[0] if found else None


def table(message):
    """The rows of a message's table, each as a dict of texts; [] if it has no table."""
    header, *rows = (block(message, "data_table") or {"rows": [[]]})["rows"]
    titles = list(map(cell_text, header))
    return [dict(zip(titles, map(cell_text, row))) for row in rows]


def keys(message):
    """The keys of the issues in a message's table, from top to bottom."""
    return [row["Key"] for row in table(message)]


def fields(message):
    """The sections of a report by title: what stands under it; and the empty ones, each with 0."""
    found = {}
    for each in texts([block["fields"] for block in message["blocks"] if "fields" in block]):
        title, _, said = each.partition("\n")
        if each.startswith("0: "):
            found.update(dict.fromkeys(each[3:].split(", "), "0"))
        else:
            found[LINK.sub(r"\2", title).replace("*", "").replace(":warning: ", "")] = said
    return found


def query(text):
    """The JQL that the only link in *text* leads to."""
    (url, _), = LINK.findall(text)
    return urllib.parse.parse_qs(urllib.parse.urlsplit(html.unescape(url)).query)["jql"][0]


def last(site, line="/jira release 2.3"):
    """All that the last answer to *line* says."""
    return shown(ask(site, line)[-1])


def count(text, title):
    """The count under the *title* of a section, in mrkdwn or in the terminal."""
    title = re.escape(title)
    found = re.search(rf"\*(?:<[^|>]*\|)?{title}(?:>| \([^)]*\))?\*\n((?:more than )?\d[\d,]*)$",
                      text, re.MULTILINE)
    if not found and re.search(rf"^0: (?:.*, )?{title}(?:,|$)", text, re.MULTILINE):
        return "0"
    assert found, f"there is no count of {title} in:\n{text}"
    return found[1]


def expected(issues):
    """How many of *issues* each section has, worked out without JQL."""
    def some(test):
        return f"{sum(1 for each in issues if test(each)):,}"
    is_open = {each["key"]: each["category"] != "done" for each in issues}
    return {
        "Blockers": some(lambda i: is_open[i["key"]] and i["priority"] in ("Blocker", "Highest")),
        "In progress": some(lambda i: i["category"] == "indeterminate"),
        "To do": some(lambda i: i["category"] == "new"),
        "Unassigned": some(lambda i: is_open[i["key"]] and not i["assignee"]),
        "Reopened": some(lambda i: is_open[i["key"]] and "Done" in i["was"]),
        "Stale": some(lambda i: is_open[i["key"]] and i["idle"] >= 7),
        "Inconsistent": some(lambda i: not is_open[i["key"]] and not i["resolution"]),
        "Done": some(lambda i: not is_open[i["key"]])}


def is_safe(text, *origins):
    """Whether all that Slack would take for markup in *text* is a link to one of *origins*."""
    return all(re.fullmatch(r"<(https?://[^|<>]+)\|[^<>]*>", found)
               and found[1:].startswith(tuple(origins)) for found in re.findall("<[^>]*>?", text))


def run(line, **variables):
    """One command in the terminal."""
    bot = Bot("run", line, **variables)
    return subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=PATIENCE)


# ---- The report

def test_237_issues_in_pages_of_50_are_counted_exactly(site):
    all_issues = list(issues(237))
    site.jira.reset(all_issues)
    text = last(site)
    assert {title: count(text, title) for title in TITLES} == expected(all_issues)
    assert "119 of 237 issues are open" in text.split("\n")[0]


def test_a_count_takes_one_request_beside_the_one_for_the_first_issues(site):
    site.jira.reset(issues(1237))
    assert count(last(site), "To do") == "310"
    asked = {}
    for seen in site.jira.searches:
        asked.setdefault(seen.ask["jql"], []).append(seen.ask)
    counts = [(each.get("fields"), each["maxResults"]) for both in asked.values() for each in both
              if "summary" not in each.get("fields", ())]
    assert [len(both) for both in asked.values()] == [2] * 9
    assert counts == [(["id"], 5000) if site.jira.cloud else (None, 0)] * 9


def test_the_first_answer_is_immediate_and_the_report_follows_it(site):
    told = threading.Event()
    site.jira.reset(issues(20), delay=lambda seen: told.wait(PATIENCE) and 0)
    url = site.slack.response_url()
    first = site.bot.command("/jira release 2.3", response_url=url)
    assert shown(first.json).startswith("Asking JIRA about release 2.3") and not site.jira.searches
    told.set()
    assert shown(site.slack.wait(url)[0]).startswith(NOT_READY)


def test_a_report_is_for_the_one_who_asked_unless_it_is_public(cloud):
    cloud.jira.reset(issues(3))
    assert {answer["response_type"] for answer in ask(cloud)} == {"ephemeral"}
    public = ask(cloud, "/jira release 2.3 --public")
    assert {answer["response_type"] for answer in public} == {"in_channel"}


def test_each_section_is_a_field_with_its_count_and_a_link_to_its_search(site):
    site.jira.reset(issues(237))
    message = ask(site)[-1]
    both = [each for block in message["blocks"] for each in texts(block.get("fields", []))]
    for title, text in zip(TITLES, both, strict=True):
        (url, label), = LINK.findall(text)
        assert label == title and url.startswith(site.jira.origin + "/issues/?jql=")
        assert text.split("\n")[1] == str(len(site.jira.find(query(text))))


def test_the_empty_sections_stand_in_one_last_field(site):
    site.jira.reset([issue("APP-1", category="indeterminate")])
    message = ask(site)[-1]
    *others, empty = [each["text"] for block in message["blocks"]
                      for each in block.get("fields", ())]
    assert empty == "0: Blockers, To do, Unassigned, Reopened, Stale, Inconsistent, Done"
    assert [LINK.search(text)[2] for text in others] == ["In progress"]


def test_no_field_is_for_empty_sections_where_there_are_none(site):
    site.jira.reset(issues(237))
    assert not re.search("^0: ", shown(ask(site)[-1]), re.MULTILINE)  # "20:00" may stand in it


def test_a_row_of_the_table_is_an_issues_key_summary_status_assignee_priority_and_sections(site):
    site.jira.reset([issue("APP-7", summary="Sign in <fails>", assignee="Ann & Bo",
                           priority="Highest", idle=8)])
    message = ask(site)[-1]
    assert table(message) == [{
        "Key": "APP-7", "Summary": "Sign in <fails>", "Status": "To Do", "Assignee": "Ann & Bo",
        "Priority": "Highest", "Sections": "Blockers, To do, Stale"}]
    (link,), = [cell["elements"][0]["elements"] for row in block(message, "data_table")["rows"]
                for cell in row if cell["type"] == "rich_text"]
    assert link == {"type": "link", "url": f"{site.jira.origin}/browse/APP-7", "text": "APP-7"}


def test_the_table_names_all_sections_that_an_issue_is_in(site):
    site.jira.reset([issue("APP-1", category="indeterminate", priority="Blocker", assignee=None,
                           was=["Done"], idle=9)])
    assert table(ask(site)[-1])[0]["Sections"] == \
        "Blockers, In progress, Unassigned, Reopened, Stale"


def test_the_table_has_each_open_issue_once_in_the_order_of_the_sections(site):
    site.jira.reset([
        issue("APP-1", idle=9), issue("APP-2", assignee=None, category="indeterminate"),
        issue("APP-3", priority="Blocker", category="indeterminate"),
        issue("APP-4", priority="Highest", idle=9), issue("APP-5", **DONE),
        issue("APP-6", category="done"), issue("APP-7", category="undefined", was=["Done"])])
    message = ask(site)[-1]
    assert {row["Key"]: row["Sections"] for row in table(message)} == {
        "APP-3": "Blockers, In progress", "APP-4": "Blockers, To do, Stale",
        "APP-2": "In progress, Unassigned", "APP-1": "To do, Stale", "APP-7": "Reopened"}
    assert keys(message) == ["APP-3", "APP-4", "APP-2", "APP-1", "APP-7"]


def test_inconsistent_issues_are_counted_but_stand_in_no_table(site):
    site.jira.reset([issue("APP-1", category="done"), issue("APP-2")])
    message = ask(site)[-1]
    assert fields(message)["Inconsistent"] == "1" and keys(message) == ["APP-2"]


def test_there_is_no_table_where_nothing_is_in_the_way(site):
    site.jira.reset(issues(5, **DONE))
    message = ask(site)[-1]
    assert shown(message).startswith(READY) and block(message, "data_table") is None


def test_the_table_shows_ten_issues_a_page_and_names_each_row_by_its_key(cloud):
    cloud.jira.reset(issues(40))
    made = block(ask(cloud)[-1], "data_table")
    assert (made["page_size"], made["row_header_column_index"]) == (10, 0)
    assert "APP 2.3" in made["caption"]


@pytest.mark.parametrize("number, held", [(99, 99), (100, 100), (101, 100), (250, 100)])
def test_the_table_holds_100_issues_and_a_link_under_it_says_of_how_many(
        site, number, held):
    site.jira.reset(issues(number, category="new", summary="Short"), page=100)
    message = ask(site)[-1]
    assert len(set(keys(message))) == len(table(message)) == held
    check_rest(site, message, number - held)


def test_the_table_holds_10000_characters_and_a_link_under_it_says_of_how_many(site):
    site.jira.reset(issues(100, category="new", priority="Blocker", assignee="A" * 255, idle=9,
                           was=["Done"], summary="&" * 255), page=100)
    message = ask(site)[-1]
    characters = sum(map(len, map(cell_text, sum(block(message, "data_table")["rows"], []))))
    assert 9_700 < characters <= 10_000 and len(table(message)) < 100
    check_rest(site, message, 100 - len(table(message)))


def test_issues_that_a_small_page_leaves_out_are_said_under_the_table(cloud):
    cloud.jira.reset(issues(60, category="new", priority="Low", assignee="Ann", idle=0, was=[]),
                     page=25)
    message = ask(cloud)[-1]
    assert len(table(message)) == 25
    check_rest(cloud, message, 35)


def check_rest(site, message, left):
    """The block under the table says that *left* issues aren't in it, and leads to all open ones."""
    under = message["blocks"][message["blocks"].index(block(message, "data_table")) + 1]
    (text,) = texts(under)
    held = len(table(message))
    assert LINK.search(text)[2] == f"{held} of {held + left} open issues"
    assert len(site.jira.find(query(text))) == held + left


def test_what_the_table_leaves_out_is_said_even_where_nobody_knows_how_many_are_open(site):
    site.jira.reset(issues(150, category="new"), page=100)
    site.jira.faults = [["(statusCategory != Done)", ("status", 500), math.inf]]
    message = ask(site)[-1]
    under = message["blocks"][message["blocks"].index(block(message, "data_table")) + 1]
    assert len(table(message)) == 100 and "100 of ? open issues" in "".join(texts(under))


def test_an_issue_of_null_fields_has_dashes_in_the_table(site):
    site.jira.reset([issue("APP-1", priority=None, assignee=None, summary=None)])
    assert table(ask(site)[-1]) == [{
        "Key": "APP-1", "Summary": "–", "Status": "To Do", "Assignee": "–", "Priority": "–",
        "Sections": "To do, Unassigned"}]


def test_under_a_report_stand_when_it_was_asked_and_the_queries_and_then_one_row_of_buttons(site):
    site.jira.reset(issues(3))
    started = time.strftime("%H:%M")
    *_, footer, row = ask(site)[-1]["blocks"]
    (text,) = texts(footer)
    found = re.fullmatch(r"asked (\d\d:\d\d), 9 queries, \d\.\d s", text)
    assert footer["type"] == "context" and found[1] in (started, time.strftime("%H:%M"))
    assert [(each["text"]["text"], each["action_id"], each["value"]) for each in row["elements"]] \
        == [("Refresh", "run:replace", "/jira release 2.3"),
            ("Share", "run", "/jira release 2.3 --public")]


def test_the_text_of_a_report_says_the_verdict_and_the_counts_alone(site):
    site.jira.reset(issues(237))
    text = ask(site)[-1]["text"]
    assert text == (f"{NOT_READY} APP 2.3: 119 of 237 issues are open\n"
                    "118 done · 59 in progress · 60 to do")


def test_a_report_comes_where_every_query_failed_with_the_reasons_in_the_fields(site):
    site.jira.reset(issues(8))
    site.jira.faults = [["/search", wrong(500, "No & such luck"), math.inf]]
    message = ask(site)[-1]
    assert message["text"].startswith(UNKNOWN) and shown(message).startswith(UNKNOWN)
    assert list(fields(message)) == list(TITLES)
    assert all(said.endswith("500: No &amp; such luck") for said in fields(message).values())
    assert shown(message).count(":warning:") == len(TITLES) and not table(message)
    assert message["text"].endswith("? done · ? in progress · ? to do")


def test_the_bar_has_the_share_of_each_category(site):
    site.jira.reset([*issues(6, category="done"), *issues(3, project="APP", category="new")])
    opening = shown(ask(site)[-1]).split("\n")[1]
    assert re.fullmatch(r"`█{13}░{7}` 6 done · 0 in progress · 3 to do", opening)


@pytest.mark.parametrize("days, words", [
    (11, "11 days left"), (1, "1 day left"), (0, "today"), (-1, "1 day late"),
    (-30, "30 days late"), (None, "no release date")])
def test_a_report_tells_the_release_date_and_the_days_left(cloud, days, words):
    date = {} if days is None else {
        "releaseDate": str(datetime.date.today() + datetime.timedelta(days))}
    cloud.jira.reset(issues(3), versions={"APP": [version("2.3", **date)]})
    opening = next(texts(ask(cloud)[-1]["blocks"][0]))
    assert words in opening and (days is None or date["releaseDate"] in opening)


def test_a_report_ends_with_the_time_it_took(cloud):
    cloud.jira.reset(issues(3), delay=0.1)
    started = time.monotonic()
    said = float(re.search(r"(\d+\.\d+) s$", last(cloud), re.MULTILINE)[1])
    assert 0.2 <= said <= time.monotonic() - started + 0.05, "as it is rounded"


DONE = {"category": "done", "resolution": "Fixed"}
VERDICTS = {
    "everything is done": ([issue("APP-1", **DONE)], (), READY),
    "one is to do": ([issue("APP-1"), issue("APP-2", **DONE)], (), NOT_READY),
    "one is in progress": ([issue("APP-1", category="indeterminate")], (), NOT_READY),
    "there is no issue": ([], (), NOT_READY),
    "the open ones are unknown": ([issue("APP-1", **DONE)], ['"In Progress"'], UNKNOWN),
    "the done ones are unknown": ([issue("APP-1", **DONE)], ["statusCategory = Done"],
                                  UNKNOWN),
    "everything is unknown": ([issue("APP-1", **DONE)], ["/search"], UNKNOWN),
    "something is unknown but one is open": ([issue("APP-1")], ['"In Progress"'], NOT_READY),
    "only a detail shows an open one": ([issue("APP-1", idle=9)], ['"In Progress"', '"To Do"'],
                                        NOT_READY),
    "the categories are known, and they alone": ([issue("APP-1", **DONE)],
                                                 ["statusCategory != Done"], UNKNOWN),
    "a detail is unknown and one is open": ([issue("APP-1")], ["WAS"], NOT_READY),
    "one that no section shows is in no category": (
        [issue("APP-1", category="undefined"), issue("APP-2", **DONE)], (), NOT_READY),
    "a section shows one in no category": (
        [issue("APP-1", category="undefined", idle=9), issue("APP-2", **DONE)], (), NOT_READY)}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_stands_first_when(site, name):
    found, failing, verdict = VERDICTS[name]
    site.jira.reset(found, versions={"APP": [version("2.3")]})
    site.jira.faults = [[part, ("status", 500), math.inf] for part in failing]
    message = ask(site)[-1]
    assert shown(message).startswith(verdict)
    assert message["text"].startswith(verdict), "a notification shows the text alone"


def test_a_total_that_nobody_knows_is_no_number(site):
    site.jira.reset([*issues(3, category="new"), issue("APP-9", **DONE)])
    site.jira.faults = [["(statusCategory = Done)", ("status", 500), math.inf]]
    assert f"{NOT_READY} APP 2.3: 3 of ? issues are open\n" in last(site)


def test_a_category_is_known_by_its_key_whatever_its_name(site):
    site.jira.reset([issue("APP-1", **DONE), issue("APP-2", idle=9)])
    site.jira.categories = {"new": (2, "Neu"), "done": (3, "Fertig")}
    site.jira.faults = [['"To Do"', ("status", 500), math.inf]]
    text = last(site)
    assert text.startswith(NOT_READY) and count(text, "Done") == "1"


def test_done_issues_are_known_by_the_key_of_their_category_too(site):
    site.jira.reset([issue("APP-1", **DONE)])
    site.jira.categories = {"done": (3, "Fertig")}
    assert last(site).startswith(READY)


def test_an_issue_in_no_category_is_counted_as_open(site):
    site.jira.reset([issue("APP-1", category="undefined"), *issues(3, "APP", **DONE)])
    assert "1 of 4 issues are open" in last(site).split("\n")[0]


def test_null_fields_are_no_failure_and_no_word_in_the_answer(site):
    site.jira.reset([issue("APP-1", category=None, priority=None, assignee=None, summary=None),
                     issue("APP-2", priority=None, assignee=None, summary=None)])
    message = ask(site)[-1]
    assert fields(message)["To do"] == "1" and keys(message) == ["APP-2"]
    assert not re.search("None|null", json.dumps(message["blocks"]))


# ---- Versions and projects

@pytest.mark.parametrize("typed", ["2.31", "2.3", "2,3,1", "v2.3.1", "2.3.1."])
def test_a_mistyped_version_is_never_green_and_near_matches_are_offered(site, typed):
    site.jira.reset([issue("APP-1", versions=["2.3.1"], **DONE),
                     issue("APP-2", versions=["Mobile"], **DONE)])
    text = last(site, f"/jira release {typed}")
    assert "`2.3.1`" in text and "Mobile" not in text
    assert "*Ready*" not in text and not site.jira.searches


def test_a_version_is_offered_to_who_typed_a_part_of_its_name(cloud):
    cloud.jira.reset(issues(3, versions=["Checkout for tablets 2.3 (autumn)"]))
    assert "Checkout for tablets" in last(cloud)


def test_a_version_unlike_all_others_is_said_to_be_unknown(site):
    site.jira.reset(issues(3))
    text = last(site, "/jira release Zebra")
    assert "Zebra" in text and "*Ready*" not in text and "2.3" not in text


def test_a_version_is_found_in_another_case_than_it_has(site):
    site.jira.reset([issue("APP-1", versions=["2.3-RC"])])
    assert last(site, "/jira release 2.3-rc").startswith(f"{NOT_READY} APP 2.3-RC")


def test_a_version_of_digits_is_a_name_and_not_an_id(site):
    site.jira.reset([issue("APP-1", versions=["10000"])])
    assert count(last(site, "/jira release 10000"), "To do") == "1"


def test_projects_without_the_version_are_named(site):
    site.jira.reset([issue("APP-1"), issue("WEB-1"), issue("OPS-1", versions=["9"])])
    text = last(site, "/jira release 2.3 APP WEB OPS")
    assert count(text, "To do") == "2"
    assert any("OPS" in line and "APP" not in line for line in text.splitlines())


def test_a_report_on_one_of_250_projects_with_long_keys_fits_into_a_message(site):
    keys = [f"PROJECT{number}" for number in range(100, 350)]
    site.jira.reset([issue(keys[0] + "-1")], versions={
        key: [version("2.3" if key == keys[0] else "9")] for key in keys})
    text = last(site, "/jira release 2.3 " + " ".join(keys))
    assert text.startswith(f"{NOT_READY} PROJECT100 2.3") and "not in PROJECT101" in text


def test_a_project_that_doesnt_exist_is_named(site):
    site.jira.reset(issues(3))
    text = last(site, "/jira release 2.3 NOPE")
    assert "NOPE" in text and "*Ready*" not in text


def test_a_project_may_be_typed_small(site):
    site.jira.reset([issue("WEB-1")])
    assert count(last(site, "/jira release 2.3 web"), "To do") == "1"


def test_very_many_spaces_before_a_project_take_no_time(cloud):
    cloud.jira.reset([issue("WEB-1")])
    jira = jira_of(environ(cloud.jira))
    started = time.process_time()
    report = answers(jira, "/jira release 2.3" + " " * 40_000 + "WEB")[-1]
    assert time.process_time() - started < 2 and fields(report)["To do"] == "1"


def test_the_configured_project_is_the_one_that_is_asked(site):
    site.jira.reset([issue("APP-1"), issue("WEB-1")])
    assert count(last(site), "To do") == "1"


# ---- Hostile text

HOSTILE = ['2.3" OR project = "SECRET', '2.3\\" OR project = SECRET OR fixVersion = \\"', "it's",
           "back\\slash", "ends in \\", "<!channel>", "R&D <b>", "a  b", "*Ready*", "$(id)", "𝟚.3",
           '") OR (project = "SECRET']


def quoted(text):
    """*text* as one word of a command line."""
    return text if "'" in text else f"'{text}'"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_versions_name_stays_a_value_in_the_query_and_text_in_the_answer(site, name):
    site.jira.reset([issue("APP-1", versions=[name]), issue("SECRET-1", versions=["2.3"])])
    message = ask(site, f"/jira release {quoted(name)}")[-1]
    assert fields(message)["To do"] == "1" and keys(message) == ["APP-1"]
    assert is_safe(shown(message), site.jira.origin) and is_safe(message["text"])


@pytest.mark.parametrize("name", HOSTILE)
def test_an_unknown_version_with_a_hostile_name_is_only_repeated(cloud, name):
    cloud.jira.reset(issues(3, versions=["Mobile"]))
    text = last(cloud, f"/jira release {quoted(name)}")
    assert is_safe(text) and text.startswith("There is no version") and not cloud.jira.searches


@pytest.mark.parametrize("key", ['APP" OR project = "SECRET', "APP/../SECRET", "..", "APP?x=1",
                                 "APP#", "<!channel>", "ÄPP", "A", "APP,SECRET"])
def test_a_projects_key_is_refused_unless_it_is_one(cloud, key):
    cloud.jira.reset([issue("APP-1"), issue("SECRET-1")])
    text = last(cloud, f"/jira release 2.3 {quoted(key)}")
    assert is_safe(text) and "SECRET-1" not in text and not cloud.jira.seen


def test_hostile_summaries_and_names_are_raw_text_in_their_own_cells(site):
    site.jira.reset(issues(36, category="new"))
    message = ask(site)[-1]
    assert is_safe(shown(message), site.jira.origin)
    rows = {row["Key"]: row for row in table(message)}
    assert rows["APP-2"]["Summary"] == "<!channel> & <http://evil.example|you>"
    assert rows["APP-5"]["Summary"] == "two *Ready*" and rows["APP-6"]["Summary"] == "&lt;b&gt;"
    assert {row["Assignee"] for row in rows.values()} == {"–", "Ann", "Bo <b> & Co"}
    for row in block(message, "data_table")["rows"]:
        assert [cell["type"] for cell in row[1:]] == ["raw_text"] * 5


@pytest.mark.parametrize("line", ["/jira release 2.3", "/jira search x = 1", "/jira APP-1",
                                  "/jira releases"])
def test_what_jira_says_of_an_error_is_text(cloud, line):
    cloud.jira.reset(issues(3))
    cloud.jira.faults = [[part, wrong(400, "<!channel> & <http://evil.example|you>"), math.inf]
                         for part in ("/search", "/issue")]
    assert is_safe(last(cloud, line), cloud.jira.origin)


# ---- Paging

def test_the_removed_search_and_the_estimate_are_never_asked_of_cloud(cloud):
    cloud.jira.reset(issues(237))
    for line in ("/jira release 2.3", "/jira releases", "/jira search " + FIRST):
        ask(cloud, line)
    assert {seen.path for seen in cloud.jira.searches} == {"/rest/api/3/search/jql"}


def test_a_last_page_that_still_has_a_token_is_the_last(cloud):
    cloud.jira.reset(issues(20))
    cloud.jira.bend = lambda page: {**page, "nextPageToken": "another"}
    assert count(last(cloud), "To do") == "5"
    assert len(cloud.jira.searches) == 2 * len({seen.ask["jql"] for seen in cloud.jira.searches})


def test_a_page_without_a_token_is_the_last_where_isLast_is_missing(cloud):
    cloud.jira.reset(issues(237), id_page=60)
    cloud.jira.bend = lambda page: {name: page[name] for name in page if name != "isLast"}
    assert count(last(cloud), "To do") == "60"


def test_a_token_that_is_null_is_none(cloud):
    cloud.jira.reset(issues(237), id_page=60)
    cloud.jira.bend = lambda page: {"nextPageToken": None, **page}
    assert count(last(cloud), "To do") == "60"


BENT = {
    "a token that repeats": lambda page: {**page, "isLast": False, "nextPageToken": "50"},
    "a token that is missing": lambda page: {"issues": page["issues"], "isLast": False},
    "a token that is null": lambda page: {**page, "isLast": False, "nextPageToken": None}}


@pytest.mark.parametrize("name", BENT)
def test_a_count_says_more_than_where_paging_breaks_with(cloud, name):
    cloud.jira.reset(issues(237), id_page=50)
    cloud.jira.bend = BENT[name]
    text = last(cloud)
    assert text.startswith(NOT_READY)
    assert int(count(text, "To do").removeprefix("more than ")) <= 60 != count(text, "To do")


def test_tokens_that_go_round_in_a_circle_come_to_an_end(cloud):
    cloud.jira.reset(issues(237), id_page=10)
    circle = itertools.cycle(["10", "20", "30"])
    cloud.jira.bend = lambda page: {**page, "isLast": False, "nextPageToken": next(circle)}
    assert count(last(cloud), "To do").startswith("more than ")
    assert len(cloud.jira.searches) <= 5 * 9


def test_empty_pages_without_end_come_to_an_end(cloud):
    cloud.jira.reset(issues(20))
    numbers = itertools.count()
    cloud.jira.bend = lambda page: {"issues": [], "isLast": False,
                                    "nextPageToken": str(next(numbers))}
    message = ask(cloud)[-1]
    assert shown(message).startswith(UNKNOWN) and "more than 0 done" in message["text"]
    assert set(fields(message).values()) == {"more than 0"}


def test_data_center_is_counted_by_its_total(server):
    server.jira.reset(issues(237), page=7)
    message = ask(server)[-1]
    assert fields(message)["To do"] == "60" and "APP-1" in keys(message)


def test_data_center_is_paged_by_offsets(server):
    server.jira.reset(issues(23), page=7)
    jira = slackbot.Jira(slackbot.Config(environ(server.jira)))
    found, is_all = jira.search(FIRST, ["summary"], 100, 5000)
    assert [each["key"] for each in found] == [f"APP-{number}" for number in range(1, 24)]
    assert is_all and [seen.ask.get("startAt", 0) for seen in server.jira.searches] == [
        0, 7, 14, 21]


def test_more_than_5000_issues_are_said_to_be_more_than_5000(site):
    site.jira.reset(issues(5030, category="new", summary="x"))
    text = last(site)
    exact = "more than 5,000" if site.jira.cloud else "5,030"  # Data Center knows it exactly
    assert count(text, "To do") == exact and f"{exact} of {exact} issues are open" in text


def test_what_is_open_is_exact_where_only_the_done_ones_are_too_many(cloud):
    cloud.jira.reset([*issues(5030, summary="x", **DONE), *issues(3, "APP", category="new")])
    assert ": 3 of more than 5,003 issues are open\n" in last(cloud)


def test_5000_issues_are_exactly_5000(site):
    site.jira.reset(issues(5000, category="new", summary="x"))
    assert count(last(site), "To do") == "5,000"


# ---- Failures

FAILURES = {
    "a 400": wrong(400, "The value 'Blocker' does not exist for the field 'priority'."),
    "a 400 with errors only": reply(400, {"errors": {"jql": "Blocker is wrong"}}),
    "a 400 without a reason": reply(400, {}), "a 500": wrong(500, "Internal server error"),
    "a 500 in HTML": ("status", 500), "a page of a proxy": ("status", 200),
    "a list": reply(200, ["Hello"]),
    "an object of another kind": reply(200, {"message": "Hello"}),
    "a string": reply(200, "Hello"), "a null": reply(200, None),
    "nothing": ("status", 200, {}, b""), "half an answer": ("status", 200, {}, b'{"issues": ['),
    "a redirect": "redirect", "a broken connection": "reset", "an endless answer": "huge",
    "deep JSON": ("status", 200, {}, b"[" * 200_000)}


@pytest.mark.parametrize("name", FAILURES)
def test_one_failed_query_is_named_in_its_field_and_the_rest_stands(site, name):
    site.jira.reset(issues(40))
    site.jira.faults = [["priority", FAILURES[name], math.inf]]
    message = ask(site)[-1]
    found, wanted = fields(message), expected(site.jira.issues)
    assert shown(message).startswith(NOT_READY) and found.pop("Blockers").startswith("JIRA")
    assert ":warning: *Blockers*" in shown(message)
    assert found == {title: wanted[title] for title in TITLES[1:]}
    assert len(table(message)) == 20 and "Blockers" not in json.dumps(table(message))


@pytest.mark.parametrize("kind", ["summary", "count"])
def test_a_section_whose_first_issues_or_whose_count_alone_fails_has_failed(site, kind):
    site.jira.reset(issues(8))
    answer, counted = site.jira.answer, ["id"] if site.jira.cloud else None

    def fail(seen):
        ask = json.loads(seen.body or b"{}")
        is_count = ask.get("fields") == counted
        return ("status", 500) if "WAS" in ask.get("jql", "") and is_count == (kind == "count") \
            else answer(seen)
    site.jira.answer = fail
    try:
        found = fields(ask(site)[-1])
    finally:
        del site.jira.answer
    assert "500" in found["Reopened"] and found["To do"] == "2"


@pytest.mark.parametrize("flavour", ["cloud", "server"])
def test_an_answer_that_nobody_can_understand_is_named_in_its_section_and_logged(flavour):
    with Jira(flavour, issues=issues(40)) as jira:
        jira.faults = [["priority", reply(200, {"issues": None}), math.inf]]
        done = run("/jira release 2.3", **environ(jira))
        wanted = expected(jira.issues)
    assert {title: count(done.stdout, title) for title in TITLES[1:]} == {
        title: wanted[title] for title in TITLES[1:]}
    assert re.search(r":warning: \*Blockers\*\n.* can't be understood", done.stdout)
    assert "Sorry" not in done.stdout and "Traceback" in done.stderr
    assert done.stdout.count(NOT_READY) == 1


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("line, path", [
    ("/jira release 2.3", "/versions"), ("/jira releases", "/versions"),
    ("/jira search " + FIRST, "/search"), ("/jira APP-1", "/issue")])
def test_a_command_that_jira_fails_says_so_and_doesnt_apologise_for_a_bug(cloud, line, path, name):
    cloud.jira.reset(issues(8))
    cloud.jira.faults = [[path, FAILURES[name], math.inf]]
    text = last(cloud, line)
    assert "JIRA" in text and "Sorry" not in text and "eady*" not in text and is_safe(text)


def test_an_endless_answer_is_read_up_to_10_megabytes(cloud):
    cloud.jira.reset(issues(8))
    cloud.jira.faults = [["WAS", "huge", 1]]
    before = cloud.jira.sent
    ask(cloud)
    assert 10_000_000 < cloud.jira.sent - before < 25_000_000  # the kernel's buffers take some


def test_a_site_that_lacks_a_name_in_a_clause_says_so_in_the_section(site):
    site.jira.reset(issues(8))
    site.jira.known["priority"] -= {"blocker"}
    text = fields(ask(site)[-1])["Blockers"]
    assert "does not exist" in text and "priority" in text


@pytest.fixture
def pauses(monkeypatch):
    """The seconds of each pause between two requests, which take no time."""
    made = []
    monkeypatch.setattr(slackbot, "time", time_with(sleep=made.append))
    return made


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value, least, most", [
    ("0", 0, 0), ("1", 1, 1), ("86400", 30, 30), ("1234567890", 30, 30), ("9" * 5000, 30, 30),
    (None, 1, 2), ("soon", 1, 2), ("-1", 1, 2), ("1e9", 1, 2),
    ("Fri, 31 Dec 1999 23:59:59 GMT", 1, 2)])
def test_a_jira_that_is_busy_is_asked_again_after_the_time_that_it_says(cloud, pauses, status,
                                                                        value, least, most):
    headers = {} if value is None else {"Retry-After": value}
    cloud.jira.reset(issues(8))
    cloud.jira.faults = [["WAS", ("status", status, headers), 1]]
    report = answers(jira_of(environ(cloud.jira)), "/jira release 2.3")[-1]
    assert fields(report)["Reopened"] == "1"
    pause, = pauses
    assert least <= pause <= most
    asked = [str(seen.ask["fields"]) for seen in cloud.jira.searches if "WAS" in seen.ask["jql"]]
    assert len(asked) == 3 and len(set(asked)) == 2


def test_a_jira_that_stays_busy_is_asked_three_times(cloud):
    cloud.jira.reset(issues(8))
    cloud.jira.faults = [["WAS", ("status", 429, {"Retry-After": "0"}), math.inf]]
    message = ask(cloud)[-1]
    assert len([seen for seen in cloud.jira.searches
                if "WAS" in seen.ask["jql"] and "summary" in seen.ask["fields"]]) == 3
    assert "429" in fields(message)["Reopened"] and fields(message)["To do"] == "2"


def test_wrong_credentials_are_told_loudly(site):
    site.jira.reset(issues(3))
    site.jira.faults = [["", ("status", 401), math.inf]]
    for line in ("/jira release 2.3", "/jira releases", "/jira search " + FIRST, "/jira APP-1"):
        assert re.search("credentials|log ?in|token", last(site, line)), line


def test_an_expired_token_that_gets_200_as_anonymous_is_told_as_loudly(site):
    site.jira.reset([issue("APP-1", **DONE)])
    site.jira.token, right = "another", site.jira.token
    site.jira.anonymous = True
    try:
        texts = [last(site, line) for line in ("/jira release 2.3", "/jira search " + FIRST)]
    finally:
        site.jira.token = right
    assert all(re.search("credentials|log ?in|token", text) for text in texts)
    assert not any(re.search(r"\b0\b|eady\*", text) for text in texts)


def test_a_jira_that_is_down_is_told(cloud):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        variables = environ(cloud.jira, JIRA_URL=f"http://127.0.0.1:{unused.getsockname()[1]}")
        done = run("/jira release 2.3", **variables)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1] == "JIRA can't be reached (connection refused)."


NOT_JIRA = {
    "a page": ("status", 200), "a 404 in HTML": ("status", 404, {}, PAGE),
    "another service's object": reply(200, {"message": "Hello"}), "a list": reply(200, ["Hello"]),
    "a 400 without a reason": reply(400, {}), "nothing": ("status", 200, {}, b"")}


@pytest.mark.parametrize("name", NOT_JIRA)
@pytest.mark.parametrize("line", ["/jira release 2.3", "/jira releases", "/jira APP-1"])
def test_a_jira_url_that_leads_to_something_else_is_told_in_the_users_words(line, name):
    words = r"JIRA_URL answers, but not as JIRA's API does \(status \d{3}\)\.$"
    with Jira(issues=issues(3)) as jira:
        jira.faults = [["", NOT_JIRA[name], math.inf]]
        *_, message = answers(jira_of(environ(jira)), line)
        assert re.search(words, shown(message))
        if name == "a page":
            done = run(line, **environ(jira))
            assert done.returncode == 1 and "Traceback" not in done.stderr
            assert re.search(words, done.stdout)


@pytest.mark.parametrize("line", [
    "/jira release 2.3", "/jira release 2.3 APP", "/jira release 2.3 ...", "/jira releases",
    "/jira releases ...", "/jira search project = APP", "/jira APP-1"])
def test_a_bot_without_jira_says_so_before_it_asks_for_anything_else(line):
    done = run(line)
    assert done.returncode == 1
    assert done.stdout == ("JIRA isn't connected: whoever runs the bot should set JIRA_URL.\n")


@pytest.mark.parametrize("fault", ["silence", "drip"])
def test_a_query_that_isnt_answered_in_time_is_named_in_its_section(cloud, fault):
    def send(url, data, headers, seconds, limit):
        """`fetch`; of the 30 seconds, the query that has no answer gets a fifth of one."""
        assert seconds == 30
        has_none = b" WAS " in (data or b"")
        return slackbot.fetch(url, data, headers, 0.2 if has_none else seconds, limit)

    cloud.jira.reset(issues(8))
    cloud.jira.faults = [["WAS", fault, math.inf]]
    found = fields(answers(jira_of(environ(cloud.jira), send), "/jira release 2.3")[-1])
    assert re.search("can't be reached .*time", found["Reopened"]) and found["To do"] == "2"


# ---- Time

@pytest.mark.parametrize("flavour", ["cloud", "server"])
def test_a_report_takes_as_long_as_its_slowest_query_even_the_first_of_a_bot(flavour):
    all_have_come = threading.Barrier(18)  # nine queries, and each is counted

    def delay(seen):
        if "/search" in seen.path:
            all_have_come.wait(PATIENCE)
        return 0
    with Slack() as slack, Jira(flavour, issues=issues(8), delay=delay) as jira, Bot(
            **environ(jira, SLACK_HOOKS_ORIGINS=slack.origin)) as bot:
        report = ask(types.SimpleNamespace(bot=bot, slack=slack))[-1]
        assert len(jira.searches) == 18 and fields(report) == expected(jira.issues)


def test_progress_is_told_after_5_seconds(cloud, monkeypatch):
    def pass_time(futures, seconds):
        """Wait as the bot does, in no time: all have their answers by then but the slow query."""
        waited.append(seconds)
        has_slow_one = len(futures) == 9
        until(lambda: sum(not future.done() for future in futures) == has_slow_one)
        found = concurrent.futures.wait(futures, 0)
        if has_slow_one:
            slow.set()
        return found

    waited, slow = [], threading.Event()
    monkeypatch.setattr(slackbot, "wait", pass_time)
    cloud.jira.reset(issues(8), delay=lambda seen: "WAS" in seen.ask.get("jql", "")
                     and slow.wait(PATIENCE) and 0)
    _, progress, report = answers(jira_of(environ(cloud.jira)), "/jira release 2.3")
    assert "8 of 9" in shown(progress) and shown(report).startswith(NOT_READY)
    assert waited == [5, 5], "for the versions, and for the queries"


# ---- Credentials and configuration

def test_credentials_go_to_no_other_host_and_into_no_log(site):
    site.jira.reset(issues(3))
    with Jira() as other:
        away = ("status", 302, {"Location": other.origin + "/rest/api/3/search/jql"}, PAGE)
        site.jira.faults = [["", away, math.inf]]
        text = last(site)
        assert "302" in text and not other.seen
    login = base64.b64encode(f"{site.jira.username}:{site.jira.token}".encode()).decode()
    for secret in (site.jira.token, login, site.jira.username):
        assert secret not in site.bot.output + text


def test_a_fault_of_the_login_page_kind_never_shows_the_page(cloud):
    cloud.jira.reset(issues(3))
    cloud.jira.faults = [["", ("status", 200), math.inf]]
    assert "<" not in last(cloud) and "html" not in last(cloud)


def test_the_sections_are_those_of_JIRA_QUERIES():
    queries = {"Ours <b>": "priority = High",
               "Gone": "resolution is not EMPTY OR assignee is EMPTY"}
    with Jira(issues=[*issues(24), issue("WEB-1", assignee=None)]) as jira:
        done = run("/jira release 2.3", **environ(jira, JIRA_QUERIES=json.dumps(queries)))
        assert count(done.stdout, "Ours <b>") == "4"
        assert int(count(done.stdout, "Gone")) == len(
            [each for each in jira.issues if each["project"] == "APP"
             and (each["resolution"] or not each["assignee"])]), "a clause needs its brackets"
    assert "Blockers" not in done.stdout and done.returncode == 0


@pytest.mark.parametrize("clause, title", [
    (lambda number: f"statusCategory = Done OR updated <= -{number}d", "Section {}"),
    (lambda number: " AND ".join(f'key != "APP-{number + 10}{more}"' for more in range(10, 25)),
     "Section {}"),
    (lambda number: f"priority = Low AND priority = High AND updated <= -{number}d",
     "&" * 50 + " {}"),
    (lambda number: f"nonsense = {number}", "<" * 50 + " {}")],
    ids=["short clauses", "long clauses", "empty sections with long titles", "failing sections"])
def test_twenty_sections_of_long_issues_fit_into_a_message(clause, title):
    queries = {title.format(number): clause(number) for number in range(20)}
    with Slack() as slack, Jira(issues=issues(250, summary="&" * 255)) as jira, Bot(**environ(
            jira, JIRA_QUERIES=json.dumps(queries), SLACK_HOOKS_ORIGINS=slack.origin)) as bot:
        message = ask(types.SimpleNamespace(bot=bot, slack=slack))[-1]
    assert [*breaches(message)] == [] and shown(message).startswith(NOT_READY)


def test_the_rest_api_may_have_another_address_than_the_links():
    with Jira(context="/ex/jira/123", issues=issues(3)) as jira:
        done = run("/jira APP-1", **environ(jira, JIRA_URL="https://example.atlassian.net",
                                            JIRA_API_URL=jira.origin + jira.context))
    assert "https://example.atlassian.net/browse/APP-1" in done.stdout and done.returncode == 0


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_jira_may_live_under_a_path(slash):
    with Jira("server", context="/jira", issues=issues(3)) as jira:
        done = run("/jira APP-1", **environ(jira, JIRA_URL=jira.origin + "/jira" + slash))
        report = run("/jira release 2.3", **environ(jira, JIRA_URL=jira.origin + "/jira" + slash))
    assert f"{jira.origin}/jira/browse/APP-1)" in done.stdout
    assert f"*To do ({jira.origin}/jira/issues/?jql=project" in report.stdout


def test_a_data_center_with_a_name_and_a_password_is_recognised():
    with Jira("server", issues=issues(3)) as jira:
        done = run("/jira release 2.3", **environ(
            jira, JIRA_PERSONAL_TOKEN=None, JIRA_USERNAME="qa@example.com",
            JIRA_API_TOKEN=jira.token))
    assert count(done.stdout, "To do") == "1"


def test_projects_that_are_asked_side_by_side_recognise_a_data_center_together():
    late = {"/rest/api/2/project/WEB/versions": 0.1}
    with Jira("server", issues=[issue("APP-1"), issue("WEB-1")],
              delay=lambda seen: late.get(seen.path, 0)) as jira:
        done = run("/jira release 2.3 APP WEB", **environ(
            jira, JIRA_PERSONAL_TOKEN=None, JIRA_USERNAME="qa@example.com",
            JIRA_API_TOKEN=jira.token))
    assert count(done.stdout, "To do") == "2"


# ---- The other commands

def by_version(message):
    """The rows of the table of /jira releases by version."""
    return {row["Version"]: row for row in table(message)}


def test_releases_are_a_table_with_verdict_counts_and_date_as_numbers_where_they_are(site):
    site.jira.reset([*issues(237), issue("APP-900", versions=["2.4"])], versions={"APP": [
        version("2.2", 1, released=True), version("2.3", 2, releaseDate="2099-12-31"),
        version("2.4", 3), version("old", 4, archived=True), version("<!here>", 5)]})
    message = ask(site, "/jira releases")[-1]
    rows = by_version(message)
    days = (datetime.date(2099, 12, 31) - datetime.date.today()).days
    assert rows["2.3"] == {
        "Version": "2.3", "Project": "APP", "Verdict": "🔴 Not ready", "Done": "118",
        "In progress": "59", "To do": "60", "Date": f"due 2099-12-31, {days} days left"}
    assert list(rows["2.4"].values()) == ["2.4", "APP", "🔴 Not ready", "0", "0", "1",
                                          "no release date"]
    assert list(rows) == ["2.3", "2.4", "<!here>"] and is_safe(shown(message), site.jira.origin)
    numbers = [[cell["value"] for cell in row if cell["type"] == "raw_number"]
               for row in block(message, "data_table")["rows"][1:]]
    assert numbers == [[118, 59, 60], [0, 0, 1], [0, 0, 0]]


def test_releases_are_a_chart_with_a_bar_for_done_in_progress_and_to_do(site):
    site.jira.reset([*issues(237), issue("APP-900", versions=["2.4"])])
    made = block(ask(site, "/jira releases")[-1], "data_visualization")["chart"]
    assert made["type"] == "bar" and made["axis_config"]["categories"] == ["APP 2.3", "APP 2.4"]
    assert {each["name"]: {point["label"]: point["value"] for point in each["data"]}
            for each in made["series"]} == {
                "done": {"APP 2.3": 118, "APP 2.4": 0},
                "in progress": {"APP 2.3": 59, "APP 2.4": 0},
                "to do": {"APP 2.3": 60, "APP 2.4": 1}}


def test_a_chart_tells_long_names_with_the_same_beginning_apart(site):
    names = ["Checkout for tablets in autumn", "Checkout for tablets in winter",
             "Checkout for tablets in spring", "x" * 16, "x" * 17]
    site.jira.reset(issues(3), versions={"APP": [version(name) for name in names]})
    made = block(ask(site, "/jira releases")[-1], "data_visualization")["chart"]
    labels = made["axis_config"]["categories"]
    assert labels == ["APP Checkout for ta…", "APP Checkout fo… 2", "APP Checkout fo… 3",
                      "APP " + "x" * 16, "APP " + "x" * 15 + "…"]
    assert all(len(label) <= 20 for label in labels)


def test_releases_are_the_first_20_by_date_and_say_how_many_there_are(site):
    dated = [version(f"v{number}", releaseDate=f"2099-01-{31 - number:02}")
             for number in range(1, 26)]
    site.jira.reset(issues(3), versions={"APP": [version("never"), *dated]})
    message = ask(site, "/jira releases")[-1]
    assert list(by_version(message)) == [f"v{number}" for number in range(25, 5, -1)]
    chart = block(message, "data_visualization")["chart"]
    assert chart["axis_config"]["categories"][::19] == ["APP v25", "APP v6"]
    assert "20 of 26" in shown(message) and "APP v6" in message["text"]
    assert "v5:" not in shown(message) + message["text"]


def test_without_its_table_and_chart_a_list_of_releases_says_the_same(site):
    site.jira.reset(issues(237), versions={"APP": [version("2.3", releaseDate="2099-12-31")]})
    text = shown(ask(site, "/jira releases")[-1])
    assert text.startswith(NOT_READY) and "118 done · 59 in progress · 60 to do" in text
    assert "2099-12-31" in text and query(text.split("\n")[0]) == \
        'project = "APP" AND fixVersion = "2.3"'


def test_fifty_unreleased_versions_with_long_names_fit_into_a_message(site):
    names = [f"{number} " + "<&>" * 80 for number in range(50)]
    site.jira.reset(issues(3), versions={"APP": [version(name) for name in names]})
    message = ask(site, "/jira releases")[-1]
    assert len(table(message)) == 20 and re.search("20 of 50", shown(message))


def test_a_version_with_an_issue_in_no_category_is_not_ready_in_releases_either(site):
    site.jira.reset([issue("APP-1", category="undefined"), issue("APP-2", **DONE)])
    message = ask(site, "/jira releases")[-1]
    assert shown(message).startswith(NOT_READY) and message["text"].startswith(NOT_READY)
    assert by_version(message)["2.3"]["Verdict"] == "🔴 Not ready"


def test_releases_of_several_projects_are_told_apart(site):
    site.jira.reset([issue("APP-1"), issue("WEB-1", versions=["2.3", "9"])])
    message = ask(site, "/jira releases app web")[-1]
    assert [(row["Project"], row["Version"]) for row in table(message)] == [
        ("APP", "2.3"), ("WEB", "2.3"), ("WEB", "9")]
    assert "WEB 2.3" in shown(message)


def test_a_project_without_unreleased_versions_says_so(site):
    site.jira.reset(issues(3), versions={"APP": [version("2.3", released=True)]})
    message = ask(site, "/jira releases")[-1]
    assert "no unreleased version in APP" in shown(message) and "2.3" not in shown(message)
    assert not (block(message, "data_table") or block(message, "data_visualization"))


def test_a_count_that_fails_in_releases_is_no_number(site):
    site.jira.reset(issues(8))
    site.jira.faults = [['"In Progress"', ("status", 500), math.inf]]
    message = ask(site, "/jira releases")[-1]
    row = by_version(message)["2.3"]
    assert (row["Done"], row["In progress"], row["To do"]) == ("4", "?", "2")
    assert "4 done · ? in progress · 2 to do" in shown(message)


def test_search_shows_up_to_50_issues_and_their_count(site):
    site.jira.reset(issues(237), page=100)
    jql = FIRST + " AND statusCategory != Done ORDER BY key"
    message = ask(site, "/jira search " + jql)[-1]
    assert len(set(keys(message))) == len(table(message)) == 50
    assert "119" in message["text"] and is_safe(shown(message), site.jira.origin)
    assert list(table(message)[0]) == ["Key", "Summary", "Status", "Assignee", "Priority"]


def test_above_the_table_of_a_search_stand_the_count_and_a_link_to_it(site):
    site.jira.reset(issues(237), page=100)
    jql = FIRST + " AND statusCategory != Done ORDER BY key"
    message = ask(site, "/jira search " + jql)[-1]
    place = message["blocks"].index(block(message, "data_table"))
    above = "\n".join(texts(message["blocks"][:place]))
    assert "119" in above and query(above) == jql


def test_search_takes_the_smart_quotes_of_a_phone(cloud):
    cloud.jira.reset(issues(4))
    message = ask(cloud, "/jira search priority = “Blocker”")[-1]
    assert re.search(r"\b1\b", message["text"]) and keys(message) == ["APP-1"]


def test_search_that_finds_nothing_says_zero_and_has_no_table(site):
    site.jira.reset(issues(4))
    message = ask(site, "/jira search priority = Low AND priority = High")[-1]
    assert re.search(r"\b0\b", message["text"]) and re.search(r"\b0\b", shown(message))
    assert not block(message, "data_table")


@pytest.mark.parametrize("jql, reason", [
    ('summary ~ "unclosed', "has not been completed"), ("priority =", "Expecting"),
    ("order by key", "Unbounded"), ('project = "VULN"', "does not exist")])
def test_a_broken_search_is_answered_in_jiras_words(cloud, jql, reason):
    cloud.jira.reset(issues(4))
    text = last(cloud, "/jira search " + jql)
    assert reason in text and is_safe(text)


def test_a_long_search_still_fits_into_a_message(site):
    site.jira.reset(issues(250))
    keys = ", ".join(f"APP-{number}" for number in range(1, 251))
    text = last(site, f"/jira search key in ({keys}) AND assignee is EMPTY")
    assert re.search(r"\b84\b", text) and re.search("Open in JIRA", text)


@pytest.mark.parametrize("key", ["APP-2", "app-2"])
def test_a_key_shows_one_issue(site, key):
    site.jira.reset([issue("APP-2", summary="Sign in <fails>", priority="High", assignee="Ann",
                           versions=["2.3", "R&D"])])
    text = last(site, "/jira " + key)
    assert f"<{site.jira.origin}/browse/APP-2|APP-2>" in text
    assert all(part in text for part in ("Sign in &lt;fails&gt;", "To Do", "Ann", "High", "2.3",
                                         "R&amp;D"))


def test_an_issue_of_null_fields_is_shown(site):
    site.jira.reset([issue("APP-2", category=None, summary=None, priority=None, assignee=None,
                           versions=None)])
    text = last(site, "/jira APP-2")
    assert "APP-2" in text and "None" not in text


def test_an_issue_that_doesnt_exist_is_told(site):
    site.jira.reset(issues(3))
    done = last(site, "/jira APP-99")
    assert "APP-99" in done or "does not exist" in done


@pytest.mark.parametrize("typed", ["APP-99", "app-99", "NONE-1"])
def test_a_key_that_isnt_there_is_named(site, typed):
    site.jira.reset(issues(3))
    assert f"`{typed.upper()}`" in last(site, f"/jira {typed}")


@pytest.mark.parametrize("key", ["../myself", "APP-1/../APP-2", "APP-1?x", "APP-", "APP-1%2F",
                                 "-1", "APP-١", "<!channel>", "nonsense"])
def test_what_is_no_key_never_reaches_jira(cloud, key):
    cloud.jira.reset(issues(3))
    text = last(cloud, f"/jira {key}")
    assert not cloud.jira.seen and is_safe(text)


def test_a_failed_command_in_the_terminal_exits_with_1(cloud):
    cloud.jira.reset(issues(3))
    assert run("/jira release 2.3", **environ(cloud.jira)).returncode == 0
    assert run("/jira release 9", **environ(cloud.jira)).returncode == 1
    assert run("/jira APP-99", **environ(cloud.jira)).returncode == 1


# ---- A workspace without data blocks

@pytest.mark.parametrize("line, number", [
    ("/jira release 2.3", 2), ("/jira release 2.3 --public", 2), ("/jira releases", 2),
    ("/jira search " + FIRST, 1)])
def test_where_data_blocks_are_refused_the_rest_of_an_answer_comes_once(site, line, number):
    site.jira.reset(issues(40))
    site.slack.refuses_data_blocks = True
    try:
        got = [ask(site, line, team_id=f"T{line}{site.jira.cloud}") for _ in range(2)]
    finally:
        site.slack.refuses_data_blocks = False
    wanted = ask(site, line)[-1]
    assert [len(answers) for answers in got] == [number] * 2
    assert {block["type"] for block in wanted["blocks"]} & set(DATA_BLOCKS)
    for *_, report in got:
        said = [block for block in wanted["blocks"] if block["type"] not in DATA_BLOCKS]
        assert report["text"] == wanted["text"] and list(report) == list(wanted)
        assert without_time(report["blocks"]) == without_time(said)


def without_time(blocks):
    """*blocks* as text without the second in which they were made."""
    return re.sub(r"asked [\d:]+|\d+\.\d s", "", json.dumps(blocks))


def test_the_first_answer_of_a_search_is_posted_as_it_has_a_table(site):
    site.jira.reset(issues(4))
    url = site.slack.response_url()
    first = site.bot.command("/jira search " + FIRST, response_url=url)
    assert (first.status, first.body) == (200, b"")
    assert keys(site.slack.wait(url)[0]) == ["APP-1", "APP-2", "APP-3", "APP-4"]


# ---- Slack's limits, whatever JIRA has

def breaches(message):
    """What in a *message* Slack would refuse or cut off: every limit of the pages slack.md and
    slack-blocks.md that concerns a message, checked with no help of the bot's or the fakes'."""
    blocks = message.get("blocks", [])
    kinds = [block["type"] for block in blocks]
    classic = sum(classic_characters(block) for block in blocks)
    tables = kinds.count("data_table") + kinds.count("table")
    yield from short("the message's text", message.get("text"), 13_000)
    if message.get("response_type") not in ("ephemeral", "in_channel"):
        yield "an unknown response_type"
    if len(blocks) > 50:
        yield f"{len(blocks)} blocks"
    if classic > 13_000:
        yield f"{classic} characters in classic blocks"
    if tables > 1 or kinds.count("data_visualization") > 2:
        yield "too many data blocks"
    for block in blocks:
        yield from short("a block_id", block.get("block_id", "x"), 255)
        yield from LIMITS.get(block["type"], lambda block: ["an unknown type of block"])(block)


def short(name, text, most):
    if not isinstance(text, str) or not 1 <= len(text) <= most:
        yield f"{name}: {str(text)[:50]!r}, {len(str(text))} of {most} characters"


def within(name, number, low, high):
    if not low <= number <= high:
        yield f"{name}: {number}, not {low} to {high}"


def text_object(name, value, most, *kinds):
    if value["type"] not in kinds:
        yield f"{name} of the type {value['type']}"
    yield from short(name, value["text"], most)


def classic_characters(value):
    """How many characters all texts in a block have that isn't a data block."""
    if isinstance(value, list):
        return sum(map(classic_characters, value))
    if not isinstance(value, dict) or value.get("type") in ("data_table", "data_visualization"):
        return 0
    own = value["text"] if isinstance(value.get("text"), str) else ""
    return len(own) + sum(map(classic_characters, value.values()))


def section_breaches(block):
    if "text" in block:
        yield from text_object("a section's text", block["text"], 3_000, "mrkdwn", "plain_text")
    elif "fields" not in block:
        yield "a section without text and fields"
    if "fields" in block:
        yield from within("fields", len(block["fields"]), 1, 10)
        for each in block["fields"]:
            yield from text_object("a field", each, 2_000, "mrkdwn", "plain_text")


def context_breaches(block):
    yield from within("elements of a context", len(block["elements"]), 1, 10)
    for each in block["elements"]:
        yield from text_object("a context", each, 3_000, "mrkdwn", "plain_text")


def actions_breaches(block):
    yield from within("buttons", len(block["elements"]), 1, 25)
    ids = [each["action_id"] for each in block["elements"]]
    if len(set(ids)) < len(ids):
        yield f"the same action_id twice in {ids}"
    for each in block["elements"]:
        yield from text_object("a button's label", each["text"], 75, "plain_text")
        yield from short("an action_id", each["action_id"], 255)
        yield from short("a button's value", each["value"], 2_000)


def table_breaches(block):
    rows = block["rows"]
    yield from short("a caption", block["caption"], math.inf)
    yield from within("rows", len(rows), 2, 101)
    yield from within("cells of a row", len(rows[0]), 1, 20)
    yield from within("page_size", block.get("page_size", 5), 1, 100)
    yield from within("row_header_column_index", block["row_header_column_index"], 0,
                      len(rows[0]) - 1)
    if len(set(map(len, rows))) > 1:
        yield "rows of different lengths"
    if any(cell["type"] not in ("raw_text", "raw_number") for cell in rows[0]):
        yield "a header cell that isn't raw"
    characters = 0
    for cell in sum(rows, []):
        text = cell.get("text")
        if cell["type"] == "rich_text":
            text = ""
            for each in [each for section in cell["elements"] for each in section["elements"]]:
                yield from short("a link's URL", each["url"], 3_000)
                yield from short("a link's label", each["text"], math.inf)
                text += each["text"]
        elif cell["type"] == "raw_number" and type(cell["value"]) not in (int, float):
            yield f"a number {cell['value']!r}"
        yield from short("a cell", text, math.inf)
        characters += len(text)
    yield from within("characters of a table", characters, 1, 10_000)


def chart_breaches(block):
    chart, axes = block["chart"], block["chart"]["axis_config"]
    names = [series["name"] for series in chart["series"]]
    yield from short("a chart's title", block["title"], 50)
    yield from within("categories", len(axes["categories"]), 1, 20)
    yield from within("series", len(names), 1, 6)
    for unique in (axes["categories"], names):
        if len(set(unique)) < len(unique):
            yield f"a name twice in {unique}"
        for name in unique:
            yield from short("a category or a name", name, 20)
    for name in {"x_label", "y_label"} & set(axes):
        yield from short("an axis", axes[name], 50)
    for series in chart["series"]:
        if sorted(point["label"] for point in series["data"]) != sorted(axes["categories"]):
            yield "points that aren't one for each category"
        if not all(isinstance(point["value"], int) for point in series["data"]):
            yield "a point that is no number"


LIMITS = {"section": section_breaches, "context": context_breaches, "actions": actions_breaches,
          "data_table": table_breaches, "data_visualization": chart_breaches}
NASTY = {  # what a JIRA may have, at its worst
    "237 issues": {"issues": list(issues(237))},
    "2,000 issues": {"issues": list(issues(2000)), "page": 100},
    "nothing": {"versions": {"APP": [version("2.3")], "WEB": [version("2.3")]}},
    "null fields": {"issues": [issue(f"APP-{number}", summary=None, category=category,
                                     priority=None, assignee=None)
                               for number, category in enumerate([None, "new", "done"], 1)]},
    "texts as long as JIRA allows": {"page": 100, "issues": [issue(
        f"APP-{number}", summary="&<>" * 85, assignee="<&>" * 85, priority="Blocker", idle=9,
        was=["Done"], versions=["2.3", *(f"{more} " + "&" * 252 for more in range(24))])
        for number in range(1, 120)]},
    "the shortest texts": {"page": 100, "issues": [
        issue(f"APP-{number}", summary="", assignee=" ", versions=["2.3", "\u200b", " "])
        for number in range(1, 120)]},
    "newlines and control characters": {"issues": [
        issue("APP-1", summary="a\n*Ready*\x00\x1b[31m\r\n", assignee="\x07", versions=[
            "2.3", "9\n*Ready*", "\x01"]), issue("APP-2", summary="\n", assignee="\t\x0b")]},
    "250 versions": {"issues": list(issues(9)), "versions": {"APP": [version("2.3"), *(version(
        f"{number} " + "名&🚀<>" * 40, releaseDate="no date") for number in range(250))]}}}
LINES = ("/jira release 2.3", "/jira release 2.3 --public", "/jira release 2.3 APP WEB",
         "/jira release " + "2.3&" * 900, "/jira release 2.3 " + "APP " * 900, "/jira release",
         "/jira releases", "/jira releases app web", "/jira releases nope", "/jira APP-1",
         "/jira nonsense", "/jira", "/jira search " + FIRST + " OR assignee is EMPTY",
         "/jira search " + FIRST + " AND key in (" + ", ".join(["APP-1"] * 900) + ")",
         "/jira search nonsense", "/jira search", "/help", "/help jira", "/help jira release",
         "/hello " + "<&>" * 2000, "/unknown " + "<&>" * 2000)


def answers(jira, line):
    """Every message of the bot for *line*, in this process; *jira* is a slackbot.Jira."""
    name, _, text = line.partition(" ")
    bot = types.SimpleNamespace(jira=jira, config=jira.config)
    given = []
    request = slackbot.Request(command=name, text=html.escape(text, quote=False), bot=bot)

    def collect(body):
        given.append(body and json.loads(body))

    slackbot.Job(request).run(collect, collect)
    return [json.loads(slackbot.to_json(answer)) for answer in given if answer]


def jira_of(variables, send=slackbot.fetch, **settings):
    """The bot's side of a JIRA, in this process."""
    config = slackbot.Config(variables)
    vars(config).update(settings)
    jira = slackbot.Jira(config, send)
    jira.config = config
    return jira


@pytest.fixture
def sample():
    """The bot's side of the sample JIRA of the demo."""
    return jira_of({}, slackbot.sample_jira, jira_url="https://jira.example",
                   jira_api_url="https://jira.example", jira_project=("SHOP",))


def straight_to(jira):
    """What asks a fake `Jira` without a connection between, in the place of `fetch`."""
    def send(url, data, headers, *limits):
        address = urllib.parse.urlsplit(url)
        seen = Seen(types.SimpleNamespace(
            command="POST" if data else "GET", path=f"{address.path}?{address.query}",
            headers={**headers, "Content-Length": len(data or b"")},
            rfile=io.BytesIO(data or b"")))
        _, *answer = jira.answer(seen)
        return answer
    return send


@pytest.mark.parametrize("name", NASTY)
def test_every_message_keeps_within_slacks_limits_for_a_jira_with(sites, name):
    site = sites("cloud")
    site.jira.reset(**NASTY[name])
    jira = jira_of(environ(site.jira), straight_to(site.jira))
    for faults in ((), [["priority", wrong(400, "<&>" * 4000), math.inf]],
                   [["/search", wrong(400, "<&>" * 4000), math.inf]]):
        site.jira.faults = list(faults)
        for line in LINES:
            made = answers(jira, line)
            assert made and [(line, *breaches(message)) for message in made] == \
                [(line,)] * len(made)


@pytest.mark.parametrize("line", [*(line.replace("APP", "SHOP") for line in LINES),
                                  "/jira release 2.4", "/jira SHOP-7", "/jira search key = SHOP-1",
                                  "/jira search status = Done", "/jira search project = SHOP"])
def test_every_message_about_the_sample_keeps_within_slacks_limits(sample, line):
    made = answers(sample, line)
    assert made and [[*breaches(message)] for message in made] == [[]] * len(made)
    assert "Sorry" not in made[-1]["text"]


def change(*path, value):
    """A function that puts a *value* at a *path* of a report with every kind of block."""
    def spoil(message):
        place = message
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value
    return spoil


SPOILT = [
    change("text", value=""), change("text", value="x" * 13_001),
    change("response_type", value="public"),
    change("blocks", value=lambda blocks: blocks + blocks[:1] * 46),
    change("blocks", value=lambda blocks: [
        *blocks, *[{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3_000}}] * 5]),
    change("blocks", value=lambda blocks: blocks + [blocks[2]]),
    change("blocks", value=lambda blocks: blocks + [blocks[3]] * 2),
    change("blocks", 0, "type", value="new"), change("blocks", 0, "text", "text", value=""),
    change("blocks", 0, "text", "text", value="x" * 3_001),
    change("blocks", 0, value={"type": "section"}),
    change("blocks", 1, "fields", value=[]),
    change("blocks", 1, "fields", value=lambda fields: fields[:1] * 11),
    change("blocks", 1, "fields", 0, "text", value="x" * 2_001),
    change("blocks", 2, "rows", value=lambda rows: rows[:1]),
    change("blocks", 2, "rows", value=lambda rows: rows + rows[-1:] * 101),
    change("blocks", 2, "rows", 1, value=lambda row: row[:-1]),
    change("blocks", 2, "rows", value=lambda rows: [row * 4 for row in rows]),
    change("blocks", 2, "rows", 0, value=lambda row: [
        {"type": "rich_text", "elements": []}, *row[1:]]),
    change("blocks", 2, "rows", 1, 1, "text", value=""),
    change("blocks", 2, "rows", 1, 1, "text", value="x" * 10_000),
    change("blocks", 2, "caption", value=""), change("blocks", 2, "page_size", value=101),
    change("blocks", 2, "row_header_column_index", value=6),
    change("blocks", 3, "title", value="x" * 51),
    change("blocks", 3, "chart", "axis_config", "y_label", value="x" * 51),
    change("blocks", 3, "chart", "axis_config", "categories", 0, value="x" * 21),
    change("blocks", 3, "chart", "axis_config", "categories", value=lambda names: names * 2),
    change("blocks", 3, "chart", "series", value=lambda series: series * 3),
    change("blocks", 3, "chart", "series", 0, "data", value=[]),
    change("blocks", 4, "elements", value=[]),
    change("blocks", 5, "elements", 0, "action_id", value="run"),
    change("blocks", 5, "elements", 0, "value", value="x" * 2_001),
    change("blocks", 5, "elements", 0, "text", "text", value="x" * 76),
    change("blocks", 5, "elements", value=lambda buttons: buttons * 13)]


@pytest.mark.parametrize("place", range(len(SPOILT)))
def test_a_message_that_slack_would_refuse_is_found_out(sample, place):
    report, releases = [answers(sample, line)[-1] for line in LINES[:7:6]]
    opening, sections, table, _, context, actions = report["blocks"]
    chart = block(releases, "data_visualization")
    message = {**report, "blocks": [opening, sections, table, chart, context, actions]}
    assert [*breaches(message)] == []
    SPOILT[place](message)
    assert [*breaches(message)] != []


# ---- The sample JIRA of the demo

def test_the_report_on_the_sample_is_not_ready_and_shows_its_four_open_issues(sample):
    message = answers(sample, "/jira release 2.3")[-1]
    assert message["text"] == (f"{NOT_READY} SHOP 2.3: 4 of 6 issues are open\n"
                               "2 done · 2 in progress · 2 to do")
    assert {row["Key"]: row["Sections"] for row in table(message)} == {
        "SHOP-1": "Blockers, In progress", "SHOP-4": "Blockers, To do",
        "SHOP-2": "In progress", "SHOP-3": "To do, Unassigned"}
    assert {title for title, said in fields(message).items() if said == "0"} == {
        "Reopened", "Stale", "Inconsistent"}


@pytest.mark.parametrize("jql, found", [
    ('status = "In Progress"', "12"), ("status = Done", "56"), ("priority = high", "25"),
    ("project = SHOP", "1234567"), ("key = SHOP-4", "4"), ('fixVersion = "2.4"', "7"),
    ("fixVersion = 2.3 AND status = Done", "56"), ('project = "SHOP" AND assignee = "Ana Silva"',
                                                   "14"),
    ('project=SHOP AND fixVersion="2.3" AND priority=Highest', "1"),
    ("statusCategory = Done", "56"), ("statusCategory != Done", "12347"),
    ("assignee is EMPTY AND statusCategory != Done", "37")])
def test_the_sample_finds_what_a_search_by_values_asks_for(sample, jql, found):
    message = answers(sample, f"/jira search {jql}")[-1]
    assert keys(message) == [f"SHOP-{number}" for number in found]


@pytest.mark.parametrize("jql", [
    "status != Done", "priority in (High, Highest)", "assignee is EMPTY", "updated <= -7d",
    'summary ~ "cart"', "project = SHOP OR project = APP", "status = Done OR priority = High",
    "status = Done OR assignee IS EMPTY", "NOT status = Done", "(status = Done)",
    "status = Done ORDER BY updated", "status = Done order by priority desc", "ORDER BY key",
    "status = In Progress", 'status = "Done', "status =", "status", "= Done", "team = Ours",
    "project = SHOP AND", "AND project = SHOP", "project = SHOP AND (priority = High)",
    "status = Done, priority = High", "status was Done", "priority = High project = SHOP"])
def test_the_sample_answers_400_to_a_search_that_it_doesnt_understand(sample, jql):
    message = answers(sample, f"/jira search {jql}")[-1]
    assert message["text"].startswith("JIRA answered 400") and "sample" in message["text"]
    assert "blocks" not in message


def test_the_sample_answers_400_to_a_mistyped_clause_of_a_section(sample):
    sample.config.jira_queries = {"Ours": "prioriti in (Blocker)", "Done": "statusCategory = Done"}
    found = fields(answers(sample, "/jira release 2.3")[-1])
    assert "400" in found["Ours"] and found["Done"] == "2"


# ---- In the terminal

def test_in_the_terminal_a_table_is_aligned_columns_cut_to_the_width_of_the_terminal(cloud):
    cloud.jira.reset([issue("APP-1", summary="Short"), issue("APP-10", priority="Blocker")])
    wide, narrow = [run("/jira release 2.3", **environ(cloud.jira, COLUMNS=width)).stdout
                    for width in (120, 50)]
    rows = ["Key     Summary            Status  Assignee  Priority  Sections",
            "APP-10  Summary of APP-10  To Do   Ann       Blocker   Blockers, To do",
            "APP-1   Short              To Do   Ann       Medium    To do"]
    assert "\n".join(rows) in wide
    assert "\n".join(row[:50].rstrip() for row in rows) + "\n" in narrow


def test_in_the_terminal_a_chart_is_a_bar_a_line(cloud):
    cloud.jira.reset([*issues(8), issue("APP-9", versions=["2.4"], **DONE)],
                     versions={"APP": [version("2.3"), version("2.4"), version("2.5")]})
    lines = run("/jira releases", **environ(cloud.jira)).stdout.splitlines()
    assert f"{'APP 2.3':20} {'█' * 10}{'▓' * 5}{'░' * 5} 4 done · 2 in progress · 2 to do" in lines
    assert f"{'APP 2.4':20} {'█' * 20} 1 done · 0 in progress · 0 to do" in lines
    assert f"{'APP 2.5':20} {' ' * 20} 0 done · 0 in progress · 0 to do" in lines
