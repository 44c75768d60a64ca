# SPDX-License-Identifier: Apache-2.0
"""
`thaw template`: a recipe becomes a template or nothing, and what is chosen of free page reporting is kept.

The VMM is the strict stand-in for Firecracker (tests/lib/fc_standin.py).
"""

import contextlib
import json
import os
import signal
import subprocess

import pytest

import sandboxlib
import thawtest


@pytest.fixture
def node():
    """An empty store, with the stand-in on PATH."""
    with sandboxlib.empty_node() as one:
        yield one


def build(node, *options, name="small", reporting="off"):
    """The command line of a build. reporting: with it, some seconds are waited for what the guest reports; None: not said."""
    said = ["--free-page-reporting", reporting] if reporting else []
    return ["template", "build", name, "--vmm", "firecracker", "--kernel", node.kernel, "--memory", 32, *said, *options]


@contextlib.contextmanager
def being_built(node):
    """A build that waits for its guest for ever. Its VMM answers: before, only short-lived probes may have run."""
    environment = {**os.environ, "THAW_STORE": str(node.store), **node.environment}
    with subprocess.Popen(node.argv(*build(node, "--ready", "never-said")), env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            thawtest.wait_until(lambda: list(node.store.glob("templates/.small.*/boot/api.sock")), "a VMM")
            yield process
        finally:
            process.kill()


def show(node, name="small"):
    """What is known of a template."""
    return json.loads(node.ok("template", "show", name, "--json"))


def nothing_is_left(node):
    """No process, no template, no image, no half of one."""
    node.nothing_runs()
    assert not node.store.exists() or node.stored()[:2] == ([], 0)
    assert not node.store.exists() or not list((node.store / "templates").iterdir())


def test_a_template_is_built_shown_listed_checked_and_removed(node):
    node.ok(*build(node, "--ready", "guest-is-ready"))
    assert node.ok("template", "check", "small") == "small: can be resumed here\n"
    assert node.ok("template", "ls").splitlines()[1].split()[:3] == ["small", "firecracker", "1.14.1"]
    known = show(node)
    assert known["vmm_version"] == "1.14.1" and known["working_set"] is True and known["memory"] == 32
    assert node.stored()[0] == ["small"]
    node.ok("image", "verify", "--all")
    assert "can be resumed" in node.ok("template", "check", "small")
    node.ok("template", "rm", "small")
    node.nothing_runs()
    assert node.stored()[0] == [] and not list((node.store / "templates").iterdir())


@pytest.mark.parametrize("version, choice, on", [
    ("1.13.1", None, False), ("1.14.0", None, True), ("1.16.1", None, True),
    ("1.14.1", "off", False), ("1.14.1", "on", True), ("1.13.1", "off", False)])
def test_what_was_chosen_of_reporting_is_what_the_sandbox_has(node, version, choice, on):
    node.environment["FC_STANDIN_VERSION"] = version
    node.ok(*build(node, reporting=choice))
    assert show(node)["free_page_reporting"] == {"asked": choice or "auto", "on": on}
    why = "as asked for" if choice else "by itself: the version has it" if on else "the version does not have it"
    line = next(line for line in node.ok("template", "show", "small").splitlines() if line.startswith("free page reporting"))
    assert line.split()[3:] == f"{'on' if on else 'off'} ({why})".split()
    node.ok("run", "small", "--name", "a")
    assert node.ps("a")["balloon"]["free_page_reporting"] is on
    node.ok("rm", "a", "--force")


def test_on_for_a_version_without_it_is_refused_before_anything_is_made(node):
    node.environment["FC_STANDIN_VERSION"] = "1.13.1"
    line = node.fails(*build(node, reporting="on"))
    assert "Firecracker 1.13.1 has no free page reporting: expected 1.14.0 or newer" in line
    assert not node.store.exists()


def test_the_version_that_is_meant_is_enough_to_refuse(node):
    line = node.fails(*build(node, "--firecracker-version", "v1.13.1_abcdef1", "--vmm-program", "/nowhere/firecracker",
                             reporting="on"))
    assert "1.13.1" in line and "1.14.0" in line


def test_another_version_than_the_one_that_is_meant_is_refused_with_both(node):
    line = node.fails(*build(node, "--firecracker-version", "1.16.0"))
    assert "1.16.0" in line and "1.14.1" in line
    assert not node.store.exists()


@pytest.mark.parametrize("options, words", [
    (["--firecracker-version", "latest"], ["latest", "version"]),
    (["--free-page-reporting", "maybe"], ["free", "maybe"]),
    (["--memory", "1"], ["memory", "1"]),
    (["--vcpus", "0"], ["vcpus", "0"]),
])
def test_bad_options_are_one_line(node, options, words):
    done = node.run(*build(node, *options))
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done
    assert all(word in done.stderr for word in words), done.stderr
    assert not node.store.exists()


def test_a_recipe_is_read_and_options_win(node):
    recipe = node.folder / "template.json"
    recipe.write_text(json.dumps({"vmm": "firecracker", "kernel": "kernel", "memory": 48, "free_page_reporting": "off"}))
    node.ok("template", "build", "small", "--recipe", recipe, "--memory", 32)
    known = show(node)
    assert known["memory"] == 32 and known["free_page_reporting"]["on"] is False


@pytest.mark.parametrize("text, words", [
    ('{"vmm": "firecracker", "kernel": "kernel", "memori": 48}', ["template.json", "memori"]),
    ('{"vmm": "firecracker", "kernel": 7}', ["template.json", "kernel"]),
    ('{"vmm": "firecracker",\n "kernel" "kernel"}', ["template.json", "2"]),
    ('{"vmm": "xen", "kernel": "kernel"}', ["template.json", "xen"]),
])
def test_a_bad_recipe_is_refused_with_file_and_field(node, text, words):
    recipe = node.folder / "template.json"
    recipe.write_text(text)
    done = node.run("template", "build", "small", "--recipe", recipe)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done
    assert all(word in done.stderr for word in words), done.stderr


def test_a_guest_that_is_never_ready_leaves_nothing(node):
    line = node.fails(*build(node, "--ready", "never-said", "--timeout", "2"))
    assert "never-said" in line
    nothing_is_left(node)


def test_a_start_command_that_fails_leaves_nothing(node):
    line = node.fails(*build(node, "--start-cmd", "false"))
    assert line.endswith("the start command ended with status 1")  # it has said nothing
    line = node.fails(*build(node, "--start-cmd", "no-such-program"))
    assert "the start command ended with status 127: " in line
    nothing_is_left(node)


def test_what_the_start_command_made_is_in_every_sandbox(node):
    node.ok(*build(node, "--start-cmd", "echo made-by-the-start-command >/tmp/made"))
    node.ok("run", "small", "--name", "a")
    assert node.exec("a", "cat /tmp/made").strip() == "made-by-the-start-command"
    node.ok("rm", "a", "--force")


def test_a_name_that_is_there_is_refused_and_stays(node):
    node.ok(*build(node))
    before = show(node)
    assert "small" in node.fails(*build(node))
    assert show(node) == before
    node.nothing_runs()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_stopped_leaves_nothing(node, number):
    with being_built(node) as process:
        process.send_signal(number)
        assert process.wait(thawtest.DEADLINE) != 0
    nothing_is_left(node)


def test_what_a_killed_build_has_left_is_removed_by_the_next_one(node):
    with being_built(node) as process:
        process.kill()
    assert node.processes()
    node.ok(*build(node, name="other"))
    node.nothing_runs()
    assert [path.name for path in (node.store / "templates").iterdir()] == ["other"]


def test_a_template_of_another_snapshot_format_is_refused_with_both(node):
    node.ok(*build(node))
    node.environment["FC_STANDIN_VERSION"] = "1.16.1"
    done = node.run("template", "check", "small")
    assert done.returncode == 1 and "8.0.0" in done.stdout and "1.16.1" in done.stdout, done
    assert "1.16.1" in node.fails("run", "small")


def test_a_restore_of_a_template_is_measured_step_by_step(node):
    node.ok(*build(node))
    out = node.folder / "restore.json"
    text = node.ok("bench", "restore", "small", "--vms", "1,2", "--rounds", "1", "--warm", "--dir", node.folder, "--json", out)
    assert "1st fault" in text and "ratio" in text
    result = json.loads(out.read_text())
    cases = {(case["from"], case["vms"]): case for case in result["cases"]}
    assert set(cases) == {("thaw", 1), ("thaw", 2), ("file", 1), ("file", 2)}
    alone = cases["thaw", 1]["median"]
    assert 0 < alone["pager_listens_ms"] < alone["vmm_answers_ms"] < alone["loaded_ms"] < alone["ready_ms"]
    # With the working set installed ahead there need not be any fault.
    assert 0 < alone.get("first_fault_ms", alone["pager_listens_ms"]) < alone["ready_ms"]
    assert all(len(case["rounds"][0]) == case["vms"] for case in result["cases"])
    assert all("pages_ahead" in vm for case in result["cases"] for vm in case["rounds"][0])
    assert cases["thaw", 2]["ratio_to_file"] > 0
    node.nothing_runs()
    assert not list(node.folder.glob("thaw-bench-*"))


def test_without_its_working_set_a_restored_vm_has_a_first_fault(node):
    node.ok(*build(node))
    out = node.folder / "restore.json"
    options = ("--no-file", "--no-prefetch", "--vms", "1", "--rounds", "1", "--warm")
    node.ok("bench", "restore", "small", *options, "--dir", node.folder, "--json", out)
    (case,) = json.loads(out.read_text())["cases"]
    assert 0 < case["median"].get("first_fault_ms", 1)  # seen by a thread that looks; on a busy machine it may look too late
    ((vm,),) = case["rounds"]
    assert vm["faults"] > 0 and vm["pages_ahead"] == 0


def test_a_restore_that_cannot_be_measured_says_why(node):
    node.ok(*build(node))
    assert "cannot be cold" in node.fails("bench", "restore", "small", "--vms", "1", "--rounds", "1", "--cold", "--dir", node.folder)
    assert "nobody" in node.fails("bench", "restore", "nobody", "--dir", node.folder)
    node.fails("bench", "restore", "small", "--vms", "0", code=2)
    assert not list(node.folder.glob("thaw-bench-*"))
