"""The bot: the first answer in time, the later ones after it, and nobody without a last one."""

import concurrent.futures
import contextlib
import json
import os
import re
import sys
import threading
import time
import tracemalloc

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import finish, mention, tell, until
from fakes import PATIENCE, SOON_OVER
from hostile import Reply, connect, whole

OWN = '''
import pathlib
import time
import slackbot
from slackbot import command


def wait(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)


def outcome(what):
    """Answer with what a handler shouldn't, or should."""
    if what == "user":
        raise slackbot.UserError("You &amp; _only_ you")
    if what == "bug":
        raise RuntimeError("a bug of 5ecret kind")
    if what == "stop":
        raise StopIteration("5ecret")
    if what == "exit":
        raise SystemExit("5ecret")
    if what == "silent":
        raise slackbot.UserError()
    return {"empty": "", "blank": " \\n\\t ", "none": None, "braces": {}, "no-text": {"text": ""},
            "null": {"text": None}, "no-blocks": {"blocks": []},
            "text": "text", "dict": {"text": "d", "response_type": "in_channel"},
            "delete": {"delete_original": True},
            "divider": {"text": "", "blocks": [{"type": "divider"}]},
            "int": 5, "zero": 0, "list": ["text"], "bytes": b"text", "set": {"text": {1, 2}},
            "false": False, "no-list": [],
            "nan": {"text": "a", "number": float("nan")}, "object": object()}[what]


@command("/now")
def now(request, what, pause: float = 0):
    time.sleep(pause)
    return outcome(what)


@command("/late")
def late(request, gate, what, *more):
    wait(gate)
    return outcome(what)


@command("/then")
def then(request, what):
    yield "first"
    yield outcome(what)


@command("/yield")
def yield_(request, gate, *whats):
    wait(gate)
    for what in whats:
        yield outcome(what)


@command("/first")
def first(request, gate, what):
    yield "first"
    wait(gate)
    yield outcome(what)


@command("/echo")
def echo(request, word, pause: float):
    time.sleep(pause)
    return word


@command("/enter")
def enter(request, path, gate):
    with open(path, "a") as entered:
        print("entered", file=entered)
    wait(gate)


@command("/count")
def count(request, times: int):
    for number in range(times):
        yield f"{number}"


slackbot.main()
'''
ACK = 2.5  # seconds, the most there may be: on a busy machine, a quick handler takes a while


@pytest.fixture(scope="module")
def slack():
    with fakes.Slack() as slack:
        yield slack


@pytest.fixture(scope="module")
def start(script, slack):
    """A function that starts a bot with the script's commands."""
    def start(**environ):
        return fakes.Bot(script=script, constants=SOON_OVER, **{
            "SLACK_HOOKS_ORIGINS": slack.origin, "SLACKBOT_ACK_SECONDS": ACK, **environ})
    return start


@pytest.fixture(scope="module")
def bot(start):
    with start() as bot:
        yield bot


@pytest.fixture(scope="module")
def hasty(start):
    """A bot that acknowledges every command that isn't inline."""
    with start(SLACKBOT_ACK_SECONDS=0) as bot:
        yield bot


@pytest.fixture
def pool(gate):
    """Threads for clients that wait; the gate opens at the end, so that none waits for ever."""
    pool = concurrent.futures.ThreadPoolExecutor()
    yield pool
    gate.touch()
    pool.shutdown()


def texts(answers):
    return [answer.get("text") for answer in answers]


def counts(bot):
    return bot.get("/healthz").json


def ask(bot, slack, line):
    """All that *bot* answers to *line*."""
    url = slack.response_url()
    first = bot.command(line, response_url=url)
    assert first.status == 200
    finish(bot)
    return [first.json for _ in first.body[:1]] + [each.message for each in slack.posts[url]]


# ---- the first answer

@pytest.mark.parametrize("line", ["/now text", "/now text 0.05"])
def test_a_value_that_comes_in_time_is_the_first_answer(bot, slack, line):
    assert ask(bot, slack, line) == [{"response_type": "ephemeral", "text": "text"}]


def test_a_late_value_is_posted_after_an_acknowledgement(start, slack, gate):
    with start(SLACKBOT_ACK_SECONDS=0.1) as bot:
        url = slack.response_url()
        started = time.monotonic()
        first = bot.command(f"/late {gate} text &lt;b&gt; it's", response_url=url).json
        assert time.monotonic() - started >= 0.1
        assert first == {"response_type": "ephemeral",
                         "text": f"Working on `/late {gate} text &lt;b&gt; it's`…"}
        assert slack.posts[url] == []
        gate.touch()
        assert texts(slack.wait(url)) == ["text"]
        finish(bot)
        assert len(slack.posts[url]) == 1


def test_a_long_line_is_not_repeated_in_full(hasty, slack, gate):
    first = hasty.command(f"/late {gate} text {'long ' * 500}")
    assert "Working on" in first.json["text"] and len(first.json["text"]) < 300


def test_commands_that_hang_delay_no_other(start, slack, gate, pool):
    with start() as bot:
        hanging = [pool.submit(ask, bot, slack, f"/late {gate} text") for _ in range(3)]
        until(lambda: counts(bot)["running"] == 3)
        for _ in range(5):
            assert bot.command("/now text").json["text"] == "text"
        until(lambda: counts(bot)["running"] == 3)
        gate.touch()
        assert [texts(each.result())[-1] for each in hanging] == ["text"] * 3


# ---- the later answers

@pytest.mark.parametrize("count, expected", [
    (1, [0]), (2, [0, 1]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 8])])
def test_values_that_are_yielded_arrive_in_their_order(bot, slack, count, expected):
    assert texts(ask(bot, slack, f"/count {count}")) == list(map(str, expected))


@pytest.mark.parametrize("whats, expected", [
    ("none", []), ("", []), ("none none", []), ("none text", ["text"]), ("text none", ["text"]),
    ("none text none text", ["text", "text"])])
def test_none_is_not_posted_but_done_is_after_an_acknowledgement_alone(bot, hasty, slack, gate,
                                                                       whats, expected):
    url = slack.response_url()
    assert "Working on" in hasty.command(f"/yield {gate} {whats}", response_url=url).json["text"]
    gate.touch()
    finish(hasty)
    assert texts(each.message for each in slack.posts[url]) == (expected or ["Done."])
    assert texts(ask(bot, slack, f"/yield {gate} {whats}")) == expected


@pytest.mark.parametrize("line", ["/now none", "/count 0"])
def test_nothing_to_say_is_an_empty_200(bot, line):
    got = bot.command(line)
    assert (got.status, got.body) == (200, b"")


EMPTY = ["none", "empty", "blank", "braces", "no-text", "null", "no-blocks", "silent"]


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_answer_is_an_empty_200(bot, slack, what):
    url = slack.response_url()
    for line in (f"/now {what}", f"/now {what} --public"):
        got = bot.command(line, response_url=url)
        assert (got.status, got.body) == (200, b"")
    finish(bot)
    assert slack.posts[url] == []


@pytest.mark.parametrize("what", EMPTY)
@pytest.mark.parametrize("line", ["/late", "/yield"])
def test_an_empty_answer_after_an_acknowledgement_is_done(hasty, slack, gate, line, what):
    url = slack.response_url()
    attempts = slack.attempts
    assert "Working on" in hasty.command(f"{line} {gate} {what}", response_url=url).json["text"]
    gate.touch()
    finish(hasty)
    assert texts(each.message for each in slack.posts[url]) == ["Done."]
    assert slack.attempts == attempts + 1, "Slack has refused a message"


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_answer_after_another_is_not_posted(bot, slack, gate, what):
    attempts = slack.attempts
    assert texts(ask(bot, slack, f"/then {what}")) == ["first"]
    gate.touch()
    if what != "silent":
        assert texts(ask(bot, slack, f"/yield {gate} {what} text {what} text {what}")) == [
            "text", "text"]
    assert slack.attempts == attempts + 2 * (what != "silent")


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_answer_to_a_button_is_not_posted(bot, slack, what):
    url = slack.response_url()
    attempts = slack.attempts
    data = api_fakes.payload(api_fakes.action(f"/now {what}", url))
    assert api_fakes.send(bot, "/slack/interactions", data).status == 200
    finish(bot)
    assert slack.posts[url] == [] and slack.attempts == attempts


@pytest.mark.parametrize("what, message", [
    ("delete", {"delete_original": True}),
    ("divider", {"text": "", "blocks": [{"type": "divider"}]})])
def test_a_dict_without_a_text_is_an_answer_if_it_has_anything_else(bot, slack, what, message):
    message = {"response_type": "ephemeral", **message}
    assert ask(bot, slack, f"/now {what}") == [message]
    assert ask(bot, slack, f"/then {what}")[1:] == [message]


def test_public_applies_to_every_answer_but_a_dict_with_a_type_of_its_own(bot, hasty, slack, gate):
    url = slack.response_url()
    first = hasty.command(f"/late {gate} text --public", response_url=url).json
    assert first["response_type"] == "in_channel" and "Working on" in first["text"]
    gate.touch()
    assert slack.wait(url)[0]["response_type"] == "in_channel"
    kinds = [each["response_type"] for each in ask(bot, slack, f"/yield {gate} text dict text")]
    assert kinds == ["ephemeral", "in_channel", "ephemeral"]
    kinds = [each["response_type"] for each in ask(bot, slack, "/count 3 --public")]
    assert kinds == ["in_channel"] * 3


@pytest.mark.parametrize("line, first", [("/count 3", "0"), ("/then bug", "first"),
                                         ("/then none", "first")])
def test_without_a_response_url_only_the_first_answer_is_given(bot, line, first):
    assert bot.command(line).json["text"] == first
    finish(bot)


# ---- failures

BUGS = ["bug", "int", "zero", "false", "list", "no-list", "bytes", "object", "set", "nan", "stop"]


def is_apology(bot, message, line):
    """Whether *message* says sorry for *line*, and the log has the reason under its reference."""
    assert message["response_type"] == "ephemeral" and "5ecret" not in message["text"]
    words = re.findall("`([^`]+)`", message["text"])
    assert words[0] == line and re.fullmatch("[0-9a-f]{6,}", words[1])
    until(lambda: re.search(rf"\b{words[1]}\b.*\nTraceback", bot.output))
    return len(words) == 2


@pytest.mark.parametrize("what", BUGS)
@pytest.mark.parametrize("more", ["", " --public"])
def test_a_bug_before_the_first_answer_is_an_apology(bot, slack, what, more):
    answers = ask(bot, slack, f"/now {what}{more}")
    assert len(answers) == 1 and is_apology(bot, answers[0], f"/now {what}{more}")


@pytest.mark.parametrize("what", BUGS)
@pytest.mark.parametrize("more", ["", " --public"])
def test_a_bug_after_the_first_answer_is_a_later_apology(bot, slack, what, more):
    first, *others = ask(bot, slack, f"/then {what}{more}")
    assert first["text"] == "first" and first["response_type"] in ("ephemeral", "in_channel")
    assert len(others) == 1 and is_apology(bot, others[0], f"/then {what}{more}")


@pytest.mark.parametrize("what", ["bug", "set"])
def test_a_bug_after_an_acknowledgement_is_a_later_apology(hasty, slack, gate, what):
    url = slack.response_url()
    line = f"/late {gate} {what}"
    assert "Working on" in hasty.command(line, response_url=url).json["text"]
    gate.touch()
    finish(hasty)
    posts = [each.message for each in slack.posts[url]]
    assert len(posts) == 1 and is_apology(hasty, posts[0], line)


def test_every_apology_has_a_reference_of_its_own(bot):
    said = [bot.command("/now bug").json["text"] for _ in range(5)]
    assert len(set(said)) == 5


def test_an_apology_takes_the_place_of_the_last_answer(bot, slack, gate):
    gate.touch()
    answers = ask(bot, slack, f"/yield {gate} {'text ' * 20}bug")
    assert texts(answers)[:5] == ["text"] * 5 and len(answers) == 6
    assert is_apology(bot, answers[-1], slackbot.one_line(f"/yield {gate} {'text ' * 20}bug"))


@pytest.mark.parametrize("line, before", [("/now user", []), ("/now user --public", []),
                                          ("/then user", ["first"])])
def test_a_user_error_is_shown_as_it_is(bot, slack, line, before):
    *others, last = ask(bot, slack, line)
    assert last == {"response_type": "ephemeral", "text": "You &amp; _only_ you"}
    assert texts(others) == before and "only_ you" not in bot.output


@pytest.mark.parametrize("line", ["/now exit", "/then exit"])
def test_a_handler_that_calls_exit_ends_in_an_apology_and_the_bot_goes_on(start, slack, line):
    with start() as bot:
        answers = ask(bot, slack, line)
        assert is_apology(bot, answers[-1], line)
        assert counts(bot)["running"] == 0 and bot.command("/now text").json["text"] == "text"


# ---- busy

@pytest.mark.parametrize("queue", [0, 1, 3])
def test_with_all_workers_busy_a_command_is_acknowledged_or_refused_at_once(start, slack, gate,
                                                                            pool, queue):
    with start(SLACKBOT_WORKERS=1, SLACKBOT_QUEUE=queue) as bot:
        running = pool.submit(ask, bot, slack, f"/late {gate} text")
        until(lambda: counts(bot)["running"] == 1)
        urls = [slack.response_url() for _ in range(queue + 2)]
        said = [bot.command("/now text --public", response_url=url).json for url in urls]
        for answer in said[:queue]:
            assert "Working on `/now text --public`" in answer["text"]
        for answer in said[queue:]:
            assert "again" in answer["text"] and answer["response_type"] == "ephemeral"
        assert (counts(bot)["running"], counts(bot)["waiting"]) == (1, queue)
        gate.touch()
        assert texts(running.result())[-1] == "text"
        finish(bot)
        assert [len(slack.posts[url]) for url in urls] == [1] * queue + [0, 0]
        assert bot.command("/now text").json["text"] == "text"


def test_a_new_connection_is_answered_though_commands_wait_on_all_others(start, gate):
    with start(SLACKBOT_CONNECTIONS=4) as bot, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(bot)) for _ in range(4)]
        for peer in waiting:
            peer.sendall(posted(f"/late {gate} text"))
        for _ in range(3):
            assert bot.command("/now text").json["text"] == "text"
        gate.touch()
        for peer in waiting:
            assert re.match("Working on|text", next(answers(peer)))


def test_healthz_counts_commands(start, slack, gate, pool):
    with start() as bot:
        names = "running", "waiting", "done", "failed"
        assert [counts(bot)[name] for name in names] == [0, 0, 0, 0]
        for line in ("/now text", "/count 3", "/now none"):
            ask(bot, slack, line)
        assert [counts(bot)[name] for name in names] == [0, 0, 3, 0]
        pool.submit(ask, bot, slack, f"/late {gate} bug")
        until(lambda: counts(bot)["running"] == 1)
        gate.touch()
        finish(bot)
        ask(bot, slack, "/then int")
        assert [counts(bot)[name] for name in names] == [0, 0, 5, 2]


# ---- many at once, from outside

def posted(line, **fields):
    """The bytes of *line* as Slack sends it."""
    body = fakes.form(line, **fields)
    headers = {"Host": "bot.example", "Content-Type": "application/x-www-form-urlencoded",
               "Content-Length": len(body), **fakes.sign(body)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"POST /slack/commands HTTP/1.1\r\n" + lines.encode() + b"\r\n" + body


def answers(peer):
    """The texts of the answers that come over a connection, one after the other."""
    data = b""
    while True:
        while not whole(data):
            more = peer.recv(65536)
            assert more, f"closed after {data!r}"
            data += more
        reply = Reply(data)
        data = reply.rest
        yield reply.json["text"]


def test_fifty_slow_commands_delay_no_inline_one(hasty, gate):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(hasty)) for _ in range(50)]
        for peer in peers:
            peer.sendall(posted(f"/late {gate} text"))
        for number in range(10):
            assert f"`{number}`" in hasty.command(f"/hello {number}").json["text"]
        for peer in peers:
            assert "Working on" in next(answers(peer))
        until(lambda: counts(hasty)["running"] == 50)
        assert "`more`" in hasty.command("/hello more").json["text"]
        gate.touch()
        finish(hasty)


def test_a_first_value_is_sent_at_once_though_its_handler_goes_on(start, gate):
    with start() as bot:
        for _ in range(3):
            assert bot.command(f"/first {gate} text").json["text"] == "first"


def test_inline_and_slow_commands_in_turn_get_one_answer_each(start):
    def talk(name):
        for turn in range(8):
            with connect(bot) as peer:
                said = answers(peer)
                for number in range(4):
                    peer.sendall(posted(f"/hello {name}-{turn}-{number}"))
                    assert f"`{name}-{turn}-{number}`" in next(said)
                peer.sendall(posted(f"/echo {name}-{turn} {0.01 * (turn % 2)}"))
                assert next(said) == f"{name}-{turn}"
                assert peer.recv(1) == b""

    with start() as bot, concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(talk, range(16))) == [None] * 16
        finish(bot)
        names = "running", "waiting", "done", "failed"
        assert [counts(bot)[name] for name in names] == [0, 0, 16 * 8 * 5, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_as_many_commands_run_at_once_as_there_are_workers(start, gate, tmp_path, workers):
    def entered():
        return len(marks.read_text().splitlines())

    marks = tmp_path / "marks"
    marks.touch()
    with start(SLACKBOT_WORKERS=workers, SLACKBOT_ACK_SECONDS=0) as bot:
        for _ in range(3):
            assert bot.command(f"/enter {marks} {gate}").status == 200
        until(lambda: entered() == workers)
        time.sleep(0.1)  # in which another would have begun
        assert entered() == workers
        gate.touch()
        until(lambda: entered() == 3)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="there is nothing to count in")
def test_there_are_hardly_more_threads_than_workers(start):
    with start(SLACKBOT_WORKERS=10, SLACKBOT_ACK_SECONDS=0) as bot:
        for _ in range(20):
            assert "Working on" in bot.command("/echo x 600").json["text"]
            assert "Hello" in bot.command("/hello").json["text"]
        # Besides workers: main, server, log, a poster, one of webhooks.
        assert len(os.listdir(f"/proc/{bot.process.pid}/task")) <= 10 + 5


LIMITED = """
import threading
start = threading.Thread.start


def start_one_of_few(thread):
    if threading.active_count() >= 10:
        raise RuntimeError("can't start new thread")
    start(thread)


threading.Thread.start = start_one_of_few
"""


@pytest.fixture
def limited_script(tmp_path):
    """The path of a script that starts as many threads as a poor host allows."""
    script = tmp_path / "limited.py"
    script.write_text(LIMITED + OWN)
    return script


def test_a_bot_that_gets_no_more_threads_goes_on_answering(limited_script, gate):
    with (fakes.Bot(script=limited_script, SLACKBOT_ACK_SECONDS=0) as bot,
          concurrent.futures.ThreadPoolExecutor(12) as pool):
        sent = [pool.submit(bot.command, f"/late {gate} text {number}") for number in range(12)]
        assert all("Working on" in each.result().json["text"] for each in sent)
        assert bot.get("/healthz").json["status"] == "ok"
        gate.touch()
        until(lambda: counts(bot)["done"] == 12)


def test_a_mention_is_answered_when_a_thread_is_free_again(limited_script, gate, pool):
    with api_fakes.Api() as api, fakes.Bot(
            script=limited_script, SLACKBOT_ACK_SECONDS=0.1, SLACK_BOT_TOKEN=api_fakes.TOKEN,
            SLACK_API_URL=api.url) as bot:
        lines = [f"/late {gate} text {number}" for number in range(10)]  # that take all threads
        assert all("Working on" in said.json["text"] for said in pool.map(bot.command, lines))
        assert tell(bot, mention("<@U0BOT> now text", "CLIMITED")).status == 200
        assert "Working on" in bot.command(f"/late {gate} text").json["text"]
        gate.touch()
        until(lambda: "text" in texts(call.given for call in api.of("chat.postMessage")))


def test_a_journal_and_no_more_threads_do_not_end_the_server(limited_script, gate, tmp_path, pool):
    with fakes.Bot(script=limited_script, SLACKBOT_ACK_SECONDS=0.1,
                   SLACKBOT_JOURNAL=tmp_path / "journal") as bot:
        lines = [f"/late {gate} text {number}" for number in range(10)]  # that take all threads
        sent = [pool.submit(bot.command, line) for line in lines]
        until(lambda: counts(bot)["running"] == 10)
        assert all("Working on" in each.result().json["text"] for each in sent)


def test_webhook_posts_that_fail_do_not_keep_users_from_being_told_at_a_stop(start, slack):
    with (fakes.Slack(lambda seen: ("status", 500)) as broken,
          start(SLACKBOT_GRACE_SECONDS=0.1, SLACKBOT_ACK_SECONDS=0, SLACKBOT_WEBHOOK_TOKEN="token",
                SLACK_WEBHOOK_URL=broken.response_url()) as bot):
        for _ in range(30):
            sent = bot.request("POST", "/post", b'{"a": 1}', {
                "Content-Type": "application/json", "Authorization": "Bearer token"})
            assert sent.status == 200
        url = slack.response_url()
        assert "Working on" in bot.command("/echo x 600", response_url=url).json["text"]
        bot.process.terminate()
        assert bot.process.wait(PATIENCE) == 0
        assert len(slack.posts[url]) == 1


def test_commands_that_never_end_stop_neither_the_server_nor_its_exit(start, slack, gate):
    with start(SLACKBOT_GRACE_SECONDS=0.1, SLACKBOT_ACK_SECONDS=0.05) as bot:
        lines = "/echo x 600", f"/first {gate} text", "/echo y 600", f"/late {gate} text"
        urls = {line: slack.response_url() for line in lines}
        for line, url in urls.items():
            assert bot.command(line, response_url=url).status == 200
            assert "quick" in bot.command("/hello quick").json["text"]
        bot.process.terminate()
        assert bot.process.wait(PATIENCE) == 0
        assert [len(slack.posts[url]) for url in urls.values()] == [1] * 4


# ---- the bot alone: time and threads do what the test says

class User:
    """Somebody who types a command: what they are told, and in which way."""

    def __init__(self, url):
        self.url = url
        self.body = None  # what `accept` returned
        self.told = []  # ("first" or "post", text)
        self.handed_over = 0
        self.on_first = lambda: None

    def hand_over(self):
        self.handed_over += 1
        return self.send_first

    def send_first(self, body, seconds):
        self.on_first()
        self.told.append(("first", text_of(body)))

    def post(self, body):
        self.told.append(("post", text_of(body)))
        return 200, {}, b"ok"


def text_of(body):
    """The text of a message in bytes; None for none."""
    return json.loads(body)["text"] if body else None


WORKING = ("first", "Working on `/work`…")


@pytest.fixture
def make(monkeypatch):
    """A function that makes a bot whose time and threads do what the test says. It has two
    commands, inline `/quick` and `/work`, which calls the functions in *bot.steps*."""
    def work(request):
        for step in request.bot.steps:
            yield step()

    users = {}
    monkeypatch.setattr(slackbot, "commands", {})
    monkeypatch.setattr(slackbot, "response_url_post", lambda url: users[url].post)
    monkeypatch.setattr(slackbot, "END_SECONDS", 0)  # which Replies waits by the real clock
    slackbot.command("/quick", inline=True)(lambda request: "quick")
    slackbot.command("/work")(work)

    def make(journal=None, **environ):
        def make_pool(size, name):
            pools.append(fakes.Pool(size, name))
            return pools[-1]

        pools = []
        config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET, **environ})
        clock = fakes.Clock()
        bot = slackbot.Bot(config, None, journal=journal, clock=clock, sleep=clock.sleep,
                           make_pool=make_pool)
        bot.users = users
        bot.pools = pools
        bot.steps = [lambda: "done"]
        return bot
    return make


def add_user(bot):
    user = User(f"https://hooks.slack.com/commands/{len(bot.users)}")
    bot.users[user.url] = user
    return user


def run_posters(bot):
    """Do the work of all pools but that of the workers."""
    for pool in bot.pools:
        if pool is not bot.workers:
            pool.run()


def say(bot, line, user=None):
    """Have a user type a command, by HTTP."""
    user = user or add_user(bot)
    request = slackbot.Request(command=line, response_url=user.url)
    user.body = bot.accept(request, user.hand_over)
    return user


def press(bot, line):
    """Have a user press a button with a command."""
    user = add_user(bot)
    user.body = bot.accept(slackbot.Request(command=line, response_url=user.url))
    return user


@pytest.mark.parametrize("line, text", [
    ("/quick", "quick"), ("/quick too many", "too many|many words|word too many"),
    ("/missing", "There is no `/missing`")])
def test_an_inline_command_is_answered_at_once_and_by_no_worker(make, line, text):
    bot = make()
    user = say(bot, line)
    assert re.search(text, text_of(user.body))
    assert (user.handed_over, user.told, bot.workers.work) == (0, [], [])
    assert (bot.done, bot.failed, bot.jobs) == (1, line != "/quick", {})


@pytest.mark.parametrize("answer, text", [(lambda: None, None), (lambda: 1 / 0, "Sorry")])
def test_an_inline_command_may_say_nothing_or_fail(make, answer, text):
    slackbot.command("/inline", inline=True)(lambda request: answer())
    said = text_of(say(make(), "/inline").body)
    assert said == text if text is None else said.startswith(text)


def test_a_connection_is_handed_over_once_before_a_worker_gets_its_command(make):
    bot = make()
    order = []
    user = add_user(bot)
    hand_over = user.hand_over
    submit = bot.workers.submit
    user.hand_over = lambda: (order.append("handed over"), hand_over())[1]
    bot.workers.submit = lambda *work: (order.append("submitted"), submit(*work))
    say(bot, "/work", user)
    assert order == ["handed over", "submitted"]
    assert (user.body, user.told) == (None, [])
    bot.workers.run()
    assert user.told == [("first", "done")] and bot.jobs == {}


@pytest.mark.parametrize("line, text", [("/quick", "quick"), ("/work", "done"),
                                        ("/missing", "There is no `/missing`")])
def test_a_command_by_a_button_runs_on_a_worker_and_its_answer_is_posted(make, line, text):
    bot = make()
    user = press(bot, line)
    assert (user.body, user.told, len(bot.workers.work)) == (None, [], 1)
    assert bot.answer_overdue() is None, "it has been acknowledged"
    bot.workers.run()
    (way, said), = user.told
    assert way == "post" and said.startswith(text)


def test_a_command_is_acknowledged_at_once_while_all_workers_are_busy(make):
    bot = make(SLACKBOT_WORKERS="2")
    users = [say(bot, "/work") for _ in range(3)]
    assert [user.told for user in users] == [[], [], [WORKING]]
    bot.workers.run()
    assert [user.told for user in users] == [
        [("first", "done")], [("first", "done")], [WORKING, ("post", "done")]]
    assert say(bot, "/work").told == [], "they are free again"


@pytest.mark.parametrize("workers, queue", [(1, 0), (1, 2), (3, 1)])
def test_a_command_beyond_the_queue_is_refused_at_once(make, workers, queue):
    bot = make(SLACKBOT_WORKERS=str(workers), SLACKBOT_QUEUE=str(queue))
    taken = [say(bot, "/work") for _ in range(workers + queue)]
    refused = say(bot, "/work")
    assert "again" in text_of(refused.body) and refused.handed_over == 0
    assert text_of(say(bot, "/quick").body) == "quick", "which needs no worker"
    assert len(bot.workers.work) == workers + queue
    bot.workers.run()
    assert all(user.body is None and user.told[-1][1] == "done" for user in taken)
    assert refused.told == []


@pytest.mark.parametrize("state, word", [("busy", "at once"), ("draining", "restart")])
def test_a_refusal_of_a_button_is_posted_by_a_poster(make, state, word):
    bot = make(SLACKBOT_WORKERS="1", SLACKBOT_QUEUE="0")
    say(bot, "/work")
    bot.draining = state == "draining"
    user = press(bot, "/work")
    assert (user.body, user.told, len(bot.workers.work)) == (None, [], 1)
    run_posters(bot)
    (way, text), = user.told
    assert way == "post" and word in text and "again" in text


@pytest.mark.parametrize("line", ["/work", "/quick"])
def test_a_bot_that_stops_refuses_new_commands(make, line):
    bot = make()
    bot.draining = True
    user = say(bot, line)
    assert re.search("restart.*again", text_of(user.body))
    assert (user.handed_over, bot.workers.work, bot.jobs) == (0, [], {})


# ---- the first answer: from the handler, or an acknowledgement

def test_overdue_first_answers_are_given_and_the_time_to_the_next_is_told(make):
    bot = make(SLACKBOT_ACK_SECONDS="2")
    assert bot.answer_overdue() is None
    earlier = say(bot, "/work")
    bot.clock.now += 0.5
    later = say(bot, "/work")
    assert bot.answer_overdue() == 1.5
    assert (earlier.told, later.told) == ([], [])
    bot.clock.now += 1.5
    assert bot.answer_overdue() == 0.5
    assert (earlier.told, later.told) == ([WORKING], [])
    bot.clock.now += 0.5
    assert bot.answer_overdue() is None
    bot.clock.now += 10
    assert bot.answer_overdue() is None
    assert (earlier.told, later.told) == ([WORKING], [WORKING])


def test_with_0_ack_seconds_a_command_is_acknowledged_at_once(make):
    bot = make(SLACKBOT_ACK_SECONDS="0")
    user = say(bot, "/work")
    bot.answer_overdue()
    assert user.told == [WORKING]


@pytest.mark.parametrize("values, told", [
    (["1"], [("first", "1")]), (["1", "2"], [("first", "1"), ("post", "2")]),
    ([], [("first", None)]), ([None], [("first", None)]),
    ([None, "2"], [("first", None), ("post", "2")])])
def test_values_that_come_before_the_deadline_are_not_acknowledged(make, values, told):
    bot = make()
    bot.steps = [lambda value=value: value for value in values]
    user = say(bot, "/work")
    bot.clock.now += bot.config.slackbot_ack_seconds - 0.01
    bot.answer_overdue()
    bot.workers.run()
    assert bot.answer_overdue() is None
    assert user.told == told


@pytest.mark.parametrize("values, told", [
    (["1"], [("post", "1")]), (["1", "2"], [("post", "1"), ("post", "2")]),
    ([], [("post", "Done.")]), ([None], [("post", "Done.")]), ([None, "2"], [("post", "2")])])
def test_values_that_come_after_the_acknowledgement_are_posted(make, values, told):
    bot = make()
    bot.steps = [lambda value=value: value for value in values]
    user = say(bot, "/work")
    bot.clock.now += bot.config.slackbot_ack_seconds
    bot.answer_overdue()
    bot.workers.run()
    assert user.told == [WORKING, *told]


def test_a_handler_that_is_acknowledged_while_it_runs_posts_its_values(make):
    def slow():
        bot.clock.now += 2
        bot.answer_overdue()
        return "1"

    bot = make()
    bot.steps = [slow, lambda: "2"]
    user = say(bot, "/work")
    bot.workers.run()
    assert user.told == [WORKING, ("post", "1"), ("post", "2")]


def test_a_command_that_ends_late_but_before_the_loop_looks_is_not_acknowledged(make):
    bot = make()
    user = say(bot, "/work")
    bot.clock.now += 10
    bot.workers.run()
    assert bot.answer_overdue() is None
    assert user.told == [("first", "done")]


def test_a_first_value_that_is_being_sent_is_not_acknowledged_too(make):
    def look():
        bot.clock.now += 10
        bot.answer_overdue()

    bot = make()
    user = add_user(bot)
    user.on_first = look
    say(bot, "/work", user)
    bot.workers.run()
    assert user.told == [("first", "done")]


class WatchedEvent(threading.Event):
    """An Event that says in `is_awaited` that somebody has begun to wait for it."""

    def __init__(self):
        super().__init__()
        self.is_awaited = threading.Event()

    def wait(self, timeout=None):
        self.is_awaited.set()
        return super().wait(timeout)


@pytest.mark.parametrize("values, text", [(["1"], "1"), ([], "Done.")], ids=["yield", "end"])
def test_a_later_answer_waits_until_the_acknowledgement_has_been_sent(make, values, text):
    def while_it_is_sent():
        worker.start()
        assert first_sent.is_awaited.wait(PATIENCE)
        assert user.told == []

    bot = make()
    bot.steps = [lambda value=value: value for value in values]
    user = add_user(bot)
    user.on_first = while_it_is_sent
    worker = threading.Thread(target=bot.workers.run)
    say(bot, "/work", user)
    replies, = bot.jobs.values()
    first_sent = replies.first_sent = WatchedEvent()
    bot.clock.now += 2
    bot.answer_overdue()
    worker.join(PATIENCE)
    assert user.told == [WORKING, ("post", text)]


def test_a_first_value_is_posted_when_the_client_has_disconnected(make):
    def disconnected():
        raise ConnectionResetError("gone")

    bot = make()
    users = [add_user(bot) for _ in range(2)]
    for user in users:
        user.on_first = disconnected
        say(bot, "/work", user)
    bot.clock.now += 2
    bot.answer_overdue()
    bot.workers.run()
    assert [user.told for user in users] == [[("post", "done")]] * 2


class Disk:
    """A journal whose disk writes when the test says so."""

    def __init__(self):
        self.pool = fakes.Pool(1, "journal")

    def change(self, statement, *values):
        future = concurrent.futures.Future()
        self.pool.submit(future.set_result, None)
        return future


def test_with_a_journal_an_acknowledgement_is_sent_when_the_command_is_written(make):
    disk = Disk()
    bot = make(disk)
    user = say(bot, "/work")
    bot.clock.now += 2
    bot.answer_overdue()
    assert user.told == [], "and the loop doesn't wait for it"
    disk.pool.run()
    assert user.told == [WORKING]
    bot.workers.run()
    assert user.told == [WORKING, ("post", "done")]


# ---- the end

SORRY = "Sorry, I had to restart before `/work` was done. Try again?"


@pytest.fixture
def stopping(make):
    """A bot with 10 seconds of grace and one worker."""
    return make(SLACKBOT_GRACE_SECONDS="10", SLACKBOT_WORKERS="1")


def drain(bot):
    """Stop a *bot*: how many seconds it took."""
    started = bot.clock.now
    bot.draining = True
    bot.wait_for_jobs(bot.config.slackbot_grace_seconds)
    bot.tell_users()
    return bot.clock.now - started


def test_a_bot_without_commands_stops_at_once(stopping):
    assert drain(stopping) == 0
    user = say(stopping, "/work")
    stopping.workers.run()
    assert "again" in text_of(user.body)


def test_a_stop_waits_for_commands_that_end_within_the_grace(stopping):
    user = say(stopping, "/work")
    stopping.clock.plan(5, stopping.workers.run)
    assert 5 <= drain(stopping) < 5.1
    run_posters(stopping)
    assert user.told == [("first", "done")]


def test_after_the_grace_users_are_told_and_the_commands_say_no_more(stopping):
    users = [say(stopping, "/work") for _ in range(3)]
    running = stopping.workers.begin()
    assert len(stopping.workers.work) == 2
    told = []
    stopping.clock.plan(9.9, lambda: told.extend(len(user.told) for user in users))
    stopping.clock.plan(10.5, lambda: run_posters(stopping))
    assert 10.5 <= drain(stopping) < 10.6
    assert told == [0, 1, 1], "nothing but the acknowledgements during the grace"
    expected = [[("first", SORRY)], [WORKING, ("post", SORRY)], [WORKING, ("post", SORRY)]]
    assert [user.told for user in users] == expected
    assert stopping.workers.work == [], "what hasn't begun never will"
    running()
    assert [user.told for user in users] == expected


def test_a_handler_that_goes_on_after_its_user_was_told_says_no_more(stopping):
    def stop():
        stopping.clock.plan(10.5, lambda: run_posters(stopping))
        drain(stopping)
        return "2"

    stopping.steps = [lambda: "1", stop, lambda: "3"]
    user = say(stopping, "/work")
    stopping.workers.run()
    assert user.told == [("first", "1"), ("post", SORRY)]


def test_a_command_that_ends_while_others_are_told_has_the_last_word(stopping):
    user = say(stopping, "/work")
    running = stopping.workers.begin()
    stopping.clock.plan(10.5, running)
    assert drain(stopping) < 10.6
    run_posters(stopping)
    assert user.told == [("first", "done")]


def test_a_stop_waits_for_a_last_answer_that_is_on_its_way(stopping):
    def stop():
        stopping.clock.plan(10.5, lambda: run_posters(stopping))
        took.append(drain(stopping))

    took = []
    slackbot.command("/once")(lambda request: "done")
    user = say(stopping, "/once")
    user.on_first = stop
    stopping.workers.run()
    assert took[0] >= 14 and user.told == [("first", "done")]


def test_telling_users_takes_at_most_four_seconds(stopping):
    user = say(stopping, "/work")
    assert 14 <= drain(stopping) < 14.1, "as no poster has done it"
    assert user.told == []


# ---- the bot with real threads

@pytest.mark.parametrize("values, expected", [
    (["0", "1", "2"], [("post", "0"), ("post", "1"), ("post", "2")]), ([None], []), ([], [])])
def test_under_load_every_user_is_told_all_of_it_in_order(make, monkeypatch, values, expected):
    monkeypatch.setattr(fakes, "Pool", slackbot.Pool)
    bot = make(SLACKBOT_WORKERS="8", SLACKBOT_QUEUE="10000", SLACKBOT_ACK_SECONDS="0")
    bot.steps = [lambda value=value: value for value in values]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        users = []
        for _ in range(1000):
            users.append(say(bot, "/work"))
            bot.answer_overdue()
        until(lambda: not bot.jobs)
    finally:
        sys.setswitchinterval(interval)
    first, *later = expected or [("post", None)]
    at_once = ("first", first[1]), *later
    acknowledged = WORKING, *(expected or [("post", "Done.")])
    assert set(tuple(user.told) for user in users) <= {at_once, acknowledged}


# ---- very long answers

def encode_long(answer):
    """The message (dict) that a command's answer becomes, the processor's seconds and the bytes it
    takes."""
    job = slackbot.Job(slackbot.Request(command="/nothing"))
    tracemalloc.start()
    begun = time.thread_time()
    made = job.encode(answer, False)
    seconds = time.thread_time() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return json.loads(made), seconds, peak


@pytest.mark.parametrize("answer", [
    "x" * 40_000_000, "Hello Ann! " * 4_000_000, " " * 20_000_000 + "x" * 20_000_000,
    "&lt;" * 10_000_000, "\n" * 20_000_000 + "x"], ids=["one word", "many", "blanks before",
                                                       "entities", "lines"])
def test_a_very_long_answer_is_cut_without_being_copied_again_and_again(answer):
    made, seconds, peak = encode_long(answer)
    assert 0 < len(made["text"]) <= slackbot.MESSAGE_CHARACTERS
    assert seconds < 0.5 and peak < 1.1 * len(answer), (seconds, peak)


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: iter([text, text])],
                         ids=["returned", "yielded"])
def test_a_very_long_answer_arrives_cut_and_soon(make, wrap):
    def handler(request):
        yield from [answer] if wrap(answer) is answer else wrap(answer)

    bot = make()
    answer = "x" * 40_000_000
    slackbot.command("/long")(handler)
    begun = time.thread_time()
    user = say(bot, "/long")
    bot.workers.run()
    assert time.thread_time() - begun < 1
    assert user.told and all(len(text) <= slackbot.MESSAGE_CHARACTERS for _, text in user.told)
