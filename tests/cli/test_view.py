"""How runs look in a terminal: what a note says and what it leaves out, narrow and low terminals, many names."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from oelm_jobs import fitting
from oelm_jobs.agent.reasons import because
from oelm_jobs.agent.states import State
from oelm_jobs.cli import hosts, view
from oelm_jobs.errors import ConfigurationError, UnknownAnswer, few, valid_choices
from oelm_jobs.runs.observe import View
from oelm_jobs.runs.watch import views
from oelm_jobs.store import ACCEPTED, Store
from oelm_jobs.stored_run import StoredRun
from oelm_jobs.stored_run import stored as read_row
from tests.support import REPOSITORY, make_run

NOW = 1_000_000.0
TRAINING: dict[str, Any] = {
    "step": 300, "loss": 3.767, "val_loss": 3.8, "tokens_per_s": 100.0, "devices": ["n1/gpu:a5000:0"], "attempt": 2,
    "started_at": NOW - 30, "heartbeat_at": NOW - 5,
}  # fmt: skip
"""What a run says of itself that trains."""
NEVER = "can't start: it asks for more than you may have (QOSMaxGRESPerUser)"


def stored(name: str, state: State, reason: str = "", study: str = "s", **progress: Any) -> StoredRun:
    spec = {"train": {"max_steps": 600, "seq_len": 1}, "global_batch": 1}
    return StoredRun(
        "/p", study, name, "g", "g", 42, "", "cluster", f"/r/{name}", "f", "t", spec, state, reason, NOW, NOW, progress
    )


def cells(run: StoredRun) -> dict[str, str]:
    return dict(zip(view.HEADERS, view.row(run, NOW), strict=True))


def looked_at(runs: Sequence[StoredRun], **sizes: int) -> list[str]:
    """Return the lines that are shown of runs, without colours."""
    return click.unstyle(view.render(View(runs=tuple(runs), unreachable={}, at=NOW), **sizes)).splitlines()


def sixty() -> View:
    """Return runs of which the 9th and the 40th go, and the 60th failed."""
    states = [State.DONE] * 8 + [State.QUEUED] * 52
    states[8] = states[39] = State.RUNNING
    states[59] = State.FAILED
    reasons = {State.QUEUED: NEVER, State.FAILED: "out of memory: Slurm killed the job"}
    runs = [stored(f"oelm_freeze-s{n}", state, reasons.get(state, "")) for n, state in enumerate(states)]
    return View(runs=tuple(runs), unreachable={"cluster": "squeue: " + "no answer, " * 9}, at=NOW)


# Notes ----------------------------------------------------------------------------------------------------------------


def test_a_run_before_training_is_on_nothing_yet() -> None:
    assert cells(stored("r", State.RUNNING, "before training"))["note"] == "before training"
    assert cells(stored("r", State.RUNNING, **TRAINING))["note"] == "on n1/gpu:a5000:0; attempt 2"


def test_a_run_that_has_just_started_again_is_not_called_silent_and_has_no_rate_yet() -> None:
    again = cells(stored("r", State.RUNNING, **{**TRAINING, "heartbeat_at": NOW - 500}))
    assert again["note"] == "on n1/gpu:a5000:0; attempt 2"
    assert (again["tokens/s"], again["ETA"]) == ("–", "–")
    assert (again["step"], again["loss"]) == ("300/600", "3.767"), "what it resumes from"
    assert view.eta_seconds(stored("r", State.RUNNING, **{**TRAINING, "heartbeat_at": NOW - 500})) is None
    going = cells(stored("r", State.RUNNING, **TRAINING))
    assert (going["tokens/s"], going["ETA"]) == ("100", "3 s")


def test_a_run_that_waits_again_has_no_rate() -> None:
    assert cells(stored("r", State.QUEUED, "after time limit", **TRAINING))["tokens/s"] == "–"


@pytest.mark.parametrize("beat", [None, NOW - 500])
def test_a_run_without_a_sign_since_its_start_is_called_silent(beat: float | None) -> None:
    note = cells(stored("r", State.RUNNING, **{**TRAINING, "started_at": NOW - 180, "heartbeat_at": beat}))["note"]
    assert "no sign of progress for 3 min" in note


@pytest.mark.parametrize(("step", "told"), [(None, {}), (5, {}), (None, {"acc": 0.5}), (None, None)])
def test_a_script_whose_patterns_have_fitted_nothing_is_said_to_be_so(step: int | None, told: object) -> None:
    note = cells(stored("r", State.RUNNING, **{**TRAINING, "step": step, "metrics": told}))["note"]
    assert ("nothing has fitted the study's patterns so far" in note) is (step is None and told == {})


def test_a_job_is_named_once_and_before_long_words() -> None:
    assert cells(stored("r", State.RUNNING, "in job 87_1", job="87_1"))["note"] == "in job 87_1"
    long = cells(stored("r", State.RUNNING, "before training: module load x", job="87_1"))["note"]
    assert long == "job 87_1; before training: module load x"
    assert cells(stored("r", State.QUEUED, NEVER, job="87_1"))["note"] == f"{NEVER}; job 87_1"


def test_a_suspended_run_says_so_first_and_has_no_expected_end() -> None:
    run = stored("r", State.RUNNING, "suspended", **{**TRAINING, "attempt": 1})
    assert cells(run)["note"] == "suspended; on n1/gpu:a5000:0" and cells(run)["ETA"] == "–"


@pytest.mark.usefixtures("other_words")
def test_what_a_note_leaves_out_does_not_depend_on_its_words() -> None:
    run = stored("r", State.RUNNING, because("suspended"), **{**TRAINING, "attempt": 1})
    assert cells(run)["note"] == "<SUSPENDED>; on n1/gpu:a5000:0" and cells(run)["ETA"] == "–"
    run = stored("r", State.RUNNING, because("in_job", job="87_1"), job="87_1")
    assert cells(run)["note"] == "<IN_JOB> 87_1"
    (shown,) = view.as_json(View(runs=(run,), unreachable={}, at=NOW))["runs"]
    assert (shown["reason"], shown["code"], shown["values"]) == (run.reason, "in_job", {"job": "87_1"})


def test_devices_in_a_row_are_put_together() -> None:
    devices = ["n1/gpu:0", "n1/gpu:1", "n1/gpu:2", "n1/gpu:5", "n2/gpu:6", "n2/cpu"]
    note = cells(stored("r", State.RUNNING, devices=devices[:5]))["note"]
    assert note == "on n1/gpu:0-2, n1/gpu:5, n2/gpu:6"
    assert cells(stored("r", State.RUNNING, devices=devices[4:]))["note"] == "on n2/gpu:6, n2/cpu"


# Scripts --------------------------------------------------------------------------------------------------------------


def script(name: str, state: State, goal: dict[str, str] | None = None, **progress: Any) -> StoredRun:
    spec = {"program": {"settings": {}, "max_steps": 2000, "metrics": {"goal": goal or {}}}, "global_batch": 1}
    return stored(name, state, **progress)._replace(spec=spec)


ACCURACY = {"accuracy": "maximize", "val_loss": "minimize"}


def test_runs_of_scripts_show_their_main_metric_by_its_name() -> None:
    told = {"step": 500, "started_at": NOW - 105, "heartbeat_at": NOW - 5, "attempt": 1}
    runs = [
        script("a", State.RUNNING, ACCURACY, **told, metrics={"accuracy": 0.912345, "val_loss": 1.5}),
        script("b", State.RUNNING, ACCURACY, **told, metrics={"accuracy": "nan"}),
        script("c", State.QUEUED, ACCURACY),
    ]
    lines = [re.split(r" {2,}", line.strip()) for line in looked_at(runs)]
    assert lines[1] == ["run", "state", "step", "accuracy", "ETA", "note"]
    assert lines[3][:5] == ["a", "RUNNING", "500/2000", "0.91234", "5 min"]
    assert lines[4][3] == "nan" and lines[5][2:5] == ["–", "–", "–"]
    assert view.line(runs[0], NOW).split("  ")[-1] == "step 500/2000, accuracy 0.91234, ETA 5 min"


def test_scripts_without_a_goal_and_of_several_metrics_have_their_columns() -> None:
    titles = [re.split(r" {2,}", looked_at(runs)[1].strip()) for runs in (
        [script("a", State.DONE, metrics={"x": 1.0})],
        [script("a", State.DONE, {"x": "minimize"}), script("b", State.DONE, {"y": "minimize"})],
        [script("a", State.DONE, {"x": "minimize"}), stored("b", State.DONE)],
        [script("a", State.DONE, {"note\x1b[31m": "minimize"})],
    )]  # fmt: skip
    assert titles[0] == ["run", "state", "step", "ETA", "note"]
    assert titles[1] == ["run", "state", "step", "metric", "ETA", "note"]
    assert titles[2] == [*view.HEADERS]
    assert titles[3][3].startswith("note") and "\x1b" not in titles[3][3] and len(titles[3]) == 6


@pytest.mark.parametrize("metrics", ["3", '{"goal": [1]}', '{"goal": 5}'])
def test_metrics_of_the_index_that_make_no_sense_are_said_to_make_none(metrics: str) -> None:
    run = script("a", State.DONE)
    spec = f'{{"program": {{"settings": {{}}, "metrics": {metrics}}}, "global_batch": 0}}'
    row = (*run[: run._fields.index("spec")], spec, "DONE", "", NOW, NOW, "{}")
    assert "can't be understood: spec" in view.line(read_row(row), NOW)


def test_a_script_that_went_on_from_a_checkpoint_has_no_expected_end() -> None:
    told = {"step": 500, "started_at": NOW - 105, "heartbeat_at": NOW - 5}
    assert view.eta_seconds(script("a", State.RUNNING, ACCURACY, **told, attempt=1)) == pytest.approx(300)
    assert view.eta_seconds(script("a", State.RUNNING, ACCURACY, **told, attempt=2)) is None
    assert view.eta_seconds(script("a", State.DONE, ACCURACY, **told, attempt=1)) is None


def test_a_narrow_terminal_loses_a_scripts_metric_before_its_reason() -> None:
    runs = [script("a", State.QUEUED, ACCURACY)._replace(reason=NEVER)]
    lines = looked_at(runs, width=60)
    assert re.split(r" {2,}", lines[1])[:4] == ["run", "state", "step", "ETA"] and lines[3].endswith("…")
    assert all(fitting.width(line) <= 60 for line in lines[1:])


# Narrow terminals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, ["run", "state", "step", "loss", "val ppl", "tokens/s", "ETA", "note"]),
        (85, ["run", "state", "step", "loss", "val ppl", "ETA", "note"]),
        (80, ["run", "state", "step", "loss", "ETA", "note"]),
        (70, ["run", "state", "step", "ETA", "note"]),
        (30, ["run", "state", "step"]),
    ],
)
def test_a_narrow_terminal_loses_columns_before_reasons(width: int, columns: list[str]) -> None:
    lines = looked_at(
        [stored("gpt_base", State.QUEUED, NEVER), stored("other", State.RUNNING, **TRAINING)], width=width
    )
    assert re.split(r" {2,}", lines[1])[: len(columns)] == columns
    assert all(fitting.width(line) <= width for line in lines[1:])
    if width >= 70:
        assert "can't start: it asks for more than" in lines[3]
        assert lines[3].endswith("…") == (width < 200)


def test_a_long_name_gives_way_to_the_state_in_its_middle() -> None:
    names = ["oelm_freeze_with_a_long_name-s43-first", "oelm_freeze_with_a_long_name-s43-second"]
    lines = looked_at([stored(name, State.FAILED, NEVER) for name in names], width=40)
    assert all("FAILED" in line and fitting.width(line) <= 40 for line in lines[3:])
    assert lines[3].startswith("oelm_") and "s43-first " in lines[3] and "43-second " in lines[4]


def test_columns_stay_where_no_note_needs_their_room() -> None:
    assert "tokens/s" in looked_at([stored("gpt_base", State.RUNNING, **TRAINING)], width=90)[1]


@pytest.mark.parametrize("words", ["abcdef", "运行运行", "a运b行c"])
def test_words_are_cut_by_columns(words: str) -> None:
    for columns in range(1, 10):
        cut = fitting.cut(words, columns)
        assert cut == words if fitting.width(words) <= columns else fitting.width(cut) <= columns and cut[-1] == "…"


# Low terminals --------------------------------------------------------------------------------------------------------


def test_of_more_runs_than_lines_those_that_run_or_failed_stay_in_their_order() -> None:
    lines = looked_at(sixty().runs, width=80, height=20)
    assert len(lines) <= 30
    names = [line.split()[0] for line in lines if "oelm_freeze" in line]
    assert len(names) == 16 and names == sorted(names, key=lambda name: int(name.partition("-s")[2]))
    assert {"oelm_freeze-s8", "oelm_freeze-s39", "oelm_freeze-s59"} < {*names}
    assert "… 44 more: 36 QUEUED, 8 DONE" in lines


def test_all_runs_are_shown_where_there_is_room() -> None:
    runs = [stored(f"r{n}", State.DONE) for n in range(60)]
    assert len(looked_at(runs, height=63)) == 63
    assert looked_at(runs, height=62)[-1] == "… 2 more: 2 DONE"
    assert len(looked_at(runs)) == 4, "without a height they are counted"


def test_studies_share_the_lines_and_those_at_work_come_first() -> None:
    runs = [stored(f"r{n}", State.DONE, study=f"old{study}") for study in range(9) for n in range(3)]
    runs.append(stored("r", State.RUNNING, study="new"))
    for height in range(5, 60):
        lines = looked_at(runs, height=height)
        assert len(lines) <= height and "study new on cluster" in "\n".join(lines)
    assert looked_at(runs, height=3) == ["… 28 more: 1 RUNNING, 27 DONE"]


def on_a_terminal(program: str, width: int, height: int, cwd: Path = REPOSITORY) -> str:
    """Return what a Python program writes to a terminal of this size."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", program], cwd=cwd, stdout=theirs, env=environment) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed (pty(7))
                break
            if not piece:
                break
            written += piece
    os.close(ours)
    assert child.returncode == 0, written
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()).replace("\r", "")


@pytest.mark.slow
def test_watching_fits_the_terminal() -> None:
    program = (
        "from oelm_jobs.cli import view; from tests.cli.test_view import sixty; "
        "show = view.screen(); show.__enter__()(sixty()); show.__exit__(None, None, None)"
    )
    written = on_a_terminal(program, 80, 24)
    lines = written[written.rindex("study s on") :].strip("\n").split("\n")  # what is left when it ends
    assert len(lines) == 24 and all(len(line) <= 80 for line in lines)
    assert any(line.startswith("oelm_freeze-s39  RUNNING") for line in lines)
    assert any(line.startswith("… ") and "QUEUED" in line for line in lines)
    assert not any(line.strip() in ("...", "…") for line in lines), "rich's own mark of what does not fit"
    assert lines[-1].endswith("stands"), "why a target can't be asked is said to its end"


def remember(project: Path, names: Sequence[str], state: State, reason: str = "", target: str = "local") -> None:
    """Put runs into the index that no target has heard of."""
    runs = [make_run(project, name, study="tiny", target=target) for name in names]
    with Store() as store:
        store.intend(project, target, str(project), "t1", "{}", runs, lambda known: None)
        store.answer("t1", ACCEPTED, states={run.run_dir: (state, reason) for run in runs})


def test_a_watch_in_json_is_an_object_a_line_on_a_terminal_too(project: Path) -> None:
    remember(project, ["gpt_base"], State.DONE)
    program = (
        "import signal, time; from oelm_jobs.cli.status import main; "
        "time.sleep = lambda seconds: signal.raise_signal(signal.SIGINT); main(['--watch', '--json'])"
    )
    shown = on_a_terminal(program, 80, 24, project).splitlines()
    assert [json.loads(line)["runs"][0]["name"] for line in shown] == ["gpt_base"]


def test_what_is_cancelled_is_called_by_its_name_alone_where_no_other_is_meant(oelm: Any, project: Path) -> None:
    remember(project, ["gpt_base"], State.QUEUED)
    done = make_run(project / "other", "gpt_base", study="other", target="local")
    with Store() as store:
        store.intend(project, "local", str(project), "t2", "{}", [done], lambda known: None)
        store.answer("t2", ACCEPTED, states={done.run_dir: (State.DONE, "")})
    assert oelm("cancel", "--all", "--yes").stdout.startswith("gpt_base: ")


def test_a_status_keeps_to_the_terminals_width_and_a_pipe_gets_everything(oelm, project: Path) -> None:
    reason = "not submitted: " + "sbatch said so, " * 9 + "and that is all"
    remember(project, ["gpt_base"], State.FAILED, reason)
    shown = on_a_terminal("from oelm_jobs.cli.status import main; main([])", 80, 24, project).splitlines()
    assert len(shown) == 4 and max(map(len, shown)) == 80
    assert "tokens/s" not in shown[1] and "not submitted: sbatch said so" in shown[3] and shown[3].endswith("…")
    assert reason in oelm("status").stdout and "tokens/s" in oelm("status").stdout


# Targets --------------------------------------------------------------------------------------------------------------


def partition(name: str, **changes: Any) -> dict[str, Any]:
    row = {
        "name": name,
        "is_default": False,
        "is_up": True,
        "takes_jobs": True,
        "max_time": "1-00:00:00",
        "default_time": "1:00:00",
    }
    return {**row, "nodes": 2, "gres": ["gpu:a5000:4", "shard:8"], "features": [], **changes}


def test_the_partitions_of_a_cluster_are_shown() -> None:
    rows = [
        partition("low", is_default=True),
        partition("big", gres=["gpu:h100:8", "gpu:2"], nodes=16, max_time="infinite", is_up=False),
        partition("cores", gres=[], nodes=100),
    ]
    answer = {"devices": [], "queue": [], "disk_free": 3e9, "site": {"partitions": rows}}
    assert click.unstyle(hosts.render("cluster", answer)).splitlines()[1:] == [
        "partition  nodes  GPUs a node    max time  note",
        "---------  -----  -----------  ----------  -------",
        "low            2  4 x a5000    1-00:00:00  default",
        "big           16  8 x h100, 2    infinite  down",
        "cores        100  –            1-00:00:00",
    ]
    assert all(len(line) <= 30 for line in click.unstyle(hosts.render("cluster", answer, 30)).splitlines())
    shown = view.as_json(View(runs=(), unreachable={}, at=NOW, hosts={"cluster": answer}))
    assert shown["hosts"]["cluster"]["partitions"] == rows


# Many names -----------------------------------------------------------------------------------------------------------


def test_of_many_choices_the_nearest_are_named() -> None:
    names = [f"lr{n}" for n in range(1500)]
    assert valid_choices("none", names[:10]) == "valid: " + ", ".join(sorted(names[:10]))
    words = valid_choices("lr1499x", names)
    assert words.startswith("did you mean 'lr1499'? valid: lr1499, ") and words.endswith(" and 1,492 more")
    assert words.count(", ") == 7
    assert few(["a", "b"]) == "a, b"


def test_a_wrong_word_after_a_sweep_is_answered_in_a_line(oelm, project: Path) -> None:
    remember(project, [f"late{n}" for n in range(1500)], State.DONE)
    done = oelm("cancel", "later", check=False)
    assert done.returncode == 2 and len(done.stderr) < 400
    assert " and 1,493 more" in done.stderr and "oelm-status" in done.stderr  # the study's name is one, too


# A cluster that does not answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("squeue", "Socket timed out on send/recv operation; nothing was cancelled there"),
        ("scancel", "Socket timed out on send/recv operation; what was cancelled there is not known"),
    ],
)
def test_a_cancel_that_slurm_does_not_answer_says_what_it_did_and_what_to_do(
    oelm, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, expected: str
) -> None:
    (project / "jobs" / "targets.toml").write_text('[cluster]\nkind = "slurm"\npoll_s = 0\n')
    remember(project, ["gpt_base"], State.QUEUED, target="cluster")
    submission = project / ".oelm" / "submissions" / "t1.json"
    submission.parent.mkdir(parents=True)
    run_dir = str(project / "exp_gpt_base")
    submission.write_text(json.dumps({"jobs": [{"position": 0, "name": "oelm-t1-0", "run_dirs": [run_dir]}]}))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("squeue", "scancel", "sacct", "scontrol", "sinfo"):
        trouble = f"echo '{name}: error: slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1"
        job = "echo '12|N/A|PENDING|N/A|1000|(null)|p|normal|Priority|oelm-t1-0'" if name == "squeue" else "true"
        (programs / name).write_text(f"#!/bin/sh\n{trouble if name == broken else job}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = oelm("cancel", "--study", "tiny", check=False)
    assert done.returncode == 3 and expected in done.stderr, done.stderr
    assert "try it again: oelm-cancel --study tiny" in done.stderr


def test_a_target_whose_answer_is_lost_may_have_cancelled() -> None:
    from oelm_jobs.cli.cancel import _say_what_was_done

    error = UnknownAnswer("box: no answer to cancel", hint="look at the network")
    _say_what_was_done(error, again="oelm-cancel a")
    assert str(error) == "box: no answer to cancel; what was cancelled there is not known"
    assert error.hint == "try it again: oelm-cancel a; look at the network"


def test_a_file_that_is_half_saved_does_not_end_a_watch() -> None:
    looks: list[View | ConfigurationError] = [sixty(), ConfigurationError("targets.toml: not valid TOML"), sixty()]
    seen = list[View]()

    def poll() -> View:
        look = looks.pop(0)
        if isinstance(look, ConfigurationError):
            raise look
        return look

    for each in views(poll, interval_s=0):
        seen.append(each)
        if not looks:
            break
    targets = {run.target for run in seen[0].runs}
    assert [dict(each.unreachable) for each in seen] == [
        dict(seen[0].unreachable), dict.fromkeys(targets, "targets.toml: not valid TOML"), dict(seen[0].unreachable),
    ]  # fmt: skip
    with pytest.raises(ConfigurationError):
        looks.append(ConfigurationError("at the first look"))
        next(views(poll))
