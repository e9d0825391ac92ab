"""Commands: how a line finds its function, and how its words become the function's arguments."""

import datetime  # which an annotation names
import functools
import getpass
import re
import subprocess
import textwrap
import threading
import typing

import pytest

import fakes
import slackbot
from api_fakes import check_log
from fakes import PATIENCE

OWN = '''
import pathlib
import time
import typing
import slackbot
from slackbot import Rest, command


def echo(*values):
    return slackbot.escape(repr(values))


@command("/none")
def none(request):
    "Take nothing."
    return echo()


@command("/int")
def int_(request, number: int):
    "Take a number."
    return echo(number)


@command("/float")
def float_(request, ratio: float):
    return echo(ratio)


@command("/bool")
def bool_(request, flag: bool):
    return echo(flag)


@command("/choice")
def choice(request, type_: typing.Literal["A", "MX", 7] = "A"):
    "Take one of three."
    return echo(type_)


@command("/two")
def two(request, name: str, times: "int" = 1):
    """Take a name, and perhaps a number.

    More about it."""
    return echo(name, times)


@command("/words")
def words(request, *words: str):
    return echo(*words)


@command("/numbers")
def numbers(request, first, *numbers: int):
    return echo(first, *numbers)


@command("/rest")
def rest(request, text: Rest):
    return echo(str(text))


@command("/perhaps")
def perhaps(request, text: Rest = "nothing"):
    return echo(str(text))


@command("/named")
def named(request, name: str, text_: Rest):
    return echo(name, str(text_))


@command("/open", usage="HOST[:PORT]")
def open_(request, host: str):
    return echo(host)


def named_echo(name):
    @command(name)
    def show(request, *words):
        return echo(name, *words)


for name in ("/a", "/a b", "/a b c", "/x y"):
    named_echo(name)


@command("/own-type")
def own_type(request, *words):
    return {"text": "Hi", "response_type": words[0]}


@command("/whoami")
def whoami(request):
    return {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text":
            slackbot.escape(request.user_name) + " &amp; <https://a.example|a site>"}}]}


@command("/several")
def several(request, gate: str):
    yield "first"
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    for number in range(6):
        yield f"number {number}"


@command("/fail")
def fail(request, how):
    if how == "user":
        raise slackbot.UserError("You &amp; only you")
    if how == "late":
        yield "first"
    raise RuntimeError("a bug")


slackbot.main()
'''


@pytest.fixture(scope="module")
def bot(script):
    with fakes.Bot(script=script) as bot:
        yield bot
        check_log(bot)


def ask(bot, line):
    """The answer to *line*, in which entities stand for characters, as Slack sends it."""
    got = bot.command(line)
    assert got.status == 200, got.text
    return got.json


def told(bot, line):
    """The arguments that *line*, as somebody typed it, has given to its handler."""
    text = slackbot.unescape(ask(bot, slackbot.escape(line))["text"])
    assert re.fullmatch(r"\(.*\)", text), text
    return eval(text)


# ---- registration

@pytest.fixture
def registry(monkeypatch):
    """A registry for one test."""
    monkeypatch.setattr(slackbot, "commands", {})
    return slackbot.commands


def handler(request):
    """Do something.

    And more."""


@pytest.mark.parametrize("name", ["/dig", "/d", "/jira release", "/a-b_c 1 two-3", "/2",
                                  "/" + "a" * 31])
def test_a_function_is_registered_and_left_as_it_is(registry, name):
    assert slackbot.command(name)(handler) is handler
    assert list(registry) == [name] and registry[name].handler is handler
    assert (registry[name].usage, registry[name].summary) == (name, "Do something.")


@pytest.mark.parametrize("name", [
    "", "/", "dig", "Dig", "/Dig", "/DIG", "/dig ", " /dig", "/a  b", "/a b ", "/a\tb", "/a\nb",
    "/a\n", "//a", "/a/b", "/a.b", "/é", "/a é", "/a B", "/a!", "/" + "a" * 32, "/<b>", "/`a`"])
def test_a_command_name_that_slack_would_not_take_is_a_value_error(registry, name):
    with pytest.raises(ValueError, match="should be like"):
        slackbot.command(name)(handler)
    assert not registry


def test_a_function_may_have_several_names(registry):
    slackbot.command("/a")(slackbot.command("/b")(handler))
    assert sorted(registry) == ["/a", "/b"]


def signatures():
    """Functions with the usage that their parameters make."""
    Rest, Literal = slackbot.Rest, typing.Literal
    yield lambda request: 0, ""
    yield lambda request, name: 0, "NAME"
    yield lambda request, name, type_="A": 0, "NAME [TYPE]"
    yield lambda request, two_words: 0, "TWO_WORDS"
    yield lambda request, *projects: 0, "[PROJECTS…]"

    def literal(request, kind: Literal["a", "b"], times: int = 0):
        pass
    yield literal, "KIND [TIMES]"

    def rest(request, text: Rest):
        pass
    yield rest, "TEXT"

    def perhaps(request, name: "str", text: "Rest" = ""):
        pass
    perhaps.__globals__.setdefault("Rest", Rest)
    yield perhaps, "NAME [TEXT]"


@pytest.mark.parametrize("function, usage", list(signatures()))
def test_the_usage_line_is_made_of_the_parameters_names(registry, function, usage):
    slackbot.command("/do it")(function)
    assert registry["/do it"].usage == f"/do it {usage}".strip()


def test_a_decorated_function_has_the_parameters_of_the_function_itself(registry):
    def twice(function):
        @functools.wraps(function)
        def both(*args, **kwargs):
            return f"{function(*args, **kwargs)} {function(*args, **kwargs)}"
        return both

    @slackbot.command("/twice")
    @twice
    def shout(request: slackbot.Request, word: str = "ho") -> str:
        return word.upper()
    assert registry["/twice"].usage == "/twice [WORD]"
    assert registry["/twice"].handler(None, "hey") == "HEY HEY"


def test_a_method_may_be_a_handler(registry):
    class Polite:
        def greet(self, request, name: str, times: int = 1):
            """Greet somebody."""
            return f"Hello {name}! " * times

    greet = Polite().greet
    assert slackbot.command("/greet")(greet) is greet
    one = registry["/greet"]
    assert (one.usage, one.summary) == ("/greet NAME [TIMES]", "Greet somebody.")
    values = slackbot.bind(one.parameters, "Bob 2")
    assert one.handler(slackbot.Request(), *values) == "Hello Bob! Hello Bob! "


def unfit():
    """Functions with parameters that no command line can fill."""
    def only(request, *, name):
        pass

    def keywords(request, **names):
        pass

    def union(request, count: int | float = 1):
        pass

    def optional(request, when: "datetime.date | None" = None):
        pass

    def nothing():
        pass

    def no_request(name: str):
        pass

    async def waits(request):
        pass

    async def waits_and_yields(request):
        yield ""

    def many(request, *counts: list[int]):
        pass

    def other(request, when: "datetime.date"):
        pass

    def early(request, text: slackbot.Rest, name):
        pass

    def rests(request, text: slackbot.Rest, *texts: slackbot.Rest):
        pass
    return (only, keywords, union, optional, nothing, no_request, waits, waits_and_yields,
            many, other, early, rests)


@pytest.mark.parametrize("function", unfit(), ids=lambda function: function.__name__)
def test_a_function_that_cannot_be_a_command_is_a_type_error_with_file_and_line(registry, function):
    with pytest.raises(TypeError) as caught:
        slackbot.command("/unfit")(function)
    place = f"{__file__}:{function.__code__.co_firstlineno}: {function.__name__}: "
    assert str(caught.value).startswith(place) and not registry


@pytest.mark.parametrize("annotation", [
    int | None, typing.Optional[int], "int | None", "typing.Optional[int]"], ids=str)
def test_a_parameter_may_be_annotated_as_an_int_or_none(registry, annotation):
    def count(request, times=None):
        return str(times)
    count.__annotations__["times"] = annotation
    slackbot.command("/count")(count)
    texts = [slackbot.answers(line)[0]["text"] for line in ("/count 3", "/count", "/count x")]
    assert texts[:2] == ["3", "None"] and "TIMES should be a whole number" in texts[2]


def test_the_brackets_must_not_be_forgotten(registry):
    with pytest.raises(TypeError, match=r'write @command\("/name"\)'):
        @slackbot.command
        def greet(request):
            pass


def test_a_name_that_is_taken_is_a_value_error_that_says_how_to_replace_it(registry):
    slackbot.command("/hello")(handler)
    with pytest.raises(ValueError, match=r'del slackbot\.commands\["/hello"\]'):
        slackbot.command("/hello")(handler)
    del slackbot.commands["/hello"]
    slackbot.command("/hello")(handler)


def test_an_inline_command_may_not_yield(registry):
    def several(request):
        yield "first"
    with pytest.raises(TypeError, match="several"):
        slackbot.command("/several", inline=True)(several)
    assert not registry and slackbot.command("/several")(several)
    assert slackbot.command("/one", inline=True)(handler)
    assert (registry["/one"].inline, registry["/several"].inline) == (True, False)


def test_hello_and_help_are_the_inline_commands():
    inline = {name for name, one in slackbot.commands.items() if one.inline}
    assert inline == {"/hello", "/help"}


def test_an_explicit_usage_line_replaces_the_one_of_the_parameters(registry):
    slackbot.command("/open", usage="HOST[:PORT]")(lambda request, host: 0)
    assert registry["/open"].usage == "/open HOST[:PORT]"


def test_the_module_exports_its_public_names():
    assert set(slackbot.__all__) == {
        "command", "webhook", "Request", "Rest", "UserError", "escape", "button", "main",
        "commands", "answers"}
    assert all(hasattr(slackbot, name) for name in slackbot.__all__)


# ---- finding

@pytest.mark.parametrize("line, values", [
    ("/a", ("/a",)), ("/a x", ("/a", "x")), ("/a x b", ("/a", "x", "b")), ("/a b", ("/a b",)),
    ("/a b x c", ("/a b", "x", "c")), ("/a b c", ("/a b c",)), ("/a b c b", ("/a b c", "b")),
    ("/a bc", ("/a", "bc")), ("/a B C", ("/a b c",)), ("/a   b  c   d", ("/a b c", "d")),
    ("/a b\tc\nd", ("/a b c", "d")), ('/a "b"', ("/a", "b")), ("/x y z", ("/x y", "z"))])
def test_the_longest_name_wins(bot, line, values):
    assert told(bot, line) == values


@pytest.mark.parametrize("line", ["/unknown", "/unknown a b", "/x", "/x z", "/", "/a-b", "/A.b",
                                  "/unknown <!channel>", "/<!channel>", "/" + "u" * 5000])
def test_an_unknown_command_gets_a_list_of_what_there_is(bot, line):
    answer = ask(bot, slackbot.escape(line))
    assert answer["response_type"] == "ephemeral" and "<!" not in answer["text"]
    assert "/a b c [WORDS…]" in answer["text"] and "/hello-world" in answer["text"]
    assert "uuu" not in answer["text"] or len(answer["text"]) < 3000


# ---- arguments

@pytest.mark.parametrize("line, values", [
    ("/none", ()), ("/int 5", (5,)), ("/int -5", (-5,)), ("/int 0", (0,)), ('/int "5"', (5,)),
    ("/float 1.5", (1.5,)), ("/float 2", (2.0,)), ("/float -1e3", (-1000.0,)),
    *[(f"/bool {word}", (True,)) for word in ("yes", "true", "on", "1", "YES", "True")],
    *[(f"/bool {word}", (False,)) for word in ("no", "false", "off", "0", "NO", "False")],
    ("/choice", ("A",)), ("/choice MX", ("MX",)), ("/choice 7", (7,)),
    ("/two ann", ("ann", 1)), ("/two ann 3", ("ann", 3)), ("/two 5", ("5", 1)),
    ("/words", ()), ("/words a b  c", ("a", "b", "c")),
    ("/numbers a", ("a",)), ("/numbers a 1 -2", ("a", 1, -2)), ("/open a:443", ("a:443",))])
def test_words_are_converted_as_the_annotations_say(bot, line, values):
    given = told(bot, line)
    assert given == values and list(map(type, given)) == list(map(type, values))


@pytest.mark.parametrize("line, usage, why", [
    ("/none x", "/none", "`x`"), ("/int", "/int NUMBER", "NUMBER"),
    ("/int five", "/int NUMBER", "`five`"), ("/int 1.5", "/int NUMBER", "`1.5`"),
    ("/int 1 two", "/int NUMBER", "`two`"), ('/int ""', "/int NUMBER", "NUMBER"),
    (f"/int {'9' * 5000}", "/int NUMBER", "`999"), ("/float x", "/float RATIO", "`x`"),
    ("/bool maybe", "/bool FLAG", "`maybe`"), ("/choice X", "/choice [TYPE]", "A, MX, 7"),
    ("/two", "/two NAME [TIMES]", "NAME"), ("/two ann x", "/two NAME [TIMES]", "TIMES"),
    ("/two ann 2 more", "/two NAME [TIMES]", "`more`"),
    ("/numbers a 1 b", "/numbers FIRST [NUMBERS…]", "`b`"), ("/rest", "/rest TEXT", "TEXT"),
    ("/rest  ", "/rest TEXT", "TEXT"), ("/named ann", "/named NAME TEXT", "TEXT"),
    ("/named", "/named NAME TEXT", "NAME"), ("/open", "/open HOST[:PORT]", "HOST"),
    ("/int <!channel>", "/int NUMBER", "<!channel>"), ("/int a&lt;b", "/int NUMBER", "a&lt;b")],
    ids=lambda text: text[:30])
def test_words_that_do_not_fit_get_the_usage_and_what_was_wrong(bot, line, usage, why):
    answer = ask(bot, slackbot.escape(line))
    wrong, _, help_ = answer["text"].partition("Usage:")
    assert answer["response_type"] == "ephemeral" and len(answer["text"]) < 500
    assert f"`{usage}`" in help_.splitlines() and slackbot.escape(why) in wrong


SHELL = [
    ("a  b", "a", "b"), ("a\tb\nc", "a", "b", "c"),
    ('"a b" c', "a b", "c"), ("'a b' c", "a b", "c"),
    ('a"b c"d', "ab cd"), ('""', ""), ("''", ""), ('a "" b', "a", "", "b"),
    ("'a \"b\" c'", 'a "b" c'), ('"it\'s"', "it's"), ("\"'\"", "'"), ("'\"'", '"'),
    (r"a\ b", "a b"), (r"\"a b\"", '"a', 'b"'), (r"it\'s", "it's"), (r"a\\b", r"a\b"),
    ("rock 'n' roll", "rock", "n", "roll"), ('--a="b c"', "--a=b c"),
    (r'"say \"hi\""', 'say "hi"'), (r'"a\\b"', r"a\b")]
LONE = [
    ("it's", "it's"), ("it's a dog's life", "it's", "a", "dog's", "life"), ("'", "'"), ('"', '"'),
    ('5" disk', '5"', "disk"), ("a ' b", "a", "'", "b"), ('a " b', "a", '"', "b"),
    ('say "a', "say", '"a'), ("dogs' cats'", "dogs'", "cats'"), ("'tis", "'tis"),
    ("don't say \"it's fine\"", "don't", "say", "it's fine"), ("a\\", "a\\")]
SMART = [
    ("“two words” x", "two words", "x"), ("‘two words’ x", "two words", "x"), ("it’s", "it's"),
    ("„zwei Wörter“", "zwei Wörter"), ("it‘s “a’s b”", "it's", "a's b")]


@pytest.mark.parametrize("text, words", [(text, tuple(words)) for text, *words in
                                         SHELL + LONE + SMART])
def test_text_is_split_as_a_shell_would_and_a_lone_quote_is_a_character(bot, text, words):
    assert told(bot, "/words " + text) == words


@pytest.mark.parametrize("line, values", [
    ("/rest it's  \"as typed\"", ('it\'s  "as typed"',)), ("/rest  a ", ("a",)),
    ("/rest “smart” it’s", ("“smart” it’s",)), ("/rest two\nlines\t!", ("two\nlines\t!",)),
    (r"/rest a\ b", (r"a\ b",)), ("/rest '", ("'",)), ("/rest <b> & &lt;", ("<b> & &lt;",)),
    ("/perhaps", ("nothing",)), ("/perhaps  ", ("nothing",)), ("/perhaps a  b", ("a  b",)),
    ("/named ann  and  'the rest'", ("ann", "and  'the rest'")),
    ('/named "ann lee" x', ("ann lee", "x")), ("/named “ann lee”  ‘x’", ("ann lee", "‘x’"))])
def test_a_rest_parameter_gets_the_text_as_it_was_typed(bot, line, values):
    assert told(bot, line) == values


@pytest.mark.parametrize("sent, words", [
    ("&lt;b&gt; &amp;", ("<b>", "&")), ("&amp;lt; &amp;amp;", ("&lt;", "&amp;")),
    ("<http://example.com|example.com> MX", ("example.com", "MX")),
    ("<@U1|ann> <mailto:a@b.c|a@b.c> <#C1|x>", ("@ann", "a@b.c", "#x")),
    ("“<http://a.example|a.example> b”", ("a.example b",)),
    ("<https://a.example/?b&amp;c>", ("https://a.example/?b&c",)),
    ("&lt;http://a.example|b&gt;", ("<http://a.example|b>",))])
def test_links_and_entities_that_slack_made_are_undone_exactly_once(bot, sent, words):
    assert eval(slackbot.unescape(ask(bot, "/words " + sent)["text"])) == words
    assert eval(slackbot.unescape(ask(bot, "/rest " + sent)["text"]))[0] in \
        (" ".join(words), f"“{' '.join(words)}”")


# ---- --public

@pytest.mark.parametrize("line, kind, values", [
    ("/words a", "ephemeral", ("a",)), ("/words a --public", "in_channel", ("a",)),
    ("/words a —public", "in_channel", ("a",)), ("/words --public", "in_channel", ()),
    ("/words a --public  ", "in_channel", ("a",)), ("/words a\n--public", "in_channel", ("a",)),
    ("/none --public", "in_channel", ()), ("/rest a  b --public", "in_channel", ("a  b",)),
    ("/perhaps —public", "in_channel", ("nothing",)), ("/a b --public", "in_channel", ("/a b",)),
    ("/words --public a", "ephemeral", ("--public", "a")),
    ("/words —public a", "ephemeral", ("—public", "a")),
    ("/words a--public", "ephemeral", ("a--public",)),
    ("/words --publicly", "ephemeral", ("--publicly",)),
    ("/words public", "ephemeral", ("public",)), ("/words -public", "ephemeral", ("-public",))])
def test_public_as_the_last_word_shows_the_answer_to_all(bot, line, kind, values):
    assert told(bot, line) == values
    assert ask(bot, slackbot.escape(line))["response_type"] == kind


@pytest.mark.parametrize("line, kind", [
    ("/own-type ephemeral --public", "ephemeral"), ("/own-type in_channel", "in_channel"),
    ("/whoami --public", "in_channel"), ("/unknown --public", "ephemeral"),
    ("/int five --public", "ephemeral"), ("/int --public", "ephemeral"),
    ("/fail user --public", "ephemeral"), ("/help int --public", "in_channel"),
    ("/help nothing --public", "ephemeral")])
def test_errors_stay_with_the_user_and_a_dict_keeps_its_own_type(bot, line, kind):
    assert ask(bot, line)["response_type"] == kind


# ---- help

def test_help_the_list_and_the_status_have_one_source(bot):
    listed = bot.get("/status").json["commands"]
    assert {one["name"] for one in listed} >= {"/int", "/a b c", "/hello", "/help"}
    for text in (ask(bot, "/help")["text"], ask(bot, "/unknown")["text"]):
        for one in listed:
            line = f"`{slackbot.escape(one['usage'])}` {slackbot.escape(one['summary'])}".strip()
            assert any(each.strip(" •") == line for each in text.splitlines()), line
    assert {"name": "/two", "usage": "/two NAME [TIMES]",
            "summary": "Take a name, and perhaps a number."} in listed


@pytest.mark.parametrize("line, usages", [
    ("/help int", ["/int NUMBER"]), ("/help /int", ["/int NUMBER"]),
    ("/help open", ["/open HOST[:PORT]"]),
    ("/help /a", ["/a [WORDS…]", "/a b [WORDS…]", "/a b c [WORDS…]"])])
def test_help_tells_how_to_use_one_command(bot, line, usages):
    answer = ask(bot, line)
    assert re.findall(r"`(/[^`]+)`", answer["text"]) == usages
    assert "int" not in line or "Take a number." in answer["text"]


@pytest.mark.parametrize("line", ["/help nothing", "/help /", "/help <!channel>"])
def test_help_for_what_is_not_there_lists_what_is(bot, line):
    answer = ask(bot, slackbot.escape(line))
    assert "/int NUMBER" in answer["text"] and "<!" not in answer["text"]


# ---- in a file of one's own, and in the terminal

def run(script, *words, **environ):
    """Run one command in the terminal: the exit status and stdout."""
    bot = fakes.Bot("run", *words, script=script, **environ)
    done = subprocess.run(bot.command_line, env=bot.environ, capture_output=True, text=True,
                          timeout=PATIENCE)
    return done.returncode, done.stdout


@pytest.fixture
def sample(tmp_path):
    """The file that the module's docstring shows to who wants to add a command."""
    found = re.search(r"^    import slackbot\n.*?^ +slackbot\.main\(\)\n", slackbot.__doc__,
                      re.MULTILINE | re.DOTALL)
    script = tmp_path / "greet.py"
    script.write_text(textwrap.dedent(found[0]))
    return script


def test_the_file_in_the_docstring_is_a_server(sample):
    with fakes.Bot(script=sample) as bot:
        assert ask(bot, "/greet &lt;Bob&gt; 2")["text"] == "Hello &lt;Bob&gt;! Hello &lt;Bob&gt;! "
        assert "/greet NAME [TIMES]" in ask(bot, "/help")["text"]
        assert "/greet NAME [TIMES]" in ask(bot, "/greet")["text"]
        assert "Example" in ask(bot, "/hello Example")["text"]


def test_the_file_in_the_docstring_runs_in_the_terminal(sample):
    assert run(sample, "/greet <Bob> 2") == (0, "Hello <Bob>! Hello <Bob>! \n")


@pytest.mark.parametrize("words, output", [
    (["/words a  b"], "('a', 'b')"), (["/words", "a", "b"], "('a', 'b')"),
    (["/a b c"], "('/a b c',)"), (["/a", "b", "c", "d"], "('/a b c', 'd')"),
    (["/words 'a b' c"], "('a b', 'c')"), (["/words", "a b", "c"], "('a b', 'c')"),
    (["/words", "it's", "x"], '("it\'s", \'x\')'), (["/words", "a"], "('a',)"),
    (["/words", "“a b”", "c"], """('"a b"', 'c')"""),
    (["/words &lt;b> <@U1|x>"], "('&lt;b>', '<@U1|x>')"),
    (["/rest it's  so"], '("it\'s  so",)'),
    (["/words a --public"], "('a',)"), (["/own-type x"], "Hi"),
    (["/whoami"], f"{getpass.getuser()} & a site (https://a.example)")])
def test_one_argument_is_the_whole_line_and_several_are_its_words(script, words, output):
    assert run(script, *words) == (0, output + "\n")


def test_a_user_id_without_a_name_can_run_a_command(tmp_path):
    script = tmp_path / "nobody.py"
    script.write_text("import os\nimport slackbot\n"
                      "os.getuid = lambda: 12345  # of whom /etc/passwd knows nothing\n"
                      "slackbot.main()\n")
    assert run(script, "/hello") == (0, "Hello you\n")


@pytest.mark.parametrize("line, words", [
    ("/fail user", ["You & only you"]), ("/fail now", ["/fail now"]),
    ("/fail late", ["first", "/fail late"]), ("/unknown", ["/unknown", "/int NUMBER"]),
    ("/int five", ["five", "/int NUMBER"]), ("int 5", ["int"]), ("", ["/int NUMBER"])])
def test_what_fails_in_the_terminal_says_why_and_exits_with_1(script, line, words):
    status, output = run(script, line)
    assert status == 1 and all(word in output for word in words), output


def test_the_terminal_shows_each_answer_as_it_comes(script, tmp_path):
    gate = tmp_path / "gate"
    bot = fakes.Bot("run", "/several", str(gate), script=script)
    with subprocess.Popen(bot.command_line, env=bot.environ, stdout=subprocess.PIPE,
                          text=True) as process:
        threading.Timer(2, gate.touch).start()
        assert process.stdout.readline() == "first\n" and not gate.exists()
        gate.touch()
        assert process.stdout.read() == "".join(f"number {number}\n" for number in range(6))
    assert process.returncode == 0


# ---- mistyped names ----

@pytest.fixture
def jira_like(registry):
    """Commands with names of several words."""
    for name in ("/jira", "/jira release", "/jira releases", "/jira search", "/a b c"):
        slackbot.command(name)(lambda request, key: f"{name} {key}")


@pytest.mark.parametrize("line, typed, meant", [
    ("/jra", "/jra", "/jira"), ("/jra release 2.3", "/jra", "/jira"),
    ("/JRA release 2.3", "/jra", "/jira"), ("jira release 2.3", "jira", "/jira"),
    ("/jira relase 2.3", "/jira relase", "/jira release"),
    ("/jira  serach x y", "/jira serach", "/jira search")])
def test_a_mistyped_name_gets_a_suggestion(jira_like, line, typed, meant):
    answer, = slackbot.answers(line)
    assert answer["text"] == f"There is no `{typed}`. Did you mean `{meant}`?"


@pytest.mark.parametrize("line", ["/jira", "/jira release", "/jira SHOP-1 SHOP-2", "/a b",
                                  "/jira search a b", "/j", "/" + "jira" * 5000])
def test_what_is_not_nearly_a_name_gets_no_suggestion(jira_like, line):
    answer, = slackbot.answers(line)
    assert "Did you mean" not in answer["text"]


# ---- `answers`, for tests ----

@pytest.fixture
def greet(registry):
    """The command of the README, as a test would import it."""
    @slackbot.command("/greet")
    def greet(request, name: str, times: int = 1):
        if times > 5:
            raise slackbot.UserError("That is too often.")
        if times < 0:
            raise ValueError("a bug")
        for number in range(times - 1):
            yield f"{number + 1}: {request.user_name} greets {name}"
        yield None
        return f"Hello {slackbot.escape(name)}!"
    return greet


def test_answers_gives_all_answers_in_order(greet):
    found = slackbot.answers('/greet "Ann & Bob" 3', user_name="ann")
    assert [answer["text"] for answer in found] == [
        "1: ann greets Ann & Bob", "2: ann greets Ann & Bob", "Hello Ann &amp; Bob!"]
    assert {answer["response_type"] for answer in found} == {"ephemeral"}
    assert slackbot.answers("/greet Ann --public")[0]["response_type"] == "in_channel"


def test_answers_gives_errors_and_apologies_too(greet, caplog):
    texts = [slackbot.answers(f"/greet Ann {times}")[0]["text"] for times in ("9", "two", "-1")]
    assert texts[0] == "That is too often."
    assert texts[1].startswith("TIMES should be a whole number, not `two`. Usage:")
    assert texts[2].startswith("Sorry, `/greet Ann -1` failed") and "a bug" in caplog.text


def test_a_list_as_an_answer_is_a_bug_whose_reason_says_what_to_do(registry, caplog):
    @slackbot.command("/list")
    def lines(request):
        return ["one", "two"]
    assert "Sorry" in slackbot.answers("/list")[0]["text"]
    assert "yield" in caplog.text and r'"\n".join(lines)' in caplog.text
