# SPDX-License-Identifier: Apache-2.0
"""
System calls of the pager fail now and then, on purpose: it tries again or stops the VM, and no byte is ever wrong.

strace makes them fail, which means that the kernel has not done them. It can tell system calls apart but not the
requests of ioctl(2), so whatever ioctl comes is hit: UFFDIO_COPY, ZEROPAGE, WRITEPROTECT, WAKE.
"""

import signal

import pytest

import stresslib
import thawtest
from stresslib import TRACK

SECONDS = 1
BEGIN = 60  # the first calls set the pager up


@pytest.fixture(autouse=True)
def strace_works():
    """strace is here and may trace."""
    thawtest.needs_strace()


def serve_with_failures(lab, memory, call, error, when, *args):
    """A pager for which the call fails; strace is its child, not its parent, so that it is ended like any other."""
    socket, log = lab.socket(), lab.dir / "strace"
    stats_file = lab.dir / f"stats{len(lab.processes)}"
    pager = thawtest.Pager(lab, "traced", [
        "strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", log, "-e", f"trace={call}",
        "-e", f"inject={call}:error={error}:when={when}",
        thawtest.program("THAW"), "serve", "--socket", socket, "--memory", memory.path, "--state", lab.state_dir,
        "--stats", stats_file, *args], socket, stats_file)
    lab.processes.append(pager)
    pager.wait_listening()
    return pager, lambda: sum("(INJECTED)" in line for line in log.read_text().splitlines())


@pytest.mark.parametrize("mode", TRACK)
@pytest.mark.parametrize("call,error,when", [
    ("ioctl", "EAGAIN", f"{BEGIN}+3"),
    ("ioctl", "ENOMEM", f"{BEGIN}+5"),
    ("ioctl", "EINTR", f"{BEGIN}+2"),
    ("read,preadv2", "EAGAIN", "10+3"),
    ("read,preadv2", "EINTR", "10+2"),
    ("epoll_pwait2", "EINTR", "5+2"),
    ("epoll_pwait2", "ENOSYS", "1+"),
])
def test_what_may_work_the_next_time_is_tried_again(lab, call, error, when, mode):
    memory = stresslib.memory_of(lab, "4K")
    pager, injected = serve_with_failures(lab, memory, call, error, when, "--track", TRACK[mode])
    vmm = stresslib.start(lab, pager, memory, seconds=SECONDS)
    result = stresslib.finish(vmm, SECONDS)
    pager.expect_exit(0)
    stats = pager.stats()
    thawtest.check_stats(stats)
    print(stresslib.summary(result), "failures:", injected())
    assert injected() > 20
    if error == "ENOMEM":
        assert stats["counters"]["nomem"] > 0


@pytest.mark.parametrize("mode", TRACK)
@pytest.mark.parametrize("call,error,when,end", [
    ("ioctl", "ESRCH", "500", "vmm-gone"),
    ("ioctl", "EINVAL", "500+", "refused"),
    ("read,preadv2", "EIO", "100", "refused"),
])
def test_what_will_not_work_again_stops_the_vm_before_a_byte_is_wrong(lab, call, error, when, end, mode):
    memory = stresslib.memory_of(lab, "4K")
    pager, injected = serve_with_failures(lab, memory, call, error, when, "--track", TRACK[mode])
    vmm = stresslib.start(lab, pager, memory, seconds=60)
    assert vmm.wait(60) == -signal.SIGKILL, vmm.err
    assert "wrong byte" not in vmm.err and "stuck" not in vmm.err
    pager.expect_exit(0 if end == "vmm-gone" else 1)
    assert pager.stats()["end"] == end
    assert injected() > 0
