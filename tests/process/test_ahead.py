# SPDX-License-Identifier: Apache-2.0
"""thaw serve --prefetch, --fill: what is installed before anybody asks for it."""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import time

import pytest

import thawtest
from recordlib import PAGE, PAGES, ask, finish, image, make_memory, record, start, thaw, wait_over
from thawtest import check_stats, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

SLOW = ["--prefetch-rate", "40960"]  # ten pages a second


@pytest.fixture
def memory(lab):
    """A memory file as long as the peer's memory."""
    return make_memory(lab.dir / "memory")


def big_set(lab, memory, *args, steps=("shuffle:threads=4,first=300,end=1700",)):
    """The working set of a fake VMM. Return: the file's path."""
    path = lab.dir / f"set{len(lab.processes)}"
    pager = lab.serve(memory, "--record", path)
    lab.run_vmm(pager, memory, *args, *steps)
    pager.expect_exit(0)
    return path


# ---- replay ----


def test_a_working_set_that_is_there_costs_no_fault(lab, memory):
    pages = [40, 3, 4, 5, 63, 0]
    pager, peer = start(lab, memory, "--prefetch", record(lab, memory, pages))
    stats = wait_over(pager)
    assert stats["ahead"]["working_set_pages"] == stats["ahead"]["working_set_done"] == len(pages)
    assert stats["counters"]["pages_ahead"] == len(pages)
    assert stats["states"]["absent"] == PAGES - len(pages)
    for page in pages:
        assert peer.word(page) == image(page)
    assert pager.ask_stats()["counters"]["faults"] == 0
    assert peer.word(7) == image(7)
    assert finish(pager, peer)["counters"]["faults"] == 1


@pytest.mark.parametrize("track", ["none", "wp"])
@pytest.mark.parametrize("where", ["tmpfs", "disk"])
def test_every_byte_is_right_with_prefetch_and_fill(lab, track, where):
    memory = lab.own_memory("8M", seed=11, where=where)
    path = big_set(lab, memory)
    if where == "disk":
        thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--prefetch", path, "--fill", "--track", track)
    result = lab.run_vmm(pager, memory, "write:threads=4,n=300", "balloon:threads=4,n=100", "verify")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["pages_ahead"] > 0
    assert stats["ahead"]["over"]


@thawtest.hugepages(8)
@pytest.mark.parametrize("units", ["4K", "2M"])
@pytest.mark.parametrize("pages", ["4K", "2M"])
def test_a_working_set_of_one_page_size_serves_guests_of_the_other(lab, units, pages):
    memory = lab.memory("8M", seed=11, dense=True)
    first, end = (1, 3) if units == "2M" else (512, 1536)
    path = big_set(lab, memory, "--page-size", units, steps=(f"shuffle:first={first},end={end}",))
    pager = lab.serve(memory, "--prefetch", path)
    first, end = (1, 3) if pages == "2M" else (512, 1536)
    vmm = lab.start_vmm(pager, memory, "--page-size", pages, "pause", f"shuffle:first={first},end={end}")
    vmm.wait_line("paused")
    wait_over(pager)
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert pager.stats()["counters"]["faults"] == 0
    assert pager.stats()["counters"]["pages_ahead"] == end - first


def test_pages_that_were_removed_are_passed_over(lab, memory):
    path = record(lab, memory, list(range(0, 40)))
    pager, peer = start(lab, memory, "--prefetch", path, *SLOW)
    assert peer.tell("discard 20 10") == 0
    peer.wait_line("discarded 20\n")
    stats = wait_over(pager)
    assert stats["states"]["removed"] == 10
    assert stats["counters"]["pages_ahead"] == 30
    for page in range(40):
        assert peer.word(page) == (0 if 20 <= page < 30 else image(page))
    finish(pager, peer)


def test_a_fault_does_not_wait_for_the_plan(lab, memory):
    pager, peer = start(lab, memory, "--prefetch", record(lab, memory, list(range(60))), "--fault-around", "0", *SLOW)
    for page in range(59, 40, -1):
        assert peer.word(page) == image(page)
    stats = pager.ask_stats()
    assert not stats["ahead"]["over"], "the plan was too fast for this test"
    assert stats["counters"]["faults"] >= 10
    finish(pager, peer)


def test_a_page_that_was_discarded_unheard_and_given_its_old_bytes_stops_the_vm(lab):
    """A page comes by a fault while the second thread has it before it, and is gone again before that comes to it."""
    thawtest.needs_strace()
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for ptrace")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one processor only")
    memory = lab.memory("16M", seed=3, dense=True)
    socket, stats_file = lab.socket(), lab.dir / "stats"
    pager = thawtest.Pager(lab, "traced", [
        "strace", "-D", "-f", "-qq", "-o", lab.dir / "strace", "-e", "trace=ioctl", "-e", "inject=ioctl:delay_enter=30000",
        thawtest.program("THAW"), "serve", "--socket", socket, *memory.serve_args(), "--fill", "--fault-around", "0",
        "--state", lab.state_dir, "--stats", stats_file], socket, stats_file)
    lab.processes.append(pager)
    pager.wait_listening()
    peer = thawtest.Peer(lab, 4096)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    pager.wait_line("serving")
    for page in range(40, 1000, 8):  # not all of them meet the ring; those that do not are zero from then on
        if pager.child.poll() is not None:
            break
        try:
            peer.word(page)
            assert peer.tell(f"punch {page}") == 0
        except (AssertionError, BrokenPipeError):
            break  # it was stopped
    pager.expect_exit(1)
    assert "discarded without a message" in pager.err
    assert pager.stats()["end"] == "unknown-event"


def test_the_rate_is_kept(lab):
    memory = lab.memory("8M", seed=11, dense=True)
    began = time.monotonic()
    pager = lab.serve(memory, "--fill", "--prefetch-rate", "4M")
    vmm = lab.start_vmm(pager, memory, "pause", "verify")
    vmm.wait_line("paused")
    wait_until(lambda: ask(pager)["ahead"]["fill_done"] > 0, "the fill to begin")
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    allowed = (time.monotonic() - began) * (4 << 20) + (256 << 10)  # the rate, and a slice
    assert 0 < pager.stats()["counters"]["pages_ahead"] * 4096 <= allowed


def test_a_plan_that_is_over_costs_nothing(lab, memory):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has threads of its own")
    pager, peer = start(lab, memory, "--fill")
    wait_over(pager)
    wait_until(lambda: asleep_for(pager.pid, 0.1), "the end of what there was to do")
    before = thread_times(pager.pid)
    with pytest.raises(TimeoutError):
        wait_until(lambda: thread_times(pager.pid) != before, "nothing", deadline=1)
    finish(pager, peer)


def thread_times(pid):
    """How often the threads of a process have been given a processor."""
    folder = f"/proc/{pid}/task"
    return {tid: pathlib.Path(folder, tid, "schedstat").read_text(encoding="ascii").split()[2] for tid in os.listdir(folder)}


def asleep_for(pid, seconds):
    """No thread of a process is given a processor for so long."""
    before = thread_times(pid)
    time.sleep(seconds)
    return thread_times(pid) == before


def test_what_is_discarded_just_before_it_would_be_installed_stays_away(lab):
    memory = lab.memory("64M", seed=12)
    pager = lab.serve(memory, "--fill")
    result = lab.run_vmm(pager, memory, "balloon:threads=2,n=1500", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_a_terminal_sees_a_bar(lab, memory):
    path = record(lab, memory, list(range(32)))
    master, slave = pty.openpty()
    socket = lab.socket()
    pager = subprocess.Popen([thawtest.program("THAW"), "serve", "--socket", socket, "--memory", memory, "--state",
                              lab.state_dir, "--prefetch", path, "--fill"], stderr=slave, stdin=subprocess.DEVNULL)
    try:
        os.close(slave)
        wait_until(lambda: thawtest.is_listening(socket), "the pager to listen")
        peer = thawtest.Peer(lab, PAGES)
        assert peer.tell(f"connect {socket}") == 0
        assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
        seen = b""
        while b"100 %" not in seen:
            seen += os.read(master, 4096)
        assert re.search(rb"\r\[#+\] 100 % of 0 MiB ahead", seen)
        peer.quit()
        assert pager.wait(thawtest.DEADLINE) == 0
    finally:
        pager.kill()
        pager.wait()
        os.close(master)


# ---- bytes that are not in memory ----


def test_a_cold_working_set_is_read_by_the_workers(lab):
    memory = lab.own_memory("16M", seed=11, dense=True, where="disk")
    path = big_set(lab, memory, steps=("shuffle:threads=4,first=300,end=3700",))
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--prefetch", path)
    vmm = lab.start_vmm(pager, memory, "pause", "shuffle:first=300,end=3700")
    vmm.wait_line("paused")
    stats = wait_over(pager)
    assert stats["counters"]["pages_ahead"] == 3400
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert pager.stats()["counters"]["faults"] == 0


def test_a_pager_that_is_stopped_while_it_reads_ahead_ends(lab):
    memory = lab.own_memory("16M", seed=11, dense=True, where="disk")
    path = big_set(lab, memory)
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--prefetch", path, "--fill", "--prefetch-rate", "1M")
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause")
    vmm.wait_line("paused")
    wait_until(lambda: ask(pager)["counters"]["pages_ahead"] > 0, "the plan to begin")
    pager.signal(signal.SIGTERM)
    pager.expect_exit(0)
    assert pager.stats()["end"] == "stopped"
    assert not pager.stats()["ahead"]["over"]


def test_bytes_that_cannot_be_read_ahead_stop_nobody_before_they_are_needed(lab):
    memory = lab.own_memory("8M", seed=11, dense=True, where="disk")
    path = big_set(lab, memory)
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--prefetch", path, "--prefetch-rate", "1M")
    vmm = lab.start_vmm(pager, memory, "seq:first=0,end=10", "pause", "seq")
    vmm.wait_line("paused")
    os.truncate(memory.path, 2 << 20)
    # A read says so, or the question where the bytes are: then each slice is left to its faults.
    wait_until(lambda: "cannot read ahead" in pager.err or "installed ahead" in pager.err, "the end of the plan")
    assert vmm.running() and pager.running()
    thawtest.let_go(vmm)
    pager.expect_error("truncated while it is served", "was stopped")
    assert pager.err.count("cannot read ahead") <= 1
    vmm.expect_exit(-signal.SIGKILL)


# ---- before the VM goes on ----


def serve_with_fd(lab, memory, fd, *args):
    """A pager that inherits a descriptor."""
    socket = lab.socket()
    stats_file = lab.dir / f"stats{len(lab.processes)}"
    argv = [thawtest.program("THAW"), "serve", "--socket", socket, "--memory", getattr(memory, "path", memory),
            "--state", lab.state_dir, "--stats", stats_file, "--resume-fd", str(fd), *args]
    pager = thawtest.Pager(lab, f"thaw{len(lab.processes)}", argv, socket, stats_file, pass_fds=[fd])
    lab.processes.append(pager)
    os.close(fd)
    pager.wait_listening()
    return pager


@pytest.mark.parametrize("supervise", [[], ["--supervise"]], ids=["alone", "supervised"])
@pytest.mark.parametrize("part, pages", [("all", 1400), ("1M", 256)])
def test_the_vm_may_go_on_when_the_hottest_part_is_there(lab, part, pages, supervise):
    memory = lab.memory("8M", seed=11, dense=True)
    path = big_set(lab, memory)
    reader, writer = os.pipe()
    pager = serve_with_fd(lab, memory, writer, "--prefetch", path, "--prefetch-before-resume", part, *supervise,
                          "--prefetch-rate", "1")
    vmm = lab.start_vmm(pager, memory, "pause", "shuffle:first=300,end=1700", "verify")
    assert os.read(reader, 100) == b"resume\n"
    counters = pager.ask_stats()["counters"]
    assert pages <= counters["pages_ahead"] <= pages + 2048 and counters["faults"] == 0
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert os.read(reader, 100) == b"", "the VM may go on once"
    os.close(reader)


def test_without_a_working_set_the_vm_may_go_on_at_once(lab, memory):
    reader, writer = os.pipe()
    pager = serve_with_fd(lab, memory, writer)
    peer = thawtest.Peer(lab, PAGES)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert os.read(reader, 100) == b"resume\n"
    os.close(reader)
    finish(pager, peer)


@pytest.mark.parametrize("where", ["tmpfs", "disk"])
@pytest.mark.parametrize("track", ["none", "wp"])
def test_bursts_that_race_with_discards_and_writes_lose_nothing(lab, track, where):
    memory = lab.own_memory("16M", seed=11, where=where)
    path = big_set(lab, memory, steps=("shuffle:threads=4",))
    for _ in range(5):
        if where == "disk":
            thawtest.drop_cache(memory.path)
        pager = lab.serve(memory, "--prefetch", path, "--prefetch-before-resume", "all", "--fill", "--track", track)
        result = lab.run_vmm(pager, memory, "race:threads=3,n=200", "balloon:threads=3,n=100", "verify")
        pager.expect_exit(0)
        check_stats(pager.stats(), result)


def test_a_pager_that_is_killed_before_the_vm_may_go_on_is_followed_by_one_that_says_so(lab):
    memory = lab.own_memory("16M", seed=11, dense=True, where="disk")
    path = big_set(lab, memory, steps=("shuffle:threads=4",))
    for _ in range(5):
        thawtest.drop_cache(memory.path)
        reader, writer = os.pipe()
        pager = serve_with_fd(lab, memory, writer, "--prefetch", path, "--prefetch-before-resume", "all", "--supervise")
        vmm = lab.start_vmm(pager, memory, "pause", "verify")
        pager.wait_line("serving")
        os.kill(int(re.search(r"pager_pid=(\d+)", pager.err).group(1)), signal.SIGKILL)
        assert os.read(reader, 100) == b"resume\n"
        os.close(reader)
        thawtest.let_go(vmm)
        lab.finish_vmm(vmm)
        pager.expect_exit(0)


def test_a_pager_that_is_killed_while_it_installs_ahead_is_followed_by_one_that_goes_on(lab):
    memory = lab.memory("8M", seed=11, dense=True)
    path = big_set(lab, memory)
    pager = lab.serve(memory, "--prefetch", path, "--fill", "--prefetch-rate", "8M", "--supervise")
    vmm = lab.start_vmm(pager, memory, "pause", "verify")
    vmm.wait_line("paused")
    for _ in range(3):
        wait_until(lambda: ask(pager)["ahead"]["working_set_done"] > 0, "the plan to begin")
        before = ask(pager)["pager_pid"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda before=before: ask(pager)["pager_pid"] != before, "the next pager")
    stats = wait_over(pager)
    assert stats["states"]["absent"] == 0
    assert stats["counters"]["takeovers"] == 3
    thawtest.let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert pager.stats()["counters"]["faults"] == 0


# ---- what is refused ----


def test_a_working_set_of_another_memory_file_is_refused_before_a_vm_comes(lab, memory):
    path = record(lab, memory, [1])
    other = make_memory(lab.dir / "other", 2 * PAGES)
    pager = lab.serve(other, "--prefetch", path, wait=False)
    pager.expect_error(f"of a memory file of {PAGES * PAGE} bytes", f"this one has {2 * PAGES * PAGE}")


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_working_set_that_is_no_good_is_refused_before_a_vm_comes(lab, memory, damage):
    path = record(lab, memory, [1, 2, 3])
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-4])
    else:
        data[-1] ^= 1
        path.write_bytes(data)
    lab.serve(memory, "--prefetch", path, wait=False).expect_error(path)


@pytest.mark.parametrize("args, words", [
    (["--prefetch-before-resume", "all"], "--prefetch-before-resume is for --prefetch"),
    (["--prefetch", "f", "--prefetch-before-resume", "0"], "--prefetch-before-resume is 0"),
    (["--prefetch", "f", "--prefetch-before-resume", "much"], "--prefetch-before-resume is much"),
    (["--prefetch-rate", "1M"], "--prefetch-rate is for --prefetch and --fill"),
    (["--fill", "--prefetch-rate", "0"], "--prefetch-rate is 0"),
    (["--fill", "--prefetch-rate", "fast"], "--prefetch-rate is fast"),
    (["--fill", "--leave-when-full", "--track", "wp"], "--leave-when-full is not for --track"),
    (["--let-go", "maybe"], "--let-go is maybe"),
    (["--resume-fd", "77"], "--resume-fd is 77"),
    (["--resume-fd", "-1"], "--resume-fd is -1"),
])
def test_usage_errors_say_what_is_wrong(args, words):
    assert words in thaw("serve", "s", "m", *args, code=2)
