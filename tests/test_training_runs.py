"""One model trained and evaluated: what it leaves, and that it is final."""

from pathlib import Path

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb.core.records import load_table, save_tables
from limo_nb.core.settings import Profile, load_profile
from limo_nb.evaluation import RESULTS, benchmark_items
from limo_nb.experiments import TrainingRun, TrainingSpec, carry_out, results_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("runs") / "tiny"))


def small(model: str) -> Profile:
    """Profile smoke with the tiny model in every role, and answers of a few tokens."""
    names = dict.fromkeys(("base", "poor", "weak", "strong"), model)
    overrides = {
        "models": names, "evaluation.items": 1, "evaluation.sampling.max_new_tokens": 4,
        "engine.workers": 1, "sft.epochs": 1,
    }  # fmt: skip
    return load_profile("smoke", overrides)


@pytest.fixture
def folder(tmp_path: Path, model: str) -> Path:
    """A stage's folder with the items of the benchmarks and four training rows."""
    items = benchmark_items(small(model).evaluation)
    save_tables(tmp_path, items=items, rows=Dataset.from_list(problems(4)))
    return tmp_path


def run(name: str, model: str, folder: Path, own: str = "", **more) -> TrainingRun:
    profile = small(model)
    return TrainingRun(
        name, own or model, folder, profile.evaluation.sampling, profile.engine,
        profile.system_prompt, **more,
    )  # fmt: skip


def test_a_run_writes_graded_answers_to_all_items_and_clears_up(folder, model):
    carry_out(run("base-0", model, folder))
    (found,) = results_of(folder, "base")
    assert found.column_names == list(RESULTS)
    assert set(found["id"]) == set(load_table(folder, "items")["id"])
    names = {path.name for path in folder.iterdir()}
    assert names == {"items.parquet", "rows.parquet", "results-base-0.parquet"}


def test_a_result_that_is_there_is_final(folder, model):
    out = folder / "results-base-0.parquet"
    out.write_text("from before")
    carry_out(run("base-0", model, folder, own="no/such/model"))
    assert out.read_text() == "from before"


def test_a_run_with_rows_trains_before_it_answers(folder, model):
    settings = small(model).sft.model_copy(update={"batch_size": 4, "learning_rate": 0.05})
    training = TrainingSpec(folder / "rows.parquet", settings, seed=1)
    carry_out(run("few-1", model, folder, training=training))
    carry_out(run("base-0", model, folder))
    (trained,), (base,) = results_of(folder, "few"), results_of(folder, "base")
    assert list(trained["id"]) == list(base["id"])
    assert list(trained["text"]) != list(base["text"])


def test_a_name_that_begins_like_another_is_another(tmp_path):
    row = Dataset.from_list([{"id": "a"}])
    save_tables(
        tmp_path, **{"results-R1-1": row, "results-R1-0528-1": row, "results-R1-2": row}
    )
    assert len(results_of(tmp_path, "R1")) == 2 and len(results_of(tmp_path, "R1-0528")) == 1
