"""Find the values that are put together of other settings and the seed: ``--name lr1e-3_s1`` is ``lr{lr}_s{seed}``."""

from __future__ import annotations

import os.path
import re

from .keys import Key

_NUMBER = re.compile(r"-?[\d.]+(e-?\d+)?", re.IGNORECASE)


def templates(varying: list[Key], seeds: list[int]) -> dict[str, str]:
    """Return the arguments whose values are put together of others' and the seed, with the texts that do it."""
    found: dict[str, str] = {}
    if not varying:
        return found
    simple = [key for key in varying if all(value is not None and len(value) == 1 for value in key.values)]
    for key in simple:
        texts = [value[0] for value in key.values if value]
        if all(map(_NUMBER.fullmatch, texts)):
            continue
        parts = {
            other: [value[0] for value in other.values if value]
            for other in simple
            if other is not key and other.argument not in found and len(set(other.values)) > 1
        }
        made = _template(texts, parts, [str(seed) for seed in seeds])
        if made is not None:
            template, used = made
            found[key.argument] = template
            for other in used:
                other.is_text = True
    return found


def _template(texts: list[str], parts: dict[Key, list[str]], seeds: list[str]) -> tuple[str, list[Key]] | None:
    """Return a text with placeholders that stands for all texts, and the settings in it."""
    template = texts[0].replace("{", "{{").replace("}", "}}")
    used: list[Key] = []
    choices: list[tuple[str, str, Key | None]] = [(values[0], f"{{{key.name}}}", key) for key, values in parts.items()]
    choices += [(seeds[0], "{seed}", None)] if len(set(seeds)) > 1 else []
    for value, placeholder, key in sorted(choices, key=lambda each: -len(each[0])):
        shape = re.compile(rf"(?<![\d.])(?<!{{){re.escape(value)}(?![\d.])(?!}})")
        pieces = re.split(r"(\{[^{}]+\})", template)
        replaced = "".join(piece if piece.startswith("{") else shape.sub(placeholder, piece) for piece in pieces)
        if value and replaced != template:
            template = replaced
            used += [key] if key is not None else []

    def filled(place: int) -> str:
        text = template
        for key, values in parts.items():
            text = text.replace(f"{{{key.name}}}", values[place])
        return (text.replace("{seed}", seeds[place]) if seeds else text).replace("{{", "{").replace("}}", "}")

    if template == texts[0] or any(filled(place) != text for place, text in enumerate(texts)):
        return None
    return template, used


def seed_taken_out(key: Key, seeds: list[int]) -> str:
    """Leave of each value what is the group's, where the rest is the seed's; return the text for both, else nothing."""
    texts = [value[0] if value and len(value) == 1 else "" for value in key.values]
    if len(set(seeds)) < 2 or not all(texts) or all(map(_NUMBER.fullmatch, texts)):
        return ""
    cut = [re.sub(rf"(?<!\d){seed}(?!\d)", "\0", text) for text, seed in zip(texts, seeds, strict=True)]
    parts = [text.split("\0") for text in cut]
    if any(len(part) != 2 or not part[0] for part in parts) or len({part[1] for part in parts}) > 1:
        return ""
    between = os.path.commonprefix([part[0][::-1] for part in parts])[::-1]  # noqa: RUF071 - characters are meant
    between = (re.search(r"[\W_]*[A-Za-z]*$", between) or between)[0] if len({part[0] for part in parts}) > 1 else ""
    own = [part[0].removesuffix(between) for part in parts]
    if not all(own):
        return ""
    key.values = [(each,) for each in own]
    behind = between + "{seed}" + parts[0][1]
    return f"{{{key.name}}}{behind}" if "{" not in between + parts[0][1] else ""
