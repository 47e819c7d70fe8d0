"""The error tree; only the command line catches these, and turns them into one line and an exit code.

OelmError
├── UsageError            invalid command-line usage
│   └── NoSuchTarget      the target is not, or no longer, in a targets file
├── ConfigurationError    invalid study, target or data file (names file, key, value and what would be right)
│   └── UnfairError       the groups would differ in more than the factors
├── PreflightError        the target can't run this as it stands; nothing was queued
├── TargetError           the target can't be reached, refuses or fails
│   ├── Nonsense          it sent an answer that breaks the protocol; nothing of it counts
│   ├── CodeGone          the code was removed there before the submission named it; nothing was started
│   ├── NotReached        not reachable now: another try may succeed, and nothing was done there
│   └── UnknownAnswer     it may or may not have accepted: never resubmit on this alone
│       └── AnswerLost    the connection broke before its answer came
├── LocalError            this machine refuses: a full disk, a missing permission
├── StoreError            the client's own index can't be used
│   └── DamagedStore      it can't even be read: it has to be made again
├── RunFailed             a run that was waited for failed
└── DataError             text or token files can't be read or made
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .agent.sentences import _

# Exit codes of commands; docs/reference has what is said of them here (tools/reference).
EXIT_DONE = 0
"""Done."""
EXIT_BAD = 1
"""The command worked and the result is bad: a run that was waited for is not DONE, a fetched file is damaged,
``oelm-doctor`` found something that would make a run fail, or with ``--notify`` a test was not sent.
"""
EXIT_REFUSED = 2
"""Nothing was done: the command line, a study, a target, the data or the index is invalid, or the target can't run it;
the error names what would be right.
"""
EXIT_TARGET = 3
"""A target can't be reached or sends an invalid answer; known states stay (``oelm-status`` shows them with their age,
and exits with 0 where a target can't be reached).
"""
EXIT_INTERNAL = 70
"""An error of the toolkit itself: ``--debug`` shows the traceback."""
EXIT_SYSTEM = 74
"""This machine refused: a full disk, a missing permission."""
EXIT_INTERRUPTED = 130
"""Interrupted (Ctrl-C); what was submitted goes on."""
EXIT_PIPE = 141
"""The reader of the output has gone (``oelm-status | head``)."""


class OelmError(Exception):
    """Root of the tree.

    Attributes:
        hint: The next command or the mend, printed on a line of its own; empty when there is none.
        exit_code: What the process exits with.
    """

    exit_code = EXIT_REFUSED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OelmError):
    """Invalid command-line usage."""


class ConfigurationError(OelmError):
    """Invalid content in a file that the user wrote.

    Attributes:
        place: Names of the tables and the key that it is about; empty where it is about none.
        line: The line in the file; 0 where it is not known.
        errors: Where it says several at once, each of them, in the file's order.
    """

    place: tuple[str, ...] = ()
    line: int = 0
    errors: tuple[ConfigurationError, ...] = ()


class UnfairError(ConfigurationError):
    """The groups would differ in more than the factors, and the study does not declare it."""


class PreflightError(OelmError):
    """The target can't run this as it stands; nothing was queued."""


class TargetError(OelmError):
    """The target can't be reached, refuses or fails."""

    exit_code = EXIT_TARGET


class Nonsense(TargetError):
    """The target sent an answer that breaks the protocol; nothing of it counts."""


class CodeGone(TargetError):
    """The code that a submission needs was removed there meanwhile; nothing was started, and it may be sent again."""


class NotReached(TargetError):
    """The target can't be reached just now; nothing was done there, and another try may succeed."""


class UnknownAnswer(TargetError):
    """A launch may or may not have been accepted; the run is looked for, never resubmitted on this alone."""


class NoSuchTarget(UsageError):
    """The target is not, or no longer, in a targets file."""


class AnswerLost(UnknownAnswer):
    """The connection broke before the target's answer came."""


class LocalError(OelmError):
    """This machine refuses: a full disk, a missing permission."""

    exit_code = EXIT_SYSTEM


class StoreError(OelmError):
    """The client's own index can't be used."""


class DamagedStore(StoreError):
    """The client's own index can't be read: it has to be made again."""


class RunFailed(OelmError):
    """A run that was waited for failed."""

    exit_code = EXIT_BAD


class DataError(OelmError):
    """Text or token files can't be read or made."""


FEW, MANY = 8, 10
"""Of more than so many names (the second) no more than so many (the first) are listed."""


def valid_choices(value: str, choices: Iterable[str]) -> str:
    """Return ``valid: a, b, c`` with the nearest spelling in front (``did you mean 'a'? valid: …``); of many choices
    the nearest few.
    """
    import difflib  # here, because every command imports this module and few of them fail

    known = sorted(set(choices))
    if not known:
        return _("none exist")
    near = difflib.get_close_matches(value, known, n=FEW)
    if len(known) > MANY:
        known = [*near, *(name for name in known if name not in near)]
    if near:
        return _("did you mean {nearest!r}? valid: {choices}", near[0], few(known))
    return _("valid: {choices}", few(known))


def nearest(value: str, choices: Iterable[str]) -> str:
    """Return the choice that is spelt most like a value; empty where none is like it."""
    import difflib

    return next(iter(difflib.get_close_matches(value, sorted(set(choices)), n=1)), "")


def few(names: Sequence[str]) -> str:
    """Return ``a, b, c``; of many names the first few and the number of the others."""
    if len(names) <= MANY:
        return _("{names}", list(names))
    return _("{names} and {count:,} more", list(names[:FEW]), len(names) - FEW)
