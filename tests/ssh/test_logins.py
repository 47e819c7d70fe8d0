"""Logins that run something else than they are told: it is named, and is never sent what is meant for Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from oelm_jobs import connections
from oelm_jobs.agent import bootstrap
from oelm_jobs.connections import greeting, remote, wire
from oelm_jobs.errors import NotReached, TargetError, UnknownAnswer
from tests.ssh.test_hosts import EVERY, reach, works
from tests.ssh.testbed import Account, Client, Host

REQUEST = "$(touch ran) `touch ran`; touch ran"
"""Stands where a user's own words stand in requests."""
RECORDER = '#!/bin/sh\ncat > "$HOME/heard"\n'
"""Takes down what it is sent, as any program does that reads its input."""


def refused(way: str, verb: str = "probe") -> TargetError:
    """Ask, and return what the answer is."""
    connections.close_all()
    with pytest.raises(TargetError) as found:
        reach(way).call(verb, {"run_dirs": [REQUEST], "root": "oelm", "token": "t", "runs": []})
    assert not isinstance(found.value, (NotReached, UnknownAnswer)), found.value
    return found.value


def lay_traps(host: Host) -> Path:
    """Give the words that a shell would make of our program commands that tell; return the file in which they do."""
    ran = host.place / "ran"
    lines = Path(str(bootstrap.__file__)).read_text().splitlines()
    words = {word for line in lines if len(word := line.strip().partition(" ")[0]) > 1 and word.isidentifier()}
    assert "import" in words
    for word in words - {"exit"}:
        trap = host.place / "bin" / word
        trap.write_text(f"#!/bin/sh\necho {word} >> {ran}\n")
        trap.chmod(0o755)
    return ran


def nothing_was_run(host: Host, ran: Path) -> None:
    assert not ran.exists(), f"a shell ran our program's words: {ran.read_text()}"
    assert not (host.home() / "ran").exists(), "a shell ran what stands in the request"


SHELLS = ["/bin/bash", "/bin/dash", "/bin/csh"]


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("shell", SHELLS)
def test_another_shell_that_takes_over_is_named_and_runs_nothing(box: Host, way: str, shell: str) -> None:
    ran = lay_traps(box)
    (box.home() / ".bashrc").write_text(f"echo welcome\nexec {shell}\n")
    for verb in ("probe", "launch"):
        error = refused(way, verb)
        assert "another shell takes over" in str(error) and "exec" in error.hint and ".bashrc" in error.hint
    nothing_was_run(box, ran)


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize(
    "before", ["read answer; exec bash", "read answer; exec csh", "/usr/bin/head -c 3 >/dev/null; exec dash"]
)
def test_not_even_one_that_was_given_the_first_line_before_runs_anything(
    box: Host, way: str, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_S", 2.0)
    ran = lay_traps(box)
    (box.home() / ".bashrc").write_text(before + "\n")
    error = refused(way)
    assert "exec" in error.hint and ".bashrc" in error.hint
    nothing_was_run(box, ran)


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("count", [1, 2])
def test_a_start_up_file_that_reads_is_named(box: Host, way: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "IDLE_S", 2.0)
    (box.home() / ".bashrc").write_text("read -p 'Load the module? ' answer\n" * count)
    for verb in ("probe", "launch"):
        error = refused(way, verb)
        assert "reads input" in str(error) and "`read`" in error.hint and ".bashrc" in error.hint


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("line", ["exit", "exit 3", "exec true", "echo 'Out of service.' >&2; exit 1"])
def test_a_start_up_file_that_ends_the_shell_is_named(box: Host, way: str, line: str) -> None:
    (box.home() / ".bashrc").write_text(line + "\n")
    error = refused(way)
    assert "ended before anything ran" in str(error) and "`exit`" in error.hint and ".bashrc" in error.hint
    if "service" in line:
        assert "Out of service." in str(error)


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("program", ["internal-sftp", "/usr/lib/openssh/sftp-server"])
def test_a_login_for_sftp_alone_is_named(new_host: Callable[..., Host], client: Client, way: str, program: str) -> None:
    client.knows(new_host("box", options=[f"ForceCommand {program}"]))
    error = refused(way)
    assert "file transfer alone (sftp)" in str(error) and "has a shell" in error.hint


@pytest.mark.parametrize("way", EVERY)
def test_a_login_without_a_shell_is_named(new_host: Callable[..., Host], client: Client, way: str) -> None:
    client.knows(new_host("box", accounts=[Account("alice", shell="/usr/sbin/nologin")]))
    error = refused(way)
    assert "has no shell" in str(error) and "nologin" in error.hint


@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("recorder", "ended before"),
        ("echo only backups here", "only backups here"),
        ('echo "not allowed: $SSH_ORIGINAL_COMMAND"', "ended before"),
        ("/bin/bash", "another shell"),
    ],
)
def test_a_forced_program_is_named_and_hears_no_more_than_one_harmless_line(
    box: Host, client: Client, way: str, program: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_S", 2.0)
    recorder = box.place / "bin" / "recorder"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    word = program.replace('"', '\\"')
    (box.place / "authorized_keys").write_text(f'command="{word}" {client.public_key}')
    error = refused(way)
    assert expected in str(error) and "command= in authorized_keys" in error.hint
    if program == "recorder":
        assert (box.home() / "heard").read_bytes() == greeting.FIRST_LINE


@pytest.mark.parametrize("way", EVERY)
def test_a_login_shell_that_says_nothing_does_not_hold_anybody_for_ever(
    box: Host, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_S", 1.0)
    monkeypatch.setattr(remote, "TRIES", 1)
    (box.home() / ".bashrc").write_text("sleep 600\n")
    with pytest.raises(NotReached, match="nothing came for too long"):
        works(reach(way))


@pytest.mark.parametrize("way", EVERY)
def test_a_login_shell_that_takes_its_time_is_waited_for(box: Host, way: str) -> None:
    (box.home() / ".bashrc").write_text("echo one moment; sleep 3; echo ready\n")
    assert works(reach(way))
    assert os.path.isdir(box.home() / "oelm")
