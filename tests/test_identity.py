"""What identifies a model: all of its content at any size, or the commit that is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from hub import Hub
from safetensors.torch import load_file
from tiny import tiny_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from limo_nb.inference import chat_prompt, complete, model_digest, open_engine, resolve
from limo_nb.inference.file_hashes import SETTLED_SECONDS, file_hashes
from limo_nb.inference.identity import exact_name, source_of

LARGE = 300 * 2**20


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "limo-nb"


def sparse_model(folder, byte=0):
    """A folder with 300 MiB of weights, nearly all of them a hole, and one byte of content."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(LARGE)
        weights.seek(LARGE // 2)
        weights.write(bytes([byte]))
    return folder


def bytes_read(work):
    """What this process reads from files while it does `work`."""
    if not Path("/proc/self/io").exists():
        pytest.skip("only Linux counts the bytes that a process reads")

    def count():
        return int(Path("/proc/self/io").read_text().split()[1])

    before = count()
    work()
    return count() - before


def settle():
    time.sleep(SETTLED_SECONDS + 0.1)


# ------------------------------------------------------------------------------ folders
def test_a_small_folder_keeps_the_digest_that_its_draws_come_from(tmp_path):
    """A change of this definition would change every sample of the lab's models."""
    (tmp_path / "model").mkdir()
    for name, text in (
        ("b.json", "two"),
        ("a.bin", "one"),
        (".hidden", "x"),
        ("README.md", "x"),
    ):
        (tmp_path / "model" / name).write_text(text)
    wanted = hashlib.sha256(b"a.bin 3\none" + b"b.json 3\ntwo").hexdigest()[:16]
    assert model_digest(str(tmp_path / "model")) == wanted


def test_one_byte_in_the_middle_of_large_weights_counts(tmp_path):
    one, other = (sparse_model(tmp_path / str(byte), byte) for byte in (0, 1))
    assert model_digest(str(one)) != model_digest(str(other))
    shutil.copytree(one, tmp_path / "copy")
    assert model_digest(str(one)) == model_digest(str(tmp_path / "copy"))


@pytest.mark.parametrize("change", ["name", "config", "size"])
def test_everything_else_of_a_large_folder_counts_too(tmp_path, change):
    folder = sparse_model(tmp_path / "model")
    before = model_digest(str(folder))
    assert len(before) == 32  # and so it is no digest of a small folder, which has 16
    if change == "name":
        (folder / "model.safetensors").rename(folder / "weights.safetensors")
    elif change == "config":
        (folder / "config.json").write_text('{"model_type": "qwen3"}')
    else:
        os.truncate(folder / "model.safetensors", LARGE + 1)
    assert model_digest(str(folder)) != before


def test_a_fine_tuned_copy_of_a_large_model_is_another_model(tmp_path):
    """One step of training: names and sizes of all files stay."""
    width = {"hidden_size": 512, "intermediate_size": 1024, "vocab_size": 140_000}
    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**width, **shape, tie_word_embeddings=True))
    model.save_pretrained(base)
    ids = torch.arange(8)[None]
    optimizer = torch.optim.SGD(model.model.layers.parameters(), lr=1e-2)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    model.save_pretrained(tuned)
    files = [{p.name: p.stat().st_size for p in folder.iterdir()} for folder in (base, tuned)]
    assert files[0] == files[1] and sum(files[0].values()) > 2**28
    assert model_digest(str(base)) != model_digest(str(tuned))


def test_what_was_hashed_is_not_read_again(tmp_path):
    folder = str(sparse_model(tmp_path / "model"))
    settle()
    assert bytes_read(lambda: model_digest(folder)) >= LARGE
    assert bytes_read(lambda: model_digest(folder)) < 2**20


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    folder = str(sparse_model(tmp_path / "model"))
    model_digest(folder)
    assert bytes_read(lambda: model_digest(folder)) >= LARGE


def test_a_change_that_keeps_size_and_time_of_modification_is_seen(tmp_path):
    """As a copying tool may leave it."""
    folder = sparse_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    settle()
    before, times = model_digest(str(folder)), weights.stat()
    with weights.open("r+b") as content:
        content.write(b"new")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_mtime_ns == times.st_mtime_ns
    assert model_digest(str(folder)) != before


@pytest.mark.parametrize("trouble", ["broken", "a folder", "in the way"])
def test_a_cache_that_does_not_work_is_no_reason_to_fail(tmp_path, cache, trouble):
    if trouble == "in the way":
        cache.parent.write_text("a file where the folder should be")
    else:
        cache.mkdir(parents=True)
        database = cache / "file-hashes.sqlite"
        database.mkdir() if trouble == "a folder" else database.write_bytes(b"broken" * 999)
    (tmp_path / "file").write_text("x")
    os.utime(tmp_path / "file", (0, 0))
    assert file_hashes([tmp_path / "file"]) == [hashlib.sha256(b"x").hexdigest()]


def test_processes_share_what_they_hashed(tmp_path, cache):
    """Four at once, each of which finds the files hashed or hashes them."""
    files = [tmp_path / f"file-{number}" for number in range(20)]
    for file in files:
        file.write_text(file.name)
    settle()
    code = (
        "import sys; from pathlib import Path; from limo_nb.inference import file_hashes as f; "
        "print(*f.file_hashes([Path(name) for name in sys.argv[1:]]))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *files], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = {process.communicate()[0] for process in started}
    assert said == {" ".join(hashlib.sha256(f.name.encode()).hexdigest() for f in files) + "\n"}
    assert file_hashes(files * 2) == said.pop().split() * 2
    assert (cache / "file-hashes.sqlite").exists()


# ----------------------------------------------------------------------- the Hub's cache
def test_a_snapshot_of_the_hub_is_identified_by_the_names_of_its_blobs(tmp_path):
    """They are hashes of the content, so a copy of the snapshot has the same digest."""
    plain = sparse_model(tmp_path / "plain")
    (content,) = file_hashes([plain / "model.safetensors"])
    home = tmp_path / "models--owner--name"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name, blob in (("model.safetensors", content), ("config.json", "b" * 40)):
        (plain / name).rename(home / "blobs" / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    digest = []
    assert bytes_read(lambda: digest.append(model_digest(str(snapshot)))) < 2**20
    shutil.copytree(snapshot, tmp_path / "copy")
    assert not (tmp_path / "copy" / "model.safetensors").is_symlink()
    assert digest == [model_digest(str(tmp_path / "copy"))]


# ------------------------------------------------------------------------------- the Hub
class ModelHub(Hub):
    """A Hub whose one model has other files at every commit; `main` is `commit`."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        super().__init__()
        self.commit = next(iter(folders))

    def reply(self, request: BaseHTTPRequestHandler) -> None:
        parts = request.path.split("?")[0].strip("/").split("/")
        if parts[0] == "move":
            self.commit = parts[1]
            self.send(request, b"{}")
            return
        at = next((p for p in parts if p in self.folders), self.commit)
        if "tree" in parts:  # of a folder of further chat templates: there is none
            self.send(request, b"[]")
            return
        if parts[0] == "api":
            self.send(request, json.dumps({"id": "owner/model", "sha": at}).encode())
            return
        file = self.folders[at] / parts[-1]
        if not file.is_file():
            self.send(
                request, b"{}", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": at}
            )
            return
        content = file.read_bytes()
        tag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": at}
        self.send(request, content, 200, tag)


OLD, NEW = "a" * 40, "b" * 40

MOVING = """
import json, sys, urllib.request
from pathlib import Path
from limo_nb.core.settings import EngineSettings, Sampling
from limo_nb.inference import chat_prompt, complete, load_model, model_digest, open_engine
from limo_nb.inference import transformers_engine

hub, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
transformers_engine.FEW_ROWS = 0  # its workers load the model for themselves
with open_engine(EngineSettings(dtype="float32", workers=2), name) as engine:
    before = model_digest(name)
    urllib.request.urlopen(f"{hub}/move/{'b' * 40}").close()
    items = [("p", chat_prompt("What is 2 + 2?", "S"))]
    rows = complete(engine, items, Sampling(max_new_tokens=12), folder / "s.db")
weights = load_model(name, "float32")[0].state_dict()["model.embed_tokens.weight"]
found = {"digest": [before, model_digest(name), engine.identity["model"]]}
found |= {"text": rows["text"][:], "sum": float(weights.double().sum())}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def commits(tmp_path_factory):
    """Two versions of a model, by their commits."""
    root = tmp_path_factory.mktemp("commits")
    return {c: tiny_model(root / c[0], seed) for seed, c in enumerate((OLD, NEW))}


def greedy_text(folder, tmp_path):
    from limo_nb.core.settings import EngineSettings, Sampling

    items = [("p", chat_prompt("What is 2 + 2?", "S"))]
    with open_engine(EngineSettings(dtype="float32"), str(folder)) as engine:
        store = tmp_path / f"{folder.name}.db"
        return list(complete(engine, items, Sampling(max_new_tokens=12), store)["text"][:])


def weight_sum(folder):
    weights = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    return float(weights.double().sum())


def said(*command, **how):
    """The last line that a Python program prints, which is JSON."""
    command = [sys.executable, "-c", *command]
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LATER = """
import json
from limo_nb.inference import model_digest
print(json.dumps([model_digest(name) for name in ("owner/model", "owner/model@BRANCH")]))
"""


def test_where_main_moves_the_commit_of_the_digest_is_loaded(commits, tmp_path):
    """By this process, by its workers, and by a later process with the same cache."""
    with ModelHub(commits) as hub:
        environment = hub.environment(tmp_path)
        arguments = (environment["HF_ENDPOINT"], str(tmp_path), "owner/model")
        found = said(MOVING, *arguments, env=environment)
        assert hub.commit == NEW
        assert said(LATER.replace("BRANCH", NEW), env=environment) == [OLD, NEW]
        assert said(LATER.replace("BRANCH", "other"), env=environment) == [OLD, NEW]
    assert found["digest"] == [OLD] * 3
    assert found["sum"] == pytest.approx(weight_sum(commits[OLD]), abs=1e-6)
    texts = {commit: greedy_text(folder, tmp_path) for commit, folder in commits.items()}
    assert found["text"] == texts[OLD] != texts[NEW]


def test_names_that_mean_a_folder_have_no_commit(tmp_path):
    folder = str(tiny_model(tmp_path / "model"))
    assert source_of(folder) == (folder, None) and exact_name(folder) == folder
    source, commit = source_of("lab:weak")
    assert commit is None and Path(source).is_dir() and resolve("lab:weak") == source
    assert exact_name("lab:weak") == "lab:weak"  # another machine has it elsewhere


def test_a_commit_stands_for_itself():
    assert source_of(f"owner/model@{OLD}") == ("owner/model", OLD)
    assert exact_name(f"owner/model@{OLD}") == f"owner/model@{OLD}"


@pytest.mark.parametrize("name", ["/no/such/folder", "no/such-model", "./here", "a/b/c"])
def test_what_is_neither_here_nor_on_the_hub_is_named(name):
    with pytest.raises(ValueError, match=f"model '{name}' is neither a local folder nor"):
        model_digest(name)
