"""What clusters do to a campaign: every fault ends with a message that says what happened and without a record, and the
same call, once the fault is gone, measures what is missing."""

import signal
import time
from pathlib import Path

import pytest
from campaigns import POINT, resources

from streaming_attention.campaign.record import load_record

ONE, TWO = POINT.format(layout="n1s1r1t1"), POINT.format(layout="n1s2r1t1")
SLURM_COMMANDS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
SLOW = "bash -c 'sleep 600' {ranks}"


def fails(project, target: str, *arguments: str, **options) -> str:
    """What Snakemake says of a point that can't be measured."""
    done = project.snakemake(*arguments, "--", target, check=False, **options)
    assert done.returncode != 0
    assert not (project.work / target).exists(), "a false record"
    return done.stdout


def completes(project, target: str) -> dict:
    """The record that the next call, without any fault, leaves behind; its queue is empty then."""
    project.snakemake("--", target)
    assert project.rig.jobs() == {}
    record = load_record(project.work / target)
    assert [entry["status"] for entry in record["methods"]] == ["passed"]
    return record


def wait_for_job(project) -> str:
    """The id of the first job that runs."""
    running = lambda: [job for job, state in project.rig.jobs().items() if state.startswith("RUNNING")]  # noqa: E731
    project.rig.wait(running, "running job")
    time.sleep(3)  # until Snakemake has started the point inside
    return running()[0]


def said(project, process, seconds: float = 200) -> str:
    """The output of a Snakemake process that ends by itself, and not well."""
    assert process.wait(seconds) != 0
    return project.output.read_text()


HUNGRY = "python3 -c 'import time; x = bytearray(900_000_000); time.sleep(60)' {ranks}"
FAULTS = {
    "a failing launcher": (TWO, resources("bash -c 'exit 3' {ranks}"), ["exit code 3"]),
    "no MPI": (
        TWO,
        resources("srun --mpi=none -n {ranks} -c {threads}"),
        ["the communicator has 1 ranks, the layout 2: does the launcher fit the MPI?"],
    ),
    "an unknown MPI": (TWO, resources("srun --mpi=nonsense -n {ranks}"), ["nonsense", "srun: error"]),
    "ranks without cores of their own": (
        TWO,
        resources("srun --mpi=pmi2 -n {ranks} --cpu-bind=none"),
        ["BindingError"],
    ),
    "more time than predicted": (TWO, resources(limit=1), ["ended at its time limit of 1 s"]),
    "the time limit of SLURM": (TWO, resources(SLOW, runtime=1), ["DUE TO TIME LIMIT", "status is: 'TIMEOUT'"]),
    "too little memory": (TWO, resources(HUNGRY, mem_mb=600), ["Exceeded job memory limit"]),
    "an unknown partition": (
        ONE,
        ["--default-resources", "slurm_partition=nonsense"],
        ["invalid partition specified: nonsense"],
    ),
}
"""What is measured, what goes wrong with it, and what must be said."""


@pytest.fixture(scope="module")
def faulty(judged, tmp_path_factory):
    """All of them at once: most of their time is waiting."""
    copies = {}
    for name, (target, words, _) in FAULTS.items():
        copy = judged.copy(tmp_path_factory.mktemp("faulty"))
        copy.rig = judged.rig
        copies[name] = copy, copy.start(*words, "--", target)
    for _, process in copies.values():
        process.wait(400)
    return copies


@pytest.mark.parametrize("name", FAULTS)
def test_what_went_wrong_is_said_and_nothing_is_recorded(faulty, name):
    target, _, said = FAULTS[name]
    copy, process = faulty[name]
    text = copy.output.read_text()
    assert process.returncode == 1
    assert [words for words in said if words not in text] == [], text[-5000:]
    assert not (copy.work / target).exists(), "a false record"


def test_the_next_call_completes(faulty):
    copies = [copy for copy, _ in faulty.values()]
    processes = [copy.start("--", target) for copy, (target, _, _) in zip(copies, FAULTS.values(), strict=True)]
    assert [process.wait(400) for process in processes] == [0] * len(FAULTS)
    for copy, (target, _, _) in zip(copies, FAULTS.values(), strict=True):
        record = load_record(copy.work / target)
        assert [entry["status"] for entry in record["methods"]] == ["passed"]


def test_a_cancelled_job(project):
    process = project.start(*resources(SLOW), "--", TWO)
    project.rig.run("scancel", wait_for_job(project))
    text = said(project, process)
    assert "SLURM status is: 'CANCELLED'" in text
    assert not (project.work / TWO).exists()
    completes(project, TWO)


def test_a_node_that_goes_down(project):
    process = project.start(*resources(SLOW), "--", TWO)
    job = wait_for_job(project)
    node = project.rig.run("squeue", "-h", "-j", job, "-o", "%B").stdout.strip()
    project.rig.power_off(node)
    text = said(project, process)
    assert "SLURM status is: 'NODE_FAIL'" in text
    assert not (project.work / TWO).exists()
    record = completes(project, TWO)  # on another node
    assert node not in {rank["host"] for rank in record["environment"]["ranks"]}


def test_a_killed_controller(project):
    process = project.start(*resources(SLOW), "--", TWO)
    job = wait_for_job(project)
    refused = project.rig.popen(
        project.command("--", TWO), cwd=project.work, env=project.environment, stderr=-1, text=True
    )
    assert "another run is at work here" in refused.communicate(timeout=60)[1]
    process.kill()
    process.wait()
    assert list(project.rig.jobs()) == [job], "the job outlives its controller"
    record = completes(project, TWO)
    assert f"cancelled jobs of an earlier run: {job}" in project.output.read_text()
    assert record["environment"]["ranks"][0]["slurm_job_id"] != job


def test_an_interrupted_controller_takes_its_jobs_along(project):
    process = project.start(*resources(SLOW), "--", TWO)
    wait_for_job(project)
    project.rig.signal(process, signal.SIGINT)
    process.wait(100)
    project.rig.wait(lambda: project.rig.jobs() == {}, "empty queue")
    completes(project, TWO)


def test_a_full_cluster_is_waited_for(project):
    submit = ["sbatch", "--parsable", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"]
    other = project.rig.run(*submit).stdout.strip()
    project.rig.wait(lambda: project.rig.jobs()[other].startswith("RUNNING"), "job that takes every node")
    process = project.start("--", ONE)
    project.rig.wait(lambda: len(project.rig.jobs()) == 2, "job in the queue")
    assert sorted(state.split()[0] for state in project.rig.jobs().values()) == ["PENDING", "RUNNING"]
    project.rig.run("scancel", other)
    assert process.wait(200) == 0
    load_record(project.work / ONE)


def test_slurmctld_that_dies_and_comes_back(project):
    process = project.start("--", TWO)
    project.rig.save(wait_for_job(project))
    project.rig.kill_controller()
    project.rig.start_controller()
    try:
        process.wait(200)
    finally:
        process.kill()
    completes(project, TWO)


def test_no_slurm_on_the_path(project, tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    for folder in map(Path, ("/usr/bin", "/bin")):
        for command in folder.iterdir():
            if command.name not in SLURM_COMMANDS and not (commands / command.name).exists():
                (commands / command.name).symlink_to(command)
    text = fails(project, ONE, env=project.environment | {"PATH": str(commands)})
    assert "squeue: not on the path; is this a login node of a SLURM cluster" in text


def test_a_limit_on_jobs_in_the_queue(judged, accounted_cluster, tmp_path):
    copy = judged.copy(tmp_path)
    copy.rig = accounted_cluster
    limit = ["sacctmgr", "-i", "modify", "user", "root", "set"]
    accounted_cluster.run(*limit, "MaxSubmitJobs=0")
    try:
        assert "policy" in fails(copy, ONE)
    finally:
        accounted_cluster.run(*limit, "MaxSubmitJobs=-1")
    completes(copy, ONE)
