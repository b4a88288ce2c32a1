"""LoRA: small matrices beside frozen weights, which alone are trained. By PEFT; chapter 6.

What comes out is an ordinary model: the adapters are added to the weights at the end.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from limo_nb.core.settings import SftSettings


def added(model: Any, settings: SftSettings, seed: int) -> Any:
    """`model` with adapters beside all matrices of its layers; nothing else has gradients.

    One half of each adapter begins at random, by `seed`, the other at zero. The model as it
    is where `settings` ask for no adapters.
    """
    lora = settings.lora
    if lora is None:
        return model
    from peft import LoraConfig, TaskType, get_peft_model

    if settings.gradient_checkpointing:
        # No weight below the first adapter has a gradient, so its input must ask for one.
        model.enable_input_require_grads()
    torch.manual_seed(seed)  # the Trainer does so later
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank, lora_alpha=cast(int, lora.alpha), lora_dropout=lora.dropout,
            target_modules="all-linear", task_type=TaskType.CAUSAL_LM,
        ),
    )  # fmt: skip


def merged_model(model: Any) -> Any:
    """The ordinary model that `model` computes, in place: W + B A · alpha / rank."""
    return model.merge_and_unload()
