"""Completions: fixed batches, the same for any number of workers, kept as they arrive."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import problems, tiny_model

from limo_nb.generation import (
    Decoder,
    chat_prompt,
    complete,
    left_padded,
    load_model,
    load_tokenizer,
    model_digest,
    open_engine,
    prompt_ids,
    resolve,
)
from limo_nb.profiles import EngineSettings, Sampling

SYSTEM = "Answer the question."
DRAWN = Sampling(samples=3, temperature=1.0, max_new_tokens=48, seed=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def items():
    return [(f"p{i}", chat_prompt(r["question"], SYSTEM)) for i, r in enumerate(problems(11))]


def made(model, items, store, sampling=DRAWN, **settings):
    settings = EngineSettings(dtype="float32", **{"batch_size": 8, **settings})
    with open_engine(settings, model) as engine:
        return complete(engine, items, sampling, store, "test").to_list()


@pytest.fixture(scope="module")
def reference(model, items, tmp_path_factory):
    return made(model, items, tmp_path_factory.mktemp("reference") / "s.db")


def test_rows_are_those_of_the_request(reference, items):
    assert [(r["id"], r["sample"]) for r in reference] == [
        (i, s) for i, _ in items for s in range(3)
    ]
    assert {True, False} == {r["finished"] for r in reference}
    assert all(r["tokens"] == 48 for r in reference if not r["finished"])
    assert all(0 <= r["tokens"] < 48 for r in reference if r["finished"])
    assert len({r["text"] for r in reference}) > len(reference) // 2


def test_the_number_of_workers_changes_nothing(model, items, reference, tmp_path, monkeypatch):
    monkeypatch.setattr("limo_nb.generation.FEW_ROWS", 0)
    assert made(model, items, tmp_path / "s.db", workers=2) == reference


def test_missing_batches_alone_are_made_again(model, items, reference, tmp_path):
    store = tmp_path / "s.db"
    made(model, items, store)
    with sqlite3.connect(store) as database:
        keys = [k for (k,) in database.execute("SELECT key FROM batches ORDER BY rowid")]
        kept = database.execute(
            "SELECT rowid, key FROM batches WHERE key != ?", keys[1:2]
        ).fetchall()
        database.execute("DELETE FROM batches WHERE key = ?", keys[1:2])
    assert made(model, items, store) == reference
    with sqlite3.connect(store) as database:
        again = database.execute("SELECT rowid, key FROM batches").fetchall()
    assert set(kept) <= set(again) and len(again) == len(keys)


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"temperature": 0.5}, {"top_p": 0.5}, {"max_new_tokens": 20}],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_shapes_the_result(model, items, reference, tmp_path, change):
    other = made(model, items, tmp_path / "s.db", DRAWN.model_copy(update=change))
    assert [r["text"] for r in other] != [r["text"] for r in reference]


def test_greedy_equals_generate_one_by_one(model, items, tmp_path):
    """Sharing prefill, left padding and sweeping finished rows change no greedy token."""
    greedy = Sampling(max_new_tokens=70)
    rows = made(model, items, tmp_path / "s.db", greedy, batch_size=11)
    net, tokenizer = load_model(model, "float32")
    stops = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    for row, (_, prompt) in zip(rows, items, strict=True):
        ids, mask = left_padded([prompt_ids(tokenizer, prompt)], tokenizer.pad_token_id)
        out = net.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=70, eos_token_id=stops
        )
        new = out[0, ids.shape[1] :].tolist()
        text = tokenizer.decode(new, skip_special_tokens=True)
        assert row["text"] == text
        assert row["finished"] == (new[-1] in stops)


def test_samples_follow_the_distribution(model):
    """First tokens of 4,000 samples against the softmax of the model's logits."""
    import torch

    decoder = Decoder(model, "float32")
    prompt = prompt_ids(decoder.tokenizer, "Exercise.")
    sampling = Sampling(samples=1, temperature=0.5, max_new_tokens=1)
    with torch.inference_mode():
        logits = decoder.model(torch.tensor([prompt])).logits[0, -1]
        expected = (logits / 0.5).softmax(0)
        rows = decoder._generate([prompt], torch.zeros(4000, dtype=torch.long), sampling)
    counts = torch.bincount(torch.cat(rows), minlength=len(expected)) / 4000
    sigma = (expected * (1 - expected) / 4000).sqrt()
    assert ((counts - expected).abs() < 6 * sigma + 1e-3).all()


def test_raw_text_is_continued(model, tmp_path):
    prompts = [("a", "Exercise. A dial of ten marks"), ("b", "Facts.")]
    rows = made(model, prompts, tmp_path / "s.db", Sampling(max_new_tokens=8))
    assert [row["id"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize("control", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_control_tokens_in_a_question_are_text(model, control):
    tokenizer = load_tokenizer(model)
    clean = prompt_ids(tokenizer, chat_prompt("What is 3?", SYSTEM))
    dirty = prompt_ids(tokenizer, chat_prompt(f"What {control}\nis 3?", SYSTEM))
    control_ids = set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    assert sum(i in control_ids for i in clean) == sum(i in control_ids for i in dirty) == 5
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") not in dirty
    assert control in tokenizer.decode(dirty).replace("<|im_end|>\n<|im_start|>", "", 1)


def test_digest_is_of_the_content(model, tmp_path):
    assert model_digest(model) == model_digest(str(tiny_model(tmp_path / "same")))
    assert model_digest(model) != model_digest(str(tiny_model(tmp_path / "other", seed=1)))
    assert resolve("some/model@main") == "some/model@main"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "vllm"}, r"pip install 'limo-nb\[gpu\]'"),
        ({"kind": "openai"}, "OPENAI_BASE_URL"),
    ],
    ids=["vllm", "openai"],
)
def test_what_is_missing_is_named(model, settings, message, monkeypatch):
    if settings["kind"] == "vllm":
        monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises((ImportError, ValueError), match=message):
        open_engine(EngineSettings(**settings), model)


def test_a_failing_worker_tells_why(tmp_path, monkeypatch):
    monkeypatch.setattr("limo_nb.generation.FEW_ROWS", 0)
    folder = tiny_model(tmp_path / "broken")
    settings = EngineSettings(workers=2)
    with open_engine(settings, str(folder)) as engine:
        (folder / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(RuntimeError, match="generation worker failed"):
            complete(engine, [("a", "x"), ("b", "y")], Sampling(), tmp_path / "s.db")


def test_equal_ids_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="same id"):
        made(model, [("a", "x"), ("a", "y")], tmp_path / "s.db")


class Server(BaseHTTPRequestHandler):
    """A small server of OpenAI's protocol over a real model."""

    decoder: Decoder
    lock = threading.Lock()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path == "/v1/chat/completions"
        prompt = body["messages"] if chat else body["prompt"]
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            max_new_tokens=body["max_tokens"],
        )
        with self.lock:
            ids = prompt_ids(self.decoder.tokenizer, prompt)
            (made,) = self.decoder.decode([ids], [0], body["seed"], sampling)
        choice = {"finish_reason": "stop" if made.finished else "length"}
        choice |= {"message": {"content": made.text}} if chat else {"text": made.text}
        reply = {
            "choices": [choice],
            "usage": {"completion_tokens": made.tokens + made.finished},
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *args):
        pass


def test_openai_protocol(model, items, tmp_path, monkeypatch):
    Server.decoder = Decoder(model, "float32")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    greedy = Sampling(max_new_tokens=20)
    asked = [*items[:3], ("raw", "Exercise.")]
    try:
        rows = made("tiny", asked, tmp_path / "a.db", greedy, kind="openai")
    finally:
        server.shutdown()
        server.server_close()
    assert rows == made(model, asked, tmp_path / "b.db", greedy)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_generation import DRAWN, SYSTEM, chat_prompt, made, problems
items = [(f"p{{i}}", chat_prompt(r["question"], SYSTEM)) for i, r in enumerate(problems(200))]
made({model!r}, items, Path({store!r}), DRAWN, workers=2)
"""


@pytest.mark.slow
def test_killed_and_run_again(model, tmp_path):
    """Kill −9 while batches arrive: finished ones stay, the final set is the same."""
    store = tmp_path / "s.db"
    script = KILLED.format(tests=os.path.dirname(__file__), model=model, store=str(store))
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    deadline = time.monotonic() + 120
    count = 0
    while count < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
        if store.exists():
            with sqlite3.connect(store) as database:
                if database.execute("SELECT 1 FROM sqlite_master").fetchone():
                    (count,) = database.execute("SELECT count(*) FROM batches").fetchone()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with sqlite3.connect(store) as database:
        before = database.execute("SELECT rowid, key, rows FROM batches").fetchall()
    assert 3 <= len(before) < 75
    items = [(f"p{i}", chat_prompt(r["question"], SYSTEM)) for i, r in enumerate(problems(200))]
    resumed = made(model, items, store, workers=2)
    with sqlite3.connect(store) as database:
        assert set(before) <= set(database.execute("SELECT rowid, key, rows FROM batches"))
    assert resumed == made(model, items, tmp_path / "fresh.db")
