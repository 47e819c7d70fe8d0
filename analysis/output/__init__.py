"""Output formats of a report: text, Markdown, LaTeX, CSV, HTML, JSON."""
