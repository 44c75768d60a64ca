# SPDX-License-Identifier: Apache-2.0
"""
What went wrong in pagers of this kind, faults and discards first: docs/scenarios.md lists all of it.

The races are not left to chance where they can be made: the pager is stopped (SIGSTOP) while messages pile up in the
kernel, or the thread that discards is kept off its processor, which makes the kernel refuse installs for as long.
"""

import json
import os
import pathlib
import re
import signal
import time

import pytest

import thawtest
from matrix import SEED
from thawtest import check_stats, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

PAGES = 64
PAGE = 4096
EXACT = ["--fault-around", "0"]
AROUND = ["--fault-around", "64K"]


@pytest.fixture
def memory(lab):
    """A memory file as long as the peer's memory; its n-th page is full of bytes n + 1."""
    path = lab.dir / "memory"
    path.write_bytes(b"".join(bytes([page + 1]) * PAGE for page in range(PAGES)))
    return path


def image(page):
    """The first word of a page of that file."""
    return int.from_bytes(bytes([(page + 1) & 0xff]) * 8, "little")


def start(lab, memory, *args, mode=""):
    """A pager and a VMM that it serves."""
    pager = lab.serve(memory, *args)
    peer = thawtest.Peer(lab, PAGES, mode=mode)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    pager.wait_line("serving")
    return pager, peer


def finish(pager, peer):
    """All went well. Return: the statistics."""
    peer.quit()
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats)
    # Nothing is logged while faults are served, refused or not.
    assert re.findall(r'^level=(\w+) msg="(\w+)"', pager.err, re.MULTILINE)[-2:] == [
        ("info", "serving"), ("info", "ended")]
    return stats


def counters_now(pager):
    """The pager's counters at this moment."""
    pager.stats_file.unlink(missing_ok=True)
    pager.signal(signal.SIGUSR1)
    wait_until(pager.stats_file.exists, "statistics")
    return pager.stats()["counters"]


def stop(pager):
    """Stop the pager where it is; messages pile up from here on."""
    pager.signal(signal.SIGSTOP)
    stat = pathlib.Path("/proc") / str(pager.pid) / "stat"
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the pager to stop")


def n_waiting(peer):
    """How many faults the kernel has that nobody has read."""
    folder = pathlib.Path("/proc") / str(peer.pid)
    for fd in (folder / "fd").iterdir():
        if os.readlink(fd) == "anon_inode:[userfaultfd]":
            text = (folder / "fdinfo" / fd.name).read_text()
            return int(re.search(r"pending:\s*(\d+)", text).group(1))
    raise AssertionError("the VMM has no userfaultfd")


def discard(peer, first, n, command="discard", *more):
    """Begin a discard. Returns when its message is in the kernel's queue, or has been read."""
    seen = len(re.findall(r"^discarding", peer.out, re.MULTILINE))
    assert peer.tell(" ".join(str(word) for word in (command, first, n, *more))) == 0

    def begun():
        found = re.findall(r"^discarding (\d+)$", peer.out, re.MULTILINE)
        return found[seen] if len(found) > seen else None

    task = pathlib.Path("/proc") / str(peer.pid) / "task" / wait_until(begun, "a thread that discards") / "stat"

    def asleep():
        try:
            return task.read_text().rsplit(")", 1)[1].split()[0] == "D"
        except (FileNotFoundError, ProcessLookupError):  # of a thread that ended: the open or the read fails
            return True

    wait_until(asleep, "the discard to wait for its message to be read")


def words(peer, page):
    """What threads have found in a page so far."""
    return [int(word, 16) for word in re.findall(rf"^page {page} ([0-9a-f]+)$", peer.out, re.MULTILINE)]


# ---- what is read first ----


@pytest.mark.parametrize("around", [EXACT, AROUND], ids=["alone", "around"])
def test_a_fault_that_is_read_before_an_older_discard_gets_zeroes(lab, memory, around):
    pager, peer = start(lab, memory, *around)
    for page in range(0, PAGES, 16):
        stop(pager)
        discard(peer, page, 1)
        assert peer.tell(f"touch {page}") == 0
        wait_until(lambda: n_waiting(peer) == 1, "the fault")
        pager.signal(signal.SIGCONT)
        peer.wait_line(f"discarded {page}\n")
        assert peer.word(page) == 0
        assert set(words(peer, page)) == {0}
    finish(pager, peer)


@pytest.mark.parametrize("around", [EXACT, AROUND], ids=["alone", "around"])
def test_a_fault_that_is_older_than_the_discard_it_is_read_with_gets_zeroes(lab, memory, around):
    pager, peer = start(lab, memory, *around)
    for page in range(0, PAGES, 16):
        stop(pager)
        assert peer.tell(f"touch {page}") == 0
        wait_until(lambda: n_waiting(peer) == 1, "the fault")
        discard(peer, page, 1)
        pager.signal(signal.SIGCONT)
        peer.wait_line(f"discarded {page}\n")
        wait_until(lambda page=page: words(peer, page), "the page")
        assert set(words(peer, page)) == {0}
    finish(pager, peer)


@pytest.mark.parametrize("first,n", [(1, 3), (0, 4), (5, 11), (9, 1)])
def test_fault_around_leaves_pages_alone_whose_discard_is_still_unread(lab, memory, first, n):
    pager, peer = start(lab, memory, *AROUND)
    toucher = 4 if first != 0 else 8
    stop(pager)
    discard(peer, first, n)
    assert peer.tell(f"touch {toucher}") == 0
    wait_until(lambda: n_waiting(peer) == 1, "the fault")
    pager.signal(signal.SIGCONT)
    assert peer.word(toucher) == image(toucher)
    peer.wait_line(f"discarded {first}\n")
    for page in range(16):
        assert peer.word(page) == (0 if first <= page < first + n else image(page)), page
    finish(pager, peer)


def test_a_page_given_back_and_touched_thousands_of_times_is_zero_each_time(lab):
    memory = lab.memory("4M", SEED)
    pager = lab.serve(memory, *EXACT, "--let-go", "off")  # it may be in a long zero run
    result = lab.run_vmm(pager, memory, "discard:first=100,end=108,n=3000", "verify")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["pages_refaulted"] > 3000


@pytest.mark.parametrize("around", [EXACT, AROUND], ids=["alone", "around"])
def test_discards_by_many_threads_at_once_stop_nobody(lab, around):
    memory = lab.memory("8M", SEED)
    pager = lab.serve(memory, *around)
    result = lab.run_vmm(pager, memory, "discard:threads=16,n=60", "balloon:threads=32,n=150", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


# ---- installs that are refused ----


def starved(lab, memory, *args, hogs=1):
    """A pager, a VMM, and the number of a processor on which a discarding thread gets no time."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one processor: nobody can be kept off it")
    pager, peer = start(lab, memory, *args)
    os.sched_setaffinity(pager.pid, set(cpus[:-1]))
    for _ in range(hogs):
        assert peer.tell(f"hog {cpus[-1]}") == 0
    return pager, peer, cpus[-1]


def cpu_seconds(pid):
    """What all threads of a process have used."""
    return sum(int(task.joinpath("schedstat").read_text().split()[0])
               for task in (pathlib.Path("/proc") / str(pid) / "task").iterdir()) / 1e9


def fault_while_refused(pager, peer, page, n, discarded, cpu):
    """Have n threads touch a page and another one discarded, so that the pager reads it all before that is over."""
    stop(pager)
    discard(peer, discarded, 1, "starve", cpu)
    assert peer.tell(f"touch {page} {n}") == 0
    wait_until(lambda: n_waiting(peer) == n, f"{n} faults")
    pager.signal(signal.SIGCONT)


def touch_while_refused(pager, peer, page, n, discarded, cpu):
    """Touch a page when the kernel refuses all installs. Return: seconds that it took."""
    fault_while_refused(pager, peer, page, n, discarded, cpu)
    begin = time.monotonic()
    wait_until(lambda: len(words(peer, page)) == n, f"{n} threads on page {page}")
    peer.wait_line(f"discarded {discarded}\n")
    return time.monotonic() - begin


def test_one_fault_that_was_refused_is_answered_though_no_message_follows(lab, memory):
    pager, peer, cpu = starved(lab, memory, *EXACT)
    for page in range(0, PAGES, 2):
        touch_while_refused(pager, peer, page, 1, page + 1, cpu)
        assert words(peer, page) == [image(page)]
        if counters_now(pager)["again"] > 0:
            break
    assert finish(pager, peer)["counters"]["again"] > 0, "nothing was ever refused: this tested nothing"


def test_a_herd_on_a_refused_page_costs_no_more_than_one_thread(lab, memory):
    pager, peer, cpu = starved(lab, memory, *EXACT)
    for page in range(0, PAGES, 2):
        before, cpu_before = counters_now(pager)["again"], cpu_seconds(pager.pid)
        seconds = touch_while_refused(pager, peer, page, 64, page + 1, cpu)
        used, again = cpu_seconds(pager.pid) - cpu_before, counters_now(pager)["again"] - before
        assert set(words(peer, page)) == {image(page)}
        # One attempt a millisecond, a few more at the beginning. A try for each thread would be 64 of them.
        assert again <= 1000 * seconds + 20, (again, seconds)
        assert used < 0.1 + seconds / 2, (used, seconds)
        if again >= 20:
            break
    assert finish(pager, peer)["counters"]["again"] > 0, "nothing was ever refused: this tested nothing"


def test_messages_are_read_while_installs_are_refused(lab, memory):
    """A second discard begins while the first one has all installs refused: nothing ends that but its being read."""
    pager, peer, cpu = starved(lab, memory, *EXACT, hogs=12)
    overlapped = False
    for page in range(0, PAGES - 4, 5):
        fault_while_refused(pager, peer, page, 4, page + 1, cpu)
        wait_until(lambda: n_waiting(peer) == 0, "the faults to be read, and refused")
        discard(peer, page + 2, 2)
        peer.wait_line(f"discarded {page + 2}\n")
        overlapped = f"discarded {page + 1}\n" not in peer.out
        wait_until(lambda page=page: len(words(peer, page)) == 4, f"page {page}")
        peer.wait_line(f"discarded {page + 1}\n")
        assert [peer.word(page + i) for i in range(5)] == [image(page), 0, 0, 0, image(page + 4)]
        if overlapped:
            break
    finish(pager, peer)
    assert overlapped, "no discard began while another one was under way: this tested nothing"


# ---- faults at odd times and places ----


def test_faults_raised_before_the_handshake_are_answered(lab, memory):
    pager = lab.serve(memory, *EXACT)
    peer = thawtest.Peer(lab, PAGES)
    for page in (3, 3, 9):
        assert peer.tell(f"touch {page}") == 0
    wait_until(lambda: n_waiting(peer) == 3, "the faults")
    peer.connect(pager)
    text = json.dumps([peer.region()]).encode()
    assert peer.send(text[:10], "uffd") == 0
    assert peer.tell("touch 12") == 0
    wait_until(lambda: n_waiting(peer) == 4, "one more fault")
    assert peer.send(text[10:]) == 0
    for page in (3, 9, 12):
        wait_until(lambda page=page: words(peer, page), f"page {page}")
        assert set(words(peer, page)) == {image(page)}
    assert len(words(peer, 3)) == 2 or wait_until(lambda: len(words(peer, 3)) == 2, "the second thread")
    finish(pager, peer)


def test_a_discard_begun_before_the_handshake_is_over_when_it_is_served(lab, memory):
    pager = lab.serve(memory, *AROUND)
    peer = thawtest.Peer(lab, PAGES)
    discard(peer, 2, 2)
    assert peer.tell("touch 1") == 0
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    peer.wait_line("discarded 2\n")
    assert [peer.word(page) for page in range(1, 5)] == [image(1), 0, 0, image(4)]
    finish(pager, peer)


def test_a_vmm_whose_handshake_is_refused_sees_nothing_of_its_memory(lab, memory):
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab, PAGES)
    for page in range(8):
        assert peer.tell(f"touch {page} 4") == 0
    wait_until(lambda: n_waiting(peer) == 32, "the faults")
    peer.connect(pager)
    peer.send(json.dumps([peer.region(size=PAGE)]).encode(), "uffd")
    assert peer.wait() == -signal.SIGKILL
    assert not re.search(r"^page", peer.out, re.MULTILINE)
    pager.expect_error("handshake", "another VM")


def test_a_read_only_part_in_the_middle_is_served_like_the_rest(lab, memory):
    pager, peer = start(lab, memory, *AROUND)
    assert peer.tell("protect 5 2") == 0
    assert peer.tell("protect 21 1") == 0
    for page in (4, 5, 6, 7, 20, 21, 22, 40):
        assert peer.word(page) == image(page), page
    finish(pager, peer)


@pytest.mark.parametrize("around", [EXACT, AROUND], ids=["alone", "around"])
def test_a_part_that_the_vmm_unregisters_strands_nobody(lab, memory, around):
    pager, peer = start(lab, memory, *around)
    mine, taken = range(0, PAGES, 8), range(4, PAGES, 8)
    for page in [*mine, *taken]:
        assert peer.tell(f"touch {page} 4") == 0
        if page in taken:
            assert peer.tell(f"unregister {page - 1} 3") == 0
    for page in [*mine, *taken]:
        wait_until(lambda page=page: len(words(peer, page)) == 4, f"four threads on page {page}")
    for page in mine:
        assert set(words(peer, page)) == {image(page)}
    for page in taken:
        assert set(words(peer, page)) <= {image(page), 0}
    for page in range(PAGES):
        # What is not registered any more is the kernel's own zero-fill, unless it was there before.
        expected = {image(page), 0} if page % 8 in (3, 4, 5) else {image(page)}
        assert peer.word(page) in expected, page
    finish(pager, peer)


def test_a_part_that_is_unregistered_while_its_fault_is_put_off_is_woken_and_counted(lab, memory):
    pager, peer, cpu = starved(lab, memory, *EXACT)
    for page in range(0, PAGES - 3, 4):
        fault_while_refused(pager, peer, page + 2, 8, page, cpu)
        if page % 8 == 0:
            wait_until(lambda: n_waiting(peer) == 0, "the faults to be read")
        assert peer.tell(f"unregister {page + 2} 1") == 0
        wait_until(lambda page=page: len(words(peer, page + 2)) == 8, f"eight threads on page {page + 2}")
        assert set(words(peer, page + 2)) <= {0, image(page + 2)}
        peer.wait_line(f"discarded {page}\n")
        assert peer.word(page + 3) == image(page + 3)
        if counters_now(pager)["unmapped"] > 0:
            break
    assert finish(pager, peer)["counters"]["unmapped"] > 0, "no install met the missing part: this tested nothing"


# ---- the descriptor that is shared ----


def flags_of(peer):
    """The userfaultfd's file status flags, as the VMM sees them."""
    assert peer.tell("flags") == 0
    return int(re.findall(r"^flags (\d+)$", peer.out, re.MULTILINE)[-1])


def test_the_flags_of_the_vmms_descriptor_are_never_changed(lab, memory):
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab, PAGES)
    before = flags_of(peer)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert peer.word(0) == image(0)
    assert flags_of(peer) == before
    discard(peer, 0, 4)
    peer.wait_line("discarded 0\n")
    assert peer.word(1) == 0
    assert flags_of(peer) == before
    finish(pager, peer)


def test_a_vmm_that_makes_its_descriptor_blocking_is_stopped_and_told_why(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.word(0) == image(0)
    peer.tell("blocking")
    peer.tell("touch 40")  # nothing tells of the change before the next message does
    assert peer.wait() == -signal.SIGKILL
    assert not words(peer, 40)
    pager.expect_error("userfaultfd", "O_NONBLOCK")


# ---- slow and failing storage ----


class Host:
    """tests/lib/host_pager.c: pagers over a source that does what it is told."""

    def __init__(self, lab, pages=PAGES, pagers=1, kind=()):
        self.process = lab.start("host", [thawtest.program("HOST_PAGER"), lab.dir, pages, pagers, *kind],
                                 stdin=thawtest.subprocess.PIPE)
        self.socket = lab.dir / "s0"
        self._told = 0
        for number in range(pagers):
            self.process.wait_line(f"listening {number}\n")

    def tell(self, line):
        """Change the source's will."""
        self.process.child.stdin.write((line + "\n").encode())
        self.process.child.stdin.flush()
        self._told += 1
        wait_until(lambda: len(re.findall(r"^ok$", self.process.out, re.MULTILINE)) == self._told, "ok")

    def expect_fetching(self, page):
        """A worker has begun to fetch this page."""
        self.process.wait_line(f"fetching {page}\n")


@pytest.fixture
def host(lab):
    """A pager over a source that does what it is told."""
    return Host(lab)


def attach(lab, host, pages=PAGES):
    """A VMM that this pager serves."""
    peer = thawtest.Peer(lab, pages)
    peer.connect(host)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    return peer


def test_nothing_is_installed_from_where_its_source_has_dropped_it(lab):
    pages = 2048
    host = Host(lab, pages, kind=["forgetful"])
    peer = attach(lab, host, pages)
    for page in range(0, pages, 61):  # what is asked for on the way goes through the same source
        assert peer.word(page) == image(page)
    for page in range(pages):
        assert peer.tell(f"touch {page}") == 0
    wait_until(lambda: len(re.findall(r"^page ", peer.out, re.MULTILINE)) >= pages, "every page")
    for page, word in re.findall(r"^page (\d+) ([0-9a-f]+)$", peer.out, re.MULTILINE):
        assert int(word, 16) == image(int(page)), page
    peer.quit()


def test_a_slow_page_holds_up_neither_discards_nor_other_pages(lab, host):
    host.tell("away 0")
    peer = attach(lab, host)
    assert peer.word(1) == image(1)
    assert peer.tell("touch 0 3") == 0
    host.expect_fetching(0)
    discard(peer, 1, 1)
    peer.wait_line("discarded 1\n")
    assert peer.word(2) == image(2)
    assert peer.word(1) == 0
    assert not words(peer, 0), "the slow page came too early: this tested nothing"
    host.tell("let 0")
    wait_until(lambda: words(peer, 0) == [image(0)] * 3, "the slow page")
    peer.quit()


def test_with_all_workers_stuck_what_is_in_memory_is_still_served(lab, host):
    slow = range(10, 30)
    host.tell("away " + " ".join(str(page) for page in slow))
    peer = attach(lab, host)
    for page in slow:
        assert peer.tell(f"touch {page}") == 0
    wait_until(lambda: len(re.findall("^fetching", host.process.out, re.MULTILINE)) >= 4, "busy workers")
    for page in (0, 1, 40, PAGES - 1):
        assert peer.word(page) == image(page)
    for page in slow:
        assert not words(peer, page)
        host.tell(f"let {page}")
    for page in slow:
        wait_until(lambda page=page: words(peer, page) == [image(page)], f"page {page}")
    peer.quit()


def test_a_page_given_back_while_it_is_fetched_is_zero_at_once(lab, host):
    host.tell("away 7")
    peer = attach(lab, host)
    assert peer.tell("touch 7 5") == 0
    host.expect_fetching(7)
    discard(peer, 7, 1)
    peer.wait_line("discarded 7\n")
    wait_until(lambda: words(peer, 7) == [0] * 5, "zeroes, while the fetch goes on")
    host.tell("let 7")
    assert peer.word(8) == image(8)
    assert peer.word(7) == 0
    peer.quit()
    host.process.wait_line("ended 0 well\n")


def test_a_fetch_that_fails_when_nobody_wants_its_bytes_any_more_harms_nobody(lab, host):
    host.tell("away 7")
    peer = attach(lab, host)
    assert peer.tell("touch 7") == 0
    host.expect_fetching(7)
    discard(peer, 7, 1)
    peer.wait_line("discarded 7\n")
    wait_until(lambda: words(peer, 7) == [0], "zeroes")
    host.tell("fail 7")
    for page in range(8, 20):
        assert peer.word(page) == image(page)
    peer.quit()
    host.process.wait_line("ended 0 well\n")


def test_a_page_that_cannot_be_fetched_stops_the_vm_before_anybody_sees_zeroes(lab, host):
    host.tell("away 7 9")
    peer = attach(lab, host)
    for page in (7, 9):
        assert peer.tell(f"touch {page} 8") == 0
        host.expect_fetching(page)
    host.tell("fail 7")
    assert peer.wait() == -signal.SIGKILL
    assert not words(peer, 7) and not words(peer, 9)
    host.process.wait_line("Input/output error")
    host.tell("let 9")
    host.process.wait_line("ended 0 badly\n")


def test_a_source_that_lost_a_page_stops_the_vm_before_anybody_sees_zeroes(lab, host):
    host.tell("forget 7")
    peer = attach(lab, host)
    assert peer.word(6) == image(6)
    peer.tell("touch 7 4")
    assert peer.wait() == -signal.SIGKILL
    assert not words(peer, 7)
    host.process.wait_line("ended 0 badly\n")


def test_more_slow_pages_than_can_be_asked_for_at_once_all_come(lab):
    pages = 400
    host = Host(lab, pages)
    host.tell("away " + " ".join(str(page) for page in range(0, 50)))
    for first in range(50, pages, 50):
        host.tell("away " + " ".join(str(page) for page in range(first, first + 50)))
    peer = attach(lab, host, pages)
    for page in range(pages):
        assert peer.tell(f"touch {page}") == 0
    host.tell("let " + " ".join(str(page) for page in range(0, 50)))
    for first in range(50, pages, 50):
        host.tell("let " + " ".join(str(page) for page in range(first, first + 50)))
    for page in range(pages):
        wait_until(lambda page=page: words(peer, page) == [image(page)], f"page {page}")
    peer.quit()
