# SPDX-License-Identifier: Apache-2.0
"""test_page_states.py - tools/page_states.py reads the table as it is, and refuses one that cannot be right"""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "tools/page_states.py"

GOOD = """\
PAGE_STATE(ABSENT, 0, IMAGE, "#d9dde3", "not installed, yet")
PAGE_STATE(CLEAN,  1, IMAGE, "#4c9f70", "installed")
PAGE_FAULT(ABSENT, IMAGE)
PAGE_FAULT(CLEAN,  ZERO)
PAGE_EVENT(INSTALL, "put in")
PAGE_EDGE(INSTALL, ABSENT, CLEAN)
"""


def run(tmp_path, table, *arguments):
    path = tmp_path / "table.def"
    path.write_text(table, encoding="utf-8")
    return subprocess.run([sys.executable, "-B", TOOL, "--def", path, *arguments], capture_output=True, text=True,
                          timeout=30, check=False)


def test_a_step_has_the_edges_of_the_table_and_no_others(tmp_path):
    result = run(tmp_path, GOOD, "promela")
    assert result.returncode == 0, result.stderr
    assert "#define PAGE_INITIAL PAGE_ABSENT" in result.stdout
    assert result.stdout.count("-> page_state[p] = ") == 1
    assert "page_state[p] == PAGE_ABSENT -> page_state[p] = PAGE_CLEAN" in result.stdout
    assert "else -> assert(false)" in result.stdout


def test_a_picture_of_another_table_is_out_of_date(tmp_path):
    picture = tmp_path / "picture.svg"
    assert run(tmp_path, GOOD, "svg", "-o", picture).returncode == 0
    assert run(tmp_path, GOOD, "svg", "--check", picture).returncode == 0
    changed = run(tmp_path, GOOD.replace("put in", "put there"), "svg", "--check", picture)
    assert changed.returncode == 1
    assert "out of date" in changed.stderr


def test_a_missing_picture_is_not_up_to_date(tmp_path):
    result = run(tmp_path, GOOD, "svg", "--check", tmp_path / "nothing.svg")
    assert result.returncode == 1
    assert "is missing" in result.stderr


@pytest.mark.parametrize("line, complaint", [
    ('PAGE_STATE(CLEAN, 2, IMAGE, "#4c9f70", "again")', "line 7: state CLEAN is there twice"),
    ('PAGE_STATE(DIRTY, 1, SELF, "#4c9f70", "a code twice")\nPAGE_FAULT(DIRTY, ZERO)', "two states have one code"),
    ('PAGE_STATE(DIRTY, 8, SELF, "#4c9f70", "four bits")', "line 7: DIRTY: code 8 does not fit"),
    ('PAGE_STATE(DIRTY, 2, SELF, "red", "a colour by name")', "line 7: DIRTY: red is not a colour"),
    ('PAGE_STATE(DIRTY, 2, SELF, "#d1495b", "no answer")', "no PAGE_FAULT for DIRTY"),
    ("PAGE_FAULT(CLEAN, NOTHING)", "line 7: CLEAN has two answers"),
    ("PAGE_FAULT(GONE, ZERO)", "line 7: no state GONE"),
    ("PAGE_EDGE(INSTALL, ABSENT, ABSENT)", "line 7: INSTALL leads from ABSENT to two states"),
    ("PAGE_EDGE(INSTALL, CLEAN, GONE)", "line 7: no state GONE"),
    ("PAGE_EDGE(RENEW, CLEAN, CLEAN)", "line 7: no event RENEW"),
    ('PAGE_EVENT(RENEW, "an event that goes nowhere")', "event RENEW has no edge"),
    ("PAGE_EDGE(INSTALL, CLEAN)", "line 7: "),
    ("PAGE_EDGE(INSTALL, CLEAN, 1 + 1)", "line 7: cannot read the arguments"),
])
def test_a_table_that_cannot_be_right_is_refused(tmp_path, line, complaint):
    result = run(tmp_path, GOOD + line + "\n", "promela")
    assert result.returncode == 2
    assert complaint in result.stderr
    assert result.stdout == ""


def test_an_edge_that_has_no_place_in_the_picture_is_refused(tmp_path):
    table = GOOD + 'PAGE_EVENT(LOSE, "taken out")\nPAGE_EDGE(LOSE, CLEAN, ABSENT)\n'
    assert run(tmp_path, table, "promela").returncode == 0
    result = run(tmp_path, table, "svg")
    assert result.returncode == 2
    assert "no route to draw CLEAN -> ABSENT" in result.stderr
