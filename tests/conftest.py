"""Make the module and the fakes importable; run the files of a whole run side by side."""

import collections
import concurrent.futures
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

PART = "SLACKBOT_TESTS_PART"  # set for the processes of a whole run
PLAIN = {"-q", "-qq", "-v", "-x", "-p", "no:randomly", "no:cacheprovider"}  # to be passed on


@pytest.fixture(scope="module")
def script(request, tmp_path_factory):
    """The path of a script with the commands that a test's module has in OWN."""
    script = tmp_path_factory.mktemp("own") / "own.py"
    script.write_text(request.module.OWN)
    return script


@pytest.fixture(scope="module")
def services(script):
    """A bot with the commands that a test's module has in OWN, and fakes of all it talks to."""
    import api_fakes  # which is importable by now
    with api_fakes.run_services(script) as made:
        yield made
        api_fakes.check_log(made.bot)
        assert "5ecret" not in made.bot.output and api_fakes.TOKEN not in made.bot.output


def run(path, options):
    """Run one file in a process of its own: its exit status and what it printed."""
    done = subprocess.run([sys.executable, "-m", "pytest", *options, str(path)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, PART: path.name})
    print(f"== {path.name}\n{done.stdout.rstrip()}", flush=True)
    return done.returncode, done.stdout


def pytest_cmdline_main(config):
    """Most tests wait, for processes and time-outs; so a run of the whole directory is spread over
    twice as many processes as there are processors, a file each, the long ones first."""
    options = [each for each in map(str, config.invocation_params.args) if each[:1] == "-" or
               not Path(each).exists()]
    if PART in os.environ or [Path(each).resolve() for each in config.args] != [HERE] or \
            not PLAIN.issuperset(options):
        return None
    started, counts = time.monotonic(), collections.Counter()
    paths = sorted(HERE.glob("test_*.py"), key=lambda path: -path.stat().st_size)
    with concurrent.futures.ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda path: run(path, options), paths))
    for _, output in results:
        for count, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped|warnings?)",
                                      output.rstrip().rpartition("\n")[2]):
            counts[kind] += int(count)
    print("==", ", ".join(f"{count} {kind}" for kind, count in counts.items()),
          f"in {time.monotonic() - started:.2f}s")
    return max(status for status, _ in results)
