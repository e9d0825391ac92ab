"""The page, in a real headless Chromium: the demo's small Slack, and what it is elsewhere."""

import json
import os
import time
import urllib.parse
from pathlib import Path

import browser as chromium
import fakes
import pytest

pytestmark = pytest.mark.skipif(bool(chromium.MISSING), reason=f"no {chromium.MISSING} here")

LAST = "Array.from(document.querySelectorAll('.exchange')).at(-1)"


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


@pytest.fixture
def page(browser, bot):
    """The demo, just opened."""
    browser.resize(1200, 800)
    browser.open(bot.url)
    browser.wait("return document.activeElement?.id === 'line'")
    return browser


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


def test_hello_world_greets_after_five_seconds_while_other_commands_run(page):
    first, = say(page, "/hello-world")
    assert "Waiting to greet you..." in first
    say(page, "/hello-world")
    say(page, "/hello attakei")
    texts = "Array.from(document.querySelectorAll('.exchange'), (node) => node.innerText)"
    greeted = f"{texts}.filter((text) => text.includes('Hello World!'))"
    page.wait(f"return {greeted}.length === 2", seconds=8)
    for text in page.run(f"return {texts}.slice(0, 2)"):
        text = text.replace("\u00a0", " ")
        assert "Hello World!" in text and "first answer in " in text
        assert "later answer after 5." in text


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
    assert page.run("return document.querySelectorAll('.push').length") == 2


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
    page.wait("return document.querySelector('.facts')?.innerText.includes('an empty 200')")
    assert page.run("return document.querySelector('.answers .message')") is None


@pytest.mark.parametrize("status, error", [
    (404, "http_client_error"), (503, "http_service_error")])
def test_an_answer_that_is_not_200_fails_as_in_slack(page, status, error):
    answer_with(page, "/slack/commands", {"error": "no"}, status)
    answer, = say(page, "/cmd text")
    assert f'/cmd failed with the error "{error}"' in answer


def test_no_answer_within_three_seconds_is_a_timeout(page):
    page.run("""
        const fetched = window.fetch;
        const hang = ({signal}) => new Promise((_, reject) =>
            signal.addEventListener("abort", () => reject(signal.reason)));
        window.fetch = (url, options) =>
            url === "/slack/commands" ? hang(options) : fetched(url, options);""")
    begun = time.monotonic()
    answer, = say(page, "/slow")
    assert '/slow failed with the error "operation_timeout"' in answer
    assert 2.9 < time.monotonic() - begun < 4


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
def test_mrkdwn_becomes(page, text, html):
    assert drawn(page, text, "box.innerHTML") == html


@pytest.mark.parametrize("text, href, label", [
    ("<https://a.example/?a=1&amp;b=2|A &amp; B>", "https://a.example/?a=1&b=2", "A & B"),
    ("*<https://a.example/a*b|bold>*", "https://a.example/a*b", "bold"),
    ("see https://a.example/a_b_c.", "https://a.example/a_b_c", "https://a.example/a_b_c"),
    ("&lt;https://a.example/?a&amp;b&gt;", "https://a.example/?a&b", "https://a.example/?a&b"),
    ("<mailto:a@a.example|a@a.example>", "mailto:a@a.example", "a@a.example"),
])
def test_mrkdwn_links_to(page, text, href, label):
    link = "['href', 'textContent', 'target', 'rel'].map((name) => box.querySelector('a')[name])"
    assert drawn(page, text, link) == [href, label, "_blank", "noopener noreferrer"]


@pytest.mark.parametrize("text", [
    "*<a>", "*a ", "_a *b ~c ", "<<<<<", "```", "https://a", "&amp;", ":a", "> \n"])
def test_hostile_mrkdwn_takes_no_time(page, text):
    begun = time.monotonic()
    drawn(page, text * 3000, "null")
    assert time.monotonic() - begun < 1.5


# ---- the page itself -------------------------------------------------------

def test_nothing_is_asked_of_another_host_and_the_console_stays_silent(page, bot):
    page.log("performance")
    page.log("browser")
    page.open(f"{bot.url}/?name=Robert")
    page.wait("return document.activeElement?.id === 'line'")
    say(page, "/hello attakei")
    say(page, "/jira release 2.3")
    events = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    urls = [event["params"]["request"]["url"] for event in events
            if event["method"] == "Network.requestWillBeSent"]
    assert f"{bot.url}/slack/commands" in urls
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


def test_it_can_be_looked_at(page, tmp_path):
    folder = Path(os.environ.get("SLACKBOT_SCREENSHOTS", tmp_path))
    say(page, "/hello attakei")
    say(page, "/jira release 2.3")
    page.wait(f"return {LAST}.innerText.includes('Blockers')")
    papers = set()
    for name, *size, dark in [("light", 1200, 900, False), ("dark", 1200, 900, True),
                              ("phone", 360, 740, False)]:
        page.resize(*size, dark=dark)
        page.screenshot(folder / f"{name}.png")
        papers.add(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2


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
        assert browser.run("return document.querySelector('form, input, .log')") is None
        assert browser.run("return document.documentElement.scrollWidth") == 360
