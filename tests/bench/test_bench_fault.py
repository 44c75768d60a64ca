# SPDX-License-Identifier: Apache-2.0
"""
`thaw bench fault` from the outside: it measures all that it names, and a handler that serves wrong bytes, dies
or hangs ends it with one line and exit status 1. Figures are not judged here.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import bench as bench_tool  # noqa: E402
import thawtest  # noqa: E402

TEST_SECONDS = 100
SMALL = ["--size", "16M", "--faults", "500", "--rounds", "1", "--rss-size", "16M", "--deadline", "40"]
ONE_RUN = [*SMALL, "--rss-size", "0", "--pattern", "random", "--threads", "1", "--placement", "same"]
BASELINES = ["[anonymous]", "[file]", "[file-write]"]
FIGURES = {"p50_ns", "p90_ns", "p99_ns", "total_ns", "touched"}


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


def odd(mode):
    """The option for a handler of this mode."""
    return ["--handler", f"odd={thawtest.program('ODD_HANDLER')} {mode} {{socket}} {{memory}}"]


def command(folder, *arguments):
    return [thawtest.program("THAW"), "bench", "fault", "--dir", str(folder), *arguments]


def bench(folder, *arguments, status=0):
    """Run it to its end and look at its exit status."""
    run = subprocess.run(command(folder, *arguments), capture_output=True, text=True, check=False, timeout=TEST_SECONDS)
    if run.returncode == 1 and "userfaultfd" in run.stderr:
        pytest.skip(run.stderr.strip())
    assert run.returncode == status, run.stdout + run.stderr
    return run


def error_line(run):
    """The one line that it prints when it fails."""
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("thaw bench fault: ")
    assert run.stdout == ""
    return lines[0]


def test_a_small_run_has_a_row_for_everything(folder):
    report = folder / "report.json"
    run = bench(folder, *SMALL, "--threads", "1,2", *odd("good"), "--json", str(report))
    handlers = ["thaw", "thaw-around", "odd"]
    placements = ["same", "split"] if len(os.sched_getaffinity(0)) > 1 else ["same"]
    blocks = re.split(r"^(?=(?:same|split): )", run.stdout, flags=re.MULTILINE)[1:]
    assert [b.split(":")[0] for b in blocks] == [p for p in placements for _ in (1, 2)]
    for block in blocks:
        rows = [line.split()[:2] for line in block.splitlines() if re.match(r"(sequential|random|scattered|-) ", line)]
        assert rows == [["-", "[ping-pong]"]] + [[pattern, who] for pattern in ("sequential", "random", "scattered")
                                                for who in BASELINES + handlers]
    results = json.loads(report.read_text())
    assert len(results["jobs"]) == len(placements) * (1 + 2 * 3 * 6)
    for job in results["jobs"]:
        assert FIGURES <= set(job["median"]), job
        assert len(job["runs"]) == 1
        assert 0 < job["median"]["p50_ns"] <= job["median"]["p90_ns"] <= job["median"]["p99_ns"]
    assert {m["handler"] for m in results["memory"]} == set(handlers)
    for job in results["memory"]:
        assert job["median"]["handler_rss_beyond_file_bytes"] > 0
        assert job["median"]["handler_start_cpu_ns"] > 0
    aims = [aim["what"] for aim in results["aims"]]
    assert len(aims) == 1 + 3 * len(placements)
    for aim in aims:
        assert aim in run.stdout
    for aim in results["aims"]:
        assert aim["low"] <= aim["figure"] <= aim["high"]  # one round: all three are the same
        assert aim["verdict"] in ("met", "missed")


def test_every_touch_is_a_fault_without_fault_around_and_few_are_with_it(folder):
    report = folder / "report.json"
    bench(folder, *SMALL, "--rss-size", "0", "--pattern", "sequential", "--threads", "1", "--placement", "same",
          "--json", str(report))
    faults = {j["handler"]: j["median"]["faults"] for j in json.loads(report.read_text())["jobs"]
              if j["kind"] == "handler"}
    assert faults["thaw"] >= 500
    # 500 and 32; a sanitizer's own memory adds some to both
    assert faults["thaw"] - faults["thaw-around"] > 400


def test_the_guest_memory_that_a_handler_puts_in_unasked_is_counted(folder):
    report = folder / "report.json"
    bench(folder, *SMALL, "--rss-size", "0", "--pattern", "scattered,ascending,jumbled", "--threads", "1", "--placement",
          "same", "--json", str(report))
    jobs = [job for job in json.loads(report.read_text())["jobs"] if job["kind"] == "handler"]
    present = {(job["pattern"], job["handler"]): job["median"]["guest_present_bytes"] // 4096 for job in jobs}
    touched = {(job["pattern"], job["handler"]): job["median"]["touched"] for job in jobs}
    assert len(present) == 6
    for pattern in ("scattered", "ascending", "jumbled"):
        assert present[pattern, "thaw"] == touched[pattern, "thaw"] > 100
        assert present[pattern, "thaw-around"] > 3 * touched[pattern, "thaw"]
        assert present[pattern, "thaw-around"] % 16 == 0


@pytest.mark.parametrize("mode, words", [
    ("wrong-byte", "served wrong bytes"),
    ("wrong-page", "served wrong bytes"),
    ("neighbour", "served wrong bytes"),
    ("die", "died with its VMM running: exit status 3"),
    ("kill-vmm", "lost its VMM: signal 9"),
])
def test_a_handler_that_goes_wrong_is_named(folder, mode, words):
    line = error_line(bench(folder, "--no-thaw", *ONE_RUN, "--faults", "1000", *odd(mode), status=1))
    assert "handler odd " in line
    assert words in line


@pytest.mark.parametrize("mode", ["stop", "mute"])
def test_a_handler_that_hangs_is_given_up_at_the_deadline(folder, mode):
    run = bench(folder, "--no-thaw", *ONE_RUN, "--faults", "1000", "--deadline", "2", *odd(mode), status=1)
    assert "handler odd hung: after 2 s" in error_line(run)


def test_a_handler_that_cannot_be_started_is_named(folder):
    run = bench(folder, "--no-thaw", *ONE_RUN, "--handler", f"none={folder}/none {{socket}}", status=1)
    line = error_line(run)
    assert "handler none died" in line
    assert "No such file or directory" in line


def test_an_interrupt_ends_it_and_what_it_started(folder):
    with subprocess.Popen(command(folder, "--no-thaw", *ONE_RUN, *odd("stop"), "--faults", "1000"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        def handler_stopped():
            """The one handler, once it has stopped itself."""
            return [pid for pid in children_of(child.pid)
                    if "odd_handler" in name_of(pid) and state_of(pid) == "T"]

        thawtest.wait_until(handler_stopped, "the handler to stop")
        handlers = children_of(child.pid)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 1, out + err
    assert err == "thaw bench fault: interrupted\n"
    assert not [pid for pid in handlers if state_of(pid) not in ("", "Z")]


def children_of(pid):
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def stat_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name_of(pid):
    return stat_of(pid).partition("(")[2].rpartition(")")[0]


def state_of(pid):
    return stat_of(pid).rpartition(")")[2].strip()[:1]


@pytest.mark.parametrize("arguments", [
    ["--handler", "nameless"],
    ["--handler", "=true"],
    ["--pattern", "sideways"],
    ["--threads", "0"],
    ["--threads", "1,2,3,4,5,6,7,8,9"],
    ["--placement", ""],
    ["--size", "3M"],
    ["--page-size", "64K"],
    ["--rounds", "0"],
    ["--no-thaw"],
    ["--frobnicate"],
    ["surplus"],
])
def test_wrong_usage_is_told_and_measures_nothing(folder, arguments):
    error_line(bench(folder, *arguments, status=2))


def test_huge_pages_are_served_too(folder):
    with thawtest.hugepages(40):
        report = folder / "report.json"
        bench(folder, "--page-size", "2M", "--size", "32M", "--rounds", "1", "--rss-size", "0", "--threads", "1,2",
              *odd("good"), "--json", str(report))
    jobs = json.loads(report.read_text())["jobs"]
    touched = {job["median"]["touched"] for job in jobs if job["handler"] == "thaw" and job["pattern"] == "random"}
    assert touched == {15}


def test_the_picture_is_drawn_from_the_results(folder):
    report = folder / "report.json"
    bench(folder, *SMALL, "--no-thaw", *odd("good"), "--json", str(report))
    svg = ElementTree.fromstring(bench_tool.draw(json.loads(report.read_text())))
    words = "".join(svg.itertext())
    assert svg.tag.endswith("svg")
    for word in ("odd", "ping-pong", "same"):
        assert word in words
