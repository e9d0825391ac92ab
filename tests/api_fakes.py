"""Slack's Web API and an incoming webhook as a real server, with Slack's own objections."""

import itertools
import json
import threading
import time
import urllib.parse

import fakes

TOKEN, APP_TOKEN = "xoxb-1-notarealtoken", "xapp-1-notarealtoken"
TEAM, BOT_NAME, BOT_USER, BOT_ID = "Example <Team>", "qa-bot", "U0BOT", "B0BOT"
TEXT_CHARACTERS = 40_000  # Slack cuts off what is longer


def refusal(word, status=200, **headers):
    """The answer with which the Web API says no."""
    return fakes.reply(status, {"ok": False, "error": word}, **headers)


def arguments(seen):
    """The arguments of a call, however they came: in a query, a form or as JSON."""
    kind = seen.headers.get("Content-Type", "").partition(";")[0].lower()
    if kind == "application/json":
        return {**seen.query, **json.loads(seen.body)}
    form = urllib.parse.parse_qsl(seen.body.decode()) if kind.endswith("urlencoded") else ()
    given = {**seen.query, **dict(form)}
    for name in {"blocks", "files"} & set(given):
        given[name] = json.loads(given[name])
    return given


class Call:
    """A call that has arrived, when (monotonic), with what, and what it was answered."""

    def __init__(self, seen, method, given, answer):
        self.method, self.given, self.answer, self.at = method, given, answer, seen.started
        self.body, self.authorization = seen.body, seen.headers.get("Authorization")

    @property
    def ok(self):
        return self.answer[1] == 200 and b'"ok": false' not in self.answer[3]


class Api(fakes.Fake):
    """https://slack.com/api/, the URLs to upload files to, and an incoming webhook.

    *faults* is a function of the method ("upload" and "hook" are two as well) and its arguments,
    and gives the answer of a call that fails, or None."""

    def __init__(self, faults=lambda method, given: None):
        self.faults, self.calls, self.arrival = faults, [], threading.Condition()
        self.numbers, self.files = itertools.count(1), {}

    @property
    def url(self):
        return self.origin + "/api/"

    @property
    def hook(self):
        return self.origin + "/services/T1/B1/5ecret"

    def answer(self, seen):
        _, first, method = seen.path.split("/", 2)
        method = {"upload": "upload", "services": "hook"}.get(first, method)
        try:
            given = {} if method == "upload" else arguments(seen)
            answer = self.faults(method, given) or self._take(seen, method, given)
        except (ValueError, TypeError, AttributeError):
            given, answer = {}, refusal("invalid_json")
        with self.arrival:
            self.calls.append(Call(seen, method, given, answer))
            self.arrival.notify_all()
        return answer

    def _take(self, seen, method, given):
        if method == "hook":
            word = fakes.objection(given)
            return ("status", 400, {"Content-Type": "text/plain"}, word.encode()) if word else \
                ("status", 200, {"Content-Type": "text/plain"}, b"ok")
        if method == "upload":
            file = self.files[seen.path]
            file["data"] = seen.body
            return "status", 200, {"Content-Type": "text/plain"}, b"OK - %d" % len(seen.body)
        call = getattr(self, "_" + method.replace(".", "_"), None)
        if not call:
            return refusal("unknown_method")
        token = APP_TOKEN if method == "apps.connections.open" else TOKEN
        if seen.headers.get("Authorization") != f"Bearer {token}":
            return refusal("invalid_auth" if seen.headers.get("Authorization") else "not_authed")
        word, more = call(given)
        return refusal(word) if word else fakes.reply(200, {"ok": True, **more})

    def _auth_test(self, given):
        return "", {"url": "https://example.slack.com/", "team": TEAM, "team_id": "T0001",
                    "user": BOT_NAME, "user_id": BOT_USER, "bot_id": BOT_ID}

    def _apps_connections_open(self, given):
        return "", {"url": "ws://127.0.0.1:9/link?ticket=1"}

    def _chat_postMessage(self, given):
        if not given.get("channel"):
            return "channel_not_found", {}
        if len(given.get("text") or "") > TEXT_CHARACTERS:
            return "msg_too_long", {}
        return fakes.objection(given), {
            "channel": given["channel"], "ts": f"1700000000.{next(self.numbers):06}"}

    def _files_getUploadURLExternal(self, given):
        if not given.get("filename") or int(given.get("length") or 0) < 1:
            return "invalid_arguments", {}
        name = f"F{next(self.numbers):05}"
        path = f"/upload/v1/{name}"
        self.files[path] = {"id": name, "name": given["filename"], "length": int(given["length"])}
        # Slack's is another host, to which no token may go: localhost is, beside 127.0.0.1.
        return "", {"upload_url": f"http://localhost:{self.server.server_port}{path}?ticket=1",
                    "file_id": name}

    def _files_completeUploadExternal(self, given):
        known = {file["id"]: file for file in self.files.values()}
        for each in given.get("files") or [{}]:
            file = known.get(each.get("id"), {})
            if len(file.get("data", b"")) != file.get("length"):
                return "file_not_found", {}
            file["channel"] = given.get("channel_id") or given.get("channels")
        return "", {"files": given["files"]}

    def of(self, method, **given):
        """The calls of a *method* so far, those with the arguments *given*."""
        with self.arrival:
            return [call for call in self.calls if call.method == method
                    and given.items() <= call.given.items()]

    def wait(self, method, count=1, timeout=10, **given):
        """The calls of a *method* as soon as there are *count* of them that went well."""
        deadline = time.monotonic() + timeout
        while len(found := [call for call in self.of(method, **given) if call.ok]) < count:
            assert time.monotonic() < deadline, \
                f"{len(found)} of {count} calls of {method} came within {timeout} s"
            with self.arrival:
                self.arrival.wait(0.05)
        return found
