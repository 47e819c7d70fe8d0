"""The contract of a connection, kept by all ways to reach a target."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oelm_jobs import connections
from oelm_jobs.agent import messages, registry
from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.code import snapshot
from oelm_jobs.connections import Connection, remote, wire
from oelm_jobs.errors import NotReached, TargetError, UnknownAnswer
from oelm_jobs.targets import files as targets
from oelm_jobs.transfer.rsync import Transfer
from tests.ssh.testbed import Client, Host

WAYS = ["local", "fabric", "openssh", "plain ssh"]
AWKWARD = ["with space", "it's", 'say "x"', "实验", "$(touch x)", "`id`", "a;b&c|d", "%j *?[x]"]


@pytest.fixture(params=WAYS)
def connection(
    request: pytest.FixtureRequest, tmp_path: Path, new_host: Callable[..., Host], client: Client
) -> Iterator[Connection]:
    """The same target by every way: root ``work`` below a home folder."""
    if request.param == "local":
        target = replace(targets.LOCAL, root="work")
    else:
        host = new_host("box")
        client.knows(host)
        way = "fabric" if request.param == "plain ssh" else request.param
        target = replace(targets.adhoc("box", root="work"), connection=way)
    connect = connections.connect_for_transfer if request.param == "plain ssh" else connections.connect
    yield connect(target, tmp_path)


def tree(folder: Path, files: dict[str, bytes]) -> snapshot.Tree:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
    return snapshot.tree((name, folder / name) for name in files)


def test_root_and_paths_are_absolute(connection: Connection) -> None:
    assert connection.resolved.root.startswith("/") and connection.resolved.root.endswith("/work")
    there = replace(connection.target, data={"data/x": "shared/x", "y": "/abs/y"}, checkpoint_root="big/runs")
    resolved = connections.connect(there, Path(connection.resolved.root).parent).resolved
    base = connection.resolved.root.removesuffix("/work")
    assert resolved.data == {"data/x": f"{base}/shared/x", "y": "/abs/y"}
    assert resolved.checkpoint_root == f"{base}/big/runs"


def test_a_tree_is_placed_whole_once_and_read_only(connection: Connection, tmp_path: Path) -> None:
    sent = tree(tmp_path / "tree", {"a.sh": b"#!/bin/sh\n", "deep/b.bin": bytes(range(256)), "deep/实验.txt": b"x"})
    for _ in range(2):
        place = Path(connection.keep_tree(sent, f"{connection.resolved.root}/trees"))
        assert place == Path(connection.resolved.root, "trees", sent.hash)
        assert (place / "deep" / "b.bin").read_bytes() == bytes(range(256))
        assert (place / "deep" / "实验.txt").read_bytes() == b"x"
        assert stat.S_IMODE((place / "a.sh").stat().st_mode) == 0o500
        assert stat.S_IMODE((place / "deep" / "b.bin").stat().st_mode) == 0o400
        assert os.listdir(place.parent) == [sent.hash]
        (tmp_path / "tree" / "a.sh").write_bytes(b"changed")  # its name says what it holds: it is not sent again
        assert (place / "a.sh").read_bytes() == b"#!/bin/sh\n"


def test_of_a_large_tree_only_what_changed_is_sent_again(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"part{number // 100}/{number}.py": b"# %d\n" % number * 20 for number in range(5000)}
    sent: list[int] = []
    pack = wire.pack
    monkeypatch.setattr(wire, "pack", lambda tree, numbers: pack(tree, [sent.append(n) or n for n in numbers]))
    first = Path(connection.keep_tree(tree(tmp_path / "tree", files), f"{connection.resolved.root}/trees"))
    files["part7/777.py"] = b"changed = True\n"
    sent.clear()
    second = Path(connection.keep_tree(tree(tmp_path / "tree", files), f"{connection.resolved.root}/trees"))
    assert len(sent) == (0 if connection.target.kind == "local" else 1)
    assert (second / "part7" / "777.py").read_bytes() == files["part7/777.py"]
    assert (first / "part7" / "777.py").read_bytes() == b"# 777\n" * 20
    assert (first / "part0" / "1.py").samefile(second / "part0" / "1.py")


def test_the_agent_answers_about_runs_and_host(connection: Connection) -> None:
    answer = connection.call("probe", {"run_dirs": ["/nowhere"], "root": connection.resolved.root})
    assert answer["runs"]["/nowhere"]["state"] == "UNKNOWN"
    assert answer["disk_free"] > 0 and answer["devices"]


def test_names_and_contents_arrive_as_they_are(connection: Connection) -> None:
    for name in AWKWARD:
        folder = Path(connection.resolved.root, name)
        folder.mkdir(parents=True)
        (folder / "training.log").write_bytes(name.encode())
        answer = connection.call("log", {"run_dir": str(folder), "name": "training.log", "offset": 0})
        assert base64.b64decode(answer["content"]).decode() == name
    assert set(os.listdir(connection.resolved.root)) - {".oelm"} == set(AWKWARD)


def test_an_answer_may_be_large(connection: Connection) -> None:
    Path(connection.resolved.root).mkdir(parents=True, exist_ok=True)
    content = os.urandom(1 << 20)
    Path(connection.resolved.root, "training.log").write_bytes(content)
    answer = connection.call("log", {"run_dir": connection.resolved.root, "name": "training.log", "offset": 0})
    assert base64.b64decode(answer["content"]) == content


def test_a_request_may_be_large(connection: Connection) -> None:
    names = [f"/nowhere/{number:06}" for number in range(20000)]
    assert len(connection.call("probe", {"run_dirs": names})["runs"]) == len(names)


def test_an_act_that_certainly_did_nothing_is_told_from_one_that_may_have(
    connection: Connection, tmp_path: Path
) -> None:
    assert connection.resolved.root
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TargetError) as refused:
        connection.call("launch", {"root": str(tmp_path / "file"), "token": "t", "runs": []})
    assert not isinstance(refused.value, UnknownAnswer) and "nothing can be written" in str(refused.value)
    with pytest.raises(TargetError) as misunderstood:
        connection.call("archive", {"run_dirs": 7})
    assert not isinstance(misunderstood.value, UnknownAnswer) and "archive.run_dirs = 7" in str(misunderstood.value)
    run_dir = tmp_path / "runs" / "exp_a"
    (run_dir / ".oelm").mkdir(parents=True)
    (tmp_path / "runs" / ".archive").write_text("not a folder")
    with pytest.raises(UnknownAnswer):
        connection.call("archive", {"run_dirs": [str(run_dir)]})


def test_what_the_agent_says_arrives_as_sentences(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as refused:
        connection.call(registry.ARCHIVE, {"run_dirs": ["/x"]})
    why = said(refused.value)
    assert why.template.startswith("{path!r} is no run directory") and why.values["path"] == "/x"
    sent = replace(tree(tmp_path / "tree", {"a.py": b"x\n"}), hash="0" * 16)
    with pytest.raises(TargetError) as damaged:
        connection.keep_tree(sent, f"{connection.resolved.root}/trees")
    assert said(damaged.value).template.startswith("what arrived is not what was sent")
    run_dir = tmp_path / "exp_a"
    (run_dir / ".oelm").mkdir(parents=True)
    (run_dir / ".oelm" / "fetched.json").write_text("{}")
    row: messages.Removable = {"run_dir": str(run_dir), "files": {"a.pt": (1, "0" * 64)}}
    removed = connection.call(registry.REMOVE, {"root": connection.resolved.root, "runs": [row]})["runs"]
    kept = removed[str(run_dir)]["kept"]["a.pt"]
    assert isinstance(kept, Sentence) and kept.template == kept == "it is the client's own copy"


def said(error: TargetError) -> Sentence:
    """Return what was said there of what an error names with its target."""
    whole = error.args[0]
    assert isinstance(whole, Sentence) and whole.template == "{target}: {why}" and str(error) is whole
    why = whole.values["why"]
    assert isinstance(why, Sentence)
    return why


def test_it_can_be_used_again_after_it_was_closed(connection: Connection) -> None:
    for _ in range(2):
        assert connection.call("probe", {"run_dirs": []})["runs"] == {}
        connection.close()


def test_rsync_gets_there_by_the_same_rules(connection: Connection, tmp_path: Path) -> None:
    folder = Path(connection.resolved.root, AWKWARD[2])
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"content")
    route = connection.route()
    source = f"{route.host}:/" if route else "/"
    (tmp_path / "to here").mkdir()
    transfer = Transfer(source, f"{tmp_path}/to here/", [f"{folder}/file".lstrip("/")], route)
    transfer.process.wait(300)
    assert transfer.end()[0] == 0
    assert (tmp_path / "to here" / f"{folder}/file".lstrip("/")).read_bytes() == b"content"


@pytest.mark.parametrize("way", ["fabric", "openssh", "plain ssh"])
def test_rsync_takes_an_address_with_colons_for_a_host(box: Host, client: Client, tmp_path: Path, way: str) -> None:
    """An IPv6 address before a path reads like a module of an rsync daemon."""
    client.knows(box, alias="fd00::7")
    target = replace(targets.adhoc("fd00::7", root="work"), connection="openssh" if way == "openssh" else "fabric")
    connect = connections.connect_for_transfer if way == "plain ssh" else connections.connect
    made = connect(target, tmp_path)
    folder = Path(made.resolved.root)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_bytes(b"content")
    route = made.route()
    assert route is not None
    transfer = Transfer(f"{route.host}:/", f"{tmp_path}/here/", [f"{folder}/file".lstrip("/")], route)
    transfer.process.wait(60)
    assert transfer.end() == (0, "")
    assert (tmp_path / "here" / f"{folder}/file".lstrip("/")).read_bytes() == b"content"


def test_a_line_of_shell_runs_on_the_terminal(connection: Connection) -> None:
    assert connection.resolved.root
    words = connection.terminal("cd /; pwd")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stdout == "/\n"


def test_the_suites_own_interpreter_is_named_for_runs(connection: Connection) -> None:
    assert connection.python == (sys.executable if connection.route() is None else "python3")


def test_what_ails_one_request_leaves_those_of_other_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(remote.RemoteConnection):
        drops = 0

        def _open(self, line: str) -> Any:
            return SimpleNamespace(close=lambda: None)

        def _drop(self) -> None:
            self.drops += 1

    begun, may_end = threading.Event(), threading.Event()

    def converse(channel: object, verb: str, *args: object, **more: object) -> wire.Reply:
        if verb == registry.CANCEL:
            begun.set()
            may_end.wait(60)
            return wire.Reply(answer={"runs": {}}, home="/h", is_noisy=False)
        raise wire.Interrupted("took longer than 1 s", True)

    monkeypatch.setattr(remote, "converse", converse)
    monkeypatch.setattr(remote, "TRIES", 1)
    shared = Counted(targets.adhoc("box"))
    act = threading.Thread(target=lambda: shared.call(registry.CANCEL, {"runs": {}, "grace_s": 0.0}))
    act.start()
    assert begun.wait(60)
    with pytest.raises(NotReached):
        shared.call(registry.LOG, {"run_dir": "/r", "name": "x", "offset": None, "lines": 1, "wait_s": 0.0})
    assert shared.drops == 0
    may_end.set()
    act.join(60)
    with pytest.raises(NotReached):
        shared.call(registry.LOG, {"run_dir": "/r", "name": "x", "offset": None, "lines": 1, "wait_s": 0.0})
    assert shared.drops == 1
