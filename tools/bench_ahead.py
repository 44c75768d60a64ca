#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_ahead.py - run the measurements of `thaw bench ahead`, keep their figures, draw them

    bench_ahead.py [--thaw FILE] [--preload FILE] [--out DIR] [NAME...] [-- ARGUMENT...]

For each NAME (default: all, and `guest`, see bench_guest.py) prints the table and leaves DIR/ahead-NAME.txt,
DIR/ahead-NAME.json and DIR/ahead-NAME.svg. Arguments after -- go to `thaw bench ahead`, such as --rounds 9. Exit
status 1 if one could not be measured; a guest that cannot be had here is left out.

    bench_ahead.py --draw FILE.json...      draws again what was measured, each beside its file
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
from xml.sax.saxutils import escape

TOOLS = pathlib.Path(__file__).resolve().parent
NAMES = ["bulk", "scattered", "latency", "throughput", "huge", "remove", "guest"]
WIDTH, LABEL_WIDTH, VALUE_WIDTH, ROW_HEIGHT, BAR_HEIGHT = 820, 260, 170, 22, 13
STYLE = """
text { fill: #222; } .bar { fill: #3465a4; } .part { fill: #8fb4dd; } .line { stroke: #222; } .grid { stroke: #ccc; }
.back { fill: #fff; }
@media (prefers-color-scheme: dark) { text { fill: #ddd; } .bar { fill: #6f9fd8; } .part { fill: #3d5f8a; }
.line { stroke: #eee; } .grid { stroke: #444; } .back { fill: #181818; } }
"""
LENGTHS = ["4KiB", "64KiB", "2MiB", "16MiB", "64MiB"]


class Panel:
    """Which figures of which cases are drawn, and how: bar, stacked behind it part, and a line."""

    def __init__(self, title, axis, divide, bar, part=None, line=None, log=False, word=""):
        self.title, self.axis, self.divide, self.bar = title, axis, divide, bar
        self.part, self.line, self.log, self.word = part, line, log, word

    def rows(self, cases):
        """(label, bar, part, line) of each case that has the figure, in the order of the file."""
        done = []
        for case in cases:
            median = case["median"]
            if self.bar in median and self.word in case["case"]:
                done.append((case["case"], median[self.bar] / self.divide,
                             median.get(self.part, 0) / self.divide,
                             median[self.line] / self.divide if self.line in median else None))
        return done


PANELS = {
    "bulk": [Panel("bytes installed a second", "GiB/s", 2**30, "installed_bytes_per_s")],
    "scattered": [
        Panel(f"touching a working set, {what} file: from resume (dark), before it (light)", "ms, logarithmic", 1e6,
              "total_ns", part="before_resume_ns", log=True, word=what) for what in ("warm", "cold", "slow")],
    "latency": [
        Panel(f"{what} while pages are installed: p50 (bar), p99 (line)", "us, logarithmic", 1e3, "p50_ns",
              line="p99_ns", log=True, word=what) for what in ("faults", "discards")],
    "throughput": [Panel("faults a second", "thousands a second", 1e3, "faults_per_s")],
    "huge": [Panel("touching a working set: from resume (dark), before it (light)", "ms", 1e6, "total_ns",
                   part="before_resume_ns"),
             Panel("faults", "faults, logarithmic", 1, "faults", log=True),
             Panel("memory that is there at the end", "MiB", 2**20, "present_bytes")],
    "remove": [Panel(f"madvise(MADV_DONTNEED) of {length}", "us, logarithmic", 1e3, f"discard_{length}_ns", log=True)
               for length in LENGTHS],
    "guest": [Panel("from resume to the first answer", "ms", 1e6, "answer_ns"),
              Panel("from resume to the end of the work", "ms", 1e6, "work_ns"),
              Panel("faults that the guest waited for", "faults", 1, "faults")],
}


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(words)}</text>")


def short(value):
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


class Axis:
    """From values to x, with its ticks."""

    def __init__(self, values, log):
        self.log = log and min(values) > 0
        self.high = max(values) or 1
        self.low = 0.0
        if self.log:
            self.low = math.floor(math.log10(min(values) * 0.999))
            self.high = max(math.ceil(math.log10(self.high)), self.low + 1)

    def x(self, value):
        at = math.log10(max(value, 10**self.low)) if self.log else value
        return LABEL_WIDTH + (at - self.low) / (self.high - self.low) * (WIDTH - LABEL_WIDTH - VALUE_WIDTH)

    def ticks(self):
        if self.log:
            return [10.0**e for e in range(int(self.low), int(self.high) + 1)]
        step = 10 ** math.floor(math.log10(self.high))
        while self.high / step < 4:
            step /= 2
        return [i * step for i in range(int(self.high / step) + 1)]


def draw_panel(panel, rows, top):
    """SVG elements of one panel, and where it ends."""
    axis = Axis([v for _, bar, part, line in rows for v in (bar, bar + part, line) if v is not None and v > 0] or [1],
                panel.log)
    parts = [text(10, top + 16, panel.title, 14, weight="bold")]
    begin, end = top + 26, top + 30 + len(rows) * ROW_HEIGHT
    for tick in axis.ticks():
        x = axis.x(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{begin:.1f}" x2="{x:.1f}" y2="{end:.1f}"/>')
        parts.append(text(x, end + 13, short(tick) if tick else "0", 10, "middle"))
    parts.append(text(WIDTH - VALUE_WIDTH + 24, end + 13, panel.axis, 10))
    y = top + 30
    for label, bar, part, line in rows:
        middle = y + BAR_HEIGHT / 2
        parts.append(text(LABEL_WIDTH - 8, middle + 4, label, 11, anchor="end"))
        for css, value in (("part", bar + part), ("bar", bar)):
            if css == "bar" or part:
                parts.append(f'<rect class="{css}" x="{LABEL_WIDTH}" y="{y:.1f}" '
                             f'width="{max(axis.x(value) - LABEL_WIDTH, 1):.1f}" height="{BAR_HEIGHT}"/>')
        words = short(bar) + (f" + {short(part)}" if part else "")
        if line is not None:
            parts.append(f'<line class="line" x1="{LABEL_WIDTH}" y1="{middle:.1f}" x2="{axis.x(line):.1f}" '
                         f'y2="{middle:.1f}" stroke-width="1.5"/>')
            words += f", p99 {short(line)}"
        parts.append(text(axis.x(max(bar + part, line or 0)) + 6, middle + 4, words, 11))
        y += ROW_HEIGHT
    return parts, end + 30


def draw(results):
    """The picture of a results file, as text."""
    parts, top = [], 34
    for panel in PANELS[results["name"]]:
        rows = panel.rows(results["cases"])
        if rows:
            panel_parts, top = draw_panel(panel, rows, top)
            parts += panel_parts
    title = f"thaw bench ahead {results['name']}, medians of {results['options']['rounds']} rounds, " \
            f"Linux {results['host']['kernel']}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top:.0f}" '
        f'viewBox="0 0 {WIDTH} {top:.0f}" font-family="sans-serif">', f"<style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{top:.0f}"/>', text(10, 22, title, 15, weight="bold"), *parts,
        "</svg>", ""])


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="measure what is installed ahead of a guest, keep and draw the figures")
    parser.add_argument("--thaw", default="build/thaw", help="the program (build/thaw)")
    parser.add_argument("--preload", default="build/libthaw-preload.so", help="for a guest (build/libthaw-preload.so)")
    parser.add_argument("--out", default="build/bench", type=pathlib.Path, help="folder for the results (build/bench)")
    parser.add_argument("--draw", action="store_true", help="only draw: the names are those of JSON files")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    ours, theirs = argv, []
    if "--" in argv:
        at = argv.index("--")
        ours, theirs = argv[:at], argv[at + 1:]
    options = parser.parse_args(ours)
    if not options.draw and not set(options.names) <= set(NAMES):
        parser.error(f"the measurements are {', '.join(NAMES)}")
    return options, theirs


def guest_arguments(theirs):
    """Of the arguments for `thaw bench ahead`, the number of rounds is for guests, too."""
    return theirs[theirs.index("--rounds"):][:2] if "--rounds" in theirs else []


def measure(options, name, theirs):
    """One measurement, its table shown and kept. Return: exit status."""
    path = options.out / f"ahead-{name}.json"
    if name == "guest":
        command = [sys.executable, str(TOOLS / "bench_guest.py"), "--thaw", options.thaw, "--preload", options.preload,
                   *guest_arguments(theirs)]
    else:
        command = [options.thaw, "bench", "ahead", name, *theirs]
    with subprocess.Popen([*command, "--json", str(path)], stdout=subprocess.PIPE, text=True) as child:
        table = child.stdout.read()
    print(table, flush=True)
    if child.returncode == 0:
        path.with_suffix(".txt").write_text(table, encoding="utf-8")
        draw_file(path)
    return child.returncode


def draw_file(path):
    path.with_suffix(".svg").write_text(draw(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


def main(argv):
    options, theirs = parse_arguments(argv)
    if options.draw:
        for name in options.names:
            draw_file(pathlib.Path(name))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    statuses = [measure(options, name, theirs) for name in options.names or NAMES]
    print(f"figures, tables and pictures: {options.out}/ahead-*")
    return 0 if set(statuses) <= {0, 77} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
