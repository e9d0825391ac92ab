"""Replies: five posts in thirty minutes, whatever Slack does; and the HTTP that carries them."""

import concurrent.futures
import contextlib
import functools
import http.server
import itertools
import json
import os
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
import types

import pytest

import api_fakes
import fakes
import network_fakes
import slackbot
from fakes import PATIENCE

# Blocks that not every workspace takes, and commands whose answers have them.
TABLE = {"type": "data_table", "caption": "numbers", "rows": [
    [{"type": "raw_text", "text": "Key"}], [{"type": "raw_number", "value": 1, "text": "1"}]]}
CHART = {"type": "data_visualization", "title": "numbers", "chart": {
    "type": "pie", "segments": [{"label": "one", "value": 1}]}}
OWN = f"import slackbot\nTABLE = {TABLE}\nCHART = {CHART}\n" + """
def answer(text, *blocks):
    section = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
    return {"text": text, "blocks": [*blocks[:1], section, *blocks[1:]]}

@slackbot.command("/table")
def table(request):
    return answer("a table", TABLE)

@slackbot.command("/inline", inline=True)
def inline(request):
    return answer("at once", CHART)

@slackbot.command("/both")
def both(request):
    yield answer("both", TABLE, CHART)

@slackbot.command("/later")
def later(request):
    yield "first"
    yield answer("second", TABLE)
    yield answer("third", CHART)
    yield "fourth"

slackbot.main()
"""
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


def body(text, **fields):
    """An answer as `Replies` takes it."""
    return json.dumps({"text": text, **fields}).encode()


def table(text):
    """An answer with a table."""
    return body(text, blocks=[TABLE])


class Chat:
    """The `replies` to one command, with a clock, a Slack and a journal that the test controls.

    Slack does what *outcomes* say with one post after the other: a status, a status with
    Retry-After, or an exception; then it takes all. *first* is what becomes of the first answer:
    None if the request was acknowledged before, "sent", or an exception. `got` is what the user
    gets, in order; `log` the same, with what is written into the journal."""

    def __init__(self, *outcomes, first=None, journal=False, seconds=0, age=0, **options):
        self.outcomes, self.first, self.seconds = iter(outcomes), first, seconds
        self.time, self.tries, self.log = Clock(), [], []
        self.happened = queue.SimpleQueue()  # what the threads of the test have come to
        self.gates = {}  # `Gate` by "first", "post" or "sleep": where a thread stops
        self.started = self.time.now
        self.replies = slackbot.Replies(
            self.post, self.send_first if first else None, note=self if journal else None,
            seconds=HALF_HOUR - age, clock=self.time, sleep=self.sleep, **options)

    @property
    def got(self):
        return [each for each in self.log if each not in ("written", "struck out")]

    def stop(self, where):
        """Stop this thread if the test has a gate there."""
        gate = self.gates.pop(where, None)
        if gate:
            self.happened.put(f"stops at {where}")
            assert gate.wait(PATIENCE), f"nobody opened the gate at {where}"

    def arrive(self, text):
        self.log.append(text)
        self.happened.put(text)

    def send_first(self, data, seconds):
        self.first_seconds = seconds
        self.stop("first")
        if isinstance(self.first, Exception):
            raise self.first
        text = json.loads(data)["text"] if data else "nothing"
        self.arrive(f"first: {text}")

    def post(self, data):
        self.stop("post")
        self.tries.append(self.time.now - self.started)
        self.time.now += self.seconds
        outcome = next(self.outcomes, 200)
        if isinstance(outcome, Exception):
            raise outcome
        status, *after = outcome if isinstance(outcome, tuple) else [outcome]
        if 200 <= status < 300:
            self.arrive(json.loads(data)["text"])
        return status, {"Retry-After": text for text in after}, b"said by Slack"

    def sleep(self, seconds):
        self.stop("sleep")
        self.time.sleep(seconds)

    # What a JournalEntry does.

    def write(self):
        self.log.append("written")
        written = concurrent.futures.Future()
        written.set_result(None)
        return written

    def strike(self):
        self.log.append("struck out")

    # What the bot does.

    def send(self, *texts):
        for text in texts:
            self.replies.send(text if text is None else body(text))

    def finish(self, text=None):
        self.replies.finish(text if text is None else body(text))

    def acknowledge(self):
        self.replies.begin_instead(body("Working on it"))

    def finish_instead(self):
        self.is_told = self.replies.finish_instead(body("Sorry"))


def numbers(count, start=0):
    """So many answers."""
    return [f"{number}" for number in range(start, start + count)]


# ---- five posts

@pytest.mark.parametrize("count", range(6))
def test_up_to_five_answers_are_posted_in_their_order(count):
    chat = Chat()
    chat.send(*numbers(count))
    assert chat.got == numbers(min(count, 4)), "these needn't wait"
    chat.finish()
    assert chat.got == numbers(count) and chat.time.sleeps == []


@pytest.mark.parametrize("count", [6, 7, 100])
def test_of_more_than_five_answers_the_middle_ones_are_dropped_and_never_the_last(count):
    chat = Chat()
    chat.send(*numbers(count))
    chat.finish()
    assert chat.got == ["0", "1", "2", "3", f"{count - 1}"]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 20])
def test_a_last_answer_is_posted_after_any_number_of_others(count):
    chat = Chat()
    chat.send(*numbers(count))
    chat.finish("Sorry")
    assert chat.got == [*numbers(min(count, 4)), "Sorry"]


@pytest.mark.parametrize("count", [1, 5, 6, 7, 100])
def test_the_first_answer_to_a_slash_command_takes_none_of_the_five_places(count):
    chat = Chat(first="sent")
    chat.send(*numbers(count))
    chat.finish()
    last = [f"{count - 1}"] if count > 5 else []
    assert chat.got == ["first: 0", *numbers(min(count - 1, 4), 1), *last]


@pytest.mark.parametrize("tables", [[0], [0, 1], [0, 8], [0, *range(2, 9)], range(9)], ids=str)
def test_a_table_is_one_of_the_five_though_it_is_the_first_answer(tables):
    chat = Chat(first="sent")
    *answers, last = [(table if number in tables else body)(f"{number}") for number in range(9)]
    for answer in answers:
        chat.replies.send(answer)
    chat.replies.finish(last)
    assert chat.got == ["first: nothing", "0", "1", "2", "3", "8"]


def test_replies_in_a_thread_have_no_limit():
    chat = Chat(limit=float("inf"))
    chat.send(*numbers(30))
    assert chat.got == numbers(30)
    chat.finish("last")
    assert chat.got[30:] == ["last"]


def test_posts_that_fail_take_none_of_the_five_places():
    chat = Chat(*[503, 200, slackbot.FetchError("slow"), 200, (429, "1"), 200] * 2)
    chat.send(*numbers(9))
    chat.finish()
    assert chat.got == ["0", "1", "2", "3", "8"] and len(chat.tries) == 10


def test_a_post_is_json_for_the_response_url(monkeypatch):
    seen = []
    monkeypatch.setattr(slackbot, "fetch", lambda *request: seen.append(request) or (200, {}, b""))
    given = body("Größe", response_type="in_channel")
    slackbot.Replies(slackbot.response_url_post("https://hooks.example/1")).finish(given)
    (url, posted, headers), = seen
    assert (url, posted) == ("https://hooks.example/1", given)
    assert headers["Content-Type"].startswith("application/json")


def test_without_a_response_url_a_first_answer_is_all_that_is_sent(caplog):
    chat = Chat(first="sent")
    chat.replies.post = None
    chat.send(*numbers(9))
    chat.finish()
    assert chat.got == ["first: 0"] and chat.time.sleeps == []
    assert "undelivered" in caplog.text


@pytest.mark.parametrize("step", ["send", "finish"])
def test_without_a_response_url_a_table_is_left_out_of_the_first_answer(step):
    chat, sent = Chat(first="sent", journal=True), []
    chat.replies.post = None
    chat.replies.send_first = lambda data, seconds: sent.append(data)
    getattr(chat.replies, step)(table("1"))
    assert sent == [body("1", blocks=[])]
    assert chat.log == ["written"] * (step == "send"), "there may be more answers to come"


# ---- the first answer and the acknowledgement; threads that the test stops and lets go on

class Thread(threading.Thread):
    """A thread that tells the test when it ends; `finish` waits for that."""

    def __init__(self, chat, name, *steps):
        super().__init__(name=name, daemon=True)
        self.chat, self.steps, self.error = chat, steps, None
        self.start()

    def run(self):
        try:
            for step in self.steps:
                step()
        except BaseException as error:
            self.error = error
        self.chat.happened.put(f"{self.name} ends")

    def finish(self):
        self.join(PATIENCE)
        assert not self.is_alive(), f"the thread {self.name!r} hangs"
        if self.error:
            raise self.error


class Race(Chat):
    """A chat with threads, which tell the test in `happened` where they are.

    "waits" comes from one that waits for another thread: its Replies have the locks and events
    of this class. A wait with a time-out takes no time: the clock of the test moves on, and
    `while_waiting` is called in the middle of it."""

    def __init__(self, monkeypatch, *outcomes, **options):
        self.while_waiting = lambda: None
        watched = types.SimpleNamespace(**vars(threading))
        watched.Event, watched.Lock = self.event, self.lock
        monkeypatch.setattr(slackbot, "threading", watched)
        super().__init__(*outcomes, **options)

    def event(self):
        race = self

        class Event(threading.Event):
            def wait(self, timeout=None):
                if not self.is_set():
                    race.happened.put("waits")
                    if timeout is None:
                        return super().wait(PATIENCE)
                    race.time.now += timeout / 2
                    race.while_waiting()
                    race.time.now += 0 if self.is_set() else timeout / 2
                return self.is_set()
        return Event()

    def lock(self):
        race, lock = self, threading.Lock()

        class Lock:
            def __enter__(self):
                if not lock.acquire(blocking=False):
                    race.happened.put("waits")
                    assert lock.acquire(timeout=PATIENCE)

            def __exit__(self, *exception):
                lock.release()
        return Lock()

    def gate(self, where):
        """The next thread that comes to "first", "post" or "sleep" stops, until this is set."""
        self.gates[where] = threading.Event()
        return self.gates[where]

    def next(self):
        """What happens next."""
        return self.happened.get(timeout=PATIENCE)


@pytest.fixture
def race(monkeypatch):
    """Makes a `Race`."""
    return functools.partial(Race, monkeypatch)


def test_the_first_value_is_the_first_answer_and_the_others_are_posted():
    chat = Chat(first="sent")
    chat.send("1", "2")
    chat.finish("3")
    assert chat.got == ["first: 1", "2", "3"]


def test_an_only_answer_is_the_first_answer():
    chat = Chat(first="sent")
    chat.finish("only")
    assert chat.got == ["first: only"]


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("step, may_block", [
    ("acknowledge", False), ("send 1", True), ("finish 1", True), ("finish_instead", True)])
def test_an_acknowledgement_blocks_for_no_time_but_a_handlers_answer_may(step, may_block, journal):
    chat = Chat(first="sent", journal=journal)
    name, *text = step.split()
    getattr(chat, name)(*text)
    assert (chat.first_seconds > 0) == may_block


def test_an_acknowledgement_that_comes_while_the_first_answer_is_sent_is_dropped(race):
    chat = race(first="sent")
    gate = chat.gate("first")
    handler = Thread(chat, "handler", lambda: chat.send("1", "2"), chat.finish)
    assert chat.next() == "stops at first"
    chat.acknowledge()  # on this thread, as the loop does: it doesn't wait
    assert chat.got == []
    gate.set()
    handler.finish()
    assert chat.got == ["first: 1", "2"]


def test_an_acknowledgement_that_comes_after_the_last_answer_is_dropped():
    chat = Chat(first="sent")
    chat.finish("only")
    chat.acknowledge()
    assert chat.got == ["first: only"]


@pytest.mark.parametrize("step", ["send", "finish"])
def test_a_value_that_comes_while_the_acknowledgement_is_sent_is_posted_after_it(race, step):
    chat = race(first="sent")
    gate = chat.gate("first")
    loop = Thread(chat, "loop", chat.acknowledge)
    assert chat.next() == "stops at first"
    handler = Thread(chat, "handler", lambda: getattr(chat, step)("1"))
    assert chat.next() == "waits"
    gate.set()
    loop.finish()
    handler.finish()
    assert chat.got == ["first: Working on it", "1"]


def test_an_apology_that_comes_while_the_acknowledgement_is_sent_is_posted_after_it(race):
    chat = race(first="sent")
    gate = chat.gate("first")
    loop = Thread(chat, "loop", chat.acknowledge)
    assert chat.next() == "stops at first"
    poster = Thread(chat, "poster", chat.finish_instead)
    assert chat.next() == "waits"
    gate.set()
    loop.finish()
    poster.finish()
    assert chat.got == ["first: Working on it", "Sorry"]


@pytest.mark.parametrize("steps, got", [
    (["acknowledge", None], ["first: Working on it", "Done."]),
    (["acknowledge", "send", None], ["first: Working on it", "Done."]),
    (["acknowledge", "send 1", None], ["first: Working on it", "1"]),
    (["acknowledge", "send 1", "send", None], ["first: Working on it", "1"]),
    (["acknowledge", "last"], ["first: Working on it", "last"]),
    (["acknowledge", "acknowledge", None], ["first: Working on it", "Done."]),
    (["send 1", None], ["first: 1"]), (["send", None], ["first: nothing"]),
    (["send", "acknowledge", None], ["first: nothing"]), ([None], ["first: nothing"]),
    (["send", "send 1", None], ["first: nothing", "1"])], ids=str)
def test_done_is_said_where_work_was_acknowledged_and_nothing_else_said(steps, got):
    chat = Chat(first="sent")
    *steps, last = steps
    for step in steps:
        name, _, text = step.partition(" ")
        getattr(chat, name)(*[text or None] * (name == "send"))
    chat.finish(last)
    assert chat.got == got


def test_done_is_not_said_where_the_request_was_acknowledged_without_words():
    chat = Chat()
    chat.finish()
    assert chat.got == []


# ---- a connection that is gone

GONE = ConnectionResetError("gone")


@pytest.mark.parametrize("step", ["send", "finish"])
def test_a_first_answer_whose_connection_is_gone_is_posted(step, caplog):
    caplog.set_level("INFO")
    chat = Chat(first=GONE)
    getattr(chat, step)("1")
    assert chat.got == ["1"] and "first_answer_failed" in caplog.text


@pytest.mark.parametrize("journal, log", [(False, ["1"]), (True, ["written", "1", "struck out"])])
def test_a_table_whose_connection_is_gone_is_posted_once(journal, log):
    chat = Chat(first=GONE, journal=journal)
    chat.replies.finish(table("1"))
    assert chat.log == log
    chat = Chat(first=GONE, journal=journal)
    chat.replies.send(table("1"))
    chat.finish()
    assert chat.log == log


def test_an_apology_whose_connection_is_gone_is_posted():
    chat = Chat(first=GONE)
    chat.finish_instead()
    assert chat.got == ["Sorry"]


def test_the_later_answers_follow_a_first_one_whose_connection_is_gone():
    chat = Chat(503, first=GONE)
    chat.send(*numbers(9))
    chat.finish()
    assert chat.got == ["0", "1", "2", "3", "8"]


def test_an_acknowledgement_whose_connection_is_gone_is_not_posted():
    chat = Chat(first=GONE)
    chat.acknowledge()
    assert chat.tries == [], "it would block the loop"
    chat.send("1")
    chat.finish("2")
    assert chat.got == ["1", "2"]


def test_nothing_to_say_over_a_connection_that_is_gone_is_not_posted():
    chat = Chat(first=GONE)
    chat.send(None, "1")
    chat.finish()
    assert chat.got == ["1"]


@pytest.mark.parametrize("outcomes, where", [([], "post"), ([503], "sleep")], ids=str)
def test_an_apology_waits_for_a_first_answer_that_is_posted(race, outcomes, where):
    chat = race(*outcomes, first=GONE)
    gate = chat.gate(where)
    handler = Thread(chat, "handler", lambda: chat.send("1"))
    assert chat.next() == f"stops at {where}"
    poster = Thread(chat, "poster", chat.finish_instead)
    assert chat.next() == "waits"
    gate.set()
    handler.finish()
    poster.finish()
    assert chat.got == ["1", "Sorry"]


# ---- the last answer and SIGTERM

def test_a_handler_that_has_said_nothing_is_ended_with_an_apology_as_the_first_answer():
    chat = Chat(first="sent")
    chat.finish_instead()
    chat.send("1")
    chat.finish("2")
    chat.acknowledge()
    assert chat.got == ["first: Sorry"]
    assert chat.time.sleeps == [slackbot.POST_SECONDS], "the handler waits for the end"


@pytest.mark.parametrize("before", [["acknowledge"], ["send 1"], ["send 1", "send 2"]], ids=str)
def test_a_handler_that_is_silent_is_ended_with_an_apology_at_once(race, before):
    chat = race(first="sent")
    for step in before:
        name, _, text = step.partition(" ")
        getattr(chat, name)(*filter(None, [text]))
    chat.time.now += 1
    said = chat.got
    begun = chat.time.now
    chat.finish_instead()
    assert chat.got == [*said, "Sorry"] and chat.time.now == begun


def test_a_handler_that_has_just_answered_and_ends_gets_no_apology(race):
    chat = race(first="sent")
    chat.send("1", "2")
    chat.while_waiting = chat.finish
    chat.finish_instead()
    assert chat.got == ["first: 1", "2"]


@pytest.mark.parametrize("count", [5, 6, 9])
def test_the_answer_that_is_kept_for_the_last_place_is_posted_if_the_handler_ends(race, count):
    chat = race()
    chat.send(*numbers(count))
    chat.while_waiting = chat.finish
    chat.finish_instead()
    assert chat.got == ["0", "1", "2", "3", f"{count - 1}"]


@pytest.mark.parametrize("answers", [["1"], ["1", "2"], ["1", "2", "3", "4", "5", "6", "7"]])
def test_a_handler_that_has_just_answered_and_goes_on_is_ended_with_an_apology(race, answers):
    chat = race(first="sent")
    chat.send(*answers)
    begun = chat.time.now
    chat.finish_instead()
    assert chat.got == [f"first: {answers[0]}", *answers[1:5], "Sorry"]
    assert 0 < chat.time.now - begun <= 1, "users of other commands wait, too"
    chat.send("8")
    chat.finish("9")
    assert chat.got[-1] == "Sorry"


def test_a_handler_that_answers_again_while_it_is_waited_for_is_waited_for_again(race):
    chat = race(first="sent")
    chat.send("1")
    answers = iter("23")

    def answer_or_finish():
        text = next(answers, None)
        chat.send(text) if text else chat.finish("last")
    chat.while_waiting = answer_or_finish
    chat.finish_instead()
    assert chat.got == ["first: 1", "2", "3", "last"]


@pytest.mark.parametrize("is_last", [True, False])
def test_an_apology_waits_for_a_post_that_is_under_way(race, is_last):
    chat = race(first="sent")
    chat.send("1")
    chat.time.now += 10
    gate = chat.gate("post")
    steps = [lambda: chat.send("2"), chat.finish] if is_last else [lambda: chat.send("2")]
    handler = Thread(chat, "handler", *steps)
    while chat.next() != "stops at post":
        pass
    chat.while_waiting = handler.finish
    poster = Thread(chat, "poster", chat.finish_instead)
    assert chat.next() == "waits"
    gate.set()
    handler.finish()
    poster.finish()
    assert chat.got == ["first: 1", "2"] + ["Sorry"] * (not is_last)


def test_a_last_answer_that_is_under_way_makes_an_apology_needless(race):
    chat = race(first="sent")
    chat.send("1")
    chat.time.now += 10
    gate = chat.gate("post")
    handler = Thread(chat, "handler", lambda: chat.finish("last"))
    while chat.next() != "stops at post":
        pass
    poster = Thread(chat, "poster", chat.finish_instead)
    poster.finish()
    assert not chat.is_told, "the bot has to wait for the handler"
    gate.set()
    handler.finish()
    assert chat.got == ["first: 1", "last"]


def test_an_apology_that_is_under_way_makes_a_last_answer_needless(race):
    chat = race(first="sent")
    chat.send("1")
    chat.time.now += 10
    gate = chat.gate("post")
    poster = Thread(chat, "poster", chat.finish_instead)
    while chat.next() != "stops at post":
        pass
    handler = Thread(chat, "handler", lambda: chat.send("2"), lambda: chat.finish("last"))
    chat.next()  # it waits, or it has ended
    gate.set()
    handler.finish()
    poster.finish()
    assert chat.got == ["first: 1", "Sorry"]


def test_a_middle_answer_that_is_tried_again_is_dropped_after_an_apology(race):
    chat = race(503, first="sent")
    chat.send("1")
    gate = chat.gate("sleep")
    handler = Thread(chat, "handler", lambda: chat.send("2"), chat.finish)
    while chat.next() != "stops at sleep":
        pass
    chat.finish_instead()
    assert chat.got == ["first: 1", "Sorry"]
    gate.set()
    handler.finish()
    assert chat.got == ["first: 1", "Sorry"] and len(chat.tries) == 2


LAST = {  # ways in which a last answer may be on its way when the process is told to stop
    "tried again": ([503], "sleep", lambda chat: chat.finish("last")),
    "kept, and tried again": ([200] * 4 + [503], "sleep",
                              lambda chat: (chat.send(*numbers(5)), chat.finish())),
}


@pytest.mark.parametrize("way", LAST)
def test_a_last_answer_that_is_tried_again_is_left_to_its_handler(race, way):
    outcomes, where, answer = LAST[way]
    chat = race(*outcomes, first="sent")
    chat.send("first")
    chat.time.now += 10
    gate = chat.gate(where)
    handler = Thread(chat, "handler", lambda: answer(chat))
    while chat.next() != f"stops at {where}":
        pass
    before = len(chat.got)
    chat.time.now += 10
    chat.finish_instead()
    assert not chat.is_told and len(chat.got) == before
    gate.set()
    handler.finish()
    assert len(chat.got) == before + 1


def test_a_last_answer_that_begins_while_its_handler_is_waited_for_is_left_to_it(race):
    chat, handlers = race(first="sent"), []
    chat.send("1")
    gate = chat.gate("post")

    def begin_last_answer():
        handlers.append(Thread(chat, "handler", lambda: chat.finish("last")))
        while chat.next() != "stops at post":
            pass
    chat.while_waiting = begin_last_answer
    chat.finish_instead()
    assert not chat.is_told
    gate.set()
    handlers[0].finish()
    assert chat.got == ["first: 1", "last"]


def test_an_only_answer_that_is_being_sent_is_left_to_its_handler(race):
    chat = race(first="sent")
    gate = chat.gate("first")
    handler = Thread(chat, "handler", lambda: chat.finish("only"))
    assert chat.next() == "stops at first"
    chat.finish_instead()
    assert not chat.is_told
    gate.set()
    handler.finish()
    assert chat.got == ["first: only"]


@pytest.mark.parametrize("first", [None, "sent", GONE], ids=str)
@pytest.mark.parametrize("order", [
    order for order in itertools.permutations(["acknowledge", "send", "finish", "finish_instead"])
    if order.index("send") < order.index("finish")], ids=" ".join)
def test_in_any_order_there_is_one_first_answer_and_one_last_one(race, first, order):
    chat = race(first=first)
    for step in order:
        getattr(chat, step)(*{"send": ["middle"], "finish": ["last"]}.get(step, []))
        chat.time.now += 1
    last = min(("finish", "finish_instead"), key=order.index)
    steps = order[:order.index(last) + 1]  # what comes later is dropped, as is a second ending
    words = {"send": "middle", "finish": "last", "finish_instead": "Sorry"}
    if steps[0] == "acknowledge" and first == "sent":
        words["acknowledge"] = "Working on it"
    expected = [words[step] for step in steps if step in words]
    if first == "sent":
        expected[0] = f"first: {expected[0]}"
    assert chat.got == expected


# ---- the journal

@pytest.mark.parametrize("step, log", [
    (lambda chat: chat.finish("only"), ["first: only"]),
    (lambda chat: chat.finish(), ["first: nothing"]),
    (lambda chat: (chat.send("1"), chat.finish()), ["written", "first: 1", "struck out"]),
    (lambda chat: (chat.send("1", "2"), chat.finish("3")),
     ["written", "first: 1", "2", "3", "struck out"]),
    (lambda chat: (chat.send(None), chat.finish("1")),
     ["written", "first: nothing", "1", "struck out"]),
    (lambda chat: (chat.acknowledge(), chat.finish()),
     ["written", "first: Working on it", "Done.", "struck out"]),
    (lambda chat: (chat.acknowledge(), chat.send("1"), chat.finish("2")),
     ["written", "first: Working on it", "1", "2", "struck out"]),
    (lambda chat: (chat.send("1"), chat.finish_instead(), chat.finish("2")),
     ["written", "first: 1", "Sorry", "struck out"]),
    (lambda chat: (chat.acknowledge(), chat.finish_instead()),
     ["written", "first: Working on it", "Sorry", "struck out"]),
    (lambda chat: chat.replies.finish(table("only")),
     ["written", "first: nothing", "only", "struck out"]),
    (lambda chat: (chat.replies.send(table("1")), chat.finish()),
     ["written", "first: nothing", "1", "struck out"]),
    (lambda chat: (chat.replies.send(table("1")), chat.send("2"), chat.finish("3")),
     ["written", "first: nothing", "1", "2", "3", "struck out"]),
    (lambda chat: (chat.send("1"), chat.replies.finish(table("2"))),
     ["written", "first: 1", "2", "struck out"]),
    (lambda chat: (chat.acknowledge(), chat.replies.finish(table("1"))),
     ["written", "first: Working on it", "1", "struck out"])],
    ids=["only", "nothing", "one and the end", "several", "nothing, then one", "done",
         "acknowledged", "ended", "acknowledged and ended", "a table", "a table and the end",
         "a table and others", "a table last", "acknowledged, then a table"])
def test_a_command_is_in_the_journal_from_its_first_answer_to_its_last(race, step, log):
    chat = race(first="sent", journal=True)
    step(chat)
    assert chat.log == log


def test_a_command_that_ends_with_an_apology_as_its_first_answer_is_not_left_in_the_journal():
    chat = Chat(first="sent", journal=True)
    chat.finish_instead()
    assert chat.log in (["first: Sorry"], ["first: Sorry", "struck out"])


def test_a_table_stays_in_the_journal_while_it_is_tried_again(race):
    chat = race(503, first="sent", journal=True)
    gate = chat.gate("sleep")
    handler = Thread(chat, "handler", lambda: chat.replies.finish(table("only")))
    while chat.next() != "stops at sleep":
        pass
    assert chat.log == ["written", "first: nothing"]
    gate.set()
    handler.finish()
    assert chat.log == ["written", "first: nothing", "only", "struck out"]


def test_a_command_that_was_acknowledged_is_in_the_journal_until_after_its_last_answer():
    chat = Chat(journal=True)
    chat.send("1")
    chat.finish("2")
    assert chat.log == ["written", "1", "2", "struck out"]


def test_a_command_stays_in_the_journal_while_its_last_answer_is_tried_again(race):
    chat = race(503, first="sent", journal=True)
    chat.send("1")
    gate = chat.gate("sleep")
    handler = Thread(chat, "handler", lambda: chat.finish("2"))
    while chat.next() != "stops at sleep":
        pass
    assert chat.log == ["written", "first: 1"]
    gate.set()
    handler.finish()
    assert chat.log == ["written", "first: 1", "2", "struck out"]


def test_a_slow_disk_delays_the_acknowledgement_and_not_the_loop():
    written = concurrent.futures.Future()
    chat = Chat(first="sent", journal=True)
    chat.write = lambda: written
    chat.acknowledge()
    assert chat.log == []
    written.set_result(None)
    assert chat.log == ["first: Working on it"]


# ---- trying again

@pytest.mark.parametrize("text, low, high", [
    ("1", 1, 1), ("7", 7, 7), ("60", 60, 60), ("61", 60, 60), ("86400", 60, 60),
    ("0000000060", 60, 60), ("00000000030", 30, 30), ("9" * 400, 60, 60),
    ("999999999", 60, 60), ("0", 0, 1), ("", 0, 1), ("soon", 0, 1), ("-5", 0, 1), ("²", 0, 1),
    ("9" * 5000, 0, 60), ("Wed, 21 Oct 2026 07:28:00 GMT", 0, 1)], ids=lambda text: str(text)[:9])
def test_a_429_waits_as_it_says_and_at_most_60_seconds(text, low, high):
    chat = Chat((429, text), (429, text))
    chat.send("0")
    assert chat.got == ["0"] and len(chat.time.sleeps) == 2
    assert low <= chat.time.sleeps[0] <= high


FAILURES = [500, 502, 503, 504, 429, slackbot.FetchError("refused")]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_pauses_grow_with_a_jitter_up_to_60_seconds(failure):
    firsts = set()
    for _ in range(5):
        chat = Chat(*[failure] * 12)
        chat.send("0")
        pauses = chat.time.sleeps
        assert chat.got == ["0"] and len(pauses) == 12
        assert all(0 < each <= 60 for each in pauses)
        assert pauses[0] <= 2 and pauses[0] < pauses[3] < pauses[6] >= 30
        firsts.add(tuple(pauses[:3]))
    assert len(firsts) == 5, "no two wait alike"


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 408, 410, 413])
def test_any_other_answer_is_final_and_logged(status, caplog):
    chat = Chat(status)
    chat.send("0")
    assert len(chat.tries) == 1 and chat.time.sleeps == []
    assert f"{status}" in caplog.text and "said by Slack" in caplog.text
    chat.send("1")
    chat.finish()
    assert chat.got == ["1"], "the next one has its own chance"


@pytest.mark.parametrize("word", ["internal_error", "ratelimited", "request_timeout",
                                  "service_unavailable"])
def test_a_reply_in_a_thread_is_tried_again_if_slack_has_trouble_of_its_own(word):
    trouble = [api_fakes.refusal(word)]
    with api_fakes.Api(lambda method, given: trouble.pop() if trouble else None) as api:
        config = slackbot.Config({"SLACK_SIGNING_SECRET": fakes.SECRET, "SLACK_API_URL": api.url,
                                  "SLACK_BOT_TOKEN": api_fakes.TOKEN})
        post = slackbot.thread_post(slackbot.SlackAPI(config), "thread:C1/1700000000.1")
        replies = slackbot.Replies(post, sleep=Clock().sleep)
        replies.send(body("0"))
        replies.finish(body("1"))
        assert [(call.given["text"], call.ok) for call in api.of("chat.postMessage")] == [
            ("0", False), ("0", True), ("1", True)]


def test_an_answer_arrives_after_slack_was_away_for_20_minutes():
    chat = Chat(seconds=10)
    chat.outcomes = (503 if chat.time.now < 2200 else 200 for _ in itertools.count())
    chat.send("0", "1")
    assert chat.got == ["0", "1"] and 1190 <= chat.tries[-2] < 1270


@pytest.mark.parametrize("failure", [*FAILURES, (429, "60"), (429, "3600")], ids=str)
def test_nothing_is_tried_after_30_minutes(failure):
    chat = Chat(*[failure] * 10_000)
    chat.send("0", "1", "2")
    chat.finish()
    assert chat.got == [] and len(chat.tries) < 1000
    assert HALF_HOUR - 61 <= max(chat.tries) <= HALF_HOUR


@pytest.mark.parametrize("age, second, texts", [
    (0, 1799, ["0", "1"]), (0, 1801, ["0"]), (0, 7200, ["0"]), (600, 1199, ["0", "1"]),
    (600, 1201, ["0"]), (1801, 0, []), (7200, 0, [])])
def test_an_answer_that_comes_30_minutes_after_the_request_is_not_posted(age, second, texts):
    chat = Chat(age=age)
    chat.send("0")
    chat.time.now = chat.started + second
    chat.send("1")
    chat.finish()
    assert chat.got == texts and len(chat.tries) == len(texts)


def test_an_answer_that_was_kept_for_more_than_30_minutes_is_not_posted():
    chat = Chat()
    chat.send(*numbers(6))
    chat.time.now += HALF_HOUR + 1
    chat.finish()
    assert chat.got == ["0", "1", "2", "3"] and len(chat.tries) == 4


@pytest.mark.parametrize("fault", ["reset", "redirect", ("status", 503), ("status", 404)],
                         ids=str)
def test_a_real_slack_that_fails_is_tried_again_and_its_url_kept_secret(fault, caplog):
    with fakes.Slack([fault, None]) as slack:
        url = slack.response_url()
        replies = slackbot.Replies(slackbot.response_url_post(url), sleep=Clock().sleep)
        replies.send(body("0"))
        replies.finish(None)
        is_final = fault in ("redirect", ("status", 404))
        assert slack.attempts == (1 if is_final else 2)
        assert len(slack.posts[url]) == (0 if is_final else 1)
    assert "post_failed" in caplog.text and url.rpartition("/")[2] not in caplog.text


@pytest.mark.parametrize("answer, attempts", [
    ("huge", 1), (("half", 200), 1), (("half", 404), 1), (("half", 503), 2)], ids=str)
def test_a_post_whose_answer_is_too_long_or_cut_off_is_repeated_as_its_status_says(
        answer, attempts):
    with fakes.Slack([answer]) as slack:
        replies = slackbot.Replies(slackbot.response_url_post(slack.response_url()),
                                   sleep=Clock().sleep)
        replies.send(body("0"))
        replies.finish(None)
        assert slack.attempts == attempts


def test_posts_whose_answers_are_cut_off_take_their_places():
    with fakes.Slack([("half", 200)] * 9) as slack:
        replies = slackbot.Replies(slackbot.response_url_post(slack.response_url()),
                                   sleep=Clock().sleep)
        for text in numbers(9):
            replies.send(body(text))
        replies.finish(None)
        assert [json.loads(seen.body)["text"] for seen in slack.seen] == ["0", "1", "2", "3", "8"]


@pytest.mark.parametrize("value, seconds", [
    ("5", 5), ("60", 60), ("61", 60), ("1234567890", 60), ("9" * 400, 60), ("9" * 5000, 60),
    ("0000000060", 60), ("00000000030", 30), ("0" * 400 + "5", 5), ("0" * 5000, 0), ("-1", 7),
    ("", 7), ("1.5", 7), ("\u0665", 7)], ids=lambda value: str(value)[:9])
def test_a_retry_after_of_any_length_is_the_longest_pause_at_most(value, seconds):
    assert slackbot.retry_after({"Retry-After": value}, 60, 7) == seconds


# ---- blocks that a workspace doesn't have

BUTTON = {"type": "actions", "elements": [slackbot.button("Refresh", "/both")]}


def with_blocks(number=0, *blocks):
    """A message with an own *number*, as bytes."""
    text = {"type": "mrkdwn", "text": f"{number}"}
    section = {"type": "section", "text": text, "fields": [text]}
    return json.dumps({"text": f"{number}", "blocks": [*blocks[:1], section, *blocks[1:], BUTTON],
                       "response_type": "in_channel", "replace_original": True}).encode()


def refused(word=b"invalid_blocks", status=400):
    """How a Slack fails that takes no data blocks: a function of the `Seen`."""
    return lambda seen: ("status", status, {}, word) if b'"data_' in seen.body else None


def cautious(url, **options):
    post = slackbot.with_fallback(slackbot.response_url_post(url))
    return slackbot.Replies(post, sleep=Clock().sleep, **options)


def messages(slack, url):
    return [post.message for post in slack.posts[url]]


@pytest.mark.parametrize("blocks", [[TABLE], [CHART], [TABLE, CHART], [CHART, CHART, TABLE]],
                         ids=len)
@pytest.mark.parametrize("status, word", [
    (400, b"invalid_blocks"), (500, b"invalid_blocks"), (400, b"invalid_attachments"),
    (400, b'{"ok": false, "error": "invalid_blocks"}')])
def test_a_message_whose_data_blocks_are_refused_comes_once_without_them(blocks, status, word):
    with fakes.Slack(refused(word, status)) as slack:
        url = slack.response_url()
        cautious(url).finish(with_blocks(7, *blocks))
        assert messages(slack, url) == [json.loads(with_blocks(7))] and slack.attempts == 2


def test_a_message_whose_data_blocks_are_taken_comes_as_it_is():
    with fakes.Slack() as slack:
        url = slack.response_url()
        cautious(url).finish(with_blocks(7, TABLE, CHART))
        assert messages(slack, url) == [json.loads(with_blocks(7, TABLE, CHART))]
        assert slack.attempts == 1


def test_a_message_that_goes_out_twice_is_one_of_the_five():
    with fakes.Slack() as slack:
        slack.refuses_data_blocks = True
        url = slack.response_url()
        replies = cautious(url)
        for number in range(9):
            replies.send(with_blocks(number, TABLE))
        replies.finish(None)
        assert messages(slack, url) == [json.loads(with_blocks(n)) for n in (0, 1, 2, 3, 8)]


def test_after_a_table_that_is_refused_the_next_one_comes_as_a_table():
    """It may have been the message's own fault, as two tables in one message are."""
    with fakes.Slack([("status", 400, {}, b"invalid_blocks"), None, None]) as slack:
        urls = [slack.response_url() for _ in range(2)]
        for number, url in enumerate(urls):
            cautious(url).finish(with_blocks(number, TABLE))
        assert messages(slack, urls[0]) == [json.loads(with_blocks(0))]
        assert messages(slack, urls[1]) == [json.loads(with_blocks(1, TABLE))]


@pytest.mark.parametrize("word", [b"no_text", b"msg_blocks_too_long", b"invalid_payload", b""])
def test_a_message_that_is_refused_for_another_reason_is_not_sent_again(word):
    with fakes.Slack(refused(word)) as slack:
        url = slack.response_url()
        cautious(url).finish(with_blocks(0, TABLE))
        assert slack.attempts == 1


@pytest.mark.parametrize("blocks, attempts", [((), 1), ((TABLE,), 2), ((TABLE, CHART), 2)])
def test_a_message_that_is_refused_without_data_blocks_too_is_not_sent_again(blocks, attempts):
    with fakes.Slack(lambda seen: ("status", 400, {}, b"invalid_blocks")) as slack:
        url = slack.response_url()
        cautious(url).finish(with_blocks(0, *blocks))
        assert slack.attempts == attempts


@pytest.mark.parametrize("faults, attempts", [
    ([("status", 503)], 3), ([None, ("status", 503)], 4), ([None, "reset"], 4),
    ([("status", 429, {"Retry-After": "1"}), None, ("status", 500)], 5)], ids=str)
def test_a_refused_message_is_tried_again_like_any_other(faults, attempts):
    with fakes.Slack(faults) as slack:
        slack.refuses_data_blocks = True
        url = slack.response_url()
        cautious(url).finish(with_blocks(0, TABLE))
        assert messages(slack, url) == [json.loads(with_blocks(0))]
        assert slack.attempts == attempts and slack.faults == []


@pytest.mark.parametrize("message", [
    {"text": "data_table"}, {"text": "x", "attachments": [{"blocks": [TABLE]}]}],
    ids=["the text", "the attachments"])
def test_a_message_that_has_a_data_blocks_name_elsewhere_breaks_nothing(message):
    taken = []

    def post(body):
        taken.append(json.loads(body))
        return 200, {}, b"ok"
    slackbot.with_fallback(post)(json.dumps(message).encode())
    assert [each["text"] for each in taken] == [message["text"]]


@pytest.fixture
def web_api():
    """Slack's Web API that takes no data blocks, and the configuration of a bot that uses it."""
    def fail(method, given):
        kinds = {block["type"] for block in given.get("blocks", ())}
        if kinds & set(fakes.DATA_BLOCKS):
            return api_fakes.refusal("invalid_blocks", 400 if method == "hook" else 200)
    with api_fakes.Api(fail) as api:
        yield api, slackbot.Config({
            "SLACK_SIGNING_SECRET": fakes.SECRET, "SLACK_API_URL": api.url,
            "SLACK_BOT_TOKEN": api_fakes.TOKEN, "SLACK_WEBHOOK_URL": api.hook})


def test_a_reply_in_a_thread_comes_without_data_blocks_where_they_are_refused(web_api):
    api, config = web_api
    bot = slackbot.Bot(config, None, slackbot.SlackAPI(config), make_pool=fakes.Pool)
    request = slackbot.Request(response_url="thread:C1/1700000000.1", team_id="T1")
    for number in range(2):
        bot.replies_to(request).finish(with_blocks(number, TABLE, CHART))
    calls = api.of("chat.postMessage")
    assert [call.ok for call in calls] == [False, True] * 2
    assert [call.given["blocks"] for call in calls if call.ok] == [
        json.loads(with_blocks(number))["blocks"] for number in range(2)]


def test_a_webhooks_post_comes_without_data_blocks_where_they_are_refused(web_api):
    api, config = web_api
    bot = slackbot.Bot(config, None, slackbot.SlackAPI(config), make_pool=fakes.Pool)
    bot.take_webhook_post(lambda data: json.loads(with_blocks(data, TABLE)), 5)
    bot.webhook_posters.run()
    assert [(call.given["text"], call.ok) for call in api.of("hook")] == [("5", False), ("5", True)]


COMMANDS = {"/table": ["a table"], "/inline": ["at once"], "/both": ["both"],
            "/later": ["second", "third", "fourth"]}


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("line", COMMANDS)
def test_a_handlers_message_with_data_blocks_is_posted_and_never_the_body_of_an_answer(
        services, line, refuses):
    services.slack.refuses_data_blocks = refuses
    url = services.slack.response_url()
    first = services.bot.command(line, response_url=url, team_id=f"T{line}{refuses}")
    assert first.status == 200 and b'"data_' not in first.body
    assert first.text == "" or line == "/later" and first.json["text"] == "first"
    services.slack.wait(url, len(COMMANDS[line]))
    api_fakes.finish(services.bot)
    got = messages(services.slack, url)
    assert [each["text"] for each in got] == COMMANDS[line]
    assert ('"data_' in json.dumps(got)) != refuses
    assert all("section" in json.dumps(each) for each in got if "blocks" in each)


def test_a_posted_first_answer_comes_at_once(services):
    services.slack.refuses_data_blocks = False
    for line in ("/table", "/inline"):
        url, started = services.slack.response_url(), time.monotonic()
        services.bot.command(line, response_url=url)
        services.slack.wait(url)
        assert services.slack.posts[url][0].at - started < 2.4, "SLACKBOT_ACK_SECONDS is 2.5"


@pytest.mark.parametrize("line", ["/table", "/inline"])
def test_a_command_without_a_response_url_gets_what_needs_no_data_blocks(services, line):
    first = services.bot.command(line)
    assert first.status == 200 and b'"data_' not in first.body
    assert first.json["text"] == COMMANDS[line][0]


def test_a_mention_is_answered_with_data_blocks_in_its_thread(services):
    answer, = api_fakes.answers_to_event(services, api_fakes.mention("<@U0BOT> both"))
    assert [block["type"] for block in answer["blocks"]] == [
        "data_table", "section", "data_visualization"]


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


def fails(url, within=PATIENCE / 2, **options):
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


@pytest.mark.parametrize("answer, status", [
    (("half", 200), 200), (("half", 503), 503), ("huge", 200), ("reset", 0)], ids=str)
def test_an_answer_that_is_cut_off_is_an_error_with_its_status(answer, status):
    with Web(answer) as web, pytest.raises(slackbot.FetchError) as caught:
        slackbot.fetch(web.origin)
    assert caught.value.status == status


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"


def drip_bytes(sock):
    """A body, byte by byte."""
    sock.sendall(HEAD)
    for _ in range(20 * PATIENCE):  # at most
        time.sleep(0.05)
        sock.sendall(b"x")


def slow_chunks(sock):
    """A chunked body without an end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20 * PATIENCE):
        time.sleep(0.05)
        sock.sendall(b"1\r\nx\r\n")


@pytest.mark.parametrize("talk", [lambda sock: time.sleep(PATIENCE), drip_bytes, slow_chunks],
                         ids=["silence", "body", "chunks"])
def test_an_answer_has_one_deadline_for_all_its_bytes(talk):
    with raw(talk) as url:
        fails(url, seconds=0.2, limit=10_000_000)


class Answering(slackbot.WithDeadline, network_fakes.PiecesSocket):
    """In the place of a socket: the *data* of an answer comes in pieces of a *size*."""

    def detach(self):
        return self


def chunked(size, piece):
    """So many bytes of an answer, in chunks of a size."""
    chunk = b"%x\r\n%b\r\n" % (piece, b"x" * piece)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (size // len(chunk)) + b"0\r\n\r\n"


@pytest.mark.parametrize("piece, size", [(1, 2_000), (4096, 60_000)])
@pytest.mark.parametrize("make", [
    lambda size: b"Content-Length: %d\r\n\r\n" % size + b"x" * size,
    lambda size: b"\r\n" + b"x" * size,
    lambda size: chunked(size, 1), lambda size: chunked(size, 5000),
    lambda size: (b"X: " + b"x" * (size // 90) + b"\r\n") * 90 + b"Content-Length: 0\r\n\r\n"],
    ids=["length", "no length", "chunks of 1", "chunks of 5000", "header"])
def test_the_work_of_an_answer_is_in_proportion_to_the_bytes(monkeypatch, make, piece, size):
    def fetch(data):
        sock = Answering(b"HTTP/1.1 200 OK\r\n" + data, piece)
        monkeypatch.setattr(slackbot, "connect", lambda *_: sock)
        status, *_ = slackbot.fetch("http://slack.example/", limit=len(data))
        assert status == 200 and sock.place >= len(data)

    monkeypatch.setattr(slackbot, "resolve", lambda *_: [])
    monkeypatch.setattr(slackbot, "DeadlineSocket", lambda fileno: fileno)
    network_fakes.check_growth(fetch, make(size), make(16 * size))


FLOOD = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
listener.settimeout(20)
sock, until = listener.accept()[0], time.monotonic() + 20
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
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
            urls.append(f"https://localhost:{server.server_port}/")
        good, alone, other = urls
        done = subprocess.run([sys.executable, "-c", FETCH, good, alone, good, other],
                              capture_output=True, text=True, timeout=PATIENCE, cwd=fakes.ROOT,
                              env={**os.environ, "SSL_CERT_FILE": str(root.path)})
    first, self_signed, again, wrong_name = done.stdout.splitlines()
    assert first == again == "200", done
    assert "self" in self_signed and "CERTIFICATE_VERIFY_FAILED" in self_signed
    assert "CERTIFICATE_VERIFY_FAILED" in wrong_name and "localhost" in wrong_name


class Deaf(network_fakes.TLS):
    """A TLS server that shakes hands, and then reads nothing."""

    def serve(self, peer):
        with self.contexts[None].wrap_socket(peer, server_side=True) as safe:
            self.ciphers.append(safe.cipher())
            self.closing.wait(network_fakes.PATIENCE)


def test_sending_over_tls_is_within_the_deadline(monkeypatch, tmp_path, skip):
    if not network_fakes.tool("openssl"):
        pytest.skip("no openssl to make certificates with")

    def shake_hands(sock, *arguments):
        shake(sock, *arguments)
        if not sock.server_side:
            skip(9.8)

    shake = ssl.SSLSocket.do_handshake
    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", shake_hands)
    certificate = network_fakes.Authority(tmp_path).make("alone")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    monkeypatch.setattr(slackbot, "opener", functools.cache(slackbot.opener.__wrapped__))
    with Deaf(certificate) as server:
        fails(f"https://localhost:{server.port}/5ecret", within=5, data=b"x" * 16_000_000,
              seconds=10)
        assert server.ciphers, "it wasn't the sending"


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


# ---- one deadline, from the look-up of the name to the last byte

@pytest.fixture
def skip(monkeypatch):
    """A function that lets some seconds pass at once, as far as slackbot.py knows."""
    def skip(seconds):
        skipped.append(seconds)

    skipped = []
    monkeypatch.setattr(slackbot, "time", fakes.time_with(
        monotonic=lambda: time.monotonic() + sum(skipped)))
    return skip


def split_address(name):
    """(host, port) of HOST:PORT."""
    host, _, port = name.rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_all_addresses_of_a_name_have_one_deadline(monkeypatch, scheme):
    with network_fakes.full() as name:
        monkeypatch.setattr(slackbot, "look_up", lambda host, port: [split_address(name)] * 100)
        fails(f"{scheme}://silent.example/5ecret", seconds=0.2)


def test_the_look_up_of_a_name_is_within_the_deadline(monkeypatch, skip):
    over = threading.Event()
    with network_fakes.full() as name:
        monkeypatch.setattr(slackbot, "look_up", lambda host, port: skip(29.8) or [
            split_address(name)])
        fails("http://silent.example/5ecret", seconds=30)
        monkeypatch.setattr(slackbot, "look_up", lambda host, port: over.wait(PATIENCE))
        fails("http://silent.example/5ecret", seconds=0.2)
    over.set()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_look_up_a_connection_and_sending_have_one_deadline_together(monkeypatch, skip, scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(slackbot, "look_up", lambda host, port: skip(29.8) or [
            listener.getsockname()])
        fails(f"{scheme}://deaf.example/5ecret", data=b"x" * 16_000_000, seconds=30)


def test_a_name_that_cannot_be_found_is_an_error_like_any_other(monkeypatch):
    def fail(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(slackbot, "look_up", fail)
    with pytest.raises(slackbot.FetchError, match="Name or service"):
        slackbot.fetch("http://nowhere.example/", seconds=1)
