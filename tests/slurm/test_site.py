"""What a site adds to Slurm does no harm: greetings around what its commands say, plugins and users that rename jobs,
words of its own in a refusal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from oelm_jobs.agent.slurm import accounts as slurm_accounts
from oelm_jobs.agent.slurm import claim as slurm_claim
from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.slurm import site as slurm_site
from oelm_jobs.agent.slurm import step as slurm_step
from oelm_jobs.agent.slurm import submit as slurm_submit
from oelm_jobs.agent.slurm import tasks as slurm_tasks
from oelm_jobs.agent.slurm import words as slurm_words
from oelm_jobs.agent.slurm.commands import Job
from tests.slurm.recorded import NAME, STARTED, SUBMITTED, TOKEN, account, queue_line
from tests.slurm.testbed import Testbed
from tests.support import read, wait_until

Put = Callable[[str, str], None]

NOISE = r"""
noise() {
  echo; echo 'ClusterName = greeting'
  echo '*** Welcome! Quota 80 % of 100 ***'; echo 4711; printf 'gr\374\337e ClusterName=none\n'
  echo 'JobStates = fine'; echo 'a|b|c|d|e|f|g|h|i|j|k'; echo '=== MaxArraySize = 0 ==='
}
words() {
  echo 'sbatch: info: see https://site.example'; echo 'timed out, MaxSubmit, Invalid job id, accounting disabled'
  printf 'gr\374\337e\n'; echo 'permission denied for guests'
}
noise; words >&2
"$real" "$@"; code=$?
noise; words >&2
exit $code
"""
"""Lines around a command of Slurm's that say much, on both streams, with numbers and in no encoding."""
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "sacctmgr", "scancel")
LONG = 100_000


# Words ----------------------------------------------------------------------------------------------------------------

FINAL = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("err", "kind"),
    [
        (f"Your shell timed out yesterday\n{FINAL}Invalid account or account/partition combination", "refused"),
        (f"MaxSubmit is 5 here. Connection reset by admins\n{FINAL}Requested node configuration is not available",
         "refused"),
        (f"sbatch: error: AssocMaxSubmitJobLimit is for guests\n{FINAL}Unspecified error", "refused"),
        (f"sbatch: error: lua: request to the licence server timed out\n{FINAL}Unspecified error", "refused"),
        ("sbatch: error: cli_filter: connection timed out while asking for your project", "refused"),
        (f"{FINAL}Invalid qos specification\nThe help desk has timed out; zero bytes were transmitted", "refused"),
        (f"sbatch: error: rejected by the site\n{FINAL}Socket timed out on send/recv operation\nUse partition big",
         "unknown"),
        (f"{FINAL}Unable to contact slurm controller (receive failure)", "unknown"),
        (f"{FINAL}Unable to contact slurm controller (connect failure)\nMessage receive failure", "refused"),
        (f"sbatch: error: use partition big\nsbatch: error: QOSMaxSubmitJobPerUserLimit\n{FINAL}Job violates"
         " accounting/QOS policy (job submit limit, user's size and/or time limits)\nBye", "limit"),
        (f"sbatch: error: QOSMaxMemoryPerUser\n{FINAL}Job violates accounting/QOS policy (job submit)", "refused"),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{FINAL}Invalid partition name specified", "refused"),
        ("You need a project for this: run myproject", "refused"),
        ("/opt/site/sbatch.real: error: Batch job submission failed: Socket timed out on send/recv operation",
         "unknown"),
    ],
)  # fmt: skip
def test_slurms_own_last_line_decides_and_the_sites_words_are_said(err: str, kind: str) -> None:
    said = slurm_words.read_answer(1, "", err)
    assert list(said) == [kind]
    for line in err.splitlines():
        assert line.removeprefix("sbatch: error: ") in said[kind]


def test_what_ended_after_a_job_was_made_or_by_a_signal_is_not_taken_for_a_no() -> None:
    assert "unknown" in slurm_words.read_answer(1, "Submitted batch job 12\n", "quota report: no such file"), (
        "sbatch had answered"
    )
    for code in (-15, 124, 137, 143):
        assert "unknown" in slurm_words.read_answer(code, "", "loading the site's modules")
    assert "refused" in slurm_words.read_answer(127, "", "bash: line 3: sbatch: command not found")


def test_a_bare_number_is_no_job() -> None:
    said = "Submitted batch job 17"
    assert slurm_words.read_answer(0, f"Jobs of today:\n42\n{said} on cluster b\n4711\n", "") == {"id": "17"}
    for out in ("42\n", "42;b\n", f"{said}\nSubmitted batch job 18\n", f"Yesterday: {said}\n", f"{said} or so\n"):
        assert list(slurm_words.read_answer(0, out, "")) == ["unknown"]


def test_a_job_that_sbatch_does_not_name_is_found_by_what_it_is_called(
    tmp_path: Path, instead: Put, no_cluster: None
) -> None:
    instead("sbatch", "echo 42; echo 7; echo 4711")
    instead("squeue", f"echo Hello; echo '{queue_line('PENDING')}'")
    assert slurm_submit.slurm_submit(request(tmp_path))["jobs"]["0"]["id"] == "7"


def request(root: Path) -> dict[str, Any]:
    (root / "exp_a" / ".oelm").mkdir(parents=True, exist_ok=True)
    job = {
        "position": 0,
        "name": NAME,
        "script": "#!/bin/bash\n#SBATCH --partition=low\n",
        "run_dirs": [str(root / "exp_a")],
    }
    return {"root": str(root), "token": TOKEN, "jobs": [{**job, "after": None}]}


def test_a_refusal_that_is_a_wrappers_word_alone_is_made_true(tmp_path: Path, instead: Put, no_cluster: None) -> None:
    """Whatever it kept back of sbatch's answer, the job never runs."""
    instead("sbatch", "echo 'sorry, not today' >&2; exit 1")
    assert slurm_submit.slurm_submit(request(tmp_path))["jobs"]["0"]["refused"] == "sorry, not today"
    assert read(slurm_submit.file_of(str(tmp_path), TOKEN, 0, slurm_submit.FATE))["fate"] == "settled"


def test_a_refusal_by_slurm_leaves_the_script_to_be_started_by_hand(
    tmp_path: Path, instead: Put, no_cluster: None
) -> None:
    instead("sbatch", f"echo '{FINAL}Invalid qos specification' >&2; exit 1")
    assert "Invalid qos" in slurm_submit.slurm_submit(request(tmp_path))["jobs"]["0"]["refused"]
    assert not slurm_submit.file_of(str(tmp_path), TOKEN, 0, slurm_submit.FATE).exists()


def test_variables_that_sbatch_reads_besides_the_script_are_named_in_a_refusal(
    tmp_path: Path, instead: Put, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_QOS", "gone")
    monkeypatch.setenv("SBATCH_PARTITION", "set aside, as the script states it")
    instead("sbatch", f"echo '{FINAL}Invalid qos specification' >&2; exit 1")
    words = slurm_submit.slurm_submit(request(tmp_path))["jobs"]["0"]["refused"]
    assert words.endswith("Invalid qos specification; in the environment: SBATCH_QOS=gone")
    monkeypatch.setenv("SBATCH_QOS", "gone")
    assert "SBATCH_QOS=gone" in slurm_site.test_only(request(tmp_path)["jobs"][0]["script"])["refused"]


# What commands print --------------------------------------------------------------------------------------------------


def test_lines_around_what_a_command_prints_are_passed_over(
    tmp_path: Path, instead: Put, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(command: str, lines: str) -> None:
        real = tmp_path / command
        real.write_text(f"#!/bin/bash\n{lines}\n")
        real.chmod(0o755)
        instead(command, f"real={real}\n{NOISE}")

    put(
        "scontrol",
        "case $* in"
        " *job*) echo 'JobId=7 JobName=x JobState=RUNNING Restarts=1 Comment=JobState=no';;"
        " *partition*) echo 'PartitionName=low QoS=few State=UP';;"
        " *) echo 'Configuration data as of 2026-01-01T00:00:00'; echo 'ClusterName             = real';"
        " echo 'MaxArraySize            = 55';; esac",
    )
    put("squeue", f"echo '{queue_line('RUNNING')}'")
    put("sacct", f"echo '{account('TIMEOUT')}'")
    put("sinfo", "echo 'low|low*|up|1-00:00:00|1:00:00|2|gpu:a5000:4|(null)'")
    put(
        "sacctmgr",
        "case $* in *user,default*) echo \"$(id -un)|lab\";; *user=*account,part*) echo 'lab||normal||||||';; esac",
    )
    put("sbatch", "echo 'sbatch: Job 9 to start at 4000000000 using 1 processors on nodes n1 in partition low' >&2")
    assert slurm_commands.show_job("7")["JobState"] == "RUNNING"
    assert [job.id for job in slurm_commands.queue()] == ["7"]
    assert [job.state for job in slurm_accounts.jobs(["7"], SUBMITTED) or ()] == ["TIMEOUT"]
    known = slurm_site.site()
    assert (known["cluster"], known["max_array"]) == ("real", 55)
    assert [(row["name"], row["qos"]) for row in known["partitions"]] == [("low", "few")]
    assert [row["defaultaccount"] for row in known["users"]] == ["lab"]
    assert [row["account"] for row in known["accounts"]] == ["lab"]
    assert slurm_site.test_only("#!/bin/bash\n")["starts_in_s"] > 1e6


@pytest.mark.parametrize(
    ("command", "line", "ends"),
    [
        ("squeue", "slurm_load_jobs error: Invalid job id specified", True),
        ("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", None),
    ],
)
def test_whether_an_owner_has_ended_is_not_read_from_the_sites_words(
    instead: Put, no_cluster: None, command: str, line: str, ends: bool | None
) -> None:
    instead(command, f"real=false\necho '{line}' >&2{NOISE}")
    assert slurm_claim.job_has_ended(owner())[0] is ends


@pytest.mark.parametrize(
    ("words", "none_kept"),
    [
        ("Slurm accounting storage is disabled", True),
        ("sacct: error: Problem talking to the database: Access/permission denied", True),
        ("Guests: accounting disabled, permission denied\nsacct: error: Connection refused", False),
    ],
)
def test_a_site_that_speaks_of_accounting_is_not_one_that_keeps_none(words: str, none_kept: bool) -> None:
    assert bool(slurm_accounts.NONE_KEPT.search(words)) is none_kept


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-2]", ["n1", "n2"]),
        ("gpu[008-010,12],login-b", ["gpu008", "gpu009", "gpu010", "gpu12", "login-b"]),
        ("r[1-2]n[01-02]-ib", ["r1n01-ib", "r1n02-ib", "r2n01-ib", "r2n02-ib"]),
    ],
)
def test_a_jobs_nodes_are_read_without_asking_anybody(listed: str, names: list[str]) -> None:
    assert slurm_step.expand(listed) == names


# Names ----------------------------------------------------------------------------------------------------------------


def owner() -> slurm_claim.Owner:
    return slurm_claim.Owner("7", 0, NAME, TOKEN, processes.identify(os.getpid()), STARTED + 5)


def job(**changes: Any) -> Job:
    """Return a job as squeue lists it."""
    made = Job(id="7", task=None, name="renamed", state="RUNNING", submitted_at=SUBMITTED, starts_at=STARTED)
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("listed", "is_found"),
    [
        (job(name="site-" + NAME), True),
        (job(comment=NAME), True),
        (job(comment=f"project 12, {NAME}", submitted_at=SUBMITTED + 9000), True),  # and requeued
        (job(), True),  # nothing of the submission's is left but id and time
        (job(submitted_at=SUBMITTED + 9000), False),  # the id is used again
        (job(comment="x.oelm-2.0"), False),  # by another submission
        (job(comment=NAME + "1"), False),  # position 1 is not position 11
        (job(id="8"), False),
    ],
)
def test_a_renamed_job_is_known_by_its_comment_or_its_id_and_time(listed: Job, is_found: bool) -> None:
    task = slurm_tasks.Task(TOKEN, 0, NAME, None, SUBMITTED + 1, "", "7")
    stranger = job(id="6", name="b", comment="(null)")
    assert (slurm_tasks.Listed([stranger, listed]).of(task, "/r/none") == [listed]) is is_found


def test_a_renamed_arrays_tasks_are_told_apart() -> None:
    tasks = [slurm_tasks.Task(TOKEN, 0, NAME, index, SUBMITTED, "", "7") for index in range(3)]
    for more in ({}, {"comment": NAME}):
        listed = slurm_tasks.Listed([job(id=f"7_{index}", task=index, **more) for index in range(2)])
        assert [[each.id for each in listed.of(task, "/r/none")] for task in tasks] == [["7_0"], ["7_1"], []]
        assert all(listed.has_any(task) for task in tasks)


def test_a_comment_may_hold_anything() -> None:
    line = queue_line("RUNNING").rpartition("|")[0] + "|a|b" + slurm_commands.BEFORE_NAME + "c|d"
    cut = queue_line("RUNNING", job="9", name="first line")
    first, second = slurm_commands.read_queue(f"{line}\n{cut}\nsecond line{slurm_commands.BEFORE_NAME}c\n")
    assert (first.comment, first.name, second.id) == ("a|b", "c|d", "9")


@pytest.mark.parametrize(
    ("listed", "ended"),
    [
        (job(), False),  # it had started before it took the claim
        (job(name="x", comment=NAME, starts_at=STARTED + 9000), False),
        (job(starts_at=STARTED + 9000), True),  # the id is used again
        (job(name="b.oelm-2.0"), True),
    ],
)
def test_an_owner_that_was_renamed_lives(instead: Put, no_cluster: None, listed: Job, ended: bool) -> None:
    line = queue_line("RUNNING", name=listed.name).replace(f"|{STARTED:.0f}|", f"|{listed.starts_at:.0f}|")
    before, _, name = line.rpartition("|")
    instead("squeue", f"echo '{before}|{listed.comment}{slurm_commands.BEFORE_NAME}{name}'")
    assert slurm_claim.job_has_ended(owner())[0] is ended


# On a cluster ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def submit(oelm, project: Path, target, stand_in: str) -> Callable[..., Any]:
    """Submit a group with the stand-in trainer; ``steps`` of them, some milliseconds each."""

    def run(group: str = "gpt_base", *, steps: int = 12, check: bool = True, **options: Any) -> Any:
        study = project / "jobs" / "tiny.toml"
        line = next(line for line in study.read_text().splitlines() if line.startswith("max_steps"))
        study.write_text(study.read_text().replace(line, f"max_steps = {steps}"))
        target(options, python=stand_in, setup=["export TRAINER_STEP_S=0.05"])
        where = ("--study", "tiny", "--target", "cluster", "--mode", "parallel")
        return oelm("submit", *where, "--group", group, check=check)

    return run


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def wait_for_a_step(project: Path, name: str = "gpt_base") -> str:
    wait_until((run_dir(project, name) / "heartbeat.json").exists, "a step")
    return str(read(run_dir(project, name) / ".oelm" / "start.json")["job"])


@pytest.mark.slow
def test_a_site_that_says_much_around_every_command_changes_nothing(
    oelm, submit, project: Path, target, cluster: Testbed, instead, wait_for
) -> None:
    for command in COMMANDS:
        instead(command, NOISE)
    assert "submitted to cluster" in submit(steps=12).stdout
    submit("oelm_freeze", steps=LONG)
    waiting = submit("oelm_no_freeze", begin="now+1hour")
    assert "submitted to cluster" in waiting.stdout
    wait_for("gpt_base", "DONE")
    freeze = wait_for_a_step(project, "oelm_freeze")
    assert wait_for("oelm_freeze", "RUNNING")["job"] == freeze
    assert "start time" in wait_for("oelm_no_freeze", "QUEUED")["reason"]
    # A requeue asks Slurm why it was stopped.
    cluster.run("scontrol", "requeue", freeze)
    wait_until(lambda: cluster.job(freeze).get("JobState") == "PENDING", "it to wait")
    assert wait_for("oelm_freeze", "QUEUED")["reason"].startswith("after requeue")
    assert set(oelm("cancel", "--all", "--yes").stdout.splitlines()) >= {
        "oelm_freeze: cancelled",
        "oelm_no_freeze: cancelled",
    }
    wait_for("oelm_freeze", "CANCELLED")
    wait_for("oelm_no_freeze", "CANCELLED")
    shown = oelm("status", "--gpus").stdout
    assert "low" in shown and "a5000" in shown
    assert "ok" in oelm("doctor", "cluster", check=False).stdout
    instead("sbatch", 'set -- --partition=none "$@"' + NOISE)
    refused = submit("oelm_freeze", steps=LONG, check=False)
    assert refused.returncode == 2 and "not known" not in refused.stderr
    assert "invalid partition specified: none" in refused.stderr and "see https://site.example" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("takes_comments", [False, True], ids=["comment kept", "comment taken"])
def test_a_job_that_the_site_renames_when_it_is_submitted_is_found(
    oelm, submit, project: Path, cluster: Testbed, instead, wait_for, takes_comments: bool
) -> None:
    options = "--job-name=site_job" + (" --comment=ours" if takes_comments else "")
    instead("sbatch", f'exec "$real" {options} "$@"')
    submit(steps=LONG)
    job_id = wait_for_a_step(project)
    assert cluster.job(job_id)["JobName"] == "site_job"
    assert wait_for("gpt_base", "RUNNING")["job"] == job_id
    cluster.run("scontrol", "requeue", job_id)
    wait_until(lambda: cluster.job(job_id).get("JobState") == "PENDING", "it to wait")
    assert wait_for("gpt_base", "QUEUED")["job"] == job_id
    cluster.release(job_id)
    wait_until(lambda: read(run_dir(project) / ".oelm" / "start.json")["number"] == 2, "its second start")
    assert wait_for("gpt_base", "RUNNING")["job"] == job_id
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    wait_for("gpt_base", "CANCELLED")
    assert not cluster.run("squeue", "-h")


@pytest.mark.slow
def test_a_renamed_job_whose_answer_was_lost_is_found(
    submit, project: Path, cluster: Testbed, instead, wait_for
) -> None:
    lost = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"
    instead("sbatch", f'"$real" --job-name=site_job "$@" >/dev/null; {lost}')
    assert "submitted to cluster" in submit().stdout
    wait_for("gpt_base", "DONE")
    assert len(cluster.run("squeue", "-h", "--states=all", "--name=site_job", "-o", "%i").split()) >= 1


@pytest.mark.slow
def test_a_job_that_its_user_renames_while_it_runs_keeps_its_claim_and_can_be_cancelled(
    oelm, submit, project: Path, cluster: Testbed, wait_for
) -> None:
    submit(steps=LONG)
    job_id = wait_for_a_step(project)
    [script] = (project / ".oelm" / "slurm").glob("*.sh")
    cluster.run("scontrol", "update", f"JobId={job_id}", "JobName=mine")
    assert wait_for("gpt_base", "RUNNING")["job"] == job_id
    second = cluster.run("sbatch", "--parsable", str(script)).strip()
    over = ("COMPLETED", "FAILED")
    wait_until(lambda: cluster.job(second).get("JobState") in over, "the second one to give way")
    assert cluster.job(job_id)["JobState"] == "RUNNING"
    assert read(run_dir(project) / ".oelm" / "start.json")["job"] == job_id, "it executes the run alone"
    cluster.run("scontrol", "requeue", job_id)
    wait_until(lambda: cluster.job(job_id).get("JobState") == "PENDING", "it to wait")
    cluster.release(job_id)
    wait_until(lambda: read(run_dir(project) / ".oelm" / "start.json")["number"] == 2, "its second start")
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert wait_for("gpt_base", "CANCELLED")["job"] == job_id
