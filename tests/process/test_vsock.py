# SPDX-License-Identifier: Apache-2.0
"""A guest's vsock: a template is ready when somebody listens there, and every sandbox has a way to it of its own."""

import contextlib
import json
import os
import socket

import pytest

import fclib
import sandboxlib
import thawtest

PORT = 52
DELAY = 0.5  # seconds from "guest-is-ready" until somebody listens


@pytest.fixture
def node():
    """An empty store, with the stand-in on PATH."""
    with sandboxlib.empty_node() as one:
        yield one


def build(node, *options):
    """The command line of a template whose guest listens at PORT, some time after it has said that it is ready."""
    return ["template", "build", "small", "--vmm", "firecracker", "--kernel", node.kernel, "--memory", 32,
            "--free-page-reporting", "off", "--cmdline", f"console=ttyS0 listen={PORT}@{DELAY}", *options]


@contextlib.contextmanager
def connected(node, name, port):
    """A connection to the guest, and the line that it was answered with."""
    folder = os.open(node.path(name, "vm"), os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(thawtest.DEADLINE)
        s.connect(f"/proc/self/fd/{folder}/vsock.sock")
        os.close(folder)
        s.sendall(f"CONNECT {port}\n".encode())
        yield s, s.recv(64)


def echoes(node, name):
    """Whoever connects to the guest gets back what it says; nobody listens beside it."""
    with connected(node, name, PORT) as (s, answer):
        assert answer.startswith(b"OK ")
        s.sendall(name.encode())
        assert s.recv(64) == name.encode()
    with connected(node, name, PORT + 1) as (_, answer):
        assert answer == b""


@pytest.mark.parametrize("no_shell", [False, True])
def test_a_template_is_ready_when_somebody_listens_and_so_are_its_sandboxes(node, no_shell):
    node.ok(*build(node, "--ready-vsock", PORT, *(["--no-shell"] if no_shell else [])))
    known = json.loads(node.ok("template", "show", "small", "--json"))
    assert known["ready_vsock"] == PORT and known["vsock"] is True and known["devices"] == "serial balloon vsock"
    assert known["shell"] is not no_shell and known["working_set"] is True
    assert f"vsock port {PORT}" in node.ok("template", "show", "small")
    assert node.ok("run", "small", "--name", "a", "--wait") == "a\n"
    assert node.ps("a")["vsock"] == str(node.path("a", "vm", "vsock.sock"))
    echoes(node, "a")
    node.ok("pause", "a")
    assert "vsock" not in node.ps("a")
    node.ok("resume", "a", "--wait")
    echoes(node, "a")
    node.ok("pause", "a")
    for name in node.ok("fork", "a", "--count", 2, "--wait").split():
        echoes(node, name)


def test_a_jailed_guest_is_reached_in_its_jail(node):
    fclib.needs_jail(node.folder)
    os.chmod(node.folder.parent, 0o755)
    node.ok(*build(node, "--ready-vsock", PORT))
    assert node.ok("run", "small", "--name", "a", "--wait", "--jail", 23456) == "a\n"
    path = node.ps("a")["vsock"]
    assert os.stat(path).st_uid == 23456
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        folder = os.open(os.path.dirname(path), os.O_PATH)
        s.connect(f"/proc/self/fd/{folder}/vsock.sock")
        os.close(folder)
        s.sendall(f"CONNECT {PORT}\n".encode())
        assert s.recv(64).startswith(b"OK ")
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")


def test_a_port_at_which_nobody_listens_is_waited_for_and_nothing_is_left(node):
    line = node.fails(*build(node, "--ready-vsock", PORT + 1, "--timeout", 2))
    assert f"nobody in the guest listens at vsock port {PORT + 1} within 2000 ms" in line
    node.nothing_runs()
    assert node.stored()[:2] == ([], 0) and not list((node.store / "templates").iterdir())


def test_a_vsock_may_be_there_without_being_waited_for(node):
    node.ok(*build(node, "--vsock", "--ready", "guest-is-ready"))
    known = json.loads(node.ok("template", "show", "small", "--json"))
    assert known["vsock"] is True and known["ready_vsock"] == 0
    node.ok("run", "small", "--name", "a", "--wait")
    assert node.path("a", "vm", "vsock.sock").is_socket()


@pytest.mark.parametrize("option, words", [
    (["--ready-vsock", "0"], "1 to 4294967294"), (["--ready-vsock", "4294967295"], "1 to 4294967294"),
    (["--ready-vsock", "ssh"], "ready"), (["--vsock", "--vmm", "qemu"], "vsock is for firecracker"),
    (["--ready-vsock", "52", "--vmm", "qemu"], "ready_vsock is for firecracker")])
def test_what_cannot_be_is_refused_before_anything_is_made(node, option, words):
    done = node.run(*build(node, *option))
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1 and words in done.stderr, done
    assert not node.store.exists()
