"""A day's use: resubmitting, starting over, extending, rebuilding the index, fetching, the doctor.

Training is stood in for; tests/test_end_to_end.py has the same on real training.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oelm_jobs.runs import control
from oelm_jobs.store import Store
from tests.support import end_all, read, stand_in_for_nvidia_smi, stand_in_for_python, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]

GPT = ("submit", "--study", "tiny", "--group", "gpt_base")


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def edit(project: Path, old: str, new: str) -> None:
    path = project / "jobs" / "tiny.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_finished_run_of_which_nothing_is_left_starts_over(oelm, project: Path, tmp_path: Path) -> None:
    oelm(*GPT, "--wait")
    models, away = project / "models", tmp_path / "away"
    models.rename(away)
    models.symlink_to(tmp_path / "a disk that is not mounted")
    assert "left alone, is done" in oelm(*GPT).stdout, "its files may come back"
    models.unlink()
    again = oelm(*GPT, "--wait")
    assert "gpt_base was DONE, and its files are gone: it starts over" in again.stderr
    result = read(run_dir(project) / "experiment_result.json")
    assert result["status"] == "DONE" and result["attempts"][0]["number"] == 1
    assert "left alone, is done" in oelm(*GPT).stdout


def test_a_tag_makes_runs_of_their_own(oelm, project: Path) -> None:
    oelm(*GPT, "--set", "max_steps=4", "--tag", "short", "--wait")
    assert read(run_dir(project, "gpt_base-short") / "experiment_result.json")["outcome"]["step"] == 4


def test_twenty_concurrent_submissions_give_each_run_once(oelm, project: Path) -> None:
    try:
        with ThreadPoolExecutor(20) as pool:
            done = list(pool.map(lambda _: oelm("submit", "--study", "tiny", check=False), range(20)))
        words = [line for one in done for line in one.stdout.splitlines()]
        assert not [one.stderr for one in done if one.returncode]
        for name in ("gpt_base", "oelm_no_freeze", "oelm_freeze"):
            assert sum(line == f"{name}: submitted to local" for line in words) == 1, words
        begun = ('"RUNNING"', '"DONE"')
        wait_until(lambda: any(state in oelm("status", "--json").stdout for state in begun), "the first run")
    finally:
        end_all(project)


def test_the_index_is_rebuilt_from_run_directories_alone(
    oelm, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    oelm(*GPT, "--wait")
    before = json.loads(oelm("status", "--json").stdout)["runs"]
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "another state"))
    assert json.loads(oelm("status", "--json").stdout)["runs"] == []
    after = json.loads(oelm("status", "--rebuild", "--json").stdout)["runs"]
    for run in (*before, *after):
        del run["observed_at"], run["queued_at"]
    assert after == before
    assert "left alone, is done" in oelm(*GPT).stdout


def test_a_rebuilt_index_has_the_studys_order(oelm, project: Path) -> None:
    oelm("submit", "--study", "tiny", "--num-seeds", "2", "--mode", "parallel", "--wait")
    names = [run["name"] for run in json.loads(oelm("status", "--rebuild", "--json").stdout)["runs"]]
    groups = ["gpt_base", "oelm_no_freeze", "oelm_freeze"]
    assert names == [*groups, *(f"{group}-s43" for group in groups)]


def test_a_run_without_a_checkpoint_is_not_trained_further_from_the_beginning(oelm, project: Path) -> None:
    oelm(*GPT, "--wait")
    for path in run_dir(project).glob("checkpoint_*.pt"):
        path.unlink()
    edit(project, "max_steps = 12", "max_steps = 16")
    oelm(*GPT, "--extend", "--wait", check=False)
    assert read(run_dir(project) / "experiment_result.json")["outcome"]["step"] == 12
    assert "has no checkpoint to go on from" in (run_dir(project) / ".oelm" / "supervisor.log").read_text()


def test_fetch_verifies_and_names_what_is_damaged(oelm, project: Path) -> None:
    oelm(*GPT, "--wait")
    assert "verified" in oelm("fetch").stdout
    checkpoint = run_dir(project) / "best_model.pt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(bytes(content))
    damaged = oelm("fetch", "--json", check=False)
    assert damaged.returncode == 1
    assert json.loads(damaged.stdout)["runs"][0]["damaged"] == ["best_model.pt"]
    edit(project, "max_steps = 12", "max_steps = twelve")
    unreported = oelm("fetch", "--report", check=False)
    assert unreported.returncode == 1
    assert "the report of study tiny could not be made: " in unreported.stderr and "tiny.toml" in unreported.stderr


@pytest.mark.parametrize("name", ["with space", "it's", 'say "x"', "实验", "$(x)"])
def test_projects_may_lie_anywhere(oelm, project: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / name / "project"
    place.parent.mkdir()
    shutil.move(project, place)
    link = tmp_path / "link"
    link.symlink_to(place)
    try:
        oelm(*GPT, "--wait", cwd=place)
        assert "DONE" in oelm("status", cwd=link).stdout, "the same project through a symlink"
        assert "left alone, is done" in oelm(*GPT, cwd=link).stdout
    finally:
        end_all(place)


def test_the_doctor_finds_what_would_cost_a_night(oelm, project: Path) -> None:
    good = oelm("doctor")
    assert "torch" in good.stdout and "FAILS" not in good.stdout
    (project / "jobs" / "targets.toml").write_text(
        '[bare]\nkind = "local"\npython = "/nowhere/python"\nsetup = ["true"]\n'
    )
    (project / "data" / "tiny" / "val.bin").write_bytes(b"odd")
    bad = oelm("doctor", "bare", "--json", check=False)
    assert bad.returncode == 1
    findings = {finding["what"]: finding for finding in json.loads(bad.stdout)["findings"]}
    assert findings["torch"]["verdict"] == "bad" and "/nowhere/python" in findings["torch"]["found"]
    assert findings["data of tiny"]["verdict"] == "bad"
    assert all(finding["mend"] for finding in findings.values() if finding["verdict"] == "bad")


def test_a_wait_that_is_interrupted_leaves_the_run_and_says_how_to_return(oelm, project: Path) -> None:
    import signal

    edit(project, "max_steps = 12", "max_steps = 100000")
    program = "from oelm_jobs.cli.submit import main; main()"
    waiting = subprocess.Popen(
        [sys.executable, "-c", program, *GPT[1:], "--wait"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: '"RUNNING"' in oelm("status", "--json").stdout, "the run")
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=300)
    assert (
        waiting.returncode == 130
        and "the runs go on" in said
        and "oelm-status --watch" in said
        and "Traceback" not in said
    )
    assert json.loads(oelm("status", "--json").stdout)["runs"][0]["state"] == "RUNNING"
    assert "cancelled" in oelm("cancel", "gpt_base").stdout


def test_a_refused_submission_leaves_runs_as_they_were(oelm, project: Path) -> None:
    oelm(*GPT, "--wait")
    templates = project / "templates"
    templates.mkdir()
    (templates / "launch.sh.j2").write_text("{% broken")
    for arguments in (["--rerun", "--yes"], ["--extend"]):
        if "--extend" in arguments:
            edit(project, "max_steps = 12", "max_steps = 16")
        assert oelm(*GPT, *arguments, check=False).returncode == 2
        assert json.loads(oelm("status", "--json").stdout)["runs"][0]["state"] == "DONE"
        assert (run_dir(project) / "experiment_result.json").exists(), "nothing was archived"
    (templates / "launch.sh.j2").unlink()
    oelm(*GPT, "--extend", "--wait")
    assert read(run_dir(project) / "experiment_result.json")["outcome"]["step"] == 16


def test_other_data_by_set_are_checked_and_are_another_run(oelm, project: Path) -> None:
    missing = oelm(*GPT, "--set", "data_path=data/nope/train.bin", "--tag", "d", check=False)
    assert missing.returncode == 2 and "no such file; nothing was queued" in missing.stderr


def test_a_broken_nvidia_smi_is_no_reason_to_train_on_the_cpu(
    oelm, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, broken)
    refused = oelm(*GPT, check=False)
    assert refused.returncode != 0 and "Driver/library version mismatch" in refused.stderr, refused.stderr
    assert "Driver/library version mismatch" in oelm("doctor", check=False).stdout


def test_records_that_make_no_sense_are_one_runs_trouble(oelm, project: Path) -> None:
    oelm(*GPT, "--wait")
    (run_dir(project) / ".oelm" / "end.json").write_text('{"attempts": 3, "state": "BOGUS"}')
    rows = json.loads(oelm("status", "--rebuild", "--json").stdout)["runs"]
    assert rows[0]["state"] == "UNKNOWN" and "can't be understood" in rows[0]["reason"]


def test_a_record_of_the_index_that_makes_no_sense_is_one_runs_trouble(oelm, project: Path) -> None:
    oelm("submit", "--study", "tiny", "--groups", "gpt_base,oelm_freeze", "--wait")
    with Store() as store:
        store._db.execute('UPDATE run SET spec = \'{"train": {"max_steps": "x"}}\' WHERE name = \'gpt_base\'')
        store._db.execute("UPDATE run SET observed_at = 'x', queued_at = 'x'")
    shown = oelm("status", check=False)
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if " DONE " in line}
    assert shown.returncode == 2 and set(lines) == {"gpt_base", "oelm_freeze"}, shown.stderr
    wrong = "what the index has of the configuration of tiny/gpt_base can't be understood: spec"
    assert wrong in lines["gpt_base"] and "12/12" in lines["oelm_freeze"]
    assert wrong in shown.stderr and "oelm-status --rebuild" in shown.stderr
    told = oelm("status", "--json", check=False)
    rows = {row["name"]: row for row in json.loads(told.stdout)["runs"]}
    assert (told.returncode, rows["gpt_base"]["max_steps"], rows["oelm_freeze"]["max_steps"]) == (2, None, 12)
    assert oelm("status", "oelm_freeze").returncode == 0
    assert "tiny/gpt_base" in oelm(*GPT, check=False).stderr, "what is to be decided by it waits"
    assert "12/12" in oelm("status", "--rebuild").stdout and not oelm("status").stderr


def test_the_other_runs_are_served_where_a_record_of_the_index_makes_no_sense(oelm, quick: Path) -> None:
    oelm("submit", "--study", "tiny", "--groups", "gpt_base,oelm_freeze", "--wait")
    with Store() as store:
        store._db.execute("UPDATE run SET spec = '{}' WHERE name = 'gpt_base'")
    fetched = oelm("fetch", "--report", check=False)
    wrong = "what the index has of the configuration of tiny/gpt_base can't be understood: spec"
    assert fetched.returncode == 2 and fetched.stderr.count(wrong) == 1 and "--rebuild" in fetched.stderr
    assert fetched.stdout.startswith("oelm_freeze: ") and "Report of study tiny" in fetched.stdout
    assert list(json.loads(oelm("fetch", "--json", check=False).stdout)["misread"]) == ["tiny/gpt_base"]
    cleaned = oelm("clean", "--all", "--dry-run", check=False)
    assert cleaned.returncode == 2 and wrong in cleaned.stderr and cleaned.stdout.startswith("oelm_freeze on local: ")
    cancelled = oelm("cancel", "gpt_base")
    assert cancelled.stdout == "gpt_base: is DONE already\n", "its configuration is of no account here"


def test_a_run_of_which_the_index_cannot_say_where_it_lies_is_named_and_left_alone(oelm, quick: Path) -> None:
    oelm("submit", "--study", "tiny", "--groups", "gpt_base,oelm_freeze", "--wait")
    with Store() as store:
        store._db.execute("UPDATE run SET run_dir = 'nowhere', state = 'RUNNING' WHERE name = 'gpt_base'")
    wrong = "the index has a run 'gpt_base' of study 'tiny' in 'nowhere': no submission can have named it so"
    for command in (["fetch"], ["clean", "--all", "--dry-run"], ["cancel", "--study", "tiny"], ["logs", "gpt_base"]):
        done = oelm(*command, check=False)
        assert done.returncode == 2 and wrong in done.stderr and "--rebuild" in done.stderr, (command, done.stderr)
        assert command[0] == "logs" or done.stdout.startswith("oelm_freeze"), done.stdout
    seen = oelm("status", "--json", check=False)
    assert seen.returncode == 2 and wrong in seen.stderr
    shown = json.loads(seen.stdout)
    assert not shown["unreachable"] and {run["name"]: run["state"] for run in shown["runs"]} == {
        "gpt_base": "RUNNING", "oelm_freeze": "DONE",
    }  # fmt: skip


def test_a_script_started_by_hand_after_a_cancel_is_seen(oelm, project: Path) -> None:
    edit(project, "max_steps = 12", "max_steps = 100000")
    oelm(*GPT)
    wait_until(lambda: '"RUNNING"' in oelm("status", "--json").stdout, "the run")
    oelm("cancel", "gpt_base")
    log = run_dir(project) / ".oelm" / "supervisor.log"
    with open(log, "ab") as out:
        script = ["bash", ".oelm/launch.sh"]
        subprocess.Popen(script, cwd=run_dir(project), stdout=out, stderr=out, start_new_session=True)
    wait_until(lambda: '"RUNNING"' in oelm("status", "--json").stdout, "the run that nobody submitted")
    oelm("cancel", "gpt_base")
    assert "CANCELLED" in oelm("status").stdout


def test_an_extension_keeps_its_data_and_its_provenance(oelm, project: Path) -> None:
    oelm(*GPT, "--wait")
    edit(project, "max_steps = 12", "max_steps = 200000")
    tokens = project / "data" / "tiny" / "train.bin"
    content = tokens.read_bytes()
    tokens.write_bytes(content[2:] + content[:2])
    refused = oelm(*GPT, "--extend", check=False)
    assert refused.returncode == 2 and "other data" in refused.stderr
    tokens.write_bytes(content)
    oelm(*GPT, "--extend")
    wait_until(lambda: '"RUNNING"' in oelm("status", "--json").stdout, "the extension")
    oelm("cancel", "gpt_base")
    oelm(*GPT)
    wait_until(lambda: '"RUNNING"' in oelm("status", "--json").stdout, "the extension to go on")
    assert read(run_dir(project) / ".oelm" / "run.json")["extended_from"]["max_steps"] == 12
    oelm("cancel", "gpt_base")


def test_a_name_that_two_studies_share_is_shown_with_its_study(oelm, project: Path) -> None:
    (project / "jobs" / "other.toml").write_text((project / "jobs" / "tiny.toml").read_text())
    oelm(*GPT, "--wait")
    oelm("submit", "--study", "other", "--group", "gpt_base", "--wait")
    shown = oelm("cancel", "gpt_base").stdout.splitlines()
    assert shown == ["tiny/gpt_base: is DONE already", "other/gpt_base: is DONE already"]
    assert "No run of this project is under way" in oelm("cancel", "--all").stderr
    rows = json.loads(oelm("cancel", "gpt_base", "--json").stdout)["runs"]
    assert [(row["study"], row["run"]) for row in rows] == [("tiny", "gpt_base"), ("other", "gpt_base")]
    fetched = oelm("fetch").stdout
    assert "tiny/gpt_base: " in fetched and "other/gpt_base: " in fetched
    lines = [json.loads(line) for line in oelm("logs", "tiny/gpt_base", "-n", "5", "--json").stdout.splitlines()]
    log = (run_dir(project) / "training.log").read_text().splitlines()
    assert [line["line"] for line in lines[:-1]] == log[-5:] and lines[-1]["state"] == "DONE"
    assert oelm("data", "check", "data/tiny", "--json").stdout.startswith("{")


def test_two_runs_are_never_known_by_one_name(oelm, project: Path) -> None:
    oelm(*GPT, "--seeds", "43", "--wait")
    done = oelm(*GPT, "--tag", "s43", check=False)
    assert done.returncode == 2 and "gpt_base-s43 would name two runs" in done.stderr and "--tag" in done.stderr


def test_a_cancel_waits_for_a_submission_that_is_on_its_way(
    oelm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The submitting client is held between its intent and its launch until the cancel waits for it."""
    held, go = project / "held", project / "go"
    program = (
        "import pathlib, time\n"
        "from oelm_jobs.schedulers.leases import LeaseScheduler\n"
        "real = LeaseScheduler.submit\n"
        "def late(*a, **k):\n"
        f"    pathlib.Path({str(held)!r}).touch()\n"
        f"    while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\n"
        "    return real(*a, **k)\n"
        "LeaseScheduler.submit = late\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base'])"
    )
    edit(project, "max_steps = 12", "max_steps = 100000")
    client = subprocess.Popen([sys.executable, "-c", program], cwd=project)
    wait_until(held.exists, "the client to be on its way")
    sleep = time.sleep
    monkeypatch.setattr(control.time, "sleep", lambda seconds: (go.touch(), sleep(seconds)))
    with Store() as store:
        assert control.cancel(store, project, store.runs(project)) == {("tiny", "gpt_base"): "cancelled"}
    assert go.exists() and client.wait() == 0
    assert "CANCELLED" in oelm("status").stdout


def test_a_name_that_differs_in_the_case_of_letters_alone_is_refused_before_anything_is_queued(
    oelm, project: Path
) -> None:
    edit(project, "[groups]\n", '[groups]\nGPT_base = { label = "Another", model_type = "gpt" }\n')
    words = ("submit", "--study", "tiny", "--groups", "gpt_base,GPT_base", "--mode", "sequential")
    refused = oelm(*words, check=False)
    assert refused.returncode == 2 and "differ in upper and lower case alone" in refused.stderr
    assert "--tag" in refused.stderr and "No run yet" in oelm("status").stderr
    oelm(*GPT, "--wait")
    other = oelm("submit", "--study", "tiny", "--group", "GPT_base", check=False)
    assert other.returncode == 2 and "runs gpt_base and GPT_base differ" in other.stderr
    oelm("submit", "--study", "tiny", "--group", "GPT_base", "--tag", "big", "--wait")
    runs = json.loads(oelm("status", "--json").stdout)["runs"]
    assert {run["name"]: run["state"] for run in runs} == {"gpt_base": "DONE", "GPT_base-big": "DONE"}


# A root elsewhere on this machine -------------------------------------------------------------------------------------


@pytest.fixture
def scratch(project: Path, tmp_path: Path) -> Iterator[Path]:
    """A target ``scratch`` of this machine whose runs lie on another disk than the project; return its root."""
    root, python = tmp_path / "scratch" / "me", stand_in_for_python(tmp_path / "python")
    (project / "jobs" / "targets.toml").write_text(f'[scratch]\nkind = "local"\nroot = "{root}"\npython = "{python}"\n')
    yield root
    end_all(root)


THERE = (*GPT, "--target", "scratch")


def test_data_are_copied_to_a_root_elsewhere_when_asked_for(oelm, project: Path, scratch: Path) -> None:
    refused = oelm(*THERE, check=False)
    assert refused.returncode == 2 and f"scratch: {scratch}/data/tiny/train.bin: no such file" in refused.stderr
    assert "nothing was queued" in refused.stderr and "the same command with --send-data" in refused.stderr
    done = oelm(*THERE, "--send-data", "--wait")
    assert "sent to scratch" in done.stderr and "submitted to scratch" in done.stdout
    for name in ("train.bin", "val.bin"):
        assert (scratch / "data" / "tiny" / name).read_bytes() == (project / "data" / "tiny" / name).read_bytes()
    assert sorted(path.name for path in (scratch / "data" / "tiny").iterdir()) == ["train.bin", "val.bin"]
    assert "scratch has the data already" in oelm(*THERE, "--send-data").stderr
    shutil.copy(project / "data" / "tiny" / "val.bin", scratch / "data" / "tiny" / "train.bin")
    assert "holds other data than" in oelm(*THERE, "--send-data", check=False).stderr


def test_the_hint_about_data_that_only_the_project_has_works_as_it_stands(oelm, project: Path, scratch: Path) -> None:
    hint = oelm(*THERE, check=False).stderr
    line = hint[hint.index("data = {") : hint.index("} in the targets file") + 1]
    with (project / "jobs" / "targets.toml").open("a") as file:
        file.write(line + "\n")
    oelm(*THERE, "--wait")
    assert read(scratch / "models/checkpoints/tiny/exp_gpt_base/experiment_result.json")["status"] == "DONE"
    assert not (scratch / "data").exists()


def test_data_that_nobody_has_are_to_be_made_in_the_project(oelm, project: Path, scratch: Path) -> None:
    shutil.rmtree(project / "data" / "tiny")
    make = f"make it: oelm-data make TEXT... --output {project}/data/tiny"
    assert f"{make}; then the same command with --send-data" in oelm(*THERE, check=False).stderr
    for words in ((*THERE, "--send-data"), (*GPT, "--send-data"), GPT):
        refused = oelm(*words, check=False)
        assert refused.returncode == 2 and make in refused.stderr and "has the data already" not in refused.stderr


def test_a_root_elsewhere_is_freed_of_what_is_in_the_project_verified(oelm, project: Path, scratch: Path) -> None:
    oelm(*THERE, "--send-data", "--wait")
    there = scratch / "models" / "checkpoints" / "tiny" / "exp_gpt_base"
    assert "was not fetched" in oelm("clean", "--all", "--yes").stdout
    oelm("fetch", "--checkpoints", "all")
    spoilt = run_dir(project) / "best_model.pt"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"?")
    unasked = oelm("clean", "--all", check=False)
    assert unasked.returncode == 2 and "--yes" in unasked.stderr and list(there.glob("checkpoint_*.pt"))
    assert "freed" in oelm("clean", "--all", "--yes").stdout
    assert [path.name for path in there.glob("*.pt")] == ["best_model.pt"], "its copy is damaged"
    assert list(run_dir(project).glob("checkpoint_*.pt")) and (there / "training.log").exists()
    oelm("fetch", "--verify")
    assert "freed" in oelm("clean", "--all", "--yes").stdout
    assert not list(there.glob("*.pt"))


@pytest.mark.parametrize("linked", ["the project's folder", "the root"])
def test_a_run_that_lies_in_the_project_under_another_name_is_never_cleaned(
    oelm, project: Path, scratch: Path, linked: str
) -> None:
    ours, theirs = project / "models", scratch / "models"
    link, place = (ours, theirs) if linked == "the project's folder" else (theirs, ours)
    place.mkdir(parents=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place)
    oelm(*THERE, "--send-data", "--wait")
    before = sorted(path.name for path in run_dir(project).glob("*.pt"))
    assert "verified" in oelm("fetch", "--checkpoints", "all").stdout
    assert not (run_dir(project) / ".oelm" / "fetched.json").exists(), "nothing was fetched from anywhere"
    assert "there is no second copy" in oelm("clean", "--all", "--yes").stdout
    assert sorted(path.name for path in run_dir(project).glob("*.pt")) == before != []


def test_a_run_inherits_no_modules_of_the_toolkits_interpreter(oelm, project: Path) -> None:
    """Its own interpreter may be another, which takes PYTHONPATH first."""
    python = stand_in_for_python(project.parent / "python")
    (project / "jobs" / "targets.toml").write_text(
        f'[own]\nkind = "local"\npython = "{python}"\nsetup = [\'echo "modules: ${{PYTHONPATH:-its own}}"\']\n'
    )
    oelm(*GPT, "--target", "own", "--wait")
    assert "modules: its own" in (run_dir(project) / ".oelm" / "supervisor.log").read_text()


# Found before anything is stored --------------------------------------------------------------------------------------


def test_a_script_that_cannot_be_printed_leaves_no_run_behind(oelm, project: Path) -> None:
    targets = project / "jobs" / "targets.toml"
    targets.write_text('[mine]\nkind = "local"\ntemplate = "none.j2"\n')
    refused = oelm("submit", "--study", "tiny", "--target", "mine", check=False)
    assert refused.returncode == 2 and "template 'none.j2' is neither in" in refused.stderr
    assert json.loads(oelm("status", "--json").stdout)["runs"] == []
