"""Declares the keys of a job's input.

Each key is declared once. Reading, errors, the command `schema` and ``docs/input.md``
follow from that declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from pydantic_core import PydanticCustomError

from comfy_worker.errors import InvalidInput, brief
from comfy_worker.json_values import find_problem
from comfy_worker.request.graph_wrappers import (
    asset_reference,
    looks_like_json,
    parse_graph_text,
    unwrap_graph,
)
from comfy_worker.request.schema_errors import MAX_ENTRIES, InputKeys, input_error, json_type
from comfy_worker.response_formats import ResponseFormat

__all__ = [
    "SEED_LIMIT",
    "ControlNet",
    "JobInput",
    "Lora",
    "NamedImage",
    "Output",
    "Parameters",
    "input_schema",
    "nullable",
]

SEED_LIMIT = 2**53
# Of names of files and of nodes' inputs, URLs included. Prompts, pictures and graphs may be longer.
MAX_NAME = 4000
LONG_TEXTS = ("prompt", "negative_prompt", "image", "mask", "workflow")
# Longer than any number that makes sense here.
MAX_DIGITS = 40
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
    graph = unwrap_graph(value)
    if isinstance(graph, dict):
        _refuse_asset_references(graph)
    return graph


def _refuse_asset_references(graph: Mapping[str, Any]) -> None:
    found = asset_reference(graph)
    if found is not None:
        raise InvalidInput(
            f"{brief(found)} refers to an asset of Comfy's API v2, which this worker does not "
            "have; send the file in its place as a URL or data URI, or send the job to the "
            "/api/v2 of the local endpoint",
            [{"key": "workflow", "input": brief(found), "problem": "an asset is not here"}],
        )


def _graph_in_text(text: str, check: Callable[[], None] | None) -> object:
    """Return the JSON in a text."""
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
        """Leave out nulls: a null as the value of a key, or in a list, counts as absent."""
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
        """Reject what pydantic would accept: true for 1, and very long values."""
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
    """Return whether a number, or its text, has more digits than any useful number."""
    if isinstance(number, str):
        return len(number) > MAX_DIGITS
    return isinstance(number, int) and abs(number) >= 10**MAX_DIGITS


def _words_of(annotation: Any) -> str:
    """Return the values that a key takes, in the words of JSON."""
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
    target: str | None = Field(
        None,
        min_length=1,
        description="the model that it is meant for, if the workflow has several: `high` or `low` "
        "(Wan 2.2), `base` or `refiner`, or the id or title of a node. Default: by the names of a "
        "pair, see below; else all models",
    )


class ControlNet(_Strict):
    """One ControlNet, spliced between the conditioning and the sampler."""

    type: str | None = Field(
        None,
        description="canny, depth, openpose, lineart ...: selects an installed model by name and "
        "family",
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
        description="make the control map from the image first; default: true for canny, else "
        "false",
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> ControlNet:
        if self.type is None and self.model is None:
            raise PydanticCustomError("controlnet", "Input should name a type or a model")
        return self


class Output(_Strict):
    """The format and delivery of the result."""

    format: Literal["png", "jpeg", "webp"] | None = Field(
        None,
        description="png, jpeg or webp, for images that SaveImage and similar nodes save; default: "
        "png",
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
    """Remove the folder mark that the mask editor appends: ``clipspace/a.png [input]``."""
    return name.removesuffix(" [input]")


class NamedImage(_Strict):
    """A picture that a custom graph names, in the form of worker-comfyui."""

    name: Annotated[str, AfterValidator(_without_folder_mark)] = Field(
        min_length=1, description="the file name that a node such as LoadImage refers to"
    )
    image: str = Field(min_length=1, description="the image: base64, data URI or URL")


class Parameters(_Strict):
    """Values that are written into the nodes of a template or of a custom graph."""

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
    """``job["input"]``. Without a key, the workflow's own value stays."""

    workflow: Annotated[str | dict[str, Any] | None, BeforeValidator(_graph_or_name)] = Field(
        None,
        description="a template's name; or a custom workflow as ComfyUI saves or exports it "
        "(object or JSON text); or a PNG or WebP that ComfyUI saved (base64 or data URI). "
        "Default: `inpaint` with an image and a mask, `img2img` with an image, else `txt2img`",
    )
    image: str | None = Field(
        None,
        description="the start image: base64, data URI or URL. Or the start video, for a template "
        "that takes one",
    )
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
        description="format of the response, see [dialects](dialects.md); default: "
        "`RESPONSE_FORMAT`",
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
        """Write ``{"12": {"scale_by": 2}}`` as ``{"12.scale_by": 2}``, without nulls."""
        flat: dict[str, Any] = {}
        for key, value in _flat_entries(overrides):
            if flat.setdefault(key, value) != value:
                problem = "Input should hold one value per input, but '{key}' has different ones"
                raise PydanticCustomError("values", problem, {"key": brief(key)})
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
            check: called repeatedly; raises if the job must end.

        Raises:
            InvalidInput: the value is not an object, or keys have wrong values; details list all.
            UnknownKey: a key is unknown; the error names the nearest known one.
        """
        if not isinstance(value, dict):
            example = '{"prompt": "a lighthouse"}'
            raise InvalidInput(f"input must be an object such as {example}, not {json_type(value)}")
        try:
            return cls.model_validate(value, context={"check": check})
        except ValidationError as error:
            keys = InputKeys(list(JobInput.model_fields), _nested_keys(), tuple(known_words))
            raise input_error(error, keys, client_words or {}) from None


def _flat_entries(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in overrides.items():
        if "." in key or not isinstance(value, dict):
            yield key, value
            continue
        for name, entry in value.items():
            if entry is not None:
                yield f"{key}.{name}", entry


def input_schema(max_batch_size: int | None = None) -> dict[str, Any]:
    """Return the JSON Schema of the input of any request, in the keys of :class:`JobInput`.

    It says what the validation above does beside pydantic: a null is the same as no key or no
    entry, and a name has a greatest length.

    Args:
        max_batch_size: how many pictures at once the endpoint allows; None: any number.
    """
    schema = JobInput.model_json_schema()
    if max_batch_size is not None:
        schema["properties"]["batch_size"]["anyOf"][0]["maximum"] = max_batch_size
    objects: list[tuple[type[BaseModel], dict[str, Any]]] = [(JobInput, schema)]
    objects += [(model, schema["$defs"][model.__name__]) for model in NESTED.values()]
    for model, part in objects:
        required = part.get("required", ())
        for key, entry in part["properties"].items():
            if key not in LONG_TEXTS and _words_of(model.model_fields[key].annotation) == "text":
                _limit_texts(entry)
            if entry.get("type") == "boolean" or BOOLEAN in entry.get("anyOf", ()):
                _let_words_be_booleans(entry)
            entry.pop("title", None)
            if "items" in entry:
                entry["items"] = nullable(entry["items"])
            if key not in required:
                part["properties"][key] = nullable(entry)
    schema["$defs"]["ControlNet"]["anyOf"] = [
        {"required": [key], "properties": {key: {"type": "string"}}} for key in ("type", "model")
    ]
    return schema


def _limit_texts(entry: dict[str, Any]) -> None:
    for part in (entry, *entry.get("anyOf", ())):
        if part.get("type") == "string" and "enum" not in part:
            part["maxLength"] = MAX_NAME


def _let_words_be_booleans(entry: dict[str, Any]) -> None:
    """Write down the numbers and texts that pydantic reads as true or false."""
    entry.pop("type", None)
    entry["anyOf"] = [BOOLEAN, {"enum": [0, 1]}, {"type": "string", "pattern": BOOLEAN_WORDS}]


def nullable(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that accepts null too."""
    schema = {key: value for key, value in entry.items() if (key, value) != ("default", None)}
    if "$ref" in schema:
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}]
    if "anyOf" in schema:
        others = [part for part in schema["anyOf"] if part != NULL]
        return {**schema, "anyOf": [*others, NULL]}
    if "enum" in schema:
        schema["enum"] = list(dict.fromkeys([*schema["enum"], None]))
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return schema


def _nested_keys() -> dict[str, list[str]]:
    """Return the keys of the objects that some keys of the input hold."""
    return {key: list(model.model_fields) for key, model in NESTED.items()}


NESTED: dict[str, type[BaseModel]] = {
    "loras": Lora,
    "controlnets": ControlNet,
    "images": NamedImage,
    "output": Output,
}
NULL = {"type": "null"}
BOOLEAN = {"type": "boolean"}
# In any case; patterns of JSON Schema have no flag for that.
BOOLEAN_WORDS = (
    "^([01fFnNtTyY]|[oO][nN]|[oO][fF][fF]|[nN][oO]|[yY][eE][sS]|[tT][rR][uU][eE]"
    "|[fF][aA][lL][sS][eE])$"
)
