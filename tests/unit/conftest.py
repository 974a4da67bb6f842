"""Set up Numba before it is imported: threads enough on any machine, a cache that belongs to these sources."""

import os

from streaming_attention.campaign.jit import settle_cache
from streaming_attention.machine.isa import cpu_name

os.environ.setdefault("NUMBA_NUM_THREADS", "4")
settle_cache(cpu_name())
