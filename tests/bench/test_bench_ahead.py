# SPDX-License-Identifier: Apache-2.0
"""tools/bench_ahead.py measures, counts bytes that must be there, and keeps what it found."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "tools/bench_ahead.py"
DEADLINE = 120


def bench(*args):
    """Run it. Return: the finished process."""
    return subprocess.run([sys.executable, BENCH, "--thaw", os.environ["THAW"], "--vmm", os.environ["AHEAD_VMM"],
                           *map(str, args)], capture_output=True, text=True, check=False, timeout=DEADLINE,
                          stdin=subprocess.DEVNULL)


def measure(tmp_path, name):
    """One round of one measurement, with a small guest. Return: its results."""
    done = bench("--out", tmp_path, "--rounds", 1, "--size", 16, "--quiet", 100, name)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ahead.json", "ahead.svg", "ahead.txt"]
    assert (tmp_path / "ahead.svg").read_text().startswith("<svg")
    return json.loads((tmp_path / "ahead.json").read_text())


def test_every_way_to_install_everything_is_timed(tmp_path):
    result, = measure(tmp_path, "bulk")
    assert all(values["us"] > 0 for values in result["median"].values())
    assert len(result["median"]) == 8
    assert [aim["bound"] for aim in result["aims"]] == [0.9, 1.6]


def test_a_working_set_that_is_replayed_before_the_vm_goes_on_costs_no_fault(tmp_path):
    for result in measure(tmp_path, "scattered"):
        pages = 16 * 256 * 24 // 256
        assert result["median"]["demand, one page"]["faults"] == pages
        assert result["median"]["replay before resume"]["faults"] == 0
        assert result["median"]["replay while it runs"]["faults"] <= pages


def test_faults_are_answered_and_discards_heard_while_everything_is_installed(tmp_path):
    result, = measure(tmp_path, "beside")
    assert result["median"]["faults beside --fill"]["gib_s"] > 0
    assert result["median"]["faults, alone"]["faults"] > 0


def test_discards_are_timed_with_and_without_a_pager(tmp_path):
    result, = measure(tmp_path, "discards")
    assert {case.split(", ")[1] for case in result["median"]} == {"no pager", "pager idle"}


@pytest.mark.parametrize("args, words", [
    (["nonsense"], "no measurement nonsense"),
    (["--rounds", "0"], "at least 1 round"),
    (["--size", "1"], "8 MiB"),
])
def test_what_cannot_be_measured_is_a_usage_error(args, words):
    done = bench(*args)
    assert done.returncode == 2
    assert words in done.stderr
