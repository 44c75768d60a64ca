#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""syscalls.py - collect the system calls that the source lists beside the code that makes them

    syscalls.py [--root ROOT] rules [serve|fill] [-o OUT] [--depfile FILE]   what syscall_filter_gen.c includes
    syscalls.py [--root ROOT] list [start|serve|fill]           names, one a line
    syscalls.py [--root ROOT] check                             calls in the source that no list has

A list is a line of a comment:

    #syscalls read write                     a serving pager makes them: they are in the seccomp filter
    #syscalls ioctl:1=UFFDIO_COPY,UFFDIO_WAKE    only if argument 1 (of 0 to 5) is one of these constants
    #syscalls mmap:2&PROT_EXEC=0             only if argument 2, masked, is this
    #syscalls futex     locks                two blanks end the list; the rest is for people
    #syscalls:start socket bind              made before the filter is on, or by a supervisor, which has none; not in it
    #syscalls:fill accept4                   a filler makes them, `thaw image fill`: they are in its filter
    #syscalls:all pread64                    both do, the serving pager and the filler
    #syscalls:fill clone3=ENOSYS             the call fails in this way: who makes it knows what else to do

Arguments are compared as 32 bits: all that are worth comparing are ints. A call that an architecture does not have is
left out there, so name the calls of each: `open openat`, `poll ppoll`.

check looks at the calls of the C library's wrappers in each file of the pager. Each must be listed in the same file, or
among those that the C library makes on its own behalf (src/pager/syscall_filter.c). What the lists miss in spite of
that, tests/process/test_confine.py finds with strace.
"""

import argparse
import collections
import pathlib
import re
import sys

# What a pager is made of: all of these folders but for the files that only `thaw doctor` and `thaw image` use.
PARTS = ["src/base", "src/core", "src/image", "src/source", "src/uffd", "src/pager", "src/cli/serve.c", "src/cli/serve_options.c",
         "src/cli/image/fill.c"]
NOT_A_PAGER = {"src/base/parallel.c", "src/base/procfs.c", "src/uffd/probe.c", "src/uffd/trial.c", "src/pager/syscall_filter_gen.c",
               "src/image/diff_file.c", "src/image/frame_runs.c", "src/image/image_stat.c", "src/image/memory_file.c", "src/image/pack.c",
               "src/image/pack_classify.c", "src/image/pack_frames.c", "src/image/pack_manifest.c", "src/image/page_watch.c",
               "src/image/store_gc.c", "src/image/store_write.c", "src/image/unpack.c", "src/image/verify.c"}
LIBC_LIST = "src/pager/syscall_filter.c"

PHASES = {"": ["serve"], ":start": ["start"], ":fill": ["fill"], ":all": ["serve", "fill"]}
LINE = re.compile(r"#syscalls(:start|:fill|:all)?(?!:) (\S+(?: \S+)*)")
REFUSAL = re.compile(r"([a-z][a-z0-9_]*)=(E[A-Z0-9]+)$")
TOKEN = re.compile(r"([a-z][a-z0-9_]*)(?::([0-5])(?:&([\w|]+))?=([\w|]+(?:,[\w|]+)*))?$")

# Wrappers of the C library: name -> the calls that one of must be listed. Without a value: its own name.
WRAPPERS = {
    "accept4": [], "bind": [], "close": [], "connect": [], "epoll_create1": [], "epoll_ctl": [], "epoll_wait": [],
    "epoll_pwait2": [], "eventfd": ["eventfd2"], "faccessat": ["faccessat2"], "fchmod": [], "fchownat": [], "fcntl": [],
    "flock": [], "fork": ["clone"], "fstat": ["newfstatat", "fstat"], "fstatfs": [], "fsync": [], "getsockopt": [], "getrlimit": ["prlimit64"],
    "ioctl": [], "kill": [], "listen": [], "lseek": [], "lstat": ["newfstatat", "lstat"], "mincore": [],
    "mkdir": [], "mkostemp": ["openat"], "mlock": [], "mmap": [], "munmap": [], "open": ["openat"], "openat": [], "poll": [],
    "posix_fallocate": ["fallocate"], "prctl": [], "pread": ["pread64"], "preadv2": [], "pthread_create": ["clone3"],
    "read": [], "readlink": [], "recvmsg": [], "rename": [], "sched_getaffinity": [], "sched_setaffinity": [], "setgroups": [], "setresgid": [], "setresuid": [],
    "setrlimit": ["prlimit64"], "sigaction": ["rt_sigaction"], "sigtimedwait": ["rt_sigtimedwait"], "socket": [], "stat": ["newfstatat", "stat"],
    "sysinfo": [], "unlink": [], "waitpid": ["wait4"], "write": [],
}

Rule = collections.namedtuple("Rule", "name arg mask value")  # arg None: any arguments; -1: it fails with the errno `value`


class ListError(Exception):
    """A list that cannot be read."""


def pager_files(root):
    """The files that a pager is built from."""
    for part in PARTS:
        path = root / part
        for file in sorted(path.rglob("*.[ch]")) if path.is_dir() else [path]:
            if file.exists() and file.relative_to(root).as_posix() not in NOT_A_PAGER:
                yield file


def token_rules(token):
    """The rules of one word of a list."""
    if match := REFUSAL.match(token):
        return [Rule(match[1], -1, None, match[2])]
    match = TOKEN.match(token)
    if not match:
        raise ListError(f"cannot read {token!r}")
    name, arg, mask, values = match.groups()
    if arg is None:
        return [Rule(name, None, None, None)]
    return [Rule(name, int(arg), mask or "0xffffffff", value) for value in values.split(",")]


def file_rules(text):
    """({"start", "serve" or "fill": [Rule]}) of one file."""
    rules = {"start": [], "serve": [], "fill": []}
    for number, line in enumerate(text.splitlines(), 1):
        for tag, words in LINE.findall(line.split("*/")[0]):
            try:
                for token in words.split(" "):
                    for phase in PHASES[tag]:
                        rules[phase] += token_rules(token)
            except ListError as error:
                raise ListError(f"line {number}: {error}") from error
    return rules


def all_rules(root, phase):
    """The rules of a phase, each once; one with any arguments replaces those with some. Sorted."""
    rules = set()
    for path in pager_files(root):
        try:
            rules |= set(file_rules(path.read_text(encoding="utf-8"))[phase])
        except ListError as error:
            raise ListError(f"{path.relative_to(root)}: {error}") from error
    free = {rule.name for rule in rules if rule.arg is None}
    return sorted((rule for rule in rules if rule.arg is None or rule.name not in free), key=str)


def rules_text(rules):
    """C text: see syscall_filter_gen.c."""
    lines = ["/* Made by tools/syscalls.py. */"]
    for rule in rules:
        lines.append(f"#ifdef SYS_{rule.name}")
        if rule.arg is None:
            lines.append(f"RULE(SYS_{rule.name})")
        elif rule.arg < 0:
            lines.append(f"RULE_FAIL(SYS_{rule.name}, {rule.value})")
        else:
            lines.append(f"RULE_IF(SYS_{rule.name}, {rule.arg}, {rule.mask}, {rule.value})")
        lines.append("#endif")
    return "\n".join(lines) + "\n"


def code_only(text):
    """C text without comments and string literals."""
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', " ", text, flags=re.DOTALL)


def missing_in(text, common):
    """The calls that are made in a file and not listed: [wrapper]."""
    rules = file_rules(text)
    listed = {rule.name for phase in rules.values() for rule in phase} | common
    code = code_only(text)
    missing = []
    for name, calls in WRAPPERS.items():
        if re.search(rf"(?<![\w.>]){name}\(", code) and not listed & set(calls or [name]):
            missing.append(name)
    missing += [name for name in sorted(set(re.findall(r"\bsyscall\(SYS_(\w+)", code))) if name not in listed]
    return missing


def check(root):
    """Print what is made and not listed. Return: exit status."""
    common = {rule.name for rule in file_rules((root / LIBC_LIST).read_text(encoding="utf-8"))["serve"]}
    offences = 0
    n_files = 0
    for path in pager_files(root):
        n_files += 1
        for name in missing_in(path.read_text(encoding="utf-8"), common):
            print(f"{path.relative_to(root)}: calls {name}, and no '#syscalls' in it has that")
            offences += 1
    print(f"syscalls: {n_files} files, {offences} calls that no list has")
    return 1 if offences else 0


def write_depfile(path, target, root):
    """What the rules depend on, for make and ninja: a folder changes when a file is added."""
    files = list(pager_files(root))
    folders = {file.parent for file in files}
    pathlib.Path(path).write_text(f"{target}: {' '.join(str(p) for p in sorted([*folders, *files]))}\n",
                                  encoding="utf-8")


def main(argv):
    parser = argparse.ArgumentParser(description="collect the system calls that the source lists")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("rules")
    task.add_argument("phase", nargs="?", default="serve", choices=["serve", "fill"])
    task.add_argument("-o", "--output")
    task.add_argument("--depfile")
    task = tasks.add_parser("list")
    task.add_argument("phase", nargs="?", default="serve", choices=["start", "serve", "fill"])
    tasks.add_parser("check")
    options = parser.parse_args(argv)
    try:
        if options.task == "check":
            return check(options.root)
        if options.task == "list":
            text = "".join(f"{name}\n" for name in sorted({r.name for r in all_rules(options.root, options.phase)}))
        else:
            text = rules_text(all_rules(options.root, options.phase))
    except ListError as error:
        print(f"syscalls: {error}", file=sys.stderr)
        return 2
    if getattr(options, "output", None):
        pathlib.Path(options.output).write_text(text, encoding="utf-8")
        if options.depfile:
            write_depfile(options.depfile, options.output, options.root)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
