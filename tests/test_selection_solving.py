"""Attempts at problems: sampled once, verified, stopped where the verdict is settled."""

from collections import Counter

import pytest
from datasets import Dataset
from test_selection_choice import problem, problems
from tiny import tiny_model

from limo_nb import lab
from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings, FilterSettings
from limo_nb.problems import COLUMNS
from limo_nb.selection import rates, solving

ENGINE = EngineSettings(kind="transformers", workers=1, batch_size=8, dtype="float32")


def test_solve_attempts_every_problem_and_resumes(tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    pool = Dataset.from_list(lab.pool(3, seed=1), features=COLUMNS)
    sampling = {"samples": 2, "temperature": 1.0, "max_new_tokens": 6, "seed": 3}
    settings = FilterSettings(sampling=sampling, keep=(0, 0))
    first = solving.solve(pool, model, settings, ENGINE, "Answer.", tmp_path)
    assert first.column_names == list(solving.Attempt.__annotations__)
    pairs = list(zip(first["id"], first["sample"], strict=True))
    assert pairs == [(name, sample) for name in pool["id"] for sample in (0, 1)]
    assert all(verdict is not True for verdict in first["correct"])  # it knows nothing
    (store,) = tmp_path.glob("*.sqlite")
    before = store.stat().st_mtime_ns
    again = solving.solve(pool, model, settings, ENGINE, "Answer.", tmp_path)
    assert again.to_list() == first.to_list()
    assert store.stat().st_mtime_ns == before  # nothing was made again


def rows_of(table):
    return {(row["id"], row["sample"]): (row["text"], row["correct"]) for row in table}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Forty problems, eight attempts of the lab's weak solver at each, in one store."""
    folder = tmp_path_factory.mktemp("solved")
    pool = Dataset.from_list(lab.pool(40, seed=1), features=COLUMNS)
    sampling = {"samples": 8, "temperature": 1.0, "max_new_tokens": 64, "seed": 3}

    def solve(**settings):
        settings = FilterSettings(sampling=sampling, **{"keep": (1, 2), **settings})
        engine = EngineSettings(batch_size=64, dtype="float32")
        attempts = solving.solve(pool, "lab:weak", settings, engine, SYSTEM_PROMPT, folder)
        counts = rates.solve_counts(attempts)
        return settings, attempts, rates.keep_by_rate(pool, counts, settings.keep)

    solve.pool, solve.folder = pool, folder
    return solve


@pytest.mark.parametrize(
    ("stop_every", "keep"), [(1, (1, 2)), (3, (0, 0)), (8, (1, 2))], ids=str
)
def test_stopping_changes_no_verdict(solved, stop_every, keep):
    """What is drawn is what would have been drawn, and less of it."""
    _, everything, whole = solved(keep=keep)
    settings, part, stopped = solved(keep=keep, stop_every=stop_every, never_stopped=5)
    assert stopped.kept["id"] == whole.kept["id"]
    assert stopped.dropped["id"] == whole.dropped["id"]
    # Other batches add up logits in another order, and a near tie may then fall otherwise.
    other = rows_of(part).items() - rows_of(everything).items()
    assert len(other) <= 0.02 * len(part)
    saved = len(everything) - len(part)
    assert (saved > 0) == (stop_every < 8)
    full = Counter(part["id"])
    sample = solving.never_stopped(solved.pool, settings)
    assert len(sample) == 5 and all(full[name] == 8 for name in sample)
    counts = rates.solve_counts(part)
    fair = solving.fair_counts(counts, solved.pool, settings)
    assert sorted(fair["id"]) == sample and set(fair["n"]) == {8}
    order = [(solved.pool["id"].index(name), n) for name, n in zip(part["id"], part["sample"],
             strict=True)]  # fmt: skip
    assert order == sorted(order)


def test_another_band_samples_nothing_again(solved):
    solved()
    (store,) = solved.folder.glob("*.sqlite")
    before = store.read_bytes()
    for keep in ((0, 0), (2, 7)):
        solved(keep=keep, stop_every=4)
    assert store.read_bytes() == before


def test_without_stopping_all_are_a_fair_sample(solved):
    settings, _, _ = solved()
    assert solving.never_stopped(solved.pool, settings) == sorted(solved.pool["id"])


def test_solve_of_nothing_says_so(tmp_path):
    settings = FilterSettings(sampling={"max_new_tokens": 1}, keep=(0, 0))
    with pytest.raises(ValueError, match="left none"):
        solving.solve(problems("a").select([]), "none", settings, ENGINE, "", tmp_path)


def test_attempts_are_graded_against_their_own_question():
    rows = [problem("a"), {**problem("b"), "answer": "7"}]
    texts = [("a", 0, "\\boxed{6}"), ("a", 1, "\\boxed{7}"), ("b", 0, "\\boxed{7}"),
             ("b", 1, "no idea"), ("a", 2, "\\boxed{6}")]  # fmt: skip
    answers = Dataset.from_list(
        [
            {"id": name, "sample": sample, "text": text, "tokens": 3, "finished": True}
            for name, sample, text in texts
        ]
    )
    graded = solving.grade_attempts(Dataset.from_list(rows, features=COLUMNS), answers)
    assert graded["correct"] == [True, False, True, False, True]
