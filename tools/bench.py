#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench.py - run `thaw bench fault`, keep its figures, draw them

    bench.py [--thaw FILE] [--naive FILE] [--out DIR] [-- ARGUMENT...]

Prints the table and leaves DIR/fault.txt (the table), DIR/fault.json (every figure of every run) and DIR/fault.svg.
The tests' naive pager is measured as a second handler where it has been built. Arguments after -- go to
`thaw bench fault`, such as --handler 'NAME=COMMAND {socket} {memory}' or --rounds 9. The exit status is its.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from xml.sax.saxutils import escape

WIDTH = 760
LABEL_WIDTH = 130
VALUE_WIDTH = 150
BAR_HEIGHT = 16
ROW_HEIGHT = 24
COLOURS = {"handler": "#3465a4", "baseline": "#b8b8b0"}
AROUND = {"sequential": "a page, all touches", "random": "p50 (bar) and p99 (line) of a touch"}


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="measure page faults, keep and draw the figures")
    parser.add_argument("--thaw", default="build/thaw", help="the program (build/thaw)")
    parser.add_argument("--naive", help="a plain pager to compare with; default: the tests' own, if it is built")
    parser.add_argument("--out", default="build/bench", help="folder for the results (build/bench)")
    ours, theirs = argv, []
    if "--" in argv:
        at = argv.index("--")
        ours, theirs = argv[:at], argv[at + 1:]
    return parser.parse_args(ours), theirs


def find_naive(thaw):
    """The naive pager beside a thaw in its build folder, or None."""
    for build in pathlib.Path(thaw).resolve().parents:
        path = build / "tests/process/naive"
        if os.access(path, os.X_OK) and path.is_file():
            return path
    return None


def measure(options, extra, out):
    """Run the benchmark, showing its table while keeping it. Return: exit status."""
    naive = options.naive or find_naive(options.thaw)
    command = [options.thaw, "bench", "fault", "--json", str(out / "fault.json"), *extra]
    if naive and " " not in str(naive):
        command += ["--handler", f"naive={naive} {{socket}} {{memory}}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        table = child.stdout.read()
    sys.stdout.write(table)
    (out / "fault.txt").write_text(table, encoding="utf-8")
    return child.returncode


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(words)}</text>")


def bar_rows(jobs, placement, pattern):
    """(name, kind, bar in us, line in us or None), quickest first, of one panel."""
    rows = []
    for job in jobs:
        median = job["median"]
        name = job["handler"].strip("[]")
        if job["placement"] != placement or job["threads"] != 1:
            continue
        if job["pattern"] is None:
            rows.append((name, job["kind"], median["p50_ns"] / 1e3, median["p99_ns"] / 1e3))
        elif job["pattern"] != pattern:
            continue
        elif pattern == "sequential":
            rows.append((name, job["kind"], median["total_ns"] / median["touched"] / 1e3, None))
        else:
            rows.append((name, job["kind"], median["p50_ns"] / 1e3, median["p99_ns"] / 1e3))
    return sorted(rows, key=lambda row: row[2])


def draw_panel(rows, title, top):
    """SVG elements of one panel, and where it ends."""
    longest = max(max(bar, line or 0) for _, _, bar, line in rows)
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest
    parts = [text(10, top + 16, title, 14, weight="bold")]
    y = top + 30
    for name, kind, bar, line in rows:
        middle = y + BAR_HEIGHT / 2
        parts.append(text(LABEL_WIDTH - 8, middle + 4, name, anchor="end"))
        parts.append(f'<rect x="{LABEL_WIDTH}" y="{y:.1f}" width="{max(bar * scale, 1):.1f}" height="{BAR_HEIGHT}" '
                     f'fill="{COLOURS[kind]}"/>')
        label = f"{bar:.2f}"
        if line is not None:
            parts.append(f'<line x1="{LABEL_WIDTH}" y1="{middle:.1f}" x2="{LABEL_WIDTH + line * scale:.1f}" '
                         f'y2="{middle:.1f}" stroke="#222" stroke-width="1.5"/>')
            label += f", p99 {line:.1f}"
        parts.append(text(LABEL_WIDTH + max(bar, line or 0) * scale + 6, middle + 4, label + " us", 11))
        y += ROW_HEIGHT
    return parts, y + 14


def draw(results):
    """The picture of a results file, as text."""
    jobs = results["jobs"]
    placements = list(dict.fromkeys(job["placement"] for job in jobs))
    parts = []
    top = 34
    for pattern, what in reversed(AROUND.items()):
        for placement in placements:
            rows = bar_rows(jobs, placement, pattern)
            if rows:
                panel, top = draw_panel(rows, f"{placement}, {pattern}: {what}", top)
                parts += panel
    title = f"thaw {results['version']}: page faults, 1 thread, Linux {results['host']['kernel']}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top:.0f}" '
        f'viewBox="0 0 {WIDTH} {top:.0f}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{top:.0f}" fill="white"/>',
        text(10, 22, title, 15, weight="bold"), *parts, "</svg>", ""])


def main(argv):
    options, extra = parse_arguments(argv)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    status = measure(options, extra, out)
    if status == 0:
        results = json.loads((out / "fault.json").read_text(encoding="utf-8"))
        (out / "fault.svg").write_text(draw(results), encoding="utf-8")
        print(f"figures: {out}/fault.json, table: {out}/fault.txt, picture: {out}/fault.svg")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
