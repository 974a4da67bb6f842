"""Two tables of measurements joined by point, with a verdict on each."""

from streaming_attention.campaign.compare import compare, read_measurements, write_comparison
from streaming_attention.campaign.logs import logged

with logged(snakemake.log[0]):
    sides = [read_measurements(path) for path in (snakemake.input.base, snakemake.input.other)]
    comparison = compare(*sides, names=tuple(snakemake.params.names), confidence=snakemake.params.confidence)
    write_comparison(comparison, snakemake.output.rows, snakemake.output.page, snakemake.output.svg)
