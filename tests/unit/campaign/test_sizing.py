"""From a layout to the words of sbatch."""

import pytest

from streaming_attention.campaign.sizing import job_size, uses_hardware_threads
from streaming_attention.machine.layout import Layout
from streaming_attention.machine.topology import Machine

WHOLE = "--exclusive --ntasks-per-node={} --ntasks-per-socket={} --hint={}multithread"
MACHINE = Machine(nodes=8, sockets_per_node=2, cores_per_socket=26, threads_per_core=2, memory_gib=192)


def size(layout: Layout, seconds: float = 60, rank_bytes: int = 0) -> dict:
    return job_size(layout, MACHINE, seconds, rank_bytes)


@pytest.mark.parametrize(
    ("layout", "mpi", "counts", "extra"),
    [
        (Layout(), "", (1, 1, 1), WHOLE.format(1, 1, "no")),
        (
            Layout(threads=26),
            "",
            (1, 1, 26),
            WHOLE.format(1, 1, "no"),
        ),
        (
            Layout(sockets=2, ranks_per_socket=13, threads=2),
            "srun",
            (1, 26, 2),
            WHOLE.format(26, 13, "no"),
        ),
        (
            Layout(nodes=8, sockets=2, threads=26),
            "srun",
            (8, 16, 26),
            WHOLE.format(2, 1, "no"),
        ),
        (
            Layout(threads=52),
            "",
            (1, 1, 52),
            WHOLE.format(1, 1, ""),
        ),
        (Layout(threads=52, binding="none"), "", (1, 1, 52), "--exclusive --ntasks-per-node=1 --hint=nomultithread"),
    ],
    ids=["baseline", "socket", "ranks", "hybrid", "hardware threads", "unbound"],
)
def test_layouts(layout, mpi, counts, extra):
    job = size(layout)
    assert job["mpi"] == mpi
    assert (job["nodes"], job["tasks"], job["cpus_per_task"]) == counts
    assert job["slurm_extra"] == extra


def test_memory_is_that_of_a_node():
    one, many = size(Layout(), rank_bytes=2**30), size(Layout(nodes=4, sockets=2), rank_bytes=2**30)
    assert one["mem_mb"] == 1000 + 400 + 1024
    assert many["mem_mb"] == 1000 + 2 * (400 + 1024)


def test_memory_never_exceeds_the_node():
    assert size(Layout(), rank_bytes=300 * 2**30)["mem_mb"] == 192 * 1024


def test_slurm_waits_longer_than_the_supervisor():
    for seconds in (0, 59.5, 3600):
        job = size(Layout(), seconds)
        assert job["limit"] >= 4 * seconds + 300
        assert job["runtime"] * 60 >= job["limit"] + 300


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(ranks_per_socket=26), False),
        (Layout(ranks_per_socket=27), True),
        (Layout(threads=52, binding="none"), False),
        (Layout(threads=53, binding="none"), True),
    ],
)
def test_hardware_threads(layout, expected):
    assert uses_hardware_threads(layout, MACHINE) is expected
