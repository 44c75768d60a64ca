# SPDX-License-Identifier: Apache-2.0
"""
A pager is killed and another one goes on: under `thaw serve --supervise`, and with `thaw serve --adopt`.

What the VM's bytes are meanwhile is the fake VMM's to judge. tests/process/test_killstep.py kills at chosen
instructions, tests/stress at random moments.
"""

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import struct
import subprocess

import pytest

import thawtest
from thawtest import Peer, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

HEADER_V2, TAIL_V2_AT = 6512, 1184  # of version 2: bytes of the header; where histogram and counters are
# Where things are in every version's header; man/thaw-state.5.scd.
VERSION_AT, PAGER_PID_AT, VMM_PID_AT = 8, 80, 84
START_TICKS_AT, UFFD_INODE_AT, GENERATION_AT = 1128, 1144, 1176


def memory_of(lab):
    return lab.memory("8M", seed=11)


def state_path(lab):
    """The one state file."""
    paths = list(lab.state_dir.glob("*.state"))
    assert len(paths) == 1, paths
    return paths[0]


def field(lab, at, form="<i"):
    """A number of the state file's header."""
    with open(state_path(lab), "rb") as file:
        file.seek(at)
        return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def set_field(lab, at, value, form="<I"):
    with open(state_path(lab), "r+b") as file:
        file.seek(at)
        file.write(struct.pack(form, value))


def pager_pid(lab):
    return field(lab, PAGER_PID_AT)


def kill_serving(lab, number=signal.SIGKILL, not_pid=0):
    """Kill the process that serves, once it is another one than `not_pid`. Return: its pid."""
    # Until the first one serves, the process that has made the file stands there: under --supervise, the supervisor.
    wait_until(lambda: field(lab, GENERATION_AT) > 0 and pager_pid(lab) != not_pid, "another pager to serve")
    pid = pager_pid(lab)
    os.kill(pid, number)
    return pid


def kill_pager(pager):
    """Kill a pager that nobody supervises."""
    pager.signal(signal.SIGKILL)
    pager.wait()


def adopt(lab, what, *args):
    """A process that takes over; does not wait for it."""
    return lab.start_pager("--adopt", str(what), "--state", lab.state_dir, *args)


def paused_vmm(lab, *pager_args, vmm_args=("seq:end=300", "discard:n=20", "pause", "balloon:n=300", "verify")):
    """A pager, and a VMM that has used a part of its memory and waits. Return: both, and the memory."""
    memory = memory_of(lab)
    pager = lab.serve(memory, *pager_args)
    vmm = lab.start_vmm(pager, memory, *vmm_args)
    vmm.wait_line("paused")
    return pager, vmm, memory


def finish(lab, vmm, pager):
    """Both end well. Return: the pager's statistics."""
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert not list(lab.state_dir.iterdir())
    return pager.stats()


# ---- a supervisor ----


def test_a_supervised_pager_serves_as_any_other(lab):
    memory = memory_of(lab)
    pager = lab.serve(memory, "--supervise")
    result = lab.run_vmm(pager, memory, "random", "balloon", "verify")
    pager.expect_exit(0)
    thawtest.check_stats(pager.stats(), result)
    assert pager.stats()["pager_pid"] != pager.pid
    assert pager.stats()["counters"]["takeovers"] == 0
    assert not list(lab.state_dir.iterdir())


@pytest.mark.parametrize("track", ["none", "wp"])
def test_a_killed_pager_is_followed_and_the_vm_notices_nothing(lab, track):
    pager, vmm, _ = paused_vmm(lab, "--supervise", "--track", track)
    first = kill_serving(lab)
    pager.wait_line("taken over")  # or it may be killed before it has said so
    second = kill_serving(lab, not_pid=first)
    wait_until(lambda: pager_pid(lab) != second, "a third pager")
    stats = finish(lab, vmm, pager)
    assert stats["counters"]["takeovers"] == 2
    assert stats["track"] == track
    assert len(re.findall(r'msg="taken over".* pause_us=\d+', pager.err)) == 2
    assert pager.err.count("(KILL)") == 2


def test_a_killed_pager_is_followed_on_huge_pages(lab, huge):
    memory = lab.memory("40M", seed=11)
    pager = lab.serve(memory, "--supervise")
    vmm = lab.start_vmm(pager, memory, "--page-size", "2M", "seq:end=5", "partly:n=3", "pause", "balloon:n=30", "verify")
    vmm.wait_line("paused")
    kill_serving(lab)
    assert finish(lab, vmm, pager)["counters"]["takeovers"] == 1


def test_a_pager_killed_while_threads_wait_for_cold_pages_is_followed(lab):
    memory = lab.memory("8M", seed=11, where="disk")
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--supervise")
    vmm = lab.start_vmm(pager, memory, "random:threads=16,n=200", "verify")
    pid = 0
    for _ in range(5):
        if not vmm.running() or not list(lab.state_dir.glob("*.state")):
            break
        pid = kill_serving(lab, not_pid=pid)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_a_vmm_that_gave_its_only_userfaultfd_away_sees_no_zeroes_when_the_pager_dies(lab):
    memory = lab.memory("64K", seed=5, dense=True)
    expected = struct.unpack("<16Q", b"".join(memory.path.read_bytes()[i * 4096:i * 4096 + 8] for i in range(16)))
    pager = lab.serve(memory, "--supervise", "--fault-around", "0")
    peer = Peer(lab, pages=16)
    peer.connect(pager)
    peer.send(json.dumps([peer.region()]).encode(), "uffd")
    assert peer.word(0) == expected[0]
    assert peer.tell("drop") == 0
    pid = kill_serving(lab)
    assert peer.word(1) == expected[1]
    kill_serving(lab, not_pid=pid)
    assert [peer.word(page) for page in range(16)] == list(expected)
    peer.quit()
    pager.expect_exit(0)


def test_statistics_and_stop_are_handed_on_to_the_pager(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise")
    pager.signal(signal.SIGUSR1)
    wait_until(pager.stats_file.exists, "the statistics")
    assert pager.stats()["end"] == "running"
    pager.signal(signal.SIGTERM)
    pager.expect_exit(0)
    assert vmm.wait() == -signal.SIGKILL
    assert pager.stats()["end"] == "stopped"
    assert not list(lab.state_dir.iterdir())


def test_a_stop_is_not_forgotten_when_the_pager_is_killed_at_the_same_moment(lab):
    for _ in range(5):
        pager, vmm, _ = paused_vmm(lab, "--supervise", vmm_args=("seq:end=10", "pause"))
        pid = pager_pid(lab)
        pager.signal(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):  # it may have stopped already
            os.kill(pid, signal.SIGKILL)
        pager.expect_exit(0)
        assert vmm.wait() == -signal.SIGKILL
        assert not list(lab.state_dir.iterdir())


def test_without_grace_the_vm_is_stopped_when_its_pager_dies(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise", "--grace", "0")
    pid = kill_serving(lab)
    pager.expect_error("no pager came back within 0 s", f"process {pid} was ended by signal 9 (KILL)", vmm.pid,
                       "was stopped")
    assert vmm.wait() == -signal.SIGKILL
    assert not list(lab.state_dir.iterdir())


def test_a_pager_that_crashes_again_and_again_is_given_up(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise")
    pid = 0
    for _ in range(5):
        pid = kill_serving(lab, signal.SIGABRT, not_pid=pid)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "its end")
    pager.expect_error("the pager crashed 5 times", f"process {pid} was ended by signal 6 (ABRT)", vmm.pid,
                       "was stopped")
    assert vmm.wait() == -signal.SIGKILL


def test_if_no_pager_can_be_had_within_the_grace_the_vm_is_stopped(lab):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for memory")
    pager, vmm, _ = paused_vmm(lab, "--supervise", "--grace", "1")
    status = pathlib.Path(f"/proc/{pager.pid}/status").read_text(encoding="ascii")
    size = int(re.search(r"VmSize:\s+(\d+) kB", status).group(1)) * 1024
    resource.prlimit(pager.pid, resource.RLIMIT_AS, (size + (300 << 10), resource.RLIM_INFINITY))
    kill_serving(lab)
    lines = pager.wait() and pager.err.splitlines()
    assert pager.child.returncode == 1
    assert "no pager came back within 1 s" in lines[-1] and "ended with exit status 1" in lines[-1], lines[-1]
    assert vmm.wait() == -signal.SIGKILL


def test_a_pager_whose_supervisor_was_killed_goes_on(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise")
    serving = pager_pid(lab)
    kill_pager(pager)
    let_go(vmm)
    lab.finish_vmm(vmm)
    wait_until(lambda: not os.path.exists(f"/proc/{serving}"), "the pager's end")
    assert not list(lab.state_dir.iterdir())


def test_a_vmm_that_dies_together_with_its_pager_is_a_good_end(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise")
    pid = pager_pid(lab)
    vmm.signal(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    pager.expect_exit(0)
    assert not list(lab.state_dir.iterdir())


def test_what_went_wrong_in_the_pager_is_said_once(lab):
    memory = lab.own_memory("8M", seed=11, dense=True)
    pager = lab.serve(memory, "--supervise", "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "seq")
    vmm.wait_line("paused")
    os.truncate(memory.path, 4096 * 100)
    let_go(vmm)
    pager.expect_error("truncated", "was stopped")
    assert vmm.wait() == -signal.SIGKILL


# ---- adopting ----


@pytest.mark.parametrize("track", ["none", "wp"])
@pytest.mark.parametrize("how", ["pid", "state-file"])
def test_a_vm_whose_pager_was_killed_is_taken_over(lab, how, track):
    pager, vmm, memory = paused_vmm(lab, "--track", track)
    kill_pager(pager)
    second = adopt(lab, vmm.pid if how == "pid" else state_path(lab))
    second.wait_line("taken over")
    stats = finish(lab, vmm, second)
    assert stats["vmm_pid"] == vmm.pid and stats["pager_pid"] == second.pid
    assert stats["track"] == track
    assert stats["counters"]["takeovers"] == 1
    assert memory.path.exists()


def test_threads_that_waited_for_the_dead_pager_are_served(lab):
    pager, vmm, _ = paused_vmm(lab, vmm_args=("seq:end=300", "pause", "random:threads=32,n=100", "verify"))
    kill_pager(pager)
    let_go(vmm)
    second = adopt(lab, vmm.pid)
    lab.finish_vmm(vmm)
    second.expect_exit(0)


def test_a_vm_can_be_taken_over_again_and_again(lab):
    pager, vmm, _ = paused_vmm(lab)
    for _ in range(4):
        kill_pager(pager)
        pager = adopt(lab, vmm.pid)
        pager.wait_line("taken over")
    stats = finish(lab, vmm, pager)
    assert stats["counters"]["takeovers"] == 4


def test_a_taken_over_vm_can_be_supervised(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise")
    serving = pager_pid(lab)
    kill_pager(pager)
    os.kill(serving, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{serving}"), "the pager's end")
    second = adopt(lab, vmm.pid, "--supervise")
    second.wait_line("taken over")
    kill_serving(lab, not_pid=serving)
    stats = finish(lab, vmm, second)
    assert stats["counters"]["takeovers"] == 2


def test_the_map_finds_a_vm_by_its_pid_after_a_take_over(lab):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    second = adopt(lab, vmm.pid)
    second.wait_line("taken over")
    for pid in (vmm.pid, second.pid, pager.pid):
        drawn = subprocess.run([thawtest.program("THAW"), "map", str(pid), "--state", lab.state_dir], check=True,
                               capture_output=True, text=True, timeout=20)
        assert "STALE" not in drawn.stdout and "REMOVED" in drawn.stdout
    finish(lab, vmm, second)


def untouched(lab, action):
    """Run `action`; the state file must be the same afterwards."""
    before = state_path(lab).read_bytes()
    result = action()
    assert state_path(lab).read_bytes() == before
    return result


def test_a_vm_that_is_being_served_is_not_taken_over(lab):
    pager, vmm, _ = paused_vmm(lab)
    adopt(lab, vmm.pid).expect_error("another process serves that VM", state_path(lab))
    finish(lab, vmm, pager)


def test_a_vm_that_has_a_supervisor_is_not_taken_over(lab):
    pager, vmm, _ = paused_vmm(lab, "--supervise")
    adopt(lab, vmm.pid).expect_error("another process serves that VM", state_path(lab))
    serving = pager_pid(lab)
    kill_pager(pager)
    adopt(lab, vmm.pid).expect_error("another process serves that VM")
    let_go(vmm)
    lab.finish_vmm(vmm)
    wait_until(lambda: not os.path.exists(f"/proc/{serving}"), "the pager's end")


def test_of_two_who_take_over_one_is_refused(lab):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    both = [adopt(lab, vmm.pid), adopt(lab, vmm.pid)]
    wait_until(lambda: any(not one.running() for one in both), "one to be refused")
    refused = next(one for one in both if not one.running())
    refused.expect_error("another process serves that VM")
    both.remove(refused)
    finish(lab, vmm, both[0])


def test_a_process_that_nobody_has_served_cannot_be_taken_over(lab):
    lab.state_dir.mkdir()
    adopt(lab, os.getpid()).expect_error("no state file in", lab.state_dir, f"process {os.getpid()}")
    adopt(lab, lab.dir / "none.state").expect_error("cannot open state file", "none.state")
    plain = lab.dir / "plain"
    plain.write_bytes(b"x" * 100000)
    adopt(lab, plain).expect_error(plain, "is not a state file")


def test_a_vmm_that_is_gone_cannot_be_taken_over(lab):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    vmm.signal(signal.SIGKILL)
    vmm.wait()
    untouched(lab, lambda: adopt(lab, vmm.pid).expect_error(f"process {vmm.pid}, is gone"))


def test_a_process_with_the_number_of_a_vmm_that_is_gone_is_not_taken_for_it(lab):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    set_field(lab, START_TICKS_AT, field(lab, START_TICKS_AT, "<Q") - 1, "<Q")
    untouched(lab, lambda: adopt(lab, vmm.pid).expect_error("no state file in"))
    untouched(lab, lambda: adopt(lab, state_path(lab)).expect_error(f"process {vmm.pid}, is gone", "began later"))
    assert vmm.running()


def test_another_memory_file_is_refused_and_the_vm_left_as_it_is(lab):
    pager, vmm, memory = paused_vmm(lab)
    other = lab.own_memory("8M", seed=12)
    short = lab.own_memory("4M", seed=11)
    kill_pager(pager)
    untouched(lab, lambda: adopt(lab, vmm.pid, "--memory", other.path).expect_error(
        other.path, "is not the file that the VM was served from"))
    untouched(lab, lambda: adopt(lab, vmm.pid, "--memory", short.path).expect_error(short.path, "bytes"))
    untouched(lab, lambda: adopt(lab, vmm.pid, "--memory", lab.dir / "none").expect_error("none", "no such file"))
    assert vmm.running()
    finish(lab, vmm, adopt(lab, vmm.pid, "--memory", memory.path))


def test_a_memory_file_that_was_renamed_is_served_under_its_other_name(lab):
    memory = lab.own_memory("8M", seed=11)
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "verify")
    vmm.wait_line("paused")
    kill_pager(pager)
    moved = memory.path.with_name("moved")
    memory.path.rename(moved)
    untouched(lab, lambda: adopt(lab, vmm.pid).expect_error(memory.path, "no such file"))
    finish(lab, vmm, adopt(lab, vmm.pid, "--memory", moved))


def test_a_vmm_without_its_userfaultfd_cannot_be_taken_over(lab):
    memory = lab.memory("64K", seed=5, dense=True)
    pager = lab.serve(memory)
    peer = Peer(lab, pages=16)
    peer.connect(pager)
    peer.send(json.dumps([peer.region()]).encode(), "uffd")
    peer.word(0)
    assert peer.tell("drop") == 0
    kill_pager(pager)
    adopt(lab, peer.pid).expect_error(f"process {peer.pid} has not kept the userfaultfd")
    peer.quit()


def test_of_several_userfaultfds_the_right_one_is_taken(lab):
    memory = lab.memory("64K", seed=5, dense=True)
    pager = lab.serve(memory, "--fault-around", "0")
    peer = Peer(lab, pages=16)
    peer.connect(pager)
    peer.send(json.dumps([peer.region()]).encode(), "uffd")
    first = peer.word(0)
    for _ in range(3):
        assert peer.tell("spare") == 0
    kill_pager(pager)
    second = adopt(lab, peer.pid)
    second.wait_line("taken over")
    assert peer.word(0) == first
    assert peer.word(9) == struct.unpack("<Q", memory.path.read_bytes()[9 * 4096:9 * 4096 + 8])[0]
    peer.quit()
    second.expect_exit(0)


# ---- versions ----


@pytest.mark.parametrize("version", [0, 1, 4, 4711])
def test_a_state_file_of_an_unknown_version_is_refused_and_left_alone(lab, version):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    set_field(lab, VERSION_AT, version)
    untouched(lab, lambda: adopt(lab, vmm.pid).expect_error(
        state_path(lab), f"is of version {version}", "takes over versions 2 and 3"))
    set_field(lab, VERSION_AT, 3)
    finish(lab, vmm, adopt(lab, vmm.pid))


def test_a_damaged_state_file_is_refused_and_left_alone(lab):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    n_pages = field(lab, 32, "<Q")
    set_field(lab, 32, n_pages + 1, "<Q")
    untouched(lab, lambda: adopt(lab, vmm.pid).expect_error(state_path(lab), "is not a state file, or is damaged"))
    set_field(lab, 32, n_pages, "<Q")
    finish(lab, vmm, adopt(lab, vmm.pid))


def as_version_2(lab):
    """Rewrite the state file as version 2 had it: without may_resume before the histogram, and with fewer counters."""
    path = state_path(lab)
    data = bytearray(path.read_bytes())
    header_bytes = struct.unpack_from("<I", data, 12)[0]
    tail = data[TAIL_V2_AT + 8:TAIL_V2_AT + 8 + HEADER_V2 - TAIL_V2_AT]
    data[TAIL_V2_AT:header_bytes] = bytes(header_bytes - TAIL_V2_AT)
    data[TAIL_V2_AT:HEADER_V2] = tail
    struct.pack_into("<II", data, VERSION_AT, 2, HEADER_V2)
    path.write_bytes(data)


@pytest.mark.parametrize("track", ["none", "wp"])
def test_a_vm_of_the_version_before_is_taken_over(lab, track):
    pager, vmm, _ = paused_vmm(lab, "--track", track)
    kill_pager(pager)
    faults = struct.unpack_from("<Q", state_path(lab).read_bytes(), TAIL_V2_AT + 8 + 643 * 8)[0]
    assert faults > 0
    as_version_2(lab)
    second = adopt(lab, vmm.pid)
    second.wait_line("taken over")
    assert field(lab, VERSION_AT, "<I") == 3
    stats = finish(lab, vmm, second)
    assert stats["counters"]["faults"] >= faults
    assert stats["counters"]["takeovers"] == 1
    assert stats["track"] == track


def test_where_the_state_file_does_not_say_which_one_several_userfaultfds_are_too_many(lab):
    memory = lab.memory("64K", seed=5, dense=True)
    pager = lab.serve(memory)
    peer = Peer(lab, pages=16)
    peer.connect(pager)
    peer.send(json.dumps([peer.region()]).encode(), "uffd")
    peer.word(0)
    assert peer.tell("spare") == 0
    kill_pager(pager)
    set_field(lab, UFFD_INODE_AT, 0, "<Q")
    adopt(lab, peer.pid).expect_error(f"process {peer.pid} has 2 userfaultfds")
    peer.quit()


# ---- usage ----


@pytest.mark.parametrize("args, words", [
    (["--adopt", "1", "--socket", "s"], "no --socket"),
    (["--adopt", "1", "--track", "wp"], "--track cannot be chosen"),
    (["--adopt", "1", "--page-size", "4K"], "--page-size cannot be chosen"),
    (["--adopt", "1", "s", "m"], "unexpected argument s"),
    (["--socket", "s", "--memory", "m", "--grace", "3"], "--grace is for --supervise"),
    (["--socket", "s", "--memory", "m", "--supervise", "--grace", "-1"], "--grace is -1"),
    (["--socket", "s", "--memory", "m", "--supervise", "--grace", "86401"], "--grace is 86401"),
])
def test_what_does_not_go_together_is_a_usage_error(args, words):
    done = subprocess.run([thawtest.program("THAW"), "serve", *args], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=10)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 2 and words in done.stderr


def test_the_state_of_a_vm_that_waits_for_a_pager_is_not_overwritten_by_one_with_the_number_of_the_dead_one(lab):
    """Numbers of processes come around, and in each container they are the same."""
    pager, vmm, memory = paused_vmm(lab)
    kill_pager(pager)
    state = state_path(lab)
    other = lab.serve(memory)
    state = state.rename(state.with_name(f"{other.pid}.state"))
    before = state.read_bytes()
    peer = Peer(lab, 2048)
    peer.connect(other)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    other.expect_error(f"state file {state}", f"process {vmm.pid}", "no pager", "--adopt")
    assert state.read_bytes() == before
    finish(lab, vmm, adopt(lab, vmm.pid))


def test_the_state_of_a_vm_that_is_served_is_not_overwritten(lab):
    pager, vmm, memory = paused_vmm(lab)
    other = lab.serve(memory)
    state = state_path(lab)
    state = state.rename(state.with_name(f"{other.pid}.state"))
    peer = Peer(lab, 2048)
    peer.connect(other)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    other.expect_error(f"state file {state}", "in use")
    state.rename(state.with_name(f"{pager.pid}.state"))
    finish(lab, vmm, pager)


def test_the_state_of_a_vm_that_is_gone_is_no_obstacle(lab):
    pager, vmm, memory = paused_vmm(lab)
    kill_pager(pager)
    vmm.signal(signal.SIGKILL)
    vmm.wait()
    other = lab.serve(memory)
    state_path(lab).rename(lab.state_dir / f"{other.pid}.state")
    lab.run_vmm(other, memory, "verify")
    other.expect_exit(0)
    assert not list(lab.state_dir.iterdir())


def test_a_pager_that_has_adopted_a_vm_tells_its_statistics_as_any_other(lab):
    pager, vmm, _ = paused_vmm(lab)
    kill_pager(pager)
    adopter = adopt(lab, vmm.pid)
    adopter.wait_line("taken over")
    for _ in range(2):  # what the first took would be told with the second
        assert adopter.ask_stats()["counters"]["takeovers"] == 1
    assert "were refused" not in adopter.err
    finish(lab, vmm, adopter)
