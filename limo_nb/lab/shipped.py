"""The lab's models, shipped with the package, and the digests that they must have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

MODELS = Path(__file__).parent / "models"


def model_path(name: str) -> Path:
    """The folder of shipped model `name`.

    Raises ValueError for an unknown name, FileNotFoundError with the command that
    makes the model where its weights are absent.
    """
    known = [path.name for path in sorted(MODELS.glob("*/")) if path.is_dir()]
    folder = MODELS / name
    if not (folder / "model.safetensors").exists():
        from limo_nb.lab.pretrain import recipes

        if name not in recipes():
            raise ValueError(f"no lab model {name!r}; there are {', '.join(recipes())}")
        raise FileNotFoundError(
            f"the weights of lab:{name} are not in {folder} "
            f"(found: {', '.join(known) or 'none'}); `limo-nb lab pretrain {name}` makes them"
        )
    return folder


def digest(folder: Path) -> str:
    """SHA-256 of the weights in `folder`."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def verify() -> dict[str, bool]:
    """Whether each shipped model's weights have the digest recorded beside them."""
    found = {}
    for record in sorted(MODELS.glob("*/record.json")):
        recorded = json.loads(record.read_text())["sha256"]
        found[record.parent.name] = digest(record.parent) == recorded
    return found
