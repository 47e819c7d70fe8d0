"""Read and write text in GPT-2's vocabulary, whole or cut to its first entries, for samples.

Small, slow and without dependencies; data sets are encoded by ``oelm-data``, which takes the ranks from here. Byte-pair
encoding by merge ranks: Sennrich et al. 2016, over bytes as in Radford et al. 2019.
"""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List, Optional

END_OF_TEXT = "<|endoftext|>"
FILE_NAME = "gpt2-vocab.bpe"
# GPT-2's own pattern says \p{L} and \p{N}, which the standard library lacks; these classes differ on rare characters.
_PIECES = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


class Vocabulary:
    """The first ``size - 1`` entries of GPT-2's vocabulary, then ``<|endoftext|>``: the ids that oelm-data writes."""

    def __init__(self, merges_path: str, size: int) -> None:
        """Read a merges file: two words a line, bytes written as printable characters."""
        byte_of = _byte_of_character()
        entries = [bytes([byte]) for byte in byte_of.values()]
        with open(merges_path, encoding="utf-8") as stream:
            for line in stream:
                words = line.split()
                if len(words) == 2 and not line.startswith("#version"):
                    entries.append(bytes(byte_of[character] for character in "".join(words)))
        self.end_of_text = size - 1
        self._bytes: List[bytes] = entries[: size - 1]
        self.rank: Dict[bytes, int] = {entry: rank for rank, entry in enumerate(self._bytes)}
        """Id of each entry; pairs are merged in this order."""

    def encode(self, text: str) -> List[int]:
        """Return the ids of a text; ``<|endoftext|>`` in it is one id."""
        ids: List[int] = []
        for number, part in enumerate(text.split(END_OF_TEXT)):
            ids += [self.end_of_text] if number else []
            for piece in _PIECES.findall(part):
                ids += self._merge([bytes([byte]) for byte in piece.encode()])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are no UTF-8 become replacement characters."""
        found = [END_OF_TEXT.encode() if i == self.end_of_text else self._bytes[i] for i in ids]
        return b"".join(found).decode("utf-8", errors="replace")

    def _merge(self, parts: List[bytes]) -> List[int]:
        """Merge the pair of lowest rank until no pair is an entry."""
        while len(parts) > 1:
            ranks = [self.rank.get(parts[i] + parts[i + 1], len(self.rank)) for i in range(len(parts) - 1)]
            best = min(ranks)
            if best == len(self.rank):
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.rank[part] for part in parts]


def find_merges(data_path: str) -> Optional[str]:
    """Return the merges file beside the data or in the toolkit's folder of texts; None where there is none."""
    here = os.path.dirname(os.path.abspath(__file__))
    folders = (
        os.path.dirname(data_path),
        os.path.join(os.path.dirname(here), "text"),  # installed: oelm_jobs/train beside oelm_jobs/text
        os.path.join(os.path.dirname(here), "oelm_jobs", "text"),  # in a checkout
    )
    paths = [os.path.join(folder, FILE_NAME) for folder in folders]
    return next((path for path in paths if os.path.isfile(path)), None)


def _byte_of_character() -> Dict[str, int]:
    """Return GPT-2's spelling of bytes in its vocabulary's order: the printable ones as themselves, then the others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}
