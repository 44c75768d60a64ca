# SPDX-License-Identifier: Apache-2.0
"""
layerlib.py - a VM whose memory changes, and what is to be in the next layer of its image

    vm = Vm(lab, memory, "--track", "wp")       a pager and a VM that it serves from a memory file
    vm.write(3); vm.remove(4, 2); vm.read(5)    the guest does something; vm.pages is what it must find afterwards
    vm.write_diff(path)                         a file with data where it wrote, as a dirty log has it
    vm.holds(store, "name")                     has the image just these bytes?

The VM does nothing but what a test tells it: between two commands it is paused. Pages are what the pager installs, 4 KiB or
2 MiB; the list vm.pages has 4096 bytes in each entry.
"""

import ctypes
import json
import os

import thawtest
from imagelib import PAGE, read_pages, write_pages
from thawtest import wait_until

_libc = ctypes.CDLL(None, use_errno=True)


class _Span(ctypes.Structure):  # struct iovec
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _move(call, pid, address, buffer):
    """Bytes from or to another process; unlike /proc/PID/mem this waits for the pager, as the guest does."""
    here, there = _Span(ctypes.addressof(buffer), len(buffer)), _Span(address, len(buffer))
    moved = call(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    assert moved == len(buffer), f"{moved} bytes at {address:#x}, errno {ctypes.get_errno()}"


class Vm:
    """A guest's memory, its pager, and an oracle."""

    def __init__(self, lab, memory, *args, page_size="4K", n_regions=1, image=None):
        """image: the arguments that name the image of that memory, if the pager is to serve it from there."""
        self.lab = lab
        self.pages = read_pages(memory)  # what the guest must find
        self.dirty = set()  # numbers of the pages of 4 KiB that were written to, since the beginning
        self.in_page = thawtest.PAGE_BYTES[page_size] // PAGE
        if image:
            socket = lab.socket()
            self.pager = lab.start_pager("--socket", socket, "--state", lab.state_dir, "--fault-around", "0", *image, *args,
                                         socket=socket)
            self.pager.wait_listening()
        else:
            self.pager = lab.serve(memory, "--fault-around", "0", *args)
        self.peer = thawtest.Peer(lab, len(self.pages) // self.in_page, page_size)
        self.peer.connect(self.pager)
        self.places = self._places(n_regions)
        regions = [self.peer.region(base_host_virt_addr=self.peer.address + at * PAGE, size=n * PAGE, offset=first * PAGE)
                   for first, n, at in self.places]
        assert self.peer.send(json.dumps(regions).encode(), "uffd") == 0
        self.pager.wait_line("serving")
        self.state = lab.state_dir / f"{self.pager.pid}.state"

    def _places(self, n_regions):
        """(first page, number of pages, at which page of the VMM's memory) of each region: in the other order there."""
        n_units = len(self.pages) // self.in_page
        ends = [n_units * i // n_regions * self.in_page for i in range(n_regions + 1)]
        return [(first, end - first, len(self.pages) - end) for first, end in zip(ends, ends[1:])]

    def _at(self, page):
        """Where a page is in the VMM's memory, in pages."""
        for first, n, at in self.places:
            if first <= page < first + n:
                return at + page - first
        raise IndexError(page)

    def _address(self, page):
        return self.peer.address + self._at(page) * PAGE

    def write(self, page, data=None):
        """The guest writes a page of 4 KiB, all of it or its beginning."""
        data = os.urandom(PAGE) if data is None else data
        _move(_libc.process_vm_writev, self.peer.pid, self._address(page), ctypes.create_string_buffer(data, len(data)))
        self.pages[page] = data + self.pages[page][len(data):]
        self.dirty.add(page)

    def read(self, page):
        """The guest reads a page of 4 KiB, and finds what it must."""
        buffer = ctypes.create_string_buffer(PAGE)
        _move(_libc.process_vm_readv, self.peer.pid, self._address(page), buffer)
        assert buffer.raw == self.pages[page], page

    def _discard(self, how, page, n):
        assert page % self.in_page == 0 and n % self.in_page == 0
        at = self._at(page) // self.in_page
        count = self.peer.out.count(f"discarded {at}\n")
        assert self.peer.tell(f"{how} {at} {n // self.in_page}") == 0
        wait_until(lambda: self.peer.out.count(f"discarded {at}\n") > count, "the discard to end")

    def free(self, page, n=1):
        """The guest does not need pages any more (MADV_FREE): the kernel may take them, and may not."""
        self._discard("free", page, n)

    def remove(self, page, n=1):
        """The guest gives pages back, whole ones of the VM in one region, and the pager has heard of it."""
        self._discard("discard", page, n)
        self.pages[page:page + n] = [bytes(PAGE)] * n
        self.dirty -= set(range(page, page + n))

    def resident(self):
        """The numbers of the pages of 4 KiB that are there."""
        with open(f"/proc/{self.peer.pid}/pagemap", "rb") as file:
            file.seek(self.peer.address // PAGE * 8)
            entries = memoryview(file.read(len(self.pages) * 8)).cast("Q")
        return {page for page in range(len(self.pages)) if entries[self._at(page)] >> 63}

    def write_diff(self, path, pages=None):
        """A file with data at these pages, and holes elsewhere: by default where the guest wrote and did not remove."""
        pages = self.dirty if pages is None else pages
        write_pages(path, [data if i in pages else None for i, data in enumerate(self.pages)])
        os.utime(path)
        return path

    def holds(self, store, name):
        """Has an image the guest's bytes?"""
        unpacked = store.unpack(name, self.lab.dir / "unpacked")
        wrong = [i for i, (found, page) in enumerate(zip(read_pages(unpacked), self.pages)) if found != page]
        assert not wrong, f"pages {wrong[:20]} of {name} are wrong"
        return os.stat(unpacked).st_size == len(self.pages) * PAGE

    def close(self):
        """End the VM, and then its pager has nothing to do."""
        self.peer.quit()
        self.pager.expect_exit(0)


def wander(vm, rng, n_steps=60):
    """The guest does this and that; some pages are removed and written to again, some only read again."""
    n = len(vm.pages)
    for _ in range(n_steps):
        page = rng.randrange(n)
        what = rng.choice(["write", "write", "touch", "read", "read", "remove", "remove", "again"])
        if what in ("remove", "again"):
            first = page // vm.in_page * vm.in_page
            vm.remove(first, vm.in_page)
        if what in ("write", "again"):
            vm.write(page, rng.randbytes(PAGE))
        elif what == "touch":
            vm.write(page, rng.randbytes(8))
        elif what == "read" or rng.randrange(3) == 0:
            vm.read(page)
