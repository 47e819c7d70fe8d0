"""What people are told of runs on a plain host: of each event once, whoever was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import probe, processes, rundir
from oelm_jobs.agent.notify import asked, declared, forms, outbox, ways
from oelm_jobs.agent.notify.outbox import Outbox
from oelm_jobs.agent.notify.telling import GONE_S, Teller
from oelm_jobs.spec.study import Run
from tests.notify.server import Receiver, receiving, secret_file
from tests.support import (
    launch_runs,
    make_run,
    outcome_of,
    read,
    sleeping,
    stand_in_for_nvidia_smi,
    wait_for_state,
    wait_until,
)

pytestmark = pytest.mark.slow

GPUS = "".join(f"{n}, GPU-uuid-{n}, NVIDIA RTX A5000, 24564, 12, 0\\n" for n in range(4))


@pytest.fixture(autouse=True)
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, f"printf '{GPUS}'")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def declare(root: Path, runs: Sequence[Run], notify: dict[str, Any], token: str = "t1") -> Path:
    request = {
        "root": str(root), "study": "s", "project": "/p", "target": "local", "slurm": False,
        "notify": {"on": ["fail", "end"], "stalled_after_s": 0.0, **notify},
        "runs": {run.run_dir: token for run in runs},
    }  # fmt: skip
    return Path(asked.notify(request)["folder"])  # type: ignore[arg-type]


def to(root: Path, url: str) -> dict[str, Any]:
    """Return a webhook whose address is in a file."""
    return {"webhook": {"form": "json", "url_file": str(secret_file(root / "secret", url))}}


def closed(folder: Path) -> bool:
    return (folder / declared.CLOSED).exists() and not rundir.is_locked(folder / declared.LOCK)


def test_runs_that_end_at_once_are_told_once_each_and_the_study_once(root: Path, receiver: Receiver) -> None:
    runs = [make_run(root, name) for name in "abc"]
    folder = declare(root, runs, to(root, receiver.url))
    commands = [outcome_of("completed"), outcome_of("completed"), outcome_of("error", "loss is odd")]
    launch_runs(root, list(zip(runs, commands, strict=True)))
    wait_until(lambda: closed(folder), "all to be told")
    assert sorted(receiver.events()) == [("complete", ""), ("end", "a"), ("end", "b"), ("fail", "c")]
    assert receiver.events()[-1] == ("complete", ""), "the digest comes last"
    failed = next(post.json for post in receiver.posts if post.json["event"] == "fail")
    assert (failed["study"], failed["state"], failed["target"]) == ("s", "FAILED", "local")
    assert "loss is odd" in failed["reason"] and failed["title"] == f"oelm-jobs: c FAILED: {failed['reason']}"
    digest = receiver.posts[-1].json
    assert digest["runs"] == {"DONE": 2, "FAILED": 1} and [each["run"] for each in digest["failed"]] == ["c"]
    assert "study s is complete: 2 DONE, 1 FAILED" in digest["title"]
    # Whoever looks next finds all told, and starts nobody.
    probe.probe({"run_dirs": [], "tells": str(root)})
    assert closed(folder) and len(receiver.posts) == 4
    everything = [path for path in root.rglob("*") if path.is_file() and path != root / "secret"]
    assert not [path for path in everything if b"SECRET" in path.read_bytes()], "the address stands nowhere else"


def watchers(folder: Path) -> list[int]:
    """Return the processes that hold the lock of a study's folder."""
    lock, found = str(folder / declared.LOCK), []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            opened = os.listdir(f"/proc/{entry}/fd")
            if any(os.readlink(f"/proc/{entry}/fd/{fd}") == lock for fd in opened):
                found.append(int(entry))
    return found


def test_a_trained_process_that_is_killed_is_told_once_though_the_watcher_is_killed_too(
    root: Path, receiver: Receiver
) -> None:
    run = make_run(root, "a")
    folder = declare(root, [run], {"on": ["fail"], **to(root, receiver.url)})
    launch_runs(root, [(run, sleeping())])
    trained = wait_until(lambda: processes.of_run(run.run_dir), "it to train")
    (watcher,) = wait_until(lambda: watchers(folder), "the watcher")
    assert b"SECRET" not in Path(f"/proc/{watcher}/cmdline").read_bytes()
    os.kill(watcher, signal.SIGKILL)
    wait_until(lambda: not rundir.is_locked(folder / declared.LOCK), "the watcher to be gone")
    os.kill(trained[0].pid, signal.SIGKILL)
    wait_for_state(run, "FAILED")
    for _again in range(2):
        probe.probe({"run_dirs": [], "tells": str(root)})
        wait_until(lambda: closed(folder), "another one to find nothing more to tell")
        (folder / declared.CLOSED).unlink()
    assert receiver.events() == [("fail", "a"), ("complete", "")]
    assert "killed by SIGKILL" in receiver.posts[0].json["reason"]


def test_a_script_that_fails_before_its_supervisor_begins_is_told_too(root: Path, receiver: Receiver) -> None:
    run = make_run(root, "a")
    declare(root, [run], {"on": ["fail"], **to(root, receiver.url)})
    script = "#!/bin/sh\necho 'module: not found' >&2\nexit 78\n"
    from oelm_jobs.agent.host import launch

    launch.launch(
        {"root": str(root), "token": "t1", "runs": [{"run_dir": run.run_dir, "token": "t1", "script": script}]}
    )
    wait_until(lambda: receiver.posts, "it to be told")
    assert receiver.events()[0] == ("fail", "a") and "module: not found" in receiver.posts[0].json["reason"]


def test_a_run_without_progress_is_told_once_for_each_stall(root: Path, receiver: Receiver) -> None:
    run = make_run(root, "a")
    notify = {"on": ["stalled"], "stalled_after_s": 1.0, **to(root, receiver.url)}
    go_on = root / "go_on"
    program = (
        "import os, time\nprint('step 1', flush=True)\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.05)\nprint('step 2', flush=True)\ntime.sleep(600)\n"
    )
    launch_runs(root, [(run, [sys.executable, "-S", "-c", program])])
    log = Path(run.run_dir) / rundir.LOG
    wait_until(lambda: log.exists() and "step 1" in log.read_text(), "its first line")
    folder = declare(root, [run], notify)
    wait_until(lambda: len(receiver.posts) == 1, "the stall to be told")
    assert receiver.events() == [("stalled", "a")]
    assert "makes no progress for" in receiver.posts[0].json["title"]
    assert "last line: step 1" in receiver.posts[0].json["text"]
    go_on.touch()
    wait_until(lambda: len(receiver.posts) == 2, "the next stall to be told")
    assert "last line: step 2" in receiver.posts[1].json["text"]
    assert len(list(folder.glob("stalled-*.webhook.0.json"))) == 2


def test_a_run_that_is_submitted_again_is_told_again_and_one_that_is_gone_is_not_waited_for(
    root: Path, receiver: Receiver
) -> None:
    run, gone = make_run(root, "a"), make_run(root, "b")
    folder = declare(root, [run], {"on": ["fail"], **to(root, receiver.url)})
    launch_runs(root, [(run, outcome_of("error", "one"))])
    wait_until(lambda: closed(folder), "all to be told")
    declare(root, [run, gone], {"on": ["fail"], **to(root, receiver.url)}, token="t2")
    found = declared.read(folder)
    assert found is not None and not list(folder.glob("fail-*")), "what was told of an earlier submission is forgotten"
    launch_runs(root, [(run, outcome_of("error", "two"))], token="t2")
    wait_until(lambda: len(receiver.posts) == 3, "it to be told again")
    assert receiver.events() == [("fail", "a"), ("complete", ""), ("fail", "a")]
    row = probe.state_or_unknown
    assert not Teller(Outbox(folder)).look(found, lambda run_dir, token: row(run_dir, dict)), "one may still come"
    old = {run_dir: (token, since - GONE_S) for run_dir, (token, since) in found.runs.items()}
    assert Teller(Outbox(folder)).look(found._replace(runs=old), lambda run_dir, token: row(run_dir, dict))
    assert len({path.name.partition(".")[0] for path in folder.glob("complete-*")}) == 2, "another digest"


def test_new_settings_and_variables_hold_for_runs_that_are_under_way_and_need_no_rerun(
    root: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, webhook = make_run(root, "a"), {"webhook": {"form": "json", "url_env": "HOOK"}}
    folder = declare(root, [run], {"on": [], **webhook})
    launch_runs(root, [(run, sleeping())])
    wait_for_state(run, "RUNNING")
    (before,) = wait_until(lambda: watchers(folder), "the watcher")
    monkeypatch.setenv("HOOK", receiver.url)
    declare(root, [], {"on": ["end"], **webhook})
    wait_until(lambda: watchers(folder) not in ([], [before]), "it to leave to the one that has the variable")
    os.kill(read(rundir.control(run.run_dir, rundir.CLAIM))["pid"], signal.SIGTERM)
    wait_until(lambda: closed(folder), "all to be told")
    assert receiver.events() == [("end", "a"), ("complete", "")]
    assert receiver.posts[0].json["state"] == "CANCELLED"


# Servers that fail ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["down", "slow", "500", "0644"])
def test_a_run_is_none_the_worse_for_what_cant_be_sent_and_the_tries_are_on_record(
    root: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, holds = make_run(root, "a"), threading.Event()
    status = {"500": 500}.get(trouble, 200)
    with receiving(status=status, answer=b"", holds=holds if trouble == "slow" else None) as receiver:
        how = to(root, "http://127.0.0.1:1/SECRET" if trouble == "down" else receiver.url)
        if trouble == "0644":
            (root / "secret").chmod(0o644)
        folder = declare(root, [run], {"on": ["fail"], **how})
        launch_runs(root, [(run, outcome_of("error", "odd"))])
        row = wait_for_state(run, "FAILED")
        assert "odd" in row["reason"]
        (first,) = wait_until(lambda: list(folder.glob("fail-*.webhook.0.json")), "a try")
        if trouble == "slow":
            wait_until(lambda: receiver.posts, "the server to be asked")
            assert "sent" not in read(first), "the run is over, and its server has not answered yet"
        else:
            words = {"down": "refused", "500": "HTTP 500", "0644": "mode 0644"}[trouble]
            said = wait_until(lambda: read(first).get("said"), "it to fail")
            assert words in said and read(first)["sent"] is False
        log = (
            rundir.control(run.run_dir, rundir.SUPERVISOR_LOG).read_text()
            + (Path(run.run_dir) / "training.log").read_text()
        )
        assert "notif" not in log and "SECRET" not in log


def test_tries_are_few_and_a_try_that_was_cut_short_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fails(way: str, how: Any, message: forms.Message, patience_s: float | None) -> ways.Said:
        tried.append(message.title)
        return ways.Said(False, "HTTP 500")

    monkeypatch.setattr(ways, "send", fails)
    monkeypatch.setattr(outbox, "PAUSES_S", (0.0,) * (outbox.TRIES - 1))
    box, settings = Outbox(tmp_path), {"mail": "me@x.org"}
    message = forms.Message("fail", "it", "", {"token": "t"})
    assert box.put("fail", ["a"], lambda: message) and not box.put("fail", ["a"], lambda: message)
    while box.send(settings) is not None:
        pass
    assert len(tried) == outbox.TRIES
    assert [each[:3] for each in box.failures()] == [("it", "mail", "HTTP 500")]
    assert box.put("fail", ["b"], lambda: message)
    plain = {path.stem for path in tmp_path.glob("fail-*.json") if "." not in path.stem}
    (name,) = plain - {path.name.partition(".")[0] for path in tmp_path.glob("fail-*.mail.*.json")}
    elsewhere = {"time": time.time(), "host": "node7", "sent": False, "said": "no route"}
    (tmp_path / f"{name}.mail.0.json").write_text(json.dumps(elsewhere))
    monkeypatch.setattr(outbox, "PAUSES_S", (600.0,) * (outbox.TRIES - 1))
    assert Outbox(tmp_path).next_s(settings) == 0, "what a node could not send is the next one's at once"
    begun = {"time": time.time() - outbox.LOST_S - 1, "host": os.uname().nodename}
    (tmp_path / f"{name}.mail.0.json").write_text(json.dumps(begun))
    assert Outbox(tmp_path).send(settings) is None and len(tried) == outbox.TRIES


def test_settings_that_somebody_else_could_write_are_not_believed(root: Path) -> None:
    run = make_run(root, "a")
    folder = declare(root, [run], {"command": ["true"]})
    assert declared.read(folder) is not None
    for place, mode in ((folder, 0o770), (folder / declared.SETTINGS, 0o620)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert declared.read(folder) is None
        place.chmod(before)


def test_what_was_not_sent_is_named_to_the_doctor(root: Path) -> None:
    run = make_run(root, "a")
    folder = declare(root, [run], {"command": ["touch", str(root / "told")]})
    found = declared.read(folder)
    assert found is not None
    Outbox(folder).put("fail", ["a"], lambda: forms.Message("fail", "oelm-jobs: a FAILED", "", {"token": "t1"}))
    (name,) = [path.stem for path in folder.glob("fail-*.json")]
    for number in range(outbox.TRIES):
        tried = {"time": time.time(), "host": "box", "sent": False, "said": "exit code 1"}
        (folder / f"{name}.command.{number}.json").write_text(json.dumps(tried))
    request: Any = {"root": str(root), "notify": found.notify, "target": "box", "sends": False}
    answer = asked.notify_test(request)
    assert answer == {"wrong": {}, "sent": {}, "unsent": ["oelm-jobs: a FAILED (command: exit code 1)"]}
    assert not (root / "told").exists(), "nothing is sent unasked"
    assert asked.notify_test({**request, "sends": True})["sent"] == {"command": "exit code 0"}
    assert (root / "told").exists()
