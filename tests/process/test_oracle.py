# SPDX-License-Identifier: Apache-2.0
"""The tests are tested: each classic mistake of a pager is noticed by the fake VMM, and the plain right one passes."""

import os
import pathlib
import subprocess

import pytest

import thawtest

LAYOUT = ["--regions", "60", "--adjacent", "--shuffle"]
WRONG, STUCK = 1, 3


def run_against(lab, variant, *steps, timeout=3):
    """The fake VMM against one of the naive pagers. Return: the VMM's process, ended, and the pager."""
    naive = pathlib.Path(thawtest.program("NAIVE_DIR")) / variant
    memory = lab.memory("8M", seed=7)
    socket = lab.socket()
    pager = thawtest.Pager(lab, variant, [naive, socket, memory.path], socket, None)
    lab.processes.append(pager)
    pager.wait_listening()
    vmm = lab.start_vmm(pager, memory, *LAYOUT, *steps, timeout=timeout)
    vmm.wait(timeout + 10)
    return vmm, pager


@pytest.mark.parametrize("steps", [["shuffle"], ["write", "verify"], ["discard", "verify"], ["balloon", "verify"],
                                   ["race", "verify"], ["remap", "verify"]], ids=lambda steps: steps[0])
def test_the_plain_right_pager_passes(lab, steps):
    vmm, pager = run_against(lab, "naive", *steps, timeout=20)
    assert vmm.wait() == 0, vmm.err
    pager.expect_exit(0)


@pytest.mark.parametrize("variant,steps", [
    ("naive_stale", ["discard"]),
    ("naive_stale", ["balloon"]),
    ("naive_stale", ["race"]),
    ("naive_stale", ["spans"]),
    ("naive_zero", ["seq"]),
    ("naive_zero", ["random"]),
    ("naive_zero", ["syscalls"]),
    ("naive_write", ["stamp"]),
    ("naive_write", ["write"]),
    ("naive_around", ["shuffle"]),
    ("naive_around", ["random", "verify"]),
], ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_wrong_byte_is_found_and_described(lab, variant, steps):
    vmm, _pager = run_against(lab, variant, *steps)
    assert vmm.wait() == WRONG, vmm.err
    line = vmm.err.splitlines()[0]
    for word in ("wrong byte", "page", "offset", "address", "expected", "got"):
        assert word in line
    assert '"first_error"' in vmm.out


def test_a_fault_that_is_never_answered_is_found_and_described(lab):
    vmm, _pager = run_against(lab, "naive_lost", "balloon:threads=8,n=100000")
    assert vmm.wait() == STUCK, vmm.err
    assert "stuck in step balloon" in vmm.err
    assert "reading, page" in vmm.err or "stamping, page" in vmm.err or "filling, page" in vmm.err


def test_a_pager_that_never_answers_at_all_is_found(lab):
    vmm, pager = None, None
    memory = lab.memory("8M", seed=7)
    socket = lab.socket()
    pager = thawtest.Pager(lab, "naive", [pathlib.Path(thawtest.program("NAIVE_DIR")) / "naive", socket,
                                          memory.path], socket, None)
    lab.processes.append(pager)
    pager.wait_listening()
    pager.child.send_signal(19)  # SIGSTOP: it holds the userfaultfd and does nothing
    vmm = lab.start_vmm(pager, memory, "seq", timeout=1)
    assert vmm.wait() == STUCK
    assert "thread 0: reading, page 0" in vmm.err


def test_the_memory_file_is_what_the_oracle_says_and_has_holes(lab):
    memory = lab.own_memory("8M", seed=11)
    again = lab.own_memory("8M", seed=11)
    other = lab.own_memory("8M", seed=12)
    content = memory.path.read_bytes()
    assert content == again.path.read_bytes()
    assert content != other.path.read_bytes()
    assert os.stat(memory.path).st_blocks * 512 < len(content)
    zero_pages = sum(content[at:at + 4096].count(0) == 4096 for at in range(0, len(content), 4096))
    assert 0 < zero_pages < len(content) // 4096


def test_a_mistyped_step_is_refused(lab):
    run = subprocess.run([thawtest.program("FAKEVMM"), "--socket", "x", "--size", "1M", "seqq"], check=False,
                         capture_output=True, text=True, timeout=10)
    assert run.returncode == 2
    assert lab.dir.is_dir() and "no such step" in run.stderr
