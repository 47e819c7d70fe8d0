"""Telling what Slurm itself says from what a site's wrappers, plugins and greetings print around it.

Sources: slurm_errno.c (what slurm_strerror says), sbatch(1). Slurm's commands begin what they say with their own name
(``sbatch: error: …``), or that of a function (``slurm_load_jobs error: …``). So may what a site's plugins let them say;
what decides comes last.
"""

from __future__ import annotations

import re
from typing import Dict, List

from ..sentences import _

MOST = 1500
"""Characters of what is told of a command's words: the last ones. An answer has 2,000 for it and what is added."""
UNKNOWN = re.compile(
    r"(?i)socket timed out( on send/recv operation)?|connection timed out|connection (reset|closed)( by \w+)?"
    r"|broken pipe|zero bytes were transmitted or received|message (send|receive) failure"
    r"|(unable to contact slurm controller \()?(send|receive|shutdown) failure\)?"
    r"|communications? (connection|send|receive|shutdown) failure|unexpected message( received)?"
    r"|insane message length|protocol authentication error"
)
"""What slurm_strerror says when the controller may have accepted all the same."""
SILENCE = re.compile(r"(?i)unable to contact|%s" % UNKNOWN.pattern[len("(?i)") :])
"""What Slurm's commands say where the controller did not answer."""
NO_CONTROLLER = re.compile(r"(?:^|; )(?:Batch job submission failed: )?Unable to contact slurm controller")
"""The same in a refusal's words (``read_answer``)."""
NO_ROOM = re.compile(r"(?:Slurm temporarily unable to accept job|Resource temporarily unavailable)")
"""How sbatch begins where there is no room now."""
LIMITS = re.compile(r"\w*(?:MaxSubmit|GrpSubmit)\w*")
"""A line of its own that names which limit is meant; a fixed limit of size or time has other names."""
POLICY = re.compile(r"(?:Job violates accounting/QOS policy)")
"""What sbatch says beside such a line."""
SUBMITTED = re.compile(r"^Submitted batch job (\d+)(?: on cluster \S+)?[ \t\r]*$", re.MULTILINE)
"""What sbatch says of a job that it made."""
FAILED = re.compile(r"Batch job submission failed(?:: (.*))?$")
"""sbatch's last word, with what slurm_strerror says."""
ENDED_CODES = frozenset({124, *range(128, 255)})
"""Exit codes of a wrapper whose sbatch was ended by a signal or a deadline."""
NO_SUCH_JOB = re.compile(r"(?:Invalid job id)")
"""What Slurm's commands say of a job that slurmctld has forgotten."""
NOT_RUN_CODES = (126, 127)
"""A shell's exit codes where there is no command."""


def own(words: str, command: str) -> List[str]:
    """Return the lines of its stderr that a command of Slurm's said itself, without its name in front."""
    begin = r"^\s*(?:\S*/)?(?:%s[\w.]*|slurm_\w+(?: error)?): *(.*)$" % re.escape(command)
    return [line.strip() for line in re.findall(begin, words, re.MULTILINE)]


def last(words: str, command: str) -> str:
    """Return the last error that a command of Slurm's said itself, else the last line; empty where it said nothing."""
    lines = own(words, command)
    errors = [line for line in lines if line.startswith(("error: ", "fatal: "))]
    others = [line.strip() for line in words.splitlines() if line.strip()]
    found = (errors or lines or others or [""])[-1]
    return re.sub(r"^(error|fatal): ", "", found)


def said(words: str, command: str, code: int) -> str:
    """Return why a command failed, in its own last words."""
    why = last(words, command) or _("exit code {code}", code)
    return _("{command}: {why}", command, why)


def all_of(words: str) -> str:
    """Return all that sbatch and the site's own programs around it said, in one line."""
    lines = [re.sub(r"^sbatch: (error: |fatal: |info: )?", "", line.strip()) for line in words.splitlines()]
    told = "; ".join(dict.fromkeys(line for line in lines if line and "--help" not in line))
    return told if len(told) <= MOST else "… " + told[-MOST:]


def read_answer(code: int, out: str, err: str) -> Dict[str, str]:
    """Say what sbatch's words mean: an id, a certain no (refused), no room now (limit), or that it isn't known."""
    # A number alone, as sbatch prints with --parsable, may be anybody's word: a wrapper's, a greeting's.
    ids = list(dict.fromkeys(SUBMITTED.findall(out)))
    if code == 0 and len(ids) == 1:
        return {"id": ids[0]}
    if code == 0:
        return {"unknown": _("sbatch named several jobs: {jobs}", ids) if ids else _("sbatch named no job")}
    words = all_of(err) or all_of(out)
    if code < 0 or code in ENDED_CODES or ids or not words:  # an id: what failed came after it
        return {"unknown": words or _("sbatch ended with {code}", code)}
    mine, verdict = own(err, "sbatch"), last(err, "sbatch")
    final = [match for match in (FAILED.search(line) for line in mine) if match]
    if final:
        verdict = final[-1][1] or ""
    # Without that line it is a plugin's word as likely as not, and has to be word for word what Slurm says.
    if mine and (UNKNOWN.match(verdict) if final else UNKNOWN.fullmatch(verdict)):
        return {"unknown": words}
    # sbatch may first say that there is no room, try again, and then have another answer.
    names_limit = any(LIMITS.fullmatch(re.sub(r"^error: ", "", line)) for line in mine)
    is_limit = LIMITS.fullmatch(verdict) or (names_limit and (not verdict or POLICY.match(verdict)))
    if mine and (is_limit or NO_ROOM.match(verdict)):
        return {"limit": words}
    return {"refused": words}


def is_hearsay(code: int, err: str) -> bool:
    """True where a refusal is the word of a site's wrapper alone: what it keeps back of sbatch's can't be told."""
    return code not in NOT_RUN_CODES and not own(err, "sbatch")


def numbers(ranges: str) -> List[str]:
    """Return the numbers in ``01-03,7`` or ``1-7:2``, as wide as they are written."""
    found: List[str] = []
    for part in ranges.split(","):
        bounds, _, stride = part.partition(":")
        first, _, last = bounds.partition("-")
        if first.isdigit():
            chosen = range(int(first), int(last or first) + 1, int(stride or 1))
            found += ["%0*d" % (len(first), number) for number in chosen]
    return found
