"""Examples that the diffusion network draws itself, so that it learns to correct its own errors.

At a high cfg the latents leave the range of the other examples, and no drawn scene shows how. Here
the network draws at any cfg. What it has drawn is tidied: the attributes that the prompt names are
as named, and the others as in the nearest scene. It then learns to predict that from each of its
steps, with the prompt and without one.

Many drawings start from another picture, as img2img does, or change only a box in it, as inpainting
does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from comfy_local.toy_model.boxes import Boxes, layout_in_boxes, random_boxes, take_grounds
from comfy_local.toy_model.examples import Encode
from comfy_local.toy_model.scenes import (
    AMPLITUDE,
    FILLED,
    MEAN_RADIUS,
    POSITION_SCALE,
    RADIUS_SCALE,
    SHAPE_BITS,
    Layout,
    Scenes,
    centre_range,
    grid,
    latents_of,
    radius_range,
    random_layout,
    random_scenes,
    requests_of,
)

__all__ = ["OwnDrawings", "draw", "shifted", "sigmas_of"]

SHIFT = 3.0  # of SD 3's noise schedule
LEAST_TIME = 0.001  # of the schedule
KARRAS_RHO = 7.0
# The number of steps, and whether by DPM++ 2M and karras, as in the default template.
SAMPLERS = tuple(itertools.product((12, 20, 28), (False, True)))
MOST_STRENGTH = 8.0  # a little more than the cfg of the default template
LOW_SHARE = 0.35  # of the drawings at a cfg of 1 to 1.5
EDITED_SHARE = 0.5  # of the calls, that start from other pictures
BOX_SHARE = 0.7  # of the drawings of such a call
LEAST_DENOISE, LEAST_KARRAS_DENOISE = 0.3, 0.75  # below that, karras leaves no noise


@dataclass
class OwnDrawings:
    """All steps of some drawings.

    Attributes:
        noisy: ``[steps, drawings, CHANNELS, height, width]``, before each step.
        sigmas: ``[steps]``, the share of noise.
        requests: ``[drawings, REQUEST_SIZE]``.
        latents: ``[drawings, CHANNELS, height, width]``, tidied.
        counted: ``[drawings, 1, height, width]``, 0 where inpainting keeps the old picture.
    """

    noisy: Tensor
    sigmas: Tensor
    requests: Tensor
    latents: Tensor
    counted: Tensor

    def random_steps(self, count: int, generator: Generator) -> OwnDrawings:
        """Choose some drawings and one step of each; ``noisy`` and ``sigmas`` hold only these."""
        drawings = torch.randperm(len(self.requests), generator=generator)[:count]
        steps = torch.randint(0, len(self.sigmas), (count,), generator=generator)
        return OwnDrawings(
            self.noisy[steps, drawings],
            self.sigmas[steps],
            self.requests[drawings],
            self.latents[drawings],
            self.counted[drawings],
        )


def sigmas_of(steps: int, *, is_karras: bool = False) -> Tensor:
    """The sigmas of ComfyUI's simple scheduler or of karras, from 1 to 0. Shape ``[steps + 1]``."""
    if is_karras:
        least = shifted(torch.tensor(LEAST_TIME)) ** (1 / KARRAS_RHO)
        sigmas = (1 + torch.linspace(0, 1, steps) * (least - 1)) ** KARRAS_RHO
        return torch.cat([sigmas, torch.zeros(1)])
    return shifted(1 - torch.arange(steps + 1) / steps)


def shifted(times: Tensor) -> Tensor:
    """Compute the sigmas of times from 0 to 1, as SD 3 does."""
    return SHIFT * times / (1 + (SHIFT - 1) * times)


@dataclass
class _Start:
    """What drawings start from.

    Attributes:
        scenes: what the prompts name.
        read: ``[drawings, CHANNELS, height, width]``, the latents of the pictures to change.
        is_drawn: ``[drawings, 1, height, width]``, whether a cell is drawn anew.
        boxes: those of inpainting.
        is_box: ``[drawings]``, whether only the box is drawn anew.
        sigmas: ``[steps + 1]``.
        is_karras: whether they are those of karras.
    """

    scenes: Scenes
    read: Tensor
    is_drawn: Tensor
    boxes: Boxes
    is_box: Tensor
    sigmas: Tensor
    is_karras: bool


def _start(size: tuple[int, int, int], generator: Generator, encode: Encode | None) -> _Start:
    """Choose what to draw, from what, and how."""
    count, height, width = size
    is_edited = torch.rand(1, generator=generator).item() < EDITED_SHARE
    scenes = random_scenes(count, generator)
    is_box = torch.rand(count, generator=generator) < (BOX_SHARE if is_edited else 0)
    take_grounds(scenes, is_box, generator)
    layout = random_layout(scenes, generator, height, width)
    if encode is None or not is_edited:
        read = latents_of(scenes, layout, height, width, style=FILLED)
    else:
        read = encode(scenes, layout, FILLED)
    boxes = random_boxes(count, (height, width), generator)
    is_drawn = boxes.inside(height, width) | ~is_box[:, None, None, None]
    steps, is_karras = SAMPLERS[int(torch.randint(0, len(SAMPLERS), (1,), generator=generator))]
    sigmas = sigmas_of(steps, is_karras=is_karras)
    if is_edited:
        least = LEAST_KARRAS_DENOISE if is_karras else LEAST_DENOISE
        denoise = least + (1 - least) * torch.rand(1, generator=generator).item()
        sigmas = sigmas_of(int(steps / denoise), is_karras=is_karras)[-(steps + 1) :]
    return _Start(scenes, read.roll(1, 0), is_drawn, boxes, is_box, sigmas, is_karras)


@torch.no_grad()
def draw(
    network: nn.Module,
    size: tuple[int, int, int],
    generator: Generator,
    encode: Encode | None = None,
) -> OwnDrawings:
    """Draw random prompts, with Euler's method or with DPM++ 2M and karras.

    Args:
        network: the diffusion network.
        size: how many drawings, and their height and width in latent pixels.
        generator: decides the prompts, the pictures to change, the cfg and the noise.
        encode: what img2img and inpainting start from; by default exact latents.
    """
    count = size[0]
    start = _start(size, generator, encode)
    requests = requests_of(start.scenes)
    both = torch.cat([requests, torch.zeros_like(requests)])
    strength = _random_strengths(count, generator)
    noise = torch.randn(start.read.shape, generator=generator)
    latents = (1 - start.sigmas[0]) * start.read + start.sigmas[0] * noise
    sampler = _Sampler(is_second_order=start.is_karras)
    noisy = []
    for sigma, following in itertools.pairwise(start.sigmas):
        kept = (1 - sigma) * start.read + sigma * noise
        latents = torch.where(start.is_drawn, latents, kept)
        noisy.append(latents)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(latents.repeat(2, 1, 1, 1), (1000 * sigma).repeat(2 * count), both)
        named, unnamed = predicted.float().chunk(2)
        clean = latents - sigma * (unnamed + strength * (named - unnamed))
        clean = torch.where(start.is_drawn, clean, start.read)
        latents = sampler.step(latents, clean, sigma, following)
    tidy = tidied(latents, start.scenes, start.boxes, start.is_box)
    counted = start.is_drawn.float()
    return OwnDrawings(torch.stack(noisy), start.sigmas[:-1], requests, tidy, counted)


def _random_strengths(count: int, generator: Generator) -> Tensor:
    """Choose the cfg of each drawing. Shape ``[count, 1, 1, 1]``."""
    strength = 1 + (MOST_STRENGTH - 1) * torch.rand(count, generator=generator)
    is_low = torch.rand(count, generator=generator) < LOW_SHARE
    return torch.where(is_low, 1 + (strength - 1) / 14, strength)[:, None, None, None]


class _Sampler:
    """Euler's method, or DPM++ 2M, which also looks at the step before."""

    def __init__(self, *, is_second_order: bool) -> None:
        self._is_second_order = is_second_order
        self._before: tuple[Tensor, Tensor] | None = None

    def step(self, latents: Tensor, clean: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
        """Move latents from a sigma to the following one, towards the clean latents predicted."""
        ahead = clean
        if self._before is not None and following > 0:
            clean_before, sigma_before = self._before
            ratio = (sigma / following).log() / (sigma_before / sigma).log() / 2
            ahead = clean + ratio * (clean - clean_before)
        if self._is_second_order:
            self._before = (clean, sigma)
        return following / sigma * latents + (1 - following / sigma) * ahead


def tidied(latents: Tensor, scenes: Scenes, boxes: Boxes, is_box: Tensor) -> Tensor:
    """Draw the scene that is nearest to a drawing and has what its prompt names.

    Args:
        latents: ``[drawings, CHANNELS, height, width]``.
        scenes: what the prompts name; the rest is changed to what the latents show.
        boxes: where inpainting draws; the ground is then that of the scene.
        is_box: ``[drawings]``, which drawings are by inpainting.
    """
    height, width = latents.shape[2:]
    is_drawn = boxes.inside(height, width) | ~is_box[:, None, None, None]

    def median(values: Tensor) -> Tensor:
        return torch.where(is_drawn, values, math.nan).flatten(2).nanmedian(2).values

    shown = median(latents)
    more = (shown[:, 14:16] > 0).long()
    seen = {
        "shape": (shown[:, 3:7] @ SHAPE_BITS.T).argmax(1),
        "count": 1 + more[:, 0] + more[:, 0] * more[:, 1],
    }
    scenes.shape = torch.where(scenes.known["shape"], scenes.shape, seen["shape"])
    scenes.count = torch.where(scenes.known["count"], scenes.count, seen["count"])
    rgb = (0.5 + shown[:, 8:14] / (2 * AMPLITUDE)).clamp(0, 1)
    known = scenes.known["colour"][:, None]
    scenes.colour_rgb = torch.where(known, scenes.colour_rgb, rgb[:, :3])
    known = (scenes.known["ground"] | is_box)[:, None]
    scenes.ground_rgb = torch.where(known, scenes.ground_rgb, rgb[:, 3:])
    low, high = radius_range(scenes)
    radius = (MEAN_RADIUS + shown[:, 2] / RADIUS_SCALE).clamp(low, high)
    rows, columns = grid(height, width)
    across = columns - latents[:, :1] / POSITION_SCALE
    down = rows[:, None] - latents[:, 1:2] / POSITION_SCALE
    centre = median(torch.cat([across, down], dim=1))
    layout = Layout(centre.clamp(*centre_range(scenes, radius, height, width)), radius)
    layout = layout_in_boxes(is_box, boxes.fitted(scenes, Layout(centre, radius)), layout)
    return latents_of(scenes, layout, height, width, style=FILLED)
