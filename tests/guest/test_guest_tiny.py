# SPDX-License-Identifier: Apache-2.0
"""
A guest of a few bytes (tiny.S) in sandboxes of QEMU: with KVM, whose virtual CPUs fault in the kernel, and without.

The guest compares every word with what it left there, pass after pass, and a zero range with zero; it says "WRONG" at the first
difference.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

import sandboxlib
import thawtest

SECONDS = 60
PROBE_SECONDS = 20
CPU = "qemu64"  # a KVM of software need not have what the host's processor has


@pytest.fixture(scope="session")
def kernel():
    """The guest's program."""
    return pathlib.Path(os.environ["TINY_GUEST"])


@pytest.fixture(params=["tcg", "kvm"])
def machine(request, kernel):
    """Options for how QEMU runs the guest; skips, in one line, where KVM cannot run it by itself."""
    if request.param == "kvm":
        missing = without_kvm(kernel)
        if missing:
            pytest.skip(f"no usable KVM here: {missing}")
        return ["--accel", "kvm", "--cpu", CPU]
    return ["--accel", "tcg"]


def without_kvm(kernel):
    """Why QEMU cannot run the guest with KVM; None: it can."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm cannot be used"
    with tempfile.TemporaryDirectory(prefix="thaw-test-") as folder:
        said = pathlib.Path(folder, "serial")
        argv = ["qemu-system-x86_64", "-machine", "pc", "-accel", "kvm", "-cpu", CPU, "-m", "64", "-display", "none", "-nodefaults", "-serial",
                f"file:{said}", "-kernel", kernel]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as qemu:
            end = time.monotonic() + PROBE_SECONDS
            while time.monotonic() < end and qemu.poll() is None:
                if said.exists() and b"pass" in said.read_bytes():
                    qemu.kill()
                    return None
                time.sleep(0.05)
            qemu.kill()
            last = qemu.stderr.read().decode(errors="replace").splitlines()
    return f"QEMU does not run a guest of 400 bytes within {PROBE_SECONDS} s{': ' + last[-1] if last else ''}"


@pytest.fixture
def node():
    """An empty store."""
    with tempfile.TemporaryDirectory(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) as folder:
        made = sandboxlib.Node(folder + "/node")
        yield made
        made.close()


def goes_on(node, name):
    """The guest has looked at all of its memory at least twice since now."""
    before = node.ok("logs", name).count("pass")
    thawtest.wait_until(lambda: node.ok("logs", name).count("pass") >= before + 3 or "WRONG" in node.ok("logs", name),
                        "two whole passes", SECONDS)
    assert "WRONG" not in node.ok("logs", name)


def test_a_guest_finds_every_word_in_every_generation(node, kernel, machine):
    node.ok("template", "build", "tiny", "--vmm", "qemu", *machine, "--kernel", kernel, "--memory", 64, "--ready", "pass",
            "--no-shell", "--record-seconds", 1, "--free-page-reporting", "off")
    known = json.loads(node.ok("template", "show", "tiny", "--json"))
    assert (known["accel"], known.get("cpu")) == (machine[1], CPU if "--cpu" in machine else None)
    node.ok("run", "tiny", "--name", "a")
    goes_on(node, "a")
    for _generation in range(2):
        node.ok("pause", "a")
        node.ok("resume", "a")
        goes_on(node, "a")
    node.ok("pause", "a")
    names = node.ok("fork", "a", "--count", 2).split()
    for name in names:
        goes_on(node, name)
    node.ok("rm", "--force", "a", *names)
    node.nothing_runs()


def test_a_vmm_that_ends_for_want_of_room_says_so(node, kernel):
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, to mount a small file system")
    small = node.folder / "small"
    small.mkdir()
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=8m none "{small}" || exit 77; "$0" "$@"; code=$?; ls -A "{small}/templates"; exit $code']
    done = node.run("template", "build", "tiny", "--vmm", "qemu", "--accel", "tcg", "--kernel", kernel, "--memory", 64, "--ready", "pass",
                    "--no-shell", "--store", small, before=mount)
    if done.returncode == 77:
        pytest.skip("needs root and unshare, to mount a small file system")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stdout == "", done
    assert "is full" in done.stderr and "/templates/.tiny." in done.stderr, done.stderr
    node.nothing_runs()


def test_a_guest_is_emulated_where_qemu_does_not_start_with_kvm(node, kernel):
    program = node.folder / "qemu"
    program.write_text('#!/bin/sh\ncase "$*" in *"-accel kvm"*) echo "KVM is broken here" >&2; exit 1;; esac\n'
                       'exec qemu-system-x86_64 "$@"\n')
    program.chmod(0o755)
    argv = ["template", "build", "tiny", "--vmm", "qemu", "--vmm-program", program, "--kernel", kernel, "--memory", 64, "--ready", "pass",
            "--no-shell", "--record-seconds", 1, "--free-page-reporting", "off"]
    assert "KVM is broken here" in node.fails(*argv, "--accel", "kvm")
    node.ok(*argv)
    assert json.loads(node.ok("template", "show", "tiny", "--json"))["accel"] == "tcg"
    node.ok("run", "tiny", "--name", "a")
    goes_on(node, "a")
    node.ok("rm", "--force", "a")
    node.nothing_runs()
