"""The tables of a campaign, from all of its records; one that can't be trusted is set aside, to be measured again."""

from pathlib import Path

from streaming_attention.campaign.aggregate import aggregate, write_tables
from streaming_attention.campaign.logs import logged
from streaming_attention.campaign.record import RecordError, load_record

with logged(snakemake.log[0]):
    records, damaged = [], []
    for path in map(Path, [*snakemake.input.records, *snakemake.input.ceilings]):
        try:
            records.append(load_record(path))
        except RecordError as error:
            path.rename(path.with_suffix(".damaged"))
            damaged.append(str(error))
    if damaged:
        raise RecordError("; ".join([*damaged, "set aside as *.damaged, the next run measures them again"]))
    write_tables(aggregate(records), Path(snakemake.output.summary).parent)
