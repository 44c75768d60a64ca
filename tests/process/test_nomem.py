# SPDX-License-Identifier: Apache-2.0
"""
No memory for the guest's pages: it is waited for, then the VM is stopped. Huge pages are the host's: no other test has any meanwhile.

Linux (measured on 6.18) answers UFFDIO_COPY into a huge page for which there is no memory with EEXIST as well as
with ENOMEM: a pager that takes EEXIST for "the page is there" ends up with zeroes in it.
"""

import signal
import time

import pytest

import hugepool
from thawtest import check_stats, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

LIMIT_SECONDS = 10  # how long thaw waits for memory


@pytest.fixture(scope="module", autouse=True)
def no_other_taker():
    """Nobody else takes from the pool."""
    with hugepool.no_hugepages():
        if int((hugepool.HUGE / "nr_hugepages").read_text()) > 0:
            pytest.skip("other processes on this host have huge pages")
        yield


def starve(lab, memory):
    """A VMM that touched all huge pages there are, and then one more."""
    pager = lab.serve(memory)
    vmm = lab.start_vmm(pager, memory, "--page-size", "2M", "seq:end=3", "pause", "seq", timeout=60)
    vmm.wait_line("paused")
    let_go(vmm)

    def starving():
        pager.signal(signal.SIGUSR1)
        if not pager.stats_file.exists():
            return False
        counters = pager.stats()["counters"]
        return counters["nomem"] >= 5 or counters["pages_found"] > 0

    wait_until(starving, "a page for which there is no memory, tried again and again")
    return pager, vmm


def test_a_page_waits_for_memory_and_comes_when_there_is_some(lab):
    memory = lab.memory("16M", seed=9, dense=True)
    with hugepool.more_hugepages(3):
        pager, vmm = starve(lab, memory)
        assert vmm.running()
        with hugepool.more_hugepages(8):
            result = lab.finish_vmm(vmm)
            pager.expect_exit(0)
    stats = pager.stats()
    check_stats(stats, result)
    assert stats["counters"]["nomem"] > 0


def test_a_vm_for_which_there_is_no_memory_is_stopped_and_never_sees_zeroes(lab):
    memory = lab.memory("16M", seed=9, dense=True)
    with hugepool.more_hugepages(3):
        before = time.monotonic()
        pager, vmm = starve(lab, memory)
        assert vmm.wait(LIMIT_SECONDS + 10) == -signal.SIGKILL
        assert time.monotonic() - before > LIMIT_SECONDS - 1
        assert "wrong byte" not in vmm.err
        pager.expect_error("memory", "huge page")
        assert pager.stats()["end"] == "nomem"
