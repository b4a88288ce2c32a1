"""One reader of rows as people have them: question, reference and chains (chapter 3).

In: a record of any file. Out: its parts, and where each of them was found. Every command
reads with it. A part may lie deeper than a column: in a turn of a conversation, under one of
`dialects.WRAPPERS`, in JSON in a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from limo_nb.grading.extraction import final_answer
from limo_nb.problems.dialects import COLUMNS_OF, bare_name, places_of, taught
from limo_nb.problems.replies import (
    MARK,
    alone_in,
    ground_truth,
    is_brief,
    is_prose,
    is_turn,
    mark_of,
    only_answer,
    opened,
    options_in,
    parts_of,
    repeats,
    role_of,
    said_in,
    without_instruction,
)
from limo_nb.problems.row_chains import ChainColumns, ReadChain
from limo_nb.problems.row_columns import (
    WRAPPING,
    FoundValue,
    agreed,
    is_empty,
    names_of,
    same_answer,
    shorter,
)

TOLD = ("question", "answer", "chain")
BEFORE = ("body", "context", "passage")  # what a question may need in front
OPTIONS = ("options", "choices")


@dataclass(frozen=True)
class ReadRow:
    """What a record says, whatever it calls it."""

    question: str | None = None
    answer: Any = None  # the reference, of its own type; None: the row has none
    chains: tuple[ReadChain, ...] = ()
    solution: str = ""  # that the source has beside the chains, or as the only one
    id: Any = None
    system: str | None = None
    source: Any = None
    subject: Any = None
    level: Any = None
    took: Mapping[str, str] = field(default_factory=dict)  # what → where it was found
    used: frozenset[str] = frozenset()  # the record's columns that question to system are

    def told(self) -> str:
        """One line: where question, answer and chains were found."""
        parts = [f"{what}: {self.took.get(what, 'none')}" for what in TOLD]
        counted = len(self.chains)
        marked = [chain.correct for chain in self.chains if chain.correct is not None]
        if counted > 1:
            parts[-1] += f" ({counted} a row)"
        if marked:
            parts.append(f"correct: {self.took['correct']}")
        if any(chain.thought is not None for chain in self.chains):
            parts.append(f"thought: {self.took.get('thought', 'in marks')}")
        return "; ".join(parts)


class RowReader:
    """Reads rows; `columns` (what → the column's name) goes before the usual names."""

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        """Raises ValueError for what is not in `COLUMNS_OF`."""
        self.columns = dict(columns or {})
        unknown = [what for what in self.columns if what not in COLUMNS_OF]
        if unknown:
            raise ValueError(f"no {unknown[0]!r}: columns may name {', '.join(COLUMNS_OF)}")
        self.seen: set[str] = set()  # of `columns`, what some row had

    def read(self, record: Any, place: str) -> ReadRow:
        """What `record` says. Raises ValueError that names the place where it is unclear."""
        try:
            reading = _Reading(_mapping(record), self.columns)
            row = reading.row()
            self.seen |= reading.seen
            return row
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{place}: malformed ({type(error).__name__}: {error})") from None
        except ValueError as error:
            raise type(error)(f"{place}: {error}") from None

    def check_seen(self, source: str) -> None:
        """Raise ValueError where a column that was named is in no row of `source`."""
        if unseen := [self.columns[what] for what in self.columns if what not in self.seen]:
            raise ValueError(f"{source}: no row has {' or '.join(unseen)}")

    def has(self, record: Any, what: str) -> bool:
        """Whether `record` has a column for `what`, though it may be empty."""
        named = self.columns.get(what)
        names = names_of(record) if isinstance(record, Mapping) else ()
        return named in names if named else bool(places_of((names,))[what])

    def kept(self, record: Any, wanted: Iterable[str] = tuple(COLUMNS_OF)) -> Any:
        """`record` without the columns in which nothing of `wanted` is looked for."""
        if not isinstance(record, Mapping):
            return record
        names = names_of(record)
        places, free = places_of((names,)), [n for n in wanted if n not in self.columns]
        looked = {name for what in free for group in places[what] for _, name in group}
        looked |= {column.partition(".")[0] for column in self.columns.values()}
        looked |= {name for name in names if bare_name(name) in WRAPPING}
        if "chain" in free:
            looked |= {name for name, _, _ in taught(names)}
        return {name: record[name] for name in record if name in looked}


def _mapping(record: Any) -> Mapping[str, Any]:
    """`record` as a mapping; a list of turns, or turns by number, is a conversation."""
    if isinstance(record, list | tuple) and record and all(map(is_turn, record)):
        return {"conversations": list(record)}
    if isinstance(record, Mapping):
        if is_turn(record) and "role" in record and role_of(record) == "assistant":
            return {"response": dict(record)}
        if record and all(str(name).isdigit() for name in record):
            turns = [record[name] for name in sorted(record, key=lambda name: int(str(name)))]
            if all(map(is_turn, turns)):
                return {"conversations": turns}
        return record
    raise ValueError(f"expected a mapping, found {type(record).__name__}")


class _Reading(ChainColumns):
    """One record, being read."""

    def row(self) -> ReadRow:
        """Everything, question first: what is left over decides what the rest is."""
        turns_place, self.turns = self._conversation()
        if turns_place and turns_place.place in self.record:
            self.used.add(turns_place.place)
        question, system = self._question(turns_place)
        thought = self._thought()
        chains = self._chains(turns_place, thought)
        answer, chains, solution = self._answer(chains, thought)
        if turns_place and self.took.get("chain") == turns_place.place:
            question = self._paired(turns_place, question)  # what this reply was given to
        elif question and not chains and self.took["question"].startswith("prompt"):
            question = self._bare(question)
        simple = {what: self._first(what) for what in ("id", "source", "subject", "level")}
        return ReadRow(
            question, answer, self._marked(chains), solution, system=system, took=self.took,
            used=frozenset(self.used), **simple,
        )  # fmt: skip

    def _question(self, turns_place: FoundValue | None) -> tuple[str | None, str | None]:
        """(question, system prompt)."""
        said = []
        while self.turns and self.turns[0][0] == "system":
            said.append(self.turns.pop(0)[1])
        given = self._first("system")
        system = str(given) if given else "\n\n".join(said) or None
        for group in self._groups("question"):
            texts = []
            for found in group:
                text = self._asked(found, turns_place)
                if text is not None:
                    texts.append((found, text))
            if texts:
                found, text = agreed("question", texts, shorter)
                self._take("question", found)
                return self._with_input(found, text), system
        return None, system

    def _paired(self, turns_place: FoundValue, question: str | None) -> str | None:
        """The user's turn of the conversation whose reply is the chain, if it has one."""
        asked = [text for role, text, _ in self.turns if role == "user"]
        if "question" in self.columns or not asked:
            return question
        self.took["question"] = turns_place.place
        return asked[0]

    def _asked(self, found: FoundValue, turns_place: FoundValue | None) -> str | None:
        """The question in `found`: its text, or the user's turn."""
        if turns_place is not None and found.place == turns_place.place:
            self._check_turns()
            return next((text for role, text, _ in self.turns if role == "user"), None)
        value = opened(found.value)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        if isinstance(value, list) and value and all(map(is_turn, value)):
            return next((said_in(turn) for turn in value if role_of(turn) == "user"), None)
        if isinstance(found.value, str):
            return found.value
        if isinstance(value, int | float | bool | list | Mapping):
            raise ValueError(f"the question in {found.place} is not text")
        return None

    def _with_input(self, found: FoundValue, text: str) -> str:
        """A question with what stands beside it: Alpaca's input, a passage, options."""
        if self.record.get("history"):
            raise ValueError("has a history: a chain has one question and one solution")
        if "question" in self.columns:
            return text
        beside = {bare_name(name): name for name in names_of(self.record)}
        if bare_name(found.place) == "instruction" and "input" in beside:
            more = self.record[beside["input"]]
            self.used |= {beside["input"], *({"history"} & set(self.record))}
            return text if is_empty(more) else f"{text}\n{more}"
        for name in (beside[part] for part in BEFORE if part in beside):
            passage = self.record[name]
            if isinstance(passage, str) and passage.strip() and passage.strip() not in text:
                text = f"{passage.strip()}\n{text}"
                self.took["question"] += f" with {name}"
        for name in (beside[part] for part in OPTIONS if part in beside):
            options = options_in(self.record[name])
            if options and not all(option in text for option in options):
                lines = [f"{chr(65 + n)}. {own}" for n, own in enumerate(options)]
                self.took["question"] += f" with {name}"
                self.options = options
                return "\n".join([text, *lines])
        return text

    def _bare(self, question: str) -> str:
        """A prompt without the instruction that reinforcement learning writes round it."""
        found = without_instruction(question)
        if found == question:
            return question
        self.took["question"] += " (without its instruction)"
        return found

    # ------------------------------------------------------------ answer
    def _answer(
        self, chains: list[ReadChain], thought: FoundValue | None
    ) -> tuple[Any, list[ReadChain], str]:
        """(reference, chains, solution): a solution is a chain where there is no other."""
        answer, worked = self._reference(bool(chains))
        if not chains and not worked:
            worked = self._beside_reference()
        solution, told = self._solution()
        replied = [chain.text for chain in chains]
        ground = next((g for *_, turn in self.turns if (g := ground_truth(turn))), None)
        if answer is None and ground:
            answer, self.took["answer"] = ground, "conversations (ground_truth)"
        if answer is None and solution and not any(repeats(solution, text) for text in replied):
            answer = final_answer(solution, boxed_only=True)
            if answer is None and is_brief(solution):
                answer = solution.strip()
            if answer is not None:
                self.took["answer"] = (
                    told if answer == solution.strip() else f"{told} (its end)"
                )
        alone = worked or solution
        if not chains and thought is not None:
            # A reply whose thought stands apart; a short one is the reference as well.
            text = alone or ("" if answer is None else str(answer))
            if answer is not None and not alone and not is_brief(str(answer)):
                self.took.pop("answer", None)
                answer = None
            chains = [ReadChain(self._thinking(thought, text))]
            self.took["chain"] = self.took.get("chain") or self.took.get("answer") or told
        elif not chains and worked:
            chains, self.took["chain"] = [ReadChain(worked)], self.took["worked"]
            if self.took["worked"] in self.record:
                self.used.add(self.took["worked"])
        elif not chains and solution and not only_answer(solution):
            chains, self.took["chain"] = [ReadChain(solution)], told
        return answer, chains, worked or solution

    def _reference(self, chained: bool) -> tuple[Any, str]:
        """(reference, the solution before it), of a column that may hold both.

        A text that is a whole solution is no reference: the next group may have one.
        """
        worked, place = "", ""
        for group in self._groups("answer"):
            values = []
            for found in group:
                value = alone_in(found.value)
                turns = isinstance(value, list | Mapping) and (
                    is_turn(value) or any(map(is_turn, value))
                )
                if self._may_be_reference(found, value, chained) and not turns:
                    values.append((found, value))
            if not values:
                continue
            found, value = agreed("answer", values, same_answer)
            answer, before = self._split(found, value)
            worked, place = worked or before, place or (found.place if before else "")
            if answer is not None:
                if place:
                    self.took["worked"] = place
                return self._lettered(answer), worked
        self.took.pop("answer", None)
        if place:
            self.took["worked"] = place
        return None, worked

    def _beside_reference(self) -> str:
        """A reply in a column `answer`, where another column has the reference."""
        for group in self._groups("answer"):
            for found in group:
                other = isinstance(found.value, str) and not is_brief(found.value)
                if other and found.place != self.took.get("answer"):
                    self.took["worked"] = found.place
                    before, mark, _ = found.value.rpartition(MARK)
                    return before.rstrip("\n") if mark else found.value
        return ""

    def _may_be_reference(self, found: FoundValue, value: Any, chained: bool) -> bool:
        """Whether a column of references has one: a label may be many other things."""
        if self.took.get("chain") == found.place:
            return False
        if bare_name(found.place.rpartition(".")[2]) != "label":
            return True
        if isinstance(value, bool | list) or "steps" in self.record:
            return False
        return not (chained and mark_of(value) is not None)

    def _lettered(self, answer: Any) -> Any:
        """A number of an option, counted from 0, as its letter."""
        options = self.options
        if isinstance(answer, int) and options and str(answer) not in options:
            return chr(65 + answer) if 0 <= answer < len(options) else answer
        return answer

    def _split(self, found: FoundValue, value: Any) -> tuple[Any, str]:
        """GSM8K's column, with the solution in front; and a whole solution with a box."""
        self._take("answer", found)
        if not isinstance(value, str):
            return value, ""
        before, mark, behind = value.rpartition(MARK)
        if mark and (not before or is_brief(behind)):
            return behind.strip(), before.rstrip("\n")
        if parts_of(value)[0] is not None:
            return None, value
        boxed = final_answer(value, boxed_only=True)
        if boxed is not None and not only_answer(value):
            return boxed, value
        if boxed is None and is_prose(value):
            return None, value
        return boxed if boxed is not None else value, ""
