"""What a model knows against what it shows: groups, pairs and the stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from tiny import tiny_model

from limo_nb.core.runs import Run
from limo_nb.evidence import (
    measuring,
    rules,
)
from limo_nb.experiments import asking, elicitation
from limo_nb.inference import load_tokenizer, prompt_text, resolve
from limo_nb.lab.facts import single_facts


def answers(right: dict[tuple[str, str], list[bool | None]]) -> Dataset:
    """One item a level (1, 2, …) for each of (model, prompt format)."""
    rows = [
        {"model": role, "format": shape, "benchmark": f"family-{level % 2}", "in_domain": True,
         "level": level, "id": f"p{level}", "sample": 0, "correct": correct, "tokens": 3,
         "finished": True}
        for (role, shape), outcomes in right.items()
        for level, correct in enumerate(outcomes, 1)
    ]  # fmt: skip
    return Dataset.from_list(rows)


MADE_UP = answers(
    {
        ("base", "chat"): [True, True, False, False, True, False, False, True, None],
        ("base", "textbook"): [True] * 9,
        ("poor", "chat"): [True] + [False] * 8,
        ("poor", "textbook"): [False] * 9,
    }
)


@pytest.mark.parametrize(
    ("role", "shape", "group", "value", "items"),
    [
        ("base", "chat", "1 step", 1.0, 1),
        ("base", "chat", "3 steps", 0.0, 1),
        ("base", "chat", "many steps", 0.25, 4),
        ("base", "textbook", "many steps", 1.0, 4),
        ("poor", "textbook", "many steps", 0.0, 4),
    ],
)
def test_accuracy_is_the_share_of_problems_in_a_group(role, shape, group, value, items) -> None:
    rows = {(r["model"], r["format"], r["group"]): r for r in elicitation.estimates(MADE_UP)}
    row = rows[role, shape, group]
    assert (row["accuracy"], row["items"]) == (value, items)
    assert row["low"] <= value <= row["high"] and row["low"] < row["high"]


def test_gap_is_paired_by_problem() -> None:
    base, poor = elicitation.gaps(MADE_UP)
    assert (base["model"], base["against"]) == ("base textbook", "base chat")
    assert (base["value"], base["items"]) == (0.75, 4) and poor["value"] == 0


def test_facts_are_different_and_reproducible() -> None:
    facts = single_facts(5, 1)
    assert len({fact["given"] for fact in facts}) == len(facts) == 45
    assert facts == single_facts(5, 1) != single_facts(5, 2)
    assert all(fact["follows"].endswith(".") for fact in facts)


def test_prompts_differ_in_format_only() -> None:
    items = [{"id": "sum", "question": "What is 7+4?"}]

    def put(way, **more):
        ((name, asked),) = asking.prompts(way, items, "Think.", "lab:weak", **more)
        assert name == "sum"
        return asked

    page, chat = put("textbook"), put("chat")
    assert "What is 7+4?" in page and page.endswith("\n")
    assert [message["content"] for message in chat] == ["Think.", "What is 7+4?"]
    tokenizer = load_tokenizer(resolve("lab:weak"))
    assert put("prefill") == prompt_text(tokenizer, chat) + "1)"
    few = put("few-shot", shots=[("1+1?", "1) 1+1=2.")])
    assert [m["role"] for m in few] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in few[1:]] == ["1+1?", "1) 1+1=2.", "What is 7+4?"]
    with pytest.raises(ValueError, match="few-shot without solved problems"):
        put("few-shot")
    with pytest.raises(ValueError, match="no way 'oral' to ask; there are chat, textbook"):
        put("oral")


def test_examples_are_the_shortest_rows() -> None:
    rows = [{"question_id": f"q{n}", "question": f"{n}?", "solution": "x" * n}
            for n in (9, 3, 7)]  # fmt: skip
    assert asking.shots_of(rows) == (("3?", "xxx"), ("7?", "x" * 7))


def test_stage_is_read_by_the_ledger(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    model = str(tiny_model(tmp_path / "tiny"))
    run = Run(
        "smoke",
        {"models.base": model, "models.poor": model, "engine.workers": 1,
         "evaluation.items": 1, "evaluation.sampling.max_new_tokens": 4},
    )  # fmt: skip
    made = elicitation.run_elicitation(run)
    results = Dataset.from_parquet(str(made / "results.parquet"))
    assert len(results) == 4 * len(elicitation.drawn(run.profile.evaluation))
    assert set(results["format"]) == set(elicitation.FORMATS) and set(results["model"]) == set(
        elicitation.ROLES
    )
    facts = Dataset.from_parquet(str(made / "facts.parquet"))
    asked = single_facts(2, elicitation.SEED)
    assert len(facts) == 2 * len(asked) == 36
    assert not any(facts["correct"]), "a random model knows nothing"
    quantity = rules.ClaimQuantity(
        table="elicitation", name="base textbook", minus="base chat", group="many steps"
    )
    measured = measuring.measure_quantity(quantity, measuring.tables(run))
    assert measured["paired"] and measured["low"] <= measured["value"] <= measured["high"]
