"""The command line: what `check` and `manifest` print, and the streams that the bot writes to."""

import contextlib
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import BOT_USER, printed_by, start, until
from fakes import PATIENCE, SOON_OVER

NO_SERVER = "http://127.0.0.1:9/"


# ---- python slackbot.py check

@pytest.fixture(scope="module")
def services():
    """What `check` asks: the variables that lead to the Web API and a JIRA; a Data Center."""
    with api_fakes.Api() as api, fakes.Jira("cloud") as jira, fakes.Jira("server") as server:
        yield {"SLACK_SIGNING_SECRET": "signing-5ecret", "SLACK_BOT_TOKEN": api_fakes.TOKEN,
               "SLACK_API_URL": api.url, "JIRA_URL": jira.origin, "JIRA_USERNAME": jira.username,
               "JIRA_API_TOKEN": jira.token}, server


@pytest.fixture(scope="module", autouse=True)
def refused():
    """A check of servers that aren't there. It tries for some seconds, so it begins at once."""
    environ = {"SLACK_BOT_TOKEN": "xoxb-5ecret", "SLACK_API_URL": NO_SERVER, "JIRA_URL": NO_SERVER}
    with subprocess.Popen([sys.executable, fakes.ROOT / "slackbot.py", "check"], env=environ,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.kill()


def check(**environ):
    """The exit status of `check` and what it says, which has no secrets."""
    done = start("check", environ=environ)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    for name, value in environ.items():
        assert not ("SECRET" in name or "TOKEN" in name) or value not in said, name
    return done.returncode, said


def test_check_says_who_the_bot_is(services):
    status, said = check(**services[0])
    assert status == 0
    slack, = [line for line in said.splitlines() if api_fakes.TEAM in line]
    jira, = [line for line in said.splitlines() if "QA <lead>" in line]
    assert api_fakes.BOT_NAME in slack or BOT_USER in slack
    assert slack != jira


def test_check_knows_data_center_too(services):
    server = services[1]
    status, said = check(JIRA_URL=server.origin, JIRA_PERSONAL_TOKEN=server.token)
    assert status == 0 and "QA <lead>" in said


def test_check_says_what_is_missing():
    status, said = check()
    assert status == 0
    for name in ("SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "JIRA_URL"):
        assert any(name in line for line in said.splitlines()), name
    assert 2 <= len(said.splitlines()) <= 10


BAD_CHECKS = [  # (what is changed, what is said, what of the other is said all the same)
    ({"SLACK_BOT_TOKEN": "xoxb-wrong-5ecret"}, "invalid_auth", "QA <lead>"),
    ({"JIRA_API_TOKEN": "wrong-5ecret"}, "JIRA", api_fakes.TEAM),
    ({"JIRA_URL": NO_SERVER}, "JIRA", api_fakes.TEAM)]


@pytest.mark.parametrize("changes, word, other", BAD_CHECKS, ids=str)
def test_check_says_what_does_not_work_and_fails(services, changes, word, other):
    status, said = check(**{**services[0], **changes})
    assert status == 1 and word in said and other in said


def test_check_says_that_servers_refuse_connections_and_fails(refused):
    said, status = printed_by(refused)
    assert status == 1 and len(said.splitlines()) <= 10 and "5ecret" not in said
    for name in ("Slack", "JIRA"):
        assert re.search(f"{name}.*refused", said)


def test_check_warns_of_a_jira_whose_url_is_http(services):
    environ = {**services[0], "JIRA_URL": services[0]["JIRA_URL"].replace("127.0.0.1", "0.0.0.0")}
    status, said = check(**environ)
    assert status == 0 and "event=insecure" in said


# ---- python slackbot.py manifest

OWN = '''
import slackbot

@slackbot.command("/greet")
def greet(request, name: str, times: int = 1):
    """Greet somebody."""

@slackbot.command("/bare")
def bare(request):
    pass

for name in ("/silent one", "/silent two"):
    slackbot.command(name)(lambda request: None)

@slackbot.command("/family one")
def one(request, name: str):
    """Be one."""

@slackbot.command("/family two")
def two(request):
    """Be two."""

@slackbot.command("/" + "n" * 31, usage="X" * 1500)
def long(request):
    pass

long.__doc__ = "d" * 3000
slackbot.command("/wordy", usage="X" * 1500)(long)
slackbot.main()
'''
SCOPES = {"commands", "chat:write", "app_mentions:read", "im:history", "files:write"}
# By slackapi/manifest-schema, manifest.schema.2.0.0.json: the keys that there are, and how long
# a text may be; no text is empty.
LONGEST = {"display_information": {"name": 35, "description": 140, "long_description": 4000,
                                   "background_color": 7},
           "bot_user": {"display_name": 80, "always_online": None},
           "app_home": {"home_tab_enabled": None, "messages_tab_enabled": None,
                        "messages_tab_read_only_enabled": None},
           "slash_commands": {"command": 32, "url": 3000, "description": 2000, "usage_hint": 1000,
                              "should_escape": None},
           "event_subscriptions": {"request_url": 3500, "bot_events": None},
           "interactivity": {"is_enabled": None, "request_url": 3500},
           "scopes": {"bot": None}, "oauth_config": {"scopes": None},
           "features": dict.fromkeys(["app_home", "bot_user", "slash_commands"]),
           "settings": dict.fromkeys(["event_subscriptions", "interactivity", "org_deploy_enabled",
                                      "socket_mode_enabled", "token_rotation_enabled"]),
           "_metadata": dict.fromkeys(["major_version", "minor_version"]),
           "": dict.fromkeys(["_metadata", "display_information", "features", "oauth_config",
                              "settings"])}


def check_manifest(part, name=""):
    """Fail where Slack wouldn't take a *part* of a manifest, called *name*."""
    if isinstance(part, list):
        for each in part:
            check_manifest(each, name)
    elif isinstance(part, dict):
        for key, value in part.items():
            assert key in LONGEST[name], f"there is no {key} in {name or 'a manifest'}"
            if isinstance(value, str):
                assert value.strip(), f"{name}.{key} is blank"
                assert len(value) <= LONGEST[name][key], f"{name}.{key} is too long"
            check_manifest(value, key)


def manifest(*arguments, script=fakes.ROOT / "slackbot.py"):
    """The manifest that is printed, which Slack would take; without any configuration."""
    done = subprocess.run([sys.executable, script, "manifest", *arguments], capture_output=True,
                          text=True, timeout=PATIENCE, env={"PYTHONPATH": str(fakes.ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    check_manifest(made)
    return made


@pytest.fixture(scope="module")
def printed():
    return manifest("https://bot.example")


def test_a_manifest_has_all_that_an_app_needs(printed):
    settings, features = printed["settings"], printed["features"]
    assert printed["display_information"]["name"] and features["bot_user"]["display_name"]
    assert set(printed["oauth_config"]["scopes"]["bot"]) == SCOPES
    events = settings["event_subscriptions"]
    assert events["request_url"] == "https://bot.example/slack/events"
    assert sorted(events["bot_events"]) == ["app_mention", "message.im"]
    assert settings["interactivity"] == {
        "is_enabled": True, "request_url": "https://bot.example/slack/interactions"}
    assert settings["socket_mode_enabled"] is False


def test_a_manifest_has_every_command_once_by_its_first_word(printed):
    made = printed["features"]["slash_commands"]
    names = [each["command"] for each in made]
    assert sorted(names) == sorted({name.split()[0] for name, one in slackbot.commands.items()
                                    if one.handler.__module__ == "slackbot"})
    for each in made:
        assert each["url"] == "https://bot.example/slack/commands"
        assert each["should_escape"] is False and each["description"]
    by_name = {each["command"]: each for each in made}
    assert by_name["/dig"]["usage_hint"] == "NAME [TYPE]"
    assert by_name["/dig"]["description"] == slackbot.commands["/dig"].summary
    assert by_name["/jira"]["description"] == slackbot.commands["/jira"].summary
    assert "usage_hint" not in by_name["/hello-world"]
    assert "release" in by_name["/jira"]["usage_hint"] + by_name["/jira"]["description"]


def test_a_manifest_has_a_name_of_its_own_or_the_one_that_is_asked_for(printed):
    for arguments, name in ([], "Command Bot"), (["--name", "QA Bot"], "QA Bot"):
        for made in (manifest("https://bot.example", *arguments),
                     manifest(*arguments, "--socket")):
            assert made["display_information"]["name"] == name
            assert made["features"]["bot_user"]["display_name"] == name


def test_a_manifest_lets_users_write_to_the_bot(printed):
    # Without this tab Slack says "Sending messages to this app has been turned off".
    home = printed["features"]["app_home"]
    assert home["messages_tab_enabled"] is True and home["messages_tab_read_only_enabled"] is False


def test_a_manifest_for_socket_mode_has_no_url():
    made = manifest("--socket")
    assert made["settings"]["socket_mode_enabled"] is True and "://" not in json.dumps(made)
    assert made["settings"]["interactivity"] == {"is_enabled": True}
    assert sorted(made["settings"]["event_subscriptions"]["bot_events"]) == [
        "app_mention", "message.im"]
    assert all("url" not in each for each in made["features"]["slash_commands"])


def test_a_manifest_has_ones_own_commands(script):
    made = manifest("https://bot.example", script=script)["features"]["slash_commands"]
    by_name = {each["command"]: each for each in made}
    assert len(by_name) == len(made)
    assert by_name["/greet"]["description"] == "Greet somebody."
    assert by_name["/greet"]["usage_hint"] == "NAME [TIMES]"
    assert "usage_hint" not in by_name["/bare"]
    assert [by_name[name]["description"] for name in ("/bare", "/silent")] == ["/bare", "/silent"]
    hint = by_name["/family"]["usage_hint"]
    assert "one NAME" in hint and "two" in hint
    assert {"/wordy", "/" + "n" * 31, "/hello", "/jira"} <= set(by_name)


def test_a_manifest_of_more_commands_than_slack_takes_is_printed_with_an_error(tmp_path):
    path = tmp_path / "many.py"
    path.write_text("import slackbot\nfor number in range(50):\n"
                    "    slackbot.command(f'/c{number}')(lambda request: None)\nslackbot.main()\n")
    done = start("manifest", "https://bot.example", script=path)
    made = json.loads(done.stdout)
    check_manifest(made)
    count = len(made["features"]["slash_commands"])
    assert count > 50 and done.returncode == 1
    assert re.search(rf"\b50\b.*\b{count}\b", done.stderr) and "Traceback" not in done.stderr


def test_a_slash_at_the_end_of_a_manifests_url_changes_nothing(printed):
    assert manifest("https://bot.example/") == printed


@pytest.mark.parametrize("arguments", [
    [], ["--socket", "--name"], ["--socket", "--name", ""], ["--socket", "--name", "n" * 36],
    ["--name", "QA Bot"], ["http://bot.example"], ["bot.example"], ["https://"], ["https://a b"], ["ftp://a"], [""],
    ["--sockets"], ["https://a.example", "https://b.example"], ["https://a.example\n"],
    ["https://bob:5ecret@bot.example"], ["https://bot.example?x=y"], ["https://bot.example#x"]],
    ids=str)
def test_a_manifest_for_a_bad_url_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        slackbot.main(["manifest", *arguments])
    assert end.value.code not in (0, None) and capsys.readouterr().out == ""
    assert isinstance(end.value.code, int) or "manifest" in end.value.code


# ---- the bot's own streams

STREAMS = '''
import os, sys, time
import slackbot

@slackbot.command("/redirect")
def redirect(request, path):
    sys.stdout = open(path, "w") if path != "none" else None
    print("a handler's own words")
    return "redirected"

@slackbot.command("/sleep")
def sleep(request, path):
    open(path, "w").close()
    time.sleep(60)

@slackbot.command("/calls")
def calls(request):
    yield "first"
    os.write(2, b"now ")
    time.sleep(60)

@slackbot.command("/two")
def two(request, how=""):
    yield "first"
    if how == "fails":
        raise slackbot.UserError("no second")
    yield "second"

slackbot.main()
'''


@pytest.fixture
def streams(tmp_path):
    """A script with commands that touch the streams."""
    path = tmp_path / "streams.py"
    path.write_text(STREAMS)
    return path


PAUSE = SOON_OVER["LOG_PAUSE"]


@contextlib.contextmanager
def serving(stdout, redirection="", script=fakes.ROOT / "slackbot.py", **environ):
    """A bot that serves with a *stdout* (a file), as a shell redirects it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    bot = fakes.Bot(script=script, PORT=port, constants=SOON_OVER, **environ)
    bot.host = "127.0.0.1"
    bot.port = port
    line = ["sh", "-c", f'exec "$@" {redirection}', "sh", *bot.command_line]
    with subprocess.Popen(line, env=bot.environ, stdout=stdout, stderr=subprocess.PIPE,
                          text=True) as bot.process:
        try:
            until(lambda: listens(bot))
            yield bot
        finally:
            bot.process.kill()


def listens(bot):
    """Whether a bot answers; its process must not have ended."""
    assert bot.process.poll() is None, bot.process.stderr.read()
    with contextlib.suppress(OSError):
        return bot.get("/healthz").status == 200


def send_commands(bot, count):
    """Send so many commands over one connection; each must be answered."""
    connection = http.client.HTTPConnection(bot.host, bot.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        for number in range(count):
            body = fakes.form("/hello you", trigger_id=number)
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/slack/commands", body, {**kind, **fakes.sign(body)})
            answer = fakes.Answer(connection.getresponse())
            assert answer.status == 200 and "Hello" in answer.text


def end(bot):
    """Stop a bot by SIGTERM; what it has written to stderr."""
    bot.process.send_signal(signal.SIGTERM)
    assert bot.process.wait(PATIENCE) == 0
    return bot.process.stderr.read()


def test_a_reader_of_the_log_that_stops_reading_holds_up_nothing():
    reading, writing = os.pipe()
    try:
        with serving(writing) as bot:
            send_commands(bot, 1000)  # whose lines are more than a pipe takes
            until(lambda: bot.get("/healthz").json["done"] == 1000)
            assert "Hello" in bot.command("/hello").text
            assert end(bot) == ""
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("environ", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("path, redirection", [("/dev/full", ""), (os.devnull, ">&-"),
                                               (os.devnull, ">&- 2>&-"),
                                               (os.devnull, "<&- >&- 2>&-")],
                         ids=["full", "no stdout", "no stdout and stderr", "no stream at all"])
def test_where_the_log_cannot_be_written_commands_are_served(path, redirection, environ):
    with open(path, "w") as stdout, serving(stdout, redirection, **environ) as bot:
        send_commands(bot, 30)
        time.sleep(3 * PAUSE)
        send_commands(bot, 30)
        assert "Traceback" not in end(bot)


@pytest.mark.parametrize("is_early", [True, False], ids=["before the start", "later"])
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_commands_are_served_when_the_reader_of_the_log_has_gone(is_early, unbuffered):
    reading, writing = os.pipe()
    if is_early:
        os.close(reading)
    with serving(writing, PYTHONUNBUFFERED=unbuffered) as bot:
        os.close(writing)
        send_commands(bot, 10)
        if not is_early:
            os.close(reading)
        for _ in range(3):
            send_commands(bot, 30)
            time.sleep(2 * PAUSE)
        assert "Traceback" not in end(bot)


class Gated:
    """A stream that nobody reads until the test opens it. When it `is_over`, whoever writes to it
    waits for ever."""

    is_over = False

    def __init__(self):
        self.written = ""
        self.waits = threading.Event()
        self.opened = threading.Event()

    def write(self, text):
        self.check()
        if text:  # the writer's thread may have had nothing to write yet
            self.waits.set()
            assert self.opened.wait(PATIENCE)
            self.written += text

    def check(self):
        if self.is_over:
            threading.Event().wait()

    def flush(self):
        pass


@pytest.fixture
def log_to(monkeypatch):
    """A function that makes a LogWriter to a stream; after the test, its thread does no more."""
    def log_to(stream):
        streams.append(stream)
        return slackbot.LogWriter(stream)

    monkeypatch.setattr(slackbot, "LOG_PAUSE", 0)
    streams = []
    yield log_to
    for stream in streams:
        stream.is_over = True


def test_lines_of_the_log_that_nobody_reads_are_dropped_and_counted(monkeypatch, log_to):
    monkeypatch.setattr(slackbot, "LOG_LINES", 20)
    stream = Gated()
    writer = log_to(stream)
    writer.write("the first\n")
    assert stream.waits.wait(PATIENCE)
    for number in range(100):
        writer.write(f"line {number}\n")
    assert not stream.written, "and so nobody has waited for it"
    stream.opened.set()
    until(lambda: "log_dropped" in stream.written)
    lines = stream.written.splitlines()
    assert lines[:-1] == ["the first", *(f"line {number}" for number in range(20))]
    assert re.fullmatch("level=WARNING event=log_dropped lines=80", lines[-1])
    writer.write("it goes on\n")
    until(lambda: stream.written.endswith("lines=80\nit goes on\n"))


class Stepwise(Gated):
    """A stream of which the test answers each write, as soon as there is something to write: with
    an error to raise, or None. Where there is nothing, it fails."""

    def __init__(self):
        super().__init__()
        self.failures = 0  # where there was nothing to write
        self.asked = queue.SimpleQueue()  # the texts
        self.answers = queue.SimpleQueue()

    def write(self, text):
        self.check()
        if not text:
            self.failures += 1
            raise OSError("no space")
        self.asked.put(text)
        error = self.answers.get(timeout=PATIENCE)
        if error:
            raise error


def dropped(count):
    """The line of the log that says how many others are missing."""
    return f"level=WARNING event=log_dropped lines={count}\n"


def test_lines_of_the_log_that_cannot_be_written_are_counted_until_they_can(monkeypatch, log_to):
    def write(word, count=1):
        """Log some lines; those that can wait to be written."""
        for number in range(count):
            writer.write(f"{word} {number}\n")
        return "".join(f"{word} {number}\n" for number in range(min(count, 20)))

    monkeypatch.setattr(slackbot, "LOG_LINES", 20)
    stream = Stepwise()
    writer = log_to(stream)
    until(lambda: stream.failures > 3)
    first = write("first")
    assert stream.asked.get(timeout=PATIENCE) == first, "nothing has been dropped yet"
    more = write("more", 50)  # while the first one is under way
    stream.answers.put(OSError("no space"))
    assert stream.asked.get(timeout=PATIENCE) == more + dropped(1 + 30)
    still_more = write("still more", 25)
    stream.answers.put(OSError("no space"))
    assert stream.asked.get(timeout=PATIENCE) == still_more + dropped(1 + 50 + 5)
    others = write("others", 22)
    stream.answers.put(None)
    assert stream.asked.get(timeout=PATIENCE) == others + dropped(2)
    stream.answers.put(None)
    last = write("the last")
    assert stream.asked.get(timeout=PATIENCE) == last
    stream.answers.put(None)


def test_lines_of_the_log_wait_while_what_was_written_before_is_not_out(log_to):
    """The stream's own buffer keeps that, so nothing is lost, and nothing comes twice."""
    class Full(Gated):
        is_full = False
        failures = 0

        def write(self, text):
            self.check()
            self.written += text

        def flush(self):
            if self.is_full:
                self.failures += 1
                raise OSError("no space")

    stream = Full()
    writer = log_to(stream)
    stream.is_full = True
    until(lambda: stream.failures > 3)
    for number in range(100):
        writer.write(f"line {number}\n")
    until(lambda: stream.failures > 10)
    assert not stream.written
    stream.is_full = False
    until(lambda: stream.written)
    writer.write("the last\n")
    until(lambda: "the last" in stream.written)
    assert stream.written == "".join(f"line {number}\n" for number in range(100)) + "the last\n"


@pytest.mark.parametrize("error", [OSError("no space"), ValueError("closed"), BrokenPipeError(),
                                   UnicodeEncodeError("ascii", "é", 0, 1, "no")], ids=repr)
def test_a_line_of_the_log_that_cannot_be_written_does_not_end_the_log(log_to, error):
    class Failing(Gated):
        def write(self, text):
            self.check()
            if "bad" in text:
                raise error
            self.written += text

    stream = Failing()
    writer = log_to(stream)
    for line in ("bad\n", "good\n"):
        writer.write(line)
        until(lambda: not len(writer.lines))
        time.sleep(0.02)
    until(lambda: "good" in stream.written)


@pytest.mark.parametrize("to", ["a file", "none"])
def test_a_handler_that_redirects_stdout_changes_nothing_of_the_log(streams, tmp_path, to):
    path = tmp_path / "elsewhere"
    with fakes.Bot(script=streams, constants=SOON_OVER) as bot:
        name = path if to == "a file" else "none"
        assert bot.command(f"/redirect {name}").json["text"] == "redirected"
        before = len(bot.lines)
        assert "Hello" in bot.command("/hello after").text
        until(lambda: sum("path=/slack/commands" in line for line in bot.lines[before:]) >= 1)
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0
    assert "Traceback" not in bot.output
    assert to == "none" or "event=" not in path.read_text()


# ---- streams of what only prints

@pytest.mark.parametrize("arguments", [["--help"], ["manifest", "https://bot.example"],
                                       ["run", "/help"], ["run", "/hello “you”"]], ids=str)
@pytest.mark.parametrize("flags, environ, redirection", [
    ([], {"PYTHONIOENCODING": "ascii"}, ""), ([], {"PYTHONIOENCODING": "ascii:strict"}, ""),
    (["-OO"], {}, ""), ([], {}, ">&-"), ([], {}, "<&- >&- 2>&-"), (["-OO"], {}, ">&- 2>&-")],
    ids=str)
def test_what_is_printed_brings_no_traceback_whatever_stdout_is(arguments, flags, environ,
                                                                 redirection):
    bot = fakes.Bot(*arguments, **environ)
    program, *rest = bot.command_line
    done = subprocess.run(["sh", "-c", f'exec "$@" {redirection}', "sh", program, *flags, *rest],
                          env=bot.environ, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0 and done.stderr == b""
    if not redirection:
        assert done.stdout.isascii() or "PYTHONIOENCODING" not in environ
        word = {"--help": b"JIRA_QUERIES", "manifest": b'"/jira"'}.get(arguments[0], b"H")
        assert word in done.stdout


@pytest.mark.parametrize("path", ["a closed pipe", "/dev/full"])
@pytest.mark.parametrize("line, status", [("/hello you", 0), ("/no-such-command", 1), ("/two", 0),
                                          ("/two fails", 1)])
def test_where_nobody_reads_what_a_run_prints_it_ends_with_the_commands_status(
        streams, line, status, path):
    if path == "/dev/full":
        writing = os.open(path, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    with open(writing, "wb") as stdout:
        bot = fakes.Bot("run", *line.split(), script=streams)
        done = subprocess.run(bot.command_line, env=bot.environ, stdout=stdout, timeout=PATIENCE,
                              stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.parametrize("line, word", [("/sleep", None), ("/calls", b"now ")], ids=str)
def test_ctrl_c_ends_a_run_with_130_in_silence(streams, tmp_path, line, word):
    began = tmp_path / "began"
    bot = fakes.Bot("run", line, *([str(began)] if not word else []), script=streams)
    with subprocess.Popen(bot.command_line, env=bot.environ, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        if word:
            assert process.stderr.read(len(word)) == word
        else:
            until(began.exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""
        assert process.stdout.read() == (b"first\n" if word else b"")
