"""A small text encoder for models whose own has billions of weights."""

from __future__ import annotations

from typing import Any

import comfy.sd
import folder_paths


class TestTextEncoder:
    """Loads CLIP-L and repeats its 768 features until they are as many as a model takes."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        files = folder_paths.get_filename_list("text_encoders")
        return {"required": {"clip_name": (files,), "width": ("INT", {"max": 100_000})}}

    def load(self, clip_name: str, width: int) -> tuple[Any]:
        path = folder_paths.get_full_path_or_raise("text_encoders", clip_name)
        clip = comfy.sd.load_clip([path], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION)
        encode = clip.cond_stage_model.encode_token_weights

        def encode_wide(tokens: Any) -> tuple[Any, ...]:
            features, *others = encode(tokens)
            times = -(-width // features.shape[-1])
            return (features.repeat(1, 1, times)[..., :width], *others)

        clip.cond_stage_model.encode_token_weights = encode_wide
        return (clip,)


NODE_CLASS_MAPPINGS = {"TestTextEncoder": TestTextEncoder}
