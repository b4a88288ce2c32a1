"""What people call their columns: public data sets, chat files, logs of tools (chapter 3).

`COLUMNS_OF` is the table of names, from which the page "Kinds of files" is made; `reader` reads
by it. Names are compared without regard to case, spaces and underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# What is looked for, and the names that it has. Names of one group are equally good: where
# two of them say different things, nobody knows which is meant, and a reader is told so.
# Otherwise the first group that has something is taken.
COLUMNS_OF: dict[str, tuple[tuple[str, ...], ...]] = {
    "id": (
        ("id", "unique_id", "uuid", "custom_id", "question_id", "problem_id"),
        ("idx", "problem_idx", "index"),
    ),
    "question": (
        ("question", "problem", "problem_statement", "question_text"),
        ("prompt", "query", "instruction", "user_prompt"),
        ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat"),
        ("input",),
    ),
    "answer": (
        (
            "gold", "gold_answer", "ground_truth", "gt", "expected_answer", "final_answer",
            "reference_answer", "correct_answer", "reference", "expected", "target",
        ),
        ("answer",),
        ("label",),
    ),
    "chain": (
        ("response", "completion", "generated_solution", "generation", "attempt",
         "llm_response", "model_response", "model_output", "prediction", "chosen"),
        ("output",),
        ("text",),
    ),
    "chains": (
        ("generations", "responses", "completions", "samples", "attempts", "outputs",
         "predictions", "resps", "choices", "candidates"),
    ),
    "solution": (("solution", "rationale", "explanation", "ground_truth_solution"),),
    "thought": (
        ("reasoning_content", "thinking", "thought", "thoughts", "think_content", "reasoning",
         "thinking_trajectory", "thinking_trajectories", "reasoning_trace",
         "chain_of_thought", "cot"),
    ),
    "correct": (
        ("correctness_math_verify", "correct", "is_correct", "correctness"),
        ("correctness_llama",),
    ),
    "system": (("system", "system_prompt"),),
    "source": (("source", "data_source", "problem_source", "dataset"),),
    "subject": (
        ("subject", "type", "problem_type", "topic", "category", "subfield"),
        ("domain", "ability"),
    ),
    "level": (("level", "difficulty"),),
}  # fmt: skip
# Names that people give on the left of `--columns`, beside those of COLUMNS_OF.
SYNONYMS = {"gold": "answer", "response": "chain", "problem": "question", "prompt": "question",
            "reasoning": "thought", "text": "chain"}  # fmt: skip
# Where tools put a row into another: batch requests and their results, verl, evaluation logs.
WRAPPERS = ("body", "response", "doc", "extra_info", "reward_model", "verification_info")
# Columns of teachers, several in a row: `r1_solution_2`, `deepseek_attempt`.
TEACHER = re.compile(
    r"(?P<who>r1|deepseek(?:_r1)?|gemini|qwen|qwq|claude|gpt|llama|model|teacher)_"
    r"(?P<what>attempt|solution|response|generation|answer|completion|output)(?P<number>_\d+)?",
    re.IGNORECASE,
)
THOUGHTS_OF = ("thinking_trajectory", "thinking", "reasoning", "reasoning_content", "thought")
GRADES_OF = ("grade", "correct", "correctness")


@lru_cache(10_000)
def bare_name(name: str) -> str:
    """`name` as names are compared: letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


NAMES = {
    what: tuple(tuple(bare_name(name) for name in group) for group in groups)
    for what, groups in COLUMNS_OF.items()
}
Places = dict[str, tuple[tuple[tuple[int, str], ...], ...]]


@lru_cache(10_000)
def places_of(layers: tuple[tuple[str, ...], ...]) -> Places:
    """What is said → where: groups, best first, of (number of the layer, its column)."""
    known = [{bare_name(name): name for name in reversed(names)} for names in layers]
    return {
        what: tuple(
            places
            for group in groups
            if (places := tuple((n, own[name]) for n, own in enumerate(known)
                                for name in group if name in own))
        )
        for what, groups in NAMES.items()
    }  # fmt: skip


@lru_cache(10_000)
def taught(names: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """(name, teacher, number or "") of the columns that are called by teacher."""
    found = ((name, TEACHER.fullmatch(name)) for name in names)
    return tuple((n, own["who"], own["number"] or "") for n, own in found if own)


def parse_columns(pairs: Iterable[str] | None) -> dict[str, str]:
    """`["gold=answer,response=text"]` as what → column; a column may lie deeper, `a.b`.

    Raises ValueError for a pair that is none, and for what no row has.
    """
    found = {}
    for pair in (own for given in pairs or () for own in given.split(",") if own.strip()):
        left, equals, column = (part.strip() for part in pair.partition("="))
        what = SYNONYMS.get(bare_name(left), bare_name(left))
        if not (equals and column) or what not in COLUMNS_OF:
            raise ValueError(
                f"--columns {pair!r} is not WHAT=COLUMN, e.g. question=problem_text; WHAT is "
                f"one of {', '.join([*COLUMNS_OF, *SYNONYMS])}"
            )
        found[what] = column
    return found
