"""Describe the built-in trainer: its keys and their kinds, what groups may set, its command, what it needs.

Nothing else in the toolkit imports the trainer's configuration or names its flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from .. import names, tomlfile
from ..agent.sentences import _, decoded
from ..errors import nearest
from ..spec import lineage
from ..spec.study import Group, Run, Study
from ..train import compiling, estimate
from ..train import config as trainer
from ..train.limits import validate
from ..train.sentences import encoded
from . import length
from .settable import BESIDES as BESIDES
from .settable import DERIVED as DERIVED

TRAINING_DATA = "data_path"
VOCABULARY = "vocab_size"
DATA = (TRAINING_DATA, "val_data_path")
"""Keys that name token files."""
TEST_DATA = "test_data_path"
"""The key that names the file which runs are judged on, and nothing is chosen by; it follows from ``judge_on``."""
FIXED = (*DATA, VOCABULARY)
"""Keys that are the same for all groups of a study, whatever is declared: all see the same tokens."""
KEYS = tuple(trainer.FIELDS)
"""All keys of the trainer."""
DEFAULTS = {key: field.default for key, field in trainer.FIELDS.items()}
"""What they are where nothing is said."""
FACTORS = tuple(key for key in trainer.keys_of_kind("scientific") if key not in DERIVED)
"""Keys that groups may differ in."""
SCIENTIFIC = trainer.keys_of_kind("scientific")
"""Keys that decide the result."""
EXECUTION = frozenset(trainer.FIELDS) - frozenset(SCIENTIFIC)
"""Keys that leave the sequence of updates as it is: micro-batch times world size times accumulation is the global
batch, which is scientific.
"""
MEASURED = ("val_interval", "val_batches")
"""Keys of those that decide the result which say how often, and on how much, a run is validated."""
OF_THE_STEP = frozenset({"batch_size", "compile", "deterministic", "gradient_accumulation_steps", "num_workers"})
"""Keys that say how a step is cut, which its speed depends on."""
(_BATCH,) = BESIDES
REPLICATION = frozenset({"seed", *DATA, TEST_DATA})
"""Keys that no comparison looks at: the seed is the replication, and of data the hash counts, not the path."""

WHY_DERIVED = _("is derived by the toolkit (from global_batch, seeds and judge_on)")
"""Why a study can't set the keys in DERIVED."""
OTHERWISE = _("other data")
"""What may differ where no key does."""
ALWAYS_TOLD = ("model_type", "freeze_qk", "d_model", "num_layers", "num_heads", "d_ff", "seq_len", "batch_size",
               "max_steps", "seed", "data_path", "out_dir")  # fmt: skip
"""What a command states even where it is the trainer's default: what a reader looks for first."""
LEFT_OUT = {key: field.default for key, field in trainer.FIELDS.items() if key not in ALWAYS_TOLD}
"""What a command does not state: the trainer's other defaults."""
recorded, in_full = trainer.recorded, trainer.in_full
"""Settings without younger keys at their default, as they are recorded, and back again."""
INIT_FROM = "init_from"
"""The key that names a run whose weights others begin with."""
FIRST_PORT = 29500
"""torchrun's own default; preferred where a study names no port."""


# Reading a study file -------------------------------------------------------------------------------------------------


def read_value(section: tomlfile.Section, key: str) -> Any:
    """Take a key from a table of a study file and convert it to the trainer's type.

    Raises:
        ConfigurationError: The value is none for that key.
    """
    value = section.take_any(key)
    wanted = trainer.FIELDS[key].metadata["type"]
    is_other = isinstance(value, str) is not (wanted is str) or (wanted is int and isinstance(value, float))
    if is_other and not (wanted is str and isinstance(value, bool)):  # compile = true is the trainer's to read
        raise section.error(key, _("must be {what}", tomlfile.KINDS[wanted]), value=value)
    try:
        return _typed(key, value)
    except trainer.ConfigError as error:
        raise section.error(key, said(error), value=value) from None


def read_settings(section: tomlfile.Section, factors: Sequence[str]) -> dict[str, object]:
    """Take what groups have in common from ``[train]``, defaults filled in, without factors and derived keys."""
    settable = [key for key in KEYS if key not in DERIVED and key not in factors]
    settings = {key: trainer.FIELDS[key].default for key in settable}
    for key in section.keys_left():
        if key in DERIVED:
            section.wrong(key, WHY_DERIVED)
            section.take_any(key)
        elif key in factors:
            section.wrong(key, _("is a factor: set it in the groups"))
            section.take_any(key)
        elif key in settable:
            with section.noting():
                settings[key] = value = read_value(section, key)
                if key in trainer.keys_of_kind("path") and (reason := names.why_not_path(str(value))):
                    section.wrong(key, reason, value=value)
    meant = {nearest(key, KEYS) for key in section.keys_left()} - {""}  # one that groups set, say
    section.finish([*settable, *meant])
    return settings


class Fault(NamedTuple):
    """A key that doesn't go with the others."""

    key: str
    why: str
    value: object


def fault_of(global_batch: int, shared: Mapping[str, object], group: Group) -> Fault | None:
    """Return what of a group's settings doesn't go with the others; None where all do."""
    settings = {**shared, **group.values}
    if why := _why_not_divided(global_batch, group.world_size, settings):
        return Fault("gpus", why, list(group.gpus) if isinstance(group.gpus, tuple) else group.gpus)
    size = _per_process(global_batch, group.world_size, settings)
    try:
        validate(trainer.from_dict({**settings, "seed": 0, "batch_size": size}))
    except trainer.ConfigError as error:
        return Fault(error.key, said(error), error.value)
    return None


def why_not_run(study: Study, run: Run) -> str:
    """Return why a run can't have so many devices; empty where it can."""
    return _why_not_divided(study.global_batch, run.world_size, {**study.settings, **study.groups[run.group].values})


def _why_not_divided(global_batch: int, world_size: int, settings: Mapping[str, Any]) -> str:
    """Return why a batch can't be divided over processes and micro-steps; empty where it can."""
    accumulation = int(settings["gradient_accumulation_steps"])
    if global_batch % (world_size * accumulation) == 0:
        return ""
    return _(
        "global_batch = {global_batch} can't be divided over {world_size} processes x"
        " gradient_accumulation_steps = {accumulation}; valid products: {products}",
        global_batch,
        world_size,
        accumulation,
        [n for n in range(1, min(global_batch, 1024) + 1) if global_batch % n == 0],
    )


def _per_process(global_batch: int, world_size: int, settings: Mapping[str, Any]) -> int:
    return global_batch // (world_size * int(settings["gradient_accumulation_steps"]))


def said(error: trainer.ConfigError) -> str:
    """Return what the trainer has against a value, as a sentence of the toolkit."""
    known = encoded(error.message)
    return decoded(error.message, known.get("code"), known.get("values"), {})


def _typed(key: str, value: object) -> Any:
    return getattr(trainer.from_dict({key: value}), key)


# Settings of runs -----------------------------------------------------------------------------------------------------


def with_settings(study: Study, texts: Mapping[str, str]) -> Study:
    """Return a study with settings changed, as ``why_not_set`` allows it."""
    own = {key: _typed(key, value) for key, value in texts.items() if key != _BATCH}
    batch = int(texts.get(_BATCH, study.global_batch))
    return replace(study, global_batch=batch, settings={**study.settings, **own})


def why_not_set(study: Study, texts: Mapping[str, str]) -> dict[str, str]:
    """Return why settings can't all be such texts, whatever the group, by the settings that are to blame."""
    found: dict[str, str] = {}
    batch = str(texts.get(_BATCH, 1))
    if not (batch.isdecimal() and int(batch) >= 1):
        found[_BATCH] = _("must be a whole number above zero")
    for key, value in texts.items():
        if key in trainer.keys_of_kind("path") and (why := names.why_not_path(value)):
            found[key] = why
    left = {key: value for key, value in texts.items() if key != _BATCH and key not in found}
    while left and (error := _error_of_all(study, left)) is not None:
        key = error.key if error.key in left else next(reversed(left))
        why = said(error)
        found[key] = why if error.key == key else _("{key} = {value} {why}", error.key, str(error.value), why)
        del left[key]
    return found


def _error_of_all(study: Study, texts: Mapping[str, str]) -> trainer.ConfigError | None:
    """Return what the trainer has against settings in every group alike."""
    first, *others = study.groups.values()
    error = _error({**study.settings, **first.values, **texts})
    if error is None or any(str(_error({**study.settings, **group.values, **texts})) != str(error) for group in others):
        return None
    return error


def why_not_together(study: Study, group: Group) -> str:
    """Return why a group's settings don't go with those that are set of the study; empty where they do."""
    error = _error({**study.settings, **group.values})
    return "" if error is None else _("{key} = {value}: {why}", error.key, str(error.value), said(error))


def _error(settings: Mapping[str, object]) -> trainer.ConfigError | None:
    """Return what the trainer has against settings, whatever the seed."""
    try:
        validate(trainer.from_dict({**settings, "seed": 0}))
    except trainer.ConfigError as error:
        return error
    return None


def data(study: Study) -> dict[str, str]:
    """Return the token files that a study names, by key."""
    named = {key: str(path) for key in DATA if (path := study.settings.get(key))}
    if study.judge_on and not study.is_tuning:  # what is tuned knows nothing of what it is judged on
        named[TEST_DATA] = str(PurePosixPath(named[TRAINING_DATA]).with_name("test.bin"))
    return named


def settings_of(study: Study, run: Run, data_there: Mapping[str, str]) -> dict[str, Any]:
    """Return every key of a run as its trainer gets it and records it: without younger ones at their default.

    Args:
        data_there: The token files by key, as the target sees them.
    """
    own = {"seed": run.seed, **placed(run.run_dir), "resume": "auto"}
    settings = {**study.settings, **data_there, **study.groups[run.group].values, **own}
    settings["batch_size"] = _per_process(study.global_batch, run.world_size, settings)
    return recorded(settings)


def placed(run_dir: str) -> dict[str, str]:
    """Return the settings that follow from a run's directory."""
    return {"out_dir": run_dir}


def scientific(run: Run) -> dict[str, object]:
    """Return the keys that make a run scientifically itself, seed included."""
    settings = run.settings
    keys = {key: settings[key] for key in SCIENTIFIC if key in settings}
    keys["global_batch"] = run.global_batch
    return keys


def fingerprint(run: Run, data_hash: str) -> str:
    """Return the hash of what makes a run scientifically itself: not paths, GPUs, ports, target or code."""
    return trainer.hashed({**scientific(run), **lineage.taken(run.parents), "data": data_hash})


def trial_fingerprint(like: Run, arms: Mapping[str, Mapping[str, object]]) -> str:
    """Return the fingerprint of a speed trial: that of the run whose devices it takes, with its arms."""
    return trainer.hashed([like.fingerprint, arms, like.world_size])


def compared(run: Run) -> dict[str, object]:
    """Return the keys by which groups are compared before anything runs."""
    keys = {"world_size": run.world_size, "batch_size": run.settings["batch_size"]}
    return {**in_full(scientific(run)), **keys}


def of_the_place(run: Run) -> tuple[str, ...]:
    """Return the keys that may change where a run goes on: they follow from devices and folders."""
    return ("batch_size", "out_dir", *DATA, TEST_DATA)


def length_key(run: Run) -> str:
    """Return the key that says how long a run is."""
    return length.KEY


# Its command ----------------------------------------------------------------------------------------------------------


def command(run: Run, python: str) -> list[str]:
    """Return the run's command: the trainer with what isn't its default, of several processes by torchrun, one per
    device. One process needs none: it would cost a second interpreter with torch, and hide how the trainer ended.
    """
    launcher = [python]
    if run.world_size > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(run.world_size)]
        launcher += ["--master_port", str(run.port or FIRST_PORT)]
    told = {key: value for key, value in run.settings.items() if value != LEFT_OUT.get(key)}
    if run.trial is not None:
        arms = ["--rounds", str(run.trial.rounds), "--seconds", f"{run.trial.seconds:g}"]
        for name, factors in run.arms.items():
            settings = [word.lstrip("-") for word in trainer.to_flags(factors)]
            pairs = [f"{key}={value}" for key, value in zip(settings[::2], settings[1::2], strict=True)]
            arms += ["--arm", f"{name}:{','.join(pairs)}"]
        return [*launcher, "-m", "train.speed_trial", *arms, *trainer.to_flags(told)]
    return [*launcher, "-m", "train", *trainer.to_flags(told)]


def commands(run: Run, python: str) -> list[list[str]]:
    """Return the run's only command."""
    return [command(run, python)]


class Division(NamedTuple):
    """How a global batch is divided."""

    batch_size: int
    """Sequences per process and micro-step."""
    accumulation: int
    """Micro-steps per step."""

    def per_gpu(self, processes: str) -> str:
        """Return in words what each of these processes has of a step."""
        return _("{count} per GPU (--batch_size) x {processes}", self.batch_size, processes)


def division(run: Run) -> Division:
    """Return how a run divides its global batch over processes and micro-steps."""
    return Division(run.settings["batch_size"], run.settings["gradient_accumulation_steps"])


# What it needs --------------------------------------------------------------------------------------------------------


class TokenNeeds(NamedTuple):
    """What a study wants of its token files."""

    vocab_size: int
    seq_len: int
    fewest: int
    """Tokens that a file holds at least."""


def token_needs(study: Study) -> TokenNeeds:
    """Return what a study wants of its token files."""
    seq_len = int(study.settings["seq_len"])
    return TokenNeeds(int(study.settings["vocab_size"]), seq_len, trainer.fewest_tokens(seq_len))


def tokens(run: Run) -> int:
    """Return how many tokens a run trains on."""
    return int(run.settings[length.KEY]) * length.tokens_per_step(run.settings, run.global_batch)


def uses_wandb(study: Study) -> bool:
    """Tell whether a study's runs report to Weights & Biases."""
    return bool(study.settings.get("use_wandb"))


def wants_compile(run: Run, device: str) -> bool:
    """Tell whether a run would be compiled on a kind of device (cuda, cpu)."""
    return compiling.wants_compile(_config(run), device)


def must_compile(run: Run) -> bool:
    """Tell whether a run fails where it can't be compiled."""
    return _config(run).compile == "true"


def memory_bytes(run: Run) -> int:
    """Return about how much memory one process takes on a GPU."""
    return estimate.training_bytes(_config(run))


def checkpoint_bytes(run: Run) -> int:
    """Return the most that a run's checkpoints take on disk."""
    return estimate.checkpoint_disk_bytes(_config(run))


def how_to_fit(run: Run, available: float) -> str:
    """Say what would make a run fit into so many bytes of a GPU."""
    config = _config(run)
    smaller = estimate.fitting_batch_size(config, available)
    if smaller is None:
        return _("use a smaller model")
    accumulation = config.gradient_accumulation_steps * config.batch_size // smaller
    return _(
        "gradient_accumulation_steps = {number} in [train] makes batches of {size} that would fit",
        accumulation,
        smaller,
    )


def how_to_use_less_memory(study: Study) -> str:
    """Say what makes a study's runs take less of a GPU's memory."""
    return _("raise gradient_accumulation_steps in {path}", str(study.path))


def how_to_use_less_disk(study: Study) -> str:
    """Say what makes a study's checkpoints take less of a disk."""
    return _("lower keep_last or keep_every in [train] of {path}, or make room (oelm-clean)", str(study.path))


def _config(run: Run) -> trainer.TrainConfig:
    return trainer.from_dict({key: value for key, value in run.settings.items() if value is not None})
