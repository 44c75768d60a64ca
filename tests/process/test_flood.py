# SPDX-License-Identifier: Apache-2.0
"""
A VMM that floods its pager: with discards, with faults, with bytes and connections. It costs a bounded amount of memory,
whoever runs the pager is still answered, other VMs do not notice, and what can go on goes on.

What cannot: from the call of a discard until its thread has run on, Linux refuses every install in that VM. Two or more
threads that discard and do nothing else leave no gap, and a page that another thread of the VM waits for comes when they
pause. That is the VM's own doing and its own loss.
"""

import contextlib
import errno
import json
import os
import signal
import socket

import pytest

import thawtest
from thawtest import check_stats, let_go, private_kib, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

SANITIZER = os.environ.get("THAW_SANITIZER")
GROWTH_KIB = 128  # statistics walk through the heap's first 132 KiB; a leak of two bytes an event would be as much
SOON = 5.0  # seconds
WORST_NS = 2_000_000_000
EXACT = ["--fault-around", "0"]


@pytest.fixture
def memory(lab):
    """What all VMs here are restored from."""
    return lab.memory("16M", seed=11, dense=True)


def start_flood(lab, memory, step, *more):
    """A VM that does this, and its pager. Return: both, when the flood has begun."""
    pager = lab.serve(memory, *EXACT)
    vmm = lab.start_vmm(pager, memory, step, *more, timeout=80)
    pager.wait_line("serving")  # a request before that is not for a session
    vmm.wait_line("flooding")
    return pager, vmm


def counters(pager):
    """What the pager has counted up to now."""
    return pager.ask_stats()["counters"]


def finish(lab, pager, vmm):
    """End the flood. Return: the VMM's result and the pager's last statistics."""
    let_go(vmm)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    return result, stats


# ---- discards ----


def test_a_thread_that_discards_without_a_pause_does_not_keep_others_waiting(lab, memory):
    pages = 200 if SANITIZER else 600
    pager, vmm = start_flood(lab, memory, f"flood:threads=3,n=500,end={2 * pages}")
    vmm.wait_line("served")
    result, stats = finish(lab, pager, vmm)
    assert stats["counters"]["faults"] == pages
    assert stats["counters"]["removes"] == result["discards"] > pages
    assert result["slowest_ns"] < WORST_NS


@pytest.mark.parametrize("track", ["none", "wp"])
def test_threads_that_use_again_what_they_gave_back_leave_everybody_a_turn(lab, memory, track):
    pages = 100 if SANITIZER else 200
    pager = lab.serve(memory, *EXACT, "--track", track)
    vmm = lab.start_vmm(pager, memory, f"churn:threads=100,n=500,end={2 * pages}", "verify", timeout=80)
    vmm.wait_line("served", 30)
    result, stats = finish(lab, pager, vmm)
    assert stats["counters"]["deferred"] > 0
    assert result["slowest_ns"] < WORST_NS


def test_who_waits_in_a_flood_of_many_threads_is_served_when_it_is_over(lab, memory):
    pager, vmm = start_flood(lab, memory, "flood:threads=20,n=500", "verify")
    wait_until(lambda: counters(pager)["removes"] > 20000, "a flood")
    finish(lab, pager, vmm)


@pytest.mark.parametrize("step", ["flood:threads=12", "churn:threads=60"])
def test_a_flood_takes_no_memory(lab, memory, step):
    if SANITIZER:
        pytest.skip("a sanitizer has its own use for memory")
    pager, vmm = start_flood(lab, memory, step)
    wait_until(lambda: counters(pager)["removes"] > 2000, "the flood's beginning")
    early, tables = private_kib(pager.pid, memory.path)
    before = counters(pager)
    wait_until(lambda: counters(pager)["removes"] > before["removes"] + 60000, "the flood's end", 60)
    late, late_tables = private_kib(pager.pid, memory.path)
    assert late - early <= GROWTH_KIB, (early, late)
    assert late_tables - tables <= GROWTH_KIB, (tables, late_tables)
    after = counters(pager)
    assert after["messages"] - before["messages"] >= 60000
    assert after["again"] > before["again"]
    finish(lab, pager, vmm)


def test_whoever_runs_a_pager_is_answered_in_a_flood(lab, memory):
    pager, vmm = start_flood(lab, memory, "flood:threads=34")
    for _ in range(20):
        check_stats(pager.ask_stats(SOON), end="running")
    pager.signal(signal.SIGTERM)
    assert pager.wait(SOON) == 0
    assert vmm.wait(SOON) == -signal.SIGKILL
    assert "wrong byte" not in vmm.err
    check_stats(pager.stats(), end="stopped")


def test_a_vmm_killed_in_a_flood_is_noticed(lab, memory):
    pager, vmm = start_flood(lab, memory, "flood:threads=34")
    vmm.signal(signal.SIGKILL)
    pager.expect_exit(0, SOON)


@pytest.mark.parametrize("step", ["flood:threads=12", "churn:threads=60"])
def test_a_flood_in_one_vm_does_not_keep_another_waiting(lab, memory, step):
    pager, vmm = start_flood(lab, memory, step)
    other = lab.serve(memory, *EXACT)
    result = lab.run_vmm(other, memory, "shuffle:threads=2", "discard:threads=1,n=50", "verify", timeout=60)
    other.expect_exit(0)
    check_stats(other.stats(), result)
    before = counters(pager)["removes"]
    wait_until(lambda: counters(pager)["removes"] > before, "more of the flood")
    finish(lab, pager, vmm)


# ---- faults ----


def test_faults_of_as_many_threads_as_there_can_be_are_all_answered(lab, memory):
    pager = lab.serve(memory, *EXACT)
    result = lab.run_vmm(pager, memory, "random:threads=256,n=200", "herd:threads=256,n=30", "verify", timeout=60)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


# ---- bytes and connections ----


def test_bytes_that_nobody_reads_after_the_handshake_cost_the_pager_nothing(lab):
    memory = lab.memory("64K", seed=3, dense=True)
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    first = peer.word(1)
    pager.ask_stats()  # code that runs for the first time is memory, too
    before = private_kib(pager.pid)[0]
    assert peer.tell("flood 100000") == 0
    assert int(peer.out.split("flooded ")[1].split()[0]) < 100000, "the kernel keeps them, up to its limit"
    assert first == peer.word(1) == int.from_bytes(memory.path.read_bytes()[4096:4104], "little")
    counted = pager.ask_stats()["counters"]
    assert counted["messages"] == counted["faults"] == 1
    if not SANITIZER:
        assert private_kib(pager.pid)[0] - before <= GROWTH_KIB
    peer.quit()
    pager.expect_exit(0)


def test_connections_beside_the_vmms_own_are_not_taken(lab):
    memory = lab.memory("64K", seed=3, dense=True)
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab)
    peer.connect(pager)
    others = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(200)]
    try:
        results = [other.connect_ex(str(pager.socket)) for other in others]
        assert results.count(0) <= 3, "as many as the kernel's queue has room for"
        assert set(results) <= {0, errno.EAGAIN}
        assert len(os.listdir(f"/proc/{pager.pid}/fd")) < 30
        assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
        assert peer.word(2) == int.from_bytes(memory.path.read_bytes()[8192:8200], "little")
        for other, result in zip(others, results):
            if result == 0:
                other.settimeout(SOON)
                with contextlib.suppress(ConnectionResetError):
                    assert other.recv(1) == b"", "nobody is there any more"
    finally:
        for other in others:
            other.close()
    peer.quit()
    pager.expect_exit(0)
