# SPDX-License-Identifier: Apache-2.0
"""
Guest memory is linearizable: see stress.c for what that says and how it is found out.

A moment for each cell of the matrix in `make check`; `make stress` lets all of them share STRESS_SECONDS, in rounds of at
most a minute, each with a pager and a seed of its own.
"""

import os
import random
import time

import pytest

import servelib
import stresslib
import thawtest
from stresslib import SANITIZED, SEED, TRACK

ROUND_SECONDS = 60
SHORT_SECONDS = 1 if SANITIZED else 2
CELLS = [(page_size, mode, where) for page_size in ("4K", "2M") for mode in TRACK for where in ("tmpfs", "disk")]
FEW_CELLS = [("4K", "plain", "disk"), ("4K", "tracked", "tmpfs"), ("2M", "tracked", "disk")]
CELL_SECONDS = int(os.environ.get("STRESS_SECONDS", "0")) // len(CELLS) or SHORT_SECONDS


# What a pager may do besides: nothing, as fast as it goes, over most of the time of a short cell.
AHEAD = {"fast": ["--fill"], "slow": ["--fill", "--prefetch-rate", "16M"],
         "burst": ["--prefetch-before-resume", "all"]}


def ahead_args(lab, memory, page_size, ahead):
    """The pager's options for AHEAD."""
    if ahead != "burst":
        return AHEAD[ahead]
    path = stresslib.working_set(lab, memory, "--page-size", page_size)
    thawtest.drop_cache(memory.path)
    return [*AHEAD[ahead], "--prefetch", path]


def run_round(lab, page_size, mode, where, seed, seconds, ahead=(), image=False):
    """One VM's life, with options that the seed decides."""
    dice = random.Random(seed)
    memory = stresslib.memory_of(lab, page_size, where)
    if image:
        memory = servelib.pack(lab, memory, "--replace", "--frame", dice.choice(["4K", "64K", "1M"]))
        lab.serve(memory, *ahead)  # somebody to share with
    pager = lab.serve(memory, "--track", TRACK[mode], "--fault-around", dice.choice(["0", "64K", "64K", "2M"]),
                      *ahead)
    vmm = stresslib.start(lab, pager, memory, "--page-size", page_size, "--regions", dice.choice([1, 3, 16]),
                          "--writers", dice.choice([2, 4, 8]), "--readers", dice.choice([2, 4, 8]),
                          "--removers", dice.choice([1, 2, 4]), seconds=seconds, seed=seed)
    result = stresslib.finish(vmm, seconds)
    pager.expect_exit(0)
    thawtest.check_stats(pager.stats())
    print(stresslib.summary(result))


def run_cell(lab, page_size, mode, where, ahead=None, image_args=()):
    """One cell of the matrix, in rounds."""
    memory = stresslib.memory_of(lab, page_size, where)
    args = ahead_args(lab, memory, page_size, ahead) if ahead else list(image_args)
    end, seed = time.monotonic() + CELL_SECONDS, SEED
    while True:
        left = end - time.monotonic()
        run_round(lab, page_size, mode, where, seed, max(1, min(ROUND_SECONDS, round(left))), args, bool(image_args))
        seed += 1
        if time.monotonic() + 1 > end:
            return


@pytest.mark.parametrize("page_size,mode,where", [cell for cell in (FEW_CELLS if SANITIZED else CELLS) if cell[0] == "4K"])
def test_memory_of_4k_pages_is_linearizable(lab, page_size, mode, where):
    run_cell(lab, page_size, mode, where)


@pytest.mark.parametrize("page_size,mode,where", [cell for cell in (FEW_CELLS if SANITIZED else CELLS) if cell[0] == "2M"])
def test_memory_of_2m_pages_is_linearizable(lab, huge, page_size, mode, where):
    run_cell(lab, page_size, mode, where)


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("mode", TRACK)
def test_memory_is_linearizable_while_4k_pages_are_installed_ahead(lab, mode, ahead):
    run_cell(lab, "4K", mode, "disk" if ahead == "burst" else "tmpfs", ahead)


@pytest.mark.parametrize("ahead", AHEAD)
def test_memory_is_linearizable_while_2m_pages_are_installed_ahead(lab, huge, ahead):
    run_cell(lab, "2M", "plain", "disk" if ahead == "burst" else "tmpfs", ahead)


# A pager that keeps as little as it can; one that has others beside it and shares; one that is ahead of its guest.
IMAGE = {"alone": ["--image-share", "off", "--image-cache", "4K"], "shared": ["--image-share", "8M"],
         "ahead": ["--image-share", "8M", "--image-cache", "1M", "--fill"]}


@pytest.mark.parametrize("how", IMAGE)
@pytest.mark.parametrize("mode", ["plain"] if SANITIZED else TRACK)
def test_memory_of_an_image_is_linearizable(lab, mode, how):
    run_cell(lab, "4K", mode, "tmpfs", image_args=IMAGE[how])


def test_memory_of_2m_pages_of_an_image_is_linearizable(lab, huge):
    run_cell(lab, "2M", "plain", "tmpfs", image_args=IMAGE["alone"])
