"""The load generator: one thread, one epoll, requests made beforehand, every answer checked."""

import json
import select
import socket
import time

import harness

NEVER = b"\0"  # no answer ends like that
OK = (b"HTTP/1.1 200", b"HTTP/1.0 200")


class Connection:
    """One command under way."""

    __slots__ = ("socket", "index", "started", "received", "fresh")


class Load:
    """Sends commands, so many at once; afterwards has `latencies`, `errors` and `elapsed`.

    *check* is called with the index of a request and the JSON that answered it, and says whether
    that is right; an answer whose very bytes were right before for that request is right."""

    def __init__(self, port, requests, check, keep_alive=True):
        self.address = ("127.0.0.1", port)
        self.requests, self.check, self.keep_alive = requests, check, keep_alive
        self.known = [NEVER] * len(requests)
        self.latencies, self.errors, self.sent = [], [], 0
        self.epoll, self.connections = select.epoll(), {}

    def run(self, at_once, count=1 << 60, seconds=60, patience=10):
        """Keep *at_once* commands under way until *count* are sent or *seconds* have passed."""
        self.count, begun = count, time.monotonic()
        self.end = begun + seconds
        for _ in range(min(at_once, count)):
            self.send_next(None)
        while self.connections and time.monotonic() < self.end + patience:
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
        """Commands answered rightly, per second."""
        return len(self.latencies) / self.elapsed

    def quantile(self, share):
        """The latency (ms) that *share* of the answers kept within."""
        ranked = sorted(self.latencies) or [float("nan")]
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    def open(self, connection):
        """Begin a connection; on loopback it is established when connect_ex returns."""
        connection.socket = fresh = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.fresh = True
        fresh.connect_ex(self.address)
        self.connections[fresh.fileno()] = connection
        self.epoll.register(fresh.fileno(), select.EPOLLIN)

    def close(self, connection):
        """Forget a connection; closing takes it out of the epoll."""
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
        """Write the request in one piece, now or when the connection stands."""
        try:
            connection.socket.send(self.requests[connection.index])
        except BlockingIOError:
            self.epoll.modify(connection.socket.fileno(), select.EPOLLOUT)
        except OSError as error:
            self.cut_off(connection, error)

    def ready(self, connection, event):
        """Go on with the connection that something happened on."""
        if event == select.EPOLLOUT:
            self.epoll.modify(connection.socket.fileno(), select.EPOLLIN)
            self.transmit(connection)
            return
        try:
            data = connection.socket.recv(65536)
        except OSError as error:
            self.cut_off(connection, error)
            return
        if connection.received is None:
            self.after_last(connection, data)
            return
        answer = connection.received = connection.received + data
        if answer.endswith(self.known[connection.index]) and answer.startswith(OK):
            self.answered(connection, answer)
        else:
            self.look_closely(connection, answer, closed=not data)

    def cut_off(self, connection, reason):
        """Repeat a request that met the end of a kept connection; on a new one it's an error."""
        self.close(connection)
        if connection.fresh:
            self.errors.append((connection.index, repr(reason)))
            if not isinstance(reason, ConnectionRefusedError):
                self.send_next(None)
        else:
            self.open(connection)
            self.transmit(connection)

    def look_closely(self, connection, answer, closed):
        """Judge an answer that isn't known yet, when it is complete."""
        response = harness.split_response(answer, closed)
        if response is None:
            if closed:
                self.cut_off(connection, "closed")
            return
        status, body = response
        if status == 200 and body and self.check(connection.index, json.loads(body)):
            self.known[connection.index] = body
            self.answered(connection, answer)
        else:
            self.errors.append((connection.index, f"{status} {body[:200]}"))
            self.close(connection)
            self.send_next(None)

    def answered(self, connection, answer):
        """Note the time taken; go on over the same connection, or await its end."""
        self.latencies.append(time.monotonic() - connection.started)
        if self.keep_alive and answer.startswith(OK[0]) and b"onnection: close" not in answer:
            connection.fresh = False
            self.send_next(connection)
        else:
            connection.received = None

    def after_last(self, connection, data):
        """Close after the server did: whoever closes first is left with ports in TIME_WAIT."""
        if data:
            self.errors.append((connection.index, "more than an answer"))
        else:
            self.close(connection)
            self.send_next(None)


def hello_load(port, keep_alive=True, distinct=512):
    """Make a load of `/hello` commands, all different, signed now."""
    texts = [f"Example {number}" for number in range(distinct)]
    requests = [command for number, text in enumerate(texts) for command in
                [harness.command_request(f"/hello {text}", number, keep_alive=keep_alive)]]

    def check(index, answer):
        return (answer["text"] == f"Hello attakei, I received `{texts[index]}`"
                and answer.get("response_type", "ephemeral") == "ephemeral")

    return Load(port, requests, check, keep_alive)
