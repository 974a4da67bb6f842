"""A figure, and beside it the rows that it shows."""

from pathlib import Path

from streaming_attention.campaign.aggregate import read_tables
from streaming_attention.campaign.figures import find_figure, style
from streaming_attention.campaign.figures.data import Options
from streaming_attention.campaign.logs import logged

with logged(snakemake.log[0]):
    tables = read_tables(Path(snakemake.input.summary).parent)
    drawn = find_figure(snakemake.params.figure).draw(tables, Options(**snakemake.params.options))
    style.save(drawn, snakemake.output.svg, snakemake.output.csv)
