# SPDX-License-Identifier: Apache-2.0
"""Every byte is right with thousands of regions, from disks, from files that are not in memory."""

import pytest

import thawtest
from matrix import MANY, SEED, SMALL, modes, run


@pytest.mark.parametrize("mode", modes("page-by-page", "around-tracked"))
@pytest.mark.parametrize("layout", MANY)
@pytest.mark.parametrize("workload", ["shuffled", "write-random", "discard", "balloon", "spans", "remapped"])
def test_every_byte_is_right_in_2000_regions(lab, workload, layout, mode):
    run(lab, lab.memory("16M", SEED), mode, SMALL[workload], layout)


@pytest.mark.parametrize("mode", modes("around", "far-around", "around-tracked"))
@pytest.mark.parametrize("workload", ["in-order", "random", "write-random", "discard", "balloon"])
def test_every_byte_is_right_from_a_file_on_a_disk(lab, workload, mode):
    run(lab, lab.memory("8M", SEED, where="disk"), mode, SMALL[workload], "three-regions-with-gaps")


@pytest.mark.parametrize("mode", modes("page-by-page", "around", "around-tracked"))
@pytest.mark.parametrize("workload", ["in-order", "random", "write-random", "herd", "discard", "balloon"])
@pytest.mark.parametrize("layout", ["three-regions-adjacent"])
def test_every_byte_is_right_from_a_cold_file(lab, workload, layout, mode):
    memory = lab.memory("8M", SEED, where="disk")
    thawtest.drop_cache(memory.path)
    run(lab, memory, mode, SMALL[workload], layout)


@pytest.mark.parametrize("field", ["both", "new", "old", "kib", "none"])
def test_every_way_to_say_the_page_size_is_understood(lab, field):
    if thawtest.reference() and field == "kib":
        pytest.skip("the reference pager takes page_size_kib as bytes")
    run(lab, lab.memory("8M", SEED), "around", ["random:n=200"], "three-regions-with-gaps",
        "--page-field", field)
