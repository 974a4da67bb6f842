"""The machine read from emulated roots: a desktop, a two-socket server, a bare container, an ARM board."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.machine import topology
from streaming_attention.machine.sysfs import parse_cpu_list

CPUS = "sys/devices/system/cpu"
GIB = 2**30


def write(path: Path, text) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def listed(cpus) -> str:
    return ",".join(map(str, sorted(cpus)))


def emulate(root: Path, *, sockets=1, cores=2, smt=1, numa=1, memory_gib=8, caches=(), package=None) -> Path:
    """A root as Linux shows it, numbered like most servers: all first hardware threads before their siblings.

    ``numa`` counts nodes of the whole machine; ``caches`` are (level, type, size, cores that share an instance).
    """
    total = sockets * cores
    write(root / CPUS / "online", f"0-{total * smt - 1}")
    write(root / "proc/meminfo", f"MemTotal:       {memory_gib * 2**20} kB\nMemFree:  1 kB")
    for cpu in range(total * smt):
        folder, core = root / CPUS / f"cpu{cpu}", cpu % total
        write(folder / "topology/physical_package_id", core // cores if package is None else package)
        write(folder / "topology/thread_siblings_list", listed(range(core, total * smt, total)))
        for index, (level, kind, size, sharing) in enumerate(caches):
            first = core // sharing * sharing
            near = [first + offset + total * thread for offset in range(sharing) for thread in range(smt)]
            for name, value in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", listed(near))):
                write(folder / f"cache/index{index}" / name, value)
    for node in range(numa):
        members = [cpu for cpu in range(total * smt) if cpu % total * numa // total == node]
        write(root / f"sys/devices/system/node/node{node}/cpulist", listed(members))
    return root


CACHES = [(1, "Data", "32K", 1), (1, "Instruction", "32K", 1), (2, "Unified", "1024K", 1), (3, "Unified", "36608K", 26)]


@pytest.fixture
def desktop(tmp_path):
    return emulate(tmp_path, caches=[*CACHES[:3], (3, "Unified", "8192K", 2)])


@pytest.fixture
def server(tmp_path):
    """Two sockets of 26 cores with two hardware threads, each split into two NUMA nodes."""
    return emulate(tmp_path, sockets=2, cores=26, smt=2, numa=4, memory_gib=192, caches=CACHES)


def test_desktop(desktop):
    machine = topology.detect(desktop)
    assert machine.as_config() == {
        "nodes": 1,
        "sockets_per_node": 1,
        "cores_per_socket": 2,
        "threads_per_core": 1,
        "numa_per_socket": 1,
        "memory_gib": 8.0,
    }
    assert machine.caches[-1] == topology.Cache(3, "unified", 8 * 2**20, 64, shared_by=2, instances=1)
    assert str(machine) == "1 node x 1 socket x 2 cores, 8 GiB a node"


def test_server_with_smt_and_numa(server):
    machine = topology.detect(server)
    shape = (machine.sockets_per_node, machine.cores_per_socket, machine.threads_per_core, machine.numa_per_socket)
    assert shape == (2, 26, 2, 2)
    assert machine.cores == 52 and machine.memory_bytes == 192 * GIB
    assert "2 hardware threads" in str(machine)
    levels = [(cache.level, cache.kind, cache.shared_by, cache.instances) for cache in machine.caches]
    assert levels == [(1, "data", 2, 26), (1, "instruction", 2, 26), (2, "unified", 2, 26), (3, "unified", 52, 1)]


def test_cpus_of_a_socket_begin_with_one_of_each_core(server):
    first, second = map(topology.siblings_last, topology.socket_cores(server))
    assert first == (*range(26), *range(52, 78))
    assert second == (*range(26, 52), *range(78, 104))
    assert topology.socket_cores(server)[1][0] == (26, 78)


def test_socket_and_numa_node_of_a_mask(server):
    assert topology.socket_of([0, 25, 77], server) == 0
    assert topology.socket_of([0, 26], server) is None
    assert topology.numa_node_of([13, 25], server) == 1
    assert topology.numa_node_of([12, 13], server) is None


def test_last_level_cache_counts_every_instance_once(server):
    one = 36608 * 1024
    assert topology.last_level_cache_bytes([0, 1, 52], server) == one
    assert topology.last_level_cache_bytes(range(104), server) == 2 * one


def test_several_last_level_caches_on_a_socket(tmp_path):
    root = emulate(tmp_path, cores=8, caches=[(1, "Data", "32K", 1), (3, "Unified", "16M", 4)])
    assert topology.detect(root).caches[-1].instances == 2
    assert topology.last_level_cache_bytes(range(8), root) == 32 * 2**20
    assert topology.last_level_cache_bytes([5], root) == 16 * 2**20


def test_without_cache_information(tmp_path):
    root = emulate(tmp_path, cores=4)
    assert topology.detect(root).caches == ()
    assert topology.last_level_cache_bytes([0], root) == 0


def test_arm_board_with_package_minus_one_and_no_smt(tmp_path):
    machine = topology.detect(emulate(tmp_path, cores=4, package=-1, caches=[(1, "Data", "64K", 1)]))
    assert (machine.sockets_per_node, machine.cores_per_socket, machine.threads_per_core) == (1, 4, 1)


def test_bare_container_with_cpuinfo_alone(tmp_path):
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\nmodel name\t: x")
    machine = topology.detect(tmp_path)
    assert (machine.cores, machine.memory_gib, machine.numa_per_socket) == (2, 1.0, 1)


def test_a_cpu_that_is_offline_does_not_count(desktop):
    write(desktop / CPUS / "online", "1")
    assert topology.socket_cores(desktop) == (((1,),),)


@pytest.mark.parametrize(
    ("allowed", "sockets", "cores", "smt"),
    [
        (range(104), 2, 26, 2),
        ([3], 1, 1, 1),
        ([0, 1, 52], 1, 2, 1),  # one core with both hardware threads, one with one
        ([0, 52, 26, 78], 2, 1, 2),
        ([*range(26), 26], 1, 26, 1),  # a whole socket beats one core on each of two
        ([*range(20), *range(26, 45)], 2, 19, 1),
    ],
)
def test_only_allowed_cpus_count(server, allowed, sockets, cores, smt):
    machine = topology.detect(server, allowed)
    assert (machine.sockets_per_node, machine.cores_per_socket, machine.threads_per_core) == (sockets, cores, smt)


def test_no_allowed_cpu_is_an_error(desktop):
    with pytest.raises(topology.TopologyError, match=r"\[0, 1\] is allowed"):
        topology.detect(desktop, [7])


@pytest.mark.parametrize("mount", ["sys/fs/cgroup", "sys/fs/cgroup/unified"])
def test_memory_limit_of_an_ancestor_group_v2(desktop, mount):
    write(desktop / "proc/self/cgroup", "0::/slice/job")
    write(desktop / mount / "slice/job/memory.max", "max")
    write(desktop / mount / "slice/memory.max", 3 * GIB)
    assert topology.detect(desktop).memory_gib == 3.0


def test_memory_limit_v1_of_a_container_that_sees_its_group_as_root(desktop):
    write(desktop / "proc/self/cgroup", "4:memory:/docker/abc\n0::/")
    write(desktop / "sys/fs/cgroup/memory/memory.limit_in_bytes", 2 * GIB)
    assert topology.detect(desktop).memory_gib == 2.0


def test_no_limit_is_the_physical_memory(desktop):
    write(desktop / "proc/self/cgroup", "4:memory:/\n0::/")
    write(desktop / "sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    assert topology.detect(desktop).memory_gib == 8.0


@pytest.mark.parametrize(("quota", "shape"), [("250000", (1, 2, 1)), ("3000000", (2, 15, 1)), ("max", (2, 26, 2))])
def test_cpu_quota_lowers_the_cores(server, quota, shape):
    write(server / "proc/self/cgroup", "0::/")
    write(server / "sys/fs/cgroup/cpu.max", f"{quota} 100000")
    machine = topology.detect(server)
    assert (machine.sockets_per_node, machine.cores_per_socket, machine.threads_per_core) == shape


def test_cpu_quota_v1(server):
    write(server / "proc/self/cgroup", "1:cpu,cpuacct:/")
    write(server / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")
    write(server / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert topology.detect(server).cores == 1


def test_this_machine_is_usable():
    machine = topology.this_machine()
    assert machine.nodes == 1 and machine.cores >= 1 and machine.memory_gib > 0


@given(st.sets(st.integers(0, 500)))
def test_cpu_lists_come_back(cpus):
    assert parse_cpu_list(listed(cpus)) == cpus


def test_cpu_list_ranges():
    assert parse_cpu_list("0-2,8\n") == {0, 1, 2, 8}


@given(
    st.integers(1, 3).flatmap(
        lambda sockets: st.tuples(st.just(sockets), st.integers(1, 4), st.integers(1, 2), st.data())
    )
)
def test_detected_machine_fits_the_allowed_cpus(tmp_path_factory, drawn):
    """Whatever is allowed, the machine promises no more than it, and every CPU of a socket is an allowed one."""
    sockets, cores, smt, data = drawn
    root = emulate(tmp_path_factory.mktemp("root"), sockets=sockets, cores=cores, smt=smt)
    allowed = data.draw(st.sets(st.integers(0, sockets * cores * smt - 1), min_size=1))
    machine = topology.detect(root, allowed)
    found = topology.socket_cores(root, allowed)
    assert sorted(cpu for socket in found for core in socket for cpu in core) == sorted(allowed)
    assert machine.cores * machine.threads_per_core <= len(allowed)
    big_enough = [socket for socket in topology.socket_cores(root, allowed) if len(socket) >= machine.cores_per_socket]
    assert len(big_enough) >= machine.sockets_per_node
