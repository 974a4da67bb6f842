from streaming_attention.machine.layout import Layout
from streaming_attention.machine.slurm import allocation

HYBRID = Layout(nodes=4, sockets=2, threads=13)


def test_what_mpiexec_reads_is_put_back(monkeypatch):
    monkeypatch.setattr(allocation, "run", lambda *words: f"node[1-4] of {words[3]}\n")
    found = allocation.allocation_variables(HYBRID, {"SLURM_JOB_ID": "17"})
    assert found["SLURM_JOB_NODELIST"] == "node[1-4] of 17"
    assert (found["SLURM_NTASKS"], found["SLURM_TASKS_PER_NODE"], found["SLURM_CPUS_PER_TASK"]) == ("8", "2(x4)", "13")


def test_nothing_is_asked_outside_a_job_or_where_all_is_there(monkeypatch):
    monkeypatch.setattr(allocation, "run", None)
    assert allocation.allocation_variables(HYBRID, {}) == {}
    assert allocation.allocation_variables(HYBRID, {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n1"}) == {}
