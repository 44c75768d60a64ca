#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""page.py - make one manual page

    page.py SCDOC PAGE.scd COUNTERS.def PAGE_STATES.def FC_SCHEMA.def OUTPUT

A line "@COUNTERS@" in the source becomes the list of core/counters.def, "@COUNTER_NAMES@" its names in order,
"@PAGE_STATES@" the list of core/page_states.def, "@FC_ENDPOINTS@" and "@FC_MODELS@" the tables of vmm/fc_schema.def. So the
pages cannot tell another story than the program.
"""

import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True  # the source tree stays as it is

import fc_tables  # noqa: E402

COUNTER = re.compile(r'^COUNTER\((\w+),\s*"([^"]*)",\s*"([^"]*)"\)$')
PAGE_STATE = re.compile(r'^PAGE_STATE\((\w+),\s*(\d+),\s*(\w+),\s*"([^"]*)",\s*"([^"]*)"\)$')

READS = {"IMAGE": "the snapshot", "ZERO": "zeroes", "SELF": "what it last wrote"}


def matches(pattern, path):
    """The fields of each line of a .def file that matches."""
    found = [m.groups() for m in map(pattern.match, path.read_text(encoding="utf-8").splitlines()) if m]
    if not found:
        sys.exit(f"page.py: nothing to expand in {path}")
    return found


def capital(text):
    return text[0].upper() + text[1:]


def definitions(rows):
    """A list of (term, text) in scdoc's form."""
    return "".join(f"{term}\n\t{text}.\n\n" for term, text in rows)


def expand(text, counters_def, states_def, schema_def):
    counters = matches(COUNTER, counters_def)
    states = matches(PAGE_STATE, states_def)
    text = text.replace("@COUNTERS@\n", definitions(
        (f"*{name}*" + (f" ({unit})" if unit != "1" else ""), capital(meaning)) for name, unit, meaning in counters))
    text = text.replace("@COUNTER_NAMES@", ", ".join(name for name, _, _ in counters))
    text = text.replace("@PAGE_STATES@\n", definitions(
        (f"*{name.lower()}* (code {code}, \\{colour})", f"{capital(meaning)}. The guest reads {READS[reads]}")
        for name, code, reads, colour, meaning in states))
    schema = fc_tables.Schema(schema_def)
    return text.replace("@FC_ENDPOINTS@\n", schema.all_endpoints()).replace("@FC_MODELS@\n", schema.all_models())


def main(argv):
    if len(argv) != 6:
        sys.exit("usage: page.py SCDOC PAGE.scd COUNTERS.def PAGE_STATES.def FC_SCHEMA.def OUTPUT")
    scdoc, page, counters_def, states_def, schema_def, output = argv
    text = expand(pathlib.Path(page).read_text(encoding="utf-8"), pathlib.Path(counters_def),
                  pathlib.Path(states_def), pathlib.Path(schema_def))
    done = subprocess.run([scdoc], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"page.py: {page}: {done.stderr.strip()}")
    pathlib.Path(output).write_text(done.stdout, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
