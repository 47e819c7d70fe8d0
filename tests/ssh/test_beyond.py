"""What paramiko can't do as OpenSSH does: the command goes on through OpenSSH, or says in one line what is wrong."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oelm_jobs import connections
from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.connections import openssh, sshconfig
from oelm_jobs.errors import NotReached, TargetError
from tests.ssh.conftest import log_out, ssh_agent
from tests.ssh.test_hosts import ASK, EVERY, be_impatient, on_a_terminal, reach, works
from tests.ssh.testbed import Account, Client, Host, run

GOES_ON = "going on through OpenSSH"


def make_key(path: Path, *words: str) -> Path:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, *words, "-f", str(path))
    return path


def public(path: Path) -> str:
    """Return type and base64 of a key's public half."""
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


def name_of(host: Host) -> str:
    return f"[{host.address}]:{host.port}"


# Keys of the user's ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def agent_with(key: Path, place: Path) -> Iterator[Path]:
    """Have an agent that alone holds a key: the file is gone."""
    with ssh_agent(place):
        subprocess.run(
            ["ssh-add", str(key)], check=True, capture_output=True, env={**os.environ, "SSH_AUTH_SOCK": str(place)}
        )
        key.unlink()
        yield place


def test_the_agent_of_one_target_is_not_that_of_another(
    new_host: Callable[..., Host], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {}
    for name in ("one", "two"):
        hosts[name] = new_host(name)
        key = make_key(tmp_path / f"{name}-key")
        (hosts[name].place / "authorized_keys").write_text(Path(f"{key}.pub").read_text())
    with (
        agent_with(tmp_path / "one-key", tmp_path / "one-agent") as one,
        agent_with(tmp_path / "two-key", tmp_path / "two-agent") as two,
    ):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(two))
        client.knows(hosts["one"], IdentityAgent=str(one), IdentitiesOnly="no", IdentityFile="none")
        client.knows(hosts["two"], IdentitiesOnly="no", IdentityFile="none")
        client.knows(hosts["two"], alias="nobody", IdentityAgent="none", IdentitiesOnly="no", IdentityFile="none")
        assert works(reach("fabric", "one"))
        assert works(reach("fabric", "two")), "the second is let in by the agent of the environment"
        connections.close_all()
        assert works(reach("fabric", "two")) and works(reach("fabric", "one"))
        assert os.environ["SSH_AUTH_SOCK"] == str(two)
        with pytest.raises(TargetError, match="public-key login refused") as refused:
            works(reach("fabric", "nobody"))
        error = str(refused.value)
        assert isinstance(error, Sentence) and error.values["why"] == "no key was accepted"
        assert isinstance(error.values["why"], Sentence), "what paramiko carries of ours can still be translated"


@pytest.fixture
def certified(new_host: Callable[..., Host], client: Client, tmp_path: Path) -> Host:
    """A host that lets in whose key an authority has signed: ``mine``, which isn't in the client's entry yet."""
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "mine")
    host = new_host("box", options=[f"TrustedUserCAKeys {authority}.pub"])
    (host.place / "authorized_keys").write_text("")
    run("ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "alice", f"{key}.pub")
    return host


def test_a_certificate_that_is_named_lets_in_through_openssh_and_that_is_said_once(
    certified: Host, client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine-cert.pub").rename(tmp_path / "elsewhere.pub")
    client.knows(certified, IdentityFile=f"{tmp_path}/mine", CertificateFile=f"{tmp_path}/elsewhere.pub")
    connection = reach("fabric")
    assert works(connection)
    launch = {"root": connection.resolved.root, "token": "t", "runs": []}
    assert connection.call("launch", launch) is not None, "what acts goes on, too"
    connection.close()
    assert works(connection)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and GOES_ON in said[0] and said[0].startswith("box: "), said
    assert certified.logins() == 1


def test_a_certificate_beside_a_key_lets_in_and_one_that_is_not_believed_leaves_the_key(
    certified: Host, client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client.knows(certified, IdentityFile=f"{tmp_path}/mine")
    assert works(reach("fabric"))
    other = make_key(tmp_path / "other")
    run("ssh-keygen", "-q", "-s", str(other), "-I", "me", "-n", "alice", f"{tmp_path}/mine.pub")
    connections.close_all()
    with pytest.raises(TargetError, match="public-key login refused"):
        works(reach("fabric"))
    (certified.place / "authorized_keys").write_text((tmp_path / "mine.pub").read_text())
    connections.close_all()
    assert works(reach("fabric"))
    assert capfd.readouterr().err == ""


def test_a_certificate_whose_key_the_agent_holds_is_used_through_openssh(
    certified: Host, client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client.knows(certified, IdentityFile=f"{tmp_path}/mine", IdentityAgent=f"{tmp_path}/agent")
    (tmp_path / "copy").write_bytes((tmp_path / "mine").read_bytes())
    (tmp_path / "copy").chmod(0o600)
    with agent_with(tmp_path / "copy", tmp_path / "agent"):
        assert works(reach("fabric"))
    said = capfd.readouterr().err
    assert "the certificate beside" in said and said.count(GOES_ON) == 1


def test_one_key_file_that_cannot_be_read_does_not_keep_another_from_being_tried(
    box: Host, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "odd").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "odd").chmod(0o600)
    client.config.write_text(
        client.config.read_text().replace("  IdentityFile", f"  IdentityFile {tmp_path}/odd\n  IdentityFile", 1)
    )
    assert works(reach("fabric"))


def test_a_second_factor_is_asked_for_on_a_terminal_and_once_given_serves_those_without_one(
    new_host: Callable[..., Host], client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    host = new_host("box", accounts=[Account("alice", password="one time code")], second_factor=True)
    client.knows(host)
    script = ASK.replace("connection='openssh'", "connection='fabric'")
    screen = on_a_terminal([sys.executable, "-c", script], {"assword": "one time code"})
    assert "host is box" in screen and screen.count(GOES_ON) == 1, screen
    assert works(reach("fabric"))
    assert host.logins() == 1 and capfd.readouterr().err.count(GOES_ON) == 1
    connections.close_all()
    log_out(reach("openssh"))


# Keys of the host -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", EVERY)
def test_a_host_is_believed_by_its_authority(
    new_host: Callable[..., Host], client: Client, tmp_path: Path, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    authority = make_key(tmp_path / "authority")
    host = new_host("box", options=[f"HostCertificate {tmp_path}/host_key-cert.pub"])
    (tmp_path / "host_key.pub").write_text(host.public_key)
    run("ssh-keygen", "-q", "-s", str(authority), "-I", "box", "-h", "-n", host.address, str(tmp_path / "host_key.pub"))
    host.stop()
    host.start(client.public_key)
    client.knows(host)
    client.known_hosts.write_text(f"@cert-authority [{host.address}]:*,*.example {public(authority)}\n")
    assert works(reach(way))
    assert capfd.readouterr().err.count(GOES_ON) == (way == "fabric")
    other = make_key(tmp_path / "other")
    client.known_hosts.write_text(f"@cert-authority [{host.address}]:* {public(other)}\n")
    if way == "fabric":  # a master that is open is not asked for its key again
        log_out(reach(way))
        connections.close_all()
        with pytest.raises(TargetError, match="isn't known here"):
            works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_a_revoked_key_of_a_host_is_refused_however_well_it_is_known(
    box: Host, client: Client, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with client.known_hosts.open("a") as file:
        file.write(f"@revoked * {box.public_key}\n")
    with pytest.raises(TargetError, match="IS REVOKED") as refused:
        works(reach(way))
    assert not isinstance(refused.value, NotReached) and "@revoked" in refused.value.hint
    assert box.logins() == 0 and GOES_ON not in capfd.readouterr().err


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize(
    ("lines", "is_known"),
    [
        (["[127.0.0.?]:* KEY"], True),
        (["127.0.0.1 KEY"], True),  # without the port, as OpenSSH has it
        (["[127.0.0.*]:*,![127.0.0.1]:* KEY"], False),
        (["other.example KEY"], False),
        (["NAME OTHER", "NAME KEY"], True),  # a name that several machines answer to
        (["NAME KEY", "NAME OTHER"], True),
        (["NAME ssh-ed25519 AAAA", "NAME ssh-ed25519 %%%", "NAME", "\x00\xff\x01", "@what NAME KEY", "# NAME", "",
          "NAME KEY"], True),
        (["# NAME KEY"], False),
        (["@revoked NAME OTHER", "NAME KEY"], True),
        (["NAME\tKEY by\thand\r"], True),
        (["other.example KEY a comment\x0bNAME KEY"], False),
        (["other.example KEY a comment\x0c\x1c\x85NAME KEY"], False),
        (["other.example KEY a comment\xe2\x80\xa8NAME KEY"], False),  # U+2028
        (["NAME\xc2\xa0KEY"], False),  # U+00A0
    ],
)  # fmt: skip
def test_files_of_known_hosts_mean_what_they_mean_to_openssh(
    box: Host, client: Client, tmp_path: Path, way: str, lines: list[str], is_known: bool
) -> None:
    other = public(make_key(tmp_path / "other"))
    text = "\n".join(lines).replace("KEY", box.public_key).replace("OTHER", other).replace("NAME", name_of(box)) + "\n"
    client.known_hosts.write_bytes(text.encode("latin-1"))
    if is_known:
        assert works(reach(way))
    else:
        with pytest.raises(TargetError, match="isn't known here"):
            works(reach(way))
        assert box.logins() == 0


def test_the_kind_of_key_that_is_known_is_asked_for(
    new_host: Callable[..., Host], client: Client, tmp_path: Path
) -> None:
    run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(tmp_path / "rsa"))
    host = new_host("box", options=[f"HostKey {tmp_path}/rsa"])
    client.knows(host)
    client.known_hosts.write_text(f"{name_of(host)} {public(tmp_path / 'rsa')}\n")
    assert works(reach("fabric"))


def test_names_of_files_with_blanks_and_tokens_are_found(box: Host, client: Client, tmp_path: Path) -> None:
    spaced = tmp_path / "my known hosts"
    client.known_hosts.rename(spaced)
    client.key.rename(tmp_path / f"key-alice-127.0.0.1-{box.port}")
    client.config.write_text("")
    client.known_hosts.write_text("")
    client.knows(box, UserKnownHostsFile=f'/nowhere "{spaced}"', IdentityFile=f"{tmp_path}/key-%r-%h-%p")
    assert works(reach("fabric"))


# The way there --------------------------------------------------------------------------------------------------------

RELAY = """
import os, socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        line.sendall(data)
    line.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := line.recv(65536):
    os.write(1, data)
"""


@pytest.mark.parametrize("way", EVERY)
def test_a_proxy_command_is_a_line_of_shell_with_all_its_tokens(
    box: Host, client: Client, tmp_path: Path, way: str
) -> None:
    relay, told = tmp_path / "relay.py", tmp_path / "told"
    relay.write_text(RELAY)
    line = f'sh -c \'echo %h %p %r %n 100%% > {told}; exec "$0" "$@"\' {sys.executable} {relay} %h %p 2>/dev/null'
    client.config.write_text("")
    client.knows(box, ProxyCommand=line)
    assert works(reach(way))
    assert told.read_text() == f"127.0.0.1 {box.port} alice box 100%\n"


@pytest.mark.parametrize("way", EVERY)
def test_a_proxy_command_that_fails_is_told_in_its_own_words(box: Host, client: Client, way: str) -> None:
    client.config.write_text("")
    client.knows(box, ProxyCommand="sh -c 'echo no tunnel today >&2; exit 3'")
    with pytest.raises(NotReached, match="can't be reached: no tunnel today"):
        works(reach(way))


@pytest.mark.parametrize(
    "after",
    [
        "kex_exchange_identification: Connection closed by remote host",
        "banner exchange: Connection to UNKNOWN port 65535: Broken pipe",
        "Connection closed by UNKNOWN port 65535",
    ],
)
def test_what_ssh_says_after_a_proxy_command_is_not_its_reason(box: Host, client: Client, after: str) -> None:
    """Which of these it says depends on how fast the command ended."""
    client.knows(box)
    said = sshconfig.explain(sshconfig.resolve("box"), f"no tunnel today\r\n{after}\r\n")
    assert str(said).endswith("can't be reached: no tunnel today")


ALGORITHMS = {
    "key exchange": ["KexAlgorithms sntrup761x25519-sha512@openssh.com"],
    "cipher": ["Ciphers chacha20-poly1305@openssh.com"],
    "mac": ["Ciphers aes128-ctr", "MACs umac-128-etm@openssh.com"],
}
"""What OpenSSH has and paramiko has not."""


@pytest.mark.parametrize("what", ALGORITHMS)
def test_a_host_whose_algorithms_paramiko_does_not_know_is_reached_through_openssh(
    new_host: Callable[..., Host], client: Client, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client.knows(new_host("box", options=ALGORITHMS[what]))
    assert works(reach("fabric"))
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "no algorithm" in said[0] and GOES_ON in said[0], said


@pytest.mark.parametrize("what", ALGORITHMS)
def test_algorithms_that_the_user_does_not_allow_are_not_used(
    box: Host, client: Client, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client.config.write_text("")
    client.knows(box, **dict(line.split(" ", 1) for line in ALGORITHMS[what]))
    assert works(reach("fabric"))
    assert GOES_ON in capfd.readouterr().err


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize(
    "options",
    [["KexAlgorithms diffie-hellman-group1-sha1"], ["Ciphers aes128-cbc"], ["Ciphers aes128-ctr", "MACs hmac-md5"],
     ["HostKeyAlgorithms ssh-rsa"]],
)  # fmt: skip
def test_a_host_without_any_common_algorithm_is_one_line(
    new_host: Callable[..., Host], client: Client, tmp_path: Path, way: str, options: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run("ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(tmp_path / "rsa"))
    host = new_host("box", options=[*options, f"HostKey {tmp_path}/rsa"])
    client.knows(host)
    with client.known_hosts.open("a") as file:
        file.write(f"{name_of(host)} {public(tmp_path / 'rsa')}\n")
    with pytest.raises(TargetError, match="can't be talked to: Unable to negotiate") as refused:
        works(reach(way))
    assert not isinstance(refused.value, NotReached) and "~/.ssh/config" in refused.value.hint
    assert len(capfd.readouterr().err.splitlines()) == (way == "fabric")


# Hosts that hang ------------------------------------------------------------------------------------------------------


class Stall:
    """A line to a host on which, after so many bytes from there, nothing comes any more."""

    def __init__(self, host: Host, limit: int) -> None:
        self._host, self._limit = host, limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._host.address, self._host.port))
                self._kept += [near, far]
                threading.Thread(target=self._pump, args=(near, far, 1 << 60), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, self._limit), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left and (data := source.recv(min(left, 1 << 16))):
                sink.sendall(data)
                left -= len(data)

    def close(self) -> None:
        for made in (self._listener, *self._kept):
            made.close()


STEPS = {"before it says anything": 0, "after its banner": 60, "in the key exchange": 1200, "at the login": 1900}


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("step", STEPS)
def test_a_host_that_hangs_is_one_line_in_bounded_time(
    box: Host, client: Client, way: str, step: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    be_impatient(monkeypatch)
    monkeypatch.setattr(openssh, "LOGIN_S", 3.0)
    stall = Stall(box, STEPS[step])
    try:
        client.knows(box, alias="far", HostName="127.0.0.1", Port=str(stall.port), ConnectTimeout="2")
        with pytest.raises(NotReached) as found:
            works(reach(way, "far"))
        assert "\n" not in str(found.value) and str(found.value).startswith("far")
        time.sleep(0.3)  # for what a thread of paramiko's might still say
        assert capfd.readouterr().err == ""
    finally:
        stall.close()


class Talker:
    """A server that says what it likes to everybody who calls, and goes on."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]]) -> None:
        self._pieces = pieces
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(near,), daemon=True).start()

    def _talk(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            for piece in self._pieces():
                near.sendall(piece)

    def close(self) -> None:
        self._listener.close()


def drip() -> Iterator[bytes]:
    while True:
        yield b"x"
        time.sleep(0.1)


def silence() -> Iterator[bytes]:
    time.sleep(600)
    yield b""


TALK: dict[str, Callable[[], Iterator[bytes]]] = {
    "silent": silence,
    "drips": drip,
    "web": lambda: iter([b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\x1b[31mno</html>\r\n"]),
    "old": lambda: iter([b"SSH-1.5-old\r\n"]),
    "junk": lambda: iter([b"SSH-2.0-x\r\n", os.urandom(4096)]),
    "huge": lambda: iter([b"SSH-2.0-x\r\n", b"\x00\x00\x01\x0c\x0a\x14" + b"\xff" * 266]),
}


TELL = (
    "from pathlib import Path\n"
    "from oelm_jobs import connections, errors; from oelm_jobs.targets import files as targets\n"
    "from oelm_jobs.connections import fabric, openssh, remote\n"
    "fabric.LOGIN_S, openssh.LOGIN_S, remote.TRIES = 2.0, 3.0, 1\n"
    "try:\n"
    "    connections.connect(targets.adhoc('far', root='x'), Path('/')).call('probe', {'run_dirs': []})\n"
    "except errors.TargetError as error:\n"
    "    print(error)\n"
)


@pytest.mark.parametrize("talk", TALK)
def test_a_server_that_talks_nonsense_is_one_line(box: Host, client: Client, talk: str) -> None:
    """In a process of its own: pytest takes what logging would print."""
    server = Talker(TALK[talk])
    try:
        client.knows(box, alias="far", HostName="127.0.0.1", Port=str(server.port), ConnectTimeout="1")
        done = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, timeout=120)
        said = done.stdout.removesuffix("\n")
        assert said.startswith("far") and said.isprintable() and done.returncode == 0, done
        assert all(GOES_ON in line for line in done.stderr.splitlines()), done.stderr
    finally:
        server.close()
