# SPDX-License-Identifier: Apache-2.0
"""test_scenarios.py - docs/scenarios.md and the mutations: all that they name exists, and each change can still be made"""

import importlib.util
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
DOCUMENT = ROOT / "docs/scenarios.md"


def load(path):
    """A program of the tree as a module."""
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location(path.stem + "_of_" + path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TABLE = load(TESTS / "mutation/table.py")
MUTATIONS = {mutation.name: mutation for mutation in TABLE.MUTATIONS}
SCHEDULES = set(load(TESTS / "fuzz/mutate.py").MUTATIONS)
MODEL = {check.name.removesuffix(" (caught)") for check in load(TESTS / "model/run.py").CHECKS if check.caught}


def rows():
    """The document's tables: the cells of each row that has a number."""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| S\d", line):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_file(name):
    """The file that a test is in, and the test's name in it ("" for a trace)."""
    file, _, function = name.partition("::")
    return TESTS / file, function.partition("[")[0]


test_file.__test__ = False


def exists(name):
    """Does a test named as in the document exist?"""
    file, function = test_file(name)
    if not file.is_file():
        return False
    if file.suffix == ".trace":
        return not function
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return re.search(rf"^def {function}\(", text, re.MULTILINE) is not None
    return re.search(rf"\b{function}\(void \*\*state\)", text) is not None and \
        re.search(rf"\(\s*{function}\s*[,)]", text) is not None


def in_document(mutation):
    """The mutation's test as the document names it."""
    kind, _, rest = mutation.test.partition(":")
    file, _, name = rest.partition("::")
    return {"build": "the compiler", "trace": f"`trace/{file}.trace`", "unit": f"`unit/{file}.c::{name}`",
            "process": f"`process/{file}.py::{name}`"}[kind]


def test_every_scenario_has_a_number_of_its_own_and_a_severity():
    numbers = [row[0] for row in rows()]
    assert len(numbers) == len(set(numbers)) > 100
    assert {row[2] for row in rows()} == {"hang", "corruption", "crash", "cost"}


def test_every_scenario_has_a_test_that_exists_or_a_reason():
    for row in rows():
        if len(row) == 4:
            assert row[3].startswith(("cannot happen by design: ", "belongs to a part that does not exist yet: ")), row
            continue
        named = re.findall(r"`([^`]+)`", row[3])
        assert named, row
        for name in named:
            assert exists(name), f"{row[0]}: there is no {name}"


def test_every_scenario_with_a_test_says_how_its_fix_was_taken_out():
    for row in rows():
        if len(row) == 4:
            continue
        names = re.findall(r"\*([^*]+)\*", row[4])
        assert names or row[4].startswith("no single change: "), row
        for name, rest in re.findall(r"\*([^*]+)\*([^*]*)", row[4]):
            if "model/run.py" in rest:
                assert name in MODEL, f"{row[0]}: the model has no mistake '{name}'"
            elif "fuzz/mutate.py" in rest:
                assert name in SCHEDULES, f"{row[0]}: mutate.py has no mistake '{name}'"
            else:
                assert name in MUTATIONS, f"{row[0]}: table.py has no mutation '{name}'"
                assert rest.strip(":; ") == in_document(MUTATIONS[name]) + " fails", f"{row[0]}: {name}"


def test_every_mutation_is_of_some_scenario():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(MUTATIONS) == len(TABLE.MUTATIONS), "two mutations have one name"
    for name in MUTATIONS:
        assert f"*{name}*" in text, name


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_can_be_made(name):
    mutation = MUTATIONS[name]
    assert mutation.old != mutation.new
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1, \
        "its old text is not in the file exactly once: say the change again in the program's words"
    assert mutation.test == "build" or exists(in_document(mutation).strip("`")), mutation.test
