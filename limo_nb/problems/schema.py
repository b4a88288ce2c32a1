"""The tables of a pool: what their rows hold, and as which Arrow columns (chapter 3)."""

from __future__ import annotations

from typing import TypedDict, get_type_hints

from datasets import Features, Value


class Question(TypedDict):
    """A row of a file that somebody asks about: a question, with its answer if it has one."""

    id: str  # its own, or "row N", counted from 1
    question: str
    answer: str  # "" where there is none
    row: int  # its number in the file, from 0


class Problem(TypedDict):
    """A row of a pool, whatever its source called the columns."""

    id: str  # the source's name and the row's own, unique in a pool
    question: str
    answer: str  # the reference, as text; "" where the source gives none
    solution: str  # "" where the source gives none
    source: str  # "lab", "math", "gsm8k", …
    subject: str  # "" where the source gives none
    level: int  # difficulty as the source tells it, higher is harder; 0: unknown


class Drop(TypedDict):
    """What left a table, and why."""

    id: str
    reason: str  # such as "near duplicate" or "shares 13 words"
    counterpart: str  # the id of what it repeats, "" if nothing
    overlap: float  # 0 to 1: Jaccard index, or the share of its n-grams that were found
    quoted: float  # the same seen from the counterpart: the share of its n-grams
    passage: str  # the longest passage shared with a benchmark item, in normal form


_KINDS = {str: "string", int: "int64", float: "float64"}


def _columns(schema: type) -> Features:
    """The Arrow columns of a TypedDict."""
    kinds = get_type_hints(schema)
    return Features({name: Value(_KINDS[kind]) for name, kind in kinds.items()})


TEXTS, COLUMNS, DROPPED = _columns(Question), _columns(Problem), _columns(Drop)
