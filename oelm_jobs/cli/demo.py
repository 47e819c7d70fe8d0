"""``oelm demo``: from nothing to a report, on the embedded novels; a process is killed on the way."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.sentences import _
from ..errors import PreflightError, RunFailed
from ..folders import check_home
from ..language import chosen
from . import complete
from .common import columns, command, narrate, put, say
from .data import print_made, progress
from .submit import show_submitted, wait_for

if TYPE_CHECKING:
    from ..demo import Interruption
    from ..project import Project
    from ..runs.observe import View
    from ..study.plan import Plan

STUDY = "demo"
KILLED = "gpt_base"
"""The group whose run loses its process."""
PROMPT = ("She", "was")
SAMPLE = ("--prompt", " ".join(PROMPT), "--max_new_tokens", "60")


@command("oelm-demo")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="oelm-demo", metavar="[FOLDER]")
@click.option(
    "--target",
    default="local",
    show_default=True,
    metavar="NAME",
    shell_complete=complete.targets,
    help=_("Where to train."),
)
def main(folder: Path, target: str) -> None:
    """Train three small groups of the reference experiment, and write the report: in about three minutes on two cores.

    All of it lies in FOLDER (./oelm-demo). On this machine a process is ended by kill -9 in the middle of its
    training, and what the run tells afterwards is compared with what it told before. Runs that are done are left alone,
    so the demo can be interrupted and given again.
    """
    from ..project import Project
    from ..scaffold import examples, files

    check_home(folder.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    files.make(folder, f"jobs/{STUDY}.toml", examples.text(f"{STUDY}.toml"))
    is_here = target == "local"
    failed: RunFailed | None = None
    with Project(folder, say=narrate) as project:
        _check_torch(project, target)
        _step(_("Token files from six novels"))
        _make_data(folder)
        if not is_here:
            project.send_data(target, STUDY)
        _step(_("Three groups and a speed trial, as many at a time as there are cores (Ctrl-C leaves them running)"))
        planned = project.plan(STUDY, target, mode="parallel")
        try:
            _train(project, planned, is_here=is_here)
        except RunFailed as error:
            failed = error
        if not is_here:
            project.fetch(study=STUDY)
        _step(_("The report"))
        report = project.report(STUDY)
        put(visible.text(report.show(language=chosen())), nl=False)
        written, remarks = report.write(plot=True, language=chosen())
        for remark in remarks:
            narrate(remark)
        narrate(_("{count} files in {folder}", len(written), str(report.folder)))
    _step(_("What each group writes after {words!r}", " ".join(PROMPT)))
    _sample(folder, [run.group for run in planned.runs])
    for line in _where(folder, target):
        narrate(line)
    if failed is not None:
        raise failed


def _step(what: str) -> None:
    narrate("")
    narrate(_("== {what}", what))


def _check_torch(project: Project, target: str) -> None:
    """Refuse a target that can't train, before data are made and sent.

    Raises:
        PreflightError: It has no torch.
    """
    for finding in project.examine(target):
        if finding.what == "torch" and finding.is_bad:
            raise PreflightError(finding.found, hint=finding.mend)


def _make_data(folder: Path) -> None:
    from ..data import maker

    place = folder / "data" / STUDY
    with progress() as report:
        made = maker.demo(place, report=report)
    print_made(place, made, as_json=False)


def _train(project: Project, planned: Plan, *, is_here: bool) -> None:
    """Train the groups, and kill a process of one that was not interrupted before.

    Raises:
        RunFailed: A run failed, or did not go on as it was.
    """
    from ..demo import Interruption

    submitted = project.submit(planned)
    show_submitted(planned, submitted)
    goes = [item.run for item in submitted if item.run.group == KILLED and not item.state.is_final]
    fault = Interruption(run_dir=Path(goes[0].run_dir)) if goes and is_here else None

    def look(view: View) -> None:
        if fault is not None and fault.look() and fault.killed is not None:
            narrate(
                _(
                    "kill -9 {pid}: the process that trains {run}, at step {step}",
                    fault.killed.pid,
                    KILLED,
                    fault.killed.step,
                )
            )

    try:
        wait_for(project, planned, also=look)
    except SystemExit:  # Ctrl-C, which leaves the runs going on: what became of them isn't known yet
        fault = None
        raise
    finally:
        if fault is not None and fault.killed is not None:
            _step(_("What became of the run whose process was killed"))
            _compare(fault)


def _compare(fault: Interruption) -> None:
    """Print the steps that were trained twice.

    Raises:
        RunFailed: They are not the same.
    """
    assert fault.killed is not None
    repeated = fault.repeated()
    if not repeated:
        raise RunFailed(_("{run} did not go on", KILLED), hint=_("what it said: oelm-logs {run}", KILLED))
    say(
        _(
            "{run} went on by itself from its checkpoint of step {step}, and trained these steps a second time:",
            KILLED,
            fault.killed.checkpoint,
        )
    )
    for each in repeated:
        for name, value in each.before.items():
            say(
                _(
                    "  step {step}  {name:<9}  before {before!r:<20}  after {after!r}",
                    each.step,
                    name,
                    value,
                    each.after.get(name),
                )
            )
    if not all(each.is_same for each in repeated):
        raise RunFailed(_("{run} went on in another way than before", KILLED))
    say(_("The same to the last bit: it goes on as if nothing had happened."))


def _sample(folder: Path, groups: list[str]) -> None:
    for group in dict.fromkeys(groups):
        model = folder / "models" / "checkpoints" / STUDY / f"exp_{group}" / "best_model.pt"
        if model.is_file():
            argv = [sys.executable, "-m", "oelm_jobs.train.sample", str(model), *SAMPLE]
            done = subprocess.run(
                argv, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, encoding="utf-8"
            )
            say("")
            say(_("{group}:", group))
            for line in visible.text(done.stdout or done.stderr).splitlines():
                say(f"    {line}")


def _where(folder: Path, target: str) -> Iterator[str]:
    """Yield where everything is, and what can be tried next."""
    here = folder.resolve() == Path.cwd()
    yield ""
    yield _("Where everything is, in {folder}", str(folder.resolve()))
    rows = {
        f"experiments/{STUDY}/analysis/": _(
            "the report: tables, verdicts, figures (report.html holds it all in one page)"
        ),
        f"models/checkpoints/{STUDY}/": _("the runs: logs, metrics, checkpoints"),
    }
    yield from columns(rows)
    if target != "local":
        return
    yield ""
    first = [] if shutil.which("oelm") else [f". {shlex.quote(str(Path(sys.prefix) / 'bin' / 'activate'))}"]
    first += [] if here else [f"cd {shlex.quote(str(folder))}"]
    yield _("What to try next, after {command}", " && ".join(first)) if first else _("What to try next")
    yield from columns(
        {
            "oelm status": _("where the runs stand"),
            f"oelm submit --study {STUDY} --num-seeds 3 --mode parallel": _("more seeds: intervals instead of points"),
            "oelm init": _("a project of your own: the reference experiment, or any program"),
        }
    )
