"""Models and tokenizers, loaded by name (see `identity`), and how they decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers import logging as transformers_logging

from limo_nb.core.precision import (
    Precision,
    settle,
)
from limo_nb.inference.chat import plain_ids
from limo_nb.inference.identity import resolve, source_of
from limo_nb.inference.templates import end_token_id

SMALL_BYTES = 2**28  # weights of a model that decodes in 32 bits on every CPU


def load_tokenizer(name: str) -> Any:
    """The tokenizer of `name`, padding on the left; the pad token falls back to eos.

    Raises ValueError where there is none.
    """
    try:
        source, commit = source_of(name)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=commit, padding_side="left")
    except (OSError, ValueError) as error:  # nothing there, or a folder without a tokenizer
        raise ValueError(
            f"no tokenizer at {resolve(name)!r}: name a folder, `lab:NAME`, a GGUF file, or a "
            "Hub id while online, ID#FILE.gguf where it has GGUF files alone "
            f"({str(error).strip().splitlines()[0]})"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def token_counter(name: str) -> Callable[[str], int]:
    """A function from a text to its number of tokens by the tokenizer of the model `name`."""
    tokenizer = load_tokenizer(name)
    tokenizer.model_max_length = int(1e9)  # nothing runs: no warning of long texts
    # Chains may hold lone surrogates, which JSON can spell and tokenizers refuse.
    return lambda text: len(plain_ids(tokenizer, text.encode("utf-8", "replace").decode()))


def decoding_precision(name: str, dtype: str = "auto", device: str | None = None) -> Precision:
    """The precision in which the model `name` decodes where `dtype` says "auto".

    That of `precision.settle`, but a small model on a CPU decodes in 32 bits everywhere:
    its time goes into many small operations and not into products (measured: 7.9 s in 32
    bits, 8.5 s in bfloat16 where products take a sixth of the time; benchmarks/RESULTS.md).
    """
    on_cpu = not torch.cuda.is_available() if device is None else device == "cpu"
    if dtype == "auto" and on_cpu and is_small(name):
        return Precision("float32", "so small a model decodes no faster in bfloat16")
    return settle(dtype, device)


def is_small(name: str) -> bool:
    """Whether `name` is in a local folder and its weights are few."""
    folder = Path(resolve(name))
    return folder.is_dir() and _weight_bytes(folder) < SMALL_BYTES


def _weight_bytes(folder: Path) -> int:
    """Bytes of the weight files in `folder`."""
    kinds = ("*.safetensors", "*.bin")
    return sum(path.stat().st_size for kind in kinds for path in folder.glob(kind))


def load_model(name: str, dtype: str = "auto", attention: str = "auto") -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer). Raises ValueError where there is no model.

    `dtype` "auto" is that of `decoding_precision`, and not what the weights are kept in.
    `attention` "auto" is plain attention for a small model on a CPU, where it decodes faster,
    and SDPA elsewhere: plain attention repeats shared keys and values for every head, which
    in a larger model is most of a step (benchmarks/attention.py).
    """
    source, commit = source_of(name, weights=True)
    if attention == "auto":
        plain = not torch.cuda.is_available() and is_small(name)
        attention = "eager" if plain else "sdpa"
    wanted = getattr(torch, decoding_precision(name, dtype).dtype)
    try:
        with quiet_bars():
            model = AutoModelForCausalLM.from_pretrained(
                source, revision=commit, dtype=wanted, attn_implementation=attention
            )
    except OSError as error:
        raise ValueError(f"no model at {source!r}: {error}") from error
    return model.eval(), load_tokenizer(name)


def stop_token_ids(name: str, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those of `generation_config.json`, end and padding.

    And the one with which the chat template ends a reply, which is what training teaches:
    generation configs forget it, and tokenizers name another. The pad token ends a page of
    the lab's textbooks, and text of base models.
    """
    found = generation_config(name).eos_token_id
    stops = {*found} if isinstance(found, list) else {found}
    taught = end_token_id(tokenizer) if tokenizer.chat_template else None
    return sorted((stops | {tokenizer.eos_token_id, tokenizer.pad_token_id, taught}) - {None})


def generation_config(name: str) -> GenerationConfig:
    """The decoding defaults that the model brings; from its configuration without a file.

    Only its end tokens are used: what a profile says is all that shapes a distribution.
    """
    source, commit = source_of(name)
    where: dict[str, Any] = {"revision": commit} if commit else {}
    try:
        return GenerationConfig.from_pretrained(source, **where)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(source, **where))


def context_length(name: str) -> int | None:
    """Tokens of prompt and answer together for which the model was made, where it says so."""
    source, commit = source_of(name)
    config = AutoConfig.from_pretrained(source, **({"revision": commit} if commit else {}))
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def tensor_parallel_size(config: Any, gpus: int) -> int:
    """Over how many of `gpus` the layers of a model can be cut into equal parts.

    Attention heads, the feed-forward width and the vocabulary (padded to 64) must divide
    evenly; key-value heads divide, or are repeated evenly.
    """
    text = config.get_text_config()
    heads = text.num_attention_heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "intermediate_size", None) or heads
    padded = -(-text.vocab_size // 64) * 64

    def fits(count: int) -> bool:
        even = shared % count == 0 or count % shared == 0
        return even and not any(size % count for size in (heads, width, padded))

    return next(count for count in range(max(1, gpus), 0, -1) if fits(count))


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without the bars of transformers, one for every model that is loaded or saved."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
