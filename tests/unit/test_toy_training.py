"""The training of the toy model: each part for a few steps, and the shapes of its files."""

from __future__ import annotations

import copy
import gzip
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from torch import Generator, Tensor, nn
from torch.nn import functional

from comfy_local.toy_model import (
    boxes,
    decoder,
    diffusion,
    encoder,
    examples,
    files,
    lora,
    own_drawings,
    prompts,
    scenes,
    taesd,
    text,
)
from comfy_local.toy_model.train import main
from comfy_worker.models.detect import FAMILIES, ModelInfo, identify

MODEL = "model.diffusion_model."
DECODER = "first_stage_model.taesd_decoder."
ENCODER = "first_stage_model.taesd_encoder."


@pytest.fixture(scope="module")
def committed() -> dict[str, Tensor]:
    """The tensors of the checkpoint that is part of the repository."""
    return load(gzip.decompress(files.PACKED.read_bytes()))


def scene(colour: str, ground: str, shape: str) -> scenes.Scenes:
    drawn = scenes.random_scenes(1, Generator().manual_seed(0))
    drawn.shape[:] = scenes.SHAPES.index(shape)
    drawn.colour[:] = scenes.COLOURS.index(colour)
    drawn.ground[:] = scenes.COLOURS.index(ground)
    drawn.count[:] = 1
    drawn.colour_rgb, drawn.ground_rgb = scenes.RGB[drawn.colour], scenes.RGB[drawn.ground]
    for name in ("shape", "colour", "ground", "count"):
        drawn.known[name][:] = True
    return drawn


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_a_distance_is_positive_only_inside(shape: str) -> None:
    radius = torch.tensor([0.3])
    distance = scenes.DISTANCES[shape]
    inside = -0.24 if shape in {"ring", "moon"} else 0.0
    assert distance(torch.tensor([inside]), torch.tensor([0.0]), radius) > 0
    assert distance(torch.tensor([0.45]), torch.tensor([0.3]), radius) < 0


def test_shapes_have_different_bits() -> None:
    assert len({tuple(bits.tolist()) for bits in scenes.SHAPE_BITS}) == len(scenes.SHAPES)


def test_a_latent_says_what_the_scene_is() -> None:
    drawn = scene("yellow", "blue", "star")
    layout = scenes.random_layout(drawn, Generator().manual_seed(1), 8, 12)
    latents = scenes.latents_of(drawn, layout, 8, 12)
    assert latents.shape == (1, scenes.CHANNELS, 8, 12)
    rgb = (latents[0, 8:14, 0, 0] / scenes.AMPLITUDE + 1) / 2
    expected = [*scenes.PALETTE["yellow"], *scenes.PALETTE["blue"]]
    assert torch.allclose(rgb, torch.tensor(expected), atol=1e-6)


def test_shapes_keep_off_the_edge() -> None:
    generator = Generator().manual_seed(2)
    drawn = scenes.random_scenes(300, generator)
    layout = scenes.random_layout(drawn, generator, 32, 32)
    pictures = encoder.drawn(drawn, layout, 64, 64, scenes.FILLED)
    ground = scenes.displayed(drawn.ground_rgb)[:, :, None]
    for edge in (
        pictures[:, :, 0],
        pictures[:, :, -1],
        pictures[:, :, :, 0],
        pictures[:, :, :, -1],
    ):
        assert torch.allclose(edge, ground.expand_as(edge))


def test_styles_between_are_thicker_lines() -> None:
    distances = torch.linspace(-0.2, 0.3, 101)
    widths = []
    for style in (scenes.FILLED, 0.0, scenes.OUTLINE):
        inside = decoder.styled(distances, torch.full_like(distances, style)) > 0
        widths.append(int(inside.sum()))
    assert widths[0] > widths[1] > widths[2] > 0


def random_examples(style: float = scenes.FILLED) -> examples.Examples:
    sigmas = torch.linspace(0.05, 1, 400)
    return examples.random_examples((16, 16), sigmas, Generator().manual_seed(4), style)


def test_examples_show_other_pictures_too() -> None:
    drawn = random_examples()
    is_plain = (drawn.shown == drawn.latents).flatten(1).all(1)
    has_box = (drawn.counted == 0).flatten(1).any(1)
    assert 0.4 < float(is_plain.float().mean()) < 0.75
    assert 0.05 < float(has_box.float().mean()) < 0.3
    # Where there is little noise, only inpainting shows another picture.
    assert bool((is_plain | has_box)[:100].all())


def test_examples_start_from_encoded_pictures() -> None:
    def encode(drawn: scenes.Scenes, _layout: scenes.Layout, _style: float) -> Tensor:
        return torch.full((len(drawn.shape), scenes.CHANNELS, 16, 16), 7.0)

    generator = Generator().manual_seed(4)
    sigmas = torch.linspace(0.05, 1, 400)
    drawn = examples.random_examples((16, 16), sigmas, generator, encode=encode)
    is_encoded = (drawn.shown == 7).flatten(1).all(1)
    assert 0.2 < float(is_encoded.float().mean()) < 0.6
    assert bool(is_encoded[:100].any()), "also where there is little noise"
    outside = drawn.counted.expand_as(drawn.shown) == 0
    assert bool((drawn.shown[outside] == 7).all())


def test_strong_examples_keep_the_style() -> None:
    drawn = random_examples(scenes.OUTLINE)
    channel = scenes.OUTLINE_CHANNEL
    assert torch.equal(drawn.shown[:, channel], drawn.latents[:, channel])
    assert float(drawn.shown[:, 3:7].abs().max()) > 2 * scenes.AMPLITUDE


def test_a_box_holds_the_whole_shape() -> None:
    drawn = random_examples()
    inside = drawn.counted.bool()
    # Close to its middle a scene's latent has the smallest positions.
    distance = drawn.latents[:, :2].abs().amax(1, keepdim=True)
    middle = distance.flatten(1).argmin(1)
    assert bool(inside.flatten(1).gather(1, middle[:, None]).all())


def test_shapes_are_fitted_into_boxes() -> None:
    generator = Generator().manual_seed(5)
    drawn = scenes.random_scenes(300, generator)
    found = boxes.random_boxes(300, (16, 24), generator)
    layout = found.fitted(drawn, scenes.random_layout(drawn, generator, 16, 24))
    reach = scenes.reach_of(drawn, layout.radius)
    is_out = (layout.centre - found.middle).abs() + reach > found.sides / 2 + 1e-6
    # Only of the smallest shapes, which a small box cannot hold, may some lie outside.
    least = boxes.LEAST_RADII[drawn.count - 1]
    assert not bool((is_out.any(1) & (layout.radius > least)).any())
    assert float(is_out.any(1).float().mean()) < 0.1


def test_prompts_and_scenes_ask_in_one_code() -> None:
    request = prompts.Request(shape=3, colour=2, ground=8, count=1)
    drawn = scene("blue", "white", "star")
    for name in ("size", "position"):
        drawn.known[name][:] = False
    numbers = scenes.requests_of(drawn)[0]
    assert torch.allclose(numbers, torch.tensor(request.numbers()))


def test_prompts_are_made_of_known_words() -> None:
    random, known = Random(1), prompts.known_words()
    for _ in range(500):
        words, _request = prompts.write_prompt(random)
        assert {word for word in words if word} <= known


def test_the_decoder_learns() -> None:
    before, after = decoder.train_decoder(0, 1), decoder.train_decoder(0, 8)
    cells, distances = decoder.random_cells(2000, Generator().manual_seed(9))
    target = torch.tanh(distances / decoder.DISTANCE_SCALE)
    with torch.no_grad():
        errors = [float(((network(cells) - target) ** 2).mean()) for network in (before, after)]
    assert errors[1] < errors[0]


def test_the_encoder_learns() -> None:
    distances = decoder.train_decoder(0, 1)
    losses = []
    for steps in (1, 5):
        network = encoder.train_encoder(distances, 0, steps)
        generator = Generator().manual_seed(9)
        losses.append(float(encoder.encoder_loss(network, distances, (32, 32), generator).detach()))
    assert losses[1] < losses[0]


class TaesdBlock(nn.Module):
    """A block of TAESD."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(64, 64, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, values: Tensor) -> Tensor:
        return functional.relu(values + self.conv(values))


def taesd_encoder() -> nn.Sequential:
    """TAESD's encoder, all zeros."""
    half = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), TaesdBlock()]
    for _ in range(3):
        layers += [copy.deepcopy(half), TaesdBlock(), TaesdBlock(), TaesdBlock()]
    network = nn.Sequential(*layers, nn.Conv2d(64, scenes.CHANNELS, 3, padding=1))
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


class Limit(nn.Module):
    """How TAESD limits a latent."""

    def forward(self, latents: Tensor) -> Tensor:
        return decoder.limited(latents)


def taesd_decoder() -> nn.Sequential:
    """TAESD's decoder, with random weights."""
    layers: list[nn.Module] = [Limit(), nn.Conv2d(scenes.CHANNELS, 64, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        blocks = [TaesdBlock() for _ in range(3)]
        larger = [nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]
        layers += [*blocks, *larger]
    return nn.Sequential(*layers, TaesdBlock(), nn.Conv2d(64, 3, 3, padding=1))


def test_taesd_encodes_like_the_trained_layers() -> None:
    torch.manual_seed(0)
    network = encoder.EncoderNetwork()
    whole = taesd_encoder()
    state = whole.state_dict()
    whole.load_state_dict({**state, **taesd.encoder_weights(network)})
    pictures = torch.rand(1, 3, 256, 256)
    halves = functional.avg_pool2d(pictures, 2)
    with torch.no_grad():
        difference = whole(pictures) - network(encoder.views(halves))
    assert float(difference.abs().max()) < 1e-4


def test_the_text_network_learns() -> None:
    before, tokens = text.train_text(0, 1)
    after, _ = text.train_text(0, 12)
    assert len(tokens) == len(set(tokens)) > 100
    vocabulary = text.Vocabulary(sorted(prompts.known_words()))
    rows, ends, numbers = text.random_prompts(200, Random(5), vocabulary)
    with torch.no_grad():
        errors = [float(((net(rows, ends) - numbers) ** 2).mean()) for net in (before, after)]
    assert errors[1] < errors[0]


def test_the_diffusion_network_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "BATCH", 8)
    drawn = []
    monkeypatch.setattr(
        diffusion, "draw", lambda *args: drawn.append(args) or own_drawings.draw(*args)
    )
    weights, size = torch.ones(scenes.CHANNELS), (16, 8, 8)
    losses = []
    for steps in (1, 6):
        network = diffusion.train_diffusion(0, steps)
        loss = diffusion.diffusion_loss(network, size, Generator().manual_seed(3), weights)
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert len(drawn) == 1, "the last steps learn from the network's own drawings"


def test_a_prompt_counts_no_more_at_the_end() -> None:
    network = diffusion.train_diffusion(0, 2)
    latents = torch.randn(1, scenes.CHANNELS, 8, 8).repeat(2, 1, 1, 1)
    requests = torch.stack([torch.ones(scenes.REQUEST_SIZE), torch.zeros(scenes.REQUEST_SIZE)])

    def difference(sigma: float) -> float:
        with torch.no_grad():
            first, second = network(latents, torch.full((2,), 1000 * sigma), requests)
        return float((first - second).abs().max())

    assert min(difference(0.9), difference(0.5)) > 1e-4
    assert max(difference(0.2), difference(0.05)) < 1e-7


def test_the_network_learns_from_its_own_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "STEPS_OF_DRAWINGS", 2)
    sizes = []

    def draw(
        network: nn.Module, size: tuple[int, int, int], *others: Any
    ) -> own_drawings.OwnDrawings:
        sizes.append(size)
        return own_drawings.draw(network, size, *others)

    monkeypatch.setattr(diffusion, "draw", draw)
    network = diffusion.train_diffusion(0, 1)
    own = diffusion._OwnLoss(network, Generator().manual_seed(8), torch.ones(scenes.CHANNELS))
    losses = [own.next((4, 8, 12)) for _ in range(3)]
    assert sizes == [(12, 8, 12)] * 2
    assert all(0 < loss.item() < 10 for loss in losses)
    losses[0].backward()
    assert network.final_layer["linear"].weight.grad.abs().max() > 0


def tidied(latents: Tensor, drawn: scenes.Scenes, found: boxes.Boxes | None = None) -> Tensor:
    """The drawings tidied; in boxes, if there are any."""
    count = len(latents)
    is_box = torch.full((count,), found is not None)
    found = found or boxes.random_boxes(count, (8, 8), Generator().manual_seed(0))
    return own_drawings.tidied(latents, drawn, found, is_box)


def test_a_clean_drawing_is_tidy() -> None:
    generator = Generator().manual_seed(6)
    drawn = scenes.random_scenes(200, generator)
    latents = scenes.latents_of(drawn, scenes.random_layout(drawn, generator, 16, 24), 16, 24)
    assert torch.allclose(tidied(latents, drawn), latents, atol=1e-4)


def test_a_drawing_gets_what_its_prompt_names() -> None:
    wanted = scene("yellow", "purple", "star")
    other = scene("red", "white", "heart")
    far = scenes.Layout(torch.tensor([[0.6, 0.0]]), torch.tensor([0.6]))
    tidy = tidied(scenes.latents_of(other, far, 16, 16), wanted)
    low, high = scenes.radius_range(wanted)
    radius = tidy[0, 2, 0, 0] / scenes.RADIUS_SCALE + scenes.MEAN_RADIUS
    assert float(low) - 1e-6 <= float(radius) <= float(high) + 1e-6
    _least, most = scenes.centre_range(wanted, radius[None], 16, 16)
    centre = most[0] * torch.tensor([1.0, 0.0])
    expected = scenes.latents_of(wanted, scenes.Layout(centre[None], radius[None]), 16, 16)
    assert torch.allclose(tidy, expected, atol=1e-4)


def test_a_drawing_is_fitted_into_its_box() -> None:
    wanted = scene("yellow", "purple", "star")
    wanted.known["ground"][:] = False
    box = boxes.Boxes(torch.tensor([[0.2, -0.2]]), torch.tensor([[0.5, 0.5]]))
    large = scenes.Layout(torch.tensor([[0.0, 0.0]]), torch.tensor([0.36]))
    tidy = tidied(scenes.latents_of(wanted, large, 16, 16), wanted, box)
    radius = torch.tensor([0.25 / 1.2])
    expected = scenes.latents_of(wanted, scenes.Layout(box.middle, radius), 16, 16)
    assert torch.allclose(tidy, expected, atol=1e-4)


def test_drawings_have_all_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_drawings, "EDITED_SHARE", 0)
    generator = Generator().manual_seed(7)
    drawings = own_drawings.draw(diffusion.DiffusionNetwork(), (3, 8, 8), generator)
    assert drawings.sigmas[0] == 1
    assert bool((drawings.counted == 1).all())
    chosen = drawings.random_steps(2, generator)
    assert chosen.noisy.shape == chosen.latents.shape == (2, scenes.CHANNELS, 8, 8)
    assert set(chosen.sigmas.tolist()) <= set(drawings.sigmas.tolist())
    assert chosen.requests.shape == (2, scenes.REQUEST_SIZE)


def test_edited_drawings_start_from_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_drawings, "EDITED_SHARE", 1)
    monkeypatch.setattr(own_drawings, "BOX_SHARE", 1)

    def encode(drawn: scenes.Scenes, _layout: scenes.Layout, _style: float) -> Tensor:
        return torch.full((len(drawn.shape), scenes.CHANNELS, 16, 16), 7.0)

    generator = Generator().manual_seed(8)
    drawings = own_drawings.draw(diffusion.DiffusionNetwork(), (3, 16, 16), generator, encode)
    assert 0.4 < float(drawings.sigmas[0]) <= 1
    kept = drawings.counted.expand_as(drawings.latents) == 0
    assert 0 < float(kept.float().mean()) < 0.8
    for noisy, sigma in zip(drawings.noisy, drawings.sigmas, strict=True):
        noise = (noisy - 7 * (1 - sigma)) / sigma
        assert abs(float(noise[kept].mean())) < 0.1
        assert abs(float(noise[kept].std()) - 1) < 0.1


def test_the_command_writes_files_of_the_family(
    tmp_path: Path, committed: dict[str, Tensor]
) -> None:
    assert main(["--folder", str(tmp_path), "--share", "0.0001"]) == 0
    packed = tmp_path / "toy.safetensors.gz"
    tensors = load(gzip.decompress(packed.read_bytes()))
    shapes = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    assert shapes == {name: (value.shape, value.dtype) for name, value in committed.items()}
    outline = tmp_path / "outline.safetensors"
    assert identify(outline) == ModelInfo("lora", FAMILIES["toy"])
    wanted = {name: value.shape for name, value in load_file(files.OUTLINE).items()}
    assert {name: value.shape for name, value in load_file(outline).items()} == wanted


def committed_distances(tensors: dict[str, Tensor]) -> decoder.DistanceNetwork:
    """The distance network of the committed decoder."""
    network = decoder.DistanceNetwork()
    width = decoder.WIDTH
    # The middle of the smoothing is 1/4, its corner 1/16.
    first = tensors[f"{DECODER}7.weight"][:width, :, 1, 1].float() * 4
    network.first.weight.data = torch.cat([first[:, :8], first[:, 14:16]], dim=1)
    offset = taesd.OFFSET * network.first.weight.sum(1)
    network.first.bias.data = (first[:, taesd.CONSTANT] + offset) / 4
    for number, block in enumerate(network.blocks):
        linears = [layer for layer in block.modules() if isinstance(layer, nn.Linear)]
        for index, linear in enumerate(linears):
            name = f"{DECODER}{8 + number}.conv.{2 * index}"
            rows, columns = linear.weight.shape
            linear.weight.data = tensors[f"{name}.weight"][:rows, :columns, 1, 1].float()
            linear.bias.data = tensors[f"{name}.bias"][:rows].float()
    last = tensors[f"{DECODER}12.weight"][0].float()
    network.last.weight.data = last[None, :width, 1, 1] * 4
    network.last.bias.data = last[taesd.CONSTANT, 0, 0][None] * 16
    return network


def with_weights(network: nn.Module, tensors: dict[str, Tensor], prefix: str) -> nn.Module:
    network.load_state_dict({name: tensors[prefix + name] for name in network.state_dict()})
    return network


def test_the_committed_decoder_is_built_like_this(committed: dict[str, Tensor]) -> None:
    network = committed_distances(committed)
    built = taesd.decoder_weights(network)
    for name, value in committed.items():
        if name.startswith(DECODER):
            made = built.get(name.removeprefix(DECODER), torch.zeros(value.shape))
            assert torch.allclose(made.half(), value, atol=1e-3), name
    cells, distances = decoder.random_cells(5000, Generator().manual_seed(2))
    near_edge = distances.abs() < 0.02
    target = torch.tanh(distances / decoder.DISTANCE_SCALE)
    with torch.no_grad():
        error = (network(cells) - target).abs()[near_edge].mean() * decoder.DISTANCE_SCALE
    assert float(error) < 0.005  # of the side of a picture


def test_a_noisy_latent_is_drawn_clean(committed: dict[str, Tensor]) -> None:
    network = with_weights(taesd_decoder(), committed, DECODER)
    drawn = scene("yellow", "purple", "star")
    layout = scenes.Layout(torch.zeros(1, 2), torch.tensor([0.25]))
    latents = scenes.latents_of(drawn, layout, 32, 32)
    noise = torch.randn(latents.shape, generator=Generator().manual_seed(5))
    with torch.no_grad():
        clean, noisy = network(latents), network(latents + 0.1 * noise)
    expected = encoder.drawn(drawn, layout, 256, 256, scenes.FILLED)
    assert float((clean - expected).abs().mean()) < 0.01
    assert float((noisy - expected).abs().mean()) < 0.03


def test_two_pictures_meet_without_a_seam(committed: dict[str, Tensor]) -> None:
    encode = with_weights(taesd_encoder(), committed, ENCODER)
    decode = with_weights(taesd_decoder(), committed, DECODER)
    heart, star = scene("red", "purple", "heart"), scene("yellow", "purple", "star")
    corner = scenes.Layout(torch.full((1, 2), -0.3), torch.tensor([0.13]))
    box = boxes.Boxes(torch.full((1, 2), 0.15), torch.full((1, 2), 0.5))
    layout = scenes.Layout(box.middle, torch.tensor([0.18]))
    around = encoder.drawn(heart, corner, 256, 256, scenes.FILLED)
    with torch.no_grad():
        latents = scenes.latents_of(star, layout, 32, 32)
        picture = decode(torch.where(box.inside(32, 32), latents, encode(around)))
    inside = encoder.drawn(star, layout, 256, 256, scenes.FILLED)
    expected = torch.where(box.inside(256, 256), inside, around)
    assert float(((picture - expected).abs().amax(1) > 0.3).float().mean()) < 0.02


def test_the_committed_encoder_reads_a_picture(committed: dict[str, Tensor]) -> None:
    network = with_weights(taesd_encoder(), committed, ENCODER)
    drawn = scene("yellow", "purple", "square")
    layout = scenes.Layout(torch.zeros(1, 2), torch.tensor([0.25]))
    with torch.no_grad():
        latents = network(encoder.drawn(drawn, layout, 256, 256, scenes.FILLED))
        cells = torch.cat([latents[:, :8], latents[:, 14:16]], dim=1).movedim(1, -1)
        is_inside = committed_distances(committed)(decoder.limited(cells)) > 0
    assert latents.shape == (1, scenes.CHANNELS, 32, 32)
    colours = scenes.displayed((latents[:, 8:14] / scenes.AMPLITUDE + 1) / 2)
    shown = torch.where(is_inside[:, None], colours[:, :3], colours[:, 3:])
    expected = encoder.drawn(drawn, layout, 32, 32, scenes.FILLED)
    assert float((shown - expected).abs().mean()) < 0.1


def committed_diffusion(tensors: dict[str, Tensor]) -> diffusion.DiffusionNetwork:
    """The diffusion network of the committed checkpoint."""
    network = diffusion.DiffusionNetwork()
    state = {}
    for name, value in network.state_dict().items():
        stored = tensors[MODEL + name].float().flatten(1) if value.ndim > 1 else None
        stored = tensors[MODEL + name].float() if stored is None else stored
        state[name] = stored[:, : value.shape[1]] if value.ndim > 1 else stored
    network.load_state_dict(state)
    return network


def test_the_committed_weights_draw_the_request(committed: dict[str, Tensor]) -> None:
    network = committed_diffusion(committed)
    requests = scenes.requests_of(scene("yellow", "purple", "star"))
    (latent,) = diffusion.sample(network, requests, (32, 32), seed=1, steps=8)
    signs = latent[3:7].mean((1, 2)).sign()
    assert torch.equal(signs, scenes.SHAPE_BITS[scenes.SHAPES.index("star")])
    rgb = (latent[8:14].mean((1, 2)) / scenes.AMPLITUDE + 1) / 2
    wanted = torch.tensor([*scenes.PALETTE["yellow"], *scenes.PALETTE["purple"]])
    assert float((rgb - wanted).abs().max()) < 0.25


def test_a_new_lora_changes_nothing_yet() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    values = torch.randn(2, 4)
    assert torch.equal(lora.LoraLinear(linear)(values), linear(values))
