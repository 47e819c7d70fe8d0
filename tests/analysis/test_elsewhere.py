"""Runs with the settings of those that decide, mostly of other studies: who saw them before the lock is told."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis import elsewhere
from oelm_jobs.analysis.audit import choice, lock

from oelm_jobs import bundling, ledger
from oelm_jobs.agent.states import State
from oelm_jobs.reporting import report_on
from oelm_jobs.spec.study import Run, Study
from oelm_jobs.store import ACCEPTED, Store
from oelm_jobs.study import tuning
from oelm_jobs.study.blocks import DataHash
from oelm_jobs.study.files import read_study
from oelm_jobs.study.resolve import plan_runs
from oelm_jobs.targets.files import LOCAL
from tests.study.test_tuning import JUDGED, TUNED, TUNED_PROGRAM
from tests.support import TINY_STUDY

EARLY, LOCKED, LATE = 1.5e9, 1.6e9, 1.7e9
PILOT = TINY_STUDY.replace("seeds = [42]", "seeds = [101, 102]").replace("[train]", "[train]\nmax_lr = 1e-3")
"""A study that runs on the confirming seeds what another one will confirm."""
TESTED = PILOT.replace("[train]", 'judge_on = "test"\n[train]').replace("final_val_", "final_test_")
FILES = {"train_sha256": "a" * 64, "val_sha256": "b" * 64, "test_sha256": "c" * 64}


def written(project: Path, name: str, text: str) -> Study:
    path = project / "jobs" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return read_study(path)


def data_of(study: Study, files: dict[str, str] = FILES, block: str = "") -> dict[str, str]:
    """Return the hashes of what a study's runs read, of each block others."""
    is_tested = study.program is None and bool(study.judge_on) and not study.is_tuning
    return {key: digest[len(block) :] + block for key, digest in files.items() if is_tested or key != "test_sha256"}


def hashed(study: Study, files: dict[str, str] = FILES) -> DataHash:
    """Return the hash of that."""
    found = {
        block: hashlib.sha256("\n".join(data_of(study, files, block).values()).encode()).hexdigest()
        for block in study.blocks or [""]
    }
    return found if study.blocks else found[""]


def ran(project: Path, study: Study, at: float, files: dict[str, str] = FILES, **more: Any) -> list[Run]:
    """Write down runs of a study that were queued and came to their end."""
    runs = plan_runs(study, replace(LOCAL, root=str(project)), data_hash=hashed(study, files), **more)
    runs = [run for run in runs if run.trial is None]
    for run in runs:
        folder = Path(run.run_dir)
        (folder / ".oelm").mkdir(parents=True)
        own = {
            "version": 1, "token": f"oelm-{study.name}", "run": run.name, "study": study.name, "group": run.group,
            "label": "", "seed": run.seed, "tag": run.tag, "fingerprint": run.fingerprint, "target": "local",
            "project": str(project), "run_dir": run.run_dir, "factors": dict(run.factors), "gpus": run.gpus,
            "world_size": 1, "global_batch": run.global_batch, "queued_at": at, "train": {},
        }  # fmt: skip
        if run.program is None:
            own["train"] = dict(run.settings)
        else:
            metrics = {"lines": [], "files": ["m.csv"], "goal": {"loss": "minimize", "test_loss": "minimize"}}
            own["program"] = {"stages": [], "settings": dict(run.settings), "metrics": metrics}
            (folder / "m.csv").write_text("step,loss,test_loss\n1,1.0,1.1\n")
        (folder / ".oelm" / "run.json").write_text(json.dumps(own))
        final = {"step": 12, "val_loss": 3.0 + run.seed / 1000, "val_full": True, "test_loss": 3.0 + run.seed / 1000}
        data = data_of(study, files, run.block)
        outcome = {"status": "completed", "step": 12, "max_steps": 12, "final": final, "data": data} | (
            {} if run.program is None else {"data": {}}
        )
        result = {**own, "status": "DONE", "started_at": at, "outcome": outcome}
        (folder / "experiment_result.json").write_text(json.dumps(result))
    return runs


def confirmed(project: Path, text: str = JUDGED, **values: Any) -> Study:
    """Write down a study that was locked, and the runs that confirm what it chose."""
    study = written(project, "tune", text)
    content = lock.content(study, [], {}, LOCKED, data=hashed(study))
    ledger.append_lock(project, study.name, json.loads(content))
    path = ledger.lock_path(project, study)
    path.write_bytes(content)
    if study.is_tuning:
        best = values or {"max_lr": 1e-3}
        groups = {name: choice.Chosen(values=best, tag="", trials=()) for name in study.groups}
        made = choice.made(study.name, groups, metric="", goal="", seeds=study.seeds,
                           confirm_seeds=study.confirm_seeds, at=LOCKED)  # fmt: skip
        choice.write(path.with_name("tune_choice.json"), made)
        judged = tuning.confirming(study, dict.fromkeys(study.groups, best))
        ran(project, judged, LATE, seeds=study.confirm_seeds, tag="confirm")
    else:
        ran(project, study, LATE)
    return study


def alarms(project: Path) -> list[str]:
    """Return what the report says of runs elsewhere, in the line of H4."""
    found = report_on(project, "tune")
    said = [str(one.text) for one in found.findings if one.key == elsewhere.KEY]
    (verdict,) = (one for one in found.verdicts if one.hypothesis.id == "H4")
    assert [one for one in map(str, verdict.alarms) if "before the lock" in one] == said
    return said


Attempt = Callable[[Path], object]


def pilot(project: Path, old: str = "", new: str = "", *, at: float = EARLY, **more: Any) -> list[Run]:
    """Run it with a change of its file."""
    assert old in PILOT
    return ran(project, written(project, "pilot", PILOT.replace(old, new) if old else PILOT), at, **more)


def told(project: Path, run: Mapping[str, Any], **changes: Any) -> None:
    """Write a line about a run, or about what its record says, into its study's ledger."""
    known = {key: run[key] for key in ("study", "group", "seed", "tag", "fingerprint", "run_dir")}
    known |= {"run": run.get("run") or run["name"], "token": run.get("token", "t"), "target": "local", "state": "DONE"}
    more = {"reason": "", "metric": "val_loss", "value": 3.0, "step": 12, "has_result": True, "gpu_hours": 1.0}
    rest = {"why": "", "files": "removed", "time": LATE}
    ledger.append(project, run["study"], [ledger.Entry(**{**known, **more, **rest, **changes})])


def gone(project: Path, old: str = "", new: str = "", *, at: float = EARLY, **changes: Any) -> None:
    """Run it, and forget it afterwards, after the lock."""
    for run in pilot(project, old, new, at=at):
        shutil.rmtree(run.run_dir)
        of_run = {"settings": dict(run.settings), "global_batch": run.global_batch, "queued_at": at}
        told(project, vars(run), **{**of_run, **changes})


def extended(project: Path) -> None:
    for run in pilot(project):
        path = Path(run.run_dir, ".oelm", "run.json")
        own = json.loads(path.read_text())
        own |= {"fingerprint": "e" * 64, "extended_from": {"max_steps": 12, "fingerprint": run.fingerprint}}
        own["train"]["max_steps"] = 24
        path.write_text(json.dumps(own))


def indexed(project: Path, text: str = PILOT) -> None:
    """Run it on another machine, so that only the index knows."""
    runs = pilot(project, PILOT, text)
    for run in runs:
        shutil.rmtree(run.run_dir)
    there = [replace(run, run_dir=f"/far/exp_{run.name}", target="box") for run in runs]
    with Store() as store, pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "time", lambda: EARLY)
        store.intend(project, "box", "/far", "oelm-1", "{}", there, lambda known: None)
        store.answer("oelm-1", ACCEPTED, states={run.run_dir: (State.QUEUED, "") for run in there})


ALL = (
    "6 confirming runs have the settings of runs of study pilot that were queued before the lock: gpt_base{more}, "
    "gpt_base-s102{more}"
)
CHEATS: dict[str, tuple[Attempt, str]] = {
    "the settings are run on the confirming seeds in another study": (pilot, ""),
    "with a test file": (lambda project: pilot(project, PILOT, TESTED), ""),
    "with another test file": (
        lambda project: pilot(project, PILOT, TESTED, files={**FILES, "test_sha256": "e" * 64}), "",
    ),
    "for more steps": (lambda project: pilot(project, "max_steps = 12", "max_steps = 13"), " (max_steps = 13)"),
    "validated otherwise": (
        lambda project: pilot(project, "val_interval = 6", "val_interval = 5"), " (val_interval = 5)",
    ),
    "and made longer afterwards": (extended, " (max_steps = 24)"),
    "and forgotten": (gone, " (forgotten or started over since)"),
    "and forgotten by a version that told no more": (
        lambda project: gone(project, time=EARLY, queued_at=None, settings={}), " (forgotten or started over since)",
    ),
    "and cancelled half way, and forgotten": (
        lambda project: gone(project, step=5, state="CANCELLED", has_result=False),
        " (forgotten or started over since)",
    ),
    "and cancelled half way, and forgotten by a version that told no settings": (
        lambda project: gone(project, step=5, state="CANCELLED", has_result=False, settings={}),
        " (forgotten or started over since)",
    ),
    "for more steps, and forgotten by a version that told no settings": (
        lambda project: gone(project, "max_steps = 12", "max_steps = 13", step=13, settings={}),
        " (max_steps = 13, forgotten or started over since)",
    ),
    "validated otherwise, and forgotten": (
        lambda project: gone(project, "val_interval = 6", "val_interval = 5"),
        " (val_interval = 5, forgotten or started over since)",
    ),
    "for more steps, cancelled before, and forgotten": (
        lambda project: gone(project, "max_steps = 12", "max_steps = 20", step=11, has_result=False),
        " (max_steps = 20, forgotten or started over since)",
    ),
    "on another machine": (indexed, ""),
    "on another machine, with a test file that nobody knows": (lambda project: indexed(project, TESTED), ""),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_settings_that_another_study_ran_before_the_lock_are_told_in_the_line_of_the_verdict(
    tmp_path: Path, cheat: str
) -> None:
    attempt, more = CHEATS[cheat]
    attempt(tmp_path)
    confirmed(tmp_path)
    (said,) = alarms(tmp_path)
    assert said.startswith(ALL.format(more=more)), said


@pytest.mark.parametrize("text", [TUNED, JUDGED])
def test_a_test_file_more_or_less_makes_no_other_run(tmp_path: Path, text: str) -> None:
    pilot(tmp_path)
    ran(tmp_path, written(tmp_path, "more", TESTED), EARLY, groups=["oelm_freeze"], seeds=[101])
    confirmed(tmp_path, text)
    assert [said.split(" that were")[0].split(" that was")[0] for said in alarms(tmp_path)] == [
        "1 confirming run has the settings of a run of study more",
        "6 confirming runs have the settings of runs of study pilot",
    ]


def its_own(
    project: Path, old: str = "", new: str = "", *, tag: str = "", at: float = EARLY, text: str = PILOT
) -> Study:
    """Run a study that nothing is locked of, with a tag and a change of its file; return it as it is without."""
    ran(project, written(project, "tune", text.replace(old, new) if old else text), at, tag=tag)
    return written(project, "tune", text)


def set_aside(project: Path, *, at: float = LATE, **changes: Any) -> None:
    """Forget the runs of that study, or start them over."""
    for number, path in enumerate(sorted((project / "models" / "checkpoints" / "tune").glob("exp_*"))):
        record = json.loads((path / ".oelm" / "run.json").read_text())
        record["token"] = f"oelm-before-{number}"
        (path / ".oelm" / "run.json").write_text(json.dumps(record))
        place = path.parent / ".archive" / f"{path.name}-20200101-000000-1"
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
        told(project, record, files="archived", place=str(place), time=at, queued_at=EARLY, **changes)


PEEKS: dict[str, tuple[Attempt, str]] = {
    "under a tag, validated otherwise": (
        lambda project: its_own(project, "val_interval = 6", "val_interval = 5", tag="peek"),
        "-peek (val_interval = 5)",
    ),
    "under a tag, for more steps": (
        lambda project: its_own(project, "max_steps = 12", "max_steps = 13", tag="peek"), "-peek (max_steps = 13)",
    ),
    "and forgotten": (
        lambda project: (its_own(project), set_aside(project, at=EARLY)), " (forgotten or started over since)",
    ),
    "validated otherwise, and forgotten": (
        lambda project: (its_own(project, "val_interval = 6", "val_interval = 5"), set_aside(project, at=EARLY)),
        " (val_interval = 5, forgotten or started over since)",
    ),
    "and its files are gone": (
        lambda project: (its_own(project), set_aside(project, at=EARLY),
                         shutil.rmtree(project / "models" / "checkpoints" / "tune")),
        " (forgotten or started over since)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("peek", PEEKS)
def test_a_look_in_the_same_study_before_the_lock_is_told_too(tmp_path: Path, peek: str) -> None:
    attempt, more = PEEKS[peek]
    attempt(tmp_path)
    confirmed(tmp_path, PILOT)
    (said,) = alarms(tmp_path)
    assert said.startswith(
        f"6 runs that decide have the settings of runs of study tune that were queued before the lock: gpt_base{more}"
    ), said


OWN: dict[str, Attempt] = {
    "the runs that decide were themselves queued before it": lambda project: (
        confirmed(project, PILOT), again(project, queued_at=EARLY),
    ),
    "the first result was, and decides though it was started over": lambda project: (
        confirmed(project, PILOT), set_aside(project, event="rerun"),
        ran(project, read_study(project / "jobs" / "tune.toml"), LATE),
    ),
    "the ledger says that one would start over which did not": lambda project: (
        confirmed(project, PILOT), going_on(project),
    ),
    "another one was looked at, on other seeds": lambda project: (
        its_own(project, "seeds = [101, 102]", "seeds = [1, 2]", tag="peek"), confirmed(project, PILOT),
    ),
    "another one was looked at, after the lock": lambda project: (
        its_own(project, tag="peek", at=LATE), confirmed(project, PILOT),
    ),
    "trials were, on other seeds": lambda project: (
        its_own(project, text=TUNED, at=EARLY), confirmed(project, JUDGED),
    ),
}  # fmt: skip


def again(project: Path, **changes: Any) -> None:
    """Change the records of the study's runs."""
    for path in (project / "models" / "checkpoints" / "tune").glob("exp_*/.oelm/run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def going_on(project: Path) -> None:
    """Write down that runs were to start over which did not."""
    again(project, queued_at=EARLY)
    for path in sorted((project / "models" / "checkpoints" / "tune").glob("exp_*/.oelm/run.json")):
        left = {"state": "CANCELLED", "has_result": False, "step": 5, "files": "moving", "event": "rerun"}
        told(project, json.loads(path.read_text()), queued_at=EARLY, **left)


@pytest.mark.parametrize("what", OWN)
def test_what_decides_is_no_other_run_of_its_study(tmp_path: Path, what: str) -> None:
    OWN[what](tmp_path)
    assert alarms(tmp_path) == []


HONEST: dict[str, Attempt] = {
    "queued after the lock": lambda project: pilot(project, at=LATE),
    "forgotten, and queued after the lock": lambda project: gone(project, at=LATE),
    "forgotten, and cancelled before anything was there": lambda project: gone(
        project, step=None, value=None, metric=None, state="CANCELLED", has_result=False, files="none"
    ),
    "other seeds": lambda project: pilot(project, "seeds = [101, 102]", "seeds = [1, 2]"),
    "another learning rate": lambda project: pilot(project, "max_lr = 1e-3", "max_lr = 2e-3"),
    "fewer steps": lambda project: pilot(project, "max_steps = 12", "max_steps = 6"),
    "other data": lambda project: pilot(project, files={**FILES, "train_sha256": "f" * 64}),
}


@pytest.mark.parametrize("what", HONEST)
def test_other_runs_and_later_ones_are_nobody_s_business(tmp_path: Path, what: str) -> None:
    HONEST[what](tmp_path)
    confirmed(tmp_path)
    assert alarms(tmp_path) == []


@pytest.mark.parametrize("text", [PILOT, TESTED])
def test_a_locked_study_without_tuning_is_told_of_them_too_and_nothing_without_a_lock(
    tmp_path: Path, text: str
) -> None:
    pilot(tmp_path)
    asked = text.replace("seeds = [101, 102]", "seeds = [101, 103]")
    written(tmp_path, "tune", asked)
    ran(tmp_path, read_study(tmp_path / "jobs" / "tune.toml"), LATE)
    assert alarms(tmp_path) == []
    shutil.rmtree(tmp_path / "models" / "checkpoints" / "tune")
    confirmed(tmp_path, asked)
    assert alarms(tmp_path) == [
        "3 runs that decide have the settings of runs of study pilot that were queued before the lock: gpt_base, "
        "oelm_freeze, oelm_no_freeze"
    ]


def test_a_block_that_another_study_ran_before_is_told_with_the_claim_about_each(tmp_path: Path) -> None:
    claim = 'metric = "final_val_ppl", group = "oelm_freeze", against = "gpt_base", at_most_above = 0.10'
    text = PILOT.split("H1 =")[0].replace('data_path = "data/tiny/train.bin"\n', "") + (
        f'H4 = {{ {claim}, holds = "each" }}\n'
        '[blocks.a]\ndata_path = "data/a/train.bin"\n[blocks.b]\ndata_path = "data/b/train.bin"\nmax_steps = 14\n'
    )
    ran(tmp_path, written(tmp_path, "pilot", text), EARLY, blocks=["b"], groups=["gpt_base"])
    confirmed(tmp_path, text)
    found = report_on(tmp_path, "tune")
    said = "2 runs that decide have the settings of runs of study pilot that were queued before the lock: gpt_base-b"
    (finding,) = (str(one.text) for one in found.findings if one.key == elsewhere.KEY)
    assert finding.startswith(said)
    (verdict,) = found.verdicts
    assert finding in map(str, verdict.alarms)
    assert not any("before the lock" in str(alarm) for one in verdict.blocks for alarm in one.alarms)
    assert said in " ".join(found.show("text").split())


def test_many_lines_of_an_older_version_are_looked_at_once_for_each_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone(tmp_path, "max_steps = 12", "max_steps = 13", step=13, settings={})
    known = ledger.read(tmp_path, "pilot")
    more = [replace(one, token=f"t{number}") for one in known for number in range(50)]
    ledger.append(tmp_path, "pilot", [*more, *(replace(one, token=f"early{one.token}", step=6) for one in more)])
    confirmed(tmp_path)
    asked: list[dict[str, Any]] = []
    prints = elsewhere._Own._prints
    monkeypatch.setattr(
        elsewhere._Own, "_prints", lambda self, changes, *more: (asked.append(changes), prints(self, changes, *more))[1]
    )
    (said,) = alarms(tmp_path)
    assert said.startswith("6 confirming runs have") and "max_steps = 13" in said
    assert [one for one in asked if one] == [{"max_steps": 13}] * 6


def test_only_groups_whose_runs_were_seen_have_it_in_their_verdicts(tmp_path: Path) -> None:
    pilot(tmp_path, groups=["gpt_base"], seeds=[102])
    confirmed(tmp_path)
    found = report_on(tmp_path, "tune")
    told = {one.hypothesis.id for one in found.verdicts if any("before the lock" in str(alarm) for alarm in one.alarms)}
    assert told == {"H4"}, "and no count of parameters, which nobody needs to see before"


def test_a_program_s_runs_are_known_by_its_words(tmp_path: Path) -> None:
    text = TUNED_PROGRAM.replace("H1", "H4")
    text = text.replace("lr = 1e-3\n[sweep]", "lr = 1e-3\nsteps = 10\n[sweep]").replace(
        'seed = "seed"', 'seed = "seed"\nlength = "steps"'
    )
    other = text.replace("confirm_seeds = [101, 102]\n", "").replace("seeds = [1, 2]", "seeds = [101, 102]")
    other = other.replace('tuned = ["lr"]\n', "").replace("[sweep]\nparameters.lr = { values = [1e-3, 1e-2] }\n", "")
    assert "[sweep]" not in other
    for name, changed in (
        ("same", other),
        ("longer", other.replace("steps = 10", "steps = 20")),
        ("another", other.replace("python train.py", "python other.py")),
    ):
        ran(tmp_path, written(tmp_path, name, changed), EARLY)
    for run in ran(tmp_path, written(tmp_path, "gone", other.replace("steps = 10", "steps = 30")), EARLY):
        shutil.rmtree(run.run_dir)
        told(tmp_path, vars(run), metric="loss", step=30, time=EARLY)
    confirmed(tmp_path, text, lr=1e-3)
    found = alarms(tmp_path)
    assert [said.split(" that were")[0] for said in found] == [
        f"4 confirming runs have the settings of runs of study {name}" for name in ("gone", "longer", "same")
    ]
    assert "(steps = 30, forgotten or started over since)" in found[0]


@pytest.mark.slow
def test_all_forms_and_the_checklist_say_it(tmp_path: Path) -> None:
    pilot(tmp_path)
    confirmed(tmp_path)
    found = report_on(tmp_path, "tune")
    said = "6 confirming runs have the settings of runs of study pilot that were queued before the lock"
    for form in ("text", "json", "html"):
        assert said in " ".join(found.show(form).split()), form
    content = json.loads(found.show("json"))
    (h4,) = (one for one in content["verdicts"] if one["id"] == "H4")
    assert said in " ".join(h4["reasons"]) and any(said in one["text"] for one in content["findings"])
    assert f"H4, to be told with it: {said}" in found.show_checklist("neurips").replace("\\", "")


@pytest.mark.slow
def test_a_bundle_tells_what_the_project_knew(tmp_path: Path) -> None:
    project = tmp_path / "project"
    pilot(project)
    confirmed(project)
    (said,) = alarms(project)
    (project / "experiments" / "tune" / elsewhere.FILE).write_text("[]")  # planted, or from another bundle
    for is_anonymous in (False, True):
        made = bundling.make(project, "tune", tmp_path / f"{is_anonymous}.tar.gz", is_anonymous=is_anonymous)
        with bundling.reproduce(made.path) as found:
            assert found.differs == ()
            assert [str(one.text) for one in found.report.findings if one.key == elsewhere.KEY] == [said]
