"""Dataclasses of what is told of runs, and on which ways."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from ..agent import messages


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where to post. Addresses and tokens are secrets, which only the sending host knows."""

    form: str
    """Whose service it is, or ``json``: an object for one of your own."""
    url_file: str = ""
    """File on the host where the runs are that holds the address, readable by you alone (``chmod 600``)."""
    url_env: str = ""
    """Environment variable there that holds it."""
    url: str = ""
    """The address itself, where it is no secret: one of that host's own, or of ntfy with a token."""
    token_file: str = ""
    """File that holds a token, which is sent as ``Authorization: Bearer``."""
    token_env: str = ""
    """Environment variable that holds it."""


@dataclass(frozen=True, kw_only=True)
class Notify:
    """``[notify]`` of a study, or of the user's own configuration."""

    on: tuple[str, ...] = ()
    """What of single runs is told: ``"fail"``, ``"end"`` (however it ends), ``"stalled"``. When all runs of the study
    are over, that is told once in any case.
    """
    stalled_after_s: float = 0.0
    """For how long a run that tells no step and prints nothing counts as running, as in ``"30m"`` (``s``, ``m``,
    ``h``, ``d``), a minute at least; goes with ``"stalled"``.
    """
    webhook: Webhook | None = None
    """Where to post: a table."""
    mail: str = ""
    """An address, which has a letter through the host's ``sendmail``."""
    command: tuple[str, ...] = ()
    """A program on that host and its arguments; it reads the message as JSON."""

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways on which is told."""
        return tuple(way for way in ("webhook", "mail", "command") if getattr(self, way))

    def to_json(self) -> messages.Notify:
        """Return it as the agent takes it."""
        content: dict[str, object] = {"on": list(self.on), "stalled_after_s": self.stalled_after_s}
        if self.webhook is not None:
            content["webhook"] = {key: value for key, value in asdict(self.webhook).items() if value}
        if self.mail:
            content["mail"] = self.mail
        if self.command:
            content["command"] = list(self.command)
        return cast("messages.Notify", content)
