"""Configuration: what the environment may say, and what the bot says of an invalid one."""

import io
import re
import shutil
import socket
import subprocess
import sys
import threading
from unittest.mock import ANY

import pytest

import api_fakes
import fakes
import slackbot
from fakes import PATIENCE

HOOKS = ("https://hooks.slack.com:443", "https://hooks.slack-gov.com:443")
SECRETS = ["signing-5ecret", "5"], ["5ec ret", "5ecret\nX", "5ecrét", "5\0x"]
NUMBERS = ["x5", "5.5", "5,000", "nan", "inf", "9" * 5000]


def only(*texts):
    """Good values that the configuration holds as they are."""
    return [(text, text) for text in texts]


# A row for each variable of the design's table: the default, the good values with what becomes
# of them, and bad values. ANY is for what only the code that uses it needs to know.
VARIABLES = {
    "PORT": (8080, [("5", 5), ("0", 0), ("65535", 65535)], [*NUMBERS, "-1", "65536"]),
    "HOST": ("127.0.0.1", only("0.0.0.0", "localhost", "::1"), ["a b5", "é5"]),
    "SLACK_SIGNING_SECRET": (None, only(*SECRETS[0]), SECRETS[1]),
    "SLACK_VERIFICATION_TOKEN": (None, only(*SECRETS[0]), SECRETS[1]),
    "SLACK_TEAM_ID": ((), [("T1", ("T1",)), ("T1,E2", ("T1", "E2")), ("T1, E2 ", ("T1", "E2"))],
                      ["t5", "T 5", "T-5", "T1,t5"]),
    "SLACK_HOOKS_ORIGINS": (HOOKS, [
        ("https://A.example", ("https://a.example:443",)),
        ("http://127.0.0.1:9,https://b.example:8443",
         ("http://127.0.0.1:9", "https://b.example:8443"))],
        ["x5", "ftp://5.example", "http://5.example", "https://a:5@b.example", "https://a5:99999",
         "https://a.example,x5", "https://a5\\b", "https:// a5", "https://"]),
    "JIRA_URL": (None, [("https://a.atlassian.net/", "https://a.atlassian.net"),
                        ("http://jira.example:8080/jira", "http://jira.example:8080/jira")],
                 ["x5", "ftp://5.example", "https://bob:5@jira.example", "https://", "//5.example",
                  "https://a5.example:x"]),
    "JIRA_API_URL": (None, [("https://api.example/ex/", "https://api.example/ex")],
                     ["x5", "ftp://5.example", "https://bob:5@jira.example"]),
    "JIRA_USERNAME": (None, only("me@example.com"), ["a b5", "é5"]),
    "JIRA_API_TOKEN": (None, only("5ecret=="), SECRETS[1]),
    "JIRA_PERSONAL_TOKEN": (None, only("5ecret/+"), SECRETS[1]),
    "JIRA_PROJECT": ((), [("APP", ("APP",)), ("app, WEB_2", ("APP", "WEB_2"))],
                     ["5A", "A-5", 'APP" OR 5', "APP,5"]),
    "JIRA_QUERIES": (ANY, [('{"Ours": "team = 1"}', {"Ours": "team = 1"})],
                     ["x5", "[5]", "{}", "5", "null", '"5"', '{"": "5 = 5"}',
                      '{" ": "5 = 5"}', '{"Ours": "team = 1", "": "5 = 5"}', '{"a": 5}', '{"a": ""}', '{"5": " "}',
                      '{"a": "5"', '{"a": ["5"]}', "[" * 100_000]),
    "SLACKBOT_WORKERS": (200, [("1", 1), ("50", 50)], [*NUMBERS, "0", "-5"]),
    "SLACKBOT_CONNECTIONS": (slackbot.default_connections(), [("1", 1), ("50", 50)],
                             [*NUMBERS, "0", "-5"]),
    "SLACKBOT_QUEUE": (1000, [("0", 0), ("50", 50)], [*NUMBERS, "-5"]),
    "SLACKBOT_ACK_SECONDS": (2, [("0", 0), ("0.5", 0.5), ("2.5", 2.5)],
                             ["x5", "-0.5", "2.51", "nan", "inf", "1,5", "9" * 5000]),
    "SLACKBOT_GRACE_SECONDS": (25, [("0", 0), ("50", 50)], ["x5", "-5", "nan", "5,0"]),
    "SLACK_BOT_TOKEN": (None, only("xoxb-5"), SECRETS[1]),
    "SLACK_APP_TOKEN": (None, only("xapp-5"), SECRETS[1]),
    "SLACK_API_URL": (ANY, [("https://slack.example/api/", ANY), ("http://127.0.0.1:9/api", ANY)],
                      ["x5", "http://5.example/api/", "ftp://5.example/", "https://a:5@b.ex"]),
    "SLACK_WEBHOOK_URL": (None, [("https://hooks.slack.com/services/T1/B1/5", ANY),
                                 ("http://127.0.0.1:9/x", ANY)],
                          ["x5", "http://hooks.slack.com/services/5", "ftp://hooks.slack.com/5"]),
    "SLACKBOT_WEBHOOK_TOKEN": (None, only("5ecret"), SECRETS[1]),
    "DNS_SERVER": (ANY, [("9.9.9.9", (("9.9.9.9", 53),)),
                         ("127.0.0.1:5353", (("127.0.0.1", 5353),)),
                         ("[::1]:53", (("::1", 53),)), ("::1", (("::1", 53),))],
                   ["a b5", "9.9.9.9:99999", "dns5.example"]),
    "WHOIS_SERVER": (("whois.iana.org", 43), [("127.0.0.1:4343", ("127.0.0.1", 4343)),
                                              ("whois.example", ("whois.example", 43))],
                     ["a b5", "whois5.example:99999", "whois://whois5.example"]),
    "NETWORK_ALLOW_PRIVATE": (None, [("1", True), ("0", False)], []),
    "SLACKBOT_JOURNAL": (None, [("journal.sqlite", ANY), ("/tmp/journal.sqlite", ANY)],
                         ["/no/such/directory5/journal", "/tmp"]),
    "LOG_LEVEL": ("INFO", [("debug", "DEBUG"), ("WARNING", "WARNING")], ["5", "LOUD5", "INFO 5"]),
}
BESIDE = {  # what a variable needs beside it
    "SLACK_TEAM_ID": {"SLACK_SIGNING_SECRET": "s"}, "JIRA_API_URL": {"JIRA_URL": "https://j.x"},
    "JIRA_USERNAME": {"JIRA_URL": "https://j.x", "JIRA_API_TOKEN": "t"},
    "JIRA_API_TOKEN": {"JIRA_URL": "https://j.x", "JIRA_USERNAME": "u"},
    "JIRA_PERSONAL_TOKEN": {"JIRA_URL": "https://j.x"}}
LIVE = {"SLACK_SIGNING_SECRET": "s"}


def config(environ, demo=False):
    return slackbot.Config(dict(environ), demo=demo)


def problems(environ, demo=False):
    """The sentences about what is wrong with *environ*."""
    with pytest.raises(slackbot.ConfigError) as caught:
        config(environ, demo)
    return caught.value.args


def start(*arguments, **environ):
    """`python slackbot.py` in a process of its own, until it ends."""
    bot = fakes.Bot(*arguments, **environ)
    return subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=PATIENCE)


# ---- one variable

@pytest.mark.parametrize("name", VARIABLES)
def test_an_unset_and_an_empty_variable_mean_the_default(name):
    default = VARIABLES[name][0]
    live = LIVE if name != "SLACK_SIGNING_SECRET" else {"SLACK_VERIFICATION_TOKEN": "t"}
    for environ in ({}, {name: ""}, {name: "  "}):
        assert getattr(config({**live, **environ}), name.lower()) == default


@pytest.mark.parametrize("name, text, value", [
    (name, *row) for name in VARIABLES for row in VARIABLES[name][1]], ids=str)
def test_a_good_value_is_taken(name, text, value):
    environ = {**(BESIDE.get(name) or LIVE), name: text}
    assert getattr(config(environ), name.lower()) == value
    assert getattr(config({**environ, name: f" {text}\n"}), name.lower()) == value


@pytest.mark.parametrize("name, text", [
    (name, text) for name in VARIABLES for text in VARIABLES[name][2]],
    ids=lambda text: ascii(text)[1:41])
def test_a_bad_value_is_named_and_never_shown(name, text):
    sentence = problems({name: VARIABLES[name][2][0]})[0].partition(";")[0]
    for demo in (False, True):
        said = problems({**BESIDE.get(name, {}), name: text}, demo)
        assert said[0].partition(";")[0] == sentence, "it depends on the value"
        assert sentence.startswith(name) and "5ecret" not in "".join(said)


@pytest.mark.parametrize("files, connections", [
    (1024, 768), (256, 192), (1333, 999), (1334, 1000), (65_536, 1000), (10 ** 9, 1000),
    (-1, 1000)])
def test_connections_leave_a_quarter_of_the_file_descriptors(monkeypatch, files, connections):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    assert slackbot.default_connections() == connections


def test_without_limits_to_ask_for_connections_are_250(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails, as on Windows
    assert slackbot.default_connections() == 250


@pytest.mark.parametrize("text, addresses", [
    (b"# caf\xe9 \xff\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
    (b"nameserver fe80::1%eth0\n", ["fe80::1%eth0"]),
    (b"nameserver\t192.0.2.1 \nnameserver 2001:db8::1\n", ["192.0.2.1", "2001:db8::1"]),
    (b"nameserver 192.0.2.1\r\n", ["192.0.2.1"]), (b"nameserver 192.0.2.1", ["192.0.2.1"]),
    (b"nameserver 192.0.2.1 # office\nnameserver\t192.0.2.2 ; x\n", ["192.0.2.1", "192.0.2.2"]),
    (b"nameserver fe80::1%eth0 # home\n", ["fe80::1%eth0"]),
    (b"nameserver\n192.0.2.1\n", ["8.8.8.8"]), (b"nameserver \n 192.0.2.1\n", ["8.8.8.8"]),
    (b"nameserver 192.0.2.1x\nnameserver 192.0.2.2\n", ["192.0.2.2"]),
    (b"search x\n# nameserver 192.0.2.1\n", ["8.8.8.8"]), (b"", ["8.8.8.8"]),
    (b"\xff" * 10_000, ["8.8.8.8"]), (None, ["8.8.8.8"])], ids=lambda text: repr(text)[:40])
def test_the_name_servers_are_those_of_the_machine_whatever_its_file_says(monkeypatch, text,
                                                                          addresses):
    def open_file(path, *arguments, **options):
        if text is None:
            raise FileNotFoundError(path)
        return io.TextIOWrapper(io.BytesIO(text), "utf-8", **options)

    monkeypatch.setattr("builtins.open", open_file)
    assert slackbot.name_servers() == tuple((address, 53) for address in addresses)


def test_every_setting_has_a_row_in_the_table_of_this_file():
    assert set(slackbot.SETTINGS) == set(VARIABLES)


def test_the_sections_of_a_jira_report_are_those_of_the_design():
    assert list(config({}).jira_queries) == [
        "Blockers", "In progress", "To do", "Unassigned", "Reopened", "Stale", "Inconsistent",
        "Done"]


def test_the_rest_api_is_at_jira_url_unless_jira_api_url_is_set():
    assert config({"JIRA_URL": "https://j.x/"}).jira_api_url == "https://j.x"


# ---- several variables

CONTRADICTIONS = [
    ({"SLACK_TEAM_ID": "T5"}, "SLACK_TEAM_ID"),
    ({"SLACK_TEAM_ID": "T5", "SLACK_SIGNING_SECRET": " "}, "SLACK_TEAM_ID"),
    ({"JIRA_URL": "https://j.x", "JIRA_USERNAME": "u5"}, "JIRA_API_TOKEN"),
    ({"JIRA_URL": "https://j.x", "JIRA_API_TOKEN": "t5"}, "JIRA_USERNAME"),
    ({"JIRA_URL": "https://j.x", "JIRA_USERNAME": "u5", "JIRA_API_TOKEN": "t5",
      "JIRA_PERSONAL_TOKEN": "p5"}, "JIRA_PERSONAL_TOKEN"),
    ({"JIRA_API_URL": "https://5.x"}, "JIRA_URL"),
    ({"JIRA_PERSONAL_TOKEN": "p5"}, "JIRA_URL"),
    ({"JIRA_USERNAME": "u5", "JIRA_API_TOKEN": "t5"}, "JIRA_URL")]


@pytest.mark.parametrize("environ, name", CONTRADICTIONS)
def test_a_contradiction_between_settings_is_one_problem(environ, name):
    said = problems(environ)
    assert len(said) == 1 and name in said[0] and "5" not in said[0]


@pytest.mark.parametrize("secret", ["SLACK_SIGNING_SECRET", "SLACK_VERIFICATION_TOKEN"])
def test_a_team_id_goes_with_either_secret(secret):
    assert config({"SLACK_TEAM_ID": "T1", secret: "s"}).slack_team_id == ("T1",)


@pytest.mark.parametrize("name", ["SLACK_SIGNING_SECRET", "JIRA_USERNAME", "JIRA_API_TOKEN"])
def test_a_bad_value_is_not_reported_as_missing_too(name):
    environ = {"SLACK_SIGNING_SECRET": "s", "SLACK_TEAM_ID": "T1", "JIRA_URL": "https://j.x",
               "JIRA_USERNAME": "u", "JIRA_API_TOKEN": "t"}
    assert len(problems({**environ, name: "a b"})) == 1


def test_all_problems_are_told_at_once_and_nothing_is_bound():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = start(PORT=taken.getsockname()[1], LOG_LEVEL="loud-5ecret", JIRA_URL="5ecret",
                     SLACK_SIGNING_SECRET="5ecret 5ecret", SLACKBOT_WORKERS="5ecret",
                     JIRA_USERNAME="5ecret")
    assert (done.returncode, done.stdout) == (2, "")
    for name in ("LOG_LEVEL", "JIRA_URL", "SLACK_SIGNING_SECRET", "SLACKBOT_WORKERS",
                 "JIRA_API_TOKEN"):
        assert name in done.stderr
    assert "5ecret" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["demo"], ["run", "/hello"]], ids=" ".join)
def test_a_bad_value_stops_every_way_to_start(arguments):
    done = start(*arguments, JIRA_API_TOKEN="5ecret 5ecret")
    assert (done.returncode, done.stdout) == (2, "")
    assert "JIRA_API_TOKEN" in done.stderr and "5ecret" not in done.stderr


# ---- modes

@pytest.mark.parametrize("environ, mode, host, port", [
    ({}, "demo", "127.0.0.1", 8080),
    ({"PORT": ""}, "demo", "127.0.0.1", 8080),
    ({"HOST": "0.0.0.0"}, "demo", "127.0.0.1", 8080),
    ({"SLACK_SIGNING_SECRET": " "}, "demo", "127.0.0.1", 8080),
    ({"SLACK_BOT_TOKEN": "xoxb-1", "JIRA_URL": "https://j.x"}, "demo", "127.0.0.1", 8080),
    ({"SLACK_APP_TOKEN": "xapp-1"}, "setup", "127.0.0.1", 8080),
    ({"PORT": "8081"}, "setup", "0.0.0.0", 8081),
    ({"PORT": "0"}, "setup", "0.0.0.0", 0),
    ({"PORT": "8081", "HOST": "127.0.0.2"}, "setup", "127.0.0.2", 8081),
    (LIVE, "live", "127.0.0.1", 8080),
    ({**LIVE, "PORT": "8081"}, "live", "0.0.0.0", 8081),
    ({**LIVE, "PORT": "0", "HOST": "::1"}, "live", "::1", 0),
    ({**LIVE, "HOST": "0.0.0.0"}, "live", "0.0.0.0", 8080),
    ({"SLACK_VERIFICATION_TOKEN": "t"}, "live", "127.0.0.1", 8080)])
def test_the_mode_and_the_address_follow_from_what_is_set(environ, mode, host, port):
    made = config(environ)
    assert (made.mode, made.host, made.port) == (mode, host, port)
    made = config(environ, demo=True)
    assert (made.mode, made.host, made.port) == ("demo", "127.0.0.1", port)


def test_a_demo_has_a_random_secret_and_ignores_the_configured_one():
    environ = {"SLACK_SIGNING_SECRET": "5ecret", "SLACK_VERIFICATION_TOKEN": "5ecret",
               "SLACK_TEAM_ID": "T1"}
    made = [config(environ, demo=True), config({}), config({})]
    assert len({each.slack_signing_secret for each in made} - {"5ecret"}) == 3
    for each in made:
        assert len(each.slack_signing_secret) >= 32
        assert not each.slack_verification_token and not each.slack_team_id


@pytest.mark.parametrize("environ, demo", [
    ({}, False), ({}, True), ({**LIVE, "SLACK_APP_TOKEN": "xapp-1"}, True)], ids=str)
def test_a_demo_has_neither_a_journal_nor_socket_mode(environ, demo):
    made = config({**environ, "SLACKBOT_JOURNAL": "journal.sqlite"}, demo)
    assert made.mode == "demo" and made.slackbot_journal is made.slack_app_token is None


@pytest.mark.parametrize("demo", [False, True])
def test_a_configuration_shows_no_secret(demo):
    made = config({"SLACK_SIGNING_SECRET": "5ecret", "SLACK_VERIFICATION_TOKEN": "5ecret",
                   "JIRA_URL": "https://j.x", "JIRA_PERSONAL_TOKEN": "5ecret"}, demo)
    assert "5ecret" not in f"{made} {made!r}" and made.slack_signing_secret not in repr(made)


# ---- the process

def test_it_says_on_stdout_where_it_listens():
    bot = fakes.Bot()
    with subprocess.Popen(bot.command_line, env=bot.environ, stdout=subprocess.PIPE,
                          text=True) as process:
        threading.Timer(3, process.kill).start()
        said = re.match(r"listening on http://127\.0\.0\.1:(\d+)\b", process.stdout.readline())
        socket.create_connection(("127.0.0.1", int(said[1]))).close()
        process.kill()


def test_port_0_is_a_free_port_of_its_own():
    with fakes.Bot() as one, fakes.Bot() as other:
        assert len({one.port, other.port, 0}) == 3


@pytest.mark.parametrize("host, shown", [(None, "0.0.0.0"), ("127.0.0.2", "127.0.0.2"),
                                         ("localhost", "127.0.0.1")])
def test_it_binds_the_host_or_with_a_port_every_address(host, shown):
    with fakes.Bot(HOST=host) as bot:
        assert bot.host == shown and bot.get("/status").json["mode"] == "live"


def test_an_ipv6_address_stands_in_brackets():
    with fakes.Bot(HOST="::1", wait=False) as bot:
        bot.listening.wait(PATIENCE)
        if "annot assign" in bot.output:
            pytest.skip("no IPv6 here")
        assert re.match(r"listening on http://\[::1\]:\d+", bot.output)


@pytest.mark.parametrize("arguments, environ", [
    (["demo"], {"HOST": "0.0.0.0", "SLACK_TEAM_ID": "T1", "SLACK_VERIFICATION_TOKEN": "t",
                "JIRA_URL": "https://j.x"}),
    (["demo"], {"SLACK_SIGNING_SECRET": None})])
def test_the_demo_stays_on_loopback_whatever_is_configured(arguments, environ):
    with fakes.Bot(*arguments, **environ) as bot:
        assert bot.host == "127.0.0.1" and bot.get("/status").json["mode"] == "demo"
        assert bot.command("/hello").status == 401


def test_with_a_port_and_without_a_secret_it_is_in_setup_mode():
    with fakes.Bot(SLACK_SIGNING_SECRET="") as bot:
        assert bot.get("/status").json["mode"] == "setup" and bot.command("/hello").status == 503


@pytest.mark.parametrize("arguments", [[], ["demo"]], ids=["serve", "demo"])
def test_a_port_that_is_taken_is_one_line(arguments):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start(*arguments, PORT=port)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1 and str(port) in done.stderr
    hint = f"; try PORT={port + 1} python3 {fakes.ROOT / 'slackbot.py'} demo"
    assert done.stderr.rstrip().endswith(hint) == bool(arguments)


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "203.0.113.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_bound_is_one_line(host):
    done = start(HOST=host)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1 and host in done.stderr


def test_a_page_that_is_missing_is_named(tmp_path):
    shutil.copy(fakes.ROOT / "slackbot.py", tmp_path)
    done = subprocess.run([sys.executable, tmp_path / "slackbot.py"], env=fakes.Bot().environ,
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"No such file or directory: '{tmp_path / 'index.html'}'" in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_has_every_variable_and_every_way_to_start(option):
    done = start(option, LOG_LEVEL="5ecret")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (*VARIABLES, "slackbot.py demo", "slackbot.py run", "slackbot.py check",
                 "slackbot.py manifest"):
        assert word in done.stdout, f"{word} is missing"


def test_help_is_the_calls_and_a_line_for_every_setting():
    calls, _, settings = start("--help").stdout.partition("\n\nEnvironment:\n")
    title, _, *calls = calls.splitlines()
    assert title.startswith("slackbot.py: ") and len(calls) == 6
    assert all(call.startswith("    python slackbot.py") for call in calls)
    lines = settings.splitlines()
    assert len(lines) == len(slackbot.SETTINGS)
    for name, (*_, what) in slackbot.SETTINGS.items():
        assert any(line.split()[:1] == [name] and what in line for line in lines), name


@pytest.mark.parametrize("word", ["serv", "/hello", "--version", "DEMO"])
def test_another_word_on_the_command_line_is_one_line(word):
    done = start(word)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and word in done.stderr


# ---- why a value is bad, and names that are nearly right

@pytest.mark.parametrize("name, text, reason", [
    ("SLACK_SIGNING_SECRET", "xoxb-1-2", "this looks like a bot token"),
    ("SLACK_SIGNING_SECRET", "a b", "it contains a space or a letter that isn't ASCII"),
    ("SLACK_BOT_TOKEN", "xoxb-é", "it contains a space or a letter that isn't ASCII"),
    ("JIRA_QUERIES", '{"a": b}', "it isn't JSON: Expecting value: line 1 column 7 (char 6)")])
def test_a_bad_value_is_refused_with_the_reason(name, text, reason):
    sentence, = problems({name: text})
    assert sentence.startswith(f"{name} should be ") and sentence.endswith(f"; {reason}")


@pytest.mark.parametrize("name, ours", [
    ("SLACK_SIGNING_SECRT", "SLACK_SIGNING_SECRET"), ("JIRA_URLS", "JIRA_URL"),
    ("SLACK_SIGNING_SECRETS", "SLACK_SIGNING_SECRET"), ("LOGLEVEL", "LOG_LEVEL")])
def test_a_variable_that_is_nearly_one_of_ours_is_warned_of(monkeypatch, name, ours):
    others = dict.fromkeys(["HOME", "HOSTNAME", "PATH", "SHELL", "JAVA_HOME", "PYTHONPATH",
                            "DYNO", "LANG", "PWD", "SSH_PORT", *slackbot.SETTINGS], "x")
    warnings = []
    monkeypatch.setattr(slackbot.log, "warning", lambda event, **fields: warnings.append(fields))
    slackbot.warn_of_misspelled({**others, name: "x"})
    assert warnings == [{"name": name, "perhaps": ours}]


def test_the_warning_about_a_variable_is_in_the_log_without_its_value():
    with fakes.Bot(SLACK_SIGNING_SECRT="5ecret") as bot:
        api_fakes.until(lambda: "event=unknown_variable name=SLACK_SIGNING_SECRT "
                                "perhaps=SLACK_SIGNING_SECRET" in bot.output)
        assert "5ecret" not in bot.output


def test_the_setup_page_tells_what_is_needed_from_what_is_optional():
    with fakes.Bot(SLACK_SIGNING_SECRET="") as bot:
        page = bot.get("/").text
    assert "Needed: SLACK_SIGNING_SECRET. You find it at api.slack.com/apps" in page
    assert "Optional: JIRA_URL" in page
