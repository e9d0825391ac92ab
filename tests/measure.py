"""Count a Python file as the budgets do: tokens, lines of code, how long its functions are.

    python3 tests/measure.py slackbot.py

A token is one of Python's `tokenize`, without comments, docstrings, line ends and indentation. An
f-string is one token, as it was up to Python 3.11: later versions take it apart."""

import ast
import collections
import io
import re
import tokenize

BANNER = re.compile(r"^# ---- (.+?) -+$")
IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENDMARKER, tokenize.ENCODING}
F_STRING_START = getattr(tokenize, "FSTRING_START", None)
F_STRING_END = getattr(tokenize, "FSTRING_END", None)


def tokens(source):
    """The tokens of *source* that count, each as its first and last line."""
    docstrings = docstring_lines(source)
    depth = 0  # of f-strings within f-strings
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == F_STRING_START:
            depth += 1
            if depth == 1:
                first = token.start[0]
        elif token.type == F_STRING_END:
            depth -= 1
            if depth == 0:
                yield first, token.end[0]
        elif token.type == tokenize.STRING and token.start[0] in docstrings:
            continue
        elif depth == 0 and token.type not in IGNORED:
            yield token.start[0], token.end[0]


def docstring_lines(source):
    """The numbers of the lines that docstrings take."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and \
                ast.get_docstring(node) is not None:
            lines.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def tokens_by_line(source):
    """How many tokens begin on each line of code. A line within a token has none."""
    counts = collections.Counter()
    for first, last in tokens(source):
        counts.update(dict.fromkeys(range(first, last + 1), 0))
        counts[first] += 1
    return counts


def function_lengths(source):
    """Each function's name and its lines from `def` to its end, docstring included."""
    return {f"{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1
            for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


def sections(source):
    """The sections of *source* in order: {name: range of its lines, from its banner}."""
    lines = source.splitlines()
    starts = {number: BANNER.match(line)[1]
              for number, line in enumerate(lines, 1) if BANNER.match(line)}
    ends = [*starts, len(lines) + 1][1:]
    return {name: range(start, end) for (start, name), end in zip(starts.items(), ends)}


def row(name, counts):
    """A line of the table: tokens, lines of code, tokens a line."""
    total = sum(counts)
    return f"{name:28} {total:7} {len(counts):7} {total / max(1, len(counts)):7.1f}"


if __name__ == "__main__":
    import pathlib
    import sys
    text = pathlib.Path(sys.argv[1]).read_text()
    lengths = function_lengths(text)
    counts = tokens_by_line(text)
    print(f"{'':28}  tokens   lines  a line")
    for name, lines in sections(text).items():
        print(row(name, [counts[line] for line in lines if line in counts]))
    print(row("all", counts.values()))
    name, length = max(lengths.items(), key=lambda item: item[1])
    print(f"{len(lengths)} functions, the longest has {length} lines: {name}")
