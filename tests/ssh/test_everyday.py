"""A day's use of a GPU server behind SSH: real training, from submit to report, with the laptop coming and going."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.conftest import Rig, stand_in, write_target
from tests.ssh.testbed import Client, Host
from tests.support import read, wait_until

pytestmark = pytest.mark.slow
GROUPS = ["gpt_base", "oelm_no_freeze", "oelm_freeze"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_three_groups_are_trained_there_and_reported_here(
    new_host: Callable[..., Host], client: Client, project: Path, oelm: Any
) -> None:
    """Real training over an ad-hoc target: data sent on request, six round trips at most, one for a status."""
    host = new_host("box", gpus=4)
    client.knows(host)
    where = (
        "--host",
        "box",
        "--root",
        "my runs/it's $HOME",
        "--setup",
        f'export PATH="{Path(sys.executable).parent}:$PATH"',
    )
    refused = oelm("submit", "--study", "tiny", "--mode", "parallel", *where, check=False)
    assert refused.returncode == 2 and "--send-data" in refused.stderr and "nothing was queued" in refused.stderr
    sent = oelm("submit", "--study", "tiny", "--mode", "parallel", *where, "--send-data", "--group", "gpt_base")
    assert "train.bin" in sent.stderr
    before = host.commands()
    done = oelm("submit", "--study", "tiny", "--mode", "parallel", *where)
    assert done.stdout.count("submitted to box") == 2 and "gpt_base: left alone" in done.stdout
    assert host.commands() - before <= 6
    log = oelm("logs", "oelm_freeze", "-f").stdout
    assert "Training complete" in log
    rig = Rig(host=host, client=client, project=project, oelm=oelm)
    rows = {name: rig.wait_for(name, "DONE", patience_s=120) for name in GROUPS}
    assert {row["progress"]["step"] for row in rows.values()} == {12}
    assert all(row["progress"]["devices"][0].startswith("gpu:") for row in rows.values())
    there = host.home() / "my runs" / "it's $HOME"
    assert len(list((there / ".oelm" / "snapshots").iterdir())) == 1, "one snapshot serves all runs"
    record = read(there / "models/checkpoints/tiny/exp_oelm_freeze/.oelm/run.json")
    assert record["target"] == "box" and record["run_dir"].startswith(str(there))
    before = host.commands()
    fetched = oelm("fetch", "--report")
    assert fetched.stdout.count("verified") == 3 and "H1" in fetched.stdout
    assert host.commands() - before == 2, "one question and one rsync"
    for name in GROUPS:
        home = contents(project / "models" / "checkpoints" / "tiny" / f"exp_{name}")
        theirs = contents(there / "models" / "checkpoints" / "tiny" / f"exp_{name}")
        assert {name for name in home if name.endswith(".pt")} == {"best_model.pt"}
        assert all(theirs[name] == content for name, content in home.items() if name != ".oelm/fetched.json")
        assert home.keys() >= {
            "training.log",
            "metrics.jsonl",
            "experiment_result.json",
            "MANIFEST.json",
            "treatment.json",
        }
    assert (project / "experiments" / "tiny" / "analysis" / "val_ppl_comparison.png").exists()
    before = host.commands()
    again = json.loads(oelm("fetch", "--json").stdout)["runs"]
    assert [run["new_files"] for run in again] == [0, 0, 0] and all(run["verified"] for run in again)
    assert host.commands() - before == 1, "nothing new is found out with one question"
    assert not (there / "data" / "tiny" / ".oelm-incoming").exists() and len(os.listdir(host.home())) == 1


def test_a_cancelled_run_resumes_exactly_after_the_laptop_was_closed(
    new_host: Callable[..., Host], client: Client, project: Path, oelm: Any
) -> None:
    host = new_host("box")
    client.knows(host)
    write_target(project, connection="openssh", data={"data/tiny": str(project / "data" / "tiny")})
    rig = Rig(host=host, client=client, project=project, oelm=oelm)
    rig.edit(("max_steps = 12", "max_steps = 100000"), ("save_interval = 6", "save_interval = 100"))
    rig.submit("--group", "gpt_base")
    wait_until(lambda: list(rig.run_dir().glob("checkpoint_*.pt")), "a checkpoint")
    assert "cancelled" in oelm("cancel", "gpt_base").stdout
    assert host.inside("ps", "-ewwo", "args").count("torch") == 0, "no process of it is left"
    assert rig.status()["gpt_base"]["state"] == "CANCELLED"
    rig.submit("--group", "gpt_base")
    wait_until(lambda: "Resum" in (rig.run_dir() / "training.log").read_text(), "it to resume")
    assert rig.wait_for("gpt_base", "RUNNING")["progress"]["attempt"] == 2
    oelm("cancel", "gpt_base")


def test_code_checkpoints_and_data_may_lie_apart_and_a_queued_run_never_sees_later_edits(rig: Rig) -> None:
    """All three below names that a shell would make something of; the second run waits while the code is edited."""
    home, odd = rig.host.home(), 'a "b" $(touch x) `id` it\'s'
    python = rig.host.place / "bin" / "python"
    python.write_text(python.read_text().replace("\n", f"\ncat train/note >> '{rig.host.place}/seen'\n", 1))
    write_target(
        rig.project, "apart", host="box", python=str(python), root=f"code {odd}",
        checkpoint_root=f"runs {odd}", data={"data/tiny": f"data {odd}"}, setup=["cd /", "export TRAINER_STEP_S=0.1"],
    )  # fmt: skip
    rig.target = "apart"
    note = rig.project / "train" / "note"
    note.write_text("before\n")
    rig.submit("--groups", "gpt_base,oelm_freeze", "--send-data")
    note.write_text("after\n")
    for name in ("gpt_base", "oelm_freeze"):
        rig.wait_for(name, "DONE")
    seen = (rig.host.place / "seen").read_text()
    assert "before" in seen and "after" not in seen
    rig.submit("--group", "oelm_no_freeze", "--wait")
    assert "after" in (rig.host.place / "seen").read_text()
    assert len(list((home / f"code {odd}" / ".oelm" / "snapshots").iterdir())) == 2
    assert (home / f"runs {odd}" / "tiny" / "exp_oelm_freeze" / "checkpoint_12.pt").is_file()
    assert (home / f"data {odd}" / "train.bin").is_file() and not (home / f"code {odd}" / "data").exists()
    assert rig.oelm("fetch", "--checkpoints", "all").stdout.count(", verified, in ") == 3
    assert not list(rig.host.place.rglob("x")) and not list(rig.project.rglob("x"))


def test_logs_follow_over_attempts_and_a_broken_line_without_a_gap(rig: Rig, client: Client, box: Host) -> None:
    from tests.ssh.testbed import Proxy

    box.stop()
    box.environment["TRAINER_STEP_S"] = "0.05"
    box.start(client.public_key)
    proxy = Proxy(box)
    client.knows(box, alias="far", HostName="127.0.0.1", Port=str(proxy.port))
    write_target(rig.project, "far", python=stand_in(box))
    rig.target = "far"
    rig.edit(("max_steps = 12", "max_steps = 1200"), ("save_interval = 6", "save_interval = 10"),
             ("max_retries = 0", "max_retries = 2"))  # fmt: skip
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "RUNNING")
    words = [sys.executable, "-c", "from oelm_jobs.cli.logs import main; main()", "gpt_base", "-f", "-n", "1000"]
    with open(rig.project / "followed", "wb") as out:
        following = subprocess.Popen(words, cwd=rig.project, stdout=out, stderr=subprocess.PIPE, text=True)
        for number in range(4):
            wait_until(lambda: os.path.getsize(rig.project / "followed") > 500 * (number + 1), "more lines")  # noqa: B023
            proxy.cut()
            if number == 1:
                pid = read(rig.run_dir() / ".oelm" / "start.json")["pid"]
                box.inside("sh", "-c", f"kill -KILL $(cat /proc/{pid}/task/{pid}/children)")
        _, said = following.communicate(timeout=300)
    proxy.close()
    assert following.returncode == 0, said
    assert said.splitlines()[-1] == "gpt_base is DONE"
    attempts = read(rig.run_dir() / "experiment_result.json")["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["FAILED", "DONE"] and "SIGKILL" in attempts[0]["reason"]
    log = (rig.run_dir() / "training.log").read_bytes()
    assert (rig.project / "followed").read_bytes() == log and log.count(b"Resumed from") >= 1


def test_a_watch_survives_a_lost_connection_and_says_how_old_its_news_are(rig: Rig, client: Client, box: Host) -> None:
    rig.submit("--group", "gpt_base")
    rig.wait_for("gpt_base", "DONE")
    box.stop()
    shown = rig.oelm("status", "gpt_base", check=False)
    assert "DONE" in shown.stdout, "what is over is not asked for"
    rig.edit(("max_steps = 12", "max_steps = 100000"))
    box.environment["TRAINER_STEP_S"] = "0.1"
    box.set_boot_id()
    box.start(client.public_key)
    rig.submit("--group", "oelm_freeze")
    rig.wait_for("oelm_freeze", "RUNNING")
    words = [sys.executable, "-c", "from oelm_jobs.cli.status import main; main()", "--watch"]
    watching = subprocess.Popen(words, cwd=rig.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        box.stop()
        stale = rig.oelm("status")
        assert "can't be asked" in stale.stdout and "ago stands" in stale.stdout and "RUNNING" in stale.stdout
        box.set_boot_id()
        box.start(client.public_key)
        assert watching.stdout is not None
        lines = iter(watching.stdout.readline, "")
        assert any("reboot" in line for line in lines), "it came back by itself"
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=300)


def test_a_watch_on_a_terminal_redraws_in_place_and_never_clears(
    rig: Rig, client: Client, box: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ssh.test_hosts import on_a_terminal
    from tests.ssh.testbed import Proxy

    box.stop()
    box.environment["TRAINER_STEP_S"] = "0.1"
    box.start(client.public_key)
    proxy = Proxy(box)
    client.knows(box, alias="far", HostName="127.0.0.1", Port=str(proxy.port))
    write_target(rig.project, "far", python=stand_in(box))
    rig.edit(("max_steps = 12", "max_steps = 100000"))
    rig.oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "far")
    rig.wait_for("gpt_base", "RUNNING")

    def cut_after_some_looks() -> None:
        before = box.commands()
        wait_until(lambda: box.commands() >= before + 3, "it to look")
        proxy.refuse = True
        proxy.cut()

    cutting = threading.Thread(target=cut_after_some_looks)
    cutting.start()
    code = f"import os; os.chdir({str(rig.project)!r}); from oelm_jobs.cli.status import main; main()"
    monkeypatch.setenv("TERM", "xterm")
    screen = on_a_terminal([sys.executable, "-c", code, "--watch"], {"can't be asked": "\x03"})
    cutting.join()
    assert screen.count("study tiny on far") >= 3 and "ago stands" in screen
    assert not re.search(r"\x1b\[[23]?J|\x1b\[H|\x1bc", screen), "nothing is cleared, so nothing flickers"
    assert screen.count("\x1b[1A") >= 2, "it is drawn over what stood there"
    proxy.close()
    rig.target = "box"
