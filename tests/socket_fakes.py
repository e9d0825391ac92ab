"""Slack's side of Socket Mode: three methods of the Web API, response_urls, a WebSocket server.

The codec here knows nothing of slackbot.py's, so that the two can disagree. The shapes of what is
sent are those of Slack's own test data (python-slack-sdk, bolt-python)."""

import base64
import collections
import contextlib
import hashlib
import itertools
import json
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse
import uuid

import fakes
from fakes import PATIENCE

APP_TOKEN = "xapp-1-A0123-4567890-5ecretapp"
BOT_TOKEN = "xoxb-1234-5678-5ecretbot"
ME, MY_BOT = "U0BOT", "B0BOT"  # whom auth.test says the bot is
USER, CHANNEL, TEAM = "U2147483697", "C2147483705", "T0001"

# ---- the codec (RFC 6455, 5) ----

MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 4 * 1024 * 1024  # of a message that the bot takes
BAD_CODES = {*range(1000), 1004, 1005, 1006, *range(1015, 3000), *range(5000, 65536)}
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Wrong(Exception):
    """What is wrong with a frame."""


def xor(payload, key):
    """*payload* masked, or unmasked, with the four bytes of *key*."""
    keys = (key * (len(payload) // 4 + 1))[:len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return mixed.to_bytes(len(payload), "big")


def encode(opcode, payload=b"", final=True, reserved=0, key=None, announced=None, size=None):
    """A frame as bytes, masked where there is a *key*. *announced* is the length that it claims,
    *size* the number of bytes (0, 2, 8) to say it in: as few as possible unless told."""
    length = len(payload) if announced is None else announced
    if size is None:
        size = 0 if length < 126 else 2 if length < 65536 else 8
    first = bool(final) << 7 | reserved << 4 | opcode
    second = (key is not None) << 7 | {0: length, 2: 126, 8: 127}[size]
    head = bytes([first, second]) + (length.to_bytes(size, "big") if size else b"")
    return head + (payload if key is None else key + xor(payload, key))


Frame = collections.namedtuple("Frame", "final reserved opcode masked length minimal payload")


def decode(data):
    """The first frame in *data* and where it ends, or None while its head isn't whole; the
    payload has fewer bytes than its length while the frame isn't."""
    if len(data) < 2:
        return None
    first, second = data[:2]
    masked, short = second >> 7, second & 127
    start = 2 + {126: 2, 127: 8}.get(short, 0)
    end = start + 4 * masked
    if len(data) < end:
        return None
    length = int.from_bytes(data[2:start], "big") if start > 2 else short
    minimal = length >= {126: 126, 127: 65536}.get(short, 0)
    payload, key = bytes(data[end:end + length]), bytes(data[start:end])
    return Frame(first >> 7, first >> 4 & 7, first & 15, bool(masked), length, minimal,
                 xor(payload, key) if masked else payload), end + length


class Judge:
    """Makes messages of the frames of one side, which has them masked or not; strict. What is
    in the messages it judges for the side that masks, the bot."""

    def __init__(self, masked):
        self.masked, self.kind, self.parts = masked, None, b""

    def take(self, frame):
        """The (opcode, payload) that *frame* completes; None for none; or Wrong."""
        control = frame.opcode >= 8
        for fault, why in (
                (frame.reserved, "a reserved bit"),
                (frame.opcode not in (MORE, TEXT, BINARY, CLOSE, PING, PONG), "the opcode"),
                (frame.masked != self.masked, "the mask"),
                (frame.length >> 63, "the top bit of the length"),
                (control and not (frame.length < 126 and frame.minimal and frame.final),
                 "a control frame"),
                (not control and (frame.opcode == MORE) != (self.kind is not None), "the order"),
                (not control and len(self.parts) + frame.length > LIMIT, "the size")):
            if fault:
                raise Wrong(why)
        if len(frame.payload) < frame.length:
            return None
        if control:
            return self._checked(frame.opcode, frame.payload)
        self.kind, self.parts = self.kind or frame.opcode, self.parts + frame.payload
        if not frame.final:
            return None
        kind, parts, self.kind, self.parts = self.kind, self.parts, None, b""
        return self._checked(kind, parts)

    def _checked(self, opcode, payload):
        if not self.masked:
            return opcode, payload
        text = payload if opcode == TEXT else payload[2:] if opcode == CLOSE else b""
        try:
            text.decode()
        except UnicodeDecodeError:
            raise Wrong("not UTF-8") from None
        if opcode == CLOSE and payload and (
                len(payload) < 2 or int.from_bytes(payload[:2], "big") in BAD_CODES):
            raise Wrong("the close code")
        return opcode, payload


def verdict(data):
    """What a client should make of *data*: the messages, what is wrong ("" for nothing), and
    whether that must show: a reader may put it off until the frame is whole."""
    judge, messages = Judge(masked=False), []
    while len(data) > 1:
        known = decode(data)
        frame, end = known or (decode(data + bytes(12))[0], len(data) + 1)
        try:
            message = judge.take(frame)
        except Wrong as wrong:
            return messages, str(wrong), end <= len(data) or known and str(wrong) == "the size"
        if end > len(data):
            break
        messages += [message] if message else []
        data = data[end:]
    return messages, "", False


# ---- what Slack sends ----

serial = itertools.count(100)


def stamp():
    """A message's ts, another one each time."""
    return f"{int(time.time())}.{next(serial):06}"


def envelope(kind, payload, **fields):
    return {"envelope_id": str(uuid.uuid4()), "payload": payload, "type": kind,
            "accepts_response_payload": False, **fields}


def slash(line, url="", **fields):
    """The slash command *line*. Slack would take an answer in the ack, too."""
    payload = fakes.form(line, response_url=url, **fields).decode()
    return envelope("slash_commands", dict(urllib.parse.parse_qsl(payload, True)),
                    accepts_response_payload=True)


def event(**fields):
    """Something that has happened; `retry` makes it a later delivery."""
    fields = {"user": USER, "ts": stamp(), "team": TEAM, "channel": CHANNEL, **fields}
    fields = {name: value for name, value in fields.items() if value is not None}
    when = fields.setdefault("event_ts", fields.get("ts", stamp()))
    return envelope("events_api", {
        "token": "gIkuvaNzQIHg97ATvDxqgjtO", "team_id": TEAM, "api_app_id": "A123456",
        "event": fields, "type": "event_callback", "event_id": f"Ev{next(serial):08}",
        "event_time": int(float(when)), "event_context": f"1-{fields['type']}-{TEAM}-{CHANNEL}",
        "authorizations": [{"enterprise_id": None, "team_id": TEAM, "user_id": ME, "is_bot": True,
                            "is_enterprise_install": False}],
        "is_ext_shared_channel": False}, retry_attempt=0, retry_reason="")


def mention(line, **fields):
    """Somebody mentions the bot in a channel."""
    section = {"type": "rich_text_section", "elements": [{"type": "user", "user_id": ME},
                                                         {"type": "text", "text": line}]}
    block = {"type": "rich_text", "block_id": "Sesm", "elements": [section]}
    return event(**{"client_msg_id": str(uuid.uuid4()), "type": "app_mention",
                    "text": f"<@{ME}> {line}".rstrip(), "blocks": [block], **fields})


def direct(line, **fields):
    """Somebody writes to the bot alone."""
    return event(**{"client_msg_id": str(uuid.uuid4()), "type": "message", "text": line,
                    "channel": "D024BE91L", "channel_type": "im", **fields})


def press(value, url, action_id="run", **fields):
    """Somebody presses a button."""
    return envelope("interactive", {
        "type": "block_actions", "team": {"id": TEAM, "domain": "example"},
        "user": {"id": USER, "username": "attakei", "name": "attakei", "team_id": TEAM},
        "api_app_id": "A123456", "token": "gIkuvaNzQIHg97ATvDxqgjtO",
        "container": {"type": "message", "message_ts": "1548261231.000200",
                      "channel_id": CHANNEL, "is_ephemeral": False},
        "trigger_id": "12466734323.1395872398", "channel": {"id": CHANNEL, "name": "test"},
        "response_url": url, "state": {"values": {}}, "is_enterprise_install": False,
        "message": {"type": "message", "user": ME, "ts": "1548261231.000200", "bot_id": MY_BOT,
                    "text": "Report"},
        "actions": [{"action_id": action_id, "block_id": "=qXel", "type": "button",
                     "text": {"type": "plain_text", "text": "Refresh", "emoji": True},
                     "value": value, "action_ts": "1548426417.840180"}], **fields})


def hello(connections=1):
    return {"type": "hello", "num_connections": connections,
            "debug_info": {"host": "applink-7fc4fdbb64-4x5xq", "build_number": 10,
                           "approximate_connection_time": 18060},
            "connection_info": {"app_id": "A123456"}}


def disconnect(reason):
    return {"type": "disconnect", "reason": reason,
            "debug_info": {"host": "applink-7fc4fdbb64-4x5xq"}}


# ---- a connection ----

class Link:
    """One WebSocket connection; what the bot sends is in `frames` and, where it is an ack, in
    `acks`: (the ack, when). `ended` says how the connection did, once it has.

    `faults` has all that a client mustn't do. With `ignores_pings` set, no ping is
    answered; with `reads_nothing` set, nothing is read."""

    def __init__(self, workspace, peer, rest=b""):
        self.workspace, self.peer, self.received = workspace, peer, rest
        self.frames, self.acks, self.sent, self.faults = [], [], [], []
        self.ignores_pings, self.reads_nothing = False, False
        self.ended, self.closing = None, False
        self.lock, self.judge = threading.Lock(), Judge(masked=True)
        self.opened, self.closed = time.monotonic(), None

    def raw(self, data):
        """Send bytes."""
        with self.lock:
            self.peer.sendall(data)

    def pieces(self, chunks, pause=0.0):
        """Send bytes in pieces, and nothing between them."""
        with self.lock:
            for chunk in chunks:
                self.peer.sendall(chunk)
                time.sleep(pause)

    def frame(self, opcode, payload=b"", **fields):
        self.raw(encode(opcode, payload, **fields))

    def note(self, *values):
        """Remember that these envelopes are under way."""
        self.sent += [(value["envelope_id"], time.monotonic()) for value in values]

    def send(self, *values):
        """Send values as JSON, each in a message of its own, all in one piece."""
        self.note(*[value for value in values if "envelope_id" in value])
        self.raw(b"".join(encode(TEXT, json.dumps(value).encode()) for value in values))

    def close(self, code=1000, reason=""):
        """Begin to close, as Slack does."""
        self.closing = True
        self.frame(CLOSE, code.to_bytes(2, "big") + reason.encode())

    def drop(self):
        """Cut the connection without a word."""
        with contextlib.suppress(OSError):
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.peer.shutdown(socket.SHUT_RD)
            self.peer.close()

    def acks_of(self, envelope):
        """The acks of an envelope on this connection."""
        return [ack for ack, _ in self.acks
                if ack.get("envelope_id") == envelope["envelope_id"]]

    def ack(self, envelope, timeout=PATIENCE):
        """The first ack of an envelope, when it has come."""
        self.workspace.until(lambda: self.acks_of(envelope), timeout)
        return self.acks_of(envelope)[0]

    def ask(self, envelope, timeout=PATIENCE):
        """Send an envelope: its ack."""
        self.send(envelope)
        return self.ack(envelope, timeout)

    def unacked(self):
        """The ids of the envelopes that have no ack."""
        missing = collections.Counter(each for each, _ in self.sent)
        missing.subtract(ack["envelope_id"] for ack, _ in self.acks)
        return +missing

    def payloads(self, opcode):
        """The payloads of the bot's frames of one kind."""
        return [frame.payload for frame, _ in self.frames if frame.opcode == opcode]

    def serve(self):
        """Read what the bot sends until the connection ends."""
        try:
            while not self.ended:
                while (found := decode(self.received)) and found[1] <= len(self.received):
                    self.received = self.received[found[1]:]
                    self.take(found[0])
                while self.reads_nothing and not self.workspace.closing.wait(0.01):
                    pass
                data = b"" if self.ended else self.peer.recv(65536)
                if not data:
                    self.ended = self.ended or "gone"
                self.received += data
        except OSError as error:
            self.ended = type(error).__name__
        except (Wrong, ValueError, KeyError, TypeError) as error:
            self.ended = f"fault: {error!r}"
            self.faults.append(self.ended)
        self.closed = time.monotonic()
        with contextlib.suppress(OSError):
            self.peer.shutdown(socket.SHUT_RDWR)
        self.peer.close()
        self.workspace.ring()

    def take(self, frame):
        """One frame of the bot's."""
        now = time.monotonic()
        message = self.judge.take(frame)
        if not frame.minimal:
            self.faults.append(f"a length in too many bytes: {frame}")
        self.frames.append((frame, now))
        if message:
            opcode, payload = message
            if opcode == TEXT:
                self.acknowledged(json.loads(payload), now)
            elif opcode == BINARY:
                self.faults.append("a binary message")
            elif opcode == PING and not self.ignores_pings:
                self.frame(PONG, payload)
            elif opcode == CLOSE:
                self.ended = "close %d" % int.from_bytes(payload[:2] or b"\x03\xed", "big")
                if not self.closing:
                    self.frame(CLOSE, payload)
        self.workspace.ring()

    def acknowledged(self, ack, now):
        """An ack, which Slack takes for what it has sent, and for nothing else."""
        if set(ack) != {"envelope_id"}:
            self.faults.append(f"not an ack without an answer in it: {ack}")
        self.acks.append((ack, now))
        sent = [each for each, _ in self.sent].count(ack.get("envelope_id"))
        if len(self.acks_of(ack)) > sent:
            self.faults.append(f"an ack too many: {ack}")


# ---- Slack ----

HEAD = ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: {}\r\n\r\n")
REFUSALS = {  # how a handshake goes wrong: what is answered
    "wrong accept": HEAD.replace("{}", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "no accept": HEAD.replace("Sec-WebSocket-Accept: {}\r\n", ""),
    "200": HEAD.replace("101 Switching Protocols", "200 OK"),
    "403": "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nForbidden",
    "500": "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "redirect": "HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n",
    "garbage": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "half": "HTTP/1.1 101 Switching Pro", "nothing": ""}
ENDLESS, SILENCE = "endless header", "silence"
# And how it goes right in a way of its own.
GLUED, CASE, DRIP = "glued to the first message", "in odd capitals", "byte by byte"
ERRORS = {"internal_error", "invalid_auth", "account_inactive", "token_revoked", "not_authed",
          "not_allowed_token_type", "ratelimited", "channel_not_found", "fatal_error"}

Call = collections.namedtuple("Call", "method token fields at")


class Workspace(fakes.Slack):
    """Slack. `calls` has what was asked of the Web API, `messages` those of chat.postMessage,
    `links` the connections in the order in which they came.

    Each of these is used up from its front: `failures[method]`, an error's name or how a `Fake`
    fails; `urls`, handed out in the place of real ones; `handshakes`, "" for a right one."""

    def __enter__(self):
        self.calls, self.messages, self.links, self.tickets = [], [], [], set()
        self.failures, self.urls, self.handshakes = collections.defaultdict(list), [], []
        self.greets, self.left, self.sent_in_vain, self.faults_seen = True, [], 0, []
        super().__enter__()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.site = f"ws://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.closing.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # which wakes accept up
        self.listener.close()
        for link in self.links:
            link.drop()
        super().__exit__(*exception)

    @property
    def api_url(self):
        return self.origin + "/api/"

    def ring(self):
        """Wake up those who wait for something."""
        with self.arrival:
            self.arrival.notify_all()

    def until(self, condition, timeout=PATIENCE):
        """Wait for *condition*; what it is at last."""
        with self.arrival:
            assert self.arrival.wait_for(condition, timeout), f"not within {timeout} s"
            return condition()

    def link(self, number=0, timeout=PATIENCE):
        """The connection with a *number*, as soon as it is there."""
        self.until(lambda: len(self.links) > number, timeout)
        return self.links[number]

    def current(self):
        """The newest connection that is up, as soon as there is one."""
        return self.until(lambda: next((link for link in reversed(self.links) if not link.ended),
                                       None))

    def calls_of(self, method):
        return [call for call in self.calls if call.method == method]

    def all_faults(self):
        """All that no client of Slack's may do."""
        return self.faults_seen + [fault for link in self.links for fault in link.faults]

    # ---- the Web API

    def answer(self, seen):
        method = seen.path.removeprefix("/api/")
        return super().answer(seen) if method == seen.path else self._call(method, seen)

    def _call(self, method, seen):
        token = (seen.headers["Authorization"] or "").removeprefix("Bearer ")
        kind = (seen.headers["Content-Type"] or "").partition(";")[0]
        fields = json.loads(seen.body) if kind == "application/json" else {
            name: json.loads(value) if name in ("blocks", "attachments") else value
            for name, value in urllib.parse.parse_qsl(seen.body.decode(), True)}
        if seen.method != "POST" or seen.query:
            self.faults_seen.append(f"{seen.method} {seen.path} {seen.query}")
        with self.arrival:
            self.calls.append(Call(method, token, fields, time.monotonic()))
            failure = self.failures[method].pop(0) if self.failures[method] else None
            self.arrival.notify_all()
            if failure:
                return fakes.reply(200, {"ok": False, "error": failure}) \
                    if isinstance(failure, str) and failure in ERRORS else failure
            answer = self._methods(method, token, fields)
            return fakes.reply(200, {"ok": "error" not in answer, **answer})

    def _methods(self, method, token, fields):
        if token not in (APP_TOKEN, BOT_TOKEN):
            return {"error": "invalid_auth" if token else "not_authed"}
        if method == "auth.test" and token == APP_TOKEN:
            return {"app_name": "slackbot", "app_id": "A123456"}
        if method == "auth.test":
            return {"url": "https://example.slack.com/", "team": "Example", "user": "slackbot",
                    "team_id": TEAM, "user_id": ME, "bot_id": MY_BOT,
                    "is_enterprise_install": False}
        if (method == "apps.connections.open") != (token == APP_TOKEN):
            return {"error": "not_allowed_token_type"}
        if method == "apps.connections.open":
            return {"url": self.urls.pop(0) if self.urls else self.url()}
        if method == "chat.postMessage":
            if refusal := "channel" not in fields and "channel_not_found" \
                    or fakes.objection(fields):
                return {"error": refusal}
            self.messages.append(fields)
            return {"channel": fields["channel"], "ts": stamp(), "message": {"type": "message"}}
        return {"error": "unknown_method"}

    def url(self):
        """The URL of a connection, good for one."""
        ticket = str(uuid.uuid4())
        self.tickets.add(ticket)
        return f"{self.site}/link/?ticket={ticket}&app_id=12%2F3"

    # ---- the WebSocket server

    def _accept(self):
        while not self.closing.is_set():
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._welcome, args=(peer,), daemon=True).start()

    def _welcome(self, peer):
        """Shake hands, in the way that is up, and talk."""
        try:
            with self.arrival:
                how = self.handshakes.pop(0) if self.handshakes else ""
            head, rest = self._read_head(peer)
            key = self._check(*head.decode("ascii").split("\r\n"))
        except OSError:
            return peer.close()
        except (ValueError, KeyError, AssertionError) as error:
            self.faults_seen.append(f"the handshake: {error!r}")
            return peer.close()
        if how in REFUSALS or how in (ENDLESS, SILENCE):
            return self._refuse(peer, how)
        digest = hashlib.sha1((key + GUID).encode()).digest()
        answer = HEAD.format(base64.b64encode(digest).decode()).encode()
        link = Link(self, peer, rest)
        greeting = encode(TEXT, json.dumps(hello()).encode()) if self.greets else b""
        with contextlib.suppress(OSError):
            if how == CASE:
                peer.sendall(answer.replace(b"Upgrade: websocket", b"UPGRADE:WebSocket").replace(
                    b"Connection: Upgrade", b"connection:  keep-alive, upgrade ").replace(
                    b"Sec-WebSocket-Accept", b"sec-websocket-accept") + greeting)
            elif how == DRIP:
                for number in range(len(answer + greeting)):
                    peer.sendall((answer + greeting)[number:number + 1])
                    time.sleep(0.001)
            elif how == GLUED:
                peer.sendall(answer + greeting)
            else:
                peer.sendall(answer)
                time.sleep(0.01)
                peer.sendall(greeting)
        with self.arrival:
            self.links.append(link)
            self.arrival.notify_all()
        link.serve()

    def _read_head(self, peer):
        peer.settimeout(PATIENCE)
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = peer.recv(4096)
            if not (chunk or data):
                raise ConnectionError("it has left before it said anything")
            assert chunk and len(data) < 65536, f"no handshake but {data!r}"
            data += chunk
        peer.settimeout(None)
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _check(self, first, *lines):
        """What a client's handshake must be (RFC 6455, 4.1): its key."""
        method, target, version = first.split(" ")
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        fields = {name.lower(): value.strip() for name, _, value in
                  (line.partition(":") for line in lines)}
        assert (method, version, url.path) == ("GET", "HTTP/1.1", "/link/"), first
        assert query["app_id"] == "12/3" and query["ticket"] in self.tickets, first
        self.tickets.remove(query["ticket"])
        assert fields["host"] == urllib.parse.urlsplit(self.site).netloc, fields
        assert fields["upgrade"].lower() == "websocket", fields
        assert "upgrade" in fields["connection"].lower().replace(" ", "").split(","), fields
        assert fields["sec-websocket-version"] == "13", fields
        assert len(base64.b64decode(fields["sec-websocket-key"], validate=True)) == 16, fields
        assert "authorization" not in fields and "sec-websocket-extensions" not in fields, fields
        return fields["sec-websocket-key"]

    def _refuse(self, peer, how):
        """Answer wrongly, and see whether the bot leaves; `left` has how, and when it
        connected."""
        came = time.monotonic()
        try:
            if how == ENDLESS:
                peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
                while not self.closing.is_set():
                    peer.sendall(b"X-More: " + b"a" * 4086 + b"\r\n")
                    self.sent_in_vain += 4096
            elif how != SILENCE:
                answer = REFUSALS[how].replace("{url}", self.url())
                peer.sendall(answer.encode("latin-1"))
            if how in ("half", "nothing"):
                peer.shutdown(socket.SHUT_WR)
            peer.settimeout(20)
            while peer.recv(65536):
                pass
        except OSError:
            pass
        with self.arrival:
            self.left.append((how, came))
            self.arrival.notify_all()
        peer.close()


class TLSProxy:
    """TLS with a server's *context* in front of a *workspace*, whose URLs are wss then; a context
    manager. While `halves` is set, only the first half of what there is to send is sent."""

    def __init__(self, workspace, context):
        self.workspace, self.context, self.halves = workspace, context, threading.Event()

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.workspace.site = f"wss://localhost:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer = self.listener.accept()[0]
                threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer):
        inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(inward, outward, server_side=True)
        with contextlib.suppress(OSError), peer, \
                socket.create_connection(("127.0.0.1", self.workspace.port)) as inner:
            shaken, kept, fresh = False, b"", b""
            while not self.workspace.closing.is_set():
                with contextlib.suppress(ssl.SSLWantReadError):
                    shaken = shaken or tls.do_handshake() or True
                    while data := tls.read(65536):
                        inner.sendall(data)
                    return
                fresh = outward.read()
                end = len(fresh) // 2 if self.halves.is_set() and not kept else 0
                kept, now = kept + fresh[end:], fresh[:end]
                if not self.halves.is_set():
                    kept, now = b"", kept
                peer.sendall(now)
                readable = select.select([peer, inner] if shaken else [peer], [], [], 0.01)[0]
                if peer in readable:
                    data = peer.recv(65536)
                    inward.write(data) if data else inward.write_eof()
                if inner in readable:
                    data = inner.recv(16384)
                    if not data:
                        return
                    tls.write(data)
