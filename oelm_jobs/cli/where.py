"""The options that say where to run: a target of a targets file, or a host given on the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _
from ..errors import UsageError

if TYPE_CHECKING:
    from ..project import Project
    from ..spec.target import Target


@dataclass(frozen=True, kw_only=True)
class Where:
    """The command line's options about where to run."""

    name: str
    """``--target``; empty where it wasn't given."""
    remote: bool
    """``--remote``."""
    host: str
    """``--host``; empty where it wasn't given."""
    user: str
    """``--user``."""
    port: int
    """``--port``; 0 where it wasn't given."""
    root: str
    """``--root``."""
    setup: tuple[str, ...]
    """``--setup``, each a line of shell."""

    def target(self, project: Project) -> Target:
        """Return the target that the options name.

        Raises:
            UsageError: There is none, or the options contradict each other.
        """
        if self.host:
            if self.name:
                raise UsageError(_("--target and --host exclude each other"))
            return project.host(self.host, user=self.user, port=self.port, root=self.root, setup=self.setup)
        for option in ("user", "port", "root", "setup"):
            if getattr(self, option):
                raise UsageError(
                    _("--{option} goes with --host", option),
                    hint=_("what a target of a targets file needs is written there"),
                )
        if self.name or not self.remote:
            target = project.target(self.name or "local")
            if self.remote and not target.host:
                raise UsageError(_("--remote: target {target} is this machine", target.name))
            return target
        remote = [target for target in project.targets().values() if target.host]
        if len(remote) != 1:
            why = _("no targets file knows one")
            if remote:
                names = [target.name for target in remote]
                why = _("the targets files know {targets}: name one with --target", names)
            raise UsageError(_("--remote: which machine? {why}", why), hint=_("or give --host HOST [--user USER]"))
        return remote[0]


def where_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where to run to a command, which gets them as one argument, ``where``."""

    @functools.wraps(function)
    def gather(
        *args: Any, target_name: str | None, remote: bool, host: str, user: str, port: int, root: str,
        setup: tuple[str, ...], **more: Any,
    ) -> Any:  # fmt: skip
        if target_name == "":
            raise UsageError(_("--target was given no name"), hint=_("leave it out to mean local"))
        where = Where(name=target_name or "", remote=remote, host=host, user=user, port=port, root=root, setup=setup)
        return function(*args, where=where, **more)

    for option in reversed(
        (
            click.option("--target", "target_name", metavar="NAME", help=_("Where to run.  [default: local]")),
            click.option("--remote", is_flag=True, help=_("The one remote target of the targets files.")),
            click.option("--host", default="", metavar="HOST", help=_("A machine behind SSH, in no targets file.")),
            click.option("--user", default="", metavar="USER", help=_("With --host: the login name there.")),
            click.option(
                "--port", default=0, type=click.IntRange(0, 65535), metavar="N", help=_("With --host: its SSH port.")
            ),
            click.option("--root", default="", metavar="DIR", help=_("With --host: folder for runs.  [default: oelm]")),
            click.option(
                "--setup", multiple=True, metavar="LINE", help=_("With --host: a shell line to run first; repeatable.")
            ),
        )
    ):
        gather = option(gather)
    return gather
