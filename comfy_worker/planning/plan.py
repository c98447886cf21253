"""The inputs of a plan, and the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from comfy_worker.inputs.files import InputFiles
from comfy_worker.job import Job
from comfy_worker.models.downloads import JobModels
from comfy_worker.planning.templates import Template
from comfy_worker.workflow.check.preflight import Finding
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.node_defs import MissingNodeReason, NodeDefs
from comfy_worker.workflow.roles.roles import Roles

__all__ = ["Installed", "Plan", "PlanContext", "PlanningRules", "StandIn"]


class Installed(Protocol):
    """The installation of the ComfyUI that will run the job.

    A protocol, so that planning imports nothing of the ComfyUI process.
    """

    @property
    def version(self) -> str:
        """ComfyUI's version; empty if it is not known."""

    @property
    def defs(self) -> NodeDefs:
        """ComfyUI's node classes, with the model files that it finds."""

    def model_path(self, folder: str, name: str) -> Path | None:
        """Find the file of a model."""

    def explain(self, class_type: str) -> MissingNodeReason | None:
        """Say why ComfyUI lacks a node class that is installed; None if it is not installed."""

    def searched(self, folder: str) -> Sequence[str]:
        """List the folders in which ComfyUI searches for one type of model."""

    def validate(self, workflow: Workflow) -> Mapping[str, Any] | None:
        """Have ComfyUI validate a workflow; None if that is not possible."""

    def refresh(self) -> None:
        """Read the node classes again: a file has arrived."""


@dataclass(frozen=True)
class PlanningRules:
    """The operator's rules for all plans.

    Attributes:
        sd_model: the checkpoint that stands in for one that is not installed: a file, a hub id, or
            empty.
        downloads_models: whether the worker downloads models that a template lacks.
        max_batch_size: how many pictures at once the endpoint allows; None: any number.
        listed: the model files of models.txt.
    """

    sd_model: str = ""
    downloads_models: bool = False
    max_batch_size: int | None = None
    listed: Sequence[ModelFile] = ()


@dataclass(frozen=True)
class PlanContext:
    """The inputs of one job's plan. They do not change between two tries.

    Attributes:
        job: the job.
        template: the template that it runs; None: a custom workflow.
        comfyui: the ComfyUI that will run it.
        files: takes in the files that the client sent.
        models: downloads models by URL; None: a URL counts as the name of a file.
        rules: the operator's.
    """

    job: Job
    template: Template | None
    comfyui: Installed
    files: InputFiles
    models: JobModels | None = None
    rules: PlanningRules = PlanningRules()

    @property
    def known_needs(self) -> tuple[ModelFile, ...]:
        """The model files that the template's params or models.txt name."""
        own = () if self.template is None else self.template.params.needs
        return (*own, *self.rules.listed)

    def missing_needs(self, findings: Iterable[Finding]) -> list[ModelFile]:
        """List the missing model files that can be downloaded."""
        known = {(need.folder, need.file): need for need in self.known_needs if need.url}
        missing: dict[tuple[str, str], ModelFile] = {}
        for finding in findings:
            if finding["type"] == "missing_model":
                key = (finding["folder"], finding["given"])
                if key in known:
                    missing[key] = known[key]
        return list(missing.values())


@dataclass(frozen=True)
class StandIn:
    """A checkpoint that is used because the template's own is not installed."""

    missing: str
    chosen: str


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
        needs: the model files that it names, and where they can be downloaded.
        findings: the reasons for which it cannot run; see
            :mod:`comfy_worker.workflow.check.preflight`.
        seeds: by output node, the seed that its own pictures are made with.
        stand_in: the checkpoint that is used in place of the template's, if nobody chose it.
    """

    workflow: Workflow
    name: str
    seed: int | None
    parameters: dict[str, Any]
    warnings: list[str]
    roles: Roles
    needs: tuple[ModelFile, ...]
    findings: tuple[Finding, ...]
    seeds: Mapping[str, int] = field(default_factory=dict)
    stand_in: StandIn | None = None
