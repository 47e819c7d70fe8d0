"""Resolve a study into runs: names and folders, division of the global batch, data paths, fingerprints, commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import names
from ..agent import rundir
from ..agent.sentences import _
from ..errors import ConfigurationError, UsageError, valid_choices
from ..folders import expanded
from ..spec.study import Run, Study
from ..spec.target import Target
from ..train import config as trainer
from .files import said

ALWAYS_TOLD = ("model_type", "freeze_qk", "d_model", "num_layers", "num_heads", "d_ff", "seq_len", "batch_size",
               "max_steps", "seed", "data_path", "out_dir")  # fmt: skip
"""What a command states even where it is the trainer's default: what a reader looks for first."""
LEFT_OUT = {key: field.default for key, field in trainer.FIELDS.items() if key not in ALWAYS_TOLD}
"""What a command does not state: the trainer's other defaults."""
SORTED = json.JSONEncoder(sort_keys=True)
"""Writes what fingerprints are made of."""
FIRST_PORT = 29500
"""torchrun's own default; preferred where a study names no port."""


def run_directory(folder: Path, run_name: str) -> Path:
    """Return where a run lies in its study's folder (docs/run-directory.md)."""
    return folder / (rundir.TRAIN_PREFIX + run_name)


def checkpoint_folder(root: Path, study: Study, checkpoint_root: str = "") -> Path:
    """Return the folder of a study's run directories below a project's or a target's root.

    Args:
        checkpoint_root: Takes the place of ``<root>/models/checkpoints`` where a target names another folder.
    """
    folder = Path(checkpoint_root) if checkpoint_root else root / "models" / "checkpoints"
    return folder if study.is_default else folder / study.name


def run_name(study: Study, group: str, seed: int, tag: str = "") -> str:
    """Return a run's name; runs of the first seed have the bare name of their group."""
    return names.run_name(group, None if seed == study.seeds[0] else seed, tag)


def with_settings(study: Study, overrides: Mapping[str, object]) -> Study:
    """Return the study as ``--set`` changes it.

    Raises:
        UsageError: A key doesn't exist or a value is off.
    """
    global_batch, train = _override(study, overrides)
    return replace(study, global_batch=global_batch, train=train)


def plan_runs(
    study: Study,
    target: Target,
    root: str,
    *,
    groups: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tag: str = "",
    overrides: Mapping[str, object] | None = None,
    data_hash: str = "",
) -> list[Run]:
    """Return the runs of a study on a target, in the order of groups within seeds.

    Args:
        root: Absolute path on the target.
        groups: All where empty.
        seeds: The study's where empty.
        overrides: Train keys (or ``global_batch``) set for these runs alone, as text; a tag is then needed.
        data_hash: Hash of the token files; without it the runs have no fingerprint.

    Raises:
        UsageError: A group doesn't exist, a seed is out of range, a tag is off, or overrides lack one.
        ConfigurationError: An override is off.
    """
    for name in groups:
        if name not in study.groups:
            raise UsageError(
                _(
                    "study {study} has no group {group!r}; {choices}",
                    study.name,
                    name,
                    valid_choices(name, study.groups),
                )
            )
    if any(not 0 <= seed <= names.MAX_SEED for seed in seeds):
        raise UsageError(_("--seeds {seeds}: seeds go from 0 to 2^63 - 1", ",".join(map(str, seeds))))
    if tag and (reason := names.why_not(tag)):
        raise UsageError(_("--{option} {value!r}: {why}", "tag", tag, reason))
    if overrides and not tag:
        raise UsageError(
            _("--set changes the configuration, so these are other runs than the study's own"),
            hint=_("give them a name of their own: --tag NAME"),
        )
    global_batch, train = _override(study, overrides or {})
    folder = checkpoint_folder(Path(root), study, target.checkpoint_root)
    runs = []
    for key in ("data_path", "val_data_path"):
        if train.get(key):
            train[key] = target_path(target, root, str(train[key]))
    for seed in seeds or study.seeds:
        for group in study.groups.values():
            if groups and group.name not in groups:
                continue
            name = run_name(study, group.name, seed, tag)
            run_dir = str(run_directory(folder, name))
            pinned = seed == study.seeds[0] and target.slurm is None  # Slurm grants GPUs by number
            gpus = target.gpus_per_run or (group.gpus if pinned else group.world_size)
            world_size = gpus if isinstance(gpus, int) else len(gpus)
            values = {**train, **group.values, "seed": seed, "out_dir": run_dir, "resume": "auto"}
            accumulation = int(values["gradient_accumulation_steps"])
            values["batch_size"] = _batch_size(global_batch, world_size, accumulation, name)
            runs.append(
                Run(
                    name=name,
                    study=study.name,
                    group=group.name,
                    label=group.label,
                    seed=seed,
                    tag=tag,
                    target=target.name,
                    run_dir=run_dir,
                    gpus=gpus,
                    port=group.port,
                    global_batch=global_batch,
                    factors=dict(group.factors),
                    train=values,
                    max_retries=study.max_retries,
                    fingerprint=fingerprint(values, global_batch, data_hash) if data_hash else "",
                )
            )
    trial = _speed_trial(study, runs)
    return [trial, *runs] if trial is not None else runs


def _speed_trial(study: Study, runs: Sequence[Run]) -> Run | None:
    """Return the run that times the arms of the speed hypothesis on the devices of the first of them.

    None where the study has no trial, or where not both arms are among the runs of the first seed.
    """
    if study.speed_trial is None:
        return None
    claim = next(hypothesis for hypothesis in study.hypotheses if hypothesis.metric == "speed")
    first = {run.group: run for run in runs if run.seed == study.seeds[0]}
    if claim.group not in first or claim.against not in first:
        return None
    like = first[claim.group]
    name = run_name(study, names.SPEED_TRIAL, like.seed, like.tag)
    names_of_arms = (claim.group, claim.against)
    own = [key for group in names_of_arms for key in study.groups[group].declared]
    train = {key: value for key, value in like.train.items() if key not in (*study.factors, *own)}
    train["out_dir"] = like.run_dir[: -len(like.name)] + name
    arms = {group: {**first[group].factors, **{key: first[group].train[key] for key in own}} for group in names_of_arms}
    content = SORTED.encode([like.fingerprint, arms, like.world_size])
    return replace(
        like,
        name=name,
        group=names.SPEED_TRIAL,
        label="Speed trial",
        run_dir=train["out_dir"],
        factors={},
        train=train,
        arms=arms,
        trial=study.speed_trial,
        fingerprint=hashlib.sha256(content.encode()).hexdigest() if like.fingerprint else "",
    )


def _override(study: Study, overrides: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    global_batch, train = study.global_batch, dict(study.train)
    for key, value in overrides.items():
        if key == "global_batch":
            if not str(value).isdigit() or int(value) < 1:
                raise UsageError(_("--set global_batch={value}: must be a whole number above zero", value))
            global_batch = int(value)
            continue
        if key not in train:
            reason = (
                _("is a factor, which groups set")
                if key in study.factors
                else valid_choices(key, [*train, "global_batch"])
            )
            raise UsageError(_("--set {key}={value}: {why}", key, value, reason))
        setting = [group.name for group in study.groups.values() if key in group.declared]
        if setting:
            raise UsageError(_("--set {key}={value}: groups set it themselves ({names})", key, value, setting))
        try:
            train[key] = getattr(trainer.from_dict({key: value}), key)
            trainer.validate(trainer.from_dict({**train, "seed": 0}))
            if key in trainer.keys_of_kind("path") and (reason := names.why_not_path(str(train[key]))):
                raise UsageError(_("--set {key}={value}: {why}", key, value, reason))
        except trainer.ConfigError as error:
            why = said(error)
            if error.key != key:
                why = _("{key} = {value} {why}", error.key, str(error.value), why)
            raise UsageError(_("--set {key}={value}: {why}", key, value, why)) from None
    return global_batch, train


def _batch_size(global_batch: int, world_size: int, accumulation: int, run: str) -> int:
    if global_batch % (world_size * accumulation):
        raise ConfigurationError(
            _(
                "{run}: global_batch = {global_batch} can't be divided over {world_size} processes x"
                " gradient_accumulation_steps = {accumulation}",
                run,
                global_batch,
                world_size,
                accumulation,
            )
        )
    return global_batch // (world_size * accumulation)


def target_path(target: Target, root: str, path: str) -> str:
    """Return a data path of the study as the target sees it: a mapped folder replaced, else below the root; ``~`` is
    the home folder there.
    """
    for folder in sorted(target.data, key=len, reverse=True):
        if path == folder or path.startswith(folder.rstrip("/") + "/"):
            return target.data[folder].rstrip("/") + path[len(folder.rstrip("/")) :]
    if path == "~" or path.startswith("~/"):
        return (target.home or "~") + path[1:] if target.host else str(expanded(path))
    return path if path.startswith("/") else f"{root}/{path}"


def token_files(target: Target, study: Study) -> tuple[str, str]:
    """Return the study's training and validation file as ``target`` (its paths absolute) sees them."""
    train = target_path(target, target.root, str(study.train["data_path"]))
    named = study.train.get("val_data_path")
    return train, target_path(target, target.root, str(named)) if named else str(Path(train).with_name("val.bin"))


def scientific(train: Mapping[str, object], global_batch: int) -> dict[str, object]:
    """Return the keys of a resolved configuration that make a run scientifically itself, seed included."""
    keys = {key: train[key] for key in trainer.keys_of_kind("scientific") if key in train}
    return {**keys, "global_batch": global_batch}


def fingerprint(train: Mapping[str, object], global_batch: int, data_hash: str) -> str:
    """Return the hash of what makes a run scientifically itself: not paths, GPUs, ports, target or code."""
    content = SORTED.encode({**scientific(train, global_batch), "data": data_hash})
    return hashlib.sha256(content.encode()).hexdigest()


def command(run: Run, python: str) -> list[str]:
    """Return the run's command: torchrun with one process per device, then the trainer with what isn't its default."""
    launcher = [python, "-m", "torch.distributed.run", "--nproc_per_node", str(run.world_size)]
    launcher += ["--master_port", str(run.port or FIRST_PORT)]
    told = {key: value for key, value in run.train.items() if value is not None and value != LEFT_OUT.get(key)}
    if run.trial is not None:
        arms = ["--rounds", str(run.trial.rounds), "--seconds", f"{run.trial.seconds:g}"]
        for name, factors in run.arms.items():
            settings = [word.lstrip("-") for word in trainer.to_flags(factors)]
            pairs = [f"{key}={value}" for key, value in zip(settings[::2], settings[1::2], strict=True)]
            arms += ["--arm", f"{name}:{','.join(pairs)}"]
        return [*launcher, "-m", "train.speed_trial", *arms, *trainer.to_flags(told)]
    return [*launcher, "-m", "train", *trainer.to_flags(told)]
