# SPDX-License-Identifier: Apache-2.0
"""
What the tests of every byte are made of: workloads x page sizes x layouts of guest memory x ways to serve it.

The fake VMM does the checking (tests/lib/fakevmm.h). With THAW_REFERENCE set the same runs against another pager.
"""

import os

import thawtest
from servelib import pack

SEED = int(os.environ.get("THAW_TEST_SEED", "0")) or int.from_bytes(os.urandom(3), "big") + 1

# Steps of the fake VMM; "verify" at the end reads every page, also those the workload left alone. Memory is mapped over
# only after a page was served: a pager that tracks writes registers the regions once more before it serves.
SMALL = {
    "in-order": ["seq"],
    "shuffled": ["shuffle:threads=4"],
    "random": ["random:threads=16,n=300", "verify"],
    "write-first": ["stamp:threads=2", "verify"],
    "write-random": ["write:threads=8,n=400", "verify"],
    "runs": ["runs", "verify"],
    "herd": ["herd:n=60", "verify"],
    "discard": ["discard", "verify"],
    "discard-after-touch": ["seq:threads=2", "discard:threads=2,n=60", "verify"],
    "balloon": ["balloon:threads=6,n=800", "verify"],
    "balloon-storm": ["stamp", "balloon:threads=24,n=150", "verify"],
    "race": ["race:n=500", "verify"],
    "race-of-four": ["race:threads=4,n=300", "verify"],
    "spans": ["spans", "verify"],
    "syscalls": ["syscalls:threads=4", "verify"],
    "remapped": ["seq:end=1", "remap", "verify"],
}
HUGE = {
    "in-order": ["seq"],
    "random": ["random:threads=8,n=12", "verify"],
    "write-first": ["stamp:threads=2", "verify"],
    "write-random": ["write:threads=4,n=25", "verify"],
    "herd": ["herd:threads=16,n=6", "verify"],
    "discard": ["discard:n=4", "verify"],
    "discard-partly": ["partly", "verify"],
    "balloon": ["balloon:threads=6,n=60", "verify"],
    "race": ["race:n=15", "verify"],
    "spans": ["spans:n=8", "verify"],
    "syscalls": ["syscalls:n=10", "verify"],
    "remapped": ["seq:end=1", "remap:n=20", "verify"],
}
LAYOUTS = {
    "one-region": [],
    "three-regions-with-gaps": ["--regions", "3"],
    "three-regions-adjacent": ["--regions", "3", "--adjacent", "--shuffle"],
    "2000-regions": ["--regions", "2000"],
    "2000-regions-adjacent": ["--regions", "2000", "--adjacent", "--shuffle"],
}
FEW = list(LAYOUTS)[:3]
MANY = list(LAYOUTS)[3:]
MODES = {
    "page-by-page": ["--fault-around", "0"],
    "around": ["--fault-around", "64K"],
    "tracked": ["--fault-around", "0", "--track", "wp"],
    "around-tracked": ["--fault-around", "64K", "--track", "wp"],
    "far-around": ["--fault-around", "2M"],
}
IMAGE_MODES = {  # the memory is made an image first
    "image": [],
    "image-tracked": ["--fault-around", "0", "--track", "wp"],
    "image-without-cache": ["--image-share", "off", "--image-cache", "4K"],
}


def modes(*names):
    """The ways to serve, or the only one that a reference pager has."""
    return ["reference"] if thawtest.reference() else list(names)


def run(lab, memory, mode, steps, layout, *more):
    """One cell of the matrix."""
    print("seed", memory.seed)
    if mode in IMAGE_MODES:
        memory = pack(lab, memory)
    pager = lab.serve(memory, *MODES.get(mode, []), *IMAGE_MODES.get(mode, []))
    result = lab.run_vmm(pager, memory, *LAYOUTS[layout], *more, *steps)
    pager.expect_exit(0)
    if not thawtest.reference():
        thawtest.check_stats(pager.stats(), result)
    return result
