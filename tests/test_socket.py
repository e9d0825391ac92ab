"""Socket Mode: the frames of RFC 6455, and the envelopes that Slack sends in them."""

import collections
import concurrent.futures
import contextlib
import fcntl
import itertools
import json
import queue
import random
import re
import signal
import socket
import sys
import termios
import time
import types

import pytest

import fakes
import network_fakes
import slackbot
import socket_fakes
from api_fakes import accepted, check_log, finish, until
from fakes import PATIENCE, SOON_OVER
from socket_fakes import (APP_TOKEN, BINARY, BOT_TOKEN, CHANNEL, CLOSE, LIMIT, ME, MORE, MY_BOT,
                          PING, PONG, TEXT, USER, direct, encode, envelope, event, disconnect,
                          mention, press, slash)

KEY = b"\x37\xfa\x21\x3d"  # of RFC 6455's examples, 5.7
LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 200_000)


# ---- frames

def read(*chunks):
    """The messages that a reader of its own makes of *chunks*."""
    reader = slackbot.FrameReader()
    return [(opcode, bytes(payload)) for chunk in chunks for opcode, payload in reader.feed(chunk)]


def bytewise(data):
    return [data[number:number + 1] for number in range(len(data))]


def code(number, reason=b""):
    """The payload of a close frame."""
    return number.to_bytes(2, "big") + reason


@pytest.mark.parametrize("data, messages", [
    (b"\x81\x05Hello", [(TEXT, b"Hello")]),
    (b"\x01\x03Hel\x80\x02lo", [(TEXT, b"Hello")]),
    (b"\x89\x05Hello", [(PING, b"Hello")]),
    (b"\x8a\x05Hello", [(PONG, b"Hello")]),
    (b"\x82\x7e\x01\x00" + bytes(256), [(BINARY, bytes(256))]),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), [(BINARY, bytes(65536))]),
])
def test_the_examples_of_the_rfc_are_understood(data, messages):
    assert read(data) == messages


def test_the_masked_example_of_the_rfc_is_sent():
    frame = slackbot.encode_frame(TEXT, b"Hello", KEY)
    assert frame == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"


def test_the_key_of_the_rfc_is_accepted():
    accept = slackbot.websocket_key_accept("dGhlIHNhbXBsZSBub25jZQ==")
    assert accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_any_length_is_read_at_once_and_byte_by_byte(opcode, length):
    payload = random.Random(length).randbytes(length) if opcode == BINARY else b"a" * length
    data = encode(opcode, payload)
    assert read(data) == [(opcode, payload)]
    assert read(*bytewise(data[:70_000]), data[70_000:]) == [(opcode, payload)]
    assert read(data[:-1]) == []


@pytest.mark.parametrize("length", LENGTHS)
def test_a_frame_of_ours_is_final_masked_and_as_short_as_can_be(length):
    payload = random.Random(length).randbytes(length)
    data = slackbot.encode_frame(BINARY, payload)
    frame, end = socket_fakes.decode(data)
    assert end == len(data)
    assert frame == socket_fakes.Frame(1, 0, BINARY, True, length, True, payload)
    assert slackbot.encode_frame(BINARY, payload, KEY) == encode(BINARY, payload, key=KEY)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_every_kind_of_frame_is_encoded(opcode):
    assert slackbot.encode_frame(opcode, b"\x03\xe8", KEY) == encode(opcode, b"\x03\xe8", key=KEY)


def test_each_frame_has_a_mask_of_its_own():
    masks = {slackbot.encode_frame(TEXT, b"Hello")[2:6] for _ in range(100)}
    assert len(masks) == 100


def test_control_frames_between_fragments_are_read_in_their_place():
    data = (encode(TEXT, b"One, ", final=False) + encode(PING, b"a") + encode(MORE, final=False)
            + encode(PONG, b"b") + encode(MORE, b"two", final=False) + encode(PING)
            + encode(MORE, b".") + encode(TEXT, b"next") + encode(CLOSE, code(1000, b"bye")))
    messages = [(PING, b"a"), (PONG, b"b"), (PING, b""), (TEXT, b"One, two."), (TEXT, b"next"),
                (CLOSE, code(1000, b"bye"))]
    assert read(data) == messages
    assert read(*bytewise(data)) == messages


def test_a_character_may_be_cut_in_two_by_fragments():
    data = "né 🚀".encode()
    for end in range(len(data) + 1):
        parts = encode(TEXT, data[:end], final=False) + encode(MORE, data[end:])
        assert read(parts) == [(TEXT, data)]


def test_a_thousand_frames_in_one_piece_are_read_in_order():
    payloads = [str(number).encode() for number in range(1000)]
    data = b"".join(encode(TEXT, payload) for payload in payloads)
    assert read(data) == [(TEXT, payload) for payload in payloads]


def test_an_empty_piece_changes_nothing():
    assert read(b"", b"\x81", b"", b"\x00", b"") == [(TEXT, b"")]


@pytest.mark.parametrize("number", [1000, 1001, 1014, 4999, 0, 65535])
def test_a_close_frame_may_have_a_code_and_a_reason(number):
    for payload in (code(number), code(number, "für immer".encode()), code(number, b"a" * 123)):
        assert read(encode(CLOSE, payload)) == [(CLOSE, payload)]


def test_a_close_frame_may_be_empty():
    assert read(encode(CLOSE)) == [(CLOSE, b"")]


def test_the_largest_message_is_read_whole_and_in_fragments():
    assert slackbot.SOCKET_BYTES == LIMIT
    payload = b"a" * LIMIT
    assert read(encode(TEXT, payload)) == [(TEXT, payload)]
    half = LIMIT // 2
    assert read(encode(TEXT, payload[:half], final=False),
                encode(MORE, payload[half:])) == [(TEXT, payload)]


BAD = {  # what a server mustn't send: the bytes
    **{f"reserved bit {bit}": encode(TEXT, b"a", reserved=bit) for bit in (1, 2, 4, 7)},
    "reserved bit of a ping": encode(PING, b"a", reserved=4),
    "reserved bit of a fragment": encode(TEXT, b"a", final=False) + encode(MORE, b"", reserved=4),
    **{f"opcode {opcode}": encode(opcode, b"a") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "masked text": encode(TEXT, b"a", key=KEY),
    "masked ping": encode(PING, b"a", key=KEY),
    "masked and empty": encode(TEXT, b"", key=KEY),
    "ping in fragments": encode(PING, b"a", final=False),
    "pong in fragments": encode(PONG, b"a", final=False),
    "close in fragments": encode(CLOSE, code(1000), final=False),
    "ping of 126 bytes": encode(PING, b"a" * 126),
    "pong of 126 bytes": encode(PONG, b"a" * 126),
    "close of 126 bytes": encode(CLOSE, code(1000, b"a" * 124)),
    "ping of 65,536 bytes": encode(PING, b"a" * 65536),
    "rest without a beginning": encode(MORE, b"a"),
    "middle without a beginning": encode(MORE, b"a", final=False),
    "rest after the end": encode(TEXT, b"a") + encode(MORE, b"a"),
    "rest after the last rest": encode(TEXT, b"a", final=False) + encode(MORE) + encode(MORE),
    "text within text": encode(TEXT, b"a", final=False) + encode(TEXT, b"b"),
    "binary within text": encode(TEXT, b"a", final=False) + encode(BINARY, b"b", final=False),
    "length with the top bit": encode(TEXT, announced=1 << 63),
    "length of all bits": encode(BINARY, announced=(1 << 64) - 1),
    "one byte too many": encode(TEXT, b"a" * (LIMIT + 1)),
    "one byte too many announced": encode(TEXT, announced=LIMIT + 1),
    "binary of 1 TB announced": encode(BINARY, announced=1 << 40),
    "one byte too many in fragments": encode(TEXT, b"a" * LIMIT, False) + encode(MORE, b"a"),
    "one byte too many announced in fragments":
        encode(TEXT, b"a" * 10, final=False) + encode(MORE, announced=LIMIT - 9),
}


@pytest.mark.parametrize("name", BAD)
def test_a_frame_that_a_server_must_not_send_is_an_error(name):
    assert issubclass(slackbot.WebSocketError, ConnectionError)
    with pytest.raises(slackbot.WebSocketError):
        read(BAD[name])
    if len(BAD[name]) < 1000:
        with pytest.raises(slackbot.WebSocketError):
            read(*bytewise(BAD[name]))


def test_messages_before_an_error_are_read():
    reader = slackbot.FrameReader()
    assert [*reader.feed(encode(TEXT, b"right"))] == [(TEXT, b"right")]
    with pytest.raises(slackbot.WebSocketError):
        [*reader.feed(encode(MORE, b"wrong"))]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_may_hold_any_bytes(opcode):
    assert read(encode(opcode, b"a\xff", final=False), encode(MORE, b"\xed")) == \
        [(opcode, b"a\xff\xed")]


def test_a_reader_holds_no_more_than_one_message():
    reader, message = slackbot.FrameReader(), encode(TEXT, b"a" * 100_000)
    for _ in range(100):
        assert len([*reader.feed(message)]) == 1
    held = [value for value in vars(reader).values() if isinstance(value, (bytes, bytearray))]
    assert sum(map(len, held)) <= 100_100


# Streams as long as a size says, in which a reader could look at bytes, or copy them, again.
STREAMS = {
    "one frame": lambda size: encode(TEXT, b"a" * size),
    "frames": lambda size: encode(TEXT, b"a" * 50) * (size // 52),
    "fragments": lambda size: (
        encode(TEXT, b"a", final=False) + encode(MORE, b"a" * 50, final=False) * (size // 52)
        + encode(MORE)),
    "empty fragments": lambda size: (
        encode(TEXT, b"a", final=False) + encode(MORE, final=False) * (size // 26)
        + encode(MORE))}


@pytest.mark.parametrize("stream, piece, size", [
    *[(stream, piece, size) for stream in STREAMS
      for piece, size in ((1, 12_000), (7, 100_000), (4096, 60_000))],
    *[(stream, LIMIT, 60_000) for stream in STREAMS if stream != "one frame"]])
def test_the_work_of_a_reader_is_in_proportion_to_the_bytes(stream, piece, size):
    def read_all(data):
        reader = slackbot.FrameReader()
        for place in range(0, len(data), piece):
            messages = [*reader.feed(data[place:place + piece])]
        assert messages

    make = STREAMS[stream]
    network_fakes.check_growth(read_all, make(size), make(16 * size))


def test_the_work_of_encoding_a_frame_is_in_proportion_to_the_bytes():
    network_fakes.check_growth(lambda payload: slackbot.encode_frame(TEXT, payload, KEY),
                         b"a" * 30_000, b"a" * 480_000)


def conversation(chance):
    """Some frames of a server that are right."""
    data = b""
    for _ in range(chance.randrange(1, 5)):
        opcode = chance.choice([TEXT, TEXT, TEXT, BINARY, PING, PONG, CLOSE])
        if opcode in (PING, PONG):
            data += encode(opcode, chance.randbytes(chance.choice([0, 4, 125])))
        elif opcode == CLOSE:
            data += encode(CLOSE, code(chance.choice([1000, 1001, 4000]), b"bye"))
        else:
            payload = "aé🚀".encode() * chance.choice([0, 1, 9, 50])
            ends = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.randrange(3)))
            parts = [payload[start:end] for start, end in
                     zip([0, *ends], [*ends, len(payload)])]
            for number, part in enumerate(parts):
                size = chance.choice([None, None, None, 8])
                data += encode(MORE if number else opcode, part, number == len(ends), size=size)
                if chance.random() < 0.2:
                    data += encode(PING, b"between")
    return data


def mutated(data, chance):
    """*data*, broken in up to four places."""
    data = bytearray(data)
    for _ in range(chance.randrange(5)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[place:place + 1] = bytes([chance.randrange(256)])
            case 1:
                data[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del data[place:place + chance.randrange(1, 9)]
            case 3:
                data[place:place + 1] = bytes([1 << chance.randrange(8) ^ each
                                               for each in data[place:place + 1]])
            case 4:
                data[place:place] = data[:chance.randrange(20)]
            case 5:
                data[place:place + 2] = bytes([chance.choice([1, 0x80, 0x81, 0x88, 0x89, 0x8a]),
                                               chance.choice([0, 1, 2, 125, 126, 127, 128])])
    return bytes(data)


def outcome(chunks):
    """The messages in *chunks*, and whether there was an error."""
    messages, reader = [], slackbot.FrameReader()
    try:
        for chunk in chunks:
            messages += [(opcode, bytes(payload)) for opcode, payload in reader.feed(chunk)]
    except slackbot.WebSocketError:
        return messages, True
    return messages, False


def pieces(data, chance):
    ends = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)])]


def test_another_reader_finds_the_same_in_ten_thousand_mutated_streams():
    chance, tally = random.Random(20261120), collections.Counter()
    for number in range(10_000):
        data = mutated(conversation(chance), chance)
        messages, wrong, is_plain = socket_fakes.verdict(data)
        got, failed = outcome(pieces(data, chance))
        whole, failed_too = outcome([data])
        assert failed == failed_too, data
        assert failed or got == whole, data
        assert not is_plain or failed, (wrong, data)
        assert not failed or wrong, data
        assert failed or got == messages, data
        assert not failed or got == messages[:len(got)], data
        tally[wrong] += 1
    assert tally[""] > 2000 and len(tally) == 8, tally


# ---- Socket Mode

OWN = '''
import pathlib, time
import slackbot
from slackbot import Rest, command


def wait(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)


@command("/echo")
def echo(request, text: Rest = ""):
    return text or "nothing"


@command("/slow")
def slow(request, gate, word):
    wait(gate)
    return word


@command("/then")
def then(request, gate, word):
    yield "first " + word
    wait(gate)
    yield "last " + word


@command("/count")
def count(request, times: int):
    for number in range(times):
        yield f"{number}"


@command("/mark")
def mark(request, path, word, seconds: float = 0):
    with open(path, "a") as marks:
        print(word, file=marks, flush=True)
    time.sleep(seconds)
    return word


@command("/nothing")
def nothing(request):
    """Say nothing."""


@command("/bug")
def bug(request):
    raise RuntimeError("a bug")


@command("/blocks")
def blocks(request):
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "*bold* é"}}
    return {"text": "short", "blocks": [section]}


@command("/who")
def who(request):
    return f"{request.user_id} {request.channel_id} {request.team_id}"


del slackbot.commands["/jira release"]


@command("/jira release")
def release(request, version):
    return "Report of " + version


slackbot.main()
'''
SOON = 0.12  # in which something would have happened


def starter(script, workspace):
    """A function that starts a bot at a *workspace*; with *constants*, like those of a `Bot`."""
    def start(constants=None, **environ):
        return fakes.Bot(script=script, constants={"RECONNECT_SECONDS": 0.05, **(constants or {})},
                         **{"SLACK_APP_TOKEN": APP_TOKEN, "SLACK_BOT_TOKEN": BOT_TOKEN,
                            "SLACK_API_URL": workspace.api_url,
                            "SLACK_HOOKS_ORIGINS": workspace.origin,
                            "SLACKBOT_ACK_SECONDS": 2.5, **environ})
    return start


@pytest.fixture
def workspace():
    """A Slack of the test's own."""
    with socket_fakes.Workspace() as workspace:
        yield workspace
        assert workspace.all_faults() == []


@pytest.fixture
def start(script, workspace):
    """A function that starts a bot at the test's own Slack."""
    return starter(script, workspace)


@pytest.fixture(scope="module")
def shared(script):
    """A Slack and a bot for all tests that leave the connection as it is."""
    with socket_fakes.Workspace() as workspace, starter(script, workspace)() as bot:
        workspace.bot = bot
        workspace.link()
        yield workspace
        check_log(bot)


@pytest.fixture
def slack(shared):
    """The Slack that is shared; after the test, every envelope has its ack and nothing else is
    on the connection, which is still the same."""
    shared.messages.clear()
    link, faults = shared.current(), len(shared.all_faults())
    others = link.unacked()  # not this test's fault
    yield shared
    assert not link.ended, (link.ended, shared.bot.output[-1000:])
    shared.until(lambda: not link.unacked() - others)
    assert shared.all_faults()[faults:] == []


@pytest.fixture
def link(slack):
    return slack.current()


def texts(messages):
    return [message["text"] for message in messages]


def posted(workspace, url):
    """What has been posted to *url*."""
    return texts(post.message for post in workspace.posts[url])


def answers(workspace, link, line, count=1, **fields):
    """The texts that are posted in answer to the slash command *line*, *count* at least."""
    url = workspace.response_url()
    link.ask(slash(line, url, **fields))
    return texts(workspace.wait(url, count))


def check_serves(workspace, link):
    """A connection is still served."""
    assert answers(workspace, link, "/echo still here") == ["still here"]


def healthy(bot):
    assert bot.get("/healthz").status == 200
    return True


def lines_with(bot, word):
    return [line for line in [*bot.lines] if word in line]


def test_slack_is_asked_for_a_connection(shared):
    first, *others = shared.calls
    assert (first.method, first.token) == ("apps.connections.open", APP_TOKEN)
    assert not [call for call in others if call.method == "apps.connections.open"]
    assert not re.search("xapp-|xoxb-|ticket=", shared.bot.output)


# -- slash commands

def test_an_envelope_is_acknowledged_with_nothing_but_its_id(slack, link):
    one = slash("/echo Hello", slack.response_url())
    assert link.ask(one) == {"envelope_id": one["envelope_id"]}


def test_the_answers_to_a_slash_command_are_posted_to_its_response_url_in_order(slack, link, gate):
    url = slack.response_url()
    link.ask(slash("/echo Hello &amp; bye", url))
    assert slack.wait(url) == [{"response_type": "ephemeral", "text": "Hello & bye"}]
    gate.touch()
    assert answers(slack, link, f"/then {gate} a", 2) == ["first a", "last a"]
    assert answers(slack, link, "/count 4", 4) == ["0", "1", "2", "3"]


def test_a_slow_command_is_acknowledged_at_once_and_nothing_but_its_answer_is_posted(
        slack, link, gate):
    url = slack.response_url()
    link.ask(slash(f"/slow {gate} done", url))
    gate.touch()  # not earlier
    slack.wait(url)
    finish(slack.bot)
    assert posted(slack, url) == ["done"]


@pytest.mark.parametrize("line, start", [
    ("/bug", "Sorry, `/bug` failed"), ("/count", "TIMES is missing. Usage:"),
    ("/unheard-of", "There is no `/unheard-of` here."), ("/who", f"{USER} {CHANNEL} T0001"),
    ("/hello it's “me”", "Hello attakei, I received `it's “me”`")])
def test_a_command_has_the_same_answer_as_by_http(slack, link, line, start):
    answer, = answers(slack, link, line)
    assert answer.startswith(start)


def test_a_command_with_nothing_to_say_posts_nothing(slack, link):
    url = slack.response_url()
    link.ask(slash("/nothing", url))
    finish(slack.bot)
    assert slack.posts[url] == []


def test_a_command_without_a_response_url_runs(slack, link, tmp_path):
    link.ask(slash(f"/mark {tmp_path / 'marks'} ran"))
    until(lambda: (tmp_path / "marks").exists() and (tmp_path / "marks").read_text() == "ran\n")


def test_an_envelope_of_another_team_is_acknowledged_and_nothing_runs(workspace, start):
    with start(SLACK_TEAM_ID="TOURS,TOO") as bot:
        link, url = workspace.link(), workspace.response_url()
        for one in (slash("/count 2", url), mention("echo a"), direct("echo a"),
                    press("/echo a", url)):
            link.ask(one)
        assert answers(workspace, link, "/echo ours", team_id="TOURS") == ["ours"]
        until(lambda: bot.get("/healthz").json["done"])
        assert bot.get("/healthz").json["done"] == 1
        assert workspace.posts[url] == workspace.messages == []


def test_nothing_goes_to_a_response_url_that_is_not_slacks(slack, link):
    with fakes.Slack() as elsewhere:
        before = accepted(slack.bot)
        for one in (slash("/count 2", elsewhere.response_url()),
                    press("/echo a", elsewhere.response_url())):
            link.ask(one)
        check_serves(slack, link)
        assert accepted(slack.bot) == before + 1 and elsewhere.seen == []


# -- what comes in over the wire

def test_a_long_message_is_read(slack, link):
    answer, = answers(slack, link, "/echo " + "a" * 200_000)
    assert answer.startswith("a" * 10_000)


def test_a_message_may_come_in_fragments_with_pings_between(slack, link):
    before = len(link.payloads(PONG))
    url = slack.response_url()
    one = slash("/echo fragments é🚀", url)
    data = json.dumps(one, ensure_ascii=False).encode()
    cuts = [0, 1, len(data) // 2, data.index("🚀".encode()) + 2, len(data)]
    link.note(one)
    for number, (begin, end) in enumerate(itertools.pairwise(sorted(cuts))):
        link.frame(MORE if number else TEXT, data[begin:end], final=end == len(data))
        if end < len(data):
            link.frame(PING, b"%d" % number)
    link.ack(one)
    assert texts(slack.wait(url)) == ["fragments é🚀"]
    assert link.payloads(PONG)[before:] == [b"0", b"1", b"2"]


def test_a_message_may_come_byte_by_byte(slack, link):
    url, before = slack.response_url(), len(link.payloads(PING))
    one = slash("/echo slowly", url)
    link.note(one)
    link.pieces(bytewise(encode(TEXT, json.dumps(one).encode())), 0.0001)
    link.ack(one)
    assert texts(slack.wait(url)) == ["slowly"]
    assert len(link.payloads(PING)) - before <= 1, "each piece was answered with a ping"


def test_two_messages_may_come_in_one_piece_and_a_half(slack, link):
    urls = [slack.response_url() for _ in range(3)]
    three = [slash(f"/echo {number}", url) for number, url in enumerate(urls)]
    link.note(*three)
    data = b"".join(encode(TEXT, json.dumps(each).encode()) for each in three)
    link.raw(data[:-100])
    assert [texts(slack.wait(url)) for url in urls[:2]] == [["0"], ["1"]]
    assert link.acks_of(three[2]) == []
    link.raw(data[-100:])
    assert texts(slack.wait(urls[2])) == ["2"]


@pytest.mark.parametrize("payload", [b"", b"Ping from applink", b"\x00\xff" * 62 + b"a"])
def test_a_ping_is_answered_with_its_own_payload(slack, link, payload):
    before = len(link.payloads(PONG))
    link.frame(PING, payload)
    slack.until(lambda: len(link.payloads(PONG)) > before)
    assert link.payloads(PONG)[before:] == [payload]


def test_a_pong_without_a_ping_is_ignored(slack, link):
    link.frame(PONG, b"hello")
    check_serves(slack, link)


@pytest.mark.parametrize("data", [
    b"", b"{", b"nonsense", b"[]", b"null", b"17", b'"text"', b"true", b"NaN", b"{}", b"\x00",
    b"\xff", b'{"type": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000,
    b'{"type":7}', b'{"type":null}',
    b'{"type":"slash_commands"}', b'{"type":["hello"]}', b'{"type":"disconnect"}x',
    b'{"type":"message","text":"\\ud800"}', b'{"reason":"warning"}'],
    ids=lambda data: data[:20].decode(errors="replace") or "empty")
def test_a_message_that_makes_no_sense_is_ignored(slack, link, data):
    link.frame(TEXT, data)
    check_serves(slack, link)


def test_a_binary_message_is_ignored(slack, link):
    link.frame(BINARY, b"\xff\x00")
    check_serves(slack, link)


@pytest.mark.parametrize("value", [
    envelope("something_new", {"a": 1}), envelope("slash_commands", None),
    envelope("slash_commands", []), envelope("slash_commands", {}),
    envelope("slash_commands", {"command": None, "text": 5, "response_url": []}),
    envelope("slash_commands", {"command": ""}), envelope("interactive", "text"),
    envelope("interactive", {"type": "shortcut", "callback_id": "a", "trigger_id": "1.2"}),
    envelope("interactive", {"type": "view_submission", "view": {"id": "V1", "type": "modal"}}),
    envelope("interactive", {"type": "block_actions", "actions": []}),
    envelope("interactive", {"type": "block_actions", "actions": None}),
    envelope("interactive", {"type": "block_actions", "actions": [None], "user": None}),
    envelope("interactive", {"type": "block_actions", "actions": [{"action_id": "run"}]}),
    envelope("events_api", None), envelope("events_api", {"event": None}),
    envelope("events_api", {"event": []}), envelope("events_api", {"event": {"type": None}}),
    envelope("events_api", {"event": {"type": "app_mention"}}),
    envelope("events_api", {"event": {"type": "app_mention", "text": None, "channel": None}}),
    envelope("events_api", {"event": {"type": "message", "channel_type": "im", "text": {}}}),
    event(type="reaction_added", reaction="eyes", item={"type": "message", "channel": CHANNEL}),
    event(type="app_home_opened", tab="home", ts=None), envelope(None, {}), envelope({}, {}),
], ids=lambda value: json.dumps([value["type"], value["payload"]])[:60])
def test_every_envelope_with_an_id_is_acknowledged(slack, link, value):
    link.ask(value)
    check_serves(slack, link)
    assert slack.messages == []


# -- many at once

def test_slow_commands_keep_no_other_command_waiting(slack, link, gate):
    urls = [slack.response_url() for _ in range(5)]
    link.send(*[slash(f"/slow {gate} done", url) for url in urls])
    for _ in range(5):
        assert answers(slack, link, "/echo quick") == ["quick"]
    gate.touch()
    for url in urls:
        assert texts(slack.wait(url)) == ["done"]


def test_a_burst_is_acknowledged_before_its_slow_commands_are_done(slack, link, gate):
    urls = [slack.response_url() for _ in range(320)]
    slow = [slash(f"/slow {gate} {number}", url) for number, url in enumerate(urls[:20])]
    quick = [slash(f"/echo {number}", url) for number, url in enumerate(urls[20:], 20)]
    count = len(link.acks)
    link.send(*slow, *quick)
    slack.until(lambda: len(link.acks) - count >= 320)
    gate.touch()
    for number, url in enumerate(urls):
        assert texts(slack.wait(url)) == [f"{number}"]


def test_posts_that_have_to_wait_keep_no_acknowledgement_waiting(workspace, start):
    busy = fakes.reply(429, {"ok": False, "error": "ratelimited"}, **{"Retry-After": "60"})
    workspace.failures["chat.postMessage"] += [busy] * 10
    with start(SLACKBOT_WORKERS=2, SLACKBOT_QUEUE=2) as bot:
        link = workspace.link()
        for _ in range(2):  # which keep both workers busy
            link.ask(mention("unheard-of"))
        workspace.until(lambda: len(workspace.calls_of("chat.postMessage")) == 2)
        for line in ("/unheard-of", "/slow never a"):
            link.ask(slash(line, workspace.response_url()))
        workspace.until(lambda: bot.get("/healthz").json["waiting"] == 2)
        answer, = answers(workspace, link, "/echo a")
        assert answer == "Too many commands at once, please try again in a minute."


# -- nothing twice

def test_an_envelope_that_comes_again_is_acknowledged_again_and_runs_once(slack, link, tmp_path):
    url = slack.response_url()
    one = slash(f"/mark {tmp_path / 'marks'} once 0.1", url)
    link.send(one, one)
    slack.until(lambda: len(link.acks_of(one)) == 2)
    link.send(one)
    slack.until(lambda: len(link.acks_of(one)) == 3)
    finish(slack.bot)
    assert (tmp_path / "marks").read_text() == "once\n" and posted(slack, url) == ["once"]


def test_two_envelopes_with_the_same_command_run_both(slack, link, tmp_path):
    for _ in range(2):
        assert answers(slack, link, f"/mark {tmp_path / 'marks'} twice") == ["twice"]
    assert (tmp_path / "marks").read_text() == "twice\ntwice\n"


def test_an_event_that_comes_again_in_another_envelope_runs_once(slack, link, tmp_path):
    one = mention(f"mark {tmp_path / 'marks'} once")
    again = {**one, **envelope("events_api", one["payload"]),
             "retry_attempt": 1, "retry_reason": "timeout"}
    link.send(one, again)
    slack.until(lambda: link.acks_of(again) and slack.messages)
    link.ask({**again, "envelope_id": one["envelope_id"][::-1], "retry_attempt": 2})
    finish(slack.bot)
    assert (tmp_path / "marks").read_text() == "once\n"
    assert texts(slack.messages) == ["once"]


# -- mentions and direct messages

@pytest.mark.parametrize("happened, answer", [
    (mention("jira release 2.3"), "Report of 2.3"),
    (mention("/jira release 2.3"), "Report of 2.3"),
    (event(type="app_mention", text=f"<@{ME}|slackbot> echo labelled"), "labelled"),
    (event(type="app_mention", text=f"  <@{ME}>   echo   spaces"), "spaces"),
    (event(type="app_mention", text=f"<@{ME}>\necho line"), "line"),
    (mention("echo a &lt;b&gt; <https://x.example/|x.example>"), "a <b> x.example"),
    (mention("who"), f"{USER} {CHANNEL} T0001"),
    (mention("echo threaded", thread_ts="1610241700.000100"), "threaded"),
    (direct("echo alone"), "alone"),
    (direct("/echo slash"), "slash"),
    (direct(f"<@{ME}> echo mentioned"), "mentioned"),
    (direct("who"), f"{USER} D024BE91L T0001"),
    (direct("echo in a thread", thread_ts="1610241700.000100"), "in a thread"),
], ids=lambda value: value if isinstance(value, str) else value["payload"]["event"]["text"])
def test_a_message_to_the_bot_is_answered_in_its_thread(slack, link, happened, answer):
    link.ask(happened)
    told = happened["payload"]["event"]
    slack.until(lambda: slack.messages)
    assert texts(slack.messages) == [answer]
    assert slack.messages[0]["channel"] == told["channel"]
    assert slack.messages[0]["thread_ts"] == told.get("thread_ts", told["ts"])
    assert slack.calls_of("chat.postMessage")[-1].token == BOT_TOKEN


@pytest.mark.parametrize("happened", [
    mention("echo a", user=ME), mention("echo a", user=ME, bot_id=MY_BOT),
    mention("echo a", bot_id="B0OTHER"), mention("echo a", subtype="bot_message", user=None),
    direct("echo a", user=ME), direct("echo a", bot_id=MY_BOT), direct("echo a", bot_id="B0OTHER"),
    direct("echo a", bot_id="B0OTHER", bot_profile={"id": "B0OTHER", "deleted": False}),
    direct("echo a", subtype="bot_message", user=None, username="a bot"),
    direct("echo a", subtype="message_changed", text=None, user=None, message={
        "type": "message", "user": USER, "text": "echo a", "ts": "1610241741.000200"}),
    direct("echo a", subtype="message_deleted", text=None, deleted_ts="1610241741.000200"),
    direct("echo a", channel=CHANNEL, channel_type="channel"),
    direct(f"<@{ME}> echo a", channel=CHANNEL, channel_type="channel"),
    direct("echo a", channel=CHANNEL, channel_type="group"),
    event(type="message", subtype="channel_join", text=f"<@{USER}> has joined the channel"),
], ids=lambda value: json.dumps({name: value["payload"]["event"].get(name) for name in (
    "type", "user", "bot_id", "subtype", "channel_type")}))
def test_messages_of_bots_and_to_others_have_no_answer(slack, link, happened):
    link.ask(happened)
    link.ask(direct("echo sentinel"))
    slack.until(lambda: slack.messages)  # as it is acknowledged before it runs
    finish(slack.bot)
    assert texts(slack.messages) == ["sentinel"]


@pytest.mark.parametrize("words, start", [
    ("unheard-of", "There is no `/unheard-of` here."), ("bug", "Sorry, `/bug` failed"),
    ("count", "TIMES is missing. Usage:"), ("help echo", "• `/echo [TEXT]`")])
def test_a_mention_that_is_no_command_or_fails_gets_one_answer_that_says_so(
        slack, link, words, start):
    link.ask(mention(words))
    slack.until(lambda: slack.messages)
    assert len(slack.messages) == 1 and slack.messages[0]["text"].startswith(start)


def test_blocks_are_posted_to_the_thread_too(slack, link):
    link.ask(mention("blocks"))
    slack.until(lambda: slack.messages)
    assert slack.messages[0]["blocks"][0]["text"]["text"] == "*bold* é"
    assert slack.messages[0]["text"] == "short"


def test_a_bare_mention_has_an_answer(slack, link):
    link.ask(mention(""))
    slack.until(lambda: slack.messages)


def test_an_event_is_acknowledged_before_its_command_is_done(slack, link, gate):
    link.ask(mention(f"slow {gate} done"))
    gate.touch()  # not earlier
    slack.until(lambda: slack.messages)
    finish(slack.bot)
    assert texts(slack.messages) == ["done"]


def test_the_answers_in_a_thread_keep_their_order(slack, link):
    slack.failures["chat.postMessage"] += [("status", 500)]
    link.ask(mention("count 4"))
    slack.until(lambda: len(slack.messages) >= 4)
    assert texts(slack.messages) == ["0", "1", "2", "3"]


def test_an_answer_that_slack_refuses_keeps_no_other_from_its_thread(slack, link):
    slack.failures["chat.postMessage"] += ["channel_not_found"]
    link.ask(mention("echo lost"))
    slack.until(lambda: not slack.failures["chat.postMessage"])
    link.ask(mention("echo found"))
    slack.until(lambda: slack.messages)
    assert texts(slack.messages) == ["found"]
    until(lambda: lines_with(slack.bot, "channel_not_found"))


# -- buttons

def test_a_button_runs_its_command_line(slack, link):
    url = slack.response_url()
    link.ask(press("/echo x", url))
    assert texts(slack.wait(url)) == ["x"]


def test_a_button_runs_in_the_name_of_the_user_who_pressed_it(slack, link):
    url = slack.response_url()
    link.ask(press("/who", url))
    assert texts(slack.wait(url)) == [f"{USER} {CHANNEL} T0001"]


def test_all_answers_to_a_button_come_in_order(slack, link):
    url = slack.response_url()
    link.ask(press("/count 3", url))
    assert texts(slack.wait(url, 3)) == ["0", "1", "2"]


def test_another_apps_button_does_nothing(slack, link):
    url = slack.response_url()
    for pressed in (press("/echo x", url, "run_it"), press("/echo x", url, ""),
                    press("/echo x", url, None)):
        link.ask(pressed)
    check_serves(slack, link)
    assert slack.posts[url] == []


# -- handshakes

@pytest.fixture(scope="module")
def quick(script):
    """A Slack and a bot that loses no time between two connections, for tests that end some."""
    with socket_fakes.Workspace() as workspace, starter(script, workspace)(
            {"RECONNECT_SECONDS": 0.002, "PAUSE_SECONDS": 0.005}, SLACK_BOT_TOKEN=None) as bot:
        workspace.bot = bot
        workspace.link()
        yield workspace


@pytest.fixture
def old(quick):
    """A connection that a test may end; afterwards, the bot has another and is well."""
    quick.left.clear()
    faults, output = len(quick.all_faults()), len(quick.bot.lines)
    yield quick.current()
    again(quick)
    assert quick.all_faults()[faults:] == []
    assert healthy(quick.bot) and "Traceback" not in "".join(quick.bot.lines[output:])


def again(workspace, old=None):
    """The connection that is up (after the *old* one); it serves."""
    link = workspace.current() if old is None else workspace.link(workspace.links.index(old) + 1)
    assert answers(workspace, link, "/echo again") == ["again"]
    return link


@pytest.mark.parametrize("how", [socket_fakes.GLUED, socket_fakes.CASE, socket_fakes.DRIP])
def test_a_valid_handshake_may_look_strange(quick, old, how):
    count = len(quick.calls_of("apps.connections.open"))
    quick.handshakes.append(how)
    old.drop()
    again(quick, old)
    assert len(quick.calls_of("apps.connections.open")) == count + 1


@pytest.mark.parametrize("how", socket_fakes.REFUSALS)
def test_after_a_wrong_handshake_there_is_another_one(quick, old, how):
    quick.handshakes.append(how)
    old.drop()
    again(quick, old)
    quick.until(lambda: [how for how, _ in quick.left] == [how])


def test_an_endless_handshake_is_read_up_to_a_limit(quick, old):
    quick.handshakes.append(socket_fakes.ENDLESS)
    old.drop()
    again(quick, old)
    assert 65_536 <= quick.sent_in_vain < 20_000_000


HEADS = {
    "a status line": lambda size: b"HTTP/1.1 400 " + b"a" * size + b"\r\n\r\n",
    "a field": lambda size: b"HTTP/1.1 101 OK\r\nX: " + b"a" * size + b"\r\n\r\n",
    "blanks": lambda size: b"HTTP/1.1 101 OK\r\nX: " + b" " * size + b"\r\n\r\n",
    "fields": lambda size: b"HTTP/1.1 101 OK\r\n" + b"X: y\r\n" * (size // 6) + b"\r\n",
    "almost the end": lambda size: b"\r\n\r" * (size // 3) + b"\r\n\r\n",
    "no end": lambda size: b"a" * size}


@pytest.mark.parametrize("what", HEADS)
def test_the_work_of_a_handshake_is_in_proportion_to_the_bytes(monkeypatch, what):
    def shake_hands(data):
        sock = network_fakes.PiecesSocket(data, 7)
        monkeypatch.setattr(slackbot, "connect", lambda *_: sock)
        with pytest.raises((slackbot.WebSocketError, slackbot.HTTPError)):
            slackbot.WebSocket("ws://slack.example/")
        assert sock.place >= len(data), "it has been read to its end"

    monkeypatch.setattr(slackbot, "resolve", lambda *_: [])
    network_fakes.check_growth(shake_hands, HEADS[what](4_000), HEADS[what](64_000))


def test_a_handshake_without_an_answer_times_out(workspace, start):
    workspace.handshakes.append(socket_fakes.SILENCE)
    with start({"POST_SECONDS": 0.6}):
        again(workspace)


@pytest.mark.parametrize("url", [
    "ws://192.0.2.1/link/?ticket=1", "ws://127.0.0.1.example.com/", "", None, 17, [], "ws://",
    "http://127.0.0.1:{port}/link/?ticket=1", "ws://127.0.0.1:port/", "wss://[", "ws:127.0.0.1",
    "ws://127.0.0.1:{port}/a b\r\nX: y", "ws://localhost@192.0.2.1/", "ws://127.0.0.1:99999/",
    "ws://127.0.0.1:0/", "ws://\u0661.0.0.1/"])
def test_for_a_bad_url_there_is_no_connection_and_another_url_is_asked_for(quick, old, url):
    count, port = len(quick.calls_of("apps.connections.open")), str(quick.port)
    quick.urls.append(url.replace("{port}", port) if isinstance(url, str) else url)
    begun = time.monotonic()
    old.drop()
    again(quick, old)
    assert len(quick.calls_of("apps.connections.open")) == count + 2
    assert time.monotonic() - begun < slackbot.POST_SECONDS  # as a try to connect to 192.0.2.1 has


@pytest.mark.parametrize("answer", [
    ("status", 200), ("status", 400), ("status", 200, {}, b"[]"), ("status", 200, {}, b"\xff"),
    ("status", 200, {}, b'{"ok": true}'), ("status", 200, {}, b'{"ok": 1, "url": "ws://"}'),
    ("status", 200, {}, b'{"ok": false}'), ("status", 200, {}, b'{"ok": false, "error": ["a"]}'),
    "internal_error", "redirect"], ids=str)
def test_after_an_answer_that_makes_no_sense_slack_is_asked_again(quick, old, answer):
    quick.failures["apps.connections.open"].append(answer)
    old.drop()
    again(quick, old)
    assert "/elsewhere" not in {seen.path for seen in quick.seen}


# -- connections that end

@pytest.mark.parametrize("end", [
    lambda link: link.drop(), lambda link: link.peer.shutdown(socket.SHUT_WR),
    lambda link: link.close(1000), lambda link: link.close(1001, "bye"),
    lambda link: link.frame(CLOSE), lambda link: link.close(4000, "für immer"),
    lambda link: link.frame(CLOSE, b"\x03"),
    lambda link: link.raw(b"\xff\xff\xff\xff"), lambda link: link.frame(TEXT, b"a", key=KEY),
    lambda link: link.frame(TEXT, announced=LIMIT + 1),
    lambda link: link.send(disconnect("too_many_websockets")) or link.close(),
    lambda link: link.send(disconnect("something_new")) or link.close(),
], ids=["dropped", "half closed", "close 1000", "close 1001", "close without a code", "close 4000",
        "half a code", "nonsense", "masked", "too long", "too many", "something new"])
def test_a_connection_that_ends_is_followed_by_one_other(quick, old, end):
    count = len(quick.links)
    end(old)
    again(quick, old)
    quick.until(lambda: old.ended)
    assert len(quick.links) == count + 1


def test_a_close_frame_is_answered_with_one(quick, old):
    old.close(1001, "bye")
    quick.until(lambda: old.ended)
    assert old.ended.startswith("close") and len(old.payloads(CLOSE)) == 1


class Line:
    """In the place of a WebSocket: pongs and pieces of messages come when the test says so.

    *answers* says whether a ping at a time has a pong, *pieces* whether each look finds half a
    message; *minutes* later the line is cut."""

    def __init__(self, clock, answers=lambda now: False, pieces=False, minutes=60):
        self.clock, self.answers, self.pieces = clock, answers, pieces
        self.begun, self.end = clock.now, clock.now + 60 * minutes
        self.pings, self.coming, self.closed = [], [], False
        self.sock = self  # which is closed at the end

    @property
    def seconds(self):
        return self.clock.now - self.begun

    def receive(self, seconds):
        self.clock.sleep(seconds)
        if self.clock.now >= self.end:
            raise ConnectionResetError("cut")
        if not self.coming and not self.pieces:
            raise TimeoutError
        coming, self.coming = self.coming, []
        return coming

    def send(self, opcode, payload=b""):
        assert opcode == PING
        self.pings.append(self.seconds)
        if self.answers(self.seconds):
            self.coming.append((PONG, payload))

    def close(self):
        self.closed = True


@pytest.fixture
def listen(monkeypatch):
    """A function that listens to a `Line`, whose keywords it takes, until that ends."""
    def listen(**how):
        clock, reasons = fakes.Clock(), queue.SimpleQueue()
        line = Line(clock, **how)
        client = slackbot.SocketModeClient(slackbot.Config({}),
                                           types.SimpleNamespace(draining=False))
        monkeypatch.setattr(slackbot, "time", fakes.time_with(monotonic=clock))
        client.listen(line, reasons)
        assert line.closed and reasons.get(timeout=0) == "lost" and reasons.empty()
        return line
    return listen


LOOK = slackbot.SWEEP_SECONDS  # between two looks at the time


def test_a_silent_connection_is_kept_as_long_as_slack_answers_pings(listen):
    line = listen(answers=lambda now: True)
    assert line.seconds >= 3600, "until it was cut"
    assert all(slackbot.PING_SECONDS <= later - earlier <= slackbot.PING_SECONDS + 2 * LOOK
               for earlier, later in itertools.pairwise([0, *line.pings]))


def test_a_connection_on_which_slack_answers_no_pings_is_given_up(listen):
    line = listen(answers=lambda now: now < 1000)
    heard = max(ping for ping in line.pings if ping < 1000) + LOOK  # a pong, with the next look
    assert heard + slackbot.STALE_SECONDS <= line.seconds <= heard + slackbot.STALE_SECONDS + LOOK


def test_a_message_that_comes_slowly_keeps_the_connection(listen):
    line = listen(pieces=True)
    assert line.seconds >= 3600 and line.pings == [], "nobody asks one that is talking"


def test_a_connection_that_is_given_up_is_followed_by_another(workspace, start):
    with start({"PING_SECONDS": 0.1, "STALE_SECONDS": 1, "SWEEP_SECONDS": 0.02}):
        link = workspace.link()
        link.ignores_pings = True
        again(workspace, link)
        assert link.payloads(PING)


@pytest.mark.parametrize("ends, pauses", [
    ([(0, "lost")] * 8, [1, 2, 4, 8, 16, 32, 60, 60]),
    ([(0, "lost"), (29, "lost"), (31, "lost"), (0, "lost")], [1, 2, 0, 1]),
    ([(3600, "refresh")] * 3, [0, 0, 0])], ids=str)
def test_the_pauses_grow_until_a_connection_lasts(monkeypatch, ends, pauses):
    clock, left, slept = fakes.Clock(), [*ends, (0, "invalid_auth")], []

    def end():
        """Be a connection that lasts for some seconds; why it ends."""
        slept.append(0)
        seconds, reason = left.pop(0)
        clock.sleep(seconds)
        return reason

    def sleep(seconds):
        slept[-1] = seconds
        clock.sleep(seconds)

    client = slackbot.SocketModeClient(slackbot.Config({}),
                                       types.SimpleNamespace(draining=False))
    client.connect = lambda: types.SimpleNamespace(get=end)
    monkeypatch.setattr(slackbot, "time", fakes.time_with(monotonic=clock, sleep=sleep))
    client.serve_forever()
    assert len(slept) == len(pauses) + 1 and slept.pop() == 0
    for found, longest in zip(slept, pauses):
        assert longest / 2 <= found <= longest, slept


def test_after_connections_that_end_at_once_there_are_pauses(workspace, start):
    with start({"RECONNECT_SECONDS": 0.06}):
        begun, number = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < 0.3 or number < 2 and passed < 5:
            with contextlib.suppress(AssertionError):
                workspace.link(number, 0.1).drop()
                number += 1
        assert 1 < number <= 8


def test_slack_is_asked_again_after_the_time_that_it_says(workspace, start):
    workspace.failures["apps.connections.open"] += [fakes.reply(
        429, {"ok": False, "error": "ratelimited"}, **{"Retry-After": "1"})]
    with start():
        workspace.link()
        before, after = [call.at for call in workspace.calls_of("apps.connections.open")]
        assert after - before > 0.95


def send_pings(link, count=80_000):
    """Send pings to a bot whose answers nobody reads, until it leaves."""
    link.reads_nothing = True
    with contextlib.suppress(OSError):
        link.raw(encode(PING, b"a" * 125) * count)


def is_stuck(link):
    """Whether there is something to read on a connection, and no more of it after a while."""
    def count():
        return int.from_bytes(fcntl.ioctl(link.peer, termios.FIONREAD, bytes(4)), sys.byteorder)
    before = count()
    time.sleep(0.1)
    return before == count() > 0


def test_when_slack_stops_reading_requests_by_http_are_served(workspace, start):
    with start() as bot, concurrent.futures.ThreadPoolExecutor(1) as pool:
        link = workspace.link()
        sending = pool.submit(send_pings, link)
        until(lambda: is_stuck(link))
        for _ in range(5):
            assert bot.command("/echo a").json["text"] == "a"
        assert not sending.done(), "the bot has answered all pings, or left, after POST_SECONDS"
        link.peer.shutdown(socket.SHUT_RDWR)


def test_when_slack_stops_reading_there_is_another_connection(workspace, start):
    with start({"POST_SECONDS": 0.6}):
        link = workspace.link()
        send_pings(link)
        link.reads_nothing = False
        again(workspace, link)
        assert len(workspace.links) >= 2


# -- through TLS, as with Slack

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority for certificates, and its own certificate."""
    if not network_fakes.tool("openssl"):
        pytest.skip("no openssl to make certificates with")
    authority = network_fakes.Authority(tmp_path_factory.mktemp("certificates"))
    return authority, authority.make("root", extensions=network_fakes.AUTHORITY, names=(),
                                     own_key=True)


@pytest.fixture
def proxy(workspace, authority):
    """TLS in front of Slack, with a good certificate."""
    leaf = authority[0].make("good", issuer=authority[1])
    with socket_fakes.TLSProxy(workspace, network_fakes.context([leaf])) as proxy:
        yield proxy


def test_all_is_the_same_through_tls(workspace, start, proxy, authority):
    with start(SSL_CERT_FILE=authority[1].path):
        link, urls = workspace.link(), [workspace.response_url() for _ in range(200)]
        answer, = answers(workspace, link, "/echo " + "a" * 200_000)
        assert answer.startswith("a" * 10_000)
        link.send(*[slash(f"/echo {number}", url) for number, url in enumerate(urls)])
        workspace.until(lambda: not link.unacked())
        assert [texts(workspace.wait(url)) for url in urls] == [[f"{n}"] for n in range(200)]
        link.frame(PING, b"ping")
        workspace.until(lambda: link.payloads(PONG) == [b"ping"])
        link.close(1001)
        again(workspace, link)


def test_half_a_record_of_tls_keeps_no_answer_waiting(workspace, start, proxy, authority, gate):
    with start(SSL_CERT_FILE=authority[1].path):
        link, url = workspace.link(), workspace.response_url()
        link.ask(slash(f"/slow {gate} done", url))
        other = slash("/echo other", workspace.response_url())
        proxy.halves.set()
        link.send(other)
        time.sleep(SOON)  # in which half of it comes
        gate.touch()
        try:
            assert texts(workspace.wait(url)) == ["done"]
            assert link.acks_of(other) == []
        finally:
            proxy.halves.clear()
        link.ack(other)


def test_a_certificate_of_an_unknown_authority_is_refused(workspace, start, proxy):
    with start() as bot:
        until(lambda: lines_with(bot, "CERTIFICATE_VERIFY_FAILED"))
        assert workspace.links == [] and healthy(bot)


def test_a_certificate_for_another_name_is_refused(workspace, start, authority):
    leaf = authority[0].make("other", issuer=authority[1], names=("DNS:other.example",))
    with socket_fakes.TLSProxy(workspace, network_fakes.context([leaf])), \
            start(SSL_CERT_FILE=authority[1].path) as bot:
        until(lambda: lines_with(bot, "CERTIFICATE_VERIFY_FAILED"))
        assert workspace.links == [] and healthy(bot)


# -- Slack announces that it will disconnect

@pytest.mark.parametrize("reason", ["warning", "refresh_requested"])
def test_the_new_connection_is_up_before_the_old_one_goes(quick, old, tmp_path, reason):
    count = len(quick.links)
    urls = [quick.response_url() for _ in range(16)]
    under_way = [slash(f"/mark {tmp_path / 'marks'} {number} {pause}", url)
                 for number, (url, pause) in enumerate(zip(urls, [0, 0.05, 0.08, 0.25] * 4))]
    old.send(*under_way, disconnect(reason))
    new = quick.link(count)
    assert not old.ended or old.closed > new.opened
    for number in range(16, 24):
        line = f"/mark {tmp_path / 'marks'} {number}"
        assert answers(quick, new, line) == [f"{number}"]
    quick.until(lambda: not old.unacked())
    if not old.ended:
        old.close(1000)
    for number, url in enumerate(urls):
        assert texts(quick.wait(url)) == [f"{number}"]
    quick.until(lambda: old.ended)
    assert len(quick.links) == count + 1 and not new.ended
    assert sorted(map(int, (tmp_path / "marks").read_text().split())) == [*range(24)]


def test_envelopes_on_the_old_connection_are_served_while_it_is_up(quick, old, tmp_path):
    count, urls = len(quick.links), [quick.response_url() for _ in range(40)]
    old.send(disconnect("warning"))
    new = quick.link(count)
    for number, url in enumerate(urls):  # Slack gives each to any connection that is up
        one = slash(f"/mark {tmp_path / 'marks'} {number}", url)
        (old if number % 2 else new).send(one)
        time.sleep(0.002)
    quick.until(lambda: not old.unacked() and not new.unacked())
    old.close(1000)
    quick.until(lambda: old.ended)
    assert [texts(quick.wait(url)) for url in urls] == [[f"{number}"] for number in range(40)]
    assert sorted(map(int, (tmp_path / "marks").read_text().split())) == [*range(40)]


def test_the_old_connection_serves_as_long_as_slack_has_no_new_one(quick, old):
    count = len(quick.links)
    quick.failures["apps.connections.open"] += ["internal_error"] * 3
    old.send(disconnect("warning"))
    assert answers(quick, old, "/echo meanwhile") == ["meanwhile"]
    again(quick, old)
    assert len(quick.links) == count + 1 and not old.ended
    old.close()


def test_an_announcement_that_comes_twice_makes_one_new_connection(quick, old):
    count = len(quick.links)
    old.send(disconnect("warning"), disconnect("warning"), disconnect("refresh_requested"))
    new = quick.link(count)
    check_serves(quick, old)
    old.close(1000)
    quick.until(lambda: old.ended)
    time.sleep(SOON)
    assert len(quick.links) == count + 1 and not new.ended


def test_one_refresh_after_the_other_loses_nothing(quick, old):
    count = len(quick.links)
    for number in range(10):
        link, url = quick.link(count - 1 + number), quick.response_url()
        one = slash(f"/echo {number}", url)
        link.send(one, disconnect("refresh_requested"))
        link.ack(one)
        assert texts(quick.wait(url)) == [f"{number}"]
    quick.link(count + 9)
    for link in quick.links[count - 1:-1]:
        link.drop()


def test_a_command_whose_connection_ends_gets_its_answer(workspace, start, gate):
    with start():
        link, url = workspace.link(), workspace.response_url()
        link.ask(slash(f"/slow {gate} done", url))
        link.drop()
        again(workspace, link)
        gate.touch()
        assert texts(workspace.wait(url)) == ["done"]


def test_an_envelope_that_comes_again_over_a_new_connection_runs_once(quick, old, tmp_path):
    url = quick.response_url()
    one = slash(f"/mark {tmp_path / 'marks'} done 0.1", url)
    old.ask(one)
    old.drop()
    again(quick, old).ask(one)
    finish(quick.bot)
    assert posted(quick, url) == ["done"] and (tmp_path / "marks").read_text() == "done\n"


# -- Slack says no

def stopped(workspace, bot, word):
    """Socket Mode has stopped, the log says so in one line, and HTTP is served."""
    def errors():
        return [line for line in lines_with(bot, word) if "level=ERROR" in line]

    until(errors)
    count = len(workspace.calls)
    time.sleep(SOON)
    assert len(workspace.calls) == count
    assert len(errors()) == 1, bot.output
    assert "5ecret" not in bot.output and "Traceback" not in bot.output
    assert bot.command("/echo still here").json["text"] == "still here"
    return healthy(bot)


@pytest.mark.parametrize("error", ["invalid_auth", "account_inactive", "not_allowed_token_type"])
def test_a_token_that_is_refused_stops_socket_mode_and_http_is_served(workspace, start, error):
    workspace.failures["apps.connections.open"] += [error] * 5
    with start() as bot:
        assert stopped(workspace, bot, error)
        assert len(workspace.calls_of("apps.connections.open")) == 1


def test_a_token_that_is_refused_later_stops_socket_mode_too(workspace, start):
    with start() as bot:
        link = workspace.link()
        workspace.failures["apps.connections.open"] += ["token_revoked"] * 5
        link.drop()
        assert stopped(workspace, bot, "token_revoked")


def test_when_slack_disables_socket_mode_it_stops_and_http_is_served(workspace, start, gate):
    with start() as bot:
        link, url = workspace.link(), workspace.response_url()
        link.send(slash(f"/slow {gate} done", url), disconnect("link_disabled"))
        until(lambda: lines_with(bot, "link_disabled"))
        gate.touch()
        assert texts(workspace.wait(url)) == ["done"]
        assert stopped(workspace, bot, "link_disabled")
        link.close()
        workspace.until(lambda: link.ended)
        time.sleep(SOON)
        assert len(workspace.calls_of("apps.connections.open")) == 1


# -- beside HTTP

def test_with_the_app_token_alone_commands_are_served_by_socket_mode_and_not_by_http(
        workspace, start):
    with start(SLACK_SIGNING_SECRET=None, SLACK_BOT_TOKEN=None) as bot:
        assert answers(workspace, workspace.link(), "/echo live") == ["live"]
        assert bot.get("/status").json["mode"] == "setup"
        assert bot.command("/echo a").status == 503
        assert healthy(bot)


def test_with_the_app_token_there_is_no_demo():
    config = slackbot.Config({"SLACK_APP_TOKEN": APP_TOKEN})
    assert (config.mode, config.host) == ("setup", "127.0.0.1")


def test_commands_by_http_and_by_socket_mode_are_counted_together(slack, link):
    before = slack.bot.get("/healthz").json["done"]
    link.ask(slash("/echo a", slack.response_url()))
    slack.bot.command("/echo a")
    until(lambda: slack.bot.get("/healthz").json["done"] == before + 2)


# -- the end

def test_sigterm_ends_the_process_whatever_the_state_of_its_connection(script):
    states, bots = ["well", "no pongs", "silence", "pause"], []
    with contextlib.ExitStack() as stack:
        for state in states:
            workspace = stack.enter_context(socket_fakes.Workspace())
            workspace.handshakes += [socket_fakes.SILENCE] * (state == "silence")
            workspace.failures["apps.connections.open"] += ["internal_error"] * (state == "pause")
            bots.append(stack.enter_context(starter(script, workspace)(
                {"RECONNECT_SECONDS": 100, "SWEEP_SECONDS": 0.1, "POST_SECONDS": 100})))
            workspace.until(lambda: workspace.calls_of("apps.connections.open"))
            if state in ("well", "no pongs"):
                workspace.link().ignores_pings = state == "no pongs"
        time.sleep(0.05)
        for bot in bots:
            bot.process.send_signal(signal.SIGTERM)
        assert [bot.process.wait(PATIENCE) for bot in bots] == [0] * len(bots)
        assert not [bot.output for bot in bots if "Traceback" in bot.output]


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_sigterm_closes_the_connection_with_a_close_frame(workspace, start, seconds):
    with start({"LOG_PAUSE": 0.1}) as bot:  # 0.2 s more for it, on a busy machine
        link = workspace.link()
        link.ask(slash("/echo a", workspace.response_url()))
        time.sleep(seconds)
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0
        workspace.until(lambda: link.ended)
        assert link.ended == "close 1005"  # which stands for a frame without a code


def test_a_command_that_runs_may_finish_before_the_process_ends(workspace, start, gate):
    with start(SOON_OVER) as bot:
        url = workspace.response_url()
        workspace.link().ask(slash(f"/then {gate} a", url))
        assert texts(workspace.wait(url)) == ["first a"]
        bot.process.send_signal(signal.SIGTERM)
        until(lambda: bot.get("/healthz").status == 503)
        time.sleep(0.4)  # in which its user would be told, if there were no grace
        gate.touch()
        assert bot.process.wait(PATIENCE) == 0
        assert posted(workspace, url) == ["first a", "last a"]


def test_the_user_of_a_command_that_hangs_is_told_once_when_the_process_ends(workspace, start):
    with start(SOON_OVER, SLACKBOT_GRACE_SECONDS=0.1) as bot:
        url = workspace.response_url()
        workspace.link().ask(slash("/slow never never", url))
        until(lambda: bot.get("/healthz").json["running"])
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0
        answer, = posted(workspace, url)
        assert answer.startswith("Sorry, I had to restart")


def test_a_command_that_comes_while_the_process_ends_is_told_to_try_again(workspace, start, gate):
    with start() as bot:
        link = workspace.link()
        link.ask(slash(f"/then {gate} a", workspace.response_url()))
        until(lambda: bot.get("/healthz").json["running"])
        bot.process.send_signal(signal.SIGTERM)
        until(lambda: bot.get("/healthz").status == 503)
        assert answers(workspace, link, "/echo late") == [
            "I'm being restarted, please try again in a minute."]
        gate.touch()
        assert bot.process.wait(PATIENCE) == 0
