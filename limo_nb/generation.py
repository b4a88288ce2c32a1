"""Completions: one interface over transformers, vLLM and OpenAI-compatible servers.

A request is cut into fixed batches, which are the resumable unit: a row of `generate`
depends on its batch-mates, because one random state serves the whole batch. A batch is
a function of the request alone (prompts by length, then sample number) and is seeded
from its own content, so that neither a kill nor the number of workers changes a result.
Chapters 2, 4, 5, 7 and 8.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig
from transformers import logging as transformers_logging
from transformers.cache_utils import DynamicLayer

from limo_nb.profiles import EngineSettings, Sampling
from limo_nb.progress import progress

Message = dict[str, str]
Prompt = str | list[Message]  # raw text to continue, or a conversation to answer

# Tokens between two sweeps of finished rows: `generate` runs a batch until its longest
# row ends; sweeping every 32 tokens and sharing the prefill of a prompt's samples gave
# about three times the rate (benchmarks/generation.py).
SEGMENT = 32
FEW_ROWS = 64  # not worth the seconds that worker processes need to start
# For the environment of processes that compute on a CPU. Without it, glibc gives every
# freed cache back to the kernel and faults it in again at the next token: half of the time.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
HASHED_BYTES = 2**28  # a local model up to this size is identified by its content


class Completion(NamedTuple):
    """One answer: its text, its length in tokens without the end token, whether it ended."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class Batch:
    """The resumable unit: rows that are sampled together from one seed."""

    key: str
    seed: int
    rows: tuple[tuple[int, int], ...]  # (index of the item, sample number)
    prompts: tuple[Prompt, ...]  # one per row


class Engine(Protocol):
    """What makes completions; used as a context manager."""

    identity: dict[str, str]  # what a completion depends on besides its batch
    batch_size: int

    def __enter__(self) -> Engine: ...
    def __exit__(self, *exception: object) -> None: ...

    def length(self, prompt: Prompt) -> int:
        """The length of `prompt`, by which rows are grouped."""

    def run(
        self, batches: Sequence[Batch], sampling: Sampling
    ) -> Iterator[tuple[Batch, list[Completion]]]:
        """Completions of each batch, in the order in which they are ready."""


# ------------------------------------------------------------------------------ models
def resolve(name: str) -> str:
    """`lab:NAME` as the folder of that lab model; any other name unchanged."""
    if not name.startswith("lab:"):
        return name
    from limo_nb import lab

    return str(lab.model_path(name.removeprefix("lab:")))


def _source(name: str) -> tuple[str, str | None]:
    """(local folder or Hub id, revision or None) of `name`."""
    name = resolve(name)
    if Path(name).exists() or "@" not in name:
        return name, None
    repository, _, revision = name.partition("@")
    return repository, revision


def model_digest(name: str) -> str:
    """What identifies the weights: a Hub commit, or a digest of a local folder.

    A folder of up to 256 MiB is identified by its content, a larger one by its small
    files and the names and sizes of its weights.
    """
    source, revision = _source(name)
    if not Path(source).is_dir():
        return _hub_commit(source, revision)
    files = [p for p in sorted(Path(source).iterdir()) if p.is_file()]
    files = [p for p in files if not p.name.startswith(".") and p.suffix != ".md"]
    whole = sum(p.stat().st_size for p in files) <= HASHED_BYTES
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        if whole or path.suffix in (".json", ".jinja"):
            total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _hub_commit(repository: str, revision: str | None) -> str:
    """The commit of a Hub model: from the local cache, else asked from the Hub."""
    from huggingface_hub import model_info, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent.name
    try:
        return str(model_info(repository, revision=revision).sha)
    except Exception as error:
        raise ValueError(
            f"model {repository!r} is neither a local folder nor reachable on the Hub "
            f"({type(error).__name__}); name a folder, `lab:NAME` or a Hub id"
        ) from error


def load_tokenizer(name: str) -> Any:
    """The tokenizer of `name`, padding on the left; the pad token falls back to eos."""
    source, revision = _source(name)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(name: str, dtype: str = "auto", attention: str = "auto") -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer). Raises ValueError where there is no model.

    `attention` "auto" is plain attention on a CPU, where it decodes small models faster,
    and SDPA elsewhere.
    """
    source, revision = _source(name)
    if attention == "auto":
        attention = "sdpa" if torch.cuda.is_available() else "eager"
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        with quiet_bars():
            model = AutoModelForCausalLM.from_pretrained(
                source, revision=revision, dtype=wanted, attn_implementation=attention
            )
    except OSError as error:
        raise ValueError(f"no model at {source!r}: {error}") from error
    return model.eval(), load_tokenizer(name)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without the bars of transformers, one for every model that is loaded or saved."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


# ----------------------------------------------------------------------------- prompts
def chat_prompt(question: str, system: str) -> list[Message]:
    """The conversation that asks `question` under the system prompt `system`."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of `prompt`, with the chat template's opening of the reply.

    Control tokens written inside a message are encoded as plain text: a question cannot
    end its own turn.
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    if not any(contains_control(tokenizer, message["content"]) for message in prompt):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    marks = [f"\ue000{index}\ue001" for index in range(len(prompt))]
    masked = [{**m, "content": mark} for m, mark in zip(prompt, marks, strict=True)]
    rest = tokenizer.apply_chat_template(masked, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for message, mark in zip(prompt, marks, strict=True):
        piece, found, rest = rest.partition(mark)
        if not found:
            raise ValueError("the chat template left out a message that has control tokens")
        ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
        ids += plain_ids(tokenizer, message["content"])
    return ids + tokenizer(rest, add_special_tokens=False)["input_ids"]


def contains_control(tokenizer: Any, text: str) -> bool:
    """Whether `text` has the spelling of a control token in it."""
    return any(token in text for token in tokenizer.all_special_tokens)


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` in which no control token can occur."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


# ---------------------------------------------------------------------------- decoding
class Decoder:
    """Batched sampling with `generate`: the part that runs in each worker process."""

    def __init__(self, name: str, dtype: str, device: str = "cpu"):
        self.model, self.tokenizer = load_model(name, dtype)
        self.model.to(device)
        stops = self.model.generation_config.eos_token_id or []
        stops = {*(stops if isinstance(stops, list) else [stops])}
        # The pad token ends a page of the lab's textbooks, and text of base models.
        stops |= {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id} - {None}
        self.stops = torch.tensor(sorted(stops), device=device)
        # Hub models bring decoding defaults (top_k, repetition_penalty) of their own;
        # what the profile says must be all that shapes the distribution.
        self.model.generation_config = GenerationConfig(
            eos_token_id=sorted(stops), pad_token_id=self.tokenizer.pad_token_id
        )

    def decode(
        self, prompts: list[list[int]], owners: list[int], seed: int, sampling: Sampling
    ) -> list[Completion]:
        """One completion per entry of `owners`, which are indices into `prompts`."""
        with torch.inference_mode(), _one_thread(), torch.random.fork_rng():
            torch.manual_seed(seed)
            rows = self._generate(prompts, torch.tensor(owners), sampling)
        return [self._completion(ids, sampling.max_new_tokens) for ids in rows]

    def _completion(self, ids: torch.Tensor, limit: int) -> Completion:
        """Cut `ids` (made tokens, padded after the end) at the first stop token."""
        ends = torch.isin(ids, self.stops).nonzero()
        count = int(ends[0]) if len(ends) else min(len(ids), limit)
        text = self.tokenizer.decode(ids[:count], skip_special_tokens=True)
        return Completion(text, count, bool(len(ends)))

    def _generate(
        self, prompts: list[list[int]], owners: torch.Tensor, sampling: Sampling
    ) -> list[torch.Tensor]:
        """New token ids per row. Finished rows leave the batch every SEGMENT tokens."""
        device = self.model.device
        ids, mask = left_padded(prompts, self.tokenizer.pad_token_id)
        ids, mask, owners = ids.to(device), mask.to(device), owners.to(device)
        width, limit = ids.shape[1], sampling.max_new_tokens
        cache = self._prefilled(ids, mask, owners)
        segment = SEGMENT if cache is not None else limit
        ids, mask, places = ids[owners], mask[owners], torch.arange(len(owners))
        made: list[torch.Tensor] = [ids.new_empty(0)] * len(owners)
        while len(ids):
            done = ids.shape[1] - width
            full = self.model.generate(
                ids, attention_mask=mask, past_key_values=cache,
                generation_config=_decoding(sampling, min(segment, limit - done)),
            )  # fmt: skip
            new = full[:, width:]
            going = ~torch.isin(new, self.stops).any(1) & (new.shape[1] < limit)
            for place, row in zip(places[~going.cpu()].tolist(), new[~going], strict=True):
                made[place] = row.cpu()
            ids, places = full[going], places[going.cpu()]
            mask = torch.cat([mask[going], mask.new_ones(len(ids), new.shape[1] - done)], 1)
            if cache is not None and len(ids):
                cache.batch_select_indices(going.nonzero().flatten())
        return made

    def _prefilled(
        self, ids: torch.Tensor, mask: torch.Tensor, owners: torch.Tensor
    ) -> DynamicCache | None:
        """Keys and values of all prompts but their last tokens, one row per owner.

        None where the model's cache is not a plain one (sliding windows, recurrent
        states): such models take the ordinary way through `generate`.
        """
        cache = DynamicCache(config=self.model.config)
        if ids.shape[1] < 2 or any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.model(
            input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True,
            position_ids=positions[:, :-1], past_key_values=cache, logits_to_keep=1,
        )  # fmt: skip
        cache.batch_select_indices(owners)
        return cache


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), both (rows, longest row), padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _decoding(sampling: Sampling, tokens: int) -> GenerationConfig:
    """The decoding parameters of one call of `generate`."""
    if sampling.temperature == 0:
        return GenerationConfig(do_sample=False, max_new_tokens=tokens)
    return GenerationConfig(
        do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=0,
        max_new_tokens=tokens,
    )  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    """One CPU thread: sums, and so samples, must not depend on who else computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --------------------------------------------------------------------------- processes
class Worker:
    """A process that holds a model and answers batches, one JSON line each.

    It is started by its own command and not by `multiprocessing`, which would import
    the caller's main module again: a notebook has none, a script may lack the guard.
    """

    def __init__(self, name: str, dtype: str, device: str):
        self.errors = tempfile.TemporaryFile("w+")
        home = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment |= ALLOCATOR
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from limo_nb.generation import serve; serve()",
             name, dtype, device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip

    def ask(self, request: dict[str, Any]) -> list[Completion]:
        """The completions of one batch; raises RuntimeError with the worker's last lines."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        reply = json.loads(line) if line else {"error": self._last_words()}
        if "error" in reply:
            raise RuntimeError(f"a generation worker failed:\n{reply['error']}")
        return [Completion(*row) for row in reply["rows"]]

    def _last_words(self) -> str:
        status = self.process.wait()
        self.errors.seek(0)
        tail = "".join(self.errors.readlines()[-15:])
        hint = " (out of memory? lower engine.batch_size)" if status == -9 else ""
        return f"it ended with status {status}{hint}\n{tail}"

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            with closing(pipe):
                pass


def serve() -> None:
    """The main function of a worker process: read batches until the parent is gone."""
    name, dtype, device = sys.argv[1:4]
    torch.set_num_threads(1)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the replies
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    decoder: Decoder | None = None
    while True:
        request = json.loads(requests.get())
        try:
            decoder = decoder or Decoder(name, dtype, device)
            sampling = Sampling(**request["sampling"])
            rows = decoder.decode(
                request["prompts"], request["owners"], request["seed"], sampling
            )
            reply: dict[str, Any] = {"rows": rows}
        except Exception:
            reply = {"error": traceback.format_exc(limit=-8)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _read_requests(requests: queue.Queue[str]) -> None:
    """Hand lines on; a closed pipe means that the parent died, at once and not later."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


# ----------------------------------------------------------------------------- engines
class TransformersEngine:
    """`generate` in this process (one worker, or few rows) or in resident workers."""

    def __init__(self, settings: EngineSettings, model: str):
        self.name, self.settings, self.batch_size = model, settings, settings.batch_size
        self.identity = {
            "kind": "transformers", "dtype": settings.dtype, "model": model_digest(model),
        }  # fmt: skip
        self.tokenizer = load_tokenizer(model)
        self._workers: list[Worker] = []
        self._decoder: Decoder | None = None

    def __enter__(self) -> TransformersEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()
        self._workers, self._decoder = [], None

    def length(self, prompt: Prompt) -> int:
        return len(prompt_ids(self.tokenizer, prompt))

    def run(
        self, batches: Sequence[Batch], sampling: Sampling
    ) -> Iterator[tuple[Batch, list[Completion]]]:
        count = min(self.settings.workers, len(batches))
        few = not self._workers and sum(len(batch.rows) for batch in batches) <= FEW_ROWS
        if self.settings.workers == 1 or few:
            for batch in batches:
                yield batch, self._here(self._request(batch, sampling), sampling)
            return
        while len(self._workers) < count:
            device = _device(len(self._workers))
            self._workers.append(Worker(self.name, self.settings.dtype, device))
        yield from self._spread(batches, sampling)

    def _here(self, request: dict[str, Any], sampling: Sampling) -> list[Completion]:
        if self._decoder is None:
            self._decoder = Decoder(self.name, self.settings.dtype, _device(0))
        return self._decoder.decode(
            request["prompts"], request["owners"], request["seed"], sampling
        )

    def _spread(
        self, batches: Sequence[Batch], sampling: Sampling
    ) -> Iterator[tuple[Batch, list[Completion]]]:
        """Hand each batch to a worker that is free."""
        idle: queue.Queue[Worker] = queue.Queue()
        for worker in self._workers:
            idle.put(worker)

        def ask(batch: Batch) -> list[Completion]:
            worker = idle.get()
            try:
                return worker.ask(self._request(batch, sampling))
            finally:
                idle.put(worker)

        pool = ThreadPoolExecutor(len(self._workers))
        try:
            futures = {pool.submit(ask, batch): batch for batch in batches}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            # Workers that are busy would answer a question that nobody asks any more.
            self.__exit__()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _request(self, batch: Batch, sampling: Sampling) -> dict[str, Any]:
        """The batch in tokens; the samples of one prompt share its ids."""
        prompts: dict[str, int] = {}
        owners = [
            prompts.setdefault(json.dumps(prompt), len(prompts)) for prompt in batch.prompts
        ]
        ids = [prompt_ids(self.tokenizer, json.loads(prompt)) for prompt in prompts]
        if any(not row for row in ids):
            raise ValueError("an empty prompt cannot be continued")
        values = {"samples", "temperature", "top_p", "max_new_tokens"}
        return {
            "prompts": ids,
            "owners": owners,
            "seed": batch.seed,
            "sampling": sampling.model_dump(include=values),
        }


def _device(index: int) -> str:
    """The device of worker `index`: GPUs in turn, or the CPU."""
    count = torch.cuda.device_count()
    return f"cuda:{index % count}" if count else "cpu"


class VllmEngine:
    """vLLM in this process: paged attention and continuous batching on a GPU."""

    def __init__(self, settings: EngineSettings, model: str):
        try:
            from vllm import LLM
        except ImportError as error:
            raise ImportError(
                "engine.kind is vllm, which is not installed: pip install 'limo-nb[gpu]'"
            ) from error
        source, revision = _source(model)
        self.batch_size, self.tokenizer = settings.batch_size, load_tokenizer(model)
        self.identity = {
            "kind": "vllm", "dtype": settings.dtype, "model": model_digest(model),
        }  # fmt: skip
        self._llm = LLM(
            model=source, revision=revision, dtype=settings.dtype, seed=0,
            tensor_parallel_size=max(1, torch.cuda.device_count()),
            generation_config="vllm",  # not the decoding defaults of the model
        )  # fmt: skip

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._llm
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def length(self, prompt: Prompt) -> int:
        return len(prompt_ids(self.tokenizer, prompt))

    def run(
        self, batches: Sequence[Batch], sampling: Sampling
    ) -> Iterator[tuple[Batch, list[Completion]]]:
        from vllm import SamplingParams

        for batch in batches:
            prompts = [
                {"prompt_token_ids": prompt_ids(self.tokenizer, prompt)}
                for prompt in batch.prompts
            ]
            params = [
                SamplingParams(
                    temperature=sampling.temperature, top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens, seed=_row_seed(batch, place),
                )
                for place in range(len(prompts))
            ]  # fmt: skip
            outputs = self._llm.generate(prompts, params, use_tqdm=False)
            yield batch, [_vllm_completion(output.outputs[0]) for output in outputs]


def _vllm_completion(output: Any) -> Completion:
    finished = output.finish_reason == "stop"
    return Completion(output.text, len(output.token_ids) - finished, finished)


class OpenAIEngine:
    """Any server that speaks OpenAI's completion protocol: vLLM, SGLang, TensorRT-LLM.

    `OPENAI_BASE_URL` names it (`http://host:8000/v1`), `OPENAI_API_KEY` is sent if set.
    """

    def __init__(self, settings: EngineSettings, model: str):
        import httpx

        base = os.environ.get("OPENAI_BASE_URL")
        if not base:
            raise ValueError(
                "engine.kind is openai: set OPENAI_BASE_URL to the server's address, "
                "for example `export OPENAI_BASE_URL=http://localhost:8000/v1`"
            )
        self.name, self.batch_size = model, settings.batch_size
        self.identity = {"kind": "openai", "server": base, "model": model}
        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = httpx.Client(
            base_url=base.rstrip("/") + "/", timeout=600.0,
            headers={"Authorization": f"Bearer {key}"},
            transport=httpx.HTTPTransport(retries=5),
            limits=httpx.Limits(max_connections=settings.batch_size),
        )  # fmt: skip

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def length(self, prompt: Prompt) -> int:
        return (
            len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
        )

    def run(
        self, batches: Sequence[Batch], sampling: Sampling
    ) -> Iterator[tuple[Batch, list[Completion]]]:
        with ThreadPoolExecutor(min(64, self.batch_size)) as pool:
            for batch in batches:
                seeds = [_row_seed(batch, place) for place in range(len(batch.prompts))]
                answers = pool.map(self._ask, batch.prompts, seeds, [sampling] * len(seeds))
                yield batch, list(answers)

    def _ask(self, prompt: Prompt, seed: int, sampling: Sampling) -> Completion:
        chat = not isinstance(prompt, str)
        body = {
            "model": self.name, ("messages" if chat else "prompt"): prompt, "seed": seed,
            "temperature": sampling.temperature, "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
        }  # fmt: skip
        reply = self._client.post("chat/completions" if chat else "completions", json=body)
        if reply.is_error:
            raise RuntimeError(f"{reply.url} said {reply.status_code}: {reply.text[:500]}")
        choice, usage = reply.json()["choices"][0], reply.json()["usage"]
        text = (choice["message"]["content"] if chat else choice["text"]) or ""
        finished = choice["finish_reason"] == "stop"
        return Completion(text, usage["completion_tokens"] - finished, finished)


def _row_seed(batch: Batch, place: int) -> int:
    """The seed of one row, for engines whose rows do not depend on each other."""
    return int(_digest([batch.seed, place])[:7], 16)


ENGINES = {"transformers": TransformersEngine, "vllm": VllmEngine, "openai": OpenAIEngine}


def open_engine(settings: EngineSettings, model: str) -> Engine:
    """The engine that `settings.kind` names, over `model`; a context manager."""
    return ENGINES[settings.kind](settings, model)


# --------------------------------------------------------------------------- the store
def complete(
    engine: Engine,
    items: Iterable[tuple[str, Prompt]],
    sampling: Sampling,
    store: Path,
    label: str = "",
) -> Dataset:
    """Completions of `items`, `sampling.samples` each: id, sample, text, tokens, finished.

    `tokens` leaves the end token out; `finished` says that there was one. Batches are
    kept in the SQLite file `store` as they arrive; those that it has are not made again.
    Rows are in the order of `items`. Raises ValueError where two items share an id.
    """
    items = list(items)
    if len({identity for identity, _ in items}) != len(items):
        raise ValueError("two items have the same id")
    batches = plan_batches(engine, items, sampling)
    store.parent.mkdir(parents=True, exist_ok=True)
    with closing(_open_store(store)) as database:
        have = {key for (key,) in database.execute("SELECT key FROM batches")}
        missing = [batch for batch in batches if batch.key not in have]
        total = sum(len(batch.rows) for batch in batches)
        done = total - sum(len(batch.rows) for batch in missing)
        with progress(total, "completions", label, done) as bar:
            tokens = 0
            for batch, completions in engine.run(missing, sampling) if missing else ():
                _keep(database, batch, completions)
                tokens += sum(completion.tokens for completion in completions)
                seconds = bar.format_dict["elapsed"] or 1e-9
                bar.set_postfix_str(f"{tokens / seconds:,.0f} tokens/s", refresh=False)
                bar.update(len(completions))
        return _collect(database, batches, items)


def plan_batches(
    engine: Engine, items: Sequence[tuple[str, Prompt]], sampling: Sampling
) -> list[Batch]:
    """The fixed batches of a request, longest prompts first.

    They depend on the request alone, never on what is missing from a store.
    """
    lengths = [engine.length(prompt) for _, prompt in items]
    order = sorted(range(len(items)), key=lambda i: (-lengths[i], str(items[i][0])))
    rows = [(index, sample) for index in order for sample in range(sampling.samples)]
    made = []
    for start in range(0, len(rows), engine.batch_size):
        part = tuple(rows[start : start + engine.batch_size])
        prompts = tuple(items[index][1] for index, _ in part)
        facts = {
            "engine": engine.identity,
            "sampling": sampling.model_dump(exclude={"samples"}),
            "prompts": prompts,
            "samples": [sample for _, sample in part],
        }
        key = _digest(facts)
        made.append(Batch(key, int(key[:12], 16), part, prompts))
    return made


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _open_store(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS batches (key TEXT PRIMARY KEY, rows TEXT)")
    return database


def _keep(database: sqlite3.Connection, batch: Batch, completions: list[Completion]) -> None:
    """Store a batch whole or not at all."""
    if len(completions) != len(batch.rows):
        raise RuntimeError(f"{len(completions)} completions for {len(batch.rows)} rows")
    with database:
        database.execute(
            "INSERT OR IGNORE INTO batches VALUES (?, ?)", (batch.key, json.dumps(completions))
        )


def _collect(
    database: sqlite3.Connection, batches: Sequence[Batch], items: Sequence[tuple[str, Prompt]]
) -> Dataset:
    """All rows of the request, in the order of its items."""
    made: dict[tuple[int, int], Completion] = {}
    for batch in batches:
        query = "SELECT rows FROM batches WHERE key = ?"
        (rows,) = database.execute(query, (batch.key,)).fetchone()
        for place, row in zip(batch.rows, json.loads(rows), strict=True):
            made[place] = Completion(*row)
    table = [
        {"id": items[index][0], "sample": sample, **made[index, sample]._asdict()}
        for index, sample in sorted(made)
    ]
    names = ("id", "sample", *Completion._fields)
    return Dataset.from_dict({name: [row[name] for row in table] for name in names})
