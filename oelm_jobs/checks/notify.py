"""Say whether people can be told of runs on a target, and on request try it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..agent import messages, registry
from ..agent.sentences import _
from ..connections import Connection, as_agent_reads
from ..schedulers import allowed_environment
from ..spec.notify import Notify
from ..spec.study import Study
from ..study import notifying
from .finding import Finding, bad, good, warning


def look(connection: Connection, studies: Sequence[Study], *, sends: bool) -> Iterator[Finding]:
    """Look at all ways on which studies have told of their runs.

    Args:
        sends: Send a test on each.

    Raises:
        ConfigurationError: The user's configuration is off.
        TargetError: The target can't be asked.
    """
    user = notifying.of_user()
    wanted: dict[object, Notify] = {}  # by what they say: many studies say the same
    for notify in [user, *(study.notify for study in studies if study.notify is not None)]:
        if notify.ways:
            wanted.setdefault((notify.webhook, notify.mail, notify.command), notify)
    unsent: dict[str, None] = {}  # of the whole root, in each answer
    for notify in wanted.values():
        yield from _try(connection, notify, unsent, sends=sends)
    for words in unsent:
        yield warning(_("notify"), _("was not sent: {what}", words))
    if sends and not wanted:
        hint = _('write [notify] with mail = "ADDRESS" into jobs/NAME.toml or {path}', str(notifying.path()))
        words = _("neither a study nor {path} has [notify]", str(notifying.path()))
        yield warning(_("notify"), words, hint)


def _try(connection: Connection, notify: Notify, unsent: dict[str, None], *, sends: bool) -> Iterator[Finding]:
    target = connection.target
    request: messages.NotifyTestRequest = {
        "root": as_agent_reads(connection).root,
        "notify": notify.to_json(),
        "target": target.name,
        "sends": sends,
        "environment": allowed_environment(target),
    }
    answer = connection.call(registry.NOTIFY_TEST, request, timeout_s=150)
    for way in notify.ways:
        what = _("notify {way}", f"{way} ({notify.webhook.form})" if notify.webhook and way == "webhook" else way)
        if way in answer["sent"]:
            yield good(what, _("a test was sent: {answer}", answer["sent"][way]))
        elif way in answer["wrong"] and sends:
            yield bad(what, _("a test was not sent: {why}", answer["wrong"][way]))
        elif way in answer["wrong"]:
            yield warning(what, _("nothing can be sent: {why}", answer["wrong"][way]), _("runs are none the worse"))
        else:
            yield good(what, _("there; oelm-doctor {target} --notify sends a test", target.name))
    unsent.update(dict.fromkeys(answer["unsent"]))
