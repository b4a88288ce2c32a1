"""One reader of rows as people have them: question, reference and chains (chapter 3).

In: a record of any file. Out: its parts, and where each of them was found. Every command
reads with it. A part may lie deeper than a column: in a turn of a conversation, under one of
`dialects.WRAPPERS`, in JSON in a string.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limo_nb.grading.extraction import final_answer
from limo_nb.problems.dialects import (
    COLUMNS_OF,
    GRADES_OF,
    NAMES,
    THOUGHTS_OF,
    WRAPPERS,
    bare_name,
    places_of,
    taught,
)  # fmt: skip
from limo_nb.problems.replies import (
    IN_TEXT,
    MARK,
    SWITCHES,
    alone_in,
    end_of,
    ground_truth,
    is_brief,
    is_prose,
    is_turn,
    listed,
    mark_of,
    only_answer,
    opened,
    options_in,
    parts_of,
    repeats,
    replies_in,
    role_of,
    said_in,
    thought_in,
    turn_of,
    turns_or,
    without_instruction,
)


class Unclear(ValueError):
    """Two columns have an equal claim and say different things."""


@dataclass(frozen=True)
class ReadChain:
    """One answer to a question, with its thought in marks where it has one."""

    text: str
    correct: bool | None = None  # as the row says; None: it does not

    @property
    def thought(self) -> str | None:
        """What stands between its marks of thinking; None where they do not end."""
        return parts_of(self.text)[0]


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


TOLD = ("question", "answer", "chain")
BEFORE = ("body", "context", "passage")  # what a question may need in front
OPTIONS = ("options", "choices")
# What a row of ours has in the place of the columns where it was found.
REPLACED = {"question", "answer", "chain", "solution", "thought", "correct", "system"}


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
        names = _names(record) if isinstance(record, Mapping) else ()
        return named in names if named else bool(places_of((names,))[what])

    def kept(self, record: Any, wanted: Iterable[str] = tuple(COLUMNS_OF)) -> Any:
        """`record` without the columns in which nothing of `wanted` is looked for."""
        if not isinstance(record, Mapping):
            return record
        names = _names(record)
        places, free = places_of((names,)), [n for n in wanted if n not in self.columns]
        looked = {name for what in free for group in places[what] for _, name in group}
        looked |= {column.partition(".")[0] for column in self.columns.values()}
        looked |= {name for name in names if bare_name(name) in _WRAPPING}
        if "chain" in free:
            looked |= {name for name, _, _ in taught(names)}
        return {name: record[name] for name in record if name in looked}


_WRAPPING = {bare_name(name) for name in WRAPPERS}


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


def _names(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in record if isinstance(name, str))


@dataclass(frozen=True)
class _Found:
    """A value that a record has for something."""

    place: str  # as a reader would write it: "messages", "reward_model.ground_truth"
    value: Any


class _Reading:
    """One record, being read."""

    def __init__(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        self.record, self.columns = record, columns
        self.took: dict[str, str] = {}
        self.used: set[str] = set()
        self.seen: set[str] = set()
        self.grades: list[bool | None] | None = None  # what was said beside each chain
        self.thoughts: _Found | None = None  # several, apart from their chains
        self.blanks: list[int] = []  # places of empty generations, whose marks go with them
        self.options: list[str] = []  # of a question with several
        # A row inside a row has its own names; what stands outside goes before.
        self.layers = [("", record)]
        for name, value in record.items():
            if isinstance(name, str) and bare_name(name) in _WRAPPING:
                # A reply may be JSON, and no wrapper.
                inner = value if bare_name(name) == "response" else opened(value)
                while isinstance(inner, Mapping):
                    self.layers.append((f"{name}.", inner))
                    name, inner = f"{name}.body", opened(inner.get("body"))
        self.places = places_of(tuple(_names(layer) for _, layer in self.layers))

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

    # ------------------------------------------------------------ looking up
    def _groups(self, what: str) -> Iterator[list[_Found]]:
        """What the record has for `what`: a list for each group, empty values left out."""
        if what in self.columns:
            value = self._named(what)
            if value is not None:
                yield [_Found(self.columns[what], value)]
            return
        for group in self.places[what]:
            found = []
            for number, name in group:
                prefix, layer = self.layers[number]
                if not _is_empty(layer[name]):
                    found.append(_Found(prefix + name, layer[name]))
            if found:
                yield found

    def _named(self, what: str) -> Any:
        """The value of the column that was named for `what`, perhaps deeper.

        Not every row has a level, a subject or a source; for the rest, ValueError.
        """
        column, value = self.columns[what], self.record
        parts = [column] if column in self.record else column.split(".")
        for part in parts:
            value = opened(value)
            if not isinstance(value, Mapping) or part not in value:
                if what in ("level", "subject", "source"):
                    return None
                found = ", ".join(map(str, self.record)) or "nothing"
                raise ValueError(f"no {column} (found: {found})")
            value = value[part]
        self.seen.add(what)
        return value

    def _first(self, what: str) -> Any:
        """The first value for `what`, whatever it is."""
        for group in self._groups(what):
            return self._take(what, group[0])
        return None

    def _take(self, what: str, found: _Found) -> Any:
        self.took[what] = found.place
        if found.place in self.record and what in REPLACED:
            self.used.add(found.place)
        return found.value

    # ------------------------------------------------------------ question
    def _conversation(self) -> tuple[_Found | None, list[tuple[str, Any, Mapping]]]:
        """The first column of turns, and the turns: (role, what is said, the turn)."""
        for what in ("question", "chain"):
            for group in self._groups(what):
                for found in group:
                    turns = opened(found.value)
                    if isinstance(turns, list) and turns and all(map(is_turn, turns)):
                        return found, _joined_channels([turn_of(turn) for turn in turns])
        return None, []

    def _question(self, turns_place: _Found | None) -> tuple[str | None, str | None]:
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
                found, text = _agreed("question", texts, _shorter)
                self._take("question", found)
                return self._with_input(found, text), system
        return None, system

    def _paired(self, turns_place: _Found, question: str | None) -> str | None:
        """The user's turn of the conversation whose reply is the chain, if it has one."""
        asked = [text for role, text, _ in self.turns if role == "user"]
        if "question" in self.columns or not asked:
            return question
        self.took["question"] = turns_place.place
        return asked[0]

    def _check_turns(self) -> None:
        """Raise ValueError for a conversation that is more than a question and a reply."""
        roles = [role for role, _, _ in self.turns]
        if roles not in (["user"], ["user", "assistant"], ["assistant"]):
            raise ValueError(
                "expected one question and one solution, found the turns "
                + (", ".join(roles) or "(none)")
            )

    def _asked(self, found: _Found, turns_place: _Found | None) -> str | None:
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

    def _with_input(self, found: _Found, text: str) -> str:
        """A question with what stands beside it: Alpaca's input, a passage, options."""
        if self.record.get("history"):
            raise ValueError("has a history: a chain has one question and one solution")
        if "question" in self.columns:
            return text
        beside = {bare_name(name): name for name in _names(self.record)}
        if bare_name(found.place) == "instruction" and "input" in beside:
            more = self.record[beside["input"]]
            self.used |= {beside["input"], *({"history"} & set(self.record))}
            return text if _is_empty(more) else f"{text}\n{more}"
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

    # ------------------------------------------------------------ chains
    def _thought(self) -> _Found | None:
        """A column with the thought apart; switches such as "on" are none."""
        for group in self._groups("thought"):
            for found in group:
                value = opened(found.value)
                if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
                    self.thoughts = _Found(found.place, value)
                    value = "\n".join(value)
                if isinstance(value, str) and bare_name(value) not in SWITCHES:
                    inside, behind = parts_of(value)
                    alone = inside is not None and not behind.strip()
                    return _Found(found.place, inside if alone else value)
        return None

    def _chains(self, turns_place: _Found | None, thought: _Found | None) -> list[ReadChain]:
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

    def _with_thoughts(self, texts: list[str], thought: _Found | None) -> list[str]:
        """`texts` with the thoughts that their row has apart: one each, or one for one."""
        if thought is None or self.took["chain"] == thought.place:
            return texts
        several = self.thoughts
        if several is not None and len(several.value) == len(texts):
            pairs = zip(several.value, texts, strict=True)
            return [self._thinking(_Found(several.place, own), text) for own, text in pairs]
        return [self._thinking(thought, texts[0])] if len(texts) == 1 else texts

    def _taught(self) -> list[str]:
        """The teachers' columns, unless they have answers alone, and another one a chain."""
        kept = dict(self.took), set(self.used)
        texts = self._teachers()
        if texts and all(map(is_brief, texts)):
            self.took, self.used, self.grades = *kept, None
            return self._single() or self._teachers()
        return texts

    def _thinking(self, thought: _Found, text: str) -> str:
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
                found, texts = _agreed("chain", lists)
                self._take("chain", found)
                items = opened(found.value)
                if isinstance(items, list) and all(isinstance(i, Mapping) for i in items):
                    marks = [_own_mark(item) for item in items if replies_in(item)]
                    if len(marks) == len(texts) and any(mark is not None for mark in marks):
                        self.grades, self.took["correct"] = marks, found.place
                return texts
        return []

    def _listed(self, found: _Found) -> list[str]:
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
        names = {bare_name(name): name for name in _names(self.record)}
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

    def _replied(self, turns_place: _Found | None) -> list[str]:
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
                found, value = _agreed("chain", texts)
                self._take("chain", found)
                return value
        for group in self._groups("answer"):  # LUFFY's target is a turn
            for found in group:
                turns = opened(found.value)
                if isinstance(turns, list) and turns and all(map(is_turn, turns)):
                    self._take("chain", found)
                    return replies_in(turns)
        return []

    # ------------------------------------------------------------ answer
    def _answer(
        self, chains: list[ReadChain], thought: _Found | None
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
            found, value = _agreed("answer", values, _same_answer)
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

    def _may_be_reference(self, found: _Found, value: Any, chained: bool) -> bool:
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

    def _split(self, found: _Found, value: Any) -> tuple[Any, str]:
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

    def _solution(self) -> tuple[str, str]:
        """(solution of the source, where it stands)."""
        for group in self._groups("solution"):
            texts = [(found, replies_in(found.value)) for found in group]
            texts = [(found, own) for found, own in texts if own]
            if texts:
                found, own = _agreed("solution", texts)
                if found.place in self.record:
                    self.used.add(found.place)
                return own[0], found.place
        return "", ""

    def _marked(self, chains: list[ReadChain]) -> tuple[ReadChain, ...]:
        """`chains` with what the row says of each."""
        grades = self.grades
        every = (found for group in self._groups("correct") for found in group)
        for found in every if grades is None else ():
            value = listed(found.value)
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


# ---------------------------------------------------------------- several columns
def _is_empty(value: Any) -> bool:
    """Whether a column has nothing: no text, no list, no number (NaN is none)."""
    nan = isinstance(value, float) and value != value
    return nan or value is None or value in ("", [], {})


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


def _wordy(found: list[tuple[_Found, list[str]]]) -> list[tuple[_Found, list[str]]]:
    """Those of `found` that are more than answers, if any is: the others come out of it."""
    long = [pair for pair in found if not all(map(is_brief, pair[1]))]
    return long or found


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(own) for own in value]
    return value.strip() if isinstance(value, str) else value


def _agreed(
    what: str,
    found: Sequence[tuple[_Found, Any]],
    same: Callable[[Any, Any], Any] | None = None,
) -> tuple[_Found, Any]:
    """The one of `found` that is meant. Raises Unclear where two say different things."""
    chosen, value = found[0]
    for other, own in found[1:]:
        if own == value or _stripped(own) == _stripped(value):
            continue
        better = same(value, own) if same else None
        if better is None:
            shown = "; ".join(f"{f.place}: {_short(v)}" for f, v in found)
            raise Unclear(f"which is the {what}? {shown}. Say it: --columns {what}=NAME")
        if better is own:
            chosen, value = other, own
    return chosen, value


def _shorter(one: str, other: str) -> str | None:
    """The shorter of two texts one of which holds the other; None where neither does."""
    a, b = " ".join(one.split()), " ".join(other.split())
    return one if a in b else other if b in a else None


def _same_answer(one: Any, other: Any) -> Any:
    """The shorter of two references that end alike; None where they differ."""
    ends = [end_of(value) for value in (one, other)]
    if ends[0] != ends[1]:
        return None
    return min((one, other), key=lambda value: len(str(value)))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
