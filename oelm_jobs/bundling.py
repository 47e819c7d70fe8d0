"""Bundle a study with all that its verdicts rest on, and report on a bundle."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .agent import schema
from .agent.sentences import _
from .analysis import elsewhere, sweeps
from .analysis.output import bundle_readme
from .bundle import anonymous, archive, code, contents, identities, sealing
from .bundle.archive import ABOUT, README, REPORT
from .errors import OelmError, UsageError
from .language import LANGUAGES
from .reporting import Bundled, StudyReport, report_on
from .spec.study import Study
from .study import sweep
from .study.files import read_study

VERSION = 1
HIDDEN = Path("/project")
"""Where the project was that an anonymous bundle is made of."""
BOUND = Path("bundle")
LATEST = 253370764800
"""The year 9999: no calendar goes further."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A bundle that was written."""

    path: Path
    sha256: str
    """To be published: it tells this bundle from any other."""
    files: int
    left_out: Mapping[str, str]
    """Why, by name."""
    differs: tuple[str, ...]
    """Files of the report that, before names are taken out, the project's own report has otherwise: runs are on targets
    alone, say.
    """
    remaining: Mapping[str, tuple[str, ...]]
    """Of an anonymous one: names that are left in words of the study, with the files."""


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """The report on a bundle's files."""

    report: StudyReport
    same: tuple[str, ...]
    """Files that are, byte for byte, those which the bundle holds."""
    differs: tuple[str, ...]
    """Those that aren't."""


def make(
    project: Path,
    study: Study | str | None,
    path: Path,
    *,
    is_anonymous: bool = False,
    target_loss: float | None = None,
    language: str = "en",
    warn: Callable[[str], None] = lambda message: None,
) -> Made:
    """Write a bundle of a study as it is now. Equal files and the same time (SOURCE_DATE_EPOCH) make equal bytes.

    Raises:
        UsageError: There is no such study, it has no runs here, or nobody would know the file for a bundle.
        LocalError: The bundle can't be written.
    """
    if not path.name.endswith(archive.SUFFIXES):
        suffixes = list(archive.SUFFIXES)
        raise UsageError(_("--bundle {path}: the name of a bundle ends in {suffixes}", str(path), suffixes))
    own = report_on(project, study, target_loss=target_loss, warn=warn)
    if not own.runs:
        raise UsageError(_("study {study} has no runs that could be bundled", own.study.name))
    with tempfile.TemporaryDirectory(prefix="oelm-bundle-") as temporary:
        folder = Path(temporary).resolve() / BOUND
        into = contents.Contents(folder=folder)
        folder.mkdir()
        strangers = [
            {
                "run": run.name,
                "study": run.study,
                "group": run.group,
                "seed": run.seed,
                "tag": run.tag,
                "path": run.path,
            }
            for run in own.strangers
        ]
        contents.collect(project, own.study, [run.path for run in own.runs], strangers, into)
        if own.alike:
            into.put(f"experiments/{own.study.name}/{elsewhere.FILE}", elsewhere.encoded(own.alike))
        file, remaining, left_out = f"jobs/{own.study.path.name}", {}, dict(into.left_out)

        def reported(origin: Path) -> dict[str, bytes]:
            bundled = Bundled(made_at=own.made_at, origin=origin)
            staged = report_on(folder, str(folder / file), target_loss=target_loss, bundled=bundled)
            return staged.verdict_files(language)

        said, before = reported(project), own.verdict_files(language)
        differs = tuple(name for name in said if said[name] != before[name])
        if is_anonymous:
            left_out |= code.without_targets(folder)
            whole = sealing.whole(folder)
            known = identities.collect(project, folder)
            done = anonymous.scrub(
                folder, known, _words(own) | known.keys, _combinations(own),
                lambda at, name, hashes: sealing.seal(at, name, hashes, whole),
            )  # fmt: skip
            remaining, into.left_out = dict(done.remaining), code.without_reasons(into.left_out)
            said = reported(HIDDEN)
        for name, content in said.items():
            into.put(f"{REPORT}/{name}", content)
        about = {
            "version": VERSION, "study": own.study.name, "study_file": file,
            "made_at": own.made_at, "language": language, "project": str(HIDDEN if is_anonymous else project),
            "target_loss": target_loss, "anonymous": is_anonymous, "toolkit": _version(), "left_out": into.left_out,
        }  # fmt: skip
        told = bundle_readme.text(
            read_study(folder / file), own.made_at, _version(), archive.files_in(folder),
            is_anonymous=is_anonymous, left=len(into.left_out),
        )  # fmt: skip
        into.put(README, told.encode())
        into.put(ABOUT, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
        count = len(archive.files_in(folder)) + 1
        sha256 = archive.write(folder, path)
    return Made(
        path=path, sha256=sha256, files=count, left_out=into.left_out | left_out, differs=differs, remaining=remaining
    )


def is_bundle(place: Path | str) -> bool:
    """Tell whether a path is that of a bundle, or of the folder that one was unpacked into."""
    return archive.is_one(Path(place))


@contextlib.contextmanager
def reproduce(place: Path | str, *, only: Sequence[str] = (), output: Path | None = None) -> Iterator[Reproduced]:
    """Check a bundle, and yield the report on its files beside what it holds itself; nothing in it is executed.

    Args:
        place: The archive, or the folder that it was unpacked into.
        only: Names of groups or runs.
        output: Where the report's files go, if they are wanted.

    Raises:
        UsageError: It isn't what its manifest says, and nothing of it was used; or its code isn't what the records of
            its runs name.
    """
    place = Path(place)
    with archive.opened(place) as folder:
        about = _about(place, folder)
        bundled = Bundled(made_at=about["made_at"], origin=Path(about["project"]))
        study = str(folder / about["study_file"])
        try:
            whole = report_on(folder, study, output=output, target_loss=about["target_loss"], bundled=bundled)
            made = whole.verdict_files(about["language"])
        except OelmError as error:
            raise archive.refused(place, str(error).replace(str(folder), about["project"])) from error
        if why := code.why_not(folder, whole.study.name, about["left_out"]):
            raise archive.refused(place, why)
        same = tuple(name for name, content in made.items() if _content(folder / REPORT / name) == content)
        chosen = whole
        if only:
            chosen = report_on(
                folder, study, only=only, output=output, target_loss=about["target_loss"], bundled=bundled
            )
        yield Reproduced(report=chosen, same=same, differs=tuple(name for name in made if name not in same))


def _about(place: Path, folder: Path) -> dict[str, Any]:
    """Return what a bundle says of itself.

    Raises:
        UsageError: It is of another kind or version.
    """
    try:
        about = schema.loads((folder / ABOUT).read_bytes())
    except (schema.Misfit, OSError) as error:
        raise archive.refused(place, _("{name} is not understood", ABOUT)) from error
    kinds: dict[str, Any] = {"version": int, "study": str, "study_file": str, "made_at": (int, float), "language": str,
             "project": str, "target_loss": (int, float, type(None)), "left_out": dict}  # fmt: skip
    version = about.get("version", VERSION) if isinstance(about, dict) else VERSION
    if isinstance(version, int) and version != VERSION:  # its keys may be others
        raise UsageError(
            _("{path}: a bundle of version {version} is unknown; valid: {valid}", str(place), version, VERSION),
            hint=_("use the release that wrote it"),
        )
    is_right = isinstance(about, dict) and all(key in about and isinstance(about[key], kinds[key]) for key in kinds)
    if (
        not is_right
        or not 0 <= about["made_at"] <= LATEST
        or about["language"] not in LANGUAGES
        or not _is_study(about["study_file"])
    ):
        raise archive.refused(place, _("{name} is not understood", ABOUT))
    found: dict[str, Any] = about
    return found


def _is_study(name: str) -> bool:
    return not archive.why_not(name) and name.startswith("jobs/") and name.endswith(".toml")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _version() -> str:
    from . import __version__

    return __version__


def _words(report: StudyReport) -> set[str]:
    """Return the words of a study that its verdicts tell: they stay, whoever is called so."""
    study = report.study
    values = [value for group in study.groups.values() for value in group.values.values() if isinstance(value, str)]
    values += [value for value in study.settings.values() if isinstance(value, str) and "/" not in value]
    swept = [str(value) for p in (study.sweep.parameters.values() if study.sweep else ()) for value in p.values]
    metrics = {name for run in report.runs for name in run.series}
    return {study.name, *study.groups, *study.settings, *study.factors, *values, *swept, *metrics,
            *(run.name for run in report.runs), *(run.tag for run in report.runs)}  # fmt: skip


def _combinations(report: StudyReport) -> list[Mapping[str, Any]]:
    """Return the combinations of values whose hashes name runs: those of the sweep, and of lists that commands gave."""
    study = report.planned or report.study
    found: list[Mapping[str, Any]] = [*sweep.settings(study.sweep)] if study.sweep is not None else []
    return found + [values for run in report.runs if (values := sweeps.hashed_in(run)) is not None]
