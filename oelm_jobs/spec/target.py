"""Dataclasses of targets."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import Asked


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A target's settings for Slurm."""

    sbatch: Mapping[str, str | None] = field(default_factory=dict)
    """Long options of sbatch, word for word, in the file's order; None for a switch."""
    login_shell: bool = False
    """Whether scripts run in a login shell, which is where clusters make ``module`` known."""
    requeue: bool = True
    """Whether a run that was preempted or reached its time limit starts again by itself."""
    warning_s: int = 120
    """So long before its time limit a run is told to write a checkpoint; 0 for never."""
    max_timeouts: int = 100
    """How often one job may start again after its time limit."""
    max_parallel: int = 0
    """Most runs of an array at a time; 0 for as many as the cluster gives."""
    poll_s: float = 30.0
    """How old the queue that commands share may be."""

    @functools.cached_property
    def asked(self) -> Asked:
        """What the options ask for."""
        from . import options  # here: a status starts without it

        return options.read(self.sbatch)


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
        return (self.slurm.sbatch.get("clusters") or "") if self.slurm is not None else ""

    def may_lease(self, label: str) -> bool:
        """Tell whether runs may lease the device that leases call ``label`` (``gpu:0``, ``cpu:0``)."""
        return not self.gpus or not label.startswith("gpu:") or label in {f"gpu:{index}" for index in self.gpus}
