#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""file_sizes.py - no file above 600 lines, no function above 60

    file_sizes.py [ROOT]

Functions of C files are found by their layout, which clang-format keeps: the brace that opens a body and the one that
closes it stand alone at the beginning of a line. Functions of Python files are found by Python's own parser. The
lines counted are those between the braces, or the whole definition in Python.
"""

import ast
import pathlib
import sys

MAX_FILE = 600
MAX_FUNCTION = 60

FOLDERS = ("src", "include", "examples", "tests", "tools", ".ci")
SUFFIXES = (".c", ".h", ".def", ".py", ".sh", ".pml")


def c_functions(lines):
    """(line number, name, length) of each function body."""
    start = None
    head = ""
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line.rstrip(";") == "}" and start is not None:
            yield start, head, number - start - 1
            start = None
        elif start is None and line and not line[0].isspace() and "(" in line:
            head = line.split("(")[0].split()[-1].lstrip("*")


def python_functions(text):
    """(line number, name, length) of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name, node.end_lineno - node.lineno + 1


def check_file(root, path):
    """Prints what is too long in one file; returns how many things."""
    name = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    offences = 0
    if len(lines) > MAX_FILE:
        print(f"{name}: {len(lines)} lines, at most {MAX_FILE}")
        offences += 1
    functions = []
    if path.suffix in (".c", ".h"):
        functions = c_functions(lines)
    elif path.suffix == ".py":
        functions = python_functions(text)
    for number, function, length in functions:
        if length > MAX_FUNCTION:
            print(f"{name}:{number}: {function}() has {length} lines, at most {MAX_FUNCTION}")
            offences += 1
    return offences


def main(argv):
    root = pathlib.Path(argv[0] if argv else ".").resolve()
    files = [p for folder in FOLDERS for p in sorted((root / folder).rglob("*")) if p.suffix in SUFFIXES]
    offences = sum(check_file(root, p) for p in files)
    print(f"sizes: {len(files)} files, {offences} too long")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
