"""The engines by name; each is imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module

from limo_nb.core.settings import EngineSettings
from limo_nb.inference.base import Engine, NotInstalled
from limo_nb.inference.identity import gguf_path

# The module and class of each kind, and the extra of this package that it needs.
ENGINES = {
    "transformers": ("limo_nb.inference.transformers_engine", "TransformersEngine", None),
    "vllm": ("limo_nb.inference.vllm_engine", "VllmEngine", "vllm"),
    "openai": ("limo_nb.inference.openai_engine", "OpenAIEngine", "openai"),
    "llamacpp": ("limo_nb.inference.llamacpp_engine", "LlamacppEngine", "llamacpp"),
    "ray": ("limo_nb.inference.ray_engine", "RayEngine", "ray"),
}


def open_engine(settings: EngineSettings, model: str, base_url: str | None = None) -> Engine:
    """The engine that `settings.kind` names, over `model`; a context manager.

    An engine that asks a server (`openai`, and `ray` over it) takes the one at `base_url`,
    else the one that OPENAI_BASE_URL names. llama.cpp reads GGUF files alone: where it is asked
    for another model, such as one that was fine-tuned, transformers serves it and a line says
    so. Raises NotInstalled where the engine's library is not there.
    """
    if settings.kind == "llamacpp" and gguf_path(model) is None:
        print(f"{model} is not a GGUF file: transformers serves it", file=sys.stderr)
        settings = settings.model_copy(update={"kind": "transformers"})
    module, name, extra = ENGINES[settings.kind]
    try:
        engine = getattr(import_module(module), name)
    except ImportError as error:
        if extra is None:
            raise
        raise NotInstalled(
            f"engine.kind is {settings.kind}, which needs a library that is not installed "
            f"({error}): pip install 'limo-nb[{extra}]'"
        ) from error
    if settings.kind in ("openai", "ray"):
        return engine(settings, model, base_url=base_url)
    return engine(settings, model)
