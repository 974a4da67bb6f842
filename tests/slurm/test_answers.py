"""The package's answers about a real cluster."""

import json
import sys
import textwrap
import time

import pytest

PRINT = "import json; from streaming_attention.machine.slurm import Cluster; cluster = Cluster()\n"


def ask(rig, code: str, **options):
    """What a piece of Python prints on the login node, as JSON."""
    done = rig.run(sys.executable, "-c", PRINT + textwrap.dedent(code), **options)
    return json.loads(done.stdout)


def test_the_machine_is_what_was_declared(cluster):
    machine = ask(cluster, "print(json.dumps(cluster.machine().as_config()))")
    assert machine["nodes"] == 4
    assert (machine["sockets_per_node"], machine["cores_per_socket"], machine["threads_per_core"]) == (2, 1, 1)
    assert machine["memory_gib"] == 3.9


def test_a_feature_picks_nodes(cluster):
    assert ask(cluster, "print(json.dumps(cluster.machine(constraint='node2').nodes))") == 1


def test_queue_and_expected_start(cluster):
    submit = ["sbatch", "--parsable", "--nodes=4", "--exclusive", "--time=5", "--output=/dev/null", "--wrap=sleep 60"]
    job = cluster.run(*submit).stdout.strip()
    cluster.wait(lambda: cluster.jobs().get(job, "").startswith("RUNNING"), "running job")
    try:
        found = ask(
            cluster,
            """
            (job,) = cluster.queue()
            free = sum(node.free for node in cluster.nodes())
            print(json.dumps([job.id, job.state, job.nodes, free, cluster.start_of("--nodes=1", "--exclusive")]))
            """,
        )
    finally:
        cluster.run("scancel", job)
    assert found[:4] == [job, "running", 4, 0]
    assert 0 < found[4] - time.time() <= 300, "when the job that holds every node reaches its limit"


def test_a_job_that_would_be_refused(cluster):
    with pytest.raises(RuntimeError, match=r"SlurmError: sbatch .*allocation failure"):
        ask(cluster, "cluster.start_of('--nodes=5')")


def test_accounting(accounted_cluster):
    spin = "import time\nwhile time.process_time() < 3: pass"
    submit = ["sbatch", "--parsable", "--wait", "--output=/dev/null", f"--wrap={sys.executable} -c '{spin}'"]
    job = accounted_cluster.run(*submit).stdout.strip()
    code = f"""
        (account,) = cluster.accounts(["{job}"]).values()
        used = [account.cpu_seconds, account.elapsed_seconds * account.cpus]
        print(json.dumps([account.state, *used, account.efficiency, account.max_rss_bytes, account.nodes]))
        """
    accounted_cluster.wait(lambda: ask(accounted_cluster, code)[0] == "completed", "accounting of the job")
    _, used, had, efficiency, peak, nodes = ask(accounted_cluster, code)
    assert 2.5 < used < 10  # what it spins for, and Python's start
    assert efficiency == pytest.approx(used / had)
    assert efficiency <= 1.1
    assert 1e6 < peak < 1e8
    assert nodes == "node1"


def test_no_accounting_is_empty(cluster):
    assert ask(cluster, "print(json.dumps(cluster.accounts(['1'])))") == {}


def test_outside_a_cluster_the_missing_command_is_named(cluster, tmp_path):
    with pytest.raises(RuntimeError, match="SlurmMissing: sinfo: not on the path"):
        ask(cluster, "cluster.queue()", env={"PATH": str(tmp_path)})
