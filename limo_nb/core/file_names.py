"""What a name says before anything is opened: the kind of a file, or a data set of the Hub.

Imports nothing large, so that a command can say at once that a file is not there.
"""

from __future__ import annotations

import re
from pathlib import Path

KINDS = (".json", ".jsonl", ".csv", ".parquet", ".arrow")  # of files of rows
PACKED = (".json", ".jsonl", ".csv")  # that may have `.gz` behind it
LINES = (".jsonl", ".ndjson")
STREAM = Path("-")  # standard input or output, which are JSONL
# OWNER/NAME[:CONFIG][:SPLIT][@REVISION]; a single part behind the name is the split.
HUB_NAME = re.compile(
    r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<first>[\w.-]+))?(?::(?P<second>[\w.-]+))?"
    r"(?:@(?P<revision>[\w.-]+))?"
)


def kind_of(file: Path) -> str:
    """The kind of a file by its name, `.gz` left out: one of KINDS, "" for any other."""
    if file == STREAM:
        return ".jsonl"
    name = file.name.lower()
    packed, name = name.endswith(".gz"), name.removesuffix(".gz")
    kind = Path(name).suffix
    kind = ".jsonl" if kind in LINES else kind
    return kind if kind in (PACKED if packed else KINDS) else ""


def on_hub(file: Path) -> bool:
    """Whether a name is that of a data set of the Hub: neither a file nor the place of one."""
    return bool(HUB_NAME.fullmatch(str(file))) and not kind_of(file) and not file.exists()
