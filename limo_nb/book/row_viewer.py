"""A file of questions and chains as one page that opens from the disk: `limo-nb view`.

In: records as any command reads them, of one file or of two. Out: HTML that holds its data,
style and script, and asks nothing of a network. Rows with one id (else one question) are one
entry with several chains; two files stand side by side. Ten thousand entries scroll, since only
those in sight are drawn. Chapter 5.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from limo_nb.problems import plain_answer
from limo_nb.problems.reader import ReadRow, RowReader
from limo_nb.problems.replies import parts_of
from limo_nb.problems.row_chains import ReadChain

PAGE = "row_viewer.html"
DATA = "/*DATA*/"  # where the page takes its rows


@dataclass
class ViewRows:
    """Entries of a page, in the order of the first file."""

    names: list[str] = field(default_factory=list)  # of the files
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(
        self, name: str, records: Iterable[tuple[str, Any]],
        columns: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Add the rows of one file; those that cannot be read are named in `broken`."""
        reader, side = RowReader(columns), len(self.names)
        self.names.append(name)
        for place, record in records:
            try:
                read = reader.read(record, place)
            except ValueError as error:
                self.broken.append(str(error))
                continue
            if read.question is None and not read.chains:
                self.broken.append(f"{place}: neither a question nor a chain")
                continue
            question = read.question or ""
            key = str(read.id) if read.id not in (None, "") else " ".join(question.split())
            entry = self.entries.setdefault(key or place, _entry(read, question))
            while len(entry["chains"]) <= side:
                entry["chains"].append([])
            entry["chains"][side] += [_chain(chain, record) for chain in read.chains]

    def html(self) -> str:
        """The page. Raises ValueError where there is nothing to show."""
        if not self.entries:
            rest = f": {self.broken[0]}" if self.broken else ""
            raise ValueError(f"{' and '.join(self.names)}: nothing to show{rest}")
        for entry in self.entries.values():
            entry["chains"] += [[] for _ in range(len(self.names) - len(entry["chains"]))]
        data = {"files": self.names, "rows": list(self.entries.values())}
        text = json.dumps(data, ensure_ascii=False, default=str)
        # In a script element "</" could end it, and "<!--" could hide its end.
        for sign in "<\u2028\u2029":
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        page = resources.files("limo_nb.book").joinpath(PAGE).read_text("utf-8")
        return page.replace(DATA, text)


def _entry(read: ReadRow, question: str) -> dict[str, Any]:
    return {
        "id": "" if read.id is None else str(read.id), "question": question,
        "answer": plain_answer(read.answer), "subject": plain_answer(read.subject),
        "level": plain_answer(read.level), "chains": [],
    }  # fmt: skip


def _chain(chain: ReadChain, record: Any) -> dict[str, Any]:
    """What is shown of a chain: thought and reply apart, the verdict and why, its score."""
    rest = record if isinstance(record, Mapping) else {}
    thought, said = parts_of(chain.text)
    score = rest.get("score")
    return {
        "thought": thought, "said": said, "correct": chain.correct,
        "why": str(rest.get("reason") or ""), "found": plain_answer(rest.get("extracted")),
        "words": len(chain.text.split()),
        "score": score if isinstance(score, int | float) else None,
        "band": rest.get("band"),
    }  # fmt: skip
