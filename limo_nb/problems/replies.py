"""What a column may hold: turns, replies, references, JSON in a string (chapter 3)."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from limo_nb.grading.extraction import split_thought
from limo_nb.problems.dialects import NAMES, bare_name

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "prompter": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "bot": "assistant", "chatbot": "assistant", "ai": "assistant",
}  # fmt: skip
ROLE, SAID = ("role", "from", "speaker"), ("content", "value", "text", "prompt")
# What reinforcement learning writes round a question; a paragraph of its own, or the end.
INSTRUCTION = re.compile(
    r"^(?:please )?(?:solve|answer)\b[^\n]*(?:step by step|final answer|the last line)[^\n]*$"
    r"|^remember to put your answer[^\n]*$"
    r"|^(?:please |let's )?(?:reason|think) step by step[^\n]*$"
    r"|^(?:please )?put your (?:final )?answer[^\n]*$|^present the answer[^\n]*$"
    r"|^you first think[^\n]*$",
    re.IGNORECASE,
)
TAIL = re.compile(r"\s+(?:please |let's )(?:reason|think) step by step[^\n]*$", re.IGNORECASE)
# How a thought is written that its row has apart; as most sets of chains write it.
IN_TEXT = "<think>\n{thought}\n</think>\n\n{answer}"
MARK = "####"  # GSM8K's, before the answer
BLOCKS = ("text", "output_text")  # of a turn, as servers write them
SWITCHES = {
    *"on off yes no true false none low medium high".split(),
    *"enabled disabled auto default minimal".split(),
}
RIGHT = {
    "yes": True, "true": True, "1": True, "10": True, "correct": True, "right": True,
    "no": False, "false": False, "0": False, "00": False, "incorrect": False, "wrong": False,
}  # fmt: skip


def is_turn(value: Any) -> bool:
    """Whether `value` is a turn of a conversation: something that somebody says."""
    return isinstance(value, Mapping) and any(name in value for name in ROLE)


def opened(value: Any) -> Any:
    """`value`, or what it holds where it is a string of JSON with a list or a mapping.

    A text that only looks like JSON stays one: a list in it must hold turns, or texts.
    """
    if not (isinstance(value, str) and value[:1] in "[{" and value[-1:] in "]}"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = _python(value)
        if found is None:
            return value
    if isinstance(found, Mapping):
        return found
    held = all(is_turn(own) or isinstance(own, str) for own in found)
    return found if found and held else value


def _python(text: str) -> Any:
    """The list or mapping that `text` spells as Python does, which pandas writes into CSV."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, list | dict) else None


def parts_of(text: str) -> tuple[str | None, str]:
    """(thought, what is shown) of a reply; a thought that does not end is none."""
    try:
        return split_thought(text)
    except ValueError:
        return None, text


def role_of(turn: Mapping[str, Any]) -> str:
    """Who speaks, as "system", "user" or "assistant" where it is one of them."""
    said = str(next(turn[name] for name in ROLE if name in turn))
    return ROLES.get(said.lower(), said)


def turn_of(turn: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """(who speaks, what is said, the turn itself)."""
    return role_of(turn), said_in(turn), turn


def said_in(turn: Mapping[str, Any]) -> str:
    """What a turn says: its text, or its blocks of text after those of thinking."""
    value = next((turn[name] for name in SAID if turn.get(name) is not None), "")
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if all(isinstance(part, str) for part in value):
            return "".join(value)
        blocks = [part for part in value if isinstance(part, Mapping)]
        texts = [part for part in blocks if part.get("type", "text") in BLOCKS]
        return "".join(str(part.get("text") or "") for part in texts)
    raise ValueError(f"a turn's content is {type(value).__name__}, not text")


def thought_in(turn: Mapping[str, Any]) -> str:
    """The thought that a turn has apart: in a column, or in blocks before its text."""
    for name in turn:
        if bare_name(str(name)) in NAMES["thought"][0] and isinstance(turn[name], str):
            return turn[name]
    blocks: list[Any] = next(
        (turn[name] for name in SAID if isinstance(turn.get(name), list)), []
    )
    thoughts = [part.get("thinking") or part.get("reasoning") for part in blocks
                if isinstance(part, Mapping)]  # fmt: skip
    return "".join(
        "".join(str(piece.get("text", "")) for piece in own) if isinstance(own, list) else own
        for own in thoughts
        if own
    )


def ground_truth(turn: Mapping[str, Any]) -> Any:
    """The reference that Open-Reasoner-Zero's last turn has in the place of a reply."""
    info = turn.get("info")
    info = info if isinstance(info, Mapping) else {}
    value = turn.get("ground_truth") or info.get("ground_truth") or info.get("reference_answer")
    return value.get("value") if isinstance(value, Mapping) else value


def replies_in(value: Any) -> list[str]:
    """The replies in `value`: texts, turns, conversations, choices of a server."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        if not any(name in value for name in ("message", *ROLE, *SAID)):
            own = (value[name] for group in NAMES["chain"] for n in group
                   for name in value if bare_name(str(name)) == n)  # fmt: skip
            return replies_in(next(own, None))
        inner = value.get("message", value)
        if not isinstance(inner, Mapping):
            return replies_in(inner)
        thought, text = thought_in(inner), said_in(inner)
        if thought.strip() and parts_of(text)[0] is None:
            return [IN_TEXT.format(thought=thought.strip("\n"), answer=text)]
        return [text] if text.strip() else []
    if isinstance(value, list) and value and all(map(is_turn, value)):
        replies = [turn for turn in value if role_of(turn) == "assistant"]
        return replies_in(replies[-1]) if replies else []
    if isinstance(value, list | tuple):
        return [text for own in value for text in replies_in(own)]
    return []


def turns_or(value: Any) -> Any:
    """`value`; where it is a string of turns in JSON, these turns."""
    found = opened(value)
    return found if isinstance(found, list) and all(map(is_turn, found)) else value


def alone_in(value: Any) -> Any:
    """A reference that stands alone in its list, which may be JSON, is the reference."""
    found = opened(value)
    value = found if isinstance(found, list) and len(found) == 1 else value
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def mark_of(mark: Any) -> bool | None:
    """What a row says of a chain: right, wrong, or None where it is neither."""
    if isinstance(mark, bool) or mark is None:
        return mark
    return RIGHT.get(bare_name(str(mark)))


def as_marks(value: Any) -> list[Any]:
    """`value` as a list; one of marks may be JSON, as in CSV files."""
    if isinstance(value, str) and value[:1] == "[":
        try:
            value = json.loads(value.replace("True", "true").replace("False", "false"))
        except (ValueError, RecursionError):
            return [value]
    return value if isinstance(value, list) else [value]


def options_in(value: Any) -> list[str]:
    """The options of a question: a list of texts, perhaps under "text"; else none."""
    value = value.get("text") if isinstance(value, Mapping) else opened(value)
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        return []
    plain = all(isinstance(own, str | int | float) for own in value)
    return [str(own) for own in value] if plain else []


def end_of(value: Any) -> str:
    """A reference as it is compared with another: its end, without box and dollars."""
    text = str(value).rpartition(MARK)[2].strip().strip("$").strip()
    if text.startswith("\\boxed{") and text.endswith("}"):
        text = text[len("\\boxed{") : -1]
    try:
        return repr(float(text))
    except ValueError:
        return text


def is_prose(text: str) -> bool:
    """Whether `text` is a solution in sentences, and no answer."""
    return len(text.split()) >= 20 and len(re.findall(r"[.!?](?:\s|$)", text)) >= 2


def is_brief(text: str) -> bool:
    """Whether `text` may be an answer, and is no sentence that leads to one."""
    text = text.strip()
    if not any(map(str.isalnum, text)):
        return False
    return "\n" not in text and len(text) <= 60 and len(text.split()) <= 6


def repeats(solution: str, text: str) -> bool:
    """Whether a chain's `text` is the `solution`, so that it is nobody's reference."""
    return solution.strip() == text.strip() or (not is_brief(solution) and solution in text)


def only_answer(text: str) -> bool:
    """Whether `text` is a boxed answer, or a bare one, and nothing else."""
    text = text.strip().strip("$. ")
    return (
        text.startswith("\\boxed{")
        and text.endswith("}")
        or (is_brief(text) and "boxed" not in text)
    )


def without_instruction(question: str) -> str:
    """`question` without the instruction that reinforcement learning writes round it."""
    parts = [part for part in re.split(r"\n\s*\n", question) if part.strip()]
    while len(parts) > 1 and INSTRUCTION.match(parts[0].strip()):
        parts.pop(0)
    while len(parts) > 1 and INSTRUCTION.match(parts[-1].strip()):
        parts.pop()
    found = TAIL.sub("", "\n\n".join(parts))
    return question if not found.strip() or found.strip() == question.strip() else found
