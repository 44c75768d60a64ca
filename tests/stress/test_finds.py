# SPDX-License-Identifier: Apache-2.0
"""The stress program can fail: it finds each classic mistake of a pager in a moment, and the plain right one passes."""

import json
import pathlib
import subprocess

import pytest

import stresslib
import thawtest
from stresslib import SEED, STUCK, WRONG

FOUND_SECONDS = 10  # a mistake that is not found in this time is not found


def run_against(lab, variant, *args, seconds=FOUND_SECONDS, timeout=stresslib.STUCK_SECONDS):
    """The stress program against one of the naive pagers. Return: it, ended."""
    memory = stresslib.memory_of(lab, "4K")
    socket = lab.socket()
    pager = thawtest.Pager(lab, variant, [pathlib.Path(thawtest.program("NAIVE_DIR")) / variant, socket, memory.path],
                           socket, None)
    lab.processes.append(pager)
    pager.wait_listening()
    vmm = stresslib.start(lab, pager, memory, *args, seconds=seconds, timeout=timeout)
    vmm.wait(seconds + 2 * timeout)
    return vmm


def test_the_plain_right_pager_passes(lab):
    print(stresslib.summary(stresslib.finish(run_against(lab, "naive", seconds=1), 1)))


@pytest.mark.parametrize("variant", ["naive_stale", "naive_zero", "naive_write", "naive_around"])
def test_a_wrong_byte_is_found_and_described(lab, variant):
    vmm = run_against(lab, variant, "--regions", "60")
    assert vmm.wait() == WRONG, vmm.err
    line = next(line for line in vmm.err.splitlines() if line.startswith("wrong byte"))
    for word in ("page", "of the image", "offset", "address", "expected", "got"):
        assert word in line
    result = json.loads(vmm.out.splitlines()[-1])
    assert result["errors"] > 0 and result["first_error"]["expected"] != result["first_error"]["got"]


def test_a_fault_that_is_never_answered_is_found_and_described(lab):
    vmm = run_against(lab, "naive_lost", seconds=60, timeout=2)
    assert vmm.wait() == STUCK, vmm.err
    assert "stuck: a thread made no progress for 2 s" in vmm.err
    for role in ("writer", "reader", "remover"):
        assert f"({role})" in vmm.err
    result = json.loads(vmm.out.splitlines()[-1])
    assert result["stuck"] and result["errors"] == 0


def test_the_time_that_a_pager_is_stopped_is_a_stall(lab):
    memory = stresslib.memory_of(lab, "4K")
    pager = lab.serve(memory)
    vmm = stresslib.start(lab, pager, memory, seconds=2)
    vmm.wait_line("running")
    pager.signal(19)  # SIGSTOP
    seen = stresslib.now_ns()
    thawtest.wait_until(lambda: stresslib.now_ns() - seen > 400e6, "four tenths of a second")
    pager.signal(18)  # SIGCONT
    result = stresslib.finish(vmm, 2)
    assert result["stalls"]["max_us"] > 200000
    assert max(thread["longest_us"] for thread in result["threads"]) == result["stalls"]["max_us"]
    longest = max(result["stall_list"])
    assert longest[0] == result["stalls"]["max_us"] and longest[1] > seen
    assert SEED == result["seed"]


def test_what_it_cannot_do_it_says_in_one_line(lab):
    def run(*args):
        return subprocess.run([thawtest.program("STRESS"), *args], check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=20)
    assert run("--size", "32M").returncode == 2
    assert run("--size", "32M", "--socket", "x", "--writers", "many").returncode == 2
    nobody = run("--size", "32M", "--socket", lab.socket())
    assert nobody.returncode == 4
    assert [line for line in nobody.stderr.splitlines() if "cannot connect" in line]
