"""Completions: one interface over transformers, vLLM, OpenAI-compatible servers and Ray.

`complete` asks an engine for what a store does not have yet and keeps every completion as
it arrives. A completion is a function of its key: model, prompt, decoding parameters, seed
and sample number. Its random numbers come from the key, so neither a kill nor the number of
workers nor what else is asked changes them. Sums of floats do depend on which rows are
computed together; rows are therefore cut into fixed batches, the resumable unit, and a
killed request ends as an uninterrupted one would. Chapters 2, 4, 5, 7 and 8.
"""

from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    Engine,
    EngineFailed,
)
from limo_nb.inference.chat import (
    DEFAULT_SYSTEM,
    Message,
    Prompt,
    chat_prompt,
    plain_ids,
    prompt_ids,
)
from limo_nb.inference.decoder import (
    Decoder,
    left_padded,
)
from limo_nb.inference.engines import (
    ENGINES,
    NotInstalled,
    open_engine,
)
from limo_nb.inference.models import (
    decoding_precision,
    load_model,
    load_tokenizer,
    model_digest,
    quiet_bars,
    resolve,
    shards,
    source_of,
    stop_ids,
    token_counter,
)
from limo_nb.inference.request import (
    complete,
    plan_batches,
)
from limo_nb.inference.store import (
    Store,
    shared_store,
)
from limo_nb.inference.vllm_server import (
    server_options,
    vllm_python,
    vllm_server,
)
from limo_nb.inference.workers import (
    ALLOCATOR,
    Worker,
)

__all__ = [
    "ALLOCATOR", "DEFAULT_SYSTEM", "ENGINES", "Ask", "Batch", "Completion", "Decoder",
    "Engine", "EngineFailed", "Message", "NotInstalled", "Prompt", "Store", "Worker",
    "chat_prompt", "complete", "decoding_precision", "left_padded", "load_model", "load_tokenizer",
    "model_digest", "open_engine", "plain_ids", "plan_batches", "prompt_ids", "quiet_bars",
    "resolve", "server_options", "shards", "shared_store", "source_of", "stop_ids",
    "token_counter", "vllm_python", "vllm_server",
]  # fmt: skip
