"""What a run freezes: which weights, in which layers, and after how many steps. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import FrozenSet, Mapping, Tuple

from .config import ALL_LAYERS, TrainConfig, layer_ranges

_TREATED = re.compile(r"blocks\.(\d+)\.(?:attn\.(qk|q|k)|(ffn)\..+)")


@dataclass(frozen=True)
class Freezing:
    """What a configuration freezes."""

    parts: FrozenSet[str]
    """Of ``q``, ``k`` and ``ffn`` those that are frozen; empty where everything is trained."""
    layers: Tuple[Tuple[int, int], ...]
    """First and last of each range of layers in which they are."""
    after: int
    """Steps that they are trained for; 0 where they stay as they were drawn."""

    @property
    def num_layers(self) -> int:
        """In how many layers something freezes."""
        return sum(last - first + 1 for first, last in self.layers)

    def total(self, sizes: Mapping[str, int]) -> int:
        """Return how many weights freeze, if the parts of a layer have so many each."""
        return self.num_layers * sum(sizes[part] for part in self.parts)

    def holds_in(self, layer: int) -> bool:
        """Tell whether a layer is among them."""
        return any(first <= layer <= last for first, last in self.layers)

    def splits(self, layer: int) -> bool:
        """Tell whether a layer's Q and K are treated differently, so that they must be two parameters."""
        return self.holds_in(layer) and ("q" in self.parts) is not ("k" in self.parts)

    def covers(self, name: str) -> bool:
        """Tell whether a parameter of the ``Transformer`` is one that freezes, by its name."""
        place = _TREATED.fullmatch(name)
        if place is None or not self.holds_in(int(place.group(1))):
            return False
        return ({"ffn"} if place.group(3) else set(place.group(2))) <= self.parts

    def group(self, name: str) -> str:
        """Return which entry of treatment.json a parameter belongs to.

        Q/K are ``qk``, or ``q`` and ``k`` where one of them alone is frozen, or ``qk_trained`` in layers that are left
        out; ``ffn`` is an entry where it is frozen; all else is ``other``.
        """
        place = _TREATED.fullmatch(name)
        if place is None or place.group(3):
            return "ffn" if self.covers(name) else "other"
        is_left_out = bool(self.parts - {"ffn"}) and not self.holds_in(int(place.group(1)))
        return "qk_trained" if is_left_out else place.group(2)


def freezing(config: TrainConfig) -> Freezing:
    """Return what a configuration freezes."""
    asked = {
        "q": config.freeze_qk or config.freeze_q,
        "k": config.freeze_qk or config.freeze_k,
        "ffn": config.freeze_ffn,
    }
    parts = frozenset(part for part, is_asked in asked.items() if is_asked)
    is_all = config.freeze_layers == ALL_LAYERS
    layers = [(0, config.num_layers - 1)] if is_all else layer_ranges(config.freeze_layers)
    return Freezing(parts, tuple(layers) if parts else (), config.freeze_from_step)


def is_qk(name: str) -> bool:
    """Tell whether a parameter of the ``Transformer`` is a query or key projection, by its name."""
    place = _TREATED.fullmatch(name)
    return place is not None and place.group(2) is not None
