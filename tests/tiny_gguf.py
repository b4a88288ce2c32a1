"""A small random model as a GGUF file, by the library that llama.cpp's converter uses."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from tiny import problems
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from limo_nb.lab.tokenizer import train_tokenizer

LAYERS, CONTEXT = 2, 512


def tiny_qwen2(folder: Path, seed: int = 0, tied: bool = True) -> Path:
    """A two-layer Qwen2 whose rows are whole blocks of 32, and its tokenizer, as a folder."""
    rows = problems(200, seed=1)
    tokenizer = train_tokenizer([f"{r['question']}\n{r['solution']}" for r in rows])
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128,
        num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=CONTEXT, tie_word_embeddings=tied, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_gguf(
    folder: Path,
    file: Path,
    kind: Kind = Kind.F32,
    output: Kind | None = None,
    more: dict[str, np.ndarray] | None = None,
    pre: str = "qwen2",
    without: str = "",
) -> Path:
    """The model in `folder` as `file`, its matrices as `kind`.

    `output` adds the output matrix in that kind, also where it is the embedding; `more` are
    further tensors, and the one named `without` is left out.
    """
    model, tokenizer = (
        own.from_pretrained(folder) for own in (AutoModelForCausalLM, AutoTokenizer)
    )
    writer = gguf.GGUFWriter(file, "qwen2")
    _write_shape(writer, model.config, kind)
    _write_tokenizer(writer, tokenizer, pre)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, LAYERS)
    for name, tensor in model.state_dict().items():
        if name == without:
            continue
        if name == "lm_head.weight" and model.config.tie_word_embeddings and output is None:
            continue
        own = output if name == "lm_head.weight" and output is not None else kind
        values = tensor.float().numpy()
        own = own if values.ndim == 2 else Kind.F32
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight", ".bias")),
            gguf.quantize(values, own), raw_dtype=own,
        )  # fmt: skip
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_shape(writer: gguf.GGUFWriter, config: Qwen2Config, kind: Kind) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    types = {Kind.F32: "ALL_F32", Kind.Q8_0: "MOSTLY_Q8_0", Kind.Q4_0: "MOSTLY_Q4_0"}
    writer.add_file_type(gguf.LlamaFileType[types[kind]])


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: AutoTokenizer, pre: str) -> None:
    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    control = set(tokenizer.all_special_tokens)
    types = [gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in core["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def cut_into_digits(tokenizer: AutoTokenizer) -> None:
    """The splitting rule of SmolLM2's tokenizer, put into `tokenizer`."""
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
