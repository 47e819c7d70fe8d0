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
    """What decides when runs start: ``"local"`` (this machine) and ``"ssh"`` lease devices, ``"slurm"`` sends jobs."""
    host: str = ""
    """An alias of ``~/.ssh/config``, a name or an address; of a cluster its login node, absent where this machine has
    ``sbatch``.
    """
    user: str = ""
    """Login name there; absent: what ``~/.ssh/config`` says."""
    port: int = 0
    """Port of its SSH server; 0: what ``~/.ssh/config`` says."""
    connection: str = "fabric"
    """How it is reached: ``"openssh"`` logs in once for all commands, which second factors need."""
    root: str
    """Where runs and code lie there, below the home folder if it isn't absolute; of a cluster on a file system that
    login and compute nodes share; of this machine the project's own folder where it is absent.
    """
    setup: tuple[str, ...] = ()
    """Shell lines that run before anything else: activate an environment, load modules."""
    python: str
    """Interpreter of supervisor and trainer, 3.8 or newer; absent: ``python`` where ``setup`` has lines, else
    ``python3`` behind SSH, and the toolkit's own on this machine.
    """
    data: Mapping[str, str] = field(default_factory=dict)
    """Where data lie there: folder as the study calls it = folder on the target."""
    env: tuple[str, ...] = ()
    """Names of environment variables that runs get from the shell that submits; their values are never written down."""
    checkpoint_root: str = ""
    """Folder of the run directories; absent: ``ROOT/models/checkpoints``."""
    gpus: tuple[int, ...] = ()
    """The only GPUs that runs may lease there, by index; absent: all."""
    avoid: tuple[int, ...] = ()
    """GPUs that runs never lease there."""
    prefer: tuple[int, ...] = ()
    """GPUs that runs lease first where they are free."""
    per_gpu: int = 1
    """So many runs, 1 to 64, may have each GPU at a time. With 2 or more no speed of a run is compared."""
    max_parallel: int = 0
    """Most runs of yours that have devices there at a time; absent: any number. On a cluster: most runs of an array at
    a time, 0 for as many as the cluster gives.
    """
    gpus_per_run: int = 0
    """A quota: every run takes so many GPUs, whatever its group says; the global batch stays the same."""
    template: str = ""
    """Template of the project's ``templates/`` for its scripts, in place of ``launch.sh.j2`` or ``slurm.sh.j2``. After
    ``{% extends "slurm.sh.j2" %}`` it can override the blocks ``shebang``, ``intro``, ``header``, ``setup``,
    ``command``.
    """
    home: str = ""
    """The home folder there, once the target was reached; no file says it."""
    share: str = ""
    """``"group"`` opens the root to the group of its folder, whatever the users' umasks are: set it in the targets file
    of everybody who uses that root. Absent: only you can read what is written there.
    """
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
