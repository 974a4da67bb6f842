"""The rig itself: what the other tests of this folder stand on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rig as rig_module
from rig import Rig


def start_from_another_process(script: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(Path(rig_module.__file__).parent)!r})\nfrom rig import Rig\n{script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    return done.stdout.strip()


def daemons_of(folder: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if any(folder in word for word in words):
            found.append(" ".join(words))
    return found


def test_every_node_is_a_host_of_its_own(cluster):
    out = cluster.run("srun", "--nodes=4", "--ntasks=4", "--label", "hostname").stdout
    assert sorted(line.split()[1] for line in out.splitlines()) == ["node1", "node2", "node3", "node4"]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU can't be two sockets")
def test_ranks_are_bound_to_different_cpus(cluster):
    show = "import os; print(sorted(os.sched_getaffinity(0)))"
    out = cluster.run("srun", "-n", "2", "-N", "1", "--cpu-bind=cores", sys.executable, "-c", show).stdout
    masks = out.split("\n")[:2]
    assert masks[0] != masks[1]
    assert all(len(mask.split(",")) == 1 for mask in masks)


def test_temporary_files_stay_on_their_node(cluster):
    cluster.run("srun", "--nodelist=node1", "sh", "-c", "touch $TMPDIR/mine")
    found = cluster.run("srun", "--nodes=4", "--label", "sh", "-c", "hostname; ls $TMPDIR").stdout
    assert found.count("mine") == 1
    assert not (cluster.local / "mine").exists()


def test_shared_memory_is_shared_on_a_node_only(cluster):
    cluster.run("srun", "--nodelist=node1", "touch", "/dev/shm/of-one-node")
    found = cluster.run("srun", "--nodes=4", "ls", "/dev/shm").stdout
    assert found.count("of-one-node") == 1


def test_configuration_is_found_without_variables(cluster):
    out = cluster.run("env", "-i", "/usr/bin/scontrol", "show", "config").stdout
    assert "ClusterName             = rig" in out


def test_starting_and_stopping_twice_is_starting_and_stopping_once(cluster):
    rig = Rig(nodes=1)
    folder = rig.start().folder
    try:
        assert rig.start().folder == folder
        assert rig.states() == {"node1": "idle"}
    finally:
        rig.stop()
    rig.stop()
    assert not folder.exists()
    assert daemons_of(str(folder)) == []


def test_clusters_do_not_see_each_other(cluster):
    with Rig(nodes=1, sockets=1) as other:
        job = other.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 30").stdout.strip()
        other.wait(lambda: other.jobs().get(job, "").startswith("RUNNING"), "running job")
        assert cluster.jobs() == {}


def test_a_killed_test_process_leaves_no_daemon_and_no_folder(cluster):
    folder = start_from_another_process("print(Rig(1).start().folder, flush=True); import os; os.kill(os.getpid(), 9)")
    end = time.monotonic() + 20
    while daemons_of(folder) and time.monotonic() < end:
        time.sleep(0.1)
    assert daemons_of(folder) == []
    with Rig(nodes=1):
        assert not Path(folder).exists()


def test_power_off_ends_what_runs_on_a_node(cluster):
    with Rig(nodes=2) as rig:
        mark = rig.folder / "alive"
        job = f"touch {mark}; trap '' TERM; while touch {mark}; do sleep 0.1; done"
        rig.run("sbatch", "--nodelist=node2", "--output=/dev/null", f"--wrap={job}")
        rig.wait(mark.exists, "job on node2")
        rig.power_off("node2")
        mark.unlink(missing_ok=True)
        time.sleep(1)
        assert not mark.exists()
        assert rig.run("srun", "--nodelist=node1", "hostname").stdout == "node1\n"


def test_accounting_remembers_jobs(accounted_cluster):
    submit = ["sbatch", "--parsable", "--wait", "--output=/dev/null", "--wrap=exit 3"]
    job = accounted_cluster.run(*submit, check=False).stdout.strip()
    ask = ["sacct", "-n", "-X", "-P", "-j", job, "-o", "state,exitcode"]
    accounted_cluster.wait(lambda: accounted_cluster.run(*ask).stdout == "FAILED|3:0\n", "accounting of the job")


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rig_module, "DAEMONS", ("slurm-that-is-not-there",))
    assert "slurm-that-is-not-there" in rig_module.missing()
