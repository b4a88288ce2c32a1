"""A small random model in the lab's format, for tests of the plumbing."""

import random
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from limo_nb.lab import texts
from limo_nb.lab.tokenizer import train_tokenizer
from limo_nb.lab.world import draw


def problems(count: int, seed: int = 0) -> list[dict]:
    """Rows with question, solution and answer, of four families and all lengths."""
    rng = random.Random(seed)
    families = ("dial", "purse", "grid", "swaps")
    drawn = [draw(rng, rng.choice(families), rng.randint(1, 6), "train") for _ in range(count)]
    return [
        {"question": p.question, "solution": texts.worked_solution(rng, p), "answer": p.answer}
        for p in drawn
    ]


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """Save a two-layer Qwen2 of about 40,000 parameters and its tokenizer."""
    rows = problems(200, seed=1)
    tokenizer = train_tokenizer([f"{r['question']}\n{r['solution']}" for r in rows])
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=True, initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
