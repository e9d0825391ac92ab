"""The command line: what `check` and `manifest` print."""

import json
import re
import subprocess
import sys

import pytest

import api_fakes
import fakes
import slackbot
from api_fakes import BOT_USER, printed_by, start

NO_SERVER = "http://127.0.0.1:9/"


# ---- python slackbot.py check

@pytest.fixture(scope="module")
def services():
    """What `check` asks: the variables that lead to the Web API and a JIRA; a Data Center."""
    with api_fakes.Api() as api, fakes.Jira("cloud") as jira, fakes.Jira("server") as server:
        yield {"SLACK_SIGNING_SECRET": "signing-5ecret", "SLACK_BOT_TOKEN": api_fakes.TOKEN,
               "SLACK_API_URL": api.url, "JIRA_URL": jira.origin, "JIRA_USERNAME": jira.username,
               "JIRA_API_TOKEN": jira.token}, server


@pytest.fixture(scope="module", autouse=True)
def refused():
    """A check of servers that aren't there. It tries for some seconds, so it begins at once."""
    environ = {"SLACK_BOT_TOKEN": "xoxb-5ecret", "SLACK_API_URL": NO_SERVER, "JIRA_URL": NO_SERVER}
    with subprocess.Popen([sys.executable, fakes.ROOT / "slackbot.py", "check"], env=environ,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.kill()


def check(**environ):
    """The exit status of `check` and what it says, which has no secrets."""
    done = start("check", environ=environ)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    for name, value in environ.items():
        assert not ("SECRET" in name or "TOKEN" in name) or value not in said, name
    return done.returncode, said


def test_check_says_who_the_bot_is(services):
    status, said = check(**services[0])
    assert status == 0
    slack, = [line for line in said.splitlines() if api_fakes.TEAM in line]
    jira, = [line for line in said.splitlines() if "QA <lead>" in line]
    assert api_fakes.BOT_NAME in slack or BOT_USER in slack
    assert slack != jira


def test_check_knows_data_center_too(services):
    server = services[1]
    status, said = check(JIRA_URL=server.origin, JIRA_PERSONAL_TOKEN=server.token)
    assert status == 0 and "QA <lead>" in said


def test_check_says_what_is_missing():
    status, said = check()
    assert status == 0
    for name in ("SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN", "JIRA_URL"):
        assert any(name in line for line in said.splitlines()), name
    assert 2 <= len(said.splitlines()) <= 10


BAD_CHECKS = [  # (what is changed, what is said, what of the other is said all the same)
    ({"SLACK_BOT_TOKEN": "xoxb-wrong-5ecret"}, "invalid_auth", "QA <lead>"),
    ({"JIRA_API_TOKEN": "wrong-5ecret"}, "JIRA", api_fakes.TEAM),
    ({"JIRA_URL": NO_SERVER}, "JIRA", api_fakes.TEAM)]


@pytest.mark.parametrize("changes, word, other", BAD_CHECKS, ids=str)
def test_check_says_what_does_not_work_and_fails(services, changes, word, other):
    status, said = check(**{**services[0], **changes})
    assert status == 1 and word in said and other in said


def test_check_says_that_servers_refuse_connections_and_fails(refused):
    said, status = printed_by(refused)
    assert status == 1 and len(said.splitlines()) <= 10 and "5ecret" not in said
    for name in ("Slack", "JIRA"):
        assert re.search(f"{name}.*refused", said)


def test_check_warns_of_a_jira_whose_url_is_http(services):
    environ = {**services[0], "JIRA_URL": services[0]["JIRA_URL"].replace("127.0.0.1", "0.0.0.0")}
    status, said = check(**environ)
    assert status == 0 and "event=insecure" in said


# ---- python slackbot.py manifest

OWN = '''
import slackbot

@slackbot.command("/greet")
def greet(request, name: str, times: int = 1):
    """Greet somebody."""

@slackbot.command("/bare")
def bare(request):
    pass

for name in ("/silent one", "/silent two"):
    slackbot.command(name)(lambda request: None)

@slackbot.command("/family one")
def one(request, name: str):
    """Be one."""

@slackbot.command("/family two")
def two(request):
    """Be two."""

@slackbot.command("/" + "n" * 31, usage="X" * 1500)
def long(request):
    pass

long.__doc__ = "d" * 3000
slackbot.command("/wordy", usage="X" * 1500)(long)
slackbot.main()
'''
SCOPES = {"commands", "chat:write", "app_mentions:read", "im:history", "files:write"}
# By slackapi/manifest-schema, manifest.schema.2.0.0.json: the keys that there are, and how long
# a text may be; no text is empty.
LONGEST = {"display_information": {"name": 35, "description": 140, "long_description": 4000,
                                   "background_color": 7},
           "bot_user": {"display_name": 80, "always_online": None},
           "app_home": {"home_tab_enabled": None, "messages_tab_enabled": None,
                        "messages_tab_read_only_enabled": None},
           "slash_commands": {"command": 32, "url": 3000, "description": 2000, "usage_hint": 1000,
                              "should_escape": None},
           "event_subscriptions": {"request_url": 3500, "bot_events": None},
           "interactivity": {"is_enabled": None, "request_url": 3500},
           "scopes": {"bot": None}, "oauth_config": {"scopes": None},
           "features": dict.fromkeys(["app_home", "bot_user", "slash_commands"]),
           "settings": dict.fromkeys(["event_subscriptions", "interactivity", "org_deploy_enabled",
                                      "socket_mode_enabled", "token_rotation_enabled"]),
           "_metadata": dict.fromkeys(["major_version", "minor_version"]),
           "": dict.fromkeys(["_metadata", "display_information", "features", "oauth_config",
                              "settings"])}


def check_manifest(part, name=""):
    """Fail where Slack wouldn't take a *part* of a manifest, called *name*."""
    if isinstance(part, list):
        for each in part:
            check_manifest(each, name)
    elif isinstance(part, dict):
        for key, value in part.items():
            assert key in LONGEST[name], f"there is no {key} in {name or 'a manifest'}"
            if isinstance(value, str):
                assert value.strip(), f"{name}.{key} is blank"
                assert len(value) <= LONGEST[name][key], f"{name}.{key} is too long"
            check_manifest(value, key)


def manifest(*arguments, script=fakes.ROOT / "slackbot.py"):
    """The manifest that is printed, which Slack would take; without any configuration."""
    done = subprocess.run([sys.executable, script, "manifest", *arguments], capture_output=True,
                          text=True, timeout=10, env={"PYTHONPATH": str(fakes.ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    check_manifest(made)
    return made


@pytest.fixture(scope="module")
def printed():
    return manifest("https://bot.example")


def test_a_manifest_has_all_that_an_app_needs(printed):
    settings, features = printed["settings"], printed["features"]
    assert printed["display_information"]["name"] and features["bot_user"]["display_name"]
    assert set(printed["oauth_config"]["scopes"]["bot"]) == SCOPES
    events = settings["event_subscriptions"]
    assert events["request_url"] == "https://bot.example/slack/events"
    assert sorted(events["bot_events"]) == ["app_mention", "message.im"]
    assert settings["interactivity"] == {
        "is_enabled": True, "request_url": "https://bot.example/slack/interactions"}
    assert settings["socket_mode_enabled"] is False


def test_a_manifest_has_every_command_once_by_its_first_word(printed):
    made = printed["features"]["slash_commands"]
    names = [each["command"] for each in made]
    assert sorted(names) == sorted({name.split()[0] for name, one in slackbot.commands.items()
                                    if one.handler.__module__ == "slackbot"})
    for each in made:
        assert each["url"] == "https://bot.example/slack/commands"
        assert each["should_escape"] is False and each["description"]
    by_name = {each["command"]: each for each in made}
    assert by_name["/dig"]["usage_hint"] == "NAME [TYPE]"
    assert by_name["/dig"]["description"] == slackbot.commands["/dig"].summary
    assert "usage_hint" not in by_name["/hello-world"]
    assert "release" in by_name["/jira"]["usage_hint"] + by_name["/jira"]["description"]


def test_a_manifest_lets_users_write_to_the_bot(printed):
    # Without this tab Slack says "Sending messages to this app has been turned off".
    home = printed["features"]["app_home"]
    assert home["messages_tab_enabled"] is True and home["messages_tab_read_only_enabled"] is False


def test_a_manifest_for_socket_mode_has_no_url():
    made = manifest("--socket")
    assert made["settings"]["socket_mode_enabled"] is True and "://" not in json.dumps(made)
    assert made["settings"]["interactivity"] == {"is_enabled": True}
    assert sorted(made["settings"]["event_subscriptions"]["bot_events"]) == [
        "app_mention", "message.im"]
    assert all("url" not in each for each in made["features"]["slash_commands"])


def test_a_manifest_has_ones_own_commands(script):
    made = manifest("https://bot.example", script=script)["features"]["slash_commands"]
    by_name = {each["command"]: each for each in made}
    assert len(by_name) == len(made)
    assert by_name["/greet"]["description"] == "Greet somebody."
    assert by_name["/greet"]["usage_hint"] == "NAME [TIMES]"
    assert "usage_hint" not in by_name["/bare"]
    assert [by_name[name]["description"] for name in ("/bare", "/silent")] == ["/bare", "/silent"]
    hint = by_name["/family"]["usage_hint"]
    assert "one NAME" in hint and "two" in hint
    assert {"/wordy", "/" + "n" * 31, "/hello", "/jira"} <= set(by_name)


def test_a_manifest_of_more_commands_than_slack_takes_is_printed_with_an_error(tmp_path):
    path = tmp_path / "many.py"
    path.write_text("import slackbot\nfor number in range(50):\n"
                    "    slackbot.command(f'/c{number}')(lambda request: None)\nslackbot.main()\n")
    done = start("manifest", "https://bot.example", script=path)
    made = json.loads(done.stdout)
    check_manifest(made)
    count = len(made["features"]["slash_commands"])
    assert count > 50 and done.returncode == 1
    assert re.search(rf"\b50\b.*\b{count}\b", done.stderr) and "Traceback" not in done.stderr


def test_a_slash_at_the_end_of_a_manifests_url_changes_nothing(printed):
    assert manifest("https://bot.example/") == printed


@pytest.mark.parametrize("arguments", [
    [], ["http://bot.example"], ["bot.example"], ["https://"], ["https://a b"], ["ftp://a"], [""],
    ["--sockets"], ["https://a.example", "https://b.example"], ["https://a.example\n"],
    ["https://bob:5ecret@bot.example"], ["https://bot.example?x=y"], ["https://bot.example#x"]],
    ids=str)
def test_a_manifest_for_a_bad_url_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        slackbot.main(["manifest", *arguments])
    assert end.value.code not in (0, None) and capsys.readouterr().out == ""
    assert isinstance(end.value.code, int) or "manifest" in end.value.code
