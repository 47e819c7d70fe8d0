"""Whether an execution may enter a run directory: another run may lie there, or one of another configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Tuple

from .. import records, schema

if TYPE_CHECKING:
    from ..run_record import RunRecord


def refusal(record: RunRecord, can_go_on: Callable[[], bool]) -> Tuple[str, str]:
    """Return why a run directory must not be entered, empty when it may, and the run's fingerprint where it is known.

    Args:
        can_go_on: Tells whether there is a checkpoint, should a longer run begin there.
    """
    ours = record.fingerprint
    try:
        known = records.RUN.read(record.run_dir)
    except schema.Misfit as error:
        return "holds a record that can't be understood: %s" % error, ours
    if known and known.study and known.study != record.study:
        return "holds run %s of study %s" % (known.run, known.study), ours
    theirs = known.fingerprint if known else ""
    if known and not (ours and theirs):
        # Rendered before the data could be hashed, and run by hand: the keys say whether it is the same run.
        own = ("data_path", "val_data_path", "test_data_path", "out_dir", "batch_size")
        before, after = known.train, record.train
        changed = sorted(key for key in after if key not in own and before.get(key) != after[key])
        changed += ["program"] if known.program != record.program else []
        if changed or known.global_batch != record.global_batch:
            why = "holds a run of another configuration (differs in %s)" % ", ".join(changed or ["global_batch"])
            return why, ours
        ours = theirs = ours or theirs
    extended = record.extended_from
    continued = extended["fingerprint"] if extended else None
    if ours and theirs and ours != theirs and theirs != continued:
        return "holds a run of another configuration (%s, not %s)" % (theirs[:12], ours[:12]), ours
    if extended and not can_go_on():
        return "has no checkpoint to go on from (oelm-clean frees them): submit --rerun to start over", ours
    return "", ours
