"""The types and limits of every request to a verb and of every answer.

A key that is not here does not exist for the other side: what a module comes to answer is added here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Mapping, NamedTuple, Optional, Tuple

from . import reasons, rundir, schema
from .schema import Anything, Each, Either, Flag, Map, Maybe, Number, Row, Table, Text
from .sentences import _
from .states import TOLD, Checkpoints, State

if TYPE_CHECKING:
    Shapes = Mapping[str, schema.Shape]

# What there is ----------------------------------------------------------------------------------------------------

WORDS = Text(most=2000, is_prose=True)
"""Reasons, errors, names of devices: for people."""
LINE = Text(most=300, is_prose=True)
PATH = Text(most=4096, pattern=r"[^\0]+")
OPTIONAL_PATH = Text(most=4096, pattern=r"[^\0]*")
ABSOLUTE = Text(most=4096, pattern=r"/[^\0]*")
TOKEN = Text(most=128, pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]*")
BASE64 = Text(most=2 << 20, pattern="[A-Za-z0-9+/]*={0,2}", unit=4)
HASH = Text(most=128, pattern="[0-9a-f]+")
MAYBE_HASH = Text(most=128, pattern="[0-9a-f]*")
JOB = Text(most=64, pattern=r"[0-9][0-9_\[\]a-z+.-]*")
STATE = Text(among=TOLD)
COUNT = Number(0, 2**53, whole=True)
SIZE = Number(0, 2**63 - 1, whole=True)
TIME = Number(0, 1e11)
"""Unix seconds."""
SCRIPT = Text(most=16 << 20)
ENVIRONMENT = Map(Text(most=131_072), 1000)
MOST_NEEDS = 1000
"""So many runs may one run need."""
RUN_DIRS = Each(ABSOLUTE)
RUN_TOKENS = Each(Row((ABSOLUTE, Text(most=128))))

METRIC_NAME = Text(most=200)
METRIC = Either((Number(), Text(among=("nan", "inf", "-inf"))))
MOST_METRICS = 100
PROGRESS: Shapes = {
    "token": Maybe(Text(most=128)), "devices": Maybe(Each(LINE, 4096)), "started_at": Maybe(TIME),
    "ended_at": Maybe(TIME), "attempt": Maybe(COUNT), "place": Maybe(COUNT), "absent": Maybe(Flag()),
    "job": Maybe(JOB), "starts_at": Maybe(TIME), "step": Maybe(COUNT), "max_steps": Maybe(COUNT),
    "loss": Maybe(Number()), "val_loss": Maybe(Number()), "tokens_per_s": Maybe(Number(0)),
    "heartbeat_at": Maybe(TIME), "metrics": Maybe(Map(METRIC, MOST_METRICS, METRIC_NAME)),
}  # fmt: skip
"""What is said of a run besides its state and reason."""
STANDS = Table({"state": STATE, "reason": Maybe(WORDS)}, {**PROGRESS, **reasons.BESIDE})

MEGABYTES = Number(0, 2**40, whole=True)
DEVICE = Table(
    {"label": LINE, "name": LINE, "memory_mb": MEGABYTES, "memory_used_mb": MEGABYTES,
     "utilisation": Number(0, 1000, whole=True), "user": LINE, "run": LINE, "holder": WORDS, "fault": WORDS}
)  # fmt: skip
INDICES = Each(Number(0, 1 << 20, whole=True), 4096)
TICKET = Table(
    {"user": LINE, "run": LINE, "run_dir": Text(is_prose=True)},
    {"time": Number(), "token": LINE, "request": Either((COUNT, INDICES)), "devices": INDICES},
)
LEASES: Shapes = {"devices": Each(DEVICE, 4096), "queue": Each(TICKET), "limit": WORDS, "junk": Each(WORDS)}

FIELDS = Each(Map(WORDS, 64), 100_000)
"""A table of sacctmgr's."""
PARTITION = Table(
    {"name": LINE, "is_default": Flag(), "is_up": Flag(), "takes_jobs": Flag(), "max_time": LINE, "default_time": LINE,
     "nodes": COUNT, "gres": Each(LINE, 10_000), "features": Each(LINE, 10_000), "qos": LINE}
)  # fmt: skip
SITE = Table(
    {"version": LINE, "cluster": LINE, "partitions": Each(PARTITION, 10_000),
     "users": Each(Table({"defaultaccount": LINE}), 1000),
     "accounts": Each(Table({"account": LINE, "partition": LINE, "qos": WORDS, "defaultqos": LINE}, {
         "maxsubmitjobs": LINE, "grpsubmitjobs": LINE, "maxwall": LINE, "maxtres": WORDS, "grptres": WORDS})),
     "groups": Each(Table({"account": LINE, "parentname": LINE}, {
         "grpsubmitjobs": LINE, "maxtres": WORDS, "grptres": WORDS})),
     "qualities": Each(Table({"name": LINE}, {
         "flags": WORDS, "maxsubmitjobsperuser": LINE, "maxsubmitjobsperaccount": LINE, "grpsubmitjobs": LINE,
         "maxtres": WORDS, "maxtresperuser": WORDS, "maxtresperaccount": WORDS, "grptres": WORDS})),
     "is_enforced": Flag(), "is_limited": Flag(), "max_array": COUNT},
    {"kill_wait_s": Number(0)},
)  # fmt: skip
HOST: Shapes = {"host": LINE, "time": TIME}
ON_A_CLUSTER: Shapes = {"site": SITE, "disk_free": SIZE, **LEASES}

NAME = Text(most=1024, pattern=r"[^\0]+")
LEFT = Table({"name": NAME, "size": SIZE, "sha256": MAYBE_HASH})
ANNOUNCED = Table(
    {"name": NAME, "size": SIZE, "sha256": HASH, "grows": Flag()},
    {"content": BASE64, "source": Text(most=1024)},
)
HELD = Table(
    {"state": STATE, "reason": Maybe(WORDS), "files": Each(ANNOUNCED), "left": Each(LEFT), "gone": Each(NAME),
     "final": Flag(), "origin": Text(most=256)},
    {"path": PATH, "absent": Maybe(Flag())},
)  # fmt: skip
BESIDE: Shapes = {"manifest": Maybe(Anything(is_table=True)), "manifest_error": WORDS}
TOKEN_FILE = Either(
    (
        Table(
            {**BESIDE, "size": SIZE, "written_as": Text(most=32, pattern="[a-z0-9]*"), "sha256": HASH},
            {"largest": COUNT, "at": SIZE},
        ),
        Table({**BESIDE, "error": WORDS}),
    )
)
TRIED: Shapes = {"starts_in_s": Number(0), "refused": WORDS, "limit": WORDS, "unknown": WORDS}
QUOTA = Table(
    {"mount": PATH, "paths": Each(PATH, 16), "group": LINE, "used": SIZE, "limit": SIZE, "files": SIZE,
     "files_limit": SIZE}
)  # fmt: skip
ANSWERED = {"answer": Text(among=("accepted", "repeated", "settled"))}
SUBMITTED = {"answer": Text(among=("accepted", "repeated", "settled", "lacking"))}
TREE = Text(most=16, pattern="[0-9a-f]{16}")
TREES = Each(TREE)
COPY = Text(most=1024, pattern=r"[^/\0]+/[^/\0]+/[0-9a-f]{16}")
"""A copy of what runs take from another target: study, run, and its hash."""
TAKEN = Table({"run_dir": ABSOLUTE, "name": NAME, "study": Text(), "run": Text(), "state": STATE}, {"more": COUNT})
FOUND = Anything(depth=200, is_table=True)
DONE = Text(among=("cancelled", "not running", "still ending"))
MOVED = Table({"moved": Map(PATH), "busy": Each(ABSOLUTE), "gpu_hours": Map(Number(0))}, {"removed": Each(ABSOLUTE)})

EVENTS = ("fail", "end", "stalled")
"""What of a run may be told."""
FORMS = ("json", "slack", "feishu", "wecom", "ntfy")
"""In what form a webhook may be told."""
VARIABLE = Text(most=256, pattern=r"[A-Za-z_][A-Za-z0-9_]*")
WEBHOOK = Table(
    {"form": Text(among=FORMS)},
    {"url": Text(most=2000), "url_env": VARIABLE, "url_file": PATH, "token_env": VARIABLE, "token_file": PATH},
)
NOTIFY = Table(
    {"on": Each(Text(among=EVENTS), len(EVENTS)), "stalled_after_s": Number(0)},
    {"webhook": WEBHOOK, "mail": Text(most=320, pattern=r"[^\s<>,;@-][^\s<>,;@]*@[^\s<>,;@]+"),
     "command": Each(Text(most=4096), 100)},
)  # fmt: skip
"""What is to be told of runs, and on which ways."""

# Verbs ------------------------------------------------------------------------------------------------------------

ANSWERS: Shapes = {
    "": Table({}),
    "launch": Table({**SUBMITTED, "runs": Map(Text(among=("started", "busy")))}),
    "settle": Table({**ANSWERED, "runs": Each(ABSOLUTE)}),
    "cancel": Table({"runs": Map(DONE)}),
    "archive": MOVED,
    "find": Table({"runs": Each(FOUND)}),  # each is judged for itself (records)
    "archived": Table({"runs": Map(Either((ABSOLUTE, Text(most=0))))}),
    "data": Table({"files": Map(TOKEN_FILE)}),
    "content": Table({"files": Map(Either((
        Table({"size": SIZE, "sha256": HASH}, {"files": Map(HASH, keys=NAME), "arriving": PATH}),
        Table({"error": WORDS}))))}),
    "expect": Either(
        (Table({"staging": ABSOLUTE, "link": NAME, "free": SIZE, "rsync": Text()}), Table({"error": WORDS}))
    ),
    "accept": Table({"placed": Each(NAME), "damaged": Each(NAME), "taken": Each(NAME)}),
    "inventory": Table({"rsync": Text(), "runs": Map(HELD)}),
    "release": Table({}),
    "remove": Table({"runs": Map(Table({"removed": Each(NAME), "freed": SIZE, "kept": Map(WORDS, keys=NAME)}))}),
    "snapshots": Table(
        {"unused": TREES, "freed": SIZE, "note": WORDS, "copies": Map(SIZE, keys=COPY), "taken": Each(TAKEN, 300_000),
         "doubt": WORDS},
    ),
    "discard": Table({"removed": TREES, "freed": SIZE, "copies": Each(COPY)}),
    "log": Table({"content": BASE64, "offset": SIZE, "size": SIZE, "state": STATE, "reason": Maybe(WORDS)}),
    "probe": Table({**HOST, "runs": Map(STANDS)}, {"disk_free": SIZE, "lease_error": WORDS, **LEASES}),
    "examine": Table(
        {"agent_python": LINE, **HOST, "user": LINE, "root": PATH, "devices": Each(DEVICE, 4096), "queue": Each(TICKET),
         "checkpoints": PATH, "disk_free": SIZE, "writable": WORDS, "locks": WORDS, "quotas": Each(QUOTA, 1000),
         "trial": Either((
             Table({"setup_error": WORDS, "line": Text(is_prose=True), "is_broken": Flag()}),
             Table({"error": WORDS}),
             Table({"python": LINE, "wandb": Flag(), "torch": LINE, "cuda": Flag(), "gpus": COUNT},
                   {"trainer_error": WORDS, "compiling": WORDS, "slurm_error": WORDS}),
             Map(Flag(), most=0))),
         "bash": Text(), "rsync": Text(), "ends_processes": Flag(), "wandb_login": Flag(),
         "ports_taken": Each(COUNT, 10_000), "data": Map(TOKEN_FILE)},
        {"lease_folder": PATH, "lease_error": WORDS, "limit": WORDS, "junk": Each(WORDS), "lease_privacy": WORDS,
         "lease_room": SIZE, "lease_files": Number(-1, 2**63 - 1, whole=True), "site": SITE, "site_error": WORDS,
         "partitions": Each(LINE, 10_000),
         "tests": Map(Either(tuple(
             Table({kind: each}, {"options": Each(LINE, 1000)}) for kind, each in TRIED.items())))},
    ),
    "slurm_submit": Table(
        {**SUBMITTED, "jobs": Map(Either((
            Table({"id": JOB}), Table({"refused": WORDS}), Table({"unknown": WORDS}), Table({"limit": WORDS}))))}
    ),
    "slurm_settle": Table({**ANSWERED, "runs": Each(ABSOLUTE), "refused": Map(WORDS)}),
    "slurm_poll": Table({**HOST, "runs": Map(STANDS)}, {"queue_age_s": Number(0), **ON_A_CLUSTER}),
    "slurm_cancel": Table({"runs": Map(DONE)}),
    "slurm_archive": MOVED,
    "slurm_trial": Table({"slurm_error": WORDS}),
    "notify": Table({"folder": ABSOLUTE, "wrong": Map(WORDS)}),
    "notify_test": Table({"wrong": Map(WORDS), "sent": Map(WORDS), "unsent": Each(WORDS)}),
}  # fmt: skip

ROOT: Shapes = {"root": PATH}
ARCHIVED = Table({"run_dirs": RUN_DIRS}, {"below": Each(PATH, 16)})
SUBMISSION: Shapes = {"root": PATH, "token": TOKEN}
UNUSED: Shapes = {"checkpoint_root": OPTIONAL_PATH, "young_s": Number(0)}
REQUESTS: Dict[str, Table] = {
    "launch": Table(
        {**SUBMISSION, "runs": Each(Table(
            {"run_dir": ABSOLUTE, "token": TOKEN, "script": SCRIPT},
            {"gpus": Either((COUNT, INDICES)), "after": Maybe(ABSOLUTE), "needs": Each(ABSOLUTE, MOST_NEEDS)}))},
        {"environment": Maybe(ENVIRONMENT), "snapshot": Maybe(TREE)},
    ),
    "settle": Table(SUBMISSION),
    "cancel": Table({"run_dirs": RUN_DIRS}),
    "archive": ARCHIVED,
    "find": Table(ROOT, {"checkpoint_root": OPTIONAL_PATH}),
    "archived": Table({"runs": Map(Table({"run_dir": ABSOLUTE, "token": Text(most=128), "place": OPTIONAL_PATH}))}),
    "data": Table({**ROOT, "files": Each(PATH, 1000)}, {"whole": Maybe(Flag())}),
    "content": Table({**ROOT, "files": Each(PATH, 1000)}, {"each": Flag()}),
    "expect": Table({"folder": ABSOLUTE, "name": TOKEN, "link": Flag()}),
    "accept": Table({"staging": ABSOLUTE, "folder": ABSOLUTE, "files": Map(HASH, keys=NAME)}),
    "inventory": Table(
        {"runs": Each(Table({"run_dir": ABSOLUTE}, {"have": Maybe(Map(HASH, keys=NAME))})),
         "checkpoints": Text(among=tuple(each.value for each in Checkpoints))},
        {"records": Flag()},
    ),
    "release": Table({"runs": Map(Each(NAME))}),
    "remove": Table(
        {**ROOT, "runs": Each(Table({"run_dir": ABSOLUTE, "files": Map(Row((SIZE, HASH)), keys=NAME)}))},
        {"checkpoint_root": OPTIONAL_PATH},
    ),
    "snapshots": Table(ROOT, UNUSED),
    "discard": Table({**ROOT, "names": TREES, "copies": Each(COPY)}, UNUSED),
    "log": Table(
        {"run_dir": ABSOLUTE, "name": Text(among=(rundir.LOG, "%s/%s" % (rundir.CONTROL, rundir.SUPERVISOR_LOG)))},
        {"offset": Maybe(SIZE), "lines": Maybe(COUNT), "wait_s": Maybe(Number(0, 3600))},
    ),
    "probe": Table({"run_dirs": RUN_DIRS}, {"root": OPTIONAL_PATH, "tells": OPTIONAL_PATH}),
    "examine": Table(
        {**ROOT, "python": PATH, "setup": Each(SCRIPT, 10_000), "trial": SCRIPT, "ports": Each(COUNT, 10_000)},
        {"checkpoint_root": OPTIONAL_PATH, "code": OPTIONAL_PATH, "environment": Maybe(ENVIRONMENT),
         "files": Maybe(Each(PATH, 10_000)), "slurm": Maybe(Flag()), "jobs": Maybe(Map(SCRIPT, 1000))},
    ),
    "slurm_submit": Table(
        {**SUBMISSION, "jobs": Each(Table(
            {"position": COUNT, "name": PATH, "script": SCRIPT, "run_dirs": RUN_DIRS},
            {"after": Maybe(COUNT), "needs": Each(Table(
                {"run_dir": ABSOLUTE, "token": TOKEN}, {"when": Text(among=("success", "always"))}), MOST_NEEDS)}))},
        {"environment": Maybe(ENVIRONMENT), "snapshot": Maybe(TREE)},
    ),
    "slurm_settle": Table(SUBMISSION),
    "slurm_poll": Table(
        {**ROOT, "runs": RUN_TOKENS},
        {"checkpoint_root": OPTIONAL_PATH, "ended": RUN_DIRS, "interval_s": Number(0), "host": Flag()},
    ),
    "slurm_cancel": Table({**ROOT, "runs": RUN_TOKENS}),
    "slurm_archive": ARCHIVED,
    "slurm_trial": Table(
        {"python": PATH, "setup": Each(SCRIPT, 10_000), "trial": SCRIPT}, {"environment": Maybe(ENVIRONMENT)}
    ),
    "notify": Table(
        {**ROOT, "study": TOKEN, "project": PATH, "target": LINE, "slurm": Flag(), "notify": NOTIFY,
         "runs": Map(TOKEN)},
        {"environment": Maybe(ENVIRONMENT)},
    ),
    "notify_test": Table(
        {**ROOT, "notify": NOTIFY, "target": LINE, "sends": Flag()}, {"environment": Maybe(ENVIRONMENT)}
    ),
}  # fmt: skip


MESSAGE = Table(
    {},
    {"need": Text(most=128, pattern="[0-9A-Za-z]+"), "error": Text(most=64 << 20, may_be_odd=True), "home": ABSOLUTE,
     "python": Flag(), "refused": Flag(), "lacks": Each(COUNT, 1 << 20)},
    keeps=True,
)  # fmt: skip
"""What bootstrap says in a frame, but for the answer in it; hello, ready and alive are said by being there."""
COMMON: Shapes = {
    "clusters": Text(most=1024),
    "login_shell": Flag(),
    "own": Maybe(Table({"root": PATH, "share": Text(most=64), "also": Each(PATH, 16)})),
}
"""What every request may have besides."""


SENTENCES = Each(Row((Each(Either((Text(), COUNT)), 20), *reasons.BESIDE.values())))
"""The ``values`` of an answer: of each text in it that is a sentence the keys that lead to it, its code and values."""


class Asked(NamedTuple):
    """What an answer has an entry for, each."""

    about: str
    """The answer's key of them."""
    by: str
    """The request's list."""
    place: Any = None
    """Which part of the list's entries is the key; the entry itself where it is None."""


ASKED: Dict[str, Asked] = {
    "probe": Asked("runs", "run_dirs"),
    "slurm_poll": Asked("runs", "runs", 0),
    "cancel": Asked("runs", "run_dirs"),
    "slurm_cancel": Asked("runs", "runs", 0),
    "inventory": Asked("runs", "runs", "run_dir"),
    "archived": Asked("runs", "runs"),
    "remove": Asked("runs", "runs", "run_dir"),
    "data": Asked("files", "files"),
    "content": Asked("files", "files"),
    "examine": Asked("data", "files"),
    "slurm_submit": Asked("jobs", "jobs", "position"),
}


class Wanted(NamedTuple):
    """What an answer has, too, where the request holds a word, or does not."""

    word: str
    is_held: bool
    keys: Tuple[str, ...]
    unless: str = ""
    """The answer's key that says why it lacks them."""


WANTED: Dict[str, Tuple[Wanted, ...]] = {
    "probe": (Wanted("root", True, ("devices", "queue", "disk_free", "limit", "junk")),),
    "slurm_poll": (Wanted("host", True, ("devices", "queue", "disk_free", "site")),),
    "examine": (
        Wanted("slurm", False, ("lease_folder", "lease_privacy", "lease_room", "lease_files", "limit", "junk"),
               unless="lease_error"),
        Wanted("slurm", True, ("site", "tests"), unless="site_error"),
    ),
}  # fmt: skip


def check_request(verb: str, request: Any) -> None:
    """See to it that a request is one; what it has besides is dropped from it.

    Raises:
        schema.Misfit: It isn't; nothing was done.
    """
    shape = REQUESTS[verb]
    wrong = Table(shape.must, {**shape.may, **COMMON}).wrong(request)
    if wrong is not None:
        raise schema.Misfit(_("the request is not understood: {verb}{where}", verb, wrong))


def cut_answer(verb: str, answer: Dict[str, Any]) -> Dict[str, Any]:
    """Return an answer as the client takes it: prose no longer than agreed, and one run's records that make no sense
    that run's trouble alone.
    """
    if ANSWERS[verb].wrong(answer) is None:
        return answer
    fitting = dict(schema.cut(ANSWERS[verb], answer))
    if verb in ("probe", "slurm_poll"):
        fitting["runs"] = {run_dir: _understood(row) for run_dir, row in fitting["runs"].items()}
    return fitting


def _understood(row: Dict[str, Any]) -> Dict[str, Any]:
    wrong = STANDS.wrong(row)
    if wrong is not None:  # of a reason that is too long the beginning is told, and that alone
        row = {key: value for key, value in row.items() if key not in reasons.BESIDE}
        wrong = STANDS.wrong(row)
    if wrong is None:
        return row
    why = reasons.because("not_understood", folder=rundir.CONTROL)
    return {"state": State.UNKNOWN, **reasons.told(reasons.detailed(why, wrong.lstrip("."))), "token": ""}


def wrong_answer(verb: str, request: Mapping[str, Any], answer: Any) -> Optional[str]:
    """Return where an answer is not what was agreed, and why; None where it is. What it says besides is dropped from
    it: keys of a newer agent, and entries that nobody asked for.
    """
    asked = ASKED.get(verb)
    if asked is not None and type(answer) is dict and type(answer.get(asked.about)) is dict:
        entries = request.get(asked.by) or ()
        wanted = entries if asked.place is None else [str(entry[asked.place]) for entry in entries]
        given = answer[asked.about]
        # Of the jobs of a submission that came too late, or without its code, nothing is said.
        is_given_up = answer.get("answer") in ("settled", "lacking")
        try:
            answer[asked.about] = {key: given[key] for key in wanted if not is_given_up}
        except KeyError as error:
            return _("{verb}.{about}.{key} is missing", verb, asked.about, error.args[0])
    wrong = ANSWERS[verb].wrong(answer)
    for more in WANTED.get(verb, ()) if wrong is None else ():
        if bool(request.get(more.word)) is more.is_held and more.unless not in answer:
            wrong = wrong or next((_(".{key} is missing", key) for key in more.keys if key not in answer), None)
    return None if wrong is None else _("{verb}{where}", verb or "answer", wrong)
