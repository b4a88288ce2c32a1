"""Running, pairing and rendering, on a toy book of two chapters with the real configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import make_toy
from rich.console import Console

from limo_nb.book import (
    api,
    contents,
    keys,
    mathjax,
    pairs,
    render,
    run,
)
from limo_nb.core import settings

SMOKE = "smoke"


def quiet() -> Console:
    return Console(file=StringIO(), width=100)


def said(console: Console) -> str:
    return console.file.getvalue()


def executed(outcomes: list[run.ChapterRun]) -> list[int]:
    return [outcome.chapter.number for outcome in outcomes if outcome.executed]


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


# ---------------------------------------------------------------- running
def test_chapters_run_once_and_again_when_code_changes(toy: Path) -> None:
    console = quiet()
    assert executed(run.run_chapters(SMOKE, root=toy, console=console)) == [1, 2]
    assert "01-first: executed in" in said(console)
    path = contents.executed_path(toy, SMOKE, contents.chapters(toy)[0])
    assert "squares: 5" in path.read_text()
    assert contents.run_record(path)["hardware"] and not list(path.parent.glob("*partial*"))

    console = quiet()
    assert executed(run.run_chapters(SMOKE, root=toy, console=console)) == []
    assert said(console).count("unchanged since its run") == 2

    text = toy / "book" / "text"
    edit(text / "01-first.md", "Numbers come", "All numbers come")  # prose: no run
    pairs.sync(toy)
    assert executed(run.run_chapters(SMOKE, root=toy, console=quiet())) == []

    edit(text / "02-second.md", "slowly", "in_steps")
    pairs.sync(toy)
    assert executed(run.run_chapters(SMOKE, root=toy, console=quiet())) == [2]
    assert executed(run.run_chapters(SMOKE, only=1, force=True, root=toy, console=quiet())) == [
        1
    ]


def test_key_follows_profile_overrides_data_and_earlier_chapters(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now(**overrides: object) -> dict[str, str]:
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        return keys.chapter_keys(contents.chapters(toy), settings.load_profile(SMOKE, dotted))

    first = now()
    assert first == now()
    assert first["02-second"] != now(pool__size=7)["02-second"]
    edit(toy / "book" / "text" / "01-first.md", "range(5)", "range(6)")
    pairs.sync(toy)
    assert first["02-second"] != now()["02-second"]
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path / "data"))
    empty = now()
    (tmp_path / "data" / "rows.jsonl").write_text("{}\n")
    assert empty != now()


def test_comments_docstrings_and_the_runner_itself_are_no_part_of_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PACKAGE", tmp_path)
    (tmp_path / "book").mkdir()
    code, data = tmp_path / "book" / "plots.py", tmp_path / "book" / "chain.css"
    code.write_text('"""What."""\n\nsize = 3  # why\n')
    data.write_text("a {}")
    first = keys.package_digest()
    code.write_text("size = 3\n")
    (tmp_path / "README.md").touch()
    (tmp_path / "book" / "run.py").write_text("other = 1\n")
    assert keys.package_digest() == first
    for path, text in ((data, "b {}"), (code, "size = 4\n")):
        path.write_text(text)
        assert keys.package_digest() != first
        first = keys.package_digest()


def test_failure_names_chapter_cell_reason_and_command(toy: Path) -> None:
    edit(toy / "book" / "text" / "02-second.md", "time.sleep", "time.slip")
    pairs.sync(toy)
    with pytest.raises(run.ChapterFailed) as caught:
        run.run_chapters(SMOKE, root=toy, console=quiet())
    message = str(caught.value)
    for part in (
        "chapter 2 (02-second) failed in cell",
        "AttributeError: module 'time' has no attribute 'slip'",
        "limo-nb run --profile smoke --from 2",
        "02-second.failed.ipynb",
    ):
        assert part in message
    folder = toy / "runs" / SMOKE / "book"
    assert (folder / "02-second.failed.ipynb").exists()
    assert not (folder / "02-second.ipynb").exists()

    edit(toy / "book" / "text" / "02-second.md", "time.slip", "time.sleep")
    pairs.sync(toy)
    assert executed(run.run_chapters(SMOKE, root=toy, console=quiet())) == [2]
    assert not (folder / "02-second.failed.ipynb").exists()


def test_missing_upstream_says_which_command_makes_it(toy: Path) -> None:
    with pytest.raises(run.ChapterFailed, match="limo-nb run --profile smoke --until 3"):
        run.run_chapters(SMOKE, only=2, root=toy, console=quiet())


@pytest.mark.parametrize("wrong", [{"only": 9}, {"from_": 0}, {"until": 3}])
def test_unknown_chapter_is_refused(toy: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"no chapter \d; there are \[1, 2\]"):
        run.run_chapters(SMOKE, root=toy, console=quiet(), **wrong)


def test_chapter_of_the_toc_without_notebook_is_named(toy: Path) -> None:
    (toy / "book" / "02-second.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match="make sync"):
        run.run_chapters(SMOKE, root=toy, console=quiet())
    assert executed(run.run_chapters(SMOKE, until=1, root=toy, console=quiet())) == [1]


def test_second_process_is_refused(toy: Path) -> None:
    home = toy / "runs" / SMOKE / "book"
    home.mkdir(parents=True)
    with run._alone(home), pytest.raises(BlockingIOError, match="another `limo-nb run`"):
        run.run_chapters(SMOKE, root=toy, console=quiet())


def test_kernel_is_this_environment_s(toy: Path, tmp_path: Path, monkeypatch) -> None:
    """A user's own `python3` kernel of another environment does not take over."""
    foreign = tmp_path / "home" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python", "{connection_file}"], "display_name": "no",
            "language": "python"}  # fmt: skip
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(foreign.parents[1]))
    edit(
        toy / "book" / "text" / "01-first.md",
        "pool.path)\n```",
        "pool.path)\nimport sys; print(sys.prefix)\n```",
    )
    pairs.sync(toy)
    run.run_chapters(SMOKE, only=1, root=toy, console=quiet())
    path = contents.executed_path(toy, SMOKE, contents.chapters(toy)[0])
    assert sys.prefix in path.read_text()


# ---------------------------------------------------------------- pairs
def test_sync_is_stable_and_gate_sees_every_difference(toy: Path) -> None:
    assert pairs.pair_differences(toy) == [] and pairs.sync(toy) == []
    path = toy / "book" / "01-first.ipynb"
    clean = path.read_text()

    def changed(change) -> list[str]:
        notebook = nbformat.reads(clean, as_version=4)
        change(notebook)
        nbformat.write(notebook, path)
        return pairs.pair_differences(toy)

    def source(notebook):
        notebook.cells[1].source += "\n"

    def tags(notebook):
        notebook.cells[1].metadata["tags"] = []

    def kind(notebook):
        notebook.cells[0].cell_type = "raw"

    def count(notebook):
        notebook.cells[1].execution_count = 1

    def output(notebook):
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]

    def fewer(notebook):
        del notebook.cells[-1]

    for change in (source, tags, kind, count, output, fewer):
        assert len(changed(change)) == 1, change.__name__
    assert pairs.sync(toy) == [path] and path.read_text() == clean
    shutil.copy(path, path.with_name("03-lonely.ipynb"))
    assert pairs.pair_differences(toy) == ["03-lonely.ipynb has no text/03-lonely.md"]


def test_format_carries_the_formatted_cells_back_to_the_text(toy: Path) -> None:
    text = toy / "book" / "text" / "01-first.md"
    before = text.read_text()
    edit(text, "total = len(", "total  =  len(")
    assert text in pairs.format_cells(toy)
    assert "total = len(" in text.read_text() and pairs.pair_differences(toy) == []
    assert before.split("```")[0] == text.read_text().split("```")[0]  # prose and header stay


def test_this_repository_s_pairs_are_equal(repository: Path) -> None:
    assert pairs.pair_differences(repository) == []


# ---------------------------------------------------------------- rendering
@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a toy book that was run in smoke and rendered."""
    if shutil.which("npm") is None and not list(mathjax.cache_folder().glob("mathjax*")):
        pytest.skip("npm is not installed and MathJax not cached")
    root = make_toy(tmp_path_factory.mktemp("site") / "toy")
    pages = "".join(f"  - file: {api.FOLDER}/{name}\n" for name in ("index", *api.ROOMS))
    edit(
        root / "_toc.yml",
        "  - file: book/bibliography\n",
        f"  - file: book/bibliography\n{pages}",
    )
    run.run_chapters(SMOKE, root=root, console=quiet())
    render.build_site(SMOKE, root=root, console=quiet())
    return root


def page(site: Path, name: str) -> str:
    return (site / "_build" / "html" / "book" / f"{name}.html").read_text()


def test_page_carries_the_run_s_outputs_and_its_footer(site: Path) -> None:
    first = page(site, "01-first")
    assert re.search(r"Numbers come from the run: <span[^>]*>5</span> squares", first)
    assert "squares: 5 in runs/smoke/pool/" in first  # as in any clone, not as on this machine
    known = contents.run_record(contents.executed_path(site, SMOKE, contents.chapters(site)[0]))
    for part in ("<b>smoke</b>", known["commit"], known["started"][:10], known["hardware"],
                 f"torch {known['versions']['torch']}"):  # fmt: skip
        assert part in first, part
    assert "injected" not in first and "mini" not in re.sub(r"(?s)<head>.*?</head>", "", first)


def test_page_and_package_link_to_each_other(site: Path) -> None:
    assert 'href="api/core.html#limo_nb.core.Run"' in page(site, "01-first")
    core = page(site, "api/core")
    described = core.split('id="limo_nb.core.Run"')[1].split('<dl class="py class">')[0]
    assert "A profile and the folder of what it made" in described
    assert 'href="../01-first.html"' in described and 'href="../02-second.html"' in described
    assert 'href="../../_modules/limo_nb/core/runs.html#Run"' in described
    assert "``" not in re.sub(r"(?s)<(script|head)\b.*?</\1>", "", core)
    assert "01-first" in page(site, "api/index")


def test_launch_buttons_point_to_the_notebook(site: Path, repository: Path) -> None:
    url = yaml.safe_load((repository / "_config.yml").read_text())["repository"]["url"]
    place = url.removeprefix("https://github.com/")
    first = page(site, "01-first")
    assert (
        f"https://colab.research.google.com/github/{place}/blob/main/book/01-first.ipynb"
        in first
    )
    assert (
        f"https://mybinder.org/v2/gh/{place}/main?urlpath=lab/tree/book/01-first.ipynb" in first
    )


def test_site_reads_offline(site: Path) -> None:
    html = site / "_build" / "html"
    assert render.external_requests(html) == []
    assert "mathjax/tex-mml-chtml.js" in page(site, "01-first")
    mathjax = html / "_static" / "mathjax"
    assert (mathjax / "tex-mml-chtml.js").stat().st_size > 500_000
    assert len(list((mathjax / "output/chtml/fonts").rglob("*.woff"))) > 10


@pytest.mark.parametrize(
    ("outputs", "joined"),
    [
        ([], []),
        ([("stdout", "Since "), ("stdout", "7+4=1.\n"), ("stdout", "So")],
         [("stdout", "Since 7+4=1.\nSo")]),
        ([("stdout", "a"), ("stderr", "b"), ("stdout", "c")],
         [("stdout", "a"), ("stderr", "b"), ("stdout", "c")]),
        ([("stdout", "a"), ("", "shown"), ("stdout", "b")],
         [("stdout", "a"), ("", "shown"), ("stdout", "b")]),
    ],
)  # fmt: skip
def test_streams_are_joined_as_they_were_written(outputs, joined) -> None:
    def made(name: str, text: str):
        if name:
            return nbformat.v4.new_output("stream", name=name, text=text)
        return nbformat.v4.new_output("display_data", {"text/plain": text})

    found = render._joined([made(*output) for output in outputs])
    assert found == [made(*output) for output in joined]


@pytest.mark.parametrize(
    ("markup", "found"),
    [
        ('<script src="https://cdn.org/x.js"></script>', 1),
        ("<script async src='//cdn.org/x.js'></script>", 1),
        ('<link href="https://cdn.org/x.css" rel="stylesheet">', 1),
        ('<img alt="" src="http://cdn.org/x.png">', 1),
        ('<a href="https://example.org">text</a>', 0),
        ('<link rel="canonical" href="https://example.org">', 0),
        ('<script src="../_static/x.js"></script>', 0),
    ],
)
def test_what_counts_as_a_request(tmp_path: Path, markup: str, found: int) -> None:
    (tmp_path / "page.html").write_text(markup)
    assert len(render.external_requests(tmp_path)) == found


def test_second_render_does_nothing_and_new_prose_needs_no_run(toy: Path) -> None:
    index = toy / "_build" / "html" / "index.html"
    run.run_chapters(SMOKE, root=toy, console=quiet())
    render.build_site(SMOKE, root=toy, console=quiet())
    before, console = index.stat().st_mtime_ns, quiet()
    render.build_site(SMOKE, root=toy, console=console)
    assert "site: unchanged" in said(console) and index.stat().st_mtime_ns == before
    edit(toy / "book" / "text" / "02-second.md", "# The second chapter", "# The other chapter")
    pairs.sync(toy)
    render.build_site(SMOKE, root=toy, console=quiet())
    assert "The other chapter" in page(toy, "02-second")
    assert "step 4" in page(toy, "02-second")


def test_warning_fails_the_build_again_and_again(toy: Path) -> None:
    run.run_chapters(SMOKE, root=toy, console=quiet())
    edit(toy / "book" / "index.md", "01-first.ipynb", "nowhere.ipynb")
    for _ in range(2):
        with pytest.raises(render.RenderFailed, match="nowhere"):
            render.build_site(SMOKE, root=toy, console=quiet())


def test_chapter_without_its_run_is_not_rendered(toy: Path) -> None:
    with pytest.raises(render.RenderFailed, match="limo-nb run --profile smoke --until 1"):
        render.build_site(SMOKE, root=toy, console=quiet())
    run.run_chapters(SMOKE, root=toy, console=quiet())
    edit(toy / "book" / "text" / "02-second.md", "slowly", "in_steps")
    pairs.sync(toy)
    with pytest.raises(render.RenderFailed, match="changed since it was run"):
        render.build_site(SMOKE, root=toy, console=quiet())


def test_absent_npm_and_damaged_archive_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install npm"):
        mathjax.install_mathjax(tmp_path / "out")
    archive = mathjax.cache_folder() / f"mathjax-{mathjax.MATHJAX}.tgz"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not MathJax"):
        mathjax.install_mathjax(tmp_path / "out")


def test_hub_button_is_added_on_request(toy: Path, monkeypatch) -> None:
    run.run_chapters(SMOKE, root=toy, console=quiet())
    without = render.assemble(toy, SMOKE, toy / "_build" / "a")
    monkeypatch.setenv("LIMO_NB_HUB", "https://hub.example.org")
    assert render.assemble(toy, SMOKE, toy / "_build" / "a") != without
    config = yaml.safe_load((toy / "_build" / "a" / "_config.yml").read_text())
    assert config["launch_buttons"]["jupyterhub_url"] == "https://hub.example.org"


# ---------------------------------------------------------------- in a browser
def test_formula_and_figures_show_in_a_browser(site: Path) -> None:
    """MathJax typesets in a browser that cannot reach any host."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH")
    url = (site / "_build" / "html" / "book" / "01-first.html").as_uri()
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files",
         "--dump-dom", url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "<mjx-container" in done.stdout, done.stderr[-500:]


# ---------------------------------------------------------------- kills
def limo_nb(root: Path, *arguments: str, runs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "limo_nb", *arguments],
        cwd=root,
        env={**os.environ, "LIMO_NB_RUNS": str(runs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def stage_files(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): path.read_text()
        for path in sorted(home.glob("*/*/*.json"))
        if path.name != "manifest.json"
    }


INTERRUPTED = """
from limo_nb.book import run_chapters
try:
    run_chapters("smoke")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupt_ends_the_kernel_keeps_the_notebook_and_is_passed_on(tmp_path: Path) -> None:
    root = make_toy(tmp_path / "toy", pause=0.7)
    home = root / "runs" / SMOKE
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=root, stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(home.glob("coarse/*/step-1.json")))
    process.send_signal(signal.SIGINT)  # to it alone, as from a terminal
    output, _ = process.communicate(timeout=30)
    assert output.endswith("interrupted\n") and "01-first: executed" in output
    steps = len(list(home.glob("coarse/*/step-*.json")))
    assert steps < 5
    partial = contents.read_notebook(home / "book" / ".02-second.partial.ipynb")
    assert "step 1" in str(partial.cells) and not (home / "book" / "02-second.ipynb").exists()
    time.sleep(1.5)
    assert len(list(home.glob("coarse/*/step-*.json"))) == steps, "the kernel goes on"
    assert executed(run.run_chapters(SMOKE, root=root, console=quiet())) == [2]


@pytest.mark.slow
def test_killed_run_continues_and_ends_the_same(tmp_path: Path) -> None:
    root = make_toy(tmp_path / "toy", pause=0.7)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert limo_nb(root, "run", "--profile", SMOKE, runs=whole).wait(120) == 0

    first = limo_nb(root, "run", "--profile", SMOKE, runs=cut)
    home = cut / SMOKE
    wait_for(lambda: list(home.glob("coarse/*/step-1.json")))
    first.send_signal(signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    assert not list(home.glob("coarse/current-*"))
    assert not (home / "book" / "02-second.ipynb").exists()
    time.sleep(3)  # the orphaned kernel sees that its parent is gone
    done = sorted(home.glob("pool/*/*")) + sorted(home.glob("coarse/*/step-*.json"))
    assert len(list(home.glob("coarse/*/step-*.json"))) < 5
    before = {path: path.stat().st_mtime_ns for path in done}

    second = limo_nb(root, "run", "--profile", SMOKE, runs=cut)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert "01-first: unchanged" in output and "02-second: executed" in output
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert stage_files(home) == stage_files(whole / SMOKE)
    manifest = json.loads(next(home.glob("coarse/*/manifest.json")).read_text())
    assert manifest["resumed"] is True
