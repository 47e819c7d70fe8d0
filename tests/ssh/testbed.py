"""The hosts of the SSH tests: a real sshd each, in namespaces of its own, with accounts, a boot id, a process table and
(where asked for) a network of its own.

Nothing of the machine is changed: passwd, shadow, pam.d/sshd and the boot id are bind mounts in the host's own mount
namespace, keys are made at run time, all files lie in the test's folder. Ending the first process of a host ends all
of its processes, as switching a machine off does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SSHD = "/usr/sbin/sshd"
COMMANDS = ("sshd", "ssh", "rsync", "unshare", "nsenter", "ip")
"""What a host needs (tools/system-packages.sh installs it)."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

FIRST_GROUP = 21900
INIT = """set -e
mount --make-rprivate /
mount -t proc proc /proc
for file in passwd shadow group; do mount --bind "$1/$file" /etc/$file; done
[ ! -e "$1/pam" ] || mount --bind "$1/pam" /etc/pam.d/sshd
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
mkdir -p /run/sshd
hostname "$2"
exec /usr/sbin/sshd -D -f "$1/sshd_config" -E "$1/log"
"""

NVIDIA_SMI = """#!/bin/sh
# Stands in for a GPU driver: answers the query of the leases from a file of "index, uuid, name, total, used, percent".
exec cat '{table}'
"""


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said."""
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=300)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on; below those that the kernel gives to outgoing connections,
    which would take it again before anybody listens there.
    """
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def crypt(password: str) -> str:
    """Return the line of /etc/shadow for a password (crypt(3), SHA-512)."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return str(library.crypt(password.encode(), b"$6$oelmtest$").decode())


@dataclass(frozen=True)
class Account:
    """A login on a host."""

    name: str
    shell: str = "/bin/bash"
    uid: int = 0
    """0 by default: another name for root with a home of its own, so that it may read what the suite has installed."""
    password: str = ""


class Network:
    """A network namespace behind a pair of virtual cables."""

    def __init__(self, inside: Network | None = None) -> None:
        """``inside``: the namespace at the cable's other end; the test's own where None."""
        self.name = f"oelm{os.getpid() % 10000}{random.randrange(10**6)}"
        number = random.randrange(16, 250), random.randrange(1, 250)
        self.gateway, self.address = (f"10.{number[0]}.{number[1]}.{last}" for last in (1, 2))
        self.near, self.far = f"v{self.name[4:]}a", f"v{self.name[4:]}b"
        self._inside = inside
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.name)
        if inside is not None:
            run("ip", "link", "set", self.near, "netns", inside.name)
        self._near("ip", "addr", "add", f"{self.gateway}/30", "dev", self.near)
        self._near("ip", "link", "set", self.near, "up")
        run("ip", "-n", self.name, "addr", "add", f"{self.address}/30", "dev", self.far)
        for link in ("lo", self.far):
            run("ip", "-n", self.name, "link", "set", link, "up")

    def _near(self, *words: str) -> None:
        run(*(("ip", "netns", "exec", self._inside.name) if self._inside else ()), *words)

    def cut(self) -> None:
        """Pull the cable: packets vanish, nobody is told."""
        self._near("ip", "link", "set", self.near, "down")

    def mend(self) -> None:
        """Put it back."""
        self._near("ip", "link", "set", self.near, "up")

    def remove(self) -> None:
        """Take namespace and cable away."""
        run("ip", "netns", "del", self.name, check=False)


@dataclass
class Host:
    """A machine with an SSH server."""

    place: Path
    """Folder of all its files; homes lie in ``home/<account>``."""
    name: str
    accounts: Sequence[Account] = (Account("alice"),)
    network: Network | None = None
    options: Sequence[str] = ()
    """More lines of sshd_config."""
    environment: dict[str, str] = field(default_factory=dict)
    """More variables of every login."""
    groups: dict[str, Sequence[str]] = field(default_factory=dict)
    """More groups, with the accounts in them; their numbers count from FIRST_GROUP."""
    gpus: int = 0
    """How many GPUs the stand-in for nvidia-smi shows; without any, CPU slots are leased."""
    second_factor: bool = False
    """Whether a key is not enough: the account's password is asked for, too."""

    def __post_init__(self) -> None:
        self.port = 2222 if self.network else free_port()
        self.address = self.network.address if self.network else "127.0.0.1"
        self.process: subprocess.Popen[bytes] | None = None
        for folder in ("bin", "leases", "home"):
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        (self.place / "leases").chmod(0o1777)
        lines, shadow = [Path("/etc/passwd").read_text().rstrip("\n")], ["root:*:19000:0:99999:7:::"]
        for account in self.accounts:
            home = self.home(account.name)
            home.mkdir(exist_ok=True)
            os.chown(home, account.uid, account.uid)
            lines.append(f"{account.name}:x:{account.uid}:{account.uid}::{home}:{account.shell}")
            shadow.append(f"{account.name}:{crypt(account.password) if account.password else '*'}:19000:0:99999:7:::")
        (self.place / "passwd").write_text("\n".join(lines) + "\n")
        (self.place / "shadow").write_text("\n".join(shadow) + "\n")
        groups = [Path("/etc/group").read_text().rstrip("\n")]
        for number, (group, members) in enumerate(self.groups.items(), start=FIRST_GROUP):
            groups.append(f"{group}:x:{number}:{','.join(members)}")
        (self.place / "group").write_text("\n".join(groups) + "\n")
        self.make_key()
        self.set_boot_id()
        if self.gpus:
            self.show_gpus()
        if self.second_factor:
            (self.place / "pam").write_text(
                "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
            )

    def home(self, account: str = "alice") -> Path:
        """Return an account's home folder."""
        return self.place / "home" / account

    def make_key(self) -> None:
        """Make a host key, as a machine that was set up anew has."""
        for file in self.place.glob("host_key*"):
            file.unlink()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.place / "host_key"))

    @property
    def public_key(self) -> str:
        """Type and base64 of the host key."""
        return " ".join((self.place / "host_key.pub").read_text().split()[:2])

    def set_boot_id(self) -> None:
        """Let the next start be another boot."""
        digits = f"{random.getrandbits(128):032x}"
        # Written in place: the bind mount shows the file, not the name.
        (self.place / "boot_id").write_text(
            "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])) + "\n"
        )

    def show_gpus(self, used_mb: Sequence[int] = (), percent: Sequence[int] = ()) -> None:
        """Let the stand-in for nvidia-smi show GPUs, in use as given."""
        table = self.place / "gpus.csv"
        rows = []
        for index in range(self.gpus):
            used = used_mb[index] if index < len(used_mb) else 3
            busy = percent[index] if index < len(percent) else 0
            rows.append(f"{index}, GPU-{self.name}-{index}, NVIDIA RTX A5000, 24564, {used}, {busy}\n")
        table.write_text("".join(rows))
        script = self.place / "bin" / "nvidia-smi"
        script.write_text(NVIDIA_SMI.format(table=table))
        script.chmod(0o755)

    def start(self, authorized: str) -> None:
        """Boot: returns when the server answers."""
        keys = self.place / "authorized_keys"
        keys.write_text(authorized)
        variables = {
            "PATH": f"{self.place / 'bin'}:{SYSTEM_PATH}",
            "OELM_LEASE_DIR": str(self.place / "leases"),
            "OMP_NUM_THREADS": "1",
            "OELM_STAND_IN_GPUS": "1",
            **self.environment,
        }
        pairs = " ".join(f'"{key}={value}"' for key, value in variables.items())
        methods = ["AuthenticationMethods publickey,keyboard-interactive", "UsePAM yes"]
        config = [
            f"Port {self.port}", f"ListenAddress {self.address}", f"HostKey {self.place / 'host_key'}",
            f"AuthorizedKeysFile {keys}", "StrictModes no", "PasswordAuthentication no", "PermitRootLogin yes",
            f"PidFile {self.place / 'sshd.pid'}", "LogLevel VERBOSE", "PrintMotd no", "PrintLastLog no", "UseDNS no",
            f"SetEnv {pairs}", *(methods if self.second_factor else ["UsePAM no"]), *self.options,
        ]  # fmt: skip
        (self.place / "sshd_config").write_text("\n".join(config) + "\n")
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child=SIGKILL"]
        words += ["sh", "-c", INIT, "init", str(self.place), self.name]
        if self.network:
            words = ["ip", "netns", "exec", self.network.name, *words]
        with open(self.place / "init.log", "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} does not start: {(self.place / 'init.log').read_text()}{self.log()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        return "Server listening" in self.log() and not self.log().rstrip().endswith("SIGTERM")

    def stop(self) -> None:
        """Switch it off: every process on it ends at once."""
        if self.process is not None:
            try:
                first = self.first_pid()
            except (OSError, IndexError):
                first = ""
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            # The kernel ends the others after their parent; until then the port is taken.
            while first and not _is_over(first):
                time.sleep(0.01)
            with contextlib.suppress(FileNotFoundError):
                (self.place / "log").rename(self.place / "log.before")

    def log(self) -> str:
        """Return what the SSH server wrote since the last start."""
        try:
            return (self.place / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def commands(self) -> int:
        """Return how many commands were run on it since the last start: the round trips, counted by the server."""
        return len(re.findall(r"^Starting session: command", self.log(), re.MULTILINE))

    def logins(self) -> int:
        """Return how many connections logged in since the last start."""
        return len(re.findall(r"^Accepted (?:publickey|keyboard-interactive/pam)", self.log(), re.MULTILINE))

    def inside(self, *words: str) -> str:
        """Run a command in the host's namespaces, as its root."""
        return run("nsenter", "-t", self.first_pid(), "-m", "-u", "-p", "-n", *words).stdout

    def first_pid(self) -> str:
        """Return the process id of the host's first process, as this machine sees it."""
        assert self.process is not None
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]


def _is_over(pid: str) -> bool:
    """Say whether a process is gone, or waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Client:
    """The laptop: an ``ssh`` command that reads a configuration of the test's instead of the user's."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "bin").mkdir(parents=True)
        self.key, self.config, self.known_hosts = place / "id", place / "config", place / "known_hosts"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self.key))
        self.config.write_text("")
        self.known_hosts.write_text("")
        real = shutil.which("ssh")
        assert real, "no ssh command: install openssh-client"
        wrapper = place / "bin" / "ssh"
        wrapper.write_text(f"#!/bin/sh\nexec {real} -F '{self.config}' \"$@\"\n")
        wrapper.chmod(0o755)

    @property
    def public_key(self) -> str:
        """The user's public key."""
        return Path(f"{self.key}.pub").read_text()

    def knows(self, host: Host, alias: str = "", account: str = "alice", **options: str) -> str:
        """Add a host to configuration and known hosts; return its alias."""
        alias = alias or host.name
        port = int(options.get("Port", host.port))
        address = options.get("HostName", host.address)
        lines = {
            "HostName": host.address, "Port": str(host.port), "User": account, "IdentityFile": f'"{self.key}"',
            "UserKnownHostsFile": f'"{self.known_hosts}"', "IdentitiesOnly": "yes", **options,
        }  # fmt: skip
        with self.config.open("a") as file:
            file.write(f"Host {alias}\n" + "".join(f"  {key} {value}\n" for key, value in lines.items()))
        with self.known_hosts.open("a") as file:
            file.write(f"[{address}]:{port} {host.public_key}\n")
        return alias


class Proxy:
    """A line to a host that can be cut: after so many bytes, or now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.sent = 0
        """Bytes from the client so far, over all connections."""
        self.up_limit: int | None = None
        """Bytes from the client after which the line is cut, once."""
        self.down_limit: int | None = None
        """Bytes from the host after which the line is cut, once."""
        self.refuse = False
        self.frozen, self.held = threading.Event(), threading.Event()
        """Set: bytes flow, in both directions; from the host."""
        self.frozen.set()
        self.held.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.refuse:
                    near.close()
                    continue
                self.connections += 1
                far = socket.create_connection((self._host.address, self._host.port))
                self._pairs.append((near, far))
                if self.refuse:  # since it was accepted
                    self.cut()
                for source, sink, name in ((near, far, "up_limit"), (far, near, "down_limit")):
                    threading.Thread(target=self._pump, args=(source, sink, name), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.frozen.wait()
                if name == "down_limit":
                    self.held.wait()
                limit = getattr(self, name)
                if limit is not None and passed + len(data) > limit:
                    sink.sendall(data[: max(0, limit - passed)])
                    setattr(self, name, None)
                    break
                passed += len(data)
                if name == "up_limit":
                    self.sent += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut every line that is open."""
        while self._pairs:
            for end in self._pairs.pop():
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give up."""
        self.frozen.set()
        self.held.set()
        self.cut()
        self._listener.close()


@contextlib.contextmanager
def running(*hosts: Host, client: Client) -> Iterator[None]:
    """Have hosts switched on."""
    try:
        for host in hosts:
            host.start(client.public_key)
        yield
    finally:
        for host in hosts:
            host.stop()
