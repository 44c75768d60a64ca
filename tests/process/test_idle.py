# SPDX-License-Identifier: Apache-2.0
"""A pager with nothing to do does nothing: no thread of it, or of its supervisor, runs at all, whatever else the host does."""

import os
import pathlib
import re
import time

import pytest

import thawtest
from thawtest import families, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

IDLE_SECONDS = 2.0
EXACT = ["--fault-around", "0"]


@pytest.fixture
def quiet():
    """Nothing but thaw itself runs in the pager's process."""
    if os.environ.get("THAW_SANITIZER") == "thread":
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
@pytest.mark.parametrize("way", [[], ["--supervise"]], ids=["alone", "supervised"])
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
@pytest.mark.parametrize("way", [[], ["--supervise"]], ids=["alone", "supervised"])
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
