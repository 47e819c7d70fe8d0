"""Hooks of mkdocs: the page of another language says which one it is, for fonts and for what reads it aloud."""

from __future__ import annotations

from typing import Any


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Return the HTML of a page: of a Chinese one (``NAME.zh.md``) with its language."""
    is_chinese = page.file.src_uri.endswith(".zh.md")
    return output.replace('<html lang="en"', '<html lang="zh-CN"', 1) if is_chinese else output
