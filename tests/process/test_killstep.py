# SPDX-License-Identifier: Apache-2.0
"""
The pager is killed at chosen places between two instructions, and another one goes on (tests/lib/killstep.c).

By hand, every instruction of every scenario:

    THAW_KILL_EVERYWHERE=1 meson test -C build 'a pager can be killed between any two instructions' -t 100
"""

import json
import os
import random
import signal

import pytest

import thawtest

pytestmark = pytest.mark.usefixtures("only_thaw")

EVERYWHERE = bool(os.environ.get("THAW_KILL_EVERYWHERE"))
SEED = int(os.environ.get("THAW_TEST_SEED", "0")) or random.randrange(1, 1 << 24)
PLAIN = ["fault", "zero-fault", "write-fault", "two-faults", "remove", "remove-absent", "removed-fault", "removed-write",
         "remove-and-fault", "remove-beside-fault"]
SLICES = ["slice", "slice-and-remove", "slice-and-fault"]
TRACKED = ["fault", "first-write", "first-write-and-remove", "write-fault", "removed-write", "remove-and-fault"]


@pytest.fixture(autouse=True)
def no_sanitizer():
    """Every step of the pager is taken singly."""
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer makes a step of the pager thousands of instructions; it runs in the plain build")


def kill_everywhere(lab, scenario, *options, timeout, size="16M", serve=()):
    """Run one scenario. Return: its result."""
    print("seed", SEED)
    if EVERYWHERE:
        signal.alarm(timeout)  # longer than a test may usually take
    memory = lab.memory("1G" if EVERYWHERE else size, SEED)
    pager = lab.serve(memory, "--supervise", "--fault-around", "16K", "--let-go", "off", *serve,
                      *(["--track", "wp"] if "--track" in options else []))
    killer = lab.start("killstep", [thawtest.program("KILLSTEP"), "--socket", pager.socket, "--state", lab.state_dir,
                                    "--size", str(memory.size), "--seed", str(SEED), *options,
                                    *(["--all"] if EVERYWHERE else []), scenario])
    killer.expect_exit(0, timeout)
    pager.expect_exit(0)
    result = json.loads(killer.out.splitlines()[-1])
    print(json.dumps(result))
    assert result["kills"] >= 8, result
    assert pager.stats()["counters"]["takeovers"] >= result["kills"]
    return result


@pytest.mark.parametrize("scenario", PLAIN)
def test_a_pager_killed_anywhere_leaves_nothing_stale_lost_or_stranded(lab, scenario):
    kill_everywhere(lab, scenario, timeout=3600 if EVERYWHERE else 60)


@pytest.mark.parametrize("scenario", TRACKED)
def test_a_pager_killed_anywhere_loses_no_tracked_write(lab, scenario):
    kill_everywhere(lab, scenario, "--track", timeout=3600 if EVERYWHERE else 60)


@pytest.mark.parametrize("track", [[], ["--track"]], ids=["plain", "tracked"])
@pytest.mark.parametrize("scenario", SLICES)
def test_a_pager_killed_anywhere_in_a_slice_that_nobody_waits_for_leaves_nothing_wrong(lab, scenario, track):
    kill_everywhere(lab, scenario, *track, timeout=3600 if EVERYWHERE else 60, size="64M",
                    serve=["--fill", "--prefetch-rate", "1M"])
