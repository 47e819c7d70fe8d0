"""Runs that are at home, exported to MLflow: an experiment for each study, in it a run for each run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .agent import rundir
from .agent.sentences import _
from .agent.states import State
from .analysis.reading import run_directory
from .analysis.reading.loaded_run import LoadedRun
from .errors import LocalError
from .transfer.sync import record

BATCH = 1000
"""Most metrics that MLflow takes at once."""
MOST_PARAMS = 100
"""Most parameters that it takes at once."""
IDENTITY = "oelm.run"
"""Tag by which a run is found again."""
ENDED = {State.DONE: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}
"""What MLflow calls the end of a run."""


def to_mlflow(run_dirs: Iterable[Path]) -> str:
    """Export runs; return where they are now (the tracking URI: MLFLOW_TRACKING_URI, or MLflow's own default).

    A run that was exported before gets the steps that it has made since.

    Raises:
        LocalError: MLflow is not installed here, or does not take them.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise LocalError(_("MLflow is not installed here"), hint="pip install mlflow") from None
    try:
        client = MlflowClient()
        for run_dir in run_dirs:
            _export(client, run_directory.load(run_dir, now=time.time()), _identity(run_dir))
        return str(client.tracking_uri)
    except MlflowException as error:
        raise LocalError(_("MLflow does not take the runs: {why}", str(error).split("\n")[0])) from error


def _identity(run_dir: Path) -> str:
    """Return what tells a run from others, and from what it was before it was started over."""
    origin = record(run_dir).get("origin") or rundir.origin(run_dir)
    return f"{run_dir.name}/{origin}"


def _export(client: Any, run: LoadedRun, identity: str) -> None:
    from mlflow.entities import Metric, Param

    experiment = client.get_experiment_by_name(run.study)
    place = experiment.experiment_id if experiment else client.create_experiment(run.study)
    known = client.search_runs([place], f"tags.`{IDENTITY}` = '{identity}'", max_results=1)
    if known:
        (found,) = known
    else:
        tags = {"oelm.group": run.group, "oelm.seed": str(run.seed), "oelm.fingerprint": run.fingerprint}
        began = int(1000 * (run.started_at or time.time()))
        found = client.create_run(place, began, {IDENTITY: identity, **tags}, run.name)
    there = found.info.run_id
    params = [Param(key, str(value)) for key, value in run.train.items() if key not in found.data.params]
    for first in range(0, len(params), MOST_PARAMS):  # an export that was cut off is gone on with
        client.log_batch(there, params=params[first : first + MOST_PARAMS])
    now, new = int(1000 * time.time()), []
    for name, steps in _metrics(run):
        last = max((metric.step for metric in client.get_metric_history(there, name)), default=-1)
        new += [Metric(name, value, now, step) for step, value in steps if step > last]
    for first in range(0, len(new), BATCH):
        client.log_batch(there, metrics=new[first : first + BATCH])
    client.set_tag(there, "oelm.state", run.status)
    if run.status in ENDED:
        client.set_terminated(there, ENDED[State(run.status)])


def _metrics(run: LoadedRun) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each metric with its values by step."""
    for name, series in run.series.items():
        yield name, list(zip(series.step.tolist(), series.value.tolist(), strict=True))
    tables = ((run.curve, "", ("loss", "lr", "tokens_per_s")), (run.validations, "val_", ("loss",)))
    for table, before, columns in tables:
        if table is not None:
            steps = table.step.tolist()
            for column in columns:
                values = zip(steps, getattr(table, column).tolist(), strict=True)
                yield before + column, [(step, value) for step, value in values if not math.isnan(value)]
