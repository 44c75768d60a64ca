# SPDX-License-Identifier: Apache-2.0
"""
QEMU through src/vmm/driver.h, one operation a process (tests/lib/vmm_ctl.c): a Linux guest is booted, saved, loaded through
`thaw serve`, saved again without its memory, and loaded from an image of that.
"""

import hashlib
import shutil

import pytest

import ctllib
import guest
import guest_image
import thawtest
from recordlib import thaw

MIB = 1 << 20
GUEST_MIB = 256
BIG_MIB = 64  # what the guest frees
STATE_MAX = 2 * MIB  # of a state without RAM in it
MACHINE = ["--driver", "qemu", "--accel", "tcg", "--memory", GUEST_MIB]


class Vm(ctllib.Ctl):
    """A VM whose memory comes from a pager."""

    pager = None

    def serve(self, *source):
        """A pager where QEMU looks for it. It hears of every discard: it lets go of nothing."""
        socket = self.folder / "uffd.sock"
        self.pager = self.lab.start_pager("--socket", socket, "--state", self.lab.state_dir, "--let-go", "off", *source,
                                          socket=socket)
        self.pager.wait_listening()

    def load(self, state, *source, resume=True):
        """Loaded from a snapshot, through a pager."""
        shutil.copyfile(state, self.folder / "vmstate")
        self.serve(*source)
        self.ok("start-load")
        self.ok("load-resume" if resume else "load")

    def killed(self):
        """Its end, and its pager's."""
        self.ok("kill")
        assert self.ok("end") == "killed by signal 9 (KILL)"
        self.pager.expect_exit(0)
        thawtest.check_stats(self.pager.stats())


def make_vm(lab, programs, *options):
    """One that has not been started."""
    return Vm(lab, *MACHINE, "--preload", programs.preload, *options)


@pytest.fixture
def lab():
    """Folder and processes of one test."""
    one = thawtest.Lab({})
    yield one
    one.close()


@pytest.fixture
def vms(lab, programs):
    """Makes VMs; what runs of them afterwards is killed."""
    made = []

    def make(*options):
        made.append(make_vm(lab, programs, *options))
        return made[-1]

    yield make
    for vm in made:
        vm.end()


def start(vm, image):
    """A machine that boots."""
    shutil.copyfile(image.kernel, vm.folder / "kernel")
    shutil.copyfile(image.initrd, vm.folder / "initrd")
    vm.ok("start", options=["--initrd"])
    vm.ok("boot", options=["--initrd"])


def freeze(vm):
    """Save it with its memory, and kill it. Return: the folder with `memory` and `vmstate`."""
    vm.ok("pause")
    assert vm.ok("state") == "paused"
    vm.ok("snapshot-memory")
    assert vm.ok("state") == "paused"
    assert (vm.folder / "vmstate").stat().st_size < STATE_MAX
    assert (vm.folder / "memory").stat().st_size == GUEST_MIB * MIB
    vm.ok("kill")
    return vm.folder


def make_snapshot(image, programs, *options):
    """A guest at its prompt with some files, saved."""
    lab = thawtest.Lab({})
    vm = make_vm(lab, programs, *options)
    try:
        start(vm, image)
        vm.console.wait_text(guest_image.READY, guest.BOOT_SECONDS)
        vm.console.run("dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null")
        vm.console.run(f"cat $(yes /tmp/seed | head -n {BIG_MIB // 8}) >/tmp/big")
        vm.console.run("md5sum /tmp/seed /tmp/big >/tmp/sums")
        yield freeze(vm)
    finally:
        vm.end()
        lab.close()


@pytest.fixture(scope="module")
def frozen(image, programs):
    """With free page reporting."""
    yield from make_snapshot(image, programs, "--reporting")


@pytest.fixture(scope="module")
def frozen_without_reporting(image, programs):
    """Without."""
    yield from make_snapshot(image, programs)


def source(snapshot_folder):
    """What Vm.load() is told of a snapshot."""
    return snapshot_folder / "vmstate", "--memory", snapshot_folder / "memory"


def pages_removed(vm):
    """How many pages the pager has heard that the guest gave back."""
    return vm.pager.ask_stats()["counters"]["pages_removed"]


# ---- a life


def test_two_generations(vms, lab, frozen):
    first = vms("--reporting")
    first.load(*source(frozen), resume=False)
    assert first.ok("state") == "paused"
    first.ok("resume")
    assert first.ok("state") == "running"
    first.console.run("md5sum -c /tmp/sums")
    first.console.run("echo of the first >/tmp/first")
    first.console.run("rm /tmp/big")
    # Reporting begins about 2 s later and leaves out what is not free in whole 2 MiB blocks.
    thawtest.wait_until(lambda: pages_removed(first) * 4096 >= BIG_MIB * MIB * 6 // 10, "free pages to be reported", 30)

    store = ["--store", lab.store()]
    thaw("image", "pack", frozen / "memory", "--output", "booted", *store)
    assert "EBUSY" in first.fails("snapshot")
    first.ok("pause")
    first.ok("snapshot")
    assert (first.folder / "vmstate").stat().st_size < STATE_MAX
    assert not (first.folder / "memory").exists()
    thaw("image", "diff", "--parent", "booted", "--pid", first.pid(), "--state", f"{lab.state_dir}/{first.pager.child.pid}.state",
         "--output", "first", *store)
    first.ok("resume")  # it goes on, and what it does from now on is not in the image
    first.console.run("echo too late >/tmp/first")
    first.killed()

    second = vms("--reporting")
    second.load(first.folder / "vmstate", "--image", "first", *store)
    assert second.console.run("cat /tmp/first") == "of the first\n"
    second.console.run("test ! -e /tmp/big && grep seed /tmp/sums | md5sum -c")
    assert not second.console.run("dmesg | grep -E 'BUG|Oops|Call Trace|Bad page' || true").strip()
    second.ok("pause")
    second.ok("snapshot")
    assert (second.folder / "vmstate").stat().st_size < STATE_MAX
    second.fails("snapshot")  # QEMU does not save one twice that has not run in between
    assert not (second.folder / "vmstate").exists()
    second.killed()


def test_memory_of_a_loaded_vm_is_written_at_wish(vms, frozen):
    first = vms("--reporting")
    first.load(*source(frozen))
    first.console.run("echo of the first >/tmp/first")
    again = freeze(first)
    second = vms("--reporting")
    second.load(*source(again))
    second.console.run("md5sum -c /tmp/sums")
    assert second.console.run("cat /tmp/first") == "of the first\n"
    second.killed()


def test_a_balloon_gives_memory_back(vms, frozen):
    vm = vms("--reporting")
    vm.load(*source(frozen))
    assert vm.ok("balloon") == '{"target_mib": -1, "actual_mib": 0, "reporting": true, "hinting": false}'
    before = pages_removed(vm)
    vm.ok("balloon", "24")
    thawtest.wait_until(lambda: '"actual_mib": 24' in vm.ok("balloon"), "the balloon to be full", 30)
    assert (pages_removed(vm) - before) * 4096 >= 24 * MIB
    vm.ok("balloon", "0")
    thawtest.wait_until(lambda: '"actual_mib": 0' in vm.ok("balloon"), "the balloon to be empty", 30)
    assert "EINVAL" in vm.fails("balloon", "257")
    assert "EOPNOTSUPP" in vm.fails("hint")
    vm.console.run("md5sum -c /tmp/sums")
    vm.killed()


def test_huge_pages(vms, frozen, huge_pages):  # pylint: disable=unused-argument
    vm = vms("--reporting", "--huge")
    vm.load(*source(frozen))
    vm.console.run("md5sum -c /tmp/sums")
    assert vm.pager.ask_stats()["page_bytes"] == 2 * MIB
    vm.killed()


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_machines(vms, image, machine):
    """What the guest does is of no interest: without KVM a microvm's kernel often hangs before it says a word."""
    vm = vms("--reporting", "--machine", machine)
    start(vm, image)
    memory = vm.folder / "memory"
    thawtest.wait_until(lambda: memory.stat().st_blocks * 512 > 32 * MIB, "the kernel to unpack itself")
    taken = freeze(vm)
    loaded = vms("--reporting", "--machine", machine)
    loaded.load(*source(taken))
    thawtest.wait_until(lambda: loaded.pager.ask_stats()["counters"]["faults"] > 0, "the guest to go on")
    assert loaded.ok("state") == "running"
    loaded.killed()


# ---- QEMU's own way


def test_a_memory_file_is_mapped_and_not_written(vms, frozen_without_reporting):
    vm = vms("--from-file")
    for name in ("memory", "vmstate"):
        shutil.copyfile(frozen_without_reporting / name, vm.folder / name)
    before = hashlib.md5((vm.folder / "memory").read_bytes()).digest()
    vm.ok("start-load")
    vm.ok("load-resume")
    vm.console.run("md5sum -c /tmp/sums && rm /tmp/big && dd if=/dev/urandom of=/tmp/new bs=1M count=16 2>/dev/null")
    assert "EOPNOTSUPP" in vm.fails("balloon", "24")
    vm.ok("pause")
    assert "EOPNOTSUPP" in vm.fails("snapshot")
    vm.ok("kill")
    assert hashlib.md5((vm.folder / "memory").read_bytes()).digest() == before
    # With reporting it would be written: QEMU punches holes into it.
    (vm.folder / "vmstate").touch()
    for words in (["check", "7.2.22"], ["start-load"]):
        assert "free_page_reporting off" in vm.fails(*words, options=["--reporting"])


# ---- what goes wrong


def test_without_a_pager(vms, frozen):
    vm = vms("--reporting")
    shutil.copyfile(frozen / "vmstate", vm.folder / "vmstate")
    assert "thaw-preload: cannot connect to the pager at uffd.sock" in vm.fails("start-load")
    assert vm.log().startswith("thaw-preload: cannot connect to the pager at uffd.sock")
    assert vm.ok("end").startswith("exited with status 1")


def test_a_state_that_is_cut_short(vms, frozen):
    vm = vms("--reporting")
    (vm.folder / "vmstate").write_bytes((frozen / "vmstate").read_bytes()[:100000])
    vm.serve("--memory", frozen / "memory")
    vm.ok("start-load")
    vm.fails("load")
    assert vm.ok("end") != "runs"
    vm.pager.expect_exit(0)


def test_what_another_machine_has_saved(vms, frozen):
    vm = vms("--machine", "q35")
    shutil.copyfile(frozen / "vmstate", vm.folder / "vmstate")
    vm.serve("--memory", frozen / "memory")
    vm.ok("start-load")
    vm.fails("load")
    assert vm.ok("end") != "runs"
    vm.pager.expect_exit(0)


@pytest.mark.parametrize("options, words", [
    (["--machine", "isapc"], "machine: 'isapc' is none of pc"),
    (["--machine", "pc-q35-7.2,usb=on"], "has options"),
    (["--accel", "hvf"], "neither tcg nor kvm"),
    (["--cpu", "help"], "no model of a processor"),
    (["--hinting"], "hinting"),
    (["--jail-id", "one"], "jail"),
])
def test_what_cannot_be_made(vms, options, words):
    assert words in vms().fails("check", "7.2.22", options=options)


def test_reporting_takes_a_version(vms):
    assert "5.1" in vms("--reporting").fails("check", "5.0.0")
    vms().ok("check", "5.0.0")


@pytest.mark.parametrize("machine, start_of_name", [
    ("pc", "pc-i440fx-"),
    ("q35", "pc-q35-"),
    ("microvm", "microvm-"),
])
def test_formats(vms, image, machine, start_of_name):  # pylint: disable=unused-argument
    version = vms().ok("version").split(".")[:2]
    name = vms("--machine", machine).ok("format")
    assert name == start_of_name + ".".join(version)
    if machine != "microvm":
        assert vms("--machine", name).ok("format") == name
    assert "no 'pc-q35-1.0'" in vms("--machine", "pc-q35-1.0").fails("format")
