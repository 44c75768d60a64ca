# SPDX-License-Identifier: Apache-2.0
"""thaw serve --record: the working set of a guest, as its faults say."""

import os
import shutil
import signal

import pytest

import thawtest
from recordlib import PAGE, PAGES, facts, finish, image, make_memory, record, shown, start, thaw
from thawtest import wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")


@pytest.fixture
def memory(lab):
    """A memory file as long as the peer's memory."""
    return make_memory(lab.dir / "memory")


def test_pages_are_recorded_in_the_order_in_which_they_were_touched(lab, memory):
    order = [40, 3, 4, 5, 63, 0, 17, 16]
    path = record(lab, memory, order)
    stat = facts(path)
    assert stat["image_bytes"] == PAGES * PAGE
    assert stat["entries"] == len(order)
    assert stat["complete"] is False  # the VM ended, and nobody had said that it was ready


def test_a_page_that_is_touched_again_is_recorded_once(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path)
    for page in (7, 9, 7, 7, 9):
        assert peer.word(page) == image(page)
    finish(pager, peer)
    assert shown(path) == [(7, "read"), (9, "read")]


def test_writes_are_told_from_reads(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path)
    assert peer.tell("write 5") == 0
    peer.wait_line("wrote 5")
    peer.word(6)
    assert peer.tell("write 6") == 0  # what comes after the first touch does not count
    peer.wait_line("wrote 6")
    finish(pager, peer)
    assert shown(path) == [(5, "write"), (6, "read")]


def test_what_was_only_installed_along_with_another_page_is_not_recorded(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path, "--fault-around", "64K")
    peer.word(20)
    peer.word(21)  # there already
    stats = finish(pager, peer)
    assert stats["counters"]["pages_around"] >= 15
    assert shown(path) == [(20, "read")]


def test_what_is_missed_beside_a_working_set_is_recorded_with_what_came_along(lab, memory):
    known = record(lab, memory, [8, 9, 40, 41])
    path = lab.dir / "missed"
    pager, peer = start(lab, memory, "--prefetch", known, "--record-missed", path, "--fault-around", "16K")
    pager.wait_line("installed ahead")
    for page in (8, 41, 10, 50, 51):
        assert peer.word(page) == image(page)
    stats = finish(pager, peer)
    assert stats["counters"]["pages_ahead"] == 4 and stats["counters"]["faults"] == 2
    missed = [page for page, _ in shown(path)]
    assert missed[0] == 10 and sorted(missed) == [10, 11, 48, 49, 50, 51]


def test_a_record_turns_fault_around_off_unless_it_is_asked_for(lab, memory):
    pager, peer = start(lab, memory, "--record", lab.dir / "set")
    peer.word(20)
    assert finish(pager, peer)["counters"]["pages_around"] == 0


def test_a_page_that_was_discarded_before_its_first_touch_is_not_recorded(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path)
    assert peer.tell("discard 8 2") == 0
    peer.wait_line("discarded 8")
    assert peer.word(8) == 0
    assert peer.word(10) == image(10)
    finish(pager, peer)
    assert shown(path) == [(10, "read")]


def test_a_page_whose_fault_is_overtaken_by_its_discard_is_not_recorded(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path)
    for page in range(0, PAGES, 8):
        pager.signal(signal.SIGSTOP)
        assert peer.tell(f"touch {page}") == 0
        assert peer.tell(f"discard {page} 1") == 0
        pager.signal(signal.SIGCONT)
        peer.wait_line(f"discarded {page}\n")
        wait_until(lambda page=page: f"page {page} " in peer.out, f"page {page}")
    stats = finish(pager, peer)
    recorded = {page for page, _ in shown(path)}
    # Read before the discard was made, or after it: what was recorded had the snapshot's bytes, the others zeroes.
    for page in range(0, PAGES, 8):
        word = int(next(line for line in peer.out.splitlines() if line.startswith(f"page {page} ")).split()[2], 16)
        assert (page in recorded) == (word == image(page)), page
    assert stats["counters"]["removes"] == PAGES // 8


def test_the_record_ends_when_the_guest_is_said_to_be_ready(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path)
    peer.word(1)
    peer.word(2)
    assert not path.exists()
    thaw("ready", peer.pid, "--state", lab.state_dir)
    pager.wait_line("working set recorded")
    assert shown(path) == [(1, "read"), (2, "read")]
    assert facts(path)["complete"] is True
    peer.word(3)
    thaw("ready", pager.pid, "--state", lab.state_dir)  # once is enough
    finish(pager, peer)
    assert shown(path) == [(1, "read"), (2, "read")]


@pytest.mark.parametrize("supervise", [[], ["--supervise"]], ids=["alone", "supervised"])
def test_the_only_pager_that_runs_need_not_be_named(lab, memory, supervise):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path, *supervise)
    peer.word(1)
    thaw("ready", "--state", lab.state_dir)
    pager.wait_line("working set recorded")
    assert shown(path) == [(1, "read")]
    finish(pager, peer)


def test_a_supervisor_hands_it_on(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path, "--supervise")
    peer.word(1)
    pager.signal(signal.SIGUSR2)
    pager.wait_line("working set recorded")
    finish(pager, peer)
    assert shown(path) == [(1, "read")]


def test_the_record_ends_after_the_time_that_was_given(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path, "--record-seconds", "1")
    peer.word(1)
    pager.wait_line("working set recorded")
    peer.word(2)
    finish(pager, peer)
    assert shown(path) == [(1, "read")]
    assert facts(path)["complete"] is True
    assert 1 <= facts(path)["seconds"] < thawtest.DEADLINE


def test_the_time_begins_with_the_first_fault(lab, memory):
    pager, peer = start(lab, memory, "--record", lab.dir / "set", "--record-seconds", "1")
    with pytest.raises(TimeoutError):
        pager.wait_line("working set recorded", deadline=1.5)
    peer.word(1)
    pager.wait_line("working set recorded")
    finish(pager, peer)


def test_a_page_that_many_threads_wait_for_is_recorded_once(lab):
    memory = lab.memory("8M", seed=3, dense=True)
    path = lab.dir / "set"
    pager = lab.serve(memory, "--record", path)
    result = lab.run_vmm(pager, memory, "herd:threads=16,n=60")
    pager.expect_exit(0)
    pages = [page for page, _ in shown(path)]
    assert len(pages) == len(set(pages)) == result["touched"]
    assert pager.stats()["counters"]["faults"] > len(pages)


@pytest.mark.parametrize("track", ["none", "wp"])
def test_a_guest_with_many_threads_is_recorded_whole(lab, track):
    memory = lab.memory("8M", seed=3, dense=True)
    path = lab.dir / "set"
    pager = lab.serve(memory, "--record", path, "--track", track)
    result = lab.run_vmm(pager, memory, "shuffle:threads=8,first=100,end=1100")
    pager.expect_exit(0)
    assert result["errors"] == 0
    assert sorted(page for page, _ in shown(path)) == list(range(100, 1100))


def test_a_cold_file_is_recorded_as_a_warm_one_is(lab):
    memory = lab.own_memory("8M", seed=3, dense=True, where="disk")
    thawtest.drop_cache(memory.path)
    path = lab.dir / "set"
    pager = lab.serve(memory, "--record", path)
    lab.run_vmm(pager, memory, "shuffle:threads=4,end=600")
    pager.expect_exit(0)
    assert sorted(page for page, _ in shown(path)) == list(range(600))


@thawtest.hugepages(4)
def test_huge_pages_are_recorded_in_their_own_size(lab):
    memory = lab.memory("8M", seed=3, dense=True)
    path = lab.dir / "set"
    pager = lab.serve(memory, "--record", path)
    lab.run_vmm(pager, memory, "--page-size", "2M", "seq:first=1,end=3")
    pager.expect_exit(0)
    assert facts(path)["unit_bytes"] == 2 << 20
    assert facts(path)["entries"] == 2


def test_an_older_record_is_replaced_whole(lab, memory):
    path = lab.dir / "set"
    path.write_bytes(b"old")
    pager, peer = start(lab, memory, "--record", path)
    peer.word(1)
    assert path.read_bytes() == b"old"
    finish(pager, peer)
    assert shown(path) == [(1, "read")]
    assert [p.name for p in lab.dir.iterdir() if p.name.startswith("set")] == ["set"]


def test_a_record_that_cannot_be_written_is_an_error_and_not_the_guests(lab, memory):
    folder = lab.dir / "folder"
    folder.mkdir()
    pager, peer = start(lab, memory, "--record", folder / "set")
    peer.word(1)
    shutil.rmtree(folder)
    thaw("ready", "--state", lab.state_dir)
    pager.wait_line("working set not recorded")
    assert peer.word(2) == image(2)
    peer.quit()
    pager.expect_error("the VM was served, its working set is not recorded", "folder/set")


def test_a_folder_that_is_not_there_is_refused_before_a_vm_comes(lab, memory):
    pager = lab.serve(memory, "--record", lab.dir / "nowhere" / "set", wait=False)
    pager.expect_error("nowhere/set")


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_not_replaced_by_a_record(lab, memory, kind):
    path = lab.dir / "there"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    lab.serve(memory, "--record", path, wait=False).expect_error(path, "not a regular file")
    assert path.is_dir() or path.is_fifo()


def test_a_record_ends_with_the_pager_that_made_it(lab, memory):
    path = lab.dir / "set"
    pager, peer = start(lab, memory, "--record", path, "--supervise")
    peer.word(1)
    os.kill(pager.ask_stats()["pager_pid"], signal.SIGKILL)
    pager.wait_line("taken over")
    pager.wait_line("working set not recorded")
    assert peer.word(2) == image(2)
    finish(pager, peer)
    assert not path.exists()


def test_nobody_but_a_pager_is_told(lab, memory):
    pager, peer = start(lab, memory)
    assert "No such file" in thaw("ready", 1, "--state", lab.state_dir, code=1)
    thaw("ready", "--state", lab.state_dir)  # a pager that records nothing takes no notice
    assert peer.word(1) == image(1)
    pager.signal(signal.SIGKILL)
    pager.expect_exit(-signal.SIGKILL)
    assert "no pager serves" in thaw("ready", peer.pid, "--state", lab.state_dir, code=1)


@pytest.mark.parametrize("args, words", [
    (["ready", "--nonsense"], "unknown option --nonsense"),
    (["ready", "1", "2"], "unexpected argument 2"),
    (["ready", "--state"], "--state needs a value"),
    (["serve", "s", "m", "--record-seconds", "3"], "--record-seconds is for --record"),
    (["serve", "s", "m", "--record", "f", "--record-seconds", "0"], "--record-seconds is 0"),
    (["serve", "s", "m", "--record", "f", "--prefetch", "g"], "--record sees faults only"),
    (["serve", "s", "m", "--record", "f", "--fill"], "--record sees faults only"),
    (["serve", "--adopt", "1", "--record", "f"], "not for --adopt"),
])
def test_usage_errors_say_what_is_wrong(args, words):
    assert words in thaw(*args, code=2)
