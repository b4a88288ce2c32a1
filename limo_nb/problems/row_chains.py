"""The chains of one record: where they may stand, their thoughts and what is said of them.

Chapter 3; see `reader`, which adds question and reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from limo_nb.problems.dialects import GRADES_OF, NAMES, THOUGHTS_OF, bare_name, taught
from limo_nb.problems.replies import (
    IN_TEXT,
    SWITCHES,
    as_marks,
    is_brief,
    is_turn,
    mark_of,
    opened,
    parts_of,
    replies_in,
    thought_in,
    turn_of,
    turns_or,
)
from limo_nb.problems.row_columns import Columns, FoundValue, agreed, names_of


@dataclass(frozen=True)
class ReadChain:
    """One answer to a question, with its thought in marks where it has one."""

    text: str
    correct: bool | None = None  # as the row says; None: it does not

    @property
    def thought(self) -> str | None:
        """What stands between its marks of thinking; None where they do not end."""
        return parts_of(self.text)[0]


class ChainColumns(Columns):
    """Looks for chains: several in a column, by teacher, in a conversation, alone."""

    def __init__(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        """Of `record`, with `columns` that were named."""
        super().__init__(record, columns)
        self.grades: list[bool | None] | None = None  # what was said beside each chain
        self.thoughts: FoundValue | None = None  # several, apart from their chains
        self.blanks: list[int] = []  # places of empty generations, whose marks go with them
        self.options: list[str] = []  # of a question with several
        self.turns: list[tuple[str, Any, Mapping]] = []  # of a conversation, its system's apart

    def _conversation(self) -> tuple[FoundValue | None, list[tuple[str, Any, Mapping]]]:
        """The first column of turns, and the turns: (role, what is said, the turn)."""
        for what in ("question", "chain"):
            for group in self._groups(what):
                for found in group:
                    turns = opened(found.value)
                    if isinstance(turns, list) and turns and all(map(is_turn, turns)):
                        return found, _joined_channels([turn_of(turn) for turn in turns])
        return None, []

    def _check_turns(self) -> None:
        """Raise ValueError for a conversation that is more than a question and a reply."""
        roles = [role for role, _, _ in self.turns]
        if roles not in (["user"], ["user", "assistant"], ["assistant"]):
            raise ValueError(
                "expected one question and one solution, found the turns "
                + (", ".join(roles) or "(none)")
            )

    def _thought(self) -> FoundValue | None:
        """A column with the thought apart; switches such as "on" are none."""
        for group in self._groups("thought"):
            for found in group:
                value = opened(found.value)
                if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
                    self.thoughts = FoundValue(found.place, value)
                    value = "\n".join(value)
                if isinstance(value, str) and bare_name(value) not in SWITCHES:
                    inside, behind = parts_of(value)
                    alone = inside is not None and not behind.strip()
                    return FoundValue(found.place, inside if alone else value)
        return None

    def _chains(
        self, turns_place: FoundValue | None, thought: FoundValue | None
    ) -> list[ReadChain]:
        """The chains beside a `solution`: the first way in which there are some."""
        ways: tuple[Callable[[], list[str]], ...] = (
            self._several, self._taught, lambda: self._replied(turns_place), self._single,
        )  # fmt: skip
        for way in ways:
            if "chain" in self.columns and way != self._single:
                continue
            texts = way()
            if texts:
                return [ReadChain(text) for text in self._with_thoughts(texts, thought)]
        return []

    def _with_thoughts(self, texts: list[str], thought: FoundValue | None) -> list[str]:
        """`texts` with the thoughts that their row has apart: one each, or one for one."""
        if thought is None or self.took["chain"] == thought.place:
            return texts
        several = self.thoughts
        if several is not None and len(several.value) == len(texts):
            pairs = zip(several.value, texts, strict=True)
            return [self._thinking(FoundValue(several.place, own), text) for own, text in pairs]
        return [self._thinking(thought, texts[0])] if len(texts) == 1 else texts

    def _taught(self) -> list[str]:
        """The teachers' columns, unless they have answers alone, and another one a chain."""
        kept = dict(self.took), set(self.used)
        texts = self._teachers()
        if texts and all(map(is_brief, texts)):
            self.took, self.used, self.grades = *kept, None
            return self._single() or self._teachers()
        return texts

    def _thinking(self, thought: FoundValue, text: str) -> str:
        """`text` with the thought that its row has apart, unless it is in it already."""
        if parts_of(text)[0] is not None or thought.value.strip() in text:
            return text
        self._take("thought", thought)
        if parts_of(thought.value)[0] is not None:  # a whole reply
            return thought.value
        return IN_TEXT.format(thought=thought.value.strip("\n"), answer=text)

    def _several(self) -> list[str]:
        """Generations in one column."""
        for group in self._groups("chains"):
            lists = [(found, self._listed(found)) for found in group]
            lists = _wordy([(found, texts) for found, texts in lists if texts])
            if lists:
                found, texts = agreed("chain", lists)
                self._take("chain", found)
                items = opened(found.value)
                if isinstance(items, list) and all(isinstance(i, Mapping) for i in items):
                    marks = [_own_mark(item) for item in items if replies_in(item)]
                    if len(marks) == len(texts) and any(mark is not None for mark in marks):
                        self.grades, self.took["correct"] = marks, found.place
                return texts
        return []

    def _listed(self, found: FoundValue) -> list[str]:
        """The replies in a list; choices may be options, and code anything, instead."""
        items, name = opened(found.value), bare_name(found.place.rpartition(".")[2])
        if name == "choices":
            items = [item for item in items if isinstance(item, Mapping)
                     and ("message" in item or "text" in item)]  # fmt: skip
        if name == "code" and not (isinstance(items, list) and "pred" in self.record):
            return []
        self.blanks = [
            place for place, item in enumerate(items if isinstance(items, list) else [])
            if not replies_in(item)
        ]  # fmt: skip
        return replies_in(items)

    def _teachers(self) -> list[str]:
        """Columns by teacher or number, such as `r1_solution_1`, perhaps with a thought."""
        texts, places = [], []
        names = {bare_name(name): name for name in names_of(self.record)}
        for name, who, number in taught(tuple(names.values())):
            value = self.record[name]
            if not isinstance(value, str) or not value.strip():
                continue
            for kind in THOUGHTS_OF:
                column = names.get(bare_name(f"{who}{kind}{number}"))
                if column and isinstance(self.record[column], str) and self.record[column]:
                    value = IN_TEXT.format(
                        thought=self.record[column].strip("\n"), answer=value
                    )
                    self.took["thought"] = column
                    self.used.add(column)
                    break
            texts.append(value)
            places.append((name, who))
        if texts:
            self.took["chain"] = ", ".join(name for name, _ in places)
            self.used |= {name for name, _ in places}
            grades = [self._grade(who, names) for _, who in places]
            if any(grade is not None for grade in grades):
                self.grades = grades
        return texts

    def _grade(self, who: str, names: Mapping[str, str]) -> bool | None:
        for kind in GRADES_OF:
            column = names.get(bare_name(who + kind))
            if column:
                self.took["correct"] = column
                self.used.add(column)
                return mark_of(self.record[column])
        return None

    def _replied(self, turns_place: FoundValue | None) -> list[str]:
        """The assistant's turn of a conversation."""
        for role, text, turn in self.turns:
            if role == "assistant" and turns_place is not None:
                self._check_turns()
                thought = thought_in(turn)
                if thought and parts_of(text)[0] is None:
                    self.took["thought"] = f"{turns_place.place} (apart)"
                    text = IN_TEXT.format(thought=thought.strip("\n"), answer=text)
                if text:
                    self._take("chain", turns_place)
                    return [text]
        return []

    def _single(self) -> list[str]:
        """A response in a column of its own."""
        for group in self._groups("chain"):
            texts = []
            for found in group:
                value = replies_in(turns_or(found.value))
                if found.place == "text" and self._solution()[0]:
                    continue  # it may be any text
                if value and self.took.get("question", "").split()[:1] != [found.place]:
                    texts.append((found, value))
            texts = _wordy(texts)
            if texts:
                found, value = agreed("chain", texts)
                self._take("chain", found)
                return value
        for group in self._groups("answer"):  # LUFFY's target is a turn
            for found in group:
                turns = opened(found.value)
                if isinstance(turns, list) and turns and all(map(is_turn, turns)):
                    self._take("chain", found)
                    return replies_in(turns)
        return []

    def _solution(self) -> tuple[str, str]:
        """(solution of the source, where it stands)."""
        for group in self._groups("solution"):
            texts = [(found, replies_in(found.value)) for found in group]
            texts = [(found, own) for found, own in texts if own]
            if texts:
                found, own = agreed("solution", texts)
                if found.place in self.record:
                    self.used.add(found.place)
                return own[0], found.place
        return "", ""

    def _marked(self, chains: list[ReadChain]) -> tuple[ReadChain, ...]:
        """`chains` with what the row says of each."""
        grades = self.grades
        every = (found for group in self._groups("correct") for found in group)
        for found in every if grades is None else ():
            value = as_marks(found.value)
            if bare_name(found.place) == "score" and not _are_bools(value):
                continue
            marks = [mark_of(mark) for mark in value]
            if len(marks) == len(chains) + len(self.blanks):
                marks = [own for n, own in enumerate(marks) if n not in self.blanks]
            if len(marks) == len(chains) and any(mark is not None for mark in marks):
                self._take("correct", found)
                grades = marks
                break
        if grades is None or len(grades) != len(chains):
            return tuple(chains)
        return tuple(ReadChain(c.text, mark) for c, mark in zip(chains, grades, strict=True))


def _joined_channels(turns: list[tuple[str, Any, Mapping]]) -> list[tuple[str, Any, Mapping]]:
    """`turns` in which an analysis and what follows it are one turn (Harmony's channels)."""
    found: list[tuple[str, Any, Mapping]] = []
    for role, text, turn in turns:
        if found and role == "assistant" and found[-1][2].get("channel") == "analysis":
            turn = {**turn, "thinking": found.pop()[1]}
        found.append((role, text, turn))
    return found


def _own_mark(item: Mapping[str, Any]) -> bool | None:
    """What a generation says of itself."""
    known = {name for group in NAMES["correct"][:1] for name in group}
    marks = (mark_of(own) for name, own in item.items() if bare_name(str(name)) in known)
    return next(marks, None)


def _are_bools(values: list[Any]) -> bool:
    return all(isinstance(value, bool) for value in values)


def _wordy(found: list[tuple[FoundValue, list[str]]]) -> list[tuple[FoundValue, list[str]]]:
    """Those of `found` that are more than answers, if any is: the others come out of it."""
    long = [pair for pair in found if not all(map(is_brief, pair[1]))]
    return long or found
