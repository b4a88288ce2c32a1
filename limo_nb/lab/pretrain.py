"""How the lab's models were made: `limo-nb lab pretrain`.

Two phases per model, each checkpointed: a run that was killed goes on to the same weights.
Every number that shapes a model is in `recipes.yaml`; the log of each run ships beside its
weights. Chapter 2.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from limo_nb.core import files
from limo_nb.core.precision import settle
from limo_nb.lab.reading import chunk_pages, chunk_rng
from limo_nb.lab.recipe import Phase, PhaseName, Recipe, recipes
from limo_nb.lab.tokenizer import make_tokenizer

IGNORED = -100  # label of a token without loss
CHECKPOINT_SECONDS = 60.0  # what a kill may cost
# Tokens after which torch.compile has saved the two minutes that it takes: 15 % of the time
# in float32 on AVX2, 36 % in bfloat16 where the processor has it (benchmarks/RESULTS.md).
WORTH_COMPILING = 3_000_000

Row = tuple[list[int], list[int]]  # ids and labels of a document
Batch = tuple[torch.Tensor, torch.Tensor]  # the same of several, (rows, longest row)


class ChunkRow(TypedDict):
    """What is known after a chunk; tokens are those read so far, the loss is a mean."""

    tokens: int
    step: int
    loss: float
    max_steps: int
    tokens_per_second: int


@dataclass(frozen=True)
class Compute:
    """How a phase is computed, whatever it computes.

    `dtype` is that of the products ("auto": `core.precision` decides); weights and
    optimiser states have 32 bits. `compiled` is about torch.compile; None: where it pays.
    """

    dtype: str = "auto"
    compiled: bool | None = None

    def compiles(self, phase: Phase) -> bool:
        """Whether torch.compile is used: a long phase repays it, where there is a compiler."""
        if self.compiled is not None:
            return self.compiled
        program = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
        return phase.tokens >= WORTH_COMPILING and shutil.which(program) is not None


# ------------------------------------------------------------------------------ batches
def chunk(
    phase: Phase, tokenizer: PreTrainedTokenizerFast, seed: int, index: int, max_steps: int
) -> list[Batch]:
    """The pages of chunk `index` as batches of about equal length.

    Rows are single documents, right-padded, so that a causal mask suffices.
    """
    rng = chunk_rng(seed, index)
    documents = [document for _, (_, document) in chunk_pages(rng, phase, max_steps)]
    spans = [span for document in documents for span in document.spans]
    encoded = iter(tokenizer([text for text, _ in spans])["input_ids"])
    pad = tokenizer.pad_token_id
    rows: list[Row] = []
    for document in documents:
        ids, labels = [], []
        for _, trained in document.spans:
            part = next(encoded)
            ids += part
            share = 1.0 if trained else phase.context_loss
            labels += [i if rng.random() < share else IGNORED for i in part]
        rows.append(([*ids, pad], [*labels, pad]))
    rows.sort(key=lambda row: len(row[0]))
    batches: list[Batch] = []
    group: list[Row] = []
    for row in rows:
        if group and len(row[0]) * (len(group) + 1) > phase.batch_tokens:
            batches.append(_padded(group, pad))
            group = []
        group.append(row)
    batches.append(_padded(group, pad))
    rng.shuffle(batches)
    return batches


def _padded(rows: list[Row], pad: int) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows])
    return ids, labels


# ----------------------------------------------------------------------------- a phase
class In32Bits(TorchFunctionMode):
    """Within, a cast to bfloat16 is a copy in 32 bits.

    torch's Muon casts to bfloat16 for its Newton–Schulz steps, always: where bfloat16 is
    emulated they took most of the time.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return function(*args, **(kwargs or {}))


class Training:
    """A phase at work: the model, its optimisers, and how far they have come.

    One object is trained by one thread; `model` is trained in place.
    """

    def __init__(
        self,
        model: Qwen2ForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        phase: Phase,
        seed: int,
        compute: Compute | None = None,
    ) -> None:
        compute = compute or Compute()
        self.model, self.tokenizer, self.phase, self.seed = model, tokenizer, phase, seed
        self.half = settle(compute.dtype, model.device.type).dtype == "bfloat16"
        # Rows are short, and the backward pass of the fused kernel is slow.
        model.set_attn_implementation("eager")
        compiled = compute.compiles(phase)
        self.forward = torch.compile(model, dynamic=True) if compiled else model
        self.optimizers = _optimizers(model, phase)
        self.tokens = self.chunks = self.steps = 0

    def run(
        self,
        state_file: Path,
        log: Callable[[ChunkRow], None],
        max_tokens: int | None = None,
    ) -> None:
        """Read the phase's tokens, or `max_tokens` on the same schedule, a chunk at a time.

        Goes on from `state_file` where there is one, and keeps it up to date.
        """
        if state_file.exists():
            self.load(state_file)
        limit = min(self.phase.tokens, max_tokens or self.phase.tokens)
        self.model.train()
        started, first, saved = time.monotonic(), self.tokens, time.monotonic()
        while self.tokens < limit:
            max_steps = self.phase.difficulty(self.tokens)
            loss = self.read_chunk(max_steps)
            rate = (self.tokens - first) / (time.monotonic() - started)
            log(
                {
                    "tokens": self.tokens,
                    "step": self.steps,
                    "loss": round(loss, 4),
                    "max_steps": max_steps,
                    "tokens_per_second": round(rate),
                }
            )
            if time.monotonic() - saved > CHECKPOINT_SECONDS or self.tokens >= limit:
                self.save(state_file)
                saved = time.monotonic()

    def read_chunk(self, max_steps: int) -> float:
        """Train on the next chunk of pages; the mean loss of its steps."""
        batches = chunk(self.phase, self.tokenizer, self.seed, self.chunks, max_steps)
        total = sum(self.step(ids, labels) for ids, labels in batches)
        self.chunks += 1
        return total / len(batches)

    def step(self, ids: torch.Tensor, labels: torch.Tensor) -> float:
        """One step of the optimisers on a batch; its loss in nats a token."""
        ids, labels = ids.to(self.model.device), labels.to(self.model.device)
        rate = self.phase.rate(self.tokens)
        for group in (group for each in self.optimizers for group in each.param_groups):
            group["lr"] = group["peak"] * rate
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.half):
            loss = self.forward(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        mode: AbstractContextManager = nullcontext() if self.half else In32Bits()
        with mode:
            for optimizer in self.optimizers:
                optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.tokens += int((ids != self.tokenizer.pad_token_id).sum())
        self.steps += 1
        return loss.item()

    def save(self, file: Path) -> None:
        """Write weights, optimisers and counters, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "tokens": self.tokens,
            "index": self.chunks,
            "step": self.steps,
        }
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    def load(self, file: Path) -> None:
        """Go back to what `save` wrote."""
        state = torch.load(file, weights_only=True, map_location=self.model.device)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.tokens, self.chunks, self.steps = state["tokens"], state["index"], state["step"]


def _optimizers(model: Qwen2ForCausalLM, phase: Phase) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW alone."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        inside = phase.matrix_lr and weight.ndim == 2 and ".layers." in name
        (matrices if inside else rest).append(weight)
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


# ----------------------------------------------------------------------------- a model
def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A freshly initialised Qwen2 of the recipe's shape."""
    torch.manual_seed(recipe.seed)
    values: dict[str, Any] = {
        **recipe.shape,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Qwen2ForCausalLM(Qwen2Config(**values))


def build(
    name: str,
    work: Path,
    log: Callable[[dict[str, Any]], None],
    recipe: Recipe | None = None,
    compute: Compute | None = None,
) -> Path:
    """Run both phases of recipe `name` under `work`; return the folder of the model.

    Work that was finished before, by this recipe or the one it starts from, is reused; a
    phase that was killed goes on from its last state. `recipe` and `compute` are for tests.
    """
    recipe, folder = recipe or recipes()[name], work / name
    if (folder / "model" / "model.safetensors").exists():
        return folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(recipe, tokenizer)
    model.to(device)  # type: ignore[arg-type]  # transformers' decorator hides `self`
    compute = replace(compute or Compute(), dtype=_kept_precision(folder, device))
    phases: tuple[PhaseName, ...] = ("pretrain", "tune")
    if recipe.start_from:
        model.load_state_dict(_pretrained(recipe.start_from, work, device))
        phases = ("tune",)
    for which in phases:
        phase, seed = recipe.phase(which)
        _run_phase(Training(model, tokenizer, phase, seed, compute), which, folder, log)
    model.bfloat16().cpu().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def _kept_precision(folder: Path, device: str) -> str:
    """The precision of the run in `folder`: a run that continues keeps the one it began in."""
    kept = folder / "precision.json"
    if not kept.exists():
        files.write_json(kept, asdict(settle("auto", device)))
    return json.loads(kept.read_text())["dtype"]


def _pretrained(name: str, work: Path, device: str) -> dict[str, torch.Tensor]:
    """The weights that the pretraining of another recipe left under `work`."""
    file = work / name / "pretrain.pt"
    if not file.exists():
        raise FileNotFoundError(
            f"there is no {file} to start from: run `limo-nb lab pretrain {name}` first"
        )
    return torch.load(file, weights_only=True, map_location=device)["model"]


def _run_phase(
    training: Training, which: PhaseName, folder: Path, log: Callable[[dict[str, Any]], None]
) -> None:
    """Run a phase from its last state on; its rows go to `log.jsonl` and to `log`."""
    state_file, journal = folder / f"{which}.pt", folder / "log.jsonl"
    _rewind(journal, which, state_file)
    with journal.open("a") as lines:

        def note(found: ChunkRow) -> None:
            row = {"phase": which, **found}
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            log(row)

        training.run(state_file, note)


def _rewind(journal: Path, which: PhaseName, state_file: Path) -> None:
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
