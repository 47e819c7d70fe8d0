"""Whether the speeds of two arms can be compared, and how much freezing can gain by counted FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oelm_jobs.train.flops import training_flops

from oelm_jobs.agent.sentences import Sentence, _

from ..reading.loaded_run import LoadedRun


def incomparable(a: Sequence[LoadedRun], b: Sequence[LoadedRun]) -> Sentence | None:
    """Return why end-to-end speeds of two arms can't be compared: shared GPUs, other GPU model, count or host, or any
    of them unknown.
    """
    if any(run.per_gpu > 1 for run in (*a, *b)):
        return _("several runs could have each GPU at a time (per_gpu of the target)")
    facts: tuple[tuple[Sentence, Callable[[LoadedRun], object]], ...] = (
        (_("number of GPUs"), lambda run: run.world_size),
        (_("GPU model"), lambda run: run.hardware.get("name")),
        (_("host"), lambda run: run.hardware.get("host")),
    )
    for what, fact in facts:
        left, right = ({str(fact(run) or "–") for run in arm} for arm in (a, b))
        if left != right or len(left) > 1:
            return _unequal(what, left, right)
        if left == {"–"}:
            return _("the {what} of the runs isn't known", what)
    for key in ("batch_size", "gradient_accumulation_steps", "compile", "deterministic"):
        left, right = ({str(run.train[key]) for run in arm if key in run.train} for arm in (a, b))
        if left and right and len(left | right) > 1:
            return _unequal(key, left, right)
    if {run.compiled for run in (*a, *b)} >= {True, False}:
        return _("some of the runs were compiled and some could not be")
    return None


def _unequal(what: str, a: set[str], b: set[str]) -> Sentence:
    return _(
        "not on equal hardware: {what} is {a} against {b}; only an interleaved trial on the same devices could decide",
        what, sorted(a), sorted(b),
    )  # fmt: skip


def flop_bound(run: LoadedRun, trained: LoadedRun) -> float | None:
    """Return the largest speed ratio that freezing Q/K can give, from counted FLOPs per token; None where the shape
    is unknown.

    Position embeddings, biases and norms are no products. At the reference: 286.5 / 280.2 MFLOP = 1.0225.
    """
    frozen, total = run.parameters.frozen, trained.parameters.total
    shape = [run.train.get(key) for key in ("d_model", "num_layers", "d_ff", "seq_len")]
    sizes = [value for value in shape if isinstance(value, int) and value > 0]
    if not frozen or not total or trained.parameters.frozen != 0 or len(sizes) < len(shape):
        return None
    d, layers, ff, length = sizes
    positions = 0 if trained.train.get("position") == "rope" else length * d
    products = total - positions - layers * (ff + d + 4 * d) - 2 * d
    attention = layers * d * length
    return training_flops(products, 0, attention) / training_flops(products, frozen, attention)
