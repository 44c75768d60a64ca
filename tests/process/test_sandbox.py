# SPDX-License-Identifier: Apache-2.0
"""
Sandboxes of a template, on the stand-in for Firecracker (tests/lib/fc_standin.py), whose guest knows what each page must be.

Real guests are in tests/guest/test_sandbox.py; command lines that are killed in test_sandbox_crash.py.
"""

import json
import os
import pathlib
import signal
import time

import pytest

import thawtest
from sandboxlib import everything_is_right, kill

MIB = 1 << 20


def is_alive(pid):
    """Is it there, and not a zombie?"""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- a life


def test_a_sandbox_runs_is_paused_goes_on_and_leaves_nothing(node):
    before = node.stored()
    assert node.ok("run", "small", "--name", "a", "--wait") == "a\n"
    assert node.exec("a", "echo hello > /note; fill 100") != ""
    running = node.ps("a")
    assert running["state"] == "running" and running["generation"] == 0 and running["template"] == "small"
    assert running["vmm_pid"] == node.pid("a") and running["host_bytes"] > 0
    assert sum(running["pages"].values()) * running["page_bytes"] == 32 * MIB
    assert running["balloon"]["free_page_reporting"] is True
    assert node.ok("pause", "a") == ""
    node.nothing_runs()
    assert node.ps("a")["state"] == "paused" and node.ps("a")["generation"] == 1
    assert node.ok("resume", "a", "--wait") == "a\n"
    assert node.exec("a", "cat /note") == "hello\n"
    everything_is_right(node, "a")
    assert node.ok("kill", "a") == ""
    dead = node.ps("a")
    assert dead["state"] == "dead" and dead["end"] == "killed by thaw kill"
    assert node.ok("kill", "a") == ""
    assert node.ok("rm", "a") == ""
    node.nothing_runs()
    assert node.stored() == before and list((node.store / "sandboxes").iterdir()) == []


def test_names_are_invented_or_counted(node):
    invented = node.ok("run", "small").strip()
    assert invented.startswith("small-")
    assert node.ok("run", "small", "--name", "b", "--count", 2) == "b-1\nb-2\n"
    assert node.states() == {invented: "running", "b-1": "running", "b-2": "running"}
    done = node.run("run", "small", "--name", "b", "--count", 3)
    assert (done.returncode, done.stdout) == (1, "b-3\n")
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and all("there is a sandbox b-" in line for line in lines)


def test_a_command_ends_with_its_status_and_the_console_is_logged(node):
    node.ok("run", "small", "--name", "a")
    done = node.run("exec", "a", "--", "echo out; false")
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "")
    assert node.run("exec", "a", "no-such-command").returncode == 127
    assert "not found" in node.ok("logs", "a")
    assert "snapshot/load" in node.ok("logs", "--vmm", "a")
    assert "serving" in node.ok("logs", "--pager", "a")
    node.ok("pause", "a")
    assert "not found" in node.ok("logs", "a")
    assert "snapshot/load" in node.ok("logs", "--vmm", "a")


def test_a_log_is_followed_until_the_sandbox_is_paused(node, lab):
    node.ok("run", "small", "--name", "a", "--wait")
    os.environ["THAW_STORE"] = str(node.store)
    try:
        follower = lab.start("logs", node.argv("logs", "-f", "a"))
    finally:
        del os.environ["THAW_STORE"]
    thawtest.wait_until(lambda: follower.out, "what is there")
    node.exec("a", "echo more-and-more")
    thawtest.wait_until(lambda: "more-and-more" in follower.out, "what was added")
    node.ok("pause", "a")
    follower.expect_exit(0)


def test_the_balloon_follows_a_command(node):
    node.ok("run", "small", "--name", "a", "--wait")
    assert node.ok("balloon", "a", 8) == ""
    thawtest.wait_until(lambda: node.ps("a")["balloon"]["target_mib"] == 8, "the balloon's target")
    assert node.ok("balloon", "a").startswith("target 8 MiB")
    assert "a balloon of 32 MiB in a guest that has 32: expected 31 at most" in node.fails("balloon", "a", 32)
    node.ok("balloon", "a", 0)
    everything_is_right(node, "a")
    node.ok("pause", "a")
    assert "the sandbox a is paused" in node.fails("balloon", "a", 1)


# ---- generations


def test_after_fifty_generations_every_byte_is_right_and_the_store_has_not_grown(node):
    node.ok("run", "small", "--name", "a", "--wait")
    most = (0, 0)
    for i in range(50):
        node.exec("a", f"echo g{i} > /generation; fill 200; {'free 200;' if i % 2 else 'free 150;'} true")
        node.ok("pause", "a")
        names, n_manifests, pack_bytes = node.stored()
        assert names == [f"sandbox.a.{i + 1}", "small"]
        most = (max(most[0], n_manifests), max(most[1], pack_bytes))
        node.ok("resume", "a", "--wait")
        assert node.exec("a", "cat /generation") == f"g{i}\n"
        if i % 10 == 9:
            everything_is_right(node, "a")
    print(f"most: {most[0]} manifests, {most[1]} bytes of packs")
    assert most[0] <= 20
    last = json.loads(node.ok("image", "inspect", "--json", "sandbox.a.50"))
    hot = last["working_set"]  # layers have been squashed in between; what is zero has left it
    assert hot["zero"] == 0 < hot["all"] <= last["pages"]["all"] - last["pages"]["zero"]
    assert sorted(path.name for path in node.path("a").glob("paused.*")) == ["paused.50"]
    node.ok("pause", "a")
    everything_is_right(node, node.ok("resume", "a", "--wait").strip())


def test_a_page_that_was_given_back_is_zero_in_the_layer(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "fill 1000")
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")
    node.exec("a", "free 1000")
    thawtest.wait_until(lambda: node.ps("a")["pages"]["removed"] >= 1000, "pages that were given back")
    node.ok("pause", "a")
    one, two = (json.loads(node.ok("image", "inspect", "--json", name)) for name in ("small", "sandbox.a.2"))
    print(one, two)
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")


# ---- forks


def test_forks_go_on_where_their_origin_is_paused_and_do_not_need_it(node):
    before = node.stored()
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "fill 300; echo origin > /who")
    assert "is running, expected it to be paused" in node.fails("fork", "a", "--count", 3)
    node.ok("pause", "a")
    assert node.ok("fork", "a", "--name", "f", "--count", 3, "--wait") == "f-1\nf-2\nf-3\n"
    assert node.ok("fork", "a", "--name", "g", "--paused") == "g\n"
    assert node.states() == {"a": "paused", "f-1": "running", "f-2": "running", "f-3": "running", "g": "paused"}
    assert node.ps("g")["forked_from"] == "a"
    for i in (1, 2, 3):
        assert node.exec(f"f-{i}", f"cat /who; echo fork-{i} > /who; fill 50").startswith("origin\n")
    node.ok("rm", "a")
    node.ok("pause", "f-1", "f-2")
    node.ok("rm", "f-2")
    node.ok("resume", "f-1", "g", "--wait")
    assert node.exec("f-1", "cat /who") == "fork-1\n" and node.exec("f-3", "cat /who") == "fork-3\n"
    assert node.exec("g", "cat /who") == "origin\n"
    for name in ("f-1", "f-3", "g"):
        everything_is_right(node, name)
    node.ok("rm", "--force", "f-1", "f-3", "g")
    node.nothing_runs()
    assert node.stored() == before


def test_a_paused_fork_keeps_its_memory_when_its_origin_goes(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "fill 300; echo origin > /who")
    node.ok("pause", "a")
    node.ok("fork", "a", "--name", "g", "--paused")
    node.ok("rm", "a")
    node.ok("image", "gc")
    node.ok("resume", "g", "--wait")
    assert node.exec("g", "cat /who") == "origin\n"
    everything_is_right(node, "g")


# ---- what fails, is told in one line and changes nothing


def test_a_pause_that_fails_lets_the_guest_go_on(node):
    node.ok("run", "small", "--name", "a", "--wait", FC_STANDIN_FAULT="refuse@/snapshot/create")
    node.exec("a", "echo still-here > /note; fill 10")
    before = node.stored()
    assert "refused by the test" in node.fails("pause", "a")
    assert node.ps("a")["state"] == "running" and node.ps("a")["generation"] == 0
    assert node.exec("a", "cat /note") == "still-here\n"
    assert node.stored() == before and not list(node.path("a").glob("paused.*"))


def test_memory_that_a_device_writes_to_while_it_is_read_is_read_again(node):
    node.ok("run", "small", "--name", "a", "--wait", FC_STANDIN_FAULT="restless-devices")
    node.exec("a", "echo kept > /note; fill 3000")
    node.ok("pause", "a")
    assert node.ok("logs", "--vmm", "a").count("/snapshot/create") >= 2
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")


def test_a_resume_that_fails_leaves_it_paused(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "echo kept > /note")
    node.ok("pause", "a")
    assert "refused by the test" in node.fails("resume", "a", FC_STANDIN_FAULT="refuse@/snapshot/load")
    assert node.states() == {"a": "paused"}
    node.nothing_runs()
    assert "snapshot/load" in node.ok("logs", "--vmm", "a")
    node.ok("resume", "a", "--wait")
    assert node.exec("a", "cat /note") == "kept\n"


def test_a_sandbox_that_cannot_be_started_leaves_nothing(node):
    before = node.stored()
    assert "refused by the test" in node.fails("run", "small", FC_STANDIN_FAULT="refuse@/snapshot/load")
    assert "status 7" in node.fails("run", "small", "--name", "a", FC_STANDIN_FAULT="exit-at-start=7")
    node.nothing_runs()
    assert node.states() == {} and node.stored() == before


def test_a_template_that_cannot_be_resumed_here_is_refused_before_anything_starts(node):
    line = node.fails("run", "small", FC_STANDIN_VERSION="1.10.0")
    assert "small cannot be resumed here" in line and "1.10.0" in line and "1.14.1" in line
    node.ok("run", "small", "--name", "a")
    node.ok("pause", "a")
    assert "a cannot be resumed here" in node.fails("resume", "a", FC_STANDIN_VERSION="1.10.0")
    assert node.states() == {"a": "paused"}
    record = node.store / "templates/small/template.json"
    text = json.loads(record.read_text())
    text["hugepages"] = True
    text["memory"] = 1 << 19
    record.chmod(0o600)
    record.write_text(json.dumps(text))
    assert "pages of 2 MiB" in node.fails("run", "small")
    assert "no template" in node.fails("run", "nobody")


def test_a_vmm_that_does_not_answer_keeps_nobody_waiting(node):
    node.ok("run", "small", "--name", "a", "--wait", FC_STANDIN_FAULT="hang@/balloon")
    node.ok("run", "small", "--name", "b", "--wait")
    begin = time.monotonic()
    done = node.run("ps")
    assert time.monotonic() - begin < 3
    assert done.returncode == 1 and "no answer" in done.stdout and "thaw ps: a: " in done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [["a", "small", "running"], ["b", "small", "running"]]
    node.ok("kill", "a")
    assert node.states() == {"a": "dead", "b": "running"}


def test_a_broken_record_is_shown_as_such_and_can_be_removed(node):
    node.ok("run", "small", "--name", "a")
    node.ok("run", "small", "--name", "b")
    pid = node.pid("a")
    record = node.path("a", "sandbox.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "frozen"}))
    done = node.run("ps")
    assert done.returncode == 1 and "broken" in done.stdout and "frozen" in done.stderr
    assert any(line.split()[:3] == ["b", "small", "running"] for line in done.stdout.splitlines())
    assert "frozen" in node.fails("resume", "a")
    assert "frozen" in node.fails("rm", "a")
    assert is_alive(pid)
    node.ok("rm", "--force", "a")
    assert not is_alive(pid) and list(node.states()) == ["b"]


def test_what_is_asked_wrongly_is_a_usage_error(node):
    for args in (["run"], ["run", "small", "--count", "0"], ["run", "small", "--name", "a.b"], ["exec", "a"], ["rm"],
                 ["fork"], ["pause"], ["resume"], ["kill"], ["logs"], ["balloon", "a", "x"], ["run", "small", "--timeout", "x"],
                 ["logs", "a", "--vmm", "--pager"]):
        node.fails(*args, code=2)
    assert "no sandbox a in the store" in node.fails("pause", "a")
    assert "no sandbox a in the store" in node.fails("ps", "a")
    assert node.ok("ps") == ""
    node.ok("run", "small", "--name", "a")
    assert "there is a sandbox a" in node.fails("run", "small", "--name", "a")
    assert "a runs: kill it first" in node.fails("rm", "a")
    node.ok("pause", "a")
    assert "is paused" in node.fails("kill", "a") and "is paused" in node.fails("pause", "a")
    assert "is paused" in node.fails("exec", "a", "true")


def test_who_may_not_look_is_not_told_that_there_is_nothing(node):
    (node.store / "sandboxes").write_text("not a folder")  # as good as one that may not be entered, and root may enter all
    for verb in (["ps", "a"], ["logs", "a"], ["exec", "a", "true"], ["kill", "a"], ["rm", "a"]):
        assert "Not a directory" in node.fails(*verb)


def test_a_store_that_is_not_there_is_not_an_empty_one(node):
    for verb in (["ps"], ["template", "ls"]):
        assert "cannot open the store /nobody/has/this" in node.fails(*verb, "--store", "/nobody/has/this")
        assert "cannot open the store" in node.fails(*verb, THAW_STORE="/nobody/has/this")


@pytest.mark.parametrize("words", [["--help"], ["version"], ["ps", "--help"], ["template", "ls", "--help"]], ids=" ".join)
def test_what_cannot_be_printed_is_a_failure(node, words):
    done = node.run(*words, before=["sh", "-c", 'exec "$@" >/dev/full', "sh"])
    assert done.returncode == 1 and done.stderr.endswith("cannot write: No space left on device\n"), done


def test_images_of_templates_and_sandboxes_are_removed_with_them_only(node):
    node.ok("run", "small", "--name", "a")
    assert "the template small" in node.fails("image", "rm", "small")
    node.exec("a", "echo kept > /note")
    node.ok("pause", "a")
    line = node.fails("image", "rm", "sandbox.a.1")
    assert "sandbox.a.1" in line and "the sandbox a" in line and "thaw rm" in line
    node.ok("resume", "a", "--wait")
    assert node.exec("a", "cat /note") == "kept\n"
    node.ok("rm", "--force", "a")
    (node.store / "templates" / "small" / "template.json").write_text("{")
    node.ok("image", "rm", "small")  # nobody knows any more whose it is


def test_a_store_may_be_a_link_to_where_there_is_room(node):
    link = node.folder / "link"
    link.symlink_to(node.store)
    node.environment["THAW_STORE"] = str(link)
    node.ok("run", "small", "--name", "a", "--wait")
    node.ok("pause", "a")
    node.ok("fork", "a", "--name", "b")
    node.ok("resume", "a", "--wait")
    for name in ("a", "b"):
        everything_is_right(node, name)
    node.ok("rm", "--force", "a", "b")
    node.ok("template", "rm", "small")
    assert link.is_symlink() and not list((node.store / "sandboxes").iterdir())
    node.nothing_runs()


# ---- deaths


def test_a_vmm_that_was_killed_makes_a_dead_sandbox_that_goes_back_to_its_pause(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "echo paused > /note")
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")
    node.exec("a", "echo lost > /note")
    kill(node.pid("a"))
    dead = node.ps("a")
    assert dead["state"] == "dead" and "killed by signal 9" in dead["end"]
    assert "a is dead" in node.fails("pause", "a")
    node.ok("resume", "a", "--wait")
    assert node.exec("a", "cat /note") == "paused\n"
    node.run("exec", "a", "vmm-exit 3")
    thawtest.wait_until(lambda: node.ps("a")["state"] == "dead", "the end of the VMM")
    assert "exited with status 3" in node.ps("a")["end"]


def test_a_dead_sandbox_that_was_never_paused_has_nothing_to_go_back_to(node):
    node.ok("run", "small", "--name", "a")
    kill(node.pid("a"))
    assert "never paused" in node.fails("resume", "a")
    node.ok("rm", "a")
    node.nothing_runs()


def test_a_pager_that_was_killed_is_followed_by_its_supervisor(node):
    node.ok("run", "small", "--name", "a", "--wait")
    kill(node.serving_pid("a"))
    everything_is_right(node, "a")
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")


def test_a_pager_that_was_killed_with_its_supervisor_is_followed_when_somebody_looks(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "fill 100")
    for _ in range(2):
        supervisor, pager = node.pid("a", "pager.pid"), node.serving_pid("a")
        kill(supervisor)
        kill(pager)
        assert node.ps("a")["state"] == "running"
        assert node.pid("a", "pager.pid") != supervisor
        everything_is_right(node, "a")
    kill(node.pid("a", "pager.pid"))  # the one that serves goes on without
    everything_is_right(node, "a")
    node.ok("pause", "a")
    node.nothing_runs()
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")


def test_when_vmm_and_pager_are_killed_nothing_is_left_over(node):
    node.ok("run", "small", "--name", "a", "--wait")
    supervisor, pager, vmm = node.pid("a", "pager.pid"), node.serving_pid("a"), node.pid("a")
    for pid in (supervisor, pager, vmm):
        os.kill(pid, signal.SIGKILL)
    thawtest.wait_until(lambda: not is_alive(vmm), "the end of the VMM")
    assert node.ps("a")["state"] == "dead"
    node.nothing_runs()
    node.ok("rm", "a")
    assert node.states() == {}


def test_the_template_may_go_and_its_sandboxes_stay(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.ok("pause", "a")
    assert "remove them first" in node.fails("template", "rm", "small")
    for path in (node.store / "templates/small").iterdir():
        path.unlink()
    (node.store / "templates/small").rmdir()
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")
