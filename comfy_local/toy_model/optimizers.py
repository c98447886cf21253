"""Trains with Muon for matrices and AdamW for everything else, under one learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

LEAST_SHARE = 0.004


class Muon(torch.optim.Optimizer):
    """Steps by the orthogonalised momentum of a matrix (Newton-Schulz, five rounds).

    A convolution counts as a matrix with one row for each channel that goes out.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], rate: float) -> None:
        super().__init__(list(matrices), {"lr": rate, "momentum": 0.95})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step; gradients must be there."""
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - group["momentum"])
                flat = matrix.grad.lerp(momentum, group["momentum"]).flatten(1)
                scale = max(1, flat.shape[0] / flat.shape[1]) ** 0.5
                matrix.add_(_orthogonal(flat).view_as(matrix), alpha=-group["lr"] * scale)


def _orthogonal(matrix: Tensor) -> Tensor:
    is_tall = matrix.shape[0] > matrix.shape[1]
    rows: Tensor = matrix.T if is_tall else matrix
    rows = rows / (rows.norm() + 1e-7)
    for _ in range(5):
        gram = rows @ rows.T
        rows = 3.4445 * rows + (-4.7750 * gram + 2.0315 * gram @ gram) @ rows
    return rows.T if is_tall else rows


class Optimizers:
    """Several optimizers that follow one schedule.

    Args:
        optimizers: with their full learning rates.
        longest_gradient: a longer gradient is shortened to this norm; by default none is.
    """

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], longest_gradient: float = math.inf
    ) -> None:
        self._optimizers = list(optimizers)
        self._longest_gradient = longest_gradient
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._rates = [(group, group["lr"]) for group in groups]

    def step(self, loss: Tensor, share: float) -> None:
        """Take one step.

        Args:
            loss: the loss of this step.
            share: the part of the full learning rates.
        """
        loss.backward()  # type: ignore[no-untyped-call]
        if self._longest_gradient < math.inf:
            parameters = [value for group, _ in self._rates for value in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self._longest_gradient)
        for group, rate in self._rates:
            group["lr"] = rate * max(share, LEAST_SHARE)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()


def linear_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear layers of a network."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [parameter for linear in linears for parameter in [*linear.parameters()][:1]]


def split(
    network: nn.Module, matrices: Iterable[nn.Parameter]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices for Muon, and all other parameters of a network."""
    chosen = list(matrices)
    names = {id(parameter) for parameter in chosen}
    return chosen, [other for other in network.parameters() if id(other) not in names]
