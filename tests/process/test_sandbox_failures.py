# SPDX-License-Identifier: Apache-2.0
"""
A call of a command line about sandboxes fails, or comes late: nobody forgets a VM that runs, and what is made is of one template.
"""

import json
import shutil
import subprocess

import pytest

import sandboxlib
import thawtest
from sandboxlib import everything_is_right

BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def template():
    """sandboxlib.small_template(), in memory."""
    thawtest.needs_strace()
    with sandboxlib.small_template_in_memory() as one:
        yield one


def on_open(path, what):
    """strace, so that this happens when thaw opens a file."""
    return ["strace", "-o", "/dev/null", "-P", str(path), "-e", "trace=openat", "-e", f"inject=openat:{what}"]


def fails(node, before, *args):
    """The line of a run of thaw that must fail."""
    done = node.run(*args, before=before)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"thaw {args[0]}"), done
    return done.stderr


@pytest.mark.parametrize("args", [("rm", "--force"), ("rm",), ("kill",), ("pause",), ("ps",)])
def test_who_cannot_tell_whether_the_machine_was_started_again_forgets_no_vm(node, args):
    node.ok("run", "small", "--name", "a", "--wait")
    # Once: whoever asks first is told nothing, and goes on with what it has made of that.
    assert BOOT_ID in fails(node, on_open(BOOT_ID, "error=EMFILE:when=1"), *args, "a")
    assert node.states() == {"a": "running"}
    everything_is_right(node, "a")


def test_a_name_that_is_invented_is_a_name(node):
    (node.store / "templates" / "small").rename(node.store / "templates" / "_-small")
    name = node.ok("run", "_-small").strip()
    assert node.states() == {name: "running"}
    node.ok("kill", name)


def test_a_sandbox_whose_record_cannot_be_read_when_it_was_made_leaves_nothing(node):
    assert "sandbox.json" in fails(node, on_open(node.path("a", "sandbox.json"), "error=EMFILE"), "run", "small", "--name", "a")
    assert not list((node.store / "sandboxes").iterdir())
    node.nothing_runs()


def test_a_template_that_is_replaced_while_a_sandbox_is_made_is_taken_whole(node):
    templates = node.store / "templates"
    shutil.copytree(templates / "small", templates / "other")
    record = templates / "other" / "template.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"image": "0" * 64}))
    log = node.folder / "calls"
    command = ["strace", "-o", str(log), "-P", str(templates / "small"), "-e", "trace=openat", "-e",
               "inject=openat:delay_enter=2000000:when=1"]
    with subprocess.Popen([*command, *node.argv("run", "small", "--name", "a")], text=True, stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          env={**node.environment, "THAW_STORE": str(node.store)}) as process:
        thawtest.wait_until(lambda: log.exists() and "openat" in log.read_text(), "the run to come to the template")
        (templates / "small").rename(templates / "old")
        (templates / "other").rename(templates / "small")
        assert process.wait(thawtest.DEADLINE) == 1 and "000000" in process.stderr.read()
    assert node.states() == {}


def test_one_whose_process_numbers_are_damaged_can_be_removed(node):
    node.ok("run", "small", "--name", "a")
    node.ok("kill", "a")
    node.path("a", "vm", "pid").write_text("garbage\n")
    assert "expected a process number" in node.fails("rm", "a")
    node.ok("rm", "--force", "a")
    assert node.states() == {}


@pytest.mark.parametrize("what", ["signal=KILL", "error=EIO"])
def test_a_build_that_ends_when_its_image_has_got_its_name_can_be_begun_again(lab, what):  # pylint: disable=unused-argument
    thawtest.needs_strace()
    with sandboxlib.empty_node() as node:
        build = ["template", "build", "small", "--vmm", "firecracker", "--kernel", node.kernel, "--memory", 32,
                 "--free-page-reporting", "off"]
        # What is synced there is the name: it has its place already.
        names = node.store / "names"
        done = node.run(*build, before=["strace", "-o", "/dev/null", "-P", str(names), "-e", "trace=fsync", "-e",
                                        f"inject=fsync:{what}:when=1"])
        assert done.returncode in (1, -9, 137), done
        assert not (node.store / "templates" / "small").exists()
        node.ok(*build)
        node.ok("template", "check", "small")
