"""Names and shapes of the tensors of architectures that ComfyUI 0.33 added.

Run as a script with the folder of such a ComfyUI, it builds each model on torch's meta device, asks ComfyUI's own
detection what the model is, and prints both as JSON: ``tests/unit/architectures_033.json``. There, only the first
and the last of SeedVR2's blocks are kept, and the first layer of MiniMax Music 3. Models have one layer where the detection allows it, and full widths.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SHAPES_FILE = Path(__file__).with_name("unit") / "architectures_033.json"

FLUX2 = {"image_model": "flux2", "in_channels": 128, "depth": 1, "depth_single_blocks": 1}
FLUX2 |= {"axes_dim": [32, 32, 32, 32], "mlp_ratio": 3.0, "theta": 2000, "out_channels": 128}
FLUX2 |= {"global_modulation": True, "mlp_silu_act": True, "qkv_bias": False, "ops_bias": False}
FLUX2 |= {"txt_ids_dims": [3], "patch_size": 1, "vec_in_dim": None, "guidance_embed": True}
HUNYUAN_15 = {"image_model": "hunyuan_video", "in_channels": 65, "patch_size": [1, 1, 1]}
HUNYUAN_15 |= {"out_channels": 32, "vec_in_dim": None, "context_in_dim": 3584, "hidden_size": 2048}
HUNYUAN_15 |= {"mlp_ratio": 4.0, "num_heads": 16, "depth": 1, "depth_single_blocks": 0}
HUNYUAN_15 |= {"axes_dim": [16, 56, 56], "theta": 256, "qkv_bias": True, "byt5": True}
HUNYUAN_15 |= {"guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 1152}
HUNYUAN_15 |= {"meanflow": False, "meanflow_sum": True}
COSMOS = {"max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16}
COSMOS |= {"out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 2048}
COSMOS |= {"concat_padding_mask": True, "crossattn_emb_channels": 1024, "num_heads": 16}
COSMOS |= {"pos_emb_cls": "rope3d", "pos_emb_learnable": True, "num_blocks": 1}
COSMOS |= {"pos_emb_interpolation": "crop", "min_fps": 1, "max_fps": 30, "use_adaln_lora": True}
COSMOS |= {"adaln_lora_dim": 256, "extra_per_block_abs_pos_emb": False}
SEEDVR2_7B = {"image_model": "seedvr2", "vid_dim": 3072, "heads": 24, "num_layers": 36}
SEEDVR2_7B |= {"norm_eps": 1e-5, "rope_type": "rope3d", "rope_dim": 64}
WAN = {"image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "freq_dim": 256}
WAN |= {"window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6}
WAN_14B = WAN | {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 1, "out_dim": 16}
WAN_5B = WAN | {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 1, "out_dim": 48}

MODELS: dict[str, dict[str, Any]] = {
    "flux2": FLUX2 | {"hidden_size": 6144, "num_heads": 48, "context_in_dim": 15360},
    "flux2-klein-4b": FLUX2
    | {"hidden_size": 3072, "num_heads": 24, "context_in_dim": 7680, "guidance_embed": False},
    "flux2-klein-9b": FLUX2
    | {"hidden_size": 4096, "num_heads": 32, "context_in_dim": 12288, "guidance_embed": False},
    "krea2": {"image_model": "krea2", "layers": 1},
    "qwen-image": {"image_model": "qwen_image", "in_channels": 64, "num_layers": 1},
    "qwen-image-layered": {
        "image_model": "qwen_image",
        "in_channels": 64,
        "num_layers": 1,
        "use_additional_t_cond": True,
    },
    "ltx-2": {"image_model": "ltxav", "num_layers": 1},
    "ltx-2.3": {
        "image_model": "ltxav",
        "num_layers": 1,
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
    },
    "ltxv": {
        "image_model": "ltxv",
        "num_layers": 1,
        "attention_head_dim": 64,
        "cross_attention_dim": 2048,
    },
    "ltxv-13b": {
        "image_model": "ltxv",
        "num_layers": 1,
        "attention_head_dim": 128,
        "cross_attention_dim": 4096,
    },
    "minimax-h3": {"image_model": "minimax_h3", "num_layers": 1},
    "wan-14b-t2v": WAN_14B | {"in_dim": 16},
    "wan-14b-i2v": WAN_14B | {"in_dim": 36},
    "wan22-5b": WAN_5B | {"in_dim": 48},
    "hunyuan-video-1.5": HUNYUAN_15,
    "anima": COSMOS | {"image_model": "anima"},
    "cosmos-predict2": COSMOS | {"image_model": "cosmos_predict2"},
    "seedvr2-7b": SEEDVR2_7B | {"mm_layers": 36, "mlp_type": "normal"},
    "seedvr2-7b-shared": SEEDVR2_7B | {"mm_layers": 10, "mlp_type": "swiglu"},
    "seedvr2-3b": {
        "image_model": "seedvr2",
        "vid_dim": 2560,
        "heads": 20,
        "num_layers": 32,
        "norm_eps": 1e-5,
        "mlp_type": "swiglu",
        "vid_out_norm": True,
    },
    "minimax-music-3": {"audio_model": "minimax_music3"},
    "ace-step-1.5": {"audio_model": "ace1.5", "num_dit_layers": 1, "num_lyric_layers": 1},
    "ace-step-1.5-xl": {
        "audio_model": "ace1.5",
        "num_dit_layers": 1,
        "num_lyric_layers": 1,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_heads": 32,
    },
}


def _print_shapes(comfyui_dir: str) -> None:
    sys.path.insert(0, comfyui_dir)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.model_detection
    import torch

    found: dict[str, Any] = {}
    for name, config in MODELS.items():
        model_config = comfy.model_detection.model_config_from_unet_config(dict(config))
        model_config.set_inference_dtype(torch.float16, None)
        # A class of ACE-Step computes with its own weights when it is built.
        device = torch.device("cpu" if "audio_model" in config else "meta")
        model = model_config.get_model({}, device=device)
        weights = model.diffusion_model.state_dict()
        detected = comfy.model_detection.detect_unet_config(weights, "")
        found[name] = {
            "detected": detected.get("image_model") or detected.get("audio_model"),
            "shapes": {tensor: list(weight.shape) for tensor, weight in weights.items()},
        }
    print(json.dumps(found, separators=(",", ":")))  # noqa: T201 - this is what the script gives back


if __name__ == "__main__":
    _print_shapes(sys.argv[1])
