"""The rules for the file: its budgets, the order of its sections, and text that must stay true."""

import ast
import dis
import doctest
import re
import sys
import types

import measure
import pytest
import slackbot
from fakes import ROOT

SOURCE = (ROOT / "slackbot.py").read_text()
README = (ROOT / "README.md").read_text()
LINES = SOURCE.splitlines()
TREE = ast.parse(SOURCE)
SECTIONS = measure.sections(SOURCE)

# The budgets of the design's section 6. A budget is what may be, not what there is today.
TOKENS = 23_000  # of the whole file
TOKENS_A_LINE = 9.0  # on average, of a line of code
FUNCTION_LINES = 40  # from `def` to the end, docstring included
WIDTH = 99  # characters of a line


def defined():
    """The line at which each name of the module's top level is defined first."""
    names = {}
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.setdefault(node.name, node.lineno)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            for name in ast.walk(target) if target else ():
                if isinstance(name, ast.Name):
                    names.setdefault(name.id, node.lineno)
    return names


class WithoutAnnotations(ast.NodeTransformer):
    """Takes the annotations off a tree: they may name anything."""

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node):
        assigned = ast.Assign([node.target], node.value) if node.value else ast.Pass()
        return ast.copy_location(assigned, node)


def globals_in(code):
    """The globals that compiled *code* and the functions in it name: (line, name)."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno or line
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield line, instruction.argval
        elif isinstance(instruction.argval, types.CodeType):
            yield from globals_in(instruction.argval)


def contents():
    """The names in the docstring's list of contents."""
    block = slackbot.__doc__.partition("\nContents\n")[2].partition("\n\n")[0]
    return re.findall(r"^    ([^:\n]+): ", block, re.MULTILINE)


# ---- budgets ----

def test_the_file_has_no_more_tokens_than_its_budget():
    assert len(list(measure.tokens(SOURCE))) <= TOKENS


def test_a_line_of_code_has_at_most_nine_tokens_on_average():
    counts = measure.tokens_by_line(SOURCE)
    assert sum(counts.values()) / len(counts) <= TOKENS_A_LINE


def test_no_function_is_longer_than_40_lines():
    for name, length in measure.function_lengths(SOURCE).items():
        assert length <= FUNCTION_LINES, name


def test_no_line_is_wider_than_99_characters():
    for number, line in enumerate(LINES, 1):
        assert len(line) <= WIDTH, f"line {number}"


SNIPPETS = [  # (source, its tokens, its lines of code); tokens that count are x, =, 1 and so on
    ("x = 1\n", 3, 1), ("x = 1  # why\n\n# more\n", 3, 1), ("x = (1,\n     2)\n", 7, 2),
    ('"""Doc."""\nx = 1\n', 3, 1), ('"""Doc,\nlong."""\n', 0, 0),
    ('def f():\n    """Doc."""\n    return 1\n', 7, 2), ('x = "text"\n', 3, 1),
    ('x = """one\ntwo\nthree"""\n', 3, 3), ('x = f"one"\n', 3, 1),
    ('x = f"one {1} two {y!r:>{9}} {{}}"\n', 3, 1), ("x = f\"{f'{y}'}\" + z\n", 5, 1),
    ('x = f"a {y}" f"b {z}" "c"\n', 5, 1), ('x = f"""one\n{y}\nthree"""\n', 3, 3),
    ("if x:\n    y\n", 4, 2)]


def test_tokens_are_counted_alike_in_every_version_of_python():
    for source, tokens, lines in SNIPPETS:
        counts = measure.tokens_by_line(source)
        assert (sum(counts.values()), len(counts)) == (tokens, lines), source
        assert len(list(measure.tokens(source))) == tokens


# ---- the order of the sections ----

def test_the_contents_in_the_docstring_are_the_sections():
    assert contents() == list(SECTIONS)


def test_every_section_says_what_it_is_for():
    for name, lines in SECTIONS.items():
        assert re.match(r"# \w", LINES[lines[0]]), name


def test_no_section_names_something_that_is_defined_below_it():
    lines_of = defined()
    tree = ast.fix_missing_locations(WithoutAnnotations().visit(ast.parse(SOURCE)))
    named = list(globals_in(compile(tree, "slackbot.py", "exec")))
    assert len(named) > 1000
    for line, name in named:
        section = next((each for each, lines in SECTIONS.items() if line in lines), None)
        if section and name in lines_of:
            last = SECTIONS[section][-1]
            assert lines_of[name] <= last, f"{section}: {name} in line {line}"


def test_nothing_is_imported_from_outside_the_standard_library():
    for node in ast.walk(TREE):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
            [node.module] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.partition(".")[0] in sys.stdlib_module_names


def test_every_import_is_used():
    names = {node.id for node in ast.walk(TREE) if isinstance(node, ast.Name)}
    for node in TREE.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                assert (alias.asname or alias.name).partition(".")[0] in names, alias.name


def test_only_the_configuration_and_main_know_the_environment():
    for node in ast.walk(TREE):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            assert node.lineno in SECTIONS["main"], f"line {node.lineno}"


# ---- comments and docstrings ----

def is_number(node):
    """Whether an expression is made of numbers alone, `30 * 60` for example."""
    numbers = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.operator, ast.unaryop,
               ast.expr_context)
    return all(isinstance(part, numbers) for part in ast.walk(node)) and all(
        type(part.value) in (int, float) for part in ast.walk(node)
        if isinstance(part, ast.Constant))


def test_every_number_at_the_top_level_has_its_unit_or_reason_beside_it():
    found = [node for node in TREE.body if isinstance(node, ast.Assign) and is_number(node.value)]
    assert len(found) > 20
    for node in found:
        line = LINES[node.end_lineno - 1].encode()[node.end_col_offset:].decode()
        assert re.match(r"  # \w", line), f"line {node.lineno}: {LINES[node.lineno - 1]}"


def documented():
    """What has to have a docstring: classes, functions and public methods. Dunder methods have
    none; that of WithDeadline is explained by its class."""
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node
        if isinstance(node, ast.ClassDef) and node.name != "WithDeadline":
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield method


def test_every_function_class_and_public_method_has_a_docstring():
    found = list(documented())
    assert len(found) > 200
    for node in found:
        assert ast.get_docstring(node), f"{node.name}, line {node.lineno}"


def test_the_names_in_the_journey_exist():
    journey = slackbot.__doc__.partition("The journey")[2].partition("\nContents\n")[0]
    for name in re.findall(r"`([A-Za-z_][\w.]*)`", journey):
        found = slackbot
        for part in name.split("."):
            found = getattr(found, part)


def test_the_examples_in_the_docstrings_are_true():
    results = doctest.testmod(slackbot)
    assert results.attempted > 5 and not results.failed


# ---- README.md ----

def test_the_readme_has_every_command_and_no_other():
    table = set(re.findall(r"^\| `(/[^`]+)` \|", README, re.MULTILINE))
    assert table == {one.usage for one in slackbot.commands.values()
                     if one.handler.__module__ == "slackbot"}


def test_the_readme_has_every_variable_and_no_other():
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert table == set(slackbot.SETTINGS)
    shouted = set(re.findall(r"\b(?:SLACK|SLACKBOT|JIRA|DNS|WHOIS)_[A-Z_]+\b", README))
    assert shouted <= set(slackbot.SETTINGS)


def test_the_example_in_the_readme_is_the_one_in_the_docstring():
    example = slackbot.__doc__.partition("    import slackbot\n")[2].partition("main()")[0]
    assert re.sub(r"^    ", "", example, flags=re.MULTILINE) in README


def test_the_readme_is_short_and_in_order():
    assert len(README.splitlines()) <= 300
    assert max(map(len, README.splitlines())) <= 120
    before, *sections = re.split(r"^## ", README, flags=re.MULTILINE)
    title, sentence, picture, _ = before.strip().split("\n\n")
    assert title == "# slackbot.py" and sentence.count(". ") == 0 and sentence.endswith(".")
    assert re.fullmatch(r"!\[.+\]\(tests/report\.png\)", picture)
    assert [section.partition("\n")[0] for section in sections] == [
        "Why this and not slack_bolt", "Two commands", "A command of your own",
        "Connect Slack and JIRA", "Commands", "Settings", "Deploy", "Webhooks", "Troubleshooting",
        "Limits and security", "Tests and licence"]


def test_every_file_that_the_readme_names_is_there():
    named = set(re.findall(r"(?<![\w@/.])[\w./-]*\w\.(?:py|txt|md|png|html|yaml)\b|\.ci/run"
                           r"|\b(?:Procfile|Dockerfile|LICENSE)\b|\btests/bench\b", README))
    own = {"mybot.py", "test_mybot.py"}  # the reader's
    named = {name for name in named if not name.startswith("/")} - own
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_readme_gives_a_reason_for_every_scope():
    scopes = slackbot.manifest()["oauth_config"]["scopes"]["bot"]
    paragraph = README.partition("**scopes**")[2].partition("\n\n")[0]
    known = re.findall(r"`([a-z_]+(?::[a-z]+)?)`", paragraph)
    assert sorted(known) == sorted(scopes)


def test_the_picture_of_a_report_is_small():
    data = (ROOT / "tests" / "report.png").read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) < 100_000
    assert 800 <= int.from_bytes(data[16:20]) <= 1000  # its width


def run_samples(name, tmp_path, monkeypatch):
    """Run the README's Python samples that contain *name*, with its own mybot.py beside them."""
    samples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mybot.py").write_text(samples[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mybot", raising=False)
    scope = {"slackbot": slackbot}
    exec("".join(sample for sample in samples if name in sample), scope)
    return scope


@pytest.fixture
def registry(monkeypatch):
    """The commands, which are as before when the test is over."""
    monkeypatch.setattr(slackbot, "commands", slackbot.commands.copy())
    return slackbot.commands


def test_the_test_in_the_readme_passes(registry, tmp_path, monkeypatch):
    run_samples("import mybot", tmp_path, monkeypatch)["test_greet"]()


@pytest.mark.parametrize("times, said", [("", 1), (" 2", 2), (" 5", 5), (" 40000000", 5),
                                         (" " + "9" * 400, 5)], ids=lambda times: str(times)[:9])
def test_the_first_command_in_the_readme_answers_in_a_few_words(registry, tmp_path, monkeypatch,
                                                                times, said):
    run_samples("import mybot", tmp_path, monkeypatch)
    assert [answer["text"] for answer in slackbot.answers(f"/greet Ann{times}")] == [
        "Hello Ann! " * said]


def test_the_other_commands_in_the_readme_answer(registry, tmp_path, monkeypatch):
    run_samples("/count", tmp_path, monkeypatch)
    assert [answer["text"] for answer in slackbot.answers("/count 2")] == ["1…", "2…"]
    assert len(slackbot.answers("/count 40000000")) == 5
    [answer] = slackbot.answers("/service shop")
    assert answer["text"] == ":large_green_circle: *shop* is up"
    assert answer["blocks"][1]["elements"] == [
        slackbot.button("Refresh", "/service shop", "run:replace")]


def test_the_lines_that_leave_commands_out_leave_them_out(registry):
    lines = re.search(r"(?:^    (?:del|for) .*slackbot\.commands.*\n)+", README, re.MULTILINE)[0]
    exec("\n".join(map(str.strip, lines.splitlines())), {"slackbot": slackbot})
    assert set(registry) == {"/hello", "/help", "/dig", "/whois", "/openssl"}
