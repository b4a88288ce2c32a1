"""Which model a name means: `lab:NAME`, a folder, a GGUF file or a Hub id, with a digest.

A Hub id may end in `@REVISION`. The commit that a branch stands for is settled once, and
then both identifies the weights and is what is loaded. A GGUF file is named by its path, or
behind `#` by its name in a folder or on the Hub: `ID#FILE.gguf`, `ID@REVISION#FILE.gguf`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from limo_nb.inference.file_hashes import file_hashes
from limo_nb.inference.gguf_files import facts_of, folder_of

READ_BYTES = 2**28  # a folder up to this size is hashed as a whole, a larger one by files


def resolve(name: str) -> str:
    """`lab:NAME` as the folder of that lab model; any other name unchanged."""
    if not name.startswith("lab:"):
        return name
    from limo_nb import lab

    return str(lab.model_path(name.removeprefix("lab:")))


def source_of(name: str, weights: bool = False) -> tuple[str, str | None]:
    """(local folder, None) or (Hub id, commit) of `name`: what `from_pretrained` takes.

    Of a GGUF file the folder is made (see `gguf_files`), with its `weights` where wanted.

    The commit of a branch is the one that the Hub's cache on this machine has, else the
    newest, which is then put there, so that other processes find it too; `hf download ID`
    follows a branch that has moved. Raises ValueError for what is neither here nor there.
    """
    name = resolve(name)
    if file := gguf_path(name):
        return str(folder_of(file, _file_digest(file), weights)), None
    if Path(name).is_dir():
        return name, None
    return _repository_and_commit(name)


def exact_name(name: str) -> str:
    """`name`, a Hub id with its commit: by it another process loads the same weights."""
    if _is_local(resolve(name)):
        return name
    _, behind, file = name.partition("#")
    return "@".join(_repository_and_commit(name)) + behind + file


def absolute_name(name: str) -> str:
    """`name` as a process that starts in another folder can use it."""
    home, behind, file = name.partition("#")
    return f"{Path(home).resolve()}{behind}{file}" if Path(home).exists() else name


def gguf_path(name: str) -> Path | None:
    """The file that `name` means, fetched from the Hub if it is there; None for no GGUF file.

    A folder without a configuration may hold one. Raises ValueError where the file is not
    there, and where a folder or a repository has several and none is named.
    """
    home, behind, file = resolve(name).partition("#")
    if behind and not file.endswith(".gguf"):
        raise ValueError(f"{name!r}: behind # comes the name of a file that ends in .gguf")
    if behind and not Path(home).is_dir():
        return _fetched(*_repository_and_commit(name), file)
    if behind or home.endswith(".gguf"):
        found = Path(home) / file if behind else Path(home)
        if not found.is_file():
            raise ValueError(f"there is no file {found}" + _others(found.parent))
        return found
    return _only_gguf(Path(home)) if Path(home).is_dir() else None


def quantisation_of(name: str) -> str:
    """How the weights of a GGUF file are quantised (`Q4_K_M`); "" for any other model."""
    return facts_of(source_of(name)[0])["quantisation"] if gguf_path(name) else ""


def weights_of(name: str) -> dict[str, str]:
    """What a record says of weights that were dequantised; {} where they are as published."""
    kind = quantisation_of(name)
    return {"weights": f"{kind}, dequantised"} if kind else {}


def _is_local(name: str) -> bool:
    home = name.partition("#")[0]
    return Path(home).is_dir() or (home == name and name.endswith(".gguf"))


def _only_gguf(folder: Path) -> Path | None:
    """The one GGUF file of a folder that is no model's folder."""
    if (folder / "config.json").exists():
        return None
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise ValueError(_which(str(folder), [file.name for file in files]))
    return files[0] if files else None


def _others(folder: Path) -> str:
    names = sorted(file.name for file in folder.glob("*.gguf"))
    return f"; {folder} has {', '.join(names)}" if names else ""


def _which(home: str, files: Sequence[str]) -> str:
    return f"{home} has several GGUF files: name one as {home}#FILE, of {', '.join(files)}"


def _fetched(repository: str, commit: str, file: str) -> Path:
    """`file` of a Hub's repository, in the Hub's cache. Raises ValueError."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, revision=commit))
    except Exception as error:
        raise ValueError(
            f"{file} of {repository!r} can be had neither from the Hub nor from its cache "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        ) from error


def _repository_and_commit(name: str) -> tuple[str, str]:
    home, _, file = name.partition("#")
    repository, _, revision = home.partition("@")
    return repository, _commit(repository, revision or "main", file or "config.json")


@cache
def _commit(repository: str, revision: str, file: str) -> str:
    """The commit of a Hub model that has `file`; raises ValueError where it is not found."""
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        return _cached_or_asked(repository, revision, file)
    except Exception as error:
        raise ValueError(
            f"model {repository!r} is neither a local folder nor reachable on the Hub "
            f"({type(error).__name__}); name a folder, a GGUF file, `lab:NAME` or a Hub id"
        ) from error


def _cached_or_asked(repository: str, revision: str, file: str) -> str:
    from huggingface_hub import hf_hub_download, model_info, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

    found = try_to_load_from_cache(repository, file, revision=revision)
    try:
        # A download writes down which commit the branch stands for.
        path = found if isinstance(found, str) else None
        path = path or hf_hub_download(repository, file, revision=revision)
    except (GatedRepoError, RemoteEntryNotFoundError):  # what it is can still be asked
        return str(model_info(repository, revision=revision).sha)
    return Path(path).parts[-1 - len(Path(file).parts)]


def model_digest(name: str) -> str:
    """What identifies the weights of `name`: a Hub commit, or a digest of a local folder.

    The digest is of the content of all files at the folder's top, without hidden ones and
    Markdown: 16 hexadecimal digits, or 32 where they take more than 256 MiB. Those are
    hashed file by file, and not again while they stay as they are (`file_hashes`). That of a
    GGUF file, from the Hub or not, is of its content alone: 32 digits.
    """
    if file := gguf_path(name):
        return _file_digest(file)
    source, commit = source_of(name)
    if commit is not None:
        return commit
    files = [p for p in sorted(Path(source).iterdir()) if p.is_file()]
    files = [p for p in files if not p.name.startswith(".") and p.suffix != ".md"]
    if sum(p.stat().st_size for p in files) > READ_BYTES:
        return _digest_by_files(files)
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _file_digest(file: Path) -> str:
    return (_hub_hash(file) or file_hashes([file])[0])[:32]


def _digest_by_files(files: Sequence[Path]) -> str:
    hashes = {path: _hub_hash(path) for path in files}
    unknown = [path for path, found in hashes.items() if found is None]
    hashes |= zip(unknown, file_hashes(unknown), strict=True)
    lines = (f"{path.name} {path.stat().st_size} {hashes[path]}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def _hub_hash(path: Path) -> str | None:
    """The SHA-256 by which the Hub's cache names a large file of a snapshot; else None."""
    blob = path.resolve()
    snapshots = blob.parent.parent / "snapshots"
    in_cache = blob.parent.name == "blobs" and path.parent.resolve().parent == snapshots
    return blob.name if in_cache and re.fullmatch("[0-9a-f]{64}", blob.name) else None
