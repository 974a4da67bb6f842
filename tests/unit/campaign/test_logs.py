"""Logs of steps: tracebacks in the file, one line on the terminal."""

import sys

import pytest

from streaming_attention.campaign.logs import logged


def test_what_a_step_prints_is_in_its_log(tmp_path, capsys):
    with logged(tmp_path / "log"):
        print("a warning", file=sys.stderr)
    assert (tmp_path / "log").read_text() == "a warning\n"
    assert capsys.readouterr().err == ""


def test_an_error_is_one_line_on_the_terminal_and_a_traceback_in_the_log(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, logged(tmp_path / "log"):
        raise ValueError("no such figure")
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"ValueError: no such figure (log: {tmp_path / 'log'})\n"
    assert "Traceback" in (tmp_path / "log").read_text()
