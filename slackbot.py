#!/usr/bin/env python3
"""slackbot.py: Slack slash commands from one file, on the standard library.

    python slackbot.py                          serve
    python slackbot.py demo                     serve a small Slack of its own to try it on
    python slackbot.py run /jira release 2.3    run one command in the terminal
    python slackbot.py check                    say what works, and what is missing
    python slackbot.py manifest https://HOST    print a manifest to make a Slack app of
    python slackbot.py manifest --socket        the same for Socket Mode

Everything that Slack sends is a command line and a way to reply. A door
turns what came in into a `Request` and hands it to the `Bot`; the first
answer goes back through the door, the later ones to the response_url.

The journey of one request
    Somebody types `/jira release 2.3`. Slack posts a form, and gives us three
    seconds. The `Door` begins a conversation (`Caller.converse`), finds a
    request in its bytes (`take_head`), looks at the path (`Door.route`), and
    sees by the signature that the form is Slack's (`verify`). `Bot.accept`
    makes a `Job` of it, for which `find` picks the command by the words of the
    line. `Job.run`, on a thread of the pool, or on the door's own if the
    command has been quick lately, has `bind` fit the other words to the
    command's parameters. Its first value is the first answer; if that takes
    too long, `Bot.watch` says "Working on it" in its place. `ResponseURL.send`
    posts the later values, at most five in thirty minutes. If the command
    fails, or the process ends, the user is told.

Contents
    limits and configuration: every number with its reason; the environment
    messages: what Slack shows, and how text is made safe for it
    requests and verification: what Slack sends, and whether it was Slack
    commands: functions that answer, found by name and fed from the line
    connections: to public addresses, within a deadline
    outgoing HTTP: one request to somebody else, within limits
    replies: the later answers, by the rules of a response_url
    the bot: runs commands on threads, and leaves nobody without a reply
    jira: the release report and its sisters
    network: the terminal in the channel: DNS, whois, TLS
    greetings and help: the small commands
    HTTP protocol: bytes into requests, answers into bytes
    HTTP door: one thread that listens, reads and never waits for anybody
    Socket Mode door: the same without a public address
    demo: a Slack and a JIRA of our own, to try it all without either
    main: the command line

To add a command, write a file of your own beside this one. What a function
returns is its answer; what it yields are its answers, one after the other.

    import slackbot

    @slackbot.command("/greet")
    def greet(request, name: str, times: int = 1):
        "Greet somebody."
        return f"Hello {slackbot.escape(name)}! " * times

    slackbot.main()
"""

# What isn't needed for a first answer is imported where it is needed.
import base64, collections, concurrent.futures, contextlib, datetime, functools, hashlib, hmac
import http, io, itertools, json, logging, math, os, queue, random, re, secrets, selectors
import signal, socket, socketserver, struct, sys, threading, time, types, weakref

__version__ = "1.0"
__all__ = ["command", "webhook", "Rest", "UserError", "escape", "button", "main"]

# ---- limits and configuration ----------------------------------------------
# Limits, with units and reasons; `SETTINGS`, all that the environment may say.

SIGNATURE_SECONDS = 300  # how old a signature may be; Slack's own figure
REMEMBERED, REPEAT_SECONDS = 10_000, 30  # what may come once, 2 MB; or again so soon
FORM_FIELDS = 100  # Slack sends 15; a form of thousands only costs time
ECHO_CHARACTERS = 100  # of what the user typed, where an answer repeats it
BLOCK_CHARACTERS, MESSAGE_CHARACTERS = 3_000, 13_000  # Slack refuses longer ones (bolt-js#2509)
LINK_CHARACTERS = 2_000  # of a URL; a text holds no second one as long as that
POST_LIMIT, POST_WINDOW = 5, 30 * 60  # what a response_url takes: posts, in so many seconds
POST_SECONDS, REPLY_BYTES = 10, 64 * 1024  # for one post and Slack's reply, a few words
TURN_SECONDS, OUT_SECONDS = 10, 1  # to wait for a message's turn; for the door's first answer
PAUSE_SECONDS = 60  # the longest pause between two tries of a post
HERALDS, ACKERS = 24, 8  # threads for first answers that are posted; for those on the socket
TELL_SECONDS, TELL_THREADS = 4, 24  # for unfinished commands: 30 s after SIGTERM, Heroku kills
HURRY_SECONDS = 0.25  # to wait for a first value while half of the connections wait for theirs
JIRA_SECONDS, JIRA_BYTES = 30, 10_000_000  # for one answer: some JQL is slow, a page has 200 KB
JIRA_TRIES, JIRA_PAUSE = 3, 30  # when JIRA says 429 or 503: tries, and at most seconds between
JIRA_PAGE, JIRA_COUNTED = 100, 5_000  # issues that come quickly; that are counted one by one
JIRA_THREADS = 16  # requests to JIRA at once; all threads but tellers fit a small dyno's 256
ISSUES_SHOWN, VERSIONS_SHOWN = 10, 20  # in a section; of a project, at four queries each
SUMMARY_CHARACTERS, NAME_CHARACTERS = 90, 40  # an issue fits a line of Slack's
BAR_CELLS = 20  # of a report's bar; fits a phone's line
PROGRESS_SECONDS = 5, 20, 60  # when a report that isn't there yet says how far it is
CODE_CHARACTERS = 9_000  # of what another program said; fits a message, with a summary
DIG_SECONDS, DNS_TRY_SECONDS, DNS_TRIES = 10, 3, 3  # in all; for one try of so many a server
NAME_BYTES = 255  # of a name in the DNS; RFC 1035, 2.3.4
WHOIS_SECONDS, WHOIS_BYTES = 20, 256 * 1024  # for all servers together; for one of them
WHOIS_HOPS, WHOIS_LINES = 4, 25  # IANA, registry, registrar make two; of what matters most
OPENSSL_SECONDS, NAMES_SHOWN = 10, 10  # for two handshakes; some certificates have 100
DNS_PORT, WHOIS_PORT, HTTPS_PORT = 53, 43, 443  # by IANA
HEAD_FIELDS, HEAD_BYTES = 100, 64 * 1024  # Slack and a host's router send some 20, of 1 KB
LINE_BYTES, BODY_BYTES = 8_192, 1024 * 1024  # Slack's request lines have 40, its forms 20,000
REQUEST_SECONDS, LINGER_SECONDS = 10, 2  # for a whole request; for a refused caller to see it
IDLE_SECONDS = 95  # between two requests; Heroku's router keeps a connection for 90
DAWDLE_SECONDS = 0.04  # that a newcomer has to begin before it makes room for the next one
HELD_SECONDS, QUICK_RUNS = 0.01, 20  # a command may keep a door's thread; until it may again
END_SECONDS = 0.2  # in which a handler ends that has just given its last answer
WATCH_SECONDS, SWEEP_SECONDS = 0.01, 0.5  # how exactly slow handlers, slow callers are noticed
BACKLOG = 1024  # connections that the kernel holds for us in a burst
API_SECONDS, API_TRIES = 10, 3  # for one call of Slack's Web API; when it says 429 or 5xx
BUTTON_LABEL, BUTTON_VALUE = 75, 2_000  # characters; Slack refuses more
SUMMARY_LINES, REPORT_THREADS = 20, 2  # of what was posted to /post; a webhook takes 1/s anyway
SOCKET_BYTES = 4 * 1024 * 1024  # of a message on the socket; Slack's have 20,000
PING_SECONDS, STALE_SECONDS = 10, 30  # of silence on the socket: until we ask; until we give up
RECONNECT_SECONDS, RECONNECT_LIMIT = 1, 60  # the first pause and the longest between two tries
MANIFEST_COMMANDS = 50  # that an app may have; Slack refuses more
DEMO_HOOKS = 1_000  # response_urls that the demo remembers

HOOKS = ("https://hooks.slack.com:443", "https://hooks.slack-gov.com:443")
PLAIN_URL = re.compile(r"([Hh][Tt][Tt][Pp][Ss]?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])"
                       r"(?::([0-9]{1,5}))?(?:[/?#][!-\[\]-~]*)?")
PLACE = re.compile(r"(?:\[([\da-fA-F:.]+)\]|([^\s:/@\[\]]+))(?::(\d{1,5}))?|([\da-fA-F:.]+)", re.A)
QUERIES = {"Blockers": "statusCategory != Done AND priority in (Blocker, Highest)",
           "In progress": 'statusCategory = "In Progress"', "To do": 'statusCategory = "To Do"',
           "Unassigned": "assignee is EMPTY AND statusCategory != Done",
           "Reopened": "status WAS Done AND statusCategory != Done",
           "Stale": "statusCategory != Done AND updated <= -7d",
           "Inconsistent": "statusCategory = Done AND resolution is EMPTY",
           "Done": "statusCategory = Done"}


def checked(cast, is_right):
    """A cast like *cast*, with ValueError for a value that isn't right."""
    def strict(text):
        value = cast(text)
        if not is_right(value):
            raise ValueError("not right")
        return value
    return strict


def listing(cast):
    """A cast to a tuple: *cast* of each text between commas."""
    return lambda text: tuple(cast(part.strip()) for part in text.split(","))


def endpoint(port):
    """A cast of HOST, HOST:PORT or [IPV6]:PORT to (host, port), which is *port* unless given."""
    def cast(text):
        found = PLACE.fullmatch(text)
        number = int(found and found[3] or port)
        if not found or not 0 < number < 65_536:
            raise ValueError("not HOST:PORT")
        return found[1] or found[2] or found[4], number
    return cast


def name_servers(path="/etc/resolv.conf"):
    """The name servers that this machine asks, as (address, port) pairs."""
    found = []
    with contextlib.suppress(OSError), open(path) as file:
        found = re.findall(r"^nameserver\s+([\da-fA-F:.]+)\s*$", file.read(), re.M)
    return tuple((address, DNS_PORT) for address in found or ["8.8.8.8"])


def origin(url):
    """Scheme, host and port of *url*; None for one with spaces, backslashes or a user name."""
    if found := PLAIN_URL.fullmatch(url):
        scheme, host, port = found.groups()
        port = int(port) if port else 443 if scheme.lower() == "https" else 80
        return f"{scheme}://{host}:{port}".lower() if port < 65_536 else None


def is_private(url):
    """Whether nobody can listen in on the way to *url*: it is https, or stays on this machine."""
    return re.match(r"https:|http://(localhost|127\.[0-9.]+|\[::1\]):", origin(url) or "")


TEXT = checked(str, re.compile("[!-~]+").fullmatch)  # a secret with a space was pasted badly
URL = checked(lambda text: text.rstrip("/"), origin)
SOME = checked(int, range(1, 10_001).__contains__)
ADDRESS = re.compile("[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*").fullmatch
TEAM = checked(str, re.compile("[A-Z0-9]+").fullmatch)
KEY = checked(str.upper, re.compile("[A-Z][A-Z0-9_]+").fullmatch)
SLACK_SECRETS = {"SLACK_SIGNING_SECRET", "SLACK_VERIFICATION_TOKEN"}
JIRA_CLOUD = {"JIRA_USERNAME", "JIRA_API_TOKEN"}
SETTINGS = {  # name: (default, cast, what it should be)
    "PORT": (None, checked(int, range(65_536).__contains__), "a port, 0 for any; unset: 8080"),
    "HOST": ("", TEXT, "an address; unset: 0.0.0.0 with PORT, 127.0.0.1 without"),
    "SLACK_SIGNING_SECRET": (None, TEXT, "the app's signing secret"),
    "SLACK_VERIFICATION_TOKEN": (None, TEXT, "the app's verification token (older apps)"),
    "SLACK_TEAM_ID": ((), listing(TEAM), "ids of workspaces, with commas"),
    "SLACK_BOT_TOKEN": (None, TEXT, "the app's bot token, xoxb-…: mentions, files"),
    "SLACK_APP_TOKEN": (None, TEXT, "an app-level token, xapp-…, for Socket Mode"),
    "SLACK_API_URL": ("https://slack.com/api/", lambda text: checked(str, is_private)(
        text).rstrip("/") + "/", "an https URL: the Web API's base"),
    "SLACK_WEBHOOK_URL": (None, checked(str, is_private), "an https URL: where /post reports go"),
    "SLACK_HOOKS_ORIGINS": (HOOKS, listing(lambda text: origin(checked(str, is_private)(text))),
                            "https URLs, with commas: where a response_url may point"),
    "JIRA_URL": (None, URL, "a URL, https://example.atlassian.net"),
    "JIRA_API_URL": (None, URL, "a URL: the REST API's base where it isn't JIRA_URL"),
    "JIRA_USERNAME": (None, TEXT, "Cloud: the e-mail address of the bot's account"),
    "JIRA_API_TOKEN": (None, TEXT, "Cloud: its API token"),
    "JIRA_PERSONAL_TOKEN": (None, TEXT, "Data Center: a personal access token"),
    "JIRA_PROJECT": ((), listing(KEY), "keys of projects, with commas: where reports look"),
    "JIRA_QUERIES": (QUERIES, checked(json.loads, lambda data: 0 < len(data) <= 20 and all(
        clause.strip() for clause in data.values())), "a JSON object: up to 20 sections' clauses"),
    "DNS_SERVER": (name_servers(), listing(checked(
        endpoint(DNS_PORT), lambda place: ADDRESS(place[0]))), "ADDRESS or ADDRESS:PORT for /dig"),
    "WHOIS_SERVER": (("whois.iana.org", WHOIS_PORT), endpoint(WHOIS_PORT),
                     "HOST or HOST:PORT where /whois starts"),
    "NETWORK_ALLOW_PRIVATE": (None, "1".__eq__, "1: /whois and /openssl may reach the inside"),
    "SLACKBOT_WORKERS": (200, SOME, "1 to 10000, the handlers at once"),
    "SLACKBOT_CONNECTIONS": (48, SOME, "1 to 10000, the connections at once"),
    "SLACKBOT_QUEUE": (1000, checked(int, range(100_001).__contains__), "0 to 100000, to wait"),
    "SLACKBOT_ACK_SECONDS": (2, checked(float, lambda time_: 0 <= time_ <= 2.5), "0 to 2.5"),
    "SLACKBOT_GRACE_SECONDS": (25, checked(float, lambda time_: 0 <= time_ <= 3600), "0 to 3600"),
    "SLACKBOT_JOURNAL": (None, checked(str, lambda path: os.path.isdir(
        os.path.dirname(path) or ".") and not os.path.isdir(path)),
        "a file, in a directory that is there: commands that are owed an answer"),
    "SLACKBOT_WEBHOOK_TOKEN": (None, TEXT, "a secret of yours that /post asks for"),
    "LOG_LEVEL": ("INFO", checked(str.upper, "DEBUG INFO WARNING ERROR".split().__contains__),
                  "DEBUG, INFO, WARNING or ERROR"),
}


class ConfigError(Exception):
    """The environment can't be right; the arguments are a sentence for each mistake."""


class Config:
    """The settings, `PORT` as `port`, and the `mode` that they amount to; ConfigError has all that
    is wrong, and no value: it might be a secret."""

    def __init__(self, environ, demo=False):
        given = {name: environ[name].strip() for name in SETTINGS if environ.get(name, "").strip()}
        problems, good = [], set()
        for name, (default, cast, what) in SETTINGS.items():
            try:
                setattr(self, name.lower(), cast(given[name]) if name in given else default)
                good |= given.keys() & {name}
            except (ValueError, RecursionError, AttributeError, TypeError, OSError):
                problems.append(f"{name} should be {what}")
        problems += self.contradictions(good, given.keys())
        if problems:
            raise ConfigError(*problems)
        secret = self.slack_signing_secret or self.slack_verification_token
        self.missing = [name for name, value in (("SLACK_SIGNING_SECRET", secret),
                                                 ("JIRA_URL", self.jira_url)) if not value]
        is_demo = self.port is None and not self.slack_app_token
        self.mode = "live" if secret else "demo" if is_demo else "setup"
        self.host = self.host or ("127.0.0.1" if self.port is None else "0.0.0.0")
        self.port = 8080 if self.port is None else self.port
        self.jira_api_url = self.jira_api_url or self.jira_url
        if demo or self.mode == "demo":
            self.mode, self.host, self.slack_team_id = "demo", "127.0.0.1", ()
            self.slack_signing_secret, self.slack_verification_token = secrets.token_hex(16), None

    def contradictions(self, good, given):
        """A sentence for each of the *good* settings that doesn't go with the *given* ones."""
        if "SLACK_TEAM_ID" in good and not given & SLACK_SECRETS:
            yield "SLACK_TEAM_ID proves nothing without SLACK_SIGNING_SECRET"
        if good & JIRA_CLOUD and not given >= JIRA_CLOUD:
            yield "JIRA_USERNAME and JIRA_API_TOKEN go together"
        if good & JIRA_CLOUD and "JIRA_PERSONAL_TOKEN" in good:
            yield "JIRA_API_TOKEN is for Cloud, JIRA_PERSONAL_TOKEN for Data Center: keep one"
        if good & {"JIRA_API_URL", "JIRA_PERSONAL_TOKEN", *JIRA_CLOUD} and "JIRA_URL" not in given:
            yield "JIRA_URL is missing beside what else JIRA needs"


log = logging.getLogger("slackbot")
LOGGABLE = re.compile("[!#-<>-~]+").fullmatch


def logfmt(**fields):
    """A log line, `key=value key="two words"`; no value can break it or begin a new one."""
    return " ".join(f"{key}={value if LOGGABLE(value) else json.dumps(value)}"
                    for key, value in zip(fields, map(str, fields.values())))


# ---- messages --------------------------------------------------------------
# A message is Slack's JSON as a dict: `text` in mrkdwn, perhaps `blocks`, and a
# `response_type`, "ephemeral" for the one who asked or "in_channel" for all.
# https://docs.slack.dev/messaging/formatting-message-text

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
STRAIGHT = str.maketrans("“”„‟‘’‚‛", '""""' + "''''")
DRESSED = re.compile(r"<(?:(?:mailto:|tel:|https?:)[^<>|]*|([@#])[^<>|]*)\|([^<>|]*)>"
                     r"|<(?:mailto:|tel:)([^<>|]*)>|<((?:[@#]|https?:)[^<>|]*)>")


class UserError(Exception):
    """What the user should know, in mrkdwn; it is shown as it is."""


def escape(text):
    """Plain *text* as mrkdwn in which nothing can be a mention or a link.
    >>> escape("<!channel> & all")
    '&lt;!channel&gt; &amp; all'"""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text):
    """Undo `escape`, once."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def undress(text):
    """*text* as it was typed, without what Slack makes of links and names.
    >>> undress("<http://example.com|example.com> <@U1|ann> <mailto:a@b.c|a@b.c>")
    'example.com @ann a@b.c'"""
    return DRESSED.sub(lambda found: "".join(filter(None, found.groups())), text)


def flat(text, limit=ECHO_CHARACTERS):
    """Somebody else's *text* on one line of at most *limit* characters, escaped."""
    text = CONTROL.sub("", " ".join(str(text).split()))
    return escape(text if len(text) <= limit else text[:limit - 1] + "…")


def link(url, label):
    """A link in mrkdwn; both parts are plain text."""
    return f"<{escape(url).replace('|', '%7C')}|{escape(label)}>"


def clip(text, limit):
    """Mrkdwn of at most *limit* characters, cut off if need be, but not within an entity."""
    return text if len(text) <= limit else re.sub("&[a-z]*$", "", text[:limit - 1]) + "…"


def code_block(text):
    """Another program's *text* as a block of code, cut off if it is too long."""
    text = escape(CONTROL.sub("", text).strip().replace("`", "'"))
    return f"```\n{clip(text, CODE_CHARACTERS)}\n```"


def button(label, line):
    """A button, for an "actions" block of its own: a press runs a command *line*."""
    if len(line) > BUTTON_VALUE:
        raise ValueError("a button's command line is too long for Slack")
    return {"type": "button", "text": {"type": "plain_text", "text": label[:BUTTON_LABEL]},
            "action_id": "run", "value": line}


def message(answer, public=False):
    """What a handler answered, a str or a dict, as a message; TypeError for anything else."""
    if not isinstance(answer, (str, dict)):
        raise TypeError(f"an answer is a str, a dict or None, not {type(answer).__name__}")
    fields = answer if isinstance(answer, dict) else {"text": clip(answer, MESSAGE_CHARACTERS)}
    return {"response_type": "in_channel" if public else "ephemeral", **fields}


def to_json(data, encode=json.JSONEncoder(allow_nan=False).encode):
    """*data* as JSON, in bytes."""
    return encode(data).encode()


def texts_of(part):
    """All texts in a part of a message, in reading order."""
    if isinstance(part, dict):
        part = [] if part.get("type") == "actions" else [part.get(name) for name in (
            "text", "fields", "elements")]
    if isinstance(part, list):
        yield from itertools.chain.from_iterable(map(texts_of, part))
    elif part:
        yield part


def plain(answer):
    """A message as text for a terminal: one text a line, links and entities readable."""
    text = "\n".join(texts_of(answer.get("blocks") or answer.get("text")))
    text = re.sub("```\n|\n```", "", text)
    text = re.sub(r"<([^<>|]+)\|([^<>]*)>", r"\2 (\1)", text)
    return unescape(re.sub(r"<([^<>|]+)>", r"\1", text))


# ---- requests and verification ---------------------------------------------
# What a door hands to the bot, and the proof that it comes from Slack.
# https://docs.slack.dev/authentication/verifying-requests-from-slack

TIMESTAMP = re.compile("[0-9]{1,12}").fullmatch
NOT_SLACK = 401, "this isn't verified to be Slack's"  # but never which check has failed


class Request(types.SimpleNamespace):
    """A command line, who typed it and where, by the names that Slack's form has for it."""

    command = text = user_name = user_id = channel_id = team_id = response_url = ""

    @property
    def line(self):
        """The whole command line, as plain text."""
        return unescape(undress(f"{self.command} {self.text}")).strip()


class Refused(Exception):
    """A request that gets an HTTP *status*, a sentence that says why, perhaps header *fields*."""

    def __init__(self, status, why, fields=""):
        self.status, self.why, self.fields = status, why, fields


def refuse(wrong, status, why, fields=""):
    """Raise Refused if something is *wrong*."""
    if wrong:
        raise Refused(status, why, fields)


def parse_form(body):
    """The fields of a form post (bytes) as a dict of str; Refused (400) if there are too many.
    >>> parse_form(b"command=%2Fhello&text=a+b")
    {'command': '/hello', 'text': 'a b'}"""
    text = body.decode(errors="replace").replace("+", " ").replace("%2F", "/").replace("%3A", ":")
    pairs, fields = text.split("&"), {}
    refuse(len(pairs) > FORM_FIELDS, 400, "a form with more fields than Slack would send")
    for pair in pairs:
        name, _, value = pair.partition("=")
        fields[name] = value
    if "%" in text:
        from urllib.parse import unquote
        fields = {unquote(name): unquote(value) for name, value in fields.items()}
    fields.pop("", None)
    return fields


def is_ssl_check(body):
    """Whether a form post (bytes) is Slack's check of our certificate, which isn't signed."""
    return b"&ssl_check=1&" in b"&%b&" % body


def parse_json(text, kind=object):
    """JSON (str or bytes) as data of some *kind*, or Refused (400)."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "this isn't JSON") from None
    refuse(not isinstance(data, kind), 400, "this JSON isn't an object")
    return data


def field(data, *path):
    """The text at a *path* of keys and places in JSON's data; "" where there is none.
    >>> field({"actions": [{"value": "/hello"}]}, "actions", 0, "value")
    '/hello'"""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return ""
    return data if isinstance(data, str) else ""


def from_action(payload):
    """The Request of a press of a `button`; None for what else there is to click; Refused (400).
    https://docs.slack.dev/reference/interaction-payloads/block_actions-payload"""
    kind, user = field(payload, "type"), field(payload, "user", "id")
    action = field(payload, "actions", 0, "action_id")
    refuse(not kind or kind == "block_actions" and not (action and user), 400, "half a payload")
    if kind == "block_actions" and action == "run":
        name, _, text = field(payload, "actions", 0, "value").partition(" ")
        return Request(
            command=name, text=escape(text), user_id=user, team_id=field(payload, "team", "id"),
            user_name=field(payload, "user", "username"),
            channel_id=field(payload, "channel", "id"),
            response_url=field(payload, "response_url"))


def from_event(payload):
    """The Request of a mention or a direct message; None for what isn't a person's command line.
    https://docs.slack.dev/reference/events/app_mention"""
    event = {name: field(payload, "event", name) for name in (
        "type", "channel_type", "bot_id", "subtype", "user", "channel", "text", "ts", "thread_ts")}
    bot, line = field(payload, "authorizations", 0, "user_id"), event["text"]
    is_direct = event["type"] == "message" and event["channel_type"] == "im"
    if field(payload, "type") != "event_callback" or event["user"] == bot or event["bot_id"] or \
            event["subtype"] or not (is_direct or event["type"] == "app_mention"):
        return None
    if not is_direct or line.startswith("<@"):  # what is said to us begins behind our name
        mention = f"<@{bot}" if bot and f"<@{bot}" in line else "<@"
        line = line.partition(mention)[2].partition(">")[2].lstrip(":, ")
    name, _, text = (line.strip().lstrip("/") or "help").partition(" ")
    place = f"thread:{event['channel']}/{event['thread_ts'] or event['ts']}"
    return Request(command=f"/{name}", text=text, user_id=event["user"], response_url=place,
                   channel_id=event["channel"], team_id=field(payload, "team_id"))


def is_signed(secret, headers, body, now):
    """Whether Slack signed *body* (bytes) within 5 minutes of *now*, by the header fields."""
    timestamp = headers.get("x-slack-request-timestamp", "")
    if not TIMESTAMP(timestamp) or abs(now - int(timestamp)) > SIGNATURE_SECONDS:
        return False
    base = b"v0:" + timestamp.encode() + b":" + body
    expected = "v0=" + hmac.digest(secret.encode(), base, "sha256").hex()
    given = headers.get("x-slack-signature", "").encode(errors="replace")
    return hmac.compare_digest(given, expected.encode())


def is_replay(seen, key, now, tolerance=REPEAT_SECONDS):
    """Whether a *key* comes again, later than *tolerance*, in which a proxy may repeat a request;
    *seen* is told, and forgets the oldest."""
    first = seen.setdefault(key, now)
    if len(seen) > REMEMBERED:
        seen.popitem(last=False)
    return now - first > tolerance


def is_trusted(token, headers, body):
    """Whether a webhook comes from who knows the *token*: as a bearer, or as the key of GitHub's
    signature. https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    expected = "sha256=" + hmac.digest(token.encode(), body, "sha256").hex()
    return any(hmac.compare_digest(headers.get(name, "").encode(errors="replace"), right.encode())
               for name, right in (("authorization", f"Bearer {token}"),
                                   ("x-hub-signature-256", expected)))


def check_page(config, headers):
    """Refused (403) for any page but the demo's own, which could drive the bot through the user's
    browser; else the origin that the page has."""
    own = "http://" + headers.get("host", "")
    refuse(origin(own) not in config.slack_hooks_origins or headers.get("origin", own) != own
           or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"),
           403, "this is for the demo's own page")
    return own


def check_reply_url(config, url):
    """Refused (400) for a response_url that isn't Slack's."""
    refuse(url and origin(url) not in config.slack_hooks_origins,
           400, "the response_url isn't Slack's")


def verify(config, headers, body, now, seen):
    """Refused (401) unless Slack signed the request, where that can be checked, or if it was
    *seen* before, and not just now."""
    secret = config.slack_signing_secret
    if secret and (not is_signed(secret, headers, body, now)
                   or is_replay(seen, headers["x-slack-signature"], now)):
        raise Refused(*NOT_SLACK)


def verify_token(config, token):
    """Refused (401) unless the *token* in a request is the one that is configured, if one is."""
    wanted = config.slack_verification_token
    refuse(wanted and not hmac.compare_digest(token.encode(errors="replace"), wanted.encode()),
           *NOT_SLACK)


def verify_team(config, team):
    """Refused (401) for a *team* (its id) that isn't one of those that are configured, if any."""
    refuse(config.slack_team_id and team not in config.slack_team_id, *NOT_SLACK)


# ---- commands --------------------------------------------------------------
# A command is a function. Its name is one word or several, its arguments are
# the function's parameters, its help is the function's docstring.

WORD = re.compile(r"""(?:\\["'\\ ]|"(?:[^"\\]|\\.)*"|(?<!\w)'[^']*'|\S)+""", re.DOTALL)
QUOTED = re.compile(r"""\\(["'\\ ])|"((?:[^"\\]|\\.)*)"|(?<!\w)'([^']*)'""", re.DOTALL)
PLAIN_WORD = re.compile(r"""[^\s"'\\“”„‟‘’‚‛]+""").fullmatch  # one that needs no quotes
ESCAPED = re.compile(r"""\\(["\\])""")  # within double quotes
PUBLIC = re.compile(r"(?:^|\s)(?:--|—)public\s*$")
KINDS = {int: "a whole number", float: "a number", bool: "yes or no"}
TRUTH = {**dict.fromkeys(("yes", "true", "on", "1"), True),
         **dict.fromkeys(("no", "false", "off", "0"), False)}


class Rest(str):
    """Annotates a last parameter that takes the rest of the text as it was typed, unsplit."""


# A function under a name; usage is its whole usage line, summary its docstring's first.
Command = collections.namedtuple("Command", "name handler parameters usage summary")
# Of a handler; the default is REQUIRED where there is none.
Parameter = collections.namedtuple("Parameter", "name annotation default is_many")
REQUIRED, HAS_MANY, HAS_KEYWORDS = object(), 4, 8  # CO_VARARGS, CO_VARKEYWORDS in inspect
commands, longest = {}, {}  # by their names; how many words a name has at most, by its first


def parameters_of(handler):
    """A function's parameters behind the request, as `Parameter`s; TypeError for those that no
    command line can feed. (inspect would double our imports' time.)"""
    first = 1 + hasattr(handler, "__self__")  # behind the request, and perhaps the method's self
    while hasattr(handler, "__wrapped__"):  # by a decorator below ours
        handler = handler.__wrapped__
    code, hints, kinds = handler.__code__, handler.__annotations__, {}
    if code.co_kwonlyargcount or code.co_flags & HAS_KEYWORDS:
        raise TypeError(f"{handler.__name__}: a command line has nothing for what is behind a *")
    names = code.co_varnames[first:code.co_argcount]
    many = code.co_varnames[code.co_argcount:][:bool(code.co_flags & HAS_MANY)]
    defaults = dict(zip(names[::-1], (handler.__defaults__ or ())[::-1]))
    for name in hints.keys() & {*names, *many}:
        hint = hints[name]
        kind = kinds[name] = eval(hint, handler.__globals__) if isinstance(hint, str) else hint
        if kind not in (str, Rest, *KINDS) and any(
                isinstance(choice, type) for choice in getattr(kind, "__args__", (kind,))):
            raise TypeError(f"{handler.__name__}: {name} can't be a {kind}; there are str, int, "
                            "float, bool, Rest and Literal")
    if Rest in [kinds.get(name) for name in (*names, *many)][:-1]:
        raise TypeError(f"{handler.__name__}: nothing is left for what is behind a Rest")
    return [Parameter(name, kinds.get(name), defaults.get(name, REQUIRED), name in many)
            for name in (*names, *many)]


def command(name, usage=None):
    """Register the decorated function as a command; *usage* overrides what its parameters say."""
    if not re.fullmatch(r"/[a-z0-9_-]{1,31}( [a-z0-9_-]+){0,2}", name):
        raise ValueError(f"{name!r} should be like '/name' or '/name word', in small letters")

    def register(handler):
        parameters = parameters_of(handler)
        line = " ".join(map(placeholder, parameters)) if usage is None else usage
        summary = (handler.__doc__ or "").strip().partition("\n")[0].strip()
        first, *more = name.split()
        longest[first] = max(longest.get(first, 0), 1 + len(more))
        commands[name] = Command(name, handler, parameters, f"{name} {line}".strip(), summary)
        return handler
    return register


webhooks = {}  # functions of what is posted to /post/NAME, by their names


def webhook(name):
    """Register the decorated function for POST /post/NAME: it gets what was posted, as data, and
    returns what goes to SLACK_WEBHOOK_URL, a str or a dict, or None."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,40}", name):
        raise ValueError(f"{name!r} should be a word of letters, digits, _ and -")

    def register(handler):
        webhooks[name] = handler
        return handler
    return register


def summary(data):
    """What was posted as a message: a line for each of its fields, the main one of nested ones."""
    if not isinstance(data, dict):
        return flat(json.dumps(data), SUMMARY_CHARACTERS)
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            value = next(filter(None, (field(value, name) for name in (
                "full_name", "title", "name", "login", "message", "id"))), "…")
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) if all(
                isinstance(each, (str, int, float)) for each in value) else f"{len(value)} of them"
        lines.append(f"*{flat(key)}*: {flat(value, SUMMARY_CHARACTERS)}")
    return "\n".join(lines[:SUMMARY_LINES] + ["…"] * (len(lines) > SUMMARY_LINES))


def capitals(parameter):
    """A parameter's name as users see it: `type_` is TYPE."""
    return parameter.name.rstrip("_").upper()


def placeholder(parameter):
    """How a usage line shows a *parameter*: NAME, [NAME] or [NAME…]."""
    name = capitals(parameter)
    is_needed = parameter.default is REQUIRED and not parameter.is_many
    return name if is_needed else f"[{name}{'…' * parameter.is_many}]"


def find(line):
    """The command with the longest name that *line* begins with, and the text behind it."""
    words = line.lower().split(None, 3)
    for count in range(longest.get(words[0], 0) if words else 0, 0, -1):
        if found := commands.get(" ".join(words[:count])):
            return found, "".join(line.split(None, count)[count:])
    raise UserError(f"There is no `{flat(line.split(' ')[0])}` here. There is:\n"
                    + listed(commands.values()))


def listed(some):
    """The usage and summary of *some* commands, a line each."""
    return "\n".join(f"• `{escape(one.usage)}` {escape(one.summary)}"
                     for one in sorted(some, key=lambda one: one.name))


def family(name):
    """The commands whose first word is that of *name*."""
    return [one for one in commands.values() if one.name.split()[:1] == name.split()[:1]]


def unquoted(found):
    """What a match of `QUOTED` stands for: an escaped character, or what is between quotes."""
    escaped, double, single = found.groups("")
    return escaped + ESCAPED.sub(r"\1", double) + single


def split(text):
    """The words of *text*, split as a shell would, each with where it ends; lone quotes stay.
    >>> list(split('it\\'s "two words"'))
    [(4, "it's"), (16, 'two words')]"""
    for word in WORD.finditer(text.translate(STRAIGHT)):
        yield word.end(), QUOTED.sub(unquoted, word[0])


def convert(word, parameter):
    """*word* as the kind of value that a parameter's annotation asks for, or UserError."""
    kind, choices = parameter.annotation, getattr(parameter.annotation, "__args__", ())
    try:
        if choices:
            return {str(choice): choice for choice in choices}[word]
        return TRUTH[word.lower()] if kind is bool else kind(word) if kind in KINDS else word
    except (ValueError, KeyError):
        wanted = "one of " + ", ".join(map(str, choices)) if choices else KINDS[kind]
        parts = capitals(parameter), escape(wanted), flat(word)
        raise UserError("{} should be {}, not `{}`.".format(*parts)) from None


def bind(parameters, text):
    """What was typed behind a command's name as values for its *parameters*, or UserError."""
    words, values, end = split(text), [], 0
    for parameter in parameters:
        if parameter.annotation is Rest and (rest := text[end:].strip()):
            return [*values, Rest(rest)]  # it is the last one
        if parameter.is_many:
            values += [convert(word, parameter) for _, word in words]
        elif found := next(words, None):
            end, word = found
            values.append(convert(word, parameter))
        elif parameter.default is REQUIRED:
            raise UserError(f"{capitals(parameter)} is missing.")
        else:
            values.append(parameter.default)
    for _, word in words:
        raise UserError(f"`{flat(word)}` is one word too many.")
    return values


# ---- connections -----------------------------------------------------------
# A name is resolved once, every address is checked, and the checked address is the
# one that we connect to, so that nobody gets at the inside through us.

LABEL = r"(?!-)[A-Za-z0-9_*-]{1,63}"
HOST_NAME = re.compile(rf"\.|(?=.{{1,253}}\.?$){LABEL}(?:\.{LABEL})*\.?").fullmatch
IN_IPV6 = "::ffff:0:0/96", "::/96", "64:ff9b::/96", "2002::/16"  # IPv4 inside IPv6
NOISE = re.compile(r"^\[[^]]*\] |_ssl\.c:\d+: | ?\(_ssl\.c:\d+\)")  # in the words of errors


class NetworkError(UserError):
    """No answer from out there, or none that makes sense; in words for the user."""


def in_words(error):
    """What an OSError says, but for its numbers."""
    return flat(NOISE.sub("", str(error)) or "no answer in time")


def host_name(text):
    """*text* as the name of a host in the DNS, by IDNA; or UserError."""
    with contextlib.suppress(UnicodeError):
        name = text if text.isascii() else text[:NAME_BYTES].encode("idna").decode()
        if HOST_NAME(name):
            return name
    raise UserError(f"`{flat(text)}` can't be the name of a host.")


def ip_address(text):
    """*text* as an address, or None; ipaddress is loaded when it is first needed."""
    import ipaddress
    with contextlib.suppress(ValueError):
        return None if "%" in text else ipaddress.ip_address(text)  # no zones


def is_public(text):
    """Whether anybody on the internet can reach an address, and it is what it seems."""
    import ipaddress
    address = ip_address(text.partition("%")[0])
    return address.is_global and not address.is_multicast and not any(
        address in ipaddress.ip_network(network) for network in IN_IPV6)


def time_left(until):
    """The seconds until a moment of the monotonic clock; TimeoutError when it is over."""
    if (seconds := until - time.monotonic()) <= 0:
        raise TimeoutError("no answer in time")
    return seconds


def locate(host, port, config, until):
    """Where a *host* is: (address, port) pairs. NetworkError if it is nowhere, or not public."""
    pool = concurrent.futures.ThreadPoolExecutor(1)  # as getaddrinfo knows no deadline
    try:
        found = pool.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        places = [place[:2] for *_, place in found.result(time_left(until))]
    except (OSError, UnicodeError, concurrent.futures.TimeoutError) as error:
        raise NetworkError(f"`{flat(host)}` can't be found: {in_words(error)}") from None
    if not (config.network_allow_private or all(is_public(address) for address, _ in places)):
        raise NetworkError(f"`{flat(host)}` isn't public, and I don't go there.")
    return places


def connect(places, until):
    """A TCP connection to the first of some *places* that takes one; OSError."""
    for place in places:
        try:
            return socket.create_connection(place, time_left(until))
        except OSError as error:
            failed = error
    raise failed


def receive(sock, size, until):
    """At most *size* bytes: fewer if the other side ends before; OSError."""
    data = b""
    while len(data) < size:
        sock.settimeout(time_left(until))
        if not (chunk := sock.recv(size - len(data))):
            break
        data += chunk
    return data


# ---- outgoing HTTP ---------------------------------------------------------
# The opener knows http and https and nothing more: no redirects, which would
# carry tokens to other hosts, no proxies, no files. Every status is an answer.

class FetchError(Exception):
    """No answer: no connection, no time left, broken HTTP, or more bytes than agreed."""


opening = threading.Lock()  # functools.cache lets two threads make the same thing side by side


@functools.cache
def opener():
    """urllib's opener, made when first needed, as its modules are slow to load; its timeout is
    for the whole exchange, where a socket's own begins anew with each byte that trickles in."""
    import http.client, ssl, urllib.request

    class Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
        def do_open(self, connection, request, **options):
            deadline = time.monotonic() + request.timeout

            def answer(sock, *args, **kwargs):
                made = http.client.HTTPResponse(sock, *args, **kwargs)
                raw, read = made.fp.raw, made.fp.raw.readinto
                raw.readinto = lambda buffer: sock.settimeout(time_left(deadline)) or read(buffer)
                return made
            in_time = type("InTime", (connection,), {"response_class": staticmethod(answer)})
            return super().do_open(in_time, request, **options)

    made = urllib.request.OpenerDirector()
    made.add_handler(Handler(context=ssl.create_default_context()))  # which is slow to make, too
    return made


def fetch(url, data=None, headers=(), seconds=POST_SECONDS, limit=REPLY_BYTES):
    """GET *url*, or POST it *data* (bytes): status, headers, body (bytes). FetchError if there is
    no whole answer within *seconds*, or it has over *limit* bytes."""
    import http.client, urllib.request
    try:
        if not origin(url):
            raise ValueError("this isn't a URL")
        request = urllib.request.Request(url, data, dict(headers))
        with opening:
            open_ = opener().open
        with open_(request, timeout=seconds) as answer:
            body = answer.read(limit + 1)
            if len(body) > limit or answer.length:
                raise ValueError(f"the answer is cut off, or longer than {limit} bytes")
            return answer.status, answer.headers, body
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(f"{type(reason).__name__}: {reason}") from None


def retry_after(headers, limit, default):
    """The seconds of a Retry-After header, at most *limit*; *default* where there are none."""
    value = headers.get("Retry-After") or ""
    return min(int(value), limit) if re.fullmatch("[0-9]{1,9}", value) else default


def patiently(ask, tries, limit, busy=(429, 503)):
    """What *ask* gives, (status, headers, ...), asked again while its status is one of *busy*."""
    for attempt in range(1, tries + 1):
        answer = ask()
        if answer[0] not in busy or attempt == tries:
            return answer
        time.sleep(retry_after(answer[1], limit, random.uniform(1, 2) * attempt))


class SlackError(UserError):
    """Slack's no, as a *code*, or its silence."""

    def __init__(self, method, code):
        super().__init__(f"Slack's {method} says `{flat(code)}`.")
        self.code = code


class SlackAPI:
    """Slack's Web API. https://docs.slack.dev/apis/web-api"""

    def __init__(self, config):
        self.base, self.token = config.slack_api_url, config.slack_bot_token

    def ask(self, method, fields, token=None):
        """Call a *method* once: HTTP's status, the headers, and the answer (dict). FetchError."""
        if not (token or self.token):
            raise UserError("Slack isn't connected for that: whoever runs the bot should set "
                            "SLACK_BOT_TOKEN.")
        data = {name: value if isinstance(value, str) else json.dumps(value)
                for name, value in fields.items()}
        headers = {"Authorization": f"Bearer {token or self.token}",
                   "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        import urllib.parse
        body = urllib.parse.urlencode(data, errors="replace").encode()
        status, headers, body = fetch(self.base + method, body, headers, API_SECONDS)
        try:
            return status, headers, dict(json.loads(body))
        except (ValueError, TypeError, RecursionError):
            return status, headers, {"error": f"HTTP status {status}"}

    def call(self, method, fields=None, token=None):
        """Call a *method*, again if Slack asks for patience: the answer. SlackError."""
        try:
            *_, answer = patiently(lambda: self.ask(method, fields or {}, token),
                                   API_TRIES, PAUSE_SECONDS, (429, 500, 503))
        except FetchError as error:
            raise SlackError(method, str(error)) from None
        if answer.get("ok") is not True:
            raise SlackError(method, str(answer.get("error")))
        return answer

    def upload(self, name, data, channel):
        """Put a file of *data* (bytes) into a channel; SlackError.
        https://docs.slack.dev/messaging/working-with-files#upload"""
        place = self.call("files.getUploadURLExternal",
                          {"filename": name, "length": str(len(data))})
        url = field(place, "upload_url")
        try:
            status, _, said = fetch(url if is_private(url) else "", data, {
                "Content-Type": "application/octet-stream"})
        except FetchError as error:
            status, said = 0, str(error).encode()
        if status != 200:
            raise SlackError("upload", said.decode(errors="replace") or status)
        self.call("files.completeUploadExternal", {
            "files": [{"id": field(place, "file_id"), "title": name}], "channel_id": channel})


# ---- replies ---------------------------------------------------------------
# A response_url takes five posts in thirty minutes, and a process may end in between.
# https://docs.slack.dev/interactivity/handling-user-interaction

TRANSIENT = {"internal_error", "ratelimited", "request_timeout", "service_unavailable"}
UNUSABLE = {3, 5, 8, 10, 13, 14}  # SQLite's PERM, BUSY, READONLY, IOERR, FULL and CANTOPEN


class ResponseURL:
    """The later answers of one command. As nobody knows which is the last until the handler ends,
    the one for the last place is held back, and gives way to a newer one."""

    def __init__(self, url, post=fetch, clock=time.monotonic, sleep=time.sleep, age=0,
                 limit=POST_LIMIT):
        self.url, self.post, self.clock, self.sleep = url, post, clock, sleep
        self.until, self.used, self.held = clock() + POST_WINDOW - age, 0, None
        self.limit, self.spoken = limit, -math.inf  # when an answer arrived
        self.lock, self.closed = threading.Lock(), False  # the lock is held during a post

    def send(self, answer):
        """Deliver a message, now or, if it may be the last one, in `finish`; None is nothing."""
        if answer is None:
            return
        body = to_json(answer)
        if self.used < self.limit - 1:
            self.deliver(body)
        else:
            self.held = body

    def finish(self):
        """Deliver what was held back, and nothing after it; whether something still could be."""
        if self.held:
            self.deliver(self.held)
        with self.lock:
            was_closed, self.closed = self.closed, True
        return not was_closed

    def end(self, answer):
        """Deliver a last message in the place of a handler, and nothing after it; false if that
        has ended meanwhile."""
        while True:
            with self.lock:  # a post of the handler's was under way, perhaps, and its last one
                if self.closed:
                    return False
                if self.clock() - self.spoken >= END_SECONDS:
                    self.closed = True
                    break
            self.sleep(WATCH_SECONDS)
        if answer:
            self.deliver(to_json(answer), after_all=True)
        return True

    def deliver(self, body, after_all=False):
        """Post *body* until Slack has it or refuses it, or the thirty minutes are over."""
        pause, headers = 0, {"Content-Type": "application/json; charset=utf-8"}
        for attempt in itertools.count():
            if not self.url or self.clock() + pause > self.until:
                return log.warning(logfmt(event="undelivered", why="no response_url, or too old"))
            if pause:
                self.sleep(pause)
            pause = random.uniform(0.5, 1) * min(2 ** attempt, PAUSE_SECONDS)
            with self.lock:
                if self.closed and not after_all:
                    return
                try:
                    status, answered, said = self.post(self.url, body, headers)
                    pause = retry_after(answered, PAUSE_SECONDS, 0) or pause
                except FetchError as error:
                    status, said = 0, str(error)
                if 200 <= status < 300:
                    self.used, self.spoken = self.used + 1, self.clock()
                    return
            log.warning(logfmt(event="post_failed", status=status, said=said[:200]))
            if 300 <= status < 500 and status != 429:
                return


def thread_reply(slack, url, age=0):
    """The like of a ResponseURL for a *url* thread:CHANNEL/TIMESTAMP, by the Web API."""
    channel, _, thread = url.removeprefix("thread:").partition("/")

    def post(_, body, headers):
        fields = {**json.loads(body), "channel": channel, "thread_ts": thread}
        status, headers, answer = slack.ask("chat.postMessage", fields)
        code = field(answer, "error")
        if status == 200 and answer.get("ok") is not True:
            status = 503 if code in TRANSIENT else 400
        return status, headers, code.encode()
    return ResponseURL(url, post, age=age, limit=math.inf)


class Journal:
    """The commands that are owed a last answer, in an SQLite file that outlives the process and
    belongs to one at a time. ConfigError if it can't be had; a damaged one is set aside."""

    def __init__(self, path):
        import sqlite3
        self.lock = threading.Lock()
        try:
            try:
                self.open(path, sqlite3)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 255 in UNUSABLE:
                    raise OSError(error) from None
                log.error(logfmt(event="journal_damaged", why=error, aside=f"{path}.damaged"))
                for part in ("-journal", ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(path + part, f"{path}.damaged{part}")
                self.open(path, sqlite3)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"SLACKBOT_JOURNAL can't be used: {error}") from None

    def open(self, path, sqlite3):
        """Open, lock and read the file, for its owner only."""
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, os.stat(path).st_mode & 0o600)
        self.db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = OFF",
                          "BEGIN EXCLUSIVE", "CREATE TABLE IF NOT EXISTS owed "
                          "(number INTEGER PRIMARY KEY, url, line, since)"):
            self.db.execute(statement)
        self.left = self.db.execute("SELECT * FROM owed").fetchall()
        self.db.execute("PRAGMA user_version = 1")  # to see whether it can be written
        self.db.execute("COMMIT")

    def write(self, url, line):
        """Note that a command *line* owes its *url* an answer; the number to strike it out by."""
        line = line.encode(errors="replace").decode()  # JSON may have half a character
        return self.change("INSERT INTO owed VALUES (NULL, ?, ?, ?)", url, line, time.time())

    def strike(self, number):
        """Forget what is owed no more."""
        self.change("DELETE FROM owed WHERE number = ?", number)

    def change(self, statement, *values):
        """Change the file: which row it was; if it can't be, commands are served all the same."""
        try:
            with self.lock:  # not every SQLite is built for several threads
                return self.db.execute(statement, values).lastrowid
        except Exception as error:  # no space, as a rule
            log.error(logfmt(event="journal_failed", why=error))


# ---- the bot ---------------------------------------------------------------
# A command under way is a `Job`. Its first answer goes to the door that brought
# it, exactly once: from the handler, or from the watch if the handler is slow.

def sorry(line):
    """The message for the user of a command that won't be finished."""
    return message(f"Sorry, I had to restart before `{flat(line)}` was done. Try again?")


class Pool(concurrent.futures.ThreadPoolExecutor):
    """Threads to hand work to; where the machine has no more of them, those there are do it."""

    def submit(self, *call):
        """Have a function called, with its arguments; false if there was no thread to be had."""
        with contextlib.suppress(RuntimeError):
            return super().submit(self.call, *call)

    def call(self, function, *arguments):
        """Call a function; the log gets its bugs."""
        try:
            function(*arguments)
        except Exception:
            log.exception(logfmt(event="bug", thread=threading.current_thread().name))


class Job:
    """One command under way: *answer* takes its first answer, by a thread of the pool *by* if that
    takes time, and may return a lock, free when it is out; *later* takes the others."""

    def __init__(self, bot, request, answer, later, by=None):
        self.bot, self.request, self.answer, self.later = bot, request, answer, later
        self.by, self.out = by, None
        self.lock = threading.Lock()  # between the handler's first value and the watch
        self.answered = self.failed = self.said = False  # said: anything but "Working on"
        self.line, self.number = request.line, None  # the number is the journal's
        self.public = PUBLIC.search(self.line)
        self.command, self.text = find(PUBLIC.sub("", self.line) if self.public else self.line)

    def values(self):
        """Deliver what the handler answers; UserError if the line is wrong."""
        try:
            values = bind(self.command.parameters, self.text)
        except UserError as error:
            usages = "\n".join(f"`{escape(one.usage)}`" for one in family(self.command.name))
            raise UserError(f"{error} Usage:\n{usages}") from None
        value = self.command.handler(self.request, *values)
        is_one = not isinstance(value, types.GeneratorType)
        for each in [value] if is_one else value:
            self.deliver(each, is_one)
        for answer in (None, "Done."):  # done, if the user was told of work
            if not self.said:
                self.deliver(answer)

    def run(self):
        """Run the handler to its end, whatever happens; false if it was given up meanwhile."""
        try:
            try:
                self.values()
            except UserError as error:
                self.failed = True
                self.deliver(message(str(error)))
            except BaseException:  # SystemExit too: the user is there still
                self.failed = True
                self.deliver(self.apology())
            return self.later.finish()
        except Exception:
            log.exception(logfmt(event="undelivered", command=self.request.command))
            return True

    def deliver(self, answer, is_last=True):
        """Hand on one answer, as the first or as a later one; None says nothing."""
        answer = answer if answer is None else message(answer, self.public)
        if self.first(answer, is_last):
            self.said = True
        elif answer is not None:
            self.said = True
            if self.out and self.out.acquire(timeout=OUT_SECONDS):
                self.out.release()  # no answer overtakes the first one
            self.later.send(answer)

    def first(self, answer, is_last):
        """Give the first answer, unless it has been given; whether it was this one."""
        with self.lock:
            if self.answered:
                return False
            if self.bot.journal and not is_last:
                self.number = self.bot.journal.write(self.request.response_url, self.line)
            self.out = self.answer(answer)
            self.answered, self.later.spoken = True, self.bot.clock()
        self.bot.unanswered.pop(self, None)
        return True

    def hurry(self):
        """Give the first answer in the handler's place, unless it has given it."""
        self.first(message(f"Working on `{flat(self.line)}`…", self.public), is_last=False)

    def abandon(self):
        """Tell the user that the command won't be finished."""
        said = sorry(self.line)
        if self.later.end(None if self.first(said, is_last=True) else said):
            self.bot.forget(self)

    def apology(self):
        """Log the bug that is being handled; what to tell the user."""
        reference = secrets.token_hex(4)
        log.exception(logfmt(event="bug", reference=reference, command=self.request.command))
        return message(f"Sorry, `{flat(self.line)}` failed, and it isn't your fault. Whoever runs "
                       f"me finds the reason in the log, under `{reference}`.")


class Bot:
    """Runs commands on a pool of threads; `accept` never waits."""

    def __init__(self, config, jira, slack=None, journal=None, clock=time.monotonic):
        self.config, self.jira, self.slack = config, jira, slack
        self.journal, self.clock = journal, clock
        self.heard = collections.OrderedDict()  # signatures, events, envelopes: since when
        # A thread for each handler, and for a door that goes on without the one it was on.
        self.pool = Pool(config.slackbot_workers + 1, "worker")
        self.heralds, self.ackers = Pool(HERALDS, "herald"), Pool(ACKERS, "acker")
        self.reporters = Pool(REPORT_THREADS, "reporter")
        self.lock, self.started, self.draining = threading.Lock(), clock(), False
        self.running = self.done = self.failed = 0  # under the lock, as is
        self.waiting = collections.deque()  # jobs for which there is no worker yet
        self.jobs, self.unanswered, self.awake = {}, {}, threading.Event()  # Job: since when
        self.turns = weakref.WeakValueDictionary()  # channels: whose first answer is on its way
        self.patience = threading.Semaphore(HERALDS // 2)  # or all of them might wait
        self.held, self.slow = {}, {}  # jobs on a door: until when; runs until one is trusted
        threading.Thread(target=self.watch, name="watch", daemon=True).start()

    def accept(self, request, answer, later, lend=None, by=None):
        """Take a command; *answer* gets its first answer, from any thread, *later* the others. If
        *answer* takes time, what isn't the handler's own is given by the pool *by*. A door that
        would run quick commands on its own thread takes the job by *lend*, to `hold` it."""
        request.bot = self
        refusal = functools.partial(by.submit, answer) if by else answer
        try:
            job = Job(self, request, answer, later, by)
        except UserError as error:
            return refusal(message(str(error)))
        with self.lock:
            is_free = self.running < self.config.slackbot_workers
            is_full = self.draining or not (
                is_free or len(self.waiting) < self.config.slackbot_queue)
            if not is_full:
                self.jobs[job] = self.unanswered[job] = self.clock()
                if is_free:
                    self.running += 1
                else:
                    self.waiting.append(job)
        if is_full:
            why = "I'm being restarted" if self.draining else "Too many commands at once"
            return refusal(message(f"{why}, please try again in a minute."))
        self.awake.is_set() or self.awake.set()
        if not is_free:
            self.hurry_up(job)
        elif lend:
            lend(job)
        else:
            self.pool.submit(self.work, job)

    def later(self, url, age=0):
        """The way to a response_url, or to a thread, *age* seconds after it was given."""
        is_thread = url.startswith("thread:")
        return thread_reply(self.slack, url, age) if is_thread else ResponseURL(url, age=age)

    def hear(self, payload):
        """Take what the Events API says; what it says again is taken once."""
        request, number = from_event(payload), field(payload, "event_id") or secrets.token_hex(8)
        if not self.config.slack_bot_token:
            log.warning(logfmt(event="unheard", why="SLACK_BOT_TOKEN isn't set"))
        elif request and not is_replay(self.heard, number, self.clock(), 0):
            later = self.later(request.response_url)
            answer = self.in_turn(request.channel_id, later.send)
            self.accept(request, answer, later, by=self.heralds)

    def in_turn(self, channel, send):
        """*send* for the first answer to a message, which doesn't overtake the one before it in
        its *channel*; unless that one finds no way to Slack, or too many wait already."""
        before, said = self.turns.get(channel), threading.Event()
        self.turns[channel] = said  # for as long as the next one may need it

        def answer(message):
            until = self.clock() + TURN_SECONDS
            if before and self.patience.acquire(blocking=False):
                while not (before.wait(SWEEP_SECONDS) or self.draining or self.clock() > until):
                    pass
                self.patience.release()
            try:
                send(message)
            finally:
                said.set()
        return answer

    def press(self, payload):
        """Take the press of a button."""
        if request := from_action(payload):
            later = self.later(request.response_url)
            self.accept(request, later.send, later, by=self.heralds)

    def report(self, handler, data):
        """Post what a webhook's *handler* makes of *data* to SLACK_WEBHOOK_URL."""
        answer = handler(data)
        if answer is not None and self.config.slack_webhook_url:
            ResponseURL(self.config.slack_webhook_url).send(message(answer, public=True))

    def work(self, job):
        """Run one job, on a thread of the pool or of a door; then it is the next one's turn."""
        started = self.clock()
        if job.run():
            self.forget(job)
        is_slow, following = self.clock() - started >= HELD_SECONDS, None
        with self.lock:
            self.done, self.failed = self.done + 1, self.failed + job.failed
            if runs := QUICK_RUNS if is_slow else self.slow.pop(job.command.name, 1) - 1:
                self.slow[job.command.name] = runs
            if self.waiting:
                following = self.waiting.popleft()
            else:
                self.running -= 1
        if following:
            self.pool.submit(self.work, following)

    def hold(self, job, go_on):
        """Run a job, on the thread of a door if its command has been quick lately; false if it
        wasn't this time, and another thread goes on with what the door does, *go_on*."""
        if job.command.name in self.slow:
            self.pool.submit(self.work, job)
            return True
        self.held[job] = [self.clock() + HELD_SECONDS, go_on]
        self.awake.is_set() or self.awake.set()
        self.work(job)
        return self.held.pop(job, None)

    def relieve(self, job, go_on):
        """Take a door over from a job that isn't quick, unless it is done by now."""
        if self.held.pop(job, None):
            self.slow[job.command.name] = QUICK_RUNS
            go_on()

    def forget(self, job):
        """A job has come to its end."""
        self.jobs.pop(job, None)
        if job.number:
            self.journal.strike(job.number)

    def watch(self):
        """Answer in the place of handlers that are late, and free the doors that they hold; asleep
        while there's nothing to watch."""
        while self.awake.wait():
            time.sleep(WATCH_SECONDS)
            self.awake.clear()
            for job, held in list(self.held.items()):
                until, go_on = held
                if self.clock() >= until:
                    held[0] += SWEEP_SECONDS  # where there is no thread: then again
                    self.pool.submit(self.relieve, job, go_on)
            if self.unanswered or self.held:
                self.awake.set()
            # With half of the doors waiting, the next caller's 3 seconds are at risk: they begin
            # when it knocks, not when it is let in.
            crowded = len(self.unanswered) * 2 >= self.config.slackbot_connections
            self.hurry(min(HURRY_SECONDS if crowded else math.inf,
                           self.config.slackbot_ack_seconds))

    def hurry(self, seconds=0):
        """Give the first answer to all who have waited for it that long."""
        for job, since in list(self.unanswered.items()):
            if self.clock() - since >= seconds:
                self.hurry_up(job)

    def hurry_up(self, job):
        """Give one job's first answer; if that means to post it, by a thread that may wait."""
        if not job.by:
            job.hurry()
        elif self.unanswered.pop(job, None) and not job.lock.locked():
            job.by.submit(job.hurry)

    def drain(self):
        """Let commands finish for as long as is configured, then tell the users of the others."""
        until = self.clock() + self.config.slackbot_grace_seconds
        while self.jobs and self.clock() < until:
            time.sleep(WATCH_SECONDS)
        with self.lock:
            self.waiting.clear()  # nothing begins any more
        tellers, until = Pool(TELL_THREADS, "teller"), self.clock() + TELL_SECONDS
        if not any([tellers.submit(job.abandon) for job in [*self.jobs]]):
            for job in [*self.jobs]:  # no more threads: then it is this one's part
                job.abandon()
        while self.jobs and self.clock() < until:
            time.sleep(WATCH_SECONDS)
        time.sleep(SWEEP_SECONDS)  # in which the doors hand out their last answers

    def settle(self):
        """Tell the users of the commands that an earlier process has left in the journal."""
        def tell(number, url, line, since):
            try:
                if url.startswith("thread:") or origin(url) in self.config.slack_hooks_origins:
                    self.later(url, time.time() - since).end(sorry(line))
            finally:
                self.journal.strike(number)
        pool = Pool(TELL_THREADS, "settler")
        for row in self.journal.left:
            pool.submit(tell, *row)


# ---- jira ------------------------------------------------------------------
# Cloud (REST version 3) never says how many issues there are; Data Center (version
# 2) does. A count is exact, or it says "more than"; an estimate is never shown.
# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search

FIELDS = ["summary", "status", "assignee", "priority", "fixVersions"]
COLUMNS = ("summary",), ("status", "name"), ("assignee", "displayName"), ("priority", "name")
CSV = re.compile(r"\s(?:--|—)csv(?!\S)")
CATEGORIES = {name: QUERIES[name.capitalize()] for name in ("done", "in progress", "to do")}
DECIDING = {**CATEGORIES, "open": "statusCategory != Done"}  # as there is "No Category", too


class JiraError(UserError):
    """JIRA's own no, or its silence; the *status* is HTTP's, or 0."""

    def __init__(self, why, status=0):
        super().__init__(why)
        self.status = status


class Found(collections.namedtuple("Found", "issues count exact")):
    """The first issues of a search, and how many there are: *count*, or more if not *exact*."""

    def __str__(self):
        return f"{'' if self.exact else 'more than '}{self.count:,}"


def quote(text):
    r"""*text* as a string in JQL, which escapes \ and " and takes no control characters.
    >>> quote('2.3" OR key = "A-1')
    '"2.3\\" OR key = \\"A-1"'"""
    return '"' + re.sub(r'([\\"])', r"\\\1", re.sub(r"[\x00-\x1f\x7f]", " ", text)) + '"'


def in_release(projects, version, clause):
    """The JQL for the issues of a *version* in *projects* that a *clause* is true for; or all."""
    keys = ", ".join(map(quote, projects))
    projects = f"in ({keys})" if len(projects) > 1 else f"= {keys}"
    release = f"project {projects} AND fixVersion = {quote(version)}"
    return f"{release} AND ({clause})" if clause else release


def jira_answer(status, headers, body, part):
    """The JSON in JIRA's answer, an object with a *part* or a list of "name"s; or JiraError."""
    if status == 401 or "AUTHENTICATED_FAILED" in headers.get("X-Seraph-LoginReason", ""):
        # An expired token gets 200 from some endpoints, and what an anonymous caller may see.
        raise JiraError("JIRA doesn't accept the bot's credentials; is its token too old?", 401)
    try:
        data = json.loads(body)
        if status == 200 and all(part in each for each in (
                data if part == "name" else [{**data}])):
            return data
        reasons = [*(data.get("errorMessages") or ()), *(data.get("errors") or {}).values()]
        why = f": {flat(' '.join(map(str, reasons)), 300)}"
    except (ValueError, RecursionError, AttributeError, TypeError):
        why = ", and not in the way JIRA does"
    raise JiraError(f"JIRA answered {status}{why}", status)


class Jira:
    """A JIRA site. What goes wrong is a JiraError, in words for the user."""

    def __init__(self, config, send=fetch):
        self.site, self.base, self.send = config.jira_url, config.jira_api_url, send
        self.version, self.is_sure = "2" if config.jira_personal_token else "3", False
        self.pool = concurrent.futures.ThreadPoolExecutor(JIRA_THREADS, "jira")
        self.headers = {"Accept": "application/json", "Content-Type": "application/json"}
        account = f"{config.jira_username}:{config.jira_api_token}".encode()
        if config.jira_personal_token:
            self.headers["Authorization"] = f"Bearer {config.jira_personal_token}"
        elif config.jira_api_token:
            self.headers["Authorization"] = f"Basic {base64.b64encode(account).decode()}"

    def ask(self, version, path, part, body=None):
        """GET a *path* of the REST API, or POST it *body*; the JSON of the answer, with *part*."""
        if not self.base:
            raise JiraError("JIRA isn't connected: whoever runs the bot should set JIRA_URL.")
        url, data = f"{self.base}/rest/api/{version}/{path}", body and json.dumps(body).encode()
        try:
            return jira_answer(*patiently(lambda: self.send(
                url, data, self.headers, JIRA_SECONDS, JIRA_BYTES), JIRA_TRIES, JIRA_PAUSE), part)
        except FetchError as error:
            raise JiraError(f"JIRA doesn't answer: {flat(error, 200)}") from None

    def call(self, path, part, body=None):
        """`ask` in this JIRA's REST version: as its credentials suggest, or as it says itself."""
        was_sure, version = self.is_sure, self.version  # in this order, as others may set them
        try:
            answer = self.ask(version, path, part, body)
            self.is_sure = True
            return answer
        except JiraError as error:
            if error.status not in (404, 410) or was_sure:
                raise
        is_cloud = self.ask("2", "serverInfo", "version").get("deploymentType") == "Cloud"
        self.version, self.is_sure = "3" if is_cloud else "2", True
        return self.ask(self.version, path, part, body)

    def search(self, jql, shown=ISSUES_SHOWN):
        """What a query finds, as a `Found` with the first issues, as many as are *shown*."""
        if not self.is_sure:
            self.call("serverInfo", "version")
        query = {"jql": jql, "maxResults": JIRA_PAGE, "fields": FIELDS}
        if self.version == "2":
            page = self.call("search", "issues", query)
            issues, total = page["issues"], page["total"]
            while page["issues"] and len(issues) < min(shown, total):
                page = self.call("search", "issues", {**query, "startAt": len(issues)})
                issues += page["issues"]
            return Found(issues[:shown], total, True)
        issues, count, tokens = [], 0, {None}
        while count < JIRA_COUNTED:
            page = self.call("search/jql", "issues", query)
            issues += page["issues"][:shown - len(issues)]
            count += len(page["issues"])
            token = page.get("nextPageToken")
            if page.get("isLast", token is None):
                return Found(issues, count, True)
            if token in tokens or not page["issues"]:  # or we would go round for ever
                break
            tokens.add(token)
            query["nextPageToken"] = token
        return Found(issues, count, False)

    def link(self, jql, label):
        """A link to the search for *jql*; the label alone where Slack would find it too long."""
        import urllib.parse
        url = f"{self.site}/issues/?jql={urllib.parse.quote(jql)}"
        return link(url, label) if len(url) <= LINK_CHARACTERS else escape(label)


def together(jira, calls, started):
    """What becomes of *calls* (dict of function and arguments), side by side: a dict of results
    and JiraErrors; yields progress."""
    futures = {key: jira.pool.submit(*call) for key, call in calls.items()}
    for moment in PROGRESS_SECONDS:
        if (seconds := started + moment - time.monotonic()) > 0:
            done, pending = concurrent.futures.wait(futures.values(), seconds)
            if not pending:
                break
            yield f"{len(done)} of {len(futures)} queries are answered…"
    return {key: outcome(future) for key, future in futures.items()}


def outcome(future):
    """The result of a call, or a JiraError, so that one can't take the others down."""
    try:
        return future.result()
    except JiraError as error:
        return error
    except Exception:
        log.exception(logfmt(event="bug", door="JIRA"))
        return JiraError("JIRA's answer can't be understood; the log has more.")


def versions_of(jira, projects, started):
    """The versions that each project has: a dict of lists; yields like `together`."""
    found = yield from together(jira, {project: (
        jira.call, f"project/{project}/versions", "name") for project in projects}, started)
    for error in found.values():
        if isinstance(error, JiraError):
            raise error
    return found


def project_keys(request, named):
    """The keys of the projects that the user *named*, or else of those that are configured."""
    projects = [name.upper() for name in named or request.bot.config.jira_project]
    odd = [name for name in projects if not re.fullmatch("[A-Z][A-Z0-9_]+", name)]
    if odd or not projects:
        raise UserError(f"`{flat(odd[0])}` can't be a project's key." if odd else
                        "Which project? Name one at the end, or have JIRA_PROJECT set.")
    return list(dict.fromkeys(projects))


def matching(wanted, known):
    """The version *wanted* of each project that has it, from lists by project, or UserError."""
    if have := {project: version for project, versions in known.items() for version in versions
                if version["name"].casefold() == wanted.casefold()}:
        return have
    import difflib
    names = [each["name"] for versions in known.values() for each in versions]
    near = [name for name in names if wanted in name] + difflib.get_close_matches(wanted, names)
    offer = " or ".join(f"`{flat(name)}`" for name in [*dict.fromkeys(near)][:5])
    raise UserError(f"There is no version `{flat(wanted)}` in {', '.join(known)}."
                    + f" Did you mean {offer}?" * bool(near))


def due(version, today):
    """When one of JIRA's versions is to be released, seen from *today* (a date)."""
    try:
        date = datetime.date.fromisoformat(version.get("releaseDate"))
    except (TypeError, ValueError):
        return "no release date"
    days = (date - today).days
    left = f"{abs(days)} day{'s' * (abs(days) != 1)} {'left' if days > 0 else 'late'}"
    return f"released {date}" if version.get("released") else \
        f"due {date}, {days and left or 'today'}"


def bar(counts):
    """Three counts of issues as a bar, a cell at least for each that isn't 0."""
    cells = [max(1, count * BAR_CELLS // sum(counts)) if count else 0 for count in counts]
    cells[cells.index(max(cells))] += BAR_CELLS - sum(cells)
    return "".join(cell * width for cell, width in zip("█▓░", cells))


def is_open(issue):
    """Whether an issue's status is in a category that isn't done; any part of it may be null."""
    return field(issue, "fields", "status", "statusCategory", "key") not in ("done", "")


def verdict(title, asked, dates):
    """What a report begins with, from the outcomes of searches by clause: ready or not, a bar."""
    parts = {name: asked[clause] for name, clause in DECIDING.items()}
    found = {name: part for name, part in parts.items() if isinstance(part, Found)}
    done, moving, waiting, left = (found.get(name, Found([], 0, False)) for name in parts)
    if "open" not in found:  # then what is in a category, as nearly all statuses are
        left = Found([], moving.count + waiting.count, moving.exact and waiting.exact)
    total = Found([], done.count + left.count, done.exact and left.exact)
    is_known = all(part.exact or part.count for part in (done, moving, waiting, left))
    known = [issue for part in asked.values() if isinstance(part, Found) for issue in part.issues]
    if any(found[name].count for name in found if name != "done") or any(map(is_open, known)):
        how_many = f"{left} of {total} " * bool(is_known and left.count)
        why = f"*Not ready* {title}: {how_many}issues are open"
    elif not is_known:
        why = f"*Unknown* {title}: JIRA didn't answer what decides it"
    else:
        why = f"*Ready* {title}: all {total} issues are done" if total.count else \
            f"*Not ready* {title}: there is no issue in it"
    counts = done.count, moving.count, max(0, left.count - moving.count)
    picture = f"`{bar(counts)}` " if is_known and any(counts) else ""
    line = " · ".join(f"{found.get(name, '?')} {name}" for name in CATEGORIES)
    return f"{why}\n{picture}{line}\n{dates}"


def columns(issue):
    """An issue's key, summary, status, assignee, priority, fix versions; "" for what is null."""
    versions = (issue.get("fields") or {}).get("fixVersions") or ()
    return [field(issue, "key"), *(field(issue, "fields", *path) for path in COLUMNS),
            ", ".join(field(each, "name") for each in versions)]


def issue_line(jira, issue):
    """An issue on one line: key, summary, status, assignee, priority."""
    missing = "?", "(no summary)", "no status", "nobody", "no priority"
    key, summary, *parts = (part or word for part, word in zip(columns(issue), missing))
    return " · ".join([
        f"{link(f'{jira.site}/browse/{key}', key)} {flat(summary, SUMMARY_CHARACTERS)}",
        *(flat(part, NAME_CHARACTERS) for part in parts)])


def found_text(jira, title, jql, found, limit):
    """A search as a section's text: its title and count, and its first *limit* issues."""
    if not isinstance(found, Found):
        return f":warning: *{flat(title)}* couldn't be asked. {found}"
    lines = [f"• {issue_line(jira, issue)}" for issue in found.issues[:limit]]
    if found.count > len(lines):
        more = found._replace(count=found.count - len(lines))
        lines.append(jira.link(jql, f"and {more} more") if limit else f"and {more} more")
    return "\n".join([f"*{flat(title)}* {found}", *lines])


def table(issues):
    """Issues as CSV (bytes), which no spreadsheet takes for formulas."""
    import csv
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["key", "summary", "status", "assignee", "priority", "fix versions"])
    for issue in issues:
        rows.writerow([re.sub("^([-=+@\t\r])", r"'\1", cell) for cell in columns(issue)])
    return file.getvalue().encode("utf-8-sig", errors="replace")  # Excel wants the mark


def report(texts, footer, *buttons):
    """The message with a section for each of *texts*; the first is also its short form."""
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}} for text in texts]
    small = {"type": "context", "elements": [{"type": "mrkdwn", "text": footer}]}
    pressed = [{"type": "actions", "elements": [each]} for each in buttons]
    return {"text": texts[0], "blocks": [*blocks, small, *pressed]}


def fitting(build):
    """`build(limit)` with as many issues a section as a message of Slack's holds."""
    for limit in range(ISSUES_SHOWN, -1, -1):
        made = build(limit)
        if max(map(len, texts_of(made["blocks"]))) <= BLOCK_CHARACTERS and \
                len(json.dumps(made, ensure_ascii=False)) <= MESSAGE_CHARACTERS:
            break
    return made


@command("/jira release", usage="VERSION [PROJECT…] [--csv]")
def jira_release(request, version: str, *project: str):
    """Say whether a release is ready, and what is in its way."""
    started, today = time.monotonic(), datetime.date.today()
    jira, sections = request.bot.jira, request.bot.config.jira_queries
    line, wants_csv = CSV.sub("", PUBLIC.sub("", request.line)), CSV.search(request.line)
    projects = project_keys(request, [key for key in project if not CSV.fullmatch(f" {key}")])
    yield f"Asking JIRA about release {flat(version)} of {', '.join(projects)}…"
    have = matching(version, (yield from versions_of(jira, projects, started)))
    name = next(iter(have.values()))["name"]
    queries = {clause: in_release(have, name, clause)
               for clause in (*sections.values(), *DECIDING.values())}
    asked = yield from together(jira, {
        clause: (jira.search, query) for clause, query in queries.items()}, started)
    dates = flat(" · ".join(dict.fromkeys(due(each, today) for each in have.values())),
                 BLOCK_CHARACTERS // 2)
    opening = verdict(f"{flat(', '.join(have))} {flat(name)}", asked, dates)
    lacking = flat(", ".join(key for key in projects if key not in have), BLOCK_CHARACTERS // 2)
    footer = f"{len(asked)} queries, {time.monotonic() - started:.1f} s" \
        + f" · not in {lacking}" * bool(lacking)
    buttons = [button("Refresh", line), button("Share", f"{line} --public")] if len(
        f"{line} --public") <= BUTTON_VALUE else []
    yield fitting(lambda limit: report(
        [opening, *(found_text(jira, title, queries[clause], asked[clause], limit)
                    for title, clause in sections.items())],
        footer, *buttons))
    if wants_csv:
        found = jira.search(in_release(have, name, "") + " ORDER BY key", JIRA_COUNTED)
        request.bot.slack.upload(f"release {name}.csv", table(found.issues), request.channel_id)
        yield f"{len(found.issues)} of {found} issues are in the file `release {flat(name)}.csv`."


@command("/jira releases")
def jira_releases(request, *project: str):
    """List the versions that aren't released yet, and how far they are."""
    started, today, jira = time.monotonic(), datetime.date.today(), request.bot.jira
    projects = project_keys(request, project)
    yield f"Asking JIRA about the releases of {', '.join(projects)}…"
    lists = yield from versions_of(jira, projects, started)
    ahead = [(key, each["name"], due(each, today)) for key, versions in lists.items() for each in
             sorted(versions, key=lambda each: str(each.get("releaseDate") or "~"))
             if not (each.get("released") or each.get("archived"))]
    asked = yield from together(jira, {
        (key, name, clause): (jira.search, in_release([key], name, clause))
        for key, name, _ in ahead[:VERSIONS_SHOWN] for clause in DECIDING.values()}, started)
    texts = [verdict(f"{key} {flat(name)}", {clause: asked[key, name, clause]
                                             for clause in DECIDING.values()}, dates)
             for key, name, dates in ahead[:VERSIONS_SHOWN]]
    yield report(texts or [f"There is no unreleased version in {', '.join(projects)}"],
                 f"{len(texts)} of {len(ahead)} unreleased versions")


@command("/jira search")
def jira_search(request, jql: Rest):
    """Show the first issues that a JQL query finds."""
    jira, jql = request.bot.jira, jql.translate(STRAIGHT)
    found = jira.search(jql)
    return fitting(lambda limit: report([found_text(jira, "Found", jql, found, limit)],
                                        jira.link(jql, "Open in JIRA")))


@command("/jira")
def jira_issue(request, key: str):
    """Show one issue."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]+-[0-9]+", key):
        raise UserError(f"`{flat(key)}` isn't an issue. There is:\n{listed(family('/jira'))}")
    issue = request.bot.jira.call(f"issue/{key.upper()}?fields={','.join(FIELDS)}", "key")
    return f"{issue_line(request.bot.jira, issue)} · {flat(columns(issue)[-1] or 'no version')}"


# ---- network ---------------------------------------------------------------
# The terminal in the channel: /dig, /whois and /openssl.
# RFC 1035 (DNS), RFC 3597 (unknown types), RFC 3912 (whois)

STATUSES = dict(enumerate("NOERROR FORMERR SERVFAIL NXDOMAIN NOTIMP REFUSED".split()))
FLAGS = {"qr": 15, "aa": 10, "tc": 9, "rd": 8, "ra": 7, "ad": 5, "cd": 4}  # and their bits
REFERRAL = re.compile(r"^[ \t]*(?:refer|whois|registrar whois server|referralserver):[ \t]*"
                      r"(?:r?whois://)?([a-z0-9.-]+(?::[0-9]{1,5})?)/?[ \t\r]*$", re.I | re.M)
MATTERS = re.compile(r"^([a-z \t-]*(?:registrar|dated?|created|changed|expires|last-modified|"
                     r"status|name servers?|nserver|organi[sz]ation|org-?name|country)):[ \t]*"
                     r"(\S[^\r\n]*)", re.I | re.M)
DOUBTS = {9: "not yet valid", 10: "expired", 18: "self-signed", 19: "unknown issuer",
          20: "unknown issuer or incomplete chain", 21: "incomplete chain", 62: "wrong name",
          64: "wrong name"}  # by OpenSSL's codes


class Wire:
    """A DNS message (bytes), read from an offset on; ValueError where it isn't one."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, size):
        """The next bytes."""
        self.at += size
        if self.at > len(self.data):
            raise ValueError("it ends in the middle")
        return self.data[self.at - size:self.at]

    def number(self, size=2):
        """The next number, of some bytes."""
        return int.from_bytes(self.take(size), "big")

    def text(self, size, special='"\\'):
        r"""The next bytes as a zone file shows them (RFC 1035, 5.1).
        >>> Wire(b'say "a"\x00').text(8)
        'say \\"a\\"\\000'"""
        return "".join(f"\\{chr(byte)}" if chr(byte) in special else chr(byte)
                       if 32 <= byte < 127 else f"\\{byte:03}" for byte in self.take(size))

    def strings(self):
        """All strings that are left, each with its length before it."""
        while self.at < len(self.data):
            yield f'"{self.text(self.number(1))}"'

    def name(self):
        r"""The next name; it may go on elsewhere in the message (RFC 1035, 4.1.4).
        >>> Wire(b"\x01b\x00\x01a\xc0\x00", 3).name()
        'a.b.'"""
        labels, back, room = [], None, NAME_BYTES
        while length := self.number(1):
            room -= 1 + length * (length < 64)  # a pointer takes one, so that a loop ends, too
            if room <= 0 or 64 <= length < 192:
                raise ValueError("a name that is too long")
            if length < 64:
                labels.append(self.text(length, '"().;\\@$').replace(" ", "\\032"))
            else:
                place, back = (length - 192) * 256 + self.number(1), back or self.at
                if place >= self.at - 2:
                    raise ValueError("a name that goes on behind itself")
                self.at = place
        self.at = back or self.at
        return ".".join(labels) + "."


RDATA = {  # what a type's data says, as dig shows it
    "A": lambda wire: socket.inet_ntop(socket.AF_INET, wire.take(4)),
    "AAAA": lambda wire: socket.inet_ntop(socket.AF_INET6, wire.take(16)),
    "CNAME": Wire.name, "NS": Wire.name, "PTR": Wire.name,
    "MX": lambda wire: f"{wire.number()} {wire.name()}",
    "SOA": lambda wire: " ".join([wire.name(), wire.name(), *(
        str(wire.number(4)) for _ in ("serial", "refresh", "retry", "expire", "minimum"))]),
    "SRV": lambda wire: f"{wire.number()} {wire.number()} {wire.number()} {wire.name()}",
    "TXT": lambda wire: " ".join(wire.strings()),
    "CAA": lambda wire: f"{wire.number(1)} {wire.text(wire.number(1))} "
                        f'"{wire.text(len(wire.data) - wire.at)}"',
}
TYPES = dict(zip(RDATA, (1, 28, 5, 2, 12, 15, 6, 33, 16, 257)))
TYPE_NAMES = {number: name for name, number in TYPES.items()}


def dns_question(name, type_, number):
    """The question (bytes) for records of *type_* (a number) that *name* (ASCII) has.
    >>> dns_question("a.example", 1, 7)[12:]
    b'\\x01a\\x07example\\x00\\x00\\x01\\x00\\x01'"""
    labels = [label.encode() for label in name.split(".") if label]
    return struct.pack(">6H", number, 1 << FLAGS["rd"], 1, 0, 0, 0) + b"".join(
        bytes([len(label)]) + label for label in labels) + struct.pack(">xHH", type_, 1)


def dns_record(wire, is_question):
    """The next record of a message, or the question, as a line of dig's."""
    name, type_, class_ = wire.name(), wire.number(), wire.number()
    kind, class_ = TYPE_NAMES.get(type_, f"TYPE{type_}"), {1: "IN"}.get(class_, f"CLASS{class_}")
    if is_question:
        return f";{name}\t{class_}\t{kind}"
    ttl, size = wire.number(4), wire.number()
    part, raw = Wire(wire.data[:wire.at + size], wire.at), wire.take(size)
    words = RDATA[kind](part) if kind in RDATA else f"\\# {size} {raw.hex().upper()}".rstrip()
    if kind in RDATA and part.at != wire.at:
        raise ValueError(f"a {kind} record with more than that")
    return f"{name}\t{ttl}\t{class_}\t{kind}\t{words}"


def dns_message(data):
    """A message (bytes) as dig shows it, but for its footer; NetworkError if it isn't one."""
    wire, names = Wire(data), ("QUESTION", "ANSWER", "AUTHORITY", "ADDITIONAL")
    try:
        number, flags, *counts = (wire.number() for _ in range(6))
        parts = [(name, [dns_record(wire, name == "QUESTION") for _ in range(count)])
                 for name, count in zip(names[:3], counts)]
    except ValueError as error:
        raise NetworkError(f"The answer isn't proper DNS: {error}") from None
    status, opcode = flags & 15, flags >> 11 & 15
    totals = map("{}: {}".format, ("QUERY", *names[1:]), counts)
    lines = [f";; ->>HEADER<<- opcode: {opcode or 'QUERY'}, status: "
             f"{STATUSES.get(status, status)}, id: {number}",
             f";; flags: {' '.join(flag for flag, bit in FLAGS.items() if flags >> bit & 1)}; "
             + ", ".join(totals)]
    for name, records in parts:
        lines += ["", f";; {name} SECTION:", *records] if records else []
    return "\n".join(lines)


def is_answer(data, question):
    """Whether *data* answers a *question* (bytes): by its number, and by repeating it, unless it
    is an error, as servers needn't for those."""
    return len(data) >= 12 and data[:2] == question[:2] and data[2] >= 128 and (
        data[12:].lower().startswith(question[12:].lower()) or data[3] & 15 and not any(data[4:6]))


def dns_ask(server, question, until):
    """A name server's answer (bytes) to a *question*, by TCP if too long for UDP; OSError."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(server)  # the kernel drops what comes from anywhere else
        sock.send(question)
        data, patience = b"", min(until, time.monotonic() + DNS_TRY_SECONDS)
        while not is_answer(data, question):
            sock.settimeout(time_left(patience))
            data = sock.recv(65_535)
    if data[2] & 2:
        with connect([server], until) as sock:
            sock.sendall(len(question).to_bytes(2, "big") + question)
            size = int.from_bytes(receive(sock, 2, until), "big")
            data = receive(sock, size, until)
        if len(data) < size or not is_answer(data, question):
            raise ConnectionError("half an answer, or one to something else")
    return data


@command("/dig")
def dig(request, name: str, type_: str = "A"):
    """Look a name up in the DNS, or the name of an address."""
    if address := ip_address(name):
        name, type_ = address.reverse_pointer, "PTR"
    kind, name = type_.upper(), host_name(name)
    code = TYPES.get(kind) or (int(kind[4:]) if re.fullmatch("TYPE[0-9]{1,5}", kind) else 65_536)
    if code > 65_535:
        raise UserError(f"`{flat(type_)}` is none of {', '.join(TYPES)} or TYPE and a number.")
    question, started = dns_question(name, code, secrets.randbelow(65_536)), time.monotonic()
    for server in request.bot.config.dns_server * DNS_TRIES:
        try:
            data = dns_ask(server, question, started + DIG_SECONDS)
        except OSError as error:
            failed = error
            continue
        ms = (time.monotonic() - started) * 1000
        return code_block(f"{dns_message(data)}\n\n;; Query time: {ms:.0f} msec\n"
                          f";; SERVER: {server[0]}#{server[1]}")
    raise NetworkError(f"No answer about `{flat(name)}` from the name server: {in_words(failed)}")


def whois_ask(server, line, config, until):
    """What a whois server, (host, port), says to a *line*, as text; NetworkError."""
    try:
        with connect(locate(*server, config, until), until) as sock:
            sock.sendall(f"{line}\r\n".encode())
            if not (data := receive(sock, WHOIS_BYTES, until)):
                raise ConnectionError("not a word")
    except OSError as error:
        raise NetworkError(f"`{flat(server[0])}` doesn't answer: {in_words(error)}") from None
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode()
    return data.decode("latin-1")


@command("/whois")
def whois(request, name: str):
    """Say whom a domain, an address or an AS number belongs to."""
    name = name if ip_address(name) else host_name(name)
    until, config = time.monotonic() + WHOIS_SECONDS, request.bot.config
    server, texts, note = config.whois_server, {}, ""
    while server and server not in texts and len(texts) <= WHOIS_HOPS:
        try:
            texts[server] = whois_ask(server, name, config, until)
        except NetworkError as error:
            if not texts:
                raise
            note = f"\n{error}"
            break
        found, last, server = REFERRAL.search(texts[server]), texts[server], None
        with contextlib.suppress(ValueError):
            server = found and endpoint(WHOIS_PORT)(found[1])
    matters = dict.fromkeys("• " + flat(f"{key}: {value}".replace("`", "'"))
                            for key, value in MATTERS.findall(last))
    path = " → ".join(f"`{host}`" for host, _ in texts)
    return "\n".join([path + note, *[*matters][:WHOIS_LINES], code_block(last)])


def handshake(places, host, until, context):
    """What a TLS server shows: its certificate (DER), protocol and cipher. OSError, also when
    *context* doesn't trust it (ssl.SSLCertVerificationError)."""
    with connect(places, until) as sock:
        sock.settimeout(time_left(until))
        with context.wrap_socket(sock, server_hostname=host) as tls:
            return tls.getpeercert(True), tls.version(), tls.cipher()[0]


def described(der, protocol, cipher, now):
    """What `handshake` has seen, a line each; *now* is Unix time."""
    import ssl, tempfile
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(ssl.DER_cert_to_PEM_cert(der))
        file.flush()
        # ssl decodes trusted certificates only, but for its own tests.
        fields = ssl._ssl._test_decode_cert(file.name)
    days = math.floor((ssl.cert_time_to_seconds(fields["notAfter"]) - now) / 86_400)
    names = [str(value) for _, value in fields.get("subjectAltName", ())] or ["none"]
    more = f" and {len(names) - NAMES_SHOWN} more" * (len(names) > NAMES_SHOWN)
    issuer = ", ".join(value for part in fields["issuer"] for _, value in part)
    return "\n".join([
        f"Names: {', '.join(names[:NAMES_SHOWN])}{more}", f"Issuer: {issuer}",
        f"Valid: {fields['notBefore']} to {fields['notAfter']}, {days} days left",
        f"Protocol: {protocol}, {cipher}",
        f"SHA-256: {hashlib.sha256(der).digest().hex(':').upper()}"])


@command("/openssl", usage="HOST[:PORT]")
def openssl(request, host: str):
    """Check the certificate of a TLS server."""
    import ssl
    try:
        name, port = endpoint(HTTPS_PORT)(host)
    except ValueError:
        raise UserError(f"`{flat(host)}` isn't HOST or HOST:PORT.") from None
    name, until = name if ip_address(name) else host_name(name), time.monotonic() + OPENSSL_SECONDS
    places = locate(name, port, request.bot.config, until)
    lax, strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
    strict.load_default_certs()
    verdict, details = "holds", ""
    try:
        details = code_block(described(*handshake(places, name, until, lax), time.time()))
        handshake(places, name, until, strict)
    except ssl.SSLCertVerificationError as error:
        doubt = DOUBTS.get(error.verify_code, "not trusted")
        verdict = f"doesn't hold: {doubt} ({flat(error.verify_message.rstrip('.'))})"
    except OSError as error:
        is_there = isinstance(error, (ssl.SSLError, ConnectionResetError))
        kind = "no TLS" if is_there else "no answer"
        verdict = f"doesn't hold: {kind} ({in_words(error)})"
    return f"{f'[{name}]' if ':' in name else name}:{port} {verdict}\n{details}".strip()


# ---- greetings and help ----------------------------------------------------
# The small commands, and the first to copy from.

@command("/hello")
def hello(request, text: Rest = ""):
    """Say hello, and what you said."""
    who = escape(request.user_name or "you")
    return f"Hello {who}" + f", I received `{escape(text)}`" * bool(text)


@command("/hello-world")
def hello_world(request):
    """Greet you, five seconds later."""
    yield "Waiting to greet you..."
    time.sleep(5)
    yield "Hello World!"


@command("/help")
def help_(request, command: Rest = ""):
    """Show what there is, or how to use one command."""
    if not command:
        return f"There is:\n{listed(commands.values())}\n" \
               "With `--public` at its end, a command answers the whole channel."
    return listed(family(find("/" + command.lstrip("/"))[0].name))


# ---- HTTP protocol ---------------------------------------------------------
# Bytes into requests, answers into bytes. What isn't plainly right is refused:
# smuggling begins where two readers understand the same request differently.
# RFC 9112 (messages), RFC 9110 (meaning)

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
LINE = re.compile(rb"(%b) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n" % TOKEN)  # RFC 9112, 3
# RFC 9112, 5; possessive (*+), or a bad line of blanks would take quadratic time.
FIELD = re.compile(r"^(%s):[\t ]*+([\t -~\x80-\xff]*+)\r\n" % TOKEN.decode(), re.M)
HOST = re.compile(r"(?:[A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?").fullmatch  # 3.2
REQUEST_ID = re.compile(r"[A-Za-z0-9+/=-]{20,200}").fullmatch  # as Heroku's router takes it
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
SINGLE = "host", "content-", "transfer-", "x-slack-"  # what such names begin with comes once
PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
# A request without its body, which has `length` bytes; header names are in small letters.
Head = collections.namedtuple("Head", "method path query headers length keep_alive")
NO_HEAD = Head("-", "-", "", {}, 0, False)  # of a request that can't be understood


def take_head(received):
    """The `Head` that *received* (bytes) begins with and what is behind it; None for not yet."""
    received = received.removeprefix(b"\r\n").removeprefix(b"\r\n")  # RFC 9112, 2.2
    end, line_end = received.find(b"\r\n\r\n"), received.find(b"\n") + 1
    refuse((line_end or len(received)) > LINE_BYTES, 414, "the request line is too long")
    refuse((end if end >= 0 else len(received)) > HEAD_BYTES, 431, "the header is too long")
    if not line_end:
        refuse(received[:1] and not received[:1].isalpha(), 400, "this isn't HTTP")
        return None
    method, path, query, minor = parse_line(received[:line_end])
    if end < 0:
        return None
    headers = parse_fields(received[line_end:end + 2])
    refuse(not HOST(headers.get("host", "?" if minor else "")), 400, "a bad Host field")
    refuse(headers.get("expect", "100-continue").lower() != "100-continue", 417, "can't be met")
    keep_alive = minor > 0 and "close" not in headers.get("connection", "").lower()
    length = body_length(method, minor, headers)
    return Head(method, path, query, headers, length, keep_alive), received[end + 4:]


@functools.lru_cache(100)
def parse_line(line):
    r"""Method, path, query and minor version in a request line.
    >>> parse_line(b"GET /?name=Robert HTTP/1.1\r\n")
    ('GET', '/', 'name=Robert', 1)"""
    found = LINE.fullmatch(line)
    refuse(not found, 400, "the request line isn't METHOD TARGET HTTP/1.1")
    method, target, major, minor = map(bytes.decode, found.groups())
    refuse(major != "1", 505, "this server speaks HTTP/1.1")
    refuse(method not in METHODS, 501, "there is no such method")
    refuse(not target.startswith("/") and method not in ("CONNECT", "OPTIONS") or "#" in target,
           400, "the target isn't a path")
    path, _, query = target.partition("?")
    return method, path, query, int(minor)


def parse_fields(block):
    """The header fields in a *block* of whole lines (bytes) as a dict."""
    text = block.decode("latin-1")
    fields = FIELD.findall(text)
    refuse(len(fields) != text.count("\n"), 400, "a header line isn't NAME: VALUE")
    refuse(len(fields) > HEAD_FIELDS, 431, "too many header fields")
    headers = {name.lower(): value.rstrip(" \t") for name, value in fields}
    if len(headers) < len(fields):
        names = [name.lower() for name, _ in fields]
        refuse(any(names.count(each) > 1 for each in names if each.startswith(SINGLE)), 400,
               "a header field is there twice")
    return headers


def body_length(method, minor, headers):
    """How many bytes of body follow the header fields (RFC 9112, 6.3)."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        bad = "content-length" in headers or not minor
        raise Refused(400 if bad else 501, "send the body with a Content-Length only")
    refuse(method == "POST" and "content-length" not in headers, 411, "Content-Length is missing")
    refuse(not (length.isascii() and length.isdigit()), 400, "Content-Length isn't a number")
    refuse(len(length) > 15 or int(length) > BODY_BYTES, 413, "the body is too long")
    return int(length)


@functools.lru_cache(1)
def http_date(now):
    """*now* (Unix time, whole seconds) as in a Date field (RFC 9110, 5.6.7)."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))


def response(status, fields, body):
    """An HTTP answer as bytes; *fields* are whole header lines."""
    return (f"HTTP/1.1 {status} {PHRASES[status]}\r\nDate: {http_date(int(time.time()))}\r\n"
            f"{fields}Content-Length: {len(body)}\r\n\r\n").encode("latin-1") + body


# ---- HTTP door -------------------------------------------------------------
# One thread talks with all callers: a conversation is a generator that yields when
# it must wait, so that a slow caller costs a socket. Other threads hand it answers.

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "index.html")
FORMATS = {"application/x-www-form-urlencoded": "form", "application/json": "json"}
PAGE_FIELDS = "Content-Type: text/html; charset=utf-8\r\nX-Frame-Options: DENY\r\n" \
              "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
READ, WRITE, ANSWER = selectors.EVENT_READ, selectors.EVENT_WRITE, 0  # what one can wait for
RUN_ID, numbers = secrets.token_hex(5), itertools.count()  # of this process, of its requests


class Caller:
    """A connection, which dawdles *since*, waited for until *due*, for some *events*; and the
    request that is to be answered: once, from any thread."""

    def __init__(self, door, sock):
        self.door, self.sock, self.received, self.events = door, sock, b"", 0
        self.since, self.talk = door.clock(), self.converse()
        self.due = self.since + REQUEST_SECONDS

    def converse(self):
        """The conversation, request by request; yields READ, WRITE or ANSWER when it must wait."""
        try:
            refuse(len(self.door.callers) > self.door.config.slackbot_connections,
                   503, "too many connections", "Retry-After: 1\r\n")
            while True:
                self.begin(*(yield from self.receive()))
                self.door.asked.append(self)
                yield from self.finish()
                if self.close:  # closing with bytes unread would lose the answer
                    return self.take() if self.head.keep_alive else None
                self.since = self.door.clock() - DAWDLE_SECONDS
                self.due = self.since + (REQUEST_SECONDS if self.received else IDLE_SECONDS)
        except Refused as refused:
            self.begin(NO_HEAD)
            self.refuse(refused)
            yield from self.finish()
            self.sock.shutdown(socket.SHUT_WR)  # closing with bytes unread would lose the answer
            self.received, self.due = b"", self.door.clock() + LINGER_SECONDS
            while True:
                yield from self.read()

    def receive(self):
        """The next request: its `Head` and its body."""
        while not (taken := take_head(self.received) if self.received else None):
            self.received += yield from self.read()
        head, rest = taken
        if len(rest) < head.length:
            if "expect" in head.headers:
                self.put(b"HTTP/1.1 100 Continue\r\n\r\n")
            rest = bytearray(rest)  # which grows in its place, however small the pieces are
            while len(rest) < head.length:
                rest += yield from self.read()
            rest = bytes(rest)
        self.received = rest[head.length:]
        return head, rest[:head.length]

    def begin(self, head, body=b""):
        """Take up a request: what is known of it from now on, and no answer yet."""
        self.head, self.body, self.unsent, self.started = head, body, None, time.monotonic()
        self.since = self.due = math.inf  # who waits for an answer isn't late
        self.out = threading.Lock()
        self.out.acquire()  # until the answer is out
        self.close = self.door.bot.draining or not head.keep_alive
        given = head.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID(given) else f"{RUN_ID}{next(numbers):010x}"

    def reply(self, status, body=b"", fields=""):
        """Answer with *body* (bytes) and more header *fields*, whole lines."""
        closing = "Connection: close\r\n" if self.close else ""
        self.status, self.size = status, len(body)
        whole = response(status, f"X-Request-ID: {self.id}\r\n{closing}{fields}", body)
        self.unsent = whole[:len(whole) - len(body)] if self.head.method == "HEAD" else whole
        self.door.resume(self)

    def json(self, data, status=200, fields=""):
        """Answer with *data* as JSON."""
        self.reply(status, to_json(data), f"Content-Type: application/json\r\n{fields}")

    def refuse(self, refused):
        """Answer with an error; they all look alike."""
        self.json({"error": refused.why}, refused.status, refused.fields)

    def answer(self, message):
        """Answer a slash command with a message, or with None for nothing to show; the lock that
        is free when it is out."""
        out = self.out
        self.reply(200) if message is None else self.json(message)
        return out

    def finish(self):
        """Wait until there is an answer and it is out; log it."""
        try:
            yield self.events  # as the answers of a turn go out together
            while self.unsent is None:
                yield ANSWER
            self.since = self.door.clock()
            self.due = self.since + REQUEST_SECONDS
            while rest := self.put(self.unsent):
                if len(rest) < len(self.unsent):
                    self.unsent, self.since = rest, self.door.clock()
                yield WRITE
        finally:
            self.out.release()
        if log.isEnabledFor(logging.INFO):  # but past log.info, which takes as long as all else
            path = self.head.path if LOGGABLE(self.head.path) else json.dumps(self.head.path)
            ms = (time.monotonic() - self.started) * 1000
            sys.stdout.write(f"level=INFO method={self.head.method} path={path} status="
                             f"{self.status} bytes={self.size} ms={ms:.1f} request_id={self.id}\n")

    def read(self):
        """What the caller sends next; ConnectionError when it has gone."""
        chunk = None if self.events else self.take()  # a newcomer's may be there already
        while chunk is None:
            yield READ
            chunk = self.take()
        if not chunk:
            raise ConnectionError("gone")
        if not self.received:
            self.due = min(self.due, self.door.clock() + REQUEST_SECONDS)
        return chunk

    def take(self):
        """The bytes that have arrived; None if there are none yet."""
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None

    def put(self, data):
        """Write as much of *data* as the kernel takes now; what is left of it."""
        try:
            return data[self.sock.send(data):]
        except OSError as error:  # where the caller has gone, reading will tell
            return data if isinstance(error, BlockingIOError) else b""


class Door(socketserver.TCPServer):
    """socketserver's listening socket under a loop of our own; `*` in a route is one word."""

    allow_reuse_address, request_queue_size = True, BACKLOG

    def __init__(self, config, bot, clock=time.monotonic):
        self.config, self.bot, self.clock = config, bot, clock
        self.address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        super().__init__((config.host, config.port), None)
        host, port = self.server_address[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # callers inherit it
        self.selector, self.thread = selectors.DefaultSelector(), None  # that has the door
        self.callers, self.swept = {}, clock()
        # Callers with a request; jobs that this thread may run; callers who have their answer.
        self.asked, self.lent, self.resumed = (collections.deque() for _ in range(3))
        self.bell, self.rope = socket.socketpair()  # wakes the loop for what other threads did
        self.socket.setblocking(False)
        self.rope.setblocking(False)
        self.selector.register(self.socket, READ, self.welcome)
        self.selector.register(self.bell, READ, functools.partial(self.bell.recv, 4096))
        page, slash, post = {"GET": self.page}, {"POST": self.slash}, {"POST": self.post}
        self.routes = {"/": {**page, **slash}, "/index.html": page, "/slack/commands": slash,
                       "/slash-commands/*": slash, "/*": slash,
                       "/slack/interactions": {"POST": self.press},
                       "/slack/events": {"POST": self.event}, "/post": post, "/post/*": post,
                       "/healthz": {"GET": self.health}, "/status": {"GET": self.status}}

    def serve_forever(self, poll_interval=SWEEP_SECONDS):
        """Serve on this thread, until another has the door. A turn reads from all callers, then
        serves all, then answers all, as a processor is quicker at what it has just done."""
        self.thread = threading.get_ident()
        while True:
            while self.asked:
                self.serve(self.asked.popleft())
            until = self.clock() + HELD_SECONDS  # or the first answers would wait for the last
            while self.lent and self.clock() < until:
                if not self.bot.hold(self.lent.popleft(), self.serve_forever):
                    return  # another thread goes on, as the handler held this one too long
            self.hand_out()
            for key, _ in self.selector.select(0 if self.asked or self.lent else poll_interval):
                key.data()
            if self.clock() > self.swept + poll_interval:
                self.swept = self.clock()
                self.sweep(self.swept)

    def sweep(self, now):
        """See off the callers that are late."""
        for late in [each for each in self.callers.values() if each.due < now]:
            why = Refused(408, f"no whole request in {REQUEST_SECONDS} seconds")
            self.step(late, why if late.received and late.events == READ else OSError())

    def welcome(self):
        """Let new callers in, as long as there is room."""
        try:
            is_known = self.has_room()  # the selector has told of one; others may be there
            while is_known or len(self.callers) < self.config.slackbot_connections:
                sock, _ = self.socket.accept()
                sock.setblocking(False)
                self.callers[sock] = Caller(self, sock)
                self.step(self.callers[sock])
                is_known = False
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # out of file descriptors, as a rule
                log.error(logfmt(event="accept_failed", why=error))
                time.sleep(DAWDLE_SECONDS)

    def has_room(self):
        """Whether a newcomer may come in; in a full house, the one makes room who dawdles most."""
        if len(self.callers) < self.config.slackbot_connections:
            return True
        oldest = min(self.callers.values(), key=lambda caller: caller.since)
        if oldest.since == math.inf:
            if self.asked:
                self.asked[0].close = True  # it makes room with its answer, in the next turn
            elif not self.lent:
                self.bot.hurry()
                self.hand_out()
            # If nobody can make room, the newcomer is told so.
            return oldest.since == math.inf and not (self.asked or self.lent)
        if self.clock() - oldest.since < DAWDLE_SECONDS:
            return time.sleep(DAWDLE_SECONDS / 20)  # its request may be on the way
        self.step(oldest)  # or has arrived by now
        if oldest.since == math.inf:
            oldest.close = True  # then it is the last one on this connection
        elif self.clock() - oldest.since >= DAWDLE_SECONDS:
            self.step(oldest, ConnectionError("made room"))
        return len(self.callers) < self.config.slackbot_connections

    def step(self, caller, error=None):
        """Let a conversation go on until it waits again; for nothing, if it is over."""
        events = None  # it is over, unless it yields
        try:
            events = caller.talk.throw(error) if error else next(caller.talk)
        except Exception as error:
            if not isinstance(error, (StopIteration, OSError, Refused)):
                log.exception(logfmt(event="bug", door="HTTP"))
        if events != caller.events:
            if caller.events:
                self.selector.unregister(caller.sock)
            if events:
                self.selector.register(caller.sock, events, functools.partial(self.step, caller))
            caller.events = events
        if events is None:
            self.callers.pop(caller.sock, None)
            caller.sock.close()

    def resume(self, caller):
        """Let a conversation go on that waited for an answer; from any thread."""
        self.resumed.append(caller)
        if threading.get_ident() != self.thread:
            with contextlib.suppress(BlockingIOError):  # so many have rung that it rings
                self.rope.send(b"!")

    def hand_out(self):
        """Let the answers that are there go out, and the log's lines about them."""
        while self.resumed:
            self.step(self.resumed.popleft())
        with contextlib.suppress(OSError, ValueError):  # a full disk, say: serving goes on
            sys.stdout.flush()

    def serve(self, caller):
        """Answer one request, or see to it that the bot does."""
        try:
            self.route(caller.head.method, caller.head.path)(caller)
        except Refused as refused:
            caller.refuse(refused)
        except Exception:
            log.exception(logfmt(event="bug", request_id=caller.id))
            caller.refuse(Refused(500, "a bug; the log has it, under this request id"))

    def route(self, method, path):
        """The function for a method and a path."""
        method, methods = "GET" if method == "HEAD" else method, self.routes.get(path)
        refuse(not path.startswith("/"), 405, "not with this method", "Allow: GET\r\n")
        if not methods:
            parent, _, name = path.rpartition("/")
            methods = re.fullmatch("[A-Za-z0-9_-]{1,40}", name) and self.routes.get(f"{parent}/*")
            refuse(not methods or parent == "" and method not in methods
                   and not family(f"/{name}"), 404, "there is nothing at this path")
        if method not in methods:
            allowed = ", ".join(methods) + ", HEAD" * ("GET" in methods)
            raise Refused(405, "not with this method", f"Allow: {allowed}\r\n")
        return methods[method]

    def page(self, caller):
        """GET /: the page, with a greeting for `?name=Robert`."""
        name = parse_form(caller.head.query.encode()).get("name", "")
        greeting = f"Hello {escape(name[:ECHO_CHARACTERS])}! " * bool(name) \
            + f"Still missing: {', '.join(self.config.missing)}" * (self.config.mode == "setup")
        with open(PAGE, encoding="utf-8") as file:
            page = file.read().replace("<!--greeting-->", greeting)
        caller.reply(200, page.encode(errors="replace"), PAGE_FIELDS)

    def health(self, caller):
        """GET /healthz: whether the process is well, and what it has done."""
        bot, uptime = self.bot, round(self.clock() - self.bot.started, 1)
        caller.json({"status": "draining" if bot.draining else "ok", "version": __version__,
                     "uptime_seconds": uptime, "running": bot.running, "waiting": len(bot.waiting),
                     "done": bot.done, "failed": bot.failed}, 503 if bot.draining else 200)

    def status(self, caller):
        """GET /status: what there is, and what is missing."""
        known = [{"name": one.name, "usage": one.usage, "summary": one.summary}
                 for one in commands.values()]
        caller.json({"mode": self.config.mode, "version": __version__, "commands": known,
                     "missing": self.config.missing})

    def body(self, caller, *kinds, of=object, from_slack=True):
        """The body as data, by its content type, which is one of *kinds*: json (*of* some type),
        form. What Slack signs is verified before it is looked at, as that may take long."""
        kind = caller.head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if (kind := FORMATS.get(kind)) not in kinds:
            raise Refused(415, f"this takes {' or '.join(kinds)}")
        if from_slack:
            refuse(self.config.mode == "setup", 503, "SLACK_SIGNING_SECRET isn't set yet")
            verify(self.config, caller.head.headers, caller.body, time.time(), self.bot.heard)
        return parse_form(caller.body) if kind == "form" else parse_json(caller.body, of)

    def slash(self, caller):
        """POST /slack/commands: a slash command."""
        if is_ssl_check(caller.body):
            return caller.reply(200)
        form, path = self.body(caller, "form"), caller.head.path
        verify_token(self.config, form.get("token", ""))
        verify_team(self.config, form.get("team_id"))
        check_reply_url(self.config, reply_to := form.get("response_url", ""))
        named = "/" + path.rpartition("/")[2]
        if path != "/slack/commands" and family(named):
            form["command"] = named
        self.bot.accept(Request(**form), caller.answer, ResponseURL(reply_to), self.lent.append)

    def press(self, caller):
        """POST /slack/interactions: a pressed button."""
        if is_ssl_check(caller.body):
            return caller.reply(200)
        payload = parse_json(self.body(caller, "form").get("payload", ""), dict)
        verify_token(self.config, field(payload, "token"))
        verify_team(self.config, field(payload, "team", "id"))
        check_reply_url(self.config, field(payload, "response_url"))
        self.bot.press(payload)
        caller.reply(200)

    def event(self, caller):
        """POST /slack/events: a mention or a direct message, or the question whether it's us."""
        payload = self.body(caller, "json", of=dict)
        verify_token(self.config, field(payload, "token"))
        if field(payload, "type") == "url_verification":  # which names no team
            return caller.json({"challenge": field(payload, "challenge")})
        verify_team(self.config, field(payload, "team_id"))
        self.bot.hear(payload)
        caller.reply(200)

    def post(self, caller):
        """POST /post/NAME: what another program has to say."""
        token, name = self.config.slackbot_webhook_token, caller.head.path.rpartition("/")[2]
        if self.config.mode == "demo":
            check_page(self.config, caller.head.headers)
        refuse(not token and self.config.mode != "demo",
               503, "SLACKBOT_WEBHOOK_TOKEN isn't set yet")
        refuse(token and not is_trusted(token, caller.head.headers, caller.body),
               401, "this isn't from who knows the token")
        handler = summary if caller.head.path == "/post" else webhooks.get(name)
        refuse(not handler, 404, "there is no such webhook")
        data = self.body(caller, "json", "form", from_slack=False)
        if isinstance(data, dict) and [*data] == ["payload"] and isinstance(data["payload"], str):
            data = parse_json(data["payload"])  # a form of GitHub's
        log.info(logfmt(event="posted", path=caller.head.path, data=flat(json.dumps(data), 1000)))
        self.bot.reporters.submit(self.bot.report, handler, data)
        caller.json({"message": "JSON data posted"})


# ---- Socket Mode door ------------------------------------------------------
# The same commands without a public address: we call Slack, and it talks back through a
# WebSocket. (Its predecessor, RTM, takes no new apps.) RFC 6455 (WebSocket)
# https://docs.slack.dev/apis/events-api/using-socket-mode

TEXT_FRAME, CLOSE, PING, PONG = 1, 8, 9, 10  # opcodes; RFC 6455, 5.2
# What Slack says when trying again is no use.
FINAL = {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired",
         "not_allowed_token_type", "missing_scope", "link_disabled"}


class WebSocketError(ConnectionError):
    """The other side doesn't speak WebSocket, or has gone."""


def websocket_key_accept(key):
    """What a server answers to a client's *key* (RFC 6455, 4.2.2).
    >>> websocket_key_accept("dGhlIHNhbXBsZSBub25jZQ==")
    's3pPLMBiTxaQ9kYGzzhZRbK+xOo='"""
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


def frame(opcode, payload=b"", mask=None):
    """A whole frame (bytes) from a client, which has to mask it (RFC 6455, 5.2).
    >>> frame(1, b"Hi", mask=b"abcd").hex(" ")
    '81 82 61 62 63 64 29 0b'"""
    size, mask = len(payload), mask or secrets.token_bytes(4)
    length = struct.pack(">B", 128 | size) if size < 126 else struct.pack(
        ">BH", 254, size) if size < 65_536 else struct.pack(">BQ", 255, size)
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return bytes([128 | opcode]) + length + mask + masked.to_bytes(size, "big")


def check_content(opcode, payload):
    """WebSocketError for a whole message with what it can't hold (RFC 6455, 5.5.1, 7.4, 8.1)."""
    code = int.from_bytes(payload[:2], "big")
    try:
        {TEXT_FRAME: payload, CLOSE: payload[2:]}.get(opcode, b"").decode()
    except UnicodeDecodeError:
        raise WebSocketError("a text that isn't UTF-8") from None
    if opcode == CLOSE and payload and (len(payload) < 2 or not (
            1000 <= code <= 1014 and code not in (1004, 1005, 1006) or 3000 <= code <= 4999)):
        raise WebSocketError("a close frame that a server wouldn't send")


class Frames:
    """Makes messages of a server's bytes; WebSocketError where they are none."""

    def __init__(self):
        self.received, self.begun = b"", (0, b"")  # a message in fragments: its opcode and bytes

    def feed(self, data):
        """The messages, (opcode, payload) pairs, that are whole with some more *data*."""
        self.received, messages = self.received + data, []
        for is_final, opcode, payload in iter(self.take, None):
            if opcode < CLOSE:
                if (opcode == 0) != bool(self.begun[0]):
                    raise WebSocketError("a fragment out of place")
                opcode, payload = self.begun[0] or opcode, self.begun[1] + payload
                self.begun = (0, b"") if is_final else (opcode, payload)
            if is_final:
                check_content(opcode, payload)
                messages.append((opcode, payload))
        return messages

    def take(self):
        """The next frame: whether it is final, its opcode, its payload; None if it isn't whole."""
        if len(self.received) < 2:
            return None
        first, second = self.received[:2]
        opcode, size, start = first & 15, second & 127, 2
        if first & 112 or second & 128 or opcode not in (0, 1, 2, 8, 9, 10) or (
                opcode >= CLOSE and (first < 128 or size > 125)):
            raise WebSocketError("a frame that a server wouldn't send")
        if size > 125:
            start = 4 if size == 126 else 10
            if len(self.received) < start:
                return None
            size = int.from_bytes(self.received[2:start], "big")
        if size + len(self.begun[1]) > SOCKET_BYTES:
            raise WebSocketError("a message that is too long")
        if len(self.received) < start + size:
            return None
        payload, self.received = self.received[start:start + size], self.received[start + size:]
        return first > 127, opcode, payload


class WebSocket:
    """A connection to a *url*; OSError if there is none, or no more. Several threads may send."""

    def __init__(self, url):
        import urllib.parse
        parts, until = urllib.parse.urlsplit(url), time.monotonic() + API_SECONDS
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        self.sock = connect([(parts.hostname, port)], until)
        try:
            if parts.scheme == "wss":
                import ssl
                self.sock = ssl.create_default_context().wrap_socket(
                    self.sock, server_hostname=parts.hostname)
            self.lock, self.frames = threading.Lock(), Frames()
            self.early = self.frames.feed(self.shake_hands(parts, until))
        except BaseException:
            self.sock.close()
            raise
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.sock, selectors.EVENT_READ)

    def shake_hands(self, parts, until):
        """Ask for a WebSocket (RFC 6455, 4.1); the bytes that came behind the answer."""
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        target = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        self.sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            self.sock.settimeout(time_left(until))
            received += (chunk := self.sock.recv(4096))
            if not chunk or len(received) > HEAD_BYTES:
                raise WebSocketError("no answer to the handshake")
        head, _, early = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in
                  (line.partition(":") for line in lines)}
        if not re.match("HTTP/1.1 101( |$)", status) or \
                fields.get("upgrade", "").lower() != "websocket" or \
                "upgrade" not in fields.get("connection", "").lower() or \
                fields.get("sec-websocket-accept") != websocket_key_accept(key):
            raise WebSocketError(f"the handshake is refused: {status[:60]}")
        self.sock.settimeout(API_SECONDS)
        return early

    def send(self, opcode, payload=b""):
        """Send one message (bytes)."""
        with self.lock:
            try:
                self.sock.sendall(frame(opcode, payload))
            except OSError:  # after half a frame it is of no use
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                raise

    def receive(self, seconds):
        """The messages that are whole with what comes within some *seconds*, as (opcode, payload)
        pairs; None if nothing comes."""
        if not (getattr(self.sock, "pending", int)() or self.selector.select(seconds)):
            return None
        import ssl
        with self.lock:  # TLS isn't for two threads at once, and who sends shouldn't have to wait
            self.sock.settimeout(0)
            try:
                data = self.sock.recv(65_536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return []
            finally:
                self.sock.settimeout(API_SECONDS)
        if not data:
            raise WebSocketError("the connection is closed")
        return self.frames.feed(data)

    def close(self):
        """Close the connection."""
        self.selector.close()
        self.sock.close()


class SocketDoor:
    """Takes commands from Slack's Socket Mode, as envelopes that want to be acknowledged."""

    def __init__(self, config, bot):
        self.config, self.bot = config, bot

    def serve_forever(self):
        """Keep a connection, on this thread, until Slack says that it is no use."""
        short, pause = 0, 0  # connections in a row that didn't last
        while True:
            time.sleep(pause)
            opened = time.monotonic()
            try:
                why = self.connect().get()
            except Exception as error:  # no more threads, too: this door has to come back
                why = getattr(error, "code", "lost")  # a SlackError's
                log.warning(logfmt(event="socket_failed", why=error))
            if why in FINAL:
                return log.error(logfmt(event="socket_ended", why=why))
            short = short + 1 if time.monotonic() - opened < STALE_SECONDS else 0
            steps = short - 2 * (why == "refresh")  # it says so in good time
            pause = 0 if steps <= 0 else random.uniform(0.5, 1) * min(
                RECONNECT_SECONDS * 2 ** (steps - 1), RECONNECT_LIMIT)

    def connect(self):
        """Connect, with a thread that listens; the queue in which it says why it is no use."""
        slack, token = self.bot.slack, self.config.slack_app_token
        if self.config.slack_bot_token:
            slack.call("auth.test")
        url = field(slack.call("apps.connections.open", token=token), "url")
        is_test = self.config.slack_api_url.startswith("http:")
        if not re.match("wss?:" if is_test else "wss:", url) or \
                not is_private(url.replace("ws", "http", 1)):
            raise ValueError("Slack names a socket that isn't wss:")
        link, whys = WebSocket(url), queue.SimpleQueue()
        threading.Thread(target=self.listen, args=[link, whys], name="socket", daemon=True).start()
        return whys

    def listen(self, link, whys):
        """Serve one connection until it ends."""
        heard, messages = time.monotonic(), link.early
        try:
            while True:
                for opcode, payload in messages or ():
                    if opcode == PING:
                        link.send(PONG, payload)
                    elif opcode == CLOSE:
                        link.send(CLOSE, payload[:2])
                        raise WebSocketError("Slack has closed the connection")
                    elif opcode == TEXT_FRAME:
                        self.read(link, whys, payload)
                messages = link.receive(PING_SECONDS)
                if messages is not None:
                    heard = time.monotonic()
                elif time.monotonic() - heard >= STALE_SECONDS:
                    raise WebSocketError("the connection is silent")
                else:
                    link.send(PING)
        except OSError as error:
            log.info(logfmt(event="socket_closed", why=error))
        finally:
            link.close()
            whys.put("lost")

    def read(self, link, whys, text):
        """Understand what Slack says; a bug in that ends nothing."""
        try:
            data = parse_json(text)
            kind, why = field(data, "type"), field(data, "reason")
            if kind == "disconnect":
                whys.put(why if why in FINAL else "refresh")
            elif field(data, "envelope_id"):
                payload = data.get("payload")
                self.take(link, data, kind, payload if isinstance(payload, dict) else {})
            log.info(logfmt(event="socket", type=kind or "?", why=why))
        except Refused as refused:
            log.warning(logfmt(event="socket_refusal", why=refused.why))
        except Exception:
            log.exception(logfmt(event="bug", door="socket"))

    def take(self, link, data, kind, payload):
        """Acknowledge an envelope, with the first answer where Slack takes one, and serve it."""
        number, url = field(data, "envelope_id"), field(payload, "response_url")
        is_known = is_replay(self.bot.heard, number, time.monotonic(), 0)
        can_answer = kind == "slash_commands" and data.get("accepts_response_payload")
        later = self.bot.later(url)

        def ack(message=None):
            try:
                content = {"payload": message} if message else {}
                link.send(TEXT_FRAME, to_json({"envelope_id": number, **content}))
            except OSError:  # it has gone: the response_url is there still
                later.send(message)
        try:
            verify_team(self.config, field(payload, "team_id") or field(payload, "team", "id"))
            check_reply_url(self.config, url)
        except Refused:
            ack()
            raise
        if is_known or not can_answer:
            ack()
        if is_known:
            return
        if kind == "interactive":
            self.bot.press(payload)
        elif kind == "events_api":
            self.bot.hear(payload)
        elif kind == "slash_commands":
            request = Request(**{name: field(payload, name) for name in payload})
            answer, by = (ack, self.bot.ackers) if can_answer else (later.send, self.bot.heralds)
            self.bot.accept(request, answer, later, by=by)


# ---- demo ------------------------------------------------------------------
# The page plays Slack's part in the browser: it signs commands with a secret that
# it gets here, sends them to the real door, and reads the response_url.

class DemoSlack:
    """The response_urls of the demo, under Slack's rules."""

    def __init__(self, config, url, clock=time.monotonic):
        self.config, self.clock, self.hooks = config, clock, {}
        config.slack_hooks_origins = [url, url.replace("127.0.0.1", "localhost")]
        self.routes = {"/demo/secret": {"GET": self.tell}, "/demo/hooks": {"POST": self.create},
                       "/demo/hooks/*": {"GET": self.read, "POST": self.take},
                       "/demo/source": {"GET": self.source}}

    def tell(self, caller):
        """GET /demo/secret: what the page signs with."""
        check_page(self.config, caller.head.headers)
        caller.json({"signing_secret": self.config.slack_signing_secret})

    def source(self, caller):
        """GET /demo/source: this very file, as the page shows how it works."""
        check_page(self.config, caller.head.headers)
        with open(__file__, "rb") as file:
            caller.reply(200, file.read(), PAGE_FIELDS.replace("html", "plain"))

    def create(self, caller):
        """POST /demo/hooks: a fresh response_url."""
        own, name = check_page(self.config, caller.head.headers), secrets.token_hex(12)
        self.hooks[name] = self.clock(), []
        if len(self.hooks) > DEMO_HOOKS:
            self.hooks.pop(next(iter(self.hooks)))
        caller.json({"response_url": f"{own}/demo/hooks/{name}"})

    def hook(self, caller):
        """How old a response_url is in seconds, and its messages."""
        made, messages = self.hooks.get(caller.head.path.rpartition("/")[2], (0, None))
        refuse(messages is None, 404, "there is no such response_url")
        return self.clock() - made, messages

    def read(self, caller):
        """GET /demo/hooks/ID?after=N: what was posted to it, but for the first N."""
        check_page(self.config, caller.head.headers)
        after = re.fullmatch("after=([0-9]{1,3})", caller.head.query)
        caller.json({"messages": self.hook(caller)[1][int(after[1]) if after else 0:]})

    def take(self, caller):
        """POST /demo/hooks/ID: an answer of the bot."""
        age, messages = self.hook(caller)
        if age > POST_WINDOW or len(messages) >= POST_LIMIT:
            error = "expired_url" if age > POST_WINDOW else "used_url"
            return caller.json({"ok": False, "error": error}, 404)
        try:
            posted = message(json.loads(caller.body, parse_constant=int))  # no int is NaN
        except (ValueError, TypeError, RecursionError):
            return caller.reply(400, b"invalid_payload")
        if len(posted) == 1:  # the response_type
            return caller.reply(400, b"no_text")
        messages.append({"seconds": round(age, 2), "message": posted})
        caller.reply(200, b"ok")


SAMPLE = """2.3|Checkout forgets the voucher on reload|Highest|In progress|Ana Silva|Blockers
2.3|Total is rounded twice & shown wrong|High|In progress|Ken Sato|
2.3|Search finds products that are sold out|Medium|To do||Unassigned
2.3|Receipt lacks the VAT number|Blocker|To do|Ana Silva|Blockers
2.3|Pay by invoice|High|Done|Ken Sato|
2.3|Cart survives a new login|Medium|Done|Mia Krystof|
2.4|Gift cards|Low|To do||Unassigned"""


def sample_jira(url, data=None, headers=(), seconds=0, limit=0):
    """A JIRA in memory, in the place of `fetch`. Of JQL it knows what the reports are made of."""
    jql, found = json.loads(data or "{}").get("jql", ""), []
    wanted = {title for title, clause in {**QUERIES, **DECIDING}.items()
              if f"({clause})" in jql and title not in CATEGORIES}
    answers = {"serverInfo": {"version": "9"}, "search/jql": {"issues": found, "isLast": True},
               "project/SHOP/versions": [{"name": name, "releaseDate": str(
                   datetime.date.today() + datetime.timedelta(days))} for name, days in (
                       ("2.3", 11), ("2.4", 53))]}
    for number, row in enumerate(SAMPLE.split("\n"), 1):
        version, summary, priority, status, assignee, title = row.split("|")
        key = {"To do": "new", "In progress": "indeterminate", "Done": "done"}[status]
        issue = answers[f"issue/SHOP-{number}"] = {"key": f"SHOP-{number}", "fields": {
            "summary": summary, "priority": {"name": priority}, "fixVersions": [{"name": version}],
            "status": {"name": status, "statusCategory": {"key": key}},
            "assignee": {"displayName": assignee} if assignee else None}}
        kinds = {status, title, "open" if status != "Done" else ""}
        if wanted <= kinds and ("fixVersion" not in jql or f'"{version}"' in jql):
            found.append(issue)
    path = url.partition("/rest/api/3/")[2].partition("?")[0]
    lacking = {"errorMessages": ["The sample has the project SHOP and the issues SHOP-1 to 7."]}
    return (200 if path in answers else 404), {}, json.dumps(answers.get(path, lacking)).encode()


# ---- main ------------------------------------------------------------------
# Builds the objects and joins them.

def run(bot, words):
    """Run one command line in the terminal: 0, or 1 if it failed."""
    def show(answer):
        print(plain(answer) + "\n" if answer else "", end="", flush=True)
    with contextlib.suppress(UserError):  # which the job meets again
        kinds = [each.annotation for each in find(" ".join(words))[0].parameters]
        if len(words) > 1 and Rest not in kinds:
            words[1:] = [word if PLAIN_WORD(word) else '"%s"' % re.sub(
                r'(["\\“”„‟])', r"\\\1", word) for word in words[1:]]
    name, _, text = " ".join(words).partition(" ")
    request = Request(command=name, text=escape(text), bot=bot)
    with contextlib.suppress(KeyError, OSError):  # an id without a name, as some containers have
        import getpass
        request.user_name = getpass.getuser()
    try:
        job = Job(bot, request, show, types.SimpleNamespace(send=show, finish=lambda: True))
    except UserError as error:
        return show(message(str(error))) or 1
    job.run()
    return int(job.failed)


def check(config, bot):
    """Say who the bot is for Slack and JIRA, and what is missing: 0, or 1 if something fails."""
    def slack():
        answer = bot.slack.call("auth.test")
        return f"{field(answer, 'user')} in {field(answer, 'team')}"

    def jira():
        return f"{bot.jira.call('myself', 'displayName')['displayName']} at {config.jira_url}"
    is_signed_, failed = "SLACK_SIGNING_SECRET" not in config.missing, False
    for title, is_set, ask, needs in (
            ("Slack's requests", is_signed_, lambda: "can be verified", "SLACK_SIGNING_SECRET"),
            ("Slack's Web API", config.slack_bot_token, slack, "SLACK_BOT_TOKEN"),
            ("Socket Mode", config.slack_app_token, lambda: bot.slack.call(
                "apps.connections.open", token=config.slack_app_token) and "works",
             "SLACK_APP_TOKEN"),
            ("JIRA", config.jira_url, jira, "JIRA_URL")):
        try:
            print(f"{title}: {ask()}" if is_set else f"{title}: not set ({needs})")
        except UserError as error:
            print(f"{title}: {plain(message(str(error)))}")
            failed = True
    return int(failed)


def manifest(url=None):
    """A Slack app's manifest for all commands: those of the HTTP door at *url*, or Socket Mode.
    https://docs.slack.dev/reference/app-manifest"""
    def place(path):
        return {} if url is None else {"request_url": url + path}
    slash = []
    for name in dict.fromkeys(name.split()[0] for name in commands):
        hint = " | ".join(filter(None, (one.usage.partition(" ")[2] for one in family(name))))
        about = " ".join(filter(None, (one.summary for one in family(name))))
        slash.append({"command": name, "description": about[:2000] or name,
                      "should_escape": False, **({"usage_hint": hint[:1000]} if hint else {}),
                      **({} if url is None else {"url": f"{url}/slack/commands"})})
    return {
        "display_information": {"name": "slackbot.py"},
        "features": {"bot_user": {"display_name": "slackbot.py", "always_online": True},
                     "app_home": {"messages_tab_enabled": True,
                                  "messages_tab_read_only_enabled": False},
                     "slash_commands": slash},
        "oauth_config": {"scopes": {"bot": ["commands", "chat:write", "app_mentions:read",
                                            "im:history", "files:write"]}},
        "settings": {"event_subscriptions": {"bot_events": ["app_mention", "message.im"],
                                             **place("/slack/events")},
                     "interactivity": {"is_enabled": True, **place("/slack/interactions")},
                     "socket_mode_enabled": url is None, "org_deploy_enabled": False}}


def serve(config, bot):
    """Serve until a signal comes, then see to unfinished commands. The exit status."""
    try:
        door = Door(config, bot)
    except OSError as error:
        sys.exit(f"can't listen on {config.host}:{config.port}: {error.strerror}")
    if config.mode == "demo":
        door.routes.update(DemoSlack(config, door.url).routes)
    signals = queue.SimpleQueue()  # in which a handler may put, wherever it interrupts us

    def stop(*_):
        if bot.draining:  # by an earlier signal
            os._exit(1)
        bot.draining = True
        signals.put("stop")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threading.Thread(target=door.serve_forever, name="door", daemon=True).start()
    print(f"listening on {door.url} ({config.mode} mode)", flush=True)
    if bot.journal:
        bot.settle()
    if config.slack_app_token and config.mode != "demo":
        door_ = SocketDoor(config, bot)
        threading.Thread(target=door_.serve_forever, name="socket door", daemon=True).start()
    while not bot.draining:  # a signal may reach another thread, and wake nobody here
        with contextlib.suppress(queue.Empty):
            signals.get(timeout=SWEEP_SECONDS)
    bot.drain()
    return 0


def main(arguments=None):
    """Do what the command line says; exits with its status."""
    mode, *words = (sys.argv[1:] if arguments is None else arguments) or ["serve"]
    if mode in ("-h", "--help"):
        print(__doc__.partition("\nEverything")[0], "\nEnvironment:", sep="")
        print(*(f"  {name:26}{what}" for name, (_, _, what) in SETTINGS.items()), sep="\n")
        sys.exit()
    if mode == "manifest":
        url = None if words == ["--socket"] else " ".join(words).rstrip("/")
        if url is not None and not (re.fullmatch("https:[^?#]+", url) and origin(url)):
            sys.exit("slackbot.py: manifest wants your https://HOST, or --socket")
        made = manifest(url)
        print(json.dumps(made, indent=2, ensure_ascii=False))
        many = len(made["features"]["slash_commands"])
        sys.exit(f"slackbot.py: Slack takes {MANIFEST_COMMANDS} commands, not {many}"
                 if many > MANIFEST_COMMANDS else 0)
    if mode not in ("serve", "demo", "run", "check") or words and mode != "run":
        sys.exit(f"slackbot.py: there is no {' '.join([mode, *words])!r}; see --help")
    sys.stdout.reconfigure(line_buffering=mode in ("run", "check"), errors="replace")
    logging.basicConfig(stream=sys.stderr if mode in ("run", "check") else sys.stdout,
                        format="level=%(levelname)s %(message)s")
    try:
        config = Config(os.environ, demo=mode == "demo")
        path = config.slackbot_journal if mode in ("serve", "demo") else None
        journal = Journal(path) if path else None
    except ConfigError as error:
        print("The configuration can't be right:", *error.args, sep="\n  ", file=sys.stderr)
        sys.exit(2)
    log.setLevel(config.log_level)
    send = fetch
    if config.mode == "demo" and not config.jira_url and mode != "check":
        config.jira_url = config.jira_api_url = "https://jira.example"
        config.jira_project, send = ("SHOP",), sample_jira
    elif config.jira_api_url and not is_private(config.jira_api_url):
        log.warning(logfmt(event="insecure", why="JIRA's URL is http: its token can be read"))
    bot = Bot(config, Jira(config, send), SlackAPI(config), journal)
    status = run(bot, words) if mode == "run" else {"check": check}.get(mode, serve)(config, bot)
    os._exit(status)  # even if a handler hangs


if __name__ == "__main__":
    main()
