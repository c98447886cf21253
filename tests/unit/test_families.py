from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from comfy_worker.errors import InvalidValue
from comfy_worker.models.detect import (
    FAMILIES,
    ModelInfo,
    ModelType,
    compatible,
    family_of_header,
    identify,
)
from comfy_worker.models.safetensors import read_header


def kind_of(**shapes: list[int]) -> ModelInfo:
    return family_of_header(
        {name: {"dtype": "F16", "shape": shape} for name, shape in shapes.items()}
    )


def lora(
    module: str, width: int, down: str = "lora_down.weight", up: str = "lora_up.weight"
) -> ModelInfo:
    return kind_of(
        **{f"{module}.{down}": [4, width], f"{module}.{up}": [width, 4], f"{module}.alpha": []}
    )


UNET = "model.diffusion_model."
BASE_MODELS: list[tuple[str | None, dict[str, list[int]]]] = [
    (
        "sd15",
        {
            "input_blocks.0.0.weight": [320, 4, 3, 3],
            "input_blocks.1.1.attn2.to_k.weight": [320, 768],
        },
    ),
    (
        "sd2",
        {
            "input_blocks.0.0.weight": [320, 4, 3, 3],
            "input_blocks.1.1.attn2.to_k.weight": [320, 1024],
        },
    ),
    (
        "sdxl",
        {
            "input_blocks.0.0.weight": [320, 4, 3, 3],
            "input_blocks.4.1.attn2.to_k.weight": [640, 2048],
        },
    ),
    (
        "sdxl-refiner",
        {"input_blocks.0.0.weight": [384, 4, 3, 3], "a.attn2.to_k.weight": [768, 1280]},
    ),
    (
        "svd",
        {
            "input_blocks.0.0.weight": [320, 8, 3, 3],
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, 1024],
            "input_blocks.1.1.time_stack.0.attn2.to_k.weight": [320, 1024],
        },
    ),
    (
        None,
        {
            "input_blocks.0.0.weight": [320, 4, 3, 3],
            "input_blocks.1.1.attn2.to_k.weight": [320, 640],
        },
    ),
    (
        "sdxl",
        {
            "down_blocks.0.resnets.0.conv1.weight": [320, 320, 3, 3],
            "down_blocks.1.attn2.to_k.weight": [640, 2048],
        },
    ),
    (
        "sd3-medium",
        {
            "joint_blocks.0.context_block.attn.qkv.weight": [4608, 1536],
            "x_embedder.proj.weight": [1536, 16, 2, 2],
        },
    ),
    (
        "sd35-large",
        {
            "joint_blocks.0.context_block.attn.qkv.weight": [7296, 2432],
            "x_embedder.proj.weight": [2432, 16, 2, 2],
        },
    ),
    (
        "sd35-large",
        {
            "transformer_blocks.0.attn.add_q_proj.weight": [2432, 2432],
            "pos_embed.proj.weight": [2432, 16, 2, 2],
        },
    ),
    (
        "flux",
        {"double_blocks.0.img_attn.norm.key_norm.scale": [128], "img_in.weight": [3072, 64]},
    ),
    (  # as ComfyUI 0.33 saves it
        "flux",
        {"double_blocks.0.img_attn.norm.key_norm.weight": [128], "img_in.weight": [3072, 64]},
    ),
    (
        "flux",
        {
            "single_transformer_blocks.0.attn.to_q.weight": [3072, 3072],
            "transformer_blocks.0.attn.add_q_proj.weight": [3072, 3072],
            "x_embedder.weight": [3072, 64],
        },
    ),
    (
        "chroma",
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": [128],
            "img_in.weight": [3072, 64],
            "distilled_guidance_layer.norms.0.scale": [5120],
        },
    ),
    (
        "flux2",
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": [128],
            "img_in.weight": [6144, 128],
            "double_stream_modulation_img.lin.weight": [36864, 6144],
        },
    ),
    (
        "flux2-klein-4b",  # as wide as Flux
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": [128],
            "img_in.weight": [3072, 128],
            "double_stream_modulation_img.lin.weight": [18432, 3072],
        },
    ),
    (
        "hunyuan-video",
        {
            "txt_in.individual_token_refiner.blocks.0.norm1.weight": [3072],
            "img_in.proj.weight": [3072, 16, 1, 2, 2],
        },
    ),
    (
        "hunyuan-video-1.5",
        {
            "txt_in.individual_token_refiner.blocks.0.norm1.weight": [2048],
            "img_in.proj.weight": [2048, 65, 1, 1, 1],
        },
    ),
    (
        "hunyuan-image",
        {
            "txt_in.individual_token_refiner.blocks.0.norm1.weight": [3584],
            "img_in.proj.weight": [3584, 64, 1, 1],
        },
    ),
    ("qwen-image", {"txt_norm.weight": [3584], "img_in.weight": [3072, 64]}),
    ("lumina2", {"cap_embedder.1.weight": [2304, 2304]}),
    ("z-image", {"cap_embedder.1.weight": [3840, 2560]}),
    ("wan-14b", {"head.modulation": [1, 2, 5120], "patch_embedding.weight": [5120, 16, 1, 2, 2]}),
    (
        "wan21-1.3b",
        {"head.modulation": [1, 2, 1536], "patch_embedding.weight": [1536, 16, 1, 2, 2]},
    ),
    ("wan22-5b", {"head.modulation": [1, 2, 3072], "patch_embedding.weight": [3072, 48, 1, 2, 2]}),
    (
        "ltxv",
        {
            "adaln_single.emb.timestep_embedder.linear_1.bias": [2048],
            "transformer_blocks.0.attn1.to_q.weight": [2048, 2048],
        },
    ),
    (
        "pixart",
        {"adaln_single.emb.timestep_embedder.linear_1.bias": [1152], "pos_embed.proj.bias": [1152]},
    ),
    ("pixart", {"t_block.1.weight": [6912, 1152]}),
    ("hidream", {"caption_projection.0.linear.weight": [2560, 4096]}),
    ("auraflow", {"double_layers.0.attn.w1q.weight": [3072, 3072]}),
    ("hunyuan-dit", {"mlp_t5.0.weight": [8192, 2048]}),
    ("mochi", {"t5_yproj.weight": [1536, 4096]}),
    ("cosmos-predict2", {"blocks.0.mlp.layer1.weight": [8192, 2048]}),
    ("omnigen2", {"time_caption_embed.timestep_embedder.linear_1.bias": [1024]}),
]


@pytest.mark.parametrize("prefix", ["", UNET])
@pytest.mark.parametrize(("family", "shapes"), BASE_MODELS)
def test_a_base_model_is_told_by_its_tensors(
    prefix: str, family: str | None, shapes: dict[str, list[int]]
) -> None:
    found = kind_of(**{prefix + name: shape for name, shape in shapes.items()})
    assert found == ModelInfo("diffusion_model", FAMILIES[family] if family else None)


@pytest.mark.parametrize(
    "beside", ["first_stage_model.encoder.conv_in.weight", "text_encoders.t5xxl.logit_scale"]
)
def test_a_model_with_other_parts_is_a_checkpoint(beside: str) -> None:
    found = kind_of(
        **{f"{UNET}txt_norm.weight": [3584], f"{UNET}img_in.weight": [3072, 64], beside: [1]}
    )
    assert found == ModelInfo("checkpoint", FAMILIES["qwen-image"])


@pytest.mark.parametrize(("channels", "inpaint"), [(4, False), (8, False), (9, True)])
def test_a_unet_of_nine_channels_is_for_inpainting(channels: int, inpaint: bool) -> None:
    found = kind_of(
        **{
            "input_blocks.0.0.weight": [320, channels, 3, 3],
            "input_blocks.1.1.attn2.to_k.weight": [320, 768],
        }
    )
    assert found.inpaint is inpaint


@pytest.mark.parametrize(("channels", "inpaint"), [(64, False), (128, False), (384, True)])
def test_flux_fill_is_for_inpainting(channels: int, inpaint: bool) -> None:
    found = kind_of(
        **{"double_blocks.0.img_attn.norm.key_norm.scale": [128], "img_in.weight": [3072, channels]}
    )
    assert found == ModelInfo("diffusion_model", FAMILIES["flux"], inpaint=inpaint)


LORAS: list[tuple[str | None, str, int]] = [
    ("sd15", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768),
    ("sd15", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_v", 768),
    ("sd15", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 768),
    ("sd15", "lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768),
    ("sd2", "lora_te_text_model_encoder_layers_0_self_attn_q_proj", 1024),
    ("sd2", "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 1024),
    ("sdxl", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048),
    ("sdxl", "unet.base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 2048),
    ("sdxl", "lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q", 1280),
    ("sdxl-refiner", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 1280),
    (None, "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 640),
    (None, "lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 768),
    ("flux", "lora_unet_double_blocks_18_img_attn_qkv", 3072),
    ("flux", "lora_unet_single_blocks_37_linear1", 3072),
    ("flux", "diffusion_model.double_blocks.0.img_mod.lin", 3072),
    ("flux", "transformer.single_transformer_blocks.37.attn.to_q", 3072),
    ("flux", "lora_transformer_single_transformer_blocks_30_proj_mlp", 3072),
    ("flux", "lycoris_single_transformer_blocks_30_attn_to_k", 3072),
    ("flux2", "diffusion_model.single_blocks.3.linear1", 6144),
    (None, "diffusion_model.double_blocks.4.img_attn.qkv", 3072),  # Flux, or the small Flux 2
    ("chroma", "diffusion_model.distilled_guidance_layer.layers.0.in_layer", 5120),
    ("hunyuan-video", "lora_unet_single_blocks_39_linear1", 3072),
    ("hunyuan-video", "transformer.double_blocks.0.img_mlp.fc1", 3072),
    ("hunyuan-video-1.5", "lora_unet_double_blocks_0_img_mlp_fc1", 2048),
    ("sd3-medium", "transformer.transformer_blocks.0.attn.to_q", 1536),
    ("sd35-large", "transformer.transformer_blocks.37.attn.add_k_proj", 2432),
    ("sd35-large", "lora_unet_joint_blocks_0_x_block_attn_qkv", 2432),
    ("sd35-large", "base_model.model.transformer_blocks.0.attn.to_v", 2432),
    ("qwen-image", "transformer_blocks.59.attn.to_q", 3072),
    ("qwen-image", "transformer.transformer_blocks.0.img_mlp.net.0.proj", 3072),
    ("qwen-image", "lora_unet_transformer_blocks_0_txt_mod_1", 3072),
    ("z-image", "diffusion_model.layers.0.attention.to_q", 3840),
    ("lumina2", "diffusion_model.layers.0.attention.qkv", 2304),
    ("wan-14b", "diffusion_model.blocks.0.self_attn.q", 5120),
    ("wan-14b", "lora_unet_blocks_0_cross_attn_k", 5120),
    ("wan-14b", "lora_unet__blocks_0_cross_attn_k", 5120),
    ("wan21-1.3b", "diffusion_model.blocks.0.ffn.0", 1536),
    ("wan22-5b", "transformer.blocks.0.attn1.to_q", 3072),
    (None, "diffusion_model.blocks.0.self_attn.q_proj", 5120),  # Cosmos
    ("ltxv", "transformer.transformer_blocks.0.attn1.to_q", 2048),
    ("pixart", "transformer.transformer_blocks.0.attn2.to_k", 1152),
    ("auraflow", "transformer.joint_transformer_blocks.0.attn.to_q", 3072),
    ("hidream", "transformer.double_stream_blocks.0.block.attn1.to_q", 2560),
]


@pytest.mark.parametrize(("family", "module", "width"), LORAS)
def test_a_lora_is_told_by_its_modules(family: str | None, module: str, width: int) -> None:
    assert lora(module, width) == ModelInfo("lora", FAMILIES[family] if family else None)


ATTN2 = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    "parts",
    [
        {f"{ATTN2}.lora_down.weight": [8, 2048], f"{ATTN2}.lora_up.weight": [640, 8]},
        {f"{ATTN2}.lora_A.weight": [8, 2048], f"{ATTN2}.lora_B.weight": [640, 8]},
        {f"{ATTN2}.lora_A.default.weight": [8, 2048]},
        {f"{ATTN2}.lora.down.weight": [8, 2048], f"{ATTN2}.lora.up.weight": [640, 8]},
        {f"{ATTN2}_lora.down.weight": [8, 2048], f"{ATTN2}_lora.up.weight": [640, 8]},
        {f"{ATTN2}.lora_linear_layer.down.weight": [8, 2048]},
        {
            f"{ATTN2}.hada_w1_a": [640, 8],
            f"{ATTN2}.hada_w1_b": [8, 2048],
            f"{ATTN2}.hada_w2_b": [8, 2048],
        },
        {f"{ATTN2}.lokr_w1": [16, 32], f"{ATTN2}.lokr_w2": [40, 64]},
        {
            f"{ATTN2}.lokr_w1": [16, 32],
            f"{ATTN2}.lokr_w2_a": [40, 8],
            f"{ATTN2}.lokr_w2_b": [8, 64],
        },
        {f"{ATTN2}.diff": [640, 2048]},
    ],
)
def test_every_layout_of_a_lora_gives_its_width(parts: dict[str, list[int]]) -> None:
    assert kind_of(**parts) == ModelInfo("lora", FAMILIES["sdxl"])


def test_an_xlabs_lora_is_for_flux() -> None:
    found = kind_of(**{"double_blocks.18.processor.qkv_lora1.down.weight": [16, 3072]})
    assert found == ModelInfo("lora", FAMILIES["flux"])


def test_a_lora_without_widths_has_no_family() -> None:
    assert kind_of(**{f"{ATTN2}.oft_blocks": [4, 160, 160]}) == ModelInfo("lora")


CONTROLNETS: list[tuple[ModelInfo, dict[str, list[int]]]] = [
    (
        ModelInfo("controlnet", FAMILIES["sd15"]),
        {
            "control_model.zero_convs.0.0.weight": [320, 320, 1, 1],
            "control_model.a.attn2.to_k.weight": [320, 768],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["sd2"]),
        {
            "controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3],
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": [320, 1024],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["sdxl"], union=True),
        {
            "controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3],
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": [640, 2048],
            "task_embedding": [6, 320],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["sdxl"]),  # the small one, without attention
        {
            "controlnet_cond_embedding.conv_in.weight": [16, 3, 3, 3],
            "add_embedding.linear_1.weight": [1280, 2816],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["sdxl"]),  # a control LoRA
        {
            "lora_controlnet": [],
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": [128, 2048],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["flux"], union=True),
        {
            "controlnet_blocks.0.weight": [3072, 3072],
            "controlnet_x_embedder.weight": [3072, 64],
            "controlnet_mode_embedder.weight": [10, 3072],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["flux"]),  # XLabs
        {
            "controlnet_blocks.0.weight": [3072, 3072],
            "double_blocks.0.img_attn.norm.key_norm.scale": [128],
            "img_in.weight": [3072, 64],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["flux"]),  # MistoLine
        {"controlnet_blocks.0.linear.weight": [3072, 3072], "img_in.weight": [3072, 64]},
    ),
    (
        ModelInfo("controlnet", FAMILIES["sd35-large"]),
        {
            "controlnet_blocks.0.weight": [2432, 2432],
            "pos_embed_input.proj.weight": [2432, 16, 2, 2],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["sd3-medium"], inpaint=True),
        {
            "controlnet_blocks.0.weight": [1536, 1536],
            "pos_embed_input.proj.weight": [1536, 17, 2, 2],
        },
    ),
    (
        ModelInfo("controlnet", FAMILIES["qwen-image"], inpaint=True),
        {
            "controlnet_blocks.0.weight": [3072, 3072],
            "transformer_blocks.0.img_mlp.net.0.proj.weight": [12288, 3072],
            "controlnet_x_embedder.weight": [3072, 68],
        },
    ),
    (ModelInfo("controlnet", FAMILIES["hunyuan-dit"]), {"after_proj_list.18.bias": [1408]}),
    (
        ModelInfo("controlnet", FAMILIES["sd15"]),  # T2I-Adapter
        {"body.0.block1.weight": [320, 320, 3, 3], "conv_in.weight": [320, 192, 3, 3]},
    ),
    (
        ModelInfo("controlnet", FAMILIES["sdxl"]),
        {
            "adapter.body.0.resnets.0.block1.weight": [320, 320, 3, 3],
            "adapter.conv_in.weight": [320, 768, 3, 3],
        },
    ),
]


@pytest.mark.parametrize(("info", "shapes"), CONTROLNETS)
def test_a_controlnet_is_told_by_its_tensors(info: ModelInfo, shapes: dict[str, list[int]]) -> None:
    assert kind_of(**shapes) == info


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("text_encoder", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("text_encoder", "encoder.block.0.layer.0.SelfAttention.k.weight"),
        ("text_encoder", "model.layers.0.self_attn.k_proj.weight"),
        ("vae", "decoder.conv_in.weight"),
        ("vae", "taesd_decoder.1.weight"),
        ("vae", "decoder.middle.0.residual.0.gamma"),
        ("unknown", "emb_params"),
    ],
)
def test_other_files_are_told_by_kind_only(model_type: ModelType, name: str) -> None:
    assert kind_of(**{name: [1, 1]}) == ModelInfo(model_type)


def test_a_packed_tensor_gives_no_width() -> None:
    found = kind_of(
        **{
            "input_blocks.0.0.weight": [320, 4, 3, 3],
            "input_blocks.1.1.attn2.to_k.weight": [122880],
        }
    )
    assert found == ModelInfo("diffusion_model")


def test_a_file_without_tensors_is_unknown() -> None:
    assert kind_of() == ModelInfo("unknown")


@pytest.mark.parametrize(
    ("base", "addon", "fits"),
    [
        ("sd15", "sd15", True),
        ("sd15", "sdxl", False),
        ("sdxl", "sdxl-refiner", False),
        ("chroma", "flux", True),
        ("flux2", "flux", False),
        ("sd15", None, None),
        (None, "sd15", None),
    ],
)
def test_add_ons_fit_their_own_family(
    base: str | None, addon: str | None, fits: bool | None
) -> None:
    assert compatible(base and FAMILIES[base], addon and FAMILIES[addon]) is fits  # type: ignore[arg-type]


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


EMBEDDING = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}


def test_a_header_is_read_without_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "x": EMBEDDING}, bytes(8)))
    assert read_header(path) == {"x": EMBEDDING}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a safetensors file but empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "not a safetensors file but a web page"),
        (b"PK\x03\x04" + bytes(50), "not a safetensors file but a zip archive"),
        (b"\x80\x02}q\x00." + bytes(50), "not a safetensors file but a pickle"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "not a safetensors file but a Git LFS pointer",
        ),
        (struct.pack("<Q", 1 << 40) + b"{" + bytes(50), "not a safetensors file"),
        (struct.pack("<Q", 500) + b'{"x": ', "cut short in its header"),
        (safetensors({"x": EMBEDDING}, bytes(7)), "cut short: "),
        (safetensors({"x": EMBEDDING}, bytes(9)), "longer than its header says: "),
        (struct.pack("<Q", 3) + b"{{{", "damaged safetensors header"),
        (safetensors({"x": {"dtype": "F16"}}), "damaged safetensors header"),
        (
            safetensors({"x": {"data_offsets": [0, 8], "shape": [2, "2"]}}),
            "damaged safetensors header",
        ),
    ],
)
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=words) as caught:
        identify(path)
    assert caught.value.sentence.startswith("model.safetensors ")


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt"])
def test_other_formats_are_unknown_and_not_opened(tmp_path: Path, name: str) -> None:
    assert identify(tmp_path / name) == ModelInfo("unknown")


def test_only_changed_files_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    vae = safetensors({"decoder.conv_in.weight": EMBEDDING}, bytes(8))
    path.write_bytes(vae)
    assert identify(path) == ModelInfo("vae")
    state = path.stat()
    path.write_bytes(bytes(len(vae)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert identify(path) == ModelInfo("vae")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(InvalidValue):
        identify(path)


def test_an_unreadable_file_is_named_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.mkdir()  # a mode would not keep root out
    with pytest.raises(
        InvalidValue, match=r"a\.safetensors cannot be read \(Is a directory\)"
    ) as caught:
        identify(path)
    assert str(path) in caught.value.sentence
