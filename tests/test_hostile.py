"""A server that lies, in every verb and in every way: no answer ends a command with an internal error, writes where it
may not, breaks the index, or steers the terminal.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from oelm_jobs import ledger
from oelm_jobs.agent import rundir, verbs
from oelm_jobs.store import Store
from tests.hostile import Server, World, frame, honest, places, reach, replaced, steers, without
from tests.slurm.recorded import prints
from tests.support import TINY_STUDY, end_all, needs, stand_in_for_python, wait_until, write_tokens
from tests.test_visible import HOSTILE

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "10"))
"""Lies for each command; more of them find more."""

COMMANDS = {
    "status": ("status",),
    "devices": ("status", "--gpus", "--json"),
    "rebuild": ("status", "--rebuild"),
    "adopt": ("status", "--adopt", "/gone"),
    "logs": ("logs", "oelm_freeze"),
    "logs as JSON": ("logs", "oelm_freeze", "--json", "--supervisor"),
    "fetch": ("fetch", "--checkpoints", "all"),
    "cancel": ("cancel", "oelm_freeze", "--yes"),
    "submit": ("submit", "--study", "tiny", "--target", "box", "--seeds", "43", "--group", "gpt_base"),
    "submit a script": ("submit", "--study", "script", "--target", "box"),
    "rerun": ("submit", "--study", "tiny", "--target", "box", "--group", "oelm_freeze", "--rerun", "--yes"),
    "send": ("submit", "--study", "tiny", "--target", "box", "--seeds", "43", "--send-data"),
    "fetch what is not over": ("fetch", "oelm_freeze", "--checkpoints", "all"),
    "fetch what was before": ("fetch", "--study", "tiny"),
    "clean": ("clean", "--all", "--yes"),
    "forget": ("forget", "oelm_freeze", "--yes"),
    "forget and remove": ("forget", "gpt_base", "--delete", "--yes"),
    "doctor": ("doctor", "box"),
    "settle": ("status",),
    "status of a cluster": ("status", "gpt_base-s50", "--gpus"),
    "submit to a cluster": ("submit", "--study", "tiny", "--target", "cluster", "--seeds", "51", "--group", "gpt_base"),
    "cancel on a cluster": ("cancel", "gpt_base-s50", "--yes"),
    "rerun on a cluster": (
        *("submit", "--study", "tiny", "--target", "cluster"),
        *("--seeds", "50", "--group", "gpt_base", "--rerun", "--yes"),
    ),
    "forget on a cluster": ("forget", "gpt_base-s50", "--yes"),
    "doctor of a cluster": ("doctor", "cluster"),
}
"""What is tried, each against every kind of lie."""
SCRIPT_STUDY = """\
factors = ["lr"]

[program]
command = "python script.py {lr} {seed}"
data = ["data/tiny"]

[groups]
low = { lr = 0.1 }
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A project with a run that was fetched, two that are over without its knowledge, and one of another project."""
    needs("rsync")
    base = tmp_path_factory.mktemp("hostile")
    made = World(place=base / "world", server=Server(home=base / "world" / "server"))
    with pytest.MonkeyPatch.context() as patch:
        _enter(made, patch)
        _stand_in_for_slurm(made, patch)
        reach(made.server, patch, _made(made.place / "bin"))
        patch.setattr("oelm_jobs.agent.notify.declared.begin", lambda *given, **named: None)
        _furnish(made)
        # What is submitted from now on never starts.
        patch.setattr(
            "oelm_jobs.agent.host.launch._start", lambda runs, *others: [os.close(run.handle) for run in runs]
        )
        yield made
        end_all(made.place)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _enter(world: World, patch: pytest.MonkeyPatch) -> None:
    """Let the user be the one of the world, for as long as the patch holds."""
    patch.chdir(".")
    patch.setenv("OELM_STATE_DIR", str(world.place / "state"))
    patch.setenv("OELM_LEASE_DIR", str(_made(world.place / "leases")))
    patch.setenv("XDG_CONFIG_HOME", str(world.place / "config"))
    patch.setenv("HOME", str(_made(world.place / "home")))
    patch.setenv("XDG_CACHE_HOME", str(world.place / "server" / ".cache"))  # the agent, which runs here, keeps its own


def _stand_in_for_slurm(world: World, patch: pytest.MonkeyPatch) -> None:
    """Put commands first on PATH that say of an idle cluster what Slurm's say."""
    partition = "main|main*|up|1-00:00:00|1:00:00|2|gpu:4(S:0-1)|fast"
    said = {
        "squeue": "",
        "sacct": "",
        "scancel": "",
        "sbatch": "Submitted batch job 77",
        "sinfo": partition,
        "sacctmgr": "",
        "scontrol": "SLURM_VERSION = 23.02.7\nClusterName = toy\nMaxArraySize = 1001\nPartitionName=main QoS=N/A",
    }
    for name, text in said.items():
        program = _made(world.place / "bin") / name
        program.write_text(f"#!/bin/sh\n{prints(text)}\n")
        program.chmod(0o755)
    patch.setenv("PATH", f"{world.place / 'bin'}:{os.environ['PATH']}")


def _furnish(world: World) -> None:
    project, root = world.project, world.place / "server" / "oelm"
    (_made(project / "jobs") / "tiny.toml").write_text(TINY_STUDY)
    (project / "jobs" / "script.toml").write_text(SCRIPT_STUDY)
    (project / "script.py").write_text("")
    python = stand_in_for_python(world.place / "bin" / "python")
    reach = f'host = "box"\nconnection = "openssh"\nroot = "{root}"\npython = "{python}"\n'
    (project / "jobs" / "targets.toml").write_text(
        f'[box]\nkind = "ssh"\n{reach}[cluster]\nkind = "slurm"\n{reach}[cluster.sbatch]\ntime = "1:00:00"\n'
    )
    write_tokens(project / "data" / "tiny" / "train.bin", 400, 64)
    write_tokens(project / "data" / "tiny" / "val.bin", 200, 64)
    shutil.copytree(project / "data", root / "data")
    configuration = _made(world.place / "config" / "oelm-jobs") / "config.toml"
    configuration.write_text('[notify]\non = ["fail"]\ncommand = ["true"]\n')
    (world.place / "home" / ".bashrc").write_text("mine")
    (project / "precious.txt").write_text("mine")
    os.chdir(project)

    def submit(group: str) -> Path:
        code, _, err = world.run("submit", "--study", "tiny", "--target", "box", "--group", group)
        assert code == 0, err
        run_dir = root / "models" / "checkpoints" / "tiny" / f"exp_{group}"
        wait_until((run_dir / ".oelm" / "end.json").exists, f"{run_dir} to be over")
        wait_until(lambda: not rundir.is_locked(run_dir / ".oelm" / rundir.CLAIM), f"{run_dir} to be left")
        return run_dir

    submit("gpt_base")
    for words in (("status",), ("fetch",)):
        code, _, err = world.run(*words)
        assert code == 0, err
    assert (project / "models" / "checkpoints" / "tiny" / "exp_gpt_base" / "best_model.pt").exists()
    submit("oelm_freeze")
    other = submit("oelm_no_freeze").with_name("exp_gpt_base-s77")
    shutil.copytree(root / "models" / "checkpoints" / "tiny" / "exp_gpt_base", other)
    words = ("submit", "--study", "tiny", "--target", "cluster", "--seeds", "50", "--group", "gpt_base")
    code, _, err = world.run(*words)
    assert code == 0, err
    record = json.loads((other / ".oelm" / "run.json").read_text())
    record.update(project="/gone", seed=77, run="gpt_base-s77", run_dir=str(other))
    (other / ".oelm" / "run.json").write_text(json.dumps(record))
    world.keep()


@pytest.fixture
def put_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world as it was, and its user's."""
    _enter(world, monkeypatch)
    sleep = time.sleep  # for a moment: who looks whether a process has ended must not look without a pause
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))
    monkeypatch.setattr("oelm_jobs.runs.control.ARRIVAL_S", 0.1)
    # The cluster's job stays one that its queue may not show yet, however long ago the world was made.
    monkeypatch.setattr("oelm_jobs.agent.slurm.state.NEW_S", 1e9)
    world.put_back()


# Lies -----------------------------------------------------------------------------------------------------------------

NONSENSE: tuple[Any, ...] = (
    None, True, -1, 0, 2.5, 1e308, 10**30, -(10**400), 2**63, float("nan"), float("inf"), "", "q", "x" * 100_000,
    "x" * 300, HOSTILE, "../../../../precious.txt", "/../../../..", "/etc/passwd", "~/.bashrc", "a\0b", "\ud800",
    "9" * 5000, "DONE", "PLANNED", [], {}, [[]], [None], {"": {}}, {"a": [1]}, {HOSTILE: HOSTILE}, [{}] * 50,
)  # fmt: skip
"""What stands where something else is meant."""


def _deep(opening: str, closing: str) -> Any:
    return lambda nonce, said, home: frame(
        nonce, f'{{"home": "{home}", "answer": {{"runs": {opening * 200_000}{closing * 200_000}}}}}'.encode()
    )


def _said(**message: Any) -> Any:
    return lambda nonce, said, home: frame(nonce, message)


FRAMES: dict[str, Callable[..., bytes]] = {
    "is cut": lambda nonce, said, home: frame(nonce, {"answer": said, "home": home})[:-5],
    "comes twice": lambda nonce, said, home: frame(nonce, {"answer": said, "home": home}) * 2,
    "never comes": lambda nonce, said, home: b"",
    "is nested as lists": _deep("[", "]"),
    "is nested as objects": _deep('{"a":', "}"),
    "has a size that is none": lambda nonce, said, home: f"\n{nonce} -5\n{{}}".encode(),
    "has a huge size": lambda nonce, said, home: f"\n{nonce} 99999999999\n{{}}".encode(),
    "is no JSON": lambda nonce, said, home: frame(nonce, b'{"answer": {,}'),
    "is not UTF-8": lambda nonce, said, home: frame(nonce, b'{"answer": {"a": "\xff\xfe"}}'),
    "holds NaN": lambda nonce, said, home: frame(nonce, b'{"answer": {"time": NaN}, "home": "/"}'),
    "holds 1e999": lambda nonce, said, home: frame(nonce, b'{"answer": {"time": 1e999}, "home": "/"}'),
    "holds a number of 100,000 digits": lambda nonce, said, home: frame(nonce, b'{"answer": ' + b"9" * 100_000 + b"}"),
    "is a list": lambda nonce, said, home: frame(nonce, [1]),
    "is null": lambda nonce, said, home: frame(nonce, None),
    "is empty": _said(),
    "lacks a home": lambda nonce, said, home: frame(nonce, {"answer": said}),
    "has another home": lambda nonce, said, home: frame(nonce, {"answer": said, "home": HOSTILE}),
    "has a list for a home": lambda nonce, said, home: frame(nonce, {"answer": said, "home": [home]}),
    "is null inside": _said(answer=None, home="/"),
    "needs what is not known": _said(need="0" * 64),
    "needs a list": _said(need=[1]),
    "is ready again": lambda nonce, said, home: frame(nonce, {"ready": True}) * 3,
    "is alive": lambda nonce, said, home: frame(nonce, {"alive": True}) * 1000,
    "is noise": lambda nonce, said, home: b"x" * (2 << 20),
    "is an error": _said(error=HOSTILE),
    "is a refusal": _said(error=HOSTILE, refused=True),
    "is a long error": _said(error="x" * 1_000_000),
    "is an odd error": _said(error="\ud800 of it"),
    "is a list of errors": _said(error=[[HOSTILE]]),
    "is an error about Python": _said(error=HOSTILE, python=True),
}
"""What a message is, other than an answer that is as agreed."""


def lie(kind: str, number: int, value: Any) -> Callable[[Any], Any]:
    """Return what makes of an answer another one: what stands at one place of it is changed."""

    def change(answer: Any) -> Any:
        ways = list(places(answer))
        at = ways[number % len(ways)]
        if kind == "drop":
            return without(answer, at)
        if kind == "double":
            return replaced(answer, at, lambda inner: [*inner, *inner] if isinstance(inner, list) else [inner, inner])
        if kind == "add":
            return replaced(
                answer,
                at,
                lambda inner: (
                    {**inner, "unheard_of": value, HOSTILE: value} if isinstance(inner, dict) else [inner, value]
                ),
            )
        return replaced(answer, at, lambda inner: value)

    return change


LIES = st.lists(
    st.tuples(
        st.sampled_from(("replace", "replace", "replace", "drop", "double", "add")),
        st.integers(0, 400),
        st.sampled_from(range(len(NONSENSE))),
    ),
    min_size=1,
    max_size=3,
)


def forget_answers(world: World) -> None:
    """Have the submissions' answers lost, and their client gone."""
    with Store() as store:
        store._db.execute("UPDATE submission SET answer = 'intent', maker = '{}'")
        store._db.execute("UPDATE run SET state = 'PLANNED' WHERE name <> 'gpt_base'")


def lose_data(world: World) -> None:
    """Have the server lack the data."""
    shutil.rmtree(world.place / "server" / "oelm" / "data")


def end_on_the_cluster(world: World) -> None:
    """Let the cluster's run have failed."""
    with Store() as store:
        store._db.execute("UPDATE run SET state = 'FAILED' WHERE name = 'gpt_base-s50'")


def take_for_running(world: World) -> None:
    """Let the index believe that a run is alive, and the server say so."""
    with Store() as store:
        store._db.execute("UPDATE run SET state = 'RUNNING' WHERE name = 'oelm_freeze'")
        run_dir = next(run.run_dir for run in store.runs(world.project) if run.name == "oelm_freeze")
    row = {"state": "RUNNING", "reason": "", "step": 5, "heartbeat_at": 1.0}
    world.server.known["probe", False] = {"host": "box", "time": time.time(), "runs": {run_dir: row}}


def lose_the_end(world: World) -> None:
    """Let a run have been cut off, with a checkpoint there."""
    run_dir = world.place / "server" / "oelm" / "models" / "checkpoints" / "tiny" / "exp_oelm_freeze"
    (run_dir / "MANIFEST.json").unlink()
    (run_dir / "checkpoint_5.pt").write_bytes(b"weights")


def wake(world: World) -> None:
    """Let the index believe that all runs are alive: they are asked for."""
    with Store() as store:
        store._db.execute("UPDATE run SET state = 'RUNNING' WHERE target = 'box'")


def leave_code_behind(world: World) -> None:
    """Let the server keep a snapshot that no run needs."""
    folder = world.place / "server" / "oelm" / ".oelm" / "snapshots"
    shutil.copytree(next(folder.iterdir()), folder / ("0" * 16))


def have_started_over(world: World) -> None:
    """Let the study be locked, and its ledger say that a run was started over whose first result the server has."""
    there = world.place / "server" / "oelm" / "models" / "checkpoints" / "tiny"
    run_dir, place = there / "exp_gpt_base", there / ".archive" / "exp_gpt_base-1"
    shutil.copytree(run_dir, place)
    record = json.loads((place / ".oelm" / "run.json").read_text())
    (place / ".oelm" / "run.json").write_text(json.dumps({**record, "token": "oelm-first"}))
    (_made(world.project / "experiments") / "tiny_lock.json").write_text("{}")
    ledger.append(world.project, "tiny", [ledger.Entry(
        event=ledger.RERUN, time=1.7e9, study="tiny", run="gpt_base", group="gpt_base", seed=42, tag="", fingerprint="",
        token="oelm-first", target="box", run_dir=str(run_dir), state="DONE", reason="", metric=None, value=None,
        step=None, has_result=True, gpu_hours=0.0, why="", files=ledger.ARCHIVED, place=str(place),
    )])  # fmt: skip


BEFORE: dict[str, Callable[[World], None]] = {
    "status": wake,
    "devices": wake,
    "cancel": take_for_running,
    "fetch what is not over": lose_the_end,
    "fetch what was before": have_started_over,
    "settle": forget_answers,
    "send": lose_data,
    "clean": leave_code_behind,
    "rerun on a cluster": end_on_the_cluster,
    "forget on a cluster": end_on_the_cluster,
}
"""What happens before some of the commands."""


def check(world: World, name: str, change: Callable[[str, Any], Any]) -> str:
    """Run a command against a lie, and see what it has left behind; return what it said."""
    command = COMMANDS[name]
    world.put_back()
    world.server.known.pop(("probe", False), None)
    BEFORE.get(name, lambda world: None)(world)
    before = world.outside()
    code, out, err = world.run(*command, change=change)
    said = out + err
    assert code in (0, 1, 2, 3), f"exit code {code}: {err}"
    assert not steers(out) and not steers(err), (out, err)
    assert len(err) < 20_000 and "Traceback" not in err, err
    assert world.outside() == before
    world.server.known.pop(("probe", False), None)
    code, out, err = world.run("status", "--json")
    assert code == 0, f"and then the index can't be read: {err}"
    names = ("gpt_base", "oelm_freeze", "oelm_no_freeze")
    if "forget" in command:  # which the one that it names may be
        names = tuple(each for each in names if each not in command)
    if not set(names) <= {
        run["name"] for run in json.loads(out)["runs"]
    }:  # what is not said to be there is not rebuilt
        assert "status" in command
        code, out, err = world.run("status", "--rebuild", "--json")
    stood = {run["name"]: run["state"] for run in json.loads(out)["runs"]}
    assert code == 0 and set(stood) >= set(names), (stood, err)
    assert world.outside() == before
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # a smaller lie is found by hand, in less time
)
@given(lies=LIES, whom=st.integers(0, 3))
@pytest.mark.usefixtures("put_back")
def test_no_answer_does_harm(world: World, name: str, lies: Any, whom: int) -> None:
    heard: list[str] = []

    def change(verb: str, answer: Any) -> Any:
        heard.append(verb)
        if whom and len(heard) != whom:  # one of its answers, or all
            return answer
        for kind, number, value in lies:
            answer = lie(kind, number, copy.deepcopy(NONSENSE[value]))(answer)
        return answer

    check(world, name, change)


def of(verb: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[str, Any], Any]:
    """Return what changes one verb's answer alone."""
    return lambda said, answer: change(answer) if said == verb else answer


def with_rows(change: Callable[[dict[str, Any]], Any]) -> Callable[[str, Any], Any]:
    """Return what changes each row of a probe's answer."""
    return of("probe", lambda answer: {**answer, "runs": {key: change(row) for key, row in answer["runs"].items()}})


def stored() -> list[Any]:
    """Return what the index has of the host that lies."""
    with Store() as store:
        return store._db.execute("SELECT * FROM run WHERE target = 'box' ORDER BY name").fetchall()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("status", with_rows(lambda row: {**row, "state": "BUSY"}), '.state = "BUSY": valid: '),
        ("status", with_rows(lambda row: ["DONE"]), " = a list of 1: must be an object"),
        ("status", with_rows(lambda row: {**row, "attempt": "q"}), '.attempt = "q": must be a whole number'),
        ("status", with_rows(lambda row: {**row, "reason": "x" * (10 << 20)}), "has 10485760 characters"),
        ("status", with_rows(lambda row: {**row, "loss": float("nan")}), "NaN is no number"),
        ("status", of("probe", lambda answer: {**answer, "runs": {}}), "is missing"),
        ("status", of("probe", lambda answer: without(answer, ("time",))), "probe.time is missing"),
        ("logs", of("log", lambda answer: {**answer, "offset": "none"}), 'log.offset = "none": must be a whole number'),
        ("logs", of("log", lambda answer: {**answer, "size": 10**9}), "log.offset = 0: was asked for from"),
        ("logs", of("log", lambda answer: {**answer, "size": answer["size"] + 7}), "is not what is sent"),
        ("logs", of("log", lambda answer: {**answer, "content": "no base64!"}), "log.content"),
        ("fetch", of("inventory", lambda answer: without(answer, ("rsync",))), "inventory.rsync is missing"),
        ("submit", of("probe", lambda answer: {**answer, "devices": 7}), "probe.devices = 7: must be a list"),
        ("doctor", of("examine", lambda answer: without(answer, ("limit",))), "examine.limit is missing"),
    ],
)
@pytest.mark.usefixtures("put_back")
def test_nonsense_is_named_and_nothing_of_it_is_stored(
    world: World, name: str, change: Callable[[str, Any], Any], wrong: str
) -> None:
    world.put_back()
    BEFORE.get(name, lambda world: None)(world)
    before = stored()
    code, out, err = world.run(*COMMANDS[name], change=change)
    assert code == 3 and "answers nonsense: " in out + err and wrong in out + err, (code, out, err)
    assert stored() == before


@pytest.mark.usefixtures("put_back")
def test_what_a_newer_agent_says_besides_is_ignored(world: World) -> None:
    world.put_back()
    wake(world)

    def newer(verb: str, answer: Any) -> Any:
        rows = {key: {**row, "unheard_of": [row]} for key, row in answer.get("runs", {}).items()}
        return {**answer, "unheard_of": 1, **({"runs": rows} if rows else {})}

    code, out, err = world.run("status", "--json", change=newer)
    assert code == 0, err
    assert {run["state"] for run in json.loads(out)["runs"] if run["target"] == "box"} == {"DONE"}
    assert "unheard_of" not in out + str(stored())


@pytest.mark.parametrize(
    ("column", "value"), [("progress", '{"attempt": "q"}'), ("progress", "[" * 100_000), ("state", "q"), ("reason", 7)]
)
@pytest.mark.usefixtures("put_back")
def test_nonsense_that_an_older_version_has_stored_breaks_no_status(world: World, column: str, value: Any) -> None:
    world.put_back()
    with Store() as store:
        store._db.execute(f"UPDATE run SET {column} = ?", (value,))
    code, out, err = world.run("status", "--json")
    assert code == 0 and len(json.loads(out)["runs"]) == 4, err


@pytest.mark.slow
@pytest.mark.parametrize("what", FRAMES)
@pytest.mark.usefixtures("put_back")
def test_no_message_does_harm(world: World, what: str) -> None:
    names = "error", "refusal", "cut", "never", "noise", "alive", "twice", "empty"
    for command in ("status", "fetch", "submit", "logs"):
        said = check(world, command, lambda verb, answer: FRAMES[what])
        assert "answers nonsense" in said or any(name in what for name in names), said


@pytest.mark.slow
@pytest.mark.usefixtures("put_back")
def test_the_truth_is_understood_whole_and_every_verb_was_tried(world: World) -> None:
    world.server.asked.clear()
    world.server.known.clear()
    said = {name: check(world, name, honest) for name in COMMANDS}
    assert "freed" in said["clean"], said["clean"]
    assert not world.server.unknown_keys, "agent/verbs.py does not know all that the agent says"
    assert world.server.asked == set(verbs.ANSWERS) - {""}, said
