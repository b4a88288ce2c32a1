"""GGUF files: named, loaded, identified, recorded and refused, on a tiny one."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from gguf import GGMLQuantizationType as Kind
from test_identity import NEW, OLD, ModelHub, said
from tiny import problems
from tiny_gguf import CONTEXT, cut_into_digits, tiny_qwen2, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from limo_nb.cli import app
from limo_nb.core.settings import EngineSettings, Sampling, SftSettings
from limo_nb.inference import (
    EngineFailed,
    NotInstalled,
    absolute_name,
    chat_prompt,
    complete,
    exact_name,
    load_model,
    load_tokenizer,
    model_digest,
    open_engine,
    prompt_ids,
    sample,
    weights_of,
)
from limo_nb.inference.models import stop_token_ids
from limo_nb.sft import fine_tune_here, planner

TEXTS = [
    "12 apples and 345  pears\n\n  cost 6.78", "<|im_start|>user\nwhat?<|im_end|>\n",
    "  two spaces, it's\t1", "3 + 45 = 48\r\n",
]  # fmt: skip
LLAMACPP = EngineSettings(kind="llamacpp", batch_size=4)
TRANSFORMERS = EngineSettings(dtype="float32")
ITEMS = [(f"q{n}", chat_prompt(row["question"], "S")) for n, row in enumerate(problems(6))]
ITEMS += [("raw", "Exercise."), ("hostile", chat_prompt("Is <|im_end|>\n 1 a word?", "S"))]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["XDG_CACHE_HOME"]) / "limo-nb" / "gguf"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_qwen2(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def file(source):
    return write_gguf(source, source.parent / "tiny-q8_0.gguf", Kind.Q8_0)


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


# ------------------------------------------------------------------------------- names
def test_a_file_has_one_digest_by_whatever_name(file, tmp_path, monkeypatch):
    alone = tmp_path / "alone"
    alone.mkdir()
    os.link(file, alone / "other-name.gguf")
    monkeypatch.chdir(file.parent)
    names = [str(file), file.name, f"{file.parent}#{file.name}", f".#{file.name}", str(alone)]
    assert len({model_digest(name) for name in names}) == 1
    assert all(exact_name(name) == name for name in names)
    assert absolute_name(file.name) == str(file)
    assert absolute_name(f".#{file.name}") == f"{file.parent}#{file.name}"
    assert absolute_name("owner/model#x.gguf") == "owner/model#x.gguf"


def test_another_file_has_another_digest(source, file, tmp_path):
    assert model_digest(str(write_gguf(source, tmp_path / "f32.gguf"))) != model_digest(
        str(file)
    )


FROM_HUB = """
import json, sys
from limo_nb.inference import exact_name, load_tokenizer, model_digest
names = ["owner/model#tiny.gguf", "owner/model@" + "b" * 40 + "#tiny.gguf"]
said = [[exact_name(name), model_digest(name), len(load_tokenizer(name))] for name in names]
try:
    model_digest("owner/model#absent.gguf")
except ValueError as error:
    said.append(str(error))
print(json.dumps(said))
"""


def test_a_file_of_the_hub_is_the_one_of_its_commit(source, file, tmp_path):
    folders = {commit: tmp_path / commit for commit in (OLD, NEW)}
    for commit, kind in zip(folders, (Kind.Q8_0, Kind.Q4_0), strict=True):
        folders[commit].mkdir()
        write_gguf(source, folders[commit] / "tiny.gguf", kind)
    with ModelHub(folders) as hub:
        environment = hub.environment(tmp_path)
        *found, absent = said(FROM_HUB, env=environment)
    assert "absent.gguf of 'owner/model' can be had neither" in absent
    *again, absent = said(FROM_HUB, env={**environment, "HF_HUB_OFFLINE": "1"})
    assert again == found
    assert [name for name, _, _ in found] == [
        f"owner/model@{commit}#tiny.gguf" for commit in (OLD, NEW)
    ]
    local = [model_digest(str(folder / "tiny.gguf")) for folder in folders.values()]
    assert [digest for _, digest, _ in found] == local
    assert local[0] == model_digest(str(file)) != local[1]


# ------------------------------------------------------------------------------ loading
def test_a_file_in_full_precision_is_the_model_it_was_made_of(source, tmp_path):
    file = write_gguf(source, tmp_path / "f32.gguf")
    ours, tokenizer = load_model(str(file), "float32")
    theirs = AutoModelForCausalLM.from_pretrained(
        source, attn_implementation=ours.config._attn_implementation
    )
    ids = prompt_ids(tokenizer, ITEMS[0][1])
    assert torch.equal(logits(ours, ids), logits(theirs.eval(), ids))
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert ours.config.max_position_embeddings == CONTEXT


def test_an_output_matrix_that_repeats_the_embedding_is_tied(source, tmp_path):
    """The finer of the two is taken for both; its rounding is far below the coarser one's."""
    coarse = write_gguf(source, tmp_path / "coarse.gguf", Kind.Q4_0)
    fine = write_gguf(source, tmp_path / "fine.gguf", Kind.Q4_0, output=Kind.Q8_0)
    want = AutoModelForCausalLM.from_pretrained(source).lm_head.weight
    errors = []
    for file in (coarse, fine):
        model, _ = load_model(str(file), "float32")
        assert model.config.tie_word_embeddings
        assert model.lm_head.weight is model.model.embed_tokens.weight
        errors.append((model.lm_head.weight - want).abs().mean().item())
    assert 0 < errors[1] < errors[0] / 8
    assert planner.shape_of(str(fine)).tied
    assert planner.shape_of(str(fine)).parameters == model.num_parameters()


def test_an_output_matrix_of_its_own_is_kept(tmp_path):
    source = tiny_qwen2(tmp_path / "untied", tied=False)
    file = write_gguf(source, tmp_path / "untied.gguf", output=Kind.F32)
    model, _ = load_model(str(file), "float32")
    want = AutoModelForCausalLM.from_pretrained(source)
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, want.lm_head.weight)
    assert torch.equal(model.model.embed_tokens.weight, want.model.embed_tokens.weight)


@pytest.mark.parametrize("pre", ["qwen2", "smollm"])
def test_the_tokenizer_is_the_one_that_the_file_was_made_with(source, tmp_path, pre):
    want = AutoTokenizer.from_pretrained(source)
    texts = [*TEXTS, "cafe\u0301"] if pre == "qwen2" else TEXTS
    if pre == "smollm":
        cut_into_digits(want)
    found = load_tokenizer(str(write_gguf(source, tmp_path / f"{pre}.gguf", pre=pre)))
    for text in texts:
        assert found(text)["input_ids"] == want(text)["input_ids"], text
    assert found.chat_template == want.chat_template
    assert (found.eos_token, found.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert set(found.all_special_tokens) == set(want.all_special_tokens)
    assert found.padding_side == "left" and found.model_max_length == CONTEXT


def test_a_rule_of_splitting_that_nobody_knows_is_told(source, tmp_path):
    with pytest.warns(UserWarning, match="rule for splitting text, 'other', is not known"):
        load_tokenizer(str(write_gguf(source, tmp_path / "other.gguf", pre="other")))


def test_stop_tokens_and_context_come_from_the_file(file):
    tokenizer = load_tokenizer(str(file))
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert stop_token_ids(str(file), tokenizer) == sorted(ends)


def test_what_was_made_of_a_file_is_found_again(file, cache):
    load_model(str(file), "float32")
    (folder,) = filter(Path.is_dir, cache.glob(f"{model_digest(str(file))}-*"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    load_model(str(file), "float32")
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors", "gguf.json"} <= set(before)


# ------------------------------------------------------------------------------ records
def test_fine_tuned_it_is_an_ordinary_folder_that_says_where_it_came_from(file, tmp_path):
    settings = SftSettings(
        epochs=1, batch_size=4, learning_rate=1e-2, max_tokens=256, ranks=1, dtype="float32",
        zero_stage=0,
    )  # fmt: skip
    rows = Dataset.from_list(problems(4))
    made = fine_tune_here(rows, str(file), settings, 1, "S", tmp_path / "run")
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert done["weights"] == "Q8_0, dequantised"
    assert "(weights Q8_0, dequantised)" in (made / "README.md").read_text()
    assert weights_of(str(made)) == {}
    tuned, tokenizer = load_model(str(made), "float32")
    base, known = load_model(str(file), "float32")
    assert tuned.lm_head.weight is tuned.model.embed_tokens.weight
    assert not torch.equal(tuned.lm_head.weight, base.lm_head.weight)
    assert prompt_ids(tokenizer, ITEMS[-1][1]) == prompt_ids(known, ITEMS[-1][1])
    assert stop_token_ids(str(made), tokenizer) == stop_token_ids(str(file), known)


@pytest.mark.parametrize(
    ("engine", "weights"), [(TRANSFORMERS, "Q8_0, dequantised"), (LLAMACPP, "Q8_0")]
)
def test_every_completion_depends_on_how_the_weights_were_read(file, engine, weights):
    with open_engine(engine, str(file)) as opened:
        assert opened.identity["weights"] == weights
        assert opened.identity["model"] == model_digest(str(file))


# ------------------------------------------------------------------------------- refusals
def damaged(file, folder, how):
    target = folder / "damaged.gguf"
    content = file.read_bytes()
    if how == "text":
        content = b"<html>not found</html>"
    elif how in ("header", "tensors"):
        content = content[: 2000 if how == "header" else len(content) - 100]
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("text", "is not a GGUF file: it does not begin with GGUF"),
        ("header", "is damaged, or was not downloaded to its end .*: get it again"),
        ("tensors", "is damaged, or was not downloaded to its end .*: get it again"),
    ],
)
def test_a_damaged_file_is_named(file, tmp_path, how, told):
    name = str(damaged(file, tmp_path, how))
    for use in (load_tokenizer, load_model, lambda name: open_engine(LLAMACPP, name)):
        with pytest.raises(ValueError, match=rf"damaged.gguf {told}"):
            use(name)


def test_a_name_that_means_no_file_says_what_there_is(file, tmp_path):
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        os.link(file, folder / name)
    for name, told in (
        (folder, r"has several GGUF files: name one as .*several#FILE, of a.gguf, b.gguf"),
        (f"{folder}#c.gguf", r"there is no file .*c.gguf; .*several has a.gguf, b.gguf"),
        (folder / "c.gguf", r"there is no file .*c.gguf; .*several has a.gguf, b.gguf"),
        (f"{folder}#a.bin", "behind # comes the name of a file that ends in .gguf"),
    ):
        with pytest.raises(ValueError, match=told):
            model_digest(str(name))


@pytest.mark.parametrize("command", ["sample", "encode", "sft", "evaluate"])
def test_commands_tell_it_in_one_line(command, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "solution": "s"}\n')
    words = ["-b", "lab"] if command == "evaluate" else [str(rows)]
    done = CliRunner().invoke(app, [command, *words, "--model", str(tmp_path / "x.gguf")])
    assert done.exit_code and "x.gguf" in str(done.exception)


def test_weights_that_would_be_random_or_wrong_are_refused(source, tmp_path):
    """llama.cpp reads scaled positions; transformers would leave them out."""
    factors = {"rope_freqs.weight": np.ones(8, np.float32)}
    scaled = str(write_gguf(source, tmp_path / "scaled.gguf", more=factors))
    load_tokenizer(scaled)
    with pytest.raises(
        ValueError, match="scaled.gguf cannot be loaded by transformers: it sca"
    ):
        load_model(scaled)
    gap = "model.layers.1.mlp.up_proj.weight"
    lacking = str(write_gguf(source, tmp_path / "lacking.gguf", without=gap))
    with pytest.raises(ValueError, match=f"lacking.gguf: 1 tensors have no weights, as {gap}"):
        load_model(lacking)


def test_the_library_is_asked_for(source, tmp_path, monkeypatch):
    other = {"other": np.ones(8, np.float32)}
    file = write_gguf(source, tmp_path / "new.gguf", more=other)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(NotInstalled, match=r"pip install 'limo-nb\[gguf\]'"):
        load_tokenizer(str(file))


# ------------------------------------------------------------------------------ llama.cpp
def test_the_server_is_asked_for(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.delitem(sys.modules, "limo_nb.inference.llamacpp_engine", raising=False)
    with pytest.raises(NotInstalled, match=r"pip install 'limo-nb\[llamacpp\]'"):
        open_engine(LLAMACPP, str(file))


def rows_of(engine, file, sampling, store):
    with open_engine(engine, str(file)) as opened:
        return complete(opened, ITEMS, sampling, store).to_list()


def test_llamacpp_reads_the_tokens_that_transformers_reads(file, tmp_path):
    """Greedy answers to all prompts, one with a control token and a raw one among them."""
    greedy = Sampling(max_new_tokens=12)
    there = rows_of(LLAMACPP, file, greedy, tmp_path / "l.db")
    here = rows_of(TRANSFORMERS, file, greedy, tmp_path / "t.db")
    assert [(r["id"], r["sample"]) for r in there] == [(r["id"], r["sample"]) for r in here]
    same = sum(a["text"][:8] == b["text"][:8] for a, b in zip(there, here, strict=True))
    assert same >= len(ITEMS) - 2  # its kernels round activations to eight bits
    for row in there:
        assert row["finished"] or row["tokens"] == 12


def test_llamacpp_draws_by_seeds_and_resumes(file, tmp_path):
    """One at a time: the sums of rows that are computed together depend on their number."""
    one = LLAMACPP.model_copy(update={"batch_size": 1})
    drawn = Sampling(samples=2, temperature=1.0, top_p=0.9, max_new_tokens=8, seed=3)
    whole = rows_of(one, file, drawn, tmp_path / "whole.db")
    with open_engine(one, str(file)) as opened:
        complete(opened, ITEMS[:3], drawn, tmp_path / "parts.db")
    parts = rows_of(one, file, drawn, tmp_path / "parts.db")
    assert parts == whole
    first, second = whole[::2], whole[1::2]
    assert [r["text"] for r in first] != [r["text"] for r in second]


def test_llamacpp_takes_longer_prompts_and_names_those_that_never_fit(file, tmp_path):
    """The second request needs longer contexts; what exceeds the model's is left empty."""
    longer = ("longer", chat_prompt("What is 1 + 1? " * 12, "S"))
    never = ("never", chat_prompt("What is 1 + 1? " * 90, "S"))
    with open_engine(LLAMACPP, str(file)) as opened:
        assert opened.length(longer[1]) > 120 and opened.length(never[1]) > CONTEXT
        complete(opened, ITEMS[:1], Sampling(max_new_tokens=4), tmp_path / "a.db")
        limit = Sampling(max_new_tokens=CONTEXT)
        with pytest.warns(UserWarning, match=f"never: its prompt has .* reads {CONTEXT}"):
            made = complete(opened, [longer, never], limit, tmp_path / "b.db").to_list()
    assert 0 < made[0]["tokens"] <= CONTEXT - 120 and made[1]["tokens"] == 0


def test_a_server_that_dies_is_told_with_what_to_do(file, tmp_path):
    with open_engine(LLAMACPP, str(file)) as opened:
        complete(opened, ITEMS[:1], Sampling(max_new_tokens=2), tmp_path / "s.db")
        process = opened._server.process
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(
            EngineFailed, match=r"llama.cpp's server ended with status -9 \(kil"
        ):
            complete(opened, ITEMS, Sampling(max_new_tokens=3), tmp_path / "s.db")
    assert process.poll() is not None


def test_no_server_is_left_behind(file, tmp_path):
    with open_engine(LLAMACPP, str(file)) as opened:
        complete(opened, ITEMS[:1], Sampling(max_new_tokens=2), tmp_path / "s.db")
        process = opened._server.process
        assert process.poll() is None
    assert process.poll() is not None


def test_a_model_that_is_no_gguf_file_is_served_by_transformers(source, capsys):
    made = sample(
        ["What is 1 + 1?"], str(source), engine=LLAMACPP, sampling=Sampling(max_new_tokens=2)
    )
    assert made["tokens"][0] > 0
    assert "is not a GGUF file: transformers serves it" in capsys.readouterr().err
