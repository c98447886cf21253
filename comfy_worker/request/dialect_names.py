"""The words of other workers, as tables; ``docs/dialects.md`` is made from them.

Dialects: plain, diffusers (RunPod's Stable Diffusion and SDXL workers), A1111, worker-comfyui. A name of a sampler
or scheduler is known in any case and spelling: only letters, digits and plus signs count.
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
    "REFINER",
    "RENAMED",
    "SAMPLERS",
    "SCHEDULERS",
    "STRUCTURED",
    "UPSCALERS",
    "Found",
    "Sampling",
    "a1111_sampler",
    "find_sampling",
    "find_scheduler",
    "is_not_here",
]


class Sampling(NamedTuple):
    """What a sampler is called elsewhere.

    Attributes:
        sampler: ComfyUI's name.
        scheduler: ComfyUI's name of the schedule that goes with it where the name says no other.
        names: A1111's name first, then diffusers' and RunPod's.
        nearest: names of what ComfyUI lacks, for which this is the nearest; a warning says so.
    """

    sampler: str
    scheduler: str
    names: tuple[str, ...]
    nearest: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a name means: a sampler, its schedule, and whether it is only the nearest that ComfyUI has."""

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
    Sampling("dpmpp_sde", "normal", ("DPM++ SDE", "DPMSolverSDE"), nearest=("DPMSolverSinglestep", "DPM-S")),
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
"""A1111's names of schedules (they also stand behind a sampler's: ``DPM++ 2M Karras``) -> ComfyUI's; empty: the
sampler's own."""

NOT_HERE = ("Restart", "TCD", "DDIM CFG++", "Align Your Steps", "AYS GITS", "Polyexponential", "Turbo")
"""Samplers and schedulers that ComfyUI has nothing like: a warning, and nothing is set."""

RENAMED = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "true_cfg_scale": "cfg",
    "num_images_per_prompt": "num_images",
    "num_outputs": "num_images",
    "image_url": "image",
    "init_image": "image",
    "mask_url": "mask",
    "mask_image": "mask",
    "prompt_strength": "strength",
    "denoising_strength": "strength",
    "cfg_scale": "cfg",
    "distilled_cfg_scale": "guidance",
    "sampler_index": "sampler_name",
}
"""A word -> the key of the contract, or the word of :data:`STRUCTURED`, that it means.
``guidance_scale`` is, as ``guidance`` is, the embedded one of a model that has one (Flux), else the sampler's."""

STRUCTURED = {
    "strength": "`denoise`, if the request has an image or a workflow; `parameters.hires_denoise` with "
    "`enable_hr`; otherwise a warning",
    "num_images": "`batch_size`",
    "n_iter": "multiplies `batch_size`",
    "scheduler": "`sampler` and `scheduler`, see the tables below",
    "sampler_name": "`sampler` and `scheduler`, see the tables below",
    "controlnet": "`controlnets`: `{type, image, conditioning_scale}` -> `{type, image, strength}`; may be a list",
    "lora": "`loras`: `{model_id, weight}` -> `{name, strength}`; may be a list",
    "refiner_inference_steps": "`parameters` of the template `sdxl-refiner`; otherwise a warning",
    "high_noise_frac": "`parameters` of the template `sdxl-refiner`; otherwise a warning",
    "init_images": "`image`: the first entry; more entries cause a warning",
    "enable_hr": "the template `hires-fix`, if the request has no image and no workflow; otherwise a warning",
    "override_settings": "`checkpoint`, `vae`, `clip_skip`, see the options below; other options cause a warning",
    "alwayson_scripts": "`controlnets`, from `controlnet.args`; other scripts cause a warning",
    "api_name": "the operation: `txt2img`, `img2img`, `getModels`, `getOptions`, `setOptions`",
    "comfy_org_api_key": "the key for ComfyUI's API nodes; never logged",
}
"""A word that is more than another name -> what becomes of it."""

REFINER = ("refiner_inference_steps", "high_noise_frac")
"""RunPod's SDXL worker's words for its second model: parameters of workflow ``sdxl-refiner``; else a warning."""

HIRES = {
    "hr_scale": "upscale_by",
    "hr_resize_x": "upscale_by",
    "hr_resize_y": "upscale_by",
    "hr_second_pass_steps": "hires_steps",
    "hr_upscaler": "hires_method",
}
"""With ``enable_hr``: a word -> the parameter of workflow ``hires-fix``. Without it they mean nothing."""

UPSCALERS = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic",
    "Latent (nearest)": "nearest-exact",
    "Latent (nearest-exact)": "nearest-exact",
}
"""A1111's ``hr_upscaler`` -> ``hires_method``; another one is a warning."""

OPTIONS = {"sd_model_checkpoint": "checkpoint", "sd_vae": "vae", "CLIP_stop_at_last_layers": "clip_skip"}
"""A1111's options that are honoured in ``override_settings`` -> the key of the contract."""

IGNORED: dict[str, object] = {
    **dict.fromkeys(("prompt_2", "negative_prompt_2", "nsfw", "cross_attention_kwargs", "lora_scale")),
    **dict.fromkeys(("guidance_rescale", "denoising_end", "eta", "use_karras_sigmas", "safety_checker")),
    **dict.fromkeys(("styles", "subseed", "subseed_strength", "seed_resize_from_h", "seed_resize_from_w")),
    **dict.fromkeys(("restore_faces", "tiling", "s_min_uncond", "s_churn", "s_tmax", "s_tmin")),
    **dict.fromkeys(("refiner_checkpoint", "script_name", "script_args", "infotext", "firstpass_image")),
    **dict.fromkeys(("disable_extra_networks", "resize_mode", "image_cfg_scale", "latent_mask", "mask_round")),
    **dict.fromkeys(("mask_blur_x", "mask_blur_y", "inpainting_mask_invert", "inpaint_full_res")),
    **dict.fromkeys(("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt")),
    **dict.fromkeys(("hr_negative_prompt", "hr_cfg", "firstphase_width", "firstphase_height")),
    "s_noise": 1,
    "initial_noise_multiplier": 1,
    "mask_blur": 4,
    "inpainting_fill": 1,
    "inpaint_full_res_padding": 32,
}
"""Words that are known and not honoured: a warning, unless the value asks for nothing: it is empty, 0, -1, or the
one named here."""

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
)
"""Words that would change nothing here: dropped without a word."""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", re.sub(r"^k[_-]", "", name.strip().casefold())).replace("+", "p")


def _stem(name: str) -> str:
    """A plain name without what diffusers hangs on to its classes."""
    return _plain(name).removesuffix("scheduler").removesuffix("discrete")


# Backwards, so that the first row of a name counts.
_SAMPLERS = {_stem(name): row for row in reversed(SAMPLERS) for name in (row.sampler, *row.names, *row.nearest)}
_SCHEDULERS = {_plain(name): scheduler for name, scheduler in SCHEDULERS.items()}
_SUFFIXES = sorted((name for name in _SCHEDULERS if name not in {"automatic", "ddim"}), key=len, reverse=True)


def find_sampling(name: str) -> Found | None:
    """The sampler that a name means, with the schedule that the name says or that goes with it.

    Args:
        name: ``DPM++ 2M Karras``, ``K_EULER``, ``EulerAncestralDiscreteScheduler`` ...

    Returns:
        None for a name that is not known.
    """
    plain = _plain(name)
    if row := _SAMPLERS.get(_stem(name)):
        return Found(row.sampler, row.scheduler, _stem(name) in map(_stem, row.nearest))
    for suffix in _SUFFIXES:
        if plain.endswith(suffix) and (row := _SAMPLERS.get(plain.removesuffix(suffix))):
            return Found(row.sampler, _SCHEDULERS[suffix])
    return None


def find_scheduler(name: str) -> str | None:
    """ComfyUI's name of a schedule, empty for the sampler's own; None for a name that is not known."""
    return _SCHEDULERS.get(_plain(name))


def is_not_here(name: str) -> bool:
    """Whether a name is known, and ComfyUI has nothing like it."""
    return _plain(name) in map(_plain, NOT_HERE)


def a1111_sampler(sampler: str) -> str:
    """A1111's name of ComfyUI's sampler; ComfyUI's own where A1111 has none."""
    return next((row.names[0] for row in SAMPLERS if row.sampler == sampler), sampler)
