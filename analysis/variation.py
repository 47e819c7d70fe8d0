"""Which sources of variation the runs of a study had, by what their records show: what a result can speak for.

(Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks", MLSys.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from oelm_jobs.agent.sentences import Sentence, _

from .reading.loaded_run import LoadedRun
from .tables import Cell, Table, column

VARIED, FIXED, UNKNOWN, ABSENT = _("varied"), _("not varied"), _("not known"), _("none in these runs")


def table(runs: Sequence[LoadedRun]) -> Table | None:
    """Return the table; None without runs."""
    if not runs:
        return None
    rows = [*(_of_trainer(runs) if _are_of_trainer(runs) else _of_program(runs)), *(_of_all(runs))]
    columns = tuple(map(column, ("source", "varied", "shown_by")))
    remark = _("Verdicts speak for what was varied: what was not may come out otherwise where it is another.")
    return Table("variation", columns, tuple(tuple(map(Cell, row)) for row in rows), remarks=(remark,))


Row = tuple[Sentence, Sentence, "Sentence | str | None"]


def _are_of_trainer(runs: Iterable[LoadedRun]) -> bool:
    return all(not run.is_script and not run.series and run.train for run in runs)


def _of_trainer(runs: Sequence[LoadedRun]) -> Iterable[Row]:
    seeds = {run.seed for run in runs}
    by_seed = _told(_("seed"), seeds)
    varied = _whether(seeds)
    yield _("initial weights"), varied, by_seed
    own = {run.train.get("data_seed") for run in runs}
    orders = {run.seed if run.train.get("data_seed") is None else run.train["data_seed"] for run in runs}
    yield _("order of the data"), _whether(orders), by_seed if own == {None} else _told("data_seed", own)
    dropped = {run.train.get("dropout") for run in runs}
    yield (_("dropout"), ABSENT, "dropout = 0") if dropped == {0} else (_("dropout"), varied, by_seed)


def _of_program(runs: Sequence[LoadedRun]) -> Iterable[Row]:
    seeds = {run.seed for run in runs}
    told = _told(_("seed"), seeds)
    said = _("{seeds}; what the program makes of it, it knows alone", told) if told else None
    yield _("what the seed decides"), _whether(seeds), said


def _of_all(runs: Sequence[LoadedRun]) -> Iterable[Row]:
    facts: tuple[tuple[Sentence, Callable[[LoadedRun], object]], ...] = (
        (_("data, and their split"), lambda run: _short(run.data.get("train_sha256"), run.data.get("val_sha256"))),
        (_("device"), lambda run: run.hardware.get("name")),
        (_("host"), lambda run: run.hardware.get("host")),
        (_("number of processes"), lambda run: run.world_size),
        (_("version of torch"), lambda run: run.versions.get("torch")),
        (_("code"), lambda run: _short(run.provenance.get("train_code") or run.provenance.get("snapshot"))),
    )
    for what, fact in facts:
        values = {fact(run) or None for run in runs}
        yield what, _whether(values), _told("", values)


def _whether(values: set[object] | set[int | None]) -> Sentence:
    """Tell whether something varied by the values that runs have of it, None where one is not known."""
    known = {value for value in values if value is not None}
    return VARIED if len(known) > 1 else UNKNOWN if None in values else FIXED


def _short(*hashes: object) -> str:
    return " ".join(str(one)[:12] for one in hashes if one)


def _told(what: Sentence | str, values: set[object] | set[int | None]) -> Sentence | str | None:
    """Return values in their order, the first ones of many; None where none is known."""
    if values == {None}:
        return None
    numbers = sorted(value for value in values if isinstance(value, int))
    others = sorted(str(value) for value in values if value is not None and not isinstance(value, int))
    order = [*map(str, numbers), *others, *(["–"] if None in values else [])]
    shown = ", ".join(order[:8]) + (" …" if len(order) > 8 else "")
    return _("{what}: {values}", what, shown) if what else shown
