# SPDX-License-Identifier: Apache-2.0
"""The memory file: what cannot be served is refused, and what goes away is never replaced by zeroes."""

import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

import thawtest
from thawtest import check_stats, let_go

pytestmark = pytest.mark.usefixtures("only_thaw")

PAGE = 4096


def refuse(lab, path, *words):
    """`thaw serve` with this memory file ends at once with one line that names the file."""
    pager = lab.start_pager("--socket", lab.socket(), "--memory", path, "--state", lab.state_dir)
    pager.expect_error(path, *words)
    assert not list(lab.dir.glob("s[0-9]*")), "the socket was left behind"


def test_a_missing_memory_file_is_refused(lab):
    refuse(lab, lab.dir / "none", "memory file", "no such file")


def test_a_directory_as_memory_file_is_refused(lab):
    refuse(lab, lab.dir, "memory file", "not a regular file")


def test_a_fifo_as_memory_file_is_refused_without_waiting(lab):
    os.mkfifo(lab.dir / "fifo")
    refuse(lab, lab.dir / "fifo", "memory file", "not a regular file")


def test_an_empty_memory_file_is_refused(lab):
    (lab.dir / "empty").write_bytes(b"")
    refuse(lab, lab.dir / "empty", "memory file", "empty")


@pytest.mark.parametrize("size", [1, 4095, 4097, 3 * 4096 + 512])
def test_a_memory_file_that_is_no_whole_number_of_pages_is_refused(lab, size):
    (lab.dir / "odd").write_bytes(b"x" * size)
    refuse(lab, lab.dir / "odd", "memory file", str(size), "4096")


def test_an_unreadable_memory_file_is_refused(lab):
    path = lab.dir / "secret"
    path.write_bytes(b"x" * PAGE)
    path.chmod(0)
    lab.dir.chmod(0o777)
    thaw = thawtest.program("THAW")
    if os.getuid() == 0:
        if subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", "test", "-x", thaw],
                          check=False, timeout=10, stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip("root can read every file, and thaw cannot be run as another user here")
        prefix = ["setpriv", "--reuid", "65534", "--clear-groups"]
    else:
        prefix = []
    run = subprocess.run([*prefix, thaw, "serve", "--socket", lab.dir / "s", "--memory", path], check=False,
                         capture_output=True, text=True, timeout=10)
    assert run.returncode == 1, run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("thaw serve: ")]
    assert len(lines) == 1 and str(path) in lines[0] and "permission denied" in lines[0].lower()


def serve_and_truncate(lab, where, new_size, steps, *args, size="4M"):
    """Serve some pages, cut the file while the VMM waits, let the VMM go on. Return: pager, vmm, memory."""
    memory = lab.own_memory(size, seed=5, dense=True, where=where)
    pager = lab.serve(memory, *args)
    vmm = lab.start_vmm(pager, memory, "seq:end=20", "pause", *steps)
    vmm.wait_line("paused")
    os.truncate(memory.path, new_size)
    let_go(vmm)
    return pager, vmm, memory


@pytest.mark.parametrize("around", ["0", "64K"])
@pytest.mark.parametrize("where", ["tmpfs", "disk"])
@pytest.mark.parametrize("cut", [0, 100 * PAGE, 200 * PAGE + 1, 200 * PAGE + 2048, 1024 * PAGE - 1])
def test_a_file_that_is_truncated_stops_the_vm_and_never_shows_zeroes(lab, where, cut, around):
    pager, vmm, memory = serve_and_truncate(lab, where, cut, ["seq:first=100"], "--fault-around", around)
    assert vmm.wait() == -signal.SIGKILL, vmm.err
    assert "wrong byte" not in vmm.err
    pager.expect_error(memory.path, "truncated")
    assert pager.stats()["end"] == "source"
    assert not list(lab.state_dir.iterdir())


@pytest.mark.parametrize("where", ["tmpfs", "disk"])
def test_a_truncated_file_stops_the_vm_under_load(lab, where):
    pager, vmm, memory = serve_and_truncate(lab, where, 300 * PAGE + 700, ["random:threads=16,n=1000000"])
    assert vmm.wait() == -signal.SIGKILL, vmm.err
    assert "wrong byte" not in vmm.err
    pager.expect_error(memory.path, "truncated")


def test_a_truncated_file_whose_pages_are_all_there_harms_nobody(lab):
    pager, vmm, _memory = serve_and_truncate(lab, "tmpfs", 0, ["seq:end=20", "verify:end=20"],
                                             "--fault-around", "0")
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("cut", [24 << 20, (24 << 20) + 4096, (24 << 20) + 1234567])
def test_a_file_truncated_under_2m_pages_stops_the_vm(lab, cut):
    memory = lab.own_memory("40M", seed=5, dense=True)
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "--page-size", "2M", "seq:end=2", "pause", "seq:first=12")
    vmm.wait_line("paused")
    os.truncate(memory.path, cut)
    let_go(vmm)
    assert vmm.wait() == -signal.SIGKILL, vmm.err
    assert "wrong byte" not in vmm.err
    pager.expect_error(memory.path, "truncated")


def test_pages_that_are_not_in_the_page_cache_are_fetched(lab):
    memory = lab.own_memory("8M", seed=5, dense=True, where="disk")
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--fault-around", "0")
    result = lab.run_vmm(pager, memory, "shuffle:threads=8")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["fetches"] > 0


def test_pages_that_are_in_the_page_cache_are_not_fetched(lab):
    memory = lab.own_memory("8M", seed=5, where="disk")
    memory.path.read_bytes()
    pager = lab.serve(memory)
    result = lab.run_vmm(pager, memory, "shuffle:threads=8")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["fetches"] == 0


def test_pages_given_back_while_they_are_fetched_come_up_as_zeroes(lab):
    memory = lab.own_memory("16M", seed=5, dense=True, where="disk")
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory)
    result = lab.run_vmm(pager, memory, "balloon:threads=16,n=400", "verify")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["fetches"] > 0


def test_a_file_that_shrinks_while_it_is_fetched_stops_the_vm(lab):
    memory = lab.own_memory("32M", seed=5, dense=True, where="disk")
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, "seq:end=1", "pause", "random:threads=16,n=1000000")
    vmm.wait_line("paused")
    let_go(vmm)
    os.truncate(memory.path, 5000 * PAGE + 99)
    assert vmm.wait() == -signal.SIGKILL, vmm.err
    assert "wrong byte" not in vmm.err
    pager.expect_error(memory.path)


def test_holes_cost_the_host_no_memory(lab):
    path = lab.dir / "hollow"
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    pager = lab.serve(path)
    peer = thawtest.Peer(lab, pages=4096)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert all(peer.word(page) == 0 for page in range(0, 4096, 64))
    status = (pathlib.Path("/proc") / str(peer.pid) / "status").read_text()
    resident_kb = int(re.search(r"RssAnon:\s+(\d+)", status).group(1))
    assert resident_kb < 4096, "zero pages must not take memory"
    peer.quit()
    pager.expect_exit(0)
    assert pager.stats()["counters"]["pages_installed"] == 0


def test_a_guest_of_64_gib_costs_the_pager_bits_per_page(lab):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for memory")
    pages = (64 << 30) // PAGE
    path = lab.dir / "hollow"
    with open(path, "wb") as file:
        file.truncate(64 << 30)
    pager = lab.serve(path)
    peer = thawtest.Peer(lab, pages=pages)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert all(peer.word(page) == 0 for page in (0, pages // 2, pages - 1))
    state = lab.state_dir / f"{pager.pid}.state"
    assert state.stat().st_size < pages  # bytes: fewer than eight bits a page
    status = (pathlib.Path("/proc") / str(pager.pid) / "status").read_text()
    anonymous_kb = int(re.search(r"RssAnon:\s+(\d+)", status).group(1))
    assert anonymous_kb < 8192
    peer.quit()
    pager.expect_exit(0)
