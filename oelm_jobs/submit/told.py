"""Have told of a study's runs what it, or the user, wants told (agent/notify)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..agent import messages, registry
from ..agent.sentences import _
from ..connections import Connection
from ..errors import OelmError
from ..schedulers import allowed_environment
from ..spec.notify import Notify
from ..study.plan import Plan


class Told(NamedTuple):
    """What the target said."""

    folder: str = ""
    """Where it keeps what is to be told; empty where nothing is."""
    slurm_mail: Mapping[str, str] = MappingProxyType({})
    """Options of sbatch, by which Slurm sends the mail that can't be sent there."""


MAIL_TYPES = {"fail": "FAIL", "end": "END"}
"""What sbatch(1) calls it, under --mail-type."""


def declare(
    plan: Plan, connection: Connection, notify: Notify, runs: Mapping[str, str], say: Callable[[str], None]
) -> Told:
    """Let the target know what is to be told of runs. No run suffers where that fails: it is said.

    Args:
        runs: Run directory to the token of its submission, of those that are about to be submitted or under way.
        say: Is told on which ways nothing can be sent.
    """
    if not notify.ways and plan.study.notify is None:
        return Told()
    is_slurm = plan.target.slurm is not None
    request: messages.NotifyRequest = {
        "root": connection.resolved.root,
        "study": plan.study.name,
        "project": str(plan.project),
        "target": plan.target.name,
        "slurm": is_slurm,
        "notify": notify.to_json(),
        "runs": dict(runs),
        "environment": allowed_environment(plan.target),
    }
    try:
        answer = connection.call(registry.NOTIFY, request)
    except OelmError as error:
        say(_("notify: nothing will be told of these runs: {why}", str(error)))
        return Told()
    wrong = dict(answer["wrong"])
    types = [MAIL_TYPES[event] for event in notify.on if event in MAIL_TYPES]
    mail: dict[str, str] = {}
    if is_slurm and types and (why := wrong.pop("mail", "")):
        words = _("notify: mail: {why} ({target}): Slurm sends it, of single runs alone", why, plan.target.name)
        say(words)
        mail = {"mail-user": notify.mail, "mail-type": ",".join([*types, "ARRAY_TASKS"])}
    for way, why in wrong.items():
        say(
            _(
                "notify: {way}: nothing can be sent from {target} as it is: {why} (once mended, oelm-doctor {target}"
                " --notify tries it)",
                way,
                plan.target.name,
                why,
            )
        )
    return Told(answer["folder"], mail)
