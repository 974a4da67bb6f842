"""A table of the report: its rows and the page that shows them."""

import sys
from pathlib import Path

from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.tables import find_table, write_table

sys.stderr = open(snakemake.log[0], "w")

folder = Folder(Path(snakemake.output.page).parents[1])
write_table(find_table(snakemake.params.table).tabulate(folder), snakemake.output.rows, snakemake.output.page)
