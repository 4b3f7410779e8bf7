#!/usr/bin/env python3
"""Writes models/unicode_tables.c: what canonical composition (NFC) needs, from Python's unicodedata.

Usage: scripts/make_unicode_tables.py > models/unicode_tables.c

Only the canonical mappings are taken; Hangul syllables are computed, not stored.
"""
import sys
import unicodedata as u

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def decomposition(c):
    """Canonical decomposition of one step as (first, second or 0), None if there is none."""
    d = u.decomposition(chr(c))
    if not d or d.startswith("<"):
        return None
    parts = [int(x, 16) for x in d.split()]
    return (parts[0], parts[1] if len(parts) > 1 else 0)


def ranges(pairs):
    """[(code point, value)] in order -> [(first, last, value)]."""
    out = []
    for c, v in pairs:
        if out and out[-1][1] == c - 1 and out[-1][2] == v:
            out[-1][1] = c
        else:
            out.append([c, c, v])
    return out


def table(kind, name, rows, doc):
    print(f"\n/* {doc} */\nconst struct {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        item = " {" + ", ".join(f"0x{x:x}" if x > 255 else str(x) for x in row) + "},"
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line)
    print("};")
    print(f"const size_t {name}_n = sizeof {name} / sizeof {name}[0];")


def main():
    decompose = [(c, *d) for c in ALL if (d := decomposition(c))]
    # A pair composes if the result survives NFC (the composition exclusions do not).
    compose = sorted((a, b, c) for c, a, b in decompose if b and u.normalize("NFC", chr(c)) == chr(c))
    ccc = ranges([(c, u.combining(chr(c))) for c in ALL if u.combining(chr(c))])
    seconds = {b for _, b, _ in compose} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    unstable = {c for c in ALL if u.combining(chr(c)) or u.normalize("NFC", chr(c)) != chr(c)}
    watch = ranges([(c, 0) for c in sorted(unstable | seconds)])

    print(f"/* Tables of canonical composition (NFC), Unicode {u.unidata_version}. Made by")
    print(" * scripts/make_unicode_tables.py: change that, not this. Long because the tables are. */")
    print("/* clang-format off */")
    print('#include "models/unicode.h"')
    table("fc_unicode_range", "fc_unicode_watch", watch,
          "Characters that may change, or be changed by what stands before them: text without any is NFC.")
    table("fc_unicode_range", "fc_unicode_ccc", ccc, "Canonical combining classes other than 0.")
    table("fc_unicode_map", "fc_unicode_decompose", decompose,
          "One step of canonical decomposition: {character, first, second or 0}.")
    table("fc_unicode_pair", "fc_unicode_compose", compose,
          "Primary composites: {first, second, character}.")
    print("/* clang-format on */")


if __name__ == "__main__":
    sys.exit(main())
