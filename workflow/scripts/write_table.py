"""A table of the report: its rows and the page that shows them."""

from pathlib import Path

from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.logs import logged
from streaming_attention.campaign.tables import find_table, write_table

with logged(snakemake.log[0]):
    folder = Folder(Path(snakemake.output.page).parents[1])
    write_table(find_table(snakemake.params.table).tabulate(folder), snakemake.output.rows, snakemake.output.page)
