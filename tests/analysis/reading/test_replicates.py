"""One run for each group, tag and seed, and none of another study: copies, reruns, and a default that moved."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.reading import loading, replicates
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import Report, build

from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from oelm_jobs.store import Store

from .. import synthetic
from ..synthetic import load, make_run, old_log
from ..test_command import STUDY, report

TWO = {"oelm_no_freeze": [3.85, 3.856], "oelm_freeze": [3.87, 3.895]}


def outcome(made: Report, name: str = "H2") -> str:
    return next(v.outcome for v in made.verdicts if v.hypothesis.id == name)


def said(made: Report, key: str) -> list[str]:
    return [str(f.text) for f in made.findings if f.key == key]


def made_of(runs: list[LoadedRun]) -> Report:
    return build(synthetic.study(seeds=(42, 43)), runs)


def changed(source: Path, target: Path, by: float) -> Path:
    """Copy a run directory with all losses a little off: the same seed, run again."""
    shutil.copytree(source, target)
    for path in (target / "metrics.jsonl", target / "experiment_result.json"):
        lines = []
        for line in path.read_text().splitlines():
            record = json.loads(line)
            for table in (
                record,
                record.get("outcome", {}).get("final", {}),
                record.get("outcome", {}).get("best", {}),
            ):
                for key in ("val_loss", "loss"):
                    if key in table:
                        table[key] += by
            lines.append(json.dumps(record))
        path.write_text("\n".join(lines) + "\n")
    return target


def test_a_copy_of_a_run_is_left_out_and_named(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, TWO)
    before = made_of(runs)
    copies = [tmp_path / "exp_oelm_freeze-s43.bak", tmp_path / "exp_oelm_no_freeze-s43.bak"]
    for copy in copies:
        shutil.copytree(copy.with_suffix(""), copy)
    after = made_of([*map(load, copies), *runs])
    [h2] = [v for v in after.verdicts if v.hypothesis.id == "H2"]
    assert outcome(before) == outcome(after) == "inconclusive" and h2.count == 2
    assert [run.path for run in after.runs] == [run.path for run in before.runs]
    assert len(said(after, "copy_left_out")) == 2 and all(
        any(str(copy) in line for line in said(after, "copy_left_out")) for copy in copies
    )


def test_an_older_state_of_a_run_and_an_empty_folder_are_left_out(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, TWO)
    older = make_run(tmp_path / "backup", "oelm_freeze", final_loss=3.87, stop=300)
    empty = make_run(tmp_path / "queued", "oelm_freeze")
    for name in ("metrics.jsonl", "experiment_result.json", "treatment.json", "heartbeat.json"):
        (empty / name).unlink()
    made = made_of([load(older), load(empty), *runs])
    assert len(said(made, "copy_left_out")) == 2 and len(made.runs) == 4


def test_a_copy_that_lacks_most_files_is_left_out_however_short_its_name(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, TWO)
    shutil.copytree(tmp_path / "exp_oelm_freeze-s43", tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").unlink()
    for order in ([load(tmp_path / "b"), *runs], [*runs, load(tmp_path / "b")]):
        made = made_of(order)
        assert not said(made, "two_results") and [run.path.name for run in made.runs].count("b") == 0


@pytest.mark.parametrize("records", [12, 20])
def test_what_is_left_of_a_run_under_the_name_of_another_seed_is_no_seed_of_its_own(
    tmp_path: Path, records: int
) -> None:
    """An older state of it (12 of 20 records), or all of a run that was validated once."""
    runs = synthetic.make_arms(tmp_path, TWO, val_interval=100 if records < 20 else 400)
    for name in ("oelm_freeze", "oelm_no_freeze"):
        again = tmp_path / f"exp_{name}-s44"
        shutil.copytree(tmp_path / f"exp_{name}-s43", again)
        (again / "experiment_result.json").unlink()
        (again / ".oelm" / "run.json").unlink()
        lines = (again / "metrics.jsonl").read_text().splitlines(keepends=True)
        (again / "metrics.jsonl").write_text("".join(lines[:records]))
        runs.append(load(again))
    made = build(synthetic.study(seeds=(42, 43, 44)), runs)
    assert len(made.runs) == 4 and len(said(made, "copy_left_out")) == 2


def test_two_runs_of_a_seed_that_were_never_validated_cost_nothing_certain(tmp_path: Path) -> None:
    asked = (replace(synthetic.study().hypotheses[0], id="H9", metric="gpu_hours", relation="equivalent_within"),)
    runs = synthetic.make_arms(tmp_path, TWO)
    for run in runs:
        path = run.path / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(json.dumps({k: v for k, v in line.items() if k != "val_loss"}) + "\n" for line in lines)
        )
        path = run.path / "experiment_result.json"
        content = json.loads(path.read_text())
        del content["outcome"]["final"], content["outcome"]["best"]
        path.write_text(json.dumps(content))
    changed(tmp_path / "exp_oelm_freeze-s43", tmp_path / "exp_oelm_freeze-s43.rerun", 0.0002)
    made = build(synthetic.study(seeds=(42, 43), hypotheses=asked), [load(path) for path in tmp_path.glob("exp_*")])
    assert outcome(made, "H9") == "undecidable" and len(said(made, "two_results")) == 1


def test_two_results_of_a_seed_decide_nothing_until_one_is_chosen(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, {**TWO, "gpt_base": [3.8, 3.81]})
    again = [
        load(changed(tmp_path / f"exp_{name}", tmp_path / f"exp_{name}.rerun", 0.0002))
        for name in ("oelm_freeze-s43", "oelm_no_freeze-s43")
    ]
    made = made_of([*again, *runs])
    assert outcome(made) == "undecidable" and outcome(made, "H1") == "supported", "counts are exact all the same"
    [reason] = [str(v.reason) for v in made.verdicts if v.hypothesis.id == "H4"]
    assert outcome(made, "H4") == "undecidable" and reason == "group oelm_freeze has several results of seed 43"
    [first, _] = said(made, "two_results")
    assert f"mv {tmp_path}/exp_oelm_" in first and "oelm-report DIR..." in first
    assert outcome(made_of(runs)) == "inconclusive"


def test_a_rerun_whose_ends_agree_but_whose_way_does_not_is_another_result(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, {"gpt_base": [3.8]})
    folder = tmp_path / "again" / "exp_gpt_base"
    shutil.copytree(tmp_path / "exp_gpt_base", folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    next(line for line in lines if "val_loss" in line)["val_loss"] += 1e-4
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settled = replicates.settle(synthetic.study(), [*runs, load(folder)])
    assert len(settled.disputes) == 1 and len(settled.runs) == 2


def test_a_copy_under_the_name_of_another_seed_is_no_seed_of_its_own(tmp_path: Path) -> None:
    for name in ("gpt_base-s42", "gpt_base-s43"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.log").write_text(old_log(seed=1))
    _, runs = loading.load_folders([tmp_path], [], None)
    settled = replicates.settle(synthetic.study(), runs)
    assert len(settled.runs) == 1
    assert "seeds 43, 42): a copy, or the seed changes nothing" in str(settled.findings[0].text)
    (tmp_path / "gpt_base-s43" / "training.log").write_text(old_log(seed=2))
    _, runs = loading.load_folders([tmp_path], [], None)
    assert len(replicates.settle(synthetic.study(), runs).runs) == 2


@pytest.mark.slow
def test_logs_that_do_not_tell_their_seed_may_be_one_seed(tmp_path: Path) -> None:
    words = {"gpt_base": 1.5, "gpt_base_again": 1.5001, "oelm_freeze": 1.52, "oelm_freeze_again": 1.5201}
    for name, loss in words.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.log").write_text(
            old_log(final_loss=loss, frozen=3_145_728 * name.startswith("oelm"))
        )
    made = build(*loading.load_folders([tmp_path], [], None))
    assert outcome(made, "H4") == "undecidable"
    assert f"mv {tmp_path}/gpt_base {tmp_path}/gpt_base-s42" in said(made, "two_results")[0]
    for name in words:
        (tmp_path / name).rename(tmp_path / f"{name}-s{42 + name.endswith('again')}")
    made = build(*loading.load_folders([tmp_path], [], None))
    assert outcome(made, "H4") == "supported" and not said(made, "two_results")


def test_a_tagged_run_is_no_seed_of_the_group_that_has_its_name(tmp_path: Path) -> None:
    groups = {"oelm": {"model_type": "oelm"}, "oelm-freeze": {"model_type": "oelm"}}
    runs = [load(make_run(tmp_path / "a", "oelm", tag="freeze")), load(make_run(tmp_path / "b", "oelm-freeze"))]
    made = build(synthetic.study(groups=groups, hypotheses=()), runs)
    assert [len(made.groups[name]) for name in groups] == [0, 1]


def test_a_seed_that_the_lock_leaves_out_disputes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(lock.content(synthetic.study(seeds=(42, 43)), [], {}, synthetic.START - 9))
    runs = synthetic.make_arms(tmp_path, {name: [*losses, losses[0]] for name, losses in TWO.items()})
    runs.append(load(changed(tmp_path / "exp_oelm_freeze-s44", tmp_path / "exp_oelm_freeze-s44.rerun", 0.0002)))
    made = build(synthetic.study(seeds=(42, 43, 44)), runs, lock=lock.read(path))
    assert outcome(made) == "inconclusive" and len(said(made, "two_results")) == 1


# A project whose default study moves ----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two studies with the same groups; ``tiny`` was the default when its runs were made, ``other`` has none."""
    (tmp_path / "jobs").mkdir()
    default(tmp_path, "tiny")
    for group, losses in {"gpt_base": (3.88, 3.885), **TWO}.items():
        for seed, loss in zip((42, 43), losses, strict=True):
            make_run(tmp_path / "models" / "checkpoints", group, seed, final_loss=loss, study_name="tiny")
    return tmp_path


def default(project: Path, name: str) -> None:
    for study in ("tiny", "other"):
        (project / "jobs" / f"{study}.toml").write_text(("default = true\n" if study == name else "") + STUDY)


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {v["id"]: v["verdict"] for v in json.loads(done.stdout)["verdicts"]}


@pytest.mark.slow
def test_the_runs_of_a_study_are_its_own_whichever_is_the_default(place: Path) -> None:
    before = verdicts(report(place, "--json"))
    default(place, "other")
    done = report(place, "--json")
    assert verdicts(done) == {"H1": "no data", "H2": "no data"} and json.loads(done.stdout)["runs"] == []
    [line] = [f["text"] for f in json.loads(done.stdout)["findings"] if "belongs to study tiny, not other" in f["text"]]
    assert "gpt_base-s43" in line
    assert verdicts(report(place, "--study", "tiny", "--json")) == before
    make_run(place / "models" / "checkpoints" / "tiny", "gpt_base", 44, study_name="tiny")
    runs = json.loads(report(place, "--study", "tiny", "--json").stdout)["runs"]
    assert len(runs) == 7 and "belongs to study" not in report(place, "--study", "tiny").stdout


@pytest.mark.slow
def test_folders_named_for_a_study_give_it_no_runs_of_another_unless_they_are_mapped(place: Path) -> None:
    folder = "models/checkpoints"
    done = report(place, "--study", "other", "--from", folder, "--json")
    assert set(verdicts(done).values()) == {"no data"} and "belongs to study tiny" in done.stdout
    mapped = report(place, "--study", "other", "--map", f"gpt_base={folder}/exp_gpt_base", "--json")
    assert [run["run"] for run in json.loads(mapped.stdout)["runs"]] == ["gpt_base"]


@pytest.mark.slow
def test_what_has_no_record_is_of_the_study_in_whose_folder_it_lies(place: Path) -> None:
    folder = place / "models" / "checkpoints"
    shutil.rmtree(folder)
    for where, seed in ((folder, 43), (folder / "other", 42)):
        run = make_run(where, "gpt_base", seed)
        (run / "experiment_result.json").unlink()
        (run / ".oelm" / "run.json").unlink()

    def seeds(name: str) -> list[int]:
        return [run["seed"] for run in json.loads(report(place, "--study", name, "--json").stdout)["runs"]]

    assert (seeds("tiny"), seeds("other")) == ([43], [42])


@pytest.mark.slow
def test_one_of_two_results_is_chosen_by_its_folder_or_by_archiving_the_other(place: Path) -> None:
    folder = place / "models" / "checkpoints"
    changed(folder / "exp_oelm_freeze", folder / "tiny" / "exp_oelm_freeze", 0.0002)
    done = report(place, "--json")
    assert verdicts(done) == {"H1": "supported", "H2": "undecidable"}
    names = [f"exp_oelm_{name}" for name in ("freeze-s43", "no_freeze", "no_freeze-s43")]
    kept = "models/checkpoints/tiny/exp_oelm_freeze"
    assert verdicts(report(place, kept, *names, "--json"))["H2"] == "inconclusive"
    [text] = [f["text"] for f in json.loads(done.stdout)["findings"] if "several results" in f["text"]]
    subprocess.run(["bash", "-c", text.partition("take one away: ")[2]], check=True)
    assert verdicts(report(place, "--json"))["H2"] == "inconclusive"


@pytest.mark.slow
def test_a_lock_is_found_where_it_was_written_whichever_study_is_the_default(place: Path) -> None:
    report(place, "--lock")
    default(place, "other")
    path = place / "jobs" / "tiny.toml"
    path.write_text(path.read_text().replace("equivalent_within = 0.05", "equivalent_within = 0.2"))
    assert "bounds was [0.05] and is [0.2]" in report(place, "--study", "tiny").stdout
    locked = place / "experiments" / "tiny_lock.json"
    first = json.loads(locked.read_text())["sha256"]
    again = report(place, "--study", "tiny", "--lock")
    assert "It was locked before, which the report will say: hypotheses.H2.bounds" in " ".join(again.stderr.split())
    assert json.loads(locked.read_text())["before"] == first


@pytest.mark.slow
@pytest.mark.parametrize("ahead_s", [86_400.0, -86_400.0])
def test_a_lock_goes_by_the_clock_here_where_that_of_the_target_was_seen_to_differ(place: Path, ahead_s: float) -> None:
    shutil.move(place / "models", place / "away")
    began_at = synthetic.START - ahead_s
    report(place, "--lock", SOURCE_DATE_EPOCH=str(int(began_at) + (600 if ahead_s > 0 else -600)))
    shutil.move(place / "away", place / "models")
    words = {"study": "tiny", "group": "gpt_base", "label": "", "seed": 42, "tag": "", "fingerprint": "", "token": "t"}
    record = {**words, "run": "gpt_base", "run_dir": "/far/exp_gpt_base"}
    with Store() as store:  # it was not seen at work when locked
        store.replace_runs(place, "box", [RunRecord.of(record)])
        (run,) = store.runs(place)
        store.observe([run._replace(state=State.DONE, progress={"clock_ahead_s": ahead_s}, observed_at=time.time())])
    late = "the plan was locked after gpt_base had begun" in report(place).stdout
    assert late is (ahead_s > 0)


@pytest.mark.slow
def test_a_run_that_is_at_work_elsewhere_had_begun_before_the_lock(place: Path) -> None:
    words = {"study": "tiny", "group": "gpt_base", "label": "", "seed": 90, "tag": "", "fingerprint": "", "token": "t"}
    with Store() as store:
        store.replace_runs(
            place, "box", [RunRecord.of({**words, "run": "gpt_base-s90", "run_dir": "/far/exp_gpt_base-s90"})]
        )
        store.observe([run._replace(state=State.RUNNING, observed_at=time.time()) for run in store.runs(place)])
    report(place, "--lock")
    assert "gpt_base-s90" in json.loads((place / "experiments" / "tiny_lock.json").read_text())["started"]


def trial(folder: Path, ratio: float, name: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rounds = [ratio * (1 + i * 8 % 21 / 1000) for i in range(21)]
    comparison = {"group": "oelm_freeze", "against": "oelm_no_freeze", "ratios": rounds}
    path = folder / "speed_trial.json"
    path.write_text(json.dumps({"comparisons": [comparison]}))
    if name:
        synthetic.record(folder, ".oelm/run.json", {"study": name, "run": "speed_trial", "group": "speed_trial"})
    return path


def test_a_speed_trial_of_another_study_does_not_count(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, TWO)
    path = trial(tmp_path / "exp_speed_trial", 1.1, "other")
    trials, remarks = loading.load_trials(None, synthetic.study(), runs)
    assert trials == [] and str(path) in str(remarks[0])
    trial(tmp_path / "exp_speed_trial", 1.1, "demo")
    assert len(loading.load_trials(None, synthetic.study(), runs)[0]) == 1


def test_speed_trials_that_differ_decide_nothing(tmp_path: Path) -> None:
    project, folder = tmp_path, tmp_path / "models" / "checkpoints"
    runs = synthetic.make_arms(folder, TWO)
    trial(folder / "exp_speed_trial", 1.1, "demo")
    trial(folder / "demo" / "exp_speed_trial", 1.1, "demo")

    def h3() -> str:
        trials, _ = loading.load_trials(project, synthetic.study(), runs)
        assert len(trials) == 2
        return outcome(build(synthetic.study(), runs, trials=trials), "H3")

    assert h3() == "supported"
    trial(folder / "demo" / "exp_speed_trial", 0.9, "demo")
    assert h3() == "undecidable"
