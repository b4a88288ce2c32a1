"""Models and tokenizers by name: lab models, local folders, Hub ids with a revision."""

from __future__ import annotations

import hashlib
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

SMALL_BYTES = 2**28  # weights of a model that decodes in 32 bits on every CPU
HASHED_BYTES = 2**28  # a local model up to this size is identified by its content


def resolve(name: str) -> str:
    """`lab:NAME` as the folder of that lab model; any other name unchanged."""
    if not name.startswith("lab:"):
        return name
    from limo_nb import lab

    return str(lab.model_path(name.removeprefix("lab:")))


def source_of(name: str) -> tuple[str, str | None]:
    """(local folder or Hub id, revision or None) of `name`."""
    name = resolve(name)
    if Path(name).exists() or "@" not in name:
        return name, None
    repository, _, revision = name.partition("@")
    return repository, revision


def model_digest(name: str) -> str:
    """What identifies the weights: a Hub commit, or a digest of a local folder.

    A folder of up to 256 MiB is identified by its content, a larger one by its small
    files and the names and sizes of its weights.
    """
    source, revision = source_of(name)
    if not Path(source).is_dir():
        return _hub_commit(source, revision)
    files = [p for p in sorted(Path(source).iterdir()) if p.is_file()]
    files = [p for p in files if not p.name.startswith(".") and p.suffix != ".md"]
    whole = sum(p.stat().st_size for p in files) <= HASHED_BYTES
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        if whole or path.suffix in (".json", ".jinja"):
            total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _hub_commit(repository: str, revision: str | None) -> str:
    """The commit of a Hub model: from the local cache, else asked from the Hub."""
    from huggingface_hub import model_info, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent.name
    try:
        return str(model_info(repository, revision=revision).sha)
    except Exception as error:
        raise ValueError(
            f"model {repository!r} is neither a local folder nor reachable on the Hub "
            f"({type(error).__name__}); name a folder, `lab:NAME` or a Hub id"
        ) from error


def load_tokenizer(name: str) -> Any:
    """The tokenizer of `name`, padding on the left; the pad token falls back to eos.

    Raises ValueError where there is none.
    """
    source, revision = source_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, padding_side="left"
        )
    except (OSError, ValueError) as error:  # nothing there, or a folder without a tokenizer
        raise ValueError(
            f"no tokenizer at {source!r}: name a folder, `lab:NAME`, or a Hub id while online "
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
    source, _ = source_of(name)
    small = Path(source).is_dir() and _weight_bytes(Path(source)) < SMALL_BYTES
    on_cpu = not torch.cuda.is_available() if device is None else device == "cpu"
    if dtype == "auto" and on_cpu and small:
        return Precision("float32", "so small a model decodes no faster in bfloat16")
    return settle(dtype, device)


def _weight_bytes(folder: Path) -> int:
    """Bytes of the weight files in `folder`."""
    kinds = ("*.safetensors", "*.bin")
    return sum(path.stat().st_size for kind in kinds for path in folder.glob(kind))


def load_model(name: str, dtype: str = "auto", attention: str = "auto") -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer). Raises ValueError where there is no model.

    `dtype` "auto" is that of `decoding_precision`, and not what the weights are kept in.
    `attention` "auto" is plain attention on a CPU, where it decodes small models faster,
    and SDPA elsewhere.
    """
    source, revision = source_of(name)
    if attention == "auto":
        attention = "sdpa" if torch.cuda.is_available() else "eager"
    wanted = getattr(torch, decoding_precision(name, dtype).dtype)
    try:
        with quiet_bars():
            model = AutoModelForCausalLM.from_pretrained(
                source, revision=revision, dtype=wanted, attn_implementation=attention
            )
    except OSError as error:
        raise ValueError(f"no model at {source!r}: {error}") from error
    return model.eval(), load_tokenizer(name)


def stop_ids(name: str, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those of `generation_config.json`, end and padding.

    The pad token ends a page of the lab's textbooks, and text of base models.
    """
    source, revision = source_of(name)
    try:
        found = GenerationConfig.from_pretrained(source, revision=revision).eos_token_id
    except OSError:  # a model without such a file
        found = AutoConfig.from_pretrained(source, revision=revision).eos_token_id
    stops = {*found} if isinstance(found, list) else {found}
    return sorted((stops | {tokenizer.eos_token_id, tokenizer.pad_token_id}) - {None})


def shards(config: Any, gpus: int) -> int:
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
