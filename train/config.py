"""The trainer's configuration: every flag with its default and kind, and its form on a command line.

Standard library only and quick to import, because the toolkit reads it at submit time.

Kinds of keys:
    scientific  decide the result; equal keys, data and global batch mean the same run
    execution   decide how fast and how safely the result is reached
    path        say where files are
    logging     say who else is told
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from .sentences import _

KINDS = ("scientific", "execution", "path", "logging")
ALL_LAYERS = "all"


class ConfigError(ValueError):
    """A value that the trainer can't run with; names the key, the value and the valid choices."""

    def __init__(self, key: str, value: object, message: str) -> None:
        self.key = key
        self.value = value
        self.message = message
        super().__init__(f"{key} = {_spell(value)}: {message}" if key else message)


def _option(default: Any, kind: str, help: str, choices: Optional[Tuple[str, ...]] = None, type: Any = None) -> Any:
    """Return a dataclass field that carries what the parser, the checks and the toolkit need to know about a flag."""
    metadata = {"kind": kind, "help": help, "choices": choices, "type": type or default.__class__}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """One run's configuration; the defaults are the reference configuration. Each field's help is its documentation."""

    model_type: str = _option("gpt", "scientific", "gpt: Q/K drawn like all weights; oelm: by qk_init", ("gpt", "oelm"))
    freeze_qk: bool = _option(False, "scientific", "never train the query and key projections (oelm only)")
    freeze_q: bool = _option(False, "scientific", "never train the query projections alone (oelm only)")
    freeze_k: bool = _option(False, "scientific", "never train the key projections alone (oelm only)")
    freeze_ffn: bool = _option(False, "scientific", "never train the feed-forward layers")
    freeze_layers: str = _option(ALL_LAYERS, "scientific", "freeze in these layers alone, counted from 0, as in 0-2,5")
    freeze_from_step: int = _option(
        0, "scientific", "train for so many steps first what is then frozen; a speed trial times the steps after"
    )
    qk_init: str = _option(
        "orthogonal_head",
        "scientific",
        "how oelm draws Q/K: row-orthonormal per head or per matrix, N(0, 0.02^2), or N(0, 1/d_model)",
        ("orthogonal_head", "orthogonal", "normal", "normal_scaled"),
    )
    qk_norm: bool = _option(
        False, "scientific", "divide each head's queries and keys by their root mean square; nothing is learned in it"
    )
    position: str = _option(
        "learned",
        "scientific",
        "learned: a vector for each place; rope: queries and keys rotated (base 10,000), without parameters",
        ("learned", "rope"),
    )
    d_model: int = _option(512, "scientific", "width of the residual stream")
    num_layers: int = _option(6, "scientific", "transformer blocks")
    num_heads: int = _option(8, "scientific", "attention heads; must divide d_model")
    d_ff: int = _option(2048, "scientific", "hidden width of the feed-forward layers")
    seq_len: int = _option(512, "scientific", "tokens per sequence")
    vocab_size: int = _option(50257, "scientific", "number of token ids")
    dropout: float = _option(0.1, "scientific", "probability of dropping an activation in training")
    max_steps: int = _option(100_000, "scientific", "optimizer steps; the learning-rate schedule ends here")
    warmup_steps: int = _option(2_000, "scientific", "steps over which the learning rate rises to max_lr")
    max_lr: float = _option(3e-4, "scientific", "learning rate after the warm-up")
    min_lr: float = _option(3e-5, "scientific", "learning rate at the last step; at most max_lr")
    weight_decay: float = _option(0.1, "scientific", "decoupled weight decay of matrices and embeddings")
    grad_clip: float = _option(1.0, "scientific", "largest gradient norm; 0 turns clipping off")
    beta1: float = _option(0.9, "scientific", "AdamW's decay of the first moment")
    beta2: float = _option(0.95, "scientific", "AdamW's decay of the second moment")
    seed: int = _option(42, "scientific", "decides initial weights, data order and dropout")
    data_seed: Optional[int] = _option(None, "scientific", "decides the data order in place of seed", type=int)
    init_from: Optional[str] = _option(
        None,
        "scientific",
        "weights to begin with: a checkpoint's path; in a study a run whose weights they are, as in gpt_base:best",
        type=str,
    )
    val_interval: int = _option(1_000, "scientific", "steps between validations; the last step always validates")
    val_batches: int = _option(100, "scientific", "global batches per validation; the last one uses the whole file")
    use_amp: bool = _option(True, "scientific", "bf16 (or fp16 with scaling) on GPUs; CPUs compute in fp32 either way")

    batch_size: int = _option(8, "execution", "sequences per process and micro-step")
    gradient_accumulation_steps: int = _option(1, "execution", "micro-steps per optimizer step")
    num_workers: int = _option(2, "execution", "batches prepared ahead by a background thread on GPUs; 0: none")
    compile: str = _option(
        "auto", "execution", "torch.compile; auto: on GPUs that can, in long runs", ("auto", "true", "false")
    )
    deterministic: str = _option(
        "auto",
        "execution",
        "GPU kernels that repeat to the bit; auto: if there are some for every operation; true: or don't run; "
        "false: the fastest",
        ("auto", "true", "false"),
    )
    log_interval: int = _option(100, "execution", "steps between log lines")
    save_interval: int = _option(5_000, "execution", "steps between checkpoints; the last step always saves")
    keep_last: int = _option(2, "execution", "newest checkpoints to keep; 0 keeps all")
    keep_every: int = _option(25_000, "execution", "keep checkpoints at multiples of this many steps; 0: none")

    data_path: str = _option("data/tiny_stories/train.bin", "path", "training tokens, flat little-endian uint16")
    val_data_path: Optional[str] = _option(None, "path", "validation tokens (default: val.bin beside them)", type=str)
    test_data_path: Optional[str] = _option(
        None, "path", "tokens on which the last step's model is measured, once; none: it isn't", type=str
    )
    out_dir: Optional[str] = _option(None, "path", "run directory; without it nothing is kept", type=str)
    resume: str = _option(
        "auto", "path", "auto: newest good checkpoint in out_dir; none: start over; or a checkpoint's path"
    )

    use_wandb: bool = _option(False, "logging", "log to Weights & Biases (offline unless WANDB_MODE says otherwise)")
    wandb_project: str = _option("oelm", "logging", "project in Weights & Biases")
    wandb_run_name: Optional[str] = _option(None, "logging", "run name in Weights & Biases", type=str)
    use_tensorboard: bool = _option(False, "logging", "write TensorBoard files to out_dir/tensorboard")


FIELDS = {f.name: f for f in fields(TrainConfig)}

LATER = ("freeze_q", "freeze_k", "freeze_layers", "freeze_from_step", "qk_norm", "position", "data_seed", "init_from")
"""Keys that came after results were published. At its default such a key is neither recorded nor hashed, so that runs
from before it are still known as the same ones.
"""
UNRECORDED = (*LATER, "deterministic", "test_data_path")
"""Those, and keys of other kinds that came after them: they are not recorded at their default either."""

# The order in which a person reads a command: what it is, how big, how much at a time, how long, where.
# fmt: off
_READING_ORDER = (
    "model_type", "freeze_qk", "freeze_q", "freeze_k", "freeze_ffn", "freeze_layers", "freeze_from_step", "qk_init",
    "qk_norm", "position", "d_model", "num_layers", "num_heads", "d_ff", "seq_len", "vocab_size", "dropout",
    "batch_size", "gradient_accumulation_steps", "max_steps", "warmup_steps", "max_lr", "min_lr", "weight_decay",
    "grad_clip", "beta1", "beta2", "seed", "data_seed", "init_from", "val_interval", "val_batches", "log_interval",
    "save_interval", "keep_last", "keep_every", "use_amp", "compile", "deterministic", "num_workers", "data_path",
    "val_data_path", "test_data_path", "out_dir", "resume", "use_tensorboard", "use_wandb", "wandb_project",
    "wandb_run_name",
)
# fmt: on
assert sorted(_READING_ORDER) == sorted(FIELDS), "every flag has its place in the reading order"

_SORTED = json.JSONEncoder(sort_keys=True)
_ALSO_SWITCHES = ("compile", "deterministic")
"""Fields that are on, off, or left to the trainer."""
_LAYERS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@lru_cache(maxsize=None)
def keys_of_kind(kind: str) -> Tuple[str, ...]:
    """Return the names of the fields of one kind, in declaration order."""
    return tuple(name for name, f in FIELDS.items() if f.metadata["kind"] == kind)


def fewest_tokens(seq_len: int) -> int:
    """Return how many tokens a training or validation file must hold at least."""
    return seq_len + 2


def from_dict(values: Mapping[str, object]) -> TrainConfig:
    """Build a configuration from plain values.

    Raises:
        ConfigError: a key is unknown (the nearest spelling is named) or a value has the wrong type.
    """
    return TrainConfig(**{_known(key): typed(key, value) for key, value in values.items()})


def to_dict(config: TrainConfig) -> Dict[str, Any]:
    """Return the configuration as primitives, in declaration order, as it is recorded."""
    return recorded(asdict(config))


def recorded(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a configuration's values as they are recorded and hashed: without those in UNRECORDED at their default."""
    return {key: value for key, value in values.items() if key not in UNRECORDED or value != FIELDS[key].default}


def in_full(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a record's values with those in UNRECORDED that it lacks."""
    return {**{key: FIELDS[key].default for key in UNRECORDED}, **values}


def global_batch(config: TrainConfig, world_size: int) -> int:
    """Return the sequences per optimizer step over all processes."""
    return config.batch_size * world_size * config.gradient_accumulation_steps


def scientific_hash(config: TrainConfig, global_batch: int) -> str:
    """Return a hash of what makes the run scientifically itself, as far as the trainer's flags say it."""
    values = {name: getattr(config, name) for name in keys_of_kind("scientific")}
    return hashed({**recorded(values), "global_batch": global_batch})


def hashed(content: object) -> str:
    """Return the SHA-256 of a value's JSON, keys sorted."""
    return hashlib.sha256(_SORTED.encode(content).encode()).hexdigest()


def layer_ranges(text: str) -> List[Tuple[int, int]]:
    """Return the first and last layer of each range that a text like ``0-2,5`` names, in order and joined.

    Raises:
        ConfigError: The text is none like that.
    """
    matches = [_LAYERS.fullmatch(part.strip()) for part in text.split(",")]
    named = sorted((int(match.group(1)), int(match.group(2) or match.group(1))) for match in matches if match)
    if len(named) < len(matches) or any(first > last for first, last in named):
        raise ConfigError("freeze_layers", text, _("give layers counted from 0, as in 0-2,5, or all"))
    ranges = named[:1]
    for first, last in named[1:]:
        if first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return ranges


def from_flags(argv: Sequence[str]) -> TrainConfig:
    """Parse command-line flags; dashes and underscores are the same, ``--help`` prints and exits.

    Raises:
        ConfigError: an unknown flag (the nearest spelling is named), a missing or an unreadable value.
    """
    import argparse  # here, because the toolkit imports this module on its start-up path

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise ConfigError("", None, message)

    parser = Parser(prog="python -m train", description="Train a GPT or OELM.", allow_abbrev=False)
    for kind in KINDS:
        section = parser.add_argument_group(f"{kind} options")
        for name in keys_of_kind(kind):
            meta, default = FIELDS[name].metadata, FIELDS[name].default
            hint = "|".join(meta["choices"]) if meta["choices"] else "true|false" if meta["type"] is bool else None
            may_stand_alone = meta["type"] is bool or name in (*_ALSO_SWITCHES, "resume")  # which means true
            optional: Dict[str, Any] = {"nargs": "?", "const": "true"} if may_stand_alone else {}
            section.add_argument(
                f"--{name}",
                default=argparse.SUPPRESS,
                metavar=hint or meta["type"].__name__.upper(),
                help=f"{meta['help']} (default: {_spell(default)})".replace("%", "%%"),
                **optional,
            )
    words = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_") if name == "help" else _known(name)
            if name in (*keys_of_kind("path"), "init_from") and value.startswith("~/"):
                value = os.path.expanduser(value)  # no shell does behind an equals sign
            word = "--" + name + equals + value
        words.append(word)
    return from_dict(vars(parser.parse_args(words)))


def to_flags(config: Union[TrainConfig, Mapping[str, Any]]) -> List[str]:
    """Return the flags for the given keys (of a configuration: all that have a value), in reading order.

    ``from_flags(to_flags(c)) == c``. Raises ConfigError for an unknown key.
    """
    values: Mapping[str, Any] = to_dict(config) if isinstance(config, TrainConfig) else config
    given = {_known(key): value for key, value in values.items() if value is not None}
    return [word for name in _READING_ORDER if name in given for word in (f"--{name}", _spell(given[name]))]


def _known(key: str) -> str:
    """Return the field that a key names, whichever way its words are joined."""
    if key in FIELDS:
        return key
    name = key.replace("-", "_")
    if name in FIELDS:
        return name
    import difflib  # here, because the toolkit imports this module on its start-up path

    near = difflib.get_close_matches(name, FIELDS, n=1)
    if near:
        raise ConfigError("", None, _("unknown flag --{flag}; did you mean --{nearest}?", key, near[0]))
    raise ConfigError("", None, _("unknown flag --{flag}; python -m train --help lists all", key))


def typed(key: str, value: object) -> Any:
    """Return the value in the field's own type; text is read, numbers are never rounded."""
    name = _known(key)
    wanted, default = FIELDS[name].metadata["type"], FIELDS[name].default
    if value is None and default is None:
        return None
    if name in _ALSO_SWITCHES and isinstance(value, bool):
        return _spell(value)
    if name == "resume" and str(value).lower() in ("true", "false"):
        return "auto" if str(value).lower() == "true" else "none"
    if name == "freeze_layers" and isinstance(value, str) and value != default:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in layer_ranges(value))
    if wanted is bool:
        found = _SWITCH.get(value.lower()) if isinstance(value, str) else value
        if isinstance(found, bool):
            return found
        raise ConfigError(name, value, choice_of(("true", "false")))
    if wanted is str:
        if isinstance(value, str) and value:
            return value
        raise ConfigError(name, value, _("must be text"))
    number: Any = value
    if isinstance(value, str):
        try:
            number = float(value) if wanted is float or "e" in value.lower() else int(value)
        except ValueError:
            number = None
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
    if not is_number or (wanted is int and number != int(number)):
        raise ConfigError(name, value, _MUST_BE[wanted])
    return wanted(number)


_MUST_BE = {int: _("must be a whole number"), float: _("must be a number")}


def choice_of(choices: Iterable[str]) -> str:
    """Return what is said of a value that is none of several."""
    return _("choose one of {choices}", list(choices))


def _spell(value: object) -> str:
    """Return a value as it is written on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)
