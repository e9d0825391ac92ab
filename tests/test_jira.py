"""The /jira commands of a real bot, in front of a fake JIRA of either flavour and a fake Slack."""

import base64
import contextlib
import datetime
import html
import itertools
import json
import math
import re
import socket
import subprocess
import sys
import time
import types
import urllib.parse

import pytest
from fakes import (PAGE, ROOT, Bot, Jira, Slack, issue, issues, objection, reply, texts, version,
                   wrong)

TITLES = ("Blockers", "In progress", "To do", "Unassigned", "Reopened", "Stale", "Inconsistent",
          "Done")
FIRST = 'project = "APP"'  # stands in every query of these tests


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
    answers = site.slack.ask(site.bot, html.escape(line, quote=False), **fields)
    assert [objection(answer) for answer in answers] == [""] * len(answers)
    return answers


def shown(message):
    """All that a message says, in one text."""
    return "\n".join(texts(message["blocks"])) if message.get("blocks") else message["text"]


def last(site, line="/jira release 2.3"):
    """All that the last answer to *line* says."""
    return shown(ask(site, line)[-1])


def count(text, title):
    """The count behind the *title* of a section, as it is written."""
    found = re.search(rf"^\W*{title}\W+((?:more than )?\d[\d,]*)", text, re.MULTILINE)
    assert found, f"there is no count of {title} in:\n{text}"
    return found[1]


def section(message, title):
    """The text of the section called *title*."""
    found = [text for text in texts(message["blocks"]) if re.match(rf"\W*({title})\b", text)
             or re.match(rf"\S+ \*{title}\b", text)]
    assert len(found) == 1, f"{title}: {found}"
    return found[0]


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


def run(line, script=ROOT / "slackbot.py", **variables):
    """One command in the terminal."""
    return subprocess.run([sys.executable, script, "run", line], env=Bot(**variables).environ,
                          capture_output=True, text=True, timeout=20)


# ---- The report

def test_237_issues_in_pages_of_50_are_counted_exactly(site):
    all_issues = list(issues(237))
    site.jira.reset(all_issues)
    text = last(site)
    assert {title: count(text, title) for title in TITLES} == expected(all_issues)
    assert "237" in text.split("*Blockers*")[0]


def test_a_big_page_is_counted_as_exactly_as_small_ones(site):
    all_issues = list(issues(1237))
    site.jira.reset(all_issues, page=5000)
    text = last(site)
    assert {title: count(text, title) for title in TITLES} == expected(all_issues)


def test_the_first_answer_is_immediate_and_the_report_follows_it(site):
    site.jira.reset(issues(20), delay=0.8)
    url, started = site.slack.response_url(), time.monotonic()
    first = site.bot.command("/jira release 2.3", response_url=url)
    assert time.monotonic() - started < 0.8
    assert "2.3" in shown(first.json) and "ready*" not in shown(first.json).lower()
    assert shown(site.slack.wait(url)[0]).startswith("*Not ready*")


def test_a_report_is_for_the_one_who_asked_unless_it_is_public(cloud):
    cloud.jira.reset(issues(3))
    assert {answer["response_type"] for answer in ask(cloud)} == {"ephemeral"}
    public = ask(cloud, "/jira release 2.3 --public")
    assert {answer["response_type"] for answer in public} == {"in_channel"}


def test_a_section_shows_an_issues_key_as_a_link_summary_assignee_and_priority(site):
    site.jira.reset([issue("APP-7", summary="Sign in fails", assignee="Ann", priority="High")])
    text = section(ask(site)[-1], "To do")
    assert f"<{site.jira.origin}/browse/APP-7|APP-7>" in text
    assert all(part in text for part in ("Sign in fails", "Ann", "High"))


def test_a_section_shows_ten_issues_and_links_the_search_for_the_others(site):
    site.jira.reset(issues(30, category="new", summary="Short"))
    text = section(ask(site)[-1], "To do")
    assert len(re.findall(r"/browse/APP-\d+\|", text)) == 10
    url = re.search(r"<([^|>]+)\|[^>]*and 20 more[^>]*>", text)[1]
    assert url.startswith(site.jira.origin + "/issues/?jql=")
    jql = urllib.parse.parse_qs(urllib.parse.urlsplit(html.unescape(url)).query)["jql"][0]
    assert len(site.jira.find(jql)) == 30


def test_ten_issues_need_no_link_to_others(cloud):
    cloud.jira.reset(issues(10, category="new"))
    assert "more" not in section(ask(cloud)[-1], "To do")


def test_the_bar_has_the_share_of_each_category(site):
    site.jira.reset([*issues(6, category="done"), *issues(3, project="APP", category="new")])
    opening = last(site).split("*Blockers*")[0]
    assert re.search(r"6 done.*0 in progress.*3 to do", opening, re.IGNORECASE)


@pytest.mark.parametrize("days, words", [
    (11, "11 days left"), (1, "1 day left"), (0, "today"), (-1, "1 day late"),
    (-30, "30 days late"), (None, "no release date")])
def test_a_report_tells_the_release_date_and_the_days_left(cloud, days, words):
    date = {} if days is None else {
        "releaseDate": str(datetime.date.today() + datetime.timedelta(days))}
    cloud.jira.reset(issues(3), versions={"APP": [version("2.3", **date)]})
    opening = last(cloud).split("*Blockers*")[0]
    assert words in opening and (days is None or date["releaseDate"] in opening)


def test_a_report_ends_with_the_time_it_took(cloud):
    cloud.jira.reset(issues(3), delay=0.2)
    assert 0.2 <= float(re.search(r"(\d+\.\d+) s\b", last(cloud))[1]) < 2


DONE = {"category": "done", "resolution": "Fixed"}
VERDICTS = {
    "everything is done": ([issue("APP-1", **DONE)], (), "*Ready*"),
    "one is to do": ([issue("APP-1"), issue("APP-2", **DONE)], (), "*Not ready*"),
    "one is in progress": ([issue("APP-1", category="indeterminate")], (), "*Not ready*"),
    "there is no issue": ([], (), "*Not ready*"),
    "the open ones are unknown": ([issue("APP-1", **DONE)], ['"In Progress"'], "*Unknown*"),
    "the done ones are unknown": ([issue("APP-1", **DONE)], ["statusCategory = Done"],
                                  "*Unknown*"),
    "everything is unknown": ([issue("APP-1", **DONE)], ["/search"], "*Unknown*"),
    "something is unknown but one is open": ([issue("APP-1")], ['"In Progress"'], "*Not ready*"),
    "only a detail shows an open one": ([issue("APP-1", idle=9)], ['"In Progress"', '"To Do"'],
                                        "*Not ready*"),
    "the categories are known, and they alone": ([issue("APP-1", **DONE)],
                                                 ["statusCategory != Done"], "*Ready*"),
    "a detail is unknown and one is open": ([issue("APP-1")], ["WAS"], "*Not ready*"),
    "one that no section shows is in no category": (
        [issue("APP-1", category="undefined"), issue("APP-2", **DONE)], (), "*Not ready*"),
    "a section shows one in no category": (
        [issue("APP-1", category="undefined", idle=9), issue("APP-2", **DONE)], (), "*Not ready*")}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_stands_first_when(site, name):
    found, failing, verdict = VERDICTS[name]
    site.jira.reset(found, versions={"APP": [version("2.3")]})
    site.jira.faults = [[part, ("status", 500), math.inf] for part in failing]
    message = ask(site)[-1]
    assert shown(message).startswith(verdict)
    assert message["text"].startswith(verdict), "a notification shows the text alone"


def test_a_category_is_known_by_its_key_whatever_its_name(site):
    site.jira.reset([issue("APP-1", **DONE), issue("APP-2", idle=9)])
    site.jira.categories = {"new": (2, "Neu"), "done": (3, "Fertig")}
    site.jira.faults = [['"To Do"', ("status", 500), math.inf]]
    text = last(site)
    assert text.startswith("*Not ready*") and count(text, "Done") == "1"


def test_done_issues_are_known_by_the_key_of_their_category_too(site):
    site.jira.reset([issue("APP-1", **DONE)])
    site.jira.categories = {"done": (3, "Fertig")}
    assert last(site).startswith("*Ready*")


def test_an_issue_in_no_category_is_counted_as_open(site):
    site.jira.reset([issue("APP-1", category="undefined"), *issues(3, "APP", **DONE)])
    assert "1 of 4 issues are open" in last(site).split("*Blockers*")[0]


def test_null_fields_are_words_and_no_failure(site):
    site.jira.reset([issue("APP-1", category=None, priority=None, assignee=None, summary=None),
                     issue("APP-2", priority=None, assignee=None, summary=None)])
    text = last(site)
    assert count(text, "To do") == "1" and "None" not in text and "null" not in text


def test_an_answer_never_exceeds_slacks_sizes_with_250_long_issues(site):
    site.jira.reset(issues(250, category="new", priority="Blocker", assignee=None, idle=9,
                           was=["Done"], summary="<&>" * 85))
    text = last(site)  # ask() has objected to the size
    assert count(text, "Reopened") == "250" and len(text) <= 13_000


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
    assert last(site, "/jira release 2.3-rc").startswith("*Not ready* APP 2.3-RC")


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
    assert text.startswith("*Not ready* PROJECT100 2.3") and "not in PROJECT101" in text


def test_a_project_that_doesnt_exist_is_named(site):
    site.jira.reset(issues(3))
    text = last(site, "/jira release 2.3 NOPE")
    assert "NOPE" in text and "*Ready*" not in text


def test_a_project_may_be_typed_small(site):
    site.jira.reset([issue("WEB-1")])
    assert count(last(site, "/jira release 2.3 web"), "To do") == "1"


def test_very_many_spaces_before_a_project_take_no_time(cloud):
    cloud.jira.reset([issue("WEB-1")])
    started = time.monotonic()
    text = last(cloud, "/jira release 2.3" + " " * 40_000 + "WEB")
    assert time.monotonic() - started < 2 and count(text, "To do") == "1"


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
    text = last(site, f"/jira release {quoted(name)}")
    assert count(text, "To do") == "1" and "SECRET-1" not in text
    assert is_safe(text, site.jira.origin)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_unknown_version_with_a_hostile_name_is_only_repeated(cloud, name):
    cloud.jira.reset(issues(3, versions=["Mobile"]))
    text = last(cloud, f"/jira release {quoted(name)}")
    assert is_safe(text) and not text.startswith("*") and not cloud.jira.searches


@pytest.mark.parametrize("key", ['APP" OR project = "SECRET', "APP/../SECRET", "..", "APP?x=1",
                                 "APP#", "<!channel>", "ÄPP", "A", "APP,SECRET"])
def test_a_projects_key_is_refused_unless_it_is_one(cloud, key):
    cloud.jira.reset([issue("APP-1"), issue("SECRET-1")])
    text = last(cloud, f"/jira release 2.3 {quoted(key)}")
    assert is_safe(text) and "SECRET-1" not in text and not cloud.jira.seen


def test_hostile_summaries_and_names_are_text_on_their_own_line(site):
    site.jira.reset(issues(36, category="new"))
    message = ask(site)[-1]
    lines = section(message, "To do").splitlines()
    assert is_safe(shown(message), site.jira.origin)
    assert "&lt;!channel&gt; &amp; &lt;http://evil.example|you&gt;" in "\n".join(lines)
    assert len([line for line in lines if "/browse/" not in line]) == 2  # the title and the link


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
    assert len(cloud.jira.searches) == len({seen.ask["jql"] for seen in cloud.jira.searches})


def test_a_page_without_a_token_is_the_last_where_isLast_is_missing(cloud):
    cloud.jira.reset(issues(237))
    cloud.jira.bend = lambda page: {name: page[name] for name in page if name != "isLast"}
    assert count(last(cloud), "To do") == "60"


def test_a_token_that_is_null_is_none(cloud):
    cloud.jira.reset(issues(237))
    cloud.jira.bend = lambda page: {"nextPageToken": None, **page}
    assert count(last(cloud), "To do") == "60"


BENT = {
    "a token that repeats": lambda page: {**page, "isLast": False, "nextPageToken": "50"},
    "a token that is missing": lambda page: {"issues": page["issues"], "isLast": False},
    "a token that is null": lambda page: {**page, "isLast": False, "nextPageToken": None}}


@pytest.mark.parametrize("name", BENT)
def test_a_count_says_more_than_where_paging_breaks_with(cloud, name):
    cloud.jira.reset(issues(237))
    cloud.jira.bend = BENT[name]
    text = last(cloud)
    assert text.startswith("*Not ready*")
    assert int(count(text, "To do").removeprefix("more than ")) <= 60 != count(text, "To do")


def test_tokens_that_go_round_in_a_circle_come_to_an_end(cloud):
    cloud.jira.reset(issues(237))
    circle = itertools.cycle(["10", "20", "30"])
    cloud.jira.bend = lambda page: {**page, "isLast": False, "nextPageToken": next(circle)}
    assert count(last(cloud), "To do").startswith("more than ")
    assert len(cloud.jira.searches) <= 4 * len(TITLES)


def test_empty_pages_without_end_come_to_an_end(cloud):
    cloud.jira.reset(issues(20))
    numbers = itertools.count()
    cloud.jira.bend = lambda page: {"issues": [], "isLast": False,
                                    "nextPageToken": str(next(numbers))}
    text = last(cloud)
    assert not text.startswith("*Ready*") and "more than 0" in text


def test_data_center_is_paged_by_offsets_and_counted_by_its_total(server):
    server.jira.reset(issues(237), page=7)
    text = last(server)
    assert count(text, "To do") == "60" and "/browse/APP-1|" in section(ask(server)[-1], "To do")


def test_more_than_5000_issues_are_said_to_be_more_than_5000(site):
    site.jira.reset(issues(5030, category="new", summary="x"), page=5000)
    exact = ["5,030", "5030"] * (not site.jira.cloud)  # Data Center knows it exactly
    assert count(last(site), "To do") in ["more than 5,000", "more than 5000", *exact]


def test_what_is_open_is_exact_where_only_the_done_ones_are_too_many(cloud):
    cloud.jira.reset([*issues(5030, summary="x", **DONE), *issues(3, "APP", category="new")],
                     page=5000)
    opening = last(cloud).split("*Blockers*")[0]
    assert re.search(r": 3 of more than 5,0\d\d issues are open", opening)


def test_5000_issues_are_exactly_5000(site):
    site.jira.reset(issues(5000, category="new", summary="x"), page=5000)
    assert count(last(site), "To do").replace(",", "") == "5000"


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
def test_one_failed_query_is_named_in_its_section_and_the_rest_stands(site, name):
    site.jira.reset(issues(40))
    site.jira.faults = [["priority", FAILURES[name], math.inf]]
    message = ask(site)[-1]
    text = shown(message)
    assert text.startswith("*Not ready*")
    assert {count(text, title) for title in TITLES[1:]} <= set(expected(site.jira.issues).values())
    assert not re.search(r"\d+$", section(message, "Blockers")), "this is no count"


@pytest.mark.parametrize("flavour", ["cloud", "server"])
def test_an_answer_that_nobody_can_understand_is_named_in_its_section_and_logged(flavour):
    with Jira(flavour, issues=issues(40)) as jira:
        jira.faults = [["priority", reply(200, {"issues": None}), math.inf]]
        done = run("/jira release 2.3", **environ(jira))
        wanted = expected(jira.issues)
    assert {title: count(done.stdout, title) for title in TITLES[1:]} == {
        title: wanted[title] for title in TITLES[1:]}
    assert re.search("Blockers.* couldn't be asked", done.stdout) and "Sorry" not in done.stdout
    assert done.stdout.count("*Not ready*") == 1 and "Traceback" in done.stderr


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
    text = section(ask(site)[-1], "Blockers")
    assert "does not exist" in text and "priority" in text


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {"Retry-After": "1"}, {}])
def test_a_jira_that_is_busy_is_asked_again(cloud, status, headers):
    cloud.jira.reset(issues(8))
    cloud.jira.faults = [["WAS", ("status", status, headers), 1]]
    text = last(cloud)
    again = [seen for seen in cloud.jira.searches if "WAS" in seen.ask["jql"]]
    assert count(text, "Reopened") == "1" and len(again) == 2
    assert again[1].started - again[0].started >= int(headers.get("Retry-After", "0"))


def test_a_jira_that_stays_busy_is_asked_three_times(cloud):
    cloud.jira.reset(issues(8))
    cloud.jira.faults = [["WAS", ("status", 429, {"Retry-After": "0"}), math.inf]]
    text = last(cloud)
    assert len([seen for seen in cloud.jira.searches if "WAS" in seen.ask["jql"]]) == 3
    assert "429" in text and count(text, "To do") == "2"


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
    assert done.returncode == 1 and "JIRA" in done.stdout and "Traceback" not in done.stdout


def test_a_bot_without_jira_says_what_is_missing():
    done = run("/jira release 2.3 APP")
    assert done.returncode == 1 and "JIRA_URL" in done.stdout


@pytest.fixture
def impatient(tmp_path):
    """A bot that waits for a second where another waits for thirty."""
    script = tmp_path / "impatient.py"
    script.write_text("import slackbot as bot\nassert bot.JIRA_SECONDS == bot.JIRA_PAUSE == 30\n"
                      "bot.JIRA_SECONDS = bot.JIRA_PAUSE = 1\nbot.main()\n")
    return script


@pytest.mark.parametrize("fault", ["silence", "drip"])
def test_a_query_that_isnt_answered_in_time_is_named_in_its_section(impatient, fault):
    with Jira(issues=issues(8)) as jira:
        jira.faults = [["WAS", fault, math.inf]]
        started = time.monotonic()
        done = run("/jira release 2.3", impatient, **environ(jira))
    assert time.monotonic() - started < 5 and "Reopened" in done.stdout
    assert count(done.stdout, "To do") == "2"


def test_a_retry_after_of_a_day_is_cut_short_and_nonsense_is_ignored(impatient):
    nonsense = {"WAS": "86400", "priority": "soon", "updated": "-1", "resolution": "9" * 5000,
                '"To Do"': "Fri, 31 Dec 1999 23:59:59 GMT", '"In Progress"': "1e9"}
    with Jira(issues=issues(8)) as jira:
        jira.faults = [[part, ("status", 429, {"Retry-After": value}), 1]
                       for part, value in nonsense.items()]
        started = time.monotonic()
        done = run("/jira release 2.3", impatient, **environ(jira))
        assert {title: count(done.stdout, title) for title in TITLES} == expected(jira.issues)
    assert time.monotonic() - started < 5


# ---- Time

@pytest.mark.parametrize("flavour", ["cloud", "server"])
def test_a_report_takes_as_long_as_its_slowest_query_even_the_first_of_a_bot(flavour):
    with Slack() as slack, Jira(flavour, issues=issues(8), delay=1.0) as jira, Bot(
            **environ(jira, SLACK_HOOKS_ORIGINS=slack.origin)) as bot:
        url, started = slack.response_url(), time.monotonic()
        bot.command("/jira release 2.3", response_url=url)
        slack.wait(url)
        assert slack.posts[url][0].at - started < 2.5
        asked = jira.searches
    assert len(asked) >= 8, "the bot asks for one section after the other"
    assert max(seen.started for seen in asked) < min(seen.ended for seen in asked)


def test_progress_is_told_after_5_seconds(cloud):
    cloud.jira.reset(issues(8), delay=lambda seen: 6 * ("WAS" in seen.ask.get("jql", "")))
    url, started = cloud.slack.response_url(), time.monotonic()
    cloud.bot.command("/jira release 2.3", response_url=url)
    progress, report = cloud.slack.wait(url, 2)
    assert 4.9 < cloud.slack.posts[url][0].at - started < 5.9
    assert re.search(r"8 of 9", shown(progress)) and shown(report).startswith("*Not ready*")


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


@pytest.mark.parametrize("clause", [
    lambda number: f"statusCategory = Done OR updated <= -{number}d",
    lambda number: " AND ".join(f'key != "APP-{number + 10}{more}"' for more in range(10, 25))],
    ids=["short clauses", "long clauses"])
def test_twenty_sections_of_long_issues_fit_into_a_message(clause):
    queries = {f"Section {number}": clause(number) for number in range(20)}
    with Slack() as slack, Jira(issues=issues(250, summary="&" * 255)) as jira, Bot(**environ(
            jira, JIRA_QUERIES=json.dumps(queries), SLACK_HOOKS_ORIGINS=slack.origin)) as bot:
        text = last(types.SimpleNamespace(bot=bot, slack=slack))
    assert count(text, "Section 0") == "250" and count(text, "Section 19")


def test_the_rest_api_may_have_another_address_than_the_links():
    with Jira(context="/ex/jira/123", issues=issues(3)) as jira:
        done = run("/jira APP-1", **environ(jira, JIRA_URL="https://example.atlassian.net",
                                            JIRA_API_URL=jira.origin + jira.context))
    assert "https://example.atlassian.net/browse/APP-1" in done.stdout and done.returncode == 0


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_jira_may_live_under_a_path(slash):
    with Jira("server", context="/jira", issues=issues(3)) as jira:
        done = run("/jira release 2.3", **environ(jira, JIRA_URL=jira.origin + "/jira" + slash))
    assert f"{jira.origin}/jira/browse/APP-1)" in done.stdout


def test_a_data_center_with_a_name_and_a_password_is_recognised():
    with Jira("server", issues=issues(3)) as jira:
        done = run("/jira release 2.3", **environ(
            jira, JIRA_PERSONAL_TOKEN=None, JIRA_USERNAME="qa@example.com",
            JIRA_API_TOKEN=jira.token))
    assert count(done.stdout, "To do") == "1"


def test_projects_that_are_asked_side_by_side_recognise_a_data_center_together():
    late = {"/rest/api/3/project/WEB/versions": 0.5}
    with Jira("server", issues=[issue("APP-1"), issue("WEB-1")],
              delay=lambda seen: late.get(seen.path, 0)) as jira:
        done = run("/jira release 2.3 APP WEB", **environ(
            jira, JIRA_PERSONAL_TOKEN=None, JIRA_USERNAME="qa@example.com",
            JIRA_API_TOKEN=jira.token))
    assert count(done.stdout, "To do") == "2"


# ---- The other commands

def part(message, *words):
    """The line or block of *message* that has all *words*."""
    found = [text for text in texts(message.get("blocks", [])) if all(map(text.count, words))]
    lines = [line for line in shown(message).splitlines() if all(map(line.count, words))]
    assert found or lines, f"{words} stand nowhere in:\n{shown(message)}"
    return (found or lines)[0]


def test_releases_lists_what_is_unreleased_with_its_issues_and_dates(site):
    site.jira.reset([*issues(237), issue("APP-900", versions=["2.4"])], versions={"APP": [
        version("2.2", 1, released=True), version("2.3", 2, releaseDate="2099-12-31"),
        version("2.4", 3), version("old", 4, archived=True), version("<!here>", 5)]})
    message = ask(site, "/jira releases")[-1]
    assert "2099-12-31" in part(message, "2.3")
    assert re.search("118 done.*59 in progress.*60 to do", part(message, "2.3"))
    assert re.search("0 done.*0 in progress.*1 to do", part(message, "2.4"))
    assert is_safe(shown(message))
    assert "2.2" not in shown(message) and "old" not in shown(message)


def test_fifty_unreleased_versions_fit_into_a_message_and_none_is_left_out_silently(site):
    names = [f"{number} " + "<&>" * 80 for number in range(50)]
    site.jira.reset(issues(3), versions={"APP": [version(name) for name in names]})
    text = last(site, "/jira releases")
    told = [name for name in names if f"{name.split()[0]} &lt;" in text]
    assert told and (len(told) == 50 or re.search(r"\b50\b|more", text))


def test_a_version_with_an_issue_in_no_category_is_not_ready_in_releases_either(site):
    site.jira.reset([issue("APP-1", category="undefined"), issue("APP-2", **DONE)])
    text = part(ask(site, "/jira releases")[-1], "2.3")
    assert text.startswith("*Not ready*") and "1 of 2 issues are open" in text


def test_releases_of_several_projects_are_told_apart(site):
    site.jira.reset([issue("APP-1"), issue("WEB-1", versions=["9"])])
    text = last(site, "/jira releases app web")
    assert re.search("APP.*2.3", text) and re.search("WEB.*9", text)


def test_a_project_without_unreleased_versions_says_so(site):
    site.jira.reset(issues(3), versions={"APP": [version("2.3", released=True)]})
    text = last(site, "/jira releases")
    assert "APP" in text and "2.3" not in text


def test_a_count_that_fails_in_releases_is_no_number(site):
    site.jira.reset(issues(8))
    site.jira.faults = [['"In Progress"', ("status", 500), math.inf]]
    text = part(ask(site, "/jira releases")[-1], "2.3")
    assert "4 done" in text and "2 to do" in text and not re.search(r"\d+ in progress", text)
    assert "in progress" in text.lower(), "a part that failed is left out without a word"


def test_search_shows_the_first_issues_the_count_and_a_link(site):
    site.jira.reset(issues(237))
    jql = FIRST + " AND statusCategory != Done ORDER BY key"
    text = last(site, "/jira search " + jql)
    assert "119" in text and urllib.parse.quote(jql) in text.replace("+", "%20")
    assert len(re.findall(r"/browse/APP-\d+\|", text)) == 10 and is_safe(text, site.jira.origin)


def test_search_takes_the_smart_quotes_of_a_phone(cloud):
    cloud.jira.reset(issues(4))
    assert re.search(r"\b1\b", last(cloud, "/jira search priority = “Blocker”").split("\n")[0])


def test_search_that_finds_nothing_says_zero(site):
    site.jira.reset(issues(4))
    assert re.search(r"\b0\b", last(site, "/jira search priority = Low AND priority = High"))


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
    assert re.search(r"\b84\b", text)


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
