"""One thread, one epoll and only the necessary work: an upper limit for plain Python."""

import json
import os
import select
import socket
from urllib.parse import unquote_plus

import common

HEAD = (b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n")


def respond(head, body):
    """Make the whole response to one request."""
    headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    headers = {name.lower(): value for name, value in headers.items()}
    if not common.verified(headers.get("x-slack-request-timestamp"),
                           headers.get("x-slack-signature"), body):
        return HEAD % (b"401 Unauthorized", 0)
    fields = dict(pair.split("=", 1) for pair in body.decode().split("&"))
    fields = {name: unquote_plus(fields[name]) for name in ("user_name", "text")}
    answer = json.dumps(common.hello(fields)).encode()
    return HEAD % (b"200 OK", len(answer)) + answer


def serve(connection, received):
    """Answer one complete request: the bytes that follow it, or None to close the connection."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return received
    folded = head.lower()
    length = int(folded.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
    if len(body) < length:
        return received
    connection.send(respond(head, body[:length]))
    return None if b"\r\nconnection: close" in folded else body[length:]


def main():
    """Accept connections and serve them until the process is stopped."""
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=1024)
    epoll, connections, left = select.epoll(), {}, {}
    epoll.register(listener, select.EPOLLIN)
    while True:
        for number, _ in epoll.poll():
            if number == listener.fileno():
                connection = listener.accept()[0]
                number = connection.fileno()
                connections[number], left[number] = connection, b""
                epoll.register(number, select.EPOLLIN)
                continue
            data = connections[number].recv(65536)
            left[number] = serve(connections[number], left[number] + data) if data else None
            if left[number] is None:
                connections.pop(number).close()


main()
