"""The page, in a real headless Chromium: the demo's small Slack, and what it is elsewhere."""

import ast
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import api_fakes
import browser as chromium
import fakes
import pytest
import slackbot

pytestmark = pytest.mark.skipif(bool(chromium.MISSING), reason=f"no {chromium.MISSING} here")

LAST = "Array.from(document.querySelectorAll('.exchange')).at(-1)"
SOURCE = (fakes.ROOT / "slackbot.py").read_text()
TREE = ast.parse(SOURCE)


def mrkdwn(text):
    return {"type": "mrkdwn", "text": text}


def plain(text):
    return {"type": "plain_text", "text": text}


def button(line, label, action_id="run"):
    return {"type": "button", "action_id": action_id, "value": line, "text": plain(label)}


def actions(*buttons):
    return {"type": "actions", "elements": list(buttons)}


def raw(text):
    return {"type": "raw_text", "text": text}


def number(value, **fields):
    return {"type": "raw_number", "value": value, **fields}


def rich(*elements):
    return {"type": "rich_text",
            "elements": [{"type": "rich_text_section", "elements": list(elements)}]}


def table(*rows, **fields):
    return {"type": "data_table", "caption": "Issues", "rows": list(rows), **fields}


def chart(kind, categories=("2.3", "2.4"), axes=(), **series):
    """A chart with a list of values, one for each category, under each name of a series."""
    return {"type": "data_visualization", "title": "Versions", "chart": {
        "type": kind, "axis_config": {"categories": list(categories), **dict(axes)},
        "series": [{"name": name, "data": [
            {"label": label, "value": value} for label, value in zip(categories, values)]}
            for name, values in series.items()]}}


def pie(**segments):
    return {"type": "data_visualization", "title": "Issues by status", "chart": {
        "type": "pie", "segments": [
            {"label": label, "value": value} for label, value in segments.items()]}}


REPORT = {"response_type": "in_channel", "blocks": [
    {"type": "header", "text": plain("Release 2.3 :rocket: &amp; <b>")},
    {"type": "section", "text": mrkdwn("*Not ready*"), "accessory": button("/hello A-1", "Show"),
     "fields": [mrkdwn("*Done*\n12"), plain("*as is*")]},
    {"type": "divider"},
    {"type": "actions", "block_id": "again", "elements": [button("/hello again", "Again")]},
    {"type": "context", "elements": [mrkdwn("_8 queries_")]},
    {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
        {"type": "text", "text": "<i>fallback</i>"}]}]},
]}



def issue_row(place):
    """A row of ISSUES: a link, the summary, and the votes as a number and as a text."""
    key, votes = f"SHOP-{place + 1}", place * 7 % 12
    link = {"type": "link", "url": f"https://jira.example/browse/{key}?a&amp;b", "text": key}
    return [rich(link), raw(f"{'abcdefghijkl'[place * 5 % 12]}: *late* &amp; <b>"),
            number(votes, text=f"{votes} votes"), raw(str(votes))]


ISSUES = [[raw("Key"), raw("Summary"), raw("Votes"), number(2026)], *map(issue_row, range(12))]
FIELDS = [mrkdwn(f"*Section {place}*\n{place}") for place in range(10)]
BUTTONS = actions(button("/show renewed", "Refresh", "run:refresh"),
                  button("/show gone", "Remove", "run:remove"),
                  button("/show table", "Plain"), button("/show table", "Other", "other"))
BARS = chart("bar", ["2.3", "2.4"], {"x_label": "version", "y_label": "issues"},
             done=[4, 2], open=[0, 1])
LONG = "line\n" * 40
REFRESH = actions(button("/show longer", "Refresh", "run:refresh"))
MESSAGES = {
    "table": {"blocks": [table(*ISSUES)]},
    "ten": {"blocks": [table(*ISSUES, page_size=10, row_header_column_index=1)]},
    "twelve": {"blocks": [table(*ISSUES, page_size=12)]},
    "bar": {"blocks": [BARS]},
    "line": {"blocks": [chart("line", done=[4, 2], open=[0, 1])]},
    "area": {"blocks": [chart("area", done=[4, 2], open=[0, 1])]},
    "pie": {"blocks": [pie(done=3, open=1)]},
    "slice": {"blocks": [pie(done=3)]},
    "negative": {"blocks": [chart("bar", a=[-0.5, 0.25])]},
    "fields": {"blocks": [{"type": "section", "fields": FIELDS}, BUTTONS]},
    "long": {"blocks": [{"type": "section", "text": mrkdwn(LONG)}, REFRESH]},
    "longer": {"replace_original": True, "blocks": [
        {"type": "section", "text": mrkdwn("renewed" + LONG)}, REFRESH]},
    "all": {"blocks": [{"type": "section", "text": mrkdwn("Text"), "fields": FIELDS},
                       table(*ISSUES), BARS, chart("area", [f"Category number {place}"
                                                            for place in range(20)],
                                                   **{name: range(20) for name in "abcdef"}),
                       BUTTONS]},
    "renewed": {"replace_original": True, "text": "renewed"},
    "gone": {"delete_original": True},
}
OWN = f"""
import slackbot

MESSAGES = {MESSAGES!r}


@slackbot.command("/show")
def show(request, name: str):
    return MESSAGES[name]


slackbot.main()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def bot():
    with fakes.Bot("demo") as bot:
        yield bot


@pytest.fixture(scope="module", autouse=True)
def second_window(browser, bot):
    """A window of its own for what takes five seconds, begun before the other tests run."""
    first = browser.window()
    browser.new_window()
    browser.open(bot.url)
    browser.wait("return document.activeElement?.id === 'line'")
    for line in ("/hello-world", "/hello-world", "/hello attakei"):
        say(browser, line)
    second = browser.window()
    browser.turn_to(first)
    return first, second


@pytest.fixture
def page(browser, bot):
    """The demo, just opened."""
    browser.resize(1200, 800)
    browser.open(bot.url)
    browser.wait("return document.activeElement?.id === 'line'")
    return browser


@pytest.fixture(scope="module")
def own_bot(script):
    with fakes.Bot("demo", script=script) as bot:
        yield bot


@pytest.fixture
def talk(browser, bot):
    """The demo, in which there may have been other commands, all of them over or soon over. A test
    may let the bot say something else by `answer_with`; the next test hears the bot again."""
    browser.resize(1200, 800)
    is_there = browser.run("""
        if (!window.fetchOfTheTalk) return false;
        window.fetch = window.fetchOfTheTalk;
        document.querySelector("#line").focus();
        return true;""")
    if not is_there:
        browser.open(bot.url)
        browser.wait("return document.activeElement?.id === 'line'")
        browser.run("window.fetchOfTheTalk = window.fetch")
    return browser


@pytest.fixture
def show(browser, own_bot):
    """A function that shows one of MESSAGES, and nothing else, in the demo of `own_bot`: the page.
    The one before is taken away, but once something was pressed the page is opened anew."""
    def show(name):
        browser.resize(1366, 657)
        if browser.opened != own_bot.url or not browser.run("""
                const exchanges = document.querySelectorAll(".exchange");
                if (exchanges.length !== 1) return false;
                exchanges[0].remove();
                document.querySelector("#line").focus();
                return true;"""):
            browser.open(own_bot.url)
            browser.wait("return document.activeElement?.id === 'line'")
        say(browser, f"/show {name}")
        return browser
    return show


@pytest.fixture
def open_page(browser, bot):
    """The demo, in whatever state it is."""
    if browser.opened != bot.url:
        browser.open(bot.url)
    return browser


@pytest.fixture
def drawer(talk):
    """The demo with its drawer open, filled with code."""
    open_drawer(talk)
    yield talk
    talk.run("document.querySelector('.drawer').close()")


def open_drawer(page, selector=".top button"):
    page.click(selector)
    page.wait("return document.querySelector('.drawer[open] .code')")


def open_drawer_without_code(page):
    page.click(".top button")
    page.wait("return document.querySelector('.about .alarm')")


def answers(page, count=1):
    """The texts of the last exchange's answers, once there are *count* of them."""
    return page.wait(f"""
        const texts = Array.from({LAST}?.querySelectorAll(".answers .message") ?? [],
            (message) => message.innerText.replaceAll("\\u00a0", " "));
        return texts.length >= arguments[0] && texts""", count)


def say(page, line, count=1):
    """Type *line*, close the completions, send it: its answers, once there are *count*."""
    page.type(line)
    page.press("Escape", "Enter")
    return answers(page, count)


def answer_with(page, path, body, status=200):
    """Let *path* answer this from now on, whatever the bot would say."""
    page.run("""
        const [path, body, status] = arguments;
        const fetched = window.fetch;
        const headers = {"Content-Type": "application/json"};
        const answer = () => new Response(body, {status, headers});
        window.fetch = (url, options) =>
            url === path ? Promise.resolve(answer()) : fetched(url, options);
        """, path, body if isinstance(body, str) else json.dumps(body), status)


def run_on(page):
    """Let every command run until `finish`, and no answer come but those of `post_later`."""
    page.run("""
        window.replies = {messages: [], running: 1};
        window.polls = 0;
        const fetched = window.fetch;
        window.fetch = (url, options) => {
            if (!url.startsWith("/demo/hooks/")) return fetched(url, options);
            window.polls += 1;
            return Promise.resolve(Response.json(window.replies)); };""")


def post_later(page, seconds, message):
    """Let this come to every response_url of commands that `run_on`."""
    posted = {"seconds": seconds, "message": message}
    page.run("window.replies.messages.push(arguments[0])", posted)


def finish(page, *posted):
    """End the commands that `run_on`, which have *posted* something at their very end."""
    page.run("""
        const messages = [...window.replies.messages, ...arguments[0]];
        window.replies = {messages, running: 0};""", posted)


def wait_until_idle(page):
    """Wait until the page hasn't sent a request, nor waited for an answer, for half a second in
    which its pauses have no length. There must be no other fake of `fetch` afterwards."""
    page.run("""
        const {fetch, setTimeout} = window;
        window.underWay = 0;
        window.askedAt = performance.now();
        window.setTimeout = (resume) => setTimeout(resume, 0);
        window.fetch = (...request) => {
            window.underWay += 1;
            window.askedAt = performance.now();
            return fetch(...request).finally(() => { window.underWay -= 1; }); };""")
    page.wait("return !window.underWay && performance.now() - window.askedAt > 500", seconds=20)


def lesson(page, *names):
    """The texts of these parts of what the last exchange tells of its request."""
    page.run(f"{LAST}.querySelector('[aria-expanded]').click()")
    page.wait(f"return {LAST}.querySelector('.lesson h3')")
    part = f"return {LAST}.querySelector('.lesson .' + arguments[0])?.textContent"
    return [page.run(part, name) for name in names]


def timeline(page):
    """What a screen reader says of the last exchange's timeline."""
    return page.run(f"""
        return {LAST}?.querySelector(".timeline").ariaLabel.replaceAll("\\u00a0", " ")""") or ""


def steps(page):
    """What the drawer's steps tell of the request that they follow: {function: text}."""
    return page.run("""return Object.fromEntries(Array.from(document.querySelectorAll(".steps li"),
        (step) => [step.querySelector("h3").innerText,
                   step.querySelector(".own").innerText.replaceAll("\\u00a0", " ")]))""")


def drawn(page, text, expression):
    """Render the mrkdwn *text* into a `box`: what the JavaScript *expression* says of it."""
    return page.run(f"""
        const box = document.createElement("div");
        box.append(...mrkdwn(arguments[0]));
        return {expression}""", text)


# ---- the conversation with the real bot ------------------------------------

def test_hello_is_answered_for_the_user_alone(talk):
    answer, = say(talk, "/hello attakei")
    assert "Only visible to you" in answer
    assert "Hello attakei, I received attakei" in answer
    assert talk.text(".typed") == "You typed /hello attakei"


def test_a_release_report_has_a_verdict_and_sections(talk):
    talk.press("/jira release 2.3", "Enter")
    talk.wait(f"return /Ready|Not ready|Unknown/.test({LAST}?.innerText)")
    report = talk.text(".answers")
    assert "Blockers" in report and "In progress" in report and "Done" in report
    assert talk.run(f"return {LAST}.querySelector('a').target") == "_blank"


def test_a_command_that_lacks_an_argument_tells_its_usage(talk):
    answer, = say(talk, "/jira release")
    assert "/jira release VERSION" in answer and "Only visible to you" in answer


def test_an_unknown_command_is_told_what_there_is(talk):
    answer, = say(talk, "/nonsense")
    assert "/nonsense" in answer and "/hello-world" in answer


@pytest.mark.parametrize("text", [
    "<!channel> & <b>",
    "<img src=x onerror=document.title='owned'>",
    "&lt;b&gt; &amp;amp;",
    "<javascript:alert(1)|x>",
])
def test_hostile_text_comes_back_as_text_and_makes_no_element(talk, text):
    answer, = say(talk, f"/hello {text}")
    assert text in answer
    made = talk.run(f"""
        return Array.from({LAST}.querySelectorAll(".content *"), (node) => node.localName)""")
    assert set(made) <= {"p", "code"}
    assert talk.run("return document.title.startsWith('slackbot.py')")


def test_a_line_that_is_no_command_is_shown_with_a_hint(talk):
    talk.press("hello *you* <b>", "Enter")
    assert talk.text(".exchange .content") == "hello you <b>"
    assert "slash commands only" in talk.text(".exchange .under")


# ---- the request, for who wants to learn -----------------------------------

def test_the_lesson_shows_a_request_whose_signature_is_right(talk):
    say(talk, "/hello a & b")
    request, response, secret, base, digest, header = lesson(
        talk, "request", "response", "secret", "base", "digest", "signature")
    head, body = request.split("\n\n")
    request_line, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    timestamp = headers["X-Slack-Request-Timestamp"]
    expected = fakes.sign(body.encode(), secret, timestamp)["X-Slack-Signature"]
    assert request_line == "POST /slack/commands HTTP/1.1"
    assert int(headers["Content-Length"]) == len(body)
    assert base == f"v0:{timestamp}:{body}"
    assert headers["X-Slack-Signature"] == f"v0={digest}" == expected
    assert header == f"X-Slack-Signature: {expected}"
    assert response.startswith("HTTP/1.1 200 OK\n")
    assert "I received" in json.loads(response.split("\n\n")[1])["text"]


def test_each_command_is_sent_as_slack_sends_it(talk):
    sent = []
    for _ in range(2):
        say(talk, "/hello a & <b>")
        request, = lesson(talk, "request")
        sent.append(dict(urllib.parse.parse_qsl(request.split("\n\n")[1])))
    one, other = sent
    names = urllib.parse.parse_qs(fakes.form("/hello x", response_url="x").decode())
    assert set(one) == set(names)
    assert (one["command"], one["text"]) == ("/hello", "a &amp; &lt;b&gt;")
    assert one["trigger_id"] != other["trigger_id"]
    assert one["response_url"] != other["response_url"]


def press_request(page):
    """Press "The request" under the last exchange, and wait for its content."""
    page.run(f"""Array.from({LAST}.querySelectorAll(".under button")).find(
        (node) => node.innerText === "The request").click()""")
    page.wait(f"return {LAST}.querySelector('.lesson h3')")


@pytest.mark.parametrize("size", [(1366, 657), (360, 740)])
def test_the_request_opens_in_view_at_its_exchange_s_left_edge(talk, size):
    talk.resize(*size)
    for line in ("/jira release", "/hello attakei", "/hello attakei"):
        say(talk, line)
    press_request(talk)
    log, under, heading, request = talk.run(f"""
        return [".log", ".under", ".lesson h3", ".lesson .request"].map((name) => {{
            const {{left, top, bottom}} = ({LAST}.querySelector(name)
                ?? document.querySelector(name)).getBoundingClientRect();
            return {{left, top, bottom}}; }})""")
    assert log["top"] < under["top"] < heading["top"] < request["bottom"] < log["bottom"]
    assert under["left"] == heading["left"] == request["left"]


def test_the_request_opens_and_closes_where_its_button_is(talk):
    state = f"""
        const [button, content] = ["[aria-expanded]", ".lesson"].map((name) =>
            {LAST}.querySelector(name));
        return [button.ariaExpanded, content.checkVisibility(),
            button.getBoundingClientRect().left]"""
    say(talk, "/hello attakei")
    closed = talk.run(state)
    assert closed[:2] == ["false", False]
    press_request(talk)
    assert talk.run(state) == ["true", True, closed[2]]
    talk.click(".exchange:last-child [aria-expanded]")
    assert talk.run(state) == closed


def test_a_later_answer_does_not_scroll_an_open_request_away(page):
    place = f"return {LAST}.querySelector('.lesson').getBoundingClientRect().top"
    page.resize(1200, 400)
    run_on(page)
    say(page, "/hello attakei")
    press_request(page)
    before = page.run(place)
    post_later(page, 1, {"text": "later"})
    answers(page, 2)
    assert page.run(place) == pytest.approx(before, abs=2)


# ---- what Slack does with an answer ----------------------------------------

def test_an_answer_to_all_shows_the_command_line_too(talk):
    answer_with(talk, "/slack/commands", REPORT)
    answer, = say(talk, "/jira release 2.3")
    typed = talk.text(".exchange > .message")
    assert "Only visible to you" not in answer + typed
    assert "attakei" in typed and "/jira release 2.3" in typed


def test_blocks_become_a_heading_fields_buttons_and_text(talk):
    answer_with(talk, "/slack/commands", REPORT)
    say(talk, "/report")
    assert talk.text(".exchange:last-child .content h3") == "Release 2.3 🚀 & <b>"
    assert talk.text(".exchange:last-child .fields strong") == "Done"
    assert "*as is*" in talk.text(".exchange:last-child .fields")
    assert talk.text(".exchange:last-child .context em") == "8 queries"
    assert talk.text(".exchange:last-child .content > p") == "<i>fallback</i>"
    assert talk.run(f"return {LAST}.querySelectorAll('.content .push').length") == 2


def test_a_button_sends_its_payload_and_a_404_is_told(page):
    answer_with(page, "/slack/commands", REPORT)
    answer_with(page, "/slack/interactions", {"error": "no such page"}, 404)
    say(page, "/report")
    page.click(".actions .push")
    page.wait("return document.querySelectorAll('.exchange').length === 2")
    answer, = answers(page)
    assert "The button failed: the bot answered 404" in answer
    assert page.text(".typed") == "You pressed Again for /hello again"
    payload = json.loads(*lesson(page, "payload"))
    assert payload["type"] == "block_actions"
    assert payload["response_url"] and payload["trigger_id"] and payload["user"]["id"]
    action, = payload["actions"]
    assert (action["action_id"], action["block_id"]) == ("run", "again")
    assert action["value"] == "/hello again"


def test_a_button_s_answers_are_shown_and_may_replace_its_message(page):
    answer_with(page, "/slack/commands", REPORT)
    answer_with(page, "/slack/interactions", "")
    run_on(page)
    say(page, "/report")
    page.click(".actions .push")
    post_later(page, 1, {"replace_original": True, "text": "new"})
    page.wait("return document.querySelector('.exchange .answers').innerText.includes('new')")
    assert page.run("return document.querySelector('.content h3')") is None


@pytest.mark.parametrize("body, shown", [
    ("just text", "just text"),
    ({"text": "*bold*"}, "bold"),
    ({"blocks": [{"type": "section", "text": 3}, None]}, "invalid_blocks"),
])
def test_text_json_and_nonsense_are_all_shown_to_the_user_alone(talk, body, shown):
    answer_with(talk, "/slack/commands", body)
    answer, = say(talk, "/anything")
    assert shown in answer and "Only visible to you" in answer


def test_an_empty_answer_shows_nothing(talk):
    answer_with(talk, "/slack/commands", "")
    talk.press("/quiet", "Enter")
    talk.wait(f"return {LAST}?.querySelector('.caption').innerText.startsWith('empty 200')")
    assert "an empty 200, which shows nothing, after" in timeline(talk)
    assert talk.run(f"return {LAST}.querySelector('.answers .message')") is None


@pytest.mark.parametrize("status, error", [
    (404, "http_client_error"), (503, "http_service_error")])
def test_an_answer_that_is_not_200_fails_as_in_slack(talk, status, error):
    answer_with(talk, "/slack/commands", {"error": "no"}, status)
    answer, = say(talk, "/cmd text")
    assert f'/cmd failed with the error "{error}"' in answer


def test_no_answer_within_three_seconds_is_a_timeout(page):
    page.run("""
        const {fetch, AbortSignal: {timeout}} = window;
        AbortSignal.timeout = (milliseconds) => timeout(milliseconds / 5); // for whom time flies
        const hang = ({signal}) => new Promise((_, reject) =>
            signal.addEventListener("abort", () => reject(signal.reason)));
        window.fetch = (url, options) =>
            url === "/slack/commands" ? hang(options) : fetch(url, options);""")
    begun = time.monotonic()
    page.press("/slow", "Escape", "Enter")
    page.wait(f"return {LAST}?.querySelector('.running')")
    assert timeline(page) == "waiting for the first answer"
    answer, = answers(page)
    assert '/slow failed with the error "operation_timeout"' in answer
    assert 0.6 <= time.monotonic() - begun < 3
    assert timeline(page).startswith("no answer within 3 s; ")
    assert page.run(f"return {LAST}.querySelectorAll('.missed, .running').length") == 1


def test_a_later_message_may_replace_or_delete_the_first(page):
    second = {"replace_original": True, "response_type": "in_channel", "text": "second"}
    run_on(page)
    post_later(page, 0.02, second)
    page.press("/hello attakei", "Enter")
    page.wait(f"return {LAST}?.innerText.includes('second')")
    answer, = answers(page)
    assert "Only visible to you" in answer and "after 20 ms" in answer  # who sees it never changes
    post_later(page, 1.26, {"text": "third"})
    _, answer = answers(page, 2)
    assert "third" in answer and "after 1.3 s" in answer
    post_later(page, 2, {"delete_original": True})
    page.wait(f"return !{LAST}.innerText.includes('second')")
    assert "third" in answers(page)[0]


# ---- how long the page asks for answers ------------------------------------

def test_an_idle_page_sends_no_request(page):
    say(page, "/hello attakei")
    say(page, "/jira release 2.3", 2)
    press(page, "Share")
    page.wait("return document.querySelectorAll('.exchange').length === 3")
    answers(page, 2)
    wait_until_idle(page)


def test_the_page_asks_while_a_command_runs_and_shows_what_comes_with_its_end(page):
    run_on(page)
    say(page, "/hello attakei")
    page.wait("return window.polls > 3")
    finish(page, {"seconds": 60, "message": {"text": "at last"}})
    assert "at last" in answers(page, 2)[1]
    wait_until_idle(page)


def test_after_the_fifth_post_the_page_asks_no_more(page):
    run_on(page)
    for seconds in range(1, 6):
        post_later(page, seconds, {"text": "more"})
    say(page, "/hello attakei", 6)
    wait_until_idle(page)


def test_the_log_has_the_page_s_commands_but_not_its_questions_for_answers(page, bot):
    say(page, "/hello to the log")
    wait_until_idle(page)
    api_fakes.check_log(bot)  # waits until the log is written
    assert "method=POST path=/slack/commands" in bot.output
    assert "method=GET path=/demo/hooks/" not in bot.output


def lose_hooks(page, answer):
    """Let *answer*, a JavaScript expression, come in place of the later answers from now on;
    the pauses between two questions have no length."""
    page.run("""
        const {fetch, setTimeout} = window;
        window.setTimeout = (resume) => setTimeout(resume, 0);
        window.fetch = (url, options) => url.startsWith("/demo/hooks/")
            ? %s : fetch(url, options);""" % answer)


@pytest.mark.parametrize("answer, told", [
    ("Promise.resolve(new Response('{}', {status: 404}))",
     "The bot was restarted. Send the command again."),
    ("Promise.reject(new TypeError('Failed to fetch'))",
     "The bot has stopped. Start it again with python3 slackbot.py, then send the command again.")])
def test_the_user_is_told_when_no_more_answers_can_come(page, answer, told):
    lose_hooks(page, answer)
    last = say(page, "/hello attakei", 2)[1]
    assert "No more answers can come to this command." in last and told in last
    wait_until_idle(page)
    assert len(answers(page)) == 2


def test_a_bot_that_is_busy_is_asked_again(page):
    busy = "Promise.reject(new DOMException('busy', 'TimeoutError'))"
    lose_hooks(page, f"window.asked++ < 9 ? {busy} : Promise.resolve(Response.json("
                     "{messages: [{seconds: 9, message: {text: 'at last'}}], running: 0}))")
    page.run("window.asked = 0")
    first, last = say(page, "/hello attakei", 2)
    assert "I received attakei" in first and "at last" in last


def test_when_the_bot_is_dead_the_page_says_how_to_start_it_again(browser):
    hint = "Start it again with python3 slackbot.py, then send the command again."
    with fakes.Bot("demo") as bot:
        browser.open(bot.url)
        browser.wait("return document.activeElement?.id === 'line'")
        browser.run("""  // its pauses have a hundredth of their length
            const {setTimeout} = window;
            window.setTimeout = (resume, pause) => setTimeout(resume, pause / 100);""")
        say(browser, "/hello-world")
        bot.process.kill()
        _, stopped = answers(browser, 2)
        assert "The bot has stopped. " + hint in stopped
        failed, = say(browser, "/hello attakei")
        assert '/hello failed with the error "dispatch_failed"' in failed
        assert "The bot can’t be reached. " + hint in failed
        open_drawer_without_code(browser)
        assert "The code can’t be shown: the bot can’t be reached." in browser.text(".about")
    browser.log("browser")  # has the refused connections


# ---- the buttons of the release report ------------------------------------

def press(page, name):
    """Press the button with a *name* by the keyboard."""
    page.run("Array.from(document.querySelectorAll('.content .push')).find("
             "(push) => push.innerText === arguments[0]).focus()", name)
    page.press("Enter")


def test_share_runs_its_line_for_all_and_posts_a_new_report(page):
    say(page, "/jira release 2.3", 2)
    press(page, "Share")
    page.wait("return document.querySelectorAll('.exchange').length === 2")
    progress, report = answers(page, 2)
    assert page.text(".typed") == "You pressed Share for /jira release 2.3 --public"
    assert "Asking JIRA" in progress and "Blockers" in report
    assert "Only visible to you" not in report
    assert re.match("an empty 200, .*; 2 delayed answers, the last after .*; 2 of 5 posts used",
                    timeline(page))
    assert page.run(f"return {LAST}.querySelectorAll('.push').length") == 2


def test_refresh_replaces_the_report_that_it_stands_under(page):
    say(page, "/jira release 2.3", 2)
    page.run("document.querySelector('.content table').dataset.old = 'yes'")
    press(page, "Refresh")
    page.wait("return document.querySelectorAll('.exchange').length === 2")
    page.wait("return document.querySelectorAll('.content table:not([data-old])').length === 1")
    assert page.text(".typed") == "You pressed Refresh for /jira release 2.3"
    assert page.run("return document.querySelectorAll('.content table').length") == 1
    assert page.run(f"return {LAST}.querySelectorAll('.answers .message').length") == 0


# ---- tables ----------------------------------------------------------------

def rows(page, column=1):
    """The cells of a *column* (1 is the first) in the rows that the table shows."""
    return page.run(f"""return Array.from({LAST}.querySelectorAll(
        `tbody tr > :nth-child(${{arguments[0]}})`), (cell) => cell.innerText)""", column)


def summaries(*places):
    """The first letters of the summaries of ISSUES at these places."""
    return ["abcdefghijkl"[place * 5 % 12] for place in places]


def sorts(page):
    """What the headers tell a screen reader of the order."""
    return page.run(f"""return Array.from({LAST}.querySelectorAll("thead th"),
        (header) => header.getAttribute("aria-sort"))""")


def turn(page, name):
    """Press a button under the table: what it says of the rows then."""
    page.run(f"""Array.from({LAST}.querySelectorAll(".turn button")).find(
        (button) => button.innerText === arguments[0]).click()""", name)
    return page.text(".turn > span")


def test_a_table_has_a_caption_a_header_and_cells_with_texts_as_they_are_and_links(show):
    page = show("table")
    assert page.text(".data-table caption") == "Issues"
    assert page.run("return Array.from(document.querySelectorAll('thead th'), "
                    "(cell) => [cell.innerText.trim(), cell.scope])") == [
        ["Key", "col"], ["Summary", "col"], ["Votes", "col"], ["2026", "col"]]
    assert rows(page, 2)[0] == "a: *late* &amp; <b>" and rows(page, 3)[1] == "7 votes"
    link = page.run("const {href, innerText, target, rel} = document.querySelector('tbody a');"
                    "return [href, innerText, target, rel]")
    assert link == ["https://jira.example/browse/SHOP-1?a&amp;b", "SHOP-1", "_blank",
                    "noopener noreferrer"]


@pytest.mark.parametrize("element, html", [
    ({"type": "text", "text": "*a* &lt;b>"}, "*a* &amp;lt;b&gt;"),
    ({"type": "text", "text": "a", "style": {"bold": True, "code": True, "italic": False}},
     "<code><strong>a</strong></code>"),
    ({"type": "link", "url": "javascript:alert(1)", "text": "a"}, "a"),
    ({"type": "link", "url": "https://a.example/"},
     '<a href="https://a.example/" target="_blank" rel="noopener noreferrer">'
     'https://a.example/</a>'),
    ({"type": "emoji", "name": "x"}, '<span role="img" aria-label="x">❌</span>'),
    ({"type": "emoji", "name": "constructor"}, ":constructor:"),
])
def test_rich_text_becomes(open_page, element, html):
    assert open_page.run("""const box = document.createElement("div");
        box.append(...richTextNodes(arguments[0]));
        return box.innerHTML""", rich(element)) == html


@pytest.mark.parametrize("name, column", [("table", 0), ("ten", 1)])
def test_the_cells_of_one_column_are_the_headers_of_their_rows(show, name, column):
    cells = show(name).run("""return Array.from(document.querySelectorAll("tbody tr"), (row) =>
        Array.from(row.children, (cell) => cell.localName + (cell.scope ?? "")))""")
    expected = ["td"] * 4
    expected[column] = "throw"
    assert cells and all(row == expected for row in cells)


@pytest.mark.parametrize("name, size", [("table", 5), ("ten", 10)])
def test_a_table_shows_a_page_of_rows_and_buttons_for_the_others(show, name, size):
    page = show(name)
    last = 12 - 12 % size + 1
    assert len(rows(page)) == size and page.text(".turn > span") == f"1-{size} of 12"
    assert turn(page, "Previous") == f"1-{size} of 12"
    for begin in range(size + 1, 13, size):
        assert turn(page, "Next") == f"{begin}-{min(begin + size - 1, 12)} of 12"
        assert rows(page)[0] == f"SHOP-{begin}"
    assert turn(page, "Next") == f"{last}-12 of 12"
    disabled = "return Array.from(document.querySelectorAll('.turn button'), (b) => b.ariaDisabled)"
    assert page.run(disabled) == ["false", "true"]
    assert turn(page, "Previous") == f"{last - size}-{last - 1} of 12"
    assert page.run(disabled) == [str(last - size == 1).lower(), "false"]


def test_a_table_with_one_page_has_no_buttons(show):
    page = show("twelve")
    assert len(rows(page)) == 12
    assert not page.run("return document.querySelector('.turn').checkVisibility()")


def test_a_header_sorts_by_its_column_up_and_down_and_as_it_came(show):
    page = show("table")
    turn(page, "Next")
    for order, expected in [("ascending", list("abcde")), ("descending", list("lkjih")),
                            (None, summaries(0, 1, 2, 3, 4))]:
        page.click("thead th:nth-child(2) button")
        assert [text[0] for text in rows(page, 2)] == expected
        assert sorts(page) == [None, order, None, None]
        assert page.text(".turn > span") == "1-5 of 12"
    page.click("thead th:nth-child(2) button")
    page.click("thead th:nth-child(1) button")
    assert sorts(page) == ["ascending", None, None, None]
    assert turn(page, "Next") == "6-10 of 12"
    assert rows(page) == ["SHOP-3", "SHOP-4", "SHOP-5", "SHOP-6", "SHOP-7"]  # by its text


def test_a_column_of_numbers_is_sorted_by_their_values_and_any_other_as_text(show):
    page = show("twelve")
    page.click("thead th:nth-child(3) button")
    assert rows(page, 3) == [f"{votes} votes" for votes in range(12)]
    page.click("thead th:nth-child(4) button")
    assert rows(page, 4) == sorted(map(str, range(12)))


def test_a_table_is_sorted_and_turned_with_the_keyboard_alone(show):
    page = show("table")
    focused = "return document.activeElement.innerText"
    page.run("document.querySelector('thead button').focus()")
    page.press("Tab", "Enter")
    assert page.run(focused) == "Summary" and sorts(page)[1] == "ascending"
    page.press("Enter")
    assert [text[0] for text in rows(page, 2)] == list("lkjih")
    page.press(*["Tab"] * 9, "Enter", "Enter", "Enter")  # two headers, five links, Previous, Next
    assert page.run(focused) == "Next" and page.text(".turn > span") == "11-12 of 12"


# ---- charts ----------------------------------------------------------------

FIGURES = "2.3: done 4, open 0; 2.4: done 2, open 1"


@pytest.mark.parametrize("name, label, names, shapes", [
    ("bar", f"Bar chart. {FIGURES}", ["done", "open"], 4),
    ("line", f"Line chart. {FIGURES}", ["done", "open"], 4),
    ("area", f"Area chart. {FIGURES}", ["done", "open"], 4),
    ("pie", "Pie chart. done: 3 (75%), open: 1 (25%)",
     ["done: 3 (75%)", "open: 1 (25%)"], 2),
    ("slice", "Pie chart. done: 3 (100%)", ["done: 3 (100%)"], 1),
])
def test_a_chart_has_a_title_a_legend_and_its_figures_in_words(show, name, label, names, shapes):
    page = show(name)
    title = "Issues by status" if "Pie" in label else "Versions"
    assert page.text(".chart figcaption") == title
    role, words, legend, found = page.run("""
        const svg = document.querySelector(".chart svg");
        const legend = Array.from(document.querySelectorAll(".legend li"), (item) => [
            item.innerText, getComputedStyle(item, "::before").backgroundColor]);
        const color = (shape, style = getComputedStyle(shape)) =>
            shape.matches(".point") ? style.stroke : style.fill;
        const shapes = Array.from(svg.querySelectorAll(".shape, .point"), (shape) => [
            color(shape), shape.querySelector("title").textContent]);
        return [svg.getAttribute("role"), svg.ariaLabel, legend, shapes]""")
    assert (role, words) == ("img", label)
    assert [text for text, _ in legend] == names and len(found) == shapes
    colors = [color for _, color in legend]
    assert len(set(colors)) == len(colors)
    assert list(dict.fromkeys(color for color, _ in found)) == colors
    if "Pie" not in label:
        assert [text for _, text in found] == [
            "2.3, done: 4", "2.4, done: 2", "2.3, open: 0", "2.4, open: 1"]


BOXES = """return Array.from(document.querySelectorAll(arguments[0]), (shape) => {
    const {left, right, top, bottom} = shape.getBoundingClientRect();
    return [left, right, top, bottom]; })"""


def test_bars_stand_side_by_side_on_the_axis_and_are_as_high_as_their_values(show):
    page = show("bar")
    boxes = page.run(BOXES, ".chart rect")
    heights = [bottom - top for _, _, top, bottom in boxes]
    assert heights == pytest.approx([4 * heights[3], 2 * heights[3], 0, heights[3]], abs=1)
    assert {round(bottom) for *_, bottom in boxes} == {round(page.run(BOXES, ".zero")[0][2])}
    done, other_done, open_, other_open = boxes
    assert done[0] < done[1] <= open_[0] < open_[1] < other_done[0]
    assert page.run("""return ["values", "categories", "x-label", "y-label"].map((name) =>
        document.querySelector(".plot > ." + name).innerText.split(/\\s+/))""") == [
        [*"01234"], ["2.3", "2.4"], ["version"], ["issues"]]
    middle = [(left + right) / 2 for left, right, *_ in page.run(BOXES, ".categories > *")]
    assert middle == pytest.approx([open_[0], other_open[0]], abs=3)


def test_bars_of_negative_values_hang_from_the_axis(show):
    page = show("negative")
    (_, _, top, _), (_, _, _, bottom) = page.run(BOXES, ".chart rect")
    assert top == bottom == pytest.approx(page.run(BOXES, ".zero")[0][2], abs=1)
    assert page.text(".values").split() == ["-0.6", "-0.4", "-0.2", "0", "0.2", "0.4"]


@pytest.mark.parametrize("values, marks", [
    ([0], [0, 1]), ([1], [0, 1]), ([3], [0, 1, 2, 3]), ([0.3], [0, 0.1, 0.2, 0.3]),
    ([7], [0, 2, 4, 6, 8]), ([81, 12], [0, 50, 100]), ([45000], [0, 20000, 40000, 60000]),
    ([-3, 2], [-4, -2, 0, 2]), ([-1], [-1, 0]), ([-0.001], [-0.001, -0.0005, 0])])
def test_an_axis_has_round_marks(open_page, values, marks):
    assert open_page.run("return axisValues(arguments[0])", values) == pytest.approx(marks)


def test_lines_go_through_their_points_and_areas_reach_down_to_the_axis(show):
    ends = """const [box, zero] = [arguments[0], ".zero"].map((selector) =>
        document.querySelector(selector).getBoundingClientRect());
        return [box.bottom - zero.top, box.left, box.width, zero.width]"""
    assert show("line").run(ends, ".curve")[0] < -20
    bottom, left, width, whole = show("area").run(ends, ".area")
    assert bottom == pytest.approx(0, abs=1) and width == pytest.approx(whole / 2, abs=1)


def test_the_slices_of_a_pie_have_their_shares_of_the_circle(show):
    def sizes(name):
        boxes = show(name).run(BOXES, ".chart .pie, .chart .shape")
        return [[round(right - left), round(bottom - top)] for left, right, top, bottom in boxes]
    pie, three_quarters, quarter = sizes("pie")  # the quarter is between 9 and 12 o'clock
    assert three_quarters == pie == [165, 165] and quarter == [82, 82]
    assert sizes("slice") == [pie, pie]


# ---- fields, buttons, and all of it at once --------------------------------

def test_fields_stand_in_two_columns_and_on_a_phone_in_one(show):
    page = show("fields")
    lefts = [round(left) for left, *_ in page.run(BOXES, ".fields > *")]
    assert len(lefts) == 10 and lefts[0] < lefts[1] and lefts == lefts[:2] * 5
    page.resize(360, 740)
    assert len({round(left) for left, *_ in page.run(BOXES, ".fields > *")}) == 1


def test_the_buttons_of_a_block_stand_in_one_row(show):
    boxes = show("fields").run(BOXES, ".actions .push")
    assert len(boxes) == 4 and len({top for _, _, top, _ in boxes}) == 1
    assert all(one[1] < other[0] for one, other in zip(boxes, boxes[1:]))


def test_on_a_phone_a_table_and_a_wide_chart_scroll_in_boxes_of_their_own(show):
    hidden = """return Array.from(document.querySelectorAll(arguments[0]),
        (node) => node.scrollWidth - node.clientWidth)"""
    page = show("all")
    page.resize(360, 740)
    assert page.run(hidden, "html, .log, .content, .data-table, .chart") == [0] * 6
    in_table, in_bars, in_area = page.run(hidden, ".content .scroll")
    assert in_table > 50 and in_bars == 0 and in_area > 50
    caption = page.run("""const box = document.querySelector(".data-table .scroll");
        box.scrollLeft = 1000;
        return document.querySelector("caption > *").getBoundingClientRect().left
            - box.getBoundingClientRect().left""")
    assert 0 < caption < 30  # it stays in view


def test_tables_and_charts_stand_out_from_their_background_and_the_console_stays_silent(show):
    page = show("all")
    page.click("thead button")
    for dark in (False, True):
        page.resize(1366, 657, dark=dark)
        assert page.run(FAINT) == [], dark
        assert min(page.run(SWATCHES)) >= 3, dark
    assert page.log("browser") == []


# ---- what Slack refuses ----------------------------------------------------

def section(**fields):
    return {"type": "section", **fields}


ROW = [raw("a"), raw("b")]
NAMES = [f"name {place}" for place in range(21)]
WIDE = raw("x" * 100)

ACCEPTED = [
    [section(fields=[plain("x" * 2000)] * 5, text=plain("x" * 3000))],
    [section(fields=FIELDS)], [section(text=plain("x"))] * 50,
    [actions(*(button("/a", "a", f"run:{place}") for place in range(25)))],
    [actions(button("/a", "a", "run")), actions(button("/a", "a", "run"))],
    [actions({"type": "button", "text": plain("a")}, {"type": "button", "text": plain("b")})],
    [table(*[ROW] * 101, page_size=100, row_header_column_index=1)],
    [table([raw("a")] * 20, [rich({"type": "text", "text": "b"})] * 20, page_size=1)],
    [table(*[[WIDE]] * 100)], [{"type": "table", "rows": [ROW]}],
    [table([number(0), number(-1.5, text="less")], ROW)],
    [chart("bar", NAMES[:20], **{"x" * 20: range(20), "y": range(20)})] * 2,
    [chart("line", **{name: [-1, 0.5] for name in NAMES[:6]})],
    [{**chart("area", a=[1, 2]), "title": "x" * 50}],
    [chart("bar", axes={"x_label": "x" * 50, "y_label": "x"}, a=[1, 2])],
    [pie(**{name: 0.1 for name in NAMES[:6]})],
]
REFUSED = [
    ("50 blocks", [section(text=plain("x"))] * 51),
    ("header", [{"type": "header", "text": plain("x" * 151)}]),
    ("text", [section(text=plain("x" * 3001))]),
    ("text", [section(text=plain(""))]),
    ("text or fields", [section(fields=None)]),
    ("fields", [section(text=plain("x"), fields=[])]),
    ("fields", [section(fields=[*FIELDS, plain("x")])]),
    ("2,000", [section(fields=[plain("x" * 2001)])]),
    ("2,000", [section(fields=[plain("")])]),
    ("25 elements", [actions(*(button("/a", "a", f"run:{place}") for place in range(26)))]),
    ("25 elements", [actions()]),
    ("action_id once", [actions(button("/a", "a"), button("/b", "b"))]),
    ("255", [actions(button("/a", "a", "x" * 256))]),
    ("one table", [table(ROW, ROW), table(ROW, ROW)]),
    ("one table", [table(ROW, ROW), {"type": "table", "rows": [ROW]}]),
    ("101 rows", [table(*[ROW] * 102)]),
    ("2 to", [table(ROW)]),
    ("20 cells", [table([raw("a")] * 21, [raw("a")] * 21)]),
    ("1 to 20 cells", [table([], [])]),
    ("equally many", [table(ROW, [raw("a")])]),
    ("header", [table([raw("a"), rich({"type": "text", "text": "a"})], ROW)]),
    ("caption", [{"type": "data_table", "rows": [ROW, ROW]}]),
    ("caption", [table(ROW, ROW, caption="")]),
    ("10,000", [table(*[[WIDE]] * 100, [raw("x")])]),
    ("10,000", [table(*[[WIDE]] * 100, [number(1)])]),
    ("10,000", [table(*[[WIDE]] * 100, [rich({"type": "link", "url": "x"})])]),
    ("cell", [table(ROW, [raw(""), raw("b")])]),
    ("cell", [table(ROW, [number("1"), raw("b")])]),
    ("cell", [table(ROW, [number(1, text=""), raw("b")])]),
    ("cell", [table(ROW, [mrkdwn("a"), raw("b")])]),
    ("cell", [table(ROW, [{"type": "rich_text", "elements": []}, raw("b")])]),
    ("page_size", [table(ROW, ROW, page_size=0)]),
    ("page_size", [table(ROW, ROW, page_size=101)]),
    ("page_size", [table(ROW, ROW, page_size=1.5)]),
    ("row_header_column_index", [table(ROW, ROW, row_header_column_index=2)]),
    ("row_header_column_index", [table(ROW, ROW, row_header_column_index=-1)]),
    ("two charts", [BARS] * 3),
    ("title", [{**BARS, "title": "x" * 51}]),
    ("title", [{**BARS, "title": ""}]),
    ("pie, bar, line or area", [chart("bubble", a=[1, 2])]),
    ("6 series", [chart("bar", **{name: [1, 2] for name in NAMES[:7]})]),
    ("6 series", [chart("bar")]),
    ("20 categories", [chart("bar", NAMES, a=range(21))]),
    ("20 categories", [chart("bar", [], a=[])]),
    ("20 characters", [chart("bar", ["x" * 21], a=[1])]),
    ("20 characters", [chart("bar", [""], a=[1])]),
    ("20 characters", [chart("bar", ["a", "a"], a=[1, 2])]),
    ("20 characters", [chart("bar", **{"x" * 21: [1, 2]})]),
    ("20 characters", [chart("bar", **{"": [1, 2]})]),
    ("20 characters", [{**BARS, "chart": {
        **BARS["chart"], "series": BARS["chart"]["series"][:1] * 2}}]),
    ("axis", [chart("bar", axes={"y_label": "x" * 51}, a=[1, 2])]),
    ("one point", [chart("bar", a=[1])]),
    ("one point", [chart("bar", a=["1", 2])]),
    ("one point", [{**BARS, "chart": {**BARS["chart"], "axis_config": {"categories": ["2.3"]}}}]),
    ("one point", [{**BARS, "chart": {
        **BARS["chart"], "axis_config": {"categories": ["2.3", "other"]}}}]),
    ("6 segments", [pie()]),
    ("6 segments", [pie(**{name: 1 for name in NAMES[:7]})]),
    ("20 characters", [pie(**{"x" * 21: 1})]),
    ("more than 0", [pie(a=0)]),
    ("more than 0", [pie(a="1")]),
    ("rows", [{"type": "data_table", "caption": "x"}]),
    ("malformed", [{"type": "data_visualization", "title": "a"}]),
]


@pytest.mark.parametrize("blocks", ACCEPTED)
def test_a_message_at_slack_s_limits_is_drawn(open_page, blocks):
    is_drawn = "return !contentOf(arguments[0], null).isRefused"
    assert open_page.run(is_drawn, {"blocks": blocks})
    assert fakes.objection({"blocks": blocks}) == ""


@pytest.mark.parametrize("rule, blocks", REFUSED)
def test_a_message_that_slack_refuses_is_shown_with_the_rule_and_slack_s_word(
        open_page, rule, blocks):
    code = "only_one_table_allowed" if rule == "one table" else "invalid_blocks"
    is_refused, *texts = open_page.run("""
        const {isRefused, content} = contentOf(arguments[0], null);
        return [isRefused, ...content.map((node) => node.textContent)]""", {"blocks": blocks})
    assert is_refused and texts[0] == f"Slack would refuse this message: {code}"
    assert rule in texts[1]
    assert json.loads(texts[2]) == {"blocks": blocks}
    assert fakes.objection({"blocks": blocks}) == code


def test_a_refused_message_is_shown_to_the_user_alone_and_replaces_and_deletes_nothing(page):
    answer_with(page, "/slack/commands", {"response_type": "in_channel", "text": "first"})
    run_on(page)
    say(page, "/report")
    for place, field in enumerate(["replace_original", "delete_original"], 2):
        refused = {field: True, "response_type": "in_channel", "blocks": [table(ROW)]}
        post_later(page, place, refused)
        first, *others = answers(page, place)
        assert "first" in first and "invalid_blocks" in others[-1]
        assert "2 to 101 rows" in others[-1] and "Only visible to you" in others[-1]


def test_the_fake_slack_counts_a_table_s_cells_apart_from_the_other_texts():
    texts = [section(text=plain("x" * 3000))] * 4 + [section(text=plain("x" * 1000))]
    assert fakes.objection({"blocks": [*texts, table(*[[WIDE]] * 100)]}) == ""
    more = [*texts, section(text=plain("x"))]
    assert fakes.objection({"blocks": more}) == "msg_blocks_too_long"


@pytest.mark.parametrize("refuses, blocks, status, said", [
    (False, [BARS], 200, b"ok"), (True, [section(text=plain("x"))], 200, b"ok"),
    (True, [BARS], 400, b"invalid_blocks"), (True, [table(ROW, ROW)], 400, b"invalid_blocks")])
def test_the_fake_slack_may_lack_the_data_blocks(refuses, blocks, status, said):
    with fakes.Slack() as slack:
        slack.refuses_data_blocks = refuses
        url = slack.response_url()
        data = json.dumps({"blocks": blocks}).encode()
        try:
            with urllib.request.urlopen(url, data, timeout=5) as answer:
                found = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            found = error.code, error.read()
        assert found == (status, said) and len(slack.posts[url]) == (status == 200)


# ---- what a press does to its message --------------------------------------

def press(page, name):
    """Press the button *name* of the first message, and wait for the exchange of it."""
    count = page.run("return document.querySelectorAll('.exchange').length")
    page.run("Array.from(document.querySelectorAll('.actions .push')).find("
             "(push) => push.innerText === arguments[0]).click()", name)
    page.wait("return document.querySelectorAll('.exchange').length > arguments[0]", count)


FIRST = "document.querySelector('.exchange .answers')"


def test_an_answer_with_replace_original_takes_the_place_of_the_button_s_message(show):
    page = show("fields")
    press(page, "Refresh")
    page.wait(f"return {FIRST}.innerText.includes('renewed')")
    assert page.text(".typed") == "You pressed Refresh for /show renewed"
    assert page.run(f"return {FIRST}.querySelectorAll('.message').length") == 1
    assert page.run("return document.querySelector('.content .push')") is None
    assert page.run(f"return {LAST}.querySelector('.answers .message')") is None


def test_a_message_that_is_replaced_out_of_sight_is_shown(show):
    page = show("long")
    page.resize(1200, 400)
    press(page, "Refresh")
    page.wait(f"return {FIRST}.innerText.includes('renewed')")
    top = "getBoundingClientRect().top"
    assert page.run(f"return {FIRST}.querySelector('.message').{top} >= "
                    f"document.querySelector('.log').{top}")


def test_a_button_that_is_there_again_after_it_replaced_its_message_keeps_the_focus(show):
    page = show("long")
    page.run("document.querySelector('.content .push').focus()")
    for count in (2, 3):
        page.press("Enter")
        page.wait("return document.querySelectorAll('.exchange').length === arguments[0]", count)
        page.wait(f"return {LAST}.querySelectorAll('.used').length === 1")
    assert page.run("return document.activeElement.innerText") == "Refresh"


def test_every_press_of_a_button_replaces_the_same_message(page):
    answer_with(page, "/slack/commands", {"blocks": [BUTTONS]})
    answer_with(page, "/slack/interactions", "")
    run_on(page)
    say(page, "/report")
    press(page, "Refresh")
    press(page, "Refresh")
    post_later(page, 1, {"replace_original": True, "text": "renewed"})  # for each of them
    page.wait("""return Array.from(document.querySelectorAll(".timeline"),
        (node) => node.ariaLabel.includes("1 delayed")).every(Boolean)""")
    assert page.run("return document.querySelectorAll('.answers .message').length") == 1


def test_an_answer_with_delete_original_removes_the_button_s_message(show):
    page = show("fields")
    press(page, "Remove")
    page.wait(f"return !{FIRST}.querySelector('.message')")


def test_any_other_answer_to_a_press_is_a_new_message(show):
    page = show("fields")
    press(page, "Plain")
    answers(page)
    assert page.text(".typed") == "You pressed Plain for /show table"
    assert page.run(f"return {LAST}.querySelector('.data-table') !== null")
    assert page.run(f"return {FIRST}.querySelectorAll('.push').length") == 4


def test_a_button_with_another_action_id_runs_no_command(show):
    page = show("fields")
    press(page, "Other")
    page.wait(f"return /^an empty 200/.test({LAST}.querySelector('.timeline').ariaLabel)")
    assert page.text(".typed") == "You pressed Other for other"
    time.sleep(0.3)
    assert page.run(f"return {LAST}.querySelector('.answers .message')") is None


# ---- the timeline ----------------------------------------------------------

@pytest.mark.parametrize("scale, seconds, percent", [
    ("FIRST", 0, 0), ("FIRST", 0.75, 25), ("FIRST", 3, 100), ("FIRST", 3.1, 100),
    ("LATER", 0, 0), ("LATER", 0.5, 12.5), ("LATER", 1, 25), ("LATER", 5.5, 37.5),
    ("LATER", 10, 50), ("LATER", 60, 75), ("LATER", 930, 87.5), ("LATER", 1800, 100),
    ("LATER", 3600, 100)])
def test_a_scale_has_a_place_for(open_page, scale, seconds, percent):
    found = open_page.run(f"return placeOn({scale}_SCALE, arguments[0])", seconds)
    assert found == pytest.approx(percent)


def test_the_timeline_marks_each_answer_as_it_comes(page):
    marks = f"""return Array.from({LAST}.querySelectorAll(".mark"), (mark) => mark.style.left)"""
    used = f"return {LAST}.querySelectorAll('.used').length === arguments[0]"
    answer_with(page, "/slack/commands", {"text": "first"})
    run_on(page)
    say(page, "/hello attakei")
    assert re.fullmatch(r"first answer after \d+ ms of 3 s; no delayed answers; 0 of 5 posts used",
                        timeline(page))
    post_later(page, 1, {"text": "one"})
    page.wait(used, 1)
    assert page.run(marks)[1:] == ["25%"]
    for seconds in (10, 60, 930, 1800):
        post_later(page, seconds, {"text": "more"})
    page.wait(used, 5)
    assert page.run(marks)[1:] == ["25%", "50%", "75%", "87.5%", "100%"]
    assert timeline(page).endswith(
        "; 5 delayed answers, the last after 30.0 min of 30 min; 5 of 5 posts used")


def test_the_timeline_is_one_slim_line(talk):
    cut = f"""return Array.from({LAST}.querySelectorAll('.caption'),
        (caption) => caption.scrollWidth - caption.clientWidth)"""
    say(talk, "/jira release 2.3", 2)
    for width in (1200, 360):
        talk.resize(width, 740)
        assert talk.run(f"return {LAST}.querySelector('.timeline').clientHeight") <= 40
        assert talk.run(cut) == [0, 0, 0]


SHOWN = """return Array.from(document.querySelectorAll(".timeline"), (node) =>
    node.checkVisibility({opacityProperty: true}))"""


def test_only_the_latest_timeline_is_shown_and_the_others_on_hover_or_focus(page):
    is_shown = f"return JSON.stringify((() => {{ {SHOWN} }})()) === JSON.stringify(arguments[0])"
    for line in ("/hello one", "/hello two", "/hello three"):
        say(page, line)
    page.wait(is_shown, [False, False, True])
    page.run("document.querySelector('.exchange .under button').focus()")
    page.wait(is_shown, [True, False, True])
    page.run("document.querySelector('#line').focus()")
    x, y = page.run("""
        const box = document.querySelectorAll(".exchange")[1].getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2]""")
    page.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.wait(is_shown, [False, True, True])
    page.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    page.wait(is_shown, [False, False, True])


def test_on_a_phone_an_older_timeline_takes_no_room_and_a_tap_moves_no_button(page):
    places = """return Array.from(document.querySelectorAll(".exchange .under button"), (node) => {
        const {left, top, width, height} = node.getBoundingClientRect();
        return [left + width / 2, top + height / 2]; })"""
    heights = "return Array.from(document.querySelectorAll('.under'), (node) => node.clientHeight)"
    page.resize(360, 740)
    for line in ("/hello one", "/hello two"):
        say(page, line)
    older, latest = page.run(heights)
    assert older < latest - 20
    before = page.run(places)
    (x, y), *_ = before
    mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
    page.cdp("Input.dispatchMouseEvent", type="mousePressed", **mouse)
    assert page.run("return document.activeElement.innerText") == "The request"
    assert page.run(places) == before
    page.cdp("Input.dispatchMouseEvent", type="mouseReleased", **mouse)
    page.wait("return document.querySelector('.lesson h3')")
    assert page.run(SHOWN) == [True, True]
    page.press("Enter")  # closes it; the focus is the keyboard's now
    assert page.run(SHOWN) == [True, True] and page.run(heights) == [latest, latest]
    page.run("document.querySelector('#line').focus()")
    assert page.run(SHOWN) == [False, True]


def test_a_timeline_stops_when_no_more_answers_can_come(page):
    gone = f"return {LAST}.querySelectorAll('.gone')[1].style.width"
    run_on(page)
    say(page, "/hello attakei")
    page.wait(f"return parseFloat({LAST}.querySelectorAll('.gone')[1].style.width) > 0")
    finish(page)
    page.wait(f"{gone} === '0%'")


# ---- how it works ----------------------------------------------------------

def function(name):
    """The first line of a function of slackbot.py, and all of its lines."""
    nodes = TREE.body
    for part in name.split("."):
        node = next(node for node in nodes if getattr(node, "name", None) == part)
        nodes = node.body
    return node.lineno, SOURCE.splitlines()[node.lineno - 1:node.end_lineno]


def journey():
    """The functions in the journey that the docstring of slackbot.py describes, in its order."""
    text = slackbot.__doc__.partition("The journey")[2].partition("\nContents\n")[0]
    names = re.findall(r"`([A-Za-z_][\w.]*)`", text)
    return [name for name in names if not name.rpartition(".")[2][0].isupper()]


def test_the_drawer_follows_the_journey_of_the_docstring_with_the_code_of_each_step(drawer):
    shown = drawer.run("""return Array.from(document.querySelectorAll(".steps li"), (step) => [
        step.querySelector("h3").innerText, step.querySelector("a").innerText,
        Array.from(step.querySelectorAll(".code > *"),
            (line) => [line.dataset.line, line.innerText.trimEnd()])])""")
    assert [name for name, _, _ in shown] == journey()
    for name, link, code in shown:
        first, lines = function(name)
        assert link == f"line {first}"
        assert code == [[str(first + index), line] for index, line in enumerate(lines)]


def test_a_step_s_link_opens_the_whole_file_at_its_line(drawer):
    drawer.run("document.querySelectorAll('.steps a')[1].click()")
    first, lines = function("RequestReader.next_request")
    focused = "return [document.activeElement.dataset.line, document.activeElement.innerText]"
    assert drawer.run(focused) == [str(first), lines[0] + "\n"]
    assert drawer.run("return document.querySelectorAll('.file .here').length") == len(lines)
    assert drawer.run("return document.querySelector('.file .code').textContent") == SOURCE
    top = drawer.run("return document.activeElement.getBoundingClientRect().top")
    assert 0 < top < 200
    drawer.click(".back")
    assert drawer.run("return document.activeElement.innerText") == f"line {first}"
    assert drawer.run("return document.querySelector('.file').hidden")


def test_without_its_code_the_drawer_says_so_and_shows_the_steps(talk):
    answer_with(talk, "/demo/source", "no", 500)
    open_drawer_without_code(talk)
    assert "can’t be shown: /demo/source answered 500" in talk.text(".about")
    assert set(steps(talk)) == set(journey())
    talk.press("Escape")


def test_the_drawer_tells_the_values_of_the_command_that_was_sent_last(page):
    say(page, "/hello attakei")
    say(page, "/jira release 2.3", 2)
    open_drawer(page)
    told = steps(page)
    assert "the id " in told["WebServer.serve_forever"]
    assert "response has the status 200" in told["WebServer.serve_forever"]
    assert told["RequestReader.next_request"].startswith("POST /slack/commands HTTP/1.1, and ")
    assert told["WebServer.route"] == "/slack/commands is for slash commands."
    assert re.match(r"v0=\w{12}… over the timestamp \d+ and the body: right", told["verify"])
    assert told["Bot.accept"].startswith("The line is /jira release 2.3. Later answers go to http")
    assert "Asking JIRA about release 2.3" in told["Job.run"] and "Not ready" in told["Job.run"]
    assert told["find"].startswith("It is /jira release: ")
    assert told["bind"] == "2.3 for /jira release VERSION [PROJECT…] [--csv]"
    assert re.fullmatch(r"Not needed: Slack waited \d+ ms\.", told["Bot.answer_overdue"])
    assert re.fullmatch(r"1 of 5 posts, after [\d.]+ m?s\.", told["Replies.send"])


def test_how_it_works_has_one_name_everywhere(page):
    name = "How it works"
    say(page, "/hello attakei")
    open_drawer(page, ".exchange .under > button:not([aria-expanded])")
    named = (".top button", ".drawer h2", ".exchange .under > button:not([aria-expanded])")
    assert [page.text(selector) for selector in named] == [name] * 3
    assert f"“{name}”" in page.text(".welcome")


def test_each_exchange_opens_the_drawer_on_its_own_way(page):
    say(page, "/nonsense <b>")
    answer_with(page, "/slack/commands", {"error": "no"}, 401)
    say(page, "/hello x")
    open_drawer(page, ".exchange .under > button:not([aria-expanded])")
    told = steps(page)
    assert told["Bot.accept"].startswith("The line is /nonsense <b>. ")
    assert told["find"] == "No command has this name."
    page.press("Escape")
    open_drawer(page)
    assert steps(page)["verify"].endswith("the body: refused.")
    assert steps(page)["Bot.answer_overdue"] == "It failed: the bot answered 401."


def test_the_steps_go_on_while_the_drawer_is_open(page):
    answer_with(page, "/slack/commands", {"text": "Working on `/hello`…"})
    run_on(page)
    say(page, "/hello")
    open_drawer(page)
    assert steps(page)["Bot.answer_overdue"].startswith("Needed: ")
    assert steps(page)["Replies.send"] == "No posts so far."
    post_later(page, 7, {"text": "Hello"})
    page.wait("return document.querySelector('.steps').innerText.includes('1 of 5 posts')")
    assert "→ Hello" in steps(page)["Job.run"]


def test_before_a_command_the_drawer_asks_for_one(page):
    open_drawer(page)
    assert "Send one" in page.text(".about")
    assert set(steps(page).values()) == {""}


def test_the_drawer_keeps_the_focus_and_gives_it_back(page):
    focused = "return document.activeElement.closest('.drawer') !== null"
    page.run("document.querySelector('.top button').focus()")
    page.press("Enter")
    page.wait("return document.querySelector('.drawer[open] .code')")
    assert page.run(focused)
    page.press("Tab", "Enter")  # the first step's line
    assert page.run("return document.activeElement.dataset.line") \
        == str(function(journey()[0])[0])
    page.press(*["Shift+Tab"] * 4, "Enter")  # past the code, the pages and Close: Back
    assert page.run("return document.activeElement.innerText").startswith("line ")
    page.run("document.querySelector('#line').focus()")  # what is behind is inert
    assert page.run(focused)
    page.press("Escape")
    back = "return document.activeElement === document.querySelector('.top button')"
    assert page.run(back) and not page.run("return document.querySelector('.drawer').open")
    page.press("Enter", "Shift+Tab", "Enter")  # Close
    assert page.run(back) and not page.run("return document.querySelector('.drawer').open")


# ---- mrkdwn ----------------------------------------------------------------

@pytest.mark.parametrize("text, html", [
    ("*b* _i_ ~s~ `c`", "<p><strong>b</strong> <em>i</em> <s>s</s> <code>c</code></p>"),
    ("*a _b_ c*", "<p><strong>a <em>b</em> c</strong></p>"),
    ("2*3*4 snake_case_name a~b~c", "<p>2*3*4 snake_case_name a~b~c</p>"),
    ("* no * and _ no _", "<p>* no * and _ no _</p>"),
    ("(*b*), *c*.", "<p>(<strong>b</strong>), <strong>c</strong>.</p>"),
    ("`*c* &lt;b&gt;`", "<p><code>*c* &lt;b&gt;</code></p>"),
    ("&lt;@U1|x&gt; &lt;!channel&gt;", "<p>&lt;@U1|x&gt; &lt;!channel&gt;</p>"),
    ("&amp;lt;b&amp;gt;", "<p>&amp;lt;b&amp;gt;</p>"),
    ("```\na &lt; *b*\n```\nafter", '<pre tabindex="0">a &lt; *b*</pre><p>after</p>'),
    ("&gt; one\n> two\nthree", "<blockquote>one\ntwo</blockquote><p>three</p>"),
    ("• a\n• b", "<p>• a\n• b</p>"),
    ("<@U1|ann>", '<p><span class="mention">@ann</span></p>'),
    ("<#C1|general>", '<p><span class="mention">#general</span></p>'),
    ("<!here>", '<p><span class="mention">@here</span></p>'),
    ("<!subteam^S1|@qa>", '<p><span class="mention">@qa</span></p>'),
    ("<!date^1392734382^{date}|18 February>", "<p><time>18 February</time></p>"),
    (":x:", '<p><span role="img" aria-label="x">❌</span></p>'),
    (":no_such: :constructor: 10:30:59", "<p>:no_such: :constructor: 10:30:59</p>"),
    ("<javascript:alert(1)|click> <data:text/html,x>", "<p>click data:text/html,x</p>"),
    ("<script>alert(1)</script>", "<p>scriptalert(1)/script</p>"),
])
def test_mrkdwn_becomes(open_page, text, html):
    assert drawn(open_page, text, "box.innerHTML") == html


@pytest.mark.parametrize("text, href, label", [
    ("<https://a.example/?a=1&amp;b=2|A &amp; B>", "https://a.example/?a=1&b=2", "A & B"),
    ("*<https://a.example/a*b|bold>*", "https://a.example/a*b", "bold"),
    ("see https://a.example/a_b_c.", "https://a.example/a_b_c", "https://a.example/a_b_c"),
    ("&lt;https://a.example/?a&amp;b&gt;", "https://a.example/?a&b", "https://a.example/?a&b"),
    ("<mailto:a@a.example|a@a.example>", "mailto:a@a.example", "a@a.example"),
])
def test_mrkdwn_links_to(open_page, text, href, label):
    link = "['href', 'textContent', 'target', 'rel'].map((name) => box.querySelector('a')[name])"
    assert drawn(open_page, text, link) == [href, label, "_blank", "noopener noreferrer"]


@pytest.mark.parametrize("text", [
    "*<a>", "*a ", "_a *b ~c ", "<<<<<", "```", "https://a", "&amp;", ":a", "> \n"])
def test_hostile_mrkdwn_takes_no_time(open_page, text):
    begun = time.monotonic()
    drawn(open_page, text * 3000, "null")
    assert time.monotonic() - begun < 1.5


# ---- the page itself -------------------------------------------------------

def test_nothing_is_asked_of_another_host_and_the_console_stays_silent(browser, bot):
    page = browser
    page.log("performance")
    page.log("browser")
    page.resize(1200, 800)
    page.open(f"{bot.url}/?name=Robert")
    page.wait("return document.activeElement?.id === 'line'")
    say(page, "/hello attakei")
    say(page, "/jira release 2.3", 2)
    press(page, "Share")
    page.wait("return document.querySelectorAll('.exchange').length === 3")
    answers(page, 2)
    open_drawer(page)
    events = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    urls = [event["params"]["request"]["url"] for event in events
            if event["method"] == "Network.requestWillBeSent"]
    for path in ("commands", "interactions"):
        assert f"{bot.url}/slack/{path}" in urls
    assert f"{bot.url}/demo/source" in urls
    assert [url for url in urls if not url.startswith((f"{bot.url}/", "data:"))] == []
    assert page.log("browser") == []


def test_the_greeting_is_shown_where_there_is_one(page, bot):
    assert page.text(".greeting") == ""
    page.open(f"{bot.url}/?name=Robert")
    assert page.text(".greeting") == "Hello Robert!"


def test_everything_can_be_done_with_the_keyboard_alone(page):
    chosen = "return document.querySelector('[aria-selected=true]')?.innerText"
    closed = "return document.querySelector('.menu').hidden"
    exchanges = "return document.querySelectorAll('.exchange').length === arguments[0]"
    page.press("/hello")
    assert page.run(chosen).startswith("/hello [TEXT]")
    page.press("ArrowDown")
    assert page.run(chosen).startswith("/hello-world")
    page.press("ArrowUp", "Tab")
    assert page.run(closed) and page.run("return document.activeElement.value") == "/hello "
    page.press("keys", "Enter")
    assert "I received keys" in answers(page)[0]
    page.press("/h", "Escape")
    assert page.run(closed)
    page.press("Backspace", "Backspace", "ArrowUp", "Enter")  # the line before, again
    page.wait(exchanges, 2)
    page.press("Shift+Tab", "Enter")  # the last example
    page.wait(exchanges, 3)
    answers(page)
    page.press(*["Shift+Tab"] * 6, "Enter")  # past the examples and "How it works": "The request"
    page.wait(f"return {LAST}.querySelector('.lesson h3')")
    style = "getComputedStyle(document.activeElement)"
    assert page.run(f"return {style}.outlineStyle + {style}.outlineWidth") == "solid2px"


def test_the_menu_tells_how_many_commands_are_below_and_above_what_is_in_view(page):
    out_of_view = """
        const list = document.querySelector("#choices").getBoundingClientRect();
        const places = Array.from(document.querySelectorAll("#choices li"), (item) =>
            item.getBoundingClientRect());
        return [places.filter(({bottom}) => bottom > list.bottom + 1).length,
            places.filter(({top}) => top < list.top - 1).length]"""
    page.resize(360, 740)
    page.press("/")
    below, above = page.run(out_of_view)
    assert below and not above and page.text(".more") == f"↓ {below} more"
    page.press("ArrowDown", "ArrowUp", "ArrowUp")  # the last one
    page.wait("return document.querySelector('.more').innerText.startsWith('↑')")
    below, above = page.run(out_of_view)
    assert above and not below and page.text(".more") == f"↑ {above} more"
    page.press("hel")
    assert not page.run("return document.querySelector('.more').checkVisibility()")
    page.press(*["Backspace"] * 3)
    page.resize(1366, 657)
    page.press("Backspace", "/")
    assert page.run(out_of_view) == [0, 0]
    assert not page.run("return document.querySelector('.more').checkVisibility()")


def test_the_tip_is_about_the_longest_command_that_is_typed(page):
    for typed, tip in [
            ("/jira", "/jira KEY: "), ("/jira rel", "/jira release VERSION "),
            ("/jira release", "/jira release VERSION "),
            ("/jira release 2.3", "/jira release VERSION "),
            ("/jira releases", "/jira releases [PROJECT…]: "), ("/jira SHOP-1", "/jira KEY: "),
            ("/nonsense", "Enter sends "), ("", "Enter sends ")]:
        page.run("document.querySelector('#line').select()")
        page.press(typed or "Backspace")
        assert page.run("return document.querySelector('#line').value") == typed
        assert page.text("#tip").startswith(tip), typed


def test_the_tip_follows_the_menu_and_a_line_that_is_brought_back(page):
    page.press("/jira", "ArrowDown")
    assert page.text("#tip").startswith("/jira release VERSION ")
    page.press("Escape")
    assert page.text("#tip").startswith("/jira KEY: ")
    page.press(" release 2.3", "Enter")
    assert page.text("#tip").startswith("Enter sends ")
    page.press("ArrowUp")
    assert page.text("#tip").startswith("/jira release VERSION ")


def test_examples_and_the_list_of_commands_work_with_a_click(page):
    page.click(".examples button")
    assert "Hello attakei" in answers(page)[0]
    listed = page.run("return [...document.querySelectorAll('.commands li')].map("
                      "each => each.textContent.includes('/hello-world'))")
    page.click(f".commands li:nth-child({listed.index(True) + 1}) button")
    assert page.run("return document.activeElement.value") == "/hello-world"


def test_landmarks_and_labels_are_there_and_the_log_is_live(page):
    landmarks = "main, header, nav[aria-label], form[aria-label]"
    assert page.run("return document.querySelectorAll(arguments[0]).length", landmarks) == 4
    assert page.run("return document.querySelector('[role=log]').ariaLive") == "polite"
    assert page.run("return document.querySelector('#line').ariaLabel") == "Message to #test"


def test_a_reader_who_scrolled_away_is_told_of_news_and_not_moved(page):
    scrolled = "return document.querySelector('.log').scrollTop"
    page.resize(1200, 400)
    page.press(*["just talk", "Enter"] * 6)
    run_on(page)
    say(page, "/help")
    page.run("document.querySelector('.log').scrollTop = 0")
    post_later(page, 9, {"text": "at last"})
    page.wait("return !document.querySelector('.news').hidden")
    assert page.run(scrolled) == 0
    page.click(".news")
    assert page.run(scrolled) > 0 and page.run("return document.querySelector('.news').hidden")


def test_a_phone_needs_no_horizontal_scroll_and_code_scrolls_inside_itself(page):
    hidden = """return Array.from(document.querySelectorAll(arguments[0]),
        (node) => node.scrollWidth - node.clientWidth)"""
    long = {"type": "section", "text": mrkdwn(f"```{'x y ' * 99}```\n{'long' * 99}")}
    page.resize(360, 740)
    assert page.run(hidden, "html, .log") == [0, 0]
    say(page, "/jira release 2.3")
    answer_with(page, "/slack/commands", {**REPORT, "blocks": [*REPORT["blocks"], long]})
    say(page, "/report")
    lesson(page)
    page.press("/")
    assert page.run(hidden, "html, .log") == [0, 0]
    assert page.run(hidden, ".content pre")[0] > 0
    page.press("Escape")
    open_drawer(page)
    page.run("for (const each of document.querySelectorAll('.steps details')) each.open = true")
    assert page.run(hidden, "html, .drawer, .drawer .bar, .pages") == [0, 0, 0, 0]
    page.run("document.querySelector('.steps a').click()")
    assert page.run(hidden, "html, .drawer, .drawer .bar, .pages") == [0, 0, 0, 0]
    assert page.run("return document.querySelector('.drawer').clientWidth") >= 359


CONTRAST = """
    const levels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => levels(color).slice(0, 3).map((each) => each / 255)
        .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
    const once = (work, known = new Map()) => (key) =>
        known.has(key) ? known.get(key) : known.set(key, work(key)).get(key);
    const lightOf = once(light);
    const paper = once((node) => {
        const {backgroundColor} = getComputedStyle(node);
        return levels(backgroundColor)[3] === 0 ? paper(node.parentElement) : backgroundColor; });
    const contrast = (node) => {
        const [one, other] = [getComputedStyle(node).color, paper(node)].map(lightOf);
        return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05); };
"""
FAINT = CONTRAST + """
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (walker.currentNode.data.trim() && node.checkVisibility() && contrast(node) < 4.5)
            faint.push(`${node.className || node.localName} ${contrast(node).toFixed(2)}`); }
    return [...new Set(faint)]"""
SWATCHES = CONTRAST + """
    return Array.from(document.querySelectorAll(".legend li"), (item) => {
        item.style.color = getComputedStyle(item, "::before").backgroundColor;
        const found = contrast(item);
        item.style.color = "";
        return found; })"""


def test_every_text_stands_out_from_its_background(page):
    answer_with(page, "/slack/interactions", "", 500)
    say(page, "/jira release 2.3 --public", 2)
    page.click(".content .push")
    page.wait("return document.querySelector('.answers .alarm')")
    lesson(page)
    page.press("hello <@U1> `code`", "Enter", "/h")
    open_drawer(page)
    for shown in (".steps", ".file", ".chat"):
        page.run({".steps": "", ".file": "document.querySelector('.steps a').click()",
                  ".chat": "document.querySelector('.drawer').close()"}[shown])
        for dark in (False, True):
            page.resize(1200, 800, dark=dark)
            assert page.run(FAINT) == [], (shown, dark)


def test_it_can_be_looked_at(page, tmp_path):
    folder = Path(os.environ.get("SLACKBOT_SCREENSHOTS", tmp_path))
    say(page, "/hello attakei")
    say(page, "/jira release 2.3", 2)
    papers = set()
    for name, *size, dark in [("light", 1200, 900, False), ("dark", 1200, 900, True),
                              ("phone", 360, 740, False)]:
        page.resize(*size, dark=dark)
        page.screenshot(folder / f"{name}.png")
        open_drawer(page)
        page.run("for (const each of document.getAnimations()) each.finish()")
        page.screenshot(folder / f"{name}-drawer.png")
        page.press("Escape")
        papers.add(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2


# ---- what takes five seconds, and was begun before the others ---------------

def test_hello_world_greets_after_five_seconds_while_other_commands_run(browser, second_window):
    first, second = second_window
    nodes = "Array.from(document.querySelectorAll('.exchange')).slice(0, 2)"
    browser.turn_to(second)
    try:
        browser.wait(f"return {nodes}.every((node) => node.innerText.includes('Hello World!'))",
                     seconds=8)
        assert "I received attakei" in browser.text(".exchange .message")
        texts = browser.run(f"return {nodes}.map((node) => node.innerText)")
        labels = browser.run(
            f"return {nodes}.map((node) => node.querySelector('.timeline').title)")
    finally:
        browser.turn_to(first)
    for text, label in zip(texts, labels):
        assert text.index("Waiting to greet you...") < text.index("Hello World!")
        assert re.fullmatch(r"first answer after \d+ ms of 3 s; 1 delayed answer, the last after "
                            r"5\.\d s of 30 min; 1 of 5 posts used", label.replace("\u00a0", " "))


# ---- outside demo mode -----------------------------------------------------

@pytest.mark.parametrize("secret, mode, told", [
    (fakes.SECRET, "live", "answers Slack"), (None, "setup", "SLACK_SIGNING_SECRET")])
def test_elsewhere_the_page_shows_the_commands_and_no_composer(browser, secret, mode, told):
    browser.resize(360, 740)
    with fakes.Bot(SLACK_SIGNING_SECRET=secret) as bot:
        browser.open(bot.url)
        browser.wait("return document.querySelector('.overview dl')")
        text = browser.text("body")
        assert f"{mode} · " in text and told in text and "/jira release VERSION" in text
        assert fakes.SECRET not in browser.run("return document.documentElement.outerHTML")
        demo_only = "form, input, button, dialog, .log"
        assert browser.run("return document.querySelector(arguments[0])", demo_only) is None
        assert browser.run("return document.documentElement.scrollWidth") == 360


def test_a_page_without_its_bot_says_how_to_start_it(browser, bot):
    browser.cdp("Network.enable")
    browser.cdp("Network.setBlockedURLs", urls=["*/status"])
    try:
        browser.open(bot.url)
        browser.wait("return document.querySelector('.overview')")
        assert "Start it again with python3 slackbot.py, then reload this page." \
            in browser.text(".overview")
    finally:
        browser.cdp("Network.setBlockedURLs", urls=[])
    browser.log("browser")  # has the blocked request


def test_without_javascript_the_page_tells_of_the_terminal(browser, bot):
    browser.resize(360, 740)
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(bot.url)
        text = browser.text("noscript")
        width = browser.run("return document.documentElement.scrollWidth")
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    assert "This page needs JavaScript." in text
    assert "python3 slackbot.py run /jira release 2.3" in text and width == 360
