# SPDX-License-Identifier: Apache-2.0
"""
`thaw bench ahead` from the outside: each measurement runs to its end on a small guest, compares every byte, and its
results have what they ought to. Figures are not judged here.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import bench_ahead  # noqa: E402
import hugepool  # noqa: E402
import thawtest  # noqa: E402

TEST_SECONDS = 100
MIB = 1024 * 1024
SIZE = 8 * MIB
SMALL = ["--size", "8M", "--faults", "300", "--rounds", "1", "--deadline", "40"]


@pytest.fixture(autouse=True)
def watchdog():
    """No test runs for longer than its deadline."""

    def expired(_signal, _frame):
        raise TimeoutError(f"the test took more than {TEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder():
    """A short path, because sockets live below it; the program may leave nothing of its own in it."""
    with tempfile.TemporaryDirectory(prefix="thaw-test-") as name:
        path = pathlib.Path(name)
        yield path
        left = [p.name for p in path.iterdir() if p.name.startswith("thaw-bench.")]
        assert not left, f"left behind: {left}"


def bench(folder, *arguments, status=0):
    """Run it to its end and look at its exit status."""
    command = [thawtest.program("THAW"), "bench", "ahead", "--dir", str(folder), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TEST_SECONDS)
    if run.returncode == 1 and "userfaultfd" in run.stderr:
        pytest.skip(run.stderr.strip())
    assert run.returncode == status, run.stdout + run.stderr
    return run


def measure(folder, name, *more):
    """One small measurement: {case: its medians}, after a look at what all measurements have in common."""
    path = folder / "results.json"
    run = bench(folder, name, *SMALL, *more, "--json", str(path))
    results = json.loads(path.read_text())
    assert (results["bench"], results["name"]) == ("ahead", name)
    assert {"version", "host", "options", "note", "cases", "aims"} <= set(results)
    for case in results["cases"]:
        assert case["case"] in run.stdout
        assert len(case["runs"]) == 1
        assert case["runs"][0] == case["median"]
        assert all(value >= 0 for value in case["median"].values()), case
    for aim in results["aims"]:
        assert aim["what"] in run.stdout
        assert aim["low"] <= aim["figure"] <= aim["high"]
        assert aim["verdict"] in ("met", "missed")
    words = "".join(ElementTree.fromstring(bench_ahead.draw(results)).itertext())
    assert results["cases"][0]["case"] in words
    return {case["case"]: case["median"] for case in results["cases"]}


def test_bulk_installs_all_of_the_guest_in_every_way(folder):
    cases = measure(folder, "bulk")
    assert {"bare ioctl, 64 KiB", "after resume, slices of 32 KiB", "before resume, 1 thread"} <= set(cases)
    for name, figures in cases.items():
        assert figures["present_bytes"] == SIZE, name
    assert cases["bare ioctl, 64 KiB"]["installed_bytes_per_s"] > 0


def test_a_replayed_working_set_is_all_there_and_leaves_no_faults(folder):
    cases = measure(folder, "scattered")
    for bytes_are in ("warm", "cold", "slow"):
        demand = cases[f"demand only, 4 KiB, {bytes_are}, free"]
        around = cases[f"demand only, 64 KiB, {bytes_are}, free"]
        replay = cases[f"replay before resume, {bytes_are}, free"]
        assert replay["faults"] == 0
        assert replay["before_resume_ns"] > 0
        assert replay["present_bytes"] == replay["samples"] * 4096  # the working set, and nothing else
        assert demand["faults"] >= demand["samples"]
        # the last 2 MiB of the guest are touched before the clock starts
        assert demand["present_bytes"] == demand["samples"] * 4096 + 2 * MIB
        assert around["present_bytes"] > demand["present_bytes"]
        assert demand["samples"] == around["samples"] == replay["samples"]


def test_faults_and_discards_are_timed_while_pages_are_installed(folder):
    cases = measure(folder, "latency")
    for what in ("faults", "discards"):
        assert any(name.startswith(f"{what}, nothing else") for name in cases)
        assert any(name.startswith(f"{what}, slices of 32 KiB") for name in cases)
    for name, figures in cases.items():
        assert 0 < figures["p50_ns"] <= figures["p99_ns"], name
        assert 0 < figures["samples"] <= 300, name
        assert ("installed_bytes_per_s" in figures) == ("slices" in name), name


def test_throughput_counts_every_touched_page_as_a_fault(folder):
    for name, figures in measure(folder, "throughput").items():
        # a sanitizer's own memory may add some
        assert figures["faults"] >= figures["samples"] == 300, name
        assert figures["faults_per_s"] > 0


def test_pages_of_two_mib_take_fewer_faults_for_the_same_touches(folder):
    with thawtest.hugepages(2 * SIZE // (2 * MIB)):
        cases = measure(folder, "huge")
    small, huge = cases["demand only, 4 KiB pages"], cases["demand only, 2 MiB pages"]
    assert huge["samples"] == small["samples"]
    assert huge["faults"] < small["faults"]
    assert huge["present_bytes"] > small["present_bytes"]
    assert huge["present_bytes"] % (2 * MIB) == 0
    assert cases["replay, 2 MiB pages"]["faults"] == 0


def test_without_pages_of_two_mib_the_rest_is_measured_and_that_is_said(folder):
    path = folder / "results.json"
    with hugepool.no_hugepages():
        free = int((hugepool.HUGE / "free_hugepages").read_text())
        if free:
            pytest.skip(f"this machine has {free} free huge pages")
        bench(folder, "huge", *SMALL, "--json", str(path))
    results = json.loads(path.read_text())
    assert "vm.nr_hugepages" in results["note"]
    assert all("2 MiB" not in case["case"] for case in results["cases"])


def test_discards_leave_nothing_behind_whether_the_pager_is_idle_or_busy(folder):
    for name, figures in measure(folder, "remove").items():
        if name.startswith("ping-pong"):
            assert figures["p50_ns"] > 0
            continue
        assert figures["discard_4KiB_ns"] > 0, name
        assert figures["discard_64KiB_ns"] > 0, name
        # 8 MiB: 1 of 4 KiB each, 7 of 64 KiB each; no range of 2 MiB fits behind them
        assert "discard_2MiB_ns" not in figures, name
        if name.startswith("pager idle"):
            assert figures["present_bytes"] == 0, name


@pytest.mark.parametrize("arguments", [
    [],
    ["sideways"],
    ["bulk", "scattered"],
    ["bulk", "--size", "3M"],
    ["bulk", "--size", "0"],
    ["bulk", "--rounds", "0"],
    ["bulk", "--rounds", "many"],
    ["bulk", "--faults"],
    ["bulk", "--frobnicate"],
], ids=" ".join)
def test_wrong_usage_is_told_and_measures_nothing(folder, arguments):
    run = bench(folder, *arguments, status=2)
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("thaw bench ahead: ")


def test_a_folder_that_is_not_there_is_told(folder):
    run = bench(folder, "bulk", *SMALL, "--dir", str(folder / "none"), status=1)
    assert run.stderr.startswith("thaw bench ahead: cannot make a folder in ")


def test_a_run_that_takes_too_long_is_given_up(folder):
    # 6144 pages, a millisecond each, do not fit into a second
    run = bench(folder, "scattered", "--size", "256M", "--rounds", "1", "--deadline", "1", status=1)
    assert "did not end within 1 s" in run.stderr
