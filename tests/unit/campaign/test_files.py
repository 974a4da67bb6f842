import os
import resource
import subprocess
import sys

import pytest

from streaming_attention.campaign.files import sha256_of, write_atomically, write_json


def test_writes_text_and_bytes_and_creates_the_folder(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", "ü")
    write_atomically(tmp_path / "a" / "c.bin", b"\x00")
    assert (tmp_path / "a" / "b.txt").read_text() == "ü"
    assert (tmp_path / "a" / "c.bin").read_bytes() == b"\x00"


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    write_atomically(target, "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_too_large_for_the_disk_leaves_nothing(tmp_path):
    code = (
        "from streaming_attention.campaign.files import write_atomically\n"
        f"write_atomically({str(tmp_path / 'big')!r}, 'x' * 100_000)"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"seconds": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_digest_changes_with_the_content(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, "a")
    before = sha256_of(path)
    write_atomically(path, "b")
    assert before.startswith("sha256:")
    assert sha256_of(path) != before
