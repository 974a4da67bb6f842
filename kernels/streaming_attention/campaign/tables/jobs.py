"""Which job made each record: hosts, its id in SLURM, the scheduler's log, and what accounting says it used."""

from __future__ import annotations

import pandas as pd

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import frame_of
from streaming_attention.campaign.folder import Folder, log_name
from streaming_attention.campaign.record import load_record
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table
from streaming_attention.machine.slurm import Account, Cluster, SlurmError

JOBS = {
    "record": "str",
    "kind": "str",
    "started": "str",
    "seconds": "float64",
    "hosts": "str",
    "slurm_job_id": "str",
    "waited_seconds": "float64",
    "elapsed_seconds": "float64",
    "cpu_efficiency": "float64",
    "max_rss_mib": "float64",
    "state": "str",
    "exit_code": "str",
    "log": "str",
    "slurm_log": "str",
}
SLURM_LOGS = "slurm-logs"
"""Folder beside the campaign's, where the profile lets SLURM write the logs of jobs."""

EXPLANATION = """The job behind every record. seconds are the record's; waited, elapsed, cpu efficiency (CPU time used
over held), the largest resident memory of a task, state and exit code come from SLURM's accounting, and are empty
without one or without SLURM. A job holds whole nodes, so that a point on few cores is inefficient by intention."""
_SHOWN = [name for name in JOBS if name not in ("kind", "started")]


def tabulate(folder: Folder) -> Table:
    """The table of a campaign, from its records and from SLURM's accounting as it answers now."""
    records = [load_record(path) for path in folder.records()]
    ids = {record["id"]: job_id(record) for record in records}
    frame = job_rows(folder, records, _accounts([job for job in ids.values() if job]))
    shown = {name: name.replace("_", " ") for name in _SHOWN if frame[name].astype(bool).any()}
    return Table(frame, html.page(TABLES["jobs"], html.paragraph(EXPLANATION), html.table(frame, shown)))


def job_rows(folder: Folder, records: list[dict], accounts: dict[str, Account]) -> pd.DataFrame:
    """A row per record; columns are :data:`JOBS`.

    Parameters
    ----------
    folder : Folder
    records : list of dict
    accounts : dict
        Of SLURM jobs, by id; those that are not there leave their columns empty.
    """
    return frame_of((_row(folder, record, accounts.get(job_id(record))) for record in records), JOBS)


def job_id(record: dict) -> str:
    """The id of the SLURM job that made a record; empty without one."""
    return record["environment"]["ranks"][0]["slurm_job_id"] or ""


def _row(folder: Folder, record: dict, account: Account | None) -> dict:
    hosts = dict.fromkeys(rank["host"] for rank in record["environment"]["ranks"])
    row = {
        "record": record["id"],
        "kind": record["kind"],
        "started": record["started"],
        "seconds": record["seconds"],
        "hosts": " ".join(hosts),
        "slurm_job_id": job_id(record),
        "log": log_name(record["log"]),
        "slurm_log": _slurm_log(folder, job_id(record)),
    }
    return row | (_used(account) if account else {})


def _used(account: Account) -> dict:
    code = f"{account.exit_code}:{account.signal}"
    return {
        "waited_seconds": account.waited_seconds,
        "elapsed_seconds": account.elapsed_seconds,
        "cpu_efficiency": account.efficiency,
        "max_rss_mib": None if account.max_rss_bytes is None else account.max_rss_bytes / 2**20,
        "state": account.state,
        "exit_code": code,
    }


def _slurm_log(folder: Folder, job: str) -> str:
    """Path of a job's log relative to the campaign's folder; empty where it was not kept."""
    found = sorted((folder.path.parent / SLURM_LOGS).rglob(f"{job}.log")) if job else []
    return f"../{found[0].relative_to(folder.path.parent).as_posix()}" if found else ""


def _accounts(jobs: list[str]) -> dict[str, Account]:
    """What accounting says; nothing where the report is drawn away from the cluster, or the cluster keeps none."""
    try:
        return Cluster().accounts(jobs) if jobs else {}
    except SlurmError:
        return {}
