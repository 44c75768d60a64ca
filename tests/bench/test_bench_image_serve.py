# SPDX-License-Identifier: Apache-2.0
"""tools/bench_image_serve.py, on a memory that is too small to say anything."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds


def run(tmp_path, *args):
    """Its tables and figures of one round."""
    memory, figures = tmp_path / "memory", tmp_path / "figures"
    subprocess.run([os.environ["FAKEVMM"], "--make-file", memory, "--size", "4M", "--seed", "3"], check=True, timeout=LIMIT)
    done = subprocess.run([ROOT / "tools/bench_image_serve.py", "--memory", memory, "--thaw", os.environ["THAW"], "--touchvmm",
                           os.environ["TOUCHVMM"], "--make-chain", os.environ["MAKE_CHAIN"], "--rounds", "1", "--touches", "50", "--depths", "1,10,100",
                           "--json", figures, *args],
                          check=True, capture_output=True, text=True, timeout=LIMIT)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    return done.stdout, json.loads(figures.read_text())


def test_all_is_measured_and_nothing_left_behind(tmp_path):
    tables, figures = run(tmp_path)
    seen = {row["what"] for row in figures}
    assert seen == {"fault, warm", "fault, cold", "replay, warm", "replay, cold", "memory, 1 VMs", "memory, 4 VMs",
                    "memory, 16 VMs", "depth, warm"}
    assert {row["subject"] for row in figures if row["what"] == "depth, warm"} == {"1 packs", "10 packs", "100 packs"}
    assert all(value > 0 for row in figures if row["what"] == "fault, warm" for value in row["p50"])
    assert "| replay, cold | memory file |" in tables
    shared = {row["what"]: row["shared_mib"][0] for row in figures if row["subject"] == "image, zstd"
              and row["what"].startswith("memory")}
    # Sixteen share what four share; a page more or less is one that a pager was quicker to make itself.
    assert 0 < shared["memory, 4 VMs"] / 1.25 < shared["memory, 16 VMs"] < shared["memory, 4 VMs"] * 1.25
