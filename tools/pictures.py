"""Make the pictures of the demo in docs/images anew: ``python tools/pictures.py DIR``, of a report's files in DIR.

The report is that of the demo study with three seeds on two cores (``oelm-submit --study demo --num-seeds 3``, then
``oelm-report --study demo --plot``, the study's ``seeds`` set to the same three). Chromium, and pdftoppm of
poppler-utils are needed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
FIGURES = {
    "val_ppl_comparison": "val_ppl_seeds",
    "loss_vs_parameters": "loss_vs_parameters",
    "parameter_distribution": "parameter_distribution",
    "training_loss": "training_loss",
    "learning_rate": "learning_rate",
    "speed": "speed",
    "verdicts": "verdicts",
}
"""Figure of the report, and what it is called among the pictures (README's has one seed)."""
WINDOWS = {
    "light": ("1180,1300", "--blink-settings=preferredColorScheme=1"),
    "dark": ("1180,1300", "--blink-settings=preferredColorScheme=0"),
    "phone": ("390,1400", "--blink-settings=preferredColorScheme=1"),
}
"""Size of the window, and what the reader likes."""
PAGES, PAGE_DPI, GAP = 4, 56, 6
"""Of the printed report so many pages stand side by side."""
COLOURS = 256


def browse(page: Path, *options: str) -> None:
    """Let a browser make something of a page."""
    with tempfile.TemporaryDirectory() as profile:
        argv = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        subprocess.run([*argv, *options, page.as_uri()], check=True, capture_output=True, timeout=120)


def keep(picture: Image.Image, name: str) -> None:
    """Write a picture, of few colours."""
    picture.convert("RGB").quantize(COLOURS).save(IMAGES / f"{name}.png", optimize=True)


def main() -> None:
    """Make all of them."""
    report = Path(sys.argv[1]).resolve()
    for figure, name in FIGURES.items():
        keep(Image.open(report / f"{figure}.png"), name)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.png"
        for name, (size, liking) in WINDOWS.items():
            browse(report / "report.html", f"--window-size={size}", liking, f"--screenshot={made}")
            keep(Image.open(made), f"report_page_{name}")
        browse(report / "report.html", "--no-pdf-header-footer", f"--print-to-pdf={folder}/made.pdf")
        argv = ["pdftoppm", "-png", "-r", str(PAGE_DPI), "-l", str(PAGES), f"{folder}/made.pdf", f"{folder}/page"]
        subprocess.run(argv, check=True)
        pages = [Image.open(path) for path in sorted(Path(folder).glob("page*.png"))]
        width, height = pages[0].size
        sheet = Image.new("RGB", (GAP + (width + GAP) * len(pages), height + 2 * GAP), "#999999")
        for position, page in enumerate(pages):
            sheet.paste(page, (GAP + position * (width + GAP), GAP))
        keep(sheet, "report_page_print")


if __name__ == "__main__":
    main()
