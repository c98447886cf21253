"""Declares how each architecture shows in the tensors of its files.

The rules follow what ComfyUI's own loaders look at (``comfy/model_detection.py``,
``controlnet.py``, ``comfy_extras/nodes_model_patch.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

from comfy_worker.models.families import (
    ACE_STEP,
    ACE_STEP_15,
    ACE_STEP_15_XL,
    ANIMA,
    AURAFLOW,
    CHROMA,
    COSMOS2,
    COSMOS2_14B,
    FLUX,
    FLUX2,
    HIDREAM,
    HUNYUAN_DIT,
    HUNYUAN_IMAGE,
    HUNYUAN_VIDEO,
    HUNYUAN_VIDEO_15,
    KANDINSKY5,
    KLEIN_4B,
    KLEIN_9B,
    KREA2,
    LTX2,
    LTXV,
    LTXV_13B,
    LUMINA2,
    MINIMAX_H3,
    MINIMAX_MUSIC_3,
    MOCHI,
    OMNIGEN2,
    PIXART,
    QWEN_IMAGE,
    QWEN_IMAGE_21,
    QWEN_IMAGE_EDIT,
    QWEN_IMAGE_LAYERED,
    SD2,
    SD3_MEDIUM,
    SD15,
    SD35_LARGE,
    SDXL,
    SDXL_REFINER,
    SEEDVR2_3B,
    SEEDVR2_7B,
    TOY,
    WAN21_1B,
    WAN22_5B,
    WAN_14B,
    Z_IMAGE,
    Family,
)

__all__ = [
    "BASE_MODELS",
    "FLUX2_WIDTH",
    "HUNYUAN_WIDTH",
    "LUMINA_WIDTH",
    "MODEL_PATCHES",
    "SD3_WIDTH",
    "TEXT_ENCODERS",
    "UNET_CONTEXT",
    "UNET_TENSORS",
    "UNET_VECTOR",
    "VAES",
    "WAN_WIDTH",
    "BaseModelRule",
]

# Families of one architecture differ in one width: the width of the text embedding that a UNet
# attends to, or of the model itself.
UNET_CONTEXT = {768: SD15, 1024: SD2, 1280: SDXL_REFINER, 2048: SDXL}
UNET_VECTOR = {2560: SDXL_REFINER, 2816: SDXL}
SD3_WIDTH = {192: TOY, 1536: SD3_MEDIUM, 2432: SD35_LARGE}
FLUX2_WIDTH = {3072: KLEIN_4B, 4096: KLEIN_9B, 6144: FLUX2}
HUNYUAN_WIDTH = {2048: HUNYUAN_VIDEO_15, 3072: HUNYUAN_VIDEO, 3584: HUNYUAN_IMAGE}
LUMINA_WIDTH = {2304: LUMINA2, 3840: Z_IMAGE}
WAN_WIDTH = {1536: WAN21_1B, 3072: WAN22_5B, 5120: WAN_14B}

UNET_TENSORS = {"input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight"}

# A family, or a tensor and the families by its first dimension.
BaseModelRule = Family | tuple[str, Mapping[int, Family]]

# Each architecture by the tensors that only it has.
BASE_MODELS: tuple[tuple[set[str], BaseModelRule], ...] = (
    ({"joint_blocks.0.context_block.attn.qkv.weight"}, ("x_embedder.proj.weight", SD3_WIDTH)),
    (
        {"transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"},
        ("pos_embed.proj.weight", SD3_WIDTH),
    ),
    ({"double_layers.0.attn.w1q.weight"}, AURAFLOW),
    ({"mlp_t5.0.weight"}, HUNYUAN_DIT),
    (
        {"txt_in.individual_token_refiner.blocks.0.norm1.weight"},
        ("img_in.proj.weight", HUNYUAN_WIDTH),
    ),
    # ComfyUI names the norms of Flux and Chroma ".weight" from 0.33 on; older files have ".scale".
    ({"distilled_guidance_layer.norms.0.scale"}, CHROMA),
    ({"distilled_guidance_layer.norms.0.weight"}, CHROMA),
    ({"distilled_guidance_layer.0.norms.0.scale"}, CHROMA),
    ({"double_stream_modulation_img.lin.weight"}, ("img_in.weight", FLUX2_WIDTH)),
    # The same as diffusers names it.
    ({"double_stream_modulation_img.linear.weight"}, ("x_embedder.weight", FLUX2_WIDTH)),
    (
        {"double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"},
        ("img_in.weight", {3072: FLUX}),
    ),
    (
        {"double_blocks.0.img_attn.norm.key_norm.weight", "img_in.weight"},
        ("img_in.weight", {3072: FLUX}),
    ),
    (
        {"single_transformer_blocks.0.attn.to_q.weight", "x_embedder.weight"},
        ("x_embedder.weight", {3072: FLUX}),
    ),
    ({"t5_yproj.weight"}, MOCHI),
    ({"adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias"}, PIXART),
    ({"video_patch_proj.weight", "audio_patch_proj.weight"}, MINIMAX_H3),
    ({"cond_layer_logits", "latent_conditioners.0.weight"}, MINIMAX_MUSIC_3),
    ({"audio_adaln_single.linear.weight"}, LTX2),
    (
        {"adaln_single.emb.timestep_embedder.linear_1.bias"},
        ("transformer_blocks.0.attn1.to_q.weight", {2048: LTXV, 4096: LTXV_13B}),
    ),
    ({"genre_embedder.weight"}, ACE_STEP),
    ({"t_block.1.weight"}, PIXART),
    ({"cap_embedder.1.weight"}, ("cap_embedder.1.weight", LUMINA_WIDTH)),
    ({"blocks.35.mlp.vid.proj_out.weight"}, SEEDVR2_7B),
    ({"blocks.35.mlp.all.proj_in_gate.weight"}, SEEDVR2_7B),
    ({"blocks.31.mlp.all.proj_in_gate.weight"}, SEEDVR2_3B),
    ({"head.modulation"}, ("patch_embedding.weight", WAN_WIDTH)),
    ({"caption_projection.0.linear.weight"}, HIDREAM),
    ({"llm_adapter.blocks.0.cross_attn.q_proj.weight"}, ANIMA),
    (
        {"blocks.0.mlp.layer1.weight"},
        ("blocks.0.mlp.layer1.weight", {8192: COSMOS2, 20480: COSMOS2_14B}),
    ),
    ({"time_caption_embed.timestep_embedder.linear_1.bias"}, OMNIGEN2),
    ({"time_text_embed.addition_t_embedding.weight"}, QWEN_IMAGE_LAYERED),
    # ComfyUI marks Qwen-Image-Edit 2511 with this tensor. 2509 and older cannot be told apart from
    # Qwen-Image itself.
    ({"__index_timestep_zero__", "img_in.weight"}, QWEN_IMAGE_EDIT),
    # Other models have a txt_norm too, of another width.
    ({"txt_norm.weight", "img_in.weight"}, ("txt_norm.weight", {3584: QWEN_IMAGE})),
    ({"txt_in.text_norm.weight", "img_in.weight"}, QWEN_IMAGE_21),
    ({"txtfusion.projector.weight"}, KREA2),
    ({"visual_transformer_blocks.0.cross_attention.key_norm.weight"}, KANDINSKY5),
    (
        {"encoder.lyric_encoder.layers.0.input_layernorm.weight"},
        (
            "decoder.layers.0.self_attn_norm.weight",
            {2048: ACE_STEP_15, 2560: ACE_STEP_15_XL},
        ),
    ),
)

# What ComfyUI's ModelPatchLoader takes: networks that change a model while it samples.
MODEL_PATCHES: tuple[tuple[set[str], BaseModelRule], ...] = (
    ({"lllite_conditioning1.conv1.weight"}, ANIMA),
    ({"controlnet_blocks.0.y_rms.weight"}, QWEN_IMAGE),
    ({"feature_embedder.mid_layer_norm.bias"}, FLUX),
    ({"control_all_x_embedder.2-1.weight"}, Z_IMAGE),
    ({"controlnet_patch_embedding.weight"}, ("proj_out.0.weight", WAN_WIDTH)),
    ({"audio_proj.proj1.weight"}, ("blocks.0.audio_cross_attn.proj.weight", WAN_WIDTH)),
    ({"attention_pooler.query_tokens"}, LTX2),
    ({"duration_head.attention_pooler.query_tokens"}, LTX2),
)

TEXT_ENCODERS = {
    "text_model.encoder.layers.0.mlp.fc1.weight",
    "transformer.resblocks.0.ln_1.weight",
    "encoder.block.0.layer.0.SelfAttention.k.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "language_model.model.layers.0.self_attn.k_proj.weight",
    "model.language_model.layers.0.self_attn.k_proj.weight",
    # As llama.cpp names them, in GGUF files.
    "blk.0.attn_k.weight",
    "enc.blk.0.attn_k.weight",
}
VAES = {
    "decoder.conv_in.weight",
    "decoder.conv_in.conv.weight",
    "decoder.middle.0.residual.0.gamma",
    "taesd_decoder.1.weight",
}
