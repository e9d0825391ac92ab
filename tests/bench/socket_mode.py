"""1,000 Socket Mode envelopes at once while 50 slow commands run; the PyPI package websockets is
Slack's side. Each must be acknowledged once, within 3 seconds, with the right answer."""

import argparse
import asyncio
import collections
import contextlib
import json
import time
import uuid

import harness
from fake_slack import FakeSlack
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

APP = [str(harness.HERE / "slow_app.py")]
LIMIT = 3  # seconds for an acknowledgement; Slack's limit
CASES = {  # name: (a slow command, whether messages come in fragments with pings between)
    "generator": ("/slow", False), "plain": ("/plain", False), "fragments": ("/slow", True)}


def envelope(line, number, hooks):
    """Make the envelope of a slash command, as Slack sends it."""
    name, _, text = line.partition(" ")
    return {"envelope_id": str(uuid.uuid4()), "type": "slash_commands",
            "accepts_response_payload": True, "payload": {
                "token": "gIkuvaNzQIHg97ATvDxqgjtO", "team_id": "T0001", "team_domain": "example",
                "channel_id": "C2147483705", "channel_name": "test", "user_id": "U2147483697",
                "user_name": "attakei", "command": name, "text": text, "api_app_id": "A123456",
                "is_enterprise_install": "false", "trigger_id": f"13345224609.738474920.{number}",
                "response_url": f"{hooks}/commands/T0001/{number}"}}


class Workspace:
    """Slack's side: the necessary part of the Web API, and one WebSocket at a time."""

    def __init__(self):
        self.acks, self.pongs, self.link = [], 0, asyncio.get_running_loop().create_future()

    async def __aenter__(self):
        self.stack = contextlib.AsyncExitStack()
        self.api = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.sockets = await self.stack.enter_async_context(
            serve(self.handle, "127.0.0.1", 0, compression=None, ping_interval=None))
        self.api_url, self.url = (
            f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/{path}"
            for scheme, server, path in (("http", self.api, "api/"), ("ws", self.sockets, "")))
        return self

    async def __aexit__(self, *exception):
        self.api.close()
        await self.stack.aclose()

    async def answer(self, reader, writer):
        """Answer one call of the Web API with `ok` and the URL of the WebSocket."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = json.dumps({"ok": True, "url": self.url, "user_id": "U0BOT"}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close"
                         b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    async def handle(self, link):
        """Send `hello`, then keep the acknowledgements."""
        await link.send(json.dumps({"type": "hello", "num_connections": 1}))
        self.link.set_result(link)
        with contextlib.suppress(ConnectionClosed):
            async for text in link:
                self.acks.append((json.loads(text), time.monotonic()))

    async def send(self, link, envelopes, in_fragments):
        """Send all envelopes without pauses; return when each was sent, by its id."""
        sent, pings = {}, []
        for each in envelopes:
            text, sent[each["envelope_id"]] = json.dumps(each), time.monotonic()
            if in_fragments:
                third = len(text) // 3
                await link.send([text[:third], text[third:-third], text[-third:]])
                pings.append(await link.ping())
            else:
                await link.send(text)
        for ping in pings:
            await asyncio.wait_for(ping, 10)
        self.pongs = len(pings)
        return sent


async def run_case(name, options):
    """Run one case; return its figures."""
    line, in_fragments = CASES[name]
    count = options.envelopes
    async with Workspace() as workspace:
        with FakeSlack() as slack, harness.Server(
                APP, SLACK_HOOKS_ORIGINS=slack.origins, SLACK_APP_TOKEN="xapp-1-bench",
                SLACK_API_URL=workspace.api_url) as server:
            link = await asyncio.wait_for(workspace.link, 20)
            slow = [envelope(f"{line} {count + number}", count + number, slack.hooks)
                    for number in range(options.slow)]
            quick = [envelope(f"/hello {number}", number, slack.hooks) for number in range(count)]
            begun, cpu = time.monotonic(), server.cpu()
            sent = await workspace.send(link, slow + quick, in_fragments)
            while len(workspace.acks) < len(sent) and time.monotonic() < begun + options.timeout:
                await asyncio.sleep(0.01)
            cpu = server.cpu() - cpu
            done, later = collections.Counter(), []
            answers = count + 2 * options.slow  # a slow one says that it has started, too
            while len(later) < answers and time.monotonic() < begun + 20:
                await asyncio.sleep(0.1)
                later = [(when, text) for when, _, text in slack.report()["deliveries"]]
                ends = [end for end in later if end[1].startswith("done")]
                done = collections.Counter(text for _, text in ends)
                last = max((when for when, _ in ends), default=0) - begun
            posted = " ".join(text for _, _, text in slack.report()["deliveries"])
    return figures(name, workspace, sent, slow, quick, posted, done, last, cpu)


def figures(name, workspace, sent, slow, quick, posted, done, last, cpu):
    """Compute the figures of one case; *posted* is the text of all delayed answers."""
    acks, latencies, wrong = collections.Counter(), [], 0
    texts = {each["envelope_id"]: each["payload"]["text"] for each in slow + quick}
    fast = {each["envelope_id"] for each in quick}
    for ack, when in workspace.acks:
        number = ack["envelope_id"]
        acks[number] += 1
        latencies.append(when - sent[number])
        wrong += len(ack) > 1  # an acknowledgement has nothing but the envelope's id
    wrong += sum(f"`{texts[number]}`" not in posted for number in fast)
    return {"name": name, "count": len(sent), "latencies": sorted(latencies), "wrong": wrong,
            "lost": len(sent) - len(acks), "twice": sum(acks.values()) - len(acks), "cpu": cpu,
            "slow": len(slow), "done": len(done), "again": sum(done.values()) - len(done),
            "last": last, "pongs": workspace.pongs}


def report(case):
    """Print the figures of one case; return whether it passed."""
    p50, p99, last = (1000 * case["latencies"][int(share * (len(case["latencies"]) - 1))]
                      for share in (0.5, 0.99, 1)) if case["latencies"] else [float("inf")] * 3
    checks = {
        f"acknowledged: p50 {p50:.0f} ms, p99 {p99:.0f} ms, last {last:.0f} ms (limit {LIMIT} s); "
        f"{1e6 * case['cpu'] / case['count']:.0f} µs of CPU time each": last <= 1000 * LIMIT,
        f"of {case['count']}: lost {case['lost']}, twice {case['twice']}, wrong {case['wrong']}":
            not case["lost"] + case["twice"] + case["wrong"],
        f"slow commands done {case['done']} of {case['slow']}, twice {case['again']}, the last "
        f"after {case['last']:.2f} s": case["done"] == case["slow"] and not case["again"],
    }
    pongs = f", {case['pongs']} pings between, all answered" * bool(case["pongs"])
    return harness.report(case["name"] + pongs, checks)


def main():
    """Read the options, run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envelopes", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=50)
    parser.add_argument("--timeout", type=float, default=10,
                        help="for the acknowledgements, seconds")
    parser.add_argument("--only", action="append", choices=CASES, help="repeatable")
    options = parser.parse_args()
    passed = [report(asyncio.run(run_case(name, options))) for name in options.only or CASES]
    raise SystemExit(not all(passed))


if __name__ == "__main__":
    main()
