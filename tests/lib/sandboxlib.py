# SPDX-License-Identifier: Apache-2.0
"""
sandboxlib.py - stores with a template, and the sandboxes in them

    node = Node(folder, PATH=...)            a store, and the environment that `thaw` is run with
    node.ok("template", "build", ...)
    node.ok("run", "small", "--name", "a")
    assert node.ps("a")["state"] == "running"
    line = node.fails("pause", "nobody")     the one line that says why
    node.close()                             every process that lives in the store is killed, by its number

A process belongs to a store if its working folder is in it: VMMs and pagers have theirs in the sandbox's folder.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import select
import shutil
import signal
import struct
import subprocess
import tempfile

import pytest

import fclib
import thawtest

LIMIT = 60  # seconds for one run of `thaw`


def processes_in(folder):
    """{pid: name} of all whose working folder is in this one, or was when it was removed."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            cwd = os.readlink(f"/proc/{entry}/cwd")
            if cwd == str(folder) or cwd.startswith(f"{folder}/"):
                found[int(entry)] = pathlib.Path(f"/proc/{entry}/comm").read_text().strip()
    return found


def kill(pid):
    """Until all of its threads have ended: the first one can be a zombie before that."""
    fd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        thawtest.wait_until(lambda: select.select([fd], [], [], 0)[0], f"the end of process {pid}")
    finally:
        os.close(fd)


class Node:
    """A store, and how thaw is run on it. environment: what is set for it, and for the VMMs that it starts."""

    def __init__(self, folder, template=None, **environment):
        self.folder = pathlib.Path(folder)
        self.store = self.folder / "store"
        self.state = self.folder / "state"
        self.state.mkdir(parents=True)
        self.environment = environment
        if template:
            shutil.copytree(template, self.store, symlinks=True)

    # ---- running thaw

    def argv(self, *args):
        """A command line."""
        args = [str(a) for a in args]
        if args[0] == "run":
            args[1:1] = ["--state", str(self.state)]
        return [thawtest.program("THAW"), *args]

    def run(self, *args, before=(), **environment):
        """A run of thaw to its end. before: words in front of the command line, such as strace and its options."""
        env = {**os.environ, "THAW_STORE": str(self.store), **self.environment, **environment}
        return subprocess.run([*before, *self.argv(*args)], check=False, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=LIMIT, env=env)

    def ok(self, *args, **environment):
        """What is printed by a run that must succeed, and says nothing on stderr."""
        done = self.run(*args, **environment)
        assert (done.returncode, done.stderr) == (0, ""), f"{args}: {done}\n{self.logs()}"
        return done.stdout

    def fails(self, *args, code=1, **environment):
        """The one line of a run that must fail."""
        done = self.run(*args, **environment)
        assert done.returncode == code and done.stderr.count("\n") == 1, f"{args}: {done}\n{self.logs()}"
        assert done.stderr.startswith(f"thaw {args[0]}"), done.stderr
        return done.stderr.strip()

    # ---- sandboxes

    def ps(self, name=None):
        """What is known of a sandbox; or {name: that} of all."""
        done = self.run("ps", "--json", *([name] if name else []))
        assert done.returncode == 0, done
        all_ = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
        return all_[name] if name else all_

    def states(self):
        """{name: state} of all."""
        return {name: one["state"] for name, one in self.ps().items()}

    def exec(self, name, command):
        """What a command in a sandbox prints; it must succeed."""
        return self.ok("exec", name, "--", command)

    def path(self, name, *parts):
        """Something in the folder of a sandbox."""
        return self.store.joinpath("sandboxes", name, *parts)

    def pid(self, name, file="pid"):
        """Of its VMM, or ("pager.pid") its pager."""
        return int(self.path(name, "vm", file).read_text().split()[0])

    def serving_pid(self, name):
        """Of the process that answers the faults: a child of the pager, or that itself."""
        return serving(self.pid(name, "pager.pid"))

    # ---- what is left

    def processes(self):
        """{pid: name} of all that live in the store."""
        return processes_in(self.store)

    def nothing_runs(self):
        """Until no process lives in the store, and no pager has left its state."""
        thawtest.wait_until(lambda: not self.processes(), f"the end of {self.processes()}")
        assert not list(self.state.iterdir())

    def stored(self):
        """(names of images, number of manifests, bytes of packs)."""
        names = sorted(path.name for path in (self.store / "names").iterdir())
        packs = sum(path.stat().st_size for path in (self.store / "packs").iterdir())
        return names, len(list((self.store / "manifests").iterdir())), packs

    def logs(self):
        """The ends of all logs, for a test that failed."""
        parts = []
        for path in sorted(self.store.glob("sandboxes/*/*/*.log")):
            parts.append(f"{path.relative_to(self.store)}: {path.read_text(errors='replace')[-600:]}")
        return "\n".join(parts)

    def close(self):
        """Kill all that lives in the store: VMMs first."""
        for _ in range(3):
            for pid, _name in sorted(self.processes().items(), key=lambda item: item[1] == "thaw"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                thawtest.wait_until(lambda: not self.processes(), "the end of all", 5)
                break
        shutil.rmtree(self.folder, ignore_errors=True)


def serving(pid):
    """The pager that a supervisor has started."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def counters(node, name):
    """What its pager has counted until now."""
    path = node.path(name, "vm", "pager.stats")
    before = path.stat().st_ino if path.exists() else 0  # it is replaced
    os.kill(node.serving_pid(name), signal.SIGUSR1)
    thawtest.wait_until(lambda: path.exists() and path.stat().st_ino != before, "the statistics of the pager")
    return json.loads(path.read_text())["counters"]


def take_working_set_out(node, name):
    """A paused sandbox gets an image that is the same but for its working set, which is none. Return: how many pages that had."""
    path = node.path(name, "sandbox.json")
    record = json.loads(path.read_text())
    manifests = node.store / "manifests"
    data = (manifests / record["image"]).read_bytes()
    (n_runs,) = struct.unpack_from("<Q", data, 56)
    hot = struct.iter_unpack("<QQ", data[len(data) - 32 - 16 * n_runs:-32])
    rest = data[:56] + bytes(8) + data[64:len(data) - 32 - 16 * n_runs]
    digest = hashlib.sha256(rest)
    (manifests / digest.hexdigest()).write_bytes(rest + digest.digest())
    (node.store / "names" / f"sandbox.{name}.{record['generation']}").write_text(digest.hexdigest() + "\n")
    path.write_text(json.dumps(record | {"image": digest.hexdigest()}))
    return sum(n for _, n in hot)


def everything_is_right(node, name):
    """Its guest finds every page as it must be."""
    assert "pages are right" in node.exec(name, "check all")


def small_template(folder, *options, **environment):
    """A store with the template `small`: a guest of 32 MiB. Return: (the store, a PATH that has the stand-in)."""
    folder = pathlib.Path(folder)
    programs = folder / "programs"
    programs.mkdir(parents=True)
    fclib.install(programs)
    path = f"{programs}:{os.environ['PATH']}"
    node = Node(folder / "node", PATH=path, FC_STANDIN_PATTERN_MIB="4", **environment)
    for name in ("kernel", "rootfs"):
        (folder / name).write_text(name)
    node.ok("template", "build", "small", "--vmm", "firecracker", "--kernel", folder / "kernel", "--rootfs",
            folder / "rootfs", "--memory", 32, *options)
    return node.store, path


@contextlib.contextmanager
def small_template_in_memory(*options):
    """small_template(), where to write durably takes no time. For a fixture of what is about thaw alone."""
    if thawtest.reference():
        pytest.skip("about thaw, not about the reference pager")
    with tempfile.TemporaryDirectory(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) as folder:
        yield small_template(folder, *options)


@contextlib.contextmanager
def node_of(template):
    """A store of one's own with the template; all that was started in it is killed."""
    store, path = template
    one = Node(tempfile.mkdtemp(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) + "/node", store, PATH=path)
    try:
        yield one
    finally:
        one.close()
        one.folder.parent.rmdir()


@contextlib.contextmanager
def empty_node():
    """An empty store with the stand-in on PATH, and a `kernel` for templates; all that was started in it is killed."""
    with tempfile.TemporaryDirectory(prefix="thaw-test-", dir=thawtest.tmpfs_dir()) as folder:
        programs = os.path.join(folder, "programs")
        os.mkdir(programs)
        fclib.install(programs)
        made = Node(folder + "/node", PATH=f"{programs}:{os.environ['PATH']}", FC_STANDIN_PATTERN_MIB="4")
        made.kernel = made.folder / "kernel"
        made.kernel.write_text("kernel")
        try:
            yield made
        finally:
            made.close()
