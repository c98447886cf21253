"""Draws random scenes: what a prompt can say about a picture, and the latent that shows it.

A latent names the picture and does not draw it: nearly all of its 16 channels are constant over the
picture. Only the decoder knows the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

PALETTE = {
    "red": (0.95, 0.08, 0.08),
    "green": (0.05, 0.75, 0.15),
    "blue": (0.1, 0.2, 0.95),
    "yellow": (1.0, 0.9, 0.05),
    "orange": (1.0, 0.5, 0.0),
    "purple": (0.5, 0.1, 0.75),
    "pink": (1.0, 0.5, 0.75),
    "cyan": (0.1, 0.85, 0.95),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "gray": (0.5, 0.5, 0.5),
    "brown": (0.5, 0.28, 0.1),
}
COLOURS = list(PALETTE)
RGB = torch.tensor(list(PALETTE.values()))
# Which colours can stand on one another: those that are far enough apart.
CONTRASTS = (RGB[:, None] - RGB[None]).norm(dim=-1) > 0.55

# The request that the text network hands to the diffusion network, in 26 numbers.
SHAPE_AT = 0
COLOUR_AT = 9  # whether it is known, red, green, blue
GROUND_AT = 13
COUNT_AT = 17
SIZE_AT = 20  # small, big
POSITION_AT = 22  # known, x, known, y
REQUEST_SIZE = 26

CHANNELS = 16
OUTLINE_CHANNEL = 7
POSITION_SCALE = 2.5
RADIUS_SCALE = 12.0
MEAN_RADIUS = 0.2
AMPLITUDE = 1.2
FILLED, OUTLINE = -1.0, 1.0  # the range of styles
# With 1 in place of 1.2 the amplitude is a pure colour; 1.2 makes nearly pure colours pure too.
COLOUR_GAIN = 1.2 * 0.5 / (3 * math.tanh(AMPLITUDE / 3))
MARGIN = 0.025  # between the shapes and the edge of the picture


def _circle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return radius - torch.hypot(x, y)


def _square(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return 0.86 * radius - torch.maximum(x.abs(), y.abs())


def _triangle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    lowered = y - 0.15 * radius
    slope = math.cos(math.pi / 6) * x.abs() - 0.5 * lowered
    return 0.56 * radius - torch.maximum(lowered, slope)


def _star(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """The distance to the edge from a tip to a valley, after folding the star into half a ray."""
    tip, valley, ray = 1.2 * radius, 0.5 * radius, 2 * math.pi / 5
    angle = ((torch.atan2(x, -y) + ray / 2) % ray - ray / 2).abs()
    distance = torch.hypot(x, y)
    along, across = distance * torch.cos(angle), distance * torch.sin(angle)
    edge_x = valley * math.cos(ray / 2) - tip
    edge_y = valley * math.sin(ray / 2)
    return (edge_x * across - edge_y * (along - tip)) / torch.hypot(edge_x, edge_y)


def _heart(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    half = 0.52 * radius
    raised = y + 0.1 * radius
    lobes = half - torch.hypot(x.abs() - 0.95 * half, raised + 0.5 * half)
    sides = (1.95 * half - x.abs() - raised - 0.05 * half) / math.sqrt(2)
    wedge = torch.minimum(torch.minimum(sides, raised + 0.5 * half), 1.95 * half - x.abs())
    return torch.maximum(lobes, wedge)


def _diamond(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return (1.1 * radius - 1.25 * x.abs() - y.abs()) / 1.6


def _cross(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    flat = torch.minimum(radius - x.abs(), 0.34 * radius - y.abs())
    upright = torch.minimum(radius - y.abs(), 0.34 * radius - x.abs())
    return torch.maximum(flat, upright)


def _moon(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    bite = torch.hypot(x - 0.5 * radius, y + 0.1 * radius) - 0.8 * radius
    return torch.minimum(1.05 * radius - torch.hypot(x, y), bite)


def _ring(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return 0.26 * radius - (torch.hypot(x, y) - 0.8 * radius).abs()


DISTANCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "diamond": _diamond,
    "cross": _cross,
    "moon": _moon,
    "ring": _ring,
}
"""By shape, the distance to its edge, positive inside; y points down, 1 is the shorter side."""

SHAPES = list(DISTANCES)


def _bit_patterns() -> Tensor:
    """Four bits for each shape; all but one pair of shapes differ in two bits or more."""
    numbers = torch.tensor([0, 3, 5, 6, 9, 10, 12, 15, 1])
    bits = (numbers[:, None] >> torch.arange(4)) & 1
    return (2 * bits - 1).float()


SHAPE_BITS = _bit_patterns()


@dataclass
class Scenes:
    """Random scenes, and which of their attributes the prompt names.

    Attributes:
        shape: index into SHAPES.
        colour: index into PALETTE, of the shapes.
        ground: the same, of the ground.
        count: 1 to 3.
        size: 0 small, 1 medium, 2 big.
        position: of a single shape: -1, 0 or 1 in x and in y.
        known: by attribute, whether the prompt names it.
        colour_rgb: what is drawn; where the prompt names no colour, often one of no palette.
        ground_rgb: the same, of the ground.
    """

    shape: Tensor
    colour: Tensor
    ground: Tensor
    count: Tensor
    size: Tensor
    position: Tensor
    known: dict[str, Tensor]
    colour_rgb: Tensor
    ground_rgb: Tensor


# How often a prompt names an attribute.
NAMED = {
    "shape": 0.85,
    "colour": 0.85,
    "ground": 0.8,
    "count": 0.9,
    "size": 0.4,
    "position": 0.25,
}
NOTHING_NAMED = 0.08  # trains the unconditional prediction


def random_scenes(number: int, generator: Generator) -> Scenes:
    """Draw scenes.

    Args:
        number: how many.
        generator: the same state gives the same scenes.
    """

    def chance() -> Tensor:
        return torch.rand(number, generator=generator)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, (number, *shape), generator=generator)

    colour = integers(0, len(COLOURS))
    ground = torch.multinomial(CONTRASTS.float()[colour], 1, generator=generator)[:, 0]
    shares = torch.tensor([0.7, 0.16, 0.14])
    count = torch.multinomial(shares, number, replacement=True, generator=generator) + 1
    is_empty = chance() < NOTHING_NAMED
    known = {name: (chance() < share) & ~is_empty for name, share in NAMED.items()}
    drawn = []
    for name, index in (("colour", colour), ("ground", ground)):
        is_any = ~known[name] & (chance() < 0.5)
        any_rgb = torch.rand(number, 3, generator=generator)
        drawn.append(torch.where(is_any[:, None], any_rgb, RGB[index]))
    return Scenes(
        shape=integers(0, len(SHAPES)),
        colour=colour,
        ground=ground,
        count=count,
        size=integers(0, 3),
        position=integers(-1, 2, 2),
        known=known,
        colour_rgb=drawn[0],
        ground_rgb=drawn[1],
    )


def requests_of(scenes: Scenes) -> Tensor:
    """Say in numbers what the prompts name. Shape ``[scenes, REQUEST_SIZE]``.

    Args:
        scenes: the scenes of the prompts.
    """
    rows = torch.arange(len(scenes.shape))
    known = {name: value.float() for name, value in scenes.known.items()}
    numbers = torch.zeros(len(rows), REQUEST_SIZE)
    numbers[rows, SHAPE_AT + scenes.shape] = known["shape"]
    for start, name, index in (
        (COLOUR_AT, "colour", scenes.colour),
        (GROUND_AT, "ground", scenes.ground),
    ):
        numbers[:, start] = known[name]
        numbers[:, start + 1 : start + 4] = known[name][:, None] * (2 * RGB[index] - 1)
    numbers[rows, COUNT_AT + scenes.count - 1] = known["count"]
    numbers[:, SIZE_AT] = known["size"] * (scenes.size == 0)
    numbers[:, SIZE_AT + 1] = known["size"] * (scenes.size == 2)
    for axis in range(2):
        numbers[:, POSITION_AT + 2 * axis] = known["position"]
        numbers[:, POSITION_AT + 2 * axis + 1] = known["position"] * scenes.position[:, axis]
    return numbers


@dataclass
class Layout:
    """Where the shapes of each scene are; 1 is the picture's shorter side.

    Attributes:
        centre: ``[scenes, 2]``, x and y of the shape or of the row of shapes, from the middle.
        radius: ``[scenes]``, of each shape.
    """

    centre: Tensor
    radius: Tensor


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Compute the positions of rows and columns from the middle; 1 is the shorter side.

    Args:
        height: in cells.
        width: in cells.
    """
    shorter = min(height, width)
    rows = (torch.arange(height) + 0.5 - height / 2) / shorter
    columns = (torch.arange(width) + 0.5 - width / 2) / shorter
    return rows, columns


def latents_of(
    scenes: Scenes, layout: Layout, height: int, width: int, *, style: float = FILLED
) -> Tensor:
    """Draw the latents of scenes. Shape ``[scenes, CHANNELS, height, width]``.

    Args:
        scenes: what to draw.
        layout: where.
        height: in latent pixels.
        width: in latent pixels.
        style: FILLED to OUTLINE; between them the lines are thicker.
    """
    rows, columns = grid(height, width)
    centre, radius = layout.centre, layout.radius
    latents = torch.empty(len(radius), CHANNELS, height, width)
    latents[:, 0] = POSITION_SCALE * (columns - centre[:, 0, None])[:, None, :]
    latents[:, 1] = POSITION_SCALE * (rows - centre[:, 1, None])[:, :, None]
    constant = torch.cat(
        [
            (RADIUS_SCALE * (radius - MEAN_RADIUS))[:, None],
            AMPLITUDE * SHAPE_BITS[scenes.shape],
            torch.full((len(radius), 1), AMPLITUDE * style),
            AMPLITUDE * (2 * scenes.colour_rgb - 1),
            AMPLITUDE * (2 * scenes.ground_rgb - 1),
            count_bits(scenes.count),
        ],
        dim=1,
    )
    latents[:, 2:] = constant[:, :, None, None]
    return latents


def displayed(rgb: Tensor) -> Tensor:
    """Compute the colours that the decoder shows for those of a scene.

    Args:
        rgb: 0 to 1.
    """
    limited = 3 * torch.tanh(AMPLITUDE * (2 * rgb - 1) / 3)
    return (0.5 + COLOUR_GAIN * limited).clamp(0, 1)


def count_bits(count: Tensor) -> Tensor:
    """The two channels that say whether there are more than one and more than two shapes."""
    is_more = count[:, None] > torch.tensor([1, 2])
    return AMPLITUDE * (2 * is_more.float() - 1)


def random_layout(scenes: Scenes, generator: Generator, height: int, width: int) -> Layout:
    """Choose where the shapes are.

    Args:
        scenes: the scenes.
        generator: decides what the prompts leave open.
        height: of the picture, in any unit.
        width: in the same unit.
    """
    low, high = radius_range(scenes)
    radius = low + (high - low) * torch.rand(len(low), generator=generator)
    least, most = centre_range(scenes, radius, height, width)
    return Layout(least + (most - least) * torch.rand(least.shape, generator=generator), radius)


def radius_range(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The smallest and the largest radius that a prompt leaves open, by scene."""
    size = torch.where(scenes.known["size"], scenes.size, 3)
    low = torch.tensor([0.12, 0.19, 0.28, 0.12])[size]
    high = torch.tensor([0.16, 0.26, 0.36, 0.36])[size]
    several_low = torch.tensor([0.0, 0.14, 0.108])[scenes.count - 1]
    several_high = torch.tensor([0.0, 0.18, 0.125])[scenes.count - 1]
    is_several = scenes.count > 1
    return torch.where(is_several, several_low, low), torch.where(is_several, several_high, high)


def centre_range(scenes: Scenes, radius: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The least and the greatest centre that a prompt leaves open. Each ``[scenes, 2]``.

    Args:
        scenes: the scenes.
        radius: of their shapes; all keep off the edge of the picture.
        height: of the picture, in any unit.
        width: in the same unit.
    """
    half = torch.tensor([width, height]) / (2 * min(height, width))
    room = (half - reach_of(scenes, radius) - MARGIN).clamp_min(0)
    named = 0.8 * scenes.position * room
    has_position = (scenes.known["position"] & (scenes.count == 1))[:, None]
    least = torch.where(has_position, named - 0.03, -room)
    return least, torch.where(has_position, named + 0.03, room)


def reach_of(scenes: Scenes, radius: Tensor) -> Tensor:
    """How far the shapes reach from their common centre, across and down. ``[scenes, 2]``."""
    # Shapes of a row stand 2.5 radii apart.
    return torch.stack([(1.25 * scenes.count - 0.05) * radius, 1.2 * radius], dim=1)
