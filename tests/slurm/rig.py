"""A SLURM cluster of virtual nodes on this host, made of the real daemons, for tests.

The daemons (munge, slurmctld, a slurmd per node; slurmdbd and MariaDB for accounting) live in namespaces of their own:

* network: the cluster's ports and the nodes' addresses 127.0.1.1, 127.0.1.2, ... exist only inside;
* mount: its configuration is /etc/slurm there, where every SLURM command looks without being told; every node has
  temporary files and shared memory of its own (MPICH names its segments after the job's id), all else is shared;
* hostname (UTS): every node has its own, and so is another host to MPI;
* process ids: when the first process inside ends, the kernel ends all others. That process waits on a pipe which this
  one holds, so nothing outlives the tests, however they end.

Not shown by such a cluster: control groups, a real fabric, NUMA, timings (all nodes share this host's cores).

Run as a program it keeps a cluster up for a shell in it: ``python tests/slurm/rig.py [--accounting] [COMMAND ...]``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare", "nsenter", "setpriv", "ip")
ACCOUNTING_DAEMONS = ("slurmdbd", "mariadbd", "mariadb-install-db")
FIRST_PORT = 7000
PATIENCE_SECONDS = 60

_UNSHARE = ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "--pid", "--fork"]

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/bin", "/usr/sbin", "/sbin"])
_PREFIX = "slurm-rig-"
_INIT = """
set -e
ip link set lo up
ip link add rig0 type veth peer name rig1  # Open MPI and the resolver want more than a loopback device
ip link set rig0 up; ip link set rig1 up
for ((node = 1; node <= $2; node++)); do ip addr add "127.0.1.$node/32" dev rig0; done
hostname login
mkdir -p /etc/slurm
mount --bind "$1/etc" /etc/slurm
mount --bind "$1/etc/hosts" /etc/hosts
echo up
read -r _  # until the pipe closes; bash meanwhile reaps what loses its parent
"""

_KILL_HOST = """
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$(nsenter -t "$pid" --uts hostname)" != "$0" ] || kill -9 "$pid"
done
"""


def _tool(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def missing(accounting: bool = False) -> str | None:
    """None where a rig can be started, otherwise what it lacks."""
    needed = DAEMONS + (ACCOUNTING_DAEMONS if accounting else ())
    absent = [name for name in needed if not _tool(name)]
    if absent:
        return f"not installed: {', '.join(absent)} (see .ci/slurm-packages)"
    if subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode:
        return "only root can start one, and only where it may create namespaces"  # in a user namespace setgroups fails
    return None


class Rig:
    """A cluster; use it in a ``with`` statement, or call :meth:`start` and :meth:`stop`, each as often as you like.

    Parameters
    ----------
    nodes, sockets, cores : int
        Virtual nodes, sockets of each, cores of each socket. More CPUs on a node than the host has leave ranks unbound.
    memory_mb : int
        Memory that each node declares.
    accounting : bool
        Run slurmdbd and its database, so that ``sacct`` and ``sacctmgr`` work.
    max_jobs : int
        Jobs that the controller keeps at most, finished ones included.

    Attributes
    ----------
    folder : Path
        Configuration, state and logs; removed by :meth:`stop`.
    """

    def __init__(
        self,
        nodes: int = 2,
        sockets: int = 2,
        cores: int = 1,
        memory_mb: int = 4000,
        accounting: bool = False,
        max_jobs: int = 10000,
    ):
        self.nodes, self.sockets, self.cores, self.memory_mb = nodes, sockets, cores, memory_mb
        self.accounting, self.max_jobs = accounting, max_jobs
        self.folder: Path | None = None
        self._holder: subprocess.Popen | None = None
        self._init: int | None = None
        self._slurmds: dict[str, subprocess.Popen] = {}
        self._database: subprocess.Popen | None = None

    def __enter__(self) -> Rig:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def local(self) -> Path:
        """Folder for temporary files (TMPDIR), of which every node has its own."""
        return self.folder / "local"

    @property
    def names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    def start(self) -> Rig:
        """Bring the cluster up and wait until every node is idle; does nothing when it is up."""
        if self._holder:
            return self
        try:
            self._configure()
            self._enter_namespaces()
            self._start_munge()
            if self.accounting:
                self._start_accounting()
            self.start_controller()
            for name in self.names:
                self.power_on(name)
            self.wait(lambda: self.states() == dict.fromkeys(self.names, "idle"), "all nodes idle")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process of the cluster and remove its folder; does nothing when it is down."""
        if self._holder:
            self._holder.stdin.close()
            self._holder.wait(PATIENCE_SECONDS)
        for process in filter(None, [*self._slurmds.values(), self._database]):
            process.wait(PATIENCE_SECONDS)
        self._holder, self._init, self._database = None, None, None
        self._slurmds.clear()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    # Commands in the cluster

    def popen(self, command: Sequence[str], env: Mapping[str, str] | None = None, **options) -> subprocess.Popen:
        """Start a command on the login node, as :class:`subprocess.Popen` does.

        Ending the returned process ends the command at once, by SIGKILL; :meth:`signal` reaches the command itself.
        """
        enter = [_tool("nsenter"), "-t", str(self._init), "--net", "--uts", "--mount", "--pid"]
        die_together = [_tool("setpriv"), "--pdeathsig", "KILL"]
        workdir = [_tool("env"), "-C", str(options.pop("cwd", os.getcwd()))]
        return subprocess.Popen(
            [*enter, *die_together, *workdir, *command],
            env=self.environment(env),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            preexec_fn=_listen_to_interrupts,
            **options,
        )

    def run(self, *command: str, check: bool = True, timeout: float = 300, **options) -> subprocess.CompletedProcess:
        """Run a command on the login node to its end and return it with its output as text.

        Raises
        ------
        RuntimeError
            It failed and ``check`` is on; the message has its output.
        subprocess.TimeoutExpired
            It took too long, and was ended.
        """
        process = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if check and process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def signal(self, process: subprocess.Popen, number: signal.Signals) -> None:
        """Send a signal to a command started by :meth:`popen`."""
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), number)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables of a login shell in the cluster: those of this process without SLURM's and Snakemake's own."""
        own = ("SLURM_", "PMI", "SNAKEMAKE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "USER": "root"}
        return {**kept, **root, "PATH": _PATH, "TMPDIR": str(self.local), **(extra or {})}

    # The state of the cluster

    def states(self) -> dict[str, str]:
        """State of each node, such as ``idle`` or ``down*``; empty while the controller does not answer."""
        done = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False, timeout=20)
        return dict(line.split() for line in done.stdout.splitlines())

    def jobs(self) -> dict[str, str]:
        """Name and state of every job that is not over, by id."""
        lines = self.run("squeue", "-h", "-o", "%i %T %j").stdout.splitlines()
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Return once a condition holds.

        Raises
        ------
        TimeoutError
            With the last lines of every log.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} within {seconds:.0f} s\n{self.logs()}")
            time.sleep(0.1)

    def logs(self, lines: int = 15) -> str:
        """The last lines of every log."""
        parts = []
        for path in sorted((self.folder / "log").glob("*")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"==> {path.name}", *tail]))
        return "\n".join(parts)

    # Power

    def power_on(self, name: str) -> None:
        """Start a node; what ran on it before is gone."""
        self.power_off(name)
        private = f"mount -t tmpfs local {self.local}; mount -t tmpfs memory /dev/shm"
        boot = f"hostname {name}; {private}; exec slurmd -D -N {name}"
        log = open(self.folder / "log" / f"{name}.out", "ab")  # noqa: SIM115
        self._slurmds[name] = self.popen(["unshare", "--uts", "--mount", "sh", "-c", boot], stdout=log, stderr=log)
        log.close()

    def power_off(self, name: str) -> None:
        """Kill everything on a node at once, as a power cut does."""
        process = self._slurmds.pop(name, None)
        if not process:
            return
        self.run("bash", "-c", _KILL_HOST, name, check=False)
        process.kill()
        process.wait(PATIENCE_SECONDS)

    def start_controller(self) -> None:
        """Start slurmctld; with accounting, after its cluster is known to slurmdbd."""
        self.run("slurmctld")

    def save(self, job: str) -> None:
        """Return once slurmctld has written its state with this job as it is now; by itself it does so some time."""
        begin = time.time()
        saved = self.folder / "state" / "job_state"
        self.run("scontrol", "update", f"jobid={job}", "admincomment=saved")  # a change, so that it writes
        self.wait(lambda: saved.exists() and saved.stat().st_mtime > begin, "saved state")

    def kill_controller(self) -> None:
        """SIGKILL slurmctld; its state on the disk stays. A job that began after the last save is launched again."""
        pid = (self.folder / "run/slurmctld.pid").read_text().strip()
        self.run("kill", "-9", pid)
        self.wait(lambda: self.run("kill", "-0", pid, check=False).returncode != 0, "end of slurmctld")

    # Start-up

    def _configure(self) -> None:
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        for name in ("etc", "run", "log", "state", "spool", "local", "tmp", *(f"tmp/{node}" for node in self.names)):
            (self.folder / name).mkdir()
        for path in (self.folder, *self.folder.rglob("*")):
            path.chmod(0o755)
        hosts = ["127.0.0.1 localhost login", *(f"127.0.1.{i} {name}" for i, name in enumerate(self.names, start=1))]
        etc = self.folder / "etc"
        (etc / "hosts").write_text("\n".join(hosts) + "\n")
        (etc / "plugstack.conf").touch()
        for name in ("slurm.conf", "slurmdbd.conf"):
            text = string.Template((HERE / name).read_text()).substitute(self._settings())
            (etc / name).write_text(text)
        (etc / "slurmdbd.conf").chmod(0o600)
        key = etc / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))

    def _settings(self) -> dict:
        shape = f"Sockets={self.sockets} CoresPerSocket={self.cores} ThreadsPerCore=1 RealMemory={self.memory_mb}"
        nodes = [
            f"NodeName={name} NodeAddr=127.0.1.{i} Port={FIRST_PORT + i} {shape} Feature=rig,{name} State=UNKNOWN"
            for i, name in enumerate(self.names, start=1)
        ]
        slurmdbd = (
            "AccountingStorageType=accounting_storage/slurmdbd\n"
            "AccountingStorageHost=login\n"
            "AccountingStorageEnforce=associations,limits,qos\n"
            f"AccountingStoragePass={self.folder}/run/munge.socket"
        )
        fits = self.sockets * self.cores <= (os.cpu_count() or 1)
        return {
            "folder": self.folder,
            "task_plugin": "task/affinity" if fits else "task/none",
            "accounting": slurmdbd if self.accounting else "",
            "max_jobs": self.max_jobs,
            "nodes": "\n".join(nodes),
        }

    def _enter_namespaces(self) -> None:
        self._holder = subprocess.Popen(
            [*_UNSHARE, "--mount-proc", "--kill-child", "bash", "-c", _INIT, "rig", str(self.folder), str(self.nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment(),
            text=True,
        )
        if self._holder.stdout.readline() != "up\n":
            raise RuntimeError("the namespaces could not be set up")
        pid = self._holder.pid
        self._init = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _start_munge(self) -> None:
        files = {"socket": "run/munge.socket", "key-file": "etc/munge.key", "pid-file": "run/munged.pid"}
        files |= {"log-file": "log/munged.log", "seed-file": "etc/munge.seed"}
        self.run("munged", *(f"--{option}={self.folder / file}" for option, file in files.items()), "--num-threads=4")

    def _start_accounting(self) -> None:
        data, socket = self.folder / "database", self.folder / "run/database.socket"
        log = self.folder / "log"
        install = ["--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        self.run("mariadb-install-db", *install, "--auth-root-authentication-method=normal")
        with open(log / "mariadbd.out", "ab") as stream:
            self._database = self.popen(
                ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}", *_DATABASE],
                stdout=stream,
                stderr=stream,
            )
        self.wait(socket.exists, "database")
        self.run("mariadb", "--no-defaults", "-u", "root", f"--socket={socket}", "-e", "create database accounting")
        self.run("slurmdbd", env={"MYSQL_UNIX_PORT": str(socket)})
        answers = lambda: not self.run("sacctmgr", "-n", "list", "cluster", check=False).returncode  # noqa: E731
        self.wait(answers, "answer of slurmdbd")
        for words in (["cluster", "rig"], ["account", "project"], ["user", "root", "account=project"]):
            self.run("sacctmgr", "-i", "add", *words, check=False)


def _listen_to_interrupts() -> None:
    """As from a terminal; a shell's background processes ignore SIGINT and hand that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _remove_abandoned() -> None:
    """Remove the folders of rigs whose process was killed before it could; their daemons ended with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX).split("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)


_DATABASE = (
    "--skip-networking",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-lock-wait-timeout=900",
    "--innodb-flush-log-at-trx-commit=0",
)


def main() -> int:
    """Run a command, or a shell, in a fresh cluster."""
    parser = argparse.ArgumentParser(description="a SLURM cluster of virtual nodes, for as long as a command runs")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--sockets", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--accounting", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    reason = missing(options.accounting)
    if reason:
        sys.exit(f"rig: {reason}")
    begin = time.monotonic()
    with Rig(options.nodes, options.sockets, options.cores, accounting=options.accounting) as rig:
        print(f"rig: {options.nodes} nodes up in {time.monotonic() - begin:.1f} s, {rig.folder}", file=sys.stderr)
        return rig.popen(options.command or [os.environ.get("SHELL", "bash")], stdin=None).wait()


if __name__ == "__main__":
    sys.exit(main())
