"""Chains for people: coloured, folded text in a notebook and on the rendered page.

Sentences are coloured by what they do, words that the scorer counts are underlined, and a
long chain is folded into passages. The HTML needs nothing else: no script, no network.
Folding is that of `<details>`, so keyboard and screen readers work as everywhere. All text
is escaped: a chain that contains HTML shows it. Chapter 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from limo_nb.book.templates import macros
from limo_nb.chains.measures import role, sentences
from limo_nb.chains.scoring import keywords
from limo_nb.grading.verifiers import SENTENCE

TEMPLATE = "book/chain_viewer.jinja"
# What the legend says of each role; how it looks stands in chain_viewer.css.
ROLES = {
    "step": "step",
    "check": "check",
    "exploration": "exploration or retreat",
    "conclusion": "reason or conclusion",
    "answer": "answer",
}
LONG = 1800  # characters from which a chain is folded: more than a screen of a page
PASSAGE = 700  # characters from which a passage may end
BREAK = 2400  # characters at which it ends in any case, at the next end of a line
SUMMARY = 72  # characters of a passage's first sentence that its summary shows


def chain_html(
    text: str, title: str = "", legend: bool = True, fold: bool | None = None
) -> str:
    """A chain as HTML that needs nothing else; wrap it in `IPython.display.HTML`.

    `fold` None folds chains of more than `LONG` characters; the last passage, which has
    the answer, stays open. Raises ValueError for an empty chain.
    """
    return str(macros(TEMPLATE).one(_card(text, title, fold), ROLES if legend else {}))


def pair_html(
    a: str, b: str, titles: tuple[str, str] = ("", ""), fold: bool | None = None
) -> str:
    """Two chains beside each other, or below each other on a narrow page."""
    cards = [_card(text, title, fold) for text, title in zip((a, b), titles, strict=True)]
    return str(macros(TEMPLATE).pair(cards, ROLES))


def _card(text: str, title: str, fold: bool | None) -> dict[str, Any]:
    """What the template shows of a chain."""
    if not text.strip():
        raise ValueError("an empty chain cannot be shown")
    folded = len(text) > LONG if fold is None else fold
    parts = map(_passage, passages(text) if folded else [text])
    return {"title": title, "folded": folded, "passages": list(parts)}


def _passage(text: str) -> dict[str, Any]:
    """How a passage begins, how many sentences of each role it has, and its pieces."""
    found = sentences(text)
    first = found[0] if found else ""
    if len(first) > SUMMARY:
        first = first[:SUMMARY].rstrip() + " …"
    counts = Counter(map(role, found))
    roles = {name: counts[name] for name in ROLES if counts[name]}
    return {"first": first, "roles": roles, "pieces": list(_pieces(text))}


def _pieces(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(role or "", its words) one after another; a word is (text, what counts it or "").

    Sentences and what stands between them, joined, are `text` again.
    """
    done = 0
    for match in SENTENCE.finditer(text):
        yield "", [(text[done : match.start()], "")]
        does = role(match.group())
        yield "" if does == "plain" else does, list(_words(match.group()))
        done = match.end()
    yield "", [(text[done:], "")]


def _words(sentence: str) -> Iterator[tuple[str, str]]:
    done = 0
    for start, end, name in keywords(sentence):
        yield sentence[done:start], ""
        yield sentence[start:end], name
        done = end
    yield sentence[done:], ""


# ---------------------------------------------------------------- passages
def passages(text: str) -> list[str]:
    """`text` cut into passages, which joined give it again.

    A passage ends at the end of a line where the next one turns to a check or another
    idea, or where it has become long; lines are never cut.
    """
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        if found and not _goes_on(found[-1], line):
            found.append(line)
        else:
            found[-1:] = ["".join(found[-1:]) + line]
    return found


def _goes_on(passage: str, line: str) -> bool:
    """Whether `line` belongs to the passage before it."""
    if len(passage) < PASSAGE or not line.strip():
        return True
    return len(passage) < BREAK and not _turns(line)


def _turns(line: str) -> bool:
    first = SENTENCE.search(line)
    return first is not None and role(first.group()) in ("check", "exploration", "answer")
