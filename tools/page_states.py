#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""page_states.py - expand the table of page states into a Promela include or into a picture

    page_states.py [--def FILE] promela [-o OUT]
    page_states.py [--def FILE] svg [-o OUT] [--check FILE]

FILE is src/core/page_states.def of this tree unless given. OUT is standard output unless given. --check writes nothing:
it fails (exit status 1) when FILE differs from what would be written.

The table is read line by line: one macro a line, no expressions. What cannot be right in any table is an error, exit
status 2: a name twice, an edge between states that do not exist, a code that does not fit into three bits.

The picture is laid out by hand: PLACES and ROUTES below say where states and arrows are. An edge that has no route is
an error too, so that a new edge cannot be left out of the picture. An event that leads from every state to the same one
is drawn once, from a box "every state".
"""

import argparse
import collections
import html
import pathlib
import re
import sys
import textwrap

DEFAULT_DEF = pathlib.Path(__file__).resolve().parent.parent / "src/core/page_states.def"

MACRO = re.compile(r"^PAGE_(STATE|FAULT|EVENT|EDGE)\((.*)\)\s*$")
ARGUMENT = re.compile(r'\s*(?:"([^"]*)"|([A-Za-z0-9_]+))\s*(?:,|$)')
COLOUR = re.compile(r"^#[0-9a-f]{6}$")

READS = ("IMAGE", "ZERO", "SELF")
ANSWERS = ("IMAGE", "ZERO")
MAX_CODE = 7

State = collections.namedtuple("State", "name code reads colour meaning")


class TableError(Exception):
    """The table says something that cannot be right."""


class Table:
    """states: name -> State; answers: state -> answer; events: name -> meaning; edges: (event, from) -> to."""

    def __init__(self, text):
        self.states = {}
        self.answers = {}
        self.events = {}
        self.edges = {}
        for number, line in enumerate(text.splitlines(), 1):
            match = MACRO.match(line)
            if not match:
                continue
            try:
                self.take(match.group(1), split_arguments(match.group(2)))
            except (TableError, TypeError, ValueError) as error:
                raise TableError(f"line {number}: {error}") from error
        self.check()

    def take(self, macro, arguments):
        getattr(self, "take_" + macro.lower())(*arguments)

    def take_state(self, name, code, reads, colour, meaning):
        need(name not in self.states, f"state {name} is there twice")
        need(reads in READS, f"{name} reads {reads}: not one of {', '.join(READS)}")
        need(COLOUR.match(colour), f"{name}: {colour} is not a colour like #0a1b2c")
        need(0 <= int(code) <= MAX_CODE, f"{name}: code {code} does not fit into three bits")
        self.states[name] = State(name, int(code), reads, colour, meaning)

    def take_fault(self, state, answer):
        need(state in self.states, f"no state {state}")
        need(state not in self.answers, f"{state} has two answers")
        need(answer in ANSWERS, f"answer {answer}: not one of {', '.join(ANSWERS)}")
        self.answers[state] = answer

    def take_event(self, name, meaning):
        need(name not in self.events, f"event {name} is there twice")
        self.events[name] = meaning

    def take_edge(self, event, start, end):
        need(event in self.events, f"no event {event}")
        need(start in self.states, f"no state {start}")
        need(end in self.states, f"no state {end}")
        need((event, start) not in self.edges, f"{event} leads from {start} to two states")
        self.edges[event, start] = end

    def check(self):
        codes = [state.code for state in self.states.values()]
        need(len(set(codes)) == len(codes), "two states have one code")
        need(0 in codes, "no state has code 0")
        for state in self.states:
            need(state in self.answers, f"no PAGE_FAULT for {state}: every fault is answered")
        for event in self.events:
            need(self.starts(event), f"event {event} has no edge")

    def starts(self, event):
        """The states from which an event has an edge, in the table's order."""
        return [state for state in self.states if (event, state) in self.edges]

    def everywhere(self, event):
        """The one state to which an event leads from every state, or None."""
        ends = {self.edges.get((event, state)) for state in self.states}
        return ends.pop() if len(ends) == 1 else None


def need(condition, complaint):
    if not condition:
        raise TableError(complaint)


def split_arguments(text):
    """The arguments of a macro: bare words and strings."""
    arguments = []
    position = 0
    while position < len(text):
        match = ARGUMENT.match(text, position)
        need(match, f"cannot read the arguments: {text}")
        arguments.append(match.group(1) if match.group(1) is not None else match.group(2))
        position = match.end()
    return arguments


# ---- Promela ----------------------------------------------------------------------------------

PROMELA_HEAD = """\
/* Generated from src/core/page_states.def by tools/page_states.py: do not edit. */

/*
 * The includer declares `byte page_state[]`, one element a page.
 *
 *   PAGE_x                state x; PAGE_INITIAL is that of a page that nothing has happened to
 *   EV_x                  event x
 *   PAGE_READS(s)         what the guest reads in a page of state s: READS_x
 *   PAGE_ANSWER(s)        what a missing fault is answered with in state s: ANSWER_x
 *   PAGE_HAS_EDGE_x(s)    whether event x has an edge from state s
 *   page_step(ev, p)      event ev happened to page p; no edge, no step: an error of the model
 */
"""


def promela_choice(parameter, choices):
    """A conditional expression over the states; `choices` maps state names to values."""
    *some, last = choices.items()
    text = last[1]
    for name, value in reversed(some):
        text = f"({parameter} == PAGE_{name} -> {value} : {text})"
    return text


def promela_edges(table, event):
    lines = [f"    :: (ev) == EV_{event} ->", "        if"]
    for start in table.starts(event):
        end = table.edges[event, start]
        lines.append(f"        :: page_state[p] == PAGE_{start} -> page_state[p] = PAGE_{end};")
        lines.append(f'            printf("state: {event}, page %d: {start} to {end}\\n", p)')
    if len(table.starts(event)) < len(table.states):
        lines.append("        :: else -> assert(false) /* no such edge */")
    lines.append("        fi")
    return lines


def promela(table):
    lines = [PROMELA_HEAD]
    for state in table.states.values():
        lines.append(f"#define PAGE_{state.name} {state.code} /* {state.meaning} */")
    first = next(state for state in table.states.values() if state.code == 0)
    lines += [f"#define PAGE_INITIAL PAGE_{first.name}", ""]
    lines += [f"#define READS_{name} {value}" for value, name in enumerate(READS)]
    lines += [f"#define ANSWER_{name} {value}" for value, name in enumerate(ANSWERS)]
    reads = {state.name: "READS_" + state.reads for state in table.states.values()}
    answers = {state: "ANSWER_" + answer for state, answer in table.answers.items()}
    lines += ["", f"#define PAGE_READS(s) {promela_choice('(s)', reads)}",
              f"#define PAGE_ANSWER(s) {promela_choice('(s)', answers)}", ""]
    for value, (event, meaning) in enumerate(table.events.items()):
        lines.append(f"#define EV_{event} {value} /* {meaning} */")
    lines.append("")
    for event in table.events:
        test = " || ".join(f"(s) == PAGE_{start}" for start in table.starts(event))
        lines.append(f"#define PAGE_HAS_EDGE_{event}(s) ({test})")
    lines += ["", "inline page_step(ev, p)", "{", "    if"]
    for event in table.events:
        lines += promela_edges(table, event)
    lines += ["    fi", "}", ""]
    return "\n".join(lines)


# ---- picture ----------------------------------------------------------------------------------

WIDTH, HEIGHT = 1180, 900
BOX_WIDTH, BOX_HEIGHT = 280, 124
INK, FAINT = "#1f2430", "#5c6472"
SANS = "DejaVu Sans, Verdana, Helvetica, sans-serif"
MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"

EVERY = "every state"

# Upper left corners.
PLACES = {
    "ABSENT": (150, 96),
    "CLEAN": (750, 96),
    "DIRTY": (450, 322),
    "REMOVED": (150, 548),
    "ZERO": (750, 548),
}
EVERY_PLACE = (525, 590, 130, 40)

# (from, to): path of the arrow, where its first label stands, which end of the label is there.
# One event a line; "up" adds lines upwards.
ROUTES = {
    ("ABSENT", "CLEAN"): ("M430,158 L746,158", (590, 149), "middle", "up"),
    ("ABSENT", "DIRTY"): ("M290,220 C290,320 350,362 446,362", (287, 292), "end", "down"),
    ("CLEAN", "DIRTY"): ("M890,220 C890,320 830,362 734,362", (893, 292), "start", "down"),
    ("REMOVED", "DIRTY"): ("M290,548 C290,448 350,406 446,406", (287, 490), "end", "up"),
    ("ZERO", "DIRTY"): ("M890,548 C890,448 830,406 734,406", (893, 490), "start", "up"),
    ("ABSENT", "ABSENT"): ("M150,138 C88,128 88,188 146,178", (96, 162), "end", "down"),
    ("CLEAN", "CLEAN"): ("M1030,138 C1092,128 1092,188 1034,178", (1084, 162), "start", "down"),
    ("DIRTY", "DIRTY"): ("M566,322 C546,246 634,246 614,318", (624, 300), "start", "up"),
    ("REMOVED", "REMOVED"): ("M150,590 C88,580 88,640 146,630", (96, 614), "end", "down"),
    ("ZERO", "ZERO"): ("M1030,590 C1092,580 1092,640 1034,630", (1084, 614), "start", "down"),
    (EVERY, "REMOVED"): ("M525,610 L434,610", (480, 601), "middle", "up"),
    (EVERY, "ZERO"): ("M655,610 L746,610", (700, 601), "middle", "up"),
    (EVERY, "DIRTY"): ("M590,590 L590,450", (598, 524), "start", "down"),
}

READS_WORDS = {"IMAGE": "reads as the image", "ZERO": "reads as zeroes", "SELF": "reads as itself"}
ANSWER_WORDS = {"IMAGE": "a fault gets the image", "ZERO": "a fault gets zeroes"}


def is_dark(colour):
    red, green, blue = (int(colour[at:at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 120


def svg_text(x, y, text, size, anchor="start", fill=INK, weight="normal", family=SANS):
    return (f'<text x="{x}" y="{y}" font-family="{family}" font-size="{size}" '
            f'font-weight="{weight}" text-anchor="{anchor}" fill="{fill}">'
            f"{html.escape(text)}</text>")


def svg_state(state, answer):
    x, y = PLACES[state.name]
    ink = "#ffffff" if is_dark(state.colour) else INK
    lines = [f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="10" '
             f'fill="{state.colour}" stroke="{INK}" stroke-width="1.5"/>',
             svg_text(x + 14, y + 25, state.name, 17, fill=ink, weight="bold", family=MONO)]
    for number, part in enumerate(textwrap.wrap(state.meaning, 38)):
        lines.append(svg_text(x + 14, y + 46 + 16 * number, part, 12, fill=ink))
    foot = f"{READS_WORDS[state.reads]}; {ANSWER_WORDS[answer]}"
    lines.append(f'<path d="M{x + 14},{y + 98} h{BOX_WIDTH - 28}" stroke="{ink}" '
                 'stroke-opacity="0.4"/>')
    lines.append(svg_text(x + 14, y + 114, foot, 11, fill=ink))
    return lines


def svg_arrow(start, end, events):
    need((start, end) in ROUTES, f"page_states.py has no route to draw {start} -> {end} along")
    path, (x, y), anchor, way = ROUTES[start, end]
    dash = ' stroke-dasharray="6 4"' if start == EVERY else ""
    lines = [f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.6"{dash} '
             'marker-end="url(#head)"/>']
    if way == "up":
        y -= 15 * (len(events) - 1)
    for number, event in enumerate(events):
        lines.append(svg_text(x, y + 15 * number, event, 12, anchor=anchor, family=MONO))
    return lines


def picture_edges(table):
    """(from, to) -> events, where an event that leads from everywhere to one state starts at EVERY."""
    drawn = collections.defaultdict(list)
    for event in table.events:
        end = table.everywhere(event)
        if end:
            drawn[EVERY, end].append(event)
            continue
        for start in table.starts(event):
            drawn[start, table.edges[event, start]].append(event)
    return drawn


def svg_legend(table, top):
    lines = [f'<path d="M40,{top - 24} h{WIDTH - 80}" stroke="{FAINT}" stroke-opacity="0.4"/>']
    for number, (event, meaning) in enumerate(table.events.items()):
        y = top + 19 * number
        lines.append(svg_text(60, y, event, 12, weight="bold", family=MONO))
        lines.append(svg_text(190, y, meaning, 12))
    return lines


def svg(table):
    for state in table.states:
        need(state in PLACES, f"page_states.py has no place to draw the state {state} at")
    x, y, width, height = EVERY_PLACE
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             f'width="{WIDTH}" height="{HEIGHT}">',
             "<!-- SPDX-License-Identifier: Apache-2.0 -->",
             "<!-- Generated from src/core/page_states.def by tools/page_states.py: do not edit. -->",
             "<title>The life of one guest page</title>",
             '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="8" '
             f'markerHeight="8" orient="auto"><path d="M0,1 L9,5 L0,9 z" fill="{INK}"/></marker></defs>',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
             svg_text(40, 42, "The life of one guest page", 20, weight="bold"),
             svg_text(40, 66, "Boxes are states, arrows are events; a dashed arrow starts in every state. Where "
                      "there is no arrow, the event must never happen.", 12, fill=FAINT)]
    for (start, end), events in picture_edges(table).items():
        lines += svg_arrow(start, end, events)
    lines += [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{height / 2:g}" fill="#ffffff" '
              f'stroke="{INK}" stroke-width="1.5" stroke-dasharray="6 4"/>',
              svg_text(x + width / 2, y + 25, EVERY, 13, anchor="middle")]
    for state in table.states.values():
        lines += svg_state(state, table.answers[state.name])
    lines += svg_legend(table, HEIGHT - 19 * len(table.events) - 10)
    return "\n".join(lines + ["</svg>", ""])


# ---- command line -----------------------------------------------------------------------------


def check_file(path, wanted):
    have = path.read_text(encoding="utf-8") if path.exists() else None
    if have == wanted:
        return 0
    what = "is missing" if have is None else "is out of date"
    print(f"page_states.py: {path} {what}: tools/page_states.py svg -o {path}", file=sys.stderr)
    return 1


def main(argv):
    parser = argparse.ArgumentParser(description="expand the table of page states")
    parser.add_argument("--def", dest="table", type=pathlib.Path, default=DEFAULT_DEF,
                        help="the table (default: this tree's)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("promela", "an include for a spin model"), ("svg", "a picture")):
        command = commands.add_parser(name, help=what)
        command.add_argument("-o", dest="out", type=pathlib.Path, help="file to write")
        command.add_argument("--check", type=pathlib.Path, metavar="FILE",
                             help="fail if FILE is not what would be written")
    options = parser.parse_args(argv)
    try:
        table = Table(options.table.read_text(encoding="utf-8"))
        text = {"promela": promela, "svg": svg}[options.command](table)
    except (OSError, TableError) as error:
        print(f"page_states.py: {options.table}: {error}", file=sys.stderr)
        return 2
    if options.check:
        return check_file(options.check, text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
