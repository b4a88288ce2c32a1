"""Budgets: optimiser steps, and tokens."""

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb.core.settings import SYSTEM_PROMPT, load_profile
from limo_nb.experiments import ablations, budgets

SFT = load_profile("smoke").sft.model_copy(update={"epochs": 10, "batch_size": 8, "ranks": 2})
STEPS = budgets.steps_of(SFT, 100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("budgets") / "tiny"))


@pytest.mark.parametrize(("rows", "steps"), [(8, 10), (9, 20), (100, 130), (1, 10)])
def test_steps_count_a_part_of_a_batch_as_a_step(rows, steps):
    assert budgets.steps_of(SFT, rows) == steps


@pytest.mark.parametrize("rows", [48, 100, 999, 5000, 7])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_equal_steps_sees_every_row_once_in_batches_that_ranks_can_share(rows, ranks):
    settings = SFT.model_copy(update={"ranks": ranks})
    own = budgets.at_equal_steps(settings, rows, 130)
    assert own.epochs == 1 and own.batch_size % ranks == 0
    taken = budgets.steps_of(own, rows)
    assert taken <= 130 and own.batch_size * taken >= rows
    # A batch smaller by one share of the ranks would take too many steps.
    assert own.batch_size == ranks or (own.batch_size - ranks) * 130 < rows


@pytest.mark.parametrize(
    ("name", "rows", "epochs", "batch"),
    [
        ("rows-100", 100, 10, 8),  # all rows: the headline settings
        ("rows-50", 50, 19, 8),  # 7 steps an epoch
        ("rows-6", 6, 130, 6),  # fewer rows than a batch: one step an epoch
        ("quality-L1", 60, 16, 8),
        ("rows-5000", 5000, 1, 40),  # never less than an epoch: larger batches
        ("bulk-tokens", 2000, 1, 8),  # the budget is in tokens, not in steps
    ],
)
def test_variants_take_the_steps_of_the_chosen_rows(name, rows, epochs, batch):
    own = ablations.ablation_settings(SFT, name, rows, STEPS)
    assert (own.epochs, own.batch_size) == (epochs, batch)
    kept = own.model_dump(exclude={"epochs", "batch_size"})
    assert kept == SFT.model_dump(exclude={"epochs", "batch_size"})


@pytest.mark.parametrize("rows", range(6, 101, 7))
def test_steps_of_few_rows_are_equal_up_to_half_an_epoch(rows):
    own = budgets.with_more_epochs(SFT, rows, STEPS)
    epoch = budgets.steps_of(own.model_copy(update={"epochs": 1}), rows)
    assert abs(budgets.steps_of(own, rows) - STEPS) <= epoch / 2


# ---------------------------------------------------------------- tokens
def tokens(model: str, rows) -> list[int]:
    return budgets.row_tokens(model, SYSTEM_PROMPT, rows)


def test_row_tokens_count_prompt_and_solution(model):
    row = problems(1)[0]
    longer = {**row, "solution": row["solution"] + "7777"}  # digits are single tokens
    one, other = tokens(model, [row, longer])
    assert other - one == 4
    assert one > tokens(model, [{**row, "solution": ""}])[0] > 10


@pytest.mark.parametrize(
    ("lengths", "budget", "count"),
    [([5, 5, 5], 10, 2), ([5, 5, 5], 11, 3), ([5, 5], 99, 2), ([5, 5], 0, 1), ([9], 1, 1)],
)
def test_rows_within_is_the_first_count_that_fills_the_budget(lengths, budget, count):
    assert budgets.rows_within(iter(lengths), budget) == count


def test_bulk_rows_of_equal_tokens(model):
    rows = problems(40, seed=3)
    bulk = [{**row, "solution": f"\\boxed{{{row['answer']}}}"} for row in rows]
    budget, lengths = sum(tokens(model, rows[:3])), tokens(model, Dataset.from_list(bulk))
    count = budgets.rows_within(lengths, budget)
    assert 1 < count < len(bulk)
    assert sum(lengths[: count - 1]) < budget <= sum(lengths[:count])
