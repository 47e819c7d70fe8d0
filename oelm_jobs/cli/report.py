"""``oelm-report``: tables, verdicts and figures from run directories, finished or not."""

from __future__ import annotations

from pathlib import Path

import click

from .common import command, narrate

FORMATS = ("text", "markdown", "json", "html", "latex")


@command("oelm-report")
@click.argument("names", nargs=-1, metavar="[GROUP|RUN]...")
@click.option(
    "--study", metavar="NAME", help="Report on this study (a name in jobs/, or a file); the default study otherwise."
)
@click.option("--plot", is_flag=True, help="Draw the figures, too (PNG and SVG).")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where the files go.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="What is printed."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--style",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A matplotlib style file.",
)
@click.option(
    "--lang",
    type=click.Choice(("en", "zh")),
    envvar="OELM_LANG",
    default="en",
    show_default=True,
    help="Language of the report.",
)
def main(
    names: tuple[str, ...],
    study: str | None,
    plot: bool,
    output: Path | None,
    form: str,
    as_json: bool,
    style: Path | None,
    lang: str,
) -> None:
    """Compare the groups of a study: tables, verdicts on its hypotheses, and what limits the comparison.

    Writes comparison_table.txt, hypothesis_validation.txt, analysis_results.json and more into the study's
    experiments folder (or --output DIR), with --plot the figures, and prints the report.
    """
    from .. import analysis
    from ..analysis import loading, show
    from ..project import find_project
    from ..study import checkpoint_folder, load_study

    project = find_project(Path.cwd())
    asked = load_study(project, study)
    runs = analysis.load_study_runs(asked, checkpoint_folder(project, asked))
    runs = loading.select(runs, names)
    made_at = loading.now()
    report = analysis.build(asked, runs)
    folder = output or loading.output_folder(project, asked)
    files, remarks = analysis.write(
        report, folder, summary=loading.summary_path(project, asked) if output is None else folder / f"{asked.name}_summary.json",
        made_at=made_at, language=lang, plot=plot, style=style or loading.user_style(project),
    )  # fmt: skip
    click.echo(show(report, "json" if as_json else form, lang, made_at), nl=False)
    for remark in remarks:
        narrate(str(remark))
    narrate(f"{len(files)} files in {folder}")
