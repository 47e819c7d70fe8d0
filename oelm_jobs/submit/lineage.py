"""Where the runs are that others need: what can't be is refused by name before anything is queued, and what was made on
another target is brought to this one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import registry, rundir
from ..agent.run import inputs, result, saved
from ..agent.run_record import RunRecord
from ..agent.sentences import _
from ..agent.states import Checkpoints, State
from ..connections import Connection, connect, connect_for_transfer
from ..errors import PreflightError
from ..names import CONFIRM
from ..runs.observe import Scope, refresh
from ..spec.lineage import ALWAYS, BEST, LATEST, Parent
from ..spec.study import Run
from ..store import Store
from ..stored_run import StoredRun
from ..study.plan import Plan
from ..targets.files import load_target
from ..transfer import fetch, send
from ..transfer.home import home_of

if TYPE_CHECKING:
    from ..agent import messages
    from ..agent.record_types import NeedRecord

WHICH = {BEST: Checkpoints.BEST, LATEST: Checkpoints.LATEST}
"""What is fetched of a run for what is taken from it."""
Key = tuple[str, str]
"""A study's name and a run's."""


def placed(
    plan: Plan,
    connection: Connection,
    store: Store,
    seen: Mapping[str, StoredRun],
    wanted: Collection[str],
    token: str,
    say: Callable[[str], None],
) -> Plan:
    """Return a plan in which each run that is to be submitted knows where those are that it needs.

    Args:
        seen: The study's runs as they stand, by name.
        wanted: Names of the runs that are to be submitted.
        token: Of the submission.

    Raises:
        PreflightError: One that is needed was not submitted, has failed, or what is taken from it is gone; nothing was
            queued.
        TargetError: Another target that has one of them can't be asked.
    """
    takers = [run for run in plan.runs if run.name in wanted and run.parents]
    if not takers:
        return plan
    known = {(plan.study.name, name): run for name, run in seen.items()}
    foreign = {(each.study, each.run) for run in takers for each in run.parents if each.study != plan.study.name}
    if foreign:
        stored = [run for run in store.runs(plan.project) if (run.study, run.name) in foreign]
        view = refresh(store, plan.project, stored, scope=Scope.ALL, anew=True)
        known |= {(run.study, run.name): run for run in view.runs}
    own = {run.name: run.run_dir for run in plan.runs if run.name in wanted}
    runs = []
    for run in plan.runs:
        if run.name in own:
            rows = []
            for parent in run.parents:
                row = _row(plan, run, parent, known.get((parent.study, parent.run)), own, token)
                rows.append(replace(parent, place=row))
            run = replace(run, parents=tuple(rows))
        runs.append(run)
    # All that can be refused has been by now, and copying takes its time.
    over = [
        parent
        for run in runs
        for parent in run.parents
        if parent.input and parent.place is not None and parent.place.get("token") != token
    ]
    wanted_of: dict[Key, list[str]] = {}
    for parent in over:
        key = parent.study, parent.run
        if known[key].state is State.DONE and parent.artifact not in wanted_of.setdefault(key, []):
            wanted_of[key].append(parent.artifact)
    brought = _had(plan, connection, [(known[key], artifacts) for key, artifacts in wanted_of.items()], say)
    return replace(plan, runs=tuple(_with(run, brought) for run in runs))


def _with(run: Run, brought: Mapping[tuple[Key, str], NeedRecord]) -> Run:
    if not run.parents:
        return run
    parents = []
    for parent in run.parents:
        more = brought.get(((parent.study, parent.run), parent.artifact))
        if more and parent.place is not None:
            parent = replace(parent, place={**parent.place, **more})
        parents.append(parent)
    return replace(run, parents=tuple(parents))


def _row(
    plan: Plan, run: Run, parent: Parent, known: StoredRun | None, own: Mapping[str, str], token: str
) -> NeedRecord:
    """Return what a run's record says of one that it needs.

    Args:
        own: Run directories of those that are submitted with it, by name.

    Raises:
        PreflightError: It can't be needed as it stands.
    """
    row: NeedRecord = {"study": parent.study, "run": parent.run, "when": parent.when}
    if parent.input:
        row |= {"input": parent.input, "artifact": parent.artifact, "fingerprint": parent.fingerprint}
    if parent.study == plan.study.name and parent.run in own:
        return {**row, "run_dir": own[parent.run], "token": token}
    name = parent.run if parent.study == plan.study.name else f"{parent.study}/{parent.run}"
    if known is None:
        raise _refused(run, name, _("it was not submitted"), _submit(plan, parent))
    if parent.input and parent.fingerprint and known.fingerprint and parent.fingerprint != known.fingerprint:
        raise _refused(run, name, _("it was submitted with another configuration"), _submit(plan, parent))
    is_here = known.target == plan.target.name
    if known.state is State.UNKNOWN:
        raise _refused(run, name, _("it is {state}: {reason}", known.state, known.reason), _("look again: oelm-status"))
    if known.state is State.PLANNED:  # on its way: no claim or job of it need be there yet to wait for
        why = _("it is {state} on target {target}", known.state, known.target)
        raise _refused(run, name, why, _("look again: oelm-status"))
    if known.state in (State.FAILED, State.CANCELLED) and parent.when != ALWAYS:
        raise _refused(run, name, _("it is {state}: {reason}", known.state, known.reason), _submit(plan, parent))
    if not is_here and not known.state.is_final:
        why = _("it is {state} on target {target}", known.state, known.target)
        raise _refused(run, name, why, _("wait until it is over: what lies on another target is not waited for"))
    if is_here:
        row["run_dir"] = known.run_dir
        if not known.state.is_final:  # what is over is not waited for
            row["token"] = known.token
    return row


def _submit(plan: Plan, parent: Parent) -> str:
    if parent.study != plan.study.name and parent.run.endswith(f"-{CONFIRM}"):
        return _("it confirms what was chosen by tuning: oelm-submit --study {study} --confirm", parent.study)
    return _(
        "submit it again or first: oelm-submit --study {study} --target {target} --group {group}",
        parent.study, plan.target.name, parent.group,
    )  # fmt: skip


def _refused(run: Run, name: str, why: str, hint: str) -> PreflightError:
    return PreflightError(_("{run} needs {other}: {why}; nothing was queued", run.name, name, why), hint=hint)


# What is taken --------------------------------------------------------------------------------------------------------


def _had(
    plan: Plan, connection: Connection, wanted: Sequence[tuple[StoredRun, list[str]]], say: Callable[[str], None]
) -> dict[tuple[Key, str], NeedRecord]:
    """See that what is taken of runs that are done is there, and bring it here where it lies on another target; return
    what the record says of that, by run and artifact. Each target is asked once.

    Raises:
        PreflightError: Something isn't there any more.
    """
    brought: dict[tuple[Key, str], NeedRecord] = {}
    for target in dict.fromkeys(run.target for run, _artifacts in wanted):
        theirs = {run.run_dir: (run, artifacts) for run, artifacts in wanted if run.target == target}
        is_here = target == plan.target.name
        there = connection if is_here else connect(load_target(plan.project, target), plan.project)
        request: messages.InventoryRequest = {
            "runs": [{"run_dir": run_dir, "have": {}} for run_dir in theirs], "checkpoints": Checkpoints.NONE.value
        }  # fmt: skip
        rows = there.call(registry.INVENTORY, request, timeout_s=3600)["runs"]
        found: dict[tuple[Key, str], dict[str, str]] = {}
        for run_dir, (run, artifacts) in theirs.items():
            for artifact in artifacts:
                files = found[(run.study, run.name), artifact] = _files(rows[run_dir], artifact)
                if not files:
                    name = f"{run.study}/{run.name}:{artifact}"
                    raise PreflightError(
                        _("{source} is not there any more on target {target}; nothing was queued", name, target),
                        hint=_("train that run again: oelm-submit --study {study} --rerun", run.study),
                    )
        if not is_here:
            brought |= _brought(plan, connection, list(theirs.values()), found, say)
    return brought


def _files(row: messages.Held, artifact: str) -> dict[str, str]:
    """Return the files of an artifact, with their hashes, as a target lists them."""
    listed = {each["name"]: each["sha256"] for each in (*row["files"], *row["left"])}
    record: RunRecord | None = None
    for each in row["files"]:
        if each["name"] == f"{rundir.CONTROL}/{rundir.RUN}" and "content" in each:
            record = RunRecord.of(json.loads(base64.b64decode(each["content"])))
    names = saved.Saved.of(record)
    if artifact == BEST:
        chosen = [name for name in listed if names.is_best(name)]
    elif artifact == LATEST:
        chosen = names.latest(listed)
    else:
        chosen = [name for name in listed if saved.matching(artifact, name)]
    return {name: listed[name] for name in chosen}


def _brought(
    plan: Plan,
    connection: Connection,
    wanted: Sequence[tuple[StoredRun, list[str]]],
    found: Mapping[tuple[Key, str], Mapping[str, str]],
    say: Callable[[str], None],
) -> dict[tuple[Key, str], NeedRecord]:
    """Bring what is taken of runs from their target by way of this machine; return where it is.

    Args:
        found: Hashes of the files, as that target lists them.

    Raises:
        PreflightError: It is several files, of which nobody can tell the one that is meant, or it did not arrive.
    """
    progress = fetch.Untold(say)
    each = [(run, artifact) for run, artifacts in wanted for artifact in artifacts]
    for run, artifact in each:
        name = f"{run.study}/{run.name}:{artifact}"
        say(_("{source}: bringing it from {other} to {target}", name, run.target, plan.target.name))
    damaged: set[Key] = set()
    for which in dict.fromkeys(WHICH.get(artifact, Checkpoints.ALL) for _run, artifact in each):
        runs = list({run.run_dir: run for run, one in each if WHICH.get(one, Checkpoints.ALL) is which}.values())
        done = fetch.fetch(plan.project, runs, progress, checkpoints=which)
        damaged |= {(one.run.study, one.run.name) for one in done if one.damaged}
    rows: dict[tuple[Key, str], NeedRecord] = {}
    for run, artifact in each:
        key = run.study, run.name
        rows[key, artifact] = _placed(plan, connection, run, artifact, found[key, artifact], progress, key in damaged)
    return rows


def _placed(
    plan: Plan,
    connection: Connection,
    run: StoredRun,
    artifact: str,
    found: Mapping[str, str],
    progress: fetch.Progress,
    is_damaged: bool,
) -> NeedRecord:
    """Send what was fetched of a run to the plan's target, unless that is this machine; return where it is.

    Raises:
        PreflightError: As ``_brought`` says.
    """
    name = f"{run.study}/{run.name}:{artifact}"
    home = home_of(plan.project, run)
    tops = sorted({_top(home, file, found) for file in found})
    if len(tops) != 1:
        why = _("it is several files: {files}", tops)
        raise PreflightError(
            _("{source}: {why}; nothing was queued", name, why), hint=_("name one of them: GROUP:PATH")
        )
    here = home / tops[0]
    if is_damaged or not here.exists():
        raise PreflightError(_("{source} could not be fetched from {target}; nothing was queued", name, run.target))
    sha256, _size = inputs.content_of(here)
    if not connection.target.host:
        return {"path": str(here), "sha256": sha256}
    place = f"{plan.root}/{rundir.CONTROL}/{rundir.COPIES}/{run.study}/{run.name}/{sha256[:16]}"
    # A run that was left without a manifest has its hashes nowhere but in its files.
    files = {file: digest or result.sha256(home / file) for file, digest in found.items()}
    send.send_files(connect_for_transfer(plan.place or plan.target, plan.project), home, place, files, progress)
    return {"path": f"{place}/{tops[0]}", "sha256": sha256}


def _top(home: Path, file: str, found: Mapping[str, str]) -> str:
    """Return the file or folder that an artifact's file belongs to: their common folder where there are several."""
    if len(found) == 1:
        return file
    parts = [name.split("/") for name in found]
    common = []
    for each in zip(*parts, strict=False):
        if len(set(each)) > 1:
            break
        common.append(each[0])
    return "/".join(common) if common and (home / "/".join(common)).is_dir() else file
