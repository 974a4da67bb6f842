import copy
import json

import pytest

from streaming_attention.campaign.record import RecordError, digest, load_record, write_record


def attention_record():
    rank = {
        "rank": 0,
        "host": "n1",
        "mask": [0],
        "socket": 0,
        "numa_node": 0,
        "cpu": "test",
        "isa": ["avx2"],
        "governor": None,
        "digest": "d",
        "memory_gib": 1.0,
        "pid": 1,
        "slurm_job_id": None,
        "slurm_step_id": None,
        "threads_bound": 1,
    }
    error = {
        "relative_l2": 1e-7,
        "max_abs": 1e-7,
        "plain_relative_l2": 1e-7,
        "plain_max_abs": 1e-7,
        "limit_relative_l2": 1e-6,
        "limit_max_abs": 1e-6,
        "rows": 4,
        "passed": True,
    }
    method = {
        "method": "naive",
        "options": {},
        "label": "naive",
        "status": "passed",
        "reason": None,
        "kernel": "k",
        "digest": "d",
        "error_before": error,
        "error_after": error,
        "jit_seconds": 0.1,
        "calls_per_sample": 1,
        "samples": [0.1, 0.2],
        "starts": [0.0, 0.1],
        "compute": [0.1, 0.2],
        "communication": [0.0, 0.0],
        "converged": True,
        "memory": None,
        "flops": 1,
        "bytes": 1,
    }
    return {
        "schema": 1,
        "kind": "attention",
        "id": "query-x",
        "campaign": "c",
        "started": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        "log": "l",
        "repeat_command": "r",
        "predicted_seconds": None,
        "environment": {
            "commit": None,
            "dirty": None,
            "python": "3.11",
            "platform": "p",
            "packages": {},
            "variables": {"set": {}, "removed": {}},
            "threading_layer": None,
            "blas": [],
            "mpi": None,
            "ranks": [rank],
        },
        "workload": {
            "name": "query",
            "batch": 1,
            "heads": 1,
            "kv_heads": 1,
            "queries": 1,
            "keys": 8,
            "head_dim": 4,
            "causal": False,
            "dtype": "fp32",
        },
        "layout": {"nodes": 1, "sockets": 1, "ranks_per_socket": 1, "threads": 1, "binding": "cores"},
        "repeat": 0,
        "protocol": {},
        "methods": [method],
    }


def test_what_is_written_is_what_is_read(tmp_path):
    written = write_record(tmp_path / "r.json", attention_record())
    assert load_record(tmp_path / "r.json") == written
    assert written["digest"] == digest(attention_record())


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_truncated_record_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "r.json"
    write_record(path, attention_record())
    path.write_text(path.read_text()[:keep])
    with pytest.raises(RecordError, match=r"r\.json"):
        load_record(path)


def test_a_changed_number_shows(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, attention_record())
    record = json.loads(path.read_text())
    record["methods"][0]["samples"][0] = 0.01
    path.write_text(json.dumps(record))
    with pytest.raises(RecordError, match="digest"):
        load_record(path)


def broken(change):
    record = copy.deepcopy(attention_record())
    change(record)
    return record


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.update(kind="rumour"), "kind: 'rumour'"),
        (lambda r: r.pop("layout"), "'layout' is a required property"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r["methods"][0].update(status="great"), "methods/0/status"),
        (lambda r: r["methods"][0].update(samples=[-1.0, 0.2]), "methods/0/samples"),
        (lambda r: r["methods"][0].update(samples=[0.1]), "unequal length"),
        (lambda r: r["methods"][0].update(samples=[], starts=[], compute=[], communication=[]), "without a sample"),
        (lambda r: r["methods"][0].update(status="incorrect", reason="wrong"), "no samples"),
        (lambda r: r["environment"].update(ranks=[]), "ranks"),
    ],
)
def test_a_record_against_the_schema_is_never_written(tmp_path, change, complaint):
    with pytest.raises(RecordError, match=complaint):
        write_record(tmp_path / "r.json", broken(change))
    assert list(tmp_path.iterdir()) == []
