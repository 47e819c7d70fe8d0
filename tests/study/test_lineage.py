"""What groups need of others: what a study may say of it, what is refused, and what it makes of runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.errors import ConfigurationError, UnfairError
from oelm_jobs.spec.study import Run, Study
from oelm_jobs.study import lineage
from oelm_jobs.study.files import load_study, read_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.study.resolve import plan_runs
from oelm_jobs.targets.files import LOCAL
from tests.support import REPOSITORY

PROGRAM = """
factors = ["lr"]
seeds = [1, 2]
[program]
command = "python t.py {settings} {seed}"
[settings]
[groups]
"""
TUNING = """command = "python t.py {settings} {seed}"
[settings]
rate = 0.1
[metrics]
lines = ["loss {loss}"]
goal = { loss = "minimize" }
[sweep]
parameters.rate = { values = [0.1, 0.2] }"""
TRAINER = """
factors = ["model_type"]
seeds = [1, 2]
[train]
global_batch = 8
d_model = 32
num_heads = 4
max_steps = 20
warmup_steps = 2
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "t.py").touch()
    return tmp_path


def write(project: Path, name: str, text: str) -> Path:
    path = project / "jobs" / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def runs_of(project: Path, study: Study, **more: Any) -> dict[str, Run]:
    others = lineage.others(project, study, load_study)
    target = replace(LOCAL, root=str(project))
    plan = make_plan(project, study, target, data_hash="d", others=others, known_runs=more.pop("known", {}), **more)
    return {run.name: run for run in plan.runs}


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ('a = { lr = 1.0, needs = ["b"] }\nb = { lr = 2.0, needs = ["a"] }', "wait for one another: a -> b -> a"),
        ('a = { lr = 1.0, needs = ["a"] }', "wait for one another: a -> a"),
        ('base = { lr = 1.0 }\nb = { lr = 2.0, needs = ["bsae"] }', "did you mean 'base'? valid: b, base"),
        ('a = { lr = 1.0 }\nb = { lr = 2.0, needs = ["a-s3"] }', "has no seed 3; valid: 1, 2"),
        ('a = { lr = 1.0 }\nb = { lr = 2.0, needs = ["a:best"] }', "give [STUDY/]GROUP"),
        ('a = { lr = 1.0, when = "always" }', "give needs"),
        ('a = { lr = 1.0, needs = ["a/b"], when = "done" }', "valid: always, success"),
        ('a = { lr = 1.0, inputs = { init = "p/a:best" } }', "is nowhere in the command: give {init}"),
        ('a = { lr = 1.0, inputs = { init = "p/a" } }', "give [STUDY/]GROUP:best, :latest or :PATH"),
        ('a = { lr = 1.0, inputs = { init = "p/a:../../x" } }', "give [STUDY/]GROUP:best, :latest or :PATH"),
        ('a = { lr = 1.0, inputs = { lr = "p/a:best" } }', "is a setting or another placeholder already"),
    ],
)  # fmt: skip
def test_what_cant_be_needed_is_refused_with_its_place_and_what_would_be_right(
    project: Path, groups: str, said: str
) -> None:
    path = write(project, "s", PROGRAM + groups)
    with pytest.raises(ConfigurationError) as error:
        read_study(path)
    assert said in str(error.value) and "s.toml:" in str(error.value) and "[groups" in str(error.value)


def test_a_chain_of_groups_may_be_long(project: Path) -> None:
    groups = [f'g{i} = {{ lr = {i + 1}.0, needs = ["g{i + 1}"] }}' for i in range(1100)]
    study = read_study(write(project, "s", PROGRAM + "\n".join([*groups, "g1100 = { lr = 0.5 }"])))
    names = [*runs_of(project, study, seeds=[1])]
    assert names == [f"g{i}" for i in range(1100, -1, -1)]


def test_more_than_a_target_takes_is_refused_where_it_is_said(project: Path) -> None:
    names = ", ".join(f'"pre/g{number}"' for number in range(1001))
    path = write(project, "s", PROGRAM + f"a = {{ lr = 1.0, needs = [{names}] }}")
    with pytest.raises(ConfigurationError, match=r"\[groups.a\] needs.*a run may need 1,000 others, here it is 1,001"):
        read_study(path)


def test_what_many_take_is_made_out_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, "pre", PROGRAM + "a = { lr = 1.0 }\nb = { lr = 2.0 }")
    groups, x, y = [], "pre/a", "pre/b"
    for i in range(8):
        inputs = f'inputs = {{ x = "{x}:w.pt", y = "{y}:w.pt" }}'
        groups += [f"a{i} = {{ lr = {i + 1}.0, {inputs} }}", f"b{i} = {{ lr = {i + 1}.5, {inputs} }}"]
        x, y = f"a{i}", f"b{i}"
    text = PROGRAM.replace("{seed}", "{seed} {x} {y}").replace('["lr"]', '["lr", "x", "y"]') + "\n".join(groups)
    study, asked, parents = read_study(write(project, "s", text)), [], lineage.parents
    monkeypatch.setattr(lineage, "parents", lambda *given: asked.append(given[1].name) or parents(*given))
    found = runs_of(project, study, seeds=[1], known={("pre", "a"): "f", ("pre", "b"): "g"})
    assert len({run.fingerprint for run in found.values()}) == len(found) == 16
    assert sorted(asked) == sorted(study.groups)


def test_an_input_is_a_programs_and_the_trainer_has_a_key(project: Path) -> None:
    text = TRAINER + '[groups]\na = { model_type = "gpt", inputs = { init = "p/a:best" } }\n'
    with pytest.raises(ConfigurationError, match="give the trainer's key init_from"):
        read_study(write(project, "s", text))
    wrong = TRAINER + 'init_from = "weights.pt"\n[groups]\na = { model_type = "gpt" }\n'
    with pytest.raises(ConfigurationError, match="STUDY/]GROUP:best"):
        read_study(write(project, "s", wrong))


def test_what_other_studies_lack_is_refused_by_name(project: Path) -> None:
    write(project, "pre", PROGRAM + "a = { lr = 1.0 }")
    for needed, said in (
        ("per/a", "no study 'per' in"), ("pre/b", "study pre has no group 'b'; valid: a"), ("pre/a-s9", "has no seed 9")
    ):  # fmt: skip
        study = read_study(write(project, "s", PROGRAM + f'a = {{ lr = 1.0, needs = ["{needed}"] }}'))
        with pytest.raises(ConfigurationError) as error:
            lineage.others(project, study, load_study)
        assert said in str(error.value) and f"[groups.a] needs: {needed}" in str(error.value)


def test_a_cycle_over_studies_is_named(project: Path) -> None:
    write(project, "pre", PROGRAM + 'a = { lr = 1.0, needs = ["s/b"] }')
    study = read_study(write(project, "s", PROGRAM + 'b = { lr = 1.0, needs = ["pre/a"] }'))
    with pytest.raises(ConfigurationError, match="b -> pre/a -> b"):
        lineage.others(project, study, load_study)


def test_a_seed_that_the_source_lacks_is_named(project: Path) -> None:
    write(project, "pre", PROGRAM + "a = { lr = 1.0 }")
    study = read_study(write(project, "s", PROGRAM.replace("[1, 2]", "[1, 3]") + 'b = { lr = 1.0, needs = ["pre/a"] }'))
    with pytest.raises(ConfigurationError, match="study pre has no seed 3; its seeds: 1, 2") as error:
        runs_of(project, study)
    assert error.value.hint.endswith("name one run for all: pre/a-s1")


def test_a_run_needs_that_of_its_own_seed_and_comes_after_it(project: Path) -> None:
    write(project, "pre", PROGRAM + "a = { lr = 1.0 }")
    text = PROGRAM + 'b = { lr = 1.0, needs = ["c", "pre/a"] }\nc = { lr = 2.0, needs = ["pre/a-s2"], when = "always" }'
    study = read_study(write(project, "s", text))
    runs = runs_of(project, study)
    assert list(runs) == ["c", "b", "c-s2", "b-s2"]
    assert [(each.study, each.run, each.when) for each in runs["b-s2"].parents] == [
        ("s", "c-s2", "success"), ("pre", "a-s2", "success")
    ]  # fmt: skip
    assert [(each.run, each.when) for each in runs["c"].parents] == [("a-s2", "always")]


def test_what_a_run_takes_makes_it_another_and_waiting_alone_does_not(project: Path) -> None:
    plain = PROGRAM.replace("{seed}", "{seed} {init}")
    known = {("pre", "a"): "f1", ("pre", "a-s2"): "f2"}
    write(project, "pre", PROGRAM + "a = { lr = 1.0 }")

    def fingerprint(taken: str, known: dict[tuple[str, str], str], base: str = plain) -> str:
        study = read_study(write(project, "s", base + f"b = {{ lr = 1.0, {taken} }}"))
        return runs_of(project, study, known=known)["b"].fingerprint

    best = fingerprint('inputs = { init = "pre/a:best" }', known)
    assert best == fingerprint('inputs = { init = "pre/a-s1:best" }', known)
    others = {
        fingerprint('inputs = { init = "pre/a:latest" }', known),
        fingerprint('inputs = { init = "pre/a-s2:best" }', known),
        fingerprint('inputs = { init = "pre/a:best" }', {**known, ("pre", "a"): "f3"}),
    }
    assert len({best, *others}) == 4 and "" not in others
    assert fingerprint('inputs = { init = "pre/a:best" }', {}) == ""  # nobody knows what it takes
    study = read_study(write(project, "s", plain + 'b = { lr = 1.0, inputs = { init = "pre/a:best" } }'))
    (stranger, _) = plan_runs(study, replace(LOCAL, root=str(project)), data_hash="d")  # without the other study
    assert stranger.fingerprint == ""
    alone = fingerprint("needs = []", {}, PROGRAM)
    assert fingerprint('needs = ["pre/a"]', known, PROGRAM) == alone


def test_arms_that_begin_with_different_files_say_so(project: Path) -> None:
    write(project, "pre", PROGRAM + "a = { lr = 1.0 }")
    text = PROGRAM.replace("{seed}", "{seed} {init}") + "\n".join(
        f'{name} = {{ lr = {lr}, inputs = {{ init = "pre/a:{what}" }} }}' for name, lr, what in
        (("b", 1.0, "best"), ("c", 2.0, "latest"))
    )  # fmt: skip
    with pytest.raises(UnfairError, match="init: b='pre/a:best', c='pre/a:latest'"):
        runs_of(project, read_study(write(project, "s", text)))
    for declared in (text.replace('["lr"]', '["lr", "init"]'), text + '\n[unequal]\ninit = "asked"'):
        assert len(runs_of(project, read_study(write(project, "s", declared)))) == 4


def test_the_trainers_weights_are_those_of_its_own_studys_run(project: Path) -> None:
    declared = TRAINER.replace("seeds", 'tuned = ["init_from"]\nseeds') + (
        '[groups]\ntuned = { model_type = "gpt", init_from = "base-s1:latest" }\nbase = { model_type = "gpt" }\n'
    )
    study = read_study(write(project, "s", declared))
    runs = {run.name: run for run in plan_runs(study, replace(LOCAL, root=str(project)), data_hash="d")}
    assert list(runs) == ["base", "tuned", "tuned-s2", "base-s2"]
    assert runs["tuned-s2"].parents[0].fingerprint == runs["base"].fingerprint != ""
    assert runs["tuned"].settings["init_from"] == "base-s1:latest" and "init_from" not in runs["base"].settings
    assert runs["base"].fingerprint == runs_without_lineage(project)["base"].fingerprint


def runs_without_lineage(project: Path) -> dict[str, Run]:
    study = read_study(write(project, "t", TRAINER + '[groups]\nbase = { model_type = "gpt" }\n'))
    return {run.name: run for run in plan_runs(study, replace(LOCAL, root=str(project)), data_hash="d")}


def test_of_a_study_that_tunes_its_confirming_runs_are_what_others_need(project: Path) -> None:
    tuning = PROGRAM.replace('command = "python t.py {settings} {seed}"\n[settings]', TUNING)
    tuning = tuning.replace('["lr"]', '["arm"]').replace("[1, 2]", '[1, 2]\nconfirm_seeds = [11, 12]\ntuned = ["rate"]')
    write(project, "tuned", tuning + "base = { arm = 1 }\n")
    after = PROGRAM.replace("[1, 2]", "[11, 12]") + 'tuned = { lr = 0.1, inputs = { init = "tuned/base:w.pt" } }\n'
    study = read_study(write(project, "after", after.replace("{settings}", "{settings} {init}")))
    assert [run.parents[0].run for run in runs_of(project, study).values()] == ["base-s11-confirm", "base-s12-confirm"]
    trials = replace(study, seeds=(1, 2))
    with pytest.raises(ConfigurationError, match=r"no seed 1; its seeds: 11, 12"):
        runs_of(project, trials)
    write(project, "tuned", tuning.replace("confirm_seeds = [11, 12]", "") + "base = { arm = 1 }\n")
    with pytest.raises(ConfigurationError, match="study tuned tunes and has no confirm_seeds"):
        runs_of(project, study)


def test_the_studies_of_the_demo_of_evidence_go_on_from_one_another(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "jobs" / "examples" / "evidence", tmp_path / "jobs")
    second = load_study(tmp_path, "evidence_transfer")
    first = lineage.others(tmp_path, second, load_study)["evidence"]
    assert first.is_tuning and second.seeds == first.confirm_seeds
