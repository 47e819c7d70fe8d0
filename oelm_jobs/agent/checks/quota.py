"""Find a user's quotas on the file systems that runs write to, for the client (doctor) to judge.

Sources: quota(1) for what the kernel and NFS servers count, lfs-quota(1) for Lustre, proc_pid_mounts(5). Both commands
count in kibibytes, mark what is over its limit with an asterisk, and print 0 where there is no limit.
"""

from __future__ import annotations

import grp
import os
import re
import subprocess
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from ..messages import QuotaRow

MOUNTS = "/proc/self/mounts"
TIMEOUT_S = 10.0
"""A file server that is away must not keep a doctor waiting."""


def quotas(paths: Iterable[str]) -> List[QuotaRow]:
    """Return the quotas of this user and its groups on the file systems of some paths; none where nothing is counted,
    or nobody says. A limit is the soft one where there are two, 0 where there is none.
    """
    on: Dict[Tuple[str, str, str], List[str]] = {}
    for path in paths:
        known = _mount_of(os.path.realpath(path))
        if known is not None and path not in on.setdefault(known, []):
            on[known].append(path)
    if not on:
        return []
    found: List[QuotaRow] = []
    counted = read_quota(_output(["quota", "--no-wrap", "--raw-grace", "--user", "--group"]))
    for (source, mount, kind), theirs in on.items():
        rows = [row for name, row in counted if name in (source, os.path.realpath(source))]
        for option, number, group in [("-u", os.getuid(), ""), *_groups()] if kind == "lustre" else []:
            row = read_lustre(_output(["lfs", "quota", "-q", option, str(number), mount]), mount)
            rows += [{**row, "group": group}] if row else []
        found += [{**row, "mount": mount, "paths": theirs} for row in rows if row["limit"] or row["files_limit"]]
    return found


def _groups() -> List[Tuple[str, int, str]]:
    found = []
    for number in sorted({os.getgid(), *os.getgroups()}):
        try:
            name = grp.getgrgid(number).gr_name
        except KeyError:
            name = str(number)
        found.append(("-g", number, name))
    return found


def _mount_of(path: str) -> Optional[Tuple[str, str, str]]:
    """Return (source, mount point, type) of the file system of ``path``, which need not exist."""
    best: Optional[Tuple[str, str, str]] = None
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        # Blanks and the like stand there as octal numbers.
        fields = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field) for field in line.split(" ")]
        if len(fields) < 3:
            continue
        is_below = path == fields[1] or path.startswith(fields[1].rstrip("/") + "/")
        if is_below and (best is None or len(fields[1]) >= len(best[1])):  # of two at one place the later is seen
            best = (fields[0], fields[1], fields[2])
    return best


def read_quota(text: str) -> List[Tuple[str, QuotaRow]]:
    """Return (source of the file system, row) from the output of ``quota -wp``."""
    found: List[Tuple[str, QuotaRow]] = []
    group = ""
    for line in text.splitlines():
        heading = re.match(r"Disk quotas for (user|group) (.+) \([ug]id \d+\)", line)
        if heading:
            group = heading[2] if heading[1] == "group" else ""
            continue
        fields = line.split()
        row = _row(fields[-8:]) if len(fields) >= 9 else None
        if row is not None:
            found.append((" ".join(fields[:-8]), {**row, "group": group}))
    return found


def read_lustre(text: str, mount: str) -> Optional[QuotaRow]:
    """Return the row from the output of ``lfs quota -q``, which breaks the line after a long name; None without one."""
    fields = text.split()
    first = fields.index(mount) + 1 if mount in fields else len(fields)
    return _row(fields[first : first + 8])


def _row(fields: Sequence[str]) -> Optional[QuotaRow]:
    """Return used and limits of ``blocks soft hard grace files soft hard grace``; None where these aren't numbers."""
    numbers = [field.strip("*[]") for field in fields]
    if len(numbers) < 8 or not all(numbers[place].isdigit() for place in (0, 1, 2, 4, 5, 6)):
        return None
    used, soft, hard, files, files_soft, files_hard = (int(numbers[place]) for place in (0, 1, 2, 4, 5, 6))
    return {
        "mount": "",
        "paths": [],
        "group": "",
        "used": used * 1024,
        "limit": (soft or hard) * 1024,
        "files": files,
        "files_limit": files_soft or files_hard,
    }


def _output(argv: Sequence[str]) -> str:
    """Return a command's output; empty where it is missing or does not answer. Its exit code only says whether
    something is over its limit.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            env=dict(os.environ, LC_ALL="C"),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")
