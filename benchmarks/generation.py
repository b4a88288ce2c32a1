"""What the decoder's four measures are worth, and what the layer above the engine costs.

    export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184
    OMP_NUM_THREADS=1 python benchmarks/generation.py decoder lab:reasoner
    OMP_NUM_THREADS=1 python benchmarks/generation.py overhead lab:weak

`overhead` makes 2,000 completions with the bare engine, which is given its batches, and
with `complete`, which plans them, keeps every row in a store and returns a table; in
turns, five times each, and prints medians of processor seconds. On a machine that others
use too, those of the same work differ by a fifth; the seconds outside of the engine, which
are the layer's own, do not.

`decoder` compares shared prefill, prefill in parts, swept rows, and keys and values that are
written in place instead of copied for every token. It prints processor seconds (this process
alone, so a busy machine matters less), tokens and tokens a second for batch sizes, types,
and segments; segment 10**6 never sweeps, and "apart" prefills every sample of a prompt for
itself, as one `generate` does; "at once" gives all prompts of a batch to one pass; "copied"
takes the library's own `DynamicLayer`.

    python benchmarks/generation.py nucleus MODEL.gguf

`nucleus` times one step of 64 rows with all cores: what the model computes, and what drawing
the next token with top-p takes, by the library's warper, which sorts whole vocabularies, and
by `decoder.likeliest`; in turns, medians of five.
"""

import copy
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from transformers import TopPLogitsWarper
from transformers.cache_utils import DynamicLayer

from limo_nb import lab
from limo_nb.core.settings import (
    SYSTEM_PROMPT,
    EngineSettings,
    Sampling,
)
from limo_nb.inference import (
    Ask,
    Batch,
    Engine,
    Made,
    chat_prompt,
    complete,
    decoder,
    open_engine,
    prompt_ids,
)
from limo_nb.inference.decoder import PREFILL_TOKENS, Decoder
from limo_nb.inference.request import plan_batches
from limo_nb.inference.rows import PreallocatedLayer, left_padded
from limo_nb.lab.world import (
    FAMILIES,
    draw,
)

SAMPLES, QUESTIONS = 32, 16
ROWS = Sampling(samples=8, temperature=0.7, max_new_tokens=64)  # of 250 questions
TURNS = 5


def measure(
    model: str,
    dtype: str,
    batch: int,
    segment: int,
    shared: bool,
    in_place: bool = True,
    in_parts: bool = True,
) -> str:
    """One line: 512 chains of hard questions with these settings."""
    decoder.SEGMENT = segment
    decoder.PREFILL_TOKENS = PREFILL_TOKENS if in_parts else 10**9
    decoder.empty_layer = lambda _: PreallocatedLayer() if in_place else DynamicLayer()
    engine, rng = Decoder(model, dtype), random.Random(1)
    asked = [
        draw(rng, rng.choice(tuple(FAMILIES)), rng.randint(4, 8), "train").question
        for _ in range(QUESTIONS)
    ]
    prompts = [prompt_ids(engine.tokenizer, chat_prompt(q, SYSTEM_PROMPT)) for q in asked]
    rows = sorted((p for p in prompts for _ in range(SAMPLES)), key=len)
    sampling = Sampling(temperature=1.0, max_new_tokens=512)
    tokens, started = 0, time.process_time()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        unique = [list(p) for p in dict.fromkeys(map(tuple, part))] if shared else part
        owners = [unique.index(p) for p in part] if shared else list(range(len(part)))
        made = engine.decode(unique, owners, range(start, start + len(part)), sampling)
        tokens += sum(completion.tokens for completion in made)
    seconds = time.process_time() - started
    how = f"{dtype:8} batch {batch:3} segment {segment:7} {'shared' if shared else 'apart '}"
    how += " in parts" if in_parts else " at once "
    how += " in place" if in_place else " copied  "
    return f"{how} {seconds:6.1f} s {tokens:7} tokens {tokens / seconds:7.0f} tokens/s"


class Clocked:
    """An engine that counts the processor seconds between a request and its answer."""

    def __init__(self, engine: Engine):
        self.engine, self.seconds = engine, 0.0
        self.identity, self.batch_size = engine.identity, engine.batch_size
        self.length = engine.length

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        made = self.engine.run(batches, sampling)
        while True:
            started = time.process_time()
            ready = next(made, None)  # the claim of the next batch is counted here too
            self.seconds += time.process_time() - started
            if ready is None:
                return
            yield ready


def overhead(model: str) -> str:
    """Processor seconds of 2,000 completions, bare and with our layer, and the layer's."""
    asked = [
        (row["id"], chat_prompt(row["question"], SYSTEM_PROMPT)) for row in lab.pool(250, 1)
    ]
    bare, ours, layer = [], [], []
    settings = EngineSettings(batch_size=256, dtype="float32")
    with open_engine(settings, model) as engine, tempfile.TemporaryDirectory() as folder:
        _bare(engine, asked[:8])  # the model is loaded before the clock runs
        for turn in range(TURNS):
            bare.append(_bare(engine, asked))
            clocked, started = Clocked(engine), time.process_time()
            table = complete(clocked, asked, ROWS, Path(folder) / f"{turn}.sqlite")
            ours.append(time.process_time() - started)
            layer.append(ours[-1] - clocked.seconds)
            assert len(table) == 2000
    low, high, own = map(statistics.median, (bare, ours, layer))
    return (
        f"2,000 completions, {sum(table['tokens']):,} tokens (medians of {TURNS}): bare "
        f"{low:.2f} s; with the layer {high:.2f} s ({100 * (high / low - 1):+.1f} %), of "
        f"which outside of the engine {own:.3f} s ({100 * own / (high - own):.1f} %)\n"
        f"bare {_list(bare)}; with the layer {_list(ours)}"
    )


def _bare(engine: Engine, asked: list) -> float:
    """Processor seconds of the engine alone, over batches that are there."""
    rows = [Ask(f"{i:032x}", p) for i, p in enumerate(p for _, p in asked for _ in range(8))]
    batches = plan_batches(engine, rows)
    started = time.process_time()
    for _ in engine.run(batches, ROWS):
        pass
    return time.process_time() - started


def _list(seconds: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in seconds)


def parts(model: str) -> None:
    """The comparison of the decoder's measures, line by line."""
    for dtype in ("float32", "bfloat16"):
        print(measure(model, dtype, 256, 10**6, False, False, False), flush=True)
        print(measure(model, dtype, 256, 10**6, False, False, True), flush=True)
        print(measure(model, dtype, 256, 10**6, True, in_place=False), flush=True)
        print(measure(model, dtype, 256, 32, True, in_place=False), flush=True)
        for batch in (64, 128, 256):
            print(measure(model, dtype, batch, 32, True), flush=True)


def nucleus(model: str) -> str:
    """Seconds of a step, of drawing by sorting and by `likeliest`, and their shares."""
    made = Decoder(model, "auto")
    questions = [draw(random.Random(n), name, 4, "train").question
                 for n, name in enumerate(list(FAMILIES) * 64)][:64]  # fmt: skip
    prompts = [
        prompt_ids(made.tokenizer, chat_prompt(text, SYSTEM_PROMPT)) for text in questions
    ]
    ids, mask = left_padded(prompts, made.tokenizer.pad_token_id)
    numbers = torch.rand(len(ids), 1, dtype=torch.float64)
    sampling = Sampling(temperature=0.8, top_p=0.95)
    ours = decoder.InverseTransform(numbers, ids.shape[1], sampling)
    plain = decoder.InverseTransform(
        numbers, ids.shape[1], sampling.model_copy(update={"top_p": 1.0})
    )
    warp = TopPLogitsWarper(sampling.top_p)
    with torch.inference_mode():
        out = made.model(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=True)
        scores, last = out.logits[:, -1].float(), out.logits[:, -1:].argmax(-1)
        ways: dict[str, Callable[[], object]] = {
            "the model": lambda: made.model(
                input_ids=last, past_key_values=copy.deepcopy(out.past_key_values)
            ),
            "sorted": lambda: plain(ids, warp(ids, scores / 0.8)),
            "likeliest": lambda: ours(ids, scores),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, do in ways.items():
                started = time.perf_counter()
                do()
                taken[name].append(time.perf_counter() - started)
    step, *drawing = (statistics.median(taken[name]) for name in ways)
    told = (
        f"{name} {seconds:.3f} s ({seconds / (step + seconds):.0%} of a step)"
        for name, seconds in zip(("sorted", "likeliest"), drawing, strict=True)
    )
    return (
        f"{Path(model).name}, {made.model.dtype}, 64 rows: the model {step:.3f} s; drawing "
        f"{', '.join(told)}; a step takes {(step + drawing[1]) / (step + drawing[0]):.2f} "
        "times as long"
    )


if __name__ == "__main__":
    what, name = sys.argv[1:]
    if what == "overhead":
        print(overhead(name))
    elif what == "nucleus":
        print(nucleus(name))
    else:
        parts(name)
