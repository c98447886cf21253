"""Translates the words of other workers' requests into the keys of our own input.

A known word that this worker cannot act on becomes a warning. An unknown word stays in the input,
and :meth:`~comfy_worker.request.schema.JobInput.read` rejects it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_worker.errors import InvalidInput, InvalidValue, brief
from comfy_worker.request import dialect_names as words
from comfy_worker.request.dialect_addons import (
    controlnet_entries,
    from_unit,
    lora_entries,
    without_hash,
)
from comfy_worker.request.dialect_values import (
    checked_api_key,
    count_at,
    flag_at,
    number_at,
    object_at,
    of_type,
    refuse_unusable,
)
from comfy_worker.request.graph_wrappers import unwrap_input
from comfy_worker.request.public_endpoints import (
    file_overrides,
    image_format,
    pair_of_numbers,
    sides_of_ratio,
    texts_as_images,
)
from comfy_worker.request.schema import JobInput
from comfy_worker.response_formats import ResponseFormat

__all__ = ["API_NAMES", "KNOWN_WORDS", "OPTIONS_CALLS", "TranslatedInput", "translate"]

OPTIONS_CALLS = ("getModels", "getOptions", "setOptions")
"""The calls of A1111's API that make no picture."""

API_NAMES = ("txt2img", "img2img", *OPTIONS_CALLS)

KNOWN_WORDS = (*words.RENAMED, *words.STRUCTURED, *words.HIRES, *words.IGNORED, *words.NO_EFFECT)
"""The words of other workers; only a few of them are keys of our own input too."""

MAX_WARNINGS = 100

# The defaults of RunPod's SDXL worker.
SDXL_STEPS, SDXL_HIGH_NOISE_FRAC = 25, 0.8

# Values that turn an option off, whatever the option.
NO_VALUES: tuple[Any, ...] = (None, False, "", 0, -1, [], {})
# Values of A1111's options that leave the choice to the worker.
NO_OPTIONS: tuple[Any, ...] = (None, "", "None", "Automatic", 1)


@dataclass(frozen=True)
class TranslatedInput:
    """A request in the keys of our own input.

    Attributes:
        raw_input: ``job["input"]`` as the client sent it.
        input: what :meth:`JobInput.read` takes.
        warnings: one sentence for each word that is ignored.
        client_words: by key, the word that the client used. If a graph has no input for such a key,
            the result has a warning; for a key of our own it would be an error.
        response: the shape of answer that the dialect expects; None for the endpoint's default.
        api_name: the name of the A1111 route; None in a request without one.
        extra_data: secrets that ComfyUI's API nodes need beside the prompt.
    """

    raw_input: Any
    input: Any
    warnings: list[str] = field(default_factory=list)
    client_words: dict[str, str] = field(default_factory=dict)
    response: ResponseFormat | None = None
    api_name: str | None = None
    extra_data: dict[str, str] = field(default_factory=dict, repr=False)


def translate(value: object, check: Callable[[], None] | None = None) -> TranslatedInput:
    """Translate a request of any known dialect.

    Args:
        value: ``job["input"]`` as the client sent it.
        check: called repeatedly; raises if the job must end.

    Raises:
        InvalidValue: the ``api_name`` is unknown.
        InvalidInput: a word's value has the wrong form, or holds what no JSON should.
        UnknownKey: a word that other workers use for a graph has no graph.
    """
    value = unwrap_input(value)
    if not isinstance(value, dict):
        return TranslatedInput(value, value)
    refuse_unusable(value, check)
    api_name = value.get("api_name")
    if api_name is None:
        return _Translation(value, value, a1111=False).read()
    if api_name not in API_NAMES:
        raise InvalidValue(
            f"api_name must be one of {', '.join(API_NAMES)}, not '{brief(api_name)}'",
            [{"key": "api_name", "value": brief(api_name), "known": list(API_NAMES)}],
        )
    rest = {word: entry for word, entry in value.items() if word != "api_name"}
    if api_name not in ("txt2img", "img2img"):
        return TranslatedInput(value, rest, api_name=api_name)
    has_picture = rest.get("init_images") or rest.get("image")
    if api_name == "img2img" and not has_picture:
        raise InvalidInput(
            "init_images is missing: img2img needs a list with a picture", [{"key": "init_images"}]
        )
    rest["override_settings"] = object_at(rest, "override_settings")
    return _Translation(value, rest, a1111=True).read(api_name)


def _at_most(warnings: list[str]) -> list[str]:
    """Keep the first warnings and count the others: a request may have very many unknown keys."""
    if len(warnings) <= MAX_WARNINGS:
        return warnings
    return [*warnings[:MAX_WARNINGS], f"{len(warnings) - MAX_WARNINGS:,} more words are ignored"]


class _Translation:
    """The translation of one request.

    Args:
        raw_input: ``job["input"]`` as the client sent it.
        request: the words to read.
        a1111: whether words that several dialects share have A1111's meaning.
    """

    def __init__(
        self, raw_input: Mapping[str, Any], request: Mapping[str, Any], *, a1111: bool
    ) -> None:
        self._raw_input = raw_input
        known = {*JobInput.model_fields, *KNOWN_WORDS}
        # Words that are not read yet.
        self._left: dict[str, Any] = {}
        for word, value in request.items():
            if value is not None or word not in known:
                self._left[word] = value
        # Keys of our own input that are set, and the client's words for them.
        self._out: dict[str, Any] = {}
        self._client_words: dict[str, str] = {}
        self._warnings: list[str] = []
        # The answer's format in the dialect of the words read so far.
        self._response: ResponseFormat | None = "a1111" if a1111 else None
        self._a1111 = a1111

    def read(self, api_name: str | None = None) -> TranslatedInput:
        """Translate all words. Each step takes its words out; what is left is in our own keys."""
        key = checked_api_key(self._left.pop("comfy_org_api_key", None))
        self._rename()
        self._init_images()
        self._public_endpoint()
        self._comfy_gen()
        self._sampling()
        self._count()
        self._settings()
        self._add_ons()
        self._scripts()
        self._refiner()
        self._hires_and_strength()
        self._ignore_the_rest()
        return TranslatedInput(
            raw_input=self._raw_input,
            input={**self._out, **self._left},
            warnings=_at_most(self._warnings),
            client_words=self._client_words,
            response=self._response,
            api_name=api_name,
            extra_data={} if key is None else {"api_key_comfy_org": key},
        )

    def _has(self, key: str) -> bool:
        return key in self._left or key in self._out

    def _get(self, key: str, default: Any = None) -> Any:
        return self._left.get(key, self._out.get(key, default))

    def _take(self, names: Iterable[str]) -> dict[str, Any]:
        """Take words out of the request."""
        return {word: self._left.pop(word) for word in names if word in self._left}

    def _put(self, key: str, word: str, value: Any) -> None:
        """Set a key of our own input, unless the client has set it."""
        if not self._has(key):
            self._out[key] = value
            self._client_words[key] = word
        elif self._get(key) != value:
            self._ignore(word, f"{self._client_words.get(key, key)} is set as well")

    def _put_parameter(self, name: str, value: Any) -> None:
        """Set a parameter of a template, unless it is set already."""
        self._left["parameters"] = {name: value, **object_at(self._left, "parameters")}

    def _ignore(self, word: str, reason: str = "this worker has nothing like it") -> None:
        self._warnings.append(f"{brief(word)} is ignored: {reason}")

    def _rename(self) -> None:
        for word, key in words.RENAMED.items():
            value = self._left.pop(word, None)
            if value is None:
                continue
            if key not in words.STRUCTURED:
                self._put(key, word, value)
            elif not self._left.get(key):
                self._left[key] = value

    def _init_images(self) -> None:
        pictures = self._left.pop("init_images", None)
        if pictures is None:
            return
        if isinstance(pictures, list):
            pictures = [picture for picture in pictures if picture is not None]
        if not isinstance(pictures, list) or not pictures:
            raise InvalidInput(
                "init_images must be a list with a picture", [{"key": "init_images"}]
            )
        if len(pictures) > 1:
            self._warnings.append("init_images: only the first picture is used")
        self._put("image", "init_images", pictures[0])

    def _public_endpoint(self) -> None:
        """Translate the words of RunPod's public endpoints, which answer with ``image_url``."""
        sent = self._take(words.PUBLIC_ENDPOINT)
        if sent:
            self._response = "image_url"
        self._size_in_one_word(sent)
        for word in ("image_format", "output_format"):
            if word in sent:
                output = object_at(self._left, "output")
                self._left["output"] = {"format": image_format(word, sent[word]), **output}
        self._images_as_texts()
        self._loras_by_path()

    def _size_in_one_word(self, sent: Mapping[str, Any]) -> None:
        ratio = sent.get("aspect_ratio", "custom")
        if "size" in sent:
            word, sides = "size", pair_of_numbers("size", sent["size"])
        elif ratio != "custom":
            word, sides = "aspect_ratio", sides_of_ratio(ratio, sent.get("resolution"))
        else:
            if "resolution" in sent:
                self._ignore("resolution", "it needs aspect_ratio beside it")
            return
        if word == "aspect_ratio" and self._has_other_sides(sides):
            self._ignore(word, "width or height is set as well")
            return
        self._put("width", word, sides[0])
        self._put("height", word, sides[1])

    def _has_other_sides(self, sides: tuple[int, int]) -> bool:
        """Return whether the client has set a side that differs from a width and a height."""
        sent = (self._get("width", sides[0]), self._get("height", sides[1]))
        return sent != sides

    def _images_as_texts(self) -> None:
        texts = texts_as_images(self._left.get("images"))
        if texts is None:
            return
        self._response = self._response or "image_url"
        del self._left["images"]
        self._put("image", "images", texts[0])
        if len(texts) > 1 and "workflow" not in self._left:
            self._warnings.append("images: only the first picture is used; name a `workflow`")
            return
        # Templates for several pictures have the parameters image2, image3 ...
        for number, text in enumerate(texts[1:], start=2):
            self._put_parameter(f"image{number}", text)

    def _loras_by_path(self) -> None:
        entries = self._left.get("loras")
        if isinstance(entries, list):
            self._left["loras"] = lora_entries(entries)

    def _comfy_gen(self) -> None:
        """Translate the words of comfy-gen's client."""
        if self._left.get("command") is not None:
            raise InvalidInput(
                f"command {brief(repr(self._left['command']))} belongs to comfy-gen's own worker; "
                "this worker takes jobs only: send a `workflow`",
                [{"key": "command"}],
            )
        if self._left.pop("timeout", None) is not None:
            self._ignore("timeout", 'send `"policy": {"executionTimeout": ...}` beside `input`')
        files = self._left.pop("file_inputs", None)
        if files is not None:
            overrides = object_at(self._left, "overrides")
            self._left["overrides"] = {**file_overrides(files), **overrides}

    def _sampling(self) -> None:
        word, sampler = "sampler_name", self._left.pop("sampler_name", None)
        own = self._left.get("sampler")
        if not sampler and isinstance(own, str) and _is_foreign_sampler(own):
            word, sampler = "sampler", self._left.pop("sampler")
        schedule = self._left.get("scheduler")
        if isinstance(schedule, str):
            known = words.find_scheduler(schedule)
            if schedule != known and self._is_schedule(schedule, known, sampler):
                del self._left["scheduler"]
                if known:
                    self._put("scheduler", "scheduler", known)
            elif schedule != known and _means_sampler(schedule):
                del self._left["scheduler"]
                if not sampler:
                    word, sampler = "scheduler", schedule
        if sampler:
            self._sampler(word, sampler)

    def _is_schedule(self, schedule: str, known: str | None, sampler: Any) -> bool:
        """Return whether a name means a schedule.

        DDIM is a schedule in A1111 and a sampler in diffusers.
        """
        if known is None:
            return False
        return bool(sampler) or self._a1111 or not _means_sampler(schedule)

    def _sampler(self, word: str, name: Any) -> None:
        found = words.find_sampling(name) if isinstance(name, str) else None
        if found is not None:
            if found.is_nearest:
                self._warnings.append(
                    f"{word} {brief(name)}: {found.sampler} is used, the nearest sampler of ComfyUI"
                )
            self._put("sampler", word, found.sampler)
            if not self._has("scheduler"):
                self._put("scheduler", word, found.scheduler)
        elif isinstance(name, str) and words.is_not_here(name):
            self._ignore(word, f"ComfyUI has nothing like {brief(name)}")
        else:
            self._put("sampler", word, name)

    def _count(self) -> None:
        """Translate the number of pictures.

        A1111 sends the number of batches and the pictures per batch.
        """
        counted = ["n_iter", "num_images"]
        if self._a1111 or "n_iter" in self._left:
            counted.append("batch_size")
        counts = self._take(counted)
        total = 1
        for word, value in counts.items():
            total *= count_at(word, value)
        # A template makes one picture anyway, even if its graph has no input for the number.
        if counts and (total > 1 or "workflow" in self._left):
            self._put("batch_size", " times ".join(counts), total)

    def _settings(self) -> None:
        for name, value in object_at(self._left, "override_settings").items():
            plain = without_hash(value)
            if name not in words.OPTIONS:
                self._ignore(f"override_settings.{name}")
            elif plain not in NO_OPTIONS:
                self._put(words.OPTIONS[name], f"override_settings.{name}", plain)
        self._left.pop("override_settings", None)

    def _add_ons(self) -> None:
        if "controlnet" in self._left:
            units = self._left.pop("controlnet")
            self._put("controlnets", "controlnet", controlnet_entries(units))
        if "lora" in self._left:
            self._put("loras", "lora", lora_entries(self._left.pop("lora")))

    def _scripts(self) -> None:
        scripts = object_at(self._left, "alwayson_scripts")
        self._left.pop("alwayson_scripts", None)
        units = []
        for name, script in scripts.items():
            word = f"alwayson_scripts.{name}"
            if name.casefold() == "controlnet":
                units += self._controlnet_units(word, script)
            else:
                self._ignore(word)
        if units:
            self._put("controlnets", "alwayson_scripts.controlnet", units)

    def _controlnet_units(self, word: str, script: Any) -> list[dict[str, Any]]:
        """Translate enabled units of A1111's ControlNet extension to entries of ``controlnets``."""
        args = object_at({word: script}, word).get("args") or []
        units = []
        for unit in of_type(f"{word}.args", args, list, "a list"):
            if not unit:
                continue
            of_type(f"{word}.args", unit, dict, "a list of objects")
            if flag_at(f"{word}.args.enabled", unit.get("enabled", True)):
                entry, ignored = from_unit(unit, self._get("image"))
                units.append(entry)
                for part in ignored:
                    self._ignore(f"{word} {part}")
        return units

    def _refiner(self) -> None:
        refiner = self._take(words.REFINER)
        if not refiner:
            return
        if self._get("workflow") != "sdxl-refiner":
            for word in refiner:
                self._ignore(word, "only workflow 'sdxl-refiner' has a refiner")
            return
        steps = number_at("steps", self._get("steps", SDXL_STEPS))
        refiner_steps = number_at(
            "refiner_inference_steps", refiner.get("refiner_inference_steps", steps)
        )
        base_share = number_at(
            "high_noise_frac", refiner.get("high_noise_frac", SDXL_HIGH_NOISE_FRAC)
        )
        if not self._has("steps"):
            self._put("steps", "num_inference_steps", steps)
        self._put_parameter("base_end", round(steps * base_share))
        self._put_parameter("refiner_steps", refiner_steps)
        self._put_parameter("refiner_start", round(refiner_steps * base_share))

    def _hires_and_strength(self) -> None:
        """Translate ``strength`` and A1111's keys of its second pass ("hires fix")."""
        hires = self._take(words.HIRES)
        strength = self._left.pop("strength", None)
        if flag_at("enable_hr", self._left.pop("enable_hr", False)):
            self._enable_hires(hires, strength)
            return
        for word in list(self._left):
            if word.startswith("hr_") and word in words.IGNORED:
                del self._left[word]
        if strength is not None and (self._has("image") or self._has("workflow")):
            self._put("denoise", "strength", strength)
        elif strength:
            self._ignore("strength", "there is no image to change")

    def _enable_hires(self, hires: Mapping[str, Any], strength: Any) -> None:
        if self._has("image") or self._get("workflow", "hires-fix") != "hires-fix":
            self._ignore("enable_hr", "it goes with workflow 'hires-fix', and with no image")
            return
        self._put("workflow", "enable_hr", "hires-fix")
        self._hires_parameters(hires)
        if strength is not None:
            self._put_parameter("hires_denoise", strength)

    def _hires_parameters(self, hires: Mapping[str, Any]) -> None:
        for side, word in (("width", "hr_resize_x"), ("height", "hr_resize_y")):
            target = number_at(word, hires.get(word) or 0)
            size = number_at(side, self._get(side) or 0)
            if target and size:
                self._put_parameter("upscale_by", target / size)
            elif target:
                self._ignore(word, f"it needs {side} beside it")
        self._put_parameter("upscale_by", hires.get("hr_scale", 2))
        if hires.get("hr_second_pass_steps"):
            self._put_parameter("hires_steps", hires["hr_second_pass_steps"])
        upscaler = of_type("hr_upscaler", hires.get("hr_upscaler") or "", str, "text")
        if upscaler in words.UPSCALERS:
            self._put_parameter("hires_method", words.UPSCALERS[upscaler])
        elif upscaler:
            self._ignore("hr_upscaler", f"it is one of {', '.join(words.UPSCALERS)}")

    def _ignore_the_rest(self) -> None:
        for word in words.NO_EFFECT:
            self._left.pop(word, None)
        for word, neutral in words.IGNORED.items():
            if self._left.pop(word, None) not in (*NO_VALUES, neutral):
                self._ignore(word)


def _is_foreign_sampler(name: str) -> bool:
    """Whether another program's name of a sampler stands where ComfyUI's name belongs."""
    found = words.find_sampling(name)
    return found is not None and found.sampler != name


def _means_sampler(name: str) -> bool:
    """Return whether another worker has a sampler with this name."""
    return words.find_sampling(name) is not None or words.is_not_here(name)
