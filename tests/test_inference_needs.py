"""What decoding takes: asked first, shown as it comes, kept on the way, on all cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_inference import SYSTEM, chat_prompt, problems, stored
from tiny import tiny_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from limo_nb.core import memory
from limo_nb.core.memory import GB, Memory, NotEnoughMemory
from limo_nb.core.settings import EngineSettings, Sampling
from limo_nb.inference import (
    Underway,
    complete,
    load_tokenizer,
    open_engine,
    shape_of,
    worker_count,
)
from limo_nb.inference.decoder import Decoder
from limo_nb.inference.models import load_model
from limo_nb.inference.needs import check_reading, decoding_parts, rows_at_once

GREEDY = Sampling(max_new_tokens=40)
DRAWN = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def items():
    rows = problems(12, seed=3)
    return [(f"p{i}", chat_prompt(row["question"], SYSTEM)) for i, row in enumerate(rows)]


def machine(monkeypatch, free: float) -> None:
    monkeypatch.setattr(memory, "host_memory", lambda: Memory(int(free * GB), 64 * GB))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# --------------------------------------------------------------------------- asked first
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(
    model, items, tmp_path, monkeypatch
):
    machine(monkeypatch, 0.3)
    monkeypatch.setattr(Decoder, "__init__", lambda *_: pytest.fail("it was loaded"))
    with (
        open_engine(EngineSettings(workers=1), model) as engine,
        pytest.raises(NotEnoughMemory, match="12 rows of up to .* not started. What would fit"),
    ):
        complete(engine, items, GREEDY, tmp_path / "s.db")


def test_force_loads_it_all_the_same(model, items, tmp_path, monkeypatch):
    machine(monkeypatch, 0.3)
    with open_engine(EngineSettings(workers=1, force=True), model) as engine:
        rows = complete(engine, items[:2], GREEDY, tmp_path / "s.db")
    assert all(rows["tokens"])


def test_fewer_rows_and_workers_that_would_fit_are_named(model, monkeypatch):
    from limo_nb.inference.needs import check_decoding

    machine(monkeypatch, 10)
    shape = shape_of("Qwen/Qwen2.5-0.5B-Instruct")

    def parts(rows):
        return decoding_parts(shape, "float32", rows, 4096, drawn=True)

    assert "fits" not in check_decoding("it", parts, 8, 1, force=False)
    with pytest.raises(NotEnoughMemory) as refused:
        check_decoding("it", parts, 256, 2, force=False)
    said = str(refused.value)
    assert "engine.batch_size=16 (" in said
    assert "engine.workers=1, engine.batch_size=64 (" in said


def test_reading_asks_too(monkeypatch):
    machine(monkeypatch, 5)
    check_reading("Qwen/Qwen2.5-0.5B-Instruct", "float32", 500)
    with pytest.raises(NotEnoughMemory, match="reading 20,000 tokens"):
        check_reading("Qwen/Qwen2.5-0.5B-Instruct", "float32", 20_000)


PEAK = """
import ctypes, gc, json, sys
from pathlib import Path
from limo_nb.core.settings import Sampling
from limo_nb.inference.decoder import Decoder

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

tiny, large, rows, width, new = *sys.argv[1:3], *map(int, sys.argv[3:])
for name in (tiny, large):  # the first loads what libraries load late
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    prompts = [[9 + i % 50] * (width - new) for i in range(rows)]
    list(Decoder(name, "float32").parts(
        prompts, range(rows), range(rows), Sampling(temperature=1.0, max_new_tokens=new)
    ))
print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux resets peaks")
def test_the_estimate_is_what_a_process_came_to(model, tmp_path):
    """64 rows of up to 256 tokens of a model of 30 million parameters, within a third."""
    tokenizer = load_tokenizer(model)
    config = Qwen2Config(
        vocab_size=32_768, hidden_size=512, intermediate_size=1024, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, model, str(tmp_path), "64", "256", "16"],
        capture_output=True, text=True, timeout=200, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    measured = int(done.stdout.split()[-1])
    parts = decoding_parts(shape_of(str(tmp_path)), "float32", 64, 256, drawn=True)
    said = sum(size for name, size in parts.items() if name != "process")
    print(f"{measured / GB:.3f} GB measured, {said / GB:.3f} estimated: {parts}")
    assert said == pytest.approx(measured, rel=1 / 3)


# ------------------------------------------------------------------------ cores and rows
def test_a_small_model_has_a_process_a_core_and_a_large_one_all_cores(model, monkeypatch):
    machine(monkeypatch, 60)
    monkeypatch.setattr("limo_nb.inference.workers.cores", lambda: 5)
    auto = EngineSettings()
    assert worker_count(auto, model) == 5
    monkeypatch.setattr("limo_nb.inference.models.SMALL_BYTES", 1000)
    assert worker_count(auto, model) == 1
    assert worker_count(EngineSettings(workers=3), model) == 3


@pytest.mark.parametrize("small", [True, False])
def test_a_large_model_decodes_on_all_threads(model, monkeypatch, small):
    seen, decoder = [], Decoder(model, "float32")
    decoder.small, generate = small, decoder.model.generate
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(
        decoder.model, "generate", lambda *a, **k: (seen.append("now"), generate(*a, **k))[1]
    )
    decoder.decode([[5, 6]], [0], [1], Sampling(max_new_tokens=2))
    assert seen[seen.index("now") - 1] == (1 if small else 3) and seen[-1] == 3


def test_a_large_model_on_a_cpu_has_the_attention_that_repeats_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_model("lab:weak")[0].config._attn_implementation == "eager"
    monkeypatch.setattr("limo_nb.inference.models.SMALL_BYTES", 1000)
    assert load_model("lab:weak", "float32")[0].config._attn_implementation == "sdpa"


def test_rows_at_once_depend_on_the_model_and_its_precision(monkeypatch):
    machine(monkeypatch, 60)
    half, lab = shape_of("Qwen/Qwen2.5-0.5B-Instruct"), shape_of("lab:foundation")
    seven = shape_of("Qwen/Qwen2.5-7B-Instruct")
    for dtype, most, fewest in (("float32", 32, 4), ("bfloat16", 128, 13)):
        rows = [rows_at_once(half, size, False, dtype) for size in (1, 16, 128)]
        assert rows == [1, 16, most]
        assert rows_at_once(seven, 128, False, dtype) == fewest
        assert rows_at_once(lab, 256, True, dtype) == rows_at_once(None, 256, False, dtype)


# ------------------------------------------------------------------- shown, kept on the way
def test_rows_that_ended_are_handed_out_while_others_are_on_their_way(model, monkeypatch):
    """Whenever they are handed out, and however often rows are swept, they are the same."""
    decoder = Decoder(model, "float32")
    prompts = [decoder.tokenizer(row["question"])["input_ids"] for row in problems(8, seed=4)]
    whole = decoder.decode(prompts, range(8), range(8), DRAWN)
    monkeypatch.setattr("limo_nb.inference.decoder.KEEP_SECONDS", 0.0)
    for segment in (1, 7, 32):
        monkeypatch.setattr("limo_nb.inference.decoder.SEGMENT", segment)
        parts = list(decoder.parts(prompts, range(8), range(8), DRAWN))
        found = dict(row for part in parts for row in part.ended)
        assert [found[place] for place in range(8)] == whole
        left = [part.rows for part in parts]
        assert left[0] == 8 and left[-1] == 0 and left == sorted(left, reverse=True)


def test_the_time_of_a_long_request_is_told_before_it_starts(
    model, items, tmp_path, monkeypatch, capsys
):
    """By a short product; a small model's is not, which takes seconds."""
    monkeypatch.setattr("limo_nb.core.precision.flops_per_second", lambda dtype: 1e8)
    monkeypatch.setattr("limo_nb.inference.needs.cores", lambda: 1)
    settings, drawn = EngineSettings(dtype="float32", workers=1), DRAWN
    with open_engine(settings, model) as engine:
        complete(engine, items, drawn, tmp_path / "small.db")
        assert engine.tokens_per_second is None
    assert "at most about" not in capsys.readouterr().err
    monkeypatch.setattr("limo_nb.inference.models.SMALL_BYTES", 1000)
    with open_engine(settings, model) as engine:
        rate = 0.6 * 1e8 / (2 * engine.shape.parameters)
        assert engine.tokens_per_second == pytest.approx(rate)
        monkeypatch.setattr("limo_nb.inference.request.TOLD_FROM", 1.0)
        complete(engine, items, drawn, tmp_path / "large.db")
    told = f"answers of up to {drawn.max_new_tokens} tokens at about {rate:.0f} tokens/s"
    assert told in capsys.readouterr().err


def test_a_large_model_is_looked_at_more_often(model):
    decoder = Decoder(model, "float32")
    assert decoder._segment(256) == 32
    decoder.flops = 2 * 494_000_000
    assert (decoder._segment(64), decoder._segment(256)) == (31, 7)


def test_a_kill_keeps_what_was_handed_out(model, items, tmp_path, monkeypatch):
    """The engine ends at the first sign after rows were handed out: they are in the store."""
    monkeypatch.setattr("limo_nb.inference.decoder.KEEP_SECONDS", 0.0)
    monkeypatch.setattr("limo_nb.inference.decoder.SEGMENT", 2)
    store, drawn = tmp_path / "s.db", DRAWN.model_copy(update={"max_new_tokens": 200})
    with open_engine(EngineSettings(dtype="float32", workers=1), model) as engine:
        whole = complete(engine, items, drawn, tmp_path / "whole.db").to_list()
        run = engine.run

        def killed(batches, sampling):
            for ready in run(batches, sampling):
                yield ready
                if isinstance(ready, Underway) and 0 < ready.rows < len(items):
                    raise KeyboardInterrupt

        engine.run = killed
        with pytest.raises(KeyboardInterrupt):
            complete(engine, items, drawn, store)
        early = stored(store)
        assert 0 < len(early) < len(items)
        engine.run = run
        assert complete(engine, items, drawn, store).to_list() == whole
    assert early < stored(store)


def test_signs_of_work_come_from_workers_too(model, items, monkeypatch):
    monkeypatch.setattr("limo_nb.inference.transformers_engine.FEW_ROWS", 0)
    from limo_nb.inference.request import _asks, plan_batches

    settings = EngineSettings(dtype="float32", workers=2, batch_size=6)
    with open_engine(settings, model) as engine:
        batches = plan_batches(engine, _asks(engine, items, GREEDY, 0))
        ready = list(engine.run(batches, GREEDY))
    signs = [one for one in ready if isinstance(one, Underway)]
    assert max(sign.tokens for sign in signs) > 0
    assert sum(len(one) for one in ready if not isinstance(one, Underway)) == len(items)
