"""The contract: what a job's input may hold, and what its result holds.

One declaration a key: reading, errors, ``python -m comfy_worker schema`` and ``docs/input.md`` follow from it.
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
# Names, of a file or of a node's input: a URL is the longest. Prompts, pictures and graphs may be longer.
MAX_NAME = 4000
LONG_TEXTS = ("prompt", "negative_prompt", "image", "mask", "workflow")
# Whatever a number means here, it is not longer.
MAX_DIGITS = 40
# Of a list. Each LoRA becomes a node, and each picture is decoded.
MAX_ENTRIES = 200
# How many findings an error lists.
MAX_FINDINGS = 20
# Keys that hold an object of a client's own names.
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
    """Read a graph that arrives as JSON text, or wrapped as in a body for ComfyUI's ``/prompt``.

    A picture stays the text that it is; :mod:`comfy_worker.planning.embedded_workflow` reads it.
    """
    if isinstance(value, str) and looks_like_json(value):
        try:
            value = parse_graph_text(value)
        except ValueError as error:
            raise PydanticCustomError("json", "Input should be a template's name or a graph as JSON") from error
        check = (info.context or {}).get("check")
        if (problem := find_problem(value, finite=False, check=check)) is not None:
            raise InvalidInput(f"workflow holds {problem}", [{"key": "workflow", "problem": problem}])
    if not isinstance(value, (str, dict)):
        raise PydanticCustomError("workflow", "Input should be a template's name or a graph")
    return unwrap_graph(value)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        """Null counts as "not given" for each key, and within lists of entries."""
        if not isinstance(value, dict):
            return value
        present = {key: entry for key, entry in value.items() if entry is not None or key not in cls.model_fields}
        for key, entry in present.items():
            if isinstance(entry, list):
                present[key] = [item for item in entry if item is not None]
            elif key in OPEN_KEYS and isinstance(entry, dict):
                present[key] = {name: item for name, item in entry.items() if item is not None}
        return present

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        words = _words_of(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and "true or false" not in words:
            raise PydanticCustomError("bool", "Input should be {words}", {"words": words})
        if (
            words == "text"
            and isinstance(value, str)
            and info.field_name not in LONG_TEXTS
            and len(value) > MAX_NAME
        ):
            raise PydanticCustomError(
                "long", "Input should be text of at most {most} characters", {"most": MAX_NAME}
            )
        if info.field_name in OPEN_KEYS and isinstance(value, dict) and max(map(len, value), default=0) > MAX_NAME:
            problem = "Input should be an object whose keys have at most {most} characters each"
            raise PydanticCustomError("long", problem, {"most": MAX_NAME})
        if words in NUMBERS and _is_too_long(value):
            problem = "Input should be {words} of at most {digits} digits"
            raise PydanticCustomError("digits", problem, {"words": words, "digits": MAX_DIGITS})
        return value


def _is_too_long(number: object) -> bool:
    """Whether a number, or the text of one, has more digits than any number here means."""
    if isinstance(number, str):
        return len(number) > MAX_DIGITS
    return isinstance(number, int) and abs(number) >= 10**MAX_DIGITS


def _words_of(annotation: Any) -> str:
    """What a key takes, in a client's words."""
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
        description="file in `loras`, with or without folder and extension; or a URL, see [models](models.md)",
    )
    strength: FiniteFloat = Field(1.0, ge=-100, le=100, description="how strongly it changes the diffusion model")
    strength_clip: FiniteFloat | None = Field(
        None, ge=-100, le=100, description="how strongly it changes the text encoder; `strength` if absent"
    )


class ControlNet(_Strict):
    """One ControlNet, spliced between the conditioning and the sampler."""

    type: str | None = Field(
        None, description="canny, depth, openpose, lineart ...; finds the model file by name and family"
    )
    model: str | None = Field(
        None, description="file in `controlnet`, with or without folder and extension; or a URL"
    )
    image: str = Field(min_length=1, description="the control map, or the picture to make it from")
    strength: FiniteFloat = Field(1.0, ge=0, le=10, description="how strongly it acts")
    start: FiniteFloat = Field(0.0, ge=0, le=1, description="where in the sampling it begins")
    end: FiniteFloat = Field(1.0, ge=0, le=1, description="where in the sampling it ends")
    preprocess: bool | None = Field(
        None, description="whether the control map is made from the picture first; true for canny if absent"
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> ControlNet:
        if self.type is None and self.model is None:
            raise PydanticCustomError("controlnet", "Input should name a type or a model")
        return self


class Output(_Strict):
    """How what was made comes back."""

    format: Literal["png", "jpeg", "webp"] | None = Field(
        None, description="png, jpeg or webp, of pictures that SaveImage and its kin save; png if absent"
    )
    quality: int = Field(90, ge=1, le=100, description="of jpeg and webp")
    lossless: bool = Field(False, description="whether webp keeps every pixel as it is")
    metadata: bool = Field(True, description="whether pictures hold the graph that made them, as ComfyUI keeps it")
    temp: bool = Field(
        False, description="whether what nodes only preview comes back too; it does where there is nothing else"
    )
    delivery: Literal["base64", "s3"] | None = Field(
        None, description="`base64` or `s3`; `s3` if absent and storage is configured"
    )
    shrink: bool = Field(
        False, description="whether pictures are re-encoded where the result is larger than RunPod takes"
    )
    progress: bool = Field(True, description="whether the job tells how far it is")
    preview: bool = Field(False, description="whether its progress carries a small picture of the sampler's state")


def _without_folder_mark(name: str) -> str:
    """A name as ComfyUI writes it after its mask editor, without the folder: ``clipspace/a.png [input]``."""
    return name.removesuffix(" [input]")


class NamedImage(_Strict):
    """One picture that a custom graph names, as worker-comfyui takes it."""

    name: Annotated[str, AfterValidator(_without_folder_mark)] = Field(
        min_length=1, description="the file that a node such as LoadImage names"
    )
    image: str = Field(min_length=1, description="the picture, stored under a name of our own")


class Parameters(_Strict):
    """What is filled into the nodes that hold it, in templates and in custom graphs alike."""

    prompt: str | None = Field(None, description="what to show; `<lora:name:0.8>` in it becomes a LoRA")
    negative_prompt: str | None = Field(None, description="what not to show")
    seed: int | None = Field(
        None,
        ge=-1,
        description="-1: a fresh one below 2**53 is drawn and reported; absent: the same, but a custom graph "
        "keeps its own",
    )
    steps: int | None = Field(None, ge=1, description="sampling steps")
    cfg: FiniteFloat | None = Field(None, ge=0, description="the sampler's classifier-free guidance scale")
    guidance: FiniteFloat | None = Field(
        None,
        ge=0,
        description="embedded guidance (Flux); in a graph with only one of the two either word means it",
    )
    sampler: str | None = Field(None, description="as ComfyUI names it: euler, dpmpp_2m ...")
    scheduler: str | None = Field(None, description="as ComfyUI names it: normal, karras ...")
    denoise: FiniteFloat | None = Field(None, ge=0, le=1, description="how much of the start image is made anew")
    width: int | None = Field(None, ge=1, description="pixels, on the step of the graph's latent node")
    height: int | None = Field(None, ge=1, description="pixels, on the step of the graph's latent node")
    length: int | None = Field(None, ge=1, description="frames of a video")
    fps: FiniteFloat | None = Field(None, gt=0, description="frames a second of a video")
    batch_size: int | None = Field(None, ge=1, description="pictures at once")
    checkpoint: str | None = Field(None, description="model file, with or without folder and extension; or a URL")
    vae: str | None = Field(None, description="VAE file, with or without folder and extension; or a URL")


class JobInput(Parameters):
    """``job["input"]``. What is not given keeps the workflow's own value."""

    workflow: Annotated[str | dict[str, Any] | None, BeforeValidator(_graph_or_name)] = Field(
        None,
        description="a template's name, or a custom graph as ComfyUI saves or exports it (object or JSON string), "
        "or a PNG or WebP that ComfyUI saved (base64 or data URI); "
        "absent: `inpaint` with an image and a mask, `img2img` with an image, else `txt2img`",
    )
    image: str | None = Field(None, description="start image: base64, data URI or URL")
    mask: str | None = Field(None, description="white, or opaque, is made anew: base64, data URI or URL")
    images: tuple[NamedImage, ...] = Field(
        (), max_length=MAX_ENTRIES, description="the pictures that a custom graph names"
    )
    clip_skip: int | None = Field(
        None, ge=1, le=24, description="1: the text encoder's last layer, 2: the one before"
    )
    loras: tuple[Lora, ...] = Field(
        (), max_length=MAX_ENTRIES, description="LoRAs, spliced into any graph in order"
    )
    controlnets: tuple[ControlNet, ...] = Field(
        (), max_length=MAX_ENTRIES, description="ControlNets, spliced into any graph in order"
    )
    parameters: dict[str, Any] = Field({}, description="values for further parameters that a template declares")
    overrides: dict[str, Any] = Field(
        {}, description='any input of any node, by id or title: `{"12.scale_by": 2}`, split at the last dot'
    )
    output: Output = Field(default_factory=Output, description="how what was made comes back")

    response: ResponseFormat | None = Field(
        None, description="the shape of the answer, see [dialects](dialects.md); `RESPONSE_FORMAT` if absent"
    )

    validate_only: bool = Field(False, description="build the graph and check it, queue nothing")

    @classmethod
    def read(
        cls,
        value: object,
        said: Mapping[str, str] | None = None,
        further: Iterable[str] = (),
        check: Callable[[], None] | None = None,
    ) -> JobInput:
        """Read ``job["input"]``.

        Args:
            value: what was sent, in the contract's words.
            said: by key, the client's own word for it, for the errors.
            further: words that are known beside the keys, for the nearest to an unknown one.
            check: raises where the job must end; called now and then.

        Raises:
            InvalidInput: it is no object, or a key holds a wrong value; all of them are in the details.
            UnknownKey: a key that is not in the contract, with the nearest one that is.
        """
        if not isinstance(value, dict):
            raise InvalidInput(
                f'input must be an object such as {{"prompt": "a lighthouse"}}, not {_json_kind(value)}'
            )
        try:
            return cls.model_validate(value, context={"check": check})
        except ValidationError as error:
            raise _input_error(error, said or {}, further) from None


def _json_kind(value: object) -> str:
    kinds = {str: "text", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def _input_error(error: ValidationError, said: Mapping[str, str], further: Iterable[str]) -> InputError:
    """Pydantic's findings as one error: an unknown key is named with the nearest known one."""
    findings = error.errors(include_url=False)
    unknown = [finding for finding in findings if finding["type"] == "extra_forbidden"]
    shown = findings[:MAX_FINDINGS]
    if unknown and unknown[0] not in shown:
        shown[-1] = unknown[0]
    details = [_finding(finding, said, further) for finding in shown]
    first = details[shown.index(unknown[0])] if unknown else details[0]
    sentence = first["problem"]
    if len(findings) > len(details):
        sentence += f" ({len(findings) - 1} more findings, the first {len(details)} in the details)"
    elif len(details) > 1:
        sentence += f" ({len(details) - 1} more in the details)"
    return UnknownKey(sentence, details) if unknown else InvalidInput(sentence, details)


# What pydantic says in its own words, in those of a client who knows JSON.
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


def _finding(finding: ErrorDetails, said: Mapping[str, str], further: Iterable[str]) -> dict[str, Any]:
    *parents, last = finding["loc"]
    first, *rest = map(str, finding["loc"])
    key = brief(".".join([said.get(first, first), *rest]), 200)
    if finding["type"] == "extra_forbidden":
        nested: dict[object, type[BaseModel]] = {
            "loras": Lora,
            "controlnets": ControlNet,
            "images": NamedImage,
            "output": Output,
        }
        form = nested[parents[0]] if parents else JobInput
        known = [*form.model_fields, *(() if parents else further)]
        near = nearest(str(last), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(form.model_fields)}"
        return {
            "key": key,
            "problem": f"{brief(key) or 'an empty name'} is not a key of the input; {hint}",
            "nearest": near[0] if near else None,
        }
    if finding["type"] == "missing":
        return {"key": key, "problem": f"{key} is missing"}
    plain = _PLAIN.get(finding["type"])
    demand = f"be {plain}" if plain else finding["msg"].removeprefix("Input should ")
    given = finding["input"]
    shown = f", not {json.dumps(given)}" if isinstance(given, (int, float, str)) and len(str(given)) <= 40 else ""
    return {"key": key, "problem": f"{key} must {demand}{shown}"}
