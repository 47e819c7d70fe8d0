"""How fast `oelm-data make` turns text into token files: the whole pipeline of reading, hashing, encoding and writing.

    python benchmarks/encode_text.py [--megabytes 40] [--vocab 50257] [--processes 1 --processes 2] [--rounds 3]

The text is the embedded novels cut into stories of TinyStories' size, shuffled anew for each copy. One line per number
of processes: the median over the rounds, interleaved with one bare `tiktoken` call on the same text as the yardstick.
"""

from __future__ import annotations

import argparse
import lzma
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from oelm_jobs.agent.host.devices import cores
from oelm_jobs.data import maker, tokenizer
from oelm_jobs.data.corpus import NOVELS_PATH
from oelm_jobs.data.token_folder import END_OF_TEXT

STORY_CHARS = 900


def write_stories(path: Path, size: int) -> None:
    """Write about ``size`` bytes of stories separated as in TinyStories-train.txt."""
    paragraphs = lzma.decompress(NOVELS_PATH.read_bytes()).decode().split("\n\n")
    stories, story = [], ""
    for paragraph in paragraphs:
        story += paragraph + "\n\n"
        if len(story) >= STORY_CHARS:
            stories.append(story.strip())
            story = ""
    shuffle = random.Random(0).shuffle
    written = 0
    with open(path, "w", encoding="utf-8") as stream:
        while written < size:
            shuffle(stories)
            written += stream.write(f"\n{END_OF_TEXT}\n".join(stories) + f"\n{END_OF_TEXT}\n")


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--vocab", type=int, default=tokenizer.GPT2_VOCAB_SIZE)
    parser.add_argument("--processes", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    counts = options.processes or sorted({1, cores()})
    rates: dict[str, list[float]] = {"tiktoken alone": []} | {f"oelm-data, {count} processes": [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "stories.txt"
        write_stories(source, options.megabytes * 10**6)
        text = source.read_text(encoding="utf-8")
        tokenizer.encode("warm", options.vocab)
        for _ in range(options.rounds):
            start = time.perf_counter()
            tokens = len(tokenizer.encode(text, options.vocab)) // 2
            rates["tiktoken alone"].append(tokens / (time.perf_counter() - start))
            for count in counts:
                start = time.perf_counter()
                made = maker.make([source], Path(folder) / "out", vocab_size=options.vocab, processes=count, force=True)
                tokens = sum(file.tokens for file in made.manifest.files.values())
                rates[f"oelm-data, {count} processes"].append(tokens / (time.perf_counter() - start))
    cpus = f"{platform.machine()}, {os.cpu_count()} CPUs"
    name = tokenizer.tokenizer_name(options.vocab)
    print(f"{cpus}, Python {platform.python_version()}, tiktoken {version('tiktoken')}")
    print(f"{len(text) / 1e6:.0f} MB of text, {tokens:,} tokens, {name}, {options.rounds} rounds")
    for name, values in rates.items():
        count = int(name.split()[1]) if name.startswith("oelm") else 1
        rate = statistics.median(values)
        print(f"{name:<24}{rate / 1e6:6.2f} M tokens/s {rate / count / 1e6:6.2f} M per process")


if __name__ == "__main__":
    sys.exit(main())
