"""Completions: fixed batches, the same for any number of workers, kept as they arrive."""

import sqlite3
import sys
from importlib.util import find_spec
from typing import get_args

import pytest
import torch
from tiny import problems, tiny_model
from transformers import TopPLogitsWarper
from transformers.cache_utils import DynamicLayer

from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.inference import (
    ENGINES,
    EngineFailed,
    NotInstalled,
    chat_prompt,
    complete,
    load_model,
    load_tokenizer,
    model_digest,
    open_engine,
    over_long,
    prompt_ids,
    resolve,
    token_counter,
)
from limo_nb.inference import decoder as decoder_module
from limo_nb.inference.base import Completion
from limo_nb.inference.decoder import (
    PREFILL_TOKENS,
    Decoder,
    likeliest,
)
from limo_nb.inference.rows import PreallocatedLayer, left_padded

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
    monkeypatch.setattr("limo_nb.inference.transformers_engine.FEW_ROWS", 0)
    assert made(model, items, tmp_path / "s.db", workers=2) == reference


def stored(store):
    """(number, key, text) of every kept row."""
    with sqlite3.connect(store) as database:
        return set(database.execute("SELECT number, key, text FROM completions"))


def test_missing_batches_alone_are_made_again(model, items, reference, tmp_path):
    store = tmp_path / "s.db"
    made(model, items, store)
    every = stored(store)
    with sqlite3.connect(store) as database:
        database.execute("DELETE FROM completions WHERE number BETWEEN 9 AND 16")
    kept = stored(store)
    assert made(model, items, store) == reference
    assert kept < stored(store) and len(kept) == len(every) - 8
    assert {row[1:] for row in stored(store)} == {row[1:] for row in every}


def test_what_others_asked_for_is_taken_from_the_store(model, items, reference, tmp_path):
    """Fewer items, more items, other ids, another order: nothing is made twice."""
    store = tmp_path / "s.db"
    made(model, items[3:8], store)
    early = stored(store)
    assert len(early) == 15
    assert made(model, items, store) == reference
    assert early < stored(store) and len(stored(store)) == 33
    renamed = [(f"other-{name}", prompt) for name, prompt in reversed(items[2:9])]
    rows = made(model, renamed, store)
    wanted = {(f"other-{row['id']}", row["sample"]): row["text"] for row in reference}
    assert all(wanted[row["id"], row["sample"]] == row["text"] for row in rows)
    assert len(stored(store)) == 33


def test_samples_can_be_drawn_in_rounds(model, items, reference, tmp_path):
    rounds = []
    for first in range(3):
        one = DRAWN.model_copy(update={"samples": 1})
        with open_engine(EngineSettings(dtype="float32", batch_size=5), model) as engine:
            rounds += complete(engine, items, one, tmp_path / "s.db", first=first).to_list()
    places = [name for name, _ in items]
    rounds.sort(key=lambda row: (places.index(row["id"]), row["sample"]))
    assert rounds == reference


def test_a_prompt_that_is_asked_twice_is_answered_twice(model, items, tmp_path):
    twins = [("a", items[0][1]), ("b", items[0][1])]
    rows = made(model, twins, tmp_path / "s.db")
    assert len(stored(tmp_path / "s.db")) == 6
    texts = [[row["text"] for row in rows if row["id"] == name] for name in "ab"]
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"temperature": 0.5}, {"top_p": 0.5}, {"max_new_tokens": 20}],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_shapes_the_result(model, items, reference, tmp_path, change):
    other = made(model, items, tmp_path / "s.db", DRAWN.model_copy(update=change))
    assert [r["text"] for r in other] != [r["text"] for r in reference]


def test_keys_and_values_in_place_are_those_that_are_copied():
    """Prompts, single tokens past the room, sweeps and reordered rows in between."""
    ours, theirs = PreallocatedLayer(), DynamicLayer()
    random = torch.Generator().manual_seed(1)

    def states(rows, tokens):
        return (torch.randn(rows, 2, tokens, 4, generator=random) for _ in range(2))

    def changed(change):
        for layer in (ours, theirs):
            change(layer)

    rows = 6
    for tokens in (5, *[1] * 70):
        new = list(states(rows, tokens))
        for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(one, other)
        if ours.get_seq_length() in (10, 40):
            rows -= 2
            changed(lambda layer, rows=rows: layer.batch_select_indices(torch.arange(rows)))
        if ours.get_seq_length() == 20:
            changed(lambda layer: layer.reorder_cache(torch.tensor([1, 0, 0, 2])))
    changed(lambda layer: layer.crop(-2))
    new = list(states(rows, 1))
    assert all(map(torch.equal, ours.update(*new), theirs.update(*new)))
    assert ours.get_seq_length() == theirs.get_seq_length() == 74


@pytest.mark.parametrize("tokens", [PREFILL_TOKENS, 100])
def test_greedy_equals_generate_one_by_one(model, items, tmp_path, monkeypatch, tokens):
    """Prefill shared and in parts, left padding and sweeping change no greedy token."""
    monkeypatch.setattr("limo_nb.inference.decoder.PREFILL_TOKENS", tokens)
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
    decoder = Decoder(model, "float32")
    prompt = prompt_ids(decoder.tokenizer, "Exercise.")
    sampling = Sampling(samples=1, temperature=0.5, max_new_tokens=1)
    with torch.inference_mode():
        logits = decoder.model(torch.tensor([prompt])).logits[0, -1]
        expected = (logits / 0.5).softmax(0)
        asked = [(prompt, seed) for seed in range(4000)]
        parts = decoder._generate(asked, sampling, len(asked))
        rows = [ids for ended, *_ in parts for _, ids in ended]
    counts = torch.bincount(torch.cat(rows), minlength=len(expected)) / 4000
    sigma = (expected * (1 - expected) / 4000).sqrt()
    assert ((counts - expected).abs() < 6 * sigma + 1e-3).all()


def test_a_row_does_not_depend_on_its_batch_mates(model):
    """The same seeds alone, in other company, in another order; top-p and all."""
    decoder = Decoder(model, "float32")
    prompts = [prompt_ids(decoder.tokenizer, r["question"]) for r in problems(6, seed=4)]
    sampling = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=40)
    seeds = [11, 12, 13, 14, 15, 16]
    together = decoder.decode(prompts, range(6), seeds, sampling)
    assert len({made.text for made in together}) == 6
    for place in range(6):
        alone = decoder.decode([prompts[place]], [0], [seeds[place]], sampling)
        assert alone == [together[place]]
    assert decoder.decode(prompts[::-1], range(6), seeds[::-1], sampling) == together[::-1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_rows_that_take_turns_are_those_that_go_together(model, dtype, at_once, monkeypatch):
    """Rows of other lengths join, in every order; what a row becomes depends on itself."""
    monkeypatch.setattr(decoder_module, "SEGMENT", 4)
    decoder = Decoder(model, dtype)
    texts = ["Exercise.", *(row["question"] for row in problems(5, seed=5)), "Facts. plus 4:"]
    prompts = [prompt_ids(decoder.tokenizer, text) for text in texts]
    sampling = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=24)
    owners, seeds = [0, 1, 1, 2, 3, 4, 5, 6, 0, 2], list(range(10))
    held: list[int] = []
    generate = decoder.model.generate

    def counted(ids, **more):
        held.append(len(ids))
        return generate(ids, **more)

    decoder.model.generate = counted
    turns = decoder.decode(prompts, owners, seeds, sampling, at_once)
    assert max(held) == at_once and len(held) > 10
    wanted = decoder.decode(prompts, owners, seeds, sampling)
    assert max(held) == len(owners)
    if dtype == "float32":
        assert turns == wanted
    else:  # sums of another order are rounded otherwise
        assert sum(one == other for one, other in zip(turns, wanted, strict=True)) >= 8
    assert all(row.tokens <= 24 for row in turns)


def test_top_p_leaves_the_tail_out(model):
    decoder = Decoder(model, "float32")
    prompt = prompt_ids(decoder.tokenizer, "Exercise.")
    with torch.inference_mode():
        chances = decoder.model(torch.tensor([prompt])).logits[0, -1].softmax(0)
    ranked = chances.sort(descending=True)
    head = set(ranked.indices[: int((ranked.values.cumsum(0) < 0.3).sum()) + 1].tolist())
    sampling = Sampling(temperature=1.0, top_p=0.3, max_new_tokens=1)
    with torch.inference_mode():
        asked = [(prompt, seed) for seed in range(500)]
        parts = decoder._generate(asked, sampling, len(asked))
        rows = [ids for ended, *_ in parts for _, ids in ended]
    assert set(torch.cat(rows).tolist()) <= head and len(head) > 1


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 0.99])
@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])  # flat, so that a nucleus is large
def test_the_nucleus_is_the_library_s(top_p, scale):
    scores = scale * torch.randn(6, 5000, generator=torch.Generator().manual_seed(1))
    wanted = TopPLogitsWarper(top_p)(None, scores)
    values, tokens = likeliest(scores, top_p)
    assert (tokens.diff() > 0).all(), "not in the vocabulary's order"
    found = torch.full_like(scores, -torch.inf).scatter(1, tokens, values)
    assert torch.equal(found, wanted)


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


def test_every_kind_of_engine_has_its_module():
    kinds = get_args(EngineSettings.model_fields["kind"].annotation)
    assert set(ENGINES) == set(kinds)
    assert all(find_spec(module) for module, _, _ in ENGINES.values())


@pytest.mark.parametrize("kind", ["vllm", "openai", "ray"])
def test_an_engine_that_is_not_installed_names_the_command(model, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    monkeypatch.delitem(sys.modules, f"limo_nb.inference.{kind}_engine", raising=False)
    with pytest.raises(NotInstalled, match=rf"pip install 'limo-nb\[{kind}\]'"):
        open_engine(EngineSettings(kind=kind), model)


def test_a_failing_worker_tells_why(tmp_path, monkeypatch):
    monkeypatch.setattr("limo_nb.inference.transformers_engine.FEW_ROWS", 0)
    folder = tiny_model(tmp_path / "broken")
    settings = EngineSettings(workers=2)
    with open_engine(settings, str(folder)) as engine:
        (folder / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(EngineFailed, match="generation worker failed"):
            complete(engine, [("a", "x"), ("b", "y")], Sampling(), tmp_path / "s.db")


def test_tokens_of_any_text_are_counted(model):
    count = token_counter(model)
    assert count("") == 0 < count("So 4.") < count("So 4. \ud83d")


def test_equal_ids_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="same id"):
        made(model, [("a", "x"), ("a", "y")], tmp_path / "s.db")


# ---------------------------------------------------------------- prompts without room
class Narrow:
    """An engine that reads 40 words, and answers with the number of those it read."""

    identity, batch_size, window, over_long = {"kind": "narrow"}, 4, 40, "skip"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def length(self, prompt):
        if isinstance(prompt, str):
            return len(prompt.split())
        return sum(len(message["content"].split()) for message in prompt)

    def run(self, batches, sampling):
        for batch in batches:
            yield [(a.key, Completion(str(self.length(a.prompt)), 1, True)) for a in batch]


def asked(words: int) -> list[dict]:
    return [{"role": "system", "content": "Think."},
            {"role": "user", "content": " ".join(f"w{n}" for n in range(words))}]  # fmt: skip


ITEMS = [("short", asked(5)), ("long", asked(60)), ("raw", "x " * 60)]


def test_a_prompt_without_room_is_left_out_and_named(tmp_path):
    with pytest.warns(
        UserWarning, match="long: its prompt has 61 tokens, and the model reads 40"
    ):
        made = complete(Narrow(), ITEMS, Sampling(max_new_tokens=4), tmp_path / "a.sqlite")
    assert list(zip(made["id"], made["text"], made["finished"], strict=True)) == [
        ("short", "6", True), ("long", "", False), ("raw", "60", True)
    ]  # fmt: skip


def test_a_prompt_without_room_is_cut_in_its_middle(tmp_path):
    narrow = Narrow()
    narrow.over_long = "cut"
    items, refused = over_long.fitted(narrow, ITEMS)
    assert not refused and items[0] == ITEMS[0] and items[2] == ITEMS[2]
    said = items[1][1][-1]["content"]
    assert (
        narrow.length(items[1][1]) == 20 and said.startswith("w0 w1 ") and said.endswith("w59")
    )
    with pytest.warns(UserWarning, match="cut in the middle, to fit the model's context: long"):
        made = complete(narrow, ITEMS, Sampling(max_new_tokens=4), tmp_path / "a.sqlite")
    assert made["text"][:] == ["6", "20", "60"]
    wide = [("system", [{"role": "system", "content": "x " * 50}, asked(5)[1]])]
    assert list(over_long.fitted(narrow, wide)[1]) == ["system"], "no question to cut"
