"""Print a plan: for people, as JSON, or as the launch scripts themselves."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from .. import Mode, visible
from ..agent.host import permitted
from ..agent.sentences import _
from .common import narrate, put, put_json, say
from .view import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..project import Project
    from ..study.plan import Plan
    from ..submit.preview import PlannedRun


def show(project: Project, plan: Plan, *, script: bool, as_json: bool) -> None:
    """Print the plan; has no other effect."""
    if script:
        scripts = project.scripts(plan)
        if plan.target.kind != "slurm":
            # Each execs: in a subshell the next one follows, and a shell that it is pasted into stays.
            scripts = [f"(\n{text})\n" for text in scripts]
        whole = "\n".join(scripts)
        put(visible.text(whole) if sys.stdout.isatty() else whole, nl=False)
    elif as_json:
        put_json(_as_json(plan, project.preview(plan)))
    else:
        _show_head(plan)
        before = ""
        for number, each in enumerate(project.preview(plan), start=1):
            _show_run(number, each, before, by_slurm=plan.target.slurm is not None)
            before = each.run.name if plan.mode is Mode.SEQUENTIAL else ""
    narrate(
        _(
            "\nNothing was submitted. Without --dry-run, this is; with --script, the complete launch scripts are "
            "printed."
        )
    )


def _as_json(plan: Plan, runs: Sequence[PlannedRun]) -> dict[str, object]:
    rows = [
        {
            "run": each.run.name,
            "group": each.run.group,
            "label": each.run.label,
            "seed": each.run.seed,
            "gpus": list(each.run.gpus) if isinstance(each.run.gpus, tuple) else each.run.gpus,
            "world_size": each.run.world_size,
            "global_batch": each.run.global_batch,
            "batch_size": each.run.train["batch_size"],
            "accumulation": each.run.train["gradient_accumulation_steps"],
            "command": list(each.command),
            "run_dir": each.run.run_dir,
            "start_s": each.start_s,
            "duration_s": each.duration_s,
        }
        for each in runs
    ]
    differences = [
        {"key": d.key, "kind": d.kind, "values": dict(d.values), "reason": d.reason} for d in plan.differences
    ]
    content = {
        "version": 1,
        "study": plan.study.name,
        "target": plan.target.name,
        "mode": str(plan.mode),
        "executed": False,
    }
    return {**content, "runs": rows, "differences": differences}


def _show_head(plan: Plan) -> None:
    say(_("Plan of study {study}: not executed", plan.study.name), bold=True)
    if plan.study.question:
        say(_("  question  {question}", plan.study.question))
    say(_("  groups    {groups}", list(dict.fromkeys(run.group for run in plan.runs))))
    say(_("  seeds     {seeds}", list(dict.fromkeys(run.seed for run in plan.runs))))
    say(_("  target    {target} ({path})", plan.target.name, plan.root))
    limit = permitted.description() if plan.target.kind == "local" else ""
    if limit:
        say(_("  held to   {limit}", limit))
    modes = {
        Mode.SEQUENTIAL: _("one after the other, in this order"),
        Mode.PARALLEL: _("each as soon as it has its devices"),
    }
    say(_("  mode      {mode}: {words}", str(plan.mode), modes[plan.mode]))
    for each in plan.differences:
        values = ", ".join(f"{group} {value}" for group, value in each.values.items())
        if each.reason:
            say(_("  unequal   {key} ({values}): {reason}", each.key, values, each.reason))
        else:
            say(_("  unequal   {key} ({values})", each.key, values))


def _show_run(number: int, planned: PlannedRun, before: str, *, by_slurm: bool) -> None:
    run = planned.run
    say()
    say(_("{number}. {run}  {label}, seed {seed}", number, run.name, run.label, run.seed), bold=True)
    gpus, world_size, accumulation = run.gpus, run.world_size, run.train["gradient_accumulation_steps"]
    if isinstance(gpus, tuple):
        which = _("GPUs {gpus}", gpus)
    else:
        which = _("any {count} GPUs", gpus) if gpus > 1 else _("any {count} GPU", gpus)
    given = _("as Slurm gives them") if by_slurm else _("CPU slots where there is none")
    say(_("   devices   {which} ({given}); world size {world_size}", which, given, world_size))
    processes = _("{count} processes", world_size) if world_size > 1 else _("{count} process", world_size)
    if accumulation > 1:
        processes = _("{processes} x {count} accumulated", processes, accumulation)
    say(
        _(
            "   batch     {all} sequences per step = {own} per GPU (--batch_size) x {processes}",
            run.global_batch,
            run.train["batch_size"],
            processes,
        )
    )
    say(_("   command   {command}", shlex.join(planned.command)))
    say(_("   output    {path}", run.run_dir))
    begin = _("when Slurm lets it") if by_slurm else _("when its devices are free")
    if before:
        begin = _("after {run}", before)
    if planned.start_s:
        begin = _("{when}, in about {duration}", begin, duration(planned.start_s))
    say(_("   start     {when}", begin))
    measured = _("not known: no run of this group was measured here")
    if planned.duration_s:
        measured = _("about {duration}", duration(planned.duration_s))
    say(_("   duration  {duration}", measured))
