"""Declares the keys of a job's input.

Each key is declared once: reading, errors, ``python -m comfy_worker schema`` and ``docs/input.md`` follow
from that declaration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from comfy_worker.errors import InputError, InvalidInput, UnknownKey, brief
from comfy_worker.json_values import find_problem
from comfy_worker.nearest import nearest
from comfy_worker.request.graph_wrappers import looks_like_json, parse_graph_text, unwrap_graph
from comfy_worker.response_formats import ResponseFormat

__all__ = [
    "SEED_LIMIT",
    "ControlNet",
    "JobInput",
    "Lora",
    "NamedImage",
    "Output",
    "Parameters",
]

SEED_LIMIT = 2**53
# Of names of files and of nodes' inputs, URLs included. Prompts, pictures and graphs may be longer.
MAX_NAME = 4000
LONG_TEXTS = ("prompt", "negative_prompt", "image", "mask", "workflow")
# Longer than any number that makes sense here.
MAX_DIGITS = 40
# Of a list: each LoRA becomes a node, and each picture is decoded.
MAX_ENTRIES = 200
# Of one error's details.
MAX_FINDINGS = 20
# Errors quote a value up to this length.
MAX_QUOTED = 40
# Keys whose value is an object with names that the client chooses.
OPEN_KEYS = ("overrides", "parameters")

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Literal: "text",
    tuple: "a list",
    dict: "an object",
}
NUMBERS = ("a whole number", "a number")


def _graph_or_name(value: object, info: ValidationInfo) -> object:
    """Read a graph that arrives as JSON text, or as a body for ComfyUI's ``/prompt``.

    A picture stays as it is; :mod:`comfy_worker.request.embedded_workflow` reads its workflow.
    """
    if isinstance(value, str) and looks_like_json(value):
        value = _graph_in_text(value, (info.context or {}).get("check"))
    if not isinstance(value, (str, dict)):
        raise PydanticCustomError("workflow", "Input should be a template's name or a graph")
    return unwrap_graph(value)


def _graph_in_text(text: str, check: Callable[[], None] | None) -> object:
    """The JSON in a text."""
    try:
        value = parse_graph_text(text)
    except ValueError as error:
        problem = "Input should be a template's name or a graph as JSON"
        raise PydanticCustomError("json", problem) from error
    unusable = find_problem(value, finite=False, check=check)
    if unusable is not None:
        raise InvalidInput(f"workflow holds {unusable}", [{"key": "workflow", "problem": unusable}])
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        """Leave out nulls: a key with null counts as absent, and so does a null in a list of entries."""
        if not isinstance(value, dict):
            return value
        present: dict[str, Any] = {}
        for key, entry in value.items():
            if entry is None and key in cls.model_fields:
                continue
            if isinstance(entry, list):
                present[key] = [item for item in entry if item is not None]
            elif isinstance(entry, dict) and key in OPEN_KEYS:
                present[key] = {name: item for name, item in entry.items() if item is not None}
            else:
                present[key] = entry
        return present

    @field_validator("*", mode="before")
    @classmethod
    def _check_form(cls, value: object, info: ValidationInfo) -> object:
        """Reject what pydantic would accept or could not bear: true for 1, and very long values."""
        name = info.field_name or ""
        words = _words_of(cls.model_fields[name].annotation)
        if isinstance(value, bool) and "true or false" not in words:
            raise PydanticCustomError("bool", "Input should be {words}", {"words": words})
        is_name = words == "text" and name not in LONG_TEXTS
        if is_name and isinstance(value, str) and len(value) > MAX_NAME:
            problem = "Input should be text of at most {most} characters"
            raise PydanticCustomError("long", problem, {"most": MAX_NAME})
        if name in OPEN_KEYS and isinstance(value, dict) and _longest_key(value) > MAX_NAME:
            problem = "Input should be an object whose keys have at most {most} characters each"
            raise PydanticCustomError("long", problem, {"most": MAX_NAME})
        if words in NUMBERS and _is_too_long(value):
            problem = "Input should be {words} of at most {digits} digits"
            raise PydanticCustomError("digits", problem, {"words": words, "digits": MAX_DIGITS})
        if words in NUMBERS and isinstance(value, str) and "_" in value:
            # Python reads "1_000" as 1000, JSON does not.
            problem = "Input should be {words} without underscores"
            raise PydanticCustomError("digits", problem, {"words": words})
        return value


def _longest_key(value: Mapping[str, object]) -> int:
    return max(map(len, value), default=0)


def _is_too_long(number: object) -> bool:
    """Whether a number, or its text, has more digits than any number that makes sense here."""
    if isinstance(number, str):
        return len(number) > MAX_DIGITS
    return isinstance(number, int) and abs(number) >= 10**MAX_DIGITS


def _words_of(annotation: Any) -> str:
    """The values that a key takes, in the words of JSON."""
    parts = {annotation, *get_args(annotation)}
    parts |= {get_origin(part) for part in parts}
    for part in tuple(parts):
        parts.update(get_args(part))
    for python_type, words in _WORDS.items():
        if python_type in parts:
            return words
    return "a number, text, a list or an object"


class Lora(_Strict):
    """One LoRA, spliced after the model and CLIP loaders."""

    name: str = Field(
        min_length=1,
        description="file name in `loras`; folder and extension may be left out. Or a URL, see "
        "[models](models.md)",
    )
    strength: FiniteFloat = Field(
        1.0, ge=-100, le=100, description="strength for the diffusion model"
    )
    strength_clip: FiniteFloat | None = Field(
        None,
        ge=-100,
        le=100,
        description="strength for the text encoder; default: same as `strength`",
    )


class ControlNet(_Strict):
    """One ControlNet, spliced between the conditioning and the sampler."""

    type: str | None = Field(
        None,
        description="canny, depth, openpose, lineart ...: selects an installed model by name and family",
    )
    model: str | None = Field(
        None,
        description="file name in `controlnet`; folder and extension may be left out. Or a URL",
    )
    image: str = Field(
        min_length=1, description="the control map, or the image from which to make it"
    )
    strength: FiniteFloat = Field(1.0, ge=0, le=10, description="strength of the ControlNet")
    start: FiniteFloat = Field(
        0.0, ge=0, le=1, description="fraction of the sampling at which it starts"
    )
    end: FiniteFloat = Field(
        1.0, ge=0, le=1, description="fraction of the sampling at which it ends"
    )
    preprocess: bool | None = Field(
        None,
        description="make the control map from the image first; default: true for canny, else false",
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> ControlNet:
        if self.type is None and self.model is None:
            raise PydanticCustomError("controlnet", "Input should name a type or a model")
        return self


class Output(_Strict):
    """How what was made comes back."""

    format: Literal["png", "jpeg", "webp"] | None = Field(
        None,
        description="png, jpeg or webp, for images that SaveImage and similar nodes save; default: png",
    )
    quality: int = Field(90, ge=1, le=100, description="quality of jpeg and webp")
    lossless: bool = Field(False, description="use lossless compression for webp")
    metadata: bool = Field(True, description="store the workflow in the image, as ComfyUI does")
    temp: bool = Field(
        False,
        description="also return preview images; if nothing was saved, they are always returned",
    )
    delivery: Literal["base64", "s3"] | None = Field(
        None, description="`base64` or `s3`; default: `s3` if storage is configured, else `base64`"
    )
    shrink: bool = Field(
        False, description="compress or shrink images if the result exceeds RunPod's size limit"
    )
    progress: bool = Field(True, description="report progress while the job runs")
    preview: bool = Field(
        False, description="add a small preview of the sampler's current state to the progress"
    )


def _without_folder_mark(name: str) -> str:
    """A name as ComfyUI writes it after its mask editor, without the folder: ``clipspace/a.png [input]``."""
    return name.removesuffix(" [input]")


class NamedImage(_Strict):
    """One picture that a custom graph names, as worker-comfyui takes it."""

    name: Annotated[str, AfterValidator(_without_folder_mark)] = Field(
        min_length=1, description="the file name that a node such as LoadImage refers to"
    )
    image: str = Field(min_length=1, description="the image: base64, data URI or URL")


class Parameters(_Strict):
    """What is filled into the nodes that hold it, in templates and in custom graphs alike."""

    prompt: str | None = Field(
        None, description="the positive prompt; `<lora:name:0.8>` adds a LoRA"
    )
    negative_prompt: str | None = Field(None, description="the negative prompt")
    seed: int | None = Field(
        None,
        ge=-1,
        description="the seed; -1 draws a random seed below 2**53. Default: a random seed for a "
        "template, the workflow's own for a custom workflow",
    )
    steps: int | None = Field(None, ge=1, description="number of sampling steps")
    cfg: FiniteFloat | None = Field(
        None, ge=0, description="the sampler's classifier-free guidance scale"
    )
    guidance: FiniteFloat | None = Field(
        None,
        ge=0,
        description="embedded guidance (Flux). If a workflow has only one of `cfg` and "
        "`guidance`, both keys set it",
    )
    sampler: str | None = Field(
        None, description="ComfyUI's name of the sampler: euler, dpmpp_2m ..."
    )
    scheduler: str | None = Field(
        None, description="ComfyUI's name of the scheduler: normal, karras ..."
    )
    denoise: FiniteFloat | None = Field(
        None,
        ge=0,
        le=1,
        description="how much to change the start image: 0 keeps it, 1 replaces it",
    )
    width: int | None = Field(
        None,
        ge=1,
        description="width in pixels; must be a multiple of the latent node's step (usually 8)",
    )
    height: int | None = Field(
        None,
        ge=1,
        description="height in pixels; must be a multiple of the latent node's step (usually 8)",
    )
    length: int | None = Field(None, ge=1, description="number of frames of a video")
    fps: FiniteFloat | None = Field(None, gt=0, description="frames per second of a video")
    batch_size: int | None = Field(None, ge=1, description="number of images to make at once")
    checkpoint: str | None = Field(
        None, description="checkpoint file; folder and extension may be left out. Or a URL"
    )
    vae: str | None = Field(
        None, description="VAE file; folder and extension may be left out. Or a URL"
    )


class JobInput(Parameters):
    """``job["input"]``. What is not given keeps the workflow's own value."""

    workflow: Annotated[str | dict[str, Any] | None, BeforeValidator(_graph_or_name)] = Field(
        None,
        description="a template's name; or a custom workflow as ComfyUI saves or exports it "
        "(object or JSON text); or a PNG or WebP that ComfyUI saved (base64 or data URI). "
        "Default: `inpaint` with an image and a mask, `img2img` with an image, else `txt2img`",
    )
    image: str | None = Field(None, description="the start image: base64, data URI or URL")
    mask: str | None = Field(
        None,
        description="the mask: base64, data URI or URL. White areas are repainted (opaque areas, "
        "if the file has an alpha channel)",
    )
    images: tuple[NamedImage, ...] = Field(
        (),
        max_length=MAX_ENTRIES,
        description="images that a custom workflow refers to by file name",
    )
    clip_skip: int | None = Field(
        None,
        ge=1,
        le=24,
        description="last text encoder layer to use, counted from the end: 1 is the last layer",
    )
    loras: tuple[Lora, ...] = Field(
        (), max_length=MAX_ENTRIES, description="LoRAs to add to the workflow, in this order"
    )
    controlnets: tuple[ControlNet, ...] = Field(
        (), max_length=MAX_ENTRIES, description="ControlNets to add to the workflow, in this order"
    )
    parameters: dict[str, Any] = Field(
        {}, description="values for the parameters that a template declares"
    )
    overrides: dict[str, Any] = Field(
        {},
        description='any input of any node, by node id or title: `{"12.scale_by": 2}` or '
        '`{"12": {"scale_by": 2}}`. A key with a dot is split at its last dot',
    )
    output: Output = Field(default_factory=Output, description="format and delivery of the result")

    response: ResponseFormat | None = Field(
        None,
        description="format of the response, see [dialects](dialects.md); default: `RESPONSE_FORMAT`",
    )

    validate_only: bool = Field(
        False, description="build and check the workflow, but do not run it"
    )

    @field_validator("images")
    @classmethod
    def _check_names(cls, images: tuple[NamedImage, ...]) -> tuple[NamedImage, ...]:
        """Reject two different pictures of one name: only one of them could be used."""
        pictures: dict[str, str] = {}
        for image in images:
            if pictures.setdefault(image.name, image.image) != image.image:
                problem = "Input should hold one picture per name, but '{name}' has different ones"
                raise PydanticCustomError("names", problem, {"name": brief(image.name)})
        return images

    @field_validator("overrides")
    @classmethod
    def _flatten_overrides(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        """Write ``{"12": {"scale_by": 2}}`` as ``{"12.scale_by": 2}``."""
        flat: dict[str, Any] = {}
        for key, value in overrides.items():
            if "." in key or not isinstance(value, dict):
                flat[key] = value
                continue
            for name, entry in value.items():
                flat[f"{key}.{name}"] = entry
        return flat

    @classmethod
    def read(
        cls,
        value: object,
        client_words: Mapping[str, str] | None = None,
        known_words: Iterable[str] = (),
        check: Callable[[], None] | None = None,
    ) -> JobInput:
        """Read ``job["input"]``.

        Args:
            value: the request in the keys of this class.
            client_words: by key, the word that the client used for it; errors name that word.
            known_words: words beside the keys that an error may suggest for an unknown key.
            check: raises where the job must end; called now and then.

        Raises:
            InvalidInput: the value is not an object, or keys hold wrong values; the details list all.
            UnknownKey: a key is unknown; the error names the nearest known one.
        """
        if not isinstance(value, dict):
            example = '{"prompt": "a lighthouse"}'
            raise InvalidInput(
                f"input must be an object such as {example}, not {_json_type(value)}"
            )
        try:
            return cls.model_validate(value, context={"check": check})
        except ValidationError as error:
            raise _input_error(error, client_words or {}, known_words) from None


def _json_type(value: object) -> str:
    """The type of a value, in the words of JSON."""
    if value is None:
        return "null"
    names = {str: "text", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def _input_error(
    error: ValidationError, client_words: Mapping[str, str], known_words: Iterable[str]
) -> InputError:
    """Turn pydantic's findings into one error of ours. An unknown key comes first."""
    findings = error.errors(include_url=False)
    unknown = [finding for finding in findings if finding["type"] == "extra_forbidden"]
    shown = findings[:MAX_FINDINGS]
    if unknown and unknown[0] not in shown:
        shown[-1] = unknown[0]
    details = [_finding(finding, client_words, known_words) for finding in shown]
    first = details[shown.index(unknown[0])] if unknown else details[0]
    sentence = first["problem"]
    if len(findings) > len(details):
        sentence += f" ({len(findings) - 1} more findings, the first {len(details)} in the details)"
    elif len(details) > 1:
        sentence += f" ({len(details) - 1} more in the details)"
    return UnknownKey(sentence, details) if unknown else InvalidInput(sentence, details)


# By pydantic's type of error, what the value must be, in the words of JSON.
_PLAIN = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "dict_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_too_short": "some text",
    "too_long": f"a list of at most {MAX_ENTRIES} entries",
}


def _finding(
    finding: ErrorDetails, client_words: Mapping[str, str], known_words: Iterable[str]
) -> dict[str, Any]:
    """One entry of an error's details."""
    first, *rest = map(str, finding["loc"])
    key = brief(".".join([client_words.get(first, first), *rest]), 200)
    if finding["type"] == "extra_forbidden":
        return _unknown_key(finding, key, known_words)
    if finding["type"] == "missing":
        return {"key": key, "problem": f"{key} is missing"}
    plain = _PLAIN.get(finding["type"])
    demand = f"be {plain}" if plain else finding["msg"].removeprefix("Input should ")
    problem = f"{key} must {demand}"
    value = finding["input"]
    if isinstance(value, (int, float, str)) and len(str(value)) <= MAX_QUOTED:
        problem += f", not {json.dumps(value)}"
    return {"key": key, "problem": problem}


def _unknown_key(finding: ErrorDetails, key: str, known_words: Iterable[str]) -> dict[str, Any]:
    """The entry for an unknown key, with the nearest known one."""
    nested: dict[object, type[BaseModel]] = {
        "loras": Lora,
        "controlnets": ControlNet,
        "images": NamedImage,
        "output": Output,
    }
    *parents, name = finding["loc"]
    if parents:
        keys = list(nested[parents[0]].model_fields)
        near = nearest(str(name), keys, 1)
    else:
        keys = list(JobInput.model_fields)
        near = nearest(str(name), [*keys, *known_words], 1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(keys)}"
    return {
        "key": key,
        "problem": f"{brief(key) or 'an empty name'} is not a key of the input; {hint}",
        "nearest": near[0] if near else None,
    }
