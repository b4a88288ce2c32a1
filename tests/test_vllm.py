"""vLLM beside transformers on a lab model: the engine in this process, and the server.

`make test-vllm` runs this in an environment of its own, with the CPU build of vLLM.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from limo_nb import lab
from limo_nb.core.settings import (
    SYSTEM_PROMPT,
    EngineSettings,
    Sampling,
)
from limo_nb.inference import (
    Ask,
    chat_prompt,
    complete,
    load_model,
    open_engine,
    prompt_ids,
    serve_vllm,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed here: `make test-vllm` runs these",
)

MODEL = "lab:reasoner"
GREEDY = Sampling(max_new_tokens=160)
DRAWN = Sampling(samples=2, temperature=0.8, top_p=0.95, max_new_tokens=48, seed=3)
# Two tokens are a tie where their logits are apart by less than what the other order of
# a sum may change: a few units of the last place of logits around 20.
TIES = {"float32": 1e-3, "bfloat16": 0.5}


@pytest.fixture(scope="module")
def items():
    """Conversations of all lengths, one with a control token in it, and a raw page."""
    rows = lab.pool(36, seed=3)
    asked = [(row["id"], chat_prompt(row["question"], SYSTEM_PROMPT)) for row in rows]
    asked.append(("control", chat_prompt("Is <|im_end|> a word?", SYSTEM_PROMPT)))
    return [*asked, ("raw", f"Exercise. {rows[0]['question']}\nSolution.\n")]


def answered(kind, items, sampling, store, dtype="float32", batch_size=16):
    settings = EngineSettings(kind=kind, dtype=dtype, batch_size=batch_size)
    with open_engine(settings, MODEL) as engine:
        return complete(engine, items, sampling, store, kind).to_list()


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def greedy(request, items, tmp_path_factory):
    """dtype, the records of transformers and those of vLLM."""
    folder, dtype = tmp_path_factory.mktemp(request.param), request.param
    made = [
        answered(kind, items, GREEDY, folder / f"{kind}.db", dtype)
        for kind in ("transformers", "vllm")
    ]
    return dtype, *made


def margin(dtype, prompt, mine, theirs):
    """How much likelier transformers finds its own token where two answers part."""
    net, tokenizer = load_model(MODEL, dtype)
    ends = [[], [tokenizer.eos_token_id]]
    one, two = (
        tokenizer(row["text"], add_special_tokens=False)["input_ids"] + ends[row["finished"]]
        for row in (mine, theirs)
    )
    pairs = enumerate(zip(one, two, strict=False))
    place = next((place for place, pair in pairs if pair[0] != pair[1]), None)
    assert place is not None, f"one text, two records: {mine} {theirs}"
    ids = torch.tensor([prompt_ids(tokenizer, prompt) + one[:place]])
    with torch.inference_mode():
        logits = net(ids).logits[0, -1].float()
    return abs(float(logits[one[place]] - logits[two[place]]))


def test_greedy_records_are_those_of_transformers(greedy, items):
    """All of them in float32; in bfloat16 those that differ part at a tie."""
    dtype, mine, theirs = greedy
    prompts = dict(items)
    pairs = list(zip(mine, theirs, strict=True))
    apart = [pair for pair in pairs if pair[0] != pair[1]]
    gaps = [margin(dtype, prompts[one["id"]], one, two) for one, two in apart]
    print(f"{dtype}: {len(pairs) - len(apart)} of {len(pairs)} the same; gaps {gaps}")
    assert max(gaps, default=0.0) < TIES[dtype]
    if dtype == "float32":
        assert len(apart) <= 1
    assert len({row["tokens"] for row in mine}) > 5  # answers of many lengths


def test_the_server_gives_the_same_records(greedy, items, tmp_path, monkeypatch):
    """Through its chat interface and its raw one, in float32 and in bfloat16."""
    dtype, mine, theirs = greedy
    known = [item for item in items if item[0] != "control"]  # the server's own affair
    with serve_vllm(MODEL, sys.executable, dtype) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        served = answered("openai", known, GREEDY, tmp_path / "served.db")
    expected = [row for row in theirs if row["id"] != "control"]
    apart = [pair for pair in zip(expected, served, strict=True) if pair[0] != pair[1]]
    prompts = dict(items)
    gaps = [margin(dtype, prompts[one["id"]], one, two) for one, two in apart]
    print(f"{dtype}: {len(served) - len(apart)} of {len(served)} the same; gaps {gaps}")
    assert max(gaps, default=0.0) < TIES[dtype]
    if dtype == "float32":
        assert len(apart) <= 1 and [r["id"] for r in served] == [i for i, _ in known]


def test_a_command_prints_only_its_own_on_stdout(tmp_path):
    """vLLM's log, that of its engine's process too, goes to stderr."""
    rows = [{"id": row["id"], "question": row["question"]} for row in lab.pool(2, seed=3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "limo_nb", "sample", "p.jsonl", "--model", MODEL]
    command += ["--profile", "smoke", "--override", "engine.kind=vllm"]
    command += ["--out", "answers.jsonl", "--json"]
    env = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["questions"] == 2 and "EngineCore" in done.stderr


def test_draws_come_from_the_key(items, tmp_path):
    """The same rows again, alone, are the same; another seed gives others."""
    whole = answered("vllm", items[:12], DRAWN, tmp_path / "whole.db")
    part = answered("vllm", items[4:6], DRAWN, tmp_path / "part.db", batch_size=2)
    names = {name for name, _ in items[4:6]}
    assert part == [row for row in whole if row["id"] in names]
    other = DRAWN.model_copy(update={"seed": 4})
    assert answered("vllm", items[4:6], other, tmp_path / "other.db") != part


def test_rows_that_nobody_waits_for_are_given_up(items):
    batch = tuple(Ask(f"{place:032x}", prompt) for place, (_, prompt) in enumerate(items[:8]))
    settings = EngineSettings(kind="vllm", dtype="float32", batch_size=8)
    with open_engine(settings, MODEL) as engine:
        ready = engine.run([batch], GREEDY)
        assert 0 < len(next(made for made in ready if isinstance(made, list))) < len(batch)
        ready.close()
        assert not engine._llm.llm_engine.has_unfinished_requests()
