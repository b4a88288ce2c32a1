"""Attention with shared keys and values, against the library's."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from limo_nb.inference.attention import GROUPED
from limo_nb.inference.models import load_model

SHAPE = {"vocab_size": 50, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "shared"), [(6, 1), (6, 2), (4, 4)])
def test_grouped_attention_is_the_plain_one(
    heads: int, shared: int, dtype: torch.dtype
) -> None:
    """Of a prompt with padding, then of tokens one by one, with and without gradients."""
    config = Qwen2Config(**SHAPE, num_attention_heads=heads, num_key_value_heads=shared)
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(config).to(dtype).eval()
    ids = torch.randint(0, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    found = {}
    for attention in ("eager", GROUPED):
        model.set_attn_implementation(attention)
        first = model(ids[:, :6], attention_mask=mask[:, :6], use_cache=True)
        steps = [first.logits]
        for end in range(7, 10):
            cache, token = first.past_key_values, ids[:, end - 1 : end]
            out = model(token, attention_mask=mask[:, :end], past_key_values=cache)
            steps.append(out.logits)
        found[attention] = torch.cat(steps, 1)
        model.zero_grad()
        model(ids, attention_mask=mask, labels=ids).loss.backward()
        found[attention, "gradient"] = model.model.layers[
            0
        ].self_attn.k_proj.weight.grad.clone()
    real = mask.bool()
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    )
    torch.testing.assert_close(found["eager"][real], found[GROUPED][real], **tolerance)
    torch.testing.assert_close(
        found["eager", "gradient"], found[GROUPED, "gradient"], **tolerance
    )


def test_a_large_model_decodes_with_it_on_a_cpu_and_a_small_one_does_not(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_model("lab:weak")[0].config._attn_implementation == "eager"
    monkeypatch.setattr("limo_nb.inference.models.SMALL_BYTES", 1000)
    assert load_model("lab:weak", "float32")[0].config._attn_implementation == GROUPED
