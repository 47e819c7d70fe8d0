"""A run as the client last saw it, from a row of the index; what is long in it is read when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .agent import inside, reasons, records, schema, verbs
from .agent.schema import Number, Table
from .agent.sentences import Sentence, _, encoded, joined
from .agent.states import State
from .errors import StoreError
from .programs import length

if TYPE_CHECKING:
    from .agent import messages
    from .agent.record_types import Extended, Left, Spec

    class RunProgress(messages.Progress, total=False):
        """What a target answers of a run."""

        clock_ahead_s: float
        """How far its clock, by which it tells times, is ahead of the one here."""


MAX_REASON = 4000
"""Characters of a reason; whatever lies in an index that somebody else has written to."""
STATES = {state.value: state for state in State}
_PARSE = json.JSONDecoder().raw_decode


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
    spec: Spec
    """What its record says of its configuration."""
    state: State
    """Where it stood when last seen."""
    reason: str
    """Why."""
    queued_at: float | None
    """When it was submitted, Unix seconds."""
    observed_at: float | None
    """When the target last answered for it, Unix seconds; None before the first answer."""
    progress: RunProgress
    """Step, loss, rate and the like as the probe answered."""

    @property
    def is_script(self) -> bool:
        """Whether it executes a program of the user's own."""
        return "program" in self.spec

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its program is given."""
        return self.spec["program"]["settings"] if self.is_script else self.spec["train"]

    @property
    def misnamed(self) -> StoreError | None:
        """Why the index can't be right about which run this is or where it lies; None where it can."""
        from .names import why_not_study  # here: a status does without

        is_name = not why_not_study(self.study) and inside.is_plain(self.name) and "/" not in self.name
        if is_name and inside.is_absolute(self.run_dir):
            return None
        wrong = _("the index has a run {run!r} of study {study!r} in {run_dir!r}: no submission can have named it so",
                  self.name, self.study, self.run_dir)  # fmt: skip
        return StoreError(wrong, hint=_MEND)

    @property
    def is_nowhere(self) -> bool:
        """Whether no target can be asked about it, since it can't lie where the index has it."""
        return not inside.is_absolute(self.run_dir)

    @property
    def misread(self) -> StoreError | None:
        """Why its configuration can't be understood; None where it can be, and as long as nobody has read it."""
        return getattr(self.spec, "misread", None)

    @property
    def max_steps(self) -> int | None:
        """How many steps it takes; None where a script doesn't say."""
        steps = (self.spec["program"] if self.is_script else self.spec["train"]).get(length.KEY)
        return None if steps is None else int(steps)

    @property
    def extended_from(self) -> Extended | None:
        """The run that it continues; None where it continues none."""
        return self.spec.get("extended_from")

    @property
    def left(self) -> Sequence[Left]:
        """What it has left on other targets."""
        return self.spec.get("left") or ()

    @property
    def code(self) -> str:
        """Hash of a script's code; empty where that isn't known."""
        return str(self.spec.get("code") or "")

    @property
    def tokens_per_step(self) -> int:
        """How many tokens a step takes."""
        return length.tokens_per_step(self.settings, self.spec["global_batch"])

    def seen(self, state: State, reason: str, progress: RunProgress, observed_at: float) -> StoredRun:
        """Return the run as its target has just told of it; as ``_replace``, but by position, since a
        status does it for each run.
        """
        return StoredRun._make((*self[:_STATE], state, reason, self.queued_at, observed_at, progress))

    def without_misread(self) -> StoredRun:
        """Return the run to show: where its configuration can't be understood, its reason says so in place of that."""
        try:
            len(self.spec)
        except StoreError as error:
            return self._replace(spec=_NOTHING, reason=joined((self.reason, str(error))))
        return self


class Reason(Sentence):
    """A reason whose code and values are read when they are first asked for."""

    beside: Callable[[], Mapping[str, object]]
    """Returns what stands beside it: ``code`` and ``values``, as they came."""

    @classmethod
    def of(cls, text: str, beside: Callable[[], Mapping[str, object]]) -> Reason:
        """Return a reason with what reads what stands beside it."""
        made = str.__new__(cls, text)
        made.beside = beside
        return made

    def __getattr__(self, name: str) -> Any:
        if name not in ("template", "values", "code"):
            raise AttributeError(name)
        text = self[:]
        known = reasons.read({**self.beside(), "reason": text})
        if isinstance(known, Sentence):
            self.template, self.values, self.code = known.template, known.values, known.code
        else:  # what stands there can't be them
            self.template, self.values, self.code = text, {}, ""
        return getattr(self, name)


_STATE = StoredRun._fields.index("state")
COLUMNS = ", ".join(f'"{field}"' for field in StoredRun._fields)
"""The fields of a run, as columns of its table."""


def kept(reason: str, progress: Mapping[str, object]) -> str:
    """Return a run's progress as it is stored, with what stands beside its reason."""
    beside = reason.beside() if isinstance(reason, Reason) else encoded(reason)
    return json.dumps({**progress, **beside})


def stored(row: Sequence[Any]) -> StoredRun:
    """Return the run in a row of COLUMNS."""
    *same, spec, state, reason, queued_at, observed_at, progress = row
    # SQLite keeps what it was given, whatever its columns are declared for.
    queued_at = queued_at if type(queued_at) is float else None
    observed_at = observed_at if type(observed_at) is float else None
    state = STATES.get(state, State.UNKNOWN)
    if type(reason) is not str or len(reason) > MAX_REASON:
        reason = str(reason)[:MAX_REASON]
    later = _Progress(progress)
    if type(progress) is str and '"code":' in progress:
        reason = Reason.of(reason, later.beside)
    return StoredRun._make((*same, _Spec(spec, same), state, reason, queued_at, observed_at, later))


class _Later(Mapping[str, object]):
    """A JSON object that is parsed when it is first read: a status of ten thousand runs never does."""

    _known: dict[str, object] | None = None

    def __init__(self, text: str) -> None:
        self._text = text

    def _read(self) -> dict[str, object]:
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

    def _otherwise(self, wrong: str) -> dict[str, object]:
        """Return what replaces a value that can't be what was stored."""
        return {}

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def get(self, key: str, default: Any = None) -> Any:
        """As a dictionary's; Mapping's own raises and catches an error for each key that isn't there."""
        return self._read().get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return self._text

    def may_hold(self, key: str) -> bool:
        """Tell whether it may have a key, without parsing it."""
        return f'"{key}":' in str(self._text)

    def says(self, content: Mapping[str, object]) -> bool:
        """Tell whether the text that is stored says just this; reads it, but doesn't ask whether it is sound."""
        try:
            return bool(_PARSE(self._text)[0] == content)
        except (ValueError, TypeError, RecursionError):
            return False


class _Progress(_Later):
    """A target's answer about a run; empty where it is invalid, so that the target is asked again. What stands beside
    the reason is stored in it, too.
    """

    _beside: Mapping[str, object] = {}

    def beside(self) -> Mapping[str, object]:
        """Return what stands beside the reason."""
        self._read()
        return self._beside

    def _why_not(self, known: Any) -> str | None:
        if type(known) is dict:  # what is no code or value is no reason's (reasons.read)
            self._beside = {key: known.pop(key) for key in reasons.BESIDE if key in known}
        return _PROGRESS_IS(known)


class _Spec(_Later):
    """A run's configuration as recorded."""

    misread: StoreError | None = None

    def __init__(self, text: str, same: Sequence[Any]) -> None:
        self._text, self._same = text, same

    def _why_not(self, known: Any) -> str | None:
        return _SPEC_IS(known)

    def _otherwise(self, wrong: str) -> dict[str, object]:
        run = "{1}/{2}".format(*self._same)
        self.misread = StoreError(
            _("what the index has of the configuration of {run} can't be understood: spec{where}", run, wrong),
            hint=_MEND,
        )
        raise self.misread


def that_left(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Return those of runs that have left something on other targets; what can't be understood is left out."""
    may_have = [run for run in runs if not isinstance(run.spec, _Later) or run.spec.may_hold("left")]
    return [run for run in map(StoredRun.without_misread, may_have) if run.left]


def is_as_stored(run: StoredRun, reason: str, told: Mapping[str, object]) -> bool:
    """Tell whether the index has just this of a run. What it has is parsed and no more: to look for what is wrong in
    it, of ten thousand runs, takes longer than all else of a status.

    Args:
        told: Its progress, and what stands beside the reason.
    """
    known = run.progress
    return run.reason == reason and isinstance(known, _Later) and known.says(told)


_NOTHING: Spec = {"program": {"settings": {}}, "global_batch": 0}
"""The configuration of a script that says nothing."""
_MEND = _("make the index again from the run directories: oelm-status --rebuild")
_PROGRESS_IS = Table({}, {**verbs.PROGRESS, "clock_ahead_s": Number()}).wrong
_SPEC_IS = records.SPEC.wrong
