# SPDX-License-Identifier: Apache-2.0
"""
powerloss.py - what may be left of a folder when the power goes while a program works on it

    record = Recording(folder, argv)          runs the program under strace; record.status
    for state in record.states(rng, most):    what a disk may hold then
        state.write(elsewhere)                as a folder
        state.done                            had the program ended?

The model is as strict as POSIX allows a file system to be:

    - What is written to a file is durable once the file is synced (fsync(2)). Of what was written since, any part may be there.
    - An entry of a folder that was made, replaced or removed is durable once that folder is synced. Of those that were not, each may
      have happened or not, whatever the order; only of one name, later changes come after earlier ones. rename(2) across folders
      is two such changes. What is below a folder that is not there is lost.

The program may stop after any of its calls. For each of those places all combinations of what is not durable are tried where
they are few; else none, all, each one alone missing, each one alone there, and some at random. States that are the same
count once.

What a program reads is not of interest, nor is what it does elsewhere. A call that changes files and is not known here fails the
recording, so nothing is overlooked.
"""

import dataclasses
import itertools
import os
import pathlib
import re
import subprocess

TRACED = ("open", "openat", "creat", "mkdir", "mkdirat", "write", "fsync", "fdatasync", "rename", "renameat", "renameat2",
          "unlink", "unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat", "truncate", "ftruncate", "pwrite64", "writev",
          "fallocate", "sync", "syncfs", "sync_file_range", "copy_file_range", "sendfile")
CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
UNFINISHED = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>$", re.DOTALL)
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$", re.DOTALL)
FEW = 5  # so many changes that are not durable: all 32 combinations
LIMIT = 60


@dataclasses.dataclass
class Change:
    """One thing that may be lost: an entry of a folder, or a part of a file."""

    target: int  # the folder or the file
    name: str = ""  # of the entry
    value: object = None  # of an entry: what it leads to, None: nothing; of a file: (offset, bytes)


class Disk:
    """Files and folders by number. `durable` holds what is; `pending` is a list of Changes."""

    def __init__(self):
        self.folders = {0: {}}  # {number: {name: number}}; 0 is the one above the folder that is watched
        self.files = {}  # {number: bytes}
        self.pending = []

    def new(self, kind):
        """A number for a folder or a file."""
        number = len(self.folders) + len(self.files)
        if kind == "folder":
            self.folders[number] = {}
        else:
            self.files[number] = b""
        return number

    def load(self, path, number):
        """What is in a real folder is durable."""
        for entry in sorted(path.iterdir()):
            child = self.new("folder" if entry.is_dir() else "file")
            self.folders[number][entry.name] = child
            if entry.is_dir():
                self.load(entry, child)
            else:
                self.files[child] = entry.read_bytes()

    def sync(self, number):
        """All changes of a file or folder become durable."""
        rest = []
        for change in self.pending:
            if change.target == number:
                self.apply(change)
            else:
                rest.append(change)
        self.pending = rest

    def apply(self, change):
        """A change is durable."""
        if change.target in self.files:
            self.files[change.target] = overlay(self.files[change.target], [change.value])
        elif change.value is None:
            self.folders[change.target].pop(change.name, None)
        else:
            self.folders[change.target][change.name] = change.value

    def look(self, folder, name):
        """What a name leads to for the running program."""
        for change in reversed(self.pending):
            if change.target == folder and change.name == name and change.target in self.folders:
                return change.value
        return self.folders[folder].get(name)

    def tree(self, kept, name):
        """{path: bytes, or None for a folder} of what is left below `name` when of `pending` these are kept."""
        other = Disk()
        other.folders = {number: dict(entries) for number, entries in self.folders.items()}
        other.files = dict(self.files)
        for change in kept:
            other.apply(change)
        return dict(other.walk(0, name, ""))

    def walk(self, folder, name, above):
        number = self.folders[folder].get(name)
        path = f"{above}/{name}" if above else name
        if number in self.folders:
            yield path, None
            for child in self.folders[number]:
                yield from self.walk(number, child, path)
        elif number is not None:
            yield path, self.files[number]


def overlay(data, parts):
    """Bytes with parts written over them; what was never written is zero. No file becomes shorter here."""
    data = bytearray(data)
    for offset, part in parts:
        data.extend(bytes(max(0, offset + len(part) - len(data))))
        data[offset:offset + len(part)] = part
    return bytes(data)


@dataclasses.dataclass
class State:
    """What a disk may hold: {path below the folder's parent: bytes or None}."""

    tree: dict
    done: bool
    calls: int

    def write(self, parent):
        """Make it real: a new folder in `parent`, under its old name."""
        for path, data in sorted(self.tree.items()):
            if data is None:
                os.mkdir(parent / path)
            else:
                (parent / path).write_bytes(data)

    def key(self):
        return (self.done, frozenset(self.tree.items()))


def unquote(text):
    """The bytes of a string that strace wrote with -xx."""
    return bytes.fromhex(text.strip('"').replace("\\x", ""))


class Recording:
    """One run of a program, and what it did to a folder."""

    def __init__(self, folder, argv, env=None):
        self.folder = pathlib.Path(folder)
        self.disk = Disk()
        self.points = []  # (folders, files, pending) after each call
        self.fds = {}  # {fd: [number, place]}
        if self.folder.exists():
            self.disk.folders[0][self.folder.name] = top = self.disk.new("folder")
            self.disk.load(self.folder, top)
        log = self.folder.parent / "strace.log"
        done = subprocess.run(
            ["strace", "-f", "-xx", "-s", str(1 << 24), "-e", f"trace={','.join(TRACED)}", "-o", str(log), *argv],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT, env=env)
        self.status, self.err = done.returncode, done.stderr
        self.note()
        for name, args, result in self.calls(log.read_text(encoding="ascii")):
            if result >= 0:
                self.take(name, args, result)
        log.unlink()

    def note(self):
        """The program may stop here."""
        disk = self.disk
        self.points.append(({number: dict(entries) for number, entries in disk.folders.items()}, dict(disk.files),
                            list(disk.pending)))

    @staticmethod
    def calls(text):
        """(name, [argument], result) in the order in which the calls ended."""
        unfinished = {}
        for line in text.splitlines():
            if match := UNFINISHED.match(line):
                unfinished[match[1]] = match[2]
                continue
            if match := RESUMED.match(line):
                line = f"{match[1]} {unfinished.pop(match[1])}{match[2]}"
            if match := CALL.match(line):
                yield match[2], match[3].split(", "), int(match[4])

    def find(self, dirfd, text):
        """(folder, name) of a path; (None, None): elsewhere."""
        path = unquote(text).decode()
        parent = str(self.folder.parent)
        if path.startswith("/") or dirfd == "AT_FDCWD":
            full = os.path.abspath(path)
            if full == parent:
                return 0, "."
            if not full.startswith(str(self.folder)):
                return None, None
            folder, parts = 0, full[len(parent) + 1:].split("/")
        elif int(dirfd) in self.fds:
            folder, parts = self.fds[int(dirfd)][0], path.split("/")
        else:
            return None, None
        for part in parts[:-1]:
            folder = self.disk.look(folder, part)
        return folder, parts[-1]

    def take(self, name, args, result):
        """One call that worked."""
        disk = self.disk
        if name in ("open", "openat"):
            self.take_open(args if name == "openat" else ["AT_FDCWD", *args], result)
        elif name in ("mkdir", "mkdirat"):
            folder, entry = self.find(*(args[:2] if name == "mkdirat" else ["AT_FDCWD", args[0]]))
            assert folder is not None, args
            disk.pending.append(Change(folder, entry, disk.new("folder")))
        elif name == "write":
            fd = int(args[0])
            if fd in self.fds:
                data, place = unquote(args[1])[:result], self.fds[fd][1]
                disk.pending.append(Change(self.fds[fd][0], value=(place, data)))
                self.fds[fd][1] += result
        elif name in ("pwrite64", "ftruncate"):
            if int(args[0]) in self.fds:
                change = (int(args[3]), unquote(args[1])[:result]) if name == "pwrite64" else (int(args[1]), b"")
                disk.pending.append(Change(self.fds[int(args[0])][0], value=change))
        elif name == "fsync":
            if int(args[0]) in self.fds:
                disk.sync(self.fds[int(args[0])][0])
        elif name in ("rename", "renameat", "renameat2"):
            dirs = ["AT_FDCWD", args[0], "AT_FDCWD", args[1]] if name == "rename" else args
            (old, old_name), (new, new_name) = self.find(*dirs[:2]), self.find(*dirs[2:4])
            assert old is not None and new is not None, args
            moved = disk.look(old, old_name)
            disk.pending += [Change(new, new_name, moved), Change(old, old_name, None)]
        elif name in ("unlink", "unlinkat"):
            folder, entry = self.find(*(args[:2] if name == "unlinkat" else ["AT_FDCWD", args[0]]))
            assert folder is not None, args
            disk.pending.append(Change(folder, entry, None))
        elif name != "sync_file_range":  # which promises nothing
            raise NotImplementedError(f"{name} is not modelled")
        self.note()

    def take_open(self, args, fd):
        """A file or folder that is opened, and perhaps made."""
        folder, entry = self.find(*args[:2])
        self.fds.pop(fd, None)
        if folder is None:
            assert "O_CREAT" not in args[2], f"a file elsewhere: {unquote(args[1])}"
            return
        number = folder if entry == "." else self.disk.look(folder, entry)
        assert "O_TRUNC" not in args[2], "O_TRUNC is not modelled"
        if number is None:
            assert "O_CREAT" in args[2], args
            number = self.disk.new("file")
            self.disk.pending.append(Change(folder, entry, number))
        self.fds[fd] = [number, 0]

    def choices(self, rng, pending):
        """Which of the changes that are not durable happened: lists of them."""
        n = len(pending)
        if n <= FEW:
            picks = list(itertools.product([False, True], repeat=n))
        else:
            picks = [[False] * n, [True] * n]
            picks += [[i == j for j in range(n)] for i in range(n)] + [[i != j for j in range(n)] for i in range(n)]
            picks += [[rng.random() < 0.5 for _ in range(n)] for _ in range(8)]
        return [[change for change, pick in zip(pending, chosen) if pick] for chosen in picks]

    def states(self, rng, most):
        """States, each once; of more than `most` so many at random, and all of those after the end of the program."""
        states = {}
        for i, (folders, files, pending) in enumerate(self.points):
            disk = Disk()
            disk.folders, disk.files = folders, files
            for kept in self.choices(rng, pending):
                state = State(disk.tree(kept, self.folder.name), i == len(self.points) - 1, i)
                states.setdefault(state.key(), state)
        ended = [state for state in states.values() if state.done]
        others = [state for state in states.values() if not state.done]
        return ended + (others if len(others) <= most else rng.sample(others, most))
