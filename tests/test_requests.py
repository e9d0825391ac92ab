"""Requests: how they are parsed, and what must be true before the bot takes them for Slack's."""

import contextlib
import http.client
import json
import math
import random
import socket
import time
import types
import urllib.parse

import pytest

import fakes
import hostile
import network_fakes
import slackbot
from api_fakes import check_log, until, until_logged
from fakes import PATIENCE

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
HOOK = "https://hooks.slack.com/commands/T1DC2JH3J/397700885554/96rGlfmibIGlgcZRskXaIFfN"

# Slack's own example: docs.slack.dev, "Verifying requests from Slack".
VECTOR_TIME = 1531420618
VECTOR_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
    b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121."
    b"803a0bc887a14d10d2c447fce8b6703c")
VECTOR_SIGNATURE = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"


def post(bot, body, headers, path="/slack/commands", kind=FORM):
    """Post *body* with *headers*, a list of pairs in which a name may stand twice."""
    connection = http.client.HTTPConnection(bot.host, bot.port, timeout=PATIENCE)
    try:
        connection.putrequest("POST", path)
        for name, value in [("Content-Type", kind), ("Content-Length", str(len(body))), *headers]:
            connection.putheader(name, value.encode())
        connection.endheaders(body)
        return fakes.Answer(connection.getresponse())
    finally:
        connection.close()


def signed(bot, body, path="/slack/commands", kind=FORM):
    """Post *body* as Slack would."""
    return post(bot, body, fakes.sign(body).items(), path, kind)


def answer(bot, body):
    """The text of the first answer to the signed form *body*."""
    got = signed(bot, body)
    assert got.status == 200, got.text
    return got.json["text"]


@pytest.fixture(scope="module")
def bot():
    with fakes.Bot() as bot:
        yield bot
        check_log(bot)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A bot whose clock stands still at the time of Slack's example."""
    script = tmp_path_factory.mktemp("frozen") / "frozen.py"
    script.write_text(f"import time\ntime.time = lambda: {VECTOR_TIME}.0\n"
                      "import slackbot\nslackbot.main()\n")
    with fakes.Bot(script=script) as bot:
        yield bot
        check_log(bot)


# ---- the HTTP parser ----

def parse(pieces):
    """What the bot's RequestReader makes of bytes that come in *pieces*: the requests, and the
    status of the error that ends them, or None."""
    reader, requests = slackbot.RequestReader(), []
    try:
        for piece in pieces:
            reader.feed(piece)
            while request := reader.next_request():
                requests.append(request)
    except slackbot.HTTPError as error:
        return requests, error.status
    return requests, None


def chunks(data, size):
    """*data* in pieces of *size* bytes."""
    return [data[start:start + size] for start in range(0, len(data), size)]


def cuts(data):
    """Where to cut *data* in two: everywhere; in long data, at its ends and near the limits."""
    places = range(len(data) + 1)
    if len(data) <= 1000:
        return places
    line, end = data.find(b"\n"), data.find(b"\r\n\r\n")
    near = {place + near for place in (0, len(data), line, end, slackbot.LINE_BYTES,
                                       line + slackbot.HEAD_BYTES) for near in range(-20, 21)}
    return sorted(near.intersection(places).union(random.Random(0).sample(places, 50)))


def parse_in_every_way(data):
    """What the parser makes of *data*, which is the same however the bytes come."""
    outcome = parse([data])
    for place in cuts(data):
        is_same = parse([data[:place], data[place:]]) == outcome
        assert is_same, f"cut at {place}"
    for size in (1, 2, 3, 7, 1460):
        is_same = parse(chunks(data, size)) == outcome
        assert is_same, f"in pieces of {size}"
    return outcome


ENOUGH = 200_000  # bytes of a row, in all of which there is an error before


@pytest.mark.parametrize("row", hostile.MALFORMED, ids=lambda row: f"row {row[0]}, {row[1]}")
def test_malformed_bytes_have_the_same_outcome_however_they_are_cut_up(row):
    _, _, data, wanted = row
    requests, status = parse_in_every_way(data[:ENOUGH])
    if status:
        assert status in wanted and not requests
    elif requests:
        assert wanted & {200, 404, 405}, "these are said by the server, of good HTTP"
    else:
        assert hostile.CLOSE in wanted, "half a request"


@pytest.mark.parametrize("row", hostile.LENGTHS, ids=lambda row: row[0])
def test_long_requests_have_the_same_outcome_however_they_are_cut_up(row):
    _, data, wanted = row
    requests, status = parse_in_every_way(data)
    assert (status, len(requests)) == ((None, 1) if wanted == 200 else (wanted, 0))


def line_of(size):
    """A request whose first line has *size* bytes before its line feed."""
    return hostile.get(path="/" + "a" * (size - len("GET / HTTP/1.1\r")))


def fields_of(size):
    """A request whose fields, with the line ends between them, have *size* bytes; the parser
    counts the two of the request line, too."""
    field = "X: " + "a" * (size - 2 - len("Host: bot.example\r\nX: "))
    return hostile.http("GET / HTTP/1.1", field)


@pytest.mark.parametrize("near", range(-5, 6))
@pytest.mark.parametrize("make, limit, status", [
    (line_of, slackbot.LINE_BYTES - 1, 414), (fields_of, slackbot.HEAD_BYTES, 431)],
    ids=["request line", "header"])
def test_a_length_near_the_limit_has_the_same_outcome_however_it_is_cut_up(
        make, limit, status, near):
    requests, error = parse_in_every_way(make(limit + near))
    assert (len(requests), error) == ((1, None) if near <= 0 else (0, status))


GET, INNER = hostile.get(), hostile.get(path="/inner").decode()
VALID = [  # (what it is, its bytes, the method, path, query and body of each request)
    ("nothing", b"", []),
    ("GET", GET, [("GET", "/healthz", "", b"")]),
    ("a query", hostile.get(path="/?name=Robert&a=/?b"), [("GET", "/", "name=Robert&a=/?b", b"")]),
    ("HEAD", hostile.http("HEAD / HTTP/1.1"), [("HEAD", "/", "", b"")]),
    ("HTTP/1.0 without Host", hostile.http("GET / HTTP/1.0", host=None), [("GET", "/", "", b"")]),
    ("no field at all", b"GET / HTTP/1.0\r\n\r\n", [("GET", "/", "", b"")]),
    ("values of every kind", hostile.get("X:", "Y: \t", "Z:\ta \t", "A: \xe9", "B::"),
     [("GET", "/healthz", "", b"")]),
    ("a form", hostile.post("Content-Length: 3", body="a=b"),
     [("POST", "/slack/commands", "", b"a=b")]),
    ("an empty body", hostile.post("Content-Length: 0"), [("POST", "/slack/commands", "", b"")]),
    ("a body that looks like a request", hostile.post(f"Content-Length: {len(INNER)}", body=INNER),
     [("POST", "/slack/commands", "", INNER.encode())]),
    ("a body of line ends", hostile.post("Content-Length: 8", body="\r\n\r\n" * 2),
     [("POST", "/slack/commands", "", b"\r\n\r\n" * 2)]),
    ("a body after a question",
     hostile.post("Content-Length: 3", "Expect: 100-continue", body="a=b"),
     [("POST", "/slack/commands", "", b"a=b")]),
    ("four requests with empty lines between", GET + b"\r\n" + GET + b"\r\n\r\n"
     + hostile.post("Content-Length: 2", body="\r\n") + GET,
     [("GET", "/healthz", "", b"")] * 2 + [("POST", "/slack/commands", "", b"\r\n"),
                                           ("GET", "/healthz", "", b"")]),
    ("a request and a half", GET + hostile.post("Content-Length: 9", body="half"),
     [("GET", "/healthz", "", b"")]),
    ("half a header", GET[:-1], []), ("an empty line and half a line", b"\r\nGE", []),
]


@pytest.mark.parametrize("row", VALID, ids=lambda row: row[0])
def test_valid_requests_are_the_same_however_they_are_cut_up(row):
    _, data, wanted = row
    requests, status = parse_in_every_way(data)
    assert status is None
    assert [(each.method, each.path, each.query, each.body) for each in requests] == wanted


@pytest.mark.parametrize("data, status", [
    (GET + hostile.get("X: a\0b") + GET, 400), (GET + b"\r\n\r\n\r\n" + GET, 400),
    (GET + hostile.post(hostile.CHUNKED), 501), (GET + b"\x16\x03\x01", 400)])
def test_an_error_after_a_good_request_ends_the_connection_however_it_is_cut_up(data, status):
    requests, error = parse_in_every_way(data)
    assert (len(requests), error) == (1, status)


def test_a_method_that_begins_with_a_sign_has_the_same_outcome_however_it_is_cut_up():
    for sign in "!#$%&'*+-.^_`|~09":
        assert parse_in_every_way(hostile.http(f"{sign}GET / HTTP/1.1")) in (([], 400), ([], 501))


def test_mutated_requests_have_the_same_outcome_however_they_are_cut_up():
    chance = random.Random(11)
    statuses = set()
    for _ in range(300):
        _, data, _ = chance.choice(VALID)
        _, status = parse_in_every_way(hostile.mutate(chance, data + GET))
        statuses.add(status)
    assert statuses >= {None, 400, 501}


class Counted(bytearray):
    """A bytearray that adds up in `work` the bytes that are looked at, copied or moved."""

    work = 0

    def find(self, what, start=0, *end):
        found = super().find(what, start, *end)
        self.work += (found if found >= 0 else len(self)) - start + len(what)
        return found

    def __iadd__(self, data):
        self.work += len(data)
        return super().__iadd__(data)

    def __getitem__(self, key):
        got = super().__getitem__(key)
        self.work += len(got) if isinstance(got, bytearray) else 1
        return got

    def __delitem__(self, key):
        super().__delitem__(key)
        self.work += len(self)  # which may have to be moved

    def __buffer__(self, flags):  # for a regular expression, say; from Python 3.12 on
        self.work += len(self)
        return super().__buffer__(flags)


def count_all(name):
    """A method of `Counted` that may look at all bytes."""
    def method(self, *arguments):
        self.work += len(self)
        return getattr(bytearray, name)(self, *arguments)
    return method


for name in ("__add__", "__contains__", "__iter__", "count", "decode", "endswith", "index",
             "lstrip", "partition", "replace", "rfind", "rpartition", "rstrip", "split",
             "splitlines", "strip", "translate"):
    setattr(Counted, name, count_all(name))
Counted.__bytes__ = lambda self: self[:]


def work(data, size):
    """The bytes that the parser handles for each byte of *data* that comes in pieces of *size*."""
    reader = slackbot.RequestReader()
    reader.received = received = Counted()
    with contextlib.suppress(slackbot.HTTPError):
        for piece in chunks(data, size):
            reader.feed(piece)
            while reader.next_request():
                pass
    assert reader.received is received, "what is counted is what is used"
    return received.work / len(data)


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("make, length", [
    (line_of, 500), (fields_of, 4000),
    (lambda size: hostile.get(*["X: " + "a" * (size // 80)] * 80), 4000),
    (lambda size: hostile.post(f"Content-Length: {size}", body="\n" * size), 8000),
    (lambda size: (b"\r\n\r\n" + GET) * (size // 50), 4000),
    (lambda size: b"\r\n" * (size // 2) + GET, 4000),
    (lambda size: b"\r" * size, 500)],
    ids=["request line", "field", "fields", "body", "blank lines between requests", "blank lines",
         "bare carriage returns"])
def test_the_parsers_work_is_in_proportion_to_the_bytes_however_they_are_cut_up(
        make, length, size):
    assert work(make(16 * length), size) <= 4 * work(make(length), size)


# ---- the signature ----

def vector(bot, body=VECTOR_BODY, signature=VECTOR_SIGNATURE, timestamp=VECTOR_TIME):
    return post(bot, body, [("X-Slack-Request-Timestamp", str(timestamp)),
                            ("X-Slack-Signature", signature)]).status


def test_slacks_published_example_is_accepted(frozen):
    assert vector(frozen) == 200


def test_any_change_to_slacks_published_example_is_refused(frozen):
    chance = random.Random(0)
    for place in [0, len(VECTOR_BODY) - 1, *chance.sample(range(len(VECTOR_BODY)), 20)]:
        body = bytearray(VECTOR_BODY)
        body[place] ^= 1
        assert vector(frozen, body=bytes(body)) == 401
    for place in range(len(VECTOR_SIGNATURE)):
        wrong = "0" if VECTOR_SIGNATURE[place] != "0" else "1"
        signature = VECTOR_SIGNATURE[:place] + wrong + VECTOR_SIGNATURE[place + 1:]
        assert vector(frozen, signature=signature) == 401
    assert vector(frozen, body=VECTOR_BODY + b"&") == 401
    assert vector(frozen, body=VECTOR_BODY[:-1]) == 401
    assert vector(frozen, timestamp=VECTOR_TIME + 1) == 401


@pytest.mark.parametrize("offset, status", [(-301, 401), (-300, 200), (0, 200), (300, 200),
                                            (301, 401), (-10 ** 9, 401), (10 ** 9, 401)])
def test_a_signature_is_good_for_300_seconds(frozen, offset, status):
    body = fakes.form(f"/hello {offset}")
    headers = fakes.sign(body, timestamp=VECTOR_TIME + offset).items()
    assert post(frozen, body, headers).status == status


@pytest.mark.parametrize("when, status", [
    (lambda: math.ceil(time.time()) - 280, 200), (lambda: math.floor(time.time()) + 299, 200),
    (lambda: math.floor(time.time()) - 301, 401), (lambda: math.ceil(time.time()) + 320, 401)])
def test_the_300_seconds_are_counted_from_now(bot, when, status):
    body = fakes.form("/hello")
    assert post(bot, body, fakes.sign(body, timestamp=when()).items()).status == status


def arabic(text):
    return text.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))


@pytest.mark.parametrize("spell", [
    lambda now: "abc", lambda now: "", lambda now: arabic(now), lambda now: now[:-1] + "²",
    lambda now: "1" * 5000, lambda now: "0" * 5000 + now, lambda now: "+" + now,
    lambda now: "-" + now, lambda now: now + ".0", lambda now: f"{int(now):_}",
    lambda now: f"{int(now):,}", lambda now: hex(int(now)), lambda now: f"{int(now):e}",
    lambda now: now + "000", lambda now: "nan", lambda now: "inf", lambda now: now + ";",
    lambda now: f"{now}, {now}"])
def test_a_timestamp_is_nothing_but_digits_even_if_it_is_signed(bot, spell):
    body = fakes.form("/hello")
    timestamp = spell(str(int(time.time())))
    assert post(bot, body, fakes.sign(body, timestamp=timestamp).items()).status == 401


BAD_SIGNATURES = {
    "missing": lambda time, good: [time],
    "time missing": lambda time, good: [good],
    "both missing": lambda time, good: [],
    "empty": lambda time, good: [time, (good[0], "")],
    "zeros": lambda time, good: [time, (good[0], "v0=" + "0" * 64)],
    "only v0=": lambda time, good: [time, (good[0], "v0=")],
    "without v0=": lambda time, good: [time, (good[0], good[1][3:])],
    "version 1": lambda time, good: [time, (good[0], "v1" + good[1][2:])],
    "capital V": lambda time, good: [time, (good[0], "V" + good[1][1:])],
    "cut short": lambda time, good: [time, (good[0], good[1][:-1])],
    "too long": lambda time, good: [time, (good[0], good[1] + "0")],
    "é": lambda time, good: [time, (good[0], "v0=é")],
    "64 times é": lambda time, good: [time, (good[0], "v0=" + "é" * 64)],
    "a good one behind an emoji": lambda time, good: [time, (good[0], "👍" + good[1])],
    "two values": lambda time, good: [time, (good[0], f"{good[1]}, {good[1]}")],
    "10,000 characters": lambda time, good: [time, (good[0], "v0=" + "a" * 7_000)],
    "in the wrong header": lambda time, good: [time, ("X-Signature", good[1])],
}


@pytest.mark.parametrize("what", BAD_SIGNATURES)
def test_a_bad_signature_is_refused(bot, what):
    body = fakes.form("/hello")
    got = post(bot, body, BAD_SIGNATURES[what](*fakes.sign(body).items()))
    assert got.status == 401 and list(got.json) == ["error"]


@pytest.mark.parametrize("name", ["X-Slack-Signature", "X-Slack-Request-Timestamp"])
@pytest.mark.parametrize("first", [True, False])
def test_a_header_that_comes_twice_is_refused(bot, name, first):
    body = fakes.form("/hello")
    headers = list(fakes.sign(body).items())
    other = (name, "v0=0" if name.endswith("Signature") else "1")
    got = post(bot, body, [other, *headers] if first else [*headers, other])
    assert got.status in (400, 401)


def test_header_names_may_have_any_case(bot):
    body = fakes.form("/hello")
    for change in (str.lower, str.upper):
        headers = [(change(name), value) for name, value in fakes.sign(body).items()]
        assert post(bot, body, headers).status == 200


def test_a_signature_with_another_secret_is_refused(bot):
    body = fakes.form("/hello")
    for secret in ("", "secret", fakes.SECRET[:-1], fakes.SECRET + "0", fakes.SECRET.upper()):
        assert post(bot, body, fakes.sign(body, secret).items()).status == 401


# ---- the same request again

SKEWED = """
import time
skew = 0
now, monotonic = time.time, time.monotonic
time.time = lambda: now() + skew
time.monotonic = lambda: monotonic() + skew
import slackbot


@slackbot.command("/skip", inline=True)
def skip(request, seconds: int):
    "Let time pass."
    global skew
    skew += seconds


slackbot.main()
"""


class Skewed:
    """A bot for which `skip` lets time pass; `now` is what it takes for the time."""

    def __init__(self, bot):
        self.bot, self.now = bot, time.time()

    def send(self, body, headers, path="/slack/commands"):
        return post(self.bot, body, headers.items(), path).status

    def sign(self, body):
        return fakes.sign(body, timestamp=int(self.now))

    def skip(self, seconds):
        body = fakes.form(f"/skip {seconds}", trigger_id=f"{self.now}")
        assert self.send(body, self.sign(body)) == 200
        self.now += seconds


@pytest.fixture
def skewed(tmp_path):
    script = tmp_path / "skewed.py"
    script.write_text(SKEWED)
    with fakes.Bot(script=script) as bot:
        yield Skewed(bot)
        check_log(bot)


def test_the_same_bytes_are_served_again_for_30_seconds_as_a_proxy_may_repeat_them(skewed):
    body = fakes.form("/hello again")
    headers = skewed.sign(body)
    for _ in range(3):
        assert [skewed.send(body, headers) for _ in range(3)] == [200] * 3
        skewed.skip(9)


@pytest.mark.parametrize("seconds, path", [
    ([32], "/slack/commands"), ([28, 4], "/hello"), ([267, 31], "/"), ([20] * 6, "/other")])
def test_the_same_bytes_are_refused_after_30_seconds_and_from_then_on(skewed, seconds, path):
    body = fakes.form("/hello again")
    headers = skewed.sign(body)
    assert skewed.send(body, headers) == 200
    for each in seconds:
        skewed.skip(each)
    assert skewed.send(body, headers, path) == skewed.send(body, headers) == 401
    assert skewed.send(body, skewed.sign(body)) == 200, "signed afresh, it is another request"


@pytest.mark.parametrize("repeats, replays", [
    ([0], [False]), ([0, 0, 29.9], [False] * 3), ([0, 30.1], [False, True]),
    ([0, 29, 31], [False, False, True]), ([0, 31, 31, 599], [False, True, True, True])])
def test_a_signature_that_comes_again_after_30_seconds_is_a_replay(repeats, replays):
    times = iter([1000 + after for after in repeats] + [2000])
    seen = slackbot.SeenIDs(slackbot.REPEAT_SECONDS, lambda: next(times))
    assert [not seen.admit("v0=1") for _ in repeats] == replays
    assert seen.admit("v0=2")


@pytest.mark.parametrize("now", [700, 999, 1000, 1001, 1300, 1301, 10 ** 9])
def test_a_wall_clock_that_is_set_lets_no_replay_through(now):
    config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET})
    clock = fakes.Clock()
    seen = slackbot.Bot(config, None, clock=clock, make_pool=fakes.Pool).seen_signatures
    headers = {name.lower(): value
               for name, value in fakes.sign(b"team_id=T2", timestamp=1000).items()}
    slackbot.verify(config, headers, b"team_id=T2", 1000, seen)
    clock.now += slackbot.REPEAT_SECONDS
    for wall in (now, 1000, now):
        with pytest.raises(slackbot.HTTPError) as caught:
            slackbot.verify(config, headers, b"team_id=T2", wall, seen)
        assert caught.value.status == 401


def test_no_memory_of_what_came_has_a_clock_that_can_be_set():
    config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET, "SLACK_APP_TOKEN": "xapp-1"})
    bot = slackbot.Bot(config, None, make_pool=fakes.Pool)
    envelopes = slackbot.SocketModeClient(config, bot).seen_envelopes
    memories = [bot.seen_signatures, bot.seen_events, envelopes]
    assert len(set(map(id, memories))) == 3
    assert all(each.clock is time.monotonic for each in memories)


def test_the_memory_of_signatures_is_bounded_and_forgets_the_oldest():
    seen, count = slackbot.SeenIDs(), slackbot.REMEMBERED + 100
    assert all(seen.admit(f"v0={number}") for number in range(count))
    assert len(seen.first_seen) <= slackbot.REMEMBERED <= 100_000
    assert not seen.admit(f"v0={count - 1}") and not seen.admit("v0=200")
    assert seen.admit("v0=1"), "this one is forgotten"


def test_a_wrong_signature_takes_no_place_among_the_signatures_seen():
    config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET})
    seen, body = slackbot.SeenIDs(), b"team_id=T2"
    for signed_with, count in (("wrong", 0), (fakes.SECRET, 1)):
        headers = {name.lower(): value for name, value in
                   fakes.sign(body, signed_with, timestamp=1000).items()}
        with contextlib.nullcontext() if count else pytest.raises(slackbot.HTTPError):
            slackbot.verify(config, headers, body, 1000, seen)
        assert len(seen.first_seen) == count


@pytest.mark.parametrize("path, kind", [
    ("/slack/commands", FORM), ("/slack/interactions", FORM), ("/slack/events", JSON)])
def test_a_body_that_slack_has_not_signed_is_refused_before_it_is_parsed(monkeypatch, path, kind):
    def parse(request, kind):
        parsed.append(request.body)
        raise slackbot.HTTPError(400, "parsed")

    parsed = []
    monkeypatch.setattr(slackbot, "parse_body", parse)
    config = slackbot.Config({"PORT": "0", "HOST": "127.0.0.1",
                              "SLACK_SIGNING_SECRET": fakes.SECRET})
    bot = slackbot.Bot(config, None, make_pool=fakes.Pool)
    body = b"payload=%7B%7D"
    with slackbot.WebServer(config, bot) as server:
        for headers, status in ((fakes.sign(body, "wrong"), 401), (fakes.sign(body), 400)):
            headers = {name.lower(): value for name, value in headers.items()}
            request = slackbot.HTTPRequest("POST", path, "", headers, body, True)
            with pytest.raises(slackbot.HTTPError) as caught:
                server.routes[path]["POST"](types.SimpleNamespace(request=request))
            assert (caught.value.status, len(parsed)) == (status, status == 400)


PATHS = [
    ("/slack/commands", FORM, fakes.form("/hello")), ("/", FORM, fakes.form("/hello")),
    ("/slash-commands/hello", FORM, fakes.form("/hello")), ("/hello", FORM, b"text=")]


@pytest.mark.parametrize("path, kind, body", PATHS, ids=[row[0] for row in PATHS])
def test_every_path_for_slack_asks_for_the_signature(bot, path, kind, body):
    got = post(bot, body, [], path, kind)
    assert got.status == 401 and list(got.json) == ["error"]
    assert signed(bot, body, path, kind).status in (200, 400)


def test_a_refusal_never_says_which_check_failed():
    refusals = set()
    with fakes.Bot(SLACK_VERIFICATION_TOKEN="right", SLACK_TEAM_ID="T1,T2") as bot:
        good = fakes.form("/hello", token="right", team_id="T1")
        assert signed(bot, good).status == 200
        for body in (fakes.form("/hello", token="wrong", team_id="T1"),
                     fakes.form("/hello", token="right", team_id="T3"), b"command=%2Fhello"):
            refusals.add(signed(bot, body))
        for headers in ([], [("X-Slack-Signature", "v0=é")], fakes.sign(good, "wrong").items(),
                        fakes.sign(good, timestamp=1).items(),
                        fakes.sign(good, timestamp="abc").items()):
            refusals.add(post(bot, good, headers))
    assert {each.status for each in refusals} == {401}
    assert len({each.body for each in refusals}) == 1
    names = [sorted(name for name, _ in each.headers.items()) for each in refusals]
    assert names.count(names[0]) == len(names)


# ---- the token, the team, all together ----

TOKEN, TEAMS = {"SLACK_VERIFICATION_TOKEN": "gIkuvaNzQIHg97ATvDxqgjtO"}, {"SLACK_TEAM_ID": "T1,T2"}
RIGHT = TOKEN["SLACK_VERIFICATION_TOKEN"]
CHECKS = [  # (what is configured, [(token, team, whether it is signed, status)]); None: not sent
    ({"SLACK_SIGNING_SECRET": None, **TOKEN}, [
        (RIGHT, "T9", False, 200), ("wrong", "T9", False, 401), (None, "T9", False, 401),
        ("", "T9", False, 401), (RIGHT[:-1], "T9", False, 401), (RIGHT + "x", "T9", False, 401),
        ("é", "T9", False, 401), (RIGHT.lower(), "T9", False, 401), ("wrong", "T9", True, 401),
        ("\udcff", "T9", False, 401)]),
    ({"SLACK_SIGNING_SECRET": None, **TOKEN, **TEAMS}, [
        (RIGHT, "T1", False, 200), (RIGHT, "T2", False, 200), (RIGHT, "T3", False, 401),
        (RIGHT, None, False, 401), ("wrong", "T1", False, 401)]),
    (TEAMS, [
        ("x", "T1", True, 200), ("x", "T2", True, 200), (None, "T2", True, 200),
        ("x", "T3", True, 401), ("x", "", True, 401), ("x", None, True, 401),
        ("x", "T1,T2", True, 401), ("x", "t1", True, 401), ("x", "T", True, 401),
        ("x", "T12", True, 401), ("x", ",", True, 401), ("x", "T1", False, 401)]),
    ({**TOKEN, **TEAMS}, [
        (RIGHT, "T1", True, 200), ("wrong", "T1", True, 401), (RIGHT, "T3", True, 401),
        (RIGHT, "T1", False, 401), (None, "T1", True, 401), (RIGHT, None, True, 401)]),
]


@pytest.mark.parametrize("environ, rows", CHECKS, ids=["token", "token team", "team", "all"])
def test_every_check_that_is_configured_must_pass(environ, rows):
    with fakes.Bot(**environ) as bot:
        assert bot.get("/status").json["mode"] == "live"
        for token, team, is_signed, status in rows:
            fields = {"command": "/hello", "token": token, "team_id": team}
            body = urllib.parse.urlencode({name: value for name, value in fields.items()
                                           if value is not None}, errors="surrogateescape")
            headers = fakes.sign(body.encode()).items() if is_signed else []
            got = post(bot, body.encode(), headers)
            assert got.status == status, (token, team, is_signed)
        check_log(bot)


# ---- what a form may hold ----

@pytest.mark.parametrize("body, fields", [
    (b"", {}), (b"a=b&c=d", {"a": "b", "c": "d"}), (b"a=&b", {"a": "", "b": ""}),
    (b"a=1&a=2", {"a": "2"}), (b"a=b+c%20d%2B", {"a": "b c d+"}), (b"a=b=c;d=e", {"a": "b=c;d=e"}),
    (b"a=%C3%A9\xc3\xa9", {"a": "éé"}), (b"a=%ff\xff", {"a": "\ufffd\ufffd"}),
    (b"a=%zz%", {"a": "%zz%"}), (b"&&a=b&&", {"a": "b"}), (b"%61=b", {"a": "b"})])
def test_a_form_becomes_its_fields(body, fields):
    assert slackbot.parse_form(body) == fields


def test_a_form_of_more_than_100_fields_is_a_400():
    def fields(count):
        return b"&".join(b"f%d=v" % number for number in range(count))
    assert len(slackbot.parse_form(fields(100))) == 100
    for count in (101, 100_000):
        with pytest.raises(slackbot.HTTPError) as caught:
            slackbot.parse_form(fields(count))
        assert caught.value.status == 400


# Bodies as long as a size says, in which a reader could look at bytes, or copy them, again.
FORMS = {
    "one field": lambda size: b"a=" + b"x" * size,
    "escapes": lambda size: b"a=" + b"%C3%A9" * (size // 6),
    "broken escapes": lambda size: b"a=" + b"%%z" * (size // 3),
    "plus signs": lambda size: b"a=" + b"+" * size,
    "no UTF-8": lambda size: b"a=" + b"\xff" * size,
    "fields": lambda size: b"&".join([b"a" * (size // 200) + b"=" + b"b" * (size // 200)] * 99),
    "ampersands": lambda size: b"&" * size,
    "equals signs": lambda size: b"=" * size}
JSONS = {
    "a text": lambda size: b'"' + b"a" * size + b'"',
    "escapes": lambda size: b'"' + b"\\ud83d\\ude80\\n" * (size // 14) + b'"',
    "a text without an end": lambda size: b'"' + b"\\\\" * (size // 2),
    "numbers": lambda size: b"[" + b"1.5e3," * (size // 6) + b"1]",
    "objects": lambda size: b"[" + b'{"a":"some text","b":[1]},' * (size // 26) + b"1]",
    "names": lambda size: b"{%b}" % b",".join(b'"%07d":1' % n for n in range(size // 12)),
    "the same name": lambda size: b'{"a":1' + b',"a":1' * (size // 6) + b"}",
    "blanks": lambda size: b" " * (size // 2) + b"1" + b" " * (size // 2),
    "a list without an end": lambda size: b"[" + b"null," * (size // 5)}


@pytest.mark.parametrize("parse, make", [
    pytest.param(parse, make, id=f"{kind}: {what}")
    for kind, parse, makes in (("form", slackbot.parse_form, FORMS),
                               ("JSON", slackbot.parse_json, JSONS))
    for what, make in makes.items()])
def test_the_work_of_parsing_a_body_is_in_proportion_to_the_bytes(parse, make):
    def parse_or_refuse(body):
        with contextlib.suppress(slackbot.HTTPError):
            parse(body)

    network_fakes.check_growth(parse_or_refuse, make(8_000), make(128_000))


@pytest.mark.parametrize("typed, shown", [
    ('payload <!channel> & "smart quotes" ünï 👍',
     'payload &lt;!channel&gt; &amp; "smart quotes" ünï 👍'),
    ("&lt;!channel&gt; &amp; all", "&lt;!channel&gt; &amp; all"),
    ("&amp;lt;b&amp;gt;", "&amp;lt;b&amp;gt;"), ("payload={}", "payload={}"), ("it's", "it's"),
    ("a  b", "a  b"), ("100% + a=b&amp;c;d", "100% + a=b&amp;c;d"), ("$(id) `id`", "$(id)"),
    ("ssl_check=1", "ssl_check=1"), ("\u202eevil", "evil"), ("日本語", "日本語"), ("{0} %s", "{0} %s")])
def test_hello_gives_back_what_was_typed_escaped_and_whole(bot, typed, shown):
    assert shown in answer(bot, fakes.form("/hello " + typed))


def test_a_form_in_any_encoding_is_the_same_form(bot):
    for text in ("a%20b", "a+b", "%61+b", "a%20%62"):
        body = f"command=%2Fhello&user_name=bob&text={text}".encode()
        assert "a b" in answer(bot, body)


@pytest.mark.parametrize("body", [
    b"command=%2Fhello&text=%ff%fe", b"command=%2Fhello&text=\xff",
    b"command=%2Fhello&text=%ED%A0%80", b"command=%2Fhello&text=%ED%A0%80%ED%B0%80",
    b"command=%2Fhello&text=%", b"command=%ff",
    b"command=%2Fhello&text=%zz", b"command=%2Fhello&text=%u0041", b"command=%2Fhello&text=%00",
    b"command=%2Fhello&%ff=1", b"command=%2Fhello&" + b"&".join(b"f%d=v" % i for i in range(2000)),
    b"command=%2Fhello" + b"&" * 5000, b"command=%2Fhello&command=%2Fhelp", b"command=", b"", b"=",
    b"command", b"command=hello", b"command=%2F", b"command=%2F%2F", b"command=%2Fhello%20there",
    b"command=%2FHELLO", b"command=%0A%2Fhello", b"text=payload", b"payload=", b"payload=%7B",
    b"command=%2Fhello&payload=%7B%7D", b"command=%2F" + b"a" * 50_000,
    b"command=%2Fhello&text=" + b"%26" * 300_000, b"\0" * 100, b"{}", b"command;%2Fhello"],
    ids=lambda body: ascii(body)[2:40])
def test_a_malformed_form_is_answered_or_refused_without_a_bug(bot, body):
    got = signed(bot, body)
    assert got.status in (200, 400), got.text
    assert got.status == 200 or list(got.json) == ["error"]
    json.dumps(got.json if got.body else None, ensure_ascii=False).encode()  # no lone surrogate


@pytest.mark.parametrize("path, body, word", [
    ("/slack/commands", fakes.form("/hello one"), "one"), ("/", fakes.form("/hello two"), "two"),
    ("/hello", fakes.form("/renamed three"), "three"), ("/hello", fakes.form("/help x"), "x"),
    ("/slash-commands/hello", fakes.form("/renamed five"), "five"),
    ("/slash-commands/unknown", fakes.form("/hello six"), "six"),
    ("/unknown", fakes.form("/hello seven"), "seven"),
    ("/unknown", fakes.form("/unknown-too"), "/hello"),
    ("/slack/commands", fakes.form("/unknown"), "/hello")])
def test_the_path_selects_the_command_or_else_the_form_does(bot, path, body, word):
    got = signed(bot, body, path)
    assert got.status == 200 and got.json["response_type"] == "ephemeral"
    assert word in got.json["text"]


# ---- modes ----

def test_without_a_secret_the_bot_says_what_is_missing_and_serves_no_command():
    with fakes.Bot(SLACK_SIGNING_SECRET=None) as bot:
        status = bot.get("/status").json
        assert status["mode"] == "setup" and "SLACK_SIGNING_SECRET" in status["missing"]
        for secret in (fakes.SECRET, ""):
            for path, kind, body in PATHS:
                got = post(bot, body, fakes.sign(body, secret).items(), path, kind)
                assert got.status == 503 and list(got.json) == ["error"], path
        assert bot.get("/").status == bot.get("/healthz").status == 200
        assert "SLACK_SIGNING_SECRET" in bot.get("/").text
        assert post(bot, b"ssl_check=1&token=x", []).status == 200
        check_log(bot)


def test_a_live_bot_does_not_report_its_secret_as_missing(bot):
    assert "SLACK_SIGNING_SECRET" not in bot.get("/status").json["missing"]


SECRETS = {
    "SLACK_SIGNING_SECRET": "signing-5ecret", "SLACK_VERIFICATION_TOKEN": "verify-5ecret",
    "JIRA_URL": "http://127.0.0.1:9/",
    "JIRA_USERNAME": "me@example.com", "JIRA_API_TOKEN": "jira-5ecret", "LOG_LEVEL": "DEBUG",
    "SLACK_HOOKS_ORIGINS": "http://127.0.0.1:9"}
OWN_COMMANDS = """
import slackbot

@slackbot.command("/bug")
def bug(request):
    "Fail after the first answer."
    yield "first"
    raise RuntimeError("a bug")

slackbot.main()
"""


@pytest.fixture
def own_commands(tmp_path):
    """The path of a script with a command of its own."""
    script = tmp_path / "own.py"
    script.write_text(OWN_COMMANDS)
    return script


def test_no_secret_is_ever_shown(own_commands):
    hook = "http://127.0.0.1:9/commands/T1/2/5ecret"
    with fakes.Bot(script=own_commands, **SECRETS) as bot:
        answers = [bot.get(path) for path in ("/", "/status", "/healthz", "/x/y", "/?name=Robert")]
        for line in ("/hello Example", "/unknown", "/jira A-1", "/jira release 1", "/bug"):
            body = fakes.form(line, token="verify-5ecret", response_url=hook)
            answers.append(post(bot, body, fakes.sign(body, "signing-5ecret").items()))
            assert answers[-1].status == 200
            answers.append(post(bot, body, fakes.sign(body, "wrong").items()))
        foreign = fakes.form("/hello", token="verify-5ecret", response_url="https://evil/5ecret")
        answers.append(post(bot, foreign, fakes.sign(foreign, "signing-5ecret").items()))
        for token in ("wrong", "webhook-5ecretx"):
            bearer = [("Authorization", f"Bearer {token}")]
            answers.append(post(bot, b"{}", bearer, "/post", JSON))
        until_logged(bot, "a bug")
        until_logged(bot, "refused")
        check_log(bot)
    shown = "\n".join([bot.output, *(f"{each.headers}{each.text}" for each in answers)])
    assert "5ecret" not in shown


@pytest.mark.parametrize("name, value", [
    ("SLACK_SIGNING_SECRET", "a 5ecret\nb"),
    ("JIRA_URL", "https://bob:5ecret@jira.example"), ("SLACK_TEAM_ID", "5ecret!"),
    ("PORT", "5ecret"), ("SLACK_HOOKS_ORIGINS", "5ecret")])
def test_a_bad_value_is_named_but_not_shown(name, value):
    with fakes.Bot(wait=False, **{"LOG_LEVEL": "5ecret", name: value}) as bot:
        assert bot.process.wait(PATIENCE) == 2
        bot.reader.join(PATIENCE)
    assert name in bot.output and "LOG_LEVEL" in bot.output and "listening" not in bot.output
    assert "5ecret" not in bot.output and "Traceback" not in bot.output


# ---- where replies may go ----

@pytest.mark.parametrize("url", [
    HOOK, HOOK.replace("hooks", "HOOKS"), HOOK.replace("https", "HTTPS"), "",
    HOOK.replace(".com/", ".com:443/"), HOOK.replace("slack.com", "slack-gov.com"),
    "https://hooks.slack.com/actions/T1/2/3"])
def test_a_response_url_of_slack_is_accepted(bot, url):
    assert signed(bot, fakes.form("/hello", response_url=url)).status == 200


FOREIGN = [
    "http://hooks.slack.com/x", "https://hooks.slack.com:8443/x", "https://hooks.slack.com:80/x",
    "https://hooks.slack.com:0/x", "https://hooks.slack.com:99999/x",
    "https://hooks.slack.com:a/x",
    "https://hooks.slack.com:443@evil.example/x", "https://hooks.slack.com@evil.example/x",
    "https://evil.example@hooks.slack.com/x", "https://a:b@hooks.slack.com/x",
    "https://@hooks.slack.com/x", "https://hooks.slack.com%40evil.example/x",
    "https://hooks.slack.com.evil.example/x", "https://evilhooks.slack.com/x",
    "https://hooks.slack.com./x", "https://slack.com/x", "https://evil.example/hooks.slack.com",
    "https://evil.example#hooks.slack.com", "https://evil.example?https://hooks.slack.com/",
    r"https://hooks.slack.com\@evil.example/x", r"https://hooks.slack.com\.evil.example/x",
    r"https://evil.example\hooks.slack.com/x", r"https:\\hooks.slack.com\x",
    r"https://hooks.slack.com/\x", " https://hooks.slack.com/x", "https://hooks.slack.com/x ",
    "https://hooks.slack.com /x", "https:// hooks.slack.com/x", "https://hooks.slack.com/x y",
    "https://hooks.slack.com\n/x", "\nhttps://hooks.slack.com/x", "https://hooks.slack.com/x\n",
    "https://hooks.slack.com/x\r\nHost: evil.example", "https://hooks.slack.com\t/x",
    "ht\ntps://hooks.slack.com/x", "https://hooks.slack.com/\0", "https://hooks.slack.com\0/x",
    "//hooks.slack.com/x", "hooks.slack.com/x", "/x", "https:/hooks.slack.com/x", "https:///x",
    "https://", "https:hooks.slack.com/x", "https://[::1]/x", "https://[hooks.slack.com]/x",
    "https://[/x", "https://]/x", "file:///etc/passwd", "data:,x", "javascript:alert(1)", "x",
    "ftp://hooks.slack.com/x", "https://hooks。slack.com/x", "https://hookѕ.slack.com/x",
    "https://ｈooks.slack.com/x", "https://hooks.slack.com℀/x", "https://hooks\u00ad.slack.com/x",
    "http://169.254.169.254/latest/meta-data/", "http://localhost/", "https://" + "a" * 100_000]


@pytest.mark.parametrize("url", FOREIGN, ids=lambda url: ascii(url)[:60])
def test_a_response_url_of_another_origin_is_refused(bot, url):
    got = signed(bot, fakes.form("/hello", response_url=url))
    assert got.status == 400 and list(got.json) == ["error"]


def test_the_signature_is_checked_before_the_response_url(bot):
    body = fakes.form("/hello", response_url="https://evil.example/")
    assert post(bot, body, fakes.sign(body, "wrong").items()).status == 401


@pytest.fixture
def trap():
    """The port of a listening socket that nothing may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        yield listener.getsockname()[1]
        with pytest.raises(TimeoutError):
            listener.accept()


def test_nothing_connects_to_a_foreign_response_url(bot, trap):
    for url in (f"http://127.0.0.1:{trap}/", f"https://127.0.0.1:{trap}/",
                f"https://hooks.slack.com@127.0.0.1:{trap}/",
                f"https://127.0.0.1:{trap}\\@hooks.slack.com/"):
        for line in ("/hello", "/hello-world", "/unknown", "/help"):
            assert signed(bot, fakes.form(line, response_url=url)).status == 400


def test_the_port_is_a_part_of_the_origin(trap):
    with fakes.Bot(SLACK_HOOKS_ORIGINS="http://127.0.0.1:9") as bot:
        for url in (f"http://127.0.0.1:{trap}/", f"http://127.0.0.1:9@127.0.0.1:{trap}/",
                    f"http://127.0.0.1:9\\@127.0.0.1:{trap}/", "https://127.0.0.1:9/",
                    "http://127.0.0.1/", "http://localhost:9/", HOOK):
            assert signed(bot, fakes.form("/hello-world", response_url=url)).status == 400
        good = fakes.form("/hello", response_url="http://127.0.0.1:9/x")
        assert signed(bot, good).status == 200


def test_a_command_without_response_url_gets_its_first_answer(bot):
    assert "Waiting to greet you" in answer(bot, fakes.form("/hello-world"))
    assert "Example" in answer(bot, fakes.form("/hello Example", response_url=""))


# ---- the demo's own endpoints ----

@pytest.fixture(scope="module")
def demo():
    with fakes.Bot("demo") as bot:
        yield bot
        check_log(bot)


def own(bot, method, path, host=None, body=None, **headers):
    """A request with a Host of its own to one of the demo's endpoints."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers["Host"] = host or f"127.0.0.1:{bot.port}"
    if body:
        headers["Content-Type"] = JSON
    return bot.request(method, path, body, headers)


def hook(bot):
    """The path of a new response_url."""
    got = own(bot, "POST", "/demo/hooks")
    assert got.status == 200 and list(got.json) == ["response_url"]
    url = urllib.parse.urlsplit(got.json["response_url"])
    assert (url.scheme, url.port) == ("http", bot.port)
    return url.path


DEMO = [("GET", "/demo/secret"), ("POST", "/demo/hooks"), ("GET", "HOOK")]
OTHER_PAGES = [
    {"host": "evil.example"}, {"host": "evil.example:PORT"},
    {"host": "127.0.0.1.evil.example:PORT"}, {"host": "localhost.evil.example:PORT"},
    {"host": "0.0.0.0:PORT"}, {"host": "evil.example", "Origin": "http://evil.example"},
    {"host": "evil.example", "X_Forwarded_Host": "127.0.0.1:PORT"},
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://127.0.0.1:PORT"}, {"Origin": "http://127.0.0.1:PORT.evil.example"},
    {"Origin": "http://evil.example/127.0.0.1:PORT"}, {"Sec_Fetch_Site": "cross-site"},
    {"Origin": "http://127.0.0.1:PORT", "Sec_Fetch_Site": "cross-site"}]
OWN_PAGE = [
    {}, {"host": "localhost:PORT"}, {"Origin": "http://127.0.0.1:PORT"},
    {"host": "localhost:PORT", "Origin": "http://localhost:PORT", "Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"}]


@pytest.mark.parametrize("method, path", DEMO)
@pytest.mark.parametrize("who, status",
                         [(who, 403) for who in OTHER_PAGES] + [(who, 200) for who in OWN_PAGE])
def test_no_other_web_page_can_use_the_demo(demo, method, path, who, status):
    who = {name: value.replace("PORT", str(demo.port)) for name, value in who.items()}
    got = own(demo, method, path.replace("HOOK", hook(demo)), **who)
    assert got.status == status, got.text
    assert status == 200 or list(got.json) == ["error"]


def test_the_demo_has_a_secret_of_its_own_that_signs_its_commands(demo):
    secret = own(demo, "GET", "/demo/secret").json["signing_secret"]
    body = fakes.form("/hello demo")
    assert secret != fakes.SECRET and len(secret) >= 32
    assert "demo" in post(demo, body, fakes.sign(body, secret).items()).json["text"]
    assert signed(demo, body).status == 401
    check_log(demo)
    assert secret not in demo.get("/").text + demo.get("/status").text + demo.output
    assert demo.get("/status").json["mode"] == "demo"


@pytest.mark.parametrize("environ", [{}, {"SLACK_SIGNING_SECRET": None}], ids=["live", "setup"])
def test_outside_the_demo_its_endpoints_are_not_there(environ):
    with fakes.Bot(**environ) as bot:
        for method, path in [*DEMO, ("POST", "HOOK")]:
            assert own(bot, method, path.replace("HOOK", "/demo/hooks/1")).status == 404


def test_a_response_url_of_the_demo_takes_five_messages_and_shows_them(demo):
    path = hook(demo)
    assert own(demo, "GET", path).json == {"messages": [], "running": 0}
    for number in range(5):
        public = {"response_type": "in_channel"} if number == 3 else {}
        got = own(demo, "POST", path, body=json.dumps({"text": f"{number}", **public}))
        assert (got.status, got.text) == (200, "ok")
    sixth = own(demo, "POST", path, body=json.dumps({"text": "sixth"}))
    assert sixth.status == 404 and "used_url" in sixth.text
    messages = [each["message"] for each in own(demo, "GET", path).json["messages"]]
    assert [each["text"] for each in messages] == ["0", "1", "2", "3", "4"]
    assert [each["response_type"] for each in messages] == [
        "in_channel" if each["text"] == "3" else "ephemeral" for each in messages]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 50_000,
                                  b'{"text": "\\ud800"}', b'{"text": NaN}', b"{}"],
                         ids=lambda body: ascii(body)[:20])
def test_a_response_url_of_the_demo_refuses_what_is_not_a_message(demo, body):
    path = hook(demo)
    assert own(demo, "POST", path, body=body).status in (200, 400)
    assert own(demo, "GET", path).status == 200


def test_what_the_page_asks_a_response_url_is_not_logged_but_all_else_is(demo):
    path = hook(demo)
    with socket.create_connection((demo.host, demo.port), 5) as connection:
        for method, known in [("GET", path), ("GET", "/demo/secret"), ("GET", path + "x")]:
            connection.sendall(f"{method} {known} HTTP/1.1\r\nHost: {demo.host}:{demo.port}\r\n"
                               "\r\n".encode())
            http.client.HTTPResponse(connection).begin()
    check_log(demo)
    assert f"method=GET path={path} " not in demo.output
    assert "method=GET path=/demo/secret " in demo.output
    assert f"method=GET path={path}x " in demo.output


def test_an_unknown_response_url_of_the_demo_is_not_found(demo):
    for method in ("GET", "POST"):
        for path in ("/demo/hooks/none", "/demo/hooks/", "/demo/hooks/a/b", "/demo/other"):
            assert own(demo, method, path, body=b"{}").status in (404, 405)


def test_the_later_answers_of_the_demo_arrive_at_its_response_url(own_commands):
    with fakes.Bot("demo", script=own_commands) as bot:
        secret = own(bot, "GET", "/demo/secret").json["signing_secret"]
        url = own(bot, "POST", "/demo/hooks").json["response_url"]
        path = urllib.parse.urlsplit(url).path
        body = fakes.form("/bug", response_url=url)
        assert post(bot, body, fakes.sign(body, secret).items()).json["text"] == "first"
        messages = until(lambda: own(bot, "GET", path).json["messages"])
        assert len(messages) == 1 and "/bug" in messages[0]["message"]["text"]
        assert 0 <= messages[0]["seconds"] < 5


def test_the_page_loads_nothing_from_other_hosts_and_refuses_to_be_framed(bot):
    page = bot.get("/")
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    policy = page.text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; ") and "http" not in policy
