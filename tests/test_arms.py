"""The arms: steps, settings, token budgets, paired differences, resumable jobs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb.chains import choice
from limo_nb.core import settings as profiles
from limo_nb.core.runs import Run
from limo_nb.evaluation import (
    attempts,
    benchmarks,
    estimates,
)
from limo_nb.experiments import (
    ablations,
    differences,
    headline,
    processes,
    variants,
)

SMOKE = profiles.load_profile("smoke")
SFT = SMOKE.sft.model_copy(update={"epochs": 10, "batch_size": 8, "ranks": 2})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("arms") / "tiny"))


def small(model: str) -> profiles.Profile:
    """Profile smoke with the tiny model in every role, and answers of a few tokens."""
    names = dict.fromkeys(("base", "poor", "weak", "strong"), model)
    overrides = {
        "models": names, "evaluation.items": 1, "evaluation.sampling.max_new_tokens": 4,
        "engine.workers": 1, "sft.epochs": 1,
    }  # fmt: skip
    return profiles.load_profile("smoke", overrides)


# ---------------------------------------------------------------- steps and settings
@pytest.mark.parametrize(("rows", "steps"), [(8, 10), (9, 20), (100, 130), (1, 10)])
def test_steps_count_a_part_of_a_batch_as_a_step(rows, steps):
    assert headline.steps_of(SFT, rows) == steps


@pytest.mark.parametrize("rows", [48, 100, 999, 5000, 7])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_equal_steps_sees_every_row_once_in_batches_that_ranks_can_share(rows, ranks):
    settings = SFT.model_copy(update={"ranks": ranks})
    own = headline.at_equal_steps(settings, rows, 130)
    assert own.epochs == 1 and own.batch_size % ranks == 0
    taken = headline.steps_of(own, rows)
    assert taken <= 130 and own.batch_size * taken >= rows
    # A batch smaller by one share of the ranks would take too many steps.
    assert own.batch_size == ranks or (own.batch_size - ranks) * 130 < rows


@pytest.mark.parametrize(
    ("arm", "rows", "epochs", "batch"),
    [
        ("rows-100", 100, 10, 8),  # all rows: the headline settings
        ("rows-50", 50, 19, 8),  # 7 steps an epoch
        ("rows-6", 6, 130, 6),  # fewer rows than a batch: one step an epoch
        ("quality-L1", 60, 16, 8),
        ("rows-5000", 5000, 1, 8),  # never less than an epoch
        ("bulk-tokens", 2000, 1, 8),  # the budget is in tokens, not in steps
    ],
)
def test_arms_take_the_steps_of_the_chosen_rows(arm, rows, epochs, batch):
    own = ablations._arm_settings(SFT, arm, rows, limo=100)
    assert (own.epochs, own.batch_size) == (epochs, batch)
    kept = own.model_dump(exclude={"epochs", "batch_size"})
    assert kept == SFT.model_dump(exclude={"epochs", "batch_size"})


@pytest.mark.parametrize("rows", range(6, 101, 7))
def test_steps_of_small_arms_are_equal_up_to_half_an_epoch(rows):
    own = ablations._arm_settings(SFT, "rows", rows, limo=100)
    epoch = headline.steps_of(own.model_copy(update={"epochs": 1}), rows)
    assert abs(headline.steps_of(own, rows) - headline.steps_of(SFT, 100)) <= epoch / 2


# ---------------------------------------------------------------- equal tokens
def test_equal_tokens_is_the_first_count_that_fills_the_budget(model):
    profile = small(model)
    rows = problems(40, seed=3)
    bulk = [{**row, "solution": f"\\boxed{{{row['answer']}}}"} for row in rows]
    limo = Dataset.from_list(rows[:3])
    count = ablations._equal_tokens(profile, limo, Dataset.from_list(bulk))
    budget = sum(variants.row_tokens(profile, limo)) * profile.sft.epochs
    sums = [sum(variants.row_tokens(profile, bulk[:n])) for n in (count - 1, count)]
    assert 1 < count < len(bulk) and sums[0] < budget <= sums[1]


def test_equal_tokens_takes_all_where_bulk_is_too_small(model):
    rows = Dataset.from_list(problems(6, seed=4))
    assert ablations._equal_tokens(small(model), rows, rows.select(range(2))) == 2


def test_row_tokens_count_prompt_and_solution(model):
    profile, row = small(model), problems(1)[0]
    longer = {**row, "solution": row["solution"] + "7777"}  # digits are single tokens
    one, other = variants.row_tokens(profile, [row, longer])
    assert other - one == 4
    assert one > variants.row_tokens(profile, [{**row, "solution": ""}])[0] > 10


# ---------------------------------------------------------------- differences
def results(right: dict[str, int], items: int = 8) -> Dataset:
    """Made-up results: of `items` items a benchmark the first `right` are correct."""
    rows = [
        {"benchmark": name, "in_domain": name == "near", "level": 1, "id": f"{name}-{i}",
         "sample": 0, "correct": i < count, "answer": "1", "reason": "same", "text": "1",
         "tokens": 1, "finished": True}
        for name, count in right.items() for i in range(items)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=attempts.RESULTS)


def test_paired_differences_by_group():
    found = differences.paired(
        {"a": [results({"near": 8, "far": 4})], "b": [results({"near": 2, "far": 4})]},
        [("a", "b"), ("b", "a")],
    )
    values = {(row["model"], row["group"]): row["value"] for row in found}
    assert values == {
        ("a", "in domain"): 0.75, ("a", "out of domain"): 0.0, ("a", "all"): 0.375,
        ("b", "in domain"): -0.75, ("b", "out of domain"): 0.0, ("b", "all"): -0.375,
    }  # fmt: skip
    for row in found:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["items"] == (16 if row["group"] == "all" else 8)


def test_pairing_takes_out_what_makes_items_hard_for_both():
    """The same difference, but on items that only one side solves by chance of the draw."""
    hard = results({"near": 4, "far": 4})
    better = results({"near": 5, "far": 5})
    (row,) = [r for r in differences.paired({"a": [better], "b": [hard]}, [("a", "b")])
              if r["group"] == "all"]  # fmt: skip
    alone = [estimates.accuracy([side]) for side in (better, hard)]
    unpaired = sum((side.high - side.low) ** 2 for side in alone) ** 0.5
    assert row["value"] == 0.125 and row["high"] - row["low"] < unpaired


def test_paired_differences_by_groups_of_one_s_own():
    tables = {name: [results(marks)] for name, marks in
              (("a", {"near": 4, "far": 2}), ("b", {"near": 2, "far": 2}))}  # fmt: skip
    groups = {"without far": lambda row: row["benchmark"] != "far"}
    (row,) = differences.paired(tables, [("a", "b")], groups)
    (near,) = [r for r in differences.paired(tables, [("a", "b")]) if r["group"] == "all"]
    assert row["group"] == "without far" and row["value"] == 2 * near["value"] > 0


def test_headline_differences_name_every_comparison_of_chapter_8():
    names = ["base", "poor", *variants.HEADLINE]
    found = differences.differences({name: [results({"near": 4, "far": 4})] for name in names})
    pairs = {(row["model"], row["against"]) for row in found}
    assert pairs == {
        ("limo", "base"), ("limo", "bulk"), ("limo", "random"), ("limo", "poor-limo"),
        ("poor-limo", "poor"), ("bulk", "base"), ("random", "base"),
    }  # fmt: skip
    assert all(row["value"] == 0 for row in found)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.3, "above"), (-0.3, -0.1, "below"), (-0.1, 0.3, "not separated from"),
     (0.0, 0.3, "not separated from"), (-0.3, 0.0, "not separated from")],
)  # fmt: skip
def test_a_difference_as_a_sentence(low, high, word):
    row = {"model": "a", "against": "b", "value": (low + high) / 2, "low": low, "high": high}
    assert estimates.relation(row) == word
    sentence = estimates.compared(row)
    assert sentence.startswith(f"a is {word} b: ")
    assert sentence.endswith(f"({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−"))


def test_told_reads_tables_and_differences():
    numbers = {"low": 0.25, "high": 0.75}
    assert estimates.told({"accuracy": 0.5, **numbers}) == "50.0 (25.0 to 75.0)"
    assert estimates.told({"value": 0.5, **numbers}, signed=True) == "+50.0 (+25.0 to +75.0)"


def test_negative_numbers_have_a_minus_and_names_keep_their_hyphens():
    row = {"model": "poor-limo", "against": "poor", "value": -0.1, "low": -0.2, "high": 0.0}
    told = "\N{MINUS SIGN}10.0 (\N{MINUS SIGN}20.0 to +0.0)"
    assert estimates.told(row, signed=True) == told
    assert estimates.compared(row).startswith("poor-limo is not separated from poor: \u2212")


# ---------------------------------------------------------------- quality bands
def chain_rows(per_question: int) -> Dataset:
    rows = [
        {"question_id": f"q{q}", "sample": s, "question": "?", "answer": "1",
         "solution": f"{'Check. ' * s}It is {s}.", "subject": "dial", "level": 3,
         "score": s / 10, "tokens": 10 + s}
        for q in range(3) for s in range(per_question)
    ]  # fmt: skip
    ranked = sorted(rows, key=lambda row: -row["score"])
    return Dataset.from_list(ranked)


def test_bands_keep_the_questions_where_there_are_five_chains():
    banded, within = ablations.quality_bands(chain_rows(6))
    assert within == "question"
    for band in range(1, 6):
        chosen = ablations._band(banded, band, limit=2)
        assert [row["question_id"] for row in chosen] == ["q0", "q1"]
    scores = [ablations._band(banded, band, 3)[0]["score"] for band in range(1, 6)]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_bands_over_the_pool_where_there_are_fewer():
    banded, within = ablations.quality_bands(chain_rows(4))
    assert within == "pool" and set(banded["band"]) == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="no question has 5"):
        choice.levels(chain_rows(4))


# ---------------------------------------------------------------- jobs
def length(job: str) -> int:
    return len(job)


def refuse(job: str) -> None:
    """Leaves a trace for every job, and fails at the one that is called "bad"."""
    path = Path(job)
    if path.name == "bad":
        raise ValueError("this job is bad")
    path.write_text("done")


def test_spread_returns_what_each_job_returns_in_order():
    assert processes.spread(length, ["a", "bbb", "cc"], 2, "jobs") == [1, 3, 2]
    assert processes.spread(length, [], 2, "jobs") == []


def test_spread_raises_the_error_of_a_job_and_keeps_what_others_wrote(tmp_path):
    with pytest.raises(ValueError, match="this job is bad"):
        processes.spread(refuse, [str(tmp_path / name) for name in ("good", "bad")], 1, "jobs")
    assert (tmp_path / "good").read_text() == "done"


FOREVER = """
import os, sys, time
from pathlib import Path
from limo_nb import arms

def forever(folder):
    (Path(folder) / "pid").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    arms.spread(forever, [sys.argv[1]], 1, "jobs")
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path, repository):
    script = tmp_path / "forever.py"
    script.write_text(FOREVER)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stderr=subprocess.DEVNULL,
    )
    pid = tmp_path / "pid"
    wait(lambda: pid.exists() and pid.read_text())
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    wait(lambda: not alive(int(pid.read_text())))


def wait(condition, seconds: float = 180.0) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited in vain"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether process `pid` runs; one that only waits to be reaped does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def folder(tmp_path: Path, model: str) -> Path:
    """A stage's folder with the items of the benchmarks and four training rows."""
    items = benchmarks.benchmark_items(small(model).evaluation)
    items.to_parquet(tmp_path / "items.parquet")
    Dataset.from_list(problems(4)).to_parquet(tmp_path / "rows.parquet")
    return tmp_path


def job(name: str, model: str, folder: Path, **more) -> headline._Job:
    return headline._Job(name, model, small(model), str(folder), **more)


def test_a_job_writes_graded_answers_to_all_items_and_clears_up(folder, model):
    headline._evaluate_job(job("base-0", model, folder))
    found = variants.table(folder / "results-base-0.parquet")
    assert found.column_names == list(attempts.RESULTS)
    assert set(found["id"]) == set(variants.table(folder / "items.parquet")["id"])
    names = {path.name for path in folder.iterdir()}
    assert names == {"items.parquet", "rows.parquet", "results-base-0.parquet"}


def test_a_result_that_is_there_is_final(folder, model):
    out = folder / "results-base-0.parquet"
    out.write_text("from before")
    headline._evaluate_job(job("base-0", "no/such/model", folder))
    assert out.read_text() == "from before"


def test_a_job_with_rows_trains_before_it_answers(folder, model):
    settings = small(model).sft.model_copy(update={"batch_size": 4, "learning_rate": 0.05})
    rows = str(folder / "rows.parquet")
    headline._evaluate_job(job("arm-1", model, folder, rows=rows, settings=settings, seed=1))
    headline._evaluate_job(job("base-0", model, folder))
    trained, base = (
        variants.table(folder / f"results-{name}.parquet") for name in ("arm-1", "base-0")
    )
    assert list(trained["id"]) == list(base["id"])
    assert list(trained["text"]) != list(base["text"])


def test_models_name_a_folder_a_seed(tmp_path, monkeypatch, model):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path))
    run = Run("smoke", {"models.base": model, "models.poor": model, "sft.seeds": [1, 2]})
    run.make("models/trained", lambda folder: None)
    found = headline.models(run)
    assert list(found) == ["base", "poor", *variants.HEADLINE]
    assert found["base"] == [model] and len(set(found["limo"])) == 2
    assert all(path.endswith("/model") for path in found["limo"])
