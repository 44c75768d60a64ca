# SPDX-License-Identifier: Apache-2.0
"""
fclib.py - tests that need a Firecracker: the stand-in as a program, and an HTTP client that can also be rude

    programs = fclib.install(folder)                 # executables `firecracker` and `jailer` in it
    vmm = fclib.Vmm(lab, folder, FC_STANDIN_VERSION="1.12.0")
    vmm.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 32})
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import time

import pytest

import thawtest

LIB = pathlib.Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"


def install(folder):
    """Executables named `firecracker` and `jailer` in a folder; the path of the first."""
    folder = pathlib.Path(folder)
    for name, script in (("firecracker", "fc_standin.py"), ("jailer", "jailer_standin.py")):
        path = folder / name
        path.write_text(f"#!/bin/sh\nexec {PYTHON} -BSE {shlex.quote(str(LIB / script))} \"$@\"\n")
        path.chmod(0o755)
    return folder / "firecracker"


def needs_jail(folder):
    """Skip where nobody can be put into a jail whose root is in this folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    probe = pathlib.Path(folder, "probe")
    try:
        os.mknod(probe, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        probe.unlink()
    except PermissionError:
        pytest.skip("only root can make a device")


class Reply:
    """One answer: status, headers, body as text."""

    def __init__(self, head, body):
        lines = head.decode().split("\r\n")
        self.status_line, self.status = lines[0], int(lines[0].split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        self.body = body.decode()

    def json(self):
        """The body, decoded."""
        return json.loads(self.body)

    def fault(self):
        """The text of an error."""
        return self.json()["fault_message"]


class Client:
    """A connection on which anything can be said."""

    def __init__(self, path, seconds=thawtest.DEADLINE):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(seconds)
        self.sock.connect(str(path))
        self.buffer = b""

    def close(self):
        """Hang up."""
        self.sock.close()

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the other side has hung up")
        self.buffer += data

    def receive(self):
        """The next answer."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        found = re.search(rb"\r\nContent-Length: (\d+)", head)
        n = int(found.group(1)) if found else 0
        while len(self.buffer) < n:
            self._more()
        body, self.buffer = self.buffer[:n], self.buffer[n:]
        return Reply(head, body)

    def raw(self, data):
        """Send bytes; the answer."""
        self.sock.sendall(data)
        return self.receive()

    def ask(self, method, path, body=None):
        """A decent request. body: None, bytes, or anything that becomes JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if data is not None:
            head += f"Content-Length: {len(data)}\r\n"
        return self.raw(head.encode() + b"\r\n" + (data or b""))


class Console:
    """A serial line: a FIFO to type into, a file to read from."""

    def __init__(self, fifo, log):
        self.fifo, self.log, self.n_commands = fifo, log, 0

    def text(self):
        """Everything that was written so far."""
        return self.log.read_text(errors="replace").replace("\r", "")

    def wait_text(self, text, seconds=thawtest.DEADLINE):
        """Until text has been written."""
        thawtest.wait_until(lambda: text in self.text(), f"{text!r} on the console", seconds)

    def type(self, text):
        """As if somebody had typed it."""
        with open(self.fifo, "wb", buffering=0) as fifo:
            fifo.write(text.encode())

    def try_run(self, command, seconds=thawtest.DEADLINE):
        """(status, output) of a command."""
        self.n_commands += 1
        # A tag of its own: the file may have the output of earlier lives of the same guest.
        tag = f"{self.n_commands}x{time.monotonic_ns()}"
        self.type(f'echo "be""gin-{tag}"; {command}; echo "en""d-{tag}" $?\n')

        def answer():
            return re.search(rf"begin-{tag}\n(.*?)end-{tag} (\d+)\n", self.text(), re.DOTALL)

        output, status = thawtest.wait_until(answer, f"the guest to answer {command!r}", seconds).groups()
        return int(status), output

    def run(self, command, seconds=thawtest.DEADLINE):
        """The output of a command that must not fail."""
        status, output = self.try_run(command, seconds)
        assert status == 0, f"{command!r} ended with status {status}: {output}"
        return output


class Vmm(thawtest.Process):
    """A stand-in in a folder of its own, with a serial line. environment: FC_STANDIN_..."""

    def __init__(self, lab, folder=None, *args, wait=True, rootfs=True, **environment):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="vm", dir=lab.dir))
        program = install(self.folder)
        for name in ("kernel", "rootfs") if rootfs else ():
            if not (self.folder / name).exists():
                (self.folder / name).write_text(name)
        self.api = self.folder / "api.sock"
        self.api.unlink(missing_ok=True)
        if wait:
            (self.folder / "vmm.log").touch()  # versions before 1.14 do not make it
        fifo = self.folder / "serial.in"
        if not fifo.exists():
            os.mkfifo(fifo)
        env = ["env", "-C", str(self.folder)] + [f"{name}={value}" for name, value in environment.items()]
        with open(fifo, "r+b", buffering=0) as stdin:
            super().__init__(lab, f"fc{len(lab.processes)}",
                             [*env, program, "--api-sock", "api.sock", "--log-path", "vmm.log", *args], stdin=stdin)
        lab.processes.append(self)
        self.console = Console(fifo, self._out)
        self._client = None
        if wait:
            thawtest.wait_until(lambda: self._can_connect() or not self.running(), "the API socket")
            assert self.running(), f"it ended: {self.err}"

    def _can_connect(self):
        try:
            self._client = self._client or Client(self.api)
            return True
        except OSError:
            return False

    def client(self):
        """Another connection."""
        return Client(self.api)

    def ask(self, method, path, body=None):
        """A request, on the connection that stays open."""
        return self._client.ask(method, path, body)

    def ok(self, method, path, body=None):
        """A request that must succeed; the answer's JSON, or None."""
        reply = self.ask(method, path, body)
        assert reply.status in (200, 204), f"{method} {path}: {reply.status} {reply.body}"
        return reply.json() if reply.body else None

    def put(self, path, body):
        """PUT that must succeed."""
        return self.ok("PUT", path, body)

    def patch(self, path, body=None):
        """PATCH that must succeed."""
        return self.ok("PATCH", path, body)

    def get(self, path):
        """GET that must succeed."""
        return self.ok("GET", path)

    def refused(self, method, path, body=None):
        """The text of a refusal."""
        reply = self.ask(method, path, body)
        assert reply.status == 400, f"{method} {path} {body}: {reply.status} {reply.body}"
        return reply.fault()

    def configure(self, mib=32, balloon=True, **machine):
        """Everything that a guest needs."""
        self.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": mib, **machine})
        self.put("/boot-source", {"kernel_image_path": "kernel"})
        self.put("/drives/rootfs", {"drive_id": "rootfs", "is_root_device": True, "path_on_host": "rootfs"})
        if balloon:
            extra = {} if balloon is True else balloon
            self.put("/balloon", {"amount_mib": 0, "deflate_on_oom": True, **extra})

    def boot(self, mib=32, balloon=True, **machine):
        """A guest at its prompt."""
        self.configure(mib, balloon, **machine)
        self.put("/actions", {"action_type": "InstanceStart"})
        self.console.wait_text("guest-is-ready")

    def pause(self):
        """The guest stands."""
        self.patch("/vm", {"state": "Paused"})

    def snapshot(self, memory="memory", state="vmstate", kind="Full"):
        """Of a guest that runs; it stands afterwards. Return: (path of the memory file, path of the state)."""
        self.pause()
        self.put("/snapshot/create", {"mem_file_path": str(memory), "snapshot_path": state, "snapshot_type": kind})
        return self.folder / memory, self.folder / state

    def load(self, state, socket_path, resume=True):
        """What a client sends to load a snapshot through a pager."""
        return self.ask("PUT", "/snapshot/load", load_body(state, socket_path, resume))


def load_body(state, socket_path, resume=True):
    """The body for it."""
    return {"snapshot_path": str(state), "resume_vm": resume,
            "mem_backend": {"backend_type": "Uffd", "backend_path": str(socket_path)}}


def output_of(*argv, status=0, **environment):
    """What a program prints, with the exit status that is expected."""
    done = subprocess.run([str(a) for a in argv], env={**os.environ, **environment}, capture_output=True, text=True,
                          timeout=thawtest.DEADLINE, check=False)
    assert done.returncode == status, f"{argv} ended with {done.returncode}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def network_namespace():
    """The path of a new network namespace, which is there as long as the context is. Skips where none can be made."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as holder:
        try:
            if holder.stdout.readline() == b"":
                pytest.skip("no network namespace can be made here")
            yield pathlib.Path(f"/proc/{holder.pid}/ns/net")
        finally:
            holder.stdin.close()
            holder.wait(thawtest.DEADLINE)


def real_firecracker():
    """A real Firecracker that is to be tried as well, or None: FIRECRACKER, or the one on PATH."""
    return os.environ.get("FIRECRACKER") or shutil.which("firecracker")
