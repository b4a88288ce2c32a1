"""Chains for people: coloured, folded text in a notebook and on the rendered page.

Sentences are coloured by what they do, words that the scorer counts are underlined, and a
long chain is folded into passages. The HTML needs nothing else: no script, no network.
Folding is that of `<details>`, so keyboard and screen readers work as everywhere. All text
is escaped: a chain that contains HTML shows it. Chapter 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from html import escape

from limo_nb.chains.measures import (
    role,
    sentences,
)
from limo_nb.chains.scoring import keywords
from limo_nb.grading.verifiers import SENTENCE

# role -> (what the legend says, its sign, light background, dark background)
ROLES = {
    "step": ("step", "", "#dcebf7", "#173a55"),
    "check": ("check", "✓", "#d5efe5", "#0d4435"),
    "exploration": ("exploration or retreat", "?", "#fbe9c6", "#57400a"),
    "conclusion": ("reason or conclusion", "∴", "#f3deeb", "#552b45"),
    "answer": ("answer", "■", "#f9d9c7", "#66300f"),
}
# Sites and notebooks say in different ways that they are dark; where nothing is said the
# card is light. It paints its own opaque ground, so it is readable in either case.
DARK = (
    "html[data-theme=dark]", "html[theme=dark]", "[data-jp-theme-light=false]", ".vscode-dark",
)  # fmt: skip
LONG = 1800  # characters from which a chain is folded: more than a screen of a page
PASSAGE = 700  # characters from which a passage may end
BREAK = 2400  # characters at which it ends in any case, at the next end of a line
SUMMARY = 72  # characters of a passage's first sentence that its summary shows


def to_html(text: str, title: str = "", legend: bool = True, fold: bool | None = None) -> str:
    """A chain as HTML that needs nothing else; wrap it in `IPython.display.HTML`.

    `fold` None folds chains of more than `LONG` characters; the last passage, which has
    the answer, stays open. Raises ValueError for an empty chain.
    """
    return _style() + _card(text, title, legend, fold)


def side_by_side(
    a: str, b: str, titles: tuple[str, str] = ("", ""), fold: bool | None = None
) -> str:
    """Two chains beside each other, or below each other on a narrow page."""
    cards = "".join(
        _card(text, title, True, fold) for text, title in zip((a, b), titles, strict=True)
    )
    return f'{_style()}<div class="limo-pair">{cards}</div>'


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
    return bool(first) and role(first.group()) in ("check", "exploration", "answer")


# ---------------------------------------------------------------- HTML
@cache
def _style() -> str:
    light = "".join(f".limo-{name}{{background:{a}}}" for name, (_, _, a, _) in ROLES.items())
    signs = "".join(
        f".limo-{name}::before{{content:'{sign}';font-size:.8em;margin-right:.25em}}"
        for name, (_, sign, _, _) in ROLES.items()
        if sign
    )
    dark = "".join(
        f"{','.join(f'{where} .limo-{name}' for where in DARK)}{{background:{b}}}"
        for name, (_, _, _, b) in ROLES.items()
    )
    card = ",".join(f"{where} .limo-chain" for where in DARK)
    return (
        "<style>.limo-pair{display:flex;flex-wrap:wrap;gap:.8rem;align-items:flex-start}"
        ".limo-pair>*{flex:1 1 18rem;min-width:0}.limo-title{font-weight:bold}"
        ".limo-chain{background:#fff;color:#1a1a1a;border:1px solid #bbb;border-radius:6px;"
        "padding:.6rem .8rem;margin:.3rem 0;line-height:1.6;font-size:.92em;text-align:left}"
        ".limo-text{white-space:pre-wrap;overflow-wrap:anywhere}"
        ".limo-chain span[class]{border-radius:3px;padding:0 .15em}"
        ".limo-chain u{text-decoration-style:dotted;text-underline-offset:3px}"
        ".limo-exploration{font-style:italic}.limo-answer{font-weight:bold}"
        ".limo-chain details{border-top:1px solid #8886;padding:.15rem 0}"
        ".limo-chain summary{cursor:pointer;font-size:.92em}"
        ".limo-chain summary:focus-visible{outline:3px solid #56b4e9;outline-offset:1px}"
        ".limo-chain summary b{margin-right:.4em}.limo-chain summary span{margin-left:.4em}"
        ".limo-legend{font-size:.85em;margin-top:.5rem;display:flex;flex-wrap:wrap;gap:.5rem}"
        f"{light}{signs}{card}{{background:#1b1e23;color:#eceff3;border-color:#555}}{dark}"
        # The theme puts a light frame around HTML outputs in the dark; not around ours.
        "html[data-theme=dark] .cell_output .text_html:has(>.limo-chain,>.limo-pair)"
        "{background:none!important;padding:0!important}</style>"
    )


def _card(text: str, title: str, legend: bool, fold: bool | None) -> str:
    if not text.strip():
        raise ValueError("an empty chain cannot be shown")
    folded = len(text) > LONG if fold is None else fold
    head = f'<div class="limo-title">{escape(title)}</div>' if title else ""
    body = "".join(_folded(text)) if folded else _text(text)
    label = escape(title or "a reasoning chain", quote=True)
    return (
        f'<div class="limo-chain" role="group" aria-label="{label}">'
        f"{head}{body}{_legend() if legend else ''}</div>"
    )


def _folded(text: str) -> Iterator[str]:
    """Every passage as `<details>`; the last one is open."""
    parts = passages(text)
    for number, part in enumerate(parts, 1):
        state = " open" if number == len(parts) else ""
        yield f"<details{state}>{_summary(number, part)}{_text(part)}</details>"


def _summary(number: int, passage: str) -> str:
    """The number of a passage, how it begins, and how many sentences of each role it has."""
    found = sentences(passage)
    first = found[0] if found else ""
    first = first if len(first) <= SUMMARY else first[:SUMMARY].rstrip() + " …"
    roles = Counter(map(role, found))
    counts = "".join(
        f'<span class="limo-{name}">{name} × {roles[name]}</span>'
        for name in ROLES
        if roles[name]
    )
    return f"<summary><b>{number}</b>{escape(first)}{counts}</summary>"


def _text(text: str) -> str:
    parts, done = [], 0
    for match in SENTENCE.finditer(text):
        parts.append(escape(text[done : match.start()]))
        parts.append(_sentence(match.group()))
        done = match.end()
    parts.append(escape(text[done:]))
    # mathjax_ignore: a chain is shown as it was written, dollar signs included
    return f'<div class="limo-text mathjax_ignore tex2jax_ignore">{"".join(parts)}</div>'


def _sentence(sentence: str) -> str:
    does, pieces, done = role(sentence), [], 0
    for start, end, name in keywords(sentence):
        pieces.append(escape(sentence[done:start]))
        pieces.append(f'<u title="{name}">{escape(sentence[start:end])}</u>')
        done = end
    inner = "".join(pieces) + escape(sentence[done:])
    return inner if does == "plain" else f'<span class="limo-{does}">{inner}</span>'


def _legend() -> str:
    items = "".join(
        f'<span class="limo-{name}">{escape(says)}</span>' for name, (says, *_) in ROLES.items()
    )
    return f'<div class="limo-legend">{items}<span><u>counted word</u></span></div>'
