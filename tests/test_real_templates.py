"""Templates and tokenizers of real models: default prompts, what ends an answer, thoughts."""

from __future__ import annotations

import pytest
import real_models
from typer.testing import CliRunner

from limo_nb.cli import book  # noqa: F401  (registers its command)
from limo_nb.cli.base import app
from limo_nb.core.settings import SYSTEM_PROMPT
from limo_nb.inference import DEFAULT_SYSTEM, chat_prompt, load_tokenizer, prompt_text
from limo_nb.inference.models import context_length, stop_token_ids
from limo_nb.inference.templates import end_token_id
from limo_nb.sft import row_parts

pytestmark = pytest.mark.real
# What each template writes where nobody gives a system prompt, and the model's context.
MODELS = {
    "qwen2.5-coder-0.5b": (
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", 32768
    ),
    "smollm2-135m": (
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face", 8192
    ),
}  # fmt: skip
ROW = {"question": "What is 1+1?", "solution": "Add them.\nSo \\boxed{2}"}


@pytest.fixture(scope="module", params=MODELS)
def name(request) -> str:
    if real_models.here(request.param) is None:
        pytest.skip(f"absent: python tests/real_models.py {request.param}")
    return request.param


@pytest.fixture(scope="module")
def model(name) -> str:
    return str(real_models.here(name))


@pytest.fixture(scope="module")
def tokenizer(model):
    return load_tokenizer(model)


def test_a_default_system_prompt_is_named_and_not_used(name, model, tokenizer) -> None:
    theirs, _ = MODELS[name]
    silent = prompt_text(tokenizer, chat_prompt("q", None)[1:])
    assert theirs in silent
    for system, said in ((None, DEFAULT_SYSTEM), ("", DEFAULT_SYSTEM), ("S.", "S.")):
        text = prompt_text(tokenizer, chat_prompt("q", system))
        assert f"<|im_start|>system\n{said}<|im_end|>" in text and theirs not in text
    done = CliRunner().invoke(app, ["doctor", "--model", model])
    assert done.exit_code == 0 and theirs in done.stdout


def test_an_answer_ends_at_the_token_that_training_teaches(model, tokenizer) -> None:
    _, response, _ = row_parts(ROW, tokenizer, SYSTEM_PROMPT)
    assert tokenizer.decode(response) == ROW["solution"] + "<|im_end|>\n"
    (end,) = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert response.count(end) == 1 and end == end_token_id(tokenizer)
    assert end in stop_token_ids(model, tokenizer)


def test_the_context_is_that_of_the_file(name, model) -> None:
    assert context_length(model) == MODELS[name][1]
