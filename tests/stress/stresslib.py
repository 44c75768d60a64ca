# SPDX-License-Identifier: Apache-2.0
"""
stresslib.py - starting the stress program (tests/stress/stress.c) and reading its result

SEED in the environment repeats the first round of a run; each further round counts on from there.
"""

import json
import os
import subprocess
import time

import thawtest

WRONG, STUCK = 1, 3
SEED = int(os.environ.get("SEED", "0")) or int.from_bytes(os.urandom(3), "big") + 1
SANITIZED = bool(os.environ.get("THAW_SANITIZER"))
SIZE = {"4K": "32M", "2M": "40M"}
TRACK = {"plain": "none", "tracked": "wp"}
STUCK_SECONDS = 30  # nothing takes so long but a lost fault: 10 s were seen on two processors under a load of 50


def memory_of(lab, page_size, where="tmpfs"):
    """A memory file for guests with such pages; a file on a disk is not in the page cache."""
    memory = lab.memory(SIZE[page_size], SEED, where=where)
    if where == "disk":
        thawtest.drop_cache(memory.path)
    return memory


def working_set(lab, memory, *args):
    """A working set of all of a memory file's pages. Return: the file's path."""
    path = lab.dir / "working-set"
    pager = lab.serve(memory, "--record", path)
    lab.run_vmm(pager, memory, *args, "seq")
    pager.expect_exit(0)
    return path


def start(lab, pager, memory, *args, seconds, seed=SEED, timeout=STUCK_SECONDS):
    """Start the stress program as the VMM of a pager."""
    print("seed", seed)
    return lab.start("stress", [thawtest.program("STRESS"), "--socket", pager.socket, "--size", memory.size,
                                "--file-seed", memory.seed, "--seed", seed, "--seconds", seconds,
                                "--timeout", timeout, *args], stdin=subprocess.PIPE)


def finish(vmm, seconds):
    """Wait for a run that is to find everything right. Return: its result."""
    vmm.expect_exit(0, seconds + 2 * STUCK_SECONDS)
    result = json.loads(vmm.out.splitlines()[-1])
    assert result["errors"] == 0 and not result["stuck"]
    for what in ("reads", "raced", "fills", "words", "adds", "syscalls", "removals"):
        assert result[what] > 0, what
    assert result["unjudged"] * 20 < result["reads"]
    return result


def summary(result):
    """One line for people."""
    stalls = result["stalls"]
    return (f"{result['reads']} reads ({result['raced']} in a race), "
            f"{result['fills'] + result['words'] + result['adds']} writes, {result['removals']} removals of "
            f"{result['pages_removed']} pages; {stalls['n']} stalls above 1 ms, p50 {stalls['p50_us']} us, "
            f"p99 {stalls['p99_us']} us, longest {stalls['max_us']} us")


def now_ns():
    """The clock of the stall list."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
