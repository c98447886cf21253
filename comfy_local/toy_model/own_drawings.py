"""Examples that the diffusion network draws itself, so that it learns to correct its own errors.

At a high cfg the latents leave the range of the other examples, and no drawn scene shows how. Here
the network draws at any cfg. What it has drawn is tidied: the attributes that the prompt names are
as named, and the others as in the nearest scene. It then learns to predict that from each of its
steps, with the prompt and without one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from comfy_local.toy_model.scenes import (
    AMPLITUDE,
    CHANNELS,
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


@dataclass
class OwnDrawings:
    """All steps of some drawings.

    Attributes:
        noisy: ``[steps, drawings, CHANNELS, height, width]``, before each step.
        sigmas: ``[steps]``, the share of noise.
        requests: ``[drawings, REQUEST_SIZE]``.
        latents: ``[drawings, CHANNELS, height, width]``, tidied.
    """

    noisy: Tensor
    sigmas: Tensor
    requests: Tensor
    latents: Tensor

    def random_steps(
        self, count: int, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Choose some drawings, and a step of each.

        Returns:
            Noisy latents, sigmas, requests and tidied latents.
        """
        drawings = torch.randperm(len(self.requests), generator=generator)[:count]
        steps = torch.randint(0, len(self.sigmas), (count,), generator=generator)
        noisy = self.noisy[steps, drawings]
        return noisy, self.sigmas[steps], self.requests[drawings], self.latents[drawings]


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


@torch.no_grad()
def draw(network: nn.Module, size: tuple[int, int, int], generator: Generator) -> OwnDrawings:
    """Draw random prompts, with Euler's method or with DPM++ 2M and karras.

    Args:
        network: the diffusion network.
        size: how many drawings, and their height and width in latent pixels.
        generator: decides the prompts, the cfg and the noise.
    """
    count, height, width = size
    scenes = random_scenes(count, generator)
    requests = requests_of(scenes)
    both = torch.cat([requests, torch.zeros_like(requests)])
    strength = 1 + (MOST_STRENGTH - 1) * torch.rand(count, generator=generator)
    is_low = torch.rand(count, generator=generator) < LOW_SHARE
    strength = torch.where(is_low, 1 + (strength - 1) / 14, strength)[:, None, None, None]
    latents = torch.randn(count, CHANNELS, height, width, generator=generator)
    choice = int(torch.randint(0, len(SAMPLERS), (1,), generator=generator))
    steps, is_karras = SAMPLERS[choice]
    sigmas = sigmas_of(steps, is_karras=is_karras)
    sampler = _Sampler(is_second_order=is_karras)
    noisy = []
    for sigma, following in itertools.pairwise(sigmas):
        noisy.append(latents)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(latents.repeat(2, 1, 1, 1), (1000 * sigma).repeat(2 * count), both)
        named, unnamed = predicted.float().chunk(2)
        clean = latents - sigma * (unnamed + strength * (named - unnamed))
        latents = sampler.step(latents, clean, sigma, following)
    return OwnDrawings(torch.stack(noisy), sigmas[:-1], requests, tidied(latents, scenes))


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


def tidied(latents: Tensor, scenes: Scenes) -> Tensor:
    """Draw the scene that is nearest to a drawing and has what its prompt names.

    Args:
        latents: ``[drawings, CHANNELS, height, width]``.
        scenes: what the prompts name; the rest is changed to what the latents show.
    """
    height, width = latents.shape[2:]
    shown = latents.flatten(2).median(2).values
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
    known = scenes.known["ground"][:, None]
    scenes.ground_rgb = torch.where(known, scenes.ground_rgb, rgb[:, 3:])
    low, high = radius_range(scenes)
    radius = (MEAN_RADIUS + shown[:, 2] / RADIUS_SCALE).clamp(low, high)
    rows, columns = grid(height, width)
    across = columns - latents[:, 0] / POSITION_SCALE
    down = rows[:, None] - latents[:, 1] / POSITION_SCALE
    centre = torch.stack([part.flatten(1).median(1).values for part in (across, down)], dim=1)
    centre = centre.clamp(*centre_range(scenes, radius, height, width))
    return latents_of(scenes, Layout(centre, radius), height, width, style=FILLED)
