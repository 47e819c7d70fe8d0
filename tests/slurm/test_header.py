"""Headers for sbatch: any that users write by hand can be expressed, and reaches Slurm word for word."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.code import snapshot
from oelm_jobs.connections import connect
from oelm_jobs.errors import ConfigurationError
from oelm_jobs.scripts import templates
from oelm_jobs.scripts.jobs import Scripts
from oelm_jobs.spec.program import Program, Stage
from oelm_jobs.spec.study import Run
from oelm_jobs.spec.target import Target
from oelm_jobs.study.files import load_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.targets import files as targets
from oelm_jobs.targets import sbatch
from tests.slurm.testbed import Testbed
from tests.support import REPOSITORY, make_run, needs, slurm_script, wait_until

HAND_WRITTEN = {
    "partition": "Pro",
    "gpus": "pro6000:1",
    "constraint": "gpu_48g&ib",
    "account": "lab",
    "qos": "normal",
    "time": "12:00:00",
    "mem": "32G",
    "cpus-per-task": 8,
    "exclude": "n[3-4],n7",
    "mail-type": "END,FAIL",
    "mail-user": "me@example.org",
    "comment": 'it\'s a "test" # of \\ quotes',
    "exclusive": True,
    "reservation": "night",
    "begin": "now+1hour",
    "nice": 100,
    "gpu-bind": "single:1",
    "ntasks-per-node": 1,
}
"""Options of users' own scripts."""


def read_target(tmp_path: Path, sbatch_table: dict[str, Any], **keys: Any) -> Target:
    """Return a Slurm target as a file would give it."""
    lines = ["[c]", 'kind = "slurm"', *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), "[c.sbatch]"]
    lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in sbatch_table.items()]
    (tmp_path / "jobs").mkdir(exist_ok=True)
    (tmp_path / "jobs" / "targets.toml").write_text("\n".join(lines) + "\n")
    return targets.load_target(tmp_path, "c")


def header(target: Target, runs: list[Run]) -> list[str]:
    return sbatch.header(target, runs, name="s.oelm-1.0", folder="/r/.oelm/slurm", stem="oelm-1.0")


def test_a_hand_written_header_is_passed_on_word_for_word(tmp_path: Path) -> None:
    lines = header(read_target(tmp_path, HAND_WRITTEN), [make_run(tmp_path, "a")])
    for option, value in HAND_WRITTEN.items():
        words = f"--{option}" if value is True else f"--{option}={sbatch.quote(str(value))}"
        assert words in lines, words
    assert "--gres=gpu:1" not in lines, "the user's own words say which GPUs"


def test_the_toolkit_asks_for_what_nobody_named(tmp_path: Path) -> None:
    lines = header(read_target(tmp_path, {"time": 10}), [make_run(tmp_path, "a", gpus=2)])
    assert lines == [
        "--job-name=s.oelm-1.0", "--chdir=/r/.oelm/slurm", "--output=oelm-1.0.log",
        "--comment=s.oelm-1.0", "--open-mode=append", "--requeue",
        "--signal=B:USR1@120", "--nodes=1", "--gres=gpu:2", "--cpus-per-task=2", "--time=10",
    ]  # fmt: skip
    lines = header(read_target(tmp_path, {"gres": "none"}, requeue=False, warning_s=0), [make_run(tmp_path, "a")])
    assert "--no-requeue" in lines and "--gres=none" in lines and not [w for w in lines if "signal" in w]


def test_a_program_without_gpus_asks_for_cores_alone(tmp_path: Path) -> None:
    given = {"gres": "gpu:a5000:{gpus}", "mem-per-gpu": "8G", "cpus-per-gpu": 4, "gpu-bind": "single:1", "time": 10}
    lines = header(read_target(tmp_path, given), [make_run(tmp_path, "a", gpus=0, cpus=2)])
    assert not [line for line in lines if "gpu" in line] and lines[-2:] == ["--cpus-per-task=2", "--time=10"]


@pytest.mark.parametrize(
    ("warning_s", "stop_s", "warned_s"),
    [(120, 30, 120), (120, 300.5, 311), (60, 60, 70), (0, 300, 0), (120, 8e4, 65535)],
)
def test_a_run_is_warned_so_early_that_its_program_has_its_time_to_stop(
    tmp_path: Path, warning_s: int, stop_s: float, warned_s: int
) -> None:
    program = Program(stages=(Stage(name="", words=()),), stop_s=stop_s)
    target, run = read_target(tmp_path, {}, warning_s=warning_s), make_run(tmp_path, "a", program=program)
    told = [line for line in header(target, [run]) if "signal" in line]
    assert told == ([f"--signal=B:USR1@{warned_s}"] if warned_s else [])
    assert sbatch.warning_s(target, run) == warned_s, "its record says so, too"


def test_arrays_have_a_limit_where_the_target_names_one(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name) for name in "abc"]
    assert "--array=0-2" in header(read_target(tmp_path, {}), runs)
    assert "--array=0-2%2" in header(read_target(tmp_path, {}, max_parallel=2), runs)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"job-name": "x"}, "job-name = 'x': is the toolkit's own: it holds the submission's token"),
        ({"output": "%j.out"}, "is the toolkit's own"),
        ({"array": "0-3"}, "max_parallel"),
        ({"signal": "USR1@60"}, "warning_s"),
        ({"requeue": True}, "requeue of the target"),
        ({"p": "Pro"}, "give the long name: partition"),
        ({"--partition": ["a"]}, "give long options of sbatch"),
        ({"Partition": "a"}, "give long options of sbatch"),
        ({"comment": "a\nb"}, "give long options of sbatch"),
        ({"nodes": "1-2"}, "give one number"),
        ({"clusters": "cm2,cm4"}, "each cluster is a target of its own"),
        ({"gpus_per_run": 1}, "is a key of the target itself"),
        ({"setup": ["module load x"]}, "is a key of the target itself"),
        ({"clusters": "all"}, "each cluster is a target of its own"),
        ({"clusters": True}, "each cluster is a target of its own"),
        ({"dependency": "singleton"}, "max_parallel"),
    ],
)
def test_what_submission_rests_on_is_refused_with_the_reason(tmp_path: Path, table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_target(tmp_path, table)
    assert words in str(error.value) and "targets.toml" in str(error.value)


@pytest.mark.parametrize(
    ("table", "gpus", "asked"),
    [
        ({"gpus": "pro6000:1"}, 1, 1),
        ({"gpus": "2"}, 2, 2),
        ({"gres": "gpu:a5000:2"}, 2, 2),
        ({"gres": "gpu:2(S:0),shard:1"}, 2, 2),
        ({"gpus-per-node": "a100:2", "nodes": 2}, 4, 4),
        ({"gres": "shard:4"}, 1, 0),
        ({"gpus-per-task": "a100:2", "ntasks": 2}, 4, 4),
        ({"gpus-per-task": 1, "ntasks-per-node": 2}, 2, 2),
        ({"tres-per-task": "cpu:4,gres/gpu:2"}, 2, 2),
        ({"gres": "gpu"}, 1, 1),
    ],
)
def test_the_gpus_that_options_ask_for_must_be_the_runs(tmp_path: Path, table: Any, gpus: int, asked: int) -> None:
    target = read_target(tmp_path, table)
    assert header(target, [make_run(tmp_path, "a", gpus=gpus)])
    other = make_run(tmp_path, "a", gpus=gpus + int(table.get("nodes", 1)))
    if not asked:
        assert header(target, [other]), "nothing is known of what it asks for"
        return
    with pytest.raises(
        ConfigurationError, match=rf"asks for {asked} GPUs .*runs {other.world_size} processes"
    ) as error:
        header(target, [other])
    assert f"gpus_per_run = {asked}" in error.value.hint


@pytest.mark.parametrize(
    ("table", "gpus", "line"),
    [
        ({"gpus": "pro6000:{gpus}"}, 3, "--gpus=pro6000:3"),
        ({"gpus": "{gpus}", "nodes": 2}, 4, "--gpus=4"),
        ({"gpus": "{gpus}", "nodes": 2}, 4, "--gpus-per-node=2"),
        ({"gpus": "gpu80:{gpus}", "nodes": 2}, 4, "--gpus-per-node=gpu80:2"),
        ({"gpus-per-task": 1, "ntasks": 4, "nodes": 2}, 4, "--ntasks-per-node=2"),
        ({"gres": "gpu:{gpus}", "nodes": 2}, 4, "--gres=gpu:2"),
        ({"gpus-per-node": "a100:{gpus}", "nodes": 2}, 6, "--gpus-per-node=a100:3"),
    ],
)
def test_a_placeholder_stands_for_the_runs_gpus_or_a_nodes_share_of_them(
    tmp_path: Path, table: Any, gpus: int, line: str
) -> None:
    assert line in header(read_target(tmp_path, table), [make_run(tmp_path, "a", gpus=gpus)])


@pytest.mark.parametrize(
    ("table", "nodes"),
    [
        ({}, 1),
        ({"gpus": 4}, 1),
        ({"nodes": 2}, 2),
        ({"gpus": 4, "gpus-per-node": 2}, 2),
        ({"gpus": "a100:4", "gpus-per-node": "a100:4"}, 1),
        ({"ntasks": 4, "ntasks-per-node": 2, "gpus-per-task": 1}, 2),
        ({"ntasks-per-node": 4, "gpus": 4}, 1),
        ({"nodelist": "n1", "gpus": 4}, 1),
        ({"nodelist": "n[1-2]", "gpus": 4}, 2),
        ({"nodelist": "n[01-02,7],m1", "gpus": 4}, 4),
        ({"nodelist": "n[a-b]", "gpus": 4}, 1),
    ],
)
def test_as_many_nodes_are_stated_as_the_options_ask_for(tmp_path: Path, table: dict[str, Any], nodes: int) -> None:
    lines = header(read_target(tmp_path, table), [make_run(tmp_path, "a", gpus=4)])
    assert [line for line in lines if line.startswith("--nodes=")] == [f"--nodes={nodes}"]


def test_processes_that_nodes_can_not_share_equally_are_refused(tmp_path: Path) -> None:
    target = read_target(tmp_path, {"gpus": "{gpus}", "nodes": 2})
    with pytest.raises(ConfigurationError, match="3 processes of group a can't be divided over nodes = 2"):
        header(target, [make_run(tmp_path, "a", gpus=3)])


def test_a_quota_replaces_the_groups_gpus_with_the_same_global_batch(project: Path) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('model_type = "gpt"', 'model_type = "gpt", gpus = [0, 1]'))
    (project / "jobs" / "targets.toml").write_text(
        '[c]\nkind = "slurm"\ngpus_per_run = 1\n[c.sbatch]\ngpus = "pro6000:1"\n[d]\nkind = "slurm"\n'
    )
    loaded = load_study(project, "tiny")
    quota = make_plan(project, loaded, targets.load_target(project, "c"), groups=["gpt_base"]).runs[0]
    assert (quota.gpus, quota.global_batch, quota.settings["batch_size"]) == (1, 4, 4)
    free = make_plan(project, loaded, targets.load_target(project, "d"), groups=["gpt_base"]).runs[0]
    assert (free.gpus, free.global_batch, free.settings["batch_size"]) == (2, 4, 2), "by number, not by index"


@pytest.mark.parametrize("keys", [{"gpus": [0, 1]}, {"sbatch": {"gpus": [0]}}, {"sbatch": {"gres": [0]}}])
def test_gpus_by_index_are_refused_with_the_key_that_says_how_many(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Slurm chooses the GPUs") as error:
        read_target(tmp_path, keys.pop("sbatch", {}), **keys)
    assert "gpus_per_run" in error.value.hint


def test_a_thousand_runs_are_checked_by_the_scripts_of_two(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = read_target(project, {"nodes": 2})
    made = make_plan(project, load_study(project, "tiny"), target, seeds=range(1000), mode="parallel")
    printed: list[int] = []
    scripts = Scripts(plan=made, connection=connect(target, project), snapshot=snapshot.take(project))
    monkeypatch.setattr(Scripts, "render", lambda self, runs: printed.append(len(runs)))
    scripts.check(made.runs)
    assert len(made.runs) == 3000 and printed == [2]
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="can't be divided over nodes = 2"):
        scripts.check(made.runs)


def script(target: Target, runs: list[Run], tmp_path: Path) -> str:
    records = [{"run": run.name, "run_dir": run.run_dir, "words": ["it's", "$(touch pwned)", "ü 变"]} for run in runs]
    commands = [["python", "-m", "torch.distributed.run", "-m", "train", f"--out_dir={run.run_dir}"] for run in runs]
    return slurm_script(
        REPOSITORY, target, runs, records, commands=commands, header=header(target, runs), python="python",
        supervisor=["python", "/r/.oelm/agent/1"], code=str(tmp_path),
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("login_shell", [False, True])
def test_scripts_pass_bash_and_shellcheck(tmp_path: Path, number: int, login_shell: bool) -> None:
    setup = ["module load Miniforge3", "conda activate torch", 'echo "$UNSET_VARIABLE"', "# the end"]
    target = read_target(tmp_path, HAND_WRITTEN, setup=setup, login_shell=login_shell)
    runs = [make_run(tmp_path, f"a{i}", run_dir=str(tmp_path / f"it's {i} $(touch pwned)")) for i in range(number)]
    text = script(target, runs, tmp_path)
    assert text.startswith("#!/bin/bash -l\n" if login_shell else "#!/bin/bash\n")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    needs("shellcheck")
    checked = subprocess.run(["shellcheck", "--severity=warning", "-"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout
    head = text.partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in head), "sbatch reads options up to the first command only"


@pytest.mark.parametrize("number", [1, 2])
def test_set_up_lines_run_as_in_a_users_own_shell_and_a_failed_one_ends_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Site profiles and conda's scripts read unset variables, and go on after commands that fail."""
    monkeypatch.delenv("OELM_NOT_SET", raising=False)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number - 1))
    runs = [make_run(tmp_path, f"a{index}") for index in range(number)]
    log = Path(runs[-1].run_dir) / ".oelm" / "supervisor.log"
    supervisor = tmp_path / "supervisor"
    supervisor.write_text('echo "supervisor: $HERE"; cat')
    lines = ['echo "unset: <$OELM_NOT_SET>"', "false; false | true", "export HERE=set"]

    def execute(*setup: str) -> tuple[int, str]:
        text = script(read_target(tmp_path, {}, setup=setup), runs, tmp_path)
        before = log.read_text() if log.exists() else ""
        assert text.count("exec python /r/.oelm/agent/1 supervise") == 1
        text = text.replace("exec python /r/.oelm/agent/1", f"exec bash {supervisor}")
        code = subprocess.run(["bash"], input=text, text=True, timeout=300).returncode
        return code, log.read_text()[len(before) :]

    code, said = execute(*lines)
    assert code == 0 and "unset: <>\n" in said and "supervisor: set\n" in said and '"words"' in said
    code, said = execute(*lines, "(exit 3)")
    assert code == 78 and "set-up failed: (exit 3)" in said and "supervisor" not in said


def test_a_target_can_name_a_template_of_the_project(project: Path) -> None:
    (project / "templates").mkdir()
    mine = '{% extends "slurm.sh.j2" %}\n{% block setup %}\nsource /opt/mine\n{{ super() }}{% endblock %}\n'
    (project / "templates" / "mine.sh.j2").write_text(mine)
    target = read_target(project, {}, template="mine.sh.j2", setup=["export A=1"])
    text = slurm_script(
        project, target, [make_run(project, "a")], [{}], commands=[["x"]], header=["--time=1"], python="p",
        supervisor=["p"], code="/",
    )  # fmt: skip
    assert "#SBATCH --time=1" in text and text.index("source /opt/mine") < text.index("export A=1")
    with pytest.raises(ConfigurationError, match=r"template 'none\.j2' is neither in"):
        other = read_target(project, {}, template="none.j2")
        slurm_script(project, other, [make_run(project, "a")], [{}], commands=[["x"]], header=[], python="p",
                            supervisor=["p"], code="/")  # fmt: skip


@pytest.mark.parametrize("parent", ["slurm.sh.j2", "launch.sh.j2"])
def test_a_block_is_overridden_whether_the_target_has_set_up_or_not_and_must_exist(project: Path, parent: str) -> None:
    def text() -> str:
        return slurm_script(
            project, read_target(project, {}, template="mine.sh.j2"), [make_run(project, "a")], [{}],
            commands=[["x"]], header=[], python="p", supervisor=["p"], code="/",
        )  # fmt: skip

    (project / "templates").mkdir()
    mine = project / "templates" / "mine.sh.j2"
    mine.write_text(f'{{% extends "{parent}" %}}\n{{% block setup %}}\nexport MINE=1\n{{% endblock %}}\n')
    assert "\nexport MINE=1\n" in text()
    called = "{% block own %}\nexport OWN=1\n{% endblock %}\n{% block setup %}\n{{ self.own() }}{% endblock %}\n"
    mine.write_text(f'{{% extends "{parent}" %}}\n{called}')
    templates.environment.cache_clear()
    templates._check_blocks.cache_clear()
    assert "\nexport OWN=1\n" in text()
    mine.write_text(f'{{% extends "{parent}" %}}\n{{% block headr %}}\n# x\n{{% endblock %}}\n')
    templates.environment.cache_clear()
    templates._check_blocks.cache_clear()
    with pytest.raises(ConfigurationError, match=r"line 2: there is no block 'headr'.*did you mean 'header'"):
        text()


def test_times_that_toml_takes_for_its_own_have_to_be_quoted(project: Path) -> None:
    (project / "jobs" / "targets.toml").write_text('[c]\nkind = "slurm"\nsbatch = { time = 12:00:00 }\n')
    with pytest.raises(ConfigurationError, match=r'time = .*put it in quotes: time = "12:00:00"'):
        targets.load_target(project, "c")


@pytest.mark.parametrize("number", [0, -1])
def test_a_run_gets_at_least_one_gpu(project: Path, number: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"gpus_per_run = {number}: must be at least 1"):
        read_target(project, {}, gpus_per_run=number)


def test_alternatives_to_wait_for_need_runs_that_do_not_wait_for_each_other(oelm, project: Path) -> None:
    (project / "jobs" / "targets.toml").write_text(
        '[c]\nkind = "slurm"\nsbatch = { dependency = "afterok:1?afterok:2" }\n'
    )
    words = ("submit", "--study", "tiny", "--target", "c", "--dry-run", "--script")
    done = oelm(*words, check=False)
    assert done.returncode == 2 and "dependency = 'afterok:1?afterok:2' in sbatch has alternatives" in done.stderr
    assert '#SBATCH --dependency="afterok:1?afterok:2"' in oelm(*words, "--mode", "parallel").stdout


def test_runs_of_different_size_get_arrays_of_their_own_and_large_ones_are_cut(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, f"a{i}", gpus=1 + i % 2) for i in range(10)]
    cut = sbatch.batches(runs, "oelm-1", sequential=False, limit=3)
    assert [len(batch.runs) for batch in cut] == [3, 2, 3, 2]
    assert [batch.name for batch in cut] == [f"s.oelm-1.{i}" if len(cut[i].runs) > 1 else "" for i in range(4)]
    lane = sbatch.batches(runs[:3], "oelm-1", sequential=True)
    assert [(batch.name, batch.after) for batch in lane] == [
        ("a0.oelm-1.0", None), ("a1.oelm-1.1", 0), ("a2.oelm-1.2", 1),
    ]  # fmt: skip


def test_an_array_picks_the_record_of_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oelm_jobs.agent import supervise
    from oelm_jobs.agent.run import place
    from oelm_jobs.agent.run_record import RunRecord

    records = [
        {"run": n, "train": {"seed": i, "steps": 5}, "command": ["x", n, "y"], "gpus": [0] * i}
        for i, n in enumerate("abc")
    ]
    shared, rests = sbatch.shared_part(records)
    assert shared == {"train": {"steps": 5}, "command": ["x", None, "y"]}
    assert rests[1] == {"run": "b", "train": {"seed": 1}, "command": {"1": "b"}, "gpus": [0]}
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert supervise.choose({"shared": shared, "runs": rests}) == RunRecord.of(records[1])
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert supervise.choose({"shared": shared, "runs": rests}) == RunRecord.of(records[2])
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(place.Refused, match="holds 3 runs"):
        supervise.choose({"shared": shared, "runs": rests})


@pytest.mark.slow
def test_options_and_paths_reach_slurm_as_they_were_written(tmp_path: Path, cluster: Testbed) -> None:
    folder = tmp_path / "a#b 'x' \"y\" $z ü变"
    folder.mkdir()
    comment = 'it\'s a "test" # of \\ quotes, $HOME `id`'
    target = read_target(tmp_path, {"comment": comment, "time": 7, "exclusive": True, "partition": "low"})
    lines = sbatch.header(target, [make_run(tmp_path, "a")], name="a.oelm-1.0", folder=str(folder), stem="oelm-1.0")
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/bash\n" + "".join(f"#SBATCH {line}\n" for line in lines) + "echo started\n")
    job = cluster.run("sbatch", "--parsable", str(path)).strip()
    shown = cluster.run("scontrol", "show", "job", job)
    assert f"Comment={comment}" in shown and "TimeLimit=00:07:00" in shown and "JobName=a.oelm-1.0" in shown
    wait_until(lambda: (folder / "oelm-1.0.log").exists() and (folder / "oelm-1.0.log").read_text(), "the output")
    assert (folder / "oelm-1.0.log").read_text() == "started\n"


def test_a_root_that_slurm_would_misread_in_names_of_logs_is_refused(tmp_path: Path) -> None:
    target = read_target(tmp_path, {})
    with pytest.raises(ConfigurationError, match="holds '%'"):
        sbatch.header(target, [make_run(tmp_path, "a")], name="n", folder="/data/100%/x", stem="s")


@pytest.mark.parametrize("moved", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_what_only_some_runs_of_an_array_have_in_their_records_is_theirs_alone(moved: list[int]) -> None:
    left = [{"target": "b", "run_dir": "/b/a", "token": "t0"}]
    records = [{"run": f"r{number}", **({"left": left} if number in moved else {})} for number in range(3)]
    shared, rests = sbatch.shared_part(records)
    assert [rundir.merged(shared, rest) for rest in rests] == records
