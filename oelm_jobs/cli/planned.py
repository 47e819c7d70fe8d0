"""Print a plan: for people, as JSON, or as the launch scripts themselves."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from .. import Mode, visible
from ..agent.host import permitted
from ..agent.reasons import detailed
from ..agent.sentences import _
from ..errors import few
from .common import narrate, narrate_wrapped, put, put_json, say, say_wrapped
from .view import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..project import Project
    from ..study.plan import Plan
    from ..submit.preview import PlannedRun


PLACEHOLDERS = re.compile(r"[\w@%+=:,./-]*({[\w.]+}[\w@%+=:,./-]*)+")
"""A word with placeholders, and nothing in it that a shell would take for something else."""


BESIDE = 12
"""Columns before the second one of the lines of a plan's head; a run's lines begin one column later."""


def show(
    project: Project, plan: Plan, *, script: bool, as_json: bool, chosen: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Print the plan, in JSON with what was ``chosen`` for its groups; has no other effect."""
    if script:
        scripts = project.scripts(plan)
        if plan.target.kind != "slurm":
            # Each execs: in a subshell the next one follows, and a shell that it is pasted into stays.
            scripts = [f"(\n{text})\n" for text in scripts]
        whole = "\n".join(scripts)
        put(visible.text(whole) if sys.stdout.isatty() else whole, nl=False)
    elif as_json:
        put_json({**_as_json(plan, project.preview(plan)), **({"chosen": chosen} if chosen else {})})
    else:
        _show_head(plan)
        before = ""
        for number, each in enumerate(project.preview(plan), start=1):
            _show_run(number, each, before, by_slurm=plan.target.slurm is not None)
            before = each.run.name if plan.mode is Mode.SEQUENTIAL else ""
    narrate("")
    narrate_wrapped(_("Nothing was submitted; that is done without --dry-run."))


def _as_json(plan: Plan, runs: Sequence[PlannedRun]) -> dict[str, object]:
    keys = ("group", "label", "seed", "tag", "gpus", "world_size", "global_batch", "run_dir")
    rows = [
        {
            "run": each.run.name,
            **{key: getattr(each.run, key) for key in keys},
            **(each.division._asdict() if each.division else {}),
            "command": each.commands[0] if len(each.commands) == 1 else each.commands,
            "start_s": each.start_s,
            "duration_s": each.duration_s,
        }
        for each in runs
    ]
    differences = [asdict(each) for each in plan.differences]
    about = {"version": 1, "study": plan.study.name, "target": plan.target.name, "mode": plan.mode, "executed": False}
    return {**about, "runs": rows, "differences": differences}


def _show_head(plan: Plan) -> None:
    say_wrapped(_("Plan of study {study}: not executed", plan.study.name), "  ", bold=True)
    if plan.study.question:
        _fact(_("  question  {question}", plan.study.question))
    _fact(_("  groups    {groups}", list(dict.fromkeys(run.group for run in plan.runs))))
    _fact(_("  seeds     {seeds}", list(dict.fromkeys(run.seed for run in plan.runs))))
    if tags := [*dict.fromkeys(run.tag for run in plan.runs if run.tag)]:
        _fact(_("  tags      {tags}", few(tags)))
    say(_("  target    {target} ({path})", plan.target.name, plan.root))
    limit = permitted.description() if plan.target.kind == "local" else ""
    if limit:
        _fact(_("  held to   {limit}", limit))
    is_lane = plan.mode is Mode.SEQUENTIAL
    order = _("one after the other, in this order") if is_lane else _("each as soon as it has its devices")
    _fact(_("  mode      {mode}: {words}", str(plan.mode), order))
    for each in plan.differences:
        values = ", ".join(f"{group} {value}" for group, value in each.values.items())
        _fact(detailed(_("  unequal   {key} ({values})", each.key, values), each.reason))


def _fact(text: str, beside: int = BESIDE) -> None:
    """Print a line of two columns, which goes on below the second one."""
    say_wrapped(text, " " * beside)


def _quoted(word: str) -> str:
    """Return a word as a shell would take it, with placeholders as they are."""
    return word if PLACEHOLDERS.fullmatch(word) else shlex.quote(word)


def _show_run(number: int, planned: PlannedRun, before: str, *, by_slurm: bool) -> None:
    fact = functools.partial(_fact, beside=BESIDE + 1)
    run = planned.run
    say()
    say_wrapped(_("{number}. {run}  {label}, seed {seed}", number, run.name, run.label, run.seed), "   ", bold=True)
    gpus, world_size = run.gpus, run.world_size
    if not gpus:
        which = _("{count} CPU slots", run.cpus) if run.cpus > 1 else _("1 CPU slot")
        fact(_("   devices   {which}", which))
    else:
        if isinstance(gpus, tuple):
            which = _("GPUs {gpus}", gpus)
        else:
            which = _("any {count} GPUs", gpus) if gpus > 1 else _("any {count} GPU", gpus)
        given = _("as Slurm gives them") if by_slurm else _("CPU slots where there is none")
        fact(_("   devices   {which} ({given}); world size {world_size}", which, given, world_size))
    if planned.division is not None:
        processes = _("{count} processes", world_size) if world_size > 1 else _("{count} process", world_size)
        if planned.division.accumulation > 1:
            processes = _("{processes} x {count} accumulated", processes, planned.division.accumulation)
        fact(_("   batch     {all} sequences per step = {own}", run.global_batch, planned.division.per_gpu(processes)))
    for command in planned.commands:
        say(_("   command   {command}", " ".join(map(_quoted, command))))
    say(_("   output    {path}", run.run_dir))
    begin = _("when Slurm lets it") if by_slurm else _("when its devices are free")
    if before:
        begin = _("after {run}", before)
    if planned.start_s:
        begin = _("{when}, in about {duration}", begin, duration(planned.start_s))
    fact(_("   start     {when}", begin))
    measured = _("about {duration}", duration(planned.duration_s)) if planned.duration_s else ""
    fact(_("   duration  {duration}", measured or _("not known: no run of this group was measured here")))
