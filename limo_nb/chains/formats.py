"""Training rows in the formats that other tools read, and back.

| format     | for                       | columns                                      |
|------------|---------------------------|----------------------------------------------|
| `limo`     | the released data sets    | question, solution, answer                   |
| `alpaca`   | LLaMA-Factory             | instruction, input, output, system           |
| `sharegpt` | LLaMA-Factory             | conversations (from, value), system          |
| `messages` | TRL, LLaMA-Factory        | messages (role, content), the system first   |

Rows that are in none of these are read where they have question and solution under other
usual names (`NAMES`), such as problem and solution, or question and text, which is what
`limo-nb sample` writes.

`answer` and every further column go along in each of them: the tools read the columns
that they know. LLaMA-Factory must be told of a file in `dataset_info.json`; its alpaca
reader ignores `system` unless the column is mapped there, and then trains with the prompt
of the chat template (LIMO issues 6 and 11): `dataset_info` maps it. Chapter 5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limo_nb.core.files import write_json
from limo_nb.core.records import read_records, required, write_records
from limo_nb.grading.extraction import final_answer
from limo_nb.problems import reading

Row = dict[str, Any]
RELEASED = {"GAIR/LIMO": "LIMO v1", "GAIR/LIMO-v2": "LIMO v3"}  # Hub name -> in paper.yaml
ROW = ("question", "solution", "answer")
# What a record of no format may call them; the first name that it has is taken.
NAMES = {name: reading.NAMES[name] for name in ROW}
NAMES["solution"] += ("text",)  # a completion; elsewhere it may be any text


# ---------------------------------------------------------------- one row
def _limo_in(row: Row) -> Row:
    return {}


def _limo_out(row: Row, system: str) -> Row:
    return {name: row[name] for name in ROW}


def _alpaca_in(row: Row) -> Row:
    if row.get("history"):
        raise ValueError("has a history: a chain has one question and one solution")
    # LLaMA-Factory joins them so, too
    asked = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
    return {"question": asked, "solution": row["output"]}


def _alpaca_out(row: Row, system: str) -> Row:
    asked = {"instruction": row["question"], "input": "", "output": row["solution"]}
    return {**asked, "system": system}


def _turns_in(turns: Any, role: str, text: str, names: Mapping[str, str]) -> Row:
    """One question and one solution, and the system prompt if the turns begin with one."""
    found = [(names.get(turn[role], turn[role]), turn[text]) for turn in turns]
    said = {"system": found.pop(0)[1]} if found and found[0][0] == "system" else {}
    if [who for who, _ in found] != ["user", "assistant"]:
        raise ValueError(
            "expected one question and one solution, found the turns "
            + (", ".join(str(who) for who, _ in found) or "(none)")
        )
    return {"question": found[0][1], "solution": found[1][1], **said}


def _sharegpt_in(row: Row) -> Row:
    return _turns_in(
        row["conversations"], "from", "value", {"human": "user", "gpt": "assistant"}
    )


def _sharegpt_out(row: Row, system: str) -> Row:
    said = [("human", row["question"]), ("gpt", row["solution"])]
    turns = [{"from": who, "value": text} for who, text in said]
    return {"conversations": turns, "system": system}


def _messages_in(row: Row) -> Row:
    return _turns_in(row["messages"], "role", "content", {})


def _messages_out(row: Row, system: str) -> Row:
    said = [("system", system), ("user", row["question"]), ("assistant", row["solution"])]
    return {"messages": [{"role": who, "content": text} for who, text in said if text]}


@dataclass(frozen=True)
class Format:
    """One way to write a row: its columns, both directions, and LLaMA-Factory's entry."""

    keys: tuple[str, ...]  # a record that has these columns is in this format
    others: tuple[str, ...]  # further columns that have a meaning in it
    read: Callable[[Row], Row]
    write: Callable[[Row, str], Row]
    entry: Mapping[str, Any] | None  # None: nowhere to put the system prompt


FORMATS = {
    "limo": Format(("question", "solution"), ("answer",), _limo_in, _limo_out, None),
    "alpaca": Format(
        ("instruction", "output"), ("input", "history"), _alpaca_in, _alpaca_out,
        {"columns": {"prompt": "instruction", "query": "input", "response": "output",
                     "system": "system"}},
    ),
    "sharegpt": Format(
        ("conversations",), (), _sharegpt_in, _sharegpt_out,
        {"formatting": "sharegpt",
         "columns": {"messages": "conversations", "system": "system"},
         "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human",
                  "assistant_tag": "gpt"}},
    ),
    "messages": Format(
        ("messages",), (), _messages_in, _messages_out,
        {"formatting": "sharegpt",
         "columns": {"messages": "messages"},
         "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                  "assistant_tag": "assistant", "system_tag": "system"}},
    ),
}  # fmt: skip


# ---------------------------------------------------------------- reading
def _formats(row: Mapping[str, Any]) -> list[str]:
    """The formats whose columns `row` has."""
    return [name for name, form in FORMATS.items() if all(key in row for key in form.keys)]


def format_of(row: Mapping[str, Any]) -> str:
    """The first format whose columns `row` has; ValueError with the columns if none."""
    if found := _formats(row):
        return found[0]
    known = "; ".join(f"{name}: {', '.join(form.keys)}" for name, form in FORMATS.items())
    columns = ", ".join(map(str, row)) or "(none)"
    raise ValueError(f"columns {columns} are of no format ({known})")


def _renamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """`row` as it is if it is in a format; else with the names of ROW for other usual ones."""
    if _formats(row):
        return row
    found = {ours: next((n for n in names if n in row), ours) for ours, names in NAMES.items()}
    ours = {theirs: name for name, theirs in found.items()}
    return {ours.get(name, name): value for name, value in row.items()}


def to_row(record: Any, place: str) -> Row:
    """A row with question, solution and answer from a record of any format, or by `NAMES`.

    Further columns stay, `system` among them if the record has a prompt. Where there is
    no answer column, the answer is read from the solution. ValueError names the place.
    """
    try:
        record = _renamed(required(record, (), place))
        form = FORMATS[format_of(record)]
        required(record, form.keys, place)
        own = {*form.keys, *form.others} - {*ROW}
        row = {**{k: v for k, v in record.items() if k not in own}, **form.read(record)}
        _complete(row)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{place}: malformed ({type(error).__name__}: {error})") from None
    except ValueError as error:
        told = str(error)
        raise ValueError(told if told.startswith(place) else f"{place}: {told}") from None
    return row


def _complete(row: Row) -> None:
    """Check the texts of `row`, and find its answer if it has none."""
    for name in ("question", "solution"):
        if not isinstance(row[name], str) or not any(map(str.isalnum, row[name])):
            raise ValueError(f"the {name} has no words")
    if row.get("answer") in (None, ""):
        row["answer"] = final_answer(row["solution"]) or ""
    row["answer"] = str(row["answer"])
    if not row.get("system"):
        row.pop("system", None)


def read_rows(source: str | Path, broken: list[str] | None = None) -> list[Row]:
    """The rows of a file (JSON, JSONL, Parquet; any format) or of a released data set.

    Broken rows are an error that names the first of them; with a list `broken`, the
    messages are put there and the other rows are returned. Raises ValueError if none is
    left.
    """
    faults: list[str] = []
    places = load_released(str(source)) if str(source) in RELEASED else read_records(
        Path(source), faults
    )  # fmt: skip
    rows = []
    for place, record in places:
        try:
            rows.append(to_row(record, place))
        except ValueError as error:
            faults.append(str(error))
    if faults and (broken is None or not rows):
        shown = "\n".join(f"  {fault}" for fault in faults[:5])
        raise ValueError(f"{len(faults)} broken rows in {source}:\n{shown}")
    if not rows:
        raise ValueError(f"{source} has no rows")
    if broken is not None:
        broken += faults
    return rows


def load_released(name: str) -> Iterable[tuple[str, Row]]:
    """Pairs (place, row) of a released data set: `GAIR/LIMO` or `GAIR/LIMO-v2`.

    It comes from the Hub or from its cache. ValueError says what to do without either.
    """
    from datasets import load_dataset

    if name not in RELEASED:
        raise ValueError(
            f"{name!r} is not a released data set; there are {', '.join(RELEASED)}"
        )
    try:
        table = load_dataset(name, split="train")
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} is neither in the cache of `datasets` nor reachable "
            f"({type(error).__name__}). Load it once with network (unset HF_HUB_OFFLINE and "
            "HF_DATASETS_OFFLINE), set HF_ENDPOINT to a mirror, or name a local file"
        ) from error
    return [(f"{name}, row {number}", dict(row)) for number, row in enumerate(table, 1)]


# ---------------------------------------------------------------- writing
def convert(rows: Iterable[Mapping[str, Any]], to: str, system: str) -> list[Row]:
    """`rows` (question, solution, answer, …) as records of format `to`.

    A row's own `system` goes before the argument. Format `limo` has no place for the
    prompt: there the model's user must set it.
    """
    if to not in FORMATS:
        raise ValueError(f"no format {to!r}; there are {', '.join(FORMATS)}")
    records = []
    for number, row in enumerate(rows, 1):
        row = {"answer": "", **required(row, ("question", "solution"), f"row {number}")}
        record = FORMATS[to].write(row, row.get("system") or system)
        rest = {k: v for k, v in row.items() if k not in (*ROW, "system")}
        for name in sorted(rest.keys() & {*FORMATS[to].keys, *FORMATS[to].others}):
            raise ValueError(f"row {number}: {name!r} has a meaning in {to}; rename the column")
        records.append({**record, "answer": row["answer"], **rest})
    return records


def write_rows(records: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write records to a .json, .jsonl or .parquet file, whole or not at all."""
    if file.suffix == ".json":
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, list(records))
    else:
        write_records(records, file)


def llama_factory_entry(to: str, file: Path) -> dict[str, Any]:
    """What LLaMA-Factory must know of `file`, the system prompt's column among it.

    ValueError for format `limo`, whose rows cannot say the system prompt.
    """
    found = FORMATS[to].entry if to in FORMATS else None
    if found is None:
        raise ValueError(
            f"rows of format {to} have no system prompt, so LLaMA-Factory would train with "
            "that of its chat template: write alpaca, sharegpt or messages"
        )
    return {"file_name": file.name, **found}


def dataset_info(file: Path, to: str, name: str) -> Path:
    """Enter `file` as data set `name` into the `dataset_info.json` beside it; its path.

    LLaMA-Factory is then called with `dataset: NAME` and `dataset_dir: FOLDER`. Other
    entries stay.
    """
    added = llama_factory_entry(to, file)
    path = file.parent / "dataset_info.json"
    try:
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); mend or move it") from None
    if not isinstance(known, dict):
        raise ValueError(f"{path}: expected a mapping of data sets; mend or move it")
    write_json(path, known | {name: added})
    return path
