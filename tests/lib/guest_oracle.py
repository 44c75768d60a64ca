# SPDX-License-Identifier: Apache-2.0
"""What a restored guest's memory must be, page by page, judged without asking the pager.

A Linux guest cannot see stale bytes in memory that it gave back: it takes such pages for free and clears them before
use. So checksums in the guest say nothing about discards. This does: stop the guest, note which pages are present in
QEMU, have QEMU read all of the guest's memory, which brings the missing pages in, and compare each page that was not
present. It must be zero if QEMU ever discarded it, else equal to the snapshot. Which pages were discarded is known from
QEMU's own madvise() calls (tests/guest/madvise_log.c).

With write tracking more can be judged: a page that is present and still write-protected was not written since it was
installed, so the same holds for it.
"""

import array
import bisect
import dataclasses
import struct

PAGE = 4096
PRESENT = 1 << 63
SWAPPED = 1 << 62
WRITE_PROTECTED = 1 << 57
# The BIOS and the video memory lie over this part of the RAM: reading it there does not read the RAM.
OVERLAID = range(0xA0000 // PAGE, 0x100000 // PAGE)


@dataclasses.dataclass
class Verdict:
    """How many pages were compared, and which were wrong."""

    absent: int = 0  # pages compared that were not present
    protected: int = 0  # pages compared that were present and write-protected
    removed: int = 0  # of both: discarded before
    telling: int = 0  # of those: not zero in the snapshot, so that stale bytes would show
    bad: list = dataclasses.field(default_factory=list)  # page numbers

    def __str__(self):
        return (
            f"{self.absent} absent and {self.protected} write-protected pages compared; {self.removed} of them "
            f"discarded ({self.telling} not zero in the snapshot); {len(self.bad)} wrong, first: {self.bad[:5]}"
        )


def page_flags(pid, base, size):
    """One 64-bit word for each 4 KiB page, see the kernel's pagemap."""
    flags = array.array("Q")
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        f.seek(base // PAGE * 8)
        left = size // PAGE * 8
        while left:
            data = f.read(left)
            flags.frombytes(data)
            left -= len(data)
    return flags


def discarded_ranges(log):
    """[(start, end)] from the madvise log, merged and in order."""
    records = struct.iter_unpack("=QQ", log.read_bytes()) if log.exists() else []
    merged = []
    for start, end in sorted((addr, addr + size) for addr, size in records):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def covered(ranges, starts, start, end):
    """Whether one of ranges contains [start, end)."""
    i = bisect.bisect_right(starts, start) - 1
    return i >= 0 and end <= ranges[i][1]


def check(restored, scratch, page_bytes=PAGE):
    """Stop the guest and compare; a Verdict. page_bytes: of the pager's pages, 4 KiB or 2 MiB."""
    vm, snapshot = restored.vm, restored.snapshot
    vm.qmp.execute("stop")
    spans = vm.spans()
    flags = array.array("Q")
    for base, size in spans:
        flags.extend(page_flags(vm.pid, base, size))
    ranges = discarded_ranges(restored.madvise_log)
    starts = [start for start, _ in ranges]
    vm.qmp.execute("pmemsave", val=0, size=sum(size for _, size in spans), filename=str(scratch), seconds=120)

    verdict = Verdict()
    with open(scratch, "rb") as now, open(snapshot.memory, "rb") as then:
        page = 0
        for base, size in spans:
            for at in range(0, size, PAGE):
                expect, got = then.read(PAGE), now.read(PAGE)
                if page not in OVERLAID:
                    # A huge page is discarded as a whole or not at all.
                    first = base + at - at % page_bytes
                    removed = covered(ranges, starts, first, first + page_bytes)
                    compare(verdict, page, flags[page], removed, expect, got)
                page += 1
    scratch.unlink()
    return verdict


def compare(verdict, page, flags, removed, expect, got):
    """Judge one page; expect is what the snapshot has, got is what the guest would read."""
    if not flags & (PRESENT | SWAPPED):
        verdict.absent += 1
    elif flags & WRITE_PROTECTED:
        verdict.protected += 1
    else:
        return  # the guest may have written to it
    if removed:
        verdict.removed += 1
        verdict.telling += any(expect)
        expect = bytes(PAGE)
    if got != expect:
        verdict.bad.append(page)
