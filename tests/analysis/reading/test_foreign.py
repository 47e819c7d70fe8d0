"""Runs of other programs, in folders as people have them: found, grouped by their settings, and judged as arms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.reading import foreign, loading, series, settings
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import Report, build

from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.errors import UsageError

Rows = list[dict[str, float]]


def rows(steps: int, lr: float = 1e-3, seed: int = 0) -> Rows:
    """Return what a run tells, with a learning rate that falls to zero over 1000 steps."""
    return [
        {
            "step": step,
            "val_loss": 3 - step / 1000 + seed / 100,
            "lr": lr * 0.5 * (1 + math.cos(math.pi * step / 1000)),
        }
        for step in range(100, steps + 1, 100)
    ]


def make(folder: Path, told: Rows, config: str = "", *, name: str = "config.json", table: str = "metrics.csv") -> None:
    """Make a run's folder."""
    (folder / table).parent.mkdir(parents=True, exist_ok=True)
    if table.endswith(".csv"):
        lines = [",".join(told[0]), *(",".join(map(repr, row.values())) for row in told)]
        text = "\n".join(lines) + "\n"
    elif table.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in told)
    else:
        text = json.dumps({"log_history": told})
    (folder / table).write_text(text)
    if config:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(config)


def load(*paths: Path) -> tuple[list[LoadedRun], Report]:
    study, runs = loading.load_folders(paths, [], None)
    return runs, build(study, runs, remarks=loading.left_out(paths))


def found(report: Report) -> list[str]:
    return [str(finding.text) for finding in report.findings]


def test_folders_of_different_hands_are_grouped_by_the_settings_that_differ(tmp_path: Path) -> None:
    old = tmp_path / "old"
    make(old / "a", rows(1000, seed=1), '{"optim": {"lr": 1e-3, "warmup": 100}, "seed": 1, "out_dir": "a"}')
    yaml = "optim:\n  lr: 1e-3\n  warmup: 100\nseed: 2\nout_dir: b\n"
    make(old / "b", rows(1000, seed=2), yaml, name=".hydra/config.yaml", table="metrics.jsonl")
    namespace = "Namespace(optim={'lr': 0.001, 'warmup': 400}, seed=1, out_dir='c')"
    state = "checkpoint-1000/trainer_state.json"
    make(old / "deep" / "c", rows(1000, seed=1), namespace, name="args.txt", table=state)
    wandb = "_wandb: {value: {x: 1}}\noptim: {value: {lr: 1.0e-3, warmup: 400}}\nseed: {desc: null, value: 2}\n"
    make(old / "deep" / "d", rows(1000, seed=2), wandb, name="config.yaml")
    runs, report = load(old)
    assert {run.name: (run.group, run.seed) for run in runs} == {
        "a": ("warmup=100", 1), "b": ("warmup=100", 2), "deep-c": ("warmup=400", 1), "deep-d": ("warmup=400", 2),
    }  # fmt: skip
    assert report.study.factors == ("optim.warmup",) and report.goals == {"val_loss": "minimize"}
    assert all(run.series["val_loss"].last.step == 1000 for run in runs)
    unfair = [finding for finding in report.findings if finding.severity == "unfair"]
    assert not unfair, "what differs is what is asked about"


def test_what_makes_arms_incomparable_is_said_in_a_line_each(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make(tmp_path / f"base{seed}", rows(1000, seed=seed), f'{{"width": 8, "warmup": 10, "seed": {seed}}}')
    make(tmp_path / "wide1", rows(600, seed=1), '{"width": 64, "warmup": 20, "seed": 1}')
    runs, report = load(tmp_path)
    said = found(report)
    assert {run.group for run in runs} == {"width=8, warmup=10", "width=64, warmup=20"}
    assert "width, warmup change together: nothing tells which of them makes the difference" in said
    assert any(line.startswith("your arms ended at different learning rates: width=8") for line in said)
    assert "seeds are missing: group width=64, warmup=20 has no run of seed 2, 3" in said
    assert any(line.startswith("the runs ended at different steps") for line in said)
    assert not report.is_interim


def test_rates_that_are_asked_about_may_differ_but_not_how_far_they_fell(tmp_path: Path) -> None:
    make(tmp_path / "low", rows(1000, lr=1e-4), '{"lr": 1e-4}')
    make(tmp_path / "high", rows(1000, lr=1e-3), '{"lr": 1e-3}')
    lines = [line for line in found(load(tmp_path)[1]) if "learning rate" in line]
    assert len(lines) == 1 and lines[0].endswith("as declared: a factor of the study")
    make(tmp_path / "high", rows(500, lr=1e-3), '{"lr": 1e-3}')
    assert [line for line in found(load(tmp_path)[1]) if "different parts of their highest learning rate" in line]


def test_a_run_without_settings_goes_by_its_name_and_what_cant_be_read_is_named(tmp_path: Path) -> None:
    make(tmp_path / "old" / "base-s1", rows(300), '{"lr": 1}')
    make(tmp_path / "old" / "wide-s2", rows(300), ": : :", name="config.yaml")
    (tmp_path / "old" / "wide-s2" / "training_args.bin").write_bytes(b"\x80\x04N.")
    (tmp_path / "old" / "notes").mkdir()
    runs, report = load(tmp_path / "old")
    assert [(run.group, run.seed) for run in runs] == [("base", 1), ("wide", 2)]
    said = found(report)
    assert "wide-s2: training_args.bin was not understood: it is a pickle, which could run anything" in said
    assert any(line.startswith("wide-s2: config.yaml was not understood") for line in said)
    assert any(line.endswith("were left out: notes") for line in said)
    assert "no settings were found for wide-s2: the name alone tells the group" in said


def test_each_table_of_a_flat_folder_is_a_run_and_several_of_one_run_are_not(tmp_path: Path) -> None:
    for name in ("base-s1", "base-s2", "wide-s1"):
        make(tmp_path / "flat", rows(300), table=f"{name}.csv")
    assert [(run.name, run.group) for run in load(tmp_path / "flat")[0]] == [
        ("base-s1", "base"), ("base-s2", "base"), ("wide-s1", "wide"),
    ]  # fmt: skip
    make(tmp_path / "one", rows(300), table="train.csv")
    make(tmp_path / "one", rows(300), table="val.csv")
    assert [run.name for run in load(tmp_path / "one")[0]] == ["one"]


def test_groups_that_the_user_names_stay(tmp_path: Path) -> None:
    make(tmp_path / "a", rows(300), '{"lr": 1}')
    make(tmp_path / "b", rows(300), '{"lr": 2}')
    study, runs = loading.load_folders([], [f"mine={tmp_path / 'a'}", f"theirs={tmp_path / 'b'}"], None)
    assert [run.group for run in runs] == ["mine", "theirs"] == list(study.groups)


def test_a_direction_is_guessed_from_a_name_and_said_so_unless_the_user_says_it(tmp_path: Path) -> None:
    for name, better in (("a", 0.0), ("b", 1.0)):
        told = [{"step": step, "val_acc": better + step / 100, "fitness": step} for step in range(1, 5)]
        make(
            tmp_path / name, [{key: float(value) for key, value in row.items()} for row in told], f'{{"lr": {better}}}'
        )
    guessed, report = load(tmp_path)
    assert [run.goals for run in guessed] == [{"val_acc": "maximize"}] * 2
    said = "which way a metric is better was guessed from its name (val_acc: maximize); --goal says it"
    assert [str(note) for note in report.reading_notes] == [f"a, b: {said}"]
    _study, runs = loading.load_folders([tmp_path], [], None, goals={"fitness": "minimize", "val_acc": "minimize"})
    assert [(run.main, dict(run.goals), run.notes) for run in runs] == [
        ("fitness", {"fitness": "minimize", "val_acc": "minimize"}, ())
    ] * 2
    for goals, why in (({"fitnes": "minimize"}, "did you mean 'fitness'"), ({"fitness": "max"}, "maximize, minimize")):
        with pytest.raises(UsageError, match=f"--goal fitne.*{why}"):
            loading.load_folders([tmp_path], [], None, goals=goals)


def test_a_table_tells_what_is_odd_and_keeps_the_best_of_what_is_maximized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "LIMIT", 64)
    told = [{"step": float(step), "val_acc": 1.0 if step == 50 else step / 600} for step in range(1, 300)]
    make(tmp_path / "a", [*told, {"step": 300.0, "val_acc": math.nan}])
    make(tmp_path / "b", rows(300))
    run = load(tmp_path)[0][0]
    best = run.series["val_acc"].best("maximize")
    assert best is not None and best.value == 1.0 and len(run.series["val_acc"].step) <= 64
    assert any("val_acc in metrics.csv is not finite at 1 of" in note for note in run.notes)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("args.txt", "python train.py --lr 1e-3 --amp --name=a\n", {"lr": 0.001, "amp": True, "name": "a"}),
        ("hparams.yaml", "lr: 1e-3\nlayers: [1, 2]\nname: null\n", {"lr": 0.001, "layers": "[1, 2]", "name": None}),
        ("config.json", '{"a": {"b": {"c": 1}}, "d": "007"}', {"a.b.c": 1, "d": 7}),
        ("config.yaml", "!!python/object/apply:os.system ['touch owned']\n", {}),
        ("config.json", "[1, 2]", {}),
    ],
)
def test_settings_are_read_in_the_forms_that_people_leave(
    tmp_path: Path, name: str, text: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    notes: list[Sentence] = []
    assert settings.read(tmp_path, notes) == expected
    assert bool(notes) is not bool(expected) and not (tmp_path / "owned").exists()


def test_names_of_places_and_seeds_are_no_settings() -> None:
    for name in ("out_dir", "training.output_dir", "run_name", "wandb.project", "resume_from", "local_rank", "logdir"):
        assert foreign.PLACES.fullmatch(name), name
    for name in ("data_dir", "train_file", "model_name", "lr", "max_steps", "optimizer.name", "batch_size", "run"):
        assert not foreign.PLACES.fullmatch(name) or name == "run", name
    assert foreign.SEEDS.fullmatch("trainer.seed_everything") and foreign.SEEDS.fullmatch("random_seed")
