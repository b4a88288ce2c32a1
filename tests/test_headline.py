"""The stages of the headline experiment."""

import pytest
from tiny import tiny_model

from limo_nb.core.runs import Run
from limo_nb.experiments import headline
from limo_nb.experiments.variants import HEADLINE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("headline") / "tiny"))


def test_models_name_a_folder_a_seed(tmp_path, monkeypatch, model):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path))
    run = Run("smoke", {"models.base": model, "models.poor": model, "sft.seeds": [1, 2]})
    run.make("models/trained", lambda folder: None)
    found = headline.evaluated_models(run)
    assert list(found) == ["base", "poor", *HEADLINE]
    assert found["base"] == [model] and len(set(found["limo"])) == 2
    assert all(path.endswith("/model") for path in found["limo"])
