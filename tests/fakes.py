"""What the tests talk to: a running bot, and the real little servers that it talks to."""

import base64
import datetime
import functools
import hashlib
import hmac
import http.client
import http.server
import json
import math
import os
import re
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # the one of Slack's published example
PATIENCE = 20  # seconds for what takes moments, on a busy machine too; less than a bot's grace
# The constants of a bot that ends as soon as it has told its users.
SOON_OVER = {"SWEEP_SECONDS": 0.02, "LOG_PAUSE": 0.01}


def sign(body, secret=SECRET, timestamp=None):
    """The two headers with which Slack vouches for *body* (bytes)."""
    timestamp = str(int(time.time())) if timestamp is None else str(timestamp)
    base = b"v0:" + timestamp.encode() + b":" + body
    digest = hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": "v0=" + digest}


def form(line, **fields):
    """The body (bytes) of the slash command *line*, as Slack would send it."""
    name, _, text = line.partition(" ")
    return urllib.parse.urlencode({
        "token": "gIkuvaNzQIHg97ATvDxqgjtO", "team_id": "T0001", "team_domain": "example",
        "channel_id": "C2147483705", "channel_name": "test", "user_id": "U2147483697",
        "user_name": "attakei", "command": name, "text": text, "api_app_id": "A123456",
        "is_enterprise_install": "false", "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        **fields}).encode()


class Answer:
    """An HTTP answer, read to its end."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


WITH_CONSTANTS = """
import json, runpy, sys
import slackbot
for name, value in json.loads(sys.argv[1]).items():
    assert hasattr(slackbot, name), name
    setattr(slackbot, name, value)
del sys.argv[:2]
if sys.argv[0] == slackbot.__file__:
    slackbot.main()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Bot:
    """`python slackbot.py` (or *script*) in a process of its own, on a free port; a context manager.

    *environ* is all that the process sees beside PATH, *constants* what some constants of the
    module are in it. Its output is gathered in `lines`."""

    def __init__(self, *arguments, script=ROOT / "slackbot.py", wait=True, constants=None,
                 **environ):
        self.environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PORT": "0",
                        "HOST": "127.0.0.1", "SLACK_SIGNING_SECRET": SECRET,
                        **{name: value for name, value in os.environ.items()
                           if name.startswith(("COVERAGE_", "COV_"))}, **environ}
        self.environ = {name: str(value) for name, value in self.environ.items()
                        if value is not None}
        self.command_line = [sys.executable, str(script), *arguments]
        if script == ROOT / "slackbot.py" and not constants:  # which is compiled already
            self.command_line[1:2] = ["-P", "-m", "slackbot"]
        if constants:
            self.command_line[1:1] = ["-c", WITH_CONSTANTS, json.dumps(constants)]
        self.wait_for_start = wait
        self.lines = []

    def __enter__(self):
        self.process = subprocess.Popen(self.command_line, env=self.environ, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.listening = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if self.wait_for_start:
            assert self.listening.wait(PATIENCE), "".join(self.lines)
        return self

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if "listening on http://" in line:
                self.url = line.split("listening on ")[1].split()[0]
                self.host, self.port = self.url[7:].rsplit(":", 1)
                self.port = int(self.port)
                self.listening.set()
        self.listening.set()

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stdout.close()

    @property
    def output(self):
        return "".join(self.lines)

    def request(self, method, path, body=None, headers=(), timeout=PATIENCE):
        """One exchange over a connection of its own: an `Answer`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def command(self, line, path="/slack/commands", **fields):
        """Send the slash command *line* as Slack does: the first answer."""
        body = form(line, **fields)
        headers = {"Content-Type": "application/x-www-form-urlencoded", **sign(body)}
        return self.request("POST", path, body, headers)


# ---- Time and threads that do what the test says

class Clock:
    """A time that passes in `sleep` alone; *plans* are called when their time has come."""

    def __init__(self):
        self.now = 1000.0
        self.plans = []  # (time, function)

    def __call__(self):
        return self.now

    def plan(self, seconds, function):
        """Have a *function* called so many seconds from now."""
        self.plans.append((self.now + seconds, function))

    def sleep(self, seconds):
        self.now += seconds
        due = [plan for plan in self.plans if plan[0] <= self.now]
        for plan in due:
            self.plans.remove(plan)
            plan[1]()


def time_with(**functions):
    """In the place of the module `time`: the same, but for some of its *functions*."""
    return types.SimpleNamespace(**{**vars(time), **functions})


class Pool:
    """Takes work as `slackbot.Pool` does. Nothing is done until the test does it, on its thread."""

    def __init__(self, size, name):
        self.size = size
        self.name = name
        self.work = []  # functions without parameters, the oldest first

    def submit(self, function, *arguments):
        self.work.append(functools.partial(function, *arguments))

    def begin(self):
        """Take out the oldest piece of work, as a thread does that hasn't got far yet."""
        return self.work.pop(0)

    def run(self):
        """Do all the work."""
        while self.work:
            self.begin()()

    def shutdown(self, wait=True, cancel_futures=False):
        if cancel_futures:
            self.work.clear()


# ---- Servers that the bot talks to

PAGE = b"<html><title>Sorry</title><body>Something <b>&amp; someone</b> went wrong</body></html>"


def reply(status, value, **headers):
    """The answer with *value* as JSON."""
    headers = {"Content-Type": "application/json", **headers}
    return "status", status, headers, json.dumps(value).encode()


class Seen:
    """A request that a fake got, with the times (monotonic) at which it came and was answered."""

    def __init__(self, handler):
        self.started, self.ended = time.monotonic(), None
        self.method, self.headers = handler.command, handler.headers
        path, _, query = handler.path.partition("?")
        self.path = urllib.parse.unquote(path)
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


class Handler(http.server.BaseHTTPRequestHandler):
    """What http.server asks for; the work is the fake's."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.server.fake.serve(self)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


class Fake:
    """A real HTTP server on a free port of loopback; a context manager.

    A subclass answers in `answer(seen)`: ("status", CODE[, HEADERS[, BODY]]), an HTML page where
    there is no BODY; or how it fails: "reset", "silence", "redirect" (to /elsewhere), "huge" (a
    body without an end), ("half", CODE) of a body, "drip" (a header byte by byte)."""

    def __enter__(self):
        self.seen, self.sent, self.closing = [], 0, threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, False)
        self.server.fake, self.server.request_queue_size = self, 128
        self.server.server_bind()
        self.server.server_activate()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.004,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def serve(self, handler):
        seen = Seen(handler)
        self.seen.append(seen)
        answer = self.answer(seen)
        how, *details = [answer] if isinstance(answer, str) else answer
        try:
            getattr(self, "_" + how)(handler, *details)
        except OSError:
            handler.close_connection = True
        seen.ended = time.monotonic()

    def _status(self, handler, status, headers=(), body=PAGE):
        handler.send_response(status)
        headers = {"Content-Type": "text/html", **dict(headers), "Content-Length": str(len(body)),
                   "Connection": "close" if handler.close_connection else "keep-alive"}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _redirect(self, handler):
        self._status(handler, 302, {"Location": self.origin + "/elsewhere"})

    def _reset(self, handler):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    def _silence(self, handler):
        handler.close_connection = self.closing.wait(120) or True

    def _huge(self, handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[\"")
        while not self.closing.is_set():
            self.sent += handler.wfile.write(b"a" * 65536)

    def _half(self, handler, status):
        handler.wfile.write(b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\nok" % status)
        handler.close_connection = True

    def _drip(self, handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not self.closing.wait(0.1):
            handler.wfile.write(b"a")


# ---- Slack

def texts(value):
    """Every text of a message or a block, in the order of reading."""
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            yield value["text"]
        value = value.values()
    for part in value:
        if isinstance(part, (dict, list)):
            yield from texts(part)


# Two kinds of block have rules of their own, which the page's `RULES` have as well.
# https://docs.slack.dev/reference/block-kit/blocks
DATA_BLOCKS = "data_table", "data_visualization"


def is_text(value, most=math.inf):
    return isinstance(value, str) and 0 < len(value) <= most


def is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def are_names(values, most):
    """Whether *values* are 1 to *most* names, each of at most 20 characters and there once."""
    return (0 < len(values) <= most and all(is_text(value, 20) for value in values)
            and len(set(values)) == len(values))


def cell_text(part):
    """The text of a table's cell, or of a part of its rich text."""
    if "elements" in part:
        return "".join(map(cell_text, part["elements"]))
    return part.get("text") or part.get("url") or str(part.get("value", ""))


def is_cell(cell):
    match cell["type"]:
        case "raw_text":
            return is_text(cell.get("text"))
        case "raw_number":
            return is_number(cell.get("value")) and is_text(cell.get("text", "-"))
    return cell["type"] == "rich_text" and len(cell["elements"]) > 0


def is_data_table(block):
    """Whether Slack takes this data_table."""
    rows, cells = block["rows"], sum(block["rows"], [])
    return (is_text(block.get("caption")) and 2 <= len(rows) <= 101
            and 1 <= len(rows[0]) <= 20 and {len(row) for row in rows} == {len(rows[0])}
            and all(map(is_cell, cells)) and all(cell["type"] != "rich_text" for cell in rows[0])
            and sum(len(cell_text(cell)) for cell in cells) <= 10_000
            and block.get("page_size", 5) in range(1, 101)
            and block.get("row_header_column_index", 0) in range(len(rows[0])))


def is_data_visualization(block):
    """Whether Slack takes this chart."""
    chart = block["chart"]
    if not is_text(block.get("title"), 50):
        return False
    if chart["type"] == "pie":
        segments = chart["segments"]
        return (are_names([segment["label"] for segment in segments], 6)
                and all(is_number(each["value"]) and each["value"] > 0 for each in segments))
    axes, points = chart["axis_config"], [series["data"] for series in chart["series"]]
    categories = axes["categories"]
    return (chart["type"] in ("bar", "line", "area") and are_names(categories, 20)
            and are_names([series["name"] for series in chart["series"]], 6)
            and all(is_text(axes.get(name, "-"), 50) for name in ("x_label", "y_label"))
            and all(sorted(point["label"] for point in each) == sorted(categories)
                    and all(is_number(point["value"]) for point in each) for each in points))


def is_classic(block):
    """Whether Slack takes this block, which is none of DATA_BLOCKS."""
    longest = 150 if block["type"] == "header" else 3000
    elements, fields = block.get("elements"), block.get("fields")
    ids = [each["action_id"] for each in elements or [] if "action_id" in each]
    return (all(is_text(text, longest) for text in texts(block))
            and (block["type"] != "section" or block.get("text") or fields)
            and (fields is None or 1 <= len(fields) <= 10)
            and all(is_text(field["text"], 2000) for field in fields or [])
            and (elements is None or 1 <= len(elements) <= 25)
            and len(set(ids)) == len(ids) and all(is_text(each, 255) for each in ids))


def objection(message):
    """The word with which Slack refuses *message*; "" when it takes it."""
    blocks = message.get("blocks") or []
    if not (blocks or message.get("text") or message.get("delete_original")):
        return "no_text"
    types = [block["type"] for block in blocks]
    classic = [block for block in blocks if block["type"] not in DATA_BLOCKS]
    if types.count("data_table") + types.count("table") > 1:
        return "only_one_table_allowed"
    checks = {"data_table": is_data_table, "data_visualization": is_data_visualization}
    try:
        are_valid = all(checks.get(block["type"], is_classic)(block) for block in blocks)
    except (LookupError, TypeError, AttributeError):
        are_valid = False
    if not are_valid or len(blocks) > 50 or types.count("data_visualization") > 2:
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(len, texts(classic))) > 13_000 else ""


class Post:
    """A message that has arrived, when (monotonic) and with what headers."""

    def __init__(self, message, headers):
        self.message, self.headers, self.at = message, headers, time.monotonic()


class Slack(Fake):
    """hooks.slack.com, which takes 5 messages a response_url within 30 minutes.

    *faults* are used up one a post (None delivers), or it is a function of the `Seen`."""

    refuses_data_blocks = False  # as a workspace does that doesn't have them yet

    def __init__(self, faults=(), clock=time.monotonic):
        self.faults, self.clock = faults if callable(faults) else list(faults), clock
        self.made, self.posts, self.attempts = {}, {}, 0
        self.arrival = threading.Condition()

    def response_url(self):
        url = f"{self.origin}/commands/T0001/{len(self.posts) + 1}/{secrets.token_hex(12)}"
        self.made[url], self.posts[url] = self.clock(), []
        return url

    def answer(self, seen):
        with self.arrival:
            self.attempts += 1
            if callable(self.faults):
                fault = self.faults(seen)
            else:
                fault = self.faults.pop(0) if self.faults else None
            return fault or self._take(self.origin + seen.path, seen)

    def _take(self, url, seen):
        if self.clock() - self.made.get(url, -math.inf) > 1800:
            return reply(404, {"ok": False, "error": "expired_url"})
        if len(self.posts[url]) >= 5:
            return reply(404, {"ok": False, "error": "used_url"})
        try:
            message = json.loads(seen.body)
            refusal = objection(message)
            kinds = {block["type"] for block in message.get("blocks") or []}
            if self.refuses_data_blocks and kinds & set(DATA_BLOCKS):
                refusal = "invalid_blocks"
        except (ValueError, AttributeError):
            refusal = "invalid_payload"
        if refusal:
            return "status", 400, {"Content-Type": "text/plain"}, refusal.encode()
        self.posts[url].append(Post(message, seen.headers))
        self.arrival.notify_all()
        return "status", 200, {"Content-Type": "text/plain"}, b"ok"

    def wait(self, url, count=1, timeout=PATIENCE):
        """The messages at *url*, as soon as there are *count* of them."""
        with self.arrival:
            assert self.arrival.wait_for(lambda: len(self.posts[url]) >= count, timeout), \
                f"{len(self.posts[url])} of {count} messages came within {timeout} s"
            return [post.message for post in self.posts[url]]

    def ask(self, bot, line, timeout=PATIENCE, **fields):
        """All that *bot* answers to *line*: the first answer and, once it is done, the others."""
        url = self.response_url()
        first = bot.command(line, response_url=url, **fields)
        assert first.status == 200, first.text
        deadline = time.monotonic() + timeout
        while (state := bot.get("/healthz").json)["running"] + state["waiting"]:
            assert time.monotonic() < deadline, f"{line} is still running: {bot.output}"
            time.sleep(0.005)
        return ([first.json] if first.body else []) + [post.message for post in self.posts[url]]


# ---- JIRA

CATEGORIES = {"new": (2, "To Do"), "indeterminate": (4, "In Progress"), "done": (3, "Done"),
              "undefined": (1, "No Category")}
SUMMARIES = ("Sign in fails", "<!channel> & <http://evil.example|you>", 'a "quoted" \\ back\\\\',
             "*Ready* _to_ `go`", "two\n*Ready*", "&lt;b&gt;", "Größe 名 🚀", "x" * 255, "<@U1>|")


def issue(key, **fields):
    """An issue in a flat form, which `Jira` dresses up as JIRA does; *idle* is in days."""
    return {"key": key, "project": key.rpartition("-")[0], "summary": "Summary of " + key,
            "category": "new", "priority": "Medium", "assignee": "Ann", "resolution": None,
            "idle": 0, "was": [], "versions": ["2.3"], **fields}


def issues(count, project="APP", **fields):
    """*count* issues, a mixture of everything but for *fields*."""
    for number in range(count):
        category = ("new", "indeterminate", "done", "done")[number % 4]
        yield issue(f"{project}-{number + 1}", **{
            "summary": SUMMARIES[number % len(SUMMARIES)], "category": category,
            "priority": ("Blocker", "Highest", "High", "Medium", "Low", None)[number % 6],
            "assignee": (None, "Ann", "Bo <b> & Co")[number % 3], "idle": number % 15,
            "resolution": "Fixed" if category == "done" and number % 11 else None,
            "was": ["Done"] if category == "done" or number % 7 == 0 else [], **fields})


def version(name, number=10000, **fields):
    """A version as both flavours tell it."""
    return {"self": f"http://127.0.0.1/rest/api/2/version/{number}", "id": str(number),
            "name": name, "archived": False, "released": False, "projectId": 10000, **fields}


class BadQuery(Exception):
    """What is wrong with a query, in JIRA's words."""


RESERVED = "and|or|not|in|is|was|empty|null|order|by|select|from|where|like|on|changed|limit"
TEXT = r""" "(?:[^"\\\x00-\x09\x0b\x0c\x0e-\x1f]|\\["'\\nrt])*" """
VALUE = rf"""(?: {TEXT}
    | (?!(?:{RESERVED})\b(?![-.:])) [^\x00-\x20!"\#$%&'()*+,/;<=>?@[\\\]^{{|}}~]+ )"""
PART = re.compile(rf"""\s*(?: (?P<field>[a-z]+) \s* (?P<sign>!?=|<=|in\b|was\b)
      \s* (?P<values>{VALUE} | \( \s* {VALUE} (?: \s*,\s* {VALUE} )* \s* \) )
    | (?P<empty>[a-z]+) \s+ is \s+ (?P<sense>not\s+)? (?:empty|null)\b
    | (?P<word>and\b|or\b|not\b|[()]) )""", re.VERBOSE | re.IGNORECASE)
ORDER = re.compile(r"\s*\border\s+by\s+\w+(\s+(asc|desc))?(\s*,\s*\w+(\s+(asc|desc))?){0,6}\s*$",
                   re.IGNORECASE)


def values(text):
    """The values in *text*, the right side of a clause; a bare number is an id, not a name."""
    for found in re.findall(VALUE, text, re.VERBOSE | re.IGNORECASE):
        if found[0] == '"':
            found = re.sub(r"(?s)\\(.)", lambda escape: {"n": "\n", "r": "\r", "t": "\t"}.get(
                escape[1], escape[1]), found[1:-1])
        elif found.isdigit():
            found = "id " + found
        yield {"to do": "new", "in progress": "indeterminate"}.get(found.lower(), found.lower())


def complaint(rest, place):
    """What JIRA says of a query whose *rest* it doesn't understand."""
    if '"' in re.sub(TEXT, "", rest, flags=re.VERBOSE):
        return (f"Error in the JQL Query: The quoted string '{rest}' has not been completed. "
                f"(line 1, character {place})")
    if re.fullmatch(r"\s*(\w+\s*\W{0,2})?\s*", rest):
        return ("Error in JQL Query: Expecting either a value, list or function before the end of "
                "the query.")
    return f"Error in the JQL Query: '{rest}' was not expected. (line 1, character {place})"


def understood(jql, clause):
    """*jql* as a function of an issue; `clause(match)` makes one of each of its clauses.

    Strict, so that an injection shows, but it reads no more than the bot's queries need."""
    rest, place, source, clauses, complete = ORDER.sub("", jql).rstrip(), 0, [], [], False
    if not rest:
        raise BadQuery("Unbounded JQL queries are not allowed here. Please add a search "
                       "restriction to your query.")
    while place < len(rest):
        match = PART.match(rest, place)
        word = match and (match["word"] or "").lower()
        if not match or complete != (word in ("and", "or", ")")):
            raise BadQuery(complaint(rest[place:], place + 1))
        if not word:
            clauses.append(clause(match))
        source.append(word or f"c[{len(clauses) - 1}](i)")
        complete, place = word in ("", ")"), match.end()
    try:
        return eval("lambda i: " + " ".join(source), {"c": clauses})
    except SyntaxError:
        raise BadQuery(complaint("", place)) from None


FIELDS = {"project": "project", "fixversion": "versions", "statuscategory": "category",
          "status": "category", "priority": "priority", "assignee": "assignee", "key": "key",
          "resolution": "resolution", "updated": "idle"}
ASKS = {"jql", "maxResults", "fields", "expand", "properties", "fieldsByKeys"}
GONE = ("The requested API has been removed. Please migrate to the /rest/api/3/search/jql API. A "
        "full migration guideline is available at "
        "https://developer.atlassian.com/changelog/#CHANGE-2046")


def wrong(status, *messages):
    """An error in the form that JIRA gives it."""
    return reply(status, {"errorMessages": messages, "errors": {}})


def lowered(value):
    """The text or the texts of a field as a set, in which nothing is an empty set."""
    return lower_all(tuple(value) if isinstance(value, list) else (value,))


@functools.cache  # a search of thousands of issues asks for the same few again and again
def lower_all(texts):
    return frozenset(text.lower() for text in texts if text)


class Jira(Fake):
    """JIRA Cloud or Data Center ("server") with flat `issues` and {project: [`version`]}.

    *context* is the path it lives under. `faults` holds [part of a path or a query, what happens
    instead, how many times]; `bend` changes each page of a search before it leaves."""

    def __init__(self, flavour="cloud", context="", **site):
        """*site* is what `reset` takes."""
        self.cloud, self.context = flavour == "cloud", context
        self.username, self.token = "qa@example.com", "ATATT3xFfGF0notarealtoken"
        self.reset(**site)

    def reset(self, issues=(), versions=None, page=50, id_page=5000, delay=0.0):
        """Be another site: at most *page* issues a page, *id_page* where their ids or keys alone
        are asked, *delay* in seconds or of a `Seen`."""
        self.issues, self.page, self.id_page = list(issues), page, id_page
        self.delay = delay if callable(delay) else lambda seen: delay
        names = {}
        for each in self.issues:
            names.setdefault(each["project"], set()).update(each["versions"] or ())
        self.versions = versions or {key: [version(name) for name in sorted(found)]
                                     for key, found in names.items()}
        self.known = {"project": set(map(str.lower, self.versions)), "category": set(CATEGORIES),
                      "priority": {"blocker", "highest", "high", "medium", "low"}}
        self.seen, self.faults, self.categories = [], [], CATEGORIES
        self.anonymous, self.bend = False, lambda page: page
        self.find = functools.cache(self._find)

    @property
    def searches(self):
        return [seen for seen in self.seen if "/search" in seen.path]

    def answer(self, seen):
        seen.ask = {**seen.query, **json.loads(seen.body or b"{}")}
        self.closing.wait(self.delay(seen))
        for fault in self.faults:
            if fault[2] and fault[0] in seen.path + " " + seen.ask.get("jql", ""):
                fault[2] -= 1
                return fault[1]
        login = base64.b64encode(f"{self.username}:{self.token}".encode()).decode()
        allowed = ["Basic " + login] + ["Bearer " + self.token] * (not self.cloud)
        if seen.headers["Authorization"] in allowed:
            return self._route(seen, self.find)
        if not self.anonymous:
            return "status", 401
        how, status, headers, body = self._route(seen, lambda jql: [])
        return how, status, {**headers, "x-seraph-loginreason": "AUTHENTICATED_FAILED"}, body

    def _route(self, seen, find):
        found = re.fullmatch(self.context + "/rest/api/([23])/(.+)", seen.path)
        if not found or found[1] == "3" and not self.cloud:
            return "status", 404, {}, PAGE
        try:
            match found[2].split("/"):
                case ["serverInfo"]:
                    kind = "Cloud" if self.cloud else "Server"
                    return reply(200, {"deploymentType": kind, "version": "1001.0.0"})
                case ["myself"]:
                    return reply(200, self._user("QA <lead>"))
                case ["search"] if self.cloud:
                    return wrong(410, GONE)
                case ["search", *more] if more == ["jql"] * self.cloud:
                    return self._search(seen.ask, find)
                case ["search", "approximate-count"] if self.cloud:
                    return reply(200, {"count": 153})
                case ["issue", key]:
                    for issue in find("project is not EMPTY"):
                        if issue["key"] == key:
                            return reply(200, self._dressed(issue, seen.ask.get("fields", "*all")))
                    return wrong(404, "Issue does not exist or you do not have permission to see "
                                      "it.")
                case ["project", key, "versions"]:
                    if key in self.versions:
                        return reply(200, self.versions[key])
                    return wrong(404, f"No project could be found with key '{key}'.")
        except BadQuery as error:
            return wrong(400, str(error))
        return "status", 404, {}, PAGE

    def _find(self, jql):
        return list(filter(understood(jql, self._clause), self.issues))

    def _clause(self, match):
        name = (match["field"] or match["empty"]).lower()
        if name not in FIELDS:
            raise BadQuery(f"Field '{name}' does not exist or you do not have permission to view "
                           "it.")
        field, sign = FIELDS[name], (match["sign"] or "is").lower()
        if sign == "is":
            return lambda issue: bool(lowered(issue[field])) == bool(match["sense"])
        wanted = set(values(match["values"]))
        if sign == "<=":
            return lambda issue: issue[field] >= int(min(wanted)[1:-1])
        for value in wanted - self.known.get(field, wanted):
            raise BadQuery(f"The value '{value}' does not exist for the field '{name}'.")
        field = "was" if sign == "was" else field

        def is_met(issue):
            found = lowered(issue[field])
            return bool(found) and wanted.isdisjoint(found) == (sign == "!=")
        return is_met

    def _search(self, ask, find):
        stamp = f"{zlib.crc32(ask['jql'].encode()):x}-"  # a token is of use to its query only
        start, more = str(ask.get("startAt", 0)), {"startAt", "validateQuery"}
        if self.cloud:
            start = (ask.get("nextPageToken") or stamp + "0").removeprefix(stamp)
            more = {"nextPageToken"}
        size = int(ask.get("maxResults", 50))
        if set(ask) - ASKS - more or not start.isdigit() or not self.cloud <= size <= 5000:
            return wrong(400, "Invalid request payload. Refer to the REST API documentation and "
                              "try again.")
        fields = ask.get("fields", "id" if self.cloud else "*navigable")
        fields = fields.split(",") if isinstance(fields, str) else fields
        most = self.id_page if set(fields) <= {"id", "key"} else self.page
        found, size, start = find(ask["jql"]), min(size, most), int(start)
        end = start + size
        page = {"issues": [self._dressed(issue, fields) for issue in found[start:end]]}
        if not self.cloud:
            page.update(startAt=start, maxResults=size, total=len(found))
        elif end < len(found):
            page.update(isLast=False, nextPageToken=stamp + str(end))
        else:
            page.update(isLast=True)
        return reply(200, self.bend(page))

    def _user(self, name):
        identity = {"accountId": "5b10a2844"} if self.cloud else {"name": "a", "key": "JIRAUSER1"}
        return {"displayName": name, "active": True, **identity}

    def _dressed(self, issue, fields):
        """*issue* as JIRA shows it, with no more than the *fields* that were asked for."""
        number = "1" + issue["key"].rpartition("-")[2]
        if fields == ["id"]:
            return {"id": number}
        fields = fields.split(",") if isinstance(fields, str) else fields
        told = datetime.datetime.now() - datetime.timedelta(issue["idle"])
        category_id, category = self.categories.get(issue["category"], (1, None))
        every = {
            "summary": issue["summary"], "updated": told.strftime("%Y-%m-%dT%H:%M:%S.105-0400"),
            "priority": issue["priority"] and {"id": "1", "name": issue["priority"]},
            "resolution": issue["resolution"] and {"id": "1", "name": issue["resolution"]},
            "assignee": issue["assignee"] and self._user(issue["assignee"]),
            "fixVersions": issue["versions"] and [version(name) for name in issue["versions"]],
            "status": category and {"name": category, "id": "1", "statusCategory": {
                "id": category_id, "key": issue["category"], "name": category}}}
        if not fields[0].startswith("*"):
            every = {name: every[name] for name in fields if name in every}
        return {"id": number, "key": issue["key"], "fields": every,
                "self": f"{self.origin}/rest/api/2/issue/{number}"}
