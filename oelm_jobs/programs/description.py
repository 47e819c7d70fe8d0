"""What is asked of a program, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..spec.study import Group, Run, Study
from . import built_in, script


class Description(Protocol):
    """A module that answers for a program."""

    OTHERWISE: str
    BESIDES: tuple[str, ...]

    def data(self, study: Study, /) -> dict[str, str]: ...

    def why_not_set(self, study: Study, texts: Mapping[str, str], /) -> dict[str, str]: ...

    def why_not_together(self, study: Study, group: Group, /) -> str: ...

    def with_settings(self, study: Study, texts: Mapping[str, str], /) -> Study: ...

    def why_not_run(self, study: Study, run: Run, /) -> str: ...

    def settings_of(self, study: Study, run: Run, data_there: Mapping[str, str], /) -> dict[str, Any]: ...

    def placed(self, run_dir: str, /) -> dict[str, str]: ...

    def scientific(self, run: Run, /) -> dict[str, object]: ...

    def fingerprint(self, run: Run, data_hash: str, /) -> str: ...

    def compared(self, run: Run, /) -> dict[str, object]: ...

    def of_the_place(self, run: Run, /) -> tuple[str, ...]: ...

    def length_key(self, run: Run, /) -> str: ...

    def commands(self, run: Run, python: str, /) -> list[list[str]]: ...


def of(executed: Study | Run) -> Description:
    """Return what answers for the program of a study or a run."""
    return built_in if executed.program is None else script
