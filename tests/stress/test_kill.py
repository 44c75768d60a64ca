# SPDX-License-Identifier: Apache-2.0
"""
Pagers are killed with kill -9 at random moments, under the stress program: no page is lost, stale or wrong, no thread stays
asleep, and the guest feels a pause and nothing else.

Two ways to go on. Supervised: `thaw serve --supervise` starts the next child by itself. Adopted: the test is the
supervisor, and starts `thaw serve --adopt VMM_PID` after each kill. A kill comes up to KILL_AFTER seconds after the pager
has said that it serves; one in four does not wait for that and may hit a pager that is still taking over.

THAW_KILLS says how often each test kills. At the end each prints the pause: for each kill, the time until the first stall
(an operation of more than 1 ms) was over that was not before, and until the last one that had begun by then.
"""

import os
import pathlib
import random
import re
import signal
import time

import pytest

import servelib
import stresslib
import thawtest
from stresslib import SANITIZED, SEED, TRACK, now_ns

KILLS = int(os.environ.get("THAW_KILLS", "0")) or (10 if SANITIZED else 50)
KILL_AFTER = 0.04
ROUND_KILLS = 100  # for one VM
CALM_SECONDS = 1  # from the last kill to the last look at all pages


def child_of(pid):
    """The child of a process, or None."""
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(text[0]) if text else None


def kill(pid):
    """kill -9. Return: when."""
    when = now_ns()
    os.kill(pid, signal.SIGKILL)
    return when


def kill_at_random(pager, pid, dice):
    """Kill the process that serves or is about to. Return: when."""
    if dice.random() < 0.75:
        thawtest.wait_until(lambda: re.search(rf"pager_pid={pid}\b", pager.err), f"pager {pid} to serve")
    time.sleep(dice.uniform(0, KILL_AFTER))
    return kill(pid)


class Supervised:
    """A pager whose supervisor starts the next one."""

    def __init__(self, lab, memory, *args):
        self.pager = lab.serve(memory, "--supervise", *args)

    def kill_one(self, _vmm, dice):
        """Kill the child that serves once there is one. Return: when."""
        pid = thawtest.wait_until(lambda: child_of(self.pager.pid), "a child that serves")
        when = kill_at_random(self.pager, pid, dice)  # until the supervisor reaps it, nobody else has its number
        thawtest.wait_until(lambda: child_of(self.pager.pid) != pid, "the end of the child")
        return when

    def finish(self):
        """The VMM has ended well."""
        self.pager.expect_exit(0)


class Adopted:
    """A pager that the test replaces."""

    def __init__(self, lab, memory, *args):
        self.lab = lab
        self.pager = lab.serve(memory, *args)

    def kill_one(self, vmm, dice):
        """Kill the pager and start the next one. Return: when."""
        assert self.pager.running(), self.pager.err
        when = kill_at_random(self.pager, self.pager.pid, dice)
        assert self.pager.wait() == -signal.SIGKILL, self.pager.err
        self.pager = self.lab.start_pager("--adopt", str(vmm.pid), "--state", self.lab.state_dir)
        return when

    def finish(self):
        """The VMM has ended well."""
        self.pager.expect_exit(0)


def pauses(result, kills):
    """
    What the guest felt of each kill: microseconds from the kill to the first end of a stall, and to the end of the last one
    that had begun by then. A kill that no stall ended after before the next one hit a pager that was not ready yet, and is
    a part of the next one's pause. Return: two sorted lists.
    """
    stalls = [(end - us * 1000, end) for us, end, _thread in result["stall_list"]]
    first, last = [], []
    for when, following in zip(kills, [*kills[1:], float("inf")]):
        again = min((end for _begin, end in stalls if when < end <= following), default=None)
        if again:
            first.append((again - when) // 1000)
            last.append((max(end for begin, end in stalls if begin <= again <= end) - when) // 1000)
    return sorted(first), sorted(last)


def describe(numbers):
    """Median and maximum."""
    return f"p50 {numbers[len(numbers) // 2]} us, max {numbers[-1]} us" if numbers else "none"


def run_round(lab, way, page_size, mode, seed, n_kills, ahead=(), image=False):
    """One VM whose pager is killed n_kills times. Return: the pauses."""
    dice = random.Random(f"{seed} {way.__name__} {page_size} {mode}")
    memory = stresslib.memory_of(lab, page_size)
    if image:
        memory = servelib.pack(lab, memory, "--replace")
        lab.serve(memory)  # somebody to share with
    served = way(lab, memory, "--track", TRACK[mode], "--page-size", page_size, *ahead)
    seconds = 60 + n_kills  # it is told to end when the last kill is over
    vmm = stresslib.start(lab, served.pager, memory, "--page-size", page_size, "--until-eof", seconds=seconds, seed=seed)
    vmm.wait_line("running")
    served.pager.wait_line("msg=\"serving\"")  # before, there is nothing to take over
    kills = []
    try:
        kills.extend(served.kill_one(vmm, dice) for _ in range(n_kills))
    except (AssertionError, OSError):
        if not vmm.running():  # it found something, and the pager ended with it
            pytest.fail(f"the VMM ended with {vmm.wait()} after {len(kills)} kills:\n{vmm.err}")
        raise
    calm = now_ns() + CALM_SECONDS * 1e9
    thawtest.wait_until(lambda: now_ns() > calm or not vmm.running(), "a calm end", CALM_SECONDS * 2)
    vmm.child.stdin.close()
    result = stresslib.finish(vmm, 0)
    served.finish()
    print(stresslib.summary(result))
    return pauses(result, kills)


def run(lab, way, page_size, mode, ahead=(), image=False):
    """KILLS kills, in rounds."""
    first, last, done = [], [], 0
    while done < KILLS:
        n_kills = min(ROUND_KILLS, KILLS - done)
        one, other = run_round(lab, way, page_size, mode, SEED + done, n_kills, ahead, image)
        first, last, done = sorted(first + one), sorted(last + other), done + n_kills
    print(f"{way.__name__.lower()} {page_size} {mode}: {done} kills, {done - len(first)} of them before the pager was "
          f"ready; until the first operation went on: "
          f"{describe(first)}; until the last: {describe(last)}")


@pytest.mark.parametrize("mode", TRACK)
@pytest.mark.parametrize("way", [Supervised, Adopted])
def test_a_pager_of_4k_pages_is_killed_and_nothing_is_lost(lab, way, mode):
    run(lab, way, "4K", mode)


@pytest.mark.parametrize("mode", ["tracked"] if SANITIZED else TRACK)
@pytest.mark.parametrize("way", [Supervised, Adopted])
def test_a_pager_of_2m_pages_is_killed_and_nothing_is_lost(lab, huge, way, mode):
    run(lab, way, "2M", mode)


@pytest.mark.parametrize("mode", TRACK)
def test_a_pager_that_installs_ahead_is_killed_and_nothing_is_lost(lab, mode):
    run(lab, Supervised, "4K", mode, ["--fill", "--prefetch-rate", "8M"])


@pytest.mark.parametrize("way", [Supervised, Adopted])
def test_a_pager_of_an_image_is_killed_and_nothing_is_lost(lab, way):
    run(lab, way, "4K", "plain", ["--image-cache", "1M", "--fill", "--prefetch-rate", "8M"] if way is Supervised else [], True)
