"""What the figures and tables of a campaign are made of, with digests."""

from pathlib import Path

from streaming_attention.campaign.logs import logged
from streaming_attention.campaign.provenance import write_trace

with logged(snakemake.log[0]):
    write_trace(Path(snakemake.output.trace).parent, snakemake.output.trace)
