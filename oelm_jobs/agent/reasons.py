"""The reasons for the state of a run: a code and an English template for each.

Records, answers and the client's index hold the English sentence and beside it its code and values. What decides by a
reason asks for its code.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Mapping

from .schema import Anything, Maybe, Table, Text
from .sentences import Sentence, decoded, encoded, shown


def _(template: str) -> str:
    """Mark a template for translation; ``because`` makes the sentence."""
    return template


TEMPLATES: Dict[str, str] = {
    # Of several parts
    "details": _("{what}: {details}"),
    "submit_again": _("{why}: submit again to resume"),
    "without_checkpoint": _("{why}, without a checkpoint"),
    "while_waiting": _("{why} while waiting"),
    "with_exit_code": _("{what} (exit code {code})"),
    "after": _("after {why}"),
    # How an attempt ended
    "completed": _("training completed"),
    "diverged": _("diverged"),
    "oom": _("oom"),
    "error": _("error"),
    "killed": _("killed by {signal}"),
    "exit_code": _("exit code {code}"),
    "no_outcome": _("{how}, no outcome"),
    "process_ended": _("process {rank} on {host}: {how}"),
    "disk_full": _("disk full: {how}"),
    "port_taken": _("port {port} was taken by another program"),
    "rendezvous_taken": _("port of the rendezvous was taken by another program"),
    "own_port_taken": _(
        "a port that it asks for is taken by another program: let its command take a free one as {{port}}"
    ),
    "in_stage": _("stage {stage}: {why}"),
    "had_to_be_killed": _("{why}; it did not end in its time after SIGTERM and was killed"),
    "half_written": _("{why}; {files} is half written, and nothing goes on from there"),
    "half_written_again": _("{why}; {files} is half written: the next attempt goes on from where this one did"),
    "not_kept": _("no copy of {file} was kept, over which it may have written: {why}"),
    "wants_terminal": _("it asks for input, and nobody is there to answer"),
    "files_missing": _("it ended with exit code 0 and left no {files} in its run directory or the folder work there"),
    "too_short": _("it ended with exit code 0 at step {step} of {length}"),
    "no_step": _("it ended with exit code 0, and nothing it left says at which step"),
    "ended_at_once": _("it ended after {seconds:.1f} s with exit code 0 and left nothing: no output, no file"),
    "in_background": _("its command ended while what it had started went on in the background, which was ended"),
    "prints_much": _("it has printed {size}"),
    "passed_over": _("{what}, {size} of which live reading has passed over (the report reads all)"),
    "changed_outside": _(
        "{files} changed while it ran, which others share: let it write by relative names or to {{run_dir}}"
    ),
    "unreadable": _("what can't be read is not among its results: {files}"),
    "left_none": _("it left no {files} in its run directory or the folder work there"),
    "not_its_own": _("{why}; {path} is shared and can only be read: let it write by relative names or to {{run_dir}}"),
    "disk_nearly_full": _("its disk has {size} left"),
    "not_started": _("cannot start {program}: {error}"),
    "stopped_outside": _("stopped from outside after a checkpoint"),
    "cancelled": _("cancelled"),
    "needed_failed": _("not started: {run}, which it needs, failed: {why}"),
    "needed_cancelled": _("not started: {run}, which it needs, was cancelled: {why}"),
    "needed_unknown": _("not started: {run}, which it needs, is not done: {why}"),
    "input_gone": _("{what}, which it takes as {input}, is not there any more"),
    "input_changed": _("{what}, which it takes as {input}, is another file than before: {path}"),
    "cancelled_by_scancel": _("cancelled by scancel"),
    "stopped": _("stopped by {signal}"),
    "time_limit": _("time limit"),
    "preemption": _("preemption"),
    "node_failure": _("node failure"),
    "requeue": _("requeue"),
    "timeouts_used_up": _("time limit reached {count} times (max_timeouts = {most}): submit again to resume"),
    "time_limit_too_short": _("the time limit is too short: two starts in a row made no step"),
    # How an execution ended
    "cannot_go_on": _("the supervisor could not go on: {error}"),
    "result_not_written": _("{why}; its result could not be written: {error}"),
    "not_started_again": _("{why}, and can't be started again: {refused}"),
    "starts_nothing": _("a plain host starts nothing again"),
    "reboot": _("reboot"),
    "supervisor_lost": _("supervisor lost"),
    "ended_by_slurm": _("ended by Slurm, which started the job again (preemption or node failure)"),
    # What a supervisor waits for
    "waiting_for_run": _("waiting for {run} to end"),
    "waiting_for_needed": _("waiting for {run}, which it needs"),
    "waiting_for_turn": _("waiting behind other runs of its submission"),
    "waiting_behind": _("waiting behind {run} of {user} (place {place})"),
    "waiting_for": _("waiting for {what}"),
    "waiting_for_limit": _("waiting until fewer than {most} runs of yours have devices here (max_parallel)"),
    "of_permitted": _("{devices} of {limit}"),
    "gpu": _("1 GPU"),
    "gpus": _("{count} GPUs"),
    "gpus_by_index": _("GPU {indices}"),
    "slot": _("1 CPU slot"),
    "slots": _("{count} CPU slots"),
    "node_cut_off": _("waiting {seconds:.0f} s: node {node} may be cut off and alive"),
    # On a plain host
    "lives_on": _("supervisor lost, its processes live on: oelm-cancel ends them"),
    "cancelled_before_start": _("cancelled before it started"),
    "rebooted_before_training": _("reboot before training started: submit again"),
    "lost_waiting": _("supervisor lost while it was waiting: submit again"),
    "ended_before_training": _("ended before training started"),
    "no_trace_on_host": _("no trace of it on this host"),
    "not_understood": _("its records in {folder} can't be understood"),
    "anothers": _("holds a run of {user}"),
    # On a cluster: its job in the queue
    "before_training": _("before training"),
    "suspended": _("suspended"),
    "configuring": _("configuring"),
    "completing": _("completing"),
    "job_state": _("{state}"),
    "in_job": _("in job {job}"),
    "accepted": _("accepted"),
    # On a cluster: its job is not in the queue
    "not_submitted": _("not submitted: {why}"),
    "not_settled": _("whether Slurm took it is not known yet"),
    "no_trace_on_cluster": _("no trace of it on this cluster"),
    "end_known": _("left the queue; its end was known before"),
    "contradiction": _("accounting says {state}, but squeue does not list it"),
    "accounts_silent": _("left the queue; accounting does not answer ({why})"),
    "not_accounted_yet": _("left the queue; accounting does not list it yet"),
    "cancelled_before_restart": _("cancelled before it started again"),
    "no_restart": _("Slurm did not start it again after: {why}"),
    "timed_out": _("time limit, without the time for a checkpoint"),
    "deadline": _("deadline"),
    "out_of_memory": _("out of memory: Slurm killed the job"),
    "not_booted": _("the node did not boot"),
    "preempted": _("preempted, and not started again"),
    "nothing_there": _("{why}: nothing of it is in {folder}; do the compute nodes share that folder?"),
    "no_end_record": _("its job ended without an end record"),
    # Why a job waits
    "named": _("{what} ({name})"),
    "cannot_start": _("can't start: {why} ({name})"),
    "held": _("{what} ({name}); scontrol release lets it go"),
    "waits": _("waits ({name})"),
    "waits_for_limit": _("waits for a limit to clear ({name})"),
    "minutes_used_up": _(
        "waits: the minutes of its account or quality of service are used up, or too few for it ({name})"
    ),
    "waits_for_turn": _("waits for its turn"),
    "waits_for_nodes": _("waits for free nodes"),
    "waits_for_job_before": _("waits for the job before it"),
    "waits_for_start_time": _("waits for its start time"),
    "waits_for_array": _("waits for other runs of its array"),
    "waits_for_earlier_start": _("waits for its earlier start to end"),
    "waits_for_reservation": _("waits for its reservation"),
    "waits_for_licenses": _("waits for licenses"),
    "waits_for_its_nodes": _("waits: its nodes are down, drained or reserved for jobs of higher priority"),
    "held_by_user": _("held by you"),
    "held_by_admin": _("held by an administrator"),
    "started_too_often": _("held: started again too often"),
    "not_launched": _("held: it could not be launched"),
    "held_since_requeue": _("held since it was requeued"),
    "partition_down": _("the partition is down"),
    "partition_inactive": _("the partition is inactive"),
    "node_not_available": _("a node that it asks for is not available"),
    "node_down": _("a node that it needs is down"),
    "too_few_nodes": _("nodes are down or drained, or it asks for more of them than the partition allows"),
    "time_above_limit": _("its time is above the partition's limit"),
    "not_in_partition": _("the partition does not allow what it asks for"),
    "no_such_node": _("no node has what it asks for"),
    "no_such_account": _("the account does not exist or is not yours"),
    "account_not_taken": _("the partition does not take this account"),
    "no_such_quality": _("the quality of service does not exist or is not yours"),
    "quality_not_taken": _("the partition does not take this quality of service"),
    "impossible_dependency": _("it depends on a job that can't end as it asks"),
    "too_much_memory": _("it asks for more memory than one job may have"),
    "below_least": _("it asks for less than one job must have"),
    "above_job_limit": _("it asks for more than one job may have"),
    "above_user_limit": _("it asks for more than you may have"),
    "above_group_limit": _("it asks for more than its account or quality of service may have"),
}
"""The English of each code. A code stays what it is: records and indexes hold it."""
FORMER_WORDS = (
    ("not submitted: ", "not_submitted"),
    ("stopped by ", "stopped"),
    ("suspended", "suspended"),
    ("in job ", "in_job"),
    ("diverged", "diverged"),
)
"""How reasons begin that have no code, being an earlier version's or a log's, and the codes that they would have."""
BESIDE: Dict[str, Maybe] = {
    "code": Maybe(Text(most=500)),
    "values": Maybe(Anything(depth=100, values=1000, text=Text(most=2000, is_prose=True), is_table=True)),
}
"""What stands beside a reason: bounds of its code and of its values."""
_BOUNDS = Table(BESIDE)


def because(code: str, /, **values: Any) -> str:
    """Return the sentence of a code; what its template names is among the values."""
    template = TEMPLATES[code]
    english = template.format(**{name: shown(value) for name, value in values.items()})
    return Sentence.made(english, template, values, code)


def detailed(what: str, details: str) -> str:
    """Return a reason with details behind it, where there are any."""
    return because("details", what=what, details=details) if details else what


def told(text: str) -> Dict[str, object]:
    """Return a reason as rows and records tell it: ``reason``, with ``code`` and ``values`` where it has them."""
    return {"reason": text, **encoded(text)}


def read(record: Mapping[str, object]) -> str:
    """Return the reason in a row or record; word for word where it has no code."""
    text, code, values = str(record.get("reason") or ""), record.get("code"), record.get("values")
    if not code or _BOUNDS.wrong({"code": code, "values": values}) is not None:
        return text
    return decoded(text, code, values, TEMPLATES)


def codes(text: str) -> FrozenSet[str]:
    """Return the codes of a reason and of those within it."""
    if not text:  # most runs have none, and a report asks of each often
        return frozenset()
    if not isinstance(text, Sentence):
        return frozenset(code for begin, code in FORMER_WORDS if text.startswith(begin))
    within = (codes(value) for value in text.values.values() if isinstance(value, Sentence))
    return frozenset({text.code}).union(*within)
