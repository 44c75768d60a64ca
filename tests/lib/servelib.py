# SPDX-License-Identifier: Apache-2.0
"""What the tests of serving images share: images of memory files, and damage to them."""

import pathlib
import signal
import subprocess

import thawtest
from recordlib import thaw


class Image(thawtest.Memory):
    """An image of a memory file, which Lab.serve() takes in place of it."""

    def __init__(self, memory, store, name):
        super().__init__(memory.path, memory.size, memory.seed, memory.dense)
        self.store = pathlib.Path(store)
        self.name = name

    def serve_args(self):
        """What `thaw serve` is told."""
        return ["--image", self.name, "--store", self.store]

    def id(self):
        """The id that its name leads to."""
        return (self.store / "names" / self.name).read_text().strip()

    def manifest(self):
        """The file that says where everything is."""
        return self.store / "manifests" / self.id()

    def packs(self):
        """All packs of the store, the largest first."""
        return sorted((self.store / "packs").iterdir(), key=lambda path: -path.stat().st_size)


def pack(lab, memory, *args, name="guest", store=None):
    """An image of a memory file, in a store of this test's own."""
    store = store or lab.store()
    thaw("image", "pack", memory.path, "--output", name, "--store", store, *args)
    return Image(memory, store, name)


def make_chain(lab, memory, depth):
    """An image whose pages are in so many packs."""
    store, name = lab.store(), f"chain{depth}"
    subprocess.run([thawtest.program("MAKE_CHAIN"), memory.path, store, name, str(depth)], check=True,
                   timeout=thawtest.DEADLINE)
    return Image(memory, store, name)


def change(path, offset, count=1):
    """Damage: some bytes are others. The file is a new one under the same name, unless it can be written to."""
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(offset)
        data = file.read(count)
        file.seek(offset)
        file.write(bytes(byte ^ 0x55 for byte in data))


def expect_stopped(pager, vmm, *words):
    """The VM is stopped, before it has seen a wrong byte, and the pager says why in one line."""
    assert vmm.wait() == -signal.SIGKILL, vmm.err
    assert "wrong byte" not in vmm.err
    pager.expect_error(*words)
    assert pager.stats()["end"] == "source"
