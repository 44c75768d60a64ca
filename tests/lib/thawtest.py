# SPDX-License-Identifier: Apache-2.0
"""
thawtest.py - what the process tests are written with

A test asks for the fixture `lab` (tests/process/conftest.py) and gets from it memory files, pagers and VMMs:

    memory = lab.memory("16M")
    pager = lab.serve(memory, "--fault-around", "0")     # a real `thaw serve`, listening when this returns
    result = lab.run_vmm(pager, memory, "random", "verify")
    pager.expect_exit(0)
    check_stats(pager.stats(), result)

Everything that was started is ended and reaped when the test is over, by process id; its output is printed when
the test failed. Nothing waits without a deadline: conditions are polled until DEADLINE, children have time limits,
and each test as a whole has a watchdog.

Programs come from the environment: THAW, FAKEVMM, UFFD_PEER, NAIVE_DIR. With THAW_REFERENCE set to another pager that takes
SOCKET MEMFILE, `lab.serve` starts that one; tests about more than the guest's bytes then skip. THAW_TEST_CONFINE=off runs
pagers with `--confine off`.
"""

import contextlib
import ctypes
import functools
import json
import mmap
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from hugepool import hugepages  # noqa: F401  (a test's name for it is thawtest.hugepages)

# Seconds; for anything that normally takes milliseconds. Tests of mistakes (tests/mutation) wait for what never comes.
DEADLINE = float(os.environ.get("THAW_TEST_DEADLINE", "20"))
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE_BYTES = {"4K": 4096, "2M": 2 << 20}
INBOX_MESSAGES = 4096 // 32  # how many one read(2) gives the pager: BLOCK_INBOX_BYTES of struct uffd_msg
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def parse_size(text):
    """Bytes of "16M"."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def program(name):
    """Path of a program named by an environment variable; the test skips without it."""
    path = os.environ.get(name)
    if not path:
        pytest.skip(f"no {name} in the environment: run the tests through meson")
    return path


def reference():
    """The other pager that the tests are to run against, or None."""
    return os.environ.get("THAW_REFERENCE") or None


def counter_names():
    """The counters that statistics have, from the one file that lists them."""
    text = (ROOT / "src/core/counters.def").read_text()
    return re.findall(r"^COUNTER\((\w+),", text, re.MULTILINE)


def wait_until(condition, what, deadline=DEADLINE):
    """Poll `condition` until it returns something true, and return that."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline} s for {what}")
        time.sleep(0.002)


def is_listening(path):
    """Is a process listening on this unix socket? Asks the kernel, so that no connection is used up."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        for line in table:
            fields = line.split()
            if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & 0x10000:
                return True
    return False


def on_terminal(argv, columns, lines):
    """Run a program on a terminal of its own. Return: what it printed."""
    master, slave = pty.openpty()
    try:
        os.set_blocking(master, False)
        subprocess.run(["stty", "cols", str(columns), "rows", str(lines)], stdin=slave, check=True, timeout=DEADLINE)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave) as child:
            os.close(slave)
            slave = -1
            output = b""
            end = time.monotonic() + DEADLINE
            while time.monotonic() < end:
                if not select.select([master], [], [], 1)[0]:
                    continue
                try:
                    data = os.read(master, 65536)
                except OSError:  # the last holder of the other side has closed it
                    break
                output += data
            child.kill()
        return output.decode().replace("\r\n", "\n")
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


def families(pids):
    """For each process, it and all that descend from it."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))

    def family(pid):
        return [pid] + [one for child in children.get(pid, []) for one in family(child)]

    return [family(pid) for pid in pids]


def private_kib(pid, *without, sharers=1):
    """
    KiB of memory that nobody shares with a process, mappings of the files `without` left out; and of page tables.

    Of mappings that it cannot write to, such as code, only what is dirty counts: the rest is the page cache's, and whether
    another process has it as well changes by the moment. What was written to and is shared, after fork(2), with others
    of `sharers` processes counts as one part of so many.
    """
    total, shared, count, kinds = 0, 0, True, ()
    paths = tuple(str(path) for path in without)
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ .(.)", line)
        if head:
            kinds = ("Private_Clean:", "Private_Dirty:") if head[1] == "w" else ("Private_Dirty:",)
            count = not (paths and line.endswith(paths))
        elif count and line.startswith(kinds):
            total += int(line.split()[1])
        elif count and line.startswith("Shared_Dirty:"):
            shared += int(line.split()[1])
    tables = re.search(r"^VmPTE:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return total + shared // sharers if sharers > 1 else total, int(tables.group(1))


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child whose output goes to files, and which does not outlive the test."""

    def __init__(self, lab, name, argv, stdin=None, pass_fds=()):
        self.name = name
        self.argv = [str(a) for a in argv]
        self._out = lab.dir / f"{name}.out"
        self._err = lab.dir / f"{name}.err"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            # pylint: disable=subprocess-popen-preexec-fn
            self.child = subprocess.Popen(
                self.argv, stdin=stdin or subprocess.DEVNULL, stdout=out, stderr=err,
                preexec_fn=_die_with_parent, pass_fds=pass_fds)
        self.pid = self.child.pid

    @property
    def out(self):
        """What it printed on stdout so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self):
        """What it printed on stderr so far."""
        return self._err.read_text(errors="replace")

    def wait(self, deadline=DEADLINE):
        """Wait for its end. Return: the exit code, negative for a signal."""
        return self.child.wait(deadline)

    def running(self):
        """Has it not ended?"""
        return self.child.poll() is None

    def signal(self, number):
        """Send a signal, unless it has ended."""
        self.child.send_signal(number)

    def expect_exit(self, code, deadline=DEADLINE):
        """Wait for its end and assert how it ended."""
        got = self.wait(deadline)
        assert got == code, f"{self.name} ended with {got}, expected {code}; its stderr:\n{self.err}"

    def wait_line(self, text, deadline=DEADLINE):
        """Wait until it printed `text` on stdout or stderr."""
        def seen():
            if text in self.out or text in self.err:
                return True
            assert self.running(), f"{self.name} ended before it said {text!r}: {self.err}"
            return False
        wait_until(seen, f"{self.name} to say {text!r}", deadline)

    def end(self):
        """Kill and reap."""
        if self.running():
            self.child.kill()
        self.child.wait(DEADLINE)
        if self.child.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.close()

    def describe(self):
        """Everything that helps when the test failed."""
        text = f"--- {self.name}: {' '.join(self.argv)}\n    exit {self.child.poll()}\n"
        for label, output in (("stdout", self.out), ("stderr", self.err)):
            if output:
                text += f"--- {self.name} {label}:\n{output[-6000:]}\n"
        return text


class Pager(Process):
    """A pager; see Lab.serve()."""

    def __init__(self, lab, name, argv, socket, stats_file, pass_fds=()):
        super().__init__(lab, name, argv, pass_fds=pass_fds)
        self.socket = socket
        self.stats_file = stats_file

    def wait_listening(self):
        """Wait until a VMM can connect."""
        def ready():
            if is_listening(self.socket):
                return True
            assert self.running(), f"{self.name} ended before it listened: {self.err}"
            return False
        wait_until(ready, f"{self.name} to listen on {self.socket}")

    def ask_stats(self, deadline=DEADLINE):
        """Ask for the statistics of this moment."""
        self.stats_file.unlink(missing_ok=True)
        self.signal(signal.SIGUSR1)
        wait_until(self.stats_file.exists, "statistics", deadline)
        return self.stats()

    def wait(self, deadline=DEADLINE):
        """Wait for its end, which no refused system call may have preceded: none is an accident."""
        code = super().wait(deadline)
        assert "were refused" not in self.err, f"{self.name} made system calls that no list has:\n{self.err}"
        return code

    def stats(self):
        """The statistics it wrote last."""
        lines = self.stats_file.read_text().splitlines()
        assert len(lines) == 1, f"statistics are one line of JSON, not {len(lines)}"
        return json.loads(lines[0])

    def error_line(self):
        """The one line in which it says why it failed."""
        lines = [line for line in self.err.splitlines() if line.startswith("thaw serve: ")]
        assert len(lines) == 1, f"expected one error line, got {len(lines)}:\n{self.err}"
        return lines[0]

    def expect_error(self, *words, code=1, deadline=DEADLINE):
        """It ends with `code` and one error line that has all these words in it."""
        self.expect_exit(code, deadline)
        line = self.error_line()
        for word in words:
            assert str(word).lower() in line.lower(), f"{word!r} is not in: {line}"
        return line


class Memory:
    """A memory file and what is needed to check against it."""

    def __init__(self, path, size, seed, dense):
        self.path, self.size, self.seed, self.dense = path, size, seed, dense

    def serve_args(self):
        """What `thaw serve` is told."""
        return ["--memory", self.path]

    def vmm_args(self):
        """fakevmm's options for this file."""
        return ["--size", str(self.size), "--seed", str(self.seed)] + (["--dense"] if self.dense else [])


def needs_strace():
    """Skip where strace cannot be had."""
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for ptrace")
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], check=False, timeout=10).returncode != 0:
        pytest.skip("strace may not trace here")


def filesystem_of(path):
    """Type of the file system that a path is on."""
    return subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True,
                          text=True, timeout=DEADLINE).stdout.strip()


@functools.lru_cache(maxsize=None)
def disk_dir():
    """A directory on a disk (not tmpfs), or None."""
    for path in (os.environ.get("THAW_TEST_DISK"), os.getcwd(), "/var/tmp", "/tmp"):
        if path and os.access(path, os.W_OK) and filesystem_of(path) not in ("tmpfs", "ramfs"):
            return path
    return None


def tmpfs_dir():
    """A directory on tmpfs, or None."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) and filesystem_of("/dev/shm") == "tmpfs" else None


def cached_pages(path):
    """How many pages of a file are in the page cache."""
    size = os.path.getsize(path)
    fd = os.open(path, os.O_RDONLY)
    try:
        addr = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    finally:
        os.close(fd)
    vector = ctypes.create_string_buffer((size + 4095) // 4096)
    try:
        if _libc.mincore(addr, size, vector) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        _libc.munmap(addr, size)
    return sum(byte & 1 for byte in vector.raw)


def drop_cache(path):
    """Get a file's pages out of the page cache; skips where that is not possible."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    if cached_pages(path) > 0:
        pytest.skip(f"cannot drop {path} from the page cache here")


class Lab:
    """One test's directory and processes."""

    def __init__(self, cache):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="thaw-test-"))
        self.state_dir = self.dir / "state"
        self.processes = []
        self._cache = cache  # memory files that tests share: {key: Memory}
        self._own_dirs = []
        self._store = None

    def _place(self, where):
        base = {"tmpfs": tmpfs_dir, "disk": disk_dir}[where]()
        if not base:
            pytest.skip(f"no directory on a {where} here")
        return pathlib.Path(tempfile.mkdtemp(prefix="thaw-test-", dir=base))

    def make_memory(self, size, seed, dense, where):
        """Write a memory file in a directory of its own."""
        fakevmm = program("FAKEVMM")
        path = self._place(where) / "memory"
        memory = Memory(path, parse_size(size), seed, dense)
        try:
            subprocess.run([fakevmm, "--make-file", path, *memory.vmm_args()], check=True, timeout=DEADLINE)
        except BaseException:
            shutil.rmtree(path.parent)
            raise
        return memory

    def memory(self, size="8M", seed=7, dense=False, where="tmpfs"):
        """A memory file that tests share; nobody writes to it."""
        key = (size, seed, dense, where)
        if key not in self._cache:
            self._cache[key] = self.make_memory(size, seed, dense, where)
        return self._cache[key]

    def own_memory(self, size="8M", seed=7, dense=False, where="tmpfs"):
        """A memory file that this test may damage."""
        memory = self.make_memory(size, seed, dense, where)
        self._own_dirs.append(memory.path.parent)
        return memory

    def store(self):
        """A path for a store of images, in memory: to write durably takes no time there."""
        if not self._store:
            self._own_dirs.append(self._place("tmpfs"))
            self._store = self._own_dirs[-1] / "store"
        return self._store

    def socket(self):
        """A path for a socket."""
        return self.dir / f"s{len(self.processes)}"

    def start(self, name, argv, stdin=None):
        """Start any program."""
        process = Process(self, f"{name}{len(self.processes)}", argv, stdin)
        self.processes.append(process)
        return process

    def start_pager(self, *args, socket=None, stats=True):
        """Start `thaw serve` with exactly these arguments (and --stats), and do not wait for anything."""
        stats_file = self.dir / f"stats{len(self.processes)}"
        extra = ["--stats", stats_file] if stats else []
        if os.environ.get("THAW_TEST_CONFINE") and "--confine" not in args:
            extra += ["--confine", os.environ["THAW_TEST_CONFINE"]]
        pager = Pager(self, f"thaw{len(self.processes)}",
                      [program("THAW"), "serve", *args, *extra], socket, stats_file)
        self.processes.append(pager)
        return pager

    def serve(self, memory, *args, wait=True):
        """A pager that listens. `memory` is a Memory or a path."""
        socket = self.socket()
        if reference():
            path = getattr(memory, "path", memory)
            pager = Pager(self, f"pager{len(self.processes)}", [reference(), socket, path], socket, self.dir / "none")
            self.processes.append(pager)
        else:
            args = (memory.serve_args() if isinstance(memory, Memory) else ["--memory", memory]) + list(args)
            pager = self.start_pager("--socket", socket, "--state", self.state_dir, *args, socket=socket)
        if wait:
            pager.wait_listening()
        return pager

    def start_vmm(self, pager, memory, *args, timeout=DEADLINE):
        """Start a fake VMM; `args` are options and steps."""
        return self.start("vmm", [program("FAKEVMM"), "--socket", pager.socket, *memory.vmm_args(),
                                  "--timeout", str(int(timeout)), *args],
                          stdin=subprocess.PIPE)

    def finish_vmm(self, vmm, timeout=DEADLINE):
        """Wait for a fake VMM that is to find every byte right. Return: its result."""
        vmm.expect_exit(0, timeout + 10)
        result = json.loads(vmm.out.splitlines()[-1])
        assert result["errors"] == 0
        return result

    def run_vmm(self, pager, memory, *args, timeout=DEADLINE):
        """A fake VMM from start to end. Return: its result."""
        return self.finish_vmm(self.start_vmm(pager, memory, *args, timeout=timeout), timeout)

    def close(self):
        """End and reap all processes, VMMs first, then remove the directories."""
        for process in sorted(self.processes, key=lambda p: isinstance(p, Pager)):
            process.end()
        for path in [self.dir, *self._own_dirs]:
            shutil.rmtree(path, ignore_errors=True)

    def describe(self):
        """All processes' output."""
        return "\n".join(process.describe() for process in self.processes)


class Peer(Process):
    """tests/lib/uffd_peer_main.c: a VMM that says to a pager what a test tells it to say."""

    def __init__(self, lab, pages=16, page_size="4K", mode=""):
        self.page_bytes = PAGE_BYTES[page_size]
        self.pages = pages
        super().__init__(lab, f"peer{len(lab.processes)}",
                         [program("UFFD_PEER"), pages, self.page_bytes, *([mode] if mode else [])],
                         stdin=subprocess.PIPE)
        lab.processes.append(self)
        self.wait_line("ready")
        self.address = int(self.out.split()[1])
        self._answers = 0

    def tell(self, line):
        """Give a command. Return: 0 or the errno it failed with; None when the process is gone."""
        try:
            self.child.stdin.write((line + "\n").encode())
            self.child.stdin.flush()
        except BrokenPipeError:
            return None
        self._answers += 1

        def answer():
            answers = [text for text in self.out.splitlines() if text.startswith(("ok", "error "))]
            return answers[self._answers - 1] if len(answers) >= self._answers else not self.running()

        text = wait_until(answer, f"an answer to {line[:60]!r}")
        if text is True:
            return None
        return 0 if text == "ok" else int(text.split()[1])

    def connect(self, pager):
        """Connect to a pager."""
        assert self.tell(f"connect {pager.socket}") == 0

    def send(self, data, *fds):
        """Send bytes, and file descriptors with the first of them."""
        return self.tell(" ".join(["send", data.hex(), *fds]))

    def region(self, **changes):
        """This process's memory as one region of a handshake; a change to None leaves a field out."""
        fields = {"base_host_virt_addr": self.address, "size": self.pages * self.page_bytes, "offset": 0,
                  "page_size": self.page_bytes, "page_size_kib": self.page_bytes}
        fields.update(changes)
        return {key: value for key, value in fields.items() if value is not None}

    def word(self, page):
        """Touch a page and wait for its first word."""
        def found():
            return re.findall(rf"^page {page} ([0-9a-f]+)$", self.out, re.MULTILINE)

        before = len(found())
        assert self.tell(f"touch {page}") == 0

        def answered():
            words = found()
            assert len(words) > before or self.running(), f"{self.name} ended while it touched page {page}"
            return words[before:]

        return int(wait_until(answered, f"page {page}")[-1], 16)

    def quit(self):
        """End by itself."""
        try:
            self.child.stdin.write(b"quit\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass
        self.expect_exit(0)


def let_go(vmm):
    """Let a fake VMM go on that stopped in a step `pause`."""
    vmm.child.stdin.write(b"\n")
    vmm.child.stdin.flush()


def check_stats(stats, result=None, end="vmm-gone"):
    """What holds for all statistics, and, with a VMM's result, what must agree with it."""
    counters, states = stats["counters"], stats["states"]
    assert list(counters) == counter_names()
    assert all(isinstance(value, int) and value >= 0 for value in counters.values()), counters
    assert sum(states.values()) == stats["pages"], states
    assert set(states) == {"absent", "clean", "dirty", "removed", "zero"}
    assert stats["end"] == end
    assert counters["pages_around"] <= counters["pages_installed"] + counters["pages_zeroed"]
    assert counters["pages_refaulted"] <= counters["pages_zeroed"]
    assert counters["reads"] <= counters["messages"]
    handled = counters["faults"] + counters["wp_faults"] + counters["removes"]
    # What one read gave is left in the middle when the VMM is gone, whose threads others had woken.
    assert 0 <= counters["messages"] - handled < INBOX_MESSAGES
    assert counters["fetches_dropped"] <= counters["fetches"]
    assert counters["stray"] == 0
    latency = stats["fault_ns"]
    # A pager that is killed between an answer and its end has another one give, and time, the same answer.
    assert latency["n"] <= counters["faults"] + counters["wp_faults"] + counters["takeovers"]
    assert latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    if stats["track"] == "none":
        assert counters["wp_faults"] == counters["pages_written"] == 0
    if result is None:
        return
    assert stats["pages"] == result["pages"]
    assert stats["page_bytes"] == result["page_bytes"]
    assert stats["regions"] == result["regions"]
    # Nobody hears of a discard in a range that was let go of, nor of a first touch there.
    assert counters["pages_removed"] >= result["pages_discarded"] or counters["ranges_let_go"] > 0
    # ... and a thread that waited there may have been woken after its fault was read.
    assert counters["unmapped"] == 0 or result["remaps"] > 0 or counters["ranges_let_go"] > 0
    if result["remaps"] == 0:
        assert states["absent"] <= stats["pages"] - result["touched"]
