"""Commands around a remote target: naming one, looking at it, a shell on it, TensorBoard through a forwarded port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.targets import files as targets
from tests.ssh.conftest import Rig, write_target
from tests.ssh.test_hosts import NOISE, on_a_terminal
from tests.ssh.testbed import Client, Host
from tests.support import wait_until

# Naming a target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['kind = "ssh"'], ["host", "is missing"]),
        (['kind = "ssh"', 'host = "-oProxyCommand=x"'], ["host", "alias of ~/.ssh/config"]),
        (['kind = "ssh"', 'host = "a b"'], ["host", "alias of ~/.ssh/config"]),
        (['kind = "ssh"', 'host = "box"', 'user = "-l"'], ["user", "a login name"]),
        (['kind = "ssh"', 'host = "box"', "port = 70000"], ["port", "1 to 65535"]),
        (['kind = "ssh"', 'host = "box"', 'root = "-x"'], ["root", "begins with '-'"]),
        (['kind = "ssh"', 'host = "box"', 'root = "~bob/x"'], ["root", "absolute path"]),
        (['kind = "ssh"', 'host = "box"', 'connection = "telnet"'], ["connection", "valid: fabric, openssh"]),
        (['kind = "ssh"', 'host = "box"', 'password = "x"'], ["password", "no password belongs in a file"]),
        (['kind = "ssh"', 'host = "box"', 'ssh_passphrase = "x"'], ["ssh_passphrase", "no password belongs"]),
        (['kind = "ssh"', 'host = "box"', 'env = ["TOKEN=secret"]'], ["env", "never written down"]),
        (['kind = "ssh"', 'host = "box"', 'hots = "x"'], ["hots", "did you mean 'host'?"]),
    ],
)
def test_what_cannot_be_a_target_is_named_with_file_table_and_key(
    oelm: Any, project: Path, lines: list[str], expected: list[str]
) -> None:
    (project / "jobs" / "targets.toml").write_text("\n".join(["[odd]", *lines]) + "\n")
    done = oelm("submit", "--study", "tiny", "--target", "odd", "--dry-run", check=False)
    assert done.returncode == 2
    assert all(part in done.stderr for part in [": [odd]", *expected]), done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--host", "box", "--target", "box"], "exclude each other"),
        (["--user", "me"], "--user goes with --host"),
        (["--remote"], "no targets file knows one"),
        (["--host", "-oProxyCommand=x"], "alias of ~/.ssh/config"),
        (["--host", "box", "--root", "~bob/x"], "absolute path"),
    ],
)
def test_words_that_name_no_place_are_refused(oelm: Any, words: list[str], expected: str) -> None:
    done = oelm("submit", "--study", "tiny", *words, check=False)
    assert done.returncode == 2 and expected in done.stderr


def test_a_dry_run_needs_no_network_and_says_where_things_will_lie(oelm: Any, project: Path) -> None:
    write_target(project, "box", host="nowhere.invalid", root="runs", python="~/venv/bin/python")
    shown = oelm("submit", "--study", "tiny", "--remote", "--dry-run").stdout
    assert "~/runs/models/checkpoints/tiny/exp_gpt_base" in shown
    script = oelm("submit", "--study", "tiny", "--remote", "--dry-run", "--script").stdout
    assert "~/venv/bin/python" in script and "Not submitted" in script


def test_ad_hoc_targets_are_remembered_once_each(project: Path) -> None:
    setups = ("source 'a b'/activate", 'export X="$Y"', "echo 实验")
    one = targets.adhoc("box", user="me", port=2222, root="a b/ü", setup=setups)
    path = targets.remember(project, one)
    assert path is not None and targets.remember(project, targets.adhoc("other")) == path
    assert targets.remember(project, one) is None, "it is known"
    found = targets.load_targets(project)
    assert found["me@box:2222"] == one and found["other"] == targets.adhoc("other")
    assert set(found) == {"local", "other", "me@box:2222"}


def test_a_host_that_is_named_again_is_what_it_was_and_what_the_user_added_to_it(project: Path) -> None:
    path = targets.remember(project, targets.adhoc("box", root="runs", setup=("true",)))
    assert path is not None
    path.write_text(
        path.read_text() + 'connection = "openssh"\ndata = { "data/tiny" = "/shared/a \\"b\\"" }\ngpus = [1]\n'
    )
    again = targets.named_on_the_spot(project, "box")
    assert (again.root, again.setup, again.connection, again.gpus) == ("runs", ("true",), "openssh", (1,))
    moved = targets.named_on_the_spot(project, "box", root="elsewhere")
    assert targets.remember(project, moved) == path
    targets.remember(project, targets.adhoc("other"))
    assert targets.load_targets(project)["box"] == moved and moved.data == {"data/tiny": '/shared/a "b"'}


def test_a_host_named_like_a_target_of_a_file_is_that_one_or_refused(oelm: Any, project: Path) -> None:
    write_target(project, "gpu43", host="gpu43", root="mine")
    write_target(project, "box", host="gpu44")
    assert targets.named_on_the_spot(project, "gpu43").root == "mine"
    assert targets.remember(project, targets.named_on_the_spot(project, "gpu43", root="x")) is None
    refused = oelm("submit", "--study", "tiny", "--host", "box", "--dry-run", check=False)
    assert (
        refused.returncode == 2 and "as another machine: gpu44" in refused.stderr and "--target box" in refused.stderr
    )


def test_allowed_variables_reach_the_run_and_are_written_nowhere(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OELM_SECRET", "hunter2 $(x)")
    monkeypatch.setenv("OELM_OTHER", "must not leave")
    python = Path(rig.host.place / "bin" / "python")
    spy = f'(env | grep -c "^OELM_SECRET=hunter2 .(x)$"; env | grep -c OELM_OTHER) >> "{rig.host.place}/spy"\n'
    python.write_text(python.read_text().replace("\n", "\n" + spy, 1))
    write_target(rig.project, "secretive", host="box", python=str(python), env=["OELM_SECRET", "NOT_SET"])
    rig.oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "secretive", "--wait")
    assert "1\n0\n" in (rig.host.place / "spy").read_text()
    for folder in (rig.host.home(), rig.project, Path(os.environ["OELM_STATE_DIR"])):
        assert not [p for p in folder.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]


# Looking --------------------------------------------------------------------------------------------------------------


def test_status_shows_gpus_queue_and_disk_in_the_same_round_trip(rig: Rig) -> None:
    rig.host.gpus = 2
    rig.host.show_gpus(used_mb=[20000])
    rig.restart(TRAINER_STEP_S="0.1")
    rig.edit(("max_steps = 12", "max_steps = 100000"))
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "RUNNING")
    rig.submit("--group", "oelm_freeze")
    wait_until(lambda: rig.status()["oelm_freeze"]["progress"].get("place") == 1, "the second run to wait")
    before = rig.host.commands()
    shown = rig.oelm("status", "--gpus").stdout
    assert rig.host.commands() - before == 1
    assert "NVIDIA RTX A5000" in shown and "19.5/24 GB" in shown and "(gpt_base)" in shown and "GB free" in shown
    assert "waiting: oelm_freeze" in shown
    hosts = json.loads(rig.oelm("status", "--gpus", "--json").stdout)["hosts"]
    assert [device["run"] for device in hosts["box"]["devices"]] == ["", "gpt_base"]
    rig.oelm("cancel", "--all", "--yes")


def test_the_doctor_finds_in_one_round_trip_what_would_cost_a_night(
    new_host: Callable[..., Host], client: Client, project: Path, oelm: Any
) -> None:
    host = new_host("box", gpus=4)
    client.knows(host)
    (host.home() / ".bashrc").write_text(NOISE)
    write_target(project, setup=["true"])
    bad = oelm("doctor", "box", "--json", check=False)
    assert bad.returncode == 1 and host.commands() == 1
    findings = {finding["what"]: finding for finding in json.loads(bad.stdout)["findings"]}
    assert findings["torch"]["verdict"] == "bad" and "sees no GPU" in findings["torch"]["found"]
    assert findings["data of tiny"]["verdict"] == "bad" and "--send-data" in findings["data of tiny"]["mend"]
    assert findings["trainer"]["verdict"] == "good" and findings["devices"]["found"] == "4 x NVIDIA RTX A5000"
    assert all(finding["mend"] for finding in findings.values() if finding["verdict"] == "bad")
    write_target(project, "broken", host="box", setup=["source /nowhere/activate"], root="/proc/nowhere")
    findings = {f["what"]: f for f in json.loads(oelm("doctor", "broken", "--json", check=False).stdout)["findings"]}
    assert findings["set-up"]["verdict"] == "bad" and findings["root"]["verdict"] == "bad"
    words = "line 1, source /nowhere/activate: bash: /nowhere/activate: No such file or directory"
    assert findings["set-up"]["found"] == words and "torch" not in findings, "what was not tried is not judged"
    assert findings["set-up"]["mend"].startswith("mend setup of target broken")


# Tunnels --------------------------------------------------------------------------------------------------------------


def test_a_shell_has_the_set_up_and_stands_in_the_root(
    new_host: Callable[..., Host], client: Client, project: Path
) -> None:
    from tests.ssh.testbed import Account

    host = new_host("box", accounts=[Account("alice", shell="/bin/csh")])
    client.knows(host)
    write_target(project, root="my runs", setup=["export GREETING='set up'"], connection="openssh")
    words = [
        sys.executable,
        "-c",
        f"import os; os.chdir({str(project)!r}); from oelm_jobs.cli.shell import main; main()",
    ]
    screen = on_a_terminal([*words, "box"], {"(box) ": 'echo "$GREETING in $PWD"; exit'})
    assert f"set up in {host.home()}/my runs" in screen


@pytest.mark.parametrize("login_shell", [True, False])
def test_a_shell_reads_the_profile_where_runs_do(box: Host, project: Path, login_shell: bool) -> None:
    (box.home() / ".bash_profile").write_text('module() { export LOADED="$*"; }\n')
    write_target(project, kind="slurm", setup=["module load torch"], connection="openssh", login_shell=login_shell)
    words = [
        sys.executable,
        "-c",
        f"import os; os.chdir({str(project)!r}); from oelm_jobs.cli.shell import main; main()",
    ]
    screen = on_a_terminal([*words, "box"], {"(box) ": 'echo "got <$LOADED>"; exit'})
    assert ("got <load torch>" if login_shell else "module: command not found") in screen


@pytest.mark.parametrize("way", ["fabric", "openssh"])
def test_tensorboard_is_seen_through_a_forwarded_port(box: Host, project: Path, way: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(box.home() / "oelm/models/checkpoints/tiny/exp_gpt_base/tensorboard") as writer:
        writer.add_scalar("val_loss", 3.5, 10)
    write_target(project, connection=way)
    words = [sys.executable, "-u", "-c", "from oelm_jobs.cli.tensorboard import main; main()", "box", "--study", "tiny"]
    board = subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert board.stdout is not None
        url = board.stdout.readline().split()[-1]
        assert url.startswith("http://127.0.0.1:")

        def shown() -> Any:
            try:
                with urllib.request.urlopen(url + "data/plugin/scalars/tags", timeout=5) as answer:
                    return json.load(answer)
            except OSError:
                return {}

        runs = wait_until(shown, "the runs")
        assert list(runs) == ["exp_gpt_base/tensorboard"] and list(runs["exp_gpt_base/tensorboard"]) == ["val_loss"]
    finally:
        board.send_signal(signal.SIGINT)
        board.wait(300)
    wait_until(lambda: "tensorboard.main" not in box.inside("ps", "-ewwo", "args"), "it to end there, too")
