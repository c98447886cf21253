"""The families of ComfyUI 0.33, from the tensors that its own classes have."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from comfy_worker.errors import InvalidValue
from comfy_worker.models.detect import FAMILIES, ModelInfo, compatible, family_of_header, identify
from tests.current_architectures import SHAPES_FILE

ARCHITECTURES: dict[str, dict[str, Any]] = json.loads(SHAPES_FILE.read_text())

# By the name of the architecture: the family, what ComfyUI's own detection says, and the family of
# a LoRA that changes every linear layer.
EXPECTED: dict[str, tuple[str, str, str | None]] = {
    "flux2": ("flux2", "flux2", "flux2"),
    "flux2-klein-4b": ("flux2-klein-4b", "flux2", "flux2-klein-4b"),
    "flux2-klein-9b": ("flux2-klein-9b", "flux2", "flux2-klein-9b"),
    "krea2": ("krea2", "krea2", "krea2"),
    "qwen-image": ("qwen-image", "qwen_image", "qwen-image"),
    "qwen-image-layered": ("qwen-image-layered", "qwen_image", "qwen-image"),
    "ltx-2": ("ltx-2", "ltxav", "ltx-2"),
    "ltx-2.3": ("ltx-2", "ltxav", "ltx-2"),
    "ltxv": ("ltxv", "ltxv", "ltxv"),
    "ltxv-13b": ("ltxv-13b", "ltxv", None),  # its modules are also those of LTX-2
    "minimax-h3": ("minimax-h3", "minimax_h3", "minimax-h3"),
    "wan-14b-t2v": ("wan-14b", "wan2.1", "wan-14b"),
    "wan-14b-i2v": ("wan-14b", "wan2.1", "wan-14b"),
    "wan22-5b": ("wan22-5b", "wan2.1", "wan22-5b"),
    "hunyuan-video-1.5": ("hunyuan-video-1.5", "hunyuan_video", "hunyuan-video-1.5"),
    "anima": ("anima", "anima", "anima"),
    "cosmos-predict2": ("cosmos-predict2", "cosmos_predict2", "anima"),  # they share LoRAs
    "seedvr2-7b": ("seedvr2-7b", "seedvr2", None),
    "seedvr2-7b-shared": ("seedvr2-7b", "seedvr2", None),
    "seedvr2-3b": ("seedvr2-3b", "seedvr2", None),
    "minimax-music-3": ("minimax-music-3", "minimax_music3", None),
    "ace-step-1.5": ("ace-step-1.5", "ace1.5", "ace-step-1.5"),
    "ace-step-1.5-xl": ("ace-step-1.5-xl", "ace1.5", "ace-step-1.5-xl"),
}


def header_of(shapes: dict[str, list[int]], dtype: str = "BF16") -> dict[str, dict[str, Any]]:
    return {name: {"dtype": dtype, "shape": shape} for name, shape in shapes.items()}


# ComfyUI 0.33 does not know this architecture. The names are those of its published files.
QWEN_IMAGE_21 = {
    "img_in.weight": [4096, 64],
    "txt_in.text_norm.weight": [4096],
    "txt_in.in_layer.weight": [4096, 4096],
    "modulation.1.weight": [16384, 4096],
    "transformer_blocks.0.attn.to_q.weight": [4096, 4096],
    "transformer_blocks.0.img_mlp.gate_up.weight": [24576, 4096],
    "proj_out.weight": [64, 4096],
}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_qwen_image_21_is_a_family(prefix: str) -> None:
    shapes = {prefix + name: shape for name, shape in QWEN_IMAGE_21.items()}
    found = family_of_header(header_of(shapes))
    assert found == ModelInfo("diffusion_model", FAMILIES["qwen-image-2.1"])
    assert compatible(found.family, FAMILIES["qwen-image"]) is False


@pytest.mark.parametrize("module", ["gate_up", "gate_layer", "proj"])
def test_loras_of_qwen_image_21_are_known(module: str) -> None:
    name = f"diffusion_model.transformer_blocks.0.img_mlp.{module}"
    shapes = {f"{name}.lora_A.weight": [16, 4096], f"{name}.lora_B.weight": [24576, 16]}
    found = family_of_header(header_of(shapes))
    assert found == ModelInfo("lora", FAMILIES["qwen-image-2.1"])


def test_each_architecture_is_expected() -> None:
    assert EXPECTED.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "net."])
@pytest.mark.parametrize("name", EXPECTED)
def test_architectures_give_their_family(name: str, prefix: str) -> None:
    family, detected, _ = EXPECTED[name]
    shapes = ARCHITECTURES[name]["shapes"]
    found = family_of_header(header_of({prefix + key: shape for key, shape in shapes.items()}))
    assert found == ModelInfo("diffusion_model", FAMILIES[family])
    assert ARCHITECTURES[name]["detected"] == detected


@pytest.mark.parametrize("form", ["diffusion_model.{}", "lora_unet_{}", "transformer.{}"])
@pytest.mark.parametrize("name", EXPECTED)
def test_loras_of_architectures_give_their_family(name: str, form: str) -> None:
    base, _, expected = EXPECTED[name]
    shapes: dict[str, list[int]] = {}
    for tensor, shape in ARCHITECTURES[name]["shapes"].items():
        module = tensor.removesuffix(".weight")
        if module == tensor or len(shape) != 2:
            continue
        if form.startswith("lora_unet"):
            module = module.replace(".", "_")
        shapes[f"{form.format(module)}.lora_A.weight"] = [16, shape[1]]
        shapes[f"{form.format(module)}.lora_B.weight"] = [shape[0], 16]
    found = family_of_header(header_of(shapes))
    assert found == ModelInfo("lora", FAMILIES[expected] if expected else None)
    assert compatible(FAMILIES[base], found.family) in (True, None)


# As diffusers and the trainers name them: module, input width, output width.
LORA_MODULES: list[tuple[str | None, str, int, int]] = [
    ("flux", "lora_unet_single_blocks_3_linear1", 3072, 21504),
    ("flux2-klein-4b", "lora_unet_single_blocks_3_linear1", 3072, 27648),
    ("flux2-klein-4b", "diffusion_model.double_blocks.0.img_mlp.0", 3072, 18432),
    ("flux2", "transformer.single_transformer_blocks.3.attn.to_qkv_mlp_proj", 6144, 55296),
    (
        "flux2-klein-9b",
        "transformer.single_transformer_blocks.3.attn.to_qkv_mlp_proj",
        4096,
        36864,
    ),
    ("flux2", "transformer.transformer_blocks.0.attn.add_k_proj", 6144, 6144),
    ("flux2-klein-9b", "transformer.transformer_blocks.0.attn.add_q_proj", 4096, 4096),
    (None, "diffusion_model.double_blocks.0.img_attn.qkv", 3072, 9216),
    ("krea2", "transformer.transformer_blocks.0.attn.to_k", 6144, 1536),
    ("krea2", "diffusion_model.blocks.0.attn.wq", 6144, 6144),
    ("krea2", "lora_unet_txtfusion_refiner_blocks_0_attn_wq", 2560, 2560),
    ("ltx-2", "diffusion_model.transformer_blocks.0.audio_attn1.to_q", 2048, 2048),
    ("ltx-2", "transformer.transformer_blocks.0.attn1.to_gate_logits", 4096, 32),
    ("minimax-h3", "diffusion_model.blocks.7.attn.qkv_proj", 5376, 21504),
    ("anima", "lora_unet_blocks_0_self_attn_q_proj", 2048, 2048),
    ("anima", "net.blocks.0.cross_attn.q_proj", 2048, 2048),
    ("ace-step-1.5", "base_model.model.layers.0.cross_attn.q_proj", 2048, 2048),
    ("ace-step", "transformer_blocks.0.cross_attn.to_q", 2560, 2560),
    ("qwen-image", "lora_unet_transformer_blocks_0_img_mod_1", 3072, 18432),
    ("hunyuan-video-1.5", "diffusion_model.double_blocks.0.img_attn_qkv", 2048, 6144),
    (None, "text_encoders.gemma3_12b.transformer.model.layers.0.self_attn.q_proj", 3840, 4096),
]


@pytest.mark.parametrize(("family", "module", "width_in", "width_out"), LORA_MODULES)
def test_loras_give_their_family(
    family: str | None, module: str, width_in: int, width_out: int
) -> None:
    shapes = {f"{module}.lora_A.weight": [8, width_in], f"{module}.lora_B.weight": [width_out, 8]}
    expected = ModelInfo("lora", FAMILIES[family] if family else None)
    assert family_of_header(header_of(shapes)) == expected


@pytest.mark.parametrize(
    ("family", "shapes"),
    [
        ("z-image", {"control_all_x_embedder.2-1.weight": [3840, 132]}),
        ("qwen-image", {"controlnet_blocks.0.y_rms.weight": [3072], "img_in.weight": [3072, 64]}),
        ("flux", {"feature_embedder.mid_layer_norm.bias": [1152]}),
        ("anima", {"lllite_conditioning1.conv1.weight": [64, 3, 4, 4]}),
        (
            "wan-14b",
            {
                "controlnet_patch_embedding.weight": [1024, 36, 1, 2, 2],
                "controlnet_blocks.0.ffn.0.bias": [8192],
                "proj_out.0.weight": [5120, 1024],
            },
        ),
        (
            "wan-14b",
            {
                "audio_proj.proj1.weight": [512, 46080],
                "blocks.0.audio_cross_attn.proj.weight": [5120, 5120],
            },
        ),
        ("ltx-2", {"duration_head.attention_pooler.query_tokens": [1, 1, 512]}),
    ],
)
def test_model_patches_give_their_family(family: str, shapes: dict[str, list[int]]) -> None:
    assert family_of_header(header_of(shapes)) == ModelInfo("model_patch", FAMILIES[family])


def test_qwen_union_controlnet_is_found() -> None:
    shapes = {"control_blocks.0.after_proj.weight": [3072, 3072], "control_img_in.weight": [1, 132]}
    assert family_of_header(header_of(shapes)) == ModelInfo("controlnet", FAMILIES["qwen-image"])


def test_qwen_edit_2511_is_told_by_its_mark() -> None:
    shapes = {**ARCHITECTURES["qwen-image"]["shapes"], "__index_timestep_zero__": [0]}
    found = family_of_header(header_of(shapes))
    assert found.family == FAMILIES["qwen-image-edit"]
    assert compatible(found.family, FAMILIES["qwen-image"])


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        end = len(data) + len(content)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), end]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def layer(dtype: str, width_bytes: int = 8, **beside: bytes) -> dict[str, Any]:
    """A layer of 4 numbers of 8 bytes each, with what a format stores beside it."""
    tensors = {"blocks.0.attn.wq.weight": (dtype, [4, width_bytes], bytes(4 * width_bytes))}
    for name, content in beside.items():
        tensors[f"blocks.0.attn.wq.{name}"] = ("U8", [len(content)], content)
    return tensors


CONVROT = json.dumps({"format": "int8_tensorwise", "convrot": True}).encode()


@pytest.mark.parametrize(
    ("precision", "tensors"),
    [
        ("bf16", layer("BF16")),
        ("fp8", layer("F8_E4M3")),
        ("fp8_scaled", layer("F8_E4M3", scale_weight=bytes(4))),
        ("fp8_scaled", layer("F8_E4M3", comfy_quant=b'{"format": "float8_e4m3fn"}')),
        ("int8", layer("I8", weight_scale=bytes(4))),
        ("int8_convrot", layer("I8", weight_scale=bytes(4), comfy_quant=CONVROT)),
        ("nvfp4", layer("U8", weight_scale=bytes(4), weight_scale_2=bytes(4))),
        ("int8", layer("I8", comfy_quant=b"not JSON")),
    ],
)
def test_quantised_files_are_whole_and_named(
    tmp_path: Path, precision: str, tensors: dict[str, Any]
) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors)
    assert identify(path).precision == precision
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidValue, match="is cut short"):
        identify(path)


def test_a_packed_layer_counts_with_its_real_width() -> None:
    module = "input_blocks.1.1.attn2.to_k.weight"
    header = {
        "input_blocks.0.0.weight": {"dtype": "F16", "shape": [320, 4, 3, 3]},
        module: {"dtype": "U8", "shape": [320, 384]},
        f"{module}_scale_2": {"dtype": "F32", "shape": []},
    }
    assert family_of_header(header).family == FAMILIES["sd15"]


def gguf(tensors: dict[str, tuple[int, list[int]]], data: bytes, **metadata: object) -> bytes:
    """A GGUF file: tensors by name, with GGML's type number and the shape in PyTorch's order."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for name, value in metadata.items():
        parts.append(text(name.replace("__", ".")))
        if isinstance(value, str):
            parts += [struct.pack("<I", 8), text(value)]
        else:
            assert isinstance(value, list)
            parts.append(struct.pack("<IIQ", 9, 5, len(value)))
            parts += [struct.pack("<i", entry) for entry in value]
    for name, (dtype, shape) in tensors.items():
        parts += [text(name), struct.pack("<I", len(shape))]
        parts += [struct.pack("<Q", length) for length in reversed(shape)]
        parts.append(struct.pack("<IQ", dtype, 0))
    header = b"".join(parts)
    return header + bytes(-len(header) % 32) + data


Q8_0 = 8
PATCH = "patch_embedding.weight"
WAN_TENSORS = {"head.modulation": (0, [1, 2, 5120]), PATCH: (Q8_0, [5120, 64])}
WAN_BYTES = 5120 * 64 // 32 * 34


def test_a_gguf_file_gives_its_family(tmp_path: Path) -> None:
    path = tmp_path / "wan.gguf"
    metadata = {"general__architecture": "wan", "comfy__gguf__orig_shape__x": [1, 2]}
    path.write_bytes(gguf(WAN_TENSORS, bytes(WAN_BYTES), **metadata))
    assert identify(path) == ModelInfo("diffusion_model", FAMILIES["wan-14b"])
    assert identify(path).precision == "gguf"


def test_a_text_encoder_in_gguf_is_one(tmp_path: Path) -> None:
    path = tmp_path / "t5.gguf"
    path.write_bytes(gguf({"enc.blk.0.attn_k.weight": (0, [4, 4])}, bytes(64)))
    assert identify(path) == ModelInfo("text_encoder")


WHOLE_GGUF = gguf(WAN_TENSORS, bytes(WAN_BYTES))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WHOLE_GGUF[:-1], "is cut short: "),
        (WHOLE_GGUF[:40], "is cut short in its header"),
        (b"<html>sign in</html>", "is not a GGUF file but a web page"),
        (b"", "is not a GGUF file but empty"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "has a damaged GGUF header"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"x" + struct.pack("<I", 77),
            "has a damaged GGUF header",
        ),
    ],
)
def test_a_damaged_gguf_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=words):
        identify(path)


def test_an_unknown_gguf_version_is_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 9) + bytes(50))
    assert identify(path) == ModelInfo("unknown")


def test_a_header_with_huge_numbers_is_read_soon(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    shape = [(1 << 62) + 1] * 150_000
    write_safetensors(path, {"x.lora_A.weight": ("F16", shape, b"")})
    assert identify(path) == ModelInfo("lora")


@pytest.mark.parametrize(
    "array",
    [
        struct.pack("<IQ", 9, 1_000_000) + struct.pack("<IQ", 8, 0) * 1_000_000,  # of empty arrays
        struct.pack("<IQ", 8, 400_000) + struct.pack("<Q", 0) * 400_000,  # of empty texts
        struct.pack("<IQ", 8, 5_000_001),
        struct.pack("<IQ", 8, 1) + struct.pack("<Q", 1 << 60),
        struct.pack("<IQ", 9, 1) * 6,
    ],
    ids=["arrays", "texts", "too many", "too long", "too deep"],
)
def test_a_gguf_header_may_not_be_endless(tmp_path: Path, array: bytes) -> None:
    path = tmp_path / "a.gguf"
    entry = struct.pack("<Q", 1) + b"x" + struct.pack("<I", 9) + array
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 6) + entry * 6)
    with pytest.raises(InvalidValue, match="has a damaged GGUF header"):
        identify(path)


def test_a_vocabulary_in_gguf_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    texts = struct.pack("<IQ", 8, 2) + (struct.pack("<Q", 3) + b"abc") * 2
    numbers = struct.pack("<IQ", 6, 100) + struct.pack("<f", 1.0) * 100
    entries = [
        struct.pack("<Q", 1) + name + struct.pack("<I", 9) + array
        for name, array in ((b"a", texts), (b"b", numbers))
    ]
    tensor = struct.pack("<Q", 19) + b"blk.0.attn_k.weight" + struct.pack("<IQ", 1, 4)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + b"".join(entries)
    header += tensor + struct.pack("<IQ", 0, 0)
    path.write_bytes(header + bytes(-len(header) % 32) + bytes(16))
    assert identify(path) == ModelInfo("text_encoder")
    path.write_bytes(header[: len(header) - 60])
    with pytest.raises(InvalidValue, match="cut short"):
        identify(path)
