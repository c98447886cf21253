"""Trains the encoder: it reads a drawn picture into the latent of its scene.

It lives in TAESD's encoder, which has no attention: a cell of a latent sees 134 pixels around it
and nothing of the rest. The layers at full, half and quarter size are set by hand. They hand on the
pixels near a cell and those 54 pixels away from it in eight directions, so that the trained layers,
all at an eighth of the size, see far at little cost. A cell cannot see how large the picture is:
its shorter side should be 256 pixels.
"""

from __future__ import annotations

import logging

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from comfy_local.toy_model.decoder import (
    DISTANCE_SCALE,
    DistanceNetwork,
    cells_read,
    row_distances,
    styled,
)
from comfy_local.toy_model.optimizers import Muon, Optimizers, split
from comfy_local.toy_model.scenes import (
    CHANNELS,
    FILLED,
    OUTLINE,
    Layout,
    Scenes,
    displayed,
    grid,
    latents_of,
    random_layout,
    random_scenes,
)

__all__ = [
    "DARKEST",
    "DIRECTIONS",
    "SHIFT",
    "EncoderNetwork",
    "drawn",
    "encoded",
    "train_encoder",
    "views",
]

logger = logging.getLogger(__name__)

STEPS = 1000
BATCH = 8
WIDTH = 64
SIZES = ((32, 32), (32, 32), (32, 32), (32, 40), (40, 32))  # in cells of 8 pixels
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
SHIFT = 9  # by this many pixels at half size, and again at a quarter of the size
DARKEST = 0.2  # a black pixel; what lies outside the picture is 0
VIEWS = 3 * 4 + 3 * len(DIRECTIONS)
OUTLINES_SHARE = 0.2
# The decoder shows all larger values of a colour alike, so the encoder cannot tell them apart.
COLOUR_LIMIT = 0.9
# What a cell shows for certain counts most: whether it lies inside a shape, and its colour.
DISTANCE_WEIGHT = 10.0
SHOWN_COLOUR_WEIGHT = 6.0


class EncoderNetwork(nn.Module):
    """The last layers of TAESD's encoder. They read the views of a picture and return a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(VIEWS, WIDTH, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.ModuleList(_block() for _ in range(3))
        self.last = nn.Conv2d(WIDTH, CHANNELS, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode.

        Args:
            pictures: ``[batch, VIEWS, height / 4, width / 4]``.

        Returns:
            ``[batch, CHANNELS, height / 8, width / 8]``.
        """
        values = self.squeeze(pictures)
        for block in self.blocks:
            values = functional.relu(values + block(values))
        latents: Tensor = self.last(values)
        return latents


def _block() -> nn.Sequential:
    layers = [nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3)]
    nn.init.normal_(layers[2].weight, std=0.01)
    for layer in layers:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def train_encoder(distances: DistanceNetwork, seed: int, steps: int = STEPS) -> EncoderNetwork:
    """Train the encoder.

    Args:
        distances: the trained part of the decoder, which decides what a latent looks like.
        seed: the same seed gives the same network on the same machine.
        steps: 1,000 take about 600 CPU seconds.
    """
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    distances.requires_grad_(requires_grad=False)
    network = EncoderNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = [parameter for parameter in network.blocks.parameters() if parameter.ndim == 4]
    matrices, others = split(network, weights)
    adam = torch.optim.AdamW(others, 2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers = Optimizers([Muon(matrices, 0.02), adam])
    for step in range(steps):
        index = int(torch.randint(0, len(SIZES), (1,), generator=generator))
        loss = encoder_loss(network, distances, SIZES[index], generator)
        optimizers.step(loss, min(1, (step + 1) / 30) * (1 - step / steps))
        if step % 100 == 99:
            logger.info("encoder, step %d of %d: loss %.4f", step + 1, steps, loss.item())
    return network


def encoder_loss(
    network: nn.Module, distances: DistanceNetwork, size: tuple[int, int], generator: Generator
) -> Tensor:
    """Draw random scenes and measure how well they are encoded.

    Args:
        network: the encoder.
        distances: the trained part of the decoder.
        size: height and width in latent pixels.
        generator: decides the scenes.
    """
    height, width = size
    scenes = random_scenes(BATCH, generator)
    layout = random_layout(scenes, generator, height, width)
    style = OUTLINE if torch.rand(1, generator=generator) < OUTLINES_SHARE else FILLED
    latents = latents_of(scenes, layout, height, width, style=style)
    latents[:, 8:14] = latents[:, 8:14].clamp(-COLOUR_LIMIT, COLOUR_LIMIT)
    pictures = drawn(scenes, layout, 4 * height, 4 * width, style)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = network(views(pictures).contiguous(memory_format=torch.channels_last))
    encoded = encoded.float()
    expected = _distances(scenes, layout, 2 * height, 2 * width, style)
    read = distances(cells_read(encoded))
    near_edge = 0.15 + torch.exp(-((expected / 0.04) ** 2))
    edges = ((read - torch.tanh(expected / DISTANCE_SCALE)) ** 2 * near_edge).mean()
    # A cell shows either the colour of the shape or that of the ground.
    is_inside = functional.avg_pool2d((expected > 0).float(), 2)[:, None]
    weights = torch.ones_like(latents)
    weights[:, 8:11] += SHOWN_COLOUR_WEIGHT * is_inside
    weights[:, 11:14] += SHOWN_COLOUR_WEIGHT * (1 - is_inside)
    loss: Tensor = ((encoded - latents) ** 2 * weights).mean() + DISTANCE_WEIGHT * edges
    return loss


@torch.no_grad()
def encoded(network: nn.Module, scenes: Scenes, layout: Layout, style: float) -> Tensor:
    """Draw scenes at 256x256 and encode the pictures. Shape ``[scenes, CHANNELS, 32, 32]``.

    Args:
        network: the encoder.
        scenes: what to draw.
        layout: where.
        style: FILLED to OUTLINE.
    """
    with torch.autocast("cpu", torch.bfloat16):
        latents: Tensor = network(views(drawn(scenes, layout, 128, 128, style)))
    return latents.float()


def views(pictures: Tensor) -> Tensor:
    """Compute what the layers of TAESD's encoder that are set by hand make of a picture.

    Args:
        pictures: ``[batch, 3, height, width]`` at half size, 0 to 1.

    Returns:
        ``[batch, VIEWS, height / 2, width / 2]``: the four pixels of each cell, then the mean of
        the pixels that are away from it in each direction.
    """
    bright = DARKEST + (1 - DARKEST) * pictures
    near = [bright[:, :, row::2, column::2] for row in range(2) for column in range(2)]
    far = []
    for direction in DIRECTIONS:
        smaller = functional.avg_pool2d(_shifted(bright, direction), 2)
        far.append(_shifted(smaller, direction))
    return torch.cat([*near, *far], dim=1)


def _shifted(pictures: Tensor, direction: tuple[int, int]) -> Tensor:
    """Move pictures by SHIFT pixels against a direction; what lies outside is 0."""
    height, width = pictures.shape[2:]
    padded = functional.pad(pictures, (SHIFT,) * 4)
    top, left = (SHIFT * (1 + part) for part in direction)
    return padded[:, :, top : top + height, left : left + width]


def drawn(scenes: Scenes, layout: Layout, height: int, width: int, style: float) -> Tensor:
    """Draw scenes as the decoder shows them. Shape ``[scenes, 3, height, width]``, 0 to 1.

    Args:
        scenes: what to draw.
        layout: where.
        height: in pixels.
        width: in pixels.
        style: FILLED to OUTLINE.
    """
    distances = _distances(scenes, layout, height, width, style)
    mask = (distances * min(height, width) + 0.5).clamp(0, 1)[:, None]
    shape, ground = displayed(scenes.colour_rgb), displayed(scenes.ground_rgb)
    return mask * shape[:, :, None, None] + (1 - mask) * ground[:, :, None, None]


def _distances(scenes: Scenes, layout: Layout, height: int, width: int, style: float) -> Tensor:
    """Compute the distance to the edge at each pixel. Shape ``[scenes, height, width]``."""
    rows, columns = grid(height, width)
    across = columns - layout.centre[:, 0, None]
    down = rows - layout.centre[:, 1, None]
    size = (len(layout.radius), height, width)
    position = torch.stack([across[:, None, :].expand(size), down[:, :, None].expand(size)], dim=-1)
    each = [
        values[:, None, None].expand(size).reshape(-1)
        for values in (layout.radius, scenes.shape, scenes.count)
    ]
    filled = row_distances(position.reshape(-1, 2), *each)
    return styled(filled, torch.full_like(filled, style)).view(size)
