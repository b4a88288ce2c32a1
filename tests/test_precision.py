"""What "auto" means: by measurement, stated, kept; and products in 32 bits where asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from limo_nb import (
    inference,
    lab,
)
from limo_nb.core import (
    precision,
    settings,
)
from limo_nb.lab import pretrain, reading


def test_a_named_precision_is_taken_as_it_is():
    for dtype in ("float32", "bfloat16"):
        assert precision.settle(dtype) == precision.Precision(dtype, "as asked for")


@pytest.mark.parametrize(
    ("plain", "half", "dtype"),
    [(1.0, 0.2, "bfloat16"), (1.0, 0.89, "bfloat16"), (1.0, 0.95, "float32"),
     (1.0, 60.0, "float32")],
)  # fmt: skip
def test_the_faster_product_decides(plain, half, dtype, monkeypatch):
    times = {torch.float32: plain, torch.bfloat16: half}
    monkeypatch.setattr(precision, "_product", lambda wanted: times[wanted])
    monkeypatch.setattr(precision, "_seconds", lambda time, enough=0.0: time)
    made = precision._of_processor.__wrapped__()
    assert made.dtype == dtype and f"{half / plain:.2g} times" in made.why


def test_a_processor_without_units_for_bfloat16_gets_32_bits():
    """With the instruction sets masked, as on a laptop of 2018."""
    masked = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    code = (
        "import json; from limo_nb.core import precision; "
        "precision.settle('auto', 'cpu'); print(json.dumps(precision.chosen()))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **masked}, cwd=ROOT,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(said)["cpu"]["dtype"] == "float32"


def test_no_profile_for_a_laptop_names_a_precision():
    for name in ("smoke", "mini"):
        profile = settings.load_profile(name)
        assert profile.sft.dtype == profile.engine.dtype == "auto"


def test_a_small_model_decodes_in_32_bits_on_every_processor():
    assert inference.decoding_precision("lab:reasoner", "auto", "cpu").dtype == "float32"
    assert inference.decoding_precision("lab:reasoner", "bfloat16").dtype == "bfloat16"
    model, _ = inference.load_model("lab:reasoner")  # shipped in bfloat16
    assert torch.cuda.is_available() or model.dtype == torch.float32


def test_muon_in_32_bits_takes_the_steps_of_torchs_own():
    start, gradient = torch.randn(2, 48, 32, generator=torch.manual_seed(1))
    moved = []
    for mode in (None, pretrain.In32Bits()):
        weight = torch.nn.Parameter(start.clone())
        weight.grad = gradient.clone()
        optimizer = torch.optim.Muon([weight], lr=0.1)
        if mode:
            with mode:
                optimizer.step()
        else:
            optimizer.step()
        moved.append(weight.detach() - start)
    half, plain = moved
    assert not torch.equal(half, plain)
    assert (half - plain).norm() < 0.02 * plain.norm()


def test_pretraining_computes_in_the_precision_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "DOCUMENTS_PER_CHUNK", 4)  # bfloat16 may be emulated
    tokenizer = inference.load_tokenizer(str(lab.model_path("foundation")))
    recipe = lab.recipes()["foundation"]
    losses, weights = {}, {}
    for dtype in ("float32", "bfloat16"):
        model, rows = pretrain.new_model(recipe, tokenizer), []
        how = pretrain.Compute(dtype, compiled=False)
        training = pretrain.Training(model, tokenizer, recipe.pretrain, 1, how)
        training.run(tmp_path / f"{dtype}.pt", rows.append, max_tokens=100)
        losses[dtype], weights[dtype] = rows[0]["loss"], model.state_dict()
    assert losses["float32"] == pytest.approx(losses["bfloat16"], abs=0.02)
    pairs = zip(weights["float32"].values(), weights["bfloat16"].values(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)
