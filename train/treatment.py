"""Write treatment.json, which shows whether a run's Q/K were drawn, trained or kept as its group says.

Hashes at start and end show whether weights moved; counts show what the optimizer could have moved.
"""

from __future__ import annotations

import hashlib
from typing import Any, Dict, List

import torch

from .config import LATER, TrainConfig, to_dict
from .freezing import freezing
from .initialization import orthogonality_error
from .model import Transformer
from .optimizer import trainable_parameters


def describe_treatment(model: Transformer, optimizer: torch.optim.Optimizer, config: TrainConfig) -> Dict[str, Any]:
    """Return the content of treatment.json at the start of a run: before its first step."""
    groups = {
        group: {**_training(model, optimizer, names), "sha256_start": _hash(model, names)}
        for group, names in _groups(model, config).items()
    }
    width = config.d_model // config.num_heads
    return {
        "version": 1,
        "model_type": config.model_type,
        "freeze_qk": config.freeze_qk,
        "freeze_ffn": config.freeze_ffn,
        "qk_init": config.qk_init if config.model_type == "oelm" else "normal",
        **{key: value for key, value in to_dict(config).items() if key in LATER},
        "parameters": model.count_parameters(),
        "groups": groups,
        "qk_orthogonality_error": max(orthogonality_error(p, width) for _, p in model.qk_parameters()),
        "layers": model.layers(),
    }


def note_freezing(
    treatment: Dict[str, Any], model: Transformer, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> None:
    """Add to the record of the start what has just been frozen, and the hashes of the weights as they are now."""
    for group, names in _groups(model, config).items():
        entry, now = treatment["groups"][group], _training(model, optimizer, names)
        if entry["requires_grad"] and not now["requires_grad"]:
            entry.update(now, frozen_from_step=config.freeze_from_step, sha256_frozen=_hash(model, names))


def complete_treatment(start: Dict[str, Any], model: Transformer, config: TrainConfig) -> Dict[str, Any]:
    """Return the record of the start with the hashes of the weights as they are now."""
    names = _groups(model, config)
    groups = {group: dict(entry, sha256_end=_hash(model, names[group])) for group, entry in start["groups"].items()}
    return dict(start, groups=groups)


def _groups(model: Transformer, config: TrainConfig) -> Dict[str, List[str]]:
    """Return the names of the parameters in each entry of treatment.json."""
    frozen = freezing(config)
    groups: Dict[str, List[str]] = {"qk": [], "other": []}
    for name, _ in model.named_parameters():
        groups.setdefault(frozen.group(name), []).append(name)
    return {group: names for group, names in groups.items() if names}


def _training(model: Transformer, optimizer: torch.optim.Optimizer, names: List[str]) -> Dict[str, bool]:
    """Return whether parameters take gradients and are the optimizer's."""
    held = {id(p) for p in trainable_parameters(optimizer)}
    parameters = [p for name, p in model.named_parameters() if name in names]
    return {
        "requires_grad": all(p.requires_grad for p in parameters),
        "in_optimizer": all(id(p) in held for p in parameters),
    }


@torch.no_grad()
def _hash(model: Transformer, names: List[str]) -> str:
    """Return the sha256 over names and values of parameters, the vocabulary's padding left out."""
    digest = hashlib.sha256()
    parameters = dict(model.named_parameters())
    for name in sorted(names):
        value = parameters[name].detach()
        value = value[: model.config.vocab_size] if name == "tokens" else value
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
