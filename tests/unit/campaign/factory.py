"""Sealed records with made-up but plausible numbers, and campaign folders made of them."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

import numpy as np

from streaming_attention.bandwidth.network import PROBES
from streaming_attention.campaign.plan import Row
from streaming_attention.campaign.record import seal, write_record
from streaming_attention.machine.layout import Layout
from streaming_attention.workload import Workload

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROTOCOL = {"warmup": 2, "min_samples": 9, "max_samples": 40, "confidence": 0.95, "seed": 1, "cache": "hot"}
FOLDERS = {"attention": "records", "ceilings": "ceilings", "gate": "gate", "environment": "."}
"""Where records of a kind lie in a campaign's folder."""
GIGAFLOPS = {"naive": 1.4, "gemm": 60.0, "streaming": 14.0, "torch_sdpa": 85.0}
"""Made-up speed of one thread."""


def query(keys: int = 1024, **changes) -> Workload:
    return Workload("query", queries=1, keys=keys, **changes)


def prefill(keys: int = 1024, **changes) -> Workload:
    shape = {"heads": 16, "kv_heads": 8, "causal": True, **changes}
    return Workload("prefill", queries=keys, keys=keys, **shape)


def flops_of(workload: Workload) -> float:
    pairs = workload.queries * workload.keys / (2 if workload.causal and workload.queries > 1 else 1)
    return 4.0 * workload.batch * workload.heads * pairs * workload.head_dim


def bytes_of(workload: Workload) -> int:
    w = workload
    return 4 * w.batch * w.head_dim * (2 * w.heads * w.queries + 2 * w.kv_heads * w.keys)


def bandwidth_of(layout: Layout) -> float:
    sockets = layout.nodes * layout.sockets
    return sockets * min(36.0, 12.0 * (layout.workers / sockets) ** 0.75)


def entry(
    method: str,
    workload: Workload,
    layout: Layout,
    *,
    options: dict | None = None,
    status: str = "passed",
    reason: str | None = None,
    samples: list[float] | None = None,
    count: int = 12,
    rng: np.random.Generator | None = None,
) -> dict:
    """One method of an attention record."""
    options = options or {}
    label = " ".join([method, *(f"{key}={value}" for key, value in options.items())])
    if status == "passed" and samples is None:
        samples = list(
            _seconds(method, options, workload, layout) * (rng or np.random.default_rng(0)).lognormal(0.0, 0.03, count)
        )
    samples = [float(value) for value in samples or []]
    error = 3e-7 * (1.0 if status == "passed" else 1e5) * {"naive": 1.0, "gemm": 0.6}.get(method, 0.4)
    checked = status in ("passed", "incorrect")
    return {
        "method": method,
        "options": options,
        "label": label,
        "status": status,
        "reason": None if status == "passed" else reason or f"{method} was made to end as {status}",
        "kernel": f"{method} loops" if status == "passed" else None,
        "digest": "sha256:" + "0" * 64,
        "error_before": _error(error, status) if checked else None,
        "error_after": _error(1.1 * error, status) if status == "passed" else None,
        "jit_seconds": 0.8 if checked else None,
        "calls_per_sample": 1 if samples else None,
        "samples": samples,
        "starts": [float(value) for value in np.cumsum([0.0, *samples[:-1]])] if samples else [],
        "compute": [0.95 * value for value in samples],
        "communication": [0.05 * value for value in samples],
        "converged": True if samples else None,
        "memory": _memory(method, workload, layout) if checked else None,
        **({"timeline": _timeline(samples[0], layout)} if samples and layout.ranks > 1 else {}),
        "flops": flops_of(workload),
        "bytes": float(bytes_of(workload)),
    }


def _timeline(seconds: float, layout: Layout) -> list[dict]:
    """Every rank computes, then waits; the later the rank, the longer it computes."""
    ranks = []
    for rank in range(layout.ranks):
        turn, end = 0.9 * seconds * (rank + 1) / layout.ranks, seconds * (1 - 0.05 * (rank == 0))
        stages = [
            {"kind": "compute", "label": "own keys", "start": 0.0, "end": turn},
            {"kind": "communication", "label": "wait for block 1", "start": turn, "end": end},
        ]
        spent = {"compute": turn, "communication": end - turn, "idle": seconds - end}
        ranks.append({"rank": rank, **spent, "stages": stages})
    return ranks


def attention(
    workload: Workload, layout: Layout, methods: list[dict], repeat: int = 0, campaign: str = "workstation", **changes
) -> dict:
    """A sealed attention record; ``changes`` replace keys of it."""
    name = f"{workload.slug}-{layout.slug}-rep{repeat}"
    record = {
        **_head("attention", name, campaign, layout, "measure_attention"),
        "workload": workload.as_dict(),
        "layout": layout.as_dict(),
        "repeat": repeat,
        "protocol": PROTOCOL,
        "predicted_seconds": 4.0,
        "methods": methods,
    }
    return seal({**record, **changes})


def ceilings(layout: Layout, campaign: str = "workstation", scale: float = 1.0, **changes) -> dict:
    """A sealed ceilings record of one layout."""
    rng = np.random.default_rng(layout.workers)
    rates = {"copy": 0.9, "scale": 0.88, "add": 0.95, "triad": 1.0, "read": 1.15}
    rates = {name: scale * share * bandwidth_of(layout) for name, share in rates.items()}
    entries = [_ceiling(name, "GB/s", rate, rng) for name, rate in rates.items()]
    flats = {"gemm_fp32": 90.0, "fma_fp32": 110.0, "dot_bf16": 220.0}
    entries += [_ceiling(name, "GFLOP/s", rate * layout.workers, rng) for name, rate in flats.items()]
    if layout.ranks > 1:
        entries += [_ceiling(one.name, one.unit, {"us": 20.0, "GB/s": 3.0}[one.unit], rng) for one in PROBES]
    name = f"ceilings-{layout.slug}"
    record = {
        **_head("ceilings", name, campaign, layout, "measure_ceilings"),
        "layout": layout.as_dict(),
        "protocol": {},
        "ceilings": entries,
    }
    return seal({**record, **changes})


def gate(method: str, mode: str = "threads", status: str = "passed", campaign: str = "workstation") -> dict:
    """A sealed gate record of one method in fp32."""
    name = f"{method}-fp32-{mode}"
    return seal(
        {
            **_head("gate", name, campaign, Layout(), "validate_method"),
            "method": method,
            "dtype": "fp32",
            "mode": mode,
            "options": [{}],
            "layout": Layout(threads=2, binding="none").as_dict(),
            "sources_digest": "sha256:" + "0" * 64,
            "status": status,
            "reason": None if status == "passed" else "made wrong on purpose",
            "cases": [],
        }
    )


def environment(campaign: str = "workstation") -> dict:
    """A sealed environment record."""
    return seal(
        {
            **_head("environment", "environment", campaign, Layout(), "probe_environment"),
            "layout": Layout(binding="none").as_dict(),
            "machine": {
                "cores_per_socket": 2,
                "memory_gib": 23.4,
                "nodes": 1,
                "caches": [
                    {
                        "level": 1,
                        "kind": "data",
                        "size_bytes": 49152,
                        "line_bytes": 64,
                        "shared_by": 1,
                        "instances": 2,
                    }
                ],
            },
        }
    )


def small_campaign() -> list[dict]:
    """Two workloads on three layouts, two repeats; over ranks all methods but one are infeasible, one times out."""
    return workstation(keys=(1024, 4096, 65536), repeats=2)


def workstation(keys=(1024, 4096, 16384, 65536), repeats: int = 3) -> list[dict]:
    """Records shaped like the default campaign on two cores."""
    layouts = [Layout(threads=1), Layout(threads=2), Layout(ranks_per_socket=2, threads=1)]
    records = [ceilings(layout) for layout in layouts]
    for layout in layouts:
        for length in keys:
            for workload in (query(length), prefill(length))[: 1 + (length <= 8192)]:
                for repeat in range(repeats):
                    methods = _default_methods(workload, layout, repeat)
                    records.append(attention(workload, layout, methods, repeat))
    return records


def published_experiment(repeats: int = 1) -> list[dict]:
    """Records shaped like the published experiment: 7 lengths, 3 blocks, 8 thread counts, ranks x threads."""
    lengths = [1024 << step for step in range(7)]
    threads = [Layout(threads=count) for count in (1, 2, 4, 8, 16, 26, 32, 52)]
    hybrid = [
        Layout(nodes=max(1, ranks // 2), sockets=min(2, ranks), threads=count)
        for ranks in (2, 4, 8, 16)
        for count in (1, 2, 4, 8, 16, 26, 32)
    ]
    records = [ceilings(layout, "published") for layout in threads + hybrid]
    for layout in threads + hybrid:
        for length in lengths:
            for repeat in range(repeats):
                methods = _published_methods(query(length), layout, repeat)
                records.append(attention(query(length), layout, methods, repeat, "published"))
    return records


def plan_of(records: list[dict], unfinished: list[dict] = ()) -> list[dict[str, str]]:
    """Rows of the plan.csv that the records follow, and points that have no record."""
    points = [record for record in [*records, *unfinished] if record["kind"] == "attention"]
    return [_plan_row(record) for record in points]


def write_plan(path: Path, rows: list[dict[str, str]]) -> None:
    """Write plan.csv with the columns of the real one."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [column.name for column in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_campaign(folder: Path, records: list[dict]) -> Path:
    """Lay records and their logs out as a campaign folder does."""
    for record in records:
        directory = folder / FOLDERS[record["kind"]]
        stem = record["id"].removeprefix("ceilings-") if record["kind"] == "ceilings" else record["id"]
        write_record(directory / f"{stem}.json", record)
        log = folder / Path(*Path(record["log"]).parts[2:])
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"log of {record['id']}\n")
    return folder


def gates_of(records: list[dict]) -> list[dict]:
    """Passed gates of every method of the records, in every mode they use."""
    modes = {
        (one["method"], "ranks" if Layout(**record["layout"]).ranks > 1 else "threads")
        for record in records
        if record["kind"] == "attention"
        for one in record["methods"]
    }
    return [gate(method, mode, campaign=records[0]["campaign"]) for method, mode in sorted(modes)]


def _default_methods(workload: Workload, layout: Layout, repeat: int) -> list[dict]:
    rng = np.random.default_rng([workload.keys, workload.queries, layout.ranks, layout.threads, repeat])
    drift = rng.lognormal(0.0, 0.04)
    entries = []
    for method, options in (("naive", {}), ("gemm", {}), ("streaming", {"block": 64}), ("streaming", {"block": 128}),
                            ("streaming", {"block": 256}), ("torch_sdpa", {})):  # fmt: skip
        status, reason = "passed", None
        if layout.ranks > 1 and method != "streaming":
            status, reason = "infeasible", f"{method} runs in one process, the layout has {layout.ranks} ranks"
        elif method == "naive" and workload.name == "prefill" and workload.keys >= 4096:
            status, reason = "timeout", "no 3 samples within 20 s"
        one = entry(method, workload, layout, options=options, status=status, reason=reason, rng=rng)
        one["samples"] = [drift * value for value in one["samples"]]
        entries.append(one)
    return entries


def _published_methods(workload: Workload, layout: Layout, repeat: int) -> list[dict]:
    rng = np.random.default_rng([workload.keys, layout.ranks, layout.threads, repeat])
    methods = [("streaming", {"block": block}) for block in (64, 128, 256)]
    if layout.ranks == 1:
        methods = [("naive", {}), ("gemm", {}), *methods]
    return [entry(method, workload, layout, options=options, rng=rng) for method, options in methods]


def _seconds(method: str, options: dict, workload: Workload, layout: Layout) -> float:
    compute = flops_of(workload) / (1e9 * GIGAFLOPS[method] * layout.workers**0.9)
    memory = bytes_of(workload) / (1e9 * bandwidth_of(layout) * (0.9 if method == "streaming" else 0.7))
    overhead = 4e-6 * layout.workers**0.5 + (2e-5 * np.log2(layout.ranks) if layout.ranks > 1 else 0.0)
    if workload.queries == 1:
        compute /= 4
    penalty = {64: 1.04, 256: 1.02}.get(options.get("block"), 1.0)
    return penalty * (max(compute, memory) + overhead)


def _error(value: float, status: str) -> dict:
    return {
        "relative_l2": value,
        "max_abs": 4 * value,
        "plain_relative_l2": 3.2e-7,
        "plain_max_abs": 1.3e-6,
        "limit_relative_l2": 6.4e-7,
        "limit_max_abs": 2.6e-6,
        "rows": 64,
        "passed": status == "passed",
    }


def _memory(method: str, workload: Workload, layout: Layout) -> dict:
    scores = 4 * workload.batch * workload.heads * workload.queries * workload.keys
    workspace = scores if method == "gemm" else 65536 * layout.threads
    tensors = bytes_of(workload)
    return {
        "tensors_bytes": tensors,
        "workspace_bytes": workspace,
        "peak_bytes": tensors + workspace + 2**20,
        "model_bytes": tensors + workspace,
    }


def _ceiling(name: str, unit: str, rate: float, rng: np.random.Generator) -> dict:
    return {
        "name": name,
        "unit": unit,
        "status": "passed",
        "reason": None,
        "samples": [float(value) for value in rate * rng.lognormal(0.0, 0.02, 10)],
        "elements": 1 << 24,
        "work_per_call": 2.0 * 4 * (1 << 24),
        "error": 0.0,
        "jit_seconds": 0.4,
    }


def _plan_row(record: dict) -> dict[str, str]:
    layout = Layout(**record["layout"])
    workload = dict(record["workload"])
    refused = [one for one in record["methods"] if one["status"] == "infeasible"]
    row = {
        "id": record["id"],
        "status": "planned",
        "workload": workload.pop("name"),
        **workload,
        **record["layout"],
        "ranks": layout.ranks,
        "repeat": record["repeat"],
        "methods": "; ".join(one["label"] for one in record["methods"]),
        "infeasible": "; ".join(one["label"] for one in refused),
        "reasons": "; ".join(f"{one['label']}: {one['reason']}" for one in refused),
    }
    return {column.name: str(row.get(column.name, "")) for column in fields(Row)}


def _head(kind: str, name: str, campaign: str, layout: Layout, rule: str) -> dict:
    folder = FOLDERS[kind]
    return {
        "schema": 1,
        "kind": kind,
        "id": name,
        "campaign": campaign,
        "started": "2026-11-21T09:00:00Z",
        "seconds": 12.3,
        "environment": _environment(layout),
        "log": f"results/{campaign}/logs/{rule}/{name.removeprefix('ceilings-')}.log",
        "repeat_command": f"streaming-attention measure --from results/{campaign}/{folder}/{name}.json",
    }


def _environment(layout: Layout) -> dict:
    return {
        "commit": COMMIT,
        "dirty": False,
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "packages": {"numpy": "2.4.6", "numba": "0.68.1"},
        "variables": {"set": {"OMP_NUM_THREADS": str(layout.threads)}, "removed": {"OPENBLAS_CORETYPE": "Haswell"}},
        "threading_layer": "workqueue",
        "blas": [{"internal_api": "openblas", "version": "0.3.30"}],
        "mpi": "MPICH 5.0.2" if layout.ranks > 1 else None,
        "ranks": [_rank(rank, layout) for rank in range(layout.ranks)],
    }


def _rank(rank: int, layout: Layout) -> dict:
    return {
        "rank": rank,
        "host": f"n{rank // layout.ranks_per_node + 1}",
        "mask": list(range(layout.threads)),
        "socket": 0,
        "numa_node": 0,
        "cpu": "AMD EPYC 9B45",
        "isa": ["avx2", "avx512f"],
        "governor": None,
        "digest": "sha256:" + "0" * 64,
        "memory_gib": 23.4,
        "pid": 4000 + rank,
        "slurm_job_id": None,
        "slurm_step_id": None,
        "threads_bound": 1,
    }
