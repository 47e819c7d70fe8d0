"""Resolve a study into runs: names and folders, settings, data paths, fingerprints."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import attrgetter
from pathlib import Path
from typing import Any

from .. import names
from ..agent import rundir
from ..agent.sentences import _
from ..errors import ConfigurationError, UsageError, valid_choices
from ..folders import expanded
from ..programs import built_in, description
from ..spec.lineage import Parent
from ..spec.study import Group, Run, Study
from ..spec.sweep import Sweep
from ..spec.target import Target
from . import blocks as of_blocks
from . import lineage, sweep
from .blocks import DataHash

Overrides = Mapping[str, str | Sequence[str]]
"""Settings that are changed, as text, or lists of texts, which are swept."""


def run_directory(folder: Path, run_name: str) -> Path:
    """Return where a run lies in its study's folder (docs/run-directory.md)."""
    return folder / (rundir.TRAIN_PREFIX + run_name)


def run_name(study: Study, group: str, seed: int, tag: str = "") -> str:
    """Return a run's name; runs of the first seed have the bare name of their group."""
    return names.run_name(group, None if seed == study.seeds[0] else seed, tag)


def with_settings(study: Study, overrides: Mapping[str, str]) -> Study:
    """Return the study as ``--set`` changes it; what is set is judged together.

    Raises:
        UsageError: Keys don't exist or values are off; it says all of them.
    """
    _raise_all(why_not_set(study, overrides), overrides)
    return description.of(study).with_settings(study, overrides)


def _raise_all(wrong: Mapping[str, str], overrides: Mapping[str, str]) -> None:
    if wrong:
        said = [_("--set {key}={value}: {why}", key, overrides[key], why) for key, why in wrong.items()]
        raise UsageError(reduce(lambda a, b: _("{a}\n{b}", a, b), said))


def why_not_set(study: Study, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return why settings can't be changed together to these texts, by key."""
    about = description.of(study)
    settable = [*study.settings, *about.BESIDES]
    of_groups = [*study.factors, *(key for group in study.groups.values() for key in group.declared)]
    wrong: dict[str, str] = {}
    for key in overrides:
        setting = [group.name for group in study.groups.values() if key in group.declared]
        own = [block.name for block in study.blocks.values() if key in block.settings]
        if key in study.factors:
            wrong[key] = _("is a factor, which groups set")
        elif own:
            wrong[key] = _("blocks set it themselves ({names})", own)
        elif key not in settable:
            wrong[key] = valid_choices(key, [*settable, *of_groups])  # the nearest may be one that only groups set
        elif setting:
            wrong[key] = _("groups set it themselves ({names})", setting)
    sound = {key: value for key, value in overrides.items() if key not in wrong}
    return wrong | about.why_not_set(study, sound)


def asked(
    study: Study,
    *,
    groups: Sequence[str] = (),
    blocks: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tag: str = "",
    overrides: Overrides | None = None,
) -> Study:
    """Return the study as a command changes it, after a look at all that the command names: a wrong word is told before
    anybody looks for data or asks a target. Lists of values become its sweep, and of its blocks those that are named
    stay.

    Raises:
        UsageError: A group, a block or a key doesn't exist, a seed is out of range, a tag is off, or overrides lack one
            or don't suit a group.
    """
    for name in blocks:
        if name not in study.blocks:
            choices = valid_choices(name, study.blocks)
            raise UsageError(_("study {study} has no block {block!r}; {choices}", study.name, name, choices))
    for name in groups:
        if name not in study.groups:
            choices = valid_choices(name, study.groups)
            raise UsageError(_("study {study} has no group {group!r}; {choices}", study.name, name, choices))
    if any(not 0 <= seed <= names.MAX_SEED for seed in seeds):
        raise UsageError(_("--seeds {seeds}: seeds go from 0 to 2^63 - 1", ",".join(map(str, seeds))))
    for block in (study.blocks or ("",)) if tag else ():
        if reason := names.why_not(of_blocks.tag(block, tag)) or names.why_not(tag):
            raise UsageError(_("--{option} {value!r}: {why}", "tag", tag, reason))
    if study.is_tuning and (why := _why_not_tried(study, seeds, tag)):
        raise UsageError(why, hint=_("oelm-submit --confirm runs them once every trial is over"))
    if study.is_tuning:  # whatever is asked for, it is no run that decides
        study = replace(study, judge_on="")
    lists = {key: [*map(str, value)] for key, value in (overrides or {}).items() if isinstance(value, (list, tuple))}
    alone = {key: str(value) for key, value in (overrides or {}).items() if key not in lists}
    if lists:  # what is set besides belongs to the names of these runs as well
        named = [key for key in overrides or {} if key in lists or not _why_same(study, key)]
        lists = {key: lists[key] if key in lists else [alone.pop(key)] for key in named}
    changed = with_settings(study, alone)
    if blocks:
        changed = replace(changed, blocks={name: study.blocks[name] for name in study.blocks if name in blocks})
    if study.sweep and lists:
        key, said = next(iter(lists)), _("the study has a [sweep] of {keys}", [*study.sweep.parameters])
        raise UsageError(_("--set {key}={value}: {why}", key, ",".join(lists[key]), said))
    if study.sweep:
        fixed = {key: changed.settings.get(key, changed.global_batch) for key in alone if key in study.sweep.parameters}
        try:
            changed = replace(changed, sweep=sweep.without(study.sweep, fixed))
        except ValueError as error:
            key = next(iter(fixed))
            raise UsageError(_("--set {key}={value}: {why}", key, alone[key], str(error))) from None
    if lists:
        changed = replace(changed, sweep=_grid(changed, lists))
    if overrides and not tag and not lists:
        raise UsageError(
            _("--set changes the configuration, so these are other runs than the study's own"),
            hint=_("give them a name of their own: --tag NAME"),
        )
    within = of_blocks.each(changed).values() if overrides else ()
    for variant in (variant for block in within for _tag, variant in variants(block)):
        for group in study.groups.values():
            if (not groups or group.name in groups) and (why := description.of(study).why_not_together(variant, group)):
                raise UsageError(
                    _("--set does not suit group {group}: {why}", group.name, why),
                    hint=_("choose the groups that it suits: --group NAME"),
                )
    return changed


def _why_not_tried(study: Study, seeds: Sequence[int], tag: str) -> str:
    """Return why what is asked for is no trial of a study that tunes, but what confirms the choice."""
    if tag == names.CONFIRM:
        return _("--{option} {value!r}: {why}", "tag", tag, _("is what runs are called that confirm a choice"))
    if kept := [str(seed) for seed in seeds if seed in study.confirm_seeds]:
        return _("--seeds {seeds}: confirm_seeds, by which nothing may be chosen", ",".join(kept))
    return ""


def _grid(study: Study, lists: Mapping[str, Sequence[str]]) -> Sweep:
    """Return the sweep over lists of values that a command gives.

    Raises:
        UsageError: It has a value that can't be, or too many combinations.
    """
    count = math.prod(map(len, lists.values()))
    if not 0 < count <= sweep.MOST:
        key = max(lists, key=lambda key: len(lists[key])) if count else next(key for key in lists if not lists[key])
        why = _("the lists make {count} combinations; valid: {low} to {high}", count, 1, sweep.MOST)
        raise UsageError(_("--set {key}={value}: {why}", key, ",".join(lists[key][:3]), why))
    grid = sweep.of_lists(lists)
    for setting in sweep.settings(grid):
        _raise_all(why_not_swept(study, setting), sweep.as_texts(setting))
    return grid


def why_not_swept(study: Study, setting: sweep.Setting) -> dict[str, str]:
    """Return why no group of a study can have a combination of values, by key: where two can't stand together, by one
    of them.
    """
    wrong = {key: why for key in setting if (why := _why_same(study, key))}
    wrong = wrong or why_not_set(study, sweep.as_texts(setting))
    if len(wrong) < 2:
        return wrong
    alone = {key for key in wrong if key in why_not_set(study, sweep.as_texts({key: setting[key]}))}
    return {key: why for key, why in wrong.items() if key in (alone or {next(iter(wrong))})}


def _why_same(study: Study, key: str) -> str:
    """Return why runs don't differ in a setting; empty where they may."""
    if study.program is None and key in built_in.FIXED:
        return _("they name data, which all runs of a study share")
    execution: Collection[str] = built_in.EXECUTION if study.program is None else study.program.execution
    return _("it changes no result, so the runs would be the same one") if key in execution else ""


def variants(study: Study, tag: str = "") -> Iterator[tuple[str, Study]]:
    """Yield the study for each combination that is swept, with what its runs are tagged; else the study alone.

    The combinations are those that were judged before, where the study was read or the command was.
    """
    if study.sweep is None:
        yield tag, study
        return
    about = description.of(study)
    for setting in sweep.settings(study.sweep):
        changed = about.with_settings(study, sweep.as_texts(setting))
        typed = {key: changed.settings.get(key, changed.global_batch) for key in setting}
        yield sweep.name(typed, tag), changed


def plan_runs(
    study: Study,
    target: Target,
    *,
    groups: Sequence[str] = (),
    blocks: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tag: str = "",
    overrides: Overrides | None = None,
    data_hash: DataHash = "",
    others: Mapping[str, Study] | None = None,
    known_runs: Mapping[tuple[str, str], str] | None = None,
) -> list[Run]:
    """Return the runs of a study on a target, in the order of groups within seeds, and of these within combinations
    that are swept; blocks stand within seeds, so that they get on alike. Of runs of a group and seed that are the same,
    whatever they are called, the first one is returned.

    Args:
        target: With every path as it is there.
        groups: All where empty.
        seeds: The study's where empty.
        overrides: Train keys (or ``global_batch``) set for these runs alone, as text; a tag is then needed. Lists of
            texts are swept, and need none.
        blocks: All where empty.
        data_hash: Hash of the token files; without it the runs have no fingerprint.
        others: Studies whose runs these need, by name; what is needed of others is left out.
        known_runs: Fingerprints of runs that were submitted before, by study and run: those of other studies count.

    Raises:
        UsageError: As ``asked``.
        ConfigurationError: A run can't be as it is asked for.
    """
    study = asked(study, groups=groups, blocks=blocks, seeds=seeds, tag=tag, overrides=overrides)
    runs: list[Run] = []
    for block, within in of_blocks.each(study).items():
        digest = of_blocks.hash_in(data_hash, block)
        runs += _runs_within(within, target, block, groups, seeds, tag, digest, others or {}, known_runs or {})
    if study.blocks:
        order = [*(seeds or study.seeds)]
        runs.sort(key=lambda run: order.index(run.seed))
    if lineage.is_used(study):
        runs = lineage.in_order(runs, attrgetter("name"), lambda run: _needed(run, study.name))
    trial = _speed_trial(study, runs)
    return [trial, *runs] if trial is not None else runs


def _runs_within(
    study: Study,
    target: Target,
    block: str,
    groups: Sequence[str],
    seeds: Sequence[int],
    tag: str,
    data_hash: str,
    others: Mapping[str, Study],
    known_runs: Mapping[tuple[str, str], str],
) -> list[Run]:
    """Return the runs of a study, or of one of its blocks, as ``plan_runs``."""
    folder = Path(target.checkpoint_root or Path(target.root, "models", "checkpoints"))
    if not study.is_default:
        folder = folder / study.name
    runs = []
    known: dict[tuple[str, int, str], str] = {}
    called: set[str] = set()
    about = description.of(study)
    data_there = dict(zip(about.data(study), data_paths(target, study), strict=True))
    linked = tuple(pair for pair in data_there.items() if not pair[0].startswith("/")) if study.program else ()
    has_parents = lineage.is_used(study)
    made: dict[tuple[str, int], Run] = {}  # a variant's runs by group and seed: others of it may take from them

    def make(own_tag: str, variant: Study, seed: int, group: Group) -> Run:
        if run := made.get((group.name, seed)):
            return run
        name = run_name(study, group.name, seed, own_tag)
        run_dir = str(run_directory(folder, name))
        pinned = seed == study.seeds[0] and target.slurm is None  # Slurm grants GPUs by number
        gpus = (group.gpus and target.gpus_per_run) or (group.gpus if pinned else group.world_size)
        settings: dict[str, Any] = {}  # they follow from the rest, and so does the fingerprint from them
        run = Run(
            name=name,
            study=study.name,
            group=group.name,
            label=group.label,
            seed=seed,
            tag=own_tag,
            block=block,
            target=target.name,
            run_dir=run_dir,
            gpus=gpus,
            port=group.port,
            global_batch=variant.global_batch,
            factors=dict(group.factors),
            settings=settings,
            max_retries=study.max_retries,
            fingerprint="",
            program=study.program,
            data=linked,
            cpus=group.cpus,
            parents=parents_of(own_tag, variant, seed, group) if has_parents else (),
        )
        if why := about.why_not_run(variant, run):
            raise ConfigurationError(_("{run}: {why}", name, why))
        settings.update(about.settings_of(variant, run, data_there))
        taken = [parent for parent in run.parents if parent.input]
        is_unknown = has_parents and len(taken) < len(lineage.inputs(variant, group))  # one is of a study not given
        is_unknown |= not all(parent.fingerprint for parent in taken)
        if data_hash and not is_unknown:  # nobody has seen the run yet, and to copy it takes longer than all else here
            object.__setattr__(run, "fingerprint", about.fingerprint(run, data_hash))
        made[group.name, seed] = run
        return run

    def parents_of(own_tag: str, variant: Study, seed: int, group: Group) -> tuple[Parent, ...]:
        def fingerprint(of: str, needed: str, its: int, name: str) -> str:
            if of != study.name:
                return known_runs.get((of, name), "")
            return make(own_tag, variant, its, study.groups[needed]).fingerprint if data_hash else ""

        def name_of(other: Study, needed: str, its: int) -> str:
            if other.name == study.name:
                return run_name(other, needed, its, own_tag)
            there = names.CONFIRM if other.is_tuning else of_blocks.tag(block if block in other.blocks else "")
            return run_name(other, needed, its, there)

        return lineage.parents(variant, group, seed, others, name_of, fingerprint, known_runs)

    alias: dict[str, str] = {}
    for own_tag, variant in variants(study, of_blocks.tag(block, tag)):
        made.clear()
        for seed in seeds or study.seeds:
            for group in study.groups.values():
                if groups and group.name not in groups:
                    continue
                run = make(own_tag, variant, seed, group)
                if study.sweep is not None:
                    same = (group.name, seed, run.fingerprint or about.fingerprint(run, "unknown"))
                    if same in known:
                        alias[run.name] = known[same]
                        continue
                    known[same] = run.name
                    if run.name in called:
                        why = _("two combinations have that name: sweep one of them in a study of its own")
                        raise ConfigurationError(_("{run}: {why}", run.name, why))
                    called.add(run.name)
                runs.append(run)
    return [_with_names(run, alias) for run in runs] if alias and has_parents else runs


def _needed(run: Run, study: str) -> list[str]:
    """Return the names of the runs of a study that one needs."""
    return [parent.run for parent in run.parents if parent.study == study]


def _with_names(run: Run, alias: Mapping[str, str]) -> Run:
    """Return a run whose parents have the names of those that are the same and are run."""
    named = [
        replace(each, run=alias.get(each.run, each.run)) if each.study == run.study else each for each in run.parents
    ]
    return replace(run, parents=tuple(named))


def _speed_trial(study: Study, runs: Sequence[Run]) -> Run | None:
    """Return the run that times the arms of the speed hypothesis on the devices of the first of them.

    None where the study has no trial or something is swept, or where not both arms are among the runs of the first
    seed.
    """
    if study.speed_trial is None or study.sweep is not None:
        return None
    claim = next(hypothesis for hypothesis in study.hypotheses if hypothesis.metric == "speed")
    first = {run.group: run for run in runs if run.seed == study.seeds[0]}
    if claim.group not in first or claim.against not in first:
        return None
    like = first[claim.group]
    name = run_name(study, names.SPEED_TRIAL, like.seed, like.tag)
    names_of_arms = (claim.group, claim.against)
    own = [key for group in names_of_arms for key in study.groups[group].declared]
    run_dir = like.run_dir[: -len(like.name)] + name
    shared = {
        key: value for key, value in like.settings.items() if key not in (*study.factors, *own, built_in.INIT_FROM)
    }
    arms = {
        group: {**first[group].factors, **{key: built_in.in_full(first[group].settings)[key] for key in own}}
        for group in names_of_arms
    }
    return replace(
        like,
        name=name,
        group=names.SPEED_TRIAL,
        label="Speed trial",
        run_dir=run_dir,
        factors={},
        settings={**shared, **built_in.placed(run_dir)},
        arms=arms,
        trial=study.speed_trial,
        parents=(),
        fingerprint=built_in.trial_fingerprint(like, arms) if like.fingerprint else "",
    )


def target_path(target: Target, path: str) -> str:
    """Return a data path of the study as the target sees it: a mapped folder replaced, else below the root; ``~`` is
    the home folder there.
    """
    for folder in sorted(target.data, key=len, reverse=True):
        if path == folder or path.startswith(folder.rstrip("/") + "/"):
            return target.data[folder].rstrip("/") + path[len(folder.rstrip("/")) :]
    if path == "~" or path.startswith("~/"):
        return (target.home or "~") + path[1:] if target.host else str(expanded(path))
    return path if path.startswith("/") else f"{target.root.rstrip('/')}/{path}"


def data_paths(target: Target, study: Study) -> list[str]:
    """Return the files and folders that the study's program reads, as the target sees them: a script finds an absolute
    path where it is, whatever the target says.
    """
    return [
        path if study.program is not None and path.startswith("/") else target_path(target, path)
        for path in description.of(study).data(study).values()
    ]


def token_files(target: Target, study: Study) -> tuple[str, ...]:
    """Return the study's training and validation file as ``target`` (its paths absolute) sees them, and the test file
    where it is judged on one; none of a script, whose data are its own affair.
    """
    if study.program is not None:
        return ()
    paths = dict(zip(built_in.data(study), data_paths(target, study), strict=True))
    train = paths.pop(built_in.TRAINING_DATA)
    test = [paths.pop(key) for key in (built_in.TEST_DATA,) if key in paths]
    return train, next(iter(paths.values()), str(Path(train).with_name("val.bin"))), *test
