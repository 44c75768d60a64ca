# SPDX-License-Identifier: Apache-2.0
"""
A serving pager has given away what it does not need, and still does all that it must.

What a confined process cannot do any more is tried from inside by test_confined.c; here it is the real pager, seen from
outside.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess

import pytest

import thawtest
from thawtest import check_stats, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

NOBODY = 65534
CAP_KILL = 1 << 5
PAGES = 16
PAGER_PID_AT = 80  # in a state file; man/thaw-state.5.scd
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def needs_root():
    """Skips unless this is root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")


def sanitized():
    """Was thaw built for a sanitizer?"""
    return bool(os.environ.get("THAW_SANITIZER"))


def whole():
    """Skips where thaw leaves a part of confinement out."""
    if sanitized():
        pytest.skip("a pager that was built for a sanitizer is confined in part only")


def status_of(pid, thread=None):
    """The fields of /proc/PID/status, or of one thread of the process."""
    path = pathlib.Path("/proc") / str(pid)
    if thread:
        path = path / "task" / str(thread)
    return dict(line.split(":\t", 1) for line in (path / "status").read_text().splitlines() if ":\t" in line)


def caps_of(status):
    """The capability sets, as numbers."""
    return {name: int(status[name], 16) for name in SETS}


def serving(lab, memory, *args):
    """A pager that serves and a fake VMM that waits in the middle. Return: both."""
    pager = lab.serve(memory, *args)
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "balloon:threads=4,n=200", "verify")
    vmm.wait_line("paused")
    return pager, vmm


def ends_well(lab, pager, vmm):
    """Both go on, and all is right."""
    let_go(vmm)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)


# ---- what is seen from outside ----


def test_every_thread_of_a_serving_pager_is_confined(lab):
    pager, vmm = serving(lab, lab.memory("4M", seed=3))
    threads = os.listdir(f"/proc/{pager.pid}/task")
    assert sanitized() or len(threads) >= 5
    for thread in threads if not sanitized() else [pager.pid]:
        status = status_of(pager.pid, thread)
        assert status["NoNewPrivs"] == "1"
        assert set(caps_of(status).values()) == {0}, status
        assert status["Seccomp"] == ("0" if sanitized() else "2")
    ends_well(lab, pager, vmm)


def test_without_confinement_nothing_is_given_away(lab):
    pager, vmm = serving(lab, lab.memory("4M", seed=3), "--confine", "off")
    ours, status = status_of(os.getpid()), status_of(pager.pid)
    for name in (*SETS, "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"):
        assert status[name] == ours[name], name
    assert "confined" not in pager.err
    ends_well(lab, pager, vmm)


def test_it_says_how_it_is_confined(lab):
    whole()
    pager, vmm = serving(lab, lab.memory("4M", seed=3))
    line = next(line for line in pager.err.splitlines() if 'msg="confined"' in line)
    assert f"uid={os.geteuid()} " in line and "capabilities=none" in line
    version = subprocess.run([thawtest.program("THAW"), "doctor", "--json"], check=False, capture_output=True,
                             text=True, timeout=30).stdout
    landlock = next(c for c in json.loads(version)["checks"] if c["name"] == "landlock")
    found = re.search(r"version (\d+)", landlock["found"])
    assert line.endswith(f"landlock={found.group(1)}" if found else 'landlock="off: this kernel has none"')
    ends_well(lab, pager, vmm)


def test_limits_leave_little_room(lab):
    pager, vmm = serving(lab, lab.memory("4M", seed=3))
    limits = (pathlib.Path("/proc") / str(pager.pid) / "limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    files = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.MULTILINE)
    assert files.group(1) == files.group(2) and int(files.group(1)) <= 64
    ends_well(lab, pager, vmm)


def test_others_of_the_same_user_cannot_look_into_it(lab):
    whole()
    pager, vmm = serving(lab, lab.memory("4M", seed=3))
    as_it_is = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    for path in ("maps", "mem", "fd/3"):
        done = subprocess.run([*as_it_is, "cat", f"/proc/{pager.pid}/{path}"], check=False, capture_output=True,
                              text=True, timeout=10)
        assert done.returncode != 0 and "Permission denied" in done.stderr, f"{path} was read"
    ends_well(lab, pager, vmm)


# ---- what it must do in spite of it ----


def test_statistics_replace_the_old_ones_and_nothing_is_left_behind(lab):
    folder = lab.dir / "statistics"
    folder.mkdir()
    memory = lab.memory("4M", seed=3)
    socket = lab.socket()
    pager = lab.start_pager("--socket", socket, "--memory", memory.path, "--state", lab.state_dir,
                            "--stats", folder / "file", socket=socket, stats=False)
    pager.wait_listening()
    vmm = lab.start_vmm(pager, memory, "seq:end=10", "pause", "verify")
    vmm.wait_line("paused")
    for _ in range(3):
        (folder / "file").unlink(missing_ok=True)
        pager.signal(signal.SIGUSR1)
        wait_until((folder / "file").exists, "statistics")
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert json.loads((folder / "file").read_text())["end"] == "vmm-gone"
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert not list(lab.state_dir.iterdir())


@pytest.mark.parametrize("around", ["0", "64K", "2M"])
def test_a_file_that_belongs_to_somebody_else_is_still_fetched_by_workers(lab, around):
    needs_root()
    memory = lab.own_memory("8M", seed=5, dense=True, where="disk")
    os.chown(memory.path, NOBODY, NOBODY)
    fetches = 0
    for _ in range(5):  # asked for what is not cached, the kernel begins to read it: under load it may have it by the time it answers
        thawtest.drop_cache(memory.path)
        pager = lab.serve(memory, "--fault-around", around)
        result = lab.run_vmm(pager, memory, "shuffle:threads=8")
        pager.expect_exit(0)
        stats = pager.stats()
        check_stats(stats, result)
        fetches += stats["counters"]["fetches"]
        if fetches > 0:
            break
    assert fetches > 0, "the kernel tells such a process that all is cached"


def test_a_folder_for_statistics_that_bare_root_may_not_write_to_is_refused_at_once(lab):
    needs_root()
    folder = lab.dir / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, NOBODY, NOBODY)
    socket = lab.socket()
    pager = lab.start_pager("--socket", socket, "--memory", lab.memory("4M", seed=3).path, "--state", lab.state_dir,
                            "--stats", folder / "file", stats=False)
    pager.expect_error(folder, "user 0", "without capabilities", "may not write")
    assert not socket.exists()


def test_a_folder_for_statistics_that_is_missing_is_refused_at_once(lab):
    pager = lab.start_pager("--socket", lab.socket(), "--memory", lab.memory("4M", seed=3).path,
                            "--state", lab.state_dir, "--stats", lab.dir / "none" / "file", stats=False)
    pager.expect_error(lab.dir / "none")


# ---- users ----


def peer_pager(lab, *args, uid=0, prefix=()):
    """A pager and a VMM of user `uid`, which is served. Return: both."""
    needs_root()
    thaw = thawtest.program("THAW")
    if subprocess.run(["setpriv", "--reuid", str(NOBODY), "--clear-groups", "test", "-x", thaw], check=False,
                      timeout=10, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip(f"user {NOBODY} cannot reach {thaw}")
    lab.dir.chmod(0o777)
    memory = lab.dir / "memory"
    memory.write_bytes(b"".join(bytes([page + 1]) * 4096 for page in range(PAGES)))
    socket, stats = lab.socket(), lab.dir / "statistics"
    argv = [*prefix, thaw, "serve", "--socket", socket, "--memory", memory, "--allow-uid", str(uid), *args]
    if "--stats" not in args:
        argv += ["--stats", stats]
    pager = thawtest.Pager(lab, "thaw", argv, socket, stats)
    lab.processes.append(pager)
    pager.wait_listening()
    socket.chmod(0o777)
    peer = thawtest.Peer(lab, PAGES)
    if uid != 0:
        assert peer.tell(f"setuid {uid}") == 0
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    assert peer.word(3) == int.from_bytes(bytes([4]) * 8, "little")
    return pager, peer


def assert_stops(pager, peer):
    """The pager can do the one thing that it must: kill the VMM."""
    pager.signal(signal.SIGTERM)
    assert peer.wait() == -signal.SIGKILL
    pager.expect_exit(0)
    assert pager.stats()["end"] == "stopped"


def test_the_right_to_kill_is_kept_where_the_vmm_is_somebody_else(lab):
    state = lab.dir / "state"
    pager, peer = peer_pager(lab, "--state", state, uid=NOBODY)
    status = status_of(pager.pid)
    assert caps_of(status) == {"CapInh": 0, "CapPrm": CAP_KILL, "CapEff": CAP_KILL, "CapBnd": 0, "CapAmb": 0}
    assert "capabilities=kill" in pager.err
    assert_stops(pager, peer)


def test_it_becomes_another_user_and_the_vmm_of_that_user_can_still_be_killed(lab):
    state = lab.dir / "state"
    pager, peer = peer_pager(lab, "--user", str(NOBODY), "--state", state, uid=NOBODY)
    status = status_of(pager.pid)
    assert status["Uid"].split() == [str(NOBODY)] * 4
    assert status["Gid"].split() == [str(NOBODY)] * 4
    assert status["Groups"].strip() == ""
    assert set(caps_of(status).values()) == {0}
    assert state.stat().st_uid == NOBODY and stat.S_IMODE(state.stat().st_mode) == 0o700
    assert (state / f"{pager.pid}.state").stat().st_uid == NOBODY
    assert_stops(pager, peer)
    assert not list(state.iterdir())
    assert pager.stats_file.stat().st_uid == NOBODY


@pytest.mark.parametrize("args", [
    ["--confine", "perhaps"], ["--confine"], ["--user", "0"], ["--user", "nobody"], ["--user", "1:"], ["--user", "1:0"],
    ["--user", "1:2:3"], ["--user", "-1"], ["--user", "99999999999999999999"],
], ids=" ".join)
def test_what_cannot_be_meant_is_a_usage_error(args):
    done = subprocess.run([thawtest.program("THAW"), "serve", "--socket", "s", "--memory", "m", *args], check=False,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
    assert done.returncode == 2 and done.stderr.startswith("thaw serve: "), done.stderr


@pytest.mark.parametrize("confine", ["on", "off"])
def test_as_another_user_it_keeps_the_right_to_kill_a_vmm_of_root(lab, confine):
    pager, peer = peer_pager(lab, "--user", f"{NOBODY}:4711", "--state", lab.dir / "state", "--confine", confine)
    status = status_of(pager.pid)
    assert status["Uid"].split() == [str(NOBODY)] * 4
    assert status["Gid"].split() == ["4711"] * 4
    assert caps_of(status)["CapPrm"] == caps_of(status)["CapEff"] == CAP_KILL
    assert_stops(pager, peer)


def test_as_another_user_its_state_directory_has_that_users_number(lab):
    directory = pathlib.Path(f"/tmp/thaw-{NOBODY}")
    if directory.exists():
        pytest.skip(f"{directory} is there already")
    try:
        pager, peer = peer_pager(lab, "--user", str(NOBODY), uid=NOBODY)
        assert (directory / f"{pager.pid}.state").exists()
        assert_stops(pager, peer)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_a_state_directory_that_the_other_user_may_not_write_to_is_refused_at_once(lab):
    needs_root()
    lab.state_dir.mkdir(mode=0o755)
    lab.dir.chmod(0o755)
    socket = lab.socket()
    pager = lab.start_pager("--socket", socket, "--memory", lab.memory("4M", seed=3).path,
                            "--state", lab.state_dir, "--user", str(NOBODY), stats=False)
    pager.expect_error(lab.state_dir, f"user {NOBODY}", "may not write", "state directory")
    assert not socket.exists()


def test_a_pager_of_an_ordinary_user_is_confined_in_the_same_way(lab):
    state = lab.dir / "state"
    pager, peer = peer_pager(lab, "--state", state, uid=NOBODY,
                             prefix=["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"])
    status = status_of(pager.pid)
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == ("0" if sanitized() else "2")
    assert {caps_of(status)[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    for page in range(PAGES):
        assert peer.word(page) == int.from_bytes(bytes([page + 1]) * 8, "little")
    pager.signal(signal.SIGUSR1)
    wait_until(pager.stats_file.exists, "statistics")
    drawn = subprocess.run(["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
                            thawtest.program("THAW"), "map", "--state", state], check=False, capture_output=True,
                           text=True, timeout=30)
    assert drawn.returncode == 0 and f"pager {pager.pid}" in drawn.stdout and "STALE" not in drawn.stdout, drawn
    assert_stops(pager, peer)
    assert not list(state.iterdir())


def test_an_ordinary_user_cannot_become_another_one(lab):
    needs_root()
    lab.dir.chmod(0o777)
    memory = lab.dir / "memory"
    memory.write_bytes(bytes(4096))
    done = subprocess.run(["setpriv", "--reuid", str(NOBODY), "--clear-groups", thawtest.program("THAW"), "serve",
                           "--socket", lab.socket(), "--memory", memory, "--state", lab.dir / "state",
                           "--user", "4711"], check=False, capture_output=True, text=True, timeout=10)
    if "failed to execute" in done.stderr:
        pytest.skip(f"user {NOBODY} cannot reach {thawtest.program('THAW')}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "4711" in done.stderr


# ---- followed by another pager ----


def serving_pid(state):
    """The process that serves, by the state file."""
    path = next(state.glob("*.state"))
    return int.from_bytes(path.read_bytes()[PAGER_PID_AT:PAGER_PID_AT + 4], "little")


def test_a_supervisor_and_each_of_its_pagers_are_confined(lab):
    pager, vmm = serving(lab, lab.memory("4M", seed=3), "--supervise")
    child = 0
    for _ in range(2):
        child = wait_until(lambda last=child: serving_pid(lab.state_dir) not in (0, last)
                           and serving_pid(lab.state_dir), "another pager to serve")
        # it says so before its system calls are filtered
        wait_until(lambda pid=child: sanitized() or status_of(pid)["Seccomp"] == "2", "its filter")
        for pid, seccomp in ((pager.pid, "0"), (child, "0" if sanitized() else "2")):
            status = status_of(pid)
            assert status["NoNewPrivs"] == "1" and status["Seccomp"] == seccomp
            assert set(caps_of(status).values()) == {0}
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: serving_pid(lab.state_dir) != child, "another pager to serve")
    ends_well(lab, pager, vmm)
    assert not list(lab.state_dir.iterdir())


def test_as_another_user_a_killed_pager_is_followed_by_another(lab):
    state = lab.dir / "state"
    pager, peer = peer_pager(lab, "--user", str(NOBODY), "--supervise", "--state", state, uid=NOBODY)
    child = serving_pid(state)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: serving_pid(state) != child, "another pager to serve")
    assert status_of(serving_pid(state))["Uid"].split() == [str(NOBODY)] * 4
    assert peer.word(5) == int.from_bytes(bytes([6]) * 8, "little")
    assert_stops(pager, peer)
    assert not list(state.iterdir())


def test_a_pager_that_takes_over_by_a_file_is_confined_and_removes_that_file(lab):
    first, vmm = serving(lab, lab.memory("4M", seed=3))
    first.signal(signal.SIGKILL)
    first.wait()
    path = next(lab.state_dir.glob("*.state"))
    second = lab.start_pager("--adopt", path)
    second.wait_line('msg="serving"')
    wait_until(lambda: sanitized() or status_of(second.pid)["Seccomp"] == "2", "its filter")
    assert status_of(second.pid)["NoNewPrivs"] == "1"
    assert set(caps_of(status_of(second.pid)).values()) == {0}
    let_go(vmm)
    lab.finish_vmm(vmm)
    second.expect_exit(0)
    assert not path.exists()


# ---- a hostile VMM ----


def test_a_vmm_that_makes_reading_block_cannot_keep_its_pager(lab):
    memory = lab.dir / "memory"
    memory.write_bytes(bytes(4096) * PAGES)
    for page in range(2, 12):  # the moment must be met between two reads
        pager = lab.serve(memory, "--fault-around", "0")
        peer = thawtest.Peer(lab, PAGES)
        peer.connect(pager)
        assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
        assert peer.word(1) == 0
        peer.tell(f"block {page}")
        wait_until(lambda one=peer: "blocking" in one.out or not one.running(), "O_NONBLOCK to be taken off")
        peer.end()
        assert pager.wait(5) in (0, 1), pager.err


# ---- the lists beside the code ----


def traced(path):
    """The system calls in strace's output, before and after the filter was loaded."""
    names = {"syscall_0x1c3": "cachestat"}  # Debian 12's strace does not know it
    before, after = set(), set()
    calls = before
    for line in path.read_text(errors="replace").splitlines():
        found = re.match(r"\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", line)
        if found:
            calls.add(names.get(found.group(1), found.group(1)))
        if "seccomp(SECCOMP_SET_MODE_FILTER" in line:
            calls = after
    return before, after - {"seccomp"}  # which may end in a line of its own


def listed(phase):
    """What tools/syscalls.py makes of the lists."""
    done = subprocess.run(["/usr/bin/python3", thawtest.ROOT / "tools/syscalls.py", "list", phase], check=True,
                          capture_output=True, text=True, timeout=30)
    return set(done.stdout.split())


LIVES = {
    "tmpfs": ("tmpfs", ["--track", "none"], ["balloon:threads=6,n=200", "verify"], []),
    "cold": ("disk", ["--fault-around", "0"], ["shuffle:threads=8", "verify"], []),
    "tracked": ("tmpfs", ["--track", "wp"], ["stamp", "verify"], []),
    "2M": ("tmpfs", [], ["random:threads=4,n=4", "verify"], ["--page-size", "2M"]),
}


@pytest.mark.parametrize("life", LIVES)
def test_every_call_of_a_life_is_in_a_list(lab, life, request):
    whole()
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    where, args, steps, vmm_args = LIVES[life]
    if life == "2M":
        request.getfixturevalue("huge")
    memory = lab.own_memory("16M", seed=5, where=where)
    if where == "disk":
        thawtest.drop_cache(memory.path)
    socket, trace = lab.socket(), lab.dir / "trace"
    stats = lab.dir / "statistics"
    pager = thawtest.Pager(lab, "thaw", ["strace", "-f", "-qq", "-o", trace, thawtest.program("THAW"), "serve",
                                         "--socket", socket, "--memory", memory.path, "--state", lab.state_dir,
                                         "--stats", stats, *args], socket, stats)
    lab.processes.append(pager)
    pager.wait_listening()
    vmm = lab.start_vmm(pager, memory, *vmm_args, "seq:end=2", "pause", *steps)
    vmm.wait_line("paused")
    let_go(vmm)
    result = lab.finish_vmm(vmm)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)
    before, after = traced(trace)
    assert "accept4" in before and "ioctl" in after
    assert after <= listed("serve"), f"not in a '#syscalls': {sorted(after - listed('serve'))}"
    loader = {"execve", "access", "arch_prctl", "set_tid_address", "fstat", "exit_group", "getppid"}
    missing = before - listed("serve") - listed("start") - loader
    assert not missing, f"not in a '#syscalls:start': {sorted(missing)}"
