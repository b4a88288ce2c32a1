"""How the lab's models were made: `limo-nb lab pretrain`.

Two phases per model. *Pretraining* reads pages drawn without end from the lab's world;
*tuning* reads chats. Both are checkpointed and resume to the same weights. Every number
that shapes a model is in `recipes.yaml`; the log of each run ships beside its weights.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from limo_nb.lab import shipped
from limo_nb.core import (
    files,
    machine,
)
from limo_nb.core.precision import settle
from limo_nb.lab import texts
from limo_nb.lab.tokenizer import (
    SPLIT,
    train_tokenizer,
)
from limo_nb.lab.world import (
    FAMILIES,
    MAX_STEPS,
    LabProblem,
    draw,
)

IGNORED = -100  # label of a token without loss
DOCUMENTS_PER_CHUNK = 256


@dataclass(frozen=True)
class Phase:
    """One training phase: which pages, how many tokens, which step sizes."""

    pages: dict[str, float]  # kind of page -> share of the documents
    tokens: int  # tokens read, padding not counted
    batch_tokens: int  # padded tokens per step
    matrix_lr: float  # Muon, for the matrices inside the layers; 0: AdamW for all
    other_lr: float  # AdamW, for embeddings and norms
    curriculum: float = 0.0  # share of the tokens over which difficulty is raised
    context_loss: float = 0.1  # share of the context's tokens that carry loss
    max_steps: int = MAX_STEPS  # of the problems on its pages


@dataclass(frozen=True)
class Recipe:
    """A lab model: its shape, and the phases that make it."""

    name: str
    stands_for: str
    seed: int
    shape: dict[str, int]
    pretrain: Phase
    tune: Phase
    start_from: str = ""  # take the pretrained weights of this recipe


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes, by name."""
    raw = yaml.safe_load(resources.files("limo_nb.lab").joinpath("recipes.yaml").read_text())
    shapes, phases = raw["shapes"], raw["phases"]
    made = {}
    for name, row in raw["models"].items():
        made[name] = Recipe(
            name=name,
            stands_for=row["stands_for"],
            seed=row["seed"],
            shape=shapes[row["shape"]],
            pretrain=Phase(**phases[row["pretrain"]]),
            tune=Phase(**phases[row["tune"]]),
            start_from=row.get("start_from", ""),
        )
    return made


Page = tuple[LabProblem | None, texts.Document]  # facts belong to no problem


def page(rng: random.Random, kind: str, steps: int) -> Page:
    """One training page of `kind`, and its problem, which is of the training split."""
    if kind == "facts":
        return None, texts.fact_page(rng)
    problem = draw(rng, rng.choice(tuple(FAMILIES)), steps, "train")
    if kind == "worked":
        return problem, texts.worked_page(rng, problem)
    if kind == "drill":
        return problem, texts.drill_page(rng, problem)
    if kind == "terse":
        return problem, texts.terse_page(rng, problem)
    if kind == "terse_chat":
        return problem, texts.chat_page(rng, problem, texts.terse(problem))
    if kind == "worked_chat":
        manner = texts.draw_reasoner_manner(rng)
        return problem, texts.chat_page(rng, problem, texts.solve(rng, problem, manner))
    raise ValueError(f"unknown kind of page: {kind}")


def pages(rng: random.Random, phase: Phase, max_steps: int) -> list[tuple[str, Page]]:
    """The pages of one chunk with their kinds, in the order in which they are drawn."""
    kinds, shares = zip(*phase.pages.items(), strict=True)
    return [
        (kind, page(rng, kind, rng.randint(1, max_steps)))
        for kind in rng.choices(kinds, shares, k=DOCUMENTS_PER_CHUNK)
    ]


def make_tokenizer(seed: int = 0, split: str = SPLIT) -> PreTrainedTokenizerFast:
    """The tokenizer that all lab models share, learnt from every kind of page."""
    rng = random.Random(seed)
    kinds = ("worked", "terse", "facts", "worked_chat", "drill")
    drawn = [page(rng, kind, rng.randint(1, MAX_STEPS)) for kind in kinds * 1500]
    markers = ("<|im_start|>", "<|im_end|>")
    sample = []
    for _, document in drawn:
        text = document.text
        for marker in markers:
            text = text.replace(marker, "\n")
        sample.append(text)
    return train_tokenizer(sample, split)


def chunk_rng(seed: int, index: int) -> random.Random:
    """The random numbers of chunk `index`: a run that continues draws the same pages."""
    return random.Random(f"{seed}/{index}")


def chunk(
    phase: Phase, tokenizer, seed: int, index: int, max_steps: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batch number `index` of pages as padded (ids, labels) tensors of about equal length.

    Rows are single documents, right-padded, so that a causal mask suffices.
    """
    rng = chunk_rng(seed, index)
    documents = [document for _, (_, document) in pages(rng, phase, max_steps)]
    spans = [span for document in documents for span in document.spans]
    encoded = iter(tokenizer([text for text, _ in spans])["input_ids"])
    rows = []
    for document in documents:
        ids, labels = [], []
        for _, trained in document.spans:
            part = next(encoded)
            ids += part
            share = 1.0 if trained else phase.context_loss
            labels += [i if rng.random() < share else IGNORED for i in part]
        rows.append((ids + [tokenizer.pad_token_id], labels + [tokenizer.pad_token_id]))
    rows.sort(key=lambda row: len(row[0]))
    batches, group = [], []
    for row in rows:
        if group and len(row[0]) * (len(group) + 1) > phase.batch_tokens:
            batches.append(_padded(group, tokenizer.pad_token_id))
            group = []
        group.append(row)
    batches.append(_padded(group, tokenizer.pad_token_id))
    rng.shuffle(batches)
    return batches


def _padded(rows, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows])
    return ids, labels


def _optimizers(model: Qwen2ForCausalLM, phase: Phase) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW alone."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    if not phase.matrix_lr:
        rest, matrices = list(model.parameters()), []
    else:
        rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in n)]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, lr=phase.other_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
    ]
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=phase.matrix_lr, weight_decay=0.1))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


class In32Bits(TorchFunctionMode):
    """Within, a cast to bfloat16 is a copy in 32 bits.

    torch's Muon casts to bfloat16 for its Newton–Schulz steps, always: where bfloat16 is
    emulated they took most of the time.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return function(*args, **(kwargs or {}))


def _rate(progress: float) -> float:
    """Warm-up over 1 %, constant to the half, then linear to zero."""
    return min(1.0, progress / 0.01 + 0.01) * min(1.0, 2.0 * (1.0 - progress))


def train_phase(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    phase: Phase,
    seed: int,
    state_file: Path,
    log: Callable[[dict], None],
    max_tokens: int | None = None,
    compiled: bool = True,
    dtype: str = "auto",
) -> Qwen2ForCausalLM:
    """Train `model` in place; resume from `state_file` where there is one.

    `max_tokens` ends the run early without changing its schedule, `compiled` says whether
    torch.compile is worth its minute (both for tests). `dtype` is that of the products;
    weights and optimiser states have 32 bits.
    """
    half = settle(dtype, model.device.type).dtype == "bfloat16"
    # Plain attention and the compiler (rows are short, the fused kernel's backward is slow):
    # benchmarks/RESULTS.md has the rates, in both precisions.
    model.set_attn_implementation("eager")
    forward = torch.compile(model, dynamic=True) if compiled else model
    optimizers = _optimizers(model, phase)
    tokens = index = step = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=model.device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        tokens, index, step = state["tokens"], state["index"], state["step"]
    limit = min(phase.tokens, max_tokens or phase.tokens)
    model.train()
    started, first, saved_at = time.monotonic(), tokens, time.monotonic()
    while tokens < limit:
        progress = tokens / phase.tokens
        reach = min(1.0, progress / phase.curriculum) if phase.curriculum else 1.0
        max_steps = max(2, math.ceil(phase.max_steps * reach))
        total = 0.0
        batches = chunk(phase, tokenizer, seed, index, max_steps)
        for ids, labels in batches:
            ids, labels = ids.to(model.device), labels.to(model.device)
            progress = min(1.0, tokens / phase.tokens)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * _rate(progress)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
                loss = forward(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            with nullcontext() if half else In32Bits():
                for optimizer in optimizers:
                    optimizer.step()
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            total += loss.item()
            tokens += int((ids != tokenizer.pad_token_id).sum())
            step += 1
        index += 1
        seconds = time.monotonic() - started
        log(
            {
                "tokens": tokens,
                "step": step,
                "loss": round(total / len(batches), 4),
                "max_steps": max_steps,
                "tokens_per_second": round((tokens - first) / seconds),
            }
        )
        if time.monotonic() - saved_at > 60 or tokens >= limit:
            state = {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "tokens": tokens,
                "index": index,
                "step": step,
            }
            partial = state_file.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(state_file)
            saved_at = time.monotonic()
    return model


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A freshly initialised Qwen2 of the recipe's shape."""
    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        **recipe.shape,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def build(
    name: str,
    work: Path,
    log: Callable[[dict], None],
    recipe: Recipe | None = None,
    compiled: bool = True,
) -> Path:
    """Run both phases of recipe `name` under `work`; return the folder of the model.

    Work that was finished before, by this recipe or the one it starts from, is reused; a
    phase that was killed goes on from its last state. `recipe` and `compiled` are for tests.
    """
    recipe = recipe or recipes()[name]
    out = work / name / "model"
    if (out / "model.safetensors").exists():
        return out
    (work / name).mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(recipe, tokenizer).to(device)
    dtype = _kept_precision(work / name, device)

    def run(which: str, seed: int) -> None:
        state_file, journal = work / name / f"{which}.pt", work / name / "log.jsonl"
        _rewind(journal, which, state_file)
        with journal.open("a") as lines:

            def note(row: dict) -> None:
                row = {"phase": which, **row}
                lines.write(json.dumps(row) + "\n")
                lines.flush()
                log(row)

            phase = getattr(recipe, which)
            train_phase(
                model, tokenizer, phase, seed, state_file, note, compiled=compiled, dtype=dtype
            )

    if recipe.start_from:
        source = work / recipe.start_from / "pretrain.pt"
        if not source.exists():
            raise FileNotFoundError(
                f"{name} starts from {recipe.start_from}: run "
                f"`limo-nb lab pretrain {recipe.start_from}` first"
            )
        model.load_state_dict(
            torch.load(source, weights_only=True, map_location=device)["model"]
        )
    else:
        run("pretrain", recipe.seed)
    run("tune", recipe.seed + 1)
    model.to("cpu", torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _kept_precision(folder: Path, device: str) -> str:
    """The precision of the run in `folder`: a run that continues keeps the one it began in."""
    kept = folder / "precision.json"
    if not kept.exists():
        files.write_json(kept, asdict(settle("auto", device)))
    return json.loads(kept.read_text())["dtype"]


def _rewind(journal: Path, which: str, state_file: Path) -> None:
    """Drop the rows of a phase that its last state does not know: they come again.

    One row is one chunk of pages; a repeated row would shift all that follow when the
    pages are drawn again (`limo_nb.lab.reading`).
    """
    known = 0
    if state_file.exists():
        known = torch.load(state_file, weights_only=True, map_location="cpu")["tokens"]
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    kept = []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # half a line, written when it was killed
            continue
        if row["phase"] != which or row["tokens"] <= known:
            kept.append(line)
    files.write_atomic(journal, "".join(kept))


def as_dict(name: str) -> dict[str, Any]:
    """Recipe `name` as plain values, as it is recorded beside the weights."""
    return json.loads(json.dumps(asdict(recipes()[name])))


def ship(name: str, work: Path) -> Path:
    """Copy what `build` left into the package, with its log, record and model card."""
    source, target = work / name, shipped.MODELS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "model", target)
    shutil.copy(source / "log.jsonl", target / "log.jsonl")
    rows = [json.loads(line) for line in (source / "log.jsonl").read_text().splitlines()]
    record = {
        "command": f"limo-nb lab pretrain {name}",
        "sha256": shipped.digest(target),
        "recipe": as_dict(name),
        "final": {row["phase"]: row for row in rows},
        "precision": json.loads((source / "precision.json").read_text()),
        "hardware": machine.hardware(),
        "versions": machine.provenance()["versions"],
    }
    files.write_json(target / "record.json", record)
    files.write_atomic(target / "README.md", _card(name, record))
    return target


def _card(name: str, record: dict[str, Any]) -> str:
    """The model card, made from the recipe and the record."""
    recipe = recipes()[name]
    phases = "\n".join(
        f"- {phase}: {row['tokens']:,} tokens in {row['step']:,} steps, "
        f"loss at the end {row['loss']}"
        for phase, row in record["final"].items()
    )
    start = f" It starts from the pretrained {recipe.start_from}." if recipe.start_from else ""
    return (
        "---\nlicense: mit\nlibrary_name: transformers\n---\n\n"
        f"# lab:{name}\n\n"
        f"A miniature of the Qwen2 architecture that plays the part of {recipe.stands_for} "
        f"in the book *Less Is More for Reasoning*. It knows the lab's ten families of "
        f"synthetic problems and nothing else.{start}\n\n"
        f"Made by `{record['command']}` (seed {recipe.seed}) on {record['hardware']}:\n\n"
        f"{phases}\n\nWeights are bfloat16, SHA-256 `{record['sha256']}`. The log is "
        "`log.jsonl`; chapter 2 describes pages and phases.\n"
    )
