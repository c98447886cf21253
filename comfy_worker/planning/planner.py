"""Turns a request and its workflow into a plan: the workflow as it will be queued.

Each edit is a function of ``workflow/``; here is their order. Nothing is written to disk but the
files that the client sent.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

from comfy_common.node_map import packs_of
from comfy_worker.errors import Ambiguous, InputError, ModelNotFound, NoPlace, brief
from comfy_worker.models.references import resolve_model_urls
from comfy_worker.planning.input_files import (
    came_with_job,
    take_declared_pictures,
    take_inline_files,
    take_named_images,
    take_pictures,
    without_equal_sizes,
)
from comfy_worker.planning.plan import Plan, PlanContext, StandIn
from comfy_worker.planning.splicing import Splicer
from comfy_worker.planning.stand_in import CheckpointChoice, announcement
from comfy_worker.planning.templates import template_for_version
from comfy_worker.request.schema import SEED_LIMIT, Parameters
from comfy_worker.workflow.check.batch import check_batch_size
from comfy_worker.workflow.check.file_access import file_faults, refuse
from comfy_worker.workflow.check.links import with_plain_links
from comfy_worker.workflow.check.preflight import (
    Checked,
    Finding,
    broken_links,
    check,
    is_stale,
    refusal,
)
from comfy_worker.workflow.check.problems import finding_at
from comfy_worker.workflow.convert.to_api import Converted, read_workflow, resolve_variants
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.edit.fill import fill
from comfy_worker.workflow.edit.fill_notes import fill_notes
from comfy_worker.workflow.edit.input_files import takes_picture
from comfy_worker.workflow.edit.lora import LoraSpec
from comfy_worker.workflow.edit.lora_tags import parse_tags
from comfy_worker.workflow.edit.overrides import apply_overrides
from comfy_worker.workflow.edit.parameters import (
    Declared,
    has_input,
    listed,
    replaced_by_twin,
)
from comfy_worker.workflow.edit.read import read, seeds_of_outputs
from comfy_worker.workflow.edit.removal import without_nodes
from comfy_worker.workflow.graph import Workflow, number, title_of
from comfy_worker.workflow.isolate import check_reserved
from comfy_worker.workflow.model_files import CheckContext, model_files
from comfy_worker.workflow.replaced_classes import with_present_classes
from comfy_worker.workflow.roles.find import find_roles
from comfy_worker.workflow.roles.roles import Roles

__all__ = ["build_plan", "prepare"]

# Findings that a value in the request may cure; any other is a fault of the graph itself.
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
# What programs write if a seed is still to be filled in: `%seed%`, `{{seed}}`, `random`, nothing.
SEED_PLACEHOLDER = re.compile(r"^\W*$|[%$<>{}\[\]]|seed|random", re.IGNORECASE)
PROMPTS = ("prompt", "negative_prompt")


def prepare(context: PlanContext) -> Plan:
    """Build the plan of a job, and look again if a model file is missing.

    Raises:
        InputError: the request cannot be done; the code says why.
    """
    context = _with_fitting_template(context)
    plan = _first_plan(context)
    if plan is None:
        context.comfyui.refresh()  # the file may have just arrived
        plan = build_plan(context)
        plan = _with_downloads(context, plan)
    stand_in = [] if plan.stand_in is None else announcement(plan.stand_in)
    plan.warnings = [*context.job.warnings, *stand_in, *plan.warnings]
    return plan


def _first_plan(context: PlanContext) -> Plan | None:
    """Build a plan; None if a model file is missing from ComfyUI's lists."""
    try:
        plan = build_plan(context)
    except ModelNotFound:
        return None
    return None if is_stale(plan.findings) else plan


def _with_downloads(context: PlanContext, plan: Plan) -> Plan:
    """Download the models that a plan lacks, if the operator allows it, and build it again."""
    if (
        context.models is None
        or not context.rules.downloads_models
        or context.job.input.validate_only
    ):
        return plan
    needs = context.missing_needs(plan.findings)
    if not needs:
        return plan
    context.models.fetch_needs(needs)
    context.comfyui.refresh()
    return build_plan(context)


def build_plan(context: PlanContext) -> Plan:
    """Try once to build a plan.

    A second try finds nothing of the first, except the client's files, which are taken in once.

    Raises:
        InputError: the request cannot be done; the code says why.
    """
    return _PlanBuilder(_with_fitting_template(context)).build()


def _with_fitting_template(context: PlanContext) -> PlanContext:
    """Choose the template that this version of ComfyUI runs."""
    if context.template is None:
        return context
    template = template_for_version(context.template, context.comfyui.version)
    return replace(context, template=template)


class _PlanBuilder:
    """Builds one plan."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context
        self._template = context.template
        self._declared: Mapping[str, Declared] = {}
        if context.template is not None:
            self._declared = context.template.params.parameters
        self._check = context.job.deadline.check
        self._files = context.files
        # Both change once, when the models that the request names by URL are downloaded.
        self._request = context.job.input
        self._defs = context.comfyui.defs
        self._sources = CheckContext()
        self._warnings: list[str] = []
        self._link_findings: list[Finding] = []
        self._stand_in: StandIn | None = None
        # The stored files, by the template's parameter.
        self._stored: Mapping[str, str] = {}

    def build(self) -> Plan:
        """Fill the workflow, splice into it what the request asks for, and check the result."""
        try:
            return self._build()
        except ModelNotFound as error:
            raise self._with_folders(error) from error
        except InputError as error:
            # With `validate_only` the edits are tried on a workflow with broken links too, and fail
            # because of those.
            if self._link_findings:
                raise refusal(self._link_findings) from error
            raise

    def _build(self) -> Plan:
        source = self._request.workflow if self._template is None else self._template.workflow
        converted = read_workflow(source, self._defs, self._check)
        self._sources = self._known_sources(converted)
        workflow = with_present_classes(converted.workflow, self._defs)
        is_known = all(node["class_type"] in self._defs for node in workflow.values())
        if not is_known and not self._request.validate_only:
            # Other parts of the request may need the classes that are missing.
            raise refusal(self._check_all(workflow).findings)
        try:
            return self._edited(replace(converted, workflow=workflow))
        except (Ambiguous, NoPlace):
            # A part of the request may have no place only because the workflow itself is broken.
            self._check()
            findings = self._check_all(workflow).findings
            faults = [finding for finding in findings if finding["type"] not in CURABLE]
            if faults:
                raise refusal(faults) from None
            raise

    def _edited(self, converted: Converted) -> Plan:
        """Make all edits, in their order."""
        workflow = self._without_unsent(converted.workflow)
        workflow = self._with_downloaded_models(workflow)
        workflow = with_plain_links(apply_overrides(workflow, self._defs, self._request.overrides))
        self._check()
        self._check_links(workflow)
        self._check()
        workflow, roles = self._with_switches(workflow)
        values, tagged = self._client_values()
        values |= take_pictures(
            self._files, self._request, roles, image_is_clip=self._image_is_clip(workflow)
        )
        self._stored = take_declared_pictures(
            self._files, self._request, workflow, self._defs, self._declared
        )
        values |= self._checkpoint_values(workflow, roles, values)
        own_seed = read(workflow, roles, self._declared).get("seed")
        values |= self._seed_values(workflow, roles, own_seed)
        variant_seed = int(values.get("seed", number(own_seed) or 0))
        resolve_variants(workflow, converted.variants, variant_seed, self._check)
        unfilled = workflow
        workflow = self._filled(workflow, roles, values)
        workflow = self._with_files(workflow, roles)
        parameters = read(workflow, roles, self._declared, unfilled)
        if self._template is not None:
            workflow = without_equal_sizes(self._files, workflow)
        workflow = self._spliced(workflow, roles, tagged)
        seed = number(parameters.get("seed", values.get("seed")))
        return self._checked(workflow, roles, parameters, seed)

    def _known_sources(self, converted: Converted) -> CheckContext:
        """Collect what is known about where models and node classes come from."""
        context, comfyui, template = self._context, self._context.comfyui, self._template
        own = () if template is None else template.params.needs
        listed = context.rules.listed
        return CheckContext(
            needs=(*own, *converted.needs, *listed),
            listed={f"{need.folder}/{need.file}" for need in listed},
            packs=converted.packs,
            find_packs=packs_of,
            has_input=lambda name: came_with_job(self._files, self._request, name),
            explain=comfyui.explain,
            searched=comfyui.searched,
            commands=self._download_commands(),
            accepts_urls=context.models is not None and context.models.accepts_urls,
            has_default=template is not None and not context.rules.sd_model,
        )

    def _download_commands(self) -> dict[str, str]:
        """Map model files to what `comfy_setup models --only` takes: a template or a file."""
        files = [f"{need.folder}/{need.file}" for need in self._context.rules.listed]
        commands = dict(zip(files, files, strict=True))
        if self._template is not None:
            for need in self._template.params.needs:
                if need.url:
                    commands[f"{need.folder}/{need.file}"] = self._template.name
        return commands

    def _without_unsent(self, workflow: Workflow) -> Workflow:
        """Remove the nodes of a template's optional parameters that the request does not give."""
        if self._template is None:
            return workflow
        addressed = {key.rpartition(".")[0] for key in self._request.overrides}
        unsent = []
        for name, parameter in self._template.params.parameters.items():
            is_given = self._request.parameters.get(name) is not None
            if parameter.optional and not is_given and parameter.node in workflow:
                names = {parameter.node, title_of(workflow, parameter.node)}
                if addressed.isdisjoint(names):
                    unsent.append(parameter.node)
        return without_nodes(workflow, self._defs, unsent)

    def _with_downloaded_models(self, workflow: Workflow) -> Workflow:
        """Download the models that are named by URL, and put the names of the files there."""
        models = self._context.models
        if models is None:
            return workflow
        request, defs, declared = self._request, self._defs, self._declared
        references: dict[tuple[str, str], str] = {}

        def note(folder: str, reference: str) -> str:
            return references.setdefault((folder, reference), reference)

        resolve_model_urls(request, workflow, defs, declared, note)
        if not references:
            return workflow
        names = models.fetch(references)
        self._request, workflow = resolve_model_urls(
            request, workflow, defs, declared, lambda folder, reference: names[folder, reference]
        )
        self._context.comfyui.refresh()
        self._defs = self._context.comfyui.defs
        return workflow

    def _with_folders(self, error: ModelNotFound) -> ModelNotFound:
        """Add the folders that were searched to an error."""
        searched = self._context.comfyui.searched
        details = [
            {**detail, "looked_in": list(searched(detail["folder"]))} for detail in error.details
        ]
        folders = ", ".join(details[0]["looked_in"]) if details else ""
        sentence = f"{error.sentence}; looked in {folders}" if folders else error.sentence
        return ModelNotFound(sentence, details)

    def _check_links(self, workflow: Workflow) -> None:
        """Refuse a workflow with broken links, together with whatever else is wrong with it."""
        self._link_findings = broken_links(workflow, self._defs)
        if not self._link_findings or self._request.validate_only:
            return
        broken = {(finding["node_id"], finding["input"]) for finding in self._link_findings}
        for finding in self._check_all(workflow).findings:
            if (finding["node_id"], finding["input"]) not in broken:
                self._link_findings.append(finding)
        raise refusal(self._link_findings)

    def _image_is_clip(self, workflow: Workflow) -> bool:
        """Return whether the template's ``image`` goes to a node that loads a video or sound."""
        entry = self._declared.get("image")
        if entry is None or entry.node not in workflow:
            return False
        return not takes_picture(workflow, self._defs, entry.node, entry.input)

    def _with_switches(self, workflow: Workflow) -> tuple[Workflow, Roles]:
        """Set the request's switches first: they decide which nodes take the other values."""
        roles = find_roles(workflow, self._defs, self._check)
        values = {
            name: entry.default for name, entry in self._declared.items()
        } | self._request.parameters
        choices = {name: value for name, value in values.items() if isinstance(value, bool)}
        if not choices:
            return workflow, roles
        workflow = fill(workflow, roles, self._defs, choices, self._declared, self._check)
        return workflow, find_roles(workflow, self._defs, self._check)

    def _client_values(self) -> tuple[dict[str, Any], list[LoraSpec]]:
        """Read the request's parameters, except the seed, and the LoRAs that its prompts name."""
        values: dict[str, Any] = {}
        for name in Parameters.model_fields:
            value = getattr(self._request, name)
            if value is not None and name != "seed":
                values[name] = value
        tagged: list[LoraSpec] = []
        for name in PROMPTS:
            if name in values:
                values[name], tags = parse_tags(values[name])
                tagged += tags
        return values, tagged

    def _checkpoint_values(
        self, workflow: Workflow, roles: Roles, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        if self._template is None:
            return {}
        choice = CheckpointChoice(self._context, self._defs, workflow, roles)
        chosen = choice.values(self._template, values)
        self._defs = self._context.comfyui.defs  # SD_MODEL may have been downloaded
        self._stand_in = choice.stand_in
        return chosen

    def _seed_values(self, workflow: Workflow, roles: Roles, own_seed: Any) -> dict[str, int]:
        """Choose the seed: the client's, or a drawn one. A custom workflow keeps its own.

        One is drawn if the client sends -1, for a template, and for a workflow that holds -1,
        nothing or a placeholder. Any other text stays, so that the check names it.
        """
        seed = self._request.seed
        if seed is not None and seed != -1:
            return {"seed": seed}
        is_kept = self._template is None and seed is None and _keeps_seed(own_seed)
        if is_kept or "seed" not in roles.inputs:
            return {}
        limit = describe(workflow, roles, self._defs)["seed"].get("maximum", SEED_LIMIT)
        # Not a secret: a number to make the same picture again with.
        return {"seed": random.randrange(max(1, min(SEED_LIMIT, int(limit) + 1)))}  # noqa: S311

    def _filled(self, workflow: Workflow, roles: Roles, values: Mapping[str, Any]) -> Workflow:
        """Fill in all values; overrides count more than values."""
        declared = self._declared
        defaults = {
            name: entry.default for name, entry in declared.items() if entry.default is not None
        }
        values = self._with_inputs(values, roles)
        self._check_replaced(workflow, roles, values)
        values = self._without_twins({**values, **self._request.parameters}, roles)
        values = {**defaults, **values}
        values |= self._stored
        filled = fill(workflow, roles, self._defs, values, declared, self._check)
        if self._template is None:
            self._warn_of_changes(workflow, filled, roles, values)
        else:
            self._warn_of_unfilled(roles, {"checkpoint", "image"} & values.keys() - declared.keys())
        filled = apply_overrides(filled, self._defs, self._request.overrides)
        self._check()
        return with_plain_links(filled)

    def _check_replaced(self, workflow: Workflow, roles: Roles, values: Mapping[str, Any]) -> None:
        """Refuse a wrong value also if `parameters` has another one that is used in its place."""
        names = values.keys() & self._request.parameters.keys()
        if names:
            replaced = {name: values[name] for name in names}
            fill(workflow, roles, self._defs, replaced, self._declared, self._check)

    def _with_inputs(self, values: Mapping[str, Any], roles: Roles) -> dict[str, Any]:
        """Leave out, with a warning, values of another dialect that have no input here."""
        kept: dict[str, Any] = {}
        lost = []
        for name, value in values.items():
            if name in self._context.job.client_words and not has_input(
                roles, name, self._declared
            ):
                lost.append(name)
            else:
                kept[name] = value
        for name in sorted(lost):
            client_word = self._context.job.client_words[name]
            self._warnings.append(f"{client_word} is ignored: this graph has no {name}")
        return kept

    def _without_twins(self, values: Mapping[str, Any], roles: Roles) -> dict[str, Any]:
        """Leave out, with a warning, `guidance` for an input that `cfg` sets, and vice versa."""
        words = self._context.job.client_words
        kept: dict[str, Any] = {}
        for name, value in values.items():
            twin = replaced_by_twin(name, values.keys(), roles, self._declared)
            if twin is None:
                kept[name] = value
            elif value != values[twin]:
                self._warnings.append(
                    f"{words.get(name, name)} is ignored: this workflow has only {twin}, and "
                    f"{words.get(twin, twin)} sets that"
                )
        return kept

    def _warn_of_changes(
        self, unfilled: Workflow, filled: Workflow, roles: Roles, values: Mapping[str, Any]
    ) -> None:
        """Warn if a value reached only some nodes of a workflow, or changed other inputs too."""
        chosen = dict(values)
        if self._request.seed in (None, -1):  # nobody chose it
            chosen.pop("seed", None)
        self._warn_of_unfilled(roles, chosen.keys())
        self._warnings += fill_notes(unfilled, filled, roles, chosen)

    def _warn_of_unfilled(self, roles: Roles, names: Set[str]) -> None:
        """Warn if a value went to some of several inputs and the others stay as they are."""
        for name in sorted(names & roles.unassigned.keys() & roles.inputs.keys()):
            others = [
                f"{other.node_input} ({brief(other.title)})" for other in roles.unassigned[name]
            ]
            self._warnings.append(
                f"{name} went to {roles.inputs[name][0]} only; {listed(others)} stay as they are: "
                f"overrides reach them, or the title '{name}' on the node that is meant"
            )

    def _with_files(self, workflow: Workflow, roles: Roles) -> Workflow:
        """Take in the files that the workflow itself names or holds."""
        workflow, warnings = take_named_images(self._files, self._request, workflow, self._defs)
        self._warnings += warnings
        workflow = take_inline_files(self._files, workflow, self._defs, roles)
        self._check()
        return workflow

    def _spliced(self, workflow: Workflow, roles: Roles, tagged: list[LoraSpec]) -> Workflow:
        splicer = Splicer(self._context.comfyui, self._defs, self._request, roles, self._check)
        workflow = splicer.splice(workflow, tagged, self._files.names)
        self._warnings += splicer.warnings
        self._check()
        return workflow

    def _check_all(self, workflow: Workflow) -> Checked:
        """Find what ComfyUI and this worker would refuse."""
        return check(workflow, self._defs, self._sources, self._context.comfyui.validate)

    def _file_findings(self, workflow: Workflow, roles: Roles) -> dict[tuple[str, str], Finding]:
        """Find the files that were not sent and the forbidden paths, by node and input.

        A job that would run is refused at once; `validate_only` reports them.
        """
        job_files = set(self._files.names.values())
        faults = file_faults(workflow, self._defs, roles.outputs, job_files)
        if not self._request.validate_only:
            refuse(faults)
        found = {}
        for fault in faults:
            node_id, name = fault.node_input
            found[node_id, name] = finding_at(workflow, node_id, name, fault.problem)
        return found

    def _checked(
        self, workflow: Workflow, roles: Roles, parameters: dict[str, Any], seed: float | None
    ) -> Plan:
        """Check the workflow after the last edit: only now it is what ComfyUI will see."""
        check_reserved(workflow)
        file_findings = self._file_findings(workflow, roles)
        max_batch_size = self._context.rules.max_batch_size
        if max_batch_size is not None:
            check_batch_size(workflow, self._defs, max_batch_size, self._check)
        self._check()
        checked = self._check_all(workflow)
        self._check()
        return Plan(
            workflow=workflow,
            name="custom" if self._template is None else self._template.name,
            seed=seed if isinstance(seed, int) else None,
            parameters=parameters,
            warnings=[*self._warnings, *checked.warnings],
            roles=roles,
            needs=model_files(workflow, self._defs, self._sources),
            findings=(*file_findings.values(), *_without(checked.findings, file_findings.keys())),
            seeds=seeds_of_outputs(workflow, roles),
            stand_in=self._stand_in,
        )


def _without(findings: Iterable[Finding], inputs: Set[tuple[str, str]]) -> list[Finding]:
    """Leave out the findings about these inputs, which already have a finding of their own."""
    return [finding for finding in findings if (finding["node_id"], finding["input"]) not in inputs]


def _keeps_seed(own_seed: Any) -> bool:
    """Return whether a custom workflow keeps its seed: a number, or a text, not a placeholder."""
    value = number(own_seed)
    if value is not None:
        return value >= 0
    return isinstance(own_seed, str) and not SEED_PLACEHOLDER.search(own_seed)
