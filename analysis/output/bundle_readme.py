"""What a bundle says to who unpacks it: what it is, what to read first, and how to check it; in English."""

from __future__ import annotations

from collections.abc import Collection

from oelm_jobs.spec.study import Study

from ..printed import date

_WHAT = {
    "report/": "what the report said: begin with `hypothesis_validation.txt`, the verdicts and what limits them",
    "jobs/": "the study's file: groups, settings, seeds, hypotheses; and the files of studies that it goes on from",
    "experiments/": "the lock (the plan as it was before the runs), the ledger (what was started over or forgotten)"
    " and, where values were tuned, what was chosen",
    "models/checkpoints/": "of each run its record (`.oelm/run.json`: settings, seed, hashes of code and data), its"
    " metrics and how it ended; no weights",
    "code/": "the code that ran: the folder that `snapshot` of a run's record names",
    "data/": "what says which data these were, by hashes; no data",
}


def text(study: Study, made_at: float, toolkit: str, names: Collection[str], *, is_anonymous: bool, left: int) -> str:
    """Return the text.

    Args:
        names: Of the files in the bundle.
        left: So many files were left out.
    """
    lacking = "what was left out" if not is_anonymous else "which code was left out" if left else ""
    known = [f"- `{top}`: {what}\n" for top, what in _WHAT.items() if any(name.startswith(top) for name in names)]
    lines = [
        f"# Bundle of study {study.name}\n\n",
        f"{study.question}\n\n" if study.question else "",
        f"All that the verdicts of this study rest on, as it was on {date(made_at)}.",
        " Names of people, users, hosts, targets and places have stand-ins (`person1`, `host2`, `/root3`), the same one"
        " everywhere." if is_anonymous else "",
        f"\n\nWith oelm-jobs {toolkit} installed,\n\n    oelm report --from .\n\nin this folder, or with the archive in"
        " place of the dot, sees that no file was changed and that the code is what\nthe runs' hashes say, makes the"
        " report anew from the records, and says whether it comes to the same, byte for byte.\nNothing in here is"
        " executed by that.\n\n",
        *known,
        f"- `bundle.json`: how this was made{', and ' if lacking else ''}{lacking}\n",
        "- `MANIFEST.json`: size and SHA-256 of all other files\n",
        f"\nFiles that were left out: {left}.\n" if left and not is_anonymous else "",
    ]  # fmt: skip
    return "".join(lines)
