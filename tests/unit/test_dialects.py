"""Other people's requests become the contract's: every word of every dialect."""

from __future__ import annotations

import math
from typing import Any

import pytest

from comfy_worker.errors import InputError, InvalidInput, InvalidValue, UnknownKey
from comfy_worker.request import dialect_names as words
from comfy_worker.request.dialects import KNOWN_WORDS, TranslatedInput, translate
from comfy_worker.request.schema import JobInput
from tests import core_nodes


def contract(request: TranslatedInput) -> dict[str, Any]:
    """The input as the contract reads it: whatever is translated must be readable."""
    JobInput.read(request.input, request.client_words, KNOWN_WORDS)
    found: dict[str, Any] = request.input
    return found


@pytest.mark.parametrize(
    ("job_input", "expected"),
    [
        # plain, seed 000
        ({"prompt": "a futuristic cyberpunk city", "steps": 30, "guidance": 7.5}, None),
        ({"prompt": "cyberpunk city"}, None),
        ({}, None),
        # diffusers
        ({"num_inference_steps": 30}, {"steps": 30}),
        ({"guidance_scale": 7.5}, {"guidance": 7.5}),
        ({"true_cfg_scale": 4.0}, {"cfg": 4.0}),
        ({"image": "x", "strength": 0.75}, {"image": "x", "denoise": 0.75}),
        ({"init_image": "x", "prompt_strength": 0.7}, {"image": "x", "denoise": 0.7}),
        ({"image_url": "x", "mask_url": "y"}, {"image": "x", "mask": "y"}),
        ({"image": "x", "mask_image": "y"}, {"image": "x", "mask": "y"}),
        ({"num_images": 3}, {"batch_size": 3}),
        ({"num_images": "3"}, {"batch_size": 3}),
        ({"num_images": 3.0}, {"batch_size": 3}),
        ({"num_outputs": 2}, {"batch_size": 2}),
        ({"num_images_per_prompt": 2}, {"batch_size": 2}),
        ({"num_images": 1}, {}),
        ({"workflow": "txt2img", "num_images": 1}, {"workflow": "txt2img", "batch_size": 1}),
        (
            {"lora": {"model_id": "path/to/lora", "weight": 0.8}},
            {"loras": [{"name": "path/to/lora", "strength": 0.8}]},
        ),
        ({"lora": "film"}, {"loras": [{"name": "film"}]}),
        (
            {"lora": [{"model_id": "a"}, {"name": "b", "scale": 2}]},
            {"loras": [{"name": "a"}, {"name": "b", "strength": 2}]},
        ),
        (
            {"controlnet": {"type": "canny", "image": "x", "conditioning_scale": 0.8}},
            {"controlnets": [{"type": "canny", "image": "x", "strength": 0.8}]},
        ),
        (
            {
                "controlnet": [
                    {
                        "model": "m",
                        "image_url": "x",
                        "control_guidance_start": 0.1,
                        "control_guidance_end": 0.9,
                    }
                ]
            },
            {"controlnets": [{"model": "m", "image": "x", "start": 0.1, "end": 0.9}]},
        ),
        # RunPod's SDXL worker sends null for what is not set
        (
            {"prompt": "x", "seed": None, "num_images": None, "high_noise_frac": None},
            {"prompt": "x"},
        ),
        (
            {
                "workflow": "sdxl-refiner",
                "num_inference_steps": 20,
                "refiner_inference_steps": 50,
                "high_noise_frac": 0.6,
            },
            {
                "workflow": "sdxl-refiner",
                "steps": 20,
                "parameters": {"base_end": 12, "refiner_steps": 50, "refiner_start": 30},
            },
        ),
        (
            {
                "workflow": "sdxl-refiner",
                "num_inference_steps": "20",
                "refiner_inference_steps": "50",
                "high_noise_frac": "0.6",
            },
            {
                "workflow": "sdxl-refiner",
                "steps": "20",
                "parameters": {"base_end": 12, "refiner_steps": 50, "refiner_start": 30},
            },
        ),
        (
            {"workflow": "sdxl-refiner", "high_noise_frac": 0.8, "parameters": {"base_end": 3}},
            {
                "workflow": "sdxl-refiner",
                "steps": 25,
                "parameters": {"base_end": 3, "refiner_steps": 25, "refiner_start": 20},
            },
        ),
        # A1111
        ({"cfg_scale": 6}, {"cfg": 6}),
        ({"distilled_cfg_scale": 3.5}, {"guidance": 3.5}),
        ({"n_iter": 2, "batch_size": 2}, {"batch_size": 4}),
        ({"batch_size": 1, "n_iter": 1}, {}),
        (
            {"override_settings": {"sd_model_checkpoint": "m.safetensors [6ce0161689]"}},
            {"checkpoint": "m.safetensors"},
        ),
        (
            {"override_settings": {"sd_vae": "v.pt", "CLIP_stop_at_last_layers": 2}},
            {"vae": "v.pt", "clip_skip": 2},
        ),
        ({"override_settings": {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1}}, {}),
        (
            {
                "enable_hr": False,
                "hr_scale": 2,
                "hr_upscaler": "string",
                "hr_sampler_name": "string",
            },
            {},
        ),
        (
            {"enable_hr": True, "denoising_strength": 0.4},
            {"workflow": "hires-fix", "parameters": {"upscale_by": 2, "hires_denoise": 0.4}},
        ),
        (
            {
                "enable_hr": True,
                "hr_scale": 1.5,
                "hr_upscaler": "Latent (bicubic)",
                "hr_second_pass_steps": 7,
                "parameters": {"upscale_by": 3},
            },
            {
                "workflow": "hires-fix",
                "parameters": {"upscale_by": 3, "hires_steps": 7, "hires_method": "bicubic"},
            },
        ),
        ({"enable_hr": "false"}, {}),
        (
            {"enable_hr": "True", "hr_scale": 3},
            {"workflow": "hires-fix", "parameters": {"upscale_by": 3}},
        ),
        ({"alwayson_scripts": {"controlnet": {"args": [{"enabled": "False", "image": "x"}]}}}, {}),
        (
            {"enable_hr": True, "width": 512, "hr_resize_x": 768, "hr_second_pass_steps": 0},
            {"workflow": "hires-fix", "width": 512, "parameters": {"upscale_by": 1.5}},
        ),
        # worker-comfyui
        (
            {"workflow": {"1": {"class_type": "X"}}, "images": [{"name": "a.png", "image": "x"}]},
            None,
        ),
    ],
)
def test_each_key_translates_to_its_meaning_only(
    job_input: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    request = translate(job_input)
    assert contract(request) == (job_input if expected is None else expected)
    assert request.warnings == []
    assert request.response is None


@pytest.mark.parametrize(
    ("name", "sampler", "scheduler"),
    [
        ("DDIM", "ddim", "ddim_uniform"),
        ("DDPM", "ddpm", "normal"),
        ("K_EULER", "euler", "normal"),
        ("K_EULER_ANCESTRAL", "euler_ancestral", "normal"),
        ("EulerAncestralDiscreteScheduler", "euler_ancestral", "normal"),
        ("EulerDiscrete", "euler", "normal"),
        ("LMS", "lms", "normal"),
        ("KLMS", "lms", "normal"),
        ("K-LMS", "lms", "normal"),
        ("HEUN", "heun", "normal"),
        ("DPMSolverMultistep", "dpmpp_2m", "normal"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m", "normal"),
        ("UniPC", "uni_pc", "normal"),
        ("UniPCMultistep", "uni_pc", "normal"),
        ("DEIS", "deis", "normal"),
        ("IPNDM", "ipndm", "normal"),
        ("KDPM2", "dpm_2", "normal"),
        ("KDPM2-A", "dpm_2_ancestral", "normal"),
        ("DPM2 a Karras", "dpm_2_ancestral", "karras"),
        ("LCM", "lcm", "sgm_uniform"),
        ("Euler a", "euler_ancestral", "normal"),
        ("euler A", "euler_ancestral", "normal"),
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M", "dpmpp_2m", "normal"),
        ("dpmpp_2m_karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE Karras", "dpmpp_2m_sde", "karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("DPM++ 2M SDE Heun Karras", "dpmpp_2m_sde_heun", "karras"),
        ("DPM++ 2M SGM Uniform", "dpmpp_2m", "sgm_uniform"),
        ("DPM++ 3M SDE", "dpmpp_3m_sde", "normal"),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras"),
        ("DPM++ 2S a Karras", "dpmpp_2s_ancestral", "karras"),
        ("DPM fast", "dpm_fast", "normal"),
        ("DPM adaptive", "dpm_adaptive", "normal"),
        ("LMS Karras", "lms", "karras"),
        ("EDMDPMSolverMultistep", "dpmpp_2m", "karras"),
        ("FlowMatchEulerDiscrete", "euler", "simple"),
    ],
)
def test_a_sampler_is_known_by_its_usual_names(name: str, sampler: str, scheduler: str) -> None:
    for word in ("scheduler", "sampler_name", "sampler_index"):
        request = translate({word: name})
        assert contract(request) == {"sampler": sampler, "scheduler": scheduler}
        assert request.warnings == []


def test_every_name_of_the_tables_is_found() -> None:
    for row in words.SAMPLERS:
        for name in (*row.names, *row.nearest):
            assert words.find_sampling(name) == (row.sampler, row.scheduler, name in row.nearest)
    assert {name for name in words.SCHEDULERS if words.find_scheduler(name) is None} == set()


@pytest.mark.parametrize(
    ("job_input", "expected"),
    [
        (
            {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
            {"sampler": "dpmpp_2m", "scheduler": "karras"},
        ),
        (
            {"sampler_name": "DPM++ 2M Karras", "scheduler": "Automatic"},
            {"sampler": "dpmpp_2m", "scheduler": "karras"},
        ),
        (
            {"sampler_name": "Euler", "scheduler": "DDIM"},
            {"sampler": "euler", "scheduler": "ddim_uniform"},
        ),
        ({"scheduler": "SGM Uniform"}, {"scheduler": "sgm_uniform"}),
        ({"scheduler": "Automatic"}, {}),
        ({"sampler": "heun", "scheduler": "karras"}, {"sampler": "heun", "scheduler": "karras"}),
        ({"sampler_name": "my_sampler"}, {"sampler": "my_sampler"}),
        ({"scheduler": "my_schedule"}, {"scheduler": "my_schedule"}),
        ({"sampler_name": "", "sampler_index": "Heun"}, {"sampler": "heun", "scheduler": "normal"}),
    ],
)
def test_a_schedule_may_stand_beside_the_sampler(
    job_input: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = translate(job_input)
    assert contract(request) == expected
    assert request.warnings == []


def test_a_schedule_beside_api_name_is_a1111s() -> None:
    assert contract(translate({"api_name": "txt2img", "scheduler": "DDIM"})) == {
        "scheduler": "ddim_uniform"
    }


@pytest.mark.parametrize(
    ("job_input", "expected", "warning"),
    [
        (
            {"scheduler": "PNDM"},
            {"sampler": "ipndm", "scheduler": "normal"},
            "scheduler PNDM: ipndm is used, the nearest",
        ),
        (
            {"scheduler": "DPMSolverSinglestep"},
            {"sampler": "dpmpp_sde", "scheduler": "normal"},
            "dpmpp_sde is used",
        ),
        (
            {"sampler_name": "Restart"},
            {},
            "sampler_name is ignored: ComfyUI has nothing like Restart",
        ),
        (
            {"scheduler": "Align Your Steps"},
            {},
            "scheduler is ignored: ComfyUI has nothing like Align",
        ),
        ({"strength": 0.3}, {}, "strength is ignored: there is no image to change"),
        ({"denoising_strength": 0.3}, {}, "is ignored: there is no image"),
        (
            {"steps": 5, "num_inference_steps": 9},
            {"steps": 5},
            "num_inference_steps is ignored: steps is set as well",
        ),
        (
            {"cfg_scale": 5, "true_cfg_scale": 9},
            {"cfg": 9},
            "cfg_scale is ignored: true_cfg_scale is set as well",
        ),
        (
            {"refiner_inference_steps": 50},
            {},
            "refiner_inference_steps is ignored: only workflow 'sdxl-refiner'",
        ),
        ({"high_noise_frac": 0.8}, {}, "high_noise_frac is ignored: only workflow 'sdxl-refiner'"),
        (
            {"init_images": ["x", "y"]},
            {"image": "x"},
            "init_images: only the first picture is used",
        ),
        ({"init_images": ["x"], "enable_hr": True}, {"image": "x"}, "enable_hr is ignored"),
        ({"workflow": "sd35", "enable_hr": True}, {"workflow": "sd35"}, "enable_hr is ignored"),
        (
            {"enable_hr": True, "hr_upscaler": "R-ESRGAN 4x+"},
            {"workflow": "hires-fix", "parameters": {"upscale_by": 2}},
            "hr_upscaler is ignored: it is one of Latent, Latent (antialiased)",
        ),
        (
            {"enable_hr": True, "hr_resize_y": 900},
            {"workflow": "hires-fix", "parameters": {"upscale_by": 2}},
            "hr_resize_y is ignored: it needs height beside it",
        ),
        ({"override_settings": {"eta": 1}}, {}, "override_settings.eta is ignored"),
        (
            {"alwayson_scripts": {"ADetailer": {"args": []}}},
            {},
            "alwayson_scripts.ADetailer is ignored",
        ),
        (
            {
                "alwayson_scripts": {
                    "controlnet": {"args": [{"image": "x", "model": "m", "control_mode": 2}]}
                }
            },
            {"controlnets": [{"image": "x", "model": "m", "preprocess": False}]},
            "alwayson_scripts.controlnet control_mode is ignored",
        ),
        *[
            ({word: "something"}, {}, f"{word} is ignored")
            for word in words.IGNORED
            if not word.startswith("hr_")
        ],
        *[
            (
                {"enable_hr": True, word: "x"},
                {"workflow": "hires-fix", "parameters": {"upscale_by": 2}},
                f"{word} is ign",
            )
            for word in words.IGNORED
            if word.startswith("hr_")
        ],
    ],
)
def test_an_unsupported_value_is_a_warning(
    job_input: dict[str, Any], expected: dict[str, Any], warning: str
) -> None:
    request = translate(job_input)
    assert contract(request) == expected
    (message,) = request.warnings
    assert warning in message


def test_keys_without_effect_give_no_warning() -> None:
    nothing = dict(words.IGNORED)
    for job_input in (
        {**nothing},
        dict.fromkeys(nothing, 0),
        dict.fromkeys(nothing, ""),
        dict.fromkeys(words.NO_EFFECT, True),
    ):
        request = translate(job_input)
        assert (contract(request), request.warnings) == ({}, [])


def test_our_key_wins_over_other_dialects() -> None:
    for word, key in words.RENAMED.items():
        if key in JobInput.model_fields:
            request = translate({key: 5, word: 7})
            assert request.input == {key: 5}
            assert request.warnings == [f"{word} is ignored: {key} is set as well"]


def test_dialects_mix() -> None:
    job_input = {
        "num_inference_steps": 9,
        "cfg_scale": 4,
        "sampler": "heun",
        "n_iter": 2,
        "prompt": "x",
    }
    request = translate(job_input)
    assert contract(request) == {
        "steps": 9,
        "cfg": 4,
        "sampler": "heun",
        "batch_size": 2,
        "prompt": "x",
    }
    assert request.client_words == {
        "steps": "num_inference_steps",
        "cfg": "cfg_scale",
        "batch_size": "n_iter",
    }


def test_txt2img_of_a1111_with_all_its_defaults() -> None:
    job_input = {
        "api_name": "txt2img",
        "prompt": "a fox",
        "styles": [],
        "seed": -1,
        "subseed": -1,
        "subseed_strength": 0,
        "seed_resize_from_h": -1,
        "sampler_name": "Euler a",
        "batch_size": 1,
        "n_iter": 1,
        "steps": 20,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "restore_faces": False,
        "denoising_strength": 0,
        "s_noise": 1,
        "override_settings": {},
        "override_settings_restore_afterwards": True,
        "enable_hr": False,
        "hr_scale": 2,
        "send_images": True,
        "save_images": False,
        "alwayson_scripts": {},
        "script_args": [],
    }
    request = translate(job_input)
    assert contract(request) == {
        "prompt": "a fox",
        "seed": -1,
        "sampler": "euler_ancestral",
        "scheduler": "normal",
        "steps": 20,
        "cfg": 7,
        "width": 512,
        "height": 512,
    }
    assert (request.warnings, request.response, request.api_name) == ([], "a1111", "txt2img")


def test_img2img_of_a1111() -> None:
    job_input = {
        "api_name": "img2img",
        "init_images": ["x"],
        "mask": "y",
        "denoising_strength": 0.6,
    }
    assert contract(translate(job_input)) == {"image": "x", "mask": "y", "denoise": 0.6}


def test_a_controlnet_unit_of_a1111() -> None:
    unit = {
        "enabled": True,
        "input_image": "x",
        "module": "canny",
        "model": "control_v11p_sd15_canny [d14c016b]",
        "weight": 0.7,
        "guidance_start": 0.1,
        "guidance_end": 0.9,
        "control_mode": "Balanced",
        "pixel_perfect": True,
    }
    job_input = {"alwayson_scripts": {"ControlNet": {"args": [unit, {"enabled": False}, None]}}}
    request = translate(job_input)
    assert contract(request)["controlnets"] == [
        {
            "type": "canny",
            "model": "control_v11p_sd15_canny",
            "image": "x",
            "strength": 0.7,
            "start": 0.1,
            "end": 0.9,
            "preprocess": True,
        }
    ]
    assert request.warnings == []


def test_a_controlnet_unit_defaults_to_start_image() -> None:
    unit = {"module": "none", "model": "m", "image": None}
    job_input = {"init_images": ["start"], "alwayson_scripts": {"controlnet": {"args": [unit]}}}
    assert contract(translate(job_input))["controlnets"] == [
        {"model": "m", "image": "start", "preprocess": False}
    ]


@pytest.mark.parametrize("api_name", ["getModels", "getOptions", "setOptions"])
def test_questions_of_a1111_are_told_apart(api_name: str) -> None:
    request = translate({"api_name": api_name, "sd_model_checkpoint": "m"})
    assert (request.api_name, request.input) == (api_name, {"sd_model_checkpoint": "m"})


def test_the_api_key_is_separate_and_hidden() -> None:
    request = translate({"workflow": {"1": {"class_type": "X"}}, "comfy_org_api_key": "secret-key"})
    assert request.extra_data == {"api_key_comfy_org": "secret-key"}
    assert "comfy_org_api_key" not in request.input


@pytest.mark.parametrize(
    ("job_input", "error", "sentence"),
    [
        (
            {"api_name": "upscale"},
            InvalidValue,
            "api_name must be one of txt2img, img2img, getModels",
        ),
        ({"api_name": ["txt2img"]}, InvalidValue, "api_name must be one of"),
        ({"api_name": "img2img"}, InvalidInput, "init_images is missing"),
        ({"init_images": "x"}, InvalidInput, "init_images must be a list"),
        ({"init_images": []}, InvalidInput, "init_images must be a list"),
        ({"n_iter": "two"}, InvalidInput, "n_iter must be a whole number"),
        ({"num_images": 0}, InvalidInput, "num_images must be a whole number of 1 or more"),
        ({"num_images": True}, InvalidInput, "num_images must be a whole number"),
        ({"num_images": "3.5"}, InvalidInput, "num_images must be a whole number of 1 or more"),
        ({"enable_hr": "maybe"}, InvalidInput, "enable_hr must be true or false, not 'maybe'"),
        ({"num_images": "many"}, InvalidInput, "num_images must be a whole number of 1 or more"),
        ({"override_settings": []}, InvalidInput, "override_settings must be an object"),
        ({"alwayson_scripts": "x"}, InvalidInput, "alwayson_scripts must be an object"),
        ({"alwayson_scripts": {"controlnet": []}}, InvalidInput, "controlnet must be an object"),
        ({"enable_hr": True, "parameters": 3}, InvalidInput, "parameters must be an object"),
        (
            {"workflow": "sdxl-refiner", "steps": "many", "high_noise_frac": 0.8},
            InvalidInput,
            "steps must be a number, not 'many'",
        ),
        (
            {"workflow": "sdxl-refiner", "high_noise_frac": "x"},
            InvalidInput,
            "high_noise_frac must be a number",
        ),
        (
            {"workflow": "sdxl-refiner", "high_noise_frac": math.nan},
            InvalidInput,
            "high_noise_frac must be a number",
        ),
        (
            {"enable_hr": True, "hr_resize_x": 10**400},
            InvalidInput,
            "hr_resize_x must be a number, not 1000",
        ),
        (
            {"enable_hr": True, "hr_upscaler": {"a": 1}},
            InvalidInput,
            "hr_upscaler must be text, not {'a': 1}",
        ),
        (
            {"alwayson_scripts": {"ControlNet": {"args": 5}}},
            InvalidInput,
            "ControlNet.args must be a list, not 5",
        ),
        (
            {"alwayson_scripts": {"ControlNet": {"args": ["x"]}}},
            InvalidInput,
            "must be a list of objects, not 'x'",
        ),
        ({"api_name": "x" * 900}, InvalidValue, f"not '{'x' * 60}...'"),
        ({"n_iter": "x" * 900}, InvalidInput, f"not '{'x' * 59}..."),
        (
            {"num_inference_steps": "many"},
            InvalidInput,
            'num_inference_steps must be a whole number, not "many"',
        ),
        ({"lora": 3}, InvalidInput, "lora.0 must be an object"),
        ({"controlnet": "x"}, InvalidInput, "controlnet.0 must be an object"),
        ({"controlnet": {"type": "canny"}}, InvalidInput, "controlnet.0.image is missing"),
        ({"num_inference_step": 3}, UnknownKey, "did you mean num_inference_steps?"),
        ({"denoising_strenght": 3}, UnknownKey, "did you mean denoising_strength?"),
        ({"qqqq": None}, UnknownKey, "qqqq is not a key of the input"),
        ("text", InvalidInput, "input must be an object"),
        (None, InvalidInput, "input must be an object"),
    ],
)
def test_a_mistake_is_told_in_the_clients_words(
    job_input: Any, error: type[InputError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        contract(translate(job_input))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("sent", "sampling"),
    [
        ({"sampler": "DPM++ 2M Karras"}, {"sampler": "dpmpp_2m", "scheduler": "karras"}),
        ({"sampler": "Euler a"}, {"sampler": "euler_ancestral", "scheduler": "normal"}),
        (
            {"sampler": "DPM++ 2M Karras", "scheduler": "exponential"},
            {"sampler": "dpmpp_2m", "scheduler": "exponential"},
        ),
        ({"sampler": "dpmpp_2m"}, {"sampler": "dpmpp_2m"}),
        ({"sampler": "of_a_node_pack"}, {"sampler": "of_a_node_pack"}),
    ],
)
def test_our_sampler_takes_foreign_names(sent: dict[str, str], sampling: dict[str, str]) -> None:
    translated = translate({"prompt": "x", **sent})
    assert translated.input == {"prompt": "x", **sampling}
    assert translated.warnings == []


def test_comfyuis_samplers_keep_their_names() -> None:
    for name in core_nodes.OBJECT_INFO["KSampler"]["input"]["required"]["sampler_name"][0]:
        assert translate({"sampler": name}).input == {"sampler": name}
