"""The time of a release report, from the command to its arrival in Slack, with a slow JIRA."""

import argparse
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import harness

sys.path.insert(0, str(harness.ROOT / "tests"))
import fakes  # noqa: E402, as it stands one directory up

LINE = "/jira release 2.3"
SIZES = (20, 237, 2_000)
FLAVOURS = ("cloud", "server")
QUERIES = 9
COLD_SECONDS, WARM_SECONDS = 3.5, 2.5  # goals for every size, with a JIRA of 1 s a request


class Slack(ThreadingHTTPServer):
    """Takes what is posted to a response_url: the time, and the message."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), PostHandler)
        self.posts, self.arrival = [], threading.Condition()
        self.origin = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def wait(self, count, seconds):
        """Wait until there are *count* posts; the last one, with its time."""
        with self.arrival:
            if not self.arrival.wait_for(lambda: len(self.posts) >= count, seconds):
                raise SystemExit(f"no report within {seconds} s")
            return self.posts[count - 1]


class PostHandler(BaseHTTPRequestHandler):
    """One post."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.arrival:
            self.server.posts.append((time.monotonic(), body))
            self.server.arrival.notify_all()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass


def environment(jira, slack):
    """What the bot needs to be told about its JIRA and its Slack."""
    login = {"JIRA_USERNAME": jira.username, "JIRA_API_TOKEN": jira.token} if jira.cloud else \
        {"JIRA_PERSONAL_TOKEN": jira.token}
    return {"JIRA_URL": jira.origin, "JIRA_PROJECT": "APP", **login,
            "SLACK_HOOKS_ORIGINS": f"{slack.origin},{harness.NOWHERE}"}


def measure(flavour, size, options):
    """Ask for the report in a new process, and again: the seconds that the first took, the slowest
    of the others, and what was wrong."""
    issues = list(fakes.issues(size, summary="Summary of an issue"))
    wanted = f"{sum(each['category'] != 'done' for each in issues):,} of {size:,} issues are open"
    seconds, wrong = [], []
    with fakes.Jira(flavour, issues=issues, page=100, delay=options.delay) as jira, Slack() as \
            slack, harness.Server([str(harness.BOT)], **environment(jira, slack)) as server:
        server.wait()
        for number in range(1 + options.again):
            jira.seen.clear()
            request, sent = harness.command_request(LINE, number, slack.origin), time.monotonic()
            if harness.ask(server.port, request)[0] != 200:
                wrong.append("the command was not accepted")
            arrived, body = slack.wait(number + 1, 30)
            seconds.append(arrived - sent)
            if wanted not in body.decode():
                wrong.append(body.decode()[:200])
            if len(jira.searches) != 2 * QUERIES:
                wrong.append(f"{len(jira.searches)} searches")
        slack.shutdown()
    return seconds[0], max(seconds[1:]), wrong


def main():
    """Read the options, measure each flavour and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=1.0, help="of JIRA, seconds a request")
    parser.add_argument("--again", type=int, default=3, help="how often it is asked again")
    parser.add_argument("--only", action="append", choices=FLAVOURS, help="repeatable")
    options = parser.parse_args()
    passed = []
    for flavour in options.only or FLAVOURS:
        for size in SIZES:
            cold, warm, wrong = measure(flavour, size, options)
            passed.append(harness.report(f"{flavour}, {size:,} issues", {
                f"first report of a new process {cold:.2f} s (limit {COLD_SECONDS} s)":
                    cold <= COLD_SECONDS,
                f"asked again {warm:.2f} s (limit {WARM_SECONDS} s)": warm <= WARM_SECONDS,
                f"{2 * QUERIES} searches and the right count: {len(wrong)} wrong {wrong[:1]}":
                    not wrong}))
    raise SystemExit(not all(passed))


if __name__ == "__main__":
    main()
