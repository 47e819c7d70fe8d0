"""The Python API: what it exports, and a study from plan to results without a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import oelm_jobs
from oelm_jobs import Again, Project, State, Submitted, data_frame, report_on
from oelm_jobs.connections import connect
from oelm_jobs.errors import DamagedStore, TargetError, UsageError
from tests.support import REPOSITORY
from tools import layers

EXPORTED = {
    "Again", "Cancelled", "Checkpoints", "Cleaned", "Fetched", "Finding", "Forgotten", "Mode", "Outcome", "Plan",
    "PlannedRun", "Project", "Run", "Selection", "State", "StoredRun", "Study", "StudyReport", "Submitted", "Survey",
    "Target", "View", "data_frame", "is_bundle", "report_on", "reproduce",
}  # fmt: skip


def test_exported_names_are_these_and_no_others() -> None:
    assert set(oelm_jobs.__all__) == EXPORTED
    for name in EXPORTED:
        assert getattr(oelm_jobs, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        getattr(oelm_jobs, "Studdy")  # noqa: B009  # mypy knows that it isn't there


def test_exported_names_are_offered_for_completion() -> None:
    assert set(dir(oelm_jobs)) >= EXPORTED


def test_importing_the_package_loads_nothing_of_it() -> None:
    program = "import sys, oelm_jobs; print([name for name in sys.modules if name.startswith('oelm_jobs.')])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert found.stdout.strip() == "[]"


def test_commands_use_nothing_else() -> None:
    allowed = {
        "",
        "agent",
        "cli",
        "encodings",
        "errors",
        "fitting",
        "folders",
        "language",
        "project",
        "table",
        "visible",
    }
    besides = {
        "oelm_jobs.cli.complete": {"completing"},
        "oelm_jobs.cli.data": {"data"},
        "oelm_jobs.cli.import_script": {"importing"},
        "oelm_jobs.cli.init": {"scaffold"},
        "oelm_jobs.cli.objects": {"analysis", "data"},  # types of what they print, which no command imports
        "oelm_jobs.cli.demo": {"data", "demo", "scaffold"},
    }
    for name in layers.modules():
        if layers.part_of(name, "oelm_jobs") == "cli":
            used = {layers.part_of(each, "oelm_jobs") for each in layers.imported(name, for_types=False)}
            assert used <= allowed | besides.get(name, set()), name


def test_every_public_method_is_documented() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    methods = [name for name in vars(Project) if not name.startswith("_")]
    assert [name for name in methods if not re.search(rf"`\.{name}\b", page)] == []
    assert [name for name in EXPORTED if not re.search(rf"\b{name}\b", page)] == []


@pytest.mark.slow
def test_a_study_goes_from_plan_to_results(project: Path) -> None:
    said: list[str] = []
    with Project(project / "jobs", say=said.append) as mine:
        assert mine.folder == project and mine.runs() == []
        plan = mine.plan("tiny", groups=["gpt_base"])
        assert [run.name for run in plan.runs] == ["gpt_base"] and plan.data_hash
        (submitted,) = mine.submit(plan)
        assert not submitted.note
        seen: list[State] = []
        view = mine.wait(study="tiny", show=lambda each: seen.append(each.runs[0].state))
        assert [run.state for run in view.runs] == [State.DONE] and seen[-1] is State.DONE
        assert "Step" in mine.logs("gpt_base", lines=5)
        study = mine.study("tiny")
        (fetched,) = mine.fetch(study=study).done
        assert fetched.complete and not fetched.damaged
        (row,) = data_frame(mine.fetch("gpt_base").done).to_dict("records")
        assert (row["study"], row["group"], row["run"], row["state"]) == ("tiny", "gpt_base", "gpt_base", "DONE")
        report = mine.report(study)
        (row,) = data_frame(report.runs).to_dict("records")
        assert row["final_loss"] >= row["best_loss"] > 0 and row["parameters_total"] > 0
        with pytest.raises(ValueError, match="pdf"):
            report.show("pdf")
        (left,) = mine.submit(plan)
        assert left.note == "is done"
        with pytest.raises(ValueError, match="re-run"):
            mine.submit(plan, "re-run")
        (again,) = mine.submit(plan, Again.RERUN)
        assert not again.note
        (cancelled,) = mine.cancel("tiny/gpt_base").done
        assert cancelled.run.name == "gpt_base" and mine.runs("gpt_base")[0].state is State.CANCELLED
        chosen = mine.select("tiny", seeds=[42], states=["CANCELLED"])
        assert [run.name for run in chosen.runs] == ["gpt_base"] and chosen.out_of == 1
        assert mine.select("gpt_*", states=[State.DONE]).runs == () == mine.fetch(mine.select(states=["DONE"])).done
        (forgotten,) = mine.forget(chosen, why="a try").done
        assert (forgotten.entry.why, forgotten.entry.state) == ("a try", "CANCELLED") and forgotten.ledger.exists()
        assert mine.runs() == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_threads_share_a_project(project: Path) -> None:
    with Project(project, say=lambda message: None) as mine:
        mine.submit(mine.plan("tiny"))
        lines: list[bytes] = []
        reading = threading.Thread(target=lambda: lines.extend(piece.content for piece in mine.follow("gpt_base")))
        reading.start()
        assert {run.state for run in mine.wait().runs} == {State.DONE}
        reading.join(timeout=120)
        assert not reading.is_alive() and b"Step" in b"".join(lines)
    assert mine.runs()  # opened again


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_look_at_runs_leaves_alone_what_another_thread_is_submitting(project: Path) -> None:
    seen: list[State] = []

    def look(message: str) -> None:
        with Project(project, say=lambda message: None) as other:
            reading = threading.Thread(target=lambda: seen.extend(run.state for run in other.refresh().runs))
            reading.start()
            reading.join()

    with Project(project, say=look) as mine:
        (submitted,) = mine.submit(mine.plan("tiny", groups=["gpt_base"]))
    assert State.PLANNED in seen
    assert (submitted.note, submitted.state) == ("", State.QUEUED)


CLOSED_IN_USE = """
import threading
from oelm_jobs import Project
project, is_over, failed = Project(), threading.Event(), []
def look():
    while not is_over.is_set():
        try:
            project.store.runs(project.folder)
        except Exception as error:
            failed.append(error)
threads = [threading.Thread(target=look, daemon=True) for number in range(3)]
for thread in threads:
    thread.start()
for number in range(2000):
    project.close()
    project.store
is_over.set()
for thread in threads:
    thread.join()
print(failed)
"""


@pytest.mark.slow
def test_a_project_is_closed_while_threads_use_it(project: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED_IN_USE], cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_forked_process_opens_the_index_for_itself(project: Path) -> None:
    with Project(project) as mine:
        opened = mine.store
        child = os.fork()
        if child == 0:
            is_shared = True
            try:
                is_shared = mine.store is opened
            finally:
                os._exit(is_shared)
        assert os.waitpid(child, 0)[1] == 0


def submit_slow(mine: Project) -> list[Submitted]:
    """Submit a run that doesn't end by itself."""
    (mine.folder / "jobs" / "targets.toml").write_text(
        f'[slow]\nkind = "local"\npython = "{sys.executable}"\nsetup = ["sleep 600"]\n'
    )
    return mine.submit(mine.plan("tiny", "slow", groups=["gpt_base"]))


@pytest.mark.slow
def test_what_keeps_a_run_from_its_end_keeps_it(project: Path) -> None:
    def refuse(runs: object) -> None:
        raise KeyboardInterrupt

    with Project(project, say=lambda message: None) as mine:
        submitted = submit_slow(mine)
        with pytest.raises(UsageError, match="names no study"):
            mine.cancel("gpt_bass")
        with pytest.raises(KeyboardInterrupt):
            mine.cancel(everything=True, confirm=refuse)
        (run,) = mine.refresh(*submitted).runs
        assert not run.state.is_final
        mine.cancel(*submitted)


def test_outside_of_a_project_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no project here"):
        Project(tmp_path)


@pytest.mark.slow
def test_a_target_that_cannot_be_reached_is_named(project: Path) -> None:
    (project / "jobs" / "targets.toml").write_text('[far]\nkind = "ssh"\nhost = "127.0.0.1"\nport = 1\nroot = "/x"\n')
    with Project(project) as mine, pytest.raises(TargetError, match="127.0.0.1 can't be reached"):
        mine.submit(mine.plan("tiny", "far"))
    with Project(project) as mine:
        assert mine.plan("tiny", "far", offline=True).target.name == "far"


def test_a_plan_made_offline_is_not_submitted(project: Path) -> None:
    with Project(project) as mine, pytest.raises(UsageError, match="offline"):
        mine.submit(mine.plan("tiny", offline=True))
    assert mine.runs() == []


def test_a_plan_goes_to_the_target_that_it_was_made_for(project: Path) -> None:
    with Project(project) as mine:
        others = [replace(mine.target(), python=f"/{name}/python") for name in "ab"]
        plans = [mine.plan("tiny", other, offline=True) for other in others]
        assert ["/a/python" in mine.scripts(plan)[0] for plan in plans] == [True, False]
    with Project(project) as mine:
        assert "/b/python" in mine.scripts(plans[1])[0]


def test_seeds_are_whole_numbers_in_range_and_count_once(project: Path) -> None:
    with Project(project) as mine:
        planned = mine.plan("tiny", groups=["gpt_base"], seeds=np.array([42, 7, 42]), offline=True)
        assert [(run.seed, type(run.seed)) for run in planned.runs] == [(42, int), (7, int)]
        with pytest.raises(UsageError, match="0 to 2"):
            mine.plan("tiny", seeds=[-1], offline=True)
        with pytest.raises(TypeError):
            mine.plan("tiny", seeds=["42"], offline=True)


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(project: Path) -> None:
    (project / "jobs" / "tiny.toml").unlink()
    (project / "jobs" / "targets.toml").write_text("")
    for argv in (["-c", "from oelm_jobs.cli.data import main; main()", "demo"], [REPOSITORY / "docs" / "notebook.py"]):
        done = subprocess.run([sys.executable, *argv], cwd=project, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr + done.stdout
    assert "oelm_freeze" in done.stdout and "H1 " in done.stdout and "experiments/notebook" in done.stdout


def test_what_ends_or_removes_needs_to_be_told_of_what(project: Path) -> None:
    with Project(project) as mine:
        for act in (mine.cancel, mine.clean):
            with pytest.raises(UsageError, match="name a study"):
                act()
            act(everything=True)


def test_runs_are_named_by_what_other_methods_return(project: Path) -> None:
    with Project(project) as mine:
        plan = mine.plan("tiny", groups=["gpt_base"], offline=True)
        with pytest.raises(UsageError, match="'tiny/gpt_base' names no study"):
            mine.runs(plan)
        with pytest.raises(TypeError, match="int names no run"):
            mine.runs(3)
        assert list(data_frame(plan)["run"]) == ["gpt_base"]


def test_closing_one_project_leaves_the_connections_of_another_on_its_folder(project: Path) -> None:
    one, other = Project(project), Project(project)
    plan = other.plan("tiny")
    connection = connect(plan.place or plan.target, project)
    one.close()
    assert connect(plan.place or plan.target, project) is connection
    other.close()
    assert connect(plan.place or plan.target, project) is not connection


@pytest.mark.slow
def test_waiting_ends_in_time(project: Path) -> None:
    with Project(project, say=lambda message: None) as mine:
        submitted = submit_slow(mine)
        (run,) = mine.wait(*submitted, timeout_s=0.1).runs
        assert not run.state.is_final
        mine.cancel(*submitted)


def test_an_empty_view_means_no_run(project: Path) -> None:
    ended: list[object] = []
    with Project(project) as mine:
        store_runs(mine, "gpt_base")
        view = mine.refresh()
        assert len(view.runs) == 1
        none = replace(view, runs=())
        assert mine.runs(none) == [] and mine.cancel(none, confirm=ended.extend).done == () and ended == []
        assert mine.clean(none, confirm=lambda files, code: bool(ended.append(files))).files == ()
        assert ended == [[]]
        with pytest.raises(UsageError, match="^0 runs where one is meant$"):
            mine.run(none)


def store_runs(mine: Project, *groups: str) -> None:
    plan = mine.plan("tiny", groups=groups)
    mine.store.intend(project=mine.folder, target="local", root=plan.root, token="t", maker="{}", runs=plan.runs,
                      decide=lambda known: None)  # fmt: skip
    mine.store.answer("t", "accepted", states={run.run_dir: (State.QUEUED, "") for run in plan.runs})


def test_an_index_that_is_damaged_while_it_is_open_is_made_again(project: Path) -> None:
    said: list[str] = []
    with Project(project, say=said.append) as mine:
        assert mine.refresh().runs == ()
        mine.store.path.write_text("no database" * 1000)
        with pytest.raises(DamagedStore, match="is damaged"):
            mine.store.runs(project)
        mine.rebuild()
        assert any("it is kept as" in message for message in said)
        assert mine.store.path.exists() and mine.runs() == []


@pytest.mark.slow
def test_a_host_that_is_named_again_with_another_root_is_remembered_so(project: Path) -> None:
    with Project(project, say=lambda message: None) as mine:
        for root in ("/a", "/b"):
            plan = replace(mine.plan("tiny", mine.host("127.0.0.1", port=1, root=root), offline=True), data_hash="d")
            with pytest.raises(TargetError):
                mine.submit(plan)
            assert mine.target("127.0.0.1:1").root == root


def test_a_report_takes_paths_as_text_and_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a project, or folders"):
        report_on(None)
    with pytest.raises(UsageError, match="no-such"):
        report_on(None, folders=["no-such"], output="x")
