"""Progress is one line that changes, or lines where nobody can see one change."""

from limo_nb.core import progress
from limo_nb.inference.request import BAR


def test_in_a_notebook_one_display_is_updated(monkeypatch, capsys):
    shown = []
    monkeypatch.delenv("LIMO_NB_PROGRESS", raising=False)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress.LiveLine, "_update", lambda self, bundle: shown.append(bundle))
    line = progress.LiveLine()
    for text in ("step 1", "step 1", "step 2\r"):
        line.write(text)
    assert [bundle["text/plain"] for bundle in shown] == ["step 1", "step 2"]
    assert capsys.readouterr().err == ""


def test_lines_can_be_had_in_a_notebook_for_a_log(monkeypatch, capsys):
    clock = iter((1000.0, 1000.0, 1010.0, 1031.0, 1031.0, 1032.0, 1032.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setenv("LIMO_NB_PROGRESS", "lines")
    line = progress.LiveLine()
    for text in ("step 1", "step 2", "step 3"):  # at 0, 10 and 31 seconds
        line.write(text)
    line.finish("done")
    assert capsys.readouterr().err.splitlines() == ["step 1", "step 3", "done"]


def test_the_pace_follows_tokens_and_bounds_what_is_not_known():
    """Ten rows of at most 100 tokens; none has ended after 10 s, four after 20."""
    now = [0.0]
    pace = progress.Pace(10, 100, clock=lambda: now[0])
    assert str(pace) == "0 tokens/s"
    now[0], pace.underway = 10.0, (8, 160)
    assert str(pace) == "16 tokens/s, 8 on their way with 160 tokens, at most 0:00:52 left"
    now[0], pace.underway = 20.0, (4, 240)
    pace.end(4, 160)
    # Those that ended first were short: the others have 60 tokens already.
    assert str(pace) == "20 tokens/s, 4 on their way with 240 tokens, 0:00:06 left"
    now[0], pace.underway = 40.0, (0, 0)
    pace.end(6, 420)
    assert str(pace) == "14 tokens/s"


def test_a_bar_shows_that_there_is_work_before_anything_has_ended(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with progress.progress_bar(8, "completions", "aime", bar_format=BAR) as bar:
        bar.sign("16 tokens/s, 8 on their way with 160 tokens")
        bar.update(0)
    said = capsys.readouterr().err.splitlines()
    assert any("0/8 completions [" in line and "8 on their way" in line for line in said)


def test_quiet_shows_no_progress(monkeypatch, capsys):
    monkeypatch.setenv("LIMO_NB_PROGRESS", "none")
    with progress.progress_bar(3, "rows", "reading") as bar:
        bar.update(3)
    progress.LiveLine().finish("done")
    assert capsys.readouterr() == ("", "")
