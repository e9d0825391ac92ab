"""Make the module and the fakes importable, and the fixtures that several files share."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]


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


@pytest.fixture
def gate(tmp_path):
    """A file for which commands wait; made at the end, so that nothing hangs."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()
