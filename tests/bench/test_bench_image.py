# SPDX-License-Identifier: Apache-2.0
"""
tools/bench_image.py on small memory files: it runs to its end, and its tables and results have what they ought to. Figures are not
judged here.
"""

import json
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import bench_image  # noqa: E402
import guest_memory  # noqa: E402
import imagelib  # noqa: E402
import thawtest  # noqa: E402

LIMIT = 100


@pytest.fixture
def memory(tmp_path):
    """Memory files as guest_memory.py leaves them, but small."""
    rng = random.Random(1)
    folder = tmp_path / "memory"
    folder.mkdir()
    parent = None
    for name in guest_memory.NAMES + guest_memory.OTHERS:
        parent = imagelib.make_memory(folder / name, rng, n_pages=200, parent=parent)
    return folder


def test_each_codec_and_frame_size_is_measured(memory, tmp_path):
    build = pathlib.Path(thawtest.program("THAW")).parents[2]
    done = subprocess.run([sys.executable, str(ROOT / "tools/bench_image.py"), "--build", str(build), "--memory", str(memory),
                           "--out", str(tmp_path / "out"), "--rounds", "1", "frames"], check=False, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/image-frames.json").read_text())
    rows = results["rows"]
    assert [(row["codec"], row["frame"]) for row in rows] == [
        (bench_image.codec_name(*codec), frame) for codec in bench_image.CODECS for frame in bench_image.FRAMES]
    for row in rows:
        assert 0 < row["frame_p50_ns"] <= row["frame_p99_ns"]
        assert min(row["pack_s"], row["unpack_s"]) > 0
        assert row["pack_bytes"] - 64 <= row["stored_bytes"]
        assert row["codec"] != "none" or row["pack_bytes"] - 64 == row["stored_bytes"]
    table = (tmp_path / "out/image-frames.md").read_text()
    assert table in done.stdout and len(table.splitlines()) == 2 + len(rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["image-frames.json", "image-frames.md"]


def test_what_the_codecs_say_of_themselves_is_read():
    said = " 3#dense     : 190488576 ->  73037463 (x2.608),  315.1 MB/s \r 3#dense : 190488576 -> 73037463 (x2.608),  315.1 MB/s, " \
           "1295.7 MB/s \r"
    assert bench_image.read_speeds(said) == (315.1e6, 1295.7e6)
    with pytest.raises(RuntimeError):
        bench_image.read_speeds("zstd: not here")


def test_a_measurement_that_is_not_there_is_refused(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "tools/bench_image.py"), "--out", str(tmp_path), "speed"], check=False,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert done.returncode == 2 and "the measurements are frames, guests, throughput" in done.stderr
