"""Fill the items on experiments of a conference's checklist from what a study and its runs' records say.

The questions are paraphrased, with the numbers that they have there: NeurIPS, "Paper Checklist Guidelines", items 4 to
8 (https://neurips.cc/public/guides/PaperChecklist, 2024 and 2025); ARR, "Responsible NLP Research Checklist", B6 and C1
to C4 (https://aclrollingreview.org/responsibleNLPresearch). What goes into a paper is English whatever the reader's
language. What no record says is marked, never guessed: ``[TODO: ...]``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from oelm_jobs.programs import built_in
from oelm_jobs.spec.sweep import Parameter

from .. import sweeps, wording
from ..judging.verdicts import OUTCOMES, Verdict
from ..printed import date, say
from ..reading.loaded_run import LoadedRun
from ..report import Report
from ..statistics import mean_sd

TODO = "[TODO: {}]"
OF_DATA = ("train_sha256", "val_sha256", "test_sha256", "train_tokens", "val_tokens")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the items are filled from."""

    report: Report
    runs: Sequence[LoadedRun]
    """All runs of the study, those of tuning and those that failed among them."""
    lost: Sequence[tuple[str, float | None]]
    """What the ledger has besides: what became of a run (``forgotten``, ``rerun``), and its GPU-hours."""

    @property
    def parts(self) -> Sequence[Report]:
        """The reports of the blocks, where there are some: groups and what verdicts rest on are theirs."""
        return [*self.report.parts.values()] or [self.report]

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """Those of the report, each with what the blocks show behind it."""
        return [each for verdict in self.report.verdicts for each in (verdict, *verdict.blocks)]

    def group(self, name: str) -> Sequence[LoadedRun]:
        """Return the runs of a group, over all blocks."""
        return [run for part in self.parts for run in part.groups.get(name, ())]


Facts = Callable[[Known], Iterable[str]]


def as_markdown(known: Known, which: str, made_at: float) -> str:
    """Return a checklist's items as Markdown.

    Args:
        which: One of CHECKLISTS.
        made_at: Unix seconds.
    """
    title, source, items = CHECKLISTS[which]
    lines = [
        f"# {title}: the items on experiments",
        "",
        f"Study {_plain(known.report.study.name)}, from {len(known.runs)} runs' records on {date(made_at)}. "
        f"The questions are paraphrased from {source}; check their wording there. What the records can't know is "
        "marked `[TODO: …]`.",
    ]
    for name, question, facts in items:
        said = [fact for make in facts for fact in make(known)]
        section = TODO.format("yes, no or n/a, and the section of the paper")
        lines += ["", f"## {name}", "", f"> {question}", "", f"**Answer:** {section}", ""]
        lines += [f"- {fact}" for fact in said]
    return "\n".join(lines) + "\n"


def _plain(text: object) -> str:
    """Return text of a study or a record as one line that means nothing in Markdown."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", say(" ".join(str(text).split()), "en"))


def _code(text: object) -> str:
    return f"`{say(' '.join(str(text).split()), 'en').replace('`', ' ')}`"


def _either(said: Iterable[str], lacking: str) -> list[str]:
    found = list(said)
    return found or [TODO.format(lacking)]


# Facts ----------------------------------------------------------------------------------------------------------------


def _question(known: Known) -> Iterable[str]:
    study = known.report.study
    yield f"Claim: {_plain(study.question)}" if study.question else TODO.format("what the study asks")
    for verdict in known.report.verdicts:
        h = verdict.hypothesis
        said = _plain(wording.sentence(verdict, known.report.labels))
        outcome = say(OUTCOMES[verdict.outcome], "en")
        claim = _plain(wording.claim(h, known.report.labels))
        yield f"{h.id}: {claim} (rule: {_plain(wording.rule(h))}): {outcome}. {said}"
        yield from (f"{h.id}, to be told with it: {_plain(alarm)}" for alarm in verdict.alarms)
    locked = known.report.locked_at
    yield (
        f"The rules were fixed on {date(locked)}; what is not as it was locked: {len(known.report.deviations)}."
        if locked is not None
        else "The rules were not locked before training."
    )
    yield from (f"Not as it was locked: {_plain(said)}" for said in known.report.deviations)


def _settings(known: Known) -> Iterable[str]:
    study = known.report.study
    shown = study.settings
    if study.program is None:
        yield "Optimizer: AdamW, linear warm-up and cosine decay of the learning rate (the toolkit's trainer)"
        counting = built_in.recorded(study.settings)
        shown = {key: value for key, value in counting.items() if key not in built_in.EXECUTION and value is not None}
    both = {**({"global_batch": study.global_batch} if study.global_batch else {}), **shown}
    yield "Settings of all groups: " + (", ".join(_code(f"{key}={value}") for key, value in both.items()) or "none")
    for name, group in study.groups.items():
        own = ", ".join(_code(f"{key}={value}") for key, value in group.values.items()) or "nothing besides"
        yield f"{_plain(known.report.labels.get(name) or name)}: {own}"
    for name, block in study.blocks.items():
        own = ", ".join(_code(f"{key}={value}") for key, value in block.settings.items()) or "nothing besides its data"
        yield f"Block {_plain(name)}: {own}"
    for key, reason in study.declared.items():
        yield f"Unequal on purpose: {_code(key)} ({_plain(reason)})"
    if study.program is not None:
        yield TODO.format("optimizer and other settings that the program has of its own")


def _data(known: Known) -> Iterable[str]:
    found = {tuple((key, run.data[key]) for key in OF_DATA if run.data.get(key)) for run in known.runs}
    for each in sorted(found - {()}):
        yield "Data: " + ", ".join(f"{key.replace('_', ' ')} {_code(str(value)[:16])}" for key, value in each)
    if not found - {()}:
        yield TODO.format("the data's version and splits: no record names them")
    study = known.report.study
    if study.blocks:
        yield f"Data sets: {', '.join(map(_plain, study.blocks))}"
    if study.judge_on:
        yield f"Settings are selected on the validation split, and judged on {_code(study.judge_on)}."


def _search(known: Known) -> Iterable[str]:
    study = known.report.study
    swept = study.sweep
    if swept is None and not known.report.swept:
        yield "Nothing was swept by this study."
        if study.tuned:
            yield TODO.format(f"search bounds and budget of {', '.join(study.tuned)}, which were tuned elsewhere")
        return
    if swept is not None:
        cap = f", at most {swept.run_cap} combinations" if swept.run_cap else ""
        drawn = f", seed {swept.seed}" if swept.method == "random" else ""
        yield f"Search: {swept.method}{drawn}{cap}; the same combinations for every group."
        yield "Bounds: " + "; ".join(f"{_code(key)} {_bounds(one)}" for key, one in swept.parameters.items())
    for group, one in sweeps.best(known.report.swept, known.report.goals).items():
        tried = [other for other in known.report.swept if other.group == group]
        values = ", ".join(_code(f"{key}={value}") for key, value in one.values.items())
        failed = sum(other.failed for other in tried)
        yield (
            f"Best of {_plain(known.report.labels.get(group) or group)}: {values}, of {len(tried)} combinations "
            f"({failed} runs without a result)."
        )


def _bounds(one: Parameter) -> str:
    if one.values:
        return "one of " + ", ".join(_code(value) for value in one.values)
    return f"{one.distribution} from {one.min:g} to {one.max:g}"


def _selection(known: Known) -> Iterable[str]:
    study = known.report.study
    metric = next(iter(known.report.goals or {}), "") if known.report.goals is not None else "final validation loss"
    if not known.report.swept:
        return
    if study.is_tuning:
        seeds = ", ".join(map(str, study.confirm_seeds))
        yield (
            f"Selected for each group by the best mean of {_plain(metric)} over seeds "
            f"{', '.join(map(str, study.seeds))}; verdicts rest on fresh seeds alone ({seeds})."
        )
    else:
        yield f"The best is that of the best mean of {_plain(metric)} over seeds; no verdict rests on these runs."


def _errors(known: Known) -> Iterable[str]:
    for verdict in known.verdicts:
        words = wording.interval_words(verdict)
        if words is not None:
            block = f", {_plain(verdict.block)}" if verdict.block else ""
            yield f"{verdict.hypothesis.id}{block}: {_plain(words)}"
    if not any(wording.interval_words(verdict) for verdict in known.verdicts):
        yield TODO.format("error bars: no interval could be computed, which takes two seeds or more")
    for remark in wording.level_remarks(known.report):
        yield _plain(remark)
    yield (
        "Intervals are Student's t (paired by seed where groups saw the same data in the same order, Welch's "
        "otherwise); ± in tables is the standard deviation over seeds, not the standard error."
    )
    if known.report.study.program is None:
        is_fixed = known.report.study.settings.get("data_seed") is not None
        order = " and dropout; data_seed fixes the data's order" if is_fixed else ", dropout and data order"
        yield f"They capture what the seed changes: initial weights{order}."
    else:
        yield TODO.format("what the seed changes in the program, and what else varied over runs")
    for name in known.report.study.groups:
        own = ", ".join(map(str, sorted({run.seed for run in known.group(name) if run.seed is not None}))) or "none"
        yield f"Seeds of {_plain(known.report.labels.get(name) or name)}: {own}"


def _hardware(known: Known) -> Iterable[str]:
    found = Counter(
        (run.world_size or 1, run.hardware["name"], run.precision) for run in known.runs if run.hardware.get("name")
    )
    for (size, name, precision), count in sorted(found.items(), key=str):
        yield f"{count} runs on {size} × {_plain(name)} each{f', {precision}' if precision else ''}"
    if not found:
        yield TODO.format("type of GPUs or CPUs: no record names it")
    memory = [run.peak_gpu_mem_gb for run in known.runs if run.peak_gpu_mem_gb]
    if memory:
        yield f"Memory of a GPU: at most {max(memory):.1f} GB"
    yield TODO.format("provider or cluster, memory and storage of the machines")


def _hours(known: Known) -> Iterable[str]:
    hours = [run.elapsed_hours for run in known.runs if run.elapsed_hours is not None]
    unit = "process-hours" if known.report.is_on_cpus else "GPU-hours"
    mean, sd = mean_sd(hours)
    if mean is not None:
        yield (
            f"Hours per run: {mean:.3g}"
            + (f" ± {sd:.2g}" if sd else "")
            + f" (at most {max(hours):.3g}), of {len(hours)} runs"
        )
    spent = [run.gpu_hours for run in known.runs if run.gpu_hours is not None]
    lost = [hours for _event, hours in known.lost if hours is not None]
    if spent or lost:
        yield (
            f"Together: {sum(spent) + sum(lost):.4g} {unit}, all attempts of all runs; of these {sum(lost):.3g} in "
            "results that were forgotten or started over"
        )
    unknown = len(known.runs) - len(spent) + len(known.lost) - len(lost)
    if unknown:
        yield TODO.format(f"compute of {unknown} runs, of which no record says it")
    yield TODO.format("compute of experiments that are not in this study")


def _count(known: Known) -> Iterable[str]:
    states = Counter(run.status for run in known.runs)
    listed = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    yield f"Runs: {len(known.runs)} ({listed or 'none'})"
    own = {run.name for part in known.parts for runs in part.deciding.values() for run in runs}
    searched = sum(len(one.results) + one.failed for one in known.report.swept)
    yield f"Of these {len(own)} are what verdicts rest on, {searched} a search"
    for event, count in sorted(Counter(event for event, _hours in known.lost).items()):
        yield f"Besides, in the ledger: {count} {event}"


def _parameters(known: Known) -> Iterable[str]:
    for name in known.report.study.groups:
        counts = next((run.parameters for run in known.group(name) if run.parameters.total), None)
        if counts is not None:
            trained = f", of which {counts.trainable:,} are trained" if counts.trainable is not None else ""
            yield f"{_plain(known.report.labels.get(name) or name)}: {counts.total:,} parameters{trained}"


def _size(known: Known) -> list[str]:
    return _either(_parameters(known), "numbers of parameters: no record has them")


def _code_of(known: Known) -> Iterable[str]:
    revisions = sorted({run.provenance["revision"] for run in known.runs if run.provenance.get("revision")})
    snapshots = sorted({run.provenance["snapshot"] for run in known.runs if run.provenance.get("snapshot")})
    if revisions:
        yield "Code: revision " + ", ".join(_code(each) for each in revisions)
    if snapshots:
        yield "Code as it ran, by its hash: " + ", ".join(_code(each) for each in snapshots)
    yield (
        "`oelm-report --bundle` packs study, lock, ledger, records, metrics and code into one archive, without names "
        "with `--anonymous`; `oelm-report --from` comes to the same verdicts from it."
    )
    yield TODO.format("where that archive and the data are, and their licences")


def _versions(known: Known) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for run in known.runs:
        for name, version in run.versions.items():
            if name != "revision":
                found.setdefault(name, {})[version] = None
    said = [f"{_plain(name)} {', '.join(map(_plain, versions))}" for name, versions in sorted(found.items())]
    return _either([f"Versions: {'; '.join(said)}"] if said else [], "versions of packages: no record names them")


# Checklists -----------------------------------------------------------------------------------------------------------

Items = Sequence[tuple[str, str, Sequence[Facts]]]
"""Name, question, and what it is filled from."""
NEURIPS: tuple[str, str, Items] = (
    "NeurIPS Paper Checklist",
    "https://neurips.cc/public/guides/PaperChecklist",
    (
        (
            "4. Experimental result reproducibility",
            "Is all disclosed that is needed to reproduce the main results, as far as they bear on the claims, whether "
            "or not code and data are given?",
            (_question, _code_of),
        ),
        (
            "5. Open access to data and code",
            "Are data and code openly accessible, with instructions that suffice to reproduce the main results?",
            (_code_of, _data),
        ),
        (
            "6. Experimental setting/details",
            "Are all details of training and testing given that are needed to understand the results: splits, "
            "hyperparameters, how they were chosen, the optimizer?",
            (_settings, _data, _search, _selection),
        ),
        (
            "7. Experiment statistical significance",
            "Are there error bars, suitably and correctly defined, or other information on the significance of the "
            "results: what varies, the method, its assumptions, standard deviation or standard error?",
            (_errors,),
        ),
        (
            "8. Experiments compute resources",
            "Is it said of each experiment what it takes to reproduce it: kind of workers, memory, time of each run, "
            "the total, and whether more was spent than the paper tells of?",
            (_hardware, _hours, _count),
        ),
    ),
)
ARR: tuple[str, str, Items] = (
    "ARR Responsible NLP Research Checklist",
    "https://aclrollingreview.org/responsibleNLPresearch",
    (
        (
            "B6. Statistics for data",
            "Are relevant statistics given of the data, such as numbers of examples and splits?",
            (_data,),
        ),
        (
            "C1. Model size and budget",
            "Are the number of parameters, the total computational budget (GPU-hours, say) and the infrastructure "
            "reported?",
            (_size, _hours, _hardware, _count),
        ),
        (
            "C2. Experimental setup and hyperparameters",
            "Is the setup discussed, with hyperparameter search and the best values found?",
            (_settings, _search, _selection),
        ),
        (
            "C3. Descriptive statistics",
            "Are there descriptive statistics of the results (error bars, summaries of several runs), and is it plain "
            "whether a value is a maximum, a mean or of a single run?",
            (_question, _errors),
        ),
        (
            "C4. Parameters for packages",
            "For existing packages: are implementation, model and settings of them reported?",
            (_versions, _code_of),
        ),
    ),
)
CHECKLISTS = {"neurips": NEURIPS, "arr": ARR}
