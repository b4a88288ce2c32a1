"""The ways to put a problem to a model: in a chat, with examples, begun, or as a textbook page.

In a chat the model answers as it was tuned to. The other ways show what can be had from it
without any training, so they are the baselines of training: a few solved problems before the
question (few-shot), an answer begun in its name (prefill), or, for the lab's models, the
opening of a textbook page, which they continue as they were pretrained to. Chapters 2, 8, 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from limo_nb import lab
from limo_nb.core.settings import ChatSettings
from limo_nb.inference import Prompt, chat_prompt, load_tokenizer, prompt_text, resolve
from limo_nb.inference.templates import DEFAULT_CHAT

WAYS = ("chat", "textbook", "few-shot", "prefill")
PREFILL = "1)"  # how an answer is begun: with the number of its first step
SHOTS = 2  # solved problems before the question

Shot = tuple[str, str]  # a question and its solution


def shots_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Shot, ...]:
    """The `SHOTS` shortest training rows: they leave most room for the answer."""
    shortest = sorted(rows, key=lambda row: (len(row["solution"]), row["question_id"]))
    return tuple((row["question"], row["solution"]) for row in shortest[:SHOTS])


def prompts(
    way: str, items: Iterable[Mapping[str, Any]], system: str, model: str,
    shots: Iterable[Shot] = (), chat: ChatSettings = DEFAULT_CHAT,
) -> list[tuple[str, Prompt]]:  # fmt: skip
    """(id, prompt) of each of `items` as `way` puts it to `model`.

    Raises ValueError for an unknown way, and for few-shot without shots.
    """
    if way not in WAYS:
        raise ValueError(f"no way {way!r} to ask; there are {', '.join(WAYS)}")
    turns = [
        {"role": role, "content": text}
        for shot in shots for role, text in zip(("user", "assistant"), shot, strict=True)
    ]  # fmt: skip
    if way == "few-shot" and not turns:
        raise ValueError("few-shot without solved problems: there are no training rows")
    tokenizer = load_tokenizer(resolve(model)) if way == "prefill" else None

    def put(question: str) -> Prompt:
        conversation = chat_prompt(question, system)
        if way == "textbook":
            return lab.worked_prompt(question)
        if tokenizer:  # raw text, in front of which the tokenizer puts its own first token
            written = prompt_text(tokenizer, conversation, chat)
            return written.removeprefix(tokenizer.bos_token or "") + PREFILL
        return [*conversation[:-1], *turns, conversation[-1]] if turns else conversation

    return [(row["id"], put(row["question"])) for row in items]
