"""Hosts on one machine: network namespaces around a switch, each link shaped to a rate in both directions.

What a cluster's network does to ranks, without a cluster: every host has a name, an address and a full-duplex link of
its own, and nothing between them but that link. Needs root, ``ip`` and ``tc``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MPIEXEC = Path(sys.executable).with_name("mpiexec")
NETWORK, DEVICE = "10.77.0", "eth0"
QUEUE = "20ms"
"""How long a packet may wait in a shaper before it is dropped."""

LAUNCHER = """#!/bin/sh
# mpiexec starts its proxy on a host by: THIS [OPTIONS] ADDRESS COMMAND...
while [ "${{1#-}}" != "$1" ]; do shift; done
address=$1
shift
exec ip netns exec "{prefix}${{address##*.}}" unshare --uts sh -c "hostname host${{address##*.}} && exec $*"
"""

ONLY_TCP = {
    "UCX_TLS": "tcp,self",
    "UCX_NET_DEVICES": DEVICE,
    "MPIR_CVAR_NOLOCAL": "1",
}
"""The MPI library would find out that all hosts share one memory, and use it."""


def missing() -> str | None:
    """None, or why there can be no such hosts here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [program for program in ("ip", "tc", "unshare") if not shutil.which(program)]
    return f"{', '.join(absent)} is not installed" if absent else None


class Hosts:
    """Some hosts, up as long as the context lasts.

    Parameters
    ----------
    count : int
    gbits : float
        Rate of every host's link, Gbit/s each way.
    folder : Path
        Where the launcher is written.
    """

    def __init__(self, count: int, gbits: float, folder: Path):
        self.count, self.gbits, self.folder = count, gbits, folder
        self.prefix = f"attention{os.getpid()}-"
        self.names = [f"{self.prefix}{number}" for number in range(count + 1)]  # 0 is the switch, and starts the ranks
        self.addresses = [f"{NETWORK}.{number}" for number in range(1, count + 1)]
        self.launcher = folder / "launch-on-host"
        self.burst = max(2**17, round(self.gbits * 1e9 / 8 * 2e-4))
        """Bytes that may pass a shaper at once: a few of the largest packets, far less than a block of K and V."""

    def __enter__(self) -> Hosts:
        self.launcher.write_text(LAUNCHER.format(prefix=self.prefix))
        self.launcher.chmod(0o755)
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def _build(self) -> None:
        switch, *others = self.names
        for name in self.names:
            _do("ip", "netns", "add", name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
        _do("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _do("ip", "-n", switch, "addr", "add", f"{NETWORK}.254/24", "dev", "bridge")
        _do("ip", "-n", switch, "link", "set", "bridge", "up")
        for name, address in zip(others, self.addresses, strict=True):
            port = f"port{address.rpartition('.')[2]}"
            _do("ip", "link", "add", DEVICE, "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
            _do("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
            _do("ip", "-n", name, "addr", "add", f"{address}/24", "dev", DEVICE)
            _do("ip", "-n", name, "link", "set", DEVICE, "up")
            for end, device in ((name, DEVICE), (switch, port)):
                rate = ("rate", f"{self.gbits:g}gbit", "burst", str(self.burst), "latency", QUEUE)
                _do("tc", "-n", end, "qdisc", "add", "dev", device, "root", "tbf", *rate)

    def run(self, *words: str, ranks_per_host: int = 1, **variables: str) -> subprocess.CompletedProcess:
        """Start one Python program as ranks on every host and wait for it; its output is text."""
        environment = {**os.environ, **ONLY_TCP, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", **variables}
        places = ["-hosts", ",".join(self.addresses), "-ppn", str(ranks_per_host)]
        start = ["-localhost", f"{NETWORK}.254", "-launcher", "ssh", "-launcher-exec", str(self.launcher)]
        ranks = ["-n", str(ranks_per_host * self.count), sys.executable, "-m", "mpi4py", *words]
        command = ["ip", "netns", "exec", self.names[0], str(MPIEXEC), *start, *places, *ranks]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
