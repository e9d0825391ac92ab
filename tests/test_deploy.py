"""The process as a host runs it: started as its file says, stopped by a signal."""

import concurrent.futures
import contextlib
import functools
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import finish, until
from fakes import PATIENCE, ROOT, SOON_OVER

README = (ROOT / "README.md").read_text()

COMMANDS = """
import pathlib, time, slackbot

def wait(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)

@slackbot.command("/slow")
def slow(request, gate):
    "Say something, and the rest when a file is there."
    yield "started"
    wait(gate)
    yield "finished"

@slackbot.command("/late")
def late(request, gate):
    "Say nothing before a file is there."
    wait(gate)
    return "finished"

slackbot.main()
"""
LIMITED = """
import os, threading
start_thread = threading.Thread.start

def start_one_of_few(thread):
    if threading.active_count() >= int(os.environ["THREADS"]):
        raise RuntimeError("can't start new thread")
    start_thread(thread)

threading.Thread.start = start_one_of_few
"""


@pytest.fixture
def script(tmp_path):
    """The path of a bot with commands that take their time."""
    path = tmp_path / "slow.py"
    path.write_text(COMMANDS)
    return path


@pytest.fixture
def slack():
    """A Slack for the later answers."""
    with fakes.Slack() as made:
        yield made


@contextlib.contextmanager
def started(slack, script, line, **environ):
    """A bot in the middle of *line*, and the response_url of that."""
    with fakes.Bot(script=script, constants=SOON_OVER, SLACK_HOOKS_ORIGINS=slack.origin,
                   **environ) as bot:
        url = slack.response_url()
        assert bot.command(line, response_url=url).json["text"] == "started"
        yield bot, url


def texts(slack, url):
    """What has been posted to *url*."""
    return [post.message["text"] for post in slack.posts.get(url, [])]


# ---- What each host's file says

def procfile():
    """The Procfile's command; Heroku and Google's buildpacks give it to a shell."""
    return re.fullmatch(r"web: (.+)\n", (ROOT / "Procfile").read_text())[1], {}


def dockerfile():
    """The Dockerfile's CMD, and its ENV."""
    text = (ROOT / "Dockerfile").read_text()
    words = json.loads(re.search(r"^CMD (.+)$", text, re.MULTILINE)[1])
    pairs = shlex.split(re.search(r"^ENV (.+)$", text, re.MULTILINE)[1])
    return shlex.join(words), dict(pair.split("=", 1) for pair in pairs)


def app_yaml():
    """The entrypoint of app.yaml, and its env_variables."""
    text = (ROOT / "app.yaml").read_text()
    settings = re.findall(r'^  ([A-Z_]+): "(.*)"$', text.partition("env_variables:\n")[2], re.M)
    return re.search(r"^entrypoint: (.+)$", text, re.MULTILINE)[1], dict(settings)


def unit():
    """The README's systemd unit: ExecStart and Environment."""
    text = README.partition("```ini\n")[2].partition("```")[0]
    pairs = shlex.split(re.search(r"^Environment=(.+)$", text, re.MULTILINE)[1])
    return (re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)[1],
            dict(pair.split("=", 1) for pair in pairs))


@pytest.fixture
def machine(tmp_path):
    """A directory like a host's: `app` has what the Dockerfile copies, `bin` has Python."""
    for name in ("app", "bin", "state"):
        (tmp_path / name).mkdir()
    patterns = re.search(r"^COPY (.+) \./$", (ROOT / "Dockerfile").read_text(), re.M)[1].split()
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        shutil.copy(path, tmp_path / "app")
    for name in ("python", "python3"):
        (tmp_path / "bin" / name).symlink_to(sys.executable)
    return tmp_path


def free_port():
    """A port that nobody listens on, as a host would choose it."""
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("file, address", [
    (procfile, "0.0.0.0"), (dockerfile, "0.0.0.0"), (app_yaml, "0.0.0.0"), (unit, "127.0.0.1")])
def test_the_command_in_a_hosts_file_serves_slack_on_its_port_until_sigterm(file, address, machine):
    command, environ = file()
    for there, here in (("/usr/bin/", "bin/"), ("/opt/slackbot/", "app/"),
                        ("/var/lib/slackbot/", "state/")):
        command = command.replace(there, f"{machine}/{here}")
        environ = {name: value.replace(there, f"{machine}/{here}")
                   for name, value in environ.items()}
    port = free_port()
    environ = {"HOST": None, **environ, "PORT": port, "PYTHONPATH": None,
               "PATH": f"{machine}/bin{os.pathsep}{os.environ['PATH']}"}
    bot = fakes.Bot(**environ)
    bot.command_line = ["sh", "-c", f"cd {machine}/app && exec {command}"]
    with bot:
        assert f"listening on http://{address}:{port} (live mode)" in bot.output
        bot.host = "127.0.0.1"
        assert bot.get("/healthz").json["status"] == "ok"
        assert bot.get("/").text.startswith("<!DOCTYPE html>")
        assert bot.command("/hello Example").json["text"].endswith("`Example`")
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0


def test_the_grace_for_each_host_ends_before_the_host_kills():
    rows = re.findall(r"^\| ([\w ]+) \| [^|]+ \| (?:([0-9]+) s|it doesn't say) \| ([0-9]+) \|$",
                      README, re.MULTILINE)
    graces = {host: grace for host, _, grace in rows}
    assert graces.keys() == {"Heroku", "Cloud Run", "App Engine", "Docker",
                             "a machine with systemd"}
    for host, kills, grace in rows:
        config = slackbot.Config({"SLACKBOT_GRACE_SECONDS": grace})
        last = config.slackbot_grace_seconds + slackbot.TELL_SECONDS + slackbot.SWEEP_SECONDS
        assert last < int(kills) if kills else grace == "0", host
    said = [file()[1]["SLACKBOT_GRACE_SECONDS"] for file in (app_yaml, dockerfile, unit)]
    assert said == [graces[host] for host in ("App Engine", "Docker", "a machine with systemd")]
    assert f"SLACKBOT_GRACE_SECONDS={graces['Cloud Run']}," in README
    assert slackbot.Config({}).slackbot_grace_seconds == int(graces["Heroku"])
    assert ("a machine with systemd", *re.findall(r"^TimeoutStopSec=([0-9]+)$", README, re.M)) in \
        [row[:2] for row in rows]


def test_all_files_for_hosts_name_one_python_and_nothing_to_install():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert lines and all(line.startswith("#") for line in lines)
    minor = re.fullmatch(r"python-3\.(1[1-9])\n", (ROOT / "runtime.txt").read_text())[1]
    docker = (ROOT / "Dockerfile").read_text()
    assert f"\nFROM python:3.{minor}-slim\n" in docker
    assert re.findall("^RUN (.+)$", docker, re.M) == ["python -m compileall -q ."]
    assert f"\nruntime: python3{minor}\n" in (ROOT / "app.yaml").read_text()
    assert f"`.python-version` that says `3.{minor}`" in README


def test_the_container_isnt_run_by_root():
    user = re.search(r"^USER (.+)\n(?:.*\n)*CMD", (ROOT / "Dockerfile").read_text(), re.M)
    assert user and user[1] not in ("root", "0")


# ---- How soon it starts, and how it ends

def test_modules_that_no_first_answer_needs_are_not_loaded_at_the_start():
    slow = {"asyncio", "email", "getpass", "http.client", "http.server", "sqlite3", "ssl",
            "tempfile", "urllib.request"}
    code = "import sys, slackbot; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, text=True,
                            capture_output=True).stdout.split()
    assert "slackbot" in loaded and slow.intersection(loaded) == set()


def test_a_running_command_may_finish_after_sigterm(slack, script, gate):
    with started(slack, script, f"/slow {gate}") as (bot, url):
        bot.process.send_signal(signal.SIGTERM)
        until(lambda: bot.get("/healthz").status == 503)
        time.sleep(0.4)  # in which its user would be told, if there were no grace
        gate.touch()
        assert bot.process.wait(PATIENCE) == 0
        assert texts(slack, url) == ["finished"]


def test_while_commands_finish_after_sigterm_the_host_and_users_are_told(slack, script, gate):
    with started(slack, script, f"/slow {gate}") as (bot, url):
        bot.process.send_signal(signal.SIGTERM)
        until(lambda: bot.get("/healthz").status == 503)
        health, other = bot.get("/healthz"), bot.command(f"/slow {gate}")
        assert (health.status, health.json["status"]) == (503, "draining")
        assert other.status == 200 and "try again in a minute" in other.json["text"]
        assert other.headers["Connection"] == "close"
        gate.touch()
        assert bot.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_user_of_a_command_that_hangs_is_told_and_the_process_ends(slack, script, number):
    with started(slack, script, "/slow never", SLACKBOT_GRACE_SECONDS=0.1) as (bot, url):
        bot.process.send_signal(number)
        assert bot.process.wait(PATIENCE) == 0
        said = texts(slack, url)
        assert len(said) == 1 and "restart" in said[0] and "finished" not in said[0]
        until(lambda: "stopping: commands that still run: 1 (up to 0.1 s); Ctrl-C again ends it\n"
              in bot.output)


def test_a_second_signal_ends_the_process_at_once(slack, script):
    with started(slack, script, "/slow never", SLACKBOT_GRACE_SECONDS=60) as (bot, url):
        bot.process.send_signal(signal.SIGTERM)
        until(lambda: bot.get("/healthz").status == 503)
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 1


def test_the_user_of_a_command_that_waits_for_a_worker_is_told_too(slack, script):
    with started(slack, script, "/slow never", SLACKBOT_WORKERS=1,
                 SLACKBOT_GRACE_SECONDS=0.1) as (bot, url):
        other = slack.response_url()
        assert "Working on" in bot.command("/slow never", response_url=other).json["text"]
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0
        assert len(texts(slack, url)) == len(texts(slack, other)) == 1
        until(lambda: "stopping: commands that still run: 2 (up to 0.1 s)" in bot.output)


def test_a_command_that_ends_while_its_user_is_told_is_waited_for(slack, script, tmp_path):
    gate = tmp_path / "gate"
    with started(slack, script, f"/slow {gate}", SLACKBOT_GRACE_SECONDS=0) as (bot, url):
        slack.faults = [("status", 503)]
        bot.process.send_signal(signal.SIGTERM)
        until(lambda: slack.attempts == 1)
        gate.touch()
        assert bot.process.wait(PATIENCE) == 0
        said = texts(slack, url)
        assert len(said) == 1 and "restart" in said[0]


INLINE = """
import threading, slackbot
slackbot.TELL_SECONDS = 0.2

@slackbot.command("/hang", inline=True)
def hang(request):
    threading.Event().wait()

slackbot.main()
"""


def test_the_process_ends_though_the_loop_hangs(tmp_path):
    script = tmp_path / "inline.py"
    script.write_text(INLINE)
    with fakes.Bot(script=script, SLACKBOT_GRACE_SECONDS=0.1) as bot:
        bot.request = functools.partial(bot.request, timeout=0.2)
        with pytest.raises(TimeoutError):
            bot.command("/hang")
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0


def test_users_without_a_first_answer_get_one_when_the_process_ends(slack, script):
    with (fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin, SLACKBOT_GRACE_SECONDS=0.1,
                    SLACKBOT_ACK_SECONDS=2.5, constants=SOON_OVER) as bot,
          concurrent.futures.ThreadPoolExecutor(20) as pool):
        urls = [slack.response_url() for _ in range(20)]
        waiting = [pool.submit(bot.command, "/late never", response_url=url) for url in urls]
        until(lambda: bot.get("/healthz").json["running"] == 20)
        bot.process.send_signal(signal.SIGTERM)
        firsts = []
        for each in waiting:
            text = each.result().json["text"]
            firsts.append([text] * ("Working on" not in text))
        assert bot.process.wait(PATIENCE) == 0
        for first, url in zip(firsts, urls):
            said = first + texts(slack, url)
            assert len(said) == 1 and "restart" in said[0]


@pytest.mark.parametrize("spare", [0, 1, 5], ids=["no thread", "one thread", "five threads"])
def test_users_are_told_where_the_host_allows_hardly_more_threads(slack, tmp_path, spare):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED + COMMANDS)
    workers = 6
    threads = 5 + workers + spare  # main, log, server, and a poster of each kind
    with fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin, SLACKBOT_GRACE_SECONDS=0.1,
                   SLACKBOT_WORKERS=workers, THREADS=threads, constants=SOON_OVER) as bot:
        urls = [slack.response_url() for _ in range(workers)]
        for url in urls:
            assert bot.command("/slow never", response_url=url).json["text"] == "started"
        assert threads_of(bot) == 5 + workers
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0
        said = [texts(slack, url) for url in urls]
        assert all(len(each) == 1 and "restart" in each[0] for each in said), said


def threads_of(bot):
    """How many threads a bot's process has."""
    with open(f"/proc/{bot.process.pid}/status") as status:
        return int(re.search(r"^Threads:\s+([0-9]+)$", status.read(), re.MULTILINE)[1])


@pytest.mark.parametrize("spare", [0, 3])
def test_commands_are_served_where_the_host_allows_fewer_threads_than_workers(
        slack, tmp_path, gate, spare):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED + COMMANDS)
    with fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin, SLACKBOT_ACK_SECONDS=0,
                   THREADS=6 + spare) as bot:  # a worker, too, is there from the start
        urls = [slack.response_url() for _ in range(12)]
        for url in urls:
            assert bot.command(f"/late {gate}", response_url=url).status == 200
        gate.touch()
        finish(bot)
        assert [texts(slack, url) for url in urls] == [["finished"]] * 12


def test_a_signal_that_reaches_another_thread_ends_the_process_too(tmp_path):
    script = tmp_path / "end.py"
    script.write_text(COMMANDS.replace("slackbot.main()", """
@slackbot.command("/end")
def end(request):
    "End the process, by way of this very thread."
    import signal, threading
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    return "ended"

slackbot.main()"""))
    with fakes.Bot(script=script, constants=SOON_OVER) as bot:
        assert bot.command("/end").status == 200
        assert bot.process.wait(PATIENCE) == 0


def test_a_command_that_ends_while_users_are_told_gets_its_answer_or_an_apology_not_both(
        slack, script, gate):
    slack.faults = lambda seen: gate.touch()  # the first user is about to be told
    with fakes.Bot(script=script, SLACK_HOOKS_ORIGINS=slack.origin, SLACKBOT_ACK_SECONDS=0,
                   SLACKBOT_GRACE_SECONDS=0.1, constants=SOON_OVER) as bot:
        urls = [slack.response_url() for _ in range(30)]
        for url in urls:
            assert "Working on" in bot.command(f"/late {gate}", response_url=url).json["text"]
        bot.process.send_signal(signal.SIGTERM)
        assert bot.process.wait(PATIENCE) == 0
        assert [len(texts(slack, url)) for url in urls] == [1] * 30


@pytest.fixture
def served(monkeypatch):
    """A server for `serve` in this very process, its bot, and a client of it; `handlers` has what
    a signal calls."""
    config = slackbot.Config({"PORT": "0", "HOST": "127.0.0.1",
                              "SLACK_SIGNING_SECRET": fakes.SECRET})
    clock = fakes.Clock()
    bot = slackbot.Bot(config, None, clock=clock, sleep=clock.sleep, make_pool=fakes.Pool)
    server = slackbot.WebServer(config, bot)
    client = fakes.Bot()
    client.host, client.port = server.server_address
    handlers = {}
    monkeypatch.setattr(slackbot, "WebServer", lambda *_: server)
    monkeypatch.setattr(slackbot.signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(slackbot.log, "stream", io.StringIO(), raising=False)
    yield types.SimpleNamespace(config=config, bot=bot, client=client, handlers=handlers)
    stopping = threading.Thread(target=server.shutdown, daemon=True)
    stopping.start()
    stopping.join(PATIENCE)
    server.server_close()


def test_when_nothing_can_be_answered_any_more_nothing_is_acknowledged(served, monkeypatch):
    """What a host sends then goes to the next process."""
    def press():
        return api_fakes.send(served.client, "/slack/interactions",
                              api_fakes.payload(api_fakes.action("/hello"))).status

    def pause_before_the_signal(seconds):
        pauses.append(seconds)
        monkeypatch.setattr(slackbot, "time", fakes.time_with(sleep=pause_at_the_end))
        assert press() == 200
        served.handlers[signal.SIGTERM](signal.SIGTERM, None)

    def pause_at_the_end(seconds):
        pauses.append(seconds)
        monkeypatch.setattr(served.client, "request",
                            functools.partial(served.client.request, timeout=0.1))
        with pytest.raises(TimeoutError):
            press()

    pauses = []
    monkeypatch.setattr(slackbot, "time", fakes.time_with(sleep=pause_before_the_signal))
    assert slackbot.serve(served.config, served.bot) == 0
    assert len(pauses) == 2
