"""What a configuration's values may be, alone and together. Standard library only, and quick to import."""

from __future__ import annotations

from typing import Callable, List

from .config import ALL_LAYERS, FIELDS, ConfigError, TrainConfig, choice_of, layer_ranges, typed
from .sentences import _

# fmt: off
_AT_LEAST_ONE = (
    "d_model", "num_layers", "num_heads", "d_ff", "seq_len", "vocab_size", "max_steps", "batch_size",
    "gradient_accumulation_steps", "log_interval", "val_interval", "val_batches", "save_interval",
)
_NOT_NEGATIVE = (
    "warmup_steps", "weight_decay", "grad_clip", "min_lr", "max_lr", "num_workers", "keep_last", "keep_every", "seed",
    "data_seed", "freeze_from_step",
)
# fmt: on
_BELOW_ONE = ("dropout", "beta1", "beta2")
_SEEDS = ("seed", "data_seed")
# Made once: a sweep of thousands of runs is judged within a second.
_TOO_SMALL, _NEGATIVE = _("must be at least 1"), _("must not be negative")
_NO_SHARE = _("must be at least 0 and below 1")


def bounds(key: str) -> str:
    """Return what a number may be, as in ``at least 1``, for documentation; empty where it may be any."""
    if key == "vocab_size":
        return "1 to 65536"
    if key in _SEEDS:
        return "0 to 2^63 - 1"
    if key in _BELOW_ONE:
        return "at least 0, below 1"
    return "at least 1" if key in _AT_LEAST_ONE else "at least 0" if key in _NOT_NEGATIVE else ""


def validate(config: TrainConfig) -> List[str]:
    """Check that the values make sense alone and together; return warnings, one sentence each.

    Raises:
        ConfigError: a value or a combination that can't run.
    """

    def require(key: str, holds: bool, message: str) -> None:
        if not holds:
            raise ConfigError(key, getattr(config, key), message)

    for name, f in FIELDS.items():
        typed(name, getattr(config, name))
        choices = f.metadata["choices"]
        if choices and getattr(config, name) not in choices:
            raise ConfigError(name, getattr(config, name), choice_of(choices))
    for name in _AT_LEAST_ONE:
        require(name, getattr(config, name) >= 1, _TOO_SMALL)
    for name in _NOT_NEGATIVE:
        require(name, (getattr(config, name) or 0) >= 0, _NEGATIVE)
    for name in _BELOW_ONE:
        require(name, 0 <= getattr(config, name) < 1, _NO_SHARE)
    for name in _SEEDS:
        require(name, (getattr(config, name) or 0) < 2**63, _("must be below 2^63"))
    require("vocab_size", config.vocab_size <= 65_536, _("must be at most 65536: tokens are stored in 16 bits"))
    if config.d_model % config.num_heads:
        most = min(config.d_model, 1024)  # a slip of the keyboard may be any number
        choices = choice_of(str(n) for n in range(1, most + 1) if config.d_model % n == 0)
        wrong = _("must divide d_model = {d_model}; {choices}", config.d_model, choices)
        raise ConfigError("num_heads", config.num_heads, wrong)
    require("min_lr", config.min_lr <= config.max_lr, _("must be at most max_lr = {max_lr}", config.max_lr))
    if config.model_type == "gpt":
        for name in ("freeze_qk", "freeze_q", "freeze_k"):
            require(name, not getattr(config, name), _("only model_type oelm freezes Q/K; valid here: false"))
        like_others = _("model_type gpt draws Q/K like its other weights; qk_init needs model_type oelm")
        require("qk_init", config.qk_init in ("normal", FIELDS["qk_init"].default), like_others)
    if config.position == "rope":
        width = config.d_model // config.num_heads
        require("position", width % 2 == 0, _("rotates pairs: d_model / num_heads = {width} must be even", width))
    _require_one_meaning(config, require)
    found = []
    if config.warmup_steps >= config.max_steps:
        long = f"warm-up ({config.warmup_steps} steps) is as long as the run ({config.max_steps})"
        found.append(f"{long}: the learning rate never comes down from its peak")
    if not config.out_dir:
        found.append("no out_dir: no checkpoint, metrics or result will be kept")
    return found


def _require_one_meaning(config: TrainConfig, require: Callable[[str, bool, str], None]) -> None:
    """Refuse what contradicts itself in freezing, and a second way to say the same: it would pass for another run."""
    for name in ("freeze_q", "freeze_k"):
        both = _("freeze_qk = true freezes both already; valid here: false")
        require(name, not (config.freeze_qk and getattr(config, name)), both)
    pair = _("with freeze_q = true these are both: give freeze_qk = true in place of the two")
    require("freeze_k", not (config.freeze_q and config.freeze_k), pair)
    nothing = _("nothing is frozen: give freeze_qk, freeze_q, freeze_k or freeze_ffn as well")
    is_any = config.freeze_qk or config.freeze_q or config.freeze_k or config.freeze_ffn
    if config.freeze_layers != ALL_LAYERS:
        require("freeze_layers", is_any, nothing)
        ranges, last = layer_ranges(config.freeze_layers), config.num_layers - 1
        require("freeze_layers", ranges[-1][1] <= last, _("the last of {count} layers is {last}", last + 1, last))
        require("freeze_layers", ranges != [(0, last)], _("these are all layers: leave it out"))
    if config.freeze_from_step:
        require("freeze_from_step", is_any, nothing)
        never = _("must be below max_steps = {max_steps}, or nothing is ever frozen", config.max_steps)
        require("freeze_from_step", config.freeze_from_step < config.max_steps, never)
