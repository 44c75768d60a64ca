# SPDX-License-Identifier: Apache-2.0
"""test_manual.py - the manual pages say what the program and its headers say

The program is $THAW; without it the tests that run it are skipped.
"""

import itertools
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAN = ROOT / "man"
HEADERS = sorted((ROOT / "include/thaw").glob("*.h"))
DEADLINE = 10

OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-z])(?![\w-])")


def page(name):
    return (MAN / name).read_text(encoding="utf-8")


def code(text):
    """C text without comments and with single spaces."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def public_functions():
    """Each function of the public headers, as its prototype."""
    for header in HEADERS:
        for line in re.findall(r"^[a-z][^;{}#]*\bthaw_\w+\([^;{}]*\);", code_lines(header), flags=re.MULTILINE):
            yield code(line)


def code_lines(header):
    return re.sub(r"/\*.*?\*/", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)


def documented_options(name):
    """The options that a page describes: the terms of its lists under OPTIONS, and OPTIONS OF something."""
    sections = re.findall(r"^# OPTIONS.*?(?=^# )", page(name), flags=re.MULTILINE | re.DOTALL)
    terms = [line for section in sections for line in section.splitlines() if line.startswith("*-")]
    return {option for line in terms for option in OPTION.findall(re.sub(r"[*_]", "", line))}


def program_options(*verb):
    """The options that `thaw VERB --help` names."""
    if "THAW" not in os.environ:
        pytest.skip("$THAW does not name the program")
    done = subprocess.run([os.environ["THAW"], *verb, "--help"], capture_output=True, text=True, check=False,
                          timeout=DEADLINE, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    # Another verb may be mentioned with an option of its own.
    return set(OPTION.findall(re.sub(r"thaw [a-z]+ --[a-z-]+", "", done.stdout)))


@pytest.mark.parametrize("verb", [("serve",), ("ready",), ("map",), ("workingset",), ("fc",), ("doctor",), ("bench", "fault", "ahead", "restore"),
                                  ("template", "build", "show", "ls", "check", "rm"),
                                  ("image", "pack", "diff", "unpack", "ls", "inspect", "verify", "rm", "gc")],
                         ids=" ".join)
def test_the_page_of_a_verb_and_its_help_name_the_same_options(verb):
    help_itself = {"-h", "--help"}
    parts = [verb] if len(verb) == 1 else [(verb[0], part) for part in verb[1:]]
    told = set().union(*(program_options(*part) for part in parts))
    assert documented_options(f"thaw-{verb[0]}.1.scd") - help_itself == told - help_itself


# Verbs that share a page.
TOGETHER = {"run": ["run", "pause", "resume", "fork", "exec", "balloon", "kill", "rm"], "ps": ["ps", "logs"]}


@pytest.mark.parametrize("name", TOGETHER)
def test_the_page_of_several_verbs_and_their_help_name_the_same_options(name):
    told = set().union(*(program_options(verb) for verb in TOGETHER[name]))
    assert documented_options(f"thaw-{name}.1.scd") == told


def test_every_verb_has_a_page():
    if "THAW" not in os.environ:
        pytest.skip("$THAW does not name the program")
    done = subprocess.run([os.environ["THAW"], "help"], capture_output=True, text=True, check=False,
                          timeout=DEADLINE, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    for verb in re.findall(r"^  (?:thaw )?([a-z]+) ", done.stdout, flags=re.MULTILINE):
        assert f"*{verb}*" in page("thaw.1.scd"), verb


def test_every_public_function_has_a_page_with_its_prototype():
    pages = code(" ".join(p.read_text(encoding="utf-8") for p in MAN.glob("*.3.scd")))
    functions = list(public_functions())
    assert len(functions) >= 9
    for prototype in functions:
        assert prototype in pages, prototype


def test_every_field_of_the_pagers_options_is_described():
    text = next(h for h in HEADERS if h.name == "thaw.h").read_text(encoding="utf-8")
    body = re.search(r"struct thaw_pager_options \{(.*?)\n\};", text, flags=re.DOTALL).group(1)
    fields = re.findall(r"(\w+);", body)
    assert len(fields) >= 10
    for field in fields:
        assert f"*{field}*" in page("thaw_pager_new.3.scd"), field


def test_the_members_of_the_state_files_header_are_described_in_order():
    text = code_lines(ROOT / "src/core/block.h")
    body = re.search(r"struct block_header \{(.*?)\n\};", text, flags=re.DOTALL).group(1)
    members = re.findall(r"(\w+)(?:\[\d+\])?;", body)
    assert re.findall(r"^\*(\w+)\* \(", page("thaw-state.5.scd"), flags=re.MULTILINE) == members


def test_the_members_of_a_working_sets_header_are_described_in_order_and_at_their_offsets():
    text = code_lines(ROOT / "src/image/workingset.h")
    body = re.search(r"struct workingset_header \{(.*?)\n\};", text, flags=re.DOTALL).group(1)
    members = re.findall(r"uint(\d+)_t\s+(\w+);", body)
    described = re.findall(r"^\*(\w+)\* \(offset (\d+), u(\d+)\)$", page("thaw-workingset.5.scd"), flags=re.MULTILINE)
    assert [(bits, name) for name, _, bits in described] == members
    ends = list(itertools.accumulate(int(bits) // 8 for bits, _ in members))
    assert [int(offset) for _, offset, _ in described] == [0, *ends[:-1]] and ends[-1] == 64


# Where thaw-image(5) describes a struct, and how many bytes it has.
IMAGE_STRUCTS = {"manifest_header": ("## Header", 128), "manifest_pack": ("## Packs", 40),
                 "manifest_frame": ("## Frames", 32), "manifest_run": ("## Runs", 24),
                 "manifest_hot": ("## Working set", 16), "pack_header": ("# PACK", 64)}


@pytest.mark.parametrize("name", IMAGE_STRUCTS)
def test_the_members_of_an_images_files_are_described_in_order_and_at_their_offsets(name):
    heading, size = IMAGE_STRUCTS[name]
    text = code_lines(ROOT / "src/image/manifest.h").replace("IMAGE_ID_BYTES", "32")
    body = re.search(rf"struct {name} \{{(.*?)\n\}};", text, flags=re.DOTALL).group(1)
    members = [(member, int(bits) // 8 * int(n or 1))
               for bits, member, n in re.findall(r"uint(\d+)_t\s+(\w+)(?:\[(\d+)\])?;", body)]
    section = page("thaw-image.5.scd").split(f"\n{heading}")[1].split("\n#")[0]
    described = re.findall(r"^\*(\w+)\* \(offset (\d+), (?:u(\d+)|(\d+) bytes)\)$", section, flags=re.MULTILINE)
    assert [(member, int(n or 0) or int(bits) // 8) for member, _, bits, n in described] == members
    ends = list(itertools.accumulate(n for _, n in members))
    assert [int(offset) for _, offset, _, _ in described] == [0, *ends[:-1]] and ends[-1] == size


def test_the_preload_librarys_variables_are_described():
    variables = set(re.findall(r'getenv\("(\w+)"\)', (ROOT / "src/vmm/preload.c").read_text(encoding="utf-8")))
    assert variables
    for variable in variables:
        assert f"*{variable}*" in page("thaw-serve.1.scd"), variable


def test_pages_refer_to_pages_that_exist():
    ours = {p.name.removesuffix(".scd") for p in MAN.glob("*.scd")}
    for path in MAN.glob("*.scd"):
        for name, section in re.findall(r"\*((?:lib)?thaw[\w-]*)\*\((\d)\)", path.read_text(encoding="utf-8")):
            alias = section == "3" and f"'{name}':" in (MAN / "meson.build").read_text(encoding="utf-8")
            assert f"{name}.{section}" in ours or alias, f"{path.name}: {name}({section})"
