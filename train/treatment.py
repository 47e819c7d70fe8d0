"""Write treatment.json, which shows whether a run's Q/K were drawn, trained or kept as its group says.

Hashes at start and end show whether weights moved; counts show what the optimizer could have moved.
"""

from __future__ import annotations

import hashlib
from typing import Any, Dict, List

import torch

from .config import TrainConfig
from .initialization import orthogonality_error
from .model import Transformer
from .optimizer import trainable_parameters


def describe_treatment(model: Transformer, optimizer: torch.optim.Optimizer, config: TrainConfig) -> Dict[str, Any]:
    """Return the content of treatment.json at the start of a run: before its first step."""
    held = {id(p) for p in trainable_parameters(optimizer)}
    groups = {}
    for group, names in _groups(model, config).items():
        parameters = [p for name, p in model.named_parameters() if name in names]
        groups[group] = {
            "requires_grad": all(p.requires_grad for p in parameters),
            "in_optimizer": all(id(p) in held for p in parameters),
            "sha256_start": _hash(model, names),
        }
    return {
        "version": 1,
        "model_type": config.model_type,
        "freeze_qk": config.freeze_qk,
        "freeze_ffn": config.freeze_ffn,
        "qk_init": config.qk_init if config.model_type == "oelm" else "normal",
        "parameters": model.count_parameters(),
        "groups": groups,
        "qk_orthogonality_error": max(orthogonality_error(p, config.num_heads) for _, p in model.qk_parameters()),
        "layers": [
            {
                "name": name,
                "total": model.parameter_size(name, p),
                "trainable": model.parameter_size(name, p) if p.requires_grad else 0,
            }
            for name, p in model.named_parameters()
        ],
    }


def complete_treatment(start: Dict[str, Any], model: Transformer, config: TrainConfig) -> Dict[str, Any]:
    """Return the record of the start with the hashes of the weights as they are now."""
    names = _groups(model, config)
    groups = {group: dict(entry, sha256_end=_hash(model, names[group])) for group, entry in start["groups"].items()}
    return dict(start, groups=groups)


def _groups(model: Transformer, config: TrainConfig) -> Dict[str, List[str]]:
    """Return the names of the parameters in each group; ffn is one of its own where it is frozen."""
    groups: Dict[str, List[str]] = {"qk": [], "other": []}
    if config.freeze_ffn:
        groups["ffn"] = []
    for name, _ in model.named_parameters():
        group = "qk" if name.endswith(".attn.qk") else "ffn" if config.freeze_ffn and ".ffn." in name else "other"
        groups[group].append(name)
    return groups


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
