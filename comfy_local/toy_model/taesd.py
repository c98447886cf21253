"""Builds the weights of TAESD. Some layers are trained, the rest is set by hand.

The decoder's channels at the latent's size: 0 to 15 are the latent, 63 is constant 1. After the
first enlargement: 0 to 55 are the distance network's, 56 to 61 the two colours, 62 tells where the
border is, 63 is constant 1. After the second: 0 and 1 are the positive and the negative part of the
distance, 2 to 7 the two colours. The third keeps that.

The encoder's channels at half size: 0 to 2 are the picture, then three for each direction. At a
quarter of the size there are four times as many for the picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from comfy_local.toy_model.decoder import DECISION, WIDTH, DistanceNetwork, smoothing
from comfy_local.toy_model.encoder import DARKEST, DIRECTIONS, EncoderNetwork
from comfy_local.toy_model.scenes import AMPLITUDE, CHANNELS, COLOUR_GAIN

__all__ = ["decoder_weights", "encoder_weights"]

# The channels of a latent.
PLACE = (0, 1, 2)
STYLE = 7
BITS = (3, 4, 5, 6, 14, 15)
COLOUR_CHANNELS = (8, 9, 10, 11, 12, 13)

COLOURS = len(COLOUR_CHANNELS)
SEAM, BORDER, CONSTANT = 16, 62, 63
OFFSET = 4.0  # keeps the values of a latent positive
LITTLE = 0.3
# How much a cell of one picture may differ from those around it; the colours are smoothed by then.
MOST_ROUGHNESS = {3: 0.22, 4: 0.22, 5: 0.22, 6: 0.22, 8: 0.1, 9: 0.1, 10: 0.1, 14: 0.22}
SEAM_GAIN = 30.0
OUTSIDE = 8.0
SHARPNESS = 22.0  # how steep the edge is
PAINTED = 10  # the first of the channels with the finished picture


class _Weights:
    """Weights of convolutions by name, all zero until they are set."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def convolution(self, name: str, channels_in: int = 64, channels_out: int = 64) -> Tensor:
        """A new 3x3 convolution of zeros."""
        weight = torch.zeros(channels_out, channels_in, 3, 3)
        self.tensors[f"{name}.weight"] = weight
        return weight

    def trained(self, name: str, layer: nn.Conv2d) -> None:
        """Put a trained convolution into the corner of one of full size; the rest is zero."""
        rows, columns = layer.weight.shape[:2]
        full_rows = 64 if rows != CHANNELS else rows
        self.convolution(name, 64, full_rows)[:rows, :columns] = layer.weight
        if layer.bias is not None:
            self.bias(name, full_rows)[:rows] = layer.bias

    def bias(self, name: str, channels: int = 64) -> Tensor:
        """A new bias of zeros."""
        bias = torch.zeros(channels)
        self.tensors[f"{name}.bias"] = bias
        return bias


def decoder_weights(network: DistanceNetwork) -> dict[str, Tensor]:
    """The tensors of TAESD's decoder that are not zero.

    Args:
        network: the trained distance network.

    Returns:
        Tensors by their names after `taesd_decoder.`.
    """
    weights = _Weights()
    first, bias = weights.convolution("1", channels_in=CHANNELS), weights.bias("1")
    for channel in range(CHANNELS):
        first[channel, channel, 1, 1] = 1
        bias[channel] = OFFSET
    bias[CONSTANT] = 1
    _calm(weights, 3, [*PLACE, *COLOUR_CHANNELS])
    _calm(weights, 4, [*PLACE, STYLE])
    _decide(weights, 4, BITS)
    _find_seams(weights, 4)
    _calm(weights, 5, [*PLACE, *COLOUR_CHANNELS])
    with torch.no_grad():
        _distances(weights, network)
        _enlarge(weights, network)
    _clamp_colours(weights)
    _smooth_distances(weights)
    weight = weights.convolution("17")
    weight[0, 0] = weight[1, 1] = smoothing()
    _keep(weight, range(2, 8))
    _paint(weights)
    return weights.tensors


def _keep(weight: Tensor, channels: range, value: float = 1.0) -> None:
    for channel in channels:
        weight[channel, channel, 1, 1] = value


def _calm(weights: _Weights, block: int, channels: Sequence[int]) -> None:
    """Smooth channels where a cell differs little from those around it.

    Where it differs much, there is the border of the picture, or that of two pictures.
    """
    first, bias = weights.convolution(f"{block}.conv.0"), weights.bias(f"{block}.conv.0")
    last = weights.convolution(f"{block}.conv.4")
    for number, channel in enumerate(channels):
        for part, sign in enumerate((1, -1)):
            for step, share in enumerate((1, -2, 1)):  # up to LITTLE, and down again
                row = 6 * number + 3 * part + step
                first[row, channel] = sign * smoothing()
                first[row, channel, 1, 1] -= sign
                bias[row] = -step * LITTLE
                last[channel, row, 1, 1] = sign * share
    _keep(weights.convolution(f"{block}.conv.2"), range(64))


def _decide(weights: _Weights, block: int, channels: Sequence[int]) -> None:
    """Set each bit to that of most cells around it, with the units that `_calm` has left."""
    first, bias = weights.tensors[f"{block}.conv.0.weight"], weights.tensors[f"{block}.conv.0.bias"]
    last = weights.tensors[f"{block}.conv.4.weight"]
    last_bias = weights.bias(f"{block}.conv.4")
    for number, channel in enumerate(channels):
        row = 64 - 3 * len(channels) + 3 * number
        for part, sign in enumerate((1, -1)):
            first[row + part, channel] = DECISION * smoothing()
            first[row + part, CONSTANT] = -DECISION * OFFSET * smoothing()
            bias[row + part] = sign * AMPLITUDE
            last[channel, row + part, 1, 1] = sign
        first[row + 2, channel, 1, 1] = 1
        last[channel, row + 2, 1, 1] = -1
        last_bias[channel] = OFFSET - AMPLITUDE


def _find_seams(weights: _Weights, block: int) -> None:
    """Tell where the latents of two pictures meet, with the units that the others have left.

    Between two pictures the position would pass through values that belong to neither of them.
    """
    first, bias = weights.tensors[f"{block}.conv.0.weight"], weights.tensors[f"{block}.conv.0.bias"]
    last = weights.tensors[f"{block}.conv.4.weight"]
    parts = itertools.product(MOST_ROUGHNESS, (1, -1))
    for row, (channel, sign) in enumerate(parts, 6 * len((*PLACE, STYLE))):
        first[row, channel] = sign * smoothing()
        first[row, channel, 1, 1] -= sign
        bias[row] = -MOST_ROUGHNESS[channel]
        last[SEAM, row, 1, 1] = SEAM_GAIN


def _distances(weights: _Weights, network: DistanceNetwork) -> None:
    """Convolution 7 and blocks 8 to 10, at twice the latent's size: the trained network."""
    weight = weights.convolution("7")
    for column, channel in enumerate([*range(8), 14, 15]):
        taps = network.first.weight[:, column, None, None] * smoothing()
        weight[:WIDTH, channel] = taps
        weight[:WIDTH, CONSTANT] -= OFFSET * taps
    weight[:WIDTH, CONSTANT, 1, 1] += network.first.bias
    for number, channel in enumerate(COLOUR_CHANNELS):
        weight[WIDTH + number, channel, 1, 1] = COLOUR_GAIN
        weight[WIDTH + number, CONSTANT, 1, 1] = 0.5 - OFFSET * COLOUR_GAIN
    weight[BORDER, CONSTANT] = smoothing()  # less than 1 at the border
    weight[BORDER, SEAM, 1, 1] = -1
    weight[CONSTANT, CONSTANT, 1, 1] = 1
    for number, block in enumerate(network.blocks):
        linears = [layer for layer in block.modules() if isinstance(layer, nn.Linear)]
        for index, linear in enumerate(linears):
            name = f"{8 + number}.conv.{2 * index}"
            rows, columns = linear.weight.shape
            weights.convolution(name)[:rows, :columns, 1, 1] = linear.weight
            weights.bias(name)[:rows] = linear.bias


def _enlarge(weights: _Weights, network: DistanceNetwork) -> None:
    """Convolution 12, after the second enlargement: the last layer of the network, smoothed."""
    weight = weights.convolution("12")
    weight[0, :WIDTH] = network.last.weight[0][:, None, None] * smoothing()
    weight[0, CONSTANT] = network.last.bias[0] * smoothing()
    # Positions are not exact at the border: the ground shows there.
    weight[0, BORDER, 1, 1] = OUTSIDE
    weight[0, CONSTANT, 1, 1] -= OUTSIDE
    weight[1] = -weight[0]
    for colour in range(COLOURS):
        weight[2 + colour, WIDTH + colour, 1, 1] = 1


def _clamp_colours(weights: _Weights) -> None:
    """Block 13: subtract from a colour what is above 1."""
    _keep(weights.convolution("13.conv.0"), range(2, 8))
    weights.bias("13.conv.0")[2:8] = -1
    _keep(weights.convolution("13.conv.2"), range(2, 8))
    _keep(weights.convolution("13.conv.4"), range(2, 8), -1.0)


def _smooth_distances(weights: _Weights) -> None:
    """Block 14: replace the two parts of the distance by smoothed ones, so that edges are round."""
    first = weights.convolution("14.conv.0")
    first[0, 0] = first[1, 1] = smoothing()
    first[2, 0, 1, 1] = first[3, 1, 1, 1] = 1
    _keep(weights.convolution("14.conv.2"), range(4))
    last = weights.convolution("14.conv.4")
    last[0, 0] = last[1, 1] = smoothing()
    last[0, 2, 1, 1] = last[1, 3, 1, 1] = -1


def _paint(weights: _Weights) -> None:
    """Block 18: ground + clamp(colour - ground, -mask, mask); then the three channels go out."""
    mask, bias = weights.convolution("18.conv.0"), weights.bias("18.conv.0")
    for channel, offset in ((0, 0.5), (1, -0.5)):  # their difference is the mask, 0 to 1
        mask[channel, 0, 1, 1] = SHARPNESS
        mask[channel, 1, 1, 1] = -SHARPNESS
        bias[channel] = offset
    _keep(mask, range(2, 8))
    limits, last = weights.convolution("18.conv.2"), weights.convolution("18.conv.4")
    out = weights.convolution("19", channels_out=3)
    for rgb in range(3):
        colour, ground, painted = 2 + rgb, 5 + rgb, PAINTED + rgb
        terms = ((1, 0, 1), (1, -1, -1), (-1, 0, -1), (-1, -1, 1))
        for number, (sign, masked, part) in enumerate(terms):
            row = 3 * number + rgb
            limits[row, colour, 1, 1], limits[row, ground, 1, 1] = sign, -sign
            limits[row, 0, 1, 1], limits[row, 1, 1, 1] = masked, -masked
            last[painted, row, 1, 1] = part
        limits[12 + rgb, ground, 1, 1] = 1
        last[painted, 12 + rgb, 1, 1] = 1
        out[rgb, painted, 1, 1] = 1


def encoder_weights(network: EncoderNetwork) -> dict[str, Tensor]:
    """The tensors of TAESD's encoder that are not zero.

    Args:
        network: the trained layers.

    Returns:
        Tensors by their names after `taesd_encoder.`.
    """
    weights = _Weights()
    _shrink(weights)
    for block in (3, 4, 5):
        _look_away(weights, block, start=3)
    for block in (7, 8, 9):
        _look_away(weights, block, start=12)
    with torch.no_grad():
        weights.trained("10", network.squeeze)
        for number, trained in enumerate(network.blocks):
            layers = [layer for layer in trained.modules() if isinstance(layer, nn.Conv2d)]
            for index, layer in enumerate(layers):
                weights.trained(f"{11 + number}.conv.{2 * index}", layer)
        weights.trained("14", network.last)
    return weights.tensors


def _shrink(weights: _Weights) -> None:
    """Convolutions 0, 2 and 6: halve the picture twice; copy it once for each direction."""
    _keep(weights.convolution("0", channels_in=3), range(3), 1 - DARKEST)
    weights.bias("0")[:3] = DARKEST
    half, quarter = weights.convolution("2"), weights.convolution("6")
    mean = torch.zeros(3, 3)
    mean[1:, 1:] = 0.25
    for channel in range(3 + 3 * len(DIRECTIONS)):
        half[channel, channel % 3] = mean
    for channel in range(12):
        pixel, rgb = divmod(channel, 3)
        quarter[channel, rgb, 1 + pixel // 2, 1 + pixel % 2] = 1
    for far in range(3 * len(DIRECTIONS)):
        quarter[12 + far, 3 + far] = mean


def _look_away(weights: _Weights, block: int, start: int) -> None:
    """In the channels of each direction, read the pixels that are three pixels further away."""
    channels = 3 * len(DIRECTIONS)
    first, second, last = (weights.convolution(f"{block}.conv.{index}") for index in (0, 2, 4))
    for channel in range(channels):
        down, right = DIRECTIONS[channel // 3]
        row, column, copy = 1 + down, 1 + right, channels + channel
        first[channel, start + channel, row, column] = 1
        first[copy, start + channel, 1, 1] = 1
        second[channel, channel, row, column] = 1
        second[copy, copy, 1, 1] = 1
        last[start + channel, channel, row, column] = 1
        last[start + channel, copy, 1, 1] = -1  # the block adds what was there
