"""Attempts of a model at problems, each with its verdict (chapter 4; LIMO v3, section 3.1).

A question is judged by what models make of it, never by what its author or generator
knows about its difficulty.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypedDict

import numpy as np
from datasets import Dataset, concatenate_datasets

from limo_nb.core.settings import EngineSettings, FilterSettings
from limo_nb.grading.verifiers import BY_REFERENCE, Verifier
from limo_nb.inference import Engine, chat_prompt, complete, open_engine, shared_store


class Attempt(TypedDict):
    """A row of a table of attempts: one completion of one problem, and whether it is right."""

    id: str  # of the problem
    sample: int  # its number among the attempts at the problem, from 0
    text: str  # what the model wrote
    tokens: int  # of the text
    finished: bool  # the model ended by itself, not at the limit of tokens
    correct: bool | None  # None: it cannot be verified


def solve(
    problems: Dataset,
    model: str,
    settings: FilterSettings,
    engine: EngineSettings | Engine,
    system_prompt: str,
    folder: Path,
    verifier: Verifier = BY_REFERENCE,
) -> Dataset:
    """Every problem attempted `settings.sampling.samples` times by `model`, and verified.

    Rows of `Attempt`, in the order of `problems` and then of sampling. `engine` says how
    completions of `model` are made, or makes them itself; `verifier` says which are right.
    With `settings.stop_every`, attempts are drawn in rounds of so many, and a problem that
    has more right answers than its band allows gets no more, except those of
    `never_stopped`. Completions are kept in a store that the stages of a run share, so that
    a killed run, another band or a longer pool finds what was sampled.
    """
    if not len(problems):
        raise ValueError(
            "no problems to solve: the filter before this one left none. Let it keep more "
            "(coarse.keep, fine.keep), or take a larger pool (pool.size)"
        )
    whole = set(never_stopped(problems, settings)) | _repeated(problems)
    total = settings.sampling.samples
    size = settings.stop_every or total
    rounds: list[Dataset] = []
    engine = open_engine(engine, model) if isinstance(engine, EngineSettings) else engine
    with engine as opened:
        store = shared_store(folder, opened)
        for first in range(0, total, size):
            asked = _open(problems, rounds, settings, whole)
            if not len(asked):
                break
            some = {"samples": min(size, total - first)}
            sampling = settings.sampling.model_copy(update=some)
            items = [(row["id"], chat_prompt(row["question"], system_prompt)) for row in asked]
            label = model if size == total else f"{model}, from {first + 1}"
            answers = complete(opened, items, sampling, store, label, first)
            rounds.append(grade_attempts(asked, answers, verifier))
    return _by_problem(problems, concatenate_datasets(rounds))


def _repeated(problems: Dataset) -> set[str]:
    """The ids of problems whose question stands several times.

    Equal prompts get samples of their own by their order (`inference.complete`), so to stop
    one of them would give its samples to the next.
    """
    counts = Counter(problems["question"])
    pairs = zip(problems["id"], problems["question"], strict=True)
    return {name for name, question in pairs if counts[question] > 1}


def never_stopped(problems: Dataset, settings: FilterSettings) -> list[str]:
    """The ids of a fair sample of `settings.never_stopped` problems, or of all.

    A rate from attempts that ended at a success is too high, and one that ended at the
    upper end of the band is censored. Distributions are drawn from these, which get all
    attempts whatever comes.
    """
    names = sorted(problems["id"])
    if settings.stop_every is None:
        return names
    order = np.random.default_rng(settings.sampling.seed).permutation(len(names))
    return sorted(names[place] for place in order[: settings.never_stopped])


def fair_counts(counts: Dataset, problems: Dataset, settings: FilterSettings) -> Dataset:
    """Of `counts`, those whose rates may be drawn as a distribution (see never_stopped)."""
    fair = set(never_stopped(problems, settings))
    return counts.select([n for n, name in enumerate(counts["id"]) if name in fair])


def _open(
    problems: Dataset, rounds: list[Dataset], settings: FilterSettings, whole: set[str]
) -> Dataset:
    """The problems whose verdict the next attempts can still change, and the `whole`."""
    right = Counter(
        name
        for attempts in rounds
        for name, correct in zip(attempts["id"], attempts["correct"], strict=True)
        if correct
    )
    places = [
        place
        for place, name in enumerate(problems["id"])
        if name in whole or right[name] <= settings.keep[1]
    ]
    return problems.select(places)


def _by_problem(problems: Dataset, attempts: Dataset) -> Dataset:
    """`attempts` in the order of `problems`, then of sampling."""
    place = {name: number for number, name in enumerate(problems["id"])}
    keys = [
        (place[name], sample)
        for name, sample in zip(attempts["id"], attempts["sample"], strict=True)
    ]
    return attempts.select(sorted(range(len(keys)), key=keys.__getitem__))


def grade_attempts(
    problems: Dataset, answers: Dataset, verifier: Verifier = BY_REFERENCE
) -> Dataset:
    """`answers` (id, sample, text, tokens, finished), verified: rows of `Attempt`.

    An answer given several times to one question is judged once.
    """
    references = dict(zip(problems["id"], problems["answer"], strict=True))
    pairs = [
        (references[name], text)
        for name, text in zip(answers["id"], answers["text"], strict=True)
    ]
    different = list(dict.fromkeys(pairs))
    verdicts = verifier.verify([r for r, _ in different], [t for _, t in different])
    known = {pair: verdict.correct for pair, verdict in zip(different, verdicts, strict=True)}
    rows = answers.select_columns(["id", "sample", "text", "tokens", "finished"]).to_list()
    graded = [{**row, "correct": known[pair]} for row, pair in zip(rows, pairs, strict=True)]
    return Dataset.from_list(graded)
