# SPDX-License-Identifier: Apache-2.0
"""
Sandboxes in jails, end to end: the stand-ins for Firecracker and its jailer, which leaves behind what the real one does.

Only root can make a jail. What is refused is tested in any case. With FIRECRACKER, JAILER, FIRECRACKER_KERNEL,
FIRECRACKER_INITRD (test_driver_fc.py) and /dev/kvm a life in a jail is also one of a real Firecracker.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import fclib
import sandboxlib
import thawtest
from sandboxlib import everything_is_right

USER, GROUP = 23456, 23457
JAIL = ("--jail", f"{USER}:{GROUP}")


@pytest.fixture(scope="module")
def template():
    """sandboxlib.small_template()."""
    with sandboxlib.small_template_in_memory("--free-page-reporting", "off") as one:
        yield one


@pytest.fixture
def any_node(lab, template):  # pylint: disable=unused-argument
    """A store of one's own with the template; all that was started in it is killed."""
    with sandboxlib.node_of(template) as one:
        yield one


@pytest.fixture
def node(any_node):
    """The same, where jails can be made."""
    fclib.needs_jail(any_node.folder)
    return any_node


def jail_of(node, name):
    """The root of a sandbox's jail, by the link that leads to it."""
    return pathlib.Path(os.readlink(node.path(name, "vm", "root")))


def is_jailed(node, name):
    """Its VMM is who and where it should be."""
    pid, root = node.pid(name), jail_of(node, name)
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    assert re.search(rf"^Uid:(\s+{USER}){{4}}$", status, re.MULTILINE), status
    assert re.search(rf"^Gid:(\s+{GROUP}){{4}}$", status, re.MULTILINE), status
    assert os.path.samefile(f"/proc/{pid}/root", root)
    assert root.parent.name == node.ps(name)["jail"]["id"]
    for file in ("rootfs", "vmstate"):
        assert (root / file).stat().st_uid == USER
    return root


def no_jail_is_left(node, name):
    """Neither devices nor the copy of a program nor the way to it."""
    folder = node.path(name)
    assert not [path for path in folder.rglob("*") if path.name in ("jail", "root", "kvm", "firecracker")], list(folder.rglob("*"))


def test_a_sandbox_in_a_jail_runs_is_paused_goes_on_and_leaves_nothing(node):
    before = node.stored()
    assert node.ok("run", "small", "--name", "a", "--wait", *JAIL) == "a\n"
    jail = node.ps("a")["jail"]
    assert (jail["uid"], jail["gid"], jail["cgroup_version"]) == (USER, GROUP, 0)
    root = is_jailed(node, "a")
    assert root.is_relative_to(node.path("a", "vm", "jail")) and not (root / "kernel").exists()
    node.exec("a", "echo hello > /note; fill 100")
    outside = node.folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (root / "dev/link").symlink_to(outside)
    asked = node.ok("logs", "--vmm", "a").count("/version")
    node.ok("pause", "a")
    node.nothing_runs()
    no_jail_is_left(node, "a")
    assert node.ok("logs", "--vmm", "a").count("/version") == asked + 1  # it was paused, and written down
    node.ok("resume", "a", "--wait")
    is_jailed(node, "a")
    assert node.exec("a", "cat /note") == "hello\n"
    everything_is_right(node, "a")
    node.ok("kill", "a")
    no_jail_is_left(node, "a")
    assert node.ps("a")["end"] == "killed by thaw kill"
    node.ok("resume", "a")
    node.ok("rm", "--force", "a")
    node.nothing_runs()
    assert node.stored() == before and list((node.store / "sandboxes").iterdir()) == []
    assert (outside / "file").read_text() == "precious"


def test_forks_and_many_have_jails_of_their_own(node):
    assert node.ok("run", "small", "--name", "a_b", "--count", 2, *JAIL) == "a_b-1\na_b-2\n"
    node.exec("a_b-1", "fill 50; echo origin > /who")
    node.ok("pause", "a_b-1")
    node.ok("fork", "a_b-1", "--name", "f", "--wait")
    node.ok("resume", "a_b-1")
    names = ("a_b-1", "a_b-2", "f")
    assert len({is_jailed(node, name) for name in names}) == 3
    ids = [node.ps(name)["jail"]["id"] for name in names]
    assert len(set(ids)) == 3 and all(re.fullmatch(r"(a-b-[12]|f)-[0-9a-f]{8}", one) for one in ids)
    node.ok("rm", "--force", "a_b-1")
    assert node.exec("f", "cat /who") == "origin\n"
    everything_is_right(node, "f")


def test_a_disk_that_is_only_read_is_shared(node, tmp_path):
    for name in ("kernel", "rootfs"):
        (tmp_path / name).write_text(name)
    node.ok("template", "build", "ro", "--vmm", "firecracker", "--kernel", tmp_path / "kernel", "--rootfs", tmp_path / "rootfs",
            "--rootfs-read-only", "--memory", 32, "--free-page-reporting", "off")
    disk = node.store / "templates/ro/rootfs"
    assert disk.stat().st_mode & 0o777 == 0o444 and node.store.joinpath("templates/ro").stat().st_mode & 0o077 == 0
    node.ok("run", "ro", "--name", "a", "--wait", *JAIL)
    assert os.path.samefile(jail_of(node, "a") / "rootfs", disk) and disk.stat().st_uid == os.geteuid()
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")
    assert os.path.samefile(jail_of(node, "a") / "rootfs", disk)
    disk.chmod(0o600)  # as templates were once built
    node.ok("run", "ro", "--name", "b", "--wait", *JAIL)
    is_jailed(node, "b")
    assert disk.stat().st_uid == os.geteuid()


def test_a_jail_goes_when_its_vmm_has_died(node):
    node.ok("run", "small", "--name", "a", *JAIL)
    sandboxlib.kill(node.pid("a"))
    assert "killed by signal 9" in node.ps("a")["end"]
    no_jail_is_left(node, "a")
    node.nothing_runs()
    node.ok("run", "small", "--name", "b", *JAIL)
    for pid in (node.pid("b", "pager.pid"), node.serving_pid("b")):
        sandboxlib.kill(pid)
    everything_is_right(node, "b")  # another pager, for a VMM of somebody else
    record = node.path("b", "sandbox.json")
    record.write_text("{}")
    node.ok("rm", "--force", "b")
    node.nothing_runs()


def test_a_jail_goes_when_the_command_line_was_killed(node, lab):
    node.environment["FC_STANDIN_FAULT"] = "hang@/snapshot/load"
    os.environ.update(THAW_STORE=str(node.store), **node.environment)
    try:
        starter = lab.start("run", node.argv("run", "small", "--name", "a", *JAIL))
    finally:
        for name in ("THAW_STORE", "FC_STANDIN_FAULT"):
            del os.environ[name]
    del node.environment["FC_STANDIN_FAULT"]
    log = node.path("a", "vm", "vmm.log")
    thawtest.wait_until(lambda: log.exists() and "/snapshot/load" in log.read_text(), "the request that is not answered")
    os.kill(starter.pid, signal.SIGKILL)
    thawtest.wait_until(lambda: not starter.running(), "the end of the command line")
    assert node.processes() and node.ps() == {}
    node.nothing_runs()
    assert not list((node.store / "sandboxes").iterdir())


def test_a_jailed_vmm_is_found_when_its_program_has_another_name(node):
    programs = node.folder / "programs"
    programs.mkdir()
    program = fclib.install(programs)
    for version in (1, 2):
        shutil.copy(program, programs / f"firecracker-{version}")
    program.unlink()
    program.symlink_to("firecracker-1")
    node.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    node.ok("run", "small", "--name", "a", "--wait", *JAIL)
    assert jail_of(node, "a").parts[-3] == "firecracker-1"
    program.unlink()
    program.symlink_to("firecracker-2")
    everything_is_right(node, "a")
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")
    assert jail_of(node, "a").parts[-3] == "firecracker-2"
    program.unlink()
    everything_is_right(node, "a")
    node.ok("kill", "a")
    no_jail_is_left(node, "a")
    node.nothing_runs()


def test_a_state_that_is_no_file_is_no_pause(node):
    node.ok("run", "small", "--name", "a", "--wait", *JAIL)
    root = jail_of(node, "a")
    node.exec("a", "echo kept > /note")
    (root / "rootfs").unlink()
    os.mkfifo(root / "rootfs")  # as its user may at any time
    assert "neither a file nor a folder" in node.fails("pause", "a")
    assert node.exec("a", "cat /note") == "kept\n"
    (root / "rootfs").unlink()
    (root / "rootfs").symlink_to("/etc/passwd")
    assert "paused.1" in node.fails("pause", "a")
    assert node.exec("a", "cat /note") == "kept\n" and not list(node.path("a").glob("paused.*"))


def test_names_may_be_long(node):
    deep = node.folder.joinpath(*(["a-folder-with-a-long-name"] * 8))
    deep.parent.mkdir(parents=True)
    shutil.move(node.store, deep)
    node.store = deep
    name = "n" * 64
    node.ok("run", "small", "--name", name, "--wait", *JAIL)
    assert len(str(is_jailed(node, name))) > 350
    node.ok("pause", name)
    node.ok("resume", name, "--wait")
    everything_is_right(node, name)
    node.ok("rm", "--force", name)


# ---- cgroups, network


def a_cgroup():
    """(folder of a hierarchy that may be changed, its version, a setting that it knows, the stand-in's --cgroup root)."""
    for line in pathlib.Path("/proc/mounts").read_text(encoding="ascii").splitlines():
        _, where, kind, options = line.split()[:4]
        setting = {"cgroup2": "cgroup.max.depth=7", "cgroup": "pids.max=77"}.get(kind)
        path = pathlib.Path(where)
        if not setting or (kind == "cgroup" and (path.name != "pids" or "pids" not in options.split(","))):
            continue
        with contextlib.suppress(OSError):
            (path / "thaw-test-probe").mkdir()
            (path / "thaw-test-probe").rmdir()
            return path, 2 if kind == "cgroup2" else 1, setting, path if kind == "cgroup2" else path.parent
    pytest.skip("no cgroup can be made here")


def test_a_cgroup_has_the_vmm_and_goes_with_it(node):
    mount, version, setting, root = a_cgroup()
    node.environment["FC_STANDIN_CGROUP_ROOT"] = str(root)
    wish = [*JAIL, "--cgroup-version", version, "--cgroup", setting]
    key, value = setting.split("=")
    a, b, c = (f"cg{os.getpid()}{letter}" for letter in "abc")

    def groups():
        return sorted(path for path in (mount / "firecracker").glob(f"cg{os.getpid()}*") if path.is_dir())

    def check(name):
        group = mount / "firecracker" / node.ps(name)["jail"]["id"]
        assert (group / key).read_text().strip() == value
        assert str(node.pid(name)) in (group / "cgroup.procs").read_text().split()

    try:
        node.ok("run", "small", "--name", a, *wish)
        assert node.ps(a)["jail"]["cgroups"] == [setting]
        check(a)
        node.ok("pause", a)
        assert not groups()
        node.ok("fork", a, "--name", b)
        check(b)
        node.ok("kill", b)
        assert not groups()
        node.ok("resume", a)
        sandboxlib.kill(node.pid(a))
        assert node.ps(a)["state"] == "dead"
        assert not groups()
        assert "refused by the test" in node.fails("run", "small", "--name", c, *wish, FC_STANDIN_FAULT="refuse@/snapshot/load")
        assert not groups()
    finally:
        node.run("kill", a, b)
        for path in (*groups(), mount / "firecracker"):
            with contextlib.suppress(OSError):
                path.rmdir()


def test_a_jail_joins_a_network_namespace(node):
    assert "cannot use the network namespace /none/x" in node.fails("run", "small", "--name", "x", *JAIL, "--netns", "/none/{name}")
    with fclib.network_namespace() as one, fclib.network_namespace() as two:
        for name, path in (("n-1", one), ("n-2", two), ("f", one)):
            (node.folder / f"net-{name}").symlink_to(path)
        node.ok("run", "small", "--name", "n", "--count", 2, *JAIL, "--netns", f"{node.folder}/net-{{name}}")
        node.ok("pause", "n-1")
        node.ok("fork", "n-1", "--name", "f", "--wait")
        assert [os.readlink(f"/proc/{node.pid(name)}/ns/net") for name in ("f", "n-2")] == [os.readlink(one), os.readlink(two)]
        assert os.readlink("/proc/self/ns/net") not in (os.readlink(one), os.readlink(two))
        everything_is_right(node, "f")


# ---- what is refused


@pytest.mark.parametrize("wish, words", [
    (["--netns", "/n"], "--netns is about a jail, and --jail is missing"),
    (["--jailer", "x"], "--jail is missing"),
    (["--cgroup", "memory.max=1"], "--jail is missing"),
    (["--cgroup-version", "2"], "--jail is missing"),
    (["--jail", "0"], "--jail 0: expected UID or UID:GID"),
    (["--jail", "12:x"], "expected UID or UID:GID"),
    (["--jail", "4294967295"], "expected UID or UID:GID"),
    ([*JAIL, "--netns", "n"], "expected the absolute path"),
    ([*JAIL, "--cgroup", "../x=1"], "expected KEY=VALUE"),
    ([*JAIL, "--cgroup", "memory.max"], "expected KEY=VALUE"),
    ([*JAIL, "--cgroup-version", "3"], "expected 1 or 2"),
])
def test_a_jail_that_cannot_be_meant_is_a_usage_error(any_node, wish, words):
    assert words in any_node.fails("run", "small", *wish, code=2)


def test_what_has_no_jail_is_refused_before_anything_is_made(any_node):
    record = any_node.store / "templates/small/template.json"
    text = json.loads(record.read_text())
    record.chmod(0o600)
    record.write_text(json.dumps(text | {"vmm": "qemu", "vmm_version": "7.2.22"}))
    assert "jail: qemu has none" in any_node.fails("run", "small", *JAIL)
    record.write_text(json.dumps(text))
    if os.geteuid() == 0:
        assert "/none/jailer" in any_node.fails("run", "small", *JAIL, "--jailer", "/none/jailer")
    assert any_node.states() == {} and not list(any_node.store.glob("sandboxes/*"))


def test_only_root_makes_a_jail(any_node):
    before = ()
    if os.geteuid() == 0:
        before = ("setpriv", "--reuid", str(USER), "--regid", str(GROUP), "--clear-groups")
        any_node.folder.parent.chmod(0o755)
        for path in (any_node.folder, *any_node.folder.rglob("*")):
            os.chown(path, USER, GROUP, follow_symlinks=False)
        if subprocess.run([*before, "test", "-x", thawtest.program("THAW")], check=False, timeout=10).returncode != 0:
            pytest.skip(f"user {USER} cannot reach {thawtest.program('THAW')}")
    done = any_node.run("run", "small", *JAIL, before=before)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "only root can make one" in done.stderr, done
    assert not list(any_node.store.glob("sandboxes/*"))


# ---- a real one


def test_a_real_firecracker_lives_in_a_jail(node):
    kernel, initrd = (os.environ.get(f"FIRECRACKER_{what}") for what in ("KERNEL", "INITRD"))
    program, jailer = fclib.real_firecracker(), os.environ.get("JAILER") or shutil.which("jailer")
    if not (program and jailer and kernel and initrd and os.access("/dev/kvm", os.R_OK | os.W_OK)):
        pytest.skip("no Firecracker here: FIRECRACKER, JAILER, FIRECRACKER_KERNEL, FIRECRACKER_INITRD and /dev/kvm make one")
    with tempfile.TemporaryDirectory(prefix="thaw-test-", dir="/var/tmp") as folder:  # what is in memory may have no devices
        real = sandboxlib.Node(f"{folder}/node")
        try:
            real.ok("template", "build", "real", "--vmm", "firecracker", "--vmm-program", program, "--kernel", kernel, "--initrd",
                    initrd, "--ready", "guest-is-ready")
            real.ok("run", "real", "--name", "a", "--wait", *JAIL, "--jailer", jailer)
            status = pathlib.Path(f"/proc/{real.pid('a')}/status").read_text()
            assert re.search(rf"^Uid:(\s+{USER}){{4}}$", status, re.MULTILINE), status
            assert os.path.samefile(f"/proc/{real.pid('a')}/root", jail_of(real, "a"))
            real.exec("a", "echo kept >/tmp/note")
            real.ok("pause", "a")
            no_jail_is_left(real, "a")
            real.ok("resume", "a", "--wait")
            assert real.exec("a", "cat /tmp/note") == "kept\n"
            real.ok("rm", "--force", "a")
        finally:
            real.close()
