"""Progress is one line that changes, or lines where nobody can see one change."""

from limo_nb.core import progress


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
