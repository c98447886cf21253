"""The words of other workers, as tables; ``docs/dialects.md`` is made from them.

Dialects: plain, diffusers (RunPod's Stable Diffusion and SDXL workers), A1111, worker-comfyui.
Names of samplers and schedulers are compared by their letters, digits and plus signs only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "HIRES",
    "IGNORED",
    "NOT_HERE",
    "NO_EFFECT",
    "OPTIONS",
    "PUBLIC_ENDPOINT",
    "REFINER",
    "RENAMED",
    "SAMPLERS",
    "SCHEDULERS",
    "STRUCTURED",
    "UPSCALERS",
    "SamplerMatch",
    "Sampling",
    "a1111_sampler",
    "find_sampling",
    "find_scheduler",
    "is_not_here",
    "sampler_names",
    "scheduler_names",
]


class Sampling(NamedTuple):
    """The names of a sampler in other programs.

    Attributes:
        sampler: ComfyUI's name.
        scheduler: ComfyUI's name of its usual schedule.
        names: A1111's name first, then diffusers' and RunPod's.
        nearest: names of samplers that ComfyUI lacks; this one is used in their place.
    """

    sampler: str
    scheduler: str
    names: tuple[str, ...]
    nearest: tuple[str, ...] = ()


class SamplerMatch(NamedTuple):
    """The meaning of a name: a sampler, its schedule, and whether it is only the nearest one."""

    sampler: str
    scheduler: str
    is_nearest: bool = False


SAMPLERS = (
    Sampling("euler", "normal", ("Euler", "EulerDiscrete", "EULER-D")),
    Sampling("euler_ancestral", "normal", ("Euler a", "EulerAncestralDiscrete")),
    Sampling("heun", "normal", ("Heun", "HeunDiscrete")),
    Sampling("lms", "normal", ("LMS", "LMSDiscrete", "KLMS")),
    Sampling("ddim", "ddim_uniform", ("DDIM",)),
    Sampling("ddpm", "normal", ("DDPM",)),
    Sampling("ipndm", "normal", ("IPNDM",), nearest=("PNDM", "PLMS")),
    Sampling("deis", "normal", ("DEIS", "DEISMultistep")),
    Sampling("uni_pc", "normal", ("UniPC", "UniPCMultistep")),
    Sampling("lcm", "sgm_uniform", ("LCM",)),
    Sampling("dpm_2", "normal", ("DPM2", "KDPM2Discrete", "KDPM2", "KDPM2-D")),
    Sampling("dpm_2_ancestral", "normal", ("DPM2 a", "KDPM2AncestralDiscrete", "KDPM2-A")),
    Sampling("dpm_fast", "normal", ("DPM fast",)),
    Sampling("dpm_adaptive", "normal", ("DPM adaptive",)),
    Sampling("dpmpp_2m", "normal", ("DPM++ 2M", "DPMSolverMultistep", "DPMSolver++", "DPM-M")),
    Sampling("dpmpp_2m", "karras", ("EDMDPMSolverMultistep",)),
    Sampling(
        "dpmpp_sde",
        "normal",
        ("DPM++ SDE", "DPMSolverSDE"),
        nearest=("DPMSolverSinglestep", "DPM-S"),
    ),
    Sampling("dpmpp_2s_ancestral", "normal", ("DPM++ 2S a",)),
    Sampling("dpmpp_2m_sde", "normal", ("DPM++ 2M SDE",)),
    Sampling("dpmpp_2m_sde_heun", "normal", ("DPM++ 2M SDE Heun",)),
    Sampling("dpmpp_3m_sde", "normal", ("DPM++ 3M SDE",)),
    Sampling("sa_solver", "normal", ("SA-Solver",)),
    Sampling("euler", "simple", ("FlowMatchEulerDiscrete",)),
    Sampling("euler", "karras", ("EDMEuler",)),
)

SCHEDULERS = {
    "Normal": "normal",
    "Uniform": "normal",
    "Karras": "karras",
    "Exponential": "exponential",
    "SGM Uniform": "sgm_uniform",
    "Simple": "simple",
    "DDIM Uniform": "ddim_uniform",
    "DDIM": "ddim_uniform",
    "Beta": "beta",
    "KL Optimal": "kl_optimal",
    "Linear Quadratic": "linear_quadratic",
    "Automatic": "",
}
"""A1111's names of schedules -> ComfyUI's; empty for the sampler's own schedule. They also follow
the name of a sampler, as in ``DPM++ 2M Karras``."""

NOT_HERE = (
    "Restart",
    "TCD",
    "DDIM CFG++",
    "Align Your Steps",
    "AYS GITS",
    "Polyexponential",
    "Turbo",
)
"""Samplers and schedulers that have no match in ComfyUI: they get a warning and set nothing."""

RENAMED = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "true_cfg_scale": "cfg",
    "num_images_per_prompt": "num_images",
    "num_outputs": "num_images",
    "image_url": "image",
    "video": "image",
    "video_url": "image",
    "init_image": "image",
    "mask_url": "mask",
    "mask_image": "mask",
    "prompt_strength": "strength",
    "denoising_strength": "strength",
    "cfg_scale": "cfg",
    "distilled_cfg_scale": "guidance",
    "sampler_index": "sampler_name",
}
"""A word -> the key of our own input, or the word of :data:`STRUCTURED`, with the same meaning.
``guidance_scale`` is the embedded guidance of models that have it (Flux), else the sampler's."""

STRUCTURED = {
    "strength": "`denoise`, if the request has an image or a workflow; "
    "`parameters.hires_denoise` with `enable_hr`; otherwise a warning",
    "num_images": "`batch_size`",
    "n_iter": "multiplies `batch_size`",
    "scheduler": "`sampler` and `scheduler`, see the tables below",
    "sampler_name": "`sampler` and `scheduler`, see the tables below",
    "controlnet": "`controlnets`: `{type, image, conditioning_scale}` -> "
    "`{type, image, strength}`; may be a list",
    "lora": "`loras`: `{model_id, weight}` -> `{name, strength}`; may be a list",
    "refiner_inference_steps": "`parameters` of the template `sdxl-refiner`; otherwise a warning",
    "high_noise_frac": "`parameters` of the template `sdxl-refiner`; otherwise a warning",
    "init_images": "`image`: the first entry; more entries cause a warning",
    "enable_hr": "the template `hires-fix`, if the request has no image and no workflow; "
    "otherwise a warning",
    "override_settings": "`checkpoint`, `vae`, `clip_skip`, see the options below; "
    "other options cause a warning",
    "alwayson_scripts": "`controlnets`, from `controlnet.args`; other scripts cause a warning",
    "api_name": "the operation: `txt2img`, `img2img`, `getModels`, `getOptions`, `setOptions`",
    "comfy_org_api_key": "the key for ComfyUI's API nodes; never logged",
    "size": "`width` and `height`, from `512*768` or `512x768`; the response is `image_url`",
    "aspect_ratio": (
        "`width` and `height` of about a million pixels, from `16:9`; `custom` has no effect"
    ),
    "resolution": "with `aspect_ratio`: `0.5k`, `1k`, `2k` or `4k`",
    "image_format": "`output.format`",
    "output_format": "`output.format`",
    "file_inputs": (
        "`overrides` that set inputs of nodes to the URL of a file: `{node: {field, url}}`"
    ),
    "timeout": "a warning: RunPod's limit is `policy.executionTimeout`, beside `input`",
    "command": "an error: comfy-gen's commands need its own worker",
}
"""A word that needs more than a new name -> what the translation does with it, for the docs."""

PUBLIC_ENDPOINT = ("size", "aspect_ratio", "resolution", "image_format", "output_format")
"""Words of RunPod's public endpoints for images."""

REFINER = ("refiner_inference_steps", "high_noise_frac")
"""Words of RunPod's SDXL worker for its second model: parameters of workflow ``sdxl-refiner``."""

HIRES = {
    "hr_scale": "upscale_by",
    "hr_resize_x": "upscale_by",
    "hr_resize_y": "upscale_by",
    "hr_second_pass_steps": "hires_steps",
    "hr_upscaler": "hires_method",
}
"""A word that counts with ``enable_hr`` -> the parameter of workflow ``hires-fix``."""

UPSCALERS = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic",
    "Latent (nearest)": "nearest-exact",
    "Latent (nearest-exact)": "nearest-exact",
}
"""A1111's ``hr_upscaler`` -> ``hires_method``."""

OPTIONS = {
    "sd_model_checkpoint": "checkpoint",
    "sd_vae": "vae",
    "CLIP_stop_at_last_layers": "clip_skip",
}
"""A1111's options in ``override_settings`` that this worker knows -> the key of our own input."""

IGNORED: dict[str, object] = {
    "prompt_2": None,
    "negative_prompt_2": None,
    "nsfw": None,
    "cross_attention_kwargs": None,
    "lora_scale": None,
    "guidance_rescale": None,
    "denoising_end": None,
    "eta": None,
    "use_karras_sigmas": None,
    "safety_checker": None,
    "styles": None,
    "subseed": None,
    "subseed_strength": None,
    "seed_resize_from_h": None,
    "seed_resize_from_w": None,
    "restore_faces": None,
    "tiling": None,
    "s_min_uncond": None,
    "s_churn": None,
    "s_tmax": None,
    "s_tmin": None,
    "refiner_checkpoint": None,
    "script_name": None,
    "script_args": None,
    "infotext": None,
    "firstpass_image": None,
    "disable_extra_networks": None,
    "resize_mode": None,
    "image_cfg_scale": None,
    "latent_mask": None,
    "mask_round": None,
    "mask_blur_x": None,
    "mask_blur_y": None,
    "inpainting_mask_invert": None,
    "inpaint_full_res": None,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": None,
    "hr_negative_prompt": None,
    "hr_cfg": None,
    "firstphase_width": None,
    "firstphase_height": None,
    "s_noise": 1,
    "initial_noise_multiplier": 1,
    "mask_blur": 4,
    "inpainting_fill": 1,
    "inpaint_full_res_padding": 32,
}
"""Known words that this worker ignores with a warning. There is no warning for a value that turns
the option off: an empty value, 0, -1, or the value here."""

NO_EFFECT = (
    "override_settings_restore_afterwards",
    "do_not_save_samples",
    "do_not_save_grid",
    "save_images",
    "send_images",
    "include_init_images",
    "force_task_id",
    "refiner_switch_at",
    "comments",
    "enable_safety_checker",
    "output_type",
    "disable_safety_checker",
    "enable_base64_output",
    "enable_sync_mode",
    "maxPollAttempts",
    "pollIntervalMillis",
)
"""Words without any effect in this worker: they are dropped without a warning."""


def _plain(name: str) -> str:
    """Return the letters and digits of a name; ``DPM++`` becomes ``dpmpp``."""
    lower = re.sub(r"^k[_-]", "", name.strip().casefold())
    return re.sub(r"[^a-z0-9+]", "", lower).replace("+", "p")


def _stem(name: str) -> str:
    """Return a plain name without the endings of diffusers' class names."""
    return _plain(name).removesuffix("scheduler").removesuffix("discrete")


def _samplers_by_stem() -> dict[str, Sampling]:
    """Return, by stem, the first row that has a name."""
    rows: dict[str, Sampling] = {}
    for row in SAMPLERS:
        for name in (row.sampler, *row.names, *row.nearest):
            rows.setdefault(_stem(name), row)
    return rows


_SAMPLERS = _samplers_by_stem()
_SCHEDULERS = {_plain(name): scheduler for name, scheduler in SCHEDULERS.items()}
# Longest first. "DDIM" and "Automatic" follow no sampler's name.
_SUFFIXES = sorted(_SCHEDULERS.keys() - {"automatic", "ddim"}, key=lambda name: (-len(name), name))


def find_sampling(name: str) -> SamplerMatch | None:
    """Find the sampler that a name means, and its schedule.

    Args:
        name: ``DPM++ 2M Karras``, ``K_EULER``, ``EulerAncestralDiscreteScheduler`` ...

    Returns:
        None for an unknown name.
    """
    plain, stem = _plain(name), _stem(name)
    row = _SAMPLERS.get(stem)
    if row is not None:
        return SamplerMatch(row.sampler, row.scheduler, stem in map(_stem, row.nearest))
    for suffix in _SUFFIXES:
        row = _SAMPLERS.get(plain.removesuffix(suffix))
        if plain.endswith(suffix) and row is not None:
            return SamplerMatch(row.sampler, _SCHEDULERS[suffix])
    return None


def find_scheduler(name: str) -> str | None:
    """Find ComfyUI's name of a schedule.

    Returns:
        An empty text for the sampler's own schedule, None for an unknown name.
    """
    return _SCHEDULERS.get(_plain(name))


def is_not_here(name: str) -> bool:
    """Return whether a name is known and ComfyUI has no match for it."""
    return _plain(name) in map(_plain, NOT_HERE)


def sampler_names() -> list[str]:
    """Return other programs' names of samplers, in their usual spelling."""
    names: list[str] = []
    for row in SAMPLERS:
        names += (*row.names, *row.nearest)
    for row in SAMPLERS:
        names += [f"{row.names[0]} {scheduler}" for scheduler in SCHEDULERS]
    return [name for name in dict.fromkeys(names) if find_sampling(name) is not None]


def scheduler_names() -> list[str]:
    """Return what other programs send as a schedule: diffusers means a sampler by it."""
    own = [row.sampler for row in SAMPLERS]
    return list(dict.fromkeys([*SCHEDULERS, *own, *sampler_names(), *NOT_HERE]))


def a1111_sampler(sampler: str) -> str:
    """Return A1111's name of a sampler; ComfyUI's own name if A1111 has none."""
    for row in SAMPLERS:
        if row.sampler == sampler:
            return row.names[0]
    return sampler
