"""The HTTP server: what anybody on the internet may send it, byte by byte, and its connections.

`HOSTILE` is the table of bad inputs in reference/hostile-input-and-hosts.md, row by row; most of
it is in hostile.py."""

import concurrent.futures
import contextlib
import email.utils
import fcntl
import functools
import itertools
import json
import os
import random
import re
import socket
import struct
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

import fakes
import slackbot
from api_fakes import until
from fakes import PATIENCE
from hostile import (CLOSE, FORM, LENGTHS, MALFORMED, NEXT, Reply, ask, connect, finish, get, http,
                     mutate, post, receive, send, talk, whole)

serial = itertools.count()


def signed(body=None, *fields, path="/slack/commands", kind=FORM, length=None, **changes):
    """The bytes of a signed command; *changes* replace (or, when None, leave out) a field of the
    signature's, `timestamp` signs a time of its own."""
    body = fakes.form(f"/hello {next(serial)}") if body is None else body
    headers = fakes.sign(body, timestamp=changes.pop("timestamp", None))
    for name, value in changes.items():
        headers["X-Slack-" + name] = value
    lines = [f"{name}: {value}".encode().decode("latin-1")
             for name, value in headers.items() if value is not None]
    size = f"Content-Length: {len(body) if length is None else length}"
    return http(f"POST {path} HTTP/1.1", kind, size, *lines, *fields) + body


def check_log(bot):
    """The log has no traceback yet."""
    assert "Traceback" not in bot.output


def check_service(bot):
    """The server still answers, and its log has no traceback."""
    assert bot.get("/healthz").status == 200
    word = f"word-{next(serial)}"
    answer = bot.command("/hello " + word)
    assert answer.status == 200 and word in answer.json["text"]
    check_log(bot)


@contextlib.contextmanager
def run_bot():
    """A bot whose whole log is checked at the end."""
    with fakes.Bot() as bot:
        yield bot
        marker = f"the-end-of-the-log-{next(serial):06}"
        bot.get("/healthz", **{"X-Request-ID": marker})
        until(lambda: marker in bot.output)  # its lines are written a moment later
        check_log(bot)


@pytest.fixture(scope="module")
def bot():
    with run_bot() as bot:
        yield bot


# ---- the table of bad inputs ----

WRONG = {"Signature": "v0=0"}
HELLO = fakes.form("/hello")


def at(seconds):
    """A command signed *seconds* from now: `±301` is at least 301 off, though it takes a while to
    arrive."""
    return lambda: signed(timestamp=int(time.time()) + seconds + 20 * (seconds > 0))


HOSTILE = [  # more rows like those of MALFORMED, their bytes made when they are sent
    *MALFORMED,
    (45, "two Content-Types", lambda: signed(None, "Content-Type: text/plain"), {400}),
    (47, "unknown expectation", lambda: signed(None, "Expect: foo"), {417}),
    (57, "a signed command, but 5 bytes of it are missing",
     lambda: signed(HELLO, length=len(HELLO) + 5), {400, CLOSE}),
    (67, "no signature", lambda: signed(Signature=None), {401}),
    (67, "no timestamp", lambda: signed(**{"Request-Timestamp": None}), {401}),
    (67, "wrong signature", lambda: signed(Signature="v0=" + "0" * 64), {401}),
    (67, "signature é", lambda: signed(Signature="v0=é"), {401}),
    (67, "signature of 64 times é", lambda: signed(Signature="v0=" + "é" * 64), {401}),
    (68, "301 seconds old", at(-301), {401}),
    (68, "301 seconds early", at(301), {401}),
    (68, "time abc", lambda: signed(timestamp="abc"), {401}),
    (68, "time in Arabic digits", lambda: signed(timestamp=arabic(int(time.time()))), {401}),
    (68, "time of 5,000 digits", lambda: signed(timestamp="1" * 5000), {401}),
    (69, "body %ff", lambda: signed(b"command=/hello&text=%ff%fe"), {200, 400}),
    (69, "raw 0xFF in the body", lambda: signed(b"command=/hello&text=\xff\xfe"), {200, 400}),
    (69, "2,000 fields", lambda: signed(b"&".join(b"f%d=v" % i for i in range(2000))), {200, 400}),
    (69, "lone surrogate in a form", lambda: signed(b"command=/hello&text=%ED%A0%80"), {200, 400}),
]
ELSEWHERE = {58, 65, 66}  # these rows take time, or many connections: tests of their own, below
# Rows that leave no doubt where the request ends: the connection may live on.
SURE = {10, 13, 20, 22, 23, 24, 26, 46, 67, 68, 69}


def arabic(number):
    return str(number).translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))


@pytest.mark.parametrize("row", HOSTILE, ids=lambda row: f"row {row[0]}, {row[1]}")
def test_a_bad_input_gets_one_answer_and_the_server_goes_on(bot, row):
    number, _, data, wanted = row
    got = talk(bot, data() if callable(data) else data, half_close=CLOSE in wanted)
    if got:
        reply = Reply(got)
        assert reply.status in wanted, reply.body
        assert reply.rest == b"", "a second answer"
        assert number in SURE or reply.closes
    else:
        assert CLOSE in wanted, "closed without a word"
    check_service(bot)


def test_no_row_of_the_table_is_left_out():
    assert {row[0] for row in HOSTILE} | ELSEWHERE == set(range(1, 70))


def memory(bot):
    """What the bot's process holds, in MB."""
    try:
        status = Path(f"/proc/{bot.process.pid}/status").read_text()
    except FileNotFoundError:
        pytest.skip("no /proc here")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1000


def test_an_endless_header_takes_no_memory(bot):
    check_service(bot)
    before = memory(bot)
    for start in (b"GET / HTTP/1.1\r\nX: ", b"", b"GET /"):
        assert Reply(talk(bot, start + b"a" * 40_000_000)).status in (400, 414, 431)
    assert memory(bot) - before < 10


def test_a_client_that_asks_much_and_reads_nothing_takes_little_memory(other_bot):
    before = memory(other_bot)
    with connect(other_bot, timeout=0.5) as peer:
        with contextlib.suppress(TimeoutError):
            send(peer, get(path="/") * 20_000)
        check_service(other_bot)
        assert memory(other_bot) - before < 30


# ---- what is served ----

LIMITS = [
    *LENGTHS,
    ("a body of 1 MiB", lambda: signed((HELLO + b"&pad=").ljust(2 ** 20, b"a")), 200),
    ("a body of 1 MiB and a byte", lambda: signed(b"a" * (2 ** 20 + 1)), 413),
    ("a body of 3 MiB", lambda: signed(b"a" * (3 * 2 ** 20)), 413),
]


@pytest.mark.parametrize("what, data, status", LIMITS, ids=[row[0] for row in LIMITS])
def test_what_is_within_the_limits_is_served(bot, what, data, status):
    reply = Reply(talk(bot, data() if callable(data) else data))
    assert reply.status == status and not reply.rest
    check_service(bot)


ROUTES = [
    ("GET", "/", 200), ("GET", "/index.html", 200), ("GET", "/healthz", 200),
    ("GET", "/status", 200), ("GET", "/healthz?x=y", 200), ("POST", "/slack/commands", 200),
    ("POST", "/", 200), ("POST", "/hello", 200), ("POST", "/slash-commands/hello", 200),
    ("POST", "/no-such-command", 200), ("GET", "/a/b/c", 404), ("POST", "/a/b/c", 404),
    ("POST", "/slash-commands/a/b", 404), ("POST", "/slack/other", 404),
    ("GET", "/slack/commands", 405), ("DELETE", "/", 405), ("PATCH", "/healthz", 405),
    ("PUT", "/slack/commands", 405), ("DELETE", "/status", 405), ("BREW", "/healthz", 501),
]


@pytest.mark.parametrize("method, path, status", ROUTES)
def test_a_path_and_a_method_give_the_status(bot, method, path, status):
    data = signed(path=path).replace(b"POST", method.encode(), 1)
    reply = Reply(talk(bot, data if method == "POST" else http(f"{method} {path} HTTP/1.1")))
    assert reply.status == status, reply.body
    if status == 405:
        allowed = set(re.split(r",\s*", reply.headers["allow"]))
        served = {"POST"} if path.startswith("/slack/") else {"GET", "HEAD"}
        assert served <= allowed and method not in allowed


@pytest.mark.parametrize("path", ["/slackbot.py", "/tests/fakes.py", "/.git/config", "/.env",
                                  "/index.html/", "/healthz/", "/demo/secret", "/demo/hooks/1"])
def test_nothing_is_served_that_is_not_meant_to_be(bot, path):
    assert Reply(talk(bot, get(path=path))).status in (404, 405)


def test_the_pages_say_what_they_are(bot):
    page, health, status = (bot.get(path) for path in ("/", "/healthz", "/status"))
    assert page.headers["Content-Type"].startswith("text/html") and "<html" in page.text.lower()
    assert set(health.json) == {"status", "version", "uptime_seconds", "running", "waiting",
                                "done", "failed"}
    assert health.json["status"] == "ok"
    assert set(status.json) == {"mode", "version", "commands", "missing"}
    assert status.json["mode"] == "live"
    hello = [each for each in status.json["commands"] if each["name"] == "/hello"]
    assert len(hello) == 1 and set(hello[0]) == {"name", "usage", "summary"}


def test_health_counts_the_commands_that_were_done(bot):
    before = bot.get("/healthz").json
    for _ in range(3):
        assert bot.command(f"/hello {next(serial)}").status == 200
    until(lambda: bot.get("/healthz").json["done"] >= before["done"] + 3)
    assert bot.get("/healthz").json["failed"] == before["failed"]


@pytest.mark.parametrize("path", ["/", "/index.html", "/healthz", "/status", "/a/b/c"])
def test_head_is_get_without_the_body(bot, path):
    shown = Reply(talk(bot, get(path=path)))
    head = Reply(talk(bot, http(f"HEAD {path} HTTP/1.1"), half_close=True), head_only=True)
    assert (head.status, head.rest) == (shown.status, b"")
    assert head.headers["content-type"] == shown.headers["content-type"]
    assert abs(int(head.headers["content-length"]) - len(shown.body)) < 5  # time goes on


def test_the_page_greets_but_runs_no_script(bot):
    page = bot.get("/?name=%3Cscript%3Ealert(1)%3C/script%3E")
    assert page.status == 200 and "<script>alert(1)" not in page.text


@pytest.mark.parametrize("path", ["/slack/commands", "/", "/hello"])
def test_the_ssl_check_is_answered_without_a_signature(bot, path):
    body = "token=abc&ssl_check=1&command=%2Fhello"
    reply = Reply(talk(bot, post(f"Content-Length: {len(body)}", path=path, body=body)))
    assert (reply.status, reply.body, reply.rest) == (200, b"", b"")


@pytest.mark.parametrize("body", ["text=ssl_check%3D1&command=%2Fhello", "xssl_check=1",
                                  "ssl_check=0&command=%2Fhello", "ssl_check=&command=%2Fhello"])
def test_what_only_looks_like_an_ssl_check_needs_a_signature(bot, body):
    assert Reply(talk(bot, post(f"Content-Length: {len(body)}", body=body))).status == 401


@pytest.mark.parametrize("identifier", ["a" * 20, "Zz9+/=-" * 28, "0" * 200])
def test_the_request_id_of_the_client_comes_back(bot, identifier):
    for data, status in [(get(f"X-Request-ID: {identifier}"), 200),
                         (get(f"x-request-id:{identifier}", path="/a/b/c"), 404),
                         (signed(None, f"X-REQUEST-ID: {identifier}", Signature="v0=0"), 401)]:
        reply = Reply(talk(bot, data))
        assert (reply.status, reply.headers["x-request-id"]) == (status, identifier)


@pytest.mark.parametrize("identifier", ["a" * 19, "a" * 201, "a" * 20 + "_", "a b" * 10, "",
                                        "a" * 20 + "\xe9", "a" * 20 + ";", "<script>" * 4])
def test_a_request_id_of_another_shape_is_replaced(bot, identifier):
    replies = [Reply(talk(bot, get(f"X-Request-ID: {identifier}"))) for _ in range(2)]
    identifiers = {reply.headers["x-request-id"] for reply in replies}
    assert [reply.status for reply in replies] == [200, 200]
    assert len(identifiers) == 2 and identifier not in identifiers


# ---- connections ----

def test_a_connection_is_kept_for_the_next_request(bot):
    with connect(bot) as peer:
        assert ask(peer, get()).status == 200
        for _ in range(3):
            word = f"kept-{next(serial)}"
            reply = ask(peer, signed(fakes.form("/hello " + word)))
            assert reply.status == 200 and word in reply.json["text"] and not reply.rest
        assert ask(peer, get(path="/a/b/c")).status == 404


@pytest.mark.parametrize("method, path, kind, status", [
    ("POST", "/slack/commands", FORM, 401), ("POST", "/a/b/c", FORM, 404),
    ("PUT", "/slack/commands", FORM, 405), ("BREW", "/", FORM, 501),
    ("POST", "/slack/commands", "Content-Type: text/plain", 415)])
def test_a_refused_body_is_never_read_as_a_request(bot, method, path, kind, status):
    data = signed(NEXT.encode(), path=path, kind=kind, **WRONG if status == 401 else {})
    with connect(bot) as peer:
        reply = ask(peer, data.replace(b"POST", method.encode(), 1) + get("Connection: close"))
        assert reply.status == status
        rest = reply.rest + receive(peer)
        if not reply.closes:
            last = Reply(rest)
            assert last.status == 200 and last.closes and not last.rest
        else:
            assert not rest


@pytest.mark.parametrize("half_close", [False, True])
def test_pipelined_requests_are_answered_in_order(bot, half_close):
    words = [f"pipe-{next(serial)}" for _ in range(8)]
    data = b"".join(signed(fakes.form("/hello " + word)) for word in words)
    with connect(bot) as peer:
        send(peer, data + get(path="/a/b/c") + get("Connection: close"))
        if half_close:
            finish(peer)
        got = receive(peer)
    for word in words:
        reply = Reply(got)
        assert reply.status == 200 and word in reply.json["text"]
        got = reply.rest
    missing = Reply(got)
    assert missing.status == 404
    last = Reply(missing.rest)
    assert last.status == 200 and last.closes and not last.rest


@pytest.mark.parametrize("data", [get("Connection: close"), get("Connection: Close"),
                                  get("connection: foo, close"), http("GET /healthz HTTP/1.0"),
                                  http("GET /healthz HTTP/1.0", host=None)])
def test_a_client_that_wants_no_second_answer_gets_none(bot, data):
    reply = Reply(talk(bot, data + get()))
    assert reply.status == 200 and reply.closes and not reply.rest


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(bot):
    command = signed(None, "Expect: 100-continue")
    head, body = command.split(b"\r\n\r\n")
    with connect(bot) as peer:
        go_on = ask(peer, head + b"\r\n\r\n")
        assert go_on.status == 100 and not go_on.rest
        assert ask(peer, body).status == 200
        assert ask(peer, get()).status == 200


def test_a_request_may_come_byte_by_byte(bot):
    with connect(bot) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in signed():
            peer.sendall(bytes([byte]))
            time.sleep(0.0005)
        assert Reply(receive(peer, whole)).status == 200


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_request_may_come_in_any_parts(bot, parts):
    command = signed()
    step = len(command) // parts + 1
    with connect(bot) as peer:
        for start in range(0, len(command), step):
            peer.sendall(command[start:start + step])
            time.sleep(0.03)
        assert Reply(receive(peer, whole)).status == 200


def test_a_request_may_end_with_the_clients_half_of_the_connection(bot):
    reply = Reply(talk(bot, signed(), half_close=True))
    assert reply.status == 200 and not reply.rest


# ---- mutations ----

def valid_requests():
    """A pair of each kind of valid request: its head (to sign or not), its body."""
    hook = "https://hooks.slack.com/commands/T1/2/3"
    yield from ((get(path=path), None) for path in ("/?name=Robert", "/healthz", "/status"))
    yield http("HEAD / HTTP/1.1", "Connection: close"), None
    yield "/slack/commands", fakes.form("/hello Example", response_url=hook)
    yield "/slack/commands", fakes.form("/help /jira --public", response_url=hook)
    yield "/hello", fakes.form("/hello it's “smart” &amp; <@U1|bob>")


def mutant(seed):
    """A valid request gone wrong: the bytes on the wire, or a body that is signed as it is."""
    chance = random.Random(seed)
    head, body = chance.choice(list(valid_requests()))
    if body is None:
        return mutate(chance, head)
    if chance.random() < 0.5:
        return signed(mutate(chance, body), path=head)
    return mutate(chance, signed(body, path=head))


def complaint(bot, seed):
    """What is wrong with the answers to a mutant, or None."""
    data = mutant(seed)
    try:
        got = rest = talk(bot, data, half_close=True)
        while rest:
            body = rest.partition(b"\r\n\r\n")[2]
            reply = Reply(rest, head_only=not body or body.startswith(b"HTTP/1.1 "))
            assert reply.status != 500
            rest = reply.rest
    except TimeoutError:
        return f"mutant {seed} hangs: {data!r}"
    except (AssertionError, ValueError, KeyError) as error:
        return f"mutant {seed}: {error!r} {data!r} -> {got[:300]!r}"
    return None


def test_mutated_requests_get_an_answer_or_an_error_but_never_a_500():
    """SLACKBOT_MUTATIONS says how many to try."""
    count = int(os.environ.get("SLACKBOT_MUTATIONS", 1000))
    first = int(os.environ.get("SLACKBOT_SEED", 0))
    with fakes.Bot() as bot, concurrent.futures.ThreadPoolExecutor(16) as pool:
        seeds = range(first, first + count)
        complaints = list(filter(None, pool.map(lambda seed: complaint(bot, seed), seeds)))
        assert not complaints, f"{len(complaints)} complaints, the first: {complaints[0]}"
        check_service(bot)


# ---- many ----

HALF = signed()[:-10]
IDLE = [("silent", b""), ("with half a head", get()[:-5]), ("with half a body", HALF),
        ("after an answer", get())]


@pytest.fixture(scope="module")
def other_bot():
    """A bot to which no other tests have connections."""
    with run_bot() as bot:
        yield bot


def connect_many(bot, count, data):
    """*count* connections that have sent *data* and now wait."""
    peers = []
    for _ in range(count):
        peers.append(connect(bot))
        send(peers[-1], data)
    return peers


@pytest.mark.parametrize("what, data", IDLE, ids=[row[0] for row in IDLE])
def test_300_idle_connections_delay_no_other(other_bot, what, data):
    peers = connect_many(other_bot, 300, data)
    try:
        begin = time.monotonic()
        for _ in range(3):
            check_service(other_bot)
        assert time.monotonic() - begin < slackbot.REQUEST_SECONDS, "they have been closed"
    finally:
        for peer in peers:
            peer.close()


def test_row_66_500_idle_connections_leave_the_server_healthy(other_bot):
    peers = connect_many(other_bot, 500, b"")
    try:
        assert other_bot.get("/healthz").status == 200
    finally:
        for peer in peers:
            peer.close()


def test_row_66_a_reset_in_the_middle_of_an_answer_harms_no_other(bot):
    for data in (b"", get(path="/"), signed(), get(path="/") * 50, HALF) * 25:
        peer = connect(bot)
        send(peer, data)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    check_service(bot)


FEW_FILES = """
import resource, slackbot

resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
slackbot.main()
"""


def test_running_out_of_file_descriptors_does_not_end_the_server(tmp_path):
    script = tmp_path / "few.py"
    script.write_text(FEW_FILES)
    with fakes.Bot(script=script, SLACKBOT_CONNECTIONS=1000) as bot:
        peers = connect_many(bot, 100, b"")
        time.sleep(0.2)
        for peer in peers:
            peer.close()
        time.sleep(0.2)
        check_service(bot)


SLOW_COMMAND = """
import pathlib, time, slackbot

@slackbot.command("/slow")
def slow(request, gate):
    "Wait for a file."
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    return "done"

slackbot.main()
"""


@pytest.fixture
def slow_script(tmp_path):
    """The path of a script with a command that waits for a file."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW_COMMAND)
    return script


def one_of_a_flood(bot, connection, gate, number):
    """What one of many gets for a slow command."""
    command = signed(fakes.form(f"/slow {gate}", trigger_id=number), f"Connection: {connection}")
    for _ in range(20):  # one of 60 threads may be late to send, and has made room by then
        with connect(bot) as peer:
            send(peer, command)
            received = receive(peer, whole)
        if received:
            break
    return Reply(received).status


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("connections", [4, 20])
def test_in_a_flood_of_slow_commands_every_client_gets_an_answer(slow_script, gate, connections,
                                                                 connection):
    with (fakes.Bot(script=slow_script, SLACKBOT_CONNECTIONS=connections, SLACKBOT_QUEUE=10,
                    SLACKBOT_ACK_SECONDS=0.1) as bot,
          concurrent.futures.ThreadPoolExecutor(60) as pool):
        ask_one = functools.partial(one_of_a_flood, bot, connection, gate)
        assert set(pool.map(ask_one, range(60))) == {200}
        check_service(bot)


def test_clients_that_disconnect_before_their_answer_harm_no_other(slow_script, gate):
    with fakes.Bot(script=slow_script, SLACKBOT_ACK_SECONDS=0.1) as bot:
        for peer in connect_many(bot, 40, signed(fakes.form(f"/slow {gate}"))):
            peer.close()
        check_service(bot)
        until(lambda: bot.get("/healthz").json["running"])
        time.sleep(0.2)  # until they have been acknowledged
        check_service(bot)
        gate.touch()
        until(lambda: not bot.get("/healthz").json["running"])
        check_service(bot)


def send_a_hundred_commands(bot, client):
    """A hundred commands of one client, half of them over one connection."""
    with connect(bot) as peer:
        for number in range(50):
            word = f"client-{client}-{number}"
            assert word in ask(peer, signed(fakes.form("/hello " + word))).json["text"]
            assert word in bot.command("/hello " + word).json["text"]


def test_a_thousand_commands_get_a_thousand_answers_each_its_own(bot):
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(functools.partial(send_a_hundred_commands, bot), range(10)))
    check_service(bot)


def test_clients_that_never_read_their_answers_make_room_for_a_new_one():
    with fakes.Bot(SLACKBOT_CONNECTIONS=8) as bot:
        peers = connect_many(bot, 8, get(path="/") * 500)  # none of them reads its answers
        try:
            time.sleep(0.5)  # until the kernel takes no more for any of them
            for _ in range(20):
                assert Reply(talk(bot, get())).status == 200
        finally:
            for peer in peers:
                peer.close()
        check_service(bot)


def test_a_client_that_never_stops_asking_keeps_no_other_out():
    over = threading.Event()

    def read(peer):
        with contextlib.suppress(OSError):
            receive(peer)

    def insist(bot):
        while not over.is_set():
            with contextlib.suppress(OSError), connect(bot) as peer:
                threading.Thread(target=read, args=(peer,), daemon=True).start()
                while not over.is_set():
                    peer.sendall(get() * 50)

    with fakes.Bot(SLACKBOT_CONNECTIONS=2) as bot, connect(bot):
        insistent = threading.Thread(target=insist, args=(bot,), daemon=True)
        insistent.start()
        time.sleep(0.2)
        try:
            for _ in range(5):
                assert Reply(talk(bot, get())).status == 200
        finally:
            over.set()
            insistent.join(PATIENCE)


LONG = {"blanks": b"A:" + b" " * 60_000 + b"\0", "words": b"A: " + b"x " * 30_000 + b"\0",
        "a name": b"A" * 60_000, "tabs": b"A:" + b"\t" * 60_000 + b"\r"}


@pytest.mark.parametrize("what", LONG)
def test_a_long_bad_header_field_is_refused_as_quickly_as_a_short_one(what):
    begun = time.thread_time()
    with pytest.raises(slackbot.HTTPError):
        slackbot.parse_fields(LONG[what] + b"\r\n")
    assert time.thread_time() - begun < 0.5


# ---- the server alone: the time is the test's, the sockets are real ----

LARGE = 6_000_000  # bytes; more than a kernel takes


@pytest.fixture
def make_server(monkeypatch):
    """A function that makes a server whose loop turns when the test says so. It has a command
    `/slow`, which the test runs by `server.bot.workers.run()`, and an answer `/large`."""
    monkeypatch.setattr(slackbot, "commands", dict(slackbot.commands))
    slackbot.command("/slow")(lambda request: "done")
    made = []

    def make(**environ):
        config = slackbot.Config({"PORT": "0", "HOST": "127.0.0.1",
                                  "SLACK_SIGNING_SECRET": fakes.SECRET, **environ})
        clock = fakes.Clock()
        bot = slackbot.Bot(config, None, clock=clock, sleep=clock.sleep, make_pool=fakes.Pool)
        server = slackbot.WebServer(config, bot, clock=clock)
        server.routes["/large"] = {"GET": lambda connection: slackbot.Response(200, b"x" * LARGE)}
        server.peers = []
        made.append(server)
        return server
    yield make
    for server in made:
        for peer in server.peers:
            peer.close()
        if server.socket.fileno() >= 0:
            turn(server)
            server.server_close()


def turn(server, seconds=0):
    """Let some *seconds* pass, and the server do all that is to do then."""
    server.clock.now += seconds
    server.handle_request(0)
    for _ in range(1000):
        # All that the clients have sent is here; but even loopback may take its time for the rest.
        if not server.selector.select(0.004) and not any(map(unsent, server.peers)):
            return
        server.handle_request(0)
    raise AssertionError("a busy loop")


def unsent(peer):
    """How many bytes a client has sent that have not yet arrived."""
    if peer.fileno() < 0:
        return 0
    return int.from_bytes(fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def open_connection(server, data=b"", buffer=None):
    """A client's socket, and what the server has for it: a Connection, or None."""
    before = set(server.connections)
    peer = socket.socket()
    server.peers.append(peer)
    if buffer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    peer.settimeout(5)
    peer.connect(server.server_address)
    if buffer:  # the window stays small until something is read
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 ** 20)
    turn(server)
    connection, = server.connections - before or [None]
    if data:
        peer.sendall(data)
        turn(server)
    return peer, connection


def slow(**fields):
    """The bytes of a slow command."""
    return signed(fakes.form("/slow", trigger_id=next(serial), **fields))


def tell(server, peer, data):
    """The server's answer to a client's *data*."""
    peer.sendall(data)
    turn(server)
    return Reply(receive(peer, whole))


def next_replies(peer, count):
    """The next so many answers that a client gets; there is nothing behind them."""
    replies = []
    data = b""
    while len(replies) < count:
        while not whole(data):
            more = peer.recv(65536)
            assert more, f"closed after {len(replies)} answers"
            data += more
        replies.append(Reply(data))
        data = replies[-1].rest
    assert not data
    return replies


def take_notes(server):
    """Let a server answer `notes` with what is in them: the list of what it has answered."""
    def answer(connection):
        noted.append(connection.request.query)
        return slackbot.Response(200, connection.request.query.encode())

    noted = []
    server.routes["/note"] = {"GET": answer}
    return noted


def notes(*words):
    """The bytes of requests, one for each word."""
    return b"".join(get(path=f"/note?{word}") for word in words)


def is_closed(peer):
    """Whether the server has closed a connection without another word."""
    peer.setblocking(False)
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        peer.settimeout(5)


def read_a_little(server, peer, connection):
    """Read as much of an answer as lets the server send more of it."""
    unsent = len(connection.unsent)
    while len(connection.unsent) == unsent:
        peer.recv(2 ** 20)
        server.handle_request(0)


UNREAD = get(path="/") * 120  # whose answers are more than a kernel takes
STATES = [  # (what a client has sent, its bytes, the state of its connection)
    ("nothing", lambda: b"", slackbot.READING),
    ("half a request", lambda: get()[:-2], slackbot.READING),
    ("a request", get, slackbot.READING),
    ("two and a half", lambda: get() * 2 + get()[:-2], slackbot.READING),
    ("an inline command", signed, slackbot.READING),
    ("requests, without reading", lambda: UNREAD, slackbot.WRITING),
    ("a bad request", lambda: b"GET /\r\n\r\n", slackbot.CLOSING),
    ("a slow command", slow, slackbot.HANDED_OVER),
    ("a request for one answer", lambda: get("Connection: close"), slackbot.CLOSED),
    ("a slow command behind a request", lambda: get() + slow(), slackbot.HANDED_OVER),
]


@pytest.mark.parametrize("what, data, state", STATES, ids=[row[0] for row in STATES])
def test_a_connection_has_the_state_that_its_requests_bring(make_server, what, data, state):
    server = make_server()
    _, connection = open_connection(server, data(), buffer=4096)
    assert connection.state == state
    is_served = state in (slackbot.READING, slackbot.WRITING, slackbot.CLOSING)
    watched = [key.fileobj for key in server.selector.get_map().values()]
    assert (connection in server.connections) == (connection.sock in watched) == is_served
    assert (connection.idle_since is None) == (state == slackbot.HANDED_OVER)


def test_a_connection_is_reading_again_when_its_answers_have_been_read(make_server):
    server = make_server()
    peer, connection = open_connection(server, UNREAD, buffer=4096)
    received = b""
    while connection.state == slackbot.WRITING:
        received += peer.recv(2 ** 20)
        server.handle_request(0)
    assert connection.state == slackbot.READING
    peer.sendall(get("Connection: close"))
    turn(server)
    received += receive(peer)
    assert received.count(b"HTTP/1.1 200 OK\r\nDate: ") == UNREAD.count(b"GET ") + 1


def test_a_connection_is_closed_when_its_client_closes(make_server):
    server = make_server()
    for data in (b"", get()[:-2], get(), b"GET /\r\n\r\n"):
        peer, connection = open_connection(server, data)
        peer.shutdown(socket.SHUT_WR)
        turn(server)
        assert connection.state == slackbot.CLOSED
        receive(peer)
    assert not server.connections


@pytest.mark.parametrize("by", ["worker", "loop"])
def test_a_first_answer_ends_the_connection_of_a_slow_command(make_server, by):
    server = make_server()
    peer, connection = open_connection(server, slow() + get())
    peer.sendall(get())
    if by == "worker":
        server.bot.workers.run()
    else:
        turn(server, server.config.slackbot_ack_seconds)
    received = b""
    while more := peer.recv(65536):  # which fails if the connection is reset
        received += more
    reply = Reply(received)
    assert reply.json["text"] == {"worker": "done", "loop": "Working on `/slow`…"}[by]
    assert reply.closes and not reply.rest, "and what stands behind it isn't served"
    assert connection.state == slackbot.CLOSED


@pytest.mark.parametrize("is_new", [False, True], ids=["a kept connection", "a new one"])
def test_of_many_requests_at_once_each_turn_answers_one_so_that_others_have_theirs(make_server,
                                                                                   is_new):
    server = make_server()
    noted = take_notes(server)
    busy, _ = open_connection(server)
    if is_new:
        other = socket.create_connection(server.server_address, 5)
        server.peers.append(other)
    else:
        other, _ = open_connection(server)
    words = [f"busy-{number}" for number in range(100)]
    busy.sendall(notes(*words))
    other.sendall(notes("other"))
    until(lambda: not unsent(busy) and not unsent(other))
    turns = []
    for _ in words:
        before = len(noted)
        server.handle_request(0)
        turns.append(noted[before:])
    assert [[word for word in each if word != "other"] for each in turns] == [
        [word] for word in words]
    assert "other" in turns[0] + turns[1] and noted.count("other") == 1


@pytest.mark.parametrize("behind", ["nothing", "half a request", "a slow command"])
def test_many_requests_at_once_are_all_answered_in_order_and_what_is_behind_them_has_its_time(
        make_server, behind):
    server = make_server()
    noted = take_notes(server)
    peer, connection = open_connection(server)
    words = [f"{number:0900}" for number in range(90)]  # more than is read at once
    last = {"nothing": b"", "half a request": get()[:-2], "a slow command": slow()}[behind]
    peer.sendall(notes(*words) + last)
    until(lambda: not unsent(peer))
    while len(noted) < len(words):
        assert server.clock.now < 1000 + 2 * len(words)
        server.clock.now += 1
        server.handle_request(0)
    turn(server)
    assert [reply.body.decode() for reply in next_replies(peer, len(words))] == words
    if behind == "a slow command":
        assert connection.state == slackbot.HANDED_OVER
        server.bot.workers.run()
        reply = Reply(receive(peer))
        assert reply.json["text"] == "done" and reply.closes
        return
    assert connection.state == slackbot.READING
    is_idle = behind == "nothing"
    turn(server, slackbot.IDLE_SECONDS - 0.1 if is_idle else EARLY)
    assert not is_closed(peer)
    turn(server, 0.7)
    received = receive(peer)
    assert received == b"" if is_idle else Reply(received).status == 408


def test_a_client_that_asks_before_it_sends_is_told_to_go_on_behind_other_requests(make_server):
    server = make_server()
    head, body = signed(None, "Expect: 100-continue").split(b"\r\n\r\n")
    peer, _ = open_connection(server, get() * 3 + head + b"\r\n\r\n")
    assert [reply.status for reply in next_replies(peer, 4)] == [200, 200, 200, 100]
    assert tell(server, peer, body).status == 200


def test_socketservers_handle_request_serves_a_turn(make_server):
    server = make_server()
    peer, _ = open_connection(server)
    peer.sendall(get())
    until(lambda: not unsent(peer))
    server.handle_request()
    assert Reply(receive(peer, whole)).status == 200


def test_a_flood_of_new_connections_keeps_nobody_waiting_for_a_first_answer(make_server,
                                                                            monkeypatch):
    """There is always one more, whose request has come with it."""
    def accept(listener):
        assert len(flood) < 100, "the loop doesn't come back"
        server.clock.now += 0.01
        peer, sock = socket.socketpair()
        peer.settimeout(5)
        peer.sendall(http("GET /healthz HTTP/1.0"))
        flood.append(peer)
        return sock, ""

    server = make_server(SLACKBOT_CONNECTIONS="20")
    waiting, _ = open_connection(server, slow())
    server.peers.append(socket.create_connection(server.server_address, 5))  # so that it looks
    server.clock.now += server.config.slackbot_ack_seconds - 0.01
    flood = []
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "accept", accept)
        server.handle_request(0)
        come = flood[:]
        server.handle_request(0)
    server.peers += flood
    assert "Working on" in Reply(receive(waiting)).json["text"]
    assert 1 < len(come) < len(flood)
    for peer in come:
        reply = Reply(receive(peer))
        assert reply.status == 200 and not reply.rest


def test_the_loop_waits_no_longer_than_until_a_first_answer_is_due(make_server, monkeypatch):
    server = make_server()
    open_connection(server, slow())
    server.clock.now += server.config.slackbot_ack_seconds - 0.25
    waited = []
    select = server.selector.select
    monkeypatch.setattr(server.selector, "select",
                        lambda seconds: waited.append(seconds) or select(0))
    server.handle_request(0.5)
    server.handle_request(0.1)
    server.clock.now += 0.25
    server.handle_request(0.5)
    assert waited == [0.25, 0.1, 0.5]


def test_healthz_counts_what_runs_and_what_waits(make_server):
    server = make_server(SLACKBOT_WORKERS="2")
    for _ in range(3):
        open_connection(server, slow())
    peer, _ = open_connection(server)
    health = tell(server, peer, get()).json
    assert [health[name] for name in ("running", "waiting", "done")] == [2, 1, 0]
    server.bot.workers.run()
    health = tell(server, peer, get()).json
    assert [health[name] for name in ("running", "waiting", "done")] == [0, 0, 3]
    server.bot.draining = True
    peer.sendall(get())
    turn(server)
    answer = receive(peer)
    assert answer.startswith(b"HTTP/1.1 503 ") and b'"draining"' in answer
    assert b"\r\nConnection: close\r\n" in answer


# ---- deadlines ----

LATE = slackbot.REQUEST_SECONDS + 0.1
EARLY = slackbot.REQUEST_SECONDS - 0.1


def test_a_connection_without_a_request_is_closed_without_a_word(make_server):
    server = make_server()
    peer, _ = open_connection(server)
    turn(server, EARLY)
    assert not is_closed(peer)
    turn(server, 0.7)
    assert is_closed(peer)


def test_an_idle_connection_is_kept_for_idle_seconds(make_server):
    server = make_server()
    peer, _ = open_connection(server)
    for _ in range(3):
        assert tell(server, peer, get()).status == 200
        turn(server, slackbot.IDLE_SECONDS - 0.1)
        assert not is_closed(peer)
    turn(server, 0.7)
    assert is_closed(peer)


HALVES = [("half a head", get()[:-3]), ("half a request line", b"GET /hea"),
          ("row 58: half a body", signed()[:-10])]


@pytest.mark.parametrize("before", ["at once", "after an answer", "behind a request"])
@pytest.mark.parametrize("what, half", HALVES, ids=[row[0] for row in HALVES])
def test_half_a_request_gets_a_408_after_request_seconds(make_server, what, half, before):
    server = make_server()
    peer, connection = open_connection(server)
    if before == "after an answer":
        tell(server, peer, get())
        turn(server, 60)
    if before == "behind a request":
        assert tell(server, peer, get() + half).status == 200
    else:
        peer.sendall(half)
        turn(server)
    turn(server, EARLY)
    assert not is_closed(peer) and connection.state == slackbot.READING
    turn(server, 0.7)
    reply = Reply(receive(peer))
    assert reply.status == 408 and reply.closes and not reply.rest
    assert connection.state == slackbot.CLOSING
    turn(server, slackbot.LINGER_SECONDS + 0.6)
    assert connection.state == slackbot.CLOSED


@pytest.mark.parametrize("data", [get(), signed()], ids=["head", "head and body"])
def test_row_65_bytes_that_drip_do_not_put_the_deadline_off(make_server, data):
    server = make_server()
    peer, connection = open_connection(server)
    for byte in data:
        if connection.state != slackbot.READING:
            break
        peer.send(bytes([byte]))
        server.handle_request(0.01)
        server.clock.now += 0.5
    assert slackbot.REQUEST_SECONDS <= server.clock.now - 1000 <= slackbot.REQUEST_SECONDS + 1.5
    reply = Reply(receive(peer))
    assert reply.status == 408 and reply.closes and not reply.rest


def test_blank_lines_do_not_put_the_deadline_off(make_server):
    server = make_server()
    peer, _ = open_connection(server)
    for _ in range(2):
        peer.sendall(b"\r\n")
        turn(server, EARLY / 2)
    assert not is_closed(peer)
    turn(server, 0.7)
    assert is_closed(peer)


def test_a_refusal_that_comes_with_the_deadline_is_sent(make_server):
    server = make_server()
    server.next_sweep = server.clock.now + LATE + 0.1
    peer, _ = open_connection(server, b"GET / HTTP/1.1\r\n")
    peer.sendall(b"no field\r\n\r\n")
    turn(server, LATE)
    turn(server, 0.2)
    reply = Reply(receive(peer))
    assert reply.status == 400 and not reply.rest


def test_an_answer_that_is_not_read_is_cut_off_and_nothing_is_said_in_its_middle(make_server):
    server = make_server()
    peer, connection = open_connection(server, get(path="/large") * 2, buffer=4096)
    turn(server, EARLY)
    assert connection.state == slackbot.WRITING
    turn(server, 0.7)
    assert connection.state == slackbot.CLOSED
    received = receive(peer)
    assert received and b" 408 " not in received


def test_each_answer_has_request_seconds_to_be_read(make_server):
    server = make_server()
    peer, connection = open_connection(server, get(path="/large") * 3, buffer=4096)
    for _ in range(2):
        answer = connection.request_id
        turn(server, EARLY)
        while connection.request_id == answer:
            peer.recv(2 ** 20)
            server.handle_request(0)
    turn(server, EARLY)
    read_a_little(server, peer, connection)
    turn(server)
    assert connection.state == slackbot.WRITING
    turn(server, 0.7)
    assert connection.state == slackbot.CLOSED


# ---- a full house: as many connections as SLACKBOT_CONNECTIONS allows ----

def test_answers_say_that_they_close_when_there_are_as_many_connections_as_may_be(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="2")
    first, _ = open_connection(server)
    assert not tell(server, first, get()).closes
    second, _ = open_connection(server)
    assert tell(server, second, get()).closes and is_closed(second)
    assert not tell(server, first, get()).closes
    open_connection(server, slow())
    assert tell(server, first, get()).closes, "as that of a slow command counts"


def test_a_connection_that_takes_the_last_place_closes_no_other(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="3")
    peers = []
    for _ in range(3):
        peers.append(open_connection(server)[0])
        turn(server, 1)
    assert [is_closed(peer) for peer in peers] == [False] * 3


def test_a_command_that_takes_the_last_place_is_not_acknowledged_early(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="2")
    peers = [open_connection(server, slow())[0]
             for _ in range(2)]
    server.bot.workers.run()
    assert [Reply(receive(peer)).json["text"] for peer in peers] == ["done"] * 2


def test_a_new_connection_is_not_closed_to_make_room_for_itself(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="2")
    open_connection(server, UNREAD, buffer=4096)
    peer, _ = open_connection(server)
    assert tell(server, peer, get()).status == 200


@pytest.mark.parametrize("data", [b"", get()[:-2]], ids=["nothing", "half a request"])
def test_the_connection_that_is_idle_longest_makes_room(make_server, data):
    server = make_server(SLACKBOT_CONNECTIONS="3")
    peers = []
    for count in range(6):
        peers.append(open_connection(server, data)[0])
        turn(server, 1)
    assert [is_closed(peer) for peer in peers] == [True] * 3 + [False] * 3


def test_a_connection_that_has_just_come_has_time_to_send_its_request(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="2")
    peer, _ = open_connection(server, slow())
    silent, _ = open_connection(server)
    turn(server, slackbot.NEW_SECONDS / 2)
    open_connection(server)
    assert "Working on" in Reply(receive(peer)).json["text"] and not is_closed(silent)
    turn(server, slackbot.NEW_SECONDS)
    open_connection(server)
    assert is_closed(silent)


def test_a_connection_that_was_answered_is_kept_for_kept_seconds_at_least(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="2")
    kept, _ = open_connection(server)
    tell(server, kept, get())
    turn(server, slackbot.KEPT_SECONDS / 3)
    silent, _ = open_connection(server)
    turn(server, slackbot.KEPT_SECONDS / 3)
    other, _ = open_connection(server)
    assert (is_closed(kept), is_closed(silent), is_closed(other)) == (False, True, False)
    turn(server, slackbot.KEPT_SECONDS / 2)
    another, _ = open_connection(server)
    assert (is_closed(kept), is_closed(other), is_closed(another)) == (True, False, False)


def test_an_idle_connection_makes_room_before_one_whose_next_request_has_begun(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="3")
    begun, idle = (open_connection(server)[0] for _ in range(2))
    for peer in (begun, idle):
        assert not tell(server, peer, get()).closes
        turn(server, slackbot.KEPT_SECONDS)
    begun.sendall(get()[:-2])
    turn(server)
    open_connection(server)
    open_connection(server)
    assert (is_closed(begun), is_closed(idle)) == (False, True)
    assert tell(server, begun, get()[-2:]).status == 200


def test_a_client_that_reads_nothing_of_its_answer_makes_room(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="1")
    peer, connection = open_connection(server, get(path="/large"), buffer=4096)
    turn(server, slackbot.KEPT_SECONDS - 0.1)
    other, none = open_connection(server, get())
    assert (connection.state, none) == (slackbot.WRITING, None)
    read_a_little(server, peer, connection)
    turn(server, slackbot.KEPT_SECONDS - 0.1)
    assert connection.state == slackbot.WRITING, "as it has read something"
    turn(server, slackbot.SWEEP_SECONDS)
    assert connection.state == slackbot.CLOSED
    assert Reply(receive(other, whole)).status == 200


def test_a_connection_that_only_waits_to_be_closed_makes_room_at_once(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="2")
    kept, _ = open_connection(server)
    tell(server, kept, get())
    _, refused = open_connection(server, b"GET /\r\n\r\n")
    assert refused.state == slackbot.CLOSING
    peer, _ = open_connection(server)
    assert refused.state == slackbot.CLOSED
    assert tell(server, peer, get()).status == 200 and not is_closed(kept)


def test_the_command_that_waits_longest_is_acknowledged_to_make_room(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="3")
    peers = [open_connection(server, slow())[0] for _ in range(3)]
    for peer in peers[:2]:
        open_connection(server, slow())
        reply = Reply(receive(peer))
        assert "Working on" in reply.json["text"] and reply.closes
    server.bot.workers.run()
    assert Reply(receive(peers[2])).json["text"] == "done"


def full_server(make_server):
    """A server of two connections that can't make room: one has just been answered, the other
    has an answer to read. And a client that waits for room, with a request."""
    server = make_server(SLACKBOT_CONNECTIONS="2")
    kept, _ = open_connection(server)
    assert tell(server, kept, get()).status == 200
    open_connection(server, get(path="/large"), buffer=4096)
    waiting, connection = open_connection(server, get())
    assert connection is None
    return server, kept, waiting


def test_where_there_is_no_room_the_loop_does_not_look_at_new_connections(make_server):
    server, _, waiting = full_server(make_server)
    assert server.selector.select(0.05) == []
    with pytest.raises(TimeoutError):
        waiting.settimeout(0.01)
        waiting.recv(1)


@pytest.mark.parametrize("what", ["closes", "asks again", "is idle"])
def test_a_client_that_waits_for_room_is_answered_when_another_leaves(make_server, what):
    server, kept, waiting = full_server(make_server)
    if what == "closes":
        kept.close()
        turn(server)
    elif what == "asks again":
        assert tell(server, kept, get()).closes
    else:
        turn(server, slackbot.KEPT_SECONDS)
    assert Reply(receive(waiting, whole)).status == 200


def test_an_answer_that_ends_its_connection_arrives_whole(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="1")
    peer, _ = open_connection(server, get(path="/large"), buffer=4096)
    received = b""
    peer.setblocking(False)
    while True:
        server.handle_request(0)
        try:
            more = peer.recv(2 ** 20)
        except BlockingIOError:
            continue
        if not more:
            break
        received += more
    reply = Reply(received)
    assert reply.closes and len(reply.body) == LARGE


# ---- clients that go, bugs, and the end ----

URL = "https://hooks.slack.com/commands/T1/2/3"


@pytest.fixture
def posts(monkeypatch):
    """The texts that are posted to any response_url."""
    posted = []

    def post(body):
        posted.append(json.loads(body)["text"])
        return 200, {}, b"ok"
    monkeypatch.setattr(slackbot, "response_url_post", lambda url: post)
    return posted


@pytest.mark.parametrize("by", ["worker", "loop"])
def test_a_client_that_resets_its_connection_has_its_answer_posted(make_server, posts, by):
    server = make_server()
    peer, connection = open_connection(server, slow(response_url=URL))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    turn(server)
    if by == "loop":
        turn(server, server.config.slackbot_ack_seconds)
    server.bot.workers.run()
    assert posts == ["done"] and connection.state == slackbot.CLOSED


@pytest.mark.parametrize("seconds, error", [(0, BlockingIOError), (0.05, TimeoutError)])
def test_a_first_answer_that_nobody_reads_is_given_up_in_time(make_server, seconds, error):
    server = make_server()
    _, connection = open_connection(server, slow(), buffer=4096)
    begun = time.monotonic()
    with pytest.raises(error):
        connection.send_first(b" " * LARGE, seconds)
    assert time.monotonic() - begun < slackbot.REQUEST_SECONDS
    assert connection.state == slackbot.CLOSED


def test_a_bug_in_a_route_is_a_500_and_in_the_log(make_server, caplog):
    server = make_server()
    server.routes["/bug"] = {"GET": lambda connection: 1 / 0}
    peer, _ = open_connection(server)
    reply = tell(server, peer, get(f"X-Request-ID: {'a' * 20}", path="/bug"))
    assert reply.status == 500 and reply.headers["x-request-id"] == "a" * 20
    assert "ZeroDivisionError" in caplog.text and "a" * 20 in caplog.text
    assert tell(server, peer, get()).status == 200


@pytest.mark.parametrize("method", ["read", "write"])
@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("trouble")], ids=repr)
def test_a_bug_in_a_connection_closes_that_one_alone(make_server, monkeypatch, caplog, method,
                                                     error):
    def fail(connection):
        if connection.sock.getpeername() == peer.getsockname():
            raise error
        return original(connection)

    server = make_server()
    original = getattr(slackbot.Connection, method)
    peer = None
    monkeypatch.setattr(slackbot.Connection, method,
                        lambda connection: fail(connection) if peer else original(connection))
    other, _ = open_connection(server)
    peer, connection = open_connection(server)
    peer.sendall(get())
    turn(server)
    assert connection.state == slackbot.CLOSED and connection not in server.connections
    assert ("Traceback" in caplog.text) == isinstance(error, RuntimeError)
    assert tell(server, other, get()).status == 200


def test_a_bug_in_a_first_answer_leaves_it_to_the_worker(make_server, monkeypatch):
    def fail(replies, body):
        raise RuntimeError("can't start new thread")

    server = make_server()
    peer, _ = open_connection(server, slow())
    monkeypatch.setattr(slackbot.Replies, "begin_instead", fail)
    with pytest.raises(RuntimeError):
        turn(server, server.config.slackbot_ack_seconds)
    server.bot.workers.run()
    assert Reply(receive(peer)).json["text"] == "done"


@pytest.mark.parametrize("owner, method", [
    (slackbot.Bot, "answer_overdue"), (slackbot.WebServer, "accept_connections"),
    (slackbot.WebServer, "resume_accepting")], ids=lambda value: value if type(value) is str else "")
def test_a_bug_in_a_turn_does_not_end_the_loop(make_server, monkeypatch, caplog, owner, method):
    server = make_server()
    original, failures = getattr(owner, method), [RuntimeError("no memory"), OSError("no space")]

    def fail_at_first(self):
        if failures:
            raise failures.pop()
        return original(self)
    monkeypatch.setattr(owner, method, fail_at_first)
    server.next_sweep = 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with socket.create_connection(server.server_address, 5) as peer:
        assert ask(peer, get()).status == 200
    until(lambda: not failures)
    server.shutdown()
    thread.join(PATIENCE)
    assert caplog.text.count("event=bug") == 2 and "no memory" in caplog.text


def test_in_a_full_house_of_fresh_connections_a_newcomer_waits_a_moment(make_server):
    server = make_server(SLACKBOT_CONNECTIONS="3")
    for _ in range(3):
        open_connection(server)
    peer, connection = open_connection(server, get())
    assert connection is None and len(server.connections) == 3
    turn(server, slackbot.NEW_SECONDS + slackbot.SWEEP_SECONDS)
    assert Reply(receive(peer)).status == 200
    assert slackbot.NEW_SECONDS + slackbot.SWEEP_SECONDS < 0.3, "Slack gives us three seconds"


def test_shutdown_ends_serve_forever_which_may_begin_again(make_server):
    server = make_server()
    for _ in range(2):
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with socket.create_connection(server.server_address, 5) as peer:
            assert ask(peer, get()).status == 200
        server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_shutdown_waits_until_the_server_has_done_its_turn(make_server):
    def turn_slowly(seconds):
        entered.set()
        assert released.wait(PATIENCE)

    server = make_server()
    server.handle_request = turn_slowly
    entered = threading.Event()
    released = threading.Event()
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    stopping = threading.Thread(target=server.shutdown, daemon=True)
    serving.start()
    assert entered.wait(PATIENCE)
    stopping.start()
    stopping.join(0.02)
    assert stopping.is_alive()
    released.set()
    stopping.join(PATIENCE)
    serving.join(PATIENCE)
    assert not stopping.is_alive() and not serving.is_alive()
    del server.handle_request


def test_server_close_closes_the_listening_socket_and_all_connections(make_server):
    server = make_server()
    peers = [open_connection(server, data)[0] for data in (b"", get()[:-2], get(), UNREAD)]
    server.server_close()
    for peer in peers:
        receive(peer)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.server_address, 5)


def test_server_close_works_where_there_is_no_room(make_server):
    server, kept, _ = full_server(make_server)
    server.server_close()
    assert is_closed(kept)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.server_address, 5)


def test_the_date_is_in_english_whatever_the_locale(monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "So, 06 Nov 1994 08:49:37 MEZ")
    names = {day: slackbot.format_date_time(784111777 + day * 86_400) for day in range(366)}
    monkeypatch.undo()
    for day, date in names.items():
        assert date == email.utils.formatdate(784111777 + day * 86_400, usegmt=True)


@pytest.mark.parametrize("data", [
    get(), get(path="/healthz"), get(path="/nothing"), b"nonsense\r\n\r\n", get()[:-2],
    signed(fakes.form("/hello you", trigger_id="x"))], ids=lambda data: data[:20].decode())
def test_whatever_goes_wrong_while_an_answer_is_made_its_connection_is_closed_at_once(
        make_server, monkeypatch, caplog, data):
    def fail(*_):
        raise RuntimeError("a bug")

    server = make_server()
    other, _ = open_connection(server)
    peer, _ = open_connection(server)
    with monkeypatch.context() as patch:
        patch.setattr(slackbot, "format_date_time", fail)
        peer.sendall(data)
        turn(server)
        turn(server, slackbot.REQUEST_SECONDS + 1 if data == get()[:-2] else 0)
        assert receive(peer) == b"" and "a bug" in caplog.text
    if data != get()[:-2]:
        assert tell(server, other, get()).status == 200
    assert tell(server, open_connection(server)[0], get()).status == 200


@pytest.mark.parametrize("by", ["worker", "loop"])
@pytest.mark.parametrize("url", [URL, ""], ids=["with a response_url", "without"])
def test_whatever_goes_wrong_with_a_first_answer_the_connection_is_closed_and_the_user_told(
        make_server, posts, monkeypatch, by, url):
    def fail(*_):
        raise RuntimeError("a bug")

    server = make_server()
    peer, _ = open_connection(server, slow(response_url=url))
    monkeypatch.setattr(slackbot, "format_date_time", fail)
    if by == "loop":
        turn(server, server.config.slackbot_ack_seconds)
        assert receive(peer) == b""
    working = threading.Thread(target=server.bot.workers.run, daemon=True)
    working.start()
    working.join(PATIENCE)
    assert receive(peer) == b""
    assert not working.is_alive(), "this worker never comes back"
    assert not server.bot.jobs and len(posts) == bool(url)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError,
                                   MemoryError, StopIteration], ids=lambda error: error.__name__)
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "on a worker"])
def test_whatever_a_handler_raises_its_user_is_answered_and_the_server_goes_on(make_server, error,
                                                                               inline):
    def fail(request):
        raise error

    server = make_server()
    slackbot.command("/raise", inline=inline)(fail)
    peer, _ = open_connection(server)
    peer.sendall(signed(fakes.form("/raise", trigger_id=next(serial))))
    try:
        turn(server)
        server.bot.workers.run()
    except BaseException as escaped:
        pytest.fail(f"{escaped!r} has ended a thread")
    assert "failed" in Reply(receive(peer, whole)).json["text"]
    assert tell(server, open_connection(server)[0], get()).status == 200
