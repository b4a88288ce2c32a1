"""Training rows in the formats that other tools read, and back.

| format     | for                       | columns                                      |
|------------|---------------------------|----------------------------------------------|
| `limo`     | the released data sets    | question, solution, answer                   |
| `alpaca`   | LLaMA-Factory             | instruction, input, output, system           |
| `sharegpt` | LLaMA-Factory             | conversations (from, value), system          |
| `messages` | TRL, LLaMA-Factory, Axolotl | messages (role, content), the system first |
| `trl`      | TRL, loss on completions  | prompt and completion, both turns            |
| `verl`     | verl, TRL's rewards       | prompt (turns), data_source, ability,        |
|            |                           | reward_model (style, ground_truth), extra_info |
| `open-r1`  | open-r1 and TRL's GRPO    | problem, prompt (turns), solution (the       |
|            |                           | reference in a box, for accuracy_reward)     |

Any other row is read where `problems.dialects` finds a question and a chain in it.

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

from limo_nb.core.file_names import kind_of
from limo_nb.core.files import write_json
from limo_nb.core.records import read_records, required, write_records
from limo_nb.problems.reading import ChainRows, plain_answer, read_chains

Row = dict[str, Any]
ROW = ("question", "solution", "answer")


# ---------------------------------------------------------------- one row
def _limo_out(row: Row, system: str) -> Row:
    return {name: row[name] for name in ROW}


def _alpaca_out(row: Row, system: str) -> Row:
    asked = {"instruction": row["question"], "input": "", "output": row["solution"]}
    return {**asked, "system": system}


def _sharegpt_out(row: Row, system: str) -> Row:
    said = [("human", row["question"]), ("gpt", row["solution"])]
    turns = [{"from": who, "value": text} for who, text in said]
    return {"conversations": turns, "system": system}


def _messages_out(row: Row, system: str) -> Row:
    said = [("system", system), ("user", row["question"]), ("assistant", row["solution"])]
    return {"messages": [{"role": who, "content": text} for who, text in said if text]}


def _trl_out(row: Row, system: str) -> Row:
    *asked, said = _messages_out(row, system)["messages"]
    return {"prompt": asked, "completion": [said]}


def _verl_out(row: Row, system: str) -> Row:
    return {
        "data_source": str(row.get("source") or "limo-nb"),
        "prompt": _messages_out({**row, "solution": ""}, system)["messages"],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": plain_answer(row["answer"])},
        "extra_info": {"split": "train", "index": row["number"]},
    }


def _open_r1_out(row: Row, system: str) -> Row:
    return {
        "problem": row["question"],
        "prompt": _messages_out({**row, "solution": ""}, system)["messages"],
        "solution": rf"\boxed{{{plain_answer(row['answer'])}}}",
    }


@dataclass(frozen=True)
class Format:
    """One way to write a row: its columns, what writes it, and LLaMA-Factory's entry."""

    keys: tuple[str, ...]  # the columns that have a meaning in it
    write: Callable[[Row, str], Row]
    entry: Mapping[str, Any] | None  # None: LLaMA-Factory reads it without system prompt
    by_reward: bool = False  # rows to be answered: a reference in the place of a chain


FORMATS = {
    "limo": Format(ROW, _limo_out, None),
    "alpaca": Format(
        ("instruction", "input", "output", "history"), _alpaca_out,
        {"columns": {"prompt": "instruction", "query": "input", "response": "output",
                     "system": "system"}},
    ),
    "sharegpt": Format(
        ("conversations",), _sharegpt_out,
        {"formatting": "sharegpt",
         "columns": {"messages": "conversations", "system": "system"},
         "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human",
                  "assistant_tag": "gpt"}},
    ),
    "messages": Format(
        ("messages",), _messages_out,
        {"formatting": "sharegpt",
         "columns": {"messages": "messages"},
         "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                  "assistant_tag": "assistant", "system_tag": "system"}},
    ),
    "trl": Format(("prompt", "completion"), _trl_out, None),
    "verl": Format(
        ("prompt", "data_source", "ability", "reward_model", "extra_info"), _verl_out, None,
        True,
    ),
    "open-r1": Format(("problem", "prompt", "solution"), _open_r1_out, None, True),
}  # fmt: skip


# ---------------------------------------------------------------- reading
def read_rows(
    source: Path, broken: list[str] | None = None,
    columns: Mapping[str, str] | None = None, wrong: bool = True, by_reward: bool = False,
) -> ChainRows:  # fmt: skip
    """The chains of a file of any kind and format.

    `columns` says what the file calls question, chain and answer, where not by a usual name;
    without `wrong`, chains that their rows mark as wrong are left out. `by_reward` wants a
    reference of every row, and no chain. Broken rows are an
    error that names the first of them; with a list `broken`, the messages are put there and
    the other rows are returned. Raises ValueError if none is left.
    """
    faults: list[str] = []
    found = read_chains(read_records(source, faults), columns, wrong, faults, by_reward)
    if faults and (broken is None or not found.rows):
        shown = "\n".join(f"  {fault}" for fault in faults[:5])
        raise ValueError(f"{len(faults)} broken rows in {source}:\n{shown}")
    if not found.rows:
        rest = ", ".join(found.told())
        raise ValueError(f"{source} has no rows" + (f" left ({rest})" if rest else ""))
    if broken is not None:
        broken += faults
    return found


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
        needed = ("question", "answer" if FORMATS[to].by_reward else "solution")
        row = {"answer": "", **required(row, needed, f"row {number}")}
        record = FORMATS[to].write({**row, "number": number - 1}, row.get("system") or system)
        rest = {k: v for k, v in row.items() if k not in (*ROW, "system")}
        for name in sorted(rest.keys() & {*FORMATS[to].keys}):
            raise ValueError(f"row {number}: {name!r} has a meaning in {to}; rename the column")
        records.append({**record, "answer": row["answer"], **rest})
    return records


def write_rows(records: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write records to a .json, .jsonl or .parquet file, whole or not at all."""
    if kind_of(file) == ".json":
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
            f"rows of format {to} give LLaMA-Factory no system prompt: it would train with "
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
