# SPDX-License-Identifier: Apache-2.0
"""
What went wrong in pagers of this kind, lives and files: docs/scenarios.md lists all of it.

A VMM or a pager that ends at any moment, a memory file that is not what it was, a file system without room.
"""

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

import thawtest
from matrix import LAYOUTS, SEED
from thawtest import check_stats, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

PAGE = 4096


# ---- ends ----


@pytest.mark.parametrize("steps", [["random:threads=8,n=100000"], ["balloon:threads=16,n=100000"],
                                   ["discard:threads=8,n=100000"], ["herd:n=100000"]], ids=lambda steps: steps[0])
def test_a_vmm_killed_at_any_moment_leaves_nothing_behind(lab, steps):
    memory = lab.memory("8M", SEED)
    rng = random.Random(SEED)
    print("seed", SEED)
    for _ in range(12):
        pager = lab.serve(memory)
        vmm = lab.start_vmm(pager, memory, *steps)
        end = time.monotonic() + rng.random() * rng.choice((0.002, 0.02, 0.1))
        while time.monotonic() < end:
            pass
        vmm.signal(signal.SIGKILL)
        assert vmm.wait() == -signal.SIGKILL
        if pager.err.find("serving") < 0:
            # Killed before its message was whole, or before it connected at all.
            pager.signal(signal.SIGTERM)
            assert pager.wait() in (0, 1), pager.err
        else:
            pager.expect_exit(0)
            check_stats(pager.stats())
        assert "Sanitizer" not in pager.err
        assert not pager.socket.exists()
        assert not lab.state_dir.exists() or not list(lab.state_dir.iterdir())


def test_a_stop_at_any_moment_kills_the_vmm_before_it_sees_a_wrong_byte(lab):
    memory = lab.memory("8M", SEED, dense=True)
    rng = random.Random(SEED)
    print("seed", SEED)
    for _ in range(15):
        pager = lab.serve(memory, "--fault-around", rng.choice(("0", "64K")))
        vmm = lab.start_vmm(pager, memory, "shuffle:threads=16", "balloon:threads=16,n=100000")
        end = time.monotonic() + rng.random() * rng.choice((0.005, 0.03, 0.1))
        while time.monotonic() < end:
            pass
        pager.signal(signal.SIGTERM)
        pager.expect_exit(0)
        # 4: it had not connected yet and cannot any more. Else it had given its memory away, and must be dead.
        if vmm.wait() == 4:
            assert "cannot connect" in vmm.err or "cannot send" in vmm.err
        else:
            assert vmm.wait() == -signal.SIGKILL
        assert "wrong byte" not in vmm.err


def test_pagers_of_one_process_never_touch_each_others_descriptors(lab):
    """Sessions end all the time while others go on and while the numbers of closed descriptors are used again."""
    n, pages = 6, 512
    host = lab.start("host", [thawtest.program("HOST_PAGER"), lab.dir, pages, n], stdin=subprocess.PIPE)
    host.child.stdin.write(b"churn 2\n")
    host.child.stdin.flush()
    host.wait_line("ok\n")
    rng = random.Random(SEED)
    print("seed", SEED)
    for number in range(n):
        host.wait_line(f"listening {number}\n")
    peers = {}
    before = len([link for link in links_of(host) if link != "/dev/null"])

    def n_listened(number):
        return host.out.count(f"listening {number}\n")

    def serve_next(number):
        path = lab.dir / f"s{number}"
        peer = thawtest.Peer(lab, pages)
        assert peer.tell(f"connect {path}") == 0
        assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
        for _ in range(10):
            peer.tell(f"touch {rng.randrange(pages)}")
            peer.tell(f"discard {rng.randrange(pages - 4)} 4")
        peers[number] = peer

    for number in range(n):
        serve_next(number)
    for _ in range(20):
        number = rng.randrange(n)
        before_it = n_listened(number)
        peers[number].signal(signal.SIGKILL)
        peers[number].wait()
        # Not before: the pager may not have taken the last connection yet, and would take this one down with its listener.
        wait_until(lambda number=number, before=before_it: n_listened(number) > before, f"pager {number} to listen again")
        serve_next(number)
        other = peers[rng.randrange(n)]
        page = rng.randrange(pages)
        assert other.word(page) in (0, int.from_bytes(bytes([(page + 1) & 0xff]) * 8, "little"))
    for peer in peers.values():
        peer.signal(signal.SIGKILL)
        peer.wait()
    wait_until(lambda: host.out.count("listening") == 2 * n + 20, "the pagers to be alone again")
    assert "badly" not in host.out, host.err
    assert host.running()
    # Each session had ten descriptors.
    links = [link for link in links_of(host) if link != "/dev/null"]
    assert len(links) <= before, links


def stop_pager(pager):
    """Stop (SIGSTOP) a pager where it is."""
    pager.signal(signal.SIGSTOP)
    stat = pathlib.Path("/proc") / str(pager.pid) / "stat"
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the pager to stop")


@pytest.mark.parametrize("accepted", [False, True], ids=["not accepted yet", "accepted"])
def test_a_vmm_that_gave_its_memory_away_in_the_moment_of_a_stop_is_stopped_too(lab, accepted):
    memory = lab.memory("4M", SEED, dense=True)
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab, 1024)
    if accepted:
        peer.connect(pager)
        wait_until(lambda: f"/proc/{peer.pid}/pagemap" in links_of(pager), "the connection to be accepted")
    stop_pager(pager)
    if not accepted:
        peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert peer.tell("touch 3") == 0
    pager.signal(signal.SIGTERM)
    pager.signal(signal.SIGCONT)
    pager.expect_exit(0)
    assert peer.wait() == -signal.SIGKILL
    assert not re.search("^page 3 0+$", peer.out, re.MULTILINE)  # served before the stop, or never


def links_of(process):
    """What a process has open."""
    links = []
    for fd in (pathlib.Path("/proc") / str(process.pid) / "fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except FileNotFoundError:
            pass  # closed meanwhile
    return links


def test_a_vmm_whose_userfaultfd_comes_behind_a_refused_text_is_stopped_too(lab):
    memory = lab.memory("4M", SEED)
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab, 1024)
    stop_pager(pager)
    peer.connect(pager)
    assert peer.send(b"garbage" * 4000) == 0  # more than one read takes
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert peer.tell("touch 3") == 0
    pager.signal(signal.SIGCONT)
    pager.expect_error("handshake", "array")
    assert peer.wait() == -signal.SIGKILL
    assert "page 3" not in peer.out


def test_a_vmm_that_kept_no_userfaultfd_of_its_own_is_dead_before_the_last_one_is_closed(lab):
    """The last one closed, a thread that waits would go on with a page of zeroes and nobody would know."""
    memory = lab.memory("4M", SEED, dense=True)
    for _ in range(5):
        pager = lab.serve(memory)
        peer = thawtest.Peer(lab, 1024)
        peer.connect(pager)
        assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
        pager.wait_line("serving")
        assert peer.tell("drop") == 0
        stop_pager(pager)
        for page in range(0, 1024, 32):
            assert peer.tell(f"touch {page}") == 0
        pager.signal(signal.SIGTERM)
        pager.signal(signal.SIGCONT)
        pager.expect_exit(0)
        assert peer.wait() == -signal.SIGKILL
        assert not re.search("^page [0-9]+ 0+$", peer.out, re.MULTILINE)


# ---- the memory file ----


def served_after(lab, where, change, cold):
    """Serve some pages, change the file system, serve the rest: all of it must be what the open file holds."""
    memory = lab.own_memory("8M", SEED, dense=True, where=where)
    if cold:
        thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "random:threads=4,n=200", "balloon:n=200", "verify")
    vmm.wait_line("paused")
    change(memory)
    let_go(vmm)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def replace_by_the_next_snapshot(memory):
    """What a VMM does that writes its next snapshot beside the old one and renames it into place."""
    beside = memory.path.with_name("next")
    beside.write_bytes(b"\xee" * memory.size)
    os.rename(beside, memory.path)


def replace_by_nothing(memory):
    memory.path.unlink()


def replace_by_a_shorter_file(memory):
    memory.path.unlink()
    memory.path.write_bytes(b"")


def take_rights_away(memory):
    memory.path.chmod(0)


@pytest.mark.parametrize("cold", [False, True], ids=["cached", "cold"])
@pytest.mark.parametrize("change", [replace_by_the_next_snapshot, replace_by_nothing, replace_by_a_shorter_file,
                                    take_rights_away], ids=lambda change: change.__name__)
def test_the_file_that_was_opened_is_served_whatever_its_name_becomes(lab, change, cold):
    served_after(lab, "disk" if cold else "tmpfs", change, cold)


def in_own_mounts(lab, mounts, memory_path, *args):
    """A pager that sees mounts that nobody else sees; they go away with it."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, to mount file systems")
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", lab.dir], check=False, timeout=10,
                           capture_output=True)
    if probe.returncode != 0:
        pytest.skip(f"needs root and unshare, to mount file systems: {probe.stderr.decode().strip()}")
    socket, stats_file = lab.socket(), lab.dir / "stats"
    script = "set -e; " + mounts + '; exec "$0" "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, thawtest.program("THAW"), "serve", "--socket", socket,
            "--memory", memory_path, "--stats", stats_file, *args]
    pager = thawtest.Pager(lab, f"thaw{len(lab.processes)}", argv, socket, stats_file)
    lab.processes.append(pager)
    pager.wait_listening()
    return pager


def place(lab, name):
    path = lab.dir / name
    path.mkdir()
    return path


def test_a_file_on_a_read_only_file_system_is_served(lab):
    memory = lab.memory("4M", SEED)
    there = place(lab, "ro")
    shutil.copy(memory.path, there / "memory")
    pager = in_own_mounts(lab, f"mount --bind {there} {there}; mount -o remount,ro,bind {there}", there / "memory",
                          "--state", lab.state_dir)
    result = lab.run_vmm(pager, memory, "random", "balloon:n=300", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def full_tmpfs(memory, there):
    """A tmpfs with a sparse copy of the memory file and not one free byte."""
    return (f"mount -t tmpfs -o size={memory.size * 2} none {there}; cp --sparse=always {memory.path} {there}/memory; "
            f"dd if=/dev/zero of={there}/filler bs=64k 2>/dev/null || true; "
            f"dd if=/dev/zero of={there}/filler2 bs=4k 2>/dev/null || true")


@pytest.mark.parametrize("around", ["0", "64K", "2M"])
def test_a_file_with_holes_on_a_full_file_system_is_served(lab, around):
    memory = lab.memory("8M", SEED)
    there = place(lab, "full")
    pager = in_own_mounts(lab, full_tmpfs(memory, there), there / "memory", "--state", lab.state_dir,
                          "--fault-around", around)
    result = lab.run_vmm(pager, memory, "random", "balloon:n=300", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


@pytest.mark.usefixtures("huge")
def test_huge_pages_with_holes_on_a_full_file_system_are_served(lab):
    memory = lab.memory("32M", SEED)
    there = place(lab, "full")
    pager = in_own_mounts(lab, full_tmpfs(memory, there), there / "memory", "--state", lab.state_dir)
    result = lab.run_vmm(pager, memory, "--page-size", "2M", "seq", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_without_room_for_the_state_file_the_vm_is_stopped_and_the_directory_named(lab):
    memory = lab.memory("8M", SEED)
    there = place(lab, "small")
    pager = in_own_mounts(lab, f"mount -t tmpfs -o size=4k none {there}", memory.path, "--state", there)
    vmm = lab.start_vmm(pager, memory, "seq")
    assert vmm.wait() == -signal.SIGKILL
    assert "wrong byte" not in vmm.err
    line = pager.expect_error("state file", there, "no space")
    assert f"process {vmm.pid}, was stopped" in line


def test_without_room_for_statistics_the_vm_goes_on(lab):
    memory = lab.memory("8M", SEED)
    there = place(lab, "small")
    pager = in_own_mounts(lab, f"mount -t tmpfs -o size=4k none {there}; head -c 4096 /dev/zero >{there}/filler",
                          memory.path, "--state", lab.state_dir, "--stats", there / "stats")
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "random", "verify")
    vmm.wait_line("paused")
    pager.signal(signal.SIGUSR1)
    pager.wait_line("cannot write")
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


# ---- what the VMM says of its memory ----


@pytest.mark.usefixtures("huge")
def test_huge_pages_said_to_be_small_stop_the_vm(lab):
    path = lab.dir / "memory"
    path.write_bytes(b"\x11" * (8 << 20))
    pager = lab.serve(path)
    peer = thawtest.Peer(lab, 4, page_size="2M")
    peer.connect(pager)
    text = json.dumps([peer.region(page_size=PAGE, page_size_kib=PAGE)]).encode()
    assert peer.send(text, "uffd") == 0
    peer.tell("touch 1")
    assert peer.wait() == -signal.SIGKILL
    assert not re.search("^page", peer.out, re.MULTILINE)
    pager.expect_error("refused")


def test_small_pages_said_to_be_huge_are_refused(lab):
    """Served, a discard of a part of such a page would be taken for nothing, and its next fault never end."""
    path = lab.dir / "memory"
    path.write_bytes(b"\x11" * (4 << 20))
    pager = lab.serve(path)
    peer = thawtest.Peer(lab, 1024)
    assert peer.tell("touch 5") == 0
    peer.connect(pager)
    peer.send(json.dumps([peer.region(page_size=2 << 20, page_size_kib=2 << 20)]).encode(), "uffd")
    assert peer.wait() == -signal.SIGKILL
    assert not re.search("^page", peer.out, re.MULTILINE)
    pager.expect_error("handshake", "2097152", "region at 0x")


# ---- limits ----


def test_as_many_regions_as_a_handshake_may_name_are_served(lab):
    """8192 mappings with gaps between them; twice that many map areas are still below the usual limit of 65530."""
    memory = lab.memory("64M", SEED)
    pager = lab.serve(memory)
    result = lab.run_vmm(pager, memory, "--regions", "8192", "random:n=1500", "spans:n=40", "verify")
    pager.expect_exit(0)
    assert result["regions"] == 8192
    check_stats(pager.stats(), result)


@pytest.mark.parametrize("layout", ["2000-regions", "2000-regions-adjacent"])
def test_discards_over_many_regions_remove_pages_of_each(lab, layout):
    memory = lab.memory("16M", SEED)
    pager = lab.serve(memory)
    result = lab.run_vmm(pager, memory, *LAYOUTS[layout], "stamp", "spans:n=60", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_a_pager_without_free_descriptors_does_not_leave_a_vmm_hanging(lab):
    """The userfaultfd is on its way and there is no number for it: the kernel drops it."""
    memory = lab.memory("4M", SEED)
    pager = lab.serve(memory)
    fds = len(list((pathlib.Path("/proc") / str(pager.pid) / "fd").iterdir()))
    peer = thawtest.Peer(lab, 1024)
    # accept(2), pidfd and pagemap get the last three numbers.
    resource.prlimit(pager.pid, resource.RLIMIT_NOFILE, (fds + 3, fds + 3))
    peer.connect(pager)
    peer.tell("touch 3")
    peer.send(json.dumps([peer.region()]).encode(), "uffd")
    assert peer.wait() == -signal.SIGKILL
    assert "page 3" not in peer.out
    pager.expect_error("handshake", "descriptor")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_signals_that_come_while_a_pager_ends_find_nobody(lab, number):
    """A signal's handler asks a pager for something: not one that was freed already."""
    memory = lab.memory("4M", SEED)
    for _ in range(8):
        pager = lab.serve(memory)
        peer = thawtest.Peer(lab, 1024)
        peer.connect(pager)
        assert peer.tell("close") == 0
        while pager.running():
            pager.signal(number)
        assert pager.wait() in (0, 1)
        assert "Sanitizer" not in pager.err
        peer.quit()


def full_pipe():
    """A pipe that takes no byte more. Return: the end to read from, the end to write to."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


def test_statistics_that_nobody_reads_do_not_stop_the_vm(lab):
    """Its output is a pipe that is full: the pager's thread must not wait for its reader."""
    memory = lab.memory("8M", SEED)
    socket = lab.socket()
    reader, writer = full_pipe()
    with subprocess.Popen([thawtest.program("THAW"), "serve", "--socket", socket, "--memory", memory.path,
                           "--state", lab.state_dir], stdin=subprocess.DEVNULL, stdout=writer,
                          stderr=subprocess.DEVNULL) as child:
        try:
            wait_until(lambda: thawtest.is_listening(socket), "the pager to listen")
            vmm = lab.start("vmm", [thawtest.program("FAKEVMM"), "--socket", socket, *memory.vmm_args(), "seq:end=10",
                                    "pause", "random:n=500", "verify"], stdin=subprocess.PIPE)
            vmm.wait_line("paused")
            child.send_signal(signal.SIGUSR1)
            let_go(vmm)
            vmm.expect_exit(0)
            assert child.wait(thawtest.DEADLINE) == 0
        finally:
            child.kill()
            os.close(reader)
            os.close(writer)
