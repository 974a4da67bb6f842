"""Compiled code that belongs to these sources, for the ranks that the tests start on their hosts."""

from streaming_attention.campaign.jit import settle_cache
from streaming_attention.machine.isa import cpu_name

settle_cache(cpu_name())
