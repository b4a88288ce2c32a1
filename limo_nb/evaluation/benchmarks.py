"""The benchmarks: what is known of them, and their items (chapters 3, 8; paper, section 4).

A benchmark's file is looked for in `LIMO_NB_DATA`/benchmarks and fetched otherwise: with
`datasets` from the Hub, with pooch from an address. The file itself is fetched and not
`load_dataset`'s table, which gives a column one type where references have several, and
has no lines to name. What was fetched is kept in `runs/benchmarks`. What cannot be known
without the network, a revision or a digest, is recorded in a lock file at the first fetch
and checked from then on.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Features, Value, concatenate_datasets

from limo_nb import lab
from limo_nb.core.pins import lock_file, locked, pin
from limo_nb.core.records import read_records
from limo_nb.core.runs import runs_root
from limo_nb.core.settings import EvaluationSettings
from limo_nb.grading.gym import families
from limo_nb.problems import (
    COLUMNS,
    data_root,
    gym_facts,
    gym_rows,
    level_of,
    plain_answer,
)

BENCHMARK_COLUMNS = Features(
    {**COLUMNS, "benchmark": Value("string"), "in_domain": Value("bool")}
)
LAB_ITEMS = 40  # per lab benchmark: what the lab's pool may hold copies of
GYM = "gym:"  # and a family of reasoning-gym
# Names for one or several others.
TOGETHER = {"paper": [], "aime25": ["aime25_1", "aime25_2"], "math500": ["math"]}
SHOWN = 5  # broken rows that an error names


@dataclass(frozen=True)
class OwnBenchmark:
    """Questions of a person's file (`own_questions`)."""

    file: str
    items: Dataset  # BENCHMARK_COLUMNS
    tolerance: float

    @property
    def facts(self) -> dict[str, Any]:
        """What the registry would say of it."""
        title = f"questions of {Path(self.file).name}"
        return {"title": title, "in_domain": None, "judge": False, "tolerance": self.tolerance}


OWN: dict[str, OwnBenchmark] = {}  # those of this process


# ---------------------------------------------------------------- the registry
@cache
def _facts() -> dict[str, Any]:
    text = resources.files("limo_nb.evaluation").joinpath("benchmarks.yaml").read_text()
    return yaml.safe_load(text)


@cache
def benchmark_registry() -> dict[str, dict[str, Any]]:
    """The facts of `benchmarks.yaml`: name → title, file, fields, language, ..."""
    return {name: facts for name, facts in _facts().items() if not name.startswith("_")}


def benchmark_facts(name: str) -> dict[str, Any]:
    """What is known of benchmark `name`, one of the registry or `gym:FAMILY`.

    Raises ValueError that says which there are.
    """
    if name in benchmark_registry():
        return benchmark_registry()[name]
    if name in OWN:
        return OWN[name].facts
    family = name.removeprefix(GYM)
    if family != name and family in families():
        domains = {side: family in gym_facts()[side] for side in ("in_domain", "out_of_domain")}
        known_side = domains["in_domain"] if any(domains.values()) else None
        title = f"reasoning-gym, {family.replace('_', ' ')}"
        return {**benchmark_registry()["gym"], "title": title, "in_domain": known_side}
    there = ", ".join([*benchmark_registry(), *TOGETHER])
    near = get_close_matches(family, families(), 3, 0.5) if family != name else []
    meant = f": did you mean {' or '.join(GYM + own for own in near)}?" if near else ""
    raise ValueError(
        f"unknown benchmark {name!r}{meant or f'; there are {there}, and {GYM}FAMILY'}"
    )


def of_paper() -> list[str]:
    """The ten benchmarks of the paper, in its order."""
    return [
        name for name, facts in benchmark_registry().items() if facts.get("source") == "limo"
    ]


def known(names: Iterable[str]) -> list[str]:
    """`names` without repetitions, those of TOGETHER resolved; "paper" is its ten.

    Raises ValueError that says which benchmarks there are.
    """
    found = [
        own
        for name in names
        for own in (of_paper() if name == "paper" else TOGETHER.get(name, [name]))
    ]
    for name in found:
        benchmark_facts(name)
    return list(dict.fromkeys(found))


def overview() -> list[dict[str, Any]]:
    """A row per benchmark: what the registry says of it, for tables."""
    rows = []
    for name, facts in benchmark_registry().items():
        source = _facts()["_sources"].get(facts.get("source"), {"title": "made here"})
        domain = {True: "in domain", False: "out of domain", None: "both"}
        rows.append(
            {
                "name": name,
                "title": facts["title"],
                "role": domain[facts.get("in_domain")],
                "rows": facts.get("rows"),
                "language": facts["language"],
                "answers": facts["answers"],
                "graded by": "judge" if facts["judge"] else "rule",
                "source": source["title"],
                "terms": facts["terms"],
            }
        )
    return rows


# ---------------------------------------------------------------- files
@dataclass(frozen=True)
class Found:
    """Where a benchmark's file is, and what it is."""

    path: Path
    source: str  # "local", or what it was fetched from
    revision: str  # the commit of a Hub data set, "" elsewhere
    sha256: str


def locate(name: str) -> Found:
    """The file of benchmark `name`: in `LIMO_NB_DATA`/benchmarks, else fetched.

    Raises ValueError for a file that is not the one that was released, or not the one
    that the lock file recorded; FileNotFoundError where there is none.
    """
    facts, root = benchmark_registry()[name], data_root()
    local = root / "benchmarks" / facts["file"] if root else None
    others = [root / own["file"] for own in facts.get("also", [])] if root else []
    if local and local.exists():
        found = Found(local, "local", "", sha256(local))
    elif other := next((path for path in others if path.exists()), None):
        return Found(other, "local", "", sha256(other))  # the same items, other bytes
    else:
        found = _fetched(name, local)
    _check(name, found)
    return found


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept_file(name: str) -> Path:
    """Where the file of benchmark `name` is kept once it was fetched."""
    return runs_root() / "benchmarks" / benchmark_registry()[name]["file"]


def _fetched(name: str, local: Path | None) -> Found:
    entry, file = locked("benchmarks").get(name), kept_file(name)
    if entry and file.exists():
        return Found(file, entry["source"], entry["revision"], sha256(file))
    wanted = local or f"LIMO_NB_DATA/benchmarks/{file.name}"
    source = _facts()["_sources"][benchmark_registry()[name]["source"]]
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        tried = ["not fetched: HF_HUB_OFFLINE is set"]
    else:
        tried = []
        for attempt in _attempts(name, source):
            try:
                return attempt()
            except Exception as error:  # each way of being offline has a class of its own
                tried.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    raise FileNotFoundError(
        f"benchmark {name!r} is not at {wanted}, and {source['title']} gave nothing "
        f"({'; '.join(tried)}): connect, or set LIMO_NB_DATA to a folder that has "
        f"benchmarks/{file.name}"
    )


def _attempts(name: str, source: Mapping[str, Any]) -> list[Callable[[], Found]]:
    """Ways to fetch a benchmark, in order; each raises or returns."""
    file = benchmark_registry()[name]["file"]
    if "hub" in source:
        return [lambda: _from_hub(name, source["hub"])]
    urls = [url.format(file=file, stem=Path(file).stem) for url in source["urls"]]
    return [partial(_from_url, name, url) for url in urls]


def _from_hub(name: str, repository: str) -> Found:
    """A file of a Hub data set, at the locked revision if there is one.

    A folder stands for a data set, as in `load_dataset`; it has no revision.
    """
    from datasets import DownloadManager
    from huggingface_hub import dataset_info

    file, root, commit = kept_file(name), repository, ""
    if not Path(repository).is_dir():
        pinned = locked("benchmarks").get(name, {}).get("revision")
        commit = pinned or dataset_info(repository).sha or ""
        root = f"hf://datasets/{repository}@{commit}"
    path = DownloadManager().download(
        f"{root}/{benchmark_registry()[name].get('at', file.name)}"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    copy = file.with_name(f".{file.name}.{os.getpid()}.partial")
    shutil.copyfile(path, copy)
    copy.replace(file)
    return Found(file, f"hub:{repository}/{file.name}", commit, sha256(file))


def _from_url(name: str, url: str) -> Found:
    """A file from a web server, which must have the digest that is known of it, if any."""
    import pooch

    file = kept_file(name)
    known = benchmark_registry()[name].get("sha256") or locked("benchmarks").get(name, {}).get(
        "sha256"
    )
    file.unlink(missing_ok=True)  # one that no lock entry vouches for
    pooch.get_logger().setLevel("WARNING")
    pooch.retrieve(
        url, f"sha256:{known}" if known else None, file.name, file.parent,
        downloader=pooch.HTTPDownloader(timeout=60),
    )  # fmt: skip
    return Found(file, url, "", sha256(file))


def _check(name: str, found: Found) -> None:
    """Compare `found` with the registry and the lock file; record what is fetched first."""
    recorded = locked("benchmarks").get(name)
    released = benchmark_registry()[name].get("sha256")
    if released and found.sha256 != released:
        raise ValueError(
            f"{found.path} is not the released file of {name!r}: sha256 {found.sha256}, "
            f"benchmarks.yaml has {released}. Remove or rename it"
        )
    if not recorded and found.source != "local":
        facts = {"source": found.source, "revision": found.revision, "sha256": found.sha256}
        recorded = pin("benchmarks", name, facts)
    if recorded and found.sha256 != recorded["sha256"]:
        raise ValueError(
            f"{found.path} is not what was fetched first for {name!r}: sha256 "
            f"{found.sha256}, {lock_file()} has {recorded['sha256']} of {recorded['fetched']}. "
            f"Delete that entry to accept the new file, or the file to fetch it again"
        )


# ---------------------------------------------------------------- rows
def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


KINDS: dict[str, Callable[[Any], bool]] = {  # of references
    "integer": lambda value: bool(re.fullmatch(r"-?\d+", str(value))),
    "whole": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "letter": lambda value: value in list("ABCD"),
    "text": lambda value: isinstance(value, str) and bool(value.strip()),
    "list": lambda value: isinstance(value, list) and bool(value),
    "mapping": lambda value: isinstance(value, Mapping) and bool(value),
}


def read_benchmark(path: Path, name: str | None = None) -> Dataset:
    """A released benchmark file with the columns of BENCHMARK_COLUMNS.

    The id of a row is `<benchmark>-<line>`. `name` says which benchmark it is where the
    file's name does not. Raises ValueError for a file that the registry does not know,
    that has another number of rows, or that has rows which do not fit the schema: each is
    named by its line, and none is left out silently.
    """
    name = name or _named(path)
    facts, rows, number = benchmark_registry()[name], [], 0
    for other in facts.get("also", []):
        if Path(other["file"]).name == path.name:
            facts = {**facts, **other}
    broken: list[str] = []
    for number, (place, record) in enumerate(read_records(path, broken), 1):
        try:
            rows.append(_item(record, place, name, facts, number))
        except ValueError as error:
            broken.append(str(error))
    if broken:
        more = f"\nand {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise ValueError("\n".join(broken[:SHOWN]) + more)
    if number != facts["rows"]:
        raise ValueError(f"{path}: {number} rows, the release has {facts['rows']}")
    return Dataset.from_list(rows, features=BENCHMARK_COLUMNS)


def _named(path: Path) -> str:
    known = {
        fact["file"]: name for name, fact in benchmark_registry().items() if "file" in fact
    }
    if path.name not in known:
        raise ValueError(f"{path}: not in benchmarks.yaml, which knows {', '.join(known)}")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: LIMO_NB_DATA/benchmarks needs it")
    return known[path.name]


def _item(record: Any, place: str, name: str, facts: Mapping, line: int) -> dict[str, Any]:
    _fits(record, place, facts)
    answer = plain_answer(record[facts["answer"]])
    answer = answer.rpartition(facts.get("mark", "\0"))[2].strip()
    letter = record.get(facts.get("choices"), "")
    if letter and not answer.startswith(f"{letter}."):
        answer = f"{letter}. {answer}"  # the letter or the text of the option will do
    question, identifier = record[facts["question"]], f"{name}-{line}"
    if facts.get("shuffle"):
        question, answer = shuffle_options(question, answer, identifier, place)
    return {
        "id": identifier,
        "question": question,
        "answer": answer,
        "solution": str(record.get("solution") or ""),
        "source": name,
        "subject": str(record.get(facts.get("subject"), "")),
        "level": level_of(record.get(facts.get("level")), place),
        "benchmark": name,
        "in_domain": facts["in_domain"],
    }


def _fits(record: Any, place: str, facts: Mapping) -> None:
    """Raise ValueError where a record is not what the registry says of its benchmark."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{place}: expected a mapping, found {type(record).__name__}")
    for field in (facts["question"], facts["answer"]):
        if record.get(field) in (None, ""):
            raise ValueError(f"{place}: no {field!r}")
    if not KINDS["text"](record[facts["question"]]):
        raise ValueError(f"{place}: {facts['question']!r} is not text")
    value = record[facts["answer"]]
    if not any(KINDS[kind](value) for kind in facts["references"]):
        kinds = " or ".join(facts["references"])
        raise ValueError(f"{place}: {facts['answer']!r} is {value!r}, expected {kinds}")
    letter = record.get(facts.get("choices"), "")
    if letter not in ("", *"ABCD"):
        raise ValueError(f"{place}: {facts['choices']!r} is {letter!r}, expected A to D or ''")


OPTIONS = re.compile(
    r"(?P<stem>.*?)\n+A\. (?P<A>.*?)\n+B\. (?P<B>.*?)\n+C\. (?P<C>.*?)\n+D\. (?P<D>.*?)"
    r"(?P<request>\n\nPlease reason.*)?",
    re.DOTALL,
)


def shuffle_options(question: str, answer: str, seed: str, place: str = "") -> tuple[str, str]:
    """`question` with its options A–D permuted by `seed`, and the letter of the answer.

    The released GPQA has the right option first in every item, so that a model that
    always says "A" would score 1.
    """
    found = OPTIONS.fullmatch(question)
    if not found:
        raise ValueError(f"{place}: expected options A. to D., each on its line")
    order = random.Random(seed).sample("ABCD", 4)
    lines = [f"{letter}. {found[old]}" for letter, old in zip("ABCD", order, strict=True)]
    text = found["stem"] + "\n\n" + "\n".join(lines) + (found["request"] or "")
    return text, "ABCD"[order.index(answer)]


def duplicates(items: Dataset) -> list[tuple[str, str]]:
    """Pairs (id, id of the earlier item with the same question) within a benchmark."""
    first: dict[tuple[str, str], str] = {}
    found = []
    for row in items.select_columns(["id", "benchmark", "question"]):
        key = (row["benchmark"], " ".join(row["question"].split()))
        earlier = first.setdefault(key, row["id"])
        if earlier != row["id"]:
            found.append((row["id"], earlier))
    return found


# ---------------------------------------------------------------- items
def real_benchmarks(root: Path, names: Sequence[str] | None = None) -> Dataset:
    """The items of the paper's benchmarks, or of `names`, from files in `root`/benchmarks."""
    chosen = of_paper() if names is None else known(names)
    files = [root / "benchmarks" / benchmark_registry()[name]["file"] for name in chosen]
    return concatenate_datasets([read_benchmark(file) for file in files])


def load_benchmark(name: str, count: int | None = None) -> Dataset:
    """The items of benchmark `name`, at most `count` of them (of each of the lab's ten).

    `gym:FAMILY` and `gym`, which is several families, have `count` items of each. Where a
    benchmark has more items, the same random ones are taken every time.
    """
    if name == "lab":
        rows = lab.benchmarks(count or LAB_ITEMS)
        return Dataset.from_list(rows, features=BENCHMARK_COLUMNS)
    if is_drawn(name):
        return _drawn(name, count or gym_facts()["items"])
    items = OWN[name].items if name in OWN else read_benchmark(
        locate(known([name])[0]).path, name
    )  # fmt: skip
    if count is None or count >= len(items):
        return items
    return items.select(sorted(random.Random(name).sample(range(len(items)), count)))


def is_drawn(name: str) -> bool:
    """Whether the items of benchmark `name` are drawn from reasoning-gym."""
    return name == "gym" or name.startswith(GYM)


def _drawn(name: str, count: int) -> Dataset:
    """`count` test items of each family that `name` stands for, from the stated seed.

    The first ones of a longer list: more items are these and others.
    """
    sides = {side: gym_facts()[f"{side}_domain"] for side in ("in", "out_of")}
    listed = {**sides["in"], **sides["out_of"]}
    family = name.removeprefix(GYM)
    chosen = listed if name == "gym" else {family: listed.get(family, {})}
    rows = gym_rows(chosen, count * len(chosen), gym_facts()["seed"], "test")
    items = [
        {
            **row,
            "benchmark": f"{GYM}{row['subject']}",
            "in_domain": row["subject"] in sides["in"],
        }
        for row in rows
    ]
    return Dataset.from_list(items, features=BENCHMARK_COLUMNS)


def benchmark_items(settings: EvaluationSettings) -> Dataset:
    """At most `settings.items` items of each benchmark, as BENCHMARK_COLUMNS.

    "lab" stands for the lab's ten.
    """
    names = known(settings.benchmarks)
    if not names:
        raise ValueError("evaluation.benchmarks is empty: name lab or a benchmark")
    return concatenate_datasets([load_benchmark(name, settings.items) for name in names])


def to_avoid(settings: EvaluationSettings) -> Dataset:
    """Every item of the benchmarks in `settings`, not only those that are evaluated.

    A run on a few items must not let the others into the training set. Items of
    reasoning-gym are left out: no pool can have them (`problems.gym`), and their fixed
    instructions would make every task of a family share n-grams with them.
    """
    most = max(settings.items, LAB_ITEMS)
    names = [name for name in known(settings.benchmarks) if not is_drawn(name)]
    tables = [load_benchmark(n, most if n == "lab" else None) for n in names]
    none = Dataset.from_dict({name: [] for name in BENCHMARK_COLUMNS}, BENCHMARK_COLUMNS)
    return concatenate_datasets(tables or [none])


def tenth_of(settings: EvaluationSettings) -> EvaluationSettings:
    """`settings` with a tenth of the items of each benchmark, at least two."""
    return settings.model_copy(update={"items": max(2, settings.items // 10)})


def compared_part(settings: EvaluationSettings) -> EvaluationSettings:
    """`settings` with the items on which many ways of asking are compared.

    A tenth, or as many as `compared_items` says.
    """
    if settings.compared_items is None:
        return tenth_of(settings)
    return settings.model_copy(update={"items": min(settings.items, settings.compared_items)})
