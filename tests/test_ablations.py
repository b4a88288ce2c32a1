"""The ablations: bands of chains, and the stage that trains and evaluates."""

from pathlib import Path

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb.chains import levels
from limo_nb.core.files import write_json
from limo_nb.core.records import save_tables
from limo_nb.core.runs import Run
from limo_nb.evaluation import AccuracyRow
from limo_nb.experiments import ablations, results_of, run_ablations


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
        chosen = ablations.one_band(banded, band, limit=2)
        assert [row["question_id"] for row in chosen] == ["q0", "q1"]
    scores = [ablations.one_band(banded, band, 3)[0]["score"] for band in range(1, 6)]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_bands_over_the_pool_where_there_are_fewer():
    banded, within = ablations.quality_bands(chain_rows(4))
    assert within == "pool" and set(banded["band"]) == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="no question has 5"):
        levels(chain_rows(4))


# ---------------------------------------------------------------- the stage
def tiny_run(model: Path, **more) -> Run:
    """A run of the tiny model that has its rows and the set of a small variant."""
    overrides = {
        "models": dict.fromkeys(("base", "poor", "weak", "strong"), str(model)),
        "evaluation.items": 1, "evaluation.sampling.max_new_tokens": 4,
        "sft.epochs": 1, "engine.workers": 1, **more,
    }  # fmt: skip
    run, rows = Run("smoke", overrides), Dataset.from_list(problems(4))
    few = rows.select(range(2))

    def sets(folder: Path) -> None:
        save_tables(folder, **{"rows-2": few})
        write_json(folder / "sizes.json", {"rows-2": 2})

    run.make("rows", lambda folder: save_tables(folder, limo=rows))
    run.make("ablations/sets", sets)
    return run


def test_a_changed_section_that_is_read_makes_the_stage_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    model = tiny_model(tmp_path / "model")
    made = run_ablations(tiny_run(model))
    assert set(made.manifest["reads"]) == {
        "ablations", "sft", "evaluation", "engine", "system_prompt"
    }  # fmt: skip
    assert [len(table) for table in results_of(made, "rows-2")] == [10]
    assert set(made.json("table.json")[0]) == set(AccuracyRow.__annotations__)
    settings = made.json("settings.json")
    assert settings["rows-2"] == {"rows": 2, "epochs": 1, "batch": 2, "steps": 1}
    other = tiny_run(model, **{"coarse.sampling.seed": 77})
    assert run_ablations(other).key == made.key, "the coarse filter is none of its sections"
    hotter = tiny_run(model, **{"engine.batch_size": 3})
    assert run_ablations(hotter).key != made.key
