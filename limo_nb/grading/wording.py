"""When words say the same: order of names, articles, what follows an adjective."""

from __future__ import annotations

import re

from limo_nb.grading.answers import CJK, folded
from limo_nb.grading.canonical import STYLED

Finding = tuple[bool | None, str]

EMPTY = {  # ways to say that there is nothing
    "no solution", "no solutions", "no real solution", "no real solutions", "none", "empty set",
    "the empty set", "does not exist", "dne", "there is no solution", "there are no solutions",
    "no such number exists", "no solution exists", "no solutions exist", "there is none",
    r"\emptyset", "无解", "空集", "不存在", "impossible", "no integer solutions",
}  # fmt: skip
LITTLE = frozenset(
    "a an the on in at of is it are was be to due there that this they he she i we s its"
    " exactly real always answer and".split()
)
DENYING = frozenset(
    "not no non never nor neither or but except without un none isn aren".split()
)
OWN = frozenset("no not none never".split())


def same_words(reference: str, answer: str) -> Finding:
    """Whether an answer in words says what the reference says."""
    one, other = folded(reference), folded(answer)
    if one == other:
        return True, "same"
    if answer == r"\emptyset":
        other = answer
    if one in EMPTY and other in EMPTY:
        return (
            (True, "nothing")
            if one not in ("none", "不存在") or other != "no"
            else (None, "nothing")
        )
    if CJK.search(one):
        return False, "different"
    if all(len(word) == 1 for word in one.split()):  # a sequence of letters keeps its order
        return False, "different"
    names = [_names(text) for text in (reference, answer)]
    if min(map(len, names)) > 1:
        return (
            (True, "same names")
            if sorted(names[0]) == sorted(names[1])
            else (False, "different")
        )
    wanted, found = one.split(), other.split()
    return (True, "same words") if _says(wanted, found) else (False, "different")


def _names(text: str) -> list[str]:
    """The names of a list in words."""
    plain = STYLED.sub(r" \1 ", text)
    parts = re.split(r",|;|\band\b|&", plain)
    return [folded(part) for part in parts if part.strip()]


def _says(wanted: list[str], found: list[str]) -> bool:
    """Whether `found` is `wanted` with little words around it, or nouns and verbs behind."""
    denial = [word for word in found if word in DENYING]
    if denial != [word for word in wanted if word in DENYING]:
        if not (wanted and wanted[0] in OWN and found[0] == wanted[0]):
            return False
    core = [_stem(word) for word in wanted if word not in LITTLE]
    rest = [_stem(word) for word in found if word not in LITTLE]
    if not core or "and" in found and "and" not in wanted:
        return core == rest
    if rest[: len(core)] != core:
        return False
    behind = rest[len(core) :]
    if not all(word.isalpha() for word in behind):
        return False
    return not behind or (len(behind) <= 2 and len(core) == 1) or wanted[0] in ("yes", "no")


def _stem(word: str) -> str:
    return (
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    )
