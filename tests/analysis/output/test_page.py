"""The HTML page in a real headless Chromium, from file://, without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis import figures
from oelm_jobs.analysis.output.page import as_html
from oelm_jobs.analysis.report import build

from tests.support import needs

from .. import synthetic
from ..synthetic import load, make_arms, make_run

pytestmark = pytest.mark.slow

LOSSES = {"gpt_base": [3.88, 3.9], "oelm_no_freeze": [3.85, 3.86], "oelm_freeze": [3.95, 3.97]}
HOSTILE = '</script><script>window.hacked=1</script><img src="https://example.org/x.png" onerror="window.hacked=1">'


def chromium() -> str:
    """Return the path of a Chromium."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))),
        None,
    )
    if found is None:
        needs("chromium")
    return str(found)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report: figures, an unfair pair, an unfinished run, a hostile label."""
    folder = tmp_path_factory.mktemp("page")
    runs = make_arms(folder / "runs", LOSSES)
    runs.append(load(make_run(folder / "runs", "oelm_freeze", 44, stop=200)))
    study = synthetic.study(seeds=(42, 43, 44), unequal={"weight_decay": HOSTILE})
    runs[0] = load(edit(runs[0].path, weight_decay=0.5))
    runs[2] = load(edit(runs[2].path, weight_decay=0.1))
    report = build(study, runs)
    drawn, _ = figures.draw(report, "en", folder)
    path = folder / "report.html"
    path.write_text(as_html(report, "en", 1_700_000_000.0, drawn), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 27 runs, without figures."""
    folder = tmp_path_factory.mktemp("many")
    runs = make_arms(folder / "runs", {group: [3.9 + i / 100 for i in range(9)] for group in LOSSES})
    path = folder / "report.html"
    path.write_text(as_html(build(synthetic.study(seeds=tuple(range(42, 51))), runs), "en", 0.0), encoding="utf-8")
    return path


def edit(folder: Path, **train: object) -> Path:
    result = json.loads((folder / "experiment_result.json").read_text())
    result["train"] |= train
    synthetic.record(folder, "experiment_result.json", result)
    return folder


def run(page: Path, script: str, *options: str) -> Any:
    """Load the page with a script behind it and return what the script puts into ``window.result``, as JSON."""
    probe = page.with_name("probe.html")
    ending = (
        "<script>window.errors=[];addEventListener('error',e=>errors.push(e.message));"
        f"addEventListener('load',async()=>{{let r;try{{r=await(async()=>{{{script}}})()}}catch(e){{r='failed: '+e}}"
        "const out=document.createElement('pre');out.id='probe';out.textContent=JSON.stringify({r,errors});"
        "document.body.append(out)})</script></body>"
    )
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", ending), encoding="utf-8")
    done = subprocess.run(
        [
            chromium(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--virtual-time-budget=3000",
            f"--user-data-dir={page.parent / 'profile'}",
            *options,
            "--dump-dom",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(page.parent)},
        check=True,
    )
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:] + done.stderr[-2000:]
    answer = json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert answer["errors"] == []
    return answer["r"]


def test_the_page_shows_audit_verdicts_tables_figures_differences_and_provenance(page: Path) -> None:
    seen = run(
        page,
        """return {sections:[...document.querySelectorAll('section')].map(s=>s.id),
        verdicts:document.querySelectorAll('.verdict').length,
        figures:[...document.querySelectorAll('figure svg')].every(f=>f.getBoundingClientRect().width>200),
        banner:!!document.querySelector('.banner'),
        number:document.querySelectorAll('figure').length, hacked:window.hacked===undefined,
        images:document.images.length,
        tables:[...document.querySelectorAll('table')].map(t=>t.id),
        keys:[...document.querySelectorAll('#table-differences tbody tr')].map(r=>r.cells[0].textContent)}""",
    )
    assert seen["sections"] == ["audit", "verdicts", "tables", "figures", "differences", "provenance"]
    assert seen["verdicts"] == 4 and seen["figures"] and seen["number"] == len(figures.FIGURES) and seen["banner"]
    assert seen["hacked"] and seen["images"] == 0
    assert {
        "table-comparison_result",
        "table-comparison_cost",
        "table-runs",
        "table-parameters",
        "table-efficiency",
        "table-provenance",
    } <= set(seen["tables"])
    assert seen["keys"] == ["model_type", "freeze_qk", "weight_decay"]


def test_provenance_has_revision_hardware_versions_data_and_the_changes_of_the_code(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567-dirty"
    for name in ("gpt_base", "oelm_freeze", "oelm_no_freeze"):
        folder = make_run(tmp_path / "runs", name)
        planned = json.loads((folder / ".oelm" / "run.json").read_text())
        diff = "" if name == "oelm_no_freeze" else "-old line\n+<b>new</b> line"
        synthetic.record(folder, ".oelm/run.json", planned | {"revision": commit, "diff": diff})
        result = json.loads((folder / "experiment_result.json").read_text())
        synthetic.record(folder, "experiment_result.json", result | {"revision": commit})
    report = build(synthetic.study(), [load(path) for path in sorted((tmp_path / "runs").iterdir())])
    path = tmp_path / "report.html"
    path.write_text(as_html(report, "en", 0.0), encoding="utf-8")
    seen = run(
        path,
        """return {head:[...document.querySelectorAll('#table-provenance th')].map(c=>c.textContent),
        row:[...document.querySelector('#table-provenance tbody tr').cells].map(c=>c.textContent),
        diffs:[...document.querySelectorAll('#provenance details')].map(d=>[d.querySelector('summary').textContent,
        d.querySelector('pre').textContent])}""",
    )
    row = dict(zip(seen["head"], seen["row"], strict=True))
    assert row["Revision"] == "0123456789ab-dirty" and row["Trainer code"] == "fedcba987654"
    assert row["Hardware"] == "1 × RTX A5000" and row["Host"] == "box" and row["Precision"] == "fp32"
    assert row["Versions"] == "numpy 2.4.6, python 3.11.7, torch 2.13.0"
    assert row["Data"] == f"{synthetic.sha('train')[:12]} {synthetic.sha('val')[:12]}"
    assert row["Fingerprint"] == synthetic.sha("fingerprint gpt_base")[:12]
    assert seen["diffs"] == [
        ["Code of gpt_base, oelm_freeze: changes against its revision", "-old line\n+<b>new</b> line"]
    ]


def test_no_table_but_provenance_is_wider_than_a_desktop_window(page: Path) -> None:
    seen = run(
        page,
        """return [...document.querySelectorAll('.scroll')].filter(e=>e.scrollWidth>e.clientWidth+1).map(
        e=>e.querySelector('table').id)""",
        "--window-size=1280,900",
    )
    assert set(seen) <= {"table-provenance"}


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(page: Path) -> None:
    seen = run(
        page,
        """const t=document.querySelector('#table-runs'), heads=[...t.tHead.rows[0].cells],
        i=heads.findIndex(h=>h.textContent==='Final val. PPL');
        const read=()=>[...t.tBodies[0].rows].map(r=>r.cells[i].textContent); const before=read();
        heads[i].querySelector('button').click();
        const up=read(), sort=heads[i].getAttribute('aria-sort'); heads[i].querySelector('button').click();
        return {before,up,sort,down:read(),again:heads[i].getAttribute('aria-sort')}""",
    )
    numbers = [float(text) for text in seen["up"]]
    assert numbers == sorted(numbers) and [float(text) for text in seen["down"]] == numbers[::-1]
    assert (seen["sort"], seen["again"]) == ("ascending", "descending") and sorted(seen["before"]) == sorted(seen["up"])


def test_missing_values_stay_at_the_end_whichever_way_a_table_is_sorted(page: Path) -> None:
    seen = run(
        page,
        """const t=document.querySelector('#table-comparison_result'), heads=[...t.tHead.rows[0].cells],
        i=heads.findIndex(h=>h.textContent.startsWith('PPL gap'));
        const read=()=>[...t.tBodies[0].rows].map(r=>r.cells[i].textContent),
        b=heads[i].querySelector('button'); b.click(); const up=read(); b.click(); return [up, read()]""",
    )
    assert seen[0][-1] == seen[1][-1] == "–" and seen[0][0] == seen[1][1]


def test_a_table_of_many_runs_is_folded_and_shows_the_rows_that_are_asked_for(many: Path) -> None:
    seen = run(
        many,
        """const t=document.querySelector('#table-runs_result,#table-runs'), fold=t.closest('details');
        const input=fold.querySelector('input');
        const before=[fold.open, fold.querySelector('summary').textContent]; fold.open=true;
        input.value='freeze-s45 DONE'; input.dispatchEvent(new Event('input'));
        const rows=[...t.tBodies[0].rows].filter(r=>!r.hidden).map(r=>r.cells[0].textContent);
        return {before, rows, count:fold.querySelector('output').textContent,
        groups:document.querySelector('#table-comparison,#table-comparison_result').closest('details')}""",
    )
    assert seen["before"] == [False, "27 rows"] and seen["groups"] is None
    assert seen["rows"] == ["oelm_no_freeze-s45", "oelm_freeze-s45"] and seen["count"] == "2 / 27"


def test_curves_to_zoom_into_have_the_colours_of_the_users_style(tmp_path: Path) -> None:
    style = tmp_path / "mine.mplstyle"
    style.write_text('axes.prop_cycle: cycler("color", ["tab:red", "blue", "0.5"])\nlines.linewidth: 3\n')
    report = build(
        synthetic.study(seeds=(42,)), make_arms(tmp_path / "runs", {"gpt_base": [3.9], "oelm_freeze": [3.8]})
    )
    drawn = figures.draw(report, "en", tmp_path, style)[0]
    content = as_html(report, "en", 0.0, drawn, style=style)
    assert set(re.findall(r'"colour": "(.*?)"', content)) == {"#d62728", "#808080"}
    assert set(re.findall(r'"width": ([0-9.]+)', content)) == {"3.0"}
    assert "#0072b2" in as_html(report, "en", 0.0, drawn)


def test_a_reader_zooms_into_the_curves_of_all_runs(page: Path) -> None:
    seen = run(
        page,
        """const details=document.querySelector('#figure-training_loss').nextElementSibling; details.open=true;
        const later=()=>new Promise(done=>setTimeout(done,100)); await later();
        const over=details.querySelector('.u-over'), said=details.querySelector('output');
        const send=(kind,x,to=over)=>{const box=over.getBoundingClientRect(); to.dispatchEvent(new MouseEvent(kind,
        {bubbles:true,button:0,movementX:9,clientX:box.left+x*box.width,clientY:box.top+box.height/2}))};
        const at=async x=>{send('mouseenter',x); send('mousemove',x); await later(); return said.textContent};
        const before=await at(0.02);
        send('mousedown',0.5); await later(); send('mousemove',0.9,document); send('mousemove',0.9); await later();
        send('mouseup',0.9,document); await later();
        const after=await at(0.02);
        const boxes=[...details.querySelectorAll('label')].map(l=>l.textContent);
        return {before, after, boxes}""",
    )
    steps = [int(re.findall(r"Step (\d+)", seen[when])[0]) for when in ("before", "after")]
    assert steps[0] <= 40 and steps[1] >= 180, seen
    assert seen["boxes"] == ["Group A: GPT-Base", "Group B: OELM-NoFreeze", "Group C: OELM-Freeze"]


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_but_wide_tables_and_figures_scrolls_sideways(page: Path, width: int) -> None:
    seen = run(
        page,
        """const w=innerWidth; return {w, page:document.documentElement.scrollWidth,
        wide:[...document.querySelectorAll('body *')].filter(e=>
        !e.closest('.scroll,figure,pre,svg') && e.getBoundingClientRect().right>w+1)
        .map(e=>e.tagName+'.'+e.className)}""",
        f"--window-size={width},900",
    )
    assert seen["page"] <= seen["w"] and seen["wide"] == []


def test_the_page_follows_light_and_dark(page: Path) -> None:
    script = """const s=getComputedStyle(document.body); return [matchMedia('(prefers-color-scheme: dark)').matches,
             s.backgroundColor, s.color]
             """
    light = run(page, script)
    dark = run(page, script, "--blink-settings=preferredColorScheme=0")
    assert light == [False, "rgb(255, 255, 255)", "rgb(27, 27, 31)"]
    assert dark == [True, "rgb(22, 22, 26)", "rgb(236, 236, 241)"]


CONTRAST = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const texts = [...document.querySelectorAll("h1, h2, p, li, td, th button, .outcome, .tag, a")];
return Math.min(...texts.filter((e) => !e.closest("figure")).map((e) => {
  const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}));
"""
"""Smallest contrast ratio of any text (WCAG 2)."""


def test_text_has_enough_contrast_in_light_and_dark(page: Path) -> None:
    assert run(page, CONTRAST) >= 4.5
    assert run(page, CONTRAST, "--blink-settings=preferredColorScheme=0") >= 4.5


def test_the_page_prints_to_several_pages_without_navigation(page: Path) -> None:
    pdf = page.with_name("report.pdf")
    subprocess.run(
        [
            chromium(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={page.parent / 'profile'}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={pdf}",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        env={**os.environ, "HOME": str(page.parent)},
        check=True,
    )
    pages = re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())
    assert 3 <= len(pages) <= 15


class Links(HTMLParser):
    """Collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if (
                name in ("src", "srcset", "data", "action")
                or (name == "href" and tag in ("link", "use", "image"))
                or name == "xlink:href"
            ):
                self.loaded.append(value or "")


def test_no_table_is_cut_off_in_print(page: Path) -> None:
    seen = run(
        page,
        """const sheet=document.styleSheets[0];
        const rules=[...sheet.cssRules].filter(r=>r.media&&r.media.mediaText==='print').flatMap(r=>[...r.cssRules]);
        rules.forEach(r=>sheet.insertRule(r.cssText,sheet.cssRules.length));
        document.body.style.width='718px';  // A4 with Chromium's margins
        return {rules:rules.length, wide:[...document.querySelectorAll('table')].filter(
        t=>t.getBoundingClientRect().right>719).map(t=>t.id)}""",
        "--window-size=718,1000",
    )
    assert seen["rules"] > 5 and seen["wide"] == []


def test_nothing_is_loaded_from_anywhere(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(content)
    assert [link for link in links.loaded if not link.startswith(("#", "data:"))] == []
    style = content[content.index("<style>") : content.index("</style>")]
    assert "@import" not in style and "url(" not in style


def test_ids_are_unique_over_all_embedded_figures(page: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_a_page_that_is_watched_loads_itself_again_and_a_final_one_does_not() -> None:
    report = build(synthetic.study(), [])
    assert '<meta http-equiv="refresh" content="10">' in as_html(report, "en", 0.0, refresh_s=10)
    assert "refresh" not in as_html(report, "en", 0.0)


def test_the_page_speaks_chinese() -> None:
    content = as_html(build(synthetic.study(), []), "zh", 0.0)
    assert '<html lang="zh-Hans">' in content and "结论" in content and "Verdicts" not in content
