"""The sizes of a model, known without loading it: what its memory and its time follow from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from limo_nb.inference.identity import source_of


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of the Llama kind (Qwen2, Mistral, …)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False
    bias: bool = False
    head_size: int = 0  # 0: hidden / heads

    @property
    def queries(self) -> int:
        """Width of all queries."""
        return self.heads * (self.head_size or self.hidden // self.heads)

    @property
    def keys(self) -> int:
        """Width of all keys, and of all values."""
        return self.queries // self.heads * self.kv_heads

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the output layer."""
        return self.vocabulary * self.hidden

    @property
    def tensors(self) -> list[tuple[int, int]]:
        """Pairs (how many, parameters each) of the weight tensors."""
        each = [
            (1, self.hidden * self.queries), (2, self.hidden * self.keys),  # to q; k, v
            (1, self.queries * self.hidden), (3, self.hidden * self.intermediate),
            (2, self.hidden), (int(self.bias), self.queries), (2 * self.bias, self.keys),
        ]  # fmt: skip
        layers = [(self.layers * count, size) for count, size in each]
        return [*layers, (1, self.hidden), (2 - self.tied, self.embedding)]

    @property
    def parameters(self) -> int:
        """All parameters; a tied output layer counts once."""
        return sum(count * size for count, size in self.tensors)

    @property
    def largest_layer(self) -> int:
        """Parameters of the largest single layer, as DeepSpeed counts it."""
        return max(self.embedding, self.hidden * self.intermediate)

    def flops_a_token(self, length: int) -> float:
        """Operations that one token of a row of `length` costs, forward and backward.

        6 for each weight that is multiplied; attention looks back half a row on average.
        Computing activations again is not counted, as in the usual meaning of MFU.
        """
        multiplied = self.parameters - self.embedding * (not self.tied)
        return 6 * multiplied + 6 * self.layers * self.queries * length


@cache
def known_shapes() -> dict[str, Shape]:
    """The models that need no network."""
    text = resources.files("limo_nb.inference").joinpath("shapes.yaml").read_text()
    return {name: Shape(**values) for name, values in yaml.safe_load(text).items()}


def shape_of(model: str) -> Shape:
    """The shape of a known model, of a folder, a GGUF file or `lab:NAME`, or of a Hub model.

    A name without its owner is enough, and a base model has the shape of its `-Instruct`.
    Raises ValueError that says what is known.
    """
    shapes = known_shapes()
    plain = re.split("[@#]", model)[0]  # without a revision, and a file of the repository
    for name, shape in shapes.items():
        if {plain, f"{plain}-Instruct"} & {name, name.split("/")[1]}:
            return shape
    from transformers import AutoConfig

    try:
        source, commit = source_of(model)
        return shape_of_config(AutoConfig.from_pretrained(source, revision=commit))
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"no shape for model {model!r} ({type(error).__name__}): name a folder with a "
            f"config.json, or one of {', '.join(shapes)}"
        ) from error


def shape_if_known(model: str) -> Shape | None:
    """`shape_of`, or None for a model of another kind, or one that is not here."""
    try:
        return shape_of(model)
    except ValueError:
        return None


def shape_of_config(config: Any) -> Shape:
    """The shape that a configuration of transformers describes."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    biased = config.model_type == "qwen2" or getattr(config, "attention_bias", False)
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        vocabulary=config.vocab_size,
        tied=config.tie_word_embeddings,
        bias=biased,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
    )
