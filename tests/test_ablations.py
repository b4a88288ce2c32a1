"""The ablations: the arms, bands of chains, and the stage that trains and evaluates."""

from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb.chains import levels
from limo_nb.core.files import write_json
from limo_nb.core.records import save_tables
from limo_nb.core.runs import Run
from limo_nb.core.settings import AblationSettings, load_profile, profile_names
from limo_nb.evaluation import AccuracyRow, benchmark_items
from limo_nb.experiments import (
    TrainingRun,
    ablations,
    arms,
    carry_out,
    pipeline,
    results_of,
    run_ablations,
)


def chain_rows(per_question: int) -> Dataset:
    rows = [
        {"question_id": f"q{q}", "sample": s, "question": "?", "answer": "1",
         "solution": f"{'Check. ' * s}It is {s}.", "subject": "dial", "level": 3,
         "score": s / 10, "tokens": 10 + s}
        for q in range(3) for s in range(per_question)
    ]  # fmt: skip
    ranked = sorted(rows, key=lambda row: -row["score"])
    return Dataset.from_list(ranked)


# ---------------------------------------------------------------- the arms
STEPS = "1) plus 4: 7+4=1. Check: 7+4=1, right.\n2) minus 2: 1-2=9.\n3) times 3: 9*3=7."
CHAIN = STEPS + "\nSo the answer is \\boxed{7}"


def row(question: int, sample: int, **more) -> dict:
    return {"question_id": f"q{question}", "sample": sample, "question": f"{question}?",
            "answer": "7", "solution": CHAIN, "subject": "dial" if question % 3 else "grid",
            "level": question, "score": sample / 10, "tokens": 20 + sample, **more}  # fmt: skip


def material(**settings) -> arms.Material:
    chosen = [row(question, 2) for question in range(4)]
    drawn = [row(question, sample) for question in range(10, 28) for sample in (3, 1, 2)]
    banded = [row(q, b, band=b) for q in range(4) for b in range(1, 6)]
    wrong = [{**row(question, 0), "text": "1) wrong: 7+4=2."} for question in (1, 3)]
    known = {"arms": tuple(arms.ARMS), "sizes": (2, 3), "rows": 5, "asked": 9, "samples": 3}
    return arms.Material(
        limo=chosen, random=[row(q, 0) for q in (10, 11, 40)], bulk=[row(50, 0)],
        candidates=[row(q, s) for q in range(4) for s in (2, 1)], wrong=wrong, drawn=drawn,
        banded=banded, matched=[row(q, b, band=b) for q in (0, 1) for b in (1, 2)],
        left_out={name: [row(60, 0)] for name in pipeline.LEFT_OUT},
        settings=AblationSettings(**known | settings), seed=1,
    )  # fmt: skip


def test_arms_have_the_questions_and_the_chains_that_their_names_say():
    made = arms.arm_rows(material())
    asked = {name: [own["question_id"] for own in rows] for name, rows in made.items()}
    same = ("few-answers", "few-short", "chosen-first", "no-checks", "no-detours",
            "no-keywords", "skipped-25", "skipped-50", "corrupted", "shuffled")  # fmt: skip
    assert all(asked[name] == ["q0", "q1", "q2", "q3"] for name in same)
    assert {own["solution"] for own in made["few-answers"]} == {"\\boxed{7}"}
    assert all("Check" not in own["solution"] for own in made["no-checks"])
    assert {own["sample"] for own in made["chosen-first"]} == {1}
    assert asked["random-best"] == ["q10", "q11", "q40"]
    assert [own["sample"] for own in made["random-best"]] == [3, 3, 0], (
        "its own without another"
    )
    assert len(made["many-full"]) == 18 and {own["sample"] for own in made["many-full"]} == {1}
    assert asked["wrong"] == ["q1", "q3"]
    assert {own["solution"] for own in made["wrong"]} == {"1) wrong: 7+4=2."}
    assert {own["subject"] for own in made["one-family"]} == {"dial"}
    levels = {n: [own["level"] for own in made[f"questions-{n}"]] for n in arms.DIFFICULTIES}
    assert {name: len(found) for name, found in levels.items()} == dict.fromkeys(levels, 5)
    assert (
        max(levels["easy"])
        < min(levels["medium"])
        <= max(levels["medium"])
        < min(levels["hard"])
    )
    assert {own["band"] for own in made["quality-L4"]} == {4}
    assert set(asked["rows-2"]) < set(asked["rows-3"]) < set(asked["few-answers"])


def test_arms_are_the_same_every_time_and_each_has_its_own_draw():
    one, other = arms.arm_rows(material()), arms.arm_rows(material())
    assert one == other
    assert set(one) == {*arms.ARMS, "rows-2", "rows-3"}


def test_contrasts_are_between_arms_that_exist():
    known = {*arms.ARMS, "limo", "random", "base", "bulk"}
    assert all({c.left, c.right} <= known and c.left != c.right for c in arms.CONTRASTS)
    assert len({(c.left, c.right) for c in arms.CONTRASTS}) == len(arms.CONTRASTS)
    assert ("limo", "rows-2") in ablations.contrasts(["rows-2"])
    assert ("limo", "wrong") not in ablations.contrasts(["rows-2"])


def test_arms_that_cannot_be_made_are_named():
    with pytest.raises(ValueError, match="no arm 'better'; there are few-answers"):
        arms.arm_rows(material(arms=("better",)))
    empty = replace(material(arms=("wrong", "few-short")), wrong=[])
    with pytest.raises(ValueError, match="no rows for wrong: raise"):
        arms.arm_rows(empty)


def test_every_profile_names_arms_that_exist():
    drawn = set(load_profile("mini").ablations.arms)  # chapter 9 has a figure for each
    for name in profile_names():
        assert drawn <= set(load_profile(name).ablations.arms) <= set(arms.ARMS), name


# ---------------------------------------------------------------- levels of chains
def one_band(banded: Dataset, band: int) -> list[dict]:
    rows = [own for own in banded if own["band"] == band]
    return sorted(rows, key=lambda own: own["question_id"])


def test_bands_keep_the_questions_where_there_are_five_chains():
    banded, within = ablations.quality_bands(chain_rows(6))
    assert within == "question"
    for band in range(1, 6):
        assert [own["question_id"] for own in one_band(banded, band)] == ["q0", "q1", "q2"]
    scores = [one_band(banded, band)[0]["score"] for band in range(1, 6)]
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

    def answers(folder: Path) -> None:
        for name in ("base", "limo-1", "random-1", "bulk-1"):
            of_one = name if "-" in name else f"{name}-0"
            carry_out(TrainingRun(of_one, str(model), folder, run.profile.evaluation.sampling,
                                  run.profile.engine, run.profile.system_prompt))  # fmt: skip

    def evaluated(folder: Path) -> None:
        save_tables(folder, items=benchmark_items(run.profile.evaluation))
        answers(folder)

    run.make("rows", lambda folder: save_tables(folder, limo=rows))
    run.make("evaluation", evaluated)
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
    apart = {(own["model"], own["against"]) for own in made.json("differences.json")}
    assert apart == {("rows-2", "base"), ("limo", "rows-2")}
    assert made.json("together.json") == [], "sizes are no contrasts that are read together"
    settings = made.json("settings.json")
    assert settings["rows-2"] == {"rows": 2, "epochs": 1, "batch": 2, "steps": 1}
    other = tiny_run(model, **{"coarse.sampling.seed": 77})
    assert run_ablations(other).key == made.key, "the coarse filter is none of its sections"
    hotter = tiny_run(model, **{"engine.batch_size": 3})
    assert run_ablations(hotter).key != made.key
