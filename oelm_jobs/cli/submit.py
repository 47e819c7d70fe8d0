"""``oelm-submit``: submit runs, each at most once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import click

from ..agent.sentences import _
from ..errors import RunFailed, UsageError
from .common import command, confirm, narrate, open_project, put_json, say, split_names
from .where import Where, where_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..project import Project
    from ..spec.study import Study
    from ..spec.target import Target
    from ..study.plan import Plan
    from ..submit.submission import Submitted


@command("oelm-submit")
@click.option(
    "--study", metavar="NAME", help=_("Study in jobs/ (or a .toml file); without it, the one with default = true.")
)
@click.option(
    "--group", "--groups", "groups", multiple=True, metavar="NAME", help=_("Only this group; repeatable, or a,b,c.")
)
@where_options
@click.option(
    "--mode",
    type=click.Choice(["sequential", "parallel"]),
    default="sequential",
    show_default=True,
    help=_("Each run after the one before it, or each as soon as it has its devices."),
)
@click.option("--seeds", metavar="N,N", help=_("These seeds instead of the study's."))
@click.option(
    "--num-seeds",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help=_("The study's seeds, continued upward to N of them."),
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help=_("Set a train key for these runs; needs --tag.")
)
@click.option("--tag", default="", metavar="TAG", help=_("Name these runs apart from the study's own."))
@click.option("--rerun", is_flag=True, help=_("Archive runs that are over, and start them over."))
@click.option("--extend", is_flag=True, help=_("The study's max_steps was raised: train finished runs further."))
@click.option(
    "--stop-on-failure",
    is_flag=True,
    help=_("A failed run cancels the ones behind it (default: they run all the same)."),
)
@click.option(
    "--dry-run", is_flag=True, help=_("Show what would be done; needs no data, GPU or network, leaves nothing behind.")
)
@click.option("--script", is_flag=True, help=_("With --dry-run: print the launch scripts alone, ready to paste."))
@click.option("--send-data", is_flag=True, help=_("Send the study's token files where the target lacks them."))
@click.option("--wait", is_flag=True, help=_("Stay and show progress; exit code 1 when a run failed."))
@click.option("--yes", is_flag=True, help=_("Don't ask before runs are archived."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(
    study: str | None,
    groups: tuple[str, ...],
    where: Where,
    mode: str,
    seeds: str | None,
    num_seeds: int | None,
    settings: tuple[str, ...],
    tag: str,
    rerun: bool,
    extend: bool,
    stop_on_failure: bool,
    dry_run: bool,
    script: bool,
    send_data: bool,
    wait: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Submit a study's runs.

    What is running or done is left alone; what failed or was cancelled goes on from its last checkpoint. The terminal
    may be closed as soon as this returns.
    """
    if script and not dry_run:
        raise UsageError(_("--script goes with --dry-run"))
    if rerun and extend:
        raise UsageError(_("--rerun and --extend exclude each other"))
    with open_project() as project:
        from .. import Again, Mode

        chosen = project.study(study)
        target = where.target(project)
        plan = partial(
            project.plan, chosen, target, groups=split_names(groups), seeds=_seeds(seeds, num_seeds, chosen.seeds),
            tag=tag, settings=_settings(settings), mode=Mode(mode), stop_on_failure=stop_on_failure,
        )  # fmt: skip

        if dry_run:
            from .planned import show

            show(project, plan(offline=True), script=script, as_json=as_json)
            return
        if send_data:
            _send_data(project, target, chosen, _settings(settings))
        planned = plan(offline=False)
        if rerun:
            states = {run.name: run.state for run in project.runs() if run.study == chosen.name}
            over = [run.name for run in planned.runs if run.name in states and states[run.name].is_final]
            if over:
                confirm(_("Move what {runs} made to .archive and start over?", over), yes=yes)
        submitted = project.submit(planned, Again.RERUN if rerun else Again.EXTEND if extend else Again.RESUME)
        _show_submitted(planned, submitted, as_json=as_json and not wait, tell=narrate if as_json else say)
        if wait:
            _wait(project, planned, as_json=as_json)


def _send_data(project: Project, target: Target, study: Study, settings: Mapping[str, str]) -> None:
    """Send the token files that the target lacks, with progress."""
    from .progress import Meter

    with Meter(_("sending")) as meter:
        sent = project.send_data(target, study, settings=settings, progress=meter)
    if sent:
        narrate(_("sent to {target}: {files}", target.name, sent))
    else:
        narrate(_("{target} has the data already", target.name))


def _seeds(listed: str | None, number: int | None, own: tuple[int, ...]) -> tuple[int, ...]:
    if listed is not None and number is not None:
        raise UsageError(_("--seeds and --num-seeds exclude each other"))
    if listed is not None:
        try:
            seeds = tuple(dict.fromkeys(int(part) for part in listed.split(",")))
        except ValueError:
            raise UsageError(
                _("--seeds {seeds}: give whole numbers with commas between them, as in 42,43,44", listed)
            ) from None
        return seeds
    if number is not None:
        more = (seed for seed in range(own[0], own[0] + number + len(own)) if seed not in own)
        return (*own, *more)[:number]
    return ()


def _settings(settings: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key or not value:
            raise UsageError(_("--set {setting}: give KEY=VALUE, as in --set max_steps=1000", setting))
        values[key.strip().replace("-", "_")] = value.strip()
    return values


def _show_submitted(plan: Plan, submitted: list[Submitted], *, as_json: bool, tell: Callable[[str], None]) -> None:
    if as_json:
        runs = [
            {
                "run": s.run.name,
                "state": str(s.state),
                "submitted": not s.note,
                "note": s.note,
                "run_dir": s.run.run_dir,
            }
            for s in submitted
        ]
        put_json({"version": 1, "study": plan.study.name, "target": plan.target.name, "runs": runs})
        return
    for difference in plan.differences:
        if difference.reason:
            narrate(_("unequal by declaration: {key}: {reason}", difference.key, difference.reason))
    for item in submitted:
        if item.note:
            tell(_("{run}: left alone, {why}", item.run.name, item.note))
        else:
            tell(_("{run}: submitted to {target}", item.run.name, plan.target.name))
    if any(not item.note for item in submitted):
        narrate(_("Runs go on without this terminal. Watch them: oelm-status --watch"))


def _wait(project: Project, plan: Plan, *, as_json: bool) -> None:
    from ..agent.states import State
    from . import view

    try:
        with nullcontext() if as_json else view.screen() as show:
            last = project.wait(*plan.runs, show=show)
    except KeyboardInterrupt:
        narrate(
            _("\nNo longer waiting; the runs go on. Come back with: oelm-status --watch; end them with: oelm-cancel")
        )
        raise SystemExit(130) from None
    if as_json:
        put_json(view.as_json(last))
    failed = [run.name for run in last.runs if run.state is not State.DONE]
    if failed:
        raise RunFailed(_("not done: {runs}", failed), hint=_("what it said: oelm-logs {run}", failed[0]))
