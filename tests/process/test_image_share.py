# SPDX-License-Identifier: Apache-2.0
"""What pagers of one image share is written by one process, which can do little else, and which they can do without."""

import os
import pathlib
import re
import signal

import pytest

import matrix
import thawtest
from recordlib import ask
from servelib import change, expect_stopped, pack
from thawtest import let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")


@pytest.fixture
def image(lab):
    """An image with zeroes and holes in it."""
    return pack(lab, lab.memory("8M", seed=matrix.SEED))


def fillers(image):
    """Process ids of the fillers of an image."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:3] == [b"image", b"fill"] and words[4:5] == [image.id().encode()]:
            found.append(int(folder.name))
    return found


def read_all(lab, pager, image):
    """A VMM that has read everything, and waits. Return: both."""
    vmm = lab.start_vmm(pager, image, "shuffle:threads=2", "pause", "verify")
    vmm.wait_line("paused")
    return pager, vmm


def end(lab, *pairs):
    """All of them go on and end well. Return: statistics of the last pager."""
    for pager, vmm in pairs:
        let_go(vmm)
        lab.finish_vmm(vmm)
        pager.expect_exit(0)
        assert "not shared" not in pager.err
    return pager.stats()


def test_what_one_pager_has_asked_for_the_next_one_finds(lab, image):
    pagers = [lab.serve(image), lab.serve(image)]
    assert len(fillers(image)) == 1
    first = read_all(lab, pagers[0], image)
    assert ask(first[0])["counters"]["fetches"] > 0
    second = read_all(lab, pagers[1], image)
    assert len(fillers(image)) == 1
    assert end(lab, first, second)["counters"]["fetches"] == 0
    wait_until(lambda: not fillers(image), "the filler to end with the last pager")


def test_pagers_that_begin_at_the_same_time_have_one_filler(lab, image):
    pagers = [lab.serve(image, wait=False) for _ in range(8)]
    for pager in pagers:
        pager.wait_listening()
    assert len(fillers(image)) == 1
    for pager in pagers:
        lab.run_vmm(pager, image, "shuffle:threads=2")
        pager.expect_exit(0)
        assert "not shared" not in pager.err
    wait_until(lambda: not fillers(image), "the filler to end with the last pager")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_filler_that_does_not_answer_is_done_without(lab, image, number):
    pager, _other = lab.serve(image), lab.serve(image)
    vmm = lab.start_vmm(pager, image, "seq:end=100", "pause", "balloon:threads=4,n=200", "verify")
    vmm.wait_line("paused")
    (filler,) = fillers(image)
    os.kill(filler, number)
    try:
        let_go(vmm)
        lab.finish_vmm(vmm)
        pager.expect_exit(0)
    finally:
        if number == signal.SIGSTOP:
            os.kill(filler, signal.SIGCONT)


def test_a_pager_without_others_asks_nobody_and_uses_what_is_there(lab, image):
    pagers = [lab.serve(image), lab.serve(image)]
    (filler,) = fillers(image)
    end(lab, read_all(lab, pagers[0], image))
    os.kill(filler, signal.SIGSTOP)  # what is asked of it now takes two seconds
    try:
        assert end(lab, read_all(lab, pagers[1], image))["counters"]["fetches"] == 0
    finally:
        os.kill(filler, signal.SIGCONT)
    pager = lab.serve(image)
    (filler,) = fillers(image)
    os.kill(filler, signal.SIGKILL)
    assert end(lab, read_all(lab, pager, image))["counters"]["fetches"] > 0


def test_what_there_is_no_room_for_each_pager_has_for_itself(lab, image):
    pagers = [lab.serve(image, "--image-share", "1M"), lab.serve(image, "--image-share", "64M")]
    first, second = (read_all(lab, pager, image) for pager in pagers)
    counters = ask(second[0])["counters"]
    assert 0 < counters["fetches"] < ask(first[0])["counters"]["fetches"]
    end(lab, first, second)


def test_nothing_is_shared_if_that_is_not_wanted(lab, image):
    thawtest.wait_until(lambda: not fillers(image), "the end of a filler of the test before")
    pair = read_all(lab, lab.serve(image, "--image-share", "off"), image)
    assert not fillers(image)
    end(lab, pair)


def test_a_killed_pager_and_its_successor_use_one_filler(lab, image):
    pager, _other = lab.serve(image, "--supervise"), lab.serve(image)
    vmm = lab.start_vmm(pager, image, "seq:end=300", "pause", "shuffle:threads=4", "balloon:threads=4,n=100", "verify")
    vmm.wait_line("paused")
    os.kill(int(re.search(r"pager_pid=(\d+)", pager.err).group(1)), signal.SIGKILL)
    pager.wait_line("taken over")
    assert len(fillers(image)) == 1
    end(lab, (pager, vmm))


def test_a_broken_frame_is_said_by_the_pager_that_needs_it(lab, image):
    change(image.packs()[0], 100000, 100)
    pager, _other = lab.serve(image), lab.serve(image)
    vmm = lab.start_vmm(pager, image, "shuffle")
    expect_stopped(pager, vmm, "is damaged", "was stopped")


# ---- what a filler can do ----


def test_a_filler_has_given_away_what_it_does_not_need_before_it_serves(lab, image):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a pager that was built for a sanitizer is not filtered, nor is a filler")
    pagers = [lab.serve(image), lab.serve(image)]
    (filler,) = fillers(image)
    tasks = list(pathlib.Path(f"/proc/{filler}/task").iterdir())
    assert len(tasks) == 1 + 2 * 9, "a thread for each connection"
    for task in tasks:
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    for folder in ("fd", "task"):
        assert os.stat(f"/proc/{filler}/{folder}").st_uid == 0, "others of the same user may not look into it"
    first, second = (read_all(lab, pager, image) for pager in pagers)
    assert fillers(image) == [filler], "it has made a call that it must not make"
    end(lab, first, second)
