"""Tasks of reasoning-gym: its families, and its `score_answer` as a verifier (chapter 12).

reasoning-gym (Stojanovski et al., 2025; Apache-2.0) draws tasks of over 100 families from a
seed and scores answers to them. It is imported where it is used and not before: that takes
a second, and some families bring dictionaries.

What was found by scoring every family's own answers, those of its other tasks and constant
ones, and by drawing it under two seeds of hashes: `REFUSED` has those that cannot be used,
with the reason. Nine score an answer by executing it, `eval` or sympy's `parse_expr`; here
no text reaches either (`_harmless`).
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from limo_nb.grading.extraction import final_answer
from limo_nb.grading.isolation import Found, in_workers
from limo_nb.grading.verdicts import LONGEST, Verdict

REFUSED = {
    "coin_flip": "takes 0 for every small probability",
    "composite": "is a mixture: name its families",
    "game_of_life_halting": "takes any text for right",
    "puzzle24": "does not look at which numbers an answer uses",
    "syllogism": "has a wrong key: an undistributed middle term counts as valid",
}
NOT_OURS = {  # fields of a family's own configuration that the pool or benchmark decides
    "seed": "pool.seed",
    "size": "pool.size",
}
# Families whose answers the library would evaluate: what may stand in one.
DATA = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}
ARITHMETIC = {"countdown"}
ALGEBRA = {"intermediate_integration", "polynomial_multiplication", "simple_integration"}
FUNCTIONS = set("sin cos tan exp log sqrt asin acos atan sinh cosh tanh Abs pi E".split())
NUMBERS = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Add, ast.Sub, ast.Mult,
           ast.Div, ast.UAdd, ast.USub)  # fmt: skip
FORMULAS = (*NUMBERS, ast.Pow, ast.Name, ast.Load, ast.Call)
NESTED = {"arc_agi", "rearc"}  # compare tuples, which JSON does not have
PAGE = 1000  # tasks of one data set of the library: some families make plans for all of them
LOAD = ["reasoning_gym"]  # what workers have loaded from the start
START = '{"gym": '
WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|texttt)\s*\{([^{}]*)\}")
SIGNS = {r"\rightarrow": "→", r"\to": "→", r"\times": "×", r"\cdot": "*", r"\_": "_",
         r"\%": "%", r"\#": "#", r"\{": "{", r"\}": "}", r"\\": "\n", "$": ""}  # fmt: skip
SIGN = re.compile("|".join(map(re.escape, sorted(SIGNS, key=len, reverse=True))))


# ---------------------------------------------------------------- families
def families() -> list[str]:
    """The families that can be drawn and graded here."""
    return sorted(set(_registered()) - set(REFUSED))


def _registered() -> Mapping[str, Any]:
    try:
        import reasoning_gym  # noqa: F401 # registers its families
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ImportError(
            "reasoning-gym is not installed: pip install reasoning-gym"
        ) from error
    return DATASETS


def checked_config(family: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` for the configuration of `family`, with its `level` resolved.

    `level` is a step of the family's curriculum, from 1; other values replace what it says.
    Raises ValueError for a family, a name or a value that reasoning-gym does not have.
    """
    known = _registered()
    if family in REFUSED:
        raise ValueError(f"the family {family!r} is not offered: it {REFUSED[family]}")
    if family not in known:
        raise ValueError(f"reasoning-gym has no family {family!r}{_near(family, families())}")
    config = known[family][1]
    taken = {field.name for field in fields(config)}
    for name in values:
        if name in NOT_OURS:
            raise ValueError(f"{family}: leave out {name!r}: that is {NOT_OURS[name]}'s")
        if name not in {*taken, "level"}:
            hint = _near(name, [*sorted(taken - set(NOT_OURS)), "level"])
            raise ValueError(f"{family}: no setting {name!r}{hint}")
    given = {**_of_level(family, values.get("level"), taken), **values}
    given.pop("level", None)
    try:
        made = config(**given)
        _same_kinds(family, config(), given)
        made.validate()
    except ValueError:
        raise
    except Exception as error:  # AssertionError by the library's habit, TypeError by accident
        told = str(error) or type(error).__name__
        raise ValueError(f"{family}: {told} (found: {_listed(given)})") from None
    return given


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 3, 0.5)
    shown = (
        f": did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(names)}"
    )
    return shown


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _same_kinds(family: str, usual: Any, given: Mapping[str, Any]) -> None:
    """Raise ValueError for a text where the default is a number, and the like."""
    kinds = {"a switch": bool, "a number": int | float, "text": str, "a list": list | tuple}
    for name, value in given.items():
        default = getattr(usual, name)
        for wanted, kind in kinds.items():
            if isinstance(default, kind):
                fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(
                    default, bool
                )
                if not fits:
                    raise ValueError(f"{family}: {name} is {wanted}, not {value!r}")
                break


def _of_level(family: str, level: Any, taken: set[str]) -> dict[str, Any]:
    """What the curriculum of `family` sets at `level`."""
    from reasoning_gym.factory import CURRICULA

    if level is None:
        return {}
    if family not in CURRICULA:
        raise ValueError(f"{family}: it has no levels: name its own settings instead")
    if not isinstance(level, int) or isinstance(level, bool) or level < 1:
        raise ValueError(f"{family}: level is a whole number from 1, not {level!r}")
    curriculum = CURRICULA[family]()
    highest = max(len(one.levels) for one in curriculum.attributes.values())
    if level > highest:
        raise ValueError(f"{family}: its highest level is {highest}, not {level}")
    curriculum.set_global_level(level - 1)
    made = curriculum.generate_configuration()
    return {name: getattr(made, name) for name in sorted(taken - set(NOT_OURS))}


def draw_task(family: str, config: str, first: int, number: int) -> Found:
    """Task `number` of those that begin at seed `first`; runs in a worker.

    Its question, answer and metadata. All random states are set: a few families draw from
    those of the process. `config` is JSON.
    """
    import numpy as np

    random.seed(first + number)
    np.random.seed(first + number)  # noqa: NPY002 # a family draws from NumPy's own state
    try:
        task = _page(family, config, first + number // PAGE * PAGE)[number % PAGE]
    except (ValueError, IndexError, RuntimeError) as error:  # no such task at this seed
        return None, f"{type(error).__name__}: {str(error)[:80]}"
    return {name: task[name] for name in ("question", "answer", "metadata")}, ""


@lru_cache(20)
def _page(family: str, config: str, seed: int) -> Any:
    """The library's data set, whose task n is drawn from `seed` + n."""
    dataset, settings = _registered()[family]
    return dataset(settings(**json.loads(config), seed=seed, size=PAGE))


# ---------------------------------------------------------------- references
def gym_reference(
    family: str, config: Mapping[str, Any], answer: str | None, metadata: Mapping[str, Any]
) -> str:
    """A task as text for the column `answer`: all that its family needs to score one."""
    return json.dumps(
        {"gym": family, "config": config, "answer": answer, "metadata": metadata},
        ensure_ascii=False,
    )


def is_gym(reference: str) -> bool:
    """Whether `reference` is one of `gym_reference`."""
    return isinstance(reference, str) and reference.startswith(START)


def told_answer(reference: str) -> str:
    """The answer in a reference, for people; "" where any answer that solves it is right."""
    return str(json.loads(reference)["answer"] or "")


@lru_cache(1000)
def _entry(reference: str) -> dict[str, Any]:
    try:
        entry = json.loads(reference)
        family, config, metadata = entry["gym"], entry["config"], dict(entry["metadata"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'a reference of reasoning-gym is {{"gym": FAMILY, "config": …, "answer": …, '
            f'"metadata": …}} as JSON, not {reference[:80]!r} ({error})'
        ) from None
    return {"gym": family, "config": config, "answer": entry.get("answer"),
            "metadata": _tuples(metadata) if family in NESTED else metadata}  # fmt: skip


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


# ---------------------------------------------------------------- the verifier
@dataclass(frozen=True)
class Gym:
    """Answers to tasks of reasoning-gym; the reference is that of `gym_reference`.

    The answer is found as in mathematics (`final_answer`: a box, a tag, a sentence that
    states it). It is right if its family scores it 1, the library's highest: the lower
    ones that some families give, for a form or for a part, are not right. Scored in worker
    processes with a hard limit; what is not decided within it is None.
    """

    workers: int = 2
    seconds: float = 5.0  # of processor time for one answer
    boxed_only: bool = False

    def verify(self, references: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """Whether the answers solve their tasks."""
        if len(references) != len(responses):
            raise ValueError(f"{len(references)} references for {len(responses)} responses")
        for reference in dict.fromkeys(references):
            _entry(reference)
        spans = [final_answer(response, self.boxed_only) for response in responses]
        rows = [
            (reference, span)
            for reference, span in zip(references, spans, strict=True)
            if span is not None and len(span) <= max(LONGEST, 2 * len(reference))
        ]
        scored = in_workers(score_task, rows, self.workers, self.seconds, LOAD)
        found = dict(zip(rows, scored, strict=True))
        return [_verdict(pair, found) for pair in zip(references, spans, strict=True)]


def _verdict(pair: tuple[str, str | None], found: Mapping[tuple, Found]) -> Verdict:
    span = pair[1]
    if span is None:
        return Verdict(False, None, "no answer")
    if pair not in found:
        return Verdict(None, span[:LONGEST], f"answer of {len(span)} characters")
    points, why = found[pair]
    if points is None:
        return Verdict(None, span, why)
    return Verdict(points >= 1, span, why or f"scored {points:.4g}")


def score_task(reference: str, span: str) -> Found:
    """The points of an answer, 0 to 1, with a remark; runs in a worker."""
    entry = _entry(reference)
    best, remark = 0.0, ""
    for said in dict.fromkeys([span.strip(), plain_text(span)]):
        answer = _harmless(entry["gym"], said, entry)
        if answer is None:
            remark = "no answer of this form"
            continue
        try:
            points = float(
                _scorer(entry["gym"], _key(entry["config"])).score_answer(answer, entry)
            )
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # of a family, on an answer that its author did not foresee
            remark = f"{type(error).__name__} in score_answer"
            continue
        best, remark = (points, "") if points >= best else (best, remark)
    return best, remark


def plain_text(span: str) -> str:
    """An answer without the signs that TeX puts around plain text."""
    return SIGN.sub(lambda sign: SIGNS[sign[0]], WRAPPED.sub(r"\1", span)).strip()


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


@lru_cache(100)
def _scorer(family: str, config: str) -> Any:
    dataset, settings = _registered()[family]
    return dataset(settings(**json.loads(config), seed=0))


# ---------------------------------------------------------------- nothing is executed
def _harmless(family: str, said: str, entry: Mapping[str, Any]) -> str | None:
    """`said`, in a form that its family may evaluate; None where there is none."""
    if family in ARITHMETIC:
        return _rewritten(said, NUMBERS)
    if family in ALGEBRA:
        return _rewritten(said, FORMULAS)
    if family in DATA and said != entry["answer"]:
        return None if _is_code(said) else said
    return said


def _rewritten(said: str, allowed: tuple[type, ...]) -> str | None:
    """An expression written anew from its syntax tree, if nothing else is in it."""
    try:
        tree = ast.parse(said.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        known = isinstance(node, allowed)
        if isinstance(node, ast.Constant):
            known = type(node.value) in (int, float)
        elif isinstance(node, ast.Name):
            known = len(node.id) == 1 or node.id in FUNCTIONS
        elif isinstance(node, ast.Call):
            named = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
            known = known and named and not node.keywords
        if not known:
            return None
    return ast.unparse(tree)


def _is_code(said: str) -> bool:
    """Whether `eval` would do more with `said` than read data or find an error of syntax."""
    try:
        tree = ast.parse(said.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    plain = (ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Load, ast.UnaryOp,
             ast.USub)  # fmt: skip
    return not all(isinstance(node, plain) for node in ast.walk(tree))
