"""Where a cluster has no sendmail, Slurm sends the mail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oelm_jobs.agent.notify import asked, declared, ways
from oelm_jobs.spec.notify import Notify
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.target import Target
from oelm_jobs.submit import told
from oelm_jobs.targets import sbatch
from tests.notify.server import stand_in_for_sendmail
from tests.support import make_run


def ask(root: Path, on: tuple[str, ...], said: list[str], **options: Any) -> tuple[told.Told, list[str]]:
    """Return what a cluster answers, and the lines of a job's header."""
    target = Target(name="c", kind="slurm", root=str(root), python="", slurm=Slurm(**options))
    plan: Any = SimpleNamespace(
        study=SimpleNamespace(name="s", notify=None), project="/p", target=target, root=str(root)
    )
    connection: Any = SimpleNamespace(resolved=target, call=lambda verb, request: asked.notify(request))
    notify = Notify(on=on, stalled_after_s=60.0, mail="me@example.org", command=("true",))
    answer = told.declare(plan, connection, notify, {str(root / "exp_a"): "t1"}, said.append)
    run = make_run(root, "a")
    return answer, sbatch.header(target, [run], name="a", folder="/f", stem="s", more=answer.slurm_mail)


def test_slurm_sends_the_mail_where_there_is_no_sendmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "SENDMAIL_FOLDERS", "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "true").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    said: list[str] = []
    answer, lines = ask(tmp_path, ("fail", "end", "stalled"), said)
    assert {"--mail-user=me@example.org", "--mail-type=FAIL,END,ARRAY_TASKS"} <= set(lines)
    assert said == ["notify: mail: there is no sendmail here (c): Slurm sends it, of single runs alone"]
    kept = declared.read(Path(answer.folder))
    assert kept is not None and "mail" not in kept.notify and kept.notify["command"] == ["true"]
    said.clear()
    (tmp_path / "bin" / "true").unlink()
    answer, _ = ask(tmp_path, ("fail",), said)
    assert answer.slurm_mail and [line.partition(": nothing")[0] for line in said[1:]] == ["notify: command"]
    (tmp_path / "bin" / "true").symlink_to("/bin/true")
    said.clear()
    _, lines = ask(tmp_path, ("fail",), said, sbatch={"mail-user": "you@example.org", "mail-type": "BEGIN"})
    assert {"--mail-user=you@example.org", "--mail-type=BEGIN"} <= set(lines), "the target's own options win"
    said.clear()
    assert not ask(tmp_path, (), said)[0].slurm_mail and "there is no sendmail here" in said[0]
    said.clear()
    stand_in_for_sendmail(tmp_path / "bin")
    answer, lines = ask(tmp_path, ("fail",), said)
    assert not said and not any("mail" in line for line in lines)
    kept = declared.read(Path(cast("str", answer.folder)))
    assert kept is not None and kept.notify["mail"] == "me@example.org"
