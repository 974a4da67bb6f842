"""Set up Numba before it is imported: threads enough on any machine, a cache that belongs to these sources."""

import os

import pytest

from streaming_attention.campaign.jit import settle_cache
from streaming_attention.machine.isa import cpu_name

os.environ.setdefault("NUMBA_NUM_THREADS", "4")
settle_cache(cpu_name())


@pytest.fixture(params=["avx512", "avx2", "portable"], scope="session")
def isa(request):
    """Every instruction set that this CPU can run, each forced."""
    from streaming_attention.simd.isa import ISAS

    if missing := ISAS[request.param].missing():
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    return ISAS[request.param]


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(7)
