"""What the figures and tables of a campaign are made of, with digests."""

import sys
from pathlib import Path

from streaming_attention.campaign.provenance import write_trace

sys.stderr = open(snakemake.log[0], "w")

write_trace(Path(snakemake.output.trace).parent, snakemake.output.trace)
