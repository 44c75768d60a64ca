# SPDX-License-Identifier: Apache-2.0
"""
A command line about sandboxes is killed at a call that changes something: nothing that was acknowledged is lost, and nothing is
left over.

Its main thread is killed before each such call; what it has started lives on, as it does when a user's terminal goes away.
`thaw ps` then puts everything in order. Some of the calls are taken at random. By hand, all of them, in some minutes:

    THAW_CRASH_EVERYWHERE=1 meson test -C build 'sandboxes outlive a kill of the command line at any moment'
"""

import os
import re

import pytest

import sandboxlib
import thawtest
from imagelib import new_rng
from sandboxlib import everything_is_right

CHANGES = ("mkdir", "mkdirat", "openat", "write", "fsync", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat",
           "rmdir", "sendto", "sendmsg", "clone", "clone3", "fork", "vfork", "kill", "pidfd_send_signal", "flock", "connect")
EVERYWHERE = bool(os.environ.get("THAW_CRASH_EVERYWHERE"))
MOST_PLACES = 1 << 30 if EVERYWHERE else 6


@pytest.fixture(scope="module")
def template():
    """sandboxlib.small_template(), in memory."""
    thawtest.needs_strace()
    with sandboxlib.small_template_in_memory() as one:
        yield one


class Scene:
    """One store; sandboxes come and go in it."""

    def __init__(self, node):
        self.node, self.n = node, 0
        self.images = node.stored()[0]

    def fresh(self):
        """A name that nobody has."""
        self.n += 1
        return f"s{self.n}"

    def running(self):
        """A running sandbox whose guest remembers a pause, and what it did since."""
        name = self.fresh()
        self.node.ok("run", "small", "--name", name, "--wait")
        self.node.exec(name, "fill 60; echo before > /note")
        self.node.ok("pause", name)
        self.node.ok("resume", name, "--wait")
        self.node.exec(name, "fill 60; echo after > /note")
        return name

    def paused(self):
        """The same, paused then."""
        name = self.running()
        self.node.ok("pause", name)
        return name

    def note(self, name):
        """What its guest remembers; all of its memory must be right."""
        if self.node.ps(name)["state"] in ("paused", "dead"):
            self.node.ok("resume", name, "--wait")
        everything_is_right(self.node, name)
        return self.node.exec(name, "cat /note").strip()

    def clear(self):
        """Remove all that is there. Nothing may be left over."""
        names = list(self.node.states())
        if names:
            self.node.ok("rm", "--force", *names)
        self.node.nothing_runs()

        def is_clear():
            self.node.ok("image", "gc")
            return self.node.stored()[:2] == (self.images, 1)

        # What decompresses an image for its pagers holds it until a moment after the last of them.
        thawtest.wait_until(is_clear, f"nothing to be left over: {self.node.stored()[:2]}")
        assert not [path for path in (self.node.store / "sandboxes").iterdir() if not path.name.startswith(".")]

    def end(self):
        """What a dead maker or remover has left under a hidden name goes away with the next one."""
        self.node.ok("run", "small", "--name", "last")
        self.node.ok("rm", "--force", "last")
        assert not list((self.node.store / "sandboxes").iterdir())


@pytest.fixture
def scene(lab, template):  # pylint: disable=unused-argument
    """A store of one's own with the template."""
    with sandboxlib.node_of(template) as node:
        yield Scene(node)


def places(scene, args, rng):
    """[(call, which one)] of a run: before each call that changes something, and so after each, too; or some of them."""
    log = scene.node.folder / "calls"
    done = scene.node.run(*args, before=["strace", "-e", f"trace={','.join(CHANGES)}", "-o", str(log)])
    assert done.returncode == 0, done
    counts, found = {}, []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if not match:
            continue
        call = match[1]
        counts[call] = counts.get(call, 0) + 1
        if call != "openat" or "O_CREAT" in line:
            found.append((call, counts[call]))
    print(f"{args[0]}: {len(found)} places")
    return rng.sample(found, min(len(found), MOST_PLACES))


def kill_at(scene, args, call, n):
    """Run a verb, and kill it before a call. Return: whether it was."""
    done = scene.node.run(*args, before=["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                                         f"inject={call}:signal=KILL:when={n}"])
    assert done.returncode in (0, -9, 137), done
    return done.returncode != 0


def each_place(scene, rng, prepare, args, check):
    """Kill `args` at places. prepare: makes a sandbox, returns its name. check: what must be then (name, whether it was killed)."""
    chosen = places(scene, args(prepare()), rng)
    scene.clear()
    killed = 0
    for call, n in chosen:
        name = prepare()
        was_killed = kill_at(scene, args(name), call, n)
        killed += was_killed
        try:
            check(name, was_killed)
            scene.clear()
        except BaseException:
            print(f"killed before {call} number {n}: {was_killed}\n{scene.node.run('ps', '--json').stdout}\n{scene.node.logs()}")
            raise
    scene.end()
    print(f"killed {killed} times")
    assert killed >= min(4, len(chosen))


def test_killed_at_any_call_run_leaves_a_sandbox_that_runs_or_none(scene):
    def check(name, was_killed):
        states = scene.node.states()
        assert states in ({name: "running"}, {}) and (was_killed or states)
        if states:
            everything_is_right(scene.node, name)

    each_place(scene, new_rng(), scene.fresh, lambda name: ["run", "small", "--name", name], check)


def test_killed_at_any_call_pause_leaves_a_guest_that_goes_on_or_a_whole_pause(scene):
    def check(name, was_killed):
        one = scene.node.ps(name)
        assert (one["state"], one["generation"]) in (("running", 1), ("paused", 2)) and (was_killed or one["state"] == "paused")
        assert scene.note(name) == "after"

    each_place(scene, new_rng(), scene.running, lambda name: ["pause", name, "--threads", 1], check)


def test_killed_at_any_call_resume_leaves_the_pause_or_a_guest_that_runs(scene):
    def check(name, was_killed):
        one = scene.node.ps(name)
        assert one["state"] in ("running", "paused") and (was_killed or one["state"] == "running") and one["generation"] == 2
        assert scene.note(name) == "after"

    each_place(scene, new_rng(), scene.paused, lambda name: ["resume", name], check)


def test_killed_at_any_call_fork_leaves_its_origin_and_a_whole_fork_or_none(scene):
    def check(name, was_killed):
        states = scene.node.states()
        assert states.pop(name) == "paused"
        assert states in ({}, {"fork": "paused"}) and (was_killed or states)
        for one in (name, *states):
            assert scene.note(one) == "after"

    each_place(scene, new_rng(), scene.paused, lambda name: ["fork", name, "--name", "fork", "--paused"], check)


def test_killed_at_any_call_kill_and_rm_leave_what_can_be_removed(scene):
    def check(name, was_killed):
        states = scene.node.states()
        assert states in ({name: "running"}, {name: "dead"}, {name: "paused"}, {}) and (was_killed or not states)

    each_place(scene, new_rng(), scene.running, lambda name: ["rm", "--force", name], check)
