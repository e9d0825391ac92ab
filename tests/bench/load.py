"""The load generator: one thread, one epoll, requests made beforehand, every answer checked."""

import json
import select
import socket
import time

import harness

NEVER = b"\0"  # no answer ends with this
OK = (b"HTTP/1.1 200", b"HTTP/1.0 200")


class Connection:
    """One connection and the command that is sent over it."""

    __slots__ = ("socket", "index", "started", "received", "fresh")


class Load:
    """Sends commands, a given number at once, and keeps `latencies`, `errors` and `elapsed`.

    *check* is called with the index of a request and the JSON of its answer, and returns whether
    the answer is right. It isn't called again for an answer with the same bytes to that request.
    A connection is used again unless *keep_alive* is false or the server answers
    `Connection: close`; then the next command gets a new one when the server has closed it."""

    def __init__(self, port, requests, check, keep_alive=True):
        self.address = ("127.0.0.1", port)
        self.requests, self.check, self.keep_alive = requests, check, keep_alive
        self.right_bodies = [NEVER] * len(requests)
        self.latencies, self.errors, self.sent = [], [], 0
        self.epoll, self.connections = select.epoll(), {}

    def run(self, at_once, count=1 << 60, seconds=60, timeout=10):
        """Keep *at_once* commands running until *count* are sent or *seconds* have passed.

        Waits at most *timeout* seconds more for the last answers."""
        self.count, begun = count, time.monotonic()
        self.end = begun + seconds
        for _ in range(min(at_once, count)):
            self.send_next(None)
        while self.connections and time.monotonic() < self.end + timeout:
            for number, event in self.epoll.poll(0.1):
                self.ready(self.connections[number], event)
        self.elapsed = time.monotonic() - begun
        for connection in list(self.connections.values()):
            self.errors.append((connection.index, "no answer"))
            self.close(connection)
        self.epoll.close()
        return self

    @property
    def rate(self):
        """Right answers per second."""
        return len(self.latencies) / self.elapsed

    def quantile(self, share):
        """The latency (ms) that this share of the answers didn't exceed."""
        ranked = sorted(self.latencies) or [float("nan")]
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    def open(self, connection):
        """Connect; on loopback the connection is established when connect_ex returns."""
        connection.socket = fresh = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.fresh = True
        fresh.connect_ex(self.address)
        self.connections[fresh.fileno()] = connection
        self.epoll.register(fresh.fileno(), select.EPOLLIN)

    def close(self, connection):
        """Close a connection, which also removes it from the epoll."""
        del self.connections[connection.socket.fileno()]
        connection.socket.close()

    def send_next(self, connection):
        """Send the next request over *connection* (None: a new one), or stop."""
        now = time.monotonic()
        if self.sent >= self.count or now >= self.end:
            if connection:
                self.close(connection)
            return
        if connection is None:
            connection = Connection()
            self.open(connection)
        connection.index = self.sent % len(self.requests)
        connection.started, connection.received = now, b""
        self.sent += 1
        self.transmit(connection)

    def transmit(self, connection):
        """Write the request with one call, now or when the socket is writable."""
        try:
            connection.socket.send(self.requests[connection.index])
        except BlockingIOError:
            self.epoll.modify(connection.socket.fileno(), select.EPOLLOUT)
        except OSError as error:
            self.connection_lost(connection, error)

    def ready(self, connection, event):
        """Write to or read from a connection that the epoll has reported."""
        if event == select.EPOLLOUT:
            self.epoll.modify(connection.socket.fileno(), select.EPOLLIN)
            self.transmit(connection)
            return
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:  # nothing is there yet
            return
        except OSError as error:
            self.connection_lost(connection, error)
            return
        if connection.received is None:
            self.answered_before(connection, data)
            return
        answer = connection.received = connection.received + data
        if answer.endswith(self.right_bodies[connection.index]) and answer.startswith(OK):
            self.answered(connection, answer)
        else:
            self.check_answer(connection, answer, closed=not data)

    def connection_lost(self, connection, reason):
        """Note an error, or repeat a request if a kept connection was closed before its answer."""
        self.close(connection)
        if connection.fresh or connection.received != b"":
            self.errors.append((connection.index, repr(reason)))
            if not isinstance(reason, ConnectionRefusedError):
                self.send_next(None)
        else:
            self.open(connection)
            self.transmit(connection)

    def check_answer(self, connection, answer, closed):
        """Check an answer with new bytes when it is complete."""
        response = harness.split_response(answer, closed)
        if response is None:
            if closed:
                self.connection_lost(connection, "closed")
            return
        status, body = response
        if status == 200 and body and self.check(connection.index, json.loads(body)):
            self.right_bodies[connection.index] = body
            self.answered(connection, answer)
        else:
            self.errors.append((connection.index, f"{status} {body[:200]}"))
            self.close(connection)
            self.send_next(None)

    def answered(self, connection, answer):
        """Note the latency; send the next request, or wait until the server has closed."""
        self.latencies.append(time.monotonic() - connection.started)
        if self.keep_alive and answer.startswith(OK[0]) and b"onnection: close" not in answer:
            connection.fresh = False
            self.send_next(connection)
        else:
            connection.received = None

    def answered_before(self, connection, data):
        """Close after the server: the side that closes first keeps its port in TIME_WAIT."""
        if data:
            self.errors.append((connection.index, "more than an answer"))
        else:
            self.close(connection)
            self.send_next(None)


def text_load(port, texts, keep_alive):
    """Make a load of commands, signed now; *texts* has the right answer to each line."""
    requests = [harness.command_request(line, number, keep_alive=keep_alive)
                for number, line in enumerate(texts)]
    answers = list(texts.values())

    def check(index, answer):
        return (answer["text"] == answers[index]
                and answer.get("response_type", "ephemeral") == "ephemeral")

    return Load(port, requests, check, keep_alive)


def hello_load(port, keep_alive=True, distinct=512):
    """Make a load of different `/hello` commands."""
    texts = {f"/hello Example {number}": f"Hello attakei, I received `Example {number}`"
             for number in range(distinct)}
    return text_load(port, texts, keep_alive)


def greet_load(port, distinct=512):
    """Make a load of different `/greet` commands, with a connection each."""
    texts = {f"/greet Example{number}": f"Hello Example{number}!" for number in range(distinct)}
    return text_load(port, texts, keep_alive=False)
