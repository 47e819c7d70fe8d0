"""Judge token files by what the agent found in them: one set of rules for `oelm-data check`, submit, transfer and
doctor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..agent.sentences import _
from ..agent.transfer import tokens
from ..errors import DataError
from ..spec.study import Study
from ..train import config as trainer
from .token_folder import MANIFEST, TRAIN, VAL, Manifest, read_manifest

if TYPE_CHECKING:
    from ..agent.messages import TokenFile

AGAIN = _("make it again with --force")
WRITTEN_AS = {
    "uint32": _("32-bit numbers"),
    "int64": _("64-bit numbers"),
    "float32": _("floating-point numbers"),
    "uint8": _("8-bit numbers"),
    "text": _("plain text"),
    "npy": _("an array in numpy's own format"),
    "zip": _("a zip archive"),
    "gzip": _("a compressed file"),
    "zstd": _("a compressed file"),
    "xz": _("a compressed file"),
    "parquet": _("a parquet file"),
    "lfs": _("a Git LFS pointer"),
}
"""What the agent's names for other contents mean (agent/transfer/samples.py)."""
_MENDS = {
    "text": _("token ids are made of it by: oelm-data make"),
    "parquet": _("token ids are made of it by: oelm-data make"),
    "zip": _("unpack it"),
    "gzip": _("unpack it"),
    "zstd": _("unpack it"),
    "xz": _("unpack it"),
    "lfs": _("git lfs pull brings the file itself"),
}


@dataclass(frozen=True, kw_only=True)
class Need:
    """A study's requirements for its token files."""

    study: str
    path: Path
    """Its file."""
    vocab_size: int
    seq_len: int


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a token file can't be used."""

    found: str
    mend: str = ""
    """Empty where the file is not there: whether it can be made or sent, the caller knows."""


def need_of(study: Study) -> Need:
    """Return a study's requirements for its token files."""
    values = {key: int(study.train[key]) for key in ("vocab_size", "seq_len")}
    return Need(study=study.name, path=study.path, **values)


def fault(path: str, row: TokenFile, need: Need | None = None) -> Fault | None:
    """Return the first fault of a token file; None where it can be used.

    Args:
        row: What the agent said of it (agent/transfer/tokens.py).
        need: What else a study asks of it.
    """
    if "error" in row:
        return Fault(found=row["error"])
    size, kind = row["size"], row["written_as"]
    try:
        manifest = manifest_of(row)
    except DataError as error:
        return Fault(found=str(error), mend=error.hint)
    listed = manifest.files.get(Path(path).name) if manifest is not None else None
    if kind and (listed is None or listed.sha256 != row["sha256"]):  # samples may err; what made the ids doesn't
        mend = _MENDS.get(
            kind, _("write ids as 16-bit numbers: numpy.asarray(ids, '<u2').tofile({name!r})", Path(path).name)
        )
        return Fault(found=_("holds {what}, not uint16 token ids", WRITTEN_AS.get(kind, kind)), mend=mend)
    if size == 0 or size % 2:
        return Fault(found=_("{n} bytes are not uint16 token ids", size), mend=AGAIN)
    last = manifest.tokenizer.vocab_size - 1 if manifest is not None else None
    if listed is not None and (listed.size != size or size != 2 * listed.tokens):
        return Fault(
            found=_("has {size} bytes, its manifest says {said} ({n} tokens)", size, listed.size, listed.tokens),
            mend=AGAIN,
        )
    if listed is not None and last is not None and row.get("largest", 0) > last:
        return _too_large(row, last, AGAIN)
    if listed is not None and listed.sha256 != row["sha256"]:
        return Fault(
            found=_("was changed: its sha256 is {found}, its manifest says {said}", row["sha256"], listed.sha256),
            mend=AGAIN,
        )
    return _unfit(row, manifest if listed is not None else None, need) if need is not None else None


def _unfit(row: TokenFile, manifest: Manifest | None, need: Need) -> Fault | None:
    """Return why a sound file doesn't meet a study's requirements."""
    mend = _("set vocab_size in [train] to the data's")
    if manifest is not None and manifest.tokenizer.vocab_size > need.vocab_size:
        made = manifest.tokenizer.vocab_size
        found = _("made with {n} token ids, but {path} says vocab_size = {size}", made, str(need.path), need.vocab_size)
        return Fault(found=found, mend=mend)
    if row.get("largest", 0) >= need.vocab_size:
        return _too_large(row, need.vocab_size - 1, mend)
    count, fewest = row["size"] // 2, trainer.fewest_tokens(need.seq_len)
    if count < fewest:
        return Fault(
            found=_(
                "holds {n} tokens, and study {study} needs at least {least} (seq_len = {length})",
                count,
                need.study,
                fewest,
                need.seq_len,
            ),
            mend=_("make it of more text, or lower seq_len in {path}", str(need.path)),
        )
    return None


def _too_large(row: TokenFile, last: int, mend: str) -> Fault:
    at, largest = row.get("at", 0), row["largest"]
    return Fault(found=_("token {n} is {id}, and the vocabulary's last id is {last}", at, largest, last), mend=mend)


def manifest_of(row: TokenFile) -> Manifest | None:
    """Return the manifest beside a token file; None where there is none.

    Raises:
        DataError: There is one, and it can't be read or is of another kind of data.
    """
    hint = _("oelm-data make … --force writes it anew")
    if row.get("manifest_error"):
        raise DataError(_("the {name} beside it can't be read: {why}", MANIFEST, row["manifest_error"]), hint=hint)
    if row["manifest"] is None:
        return None
    try:
        manifest = msgspec.convert(row["manifest"], Manifest)
    except msgspec.ValidationError as error:
        raise DataError(_("the {name} beside it can't be read: {why}", MANIFEST, str(error)), hint=hint) from error
    if manifest.dtype != "uint16":
        raise DataError(_("the {name} beside it says dtype = {type}, not uint16", MANIFEST, manifest.dtype), hint=hint)
    return manifest


def check(folder: Path, needs: Sequence[tuple[str, Need]] = ()) -> Manifest | None:
    """Read a token folder whole and verify it against its manifest, or by itself where it has none; return the
    manifest.

    Args:
        needs: Names of files in the folder and what studies ask of them.

    Raises:
        DataError: Names the first file that is missing or won't do, and why.
    """
    manifest = read_manifest(folder)
    if not folder.is_dir():
        raise DataError(_("{path} is no folder", str(folder)), hint=_("oelm-data demo makes data/demo"))
    named = [name for name, _need in needs]
    if manifest is not None and (missing := {TRAIN, VAL} - set(manifest.files) - set(named)):
        raise DataError(
            _("{path} says nothing of {files}", str(folder / MANIFEST), sorted(missing)),
            hint=_("make the data again with --force"),
        )
    usual = list(manifest.files) if manifest is not None else [TRAIN, VAL] if not named else []
    asked: list[tuple[str, Need | None]] = [*((name, None) for name in usual), *needs]
    rows = tokens.look([str(folder / name) for name in dict.fromkeys(name for name, _need in asked)])
    for name, need in asked:
        path = str(folder / name)
        if (found := fault(path, rows[path], need)) is not None:
            raise DataError(_("{path}: {why}", path, found.found), hint=found.mend)
    return manifest
