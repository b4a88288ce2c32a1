"""Rows to tokens: the chat template, and loss on the response and its end only.

One rule for every template: the prompt is what inference shows, and loss falls on all that
the template has behind it, the marks of a thought and the end token included
(`inference.templates`). Where a row's thought ends is said by marks in its solution, by
its column `reasoning`, or by `chat.thinking`.

For Qwen2.5 the semantics are those of LLaMA-Factory 0.9.2 (template `qwen`), with which
LIMO was trained: loss on the response and the closing `<|im_end|>` with its line end; an
empty system prompt stands for the default one; a row over the limit is cut by one rule, and
a response that is cut loses its end. On purpose different: what looks like a control token
in a question or a solution is text. Chapter 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limo_nb.core import records as row_files
from limo_nb.core.settings import ChatSettings, OverLength
from limo_nb.grading.extraction import MARK, split_thought
from limo_nb.inference import chat_prompt
from limo_nb.inference.budget_forcing import before_last_box
from limo_nb.inference.chat import Piece, filled, piece_ids, prompt_ids, turns_of
from limo_nb.inference.templates import DEFAULT_CHAT, Reply, ask_turns, reply, system_place
from limo_nb.problems.reading import ChainRows, read_chains
from limo_nb.problems.replies import IN_TEXT

IGNORED = -100  # label of a token without loss
COLUMNS = ("question", "solution")
THOUGHT = "reasoning"  # the column of a row's thought, where it has one
ON = {"thinking": "on"}
# What became of the solutions, in the words of `EncodedRows.manner`.
AS_TEXT, AS_THOUGHT = "chain{s} written as text", "chain{s} written as thought and conclusion"
GIVEN, KEPT = "thought{s} in the template's place", "thought{s} left in the text"


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
    manner: str = ""  # in one line, what the solutions became and why

    @property
    def lengths(self) -> list[int]:
        """Tokens per row."""
        return [len(row.ids) for row in self.rows]

    @property
    def cut(self) -> list[int]:
        """Numbers of the rows that were cut at the limit."""
        gone = set(self.dropped)
        return [long.row for long in self.over if long.row not in gone]


def read_training_rows(
    file: Path, columns: Mapping[str, str] | None = None, broken: list[str] | None = None
) -> ChainRows:
    """The chains of a file to train on; those that their rows mark as wrong are left out.

    Raises ValueError that names every broken row by its line or number, up to ten; with a
    list `broken`, they are put there and left out.
    """
    faults: list[str] = []
    found = read_chains(row_files.read_records(file, faults), columns, faults=faults)
    if broken is not None and found.rows:
        broken += faults
    elif faults or not found.rows:
        raise ValueError(_complaint(faults))
    for row in found.rows:
        row.pop(THOUGHT, None)  # a switch such as "on": a thought is in its chain now
    return found


def encode(
    rows: Iterable[Mapping],
    tokenizer: Any,
    system: str | None,
    max_tokens: int,
    over_length: OverLength = "cut",
    places: Sequence[str] | None = None,
    chat: ChatSettings = DEFAULT_CHAT,
) -> EncodedRows:
    """`rows` (question, solution, perhaps reasoning) in the chat format of `tokenizer`.

    Each at most `max_tokens` long: a longer row is cut as the paper's set-up did (`shares`),
    or dropped. `places` says how messages name each row. Raises ValueError that names the
    rows without a question or a solution, those whose thought cannot be placed, and those
    of which no response is left.
    """
    made, over, dropped, faults = [], [], [], []
    kinds: Counter[str] = Counter()
    for number, row in enumerate(rows):
        fault = row_fault(row)
        prompt: list[int] = []
        response: list[int] = []
        if not fault:
            try:
                prompt, response, kind = row_parts(row, tokenizer, system, chat)
            except UnplacedThought as error:
                fault = str(error)
        if not fault:
            kinds[kind] += 1
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
    return EncodedRows(made, over, dropped, _manner(kinds, chat))


class UnplacedThought(ValueError):
    """A row's thought cannot be written as the template and the settings want it."""


def row_parts(
    row: Mapping, tokenizer: Any, system: str | None, chat: ChatSettings = DEFAULT_CHAT
) -> tuple[list[int], list[int], str]:
    """(token ids of the prompt, of the response, what became of the solution).

    The response is encoded apart from the prompt, as it will be at inference, and what
    looks like a control token in it stays text. Raises UnplacedThought.
    """
    asked = chat_prompt(row["question"], system)
    turns, _ = turns_of(tokenizer, asked, chat)
    form = reply(tokenizer, turns, chat)
    thought, answer, kind = _said(row, form, chat)
    layout = form.plain
    if form.thinking and thought is not None:
        # Of an empty thought the template writes what it writes without one.
        layout = form.thinking if thought.strip() else form.plain
        _refuse_marks((thought, answer), form.thinking)
    elif kind == KEPT and (
        form.thought_is_over or reply(tokenizer, turns, chat.model_copy(update=ON)).thinking
    ):
        raise UnplacedThought("it has a thought, and the prompt no place: set chat.thinking=on")
    elif thought is not None:
        answer = IN_TEXT.format(thought=thought.strip(), answer=answer.strip())
    texts = {"thought": Piece(thought or "", "model"), "answer": Piece(answer, "model")}
    response = piece_ids(tokenizer, filled(layout, texts))
    return prompt_ids(tokenizer, asked, chat), response, kind


def _said(row: Mapping, form: Reply, chat: ChatSettings) -> tuple[str | None, str, str]:
    """(thought or None, the text behind it, what became of the solution) of a row."""
    apart, answer, off = row.get(THOUGHT), row["solution"], chat.thinking == "off"
    try:
        inside, behind = split_thought(answer)
    except ValueError as error:
        if form.thinking or apart or off:
            raise UnplacedThought(str(error)) from None
        return None, answer, KEPT
    if apart and inside is not None:
        raise UnplacedThought(f"it has a column {THOUGHT} and a thought in its solution")
    if off and (apart or (inside or "").strip()):
        raise UnplacedThought(
            "it has a thought, and chat.thinking is off: set it to auto or on"
        )
    if apart:
        return apart, answer, GIVEN if form.thinking else KEPT
    if inside is not None and (form.thinking or off):
        return None if off else inside.strip(), behind.strip(), AS_TEXT if off else GIVEN
    if inside is not None:
        return None, answer, KEPT
    return (*_concluded(answer), AS_THOUGHT) if form.chains_think else (None, answer, AS_TEXT)


def _concluded(chain: str) -> tuple[str, str]:
    """(thought, conclusion) of a chain: cut before the line of its last box, or last line."""
    thought = before_last_box(chain)
    conclusion = chain[len(thought) :].strip()
    if not conclusion:
        thought, _, conclusion = chain.strip().rpartition("\n")
    return thought, conclusion


def _refuse_marks(texts: Iterable[str], layout: Iterable[Any]) -> None:
    """Raise where a text spells a mark of the template: the thought would end there."""
    written = "".join(part for part in layout if isinstance(part, str))
    marks = {mark[0] for text in texts for mark in MARK.finditer(text)}
    if found := [mark for mark in sorted(marks) if mark in written]:
        raise UnplacedThought(f"{found[0]} stands inside of its thought or behind it")


def _manner(kinds: Counter[str], chat: ChatSettings) -> str:
    told = ", ".join(f"{n} {kind.format(s='s' * (n != 1))}" for kind, n in kinds.most_common())
    why = {
        "auto": "as the template itself does",
        "on": "a chain is a thought",
        "off": "no thoughts",
    }
    return f"{told} (chat.thinking={chat.thinking}: {why[chat.thinking]})"


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
    if not isinstance(row.get(THOUGHT, ""), str | None):
        return f"{THOUGHT} is {row[THOUGHT]!r:.40}, and no text"
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


def closing_ids(tokenizer: Any, chat: ChatSettings = DEFAULT_CHAT) -> list[int]:
    """What the template writes after a response: `<|im_end|>` and a line end for Qwen."""
    ask = ask_turns(system_place(tokenizer, chat) == "system")
    return tokenizer(reply(tokenizer, ask, chat).end, add_special_tokens=False)["input_ids"]
