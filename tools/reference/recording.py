"""A table of a file that writes down which keys its reader asks for: the reader alone knows them, and their types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oelm_jobs import tomlfile
from oelm_jobs.errors import ConfigurationError

Place = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A key that a reader asked for."""

    kind: type | None = None
    """None where it takes what there is, and looks at it itself."""
    item: type | None = None
    """Of a list."""
    default: Any = None
    """None where there is none."""
    choices: tuple[str, ...] = ()
    is_required: bool = False
    is_looked_for: bool = False
    """It matters whether it is there, so the default is no value that may be written."""


@dataclass
class Record:
    """What was asked for, by the table and the key, in that order."""

    keys: dict[tuple[Place, str], Asked] = field(default_factory=dict)

    def add(self, place: Place, key: str, **found: Any) -> None:
        """Write down what is found out of a key."""
        self.keys[place, key] = replace(self.keys.get((place, key), Asked()), **found)


def recorded(read: Callable[[tomlfile.Section], object], text: str) -> Record:
    """Return which keys a reader asks for of a file with this text, whatever it has against the file."""
    record = Record()

    class Recording(tomlfile.Section):
        def __contains__(self, key: str) -> bool:
            record.add(self._place, key, is_looked_for=True)
            return super().__contains__(key)

        def take(self, key: str, kind: Any, *default: Any, choices: Any = ()) -> Any:
            is_required = not default or default[0] is tomlfile.REQUIRED
            told = {"is_required": True} if is_required else {"default": default[0]}
            record.add(self._place, key, kind=kind, choices=tuple(choices), **told)
            return super().take(key, kind, *default, choices=choices)

        def take_any(self, key: str) -> Any:
            record.add(self._place, key)
            return super().take_any(key)

        def take_list(self, key: str, kind: Any, *default: Any) -> Any:
            found = super().take_list(key, kind, *default)
            record.add(self._place, key, item=kind)
            return found

    try:
        read(Recording(Path("NAME.toml"), "", tomlfile.loads(text), text=text))
    except ConfigurationError as error:
        raise AssertionError(f"the example of tools/reference can't be read: {error}") from error
    return record
