"""What the doctor makes of a set-up and of a cluster: it agrees with what a run would meet."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.checks import examine, trial
from oelm_jobs.checks import doctor, needs, site
from oelm_jobs.checks.finding import Finding, Grade
from oelm_jobs.scripts import templates
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.target import Target
from oelm_jobs.study.files import read_study
from oelm_jobs.study.resolve import plan_runs
from tests.support import REPOSITORY, launch_script, make_run

# The set-up -----------------------------------------------------------------------------------------------------------

SETUPS: list[tuple[list[str], str, str]] = [
    (["export A=1", "# a comment", 'echo "$A"'], "", ""),
    (["false; true"], "", ""),
    (["sleep 2 & export B=1"], "", ""),
    (["set -- a b"], "", ""),
    (["false", "true"], "line 1, false: failed without a word", "each line has to succeed, in a shell that reads no"),
    (["true", "source /no/activate"], "line 2, source /no/activate: bash: /no/activate: No such file or directory", ""),
    (["module load x"], "line 1, module load x: bash: module: command not found", "source the file that defines it"),
    (
        ["true", "if true; then", "export A=1", "fi"],
        "line 2, if true; then: bash: syntax error near unexpected token `}'",
        "write what belongs together into one line of setup of target t",
    ),
    (["if true; then\nexport A=1\nfi"], "", ""),
    (["echo 'over here' >&2; exit 3"], "ended before its end: over here", "each line has to succeed"),
    (
        ["echo 'EnvError: conda is not set up' >&2; echo 'IMPORTANT: run conda init' >&2; false"],
        "line 1, echo 'EnvError: conda is not set up' >&2; echo 'IMPORTANT: run conda init' >&2; false:"
        " EnvError: conda is not set up",
        "",
    ),
    (["exit 3"], "ended before its end: exit code 3", "each line has to succeed"),
]


def attempt(target: Target, project: Path = REPOSITORY) -> dict[str, Any]:
    return trial.attempt(templates.trial(project, target), list(target.setup), sys.executable, str(REPOSITORY))


@pytest.mark.parametrize(("setup", "found", "mend"), SETUPS)
def test_a_set_up_passes_for_the_doctor_where_it_passes_for_a_run(
    tmp_path: Path, setup: list[str], found: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "QUESTION", 'print(\'{"torch": "2"}\')')
    target = Target(name="t", kind="local", root="", python="", setup=tuple(setup))
    script = launch_script(
        REPOSITORY, target, make_run(tmp_path, "a"), {}, command=[], python="", supervisor=["true"], code="/"
    )
    path = tmp_path / "run.sh"
    path.write_text(script)
    run = subprocess.run(
        ["bash", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    answer = attempt(target)
    assert (run.returncode == 0) == (answer == {"torch": "2"}) == (not found), answer
    for finding in doctor._setup(answer, target):
        assert (finding.verdict == Grade.BAD) == bool(found)
        assert not found or (finding.found == found and mend in finding.mend), finding


@pytest.mark.slow
def test_a_line_that_sources_a_file_gives_it_no_arguments(tmp_path: Path) -> None:
    (tmp_path / "activate").write_text('[ "$#" = 0 ]\n')  # as conda's does, which takes the first for an environment
    target = Target(name="t", kind="local", root="", python="", setup=(f"source {tmp_path}/activate",))
    assert "setup_error" not in attempt(target)


@pytest.mark.parametrize("login_shell", [True, False])
def test_a_profile_is_read_where_runs_read_it(
    tmp_path: Path, login_shell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "QUESTION", 'print(\'{"torch": "2"}\')')
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bash_profile").write_text("echo welcome; module() { :; }\n")
    slurm = Slurm(login_shell=login_shell)
    target = Target(name="c", kind="slurm", root="", python="", setup=("module load x",), slurm=slurm)
    [finding] = doctor._setup(attempt(target), target)
    expected = ("1 line, in a login shell", "") if login_shell else (
        "line 1, module load x: bash: module: command not found", "set login_shell = true in target c",
    )  # fmt: skip
    assert (finding.found, finding.mend) == expected


def test_a_template_of_the_project_is_tried_as_it_is_or_not_at_all(project: Path) -> None:
    (project / "templates").mkdir()
    mine = '{% extends "launch.sh.j2" %}{% block setup %}\nsource /opt/mine || exit 78\n{{ super() }}{% endblock %}'
    (project / "templates" / "mine.j2").write_text(mine)
    target = Target(name="t", kind="local", root="", python="", setup=("true",), template="mine.j2")
    assert "/opt/mine" in attempt(target, project)["setup_error"]
    (project / "templates" / "mine.j2").write_text("#!/bin/bash\ntouch /tmp/never\n")
    assert templates.trial(project, target) == "" and attempt(target, project) == {}


def test_the_doctor_names_a_template_that_is_broken_and_a_batch_that_cannot_be_divided(oelm, project: Path) -> None:
    (project / "jobs" / "targets.toml").write_text('[odd]\nkind = "local"\ntemplate = "nope.j2"\ngpus_per_run = 3\n')
    found = json.loads(oelm("doctor", "odd", "--json", check=False).stdout)["findings"]
    scripts = [finding["found"] for finding in found if finding["what"] == "script"]
    assert len(scripts) == 2 and "can't be divided over 3 processes" in scripts[0] and "'nope.j2'" in scripts[1]


def test_a_lease_folder_that_cannot_be_used_is_told_from_devices_that_cannot_be_listed(
    oelm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("OELM_LEASE_DIR", str(tmp_path / "taken"))
    found = json.loads(oelm("doctor", "--json", check=False).stdout)["findings"]
    leases = next(finding for finding in found if finding["what"] == "leases")
    assert leases["verdict"] == Grade.BAD and str(tmp_path / "taken") in leases["found"]
    assert leases["mend"] == "OELM_LEASE_DIR names another folder"


# The cluster ----------------------------------------------------------------------------------------------------------


def cluster(**row: Any) -> dict[str, Any]:
    """Return a cluster of one partition."""
    known = {
        "name": "low",
        "is_default": True,
        "is_up": True,
        "takes_jobs": True,
        "max_time": "1-00:00:00",
        "default_time": "1:00:00",
    }
    partition = {**known, "nodes": 2, "gres": ["gpu:a5000:4"], "features": [], "qos": "", **row}
    accounts = [{"account": "lab", "qos": "normal", "defaultqos": "", "partition": ""}]
    accounting = {"users": [{"defaultaccount": "lab"}], "accounts": accounts, "groups": [], "qualities": []}
    return {
        "version": "22",
        "cluster": "c",
        "max_array": 1001,
        "partitions": [partition],
        "is_enforced": True,
        "is_limited": True,
        **accounting,
    }


def remarks(
    options: dict[str, str], there: dict[str, Any], processes: int = 1, stop_s: float = 0.0, **slurm: Any
) -> dict[str, Finding]:
    target = Target(name="c", kind="slurm", root="", python="", slurm=Slurm(sbatch=options, **slurm))
    return {remark.what: remark for remark in site.judge(target, there, [processes], stop_s)}


def test_a_time_to_stop_that_slurm_does_not_leave_is_told() -> None:
    there = {**cluster(), "kill_wait_s": 30.0}
    assert "time to stop" not in remarks({}, there, stop_s=30) and "time to stop" not in remarks(
        {}, cluster(), stop_s=60
    )
    told = remarks({}, there, stop_s=60)["time to stop"]
    assert told.verdict == Grade.WARNING and "60 s" in told.found and "30 s (KillWait)" in told.found
    assert "oelm-cancel" in told.mend and "GraceTime" in told.mend


def test_programs_without_gpus_need_a_partition_with_none() -> None:
    there = cluster(gres=[])
    assert remarks({}, there, processes=1)["gpus"].is_bad and not remarks({}, there, processes=0)["gpus"].is_bad


@pytest.mark.parametrize(
    ("qualities", "groups", "partition_qos", "most"),
    [
        ([{"name": "normal", "maxtresperuser": "gres/gpu=1"}], [], "", 1),
        ([{"name": "normal", "grptres": "cpu=4,gres/gpu=2"}], [], "", 2),
        ([], [{"account": "lab", "parentname": "all"}, {"account": "all", "grptres": "gres/gpu=2"}], "", 2),
        ([{"name": "few", "maxtres": "gres/gpu=3"}], [], "few", 3),
        # The partition's quality of service comes first, unless the job's says otherwise.
        ([{"name": "few", "maxtresperuser": "gres/gpu=8"}, {"name": "normal", "maxtresperuser": "gres/gpu=1"}],
         [], "few", None),
        ([{"name": "few", "maxtresperuser": "gres/gpu=8"},
          {"name": "normal", "maxtresperuser": "gres/gpu=1", "flags": "DenyOnLimit,OverPartQOS"}], [], "few", 1),
        ([{"name": "other", "maxtresperuser": "gres/gpu=1"}], [{"account": "others", "grptres": "gres/gpu=1"}], "",
         None),
    ],
)  # fmt: skip
def test_more_gpus_than_the_limits_ever_give_are_refused(
    qualities: list[dict[str, str]], groups: list[dict[str, str]], partition_qos: str, most: int | None
) -> None:
    there = {**cluster(qos=partition_qos), "qualities": qualities, "groups": [{"parentname": "", **g} for g in groups]}
    named = {"account": "lab", "qos": "normal"}
    found = remarks(named, there, processes=4)
    assert ("quota" in found) == (most is not None)
    if most is not None:
        assert found["quota"].verdict == Grade.BAD and f"are {most}" in found["quota"].found
        assert "quota" not in remarks(named, there, processes=most)
        assert "quota" not in remarks({**named, "gres": "none"}, there, processes=4), "it wants none"
        assert "quota" in remarks({**named, "gpus-per-socket": "2"}, there, processes=4), "it wants some"
        assert "quota" not in remarks(named, {**there, "is_limited": False}, processes=4), "nobody keeps to them"
        assert remarks({}, there, processes=4)["quota"].verdict == Grade.WARNING, "the site may choose others"


def test_an_association_with_a_partition_counts_there_alone() -> None:
    there = cluster()
    of_all = {**there["accounts"][0], "grptres": "gres/gpu=8"}
    of_debug = {**of_all, "partition": "debug", "grptres": "gres/gpu=1", "defaultqos": "tiny"}
    there.update(accounts=[of_all, of_debug], qualities=[{"name": "tiny", "maxtres": "gres/gpu=1"}])
    assert "quota" not in remarks({"account": "lab"}, there, processes=4)
    there["accounts"] = [of_all, {**of_debug, "partition": "low"}]
    assert "quota" in remarks({"account": "lab"}, there, processes=4)


@pytest.mark.parametrize(
    ("row", "options", "what", "is_bad"),
    [
        ({"gres": []}, {}, "gpus", False),
        ({"gres": []}, {"partition": "low"}, "gpus", True),
        ({"max_time": "10:00"}, {"time": "60"}, "time", False),
        ({"max_time": "10:00"}, {"time": "60", "partition": "low"}, "time", True),
    ],
)
def test_what_the_default_partition_lacks_is_no_refusal_where_another_has_it(
    row: dict[str, Any], options: dict[str, str], what: str, is_bad: bool
) -> None:
    there = cluster(**row)
    there["partitions"] += [{**cluster(is_default=False)["partitions"][0], "name": "other"}]
    assert remarks(options, there)[what].verdict == (Grade.BAD if is_bad else Grade.WARNING)


@pytest.mark.parametrize(
    ("constraint", "is_bad"),
    [
        ("80gb", False), ("a100&80gb", False), ("[2080ti*2|ib:hdr]", False), ("(a100|80gb)&ib:hdr", False),
        ("a100&81gb", True), ("gb", True),
    ],
)  # fmt: skip
def test_features_are_read_whole(constraint: str, is_bad: bool) -> None:
    there = cluster(features=["80gb", "a100", "2080ti", "ib:hdr"])
    assert (remarks({"constraint": constraint}, there)["constraint"].verdict == Grade.BAD) == is_bad


def test_accounts_are_judged_as_slurm_does() -> None:
    assert remarks({"account": "LAB", "qos": "Normal"}, cluster())["account"].verdict != Grade.BAD, "kept in lower case"
    there = {**cluster(), "is_enforced": False, "is_limited": False}
    assert remarks({"account": "anything"}, there)["account"].verdict != Grade.BAD, "nobody asks whether it exists"


NORMAL, FEW = {"name": "normal"}, {"name": "few"}


@pytest.mark.parametrize(
    ("mine", "qualities", "groups", "partition_qos", "most"),
    [
        ({}, [], [], "", None),
        ({"maxsubmitjobs": "3"}, [], [], "", 3),
        ({"maxsubmitjobs": "3"}, [{**NORMAL, "maxsubmitjobsperuser": "5"}], [], "", 5),
        ({"maxsubmitjobs": "3"}, [{"name": "debug", "maxsubmitjobsperuser": "2"}], [], "", 3),
        ({}, [{**FEW, "maxsubmitjobsperuser": "2"}, {**NORMAL, "maxsubmitjobsperuser": "5"}], [], "few", 2),
        ({}, [{**NORMAL, "maxsubmitjobsperaccount": "4"}], [], "", 4),
        ({}, [{**NORMAL, "grpsubmitjobs": "6"}], [{"account": "lab", "grpsubmitjobs": "1"}], "", 6),
        ({}, [], [{"account": "lab", "parentname": "all"}, {"account": "all", "grpsubmitjobs": "7"}], "", 7),
        ({"maxsubmitjobs": "0"}, [], [], "", 0),
    ],
)
def test_the_jobs_that_a_user_may_have_are_those_of_the_targets_limits(
    mine: dict[str, str], qualities: list[dict[str, str]], groups: list[dict[str, str]], partition_qos: str,
    most: int | None,
) -> None:  # fmt: skip
    there = {**cluster(qos=partition_qos), "qualities": qualities, "groups": [{"parentname": "", **g} for g in groups]}
    there["accounts"] = [{**there["accounts"][0], "qos": "debug,normal", **mine}]
    target = Target(name="c", kind="slurm", root="", python="", slurm=Slurm())
    assert site.array_limit(target, there) == (most or 1001)
    found = remarks({}, there)
    assert ("limit" in found) == (most is not None)
    if most == 0:
        assert found["limit"].verdict == Grade.WARNING
        assert remarks({"account": "lab", "qos": "normal"}, there)["limit"].verdict == Grade.BAD
    elif most is not None:
        assert f"at most {most} jobs" in found["limit"].found and found["limit"].verdict != Grade.WARNING
    assert site.array_limit(target, {**there, "is_limited": False}) == 1001, "nobody keeps to them"


def test_a_limit_of_no_gpu_is_not_answered_with_no_gpu_a_run() -> None:
    there = {**cluster(), "qualities": [{"name": "normal", "maxtres": "gres/gpu=0"}]}
    assert 'gres = "none"' in remarks({}, there)["quota"].mend


@pytest.mark.parametrize("options", [{"partition": "lwo"}, {}])
def test_a_wrong_partition_hides_nothing_else(options: dict[str, str]) -> None:
    there = cluster(is_default=False)
    assert "time" not in remarks(options, there), "of whose default nothing can be said"
    given = {"time": "2-0", "account": "lba", "qos": "nromal", "constraint": "x", "gres": "gpu:a500:1"}
    found = remarks({**options, **given}, there)
    wrong = {"partition", "time", "account", "qos", "constraint", "gpus"}
    assert {what for what, remark in found.items() if remark.verdict != Grade.GOOD} == wrong
    # A site may choose the partition of jobs that name none; the rest no partition has.
    assert {what for what, remark in found.items() if remark.verdict == Grade.BAD} == wrong - (
        set() if options else {"partition"}
    )
    assert found["account"].found == "account 'lba' is not yours to use"
    assert found["qos"].found == "qos 'nromal' is not yours to use"


@pytest.mark.parametrize(
    ("options", "row", "is_odd"),
    [
        ({}, {}, False),
        ({}, {"default_time": "5:00"}, True),
        ({}, {"default_time": "n/a", "max_time": "30:00"}, True),
        ({}, {"default_time": "n/a", "max_time": "infinite"}, False),
        ({"time": "10"}, {}, True),
        ({"time": "30"}, {"default_time": "5:00"}, False),
    ],
)
def test_a_warning_that_leaves_no_time_to_train_is_odd(options: dict[str, str], row: Any, is_odd: bool) -> None:
    time = remarks(options, cluster(**row), warning_s=600)["time"]
    assert time.verdict == (Grade.WARNING if is_odd else Grade.GOOD), time
    assert ("runs are warned 600 s" in time.found) == (is_odd and "max_time" not in row)


def test_equal_words_of_sbatch_are_said_once() -> None:
    target = Target(name="c", kind="slurm", root="", python="", slurm=Slurm())
    refused = {"refused": "Invalid qos"}
    both = list(site.tried(target, {"2": refused, "1": refused}))
    assert [(remark.found, remark.verdict) for remark in both] == [("Invalid qos", Grade.BAD)]
    unequal = list(site.tried(target, {"1": {"starts_in_s": 90000.0}, "2": refused, "4": {"limit": "x"}}))
    assert [remark.verdict for remark in unequal] == [Grade.GOOD, Grade.BAD, Grade.WARNING]
    assert (
        "a job of 1 process: would start at 20" in unequal[0].found
        and unequal[1].found == "a job of 2 processes: Invalid qos"
    )


def test_the_agent_is_named_by_the_path_that_scripts_have_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container of the target's may know the link alone."""
    package = tmp_path / "disk" / "hash" / "agent"
    (package / "checks").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setitem(vars(trial), "__file__", str(tmp_path / "link" / "hash" / "agent" / "checks" / "trial.py"))
    assert trial.agent_folder() == str(tmp_path / "link" / "hash")


def test_a_project_of_scripts_alone_may_do_without_torch(tmp_path: Path) -> None:
    answer: Any = {"trial": {"error": "No module named 'torch'"}, "devices": []}
    target = Target(name="t", kind="local", root="", python="")
    grades = [
        [each.verdict for each in doctor._interpreter(answer, target, "", trains=trains)] for trains in (True, False)
    ]
    assert grades == [[Grade.BAD], [Grade.WARNING]]
    works: Any = {"torch": "2", "python": "3.11", "cuda": "", "trainer_error": "no train"}
    found = doctor._interpreter({**answer, "trial": works}, target, "", trains=False)
    assert [each.verdict for each in found] == [Grade.GOOD], "its train/ is none of the runs'"


def test_what_compiling_lacks_matters_to_runs_that_would_be_compiled(project: Path) -> None:
    target = Target(name="t", kind="local", root="", python="")
    study = read_study(project / "jobs" / "tiny.toml")

    def grades(settings: dict[str, object], trial: Any, there: Target = target) -> list[Grade]:
        changed = replace(study, settings={**study.settings, **settings})
        return [each.verdict for each in needs.compiling(changed, there, plan_runs(changed, target), trial)]

    lacks, has, older = (
        {"cuda": True, "compiling": "no C compiler (gcc)"},
        {"cuda": True, "compiling": ""},
        {"cuda": True},
    )
    long = {"max_steps": 10_000}
    assert grades({**long, "compile": "auto"}, lacks) == [Grade.WARNING], "they go on eagerly"
    assert grades({**long, "compile": "auto"}, has) == [Grade.GOOD]
    assert grades({**long, "compile": "auto"}, {**lacks, "cuda": False}) == []
    assert grades({"compile": "auto"}, lacks) == [], "too short to be compiled"
    assert grades({"compile": "true"}, {**lacks, "cuda": False}) == [Grade.BAD]
    cluster = replace(target, slurm=Slurm())
    for settings in ({**long, "compile": "auto"}, {"compile": "true"}):
        assert grades(settings, {**lacks, "cuda": False}, cluster) == [Grade.GOOD], "a login node can't tell"
    assert grades({**long, "compile": "false"}, lacks) == grades({**long, "compile": "true"}, older) == []


# A login node that is taken for a host -------------------------------------------------------------------------------


def test_a_host_that_submits_to_a_cluster_is_named_with_the_kind_that_it_should_be() -> None:
    box = Target(name="box", kind="ssh", root="~/oelm", python="", host="box")
    answer: Any = {"partitions": ["gpu", "debug"], "ends_processes": False, "locks": ""}
    (found,) = doctor._host_rules(answer, box)
    assert found.verdict is Grade.WARNING and "submits to a cluster (gpu, debug)" in str(found.found)
    assert 'target box have kind = "slurm" and sbatch = { partition = "gpu" }' in str(found.mend)
    assert list(doctor._host_rules({**answer, "partitions": []}, box)) == []
    assert list(doctor._host_rules(answer, replace(box, kind="local", host=""))) == []


def test_partitions_of_a_host_are_those_that_take_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["gpu|gpu*|up|1-00:00:00|n/a|2|gpu:4|(null)", "old|old|drain|infinite|n/a|1|(null)|(null)"]
    program = tmp_path / "sinfo"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert examine._partitions() == ["gpu"]
    program.write_text("#!/bin/sh\nexit 1\n")
    assert examine._partitions() == []
