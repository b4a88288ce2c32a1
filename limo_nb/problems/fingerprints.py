"""What one pass over a pool keeps of every question (chapter 3).

A pool is read once, in lists of some thousands, by several processes where it is large. A
question is reduced to its fingerprint: a digest of its normal form, a MinHash signature,
and one bit, whether it may repeat a benchmark item. So a pool of a million fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from joblib import Parallel, cpu_count, delayed
from rensa import RMinHash

from limo_nb.core.progress import progress_bar
from limo_nb.problems.contamination import Decontaminator, Prefilter
from limo_nb.problems.duplicates import signatures
from limo_nb.problems.text import WORD, normalise, wording, words_of

PARALLEL_FROM = 50_000  # questions from which a second process is worth its start


@dataclass(frozen=True)
class Fingerprints:
    """Those of many questions, in order."""

    exact: list[bytes]  # digests of the normal forms, empty where not wanted
    signatures: list[RMinHash]  # for near duplicates, empty where not wanted
    suspects: np.ndarray  # (questions,) bool: may repeat a benchmark item


def fingerprint(
    questions: Iterable[list[str]],
    total: int,
    near: float | None = None,
    decontaminator: Decontaminator | None = None,
    workers: int | None = None,
) -> Fingerprints:
    """The fingerprints of all `questions`, which come in lists of any size, `total` in all.

    Digests and signatures are made where `near`, the threshold of near duplicates, is given;
    suspects where there is a `decontaminator`. From PARALLEL_FROM questions on the work is
    shared by `workers` processes (None: one a core, four at most), which come from joblib's
    loky: it needs no guard in a script and no file behind a notebook.
    """
    prefilter = decontaminator.prefilter() if decontaminator else None
    normal = decontaminator.normal if decontaminator else wording
    large = total >= PARALLEL_FROM
    if workers is None:
        workers = min(4, cpu_count()) if large else 1
    parts = []
    with progress_bar(total, "problems", "comparing texts") if large else nullcontext() as bar:
        for part in _mapped(questions, (near, prefilter, normal), workers):
            parts.append(part)
            if bar is not None:
                bar.update(len(part.suspects))
    return Fingerprints(
        [digest for part in parts for digest in part.exact],
        [signature for part in parts for signature in part.signatures],
        np.concatenate([np.zeros(0, bool)] + [part.suspects for part in parts]),
    )


def _mapped(
    questions: Iterable[list[str]], arguments: tuple, workers: int
) -> Iterator[Fingerprints]:
    if workers == 1:
        for part in questions:
            yield _fingerprint_list(part, *arguments)
        return
    pool = Parallel(workers, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
    yield from pool(delayed(_fingerprint_list)(part, *arguments) for part in questions)


def _fingerprint_list(
    questions: list[str],
    near: float | None,
    prefilter: Prefilter | None,
    normal: Callable[[str], str],
) -> Fingerprints:
    own = normal is not wording  # another form than that of duplicates
    texts = [] if own and near is None else [normalise(question) for question in questions]
    rows = [words_of(text) for text in texts]
    compared = [WORD.findall(normal(question)) for question in questions] if own else rows
    suspects = prefilter.suspects(compared) if prefilter else np.zeros(len(questions), bool)
    if near is None:
        return Fingerprints([], [], suspects)
    exact = [
        blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in texts
    ]
    return Fingerprints(exact, signatures(rows, near), suspects)
