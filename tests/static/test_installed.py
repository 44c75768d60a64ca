# SPDX-License-Identifier: Apache-2.0
"""test_installed.py - what `meson install` leaves behind is what other programs need, and no more

$THAW_BUILD names the build folder.
"""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["THAW_BUILD"])
DEADLINE = 60


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                          timeout=DEADLINE, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with everything that is installed."""
    folder = tmp_path_factory.mktemp("installed")
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", folder)
    return folder


def library_folder(installed):
    return next(installed.rglob("libthaw.so")).parent


def exported(library):
    """The names that a shared library defines for others."""
    return {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}


def public_functions():
    names = set()
    for header in (ROOT / "include/thaw").glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"typedef[^;{]*;", "", text)
        names |= set(re.findall(r"\b(thaw_\w+)\(", text))
    return names


def test_every_verb_has_a_page_of_its_name(installed):
    if not list(installed.rglob("thaw.1")):
        pytest.skip("no manual pages here: scdoc is not installed")
    verbs = re.findall(r"^  ([a-z]+) ", run(BUILD / "src/cli/thaw", "help"), flags=re.MULTILINE)
    assert len(verbs) > 15
    for verb in set(verbs) - {"help", "version"}:
        text = next(installed.rglob(f"thaw-{verb}.1")).read_text()
        named = re.fullmatch(r"\.so man1/(thaw-[a-z]+\.1)\n", text)
        text = next(installed.rglob(named.group(1))).read_text() if named else text
        assert f"thaw\\-{verb}" in text or f"thaw-{verb}" in text, verb


@pytest.mark.parametrize("example", ["pager", "vmm"])
def test_an_example_builds_with_the_flags_of_pkg_config(installed, example):
    environment = dict(os.environ, PKG_CONFIG_SYSROOT_DIR=str(installed),
                       PKG_CONFIG_PATH=str(library_folder(installed) / "pkgconfig"))
    flags = run("pkg-config", "--cflags", "--libs", "libthaw", env=environment).split()
    program = installed / f"example-{example}"
    run("gcc", "-Wall", "-Wextra", "-Werror", "-o", program, ROOT / f"examples/{example}.c", *flags)
    done = subprocess.run([program], env={"LD_LIBRARY_PATH": str(library_folder(installed))}, capture_output=True,
                          text=True, check=False, timeout=DEADLINE, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("example", ["pager", "vmm"])
def test_an_example_has_less_than_sixty_lines(example):
    assert len((ROOT / f"examples/{example}.c").read_text(encoding="utf-8").splitlines()) < 60


def test_the_library_exports_the_functions_of_its_headers_and_nothing_else(installed):
    functions = public_functions()
    assert len(functions) >= 10
    assert exported(library_folder(installed) / "libthaw.so") == functions


def test_the_preloaded_library_stands_in_front_of_mmap_and_nothing_else(installed):
    ours = {name for name in exported(library_folder(installed) / "libthaw-preload.so") if not name.startswith("_")}
    assert {"mmap", "mmap64"} <= ours
    assert ours <= {"mmap", "mmap64"} | public_functions()


def test_the_program_and_the_pages_are_there(installed):
    assert os.access(next(installed.rglob("bin/thaw")), os.X_OK)
    for header in ("thaw.h", "source.h", "vmm.h", "error.h"):
        assert list(installed.rglob(f"include/thaw/{header}"))
    if not list(installed.rglob("man1")):
        pytest.skip("the manual pages were not built: scdoc is missing")
    assert list(installed.rglob("man1/thaw-serve.1"))
