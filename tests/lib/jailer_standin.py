#!/usr/bin/python3 -BSE
# SPDX-License-Identifier: Apache-2.0
"""
jailer_standin.py - a strict stand-in for Firecracker's jailer, for tests

The same command line and the same things left behind: `BASE/EXEC_NAME/ID/root` with a copy of the program, its device nodes
and `EXEC_NAME.pid`; then it becomes the program. What is different: a Python program cannot start inside an empty root, so
the program itself (fc_standin.py) makes the last steps, chroot and the change of user, once it is loaded; it is told to by
its environment. Everything that it does afterwards it does in the jail and as that user.

It needs root, as the real one does. FC_STANDIN_CGROUP_ROOT: a folder instead of /sys/fs/cgroup.
"""

import ctypes
import os
import pathlib
import re
import shutil
import stat
import sys

CLONE_NEWNET, CLONE_NEWPID = 0x40000000, 0x20000000
ONCE = ("id", "exec-file", "uid", "gid", "chroot-base-dir", "netns", "cgroup-version", "parent-cgroup")
MANY = ("cgroup", "resource-limit")
FLAGS = ("daemonize", "new-pid-ns", "version")
NEEDED = ("id", "exec-file", "uid", "gid")
FOLDERS = ("", "dev", "dev/net", "run")

libc = ctypes.CDLL(None, use_errno=True)


class JailerError(Exception):
    """One line."""


def parse_arguments(argv):
    """(options, what follows --)."""
    options = {name: [] for name in MANY} | {"chroot-base-dir": "/srv/jailer", "cgroup-version": "1"}
    seen, rest, extra = set(), list(argv), []
    if "--" in rest:
        at = rest.index("--")
        rest, extra = rest[:at], rest[at + 1:]
    while rest:
        word = rest.pop(0)
        name = word[2:] if word.startswith("--") else None
        if name in seen and name not in MANY:
            raise JailerError(f"The argument '{name}' was provided more than once.")
        seen.add(name)
        if name in FLAGS:
            options[name] = True
        elif name in ONCE + MANY:
            if not rest or rest[0].startswith("--"):
                raise JailerError(f"The argument '{name}' requires a value, but none was supplied.")
            value = rest.pop(0)
            options[name] = options[name] + [value] if name in MANY else value
        else:
            raise JailerError(f"Found argument '{word}' which wasn't expected, or isn't valid in this context.")
    for name in NEEDED:
        if name not in options and "version" not in options:
            raise JailerError(f"Argument '{name}' required, but not found.")
    return options, extra


def number(text, what):
    """A uid or gid."""
    if not text.isdigit() or int(text) >= 1 << 32:
        raise JailerError(f"Invalid {what}: {text}")
    return int(text)


def set_cgroups(options, exec_name):
    """One group for this VM, with these settings."""
    version = options["cgroup-version"]
    if version not in ("1", "2"):
        raise JailerError(f"{version} is an invalid cgroup version specifier")
    root = pathlib.Path(os.environ.get("FC_STANDIN_CGROUP_ROOT", "/sys/fs/cgroup"))
    parent = options.get("parent-cgroup", exec_name)
    for setting in options["cgroup"]:
        parts = setting.split("=")
        if len(parts) != 2 or not parts[1]:
            raise JailerError(f"Invalid format for cgroups: {setting}")
        if "/" in parts[0] or ".." in parts[0]:
            raise JailerError(f"Invalid cgroup file: {setting}")
        controller = parts[0].split(".")[0]
        group = (root if version == "2" else root / controller) / parent / options["id"]
        group.mkdir(parents=True, exist_ok=True)
        (group / parts[0]).write_text(parts[1])
        (group / "cgroup.procs").write_text(str(os.getpid()))


def set_limits(options):
    """--resource-limit fsize=N, no-file=N; 2048 files unless it is said."""
    import resource  # pylint: disable=import-outside-toplevel
    limits = {"no-file": 2048}
    for one in options["resource-limit"]:
        name, equals, value = one.partition("=")
        if not equals:
            raise JailerError(f"Invalid format for resources limits: {one}")
        if name not in ("fsize", "no-file"):
            raise JailerError(f"Invalid resource argument: {name}")
        if not value.isdigit():
            raise JailerError(f"Invalid limit value for resource: {value}")
        limits[name] = int(value)
    for name, value in limits.items():
        resource.setrlimit(resource.RLIMIT_FSIZE if name == "fsize" else resource.RLIMIT_NOFILE, (value, value))


def make_node(root, name, major, minor, uid, gid):
    """A device of the jail; it must not be there yet."""
    path = root / name
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
    os.chown(path, uid, gid)


def make_root(root, program, uid, gid):
    """Everything that is in the jail when the program starts."""
    root.mkdir(parents=True, exist_ok=True)
    copy = root / program.name
    fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o755)
    try:
        if os.fstat(fd).st_nlink > 1:
            raise JailerError(f"Detected hard link at: {copy}")
        os.fchown(fd, uid, gid)
    finally:
        os.close(fd)
    shutil.copyfile(program, copy)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        os.chmod(root / folder, 0o700)
        os.chown(root / folder, uid, gid)
    make_node(root, "dev/net/tun", 10, 200, uid, gid)
    make_node(root, "dev/kvm", 10, 232, uid, gid)
    make_node(root, "dev/urandom", 1, 9, uid, gid)
    for line in pathlib.Path("/proc/misc").read_text(encoding="ascii").splitlines():
        minor, name = line.split()
        if name == "userfaultfd":
            make_node(root, "dev/userfaultfd", 10, int(minor), uid, gid)


def daemonize():
    """A session of its own, nobody's child, and none of the three descriptors."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)


def write_pid(root, name, pid):
    """Where others learn which process it is; it must not be there yet."""
    fd = os.open(root / f"{name}.pid", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, str(pid).encode())
    os.close(fd)


def become(program, options, extra, root):
    """Turn into the program; never returns."""
    env = {name: value for name, value in os.environ.items() if name.startswith("FC_STANDIN_")}
    env |= {"FC_STANDIN_CHROOT": str(root), "FC_STANDIN_UID": options["uid"], "FC_STANDIN_GID": options["gid"]}
    argv = [str(program), "--id", options["id"], "--start-time-us", "1", "--start-time-cpu-us", "1",
            "--parent-cpu-time-us", "1", *extra]
    os.execve(program, argv, env)


def run(argv):
    """Only returns for --version."""
    options, extra = parse_arguments(argv)
    if "version" in options:
        print("Jailer v" + os.environ.get("FC_STANDIN_VERSION", "1.14.1") + "\n")
        return
    os.closerange(3, 4096)
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", options["id"]):
        raise JailerError(f"Invalid instance ID: {options['id']}")
    program = pathlib.Path(options["exec-file"]).resolve(strict=True)
    base = pathlib.Path(options["chroot-base-dir"]).resolve(strict=True)
    if not program.is_file():
        raise JailerError(f"{program} is not a file")
    uid, gid = number(options["uid"], "uid"), number(options["gid"], "gid")
    root = base / program.name / options["id"] / "root"
    if "netns" in options:
        fd = os.open(options["netns"], os.O_RDONLY)
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise JailerError(f"Failed to join network namespace: netns: {os.strerror(ctypes.get_errno())}")
        os.close(fd)
    set_limits(options)
    set_cgroups(options, program.name)
    make_root(root, program, uid, gid)
    if "daemonize" in options:
        daemonize()
    if "new-pid-ns" in options:
        if libc.unshare(CLONE_NEWPID) != 0:
            raise JailerError(f"Failed to clone: {os.strerror(ctypes.get_errno())}")
        pid = os.fork()
        if pid:
            write_pid(root, program.name, pid)
            os._exit(0)
    else:
        write_pid(root, program.name, os.getpid())
    become(program, options, extra, root)


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except (JailerError, OSError) as error:
        print(f"Error: Jailer error: {error}", file=sys.stderr)
        sys.exit(1)
