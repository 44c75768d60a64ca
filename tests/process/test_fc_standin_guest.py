# SPDX-License-Identifier: Apache-2.0
"""
The stand-in for Firecracker keeps its guest's memory as the real one does: what is judged with it is judged rightly.

Guests are frozen, thawed through a real `thaw serve` and asked about every byte; and it is tried that a wrong byte, or a page
that was given back and is not zero, is found.
"""

import hashlib
import os
import pathlib
import re
import signal
import stat
import subprocess

import pytest

import fclib
import thawtest
from fclib import Vmm

PAGE = 4096
GENID = 255 * PAGE
REPORTING = {"free_page_reporting": True}
HINTING = {"free_page_hinting": True}


def sum_of(path):
    """What the guest's `sum` says, of a memory file."""
    data = path.read_bytes()
    return hashlib.sha256(data[:GENID] + data[GENID + PAGE:]).hexdigest()


def thaw(lab, frozen, *args, memory=None, **environment):
    """Load a snapshot in the same folder through a pager. Return: (vmm, pager)."""
    pager = lab.serve(memory or frozen.folder / "memory", *args)
    frozen.end()
    vmm = Vmm(lab, frozen.folder, **environment)
    reply = vmm.load("vmstate", pager.socket)
    assert reply.status == 204, reply.body
    return vmm, pager


def bye(vmm, pager):
    """The VMM ends, and so does its pager."""
    vmm.end()
    pager.expect_exit(0)


def resident_kib(vmm):
    """Memory of its own that the VMM has."""
    text = pathlib.Path(f"/proc/{vmm.pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+)", text, re.MULTILINE).group(1))


# ---- every byte


@pytest.mark.parametrize("version, more", [
    ("1.14.1", {}), ("1.11.0", {}), ("1.12.0", {}), ("1.16.0", {}), ("1.14.1", {"FC_STANDIN_SPLIT_MIB": "20"})])
def test_a_guest_goes_on_with_every_byte(lab, version, more):
    vmm = Vmm(lab, FC_STANDIN_VERSION=version, **more)
    vmm.boot()
    vmm.console.run("fill 500; echo kept >/tmp/file; NAME=value")
    vmm.snapshot()
    vmm, pager = thaw(lab, vmm, FC_STANDIN_VERSION=version, **more)
    assert vmm.console.run("sum").strip() == sum_of(vmm.folder / "memory")
    assert vmm.console.run("check all") == "7168 pages are right\n"
    assert vmm.console.run("cat /tmp/file; echo $NAME") == "kept\nvalue\n"
    assert vmm.console.try_run("cat /none; false || true")[0] == 0
    bye(vmm, pager)
    regions = 2 if more else 1
    assert pager.stats()["regions"] == regions


def test_huge_pages_go_on_with_every_byte(lab, huge):
    # pylint: disable=unused-argument
    vmm = Vmm(lab)
    vmm.boot(balloon=False, huge_pages="2M")
    vmm.console.run("fill 500")
    vmm.snapshot()
    refused = Vmm(lab)
    reply = refused.ask("PUT", "/snapshot/load", {"snapshot_path": str(vmm.folder / "vmstate"),
                                                  "mem_file_path": str(vmm.folder / "memory")})
    assert "Cannot restore hugetlbfs backed snapshot by mapping the memory file" in reply.fault()
    vmm, pager = thaw(lab, vmm)
    assert vmm.console.run("check all") == "7168 pages are right\n"
    bye(vmm, pager)
    assert pager.stats()["page_bytes"] == 2 << 20


def test_a_wrong_byte_is_noticed(lab):
    vmm = Vmm(lab)
    vmm.boot()
    first = int(vmm.console.run("fill 10"))
    vmm.snapshot()
    with open(vmm.folder / "memory", "r+b") as file:
        file.seek((first + 3) * PAGE + 4000)
        file.write(b"?")
    vmm, pager = thaw(lab, vmm)
    status, text = vmm.console.try_run("check")
    assert (status, text.split()[1]) == (1, str(first + 3))
    bye(vmm, pager)


def test_a_guest_that_is_read_from_a_file_is_the_same(lab):
    vmm = Vmm(lab)
    vmm.boot()
    vmm.console.run("fill 100")
    vmm.snapshot()
    vmm.end()
    vmm = Vmm(lab, vmm.folder)
    reply = vmm.ask("PUT", "/snapshot/load", {"snapshot_path": "vmstate", "mem_file_path": "memory", "resume_vm": True})
    assert (reply.status, reply.headers["Deprecation"]) == (204, "true")
    vmm.console.run("check all; free 50; fill 20; check")
    assert vmm.get("/")["state"] == "Running"


# ---- pages that were given back


def test_a_page_that_was_given_back_is_zero(lab):
    vmm = Vmm(lab)
    vmm.boot(balloon=REPORTING)
    vmm.console.run("fill 1000")
    vmm.snapshot()
    vmm, pager = thaw(lab, vmm)
    vmm.console.run("check all; free 600; check all")
    assert vmm.get("/balloon")["free_page_reporting"]
    bye(vmm, pager)
    assert pager.stats()["counters"]["pages_removed"] == 600


def test_a_page_that_was_given_back_and_is_not_zero_is_noticed(lab):
    vmm = Vmm(lab)
    vmm.boot(balloon=REPORTING)
    vmm.console.run("fill 1000")
    vmm.snapshot()
    socket = lab.socket()
    naive = lab.start("naive", [pathlib.Path(thawtest.program("NAIVE_DIR")) / "naive_stale", socket,
                                vmm.folder / "memory"])
    thawtest.wait_until(lambda: thawtest.is_listening(socket) or not naive.running(), "the naive pager")
    vmm.end()
    vmm = Vmm(lab, vmm.folder)
    assert vmm.load("vmstate", socket).status == 204
    assert vmm.console.try_run("check all; free 600; check all")[0] == 1


def test_nobody_hears_of_a_page_that_is_given_back_before_1_11(lab):
    vmm = Vmm(lab, FC_STANDIN_VERSION="1.10.1")
    vmm.boot()
    vmm.snapshot()
    vmm, pager = thaw(lab, vmm, FC_STANDIN_VERSION="1.10.1")
    vmm.console.run("check")
    vmm.patch("/balloon", {"amount_mib": 4})
    thawtest.wait_until(lambda: vmm.get("/balloon")["amount_mib"] == 4, "the balloon")
    vmm.console.run("true")
    bye(vmm, pager)
    assert pager.stats()["counters"]["removes"] == 0


@pytest.mark.parametrize("stride", ["1", "2"])
def test_a_balloon_takes_and_gives(lab, stride):
    vmm = Vmm(lab, FC_STANDIN_BALLOON_STRIDE=stride)
    vmm.boot(balloon={"stats_polling_interval_s": 1})
    vmm.snapshot()
    vmm, pager = thaw(lab, vmm, FC_STANDIN_BALLOON_STRIDE=stride)
    vmm.console.run("fill 5120; free 5120")
    before = resident_kib(vmm)
    vmm.patch("/balloon", {"amount_mib": 8})
    thawtest.wait_until(lambda: vmm.get("/balloon/statistics")["actual_mib"] == 8, "the balloon")
    assert before - resident_kib(vmm) > 7 * 1024
    vmm.console.run("check all")
    vmm.patch("/balloon", {"amount_mib": 2})
    thawtest.wait_until(lambda: vmm.get("/balloon/statistics")["actual_mib"] == 2, "the balloon")
    vmm.console.run("check all; fill 4608; check all")
    assert vmm.console.try_run("fill 600; check")[0] == 0  # the balloon gives way
    assert vmm.console.try_run("fill 600")[0] == 1
    bye(vmm, pager)


def test_hinting_goes_through_its_states(lab):
    vmm = Vmm(lab)
    vmm.boot(balloon=HINTING)
    vmm.console.run("fill 3000; free 2000")
    thawtest.wait_until(lambda: vmm.get("/balloon/hinting/status") == {"host_cmd": 1, "guest_cmd": None}, "the driver")
    before = resident_kib(vmm)
    vmm.patch("/balloon/hinting/start")
    thawtest.wait_until(lambda: vmm.get("/balloon/hinting/status") == {"host_cmd": 1, "guest_cmd": 0}, "hints")
    assert before - resident_kib(vmm) > 7 * 1024
    vmm.patch("/balloon/hinting/start", {"acknowledge_on_stop": False, "unknown": 1})
    thawtest.wait_until(lambda: vmm.get("/balloon/hinting/status") == {"host_cmd": 3, "guest_cmd": 0}, "hints")
    vmm.patch("/balloon/hinting/stop")
    assert vmm.get("/balloon/hinting/status")["host_cmd"] == 1
    vmm.console.run("check")


def test_a_guest_need_not_know_hinting_nor_have_a_driver(lab):
    deaf = Vmm(lab, FC_STANDIN_BALLOON="deaf")
    deaf.boot(balloon=HINTING)
    deaf.console.run("true")
    deaf.patch("/balloon/hinting/start")
    deaf.console.run("true")
    assert deaf.get("/balloon/hinting/status") == {"host_cmd": 2, "guest_cmd": None}
    none = Vmm(lab, FC_STANDIN_BALLOON="none")
    none.boot()
    none.console.run("true")
    assert "not activated" in none.refused("PATCH", "/balloon", {"amount_mib": 1})
    plain = Vmm(lab)
    plain.boot()
    plain.console.run("true")
    assert "hinting when not enabled" in plain.refused("PATCH", "/balloon/hinting/start")
    assert "stats are disabled" in plain.refused("GET", "/balloon/statistics")


def test_hot_plugged_memory_comes_and_goes(lab):
    vmm = Vmm(lab)
    vmm.configure()
    vmm.put("/hotplug/memory", {"total_size_mib": 256})
    vmm.put("/actions", {"action_type": "InstanceStart"})
    vmm.console.wait_text("guest-is-ready")
    plug(vmm, 4)
    vmm.console.run("fill 6000; check all")
    memory, _ = vmm.snapshot()
    assert memory.stat().st_size == (32 + 256) << 20
    assert 0 <= memory.stat().st_blocks * 512 - ((32 + 128) << 20) < 1 << 20  # one slot of two, which is written whole
    vmm, pager = thaw(lab, vmm)
    assert vmm.get("/hotplug/memory") == {"total_size_mib": 256, "block_size_mib": 2, "slot_size_mib": 128,
                                          "plugged_size_mib": 4, "requested_size_mib": 4}
    vmm.console.run("check; free 6000")
    plug(vmm, 0)
    vmm.console.run("check")
    bye(vmm, pager)
    assert pager.stats()["counters"]["removes"] > 0


def plug(vmm, mib):
    """Wait until the guest has so much more memory."""
    vmm.patch("/hotplug/memory", {"requested_size_mib": mib})
    thawtest.wait_until(lambda: vmm.get("/hotplug/memory")["plugged_size_mib"] == mib, f"{mib} MiB")


# ---- snapshot files


def test_a_full_memory_file_has_no_holes_and_a_diff_is_sparse(lab):
    vmm = Vmm(lab)
    vmm.boot(balloon=REPORTING)
    full, state = vmm.snapshot()
    assert full.stat().st_size == 32 << 20 and full.stat().st_blocks * 512 >= 32 << 20
    version = fclib.output_of(vmm.folder / "firecracker", "--describe-snapshot", state)
    assert version == "v8.0.0\n"
    vmm, pager = thaw(lab, vmm)
    vmm.console.run("fill 10")
    diff, _ = vmm.snapshot("diff", "vmstate2", "Diff")
    assert diff.stat().st_size == 32 << 20
    assert 10 * PAGE <= diff.stat().st_blocks * 512 < 2 << 20
    bye(vmm, pager)


def test_a_diff_has_a_hole_where_a_page_was_given_back(lab):
    vmm = Vmm(lab)
    vmm.boot(balloon=REPORTING)
    first = int(vmm.console.run("fill 10"))
    base, _ = vmm.snapshot()
    vmm.patch("/vm", {"state": "Resumed"})
    vmm.console.run("free 10")
    diff, _ = vmm.snapshot("diff", "vmstate2", "Diff")
    fd = os.open(diff, os.O_RDONLY)
    assert os.lseek(fd, first * PAGE, os.SEEK_DATA) >= (first + 10) * PAGE
    os.close(fd)
    assert base.read_bytes()[first * PAGE:(first + 1) * PAGE].strip(b"\0")  # what is laid under it has something there


# ---- who waits for whom


def test_pages_are_wanted_before_the_answer_and_nothing_is_answered_meanwhile(lab):
    vmm = Vmm(lab)
    vmm.boot()
    vmm.snapshot()
    vmm.end()
    pager = lab.serve(vmm.folder / "memory")
    vmm = Vmm(lab, vmm.folder)
    other = vmm.client()
    other.sock.settimeout(0.2)
    loader = vmm.client()
    pager.signal(signal.SIGSTOP)
    loader.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        loader.ask("PUT", "/snapshot/load", fclib.load_body("vmstate", pager.socket))
    with pytest.raises(TimeoutError):
        other.ask("GET", "/version")
    pager.signal(signal.SIGCONT)
    for one in (loader, other):
        one.sock.settimeout(thawtest.DEADLINE)
        assert one.receive().status in (200, 204)
    vmm.console.run("check")
    bye(vmm, pager)


def test_a_guest_that_waits_for_a_page_cannot_be_paused_but_requests_are_answered(lab):
    vmm = Vmm(lab)
    vmm.boot()
    vmm.snapshot()
    vmm, pager = thaw(lab, vmm, FC_STANDIN_PAUSE_SECONDS="0.2")
    vmm.console.run("true")
    pager.signal(signal.SIGSTOP)
    vmm.console.type("check\n")

    def is_stuck():
        """It comes to a missing page sooner or later; until then it can be paused."""
        reply = vmm.ask("PATCH", "/vm", {"state": "Paused"})
        if reply.status == 204:
            vmm.patch("/vm", {"state": "Resumed"})
        return reply.status == 400 and "did not answer" in reply.fault()

    thawtest.wait_until(is_stuck, "the guest to wait for a page")
    assert vmm.get("/")["state"] == "Running"
    pager.signal(signal.SIGCONT)
    vmm.pause()  # it stands now, though the first attempt was given up
    vmm.patch("/vm", {"state": "Resumed"})
    vmm.console.wait_text("pages are right")
    bye(vmm, pager)


# ---- what goes wrong on demand


@pytest.mark.parametrize("fault, status", [("die@/snapshot/load=148", 148), ("refuse@/snapshot/load", 1)])
def test_a_load_fails_on_demand(lab, fault, status):
    vmm = Vmm(lab, FC_STANDIN_FAULT=fault)
    try:
        assert vmm.load("a", "b").status == 400
    except (EOFError, ConnectionError):
        pass
    vmm.expect_exit(status)


def test_other_things_go_wrong_on_demand(lab):
    assert Vmm(lab, wait=False, FC_STANDIN_FAULT="exit-at-start=7").wait() == 7
    vmm = Vmm(lab, FC_STANDIN_FAULT="hang@/vm/config,bad-body@/mmds,slow@/version=300")
    reply = vmm.ask("PUT", "/mmds", {})
    assert (reply.status, reply.body[-1]) == (400, ">")
    client = vmm.client()
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.ask("GET", "/version")
    vmm.get("/machine-config")
    client = vmm.client()
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.ask("GET", "/vm/config")


def test_a_guest_ends_its_vmm(lab):
    vmm = Vmm(lab)
    vmm.boot()
    vmm.console.type("vmm-exit 148\n")
    vmm.expect_exit(148)
    vmm = Vmm(lab)
    vmm.boot()
    vmm.put("/actions", {"action_type": "SendCtrlAltDel"})
    vmm.expect_exit(0)


# ---- the jail


@pytest.fixture
def root_only():
    """Only root can put somebody into a jail."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    probe = pathlib.Path("/tmp") / f"thaw-test-node-{os.getpid()}"
    try:
        os.mknod(probe, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make a device")
    probe.unlink()


def jailed(lab, base, *args, **environment):
    """Start the jailer."""
    program = fclib.install(lab.dir)
    return lab.start("jailer", ["env", *(f"{k}={v}" for k, v in environment.items()), lab.dir / "jailer",
                                "--exec-file", program, "--chroot-base-dir", base, *args])


def test_a_jail_holds_its_vmm(lab, root_only):
    # pylint: disable=unused-argument
    base = lab.dir / "jails"
    base.mkdir()
    os.chmod(lab.dir, 0o755)
    groups = lab.dir / "cgroup"
    vmm = jailed(lab, base, "--id", "vm-1", "--uid", "12345", "--gid", "12346", "--cgroup-version", "2", "--cgroup",
                 "memory.max=1000", "--", "--api-sock", "api.sock", FC_STANDIN_CGROUP_ROOT=groups)
    root = base / "firecracker" / "vm-1" / "root"
    client = []

    def connected():
        try:
            client.append(fclib.Client(root / "api.sock"))
            return True
        except OSError:
            return not vmm.running()

    thawtest.wait_until(connected, "the socket in the jail")
    assert client, vmm.err
    assert client[0].ask("GET", "/").json()["id"] == "vm-1"
    assert (root / "firecracker.pid").read_text() == str(vmm.pid)
    assert os.readlink(f"/proc/{vmm.pid}/root") == str(root)
    text = pathlib.Path(f"/proc/{vmm.pid}/status").read_text()
    assert re.search(r"^Uid:\s+12345\s+12345", text, re.MULTILINE) and re.search(r"^Gid:\s+12346", text, re.MULTILINE)
    assert (groups / "firecracker/vm-1/memory.max").read_text() == "1000"
    assert (groups / "firecracker/vm-1/cgroup.procs").read_text() == str(vmm.pid)
    assert stat.S_ISCHR((root / "dev/kvm").stat().st_mode) and (root / "firecracker").exists()
    outside = client[0].ask("PUT", "/boot-source", {"kernel_image_path": "/usr/bin/env"})
    assert "No such file" in outside.fault()
    again = jailed(lab, base, "--id", "vm-1", "--uid", "1", "--gid", "1")
    again.expect_exit(1)
    assert "File exists" in again.err


@pytest.mark.parametrize("args, words", [
    (["--uid", "1", "--gid", "1"], "'id' required"), (["--id", "a", "--uid", "1"], "'gid' required"),
    (["--id", "a_b", "--uid", "1", "--gid", "1"], "Invalid instance ID"),
    (["--id", "a" * 65, "--uid", "1", "--gid", "1"], "Invalid instance ID"),
    (["--id", "a", "--uid", "x", "--gid", "1"], "Invalid uid"),
    (["--id", "a", "--uid", "1", "--gid", "1", "--nope"], "wasn't expected"),
    (["--id", "a", "--uid", "1", "--gid", "1", "--netns", "/none"], "No such file"),
    (["--id", "a", "--uid", "1", "--gid", "1", "--cgroup", "memory.max"], "Invalid format for cgroups"),
    (["--id", "a", "--uid", "1", "--gid", "1", "--cgroup", "../a=1"], "Invalid cgroup file"),
    (["--id", "a", "--uid", "1", "--gid", "1", "--resource-limit", "cpu=1"], "Invalid resource argument"),
])
def test_a_jailer_looks_at_its_arguments(lab, args, words):
    base = lab.dir / "jails"
    base.mkdir()
    done = subprocess.run([fclib.install(lab.dir).with_name("jailer"), "--exec-file", lab.dir / "firecracker",
                           "--chroot-base-dir", base, *args], capture_output=True, text=True, check=False,
                          timeout=thawtest.DEADLINE)
    assert done.returncode == 1 and words in done.stderr, done.stderr
