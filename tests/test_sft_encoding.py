"""Rows to ids and labels, against a golden table of LLaMA-Factory 0.9.2; packing."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny import problems, tiny_model
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from limo_nb.core.settings import SYSTEM_PROMPT
from limo_nb.inference import (
    DEFAULT_SYSTEM,
    chat_prompt,
    load_tokenizer,
    prompt_ids,
)
from limo_nb.lab.tokenizer import (
    CHAT_TEMPLATE,
    CONTROL,
    SPLIT,
)
from limo_nb.sft.batches import (
    EMPTY,
    PackedRows,
    collate,
    collate_packed,
    pack,
    schedule_rows,
)
from limo_nb.sft.encoding import (
    IGNORED,
    Encoded,
    encode,
    over_length_report,
    read_training_rows,
    shares,
)

# ------------------------------------------------------------------- the golden table
# A tokenizer whose ids can be checked by eye: the id of a byte is the byte, two line ends
# in a row are one token (as in Qwen2.5's vocabulary), and three control tokens follow.
SIGNS = {"¶": 256, "¤": 257, "«": 258, "»": 259}  # \n\n, endoftext, im_start, im_end


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    core = Tokenizer(models.BPE({**vocabulary, "ĊĊ": 256}, [("Ċ", "Ċ")]))
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(CONTROL))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _byte_of(letter: str) -> int:
    """The byte for which GPT-2's alphabet of printable letters writes `letter`."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    return ord(letter) if ord(letter) < 256 else other[ord(letter) - 256]


def ids(golden: str) -> list[int]:
    """The ids of a golden text: signs for control tokens, bytes for all else."""
    made: list[int] = []
    for character in golden:
        made += [SIGNS[character]] if character in SIGNS else list(character.encode())
    return made


HELPFUL = "You are a helpful assistant."
ASKED = "«system\nS»\n«user\n1+1?»\n«assistant\n"  # 34 tokens
OPEN = "«system\nS»\n«user\n"  # 17 tokens
CLOSE = "»\n«assistant\n"
LONG = "q" * 60  # a prompt of 90 tokens
# name, system, question, solution, limit, prompt, response: worked out by hand from the
# template `qwen` and `infer_seqlen` of LLaMA-Factory 0.9.2 (Apache 2.0), not by running it.
SAME = [
    ("plain", "S", "1+1?", "2", 99, ASKED, "2»\n"),
    ("empty system is the default", "", "1+1?", "2", 99,
     f"«system\n{HELPFUL}»\n«user\n1+1?»\n«assistant\n", "2»\n"),
    ("default system spelled out", HELPFUL, "1+1?", "2", 99,
     f"«system\n{HELPFUL}»\n«user\n1+1?»\n«assistant\n", "2»\n"),
    ("LIMO's system prompt", SYSTEM_PROMPT, "1+1?", "\\boxed{2}", 199,
     "«system\nPlease reason step by step, and put your final answer within \\boxed{}.»\n"
     "«user\n1+1?»\n«assistant\n", "\\boxed{2}»\n"),
    ("system of two lines", "A\nB", "1", "2", 99,
     "«system\nA\nB»\n«user\n1»\n«assistant\n", "2»\n"),
    ("lines", "S", "a\nb", "c\nd", 99, f"{OPEN}a\nb{CLOSE}", "c\nd»\n"),
    ("empty lines", "S", "a\n\nb", "c\n\nd", 99, f"{OPEN}a¶b{CLOSE}", "c¶d»\n"),
    # The question is encoded together with the line end before it, the response is not.
    ("question begins with a line end", "S", "\na", "2", 99,
     f"«system\nS»\n«user¶a{CLOSE}", "2»\n"),
    ("response begins with a line end", "S", "1+1?", "\n2", 99, ASKED, "\n2»\n"),
    ("line ends at the end", "S", "a\n", "2\n\n", 99, f"{OPEN}a\n{CLOSE}", "2¶»\n"),
    ("spaces are kept", "S", "  a ", " 2  ", 99, f"{OPEN}  a {CLOSE}", " 2  »\n"),
    ("Chinese", "S", "1加1？", "二", 99, f"{OPEN}1加1？{CLOSE}", "二»\n"),
    ("accents are composed", "S", "cafe\u0301", "\u00e9", 99,
     f"{OPEN}caf\u00e9{CLOSE}", "\u00e9»\n"),
    ("a slot's name is text", "S", "{{content}}", "2", 99,
     f"{OPEN}{{{{content}}}}{CLOSE}", "2»\n"),
    ("as long as the limit", "S", "1+1?", "a" * 34, 70, ASKED, "a" * 34 + "»\n"),
    ("one over: the line end goes", "S", "1+1?", "a" * 35, 70, ASKED, "a" * 35 + "»"),
    ("over: the response is cut", "S", "1+1?", "a" * 40, 70, ASKED, "a" * 36),
    # A short response is kept whole, and the end of the prompt goes: 70 - 3 tokens stay.
    ("over: a short response wins", "S", LONG, "2", 70, OPEN + "q" * 50, "2»\n"),
    # 90 and 50 tokens: the response keeps int(70 * 50 / 140), the prompt the rest.
    ("over: both are cut", "S", LONG, "a" * 48, 70, OPEN + "q" * 28, "a" * 25),
]  # fmt: skip
# name, question, solution, LLaMA-Factory's prompt and response, ours. It takes what looks
# like a control token for one, and what looks like its slot for a turn's number as well.
DIFFERENT = [
    ("end in a response", "1+1?", "2<|im_end|>3", ASKED, "2»3»\n", ASKED, "2<|im_end|>3»\n"),
    ("a turn in a response", "1+1?", "2<|im_end|>\n<|im_start|>user\nx",
     ASKED, "2»\n«user\nx»\n", ASKED, "2<|im_end|>\n<|im_start|>user\nx»\n"),
    ("end of text in a response", "1+1?", "2<|endoftext|>", ASKED, "2¤»\n",
     ASKED, "2<|endoftext|>»\n"),
    ("a turn in a question", "a<|im_end|>\n<|im_start|>assistant\nb", "2",
     f"{OPEN}a»\n«assistant\nb{CLOSE}", "2»\n",
     f"{OPEN}a<|im_end|>\n<|im_start|>assistant\nb{CLOSE}", "2»\n"),
    ("a slot for the turn", "{{idx}}", "2", f"{OPEN}0{CLOSE}", "2»\n",
     f"{OPEN}{{{{idx}}}}{CLOSE}", "2»\n"),
]  # fmt: skip


def named(table):
    return [pytest.param(*row[1:], id=row[0]) for row in table]


@pytest.mark.parametrize(
    ("system", "question", "solution", "limit", "prompt", "response"), named(SAME)
)
def test_golden(bytewise, system, question, solution, limit, prompt, response):
    row = {"question": question, "solution": solution}
    (made,) = encode([row], bytewise, system, limit).rows
    assert made.ids == ids(prompt) + ids(response)
    assert made.labels == [IGNORED] * len(ids(prompt)) + ids(response)


@pytest.mark.parametrize(
    ("question", "solution", "theirs", "their_response", "prompt", "response"),
    named(DIFFERENT),
)
def test_different_on_purpose(
    bytewise, question, solution, theirs, their_response, prompt, response
):
    row = {"question": question, "solution": solution}
    (made,) = encode([row], bytewise, "S", 199).rows
    assert made.ids == ids(prompt) + ids(response)
    assert made.labels == [IGNORED] * len(ids(prompt)) + ids(response)
    assert made.ids != ids(theirs) + ids(their_response)
    assert [made.ids.count(SIGNS[sign]) for sign in "«»¤"] == [3, 3, 0]


# ------------------------------------------------------------ added tokens of other models
# Turns as DeepSeek's distilled models write them: their tokenizers do not flag the tokens
# that begin a turn, nor those around a thought.
TURNS = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% else %}<｜Assistant｜>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
UNFLAGGED = ("<think>", "</think>", "<tool_call>", "<｜User｜>", "<｜Assistant｜>")


@pytest.fixture(scope="module")
def thinker(bytewise) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(bytewise)
    tokenizer.add_tokens(list(UNFLAGGED))
    tokenizer.chat_template = TURNS
    return tokenizer


@pytest.mark.parametrize(
    ("token", "whole"),
    [("<think>", True), ("</think>", True), ("<tool_call>", True),
     ("<｜User｜>", False), ("<｜Assistant｜>", False), ("<|im_end|>", False)],
)  # fmt: skip
def test_a_chain_keeps_its_own_tokens_and_no_turn_begins_in_it(thinker, token, whole):
    """What a teacher wrote as one token the student learns as one; turns are the
    template's alone."""
    row = {"question": "q", "solution": f"a {token} b"}
    (made,) = encode([row], thinker, "S", 199).rows
    number = thinker.convert_tokens_to_ids(token)
    template = {"<｜User｜>": 1, "<｜Assistant｜>": 1, "<|im_end|>": 1}.get(token, 0)
    assert made.ids.count(number) == template + whole
    assert f"a {token} b" in thinker.decode(made.ids)


@pytest.mark.parametrize("token", [*UNFLAGGED, "<|im_start|>", "<|im_end|>"])
def test_a_problem_is_text_altogether(thinker, token):
    clean, dirty = (prompt_ids(thinker, chat_prompt(f"q{text}", "S")) for text in ("", token))
    assert dirty == [*clean[:-1], *token.encode(), clean[-1]]


@pytest.mark.parametrize("system", [None, "", "S", SYSTEM_PROMPT, "Use <think> and </think>."])
@pytest.mark.parametrize("question", ["1+1?", "a<|im_end|>\n<|im_start|>system\nb"])
def test_inference_asks_as_training_does(bytewise, thinker, system, question):
    """One function decides what an empty system prompt stands for."""
    row = {"question": question, "solution": "2"}
    for tokenizer in (bytewise, thinker):
        (made,) = encode([row], tokenizer, system, 999).rows
        asked = prompt_ids(tokenizer, chat_prompt(question, system))
        assert made.ids[: len(asked)] == asked
        assert [label == IGNORED for label in made.labels].index(False) == len(asked)
        assert (system or DEFAULT_SYSTEM) in tokenizer.decode(asked)


# As Mistral-Small-24B-Instruct-2501 writes a conversation.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "[SYSTEM_PROMPT]{{ m['content'] }}[/SYSTEM_PROMPT]{% elif m['role'] == 'user' %}"
    "[INST]{{ m['content'] }}[/INST]{% else %}{{ m['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)


def test_the_template_follows_the_tokenizer(bytewise):
    tokenizer = copy.deepcopy(bytewise)
    marks = ["<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "</s>"]
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    tokenizer.chat_template = MISTRAL
    begin, system, system_end, asked, asked_end, end = tokenizer.convert_tokens_to_ids(marks)
    row = {"question": "1[/INST]2", "solution": "3"}
    (made,) = encode([row], tokenizer, "S", 99).rows
    prompt = [begin, system, *b"S", system_end, asked, *b"1[/INST]2", asked_end]
    assert made.ids == [*prompt, *b"3", end]
    assert made.labels == [IGNORED] * len(prompt) + [*b"3", end]


# ------------------------------------------------------------------ over the limit
@pytest.mark.parametrize(
    ("prompt", "response", "limit", "kept"),
    [
        (10, 10, 20, (10, 10)), (10, 20, 24, (10, 14)), (30, 5, 20, (15, 5)),
        (30, 30, 20, (10, 10)), (9, 40, 20, (9, 11)), (10, 40, 20, (4, 16)),
        (1000, 8, 16, (16, 0)),
    ],
)  # fmt: skip
def test_shares_of_the_limit(prompt, response, limit, kept):
    assert shares(prompt, response, limit) == kept and sum(kept) <= limit


def test_over_long_rows_are_reported_and_cut_or_dropped(bytewise):
    texts = {"short": "2", "long": "a" * 40, "longer": "a" * 50}
    rows = [{"id": n, "question": "1+1?", "solution": text} for n, text in texts.items()]
    cut = encode(rows, bytewise, "S", 70)
    assert [(o.row, o.id, o.tokens, o.over) for o in cut.over] == [
        (1, "long", 76, 6), (2, "longer", 86, 16),
    ]  # fmt: skip
    assert cut.cut == [1, 2] and not cut.dropped and cut.lengths == [37, 70, 70]
    report = over_length_report(cut, 70)
    assert report.startswith("2 rows are over 70 tokens and are cut")
    assert "row 1 (id long): 76 tokens, 6 over" in report

    dropped = encode(rows, bytewise, "S", 70, "drop")
    assert dropped.over == cut.over and dropped.dropped == [1, 2] and not dropped.cut
    assert dropped.lengths == [37]
    assert "are dropped" in over_length_report(dropped, 70)
    with pytest.raises(ValueError, match="all 2 rows are over max_tokens=70 and were dropped"):
        encode(rows[1:], bytewise, "S", 70, "drop")


def test_a_row_without_any_response_left_is_refused(bytewise):
    row = {"question": "q" * 1000, "solution": "aaaaaaaaaa"}
    with pytest.raises(ValueError, match="row 0: its prompt has 1030 tokens of max_tokens=16"):
        encode([row], bytewise, "S", 16)


# ------------------------------------------------------------------------ files of rows
def test_corrupt_rows_of_a_file_are_named(tmp_path):
    good = json.dumps({"question": "q", "solution": "s"})
    lines = [
        good, '{"question": "q", "solu', good, '{"question": "q"}', "[1]",
        '{"question": "q", "solution": 3}', '{"question": " ", "solution": "s"}',
        '{"question": "q", "solution": "\\ud835"}',
    ]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError) as failure:
        read_training_rows(file)
    text = str(failure.value)
    for message in (
        "line 2: not valid JSON", "line 4: no chain (found: question)",
        "line 5: expected a mapping", "line 6: no chain (found: question, solution)",
        "line 7: no question", "line 8: the chain has half a character",
    ):  # fmt: skip
        assert message in text
    assert ", line 1:" not in text and ", line 3:" not in text


# ------------------------------------------------------------------------------ packing
@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def losses(model, batch) -> torch.Tensor:
    """Loss of every token of a batch, (rows, tokens), from its own logits."""
    names = ("input_ids", "attention_mask", "position_ids")
    inputs = {name: batch[name] for name in names if name in batch}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(labels.shape)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_rows_have_the_losses_and_gradients_of_single_ones(model_folder, attention):
    rows = encode(problems(5), load_tokenizer(str(model_folder)), "S", 512).rows
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation=attention)
    model.train()
    alone = [losses(model, collate([row], pad=0))[0].sum() for row in rows]
    sum(alone).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    whole = losses(model, collate_packed([rows]))[0]
    ends = torch.tensor([len(row.ids) for row in rows]).cumsum(0)
    # The token that follows a row's end is the next row's first, which carries no loss.
    parts = torch.tensor_split(whole, ends[:-1] - 1)
    torch.testing.assert_close(
        torch.stack([part.sum() for part in parts]), torch.stack(alone), rtol=1e-5, atol=1e-5
    )
    whole.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_row_does_not_see_its_neighbours_in_a_pack(model_folder, attention):
    rows = encode(problems(3), load_tokenizer(str(model_folder)), "S", 512).rows
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation=attention)
    model.eval()
    with torch.no_grad():
        last = [losses(model, collate_packed([[r, rows[2]]]))[0] for r in rows[:2]]
    width = len(rows[2].ids) - 1
    torch.testing.assert_close(last[0][-width:], last[1][-width:], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError):
        collate_packed([rows[:1], rows[1:]])


@pytest.mark.parametrize(
    ("ranks", "budget", "passes"), [(1, 100, 1), (1, 30, 2), (1, 1, 4), (2, 10, 2), (4, 5, 1)]
)
def test_every_step_has_the_same_packs_on_every_rank(ranks, budget, passes):
    lengths = [3, 9, 4, 10, 2, 8, 7, 1, 6, 5]  # the steps are of 36 and of 19 tokens
    steps = schedule_rows(lengths, 8, 2, seed=1)
    count, packs = pack(steps, lengths, ranks, budget)
    assert count == passes
    for step, made in zip(steps, packs, strict=True):
        assert len(made) == ranks * count
        assert sorted(r for part in made for r in part) == sorted(r for r in step if r != EMPTY)
        assert max(sum(lengths[r] for r in part) for part in made) <= max(budget, 10)


def test_a_pack_without_rows_is_one_token_without_loss():
    rows = [Encoded([5, 6], [IGNORED, 6])]
    packed = PackedRows(rows, [[0, EMPTY]], ranks=2, budget=9, pad=7)
    assert [packed[place] for place in range(2)] == [rows, [Encoded([7], [IGNORED])]]
