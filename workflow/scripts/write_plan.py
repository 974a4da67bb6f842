"""Write the plan as the Snakefile has made it, from the config and from what the command line laid over it."""

from streaming_attention.campaign.files import write_atomically
from streaming_attention.campaign.logs import logged

with logged(snakemake.log[0]):
    write_atomically(snakemake.output.table, snakemake.params.table)
