# SPDX-License-Identifier: Apache-2.0
"""Sandboxes with a real Linux guest in QEMU: `thaw run`, pause, resume, fork, balloon, from a template that `thaw template build` made."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import sandboxlib
import thawtest

MIB = 1 << 20
GUEST_MIB = 384
BIG_MIB = 200  # what the guest allocates and frees
SECONDS = 40  # for what a guest does by itself, some seconds after it could


def build(image, folder, *options):
    """A store with the template `guest`."""
    node = sandboxlib.Node(folder)
    node.ok("template", "build", "guest", "--vmm", "qemu", "--accel", "tcg", "--kernel", image.kernel, "--initrd", image.initrd,
            "--memory", GUEST_MIB, *options)
    return node.store


@pytest.fixture(scope="session")
def template(image):
    """With free page reporting; in memory: to write durably takes no time there."""
    with tempfile.TemporaryDirectory(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) as folder:
        yield build(image, pathlib.Path(folder) / "node", "--free-page-reporting", "on")


@pytest.fixture(scope="session")
def template_without_reporting(image):
    """Without."""
    with tempfile.TemporaryDirectory(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) as folder:
        yield build(image, pathlib.Path(folder) / "node", "--free-page-reporting", "off")


@pytest.fixture
def make_node():
    """make_node(template): a store of one's own with the template; all that was started in it is killed."""
    nodes = []

    def make(template):
        folder = tempfile.mkdtemp(prefix="thaw-test-", dir=thawtest.tmpfs_dir())
        nodes.append(sandboxlib.Node(folder + "/node", template))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        node.folder.parent.rmdir()


@pytest.fixture
def node(make_node, template):
    """With free page reporting."""
    return make_node(template)


def write_file(node, name, path, mib):
    """Random bytes in the guest's tmpfs, and their checksum beside them."""
    node.exec(name, f"dd if=/dev/urandom of={path} bs=1M count={mib} 2>/dev/null; md5sum {path} >{path}.sum")


def file_is_right(node, name, path):
    assert node.exec(name, f"md5sum -c {path}.sum") == f"{path}: OK\n"


def fill_memory(node, name):
    """BIG_MIB of the guest's tmpfs. Return: by how many bytes what the host has given to the VMM grew."""
    before = node.ps(name)["host_bytes"]
    node.exec(name, "dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null; "
              f"cat $(yes /tmp/seed | head -n {BIG_MIB // 8}) >/tmp/big; rm /tmp/seed")
    grown = node.ps(name)["host_bytes"] - before
    assert grown >= 0.9 * BIG_MIB * MIB
    return grown


def image_pages(node, image):
    """How many pages of an image are zero, its own, its parents'."""
    return json.loads(node.ok("image", "inspect", "--json", image))["pages"]


def test_a_guest_lives_on_from_generation_to_generation_and_its_data_with_it(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    write_file(node, "a", "/tmp/kept", 8)
    for generation in range(1, 5):
        write_file(node, "a", f"/tmp/new{generation % 2}", 4)
        node.ok("pause", "a")
        node.nothing_runs()
        assert (node.ps("a")["state"], node.ps("a")["generation"]) == ("paused", generation)
        node.ok("resume", "a", "--wait")
        file_is_right(node, "a", "/tmp/kept")
        file_is_right(node, "a", f"/tmp/new{generation % 2}")
    assert node.exec("a", "dmesg | grep -E 'BUG|Oops|Call Trace|Bad page' || true") == ""
    assert "login" not in node.ok("logs", "a")
    node.ok("rm", "--force", "a")
    node.nothing_runs()
    assert node.stored()[:2] == (["guest"], 1)


def test_with_reporting_memory_that_a_guest_frees_comes_back_and_is_zero_in_the_next_layer(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    assert node.ps("a")["balloon"]["free_page_reporting"] is True
    write_file(node, "a", "/tmp/kept", 4)
    grown = fill_memory(node, "a")
    before = node.ps("a")["host_bytes"]
    node.exec("a", "rm /tmp/big")
    thawtest.wait_until(lambda: before - node.ps("a")["host_bytes"] >= 0.8 * grown, "memory to come back", SECONDS)
    fill_memory(node, "a")
    node.ok("pause", "a")
    full = image_pages(node, "sandbox.a.1")
    node.ok("resume", "a", "--wait")
    node.exec("a", "rm /tmp/big")
    thawtest.wait_until(lambda: node.ps("a")["pages"]["removed"] >= 0.8 * BIG_MIB * 256, "pages to be given back", SECONDS)
    node.ok("pause", "a")
    freed = image_pages(node, "sandbox.a.2")
    assert freed["zero"] - full["zero"] >= 0.8 * BIG_MIB * 256, (full, freed)
    node.ok("resume", "a", "--wait")
    file_is_right(node, "a", "/tmp/kept")
    write_file(node, "a", "/tmp/again", 32)
    file_is_right(node, "a", "/tmp/again")


def test_a_guest_on_huge_pages_is_built_paused_and_resumed_and_gives_memory_back(image, make_node):
    with thawtest.hugepages(GUEST_MIB // 2 + 8), tempfile.TemporaryDirectory(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) as folder:
        node = make_node(build(image, pathlib.Path(folder) / "node", "--free-page-reporting", "on", "--hugepages"))
        assert json.loads(node.ok("template", "show", "guest", "--json"))["hugepages"] is True
        node.ok("run", "guest", "--name", "a", "--wait")
        write_file(node, "a", "/tmp/kept", 4)
        grown = fill_memory(node, "a")
        full = node.ps("a")["host_bytes"]
        node.exec("a", "rm /tmp/big")
        thawtest.wait_until(lambda: full - node.ps("a")["host_bytes"] >= 0.8 * grown, "memory to come back", SECONDS)
        node.ok("pause", "a")
        assert image_pages(node, "sandbox.a.1")["zero"] >= 0.8 * BIG_MIB * 256
        node.ok("resume", "a", "--wait")
        file_is_right(node, "a", "/tmp/kept")
        node.ok("rm", "--force", "a")
        node.nothing_runs()


def test_without_reporting_memory_that_a_guest_frees_does_not_come_back(make_node, template_without_reporting):
    node = make_node(template_without_reporting)
    node.ok("run", "guest", "--name", "a", "--wait")
    assert node.ps("a")["balloon"]["free_page_reporting"] is False
    grown = fill_memory(node, "a")
    full = node.ps("a")["host_bytes"]
    node.exec("a", "rm /tmp/big")
    end = time.monotonic() + 4  # with reporting it has begun after 2
    while time.monotonic() < end:
        assert full - node.ps("a")["host_bytes"] < 0.2 * grown


def test_the_balloon_is_inflated_and_deflated_by_command(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    write_file(node, "a", "/tmp/kept", 4)
    free_mib = "free -m | awk '/Mem:/ { print $4 }'"
    before = int(node.exec("a", free_mib))
    node.ok("balloon", "a", 128)
    thawtest.wait_until(lambda: node.ps("a")["balloon"]["actual_mib"] == 128, "the balloon to be full", SECONDS)
    assert int(node.exec("a", free_mib)) <= before - 100
    node.ok("balloon", "a", 0)
    thawtest.wait_until(lambda: node.ps("a")["balloon"]["actual_mib"] == 0, "the balloon to be empty", SECONDS)
    file_is_right(node, "a", "/tmp/kept")


def test_a_start_command_that_ends_its_shell_is_one_that_has_failed(node, image):
    argv = ["template", "build", "failed", "--vmm", "qemu", "--accel", "tcg", "--kernel", image.kernel, "--initrd", image.initrd,
            "--memory", 128, "--free-page-reporting", "off", "--timeout", 30, "--start-cmd"]
    assert "the start command ended with status 5: before" in node.fails(*argv, "echo before; false || exit 5")


def test_a_command_that_ends_its_shell_or_is_no_shell_has_a_status_too(node):
    node.ok("run", "guest", "--name", "a")
    assert node.run("exec", "a", "--", "echo before; exit 3").returncode == 3
    done = node.run("exec", "a", "--", "if")  # what the shell says of it comes over the console
    assert done.returncode == 2 and "syntax error" in done.stdout and done.stderr == ""
    assert "unterminated" in node.run("exec", "a", "--", "echo 'it").stdout
    node.exec("a", "mkdir /tmp/d; cd /tmp/d; sleep 100 &")
    assert node.exec("a", "pwd; pidof sleep >/dev/null") == "/tmp\n"  # the shell at the console is as it was
    node.ok("rm", "--force", "a")


def test_half_a_line_that_somebody_has_typed_is_no_part_of_the_next_command(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    with socket.socket(socket.AF_UNIX) as serial:
        serial.connect(str(node.path("a", "vm", "serial.sock")))
        serial.sendall(b'echo "half of')
        serial.shutdown(socket.SHUT_WR)
        while serial.recv(4096):  # until QEMU has read all of it
            pass
    thawtest.wait_until(lambda: "half of" in node.ok("logs", "a"), "the echo of it")
    assert node.ok("exec", "a", "--timeout", "20", "--", "echo whole") == "whole\n"
    node.ok("rm", "--force", "a")


def test_a_bench_against_what_qemu_cannot_do_says_what_to_leave_out(node):
    line = node.fails("bench", "restore", "guest", "--vms", 1, "--rounds", 1, "--warm")
    assert "template guest" in line and "--no-file" in line


def test_eight_sandboxes_of_one_template_run_at_once_and_are_each_their_own(node):
    names = node.ok("run", "guest", "--name", "n", "--count", 8, "--wait").split()
    assert names == [f"n-{i}" for i in range(1, 9)]
    for name in names:
        node.exec(name, f"echo {name} >/tmp/name")
    assert [node.exec(name, "cat /tmp/name").strip() for name in names] == names
    assert set(node.states().values()) == {"running"}
    node.ok("rm", "--force", *names)
    node.nothing_runs()


def test_forks_of_a_guest_go_on_each_by_itself(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    write_file(node, "a", "/tmp/kept", 4)
    node.ok("pause", "a")
    names = node.ok("fork", "a", "--name", "f", "--count", 2, "--wait").split()
    node.ok("rm", "a")
    for name in names:
        file_is_right(node, name, "/tmp/kept")
        write_file(node, name, "/tmp/own", 2)
    for name in names:
        file_is_right(node, name, "/tmp/own")


def test_a_guest_that_goes_on_again_waits_for_fewer_than_half_of_the_pages(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    write_file(node, "a", "/tmp/kept", 8)
    for _ in range(2):
        node.ok("pause", "a")
        node.ok("resume", "a", "--wait")
        file_is_right(node, "a", "/tmp/kept")
    node.ok("pause", "a")
    faults = {}
    for name in ("with", "without"):
        node.ok("fork", "a", "--name", name, "--paused")
        if name == "without":
            assert sandboxlib.take_working_set_out(node, name) > 0
        node.ok("resume", name, "--wait")
        node.exec(name, "echo here")
        faults[name] = sandboxlib.counters(node, name)["faults"]
        file_is_right(node, name, "/tmp/kept")
        node.ok("rm", "--force", name)
    print(f"faults to the first answer: {faults}, {faults['with'] / faults['without']:.3f} x")
    assert faults["with"] < faults["without"] / 2


def test_a_guest_goes_on_when_its_pagers_are_killed_and_is_dead_when_its_vmm_is(node):
    node.ok("run", "guest", "--name", "a", "--wait")
    write_file(node, "a", "/tmp/kept", 4)
    os.kill(node.serving_pid("a"), signal.SIGKILL)
    file_is_right(node, "a", "/tmp/kept")
    supervisor, pager = node.pid("a", "pager.pid"), node.serving_pid("a")
    os.kill(supervisor, signal.SIGKILL)
    os.kill(pager, signal.SIGKILL)
    thawtest.wait_until(lambda: not {supervisor, pager} & set(node.processes()), "the ends of the pagers")
    file_is_right(node, "a", "/tmp/kept")
    sandboxlib.kill(node.pid("a"))
    thawtest.wait_until(lambda: node.ps("a")["state"] == "dead", "the end to be noticed")
    assert "killed by signal 9" in node.ps("a")["end"]
    node.nothing_runs()


def test_a_program_that_has_not_changed_is_not_asked_for_its_version(node):
    thawtest.needs_strace()
    trace = node.folder / "trace"
    environment = {**os.environ, "THAW_STORE": str(node.store), **node.environment}
    # -D: strace lives as long as what it looks at, which is the VM, too.
    subprocess.run(["strace", "-D", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o", trace,
                    *node.argv("run", "guest", "--name", "once")], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, env=environment)
    node.ok("rm", "once", "--force")
    assert len(starts_of_qemu(trace)) == 1, starts_of_qemu(trace)


def starts_of_qemu(trace):
    """The lines of strace's that say of a QEMU that it was started."""
    return [line for line in trace.read_text().splitlines() if "/qemu-system-" in line and line.endswith("= 0")]


def test_a_template_of_another_machine_or_page_size_is_refused(node):
    record = node.store / "templates/guest/template.json"
    record.chmod(0o600)
    was = json.loads(record.read_text())
    record.write_text(json.dumps(was | {"snapshot_format": "pc-i440fx-99.1", "vmm_stamp": "another program"}))
    assert "pc-i440fx-99.1" in node.fails("run", "guest")
    record.write_text(json.dumps(was | {"hugepages": True, "memory": 1 << 19}))
    assert "pages of 2 MiB" in node.fails("run", "guest")
    assert node.states() == {} and not node.processes()
