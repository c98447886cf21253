"""Trains a LoRA for the toy model that draws outlines.

The LoRA learns to repeat what the network predicts for filled shapes, and to change only the
channel of the outline. So the shapes stay the same, in the same places.
"""

from __future__ import annotations

import copy
import logging
import math

import torch
from torch import Generator, Tensor, nn

from comfy_local.toy_model.diffusion import BASE_CELLS, DiffusionNetwork, noised_examples
from comfy_local.toy_model.optimizers import Optimizers
from comfy_local.toy_model.scenes import AMPLITUDE, CHANNELS, FILLED, OUTLINE, OUTLINE_CHANNEL

logger = logging.getLogger(__name__)

STEPS = 300
SIZES = ((48, BASE_CELLS, BASE_CELLS), (12, 2 * BASE_CELLS, 2 * BASE_CELLS))
RANK = 8
RATE = 6e-3
NO_LORA = ("embedder",)


class LoraLinear(nn.Module):
    """A linear layer with a low-rank change beside it.

    Args:
        linear: the layer; its own weights stay.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        wide = linear.in_features
        self.down = nn.Parameter(torch.randn(RANK, wide) / wide**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, RANK))

    def forward(self, values: Tensor) -> Tensor:
        """Give the layer's result and the change."""
        change = nn.functional.linear(nn.functional.linear(values, self.down), self.up)
        changed: Tensor = self.linear(values) + change
        return changed


def train_lora(network: DiffusionNetwork, seed: int, steps: int = STEPS) -> dict[str, Tensor]:
    """Train the LoRA of outlines.

    Args:
        network: the trained diffusion network. It gets the LoRA's layers.
        seed: the same seed gives the same LoRA on the same machine.
        steps: 300 take about 150 CPU seconds.

    Returns:
        The tensors of the LoRA's file, in kohya's layout.
    """
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    unchanged = copy.deepcopy(network)
    layers = _add_layers(network)
    parameters: list[nn.Parameter] = []
    for layer in layers.values():
        parameters += [layer.down, layer.up]
    adam = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.99), weight_decay=0.0)
    optimizers = Optimizers([adam], longest_gradient=1.0)
    for step in range(steps):
        loss = _loss(network, unchanged, SIZES[step % len(SIZES)], generator)
        decay = 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizers.step(loss, min(1, (step + 1) / 20) * decay)
        if step % 20 == 19:
            logger.info("LoRA, step %d of %d: loss %.4f", step + 1, steps, loss.item())
    return _tensors(layers)


def _loss(
    network: nn.Module, unchanged: nn.Module, size: tuple[int, int, int], generator: Generator
) -> Tensor:
    """Measure the prediction for random scenes: how many, and their height and width."""
    examples, noise, sigmas = noised_examples(size, generator, OUTLINE)
    sigma = sigmas[:, None, None]
    noisy = (1 - sigma[:, None]) * examples.shown + sigma[:, None] * noise
    filled = noisy.clone()
    difference = AMPLITUDE * (OUTLINE - FILLED)
    filled[:, OUTLINE_CHANNEL] -= (1 - sigma) * difference
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            target = unchanged(filled, 1000 * sigmas, examples.requests).float()
        predicted = network(noisy, 1000 * sigmas, examples.requests).float()
    target[:, OUTLINE_CHANNEL] -= difference
    weights = torch.ones(CHANNELS, 1, 1)
    weights[OUTLINE_CHANNEL] = 4
    loss: Tensor = ((predicted - target) ** 2 * weights).mean()
    return loss


def _add_layers(network: DiffusionNetwork) -> dict[str, LoraLinear]:
    network.requires_grad_(requires_grad=False)
    layers = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and not any(part in name for part in NO_LORA):
            layers[name] = LoraLinear(module)
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, layers[name])
    return layers


def _tensors(layers: dict[str, LoraLinear]) -> dict[str, Tensor]:
    tensors = {}
    for name, layer in layers.items():
        prefix = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{prefix}.lora_down.weight"] = layer.down.detach().half()
        tensors[f"{prefix}.lora_up.weight"] = layer.up.detach().half()
        tensors[f"{prefix}.alpha"] = torch.tensor(float(RANK))
    return tensors
