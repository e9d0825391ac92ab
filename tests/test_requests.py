"""Requests and verification: what must be true before the bot believes that it was Slack."""

import collections
import contextlib
import http.client
import json
import math
import random
import socket
import time
import urllib.parse

import pytest

import fakes
import slackbot
from test_server import calm

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
    connection = http.client.HTTPConnection(bot.host, bot.port, timeout=10)
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
    calm(bot)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A bot whose clock stands still at the time of Slack's example."""
    script = tmp_path_factory.mktemp("frozen") / "frozen.py"
    script.write_text(f"import time\ntime.time = lambda: {VECTOR_TIME}.0\n"
                      "import slackbot\nslackbot.main()\n")
    with fakes.Bot(script=script) as bot:
        yield bot
    calm(bot)


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
    (lambda: math.ceil(time.time()) - 299, 200), (lambda: math.floor(time.time()) + 299, 200),
    (lambda: math.floor(time.time()) - 301, 401), (lambda: math.ceil(time.time()) + 302, 401)])
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
import slackbot, time
real, skew = time.time, 0
time.time = lambda: real() + skew


@slackbot.command("/skip")
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
    with fakes.Bot(script=script, LOG_LEVEL="WARNING") as bot:
        yield Skewed(bot)
    calm(bot)


def test_the_same_bytes_are_served_again_for_30_seconds_as_a_proxy_may_repeat_them(skewed):
    body = fakes.form("/hello again")
    headers = skewed.sign(body)
    for _ in range(3):
        assert [skewed.send(body, headers) for _ in range(3)] == [200] * 3
        skewed.skip(9)


@pytest.mark.parametrize("seconds, path", [
    ([32], "/slack/commands"), ([28, 4], "/hello"), ([267, 31], "/"), ([20] * 6, "/other")])
def test_the_same_bytes_later_than_that_are_refused_and_so_for_ever(skewed, seconds, path):
    body = fakes.form("/hello again")
    headers = skewed.sign(body)
    assert skewed.send(body, headers) == 200
    for each in seconds:
        skewed.skip(each)
    assert skewed.send(body, headers, path) == skewed.send(body, headers) == 401
    assert skewed.send(body, skewed.sign(body)) == 200, "signed afresh, it is another request"


@pytest.mark.parametrize("repeats, replays", [
    ([0], [False]), ([0, 0, 30], [False] * 3), ([0, 30.1], [False, True]),
    ([0, 29, 31], [False, False, True]), ([0, 31, 31, 599], [False, True, True, True])])
def test_a_replay_is_what_comes_again_later_than_30_seconds(repeats, replays):
    seen = collections.OrderedDict()
    assert [slackbot.is_replay(seen, "v0=1", 1000 + after) for after in repeats] == replays
    assert not slackbot.is_replay(seen, "v0=2", 2000)


def test_the_memory_of_signatures_is_bounded_and_forgets_the_oldest():
    seen, times = collections.OrderedDict(), slackbot.REMEMBERED + 100
    assert not any(slackbot.is_replay(seen, f"v0={number}", number / 1e5)
                   for number in range(times))
    assert len(seen) <= slackbot.REMEMBERED <= 100_000
    assert slackbot.is_replay(seen, f"v0={times - 1}", 100)
    assert slackbot.is_replay(seen, "v0=200", 100) and not slackbot.is_replay(seen, "v0=1", 100)


def test_what_slack_has_not_signed_is_not_remembered():
    config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET})
    seen, body = collections.OrderedDict(), b"team_id=T2"
    for signed_with, count in (("wrong", 0), (fakes.SECRET, 1)):
        headers = {name.lower(): value for name, value in
                   fakes.sign(body, signed_with, timestamp=1000).items()}
        with contextlib.nullcontext() if count else pytest.raises(slackbot.Refused):
            slackbot.verify(config, headers, body, 1000, seen)
        assert len(seen) == count


@pytest.mark.parametrize("path", ["/slack/commands", "/slack/interactions"])
def test_what_slack_has_not_signed_is_refused_before_it_is_understood(bot, path):
    def seconds(part):
        begin = time.monotonic()
        assert post(bot, b"payload=" + part * 262_000, [], path).status == 401
        return time.monotonic() - begin

    plain, escaped = map(min, zip(*[(seconds(b"AAAA"), seconds(b"%41\xe4")) for _ in range(5)]))
    assert escaped < 5 * plain


DOORS = [
    ("/slack/commands", FORM, fakes.form("/hello")), ("/", FORM, fakes.form("/hello")),
    ("/slash-commands/hello", FORM, fakes.form("/hello")), ("/hello", FORM, b"text=")]


@pytest.mark.parametrize("path, kind, body", DOORS, ids=[row[0] for row in DOORS])
def test_every_door_for_slack_asks_for_the_signature(bot, path, kind, body):
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
        calm(bot)


# ---- what a form may hold ----

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
def test_an_odd_form_is_answered_or_refused_but_breaks_nothing(bot, body):
    got = signed(bot, body)
    assert got.status in (200, 400), got.text
    assert got.status == 200 or list(got.json) == ["error"]
    json.dumps(got.json if got.body else None, ensure_ascii=False).encode()  # no lone surrogate
    calm(bot)


@pytest.mark.parametrize("path, body, word", [
    ("/slack/commands", fakes.form("/hello one"), "one"), ("/", fakes.form("/hello two"), "two"),
    ("/hello", fakes.form("/renamed three"), "three"), ("/hello", fakes.form("/help x"), "x"),
    ("/slash-commands/hello", fakes.form("/renamed five"), "five"),
    ("/slash-commands/unknown", fakes.form("/hello six"), "six"),
    ("/unknown", fakes.form("/hello seven"), "seven"),
    ("/unknown", fakes.form("/unknown-too"), "/hello"),
    ("/slack/commands", fakes.form("/unknown"), "/hello")])
def test_the_path_decides_and_then_the_form_and_then_there_is_a_list(bot, path, body, word):
    got = signed(bot, body, path)
    assert got.status == 200 and got.json["response_type"] == "ephemeral"
    assert word in got.json["text"]


# ---- modes ----

def test_without_a_secret_the_bot_says_what_is_missing_and_serves_no_command():
    with fakes.Bot(SLACK_SIGNING_SECRET=None) as bot:
        status = bot.get("/status").json
        assert status["mode"] == "setup" and "SLACK_SIGNING_SECRET" in status["missing"]
        for secret in (fakes.SECRET, ""):
            for path, kind, body in DOORS:
                got = post(bot, body, fakes.sign(body, secret).items(), path, kind)
                assert got.status == 503 and list(got.json) == ["error"], path
        assert bot.get("/").status == bot.get("/healthz").status == 200
        assert "SLACK_SIGNING_SECRET" in bot.get("/").text
        assert post(bot, b"ssl_check=1&token=x", []).status == 200
        calm(bot)


def test_a_live_bot_does_not_miss_its_secret(bot):
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
        deadline = time.monotonic() + 5
        while "a bug" not in bot.output or "refused" not in bot.output:
            assert time.monotonic() < deadline, bot.output
            time.sleep(0.05)
    shown = "\n".join([bot.output, *(f"{each.headers}{each.text}" for each in answers)])
    assert "5ecret" not in shown


@pytest.mark.parametrize("name, value", [
    ("SLACK_SIGNING_SECRET", "a 5ecret\nb"),
    ("JIRA_URL", "https://bob:5ecret@jira.example"), ("SLACK_TEAM_ID", "5ecret!"),
    ("PORT", "5ecret"), ("SLACK_HOOKS_ORIGINS", "5ecret")])
def test_a_bad_value_is_named_but_not_shown(name, value):
    with fakes.Bot(wait=False, **{"LOG_LEVEL": "5ecret", name: value}) as bot:
        assert bot.process.wait(10) == 2
        bot.reader.join(10)
    assert name in bot.output and "LOG_LEVEL" in bot.output and "listening" not in bot.output
    assert "5ecret" not in bot.output and "Traceback" not in bot.output


# ---- where replies may go ----

@pytest.mark.parametrize("url", [
    HOOK, HOOK.replace("hooks", "HOOKS"), HOOK.replace("https", "HTTPS"), "",
    HOOK.replace(".com/", ".com:443/"), HOOK.replace("slack.com", "slack-gov.com"),
    "https://hooks.slack.com/actions/T1/2/3"])
def test_a_response_url_of_slacks_is_fine(bot, url):
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
def test_a_response_url_of_anybody_else_is_refused(bot, url):
    got = signed(bot, fakes.form("/hello", response_url=url))
    assert got.status == 400 and list(got.json) == ["error"]
    calm(bot)


def test_a_foreign_response_url_is_no_matter_before_the_signature(bot):
    body = fakes.form("/hello", response_url="https://evil.example/")
    assert post(bot, body, fakes.sign(body, "wrong").items()).status == 401


@pytest.fixture
def trap():
    """A listener that nobody may ever connect to."""
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
    calm(bot)


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


DEMO = [("GET", "/demo/secret"), ("POST", "/demo/hooks"), ("GET", "HOOK?after=0")]
STRANGERS = [
    {"host": "evil.example"}, {"host": "evil.example:PORT"},
    {"host": "127.0.0.1.evil.example:PORT"}, {"host": "localhost.evil.example:PORT"},
    {"host": "0.0.0.0:PORT"}, {"host": "evil.example", "Origin": "http://evil.example"},
    {"host": "evil.example", "X_Forwarded_Host": "127.0.0.1:PORT"},
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://127.0.0.1:PORT"}, {"Origin": "http://127.0.0.1:PORT.evil.example"},
    {"Origin": "http://evil.example/127.0.0.1:PORT"}, {"Sec_Fetch_Site": "cross-site"},
    {"Origin": "http://127.0.0.1:PORT", "Sec_Fetch_Site": "cross-site"}]
FRIENDS = [
    {}, {"host": "localhost:PORT"}, {"Origin": "http://127.0.0.1:PORT"},
    {"host": "localhost:PORT", "Origin": "http://localhost:PORT", "Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"}]


@pytest.mark.parametrize("method, path", DEMO)
@pytest.mark.parametrize("who, status",
                         [(who, 403) for who in STRANGERS] + [(who, 200) for who in FRIENDS])
def test_no_other_web_page_drives_the_demo(demo, method, path, who, status):
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
    assert secret not in demo.get("/").text + demo.get("/status").text + demo.output
    assert demo.get("/status").json["mode"] == "demo"


@pytest.mark.parametrize("environ", [{}, {"SLACK_SIGNING_SECRET": None}], ids=["live", "setup"])
def test_outside_the_demo_its_endpoints_are_not_there(environ):
    with fakes.Bot(**environ) as bot:
        for method, path in [*DEMO, ("POST", "HOOK")]:
            assert own(bot, method, path.replace("HOOK", "/demo/hooks/1")).status == 404


def test_a_hook_of_the_demo_takes_five_messages_and_shows_them(demo):
    path = hook(demo)
    assert own(demo, "GET", path + "?after=0").json == {"messages": []}
    for number in range(5):
        public = {"response_type": "in_channel"} if number == 3 else {}
        got = own(demo, "POST", path, body=json.dumps({"text": f"{number}", **public}))
        assert (got.status, got.text) == (200, "ok")
    sixth = own(demo, "POST", path, body=json.dumps({"text": "sixth"}))
    assert sixth.status == 404 and "used_url" in sixth.text
    for after in (0, 3, 5):
        messages = [each["message"] for each in
                    own(demo, "GET", f"{path}?after={after}").json["messages"]]
        assert [each["text"] for each in messages] == ["0", "1", "2", "3", "4"][after:]
        assert [each["response_type"] for each in messages] == [
            "in_channel" if each["text"] == "3" else "ephemeral" for each in messages]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 50_000,
                                  b'{"text": "\\ud800"}', b'{"text": NaN}', b"{}"],
                         ids=lambda body: ascii(body)[:20])
def test_a_hook_of_the_demo_refuses_what_is_no_message(demo, body):
    path = hook(demo)
    assert own(demo, "POST", path, body=body).status in (200, 400)
    assert own(demo, "GET", path + "?after=0").status == 200
    calm(demo)


@pytest.mark.parametrize("query", ["", "?after=", "?after=x", "?after=-1", "?after=" + "9" * 5000,
                                   "?after=%D9%A1", "?after=1&after=2", "?" + "&" * 500],
                         ids=lambda query: query[:20])
def test_a_hook_of_the_demo_survives_any_question(demo, query):
    assert own(demo, "GET", hook(demo) + query).status in (200, 400)


def test_a_hook_that_nobody_asked_for_is_not_there(demo):
    for method in ("GET", "POST"):
        for path in ("/demo/hooks/none", "/demo/hooks/", "/demo/hooks/a/b", "/demo/other"):
            assert own(demo, method, path, body=b"{}").status in (404, 405)


def test_the_demos_later_answers_arrive_at_its_hook(own_commands):
    with fakes.Bot("demo", script=own_commands) as bot:
        secret = own(bot, "GET", "/demo/secret").json["signing_secret"]
        url = own(bot, "POST", "/demo/hooks").json["response_url"]
        path = urllib.parse.urlsplit(url).path
        body = fakes.form("/bug", response_url=url)
        assert post(bot, body, fakes.sign(body, secret).items()).json["text"] == "first"
        deadline = time.monotonic() + 5
        while not (messages := own(bot, "GET", path + "?after=0").json["messages"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(messages) == 1 and "/bug" in messages[0]["message"]["text"]
        assert 0 <= messages[0]["seconds"] < 5


def test_the_page_may_load_nothing_from_elsewhere_nor_stand_in_a_frame(bot):
    page = bot.get("/")
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    policy = page.text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; ") and "http" not in policy
