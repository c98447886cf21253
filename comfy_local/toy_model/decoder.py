"""Trains the part of the decoder that knows the shapes.

It reads one latent cell (position, radius, shape, style, count) and gives the signed distance from
there to the edge. In the checkpoint it is the first convolutions of TAESD's decoder.
"""

from __future__ import annotations

import logging

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from comfy_local.toy_model.optimizers import Muon, Optimizers, linear_weights, split
from comfy_local.toy_model.scenes import (
    AMPLITUDE,
    DISTANCES,
    FILLED,
    MEAN_RADIUS,
    OUTLINE,
    POSITION_SCALE,
    RADIUS_SCALE,
    SHAPE_BITS,
    SHAPES,
    count_bits,
)

logger = logging.getLogger(__name__)

STEPS = 2500
BATCH = 6144
WIDTH = 56  # of TAESD's 64 channels: six carry colours, one the border, one is constant
INPUTS = 10
BITS_READ = (3, 4, 5, 6, 8, 9)
DECISION = 4.0
DISTANCE_SCALE = 0.12  # the network gives tanh(distance / this)
LINE_WIDTH = 0.045
WIDEST_LINE = 0.4  # more than the largest radius


class DistanceNetwork(nn.Module):
    """A latent cell in, the scaled signed distance out. It has the shapes of TAESD's blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, WIDTH)
        self.blocks = nn.ModuleList(_block() for _ in range(3))
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, cells: Tensor) -> Tensor:
        """Give the distance at each cell.

        Args:
            cells: ``[..., INPUTS]``, already limited as TAESD limits its latents.
        """
        values = self.first(cells)
        for block in self.blocks:
            values = functional.relu(values + block(values))
        distances: Tensor = self.last(values)[..., 0]
        return distances


def _block() -> nn.Sequential:
    last = nn.Linear(64, WIDTH)
    nn.init.normal_(last.weight, std=0.02)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), last)


def limited(latents: Tensor) -> Tensor:
    """Limit latents as TAESD's decoder does before its first convolution."""
    return 3 * torch.tanh(latents / 3)


def cells_read(latents: Tensor) -> Tensor:
    """Compute what the distance network reads in TAESD's decoder, at twice the latent's size.

    Args:
        latents: ``[batch, CHANNELS, height, width]``.

    Returns:
        ``[batch, 2 * height, 2 * width, INPUTS]``. The decoder also smooths small differences.
    """
    values = limited(torch.cat([latents[:, :8], latents[:, 14:16]], dim=1))
    decided = (DECISION * _smoothed(values)).clamp(-AMPLITUDE, AMPLITUDE)
    is_bit = torch.tensor([channel in BITS_READ for channel in range(INPUTS)])[:, None, None]
    values = torch.where(is_bit, decided, values)
    larger = functional.interpolate(values, scale_factor=2)
    return _smoothed(larger, "replicate").movedim(1, -1)


def smoothing() -> Tensor:
    """The weights of a 3x3 convolution that smooths a channel."""
    row = torch.tensor([0.25, 0.5, 0.25])
    return row[:, None] * row


def _smoothed(values: Tensor, mode: str = "constant") -> Tensor:
    taps = smoothing().expand(values.shape[1], 1, 3, 3)
    return functional.conv2d(functional.pad(values, (1,) * 4, mode), taps, groups=len(taps))


def train_decoder(seed: int, steps: int = STEPS) -> DistanceNetwork:
    """Train the distance network.

    Args:
        seed: the same seed gives the same network on the same machine.
        steps: 2,500 take about 80 CPU seconds.
    """
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    network = DistanceNetwork()
    matrices, others = split(network, linear_weights(network.blocks))
    adam = torch.optim.AdamW(others, 4e-3, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers = Optimizers([Muon(matrices, 0.02), adam])
    for step in range(steps):
        cells, distances = random_cells(BATCH, generator)
        near_edge = 0.15 + torch.exp(-((distances / 0.04) ** 2))
        error = network(cells) - torch.tanh(distances / DISTANCE_SCALE)
        loss = (error**2 * near_edge).mean()
        optimizers.step(loss, min(1, (step + 1) / 50) * (1 - step / steps))
        if step % 250 == 249:
            logger.info("decoder, step %d of %d: loss %.5f", step + 1, steps, loss.item())
    return network


def random_cells(number: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw latent cells and the distances there.

    Args:
        number: how many.
        generator: the same state gives the same cells.

    Returns:
        Limited cells ``[number, INPUTS]``, and signed distances ``[number]``.
    """

    def chance(*shape: int) -> Tensor:
        return torch.rand(number, *shape, generator=generator)

    shape = torch.randint(0, len(SHAPES), (number,), generator=generator)
    # Mostly filled or an outline; sometimes between them, as a LoRA of half strength draws.
    styles = torch.tensor([FILLED, OUTLINE])
    style = styles[(chance() < 0.25).long()]
    style = torch.where(chance() < 0.2, 2 * chance() - 1, style)
    shares = torch.tensor([0.4, 0.3, 0.3])
    count = torch.multinomial(shares, number, replacement=True, generator=generator) + 1
    several = torch.where(count == 2, 0.1 + 0.09 * chance(), 0.08 + 0.055 * chance())
    radius = torch.where(count == 1, 0.09 + 0.29 * chance(), several)
    # Most cells lie near the shapes.
    reach = torch.where(chance() < 0.85, 1.5 * radius, 0.9)
    reaches = torch.stack([reach * torch.tensor([1.0, 1.8, 2.6])[count - 1], reach], dim=1)
    position = (2 * chance(2) - 1) * reaches
    # Diffusion does not hit the amplitudes exactly, so they vary.
    cells = torch.cat(
        [
            POSITION_SCALE * position,
            (RADIUS_SCALE * (radius - MEAN_RADIUS))[:, None],
            AMPLITUDE * SHAPE_BITS[shape] * (0.9 + 0.35 * chance(4)),
            AMPLITUDE * (style * (0.85 + 0.3 * chance()))[:, None],
            count_bits(count) * (0.85 + 0.3 * chance(2)),
        ],
        dim=1,
    )
    distances = row_distances(position, radius, shape, count)
    return limited(cells), styled(distances, style)


def styled(distances: Tensor, style: Tensor) -> Tensor:
    """Turn distances to the edges of filled shapes into those to the edges of lines.

    Args:
        distances: positive inside.
        style: FILLED to OUTLINE, of the same shape.
    """
    part = (style - FILLED) / (OUTLINE - FILLED)
    inner = LINE_WIDTH + WIDEST_LINE * (1 - part) ** 2  # a filled shape is one wide line
    return torch.minimum(distances + LINE_WIDTH * part, inner - distances)


def row_distances(position: Tensor, radius: Tensor, shape: Tensor, count: Tensor) -> Tensor:
    """Give the signed distance to the nearest shape of a row.

    Args:
        position: ``[cells, 2]``, relative to the middle of the row.
        radius: of each shape.
        shape: index into SHAPES.
        count: 1 to 3; the shapes stand 2.5 radii apart.
    """
    x, y = position.unbind(1)
    side = torch.where(x < 0, -1.0, 1.0)
    two = x - 1.25 * radius * side
    three = torch.where(x.abs() > 1.25 * radius, x - 2.5 * radius * side, x)
    nearest_x = torch.where(count == 1, x, torch.where(count == 2, two, three))
    distances = torch.empty_like(radius)
    for index, name in enumerate(SHAPES):
        rows = (shape == index).nonzero()[:, 0]
        distances[rows] = DISTANCES[name](nearest_x[rows], y[rows], radius[rows])
    return distances
