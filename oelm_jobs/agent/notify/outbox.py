"""What is to be sent, each message once: files that are made exclusively, in the folder of a study.

A message is a file that whoever notes it first makes. Each try to send it on a way is a file, too, made before the try
and filled with what became of it: where that is missing, whoever tried was ended, and it may have been sent. Then it is
not sent again. That needs no lock, and holds between the nodes of a cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from .. import processes, rundir
from ..sentences import _
from . import forms, ways

PAUSES_S = (5.0, 30.0, 120.0, 600.0)
"""How long after a try that failed the next one comes; with the first one they are all."""
TRIES = len(PAUSES_S) + 1
LOST_S = 4 * ways.PATIENCE_S
"""A try of which nothing is known after so long was cut short."""
LEAST_S = 1.0
"""In less no try is made: its program alone takes a part of that."""
ENDING = ".json"


class Failure(NamedTuple):
    """A message that was not sent on a way, and is not tried any more."""

    title: str
    way: str
    why: str
    at: float
    """When that was tried last, Unix seconds."""


class _Try(NamedTuple):
    at: float
    host: str
    is_under_way: bool
    is_sent: Optional[bool]
    """None where nobody knows."""
    why: str


class Outbox:
    """The messages of a study."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: Dict[str, Tuple[float, forms.Message]] = {}  # they never change
        self._settled: Set[Tuple[str, str]] = set()
        self._own: Dict[str, forms.Message] = {}

    def put(self, event: str, of: Sequence[object], make: Callable[[], forms.Message]) -> bool:
        """Note a message that is to be sent, unless it is noted already; return whether it was not.

        Args:
            of: What makes it another one than others of the same event.
            make: Makes it.
        """
        name = "%s-%s" % (event, hashlib.sha256(repr(list(of)).encode("utf-8", "replace")).hexdigest()[:20])
        path = self._folder / (name + ENDING)
        if path.exists():
            return False
        message = make()
        content = {"version": 1, "time": time.time(), **message._asdict()}
        content["facts"] = dict(message.facts)
        if not rundir.create(path, content):
            return False
        self._own[name] = message
        return True

    def send(self, settings: Mapping[str, Any], *, patience_s: float = float("inf")) -> Optional[float]:
        """Try what is due; return in how many seconds the next try is, None where nothing is left to be tried.

        Args:
            settings: How each way is gone; on those that it lacks nothing is sent.
            patience_s: No new try begins after so long.
        """
        until = time.monotonic() + patience_s
        for name, message in self._messages():
            for way in self._ways(settings):
                if (name, way) in self._settled:
                    continue
                tries = self._tries(name, way)
                if self._wait_s(name, way, tries) == 0 and time.monotonic() < until:
                    # By the number of the tries that were seen: where somebody made one since, that name is taken.
                    self._attempt(self._path(name, way, len(tries)), way, settings[way], message)
        return self.next_s(settings)

    def send_own(self, settings: Mapping[str, Any], *, until: float, each_s: float) -> None:
        """Try what was put here, once: a job sends of its own run alone, and what it can't send is not its to repeat.

        Args:
            until: When all tries are over, by the monotonic clock; what none is left for isn't tried.
            each_s: So long a try may take.
        """
        for name, message in self._own.items():
            for way in self._ways(settings):
                left_s = min(each_s, until - time.monotonic())
                if left_s >= LEAST_S:
                    self._attempt(self._path(name, way, 0), way, settings[way], message, left_s)
        self._own.clear()

    def next_s(self, settings: Mapping[str, Any]) -> Optional[float]:
        """Return in how many seconds the next try is, None where nothing is left to be tried."""
        waits = [
            self._wait_s(name, way, self._tries(name, way))
            for name, _message in self._messages()
            for way in self._ways(settings)
            if (name, way) not in self._settled
        ]
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def failures(self) -> List[Failure]:
        """Return what was not sent and is not tried any more, the newest last."""
        found = []
        for name, message in self._messages():
            for way in ways.WAYS:
                tries = self._tries(name, way)
                if tries and not tries[-1].is_sent and self._wait_s(name, way, tries) is None:
                    found.append(Failure(message.title, way, tries[-1].why, tries[-1].at))
        return sorted(found, key=lambda failure: failure.at)

    def forget(self, tokens: Set[str]) -> None:
        """Remove what was told of runs of other submissions than these."""
        files: Dict[str, List[str]] = {}
        for entry in os.listdir(self._folder):
            files.setdefault(entry.partition(".")[0], []).append(entry)
        for name, message in self._messages():
            if message.event != "complete" and message.facts.get("token") not in tokens:
                # The message first, whose name is the shortest: without it nobody makes another try.
                for entry in sorted(files.get(name, ()), key=len):
                    with contextlib.suppress(OSError):
                        os.unlink(self._folder / entry)

    def _messages(self) -> List[Tuple[str, forms.Message]]:
        """Return the messages with their names, the oldest first."""
        for entry in os.listdir(self._folder):
            name = entry[: -len(ENDING)]
            if entry.endswith(ENDING) and "-" in name and "." not in name and name not in self._read:
                content = rundir.read_json(self._folder / entry) or {}
                facts = content.get("facts")
                event, title, text = (str(content.get(field, "")) for field in ("event", "title", "text"))
                message = forms.Message(event, title, text, facts if isinstance(facts, dict) else {})
                self._read[name] = rundir.finite(content.get("time")) or 0.0, message
        found = sorted(self._read.items(), key=lambda item: (item[1][0], item[0]))
        return [(name, message) for name, (_at, message) in found]

    @staticmethod
    def _ways(settings: Mapping[str, Any]) -> List[str]:
        return [way for way in ways.WAYS if settings.get(way)]

    def _path(self, name: str, way: str, number: int) -> Path:
        return self._folder / ("%s.%s.%d%s" % (name, way, number, ENDING))

    def _tries(self, name: str, way: str) -> List[_Try]:
        """Return the tries so far, the first one first."""
        found: List[_Try] = []
        while len(found) < TRIES:
            content = rundir.read_json(self._path(name, way, len(found)))
            if content is None:
                break
            at, host, is_sent = rundir.finite(content.get("time")) or 0.0, str(content.get("host")), content.get("sent")
            is_under_way = "sent" not in content and time.time() - at < LOST_S
            if is_under_way and host == os.uname().nodename:
                who = processes.Identity.from_json(content)
                is_under_way = who is not None and who.is_alive()
            why = str(content.get("said", _("cut short: whether it arrived is not known")))
            found.append(_Try(at, host, is_under_way, is_sent, why))
        return found

    def _wait_s(self, name: str, way: str, tries: List[_Try]) -> Optional[float]:
        """Return in how many seconds a message may be tried on a way; None for never again."""
        if (name, way) in self._settled:
            return None
        if not tries:
            return 0.0
        last, since = tries[-1], max(0.0, time.time() - tries[-1].at)
        if last.is_under_way:
            return max(0.1, LOST_S - since)
        if last.is_sent is not False or len(tries) == TRIES:  # one that may have arrived is not made again
            self._settled.add((name, way))
            return None
        is_elsewhere = last.host != os.uname().nodename  # what a compute node can't reach a login node may
        return 0.0 if is_elsewhere else max(0.0, PAUSES_S[len(tries) - 1] - since)

    def _attempt(
        self, path: Path, way: str, how: Any, message: forms.Message, patience_s: Optional[float] = None
    ) -> None:
        """Try to send a message on a way, unless somebody else does.

        Args:
            path: The try's file.
            patience_s: So long it may take; ways.PATIENCE_S unless it is given.
        """
        begun: Dict[str, object] = {"time": time.time(), **processes.identify(os.getpid()).to_json()}
        is_there = (self._folder / (path.name.partition(".")[0] + ENDING)).exists()  # else it was forgotten
        try:
            if not is_there or not rundir.create(path, begun):
                return
        except OSError:  # a full disk: what is not on record might be sent for ever
            return
        said = ways.send(way, how, message, patience_s)
        with contextlib.suppress(OSError):
            rundir.write_json(path, dict(begun, time=time.time(), sent=said.is_sent, said=said.words[:500]))
