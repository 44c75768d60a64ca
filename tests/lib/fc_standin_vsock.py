# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_vsock.py - the vsock of the stand-in for Firecracker: from the host to a port of the guest

Whoever connects to the unix socket says `CONNECT PORT\\n` and is answered `OK NUMBER\\n` if the guest listens at that port; if not, the
connection is closed. Then the guest says everything back. A guest that stands answers nobody. Connections end with the VMM
and are not in a snapshot.
"""

import contextlib
import socket
import threading
import time

LINE_MAX = 64


class Vsock:
    """Binds `path`, which may not be there; OSError. guest() is the guest, or None while there is none."""

    def __init__(self, path, guest):
        self.guest = guest
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            line = b""
            while not line.endswith(b"\n") and len(line) < LINE_MAX:
                byte = connection.recv(1)
                if not byte:
                    return
                line += byte
            words = line.decode(errors="replace").split()
            if len(words) != 2 or words[0].upper() != "CONNECT" or not words[1].isdigit():
                return
            self._wait_running()
            if int(words[1]) not in self.guest().ports:
                return
            connection.sendall(b"OK 1073741824\n")
            while data := connection.recv(4096):
                self._wait_running()
                connection.sendall(data)

    def _wait_running(self):
        while not (self.guest() and self.guest().running):
            time.sleep(0.005)
