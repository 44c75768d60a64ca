# SPDX-License-Identifier: Apache-2.0
"""bench_svg.py - results of bench_ahead.py as bars: one panel a measurement, one bar a case, the first figure of each"""

from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES, BAR, ROW = 760, 250, 130, 14, 22
UNITS = {"us": "us", "first_ms": "ms to the first answer", "p50_us": "us, p50 (bar) and p99 (line)", "faults_s": "faults a second"}
STYLE = """<style>
text { font-family: sans-serif; fill: #222 } rect.bar { fill: #3465a4 } line { stroke: #222 } rect.page { fill: white }
@media (prefers-color-scheme: dark) { text { fill: #ddd } line { stroke: #ddd } rect.page { fill: #181818 } rect.bar { fill: #729fcf } }
</style>"""


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(words)}</text>")


def panel(result, top):
    """One measurement. Return: SVG elements, and where it ends."""
    cases = result["median"]
    key = next(iter(result["figures"]))
    line_key = "p99_us" if key == "p50_us" else None
    longest = max(max(values[key], values.get(line_key, 0)) for values in cases.values()) or 1
    scale = (WIDTH - LABELS - VALUES) / longest
    parts = [text(10, top + 14, f"{result['name']}: {UNITS.get(key, key)}", 14, weight="bold")]
    y = top + 26
    for case, values in cases.items():
        middle = y + BAR / 2
        parts.append(text(LABELS - 8, middle + 4, case, anchor="end"))
        parts.append(f'<rect class="bar" x="{LABELS}" y="{y:.1f}" width="{max(values[key] * scale, 1):.1f}" height="{BAR}"/>')
        end, label = values[key], f"{values[key]:,.4g}"
        if line_key in values:
            end = max(end, values[line_key])
            label += f", {values[line_key]:,.4g}"
            parts.append(f'<line x1="{LABELS}" y1="{middle:.1f}" x2="{LABELS + values[line_key] * scale:.1f}" '
                         f'y2="{middle:.1f}" stroke-width="1.5"/>')
        parts.append(text(LABELS + end * scale + 6, middle + 4, label, 11))
        y += ROW
    return parts, y + 16


def bars(results):
    """The picture, as text."""
    parts, top = [], 34
    for result in results:
        elements, top = panel(result, top)
        parts += elements
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top:.0f}" viewBox="0 0 {WIDTH} {top:.0f}">', STYLE,
        f'<rect class="page" width="{WIDTH}" height="{top:.0f}"/>',
        text(10, 22, "thaw: ahead of the guest (medians)", 15, weight="bold"), *parts, "</svg>", ""])
