"""The journal: users who still wait when the process is killed are told by the next one."""

import concurrent.futures
import contextlib
import os
import random
import signal
import socket
import sqlite3
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import api_fakes
import fakes
import slackbot
import socket_fakes
from api_fakes import (action, check_log, finish, mention, payload, send, tell, until,
                       until_logged)
from fakes import PATIENCE, SOON_OVER

OWN = '''
import os, pathlib, resource, signal, time
if "UMASK" in os.environ:
    os.umask(int(os.environ["UMASK"], 8))
if "ROOM" in os.environ:  # how long a file may become
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["ROOM"]), -1))
import concurrent.futures.thread, slackbot, sqlite3
from slackbot import command
if "NOBODY" in os.environ and os.getuid() == 0:
    os.setuid(65534)


def wait(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)


def outcome(what):
    """Answer, or fail."""
    if what == "user":
        raise slackbot.UserError("only you")
    if what == "bug":
        raise RuntimeError("a bug")
    return {"none": None, "text": "text"}[what]


@command("/now")
def now(request, what):
    return outcome(what)


@command("/late")
def late(request, gate, what, *more):
    wait(gate)
    return outcome(what)


@command("/then")
def then(request, gate, what, *more):
    yield "first"
    wait(gate)
    yield outcome(what)


@command("/yield")
def yield_(request, *whats):
    for what in whats:
        yield outcome(what)


@command("/table")
def table(request):
    return {"text": "a table", "blocks": [{"type": "data_table", "caption": "numbers", "rows": [
        [{"type": "raw_text", "text": "Key"}], [{"type": "raw_number", "value": 1}]]}]}


@command("/die")
def die(request):
    yield "first"
    os.kill(os.getpid(), signal.SIGKILL)


@command("/disk")
def disk(request, room: int):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, -1))
    return "done"


slackbot.main()
'''


@pytest.fixture
def slack():
    with fakes.Slack() as slack:
        yield slack


@pytest.fixture
def journal(tmp_path):
    """Where the journal is."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "journal"


@pytest.fixture
def gate():
    """A file that commands wait for; nobody opens it, unless a test does."""
    with tempfile.TemporaryDirectory() as place:  # a short name, which a message shows in full
        yield Path(place) / "gate"


@pytest.fixture
def start(script, slack, journal):
    """A function that starts a bot with the script's commands and the journal."""
    def start(constants=None, **environ):
        return fakes.Bot(script=script, constants=constants, **{
            "SLACK_HOOKS_ORIGINS": slack.origin, "SLACKBOT_JOURNAL": journal,
            "SLACKBOT_ACK_SECONDS": 2.5, "SLACKBOT_GRACE_SECONDS": 0.05, **environ})
    return start


def kill(bot):
    """End *bot* at once, as a host does that has run out of memory."""
    bot.process.kill()
    bot.process.wait(PATIENCE)


def owed(journal):
    """The command lines in a journal that no process has."""
    with sqlite3.connect(journal) as db:
        return [line for line, in db.execute("SELECT line FROM owed ORDER BY line")]


def alter(journal, change, *values):
    """Change a journal that no process has."""
    with sqlite3.connect(journal) as db:
        db.execute("UPDATE owed SET " + change, values)


def bytes_of(journal):
    """All that is in the journal's files; it can be looked at while a process has them."""
    return {path.name: path.read_bytes() for path in journal.parent.iterdir()}


def owed_by_now(journal):
    """The command lines in a journal that a process has; None where it is being changed."""
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(OSError, sqlite3.Error):
        for name, data in bytes_of(journal).items():
            (Path(place) / name).write_bytes(data)
        return owed(Path(place) / journal.name)


def settle(journal):
    """Wait until nothing has changed in the journal for a while."""
    before, since = bytes_of(journal), time.monotonic()
    while time.monotonic() - since < 0.2:
        time.sleep(0.01)
        if (now := bytes_of(journal)) != before:
            before, since = now, time.monotonic()


def asked(bot, slack, *lines):
    """The response_urls of commands that have had their first answer, by their lines."""
    urls = {line: slack.response_url() for line in lines}
    for line, url in urls.items():
        assert bot.command(line, response_url=url).status == 200
    return urls


def left(start, slack, *lines, **environ):
    """The response_urls of commands that a process has left behind that was killed."""
    with start(SLACKBOT_ACK_SECONDS=0, **environ) as bot:
        urls = asked(bot, slack, *lines)
        kill(bot)
    return urls


def texts(slack, url):
    """What has been posted to *url*."""
    return [post.message["text"] for post in slack.posts[url]]


# ---- what is written, and when

@pytest.fixture(scope="module")
def quiet(script, tmp_path_factory):
    """A bot with a journal, and that."""
    journal = tmp_path_factory.mktemp("quiet") / "journal"
    with fakes.Bot(script=script, SLACKBOT_JOURNAL=journal) as bot:
        yield bot, journal


@pytest.mark.parametrize("line", [
    "/now text", "/now none", "/now user", "/now bug", "/now", "/unknown", "/hello", "/help",
    "/yield", "/yield user", "/yield bug", "/late", "/table"])
def test_a_command_that_ends_with_its_first_answer_is_never_written(quiet, line):
    bot, journal = quiet
    before = bytes_of(journal)
    assert bot.command(line).status == 200
    finish(bot)
    assert bytes_of(journal) == before


def test_a_command_with_more_than_one_answer_is_written(quiet):
    bot, journal = quiet
    before = bytes_of(journal)
    bot.command("/yield text text")
    finish(bot)
    assert bytes_of(journal) != before


def test_a_command_is_in_the_journal_when_its_first_answer_arrives(start, journal):
    with start() as bot:
        assert bot.command("/die").json["text"] == "first"
        assert bot.process.wait(PATIENCE) == -signal.SIGKILL
    assert owed(journal) == ["/die"]


class Order:
    """A JournalEntry, a Future and ways to answer in one, that notes in `events` what is done."""

    def __init__(self):
        self.events = []

    def write(self):
        return self

    def result(self):
        self.events.append("written")

    def add_done_callback(self, function):
        self.events.append("written")
        function(self)

    def strike(self):
        self.events.append("struck out")

    def send_first(self, body, seconds):
        self.events.append("first answer sent")

    def post(self, body):
        self.events.append("posted")
        return 200, {}, b""


TABLE = b'{"text": "a table", "blocks": [{"type": "data_table"}]}'


@pytest.mark.parametrize("answer, last", [
    (lambda replies: replies.send(b"{}"), b"{}"),
    (lambda replies: replies.begin_instead(b"{}"), b"{}"),
    (lambda replies: None, TABLE), (lambda replies: replies.send(TABLE), None)],
    ids=["by the handler", "by the loop", "before a table", "before the table of a generator"])
def test_the_first_answer_is_sent_when_the_command_has_been_written(answer, last):
    order = Order()
    replies = slackbot.Replies(order.post, order.send_first, order, clock=fakes.Clock())
    answer(replies)
    replies.finish(last)
    assert order.events == ["written", "first answer sent", "posted", "struck out"]


@pytest.mark.parametrize("line", ["/then GATE text", "/late GATE text &lt;b&gt; --public"])
def test_a_command_that_has_had_its_first_answer_is_in_the_journal(
        start, slack, journal, gate, line):
    line = line.replace("GATE", str(gate))
    begun = time.time()
    with start(SLACKBOT_ACK_SECONDS=0.1) as bot:
        url = asked(bot, slack, line)[line]
        kill(bot)
    with sqlite3.connect(journal) as db:
        (there, written, since), = db.execute("SELECT url, line, since FROM owed")
    assert (there, written) == (url, line.replace("&lt;", "<").replace("&gt;", ">"))
    assert begun <= since <= time.time()


@pytest.mark.parametrize("way", ["button", "mention"])
def test_a_command_without_a_first_answer_is_written_when_it_is_accepted(
        start, slack, journal, gate, way):
    line = f"/late {gate} text"
    with api_fakes.Api() as api:
        with start(SLACK_BOT_TOKEN=api_fakes.TOKEN, SLACK_API_URL=api.url) as bot:
            url = slack.response_url()
            got = send(bot, "/slack/interactions", payload(action(line, url))) if way == "button" \
                else tell(bot, mention(f"<@U0BOT> {line[1:]}", "C9"))
            assert got.status == 200
            until(lambda: owed_by_now(journal) == [line])  # by a thread of its own
            kill(bot)
        assert owed(journal) == [line]
        with start(SLACK_BOT_TOKEN=api_fakes.TOKEN, SLACK_API_URL=api.url) as bot:
            message, = slack.wait(url) if way == "button" else [
                call.given for call in api.wait("chat.postMessage", channel="C9")]
            assert "restart" in message["text"] and f"`{line}`" in message["text"]
            until(lambda: owed_by_now(journal) == [])


def test_an_envelope_of_socket_mode_is_written_when_it_is_accepted(start, journal, gate):
    line = f"/late {gate} text"
    with socket_fakes.Workspace() as workspace:
        settings = {"SLACK_APP_TOKEN": socket_fakes.APP_TOKEN, "SLACK_API_URL": workspace.api_url,
                    "SLACK_HOOKS_ORIGINS": workspace.origin}
        url = workspace.response_url()
        with start(**settings) as bot:
            workspace.link().ask(socket_fakes.slash(line, url))
            until(lambda: owed_by_now(journal) == [line])
            kill(bot)
        assert owed(journal) == [line] and workspace.posts[url] == []
        with start(**settings):
            message, = workspace.wait(url)
            assert "restart" in message["text"] and f"`{line}`" in message["text"]


def test_a_line_with_half_a_character_is_written_too(start, slack, journal, gate):
    line, url = f"/late {gate} text \ud83d", slack.response_url()
    with start() as bot:
        assert send(bot, "/slack/interactions", payload(action(line, url))).status == 200
        until(lambda: owed_by_now(journal) == [line.replace("\ud83d", "?")])
        kill(bot)
    with start():
        assert "restart" in slack.wait(url)[0]["text"]


class IdleThread:
    """The thread of a journal in this process; it does nothing before the test lets it."""

    def __init__(self):
        self.work = []

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        self.work.append(lambda: future.set_result(function(*arguments)))
        return future

    def run(self):
        while self.work:
            self.work.pop(0)()


@pytest.fixture
def bot(slack, journal):
    """A Bot in this process, whose threads, the journal's too, do nothing before the test lets
    them."""
    config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET,
                              "SLACK_HOOKS_ORIGINS": slack.origin, "SLACKBOT_ACK_SECONDS": "2"})
    opened = slackbot.Journal(str(journal))
    opened.thread = IdleThread()
    yield slackbot.Bot(config, None, journal=opened, clock=fakes.Clock(), make_pool=fakes.Pool)
    opened.db.close()


def written(bot):
    """The command lines in the journal of a bot in this process."""
    return [line for line, in bot.journal.db.execute("SELECT line FROM owed ORDER BY line")]


def test_a_button_whose_command_ends_leaves_nothing_in_the_journal(slack, bot):
    url = slack.response_url()
    bot.handle_action(action("/help", url))
    assert written(bot) == [], "the thread that accepts doesn't wait for the disk"
    bot.journal.thread.run()
    assert written(bot) == ["/help"]
    bot.workers.run()
    bot.journal.thread.run()
    assert written(bot) == [] and len(slack.posts[url]) == 1


def test_a_button_whose_command_ends_before_it_is_written_leaves_nothing_either(slack, bot):
    url = slack.response_url()
    bot.handle_action(action("/help", url))
    bot.workers.run()
    bot.journal.thread.run()
    assert written(bot) == [] and len(slack.posts[url]) == 1


def test_an_overdue_command_is_acknowledged_when_it_has_been_written(slack, bot):
    sent = []

    def send_first(body, seconds):
        sent.append((body, written(bot)))

    request = slackbot.Request(command="/dig", text="example.com",
                               response_url=slack.response_url())
    assert bot.accept(request, lambda: send_first) is None
    bot.clock.sleep(2.01)
    bot.answer_overdue()
    assert sent == [] and written(bot) == [], "the loop doesn't wait for the disk"
    bot.journal.thread.run()
    (body, written_then), = sent
    assert b"Working on" in body and written_then == ["/dig example.com"]


@pytest.mark.parametrize("what", ["text", "none", "user", "bug"])
def test_a_command_is_struck_out_when_its_last_answer_has_arrived(
        start, slack, journal, gate, what):
    with start(SLACKBOT_ACK_SECONDS=0) as bot:
        lines = f"/late {gate} {what}", f"/yield {'text ' * 9}{what}", f"/then {gate} {what}"
        urls = asked(bot, slack, *lines)
        gate.touch()
        finish(bot)
        until(lambda: owed_by_now(journal) == [])
    assert [len(texts(slack, urls[line])) for line in lines[:2]] == [1, 5]


def test_a_command_is_not_struck_out_before_its_last_answer_has_arrived(
        start, slack, journal, gate):
    with start() as bot:
        line = f"/then {gate} text"
        slack.faults = lambda seen: kill(bot)
        url = asked(bot, slack, line)[line]
        gate.touch()
        assert bot.process.wait(PATIENCE) == -signal.SIGKILL
        assert slack.wait(url)[0]["text"] == "text" and owed(journal) == [line]


# ---- the next start

def test_users_who_still_wait_are_told_once_and_nobody_else_is(start, slack, journal, gate):
    with start(SLACKBOT_WORKERS=3, SLACKBOT_ACK_SECONDS=0.4) as bot:
        ended = asked(bot, slack, "/now text", "/yield text text", "/now bug", "/yield text bug")
        finish(bot)
        until(lambda: owed_by_now(journal) == [])
        before = {url: texts(slack, url) for url in ended.values()}
        owing = asked(bot, slack, f"/then {gate} text --public", f"/late {gate} bug",
                      f"/late {gate} text &lt;!here&gt;", "/now text waits")  # ... for a worker
        kill(bot)
    for _ in range(2):  # the third process has nobody to tell
        with start() as bot:
            for line, url in owing.items():
                message, = slack.wait(url)
                assert f"`{line}`" in message["text"] and "restart" in message["text"]
                assert message["response_type"] == "ephemeral"
            settle(journal)
            until(lambda: owed_by_now(journal) == [])
            kill(bot)
        assert [len(texts(slack, url)) for url in owing.values()] == [1] * 4
        assert {url: texts(slack, url) for url in ended.values()} == before


def test_many_users_who_still_wait_are_told_once_each(start, slack, journal, gate):
    urls = [slack.response_url() for _ in range(60)]
    with start(SLACKBOT_ACK_SECONDS=0) as bot, concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = pool.map(lambda url: bot.command(f"/late {gate} text", response_url=url), urls)
        assert {each.status for each in first} == {200}
        kill(bot)
    with start() as bot:
        for url in urls:
            slack.wait(url)
        until(lambda: owed_by_now(journal) == [])
        settle(journal)
        kill(bot)
    assert [len(texts(slack, url)) for url in urls] == [1] * 60


def test_an_apology_that_fails_is_posted_again_and_arrives_once(start, slack, journal, gate):
    urls = left(start, slack, f"/late {gate} text 1", f"/late {gate} text 2")
    slack.faults = [("status", 500), "reset"]
    with start() as bot:
        assert "text" in bot.command("/now text").text, "it serves meanwhile"
        for url in urls.values():
            slack.wait(url)
        until(lambda: owed_by_now(journal) == [])
        kill(bot)
        assert all(url.rpartition("/")[2] not in bot.output for url in urls.values())
    assert slack.attempts == 4
    assert [len(texts(slack, url)) for url in urls.values()] == [1, 1]


def test_an_apology_that_slack_did_not_take_is_left_for_the_next_start(
        start, slack, journal, gate):
    line = f"/late {gate} text"
    url = left(start, slack, line)[line]
    slack.faults = lambda seen: ("status", 503)
    with start() as bot:
        until(lambda: slack.attempts)
        kill(bot)
    slack.faults = []
    assert owed(journal) == [line]
    with start():
        assert len(slack.wait(url)) == 1


def test_a_user_whose_table_slack_did_not_take_is_told_by_the_next_start(start, slack, journal):
    slack.faults = lambda seen: ("status", 503)
    with start() as bot:
        url = slack.response_url()
        assert bot.command("/table", response_url=url).body == b""
        until(lambda: slack.attempts)
        kill(bot)
    slack.faults = []
    assert owed(journal) == ["/table"]
    with start() as bot:
        message, = slack.wait(url)
        assert "restart" in message["text"] and "`/table`" in message["text"]
        until(lambda: owed_by_now(journal) == [])


def test_a_user_who_asked_more_than_30_minutes_ago_is_not_told(start, slack, journal, gate):
    ages = {f"/late {gate} text {age}": age for age in (1, 1770, 1801, 86400, 10 ** 9)}
    urls = left(start, slack, *ages)
    for line, age in ages.items():
        alter(journal, "since = since - ? WHERE line = ?", age, line)
    with start() as bot:
        for line in list(ages)[:2]:
            slack.wait(urls[line])
        until(lambda: owed_by_now(journal) == [])
        kill(bot)
    assert [len(texts(slack, url)) for url in urls.values()] == [1, 1, 0, 0, 0]


def test_nothing_connects_to_a_foreign_response_url_in_the_journal(start, slack, journal, gate):
    with fakes.Slack() as foreign:
        host, ours = foreign.origin.removeprefix("http://"), slack.origin
        strange = [f"{foreign.origin}/commands/T1/2/3", f"{ours}@{host}/", f"{ours}\\@{host}/",
                   f"{ours}.{host}/", host, f"{ours}0/", f" {ours}/", "", "x", "file:///etc/x"]
        *lines, good = [f"/late {gate} text {number}" for number in range(len(strange) + 1)]
        urls = left(start, slack, good, *lines)
        for line, url in zip(lines, strange, strict=True):
            alter(journal, "url = ? WHERE line = ?", url, line)
        with start() as bot:
            slack.wait(urls[good])
            settle(journal)
            assert bot.command("/now text").json["text"] == "text"
        assert foreign.seen == [] and slack.attempts == 1


def test_a_row_of_the_journal_that_makes_no_sense_does_no_harm_to_the_others(
        start, slack, journal, gate):
    changes = ("url = NULL", "url = 5", "url = x'ff'", "line = NULL", "line = 5", "line = x'ff'",
               "since = NULL", "since = 'soon'", "since = 9e999", "since = -9e999")
    lines = [f"/late {gate} text {number}" for number in range(len(changes) + 2)]
    urls = left(start, slack, *lines)
    for line, change in zip(lines[1:-1], changes, strict=True):
        alter(journal, f"{change} WHERE line = ?", line)
    with start() as bot:
        slack.wait(urls[lines[0]])
        slack.wait(urls[lines[-1]])
        assert bot.command("/now text").json["text"] == "text"


# ---- one process at a time

def refusal(bot):
    """What a *bot* that doesn't start says on stderr; its exit status is 2."""
    done = subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=PATIENCE)
    assert done.returncode == 2 and "listening" not in done.stdout, done
    assert "SLACKBOT_JOURNAL" in done.stderr and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture
def taken():
    """A port on which somebody listens already: binding it would be exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_journal_belongs_to_one_process_at_a_time(start, slack, journal, gate, taken):
    line, other = f"/then {gate} text", f"/late {gate} text"
    with start(SLACKBOT_ACK_SECONDS=0.4) as bot:
        urls = asked(bot, slack, line)
        assert "lock" in refusal(start(PORT=taken))
        urls |= asked(bot, slack, other)
        assert "lock" in refusal(start(PORT=taken))
        kill(bot)
    assert owed(journal) == [other, line]
    with start() as bot:
        assert [len(slack.wait(url)) for url in urls.values()] == [1, 1]
        assert bot.command("/now text").json["text"] == "text"
    assert sorted(path.name for path in journal.parent.iterdir()
                  if "damaged" in path.name) == []


def test_the_demo_leaves_the_journal_and_socket_mode_alone(script, start, slack, journal, gate):
    line = f"/late {gate} text"
    url = left(start, slack, line)[line]
    before = bytes_of(journal)
    with socket_fakes.Workspace() as workspace, fakes.Bot(
            "demo", script=script, SLACKBOT_JOURNAL=journal, SLACK_HOOKS_ORIGINS=slack.origin,
            SLACK_APP_TOKEN=socket_fakes.APP_TOKEN, SLACK_API_URL=workspace.api_url) as demo:
        assert demo.get("/status").json["mode"] == "demo" and bytes_of(journal) == before
        with start():
            assert "restart" in slack.wait(url)[0]["text"]
        assert workspace.calls == []


def test_a_command_in_the_terminal_runs_beside_the_process_with_the_journal(start, journal):
    with start() as bot:
        before = bytes_of(journal)
        done = subprocess.run([*bot.command_line, "run", "/yield", "text", "text"], text=True,
                              env=bot.environ, capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (0, "text\ntext\n"), done.stderr
        assert bytes_of(journal) == before


# ---- a file that is damaged, or can't be written

@pytest.fixture(scope="module")
def sound(script, tmp_path_factory):
    """The bytes of a journal with commands in it."""
    place = tmp_path_factory.mktemp("sound")
    with fakes.Bot(script=script, SLACKBOT_JOURNAL=place / "journal",
                   SLACK_HOOKS_ORIGINS="http://127.0.0.1:9") as bot:
        for number in range(80):
            bot.command(f"/then {place}/gate text {'and so on ' * 9}{number}",
                        response_url="http://127.0.0.1:9/x")
        kill(bot)
    assert len(owed(place / "journal")) == 80  # no `-journal` is needed any more
    return (place / "journal").read_bytes()


def noise(size):
    return random.Random(size).randbytes(size)


def patched(data, place, patch):
    return data[:place] + patch + data[place + len(patch):]


PAGE = 4096
DAMAGED = {
    "random bytes": lambda data: noise(10_000),
    "a text": lambda data: b"To do: buy milk\n" * 1000,
    "zeros": lambda data: bytes(2 * PAGE),
    "no header": lambda data: patched(data, 0, b"x"),
    "nothing but the header": lambda data: data[:100],
    "one page": lambda data: data[:PAGE],
    "a garbled page 1": lambda data: patched(data, 100, noise(PAGE - 100)),
    "a garbled last page": lambda data: data[:-PAGE] + noise(PAGE),
    "garbled pages": lambda data: patched(data, PAGE, noise(len(data) - PAGE)),
    "an unknown schema format": lambda data: patched(data, 47, b"\x09"),
    "a garbled schema": lambda data: data.replace(b"CREATE TABLE", b"CREATE TXBLE"),
    "a text that isn't UTF-8": lambda data: data.replace(b"and so on", b"\xff\xfe\xfd\xfcso on"),
}


def works(bot, journal, gate):
    """Whether *bot* serves, and keeps its journal."""
    assert bot.command("/now text").json["text"] == "text"
    line = f"/then {gate} text fresh"
    assert bot.command(line).json["text"] == "first"
    kill(bot)
    return owed(journal) == [line]


STALE = bytes.fromhex("d9d505f920a163d7ffffffff") + noise(3 * PAGE)


@pytest.mark.parametrize("how, suffix", [
    *[(how, "") for how in DAMAGED], ("random bytes", "-journal"), ("zeros", "-journal"),
    ("a garbled last page", "-journal"), ("random bytes", "-wal")])
def test_a_damaged_journal_is_set_aside_and_the_bot_serves(start, sound, journal, gate, how,
                                                           suffix):
    data = DAMAGED[how](sound)
    assert data != sound
    journal.with_name("journal" + suffix).write_bytes(STALE)
    journal.write_bytes(data)
    with start(SLACK_HOOKS_ORIGINS="http://127.0.0.1:9") as bot:
        assert bot.process.poll() is None, bot.output
        aside = [path.read_bytes() for path in journal.parent.glob("*.damaged*")]
        assert data in aside
        until_logged(bot, "event=journal_damaged")
        assert works(bot, journal, gate)


@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
@pytest.mark.parametrize("size", [None, 0])
def test_a_journal_that_is_empty_or_not_there_is_made(start, journal, gate, suffix, size):
    journal.with_name("journal" + suffix).write_bytes(STALE)
    if size is not None:
        journal.touch()
    with start() as bot:
        check_log(bot)
        assert "damaged" not in bot.output and works(bot, journal, gate)


def test_a_journal_can_be_damaged_twice(start, journal, gate):
    for _ in range(2):
        journal.write_bytes(noise(10_000))
        with start() as bot:
            assert works(bot, journal, gate)


def fifo(place):
    os.mkfifo(place / "fifo")
    return place / "fifo"


def loop(place):
    (place / "loop").symlink_to(place / "loop")
    return place / "loop"


def server(place):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / "socket"))
    return place / "socket"


def damaged(place):
    """A damaged journal with a name so long that there is no longer one."""
    (place / ("x" * 250)).write_bytes(noise(10_000))
    return place / ("x" * 250)


def device(place):
    """A device like /dev/null, of which none but this one can come to harm."""
    try:
        os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        pytest.skip("no devices can be made here")
    os.chmod(place / "null", 0o666)
    return place / "null"


def link_to_device(place):
    (place / "link").symlink_to(device(place))
    return place / "link"


UNUSABLE = {
    "a device": device, "a link to a device": link_to_device,
    "a directory": lambda place: place,
    "a directory that isn't there": lambda place: place / "missing" / "journal",
    "in a file": lambda place: __file__ + "/journal",
    "read-only": lambda place: "/proc/journal",
    "a name that is too long": lambda place: place / ("x" * 256),
    "a name that is too long for its companions": lambda place: place / ("x" * 250),
    "damaged, and can't be set aside": damaged,
    "a pipe": fifo, "a loop": loop, "a socket": server,
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_journal_that_cannot_be_written_is_a_bad_value(start, journal, taken, what):
    refusal(start(SLACKBOT_JOURNAL=UNUSABLE[what](journal.parent), PORT=taken))


@pytest.mark.parametrize("make", [device, link_to_device, fifo, server, lambda place: place])
def test_what_is_no_file_is_refused_as_a_journal_and_keeps_its_mode(start, journal, make):
    path = make(journal.parent)
    path.chmod(0o666)
    before = path.stat().st_mode
    refusal(start(SLACKBOT_JOURNAL=path))
    assert path.stat().st_mode == before


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/tmp", "/", "."])
def test_a_configuration_takes_nothing_but_a_file_as_a_journal(path):
    with pytest.raises(slackbot.ConfigError, match="^SLACKBOT_JOURNAL"):
        slackbot.Config({"SLACK_SIGNING_SECRET": "s", "SLACKBOT_JOURNAL": path})


def test_a_journal_is_its_owners_alone_before_anything_is_in_it(journal, monkeypatch):
    def note(function):
        def noting(*arguments, **options):
            result = function(*arguments, **options)
            modes.append(stat.S_IMODE(journal.stat().st_mode))
            return result
        return noting

    modes = []
    before = os.umask(0)
    try:
        monkeypatch.setattr(os, "open", note(os.open))
        monkeypatch.setattr(os, "chmod", note(os.chmod))
        monkeypatch.setattr(sqlite3, "connect", note(sqlite3.connect))
        made = slackbot.Journal(str(journal))
        monkeypatch.undo()
        made.thread.shutdown()
        made.db.close()
    finally:
        os.umask(before)
    assert set(modes) == {0o600} and len(modes) >= 2


def test_a_journal_that_can_only_be_read_is_a_bad_value(start, sound, taken):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        journal = Path(place) / "journal"
        journal.write_bytes(sound)
        journal.chmod(0o444)
        if os.getuid() == 0:  # who may write what nobody may
            os.chown(journal, 65534, 65534)
        refusal(start(SLACKBOT_JOURNAL=journal, NOBODY=1, PORT=taken))


@pytest.mark.parametrize("data", [b"", noise(10_000)], ids=["fresh", "damaged"])
def test_a_journal_on_a_full_disk_is_a_bad_value(start, journal, taken, data):
    journal.write_bytes(data)
    refusal(start(ROOM=0, PORT=taken))


def test_a_bad_journal_is_reported_beside_the_other_bad_values(start, journal):
    assert "LOG_LEVEL" in refusal(start(SLACKBOT_JOURNAL=journal.parent, LOG_LEVEL="loud"))


def test_commands_are_served_though_the_disk_is_full(start, slack, journal, gate):
    with start(SLACKBOT_ACK_SECONDS=0.4) as bot:
        asked(bot, slack, "/disk 0")
        lines = f"/then {gate} text", f"/late {gate} text", f"/late {gate} bug", "/yield text text"
        urls = asked(bot, slack, *lines)
        gate.touch()
        finish(bot)
        assert [len(texts(slack, url)) for url in urls.values()] == [1] * 4
        until_logged(bot, "event=journal_failed")
        gate.unlink()
        asked(bot, slack, "/disk -1", lines[0])
        kill(bot)
    assert owed(journal) == [lines[0]], "with room again, it is written again"


@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_only_its_owner_can_read_the_journal(start, journal, gate, before):
    if before is not None:
        journal.touch()
        journal.chmod(before)
    with start(UMASK=0) as bot:
        assert bot.command(f"/then {gate} text").json["text"] == "first"
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in journal.parent.iterdir()}
    assert set(modes.values()) == {"0o600"}, modes


# ---- SIGTERM

def test_after_sigterm_users_are_told_once_and_the_journal_is_empty(start, slack, journal, gate):
    with start(SOON_OVER, SLACKBOT_WORKERS=2, SLACKBOT_ACK_SECONDS=0.4) as bot:
        urls = asked(bot, slack, f"/then {gate} text", f"/late {gate} text", "/now text waits")
        bot.process.terminate()
        assert bot.process.wait(PATIENCE) == 0
    assert [len(texts(slack, url)) for url in urls.values()] == [1] * 3 and owed(journal) == []
    with start():
        settle(journal)
    assert slack.attempts == 3


def test_users_who_could_not_be_told_before_the_end_are_told_by_the_next_start(
        start, slack, journal, gate):
    lines = f"/late {gate} text", f"/then {gate} text"
    with start({**SOON_OVER, "TELL_SECONDS": 1}, SLACKBOT_ACK_SECONDS=0.4) as bot:
        urls = asked(bot, slack, *lines)
        slack.faults = lambda seen: ("status", 503)
        bot.process.terminate()
        assert bot.process.wait(PATIENCE) == 0 and slack.attempts
    assert owed(journal) == sorted(lines)
    slack.faults = []
    with start() as bot:
        for url in urls.values():
            assert "restart" in slack.wait(url)[0]["text"]
        until(lambda: owed_by_now(journal) == [])
        kill(bot)
    assert [len(texts(slack, url)) for url in urls.values()] == [1, 1]


@pytest.mark.parametrize("state", ["stopping", "too many"])
def test_a_refusal_that_has_to_be_posted_is_in_the_journal_until_it_has_arrived(slack, bot, state):
    def lines():
        bot.journal.thread.run()
        return [line for line, in bot.journal.db.execute("SELECT line FROM owed")]

    url = slack.response_url()
    if state == "stopping":
        bot.draining = True
    else:
        bot.config.slackbot_workers = bot.config.slackbot_queue = 0
    bot.accept(slackbot.Request(command="/hello", response_url=url))
    assert lines() == ["/hello"], "kill -9 would leave this user without a word"
    bot.posters.run()
    assert lines() == [] and len(slack.posts[url]) == 1
