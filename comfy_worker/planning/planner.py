"""Which graph a job runs, and the graph filled: what a request becomes before it is queued.

Each edit is a function of ``workflow/``. Nothing is written but the client's pictures.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from comfy_common.placeholder_names import real_files
from comfy_worker.errors import (
    Ambiguous,
    InputError,
    InvalidInput,
    InvalidValue,
    ModelMismatch,
    ModelNotFound,
    NoPlace,
    brief,
)
from comfy_worker.inputs.files import InputFiles
from comfy_worker.inputs.inline_source import is_inline_source
from comfy_worker.models.detect import Family, ModelInfo, compatible, identify
from comfy_worker.models.hub_aliases import find_checkpoint
from comfy_worker.models.references import resolve_model_urls
from comfy_worker.planning.templates import Template, Templates
from comfy_worker.request.schema import SEED_LIMIT, ControlNet, JobInput, Parameters
from comfy_worker.workflow.check.batch import check_batch_size
from comfy_worker.workflow.check.file_access import check_paths, file_places
from comfy_worker.workflow.check.links import with_plain_links
from comfy_worker.workflow.check.preflight import Checked, Finding, broken_links, check, refusal
from comfy_worker.workflow.convert.to_api import Converted, read_workflow, resolve_variants
from comfy_worker.workflow.edit.clip_skip import splice_clip_skip
from comfy_worker.workflow.edit.controlnet import ControlNetSpec, splice_controlnets
from comfy_worker.workflow.edit.input_files import name_stored
from comfy_worker.workflow.edit.lora import LoraSpec, parse_tags, splice_loras
from comfy_worker.workflow.edit.parameters import (
    Declared,
    apply_overrides,
    changes_beside,
    describe,
    fill,
    has_place,
    read,
    seeds_of_outputs,
)
from comfy_worker.workflow.graph import Check, Editor, Input, Need, Workflow, never_ends, number
from comfy_worker.workflow.loaders import Fits, loader_files
from comfy_worker.workflow.model_files import Sources, model_files
from comfy_worker.workflow.model_names import match
from comfy_worker.workflow.node_defs import Absence, NodeDefs
from comfy_worker.workflow.replaced_classes import with_present_classes
from comfy_worker.workflow.roles.find import Roles, find_roles

__all__ = ["Installed", "Plan", "Planner", "choose_template", "missing_needs"]

# Findings that a value in the request may be the remedy of; any other is a fault of the graph itself.
CURABLE = frozenset(
    (
        "missing_model",
        "missing_input_file",
        "value_not_in_list",
        "value_smaller_than_min",
        "value_bigger_than_max",
        "invalid_input_type",
        "custom_validation_failed",
        "exception_during_validation",
        "more",
    )
)
# What programs write where a seed has yet to be filled in: `%seed%`, `{{seed}}`, `random`, nothing.
SEED_PLACEHOLDER = re.compile(r"^\W*$|[%$<>{}\[\]]|seed|random", re.IGNORECASE)
# So many nodes are named in a warning.
MAX_NAMED = 4
# The checkpoints that are missing, and what stood in, of which a client of this worker has been warned.
_STAND_INS_TOLD: set[tuple[str, str]] = set()


class Installed(Protocol):
    """What the ComfyUI that will run the job has."""

    @property
    def defs(self) -> NodeDefs:
        """Its node classes, with the model files it finds."""

    def model_path(self, folder: str, name: str) -> Path | None:
        """Where a model file lies."""

    def explain(self, class_type: str) -> Absence | None:
        """Why it lacks a class that something here has."""

    def searched(self, folder: str) -> Sequence[str]:
        """Which folders it searches for a kind of model."""

    def validate(self, workflow: Workflow) -> Mapping[str, Any] | None:
        """What ComfyUI's own validation finds wrong with a workflow; None where it cannot be asked."""

    def refresh(self) -> None:
        """Read the node classes again: a file has arrived."""


class Models(Protocol):
    """What fetches models."""

    @property
    def accepts_urls(self) -> bool:
        """Whether a client may give a model by its URL."""

    def fetch(self, references: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """Download files. Returns their names, by folder and by the client's reference."""


@dataclass
class Plan:
    """A job ready to be queued.

    Attributes:
        workflow: the graph, filled and spliced.
        name: the template's name, or ``custom``.
        seed: the client's, the graph's own or a drawn one; None for a graph without any.
        parameters: what the graph's parameters ended up as.
        warnings: sentences for the client.
        roles: what its nodes are for, before anything was spliced in.
        needs: the model files that it names, and where they can be got.
        findings: the reasons for which it cannot run; see :mod:`comfy_worker.workflow.check.preflight`.
        seeds: by output node, the seed that its own pictures are made with.
    """

    workflow: Workflow
    name: str
    seed: int | None
    parameters: dict[str, Any]
    warnings: list[str]
    roles: Roles
    needs: tuple[Need, ...]
    findings: tuple[Finding, ...]
    seeds: Mapping[str, int] = field(default_factory=dict)


def choose_template(request: JobInput, templates: Templates) -> Template | None:
    """The template that a request names or means; None for a custom graph.

    Raises:
        UnknownWorkflow: there is none of that name.
        InvalidInput: it lacks what the template requires.
    """
    if isinstance(request.workflow, dict):
        return None
    name = request.workflow
    if name is None:
        name = "txt2img" if request.image is None else "img2img" if request.mask is None else "inpaint"
    template = templates.load(name)
    given = {**request.parameters, **{key: getattr(request, key) for key in JobInput.model_fields}}
    missing = [key for key in template.params.required if given.get(key) in (None, ())]
    if missing:
        raise InvalidInput(
            f"workflow '{name}' needs {' and '.join(missing)}, which the input lacks",
            [{"key": key, "problem": "missing"} for key in missing],
        )
    return template


def missing_needs(findings: Iterable[Finding], template: Template | None, listed: Iterable[Need]) -> list[Need]:
    """The missing model files that the template's params or models.txt say where to download."""
    needs = (*(template.params.needs if template else ()), *listed)
    known = {(need.folder, need.file): need for need in needs if need.url}
    found: dict[tuple[str, str], Need] = {}
    for finding in findings:
        if finding["type"] == "missing_model":
            key = (finding["folder"], finding["given"])
            if key in known:
                found[key] = known[key]
    return list(found.values())


class Planner:
    """Turns one request into a plan.

    Args:
        request: what was asked.
        template: of :func:`choose_template`.
        installed: the ComfyUI that will run it.
        sd_model: the checkpoint that stands in where a template's own is absent: a file, a hub id, or empty.
        files: what the client sent, and where it goes.
        said: by key, the client's word of another dialect; a warning where the graph has no place for it.
        listed: the model files of models.txt.
        models: fetches what is given by URL; None: such a word is taken for a file's name.
        on_demand: whether a template's own checkpoint will be fetched where it is absent.
        max_batch_size: how many pictures at once the endpoint allows; None: any number.
        check: raises where the job must end; asked again and again.
    """

    def __init__(
        self,
        request: JobInput,
        template: Template | None,
        *,
        installed: Installed,
        sd_model: str,
        files: InputFiles,
        said: Mapping[str, str] | None = None,
        listed: Sequence[Need] = (),
        models: Models | None = None,
        on_demand: bool = False,
        max_batch_size: int | None = None,
        check: Check = never_ends,
    ) -> None:
        self._request = request
        self._template = template
        self._installed = installed
        self._defs = installed.defs
        self._sd_model = sd_model
        self._files = files
        self._said = said or {}
        self._listed = listed
        self._models = models
        self._on_demand = on_demand
        self._max_batch_size = max_batch_size
        self._check = check
        self._warnings: list[str] = []
        self._broken_links: list[Finding] = []

    def plan(self) -> Plan:
        """Fill the graph, splice what was asked for into it, and check what came of it.

        Raises:
            InputError: whatever of the request cannot be done, by its own code.
        """
        self._broken_links = []
        try:
            return self._plan()
        except ModelNotFound as error:
            raise self._with_folders(error) from error
        except InputError as error:
            # With `validate_only` the edits are tried on a graph with broken links too, and fail because of those.
            raise (refusal(self._broken_links) if self._broken_links else error) from error

    def _plan(self) -> Plan:
        template = self._template
        # Read anew each time: between two tries a file may have arrived.
        self._defs, self._warnings = self._installed.defs, []
        given = self._request.workflow if template is None else template.workflow
        converted = read_workflow(given, self._defs, self._check)
        converted = replace(converted, workflow=with_present_classes(converted.workflow, self._defs))
        workflow, sources = converted.workflow, self._sources(converted)
        known = all(node["class_type"] in self._defs for node in workflow.values())
        if not known and not self._request.validate_only:
            # What else the client asked for may lean on the classes that are not there.
            raise refusal(self._checked(workflow, sources).findings)
        try:
            return self._filled(converted, sources)
        except (Ambiguous, NoPlace):
            # What the request asks for may lack a place only because the graph itself is broken.
            self._check()
            findings = self._checked(workflow, sources).findings
            faults = [finding for finding in findings if finding["type"] not in CURABLE]
            if faults:
                raise refusal(faults) from None
            raise

    def _filled(self, converted: Converted, sources: Sources) -> Plan:
        """The plan of a graph that has been read."""
        template, request, workflow = self._template, self._request, converted.workflow
        declared = {} if template is None else template.params.parameters
        workflow = self._fetch_models(workflow, declared)
        request = self._request
        workflow = with_plain_links(apply_overrides(workflow, self._defs, request.overrides))
        self._check()
        self._broken_links = broken_links(workflow, self._defs)
        if self._broken_links and not request.validate_only:
            places = {(one["node_id"], one["input"]) for one in self._broken_links}
            found = self._checked(workflow, sources).findings
            self._broken_links += [one for one in found if (one["node_id"], one["input"]) not in places]
            raise refusal(self._broken_links)
        self._check()
        workflow, roles = self._with_switches(workflow, declared)
        values = {key: value for key in Parameters.model_fields if (value := getattr(request, key)) is not None}
        tagged: list[LoraSpec] = []
        for key in ("prompt", "negative_prompt"):
            if key in values:
                values[key], tags = parse_tags(values[key])
                tagged += tags
        values |= self._pictures(roles)
        if template is not None:
            values |= self._stand_in_checkpoint(template, workflow, roles, values)
        seed_now = read(workflow, roles, declared).get("seed")
        own_seed = number(seed_now)
        values.pop("seed", None)
        values |= self._seed(workflow, roles, seed_now)
        resolve_variants(workflow, converted.variants, int(values.get("seed", own_seed or 0)), self._check)
        defaults = {name: entry.default for name, entry in declared.items() if entry.default is not None}
        values = defaults | self._placed(values, roles, declared) | request.parameters
        before = workflow
        workflow = fill(workflow, roles, self._defs, values, declared, self._check)
        if template is None:
            self._warn_of_others(before, workflow, roles, values)
        else:
            self._warn_of_left(roles, {"checkpoint", "image"} & values.keys() - declared.keys())
        workflow = apply_overrides(workflow, self._defs, request.overrides)
        self._check()
        workflow = self._take_in_place(self._named_images(with_plain_links(workflow)), roles)
        self._check()
        parameters = read(workflow, roles, declared, before)
        loras = [LoraSpec(lora.name, lora.strength, lora.strength_clip) for lora in request.loras]
        workflow = self._splice(workflow, roles, [*loras, *tagged])
        self._check()
        # After the last edit, so that what is looked at is what ComfyUI will see.
        check_paths(workflow, self._defs, roles.outputs, set(self._files.names.values()))
        if self._max_batch_size is not None:
            check_batch_size(workflow, self._defs, self._max_batch_size, self._check)
        self._check()
        checked = self._checked(workflow, sources)
        self._check()
        seed = number(parameters.get("seed", values.get("seed")))
        return Plan(
            workflow,
            template.name if template else "custom",
            seed if isinstance(seed, int) else None,
            parameters,
            [*self._warnings, *checked.warnings],
            roles,
            model_files(workflow, self._defs, sources),
            checked.findings,
            seeds_of_outputs(workflow, roles),
        )

    def _checked(self, workflow: Workflow, sources: Sources) -> Checked:
        """What ComfyUI and this worker find wrong with a workflow."""
        return check(workflow, self._defs, sources, self._installed.validate)

    def _with_switches(self, workflow: Workflow, declared: Mapping[str, Declared]) -> tuple[Workflow, Roles]:
        """The graph with its switches as the request sets them, since they decide where values go; its roles."""
        roles = find_roles(workflow, self._defs, self._check)
        values = {name: entry.default for name, entry in declared.items()} | self._request.parameters
        choices = {name: value for name, value in values.items() if isinstance(value, bool)}
        if not choices:
            return workflow, roles
        workflow = fill(workflow, roles, self._defs, choices, declared, self._check)
        return workflow, find_roles(workflow, self._defs, self._check)

    def _sources(self, converted: Converted) -> Sources:
        """What is known of where models and classes come from."""
        own = () if self._template is None else self._template.params.needs
        return Sources(
            needs=(*own, *converted.needs, *self._listed),
            listed={f"{need.folder}/{need.file}" for need in self._listed},
            packs=converted.packs,
            has_input=self._has_input,
            explain=self._installed.explain,
            searched=self._installed.searched,
            commands=self._commands(),
            accepts_urls=self._models is not None and self._models.accepts_urls,
            has_default=self._template is not None and not self._sd_model,
        )

    def _commands(self) -> dict[str, str]:
        """By model file, what `comfy_setup models --only` takes: the template, else the file of models.txt."""
        commands = {f"{need.folder}/{need.file}": f"{need.folder}/{need.file}" for need in self._listed}
        if self._template is not None:
            for need in self._template.params.needs:
                if need.url:
                    commands[f"{need.folder}/{need.file}"] = self._template.name
        return commands

    def _fetch_models(self, workflow: Workflow, declared: Mapping[str, Declared]) -> Workflow:
        """Have what the request gives by URL, and let request and graph name the files."""
        if self._models is None:
            return workflow
        asked: dict[tuple[str, str], str] = {}
        place = (self._request, workflow, self._defs, declared)
        resolve_model_urls(*place, lambda folder, word: asked.setdefault((folder, word), word))
        if asked:
            files = self._models.fetch(asked)
            self._request, workflow = resolve_model_urls(*place, lambda folder, word: files[folder, word])
            self._installed.refresh()
            self._defs = self._installed.defs
        return workflow

    def _with_folders(self, error: ModelNotFound) -> ModelNotFound:
        """The same error, with the folders that were searched."""
        details = [{**one, "looked_in": list(self._installed.searched(one["folder"]))} for one in error.details]
        searched = ", ".join(details[0]["looked_in"]) if details else ""
        return ModelNotFound(f"{error.sentence}; looked in {searched}" if searched else error.sentence, details)

    def _has_input(self, name: str) -> bool:
        """Whether an input file of that name came with the job: a job reads no other."""
        sent = {*self._files.names.values(), *(one.name for one in self._request.images)}
        return is_inline_source(name) or name.removesuffix(" [input]") in sent

    def _placed(self, values: Mapping[str, Any], roles: Roles, declared: Mapping[str, Declared]) -> dict[str, Any]:
        """The values without those that came in another dialect's words and have no place in this graph."""
        lost = {name for name in self._said.keys() & values.keys() if not has_place(roles, name, declared)}
        self._warnings += [f"{self._said[name]} is ignored: this graph has no {name}" for name in sorted(lost)]
        return {name: value for name, value in values.items() if name not in lost}

    def _named_images(self, workflow: Workflow) -> Workflow:
        """Take in the files that a custom graph names, and let it name the stored ones."""
        keys = {f"images.{index}.image": one for index, one in enumerate(self._request.images)}
        self._files.add_any({key: one.image for key, one in keys.items()})
        stored = {one.name: self._files.names[key] for key, one in keys.items()}
        workflow, used = name_stored(workflow, self._defs, stored)
        self._warnings += [f"images: no node names '{brief(name)}'" for name in stored if name not in used]
        return workflow

    def _warn_of_others(
        self, before: Workflow, workflow: Workflow, roles: Roles, values: Mapping[str, Any]
    ) -> None:
        """Warn where a value went to some nodes of a graph and not to others, or changed more than itself."""
        is_drawn = self._request.seed in (None, -1)
        names = [name for name in values if not (name == "seed" and is_drawn)]
        self._warn_of_left(roles, set(names))
        self._warnings += changes_beside(before, workflow, roles, {name: values[name] for name in names})

    def _warn_of_left(self, roles: Roles, names: Set[str]) -> None:
        """Warn where a value went to some of several places and the others stay as they are."""
        for name in sorted(names & roles.left.keys() & roles.places.keys()):
            left = roles.left[name]
            others = ", ".join(f"{one.place} ({brief(one.title)})" for one in left[:MAX_NAMED])
            others += f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""
            self._warnings.append(
                f"{name} went to {roles.places[name][0]} only; {others} stay as they are: overrides reach them, "
                f"or the title '{name}' on the node that is meant"
            )

    def _pictures(self, roles: Roles) -> dict[str, str]:
        """Take in all pictures; where the graph takes its mask from the image's alpha, image and mask as one."""
        request = self._request
        sent = {"image": request.image, "mask": request.mask}
        sent |= {f"controlnets.{i}.image": asked.image for i, asked in enumerate(request.controlnets)}
        merged = bool(request.image and request.mask and roles.alpha_masks and "mask" not in roles.places)
        self._files.add_pictures({key: value for key, value in sent.items() if value is not None}, merged=merged)
        wanted = ["image"] if merged else ["image", "mask"]
        return {key: self._files.names[key] for key in wanted if key in self._files.names}

    def _take_in_place(self, workflow: Workflow, roles: Roles) -> Workflow:
        """Take in what stands in the graph itself, as a URL or data URI in place of a file's name."""
        editor = Editor(workflow)
        places = {f"node {place}": place for place in file_places(workflow, self._defs, roles.outputs)}
        found = {key: workflow[place.node_id]["inputs"][place.name] for key, place in places.items()}
        sent = {key: value for key, value in found.items() if is_inline_source(value)}
        self._files.add_any(sent)
        for key in sent:
            editor.set(places[key], self._files.names[key])
        return editor.workflow

    def _stand_in_checkpoint(
        self, template: Template, workflow: Workflow, roles: Roles, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Another checkpoint where a template's own is not installed, and the size that is native to it."""
        declared = template.params.parameters.get("checkpoint")
        places = [Input(declared.node, declared.input)] if declared else roles.places.get("checkpoint", ())
        loader = next((workflow[place.node_id] for place in places if place.name == "ckpt_name"), None)
        if loader is None:
            return {}
        installed = [str(choice) for choice in self._defs[loader["class_type"]].inputs["ckpt_name"].choices or ()]
        own = str(loader["inputs"]["ckpt_name"])
        wanted = values.get("checkpoint")
        is_coming = self._on_demand and not self._sd_model and self._is_needed("checkpoints", own)
        if wanted is None and (own in installed or is_coming):
            return {}
        if wanted is not None:
            chosen = find_checkpoint(str(wanted), installed)
        elif self._sd_model:
            chosen = find_checkpoint(self._sd_model, installed)
        elif len(candidates := real_files(installed)) == 1:
            chosen = candidates[0]
            self._warn_of_stand_in(own, chosen)
        else:
            try:
                chosen = match(own, installed, "checkpoint")
            except ModelNotFound:
                return {}  # the check says so, together with whatever else is missing
        family = self._identify("checkpoints", chosen).family
        native = {} if family is None or chosen == own else {"width": family.width, "height": family.height}
        size = {} if "width" in values or "height" in values else native
        return {"checkpoint": chosen, **{key: value for key, value in size.items() if key in roles.places}}

    def _warn_of_stand_in(self, own: str, chosen: str) -> None:
        """Say that another checkpoint stands in; once, since it is the same for every job of this worker."""
        if (own, chosen) not in _STAND_INS_TOLD:
            _STAND_INS_TOLD.add((own, chosen))
            self._warnings.append(f"checkpoint {own} is not installed; {chosen}, the only one there is, stood in")

    def _is_needed(self, folder: str, file: str) -> bool:
        """Whether the template's params or models.txt say where a file comes from."""
        own = () if self._template is None else self._template.params.needs
        return any((need.folder, need.file) == (folder, file) and need.url for need in (*own, *self._listed))

    def _seed(self, workflow: Workflow, roles: Roles, present: Any) -> dict[str, int]:
        """The seed to fill in: the client's, or a drawn one; a custom graph keeps its own.

        One is drawn where the client asks for it by -1, for a template, and for a graph that holds -1, nothing or
        a placeholder. Any other text stays, so that the check names it.
        """
        seed = self._request.seed
        if seed is not None and seed != -1:
            return {"seed": seed}
        own = number(present)
        is_number = own is not None and own >= 0
        is_wrong = own is None and isinstance(present, str) and not SEED_PLACEHOLDER.search(present)
        is_kept = self._template is None and seed is None and (is_number or is_wrong)
        if is_kept or "seed" not in roles.places:
            return {}
        limit = describe(workflow, roles, self._defs)["seed"].get("maximum", SEED_LIMIT)
        # Not a secret: a number to make the same picture again with.
        return {"seed": random.randrange(max(1, min(SEED_LIMIT, int(limit) + 1)))}  # noqa: S311

    def _splice(self, workflow: Workflow, roles: Roles, loras: list[LoraSpec]) -> Workflow:
        request, defs = self._request, self._defs
        before = set(workflow)
        bases = self._bases(workflow, roles) if loras or request.controlnets else {}
        try:
            workflow = splice_loras(workflow, roles, defs, loras, fits=self._fits(bases, "loras"))
            if request.clip_skip is not None:
                workflow = splice_clip_skip(workflow, defs, request.clip_skip)
            workflow = splice_controlnets(
                workflow,
                roles,
                defs,
                [self._controlnet(i, asked) for i, asked in enumerate(request.controlnets)],
                fits=self._fits(bases, "controlnet"),
                is_union=lambda file: self._glance("controlnet", file).union,
                # ComfyUI ignores a VAE that a ControlNet does not need.
                needs_vae=any(family is None or family.controlnet_vae for family in bases.values()),
            )
        except ModelMismatch as error:
            raise self._explained(error, bases) from error
        self._warn_of_unknown(workflow, before, bases)
        return workflow

    def _controlnet(self, index: int, asked: ControlNet) -> ControlNetSpec:
        image = self._files.names[f"controlnets.{index}.image"]
        return ControlNetSpec(image=image, **asked.model_dump(exclude={"image"}))

    def _bases(self, workflow: Workflow, roles: Roles) -> dict[str, Family | None]:
        """By the node where a sampler's model begins, the family of that model; None where it is not known."""
        bases: dict[str, Family | None] = {}
        for loader in loader_files(workflow, roles, self._defs):
            bases[loader.root] = bases.get(loader.root) or self._identify(loader.folder, loader.name).family
        return bases

    def _fits(self, bases: Mapping[str, Family | None], folder: str) -> Fits:
        """Whether a file of a folder fits the model that begins at a node; None where that is not known."""
        return lambda root, file: compatible(bases.get(root), self._glance(folder, file).family)

    def _explained(self, error: ModelMismatch, bases: Mapping[str, Family | None]) -> ModelMismatch:
        """The same refusal with the families in it."""
        file = str(error.details[0]["file"])
        addon = self._glance("loras", file).family or self._glance("controlnet", file).family
        base = " and ".join(sorted({family.title for family in bases.values() if family is not None}))
        if addon is None or not base:
            return error
        return ModelMismatch(
            f"{file} is made for {addon.title}, and the graph's model is {base}; name one that is made for {base}",
            [{"file": file, "family": addon.name, "base": base}],
        )

    def _warn_of_unknown(self, workflow: Workflow, before: set[str], bases: Mapping[str, Family | None]) -> None:
        """Warn where it could not be told whether a file that was spliced in fits."""
        for node_id in workflow.keys() - before:
            inputs = workflow[node_id]["inputs"]
            for name, folder in (("lora_name", "loras"), ("control_net_name", "controlnet")):
                if name in inputs:
                    family = self._identify(folder, inputs[name]).family
                    if not any(compatible(base, family) for base in bases.values()):
                        self._warnings.append(f"whether {inputs[name]} fits the graph's model could not be told")

    def _identify(self, folder: str, name: str) -> ModelInfo:
        """What a model file is.

        Raises:
            InvalidValue: it is broken.
        """
        path = self._installed.model_path(folder, name)
        return ModelInfo("unknown") if path is None else identify(path)

    def _glance(self, folder: str, name: str) -> ModelInfo:
        """The same for one file of many, of which a broken one must not spoil the choice."""
        try:
            return self._identify(folder, name)
        except InvalidValue:
            return ModelInfo("unknown")
