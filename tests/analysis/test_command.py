"""``oelm-report`` as users call it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis import figures

from oelm_jobs import Project, reporting
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from oelm_jobs.connections import connect
from oelm_jobs.errors import ConfigurationError
from oelm_jobs.store import Store
from oelm_jobs.submit import submission
from oelm_jobs.targets.files import LOCAL

from . import synthetic
from .synthetic import make_run, old_log

pytestmark = pytest.mark.slow

STUDY = """
question = "Does it keep perplexity?"
factors = ["model_type", "freeze_qk"]
seeds = [42, 43]
[train]
data_path = "data/tiny/train.bin"
vocab_size = 1024
global_batch = 16
d_model = 128
num_layers = 4
num_heads = 4
d_ff = 512
seq_len = 64
max_steps = 400
[groups]
gpt_base = { label = "Group A: GPT-Base", model_type = "gpt", gpus = 1 }
oelm_no_freeze = { label = "Group B: OELM-NoFreeze", model_type = "oelm", freeze_qk = false, gpus = 1 }
oelm_freeze = { label = "Group C: OELM-Freeze", model_type = "oelm", freeze_qk = true, gpus = 1 }
[hypotheses]
H1 = { metric = "trainable_params", group = "oelm_freeze", against = "oelm_no_freeze", reduction = [0.10, 0.20] }
H2 = { metric = "final_val_ppl", group = "oelm_freeze", against = "oelm_no_freeze", equivalent_within = 0.05 }
"""
LATER = "1800000000"
"""When heartbeats of the runs are long over."""
LOSSES = {"gpt_base": (3.88, 3.885), "oelm_no_freeze": (3.85, 3.856), "oelm_freeze": (3.95, 3.957)}


def report(folder: Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from oelm_jobs.cli.report import main; main()", *arguments]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", **environment}
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, env=env
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A project with a default study ``tiny`` and a finished run of each group and seed."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "tiny.toml").write_text("default = true\n" + STUDY)
    for group, losses in LOSSES.items():
        for seed, loss in zip((42, 43), losses, strict=True):
            make_run(tmp_path / "models" / "checkpoints", group, seed, final_loss=loss, study_name="tiny")
    return tmp_path


def test_the_default_study_is_reported_and_its_files_lie_in_experiments(place: Path) -> None:
    done = report(place)
    assert "H1  SUPPORTED" in done.stdout and "H2  REFUTED" in done.stdout and "Comparison of the groups" in done.stdout
    names = {path.name for path in (place / "experiments" / "analysis").iterdir()}
    assert {"comparison_table.txt", "hypothesis_validation.txt", "analysis_results.json", "report.html"} <= names
    assert not any(name.endswith(".png") for name in names)
    assert (
        json.loads((place / "experiments" / "tiny_summary.json").read_text())["hypotheses"]["H1"]["verdict"]
        == "supported"
    )


def test_a_misspelt_group_or_run_is_an_error_and_a_group_without_runs_is_none(place: Path) -> None:
    shutil.rmtree(place / "models")
    for name in ("gpt_bse", "oelm_freeze-s43"):
        done = report(place, name, check=False)
        assert done.returncode == 2 and f"{name!r} names no group or run that is here" in done.stderr
        assert "did you mean" in done.stderr and "valid: gpt_base, oelm_freeze, oelm_no_freeze" in done.stderr
    assert "interim: group gpt_base has no runs" in report(place, "gpt_base").stdout


def test_plot_adds_the_figures(place: Path) -> None:
    report(place, "--plot")
    folder = place / "experiments" / "analysis"
    assert (folder / "val_ppl_comparison.png").stat().st_size > 10_000 and (
        folder / "parameter_distribution.svg"
    ).is_file()
    assert "<svg" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("state", "reason", "shown"),
    [
        (State.CANCELLED, "before it started", "CANCELLED (before it started) 200/400"),
        (State.FAILED, "out of memory", "FAILED (out of memory) 200/400"),
        (State.RUNNING, "", "RUNNING 200/400"),
        (State.DONE, "", "UNKNOWN (DONE on box: oelm-fetch brings it) 200/400"),
        (State.UNKNOWN, "", "UNKNOWN (no heartbeat) 200/400"),
    ],
)
def test_a_run_whose_files_tell_no_end_stands_as_its_target_was_last_seen_to_have_it(
    place: Path, state: State, reason: str, shown: str
) -> None:
    run_dir = place / "models" / "checkpoints" / "exp_gpt_base-s43"
    shutil.rmtree(run_dir)
    make_run(run_dir.parent, "gpt_base", 43, stop=200, study_name="tiny")
    words = {"study": "tiny", "run": "gpt_base-s43", "group": "gpt_base", "label": "", "seed": 43, "tag": ""}
    record = {**words, "run_dir": f"/far/{run_dir.name}", "fingerprint": "", "token": "t"}
    with Store() as store:
        store.replace_runs(place, "box", [RunRecord.of(record)])
        store.observe([run._replace(state=state, reason=reason) for run in store.runs(place)])
    assert f"interim: gpt_base-s43 {shown}" in report(place, SOURCE_DATE_EPOCH=LATER).stdout


def test_a_run_that_waits_its_turn_on_this_machine_is_queued_though_it_has_no_record_yet(place: Path) -> None:
    run_dir = place / "models" / "checkpoints" / "exp_gpt_base-s43"
    shutil.rmtree(run_dir)
    (run_dir / ".oelm").mkdir(parents=True)
    words = {"study": "tiny", "run": "gpt_base-s43", "group": "gpt_base", "label": "", "seed": 43, "tag": ""}
    with Store() as store:
        store.replace_runs(
            place, "local", [RunRecord.of({**words, "run_dir": str(run_dir), "fingerprint": "", "token": "t"})]
        )
        (run,) = store.runs(place)
        store.observe([run._replace(state=State.QUEUED, reason="waiting for gpt_base to end")])
    assert "gpt_base-s43 QUEUED (waiting for gpt_base to end)" in report(place).stdout


def test_runs_that_are_elsewhere_alone_make_a_report_interim(place: Path) -> None:
    words = {"study": "tiny", "group": "gpt_base", "label": "", "tag": "", "token": "t"}
    names = {"gpt_base-s90": (State.RUNNING, {"step": 3}), "gpt_base-s91": (State.DONE, {"step": 400}),
             "gpt_base-s92": (State.FAILED, {}), "gpt_base-s43": (State.RUNNING, {"step": 500})}  # fmt: skip
    (place / "far" / "exp_gpt_base-s91").mkdir(parents=True)  # a home folder that both machines have
    far = {name: f"{place if name.endswith('91') else ''}/far/exp_{name}" for name in names}
    rows = [{**words, "run": name, "seed": int(name[-2:]), "run_dir": far[name], "fingerprint": "f" * 64}
            for name in names]  # fmt: skip
    with Store() as store:
        store.replace_runs(place, "box", list(map(RunRecord.of, rows)))
        runs = [(run, *names[run.name]) for run in store.runs(place)]
        store.observe([run._replace(state=state, progress=progress) for run, state, progress in runs])
    said = " ".join(report(place, SOURCE_DATE_EPOCH=LATER).stdout.split())
    assert "INTERIM" in said and "gpt_base-s90 RUNNING" in said
    assert "gpt_base-s91 UNKNOWN (DONE on box: oelm-fetch brings it)" in said
    assert "gpt_base-s92" not in said, "it was never submitted"
    assert "gpt_base-s43 RUNNING" in said, "the copy here is of fewer steps"


def test_files_of_this_machine_are_newer_than_what_was_seen_of_them(place: Path) -> None:
    run_dir = place / "models" / "checkpoints" / "exp_gpt_base-s43"
    shutil.rmtree(run_dir)
    make_run(run_dir.parent, "gpt_base", 43, stop=200, study_name="tiny")
    words = {"study": "tiny", "run": "gpt_base-s43", "group": "gpt_base", "label": "", "seed": 43, "tag": ""}
    with Store() as store:
        store.replace_runs(
            place, "local", [RunRecord.of({**words, "run_dir": str(run_dir), "fingerprint": "", "token": "t"})]
        )
        store.observe([run._replace(state=State.RUNNING) for run in store.runs(place)])
    assert "gpt_base-s43 UNKNOWN (no heartbeat) 200/400" in report(place, SOURCE_DATE_EPOCH=LATER).stdout


def test_another_study_has_folders_of_its_own(place: Path) -> None:
    (place / "jobs" / "other.toml").write_text(STUDY)
    make_run(place / "models" / "checkpoints" / "other", "gpt_base", study_name="other")
    report(place, "--study", "other")
    assert (place / "experiments" / "other" / "other_summary.json").is_file()
    assert (place / "experiments" / "other" / "analysis" / "comparison_table.txt").is_file()


def test_output_takes_everything_elsewhere(place: Path) -> None:
    report(place, "--output", "mine")
    assert (place / "mine" / "comparison_table.txt").is_file() and (place / "mine" / "tiny_summary.json").is_file()
    assert not (place / "experiments").exists()


def test_the_page_that_is_shown_and_the_files_share_figures_that_are_drawn_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(*arguments: Any) -> Any:
        drawn.append(arguments)
        return figures.draw(*arguments)

    monkeypatch.setattr(reporting, "draw", draw)
    found = reporting.report_on(place, "tiny")
    page = found.show("html")
    files, _ = found.write(plot=True)
    assert len(drawn) == 1 and found.folder is not None
    assert (found.folder / "report.html").read_text(encoding="utf-8") == page and "<svg" in page
    assert found.folder / "verdicts.png" in files


@pytest.mark.parametrize("arguments", [("--json",), ("--format", "json")])
def test_json_on_stdout_is_the_results_file(place: Path, arguments: tuple[str, ...]) -> None:
    done = report(place, *arguments)
    assert done.stdout == (place / "experiments" / "analysis" / "analysis_results.json").read_text()
    content = json.loads(done.stdout)
    assert content["version"] == 1 and [v["id"] for v in content["verdicts"]] == ["H1", "H2"]


@pytest.mark.parametrize(
    ("form", "begins"),
    [("markdown", "# Report"), ("latex", "% Report"), ("html", "<!DOCTYPE html>"), ("csv", "group,status,seeds")],
)
def test_other_forms_go_to_stdout(place: Path, form: str, begins: str) -> None:
    assert report(place, "--format", form).stdout.startswith(begins)


def test_a_selection_is_printed_and_overwrites_nothing(place: Path) -> None:
    done = report(place, "oelm_freeze", "oelm_no_freeze")
    assert "gpt_base" not in done.stdout and "H2  REFUTED" in done.stdout
    assert "Nothing was written" in done.stderr and not (place / "experiments").exists()


def test_a_name_that_fits_nothing_is_refused_with_the_valid_ones(place: Path) -> None:
    done = report(place, "oelm_frozen", check=False)
    assert (
        done.returncode == 2
        and "did you mean" in done.stderr
        and "oelm_freeze" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_project_without_any_run_says_so_and_does_not_fail(place: Path) -> None:
    (place / "jobs" / "other.toml").write_text(STUDY)
    done = report(place, "--study", "other")
    assert "group gpt_base has no runs" in done.stdout and "H2  NO DATA" in done.stdout and "INTERIM" in done.stdout


def test_old_folders_are_read_outside_of_any_project(tmp_path: Path) -> None:
    for name, frozen in (("gpt", 0), ("nofreeze", 0), ("freeze", 3_145_728)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.log").write_text(
            old_log(frozen=frozen, final_loss=1.5 + len(name) / 100, seed=len(name))
        )
    done = report(
        tmp_path,
        "--from",
        "gpt",
        "--map",
        "gpt_base=gpt",
        "--map",
        "oelm_no_freeze=nofreeze",
        "--map",
        "oelm_freeze=freeze",
    )
    assert "H1  REFUTED" in done.stdout and "7.01 % below" in done.stdout and "H4  MET (ONE SEED)" in done.stdout
    assert "Nothing was written" in done.stderr and len(list(tmp_path.iterdir())) == 3


def test_many_folders_may_follow_and_a_name_within_one_selects(tmp_path: Path) -> None:
    for name in ("gpt_base", "oelm_freeze", "oelm_no_freeze"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.log").write_text(old_log())

    def runs(*arguments: str) -> list[str]:
        return [run["run"] for run in json.loads(report(tmp_path, *arguments, "--json").stdout)["runs"]]

    assert runs("--from", "gpt_base", "oelm_freeze") == ["gpt_base", "oelm_freeze"]
    assert runs("--from", ".", "gpt_base") == ["gpt_base"]
    assert len(runs("--from", "gpt_base", "oelm_freeze", "--from", "oelm_no_freeze")) == 3


HOSTILE_LINES = (
    "\x1b[31mStep 10100 | Loss: 1.5000 | PPL: 4.48 | LR: 3.00e-05\x1b[0m\x1b]0;title\x07\n"
    "Step -5 | Loss: 1.5000 | PPL: 4.48\n"
    "Step 10200 | Loss: -1.5000 | PPL: 4.48\n"
    "Step 99999999999999999999999 | Loss: 1.5000 | PPL: 4.48\n"
    + "x" * 3_000_000
    + "\nStep 10300 | Loss: nan | PPL: nan | LR: 3.00e-05\n"
)


def bad_folders(root: Path) -> Path:
    """Make folders with everything that a user's old results may hold."""
    logs = {
        "gpt_base": old_log(frozen=0).encode(),
        "oelm_no_freeze": old_log(frozen=0, val_interval=700, seed=1, final_loss=1.6).encode(),
        "oelm_freeze": (old_log(seed=2, final_loss=1.7) + HOSTILE_LINES).encode(),
        "empty": b"",
        "binary": random.Random(1).randbytes(100_000),
        "half": old_log(seed=3).encode()[:-20],
    }
    for name, content in logs.items():
        (root / name).mkdir(parents=True)
        (root / name / "training.log").write_bytes(content)
    for name in ("mine", "other"):
        make_run(root, name, study_name=f"study_of_{name}")
    (root / "notes").mkdir()
    return root


def test_every_bad_input_has_its_line_in_the_report(tmp_path: Path) -> None:
    done = report(tmp_path, "--from", str(bad_folders(tmp_path / "old")))
    said = " ".join(done.stdout.split())
    for line in (
        "binary, empty: training.log holds no record of a step",
        "lines of training.log are no records (0 of them look like one",
        "empty left no validation and takes part in no comparison",
        "half: the last line of training.log is cut off and was left out",
        "oelm_freeze diverged",
        "oelm_freeze: 4 of 119 lines of training.log are no records (3 of them look like one and aren't understood)",
        "Last validated before the last step: oelm_no_freeze 9,800, half 9,000",
        "validations came at different intervals",
        "other says that it belongs to study study_of_other, not study_of_mine",
        "hold no run (no log, no table of metrics by step) and were left out: notes",
        "logs alone don't tell whether data, sequences per step were the same",
    ):
        assert line in said, line
    h2 = done.stdout.split("H2  ")[1].split("H3  ")[0]
    assert "NOT MET (ONE SEED)" in h2 and "oelm_freeze diverged, which counts as a failure of the arm" in h2


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "json", "html"])
def test_bad_input_is_harmless_in_every_form_and_language(tmp_path: Path, form: str) -> None:
    old = str(bad_folders(tmp_path / "old"))
    made = [report(tmp_path, "--from", old, "--format", form, "--lang", language).stdout for language in ("en", "zh")]
    for shown in made:
        assert len(shown) > 500 and not set(shown) & {"\x1b", "\x07", "\x00"}
    if form not in ("csv",):
        assert made[0] != made[1]


def test_one_group_of_a_study_is_interim_and_decides_nothing(place: Path) -> None:
    for folder in (place / "models" / "checkpoints").glob("exp_oelm_*"):
        shutil.rmtree(folder)
    shown = report(place).stdout
    assert "group oelm_freeze has no runs" in shown and shown.count("NO DATA") == 2 and "INTERIM" in shown


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = report(tmp_path, "--from", "nowhere", check=False)
    assert done.returncode == 2 and done.stderr.startswith("oelm-report: --from nowhere")


def test_the_planner_prints_seeds_and_writes_nothing(place: Path) -> None:
    done = report(place, "--power")
    assert (
        done.stdout.startswith("Power\n")
        and "\nH2  " in done.stdout
        and "H1" not in done.stdout
        and not (place / "experiments").exists()
    )
    assert json.loads(report(place, "--power", "--json").stdout)["power"][0]["hypothesis"] == "H2"


def test_a_lock_is_written_once_and_later_changes_are_deviations(place: Path) -> None:
    done = report(place, "--lock")
    assert "had begun before" in done.stderr
    again = report(place, "--lock", check=False)
    assert again.returncode == 2 and "was locked before" in again.stderr
    study = place / "jobs" / "tiny.toml"
    study.write_text(
        study.read_text()
        .replace("equivalent_within = 0.05", "equivalent_within = 0.20")
        .replace("[42, 43]", "[42, 43, 44]")
    )
    shown = report(place).stdout
    assert "Deviations from the locked plan" in shown and "hypotheses.H2.bounds was [0.05] and is [0.2]" in shown
    assert "seeds 44 came after the lock" in " ".join(shown.split())
    h1, h2 = shown.split("Verdicts\n")[1].split("H2  ")[:2]
    assert "DEVIATION: the rule is not the locked one: bounds was [0.05] and is [0.2]" in " ".join(h2.split())
    assert "DEVIATION" not in h1
    selected = report(place, "gpt_base").stdout
    assert "hypotheses.H2.bounds was [0.05] and is [0.2]" in selected and "was removed" not in selected


def test_chinese_is_spoken_on_request_by_option_or_environment(place: Path) -> None:
    option, environment = report(place, "--lang", "zh").stdout, report(place, OELM_LANG="zh").stdout
    assert option == environment and "各组比较" in option and "H1  支持" in option


def test_made_again_the_files_are_the_same(place: Path) -> None:
    report(place, "--plot")
    folder = place / "experiments" / "analysis"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report(place, "--plot")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(place: Path) -> None:
    (place / "file").write_text("")
    done = report(place, "--output", "file/below", check=False)
    assert done.returncode == 2 and "can't be written" in done.stderr and "Traceback" not in done.stderr


def test_help_loads_no_heavy_library(place: Path) -> None:
    code = (
        "import sys; from oelm_jobs.cli.report import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'matplotlib', 'statsmodels', 'torch', 'msgspec', 'jinja2', 'tabulate'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--from DIR" in done.stdout and "--map GROUP=DIR" in done.stdout


def test_a_text_report_loads_neither_matplotlib_nor_torch(place: Path) -> None:
    code = (
        "import sys; from oelm_jobs.cli.report import main\n"
        "try: main([])\nexcept SystemExit: pass\n"
        "heavy = {'matplotlib', 'torch', 'statsmodels', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=place, timeout=300).returncode == 0


def test_watch_renews_the_page_until_every_run_has_ended(place: Path, tmp_path: Path) -> None:
    folder = place / "models" / "checkpoints"
    running = make_run(folder, "oelm_freeze", 44, stop=200, study_name="tiny")
    beat = json.loads((running / "heartbeat.json").read_text())
    synthetic.record(running, "heartbeat.json", {**beat, "time": 1_700_000_000.0})
    code = "from oelm_jobs.cli import report; report.WATCH_S = 1; report.main(['--watch'])"
    page = place / "experiments" / "analysis" / "report.html"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    watching = subprocess.Popen(
        [sys.executable, "-c", code], cwd=place, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        wait_for(lambda: page.is_file() and 'http-equiv="refresh" content="1"' in page.read_text())
        assert watching.poll() is None
        done = make_run(tmp_path / "made", "oelm_freeze", 44, study_name="tiny")
        running.rename(tmp_path / "gone")  # a look between the two must find a run
        done.rename(running)
        assert watching.wait(timeout=300) == 0
    finally:
        watching.kill()
    content = page.read_text()
    assert "refresh" not in content.split("<style>")[0] and "oelm_freeze-s44" in content


def test_watch_that_is_interrupted_leaves_a_page_that_does_not_reload(place: Path) -> None:
    running = make_run(place / "models" / "checkpoints", "oelm_freeze", 44, stop=200, study_name="tiny")
    beat = json.loads((running / "heartbeat.json").read_text())
    synthetic.record(running, "heartbeat.json", {**beat, "time": 1_700_000_000.0})
    page = place / "experiments" / "analysis" / "report.html"
    code = "from oelm_jobs.cli.report import main; main(['--watch'])"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    watching = subprocess.Popen(
        [sys.executable, "-c", code], cwd=place, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        wait_for(lambda: page.is_file() and (place / "experiments" / "tiny_summary.json").is_file())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=300) == 0
    finally:
        watching.kill()
    assert "refresh" not in page.read_text().split("<style>")[0]


def wait_for(condition: object, seconds: float = 60) -> None:
    """Wait until something is true; fail loudly when it never is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to be")


def test_tables_with_named_columns_are_reported_by_group(tmp_path: Path) -> None:
    for name, last in (("base-s1", 2.0), ("base-s2", 2.1), ("new-s1", 1.5), ("new-s2", 1.6)):
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"epoch,Iter,loss,eval\n0,10,3.5,\n0,10,,3.0\n1,20,,{last}\n")
    columns = ("--columns", "step=Iter,val_loss=eval")
    done = report(tmp_path, "--from", "out", *columns, "--json")
    runs = json.loads(done.stdout)["runs"]
    told = {run["run"]: run["metrics"]["val_loss"]["last"] for run in runs}
    assert told["new-s2"] == {"step": 20, "value": 1.6}
    assert [run["group"] for run in runs] == ["base", "base", "new", "new"]
    assert "2.05" in report(tmp_path, "--from", "out", *columns).stdout
    done = report(tmp_path, "--from", "out", "--columns", "val_loss=evil", check=False)
    assert done.returncode == 2 and "did you mean 'eval'?" in done.stderr
    assert report(tmp_path, *columns, check=False).returncode == 2


def test_a_lock_is_written_as_plain_files_for_an_archive_whose_checksums_hold(place: Path) -> None:
    alone = report(place, "--export", "deposit", check=False)
    assert alone.returncode == 2 and "--export goes with --lock" in alone.stderr
    done = report(place, "--lock", "--export", "deposit")
    assert "files in deposit" in done.stderr
    folder = place / "deposit"
    names = {"SHA256SUMS", "CITATION.cff", "README.md", "lock.json", "lock.txt", "tiny.toml", "ledger.jsonl"}
    assert {path.name for path in folder.iterdir()} == names
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=True)
    assert checked.stdout.count(": OK") == len(names) - 1
    locked = place / "experiments" / "tiny_lock.json"
    assert (folder / "lock.json").read_bytes() == locked.read_bytes()
    sha256 = json.loads(locked.read_text())["sha256"]
    text = (folder / "lock.txt").read_text()
    assert sha256 in text and "equivalent_within" in text and "seeds: [42, 43]" in text
    citation = (folder / "CITATION.cff").read_text()
    assert f'version: "{sha256}"' in citation and 'authors:\n  - name: "FILL IN"' in citation
    again = report(place, "--lock", "--export", "deposit", check=False)
    assert again.returncode == 2 and "there is something already" in again.stderr
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report(place, "--lock", "--export", "other")
    assert {path.name: path.read_bytes() for path in (place / "other").iterdir()} == before


def test_a_study_that_is_not_as_it_was_locked_is_not_submitted(place: Path) -> None:
    report(place, "--lock")
    study = place / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("equivalent_within = 0.05", "equivalent_within = 0.20"))
    with Project(place, say=lambda text: None) as project, pytest.raises(ConfigurationError) as refused:
        submission.lock_of(project.plan("tiny", offline=True), connect(LOCAL, place))
    assert f"{study} is not as" in str(refused.value)
    assert "hypotheses.H2.bounds is [0.2], locked as [0.05]" in str(refused.value)
