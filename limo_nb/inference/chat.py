"""What is asked: conversations or raw text, and their token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from limo_nb.core.settings import ChatSettings
from limo_nb.grading.extraction import MARK
from limo_nb.inference.templates import (
    BETWEEN_SYSTEM_AND_QUESTION,
    DEFAULT_CHAT,
    Layout,
    Turns,
    added_tokens,
    per_tokenizer,
    prompt_layout,
    system_place,
    template_texts,
    thought_tokens,
)

Message = dict[str, str]
Prompt = str | list[Message]  # raw text to continue, or a conversation to answer
# What an empty system prompt stands for, in training as in inference: LLaMA-Factory's,
# with which LIMO was trained. A template's own default would be another.
DEFAULT_SYSTEM = "You are a helpful assistant."


class Piece(NamedTuple):
    """A part of what a model reads or writes: who wrote it, and so which tokens it may have."""

    text: str
    writer: str = "template"  # or "model": no control tokens; or "data": no added token


def chat_prompt(question: str, system: str | None) -> list[Message]:
    """The conversation that asks `question` under the system prompt `system`.

    No or an empty system prompt stands for `DEFAULT_SYSTEM`. Training, filtering and
    evaluation all ask through this function.
    """
    return [
        {"role": "system", "content": system or DEFAULT_SYSTEM},
        {"role": "user", "content": question},
    ]


def prompt_ids(tokenizer: Any, prompt: Prompt, chat: ChatSettings = DEFAULT_CHAT) -> list[int]:
    """Token ids of `prompt`, with the chat template's opening of the reply.

    Control tokens written inside a message are encoded as plain text: a question cannot
    end its own turn. What a user writes is text altogether (see `plain_ids`).
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return piece_ids(tokenizer, prompt_pieces(tokenizer, prompt, chat))


def prompt_text(tokenizer: Any, prompt: Prompt, chat: ChatSettings = DEFAULT_CHAT) -> str:
    """What the model reads, as text."""
    if isinstance(prompt, str):
        return prompt
    return "".join(piece.text for piece in prompt_pieces(tokenizer, prompt, chat))


def prompt_pieces(
    tokenizer: Any, prompt: list[Message], chat: ChatSettings = DEFAULT_CHAT
) -> list[Piece]:
    """What the model reads. Raises ValueError for what the template cannot write.

    A system prompt stands before the question where the template has no such turn; there,
    the default one is left out.
    """
    turns, texts = turns_of(tokenizer, prompt, chat)
    return filled(prompt_layout(tokenizer, turns, chat), texts)


def turns_of(
    tokenizer: Any, prompt: list[Message], chat: ChatSettings
) -> tuple[Turns, dict[str, Piece]]:
    """The turns that the template gets for `prompt`, and their texts."""
    texts = {
        str(place): Piece(m["content"], "data" if m["role"] == "user" else "model")
        for place, m in enumerate(prompt)
    }
    turns = [(m["role"], (str(place),)) for place, m in enumerate(prompt)]
    has_system = [role for role, _ in turns[:2]] == ["system", "user"]
    if has_system and system_place(tokenizer, chat) == "user":
        kept = () if prompt[0]["content"] == DEFAULT_SYSTEM else ("0",)
        turns[:2] = [("user", (*kept, "1"))]
    return tuple(turns), texts


def before_the_question(prompt: list[Message]) -> list[Message]:
    """`prompt` without the turn of its system prompt, for a template that has no such turn."""
    system, user, *rest = prompt
    kept = [] if system["content"] == DEFAULT_SYSTEM else [system["content"]]
    said = BETWEEN_SYSTEM_AND_QUESTION.join([*kept, user["content"]])
    return [{**user, "content": said}, *rest]


def filled(layout: Layout, texts: Mapping[str, Piece]) -> list[Piece]:
    """The pieces of `layout` with `texts` in their places."""
    return [
        Piece(part) if isinstance(part, str)
        else texts[part.name]._replace(text=part.cut(texts[part.name].text))
        for part in layout
    ]  # fmt: skip


def piece_ids(tokenizer: Any, pieces: Iterable[Piece]) -> list[int]:
    """Token ids of what the pieces are together.

    As one text, as a model's tokens would be. Where a text spells tokens that it may not
    have, its pieces are encoded one by one.
    """
    pieces = [piece for piece in pieces if piece.text]
    if not any(_needs_care(tokenizer, piece) for piece in pieces):
        text = "".join(piece.text for piece in pieces)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    ids: list[int] = []
    for text, writer in pieces:
        if writer == "template":
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids += plain_ids(tokenizer, text, whole=writer == "data")
    return ids


def _needs_care(tokenizer: Any, piece: Piece) -> bool:
    if piece.writer == "template":
        return False
    names = added_tokens if piece.writer == "data" else control_tokens
    return any(token in piece.text for token in names(tokenizer))


@per_tokenizer
def control_tokens(tokenizer: Any) -> frozenset[str]:
    """Tokens that steer: those flagged special, and those that the template writes.

    The flag is not enough: the tokenizers of DeepSeek's distilled models do not flag
    `<｜User｜>` and `<｜Assistant｜>`, which begin a turn. The marks of a thought steer
    nothing: they are the model's own.
    """
    special = frozenset(tokenizer.all_special_tokens)
    if not tokenizer.chat_template:
        return special
    text = "".join(template_texts(tokenizer))
    written = {token for token in added_tokens(tokenizer) if token in text}
    return special | {token for token in written if not MARK.fullmatch(token)}


def plain_ids(tokenizer: Any, text: str, whole: bool = False) -> list[int]:
    """Token ids of `text` in which no control token can occur.

    Other added tokens, as `<think>` or `<tool_call>` in some vocabularies, are kept: a
    chain has them because its teacher wrote these tokens, and the student shall write
    the same. With `whole`, they are text too.
    """
    unwanted = added_tokens(tokenizer) if whole else control_tokens(tokenizer)
    found = any(token in text for token in unwanted - set(tokenizer.all_special_tokens))
    if found and getattr(tokenizer, "is_fast", False):
        return _without(tokenizer, unwanted).encode(text, add_special_tokens=False).ids
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def answer_text(tokenizer: Any, ids: list[int]) -> str:
    """The text of what a model wrote, without its end token.

    Special tokens are left out, but for those with which its template marks a thought, as
    gpt-oss does: without them no reader could tell thought and answer apart.
    """
    marks = thought_tokens(tokenizer)
    if not marks:
        return tokenizer.decode(ids, skip_special_tokens=True)
    left_out = set(tokenizer.all_special_ids) - set(tokenizer.convert_tokens_to_ids([*marks]))
    return tokenizer.decode([token for token in ids if token not in left_out])


@lru_cache(maxsize=4)
def _without(tokenizer: Any, unwanted: frozenset[str]) -> Tokenizer:
    """A copy that takes `unwanted` for text; the library can do so for flagged tokens."""
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in facts["added_tokens"]:
        token["special"] = token["content"] in unwanted
    copy = Tokenizer.from_str(json.dumps(facts))
    copy.encode_special_tokens = True
    return copy
