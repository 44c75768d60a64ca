# SPDX-License-Identifier: Apache-2.0
"""
Many pagers on one host, and pagers with nothing to do.

Memory is what /proc/PID/smaps calls private, mappings of the memory file left out (they are the page cache's), and the
page tables; what a supervisor and its child share counts once. What was measured is printed and put into the test's
record. THAW_TEST_PAGERS changes how many pagers there are.
"""

import os
import pathlib
import re
import subprocess
import time

import pytest

import thawtest
from thawtest import check_stats, let_go, private_kib, wait_until

SANITIZER = os.environ.get("THAW_SANITIZER")
PAGERS = int(os.environ.get("THAW_TEST_PAGERS", "0")) or (20 if SANITIZER else 200)
LIMIT_KIB = 2048  # for each process
IDLE_SECONDS = 2.0
EXACT = ["--fault-around", "0"]


@pytest.fixture(autouse=True)
def only_thaw():
    """These tests are about thaw itself."""
    if thawtest.reference():
        pytest.skip("about thaw serve, not about the reference pager")


def ways():
    """Arguments for each way to run: alone, and under a supervisor where this thaw has one."""
    alone, supervised = pytest.param([], id="alone"), pytest.param(["--supervise"], id="supervised")
    thaw = os.environ.get("THAW")
    if not thaw:
        return [alone]
    text = subprocess.run([thaw, "serve", "--help"], check=True, capture_output=True, text=True, timeout=10).stdout
    return [alone, supervised] if "--supervise" in text else [alone]


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


# ---- nothing to do ----


@pytest.fixture
def quiet():
    """Nothing but thaw itself runs in the pager's process."""
    if SANITIZER == "thread":
        pytest.skip("ThreadSanitizer has a thread of its own, which is never idle")


def activity(pids):
    """All threads of these processes: processor time (clock ticks, and nanoseconds), and switches."""
    seen = {}
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            times = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
            switches = re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())
            on_cpu = (task / "schedstat").read_text().split()[0] if (task / "schedstat").exists() else None
            seen[pid, task.name] = (times, switches, on_cpu)
    return seen


def expect_idle(pid):
    """No thread of this process, or of its children, runs at all."""
    pids = families([pid])[0]
    last = [activity(pids)]

    def settled():
        time.sleep(0.1)
        before, last[0] = last[0], activity(pids)
        return before == last[0]

    wait_until(settled, "the end of what there was to do")
    time.sleep(IDLE_SECONDS)  # this is what is measured
    after = activity(pids)
    assert len(after) >= 5, "the pager's thread and its workers"
    assert after == last[0]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("steps", [["seq"], ["discard", "balloon:n=300"], ["churn:threads=6,end=200", "seq"]],
                         ids=["faults", "discards", "retries"])
def test_a_pager_with_nothing_to_do_uses_no_processor_time(lab, steps, way):
    memory = lab.memory("8M", seed=5)
    pager = lab.serve(memory, *EXACT, *way)
    vmm = lab.start_vmm(pager, memory, *steps, "pause")
    if "flooding" in wait_until(lambda: vmm.out, "its first line"):
        vmm.wait_line("served")
        let_go(vmm)
    vmm.wait_line("paused")
    expect_idle(pager.pid)
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("way", ways())
def test_a_pager_that_fetched_uses_no_processor_time_afterwards(lab, way):
    memory = lab.own_memory("8M", seed=5, dense=True, where="disk")
    thawtest.drop_cache(memory.path)
    pager = lab.serve(memory, *way)
    vmm = lab.start_vmm(pager, memory, "shuffle:threads=8", "pause")
    vmm.wait_line("paused")
    assert pager.ask_stats()["counters"]["fetches"] > 0
    expect_idle(pager.pid)
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


# ---- many ----


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


@pytest.mark.parametrize("way", ways())
def test_many_vms_are_restored_at_once_from_one_file(lab, capsys, record_property, way):
    restore_many(lab, capsys, record_property, [lab.memory("256M", seed=20)], *way)


def test_many_vms_are_restored_at_once_from_files_that_are_not_in_the_page_cache(lab, capsys, record_property):
    memories = [lab.memory("256M", seed=20 + i, where="disk") for i in range(3)]
    for memory in memories:
        thawtest.drop_cache(memory.path)
    restore_many(lab, capsys, record_property, memories)
