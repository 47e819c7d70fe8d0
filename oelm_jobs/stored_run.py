"""A run as the client last saw it, from a row of the index; what is long in it is read when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .agent import reasons, records, schema, verbs
from .agent.schema import Number, Table
from .agent.sentences import Sentence, _, encoded
from .agent.states import State
from .errors import StoreError

MAX_REASON = 4000
"""Characters of a reason; whatever lies in an index that somebody else has written to."""
STATES = {state.value: state for state in State}


class StoredRun(NamedTuple):
    """A run as the client last saw it; a named tuple, because a status makes one for each run."""

    project: str
    """Absolute path of its project."""
    study: str
    """Study name."""
    name: str
    """Run name."""
    group: str
    """Group name."""
    label: str
    """Group label."""
    seed: int
    """Seed."""
    tag: str
    """Tag; empty for plain runs."""
    target: str
    """Target name."""
    run_dir: str
    """Absolute path on the target."""
    fingerprint: str
    """What makes it scientifically itself."""
    token: str
    """Token of its newest submission."""
    spec: Mapping[str, Any]
    """What its record says of its configuration: ``train``, ``global_batch``, ``extended_from``, ``left``."""
    state: State
    """Where it stood when last seen."""
    reason: str
    """Why."""
    queued_at: float | None
    """When it was submitted, Unix seconds."""
    observed_at: float | None
    """When the target last answered for it, Unix seconds; None before the first answer."""
    progress: Mapping[str, Any]
    """Step, loss, rate and the like as the probe answered."""


class Reason(Sentence):
    """A reason whose code and values are read when they are first asked for."""

    _read: Callable[[], Mapping[str, Any]]

    @classmethod
    def of(cls, text: str, read: Callable[[], Mapping[str, Any]]) -> Reason:
        """Return a reason.

        Args:
            read: Returns what stands beside it: ``code`` and ``values``, as they came.
        """
        made = str.__new__(cls, text)
        made._read = read
        return made

    @property
    def beside(self) -> Mapping[str, Any]:
        """What stands beside it."""
        return self._read()

    def __getattr__(self, name: str) -> Any:
        if name not in ("template", "values", "code"):
            raise AttributeError(name)
        text = self[:]
        known = reasons.read({**self.beside, "reason": text})
        if isinstance(known, Sentence):
            self.template, self.values, self.code = known.template, known.values, known.code
        else:  # what stands there can't be them
            self.template, self.values, self.code = text, {}, ""
        return getattr(self, name)


def beside(reason: str) -> Mapping[str, Any]:
    """Return what stands beside a reason: ``code`` and ``values``; nothing where it has none."""
    return reason.beside if isinstance(reason, Reason) else encoded(reason)


COLUMNS = ", ".join(f'"{field}"' for field in StoredRun._fields)
"""The fields of a run, as columns of its table."""


def kept(reason: str, progress: Mapping[str, Any]) -> str:
    """Return a run's progress as it is stored, with what stands beside its reason."""
    return json.dumps({**progress, **beside(reason)})


def stored(row: Sequence[Any]) -> StoredRun:
    """Return the run in a row of COLUMNS."""
    *same, spec, state, reason, queued_at, observed_at, progress = row
    state = STATES.get(state, State.UNKNOWN)
    if type(reason) is not str or len(reason) > MAX_REASON:
        reason = str(reason)[:MAX_REASON]
    later = _Progress(progress)
    if type(progress) is str and '"code":' in progress:
        reason = Reason.of(reason, later.beside)
    return StoredRun._make((*same, _Spec(spec), state, reason, queued_at, observed_at, later))


class _Later(Mapping[str, Any]):
    """A JSON object that is parsed when it is first read: a status of ten thousand runs never does."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._known: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._known is None:
            try:
                known = schema.loads(self._text)
                wrong = self._why_not(known)
            except (schema.Misfit, TypeError) as error:
                known, wrong = {}, str(error)
            self._known = known if wrong is None else self._otherwise(wrong)
        return self._known

    def _why_not(self, known: Any) -> str | None:
        """Return why a value can't be what was stored; None where it can."""
        raise NotImplementedError

    def _otherwise(self, wrong: str) -> dict[str, Any]:
        """Return what replaces a value that can't be what was stored."""
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __eq__(self, other: object) -> bool:
        return self._read() == other

    def __repr__(self) -> str:
        return self._text


class _Progress(_Later):
    """A target's answer about a run; empty where it is invalid, so that the target is asked again. What stands beside
    the reason is stored in it, too.
    """

    _beside: Mapping[str, Any] = {}

    def beside(self) -> Mapping[str, Any]:
        """Return what stands beside the reason."""
        self._read()
        return self._beside

    def _why_not(self, known: Any) -> str | None:
        if type(known) is dict:  # what is no code or value is no reason's (reasons.read)
            self._beside = {key: known.pop(key) for key in reasons.BESIDE if key in known}
        return _PROGRESS_IS(known)

    def _otherwise(self, wrong: str) -> dict[str, Any]:
        return {}


class _Spec(_Later):
    """A run's configuration as recorded."""

    def _why_not(self, known: Any) -> str | None:
        return _SPEC_IS(known)

    def _otherwise(self, wrong: str) -> dict[str, Any]:
        raise StoreError(
            _("the index has a run whose configuration can't be understood: spec{where}", wrong),
            hint=_("make the index again from the run directories: oelm-status --rebuild"),
        )


_PROGRESS_IS = schema.compiled(Table({}, {**verbs.PROGRESS, "clock_ahead_s": Number()}))
_SPEC_IS = schema.compiled(records.SPEC)
