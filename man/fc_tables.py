# SPDX-License-Identifier: Apache-2.0
"""fc_tables.py - the tables of thaw-fc(1), from src/vmm/fc_schema.def"""

import re

LINE = re.compile(r"^FC_(\w+)\((.*)\)$")
PART = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,"]*))\s*(?:,|$)')

PHASES = {"ANY": "", "PRE": "before the start", "POST": "after the start", "PAUSED": "while paused"}
LIMITS = {"UINT16_MAX": "65535", "UINT32_MAX": "4294967295", "FC_UINT_MAX": "9223372036854775807"}
FORMATS = {
    "TEXT": "text", "NAME": "text, not empty", "PATH": "path", "ID": "letters, digits, \\_", "MAC": "address such as 06:00:00:00:00:01",
    "IPV4": "link-local address", "NUMBER32": 'text, such as "0x1f"', "NUMBER64": 'text, such as "0x1f"',
    "BITS32": 'mask of 32 bits, such as "0b1x0"', "BITS64": 'mask of 64 bits', "BITS128": 'mask of 128 bits',
    "CAPABILITY": 'text, such as "121" or "!121"', "OBJECT": "any object", "MAP": "object of texts", "ANY": "anything",
}


def rows(path):
    """(macro, arguments) of each line of the table."""
    for line in path.read_text(encoding="utf-8").splitlines():
        found = LINE.match(line)
        if found:
            # The last match is the empty one at the end.
            yield found.group(1), [quoted or bare.strip() for quoted, bare in PART.findall(found.group(2))[:-1]]


def since(text):
    """What is said of a version that is worth saying."""
    versions = text.split()
    if versions == ["1.0.0"]:
        return ""
    return "since " + (", ".join(versions[:-1]) + " and " if versions[1:] else "") + versions[-1]


def capital(text):
    return text[:1].upper() + text[1:]


def sentence(*parts):
    """Parts that say something, as one sentence."""
    return "; ".join(part for part in parts if part)


class Schema:
    """The table, read."""

    def __init__(self, path):
        self.enums, self.models, self.meanings, self.endpoints = {}, {}, {}, []
        for macro, args in rows(path):
            if macro == "VALUE":
                self.enums.setdefault(args[0], []).append((args[2], args[3], args[4]))
            elif macro == "MODEL_BEGIN":
                self.models[args[0]], self.meanings[args[0]] = [], args[1]
            elif macro == "FIELD":
                self.models[args[0]].append(args[2:])
            elif macro == "ENDPOINT":
                self.endpoints.append(args)

    def kind(self, kind, form, least, most):
        """The type of a field, for people."""
        if kind == "BOOL":
            return "true or false"
        if kind == "UINT":
            return f"{least} to {LIMITS.get(most, most)}"
        if kind in ("STR", "JSON"):
            return FORMATS[form]
        if kind == "STRS":
            return f"list: {FORMATS[form]}"
        if kind == "ENUM":
            return "one of the words below"
        return f"*{form}*" if kind == "OBJ" else f"list of *{form}*"

    def fields(self, model):
        """The list of a model's fields, in scdoc's form."""
        text = ""
        for name, kind, form, presence, default, least, most, version, meaning in self.models[model]:
            about = sentence(self.kind(kind, form, least, most), "required" if presence == "REQ" else "",
                             f"without it {default}" if default else "", since(version))
            text += f"*{name}* ({about})\n" if name else f"({about})\n"
            text += f"\t{capital(meaning)}.\n\n"
            for word, word_since, word_meaning in self.enums[form] if kind == "ENUM" else []:
                what = sentence(word_meaning, since(word_since) if word_since != version else "")
                text += f"\t\"{word}\"{': ' if what else ''}{what}\n\n"
        return text

    def all_models(self):
        """A heading and the fields of every model that has some."""
        return "".join(f"## {name}\n\n{capital(self.meanings[name])}.\n\n{self.fields(name)}"
                       for name, fields in self.models.items() if fields)

    def all_endpoints(self):
        """The list of what can be asked for."""
        text = ""
        for _, _, method, path, phase, hotplug, body, request, answer, version, meaning in self.endpoints:
            about = sentence(PHASES[phase] + (f", also after it since {hotplug}" if hotplug else ""), since(version))
            text += f"*{method} {path}*" + (f" ({about})" if about else "") + "\n"
            text += f"\t{capital(meaning)}."
            if request != "none":
                text += f" Takes *{request}*" + (", which may be left out." if body == "MAY" else ".")
            if answer != "none":
                text += f" Answers with *{answer}*."
            text += "\n\n"
        return text
