"""Names and shapes of the tensors of real and of tiny models, taken from ComfyUI's own classes.

Run as a script it imports ComfyUI, builds each model on torch's meta device, and prints the shapes as JSON;
imported it runs that script once, because ComfyUI reads the command line and holds global state.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]

SD_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "adm_in_channels": None,
    "legacy": False,
}
SD15 = SD_UNET | {"context_dim": 768, "use_linear_in_transformer": False, "num_heads": 8}
SD2 = SD_UNET | {"context_dim": 1024, "use_linear_in_transformer": True}
SDXL = SD2 | {
    "context_dim": 2048,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
}
SDXL_REFINER = SDXL | {
    "context_dim": 1280,
    "adm_in_channels": 2560,
    "model_channels": 384,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    "transformer_depth_middle": 4,
}
SD35 = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "input_size": None,
    "adm_in_channels": 2048,
    "num_patches": 36864,
    "pos_embed_max_size": 192,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
}


def sd35(depth: int, x_block_self_attn_layers: int = 0) -> dict[str, Any]:
    """Configure SD 3.5 with this many blocks; the first of them may have a second attention, as medium has."""
    context = {"in_features": 4096, "out_features": 64 * depth}
    return SD35 | {
        "depth": depth,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": context},
        "x_block_self_attn_layers": list(range(x_block_self_attn_layers)),
    }


FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "freq_dim": 256,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
    "in_dim": 16,
    "out_dim": 16,
}
WAN_14B = WAN | {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
QWEN_IMAGE = {"image_model": "qwen_image", "in_channels": 64, "num_layers": 60}
Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 3840,
    "cap_feat_dim": 2560,
    "n_layers": 30,
    "qk_norm": True,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}

CHECKPOINTS: dict[str, dict[str, Any]] = {
    "sd15": SD15,
    "sd15-inpaint": SD15 | {"in_channels": 9},
    "sd2": SD2,
    "sd2-inpaint": SD2 | {"in_channels": 9},
    "sdxl": SDXL,
    "sdxl-inpaint": SDXL | {"in_channels": 9},
    "sdxl-refiner": SDXL_REFINER,
    "sd35-large": sd35(38),
    "sd35-medium": sd35(24, 13),
}
DIFFUSION_MODELS: dict[str, dict[str, Any]] = {
    "flux-dev": FLUX,
    "flux-kontext": FLUX,
    "flux-schnell": FLUX | {"guidance_embed": False},
    "flux-fill": FLUX | {"in_channels": 96},
    "qwen-image": QWEN_IMAGE,
    "qwen-image-edit": QWEN_IMAGE,
    "z-image": Z_IMAGE,
    "wan21-t2v-14b": WAN_14B,
    "wan21-t2v-1.3b": WAN | {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30},
    "wan21-i2v-14b": WAN_14B | {"model_type": "i2v", "in_dim": 36},
    "wan22-t2v-14b": WAN_14B,
    "wan22-i2v-14b": WAN_14B | {"in_dim": 36},
    "wan22-ti2v-5b": WAN
    | {
        "dim": 3072,
        "ffn_dim": 14336,
        "num_heads": 24,
        "num_layers": 30,
        "in_dim": 48,
        "out_dim": 48,
    },
}
# Small ones of the same families, that a CPU runs.
TINY_WAN = WAN | {"dim": 1536, "ffn_dim": 1536, "num_heads": 12, "num_layers": 1}
FLUX2 = {
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [32, 32, 32, 32],
    "theta": 2000,
    "qkv_bias": False,
    "ops_bias": False,
    "guidance_embed": False,
    "global_modulation": True,
    "mlp_silu_act": True,
}
TINY_CHECKPOINTS: dict[str, dict[str, Any]] = {
    "tiny-sdxl": SDXL
    | {
        "channel_mult": [1, 1, 1],
        "transformer_depth_output": [0] * 9,
        "transformer_depth_middle": -2,
    },
}
TINY_DIFFUSION_MODELS: dict[str, dict[str, Any]] = {
    "tiny-sd3": sd35(1),
    "tiny-flux": FLUX | {"depth": 1, "depth_single_blocks": 0, "context_in_dim": 768},
    "tiny-wan": TINY_WAN,
    "tiny-wan-i2v": TINY_WAN | {"in_dim": 36},
    "tiny-flux2": FLUX2 | {"hidden_size": 256, "context_in_dim": 768, "num_heads": 2},
}

# Models that ComfyUI 0.33 has and 0.3.75 lacks. What a file's tensors do not show is in the metadata of the file.
LTX_AV: dict[str, Any] = {
    "transformer": {
        "num_layers": 1,
        "num_attention_heads": 8,
        "attention_head_dim": 64,
        "cross_attention_dim": 512,
        "audio_num_attention_heads": 8,
        "audio_attention_head_dim": 32,
        "audio_cross_attention_dim": 256,
        "connector_num_attention_heads": 2,
        "connector_attention_head_dim": 64,
        "connector_num_layers": 1,
        "caption_proj_before_connector": True,
        "caption_projection_first_linear": False,
        "cross_attention_adaln": True,
        "apply_gated_attention": True,
    },
    "vae": {
        "dims": 3,
        "latent_channels": 128,
        "encoder_blocks": [["res_x", {"num_layers": 1}], *[["compress_all", {}]] * 3],
        "decoder_blocks": [
            *[["compress_all", {"residual": True}]] * 3,
            ["res_x", {"num_layers": 1}],
        ],
        "encoder_base_channels": 16,
        "decoder_base_channels": 16,
        "norm_layer": "pixel_norm",
        "patch_size": 4,
        "latent_log_var": "uniform",
    },
    "audio_vae": {
        "model": {
            "params": {
                "ddconfig": {
                    "double_z": True,
                    "mel_bins": 64,
                    "z_channels": 8,
                    "resolution": 256,
                    "in_channels": 2,
                    "out_ch": 2,
                    "ch": 16,
                    "ch_mult": [1, 2, 4],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                    "mid_block_add_attention": False,
                    "norm_type": "pixel",
                    "causality_axis": "height",
                },
                "sampling_rate": 16000,
            }
        },
        "preprocessing": {"stft": {"filter_length": 1024, "hop_length": 160}},
    },
    "vocoder": {
        "upsample_initial_channel": 32,
        "upsample_rates": [10, 4, 4],
        "upsample_kernel_sizes": [20, 8, 8],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]],
    },
}
LATENT_UPSCALER = {
    "in_channels": 128,
    "mid_channels": 32,
    "num_blocks_per_stage": 1,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
}
CURRENT_DIFFUSION_MODELS: dict[str, dict[str, Any]] = {
    "tiny-ltx-av": {"image_model": "ltxav", **LTX_AV["transformer"]},
    "tiny-minimax-h3": {
        "image_model": "minimax_h3",
        "hidden_size": 256,
        "num_layers": 1,
        "token_refiner_num_layers": 1,
        "num_attention_heads": 4,
        "attention_head_dim": 64,
        "ffn_hidden_size": 512,
        "text_dim": 768,
        "time_embed_hidden_size": 256,
        "time_embed_dim": 128,
        "rope_inv_freq_len": 8,
    },
    "tiny-hunyuan-video-1.5": {
        "image_model": "hunyuan_video",
        "in_channels": 65,
        "patch_size": [1, 1, 1],
        "out_channels": 32,
        "vec_in_dim": None,
        "context_in_dim": 4096,
        "hidden_size": 256,
        "mlp_ratio": 4.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 0,
        "axes_dim": [16, 56, 56],
        "theta": 256,
        "qkv_bias": True,
        "byt5": True,
        "guidance_embed": False,
        "use_cond_type_embedding": True,
        "vision_in_dim": 1152,
        "meanflow": False,
        "meanflow_sum": True,
    },
    "tiny-krea2": {
        "image_model": "krea2",
        "features": 512,
        "layers": 1,
        "heads": 4,
        "kvheads": 2,
        "txtlayers": 12,
        "txtdim": 160,
    },
    "tiny-qwen-image": QWEN_IMAGE | {"num_layers": 1},
    "tiny-anima": {
        "image_model": "anima",
        "max_img_h": 240,
        "max_img_w": 240,
        "max_frames": 128,
        "in_channels": 16,
        "out_channels": 16,
        "patch_spatial": 2,
        "patch_temporal": 1,
        "concat_padding_mask": True,
        "model_channels": 2048,
        "num_blocks": 1,
        "num_heads": 16,
        "crossattn_emb_channels": 1024,
        "pos_emb_cls": "rope3d",
        "pos_emb_learnable": True,
        "pos_emb_interpolation": "crop",
        "use_adaln_lora": True,
        "adaln_lora_dim": 256,
        "extra_per_block_abs_pos_emb": False,
    },
}


@functools.cache
def all_shapes(comfyui_dir: Path) -> dict[str, Shapes]:
    """Build every model above and return the shapes of its tensors, in about 10 seconds, once.

    Args:
        comfyui_dir: the ComfyUI whose classes are used.

    Returns:
        For each model, by the names above, its tensors as its file names them; ``taehv``, a VAE for
        Wan; ``flux2-vae``; ``vae-16`` and ``qwen3-4b``, which Z-Image needs. A ComfyUI from 0.33 on
        has the tiny current models too, ``ltx-video-vae``, ``ltx-audio-vae``, ``latent-upscaler``,
        ``taehv-24``, ``taehv-32`` and ``minimax-audio-vae``.
    """
    script = [sys.executable, __file__, str(comfyui_dir)]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    loaded = json.loads(printed.splitlines()[-1])
    return {
        model: {name: tuple(shape) for name, shape in shapes.items()}
        for model, shapes in loaded.items()
    }


def _print_shapes(comfyui_dir: str) -> None:
    sys.path.insert(0, comfyui_dir)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.taesd.taehv
    import torch

    found = {}
    for name, config in (CHECKPOINTS | TINY_CHECKPOINTS).items():
        found[name] = _checkpoint_shapes(config)
    for name, config in (DIFFUSION_MODELS | TINY_DIFFUSION_MODELS).items():
        found[name] = _shapes(_model(config).diffusion_model.state_dict())
    with torch.device("meta"):
        found["taehv"] = _shapes(comfy.taesd.taehv.TAEHV(16).state_dict())
    found["flux2-vae"] = _flux2_vae_shapes()
    found["vae-16"] = _vae_16_shapes()
    found["qwen3-4b"] = _qwen3_4b_shapes()
    if importlib.util.find_spec("comfy.ldm.minimax") is not None:
        found |= _current_shapes()
    print(json.dumps(found))  # noqa: T201 - this is what the script gives back


def _model(unet_config: dict[str, Any]) -> Any:
    import comfy.model_detection
    import torch
    from comfy.ldm.flux.model import FluxParams

    unet_config = dict(unet_config)
    if unet_config.get("image_model") in ("flux", "flux2"):
        # Versions from 0.33 on require it, and 0.3.75 refuses it.
        dims = [3] if unet_config["image_model"] == "flux2" else []
        required = {"txt_ids_dims": dims} if "txt_ids_dims" in FluxParams.__annotations__ else {}
        unet_config |= required
    config = comfy.model_detection.model_config_from_unet_config(unet_config)
    config.set_inference_dtype(torch.float16, None)
    return config.get_model({}, device=torch.device("meta"))


def _current_shapes() -> dict[str, Shapes]:
    """The tiny models that ComfyUI has from 0.33 on."""
    import comfy.ldm.lightricks.vae.audio_vae
    import comfy.ldm.lightricks.vae.causal_video_autoencoder
    import comfy.ldm.minimax.audio_vae
    import comfy.ops
    import comfy.taesd.taehv
    import torch
    from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler

    found = {
        name: _shapes(_model(config).diffusion_model.state_dict())
        for name, config in CURRENT_DIFFUSION_MODELS.items()
    }
    ltx = comfy.ldm.lightricks.vae
    operations = comfy.ops.disable_weight_init
    with torch.device("meta"):
        models = {
            "ltx-video-vae": ltx.causal_video_autoencoder.VideoVAE(config=LTX_AV["vae"]),
            "ltx-audio-vae": ltx.audio_vae.AudioVAE({"config": LTX_AV}),
            "latent-upscaler": LatentUpsampler.from_config(LATENT_UPSCALER, operations),
            "taehv-24": comfy.taesd.taehv.TAEHV(24),
            "taehv-32": comfy.taesd.taehv.TAEHV(32),
            "minimax-audio-vae": comfy.ldm.minimax.audio_vae.MiniMaxH3AudioVAE(),
        }
    return found | {name: _shapes(model.state_dict()) for name, model in models.items()}


def _flux2_vae_shapes() -> Shapes:
    """The VAE of Flux.2, whose latent has 32 channels in patches of four, normalised."""
    import torch
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {"double_z": True, "z_channels": 32, "resolution": 256, "in_channels": 3, "out_ch": 3}
    config |= {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": []}
    config |= {"dropout": 0.0, "batch_norm_latent": True}
    with torch.device("meta"):
        shapes = _shapes(AutoencoderKL(ddconfig=config, embed_dim=32).state_dict())
    return {name: shape for name, shape in shapes.items() if "num_batches" not in name}


def _vae_16_shapes() -> Shapes:
    """The VAE of Flux and Z-Image, ``ae.safetensors``."""
    import torch
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {"double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3}
    config |= {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": []}
    with torch.device("meta"):
        weights = AutoencoderKL(ddconfig=config | {"dropout": 0.0}, embed_dim=16).state_dict()
    return {name: shape for name, shape in _shapes(weights).items() if "quant_conv" not in name}


def _qwen3_4b_shapes() -> Shapes:
    """The text encoder of Z-Image, ``qwen_3_4b.safetensors``."""
    import comfy.ops
    import torch
    from comfy.text_encoders.llama import Qwen3_4B

    model = Qwen3_4B({}, torch.float16, torch.device("meta"), comfy.ops.manual_cast)
    return _shapes(model.state_dict())


def _checkpoint_shapes(unet_config: dict[str, Any]) -> Shapes:
    import torch
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.text_encoders.sd3_clip import sd3_clip

    model = _model(unet_config)
    channels = 16 if "qk_norm" in unet_config else 4
    vae: dict[str, Any] = {
        "double_z": True,
        "z_channels": channels,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
    }
    vae |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        vae_weights = AutoencoderKL(ddconfig=vae, embed_dim=channels).state_dict()
        clip = (
            sd3_clip(dtype_t5=torch.float16)
            if channels == 16
            else model.model_config.clip_target().clip
        )
        clip_weights = clip(device="meta", dtype=torch.float16).state_dict()
    save = model.state_dict_for_saving
    if "unet_state_dict" in inspect.signature(save).parameters:  # from 0.33 on
        save = functools.partial(save, model.diffusion_model.state_dict())
    weights = save(clip_state_dict=clip_weights, vae_state_dict=vae_weights)
    # The VAEs with 16 channels have no quantising convolutions.
    return {
        name: shape
        for name, shape in _shapes(weights).items()
        if channels == 4 or "quant_conv" not in name
    }


def _shapes(weights: dict[str, Any]) -> Shapes:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


if __name__ == "__main__":
    _print_shapes(sys.argv[1])
