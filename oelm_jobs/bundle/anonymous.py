"""Take names out of the files of a bundle: people, users, hosts, targets, places on disks, remotes of git, e-mails.

The same name has the same stand-in everywhere, so that what is equal stays equal and what differs differs: a report on
the files comes to the same verdicts. Hashes of files that are changed by it are replaced wherever they are named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..study import sweep
from . import code
from .archive import files_in
from .identities import COMMON, SHORTEST, Identities

SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr", "var")
"""First folders of places that are alike everywhere; those below /project, /root1 … are ours."""
OURS = re.compile(r"/(?:project|root\d+|home/me|place\d+)(?:/|$)")
_PLACE = re.compile(r"(?<![\w.$}{/:~<*\\-])(?:/[\w.+@%=,~-]+){2,}/?|~[a-z_][\w-]*/[\w./-]*")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_REMOTE = re.compile(r"\b(?:ssh://)?git@[\w.-]+[:/][\w./~-]+")
_HASH = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_DIGEST = re.compile(rf"(?<![0-9A-Za-z])[0-9a-f]{{{sweep.DIGEST}}}(?![0-9A-Za-z])")
Rehash = Callable[[Path, str, Mapping[str, str]], Mapping[str, str]]
"""Seals a file again whose content states its own hash: given the file, its name before and the hashes replaced so far,
it returns those that it replaced.
"""
ROUNDS = 8
"""So often hashes of files that name hashes of files are replaced."""


@dataclass(frozen=True, kw_only=True)
class Scrubbed:
    """What became of the files."""

    changed: tuple[str, ...]
    """Those that hold stand-ins now."""
    remaining: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that stand in words of the study itself, which were left, with where they are."""


def scrub(
    folder: Path, known: Identities, protected: Collection[str], combinations: Iterable[Mapping[str, Any]], seal: Rehash
) -> Scrubbed:
    """Replace names in all files of a folder, and in their names.

    Args:
        protected: Words of the study (groups, settings, metrics), which a verdict tells.
        combinations: Swept values whose hash may name runs: it becomes that of the values that a study has then.
        seal: For locks and choices.
    """
    changes = _Changes(known, protected)
    changes.rename(combinations)
    before, was = {}, {}
    changed: list[str] = []
    for name in files_in(folder):
        path = folder / name
        content = path.read_bytes()
        new_name = "/".join(changes.of(part) for part in name.split("/"))
        try:
            new = changes.of(content.decode("utf-8"), is_record=not name.startswith("code/")).encode("utf-8")
        except UnicodeDecodeError:
            new = content
            changes.look(name, content.decode("latin-1"))
        if (new, new_name) == (content, name):
            continue
        changed.append(new_name)
        before[new_name] = hashlib.sha256(content).hexdigest()
        path.unlink()
        moved = folder / new_name
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.write_bytes(new)
        was[new_name] = name
    for place in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(place.iterdir()):
            place.rmdir()
    _rehash(folder, before, was, seal)
    _rehash(folder, code.renamed(folder), was, seal)
    for name in files_in(folder):
        changes.look(name, (folder / name).read_bytes().decode("utf-8", "replace"))
    return Scrubbed(changed=tuple(changed), remaining={one: tuple(at) for one, at in changes.remaining.items()})


def _rehash(folder: Path, before: Mapping[str, str], was: Mapping[str, str], seal: Rehash) -> None:
    """Replace the hashes of changed files wherever they are named, and of those that change by that in turn.

    Args:
        was: The names that files had, by those that they have.
    """
    named = dict(before)
    for _round in range(ROUNDS):
        known: dict[str, str] = {}
        for name in files_in(folder):
            known |= seal(folder / name, was.get(name, name), known) if name.startswith("experiments/") else {}
        for name, sha256 in named.items():
            now = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if now != sha256:
                known[sha256] = named[name] = now
        if not known:
            return
        for name in files_in(folder):
            content = (folder / name).read_bytes()
            new = _replaced(content, known)
            if new != content:
                named.setdefault(name, hashlib.sha256(content).hexdigest())
                (folder / name).write_bytes(new)


def _replaced(content: bytes, known: Mapping[str, str]) -> bytes:
    return _HASH.sub(lambda found: known.get(found[0].decode(), found[0].decode()).encode(), content)


class _Changes:
    """What is replaced by what, the same everywhere."""

    def __init__(self, known: Identities, protected: Collection[str]) -> None:
        places = {place: stand_in for place, stand_in in known.places.items() if len(place) > 1}
        self._places = dict(sorted(places.items(), key=lambda one: -len(one[0])))
        self._exact = dict(known.names)
        self._exact |= {json.dumps(name)[1:-1]: stand_in for name, stand_in in known.names.items()}
        self._names: dict[str, str] = {}
        for name, stand_in in self._exact.items():
            self._names.setdefault(name.casefold(), stand_in)
        self._protected = {word for word in protected if len(word) >= SHORTEST}
        words = {word.casefold() for word in protected}
        self._name = _any_of([name for name in self._exact if len(name) >= SHORTEST])
        short = [re.escape(name) for name in self._exact if len(name) < SHORTEST and name.casefold() not in words]
        self._short = re.compile(rf'(?<=")(?:{"|".join(short)})(?="(?!\s*:))') if short else None
        self._keep = _any_of(self._protected)
        self._known_place = _any_of(self._places, is_place=True)
        self._elsewhere: dict[str, str] = {}
        self._mails: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self.remaining: dict[str, dict[str, None]] = {}

    def rename(self, combinations: Iterable[Mapping[str, Any]]) -> None:
        """Have the hashes replaced that names of runs have of swept values, where these are changed."""
        found = {}
        for values in combinations:
            with contextlib.suppress(ValueError):
                changed = json.loads(self.of(json.dumps(values, ensure_ascii=False), is_record=True))
                if changed != values:
                    found[sweep.digest(values)] = sweep.digest(changed)
        self._digests = found

    def of(self, text: str, *, is_record: bool = False) -> str:
        """Return text without names.

        Args:
            is_record: What is all of a value may be a short name; in code it is hardly ever one.
        """
        if self._short is not None and is_record:
            text = self._short.sub(self._stand_in, text)
        if self._digests:
            text = _DIGEST.sub(lambda found: self._digests.get(found[0], found[0]), text)
        if self._known_place is not None:
            text = self._known_place.sub(lambda found: self._places[found[0]], text)
        text = _REMOTE.sub("remote", text)
        text = _MAIL.sub(
            lambda found: self._mails.setdefault(found[0], f"mail{len(self._mails) + 1}@example.org"), text
        )
        text = _PLACE.sub(self._place, text)
        if self._name is None:
            return text
        if self._keep is None:
            return self._name.sub(self._stand_in, text)
        parts, at = [], 0
        for kept in self._keep.finditer(text):
            parts += [self._name.sub(self._stand_in, text[at : kept.start()]), kept[0]]
            at = kept.end()
        return "".join([*parts, self._name.sub(self._stand_in, text[at:])])

    def _stand_in(self, found: re.Match[str]) -> str:
        return self._exact.get(found[0]) or self._names[found[0].casefold()]

    def _place(self, found: re.Match[str]) -> str:
        place = found[0]
        if OURS.match(place) or place.split("/")[1] in SYSTEM:
            return place
        folder, _slash, last = place.rstrip("/").rpartition("/")
        stand_in = self._elsewhere.setdefault(folder, f"/place{len(self._elsewhere) + 1}")
        return f"{stand_in}/{last}" + ("/" if place.endswith("/") else "")

    def look(self, name: str, text: str) -> None:
        """Remember which names a file still holds, also within other words."""
        small = text.casefold() + "\n" + name.casefold()
        for one in self._names:
            if len(one) > SHORTEST and one in small and one not in COMMON:
                self.remaining.setdefault(one, {})[name] = None


def _any_of(words: Collection[str], *, is_place: bool = False) -> re.Pattern[str] | None:
    """Return what finds any of some words, the longest first; letters and digits beside one make it another word."""
    if not words:
        return None
    found = "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))
    if is_place:
        return re.compile(rf"(?:{found})(?![A-Za-z0-9_-])")
    return re.compile(rf"(?<![A-Za-z0-9])(?:{found})(?![A-Za-z0-9])", re.IGNORECASE)
