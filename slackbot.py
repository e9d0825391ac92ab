#!/usr/bin/env python3
"""slackbot.py: Slack slash commands from one file, on the standard library.

    python slackbot.py                          serve
    python slackbot.py demo                     serve a small Slack of its own to try it on
    python slackbot.py run /jira release 2.3    run one command in the terminal
    python slackbot.py check                    say what works, and what is missing
    python slackbot.py manifest https://HOST    print a manifest to make a Slack app of
    python slackbot.py manifest --socket        the same for Socket Mode; --name NAME names the app

What Slack sends is, apart from a few checks, a command line and an address for
the replies. Each way in (a slash command, a button, a message, Socket Mode) makes
a `Request` of it and hands that to the `Bot`. A slash command by HTTP must be
answered within 3 seconds; its later answers are posted to its response_url. The
others get an empty acknowledgement, and all their answers are posted.

The journey of one request
    Somebody types `/jira release 2.3`. Slack posts a form and waits 3 seconds.
    `WebServer.serve_forever`, a loop on one thread, reads the bytes.
    `RequestReader.next_request` makes an HTTP request of them, and
    `WebServer.route` finds the function for its path: `WebServer.handle_command`.
    That has the signature checked by `verify`, so the form is Slack's, and passes
    it to `Bot.accept`. There `find` looks the command up by its first words. If it
    is registered as inline, as `/hello` is, it runs on the loop, which answers at
    once, as it does if there is no such command. Any other command is queued for
    the worker threads, and its connection leaves the loop. On a worker, `Job.run`
    calls the function; `bind` has converted the other words to its arguments. Its
    first value answers Slack's request. If there is none after 2 seconds, the loop
    answers "Working on `/jira release 2.3`…" (`Bot.answer_overdue`), and the worker
    posts the value later. `Replies.send` posts the other values. The response_url
    takes five posts within thirty minutes; the fifth is kept for the last answer.
    If the command fails, or isn't done when the process stops, the user is told;
    after a crash, if there is a journal.

Contents
    limits and configuration: what several sections share; the environment; the log
    messages: what Slack shows, buttons too, and how text is made safe for it
    requests and verification: what Slack sends, and whether it was Slack
    commands: functions that answer, found by name; webhooks
    outgoing connections: look-ups and connections, within a deadline
    outgoing HTTP: one request to another server, within limits; Slack's Web API
    replies: all answers to one command, in order; the journal
    the bot: runs commands on threads, and sees to it that everybody gets a reply
    jira: the release report and the other JIRA commands
    network: /dig, /whois and /openssl
    greetings and help: the small commands
    HTTP messages: bytes into requests, and the bodies of answers
    HTTP server: one thread that listens, reads and answers
    WebSocket: frames, and a connection that speaks in them
    Socket Mode: the same commands without a public address
    demo: a small Slack and a sample JIRA, to try it all without either
    main: the command line; the manifest; start and stop

To add a command, write a file of your own beside this one. What a function
returns is its answer; what it yields are its answers, one after the other.

    import slackbot

    @slackbot.command("/greet")
    def greet(request, name: str, times: int = 1):
        "Greet somebody."
        return f"Hello {slackbot.escape(name)}! " * min(times, 5)

    if __name__ == "__main__":
        slackbot.main()
"""

# Modules that no first answer needs are imported in the functions that need them.
import base64, datetime, functools, hashlib, hmac, html, http, inspect, io
import itertools, json, logging, math, os, queue, random, re, secrets, selectors, shutil, signal
import socket, socketserver, struct, sys, threading, time, types
from collections.abc import Callable
from collections import defaultdict, namedtuple
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from urllib.parse import parse_qsl
from wsgiref.handlers import format_date_time

__version__ = "1.0"
__all__ = ["command", "webhook", "Request", "Rest", "UserError", "escape", "button", "main",
           "commands", "answers"]

# ---- limits and configuration ----------------------------------------------
# The limits that several sections share; the others stand where they are used.
# `SETTINGS` is all that the environment can say.

ECHO_CHARACTERS = 100  # of what the user typed, where an answer repeats it
SUMMARY_CHARACTERS = 90  # of somebody else's text: an issue's title fits a line
MESSAGE_CHARACTERS = 13_000  # in all texts of a message; Slack refuses more (bolt-js#2509)
BUTTON_VALUE = 2_000  # characters of a button's value; Slack's limit
POST_LIMIT = 5  # messages that a response_url takes; Slack's limit
POST_WINDOW = 30 * 60  # seconds in which it takes them; Slack's limit
HEAD_BYTES = 64 * 1024  # of HTTP header fields; Slack and a host's router send 1 KB
DNS_PORT = 53  # IANA
WHOIS_PORT = 43  # IANA
HTTPS_PORT = 443  # IANA
SIMILARITY = 0.8  # of a mistyped name to the right one, from 0 to 1
CONNECTIONS = 1000  # open at once; each costs a file descriptor and a few KB

URL_PARTS = re.compile(r"[Hh][Tt][Tt][Pp]([Ss]?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])"
                       r"(?::([0-9]{1,5}))?(?:[/?#][!-\[\]-~]*)?")
HOST_AND_PORT = re.compile(
    r"(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+|[0-9a-fA-F:.]+)(?::([0-9]{1,5}))?")
QUERIES = json.loads("""{
    "Blockers": "statusCategory != Done AND priority in (Blocker, Highest)",
    "In progress": "statusCategory = \\"In Progress\\"",
    "To do": "statusCategory = \\"To Do\\"",
    "Unassigned": "assignee is EMPTY AND statusCategory != Done",
    "Reopened": "status WAS Done AND statusCategory != Done",
    "Stale": "statusCategory != Done AND updated <= -7d",
    "Inconsistent": "statusCategory = Done AND resolution is EMPTY",
    "Done": "statusCategory = Done"}""")  # the default of JIRA_QUERIES, in its form
# What /status names as missing, and what the page says of it in setup mode.
MISSING = {
    "SLACK_SIGNING_SECRET": "Needed: SLACK_SIGNING_SECRET. You find it at api.slack.com/apps, in "
                            "your app, under Basic Information, App Credentials.",
    "JIRA_URL": "Optional: JIRA_URL, for /jira."}


class ConfigError(Exception):
    """The configuration is invalid; the arguments are a sentence for each mistake. None shows a
    value, which might be a secret (but for the journal's path)."""


def checked(cast, is_right):
    """A cast like *cast*, with ValueError for a value that isn't right."""
    def strict(text):
        value = cast(text)
        if not is_right(value):
            raise ValueError
        return value
    return strict


def between(kind, low, high):
    """A cast to a number of a *kind*, from *low* to *high*."""
    return checked(kind, lambda value: low <= value <= high)


def comma_separated(cast):
    """A cast to a tuple: *cast* of each text between commas."""
    return lambda text: tuple(cast(part.strip()) for part in text.split(","))


def endpoint(default_port):
    """A cast of HOST, HOST:PORT or [IPV6]:PORT to (host, port)."""
    def cast(text):
        found = HOST_AND_PORT.fullmatch(text)
        if not found:
            raise ValueError
        port = between(int, 1, 65_535)(found[2] or default_port)
        return found[1].strip("[]"), port
    return cast


def name_servers():
    """The name servers that this machine asks, as (address, port) pairs."""
    addresses = []
    with suppress(OSError), open("/etc/resolv.conf", errors="replace") as file:
        addresses = re.findall(r"^nameserver[ \t]+([\da-fA-F:.]+(?:%\S+)?)(?!\S)",
                               file.read(), re.M)
    return tuple((address, DNS_PORT) for address in addresses or ["8.8.8.8"])


def default_connections():
    """How many connections may be open: a quarter of the file descriptors is for other things."""
    try:
        import resource
    except ImportError:  # Windows, where select takes 512
        return CONNECTIONS // 4
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if limit < 0 else min(CONNECTIONS, limit * 3 // 4)


def origin(url):
    """Scheme, host and port of *url*; "" for one with spaces, backslashes or a user name."""
    found = URL_PARTS.fullmatch(url)
    if not found:
        return ""
    secure, host, port = found.groups()
    port = int(port or (443 if secure else 80))
    return f"http{secure}://{host}:{port}".lower() if port < 65_536 else ""


def is_confidential(url):
    """Whether nobody can read what goes to *url*: it is https, or stays on this machine."""
    return re.match(r"https:|http://(localhost|127\.[0-9.]+|\[::1\]):", origin(url))


def report_queries(text):
    """A cast of JSON to the sections of a report: {title: JQL clause}, 20 at most."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"it isn't JSON: {error}") from None
    if 0 < len(data) <= 20 and all(map(str.strip, [*data, *data.values()])):
        return data
    raise ValueError


def word(text):
    """A cast to a text of one word in ASCII."""
    if not re.fullmatch("[!-~]+", text):
        raise ConfigError("it contains a space or a letter that isn't ASCII")
    return text


def signing_secret(text):
    """A cast to Slack's signing secret."""
    if text.startswith("xox"):
        raise ConfigError("this looks like a bot token")
    return word(text)


def is_address(server):
    """Whether the host in (host, port) is an address, not a name."""
    return re.fullmatch("[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", server[0])


def is_file_path(path):
    """Whether a regular file is at *path*, or can be made there."""
    if os.path.exists(path):
        return os.path.isfile(path)
    return os.path.isdir(os.path.dirname(path) or ".")


SITE = checked(lambda text: text.rstrip("/"), origin)
COUNT = between(int, 1, 10_000)
PROJECT_KEY = re.compile("[A-Z][A-Z0-9_]+").fullmatch
SAFE_URL = checked(SITE, is_confidential)
SLACK_SECRETS = {"SLACK_SIGNING_SECRET", "SLACK_VERIFICATION_TOKEN"}
JIRA_CLOUD = {"JIRA_USERNAME", "JIRA_API_TOKEN"}
SETTINGS = {  # name: (default, cast, what it should be)
    "PORT": (8080, between(int, 0, 65_535), "a port, 0 for any; unset: 8080"),
    "HOST": ("", word, "an address; unset: 0.0.0.0 with PORT, 127.0.0.1 without"),
    "SLACK_SIGNING_SECRET": (None, signing_secret, "the app's signing secret"),
    "SLACK_VERIFICATION_TOKEN": (None, word, "the app's verification token (older apps)"),
    "SLACK_TEAM_ID": ((), comma_separated(checked(str, re.compile("[A-Z0-9]+").fullmatch)),
                      "ids of workspaces, with commas"),
    "SLACK_BOT_TOKEN": (None, word, "the app's bot token, xoxb-…: mentions, files"),
    "SLACK_APP_TOKEN": (None, word, "an app-level token, xapp-…, for Socket Mode"),
    "SLACK_API_URL": ("https://slack.com/api", SAFE_URL, "an https URL: the Web API's base"),
    "SLACK_WEBHOOK_URL": (None, SAFE_URL, "an https URL: where posts to /post go"),
    "SLACK_HOOKS_ORIGINS": (("https://hooks.slack.com:443", "https://hooks.slack-gov.com:443"),
                            comma_separated(checked(origin, is_confidential)),
                            "https URLs, with commas: where a response_url may point"),
    "JIRA_URL": (None, SITE, "a URL, https://example.atlassian.net"),
    "JIRA_API_URL": (None, SITE, "a URL: the REST API's base where it isn't JIRA_URL"),
    "JIRA_USERNAME": (None, word, "Cloud: the e-mail address of the bot's account"),
    "JIRA_API_TOKEN": (None, word, "Cloud: its API token"),
    "JIRA_PERSONAL_TOKEN": (None, word, "Data Center: a personal access token"),
    "JIRA_PROJECT": ((), comma_separated(checked(str.upper, PROJECT_KEY)),
                     "keys of projects, with commas: where reports look"),
    "JIRA_QUERIES": (QUERIES, report_queries,
                     "a JSON object: up to 20 sections' clauses"),
    "DNS_SERVER": (name_servers(), comma_separated(checked(endpoint(DNS_PORT), is_address)),
                   "ADDRESS or ADDRESS:PORT for /dig"),
    "WHOIS_SERVER": (("whois.iana.org", WHOIS_PORT), endpoint(WHOIS_PORT),
                     "HOST or HOST:PORT where /whois starts"),
    "NETWORK_ALLOW_PRIVATE": (None, lambda text: text == "1",
                              "1: /whois and /openssl may reach private addresses"),
    "SLACKBOT_WORKERS": (200, COUNT, "1 to 10000, the commands at once"),
    "SLACKBOT_CONNECTIONS": (default_connections(), COUNT, "1 to 10000, the connections at once"),
    "SLACKBOT_QUEUE": (1000, between(int, 0, 100_000),
                       "0 to 100000, the commands that may wait for a worker"),
    "SLACKBOT_ACK_SECONDS": (2, between(float, 0, 2.5), "0 to 2.5"),
    "SLACKBOT_GRACE_SECONDS": (25, between(float, 0, 3600), "0 to 3600"),
    "SLACKBOT_JOURNAL": (None, checked(str, is_file_path),
                         "a file, in a directory that is there: commands whose users still wait"),
    "SLACKBOT_WEBHOOK_TOKEN": (None, word, "a secret of yours that /post asks for"),
    "LOG_LEVEL": ("INFO", checked(str.upper, re.compile("DEBUG|INFO|WARNING|ERROR").fullmatch),
                  "DEBUG, INFO, WARNING or ERROR"),
}


class Config:
    """The settings as attributes in small letters (`PORT` is `port`), and `mode`: "live", "demo"
    or "setup" (no secret yet: the page says so, and commands get 503); `given` has the names of
    those that are set. ConfigError lists what is wrong."""

    def __init__(self, environ, demo=False):
        given = {name for name in SETTINGS if environ.get(name, "").strip()}
        problems = []
        for name, (default, cast, what) in SETTINGS.items():
            try:
                value = cast(environ[name].strip()) if name in given else default
                setattr(self, name.lower(), value)
            except Exception as error:  # whatever a cast fails with, the value is to blame
                reason = f"; {error}" if isinstance(error, ConfigError) else ""
                problems.append(f"{name} should be {what}{reason}")
        problems += contradictions(given)
        if problems:
            raise ConfigError(*problems)
        # What follows from these settings: what is missing, the address, the mode.
        self.given = given
        self.missing = [name for name in MISSING if name not in given]
        self.host = self.host or ("0.0.0.0" if "PORT" in given else "127.0.0.1")
        self.jira_api_url = self.jira_api_url or self.jira_url
        if demo or not given & {"PORT", "SLACK_APP_TOKEN", *SLACK_SECRETS}:
            self.mode = "demo"
            self.host = "127.0.0.1"
            self.slack_team_id = ()
            self.slack_verification_token = None
            self.slack_app_token = self.slackbot_journal = None
            self.slack_signing_secret = secrets.token_hex(16)
        else:
            self.mode = "live" if given & SLACK_SECRETS else "setup"


def contradictions(given):
    """A sentence for each of the settings (names) that doesn't go with the others."""
    if "SLACK_TEAM_ID" in given and not given & SLACK_SECRETS:
        yield "SLACK_TEAM_ID proves nothing without SLACK_SIGNING_SECRET"
    if given & JIRA_CLOUD and not given >= JIRA_CLOUD:
        yield "JIRA_USERNAME and JIRA_API_TOKEN go together"
    if given & JIRA_CLOUD and "JIRA_PERSONAL_TOKEN" in given:
        yield "JIRA_API_TOKEN is for Cloud, JIRA_PERSONAL_TOKEN for Data Center: keep one"
    if given & {"JIRA_API_URL", "JIRA_PERSONAL_TOKEN", *JIRA_CLOUD} and "JIRA_URL" not in given:
        yield "JIRA_URL is missing beside what else JIRA needs"


PLAIN_VALUE = re.compile("[!#-<>-~]+").fullmatch


class EventLog(logging.LoggerAdapter):
    """A logger whose calls take an event and fields: `log.info("event", key=value)`. A line is
    `event=posted path=/post data="two words"`; no value can break it or begin a new one."""

    stream = sys.stderr

    def process(self, event, fields):
        """The line, and what of the fields is logging's own."""
        own = {"exc_info": fields.pop("exc_info", None)}
        line = f"event={event}"
        for key, value in fields.items():
            text = str(value)
            line += f" {key}={text if PLAIN_VALUE(text) else json.dumps(text)}"
        return line, own

    def request(self, **fields):
        """Log a request. No record of logging's is made: that takes as long as all else."""
        if self.isEnabledFor(logging.INFO):
            line, _ = self.process("request", fields)
            self.stream.write(f"level=INFO {line}\n")


log = EventLog(logging.getLogger("slackbot"))


def warn_of_misspelled(environ):
    """Log the names in the environment that are nearly one of ours."""
    import difflib
    for name in sorted(environ.keys() - SETTINGS.keys()):
        for ours in difflib.get_close_matches(name, SETTINGS, 1, SIMILARITY):
            log.warning("unknown_variable", name=name, perhaps=ours)


# ---- messages --------------------------------------------------------------
# A message is Slack's JSON as a dict: `text` in mrkdwn, perhaps `blocks`, and a
# `response_type`, "ephemeral" for the one who asked or "in_channel" for all.
# https://docs.slack.dev/messaging/formatting-message-text

CODE_CHARACTERS = 9_000  # of what another program said; fits a message, with a summary
BUTTON_LABEL = 75  # characters; Slack refuses more
NAME_CHARACTERS = 40  # of a status, a name: a row fits a line of Slack's
TABLE_ROWS = 100  # without the header; Slack's limit
TABLE_CHARACTERS = 10_000  # in all cells; Slack's limit
LABEL_CHARACTERS = 20  # of a chart's category; Slack's limit
BAR_CELLS = 20  # of a bar in text; fits a phone's line
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
STRAIGHT_QUOTES = str.maketrans("“”„‟‘’‚‛", "\"\"\"\"''''")
SLACK_LINK = re.compile(r"<(?:(?:mailto:|tel:|https?:)[^<>|]*|([@#])[^<>|]*)\|([^<>|]*)>"
                        r"|<(?:mailto:|tel:)([^<>|]*)>|<((?:[@#]|https?:)[^<>|]*)>")


class UserError(Exception):
    """What the user should know, in mrkdwn; it is shown as it is."""


def escape(text: str) -> str:
    """Plain *text* as mrkdwn in which nothing can be a mention or a link.
    >>> escape("<!channel> & all")
    '&lt;!channel&gt; &amp; all'"""
    return html.escape(str(text), quote=False)


def unescape(text):
    """Undo `escape`, once. Slack knows these three entities and no other."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def unlink(text):
    """*text* as it was typed, without the links that Slack makes of addresses and names.
    >>> unlink("<http://example.com|example.com> <@U1|ann> <mailto:a@b.c|a@b.c>")
    'example.com @ann a@b.c'"""
    return SLACK_LINK.sub(lambda found: "".join(found.groups("")), text)


def shorten(text, limit=NAME_CHARACTERS):
    """Somebody else's *text* on one line of at most *limit* characters; not escaped."""
    line = " ".join(str(text).split())
    return clip(CONTROL.sub("", line), limit)


def one_line(text, limit=ECHO_CHARACTERS):
    """The same, escaped."""
    return escape(shorten(text, limit))


def link(url, label):
    """A link in mrkdwn; both parts are plain text."""
    return f"<{escape(url).replace('|', '%7C')}|{label_of(label)}>"


def label_of(text):
    """Plain *text* as mrkdwn for a title or a link: short, even where much is escaped."""
    return clip(one_line(text, NAME_CHARACTERS), 2 * NAME_CHARACTERS)


def clip(text, limit):
    """*text* of at most *limit* characters, cut off if need be, but not within an entity."""
    if len(text) <= limit:
        return text
    text = re.sub("&[a-z]{0,3}$", "", text[:limit - 1])
    return f"{text}…"


def code_block(text):
    """Another program's *text* as a block of code, cut off if it is too long."""
    text = CONTROL.sub("", text).strip().replace("`", "'")
    return f"```\n{clip(escape(text), CODE_CHARACTERS)}\n```"


def button(label: str, line: str, action_id: str = "run") -> dict:
    """A button for an "actions" block: a press runs the command *line*. ValueError for a long one.
    Buttons in one block need an *action_id* each, "run:…"; with "run:replace" the answers take
    the place of the button's message.
    https://docs.slack.dev/reference/block-kit/block-elements/button-element"""
    if len(line) > BUTTON_VALUE:
        raise ValueError("a button's command line is too long for Slack")
    return {
        "type": "button",
        "text": {"type": "plain_text", "text": label[:BUTTON_LABEL]},
        "action_id": action_id,
        "value": line,
    }


def mrkdwn(text):
    """A text object."""
    return {"type": "mrkdwn", "text": text}


def text_block(text):
    """A section block."""
    return {"type": "section", "text": mrkdwn(text)}


def cell(text, limit=NAME_CHARACTERS):
    """A table's cell with plain text."""
    return {"type": "raw_text", "text": shorten(text, limit) or "–"}


def value_cell(text):
    """A table's cell with a number (str, "1,234"), or with text if it is none."""
    try:
        return {"type": "raw_number", "value": int(text.replace(",", "")), "text": text}
    except ValueError:
        return cell(text)


def link_cell(url, text):
    """A table's cell with a link."""
    section = {"type": "rich_text_section",
               "elements": [{"type": "link", "url": url, "text": text or "?"}]}
    return {"type": "rich_text", "elements": [section]}


def data_table(caption, header, rows):
    """A table that readers sort and page through, and how many of the *rows* (lists of cells) it
    holds. https://docs.slack.dev/reference/block-kit/blocks/data-table-block"""
    held = []
    room = TABLE_CHARACTERS
    for row in [list(map(cell, header)), *rows[:TABLE_ROWS]]:
        room -= sum(map(len, texts_of(row)))
        if room < 0:
            break
        held.append(row)
    table = {
        "type": "data_table",
        "caption": shorten(caption, ECHO_CHARACTERS),
        "page_size": 10,
        "row_header_column_index": 0,
        "rows": held,
    }
    return table, len(held) - 1


def bar_chart(title, values, names):
    """A chart of issues, *values*: by category (`short_label`), how many for each of *names*.
    https://docs.slack.dev/reference/block-kit/blocks/data-visualization-block"""
    series = []
    for index, name in enumerate(names):
        data = [{"label": label, "value": counts[index]} for label, counts in values.items()]
        series.append({"name": name, "data": data})
    return {
        "type": "data_visualization",
        "title": title,
        "chart": {
            "type": "bar",
            "axis_config": {"categories": list(values), "y_label": "issues"},
            "series": series,
        },
    }


def short_label(text, taken):
    """*text* as a chart's category that isn't one of those *taken*: a number tells them apart."""
    label = shorten(text, LABEL_CHARACTERS)
    number = 1
    while label in taken:
        number += 1
        label = f"{shorten(text, LABEL_CHARACTERS - 4)} {number}"
    return label


def bar(counts):
    """Three counts as a bar of text, a cell at least for each that isn't 0; blank if all are 0."""
    total = sum(counts)
    if not total:
        return " " * BAR_CELLS
    cells = [math.ceil(count * BAR_CELLS / total) for count in counts]
    cells[cells.index(max(cells))] += BAR_CELLS - sum(cells)
    return "".join(cell * width for cell, width in zip("█▓░", cells))


def is_empty(answer):
    """Whether a handler's answer says nothing."""
    if isinstance(answer, dict):
        return not any(answer.values())
    return answer is None or isinstance(answer, str) and not answer.strip()


def message(answer, public=False):
    """What a handler answered, a str or a dict, as a message; TypeError for anything else."""
    if isinstance(answer, str):
        answer = {"text": clip(answer, MESSAGE_CHARACTERS)}
    if not isinstance(answer, dict):
        raise TypeError(f"an answer is a str or a dict, not a {type(answer).__name__}; for "
                        'several answers use yield, for several lines "\\n".join(lines)')
    return {"response_type": "in_channel" if public else "ephemeral", **answer}


def to_json(data):
    """*data* as JSON, in bytes; TypeError or ValueError for what JSON can't say."""
    return json.dumps(data, allow_nan=False).encode()


def texts_of(part):
    """All texts in a part of a message, in reading order."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for each in part:
            yield from texts_of(each)
    elif part.get("type") != "actions":
        for name in ("text", "fields", "elements"):
            yield from texts_of(part.get(name) or [])


# As `to_json` writes it; in a text the quotes would be escaped.
DATA_BLOCK = re.compile(rb'"type": "data_(table|visualization)"')


def has_data_blocks(body):
    """Whether a message (bytes, JSON, or None) has a block that not every workspace has."""
    return body and DATA_BLOCK.search(body)


def without_data_blocks(body):
    """A message (bytes, JSON, or None) without the tables and charts in its blocks."""
    if not has_data_blocks(body):
        return body
    made = json.loads(body)
    made.setdefault("text", "This workspace can't show tables and charts yet.")
    made["blocks"] = [block for block in made.get("blocks", ())
                      if not has_data_blocks(to_json(block))]
    return to_json(made)


def plain(answer):
    """A message as text for a terminal: links and entities readable, tables in columns."""
    lines = []
    for block in answer.get("blocks") or [answer]:
        if block.get("type") == "data_table":
            lines += table_lines(block["rows"])
        elif block.get("type") == "data_visualization":
            lines += chart_lines(block["chart"]["series"])
        else:
            lines += map(plain_text, texts_of(block))
    return "\n".join(lines)


def plain_text(text):
    """Mrkdwn as plain text."""
    text = re.sub(r"<([^<>|]+)\|([^<>]*)>", r"\2 (\1)", text)
    text = re.sub(r"<([^<>|]+)>|```\n|\n```", r"\1", text)
    return unescape(text)


def table_lines(rows):
    """A table's rows as lines of aligned columns, cut to the width of the terminal."""
    rows = [["".join(texts_of(each)) for each in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        line = "  ".join(map(str.ljust, row, widths))
        yield line[:shutil.get_terminal_size().columns].rstrip()


def chart_lines(series):
    """A chart's series as a line for each category."""
    for points in zip(*(each["data"] for each in series)):
        values = [point["value"] for point in points]
        shown = " · ".join(f"{value} {each['name']}" for value, each in zip(values, series))
        yield f"{points[0]['label']:{LABEL_CHARACTERS}} {bar(values)} {shown}"


# ---- requests and verification ---------------------------------------------
# The `Request` that every way in makes for the bot, and the checks that it is Slack's.
# https://docs.slack.dev/authentication/verifying-requests-from-slack

SIGNATURE_SECONDS = 300  # how old a signature may be; Slack's own figure
REPEAT_SECONDS = 30  # in which a proxy may repeat a request
REMEMBERED = 10_000  # ids of requests, against replay; about 2 MB. Over 33 a second would have
# to come until one is forgotten while its signature is still good.
FORM_FIELDS = 100  # Slack sends 15; a form of thousands only costs time
TIMESTAMP = re.compile("[0-9]{1,12}").fullmatch
NOT_SLACK = "this isn't verified to be Slack's"  # but never which check has failed


class Request(types.SimpleNamespace):
    """A command line, who typed it and where: texts, by the names that Slack's form has."""

    command: str = ""
    text: str = ""
    user_name: str = ""
    user_id: str = ""
    channel_id: str = ""
    team_id: str = ""
    response_url: str = ""
    replace_original: bool = False  # whether the answers take the place of the button's message

    bot: object = None  # the Bot that runs the command: `request.bot.jira`, say

    @property
    def line(self) -> str:
        """The whole command line, as plain text."""
        return unescape(unlink(f"{self.command} {self.text}")).strip()


def request_of_line(line, **fields):
    """The Request of a command *line* in plain text, with other *fields* by name."""
    name, _, text = line.partition(" ")
    return Request(command=name, text=escape(text), **fields)


class HTTPError(Exception):
    """An HTTP request that gets an error *status*, a sentence that says why, perhaps
    *header_lines*."""

    def __init__(self, status, why, header_lines=""):
        self.status = status
        self.why = why
        self.header_lines = header_lines


def require(condition, *error):
    """Raise HTTPError, of which *error* are the arguments, unless the *condition* holds."""
    if not condition:
        raise HTTPError(*error)


def parse_form(body):
    """The fields of a form post (bytes) as a dict of str; HTTPError (400) if there are too many.
    >>> parse_form(b"command=%2Fhello&text=a+b")
    {'command': '/hello', 'text': 'a b'}"""
    try:
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True,
                              max_num_fields=FORM_FIELDS))
    except ValueError:
        raise HTTPError(400, "a form with more fields than Slack would send") from None


def is_ssl_check(body):
    """Whether a form post (bytes) is Slack's check of our certificate, which isn't signed."""
    return b"&ssl_check=1&" in b"&%b&" % body


def parse_json(text):
    """JSON (str or bytes) as data, or HTTPError (400)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise HTTPError(400, "this isn't JSON") from None


def text_at(data, *path):
    """The text at a *path* of keys and indexes in JSON's data; "" where there is none.
    >>> text_at({"actions": [{"value": "/hello"}]}, "actions", 0, "value")
    '/hello'"""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return ""
    return data if isinstance(data, str) else ""


def request_of_action(payload):
    """The Request of a pressed `button`; None for any other one; HTTPError (400) without a type.
    https://docs.slack.dev/reference/interaction-payloads/block_actions-payload"""
    text = functools.partial(text_at, payload)
    require(text("type"), 400, "a payload without a type")
    action_id = text("actions", 0, "action_id")
    if text("type") != "block_actions" or not re.match("run(:|$)", action_id):
        return None
    return request_of_line(
        text("actions", 0, "value"), user_id=text("user", "id"),
        user_name=text("user", "username"), team_id=text("team", "id"),
        channel_id=text("channel", "id"), response_url=text("response_url"),
        replace_original=action_id == "run:replace")


def request_of_event(payload):
    """The Request of a mention or a direct message; None for what isn't a person's command line.
    Its response_url is `thread:CHANNEL/TIMESTAMP`: its answers go into a thread by the Web API.
    https://docs.slack.dev/reference/events/app_mention"""
    text = functools.partial(text_at, payload, "event")
    bot = text_at(payload, "authorizations", 0, "user_id")
    is_direct = text("type") == "message" and text("channel_type") == "im"
    is_known = is_direct or text("type") == "app_mention"
    if text_at(payload, "type") != "event_callback" or not is_known:
        return None
    if text("bot_id") or text("subtype") or text("user") == bot:
        return None
    line = text("text")
    if not is_direct or line.startswith("<@"):  # the command comes after the bot's name
        mention = f"<@{bot}" if f"<@{bot}" in line else "<@"
        line = line.partition(mention)[2].partition(">")[2]
    name, _, rest = (line.strip().lstrip("/:, \n") or "help").partition(" ")
    return Request(
        command=f"/{name}", text=rest, user_id=text("user"), channel_id=text("channel"),
        team_id=text_at(payload, "team_id"),
        response_url=f"thread:{text('channel')}/{text('thread_ts') or text('ts')}")


def is_same(given, expected):
    """Whether two secrets (str) are the same, in a time that doesn't tell how much of it is."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def is_signed(secret, headers, body, now):
    """Whether Slack signed *body* (bytes) within 5 minutes of *now* (Unix time): the header fields
    say so."""
    timestamp = headers.get("x-slack-request-timestamp", "")
    if not TIMESTAMP(timestamp) or abs(now - int(timestamp)) > SIGNATURE_SECONDS:
        return False
    signed = b"v0:" + timestamp.encode() + b":" + body
    expected = "v0=" + hmac.digest(secret.encode(), signed, "sha256").hex()
    return is_same(headers.get("x-slack-signature", ""), expected)


def is_from_webhook(token, headers, body):
    """Whether a webhook's sender knows the *token*: it is the bearer token, or the key of GitHub's
    signature. https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    signature = "sha256=" + hmac.digest(token.encode(), body, "sha256").hex()
    return (is_same(headers.get("authorization", ""), f"Bearer {token}")
            or is_same(headers.get("x-hub-signature-256", ""), signature))


class SeenIDs:
    """The ids of requests that have come, so that none is served again later; the oldest are
    forgotten."""

    def __init__(self, tolerance=0, clock=time.monotonic):
        self.tolerance = tolerance  # seconds in which an id may come again
        self.clock = clock
        self.first_seen = {}  # when, by id
        self.lock = threading.Lock()  # events come by HTTP and by Socket Mode

    def admit(self, id_):
        """Keep this id. Returns false for a replay: it came before, longer ago than is
        tolerated."""
        now = self.clock()
        with self.lock:
            if id_ in self.first_seen:
                return now - self.first_seen[id_] < self.tolerance
            self.first_seen[id_] = now
            if len(self.first_seen) > REMEMBERED:
                del self.first_seen[next(iter(self.first_seen))]
        return True


def demo_origin(config, headers):
    """The origin of the demo's page. HTTPError (403) for any other page, which could drive the
    bot through the user's browser."""
    own = "http://" + headers.get("host", "")
    require(origin(own) in config.slack_hooks_origins and headers.get("origin", own) == own
            and headers.get("sec-fetch-site", "none") in ("none", "same-origin"),
            403, "this is for the demo's own page")
    return own


def verify(config, headers, body, now, seen):
    """HTTPError (401) unless Slack signed the request, where that can be checked, and it wasn't
    *seen* (`SeenIDs`) some time before: a proxy may repeat a request at once."""
    secret = config.slack_signing_secret
    if secret:
        is_good = (is_signed(secret, headers, body, now)
                   and seen.admit(headers["x-slack-signature"]))
        require(is_good, 401, NOT_SLACK)


def verify_token(config, token):
    """HTTPError (401) unless the *token* in a request is the one that is configured, if one is."""
    wanted = config.slack_verification_token
    require(not wanted or is_same(token, wanted), 401, NOT_SLACK)


def verify_sender(config, payload):
    """HTTPError unless a payload's team is one of those that are configured, if any are (401), and
    its response_url is Slack's, if it has one (400)."""
    team_id = text_at(payload, "team_id") or text_at(payload, "team", "id")
    response_url = text_at(payload, "response_url")
    require(not config.slack_team_id or team_id in config.slack_team_id, 401, NOT_SLACK)
    require(not response_url or origin(response_url) in config.slack_hooks_origins,
            400, "the response_url isn't Slack's")


# ---- commands --------------------------------------------------------------
# A command is a function. Its name is one word or several, its arguments are
# the function's parameters, its help is the function's docstring.

SUMMARY_LINES = 20  # of what was posted to /post
NAME_WORDS = 3  # that a command's name may have
WORDS = re.compile(r"""(?s)(?:\\["'\\ ]|"(?:[^"\\]|\\.)*"|(?<!\w)'[^']*'|\S)+""")
QUOTED = re.compile(r"""(?s)\\(["'\\ ])|"((?:[^"\\]|\\.)*)"|(?<!\w)'([^']*)'""")
PUBLIC = re.compile(r"(?:^|\s)(?:--|—)public\s*$")
KINDS = {int: "a whole number", float: "a number", bool: "yes or no"}


class Rest(str):
    """Annotates a last parameter that takes the rest of the text as it was typed, unsplit."""


# A function under a name: usage is its whole usage line, summary its docstring's first, inline
# whether it runs on the server's own thread.
Command = namedtuple("Command", "name handler parameters usage summary inline")
commands: dict[str, Command] = {}  # the registry, by name
webhooks = {}  # functions of what is posted to /post/NAME, by NAME


def parameters_of(handler):
    """A function's parameters after the request, as inspect's Parameters. TypeError for one that
    can't be a command."""
    problem = ""
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        problem = "should be a plain def: it runs on a thread, and may wait there"
    given = inspect.signature(handler, eval_str=True).parameters.values()
    request, *parameters = [without_none(each) for each in given] or [None]
    if not request or request.annotation not in (request.empty, Request):
        problem = "should take the request as its first parameter"
    for parameter in parameters:
        kind = parameter.annotation
        choices = getattr(kind, "__args__", [kind])  # a Literal has values, anything else types
        is_known = kind in (parameter.empty, str, Rest, *KINDS)
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            problem = f"{parameter.name} comes after a *: a command line has nothing for it"
        elif not is_known and any(isinstance(choice, type) for choice in choices):
            problem = (f"{parameter.name} can't be {kind}; "
                       "there are str, int, float, bool, Rest and Literal")
        elif kind is Rest and parameter is not parameters[-1]:
            problem = f"{parameter.name} is a Rest, which leaves nothing for the next one"
    if problem:
        code = inspect.unwrap(handler).__code__
        raise TypeError(f"{code.co_filename}:{code.co_firstlineno}: {handler.__name__}: {problem}")
    return parameters


def without_none(parameter):
    """A parameter annotated `int` where it was `int | None`."""
    kinds = getattr(parameter.annotation, "__args__", ())
    if len(kinds) == 2 and kinds[1] is types.NoneType:
        return parameter.replace(annotation=kinds[0])
    return parameter


def command(name: str, usage: str | None = None, inline: bool = False) -> Callable:
    """Register the decorated function as a command. *usage* overrides what its parameters say.
    An *inline* one only computes: it runs on the server's own thread, and must wait for nothing.
    ValueError for a bad name or one that is taken, TypeError for a function that can't be one."""
    if not isinstance(name, str):
        raise TypeError('write @command("/name"), with the name in brackets')
    if name in commands:
        raise ValueError(f'{name} is taken; del slackbot.commands["{name}"] removes it')
    if not re.fullmatch(rf"/[a-z0-9_-]{{1,31}}( [a-z0-9_-]+){{0,{NAME_WORDS - 1}}}", name):
        raise ValueError(f"{name!r} should be like '/name' or '/name word', in small letters")

    def register(handler):
        parameters = parameters_of(handler)
        if inline and inspect.isgeneratorfunction(handler):
            raise TypeError(f"{handler.__name__}: an inline command has one answer, no yield")
        line = " ".join(map(placeholder, parameters)) if usage is None else usage
        summary, *_ = inspect.cleandoc(handler.__doc__ or "").split("\n")
        commands[name] = Command(name, handler, parameters, f"{name} {line}".strip(), summary,
                                 inline)
        return handler
    return register


def webhook(name: str) -> Callable:
    """Register the decorated function for POST /post/NAME: it gets what was posted, as data, and
    returns what goes to SLACK_WEBHOOK_URL: a str or a dict, or None for nothing."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,40}", name):
        raise ValueError(f"{name!r} should be a word of letters, digits, _ and -")

    def register(handler):
        webhooks[name] = handler
        return handler
    return register


def summarize(data):
    """What was posted to /post as mrkdwn: a line for each field."""
    if not isinstance(data, dict):
        return one_line(json.dumps(data), SUMMARY_CHARACTERS)
    lines = [f"*{one_line(key)}*: {one_line(summarize_value(value), SUMMARY_CHARACTERS)}"
             for key, value in data.items()]
    if len(lines) > SUMMARY_LINES:
        lines[SUMMARY_LINES:] = ["…"]
    return "\n".join(lines)


def summarize_value(value):
    """A field's value in short: the name of a nested object, what is in a list."""
    if isinstance(value, dict):
        names = [text_at(value, key) for key in (
            "full_name", "title", "name", "login", "message", "id")]
        return next(filter(None, names), "…")
    if isinstance(value, list):
        return ", ".join(map(summarize_value, value))
    return str(value)


def capitals(parameter):
    """A parameter's name as users see it: `type_` is TYPE."""
    return parameter.name.rstrip("_").upper()


def placeholder(parameter):
    """How a usage line shows a *parameter*: NAME, [NAME] or [NAME…]."""
    name = capitals(parameter)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"[{name}…]"
    return name if parameter.default is parameter.empty else f"[{name}]"


def find(line):
    """The Command with the longest name that *line* begins with, and the text after it.
    UserError if there is none."""
    for count in range(NAME_WORDS, 0, -1):
        words = line.split(None, count)
        name = " ".join(words[:count]).lower()
        if name in commands:
            return commands[name], "".join(words[count:])
    raise UserError(did_you_mean(line) or
                    f"There is no `{one_line(line.split(' ')[0])}` here. Commands:\n"
                    f"{usage_lines(commands.values())}")


def did_you_mean(line):
    """What to say if a command *line* begins with nearly a command's name; "" if it doesn't."""
    import difflib
    words = line.lower().split()[:NAME_WORDS]
    for count in range(1, len(words) + 1):
        typed = " ".join(words[:count])
        names = [name for name in commands if len(name.split()) == count]
        near = difflib.get_close_matches(typed, names, 1, SIMILARITY)
        if near and near != [typed]:
            return f"There is no `{one_line(typed)}`. Did you mean `{near[0]}`?"
    return ""


def usage_lines(some):
    """The usage and summary of *some* commands, a line each."""
    return "\n".join(f"• `{escape(one.usage)}` {escape(one.summary)}" for one in sorted(some))


def family(name):
    """The commands whose first word is that of *name*, in order: that of one word is first."""
    return sorted(one for one in commands.values() if one.name.split()[0] == name.split()[0])


def unquote(found):
    """What a match of `QUOTED` stands for: an escaped character, or what is between quotes."""
    escaped, double, single = found.groups("")
    double = re.sub(r"""\\(["\\])""", r"\1", double)
    return f"{escaped}{double}{single}"


def split_words(text):
    """The words of *text*, split as a shell would, each with where it begins; lone quotes stay.
    >>> list(split_words('it\\'s "two words"'))
    [(0, "it's"), (5, 'two words')]"""
    for word in WORDS.finditer(text.translate(STRAIGHT_QUOTES)):
        yield word.start(), QUOTED.sub(unquote, word[0])


def convert(word, parameter):
    """*word* as the kind of value that a parameter's annotation asks for, or UserError."""
    kind = parameter.annotation
    choices = {str(choice): choice for choice in getattr(kind, "__args__", ())}
    try:
        if choices:
            return choices[word]
        if kind is bool:
            import configparser
            return configparser.ConfigParser.BOOLEAN_STATES[word.lower()]
        return kind(word) if kind in KINDS else word
    except (ValueError, KeyError):
        wanted = f"one of {', '.join(choices)}" if choices else KINDS[kind]
        raise UserError(f"{capitals(parameter)} should be {escape(wanted)}, "
                        f"not `{one_line(word)}`.") from None


def bind(parameters, text):
    """What was typed after a command's name as values for its *parameters*, or UserError. Those
    at the end for which nothing was typed have their defaults, and are left out."""
    words = list(split_words(text))
    values = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return values + [convert(word, parameter) for _, word in words]
        if words:
            start, word = words.pop(0)
            if parameter.annotation is Rest:
                return [*values, Rest(text[start:].rstrip())]  # it is the last one
            values.append(convert(word, parameter))
        elif parameter.default is parameter.empty:
            raise UserError(f"{capitals(parameter)} is missing.")
    if words:
        raise UserError(f"`{one_line(words[0][1])}` is one word too many.")
    return values


# ---- outgoing connections --------------------------------------------------
# Where a user names the host (/whois, /openssl), its name is looked up once, every address
# must be public unless NETWORK_ALLOW_PRIVATE is set, and we connect to these very
# addresses. JIRA's and Slack's hosts come from the settings, and aren't checked.

NAME_BYTES = 255  # of a name in the DNS; RFC 1035, 2.3.4
LABEL = r"(?!-)[A-Za-z0-9_*-]{1,63}"
HOST_NAME = re.compile(rf"\.|(?=.{{1,253}}\.?$){LABEL}(?:\.{LABEL})*\.?").fullmatch
IPV4_IN_IPV6 = ("::", "64:ff9b:", "2002:")  # how such addresses begin
ERROR_CHARACTERS = 300  # of an error, in words for the user
ERROR_NOISE = re.compile(r"^\[[^]]*\] |_ssl\.c:\d+: | ?\(_ssl\.c:\d+\)")


class NetworkError(UserError):
    """No answer from another host, or none that makes sense; in words for the user."""


def reason_of(error):
    """What an OSError says, without its numbers."""
    return one_line(ERROR_NOISE.sub("", str(error)) or "no answer in time", ERROR_CHARACTERS)


def host_name(text):
    """*text* as the name of a host in the DNS, by IDNA, or as an address; or UserError."""
    with suppress(UnicodeError):
        name = text if text.isascii() else text[:NAME_BYTES].encode("idna").decode()
        if HOST_NAME(name) or ip_address(name):
            return name
    raise UserError(f"`{one_line(text)}` can't be the name of a host.")


def ip_address(text):
    """*text* as an address, or None; one with a zone (`%eth0`) is none."""
    import ipaddress
    with suppress(ValueError):
        return None if "%" in text else ipaddress.ip_address(text)


def is_public(text):
    """Whether anybody on the internet can reach an address, and it is what it seems."""
    import ipaddress
    address = ipaddress.ip_address(text)
    return (address.is_global and not address.is_multicast
            and not str(address).startswith(IPV4_IN_IPV6))


def time_left(until):
    """The seconds until a moment of the monotonic clock; TimeoutError when it is over."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("no answer in time")
    return seconds


def look_up(host, port):
    """The addresses of a host, as (address, port) pairs; OSError."""
    return [address[:2] for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def resolve(host, port, until):
    """The addresses of a host, within a deadline; OSError. getaddrinfo has no deadline, so it
    runs on a thread of its own."""
    if ip_address(host):
        return [(host, port)]
    try:
        looking_up = ThreadPoolExecutor(1).submit(look_up, host, port)
    except RuntimeError:  # there are no more threads
        return look_up(host, port)
    return looking_up.result(time_left(until))


def resolve_public(host, port, config, until):
    """`resolve`, but NetworkError if a host isn't found or isn't public."""
    try:
        addresses = resolve(host, port, until)
    except (OSError, UnicodeError) as error:
        raise NetworkError(f"`{one_line(host)}` can't be found: {reason_of(error)}") from None
    if not config.network_allow_private:
        if not all(is_public(address) for address, _ in addresses):
            raise NetworkError(f"`{one_line(host)}` isn't public, and I don't go there.")
    return addresses


def connect(addresses, until):
    """A TCP connection to the first of some (address, port) pairs that takes one; OSError."""
    for address in addresses:
        try:
            return socket.create_connection(address, time_left(until))
        except OSError as error:
            failure = error
    raise failure


def receive(sock, size, until):
    """At most *size* bytes: fewer if the other side ends before; OSError."""
    data = bytearray()
    while len(data) < size:
        sock.settimeout(time_left(until))
        chunk = sock.recv(size - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


# ---- outgoing HTTP ---------------------------------------------------------
# The opener knows http and https and nothing more: no redirects, which would
# carry tokens to other hosts, no proxies, no files. Every status is an answer.

POST_SECONDS = 10  # for one request and its answer, unless told otherwise; or a handshake
REPLY_BYTES = 64 * 1024  # of an answer, unless told otherwise: Slack says a few words
PAUSE_SECONDS = 60  # the longest pause between two tries
API_TRIES = 3  # of a call of Slack's Web API, when it says 429 or 503


class FetchError(Exception):
    """No answer: no connection, no time left, broken HTTP, or more bytes than agreed. `status` is
    HTTP's, if it came before that, or 0."""

    def __init__(self, why, status=0):
        super().__init__(why)
        self.status = status


class WithDeadline:
    """What a socket needs so that all that it receives has one deadline, `until`: its own time-out
    begins anew with each byte that comes. (For sending it doesn't: it holds for a whole call.)"""

    def recv_into(self, *arguments):
        self.settimeout(time_left(self.until))
        return super().recv_into(*arguments)


class DeadlineSocket(WithDeadline, socket.socket):
    """A TCP socket with a deadline."""


opener_lock = threading.Lock()  # functools.cache lets two threads make the same thing at once


@functools.cache
def opener():
    """urllib's opener. It is made when it is first needed, as its modules are slow to load; the
    timeout of a request is its deadline, from the look-up of the name to the last byte."""
    import http.client, ssl, urllib.request

    class DeadlineTLSSocket(WithDeadline, ssl.SSLSocket):
        pass

    context = ssl.create_default_context()
    context.sslsocket_class = DeadlineTLSSocket

    class Connection(http.client.HTTPConnection):
        def connect(self):
            until = time.monotonic() + self.timeout
            sock = connect(resolve(self.host, self.port, until), until)
            sock.settimeout(time_left(until))  # for the handshake
            if self.default_port == HTTPS_PORT:
                self.sock = context.wrap_socket(sock, server_hostname=self.host)
            else:
                self.sock = DeadlineSocket(fileno=sock.detach())
            self.sock.until = until
            self.sock.settimeout(time_left(until))  # for sending

    class TLSConnection(Connection):
        default_port = HTTPS_PORT

    class Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        def http_open(self, request):
            return self.do_open(Connection, request)

        def https_open(self, request):
            return self.do_open(TLSConnection, request)

    made = urllib.request.OpenerDirector()
    made.add_handler(Handler(context=context))
    return made


def fetch(url, data=None, headers=(), seconds=POST_SECONDS, limit=REPLY_BYTES):
    """GET *url*, or POST it *data* (bytes): status, headers, body (bytes). FetchError if there is
    no whole answer within *seconds*, or it has over *limit* bytes. Blocks."""
    import http.client, urllib.request
    status = 0
    try:
        if not origin(url):
            raise ValueError("this isn't a URL")
        request = urllib.request.Request(url, data, dict(headers))
        with opener_lock:
            open_ = opener().open
        with open_(request, timeout=seconds) as answer:
            status = answer.status
            body = answer.read(limit + 1)
            if len(body) > limit or answer.length:
                raise ValueError(f"the answer is cut off, or longer than {limit} bytes")
            return status, answer.headers, body
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(str(reason) or "no answer in time", status) from None


def retry_after(headers, limit, default):
    """The seconds of a Retry-After header, at most *limit*; *default* where there are none."""
    value = headers.get("Retry-After") or ""
    return min(float(value), limit) if re.fullmatch("[0-9]+", value) else default


def ask_again(ask, tries, limit):
    """What *ask* gives, (status, headers, ...), asked again while its status says that the other
    side is busy. Blocks for pauses of at most *limit* seconds."""
    for attempt in range(1, tries):
        answer = ask()
        if answer[0] not in (429, 503):
            return answer
        time.sleep(retry_after(answer[1], limit, random.uniform(1, 2) * attempt))
    return ask()


class SlackError(UserError):
    """Slack's error *code*, or no answer from Slack."""

    def __init__(self, method, code):
        super().__init__(f"Slack's {method} says `{one_line(code)}`.")
        self.code = code


class SlackAPI:
    """Slack's Web API. All methods block. https://docs.slack.dev/apis/web-api"""

    def __init__(self, config):
        self.config = config

    def ask(self, method, fields, token=None):
        """Call a *method* once: HTTP's status, the headers, and the answer (dict). FetchError;
        UserError without a token."""
        import urllib.parse
        token = token or self.config.slack_bot_token
        if not token:
            raise UserError("Slack isn't connected for that: whoever runs the bot should set "
                            "SLACK_BOT_TOKEN.")
        form = {name: value if isinstance(value, str) else json.dumps(value)
                for name, value in fields.items()}
        data = urllib.parse.urlencode(form, errors="replace").encode()
        status, headers, body = fetch(f"{self.config.slack_api_url}/{method}", data,
                                      {"Authorization": f"Bearer {token}"})
        try:
            return status, headers, dict(json.loads(body))
        except (ValueError, TypeError, RecursionError):
            return status, headers, {"error": f"HTTP status {status}"}

    def call(self, method, fields=(), token=None):
        """Call a *method*, again if Slack is busy: the answer. SlackError; UserError without a
        token."""
        try:
            *_, answer = ask_again(lambda: self.ask(method, dict(fields), token),
                                   API_TRIES, PAUSE_SECONDS)
        except FetchError as error:
            raise SlackError(method, error) from None
        if not answer.get("ok"):
            raise SlackError(method, text_at(answer, "error"))
        return answer

    def upload(self, name, data, channel):
        """Put a file of *data* (bytes) into a channel; SlackError.
        https://docs.slack.dev/messaging/working-with-files#upload"""
        place = self.call("files.getUploadURLExternal", {"filename": name, "length": len(data)})
        url = text_at(place, "upload_url")
        if not is_confidential(url):
            raise SlackError("upload", "a URL that isn't https")
        try:
            status, _, said = fetch(url, data, {"Content-Type": "application/octet-stream"})
        except FetchError as error:
            raise SlackError("upload", error) from None
        if status != 200:
            raise SlackError("upload", said.decode(errors="replace") or status)
        files = [{"id": text_at(place, "file_id"), "title": name}]
        self.call("files.completeUploadExternal", {"files": files, "channel_id": channel})


# ---- replies ---------------------------------------------------------------
# All answers to one command: `Replies` sends them in order, whichever thread gives them. The
# first goes back on the HTTP request, if that still waits; the others are posted. A
# response_url takes five posts within thirty minutes. A thread in Slack takes any number, and
# at any time; after thirty minutes we give up there, too.
# https://docs.slack.dev/interactivity/handling-user-interaction

END_SECONDS = 0.2  # in which a handler ends that has just given its last answer
DONE = to_json(message("Done."))
TRANSIENT = "internal_error ratelimited request_timeout service_unavailable".split()
SQLITE_UNUSABLE = {3, 5, 8, 10, 13, 14}  # PERM, BUSY, READONLY, IOERR, FULL and CANTOPEN


def response_url_post(url):
    """A function that posts a message (bytes, JSON) to a response_url: status, headers, body."""
    return lambda body: fetch(url, body, {"Content-Type": "application/json; charset=utf-8"})


def thread_post(slack, url):
    """The same for `thread:CHANNEL/TIMESTAMP`, by the Web API."""
    channel, _, thread = url.removeprefix("thread:").partition("/")

    def post(body):
        fields = {**json.loads(body), "channel": channel, "thread_ts": thread}
        status, headers, answer = slack.ask("chat.postMessage", fields)
        code = text_at(answer, "error")
        if status == 200 and not answer.get("ok"):
            status = 503 if code in TRANSIENT else 400
        return status, headers, code
    return post


def with_fallback(post):
    """*post*, but a message whose data blocks are refused goes out again without: there are
    workspaces that don't have them."""
    def post_with_fallback(body):
        answer = post(body)
        if has_data_blocks(body) and re.search("invalid_(blocks|attachments)", str(answer[2])):
            return post(without_data_blocks(body))
        return answer
    return post_with_fallback


class Replies:
    """The answers to one command. Messages are JSON in bytes, None for nothing to say.

    The handler's thread calls `send` for each answer and `finish` for the last one; both may
    block. In the handler's place, `begin_instead` gives the first answer, `finish_instead` the
    last one. Whoever claims the first or the last answer gives it: `claiming` decides, and what
    is sent is sent outside of it. The response_url takes five posts. The fifth is kept for the
    last answer: from then on a new answer replaces the one that waits, and only the last is
    posted."""

    kept = None  # the last message, unless the handler has a newer one
    answered_at = -math.inf  # when the handler's latest answer was sent

    def __init__(self, post, send_first=None, note=None, limit=POST_LIMIT,
                 seconds=POST_WINDOW, clock=time.monotonic, sleep=time.sleep):
        """*post* sends a message: status, headers, text, or FetchError; it is None where there is
        no way. *send_first* sends the first answer, within some seconds (OSError); it is None
        where the request has been acknowledged. *note* is a JournalEntry; *seconds*
        is how long the answers may be posted."""
        self.post = post
        self.send_first = send_first
        self.note = note
        self.clock = clock
        self.sleep = sleep
        self.until = clock() + seconds
        self.places = limit  # how many messages can be posted yet
        self.is_first_claimed = send_first is None
        self.claiming = threading.Lock()  # held for a moment
        self.posting = threading.Lock()  # held while a message is posted
        self.first_sent = threading.Event()
        self.last_claimed = threading.Event()
        if send_first is None:
            self.first_sent.set()
            if note:
                note.write()

    def claim_first(self):
        """Whether the first answer is the caller's to give."""
        with self.claiming:
            was_claimed = self.is_first_claimed
            self.is_first_claimed = True
        return not was_claimed

    def claim_last(self):
        """Whether the last answer is the caller's to give."""
        with self.claiming:
            was_claimed = self.last_claimed.is_set()
            self.last_claimed.set()
        return not was_claimed

    def send(self, body):
        """Send an answer that isn't known to be the last. Blocks. The last place is kept for the
        last answer."""
        if self.must_be_posted(body):
            self.send(None)
        if self.claim_first():
            if self.note:
                self.note.write().result()
            self.give_first(body, POST_SECONDS)
        elif body is not None:
            self.first_sent.wait()
            if self.places > 1:
                self.kept = None  # "Done." isn't needed any more
                self.deliver(body)
            else:
                self.kept = body

    def finish(self, body):
        """Send the last answer, unless `finish_instead` has claimed it. Blocks. Where *body* is
        None, the message that was kept goes out: "Done." if the user has seen nothing but
        "Working on it"."""
        if self.claim_last():
            self.give_last(body)
        else:  # the process is about to end; the command isn't over before its user is told
            self.sleep(POST_SECONDS)

    def begin_instead(self, body):
        """Give the first answer, unless the handler has. Doesn't block: a journal's thread gives
        it, once the command is written."""
        if self.claim_first():
            self.kept = DONE
            if self.note:
                self.note.write().add_done_callback(lambda _: self.give_first(body, 0))
            else:
                self.give_first(body, 0)

    def finish_instead(self, body):
        """Give the last answer in the place of a handler that goes on. Blocks. A handler that
        answered less than END_SECONDS ago is perhaps about to end: it is waited for, or its user
        would get an apology after the last answer. Returns whether this call gave the last
        answer; if not, the handler does, perhaps later."""
        while not self.last_claimed.is_set():
            with self.posting:  # waits for a post that is under way
                seconds = self.answered_at + END_SECONDS - self.clock()
                is_mine = seconds <= 0 and self.claim_last()
            if is_mine:
                self.give_last(body)
                return True
            self.last_claimed.wait(seconds)
        return False

    def give_last(self, body):
        """Send the last answer: *body*, or the one that was kept."""
        if self.must_be_posted(body):
            self.send(None)
        if self.claim_first():
            self.give_first(body, POST_SECONDS)
            return
        self.first_sent.wait()
        last = body or self.kept
        if last:
            self.deliver(last, is_claimed=True)
        if self.note:
            self.note.strike()

    def must_be_posted(self, body):
        """Whether a message has data blocks: only a post tells whether Slack takes them. Then the
        first answer is an empty one."""
        return self.post and has_data_blocks(body)

    def give_first(self, body, seconds):
        """Send the first answer by the way that the command came, within some *seconds*. Post it
        if that way has gone; but not with 0 seconds, as then this thread must not block."""
        try:
            self.send_first(without_data_blocks(body), seconds)
        except Exception as error:  # the connection has gone, as a rule
            log.info("first_answer_failed", why=error)
            if body and seconds:
                self.deliver(body, is_claimed=True)
        finally:
            self.answered_at = self.clock()
            self.first_sent.set()

    def deliver(self, body, is_claimed=False):
        """Post *body* until Slack has it or refuses it, or the time is over. Blocks. Unless the
        caller has claimed this answer, it is dropped once the last answer is claimed."""
        pause = 0
        for attempt in itertools.count():
            if not self.post or self.clock() + pause > self.until:
                log.warning("undelivered", why="no response_url, or too old")
                return
            if pause:
                self.sleep(pause)
            with self.posting:
                if self.last_claimed.is_set() and not is_claimed:
                    return
                status, headers = self.try_to_post(body)
            if 200 <= status < 500 and status != 429:
                return
            pause = random.uniform(0.5, 1) * min(2 ** attempt, PAUSE_SECONDS)
            pause = retry_after(headers, PAUSE_SECONDS, 0) or pause  # "0" mustn't make it spin

    def try_to_post(self, body):
        """Post *body* once: the status, 0 for no answer, and the headers. With a status, an answer
        that is cut off is one, too: the message has arrived."""
        try:
            status, headers, said = self.post(body)
        except FetchError as error:
            status, headers, said = error.status, {}, str(error)
        if 200 <= status < 300:
            self.places -= 1
            self.answered_at = self.clock()
        else:
            log.warning("post_failed", status=status, said=said[:200])
        return status, headers


class Journal:
    """The commands that are owed a last answer, in an SQLite file that outlives the process and
    belongs to one at a time. ConfigError if it can't be used; a damaged one is set aside. A
    thread of its own changes it, one change after the other: the loop never waits for the disk.
    (A worker does, before it gives a first answer that isn't the last.)"""

    def __init__(self, path):
        import sqlite3
        self.thread = ThreadPoolExecutor(1, "journal")
        self.thread.submit(int)  # starts it: later there may be no more threads
        try:
            try:
                self.open(path)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 255 in SQLITE_UNUSABLE:
                    raise
                log.error("journal_damaged", why=error, aside=f"{path}.damaged")
                for part in ("-journal", ""):
                    with suppress(FileNotFoundError):
                        os.replace(path + part, f"{path}.damaged{part}")
                self.open(path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"SLACKBOT_JOURNAL can't be used: {error}") from None

    def open(self, path):
        """Open, lock and read the file, for its owner only."""
        import sqlite3
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        self.db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.db.executescript("""
            PRAGMA locking_mode = EXCLUSIVE;
            PRAGMA synchronous = OFF;
            BEGIN EXCLUSIVE;
            CREATE TABLE IF NOT EXISTS owed (number INTEGER PRIMARY KEY, url, line, since)""")
        self.unfinished = self.db.execute(
            "SELECT * FROM owed WHERE typeof(url) = 'text' AND typeof(line) = 'text' "
            "AND typeof(since) = 'real'").fetchall()
        self.db.execute("PRAGMA user_version = 1")  # to see whether it can be written
        self.db.execute("COMMIT")

    def change(self, statement, *values):
        """Have the file changed: a Future. If it can't be, commands are served all the same."""
        return self.thread.submit(self.execute, statement, values)

    def execute(self, statement, values):
        """Change the file, on its thread."""
        try:
            self.db.execute(statement, values)
        except Exception as error:  # no space, as a rule
            log.error("journal_failed", why=error)


class JournalEntry:
    """A command *line* whose user waits at a *url*, to be written into a journal, and then to be
    struck out."""

    def __init__(self, journal, url, line, number=None):
        self.journal = journal
        self.url = url
        self.line = line.encode(errors="replace").decode()  # JSON may have half a character
        self.number = number or secrets.randbits(63)  # of the row

    def write(self):
        """Write it: a Future."""
        return self.journal.change("INSERT OR IGNORE INTO owed VALUES (?, ?, ?, ?)",
                                   self.number, self.url, self.line, time.time())

    def strike(self):
        """Strike it out, if it was written."""
        self.journal.change("DELETE FROM owed WHERE number = ?", self.number)


# ---- the bot ---------------------------------------------------------------
# One thread reads all requests, a pool runs the commands, and a connection has one owner
# at a time.
#
#     Slack --HTTP--> the loop: accepts, reads, parses, verifies
#                       |                          |
#                       | inline: /hello, /help    | any other command, /hello-world: a worker
#                       v                          v gets it, and its connection
#                     answers, and keeps         runs the handler
#                     the connection               |
#                       |                          | first value: answers and closes; if it
#                       |                          | is late, the loop answers "Working on it"
#                       v                          v
#     Slack <-----------+--------------------------+ later values: posts to the response_url
#
# The threads:
#   main          starts the others, waits for a signal, then has all users told.
#   server        the loop, `WebServer.serve_forever`. Nothing on it blocks: it opens no
#                 file (but the source, for the traceback of a bug), calls no other host,
#                 and leaves its log lines to the log's thread.
#   worker        up to SLACKBOT_WORKERS, in one executor; its queue holds the commands
#                 that wait. A handler may block, and so may what posts its answers.
#   poster        up to 24. They post what no worker posts: apologies at a stop or after a
#                 crash, refusals where the request was acknowledged, inline answers with
#                 a table.
#   webhook poster  two. They pass on what comes to /post, which may take a minute each.
#   jira          ten for searches, ten for counts. They work side by side for a report.
#   socket mode   one that connects, and one for each WebSocket.
#   log, journal  one each, so that the loop never waits for a file.
#   look-up       one for each name of a host that is being looked up.
#
# The loop owns a connection while it is READING (it waits for a request, or the rest of
# one), WRITING (it waits until the rest of an answer can be sent, or until it is its turn
# to have the next request answered that has come already) or CLOSING (what came wasn't a
# whole, valid request; it waits for the other side to close). When a slash command is
# queued for a worker, its connection is HANDED_OVER and never returns to the loop, so
# nobody ever has to wake that. Whoever claims the first answer then owns it, sends that
# answer with `Connection: close`, and closes it. A button's or an event's connection
# stays with the loop. From any state, a connection ends CLOSED.
#
# A command waits until a worker is free, runs, and ends. Its worker gives the first
# answer. If none has come after SLACKBOT_ACK_SECONDS, or at once if all workers are busy,
# the loop says "Working on…" instead (with a journal, the journal's thread does, once the
# command is written), and the worker posts its value as a message of its own. `Replies`
# decides who is first. When too many commands wait, `Bot.accept` refuses new ones. Buttons,
# messages and Socket Mode get an empty acknowledgement at once; a worker runs the
# command, an inline one too, and posts all answers.
#
# At SIGTERM or SIGINT, `/healthz` answers 503, new commands are told to come again, and
# Socket Mode disconnects. The commands that run have SLACKBOT_GRACE_SECONDS to end, and
# those that wait may start in that time; the loop goes on meanwhile. Then the loop ends,
# so that nothing is acknowledged that nobody could answer, and the posters tell the users
# of the rest, for `TELL_SECONDS` at most. The process exits, even if a handler hangs. A
# second signal ends it at once. If there is a journal, the next process tells the users
# in it who couldn't be told.

TELL_SECONDS = 4  # to tell users of unfinished commands: 30 s after SIGTERM, Heroku kills
POSTERS = 24  # threads for what the bot itself posts; with 200 workers they fit Heroku's 256
WEBHOOK_SECONDS = 60  # in which a webhook's post is tried again
WEBHOOK_POSTERS = 2  # threads for what comes to /post; Slack takes one post a second anyway
WAIT_SECONDS = 0.02  # between two looks at whether all commands have ended


def sorry(line):
    """The message (bytes) for the user of a command that won't be finished."""
    return to_json(message(f"Sorry, I had to restart before `{one_line(line)}` was done. "
                           "Try again?"))


def start_thread(name, function, *arguments):
    """Run a function on a thread of its own, which doesn't keep the process from ending."""
    threading.Thread(target=function, name=name, args=arguments, daemon=True).start()


class Pool(ThreadPoolExecutor):
    """Threads to hand work to. It has one from the start: where the machine has no more of
    them, that one does the work."""

    def __init__(self, size, name):
        super().__init__(size, name)
        self.submit(time.sleep, 0)

    def submit(self, function, *arguments):
        """Have a function called; the log gets its bugs. Returns no Future."""
        with suppress(RuntimeError):  # no new thread: it is queued all the same; or shut down
            super().submit(self.call, function, *arguments)

    def call(self, function, *arguments):
        """Call a function on a thread of the pool."""
        try:
            function(*arguments)
        except Exception:
            log.exception("bug")


class Job:
    """One command line to be run: its `command` and the `text` after it, or the `error` if there
    is no such command."""

    error = None

    def __init__(self, request):
        self.request = request
        self.line = request.line
        line, self.is_public = PUBLIC.subn("", self.line)  # 0 or 1, as it stands at the end
        try:
            self.command, self.text = find(line)
        except UserError as error:
            self.error = error

    def run(self, send, finish):
        """Run the command to its end, on this thread. *finish* is called with the last answer (a
        message in bytes, None for nothing to say), *send* with each one before it. Returns whether
        all went well."""
        try:
            self.call_handler(send, finish)
            return True
        except UserError as error:
            finish(self.encode(str(error)))
        except BaseException:  # SystemExit too: the user still waits
            finish(self.apology())
        return False

    def call_handler(self, send, finish):
        """Call the handler and send what it returns or yields; UserError if the line is wrong."""
        if self.error:
            raise self.error
        try:
            values = bind(self.command.parameters, self.text)
        except UserError as error:
            usages = "\n".join(f"`{escape(one.usage)}`" for one in family(self.command.name))
            raise UserError(did_you_mean(self.line) or f"{error} Usage:\n{usages}") from None
        answer = self.command.handler(self.request, *values)
        if isinstance(answer, types.GeneratorType):
            answer = self.send_yielded(answer, send)
        finish(self.encode(answer, self.is_public))

    def send_yielded(self, generator, send):
        """Send what a handler yields. Returns what it returns in the end."""
        while True:
            try:
                answer = next(generator)
            except StopIteration as end:
                return end.value
            send(self.encode(answer, self.is_public))

    def encode(self, answer, public=False):
        """An answer as a message in bytes; None for nothing to say, which an empty one is, too."""
        if is_empty(answer):
            return None
        made = message(answer, public)
        if self.request.replace_original:
            made["replace_original"] = True
        return to_json(made)

    def apology(self):
        """Log the bug that is being handled; what to tell the user, in bytes."""
        reference = secrets.token_hex(4)
        log.exception("bug", reference=reference, command=self.request.command)
        return self.encode(
            f"Sorry, `{one_line(self.line)}` failed, and it isn't your fault. Whoever runs me "
            f"finds the reason in the log, under `{reference}`.")


def answers(line: str, **fields) -> list[dict]:
    """All answers to a command *line*, in order, as messages: for tests, without Slack and without
    a server. *fields* are those of the `Request`; `bot=` for a command that uses it.
    >>> answers("/hello Slack", user_name="ann")
    [{'response_type': 'ephemeral', 'text': 'Hello ann, I received `Slack`'}]"""
    bodies = []
    Job(request_of_line(line, **fields)).run(bodies.append, bodies.append)
    return [json.loads(body) for body in bodies if body]


class Bot:
    """Runs commands, inline or on a pool of threads."""

    draining = False  # whether the process is about to end
    done = 0  # commands that have ended
    failed = 0  # of which an error was the last answer

    def __init__(self, config, jira, slack=None, journal=None, clock=time.monotonic,
                 sleep=time.sleep, make_pool=Pool):
        self.config = config
        self.jira = jira
        self.slack = slack
        self.journal = journal
        self.clock = clock
        self.sleep = sleep
        self.workers = make_pool(config.slackbot_workers, "worker")
        self.posters = make_pool(POSTERS, "poster")
        self.webhook_posters = make_pool(WEBHOOK_POSTERS, "webhook poster")
        self.seen_signatures = SeenIDs(REPEAT_SECONDS, clock)
        self.seen_events = SeenIDs(0, clock)
        self.webhook_posts = []  # the data that was posted to /post and isn't passed on yet
        self.started = clock()
        self.lock = threading.Lock()  # for `done` and `failed`
        self.jobs = {}  # Replies by Job: commands that wait or run, and answers yet to be posted
        self.unanswered = {}  # by Job, when the first answer is overdue; the oldest first

    def accept(self, request, hand_over=None):
        """Take a command line, on the thread that received it. Doesn't block.

        With *hand_over*, the caller waits for the first answer. Returns its body (bytes, b"" for
        nothing to say) if it is there at once. Otherwise a worker has the command: *hand_over*
        is called, and returns the function that sends the first answer, for `Replies`.
        Without, the request is acknowledged, and all answers are posted. Returns None."""
        request.bot = self
        job = Job(request)
        if self.draining:
            refusal = "I'm being restarted"
        elif hand_over and (job.error or job.command.inline):
            return self.run_inline(job)
        elif len(self.jobs) < self.config.slackbot_workers + self.config.slackbot_queue:
            return self.start(job, hand_over)
        else:
            refusal = "Too many commands at once"
        body = to_json(message(f"{refusal}, please try again in a minute."))
        if hand_over:
            return body
        self.post_only(job, body)

    def post_only(self, job, body):
        """Have a poster give a command's only answer."""
        self.jobs[job] = self.replies_to(job.request)
        self.posters.submit(self.tell, job, body)

    def run_inline(self, job):
        """Run a command on this thread: the body of its answer."""
        bodies = []
        succeeded = job.run(bodies.append, bodies.append)
        self.count(succeeded)
        body = bodies[0] or b""
        if has_data_blocks(body) and job.request.response_url:
            self.post_only(job, body)  # as only a post tells whether Slack takes them
            return b""
        return without_data_blocks(body)

    def start(self, job, hand_over):
        """Give a command to the workers."""
        is_busy = len(self.jobs) >= self.config.slackbot_workers
        send_first = None
        if hand_over:
            send_first = hand_over()
            self.unanswered[job] = self.clock() + self.config.slackbot_ack_seconds
        replies = self.replies_to(job.request, send_first=send_first)
        self.jobs[job] = replies
        self.workers.submit(self.work, job, replies)
        if hand_over and is_busy:
            self.say_working(job)

    def replies_to(self, request, **options):
        """The `Replies` to a request, which are posted by its response_url; "" means that nothing
        can be posted."""
        url = request.response_url
        if self.journal:
            options.setdefault("note", JournalEntry(self.journal, url, request.line))
        post = None
        if url.startswith("thread:"):
            post = thread_post(self.slack, url)
            options["limit"] = math.inf
        elif origin(url) in self.config.slack_hooks_origins:
            post = response_url_post(url)
        if post:
            post = with_fallback(post)
        return Replies(post, clock=self.clock, sleep=self.sleep, **options)

    def work(self, job, replies):
        """Run one command. On a worker; blocks."""
        succeeded = False
        try:
            succeeded = job.run(replies.send, replies.finish)
        finally:
            self.count(succeeded)
            self.unanswered.pop(job, None)
            self.jobs.pop(job, None)

    def count(self, succeeded):
        """Count a command that has ended."""
        with self.lock:
            self.done += 1
            self.failed += not succeeded

    def say_working(self, job):
        """Give a command's first answer, "Working on it", in the handler's place. On the loop;
        doesn't block."""
        self.unanswered.pop(job, None)
        replies = self.jobs.get(job)
        text = f"Working on `{one_line(job.line)}`…"
        if replies:
            replies.begin_instead(to_json(message(text, job.is_public)))

    def answer_overdue(self):
        """Give the first answers that are overdue. On the loop; doesn't block. Returns the seconds
        until the next one is, or None."""
        for job, deadline in list(self.unanswered.items()):
            if deadline > self.clock():
                return deadline - self.clock()
            self.say_working(job)

    def handle_action(self, payload):
        """Take the press of a button; HTTPError (400) for what is no interaction."""
        request = request_of_action(payload)
        if request:
            self.accept(request)

    def handle_event(self, payload):
        """Take an event of the Events API; one that comes again is served once."""
        request = request_of_event(payload)
        event_id = text_at(payload, "event_id") or secrets.token_hex(8)
        if not self.config.slack_bot_token:
            log.warning("ignored", why="SLACK_BOT_TOKEN isn't set")
        elif request and self.seen_events.admit(event_id):
            self.accept(request)

    def take_webhook_post(self, handler, data):
        """Queue what was posted to /post for the webhook posters."""
        self.webhook_posts.append(data)
        self.webhook_posters.submit(self.send_webhook_post, handler, data)

    def send_webhook_post(self, handler, data):
        """Post what a webhook's *handler* makes of *data* to SLACK_WEBHOOK_URL."""
        try:
            answer = handler(data)
            url = self.config.slack_webhook_url
            if url and not is_empty(answer):
                replies = Replies(with_fallback(response_url_post(url)), seconds=WEBHOOK_SECONDS)
                replies.finish(to_json(message(answer, public=True)))
        finally:
            self.webhook_posts.remove(data)

    def tell_users(self):
        """Tell the users of the commands that haven't ended. On the main thread, before the
        process ends; `draining` is set."""
        self.workers.shutdown(wait=False, cancel_futures=True)
        for job in list(self.jobs):
            self.posters.submit(self.tell, job, sorry(job.line))
        self.wait_for_jobs(TELL_SECONDS)
        for data in list(self.webhook_posts):
            log.warning("webhook_post_lost", data=one_line(json.dumps(data)))

    def wait_for_jobs(self, seconds):
        """Wait until all commands have ended, for some seconds at most."""
        until = self.clock() + seconds
        while self.jobs and self.clock() < until:
            self.sleep(WAIT_SECONDS)

    def tell(self, job, body):
        """Give a command's last answer in the handler's place. On a poster; blocks. If the
        handler gives it after all, the job stays in `jobs` until `work` ends."""
        replies = self.jobs.get(job)
        if replies and replies.finish_instead(body):
            self.jobs.pop(job, None)

    def recover(self):
        """Tell the users of the commands that an earlier process has left in the journal."""
        for number, url, line, since in self.journal.unfinished:
            replies = self.replies_to(Request(response_url=url),
                                      seconds=since + POST_WINDOW - time.time(),
                                      note=JournalEntry(self.journal, url, line, number))
            self.posters.submit(replies.finish, sorry(line))


# ---- jira ------------------------------------------------------------------
# Cloud and Data Center share version 2 of the REST API, except for the search: on Cloud
# it is version 3's, whose answers don't say how many issues there are; Data Center's do.
# A count is exact, or it says "more than"; an estimate is never shown.
# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search

JIRA_SECONDS = 30  # for one answer: some JQL is slow
JIRA_BYTES = 10_000_000  # of one answer; a page of issues has 200 KB
JIRA_TRIES = 3  # when JIRA says 429 or 503
JIRA_PAUSE = 30  # seconds between two tries, at most
JIRA_PAGE = 100  # issues with their fields: as many as a table holds
JIRA_COUNTED = 5_000  # issues that are counted one by one; in one page if only ids are asked
JIRA_THREADS = 10  # searches at once, and as many counts; a report has 9
VERSIONS_SHOWN = 20  # at four counts each; a chart takes no more
SEARCH_SHOWN = 50  # issues
TITLES_CHARACTERS = 2_000  # of the sections that an issue is in, in a cell
LINK_CHARACTERS = 400  # of a URL in a report: twenty fit a message
PROGRESS_SECONDS = 5  # after which the user is told how many requests are answered
ISSUE_KEY = re.compile("[A-Za-z][A-Za-z0-9_]+-[0-9]+").fullmatch
CSV_OPTIONS = {"--csv", "—csv"}  # the second as a phone types it
ISSUE_FIELDS = "summary status assignee priority fixVersions".split()
ISSUE_HEADER = "Key Summary Status Assignee Priority".split()
CATEGORIES = {name: QUERIES[name.capitalize()] for name in ("done", "in progress", "to do")}
OPEN = "statusCategory != Done"  # more than in progress and to do: there is "No Category", too
DECIDING = [*CATEGORIES.values(), OPEN]


class JiraError(UserError):
    """JIRA's error, or no answer from it; in words for the user."""


class Found(namedtuple("Found", "count exact error issues", defaults=["", ()])):
    """The first issues of a search, and how many there are: *count*, or more if not *exact*; or
    the *error*, in words for the user."""

    def __str__(self):
        if self.error:
            return "?"
        return f"{self.count:,}" if self.exact else f"more than {self.count:,}"


def quote(text):
    r"""*text* as a string in JQL, which has the escapes of JSON.
    >>> quote('2.3" OR key = "A-1')
    '"2.3\\" OR key = \\"A-1"'"""
    return json.dumps(CONTROL.sub(" ", text), ensure_ascii=False)


def in_release(projects, version):
    """The JQL for the issues of a *version* in *projects*."""
    keys = ", ".join(map(quote, projects))
    where = f"in ({keys})" if len(projects) > 1 else f"= {keys}"
    return f"project {where} AND fixVersion = {quote(version)}"


def jira_data(status, headers, body, part):
    """The data in JIRA's answer: an object with a *part*, or a list of such. JiraError."""
    if status == 401 or "AUTHENTICATED_FAILED" in headers.get("X-Seraph-LoginReason", ""):
        # An expired token gets 200 from some endpoints, and what an anonymous caller may see.
        raise JiraError("JIRA doesn't accept the bot's credentials; is its token too old?")
    try:
        data = json.loads(body)
        objects = data if isinstance(data, list) else [data]
        if status == 200 and all(part in each.keys() for each in objects):
            return data
        reasons = data.get("errorMessages", []) + list(data.get("errors", {}).values())
        why = one_line(" ".join(map(str, reasons)), 300)
    except (ValueError, RecursionError, AttributeError, TypeError):
        why = ""
    if why:
        raise JiraError(f"JIRA answered {status}: {why}")
    raise JiraError(f"JIRA_URL answers, but not as JIRA's API does (status {status}).")


class Jira:
    """A JIRA site. All methods but `link` block. What JIRA refuses or doesn't answer is a
    JiraError, in words for the user."""

    def __init__(self, config, send=fetch):
        self.site = config.jira_url
        self.base = config.jira_api_url
        self.send = send
        self.pool = ThreadPoolExecutor(JIRA_THREADS, "jira")
        # Not on the same threads: a search holds its thread until its count is there.
        self.counters = ThreadPoolExecutor(JIRA_THREADS, "jira count")
        self.headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if config.jira_personal_token:
            self.headers["Authorization"] = f"Bearer {config.jira_personal_token}"
        elif config.jira_api_token:
            account = f"{config.jira_username}:{config.jira_api_token}".encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(account).decode()}"

    def call(self, path, part, body=None):
        """GET a *path* of the REST API, or POST it *body*: the data of the answer, which has a
        *part*."""
        url = f"{self.base}/rest/api/{path}"
        encoded = json.dumps(body).encode() if body else None
        try:
            return jira_data(*ask_again(
                lambda: self.send(url, encoded, self.headers, JIRA_SECONDS, JIRA_BYTES),
                JIRA_TRIES, JIRA_PAUSE), part)
        except FetchError as error:
            raise JiraError(f"JIRA can't be reached ({reason_of(error).lower()}).") from None

    @functools.cache
    def is_cloud(self):
        """Whether this is JIRA Cloud. The answer is kept, a failure isn't."""
        return self.call("2/serverInfo", "version").get("deploymentType") == "Cloud"

    def search(self, jql, fields, size, limit):
        """The first issues that a query finds, at least *limit* if there are so many, in pages of
        a *size*; and whether these are all."""
        is_cloud = self.is_cloud()
        query = {"jql": jql, "fields": fields, "maxResults": size}
        issues = []
        tokens = {None}
        while len(issues) < limit:
            page = self.call("3/search/jql" if is_cloud else "2/search", "issues", query)
            issues += page["issues"]
            token = page.get("nextPageToken")
            is_last = page.get("isLast", token is None)
            if is_cloud:
                query["nextPageToken"] = token
            else:
                token = query["startAt"] = len(issues)
                is_last = token >= page["total"]
            if is_last:
                return issues, True
            if token in tokens or not page["issues"]:  # or we would ask for ever
                break
            tokens.add(token)
        return issues, False

    def find(self, jql, limit=1):
        """What a query finds, a Found with the issues of one page, or at least *limit* if there
        are so many; they are counted meanwhile."""
        counting = self.counters.submit(self.count, jql)
        issues, _ = self.search(jql, ISSUE_FIELDS, JIRA_PAGE, limit)
        return counting.result()._replace(issues=issues)

    def count(self, jql):
        """How many issues a query finds, as a Found without them. As a rule in one request."""
        if self.is_cloud():
            issues, is_all = self.search(jql, ["id"], JIRA_COUNTED, JIRA_COUNTED)
            return Found(len(issues), is_all)
        page = self.call("2/search", "total", {"jql": jql, "maxResults": 0})
        return Found(page["total"], True)

    def link(self, jql, label):
        """A link to the search for *jql*; the label alone where a message would get too long."""
        import urllib.parse
        url = f"{self.site}/issues/?jql={urllib.parse.quote(jql)}"
        return link(url, label) if len(url) <= LINK_CHARACTERS else label_of(label)


def jira_of(request):
    """The bot's JIRA; UserError if there is none."""
    jira = request.bot.jira
    if not jira.base:
        raise UserError("JIRA isn't connected: whoever runs the bot should set JIRA_URL.")
    return jira


def together(jira, calls):
    """The results of *calls* (dict of function and arguments), side by side, as a dict; yields
    progress, if they take long. The first JiraError of a call is raised."""
    futures = {key: jira.pool.submit(*call) for key, call in calls.items()}
    done, pending = wait(futures.values(), PROGRESS_SECONDS)
    if pending:
        yield f"{len(done)} of {len(futures)} requests are answered…"
    return {key: future.result() for key, future in futures.items()}


def outcome(find, jql):
    """What a search finds, as a Found, with the *error* if it fails: one can't take the others
    down."""
    try:
        return find(jql)
    except JiraError as error:
        return Found(0, False, str(error))
    except Exception:
        log.exception("bug", where="JIRA")
        return Found(0, False, "JIRA's answer can't be understood; the log has more.")


def versions_of(jira, projects):
    """The versions that projects have: (project's key, version) pairs; yields like `together`.
    `is_cloud` is called along with them, so that the searches have its answer."""
    calls = {project: (jira.call, f"2/project/{project}/versions", "name") for project in projects}
    found = yield from together(jira, {**calls, "kind": (jira.is_cloud,)})
    return [(project, version) for project in projects for version in found[project]]


def project_keys(request, named):
    """The keys of the projects that the user *named*, or else of those that are configured."""
    projects = [name.upper() for name in named or request.bot.config.jira_project]
    for project in projects:
        if not PROJECT_KEY(project):
            raise UserError(f"`{one_line(project)}` can't be a project's key.")
    if not projects:
        raise UserError("Which project? Name one at the end, or have JIRA_PROJECT set.")
    return list(dict.fromkeys(projects))


def matching(wanted, known):
    """The version *wanted* of each project that has it, of those *known*, by key; UserError."""
    found = {project: version for project, version in known
             if version["name"].casefold() == wanted.casefold()}
    if found:
        return found
    import difflib
    names = [version["name"] for _, version in known]
    near = [name for name in names if wanted in name] + difflib.get_close_matches(wanted, names)
    offer = " or ".join(f"`{one_line(name)}`" for name in list(dict.fromkeys(near))[:5])
    question = f" Did you mean {offer}?" if offer else ""
    raise UserError(f"There is no version `{one_line(wanted)}`.{question}")


def due(version):
    """When one of JIRA's versions is to be released, seen from today."""
    try:
        date = datetime.date.fromisoformat(text_at(version, "releaseDate"))
    except ValueError:
        return "no release date"
    if version.get("released"):
        return f"released {date}"
    days = (date - datetime.date.today()).days
    if days == 0:
        return f"due {date}, today"
    unit = "day" if abs(days) == 1 else "days"
    return f"due {date}, {abs(days)} {unit} {'left' if days > 0 else 'late'}"


def is_open(issue):
    """Whether an issue's status is in a category that isn't done; any part of it may be null."""
    return text_at(issue, "fields", "status", "statusCategory", "key") not in ("done", "")


# What a release is: "🔴 *Not ready*" and why; how many issues are done, in progress, to do, as
# numbers and as text ("?" for unknown).
Verdict = namedtuple("Verdict", "word why counts texts")


def judge(asked):
    """The Verdict on a release, from what was found by clause."""
    done, moving, waiting, left = [asked[clause] for clause in DECIDING]
    total = Found(done.count + left.count, done.exact and left.exact, done.error or left.error)
    is_known = all(part.exact or part.count for part in (done, moving, waiting, left))
    issues = [issue for part in asked.values() for issue in part.issues]
    word = "🔴 *Not ready*"
    why = "there is no issue in it"
    if left.count:
        why = f"{left} of {total} issues are open"
    elif moving.count or waiting.count or any(map(is_open, issues)):
        why = "issues are open"
    elif not is_known:
        word = "⚪ *Unknown*"
        why = "JIRA didn't answer the queries that decide it"
    elif total.count:
        word = "🟢 *Ready*"
        why = f"all {total} issues are done"
    counts = [0, 0, 0]
    if is_known:
        counts = [done.count, moving.count, waiting.count]
    return Verdict(word, why, counts, [str(asked[clause]) for clause in CATEGORIES.values()])


def count_line(verdict):
    """The counts of a Verdict on one line."""
    return " · ".join(f"{count} {name}" for count, name in zip(verdict.texts, CATEGORIES))


def columns(issue):
    """An issue's key, summary, status, assignee, priority, fix versions; "" for what is null."""
    text = functools.partial(text_at, issue, "fields")
    versions = issue["fields"].get("fixVersions") or ()
    return [
        text_at(issue, "key"),
        text("summary"),
        text("status", "name"),
        text("assignee", "displayName"),
        text("priority", "name"),
        ", ".join(text_at(version, "name") for version in versions),
    ]


def csv_table(issues):
    """Issues as CSV (bytes), which no spreadsheet takes for formulas."""
    import csv
    file = io.StringIO()
    file.write("key,summary,status,assignee,priority,fix versions\r\n")
    rows = csv.writer(file)
    for issue in issues:
        rows.writerow([re.sub("^([-=+@\t\r])", r"'\1", cell) for cell in columns(issue)])
    return file.getvalue().encode("utf-8-sig", errors="replace")  # Excel wants the mark


def issue_row(jira, issue):
    """An issue as a row of a table: what `ISSUE_HEADER` says."""
    key, summary, *parts, _ = columns(issue)
    url = f"{jira.site}/browse/{key}"
    return [link_cell(url, key), cell(summary, SUMMARY_CHARACTERS), *map(cell, parts)]


def section_fields(jira, sections, queries, asked):
    """The sections of a report as blocks: a field for each with its count, in two columns, and
    one for all that are empty."""
    fields = []
    empty = []
    for title, clause in sections.items():
        found = asked[clause]
        if found.error:
            fields.append(f":warning: *{label_of(title)}*\n{clip(found.error, ERROR_CHARACTERS)}")
        elif found.count or not found.exact:
            fields.append(f"*{jira.link(queries[clause], title)}*\n{found}")
        else:
            empty.append(label_of(title))
    if empty:
        fields.append(f"0: {', '.join(empty)}")
    return [{"type": "section", "fields": list(map(mrkdwn, fields[start:start + 10]))}
            for start in range(0, len(fields), 10)]


def report(text, blocks, footer, *more):
    """The message with some *blocks*, a small line under them, and perhaps *more* blocks."""
    small = {"type": "context", "elements": [mrkdwn(footer)]}
    return {"text": text, "blocks": [*blocks, small, *more]}


@command("/jira release", usage="VERSION [PROJECT…] [--csv]")
def jira_release(request, version: str, *project: str):
    """Say whether a release is ready, and what is in its way."""
    started = time.monotonic()
    jira = jira_of(request)
    sections = request.bot.config.jira_queries
    projects = project_keys(request, [key for key in project if key not in CSV_OPTIONS])
    yield f"Asking JIRA about release {one_line(version)} of {', '.join(projects)}…"
    have = matching(version, (yield from versions_of(jira, projects)))
    name = next(iter(have.values()))["name"]
    title = f"{', '.join(have)} {name}"
    release = in_release(have, name)
    queries = {clause: f"{release} AND ({clause})"
               for clause in (*sections.values(), *DECIDING)}
    asked = yield from together(
        jira, {clause: (outcome, jira.find, query) for clause, query in queries.items()})
    verdict = judge(asked)
    dates = " · ".join(dict.fromkeys(map(due, have.values())))
    opening = f"{verdict.word} {one_line(title)}: {verdict.why}"
    counts = count_line(verdict)
    summary = f"{opening}\n`{bar(verdict.counts)}` {counts}\n{one_line(dates, 500)}"
    blocks = [text_block(summary),
              *section_fields(jira, sections, queries, asked),
              *open_issues(jira, title, sections, queries, asked)]
    footer = (f"asked {time.strftime('%H:%M')}, {len(queries)} queries, "
              f"{time.monotonic() - started:.1f} s")
    lacking = ", ".join(key for key in projects if key not in have)
    if lacking:
        footer += f" · not in {one_line(lacking, 500)}"
    yield report(f"{opening}\n{counts}", blocks, footer, *report_buttons(request))
    if CSV_OPTIONS.intersection(project):
        yield upload_csv(request, name, release)


def open_issues(jira, title, sections, queries, asked):
    """The blocks with the issues that are in the way of a release: a table, and a line that says
    how many of them it holds."""
    issues = {}  # by key
    titles = defaultdict(list)  # of the sections that an issue is in, by its key
    for section, clause in sections.items():
        for issue in filter(is_open, asked[clause].issues):
            issues[issue["key"]] = issue
            titles[issue["key"]].append(section)
    if not issues:
        return []
    rows = [[*issue_row(jira, issue), cell(", ".join(titles[key]), TITLES_CHARACTERS)]
            for key, issue in issues.items()]
    table, shown = data_table(f"Open issues of {title}", [*ISSUE_HEADER, "Sections"], rows)
    return [table, text_block(jira.link(queries[OPEN], f"{shown} of {asked[OPEN]} open issues"))]


def report_buttons(request):
    """The row of buttons under a report: its line again, in its place or for all. No row for a
    long line."""
    line = re.sub(r"\s(--|—)csv(?!\S)", "", PUBLIC.sub("", request.line))
    try:
        buttons = [button("Refresh", line, "run:replace"), button("Share", f"{line} --public")]
    except ValueError:
        return []
    return [{"type": "actions", "elements": buttons}]


def upload_csv(request, name, jql):
    """Put the issues of a release into the channel as a file; what to tell the user."""
    jira = jira_of(request)
    found = jira.find(f"{jql} ORDER BY key", JIRA_COUNTED)
    request.bot.slack.upload(f"release {name}.csv", csv_table(found.issues), request.channel_id)
    return (f"{len(found.issues)} of {found} issues are in the file "
            f"`release {one_line(name)}.csv`.")


@command("/jira releases")
def jira_releases(request, *project: str):
    """List the versions that aren't released yet, and how far they are."""
    jira = jira_of(request)
    projects = project_keys(request, project)
    yield f"Asking JIRA about the releases of {', '.join(projects)}…"
    known = yield from versions_of(jira, projects)
    ahead = [(key, version) for key, version in known
             if not (version.get("released") or version.get("archived"))]
    if not ahead:
        return f"There is no unreleased version in {', '.join(projects)}."
    ahead.sort(key=lambda each: text_at(each[1], "releaseDate") or "~")
    releases = {in_release([key], version["name"]): (key, version)
                for key, version in ahead[:VERSIONS_SHOWN]}
    asked = yield from together(jira, {
        (release, clause): (outcome, jira.count, f"{release} AND ({clause})")
        for release in releases for clause in DECIDING})
    lines = []
    rows = []
    counts = {}  # three by the chart's category
    for release, (key, version) in releases.items():
        name = version["name"]
        verdict = judge({clause: asked[release, clause] for clause in DECIDING})
        title = jira.link(release, f"{key} {name}")
        lines.append(f"{verdict.word} {title}: {count_line(verdict)} · {due(version)}")
        word = verdict.word.replace("*", "")
        rows.append(list(map(value_cell, [name, key, word, *verdict.texts, due(version)])))
        counts[short_label(f"{key} {name}", counts)] = verdict.counts
    header = ["Version", "Project", "Verdict", *map(str.capitalize, CATEGORIES), "Date"]
    table, shown = data_table("Unreleased versions", header, rows)
    chart = bar_chart("Unreleased versions", counts, CATEGORIES)
    return report("\n".join(lines), [*map(text_block, lines), chart, table],
                  f"{shown} of {len(ahead)} unreleased versions")


@command("/jira search")
def jira_search(request, jql: Rest):
    """Show the first issues that a JQL query finds."""
    jira = jira_of(request)
    jql = jql.translate(STRAIGHT_QUOTES)
    found = jira.find(jql)
    text = f"*Found* {found} · {jira.link(jql, 'Open in JIRA')}"
    if not found.issues:
        return text
    rows = [issue_row(jira, issue) for issue in found.issues[:SEARCH_SHOWN]]
    table, shown = data_table(f"{found} issues", ISSUE_HEADER, rows)
    return report(text, [text_block(text), table], f"{shown} of {found} issues")


@command("/jira")
def jira_issue(request, key: str):
    """Ask JIRA about an issue, a release or a search."""
    if not ISSUE_KEY(key):
        raise UserError(did_you_mean(request.line) or
                        f"`{one_line(key)}` isn't an issue. Commands:\n"
                        f"{usage_lines(family('/jira'))}")
    jira = jira_of(request)
    try:
        issue = jira.call(f"2/issue/{key.upper()}?fields={','.join(ISSUE_FIELDS)}", "key")
    except JiraError as error:
        raise JiraError(f"`{key.upper()}`: {error}") from None
    key, summary, *parts = columns(issue)
    title = f"{link(f'{jira.site}/browse/{key}', key)} {one_line(summary, SUMMARY_CHARACTERS)}"
    shown = [one_line(part, NAME_CHARACTERS) or "–" for part in parts]
    return " · ".join([title, *shown])


# ---- network ---------------------------------------------------------------
# The commands /dig, /whois and /openssl.
# RFC 1035 (DNS), RFC 3597 (unknown types), RFC 8659 (CAA), RFC 3912 (whois)

DIG_SECONDS = 10  # for one /dig
DNS_TRY_SECONDS = 3  # for one try
DNS_TRIES = 3  # of each server
DNS_HEADER_BYTES = 12  # RFC 1035, 4.1.1
WHOIS_SECONDS = 20  # for all servers together
WHOIS_BYTES = 256 * 1024  # of one server's answer
WHOIS_HOPS = 4  # referrals: IANA, registry, registrar make two
WHOIS_LINES = 25  # of what matters most
OPENSSL_SECONDS = 10  # for two handshakes
NAMES_CHARACTERS = 1_000  # of a certificate's names; some have 100
DNS_STATUSES = dict(enumerate("NOERROR FORMERR SERVFAIL NXDOMAIN NOTIMP REFUSED".split()))
DNS_FLAGS = {"qr": 0x8000, "aa": 0x400, "tc": 0x200, "rd": 0x100, "ra": 0x80, "ad": 0x20,
             "cd": 0x10}
REFERRAL = re.compile(r"(?im)^[ \t]*(?:refer|whois|registrar whois server|referralserver):[ \t]*"
                      r"(?:r?whois://)?([a-z0-9.-]+(?::[0-9]{1,5})?)/?[ \t\r]*$")
MATTERS = re.compile(r"(?im)^[a-z \t-]*(?:registrar|dated?|created|changed|expires|last-modified|"
                     r"status|name servers?|nserver|organi[sz]ation|org-?name|country):[ \t]*"
                     r"\S[^\r\n]*")


def zone_escape(found):
    """A character, a match of a regular expression, as a zone file escapes it."""
    character = found[0]
    return f"\\{character}" if "!" <= character <= "~" else f"\\{ord(character):03}"


class DNSReader:
    """Reads a DNS message (bytes) from an offset on; ValueError where it isn't one."""

    def __init__(self, data, at=0):
        self.data = data
        self.at = at

    def take(self, size):
        """The next bytes."""
        self.at += size
        if self.at > len(self.data):
            raise ValueError("it ends in the middle")
        return self.data[self.at - size:self.at]

    def number(self, size=2):
        """The next number, of some bytes."""
        return int.from_bytes(self.take(size))

    def text(self, size, special=r'["\\]|[^ -~]'):
        r"""The next bytes as a zone file shows them (RFC 1035, 5.1); *special* is a pattern.
        >>> DNSReader(b'say "a"\x00').text(8)
        'say \\"a\\"\\000'"""
        return re.sub(special, zone_escape, self.take(size).decode("latin-1"))

    def strings(self):
        """All strings that are left, each with its length before it."""
        while self.at < len(self.data):
            yield f'"{self.text(self.number(1))}"'

    def name(self):
        r"""The next name; it may go on earlier in the message (RFC 1035, 4.1.4).
        >>> DNSReader(b"\x01b\x00\x01a\xc0\x00", 3).name()
        'a.b.'"""
        reader = self
        labels = []
        room = NAME_BYTES
        while length := reader.number(1):
            if length < 64:
                labels.append(reader.text(length, r'["().;\\@$]|[^!-~]'))
                room -= length
            else:
                place = (length - 192) * 256 + reader.number(1)
                if not 0 <= place < reader.at - 2:
                    raise ValueError("a name that goes on nowhere")
                reader = DNSReader(self.data, place)
            room -= 1  # for a pointer, too, so that there is an end to them
            if room < 0:
                raise ValueError("a name that is too long")
        return ".".join(labels) + "."


DNS_TYPES = {  # name: (number, how its data is shown)
    "A": (1, lambda reader: socket.inet_ntoa(reader.take(4))),
    "AAAA": (28, lambda reader: socket.inet_ntop(socket.AF_INET6, reader.take(16))),
    "CNAME": (5, DNSReader.name),
    "NS": (2, DNSReader.name),
    "PTR": (12, DNSReader.name),
    "MX": (15, lambda reader: f"{reader.number()} {reader.name()}"),
    "SOA": (6, lambda reader: f"{reader.name()} {reader.name()} {reader.number(4)} "
            f"{reader.number(4)} {reader.number(4)} {reader.number(4)} {reader.number(4)}"),
    "SRV": (33, lambda reader: f"{reader.number()} {reader.number()} {reader.number()} "
            f"{reader.name()}"),
    "TXT": (16, lambda reader: " ".join(reader.strings())),
    "CAA": (257, lambda reader: f"{reader.number(1)} {reader.text(reader.number(1))} "
            f'"{reader.text(len(reader.data) - reader.at)}"'),
}
DNS_TYPE_NAMES = {number: name for name, (number, _) in DNS_TYPES.items()}


def dns_question(name, type_, number):
    """The question (bytes) for records of *type_* (a number) that *name* (ASCII) has.
    >>> dns_question("a.example", 1, 7)[12:]
    b'\\x01a\\x07example\\x00\\x00\\x01\\x00\\x01'"""
    header = struct.pack(">6H", number, DNS_FLAGS["rd"], 1, 0, 0, 0)
    labels = "".join(f"{chr(len(label))}{label}" for label in name.split(".") if label)
    return header + labels.encode() + struct.pack(">xHH", type_, 1)


def dns_record(reader, is_question):
    """The next record of a message, or the question, as a line of dig's."""
    name = reader.name()
    type_ = reader.number()
    class_ = reader.number()
    kind = DNS_TYPE_NAMES.get(type_, f"TYPE{type_}")
    class_ = "IN" if class_ == 1 else f"CLASS{class_}"
    if is_question:
        return f";{name}\t{class_}\t{kind}"
    ttl = reader.number(4)
    size = reader.number()
    data = DNSReader(reader.data[:reader.at + size], reader.at)  # names may point to before it
    raw = reader.take(size)
    if kind in DNS_TYPES:
        words = DNS_TYPES[kind][1](data)
        if data.at != reader.at:
            raise ValueError(f"a {kind} record with more than that")
    else:
        words = f"\\# {size} {raw.hex().upper()}".rstrip()
    return f"{name}\t{ttl}\t{class_}\t{kind}\t{words}"


def dns_message(data):
    """A message (bytes) as dig shows it, but for the additional section and the footer;
    NetworkError if it isn't one."""
    reader = DNSReader(data)
    try:
        number, flags, *counts = [reader.number() for _ in range(6)]
        status = DNS_STATUSES.get(flags & 15, flags & 15)
        set_flags = " ".join(flag for flag, bit in DNS_FLAGS.items() if flags & bit)
        lines = [f";; ->>HEADER<<- opcode: QUERY, status: {status}, id: {number}",
                 f";; flags: {set_flags}; QUERY: {counts[0]}, ANSWER: {counts[1]}, "
                 f"AUTHORITY: {counts[2]}, ADDITIONAL: {counts[3]}"]
        for name, count in zip(("QUESTION", "ANSWER", "AUTHORITY"), counts):
            if count:
                lines += ["", f";; {name} SECTION:"]
                lines += [dns_record(reader, name == "QUESTION") for _ in range(count)]
    except ValueError as error:
        raise NetworkError(f"The answer isn't proper DNS: {error}") from None
    return "\n".join(lines)


def is_answer(data, question):
    """Whether *data* answers a *question* (both bytes): it has its number, repeats it and nothing
    else, and is a response to a query. A header alone, as some servers refuse, repeats nothing."""
    repeats = data[4:6] == b"\0\1" and data[12:].lower().startswith(question[12:].lower())
    return ((repeats or len(data) == DNS_HEADER_BYTES)
            and data[:2] == question[:2] and data[2] & 0xF8 == 0x80)


def dns_ask(server, question, until):
    """A name server's answer (bytes) to a *question*, by TCP if UDP is too short; OSError."""
    family, *_, address = socket.getaddrinfo(*server, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(address)  # the kernel drops what comes from anywhere else
        sock.send(question)
        try_until = min(until, time.monotonic() + DNS_TRY_SECONDS)
        data = b""
        while not is_answer(data, question):
            sock.settimeout(time_left(try_until))
            data = sock.recv(65_535)
    if data[2] & 2:  # it is truncated
        with connect([server], until) as sock:
            sock.sendall(len(question).to_bytes(2) + question)
            size = int.from_bytes(receive(sock, 2, until))
            data = receive(sock, size, until)
        if len(data) < size or not is_answer(data, question):
            raise ConnectionError("half an answer, or one to something else")
    return data


@command("/dig")
def dig(request, name: str, type_: str = "A"):
    """Look a name up in the DNS, or the name of an address."""
    address = ip_address(name)
    if address:
        name = address.reverse_pointer
        type_ = "PTR"
    name = host_name(name)
    if type_.upper() not in DNS_TYPES:
        raise UserError(f"`{one_line(type_)}` is none of {', '.join(DNS_TYPES)}.")
    code, _ = DNS_TYPES[type_.upper()]
    question = dns_question(name, code, secrets.randbelow(65_536))
    started = time.monotonic()
    for server in request.bot.config.dns_server * DNS_TRIES:
        try:
            data = dns_ask(server, question, started + DIG_SECONDS)
            return code_block(f"{dns_message(data)}\n\n;; Query time: "
                              f"{(time.monotonic() - started) * 1000:.0f} msec\n"
                              f";; SERVER: {server[0]}#{server[1]}")
        except OSError as error:
            failure = error
    raise NetworkError(f"No answer about `{name}` from the name server: {reason_of(failure)}")


def whois_ask(server, line, config, until):
    """What a whois server, (host, port), says to a *line*, as text; NetworkError."""
    host, port = server
    try:
        with connect(resolve_public(host, port, config, until), until) as sock:
            sock.sendall(f"{line}\r\n".encode())
            data = receive(sock, WHOIS_BYTES, until)
        if not data:
            raise ConnectionError("not a word")
    except OSError as error:
        raise NetworkError(f"`{one_line(host)}` doesn't answer: {reason_of(error)}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def whois_referral(text):
    """The server, (host, port), that a whois answer refers to; None if it names none."""
    found = REFERRAL.search(text)
    with suppress(ValueError):
        return found and endpoint(WHOIS_PORT)(found[1])


@command("/whois")
def whois(request, name: str):
    """Say whom a domain, an address or an AS number belongs to."""
    name = host_name(name).rstrip(".")
    config = request.bot.config
    until = time.monotonic() + WHOIS_SECONDS
    server = config.whois_server
    asked = []
    note = ""
    try:
        while server and server not in asked and len(asked) <= WHOIS_HOPS:
            text = whois_ask(server, name, config, until)
            asked.append(server)
            server = whois_referral(text)
    except NetworkError as error:
        if not asked:
            raise
        note = f"\n{error}"
    path = " → ".join(f"`{host}`" for host, _ in asked)
    facts = dict.fromkeys(map(one_line, MATTERS.findall(text.replace("`", "'"))))
    summary = "\n• ".join([path + note, *list(facts)[:WHOIS_LINES]])
    return f"{summary}\n{code_block(text)}"


def describe_certificate(tls):
    """What a TLS server has shown on a connection (ssl.SSLSocket), a line each."""
    import ssl
    # getpeercert decodes trusted certificates only.
    fields = tls._sslobj.get_unverified_chain()[0].get_info()
    names = ", ".join(str(value) for _, value in fields.get("subjectAltName", ()))
    issuer = ", ".join(value for part in fields["issuer"] for _, value in part)
    days = (ssl.cert_time_to_seconds(fields["notAfter"]) - time.time()) // 86_400
    fingerprint = hashlib.sha256(tls.getpeercert(True)).digest().hex(":").upper()
    return (f"Names: {clip(names, NAMES_CHARACTERS) or 'none'}\nIssuer: {issuer}\n"
            f"Valid: {fields['notBefore']} to {fields['notAfter']}, {days:.0f} days left\n"
            f"Protocol: {tls.version()}, {tls.cipher()[0]}\nSHA-256: {fingerprint}")


def handshake(addresses, host, until, context):
    """What a TLS server shows, a line each. OSError, also when *context* doesn't trust it
    (ssl.SSLCertVerificationError)."""
    with connect(addresses, until) as sock:
        sock.settimeout(time_left(until))
        with context.wrap_socket(sock, server_hostname=host) as tls:
            return describe_certificate(tls)


@command("/openssl", usage="HOST[:PORT]")
def openssl(request, host: str):
    """Check the certificate of a TLS server."""
    import ssl
    try:
        name, port = endpoint(HTTPS_PORT)(host)
    except ValueError:
        raise UserError(f"`{one_line(host)}` isn't HOST or HOST:PORT.") from None
    name = host_name(name).rstrip(".")  # TLS wants it without
    until = time.monotonic() + OPENSSL_SECONDS
    addresses = resolve_public(name, port, request.bot.config, until)
    lax = ssl._create_unverified_context()  # PEP 476
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strict.load_default_certs()
    verdict = "holds"
    details = ""
    try:
        details = "\n" + code_block(handshake(addresses, name, until, lax))
        handshake(addresses, name, until, strict)
    except ssl.SSLCertVerificationError as error:
        verdict = f"doesn't hold: {one_line(error.verify_message.rstrip('.'))}"
    except OSError as error:
        verdict = f"doesn't hold: no TLS ({reason_of(error)})"
    shown = f"[{name}]" if ":" in name else name
    return f"{shown}:{port} {verdict}{details}"


# ---- greetings and help ----------------------------------------------------
# The small commands, and the first to copy from.

@command("/hello", inline=True)
def hello(request, text: Rest = ""):
    """Say hello, and what you said."""
    greeting = f"Hello {escape(request.user_name or 'you')}"
    return f"{greeting}, I received `{escape(text)}`" if text else greeting


@command("/hello-world")
def hello_world(request):
    """Greet you, five seconds later."""
    yield "Waiting to greet you..."
    time.sleep(5)
    yield "Hello World!"


@command("/help", inline=True)
def help_(request, command: Rest = ""):
    """Show what there is, or how to use one command."""
    if command:
        found, _ = find("/" + command.lstrip("/"))
        return usage_lines(family(found.name))
    return (f"Commands:\n{usage_lines(commands.values())}\n"
            "With `--public` at its end, a command answers the whole channel.")


# ---- HTTP messages ---------------------------------------------------------
# Bytes into requests, and the bodies of answers. What isn't plainly right is refused:
# smuggling begins where two readers understand the same request differently.
# RFC 9112 (messages), RFC 9110 (meaning)

LINE_BYTES = 8_192  # of a request line; Slack's have 40
HEAD_FIELDS = 100  # Slack and a host's router send some 20
BODY_BYTES = 1024 * 1024  # Slack's forms have 20,000
BLANK_LINES = 2  # that may stand before a request; RFC 9112, 2.2 asks for one
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = rf"({TOKEN}) ([!\"$->@-~]+)(?:\?([!\"$-~]*))? HTTP/([0-9])\.([0-9])\r\n"
# RFC 9112, 5; possessive (*+), or a bad line of blanks would take quadratic time.
FIELD = re.compile(rf"(?m)^({TOKEN}):[\t ]*+([\t -~\x80-\xff]*+)\r\n")
HOST = re.compile(r"(?:[A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?").fullmatch  # 3.2
SINGLE_FIELDS = re.compile(r"(?m)^((?:host|content-|transfer-|x-slack-)[^:]*):")  # come once
JSON_TYPE = "Content-Type: application/json\r\n"

# Header names are in small letters; body is bytes, query what comes after the "?".
HTTPRequest = namedtuple("HTTPRequest", "method path query headers body keep_alive")
# header_lines is a text, each line with its \r\n.
Response = namedtuple("Response", "status body header_lines", defaults=[b"", ""])
NO_REQUEST = HTTPRequest("-", "-", "", {}, b"", False)  # of bytes that can't be understood


class RequestReader:
    """Makes requests of a connection's bytes. HTTPError for what isn't HTTP: then nothing that
    follows on this connection can be trusted. Its work is in proportion to the bytes, however
    they are cut up: no byte is searched or copied again for the pieces that follow."""

    blank_lines = 0
    searched = 0  # bytes of `received` that were searched for the end in vain
    request_line = None  # (method, path, query, minor version), once it is there
    head = None  # the HTTPRequest without its body, once the header is there; `length` is
    # that body's, in bytes

    def __init__(self):
        self.received = bytearray()

    def feed(self, data):
        """Take bytes that have come."""
        self.received += data

    def has_begun(self):
        """Whether a part of a request has come."""
        return self.received or self.request_line

    def next_request(self):
        """The next HTTPRequest, once it is whole; None until then."""
        if not self.request_line:
            self.read_line()
        if self.request_line and not self.head:
            self.read_head()
        if not self.head or len(self.received) < self.length:
            return None
        body = bytes(self.received[:self.length])
        del self.received[:self.length]
        request = self.head._replace(body=body)
        self.blank_lines = 0
        self.searched = 0
        self.request_line = None
        self.head = None
        return request

    def read_line(self):
        """Read the request line, if it is whole."""
        while self.received.startswith(b"\r\n") and self.blank_lines < BLANK_LINES:
            del self.received[:2]
            self.blank_lines += 1
            self.searched = 0
        end = self.received.find(b"\n", self.searched)
        self.searched = len(self.received)
        require((end if end >= 0 else self.searched) < LINE_BYTES, 414,
                "the request line is too long")
        if end >= 0:
            self.request_line = parse_request_line(bytes(self.received[:end + 1]))
            del self.received[:end - 1]  # its \r\n stays: a header without fields ends after it
            self.searched = 0
        else:
            require(re.match(rb"[!-~]|\r?$", self.received[:2]), 400, "this isn't HTTP")

    def read_head(self):
        """Read the header fields, if they are whole."""
        end = self.received.find(b"\r\n\r\n", self.searched)
        self.searched = max(0, len(self.received) - 3)
        require((end if end >= 0 else self.searched) <= HEAD_BYTES, 431, "the header is too long")
        if end < 0:
            return
        method, path, query, minor = self.request_line
        headers = parse_fields(bytes(self.received[2:end + 2]))
        del self.received[:end + 4]
        missing = "?" if minor else ""  # HTTP/1.1 requires a Host, and "?" is none
        require(HOST(headers.get("host", missing)), 400, "a bad Host field")
        require(headers.get("expect", "100-continue").lower() == "100-continue",
                417, "this expectation can't be met")
        keep_alive = minor > 0 and "close" not in headers.get("connection", "").lower()
        self.length = body_length(method, headers)
        self.head = HTTPRequest(method, path, query, headers, b"", keep_alive)


@functools.lru_cache(100)
def parse_request_line(line):
    r"""Method, path, query and minor version in a request line (bytes); HTTPError. Of a whole URL,
    as proxies are sent it (RFC 9112, 3.2.2), scheme and host are ignored.
    >>> parse_request_line(b"GET http://bot.example/?name=Robert HTTP/1.1\r\n")
    ('GET', '/', 'name=Robert', 1)"""
    found = re.fullmatch(REQUEST_LINE, line.decode("latin-1"))
    require(found, 400, "the request line isn't METHOD TARGET HTTP/1.1")
    method, path, query, major, minor = found.groups("")
    require(major == "1", 505, "this server speaks HTTP/1.1")
    require(method in http.HTTPMethod.__members__, 501, "there is no such method")
    path = re.sub("^(?i:https?)://[^/@]+", "", path) or "/"
    status = 405 if method in ("CONNECT", "OPTIONS") else 400
    require(path.startswith("/"), status, "the target isn't a path", "Allow: GET\r\n")
    return method, path, query, int(minor)


def parse_fields(block):
    """The header fields in a *block* of whole lines (bytes) as a dict; HTTPError."""
    text = block.decode("latin-1")
    fields = FIELD.findall(text)
    require(len(fields) == text.count("\n"), 400, "a header line isn't NAME: VALUE")
    require(len(fields) <= HEAD_FIELDS, 431, "too many header fields")
    headers = {name.lower(): value.rstrip(" \t") for name, value in fields}
    if len(headers) < len(fields):
        singles = SINGLE_FIELDS.findall(text.lower())
        require(len(singles) == len(set(singles)), 400, "a header field is there twice")
    return headers


def body_length(method, headers):
    """How many bytes of body follow the header fields (RFC 9112, 6.3); HTTPError."""
    if "transfer-encoding" in headers:
        status = 400 if "content-length" in headers else 501
        raise HTTPError(status, "send the body with a Content-Length only")
    require(method != "POST" or "content-length" in headers, 411, "Content-Length is missing")
    length = headers.get("content-length", "0")
    require(length.isdecimal(), 400, "Content-Length isn't a number")
    require(len(length) < 16 and int(length) <= BODY_BYTES, 413, "the body is too long")
    return int(length)


def json_response(data, status=200, header_lines=""):
    """The Response with *data* as JSON."""
    return Response(status, to_json(data), JSON_TYPE + header_lines)


def command_response(body):
    """The Response to a slash command: a message (bytes), or an empty one for nothing to say."""
    return Response(200, body, JSON_TYPE) if body else Response(200)


# ---- HTTP server -----------------------------------------------------------
# The loop of one thread, and the connections that it has. See the essay above the bot.

REQUEST_SECONDS = 10  # for a whole request, and for each answer to be read
IDLE_SECONDS = 95  # between two requests; Heroku's router keeps a connection for 90
# How long a connection waits until it may be closed to make room for another one.
KEPT_SECONDS = 1.5  # after an answer: a proxy is perhaps about to use it again
NEW_SECONDS = 0.1  # before its first answer: the request is perhaps on its way
LINGER_SECONDS = 2  # for the other side to read an error and to close
SWEEP_SECONDS = 0.1  # between two looks: for overdue connections, for room, for a signal
RECEIVE_BYTES = 64 * 1024  # at once, of one connection
WEBHOOK_QUEUE = 1_000  # posts of webhooks that may wait to be passed on
BACKLOG = 1024  # connections that the kernel holds for us in a burst
READING, WRITING, CLOSING, HANDED_OVER, CLOSED = (
    "reading", "writing", "closing", "handed over", "closed")
REQUEST_ID = re.compile(r"[A-Za-z0-9+/=-]{20,200}").fullmatch  # as Heroku's router takes it
LAST_WORD = re.compile("(?<=/)[A-Za-z0-9_-]{1,40}$")  # which `*` in a route stands for
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
PAGE_FIELDS = ("Content-Type: text/html; charset=utf-8\r\nX-Frame-Options: DENY\r\n"
               "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n")


class Connection:
    """A TCP connection to the server, in one `state`. `idle_since` is when it began to wait for
    the other side, None once it is handed over; `deadline`, when it is given up. All methods but
    `send_first`, and what that calls, are the loop's, and don't block. `WebServer.step` closes it
    at an OSError (a reset as a rule)."""

    state = READING
    response = None  # the latest
    unsent = b""  # of it

    def __init__(self, server, sock):
        self.server = server
        self.sock = sock
        self.reader = RequestReader()
        self.idle_since = server.clock()
        self.deadline = self.idle_since + REQUEST_SECONDS

    def proceed(self):
        """Do what the kernel is ready for. Then answer a request, if one is whole. More of them
        wait for the next turns of the loop, so that nobody can keep all others waiting."""
        if self.state != WRITING:
            self.read()
        elif self.unsent:
            self.write()
        if self.state in (READING, WRITING) and not self.unsent:
            self.serve_request()

    def read(self):
        """Read what has come."""
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            self.close()
        elif self.state == READING:
            if not self.reader.has_begun():  # a request has its time from its first byte on
                self.idle_since = self.server.clock()
                self.deadline = min(self.deadline, self.idle_since + REQUEST_SECONDS)
            self.reader.feed(data)

    def serve_request(self):
        """Answer the next request, if it is whole."""
        try:
            request = self.reader.next_request()
        except HTTPError as error:
            self.fail(error)
            return
        if request:
            self.begin(request)
            response = self.server.respond(self)
            if response:
                self.reply(response)
            return
        head = self.reader.head
        if head and head.headers.pop("expect", None):  # so that it is asked once
            self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.state == WRITING:
            self.wait_for(READING)

    def begin(self, request):
        """Take up a request."""
        self.request = request
        self.is_logged = True
        self.started = time.monotonic()
        given = request.headers.get("x-request-id", "")
        self.request_id = given if REQUEST_ID(given) else f"{random.getrandbits(80):020x}"

    def reply(self, response):
        """Answer the request."""
        is_leaving = self.server.bot.draining or self.server.is_full()
        self.keep_alive = self.request.keep_alive and not is_leaving
        self.unsent = memoryview(self.encode(response))
        self.write()
        if self.unsent:
            self.wait_for(WRITING)

    def fail(self, error):
        """Answer bytes that aren't a request, or not yet, with an HTTPError; then close."""
        self.begin(NO_REQUEST)
        self.reply(error_response(error))

    def encode(self, response):
        """An answer to the request as bytes."""
        self.response = response
        connection = "" if self.keep_alive else "Connection: close\r\n"
        head = (f"HTTP/1.1 {response.status} {http.HTTPStatus(response.status).phrase}\r\n"
                f"Date: {format_date_time(time.time())}\r\nX-Request-ID: {self.request_id}\r\n"
                f"{connection}{response.header_lines}Content-Length: {len(response.body)}\r\n\r\n")
        body = b"" if self.request.method == "HEAD" else response.body
        return head.encode("latin-1") + body

    def write(self):
        """Write as much of the answer as the kernel takes."""
        try:
            sent = self.sock.send(self.unsent)
        except BlockingIOError:
            sent = 0
        self.unsent = self.unsent[sent:]
        if not self.unsent:
            self.finish_answer()
        elif sent:
            self.idle_since = self.server.clock()

    def finish_answer(self):
        """The answer is out: go on with the next request, or close."""
        self.log_answer()
        if self.request is NO_REQUEST:  # closing with bytes unread would lose the answer
            self.sock.shutdown(socket.SHUT_WR)
            self.wait_for(CLOSING, LINGER_SECONDS)
        elif not self.keep_alive:
            self.close()
        elif self.reader.received:  # the next request has come already, or a part of it
            self.wait_for(WRITING)
        else:
            self.wait_for(READING, IDLE_SECONDS)

    def wait_for(self, state, seconds=REQUEST_SECONDS):
        """Wait in a *state* for the kernel, and for some *seconds* at most."""
        self.state = state
        self.idle_since = self.server.clock()
        self.deadline = self.idle_since + seconds
        events = selectors.EVENT_WRITE if state == WRITING else selectors.EVENT_READ
        self.server.selector.modify(self.sock, events, self)

    def log_answer(self):
        """Log the request and its answer."""
        if self.is_logged:
            log.request(method=self.request.method, path=self.request.path,
                        status=self.response.status, bytes=len(self.response.body),
                        ms=f"{(time.monotonic() - self.started) * 1000:.1f}",
                        request_id=self.request_id)

    def time_out(self):
        """End what is overdue; half a request gets an error first."""
        if self.state == READING and self.reader.has_begun():
            self.fail(HTTPError(408, f"no whole request in {REQUEST_SECONDS} seconds"))
        else:
            self.close()

    def close(self):
        """Close the connection. Bytes that came and weren't read would reset it, and the answer
        would be lost."""
        self.server.release(self)
        self.state = CLOSED
        with suppress(OSError):
            self.sock.setblocking(False)
            self.sock.recv(RECEIVE_BYTES)
        self.sock.close()

    def hand_over(self):
        """Leave the loop for good. Returns the function that sends the first answer."""
        self.server.release(self)
        self.state = HANDED_OVER
        self.idle_since = None
        self.keep_alive = False
        return self.send_first

    def send_first(self, body, seconds):
        """Answer a slash command with a message (bytes) or None, and close. On the thread that
        gives the first answer; blocks for at most some *seconds*. OSError if it can't be sent."""
        try:
            self.sock.settimeout(seconds)
            self.sock.sendall(self.encode(command_response(body)))
            self.log_answer()
        finally:
            self.close()


def error_response(error):
    """The Response for an HTTPError; they all look alike."""
    return json_response({"error": error.why}, error.status, error.header_lines)


def parse_body(request, *kinds):
    """The data in a request's body, of one of some content types: JSON, a form, or a form whose
    only field `payload` is JSON. HTTPError (400, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    require(kind in kinds, 415, f"this takes {' or '.join(kinds)}")
    if kind == JSON:
        return parse_json(request.body)
    form = parse_form(request.body)
    return parse_json(form["payload"]) if list(form) == ["payload"] else form


class WebServer(socketserver.TCPServer):
    """socketserver's listening socket under a loop of our own. A route's function takes the
    Connection and returns a Response, or None when the connection is handed over; `*` in a route
    is one word."""

    allow_reuse_address = os.name != "nt"  # Windows would let two processes have the port
    request_queue_size = BACKLOG
    is_stopping = False
    next_sweep = 0

    def __init__(self, config, bot, clock=time.monotonic):
        import pathlib
        self.config = config
        self.bot = bot
        self.clock = clock
        if ":" in config.host:
            self.address_family = socket.AF_INET6
        self.connections = set()  # those of the loop
        self.selector = selectors.DefaultSelector()
        super().__init__((config.host, config.port), None)
        host, port = self.server_address[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # for its connections
        self.resume_accepting()
        self.has_stopped = threading.Event()
        self.page = pathlib.Path(__file__).with_name("index.html").read_text("utf-8")
        slash = {"POST": self.handle_command}
        post = {"POST": self.handle_post}
        self.routes = {
            "/": {"GET": self.show_page, **slash}, "/index.html": {"GET": self.show_page},
            "/slack/commands": slash, "/slash-commands/*": slash, "/*": slash,
            "/slack/interactions": {"POST": self.handle_action},
            "/slack/events": {"POST": self.handle_event}, "/post": post, "/post/*": post,
            "/healthz": {"GET": self.show_health}, "/status": {"GET": self.show_status}}

    def serve_forever(self, poll_interval=SWEEP_SECONDS):
        """Serve on this thread, until `shutdown`."""
        self.has_stopped.clear()
        try:
            while not self.is_stopping:
                try:
                    self.handle_request(poll_interval)
                except Exception:
                    log.exception("bug", where="server")
        finally:
            self.is_stopping = False
            self.has_stopped.set()

    def handle_request(self, poll_interval=SWEEP_SECONDS):
        """Serve what is ready, or becomes so within *poll_interval* seconds: a turn of the loop.
        (The name is socketserver's.)"""
        seconds = self.bot.answer_overdue() or poll_interval
        has_newcomers = False
        for key, _ in self.selector.select(min(seconds, poll_interval)):
            if key.data:
                self.step(key.data, Connection.proceed)
            else:
                has_newcomers = True
        if has_newcomers:  # after the others, who may leave, or send what has just come
            self.accept_connections()
        now = self.clock()
        if now >= self.next_sweep:
            self.next_sweep = now + SWEEP_SECONDS
            for connection in list(self.connections):
                if connection.deadline < now:
                    self.step(connection, Connection.time_out)
            self.resume_accepting()

    def shutdown(self, seconds=None):
        """End `serve_forever`, from another thread; returns when it has ended, or after some
        *seconds*."""
        self.is_stopping = True
        self.has_stopped.wait(seconds)

    def server_close(self):
        """Close the listening socket and all connections of the loop."""
        for connection in list(self.connections):
            connection.close()
        super().server_close()
        self.selector.close()

    def step(self, connection, method):
        """Call a method of a connection, which is closed if that fails."""
        try:
            method(connection)
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception("bug", where="HTTP")
            connection.close()

    def accept_connections(self):
        """Accept the connections that wait for it, as long as there is room."""
        while self.make_room():
            try:
                sock, _ = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no more file descriptors, as a rule
                log.error("accept_failed", why=error)
                break
            sock.setblocking(False)
            connection = Connection(self, sock)
            self.connections.add(connection)
            self.selector.register(sock, selectors.EVENT_READ, connection)
            if self.is_full():  # room is made in the next turn, if somebody waits still
                return
        self.selector.unregister(self.socket)  # until something is closed, or the next sweep

    def resume_accepting(self):
        """Register the listening socket, if it isn't."""
        if self.socket not in self.selector.get_map():
            self.selector.register(self.socket, selectors.EVENT_READ)

    def is_full(self):
        """Whether there are as many connections as may be: the loop's, and about those that were
        handed over."""
        return (len(self.connections) + len(self.bot.unanswered)
                >= self.config.slackbot_connections)

    def make_room(self):
        """Make room for one more connection where there is none; returns whether there is room.
        The connection that has waited longest for the other side is closed, if it is CLOSING, or
        has waited for KEPT_SECONDS since an answer or the next request's first byte, or for
        NEW_SECONDS before its first answer.
        Otherwise the oldest unanswered command is told "Working on it", which closes its
        connection."""
        if self.is_full():
            now = self.clock()
            closable = [each for each in self.connections if each.state == CLOSING or
                        now - each.idle_since >= (KEPT_SECONDS if each.response else NEW_SECONDS)]
            if closable:
                min(closable, key=lambda each: each.idle_since).close()
            else:
                for job in list(self.bot.unanswered)[:1]:  # the one that waits longest
                    self.bot.say_working(job)
        return not self.is_full()

    def release(self, connection):
        """Let a connection leave the loop. Nothing happens to one that has left, whose owner may
        call this on another thread."""
        if connection in self.connections:
            self.connections.remove(connection)
            self.selector.unregister(connection.sock)
            self.resume_accepting()

    def respond(self, connection):
        """The Response to a connection's request, or None when it is handed over."""
        try:
            return self.route(connection.request)(connection)
        except HTTPError as error:
            return error_response(error)
        except Exception:
            log.exception("bug", request_id=connection.request_id)
            return error_response(HTTPError(500, "a bug; the log has it, under this request id"))

    def route(self, request):
        """The function for a method and a path; HTTPError (404, 405)."""
        method = "GET" if request.method == "HEAD" else request.method
        pattern = LAST_WORD.sub("*", request.path)
        methods = self.routes.get(request.path) or self.routes.get(pattern)
        require(methods, 404, "there is nothing at this path")
        allowed = ", ".join(methods)
        require(method in methods, 405, "not with this method",
                f"Allow: {allowed.replace('GET', 'GET, HEAD')}\r\n")
        return methods[method]

    def show_page(self, connection):
        """GET /: the page, with a greeting for `?name=Robert`."""
        name = parse_form(connection.request.query.encode()).get("name", "")
        greeting = f"Hello {escape(name[:ECHO_CHARACTERS])}! " if name else ""
        if self.config.mode == "setup":
            greeting += " ".join(MISSING[name] for name in self.config.missing)
        page = self.page.replace("<!--greeting-->", greeting)
        return Response(200, page.encode(errors="replace"), PAGE_FIELDS)

    def show_health(self, connection):
        """GET /healthz: whether the process is well, and what it has done."""
        bot = self.bot
        under_way = len(bot.jobs)
        running = min(under_way, self.config.slackbot_workers)
        return json_response({
            "status": "draining" if bot.draining else "ok", "version": __version__,
            "uptime_seconds": round(self.clock() - bot.started, 1), "running": running,
            "waiting": under_way - running, "done": bot.done, "failed": bot.failed,
        }, 503 if bot.draining else 200)

    def show_status(self, connection):
        """GET /status: what commands there are, and what settings are missing."""
        known = [{"name": one.name, "usage": one.usage, "summary": one.summary}
                 for one in commands.values()]
        return json_response({"mode": self.config.mode, "version": __version__,
                              "commands": known, "missing": self.config.missing})

    def verified_payload(self, request, kind):
        """What Slack has posted, as a dict. HTTPError unless Slack signed the request, where that
        can be checked, its body is of a *kind*, and the token in it is right. An unsigned body
        isn't parsed, as that may take long."""
        require(self.config.mode != "setup", 503, "SLACK_SIGNING_SECRET isn't set yet")
        verify(self.config, request.headers, request.body, time.time(), self.bot.seen_signatures)
        payload = parse_body(request, kind)
        require(isinstance(payload, dict), 400, "this JSON isn't an object")
        verify_token(self.config, text_at(payload, "token"))
        return payload

    def handle_command(self, connection):
        """POST /slack/commands, /, /slash-commands/NAME, /NAME: a slash command. The NAME of a
        command in the path goes before the form's, as a workspace may call it something else."""
        request = connection.request
        if is_ssl_check(request.body):
            return Response(200)
        form = self.verified_payload(request, FORM)
        verify_sender(self.config, form)
        named = request.path.replace("/slash-commands/", "/")
        if request.path != "/slack/commands" and family(named):
            form["command"] = named
        body = self.bot.accept(Request(**form), connection.hand_over)
        return None if body is None else command_response(body)

    def handle_action(self, connection):
        """POST /slack/interactions: a pressed button."""
        request = connection.request
        if is_ssl_check(request.body):
            return Response(200)
        payload = self.verified_payload(request, FORM)
        verify_sender(self.config, payload)
        self.bot.handle_action(payload)
        return Response(200)

    def handle_event(self, connection):
        """POST /slack/events: a mention or a direct message, or Slack's check of the URL."""
        payload = self.verified_payload(connection.request, JSON)
        if text_at(payload, "type") == "url_verification":  # which names no team
            return json_response({"challenge": text_at(payload, "challenge")})
        verify_sender(self.config, payload)
        self.bot.handle_event(payload)
        return Response(200)

    def handle_post(self, connection):
        """POST /post, /post/NAME: what another program has to say."""
        request = connection.request
        token = self.config.slackbot_webhook_token
        if self.config.mode == "demo":
            demo_origin(self.config, request.headers)
        else:
            require(token, 503, "SLACKBOT_WEBHOOK_TOKEN isn't set yet")
            require(is_from_webhook(token, request.headers, request.body),
                    401, "the token is missing or wrong")
            require(self.config.slack_webhook_url, 503, "SLACK_WEBHOOK_URL isn't set yet")
        name = request.path.removeprefix("/post/")
        handler = summarize if request.path == "/post" else webhooks.get(name)
        require(handler, 404, "there is no such webhook")
        require(not self.bot.draining and len(self.bot.webhook_posts) < WEBHOOK_QUEUE,
                503, "too many posts wait already, or the bot is being restarted")
        data = parse_body(request, JSON, FORM)
        log.info("posted", path=request.path, data=one_line(json.dumps(data), 1000))
        self.bot.take_webhook_post(handler, data)
        return json_response({"message": "JSON data posted"})


# ---- WebSocket -------------------------------------------------------------
# A client's side of RFC 6455: frames, and a connection that speaks in them.

SOCKET_BYTES = 4 * 1024 * 1024  # of a message on the socket; Slack's have 20,000
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10  # opcodes; RFC 6455, 5.2
# How a server's frame may begin: the rest of a message, a text or binary data; or one of the
# control frames, which are short and whole.
FRAME_START = re.compile(rb"[\x00-\x02\x80-\x82][\x00-\x7f]|[\x88-\x8a][\x00-\x7d]").match


class WebSocketError(ConnectionError):
    """The other side doesn't speak WebSocket, or has gone."""


def websocket_key_accept(key):
    """What a server answers to a client's *key* (RFC 6455, 4.2.2).
    >>> websocket_key_accept("dGhlIHNhbXBsZSBub25jZQ==")
    's3pPLMBiTxaQ9kYGzzhZRbK+xOo='"""
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


def encode_frame(opcode, payload=b"", mask=None):
    """A whole frame (bytes) from a client, which has to mask it (RFC 6455, 5.2).
    >>> encode_frame(1, b"Hi", mask=b"abcd").hex(" ")
    '81 82 61 62 63 64 29 0b'"""
    size = len(payload)
    first = bytes([128 | opcode])  # 128: it is final
    if size < 126:
        length = bytes([128 | size])  # 128: it is masked
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2)  # 128 | 126: two bytes follow
    else:
        length = b"\xff" + size.to_bytes(8)  # 128 | 127: eight do
    mask = mask or secrets.token_bytes(4)
    masked = bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask)))
    return first + length + mask + masked


class FrameReader:
    """Makes messages of a server's bytes; WebSocketError where they are none. Whether a text is
    UTF-8 is left to the caller. The work is in proportion to the bytes, however they are cut
    up."""

    def __init__(self):
        self.received = bytearray()
        self.opcode = 0  # of the message that is incomplete; 0 for none
        self.fragments = bytearray()  # its bytes so far

    def feed(self, data):
        """Yield the messages, (opcode, payload) pairs, that are whole with some more *data*."""
        self.received += data
        while frame := self.take_frame():
            first, payload = frame
            opcode = first & 15
            if opcode < CLOSE:
                if (opcode == 0) != bool(self.opcode):
                    raise WebSocketError("a fragment out of place")
                self.opcode = self.opcode or opcode
                self.fragments += payload
                if first < 128:  # it isn't the last one
                    continue
                opcode = self.opcode
                payload = bytes(self.fragments)
                self.opcode = 0
                self.fragments = bytearray()
            yield opcode, payload

    def take_frame(self):
        """The next frame: its first byte and its payload; None if it isn't whole."""
        if len(self.received) < 2:
            return None
        if not FRAME_START(self.received):
            raise WebSocketError("a frame that a server wouldn't send")
        first, size = self.received[:2]
        start = {126: 4, 127: 10}.get(size, 2)
        if size > 125:
            size = int.from_bytes(self.received[2:start])  # too small while some are missing
        if size + len(self.fragments) > SOCKET_BYTES:
            raise WebSocketError("a message that is too long")
        end = start + size
        if len(self.received) < end:
            return None
        payload = bytes(self.received[start:end])
        del self.received[:end]
        return first, payload


class WebSocket:
    """A connection to a *url*, for one thread. OSError or HTTPError if there is none, OSError if
    it has ended."""

    def __init__(self, url):
        import ssl, urllib.parse
        parts = urllib.parse.urlsplit(url)
        until = time.monotonic() + POST_SECONDS
        self.reader = FrameReader()
        self.sock = connect(resolve(parts.hostname, parts.port or HTTPS_PORT, until), until)
        try:
            if parts.scheme != "ws":
                self.sock = ssl.create_default_context().wrap_socket(
                    self.sock, server_hostname=parts.hostname)
            self.shake_hands(parts, until)
        except BaseException:
            self.sock.close()
            raise

    def shake_hands(self, parts, until):
        """Ask for a WebSocket at a URL's *parts* (RFC 6455, 4.1). Only a server that understands
        what was asked makes the right answer to the key."""
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.sock.sendall((
            f"GET {parts.path or '/'}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            byte = receive(self.sock, 1, until)  # and no more: frames may follow the header
            if not byte or len(head) > HEAD_BYTES:
                raise WebSocketError("no answer to the handshake")
            head += byte
        status, _, lines = head.partition(b"\r\n")
        fields = parse_fields(lines[:-2])
        if not (status.startswith(b"HTTP/1.1 101")
                and fields.get("sec-websocket-accept") == websocket_key_accept(key)):
            raise WebSocketError(f"the handshake is refused: {status[:60].decode('latin-1')}")

    def send(self, opcode, payload=b""):
        """Send one message (bytes)."""
        self.sock.settimeout(POST_SECONDS)
        self.sock.sendall(encode_frame(opcode, payload))

    def receive(self, seconds):
        """An iterator over the messages, (opcode, payload) pairs, that are whole with what comes
        next; TimeoutError if nothing comes within some *seconds*. The bytes are kept when it is
        iterated."""
        self.sock.settimeout(seconds)
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise WebSocketError("the connection is closed")
        return self.reader.feed(data)


# ---- Socket Mode -----------------------------------------------------------
# The same commands without a public address: we open a WebSocket to Slack, and Slack
# sends over it, in envelopes, what it would otherwise post to us by HTTP. (Its
# predecessor, RTM, takes no new apps.)
# https://docs.slack.dev/apis/events-api/using-socket-mode

PING_SECONDS = 10  # of silence, until we ask again and again whether the other side is there
STALE_SECONDS = 30  # of silence, until we give up
RECONNECT_SECONDS = 1  # the first pause between two tries
FINAL_REASONS = """invalid_auth not_authed account_inactive token_revoked token_expired
    not_allowed_token_type missing_scope link_disabled""".split()  # trying again is no use


class SocketModeClient:
    """Takes commands from Slack's Socket Mode. Each envelope is acknowledged when it arrives."""

    def __init__(self, config, bot):
        self.config = config
        self.bot = bot
        self.seen_envelopes = SeenIDs()

    def serve_forever(self):
        """Keep a connection, on this thread, until Slack says that it is no use."""
        pause = 0  # grows with each connection that doesn't last
        while not self.bot.draining:
            opened = time.monotonic()
            try:
                reason = self.connect().get()  # blocks until a new connection is needed
            except Exception as error:  # no more threads, too: we have to come back
                reason = getattr(error, "code", "lost")  # a SlackError's
                log.warning("socket_failed", why=error)
            if reason in FINAL_REASONS:
                log.error("socket_ended", why=reason)
                return
            if time.monotonic() - opened < STALE_SECONDS:
                pause = min(2 * pause or RECONNECT_SECONDS, PAUSE_SECONDS)
            else:
                pause = 0
            time.sleep(random.uniform(0.5, 1) * pause)

    def connect(self):
        """Connect, and start a thread that listens. Returns a queue: it gets a reason when Slack
        says that it will disconnect (the old connection goes on meanwhile), or when the
        connection is lost."""
        token = self.config.slack_app_token
        url = text_at(self.bot.slack.call("apps.connections.open", token=token), "url")
        if not is_confidential("http" + url.removeprefix("ws")):
            raise ValueError("Slack names a socket that isn't wss:")
        link = WebSocket(url)
        reasons = queue.SimpleQueue()
        start_thread("socket mode", self.listen, link, reasons)
        return reasons

    def listen(self, link, reasons):
        """Serve one connection until it ends."""
        heard_at = time.monotonic()
        try:
            while not self.bot.draining:
                try:
                    messages = link.receive(SWEEP_SECONDS)
                except TimeoutError:
                    silence = time.monotonic() - heard_at
                    if silence >= STALE_SECONDS:
                        raise
                    if silence >= PING_SECONDS:
                        link.send(PING)
                    continue
                heard_at = time.monotonic()
                for opcode, payload in messages:
                    if opcode == TEXT:
                        self.take_text(link, reasons, payload)
                    elif opcode == PING:
                        link.send(PONG, payload)
                    elif opcode == CLOSE:
                        link.send(CLOSE)
                        raise WebSocketError("Slack has closed the connection")
            link.send(CLOSE)
        except OSError as error:
            log.info("socket_closed", why=error)
        finally:
            link.sock.close()
            reasons.put("lost")

    def take_text(self, link, reasons, text):
        """Take one message of Slack's. All errors but OSError are logged, and end nothing."""
        try:
            data = parse_json(text)
            kind = text_at(data, "type")
            reason = text_at(data, "reason")
            if kind == "disconnect":
                reasons.put(reason)
            elif text_at(data, "envelope_id"):
                self.take_envelope(link, data, kind)
            log.info("socket", type=kind, why=reason)
        except HTTPError as error:
            log.warning("socket_refusal", why=error.why)
        except OSError:
            raise
        except Exception:
            log.exception("bug", where="socket")

    def take_envelope(self, link, data, kind):
        """Acknowledge an envelope, and have it served."""
        envelope_id = text_at(data, "envelope_id")
        link.send(TEXT, to_json({"envelope_id": envelope_id}))
        payload = data.get("payload") or {}
        verify_sender(self.config, payload)
        if not self.seen_envelopes.admit(envelope_id):
            return
        if kind == "interactive":
            self.bot.handle_action(payload)
        elif kind == "events_api":
            self.bot.handle_event(payload)
        elif kind == "slash_commands":
            self.bot.accept(Request(**{name: text_at(payload, name) for name in payload}))


# ---- demo ------------------------------------------------------------------
# The page plays Slack's part in the browser: it signs commands with a secret that it gets
# here, sends them to the real server, and reads what is posted to the response_url.

class DemoSlack:
    """The response_urls of the demo, under Slack's rules."""

    def __init__(self, config, url, clock=time.monotonic):
        self.config = config
        self.clock = clock
        self.hooks = {}  # (when it was made, messages) by its name; none but the page makes them
        config.slack_hooks_origins = [url, url.replace("127.0.0.1", "localhost")]
        with open(__file__, "rb") as file:
            self.source = file.read()
        self.routes = {
            "/demo/secret": {"GET": self.show_secret}, "/demo/source": {"GET": self.show_source},
            "/demo/hooks": {"POST": self.make_hook},
            "/demo/hooks/*": {"GET": self.show_messages, "POST": self.take_message}}

    def show_secret(self, connection):
        """GET /demo/secret: what the page signs with."""
        demo_origin(self.config, connection.request.headers)
        return json_response({"signing_secret": self.config.slack_signing_secret})

    def show_source(self, connection):
        """GET /demo/source: this very file, as the page shows how it works."""
        demo_origin(self.config, connection.request.headers)
        return Response(200, self.source, PAGE_FIELDS.replace("html", "plain"))

    def make_hook(self, connection):
        """POST /demo/hooks: a fresh response_url."""
        own = demo_origin(self.config, connection.request.headers)
        name = secrets.token_hex(12)
        self.hooks[name] = (self.clock(), [])
        return json_response({"response_url": f"{own}/demo/hooks/{name}"})

    def hook(self, connection):
        """How old a response_url is in seconds, and its messages; HTTPError (404)."""
        name = connection.request.path.rpartition("/")[2]
        require(name in self.hooks, 404, "there is no such response_url")
        made, messages = self.hooks[name]
        return self.clock() - made, messages

    def show_messages(self, connection):
        """GET /demo/hooks/ID: what was posted to it, and how many commands run. The page asks
        until none does; that is often, so it isn't logged."""
        demo_origin(self.config, connection.request.headers)
        _, messages = self.hook(connection)
        connection.is_logged = False
        return json_response({"messages": messages, "running": len(connection.server.bot.jobs)})

    def take_message(self, connection):
        """POST /demo/hooks/ID: an answer of the bot."""
        age, messages = self.hook(connection)
        if age > POST_WINDOW:
            return json_response({"ok": False, "error": "expired_url"}, 404)
        if len(messages) >= POST_LIMIT:
            return json_response({"ok": False, "error": "used_url"}, 404)
        try:
            posted = message(json.loads(connection.request.body, parse_constant=int))  # no NaN
        except (ValueError, TypeError, RecursionError):
            return Response(400, b"invalid_payload")
        if list(posted) == ["response_type"]:
            return Response(400, b"no_text")
        messages.append({"seconds": round(age, 2), "message": posted})
        return Response(200, b"ok")


SAMPLE_ISSUES = """\
project|key|fixversion|summary|priority|status|assignee|section
SHOP|SHOP-1|2.3|Checkout forgets the voucher on reload|Highest|In progress|Ana Silva|open, blockers
SHOP|SHOP-2|2.3|Total is rounded twice & shown wrong|High|In progress|Ken Sato|open
SHOP|SHOP-3|2.3|Search finds products that are sold out|Medium|To do||open, unassigned
SHOP|SHOP-4|2.3|Receipt lacks the VAT number|Blocker|To do|Ana Silva|open, blockers
SHOP|SHOP-5|2.3|Pay by invoice|High|Done|Ken Sato|
SHOP|SHOP-6|2.3|Cart survives a new login|Medium|Done|Mia Krystof|
SHOP|SHOP-7|2.4|Gift cards|Low|To do||open, unassigned"""
SAMPLE_VERSIONS = {"2.3": 11, "2.4": 53}  # and the days until they are due
SAMPLE_ISSUE = """{"key": "%(key)s", "fields": {
    "summary": "%(summary)s",
    "priority": {"name": "%(priority)s"},
    "fixVersions": [{"name": "%(fixversion)s"}],
    "status": {"name": "%(status)s", "statusCategory": {"key": "%(category)s"}},
    "assignee": {"displayName": "%(assignee)s"}}}"""
CONDITION = re.compile(
    r"""(project|key|fixVersion|summary|priority|status|statusCategory|assignee|section)"""
    r""" *= *("[^"]*"|[^\s"=<>!()]+) *""", re.I)


def sample_search(jql):
    """The issues of the sample that *jql* finds, as JIRA shows them. It knows `field = value` and
    what the reports are made of; HTTPError (400) for anything else."""
    import csv
    jql = jql.removesuffix(" ORDER BY key")
    for title, clause in {**QUERIES, "open": OPEN}.items():
        condition = f'section = "{title}"'
        jql = condition if jql == clause else jql.replace(f"({clause})", condition)
    conditions = [CONDITION.fullmatch(each) for each in jql.split(" AND ")]
    require(None not in conditions, 400,
            "The sample understands FIELD = VALUE, with AND, for project, key, fixVersion, "
            "summary, priority, status, statusCategory and assignee, and the reports' clauses.")
    for values in csv.DictReader(SAMPLE_ISSUES.splitlines(), delimiter="|"):
        status = values["status"]
        values.update(
            statuscategory=status,
            category="done" if status == "Done" else "indeterminate",  # JIRA has "new", too
            section=f"{status}, {values['section']}",
        )
        if all(value.strip('"').lower() in values[name.lower()].lower().split(", ")
               for name, value in map(re.Match.groups, conditions)):
            yield json.loads(SAMPLE_ISSUE % values)


def sample_jira(url, data, *others):
    """A JIRA in memory, in the place of `fetch`."""
    path = re.sub(r"^.*/rest/api/[23]/|[?].*", "", url)
    try:
        if path == "serverInfo":
            answer = {"version": "9", "deploymentType": "Cloud"}
        elif path == "project/SHOP/versions":
            today = datetime.date.today()
            answer = [{"name": name, "releaseDate": str(today + datetime.timedelta(days))}
                      for name, days in SAMPLE_VERSIONS.items()]
        elif path == "search/jql":
            answer = {"issues": list(sample_search(json.loads(data)["jql"])), "isLast": True}
        else:
            answer = next(sample_search(f"key = {path.removeprefix('issue/')}"), None)
            require(answer, 404, "The sample has the project SHOP and SHOP-1 to 7.")
    except HTTPError as error:
        return error.status, {}, to_json({"errorMessages": [error.why]})
    return 200, {}, to_json(answer)


# ---- main ------------------------------------------------------------------
# The command line: builds the objects, joins them, and stops them.

APP_NAME = "Command Bot"  # unless --name says another one
APP_NAME_CHARACTERS = 35  # Slack's limit
MANIFEST_COMMANDS = 50  # that an app may have; Slack refuses more
LOG_LINES = 10_000  # that wait to be written; about 2 MB
LOG_PAUSE = 0.05  # seconds in which lines gather, to be written at once


class LogWriter:
    """A stream for log lines that never blocks: a thread of its own writes them. Lines over
    LOG_LINES, as nobody reads them, are dropped and counted. (logging's QueueListener would wake
    that thread for every line, which takes as long as a command.)"""

    dropped = 0

    def __init__(self, stream):
        self.stream = stream
        self.lines = []
        start_thread("log", self.run)

    def write(self, text):
        """Take a line."""
        if len(self.lines) < LOG_LINES:
            self.lines.append(text)
        else:
            self.dropped += 1

    def run(self):
        """Write lines, many at once."""
        while True:
            time.sleep(LOG_PAUSE)
            batch = []
            try:
                self.stream.flush()  # as long as this fails, the lines wait
                batch = self.lines[:]
                del self.lines[:len(batch)]
                text = "".join(batch)
                dropped = self.dropped
                if dropped:
                    text += f"level=WARNING event=log_dropped lines={dropped}\n"
                self.stream.write(text)
                self.dropped -= dropped
            except (OSError, ValueError):  # a full disk, say: serving goes on
                self.dropped += len(batch)


def say(text):
    """Print *text* at once. It doesn't matter if nobody reads it, as after `| head`."""
    with suppress(OSError):
        print(text, flush=True)


def show(answer):
    """Print an answer, a message in bytes or None, in the terminal."""
    if answer:
        say(plain(json.loads(answer)))


def run(bot, words):
    """Run one command line in the terminal: 0, or 1 if it failed."""
    import getpass
    import shlex
    line = " ".join(words)
    with suppress(UserError):  # which the job meets again
        found, _ = find(line)
        # The shell has removed the quotes: put them back, unless the text is taken as it is.
        if all(each.annotation is not Rest for each in found.parameters):
            rest = shlex.join(word.translate(STRAIGHT_QUOTES) for word in words[1:])
            line = f"{words[0]} {rest}"
    request = request_of_line(line, bot=bot)
    with suppress(ImportError, KeyError, OSError):  # an id without a name, as in some containers
        request.user_name = getpass.getuser()
    return 0 if Job(request).run(show, show) else 1


def check(config, bot):
    """Say who the bot is for Slack and JIRA, and what is missing: 0, or 1 if something fails."""
    def ask_slack():
        answer = bot.slack.call("auth.test")
        return f"{text_at(answer, 'user')} in {text_at(answer, 'team')}"

    def ask_socket():
        bot.slack.call("apps.connections.open", token=config.slack_app_token)
        return "works"

    def ask_jira():
        user = bot.jira.call("2/myself", "displayName")
        return f"{user['displayName']} at {config.jira_url}"

    status = 0
    for title, variable, ask in (
            ("Slack's signatures", "SLACK_SIGNING_SECRET", lambda: "can be verified"),
            ("Slack's Web API", "SLACK_BOT_TOKEN", ask_slack),
            ("Socket Mode", "SLACK_APP_TOKEN", ask_socket),
            ("JIRA", "JIRA_URL", ask_jira)):
        try:
            said = ask() if variable in config.given else f"not set ({variable})"
        except UserError as error:
            said = plain(message(str(error)))
            status = 1
        say(f"{title}: {said}")
    return status


MANIFEST = """{
    "display_information": {},
    "features": {
        "bot_user": {"always_online": true},
        "app_home": {"messages_tab_enabled": true, "messages_tab_read_only_enabled": false},
        "slash_commands": []},
    "oauth_config": {"scopes": {"bot": [
        "commands", "chat:write", "app_mentions:read", "im:history", "files:write"]}},
    "settings": {
        "event_subscriptions": {"bot_events": ["app_mention", "message.im"]},
        "interactivity": {"is_enabled": true},
        "socket_mode_enabled": true,
        "org_deploy_enabled": false}}"""


def manifest(url=None, app_name=APP_NAME):
    """A Slack app's manifest for all commands: by HTTP at *url*, or by Socket Mode.
    https://docs.slack.dev/reference/app-manifest"""
    made = json.loads(MANIFEST)
    made["display_information"]["name"] = app_name
    made["features"]["bot_user"]["display_name"] = app_name
    for name in dict.fromkeys(name.split()[0] for name in commands):
        some = family(name)
        hints = " | ".join(filter(None, (one.usage.partition(" ")[2] for one in some)))
        entry = {"command": name, "should_escape": False,
                 "description": some[0].summary[:2000] or name}
        if hints:
            entry["usage_hint"] = hints[:1000]
        if url:
            entry["url"] = f"{url}/slack/commands"
        made["features"]["slash_commands"].append(entry)
    if url:
        settings = made["settings"]
        settings["socket_mode_enabled"] = False
        settings["interactivity"]["request_url"] = f"{url}/slack/interactions"
        settings["event_subscriptions"]["request_url"] = f"{url}/slack/events"
    return made


def print_manifest(words):
    """`manifest URL` or `manifest --socket`, perhaps with `--name NAME`. Returns what is wrong, or
    None."""
    match words:
        case [target, "--name", app_name] | ["--name", app_name, target]:
            pass
        case [*target]:
            target = " ".join(target)
            app_name = APP_NAME
    url = None if target == "--socket" else target.rstrip("/")
    if url is not None and not (re.fullmatch("https:[^?#]+", url) and origin(url)):
        return "slackbot.py: manifest wants your https://HOST, or --socket"
    if not 0 < len(app_name) <= APP_NAME_CHARACTERS:
        return f"slackbot.py: a name in a manifest has 1 to {APP_NAME_CHARACTERS} characters"
    made = manifest(url, app_name)
    say(json.dumps(made, indent=2, ensure_ascii=False))
    count = len(made["features"]["slash_commands"])
    if count > MANIFEST_COMMANDS:
        return f"slackbot.py: Slack takes {MANIFEST_COMMANDS} commands, not {count}"


def print_help():
    """`--help`: how to call it, which the docstring says first, and the settings."""
    say((__doc__ or "").partition("\nWhat")[0] + "\nEnvironment:")  # with -OO there is none
    for name, (_, _, what) in SETTINGS.items():
        say(f"  {name:26}{what}")


def serve(config, bot):
    """Serve until a signal comes, then see to unfinished commands. The exit status."""
    try:
        server = WebServer(config, bot)
    except OSError as error:
        hint = (f"; try PORT={config.port + 1} python3 {sys.argv[0]} demo"
                if config.mode == "demo" else "")
        sys.exit(f"can't serve on {config.host}:{config.port}: {reason_of(error)}{hint}")
    if config.mode == "demo":
        server.routes.update(DemoSlack(config, server.url).routes)

    def stop(number, frame):
        if bot.draining:  # by an earlier signal
            os._exit(1)
        bot.draining = True
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    start_thread("server", server.serve_forever)
    say(f"listening on {server.url} ({config.mode} mode)")
    if bot.journal:
        bot.recover()
    if config.slack_app_token:
        start_thread("socket mode", SocketModeClient(config, bot).serve_forever)
    while not bot.draining:
        time.sleep(SWEEP_SECONDS)
    if bot.jobs:
        log.stream.write(f"stopping: commands that still run: {len(bot.jobs)} (up to "
                         f"{config.slackbot_grace_seconds:g} s); Ctrl-C again ends it\n")
    bot.wait_for_jobs(config.slackbot_grace_seconds)
    server.shutdown(TELL_SECONDS)  # first: what is acknowledged later wouldn't be answered
    bot.tell_users()
    time.sleep(4 * LOG_PAUSE)  # for the log's last lines, and for Socket Mode to close
    if bot.journal:
        bot.journal.thread.shutdown()  # last, as posters go on to strike out what they have told
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says; exits with its status."""
    task, *words = (sys.argv[1:] if arguments is None else arguments) or ["serve"]
    sys.stdout = sys.stdout or open(os.devnull, "w")  # None where they were closed
    sys.stderr = sys.stderr or open(os.devnull, "w")
    sys.stdout.reconfigure(errors="replace")
    if task in ("-h", "--help"):
        sys.exit(print_help())
    if task == "manifest":
        sys.exit(print_manifest(words))
    if task not in ("serve", "demo", "run", "check") or words and task != "run":
        sys.exit(f"slackbot.py: there is no {' '.join([task, *words])!r}; see --help")
    is_server = task in ("serve", "demo")
    log.stream = LogWriter(sys.stdout) if is_server else sys.stderr
    logging.basicConfig(stream=log.stream, format="level=%(levelname)s %(message)s")
    try:
        config = Config(os.environ, demo=task == "demo")
        journal = None
        if is_server and config.slackbot_journal:
            journal = Journal(config.slackbot_journal)
    except ConfigError as error:
        print("Invalid configuration:", *error.args, sep="\n  ", file=sys.stderr)
        sys.exit(2)
    log.setLevel(config.log_level)
    warn_of_misspelled(os.environ)
    bot = Bot(config, make_jira(config), SlackAPI(config), journal)
    if is_server:
        status = serve(config, bot)
    else:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # as shells say it
        status = run(bot, words) if task == "run" else check(config, bot)
    os._exit(status)  # even if a handler hangs


def make_jira(config):
    """The JIRA that is configured; in demo mode without one, the sample."""
    if config.mode == "demo" and not config.jira_url:
        config.jira_url = config.jira_api_url = "https://jira.example"
        config.jira_project = ("SHOP",)
        return Jira(config, sample_jira)
    if config.jira_api_url and not is_confidential(config.jira_api_url):
        log.warning("insecure", why="JIRA's URL is http: its token can be read")
    return Jira(config)


if __name__ == "__main__":
    main()
