"""Docstrings, which are plain text with backticks, as reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Mapping

CODE = re.compile(r"``(.+?)``|`([^`]+)`", re.DOTALL)
CHAPTERS = re.compile(r"\b[Cc]hapters? \d+(?:(?:, | and |, and )\d+)*")


def restructured(text: str, names: Mapping[str, str], chapters: Mapping[int, str]) -> str:
    """Plain text as reStructuredText: paragraphs, lists of "- ", indented blocks, tables.

    Backticks become code, or links where `names` has an address for what they hold; the
    numbers of `chapters` (number -> document) become links behind the word chapter.
    """
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        if all(line.startswith(("    ", "|")) for line in lines):
            blocks.append("::\n\n" + "\n".join(f"    {line}" for line in lines))
            continue
        inline = _inline("\n".join(line.strip() for line in lines), names, chapters)
        if lines[0].startswith("- "):
            inline = re.sub(r"\n(?!- )", "\n  ", inline)
        blocks.append(inline)
    return "\n\n".join(blocks)


def _inline(text: str, names: Mapping[str, str], chapters: Mapping[int, str]) -> str:
    parts, done = [], 0
    for match in CODE.finditer(text):
        parts.append(_prose(text[done : match.start()], chapters))
        code = " ".join((match[1] or match[2]).split())
        address = names.get(code.removesuffix("()"))
        # The escaped blanks let a letter stand right before or behind.
        parts.append(f"\\ :py:obj:`{code} <{address}>`\\ " if address else f"\\ ``{code}``\\ ")
        done = match.end()
    return "".join([*parts, _prose(text[done:], chapters)])


def _prose(text: str, chapters: Mapping[int, str]) -> str:
    text = re.sub(r"[\\*|`]|_(?!\w)", r"\\\g<0>", text)

    def link(number: re.Match) -> str:
        name = chapters.get(int(number[0]))
        return f":doc:`{number[0]} <{name}>`" if name else number[0]

    return CHAPTERS.sub(lambda found: re.sub(r"\d+", link, found[0]), text)
