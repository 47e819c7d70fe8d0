"""Submitting scripts to Slurm, each at most once, and settling what became of one whose answer was lost.

A submission's file is made exclusively before anything is sent, and each sending of a script has an exclusive file of
its own, so that neither a repeated request nor two of them at once send anything twice. sbatch's answer may be lost
("Socket timed out": the job may run all the same): it is then looked for by its name, which holds the token. What is
not found is settled by the job's *fate*, a file that is made once: by the first supervisor of the job ("started") or
by whoever gives it up ("settled"), after which the job, should it ever appear, does nothing.

Files in ``<root>/.oelm/slurm``, all beginning ``<token>.<position>``: ``.sh`` the script (which runs by hand, too),
``.sent.<try>`` (of the newest tries), ``.answer.json``, ``.fate.json``, and ``.log`` or ``_<task>.log``, the job's own
output.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, cast

from .. import inside, processes, reasons, rundir, snapshots
from ..host import launch
from ..sentences import _, encoded
from . import accounts, commands, needed
from .commands import MARK, NotRun, SlurmError
from .variables import set_aside, with_variables
from .words import is_hearsay, read_answer

if TYPE_CHECKING:
    from .. import messages

FOLDER = "slurm"
"""Folder in a root's control folder."""
WHY = ("refused", "unknown", "limit")
"""What an answer says in words, each for itself."""
FATE = ".fate.json"
"""Ending of the file that is made by whoever is first: the job, or who gives it up."""
PATIENCE_S = float(os.environ.get("OELM_LOOK_FOR_S", "30"))
"""So long a job whose answer was lost is looked for before it is left unknown, or given up."""
LOOK_S = 2.0
KEPT = ("position", "name", "run_dirs", "needs")
"""What a submission's file says of each job."""
SBATCH_TIMEOUT_S = 180.0
"""sbatch retries by itself where the controller is busy or limits its rate."""
Sender = Callable[[str, Sequence[str]], Tuple[int, str, str]]
"""Runs sbatch on a script with more options; returns (exit code, stdout, stderr)."""


def folder(root: str) -> Path:
    """Return (and make) the folder of scripts, answers and output.

    Raises:
        launch.NotWritable: It can't be made.
    """
    path = Path(root) / rundir.CONTROL / FOLDER
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise launch.NotWritable(root, error) from error
    return path


def file_of(root: str, token: str, position: int, ending: str) -> Path:
    """Return the path of a job's file."""
    return Path("%s/%s/%s/%s.%d%s" % (root, rundir.CONTROL, FOLDER, token, position, ending))  # a status makes many


def sbatch(script: str, options: Sequence[str], variables: Optional[Mapping[str, str]] = None) -> Tuple[int, str, str]:
    """Run sbatch, which hands its environment on to the job."""
    for name in set_aside(Path(script).read_text(encoding="utf-8")):
        del os.environ[name]
    return commands.call(["sbatch", *options, script], SBATCH_TIMEOUT_S, variables or {})


def slurm_submit(request: messages.SlurmSubmitRequest, send: Sender = sbatch) -> messages.SlurmSubmitAnswer:
    """Send the scripts of a submission, or those of them that found no room before.

    Args:
        request: ``root``, ``token``, ``jobs``: a list of ``position``, ``name``, ``script``, ``run_dirs``, ``after``
            (position of the job that must have ended before, or None); ``snapshot``: name of the code that they need;
            ``environment``: variables of the client.

    Returns:
        ``answer``: accepted, settled or lacking (the snapshot is gone; nothing was sent); ``jobs``: position (as text)
            to one of ``{"id": …}``, ``{"refused": words}``, ``{"unknown": words}``, ``{"limit": words}`` (no room now:
            ask again).
    """
    root, token, jobs = request["root"], request["token"], request["jobs"]
    run_dirs = [inside.run_dir(run_dir) for job in jobs for run_dir in job["run_dirs"]]
    kept = [{name: job[name] for name in KEPT if name in job} for job in jobs]  # type: ignore[literal-required]
    answers: Dict[int, messages.Sent] = {}
    with snapshots.needed(root, request.get("snapshot") or "") as is_there:
        folder(root)
        scripts = (job["script"] for job in jobs)
        refused = launch.begin(request, run_dirs, scripts, is_there, time=time.time(), scheduler="slurm", jobs=kept)
        if refused and refused != "repeated":
            return {"answer": refused, "jobs": {}}
        for job in jobs:
            script = file_of(root, token, job["position"], ".sh")
            # What waits for room takes from others, too, or doesn't: before anybody may remove that, it is on record.
            if job["script"] and not script.exists():
                rundir.write_text(script, job["script"], mode=0o777, durable=False)
        os.environ.update(request.get("environment") or {})
        for job in jobs:
            answers[job["position"]] = _send(root, token, job, answers, send)
    commands.forget_queue()
    return {"answer": "accepted", "jobs": {str(position): answer for position, answer in answers.items()}}


def _send(
    root: str, token: str, job: messages.Script, answers: Mapping[int, messages.Sent], send: Sender
) -> messages.Sent:
    """Send one script unless it was sent; return its answer."""
    position, after = job["position"], job.get("after")
    known = answer_of(root, token, position)
    if known is not None and "limit" not in known:
        return known
    if any("limit" in answer for answer in answers.values()):
        return {"limit": _("waits for the ones before it")}
    before = answers.get(after) if after is not None else None
    if before is not None and "id" not in before:
        words = (
            _("not sent: the run before it was not accepted")
            if "refused" in before
            else _("not sent: what became of the run before it is not known")
        )
        return _remember(root, token, position, {"refused": words})
    depends = [needed.dependency(root, need, answer_of) for need in job.get("needs") or ()]
    for each in depends:
        if each.refused:
            return _remember(root, token, position, {"refused": each.refused})
        if each.limit:
            return {"limit": each.limit}
    number = known.get("try", 0) + 1 if known is not None else 1
    sent = {"time": time.time(), "maker": processes.identify(os.getpid()).to_json()}
    # Not durable, like the script and the answer: after a power loss the job is looked for, or given up for good.
    if not rundir.create(file_of(root, token, position, ".sent.%d" % number), sent, durable=False):
        return _sent_by_another(root, token, job)
    if answer_of(root, token, position) != known:  # another command has come and gone meanwhile
        return {"limit": _("another command is sending it")}
    with contextlib.suppress(OSError):  # a night of waiting for room is thousands of tries
        file_of(root, token, position, ".sent.%d" % (number - 2)).unlink()
    script = file_of(root, token, position, ".sh")
    for run_dir in rundir.that_may_exist(job["run_dirs"]):
        with contextlib.suppress(OSError):
            rundir.control(run_dir, rundir.CANCEL).unlink()
    if not _holds(script, job["script"]):
        rundir.write_text(script, job["script"], mode=0o777, durable=False)
    waits = ["afterany:" + before["id"]] if before else []
    waits += [each.words for each in depends if each.words]
    options = ["--dependency=" + _joined(waits, job["script"])] if waits else []
    if any(each.startswith("afterok") for each in waits):
        options.append("--kill-on-invalid-dep=yes")  # it ends as CANCELLED, and doesn't wait for ever
    begun = time.time()
    answer: Dict[str, str]
    try:
        code, out, err = send(str(script), options)
    except NotRun as error:
        answer = {"refused": str(error)}
    except SlurmError as error:  # the deadline passed
        answer = {"unknown": str(error)}
    else:
        answer = read_answer(code, out, err)
        if "refused" in answer and is_hearsay(code, err):
            # Should sbatch have taken it all the same, the job must not run.
            is_fenced = rundir.create(file_of(root, token, position, FATE), {"fate": "settled", "time": time.time()})
            answer = answer if is_fenced else {"unknown": answer["refused"]}
        answer = with_variables(answer, job["script"])
    if "unknown" in answer:
        found = look_for(job["name"], begun, PATIENCE_S)
        if found:
            answer = {"id": found}
    kept = cast("messages.Kept", answer)
    if "limit" in kept:
        kept["try"] = number
    return _remember(root, token, position, kept)


def _holds(script: Path, text: str) -> bool:
    """Tell whether a script is there, and whole: a power cut may have left it empty."""
    try:
        return script.read_bytes() == text.encode("utf-8", "backslashreplace")
    except OSError:
        return False


def _sent_by_another(root: str, token: str, job: messages.Script) -> messages.Sent:
    """Return what to say of a script whose sending has begun and has no answer: ask again while its maker lives; else
    its job is looked for.
    """
    try:
        sent_at = _sent_at(root, token, job["position"])
    except SlurmError:
        return {"limit": _("another command is sending it")}
    found = _find(root, token, job, sent_at, sent_at)
    return found or {"unknown": _("the command that was sending it has ended without an answer")}


def _find(root: str, token: str, job: messages.Script, sent_at: float, since: float) -> Optional[messages.Sent]:
    """Look for the job of a script that was sent, and remember it as the answer; None where there is none."""
    found = look_for(job["name"], since, max(0.0, sent_at + PATIENCE_S - time.time()))
    return _remember(root, token, job["position"], {"id": found}, at=sent_at) if found else None


def _joined(words: Sequence[str], script: str) -> str:
    """Return what a job depends on, with what the script states: an option replaces that otherwise."""
    stated = re.search(r'^#SBATCH --dependency="?([^"\n]+)', script, re.MULTILINE)
    return ",".join([*words, *([stated[1]] if stated else [])])


def look_for(name: str, since: float, patience_s: float) -> Optional[str]:
    """Return the id of the job called ``name``, looking for it in the queue for a while and then in accounting."""
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(SlurmError):
            for row in commands.queue("--me"):  # all of them: a site's plugin may have renamed it
                if row.name == name or set(MARK.findall(name)).intersection(row.marks):
                    return row.id.partition("_")[0]
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK_S)
    with contextlib.suppress(SlurmError):
        _code, out, _err = accounts.ask(since, "--name=" + name)
        rows = [row for row in accounts.read(out) if row.name == name]
        return rows[-1].id.partition("_")[0] if rows else None
    return None


def answer_of(root: str, token: str, position: int) -> Optional[messages.Kept]:
    """Return what became of a script; None where no answer is known."""
    answer = rundir.read_json(file_of(root, token, position, ".answer.json"))
    if answer is not None and "code" in answer:
        beside = {key: answer.pop(key, None) for key in reasons.BESIDE}
        answer.update((kind, reasons.read(dict(beside, reason=answer[kind]))) for kind in WHY if kind in answer)
    return cast("Optional[messages.Kept]", answer)


def _remember(root: str, token: str, position: int, answer: messages.Kept, at: float = 0.0) -> messages.Kept:
    """Keep an answer, and when it was given (or the script sent, where it is found out later)."""
    content: Dict[str, object] = {**answer, "time": at or time.time()}
    for kind in WHY:
        content.update(encoded(str(content.get(kind, ""))))
    rundir.write_json(file_of(root, token, position, ".answer.json"), content, durable=False)
    return answer


# Settling -------------------------------------------------------------------------------------------------------------


def slurm_settle(request: messages.Submission) -> messages.SlurmSettleAnswer:
    """Answer for good which jobs of a submission were accepted; those that were not by now never will be.

    Args:
        request: ``root``, ``token``.

    Returns:
        ``answer``: accepted (one at least) or settled; ``runs``: the accepted run directories; ``refused``: the others
            that are known, with the reason.

    Raises:
        SlurmError: It can't be found out now: slurmctld does not answer, or a job is being sent.
    """
    root, token = os.path.expanduser(request["root"]), request["token"]
    content = {"version": 1, "token": token, "time": time.time(), "settled": True, "scheduler": "slurm", "jobs": []}
    if launch.take(root, token, content):
        return {"answer": "settled", "runs": [], "refused": {}}
    known = rundir.read_json(launch.submission_file(root, token)) or {}
    runs: List[str] = []
    refused: Dict[str, str] = {}
    for job in known.get("jobs", []):
        if _settle_job(root, token, job, float(known.get("time", 0))):
            runs += job["run_dirs"]
        else:
            answer = answer_of(root, token, job["position"])
            refused.update(dict.fromkeys(job["run_dirs"], (answer or {}).get("refused", "")))
    return {"answer": "accepted" if runs else "settled", "runs": runs, "refused": refused}


def _settle_job(root: str, token: str, job: messages.Script, since: float) -> bool:
    position = job["position"]
    answer = answer_of(root, token, position) or {}
    if "id" in answer or "refused" in answer:
        return "id" in answer
    sent_at = _sent_at(root, token, position)
    commands.queue("--name=" + job["name"])  # raises where slurmctld can't be asked: nothing is settled blindly
    if sent_at and _find(root, token, job, sent_at, since):
        return True
    return not give_up(root, token, position)


def _sent_at(root: str, token: str, position: int) -> float:
    """Return when a script was last sent; 0 where it never was.

    Raises:
        SlurmError: It is being sent right now.
    """
    newest = 0.0
    for path in folder(root).glob("%s.%d.sent.*" % (token, position)):
        sent = rundir.read_json(path) or {}
        maker = processes.Identity.from_json(sent.get("maker"))
        here = maker is not None and maker.host == os.uname().nodename
        if here and maker is not None and maker.is_alive() and maker.pid != os.getpid():
            raise SlurmError(_("submission {token} is being sent", token))
        newest = max(newest, float(sent.get("time", 0)))
    return newest


def give_up(root: str, token: str, position: int) -> bool:
    """Make sure that a job never runs, whenever it may appear; False where it has started."""
    path = file_of(root, token, position, FATE)
    is_first = rundir.create(path, {"fate": "settled", "time": time.time()})
    if not is_first and (rundir.read_json(path) or {}).get("fate") == "started":
        return False
    no_room = (answer_of(root, token, position) or {}).get("limit")
    words: str = _("sbatch gave no answer, and no job of this submission appeared")
    if not any(folder(root).glob("%s.%d.sent.*" % (token, position))):
        words = rundir.NEVER_SENT
    elif no_room:
        words = _("its submission was ended while it waited for room ({limit})", no_room)
    _remember(root, token, position, {"refused": words})
    return True


# Finding again --------------------------------------------------------------------------------------------------------


def waiting_records(root: str) -> Dict[str, Dict[str, object]]:
    """Return by run directory the record of its newest submission, where the run has not begun under it yet.

    A run that begins writes the record itself (run.json); until then the script is the only place that holds it.
    """
    newest: Dict[str, Tuple[float, str, int, int]] = {}
    for path in launch.submission_file(root, "").parent.glob("*.json"):
        content = rundir.read_json(path) or {}
        for job in content.get("jobs", ()) if content.get("scheduler") == "slurm" else ():
            if "refused" in (answer_of(root, str(content["token"]), int(job["position"])) or {"refused": ""}):
                continue
            for index, run_dir in enumerate(job["run_dirs"]):
                place = (float(content["time"]), str(content["token"]), int(job["position"]), index)
                newest[run_dir] = max(place, newest.get(run_dir, place))
    found: Dict[str, Dict[str, object]] = {}
    scripts: Dict[Tuple[str, int], List[Dict[str, object]]] = {}
    for run_dir, (sent_at, token, position, index) in newest.items():
        begun = rundir.read_json(rundir.control(run_dir, rundir.RUN)) or {}
        if begun.get("token") == token or _made_at(root, begun.get("token")) > sent_at:
            continue  # it has begun, under this submission or a later one that was not Slurm's
        if (token, position) not in scripts:
            scripts[token, position] = rundir.records_of(file_of(root, token, position, ".sh"))
        if index < len(scripts[token, position]):
            found[run_dir] = dict(scripts[token, position][index], run_dir=run_dir)
    return found


def _made_at(root: str, token: Any) -> float:
    """Return when a submission was made; 0 where this root has none of that token."""
    made = (
        rundir.read_json(launch.submission_file(root, token)) if token and inside.TOKEN.fullmatch(str(token)) else None
    )
    return float(rundir.finite((made or {}).get("time")) or 0)
