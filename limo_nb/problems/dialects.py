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
        ("question_concat", "question", "problem", "problem_statement", "question_text",
         "problem_text"),
        ("prompt", "query", "instruction", "user_prompt", "origin_prompt"),
        ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat"),
        ("input",),
    ),
    "answer": (
        (
            "gold", "gold_answer", "golden", "ground_truth", "ground_truth_answer", "gt", "gts",
            "expected_answer", "expected_output", "reference_answer", "correct_answer",
            "answer_number", "answer_key", "short_answer", "ideal", "reference", "expected",
            "target", "gold_standard_solution",
        ),
        ("answer", "answers", "answer_value", "ans"),
        ("final_answer", "final_ans"),
        ("label",),
    ),
    "chain": (
        ("response", "completion", "generated_solution", "generated_text", "generation",
         "attempt", "llm_response", "model_response", "model_output", "model_completion",
         "prediction", "predict", "chosen", "reannotated_assistant_content"),
        ("output", "message", "content"),
        ("text",),
    ),
    "chains": (
        ("generations", "responses", "completions", "samples", "attempts", "outputs",
         "predictions", "resps", "generated_responses", "choices", "candidates"),
        ("code",),
    ),
    "solution": (
        ("solution", "solutions", "ground_truth_solution"), ("rationale", "explanation"),
    ),
    "thought": (
        ("reasoning_content", "thinking", "thought", "thoughts", "think_content", "reasoning",
         "think", "thinking_trajectory", "thinking_trajectories", "reasoning_trace",
         "model_reasoning", "chain_of_thought", "cot", "complex_cot", "long_cot"),
    ),
    "correct": (
        ("correctness_math_verify", "correct", "is_correct", "correctness",
         "answers_correctness"),
        ("correctness_llama", "score", "label"),
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
WRAPPERS = (
    "body", "response", "request", "params", "result", "doc", "fields", "model_response",
    "extra_info", "reward_model", "reward_spec", "verification_info",
)  # fmt: skip
# Columns of teachers, several in a row: `r1_solution_2`, `deepseek_attempt`.
TEACHER = re.compile(
    r"(?:(?P<who>r1|deepseek(?:[_-]r1)?|gemini|qwen\d*|qwq|claude|(?:chat)?gpt[-_.\d]*o?|o\d|llama"
    r"\d*|model|teacher)[_-])?"
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
    return tuple(
        (name, own["who"] or "", own["number"] or "")
        for name, own in found
        if own and (own["who"] or own["number"])
    )


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
