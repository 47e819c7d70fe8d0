"""Targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import Slurm


@dataclass(frozen=True, kw_only=True)
class Target:
    """A place to run: a connection and a scheduler."""

    name: str
    """Its table's name in a targets file."""
    kind: str
    """``local``, ``ssh`` or ``slurm``."""
    root: str
    """Where runs, snapshots and agents lie there; the project's own folder where empty (local only)."""
    python: str
    """The interpreter that runs supervisor and trainer; where empty, connections.interpreter says which."""
    setup: tuple[str, ...] = ()
    """Shell lines before anything runs (activate an environment, load modules)."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Folder in the project to folder on the target."""
    env: tuple[str, ...] = ()
    """Names of environment variables that are passed on."""
    host: str = ""
    """Alias of ~/.ssh/config or host name; empty means this machine."""
    user: str = ""
    """Login name there; what ~/.ssh/config says where empty."""
    port: int = 0
    """Port of its SSH server; what ~/.ssh/config says where 0."""
    connection: str = "fabric"
    """How it is reached: ``fabric``, or ``openssh`` (one login for all commands, which second factors need)."""
    checkpoint_root: str = ""
    """Folder of the run directories; ``<root>/models/checkpoints`` where empty."""
    gpus: tuple[int, ...] = ()
    """The only GPUs that runs may lease there; all where empty."""
    avoid: tuple[int, ...] = ()
    """GPUs that runs never lease there."""
    prefer: tuple[int, ...] = ()
    """GPUs that runs lease first where they are free."""
    per_gpu: int = 1
    """So many runs may have each GPU there at a time, of those that allow it."""
    max_parallel: int = 0
    """Most runs of the user's that have devices there at a time; 0 for any number (of a cluster: see Slurm)."""
    gpus_per_run: int = 0
    """A quota: every run takes so many GPUs, whatever its group says, with the same global batch; 0 for none."""
    template: str = ""
    """Name of the template of its scripts in the project's ``templates/``; the kind's own where empty."""
    home: str = ""
    """The home folder there, once the target was reached; no file says it."""
    share: str = ""
    """``group`` where the group of the root's folder may use the root, too; its owner alone where empty."""
    slurm: Slurm | None = None
    """Where Slurm decides when runs start."""

    @property
    def login_shell(self) -> bool:
        """Whether its scripts run in a login shell."""
        return self.slurm is not None and self.slurm.login_shell

    @property
    def clusters(self) -> str:
        """The site's cluster that Slurm's commands address (sbatch(1), --clusters); empty for their own."""
        return self.slurm.word("clusters") if self.slurm is not None else ""

    def may_lease(self, label: str) -> bool:
        """Tell whether runs may lease the device that leases call ``label`` (``gpu:0``, ``cpu:0``)."""
        kind, _, index = label.partition(":")
        return kind != "gpu" or (int(index) not in self.avoid and (not self.gpus or int(index) in self.gpus))
