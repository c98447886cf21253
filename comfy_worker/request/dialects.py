"""A request in anybody's words -> the contract's keys.

Owns what a word means where it is more than another name. What a recognised word asks and this worker cannot do is
a warning; a word of nobody stays in the input, and reading the contract refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfy_worker.errors import InvalidInput, InvalidValue, brief
from comfy_worker.json_values import find_problem
from comfy_worker.request import dialect_names as words
from comfy_worker.request.dialect_addons import CONTROLNET, LORA, entries, from_unit, without_hash
from comfy_worker.request.graph_wrappers import unwrap_input
from comfy_worker.request.schema import JobInput
from comfy_worker.response_formats import ResponseFormat

__all__ = ["API_NAMES", "KNOWN_WORDS", "OPTIONS_CALLS", "Request", "translate"]

OPTIONS_CALLS = ("getModels", "getOptions", "setOptions")
"""The calls of A1111's API that make no picture."""

API_NAMES = ("txt2img", "img2img", *OPTIONS_CALLS)

KNOWN_WORDS = (*words.RENAMED, *words.STRUCTURED, *words.HIRES, *words.IGNORED, *words.NO_EFFECT)
"""The words that are known and are, but for a few, no keys of the contract."""

T = TypeVar("T")
API_KEY = re.compile(r"[!-~]{8,512}")
MAX_WARNINGS = 100
LARGEST = 1e9  # of the numbers that are reckoned with here

# What RunPod's SDXL worker takes where a request does not say.
SDXL_STEPS, SDXL_HIGH_NOISE_FRAC = 25, 0.8


@dataclass(frozen=True)
class Request:
    """What was asked, in the contract's words.

    Attributes:
        given: ``job["input"]`` as it came.
        input: for :meth:`JobInput.read`.
        warnings: what was ignored, a sentence each.
        said: by key of the contract, the client's word for it; where the graph has no place for such a key that is
            a warning, not a mistake.
        response: the shape of answer that the dialect expects; None: the endpoint's default.
        api_name: A1111's name of what is asked; None in a request without one.
        extra_data: what goes with the prompt to ComfyUI's API nodes; secret.
    """

    given: Any
    input: Any
    warnings: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    response: ResponseFormat | None = None
    api_name: str | None = None
    extra_data: dict[str, str] = field(default_factory=dict, repr=False)


def translate(value: object, check: Callable[[], None] | None = None) -> Request:
    """Read a request of any known dialect.

    Args:
        value: ``job["input"]`` as it came.
        check: raises where the job must end; called now and then.

    Raises:
        InvalidValue: an ``api_name`` that is not known.
        InvalidInput: a word whose value has the wrong form, or holds what no JSON should.
        UnknownKey: a word that other workers have for a graph, without one.
    """
    value = unwrap_input(value)
    if not isinstance(value, dict):
        return Request(value, value)
    _refuse_unusable(value, check)
    api_name = value.get("api_name")
    if api_name is None:
        return _Translation(value, value, a1111=False).read()
    if api_name not in API_NAMES:
        raise InvalidValue(
            f"api_name must be one of {', '.join(API_NAMES)}, not '{brief(api_name)}'",
            [{"key": "api_name", "value": brief(api_name), "known": list(API_NAMES)}],
        )
    rest = {word: given for word, given in value.items() if word != "api_name"}
    if api_name not in ("txt2img", "img2img"):
        return Request(value, rest, api_name=api_name)
    if api_name == "img2img" and not rest.get("init_images") and not rest.get("image"):
        raise InvalidInput("init_images is missing: img2img needs a list with a picture", [{"key": "init_images"}])
    return _Translation(value, {**rest, "override_settings": _object(rest, "override_settings")}, a1111=True).read(
        api_name
    )


def _at_most(warnings: list[str]) -> list[str]:
    """The first warnings, and how many there are more: a client may send any number of words."""
    if len(warnings) <= MAX_WARNINGS:
        return warnings
    return [*warnings[:MAX_WARNINGS], f"{len(warnings) - MAX_WARNINGS:,} more words are ignored"]


def _refuse_unusable(value: Mapping[str, Any], check: Callable[[], None] | None) -> None:
    """Refuse what Python's JSON reader takes and nothing behind it could handle."""
    problem = find_problem(list(value), check=check)
    if problem is not None:
        raise InvalidInput(f"a key of the input holds {problem}", [{"key": None, "problem": problem}])
    for key, entry in value.items():
        if isinstance(entry, (int, float)):  # whoever reads the key says which numbers it takes
            continue
        # A graph is looked at where its nodes are read: it may hold such numbers where nobody reads them.
        problem = find_problem(entry, finite=key != "workflow", check=check)
        if problem is not None:
            raise InvalidInput(f"{brief(key)} holds {problem}", [{"key": brief(key), "problem": problem}])


def _object(given: Mapping[str, Any], word: str) -> dict[str, Any]:
    value = given.get(word)
    return _of_kind(word, {} if value is None else value, dict, "an object")


def _of_kind(word: str, value: Any, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise InvalidInput(f"{brief(word)} must be {what}, not {brief(repr(value))}", [{"key": brief(word)}])
    return value


def _number(word: str, value: Any) -> float:
    """A number that can be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
        raise InvalidInput(f"{word} must be a number, not {brief(repr(value))}", [{"key": word}])
    return value


def _api_key(value: Any) -> str | None:
    """Check the form of a key for comfy.org; the error does not repeat it."""
    if value is None or (isinstance(value, str) and API_KEY.fullmatch(value)):
        return value
    raise InvalidInput(
        "comfy_org_api_key must be a key of 8 to 512 letters, digits and signs without blanks; send the key "
        "as platform.comfy.org shows it",
        [{"key": "comfy_org_api_key", "problem": "does not have the form of a key"}],
    )


class _Translation:
    """One request on its way.

    Args:
        given: ``job["input"]`` as it came.
        asked: the words to read.
        a1111: whether words that several dialects share mean what A1111 means.
    """

    def __init__(self, given: Mapping[str, Any], asked: Mapping[str, Any], *, a1111: bool) -> None:
        self._given = given
        known = {*JobInput.model_fields, *KNOWN_WORDS}
        self._left = {word: value for word, value in asked.items() if value is not None or word not in known}
        self._out: dict[str, Any] = {}
        self._said: dict[str, str] = {}
        self._warnings: list[str] = []
        self._a1111 = a1111

    def read(self, api_name: str | None = None) -> Request:
        key = _api_key(self._left.pop("comfy_org_api_key", None))
        self._rename()
        self._init_images()
        self._sampling()
        self._count()
        self._settings()
        self._add_ons()
        self._refiner()
        self._hires_and_strength()
        self._ignore_the_rest()
        return Request(
            self._given,
            {**self._out, **self._left},
            _at_most(self._warnings),
            self._said,
            "a1111" if self._a1111 else None,
            api_name,
            {} if key is None else {"api_key_comfy_org": key},
        )

    def _has(self, key: str) -> bool:
        return key in self._left or key in self._out

    def _get(self, key: str, default: Any = None) -> Any:
        return self._left.get(key, self._out.get(key, default))

    def _put(self, key: str, word: str, value: Any) -> None:
        """Set a key of the contract, unless the client has."""
        if not self._has(key):
            self._out[key] = value
            self._said[key] = word
        elif self._get(key) != value:
            self._ignore(word, f"{self._said.get(key, key)} says it already")

    def _put_parameter(self, name: str, value: Any) -> None:
        """Set a parameter of a template, unless the client has, or it is set already."""
        self._left["parameters"] = {name: value, **_object(self._left, "parameters")}

    def _ignore(self, word: str, why: str = "this worker has nothing like it") -> None:
        self._warnings.append(f"{brief(word)} is ignored: {why}")

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
        found = self._left.pop("init_images", None)
        if found is None:
            return
        if isinstance(found, list):
            found = [image for image in found if image is not None]
        if not isinstance(found, list) or not found:
            raise InvalidInput("init_images must be a list with a picture", [{"key": "init_images"}])
        if len(found) > 1:
            self._warnings.append("init_images: only the first picture is used")
        self._put("image", "init_images", found[0])

    def _sampling(self) -> None:
        word, sampler = "sampler_name", self._left.pop("sampler_name", None)
        schedule = self._left.get("scheduler")
        known = words.find_scheduler(schedule) if isinstance(schedule, str) else None
        if isinstance(schedule, str) and schedule != known:
            elsewhere = words.find_sampling(schedule) is not None or words.is_not_here(schedule)
            # DDIM is a schedule to A1111 and a sampler to diffusers.
            if known is not None and (sampler or self._a1111 or not elsewhere):
                del self._left["scheduler"]
                if known:
                    self._put("scheduler", "scheduler", known)
            elif elsewhere:
                del self._left["scheduler"]
                word, sampler = ("sampler_name", sampler) if sampler else ("scheduler", schedule)
        if sampler:
            self._sampler(word, sampler)

    def _sampler(self, word: str, name: Any) -> None:
        found = words.find_sampling(name) if isinstance(name, str) else None
        if found is not None:
            if found.is_nearest:
                self._warnings.append(
                    f"{word} {brief(name)}: {found.sampler} serves it, the nearest that ComfyUI has"
                )
            self._put("sampler", word, found.sampler)
            if not self._has("scheduler"):
                self._put("scheduler", word, found.scheduler)
        elif isinstance(name, str) and words.is_not_here(name):
            self._ignore(word, f"ComfyUI has nothing like {brief(name)}")
        else:
            self._put("sampler", word, name)

    def _count(self) -> None:
        """Pictures in all: A1111 counts batches, and pictures a batch."""
        counted = ["n_iter", "num_images"]
        if self._a1111 or "n_iter" in self._left:
            counted.append("batch_size")
        given = {word: self._left.pop(word) for word in counted if word in self._left}
        count = 1
        for word, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInput(
                    f"{word} must be a whole number of 1 or more, not {brief(repr(value))}", [{"key": word}]
                )
            count *= value
        # One is what a template makes, whether or not it has a place for the number.
        if given and (count > 1 or "workflow" in self._left):
            self._put("batch_size", " times ".join(given), count)

    def _settings(self) -> None:
        for name, value in _object(self._left, "override_settings").items():
            if name not in words.OPTIONS:
                self._ignore(f"override_settings.{name}")
            elif (plain := without_hash(value)) not in (None, "", "None", "Automatic", 1):
                self._put(words.OPTIONS[name], f"override_settings.{name}", plain)
        self._left.pop("override_settings", None)

    def _add_ons(self) -> None:
        for word, key, names in (("controlnet", "controlnets", CONTROLNET), ("lora", "loras", LORA)):
            if word in self._left:
                self._put(key, word, entries(self._left.pop(word), names))
        scripts = _object(self._left, "alwayson_scripts")
        self._left.pop("alwayson_scripts", None)
        units = []
        for name, script in scripts.items():
            if name.casefold() != "controlnet":
                self._ignore(f"alwayson_scripts.{name}")
                continue
            word = f"alwayson_scripts.{name}"
            args = _of_kind(f"{word}.args", _object({word: script}, word).get("args") or [], list, "a list")
            for unit in filter(None, args):
                if _of_kind(f"{word}.args", unit, dict, "a list of objects").get("enabled", True):
                    found, ignored = from_unit(unit, self._get("image"))
                    units.append(found)
                    for part in ignored:
                        self._ignore(f"{word} {part}")
        if units:
            self._put("controlnets", "alwayson_scripts.controlnet", units)

    def _refiner(self) -> None:
        asked = {word: self._left.pop(word) for word in words.REFINER if word in self._left}
        if asked and self._get("workflow") != "sdxl-refiner":
            for word in asked:
                self._ignore(word, "only workflow 'sdxl-refiner' has a refiner")
        elif asked:
            steps = _number("steps", self._get("steps", SDXL_STEPS))
            refiner_steps = _number("refiner_inference_steps", asked.get("refiner_inference_steps", steps))
            frac = _number("high_noise_frac", asked.get("high_noise_frac", SDXL_HIGH_NOISE_FRAC))
            self._put("steps", "num_inference_steps", steps)
            self._put_parameter("base_end", round(steps * frac))
            self._put_parameter("refiner_steps", refiner_steps)
            self._put_parameter("refiner_start", round(refiner_steps * frac))

    def _hires_and_strength(self) -> None:
        """How much is made anew: of an image, or in the second pass; nothing where there is neither."""
        asked = {word: self._left.pop(word) for word in words.HIRES if word in self._left}
        strength, hires = self._left.pop("strength", None), self._left.pop("enable_hr", False)
        if hires and (self._has("image") or self._get("workflow", "hires-fix") != "hires-fix"):
            self._ignore("enable_hr", "it goes with workflow 'hires-fix', and with no image")
        elif hires:
            self._put("workflow", "enable_hr", "hires-fix")
            self._hires(asked)
            if strength is not None:
                self._put_parameter("hires_denoise", strength)
            return
        for word in [word for word in self._left if word.startswith("hr_")]:
            if word in words.IGNORED:
                del self._left[word]
        if strength is not None and (self._has("image") or self._has("workflow")):
            self._put("denoise", "strength", strength)
        elif strength:
            self._ignore("strength", "there is no image to change")

    def _hires(self, asked: Mapping[str, Any]) -> None:
        for side, word in (("width", "hr_resize_x"), ("height", "hr_resize_y")):
            size, own = _number(word, asked.get(word) or 0), _number(side, self._get(side) or 0)
            if size and own:
                self._put_parameter("upscale_by", size / own)
            elif size:
                self._ignore(word, f"it needs {side} beside it")
        self._put_parameter("upscale_by", asked.get("hr_scale", 2))
        if asked.get("hr_second_pass_steps"):
            self._put_parameter("hires_steps", asked["hr_second_pass_steps"])
        upscaler = _of_kind("hr_upscaler", asked.get("hr_upscaler") or "", str, "text")
        if upscaler in words.UPSCALERS:
            self._put_parameter("hires_method", words.UPSCALERS[upscaler])
        elif upscaler:
            self._ignore("hr_upscaler", f"it is one of {', '.join(words.UPSCALERS)}")

    def _ignore_the_rest(self) -> None:
        for word in words.NO_EFFECT:
            self._left.pop(word, None)
        for word, nothing in words.IGNORED.items():
            if self._left.pop(word, None) not in (None, False, "", 0, -1, [], {}, nothing):
                self._ignore(word)
