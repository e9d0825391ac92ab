"""A fake Slack that receives the posts to response_urls and can fail; a process of its own.

    python fake_slack.py PORT SEED

A share of the posts to /commands/… (set by PUT /share, 0 at the start) fails *before* it is
recorded: with 429, 500, a reset, or no answer until the client closes. GET /deliveries returns
what is recorded. The sixth message to a response_url is refused, as Slack refuses it, and recorded
as REFUSED."""

import asyncio
import collections
import json
import random
import re
import socket
import struct
import sys
import time

import harness

FAULTS = ("429", "500", "reset", "no answer")
REFUSED = "a sixth message"


class Slack:
    """What has been delivered, and the share of the posts that fail."""

    def __init__(self, seed):
        self.random, self.share = random.Random(seed), 0.0
        self.deliveries, self.uses, self.faults = [], collections.Counter(), collections.Counter()

    def answer(self, method, path, body):
        """Answer one request: a status line and a body, or "reset" or "no answer"."""
        if method == "GET":
            return "200 OK", {"deliveries": self.deliveries, "faults": self.faults}
        if method == "PUT":
            self.share = float(body)
            return "200 OK", {}
        if self.random.random() < self.share:
            fault = self.random.choice(FAULTS)
            self.faults[fault] += 1
            return {"429": ("429 Too Many Requests\r\nRetry-After: 1", {"ok": False}),
                    "500": ("500 Internal Server Error", {"ok": False})}.get(fault, fault)
        self.uses[path] += 1
        accepted = self.uses[path] <= 5
        text = json.loads(body).get("text", "") if accepted else REFUSED
        self.deliveries.append((time.monotonic(), path.rpartition("/")[2], text))
        if accepted:
            return "200 OK", {"ok": True}
        return "404 Not Found", {"ok": False, "error": "used_url"}


class Connection(asyncio.Protocol):
    """One connection to the fake Slack."""

    def __init__(self, slack):
        self.slack, self.received = slack, b""

    def connection_made(self, transport):
        """Keep the transport for the answers."""
        self.transport = transport

    def data_received(self, data):
        """Answer the requests that are complete."""
        self.received += data
        while (request := self.next_request()) and not self.transport.is_closing():
            self.respond(self.slack.answer(*request))

    def next_request(self):
        """Remove one complete request from the received bytes: method, path and body, or None."""
        head, end, rest = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        length = int(length[1]) if length else 0
        if not end or len(rest) < length:
            return None
        self.received = rest[length:]
        return *head.decode().split()[:2], rest[:length]

    def respond(self, answer):
        """Write the answer, reset the connection, or do nothing."""
        if answer == "reset":
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif answer != "no answer":
            status, body = answer
            body = json.dumps(body).encode()
            self.transport.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                                 f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


class FakeSlack(harness.Server):
    """The fake Slack as a process; a context manager."""

    def __init__(self, seed=0):
        super().__init__([str(harness.HERE / "fake_slack.py"), "{port}", str(seed)])
        self.hooks = f"http://127.0.0.1:{self.port}"
        self.origins = f"{self.hooks},{harness.NOWHERE}"

    def __enter__(self):
        super().__enter__()
        self.wait(b"GET /deliveries HTTP/1.1\r\n\r\n")
        return self

    def call(self, method, path, body=b""):
        """Send one control request: the JSON of its answer."""
        head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        return harness.ask(self.port, head.encode() + body)[1]

    def fail(self, share):
        """Set the share of the posts that fail."""
        self.call("PUT", "/share", str(share).encode())

    def report(self):
        """What has been delivered (time, id of the response_url, text), and the faults."""
        return self.call("GET", "/deliveries")


async def main():
    """Serve until the process is stopped."""
    slack = Slack(int(sys.argv[2]))
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(slack), "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
