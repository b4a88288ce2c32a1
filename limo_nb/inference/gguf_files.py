"""GGUF files, llama.cpp's format of quantised models, as folders that transformers loads.

One file holds weights, tokenizer and chat template. What transformers makes of it by its own
loader (`gguf_file=`) is put once into a folder of the user's cache: configuration, tokenizer
and stop tokens; and, when something computes with them, the weights, dequantised to 32 bits,
in which they keep the values that the file has. Everything that takes a model's folder then
takes the file.

Mended are three faults of that loader (transformers 5.23). A file may carry an output matrix
though the model's is its embedding, quantised again with more bits: the two are tied, as they
were, and the finer one stands for both. Numbers are cut into digits where the file says so in
a word that the loader does not know. And letters with accents are composed for Qwen, whose
tokenizer does so, which a file does not say.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from limo_nb.core.files import alone, write_json
from limo_nb.inference.base import NotInstalled

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

FORMAT = 1  # to be raised when what is made of a file changes
FACTS = "gguf.json"
WEIGHTS = "model.safetensors"
OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"
# Of matrices of one model in two quantisations the rows have a cosine of 0.99; those of two
# matrices about 0.
SAME = 0.9
ROWS = 256  # that are compared
# What `tokenizer.ggml.pre` says of vocabularies whose numbers are cut into digits and whose
# other text as GPT-2's (llama.cpp, src/llama-vocab.cpp); transformers 5.23 knows none of them.
DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
PLAIN = {None, "gpt-2"}  # no BPE, or GPT-2's own rule
COMPOSED = {"qwen2", "qwen35"}  # Qwen2Tokenizer and Qwen3_5Tokenizer normalise by NFC
ENDS = ("eos", "eot", "eom")  # tokens that end a reply, as a file names them


def folder_of(file: Path, digest: str, weights: bool = False) -> Path:
    """The folder of `file`, whose content has `digest`, with its `weights` or without.

    Raises ValueError for what is no whole GGUF file, or one that transformers cannot read,
    and NotInstalled without the package `gguf`.
    """
    home = user_cache_path("limo-nb", appauthor=False) / "gguf"
    folder = home / f"{digest}-{FORMAT}"
    done = folder / (WEIGHTS if weights else FACTS)
    if done.exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with alone(home / f"{folder.name}.lock"):
        if not (folder / FACTS).exists():
            _make_folder(file, folder)
        if weights and not done.exists():
            _add_weights(file, folder)
    return folder


def facts_of(folder: str | Path) -> dict[str, Any]:
    """What is known of the file behind `folder`, as `_facts` writes it; {} if none is."""
    path = Path(folder) / FACTS
    return json.loads(path.read_text()) if path.exists() else {}


# ------------------------------------------------------------------- without the weights
def _make_folder(file: Path, folder: Path) -> None:
    """Configuration, tokenizer, stop tokens and facts of `file`."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    print(f"reading tokenizer and sizes of {file.name}, once", file=sys.stderr, flush=True)
    reader = _reader(file)
    facts = _facts(file, reader)
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with _explained(file), TemporaryDirectory(dir=folder.parent) as temporary:
        partial = Path(temporary) / "folder"
        config = AutoConfig.from_pretrained(**where)
        config.tie_word_embeddings = facts["tied"]
        config.save_pretrained(partial)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        bpe = _value(reader, "tokenizer.ggml.model") == "gpt2"
        _mend(
            tokenizer, _value(reader, "tokenizer.ggml.pre") if bpe else None, facts["context"]
        )
        tokenizer.save_pretrained(partial)
        GenerationConfig(
            eos_token_id=facts["ends"], bos_token_id=config.bos_token_id,
            pad_token_id=config.pad_token_id,
        ).save_pretrained(partial)  # fmt: skip
        write_json(partial / FACTS, facts)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _reader(file: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise NotInstalled(
            f"{file.name} is read by a library that is not installed ({error}): "
            "pip install 'limo-nb[gguf]'"
        ) from error
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise ValueError(f"{file} is not a GGUF file: it does not begin with GGUF")
    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(
            f"{file} is damaged, or was not downloaded to its end ({error}): get it again"
        ) from error
    if int(_value(reader, "split.count") or 1) > 1:
        raise ValueError(
            f"{file} is one of several parts of a model: join them with llama.cpp's "
            "`llama-gguf-split --merge`"
        )
    return reader


def _facts(file: Path, reader: GGUFReader) -> dict[str, Any]:
    kind = _value(reader, "general.architecture")
    ends = {_value(reader, f"tokenizer.ggml.{end}_token_id") for end in ENDS} - {None}
    return {
        "file": file.name,
        "quantisation": _quantisation(reader),
        "architecture": kind,
        "context": _value(reader, f"{kind}.context_length"),
        "ends": sorted(ends),
        "tied": _tied(reader),
        "why_not": _why_not(reader, kind),
        "transformers": metadata.version("transformers"),
    }


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _quantisation(reader: GGUFReader) -> str:
    """As people call it: `Q4_K_M`; else the type of most weights."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(_value(reader, "general.file_type")).name
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:  # the file does not say, or says what is newer
        weights = [tensor for tensor in reader.tensors if len(tensor.shape) > 1]
        return max(weights, key=lambda tensor: tensor.n_elements).tensor_type.name


def _tied(reader: GGUFReader) -> bool:
    """Whether the output matrix is the embedding: absent, or the same but for rounding."""
    import numpy as np

    both = _matrices(reader)
    if OUTPUT not in both:
        return True
    one, other = (_some_rows(tensor) for tensor in both.values())
    if one.shape != other.shape:
        return False
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(1)[lengths > 0] / lengths[lengths > 0]
    return bool(cosines.size and cosines.mean() > SAME)


def _matrices(reader: GGUFReader) -> dict[str, ReaderTensor]:
    return {t.name: t for t in reader.tensors if t.name in (OUTPUT, EMBEDDING)}


def _some_rows(tensor: ReaderTensor) -> Any:
    from gguf import dequantize

    step = max(1, len(tensor.data) // ROWS)
    return dequantize(tensor.data[::step], tensor.tensor_type)


def _why_not(reader: GGUFReader, kind: str) -> str:
    """Why transformers would compute something else than the file's model; else ""."""
    scaled = _value(reader, f"{kind}.rope.scaling.type") not in (None, "none")
    if scaled or any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors):
        return "it scales positions, which transformers does not read from a GGUF file"
    return ""


def _mend(tokenizer: Any, pre: str | None, context: int | None) -> None:
    from tokenizers import normalizers, pre_tokenizers

    if pre not in DIGITS | PLAIN | _known_to_the_loader():
        warnings.warn(
            f"the file's rule for splitting text, {pre!r}, is not known to transformers: "
            "numbers and spaces may become other tokens than in training",
            stacklevel=2,
        )
    if pre in COMPOSED:
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    if pre in DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    # Flagged in the file, and so for the library, but not named as special.
    flagged = [t for t in tokenizer.added_tokens_decoder.values() if t.special]
    unnamed = [t for t in flagged if str(t) not in tokenizer.all_special_tokens]
    tokenizer.add_special_tokens({"extra_special_tokens": unnamed})
    if context:
        tokenizer.model_max_length = context


def _known_to_the_loader() -> frozenset[str]:
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as known
    except ImportError:  # before 5.23 it was elsewhere
        return frozenset()
    return frozenset(known.GGUF_PRE_TOKENIZER_SPLITS)


# ----------------------------------------------------------------------------- the weights
def _add_weights(file: Path, folder: Path) -> None:
    """`model.safetensors`: the weights of `file`, dequantised."""
    import torch
    from safetensors.torch import save_model
    from transformers import AutoConfig, AutoModelForCausalLM

    facts = facts_of(folder)
    if facts["why_not"]:
        raise ValueError(
            f"{file.name} cannot be loaded by transformers: {facts['why_not']}. Take the "
            "engine llamacpp, or the model that it was made of"
        )
    reader = _reader(file)
    size, free = 4 * sum(t.n_elements for t in reader.tensors), shutil.disk_usage(folder).free
    told = f"dequantising {file.name} to 32 bits takes {size / 1e9:.1f} GB in {folder}"
    if size > free:
        raise ValueError(f"{told}, where {free / 1e9:.1f} GB are free")
    print(f"{told}, once", file=sys.stderr, flush=True)
    both = _matrices(reader)
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = OUTPUT not in both  # as the file has it, to load both
    with _explained(file), TemporaryDirectory(dir=folder) as temporary:
        loaded: Any = AutoModelForCausalLM.from_pretrained(  # a pair, which its types omit
            str(file.parent), gguf_file=file.name, config=config, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
        model, found = loaded
        if lacking := sorted(found["missing_keys"]):  # they would be random
            raise ValueError(f"{len(lacking)} tensors have no weights, as {lacking[0]}")
        if facts["tied"] and OUTPUT in both:
            _tie(model, finer=max(both.values(), key=_bits).name)
        save_model(model, str(Path(temporary) / WEIGHTS), metadata={"format": "pt"})
        (Path(temporary) / WEIGHTS).rename(folder / WEIGHTS)


def _bits(tensor: ReaderTensor) -> float:
    return tensor.n_bytes / tensor.n_elements


def _tie(model: Any, finer: str) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if finer == OUTPUT:
        embedding.weight = head.weight
    else:
        head.weight = embedding.weight


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """The loader quiet, and its refusals as a ValueError that names `file`."""
    from transformers import logging as transformers_logging

    loader = logging.getLogger("transformers.modeling_gguf_pytorch_utils")
    before, shown = loader.level, transformers_logging.is_progress_bar_enabled()
    loader.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"transformers cannot load {file.name}: {error}. The engine llamacpp may"
        ) from error
    finally:
        loader.setLevel(before)
        if shown:
            transformers_logging.enable_progress_bar()
