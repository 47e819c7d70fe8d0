"""``python -m train.sample CHECKPOINT``: generate text from a checkpoint."""

from __future__ import annotations

import argparse
import sys
from typing import List

import torch
from torch import Tensor

from .config import ConfigError
from .errors import TrainError
from .evaluate import load_model
from .model import Transformer
from .records import complain
from .vocabulary import FILE_NAME, Vocabulary, find_merges


@torch.no_grad()
def generate(
    model: Transformer, tokens: Tensor, count: int, temperature: float, top_k: int, source: torch.Generator
) -> Tensor:
    """Return ``count`` ids [count] that continue the ids [T]; the model sees the newest ``seq_len`` of them.

    Temperature 0 takes the likeliest id each time; ``top_k`` 0 lets all ids take part.
    """
    start = tokens.numel()
    for _ in range(count):
        logits = model.logits(tokens[-model.config.seq_len :][None], last=1)[0, 0].float()
        if top_k:
            logits[logits < logits.topk(min(top_k, logits.numel())).values[-1]] = float("-inf")
        if temperature == 0:
            new = logits.argmax()[None]
        else:
            new = torch.multinomial(torch.softmax(logits / temperature, 0), 1, generator=source)
        tokens = torch.cat((tokens, new))
    return tokens[start:]


def main(argv: List[str]) -> int:
    """Print samples; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.sample", description="Write text from a checkpoint.")
    parser.add_argument("checkpoint", help="a checkpoint_<step>.pt or best_model.pt")
    parser.add_argument("--prompt", default="", help="text to go on from (default: the start of a document)")
    parser.add_argument("--max_new_tokens", "--max-new-tokens", type=int, default=100)
    parser.add_argument("--num_samples", "--num-samples", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token")
    parser.add_argument("--top_k", "--top-k", type=int, default=50, help="0: no limit")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--vocab", help=f"GPT-2's merges file (default: {FILE_NAME} beside the data or of the toolkit)")
    arguments = parser.parse_args(argv)
    try:
        model, config, _ = load_model(arguments.checkpoint)
        merges = arguments.vocab or find_merges(config.data_path)
        vocabulary = Vocabulary(merges, config.vocab_size) if merges and config.vocab_size >= 257 else None
    except (TrainError, ConfigError, OSError) as error:
        complain(str(error))
        return 1
    if vocabulary is None and arguments.prompt:
        complain(f"no vocabulary for {config.vocab_size} ids: --vocab names GPT-2's merges file; samples are ids")
    ids = vocabulary.encode(arguments.prompt) if vocabulary is not None else []
    start = torch.tensor(ids or [config.vocab_size - 1])
    source = torch.Generator().manual_seed(arguments.seed)
    for number in range(arguments.num_samples):
        new = generate(model, start, arguments.max_new_tokens, arguments.temperature, arguments.top_k, source).tolist()
        if vocabulary is not None and vocabulary.end_of_text in new:
            new = new[: new.index(vocabulary.end_of_text)]
        if number:
            print("---")
        print(arguments.prompt + vocabulary.decode(new) if vocabulary is not None else " ".join(map(str, new)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
