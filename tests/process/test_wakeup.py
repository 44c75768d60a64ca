# SPDX-License-Identifier: Apache-2.0
"""
Waking is made cheap while a guest faults, and nothing is done for it when none does.

How cheap is for `thaw bench fault --wakeups` to say; here it is seen that it is done, and that it ends. That idle processors
are kept awake is what the kernel itself says: /dev/cpu_dma_latency has the value that holds for the host. Others may hold
it as well, so what was our doing is told apart by the counters. What a pager with nothing to do costs is measured in
test_idle.py, with all of this on, as it is by default.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import time

import pytest

import thawtest
from thawtest import check_stats, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

LATENCY = pathlib.Path("/dev/cpu_dma_latency")
EXACT = ["--fault-around", "0"]
OFF = ["--latency-qos", "off", "--cpu", "any", "--spin", "off"]
NOTHING = {"awakes": 0, "awake_ns": 0, "moves": 0, "spins": 0, "spins_found": 0, "spun_ns": 0}
BIG = "64M"


def confinement():
    """Each test with and without."""
    return pytest.mark.parametrize("confine", ["on", "off"])


def latency_us():
    """How long the host's idle processors may take to wake up."""
    return struct.unpack("i", LATENCY.read_bytes()[:4])[0]


@pytest.fixture
def quiet_host():
    """Nobody else keeps this host's processors awake, for now."""
    if not os.access(LATENCY, os.W_OK):
        pytest.skip(f"no right to keep processors awake here: {LATENCY}")
    try:
        wait_until(lambda: latency_us() != 0, "processors that may sleep")
    except TimeoutError:
        pytest.skip("somebody else keeps this host's processors awake")


@pytest.fixture
def two_cpus():
    """Two processors that this process may use."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("there is one processor only")
    return cpus[:2]


def cpus_of(thread):
    """Where a thread may run; a process's first thread has the process's number."""
    return os.sched_getaffinity(thread)


def counters_of(pager, *names):
    """Some counters of this moment."""
    counters = pager.ask_stats()["counters"]
    return {name: counters[name] for name in names}


def pages_touched_in_steps(lab, pager, memory, *steps):
    """A VMM that stops before and after each step. Return: the process, stopped before the first."""
    words = ["pause"]
    for step in steps:
        words += [step, "pause"]
    vmm = lab.start_vmm(pager, memory, *words, timeout=60)
    vmm.wait_line("paused")
    return vmm


def pauses(vmm):
    """How often it has stopped."""
    return vmm.out.count("paused")


def finish(lab, pager, vmm):
    """Let it go to its end. Return: the statistics."""
    let_go(vmm)
    result = lab.finish_vmm(vmm, 60)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)
    return pager.stats()


def during_step(vmm, seen):
    """Let a VMM take its next step. Return: was `seen` true at any moment of it?"""
    before, found = pauses(vmm), False
    let_go(vmm)
    while pauses(vmm) == before:
        assert vmm.running(), vmm.describe()
        found = seen() or found
    return found


# ---- processors that do not sleep ----


@confinement()
@pytest.mark.parametrize("how", ["auto", "on"])
@pytest.mark.usefixtures("quiet_host")
def test_processors_are_kept_awake_during_a_burst_and_may_sleep_afterwards(lab, how, confine):
    memory = lab.memory(BIG, seed=9)
    pager = lab.serve(memory, *EXACT, *OFF, "--latency-qos", how, "--confine", confine)
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle:end=8000", "shuffle:first=8000")
    assert counters_of(pager, "awakes", "awake_ns") == {"awakes": 0, "awake_ns": 0}
    for step in (1, 2):
        assert during_step(vmm, lambda: latency_us() == 0)
        wait_until(lambda: latency_us() != 0, f"processors that may sleep after step {step}")
        assert counters_of(pager, "awakes")["awakes"] >= step
    held = counters_of(pager, "awake_ns")
    time.sleep(0.1)  # time in which nothing may be held
    assert counters_of(pager, "awake_ns") == held
    assert held["awake_ns"] > 0
    finish(lab, pager, vmm)


@pytest.mark.usefixtures("quiet_host")
def test_a_few_faults_keep_no_processor_awake(lab):
    memory = lab.memory("8M", seed=5)
    pager = lab.serve(memory, *EXACT, *OFF, "--latency-qos", "on")
    vmm = pages_touched_in_steps(lab, pager, memory, "seq:end=20")
    during_step(vmm, lambda: False)
    assert finish(lab, pager, vmm)["counters"]["awakes"] == 0


@pytest.mark.usefixtures("quiet_host")
def test_a_supervised_pager_that_is_killed_in_a_burst_leaves_no_processor_awake(lab):
    memory = lab.memory(BIG, seed=9)
    pager = lab.serve(memory, *EXACT, *OFF, "--latency-qos", "on", "--supervise")
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle")

    def serving():
        return [int(pid) for pid in re.findall(r'msg="serving".* pager_pid=(\d+)', pager.err)]

    let_go(vmm)
    wait_until(lambda: serving() and (latency_us() == 0 or pauses(vmm) > 1), "processors that are kept awake")
    os.kill(serving()[-1], signal.SIGKILL)
    wait_until(lambda: len(serving()) == 2, "the next pager")
    wait_until(lambda: pauses(vmm) > 1, "the end of the step", 60)
    wait_until(lambda: latency_us() != 0, "processors that may sleep")
    finish(lab, pager, vmm)


def without_latency_file(lab, memory, *args):
    """A pager in a mount namespace in which that file cannot be opened."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, to hide a device")
    if not LATENCY.exists():
        return lab.start_pager(*args, "--memory", memory.path, "--state", lab.state_dir)
    cover = lab.dir / "cover"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(cover))  # its name stays: nobody can open a socket as a file
    path = lab.socket()
    stats = lab.dir / "stats-hidden"
    pager = thawtest.Pager(lab, "hidden", ["unshare", "--mount", "sh", "-c",
                                           'mount --bind "$0" /dev/cpu_dma_latency && exec "$@"', cover,
                                           thawtest.program("THAW"), "serve", "--socket", path, "--memory", memory.path,
                                           "--state", lab.state_dir, "--stats", stats, "--log-level", "debug", *args],
                           path, stats)
    lab.processes.append(pager)
    return pager


def test_without_the_right_auto_serves_all_the_same_and_says_so_once(lab):
    memory = lab.memory("8M", seed=5)
    pager = without_latency_file(lab, memory, *EXACT)
    pager.wait_listening()
    lab.run_vmm(pager, memory, "shuffle")
    pager.expect_exit(0)
    lines = [line for line in pager.err.splitlines() if "cpu_dma_latency" in line]
    assert len(lines) == 1 and lines[0].startswith("level=debug"), pager.err
    assert pager.stats()["counters"]["awakes"] == 0


def test_without_the_right_on_is_refused_in_one_line(lab):
    pager = without_latency_file(lab, lab.memory("8M", seed=5), "--latency-qos", "on")
    pager.expect_error("cpu_dma_latency", "processors awake")
    assert not pager.socket.exists()


# ---- the guest's processor ----


@confinement()
@pytest.mark.parametrize("way", [[], ["--supervise"]], ids=["alone", "supervised"])
def test_the_pager_goes_where_the_only_busy_thread_of_the_vmm_runs(lab, two_cpus, confine, way):
    memory = lab.memory(BIG, seed=9)
    pager = lab.serve(memory, *EXACT, *OFF, "--cpu", "follow", "--confine", confine, *way)
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle:end=8000", "shuffle:first=8000")
    pager.wait_line('msg="serving"')
    thread = int(re.search(r'msg="serving".* pager_pid=(\d+)', pager.err).group(1))
    everywhere = cpus_of(thread)
    assert len(everywhere) >= 2
    for cpu in two_cpus:
        os.sched_setaffinity(vmm.pid, {cpu})  # the threads of its steps are born there
        assert during_step(vmm, lambda cpu=cpu: cpus_of(thread) == {cpu})
    others = [int(task) for task in os.listdir(f"/proc/{thread}/task") if int(task) != thread]
    assert all(cpus_of(other) == everywhere for other in others)
    assert finish(lab, pager, vmm)["counters"]["moves"] >= 2


def test_with_two_busy_threads_the_pager_runs_anywhere(lab, two_cpus):
    memory = lab.memory(BIG, seed=9)
    pager = lab.serve(memory, *EXACT, *OFF, "--cpu", "follow")
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle:end=8000", "shuffle:first=8000,threads=2")
    everywhere = cpus_of(pager.pid)
    os.sched_setaffinity(vmm.pid, {two_cpus[1]})
    assert during_step(vmm, lambda: cpus_of(pager.pid) == {two_cpus[1]})
    assert during_step(vmm, lambda: cpus_of(pager.pid) == everywhere)
    finish(lab, pager, vmm)


def test_the_pager_stays_where_it_was_put_although_it_follows(lab, two_cpus):
    memory = lab.memory(BIG, seed=9)
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {two_cpus[0]})  # inherited: a pager looks at it once, when it starts
    try:
        pager = lab.serve(memory, *EXACT, *OFF, "--cpu", "follow")
    finally:
        os.sched_setaffinity(0, everywhere)
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle:end=8000")
    os.sched_setaffinity(vmm.pid, {two_cpus[1]})
    assert not during_step(vmm, lambda: cpus_of(pager.pid) == {two_cpus[1]})
    finish(lab, pager, vmm)


@confinement()
def test_the_pager_runs_on_the_processors_that_were_listed(lab, two_cpus, confine):
    memory = lab.memory("8M", seed=5)
    everywhere = os.sched_getaffinity(0)
    pager = lab.serve(memory, *EXACT, *OFF, "--cpu", str(two_cpus[1]), "--confine", confine)
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle")
    during_step(vmm, lambda: False)
    assert cpus_of(pager.pid) == {two_cpus[1]}
    for task in os.listdir(f"/proc/{pager.pid}/task"):
        assert int(task) == pager.pid or cpus_of(int(task)) == everywhere
    assert finish(lab, pager, vmm)["counters"]["moves"] == 0


# ---- looking before sleeping ----


@confinement()
@pytest.mark.parametrize("spin, share", [("auto", 0.1), ("1000", 0.5)])
def test_it_looks_for_faults_for_a_share_of_the_time_at_most(lab, two_cpus, spin, share, confine):
    memory = lab.memory(BIG, seed=9)
    pager = lab.serve(memory, *EXACT, *OFF, "--spin", spin, "--cpu", str(two_cpus[1]), "--confine", confine)
    began = time.monotonic()
    vmm = pages_touched_in_steps(lab, pager, memory, "shuffle")
    os.sched_setaffinity(vmm.pid, {two_cpus[0]})
    during_step(vmm, lambda: False)
    counters = counters_of(pager, "spins", "spins_found", "spun_ns", "awakes", "moves")
    seconds = time.monotonic() - began
    assert 0 < counters["spins_found"] <= counters["spins"]
    assert 0 < counters["spun_ns"] <= (share * seconds + 0.5) * 1e9 + 20e6  # it may lose its processor while it looks
    assert counters["awakes"] == counters["moves"] == 0
    finish(lab, pager, vmm)


def test_nothing_of_it_is_done_when_it_is_off(lab):
    memory = lab.memory(BIG, seed=9)
    pager = lab.serve(memory, *EXACT, *OFF)
    result = lab.run_vmm(pager, memory, "shuffle", timeout=60)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)
    assert {name: pager.stats()["counters"][name] for name in NOTHING} == NOTHING


# ---- all of it, and usage ----


@confinement()
@pytest.mark.parametrize("options", [
    [], ["--latency-qos", "auto", "--cpu", "any", "--spin", "100"], ["--cpu", "follow", "--spin", "1"],
], ids=["default", "without-follow", "fixed"])
def test_every_byte_is_right_with_all_of_it(lab, options, confine):
    memory = lab.memory("16M", seed=4)
    pager = lab.serve(memory, *EXACT, "--let-go", "off", *options, "--confine", confine)
    result = lab.run_vmm(pager, memory, "shuffle:end=2000", "balloon:n=500", "write:threads=3,n=1500", "verify", timeout=60)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


@pytest.mark.parametrize("option, value", [
    ("--latency-qos", "yes"), ("--latency-qos", ""),
    ("--cpu", ""), ("--cpu", "1-"), ("--cpu", "3-1"), ("--cpu", "0,,1"), ("--cpu", "x"), ("--cpu", "1024"),
    ("--cpu", "0-9999999999"), ("--cpu", "1000-1023"),
    ("--spin", "0"), ("--spin", "1001"), ("--spin", "-1"), ("--spin", "fast"), ("--spin", ""),
])
def test_what_is_not_understood_is_refused_in_one_line(lab, option, value):
    pager = lab.start_pager("--socket", lab.socket(), "--memory", "/dev/null", option, value, stats=False)
    line = pager.expect_error(option, "expected" if value != "1000-1023" else "none", code=2)
    assert len(pager.err.splitlines()) == 1, line
