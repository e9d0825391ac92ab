"""Bad HTTP, for the tests of the parser (test_requests.py) and of the server (test_server.py); and
a client that says it, byte by byte.

`MALFORMED` has the rows of reference/hostile-input-and-hosts.md that are about bytes alone."""

import json
import random
import re
import socket

from fakes import PATIENCE

CLOSE = "bare close"  # stands for a status where closing without a word is an answer too
FORM = "Content-Type: application/x-www-form-urlencoded"
CHUNKED = "Transfer-Encoding: chunked"


def http(line, *fields, body="", host="Host: bot.example"):
    """The bytes of a request; a character is a byte."""
    fields = [field for field in (host, *fields) if field]
    return "\r\n".join([line, *fields, "", body]).encode("latin-1")


def get(*fields, path="/healthz", **more):
    return http(f"GET {path} HTTP/1.1", *fields, **more)


def post(*fields, path="/slack/commands", **more):
    return http(f"POST {path} HTTP/1.1", FORM, *fields, **more)


NEXT = get().decode()  # a second request, that nobody may answer


def chunked(body):
    """A chunked command (*body* has its chunks) with another request behind it."""
    return post(CHUNKED, body=body + NEXT)


MALFORMED = [  # (row, what it is, its bytes, the statuses that are right)
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
    (46, "Transfer_Encoding", get("Transfer_Encoding: chunked"), {200, 400}),
    (46, "Content_Length", get("Content_Length: 5"), {200, 400}),
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
]

LENGTHS = [  # (what it is, its bytes, the status)
    ("a request line of 8,000 bytes", get(path="/healthz?" + "a" * (8000 - 22)), 200),
    ("a request line of 16 KiB", get(path="/healthz?" + "a" * 16_384), 414),
    ("90 header fields", get(*[f"X-{i}: v" for i in range(89)]), 200),
    ("60,000 bytes of header fields", get(*["X: " + "a" * 1000 for _ in range(60)]), 200),
    ("70,000 bytes of header fields", get(*["X: " + "a" * 1000 for _ in range(70)]), 431),
]


# ---- accidents

ACCIDENTS = [b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x0b", b"\x7f", b"\xff", b" ",
             b"\xed\xa0\x80", b"\t", b":", b"%", b"&", b"=", b";", b"<", b"9", b"-", b'"',
             b"{", b"[", b"\\ud800"]


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


# ---- a client that says anything, and a reader that takes nothing but HTTP

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


def connect(bot, timeout=PATIENCE):
    return socket.create_connection((bot.host, bot.port), timeout)


def send(peer, data):
    """Send *data*, as far as the server takes it: it may have refused and closed by then."""
    try:
        peer.sendall(data)
    except ConnectionError:
        pass


def finish(peer):
    """Say that nothing more will come."""
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:  # the server has closed
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
