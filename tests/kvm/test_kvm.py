# SPDX-License-Identifier: Apache-2.0
"""
Page faults that KVM raises, and every byte that a guest reads: the tiny VMM (tinyvmm.c) and a real `thaw serve`.

All of the guest's memory comes from the pager, its code and its page tables too. Virtual CPUs and the VMM check the same words;
in the first tests only the guest touches its memory before the end, so that all faults are KVM's.

How KVM gets at memory differs, and so there are several ways to run the guest (WAYS). In which of them the processor runs the
guest's code, and in which KVM carries it out instruction by instruction, differs from host to host; the second is slow, so the
guest in ring 0 is small.
"""

import os
import pathlib
import random
import re
import signal
import struct
import time

import pytest

import thawtest
from matrix import MODES, SEED
from thawtest import let_go

WRONG, STUCK = 1, 3
PATIENCE = 60  # seconds: a KVM in software, beside other work, whose guest is interrupted all the time
TABLES = {2, 3, 4}  # blocks with the guest's page tables, where accessed and dirty bits are set
FIRST = 5  # block of data: see guest.h

WAYS = {
    "ring3": (),
    "interrupted": ("--kick-us", "300"),  # signals take the virtual CPUs out of their faults
    "halted": ("--interrupts",),  # KVM lets a thread of the kernel wait for the page
    "halted-interrupted": ("--interrupts", "--kick-us", "300"),
}
TRACKED = [mode for mode in MODES if "tracked" in mode]


def run(lab, kvm, mode, *args, way="ring3", size="8M"):
    """One guest from start to end, all right. Return: its result and the pager's statistics."""
    print("seed", SEED)
    kvm.need(*WAYS[way])
    memory = lab.memory(size, SEED)
    pager = lab.serve(memory, *MODES[mode])
    result = lab.run_vmm(pager, memory, *WAYS[way], *args, timeout=PATIENCE)
    pager.expect_exit(0)
    stats = pager.stats()
    thawtest.check_stats(stats, result)
    return result, stats


# ---- reading and writing ----


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_every_byte_that_the_guest_reads_is_right(lab, kvm, mode, cpus):
    result, stats = run(lab, kvm, mode, f"walk:cpus={cpus}")
    assert result["touched"] == result["pages"] - FIRST
    assert stats["counters"]["faults"] >= (result["touched"] if "page" in mode else 1)
    assert result["blocks"] == cpus * result["touched"], "nobody but the guest has read its memory"


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_what_the_guest_writes_is_there_and_all_else_is_the_images(lab, kvm, mode, cpus):
    _result, stats = run(lab, kvm, mode, f"fill:cpus={cpus},end=1500", f"walk:cpus={cpus}", "fill:first=700,cpus=2", "verify")
    if mode in TRACKED:
        assert stats["states"]["dirty"] >= 2048 - FIRST


@pytest.mark.parametrize("way", [way for way in WAYS if way != "ring3"])
@pytest.mark.parametrize("mode", ["page-by-page", "around-tracked"])
def test_every_byte_is_right_however_kvm_waits_for_it(lab, kvm, mode, way):
    result, _stats = run(lab, kvm, mode, "--regions", "3", "walk:end=1200", "fill:first=600", "walk", "verify", way=way)
    assert result["interrupted"] > 0 or "interrupted" not in way


@pytest.mark.parametrize("mode", ["page-by-page", "around", "tracked"])
def test_every_byte_is_right_in_ring_0(lab, kvm, mode):
    kvm.need("--ring", "0")
    run(lab, kvm, mode, "--ring", "0", "walk:end=20", "fill:first=14", "storm:n=20,end=20,pause_us=2000", "verify", size="128K")


# ---- who was written to ----


def page_states(lab):
    """The codes in the one state file, by page; man/thaw-state.5.scd has the layout."""
    data = next(lab.state_dir.glob("*.state")).read_bytes()
    n_pages, = struct.unpack_from("=Q", data, 32)
    pagetab_off, = struct.unpack_from("=Q", data, 56)
    states = []
    for first in range(0, n_pages, 64):
        planes = struct.unpack_from("=3Q", data, pagetab_off + first // 64 * 24)
        states += [sum((plane >> i & 1) << bit for bit, plane in enumerate(planes)) for i in range(64)]
    return states[:n_pages]


def code_of(state):
    """The number that stands for a page state, from the one file that lists them."""
    text = (thawtest.ROOT / "src/core/page_states.def").read_text()
    return int(re.search(rf"^PAGE_STATE\({state}, *(\d+),", text, re.MULTILINE).group(1))


class Seen:
    """Which blocks the guest wrote to, KVM logged, anybody touched, and the pager calls dirty; at a step `pause`."""

    def __init__(self, lab, pages_file):
        lines = [line.split(" ") for line in pages_file.read_text().splitlines()]
        self.written, self.logged, self.touched = (
            {int(number) for number, letters in lines if letter in letters} for letter in "WLT")
        self.dirty = {page for page, code in enumerate(page_states(lab)) if code == code_of("DIRTY")}


def seen_after(lab, kvm, track, *steps, way="ring3"):
    """Run a guest through steps, look, and let it end; all its bytes were right."""
    print("seed", SEED)
    kvm.need(*WAYS[way])
    memory = lab.memory("8M", SEED)
    pager = lab.serve(memory, "--track", track, "--fault-around", "0")
    pages = lab.dir / "pages"
    vmm = lab.start_vmm(pager, memory, *WAYS[way], "--regions", "2", "--pages", pages, *steps, "pause", "walk", "verify")
    vmm.wait_line("paused")
    seen = Seen(lab, pages)
    let_go(vmm)
    thawtest.check_stats(finish(lab, pager, vmm)[1])
    return seen


def finish(lab, pager, vmm):
    """Wait for both. Return: the VMM's result and the pager's statistics."""
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    return result, pager.stats()


READ_AND_WRITTEN = ("walk:end=900", "fill:first=600,end=1200,cpus=1", "collect", "fill:first=1100,end=1400")


def test_the_dirty_log_has_every_page_that_the_guest_wrote(lab, kvm):
    seen = seen_after(lab, kvm, "none", "log", *READ_AND_WRITTEN, "collect")
    assert set(range(600, 1400)) == seen.written <= seen.logged
    assert not seen.logged & set(range(1400, 2048)), "nobody touched these"


def test_the_pager_calls_every_page_dirty_that_the_guest_wrote_and_no_other(lab, kvm):
    seen = seen_after(lab, kvm, "wp", *READ_AND_WRITTEN)
    assert set(range(600, 1400)) == seen.written
    assert seen.dirty - TABLES == seen.written
    assert not seen.logged


@pytest.mark.parametrize("way", WAYS)
def test_the_dirty_log_and_the_pager_have_every_page_that_the_guest_wrote(lab, kvm, way):
    seen = seen_after(lab, kvm, "wp", "log", *READ_AND_WRITTEN, "collect", way=way)
    assert set(range(600, 1400)) == seen.written
    assert seen.written <= seen.logged
    assert seen.written <= seen.dirty
    assert not (seen.logged | seen.dirty) & set(range(1400, 2048)), "nobody touched these"


def test_a_page_that_is_written_again_is_logged_again_and_stays_dirty(lab, kvm):
    steps = ("walk", "log", "fill:end=500", "forget", "fill:first=300,end=800", "collect")
    seen = seen_after(lab, kvm, "wp", *steps)
    assert set(range(300, 800)) <= seen.logged
    assert not seen.logged & set(range(FIRST, 300)), "not written since the log was read"
    assert set(range(FIRST, 800)) == seen.written <= seen.dirty


def test_a_log_that_is_switched_on_later_and_off_again_misses_no_page(lab, kvm):
    steps = ("fill:end=400", "log", "walk", "fill:first=200,end=700", "nolog", "fill:first=600,end=1000")
    seen = seen_after(lab, kvm, "wp", *steps)
    assert set(range(200, 700)) <= seen.logged
    assert not seen.logged & set(range(700, 2048))
    assert set(range(FIRST, 1000)) == seen.written <= seen.dirty


def test_pages_that_were_discarded_and_written_again_are_in_both(lab, kvm):
    seen = seen_after(lab, kvm, "wp", "log", "fill:end=900", "discard:first=100,end=500", "walk", "fill:first=300,end=400",
                      "collect")
    assert seen.written == set(range(FIRST, 100)) | set(range(300, 400)) | set(range(500, 900))
    assert seen.written <= seen.logged
    assert seen.dirty - TABLES == seen.written


# ---- discards ----


@pytest.mark.parametrize("mode", MODES)
def test_what_the_vmm_discarded_reads_zero(lab, kvm, mode):
    result, _stats = run(lab, kvm, mode, "--regions", "2", "walk:end=800", "discard:first=100,end=1300", "walk", "fill:first=900",
                         "discard:first=1200", "walk", "verify")
    assert result["pages_discarded"] == 1200 + 848


@pytest.mark.parametrize("mode,way", [(mode, "ring3") for mode in MODES] +
                         [(mode, way) for mode in ("page-by-page", "around-tracked") for way in list(WAYS)[1:]])
def test_discards_while_the_guest_runs_read_zero_and_never_the_image_again(lab, kvm, mode, way):
    result, stats = run(lab, kvm, mode, "--regions", "3", "walk:end=1024", "storm:n=300,pause_us=100", "verify", way=way)
    assert result["pages_discarded"] > 1000
    assert stats["counters"]["removes"] >= result["discards"]


def test_discards_of_a_few_pages_that_the_guest_reads_all_the_time_read_zero(lab, kvm):
    result, _stats = run(lab, kvm, "page-by-page", "storm:n=3000,end=64,pause_us=20", "verify")
    assert result["raced"] > 0, "not one read overlapped a discard"


# ---- huge pages, slots ----


@pytest.mark.parametrize("way", ["ring3", "halted-interrupted"])
@pytest.mark.parametrize("track", ["none", "wp"])
def test_every_byte_of_huge_pages_is_right(lab, kvm, track, way):
    print("seed", SEED)
    kvm.need(*WAYS[way])
    memory = lab.memory("32M", SEED)
    with thawtest.hugepages(40):
        pager = lab.serve(memory, "--track", track)
        vmm = lab.start_vmm(pager, memory, *WAYS[way], "--page-size", "2M", "--regions", "2", "walk:cpus=2", "fill:first=2048",
                            "discard:first=6000", "walk", "storm:n=40,pause_us=1000", "verify")
        result, stats = finish(lab, pager, vmm)
    assert result["page_bytes"] == 2 << 20
    thawtest.check_stats(stats, result)


@pytest.mark.parametrize("mode", ["page-by-page", "around-tracked"])
def test_memory_slots_are_deleted_and_set_again_while_their_memory_is_served(lab, kvm, mode):
    run(lab, kvm, mode, "--regions", "3", "walk:end=1000", "reslot", "fill:first=500,end=1500", "reslot", "walk", "verify")


@pytest.mark.parametrize("way", WAYS)
def test_memory_slots_are_deleted_and_set_again_while_the_guest_runs(lab, kvm, way):
    result, _stats = run(lab, kvm, "tracked", "--regions", "3", "storm:n=100,reslot=4,pause_us=100", "verify", way=way)
    assert result["reslots"] == 25


def test_slots_without_memory_do_not_keep_the_dirty_log_from_what_comes_after(lab, kvm):
    seen = seen_after(lab, kvm, "wp", "walk", "log", "reslot", "fill:first=300,end=800", "collect")
    assert set(range(300, 800)) == seen.written
    assert seen.written <= seen.logged
    assert seen.written <= seen.dirty


# ---- ends ----


@pytest.mark.parametrize("way", WAYS)
def test_a_vmm_that_is_killed_while_its_guest_runs_ends_the_pager(lab, kvm, way):
    kvm.need(*WAYS[way])
    memory = lab.memory("32M", SEED)
    pager = lab.serve(memory, "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, *WAYS[way], "storm:hold=1")
    vmm.wait_line("storming")
    vmm.end()
    pager.expect_exit(0)
    assert pager.stats()["end"] == "vmm-gone"


@pytest.mark.parametrize("way", WAYS)
def test_a_pager_that_is_asked_to_stop_ends_the_vmm_while_its_guest_runs(lab, kvm, way):
    kvm.need(*WAYS[way])
    memory = lab.memory("32M", SEED)
    pager = lab.serve(memory, "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, *WAYS[way], "storm:hold=1")
    vmm.wait_line("storming")
    pager.signal(signal.SIGTERM)
    pager.expect_exit(0)
    vmm.expect_exit(-signal.SIGKILL)
    assert pager.stats()["end"] == "stopped"


@pytest.mark.parametrize("way", WAYS)
def test_a_vmm_whose_bytes_cannot_be_had_is_stopped_and_its_guest_sees_nothing_else(lab, kvm, way):
    kvm.need(*WAYS[way])
    memory = lab.own_memory("8M", SEED, dense=True)
    pager = lab.serve(memory, "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, *WAYS[way], "walk:end=512", "pause", "walk", "verify")
    vmm.wait_line("paused")
    os.truncate(memory.path, 4 << 20)
    let_go(vmm)
    pager.expect_error("truncated", "was stopped")
    vmm.expect_exit(-signal.SIGKILL)
    assert "wrong byte" not in vmm.err and '"errors"' not in vmm.out


def serving_pid(pager):
    """The process that serves at the moment, from the log."""
    found = re.findall(r'msg="(?:serving|taken over)".*pager_pid=(\d+)', pager.err)
    return int(found[-1]) if found else None


def kill_pagers(pager, vmm, times):
    """Kill -9 one serving process after the other, each at a random moment of its work."""
    rng = random.Random(SEED)
    pid = thawtest.wait_until(lambda: serving_pid(pager), "a pager that serves")
    for _ in range(times):
        time.sleep(rng.random() * 0.03)
        assert vmm.running(), vmm.err
        os.kill(pid, signal.SIGKILL)
        killed = pid
        thawtest.wait_until(lambda: serving_pid(pager) != killed, "another pager")  # pylint: disable=cell-var-from-loop
        pid = serving_pid(pager)


@pytest.mark.parametrize("way", ["ring3", "halted-interrupted"])
@pytest.mark.parametrize("mode", ["page-by-page", "around-tracked"])
def test_the_guest_does_not_notice_that_its_pager_is_killed_and_replaced(lab, kvm, mode, way):
    print("seed", SEED)
    kvm.need(*WAYS[way])
    memory = lab.memory("32M", SEED)
    pager = lab.serve(memory, "--supervise", *MODES[mode])
    vmm = lab.start_vmm(pager, memory, *WAYS[way], "--regions", "2", "walk:end=6000", "storm:hold=1,pause_us=300", "verify")
    kill_pagers(pager, vmm, 10)
    vmm.wait_line("storming")
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_pagers_that_are_killed_forget_no_page_that_the_guest_wrote(lab, kvm):
    print("seed", SEED)
    kvm.need()
    memory = lab.memory("32M", SEED)
    pager = lab.serve(memory, "--supervise", *MODES["tracked"])
    pages = lab.dir / "pages"
    vmm = lab.start_vmm(pager, memory, "--pages", pages, "log", "fill:end=6000,cpus=1", "storm:hold=1,end=2000,pause_us=300",
                        "collect", "pause", "verify")
    kill_pagers(pager, vmm, 10)
    vmm.wait_line("storming")
    let_go(vmm)
    vmm.wait_line("paused")
    seen = Seen(lab, pages)
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert set(range(2000, 6000)) <= seen.written
    assert seen.written <= seen.logged
    assert seen.written <= seen.dirty


# ---- the tests are tested ----


@pytest.mark.parametrize("variant,steps,code", [
    ("naive", ("walk", "fill", "storm", "verify"), 0),
    ("naive_stale", ("walk", "storm"), WRONG),
    ("naive_stale", ("discard", "walk:cpus=1"), WRONG),
    ("naive_zero", ("walk",), WRONG),
    ("naive_write", ("fill",), WRONG),
    ("naive_lost", ("storm:n=100000",), STUCK),
], ids=lambda value: value if isinstance(value, str) else None)
def test_the_guest_notices_a_pager_that_is_wrong(lab, kvm, variant, steps, code):
    kvm.need()
    memory = lab.memory("8M", SEED)
    socket = lab.socket()
    naive = pathlib.Path(thawtest.program("NAIVE_DIR")) / variant
    pager = thawtest.Pager(lab, variant, [naive, socket, memory.path], socket, None)
    lab.processes.append(pager)
    pager.wait_listening()
    vmm = lab.start_vmm(pager, memory, *steps, timeout=3 if code == STUCK else thawtest.DEADLINE)
    assert vmm.wait(30) == code, vmm.err
    if code == WRONG:
        assert "wrong byte: " in vmm.err or "exit reason" in vmm.err
    if code == STUCK:
        assert "stuck in step storm\n" in vmm.err and "virtual CPU " in vmm.err
