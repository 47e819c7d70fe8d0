"""The trainer's configuration: every flag with its default, kind and checks, and its form on a command line.

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
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from .sentences import _

KINDS = ("scientific", "execution", "path", "logging")


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
    freeze_ffn: bool = _option(False, "scientific", "never train the feed-forward layers")
    qk_init: str = _option(
        "orthogonal_head",
        "scientific",
        "how oelm draws Q/K: row-orthonormal per head or per matrix, N(0, 0.02^2), or N(0, 1/d_model)",
        ("orthogonal_head", "orthogonal", "normal", "normal_scaled"),
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
    min_lr: float = _option(3e-5, "scientific", "learning rate at the last step")
    weight_decay: float = _option(0.1, "scientific", "decoupled weight decay of matrices and embeddings")
    grad_clip: float = _option(1.0, "scientific", "largest gradient norm; 0 turns clipping off")
    beta1: float = _option(0.9, "scientific", "AdamW's decay of the first moment")
    beta2: float = _option(0.95, "scientific", "AdamW's decay of the second moment")
    seed: int = _option(42, "scientific", "decides initial weights, data order and dropout")
    val_interval: int = _option(1_000, "scientific", "steps between validations; the last step always validates")
    val_batches: int = _option(100, "scientific", "global batches per validation; the last one uses the whole file")
    use_amp: bool = _option(True, "scientific", "bf16 (or fp16 with scaling) on GPUs; CPUs compute in fp32 either way")

    batch_size: int = _option(8, "execution", "sequences per process and micro-step")
    gradient_accumulation_steps: int = _option(1, "execution", "micro-steps per optimizer step")
    num_workers: int = _option(2, "execution", "batches prepared ahead by a background thread on GPUs; 0: none")
    compile: str = _option(
        "auto", "execution", "torch.compile; auto: on GPUs when the run is long enough", ("auto", "true", "false")
    )
    log_interval: int = _option(100, "execution", "steps between log lines")
    save_interval: int = _option(5_000, "execution", "steps between checkpoints; the last step always saves")
    keep_last: int = _option(2, "execution", "newest checkpoints to keep; 0 keeps all")
    keep_every: int = _option(25_000, "execution", "keep checkpoints at multiples of this many steps; 0: none")

    data_path: str = _option("data/tiny_stories/train.bin", "path", "training tokens, flat little-endian uint16")
    val_data_path: Optional[str] = _option(None, "path", "validation tokens (default: val.bin beside them)", type=str)
    out_dir: Optional[str] = _option(None, "path", "run directory; without it nothing is kept", type=str)
    resume: str = _option(
        "auto", "path", "auto: newest good checkpoint in out_dir; none: start over; or a checkpoint's path"
    )

    use_wandb: bool = _option(False, "logging", "log to Weights & Biases (offline unless WANDB_MODE says otherwise)")
    wandb_project: str = _option("oelm", "logging", "project in Weights & Biases")
    wandb_run_name: Optional[str] = _option(None, "logging", "run name in Weights & Biases", type=str)
    use_tensorboard: bool = _option(False, "logging", "write TensorBoard files to out_dir/tensorboard")


FIELDS = {f.name: f for f in fields(TrainConfig)}

# The order in which a person reads a command: what it is, how big, how much at a time, how long, where.
# fmt: off
_READING_ORDER = (
    "model_type", "freeze_qk", "freeze_ffn", "qk_init", "d_model", "num_layers", "num_heads", "d_ff", "seq_len",
    "vocab_size", "dropout", "batch_size", "gradient_accumulation_steps", "max_steps", "warmup_steps", "max_lr",
    "min_lr", "weight_decay", "grad_clip", "beta1", "beta2", "seed", "val_interval", "val_batches", "log_interval",
    "save_interval", "keep_last", "keep_every", "use_amp", "compile", "num_workers", "data_path", "val_data_path",
    "out_dir", "resume", "use_tensorboard", "use_wandb", "wandb_project", "wandb_run_name",
)
_AT_LEAST_ONE = (
    "d_model", "num_layers", "num_heads", "d_ff", "seq_len", "vocab_size", "max_steps", "batch_size",
    "gradient_accumulation_steps", "log_interval", "val_interval", "val_batches", "save_interval",
)
_NOT_NEGATIVE = (
    "warmup_steps", "weight_decay", "grad_clip", "min_lr", "max_lr", "num_workers", "keep_last", "keep_every", "seed",
)
# fmt: on
assert sorted(_READING_ORDER) == sorted(FIELDS), "every flag has its place in the reading order"
_PLACE = {name: place for place, name in enumerate(_READING_ORDER)}

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


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
    return TrainConfig(**{_known(key): _typed(key, value) for key, value in values.items()})


def to_dict(config: TrainConfig) -> Dict[str, Any]:
    """Return the configuration as primitives, in declaration order."""
    return asdict(config)


def global_batch(config: TrainConfig, world_size: int) -> int:
    """Return the sequences per optimizer step over all processes."""
    return config.batch_size * world_size * config.gradient_accumulation_steps


def scientific_hash(config: TrainConfig, global_batch: int) -> str:
    """Return a hash of what makes the run scientifically itself, as far as the trainer's flags say it."""
    values = {name: getattr(config, name) for name in keys_of_kind("scientific")}
    values["global_batch"] = global_batch
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def validate(config: TrainConfig) -> List[str]:
    """Check that the values make sense alone and together; return warnings, one sentence each.

    Raises:
        ConfigError: a value or a combination that can't run.
    """
    for name, f in FIELDS.items():
        _typed(name, getattr(config, name))
        if f.metadata["choices"] and getattr(config, name) not in f.metadata["choices"]:
            raise ConfigError(name, getattr(config, name), _choose(f.metadata["choices"]))
    for name in _AT_LEAST_ONE:
        _require(config, name, getattr(config, name) >= 1, _("must be at least 1"))
    for name in _NOT_NEGATIVE:
        _require(config, name, getattr(config, name) >= 0, _("must not be negative"))
    for name in ("dropout", "beta1", "beta2"):
        _require(config, name, 0 <= getattr(config, name) < 1, _("must be at least 0 and below 1"))
    _require(config, "seed", config.seed < 2**63, _("must be below 2^63"))
    in_16_bits = _("must be at most 65536: tokens are stored in 16 bits")
    _require(config, "vocab_size", config.vocab_size <= 65_536, in_16_bits)
    if config.d_model % config.num_heads:
        most = min(config.d_model, 1024)  # a slip of the keyboard may be any number
        choices = _choose(str(n) for n in range(1, most + 1) if config.d_model % n == 0)
        wrong = _("must divide d_model = {d_model}; {choices}", config.d_model, choices)
        raise ConfigError("num_heads", config.num_heads, wrong)
    most_lr = _("must be at most max_lr = {max_lr}", config.max_lr)
    _require(config, "min_lr", config.min_lr <= config.max_lr, most_lr)
    if config.model_type == "gpt":
        _require(config, "freeze_qk", not config.freeze_qk, _("only model_type oelm freezes Q/K; valid here: false"))
        _require(
            config,
            "qk_init",
            config.qk_init in ("normal", FIELDS["qk_init"].default),
            _("model_type gpt draws Q/K like its other weights; qk_init needs model_type oelm"),
        )
    return _warnings(config)


def _warnings(config: TrainConfig) -> List[str]:
    found = []
    if config.warmup_steps >= config.max_steps:
        found.append(
            f"warm-up ({config.warmup_steps} steps) is as long as the run ({config.max_steps}): "
            f"the learning rate never comes down from its peak"
        )
    if not config.out_dir:
        found.append("no out_dir: no checkpoint, metrics or result will be kept")
    return found


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
            optional: Dict[str, Any] = {"nargs": "?", "const": "true"} if _is_switch(name) else {}
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
            if name in keys_of_kind("path") and value.startswith("~/"):
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
    return [word for name in sorted(given, key=_PLACE.__getitem__) for word in (f"--{name}", _spell(given[name]))]


def _is_switch(name: str) -> bool:
    """Tell whether the bare flag means true."""
    return FIELDS[name].metadata["type"] is bool or name in ("compile", "resume")


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


def _typed(key: str, value: object) -> Any:
    """Return the value in the field's own type; text is read, numbers are never rounded."""
    name = _known(key)
    wanted, default = FIELDS[name].metadata["type"], FIELDS[name].default
    if value is None and default is None:
        return None
    if name == "compile" and isinstance(value, bool):
        return _spell(value)
    if name == "resume" and str(value).lower() in ("true", "false"):
        return "auto" if str(value).lower() == "true" else "none"
    if wanted is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
            return value.lower() in _TRUE
        raise ConfigError(name, value, _choose(("true", "false")))
    if wanted is str:
        if isinstance(value, str) and value:
            return value
        raise ConfigError(name, value, _("must be text"))
    if isinstance(value, bool):
        raise ConfigError(name, value, _MUST_BE[wanted])
    if isinstance(value, str):
        try:
            value = float(value) if wanted is float or "e" in value.lower() else int(value)
        except ValueError:
            raise ConfigError(name, value, _MUST_BE[wanted]) from None
    if not isinstance(value, (int, float)) or not math.isfinite(value) or (wanted is int and value != int(value)):
        raise ConfigError(name, value, _MUST_BE[wanted])
    return wanted(value)


_MUST_BE = {int: _("must be a whole number"), float: _("must be a number")}


def _require(config: TrainConfig, key: str, holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(key, getattr(config, key), message)


def _choose(choices: Iterable[str]) -> str:
    return _("choose one of {choices}", list(choices))


def _spell(value: object) -> str:
    """Return a value as it is written on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)
