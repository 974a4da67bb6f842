"""The command line: ``streaming-attention COMMAND``; each command is one step of a campaign.

``plan`` shows what a config would measure, ``cluster`` what SLURM has. ``measure``, ``ceilings``, ``gate`` and
``compile`` run one job under a supervisor; the workflow calls them, and each record names the command that repeats it
without the workflow. ``gpu`` compiles the Triton kernels for GPUs. ``compare`` joins two tables of measurements,
``verify`` walks a campaign's figures back to their records.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

from streaming_attention.campaign import launch, specs
from streaming_attention.campaign.gate import refused_methods
from streaming_attention.campaign.progress import progress_line
from streaming_attention.campaign.record import load_record
from streaming_attention.machine.slurm.commands import SlurmError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. A failure is one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (launch.JobFailed, SlurmError, ValueError, OSError) as error:
        print(f"streaming-attention {options.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streaming-attention", description="Measure attention on CPUs.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_plan(commands)
    _add_cluster(commands)
    for name, summary in _JOB_SUMMARIES.items():
        _add_job(commands, name, summary)
    _add_gpu(commands)
    _add_compare(commands)
    _add_verify(commands)
    return parser


_JOB_SUMMARIES = {
    "measure": "measure one point",
    "ceilings": "measure STREAM and GEMM of one layout",
    "gate": "judge one method against the oracle",
    "compile": "compile one method into the JIT cache",
    "environment": "describe this machine",
}


def _add_plan(commands) -> None:
    command = commands.add_parser("plan", help="show the points of a config and what they will cost")
    command.add_argument("config", nargs="?", default="config.yaml")
    command.add_argument("--csv", type=Path, help="also write the table as CSV")
    command.set_defaults(run=_plan)


def _plan(options) -> None:
    from streaming_attention.campaign.config import load_config
    from streaming_attention.campaign.plan import make_plan

    plan = make_plan(load_config(options.config))
    print(plan.to_text())
    if options.csv:
        from streaming_attention.campaign.files import write_atomically

        write_atomically(options.csv, plan.to_csv())


def _add_cluster(commands) -> None:
    command = commands.add_parser("cluster", help="show the partitions of a SLURM cluster and what is free")
    command.set_defaults(run=_cluster)


def _cluster(options) -> None:
    from streaming_attention.machine.slurm import Cluster
    from streaming_attention.machine.slurm.overview import overview

    print(overview(Cluster()))


def _add_job(commands, name: str, summary: str) -> None:
    command = commands.add_parser(name, help=summary)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--spec", type=json.loads, help="the job as JSON")
    source.add_argument("--from", dest="source", type=Path, help="repeat the job of an existing record")
    command.add_argument("--output", type=Path, help="the record to write (default: print a summary, keep nothing)")
    command.add_argument("--log", type=Path, help="file that receives what the ranks print")
    command.add_argument("--gate", nargs="*", default=[], help="gate records; methods that did not pass are not timed")
    command.add_argument("--launcher", default=launch.MPIEXEC, help="command line that starts the ranks")
    command.add_argument("--limit", type=float, help="seconds after which the job is ended")
    command.add_argument("--plan", type=Path, help="plan.csv, for the progress line")
    command.set_defaults(run=_run_job)


def _run_job(options) -> None:
    job = options.spec if options.spec else specs.from_record(load_record(options.source))
    with tempfile.TemporaryDirectory(prefix="streaming-attention-") as scratch:
        output = options.output or Path(scratch) / f"{job['id']}.json"
        log = options.log or output.with_suffix(".log")
        job |= {"output": str(output), "log": str(log), "refused": refused_methods(options.gate)}
        job["repeat_command"] = f"streaming-attention {options.command} --from {shlex.quote(str(output))}"
        record = launch.run_job(options.command, job, options.launcher, options.limit)
        if options.plan and options.plan.exists():
            print(progress_line(record, options.plan, output.parent), file=sys.stderr, flush=True)
        elif not options.output:
            from streaming_attention.campaign.describe import summarise

            print(summarise(record))


def _add_gpu(commands) -> None:
    command = commands.add_parser("gpu", help="compile the Triton kernels for GPUs; nothing is run on one")
    command.add_argument("--output", type=Path, default=Path("gpu.json"), help="the JSON file to write")
    command.set_defaults(run=_gpu)


def _gpu(options) -> None:
    from streaming_attention.campaign.files import write_json
    from streaming_attention.campaign.gpu import compile_all

    write_json(options.output, compile_all())


def _add_compare(commands) -> None:
    command = commands.add_parser("compare", help="judge one campaign against another, point by point")
    command.add_argument("base", type=Path, help="tables/measurements.csv of the one")
    command.add_argument("other", type=Path, help="tables/measurements.csv of the other")
    command.add_argument("--output", type=Path, default=Path("comparison"), help="files OUTPUT.csv, .html and .svg")
    command.set_defaults(run=_compare)


def _compare(options) -> None:
    from streaming_attention.campaign.compare import compare, read_measurements, write_comparison

    comparison = compare(read_measurements(options.base), read_measurements(options.other))
    write_comparison(comparison, *(options.output.with_suffix(kind) for kind in (".csv", ".html", ".svg")))
    print(comparison.rows["verdict"].value_counts().to_string())


def _add_verify(commands) -> None:
    command = commands.add_parser("verify", help="walk every figure of a campaign back to its records and logs")
    command.add_argument("campaign", type=Path, help="its folder, results/NAME")
    command.set_defaults(run=_verify)


def _verify(options) -> int:
    from streaming_attention.campaign.provenance import verify

    problems = verify(options.campaign)
    print("\n".join(problems or ["every figure leads back to its records and logs"]))
    return int(bool(problems))
