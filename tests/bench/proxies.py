"""2,000 commands, 80 at once, through haproxy and nginx, which keep their connections to the bot.

Neither proxy sends anything a second time, so a connection that the bot closes too early is seen
as a 502. The client has a connection for each command: over a kept one, haproxy would close it
instead of answering 502."""

import argparse
import collections
import random
import re
import shutil
import tempfile
import threading
import time

import harness
import load
from fake_slack import FakeSlack

APP = [str(harness.HERE / "proxies_app.py")]
PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
IDLE_SECONDS = 1  # of the bot in the case "idle"
LIMIT = 3  # seconds for the first answer; Slack's limit
HAPROXY = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format "%ST %ts"
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend proxy
    bind 127.0.0.1:{port}
    default_backend bot
backend bot
    http-reuse always
    server bot 127.0.0.1:{bot}
"""
NGINX = """
daemon off;
pid {directory}/pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream bot {{ server 127.0.0.1:{bot}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://bot;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""
PROXIES = {  # name: (configuration, arguments)
    "haproxy": (HAPROXY, ["-db", "-f"]),
    "nginx": (NGINX, ["-e", "stderr", "-c"]),
}
UNCONNECTED = re.compile(r"^503 SC|Connection refused", re.MULTILINE)  # in the log
CASES = {  # name: (share of /hello, environment)
    "defaults": (0, {}),
    "64 connections": (0, {"SLACKBOT_CONNECTIONS": "64"}),
    "40 connections": (0, {"SLACKBOT_CONNECTIONS": "40"}),
    "mixed": (0.5, {}),
    "mixed, 64": (0.5, {"SLACKBOT_CONNECTIONS": "64"}),
    "mixed, 40": (0.5, {"SLACKBOT_CONNECTIONS": "40"}),
    "overdue": (0, {"SLACKBOT_ACK_SECONDS": "0.1"}),
    "overdue, mixed, 40": (0.5, {"SLACKBOT_ACK_SECONDS": "0.1", "SLACKBOT_CONNECTIONS": "40"}),
    "SIGTERM": (0.5, {}),
    "idle": (1, {"IDLE_SECONDS": str(IDLE_SECONDS)}),
}


class Proxy(harness.Server):
    """A proxy before the bot, as a process; a context manager."""

    def __init__(self, name, bot, directory):
        super().__init__([])
        configuration, arguments = PROXIES[name]
        path = f"{directory}/{name}.conf"
        with open(path, "w") as file:
            file.write(configuration.format(port=self.port, bot=bot, directory=directory))
        self.arguments = [shutil.which(name, path=PATH), *arguments, path]

    def said(self):
        """What the proxy has written to its log."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")


class Commands:
    """The commands of one case, and their first answers."""

    def __init__(self, port, hooks, share, count, seed):
        self.port, self.random, self.sent = port, random.Random(seed), 0
        self.requests, self.texts = [], []
        self.first, self.errors, self.latencies = {}, [], []
        for number in range(count):
            if self.random.random() < share:
                line, text = f"/hello {number}", f"Hello attakei, I received `{number}`"
            else:
                line, text = f"/greet {number}", f"Hello {number}!"
            self.requests.append(harness.command_request(line, number, hooks))
            self.texts.append(text)

    def note(self, number, answer):
        """Keep a first answer; return whether it is right, or may be."""
        text = self.first[number] = answer["text"]
        return text == self.texts[number] or text.startswith("Working on") or is_refusal(text)

    def send(self, first, last, at_once, seconds=60):
        """Send the commands from number *first* to before *last*."""
        part = load.Load(self.port, self.requests[first:last],
                         lambda index, answer: self.note(first + index, answer), keep_alive=False)
        part.run(at_once, last - first, seconds)
        self.errors += [(first + index, why) for index, why in part.errors]
        self.latencies += part.latencies
        self.sent += part.sent

    def send_in_bursts(self, at_once):
        """Send the commands in bursts, with pauses about as long as the bot's idle time-out."""
        for first in range(0, len(self.requests), at_once):
            time.sleep(self.random.uniform(IDLE_SECONDS - 0.05, IDLE_SECONDS + 0.55))
            self.send(first, min(first + at_once, len(self.requests)), at_once)

    def quantile(self, share):
        """The latency (ms) that this share of the first answers didn't exceed."""
        ranked = sorted(self.latencies) or [float("nan")]
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    def statuses(self):
        """How many of each status there were, or of another failure."""
        counts = collections.Counter(why[:3] if why[:3].isdecimal() else why[:60]
                                     for _, why in self.errors)
        counts["200"] += len(self.latencies)
        return dict(sorted(counts.items()))

    def ends(self, slack):
        """How often each command got its right last answer, at once or posted."""
        ends = collections.Counter(number for number, text in self.first.items()
                                   if text == self.texts[number])
        ends.update(int(name) for _, name, text in slack.report()["deliveries"]
                    if text == self.texts[int(name)])
        return ends

    def accepted(self):
        """The numbers of the commands that the bot took: each must end once."""
        return {number for number, text in self.first.items() if not is_refusal(text)}

    def await_last(self, slack, seconds=10):
        """Wait for the last answers, *seconds* at most: how often each command ended."""
        end = time.monotonic() + seconds
        while self.accepted() - set(self.ends(slack)) and time.monotonic() < end:
            time.sleep(0.1)
        return self.ends(slack)


def is_refusal(text):
    """Whether a first answer says that the command wasn't taken."""
    return "try again in a minute" in text


def count_connections(port, hooks):
    """How many connections the bot has had."""
    request = harness.command_request("/connections", 0, hooks)
    return int(harness.ask(port, request)[1]["text"])


class Bots:
    """The bot, and after a SIGTERM the next one on the same port."""

    def __init__(self, log, environ):
        self.port, self.codes = harness.free_port(), []
        self.make = lambda: harness.Server(APP, self.port, log, **environ)

    def __enter__(self):
        self.server = self.make().__enter__()
        self.server.wait()
        return self

    def __exit__(self, *exception):
        self.server.__exit__()

    def restart(self):
        """End the bot by SIGTERM and start it again when it has exited."""
        self.server.process.terminate()
        self.codes.append(self.server.wait_for_exit(30))
        self.__exit__()
        self.__enter__()


def send(name, commands, bots, at_once):
    """Send the commands of a case."""
    count = len(commands.requests)
    if name == "idle":
        commands.send_in_bursts(at_once)
    elif name == "SIGTERM":
        restart = threading.Timer(3, bots.restart)
        restart.start()
        commands.send(0, count, at_once, seconds=8)
        restart.join()
    else:
        commands.send(0, count, at_once)


def run_case(proxy_name, name, options):
    """Run one case; return its figures."""
    share, environ = CASES[name]
    count = options.commands * (10 if name == "SIGTERM" else 1)  # as refusals take no time
    with tempfile.TemporaryDirectory() as directory, FakeSlack() as slack, \
            Bots(options.log, {"SLACK_HOOKS_ORIGINS": slack.origins, **environ}) as bots, \
            Proxy(proxy_name, bots.port, directory) as proxy:
        proxy.wait(harness.command_request("/hello Example", count))
        before = count_connections(bots.port, slack.hooks)
        commands = Commands(proxy.port, slack.hooks, share, count, options.seed)
        send(name, commands, bots, options.at_once)
        ends = commands.await_last(slack)
        connections = count_connections(bots.port, slack.hooks) - before - 1
        said = proxy.said()
    if options.log:
        with open(options.log, "a") as file:
            file.write(said)
    # A few commands are on their way when the process exits, or when its idle time-out ends.
    allowed = {"SIGTERM": options.at_once, "idle": options.commands // 100}.get(name, 0)
    return {"case": f"{proxy_name}, {name}", "commands": commands, "ends": ends,
            "connections": connections, "unconnected": len(UNCONNECTED.findall(said)),
            "allowed": allowed, "codes": bots.codes}


def report(figures):
    """Print the figures and goals of one case; return whether it passed."""
    commands, ends, codes = figures["commands"], figures["ends"], figures["codes"]
    accepted, texts = commands.accepted(), list(commands.first.values())
    working = sum(text.startswith("Working on") for text in texts)
    lost, twice = len(accepted - set(ends)), sum(ends.values()) - len(ends)
    failed = len(commands.errors) - figures["unconnected"]
    checks = {
        f"statuses {commands.statuses()}: {figures['unconnected']} while nobody listened, "
        f"{failed} others failed (limit {figures['allowed']})": failed <= figures["allowed"],
        f"{commands.sent:,} sent, {sum(map(is_refusal, texts)):,} told to try again, "
        f"{len(accepted):,} accepted ({working:,} \"Working on\"): lost {lost}, twice {twice}":
            not lost and not twice,
        f"first answer p50 {commands.quantile(0.5):.0f} ms, p99 {commands.quantile(0.99):.0f} ms, "
        f"slowest {commands.quantile(1):.0f} ms (limit {LIMIT} s)":
            commands.quantile(1) <= 1000 * LIMIT,
    }
    if codes:
        checks[f"exit codes {codes} after SIGTERM"] = codes == [0]
        return harness.report(figures["case"], checks)
    return harness.report(f"{figures['case']}: {figures['connections']:,} connections", checks)


def main():
    """Read the options, run every case with each proxy that is installed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--proxy", action="append", choices=PROXIES, help="repeatable")
    parser.add_argument("--only", action="append", choices=CASES, help="repeatable")
    parser.add_argument("--log", help="file that the bot's and the proxy's output is appended to")
    options = parser.parse_args()
    passed = []
    for proxy in options.proxy or PROXIES:
        if shutil.which(proxy, path=PATH):
            passed += [report(run_case(proxy, name, options)) for name in options.only or CASES]
        else:
            print(f"skipped: {proxy} isn't installed (apt-get install {proxy})")
    raise SystemExit(not all(passed))


if __name__ == "__main__":
    main()
