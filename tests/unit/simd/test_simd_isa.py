"""Choosing an instruction set."""

import pytest

from streaming_attention.simd import isa as isa_module
from streaming_attention.simd.isa import AVX2, AVX512, ISAS, PORTABLE, select_isa


def test_the_best_isa_runs_here():
    assert select_isa().missing() == []


def test_the_portable_isa_runs_everywhere(monkeypatch):
    monkeypatch.setattr(isa_module, "host_features", dict)
    isa_module._best.cache_clear()
    assert select_isa() is PORTABLE
    isa_module._best.cache_clear()


def test_an_isa_is_gated_by_its_own_features(monkeypatch):
    monkeypatch.setattr(isa_module, "host_features", lambda: {"avx512f": True, "avx2": True})
    assert AVX512.missing() and AVX2.missing() == ["fma"]
    with pytest.raises(ValueError, match=r"'avx512' needs .*avx512bw"):
        select_isa("avx512")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'sse9' is not known; allowed: .*avx2"):
        select_isa("sse9")


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_a_tile_fits_the_registers(isa):
    registers = 32 if isa.lanes == 16 else 16
    assert isa.rows * isa.vectors + isa.vectors + 1 <= registers
