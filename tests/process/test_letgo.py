# SPDX-License-Identifier: Apache-2.0
"""Ranges that the kernel answers for as well as a pager does are given back to it, in the end all of them."""

import json
import os
import pathlib
import signal

import pytest

import thawtest
from recordlib import finish, image, make_memory, start
from thawtest import check_stats, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

PAGES = 2048
LONG = 512  # pages: what is worth it


@pytest.fixture
def holed(lab):
    """A memory file of data, but for a hole of pages 600 to 1299 and one that is too short to be worth it."""
    holes = (range(600, 1300), range(1500, 1500 + LONG - 1))
    return make_memory(lab.dir / "memory", PAGES, holes)


def start_and_wait(lab, memory, *args):
    """A pager and its VM, when there is nothing to let go of any more. Return: pager, peer, counters."""
    pager, peer = start(lab, memory, "--fault-around", "0", *args, pages=PAGES)
    assert peer.word(0) == image(0)
    counters = wait_until(lambda: same_twice(pager), "the pager to come to rest")
    return pager, peer, counters


def same_twice(pager):
    """The counters, once nothing changes any more."""
    first = pager.ask_stats()["counters"]
    return first if first == pager.ask_stats()["counters"] else None


def faults_of(pager, peer, page):
    """How many faults the pager hears of when a page is touched. Return: that, and the page's first word."""
    before = pager.ask_stats()["counters"]["faults"]
    word = peer.word(page)
    return pager.ask_stats()["counters"]["faults"] - before, word


def test_a_long_hole_is_the_kernels(lab, holed):
    pager, peer, counters = start_and_wait(lab, holed)
    assert (counters["ranges_let_go"], counters["pages_let_go"]) == (1, 700)
    for page in (600, 900, 1299):
        assert faults_of(pager, peer, page) == (0, 0)
    for page in (599, 1300, 1501):
        assert faults_of(pager, peer, page) == (1, 0 if page == 1501 else image(page))
    finish(pager, peer)


@pytest.mark.parametrize("args", [["--let-go", "off"], ["--track", "wp"]], ids=["off", "tracked"])
def test_nothing_is_let_go_of_where_somebody_needs_to_see_it(lab, holed, args):
    pager, peer, counters = start_and_wait(lab, holed, *args)
    assert counters["ranges_let_go"] == 0
    assert faults_of(pager, peer, 900) == (1, 0)
    finish(pager, peer)


def test_a_long_range_that_was_removed_is_the_kernels_and_zero(lab, holed):
    pager, peer, _ = start_and_wait(lab, holed)
    for page in (10, 500):
        assert peer.word(page) == image(page)
    assert peer.tell("discard 0 600") == 0
    peer.wait_line("discarded 0\n")
    wait_until(lambda: pager.ask_stats()["counters"]["ranges_let_go"] == 2, "the range to be let go of")
    for page in (0, 10, 300, 599):
        assert faults_of(pager, peer, page) == (0, 0)
    stats = finish(pager, peer)
    assert stats["states"]["removed"] == 600


def test_a_short_range_that_was_removed_stays_the_pagers(lab, holed):
    pager, peer, counters = start_and_wait(lab, holed)
    assert peer.tell(f"discard 0 {LONG - 1}") == 0
    peer.wait_line("discarded 0\n")
    assert faults_of(pager, peer, 10) == (1, 0)
    assert finish(pager, peer)["counters"]["ranges_let_go"] == counters["ranges_let_go"]


def test_removed_again_and_written_again_it_is_zero_each_time(lab, holed):
    pager, peer, _ = start_and_wait(lab, holed)
    for turn in range(1, 20):
        assert peer.tell("write 700") == 0
        wait_until(lambda turn=turn: peer.out.count("wrote 700\n") == turn, "the write")
        assert peer.tell("discard 600 700") == 0
        wait_until(lambda turn=turn: peer.out.count("discarded 600\n") == turn, "the discard")
        assert peer.word(700) == 0
    finish(pager, peer)


@pytest.mark.parametrize("args", [[], ["--fill"]], ids=["demand", "fill"])
def test_bytes_are_right_while_ranges_are_let_go_of(lab, args):
    memory = lab.memory("32M", seed=5)
    pager = lab.serve(memory, *args)
    result = lab.run_vmm(pager, memory, "balloon:threads=4,n=200", "spans:n=40", "discard:threads=4,n=100", "drop",
                         "write:threads=4,n=300", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_what_was_let_go_of_stays_so_when_another_pager_takes_over(lab, holed):
    pager, peer, _ = start_and_wait(lab, holed, "--supervise")
    os.kill(pager.ask_stats()["pager_pid"], signal.SIGKILL)
    pager.wait_line("taken over")
    for page in (600, 1299):
        assert faults_of(pager, peer, page) == (0, 0)
    assert faults_of(pager, peer, 1300) == (1, image(1300))
    finish(pager, peer)


def test_a_pager_killed_as_it_lets_go_has_noted_that_before(lab, holed):
    """What is discarded in such a range later nobody hears of: whoever makes a layer is to know (thaw-image-diff)."""
    thawtest.needs_strace()
    socket, stats_file = lab.socket(), lab.dir / "stats"
    pager = thawtest.Pager(lab, "traced", [
        "strace", "-D", "-f", "-qq", "-o", lab.dir / "strace", "-e", "trace=ioctl", "-e", "inject=ioctl:delay_exit=1000000",
        thawtest.program("THAW"), "serve", "--socket", socket, "--memory", holed, "--state", lab.state_dir,
        "--stats", stats_file], socket, stats_file)
    lab.processes.append(pager)
    pager.wait_listening()
    peer = thawtest.Peer(lab, PAGES)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    hole = f"{peer.region()['base_host_virt_addr'] + 600 * 4096:08x}-"
    maps = pathlib.Path(f"/proc/{peer.pid}/maps")
    wait_until(lambda: hole in maps.read_text(encoding="ascii"), "the range to be let go of")
    pager.signal(signal.SIGKILL)
    pager.wait()
    successor = lab.start_pager("--adopt", str(peer.pid), "--state", lab.state_dir, "--let-go", "off")
    assert peer.word(1300) == image(1300)
    assert successor.ask_stats()["counters"]["ranges_let_go"] == 1
    finish(successor, peer)


# ---- leaving ----


def test_when_every_page_is_there_the_pager_leaves_and_the_vm_goes_on(lab):
    memory = lab.memory("8M", seed=11)
    pager = lab.serve(memory, "--fill", "--leave-when-full")
    vmm = lab.start_vmm(pager, memory, "pause", "verify", "discard:threads=3,n=100", "write:n=300", "drop", "verify")
    pager.expect_exit(0)
    stats = pager.stats()
    assert stats["end"] == "left"
    assert stats["states"]["absent"] == 0
    assert not any(lab.state_dir.iterdir()), "nobody is to take over a VM that needs no pager"
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)


def test_without_a_fill_it_leaves_when_the_guest_has_touched_everything(lab):
    memory = lab.memory("8M", seed=11)
    pager = lab.serve(memory, "--leave-when-full")
    vmm = lab.start_vmm(pager, memory, "shuffle:threads=4", "pause", "verify")
    pager.expect_exit(0)
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)


def test_a_supervisor_leaves_with_its_pager(lab):
    memory = lab.memory("8M", seed=11)
    pager = lab.serve(memory, "--fill", "--leave-when-full", "--supervise")
    vmm = lab.start_vmm(pager, memory, "pause", "verify")
    pager.expect_exit(0)
    assert "died" not in pager.err
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)


@pytest.mark.parametrize("turn", range(10))
def test_a_discard_that_is_under_way_when_the_pager_leaves_comes_to_its_end(lab, turn):
    memory = lab.memory("8M", seed=11)
    pager = lab.serve(memory, "--fill", "--leave-when-full")
    vmm = lab.start_vmm(pager, memory, f"discard:threads={2 + turn},n=400", "balloon:threads=4,n=200", "verify")
    pager.expect_exit(0)
    lab.finish_vmm(vmm)


def test_a_discard_that_begins_just_before_the_pager_leaves_is_read(lab):
    """Each ioctl of the pager takes long to begin: the discard comes between its last look at messages and UNREGISTER."""
    thawtest.needs_strace()
    memory = make_memory(lab.dir / "memory", 16)
    socket, stats_file = lab.socket(), lab.dir / "stats"
    pager = thawtest.Pager(lab, "traced", [
        "strace", "-D", "-f", "-qq", "-o", lab.dir / "strace", "-e", "trace=ioctl", "-e", "inject=ioctl:delay_enter=400000",
        thawtest.program("THAW"), "serve", "--socket", socket, "--memory", memory, "--state", lab.state_dir,
        "--stats", stats_file, "--leave-when-full"], socket, stats_file)
    lab.processes.append(pager)
    pager.wait_listening()
    peer = thawtest.Peer(lab, 16)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert peer.word(3) == image(3)  # and its neighbours: all pages are there
    assert peer.tell("discard 0 4") == 0
    pager.expect_exit(0)
    peer.wait_line("discarded 0\n")
    assert [peer.word(page) for page in range(6)] == [0, 0, 0, 0, image(4), image(5)]
    assert pager.stats()["counters"]["removes"] == 1
    peer.quit()


@thawtest.hugepages(4)
def test_huge_pages_are_not_left_alone(lab):
    memory = lab.memory("8M", seed=11, dense=True)
    pager = lab.serve(memory, "--fill", "--leave-when-full")
    vmm = lab.start_vmm(pager, memory, "--page-size", "2M", "verify", "pause", "discard:n=20", "verify")
    vmm.wait_line("paused")
    pager.wait_line("will not leave")
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert pager.stats()["end"] == "vmm-gone"
