# SPDX-License-Identifier: Apache-2.0
"""Every byte of 4 KiB pages that a VMM reads is the right one: see matrix.py."""

import pytest

import thawtest
from matrix import FEW, IMAGE_MODES, SEED, SMALL, modes, run


@pytest.mark.parametrize("mode", modes("page-by-page", "around", "tracked", "around-tracked"))
@pytest.mark.parametrize("layout", FEW)
@pytest.mark.parametrize("workload", SMALL)
def test_every_byte_of_4k_pages_is_right(lab, workload, layout, mode):
    run(lab, lab.memory("8M", SEED), mode, SMALL[workload], layout)


@pytest.mark.parametrize("mode", IMAGE_MODES)
@pytest.mark.parametrize("workload", SMALL)
def test_every_byte_of_4k_pages_from_an_image_is_right(lab, workload, mode):
    if thawtest.reference():
        pytest.skip("about thaw serve, not about the reference pager")
    layout = FEW[(list(SMALL).index(workload) + len(mode)) % 3]
    run(lab, lab.memory("8M", SEED), mode, SMALL[workload], layout)
