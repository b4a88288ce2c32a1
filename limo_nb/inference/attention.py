"""Attention for decoding large models on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED = "limo_grouped"


def grouped_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, scaling: float, dropout: float = 0.0, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Plain attention in which heads that share keys and values read them where they are.

    `query` is (rows, heads, length, size), `key` and `value` (rows, shared heads, tokens,
    size); the first of the results is (rows, length, heads, size). The library's plain
    attention, and its SDPA under a mask, repeat both for every head, which was most of a
    step of Qwen2.5 with six heads to one (benchmarks/attention.py).
    """
    rows, heads, length, size = query.shape
    shared, tokens = key.shape[1:3]
    asked = query.reshape(rows, shared, heads // shared * length, size)
    scores = torch.matmul(asked, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        apart = scores.view(rows, shared, heads // shared, length, tokens)
        apart += attention_mask[:, :, None, :, :tokens]
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    if module.training and dropout:
        weights = torch.nn.functional.dropout(weights, p=dropout)
    mixed = torch.matmul(weights, value).view(rows, heads, length, size)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
