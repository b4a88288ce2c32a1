"""Rows to tokens: the chat template, and loss on the response and its end only.

The semantics are those of LLaMA-Factory 0.9.2 (template `qwen`), with which LIMO was
trained: loss on the response and the closing `<|im_end|>` with its line end; an empty
system prompt stands for the default one; a row over the limit is cut by one rule, and a
response that is cut loses its end. On purpose different: what looks like a control token
in a question or a solution is text. Chapter 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limo_nb.core import records as row_files
from limo_nb.core.settings import OverLength
from limo_nb.inference import chat_prompt, plain_ids, prompt_ids

IGNORED = -100  # label of a token without loss
COLUMNS = ("question", "solution")


@dataclass(frozen=True)
class Encoded:
    """One row: token ids, and labels that are IGNORED up to the response."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class OverLong:
    """A row over the limit: its number from 0, its id, and its tokens before the cut."""

    row: int
    id: str
    tokens: int
    over: int  # tokens over the limit
    prompt_cut: int  # of which the prompt lost this many, at its end
    response_cut: int


@dataclass(frozen=True)
class EncodedRows:
    """All rows that are trained on, and what happened to those over the limit."""

    rows: list[Encoded]
    over: list[OverLong] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)  # numbers of the rows left out

    @property
    def lengths(self) -> list[int]:
        """Tokens per row."""
        return [len(row.ids) for row in self.rows]

    @property
    def cut(self) -> list[int]:
        """Numbers of the rows that were cut at the limit."""
        gone = set(self.dropped)
        return [long.row for long in self.over if long.row not in gone]


def read_training_rows(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, their places for messages) of a file of rows with question and solution.

    Raises ValueError that names every broken row by its line or number, up to ten.
    """
    broken: list[str] = []
    found, places = [], []
    for place, row in row_files.read_records(file, broken):
        fault = row_fault(row)
        if fault:
            broken.append(f"{place}: {fault}")
        else:
            found.append(dict(row))
            places.append(place)
    if broken or not found:
        raise ValueError(_complaint(broken))
    return found, places


def encode(
    rows: Iterable[Mapping],
    tokenizer: Any,
    system: str | None,
    max_tokens: int,
    over_length: OverLength = "cut",
    places: Sequence[str] | None = None,
) -> EncodedRows:
    """`rows` (question, solution) in the chat format, each at most `max_tokens` long.

    A longer row is cut as the paper's set-up did (`shares`), or dropped. `places` says
    how messages name each row. Raises ValueError that names the rows without a question
    or a solution, and those of which no response is left.
    """
    closing = closing_ids(tokenizer)
    made, over, dropped, faults = [], [], [], []
    for number, row in enumerate(rows):
        fault = row_fault(row)
        prompt: list[int] = []
        response: list[int] = []
        if not fault:
            prompt, response = _parts(row, tokenizer, system, closing)
            kept = shares(len(prompt), len(response), max_tokens)
            long = _over_long(number, row, (len(prompt), len(response)), kept, max_tokens)
            if long:
                over.append(long)
            if long and over_length == "drop":
                dropped.append(number)
                continue
            if not kept[1]:
                fault = f"its prompt has {len(prompt)} tokens of max_tokens={max_tokens}"
        if fault:
            faults.append(f"{places[number] if places else f'row {number}'}: {fault}")
            continue
        prompt, response = prompt[: kept[0]], response[: kept[1]]
        made.append(Encoded(prompt + response, [IGNORED] * len(prompt) + response))
    if faults or not made:
        raise ValueError(_complaint(faults, len(dropped), max_tokens))
    return EncodedRows(made, over, dropped)


def _parts(
    row: Mapping, tokenizer: Any, system: str | None, closing: list[int]
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response.

    The response is encoded apart from the prompt, as it will be at inference, and what
    looks like a control token in it stays text.
    """
    asked = chat_prompt(row["question"], system)
    return prompt_ids(tokenizer, asked), plain_ids(tokenizer, row["solution"]) + closing


def shares(prompt: int, response: int, limit: int) -> tuple[int, int]:
    """Tokens that prompt and response keep within `limit`: LLaMA-Factory 0.9.2's rule.

    A response of less than half the limit is kept whole; else a prompt of less than half
    the limit is; else both are cut in proportion. What is cut is cut at the end.
    """
    if 2 * response < limit:
        room = limit
    elif 2 * prompt < limit:
        room = limit - prompt
    else:
        room = int(limit * (response / (prompt + response)))
    kept = min(room, response)
    return min(limit - kept, prompt), kept


def _over_long(
    number: int, row: Mapping, whole: tuple[int, int], kept: tuple[int, int], limit: int
) -> OverLong | None:
    tokens = sum(whole)
    if tokens <= limit:
        return None
    name = row.get("id", row.get("question_id", number))
    lost = (whole[0] - kept[0], whole[1] - kept[1])
    return OverLong(number, str(name), tokens, tokens - limit, *lost)


def over_length_report(encoded: EncodedRows, max_tokens: int) -> str:
    """Count, ids and excess of the rows over the limit, as lines; empty where none is."""
    if not encoded.over:
        return ""
    verb = "dropped" if encoded.dropped else "cut"
    head = f"{len(encoded.over)} rows are over {max_tokens} tokens and are {verb}:"
    lines = [
        f"  row {long.row} (id {long.id}): {long.tokens} tokens, {long.over} over"
        + (f", the prompt loses {long.prompt_cut}" if long.prompt_cut else "")
        for long in encoded.over[:10]
    ]
    more = len(encoded.over) - 10
    return "\n".join([head, *lines, *([f"  and {more} more"] if more > 0 else [])])


def row_fault(row: Any) -> str:
    """Why `row` cannot be trained on; empty where it can."""
    if not isinstance(row, Mapping):
        return f"expected a mapping, found {type(row).__name__}"
    for name in COLUMNS:
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"{name} is {'missing' if value is None else repr(value)[:40]}"
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"{name} has half a character (a lone surrogate) at {error.start}"
    return ""


def _complaint(faults: Sequence[str], dropped: int = 0, max_tokens: int = 0) -> str:
    if not faults and dropped:
        return (
            f"all {dropped} rows are over max_tokens={max_tokens} and were dropped: raise "
            "sft.max_tokens, or cut them with sft.over_length=cut"
        )
    if not faults:
        return "there are no rows to train on"
    more = f"\n  and {len(faults) - 10} more" if len(faults) > 10 else ""
    return "rows that cannot be trained on:\n  " + "\n  ".join(faults[:10]) + more


def closing_ids(tokenizer: Any) -> list[int]:
    """What the template writes after a response: `<|im_end|>` and a line end for Qwen."""
    messages = [{"role": "user", "content": "question"}]
    reply = {"role": "assistant", "content": "\ue000"}
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*messages, reply], tokenize=False)
    if not whole.startswith(asked + "\ue000"):
        raise ValueError(
            "this chat template writes something between the prompt and the response, so "
            "training would not see what inference shows; use a template without it"
        )
    closing = whole.removeprefix(asked + "\ue000")
    return tokenizer(closing, add_special_tokens=False)["input_ids"]
