"""What servers and networks are like: odd shells, old or missing interpreters, full disks, keys that changed, lines
that break, bastions, second factors.
"""

from __future__ import annotations

import ast
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from oelm_jobs import connections
from oelm_jobs.agent import bootstrap
from oelm_jobs.connections import Connection, fabric, remote, sshconfig, wire
from oelm_jobs.errors import NotReached, TargetError, UnknownAnswer
from oelm_jobs.schedulers.slurm import SlurmScheduler
from oelm_jobs.spec.options import Slurm
from oelm_jobs.targets import files as targets
from oelm_jobs.transfer.rsync import Transfer
from tests.ssh.conftest import log_out, ssh_agent
from tests.ssh.testbed import Account, Client, Host, Proxy

REMOTE = ["fabric", "openssh"]
EVERY = [*REMOTE, "plain ssh"]
NOISE = "echo 'Welcome to the cluster!'; echo 'Quota: 93 %' >&2; printf 'no newline at the end'\n"


def reach(way: str, alias: str = "box", **changes: object) -> Connection:
    target = replace(targets.adhoc(alias, root="oelm"), connection=way if way in REMOTE else "fabric", **changes)
    return (connections.connect if way in REMOTE else connections.connect_for_transfer)(target, Path("/"))


def works(connection: Connection) -> bool:
    runs = connection.call("probe", {"run_dirs": ["/x"], "root": connection.resolved.root})["runs"]
    return runs["/x"]["state"] == "UNKNOWN"


# Shells and interpreters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", REMOTE)
@pytest.mark.parametrize(
    ("shell", "start_file"), [("/bin/bash", ".bashrc"), ("/bin/csh", ".cshrc"), ("/bin/dash", None)]
)
def test_any_login_shell_will_do_noisy_or_not(
    new_host: Callable[..., Host], client: Client, tmp_path: Path, way: str, shell: str, start_file: str | None
) -> None:
    assert Path(shell).exists(), f"{shell} is missing: tools/system-packages.sh installs it"
    environment = {"LANG": "de_DE.ISO-8859-1", "LC_ALL": "de_DE.ISO-8859-1", "PATH": "/usr/bin"}
    host = new_host("box", accounts=[Account("alice", shell=shell)], environment=environment)
    client.knows(host)
    if start_file:
        (host.home() / start_file).write_text(NOISE if shell != "/bin/csh" else NOISE.replace(" >&2", ""))
    connection = reach(way)
    assert works(connection)
    folder = Path(connection.resolved.root, "实验 ü")
    folder.mkdir()
    (folder / "training.log").write_bytes(b"x")
    assert connection.call("log", {"run_dir": str(folder), "name": "training.log", "offset": 0})["size"] == 1
    # rsync speaks a protocol of its own on the same channel: the noise is taken out of its way, too.
    route = connection.route()
    assert route is not None
    transfer = Transfer(f"{route.host}:/", f"{tmp_path}/", [f"{folder}/training.log".lstrip("/")], route)
    transfer.process.wait(300)
    code, said = transfer.end()
    assert code == 0, said
    assert (tmp_path / f"{folder}/training.log".lstrip("/")).read_bytes() == b"x"


def test_a_shell_that_never_stops_printing_is_named(box: Host) -> None:
    (box.home() / ".bashrc").write_text("yes 'all work and no play'\n")
    with pytest.raises(TargetError, match="prints more than 1 MB") as refused:
        works(reach("fabric"))
    assert ".bashrc" in refused.value.hint


@pytest.mark.parametrize("way", EVERY)
def test_a_missing_interpreter_is_named_with_the_mend(box: Host, way: str) -> None:
    with pytest.raises(TargetError, match="no Python there") as refused:
        works(reach(way, python="~/no such/python"))
    assert "python =" in refused.value.hint and not isinstance(refused.value, (UnknownAnswer, NotReached))
    (box.home() / "venv dir").mkdir()
    (box.home() / "venv dir" / "python").symlink_to(sys.executable)
    connections.close_all()
    assert works(reach(way, python="~/venv dir/python"))


def test_an_old_interpreter_is_named_as_such() -> None:
    for name in ("sentences", "privacy", "trees", "bootstrap"):  # or it could not even say so
        ast.parse(Path(str(bootstrap.__file__)).with_name(f"{name}.py").read_text(), feature_version=(3, 6))
    assert bootstrap.too_old((3, 8)) == "" and "which needs 3.8" in bootstrap.too_old((3, 6, 9))


@pytest.mark.parametrize("way", REMOTE)
def test_where_slurm_does_not_answer_the_mend_is_named(box: Host, way: str) -> None:
    """Its commands may be there or not: this host is of no cluster."""
    with pytest.raises(TargetError, match="squeue") as silent:
        SlurmScheduler(reach(way, slurm=Slurm())).poll({"/x/exp_a": "oelm-1"})
    assert "is this the login node" in silent.value.hint
    with pytest.raises(TargetError, match="is no run directory") as refused:
        SlurmScheduler(reach(way, slurm=Slurm())).archive(["/x"])
    assert not refused.value.hint


@pytest.mark.parametrize("way", REMOTE)
def test_a_full_disk_does_not_hide_itself(box: Host, way: str) -> None:
    root = box.home() / "oelm"
    root.mkdir()
    box.inside("mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "tmpfs", str(root))
    connection = reach(way)
    answer = connection.call("probe", {"run_dirs": [], "root": connection.resolved.root})
    assert answer["disk_free"] < 8192
    with pytest.raises(TargetError, match="No space left") as refused:
        connection.call("launch", {"root": connection.resolved.root, "token": "t", "runs": []})
    assert not isinstance(refused.value, UnknownAnswer)


def test_the_agent_is_sent_once_and_shared(box: Host) -> None:
    for way in REMOTE:
        assert works(reach(way))
        connections.close_all()
    assert len(list((box.home() / "oelm" / ".oelm" / "agent").iterdir())) == 1


# Keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", EVERY)
def test_a_host_whose_key_is_never_remembered_is_named_with_a_mend_that_works(
    box: Host, client: Client, way: str
) -> None:
    """As entries for machines that come and go have it: logging in by hand would make nothing known."""
    entry = client.config.read_text()
    client.config.write_text("")
    client.knows(box, UserKnownHostsFile="/dev/null", StrictHostKeyChecking="no")
    with pytest.raises(TargetError, match="isn't known here") as refused:
        works(reach(way))
    command, _, more = refused.value.hint.partition("by hand: ")[2].partition("; ")
    assert "UserKnownHostsFile /dev/null" in more and "ssh -o UserKnownHostsFile=~/.ssh/known_hosts" in command
    client.known_hosts.write_text("")
    words = command.replace("~/.ssh/known_hosts", str(client.known_hosts)).replace("=ask", "=accept-new").split()
    assert subprocess.run([*words, "true"], stdin=subprocess.DEVNULL).returncode == 0
    client.config.write_text(entry)
    sshconfig.resolve.cache_clear()
    assert works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_an_unknown_host_is_refused_whatever_the_configuration_says(box: Host, client: Client, way: str) -> None:
    client.known_hosts.write_text("")
    with client.config.open("a") as file:
        file.write("Host *\n  StrictHostKeyChecking no\n")
    with pytest.raises(TargetError, match="isn't known here") as refused:
        works(reach(way))
    assert "ssh box" in refused.value.hint
    assert box.logins() == 0 and client.known_hosts.read_text() == ""


@pytest.mark.parametrize("way", EVERY)
def test_a_changed_host_key_is_refused_and_the_mend_works(
    box: Host, client: Client, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.stop()
    box.make_key()
    box.start(client.public_key)
    with pytest.raises(TargetError, match="HAS CHANGED") as refused:
        works(reach(way))
    assert box.logins() == 0
    mend = refused.value.hint.partition(": ")[2].partition(" && ")[0]
    subprocess.run(mend, shell=True, check=True, capture_output=True)
    with client.known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{box.port} {box.public_key}\n")
    connections.close_all()
    sshconfig.resolve.cache_clear()
    assert works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_hashed_names_and_aliases_of_host_keys_are_understood(
    new_host: Callable[..., Host], client: Client, way: str
) -> None:
    host = new_host("box")
    client.knows(host, HostKeyAlias="box.example")
    client.known_hosts.write_text(f"box.example {host.public_key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(client.known_hosts)], check=True, capture_output=True)
    assert "|1|" in client.known_hosts.read_text()
    assert works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_a_key_that_is_not_let_in_is_named(box: Host, client: Client, way: str) -> None:
    (box.place / "authorized_keys").write_text("")
    with pytest.raises(TargetError, match="public-key login refused"):
        works(reach(way))


@pytest.mark.parametrize("way", REMOTE)
def test_an_encrypted_key_works_through_an_agent_and_is_named_without_one(
    box: Host, client: Client, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(client.key)]
    subprocess.run(words, check=True, capture_output=True)
    with pytest.raises(TargetError) as refused:
        works(reach(way))
    assert "ssh-add" in str(refused.value) + refused.value.hint or "oelm shell" in refused.value.hint
    with ssh_agent(tmp_path / "agent"):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho secret\n")
        ask.chmod(0o755)
        subprocess.run(
            ["ssh-add", str(client.key)], check=True, capture_output=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"},
        )  # fmt: skip
        connections.close_all()
        assert works(reach(way))


# Lines that break -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(box: Host, client: Client) -> object:
    made = Proxy(box)
    client.knows(box, alias="far", HostName="127.0.0.1", Port=str(made.port))
    yield made
    made.close()


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the deadlines, so that a test sees them pass."""
    monkeypatch.setattr(wire, "IDLE_S", 1.0)
    monkeypatch.setattr(remote, "PATIENCE_S", 0.5)
    monkeypatch.setattr(fabric, "STEP_S", 1.0)


@pytest.mark.parametrize("way", EVERY)
def test_a_server_that_is_down_is_said_soon(client: Client, box: Host, way: str) -> None:
    box.stop()
    with pytest.raises(NotReached, match="can't be reached|refused"):
        works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_a_read_is_tried_again_where_the_line_breaks(
    proxy: Proxy, box: Host, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = reach(way, "far")
    assert works(connection)
    proxy.cut()
    assert works(connection), "the line was cut between two commands"
    proxy.cut()
    connection.close()
    monkeypatch.setattr(remote, "PATIENCE_S", 60.0)  # a login in vain may take a slow machine long
    proxy.down_limit = 6000  # somewhere in the answer, or in the login
    assert works(connection)


@pytest.mark.parametrize("way", REMOTE)
def test_a_peer_that_falls_silent_does_not_hold_anybody_for_ever(
    proxy: Proxy, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = reach(way, "far")
    assert works(connection)
    be_impatient(monkeypatch)
    proxy.frozen.clear()
    thaw = threading.Timer(120, proxy.frozen.set)
    thaw.start()
    try:
        with pytest.raises(NotReached):
            connection.call("probe", {"run_dirs": []})
        assert not proxy.frozen.is_set(), "it gave up by itself"
    finally:
        thaw.cancel()
        proxy.frozen.set()


@pytest.mark.parametrize("way", REMOTE)
def test_a_pulled_cable_is_noticed_and_a_mended_one_used(
    new_host: Callable[..., Host], client: Client, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = new_host("box", networked=True)
    client.knows(host, ConnectTimeout="1")
    connection = reach(way)
    assert works(connection)
    assert host.network is not None
    host.network.cut()
    with monkeypatch.context() as impatient:
        be_impatient(impatient)
        with pytest.raises(NotReached):
            connection.call("probe", {"run_dirs": []})
    host.network.mend()
    assert works(connection)


@pytest.mark.parametrize("way", REMOTE)
def test_many_at_once_get_past_the_limits_of_a_server(
    new_host: Callable[..., Host], client: Client, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_S", 60.0)  # on a slow machine each login takes its place for longer
    monkeypatch.setattr(remote, "TRIES", 10)
    host = new_host("box", options=["MaxStartups 2:60:3", "MaxSessions 2"])
    client.knows(host)
    assert works(reach(way))
    connections.close_all()
    target = replace(targets.adhoc("box", root="oelm"), connection=way)

    def ask(number: int) -> bool:
        mine = connections.connect(target, Path(f"/{number}"))
        return bool(mine.call("probe", {"run_dirs": []})["runs"] == {})

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


@pytest.mark.parametrize("way", EVERY)
def test_an_error_names_the_target_and_its_host(
    box: Host, client: Client, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_impatient(monkeypatch)
    box.stop()
    with pytest.raises(NotReached) as refused:
        works(reach(way, name="cluster"))
    assert re.match(r"cluster: .*\b(box|127\.0\.0\.1)\b", str(refused.value)), str(refused.value)
    assert str(refused.value).count("cluster") == 1


# Bastions and second factors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", EVERY)
def test_two_bastions_are_passed_in_their_order(new_host: Callable[..., Host], client: Client, way: str) -> None:
    """Each host has a network of its own that only the one before it can reach."""
    first = new_host("first", networked=True)
    second = new_host("second", inside=first)
    last = new_host("last", inside=second)
    client.knows(first)
    client.knows(second)
    client.knows(last, ProxyJump="first,second")
    connection = reach(way, "last")
    assert connection.call("probe", {"run_dirs": []})["host"] == "last"
    assert [host.logins() for host in (first, second, last)] == [1, 1, 1]
    route = connection.route()
    assert route is not None
    done = subprocess.run([*route.shell, route.host, "hostname"], capture_output=True, text=True, timeout=300)
    assert done.stdout == "last\n", done.stderr


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "a host on the way to box isn't known"),
        (["NAME OTHER"], "NAME HAS CHANGED"),
        (["@revoked NAME KEY", "NAME KEY"], "NAME IS REVOKED"),
    ],
)
@pytest.mark.parametrize("way", EVERY)
def test_a_bastion_whose_key_is_refused_is_named(
    new_host: Callable[..., Host], client: Client, way: str, lines: list[str], expected: str
) -> None:
    bastion, box = new_host("bastion"), new_host("box")
    client.knows(box, ProxyJump="bastion")
    known = client.known_hosts.read_text()
    client.knows(bastion)
    name = f"[{bastion.address}]:{bastion.port}"
    words = {"NAME": name, "KEY": bastion.public_key, "OTHER": box.public_key}
    for word, meant in words.items():
        lines = [line.replace(word, meant) for line in lines]
    client.known_hosts.write_text(known + "".join(f"{line}\n" for line in lines))
    with pytest.raises(TargetError, match=re.escape(expected.replace("NAME", name))) as refused:
        works(reach(way))
    assert not isinstance(refused.value, NotReached)


def on_a_terminal(words: list[str], answers: dict[str, str], patience_s: float = 240.0) -> str:
    """Run a command on a terminal of its own and answer its questions; return what was on the screen."""
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(words[0], words)
    screen, left, deadline = "", dict(answers), time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        screen += piece.decode(errors="replace")
        for question in [known for known in left if known in screen]:
            os.write(master, left.pop(question).encode() + b"\n")
    os.waitpid(pid, 0)
    os.close(master)
    assert not left, f"was not asked for {left}: {screen}"
    return screen


ASK = (
    "import sys; from dataclasses import replace; from pathlib import Path\n"
    "from oelm_jobs import connections; from oelm_jobs.targets import files as targets\n"
    "c = connections.connect(replace(targets.adhoc('box', root='oelm'), connection='openssh'), Path('/'))\n"
    "print('host is', c.call('probe', {'run_dirs': []})['host'])\n"
)


def test_whether_an_unknown_bastion_is_trusted_is_asked_once(new_host: Callable[..., Host], client: Client) -> None:
    client.knows(new_host("box"), ProxyJump="bastion")
    known = client.known_hosts.read_text()
    client.knows(new_host("bastion"))
    client.known_hosts.write_text(known)
    screen = on_a_terminal([sys.executable, "-c", ASK], {"(yes/no": "no"})
    assert screen.count("can't be established") == 1 and "a host on the way to box isn't known" in screen, screen


def test_a_second_factor_is_asked_once_for_all_commands(new_host: Callable[..., Host], client: Client) -> None:
    host = new_host("box", accounts=[Account("alice", password="one time code")], second_factor=True)
    client.knows(host)
    with pytest.raises(TargetError, match="second factor") as refused:
        works(reach("fabric"))
    assert 'connection = "openssh"' in refused.value.hint
    connection = reach("openssh")
    with pytest.raises(TargetError) as refused:
        works(connection)
    assert "oelm shell" in refused.value.hint, "off a terminal nobody is asked"
    screen = on_a_terminal([sys.executable, "-c", ASK], {"assword": "one time code"})
    assert "host is box" in screen
    try:
        assert works(connection)
        done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.stdout == "host is box\n", done.stderr
        route = connection.route()
        assert route is not None
        subprocess.run([*route.shell, route.host, "true"], check=True, stdin=subprocess.DEVNULL)
        assert host.logins() == 1
        assert all("one time code" not in path.read_text(errors="replace") for path in text_files(client, host))
    finally:
        log_out(connection)


def text_files(client: Client, host: Host) -> list[Path]:
    """Return everything that was written at either end."""
    folders = [client.place, host.home(), Path(os.environ["OELM_STATE_DIR"]).parent]
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


# Servers that lie -----------------------------------------------------------------------------------------------------


class Says:
    """A channel at whose other end somebody says what they like."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self._answer, self._nonce, self._done = answer, "", False

    def write(self, data: bytes, idle_s: float) -> None:
        if b'"nonce": "' in data:
            self._nonce = data.partition(b'"nonce": "')[2][:32].decode()

    def read(self, idle_s: float) -> bytes:
        if self._done:
            return b""
        if not self._nonce:
            return b"\noelm-jobs=1\n"
        self._done = True
        return self._answer(self._nonce)

    def close_input(self) -> None:
        pass

    def end(self) -> tuple[int | None, str]:
        return 0, ""

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda nonce: b"\n%s 99999999999\n{}" % nonce.encode(), "answers nonsense: .* no size"),
        (lambda nonce: b"\n%s -5\n{}" % nonce.encode(), "answers nonsense: .* no size"),
        (lambda nonce: b"\n%s 2\n[]" % nonce.encode(), "answers nonsense: .* must be an object"),
        (lambda nonce: b"\n%s 4\n{\xff}}" % nonce.encode(), "answers nonsense: .* no JSON"),
        (lambda nonce: b"\n%s 20\n{}" % nonce.encode(), "ended"),
        (lambda nonce: b'\n%s 12\n{"answer":1}' % (b"0" * 32), "ended before it read"),
        (lambda nonce: b'\n%s 13\n{"answer":[]}' % nonce.encode(), "answers nonsense: .* missing"),
        (lambda nonce: b"x" * (2 << 20), "prints more than 1 MB"),
    ],
)
def test_an_answer_that_is_not_the_agents_is_refused(answer: Callable[[str], bytes], expected: str) -> None:
    with pytest.raises(TargetError, match=expected):
        wire.converse(Says(answer), "probe", {}, [], own={}, timeout_s=5)
