"""What the shipped templates need, said three times alike: in the graphs, in their params, in models.txt."""

from __future__ import annotations

import pytest

from comfy_common.models_txt import parse_models, parse_sections
from comfy_setup.fetch_models import REAL
from tests import shipped

FOLDER_OF_INPUT = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "text_encoder": "text_encoders",
    "lora_name": "loras",
    "vae_name": "vae",
    "control_net_name": "controlnet",
    "model_name": "upscale_models",
}
# Classes whose input has a name that others use too.
FOLDER_OF_CLASS = {
    "LatentUpscaleModelLoader": "latent_upscale_models",
    "ModelPatchLoader": "model_patches",
}
MODELS_TXT = (shipped.REPO / "models.txt").read_text(encoding="utf-8")


def sections() -> dict[str, list[list[str]]]:
    """Read models.txt: for each section the path and the URL of its lines."""
    found: dict[str, list[list[str]]] = {}
    for line in MODELS_TXT.splitlines():
        if line.startswith("["):
            found[line[1:].partition("]")[0]] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line.split()[:2])
    return found


def test_templates_and_sections_match_exactly() -> None:
    headings = [line.split()[0] for line in MODELS_TXT.splitlines() if line.startswith("[")]
    assert sorted(headings) == sorted(f"[{name}]" for name in (*shipped.NAMES, REAL))


@pytest.mark.parametrize("name", shipped.NAMES)
def test_needs_are_the_graphs_model_files(name: str) -> None:
    named = {
        (FOLDER_OF_CLASS.get(node["class_type"]) or FOLDER_OF_INPUT[key], value)
        for node in shipped.graph(name).values()
        for key, value in node["inputs"].items()
        if isinstance(value, str) and value.endswith(".safetensors")
    }
    assert {(need["folder"], need["file"]) for need in shipped.params(name)["needs"]} == named


@pytest.mark.parametrize("name", shipped.NAMES)
def test_models_txt_says_the_same_as_needs(name: str) -> None:
    needs = [
        [f"{need['folder']}/{need['file']}", need["url"]] for need in shipped.params(name)["needs"]
    ]
    assert sections()[name] == needs


def test_each_file_has_one_url_with_its_name() -> None:
    lines = [line for section in sections().values() for line in section]
    assert len({path for path, _ in lines}) == len({(path, url) for path, url in lines})
    for path, url in lines:
        assert url.startswith("https://")
        assert url.rsplit("/", 1)[1] == path.rsplit("/", 1)[1]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_sections_state_the_size_of_params(name: str) -> None:
    disk_gb = shipped.params(name).get("requirements", {}).get("disk_gb", 0)
    assert parse_sections(MODELS_TXT)[name].size == round(disk_gb * 1e9)


def test_stated_sizes_fit_into_their_sections() -> None:
    """ComfyUI states the size of a template's files in steps of 0.1 GiB."""
    for name, section in parse_sections(MODELS_TXT).items():
        stated = sum(entry.size for entry in parse_models(MODELS_TXT) if entry.section == name)
        assert not section.size or stated <= section.size * 1.02 + 1.1e8, name


def test_sections_of_one_architecture_have_a_family() -> None:
    lone = [name for name, found in parse_sections(MODELS_TXT).items() if not found.families]
    assert lone == ["upscale"]
