"""What fine-tuning is made of and what it left, as tables and pictures (chapter 6)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from matplotlib.figure import Figure

from limo_nb.book import (
    chain_viewer,
    plots,
)
from limo_nb.book.templates import macros
from limo_nb.core import paper
from limo_nb.core.precision import settle
from limo_nb.core.settings import (
    Profile,
    SftSettings,
)
from limo_nb.sft import IGNORED, Encoded, encode, planner, read_log
from limo_nb.sft.job import LogRow

TEMPLATE = "book/sft_report.jinja"
THINKING = Path(__file__).with_name("thinking_template.jinja")
Row = dict[str, Any]


def tokens_html(tokenizer: Any, row: Encoded) -> str:
    """The text of a row, one span a token: solid line with loss, dotted without."""
    return str(macros(TEMPLATE).tokens(_marked(tokenizer, row)))


def token_pair_html(rows: Mapping[str, tuple[Any, Encoded]]) -> str:
    """The same for rows of several tokenizers, each under its name, side by side."""
    marked = [(name, _marked(*row)) for name, row in rows.items()]
    return str(macros(TEMPLATE).token_pair(marked))


def _marked(tokenizer: Any, row: Encoded) -> list[tuple[str, bool]]:
    texts = (tokenizer.decode([token]).replace("\n", "↵\n") for token in row.ids)
    return list(zip(texts, (label != IGNORED for label in row.labels), strict=True))


def thinker(tokenizer: Any) -> Any:
    """A copy of `tokenizer` with a chat template that writes thoughts as Qwen3's does.

    The template is this book's, for one question and its reply: what chapter 6 looks at.
    """
    own = copy.deepcopy(tokenizer)
    own.add_tokens(["<think>", "</think>"])
    own.chat_template = THINKING.read_text("utf-8")
    return own


def sizes(tokenizer: Any, rows: Dataset, settings: SftSettings, system: str, steps: int) -> Row:
    """Rows and tokens of a training set, and what training with `settings` makes of them.

    Tokens are after cutting at the limit; `steps` is the number of optimiser steps.
    """
    encoded = encode(rows, tokenizer, system, settings.max_tokens, chat=settings.chat)
    learnt = sum(label != IGNORED for row in encoded.rows for label in row.labels)
    return {
        "rows": len(rows),
        "tokens a row": sum(encoded.lengths) / len(rows),
        "with loss, a row": learnt / len(rows),
        "epochs": settings.epochs,
        "rows a step": settings.batch_size,
        "steps": steps,
        "tokens with loss, whole run": settings.epochs * learnt,
    }


def sizes_of(
    tokenizer: Any,
    sets: Mapping[str, Dataset],
    settings: Mapping[str, SftSettings],
    system: str,
) -> pd.DataFrame:
    """`sizes` of several training sets, a row each, with the settings of each."""
    made = {}
    for name, rows in sets.items():
        own = settings[name]
        steps = own.epochs * -(-len(rows) // own.batch_size)
        made[name] = sizes(tokenizer, rows, own, system, steps)
    return pd.DataFrame(made).T


def share_with_loss(row: Encoded) -> str:
    """How many of a row's tokens carry loss, as a sentence's part."""
    learnt = sum(label != IGNORED for label in row.labels)
    return f"{learnt} of {len(row.ids)} tokens carry loss"


def published(*profiles: Profile) -> pd.DataFrame:
    """What is published of LIMO's own training, beside the settings of `profiles`."""
    facts = paper.reported()["fine_tuning"]
    batches = facts["batch_size"]
    said = {
        "base model": "Qwen2.5-32B-Instruct",
        "epochs": facts["epochs"],
        "rows a step": f"{batches['paper']} (paper) or {batches['authors']} (authors)",
        "learning rate": f"{facts['learning_rate']:g}",
        "schedule": facts["scheduler"],
        "warm-up": f"{facts['warmup_ratio']:g}",
        "token limit": facts["max_tokens"],
        "ZeRO stage": facts["zero_stage"],
        "ranks": "32 GPUs (authors)",
        "precision": "bfloat16",
        "evaluated model": f"epoch {facts['released_epoch']}, the best on the test sets",
    }
    columns = {f"profile {profile.name}": _settings_of(profile) for profile in profiles}
    return pd.DataFrame({"published": said, **columns}).astype(str)


def _settings_of(profile: Profile) -> Row:
    """The rows of `published` for a profile."""
    sft = profile.sft
    versions = {name: sft.version(name).batch_size for name in sft.versions}
    other = [f"{size} ({name})" for name, size in versions.items() if size != sft.batch_size]
    return {
        "base model": profile.models.base,
        "epochs": sft.epochs,
        "rows a step": " or ".join([str(sft.batch_size), *other]),
        "learning rate": f"{sft.learning_rate:g}",
        "schedule": sft.scheduler,
        "warm-up": f"{sft.warmup_ratio:g}",
        "token limit": sft.max_tokens,
        "ZeRO stage": sft.zero_stage,
        "ranks": sft.ranks,
        "precision": settle(sft.dtype).dtype,
        "evaluated model": "the best on held-out questions" if sft.held_out else "the last",
    }


def log_of(folder: Path) -> list[LogRow]:
    """The rows of a training log, one per optimiser step."""
    return read_log(folder / "log.jsonl")


def precisions(folder: Path) -> pd.DataFrame:
    """The loss of each step in float32 and in bfloat16, of the stage `models/precision`."""
    named = {dtype: log_of(folder / dtype) for dtype in ("float32", "bfloat16")}
    losses = {dtype: [row["loss"] for row in log] for dtype, log in named.items()}
    steps = [row["step"] for row in named["float32"]]
    return pd.DataFrame(losses, index=pd.Index(steps, name="step"))


def run_summary(folder: Path) -> Row:
    """What a run took: losses in nats a token, seconds, tokens a second, GiB.

    The seconds leave out starting interpreters, importing and joining the ranks; memory
    is the peak of a rank, tokens are those of rows, without padding.
    """
    log, done = log_of(folder), json.loads((folder / "done.json").read_text())
    return {
        "rows": done["rows"],
        "steps": done["steps"],
        "first loss": log[0]["loss"],
        "last loss": log[-1]["loss"],
        "tokens/s": log[-1]["tokens_per_second"],
        "training (s)": done["seconds"],
        "GiB a rank": done["peak_memory_gib"],
    }


DIGITS = {
    "first loss": 2, "last loss": 2, "tokens/s": 0, "training (s)": 0, "GiB a rank": 1,
}  # fmt: skip


def over_seeds(trained: Mapping[tuple[str, int], Path]) -> pd.DataFrame:
    """A row an arm: mean over its seeds, lowest and highest, of what `run_summary` has."""
    every = [{"arm": arm, **run_summary(folder)} for (arm, _), folder in trained.items()]
    arms = pd.DataFrame(every).groupby("arm", sort=False)
    return pd.DataFrame(
        {arm: {name: _spread(own[name], n) for name, n in DIGITS.items()} for arm, own in arms}
    ).T


def _spread(values: pd.Series, digits: int) -> str:
    ends = (f"{value:,.{digits}f}" for value in (values.min(), values.max()))
    return f"{values.mean():,.{digits}f} ({' to '.join(ends)})"


def cost(trained: Mapping[tuple[str, int], Path], seconds: float) -> str:
    """What the runs took, of which `seconds` with start-up, as a sentence's part."""
    runs = [run_summary(folder) for folder in trained.values()]
    training = sum(run["training (s)"] for run in runs) / 60
    memory_used = max(run["GiB a rank"] for run in runs)
    return (
        f"{len(runs)} models in {seconds / 60:.1f} minutes, of which {training:.1f} were "
        f"training, with at most {memory_used:.1f} GiB of memory in a rank"
    )


def losses_by_part(
    logs: Sequence[Sequence[LogRow]], parts: int
) -> list[tuple[float, float, float]]:
    """(mean, lowest, highest) over the runs of the mean loss in each of `parts` parts.

    Raises ValueError where a run has fewer steps than parts.
    """
    if min(map(len, logs)) < parts:
        raise ValueError(f"{min(map(len, logs))} steps cannot be cut into {parts} parts")
    losses = [np.array_split([row["loss"] for row in log], parts) for log in logs]
    table = np.array([[part.mean() for part in run] for run in losses])
    return [(float(c.mean()), float(c.min()), float(c.max())) for c in table.T]


Logs = Mapping[tuple[str, int], Sequence[LogRow]]  # of (arm, seed)


def loss_curves(logs: Logs) -> tuple[list[int], dict[str, list[tuple[float, float, float]]]]:
    """(percent done, per arm `losses_by_part` over its seeds), in at most ten parts."""
    parts = min(10, *map(len, logs.values()))
    done = [round(100 * (part + 1) / parts) for part in range(parts)]
    arms = dict.fromkeys(arm for arm, _ in logs)
    return done, {arm: losses_by_part(_seeds(logs, arm), parts) for arm in arms}


def _seeds(logs: Logs, arm: str) -> list[Sequence[LogRow]]:
    return [log for (name, _), log in logs.items() if name == arm]


def first_step(logs: Logs, good: str, poor: str) -> str:
    """How far two arms with the same rows are from them before any update."""
    start, other = (
        losses_by_part([log[:1] for log in _seeds(logs, arm)], 1)[0][0] for arm in (good, poor)
    )
    where = "further from" if other > start else "no further from"
    return (
        f"in the first step, before any update, the foundation is at {start:.2f} nats on "
        f"LIMO's rows and the poor backbone at {other:.2f}, {where} them"
    )


def slope(points: Sequence[tuple[float, float, float]]) -> str:
    """Whether the curve of the bulk arm falls, as a sentence's part."""
    begun, ended = points[0][0], points[-1][0]
    falls = "hardly falls" if ended > 0.8 * begun else "falls"
    return f"bulk's {falls}, from {begun:.2f} to {ended:.2f} between its ends"


def memory_rows(plans: Sequence[planner.Plan]) -> list[Row]:
    """One row a plan: GB of a GPU by part and at the peak, of a node's host, and time."""
    return [
        {
            "setup": planner.label(plan.setup),
            **plan.parts(),
            "peak": plan.peak / planner.GB,
            "fits": "yes" if plan.fits else "no",
            "host, a node": plan.host / planner.GB,
            "s a step": plan.step_seconds,
            "GPU-hours": plan.gpu_hours,
        }
        for plan in plans
    ]


def memory_finding(plans: Sequence[planner.Plan]) -> str:
    """Which of `plans`, the first of which changes nothing, fits: a picture's title."""
    setup, fitting = plans[0].setup, [plan for plan in plans if plan.fits]
    where = f"{setup.gpus} × {setup.gpu_memory:g} GB"
    if not fitting:
        return f"{setup.model} fits {where} at {setup.tokens:,} tokens in no way shown"
    if plans[0].fits:
        return f"{setup.model} fits {where} at {setup.tokens:,} tokens as it is"
    need = f"{fitting[0].host / planner.GB:,.0f} GB of host memory"
    what = planner.changes(fitting[0].setup)
    return f"{setup.model}, {setup.tokens:,} tokens: {where} do with {what} and {need}"


def fitting(models: Sequence[str], setup: planner.Setup) -> list[Row]:
    """A row a model: the least change of `setup` with which it fits, and what that takes."""
    rows = []
    for model in models:
        own = replace(setup, model=model, shape=planner.shape_of(model))
        fits = next((plan for plan in planner.alternatives(own) if plan.fits), None)
        needs = {"peak, GB of a GPU": "", "host, GB": "", "GPU-hours": ""}
        if fits:
            values = (fits.peak / planner.GB, fits.host / planner.GB, fits.gpu_hours)
            needs = {n: f"{v:,.0f}" for n, v in zip(needs, values, strict=True)}
        how = (planner.changes(fits.setup) or "as it is") if fits else "in no way shown"
        rows.append({"model": model.split("/")[-1], "fits": how, **needs})
    return rows


def memory_picture(plans: Sequence[planner.Plan], title: str) -> Figure:
    """Stacked bars, GB of one GPU by part, with its memory as a line.

    Activations, logits and the optimiser's step are not there at the same time: the later
    part of a bar is what it adds to the peak.
    """
    bars = [(planner.label(plan.setup), plan.stacked()) for plan in plans]
    size = plans[0].setup.gpu_memory
    return plots.stacked(bars, title, "GB of one GPU", (size, f"the GPU has {size:g} GB"))


def answers_html(items: Sequence[Mapping], answers: Mapping[str, Sequence[str]]) -> str:
    """Each item (question, answer) with the answers of every model side by side."""
    shown = []
    for number, item in enumerate(items):
        chains = []
        for name, texts in answers.items():
            # One legend, under the last answer, is enough.
            legend = (name, number) == (list(answers)[-1], len(items) - 1)
            text = texts[number].strip() or "(nothing)"
            chains.append(chain_viewer.chain_html(text, name, legend))
        shown.append((f"{item['question']} [{item['answer']}]", chains))
    return str(macros(TEMPLATE).answers(shown))
