"""Forms of a report: text, HTML, JSON, files."""
