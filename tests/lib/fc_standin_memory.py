# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_memory.py - the guest memory of the stand-in for Firecracker

Anonymous private mappings, one for each region; the userfaultfd that a snapshot is loaded with; what discards memory; and the
memory files. Everything that may wait for a page (memcpy, write, madvise) is called through ctypes.CDLL, which lets go of
Python's lock for the time of the call: the other threads go on.

All addresses handed around here are guest page numbers: the pages of all regions in the order of the memory file.
"""

import ctypes
import errno
import fcntl
import json
import os
import socket
import struct

PAGE = 4096
HUGE_PAGE = 2 << 20
MIB = 1 << 20
PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 0x02, 0x10, 0x20, 0x4000
MAP_HUGETLB, MAP_HUGE_2MB = 0x40000, 21 << 26
MADV_DONTNEED = 4
UFFD_API_VERSION = 0xAA
UFFDIO_API, UFFDIO_REGISTER, USERFAULTFD_IOC_NEW = 0xC018AA3F, 0xC020AA00, 0xAA00
UFFD_FEATURE_EVENT_REMOVE = 1 << 3
UFFDIO_REGISTER_MODE_MISSING = 1
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
O_CLOEXEC, O_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
SEED = 0x5EED

libc = ctypes.CDLL(None, use_errno=True)
for name, restype, argtypes in (
        ("mmap", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]),
        ("munmap", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t]),
        ("madvise", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
        ("mprotect", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
        ("mincore", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]),
        ("memcpy", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
        ("pwrite", ctypes.c_ssize_t, [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long])):
    getattr(libc, name).restype = restype
    getattr(libc, name).argtypes = argtypes


class MemoryError_(Exception):
    """One line; what comes before it in an answer is the caller's."""


def os_error():
    """The last error of libc, in Rust's words."""
    code = ctypes.get_errno()
    return f"{os.strerror(code)} (os error {code})"


def pattern(page, generation=0):
    """What the guest writes into a page: 4096 bytes that no other page has."""
    word = (page * 0x9E3779B97F4A7C15 + generation * 0xC2B2AE3D27D4EB4F + SEED) % (1 << 64)
    return struct.pack("<Q", word | 1) * (PAGE // 8)


class Region:
    """One mapping. A hot-pluggable one begins without access."""

    def __init__(self, first, n_pages, slot_pages=0):
        self.first, self.n_pages = first, n_pages
        self.slot_pages = slot_pages  # 0: ordinary memory
        self.addr = None

    @property
    def size(self):
        """In bytes."""
        return self.n_pages * PAGE


def page_runs(pages):
    """[(first, n)] of sorted page numbers."""
    runs = []
    for page in pages:
        if runs and runs[-1][0] + runs[-1][1] == page:
            runs[-1][1] += 1
        else:
            runs.append([page, 1])
    return runs


class Memory:
    """All regions of one VM."""

    def __init__(self, mib, huge, hotplug_mib, slot_mib, split_mib, version):
        self.huge, self.version = huge, version
        self.page_bytes = HUGE_PAGE if huge else PAGE
        self.regions = []
        self.file_backed = False
        self.remaps = version < (1, 11)  # discards by a new mapping: nobody hears of them
        self.dirty = set()  # page numbers; what a VMM that tracks writes knows
        self.uffd = self.pager = None
        self.discards = self.discard_errors = 0
        first = 0
        for size in ([split_mib, mib - split_mib] if mib > split_mib else [mib]):
            self.regions.append(Region(first, size * MIB // PAGE))
            first += size * MIB // PAGE
        self.n_dram = first
        if hotplug_mib:
            self.regions.append(Region(first, hotplug_mib * MIB // PAGE, slot_mib * MIB // PAGE))
            first += hotplug_mib * MIB // PAGE
        self.n_pages = first

    # ---- mappings

    def map_anonymous(self):
        """Fresh memory. Hot-pluggable regions cannot be touched until they are plugged."""
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (MAP_HUGETLB | MAP_HUGE_2MB if self.huge else 0)
        for region in self.regions:
            prot = PROT_NONE if region.slot_pages else PROT_READ | PROT_WRITE
            self._map(region, None, prot, flags, -1, 0)

    def map_file(self, path):
        """Memory that is a private view of a memory file."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as e:
            raise MemoryError_(f"Failed to load guest memory: Error creating guest memory from file: Failed to open "
                               f"snapshot memory file: {e.strerror} (os error {e.errno})") from None
        try:
            if os.fstat(fd).st_size < self.n_pages * PAGE:
                raise MemoryError_("Failed to load guest memory: Error creating guest memory from file: OffsetTooLarge")
            for region in self.regions:
                prot = PROT_NONE if region.slot_pages else PROT_READ | PROT_WRITE
                self._map(region, None, prot, MAP_PRIVATE | MAP_NORESERVE, fd, region.first * PAGE)
        finally:
            os.close(fd)
        self.file_backed = True

    def _map(self, region, addr, prot, flags, fd, offset):
        got = libc.mmap(addr, region.size, prot, flags, fd, offset)
        if got in (None, ctypes.c_void_p(-1).value):
            raise MemoryError_(f"Cannot create mmap region: {os_error()}")
        region.addr = got

    def address(self, page):
        """(where in this process, how many pages of that region follow, this one included)."""
        for region in self.regions:
            if region.first <= page < region.first + region.n_pages:
                return region.addr + (page - region.first) * PAGE, region.first + region.n_pages - page
        raise IndexError(page)

    def pieces(self, page, n_pages):
        """[(address, first page, n pages)]: no piece crosses from one region into the next."""
        while n_pages:
            addr, left = self.address(page)
            n = min(left, n_pages)
            yield addr, page, n
            page, n_pages = page + n, n_pages - n

    # ---- reading and writing, as the guest and the devices do it

    def write(self, page, data, offset=0):
        """Put bytes somewhere within one region."""
        addr, _ = self.address(page)
        libc.memcpy(addr + offset, data, len(data))
        self.dirty.update(range(page, page + (offset + len(data) + PAGE - 1) // PAGE))

    def read(self, page, n_pages=1):
        """The bytes of some pages."""
        parts = []
        for addr, _, n in self.pieces(page, n_pages):
            buffer = ctypes.create_string_buffer(n * PAGE)
            libc.memcpy(buffer, addr, n * PAGE)
            parts.append(buffer.raw)
        return b"".join(parts)

    def discard(self, page, n_pages):
        """What a balloon does with a range that the guest has given away."""
        for addr, _, n in self.pieces(page, n_pages):
            self.discards += 1
            if self.file_backed or self.remaps and not self.huge:
                libc.mmap(addr, n * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
            elif libc.madvise(addr, n * PAGE, MADV_DONTNEED) != 0:
                self.discard_errors += 1

    def protect(self, page, n_pages, accessible):
        """Plug or unplug."""
        for addr, _, n in self.pieces(page, n_pages):
            libc.mprotect(addr, n * PAGE, PROT_READ | PROT_WRITE if accessible else PROT_NONE)

    # ---- userfaultfd

    def _uffd_open(self):
        """From the device if it is there; whoever may not open it gets no second way."""
        flags = O_CLOEXEC | O_NONBLOCK
        try:
            device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = libc.syscall(SYS_USERFAULTFD[os.uname().machine], flags)
            if fd < 0:
                raise MemoryError_(f"Failed to create UFFD object: {os_error()}") from None
            return fd
        except OSError as e:
            raise MemoryError_(f"Failed to create UFFD object: {e.strerror} (os error {e.errno})") from None
        try:
            return fcntl.ioctl(device, USERFAULTFD_IOC_NEW, flags)
        finally:
            os.close(device)

    def handshake(self):
        """What the pager is told, as the version at hand says it."""
        regions = []
        for region in self.regions:
            one = {"base_host_virt_addr": region.addr, "size": region.size, "offset": region.first * PAGE}
            if self.version >= (1, 12):
                one["page_size"] = self.page_bytes
            if self.version >= (1, 7):
                one["page_size_kib"] = self.page_bytes  # in bytes, whatever it is called
            regions.append(one)
        return json.dumps(regions, separators=(",", ":")).encode()

    def map_uffd(self, path, has_balloon):
        """Fresh memory whose pages come from the pager that listens at path."""
        self.map_anonymous()
        self.uffd = self._uffd_open()
        features = UFFD_FEATURE_EVENT_REMOVE if has_balloon or self.version >= (1, 12) else 0
        api = bytearray(struct.pack("<QQQ", UFFD_API_VERSION, features, 0))
        fcntl.ioctl(self.uffd, UFFDIO_API, api)
        for region in self.regions:
            register = bytearray(struct.pack("<QQQQ", region.addr, region.size, UFFDIO_REGISTER_MODE_MISSING, 0))
            fcntl.ioctl(self.uffd, UFFDIO_REGISTER, register)
        self.pager = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.pager.connect(path)
        except OSError as e:
            reason = e.strerror or str(e)
            raise MemoryError_("Failed to load guest memory: Error creating guest memory from uffd: Failed to connect "
                               f"to UDS Unix stream: {reason} (os error {e.errno})") from None
        socket.send_fds(self.pager, [self.handshake()], [self.uffd])
        if self.version < (1, 12):
            self.pager.close()

    # ---- memory files

    def _resident(self):
        """Page numbers that have memory behind them."""
        pages = []
        for region in self.regions:
            vector = (ctypes.c_ubyte * region.n_pages)()
            if libc.mincore(region.addr, region.size, vector) != 0:
                raise MemoryError_(f"Cannot get dirty bitmap: mincore: {os_error()}")
            pages += [region.first + i for i, byte in enumerate(bytes(vector)) if byte & 1]
        return pages

    def accessible_runs(self, plugged_slots):
        """[(page, n)] of ordinary memory and of plugged slots."""
        runs = []
        for region in self.regions:
            if not region.slot_pages:
                runs.append((region.first, region.n_pages))
                continue
            runs += [(region.first + slot * region.slot_pages, region.slot_pages) for slot in sorted(plugged_slots)]
        return runs

    def save(self, path, diff, tracked, plugged_slots):
        """Write a memory file: all of it, or into a sparse one what is resident (or known to be written)."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as e:
            raise MemoryError_("Cannot perform open on the memory backing file: "
                               f"{e.strerror} (os error {e.errno})") from None
        try:
            if os.fstat(fd).st_size != self.n_pages * PAGE:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, self.n_pages * PAGE)
            runs = self.accessible_runs(plugged_slots)
            if diff:
                wanted = self.dirty if tracked else set(self._resident())
                runs = page_runs(sorted(p for first, n in runs for p in range(first, first + n) if p in wanted))
            for first, n_pages in runs:
                self._write_out(fd, first, n_pages)
        finally:
            os.close(fd)
        self.dirty.clear()

    def _write_out(self, fd, first, n_pages):
        for addr, page, n in self.pieces(first, n_pages):
            done = 0
            while done < n * PAGE:
                got = libc.pwrite(fd, addr + done, n * PAGE - done, page * PAGE + done)
                if got < 0 and ctypes.get_errno() != errno.EINTR:
                    raise MemoryError_(f"Cannot write memory file: {os_error()}")
                done += max(got, 0)
