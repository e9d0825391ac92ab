"""What the benchmarks share: signed commands, server processes, their memory and CPU time."""

import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = HERE / "peers"
BOT = ROOT / "slackbot.py"
SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOWHERE = "http://127.0.0.1:9"
GUNICORN = ["-m", "gunicorn", "--workers=1", "--worker-class=gthread", "--threads=8",
            "--keep-alive=30", "--log-level=warning", "--bind=127.0.0.1:{port}"]
UVICORN = ["-m", "uvicorn", "--workers=1", "--http=httptools", "--loop=uvloop",
           "--no-access-log", "--log-level=warning", "--host=127.0.0.1", "--port={port}"]
SERVERS = {
    "slackbot": ["-m", "slackbot"],  # as the Procfile starts it
    "fastapi": [*UVICORN, "fastapi_app:app"],
    "flask": [*GUNICORN, "flask_app:app"],
    "bolt": ["bolt_app.py"],
    "bolt-flask": [*GUNICORN, "bolt_app:flask_app()"],
    "threading": ["threading_server.py"],
    "raw": ["raw_loop.py"],
}
POOL_SERVERS = {  # for speed.py's second case: the handler runs on the server's thread pool
    "slackbot": [str(HERE / "own_app.py")],
    "fastapi": [*UVICORN, "fastapi_def_app:app"],
}

# Exit by an exception on SIGTERM (`timeout` sends it), so that the servers are stopped too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def command_request(line, number, hooks=NOWHERE, keep_alive=False):
    """Make the HTTP request (bytes) of a slash command as Slack sends it, signed now."""
    name, _, text = line.partition(" ")
    body = urllib.parse.urlencode({
        "token": "gIkuvaNzQIHg97ATvDxqgjtO", "team_id": "T0001", "team_domain": "example",
        "channel_id": "C2147483705", "channel_name": "test", "user_id": "U2147483697",
        "user_name": "attakei", "command": name, "text": text, "api_app_id": "A123456",
        "is_enterprise_install": "false", "response_url": f"{hooks}/commands/T0001/{number}",
        "trigger_id": f"13345224609.738474920.8088930838d88f{number:08x}"}).encode()
    timestamp = str(int(time.time()))
    base = b"v0:%s:%s" % (timestamp.encode(), body)
    signature = hmac.digest(SECRET.encode(), base, hashlib.sha256).hex()
    head = ("POST /slack/commands HTTP/1.1\r\nHost: bot.example.com\r\n"
            "User-Agent: Slackbot 1.0 (+https://api.slack.com/robots)\r\n"
            "Accept-Encoding: gzip,deflate\r\nAccept: application/json,*/*\r\n"
            f"X-Slack-Signature: v0={signature}\r\nX-Slack-Request-Timestamp: {timestamp}\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n")
    return head.encode() + body


def split_response(data, closed=False):
    """Split a response into status and body; None if it isn't complete."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    if len(body) < int(length) if length else not closed:
        return None
    return int(head.split(None, 2)[1]), body


def ask(port, request, timeout=5):
    """Send one request over a new connection: status and JSON. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        data, chunk = b"", True
        while chunk:
            chunk = connection.recv(65536)
            data += chunk
            if (response := split_response(data, closed=not chunk)):
                return response[0], json.loads(response[1] or b"{}")
    raise ConnectionResetError("closed before the end of the response")


def report(title, checks):
    """Print each check with `pass` or `FAIL`; return whether all passed."""
    print(title)
    for text, passed in checks.items():
        print(f"  {'pass' if passed else 'FAIL'}  {text}", flush=True)
    return all(checks.values())


def free_port():
    """Find a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A server process with its children; a context manager that starts and stops it."""

    def __init__(self, arguments, port=None, log=None, **environ):
        self.port, self.log = port or free_port(), log
        self.arguments = [sys.executable, *(part.format(port=self.port) for part in arguments)]
        self.environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT),
                        "PORT": str(self.port), "HOST": "127.0.0.1",
                        "SLACK_SIGNING_SECRET": SECRET, "SLACK_HOOKS_ORIGINS": NOWHERE, **environ}

    def __enter__(self):
        self.output = open(self.log, "ab+") if self.log else tempfile.TemporaryFile()
        self.executed = time.monotonic()
        self.process = subprocess.Popen(
            self.arguments, cwd=PEERS, env=self.environ, stdout=self.output,
            stderr=subprocess.STDOUT, start_new_session=True)
        return self

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.output.close()

    def wait(self, request=None, seconds=20):
        """Send the request (or `/hello`) until it gets a 200; return the seconds since exec."""
        request = request or command_request("/hello Example", 0)
        while time.monotonic() < self.executed + seconds and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                if ask(self.port, request)[0] == 200:
                    return time.monotonic() - self.executed
            time.sleep(0.001)
        self.output.seek(0)
        output = self.output.read().decode()[-2000:]
        raise SystemExit(f"{self.arguments} didn't answer with 200:\n{output}")

    def wait_for_exit(self, seconds):
        """Wait for the process to exit; return its exit code, "none" if it is still running."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return "none"

    def processes(self):
        """List the ids of the server's processes."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(entry)) == self.process.pid:
                    found.append(int(entry))
        return found

    def memory(self):
        """The memory (PSS) of all the processes, in megabytes."""
        lines = (line for number in self.processes()
                 for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

    def cpu(self):
        """The CPU time of all the processes so far, in seconds (by Linux's process clocks)."""
        return sum(time.clock_gettime((~number << 3) | 2) for number in self.processes())
