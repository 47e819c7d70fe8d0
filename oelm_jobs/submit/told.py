"""Have told of a study's runs what it, or the user, wants told (agent/notify)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..agent import messages, registry
from ..agent.sentences import _
from ..connections import Connection
from ..errors import OelmError
from ..schedulers import allowed_environment
from ..spec.notify import Notify
from ..study.plan import Plan


def declare(
    plan: Plan, connection: Connection, notify: Notify, runs: Mapping[str, str], say: Callable[[str], None]
) -> str:
    """Let the target know what is to be told of runs; return the folder there that holds it, empty where nothing is.

    No run suffers where that fails: it is said.

    Args:
        runs: Run directory to the token of its submission, of those that are about to be submitted or under way.
        say: Is told on which ways nothing can be sent.
    """
    if not notify.ways and plan.study.notify is None:
        return ""
    request: messages.NotifyRequest = {
        "root": connection.resolved.root,
        "study": plan.study.name,
        "project": str(plan.project),
        "target": plan.target.name,
        "slurm": plan.target.slurm is not None,
        "notify": notify.to_json(),
        "runs": dict(runs),
        "environment": allowed_environment(plan.target),
    }
    try:
        answer = connection.call(registry.NOTIFY, request)
    except OelmError as error:
        say(_("notify: nothing will be told of these runs: {why}", str(error)))
        return ""
    for way, why in answer["wrong"].items():
        say(_("notify: {way}: nothing can be sent from {target} as it is: {why}", way, plan.target.name, why))
    return answer["folder"]
