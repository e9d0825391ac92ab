"""The bot: the first answer in time, the others behind it, and nobody without a last one."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import random
import re
import select
import socket
import sys
import threading
import time

import pytest

import api_fakes
import fakes
import slackbot
from test_doors import mention, tell
from test_server import Reply, connect, receive, whole

OWN = '''
import os
import pathlib
import time
import slackbot
from slackbot import command

slackbot.HELD_SECONDS = float(os.environ.get("HELD", slackbot.HELD_SECONDS))
slackbot.HURRY_SECONDS = float(os.environ.get("HURRY", slackbot.HURRY_SECONDS))


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
    return {"none": None, "text": "text", "dict": {"text": "d", "response_type": "in_channel"},
            "int": 5, "zero": 0, "list": ["text"], "bytes": b"text", "set": {"text": {1, 2}},
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


@command("/open")
def open_(request, gate, pause: float):
    pathlib.Path(gate).touch()
    time.sleep(pause)
    return "open"


@command("/echo")
def echo(request, word, pause: float):
    time.sleep(pause)
    return word


@command("/mark")
def mark(request, path, pause: float):
    started = time.monotonic()
    time.sleep(pause)
    with open(path, "a") as marks:
        print(started, time.monotonic(), file=marks)


@command("/count")
def count(request, times: int):
    for number in range(times):
        yield f"{number}"


slackbot.main()
'''
ACK = 0.2


@pytest.fixture(scope="module")
def slack():
    with fakes.Slack() as slack:
        yield slack


@pytest.fixture(scope="module")
def start(script, slack):
    """A function that starts a bot with the script's commands."""
    def start(**environ):
        return fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin,
                         **{"SLACKBOT_ACK_SECONDS": ACK, **environ})
    return start


@pytest.fixture(scope="module")
def bot(start):
    with start() as bot:
        yield bot


@pytest.fixture
def gate(tmp_path):
    """A file for which /late waits; opened at the end, so that nothing hangs."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


@pytest.fixture
def pool(gate):
    """Threads for who must wait; they needn't any longer when the test has ended."""
    pool = concurrent.futures.ThreadPoolExecutor()
    yield pool
    gate.touch()
    pool.shutdown()


def texts(answers):
    return [answer.get("text") for answer in answers]


def until(condition):
    """Wait for *condition*."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def counts(bot):
    return bot.get("/healthz").json


def finished(bot):
    """Wait until nothing runs or waits."""
    until(lambda: not counts(bot)["running"] + counts(bot)["waiting"])


def ask(bot, slack, line):
    """All that *bot* answers to *line*."""
    url = slack.response_url()
    first = bot.command(line, response_url=url)
    assert first.status == 200
    finished(bot)
    return [first.json for _ in first.body[:1]] + [each.message for each in slack.posts[url]]


# ---- the first answer

@pytest.mark.parametrize("line", ["/now text", f"/now text {ACK / 4}"])
def test_a_value_that_comes_in_time_is_the_first_answer(bot, slack, line):
    assert ask(bot, slack, line) == [{"response_type": "ephemeral", "text": "text"}]


def test_a_value_that_comes_late_is_announced_and_follows(bot, slack, gate):
    url, started = slack.response_url(), time.monotonic()
    first = bot.command(f"/late {gate} text &lt;b&gt; it's", response_url=url).json
    assert ACK <= time.monotonic() - started < 1
    assert first == {"response_type": "ephemeral",
                     "text": f"Working on `/late {gate} text &lt;b&gt; it's`…"}
    assert slack.posts[url] == []
    gate.touch()
    assert texts(slack.wait(url)) == ["text"]
    finished(bot)
    assert len(slack.posts[url]) == 1


def test_a_long_line_is_not_repeated_in_full(bot, slack, gate):
    first = bot.command(f"/late {gate} text {'long ' * 500}")
    assert "Working on" in first.json["text"] and len(first.json["text"]) < 300


def test_the_wait_for_a_first_value_can_be_none_at_all(start, slack, gate):
    with start(SLACKBOT_ACK_SECONDS=0) as bot:
        started = time.monotonic()
        assert "Working on" in bot.command(f"/late {gate} text").json["text"]
        assert time.monotonic() - started < 1


def test_a_command_that_hangs_holds_no_other_up(bot, slack, gate, pool):
    hanging = [pool.submit(ask, bot, slack, f"/late {gate} text") for _ in range(3)]
    until(lambda: counts(bot)["running"] == 3)
    for _ in range(5):
        assert bot.command("/now text").json["text"] == "text"
    gate.touch()
    assert {tuple(texts(each.result())[-1:]) for each in hanging} == {("text",)}


def test_a_command_that_is_slow_for_the_first_time_holds_nobody_up(start, slack, gate, pool):
    with start(SLACKBOT_ACK_SECONDS=2.5) as bot:
        started = time.monotonic()
        slow = pool.submit(bot.command, f"/late {gate} text")
        until(lambda: counts(bot)["running"] == 1)
        assert bot.command("/now text").json["text"] == "text"
        assert time.monotonic() - started < 2
        gate.touch()
        assert slow.result().json["text"] == "text"


# ---- the other answers

@pytest.mark.parametrize("count, expected", [
    (1, [0]), (2, [0, 1]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 8])])
def test_what_is_yielded_arrives_in_its_order(bot, slack, count, expected):
    assert texts(ask(bot, slack, f"/count {count}")) == list(map(str, expected))


@pytest.mark.parametrize("whats, expected", [
    ("none", []), ("", []), ("none none", []), ("none text", ["text"]), ("text none", ["text"]),
    ("none text none text", ["text", "text"])])
def test_none_says_nothing_and_done_where_the_user_was_told_to_wait(bot, slack, gate, whats,
                                                                    expected):
    url = slack.response_url()
    assert "Working on" in bot.command(f"/yield {gate} {whats}", response_url=url).json["text"]
    gate.touch()
    finished(bot)
    assert texts(each.message for each in slack.posts[url]) == (expected or ["Done."])
    assert texts(ask(bot, slack, f"/yield {gate} {whats}")) == expected


@pytest.mark.parametrize("line", ["/now none", "/count 0"])
def test_nothing_to_say_is_an_empty_200(bot, line):
    got = bot.command(line)
    assert (got.status, got.body) == (200, b"")


def test_a_returned_none_becomes_done_where_the_user_was_told_to_wait(bot, slack, gate):
    url = slack.response_url()
    assert "Working on" in bot.command(f"/late {gate} none", response_url=url).json["text"]
    gate.touch()
    finished(bot)
    assert texts(each.message for each in slack.posts[url]) == ["Done."]


def test_public_concerns_every_answer_but_not_a_dict_with_a_type_of_its_own(bot, slack, gate):
    url = slack.response_url()
    first = bot.command(f"/late {gate} text --public", response_url=url).json
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
    finished(bot)


# ---- what goes wrong

BUGS = ["bug", "int", "zero", "list", "bytes", "object", "set", "nan", "stop"]


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
def test_a_bug_after_the_user_was_told_to_wait_is_a_later_apology(bot, slack, gate, what):
    url, line = slack.response_url(), f"/late {gate} {what}"
    assert "Working on" in bot.command(line, response_url=url).json["text"]
    gate.touch()
    finished(bot)
    posts = [each.message for each in slack.posts[url]]
    assert len(posts) == 1 and is_apology(bot, posts[0], line)


def test_every_apology_has_a_reference_of_its_own(bot):
    said = [bot.command("/now bug").json["text"] for _ in range(5)]
    assert len(set(said)) == 5


def test_an_apology_takes_the_place_of_the_last_answer(bot, slack, gate):
    gate.touch()
    answers = ask(bot, slack, f"/yield {gate} {'text ' * 20}bug")
    assert texts(answers)[:5] == ["text"] * 5 and len(answers) == 6
    assert is_apology(bot, answers[-1], slackbot.flat(f"/yield {gate} {'text ' * 20}bug"))


@pytest.mark.parametrize("line, before", [("/now user", []), ("/now user --public", []),
                                          ("/then user", ["first"])])
def test_what_the_user_should_know_is_shown_as_it_is(bot, slack, line, before):
    *others, last = ask(bot, slack, line)
    assert last == {"response_type": "ephemeral", "text": "You &amp; _only_ you"}
    assert texts(others) == before and "only_ you" not in bot.output


@pytest.mark.parametrize("line", ["/now exit", "/then exit"])
def test_a_handler_that_wants_to_exit_ends_in_an_apology_and_nothing_else(start, slack, line):
    with start() as bot:
        answers = ask(bot, slack, line)
        assert is_apology(bot, answers[-1], line)
        assert counts(bot)["running"] == 0 and bot.command("/now text").json["text"] == "text"


# ---- busy

@pytest.mark.parametrize("queue", [0, 1, 3])
def test_with_all_workers_taken_it_says_so_at_once(start, slack, gate, pool, queue):
    with start(SLACKBOT_WORKERS=1, SLACKBOT_QUEUE=queue, SLACKBOT_ACK_SECONDS=2.5) as bot:
        running = pool.submit(ask, bot, slack, f"/late {gate} text")
        until(lambda: counts(bot)["running"] == 1)
        started, urls = time.monotonic(), [slack.response_url() for _ in range(queue + 2)]
        said = [bot.command("/now text --public", response_url=url).json for url in urls]
        assert time.monotonic() - started < 2
        for answer in said[:queue]:
            assert "Working on `/now text --public`" in answer["text"]
        for answer in said[queue:]:
            assert "again" in answer["text"] and answer["response_type"] == "ephemeral"
        assert (counts(bot)["running"], counts(bot)["waiting"]) == (1, queue)
        gate.touch()
        assert texts(running.result())[-1] == "text"
        finished(bot)
        assert [len(slack.posts[url]) for url in urls] == [1] * queue + [0, 0]
        assert bot.command("/now text").json["text"] == "text", "it recovers"


def test_with_too_many_connections_waiting_nobody_waits_long(start, slack, gate, pool):
    def timed(bot):
        started = time.monotonic()
        assert "Working on" in bot.command(f"/late {gate} text").json["text"]
        return time.monotonic() - started

    with start(SLACKBOT_CONNECTIONS=4, SLACKBOT_ACK_SECONDS=2.5) as bot:
        waits = [pool.submit(timed, bot) for _ in range(4)]
        assert sorted(wait.result() for wait in waits)[2] < 1.5  # one alone isn't too many


def test_a_crowd_makes_nobody_wait_longer_than_is_configured(start, gate, pool):
    def timed():
        started = time.monotonic()
        assert "Working on" in bot.command(f"/late {gate} text").json["text"]
        return time.monotonic() - started

    with start(SLACKBOT_CONNECTIONS=4, SLACKBOT_ACK_SECONDS=0.05, HURRY=2) as bot:
        waits = [pool.submit(timed) for _ in range(4)]
        assert max(wait.result() for wait in waits) < 1.5


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
        finished(bot)
        ask(bot, slack, "/then int")
        assert [counts(bot)[name] for name in names] == [0, 0, 5, 2]


# ---- the door's own thread, lent to handlers that are quick

def posted(line, **fields):
    """The bytes of *line* as Slack sends it."""
    body = fakes.form(line, **fields)
    head = {"Host": "bot.example", "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": len(body), **fakes.sign(body)}
    fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return b"POST /slack/commands HTTP/1.1\r\n" + fields.encode() + b"\r\n" + body


def answers(peer):
    """The texts of the answers that come over a connection, one after the other."""
    data = b""
    while True:
        while not whole(data):
            data += receive(peer, bool)
        reply = Reply(data)
        data = reply.rest
        yield reply.json["text"]


@contextlib.contextmanager
def others_are_served(bot, within=0.4):
    """Whoever asks something else meanwhile is answered within so many seconds."""
    def ask():
        with connect(bot) as peer:
            said = answers(peer)
            for number in itertools.count():
                started = time.monotonic()
                peer.sendall(posted(f"/echo {number} 0"))
                assert next(said) == f"{number}"
                waits.append(time.monotonic() - started)
                if over.wait(0.005):
                    return

    over, waits = threading.Event(), []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            over.set()
        asking.result()
    assert len(waits) > 5 and max(waits) < within


def test_callers_who_wait_and_keep_their_connections_make_room_for_a_newcomer(start, gate):
    with (start(SLACKBOT_CONNECTIONS=4, SLACKBOT_ACK_SECONDS=2.5, HURRY=2.5) as bot,
          contextlib.ExitStack() as stack):
        for _ in range(4):
            stack.enter_context(connect(bot)).sendall(posted(f"/late {gate} text"))
        time.sleep(0.2)  # until they are known to wait
        for _ in range(3):
            answer = bot.command("/now text")
            assert answer.status == 200 and answer.json["text"] == "text"


def test_no_later_answer_overtakes_a_first_one_that_a_busy_door_has_not_sent_yet(script, gate):
    def look(seen):
        was_there.append(bool(select.select([peer], [], [], 0)[0]))

    was_there = []  # the first answer, when the later one came
    with (fakes.Slack(look) as slack,
          fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin, SLACKBOT_ACK_SECONDS=2.5,
                    HELD=0.5) as bot, connect(bot) as peer, connect(bot) as other):
        url = slack.response_url()
        peer.sendall(posted(f"/yield {gate} text dict", response_url=url))
        until(lambda: counts(bot)["running"] == 1)  # another thread has the door by now ...
        other.sendall(posted(f"/open {gate} 0.3"))  # ... and is kept busy by a quick command
        assert texts(slack.wait(url)) == ["d"] and was_there == [True]
        assert next(answers(peer)) == "text" and next(answers(other)) == "open"


@pytest.mark.parametrize("line, before", [
    ("/late GATE text", 0), ("/late GATE text", 20), ("/yield GATE text", 20),
    ("/first GATE text", 20)])
def test_a_handler_that_is_slow_for_once_holds_nobody_up(start, gate, line, before):
    line = line.replace("GATE", str(gate))
    with start(SLACKBOT_ACK_SECONDS=0.5) as bot, others_are_served(bot):
        gate.touch()
        for _ in range(before):
            bot.command(line)
        finished(bot)
        gate.unlink()
        assert re.match("Working on|first", bot.command(line).json["text"])
        time.sleep(0.05)


def test_a_first_value_is_out_at_once_though_its_handler_goes_on(start, gate):
    with start(SLACKBOT_ACK_SECONDS=2.5) as bot:
        for _ in range(3):
            started = time.monotonic()
            assert bot.command(f"/first {gate} text").json["text"] == "first"
            assert bot.command("/echo x 0").json["text"] == "x"
            assert time.monotonic() - started < 0.4


@pytest.mark.parametrize("before", [0, 2])
def test_fifty_handlers_that_are_slow_for_once_hold_nobody_up(start, before):
    with start(SLACKBOT_CONNECTIONS=100) as bot, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(bot)) for _ in range(50)]
        bot.command("/now text")
        with others_are_served(bot, 0.5):
            for peer in peers:
                peer.sendall(posted("/now text") * before + posted("/now text 1"))
            for said in map(answers, peers):
                assert list(itertools.islice(said, before)) == ["text"] * before
                assert "Working on" in next(said)


def test_who_is_behind_a_slow_one_on_its_connection_waits_for_no_more_than_its_first_answer(start):
    with start(SLACKBOT_ACK_SECONDS=0.5) as bot, connect(bot) as peer:
        said, started = answers(peer), time.monotonic()
        peer.sendall(posted("/now text") * 5 + posted("/now text 2") + posted("/echo x 0") * 5)
        assert list(itertools.islice(said, 5)) == ["text"] * 5
        assert time.monotonic() - started < 0.5
        assert "Working on" in next(said)
        assert list(itertools.islice(said, 5)) == ["x"] * 5
        assert 0.5 <= time.monotonic() - started < 1.5


@pytest.mark.parametrize("workers, before", [(1, 0), (1, 5), (2, 5)])
def test_as_many_handlers_run_at_once_as_there_are_workers(start, pool, tmp_path, workers, before):
    with start(SLACKBOT_WORKERS=workers) as bot:
        marks = tmp_path / "marks"
        for _ in range(before):
            bot.command(f"/mark {marks} 0")
        sent = [pool.submit(bot.command, f"/mark {marks} 0.2") for _ in range(3)]
        assert {each.result().status for each in sent} == {200}
        finished(bot)
    spans = [tuple(map(float, line.split())) for line in marks.read_text().splitlines()]
    assert len(spans) == before + 3
    assert workers == max(sum(begin <= moment < end for begin, end in spans)
                          for moment, _ in spans)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="there is nothing to count in")
def test_there_are_hardly_more_threads_than_workers(start):
    with start(SLACKBOT_WORKERS=10, SLACKBOT_ACK_SECONDS=0.05) as bot, connect(bot) as peer:
        said = answers(peer)
        for _ in range(20):
            peer.sendall(posted("/echo x 0") * 25 + posted("/echo x 600"))
            assert "Working on" in list(itertools.islice(said, 26))[-1]
        # Besides workers: main, the watch, the door, and the thread that had the door at first.
        assert len(os.listdir(f"/proc/{bot.process.pid}/task")) <= 10 + 4


LIMITED = """
import threading
start = threading.Thread.start


def start_one_of_few(thread):
    if threading.active_count() >= 10:
        raise RuntimeError("can't start new thread")
    start(thread)


threading.Thread.start = start_one_of_few
"""


@pytest.mark.parametrize("before", [0, 25])
def test_a_host_that_gives_no_more_threads_does_not_silence_the_bot(tmp_path, before):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED + OWN)
    with (fakes.Bot(script=script, SLACKBOT_ACK_SECONDS=0) as bot,
          concurrent.futures.ThreadPoolExecutor(12) as pool):
        def crowd(_):
            with connect(bot, timeout=0.5) as peer, contextlib.suppress(TimeoutError):
                peer.sendall(posted("/echo x 0") * before + posted("/echo x 0.5"))
                receive(peer)

        list(pool.map(crowd, range(12)))
        assert bot.request("GET", "/healthz", timeout=3).json["status"] == "ok"
        until(lambda: bot.command("/echo x 0").json.get("text") == "x")


def test_a_want_of_threads_does_not_end_the_watch(tmp_path, gate, pool):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED + OWN)
    with api_fakes.Api() as api, fakes.Bot(
            script=script, SLACKBOT_ACK_SECONDS=ACK, SLACK_BOT_TOKEN=api_fakes.TOKEN,
            SLACK_API_URL=api.url) as bot:
        lines = [f"/late {gate} text {number}" for number in range(10)]  # that take all threads
        assert all("Working on" in said.json["text"] for said in pool.map(bot.command, lines))
        assert tell(bot, mention("<@U0BOT> now text", "CLIMITED")).status == 200
        assert "Working on" in bot.command(f"/late {gate} text").json["text"]
        gate.touch()
        until(lambda: "text" in texts(call.given for call in api.of("chat.postMessage")))


def test_handlers_that_hang_for_ever_stop_neither_the_door_nor_its_end(start, slack, gate):
    with start(SLACKBOT_GRACE_SECONDS=0.2, SLACKBOT_ACK_SECONDS=0.05) as bot:
        lines = "/echo x 600", f"/first {gate} text", "/echo y 600", f"/late {gate} text"
        urls = {line: slack.response_url() for line in lines}
        for line, url in urls.items():
            assert bot.command(line, response_url=url).status == 200
            assert bot.command("/echo quick 0").json["text"] == "quick"
        started = time.monotonic()
        bot.process.terminate()
        assert bot.process.wait(4) == 0 and time.monotonic() - started < 2
        assert [len(slack.posts[url]) for url in urls.values()] == [1] * 4


@pytest.mark.parametrize("every, times", [(2, 64), (26, 125)])  # a quick one is trusted in time
def test_quick_and_slow_ones_by_turns_get_one_answer_each(start, every, times):
    def talk(name):
        with connect(bot) as peer:
            said = answers(peer)
            for number in range(times):
                pause = 0.02 * (number % every == every - 1)
                peer.sendall(posted(f"/echo {name}-{number} {pause}"))
                assert next(said) == f"{name}-{number}"
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""

    with (start(SLACKBOT_ACK_SECONDS=2.5) as bot,
          concurrent.futures.ThreadPoolExecutor(16) as pool):
        assert list(pool.map(talk, range(16))) == [None] * 16
        names = "running", "waiting", "done", "failed"
        assert [counts(bot)[name] for name in names] == [0, 0, 16 * times, 0]


# ---- many at once, within the process

class Ear:
    """A door and a response_url at once: what it hears, in the order of hearing."""

    def __init__(self):
        self.heard, self.firsts, self.is_finished = [], 0, threading.Event()

    def answer(self, message):
        self.firsts += 1
        assert self.firsts == 1 and not self.heard, "the first answer comes first, and once"
        self.heard.append(message and message["text"])

    def send(self, message):
        self.heard.append(message["text"])

    def finish(self):
        self.is_finished.set()
        return True


@pytest.fixture
def hammer(monkeypatch):
    """A function that has a bot run one handler many times over: what each of its users heard."""
    monkeypatch.setattr(slackbot, "commands", {})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def hammer(handler, times, **environ):
        slackbot.command("/work")(handler)
        bot = slackbot.Bot(slackbot.Config({"SLACKBOT_QUEUE": "10000", **environ}), None)
        ears = [Ear() for _ in range(times)]
        for ear in ears:
            bot.accept(slackbot.Request(command="/work"), ear.answer, ear)
        assert all(ear.is_finished.wait(10) for ear in ears)
        return [ear.heard for ear in ears]
    yield hammer
    sys.setswitchinterval(interval)


WORKING = "Working on `/work`…"


@pytest.mark.parametrize("environ", [
    {"SLACKBOT_WORKERS": "8", "SLACKBOT_ACK_SECONDS": "0.01"},
    {"SLACKBOT_WORKERS": "200", "SLACKBOT_CONNECTIONS": "10000", "SLACKBOT_ACK_SECONDS": "0.004"},
    {"SLACKBOT_WORKERS": "200", "SLACKBOT_ACK_SECONDS": "0"}], ids=["few", "many", "at once"])
def test_later_answers_never_overtake_the_first(hammer, environ):
    chance = random.Random(0)

    def work(request):
        time.sleep(chance.random() * 0.05)
        for number in range(3):
            yield f"{number}"

    heard = collections.Counter(map(tuple, hammer(work, 300, **environ)))
    assert set(heard) <= {("0", "1", "2"), (WORKING, "0", "1", "2")}
    assert heard[WORKING, "0", "1", "2"] > 0


@pytest.mark.parametrize("says", ["nothing", "none"])
def test_whoever_was_told_to_wait_is_told_the_end(hammer, says):
    def work(request):
        if says == "none":
            yield None
        yield from ()

    heard = collections.Counter(map(tuple, hammer(work, 3000, SLACKBOT_WORKERS="2")))
    assert set(heard) <= {(None,), (WORKING, "Done.")}
