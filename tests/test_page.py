"""The page, in a real headless Chromium: the demo's small Slack, and what it is elsewhere."""

import ast
import json
import os
import re
import time
import urllib.parse
from pathlib import Path

import browser as chromium
import fakes
import pytest
import slackbot

pytestmark = pytest.mark.skipif(bool(chromium.MISSING), reason=f"no {chromium.MISSING} here")

LAST = "Array.from(document.querySelectorAll('.exchange')).at(-1)"
SOURCE = (fakes.ROOT / "slackbot.py").read_text()


def mrkdwn(text):
    return {"type": "mrkdwn", "text": text}


def plain(text):
    return {"type": "plain_text", "text": text}


def button(line, label):
    return {"type": "button", "action_id": "run", "value": line, "text": plain(label)}


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


@pytest.fixture
def open_page(browser, bot):
    """The demo, in whatever state it is."""
    if browser.run("return location.origin") != bot.url:
        browser.open(bot.url)
    return browser


@pytest.fixture
def drawer(page):
    """The demo with its drawer open, filled with code."""
    open_drawer(page)
    return page


def open_drawer(page, selector=".top button"):
    page.click(selector)
    page.wait("return document.querySelector('.drawer[open] .code')")


def answers(page, count=1):
    """The texts of the last exchange's answers, once there are *count* of them."""
    return page.wait(f"""
        const texts = Array.from({LAST}?.querySelectorAll(".answers .message") ?? [],
            (message) => message.innerText.replaceAll("\\u00a0", " "));
        return texts.length >= arguments[0] && texts""", count)


def say(page, line, count=1):
    """Type *line*, close the completions, send it: its answers, once there are *count*."""
    page.press(line, "Escape", "Enter")
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


def post_later(page, seconds, message):
    """Let this come to every response_url, whatever the bot posts there."""
    page.run("""
        const fetched = window.fetch;
        const after = (url) => window.posted.slice(Number(url.split("=")[1]));
        if (!window.posted) window.fetch = (url, options) => url.includes("?after=")
            ? Promise.resolve(Response.json({messages: after(url)})) : fetched(url, options);
        (window.posted ??= []).push(arguments[0]);""", {"seconds": seconds, "message": message})


def lesson(page, *names):
    """The texts of these parts of what the last exchange tells of its request."""
    page.run(f"{LAST}.querySelector('summary').click()")
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

def test_hello_is_answered_for_the_user_alone(page):
    answer, = say(page, "/hello attakei")
    assert "Only visible to you" in answer
    assert "Hello attakei, I received attakei" in answer
    assert page.text(".typed") == "You typed /hello attakei"


def test_a_release_report_has_a_verdict_and_sections(page):
    page.press("/jira release 2.3", "Enter")
    page.wait(f"return /Ready|Not ready|Unknown/.test({LAST}?.innerText)")
    report = page.text(".answers")
    assert "Blockers" in report and "In progress" in report and "Done" in report
    assert page.run(f"return {LAST}.querySelector('a').target") == "_blank"


def test_a_command_that_lacks_an_argument_tells_its_usage(page):
    answer, = say(page, "/jira release")
    assert "/jira release VERSION" in answer and "Only visible to you" in answer


def test_an_unknown_command_is_told_what_there_is(page):
    answer, = say(page, "/nonsense")
    assert "/nonsense" in answer and "/hello-world" in answer


@pytest.mark.parametrize("text", [
    "<!channel> & <b>",
    "<img src=x onerror=document.title='owned'>",
    "&lt;b&gt; &amp;amp;",
    "<javascript:alert(1)|x>",
])
def test_hostile_text_comes_back_as_text_and_makes_no_element(page, text):
    answer, = say(page, f"/hello {text}")
    assert text in answer
    made = page.run(f"""
        return Array.from({LAST}.querySelectorAll(".content *"), (node) => node.localName)""")
    assert set(made) <= {"p", "code"}
    assert page.run("return document.title.startsWith('slackbot.py')")


def test_a_line_that_is_no_command_is_shown_with_a_hint(page):
    page.press("hello *you* <b>", "Enter")
    assert page.text(".exchange .content") == "hello you <b>"
    assert "slash commands only" in page.text(".exchange .under")


# ---- the request, for who wants to learn -----------------------------------

def test_the_lesson_shows_a_request_whose_signature_is_right(page):
    say(page, "/hello a & b")
    request, response, secret, base, digest, header = lesson(
        page, "request", "response", "secret", "base", "digest", "signature")
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


def test_each_command_is_sent_as_slack_sends_it(page):
    sent = []
    for _ in range(2):
        say(page, "/hello a & <b>")
        request, = lesson(page, "request")
        sent.append(dict(urllib.parse.parse_qsl(request.split("\n\n")[1])))
    one, other = sent
    names = urllib.parse.parse_qs(fakes.form("/hello x", response_url="x").decode())
    assert set(one) == set(names)
    assert (one["command"], one["text"]) == ("/hello", "a &amp; &lt;b&gt;")
    assert one["trigger_id"] != other["trigger_id"]
    assert one["response_url"] != other["response_url"]


# ---- what Slack does with an answer ----------------------------------------

def test_an_answer_to_all_shows_the_command_line_too(page):
    answer_with(page, "/slack/commands", REPORT)
    answer, = say(page, "/jira release 2.3")
    typed = page.text(".exchange > .message")
    assert "Only visible to you" not in answer + typed
    assert "attakei" in typed and "/jira release 2.3" in typed


def test_blocks_become_a_heading_fields_buttons_and_text(page):
    answer_with(page, "/slack/commands", REPORT)
    say(page, "/report")
    assert page.text(".content h3") == "Release 2.3 🚀 & <b>"
    assert page.text(".fields strong") == "Done" and "*as is*" in page.text(".fields")
    assert page.text(".context em") == "8 queries"
    assert page.text(".content > p") == "<i>fallback</i>"
    assert page.run("return document.querySelectorAll('.content .push').length") == 2


def test_a_button_sends_its_payload_and_a_404_is_told_gently(page):
    answer_with(page, "/slack/commands", REPORT)
    answer_with(page, "/slack/interactions", {"error": "no such page"}, 404)
    say(page, "/report")
    page.click(".actions .push")
    page.wait("return document.querySelectorAll('.exchange').length === 2")
    answer, = answers(page)
    assert "The button led nowhere: the bot answered 404" in answer
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
def test_text_json_and_nonsense_are_all_shown_to_the_user_alone(page, body, shown):
    answer_with(page, "/slack/commands", body)
    answer, = say(page, "/anything")
    assert shown in answer and "Only visible to you" in answer


def test_an_empty_answer_shows_nothing(page):
    answer_with(page, "/slack/commands", "")
    page.press("/quiet", "Enter")
    page.wait("return document.querySelector('.caption')?.innerText.startsWith('empty 200')")
    assert "an empty 200, which shows nothing, after" in timeline(page)
    assert page.run("return document.querySelector('.answers .message')") is None


@pytest.mark.parametrize("status, error", [
    (404, "http_client_error"), (503, "http_service_error")])
def test_an_answer_that_is_not_200_fails_as_in_slack(page, status, error):
    answer_with(page, "/slack/commands", {"error": "no"}, status)
    answer, = say(page, "/cmd text")
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


# ---- the buttons of the release report ------------------------------------

@pytest.mark.parametrize("name, line, is_public", [
    ("Refresh", "/jira release 2.3", False), ("Share", "/jira release 2.3 --public", True)])
def test_a_report_s_button_runs_its_line_and_answers_by_the_response_url(
        page, name, line, is_public):
    say(page, "/jira release 2.3", 2)
    page.run("Array.from(document.querySelectorAll('.content .push')).find("
             "(push) => push.innerText === arguments[0]).focus()", name)
    page.press("Enter")
    page.wait("return document.querySelectorAll('.exchange').length === 2")
    progress, report = answers(page, 2)
    assert page.text(".typed") == f"You pressed {name} for {line}"
    assert "Asking JIRA" in progress and "Blockers" in report
    assert ("Only visible to you" in report) != is_public
    assert re.match("an empty 200, .*; 2 delayed answers, the last after .*; 2 of 5 posts used",
                    timeline(page))
    assert page.run(f"return {LAST}.querySelectorAll('.push').length") == 2


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


def test_the_timeline_is_one_slim_line(page):
    cut = f"""return Array.from({LAST}.querySelectorAll('.caption'),
        (caption) => caption.scrollWidth - caption.clientWidth)"""
    say(page, "/jira release 2.3", 2)
    for width in (1200, 360):
        page.resize(width, 740)
        assert page.run(f"return {LAST}.querySelector('.timeline').clientHeight") <= 40
        assert page.run(cut) == [0, 0, 0]


# ---- how it works ----------------------------------------------------------

def function(name):
    """The first line of a function of slackbot.py, and all of its lines."""
    nodes = ast.parse(SOURCE).body
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


def test_the_drawer_tells_the_values_of_the_command_that_was_sent_last(page):
    say(page, "/hello attakei")
    say(page, "/jira release 2.3", 2)
    open_drawer(page)
    told = steps(page)
    assert "the id " in told["Caller.converse"] and "its answer is 200" in told["Caller.converse"]
    assert told["take_head"].startswith("POST /slack/commands HTTP/1.1, and ")
    assert told["Door.route"] == "/slack/commands is for slash commands."
    assert re.match(r"v0=\w{12}… over the timestamp \d+ and the body: right", told["verify"])
    assert told["Bot.accept"].startswith("The line is /jira release 2.3; later answers go to http")
    assert "Asking JIRA about release 2.3" in told["Job.run"] and "Not ready" in told["Job.run"]
    assert told["find"].startswith("It is /jira release: ")
    assert told["bind"] == "2.3 for /jira release VERSION [PROJECT…] [--csv]"
    assert re.fullmatch(r"Not needed: Slack had to wait \d+ ms\.", told["Bot.watch"])
    assert re.fullmatch(r"1 of 5 posts, after [\d.]+ m?s\.", told["ResponseURL.send"])


def test_each_exchange_opens_the_drawer_on_its_own_way(page):
    say(page, "/nonsense <b>")
    answer_with(page, "/slack/commands", {"error": "no"}, 401)
    say(page, "/hello x")
    open_drawer(page, ".exchange .under > button")
    told = steps(page)
    assert told["Bot.accept"].startswith("The line is /nonsense <b>; ")
    assert told["find"] == "No command has such a name."
    page.press("Escape")
    open_drawer(page)
    assert steps(page)["verify"].endswith("the body: refused.")
    assert steps(page)["Bot.watch"] == "In vain: the bot answered 401."


def test_the_steps_go_on_while_the_drawer_is_open(page):
    answer_with(page, "/slack/commands", {"text": "Working on `/hello`…"})
    say(page, "/hello")
    open_drawer(page)
    assert steps(page)["Bot.watch"].startswith("Needed: ")
    assert steps(page)["ResponseURL.send"] == "Nothing was posted so far."
    post_later(page, 7, {"text": "Hello"})
    page.wait("return document.querySelector('.steps').innerText.includes('1 of 5 posts')")
    assert "→ Hello" in steps(page)["Job.run"]


def test_before_a_command_the_drawer_asks_for_one(drawer):
    assert "Send one" in drawer.text(".about")
    assert set(steps(drawer).values()) == {""}


def test_a_step_s_link_opens_the_whole_file_at_its_line(drawer):
    drawer.run("document.querySelectorAll('.steps a')[1].click()")
    first, lines = function("take_head")
    focused = "return [document.activeElement.dataset.line, document.activeElement.innerText]"
    assert drawer.run(focused) == [str(first), lines[0] + "\n"]
    assert drawer.run("return document.querySelectorAll('.file .here').length") == len(lines)
    assert drawer.run("return document.querySelector('.file .code').textContent") == SOURCE
    top = drawer.run("return document.activeElement.getBoundingClientRect().top")
    assert 0 < top < 200
    drawer.click(".back")
    assert drawer.run("return document.activeElement.innerText") == f"line {first}"
    assert drawer.run("return document.querySelector('.file').hidden")


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


def test_without_its_code_the_drawer_says_so_and_shows_the_steps(page):
    answer_with(page, "/demo/source", "no", 500)
    page.click(".top button")
    page.wait("return document.querySelector('.about .alarm')")
    assert "can’t be shown: /demo/source answered 500" in page.text(".about")
    assert set(steps(page)) == set(journey())


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

def test_nothing_is_asked_of_another_host_and_the_console_stays_silent(page, bot):
    page.log("performance")
    page.log("browser")
    page.open(f"{bot.url}/?name=Robert")
    page.wait("return document.activeElement?.id === 'line'")
    say(page, "/hello attakei")
    say(page, "/jira release 2.3", 2)
    page.click(".content .push")
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
    closed = "return document.querySelector('#choices').hidden"
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
    page.press(*["Shift+Tab"] * 5, "Enter")  # past the examples: "The request"
    page.wait(f"return {LAST}.querySelector('details').open")
    style = "getComputedStyle(document.activeElement)"
    assert page.run(f"return {style}.outlineStyle + {style}.outlineWidth") == "solid2px"


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


FAINT = """
    const levels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => levels(color).slice(0, 3).map((each) => each / 255)
        .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
    const paper = (node) => {
        const {backgroundColor} = getComputedStyle(node);
        return levels(backgroundColor)[3] === 0 ? paper(node.parentElement) : backgroundColor; };
    const contrast = (node) => {
        const [one, other] = [getComputedStyle(node).color, paper(node)].map(light);
        return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05); };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (walker.currentNode.data.trim() && node.checkVisibility() && contrast(node) < 4.5)
            faint.push(`${node.className || node.localName} ${contrast(node).toFixed(2)}`); }
    return [...new Set(faint)]"""


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
