"""Print a plan: for people, as JSON, or as the launch scripts themselves."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from .. import visible
from ..agent.host import permitted
from ..agent.rundir import finite
from ..agent.sentences import _
from ..code import snapshot
from ..connections import connect, interpreter
from ..scripts import jobs as launch_scripts
from ..spec.target import Target
from ..store import Store, index_path
from ..study import plan as plans
from ..study.resolve import command as command_of
from .common import narrate, put, put_json, say
from .view import duration


def show(plan: plans.Plan, target: Target, *, script: bool, as_json: bool) -> None:
    """Print the plan; has no other effect.

    Args:
        target: The plan's, as its file describes it.
    """
    if script:
        connection = connect(target, plan.project)
        jobs = launch_scripts.preview(plan, plan.runs, snapshot.take(plan.project), connection)
        scripts = [job.script for job in jobs]
        if plan.target.kind != "slurm":
            # Each execs: in a subshell the next one follows, and a shell that it is pasted into stays.
            scripts = [f"(\n{text})\n" for text in scripts]
        whole = "\n".join(scripts)
        put(visible.text(whole) if sys.stdout.isatty() else whole, nl=False)
    elif as_json:
        put_json(_as_json(plan, _rows(plan)))
    else:
        _show_head(plan)
        rows = _rows(plan)
        for number, row in enumerate(rows, start=1):
            before = rows[number - 2]["run"] if number > 1 and plan.mode == plans.SEQUENTIAL else ""
            _show_run(number, row, before, by_slurm=plan.target.slurm is not None)
    narrate(
        _(
            "\nNothing was submitted. Without --dry-run, this is; with --script, the complete launch scripts are "
            "printed."
        )
    )


def _expected_seconds(store: Store, plan: plans.Plan) -> dict[str, float]:
    """Return by run name how long its training should take, where an earlier run of its group on this target tells
    the speed.
    """
    rates: dict[str, float] = {}
    for known in store.runs(plan.project, plan.study.name):
        rate = finite(known.progress.get("tokens_per_s"))
        if known.target == plan.target.name and rate:
            rates[known.group] = rate
    return {
        run.name: int(run.train["max_steps"]) * run.global_batch * int(run.train["seq_len"]) / rates[run.group]
        for run in plan.runs
        if run.group in rates
    }


def _rows(plan: plans.Plan) -> list[dict[str, Any]]:
    expected: dict[str, float] = {}
    if index_path().exists():  # a dry run makes no store
        with Store() as store:
            expected = _expected_seconds(store, plan)
    python = interpreter(plan.target)
    rows: list[dict[str, Any]] = []
    start: float | None = 0.0
    for run in plan.runs:
        seconds = expected.get(run.name)
        rows.append(
            {
                "run": run.name,
                "group": run.group,
                "label": run.label,
                "seed": run.seed,
                "gpus": list(run.gpus) if isinstance(run.gpus, tuple) else run.gpus,
                "world_size": run.world_size,
                "global_batch": run.global_batch,
                "batch_size": run.train["batch_size"],
                "accumulation": run.train["gradient_accumulation_steps"],
                "command": command_of(run, python),
                "run_dir": run.run_dir,
                "start_s": start,
                "duration_s": seconds,
            }
        )
        if plan.mode == plans.SEQUENTIAL:
            start = None if start is None or seconds is None else start + seconds
    return rows


def _as_json(plan: plans.Plan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    differences = [
        {"key": d.key, "kind": d.kind, "values": dict(d.values), "reason": d.reason} for d in plan.differences
    ]
    content = {"version": 1, "study": plan.study.name, "target": plan.target.name, "mode": plan.mode, "executed": False}
    return {**content, "runs": rows, "differences": differences}


def _show_head(plan: plans.Plan) -> None:
    say(_("Plan of study {study}: not executed", study=plan.study.name), bold=True)
    if plan.study.question:
        say(_("  question  {question}", question=plan.study.question))
    say(_("  groups    {groups}", groups=list(dict.fromkeys(run.group for run in plan.runs))))
    say(_("  seeds     {seeds}", seeds=list(dict.fromkeys(run.seed for run in plan.runs))))
    say(_("  target    {target} ({path})", target=plan.target.name, path=plan.root))
    limit = permitted.description() if plan.target.kind == "local" else ""
    if limit:
        say(_("  held to   {limit}", limit=limit))
    modes = {
        plans.SEQUENTIAL: _("one after the other, in this order"),
        plans.PARALLEL: _("each as soon as it has its devices"),
    }
    say(_("  mode      {mode}: {words}", mode=plan.mode, words=modes[plan.mode]))
    for each in plan.differences:
        values = ", ".join(f"{group} {value}" for group, value in each.values.items())
        if each.reason:
            say(_("  unequal   {key} ({values}): {reason}", key=each.key, values=values, reason=each.reason))
        else:
            say(_("  unequal   {key} ({values})", key=each.key, values=values))


def _show_run(number: int, row: dict[str, Any], before: str, *, by_slurm: bool) -> None:
    say()
    title = {"number": number, "run": row["run"], "label": row["label"], "seed": row["seed"]}
    say(_("{number}. {run}  {label}, seed {seed}", **title), bold=True)
    gpus, world_size = row["gpus"], row["world_size"]
    if isinstance(gpus, list):
        which = _("GPUs {gpus}", gpus=gpus)
    else:
        which = _("any {count} GPUs", count=gpus) if gpus > 1 else _("any {count} GPU", count=gpus)
    given = _("as Slurm gives them") if by_slurm else _("CPU slots where there is none")
    say(_("   devices   {which} ({given}); world size {world_size}", which=which, given=given, world_size=world_size))
    processes = _("{count} processes", count=world_size) if world_size > 1 else _("{count} process", count=world_size)
    if row["accumulation"] > 1:
        processes = _("{processes} x {count} accumulated", processes=processes, count=row["accumulation"])
    say(
        _(
            "   batch     {all} sequences per step = {own} per GPU (--batch_size) x {processes}",
            all=row["global_batch"],
            own=row["batch_size"],
            processes=processes,
        )
    )
    say(_("   command   {command}", command=shlex.join(row["command"])))
    say(_("   output    {path}", path=row["run_dir"]))
    begin = _("when Slurm lets it") if by_slurm else _("when its devices are free")
    if before:
        begin = _("after {run}", run=before)
    if row["start_s"]:
        begin = _("{when}, in about {duration}", when=begin, duration=duration(row["start_s"]))
    say(_("   start     {when}", when=begin))
    measured = _("not known: no run of this group was measured here")
    if row["duration_s"]:
        measured = _("about {duration}", duration=duration(row["duration_s"]))
    say(_("   duration  {duration}", duration=measured))
