"""/dig, /whois and /openssl: compared with Debian's own tools, and with hostile servers."""

import contextlib
import errno
import functools
import itertools
import random
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import types

import pytest

import fakes
import network_fakes as net
import slackbot
from api_fakes import until
from fakes import PATIENCE
from network_fakes import (CLOSED, RESET, SILENCE, Nameserver, Plain, Whois, after, days, drip,
                           endless, framed, labels, message, pointer, question, record, strings)

# What slackbot.py has to have beside the three commands. Looked up late, one test at a time.
SECONDS = {"/dig": "DIG_SECONDS", "/whois": "WHOIS_SECONDS", "/openssl": "OPENSSL_SECONDS"}
TRY_SECONDS = "DNS_TRY_SECONDS"  # until /dig asks again


def dns_question(name, type_, number):
    return slackbot.dns_question(name, type_, number)


def dns_message(data):
    return slackbot.dns_message(data)


def dns_text(parsed):
    """What `/dig` makes of a parsed message, a text."""
    return parsed


def is_public(address):
    return slackbot.is_public(address)


pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")

ALLOWED = {"NETWORK_ALLOW_PRIVATE": "1"}
CHARACTERS = 13_000  # of a message
SHORT_SECONDS = 0.25  # for a whole exchange, where nothing is to be expected of the other end
LEEWAY = 8.0  # how much later than that an answer may be on a busy machine; less than PATIENCE
CLIPPED = re.compile(r"…|\.\.\.|more|clipped|cut|left out")


# ---- asking, and what is true of whatever is said

@pytest.fixture(autouse=True)
def directory(monkeypatch):
    """Nobody leaves the machine: the only names are those in this dict, {name: addresses}, or
    {name: an iterator of addresses, for one lookup after the other}. `looked_up` is the log."""
    known, real = {"localhost": ["127.0.0.1"]}, socket.getaddrinfo
    looked_up = []

    def getaddrinfo(host, port, *args, **kwargs):
        host = host.decode() if isinstance(host, bytes) else host
        numeric = host is None or ":" in host
        with contextlib.suppress(OSError):
            numeric = numeric or bool(socket.inet_aton(host))
        if numeric:
            return real(host, port, *args, **kwargs)
        looked_up.append(host)
        found = known.get(host.lower().rstrip("."), ())
        found = found if isinstance(found, (list, tuple)) else next(found)
        entries = [entry for each in found for entry in real(each, port, *args, **kwargs)]
        if not entries:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return entries

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return types.SimpleNamespace(known=known, looked_up=looked_up)


@pytest.fixture
def set_deadline(monkeypatch):
    """A function that shortens the deadline of a command."""
    def shorten(command, seconds=SHORT_SECONDS):
        assert getattr(slackbot, SECONDS[command]) in (10, 20)
        monkeypatch.setattr(slackbot, SECONDS[command], seconds)
    return shorten


def ask(command, *words, **environ):
    """What a command answers."""
    request = slackbot.Request(bot=types.SimpleNamespace(config=slackbot.Config(environ)))
    answer = slackbot.commands[command].handler(request, *words)
    assert isinstance(answer, str)
    return harmless(answer)


def refusal(command, *words, **environ):
    """The words in which a command says no."""
    with pytest.raises(slackbot.UserError) as caught:
        ask(command, *words, **environ)
    return clear(str(caught.value))


def outcome(command, *words, **environ):
    """What a command answers, or the words in which it says no."""
    try:
        return ask(command, *words, **environ)
    except slackbot.UserError as error:
        return clear(str(error))


def harmless(text):
    """*text*, in which there is no markup of Slack's, and at most one code block, a closed one."""
    assert not set("<>") & set(text), text
    assert not re.search("&(?!(amp|lt|gt);)", text), "an entity is cut in two, or wasn't escaped"
    assert text.count("```") in (0, 2), text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", text), "control characters"
    assert 0 < len(text) <= CHARACTERS
    return text


def clear(text):
    """*text*, which is a sentence or two for a user, and not for a programmer."""
    assert not re.search(r"[a-z]Error|Errno|Traceback|Exception|_ssl\.c| at 0x", text), text
    assert len(text.split()) >= 3 and len(text) < 1000, text
    return harmless(text)


def block(text):
    """The code block of an answer, as the user sees it."""
    _, inside, _ = text.split("```")
    return slackbot.unescape(inside).strip("\n")


@contextlib.contextmanager
def within(seconds):
    """What happens in here takes no longer than that."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@contextlib.contextmanager
def working(seconds):
    """What happens in here takes this thread no more of the processor's time than that."""
    begun = time.thread_time()
    yield
    assert time.thread_time() - begun < seconds


def terminal(*words, **environ):
    """One command in the terminal."""
    bot = fakes.Bot("run", *words, **environ)
    return subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=PATIENCE)


# ---- /dig beside dig: a name server with one of everything

LONG = "x" * 255
ZONES = {
    "example": r"""
$ORIGIN example.
$TTL 3600
@ SOA ns1 john\.doe.example. 2026112001 7200 3600 1209600 300
@ NS ns1
@ NS ns2.else.test.
@ MX 10 mail
@ MX 65279 mail2.else.test.
@ CAA 0 issue "ca.example; account=1"
@ CAA 0 issuewild ";"
@ CAA 128 iodef "mailto:\"me\"@example\\"
ns1 A 192.0.2.53
mail A 192.0.2.25
mail AAAA 2001:db8::25
www 0 A 192.0.2.1
www 2147483647 TXT "zero"
www AAAA 2001:db8::1
alias CNAME alias2
alias2 60 CNAME alias3
alias3 CNAME www
out CNAME www.else.test.
round CNAME round2
round2 CNAME round
nullmx MX 0 .
six AAAA 2001:db8:0:0:1:0:0:1
six AAAA 2001:db8:0:1:1:1:1:1
six AAAA ::ffff:192.0.2.1
six AAAA ::192.0.2.1
six AAAA ::1
six AAAA ::
_sip._tcp SRV 1 20 5060 sip
_sip._tcp SRV 2 0 65535 .
txt TXT "v=spf1 include:_spf.example ~all"
strings TXT "one" "two  spaces " "" "; not a comment" "a=b;c"
quotes TXT "say \"hi\"" "back\\slash" "it's" "<b>&amp;</b> <!channel>" "@$()"
bytes TXT "\000\001\009\010\031\032\127\128\200\255" "é"
long TXT "LONG" "LONG" "y"
*.wild A 192.0.2.77
*.wild TXT "wild"
sub NS ns.sub
ns.sub A 192.0.2.54
xn--bcher-kva A 192.0.2.99
strange MX 10 we\.ird
strange MX 20 sp\032ace
strange MX 30 q\"uote\;semi\(\)
strange MX 40 at\@dol\$back\\slash
strange MX 50 byte\000\200\255\127
strange MX 60 _under-score*
deep.\@x.y CNAME strange
to.strange CNAME tab\009here
""".replace("LONG", LONG)
    + "".join(f"many A 192.0.2.{number}\n" for number in range(1, 61))
    + "".join(f'big TXT "{number} {"z" * 200}"\n' for number in range(12)),
    "2.0.192.in-addr.arpa": """
$ORIGIN 2.0.192.in-addr.arpa.
$TTL 600
@ SOA ns1.example. root.example. 1 7200 3600 1209600 300
@ NS ns1.example.
1 PTR www.example.
1 PTR other.example.
""",
    "8.b.d.0.1.0.0.2.ip6.arpa": """
$ORIGIN 8.b.d.0.1.0.0.2.ip6.arpa.
$TTL 600
@ SOA ns1.example. root.example. 1 7200 3600 1209600 300
@ NS ns1.example.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 PTR six.example.
"""}

BESIDE_DIG = [  # what to ask; the status, and how many records are in the answer
    ("www.example", "A", "NOERROR", 1), ("www.example.", "A", "NOERROR", 1),
    ("www.example", "AAAA", "NOERROR", 1), ("six.example", "AAAA", "NOERROR", 6),
    ("alias.example", "A", "NOERROR", 4), ("alias.example", "AAAA", "NOERROR", 4),
    ("alias.example", "CNAME", "NOERROR", 1), ("alias.example", "MX", "NOERROR", 3),
    ("out.example", "A", "NOERROR", 1), ("round.example", "CNAME", "NOERROR", 1),
    ("example", "MX", "NOERROR", 2), ("nullmx.example", "MX", "NOERROR", 1),
    ("example", "NS", "NOERROR", 2), ("example", "SOA", "NOERROR", 1),
    ("example", "CAA", "NOERROR", 3), ("_sip._tcp.example", "SRV", "NOERROR", 2),
    ("1.2.0.192.in-addr.arpa", "PTR", "NOERROR", 2),
    ("txt.example", "TXT", "NOERROR", 1), ("www.example", "TXT", "NOERROR", 1),
    ("strings.example", "TXT", "NOERROR", 1), ("quotes.example", "TXT", "NOERROR", 1),
    ("bytes.example", "TXT", "NOERROR", 1), ("long.example", "TXT", "NOERROR", 1),
    ("any.wild.example", "A", "NOERROR", 1), ("a.b.wild.example", "TXT", "NOERROR", 1),
    ("any.wild.example", "MX", "NOERROR", 0),
    ("x.sub.example", "A", "NOERROR", 0), ("strange.example", "MX", "NOERROR", 6),
    ("to.strange.example", "A", "NXDOMAIN", 1),
    ("xn--bcher-kva.example", "A", "NOERROR", 1),
    ("none.example", "A", "NXDOMAIN", 0), ("none.example", "TXT", "NXDOMAIN", 0),
    ("www.example", "SRV", "NOERROR", 0), ("wild.example", "A", "NOERROR", 0),
    ("many.example", "A", "NOERROR", 60), ("big.example", "TXT", "NOERROR", 12),
    ("www.else.test", "A", "REFUSED", 0), (".", "NS", "REFUSED", 0)]


@pytest.fixture(scope="module")
def nsd(tmp_path_factory):
    missing = [name for name in ("nsd", "dig") if not net.tool(name)]
    if missing:
        pytest.skip(f"Debian's nsd and dnsutils aren't here: no {' and no '.join(missing)}")
    with net.Nsd(tmp_path_factory.mktemp("nsd"), ZONES) as server:
        yield server


def beside(server, *words, theirs=None):
    """What `/dig` and dig find, which is the same in every respect."""
    ours = net.Layout(block(ask("/dig", *words, DNS_SERVER=f"127.0.0.1:{server.port}")))
    theirs = net.dig(server.port, *(theirs or words))
    assert ours.records.get("ANSWER", []) == theirs.records.get("ANSWER", [])
    assert ours.records.get("AUTHORITY", []) == theirs.records.get("AUTHORITY", [])
    assert (ours.opcode, ours.status) == (theirs.opcode, theirs.status)
    assert (ours.flags, ours.counts) == (theirs.flags, theirs.counts)
    assert ours.questions == theirs.questions
    return ours


@pytest.mark.parametrize("name, type_, status, count", BESIDE_DIG)
def test_dig_finds_what_debians_dig_finds(nsd, name, type_, status, count):
    found = beside(nsd, name, type_)
    assert found.status == status and len(found.records.get("ANSWER", [])) == count
    assert bool(found.records.get("AUTHORITY")) == ("AUTHORITY" in found.records), "empty section"


@pytest.mark.parametrize("words, theirs, count", [
    (["www.example"], ["www.example", "A"], 1),
    (["mail.example", "aaaa"], ["mail.example", "AAAA"], 1),
    (["example", "Mx"], ["example", "MX"], 2),
    (["bücher.example"], ["xn--bcher-kva.example"], 1),
    (["BÜCHER.example", "A"], ["xn--bcher-kva.example"], 1),
    (["192.0.2.1"], ["-x", "192.0.2.1"], 2), (["192.0.2.1", "PTR"], ["-x", "192.0.2.1"], 2),
    (["192.0.2.2"], ["-x", "192.0.2.2"], 0),
    (["2001:db8::1"], ["-x", "2001:db8::1"], 1), (["2001:DB8:0::1"], ["-x", "2001:db8::1"], 1)])
def test_a_line_asks_what_debians_dig_would_ask(nsd, words, theirs, count):
    assert len(beside(nsd, *words, theirs=theirs).records.get("ANSWER", [])) == count


# ---- /dig: questions and layout

def nameserver(*records, **more):
    """A name server that answers every question with *records*."""
    return Nameserver(lambda query: [query.answer(*records, **more)])


ADDRESS = record("A", bytes([192, 0, 2, 1]))
POISON = record("A", bytes([192, 0, 2, 66]))


def dig(server, *words):
    return outcome("/dig", *(words or ["www.example.com"]), DNS_SERVER=server.address)


@pytest.mark.parametrize("name, type_, number", [
    ("example.com", "A", 0), ("www.example.com", "CAA", 0xFFFF),
    ("_sip._tcp.a-b.example", 65280, 1), ("x" * 63 + ".example", "TXT", 0x1234),
    (".".join(["a" * 49] * 5), "SOA", 7), ("1.0.0.127.in-addr.arpa", "PTR", 42)])
def test_a_question_is_what_rfc_1035_says(name, type_, number):
    type_ = net.TYPES.get(type_, type_)
    assert dns_question(name, type_, number) == message(
        number, question(name, type_), flags=net.RD)


def test_a_query_asks_one_question_and_nothing_more():
    with nameserver(ADDRESS) as server:
        ask("/dig", "www.example.com", "MX", DNS_SERVER=server.address)
        query, = server.seen
    assert (query.name, query.type, query.class_) == ("www.example.com", 15, 1)
    assert query.flags == net.RD and query.counts == [1, 0, 0, 0] and not query.rest


def test_nobody_can_guess_the_id_or_the_port_of_a_query():
    with nameserver(ADDRESS) as server:
        for _ in range(12):
            ask("/dig", "www.example.com", DNS_SERVER=server.address)
        numbers = [query.id for query in server.seen]
        assert len(set(numbers)) > 10 and max(numbers) > 255
        assert len({after - before for before, after in itertools.pairwise(numbers)}) > 8
        assert len({query.peer[1] for query in server.seen}) > 6


def test_the_layout_is_digs():
    with nameserver(ADDRESS) as server:
        lines = [line for line in block(ask("/dig", "www.example.com", DNS_SERVER=server.address)
                                        ).split("\n") if line]
        port, number = server.address.split(":")[1], server.seen[0].id
    assert lines[0] == f";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: {number}"
    assert lines[1] == ";; flags: qr rd ra; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 0"
    assert lines[2] == ";; QUESTION SECTION:"
    assert re.fullmatch(r";www\.example\.com\.\s+IN\s+A", lines[3])
    assert lines[4] == ";; ANSWER SECTION:"
    assert re.fullmatch(r"www\.example\.com\.\s+300\s+IN\s+A\s+192\.0\.2\.1", lines[5])
    assert re.fullmatch(r";; Query time: \d+ msec", lines[6])
    assert re.fullmatch(rf";; SERVER: 127\.0\.0\.1#{port}\b.*", lines[7])
    assert len(lines) == 8


def test_the_sections_stand_in_order_and_the_whole_answer_is_one_code_block():
    ns = record("NS", b"\3ns1" + pointer(16), name=pointer(16))
    with nameserver(ADDRESS, authority=[ns], flags=net.QR | net.AA) as server:
        answer = ask("/dig", "www.example.com", DNS_SERVER=server.address)
    assert answer.startswith("```") and answer.endswith("```")
    places = [answer.index(title) for title in (
        "HEADER", ";; flags: qr aa;", "AUTHORITY: 1", ";; QUESTION SECTION:",
        ";; ANSWER SECTION:", ";; AUTHORITY SECTION:", ";; Query time:", ";; SERVER:")]
    assert places == sorted(places)
    assert re.search(r"^example\.com\.\s+300\s+IN\s+NS\s+ns1\.example\.com\.$", answer, re.M)


@pytest.mark.parametrize("rcode, status", [
    (1, "FORMERR"), (2, "SERVFAIL"), (3, "NXDOMAIN"), (4, "NOTIMP"), (5, "REFUSED")])
def test_an_error_of_a_name_server_is_shown_by_its_name(set_deadline, rcode, status):
    set_deadline("/dig", 1)
    with nameserver(rcode=rcode) as server:
        assert status in dig(server)


@pytest.mark.parametrize("text", [
    b"```", b"`", b"``` <!channel> ```", b"<!here>", b"<@U1>", b"<https://evil.example|you>",
    b"`" * 255, b"&lt;!channel&gt;", b"\r\n```\n", b"\x00\x1b[31m"], ids=repr)
def test_what_a_record_says_stays_text(text):
    domain = labels([text[:60], "example"])
    with nameserver(record("TXT", strings(text)), record("CNAME", domain),
                    record("CAA", b"\0\5issue" + text), record("A", b"\1\2\3\4", name=domain),
                    record(65280, text)) as server:
        answer = ask("/dig", "www.example.com", DNS_SERVER=server.address)
    assert len(net.Layout(block(answer)).records["ANSWER"]) == 5
    assert "&amp;lt;" in answer or "&lt;" not in text.decode("latin-1")


@pytest.mark.parametrize("data, shown", [
    (b"\x0a\0\0\1", "4 0A000001"), (b"", "0"), (b"\x01\xab" * 150, "300 " + "01AB" * 150)],
    ids=["four bytes", "none", "many"])
def test_a_record_of_an_unknown_type_is_shown_as_rfc_3597_says(data, shown):
    with nameserver(record(65280, data)) as server:
        answer = ask("/dig", "www.example.com", DNS_SERVER=server.address)
    assert re.search(rf"^www\.example\.com\.\s+300\s+IN\s+TYPE65280\s+\\# {shown}$", answer, re.M)


def test_a_record_of_another_class_isnt_the_internets():
    with nameserver(record("TXT", strings(b"9.18"), class_=3)) as server:
        answer = ask("/dig", "www.example.com", "TXT", DNS_SERVER=server.address)
    assert re.search(r'^www\.example\.com\.\s+300\s+(CH|CLASS3)\s+TXT\s+"9\.18"$', answer, re.M)


@pytest.mark.parametrize("records", [
    [record("A", bytes([10, 0, *divmod(number, 256)])) for number in range(3500)],
    [record("TXT", strings(b"&" * 255)) for _ in range(150)],
    [record("TXT", strings(*[b"\xff" * 250] * 200))], [record(65280, bytes(60_000))]],
    ids=["addresses", "ampersands", "one record", "unknown type"])
def test_an_answer_that_is_too_long_for_slack_is_clipped_and_says_so(records):
    with Nameserver(lambda query: [query.answer(flags=net.QR | net.TC)],
                    lambda query: framed(query.answer(*records))) as server:
        answer = ask("/dig", "www.example.com", DNS_SERVER=server.address)
    assert f"ANSWER: {len(records)}, " in answer and CLIPPED.search(answer)
    assert len(answer) > 250


# ---- /dig: what may be asked

BAD_NAMES = {
    "a space": "www example.com", "spaces": "   ", "nothing": "", "an option": "-x",
    "another option": "-f/etc/passwd", "dig's server": "@8.8.8.8", "dig's option": "+short",
    "a label of 64": "x" * 64 + ".example", "over 253": ".".join(["a" * 49] * 5) + ".abcde",
    "far over 253": "a." * 500, "an empty label": "www..example.com",
    "an empty label first": ".com", "dots": "..",
    "a line": "www.example.com\nx", "a return": "www\r.example.com",
    "a tab": "www\texample", "a zero": "www\x00.example", "a delete": "www\x7f.example",
    "an escape": "\x1b[31m.example", "a line separator": "a\u2028b.example",
    "a long label in Unicode": "ü" * 64 + ".example", "a name in Unicode, too long": "ü." * 120,
    "a surrogate": "\ud800.example", "an empty label in Unicode": "ü..example",
    "a very long one in Unicode": "ü" * 100_000, "a zone": "fe80::1%eth0",
    "a mention": "<!channel> x"}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_an_invalid_name_is_refused_before_a_name_server_is_asked(name):
    with nameserver(ADDRESS) as server, working(2):
        refusal("/dig", name, "A", DNS_SERVER=server.address)
        assert not server.seen


@pytest.mark.parametrize("type_", [
    "FOO", "AA", "A;B", "A A", "TYPE1", "9" * 5000, "-t", "+short", "A\n", "\x00", "<!channel>"],
    ids=lambda type_: ascii(type_[:20]))
def test_an_unknown_type_is_refused_before_a_name_server_is_asked(type_):
    with nameserver(ADDRESS) as server:
        refusal("/dig", "www.example.com", type_, DNS_SERVER=server.address)
        assert not server.seen


@pytest.mark.parametrize("name, asked", [
    ("x" * 63 + ".example", "x" * 63 + ".example"), ("example.com.", "example.com"),
    (".".join(["a" * 49] * 5), ".".join(["a" * 49] * 5)), ("_dmarc.example", "_dmarc.example"),
    ("192.0.2.1", "1.2.0.192.in-addr.arpa"), ("::1", "1." + "0." * 31 + "ip6.arpa"),
    ("bücher.example", "xn--bcher-kva.example"), ("a--b.example", "a--b.example")])
def test_a_valid_name_is_asked_for(name, asked):
    with nameserver(ADDRESS) as server:
        net.Layout(block(ask("/dig", name, DNS_SERVER=server.address)))
        assert server.seen[0].name == asked
        assert server.seen[0].type == (12 if asked.endswith("arpa") else 1)


# ---- /dig: hostile name servers

JUNK = {  # what a resolver must not take for the answer to a query
    "another id": lambda query: query.answer(POISON, number=query.id ^ 1),
    "another name": lambda query: query.answer(POISON, asked=question("www.example.org")),
    "another type": lambda query: query.answer(POISON, asked=question("www.example.com", "MX")),
    "another class": lambda query: query.answer(POISON, asked=question("www.example.com", "A", 3)),
    "two questions": lambda query: query.answer(
        POISON, asked=question("www.example.org") + query.asked, counts=(2, 1, 0, 0)),
    "no question": lambda query: query.answer(POISON, asked=b""),
    "not a response": lambda query: query.answer(POISON, flags=net.RD),
    "no question, and a record like it": lambda query: query.answer(
        POISON, asked=query.asked, counts=(0, 1, 0, 0)),
    "two questions, the first of them ours": lambda query: query.answer(
        POISON, asked=query.asked + query.asked, counts=(2, 1, 0, 0)),
    **{f"opcode {code}": lambda query, code=code: query.answer(
        POISON, flags=net.QR | net.RD | code << 11) for code in (1, 2, 4, 5, 15)},
    "a no with another opcode": lambda query: query.answer(
        asked=b"", rcode=2, flags=net.QR | 5 << 11),
    "the query itself": lambda query: query.data,
    "another port": lambda query: ("elsewhere", query.answer(POISON)),
    "nothing": lambda query: b"", "a byte": lambda query: b"x",
    "the id": lambda query: query.data[:2],
    "short of a no": lambda query: query.answer(asked=b"", rcode=2)[:11],
    "half a head": lambda query: query.answer(POISON)[:6],
    "short of a head": lambda query: query.answer(POISON)[:11]}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_datagrams_that_are_not_the_answer_are_ignored_until_it_comes(junk):
    with Nameserver(lambda query: [junk(query)] * 3 + [query.answer(ADDRESS)]) as server:
        answer = dig(server)
        assert len(server.seen) == 1, "and it isn't asked again"
    assert "192.0.2.1" in answer and "192.0.2.66" not in answer


def test_datagrams_that_are_not_the_answer_are_never_shown(set_deadline):
    set_deadline("/dig")
    with Nameserver(lambda query: [junk(query) for junk in JUNK.values()]) as server, \
            within(SHORT_SECONDS + LEEWAY):
        refusal("/dig", "www.example.com", DNS_SERVER=server.address)


MALFORMED = {  # records that are an answer's, by id and question, and can't be right
    "a pointer to itself": record("A", b"\1\2\3\4", name=pointer(33)),
    "a loop of two": record("A", b"\1\2\3\4", name=pointer(35) + pointer(33)),
    "a loop over labels": record("A", b"\1\2\3\4", name=b"\1a\1b" + pointer(33)),
    "a pointer forward": record("A", b"\1\2\3\4", name=pointer(61)) + record("A", labels("ahead")),
    "a pointer out of the message": record("A", b"\1\2\3\4", name=pointer(0x3FFF)),
    "a pointer into the head": record("A", b"\1\2\3\4", name=pointer(2)),
    "half a pointer": b"\xc0", "a label of another kind": b"\x41" + ADDRESS,
    "a label of yet another": b"\x85abc\0" + ADDRESS,
    "a name without an end": b"\3www", "a label beyond the end": b"\x3fwww",
    "a name of 300": record("A", b"\1\2\3\4", name=labels(["x" * 60] * 5)),
    "a name that grows": record("A", b"\1\2\3\4", name=(b"\x3f" + b"x" * 63) * 3 + pointer(33)),
    "half a record": ADDRESS[:7], "no data": ADDRESS[:-4], "less data": ADDRESS[:-1],
    "less of a text": record("TXT", strings(b"hello"))[:-2],
    "less of the unknown": record(65280, bytes(8))[:-2],
    "a length beyond the end": record("A", b"\1\2\3\4", length=65535),
    "an address of three": record("A", b"\1\2\3"),
    "an address of five": record("A", b"\1\2\3\4\5"), "no address": record("A", b""),
    "a short IPv6": record("AAAA", bytes(15)),
    "MX without a name": record("MX", b"\0\1"), "MX of one byte": record("MX", b"\0"),
    "MX beyond its data": record("MX", b"\0\1\3www", length=4) + ADDRESS,
    "SOA cut": record("SOA", b"\0\0" + bytes(19)), "SOA empty": record("SOA", b""),
    "SRV cut": record("SRV", bytes(5)), "CNAME empty": record("CNAME", b""),
    "TXT beyond its data": record("TXT", b"\xffshort"), "TXT empty": record("TXT", b""),
    "CAA beyond its data": record("CAA", b"\0\xffissue"), "CAA of one byte": record("CAA", b"\0"),
    "CAA empty": record("CAA", b"")}
COUNTS = [(1, 65535, 0, 0), (1, 0, 65535, 65535), (65535, 65535, 65535, 65535), (65535, 1, 0, 0),
          (1, 2, 0, 0), (0, 1, 0, 0)]


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_an_error_in_clear_words(set_deadline, data):
    set_deadline("/dig")
    with nameserver(data) as server, within(SHORT_SECONDS + LEEWAY):
        answer = dig(server)
    if answer.startswith("```"):
        net.Layout(block(answer))


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_raises_nothing_but_network_error(data):
    with contextlib.suppress(slackbot.NetworkError):
        dns_text(dns_message(message(1, question("www.example.com"), [data])))


@pytest.mark.parametrize("name", [name for name in MALFORMED if re.match(
    "a pointer|a loop|a name|a label|half|no data|less|a length|an address", name)])
def test_a_name_or_record_that_has_no_end_is_never_shown(name):
    with pytest.raises(slackbot.NetworkError):
        dns_text(dns_message(message(1, question("www.example.com"), [MALFORMED[name]])))


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_wrong_counts_are_an_error_in_clear_words(set_deadline, counts):
    set_deadline("/dig")
    with nameserver(ADDRESS, counts=counts) as server, within(SHORT_SECONDS + LEEWAY):
        refusal("/dig", "www.example.com", DNS_SERVER=server.address)


@pytest.mark.parametrize("udp", [
    lambda query: [], lambda query: [query.data[:12]],
    lambda query: (time.sleep(0.02) or query.answer(number=query.id ^ 1) for _ in range(600))],
    ids=["silence", "half of the query", "a stream of junk"])
def test_a_silent_name_server_times_out(set_deadline, udp):
    set_deadline("/dig")
    with Nameserver(udp) as server, within(SHORT_SECONDS + LEEWAY):
        refusal("/dig", "www.example.com", DNS_SERVER=server.address)
        assert server.seen


def test_a_name_server_that_isnt_there_is_reported():
    with within(LEEWAY):
        refusal("/dig", "www.example.com", DNS_SERVER=f"127.0.0.1:{net.closed_port()}")


def test_an_answer_may_repeat_the_question_in_small_letters():
    with Nameserver(lambda query: [query.answer(
            ADDRESS, asked=question(query.name.lower(), query.type))]) as server:
        assert "192.0.2.1" in ask("/dig", "WWW.Example.COM", DNS_SERVER=server.address)


def test_a_query_that_got_lost_is_asked_again(monkeypatch):
    monkeypatch.setattr(slackbot, TRY_SECONDS, 0.1)
    with Nameserver() as server:
        server.udp = lambda query: [query.answer(ADDRESS)] if len(server.seen) > 1 else []
        assert "192.0.2.1" in dig(server)
        assert {query.name for query in server.seen} == {"www.example.com"}


def truncated(query):
    return [query.answer(flags=net.QR | net.TC | net.RD | net.RA)]


def test_a_truncated_answer_is_asked_for_over_tcp():
    many = [record("A", bytes([10, 1, 1, number])) for number in range(200)]
    with Nameserver(truncated, lambda query: framed(query.answer(*many))) as server:
        found = net.Layout(block(ask("/dig", "www.example.com", DNS_SERVER=server.address)))
        assert [query.transport for query in server.seen] == ["udp", "tcp"]
    assert len(found.records["ANSWER"]) == 200 and "tc" not in found.flags


def test_a_link_local_name_server_is_asked_in_its_zone_by_udp_and_by_tcp(monkeypatch):
    query = dns_question("www.example.com", 1, 7)
    answer = message(7, query[12:], [ADDRESS])
    cut = message(7, query[12:], flags=net.QR | net.TC)
    connected = []

    class Sock(net.PiecesSocket):
        def __init__(self, family, kind, protocol=0):
            super().__init__(cut if kind == socket.SOCK_DGRAM else framed(answer), 65_535)
            self.kind = family, kind

        def connect(self, address):
            connected.append((*self.kind, address))

        send = net.PiecesSocket.sendall

    monkeypatch.setattr(slackbot.socket, "socket", Sock)
    assert slackbot.dns_ask(("fe80::1%1", 53), query, time.monotonic() + 60) == answer
    assert connected == [(socket.AF_INET6, kind, ("fe80::1", 53, 0, 1))
                         for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]


def test_an_answer_over_tcp_may_come_in_pieces():
    def pieces(query):
        data = framed(query.answer(ADDRESS))

        def act(server, peer):
            for place in range(0, len(data), 7):
                peer.sendall(data[place:place + 7])
                time.sleep(0.005)
        return act
    with Nameserver(truncated, pieces) as server:
        assert "192.0.2.1" in ask("/dig", "www.example.com", DNS_SERVER=server.address)


GARBAGE = random.Random(4).randbytes(65535)
OVER_TCP = {
    "64 KiB of garbage": lambda query: framed(GARBAGE),
    "64 KiB of garbage behind a good head": lambda query: framed(
        query.answer(counts=(1, 65535, 65535, 65535)) + GARBAGE[:65000]),
    "garbage without a length": lambda query: GARBAGE,
    "a length that is too long": lambda query: framed(query.answer(POISON), 1000),
    "a length that is too short": lambda query: framed(query.answer(POISON), 20),
    "a length of 0": lambda query: framed(b""), "half a length": lambda query: b"\0",
    "nothing": lambda query: CLOSED, "a reset": lambda query: RESET,
    "silence": lambda query: SILENCE, "a drip": lambda query: drip(b"\xff\xff"),
    "no end": lambda query: endless(b"\xff" * 65536),
    "another id": lambda query: framed(query.answer(POISON, number=query.id ^ 1)),
    "another question": lambda query: framed(query.answer(POISON, asked=question("x.org"))),
    "truncated again": lambda query: framed(truncated(query)[0])}


@pytest.mark.parametrize("how", OVER_TCP)
def test_a_malformed_answer_over_tcp_is_an_error_in_clear_words(set_deadline, how):
    seconds = 0.6 if how in ("silence", "a drip", "no end") else 5
    set_deadline("/dig", seconds)
    with Nameserver(truncated, OVER_TCP[how]) as server, within(seconds + LEEWAY):
        answer = dig(server)
        until(lambda: {query.transport for query in server.seen} == {"udp", "tcp"})
    assert "192.0.2.66" not in answer
    if answer.startswith("```"):
        assert "tc" in net.Layout(block(answer)).flags, "it isn't whole, and doesn't say so"


def test_a_name_server_without_tcp_is_an_error_in_clear_words(set_deadline):
    set_deadline("/dig")
    with Nameserver(truncated, listens=False) as server, within(SHORT_SECONDS + LEEWAY):
        answer = dig(server)
    assert not answer.startswith("```") or "tc" in net.Layout(block(answer)).flags


# ---- DNS messages, any bytes

def survives(data):
    """Parse and render *data*: whether it could be done; any other error is a failure."""
    try:
        assert dns_text(dns_message(data))
    except slackbot.NetworkError as error:
        clear(str(error))
        return False
    return True


@pytest.mark.parametrize("data", net.samples(), ids=lambda data: data[:2].hex())
def test_every_valid_sample_is_shown(data):
    assert survives(data)


def test_ten_thousand_mutated_messages_raise_nothing_but_network_error():
    chance, valid = random.Random(1035), net.samples()
    with working(10):
        shown = sum(survives(net.mutated(chance, valid)) for _ in range(10_000))
    assert 1000 < shown < 9000, "the mutations are too harmless, or too harmful"


def test_random_bytes_raise_nothing_but_network_error():
    chance = random.Random(883)
    for length in [*range(40)] * 5 + [512, 4096]:
        survives(chance.randbytes(length))


@pytest.mark.parametrize("far", [0, 300, 5000, 16_000])
def test_the_longest_name_is_shown_however_it_is_compressed(far):
    filler = record(65280, bytes(far))
    place = 12 + len(question("a.b")) + len(filler)
    tail, end = ["y" * 63, "z" * 61], ["x" * 60, "w" * 63]
    named = record("PTR", labels(tail), name=labels(["v"]))
    data = place + len(labels(["v"])) + 10
    middle = b"".join(map(labels, ([each] for each in end))).replace(b"\0", b"") + pointer(data)
    text = dns_text(dns_message(message(1, question("a.b"), [
        filler, named, record("PTR", middle, name=labels(["u"])),
        record("A", b"\1\2\3\4", name=pointer(data))])))
    assert f"PTR\t{'.'.join(end + tail)}.\n" in text + "\n"
    assert re.search(rf"^{'.'.join(tail)}\.\s+300\s+IN\s+A\s+1\.2\.3\.4$", text, re.M)


LONGEST = ["x" * 63, "x" * 63, "x" * 63, "x" * 61]  # 253 characters


def test_a_record_of_the_longest_name_is_shown_though_it_points_to_the_question():
    name = slackbot.host_name(".".join(LONGEST))
    text = dns_text(dns_message(message(1, question(name), [ADDRESS])))
    assert text.endswith(f"\n{name}.\t300\tIN\tA\t192.0.2.1")
    with pytest.raises(slackbot.NetworkError):
        dns_message(message(1, question(f"{name}x"), [ADDRESS]))


def test_a_network_error_is_shown_to_the_user():
    assert issubclass(slackbot.NetworkError, slackbot.UserError)


NESTED = b"".join(map(pointer, [12, *range(45, 45 + 2 * 7999, 2)]))  # each to the one before it


@pytest.mark.parametrize("records", [
    [record(65280, NESTED)] + [record("A", b"\1\2\3\4", name=pointer(45 + 2 * 7999))] * 2800,
    [record("A", b"\1\2\3\4", name=labels(["x"] * 126))] * 230,
    [record("TXT", b"\0" * 60_000)], [record("TXT", b"\xff" * 60_000)], [ADDRESS] * 4000],
    ids=["pointers to pointers", "many labels", "empty strings", "long strings", "many records"])
def test_a_message_that_is_made_to_be_slow_takes_under_a_second_of_work(records):
    data = message(1, question("www.example.com"), records)
    assert len(data) < 65536
    with working(1):
        survives(data)


def test_mutated_answers_are_shown_or_are_an_error_in_clear_words(set_deadline):
    set_deadline("/dig", 2)
    chance, valid = random.Random(53), [each for each in net.samples() if each[4:6] == b"\0\1"]

    def udp(query):
        data = net.mutated(chance, valid)[12 + len(query.asked):]
        head = chance.choice(valid)[2:12]
        yield query.data[:2] + head + query.asked + data
        yield query.answer(ADDRESS)
    with Nameserver(udp, lambda query: framed(next(udp(query)))) as server, within(2 * PATIENCE):
        for _ in range(500):
            dig(server)


# ---- where a command may reach

PUBLIC = ["1.1.1.1", "8.8.8.8", "193.0.6.139", "172.32.0.1", "100.128.0.1", "9.255.255.255",
          "2606:4700::1111", "2001:4860:4860::8888"]
NOT_PUBLIC = [
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.1.2.3", "0.0.0.0",
    "0.1.2.3", "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.255.255.250",
    "255.255.255.255", "240.0.0.1", "192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1",
    "198.18.0.1", "::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "ff02::1", "ff0e::1",
    "2001:db8::1", "100::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:7f00:1", "::ffff:0.0.0.0", "::127.0.0.1", "::10.0.0.1", "::7f00:1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "2002:808:808::", "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b::e000:1", "2002:7f00:1::", "2002:a00:1::",
    "2002:a9fe:a9fe::1", "2002:e000:1::", "2002:c0a8:101::1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_that_anybody_can_reach_is_public(address):
    assert is_public(address) is True


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_nobody_else_can_reach_isnt_public(address):
    assert is_public(address) is False


@pytest.fixture
def one_is_public(monkeypatch):
    """The internet, for these tests: 127.0.0.1 is public, and 127.0.0.2 is somebody's router."""
    monkeypatch.setattr(slackbot, "is_public", lambda address: str(address) == "127.0.0.1")


LOCAL = re.compile("private|public", re.IGNORECASE)  # such words tell why


# ---- /whois

GTLD = """Domain Name: EXAMPLE.COM
Registry Domain ID: 2336799_DOMAIN_COM-VRSN
Registrar WHOIS Server:{next}
Registrar URL: http://www.registrar.example
Updated Date: 2026-08-14T07:01:34Z
Creation Date: 1995-08-14T04:00:00Z
Registry Expiry Date: 2027-08-13T04:00:00Z
Registrar: Reg & <Sons>, Inc.
Registrar IANA ID: 376
Domain Status: clientTransferProhibited https://icann.org/epp#clientTransferProhibited
Domain Status: serverHold https://icann.org/epp#serverHold
Name Server: A.IANA-SERVERS.EXAMPLE
Name Server: B.IANA-SERVERS.EXAMPLE
Registrant Organization: Internet Corp.
Registrant Country: QZ
DNSSEC: signedDelegation
>>> Last update of whois database: 2026-11-20T00:00:00Z <<<
"""
MATTERS = {  # what a registry says; the query; what of it must stand before the raw text
    "gTLD": (GTLD.replace(":{next}", ": "), "example.com", [
        "Reg & <Sons>, Inc.", "1995-08-14", "2026-08-14", "2027-08-13", "clientTransferProhibited",
        "serverHold", "a.iana-servers.example", "b.iana-servers.example", "Internet Corp.", "QZ"]),
    "IANA": ("""% IANA WHOIS server

domain:       EXAMPLE

organisation: Internet Assigned Numbers Authority
address:      12025 Waterfront Drive
address:      United States of America (the)

nserver:      A.NIC.EXAMPLE 2001:db8:0:0:0:0:0:30 192.0.2.30
status:       ACTIVE
created:      1985-01-01
changed:      2023-12-07
source:       IANA
""", "example", ["Internet Assigned Numbers Authority", "a.nic.example", "ACTIVE", "1985-01-01",
                 "2023-12-07"]),
    "DENIC": ("""Domain: beispiel.de
Nserver: ns1.beispiel.example
Nserver: ns2.beispiel.example
Status: connect
Changed: 2021-03-05T10:11:12+01:00
""", "beispiel.de", ["ns1.beispiel.example", "ns2.beispiel.example", "connect", "2021-03-05"]),
    "RIPE": ("""% This is the RIPE Database query service.

inetnum:        193.0.0.0 - 193.0.7.255
netname:        RIPE-NCC
country:        QZ
status:         ASSIGNED PA
created:        2003-03-17T12:15:57Z
last-modified:  2017-12-04T14:42:31Z
source:         RIPE

organisation:   ORG-RIEN1-RIPE
org-name:       Reseaux IP Europeens
""", "193.0.6.139", ["QZ", "ASSIGNED PA", "2003-03-17", "2017-12-04", "Reseaux IP Europeens"]),
    "ARIN": ("""
ASNumber:       13335
ASName:         CLOUDFLARENET
RegDate:        2010-07-14
Updated:        2017-02-17

OrgName:        Cloudflare, Inc.
City:           San Francisco
Country:        QZ
""", "AS13335", ["2010-07-14", "2017-02-17", "Cloudflare, Inc.", "QZ"])}


def whois(server, name="example.com", leave=True):
    return outcome("/whois", name, WHOIS_SERVER=server.name, **(ALLOWED if leave else {}))


def seen(text):
    """What a user sees of an answer, however it is written."""
    return slackbot.unescape(text)


@contextlib.contextmanager
def chained(*texts, last=None):
    """A whois server for each text, in whose place `{next}` is the name of the following one, the
    last one's being *last*."""
    with contextlib.ExitStack() as stack:
        servers = []
        for text in reversed(texts):
            named = servers[0].name if servers else last or ""
            how = text.replace("{next}", named) if isinstance(text, str) else text
            servers.insert(0, stack.enter_context(Whois(how)))
        yield servers


@pytest.mark.parametrize("text, name, words", MATTERS.values(), ids=MATTERS)
def test_the_important_facts_stand_before_the_raw_text(text, name, words):
    with Whois(text) as server:
        answer = whois(server, name)
        assert server.seen == [name.encode() + b"\r\n"]
    first, raw = seen(answer.split("```")[0]).lower(), block(answer).lower()
    assert [word for word in words if word.lower() not in first] == []
    assert [word for word in words if word.lower() not in raw] == []
    assert not re.search("12025|san francisco|>>>", first)


@pytest.mark.parametrize("line", [
    "refer:        {next}", "whois:        {next}", "Registrar WHOIS Server: {next}",
    "   Registrar WHOIS Server:   {next}  ", "ReferralServer:  whois://{next}",
    "ReferralServer:  rwhois://{next}", "REFER: {next}", "Whois: {next}",
    "referralserver: WHOIS://{next}", "ReferralServer: whois://{next}/"])
def test_a_referral_is_followed(line):
    first = f"% a registry\ndomain: COM\n{line}\nstatus: ACTIVE\n"
    with chained(first, "Registrar: The Last\n") as servers:
        answer = whois(servers[0])
        assert [server.seen for server in servers] == [[b"example.com\r\n"]] * 2
    assert "The Last" in answer.split("```")[0]


def test_a_chain_of_three_servers_ends_with_the_registrars_own_words():
    with chained("refer: {next}\ndomain: COM\norganisation: First\n", GTLD.replace(":{", ": {"),
                 "Domain Name: example.com\nRegistrar: Reg, Inc.\nRegistrant Organization: Own\n"
                 "Registrar WHOIS Server: {next}\n") as servers:
        answer = whois(servers[0])
        assert [len(server.seen) for server in servers] == [1, 1, 1]
    first, raw = seen(answer.split("```")[0]), block(answer)
    assert "Own" in first and "Registrant Organization: Own" in raw


def test_a_registrar_that_names_itself_is_asked_once():
    with Whois() as server:
        server.how = f"Registrar: Reg, Inc.\nRegistrar WHOIS Server: {server.name}\n"
        assert "Reg, Inc." in whois(server)
        assert len(server.seen) == 1


def test_two_servers_that_refer_to_each_other_are_asked_once_each():
    with Whois() as one, Whois() as two:
        one.how = f"Registrar: One\nwhois: {two.name}\n"
        two.how = f"Registrar: Two\nrefer: {one.name}\n"
        answer = whois(one)
        assert len(one.seen) == len(two.seen) == 1
    assert "Two" in answer


def test_a_server_that_refers_to_itself_by_other_names_is_asked_a_few_times(directory):
    directory.known.update({"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]})
    with Whois() as server:
        server.how = (f"refer: A.EXAMPLE:{server.port}\nwhois: b.example.:{server.port}\n"
                      "Registrar: Reg\n")
        assert "Reg" in whois(server)
        assert len(server.seen) <= 5


def test_at_most_four_referrals_are_followed():
    texts = [f"Registrar: Number {number}\nrefer: {{next}}\n" for number in range(8)]
    with chained(*texts, last="127.0.0.1:1") as servers:
        answer = whois(servers[0])
        asked = sum(len(server.seen) for server in servers)
    assert asked in (4, 5) and f"Number {asked - 1}" in answer


@pytest.mark.parametrize("host", ["127.0.0.2", "router.example"])
@pytest.mark.parametrize("line", ["refer: {}", "Registrar WHOIS Server: {}",
                                  "ReferralServer: rwhois://{}"])
def test_a_referral_to_a_private_address_is_refused_and_not_connected_to(
        directory, one_is_public, line, host):
    directory.known["router.example"] = ["127.0.0.2"]
    with Whois("Registrar: Evil\n", "127.0.0.2") as router:
        with Whois("Registrar: First\n" + line.format(f"{host}:{router.port}")) as server:
            answer = whois(server, leave=False)
            assert server.seen and not router.peers
    assert LOCAL.search(answer) and host in answer and "Evil" not in answer


def test_a_referral_to_a_public_address_is_always_followed(one_is_public):
    with chained("refer: {next}\n", "Registrar: The Last\n") as servers:
        assert "The Last" in whois(servers[0], leave=False)


def test_a_whois_server_that_answers_is_found_among_addresses_that_dont(directory):
    with Whois("Registrar: First\n") as server:
        directory.known["both.example"] = ["127.0.0.3", "127.0.0.1"]
        assert "First" in ask("/whois", "example.com", **ALLOWED,
                              WHOIS_SERVER=f"both.example:{server.port}")


def test_with_network_allow_private_a_referral_to_a_private_address_is_followed():
    with Whois("Registrar: The Last\n", "127.0.0.2") as server:
        with Whois(f"refer: {server.name}\n") as first:
            assert "The Last" in whois(first)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1"])
def test_whois_does_not_start_at_a_private_address(host):
    with Whois("Registrar: Evil\n") as server:
        words = refusal("/whois", "example.com", WHOIS_SERVER=f"{host}:{server.port}")
        assert LOCAL.search(words) and not server.peers


def test_a_referral_is_looked_up_once_and_that_address_is_the_one(directory, one_is_public):
    directory.known["moving.example"] = itertools.chain(
        [["127.0.0.1"]], itertools.repeat(["127.0.0.2"]))
    with Whois("Registrar: Evil\n", "127.0.0.2") as router:
        with Whois() as server:
            server.how = f"Registrar: First\nrefer: moving.example:{router.port}\n"
            whois(server, leave=False)
        assert not router.peers and directory.looked_up == ["moving.example"]


@pytest.mark.parametrize("referral", [
    "", "-x", "http://127.0.0.1:1/", "https://www.registrar.example", "a b", "127.0.0.1:99999",
    "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:x", "127.0.0.1:" + "9" * 5000, "[::1", "..", ":",
    "whois://", "rwhois://:4321", "x" * 300, "x" * 70 + ".example", "a..example", "ü" * 100,
    "none.example", "\x00", "\x1b[31m", "%s", "<!channel>", "@", "N/A", "127.0.0.1:{closed}"],
    ids=lambda text: ascii(text[:25]))
def test_a_referral_to_no_server_is_ignored_or_reported(referral):
    text = f"Registrar: First\nrefer: {referral}\nRegistrar WHOIS Server: {referral}\n"
    with Whois(text.replace("{closed}", str(net.closed_port()))) as server, within(LEEWAY):
        assert "First" in whois(server)
        assert len(server.seen) == 1


@pytest.mark.parametrize("name", [
    "", " ", "example.com\r\nexample.org", "example.com\n", "example.com\r", "a b", "-h", "--help",
    "-h whois.evil.example x", "a\x00b", "a\tb", "\x1b[31m", "\x7f", "x" * 300, "x." * 200,
    "ü" * 64 + ".example", "\ud800", "a..b", "a\u2028b", "<!channel> x", "ü" * 100_000],
    ids=lambda text: ascii(text[:25]))
def test_an_invalid_name_is_refused_before_a_whois_server_is_asked(name):
    with Whois("Registrar: First\n") as server, working(2):
        refusal("/whois", name, WHOIS_SERVER=server.name, **ALLOWED)
        assert not server.peers


@pytest.mark.parametrize("name, query", [
    ("example.com", "example.com"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"),
    ("AS13335", "AS13335"), ("10.0.0.1", "10.0.0.1"), ("bücher.example", "xn--bcher-kva.example"),
    ("a-b.co.uk", "a-b.co.uk"), ("com", "com"), ("EXAMPLE.COM.", "EXAMPLE.COM"),
    ("com.", "com"), ("bücher.example.", "xn--bcher-kva.example")])
def test_domains_addresses_and_numbers_are_asked_for_as_they_are(name, query):
    with Whois("Registrar: First\n") as server:
        assert "First" in whois(server, name)
        assert server.seen == [query.encode() + b"\r\n"]


def test_an_as_number_may_be_typed_in_small_letters():
    with Whois("ASName: CLOUDFLARENET\n") as server:
        whois(server, "as13335")
        assert [query.upper() for query in server.seen] == [b"AS13335\r\n"]


@pytest.mark.parametrize("data", ["Registrar: Café Größe\r\n".encode(charset)
                                  for charset in ("latin-1", "utf-8")], ids=["latin-1", "utf-8"])
def test_an_answer_in_latin_1_or_utf_8_is_readable(data):
    with Whois(data) as server:
        answer = whois(server)
    assert answer.count("Café Größe") == 2


@pytest.mark.parametrize("text", [
    "Registrar: ``` <!channel> ```\n",
    "Registrar: <https://evil.example|you> & <@U1>\n```\n<!here>\n",
    "Registrar: a\x00\x1b[31m\x7fb\n", "Registrar: `\nDomain Status: ``\nName Server: ```\n",
    "`" * 500 + "\n", "Name Server: ``\nName Server: ``\n"], ids=ascii)
def test_what_a_whois_server_says_stays_text(text):
    with Whois(text) as server:
        answer = ask("/whois", "example.com", WHOIS_SERVER=server.name, **ALLOWED)
    assert "```" in answer


@pytest.mark.parametrize("text", [
    "Registrar: Reg\n" + "remarks: a < b & c > d\n" * 3000, "Registrar: Reg\n" + "&" * 60_000,
    "Registrar: Reg\n" + "Name Server: ns.example\n" * 3000,
    "Registrar: " + "x" * 60_000 + "\n", "Domain Status: " + "<" * 60_000 + "\n"],
    ids=["lines", "ampersands", "name servers", "a long value", "brackets"])
def test_a_long_answer_is_clipped_and_says_so(text):
    with Whois(text) as server:
        answer = ask("/whois", "example.com", WHOIS_SERVER=server.name, **ALLOWED)
    assert CLIPPED.search(answer) and block(answer).strip()
    assert len(answer) > 1500 and ("Reg" in answer or "Registrar: Reg\n" not in text)


def test_a_line_of_very_many_spaces_takes_no_time():
    with Whois("Registrar: Reg\n" + " " * 20_000 + "x\n") as server, working(1):
        answer = whois(server)
    assert "Registrar: Reg" in answer.split("```")[0]


@pytest.mark.parametrize("how, limit", [
    (endless(b"remarks: more and more\r\n"), 30_000_000), (endless(b"x" * 10_000), 30_000_000),
    (drip(b"remarks: more\r\n", 0.01), 1000)], ids=["lines", "no line", "a drip"])
def test_an_endless_answer_is_read_up_to_a_limit(set_deadline, how, limit):
    set_deadline("/whois", 0.6)
    with Whois(how) as server, within(0.6 + LEEWAY):
        whois(server)
        assert server.sent < limit, "there is no limit but the deadline"


@pytest.mark.parametrize("how", [SILENCE, RESET, CLOSED], ids=str)
def test_a_whois_server_that_says_nothing_is_reported(set_deadline, how):
    set_deadline("/whois")
    with Whois(how) as server, within(SHORT_SECONDS + LEEWAY):
        whois(server)
        until(lambda: server.peers)


def test_a_whois_server_that_isnt_there_is_reported():
    with within(LEEWAY):
        refusal("/whois", "example.com", WHOIS_SERVER=f"127.0.0.1:{net.closed_port()}", **ALLOWED)


@pytest.mark.parametrize("how", [SILENCE, RESET, CLOSED], ids=str)
def test_when_the_registrar_doesnt_answer_what_the_registry_said_is_shown(set_deadline, how):
    set_deadline("/whois", 0.6)
    with chained("Registrar: The First\nrefer: {next}\n", how) as servers, within(0.6 + LEEWAY):
        answer = whois(servers[0])
        assert servers[1].peers and "The First" in answer and servers[1].name in answer
        assert re.match("`127.0.0.1`\n`127.0.0.1` doesn't answer: .", answer)


def test_the_deadline_is_for_the_whole_chain(set_deadline):
    set_deadline("/whois", 0.7)
    with Whois(after(0.4, "Registrar: Four\n")) as four, \
            Whois(after(0.4, f"refer: {four.name}\n")) as three, \
            Whois(after(0.4, f"refer: {three.name}\n")) as two, \
            Whois(after(0.4, f"Registrar: One\nrefer: {two.name}\n")) as one, within(0.7 + LEEWAY):
        whois(one)
        assert not three.peers


# ---- /openssl

class Site:
    """A TLS server of the tests, made when first asked for."""

    def __init__(self, host, words, leaf, chain, issuer, **more):
        self.host, self.words, self.leaf, self.chain = host, words, leaf, chain
        self.issuer, self.more = issuer, more


def sites(authority):
    """All certificates there are: the root, and a `Site` by name."""
    ca = functools.partial(authority.make, names=(), extensions=net.AUTHORITY, own_key=True)
    root = ca("root", subject="/O=Tests/CN=Test Root")
    inter = ca("inter", root, "/O=Tests & <!channel>/CN=Test Intermediate")
    old = ca("old", root, "/CN=Old Intermediate", ends=net.NOW - days(1))
    foreign_root = ca("foreign", subject="/CN=Foreign Root")
    foreign = ca("foreign-inter", foreign_root, "/CN=Foreign Intermediate")
    leaf = functools.partial(authority.make, issuer=inter)
    made = {}

    def site(name, words, host="localhost", issuer=inter, chain=None, certificate=None, more=(),
             **fields):
        certificate = certificate or leaf(name, issuer=issuer, **fields)
        made[name] = Site(host, words, certificate, [certificate] + (
            [issuer] if chain is None else chain), issuer, **dict(more))
        return certificate

    good = site("good", "ok", names=("DNS:localhost", "DNS:other.example", "IP:127.0.0.1"))
    site("good, by address", "ok", "127.0.0.1", certificate=good)
    site("TLS 1.2", "ok", certificate=good, more={"prepare": only_tls_1_2})
    site("client certificate", "ok", certificate=good, more={"prepare": client_certificate})
    site("no key identifiers", "ok", extensions=[
        text for text in net.LEAF if "KeyIdentifier" not in text])
    site("common name only", None, names=(), subject="/CN=localhost")
    site("wildcard", "ok", "www.wild.example", names=["DNS:*.wild.example"])
    wild = made["wildcard"].leaf
    site("wildcard, two labels", "hostname mismatch", "a.b.wild.example", certificate=wild)
    site("wildcard, no label", "hostname mismatch", "wild.example", certificate=wild)
    site("unicode", "ok", "bücher.example", names=["DNS:xn--bcher-kva.example"])
    site("expired", "certificate has expired", begins=net.NOW - days(100),
         ends=net.NOW - days(2, hours=1))
    site("not yet valid", "certificate is not yet valid", begins=net.NOW + days(5))
    site("self-signed", "self-signed certificate", issuer=None, chain=[])
    site("wrong name", "hostname mismatch", names=["DNS:other.example", "DNS:xlocalhost"])
    site("wrong address", "IP address mismatch", "127.0.0.1", names=["IP:192.0.2.1"])
    site("name for an address", "IP address mismatch", "127.0.0.1", names=["DNS:localhost"])
    site("incomplete chain", "unable to get local issuer certificate", certificate=good, chain=[])
    site("unknown issuer", "unable to get local issuer certificate", issuer=foreign)
    site("unknown root, shown", "self-signed certificate in certificate chain",
         certificate=made["unknown issuer"].leaf, issuer=foreign, chain=[foreign, foreign_root])
    site("expired and wrong name", None, names=["DNS:other.example"], begins=net.NOW - days(9),
         ends=net.NOW - days(2))
    site("expired intermediate", "certificate has expired", issuer=old)
    site("wrong purpose", "unsuitable certificate purpose", extensions=[
        text.replace("serverAuth", "clientAuth") for text in net.LEAF])
    site("issuer that is no authority", "invalid CA certificate", issuer=good, chain=[good, inter])
    site("broken signature", "certificate signature failure", certificate=net.broken(good))
    site("name of a directory", "ok", names=(), extensions=[
        *net.LEAF, "subjectAltName=DNS:localhost,dirName:dir", "[dir]", "CN=Somebody"])
    site("nine days", "ok", ends=net.NOW + days(10, hours=-1))
    site("no day", "ok", ends=net.NOW + days(0, hours=23))
    site("hundreds of names", "ok", names=["DNS:localhost", *(
        f"DNS:a-rather-long-name-{number}.subdomain.example" for number in range(500))])
    site("hostile", "self-signed certificate", issuer=None, chain=[], names=[
        "DNS:localhost", "DNS:```<!channel>", "DNS:*bold*"], subject="/O=```<!here>/CN=```&<@U1>")
    return root, made


def only_tls_1_2(context):
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def client_certificate(context):
    context.verify_mode = ssl.CERT_REQUIRED


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if not net.tool("openssl"):
        pytest.skip("Debian's package openssl isn't here")
    return sites(net.Authority(tmp_path_factory.mktemp("certificates")))


@pytest.fixture(scope="module")
def servers(certificates):
    """A function that gives the `TLS` server of a site, which is started when first asked for."""
    with contextlib.ExitStack() as stack:
        @functools.cache
        def start(name):
            one = certificates[1][name]
            return stack.enter_context(net.TLS(*one.chain, **one.more))
        yield start


@pytest.fixture
def trust(certificates, monkeypatch, directory):
    """The tests' root is the one that the machine trusts; the sites, by name."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates[0].path))
    for name in ("www.wild.example", "a.b.wild.example", "wild.example", "xn--bcher-kva.example"):
        directory.known[name] = ["127.0.0.1"]
    return certificates[1]


def openssl(host, leave=True):
    return outcome("/openssl", host, **(ALLOWED if leave else {}))


def verdict(answer):
    """The first line of an answer: who, and why it doesn't hold (None: it does)."""
    first = slackbot.unescape(answer.split("\n")[0])
    found = re.fullmatch(r"(\S+) (?:holds|doesn't hold: (\S.*))", first)
    assert found, f"not a verdict: {first}"
    return found[1], found[2]


def same(text):
    """*text* as openssl 1 and 3 would both have it."""
    return text.lower().replace("-", " ")


def tells_date(text, moment):
    """Whether the day of *moment* stands in *text*, as ISO or openssl write it."""
    return f"{moment:%Y-%m-%d}" in text or re.search(
        f"{moment:%b} +{moment.day} .*{moment.year}", text)


def check_details(answer, site, server):
    """Everything that an answer says of a certificate, whether it holds or not."""
    text, leaf = slackbot.unescape(answer), site.leaf
    shown = must_list(leaf)
    assert [name for name in shown[:10] if name not in text] == []
    issuer = {"foreign-inter": "Foreign Intermediate", "inter": "Test Intermediate",
              "old": "Old Intermediate"}.get(site.issuer and site.issuer.path.stem)
    assert (issuer or leaf.path.stem) in text
    assert tells_date(text, leaf.begins) and tells_date(text, leaf.ends)
    assert leaf.fingerprint.replace(":", "") in text.replace(":", "").upper()
    cipher, protocol = server.shaken()
    assert cipher in text and re.search(protocol.replace("v", " ?v?"), text, re.IGNORECASE)


def must_list(certificate):
    """The alternative names of a certificate, as the openssl tool tells them."""
    said = net.openssl("x509", "-in", str(certificate.path), "-noout", "-ext",
                       "subjectAltName").stdout.partition("\n")[2]
    return re.findall(r"(?:DNS|IP Address):([^,\n]*)", said)


SITES = ["good", "good, by address", "TLS 1.2", "client certificate", "no key identifiers",
         "common name only", "wildcard", "wildcard, two labels", "wildcard, no label", "expired",
         "not yet valid", "self-signed", "wrong name", "wrong address", "name for an address",
         "incomplete chain", "unknown issuer", "unknown root, shown", "expired and wrong name",
         "expired intermediate", "wrong purpose", "issuer that is no authority",
         "broken signature", "nine days", "no day", "unicode", "name of a directory"]


@pytest.mark.parametrize("name", SITES)
def test_the_verdict_is_that_of_s_client(certificates, trust, servers, name):
    site, server = trust[name], servers(name)
    theirs = net.s_client(site.host.encode("idna").decode(), server.port, certificates[0].path,
                          "127.0.0.1")
    assert theirs and same(site.words or theirs) in same(theirs), "the certificate isn't as meant"
    answer = ask("/openssl", f"{site.host}:{server.port}", **ALLOWED)
    who, why = verdict(answer)
    assert who in (f"{site.host}:{server.port}", f"xn--bcher-kva.example:{server.port}")
    assert why is None if theirs == "ok" else why and same(theirs) in same(why)


@pytest.mark.parametrize("name", [name for name in SITES if name not in (
    "issuer that is no authority", "client certificate")])
def test_the_details_are_shown_whether_it_holds_or_not(trust, servers, name):
    site, server = trust[name], servers(name)
    server.ciphers.clear()
    answer = ask("/openssl", f"{site.host}:{server.port}", **ALLOWED)
    check_details(answer, site, server)


@pytest.mark.parametrize("name, left", [("good", 90), ("wrong name", 90), ("unknown issuer", 90),
                                        ("nine days", 9), ("no day", 0)])
def test_the_days_that_are_left_are_rounded_down(trust, servers, name, left):
    answer = openssl(f"localhost:{servers(name).port}")
    assert re.search(rf"(?<![\d.]){left} days", answer)


def test_each_fault_of_a_certificate_has_a_reason_of_its_own(trust, servers):
    names = ["expired", "not yet valid", "self-signed", "wrong name", "unknown issuer"]
    reasons = [verdict(openssl(f"localhost:{servers(name).port}"))[1] for name in names]
    assert len(set(reasons)) == len(names)
    assert not any(re.search(r"_ssl\.c|CERTIFICATE_VERIFY_FAILED|\[SSL", why) for why in reasons)


def test_the_server_is_told_the_name_in_each_handshake(trust, certificates):
    sites_ = certificates[1]
    with net.TLS(*sites_["good"].chain, sni={"localhost": sites_["expired"].chain}) as server:
        answer = openssl(f"localhost:{server.port}")
        assert set(server.names) == {"localhost"}
    assert "expired" in verdict(answer)[1]
    assert sites_["expired"].leaf.fingerprint.replace(":", "") in answer.replace(":", "").upper()


@pytest.mark.parametrize("name, words", [("good", None), ("wrong name", "hostname mismatch")])
def test_a_dot_at_the_end_of_a_name_changes_nothing_of_the_verdict(trust, servers, name, words):
    server = servers(name)
    server.names.clear()
    answer = openssl(f"localhost.:{server.port}")
    assert set(server.names) == {"localhost"}
    said = verdict(answer)[1]
    assert said is None if words is None else words in said.lower()
    assert "Names:" in answer


@pytest.mark.parametrize("directory_for_files", ["missing", "read-only", "a file"])
def test_a_verdict_needs_no_directory_for_temporary_files(
        trust, servers, monkeypatch, tmp_path, directory_for_files):
    def no_file(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    place = {"missing": tmp_path / "missing", "a file": __file__}.get(directory_for_files)
    monkeypatch.setattr(tempfile, "tempdir", str(place) if place else None)
    if not place:
        for function in ("mkstemp", "mkdtemp", "_get_default_tempdir"):
            monkeypatch.setattr(tempfile, function, no_file)
    answer = openssl(f"localhost:{servers('good').port}")
    assert verdict(answer)[1] is None and "Names:" in answer and "SHA-256:" in answer


def test_nothing_is_sent_to_the_server_but_the_handshake(trust, servers):
    server = servers("good")
    openssl(f"localhost:{server.port}")
    time.sleep(0.05)
    assert server.heard == []


def test_hundreds_of_names_are_clipped_and_it_says_so(trust, servers):
    answer = ask("/openssl", f"localhost:{servers('hundreds of names').port}", **ALLOWED)
    assert verdict(answer)[1] is None and CLIPPED.search(answer)
    assert trust["hundreds of names"].leaf.fingerprint.replace(":", "") in answer.replace(
        ":", "").upper()


def test_what_a_certificate_says_stays_text(trust, servers):
    answer = ask("/openssl", f"localhost:{servers('hostile').port}", **ALLOWED)
    assert same("self-signed certificate") in same(verdict(answer)[1])
    assert trust["hostile"].leaf.fingerprint.replace(":", "") in answer.replace(":", "").upper()


NO_TLS = {  # a server that isn't a TLS server; words that must be among those for the user
    "a banner": (b"SSH-2.0-OpenSSH_9.2\r\n", "TLS|SSL"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "TLS|SSL"),
    "one byte": (b"\x15", "TLS|SSL|clos|answer|seconds|time"),
    "garbage": (GARBAGE, "TLS|SSL"), "a close": (CLOSED, "TLS|SSL|clos"),
    "a reset": (RESET, "TLS|SSL|clos|reset|broke"),
    "an alert": (b"\x15\x03\x03\0\2\2\x28", "TLS|SSL|alert|refus"),
    "silence": (SILENCE, "time|second|silen|answer"),
    "a drip": (drip(b"\x16\x03\x03\x3f\xff\x02\0\x3f\xfb"), "time|second|silen|answer|TLS|SSL"),
    "no end": (endless(b"\x16\x03\x03\0\0"), "time|second|silen|answer|TLS|SSL")}


@pytest.mark.parametrize("how, words", NO_TLS.values(), ids=NO_TLS)
def test_a_server_without_tls_doesnt_hold_and_clear_words_say_why(set_deadline, trust, how, words):
    seconds = SHORT_SECONDS if words.startswith("time") else 5
    set_deadline("/openssl", seconds)
    with Plain(how) as server, within(seconds + LEEWAY):
        answer = openssl(f"localhost:{server.port}")
        until(lambda: server.peers)
    check_no(answer, words)


def check_no(answer, words):
    """That *answer* is a no, as a verdict or an error, and clear."""
    clear(answer)
    assert not re.match(r"\S+ holds", answer) and re.search(words, answer, re.IGNORECASE)


def test_a_closed_port_doesnt_hold(trust):
    port = net.closed_port()
    with within(LEEWAY):
        answer = openssl(f"localhost:{port}")
    check_no(answer, "refused|closed|connect|listen")
    assert f"localhost:{port}" in answer


def test_a_protocol_that_is_too_old_doesnt_hold(trust):
    def old(context):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning), net.TLS(*trust["good"].chain, prepare=old) as server:
        check_no(openssl(f"localhost:{server.port}"), "protocol|version|TLS|SSL")


def test_a_server_that_wants_a_client_certificate_is_checked_or_reported(trust):
    def prepare(context):
        only_tls_1_2(context)
        client_certificate(context)
    with net.TLS(*trust["good"].chain, prepare=prepare) as server:
        answer = openssl(f"localhost:{server.port}")
    if not re.match(r"\S+ holds\n", answer):
        check_no(answer, "certificate|handshake|alert|TLS|SSL")


@pytest.mark.parametrize("way", [SILENCE, RESET, CLOSED, b"220 hello\r\n"], ids=str)
def test_when_the_second_handshake_fails_the_certificate_never_holds(set_deadline, trust, way):
    set_deadline("/openssl", 0.5)
    with net.TLS(*trust["expired"].chain, ways=[None] + [way] * 9) as server, within(0.5 + LEEWAY):
        answer = openssl(f"localhost:{server.port}")
    check_no(answer.split("\n")[0], ".")


def test_an_unknown_name_is_reported(trust, directory):
    answer = openssl("none.example:443")
    clear(answer)
    assert "none.example" in answer and directory.looked_up == ["none.example"]


def test_the_port_is_443_unless_told(set_deadline, trust, directory, monkeypatch):
    set_deadline("/openssl")
    connected, connect = [], socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda sock, address: connected.append(
        address[:2]) or connect(sock, ("127.0.0.1", net.closed_port())))
    assert "localhost:443" in openssl("localhost")
    assert connected and set(connected) == {("127.0.0.1", 443)}


@pytest.mark.parametrize("host", [
    "localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]",
    "[::ffff:127.0.0.1]", "router.example", "both.example", "LOCALHOST"])
def test_a_private_address_is_refused_and_not_connected_to(directory, trust, servers, host):
    directory.known["router.example"] = ["127.0.0.1"]
    directory.known["both.example"] = ["127.0.0.1", "10.0.0.1"]
    server = servers("good")
    before = server.peers
    words = refusal("/openssl", f"{host}:{server.port}")
    assert server.peers == before and LOCAL.search(words)


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_every_address_of_a_name_is_checked(directory, one_is_public, trust, addresses):
    directory.known["both.example"] = addresses
    with net.TLS(*trust["good"].chain, host="127.0.0.2") as router:
        openssl(f"both.example:{router.port}", leave=False)
        assert not router.peers


@pytest.mark.parametrize("name", ["good", "expired"])
def test_a_name_is_looked_up_once_and_that_address_is_the_one(
        directory, one_is_public, trust, name):
    directory.known["moving.example"] = itertools.chain(
        [["127.0.0.1"]], itertools.repeat(["127.0.0.2"]))
    with net.TLS(*trust[name].chain) as server, \
            socket.create_server(("127.0.0.2", server.port)) as router:
        router.settimeout(0)
        answer = openssl(f"moving.example:{server.port}", leave=False)
        with pytest.raises(BlockingIOError):
            router.accept()
    assert "hostname mismatch" in verdict(answer)[1].lower()
    assert directory.looked_up == ["moving.example"]


@pytest.mark.parametrize("command", ["/whois", "/openssl"])
def test_a_server_that_accepts_no_connection_times_out(set_deadline, directory, command):
    set_deadline(command)
    with net.full() as name, within(SHORT_SECONDS + LEEWAY):
        words = {"/whois": ["example.com"], "/openssl": [name]}[command]
        clear(outcome(command, *words, WHOIS_SERVER=name, **ALLOWED))


@pytest.mark.parametrize("command", ["/whois", "/openssl"])
def test_a_look_up_that_takes_too_long_times_out(set_deadline, directory, command):
    set_deadline(command)
    over = threading.Event()
    directory.known["slow.example"] = (over.wait(PATIENCE) and ["127.0.0.1"] for _ in range(2))
    with within(SHORT_SECONDS + LEEWAY):
        words = {"/whois": ["example.com"], "/openssl": ["slow.example:443"]}[command]
        clear(outcome(command, *words, WHOIS_SERVER="slow.example", **ALLOWED))
    over.set()


def test_an_address_that_accepts_connections_is_found_among_others_that_dont(
        directory, trust, servers):
    directory.known["both.example"] = ["127.0.0.3", "127.0.0.1"]
    assert "hostname mismatch" in verdict(openssl(f"both.example:{servers('good').port}"))[
        1].lower()


@pytest.mark.parametrize("host", [
    "", " ", "-connect", "--help", "a b", "a b:443", "localhost:0", "localhost:65536",
    "localhost:99999", "localhost:abc", "localhost:-1", "localhost:+443", "localhost: 443",
    "localhost:４４３", "localhost:" + "9" * 5000, "localhost:443:443", ":443", "a\r\nb", "a\x00b",
    "x" * 300, "x" * 64 + ".example", "a..example", "[::1", "[]:443", "ü" * 64 + ".example",
    "\ud800:443", "a\u2028b", "/etc/passwd", "@localhost", "<!channel>", "ü" * 100_000],
    ids=lambda text: ascii(text[:25]))
def test_an_invalid_host_is_refused_before_it_is_looked_up(directory, host):
    with within(2):
        refusal("/openssl", host, **ALLOWED)
    assert directory.looked_up == []


# ---- how much work an answer is

PIECES = [(1, 12_000), (7, 100_000), (4096, 30_000)]  # (bytes that come at once, bytes in all)


@pytest.mark.parametrize("piece, size", PIECES)
def test_the_work_of_receiving_is_in_proportion_to_the_bytes(piece, size):
    def receive(data):
        sock = net.PiecesSocket(data, piece)
        assert slackbot.receive(sock, len(data), time.monotonic() + 60) == data

    net.check_growth(receive, b"a" * size, b"a" * 16 * size)


class Truncated(net.PiecesSocket):
    """In the place of a UDP socket: the answer to each question is that it is too long."""

    def __init__(self, family, kind):
        pass

    def connect(self, address):
        pass

    def send(self, question):
        header = question[:2] + b"\x82" + question[3:]  # QR, TC
        self.answer = header

    def recv(self, limit):
        return self.answer


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_the_work_of_an_answer_by_tcp_is_in_proportion_to_the_bytes(monkeypatch, piece):
    query = dns_question("www.example.com", 1, 7)

    def ask_by_tcp(data):
        monkeypatch.setattr(slackbot, "connect", lambda *_: net.PiecesSocket(data, piece))
        assert slackbot.dns_ask(("127.0.0.1", 53), query, time.monotonic() + 60) == data[2:]

    def answer(size):
        return framed(message(7, query[12:], [record(65280, bytes(size))]))

    monkeypatch.setattr(slackbot.socket, "socket", Truncated)
    net.check_growth(ask_by_tcp, answer(4_000), answer(64_000))


@pytest.mark.parametrize("piece, line", [
    (1, "remarks: {}\n"), (7, "remarks: {}\n"), *((4096, line) for line in (
        "remarks: {}\n", "Name Server: {}\n", "Name Server: a\n", "registrar ", "refer: a", " "))])
def test_the_work_of_a_whois_answer_is_in_proportion_to_the_bytes(monkeypatch, piece, line):
    request = slackbot.Request(bot=types.SimpleNamespace(config=slackbot.Config(ALLOWED)))

    def ask_whois(data):
        monkeypatch.setattr(slackbot, "connect", lambda *_: net.PiecesSocket(data, piece))
        slackbot.whois(request, "example.com")

    def answer(size):
        lines = (line.replace("{}", f"{number:06}") for number in itertools.count())
        text = "".join(itertools.islice(lines, size // len(line)))
        return f"{text}\nrefer: whois.iana.org\n"[-size:].encode()

    monkeypatch.setattr(slackbot, "resolve_public", lambda *_: [("192.0.2.1", 43)])
    net.check_growth(ask_whois, answer(15_000), answer(240_000))


MANY = {
    "addresses": [ADDRESS], "empty": [record(65280, b"")], "texts": [record("TXT", strings(b"a"))],
    "long names": [record("NS", pointer(12), name=labels("a.b.c.d.e.f.g.h"))],
    "of every kind": [record(65280, b"a"), record("MX", b"\0\1" + pointer(12)),
                      record("CAA", b"\0\5issuea"), record("AAAA", bytes(16))]}


@pytest.mark.parametrize("section", ["answer", "authority"])
@pytest.mark.parametrize("what", MANY)
def test_the_work_of_showing_many_records_is_in_proportion_to_the_bytes(what, section):
    def answer(size):
        records = MANY[what] * (size // len(b"".join(MANY[what])))
        return message(1, question("www.example.com"), **{section: records})

    net.check_growth(lambda data: survives(data) or pytest.fail(), answer(4_000), answer(64_000))


def test_the_work_of_showing_many_questions_is_in_proportion_to_the_bytes():
    def answer(size):
        count = size // len(question("a.b"))
        return message(1, question("a.b") * count, counts=(count, 0, 0, 0))

    net.check_growth(lambda data: survives(data) or pytest.fail(), answer(4_000), answer(64_000))


# ---- in the terminal

def test_dig_works_in_the_terminal():
    with nameserver(ADDRESS, record("TXT", strings(b"<b> & `c`"))) as server:
        done = terminal("/dig", "www.example.com", "txt", DNS_SERVER=server.address)
    assert done.returncode == 0 and '"<b> & ' in done.stdout, done.stderr
    assert re.search(r"^;; ANSWER SECTION:$", done.stdout, re.M)


def test_whois_works_in_the_terminal():
    with chained("refer: {next}\n", "Registrar: Reg & <Sons>\n") as servers_:
        done = terminal("/whois", "example.com", WHOIS_SERVER=servers_[0].name, **ALLOWED)
        refused = terminal("/whois", "example.com", WHOIS_SERVER=servers_[0].name)
        assert servers_[0].peers == 1
    assert done.returncode == 0 and "Reg & <Sons>" in done.stdout, done.stderr
    assert refused.returncode == 1 and LOCAL.search(refused.stdout)


def test_openssl_works_in_the_terminal(certificates, servers):
    host, root = f"127.0.0.1:{servers('good').port}", str(certificates[0].path)
    done = terminal("/openssl", host, SSL_CERT_FILE=root, **ALLOWED)
    assert done.returncode == 0 and done.stdout.startswith(f"{host} holds\n"), done.stderr
    host = f"127.0.0.1:{servers('name for an address').port}"
    done = terminal("/openssl", host, SSL_CERT_FILE=root, **ALLOWED)
    assert done.returncode == 0 and done.stdout.startswith(f"{host} doesn't hold: ")


def test_the_usage_lines_are_those_of_the_design():
    assert [slackbot.commands[name].usage for name in SECONDS] == [
        "/dig NAME [TYPE]", "/whois NAME", "/openssl HOST[:PORT]"]


def test_a_refusal_that_is_a_header_alone_answers_the_question():
    question = slackbot.dns_question("a.example", 1, 7)
    refusal = question[:2] + b"\x81\x05" + bytes(8)
    assert slackbot.is_answer(refusal, question)
    assert not slackbot.is_answer(b"\0\0" + refusal[2:], question)


def test_a_name_that_is_not_looked_up_in_time_is_told_so(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(slackbot, "look_up", lambda *_: ended.wait(10) and [])
    with pytest.raises(slackbot.FetchError, match="no answer in time"):
        slackbot.fetch("https://slack.example/", seconds=0.05)
    ended.set()
