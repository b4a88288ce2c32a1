"""Conversations that leave a model no room for an answer: left out, or cut, and named.

In: items (id, prompt) and an engine that knows its model's context. A prompt that is raw text
is not touched: who wrote it chose its length.
"""

from __future__ import annotations

from collections.abc import Sequence

from limo_nb.inference.base import Engine, Refused
from limo_nb.inference.chat import Message, Prompt

Item = tuple[str, Prompt]
ROOM = 1  # tokens of an answer that a prompt must leave


def fitted(engine: Engine, items: Sequence[Item]) -> tuple[list[Item], dict[str, Refused]]:
    """The items with long questions cut where the engine is to cut, and those left out.

    A question is cut in its middle: how it begins and what it asks at its end stay.
    """
    window = getattr(engine, "window", None)
    if not window:
        return list(items), {}
    kept, refused = [], {}
    for name, prompt in items:
        tokens = 0 if isinstance(prompt, str) else engine.length(prompt)
        if tokens + ROOM <= window:
            kept.append((name, prompt))
            continue
        wanted = getattr(engine, "over_long", "skip") == "cut"
        cut = _cut(engine, prompt, window) if wanted and not isinstance(prompt, str) else None
        kept.append((name, cut or prompt))
        if cut is None:
            why = f"its prompt has {tokens:,} tokens, and the model reads {window:,}"
            refused[name] = Refused(why)
    return kept, refused


def _cut(engine: Engine, prompt: list[Message], window: int) -> Prompt | None:
    """`prompt` with as much of its question as leaves half of the window for the answer."""
    *before, last = prompt
    text, low, high = last["content"], 0, len(last["content"])

    def shortened(letters: int) -> Prompt:
        half = letters // 2
        said = f"{text[:half]} … {text[len(text) - (letters - half) :]}"
        return [*before, {**last, "content": said}]

    if engine.length(shortened(0)) > window // 2:
        return None
    while low < high:  # the most letters that fit
        middle = (low + high + 1) // 2
        fits = engine.length(shortened(middle)) <= window // 2
        low, high = (middle, high) if fits else (low, middle - 1)
    return shortened(low)
