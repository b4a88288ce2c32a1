"""The lock: what pyproject's requirements need of what is installed, and nothing else.

`make lock` prints it into requirements.lock; a test compares it with the file.
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Exact versions of everything that pyproject.toml needs, made by `make lock` on Linux,
# Python 3.11. The Makefile installs torch's line first.
"""


def declared() -> list[Requirement]:
    """The requirements of pyproject.toml, those of the tests included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["test"]
    return [Requirement(line) for line in lines]


def needed() -> dict[str, str]:
    """Name and version of every installed distribution that `declared()` leads to."""
    found: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = declared()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        installed = metadata.distribution(name)
        # A local suffix such as +cpu says which index a wheel came from, not a version.
        found[name] = installed.version.split("+")[0]
        for line in installed.requires or []:
            inner = Requirement(line)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in extras | {""}
            ):
                if _optional_here(inner):
                    continue
                waiting.append(inner)
    return dict(sorted(found.items()))


def _optional_here(requirement: Requirement) -> bool:
    """Whether it belongs to torch's CUDA wheels, which a CPU environment does not have."""
    name = canonicalize_name(requirement.name)
    return name.startswith(("nvidia-", "cuda-", "triton")) and not _installed(name)


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def text() -> str:
    """The content of requirements.lock."""
    return HEAD + "".join(f"{name}=={version}\n" for name, version in needed().items())


if __name__ == "__main__":
    print(text(), end="")
