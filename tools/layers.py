#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""layers.py - who includes whom

    layers.py [ROOT]

Reads every #include of src/ and examples/ and compares it with the tables below, which are ARCHITECTURE.md's layers.
Each offence is one line: file, line, the include, the rule. Exit status 1 if there is one.

A rule is a layer ("base"), or one header of a layer ("core/event.h"). A layer may always include itself. Headers of
ours are named from the root of src; headers of the public interface are named as users name them, <thaw/...>.
"""

import pathlib
import re
import sys

# What a layer may include of src/. The order is bottom up.
LAYERS = {
    "base": [],
    "core": ["base"],
    "image": ["base"],
    "source": ["base", "image"],
    "uffd": ["base", "core/event.h", "core/geom.h"],
    "pager": ["base", "core", "image", "source", "uffd"],
    "vmm": ["base", "uffd"],
    "node": ["base", "core", "image", "source", "pager", "vmm"],
    "cli": ["base", "core", "image", "source", "pager", "vmm", "node", "uffd/probe.h", "uffd/trial.h"],
}

# Which layers may include a header of include/thaw/.
PUBLIC = {
    "error.h": ["base", "source", "uffd", "pager", "vmm", "node", "cli"],
    "features.h": ["vmm", "node", "cli"],
    "source.h": ["source", "pager", "cli"],
    "thaw.h": ["pager", "node", "cli"],
    "vmm.h": ["vmm", "cli"],
}

# Facts of the outside world that have one owner: header, and the folders or files that may include it.
OWNERS = {
    "linux/userfaultfd.h": ["src/uffd/", "src/base/linux_compat.h", "src/vmm/attach.c", "src/cli/bench/vmm.c"],
    "jansson.h": ["src/pager/", "src/vmm/", "src/node/", "src/cli/"],
    "curl/curl.h": ["src/vmm/curl_load.h"],
    "cairo.h": ["src/cli/map/cairo_load.h"],
    "cairo-svg.h": ["src/cli/map/cairo_load.h"],
    "pthread.h": ["src/base/", "src/image/", "src/pager/", "src/vmm/", "src/node/", "src/cli/", "src/source/"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def allowed(layer, target):
    """Whether `layer` may include the header `target` of src/."""
    head = target.split("/")[0]
    return head == layer or any(rule in (head, target) for rule in LAYERS[layer])


def check_include(layer, path, mark, target):
    """The rule that an include breaks, or None."""
    for header, owners in OWNERS.items():
        if target == header and not any(path.startswith(owner) for owner in owners):
            return f"only {', '.join(owners)} may include {header}"
    if target.startswith("thaw/"):
        name = target[len("thaw/"):]
        if mark != "<":
            return "headers of the public interface are included as <thaw/...>"
        if layer and layer not in PUBLIC.get(name, []):
            return f"<{target}> is for {', '.join(PUBLIC.get(name, [])) or 'nobody'}"
        return None
    if mark == "<":
        return None
    if not layer:
        return "an example uses the public interface only: <thaw/...>"
    if target.split("/")[0] not in LAYERS:
        return "headers of ours are named from the root of src, such as \"base/base.h\""
    if not allowed(layer, target):
        return f"{layer} may include {', '.join(LAYERS[layer]) or 'nothing of ours'}"
    return None


def check_file(root, path):
    """Prints the offences of one file; returns how many."""
    name = path.relative_to(root).as_posix()
    layer = name.split("/")[1] if name.startswith("src/") else None
    if layer is not None and layer not in LAYERS:
        print(f"{name}: no layer '{layer}' in the table of tools/layers.py")
        return 1
    offences = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        rule = check_include(layer, name, match.group(1), match.group(2))
        if rule:
            print(f"{name}:{number}: {line.strip()}: {rule}")
            offences += 1
    return offences


def main(argv):
    root = pathlib.Path(argv[0] if argv else ".").resolve()
    files = [p for folder in ("src", "examples") for p in sorted((root / folder).rglob("*"))
             if p.suffix in (".c", ".h", ".def")]
    offences = sum(check_file(root, p) for p in files)
    print(f"layers: {len(files)} files, {offences} includes against the rules")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
