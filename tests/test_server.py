"""The HTTP door from outside: what anybody on the internet may send it, byte by byte.

`HOSTILE` is the table of bad inputs in reference/hostile-input-and-hosts.md, row by row."""

import concurrent.futures
import contextlib
import functools
import itertools
import json
import os
import random
import re
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

import fakes
import slackbot

CLOSE = "bare close"  # stands for a status where closing without a word is an answer too
FORM = "Content-Type: application/x-www-form-urlencoded"
serial = itertools.count()


# ---- a client that says anything, and a reader that takes nothing but HTTP ----

class Reply:
    """One HTTP/1.1 answer out of the bytes *data*; `rest` is what stands behind it."""

    def __init__(self, data, head_only=False):
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, f"no whole head: {data[:200]!r}"
        first, *lines = head.decode("ascii").split("\r\n")
        line = re.fullmatch(r"HTTP/1\.1 ([1-5]\d\d) [ -~]*", first)
        assert line, f"bad status line: {first!r}"
        self.status = int(line[1])
        fields = [re.fullmatch(r"([\w-]+): ([!-~](?:[ -~]*[!-~])?)", line) for line in lines]
        assert all(fields), f"bad header field in {lines!r}"
        self.headers = {field[1].lower(): field[2] for field in fields}
        assert len(self.headers) == len(fields), f"a header field twice: {lines!r}"
        length = 0 if head_only or self.status == 100 else int(self.headers["content-length"])
        self.body, self.rest = rest[:length], rest[length:]
        assert len(self.body) == length, f"Content-Length {length}, body {len(self.body)}"
        if self.status != 100:
            self.check()

    def check(self):
        """What is true for every answer that this server gives."""
        assert re.fullmatch(r"[A-Za-z0-9+/=-]{20,200}", self.headers["x-request-id"])
        assert not {"location", "access-control-allow-origin"} & set(self.headers)
        assert self.status != 405 or self.headers.get("allow")
        if self.status >= 400 and self.body:
            assert self.headers["content-type"].split(";")[0] == "application/json"
            error = json.loads(self.body)
            assert list(error) == ["error"] and isinstance(error["error"], str) and error["error"]

    @property
    def closes(self):
        return self.headers.get("connection", "").lower() == "close"

    @property
    def json(self):
        return json.loads(self.body)


def connect(bot, timeout=5):
    return socket.create_connection((bot.host, bot.port), timeout)


def send(peer, data):
    """Send *data*, as far as the other end takes it: it may have refused and closed by then."""
    try:
        peer.sendall(data)
    except ConnectionError:
        pass


def finish(peer):
    """Say that nothing more will come."""
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:  # the other end is gone
        pass


def receive(peer, enough=lambda data: False):
    """What *peer* sends until it is *enough* or the connection is closed."""
    data = b""
    while not enough(data):
        try:
            more = peer.recv(65536)
        except ConnectionResetError:
            break
        if not more:
            break
        data += more
    return data


def whole(data):
    """Whether *data* begins with a whole answer."""
    head, end, rest = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end) and len(rest) >= int(length[1] if length else 0)


def ask(peer, data):
    """Send *data* over a connection that lives on: its answer."""
    peer.sendall(data)
    return Reply(receive(peer, whole))


def talk(bot, data, half_close=False):
    """All that the bot answers to *data* until it closes, as it must if it says so; if it doesn't
    say so, we close our half after its first answer."""
    with connect(bot) as peer:
        send(peer, data)
        if half_close:
            finish(peer)
        data = receive(peer, whole)
        if whole(data) and b"\r\nconnection: close\r\n" not in data.lower() and not half_close:
            finish(peer)
        return data + receive(peer)


def http(line, *fields, body="", host="Host: bot.example"):
    """The bytes of a request; a character is a byte."""
    fields = [field for field in (host, *fields) if field]
    return "\r\n".join([line, *fields, "", body]).encode("latin-1")


def get(*fields, path="/healthz", **more):
    return http(f"GET {path} HTTP/1.1", *fields, **more)


def post(*fields, path="/slack/commands", **more):
    return http(f"POST {path} HTTP/1.1", FORM, *fields, **more)


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


def calm(bot):
    """Nothing has gone wrong inside since we last asked."""
    news = bot.lines[getattr(bot, "read", 0):]
    bot.read = len(bot.lines)
    assert "Traceback" not in "".join(news)


def expect_life(bot):
    """The server still answers, and nothing has gone wrong inside."""
    assert bot.get("/healthz").status == 200
    word = f"life-{next(serial)}"
    answer = bot.command("/hello " + word)
    assert answer.status == 200 and word in answer.json["text"]
    calm(bot)


@pytest.fixture(scope="module")
def bot():
    with fakes.Bot() as bot:
        yield bot
    calm(bot)


# ---- the table of bad inputs ----

WRONG = {"Signature": "v0=0"}
NEXT = get().decode()  # a second request, that nobody may answer
HELLO = fakes.form("/hello")
CHUNKED = "Transfer-Encoding: chunked"


def chunked(body):
    """A chunked command (*body* has its chunks) with another request behind it."""
    return post(CHUNKED, body=body + NEXT)


def at(seconds):
    """A command signed *seconds* from now: `±301` is at least 301 off whenever it arrives."""
    return lambda: signed(timestamp=int(time.time()) + seconds + (seconds > 0))


HOSTILE = [  # (row, what it is, its bytes or what makes them, the answers that are right)
    (1, "GET without version", b"GET /\r\n\r\n", {400}),
    (2, "POST without version", b"POST /\r\n\r\n", {400}),
    (3, "FTP", http("GET / FTP/1.1"), {400}),
    (4, "HTTP/1", http("GET / HTTP/1"), {400}),
    (4, "HTTP/111", http("GET / HTTP/111"), {400}),
    (5, "HTTP/2.0", http("GET / HTTP/2.0"), {505}),
    (6, "HTTP/0.99", http("GET / HTTP/0.99"), {400, 505}),
    (7, "version of 80 digits", http("GET / HTTP/1." + "1" * 80), {400}),
    (8, "space in the target", http("GET /?x=y z HTTP/1.1"), {400}),
    (9, "no target", http("GET HTTP/1.1"), {400}),
    (10, "small get", http("get / HTTP/1.1"), {400, 501}),
    (11, "NUL in the method", http("GET\0 / HTTP/1.1"), {400}),
    (12, "colon in the method", http("bla:rgh / HTTP/1.1"), {400}),
    (12, "question mark in the method", http("G?T / HTTP/1.1"), {400}),
    (13, "unknown method", http("BREW / HTTP/1.1"), {501}),
    (13, "PUT on a known path", http("PUT /slack/commands HTTP/1.1", "Content-Length: 0"), {405}),
    (14, "random text", b"Lorem ipsum dolor sit amet\r\n\r\n", {400, CLOSE}),
    (14, "random text without an end", b"Lorem ipsum dolor", {400, CLOSE}),
    (14, "random bytes", random.Random(14).randbytes(500), {400, CLOSE}),
    (15, "TLS hello", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(40), {400, CLOSE}),
    (16, "raw UTF-8 in the target", get(path="/\xc3\xbc"), {400}),
    (16, "raw Latin-1 in the target", get(path="/?name=\xfc"), {400}),
    (17, "target without slash", get(path="foo"), {400}),
    (18, "asterisk", get(path="*"), {400}),
    (19, "authority", get(path="a:443"), {400}),
    (20, "CONNECT", http("CONNECT a:443 HTTP/1.1"), {405}),
    (21, "fragment", get(path="/x#f"), {400}),
    (22, "absolute target", get(path="http://evil/x"), {400, 404, 405}),
    (22, "absolute target of a route", get(path="http://evil/healthz"), {400, 200}),
    (23, "two slashes", get(path="//evil/x"), {404}),
    (24, "dots", get(path="/../../etc/passwd"), {404, 400}),
    (24, "encoded dots", get(path="/%2e%2e/%2e%2e/etc/passwd"), {404, 400}),
    (24, "encoded slashes", get(path="/..%2f..%2fetc%2fpasswd"), {404, 400, 405}),
    (24, "encoded NUL", get(path="/%00"), {404, 400, 405}),
    (25, "request line of 70,000 bytes", get(path="/" + "a" * 70_000), {414}),
    (25, "request line of 70,000 bytes, no end", b"GET /" + b"a" * 70_000, {414}),
    (26, "empty line first", b"\r\n" + get(), {200}),
    (26, "two empty lines first", b"\r\n\r\n" + get(), {200}),
    (26, "three empty lines first", b"\r\n\r\n\r\n" + get(), {400}),
    (26, "nothing but empty lines", b"\r\n" * 100_000, {400}),
    (27, "bare LF", b"GET /healthz HTTP/1.1\nHost: a\n\n", {400}),
    (27, "one bare LF", b"GET /healthz HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", {400}),
    (28, "bare CR in the target", http("GET /\r HTTP/1.1"), {400}),
    (28, "bare CR behind the version", http("GET / HTTP/1.1\rX: y"), {400}),
    (29, "no Host", get(host=None), {400}),
    (30, "two Hosts", get("Host: b.example"), {400}),
    (30, "the same Host twice", get("Host: bot.example"), {400}),
    (31, "space in Host", get(host="Host: a b"), {400}),
    (31, "slash in Host", get(host="Host: a/b"), {400}),
    (32, "space before the colon", post("Content-Length : 3", body="a=b" + NEXT), {400}),
    (33, "first field folded", get(host=" Host: a"), {400}),
    (34, "folded field", get("X: a", " b"), {400}),
    (34, "field folded with a tab", get("X: a", "\tb"), {400}),
    (35, "no colon", get("no colon here", "X: y"), {400}),
    (36, "no name", get(": v"), {400}),
    (37, "NUL in a name", get("X\0Y: v"), {400}),
    (37, "sharp s in a name", get("X\xdfY: v"), {400}),
    (38, "NUL in a value", get("X: a\0b"), {400}),
    (38, "BEL in a value", get("X: a\x07b"), {400}),
    (38, "DEL in a value", get("X: a\x7fb"), {400}),
    (39, "bare CR in a value", get("X: a\rContent-Length: 5"), {400}),
    (40, "bare LF hides a field", get("X: a\nContent-Length: 5"), {400}),
    (41, "VT in a value", get("X: a\x0bb"), {400}),
    (42, "101 fields", get(*[f"X-{i}: v" for i in range(100)]), {431}),
    (43, "field of 70,000 bytes", get("X: " + "a" * 70_000), {431}),
    (44, "endless field", b"GET / HTTP/1.1\r\nX: " + b"a" * 8_000_000, {431}),
    (45, "two Content-Types", lambda: signed(None, "Content-Type: text/plain"), {400}),
    (46, "Transfer_Encoding", get("Transfer_Encoding: chunked"), {200, 400}),
    (46, "Content_Length", get("Content_Length: 5"), {200, 400}),
    (47, "unknown expectation", lambda: signed(None, "Expect: foo"), {417}),
    (48, "length abc", post("Content-Length: abc", body=NEXT), {400}),
    (48, "length empty", post("Content-Length:", body=NEXT), {400}),
    (49, "length -1", post("Content-Length: -1", body=NEXT), {400}),
    (50, "length +3", post("Content-Length: +3", body="a=b" + NEXT), {400}),
    (50, "length 0_3", post("Content-Length: 0_3", body="a=b" + NEXT), {400}),
    (51, "length -0", post("Content-Length: -0", body=NEXT), {400}),
    (51, "length 3 1", post("Content-Length: 3 1", body="a=b" + NEXT), {400}),
    (52, "two lengths", post("Content-Length: 3", "Content-Length: 5", body="a=b" + NEXT), {400}),
    (53, "length 5, 5", post("Content-Length: 5, 5", body="a=b&c" + NEXT), {400}),
    (54, "length 2^64", post(f"Content-Length: {2 ** 64}"), {413}),
    (55, "length of 5,000 digits", post("Content-Length: " + "9" * 5000), {400, 413}),
    (56, "one byte over the limit", post(f"Content-Length: {2 ** 20 + 1}"), {413}),
    (56, "over the limit, asks first",
     post(f"Content-Length: {2 ** 20 + 1}", "Expect: 100-continue"), {413}),
    (57, "half a body, then FIN", post("Content-Length: 10", body="a=b&c"), {400, CLOSE}),
    (57, "a signed command, but 5 bytes of it are missing",
     lambda: signed(HELLO, length=len(HELLO) + 5), {400, CLOSE}),
    (57, "half a head, then FIN", get()[:-2], {400, CLOSE}),
    (59, "POST without length", post(), {411}),
    (60, "chunked", chunked("3\r\na=b\r\n0\r\n\r\n"), {501, 411}),
    (60, "chunked with a request inside", chunked(f"{len(NEXT):x}\r\n{NEXT}\r\n0\r\n\r\n"),
     {501, 411}),
    (61, "chunked and length", post(CHUNKED, "Content-Length: 3", body="a=b" + NEXT), {400}),
    (61, "length and chunked", post("Content-Length: 3", CHUNKED, body="a=b" + NEXT), {400}),
    (62, "chunked in HTTP/1.0", http("POST / HTTP/1.0", CHUNKED, body="0\r\n\r\n"), {400, 501}),
    (63, "gzip", post("Transfer-Encoding: gzip", body=NEXT), {501, 400}),
    (63, "chunked twice", post(CHUNKED, CHUNKED, body="0\r\n\r\n"), {501, 400}),
    (63, "chunked, chunked", post("Transfer-Encoding: chunked, chunked", body=NEXT), {501, 400}),
    (63, "chunked behind 0x85", post("Transfer-Encoding: \x85chunked", body=NEXT), {501, 400}),
    (63, "chunked behind VT", post("Transfer-Encoding: \x0bchunked", body=NEXT), {501, 400}),
    *[(60, f"chunk size {size[:9]!r}", chunked(size + "\r\nhello\r\n0\r\n\r\n"), {501, 411, 400})
      for size in ("-5", "+5", "6_0", " 5", "5 ", "", "1" * 100, "0x5", "g")],
    (60, "chunk without its end", chunked("5\r\nhelloXX0\r\n\r\n"), {501, 411, 400}),
    (60, "CR in an extension", chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), {501, 411, 400}),
    (60, "forbidden trailer", chunked("0\r\nContent-Length: 5\r\n\r\n"), {501, 411, 400}),
    (60, "last CRLF missing", post(CHUNKED, body="5\r\nhello\r\n0\r\n"), {501, 411, 400}),
    (64, "another request behind a bad one", get("X: a\0b", body=NEXT), {400}),
    (64, "another request behind a bad version", http("GET / HTTP/2.0", body=NEXT), {505}),
    (64, "another request behind a body too large",
     post(f"Content-Length: {2 ** 20 + 1}", body=NEXT), {413}),
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
def test_a_bad_input_gets_one_answer_and_the_server_lives_on(bot, row):
    number, _, data, wanted = row
    got = talk(bot, data() if callable(data) else data, half_close=CLOSE in wanted)
    if got:
        reply = Reply(got)
        assert reply.status in wanted, reply.body
        assert reply.rest == b"", "a second answer"
        assert number in SURE or reply.closes
    else:
        assert CLOSE in wanted, "closed without a word"
    expect_life(bot)


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
    expect_life(bot)
    before = memory(bot)
    for start in (b"GET / HTTP/1.1\r\nX: ", b"", b"GET /"):
        assert Reply(talk(bot, start + b"a" * 40_000_000)).status in (400, 414, 431)
    assert memory(bot) - before < 10


def test_a_client_that_asks_much_and_reads_nothing_takes_little_memory(crowded):
    before = memory(crowded)
    with connect(crowded, timeout=0.5) as peer:
        with contextlib.suppress(TimeoutError):
            send(peer, get(path="/") * 20_000)
        expect_life(crowded)
        assert memory(crowded) - before < 30


# ---- what is served ----

LIMITS = [
    ("a request line of 8,000 bytes", get(path="/healthz?" + "a" * (8000 - 22)), 200),
    ("a request line of 16 KiB", get(path="/healthz?" + "a" * 16_384), 414),
    ("90 header fields", get(*[f"X-{i}: v" for i in range(89)]), 200),
    ("60,000 bytes of header fields", get(*["X: " + "a" * 1000 for _ in range(60)]), 200),
    ("70,000 bytes of header fields", get(*["X: " + "a" * 1000 for _ in range(70)]), 431),
    ("a body of 1 MiB", lambda: signed((HELLO + b"&pad=").ljust(2 ** 20, b"a")), 200),
    ("a body of 1 MiB and a byte", lambda: signed(b"a" * (2 ** 20 + 1)), 413),
    ("a body of 3 MiB", lambda: signed(b"a" * (3 * 2 ** 20)), 413),
]


@pytest.mark.parametrize("what, data, status", LIMITS, ids=[row[0] for row in LIMITS])
def test_what_is_within_the_limits_is_served(bot, what, data, status):
    reply = Reply(talk(bot, data() if callable(data) else data))
    assert reply.status == status and not reply.rest
    expect_life(bot)


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
    deadline = time.monotonic() + 10
    while bot.get("/healthz").json["done"] < before["done"] + 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
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
def test_the_callers_request_id_comes_back(bot, identifier):
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


ACCIDENTS = [b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x0b", b"\x7f", b"\xff", b" ",
             b"\xed\xa0\x80", b"\t", b":", b"%", b"&", b"=", b";", b"<", b"9", b"-", b'"',
             b"{", b"[", b"\\ud800"]


def valid_requests():
    """A pair of each kind of valid request: its head (to sign or not), its body."""
    hook = "https://hooks.slack.com/commands/T1/2/3"
    yield from ((get(path=path), None) for path in ("/?name=Robert", "/healthz", "/status"))
    yield http("HEAD / HTTP/1.1", "Connection: close"), None
    yield "/slack/commands", fakes.form("/hello Example", response_url=hook)
    yield "/slack/commands", fakes.form("/help /jira --public", response_url=hook)
    yield "/hello", fakes.form("/hello it's “smart” &amp; <@U1|bob>")


def mutate(chance, data):
    """*data* with one to six accidents."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        piece = data[at:at + chance.randint(1, 20)]
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:at + len(piece)]
        elif kind == 2:
            data[at:at] = piece * chance.choice([1, 2, 50])
        elif kind == 3:
            other = chance.randrange(len(data) + 1)
            data[other:other + chance.randint(0, 20)] = piece
        else:
            data[at:at] = chance.choice(ACCIDENTS)
    return bytes(data)


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


def test_mutations():
    """No accident on the way makes the server fail: SLACKBOT_MUTATIONS says how many to try."""
    count = int(os.environ.get("SLACKBOT_MUTATIONS", 1000))
    first = int(os.environ.get("SLACKBOT_SEED", 0))
    with fakes.Bot() as bot, concurrent.futures.ThreadPoolExecutor(16) as pool:
        seeds = range(first, first + count)
        complaints = list(filter(None, pool.map(lambda seed: complaint(bot, seed), seeds)))
        assert not complaints, f"{len(complaints)} complaints, the first: {complaints[0]}"
        expect_life(bot)


# ---- many ----

HALF = signed()[:-10]
IDLE = [("silent", b""), ("with half a head", get()[:-5]), ("with half a body", HALF),
        ("after an answer", get())]


@pytest.fixture(scope="module")
def crowded():
    """A bot of its own: other tests' connections are none of its business."""
    with fakes.Bot() as bot:
        yield bot
    calm(bot)


def crowd(bot, count, data):
    """*count* connections that have sent *data* and now wait."""
    peers = []
    for _ in range(count):
        peers.append(connect(bot))
        send(peers[-1], data)
    return peers


@pytest.mark.parametrize("what, data", IDLE, ids=[row[0] for row in IDLE])
def test_300_idle_connections_keep_nobody_waiting(crowded, what, data):
    peers = crowd(crowded, 300, data)
    try:
        for _ in range(3):
            begin = time.monotonic()
            expect_life(crowded)
            assert time.monotonic() - begin < 2
    finally:
        for peer in peers:
            peer.close()


def test_row_66_500_idle_connections_leave_the_server_healthy(crowded):
    peers = crowd(crowded, 500, b"")
    try:
        assert crowded.get("/healthz").status == 200
    finally:
        for peer in peers:
            peer.close()


def test_row_66_a_reset_in_the_middle_of_a_reply_hurts_nobody(bot):
    for data in (b"", get(path="/"), signed(), get(path="/") * 50, HALF) * 25:
        peer = connect(bot)
        send(peer, data)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    expect_life(bot)


FEW_FILES = """
import resource, slackbot

resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
slackbot.main()
"""


def test_running_out_of_file_descriptors_does_not_end_the_server(tmp_path):
    script = tmp_path / "few.py"
    script.write_text(FEW_FILES)
    with fakes.Bot(script=script, SLACKBOT_CONNECTIONS=1000) as bot:
        peers = crowd(bot, 100, b"")
        time.sleep(0.2)
        for peer in peers:
            peer.close()
        time.sleep(0.2)
        expect_life(bot)


def closed(peer):
    """Whether the other end has hung up by now."""
    peer.settimeout(0.05)
    try:
        receive(peer)
    except TimeoutError:
        return False
    return True


def test_the_longest_waiting_connection_makes_room_for_a_newcomer():
    with fakes.Bot(SLACKBOT_CONNECTIONS=8) as bot:
        peers = []
        for number in range(8):
            peers += crowd(bot, 1, IDLE[number % 3][1])
            time.sleep(0.02)
        for _ in range(2):
            expect_life(bot)
        gone = [closed(peer) for peer in peers]
        assert gone[0] and not gone[-1] and gone == sorted(gone, reverse=True), gone


SLOW_COMMAND = """
import time, slackbot

@slackbot.command("/slow")
def slow(request):
    "Take your time."
    time.sleep(2)
    return "done"

slackbot.main()
"""


@pytest.fixture
def slow_script(tmp_path):
    """The path of a script with a command that takes two seconds."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW_COMMAND)
    return script


def one_of_a_flood(bot, connection, number):
    """What one of many gets at once for a slow command, and after how many seconds."""
    begin, command = time.monotonic(), signed(fakes.form("/slow", trigger_id=number),
                                              f"Connection: {connection}")
    for _ in range(3):  # one of 60 threads may dawdle on its way from connecting to sending
        with connect(bot) as peer:
            send(peer, command)
            received = receive(peer, whole)
        if received:
            break
    reply = Reply(received)
    assert reply.status == 200 or int(reply.headers["retry-after"]) > 0
    return reply.status, time.monotonic() - begin


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("connections", [4, 20])
def test_in_a_flood_everyone_gets_an_answer_quickly(slow_script, connections, connection):
    with (fakes.Bot(script=slow_script, SLACKBOT_CONNECTIONS=connections, SLACKBOT_ACK_SECONDS=1,
                    SLACKBOT_QUEUE=10) as bot,
          concurrent.futures.ThreadPoolExecutor(60) as pool):
        answers = list(pool.map(functools.partial(one_of_a_flood, bot, connection), range(60)))
        assert {status for status, _ in answers} <= {200, 503}
        assert max(seconds for _, seconds in answers) < 2.5
        assert max((seconds for status, seconds in answers if status == 503), default=0) < 1
        expect_life(bot)


def test_callers_who_hang_up_before_their_answer_hurt_nobody(slow_script):
    with fakes.Bot(script=slow_script, SLACKBOT_ACK_SECONDS=0.2) as bot:
        for peer in crowd(bot, 40, signed(fakes.form("/slow"))):
            peer.close()
        expect_life(bot)
        time.sleep(0.5)
        expect_life(bot)


def hundred_commands(bot, caller):
    """A hundred commands of one caller, half of them over one connection."""
    with connect(bot) as peer:
        for number in range(50):
            word = f"caller-{caller}-{number}"
            assert word in ask(peer, signed(fakes.form("/hello " + word))).json["text"]
            assert word in bot.command("/hello " + word).json["text"]


def test_a_thousand_commands_get_a_thousand_answers_each_its_own(bot):
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(functools.partial(hundred_commands, bot), range(10)))
    expect_life(bot)


def test_callers_that_never_read_their_answers_make_room_for_a_newcomer():
    with fakes.Bot(SLACKBOT_CONNECTIONS=8) as bot:
        peers = crowd(bot, 8, get(path="/") * 500)  # none of them reads its answers
        try:
            time.sleep(1)  # until the kernel takes no more for any of them
            for _ in range(20):
                begin = time.monotonic()
                assert Reply(talk(bot, get())).status == 200
                assert time.monotonic() - begin < 2
        finally:
            for peer in peers:
                peer.close()
        expect_life(bot)


# ---- slow: these wait in the background from the first test on ----

def drip(data, start=b"", pause=0.5):
    """What sends *start*, and then *data* in single bytes, twice a second."""
    def speak(peer):
        send(peer, start)
        peer.settimeout(pause)
        for byte in data:
            send(peer, bytes([byte]))
            try:
                return peer.recv(65536)
            except TimeoutError:
                pass
            except ConnectionError:
                return b""
        return None
    return speak


def silence(data, wait_for=0):
    """What sends *data*, takes *wait_for* answers and then says no more."""
    def speak(peer):
        send(peer, data)
        for _ in range(wait_for):
            assert Reply(receive(peer, whole)).status == 200
        return receive(peer)
    return speak


SLOW = {  # what a client does, and how many seconds it may at least take
    "row 58: half a body, then silence": (silence(HALF), 8),
    "row 65: a byte every half second": (drip(signed()), 8),
    "row 65: a body byte by byte": (drip(b"a" * 50, HALF[:-40]), 8),
    "nothing at all": (silence(b""), 8),
    "empty lines": (drip(b"\r\n" * 50), 0),
    "half a head": (silence(get()[:-3]), 8),
    "an answer, then half a request": (silence(get() + get()[:-3], wait_for=1), 8),
}


def outlast(bot, speak):
    """How long the bot bears with a client that *speaks* so: seconds, and its last words."""
    begin = time.monotonic()
    with connect(bot, timeout=20) as peer:
        last = speak(peer)
    return time.monotonic() - begin, last


@pytest.fixture(scope="module", autouse=True)
def patience():
    pool = concurrent.futures.ThreadPoolExecutor(len(SLOW))
    with fakes.Bot() as bot:
        yield {what: pool.submit(outlast, bot, speak) for what, (speak, _) in SLOW.items()}
    pool.shutdown()
    calm(bot)


@pytest.mark.parametrize("what", SLOW)
def test_a_slow_client_is_cut_at_the_deadline_of_the_whole_request(patience, what):
    seconds, last = patience[what].result(20)
    assert SLOW[what][1] < seconds < 12
    assert last is not None, "the whole request was taken"
    if last:
        reply = Reply(last)
        assert reply.status in (400, 408) and reply.closes and not reply.rest


HURRIED = """
import slackbot
slackbot.REQUEST_SECONDS = 0.3
slackbot.main()
"""


def test_nothing_is_said_in_the_middle_of_an_answer_that_nobody_reads(tmp_path):
    script = tmp_path / "hurried.py"
    script.write_text(HURRIED)
    with fakes.Bot(script=script) as bot, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect((bot.host, bot.port))
        peer.sendall(get(path="/") * 1500)
        time.sleep(1.5)  # past the deadline, and a sweep
        expect_life(bot)
        assert "status=408" not in bot.output


OWN = """
import time, slackbot
slackbot.HELD_SECONDS, slackbot.HURRY_SECONDS = 0.05, 10

@slackbot.command("/hang")
def hang(request, seconds: float):
    time.sleep(seconds)
    return "hung"

@slackbot.command("/two")
def two(request):
    yield "first"
    yield "second"

slackbot.main()
"""


@pytest.fixture
def door():
    """A door that nobody has but the test, at the time `door.now[0]`."""
    config, now = slackbot.Config({"PORT": "0", "HOST": "127.0.0.1"}), [0.0]
    door = slackbot.Door(config, slackbot.Bot(config, None), clock=lambda: now[0])
    door.now, door.thread = now, threading.get_ident()
    yield door
    door.server_close()


def in_one_turn(bot, requests):
    """Connections whose requests end together, while the first of them keeps the door busy."""
    peers = [connect(bot, 20) for _ in requests]
    for peer, request in zip(peers, requests):
        peer.sendall(request[:-1])
    time.sleep(0.2)
    for peer, request in zip(peers, requests):
        peer.send(request[-1:])
        time.sleep(0.005 * (peer is peers[0]))
    return peers


LONG = {"blanks": b"A:" + b" " * 60_000 + b"\0", "words": b"A: " + b"x " * 30_000 + b"\0",
        "a name": b"A" * 60_000, "tabs": b"A:" + b"\t" * 60_000 + b"\r"}


@pytest.mark.parametrize("what", LONG)
def test_a_long_bad_header_field_is_refused_as_quickly_as_a_short_one(what):
    begun = time.monotonic()
    with pytest.raises(slackbot.Refused):
        slackbot.parse_fields(LONG[what] + b"\r\n")
    assert time.monotonic() - begun < 0.5


def lend(door, monkeypatch, handler):
    """A job that the door may run, of a command of its own, answered by the watch already."""
    command = slackbot.Command("/lent", handler, [], "/lent", "")
    monkeypatch.setitem(slackbot.commands, "/lent", command)
    monkeypatch.setitem(slackbot.longest, "/lent", 1)
    answered, lent = threading.Event(), []
    door.bot.accept(slackbot.Request(command="/lent"), lambda _: answered.set(),
                    slackbot.ResponseURL(""), lent.append)
    door.bot.hurry()
    assert answered.wait(5)
    return lent[0]


def test_a_slow_handler_loses_the_door_though_it_was_answered_before_its_turn(door, monkeypatch):
    over, taken = threading.Event(), threading.Event()
    job = lend(door, monkeypatch, lambda request: over.wait(10) and None)
    until = time.monotonic() + 5
    while door.bot.awake.is_set() and time.monotonic() < until:
        time.sleep(0.01)  # the watch sees that there is nothing to watch
    time.sleep(slackbot.WATCH_SECONDS * 2)
    holder = threading.Thread(target=door.bot.hold, args=(job, taken.set), daemon=True)
    holder.start()
    assert taken.wait(5)
    over.set()
    holder.join(5)


def test_a_command_that_was_slow_runs_elsewhere_when_its_turn_comes(door, monkeypatch):
    ran, threads = threading.Event(), []

    def handler(request):
        threads.append(threading.get_ident())
        ran.set()
    job = lend(door, monkeypatch, handler)
    door.bot.slow["/lent"] = slackbot.QUICK_RUNS  # since it was lent
    assert door.bot.hold(job, None)
    assert ran.wait(5) and threads != [threading.get_ident()]


def test_a_first_answer_does_not_wait_for_all_the_others_of_its_turn(script):
    with fakes.Slack() as slack, fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin,
                                           SLACKBOT_CONNECTIONS=100) as bot:
        url = slack.response_url()
        peers = in_one_turn(bot, [
            signed(fakes.form("/hang 0.03")), signed(fakes.form("/two", response_url=url)),
            *(signed(fakes.form("/hang 0.02", trigger_id=number)) for number in range(80))])
        assert b"first" in receive(peers[1], whole)
        first = time.monotonic()
        slack.wait(url)
        assert first - slack.posts[url][0].at < 0.3  # we may be slow to hear of the first
        assert all(b"200 OK" in receive(peer, whole) for peer in peers[:1] + peers[2:])


def test_any_number_of_threads_may_ring_though_the_door_is_busy(door):
    door.thread = None  # as other threads see it
    ringer = threading.Thread(target=lambda: [door.resume(None) for _ in range(2000)], daemon=True)
    ringer.start()
    ringer.join(5)
    assert not ringer.is_alive()


def test_a_newcomer_is_let_in_where_a_slow_caller_has_a_quick_request_behind(script):
    with fakes.Bot(script=script, SLACKBOT_CONNECTIONS=2) as bot:
        peers = [connect(bot) for _ in range(2)]
        for number, peer in enumerate(peers):
            peer.sendall(signed(fakes.form("/hang 2", trigger_id=number)) + get())
        time.sleep(0.5)
        assert bot.get("/healthz").status == 200
        for peer in peers:
            peer.close()


def test_a_refusal_that_comes_with_the_deadline_is_sent(door):
    with socket.create_connection(door.server_address) as peer:
        peer.settimeout(5)
        for now, data in ((0, b"GET / HTTP/1.1\r\n"),
                          (slackbot.REQUEST_SECONDS + 0.2, b"no field\r\n\r\n")):
            door.now[0] = now  # late at last, but no sweep has come yet
            peer.sendall(data)
            for key, _ in door.selector.select(5):
                key.data()
        door.sweep(door.now[0])
        door.hand_out()
        assert peer.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_one_who_asks_and_asks_keeps_no_newcomer_out():
    over = threading.Event()

    def drink(peer):
        with contextlib.suppress(OSError):
            receive(peer)

    def insist(bot):
        while not over.is_set():
            with contextlib.suppress(OSError), connect(bot) as peer:
                threading.Thread(target=drink, args=(peer,), daemon=True).start()
                while not over.is_set():
                    peer.sendall(get() * 50)

    with fakes.Bot(SLACKBOT_CONNECTIONS=2) as bot, connect(bot):
        insistent = threading.Thread(target=insist, args=(bot,), daemon=True)
        insistent.start()
        time.sleep(0.2)
        try:
            begun = time.monotonic()
            for _ in range(5):
                assert Reply(talk(bot, get())).status == 200
            assert time.monotonic() - begun < 2.5
        finally:
            over.set()
            insistent.join(5)


def test_a_door_that_changes_hands_often_still_sees_late_callers_off(door):
    swept, turns = [], itertools.count()
    door.sweep, door.bot.hold = swept.append, lambda *_: False
    door.hand_out = lambda: next(turns) % 2 and door.lent.append(None)  # the second one in a turn
    for _ in range(10):
        door.now[0] += slackbot.SWEEP_SECONDS * 0.6
        door.serve_forever()
    assert len(swept) >= 4


def test_who_makes_room_with_its_answer_has_all_of_it(door):
    door.config.slackbot_connections = 1
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(5)
        peer.connect(door.server_address)
        peer.sendall(get(path="/"))
        for key, _ in door.selector.select(5):
            key.data()
        peer.sendall(get())
        assert not door.has_room()
        door.serve(door.asked.popleft())
        door.hand_out()
        answer = b""
        while not whole(answer):
            for key, _ in door.selector.select(0.05):
                key.data()
            chunk = peer.recv(65536)
            assert chunk, "cut off"
            answer += chunk
        assert b"Connection: close" in answer
        assert Reply(answer).status == 200


def test_who_asks_while_a_newcomer_waits_for_room_is_answered_and_leaves(door):
    door.config.slackbot_connections = 1
    with socket.create_connection(door.server_address) as peer:
        peer.settimeout(5)

        def answered():
            door.serve(door.asked.popleft())
            door.hand_out()
            return peer.recv(65536)
        peer.sendall(get())
        for key, _ in door.selector.select(5):
            key.data()
        assert b"Connection: close" not in answered()
        peer.sendall(get())
        time.sleep(0.05)  # it has arrived, but the door hasn't looked
        door.now[0] += 1
        assert not door.has_room()
        assert b"Connection: close" in answered()
