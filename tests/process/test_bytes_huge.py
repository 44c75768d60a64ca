# SPDX-License-Identifier: Apache-2.0
"""Every byte of 2 MiB pages that a VMM reads is the right one: see matrix.py."""

import pytest

import thawtest
from matrix import FEW, HUGE, SEED, modes, run

pytestmark = pytest.mark.usefixtures("huge")


@pytest.mark.parametrize("mode", modes("page-by-page", "tracked", "far-around"))
@pytest.mark.parametrize("workload", HUGE)
def test_every_byte_of_2m_pages_is_right(lab, workload, mode):
    layout = FEW[(list(HUGE).index(workload) + len(mode)) % 3]
    run(lab, lab.memory("40M", SEED), mode, HUGE[workload], layout, "--page-size", "2M")


@pytest.mark.parametrize("mode", modes("page-by-page", "tracked"))
def test_every_byte_of_2m_pages_is_right_from_a_cold_file(lab, mode):
    memory = lab.memory("40M", SEED, where="disk")
    thawtest.drop_cache(memory.path)
    run(lab, memory, mode, HUGE["random"], "three-regions-with-gaps", "--page-size", "2M")


@pytest.mark.parametrize("field", ["new", "old", "kib"])
def test_every_way_to_say_a_page_size_of_2m_is_understood(lab, field):
    if thawtest.reference() and field == "kib":
        pytest.skip("the reference pager takes page_size_kib as bytes")
    run(lab, lab.memory("40M", SEED), "around", ["seq"], "one-region", "--page-size", "2M",
        "--page-field", field)
