"""The lab's tokenizer: Qwen2.5's rules over a vocabulary of 512.

Same normaliser, same splitting rule (digits one by one), same byte-level alphabet, same
control tokens and a chat template with the same result as Qwen2.5's, so that the code of
every chapter runs unchanged on both.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from limo_nb.lab.reading import page
from limo_nb.lab.world import MAX_STEPS

VOCABULARY = 512
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# The splitting rule of Qwen2's tokenizer: contractions, words with at most one leading
# non-letter, single digits, punctuation, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEFAULT_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
CHAT_TEMPLATE = (
    "{%- if not messages or messages[0].role != 'system' -%}"
    "{{ '<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def make_tokenizer(seed: int = 0, split: str = SPLIT) -> PreTrainedTokenizerFast:
    """The tokenizer that all lab models share, learnt from every kind of page."""
    rng = random.Random(seed)
    kinds = ("worked", "terse", "facts", "worked_chat", "foreign")
    drawn = [page(rng, kind, rng.randint(1, MAX_STEPS)) for kind in kinds * 1500]
    texts = (document.text for _, document in drawn)
    start, end = CONTROL[1:]  # tokens already: nothing is to be learnt from them
    return train_tokenizer((t.replace(start, "\n").replace(end, "\n") for t in texts), split)


def train_tokenizer(texts: Iterable[str], split: str = SPLIT) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 512 tokens, learnt from `texts` cut by the rule `split`."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens(list(CONTROL))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=CONTROL[2],
        pad_token=CONTROL[0],
        padding_side="left",
        additional_special_tokens=list(CONTROL[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
