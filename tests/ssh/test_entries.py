"""What the user's entry for a host in ~/.ssh/config wants of a login by hand is nothing to the toolkit's sessions."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from oelm_jobs import connections
from oelm_jobs.connections import sshconfig
from oelm_jobs.errors import TargetError
from oelm_jobs.transfer.rsync import Transfer
from tests.ssh.test_hosts import EVERY, reach, works
from tests.ssh.testbed import Client, Host, free_port

NEWER = {"SessionType": "none", "StdinNull": "yes", "ForkAfterAuthentication": "yes"}
"""Options that came with OpenSSH 8.7."""

OLD_CLIENT = """#!{python}
# Stands in for an OpenSSH client before 8.7: does not know its options, and says so as that one does.
import os, subprocess, sys
newer = ("sessiontype", "stdinnull", "forkafterauthentication")
words = sys.argv[1:]
for word in words:
    if word.lower().startswith(tuple(f"{{option}}=" for option in newer)):
        print("command-line: line 0: Bad configuration option: " + word.partition("=")[0].lower(), file=sys.stderr)
        sys.exit(255)
if "-G" in words:
    done = subprocess.run([{real!r}, *words], capture_output=True, text=True)
    print("\\n".join(line for line in done.stdout.splitlines() if not line.startswith(newer)))
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)
os.execv({real!r}, [{real!r}, *words])
"""


def is_held(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def ports() -> list[int]:
    return [free_port() for _ in range(3)]


@pytest.fixture
def wilful(box: Host, client: Client, ports: list[int], tmp_path: Path) -> Host:
    """The host by an entry that was made for logging in by hand."""
    client.config.write_text("")
    wishes = {
        "RemoteCommand": f"touch {tmp_path}/there; cat", "RequestTTY": "force", **NEWER,
        "LocalForward": f"{ports[0]} 127.0.0.1:{box.port}", "DynamicForward": str(ports[1]),
        "RemoteForward": f"{ports[2]} 127.0.0.1:{box.port}", "ExitOnForwardFailure": "yes",
        "PermitLocalCommand": "yes", "LocalCommand": f"touch {tmp_path}/here", "ForwardAgent": "yes",
        "ForwardX11": "yes", "ControlMaster": "auto", "ControlPath": f"{tmp_path}/theirs", "ControlPersist": "yes",
        "LogLevel": "QUIET",
    }  # fmt: skip
    client.knows(box, **wishes)
    return box


def all_works(way: str, ports: list[int], tmp_path: Path) -> None:
    connection = reach(way)
    assert works(connection)
    assert not any(map(is_held, ports)), "a port of the user's is held"
    Path(connection.resolved.root).mkdir(exist_ok=True)
    Path(connection.resolved.root, "file").write_bytes(b"content")
    route = connection.route()
    assert route is not None
    (tmp_path / way).mkdir()
    name = f"{connection.resolved.root}/file".lstrip("/")
    transfer = Transfer(f"{route.host}:/", f"{tmp_path / way}/", [name], route)
    transfer.process.wait(300)
    code, said = transfer.end()
    assert code == 0, said
    assert (tmp_path / way / name).read_bytes() == b"content"
    for options in ((), ("-tt",)):
        words = connection.terminal("test -t 1 && echo a terminal || echo a pipe", *options)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.stdout.strip() == ("a terminal" if options else "a pipe"), done.stderr
    assert not any(map(is_held, ports))
    left = {path.name for path in tmp_path.iterdir()} & {"here", "there", "theirs"}
    assert not left, "what the entry wants was done"


@pytest.mark.parametrize("way", EVERY)
def test_an_entry_made_for_logins_by_hand_changes_no_session(
    wilful: Host, ports: list[int], tmp_path: Path, way: str
) -> None:
    all_works(way, ports, tmp_path)


@pytest.mark.parametrize("way", EVERY)
def test_a_client_that_does_not_know_the_newer_options_is_not_given_them(
    wilful: Host, client: Client, ports: list[int], tmp_path: Path, way: str
) -> None:
    config = client.config.read_text()
    client.config.write_text("".join(line for line in config.splitlines(True) if line.split()[0] not in NEWER))
    wrapper = client.place / "bin" / "ssh"
    real = wrapper.with_name("real-ssh")
    wrapper.rename(real)
    wrapper.write_text(OLD_CLIENT.format(python=sys.executable, real=str(real)))
    wrapper.chmod(0o755)
    all_works(way, ports, tmp_path)


@pytest.mark.parametrize("way", EVERY)
def test_options_that_the_user_has_ignored_stay_ignored(box: Host, client: Client, way: str) -> None:
    client.config.write_text("IgnoreUnknown UseKeychain\nUseKeychain yes\n" + client.config.read_text())
    assert works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_a_port_is_led_there_and_given_back_while_those_of_the_entry_stay_free(
    wilful: Host, ports: list[int], way: str
) -> None:
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        connection, port = reach(way), free_port()
        end = connection.forward(port, server.server_port)
        with urlopen(f"http://127.0.0.1:{port}/", timeout=300) as answer:
            assert answer.read() == b"hello"
        assert not any(map(is_held, ports))
        with pytest.raises(TargetError, match=f"port {server.server_port} can't be forwarded"):
            connection.forward(server.server_port, port)
        subprocess.run(end, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        assert not is_held(port)
    finally:
        server.shutdown()
        connections.close_all()


def test_what_an_entry_has_none_of_is_no_file(client: Client) -> None:
    client.config.write_text("Host bare\n  IdentityAgent none\n  ControlPath none\nHost usual\n")
    for alias in ("bare", "usual"):
        settings = sshconfig.resolve(alias)
        assert settings.control_path == "", "the current folder is no socket of a master"
        assert settings.identity_agent == ("" if alias == "bare" else "$SSH_AUTH_SOCK")
