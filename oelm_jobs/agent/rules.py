"""Decision tables: ordered rules over one value of facts, of which the first that applies decides.

A rule is a function that returns its answer, or None where it does not apply; its name and docstring say what it is
about. docs/architecture.md lists the tables.
"""

from __future__ import annotations

from typing import Callable, Optional, Sequence, TypeVar

Facts = TypeVar("Facts")
Answer = TypeVar("Answer")


def first(rules: "Sequence[Callable[[Facts], Optional[Answer]]]", facts: Facts) -> Optional[Answer]:
    """Return the answer of the first rule that applies; None where none does."""
    for rule in rules:
        answer = rule(facts)
        if answer is not None:
            return answer
    return None
