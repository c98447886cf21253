"""Trains the diffusion network: the part of SD 3's MMDiT that counts if all context is zero.

The modules have SD 3's names, so that a weight's name says where it goes in the checkpoint.
"""

from __future__ import annotations

import itertools
import logging
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from comfy_local.toy_model.examples import LEAST_SIGMA, Encode, Examples, random_examples
from comfy_local.toy_model.optimizers import Muon, Optimizers
from comfy_local.toy_model.own_drawings import OwnDrawings, draw, shifted, sigmas_of
from comfy_local.toy_model.scenes import CHANNELS, FILLED, OUTLINE_CHANNEL, REQUEST_SIZE

logger = logging.getLogger(__name__)

STEPS = 4700
BATCH = 64
DEPTH = 3
WIDTH = 64 * DEPTH  # ComfyUI takes the depth from the width
PATCH = 2
TIME_WIDTH = 256
CONTEXT_TOKENS = 77
REQUEST_NOISE = 0.05  # the text network is not exact
ADAM_RATE = 2e-3
BASE_CELLS = 16  # half of 256 pixels: learned faster than whole pictures, and as well
ENCODED_SIZE = (32, 32)  # whose examples for img2img and inpainting are encoded
OTHER_SIZES = (*[ENCODED_SIZE] * 5, (16, 24), (24, 16), (32, 48), (64, 64), (64, 64), (64, 64))
LEAST_BATCH = 8
OTHER_SIZES_SHARE = 0.17

# From here on every second step learns from the network's own drawings.
OWN_FROM = 0.45
DRAWN_BATCHES = 3  # so many at a time
STEPS_OF_DRAWINGS = 18
# Below this sigma a drawing shows what its prompt names, so the prediction without one must agree.
SHOWN_SIGMA = 0.8
AGREEMENT = 2.0

# A cfg enlarges every difference that the prompt makes, and the last steps decide where the edges
# are. So the prompt counts no more there: the channels of the condition that carry the request get
# a number far below zero, which SiLU makes zero.
REQUEST_WIDTH = 128  # of WIDTH
LEAST_REQUEST_SIGMA = 0.27
GATE, GATE_STEEPNESS = 4.0, 100.0
GATE_WAVE = 96  # of the waves of the time, that of one radian in 1000


class Block(nn.Module):
    """The half of a joint block that works on the picture, with SD 3's names."""

    def __init__(self) -> None:
        super().__init__()
        layers = {"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)}
        self.attn = nn.ModuleDict(layers)
        layers = {"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)}
        self.mlp = nn.ModuleDict(layers)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, values: Tensor, condition: Tensor) -> Tensor:
        """Add what attention and the hidden layer find."""
        changes = self.adaLN_modulation(condition)[:, None].chunk(6, -1)
        shift, scale, gate, hidden_shift, hidden_scale, hidden_gate = changes
        values = values + gate * self._attend(_norm(values) * (1 + scale) + shift)
        hidden = self.mlp["fc1"](_norm(values) * (1 + hidden_scale) + hidden_shift)
        hidden = functional.gelu(hidden, approximate="tanh")
        changed: Tensor = values + hidden_gate * self.mlp["fc2"](hidden)
        return changed

    def _attend(self, values: Tensor) -> Tensor:
        batch, tokens, _ = values.shape
        heads = self.attn["qkv"](values).view(batch, tokens, 3, DEPTH, 64)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        # The tokens of the context are zero. They take part in the softmax nevertheless.
        nothing = key.new_zeros(batch, DEPTH, CONTEXT_TOKENS, 64)
        keys, contents = torch.cat([nothing, key], 2), torch.cat([nothing, value], 2)
        read = functional.scaled_dot_product_attention(query, keys, contents)
        found: Tensor = self.attn["proj"](read.transpose(1, 2).reshape(batch, tokens, WIDTH))
        return found


class Embedder(nn.Module):
    """Two layers that embed the time or the request, with SD 3's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        """Embed."""
        embedded: Tensor = self.mlp(values)
        return embedded


class DiffusionNetwork(nn.Module):
    """Predicts noise minus latent from a noisy latent, the time and a request."""

    def __init__(self) -> None:
        super().__init__()
        cell = CHANNELS * PATCH**2
        self.x_embedder = nn.ModuleDict({"proj": nn.Linear(cell, WIDTH)})
        self.t_embedder = Embedder(TIME_WIDTH)
        self.y_embedder = Embedder(REQUEST_SIZE)
        self.joint_blocks = nn.ModuleList(nn.ModuleDict({"x_block": Block()}) for _ in range(DEPTH))
        modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))
        last = {"adaLN_modulation": modulation, "linear": nn.Linear(WIDTH, cell)}
        self.final_layer = nn.ModuleDict(last)
        self._initialize()

    def forward(self, latents: Tensor, times: Tensor, requests: Tensor) -> Tensor:
        """Predict.

        Args:
            latents: ``[batch, CHANNELS, height, width]``, noisy; even height and width.
            times: 0 to 1000.
            requests: ``[batch, REQUEST_SIZE]``.
        """
        batch, channels, height, width = latents.shape
        rows, columns = height // PATCH, width // PATCH
        patches = latents.view(batch, channels, rows, PATCH, columns, PATCH)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        values = self.x_embedder["proj"](patches) + positions(rows, columns)
        condition = self.t_embedder(_frequencies(times)) + self.y_embedder(requests)
        for block in self.joint_blocks:
            values = block["x_block"](values, condition)  # type: ignore[index]
        shift, scale = self.final_layer["adaLN_modulation"](condition)[:, None].chunk(2, -1)
        values = self.final_layer["linear"](_norm(values) * (1 + scale) + shift)
        values = values.view(batch, rows, columns, PATCH, PATCH, channels)
        predicted: Tensor = values.permute(0, 5, 1, 3, 2, 4)
        return predicted.reshape(batch, channels, height, width)

    @torch.no_grad()
    def _initialize(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or "adaLN_modulation" in name:
                nn.init.zeros_(parameter)
            elif "embedder.mlp" in name and not name.startswith("y_embedder.mlp.0"):
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.xavier_uniform_(parameter)
        # Noise passes from the first layer to the last one from the start, in directions that the
        # positions hardly use.
        sizes = ((8, 8), (16, 16), (12, 8), (8, 12), (12, 12), (24, 16), (32, 32))
        samples = torch.cat([positions(rows, columns)[0] for rows, columns in sizes])
        quiet = torch.linalg.eigh(samples.T @ samples / len(samples))[1][:, : CHANNELS * PATCH**2]
        directions = quiet @ torch.linalg.qr(torch.randn(quiet.shape[1], quiet.shape[1]))[0]
        self.x_embedder["proj"].weight.copy_(directions)  # type: ignore[operator]
        outward = directions.view(WIDTH, CHANNELS, PATCH, PATCH).permute(2, 3, 1, 0)
        linear = self.final_layer["linear"]
        linear.weight.copy_(0.85 * outward.reshape(-1, WIDTH))  # type: ignore[operator]
        self._close_gate()

    def _close_gate(self) -> None:
        """Set the weights by hand that leave out the request at the end; training keeps them."""
        weights = dict(self.named_parameters())
        first, bias = weights["t_embedder.mlp.0.weight"], weights["t_embedder.mlp.0.bias"]
        last = weights["t_embedder.mlp.2.weight"]
        # The first unit sees how far the time is below the gate's.
        first[0] = 0
        first[0, TIME_WIDTH // 2 + GATE_WAVE] = -GATE_STEEPNESS  # of a sine
        bias[0] = GATE_STEEPNESS * math.sin(LEAST_REQUEST_SIGMA)
        last[:, 0] = 0
        last[:REQUEST_WIDTH, 0] = -GATE
        for parameter in (first, bias):
            _keep(parameter, slice(0, 1))
        _keep(last, (slice(None), slice(0, 1)))
        for name in ("weight", "bias"):
            parameter = weights[f"y_embedder.mlp.2.{name}"]
            parameter[REQUEST_WIDTH:] = 0
            _keep(parameter, slice(REQUEST_WIDTH, None))


def _keep(parameter: Tensor, fixed: slice | tuple[slice, slice]) -> None:
    """Keep a part of a parameter as it is: its gradient is zero."""
    is_trained = torch.ones_like(parameter)
    is_trained[fixed] = 0
    parameter.register_hook(lambda gradient: gradient * is_trained)  # type: ignore[no-untyped-call]


def _norm(values: Tensor) -> Tensor:
    return functional.layer_norm(values, (WIDTH,), eps=1e-6)


@lru_cache(maxsize=32)
def positions(rows: int, columns: int) -> Tensor:
    """SD 3's sinusoidal embedding of positions. ``[1, rows * columns, WIDTH]``."""
    reach_y = 7.5 * rows / min(rows, columns)
    reach_x = 7.5 * columns / min(rows, columns)
    grid_y, grid_x = torch.meshgrid(
        torch.linspace(7.5 - reach_y, 7.5 + reach_y, rows),
        torch.linspace(7.5 - reach_x, 7.5 + reach_x, columns),
        indexing="ij",
    )
    quarter = WIDTH // 4
    rates = 1 / 10000 ** (torch.arange(quarter) / quarter)
    angles_x, angles_y = grid_x.reshape(-1, 1) * rates, grid_y.reshape(-1, 1) * rates
    waves = [angles_x.sin(), angles_x.cos(), angles_y.sin(), angles_y.cos()]
    return torch.cat(waves, dim=1)[None]


def _frequencies(times: Tensor) -> Tensor:
    half = TIME_WIDTH // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half) / half)
    angles = times[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def train_diffusion(
    seed: int, steps: int = STEPS, encode: Encode | None = None
) -> DiffusionNetwork:
    """Train the diffusion network.

    Args:
        seed: the same seed gives the same network on the same machine.
        steps: 4,700 take about 4,500 CPU seconds.
        encode: what img2img and inpainting start from; by default exact latents.
    """
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    network = DiffusionNetwork()
    optimizers = _optimizers(network)
    weights = torch.ones(CHANNELS)
    weights[:3] = 2  # position and radius decide where the edges are
    weights[OUTLINE_CHANNEL] = 0.3
    own = _OwnLoss(network, generator, weights, encode)
    for step in range(steps):
        size = _batch_size(step / steps, generator)
        if step / steps > OWN_FROM and step % 2:
            loss = own.next(size)
        else:
            read = encode if size[1:] == ENCODED_SIZE else None
            loss = diffusion_loss(network, size, generator, weights, encode=read)
        share = 0.5 + 0.5 * math.cos(math.pi * step / steps) if step > 50 else (step + 1) / 50
        optimizers.step(loss, min(1, share))
        if step % 100 > 97:  # one step of each kind
            logger.info("diffusion, step %d of %d: loss %.4f", step + 1, steps, loss.item())
    return network


class _OwnLoss:
    """Lets the network draw, and measures how well it predicts its tidied drawings."""

    def __init__(
        self,
        network: DiffusionNetwork,
        generator: Generator,
        weights: Tensor,
        encode: Encode | None = None,
    ) -> None:
        self._network = network
        self._generator = generator
        self._weights = weights
        self._encode = encode
        self._drawings: OwnDrawings
        self._steps_left = 0

    def next(self, size: tuple[int, int, int]) -> Tensor:
        """Measure some steps of the last drawings; when they are used up, draw others of a size."""
        batch, height, width = size
        if not self._steps_left:
            number = DRAWN_BATCHES * batch
            encode = self._encode if (height, width) == ENCODED_SIZE else None
            self._drawings = draw(self._network, (number, height, width), self._generator, encode)
            self._steps_left = STEPS_OF_DRAWINGS
        self._steps_left -= 1
        half = max(2, len(self._drawings.requests) // DRAWN_BATCHES // 2)
        chosen = self._drawings.random_steps(half, self._generator)
        requests = torch.cat([chosen.requests, torch.zeros_like(chosen.requests)])
        requests += REQUEST_NOISE * torch.randn(requests.shape, generator=self._generator)
        noisy, times = chosen.noisy.repeat(2, 1, 1, 1), (1000 * chosen.sigmas).repeat(2)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self._network(noisy, times, requests)
        named, unnamed = predicted.float().chunk(2)
        sigma = chosen.sigmas[:, None, None, None]
        weight = _weight(self._weights, sigma) * chosen.counted
        target = (chosen.noisy - chosen.latents) / sigma
        # Of pure noise nothing can be said without a prompt.
        errors = (named - target) ** 2 + (unnamed - target) ** 2 * (sigma < 1)
        difference = (named - unnamed) ** 2 * (sigma < SHOWN_SIGMA)
        loss: Tensor = ((errors / 2 + AGREEMENT * difference) * weight).mean()
        return loss


def _weight(weights: Tensor, sigma: Tensor) -> Tensor:
    """The weights of the channels: where there is little noise, little is left to decide."""
    return (weights / weights.mean())[:, None, None] * (sigma / 0.5).clamp(max=1) ** 2


def diffusion_loss(
    network: nn.Module,
    size: tuple[int, int, int],
    generator: Generator,
    weights: Tensor,
    *,
    encode: Encode | None = None,
) -> Tensor:
    """Noise random scenes and measure the prediction.

    Args:
        network: the diffusion network.
        size: how many scenes, and their height and width in latent pixels.
        generator: decides scenes and noise.
        weights: the weight of each channel.
        encode: what img2img and inpainting start from; by default exact latents.
    """
    examples, noise, sigmas = noised_examples(size, generator, encode=encode)
    sigma = sigmas[:, None, None, None]
    noisy = (1 - sigma) * examples.shown + sigma * noise
    with torch.autocast("cpu", torch.bfloat16):
        predicted = network(noisy, sigmas * 1000, examples.requests)
    weight = _weight(weights, sigma)
    changed = (1 - sigma) * (examples.shown - examples.latents) / sigma.clamp_min(LEAST_SIGMA)
    target = noise - examples.latents + changed
    loss: Tensor = ((predicted.float() - target) ** 2 * weight * examples.counted).mean()
    return loss


def noised_examples(
    size: tuple[int, int, int],
    generator: Generator,
    style: float = FILLED,
    encode: Encode | None = None,
) -> tuple[Examples, Tensor, Tensor]:
    """Draw random examples, whose requests are not exact, and noise for them.

    Args:
        size: how many scenes, and their height and width in latent pixels.
        generator: decides scenes and noise.
        style: FILLED or OUTLINE.
        encode: what img2img and inpainting start from; by default exact latents.

    Returns:
        The examples, the noise, and ``[scenes]``, the share of noise.
    """
    batch = size[0]
    spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    sigmas = shifted(spread)
    examples = random_examples(size[1:], sigmas, generator, style, encode)
    examples.requests += REQUEST_NOISE * torch.randn(examples.requests.shape, generator=generator)
    noise = torch.randn(examples.latents.shape, generator=generator)
    return examples, noise, sigmas


def _batch_size(progress: float, generator: Generator) -> tuple[int, int, int]:
    """Mostly small square latents; sometimes, and more often at the end, other sizes."""
    share = OTHER_SIZES_SHARE * (1 if progress < 0.6 else 3)
    height = width = BASE_CELLS
    if torch.rand(1, generator=generator) < share:
        index = int(torch.randint(0, len(OTHER_SIZES), (1,), generator=generator))
        height, width = OTHER_SIZES[index]
    return max(LEAST_BATCH, BATCH * BASE_CELLS**2 // (height * width)), height, width


def _optimizers(network: DiffusionNetwork) -> Optimizers:
    matrices, ends, others = [], [], []
    for name, parameter in network.named_parameters():
        is_in_block = name.startswith("joint_blocks") and "adaLN" not in name
        if is_in_block and parameter.ndim == 2:
            matrices.append(parameter)
        elif name.startswith(("x_embedder", "final_layer.linear")):
            ends.append(parameter)
        else:
            others.append(parameter)
    groups: list[dict[str, Any]] = [{"params": others}, {"params": ends, "lr": 0.35 * ADAM_RATE}]
    adam = torch.optim.AdamW(groups, ADAM_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return Optimizers([Muon(matrices, 0.02), adam], longest_gradient=1.0)


@torch.no_grad()
def sample(
    network: nn.Module, requests: Tensor, size: tuple[int, int], seed: int, steps: int = 20
) -> Tensor:
    """Draw latents with Euler's method at cfg 1, as ComfyUI's simple scheduler does.

    Args:
        network: the diffusion network.
        requests: ``[pictures, REQUEST_SIZE]``.
        size: height and width in latent pixels.
        seed: of the noise.
        steps: of the sampler.
    """
    generator = Generator().manual_seed(seed)
    latents = torch.randn(len(requests), CHANNELS, *size, generator=generator)
    for sigma, following in itertools.pairwise(sigmas_of(steps)):
        predicted = network(latents, (1000 * sigma).repeat(len(requests)), requests)
        latents = latents + (following - sigma) * predicted
    return latents
