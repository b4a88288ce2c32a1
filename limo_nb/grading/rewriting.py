"""Named rewrites of text: each carries the example that tests it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Rewrite:
    """A pattern, what stands in its place, and an example before and after."""

    name: str
    pattern: str
    replacement: str | Callable[[re.Match], str]
    before: str
    after: str

    @cached_property
    def compiled(self) -> re.Pattern:
        """The pattern, compiled once."""
        return re.compile(self.pattern)

    def __call__(self, text: str) -> str:
        """`text` with every match replaced."""
        return self.compiled.sub(self.replacement, text)


def rewritten(text: str, rules: Iterable[Rewrite]) -> str:
    """`text` after all rules, in their order."""
    for rule in rules:
        text = rule(text)
    return text
