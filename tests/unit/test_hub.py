"""Hub ids of other workers' endpoints name installed checkpoints."""

from __future__ import annotations

import pytest

from comfy_worker.errors import ModelNotFound
from comfy_worker.models.hub_aliases import HUB_FILES, find_checkpoint


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "sd_xl_base_1.0.safetensors"),
        ("stabilityai/stable-diffusion-2-1-base", "v2-1_512-ema-pruned.safetensors"),
        ("runwayml/stable-diffusion-v1-5", "v1-5-pruned-emaonly.safetensors"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "v1-5-pruned-emaonly.safetensors"),
    ],
)
def test_a_hub_id_selects_its_published_file(name: str, file: str) -> None:
    assert find_checkpoint(name, ["other.safetensors", file]) == file
    assert find_checkpoint(f" {name} ", [f"sub/{file}"]) == f"sub/{file}"


def test_the_first_published_file_that_is_installed_counts() -> None:
    files = list(HUB_FILES["runwayml/stable-diffusion-v1-5"])
    assert find_checkpoint("runwayml/stable-diffusion-v1-5", files[::-1]) == files[0]


def test_a_file_is_found_as_it_is() -> None:
    assert find_checkpoint("other", ["other.safetensors"]) == "other.safetensors"


def test_a_missing_hub_file_is_named() -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_checkpoint("stabilityai/stable-diffusion-xl-base-1.0", ["other.safetensors"])
    assert "sd_xl_base_1.0.safetensors" in str(caught.value)
