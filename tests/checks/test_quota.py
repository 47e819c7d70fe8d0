"""What quotas leave a user, as quota(1) and lfs-quota(1) print it, and what the doctor makes of it.

The kernels that this suite runs on may count no quotas, so the commands are stood in for by what their manuals show.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.checks import quota
from oelm_jobs.agent.host import lease_folder

QUOTA = """\
Disk quotas for user me (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1 1048576* 1000000 2000000 1764000000    1200       0       0       0
nas.example.org:/export/home of mine  2048       0 4194304       0    5000    4000    6000       0
Disk quotas for group lab group (gid 2000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  100 1000000 2000000       0    12       0       0       0
Disk quotas for group staff (gid 50): none
"""
LUSTRE = """\
/lustre/scratch/with/a/long/name
                [123456]      0  200000       -   11*      5       0 6d23h59m59s
uid 1000 is using default block quota setting
"""


def test_what_quota_prints_is_read_for_user_and_groups() -> None:
    rows = dict(quota.read_quota(QUOTA)[:2])
    assert rows["/dev/sda1"] == {
        "mount": "", "paths": [], "group": "", "used": 2**30, "limit": 1_024_000_000, "files": 1200, "files_limit": 0,
    }  # fmt: skip
    far = rows["nas.example.org:/export/home of mine"]
    assert (far["limit"], far["files"], far["files_limit"]) == (2**32, 5000, 4000)
    assert [(name, row["group"]) for name, row in quota.read_quota(QUOTA)[2:]] == [("/dev/sda1", "lab group")]
    assert quota.read_quota("Disk quotas for user root (uid 0): none\n") == []


def test_what_lustre_prints_is_read_over_broken_lines() -> None:
    row = quota.read_lustre(LUSTRE, "/lustre/scratch/with/a/long/name")
    assert row is not None and (row["used"], row["limit"]) == (123456 * 1024, 200000 * 1024)
    assert (row["files"], row["files_limit"]) == (11, 5)
    assert quota.read_lustre("Permission denied.\n", "/lustre") is None


def test_a_path_belongs_to_the_file_system_mounted_last_above_it(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/root rw\n22 21 8:2 / /home rw shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:40 / /home/me rw - nfs4 nas:/a\\040b rw\n24 21 0:41 / /scratch rw - lustre mds@tcp:/scr rw\n"
    )
    for path, found in (
        ("/home/me/x", ("nas:/a b", "/home/me", "nfs4")),
        ("/home/meadow", ("/dev/sda1", "/home", "ext4")),
        ("/scratch", ("mds@tcp:/scr", "/scratch", "lustre")),
        ("/srv", ("/dev/root", "/", "ext4")),
    ):
        mount = lease_folder.mount_of(path, str(mounts))
        assert mount is not None and (mount.source, mount.place, mount.kind) == found


@pytest.mark.parametrize(
    ("used", "files", "verdicts"),
    [(100_000, 100, ["good", "good"]), (960_000, 100, ["warning", "good"]), (100_000, 5_000, ["good", "bad"])],
)
def test_the_doctor_says_what_a_quota_leaves(
    oelm: Any,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    used: int,
    files: int,
    verdicts: list[str],
) -> None:
    shown = subprocess.run(["df", "--output=source,target", str(project)], capture_output=True, text=True, check=True)
    source, mount = shown.stdout.splitlines()[-1].split()
    folder = tmp_path / "bin"
    folder.mkdir()
    line = f"{source} {used} 1000000 2000000 0 {files} 5000 6000 0"
    (folder / "quota").write_text(f"#!/bin/sh\necho 'Disk quotas for user me (uid 7):'\necho '{line}'\nexit 1\n")
    (folder / "quota").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = json.loads(oelm("doctor", "local", "--json", check=False).stdout)["findings"]
    rows = [finding for finding in found if finding["what"] == "quota"]
    assert [row["verdict"] for row in rows] == verdicts
    assert [bool(row["mend"]) for row in rows] == [verdict != "good" for verdict in verdicts]
    assert rows[0]["found"] == f"{used * 1024 / 1e9:.1f} of 1.0 GB used on {mount}"
    assert rows[1]["found"] == f"{files:,} of 5,000 files used on {mount}"
    left = (1_000_000 - used) * 1024 / 1e9
    assert [f"{left:.1f} GB are free" in row["found"] for row in found if row["what"] == "disk for tiny"] == [True]
