import mmap
import sys

import pytest

from streaming_attention.machine import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
SIZE = 64 * 2**20


@linux
def test_the_peak_sees_what_was_held_and_given_back():
    if not memory.reset_peak():
        pytest.skip("this kernel doesn't let a process reset its peak")
    before = memory.resident_bytes()
    region = mmap.mmap(-1, SIZE)
    for offset in range(0, SIZE, mmap.PAGESIZE):
        region[offset] = 1
    region.close()
    assert memory.peak_bytes() - before > 0.9 * SIZE
    assert memory.reset_peak()
    assert memory.peak_bytes() - before < 0.5 * SIZE


@linux
def test_available_is_part_of_the_total():
    assert 0 < memory.available_bytes() <= memory.total_bytes()


def test_what_cannot_be_read_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path)
    assert memory.peak_bytes() is None
    assert memory.reset_peak() is False
