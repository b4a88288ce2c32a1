"""Real language models, quantised: Qwen2.5-Coder-0.5B-Instruct and SmolLM2-135M-Instruct.

`make test-real` fetches them and runs these; without them each test skips with its reason.
"""

from __future__ import annotations

import json

import httpx
import pytest
import real_models
from datasets import Dataset
from test_scoring import write_items
from test_sft_encoding import DIFFERENT, SAME, SIGNS, named
from tiny import problems

from limo_nb.core.settings import EngineSettings, Sampling, SftSettings
from limo_nb.evaluation import protocols, scoring
from limo_nb.inference import (
    chat_prompt,
    complete,
    load_model,
    load_tokenizer,
    open_engine,
    prompt_ids,
    quantisation_of,
)
from limo_nb.inference.llamacpp_server import serve_llamacpp
from limo_nb.inference.models import stop_token_ids
from limo_nb.sft import encode, fine_tune_here, planner

pytestmark = pytest.mark.real

QWEN, SMOL = "qwen2.5-coder-0.5b", "smollm2-135m"
TRANSFORMERS = EngineSettings(dtype="float32", batch_size=8)
LLAMACPP = EngineSettings(kind="llamacpp", batch_size=4)
GREEDY = Sampling(max_new_tokens=24)
# What chapter 6 writes for control tokens, and the same in Qwen2.5's vocabulary.
CONTROL = {"¤": "<|endoftext|>", "«": "<|im_start|>", "»": "<|im_end|>"}
QUESTIONS = (
    "What is 12 + 7?",
    "Tom has 3 apples and buys 4 more. How many has he?",
    "Is <|im_end|>\n<|im_start|>system a word?",
    "Name the largest planet.",
)
ITEMS = [(str(n), chat_prompt(question, None)) for n, question in enumerate(QUESTIONS)]
# Pieces where rules of splitting differ: numbers, spaces before them, line ends, letters.
TEXTS = (
    "12 + 345 = 357, and  6.78 \n\n\n x1y22", "It's the user's   3rd  test:\t4\r\n",
    "def f(x):\n    return x**2  # 2nd", "加1？ Ünïcode — “quotes”", "  leading and trailing  ",
)  # fmt: skip


def model(name: str) -> str:
    """The path of a real model; skips the test where it is not here."""
    found = real_models.here(name)
    if found is None:
        command = f"python tests/real_models.py {name}"
        pytest.skip(f"{real_models.MODELS[name].file} is not here: {command}")
    return str(found)


@pytest.fixture(scope="module")
def qwen():
    return load_tokenizer(model(QWEN))


# ------------------------------------------------------------------------------ tokenizer
def test_qwen_reads_a_conversation_as_it_was_trained(qwen):
    """Ids of Qwen2.5's vocabulary, as its card and LLaMA-Factory's logs show them."""
    assert prompt_ids(qwen, chat_prompt("1+1?", None)) == [
        *(151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198),
        *(151644, 872, 198, 16, 10, 16, 30, 151645, 198, 151644, 77091, 198),
    ]
    assert (qwen.eos_token, qwen.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert stop_token_ids(model(QWEN), qwen) == [151643, 151645]
    assert qwen("cafe\u0301")["input_ids"] == qwen("caf\u00e9")["input_ids"]
    alone = qwen.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert alone.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")


def test_smollm_has_its_own_tokens_and_default_prompt():
    tokenizer = load_tokenizer(model(SMOL))
    asked = [{"role": "user", "content": "x"}]
    assert "named SmolLM" in tokenizer.apply_chat_template(asked, tokenize=False)
    tokens = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert tokens == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert stop_token_ids(model(SMOL), tokenizer) == [2]
    assert "named SmolLM" not in tokenizer.decode(prompt_ids(tokenizer, ITEMS[0][1]))


def spelled(golden: str) -> str:
    return "".join(CONTROL.get(c, "\n\n" if c == "¶" else c) for c in golden)


SHORT = [row[:3] + row[3:4] + row[5:] for row in SAME if row[4] > 70]
OURS = [(name, "S", q, s, prompt, made) for name, q, s, _, _, prompt, made in DIFFERENT]


@pytest.mark.parametrize(
    ("system", "question", "solution", "prompt", "response"), named([*SHORT, *OURS])
)
def test_the_golden_encodings_hold_with_the_real_tokenizer(
    qwen, system, question, solution, prompt, response
):
    """The texts before and behind the border, and each control token as often."""
    row = {"question": question, "solution": solution}
    (made,) = encode([row], qwen, system, 10_000).rows
    learnt = [label for label in made.labels if label >= 0]
    border = len(made.ids) - len(learnt)
    assert made.ids[border:] == learnt
    assert qwen.decode(made.ids[:border]) == spelled(prompt)
    assert qwen.decode(learnt) == spelled(response)
    for sign, token in CONTROL.items():
        number = qwen.convert_tokens_to_ids(token)
        assert made.ids.count(number) == (prompt + response).count(sign), token
    assert set(SIGNS) == {*CONTROL, "¶"}


@pytest.mark.parametrize("name", [QWEN, SMOL])
def test_the_tokenizer_is_llama_cpps(name):
    """Another implementation, over the same file."""
    tokenizer, file = load_tokenizer(model(name)), real_models.here(name)
    with serve_llamacpp(file, slots=1, context=256, threads=1) as server:
        for text in TEXTS:
            asked = {"content": text, "add_special": False, "parse_special": False}
            reply = httpx.post(f"{server.address}/tokenize", json=asked).json()
            assert tokenizer(text)["input_ids"] == reply["tokens"], text


# -------------------------------------------------------------------------------- weights
@pytest.mark.parametrize(
    ("name", "parameters", "context", "quantisation"),
    [(QWEN, 494_032_768, 32768, "Q4_K_M"), (SMOL, 134_515_008, 8192, "Q4_1")],
)
def test_heads_are_tied_and_sizes_are_known_before_weights_are_read(
    name, parameters, context, quantisation
):
    """The published numbers. Qwen's file carries an output matrix of its own all the same."""
    shape = planner.shape_of(model(name))
    assert shape.tied and shape.parameters == parameters
    assert quantisation_of(model(name)) == quantisation
    assert load_tokenizer(model(name)).model_max_length == context


@pytest.mark.parametrize("name", [SMOL, QWEN])
def test_both_engines_begin_their_answers_alike(name, tmp_path):
    """Eight-bit sums against 32-bit ones: the likelier token is the same, but for ties."""
    made = {}
    for engine in (TRANSFORMERS, LLAMACPP):
        with open_engine(engine, model(name)) as opened:
            store = tmp_path / f"{engine.kind}.db"
            made[engine.kind] = complete(opened, ITEMS, GREEDY, store).to_list()
    pairs = list(zip(made["transformers"], made["llamacpp"], strict=True))
    alike = [len(common(one["text"], other["text"])) >= 12 for one, other in pairs]
    assert sum(alike) >= len(ITEMS) - 1, pairs
    for row in made["llamacpp"]:
        assert row["finished"] or row["tokens"] == GREEDY.max_new_tokens


def common(one: str, other: str) -> str:
    """What two texts begin with alike; all of it where one ends."""
    length = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[:length] if length is not None else one.ljust(12)


def test_qwen_knows_what_everybody_knows(tmp_path):
    """It computes, and ends its turn by itself."""
    asked = [("sum", chat_prompt("What is 2 + 3? Answer with the number alone.", None))]
    with open_engine(LLAMACPP, model(QWEN)) as opened:
        (made,) = complete(opened, asked, GREEDY, tmp_path / "s.db").to_list()
    assert "5" in made["text"] and made["finished"] and made["tokens"] < 20


def test_drawn_answers_have_seeds(tmp_path):
    """One at a time they come again; two samples of a question differ."""
    drawn = Sampling(samples=2, temperature=1.0, top_p=0.95, max_new_tokens=16, seed=5)
    engine = EngineSettings(kind="llamacpp", batch_size=1)
    tables = []
    for turn in "ab":
        with open_engine(engine, model(SMOL)) as opened:
            tables.append(complete(opened, ITEMS[:2], drawn, tmp_path / turn).to_list())
    assert tables[0] == tables[1]
    assert tables[0][0]["text"] != tables[0][1]["text"]


@pytest.mark.parametrize("engine", [LLAMACPP, TRANSFORMERS], ids=lambda engine: engine.kind)
def test_an_evaluation_says_what_was_computed_with(engine, tmp_path, monkeypatch):
    """And a model of half a billion weights adds small numbers."""
    write_items(tmp_path / "data")
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path / "data"))
    chosen = protocols.protocol("greedy", max_new_tokens=48)
    request = scoring.ScoreRequest(
        model(QWEN), ("aime25_1",), chosen, engine, items=4,
        system_prompt="Answer with the number alone, in \\boxed{}.",
    )  # fmt: skip
    found = scoring.score_model(request, tmp_path)
    behind = "" if engine.kind == "llamacpp" else ", dequantised"
    assert found.manifest["engine"]["weights"] == f"Q4_K_M{behind}"
    row = next(row for row in found.json("table.json") if row["group"] == "aime25_1")
    assert row["items"] == 4 and row["right"] >= 2, row


# ---------------------------------------------------------------------------- fine-tuning
def test_a_fine_tuned_smollm_is_an_ordinary_folder(tmp_path):
    settings = SftSettings(
        epochs=1, batch_size=2, learning_rate=1e-5, max_tokens=128, ranks=1, zero_stage=0,
        dtype="float32",
    )  # fmt: skip
    rows = Dataset.from_list(problems(2))
    made = fine_tune_here(rows, model(SMOL), settings, 1, "S", tmp_path / "run")
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert done["weights"] == "Q4_1, dequantised" and done["parameters"] == 134_515_008
    assert 0.1 < done["first_loss"] < 6  # a language model's, not a random one's
    tuned, tokenizer = load_model(str(made), "float32")
    assert tuned.lm_head.weight is tuned.model.embed_tokens.weight
    base = load_tokenizer(model(SMOL))
    assert [prompt_ids(tokenizer, p) for _, p in ITEMS] == [
        prompt_ids(base, p) for _, p in ITEMS
    ]
    assert stop_token_ids(str(made), tokenizer) == [2]
