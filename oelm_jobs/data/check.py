"""Judge token files by what the agent found in them: one set of rules for `oelm-data check`, submit, transfer and
doctor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..agent.sentences import _
from ..agent.transfer import tokens
from ..errors import DataError
from ..programs import built_in
from ..spec.study import Study
from .token_folder import MANIFEST, TRAIN, VAL, Manifest, read_manifest

if TYPE_CHECKING:
    from ..agent.messages import TokenFile

AGAIN = _("make it again with --force")
WRITTEN_AS = {
    "uint32": (_("32-bit numbers"), ""),
    "int64": (_("64-bit numbers"), ""),
    "float32": (_("floating-point numbers"), ""),
    "uint8": (_("8-bit numbers"), ""),
    "npy": (_("an array in numpy's own format"), ""),
    "text": (_("plain text"), _("token ids are made of it by: oelm-data make")),
    "parquet": (_("a parquet file"), _("token ids are made of it by: oelm-data make")),
    "zip": (_("a zip archive"), _("unpack it")),
    "gzip": (_("a compressed file"), _("unpack it")),
    "zstd": (_("a compressed file"), _("unpack it")),
    "xz": (_("a compressed file"), _("unpack it")),
    "lfs": (_("a Git LFS pointer"), _("git lfs pull brings the file itself")),
}
"""What the agent's names for other contents mean (agent/transfer/samples.py), and the mend; empty for ids that are to
be written as 16-bit numbers.
"""


def fault(path: str, row: TokenFile, study: Study | None = None) -> DataError | None:
    """Return the first fault of a token file, with a hint unless it isn't there (whether it can be made or sent, the
    caller knows); None where the file can be used.

    Args:
        row: What the agent said of it (agent/transfer/tokens.py).
        study: One that is to train on it.
    """
    if "error" in row:
        return DataError(row["error"])
    size, kind = row["size"], row["written_as"]
    try:
        manifest = _manifest_of(row)
    except DataError as error:
        return error
    listed = manifest.files.get(Path(path).name) if manifest is not None else None
    if kind and (listed is None or listed.sha256 != row["sha256"]):  # samples may err; what made the ids doesn't
        what, mend = WRITTEN_AS.get(kind, (kind, ""))
        mend = mend or _("write ids as 16-bit numbers: numpy.asarray(ids, '<u2').tofile({name!r})", Path(path).name)
        return DataError(_("holds {what}, not uint16 token ids", what), hint=mend)
    if size == 0 or size % 2:
        return DataError(_("{n} bytes are not uint16 token ids", size), hint=AGAIN)
    if manifest is None or listed is None:
        return _unfit(row, None, study) if study is not None else None
    if listed.size != size or size != 2 * listed.tokens:
        found = _("has {size} bytes, its manifest says {said} ({n} tokens)", size, listed.size, listed.tokens)
        return DataError(found, hint=AGAIN)
    if row.get("largest", 0) >= manifest.tokenizer.vocab_size:
        return _too_large(row, manifest.tokenizer.vocab_size, AGAIN)
    if listed.sha256 != row["sha256"]:
        found = _("was changed: its sha256 is {found}, its manifest says {said}", row["sha256"], listed.sha256)
        return DataError(found, hint=AGAIN)
    return _unfit(row, manifest, study) if study is not None else None


def _unfit(row: TokenFile, manifest: Manifest | None, study: Study) -> DataError | None:
    """Return why a sound file doesn't meet a study's requirements."""
    vocab_size, seq_len, fewest = built_in.token_needs(study)
    mend = _("set vocab_size in [train] to the data's")
    if manifest is not None and manifest.tokenizer.vocab_size > vocab_size:
        made = manifest.tokenizer.vocab_size
        found = _("made with {n} token ids, but {path} says vocab_size = {size}", made, str(study.path), vocab_size)
        return DataError(found, hint=mend)
    if row.get("largest", 0) >= vocab_size:
        return _too_large(row, vocab_size, mend)
    count = row["size"] // 2
    if count < fewest:
        found = _(
            "holds {n} tokens, and study {study} needs at least {least} (seq_len = {length})",
            count,
            study.name,
            fewest,
            seq_len,
        )
        return DataError(found, hint=_("make it of more text, or lower seq_len in {path}", str(study.path)))
    return None


def _too_large(row: TokenFile, vocab_size: int, mend: str) -> DataError:
    at, largest = row.get("at", 0), row["largest"]
    found = _("token {n} is {id}, and the vocabulary's last id is {last}", at, largest, vocab_size - 1)
    return DataError(found, hint=mend)


def _manifest_of(row: TokenFile) -> Manifest | None:
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


def check(folder: Path, needs: Sequence[tuple[str, Study]] = ()) -> Manifest | None:
    """Read a token folder whole and verify it against its manifest, or by itself where it has none; return the
    manifest.

    Args:
        needs: Names of files in the folder, each with a study that trains on it.

    Raises:
        DataError: Names the first file that is missing or won't do, and why.
    """
    manifest = read_manifest(folder)
    if not folder.is_dir():
        raise DataError(_("{path} is no folder", str(folder)), hint=_("oelm-data demo makes data/demo"))
    named = [name for name, _study in needs]
    if manifest is not None and (missing := {TRAIN, VAL} - set(manifest.files) - set(named)):
        raise DataError(
            _("{path} says nothing of {files}", str(folder / MANIFEST), sorted(missing)),
            hint=_("make the data again with --force"),
        )
    usual = list(manifest.files) if manifest is not None else [TRAIN, VAL] if not named else []
    asked: list[tuple[str, Study | None]] = [*((name, None) for name in usual), *needs]
    rows = tokens.look([str(folder / name) for name in dict.fromkeys([*usual, *named])])
    for name, study in asked:
        path = str(folder / name)
        if (found := fault(path, rows[path], study)) is not None:
            raise DataError(_("{path}: {why}", path, str(found)), hint=found.hint)
    return manifest
