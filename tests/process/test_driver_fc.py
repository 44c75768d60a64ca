# SPDX-License-Identifier: Apache-2.0
"""
Firecracker through src/vmm/driver.h, one operation a process (tests/lib/vmm_ctl.c): boot, freeze, thaw through `thaw serve`,
balloon, hinting, console, ends of all kinds; alone and in a jail.

The Firecracker is the stand-in, which is strict. test_a_life also runs with a real one: FIRECRACKER (or `firecracker` on
PATH), FIRECRACKER_KERNEL and FIRECRACKER_INITRD name it and a guest whose init prints `guest-is-ready` and starts a shell.
"""

import json
import os
import pathlib
import re
import shutil

import pytest

import ctllib
import fclib
import thawtest

USER = 23456  # in jails


class Ctl(ctllib.Ctl):
    """One VM of a Firecracker, with the files that the stand-in looks for."""

    def __init__(self, lab, program, *options, folder=None, **environment):
        super().__init__(lab, "--program", program, *options, folder=folder, **environment)

    def put(self, name, content="x"):
        """A file of the VM."""
        path = self.root / name
        path.write_text(content)
        os.chmod(path, 0o666)

    def boot(self):
        """A guest at its prompt."""
        self.put("kernel")
        self.put("rootfs")
        self.ok("start")
        self.ok("boot")
        self.console.wait_text("guest-is-ready")


@pytest.fixture
def vms(lab):
    """Makes VMs; what runs of them afterwards is killed."""
    made = []
    program = fclib.install(lab.dir)
    os.chmod(lab.dir, 0o755)

    def make(*options, **environment):
        made.append(Ctl(lab, program, "--rootfs", *options, **environment))
        return made[-1]

    yield make
    for vm in made:
        vm.end()


def frozen(vm, *options):
    """Freeze a VM with its memory and end it. Return: (its memory, elsewhere; another VM's folder like it)."""
    vm.ok("pause")
    vm.ok("snapshot-memory")
    memory = vm.lab.dir / f"memory-of-{vm.folder.name}"
    shutil.copyfile(vm.root / "memory", memory)
    (vm.root / "memory").unlink()
    vm.ok("kill", options=options)
    return memory


def thawed(vms, old, memory, *options, **environment):
    """Another VM from that snapshot, through a pager. Return: (vm, pager)."""
    vm = vms(*options, **environment)
    if "--jail-id" in options:
        vm.root = pathlib.Path(vm.ok("root"))
    vm.put("rootfs")
    shutil.copyfile(old.root / "vmstate", vm.root / "vmstate")
    os.chmod(vm.root / "vmstate", 0o644)
    vm.ok("start-load")
    pager = vm.lab.start_pager("--socket", vm.root / "uffd.sock", "--state", vm.lab.state_dir, "--memory", memory,
                               *(["--allow-uid", USER] if "--jail-id" in options else []), socket=vm.root / "uffd.sock")
    pager.wait_listening()
    return vm, pager


# ---- a life


def real_vm(vms):
    """A VM of a real Firecracker; skips where there is none."""
    program, kernel, initrd = fclib.real_firecracker(), os.environ.get("FIRECRACKER_KERNEL"), os.environ.get(
        "FIRECRACKER_INITRD")
    if not (program and kernel and initrd and os.access("/dev/kvm", os.R_OK | os.W_OK)):
        pytest.skip("no Firecracker here: FIRECRACKER, FIRECRACKER_KERNEL, FIRECRACKER_INITRD and /dev/kvm make one")
    vm = vms("--initrd", "--memory", "256")
    vm.options[1:4] = [program]
    shutil.copyfile(kernel, vm.folder / "kernel")
    shutil.copyfile(initrd, vm.folder / "initrd")
    return vm


@pytest.mark.parametrize("kind", ["stand-in", "real"])
def test_a_life(vms, kind):
    vm = vms() if kind == "stand-in" else real_vm(vms)
    if kind == "stand-in":
        vm.put("kernel")
        vm.put("rootfs")
    assert vm.run("state")[0] == 1  # nothing was started
    vm.ok("start")
    assert vm.ok("state") == "not-started"
    vm.ok("boot")
    vm.console.wait_text("guest-is-ready")
    assert vm.ok("state") == "running"
    vm.console.run("echo kept >/tmp/file")
    vm.ok("pause")
    assert vm.ok("state") == "paused"
    vm.ok("resume")
    assert vm.console.run("cat /tmp/file") == "kept\n"
    memory = frozen(vm)
    assert vm.ok("end").startswith("killed by signal 9 (KILL)")
    options = ["--initrd", "--memory", "256"] if kind == "real" else []
    other, pager = thawed(vms, vm, memory, *options)
    other.options = list(vm.options)
    other.ok("load")
    assert other.ok("state") == "paused"
    other.ok("resume")
    assert other.console.run("cat /tmp/file") == "kept\n"
    other.ok("kill")
    assert "has ended" in other.fails("state")
    pager.expect_exit(0)


def test_every_byte_is_there_after_generations(vms):
    vm, pager = vms("--reporting"), None
    vm.boot()
    vm.console.run("fill 300")
    for _ in range(3):
        vm.console.run("fill 20; free 10; check all")
        memory = frozen(vm)
        if pager:
            pager.expect_exit(0)
        vm, pager = thawed(vms, vm, memory, "--reporting")
        vm.ok("load-resume")
        vm.console.run("check all")
    assert json.loads(vm.ok("balloon")) == {"target_mib": 0, "actual_mib": -1, "reporting": True, "hinting": False}


def test_a_vm_is_driven_by_whoever_comes(vms):
    vm = vms()
    vm.boot()
    assert "runs in" in vm.fails("start")  # by another process, which knows nothing of this one
    pid = vm.pid()
    assert os.readlink(f"/proc/{pid}/cwd") == str(vm.folder)
    argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert argv[argv.index(b"--api-sock") + 1] == b"api.sock"
    vm.ok("kill")
    assert "error ESRCH" in vm.fails("kill")
    vm.ok("start")
    assert vm.ok("state") == "not-started" and "guest-is-ready" not in vm.console.text()


def test_memory_may_come_from_a_file(vms):
    vm = vms()
    vm.boot()
    vm.console.run("fill 30")
    memory = frozen(vm)
    other = vms("--from-file")
    other.put("rootfs")
    shutil.copyfile(vm.folder / "vmstate", other.folder / "vmstate")
    shutil.copyfile(memory, other.folder / "memory")
    other.ok("start-load")
    other.ok("load-resume")
    other.console.run("check all")


def test_huge_pages_are_thawed_as_huge_pages(vms, huge):
    # pylint: disable=unused-argument
    vm = vms("--huge")
    vm.boot()
    vm.console.run("fill 30")
    vm.ok("balloon", "2")
    memory = frozen(vm)
    other, pager = thawed(vms, vm, memory, "--huge")
    other.ok("load-resume")
    other.console.run("check")
    other.ok("kill")
    pager.expect_exit(0)
    assert pager.stats()["page_bytes"] == 2 << 20


# ---- snapshots


def test_what_the_guest_asked_of_its_devices_is_done_when_it_stands(vms):
    vm = vms(FC_STANDIN_FAULT="late-devices")
    vm.boot()
    vm.ok("pause")
    assert "The devices have nothing to do any more" in vm.log()


def test_a_snapshot_without_memory_leaves_no_memory(vms):
    vm = vms()
    vm.boot()
    vm.ok("pause")
    before = set(os.listdir(vm.folder))
    for version in ("1.14.1", "1.12.0"):  # sparse, and whole
        other = vms(FC_STANDIN_VERSION=version)
        other.boot()
        other.ok("pause")
        other.ok("snapshot")
        assert set(os.listdir(other.folder)) == before | {"vmstate"}
        assert ("Diff" in other.log()) == (version == "1.14.1")


def test_a_snapshot_that_fails_leaves_nothing(vms):
    vm = vms(FC_STANDIN_FAULT="")
    vm.boot()
    assert "unavailable while running" in vm.fails("snapshot-memory")
    assert not {"vmstate", "memory", "memory.unwanted"} & set(os.listdir(vm.folder))
    slow = vms(FC_STANDIN_FAULT="slow@/snapshot/create=700")
    slow.boot()
    slow.ok("pause")
    assert "error ETIMEDOUT" in slow.fails("snapshot", options=["--timeout", "200"])
    assert not {"vmstate", "memory", "memory.unwanted"} & set(os.listdir(slow.folder))


def test_other_names_of_a_snapshot_are_not_written_to(vms):
    vm = vms()
    vm.boot()
    vm.ok("pause")
    for name in ("vmstate", "memory"):
        (vm.folder / name).write_text("of a template")
        os.link(vm.folder / name, vm.lab.dir / name)
    vm.ok("snapshot-memory")
    for name in ("vmstate", "memory"):
        assert (vm.lab.dir / name).read_text() == "of a template"


@pytest.mark.parametrize("fault, words", [
    ("die@/snapshot/load=148", ["exited with status 148", "seccomp"]),
    ("die@/snapshot/load=149", ["exited with status 149", "huge page"]),
    ("refuse@/snapshot/load", ["refused by the test", "exited with status 1"]),
    ("bad-body@/snapshot/load", ["something went wrong"]),
    ("hang@/snapshot/load", ["error ETIMEDOUT"]),
])
def test_a_load_that_fails_leaves_no_process(vms, fault, words):
    vm = vms()
    vm.boot()
    memory = frozen(vm)
    other, _ = thawed(vms, vm, memory, FC_STANDIN_FAULT=fault)
    text = other.fails("load", options=["--timeout", "1000"])
    for word in words:
        assert word in text, text
    assert "has ended" in other.fails("state")


def test_a_load_without_a_pager_says_so(vms):
    vm = vms()
    vm.boot()
    frozen(vm)
    vm.put("rootfs")
    vm.ok("start-load")
    text = vm.fails("load")
    assert "Failed to connect to UDS Unix stream: No such file or directory" in text
    assert "exited with status 1" in text


# ---- balloon, hinting, console


def test_balloon_and_hints(vms):
    vm = vms("--hinting", FC_STANDIN_BALLOON_STRIDE="2")
    vm.boot()
    vm.console.run("fill 1000; free 1000")
    vm.ok("hint")
    vm.ok("hint")
    vm.ok("balloon", "4")
    assert json.loads(vm.ok("balloon"))["target_mib"] == 4
    assert "in a guest that has 32" in vm.fails("balloon", "33")
    vm.console.run("check")


@pytest.mark.parametrize("driver", ["deaf", "slow-hint"])
def test_a_guest_may_leave_hints_unanswered(vms, driver):
    vm = vms("--hinting", FC_STANDIN_BALLOON=driver)
    vm.boot()
    vm.console.run("true")
    status, _, err = vm.run("hint", options=["--timeout", "300"])
    assert status == 3, err
    client = fclib.Client(vm.folder / "api.sock")
    assert client.ask("GET", "/balloon/hinting/status").json()["host_cmd"] == 1  # it was stopped


def test_hints_that_take_too_long_are_stopped_by_a_vmm_that_answers_slowly(vms):
    vm = vms("--hinting", FC_STANDIN_BALLOON="deaf", FC_STANDIN_FAULT="slow@/balloon/hinting/status=200")
    vm.boot()
    vm.console.run("true")
    status, _, err = vm.run("hint", options=["--timeout", "300"])  # the second answer would come after that
    assert status == 3, err
    client = fclib.Client(vm.folder / "api.sock")
    assert client.ask("GET", "/balloon/hinting/status").json()["host_cmd"] == 1


def test_without_hinting_nobody_is_asked(vms):
    vm = vms()
    vm.boot()
    assert "error EOPNOTSUPP" in vm.fails("hint")


def test_what_is_typed_comes_whole_and_while_nobody_reads(vms):
    vm = vms()
    vm.boot()
    vm.ok("pause")
    text = "x" * 40000
    vm.ok("type", f"echo {text} >/tmp/long\n")
    assert "error ETIMEDOUT" in vm.fails("type", "y" * 40000, options=["--timeout", "200"])
    vm.ok("resume")
    thawtest.wait_until(lambda: f"{text} >/tmp/long" in vm.console.text(), "the line")


# ---- ends


@pytest.mark.parametrize("command, words", [
    ("vmm-exit 148", "exited with status 148: a system call that its seccomp filter does not allow"),
    ("poweroff", "exited with status 0: the guest has ended"), ("vmm-exit 3", "exited with status 3 (")])
def test_an_end_is_told(vms, command, words):
    vm = vms()
    vm.boot()
    vm.ok("type", command + "\n")
    thawtest.wait_until((vm.folder / "exit").exists, "its end")
    assert vm.ok("end").startswith(words)
    assert "Firecracker exiting" in vm.ok("end")


def test_a_start_that_fails_says_why(vms):
    vm = vms()
    vm.put("rootfs")
    assert "needs the file kernel" in vm.fails("start")
    vm.put("kernel")
    assert "error ENOENT" in vm.fails("start", options=["--program", "/none"])
    vm.environment = {"FC_STANDIN_FAULT": "exit-at-start=152"}
    assert "exited with status 152: a wrong configuration" in vm.fails("start")
    vm.environment = {}
    (vm.folder / "api.sock").write_text("stale")  # is removed
    vm.ok("start")


def test_a_start_waits_for_a_vmm_that_answers_slowly(vms):
    vm = vms(FC_STANDIN_FAULT="slow@/version=300")
    vm.put("kernel")
    vm.put("rootfs")
    vm.ok("start")


def test_a_vmm_that_hangs_is_given_up_and_can_be_killed(vms):
    vm = vms(FC_STANDIN_FAULT="hang@/vm")
    vm.boot()
    assert "error ETIMEDOUT" in vm.fails("pause", options=["--timeout", "300"])
    vm.ok("kill")
    assert vm.ok("end").startswith("killed by signal 9")


@pytest.mark.parametrize("options, version, words", [
    (["--reporting"], "1.13.1", "1.14"), (["--hinting"], "1.13.1", "1.14"), (["--huge"], "1.6.0", "1.7"),
    (["--machine", "q35"], "1.14.1", "machine"), (["--accel", "kvm"], "1.14.1", "accel"), (["--cpu", "host"], "1.14.1", "cpu"),
    (["--vcpus", "33"], "1.14.1", "vcpus"), ([], "1.0.0", "1.1"), ([], "new", "version")])
def test_what_cannot_be_is_said_before_anything_starts(vms, options, version, words):
    assert words in vms(*options).fails("check", version)


def test_a_program_is_asked_what_it_is(vms):
    vm = vms(FC_STANDIN_VERSION="1.16.1")
    assert (vm.ok("version"), vm.ok("format")) == ("1.16.1", "10.0.0")
    vm.ok("check", "1.16.1", options=["--reporting", "--hinting", "--huge"])


# ---- in a jail


@pytest.fixture
def jail(lab):
    """Options of a VM in a jail. Only root can put somebody into one."""
    fclib.needs_jail(lab.dir)
    (lab.dir / "jails").mkdir()

    def options(name):
        return ["--jailer", lab.dir / "jailer", "--jail-id", name, "--jail-base", lab.dir / "jails", "--jail-user", USER,
                "--jail-cgroup", "memory.max=1000"]

    os.environ["FC_STANDIN_CGROUP_ROOT"] = str(lab.dir / "cgroup")
    yield options
    del os.environ["FC_STANDIN_CGROUP_ROOT"]


def jailed(vms, options):
    """A VM in a jail, at its prompt."""
    vm = vms(*options)
    vm.root = pathlib.Path(vm.ok("root"))
    vm.boot()
    return vm


def test_a_life_in_a_jail(lab, vms, jail):
    vm = jailed(vms, jail("one"))
    assert vm.root == lab.dir / "jails/firecracker/one/root"
    status = pathlib.Path(f"/proc/{vm.pid()}/status").read_text()
    assert re.search(rf"^Uid:\s+{USER}\s+{USER}", status, re.MULTILINE)
    assert os.readlink(f"/proc/{vm.pid()}/root") == str(vm.root)
    assert (vm.root / "firecracker.pid").read_text() == str(vm.pid())
    assert (lab.dir / "cgroup/firecracker/one/memory.max").read_text() == "1000"
    assert "InstanceStart" in vm.log()  # it was written inside and is read outside
    vm.console.run("fill 50; echo kept >/tmp/file")
    memory = frozen(vm)
    assert vm.ok("end").startswith("killed by signal 9 (KILL)")
    assert not {"pid", "exit", "console.log", "serial.in"} & set(os.listdir(vm.root))
    other, pager = thawed(vms, vm, memory, *jail("two"))
    other.ok("load-resume")
    assert other.console.run("check; cat /tmp/file").endswith("kept\n")
    other.ok("kill")
    pager.expect_exit(0)


def test_a_jail_can_be_used_again(vms, jail):
    vm = jailed(vms, jail("one"))
    vm.ok("kill")
    vm.ok("start")
    assert vm.ok("state") == "not-started"


def test_a_jail_may_have_been_prepared_by_its_prisoner(lab, vms, jail):
    outside = lab.dir / "outside"
    outside.mkdir()
    for name in ("kvm", "tun", "log"):
        (outside / name).write_text("precious")
    vm = vms(*jail("one"))
    vm.root = pathlib.Path(vm.ok("root"))
    (vm.root / "dev").symlink_to(outside)
    (vm.root / "vmm.log").symlink_to(outside / "log")
    vm.put("kernel")
    vm.put("rootfs")
    vm.ok("start")
    assert {path.read_text() for path in outside.iterdir()} == {"precious"}
    assert (outside / "log").stat().st_uid == 0 and not (vm.root / "dev").is_symlink()


def test_a_prisoner_cannot_have_another_vm_spoken_to(vms, jail):
    other = vms()
    other.boot()
    vm = vms(*jail("one"))
    vm.root = pathlib.Path(vm.ok("root"))
    vm.boot()
    (vm.root / "api.sock").unlink()
    (vm.root / "api.sock").symlink_to(other.root / "api.sock")
    assert "api.sock" in vm.fails("pause")
    assert other.ok("state") == "running"


def test_a_jail_joins_a_network_namespace(vms, jail):
    with fclib.network_namespace() as path:
        vm = jailed(vms, [*jail("one"), "--jail-netns", path])
        there = os.readlink(f"/proc/{vm.pid()}/ns/net")
        assert there == os.readlink(path) and there != os.readlink("/proc/self/ns/net")
        vm.console.run("check")


def test_a_jailer_that_refuses_is_quoted(vms, jail):
    vm = vms(*jail("one"), "--jail-netns", "/none")
    vm.root = pathlib.Path(vm.ok("root"))
    vm.put("kernel")
    vm.put("rootfs")
    text = vm.fails("start")
    assert "exited with status 1" in text and "No such file or directory: '/none'" in text
    assert "its id" in vm.fails("root", options=["--jail-id", "a_b"])
