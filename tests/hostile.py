"""A server that lies: the real agent answers in this process, and its answers are changed before they are read."""

from __future__ import annotations

import copy
import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import connections
from oelm_jobs.agent import __main__ as agent
from oelm_jobs.agent import verbs
from oelm_jobs.code import snapshot
from oelm_jobs.connections import PlacedTree, Route, remote
from oelm_jobs.connections.openssh import OpenSSHConnection, PlainSSHConnection
from tests.test_visible import DANGEROUS

Change = Callable[[str, Any], Any]
"""Makes of a verb and its answer what is sent instead: JSON, or bytes that are sent as they are."""
MOST_CALLS = 60
"""A command that asks more often than that does not end."""
OWN = re.compile(r"\x1b\[[0-9;]*m|\r\x1b\[K")
"""What the toolkit itself sends to a terminal: colours, and the beginning of a line that is drawn again."""


def honest(verb: str, answer: Any) -> Any:
    """Send an answer as it is."""
    return answer


class Endless(AssertionError):
    """A command goes on asking."""


class Channel:
    """A command on the server: bootstrap's side of the conversation (connections/channel.py), in this process."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._in = b""
        self._frames: list[bytes] = []
        self._out = b"\noelm-jobs=1\n"
        self._is_first = True

    def write(self, data: bytes, idle_s: float) -> None:
        if self._is_first:  # the line before the program
            self._is_first = False
            return
        self._in += data
        while b"\n" in self._in:
            head, _, rest = self._in.partition(b"\n")
            if len(rest) < int(head):
                break
            self._frames.append(rest[: int(head)])
            self._in = rest[int(head) :]
            self._hear()

    def _hear(self) -> None:
        if len(self._frames) < 2:
            return
        header = json.loads(self._frames[1])
        nonce, verb = header["nonce"], header["verb"]
        number = len(self._frames)
        if number == 2:
            self._out += frame(nonce, {"hello": 1})
            if verb and not header["reads"]:
                self._out += frame(nonce, {"ready": True})
        if number == (2 if not verb else 3):
            self._out += self._server.answer(nonce, verb, json.loads(self._frames[2]) if verb else {})

    def close_input(self) -> None: ...

    def read(self, idle_s: float) -> bytes:
        piece, self._out = self._out, b""
        return piece

    def end(self) -> tuple[int | None, str]:
        return None, "the connection was closed"

    def close(self) -> None: ...


def frame(nonce: str, message: Any) -> bytes:
    """Return a message as bootstrap says it."""
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    return f"\n{nonce} {len(content)}\n".encode() + content


@dataclass
class Server:
    """What answers instead of a host."""

    home: Path
    change: Change = honest
    known: dict[tuple[str, bool], Any] = field(default_factory=dict)
    """Answers that are not asked for again: looking a host over takes seconds."""
    heard: list[str] = field(default_factory=list)
    """The verbs of the command under way."""
    asked: set[str] = field(default_factory=set)
    """All verbs that were ever answered."""
    unknown_keys: set[str] = field(default_factory=set)
    """What the agent has said that its own description of its answers does not know."""

    def answer(self, nonce: str, verb: str, request: Any) -> bytes:
        self.heard.append(verb)
        if len(self.heard) > MOST_CALLS:
            raise Endless(f"{self.heard[-5:]}")
        try:
            said = self._said(verb, request) if verb else {}
        except Exception as error:
            return frame(nonce, {"error": str(error), "refused": bool(getattr(error, "is_refusal", False))})
        changed = self.change(verb, copy.deepcopy(said))
        if callable(changed):
            return bytes(changed(nonce, said, str(self.home)))
        content = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return frame(nonce, b'{"answer": %s, "home": %s}' % (content, json.dumps(str(self.home)).encode()))

    def _said(self, verb: str, request: Any) -> Any:
        key = (verb, bool(request.get("slurm")))
        if key in self.known:
            return self.known[key]
        said = json.loads(json.dumps(agent.answer(verb, copy.deepcopy(request))))
        self.asked.add(verb)
        told = {key: each for key, each in said.items() if key != "values"}
        assert verbs.SENTENCES.wrong(said.get("values", [])) is None
        believed = copy.deepcopy(told)
        assert verbs.wrong_answer(verb, request, believed) is None
        self.unknown_keys |= {f"{verb}{where}" for where in _lost(told, believed)}
        if verb == "examine":
            self.known[key] = said
        return said


def _lost(said: Any, believed: Any) -> Iterator[str]:
    """Yield where something of an answer was dropped."""
    if isinstance(said, dict):
        for key, value in said.items():
            if key not in believed:
                yield f".{key}"
            else:
                yield from (f".{key}{where}" for where in _lost(value, believed[key]))
    elif isinstance(said, list):
        for number, value in enumerate(said):
            yield from (f"[{number}]{where}" for where in _lost(value, believed[number]))


@dataclass
class World:
    """A laptop and its server, which are put back for every try."""

    place: Path
    server: Server

    @property
    def project(self) -> Path:
        return self.place / "project"

    def keep(self) -> None:
        """Remember everything as it is now."""
        shutil.copytree(self.place, self.place.with_name("kept"), symlinks=True)

    def put_back(self) -> None:
        """Make everything as it was."""
        kept = f"{self.place.with_name('kept')}/"
        argv = ["rsync", "--archive", "--checksum", "--delete", kept, f"{self.place}/"]
        subprocess.run(argv, cwd=self.place.parent, check=True)
        os.chdir(self.project)

    def outside(self) -> dict[str, bytes]:
        """Return what nobody may touch: all but the state folder, and what fetching and the ledger are for."""
        parts = ("state", "server", "leases", "project/models", "project/experiments", "project/.oelm")
        may_change = tuple(str(self.place / part) for part in parts)
        found = {}
        for folder, folders, names in os.walk(self.place):
            folders[:] = [name for name in folders if not f"{folder}/{name}".startswith(may_change)]
            paths = [f"{folder}/{name}" for name in names]
            found |= {path: Path(path).read_bytes() for path in paths if not path.startswith(may_change)}
        return found

    def run(self, name: str, *words: str, change: Change = honest) -> tuple[int, str, str]:
        """Run a command as on a terminal, in this process; return its exit code, stdout and stderr."""
        import importlib

        connections.close_all()
        self.server.change, self.server.heard = change, []
        command = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
        out, err = Terminal(), Terminal()
        with redirect_stdout(out), redirect_stderr(err), _no_input():
            try:
                command.main(list(words))
                code = 0
            except SystemExit as ending:
                code = int(ending.code or 0)
        gc.collect(1)  # the error and its frames hold the index open; the end of a real process would close it
        connections.close_all()
        return code, out.text(), err.text()


class Terminal(io.TextIOWrapper):
    """Takes what a command prints, and says that it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


@contextmanager
def _no_input() -> Iterator[None]:
    before, sys.stdin = sys.stdin, open(os.devnull)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdin.close()
        sys.stdin = before


def steers(shown: str) -> bool:
    """Tell whether something would steer a terminal, but for what is the toolkit's own."""
    return bool(DANGEROUS.search(OWN.sub("", shown)))


def reach(server: Server, monkeypatch: pytest.MonkeyPatch, bin_folder: Path) -> None:
    """Have every OpenSSH connection end at the server; rsync reads this machine's disk."""
    shell = bin_folder / "straight"
    shell.write_text('#!/bin/sh\nwhile [ "$1" != box ]; do shift; done; shift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    route = Route(shell=(str(shell),), host="box")
    for kind in (OpenSSHConnection, PlainSSHConnection):
        monkeypatch.setattr(kind, "_open", lambda self, line: Channel(server))
        monkeypatch.setattr(kind, "_drop", lambda self: None)
        monkeypatch.setattr(kind, "close", lambda self: None)
        monkeypatch.setattr(kind, "route", lambda self: route)
    talk = remote.converse

    def converse(channel: Any, verb: str, request: Any, places: Sequence[PlacedTree], **more: Any) -> Any:
        for place in places:  # what is sent along is not what is tried here
            snapshot.keep(place.tree, Path(place.folder))
        return talk(channel, verb, request, places, **more)

    monkeypatch.setattr(remote, "converse", converse)


# Lies -----------------------------------------------------------------------------------------------------------------


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in a JSON value, itself first."""
    yield at
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:3]))
    for key, item in items:
        yield from places(item, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], make: Callable[[Any], Any]) -> Any:
    """Return a value in which what lies at the end of a way was made another."""
    if not at:
        return make(value)
    value[at[0]] = replaced(value[at[0]], at[1:], make)
    return value


def without(value: Any, at: tuple[Any, ...]) -> Any:
    """Return a value without what lies at the end of a way."""
    if not at:
        return None
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    del inner[at[-1]]
    return value
