"""Find a user's quotas on the file systems that runs write to, for the client (doctor) to judge.

Sources: quota(1) for what the kernel and NFS servers count, lfs-quota(1) for Lustre. Both commands count in kibibytes,
mark what is over its limit with an asterisk, print 0 where there is no limit, and end with an error where something is
over one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional, Sequence, Tuple

from .. import privacy
from ..host import lease_folder
from ..processes import output

if TYPE_CHECKING:
    from ..messages import QuotaRow


def quotas(paths: Iterable[str]) -> List[QuotaRow]:
    """Return the quotas of this user and its groups on the file systems of some paths; none where nothing is counted,
    or nobody says. A limit is the soft one where there are two, 0 where there is none.
    """
    on: Dict[Tuple[str, str, str], List[str]] = {}
    for path in dict.fromkeys(paths):
        known = lease_folder.mount_of(os.path.realpath(path))
        if known is not None:
            on.setdefault((known.source, known.place, known.kind), []).append(path)
    if not on:
        return []
    found: List[QuotaRow] = []
    counted = read_quota(output(["quota", "--no-wrap", "--raw-grace", "--user", "--group"]))
    for (source, mount, kind), theirs in on.items():
        rows = [row for name, row in counted if name in (source, os.path.realpath(source))]
        groups = (("-g", number, privacy.group_name(number)) for number in sorted({os.getgid(), *os.getgroups()}))
        for option, number, group in [("-u", os.getuid(), ""), *groups] if kind == "lustre" else []:
            row = read_lustre(output(["lfs", "quota", "-q", option, str(number), mount]), mount)
            rows += [{**row, "group": group}] if row else []
        found += [{**row, "mount": mount, "paths": theirs} for row in rows if row["limit"] or row["files_limit"]]
    return found


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
