"""The scaling model: what a call over ranks should take, from what one rank, its memory and the network do."""
