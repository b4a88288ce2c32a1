"""Engines side by side: what is recorded, what is here, and the server that is started."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
from tiny import problems, tiny_model
from transformers import AutoModelForCausalLM, GenerationConfig

from limo_nb.core.settings import EngineSettings
from limo_nb.inference import (
    EngineFailed,
    chat_prompt,
    load_tokenizer,
    open_engine,
    serve_vllm,
    throughput,
)
from limo_nb.inference.models import stop_token_ids, tensor_parallel_size
from limo_nb.inference.vllm_server import server_options, vllm_python


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


def test_what_was_recorded_is_whole() -> None:
    known = throughput.recorded()
    assert known["batches"] == list(throughput.BATCHES)
    assert {row["engine"] for row in known["engines"]} == {"transformers", "vllm", "openai"}
    assert {"machine", "date", "model", "load"} <= set(known["made"])
    for row in known["engines"]:
        for metric in ("tokens_per_second", "tokens_per_processor_second"):
            assert len(row[metric]) == len(known["batches"]) and min(row[metric]) > 0
    curves = throughput.curves(known)
    assert len(curves) == 3 and all("." in name for name in curves)  # a version in each


def test_an_engine_is_clocked_and_compared(model, tmp_path) -> None:
    settings = EngineSettings(dtype="float32", batch_size=8)
    asked = [(f"p{i}", chat_prompt(r["question"], "")) for i, r in enumerate(problems(3))]
    made = throughput.answered(settings, "transformers", model, asked, tmp_path)
    assert len(made.texts) == 3 and made.tokens_per_second > 0
    other = throughput.Answered(1234.5, [*made.texts[:2], "other"])
    rows = throughput.side_by_side({"transformers": made, "openai": other})
    assert [row["same texts"] for row in rows] == ["3 of 3", "2 of 3"]
    assert rows[1]["tokens/s"] == "1,234"
    clocked = throughput.clock(settings, model, [prompt for _, prompt in asked], tmp_path)
    assert [row["batch"] for row in clocked] == list(throughput.BATCHES)
    assert not list(tmp_path.glob("clock-*"))  # nothing is left of the clock's stores


@pytest.mark.parametrize(
    ("heads", "shared", "width", "gpus", "want"),
    [
        (40, 8, 27648, 8, 8),  # Qwen2.5-32B
        (12, 2, 8960, 8, 4),  # Qwen2.5-Math-1.5B: 12 heads are no eight parts
        (14, 2, 4864, 8, 2),  # Qwen2.5-0.5B
        (28, 4, 18944, 6, 4),  # Qwen2.5-7B on six cards
        (32, 8, 14336, 3, 2),
        (6, 6, 512, 0, 1),
    ],
)
def test_the_parts_of_tensor_parallelism_divide_a_model_evenly(
    heads, shared, width, gpus, want
) -> None:
    facts = {"num_attention_heads": heads, "num_key_value_heads": shared}
    text = SimpleNamespace(**facts, intermediate_size=width, vocab_size=151936)
    assert tensor_parallel_size(SimpleNamespace(get_text_config=lambda: text), gpus) == want


def test_stops_are_the_same_for_every_engine(model) -> None:
    tokenizer = load_tokenizer(model)
    wanted = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert stop_token_ids(model, tokenizer) == sorted(wanted) and len(wanted) == 2


def test_the_templates_end_stops_an_answer_where_the_config_names_another(model, tmp_path):
    """Phi-3's generation config once missed `<|end|>`; Qwen's base models end at another."""
    tokenizer = load_tokenizer(model)
    taught = tokenizer.eos_token_id
    tokenizer.eos_token = "<|endoftext|>"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=5).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load_tokenizer(str(tmp_path))
    assert taught not in (found.eos_token_id, found.pad_token_id)
    stops = {5, taught, found.eos_token_id, found.pad_token_id}
    assert stop_token_ids(str(tmp_path), found) == sorted(stops)


def test_a_server_is_told_to_leave_the_decoding_alone(model, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    options = " ".join(server_options(model, "float32"))
    for part in (f"--model {model}", f"--served-model-name {model}", "--dtype float32",
                 "--generation-config vllm", "--enforce-eager"):  # fmt: skip
        assert part in options
    assert "--revision" not in options and "None" not in options


def test_a_server_that_cannot_start_says_why(model) -> None:
    """An interpreter without vLLM: the last lines of the process are in the message."""
    if vllm_python() == sys.executable:
        pytest.skip("vLLM is in this environment")
    with pytest.raises(EngineFailed, match="ended with status 1:(?s:.)*No module named"):
        with serve_vllm(model, sys.executable):
            raise AssertionError("it must not be up")


def test_where_vllm_is_looked_for(monkeypatch) -> None:
    if vllm_python() == sys.executable:
        pytest.skip("vLLM is in this environment")
    for name in ("OPENAI_BASE_URL", "LIMO_NB_VLLM"):
        monkeypatch.delenv(name, raising=False)
    assert vllm_python() is None
    assert not throughput.found()["vllm"] and not throughput.found()["openai"]
    with pytest.raises(ValueError, match="LIMO_NB_VLLM"), throughput.server("x"):
        pass
    monkeypatch.setenv("LIMO_NB_VLLM", "/else/bin/python")
    assert vllm_python() == throughput.found()["openai"] == "/else/bin/python"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert throughput.found()["openai"] == "http://127.0.0.1:9/v1"
    with throughput.server("x") as address:
        assert address == "http://127.0.0.1:9/v1"


SERVER = """\
#!{python}
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

port = int(sys.argv[sys.argv.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
"""


def test_a_server_that_is_started_is_handed_on_and_not_put_into_the_environment(
    model, tmp_path, monkeypatch
) -> None:
    """An interpreter whose vLLM only says that it is there."""
    if vllm_python() == sys.executable:
        pytest.skip("vLLM is in this environment")
    python = tmp_path / "python"
    python.write_text(SERVER.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setenv("LIMO_NB_VLLM", str(python))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with throughput.server(model) as address:
        assert "OPENAI_BASE_URL" not in os.environ
        with open_engine(EngineSettings(kind="openai"), model, address) as engine:
            assert engine.server == address
        with pytest.raises(ValueError, match="set OPENAI_BASE_URL"):
            open_engine(EngineSettings(kind="openai"), model)


def test_what_is_found_shows_no_password(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@127.0.0.1:9/v1?token=hidden")
    assert throughput.found()["openai"] == "http://127.0.0.1:9/v1"
