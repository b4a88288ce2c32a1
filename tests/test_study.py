"""The study's groups: what they train, how tables are stacked, rates and tokens."""

from pathlib import Path

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb import evidence
from limo_nb.core.files import write_json
from limo_nb.core.recorded_runs import record_run
from limo_nb.core.records import save_tables
from limo_nb.core.runs import Run
from limo_nb.evaluation import benchmark_items
from limo_nb.evidence import tables_of_records
from limo_nb.experiments import (
    TrainingRun,
    budgets,
    carry_out,
    groups_of,
    pipeline,
    run_group,
    study,
)
from limo_nb.experiments.setups import ModelSetup, carry_out_all


def graded(*right: bool) -> Dataset:
    return Dataset.from_list(
        [{"benchmark": "b", "id": f"p{n}", "sample": 0, "correct": own, "finished": True}
         for n, own in enumerate(right)]
    )  # fmt: skip


# ---------------------------------------------------------------- tables
def test_seeds_become_samples_of_the_problem():
    stacked = study.as_samples([graded(True, False), graded(True, True)])
    assert [(r["id"], r["sample"], r["correct"]) for r in stacked] == [
        ("p0", 0, True), ("p1", 0, False), ("p0", 1, True), ("p1", 1, True)
    ]  # fmt: skip


def test_pass_at_k_is_one_answer_a_problem():
    both = study.as_samples([graded(False, False, True), graded(False, True, False)])
    assert [row["correct"] for row in study.any_right(both)] == [False, True, True]


# ---------------------------------------------------------------- budgets
@pytest.mark.parametrize(
    ("lengths", "budget", "epochs", "rows"),
    [([10] * 4, 160, 4, 4), ([5] * 4, 160, 8, 4), ([10] * 40, 160, 1, 16),
     ([10] * 4, 55, 1, 4), ([10] * 4, 65, 2, 4), ([100], 10, 1, 1), ([7] * 8, 100, 2, 8)],
)  # fmt: skip
def test_equal_tokens_are_whole_epochs_or_the_first_rows(lengths, budget, epochs, rows):
    profile = Run("smoke").profile
    settings, count = budgets.at_equal_tokens(profile.sft, lengths, budget)
    assert (settings.epochs, count) == (epochs, rows)
    assert settings.batch_size == min(profile.sft.batch_size, rows)


# ---------------------------------------------------------------- the groups
GROUPS = {
    "rich": ["MODEL", "MODEL"], "poor": ["MODEL", "MODEL"], "sizes": ["MODEL", "lab:weak"],
    "epochs": [1, 2], "rows": [2, 3], "draws": 2, "ranks": [2], "rates": [1e-4, 1e-3],
    "seeds": [1, 2], "held_out": 3,
}  # fmt: skip


def tiny_study(folder: Path, monkeypatch) -> Run:
    """A run of the tiny model with the stages that the groups build on."""
    monkeypatch.setenv("LIMO_NB_RUNS", str(folder / "runs"))
    model = str(tiny_model(folder / "model"))
    wanted = {
        key: [model if one == "MODEL" else one for one in value]
        if isinstance(value, list) else value
        for key, value in GROUPS.items()
    }  # fmt: skip
    overrides = {
        "models": dict.fromkeys(("base", "poor", "weak", "strong"), model),
        "evaluation.items": 1, "evaluation.sampling.max_new_tokens": 2,
        "sft.epochs": 1, "sft.batch_size": 2, "engine.workers": 2, "ablations.doses": [],
        **{f"study.{key}": value for key, value in wanted.items()},
    }  # fmt: skip
    facts = [{**row, "question_id": f"q{n}", "subject": "sum", "level": 1}
             for n, row in enumerate(problems(4))]  # fmt: skip
    run, rows = Run("smoke", overrides), Dataset.from_list(facts)
    pool = rows.rename_column("question_id", "id")
    more = [{**row, "id": f"free-{n}", "question": f"Free: {n}?"} for n, row in enumerate(pool)]
    more.append({**pool[0], "id": "the-same-again"})  # the text of a row under another id

    def arms(to: Path) -> None:
        few = rows.select([0, 1])
        save_tables(to, **{"wrong": few, "many-full": rows, "rows-2": few})
        write_json(to / "sizes.json", {"wrong": 2, "many-full": 4, "rows-2": 2})

    def evaluated(to: Path) -> None:
        save_tables(to, items=benchmark_items(run.profile.evaluation))
        for name in ("base-0", "limo-1", "limo-2", "random-1", "random-2", "bulk-1", "bulk-2"):
            carry_out(TrainingRun(name, model, to, run.profile.evaluation.sampling,
                                  run.profile.engine, run.profile.system_prompt))  # fmt: skip

    run.make("pool", lambda to: save_tables(to, pool=Dataset.from_list([*pool, *more])))
    run.make("questions", lambda to: save_tables(to, questions=pool))
    run.make("models/sets", lambda to: save_tables(to, limo=rows, random=rows, bulk=rows))
    run.make("ablations/sets", arms)
    run.make("evaluation", evaluated)
    return run


def test_no_group_without_its_settings():
    assert groups_of(Run("mini").profile) == []
    assert groups_of(Run("study").profile) == list(study.GROUPS)
    assert set(study.OWN) == set(study.GROUPS)


def answered_at_once(folder, profile, setups, label, items=None):
    """In the place of models: the first half of the items is right, for every setup."""
    asked = items or benchmark_items(profile.evaluation)
    rows = [
        {"benchmark": row["benchmark"], "in_domain": row["in_domain"], "level": row["level"],
         "id": row["id"], "sample": 0, "correct": place < len(asked) / 2, "answer": "1",
         "reason": "", "text": "", "tokens": 1, "finished": True}
        for place, row in enumerate(asked)
    ]  # fmt: skip
    return {setup.name: [Dataset.from_list(rows) for _ in setup.seeds] for setup in setups}


def test_every_group_is_made_compared_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "carry_out_all", answered_at_once)
    run = tiny_study(tmp_path, monkeypatch)
    names = groups_of(run.profile)
    assert names == ["backbones", "sizes", "epochs", "rows", "lora", "rates", "tuned", "tokens"]
    made = {name: run_group(run, name) for name in names}
    tables = {
        name: {(row["model"], row["group"]): row for row in own.json("table.json")}
        for name, own in made.items()
    }
    pairs = {
        name: {(row["model"], row["against"]) for row in own.json("differences.json")}
        for name, own in made.items()
    }
    rich = tables["backbones"]["rich limo", "all"]
    assert (rich["items"], rich["samples"], rich["seeds"]) == (10, 2, 2)
    assert ("rich limo", "poor limo") in pairs["backbones"]
    assert tables["backbones"]["rich textbook", "all"]["samples"] == 1
    assert ("weak limo", "weak chat") in pairs["sizes"]
    assert {model for model, _ in tables["epochs"]} == {"epochs 1", "epochs 2"}
    assert pairs["epochs"] == {("epochs 2", "limo")}
    assert tables["rows"]["random 3", "all"]["seeds"] == 2
    assert ("limo", "random 2") in pairs["rows"] and pairs["lora"] == {("limo", "rank 2")}
    arms = {"limo", "random", "bulk", "wrong", "many-full"}
    tried = {f"{arm} {rate}" for arm in arms for rate in ("0.0001", "0.001")}
    assert {model for model, _ in tables["rates"]} == tried
    assert tables["rates"]["limo 0.001", study.HELD_OUT]["items"] == 3
    assert set(study.chosen_rates(made["rates"])) == arms
    for name in ("tuned", "tokens"):
        assert {model for model, _ in tables[name]} == arms
        assert ("limo", "wrong") in pairs[name]
        assert made[name].json("settings.json")["limo"]["rate"] in (1e-4, 1e-3)
    assert run_group(run, "lora").key == made["lora"].key
    record_run(run, "study", root=tmp_path)
    shown = evidence.StudyResults(root=tmp_path)
    for name in names:
        said = shown.show(name)
        assert said and said != evidence.study.MAKE, name
    assert shown.show("teachers") == evidence.study.MAKE
    here = evidence.StudyResults(run, tmp_path).show("lora")
    assert here == shown.show("lora") and here.startswith("limo is not separated from rank 2")
    assert tables_of_records(tmp_path)["study"]["study/lora"][0]["name"] == "rank 2"


@pytest.mark.slow
def test_a_group_trains_and_asks_its_models(tmp_path, monkeypatch):
    run = tiny_study(tmp_path, monkeypatch)
    made = run_group(run, "backbones")
    names = {path.name for path in made.path.glob("results-*.parquet")}
    assert len(names) == 4 * (2 + 3 * 2), "four models, two ways, three sets and two seeds"
    told = {row["model"]: row["seeds"] for row in made.json("table.json")}
    assert set(told.values()) == {2} and "poor textbook" in told
    assert made.json("settings.json")["rich 1 limo"]["rows"] == 4


def test_of_equally_good_rates_the_lower_is_chosen():
    class Rates:
        def json(self, name: str) -> list[dict]:
            rows = [("a 0.0001", 0.5), ("a 0.001", 0.5), ("b 0.0001", 0.1), ("b 0.001", 0.2)]
            return [{"model": m, "group": study.HELD_OUT, "accuracy": v} for m, v in rows]

    assert study.chosen_rates(Rates()) == {"a": 1e-4, "b": 1e-3}


def test_held_out_problems_are_in_no_set(tmp_path, monkeypatch):
    run = tiny_study(tmp_path, monkeypatch)
    found = study.held_out_items(study.Given(run, run.profile, run.profile.study, tmp_path))
    assert list(found["id"]) == ["free-0", "free-1", "free-2"], "held_out is 3"


@pytest.mark.parametrize(
    ("name", "stacked", "pairs", "message"),
    [("rows", {}, [("a", "limo")], "a has 2 seeds and limo 3, which cannot be paired"),
     ("backbones", {"poor": []}, [], "group backbones has nothing to compare: see study.rich"),
     ("sizes", {}, [("a", "base")], "")],
)  # fmt: skip
def test_a_group_that_cannot_be_compared_is_refused_before_training(
    name, stacked, pairs, message
):
    group = study.Group([ModelSetup("a", "m", seeds=(1, 2))], pairs, stacked)
    others = {"limo": [graded(True)] * 3, "base": [graded(True)]}
    if not message:
        study.check_group(name, group, others)
        return
    with pytest.raises(ValueError, match=message):
        study.check_group(name, group, others)


def test_setups_of_one_name_are_refused(tmp_path):
    twice = [ModelSetup("a b", "m"), ModelSetup("a-b", "m")]
    with pytest.raises(ValueError, match="two setups are called 'a-b'"):
        carry_out_all(tmp_path, Run("smoke").profile, twice, "", graded(True))


# ---------------------------------------------------------------- the pipeline's parts
def chain(question: str, sample: int, score: float) -> dict:
    facts = {"answer": "1", "subject": "dial", "level": 2, "solution": "x", "tokens": 3}
    return {
        "question_id": question, "sample": sample, "score": score, "question": question, **facts
    }  # fmt: skip


def test_several_chains_are_the_best_four_of_the_best_questions():
    rows = [chain(f"q{q}", s, q + s / 10) for q in range(3) for s in range(6)]
    made = pipeline._several(rows, 8)
    assert [(r["question_id"], r["sample"]) for r in made] == [
        (q, s) for q in ("q2", "q1") for s in (5, 4, 3, 2)
    ]


def test_attempts_that_ended_count_as_right_without_the_gate():
    attempts = [{"correct": False, "finished": True}, {"correct": True, "finished": False}]
    made = pipeline._as_if_right(Dataset.from_list(attempts))
    assert list(made["correct"]) == [True, False]


def test_the_band_is_that_of_the_fine_filter_for_as_many_samples():
    drawn = Dataset.from_list([chain(f"q{n}", s, 0.0) for n in range(1, 7) for s in range(n)])
    fine = Run("smoke").profile.fine  # 1 to 5 of 8
    assert pipeline._in_band(drawn, fine, 4) == {"q1", "q2"}
    assert pipeline._in_band(drawn, fine, 8) == {"q1", "q2", "q3", "q4", "q5"}
    assert list(pipeline._asked(drawn, {"q2"})["id"]) == ["q2"]
    with pytest.raises(ValueError, match="no-coarse: the fine filter would keep none"):
        pipeline._asked(drawn, set())
