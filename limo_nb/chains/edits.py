"""Chains with one thing changed, to find out what a chain teaches (chapter 9).

Every edit takes a chain and returns one: some sentences or steps of it are gone, altered or
in another order, and the boxed answer stays as it was. What a sentence does is judged by its
words (`measures.role`), so the edits know nothing of the lab. Randomness comes from the
generator that is passed in.
"""

from __future__ import annotations

import random
import re

from limo_nb.chains.measures import EQUATION, LABEL, role, sentences
from limo_nb.chains.scoring import occurrences

DIGIT = re.compile(r"\d")


def without_roles(text: str, unwanted: set[str]) -> str:
    """The chain without the sentences that play one of the `unwanted` roles.

    Where the check of a wrong step goes, the wrong step goes with it: of two steps of one
    label in a line the last stays.
    """
    lines = []
    for line in text.split("\n"):
        said, kept, before = sentences(line), [], False
        for sentence in said:
            echo = before and sentence[:-1].isalpha()  # "No." goes with what it answers
            before = echo or role(sentence) in unwanted
            kept += [] if before else [sentence]
        if len(kept) < len(said):
            kept = _last_of_a_label(kept)
        if kept or not line.strip():
            lines.append(" ".join(kept))
    return "\n".join(lines).strip()


def _last_of_a_label(said: list[str]) -> list[str]:
    labels = [found and found.group() for found in map(LABEL.search, said)]
    return [own for place, own in enumerate(said)
            if not labels[place] or labels[place] not in labels[place + 1 :]]  # fmt: skip


def without_keywords(text: str) -> str:
    """The chain without the words that its score counts: the sentences stay."""
    for start, end, _ in sorted(occurrences(text), reverse=True):
        text = text[:start] + text[end:]
    return re.sub(r" +([.,?!:])", r"\1", re.sub(r"[ \t]+", " ", text)).strip()


def skipping(text: str, share: float, rng: random.Random) -> str:
    """The chain without `share` of its steps, drawn at random; the last step stays."""
    lines = text.split("\n")
    places = _steps(lines)[:-1]
    gone = set(rng.sample(places, round(share * len(places))))
    return "\n".join(line for place, line in enumerate(lines) if place not in gone)


def shortened(text: str) -> str:
    """A short solution: every second step, the last among them, and no check or detour."""
    lines = without_roles(text, {"check", "exploration"}).split("\n")
    places = _steps(lines)
    gone = set(places) - set(places[::-1][::2])
    return "\n".join(line for place, line in enumerate(lines) if place not in gone)


def shuffled(text: str, rng: random.Random) -> str:
    """The chain with its steps in a random order; what is no step stays where it is."""
    lines = text.split("\n")
    places = _steps(lines)
    order = rng.sample(places, len(places))
    moved = dict(zip(places, (lines[place] for place in order), strict=True))
    return "\n".join(moved.get(place, line) for place, line in enumerate(lines))


def corrupted(text: str, share: float, rng: random.Random) -> str:
    """The chain with `share` of the digits of its steps replaced by other digits."""

    def other(found: re.Match[str]) -> str:
        if rng.random() >= share:
            return found.group()
        return rng.choice([digit for digit in "0123456789" if digit != found.group()])

    lines = text.split("\n")
    for place in _steps(lines):
        lines[place] = DIGIT.sub(other, lines[place])
    return "\n".join(lines)


def boxed(text: str) -> str:
    """The boxed answer alone; the chain itself where none is boxed."""
    place = text.rfind("\\boxed")
    return text[place:].strip() if place >= 0 else text


def _steps(lines: list[str]) -> list[int]:
    """The places of the lines that take a step."""
    return [place for place, line in enumerate(lines) if any(map(_is_step, sentences(line)))]


def _is_step(sentence: str) -> bool:
    """Whether a sentence takes a step, also one that gives a reason."""
    worked = LABEL.search(sentence) or EQUATION.search(sentence)
    return bool(worked) and role(sentence) in ("step", "conclusion")
