"""Replies: five posts in thirty minutes, whatever Slack does; and the HTTP that carries them."""

import concurrent.futures
import contextlib
import http.server
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

import api_fakes
import fakes
import network_fakes
import slackbot

URL = "https://hooks.slack.com/commands/T1/2/5ecret"
HALF_HOUR = 1800


class Clock:
    """A time that passes in sleep alone, from a start that is nobody's zero."""

    def __init__(self):
        self.now, self.sleeps = 1000.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


class Reply(slackbot.ResponseURL):
    """A ResponseURL for which Slack does what *outcomes* say, one after the other, and then takes
    what it gets: a status, a status with Retry-After, or an exception."""

    def __init__(self, *outcomes, url=URL, seconds=0):
        self.outcomes, self.time, self.tries, self.posts = iter(outcomes), Clock(), [], []
        self.started, self.seconds = self.time.now, seconds  # that a post takes
        super().__init__(url, self.take, self.time, self.time.sleep)

    def take(self, url, data, headers, *limits):
        self.tries.append(self.time.now - self.started)
        self.time.now += self.seconds
        outcome = next(self.outcomes, 200)
        if isinstance(outcome, Exception):
            raise outcome
        status, *after = outcome if isinstance(outcome, tuple) else [outcome]
        if 200 <= status < 300:
            self.posts.append((url, json.loads(data), dict(headers)))
        return status, {"Retry-After": text for text in after}, b"said by Slack"

    @property
    def texts(self):
        return [message["text"] for _, message, _ in self.posts]


def send(reply, count, start=0):
    for number in range(start, start + count):
        reply.send({"text": f"{number}"})


# ---- five posts

@pytest.mark.parametrize("count", range(6))
def test_up_to_five_answers_arrive_in_their_order(count):
    reply = Reply()
    send(reply, count)
    assert reply.texts == [f"{number}" for number in range(min(count, 4))], "these needn't wait"
    reply.finish()
    assert reply.texts == [f"{number}" for number in range(count)] and reply.time.sleeps == []


@pytest.mark.parametrize("count", [6, 7, 100])
def test_of_more_than_five_the_ones_in_the_middle_are_dropped_and_never_the_last(count):
    reply = Reply()
    send(reply, count)
    reply.finish()
    assert reply.texts == ["0", "1", "2", "3", f"{count - 1}"]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 20])
def test_an_apology_is_delivered_after_any_number_of_answers(count):
    reply = Reply()
    send(reply, count)
    reply.send({"text": "Sorry"})
    reply.finish()
    assert reply.texts[-1] == "Sorry" and len(reply.posts) == min(count + 1, 5)


def test_tries_that_fail_take_none_of_the_five_places():
    reply = Reply(*[503, 200, slackbot.FetchError("slow"), 200, (429, "1"), 200] * 2)
    send(reply, 9)
    reply.finish()
    assert reply.texts == ["0", "1", "2", "3", "8"] and len(reply.tries) == 10


def test_a_post_is_json_for_the_response_url():
    reply = Reply()
    reply.send({"text": "Größe", "response_type": "in_channel"})
    (url, message, headers), = reply.posts
    assert (url, message) == (URL, {"text": "Größe", "response_type": "in_channel"})
    assert headers["Content-Type"].startswith("application/json")


def test_a_handler_that_ends_while_it_is_waited_for_has_the_last_word():
    reply = Reply()
    send(reply, 5)
    reply.sleep = lambda seconds: reply.finish()
    assert not reply.end({"text": "Sorry"})
    assert reply.texts == ["0", "1", "2", "3", "4"]


def test_a_handler_that_goes_on_while_it_is_waited_for_makes_no_sixth_post():
    reply = Reply()
    send(reply, 4)
    reply.sleep = lambda seconds: (reply.time.sleep(seconds), send(reply, 1, 4))
    assert reply.end({"text": "Sorry"}) and not reply.finish()
    assert reply.texts == ["0", "1", "2", "3", "Sorry"]


@pytest.mark.parametrize("round_", range(12))  # as who comes first to a lock is chance
def test_a_fifth_answer_that_is_on_its_way_while_its_handler_is_waited_for_is_the_last(round_):
    def sleep(seconds):
        if under_way.is_set():
            handler.join()
        else:
            handler.start()
            under_way.wait()
        reply.time.now += 1  # longer than a handler takes to end

    def take(url, body, headers):
        if reply.used == 4:
            under_way.set()
            time.sleep(0.02)
        return reply.take(url, body, headers)

    under_way, reply = threading.Event(), Reply()
    reply.post, reply.sleep = take, sleep
    send(reply, 4)
    handler = threading.Thread(target=lambda: (send(reply, 1, 4), reply.finish()))
    assert not reply.end({"text": "Sorry"})
    assert reply.texts == ["0", "1", "2", "3", "4"]


def test_without_a_response_url_nothing_is_posted():
    reply = Reply(url="")
    send(reply, 9)
    reply.finish()
    assert (reply.tries, reply.time.sleeps) == ([], [])


# ---- trying again

@pytest.mark.parametrize("text, low, high", [
    ("1", 1, 1), ("7", 7, 7), ("60", 60, 60), ("61", 60, 60), ("86400", 60, 60),
    ("999999999", 60, 60), ("0", 0, 1), ("", 0, 1), ("soon", 0, 1), ("-5", 0, 1), ("²", 0, 1),
    ("9" * 5000, 0, 60), ("Wed, 21 Oct 2026 07:28:00 GMT", 0, 1)], ids=lambda text: str(text)[:9])
def test_a_429_waits_as_it_says_and_at_most_60_seconds(text, low, high):
    reply = Reply((429, text), (429, text))
    send(reply, 1)
    assert reply.texts == ["0"] and len(reply.time.sleeps) == 2
    assert low <= reply.time.sleeps[0] <= high


FAILURES = [500, 502, 503, 504, 429, slackbot.FetchError("refused")]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_pauses_grow_with_a_jitter_up_to_60_seconds(failure):
    firsts = set()
    for _ in range(5):
        reply = Reply(*[failure] * 12)
        send(reply, 1)
        pauses = reply.time.sleeps
        assert reply.texts == ["0"] and len(pauses) == 12
        assert all(0 < each <= 60 for each in pauses)
        assert pauses[0] <= 2 and pauses[0] < pauses[3] < pauses[6] >= 30
        firsts.add(tuple(pauses[:3]))
    assert len(firsts) == 5, "no two wait alike"


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 408, 410, 413])
def test_any_other_answer_is_final_and_logged(status, caplog):
    reply = Reply(status)
    send(reply, 1)
    assert len(reply.tries) == 1 and reply.time.sleeps == []
    assert f"{status}" in caplog.text and "said by Slack" in caplog.text
    assert "5ecret" not in caplog.text
    send(reply, 1, 1)
    reply.finish()
    assert reply.texts == ["1"], "the next one has its own chance"


@pytest.mark.parametrize("word", ["internal_error", "ratelimited", "request_timeout",
                                  "service_unavailable"])
def test_a_reply_in_a_thread_is_tried_again_if_slack_has_trouble_of_its_own(word):
    trouble = [api_fakes.refusal(word)]
    with api_fakes.Api(lambda method, given: trouble.pop() if trouble else None) as api:
        config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET, "SLACK_API_URL": api.url,
                                  "SLACK_BOT_TOKEN": api_fakes.TOKEN})
        reply = slackbot.thread_reply(slackbot.SlackAPI(config), "thread:C1/1700000000.1")
        reply.sleep = Clock().sleep
        send(reply, 2)
        assert [(call.given["text"], call.ok) for call in api.of("chat.postMessage")] == [
            ("0", False), ("0", True), ("1", True)]


def test_an_answer_arrives_after_slack_was_away_for_20_minutes():
    reply = Reply(seconds=10)
    reply.outcomes = (503 if reply.time.now < 2200 else 200 for _ in itertools.count())
    send(reply, 2)
    assert reply.texts == ["0", "1"] and 1190 <= reply.tries[-2] < 1270


@pytest.mark.parametrize("failure", [*FAILURES, (429, "60"), (429, "3600")], ids=str)
def test_nothing_is_tried_after_30_minutes(failure):
    reply = Reply(*[failure] * 10_000)
    send(reply, 3)
    reply.finish()
    assert reply.texts == [] and len(reply.tries) < 1000
    assert HALF_HOUR - 61 <= max(reply.tries) <= HALF_HOUR


@pytest.mark.parametrize("second, texts", [(1799, ["0", "1"]), (1801, ["0"]), (7200, ["0"])])
def test_an_answer_that_comes_after_30_minutes_is_not_posted(second, texts):
    reply = Reply()
    send(reply, 1)
    reply.time.now = reply.started + second
    send(reply, 1, 1)
    reply.finish()
    assert reply.texts == texts and len(reply.tries) == len(texts)


def test_what_was_held_back_for_more_than_30_minutes_is_not_posted():
    reply = Reply()
    send(reply, 6)
    reply.time.now += HALF_HOUR + 1
    reply.finish()
    assert reply.texts == ["0", "1", "2", "3"] and len(reply.tries) == 4


@pytest.mark.parametrize("fault", ["reset", "redirect", "huge", ("status", 503), ("status", 404)],
                         ids=str)
def test_a_real_slack_that_fails_is_tried_again_and_its_url_kept_secret(fault, caplog):
    with fakes.Slack([fault, None]) as slack:
        url = slack.response_url()
        reply = slackbot.ResponseURL(url, sleep=Clock().sleep)
        send(reply, 1)
        reply.finish()
        is_final = fault in ("redirect", ("status", 404))
        assert slack.attempts == (1 if is_final else 2)
        assert len(slack.posts[url]) == (0 if is_final else 1)
    assert "post_failed" in caplog.text and url.rpartition("/")[2] not in caplog.text


# ---- fetch

class Web(fakes.Fake):
    """A server that answers everything in one way."""

    def __init__(self, answer):
        self.answer = lambda seen: answer


@contextlib.contextmanager
def raw(talk):
    """The URL of a server that lets *talk* have the first connection."""
    def serve():
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                talk(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/5ecret"


def fails(url, within=2.5, **options):
    """Fetching *url* is a FetchError within so many seconds: its text."""
    started = time.monotonic()
    with pytest.raises(slackbot.FetchError) as caught:
        slackbot.fetch(url, **options)
    assert time.monotonic() - started < within
    assert "5ecret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 407, 429, 500, 503])
def test_every_status_is_an_answer(status):
    body = b"" if status == 204 else b"body"
    with Web(("status", status, {"X-Some": "thing"}, body)) as web:
        got, headers, said = slackbot.fetch(web.origin + "/a?b=c")
    assert (got, headers["x-some"], said) == (status, "thing", body)
    seen, = web.seen
    assert (seen.method, seen.path, seen.query, seen.body) == ("GET", "/a", {"b": "c"}, b"")


def test_data_and_headers_are_posted():
    with Web(fakes.reply(200, {})) as web:
        slackbot.fetch(web.origin, b"\0data", {"Content-Type": "x/y", "Authorization": "Bearer t"})
    seen, = web.seen
    assert (seen.method, seen.body, seen.headers["content-type"]) == ("POST", b"\0data", "x/y")
    assert seen.headers["authorization"] == "Bearer t"


@pytest.mark.parametrize("data", [None, b"data"])
def test_no_redirect_is_followed(data):
    with Web("redirect") as web:
        status, headers, _ = slackbot.fetch(web.origin, data, {"Authorization": "Bearer t"})
    assert status == 302 and headers["Location"].endswith("/elsewhere") and len(web.seen) == 1


@pytest.mark.parametrize("size, limit", [(0, 0), (1, 1), (1000, 1000), (1000, 65536)])
def test_a_body_may_be_as_long_as_the_limit(size, limit):
    with Web(("status", 200, {}, b"x" * size)) as web:
        assert slackbot.fetch(web.origin, limit=limit)[2] == b"x" * size


@pytest.mark.parametrize("answer, limit", [
    (("status", 200, {}, b"x" * 1001), 1000), (("status", 500, {}, b"x"), 0),
    ("huge", 1000), ("huge", 10_000_000)], ids=str)
def test_a_longer_body_is_an_error(answer, limit):
    with Web(answer) as web:
        assert str(limit) in fails(web.origin, limit=limit)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"


def drip_bytes(sock):
    """A body, byte by byte."""
    sock.sendall(HEAD)
    for _ in range(80):
        time.sleep(0.05)
        sock.sendall(b"x")


def slow_chunks(sock):
    """A chunked body without an end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(80):
        time.sleep(0.05)
        sock.sendall(b"1\r\nx\r\n")


@pytest.mark.parametrize("talk", [lambda sock: time.sleep(4), drip_bytes, slow_chunks],
                         ids=["silence", "body", "chunks"])
def test_an_answer_has_one_deadline_for_all_its_bytes(talk):
    with raw(talk) as url:
        fails(url, seconds=0.2, limit=10_000_000)


FLOOD = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
listener.settimeout(3)
sock, until = listener.accept()[0], time.monotonic() + 4
while time.monotonic() < until:
    sock.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n" * 1000)
"""


def test_a_flood_of_interim_answers_does_not_put_the_deadline_off():
    with subprocess.Popen([sys.executable, "-ISc", FLOOD], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as server:
        port = int(server.stdout.readline())
        fails(f"http://127.0.0.1:{port}/5ecret", seconds=0.2)


@pytest.mark.parametrize("fault", ["silence", "drip"])
def test_a_server_that_never_gets_to_the_body_is_cut_off(fault):
    with Web(fault) as web:
        fails(web.origin, seconds=0.2)


def test_sending_and_receiving_have_one_deadline_together():
    def talk(sock):
        time.sleep(0.25)  # all that the kernel doesn't buffer waits for us
        size = 0
        while size < 16_000_000:
            size += len(sock.recv(1_000_000))
        time.sleep(0.25)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw(talk) as url:
        fails(url, data=b"x" * 16_000_000, seconds=0.35)


@pytest.mark.parametrize("said", [
    b"", b"hello\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000,
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"], ids=lambda said: said[-20:])
def test_half_an_answer_is_none(said):
    def talk(sock):
        sock.recv(1000)
        sock.sendall(said)

    with raw(talk) as url:
        fails(url)


def test_a_connection_that_is_refused_or_reset_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in fails(f"http://127.0.0.1:{port}/5ecret").lower()
    with Web("reset") as web:
        fails(web.origin + "/5ecret")


@pytest.mark.parametrize("url", [
    f"file://{os.path.abspath(__file__)}", "file:///etc/passwd", "data:,x", "ftp://127.0.0.1/x",
    "gopher://127.0.0.1/", "", "x", "//127.0.0.1/", "http://", "http:///x", "http://[/",
    "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://127.0.0.1:1/a b",
    "http://127.0.0.1:1/\r\nX: y", "http://no-such-host.invalid/", "http://a..b/"])
def test_what_is_no_web_address_is_refused(url):
    fails(url)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_is_taken_from_the_environment(name):
    code = "import slackbot, sys; print(slackbot.fetch(sys.argv[1], b'x')[0])"
    with Web(fakes.reply(200, {})) as web:
        done = subprocess.run([sys.executable, "-c", code, web.origin], capture_output=True,
                              env={"PYTHONPATH": str(fakes.ROOT), name: "http://127.0.0.1:1"})
    assert (done.stdout, len(web.seen)) == (b"200\n", 1), done.stderr


# ---- TLS ----

FETCH = """
import sys, slackbot
for url in sys.argv[1:]:
    try:
        print(slackbot.fetch(url, b"{}")[0])
    except slackbot.FetchError as error:
        print(error)
"""


class Fine(http.server.BaseHTTPRequestHandler):
    """Says 200 to everybody."""

    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_a_post_over_tls_goes_to_who_has_a_good_certificate_alone(tmp_path):
    if not network_fakes.tool("openssl"):
        pytest.skip("no openssl to make certificates with")
    authority = network_fakes.Authority(tmp_path)
    root = authority.make("root", extensions=network_fakes.AUTHORITY, names=(), own_key=True)
    chains = [authority.make("good", issuer=root)], [authority.make("alone")], \
        [authority.make("other", issuer=root, names=("DNS:other.example",))]
    with contextlib.ExitStack() as stack:
        urls = []
        for chain in chains:
            server = stack.enter_context(http.server.HTTPServer(("127.0.0.1", 0), Fine))
            server.socket = network_fakes.context(chain).wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            urls.append(f"https://localhost:{server.server_port}/")
        good, alone, other = urls
        done = subprocess.run([sys.executable, "-c", FETCH, good, alone, good, other],
                              capture_output=True, text=True, timeout=20, cwd=fakes.ROOT,
                              env={**os.environ, "SSL_CERT_FILE": str(root.path)})
    first, self_signed, again, wrong_name = done.stdout.splitlines()
    assert first == again == "200", done
    assert "self" in self_signed and "CERTIFICATE_VERIFY_FAILED" in self_signed
    assert "CERTIFICATE_VERIFY_FAILED" in wrong_name and "localhost" in wrong_name


def test_posts_side_by_side_load_the_roots_of_tls_once(monkeypatch):
    made, make = [], ssl.create_default_context

    def slowly():
        made.append(time.sleep(0.02))
        return make()
    monkeypatch.setattr(ssl, "create_default_context", slowly)
    slackbot.opener.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        tried = [pool.submit(slackbot.fetch, "http://127.0.0.1:1/") for _ in range(20)]
    assert all(isinstance(each.exception(), slackbot.FetchError) for each in tried)
    assert len(made) == 1
