"""Makes the examples from which the diffusion network learns.

In most of them the noisy latent shows the picture that the network has to predict. The others
show what it meets in use: another picture (img2img), another picture around a box (inpainting), or
too large values (a high cfg). In img2img the prompt decides what it names, and the latent decides
the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from comfy_local.toy_model.boxes import layout_in_boxes, random_boxes, take_grounds
from comfy_local.toy_model.scenes import (
    FILLED,
    OUTLINE_CHANNEL,
    POSITION_SCALE,
    Layout,
    Scenes,
    latents_of,
    random_layout,
    random_scenes,
    requests_of,
)

__all__ = ["Encode", "Examples", "random_examples"]

# The picture itself, a high cfg, img2img, inpainting, the picture as it was encoded, and the share
# of each; without and with an encoder.
PLAIN, STRONG, OTHER, BOX, ENCODED = range(5)
SHARES = torch.tensor([0.52, 0.18, 0.14, 0.16, 0.0])
SHARES_WITH_ENCODER = torch.tensor([0.2, 0.1, 0.2, 0.25, 0.25])
# Below this sigma a latent that shows something else would ask for very large predictions.
LEAST_SIGMA = 0.3
MOST_STRENGTH = 7.0  # the cfg of the default template
# The channels that an attribute decides.
CHANNELS_OF = {
    "shape": [3, 4, 5, 6],
    "colour": [8, 9, 10],
    "ground": [11, 12, 13],
    "count": [2, 14, 15],
    "size": [2],
    "position": [0, 1],
}
OF_SHAPES = [2, 3, 4, 5, 6, 8, 9, 10, 14, 15]


Encode = Callable[[Scenes, Layout, float], Tensor]
"""Draws scenes in a style, and encodes the pictures."""


@dataclass
class Examples:
    """What the network reads and what it has to predict.

    Attributes:
        latents: ``[examples, CHANNELS, height, width]``, of the picture to predict.
        shown: the pictures that get the noise; the same shape.
        requests: ``[examples, REQUEST_SIZE]``.
        counted: ``[examples, 1, height, width]``, 0 where inpainting keeps the old picture.
    """

    latents: Tensor
    shown: Tensor
    requests: Tensor
    counted: Tensor


def random_examples(
    size: tuple[int, int],
    sigmas: Tensor,
    generator: Generator,
    style: float = FILLED,
    encode: Encode | None = None,
) -> Examples:
    """Draw one example for each sigma.

    Args:
        size: height and width in latent pixels.
        sigmas: ``[examples]``, the share of noise.
        generator: the same state gives the same examples.
        style: FILLED or OUTLINE.
        encode: what img2img and inpainting start from; by default exact latents.
    """
    number = len(sigmas)
    scenes = random_scenes(number, generator)
    shares = SHARES if encode is None else SHARES_WITH_ENCODER
    task = torch.multinomial(shares, number, replacement=True, generator=generator)
    is_clear = (sigmas < LEAST_SIGMA) & ((task == STRONG) | (task == OTHER))
    task[is_clear] = PLAIN
    is_box = task == BOX
    take_grounds(scenes, is_box, generator)
    layout = random_layout(scenes, generator, *size)
    boxes = random_boxes(number, size, generator)
    smaller = Layout(
        boxes.middle + layout.centre * boxes.sides, layout.radius * boxes.sides.min(1).values
    )
    layout = layout_in_boxes(is_box, boxes.fitted(scenes, smaller), layout)
    latents = latents_of(scenes, layout, *size, style=style)
    requests = requests_of(scenes)
    read = latents if encode is None else encode(scenes, layout, style)
    is_read = (task == OTHER) | (task == ENCODED)
    shown = torch.where(is_read[:, None, None, None], read, latents)
    _show_others(shown, read, scenes, task == OTHER, generator)
    if encode is None:
        _show_weakly(shown, task == OTHER, generator)
    strong = (task == STRONG).nonzero()[:, 0]
    strength = 1 + (MOST_STRENGTH - 1) * torch.rand(len(strong), generator=generator)
    strength = 1 + (strength - 1) * sigmas[strong] ** 2
    shown[strong] = _strong(latents[strong], layout, scenes, strong, strength)
    requests[strong[::2]] = 0  # the prediction without a prompt meets strong values too
    kept = is_box[:, None, None, None] & ~boxes.inside(*size)
    shown = torch.where(kept, read.roll(1, 0), shown)
    return Examples(latents, shown, requests, (~kept).float())


def _show_others(
    shown: Tensor, read: Tensor, scenes: Scenes, is_other: Tensor, generator: Generator
) -> None:
    """Show another picture in most attributes that the prompt names."""
    others = read.roll(1, 0)
    number = len(read)
    for name, channels in CHANNELS_OF.items():
        chosen = is_other & scenes.known[name] & (torch.rand(number, generator=generator) < 0.7)
        rows = chosen.nonzero()
        shown[rows, torch.tensor(channels)] = others[rows, torch.tensor(channels)]


def _show_weakly(shown: Tensor, is_other: Tensor, generator: Generator) -> None:
    """Show shapes less in cells far from them, since those of the encoder see what is near."""
    sight = POSITION_SCALE * (0.3 + 0.7 * torch.rand(len(shown), generator=generator))
    far = shown[:, :2].abs().amax(1) > sight[:, None, None]
    blind = (far & is_other[:, None, None])[:, None]
    shown[:, OF_SHAPES] *= 1 - 0.7 * blind


def _strong(
    latents: Tensor, layout: Layout, scenes: Scenes, rows: Tensor, strength: Tensor
) -> Tensor:
    """Make the values of latents too large, as a high cfg does."""
    shown = latents * strength[:, None, None, None]
    moved = (strength - 1)[:, None] * layout.centre[rows] * scenes.known["position"][rows, None]
    shown[:, :2] = latents[:, :2] - POSITION_SCALE * moved[:, :, None, None]
    shown[:, OUTLINE_CHANNEL] = latents[:, OUTLINE_CHANNEL]
    return shown
