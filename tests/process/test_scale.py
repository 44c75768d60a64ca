# SPDX-License-Identifier: Apache-2.0
"""
Many pagers on one host.

Memory is what /proc/PID/smaps calls private, mappings of the memory file left out (they are the page cache's), and the
page tables; what a supervisor and its child share counts once. What was measured is printed and put into the test's
record. THAW_TEST_PAGERS changes how many pagers there are.
"""

import os
import time

import pytest

import thawtest
from thawtest import check_stats, families, let_go, private_kib, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

SANITIZER = os.environ.get("THAW_SANITIZER")
PAGERS = int(os.environ.get("THAW_TEST_PAGERS", "0")) or (20 if SANITIZER else 200)
LIMIT_KIB = 2048  # for each process


class Crowd:
    """Many VMs and their pagers."""

    def __init__(self, lab, memories, args):
        self.lab = lab
        self.memories = memories
        self.pagers = [lab.serve(memory, *args, wait=False) for memory in memories]
        for pager in self.pagers:
            pager.wait_listening()
        # They connect, hand their memory over, and wait for a word: then all begin at once.
        self.vmms = [lab.start_vmm(pager, memory, "pause", "runs:threads=1,n=120", "discard:threads=1,n=20", "pause",
                                   timeout=80)
                     for pager, memory in zip(self.pagers, memories)]
        self._wait_paused(1)

    def _wait_paused(self, times):
        for vmm in self.vmms:
            wait_until(lambda one=vmm: one.out.count("paused") >= times or not one.running(),
                       f"{vmm.name} to pause", 60)
            assert vmm.running(), vmm.describe()

    def restore(self):
        """Let all VMs use their memory, and wait until they have. Return: seconds."""
        began = time.monotonic()
        for vmm in self.vmms:
            let_go(vmm)
        self._wait_paused(2)
        return time.monotonic() - began

    def memory_kib(self):
        """For each pager: KiB of private memory and of page tables, all of its processes together."""
        sums = []
        for family, memory in zip(families([pager.pid for pager in self.pagers]), self.memories):
            parts = [private_kib(pid, memory.path, sharers=len(family)) for pid in family]
            assert all(sum(part) <= LIMIT_KIB for part in parts), parts
            sums.append(tuple(map(sum, zip(*parts))))
        return sums

    def finish(self):
        """End all. Return: the VMs' results."""
        for vmm in self.vmms:
            let_go(vmm)
        results = [self.lab.finish_vmm(vmm) for vmm in self.vmms]
        for pager, result in zip(self.pagers, results):
            pager.expect_exit(0)
            check_stats(pager.stats(), result)
        return results


def report(capsys, record_property, crowd, seconds, results):
    """Say what was measured."""
    measured = {"pagers": len(crowd.pagers), "seconds": round(seconds, 2),
                "touched MiB": sum(result["touched"] for result in results) >> 8}
    for label, values in zip(("private", "tables"), zip(*crowd.sums)):
        values = sorted(values)
        measured[f"{label} KiB, median and most"] = (values[len(values) // 2], values[-1])
        measured[f"{label} MiB in all"] = sum(values) >> 10
    for name, value in measured.items():
        record_property(name, value)
    with capsys.disabled():
        print("\n    " + "; ".join(f"{name} {value}" for name, value in measured.items()))


def restore_many(lab, capsys, record_property, memories, *args):
    """Restore VMs from these memory files, in turn, all at once."""
    crowd = Crowd(lab, [memories[i % len(memories)] for i in range(PAGERS)], args)
    seconds = crowd.restore()
    crowd.sums = [] if SANITIZER else crowd.memory_kib()
    results = crowd.finish()
    report(capsys, record_property, crowd, seconds, results)


@pytest.mark.parametrize("way", [[], ["--supervise"]], ids=["alone", "supervised"])
def test_many_vms_are_restored_at_once_from_one_file(lab, capsys, record_property, way):
    restore_many(lab, capsys, record_property, [lab.memory("256M", seed=20)], *way)


def test_many_vms_are_restored_at_once_from_files_that_are_not_in_the_page_cache(lab, capsys, record_property):
    memories = [lab.memory("256M", seed=20 + i, where="disk") for i in range(3)]
    for memory in memories:
        thawtest.drop_cache(memory.path)
    restore_many(lab, capsys, record_property, memories)
