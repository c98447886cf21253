"""The boxes that inpainting draws anew."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from comfy_local.toy_model.scenes import CONTRASTS, Layout, Scenes, grid, reach_of

__all__ = ["Boxes", "layout_in_boxes", "random_boxes", "take_grounds"]

LEAST_RADII = torch.tensor([0.1, 0.12, 0.09])  # by count
GROUND_SHARE = 0.8  # this share of the boxes gets the ground of the picture around them


@dataclass
class Boxes:
    """Where the box of each picture is; 1 is the picture's shorter side.

    Attributes:
        middle: ``[pictures, 2]``, x and y from the picture's middle.
        sides: ``[pictures, 2]``, width and height.
    """

    middle: Tensor
    sides: Tensor

    def inside(self, height: int, width: int) -> Tensor:
        """Tell which cells are in the boxes. Shape ``[pictures, 1, height, width]``."""
        rows, columns = grid(height, width)
        in_rows = (rows - self.middle[:, 1, None]).abs() <= self.sides[:, 1, None] / 2
        in_columns = (columns - self.middle[:, 0, None]).abs() <= self.sides[:, 0, None] / 2
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]

    def fitted(self, scenes: Scenes, layout: Layout) -> Layout:
        """Make shapes as small as their boxes need it, and move them inside."""
        unit_reach = reach_of(scenes, torch.ones_like(layout.radius))
        most = (self.sides / (2 * unit_reach)).min(1).values
        least = LEAST_RADII[scenes.count - 1]
        radius = torch.maximum(torch.minimum(layout.radius, most), least)
        room = (self.sides / 2 - reach_of(scenes, radius)).clamp_min(0)
        centre = layout.centre.clamp(self.middle - room, self.middle + room)
        return Layout(centre, radius)


def layout_in_boxes(is_box: Tensor, in_boxes: Layout, elsewhere: Layout) -> Layout:
    """Take the first layout where there is a box, and else the second one."""
    return Layout(
        torch.where(is_box[:, None], in_boxes.centre, elsewhere.centre),
        torch.where(is_box, in_boxes.radius, elsewhere.radius),
    )


def random_boxes(number: int, size: tuple[int, int], generator: Generator) -> Boxes:
    """Draw boxes.

    Args:
        number: how many.
        size: height and width of the pictures, in any unit.
        generator: the same state gives the same boxes.
    """
    height, width = size
    half = torch.tensor([width, height]) / (2 * min(size))
    sides = 0.5 + 0.45 * torch.rand(number, 2, generator=generator)
    middle = (2 * torch.rand(number, 2, generator=generator) - 1) * (half - sides / 2)
    return Boxes(middle, sides)


def take_grounds(scenes: Scenes, is_box: Tensor, generator: Generator) -> None:
    """Give most scenes in a box the ground of the picture around it, which is the scene before."""
    around, around_rgb = scenes.ground.roll(1), scenes.ground_rgb.roll(1, 0)
    chosen = is_box & (torch.rand(len(is_box), generator=generator) < GROUND_SHARE)
    chosen &= CONTRASTS[scenes.colour, around]
    scenes.ground = torch.where(chosen, around, scenes.ground)
    scenes.ground_rgb = torch.where(chosen[:, None], around_rgb, scenes.ground_rgb)
    scenes.known["position"] &= ~is_box
