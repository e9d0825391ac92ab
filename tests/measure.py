"""Count a Python file as the budgets do: lines, lines of code, and how long its functions are."""

import ast
import io
import tokenize


def code_lines(source):
    """The numbers of the lines that hold code: not blank, not comment, not docstring."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
               tokenize.ENDMARKER, tokenize.ENCODING}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(source)


def docstring_lines(source):
    """The numbers of the lines that docstrings take."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and \
                ast.get_docstring(node) is not None:
            lines.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def function_lengths(source):
    """Each function's name and its lines from `def` to its end, docstring included."""
    return {f"{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1
            for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


if __name__ == "__main__":
    import pathlib
    import sys
    text = pathlib.Path(sys.argv[1]).read_text()
    lengths = function_lengths(text)
    print(len(text.splitlines()), "lines,", len(code_lines(text)), "of code,", len(lengths),
          "functions, mean", round(sum(lengths.values()) / len(lengths), 1),
          "max", max(lengths.items(), key=lambda item: item[1]))
    previous = None
    names = [(number, line[7:].split(" -")[0]) for number, line in
             enumerate(text.splitlines(), 1) if line.startswith("# ---- ")]
    for (start, name), (end, _) in zip(names, names[1:] + [(len(text.splitlines()) + 1, "")]):
        code = [line for line in code_lines(text) if start <= line < end]
        print(f"  {name:28} {end - start:5} {len(code):5}")
