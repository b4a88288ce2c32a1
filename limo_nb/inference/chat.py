"""What is asked: conversations or raw text, and their token ids."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

Message = dict[str, str]
Prompt = str | list[Message]  # raw text to continue, or a conversation to answer
# What an empty system prompt stands for, in training as in inference: LLaMA-Factory's,
# with which LIMO was trained. A template's own default would be another.
DEFAULT_SYSTEM = "You are a helpful assistant."


def chat_prompt(question: str, system: str | None) -> list[Message]:
    """The conversation that asks `question` under the system prompt `system`.

    No or an empty system prompt stands for `DEFAULT_SYSTEM`. Training, filtering and
    evaluation all ask through this function.
    """
    return [
        {"role": "system", "content": system or DEFAULT_SYSTEM},
        {"role": "user", "content": question},
    ]


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of `prompt`, with the chat template's opening of the reply.

    Control tokens written inside a message are encoded as plain text: a question cannot
    end its own turn. What a user writes is text altogether (see `plain_ids`).
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    if not any(_needs_care(tokenizer, message) for message in prompt):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    marks = [f"\ue000{index}\ue001" for index in range(len(prompt))]
    masked = [{**m, "content": mark} for m, mark in zip(prompt, marks, strict=True)]
    rest = tokenizer.apply_chat_template(masked, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for message, mark in zip(prompt, marks, strict=True):
        piece, found, rest = rest.partition(mark)
        if not found:
            raise ValueError("the chat template left out a message that has control tokens")
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
        ids += plain_ids(tokenizer, message["content"], whole=_is_data(message))
    return ids + tokenizer(rest, add_special_tokens=False)["input_ids"]


def _is_data(message: Message) -> bool:
    """Whether `message` is a problem from a data set, in which all is text."""
    return message["role"] == "user"


def _needs_care(tokenizer: Any, message: Message) -> bool:
    names = added_tokens if _is_data(message) else control_tokens
    return any(token in message["content"] for token in names(tokenizer))


@lru_cache(maxsize=16)
def added_tokens(tokenizer: Any) -> frozenset[str]:
    """The spellings that the tokenizer takes for one token wherever they occur."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values())
    return frozenset(added) | frozenset(tokenizer.all_special_tokens)


@lru_cache(maxsize=16)
def control_tokens(tokenizer: Any) -> frozenset[str]:
    """Tokens that steer: those flagged special, and those that the template writes.

    The flag is not enough: the tokenizers of DeepSeek's distilled models do not flag
    `<｜User｜>` and `<｜Assistant｜>`, which begin a turn.
    """
    special = frozenset(tokenizer.all_special_tokens)
    if not tokenizer.chat_template:
        return special
    talk = [(role, "\ue000") for role in ("user", "assistant", "user")]
    messages = [{"role": role, "content": text} for role, text in talk]
    try:
        asked = [{"role": "system", "content": "\ue000"}, *messages]
        text = tokenizer.apply_chat_template(asked, tokenize=False)
    except Exception:  # a template's own refusal: of a system prompt, as Gemma's
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    return special | {token for token in added_tokens(tokenizer) if token in text}


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


@lru_cache(maxsize=4)
def _without(tokenizer: Any, unwanted: frozenset[str]) -> Tokenizer:
    """A copy that takes `unwanted` for text; the library can do so for flagged tokens."""
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in facts["added_tokens"]:
        token["special"] = token["content"] in unwanted
    copy = Tokenizer.from_str(json.dumps(facts))
    copy.encode_special_tokens = True
    return copy
