import ctypes
import mmap
import sys
from pathlib import Path

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


@linux
def test_touched_pages_lie_on_a_node_and_others_nowhere():
    region = mmap.mmap(-1, 64 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    if memory.nodes_of_pages(address, 1) is None:
        pytest.skip("this kernel doesn't say where pages lie")
    for page in range(16):
        region[page * mmap.PAGESIZE] = 1
    found = memory.nodes_of_pages(address, 64 * mmap.PAGESIZE)
    assert len(found) == 16
    assert set(found) <= {int(path.name[4:]) for path in Path("/sys/devices/system/node").glob("node[0-9]*")}
    assert len(memory.nodes_of_pages(address, 16 * mmap.PAGESIZE, samples=4)) == 4
    assert memory.nodes_of_pages(address, 0) == []


def test_where_the_call_is_unknown_nothing_is_said(monkeypatch):
    monkeypatch.setattr(memory.platform, "machine", lambda: "abacus")
    assert memory.nodes_of_pages(4096, 4096) is None
