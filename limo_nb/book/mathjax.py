"""MathJax within the site, so that formulas are set without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

MATHJAX = "3.2.2"
# The registry's digest of that release: what readers' browsers execute is checked.
MATHJAX_SHA512 = (
    "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=="
)
# Loaded by MathJax itself, relative to its own address: fonts, TeX extensions, its menu.
MATHJAX_PARTS = (
    "tex-mml-chtml.js",
    "output/chtml/fonts",
    "input/tex/extensions",
    "a11y",
    "sre",
)


def cache_folder() -> Path:
    """Where fetched files are kept between builds and clones."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "limo-nb"


def install_mathjax(folder: Path) -> None:
    """Put the parts of MathJax that pages load into `folder`.

    Raises FileNotFoundError where it cannot be fetched, ValueError for a damaged archive.
    """
    archive = cache_folder() / f"mathjax-{MATHJAX}.tgz"
    if not archive.exists():
        _fetch_mathjax(archive)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != MATHJAX_SHA512:
        raise ValueError(f"{archive} is not MathJax {MATHJAX}: remove it and render again")
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix("package/es5/")
            source = tar.extractfile(member)  # None for a folder
            if source and name.startswith(MATHJAX_PARTS):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())


def _fetch_mathjax(archive: Path) -> None:
    """Let npm fetch the release, under another name until it is whole."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"npm fetches MathJax {MATHJAX} once, and is not installed. Install Node.js "
            f"(`apt-get install npm` or `conda install nodejs`), or put mathjax-{MATHJAX}.tgz "
            f"from the npm registry at {archive}"
        )
    fresh = archive.parent / f".fetch-{os.getpid()}"
    fresh.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "pack", "--silent", f"mathjax@{MATHJAX}", "--pack-destination", fresh],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise FileNotFoundError(f"npm could not fetch MathJax {MATHJAX}: {done.stderr[-2000:]}")
    (fresh / archive.name).replace(archive)
    shutil.rmtree(fresh)
