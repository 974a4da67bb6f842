"""The jobs of a campaign by command: each takes (job, team, process) and returns an unsealed record."""

from __future__ import annotations

from streaming_attention.campaign.ceilings import measure_ceilings
from streaming_attention.campaign.measure import measure_point
from streaming_attention.campaign.probe import probe_environment
from streaming_attention.campaign.validate import validate_method
from streaming_attention.campaign.warm import compile_method

JOBS = {
    "measure": measure_point,
    "ceilings": measure_ceilings,
    "gate": validate_method,
    "compile": compile_method,
    "environment": probe_environment,
}
