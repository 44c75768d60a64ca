# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest: boot it, talk to it, take a snapshot, restore it with its memory served by a pager.

    image = guest_image.guest_image()
    with guest.boot(image, folder, mem_mib=[256], smp=2) as vm:
        vm.console.run("echo hello >/tmp/file")
        snapshot = guest.take_snapshot(vm, folder)
    with guest.restore(snapshot, folder, pager_argv, preload=path) as restored:
        restored.vm.console.run("cat /tmp/file")

The guest runs in QEMU on a `pc` machine with TCG: that boots everywhere. Its RAM is a file while it boots, and the
file is the snapshot's memory once the guest is stopped; the devices' state is a QEMU migration that leaves RAM out
(x-ignore-shared). At a restore the RAM is private anonymous memory which libthaw-preload.so hands to the pager.

Everything has a deadline, and every process started here is killed by the `with` that started it; the kernel kills
them too if this process dies first.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import time

MIB = 1024 * 1024
READY = "guest-is-ready"  # what the guest's init prints, see tools/guest_image.py
BOOT_SECONDS = 40
COMMAND_SECONDS = 60
PR_SET_PDEATHSIG = 1
SO_ACCEPTCON = 0x10000  # of the flags in /proc/net/unix


class GuestError(Exception):
    """One line: what did not happen, and where to look."""


class BootError(GuestError):
    """The guest has not come up."""


def wait_for(condition, seconds, what):
    """Poll until condition() is true; its value. GuestError after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise GuestError(f"{what}: not within {seconds} s")
        time.sleep(0.005)


def die_with_parent():
    """Between fork and exec: the kernel kills this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tail(path, n_lines=3):
    """The last lines of a log, for messages."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "no output"
    return " | ".join(lines[-n_lines:]) or "no output"


class Process:
    """A program in the background, its output in a file."""

    def __init__(self, argv, log, env=None):
        self.name = pathlib.Path(argv[0]).name
        self.log = log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(  # pylint: disable=consider-using-with
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                preexec_fn=die_with_parent,
            )
        self.pid = self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def check(self):
        """GuestError if the program has ended."""
        if not self.running():
            raise GuestError(f"{self.name} ended with status {self.popen.returncode}: {tail(self.log)}")

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def wait(self, seconds):
        """The exit status; negative: the signal that killed it."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise GuestError(f"{self.name} did not end within {seconds} s: {tail(self.log)}") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        return self.wait(20)


def connect(path, process, seconds=10):
    """A unix socket that process listens on, as soon as it does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def attempt():
        process.check()
        try:
            sock.connect(str(path))
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    try:
        wait_for(attempt, seconds, f"{process.name} listens on {path.name}")
    except GuestError:
        sock.close()
        raise
    return sock


def listens(path):
    """Whether somebody listens on a unix socket; without connecting to it."""
    for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()
        if fields[-1] == str(path):
            return int(fields[3], 16) & SO_ACCEPTCON != 0
    return False


def send(sock, process, data):
    """Send all of data; GuestError if process does not take it."""
    sock.settimeout(20)
    try:
        sock.sendall(data)
    except OSError as e:
        process.check()
        raise GuestError(f"{process.name} does not listen: {e}") from None


def receive(sock, process, seconds):
    """What process sent, or b"" if nothing came in time; GuestError if it has closed."""
    sock.settimeout(seconds)
    try:
        data = sock.recv(65536)
        if data:
            return data
    except (TimeoutError, BlockingIOError):
        return b""
    except OSError:
        pass
    raise GuestError(f"{process.name} has gone with status {process.wait(5)}: {tail(process.log)}")


class Qmp:
    """QEMU's control socket."""

    def __init__(self, path, process):
        self.process = process
        self.sock = connect(path, process)
        self.buffer = b""
        self._message(10)
        self.execute("qmp_capabilities")

    def close(self):
        self.sock.close()

    def _message(self, seconds):
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"QEMU did not answer within {seconds} s")
            self.buffer += receive(self.sock, self.process, left)
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def execute(self, command, seconds=60, **arguments):
        """The command's return value; GuestError if QEMU says error. Events are skipped."""
        line = json.dumps({"execute": command, "arguments": arguments}) + "\n"
        send(self.sock, self.process, line.encode())
        while True:
            message = self._message(seconds)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise GuestError(f"QEMU: {command}: {message['error']['desc']}")

    def hmp(self, line):
        """A command of the human monitor; its text."""
        return self.execute("human-monitor-command", **{"command-line": line})


class Console:
    """The guest's shell on the serial line."""

    def __init__(self, path, process):
        self.process = process
        self.sock = connect(path, process)
        self.text = ""
        self.n_commands = 0

    def close(self):
        self.sock.close()

    def expect(self, pattern, seconds):
        """Read until pattern has come; the match. What was read up to its end is forgotten."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.text, re.DOTALL)
            if found:
                self.text = self.text[found.end() :]
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"the guest did not answer within {seconds} s; last words: {self.text[-200:]!r}")
            self._read(left)

    def _read(self, seconds):
        """Take what has come, wait for it for a while."""
        data = receive(self.sock, self.process, seconds)
        self.text += data.decode(errors="replace").replace("\r", "")

    def start(self, command):
        """Type a command that finish() will wait for. The command must not end with an operator such as &."""
        self.n_commands += 1
        n = self.n_commands
        # The tags are typed in two pieces, so that the terminal's echo of the command does not look like its output.
        line = f'echo "be""gin-{n}"; {command}; echo "en""d-{n}" $?\n'
        send(self.sock, self.process, line.encode())

    def _answer(self):
        n = self.n_commands
        return rf"begin-{n}\n(.*?)end-{n} (\d+)\n"

    def has_finished(self):
        """Whether finish() would return at once."""
        self._read(0)
        return re.search(self._answer(), self.text, re.DOTALL) is not None

    def finish(self, seconds=COMMAND_SECONDS):
        """The output of the command that was started last."""
        output, status = self.expect(self._answer(), seconds).groups()
        if status != "0":
            raise GuestError(f"a command in the guest ended with status {status}: {output[-200:]!r}")
        return output

    def run(self, command, seconds=COMMAND_SECONDS):
        """The output of a command in the guest; GuestError unless its status is 0."""
        self.start(command)
        return self.finish(seconds)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What must be the same when a guest is booted and when it is restored."""

    image: object  # guest_image.GuestImage
    mem_mib: tuple  # the size of each memory region
    smp: int
    accel: str = "tcg,thread=multi"

    def argv(self, folder, backends):
        """QEMU's arguments; backends: an -object option for each memory region, ids ram0, ram1, ..."""
        one = len(self.mem_mib) == 1
        cpu = "host" if self.accel.startswith("kvm") else "max"  # with KVM, max cannot be saved
        argv = ["qemu-system-x86_64", "-accel", self.accel, "-cpu", cpu, "-smp", str(self.smp)]
        argv += ["-machine", "pc,mem-merge=off" + (",memory-backend=ram0" if one else "")]
        argv += ["-m", f"{sum(self.mem_mib)}M"]
        for i, backend in enumerate(backends):
            argv += ["-object", backend]
            if not one:
                argv += ["-numa", f"node,nodeid={i},memdev=ram{i}"]
        argv += ["-nodefaults", "-nographic", "-no-reboot", "-S"]
        argv += ["-chardev", f"socket,id=serial,path={folder}/serial,server=on,wait=off"]
        argv += ["-serial", "chardev:serial", "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
        argv += ["-kernel", self.image.kernel, "-initrd", self.image.initrd]
        argv += ["-append", "console=ttyS0 quiet panic=-1"]
        argv += ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
        return argv


class Vm:
    """A running QEMU with its control socket and the guest's console."""

    def __init__(self, machine, folder, backends, more=(), env=None):
        self.machine = machine
        self.folder = folder
        for name in ("serial", "qmp"):
            (folder / name).unlink(missing_ok=True)
        self.process = Process(machine.argv(folder, backends) + list(more), folder / "qemu.log", env)
        self.pid = self.process.pid
        self.qmp = self.console = self._spans = None
        try:
            self.qmp = Qmp(folder / "qmp", self.process)
            self.console = Console(folder / "serial", self.process)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Kill QEMU. A thread of it that waits for a page does not keep it from dying."""
        self.process.kill()
        for end in (self.qmp, self.console):
            if end:
                end.close()

    def status(self, key):
        """A number of bytes from /proc/PID/status."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024

    def host_bytes(self):
        """Host memory that QEMU occupies, its own included; huge pages are counted apart by the kernel."""
        return self.status("RssAnon") + self.status("HugetlbPages")

    def spans(self):
        """[(address in QEMU, bytes)] of each memory region."""
        if self._spans:
            return self._spans
        spans, guest_address = [], 0
        for mib in self.machine.mem_mib:
            answer = self.qmp.hmp(f"gpa2hva {guest_address:#x}")
            spans.append((int(re.search(r"is (0x[0-9a-f]+)", answer).group(1), 16), mib * MIB))
            guest_address += mib * MIB
        self._spans = spans
        return spans

    def guest_bytes(self):
        """Host memory that holds guest RAM (the kernel's shared zero page is none)."""
        spans = self.spans()
        total, inside = 0, False
        for line in pathlib.Path(f"/proc/{self.pid}/smaps").read_text().splitlines():
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if head:
                start = int(head.group(1), 16)
                inside = any(base <= start < base + size for base, size in spans)
            elif inside and line.startswith(("Rss:", "Private_Hugetlb:")):
                total += int(line.split()[1]) * 1024
        return total


@contextlib.contextmanager
def boot(image, folder, mem_mib=(256,), smp=1, accel="tcg,thread=multi", attempts=2, seconds=BOOT_SECONDS):
    """A freshly booted guest at its prompt. A boot that takes longer than seconds is tried once more (attempts)."""
    machine = Machine(image, tuple(mem_mib), smp, accel)
    backends = [
        f"memory-backend-file,id=ram{i},size={mib}M,mem-path={folder}/ram{i},share=on"
        for i, mib in enumerate(machine.mem_mib)
    ]
    for left in reversed(range(attempts)):
        try:
            vm = boot_once(machine, folder, backends, seconds)
            break
        except GuestError as e:
            if left == 0:
                raise BootError(f"{e}") from None
    with vm:
        yield vm


def boot_once(machine, folder, backends, seconds):
    vm = Vm(machine, folder, backends)
    try:
        vm.qmp.execute("cont")
        vm.console.expect(READY, seconds)
        vm.console.run("true", seconds)
    except BaseException:
        vm.close()
        raise
    return vm


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A stopped guest: its memory, one file with the regions end to end, and its devices' state."""

    machine: Machine
    memory: pathlib.Path
    state: pathlib.Path


def append_sparse(out, path):
    """Append the file path to out, holes as holes."""
    begin = os.fstat(out.fileno()).st_size
    with open(path, "rb") as part:
        size = os.fstat(part.fileno()).st_size
        out.truncate(begin + size)
        at = 0
        while at < size:
            try:
                at = os.lseek(part.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            end = os.lseek(part.fileno(), at, os.SEEK_HOLE)
            part.seek(at)
            out.seek(begin + at)
            while at < end:
                data = part.read(min(MIB, end - at))
                out.write(data)
                at += len(data)


def migrate_wait(vm):
    """Wait for the end of an outgoing migration."""

    def done():
        status = vm.qmp.execute("query-migrate").get("status")
        if status == "failed":
            raise GuestError(f"QEMU could not save the devices' state: {tail(vm.process.log)}")
        return status == "completed"

    wait_for(done, 60, "QEMU saves the devices' state")


def take_snapshot(vm, folder):
    """Stop the guest for good; its Snapshot. vm was made by boot() in the same folder."""
    state = folder / "state"
    vm.qmp.execute("stop")
    set_ignore_shared(vm)
    vm.qmp.execute("migrate", uri=f"exec:cat >{shlex.quote(str(state))}")
    migrate_wait(vm)
    vm.qmp.execute("quit")
    vm.process.wait(20)
    memory = folder / "memory"
    os.rename(folder / "ram0", memory)
    with open(memory, "r+b") as out:
        for i in range(1, len(vm.machine.mem_mib)):
            append_sparse(out, folder / f"ram{i}")
            (folder / f"ram{i}").unlink()
    return Snapshot(vm.machine, memory, state)


def set_ignore_shared(vm):
    vm.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])


class Pager:
    """A running page-fault handler."""

    def __init__(self, argv, folder):
        self.folder = folder
        self.socket = folder / "uffd"
        self.stats_path = folder / "stats"
        self.socket.unlink(missing_ok=True)
        self.stats_path.unlink(missing_ok=True)
        self.process = Process(argv, folder / "pager.log")
        self.pid = self.process.pid
        try:
            wait_for(self._listening, 10, "the pager listens")
        except BaseException:
            self.process.kill()
            raise

    def _listening(self):
        self.process.check()
        return listens(self.socket)

    def _version(self):
        try:
            st = os.stat(self.stats_path)
            return (st.st_ino, st.st_mtime_ns)
        except FileNotFoundError:
            return None

    def stats(self):
        """Ask for the statistics."""
        before = self._version()
        self.process.check()
        self.process.signal(signal.SIGUSR1)

        def written():
            self.process.check()
            return self._version() != before

        wait_for(written, 20, "the pager writes its statistics")
        return json.loads(self.stats_path.read_text())

    def last_stats(self, seconds=20):
        """Wait for its end, expect that it was a good one; the statistics it left."""
        status = self.process.wait(seconds)
        if status != 0:
            raise GuestError(f"the pager ended with status {status}: {tail(self.process.log)}")
        return json.loads(self.stats_path.read_text())


def thaw_argv(thaw, *more):
    """For restore(): how `thaw serve` is started."""

    def argv(folder, memory):
        base = [thaw, "serve", "--socket", folder / "uffd", "--memory", memory]
        return base + ["--stats", folder / "stats", "--state", folder / "run", *more]

    return argv


def handler_argv(handler):
    """For restore(): how a handler that takes SOCKET MEMFILE is started."""
    return lambda folder, memory: [handler, folder / "uffd", memory]


@dataclasses.dataclass
class Restored:
    """A restored guest and its pager. Seconds count from the start of QEMU, or from the command to resume."""

    snapshot: Snapshot
    pager: Pager
    vm: Vm
    madvise_log: pathlib.Path
    seconds_to_answer: float = 0.0
    resumed: float = 0.0  # time.monotonic() then
    seconds_from_resume: float = 0.0


@contextlib.contextmanager
def restore(snapshot, folder, pager_argv, preload, huge=False, madvise_log_lib=None, before_resume=None):
    """The guest of snapshot runs again, every page of its memory from the pager.

    pager_argv: see thaw_argv(). preload: libthaw-preload.so. huge: back it with 2 MiB huge pages. madvise_log_lib: also
    record what QEMU discards, for Oracle. before_resume: called with the pager before the guest may go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run").mkdir(exist_ok=True)
    log = folder / "madvise.log"
    log.unlink(missing_ok=True)
    machine = snapshot.machine
    env = {
        "LD_PRELOAD": " ".join(str(lib) for lib in (preload, madvise_log_lib) if lib),
        "THAW_PRELOAD_SOCKET": str(folder / "uffd"),
        "THAW_PRELOAD_SIZES": ",".join(f"{mib}M" for mib in machine.mem_mib),
        "THAW_PRELOAD_HUGE": "1" if huge else "0",
        "MADVISE_LOG": str(log),
    }
    backends = [f"memory-backend-ram,id=ram{i},size={mib}M,share=off" for i, mib in enumerate(machine.mem_mib)]
    pager = Pager(pager_argv(folder, snapshot.memory), folder)
    try:
        begin = time.monotonic()
        with Vm(machine, folder, backends, ["-incoming", "defer"], env) as vm:
            restored = Restored(snapshot, pager, vm, log)
            set_ignore_shared(vm)
            vm.qmp.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(snapshot.state))}")
            wait_for(
                lambda: vm.qmp.execute("query-status")["status"] != "inmigrate", 60, "QEMU loads the devices' state"
            )
            if before_resume:
                before_resume(pager)
            restored.resumed = time.monotonic()
            vm.qmp.execute("cont")
            vm.console.run("true", BOOT_SECONDS)
            restored.seconds_from_resume = time.monotonic() - restored.resumed
            restored.seconds_to_answer = time.monotonic() - begin
            yield restored
        # Without its VMM a pager ends by itself; how it ended is for the tests to look at.
        with contextlib.suppress(GuestError):
            pager.process.wait(10)
    finally:
        pager.process.kill()
