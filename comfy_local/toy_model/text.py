"""Trains the text network: it reads a prompt into the numbers of a request.

It lives in CLIP-L's shapes: two of its twelve layers, 96 of its 768 channels, and a few of its
tokens. All other tokens are zero, so words that it does not know change nothing but positions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comfy_common import paths
from comfy_local.toy_model.optimizers import Muon, Optimizers, linear_weights, split
from comfy_local.toy_model.prompts import UNKNOWN, known_words, write_prompt
from comfy_local.toy_model.scenes import REQUEST_SIZE

logger = logging.getLogger(__name__)

STEPS = 1400
BATCH = 128
CLIP_WIDTH = 768
WIDTH = 96
HEADS = 2
HEAD_WIDTH = 64  # CLIP-L's
HIDDEN = 192
LAYERS = 2
LENGTH = 77
MOST_WORD_TOKENS = 40
BEGIN, END = 49406, 49407


class Vocabulary:
    """CLIP's tokens that the text network knows, by their row: row 0 is every other token.

    Args:
        words: the words that shall be known.
    """

    def __init__(self, words: Sequence[str]) -> None:
        from transformers import CLIPTokenizer

        folder = paths.comfyui_dir(os.environ) / "comfy" / "sd1_tokenizer"
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
        tokens = {BEGIN, END}
        for word in words:
            tokens.update(self._tokenize(word))
        self.tokens = sorted(tokens)
        self._rows = {token: row + 1 for row, token in enumerate(self.tokens)}
        self._cache: dict[str, list[int]] = {UNKNOWN: [0]}

    def rows(self, words: Sequence[str]) -> list[int]:
        """Return the rows of a prompt's tokens, between the rows of the begin and end tokens."""
        rows = []
        for word in words:
            if word not in self._cache:
                self._cache[word] = [self._rows.get(token, 0) for token in self._tokenize(word)]
            rows += self._cache[word]
        return [self._rows[BEGIN], *rows[:MOST_WORD_TOKENS], self._rows[END]]

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens


class NarrowNorm(nn.Module):
    """A layer norm over CLIP's 768 channels, of which all but the first few are zero."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((WIDTH,), scale))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        """Norm the last dimension."""
        mean = values.sum(-1, keepdim=True) / CLIP_WIDTH
        variance = (values**2).sum(-1, keepdim=True) / CLIP_WIDTH - mean**2
        return (values - mean) * torch.rsqrt(variance + 1e-5) * self.weight + self.bias


class Attention(nn.Module):
    """Causal attention with CLIP's names."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.k_proj = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.v_proj = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.out_proj = nn.Linear(HEADS * HEAD_WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        """Let each token read those before it."""
        batch, length, _ = values.shape
        heads = []
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            projected = projection(values).view(batch, length, HEADS, HEAD_WIDTH)
            heads.append(projected.transpose(1, 2))
        query, key, value = heads
        read = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        found: Tensor = self.out_proj(read.transpose(1, 2).reshape(batch, length, -1))
        return found


class Layer(nn.Module):
    """A layer of CLIP's text encoder, with CLIP's names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1 = NarrowNorm()
        self.self_attn = Attention()
        self.layer_norm2 = NarrowNorm()
        hidden = {"fc1": nn.Linear(WIDTH, HIDDEN), "fc2": nn.Linear(HIDDEN, WIDTH)}
        self.mlp = nn.ModuleDict(hidden)

    def forward(self, values: Tensor) -> Tensor:
        """Add what attention and the hidden layer find."""
        values = values + self.self_attn(self.layer_norm1(values))
        hidden = self.mlp["fc1"](self.layer_norm2(values))
        changed: Tensor = values + self.mlp["fc2"](hidden * torch.sigmoid(1.702 * hidden))
        return changed


class TextNetwork(nn.Module):
    """Rows of tokens in, the numbers of a request out: CLIP's pooled vector at the end token.

    Args:
        tokens: how many tokens are known.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.token_embedding = nn.Parameter(torch.randn(tokens + 1, WIDTH) * 0.5)
        self.position_embedding = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.final_layer_norm = NarrowNorm(0.3)

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Read prompts.

        Args:
            rows: ``[prompts, tokens]``; 0 for an unknown token.
            ends: where the end token of each prompt is.
        """
        is_known = (rows > 0)[..., None]
        values = functional.embedding(rows, self.token_embedding) * is_known
        values = values + self.position_embedding[: rows.shape[1]]
        for layer in self.layers:
            values = layer(values)
        pooled = values[torch.arange(len(rows)), ends]
        request: Tensor = self.final_layer_norm(pooled)[:, :REQUEST_SIZE]
        return request


def train_text(seed: int, steps: int = STEPS) -> tuple[TextNetwork, list[int]]:
    """Train the text network.

    Args:
        seed: the same seed gives the same network on the same machine.
        steps: 1,400 take about 160 CPU seconds.

    Returns:
        The network, and the CLIP token of each of its rows from row 1 on.
    """
    torch.manual_seed(seed)
    random = Random(seed)  # noqa: S311
    vocabulary = Vocabulary(sorted(known_words()))
    network = TextNetwork(len(vocabulary.tokens))
    matrices, others = split(network, linear_weights(network))
    adam = torch.optim.AdamW(others, 3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    # Without the limit, the long gradients of the first steps slow down all others.
    optimizers = Optimizers([Muon(matrices, 0.02), adam], longest_gradient=1.0)
    for step in range(steps):
        rows, ends, numbers = random_prompts(BATCH, random, vocabulary)
        loss = ((network(rows, ends) - numbers) ** 2).sum(1).mean()
        optimizers.step(loss, min(1, (step + 1) / 40) * (1 - step / steps))
        if step % 100 == 99:
            logger.info("text, step %d of %d: loss %.4f", step + 1, steps, loss.item())
    return network, vocabulary.tokens


def random_prompts(
    number: int, random: Random, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tensor]:
    """Write prompts; give their rows, where each one ends, and what each one asks for."""
    prompts, numbers = [], []
    for _ in range(number):
        words, request = write_prompt(random)
        prompts.append(vocabulary.rows(words))
        numbers.append(request.numbers())
    lengths = [len(rows) for rows in prompts]
    end = prompts[0][-1]
    padded = [rows + [end] * (max(lengths) - len(rows)) for rows in prompts]
    return torch.tensor(padded), torch.tensor(lengths) - 1, torch.tensor(numbers)
