"""A real Slurm on this machine, for tests, demo and benchmark: two nodes with four stand-in GPUs each, accounting, two
priorities.

Everything lies in one directory, nothing of it in /etc; every daemon is a child process, ended by its pid. Works with
Debian's packages from 22.05 to 24.11, as root, without systemd.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

COMMANDS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacctmgr", "munged", "mariadbd", "mariadb-install-db")
"""What a testbed needs (tools/system-packages.sh installs it)."""
NODES = ("n1", "n2")
GPUS = 4
"""Stand-in GPUs a node: character devices like /dev/null."""

SLURM_CONF = """\
ClusterName=oelmtest
SlurmctldHost=localhost
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool.%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
MailProg=/bin/true
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,default_queue_depth=1000,{scheduler}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=5
SlurmctldTimeout=5
MessageTimeout=5
KillWait=15
MinJobAge={min_job_age}
FirstJobId={first_job_id}
MaxJobId={max_job_id}
MaxArraySize={max_array_size}
MaxJobCount=30000
InactiveLimit=0
{accounting}
NodeName=n[1-2] NodeHostname=localhost Port=[{first_port}-{last_port}] CPUs=16 RealMemory=16000 Gres=gpu:a5000:4
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 PreemptMode=REQUEUE MaxTime=1-00:00:00 DefaultTime=60
PartitionName=high Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF MaxTime=1-00:00:00 DefaultTime=60
PartitionName=short Nodes=n[1-2] PriorityTier=1 PreemptMode=REQUEUE MaxTime=10 DefaultTime=5
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd_port}
AccountingStoragePass={place}/munge.socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/none
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
DbdHost=localhost
DbdPort={dbd_port}
SlurmUser=root
LogFile={place}/slurmdbd.log
PidFile={place}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


def missing() -> list[str]:
    """Return the commands that a testbed needs and this machine lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [command for command in COMMANDS if shutil.which(command, path=path) is None]


def free_ports(count: int) -> list[int]:
    """Return consecutive ports that are free now, below the kernel's range for outgoing connections."""
    first = 10000 + (os.getpid() * 16) % 20000
    while True:
        ports = list(range(first, first + count))
        try:
            for port in ports:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return ports
        except OSError:
            first = 10000 + (first + count) % 20000


def wait(condition: Callable[[], bool], what: str, patience_s: float = 240.0) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: It never did.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the testbed waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.05)


class Testbed:
    """A Slurm cluster in a directory. Use it as a context manager."""

    __test__ = False  # pytest: not a class of tests

    def __init__(
        self,
        place: Path,
        *,
        accounting: bool = True,
        min_job_age: int = 300,
        max_job_id: int = 67108863,
        max_array_size: int = 1001,
        scheduler: str = "",
    ) -> None:
        self.place = place
        self.accounting = accounting
        self.environment = {
            "SLURM_CONF": str(place / "slurm.conf"),
            "OELM_STAND_IN_GPUS": "1",
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        }
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        ports = free_ports(5)
        values = {
            "place": place,
            "ctld_port": ports[0],
            "first_port": ports[1],
            "last_port": ports[2],
            "dbd_port": ports[3],
            "database_port": ports[4],
            "min_job_age": min_job_age,
            "max_job_id": max_job_id,
            # Ranks on several nodes meet at a port made from the job id; clusters of other tests share this machine.
            "first_job_id": 1 + os.getpid() * 1009 % 9973 if max_job_id > 20000 else 1,
            "max_array_size": max_array_size,
            "scheduler": scheduler or "nohold_on_prolog_fail",
        }
        accounted = ACCOUNTING if accounting else "AccountingStorageType=accounting_storage/none\n"
        self._conf = SLURM_CONF.format(accounting=accounted.format(**values), **values)
        self._dbd_conf = SLURMDBD_CONF.format(**values)
        self._database_port = ports[4]

    # Life -------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Testbed:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons and wait until both nodes are idle."""
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / "state").mkdir()
        for node in NODES:
            (self.place / f"spool.{node}").mkdir()
        devices = self.place / "dev"
        devices.mkdir()
        for index in range(GPUS):
            os.mknod(devices / f"gpu{index}", 0o666 | 0o020000, os.makedev(1, 3))
        (self.place / "slurm.conf").write_text(self._conf)
        (self.place / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu Type=a5000 File={devices}/gpu[0-{GPUS - 1}]\n")
        # From 23.11 on slurmd wants cgroups though no plugin uses them; the machine may have none that it may write.
        (self.place / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if self._version() >= (23, 11) else "")
        (self.place / "hosts").write_text("127.0.0.1 localhost n1 n2\n" + Path("/etc/hosts").read_text())
        self._munge()
        if self.accounting:
            self.start_accounting()
        self.start_daemon("slurmctld", ["slurmctld", "-D"])
        for node in NODES:
            self.start_node(node)
        wait(lambda: self.run("sinfo", "-h", "-N", "-o", "%T", check=False).split()[:2] == ["idle"] * 2, "both nodes")

    def stop(self) -> None:
        """End all jobs and daemons."""
        if "slurmctld" in self._children:
            with contextlib.suppress(Exception):
                self.end_jobs()
        for name in reversed(list(self._children)):
            self.kill(name, signal.SIGTERM if name in ("database", "slurmdbd", "munged") else signal.SIGKILL)

    def end_jobs(self) -> None:
        """Cancel every job, and wait until their processes are gone and nothing of the nodes is counted as used."""
        for kill in ((), ("--signal=KILL", "--full")):
            self.run("scancel", "--user=" + self.run("id", "-un").strip(), *kill, check=False)
        wait(lambda: not self.run("squeue", "-h", check=False).strip(), "the queue to be empty", 40)
        if self._any_in_use():
            # A controller that was started anew may count a GPU for good that a job had before the node registered:
            # an exclusive job of a later test, which asks for all of them, would wait for it in vain.
            self.run("scontrol", "reconfigure")
            wait(lambda: not self._any_in_use(), "nothing to be counted as used", 40)

    def _any_in_use(self) -> bool:
        return "AllocTRES=" in self.run("scontrol", "-o", "show", "node").replace("AllocTRES= ", "")

    # Daemons ----------------------------------------------------------------------------------------------------------

    def start_daemon(self, name: str, argv: Sequence[str], **environment: str) -> None:
        """Start a daemon in the foreground, as a child in a session of its own."""
        log = (self.place / f"{name}.out").open("ab")
        self._children[name] = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **self.environment, **environment},
        )
        log.close()

    def start_node(self, node: str) -> None:
        """Start a node's slurmd; in it, the names of both nodes lead to this machine."""
        # A mount namespace of its own: nothing of the machine's /etc/hosts changes.
        inside = 'mount --bind "$0" /etc/hosts && exec slurmd -D -N "$1"'
        self.start_daemon(node, ["unshare", "--mount", "sh", "-c", inside, str(self.place / "hosts"), node])

    def pid(self, name: str) -> int:
        """Return a daemon's process id."""
        return self._children[name].pid

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a daemon and wait for it."""
        child = self._children.pop(name)
        child.send_signal(number)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def signal(self, name: str, number: int) -> None:
        """Signal a daemon (SIGSTOP makes it hang)."""
        self._children[name].send_signal(number)

    def start_accounting(self) -> None:
        """Start the database, with its tables at the first time, and slurmdbd."""
        folder = self.place / "database"
        options = [
            "--no-defaults",
            f"--datadir={folder}",
            f"--tmpdir={self.place}",  # whoever starts removes the temporary tables of all others in a shared one
            "--user=root",
        ]
        is_new = not folder.exists()
        if is_new:
            folder.mkdir()
            self.run("mariadb-install-db", *options, "--skip-test-db", "--auth-root-authentication-method=normal")
        (self.place / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS slurm_acct;\n"
            "CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct.* TO 'slurm'@'%';\n"
        )
        limits = ["--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF"]
        self.start_daemon(
            "database",
            ["mariadbd", *options, *limits, "--bind-address=127.0.0.1", f"--port={self._database_port}",
             f"--socket={self.place}/database.socket", f"--pid-file={self.place}/database.pid",
             f"--init-file={self.place}/init.sql", "--skip-name-resolve"],
        )  # fmt: skip
        wait(lambda: (self.place / "database.socket").exists(), "the database")
        (self.place / "slurmdbd.conf").write_text(self._dbd_conf)
        (self.place / "slurmdbd.conf").chmod(0o600)
        self.start_daemon("slurmdbd", ["slurmdbd", "-D"])
        wait(lambda: not self.call("sacctmgr", "-n", "show", "cluster").returncode, "slurmdbd")
        if is_new:
            self._make_accounts()

    def _make_accounts(self) -> None:
        user = self.run("id", "-un").strip()
        known = ["cluster=oelmtest"]
        for words in (["cluster", "oelmtest"], ["account", "lab", *known], ["user", user, "account=lab", *known]):
            self.run("sacctmgr", "-i", "add", *words)

    def _munge(self) -> None:
        place = self.place
        (place / "munge.key").write_bytes(os.urandom(128))
        (place / "munge.key").chmod(0o600)
        self.start_daemon(
            "munged",
            ["munged", "--foreground", "--force", f"--socket={place}/munge.socket", f"--key-file={place}/munge.key",
             f"--pid-file={place}/munge.pid", f"--log-file={place}/munge.log", f"--seed-file={place}/munge.seed"],
        )  # fmt: skip
        wait(lambda: (place / "munge.socket").exists(), "munged")

    def _version(self) -> tuple[int, ...]:
        words = self.run("slurmd", "-V").split()
        return tuple(int(part) for part in words[-1].split(".")[:2]) if words else (22, 5)

    # Use --------------------------------------------------------------------------------------------------------------

    def call(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the cluster's environment."""
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            env={**os.environ, **self.environment, **environment},
        )

    def run(self, *argv: str, check: bool = True) -> str:
        """Return what a command prints.

        Raises:
            RuntimeError: It failed (unless ``check`` is false).
        """
        done = self.call(*argv)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def job(self, job: str) -> dict[str, str]:
        """Return what slurmctld knows of a job."""
        words = self.run("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def told(self) -> str:
        """Return what slurmctld knows of jobs and nodes, and what it has logged last."""
        shown = [self.run("scontrol", "show", kind, check=False) for kind in ("job", "node")]
        return "".join([*shown, *(self.place / "slurmctld.log").read_text().splitlines(keepends=True)[-60:]])

    def release(self, job: str) -> None:
        """Let a requeued job start now (Slurm makes it wait for two minutes)."""
        time.sleep(2.0)  # its nodes refuse a job whose credential they have just revoked: what Slurm waits for
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def main(argv: Sequence[str]) -> int:
    """``python -m tests.slurm.testbed DIRECTORY COMMAND...``: run a command with a cluster, which is ended with it."""
    lacking = missing()
    if lacking:
        print(f"not installed: {', '.join(lacking)} (tools/system-packages.sh installs them)", file=sys.stderr)
        return 2
    with Testbed(Path(argv[0])) as cluster:
        environment: Mapping[str, str] = {**os.environ, **cluster.environment}
        return subprocess.run(argv[1:], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
