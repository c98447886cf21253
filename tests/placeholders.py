"""Small models with random weights that the real ComfyUI runs on a CPU, one for each part that tests need.

All of the SD 1.5 ones fit the placeholder checkpoint of ``comfy_setup``. Those of other families keep the widths
that their family is known by, so their files are large; they are thin: of large tensors one block of 4 KiB in 16
is written, the rest is a hole and takes no disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_common import paths
from comfy_local import placeholder
from tests import comfyui_shapes
from tests.comfyui_shapes import Shapes
from tests.standins import write_sparse

if TYPE_CHECKING:
    from torch import Tensor

SPREADS = ("std-of-means", "latents_std")

CHECKPOINT = "placeholder.safetensors"
CHECKPOINT_INPAINT = "placeholder-inpaint.safetensors"
CHECKPOINT_SDXL = "placeholder-sdxl.safetensors"
CHECKPOINT_SD3 = "placeholder-sd3.safetensors"
LORA = "lora-a.safetensors"
LORA_B = "lora-b.safetensors"
LORA_MODEL_ONLY = "lora-model-only.safetensors"
LORA_SDXL = "lora-sdxl.safetensors"
CONTROLNET = "canny-a.safetensors"
CONTROLNET_B = "depth-b.safetensors"
CONTROLNET_UNION = "union.safetensors"
EMBEDDING = "embedding.safetensors"
UPSCALER = "upscaler-2x.safetensors"
FLUX = "placeholder-flux.safetensors"
WAN = "placeholder-wan.safetensors"
WAN_I2V = "placeholder-wan-i2v.safetensors"
FLUX2 = "placeholder-flux2.safetensors"
LORA_WAN = "lora-wan.safetensors"
VAE_FLUX2 = "placeholder-flux2-vae.safetensors"
CLIP_L = "clip_l.safetensors"
VAE_4 = "taesd-4.safetensors"
VAE_16 = "taesd-16.safetensors"
VAE_WAN = "taehv-wan.safetensors"
# For models that ComfyUI has from 0.33 on.
LTX_AV = "placeholder-ltx-av.safetensors"
LTX_VIDEO_VAE = "placeholder-ltx-video-vae.safetensors"
LTX_AUDIO_VAE = "placeholder-ltx-audio-vae.safetensors"
LTX_UPSCALER = "placeholder-ltx-upscaler.safetensors"
MINIMAX_H3 = "placeholder-minimax-h3.safetensors"
MINIMAX_VAE = "taehv-minimax.safetensors"
MINIMAX_AUDIO_VAE = "placeholder-minimax-audio-vae.safetensors"
HUNYUAN_15 = "placeholder-hunyuan-video-1.5.safetensors"
HUNYUAN_VAE = "taehv-hunyuan.safetensors"
KREA2 = "placeholder-krea2.safetensors"
QWEN_IMAGE = "placeholder-qwen-image.safetensors"
ANIMA = "placeholder-anima.safetensors"
LORA_LTX = "lora-ltx.safetensors"
LORA_MINIMAX = "lora-minimax.safetensors"
LORA_HUNYUAN = "lora-hunyuan.safetensors"
LORA_KREA2 = "lora-krea2.safetensors"
LORA_QWEN = "lora-qwen.safetensors"
LORA_ANIMA = "lora-anima.safetensors"


def write_all(models_root: Path) -> None:
    """Lay every placeholder below into ComfyUI's model folders, 1 GB of disk; what is there is kept.

    Args:
        models_root: the folder that holds ``checkpoints``, ``loras`` and so on; it is made. All is made anew
            when the code that makes it has changed.
    """
    # Versions of ComfyUI name some tensors differently.
    version = paths.comfyui_dir(os.environ) / "comfyui_version.py"
    sources = (placeholder.__file__, comfyui_shapes.__file__, __file__, version)
    writers = WRITERS | CURRENT_WRITERS if _has_current_models() else WRITERS
    recipe = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()
    stamp = models_root / "recipe"
    stale = not stamp.is_file() or stamp.read_text() != recipe
    for file, write in writers.items():
        path = models_root / file
        if stale or not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
            write(unfinished)
            unfinished.replace(path)
    stamp.write_text(recipe)


def write_inpaint_checkpoint(path: Path) -> None:
    """SD 1.5 whose UNet takes a mask and a masked image beside the latent."""
    write_thin(path, placeholder.checkpoint_shapes(in_channels=9))


def write_sdxl_checkpoint(path: Path) -> None:
    """SDXL: three levels of 320 channels, both text encoders whole, TAESD."""
    shapes = {
        name: shape
        for name, shape in _shapes("tiny-sdxl").items()
        if "first_stage_model" not in name
    }
    write_thin(path, shapes | _under("first_stage_model.", placeholder.taesd_shapes(4)))


def write_sd3_checkpoint(path: Path) -> None:
    """SD 3 of one block, with CLIP-L only."""
    shapes = _under("model.diffusion_model.", _shapes("tiny-sd3"))
    shapes |= _under("text_encoders.clip_l.transformer.", placeholder.clip_l_shapes())
    write_thin(path, shapes | _under("first_stage_model.", placeholder.taesd_shapes(16)))


def write_flux(path: Path) -> None:
    """Flux of one double block, as wide as the real one; it takes CLIP-L in place of T5."""
    write_thin(path, _shapes("tiny-flux"))


def write_wan(path: Path) -> None:
    """Wan 2.1 of one layer, as wide as the real 1.3B."""
    write_thin(path, _shapes("tiny-wan"))


def write_wan_lora(path: Path) -> None:
    """A LoRA for the Wan placeholders."""
    names = ("diffusion_model.blocks.0.self_attn.q", "diffusion_model.blocks.0.self_attn.v")
    _save(path, _lora_weights(dict.fromkeys(names, (1536, 1536)), seed=8))


def write_ltx_av(path: Path) -> None:
    """LTX-2.3 of one layer, with its two VAEs."""
    shapes = _under("model.diffusion_model.", _shapes("tiny-ltx-av"))
    shapes |= _under("vae.", _shapes("ltx-video-vae"))
    write_thin(path, shapes | _ltx_audio_shapes(), comfyui_shapes.LTX_AV)


def write_ltx_audio_vae(path: Path) -> None:
    """The audio VAE of LTX-2, with its vocoder for 16 kHz."""
    write_thin(path, _ltx_audio_shapes(), comfyui_shapes.LTX_AV)


def write_module_lora(path: Path, module: str, model: str) -> None:
    """A LoRA for one linear layer of a diffusion model.

    Args:
        path: the file to make.
        module: the layer's name.
        model: the model's name among :func:`comfyui_shapes.all_shapes`.
    """
    shape = _shapes(model)[f"{module}.weight"]
    _save(path, _lora_weights({f"diffusion_model.{module}": shape}, seed=9))


def _write_model(path: Path, model: str, config: object) -> None:
    """A model by its name among all shapes, with its configuration in the metadata."""
    write_thin(path, _shapes(model), config)


def write_clip_l(path: Path) -> None:
    """CLIP-L as a text encoder of its own."""
    write_thin(path, placeholder.clip_l_shapes())


def write_taesd(path: Path, latent_channels: int) -> None:
    """TAESD as a VAE of its own, with 4 (SD) or 16 (SD 3, Flux) latent channels."""
    _save(path, placeholder.random_weights(placeholder.taesd_shapes(latent_channels), seed=2))


def write_taehv(path: Path) -> None:
    """TAEHV, the small VAE for Wan 2.1."""
    _save(path, placeholder.random_weights(_shapes("taehv"), seed=3))


def write_lora(path: Path, seed: int, *, clip: bool = True) -> None:
    """A LoRA in kohya's layout for the placeholder checkpoint's UNet, and its text encoder if asked for."""
    unet = "lora_unet_down_blocks_0_attentions_0_"
    layers = {
        f"{unet}proj_in": (320, 320, 1, 1),
        f"{unet}transformer_blocks_0_ff_net_2": (320, 1280),
    }
    for attention, width in (("attn1", 320), ("attn2", 768)):
        layers[f"{unet}transformer_blocks_0_{attention}_to_q"] = (320, 320)
        layers[f"{unet}transformer_blocks_0_{attention}_to_k"] = (320, width)
        layers[f"{unet}transformer_blocks_0_{attention}_to_v"] = (320, width)
    for layer in range(12) if clip else ():
        layers[f"lora_te_text_model_encoder_layers_{layer}_self_attn_q_proj"] = (768, 768)
        layers[f"lora_te_text_model_encoder_layers_{layer}_mlp_fc1"] = (3072, 768)
    _save(path, _lora_weights(layers, seed))


def write_sdxl_lora(path: Path) -> None:
    """A LoRA for the SDXL placeholder."""
    block = "lora_unet_input_blocks_4_1_transformer_blocks_0_"
    layers: Shapes = {f"{block}attn2_to_k": (320, 2048), f"{block}attn2_to_v": (320, 2048)}
    _save(path, _lora_weights(layers, seed=4))


def write_controlnet(path: Path, seed: int, *, union: bool = False) -> None:
    """A ControlNet that fits the placeholder checkpoint's UNet; it takes pixels.

    Args:
        path: the file to make.
        seed: of the weights.
        union: name the tensors that tell a union ControlNet; this one does the same for every type.
    """
    prefix = "model.diffusion_model."
    kept = tuple(prefix + part for part in ("time_embed.", "input_blocks.", "middle_block."))
    shapes: Shapes = {
        name.removeprefix(prefix): shape
        for name, shape in placeholder.checkpoint_shapes().items()
        if name.startswith(kept)
    }
    channels = (3, 16, 16, 32, 32, 96, 96, 256, 320)
    for index in range(8):
        shapes[f"input_hint_block.{2 * index}.weight"] = (
            channels[index + 1],
            channels[index],
            3,
            3,
        )
        shapes[f"input_hint_block.{2 * index}.bias"] = (channels[index + 1],)
    for name in (*(f"zero_convs.{index}.0" for index in range(4)), "middle_block_out.0"):
        shapes |= {f"{name}.weight": (320, 320, 1, 1), f"{name}.bias": (320,)}
    if union:
        shapes["task_embedding"] = (6, 320)
    _save(path, placeholder.random_weights(shapes, seed))


def write_embedding(path: Path) -> None:
    """A textual inversion of two tokens."""
    _save(path, placeholder.random_weights({"emb_params": (2, 768)}, seed=5))


def write_upscaler(path: Path) -> None:
    """An ESRGAN that doubles the size."""
    from spandrel.architectures.ESRGAN import ESRGAN

    model = ESRGAN(in_nc=3, out_nc=3, num_filters=1, num_blocks=1, scale=2)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    _save(path, placeholder.random_weights(shapes, seed=6))


WRITERS: dict[str, Callable[[Path], None]] = {
    f"checkpoints/{CHECKPOINT}": placeholder.write_checkpoint,
    f"checkpoints/{CHECKPOINT_INPAINT}": write_inpaint_checkpoint,
    f"checkpoints/{CHECKPOINT_SDXL}": write_sdxl_checkpoint,
    f"checkpoints/{CHECKPOINT_SD3}": write_sd3_checkpoint,
    f"loras/{LORA}": lambda path: write_lora(path, seed=10),
    f"loras/{LORA_B}": lambda path: write_lora(path, seed=11),
    f"loras/{LORA_MODEL_ONLY}": lambda path: write_lora(path, seed=12, clip=False),
    f"loras/{LORA_SDXL}": write_sdxl_lora,
    f"controlnet/{CONTROLNET}": lambda path: write_controlnet(path, seed=20),
    f"controlnet/{CONTROLNET_B}": lambda path: write_controlnet(path, seed=21),
    f"controlnet/{CONTROLNET_UNION}": lambda path: write_controlnet(path, seed=22, union=True),
    f"embeddings/{EMBEDDING}": write_embedding,
    f"upscale_models/{UPSCALER}": write_upscaler,
    f"diffusion_models/{FLUX}": write_flux,
    f"diffusion_models/{WAN}": write_wan,
    f"diffusion_models/{WAN_I2V}": lambda path: write_thin(path, _shapes("tiny-wan-i2v")),
    f"diffusion_models/{FLUX2}": lambda path: write_thin(path, _shapes("tiny-flux2")),
    f"loras/{LORA_WAN}": write_wan_lora,
    f"vae/{VAE_FLUX2}": lambda path: write_thin(path, _shapes("flux2-vae")),
    f"text_encoders/{CLIP_L}": write_clip_l,
    f"vae/{VAE_4}": lambda path: write_taesd(path, latent_channels=4),
    f"vae/{VAE_16}": lambda path: write_taesd(path, latent_channels=16),
    f"vae/{VAE_WAN}": write_taehv,
}
"""Each placeholder's file below the folder of models, and what makes it."""

# The tiny models of ComfyUI 0.33, each with its configuration where the tensors do not show it.
_CURRENT_MODELS: dict[str, tuple[str, Any]] = {
    f"diffusion_models/{LTX_AV}": ("tiny-ltx-av", comfyui_shapes.LTX_AV),
    f"vae/{LTX_VIDEO_VAE}": ("ltx-video-vae", comfyui_shapes.LTX_AV),
    f"latent_upscale_models/{LTX_UPSCALER}": ("latent-upscaler", comfyui_shapes.LATENT_UPSCALER),
    f"diffusion_models/{MINIMAX_H3}": ("tiny-minimax-h3", None),
    f"vae/{MINIMAX_VAE}": ("taehv-24", None),
    f"vae/{MINIMAX_AUDIO_VAE}": ("minimax-audio-vae", None),
    f"diffusion_models/{HUNYUAN_15}": ("tiny-hunyuan-video-1.5", None),
    f"vae/{HUNYUAN_VAE}": ("taehv-32", None),
    f"diffusion_models/{KREA2}": ("tiny-krea2", None),
    f"diffusion_models/{QWEN_IMAGE}": ("tiny-qwen-image", None),
    f"diffusion_models/{ANIMA}": ("tiny-anima", None),
}
_CURRENT_LORAS = {
    LORA_LTX: ("transformer_blocks.0.attn1.to_v", "tiny-ltx-av"),
    LORA_MINIMAX: ("blocks.0.attn.qkv_proj", "tiny-minimax-h3"),
    LORA_HUNYUAN: ("double_blocks.0.img_attn.qkv", "tiny-hunyuan-video-1.5"),
    LORA_KREA2: ("blocks.0.attn.wv", "tiny-krea2"),
    LORA_QWEN: ("transformer_blocks.0.attn.to_v", "tiny-qwen-image"),
    LORA_ANIMA: ("blocks.0.self_attn.v_proj", "tiny-anima"),
}
CURRENT_WRITERS: dict[str, Callable[[Path], None]] = {
    f"checkpoints/{LTX_AV}": write_ltx_av,
    f"vae/{LTX_AUDIO_VAE}": write_ltx_audio_vae,
    **{
        file: partial(_write_model, model=model, config=config)
        for file, (model, config) in _CURRENT_MODELS.items()
    },
    **{
        f"loras/{file}": partial(write_module_lora, module=module, model=model)
        for file, (module, model) in _CURRENT_LORAS.items()
    },
}
"""The same for the models that ComfyUI has from 0.33 on."""


def _has_current_models() -> bool:
    return (paths.comfyui_dir(os.environ) / "comfy" / "ldm" / "minimax").is_dir()


def _ltx_audio_shapes() -> Shapes:
    """The shapes of LTX-2's audio VAE, as a checkpoint names them."""
    return {
        name.replace("autoencoder.", "audio_vae.", 1): shape
        for name, shape in _shapes("ltx-audio-vae").items()
    }


def _shapes(model: str) -> Shapes:
    return comfyui_shapes.all_shapes(paths.comfyui_dir(os.environ))[model]


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def _lora_weights(layers: Shapes, seed: int) -> dict[str, Tensor]:
    """LoRA weights of rank 4 for layers of these shapes (out, in, ...)."""
    import torch

    shapes: Shapes = {}
    for name, (channels_out, channels_in, *kernel) in layers.items():
        shapes[f"{name}.lora_down.weight"] = (4, channels_in, *kernel)
        shapes[f"{name}.lora_up.weight"] = (channels_out, 4, *kernel)
    alphas = {f"{name}.alpha": torch.tensor(4.0) for name in layers}
    return placeholder.random_weights(shapes, seed) | alphas


def _save(path: Path, weights: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(weights, path)


def write_thin(path: Path, shapes: Shapes, config: object = None) -> None:
    """Write weights drawn as ``placeholder.random_weights`` does, for large tensors one block in 16.

    Args:
        path: the file to make.
        shapes: the shape of each tensor, by name.
        config: as for :func:`write_sparse`.
    """
    import numpy as np

    block, stride = 2048, 16
    bank = np.random.default_rng(7).standard_normal(1 << 21).astype(np.float16)
    starts = write_sparse(path, shapes, config)
    small = {
        name: shape for name, shape in shapes.items() if prod(shape) <= 1 << 17 or "token" in name
    }
    with path.open("r+b") as file:
        for name, weight in placeholder.random_weights(small, seed=7).items():
            # A VAE multiplies its latents by their spread; 0 would make them all alike.
            spread = weight + 1 if name.endswith(SPREADS) else weight
            file.seek(starts[name])
            file.write(spread.numpy().tobytes())
        for number, (name, shape) in enumerate(shapes.items()):
            if name in small:
                continue
            scale = np.float16((stride / prod(shape[1:])) ** 0.5)
            for first in range(0, prod(shape), block * stride):
                at = (first + number * block) % (len(bank) - block)
                file.seek(starts[name] + 2 * first)
                file.write((bank[at : at + min(block, prod(shape) - first)] * scale).tobytes())
