"""Answer a client that says what is to be told of a study's runs, or wants a test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, List

from .. import inside, rundir
from ..sentences import _
from . import declared, telling, ways
from .outbox import Outbox

if TYPE_CHECKING:
    from .. import messages

MOST_UNSENT = 5
"""So many messages that were not sent are named."""


def notify(request: messages.NotifyRequest) -> messages.NotifyAnswer:
    """Keep what is to be told of a study's runs, and see to it that somebody watches over them.

    Args:
        request: ``root``, ``study``, ``project`` and ``target`` by their names, ``slurm`` (whether Slurm runs them),
            ``notify`` (what and how), ``runs`` (run directory to token) that are about to be submitted, ``environment``
            (variables of the client that runs get).

    Returns:
        ``folder`` of it, which runs have on their record; ``wrong``: ways on which nothing can be sent from here, and
        why. Of Slurm's runs there is no mail then but Slurm's own.

    Raises:
        inside.Outside: A run has no run directory's path.
    """
    os.environ.update(request.get("environment") or {})
    runs = {inside.run_dir(run_dir): token for run_dir, token in request["runs"].items()}
    root = os.path.expanduser(request["root"])
    # A plain host judges its own runs alone, by its own processes; of a cluster any login node does.
    host = "" if request["slurm"] else os.uname().nodename
    owner = "\0".join((str(os.getuid()), request["project"], request["study"], request["target"], host))
    folder = rundir.control(root, rundir.NOTIFY) / hashlib.sha256(owner.encode("utf-8", "replace")).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(str(folder), 0o700)  # in a shared root, too: a command in it is run as this user
    how = dict(request["notify"])
    wrong = {way: why for way in ways.WAYS if how.get(way) for why in [ways.trouble(way, how[way])] if why}
    if request["slurm"] and "mail" in wrong:
        del how["mail"]  # the client has Slurm send it
    known, now = declared.read(folder), time.time()
    before = dict(known.runs) if known else {}
    merged = {**before, **{run_dir: (token, now) for run_dir, token in runs.items()}}
    content = {
        "version": 1, "study": request["study"], "project": request["project"], "target": request["target"],
        "host": host, "slurm": request["slurm"], "notify": how, "runs": merged,
    }  # fmt: skip
    rundir.write_text(folder / declared.SETTINGS, json.dumps(content, ensure_ascii=False), mode=0o600)
    with contextlib.suppress(FileNotFoundError):
        (folder / declared.CLOSED).unlink()
    found = declared.read(folder)
    if found is None:  # what is kept isn't believed
        why = _("{path}: others may write it, or it can't be read", str(folder / declared.SETTINGS))
        wrong.update((way, why) for way in ways.WAYS if request["notify"].get(way))
    elif merged:
        Outbox(folder).forget({token for token, _since in found.runs.values()})
        if not found.is_slurm:
            declared.leave("watch", folder)
    return {"folder": str(folder), "wrong": wrong}


def notify_test(request: messages.NotifyTestRequest) -> messages.NotifyTestAnswer:
    """Look at the ways on which is told, and send a test on each where that is asked for.

    Args:
        request: ``root``, ``notify`` (the ways), ``target`` by its name, ``sends``, ``environment`` (as in ``notify``).

    Returns:
        By way ``wrong``, why nothing was sent, or would be, and ``sent``, what came back; ``unsent``: what of the
        root's runs was not told lately.
    """
    os.environ.update(request.get("environment") or {})
    how = request["notify"]
    message = telling.a_test(request["target"])
    unsent: List[str] = [
        _("{message} ({way}: {why})", each.title, each.way, each.why) for each in declared.failures(request["root"])
    ]
    answer: messages.NotifyTestAnswer = {"wrong": {}, "sent": {}, "unsent": unsent[-MOST_UNSENT:]}
    for way in ways.WAYS:
        if not how.get(way):
            continue
        why = ways.trouble(way, how[way])  # type: ignore[literal-required]  # one of its keys
        if not why and request["sends"]:
            said = ways.send(way, how[way], message)  # type: ignore[literal-required]
            answer["sent" if said.is_sent else "wrong"][way] = said.words
        elif why:
            answer["wrong"][way] = why
    return answer
