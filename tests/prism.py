"""Atlassian's own OpenAPI document as the judge between the bot's requests and the fake's answers.

    python tests/prism.py jira-cloud-openapi.json

Prism stands between `python slackbot.py run /jira ...` and the fake JIRA Cloud; it answers 422 to
a request and 500 to a reply that the document doesn't allow. By hand or in CI; it needs npx."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import fakes

PRISM = ["npx", "--yes", "@stoplight/prism-cli@5.16.0", "proxy", "--errors"]
LINES = ("/jira release 2.3", "/jira releases", '/jira search project = "APP"', "/jira APP-1")


def document(path, folder):
    """The document's part that a bot may use, also under /rest/api/2/, as a file in *folder*."""
    with open(path) as file:
        whole = json.load(file)
    used = {path: item for path, item in whole["paths"].items() if re.match(
        "/rest/api/3/(search|serverInfo|myself|issue/{[^/]*}$|project/{[^/]*}/versions?$)", path)}
    older = {path.replace("/api/3/", "/api/2/"): item for path, item in used.items()}
    with open(folder + "/jira.json", "w") as file:
        json.dump({**whole, "paths": {**used, **older}}, file)
    return file.name


@contextlib.contextmanager
def prism(path, upstream, log):
    """Prism in front of *upstream*: its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*PRISM, "--host", "127.0.0.1", "--port", str(port), path, upstream], stdout=log,
        stderr=subprocess.STDOUT, env={**os.environ, "SCARF_ANALYTICS": "false"},
        start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while "Prism is listening" not in read(log):
            assert process.poll() is None and time.monotonic() < deadline, read(log)
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(10)


def read(log):
    with open(log.name) as file:
        return file.read()


def run(line, url, jira):
    """What the bot prints in answer to *line*."""
    command = [sys.executable, fakes.ROOT / "slackbot.py", "run", line]
    environ = {"PATH": os.environ["PATH"], "JIRA_URL": url, "JIRA_USERNAME": jira.username,
               "JIRA_API_TOKEN": jira.token, "JIRA_PROJECT": "APP"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    print(f"$ {line}\n{done.stdout}{done.stderr}")
    return done.returncode


def main(path):
    with tempfile.TemporaryDirectory() as folder, open(folder + "/log", "w") as log, \
            fakes.Jira(issues=fakes.issues(120), id_page=50) as jira, \
            prism(document(path, folder), jira.origin, log) as url:
        failed = [line for line in LINES if run(line, url, jira)]
        objections = [line for line in read(log).splitlines() if "Request terminated" in line]
    print(*objections, f"{len(jira.seen)} requests, failed: {failed}", sep="\n")
    return bool(objections or failed or len(jira.searches) < len(LINES))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
