# SPDX-License-Identifier: Apache-2.0
"""`thaw serve` as a program: its command line, its life, its statistics, its state file."""

import json
import os
import signal
import stat
import subprocess

import pytest

import thawtest
from thawtest import check_stats, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

EXACT = ["--fault-around", "0", "--track", "none"]


def usage(*args):
    """Run `thaw serve` with arguments that it must refuse. Return: the finished process."""
    return subprocess.run([thawtest.program("THAW"), "serve", *args], check=False, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=10)


# ---- statistics ----


def test_reading_every_page_once_is_counted_exactly(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, *EXACT)
    result = lab.run_vmm(pager, memory, "seq")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    counters, states = stats["counters"], stats["states"]
    data = result["pages"] - result["hole_pages"]
    assert counters["faults"] == counters["messages"] == result["pages"]
    assert counters["pages_installed"] == data
    assert counters["pages_zeroed"] == result["hole_pages"]
    assert (states["clean"], states["zero"]) == (data, result["hole_pages"])
    assert states["absent"] == states["dirty"] == states["removed"] == 0
    for name in ("pages_around", "pages_refaulted", "pages_found", "removes", "again", "partial", "deferred",
                 "merged", "fetches", "unmapped", "nomem", "wakes"):
        assert counters[name] == 0, name
    assert stats["fault_ns"]["n"] == result["pages"]


def test_writing_to_every_page_once_is_counted_exactly(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, *EXACT)
    result = lab.run_vmm(pager, memory, "stamp")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["faults"] == result["pages"]
    assert stats["states"]["dirty"] == result["pages"]


def test_tracked_writes_are_counted_exactly(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, "--fault-around", "64K", "--track", "wp")
    result = lab.run_vmm(pager, memory, "seq", "stamp:first=100,end=400", "verify")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["track"] == "wp"
    assert stats["counters"]["pages_written"] == 300
    assert stats["counters"]["wp_faults"] == 300
    assert stats["states"]["dirty"] == 300


def test_reads_do_not_count_as_writes_when_writes_are_tracked(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, "--track", "wp")
    result = lab.run_vmm(pager, memory, "random", "verify")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["states"]["dirty"] == 0


def test_fault_around_installs_the_whole_window_at_once(lab):
    memory = lab.memory("4M", seed=3, dense=True)
    pager = lab.serve(memory, "--fault-around", "64K")
    result = lab.run_vmm(pager, memory, "seq")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["faults"] == 4096 // 64
    assert stats["counters"]["pages_installed"] == 1024
    assert stats["counters"]["pages_around"] == 1024 - 64


def test_discards_are_counted_exactly(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, *EXACT)
    result = lab.run_vmm(pager, memory, "seq", "discard:n=100", "drop:first=40,end=60", "drop:first=50,end=70",
                         "seq:first=45,end=55")
    pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    counters = stats["counters"]
    assert counters["removes"] == result["discards"]
    assert counters["pages_removed"] == result["pages_discarded"]
    assert stats["states"]["removed"] == 30 - 10
    assert counters["pages_refaulted"] == result["pages_discarded"] - 10 - 20
    assert counters["faults"] == 1024 + counters["pages_refaulted"]


def test_pages_that_were_never_touched_stay_absent(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, *EXACT)
    result = lab.run_vmm(pager, memory, "seq:first=10,end=20", "seq:first=1000,end=1024")
    pager.expect_exit(0)
    assert result["touched"] == 34
    assert pager.stats()["states"]["absent"] == 1024 - 34


def test_statistics_are_written_on_sigusr1_while_it_serves(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory, *EXACT)
    vmm = lab.start_vmm(pager, memory, "seq:end=100", "pause", "verify")
    vmm.wait_line("paused")
    pager.signal(signal.SIGUSR1)
    wait_until(pager.stats_file.exists, "statistics")
    stats = pager.stats()
    check_stats(stats, end="running")
    assert stats["vmm_pid"] == vmm.pid
    assert stats["vmm_uid"] == os.getuid()
    assert stats["counters"]["faults"] == 100
    assert stats["states"]["absent"] == 1024 - 100
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    check_stats(pager.stats())
    assert pager.stats()["counters"]["faults"] == 1024


def test_many_sigusr1_under_load_disturb_nothing(lab):
    memory = lab.memory("8M")
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "balloon:threads=6,n=3000", "verify")
    count = 0
    while vmm.running():
        pager.signal(signal.SIGUSR1)
        if pager.stats_file.exists():
            count += 1
            assert sum(pager.stats()["states"].values()) == 2048
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert count > 0


def test_statistics_go_to_stdout_without_a_file(lab):
    memory = lab.memory("4M", seed=3)
    socket = lab.socket()
    pager = lab.start_pager("--socket", socket, "--memory", memory.path, "--state", lab.state_dir,
                            socket=socket, stats=False)
    pager.wait_listening()
    vmm = lab.start_vmm(pager, memory, "seq", "pause")
    vmm.wait_line("paused")
    pager.signal(signal.SIGUSR1)
    pager.wait_line('"end":"running"')
    let_go(vmm)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    lines = [json.loads(line) for line in pager.out.splitlines()]
    assert [line["end"] for line in lines] == ["running", "vmm-gone"]
    check_stats(lines[-1], result)


# ---- life ----


def test_the_short_form_takes_socket_and_memory_file(lab):
    memory = lab.memory("4M", seed=3)
    socket = lab.socket()
    pager = lab.start_pager(socket, memory.path, "--state", lab.state_dir, socket=socket)
    pager.wait_listening()
    result = lab.run_vmm(pager, memory, "random", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_it_ends_by_itself_when_the_vmm_exits(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory)
    lab.run_vmm(pager, memory, "seq:end=3")
    pager.expect_exit(0, deadline=5)
    assert pager.stats()["end"] == "vmm-gone"


@pytest.mark.parametrize("step", ["random:threads=8,n=100000", "balloon:threads=8,n=100000",
                                  "herd:n=100000", "syscalls:threads=4,n=100000"])
def test_it_ends_by_itself_when_the_vmm_exits_in_the_middle_of_faults(lab, step):
    memory = lab.memory("8M")
    for delay_us in (1, 300, 2000, 5000, 11000, 23000, 47000):
        pager = lab.serve(memory)
        lab.run_vmm(pager, memory, "--die-after-us", str(delay_us), step)
        pager.expect_exit(0, deadline=5)
        check_stats(pager.stats())


def test_it_ends_by_itself_when_the_vmm_is_killed(lab):
    memory = lab.memory("8M")
    for _ in range(5):
        pager = lab.serve(memory)
        vmm = lab.start_vmm(pager, memory, "pause", "balloon:threads=8,n=1000000")
        vmm.wait_line("paused")
        let_go(vmm)
        pager.signal(signal.SIGUSR1)
        vmm.signal(signal.SIGKILL)
        assert vmm.wait() == -signal.SIGKILL
        pager.expect_exit(0, deadline=5)
        check_stats(pager.stats())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_kills_the_vmm_first_and_is_a_good_end(lab, number):
    memory = lab.memory("8M")
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "random:threads=16,n=1000000")
    vmm.wait_line("paused")
    let_go(vmm)
    pager.signal(number)
    assert vmm.wait(5) == -signal.SIGKILL
    assert "wrong byte" not in vmm.err
    pager.expect_exit(0, deadline=5)
    check_stats(pager.stats(), end="stopped")


def test_a_stop_under_load_never_shows_the_vmm_a_wrong_byte(lab):
    memory = lab.memory("8M", dense=True)
    for faults in (1, 50, 500, 1500):
        pager = lab.serve(memory, *EXACT)
        vmm = lab.start_vmm(pager, memory, "shuffle:threads=32", "random:threads=32,n=1000000")

        def served(at_least=faults, one=pager):
            one.signal(signal.SIGUSR1)
            return one.stats_file.exists() and one.stats()["counters"]["faults"] >= at_least

        wait_until(served, f"{faults} faults")
        pager.signal(signal.SIGTERM)
        assert vmm.wait(5) == -signal.SIGKILL
        assert "wrong byte" not in vmm.err
        pager.expect_exit(0, deadline=5)


@pytest.mark.parametrize("kind", ["device", "fifo", "folder"])
def test_statistics_replace_nothing_but_a_file(lab, kind):
    path = lab.dir / "there"
    if kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    pager = lab.start_pager("--socket", lab.socket(), "--memory", lab.memory("4M").path, "--stats", path, stats=False)
    pager.expect_error(path, "is there and is not a regular file")
    assert not path.is_file()


def test_a_stop_before_a_vmm_came_is_a_good_end(lab):
    pager = lab.serve(lab.memory("4M", seed=3))
    pager.signal(signal.SIGTERM)
    pager.expect_exit(0, deadline=5)
    assert not pager.socket.exists()


def test_a_second_vmm_cannot_connect(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory)
    first = lab.start_vmm(pager, memory, "seq:end=10", "pause", "verify")
    first.wait_line("paused")
    second = lab.start_vmm(pager, memory, "seq")
    second.expect_exit(4)
    assert "cannot connect" in second.err
    let_go(first)
    lab.finish_vmm(first)
    pager.expect_exit(0)


def test_a_pager_that_is_stopped_for_a_while_goes_on_where_it_was(lab):
    memory = lab.memory("8M")
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq:end=5", "pause", "balloon:threads=8,n=400", "verify")
    vmm.wait_line("paused")
    pager.signal(signal.SIGSTOP)
    let_go(vmm)
    with pytest.raises(subprocess.TimeoutExpired):
        vmm.wait(0.3)
    pager.signal(signal.SIGCONT)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_a_vmm_that_is_stopped_for_a_while_finds_its_memory_again(lab):
    memory = lab.memory("8M")
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq:end=5", "pause", "write:threads=8,n=400", "verify")
    vmm.wait_line("paused")
    let_go(vmm)
    vmm.signal(signal.SIGSTOP)
    pager.signal(signal.SIGUSR1)
    wait_until(pager.stats_file.exists, "statistics")
    vmm.signal(signal.SIGCONT)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_the_state_file_is_there_while_it_serves_and_gone_afterwards(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause")
    vmm.wait_line("paused")
    assert [path.name for path in lab.state_dir.iterdir()] == [f"{pager.pid}.state"]
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert not list(lab.state_dir.iterdir())


def test_the_state_file_is_gone_after_a_stop(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause")
    vmm.wait_line("paused")
    pager.signal(signal.SIGTERM)
    pager.expect_exit(0, deadline=5)
    assert not list(lab.state_dir.iterdir())


def test_the_life_of_a_session_is_logged_in_order(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "seq")
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    lines = pager.err.splitlines()
    assert all(line.startswith("level=") for line in lines), pager.err
    listening = next(i for i, line in enumerate(lines) if 'msg="listening"' in line or "msg=listening" in line)
    serving = next(i for i, line in enumerate(lines) if 'msg="serving"' in line or "msg=serving" in line)
    assert listening < serving
    assert f"vmm_pid={vmm.pid}" in lines[serving]
    assert "pages=1024" in lines[serving] and "regions=1" in lines[serving]


# ---- socket ----


def test_two_pagers_on_one_socket_path_are_refused(lab):
    memory = lab.memory("4M", seed=3)
    first = lab.serve(memory)
    second = lab.start_pager("--socket", first.socket, "--memory", memory.path, "--state", lab.state_dir)
    second.expect_error(first.socket, "in use")
    result = lab.run_vmm(first, memory, "seq")
    first.expect_exit(0)
    check_stats(first.stats(), result)


def test_a_socket_left_behind_by_a_killed_pager_is_replaced(lab):
    memory = lab.memory("4M", seed=3)
    killed = lab.serve(memory)
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert killed.socket.exists()
    pager = lab.start_pager("--socket", killed.socket, "--memory", memory.path, "--state", lab.state_dir,
                            socket=killed.socket)
    pager.wait_listening()
    result = lab.run_vmm(pager, memory, "seq")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


def test_a_file_at_the_socket_path_is_refused_and_left_alone(lab):
    path = lab.dir / "precious"
    path.write_text("data")
    pager = lab.start_pager("--socket", path, "--memory", lab.memory("4M", seed=3).path)
    pager.expect_error(path)
    assert path.read_text() == "data"


def test_a_socket_path_that_is_too_long_is_refused(lab):
    path = lab.dir / ("x" * 120)
    pager = lab.start_pager("--socket", path, "--memory", lab.memory("4M", seed=3).path)
    line = pager.expect_error("socket", "107")
    assert "x" * 20 in line


def test_a_socket_in_a_missing_directory_is_refused(lab):
    path = lab.dir / "missing" / "s"
    pager = lab.start_pager("--socket", path, "--memory", lab.memory("4M", seed=3).path)
    pager.expect_error(path, "no such file or directory")


def test_the_socket_is_removed_after_the_handshake(lab):
    memory = lab.memory("4M", seed=3)
    pager = lab.serve(memory)
    lab.run_vmm(pager, memory, "seq")
    pager.expect_exit(0)
    assert not pager.socket.exists()


# ---- usage ----


@pytest.mark.parametrize("args", [
    [],
    ["--socket", "s"],
    ["--memory", "m"],
    ["only-a-socket"],
    ["s", "m", "surplus"],
    ["--socket", "s", "--memory", "m", "--no-such-option"],
    ["--socket", "s", "--memory", "m", "--page-size", "8K"],
    ["--socket", "s", "--memory", "m", "--fault-around", "many"],
    ["--socket", "s", "--memory", "m", "--fault-around", "5000"],
    ["--socket", "s", "--memory", "m", "--fault-around", "-4096"],
    ["--socket", "s", "--memory", "m", "--track", "maybe"],
    ["--socket", "s", "--memory", "m", "--allow-uid", "nobody-at-all"],
    ["--socket", "s", "--memory", "m", "--allow-uid", "-1"],
    ["--socket", "s", "--memory", "m", "--handshake-timeout", "soon"],
    ["--socket", "s", "--memory", "m", "--log-level", "loud"],
    ["--socket"],
], ids=lambda args: " ".join(args) or "nothing")
def test_a_usage_error_is_one_line_and_exit_2(args):
    done = usage(*args)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) >= 1 and lines[0].startswith("thaw serve: "), done.stderr
    assert len(lines) <= 2, done.stderr
    assert done.stdout == ""
