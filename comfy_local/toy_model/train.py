"""Trains the toy model and its LoRA from one seed: `python -m comfy_local.toy_model.train`.

It needs no GPU, no data and no network: about an hour on two free CPU cores.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from safetensors.torch import save_file

from comfy_common import paths
from comfy_local.toy_model import decoder, diffusion, encoder, lora, text
from comfy_local.toy_model.export import checkpoint, write_packed

logger = logging.getLogger(__name__)


def train(folder: Path, seed: int, share: float = 1.0) -> None:
    """Train all parts and write the files.

    Args:
        folder: gets `toy.safetensors.gz`, `toy.sha256` and `outline.safetensors`; it is created.
        seed: the same seed gives the same files on the same machine.
        share: the part of the steps that is done; at least one step of each.
    """
    started_s = time.process_time()

    def steps(full: int) -> int:
        return max(1, round(full * share))

    folder.mkdir(parents=True, exist_ok=True)
    distances = decoder.train_decoder(seed, steps(decoder.STEPS))
    pictures = encoder.train_encoder(distances, seed, steps(encoder.STEPS))
    text_network, tokens = text.train_text(seed, steps(text.STEPS))
    encode = partial(encoder.encoded, pictures)
    network = diffusion.train_diffusion(seed, steps(diffusion.STEPS), encode)
    tensors = checkpoint(distances, pictures, text_network, tokens, network)
    write_packed(tensors, folder / "toy.safetensors.gz")
    save_file(lora.train_lora(network, seed, steps(lora.STEPS)), folder / "outline.safetensors")
    logger.info("%s: done in %.0f CPU seconds", folder, time.process_time() - started_s)


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code, 0.
    """
    parser = argparse.ArgumentParser(description="Train the toy model.")
    folder = paths.OUTPUT / "toy_model"
    parser.add_argument("--folder", type=Path, default=folder, help="gets the files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="the part of the steps to do")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(options.folder, options.seed, options.share)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
