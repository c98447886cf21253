"""Reads templates: named workflows, and what a workflow cannot say about itself.

A template is a file ``<name>.json``, as ComfyUI exports or saves it, perhaps with a file
``<name>.params.json``. A file that is put into one of the folders is a template at once, since the
folders are listed again for each job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from comfy_common.comfyui_version import parse_version
from comfy_worker.errors import (
    ComfyUITooOld,
    InvalidInput,
    InvalidWorkflow,
    UnknownWorkflow,
    brief,
)
from comfy_worker.nearest import did_you_mean
from comfy_worker.request.schema import JobInput
from comfy_worker.workflow.convert.ui_format import is_editor_file
from comfy_worker.workflow.graph import Workflow
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.parse import parse

__all__ = [
    "ModelFile",
    "Parameter",
    "Params",
    "Requirements",
    "Template",
    "Templates",
    "choose_template",
    "is_too_old",
    "template_for_version",
]

PARAMS = ".params.json"


class Parameter(BaseModel):
    """A further parameter of a template: a name for one input of a node.

    Attributes:
        optional: without a value, the node and all that needs it are removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    input: str
    description: str = ""
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _has_a_range(self) -> Parameter:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise PydanticCustomError("range", "minimum should be at most maximum")
        return self


class Requirements(BaseModel):
    """A template's requirements for the machine.

    Attributes:
        comfyui: the oldest ComfyUI that runs it; empty: any that the worker runs with.
        disk_gb: the size of its model files together.
        vram_gib: the GPU memory that it needs, if a source states it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    comfyui: str = ""
    disk_gb: float | None = None
    vram_gib: float | None = None


class Params(BaseModel):
    """The content of ``<name>.params.json``.

    Attributes:
        older: the template that an older ComfyUI runs in place of this one.
        example: a request's input, for the docs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    description: str = ""
    requirements: Requirements = Requirements()
    older: str = ""
    needs: tuple[ModelFile, ...] = ()
    parameters: dict[str, Parameter] = {}
    required: tuple[str, ...] = ()
    example: dict[str, Any] = {}


@dataclass(frozen=True)
class Template:
    """A named workflow in API or UI format, with the content of its ``params.json``.

    Attributes:
        older: what an older ComfyUI runs in place of it.
    """

    name: str
    workflow: dict[str, Any]
    params: Params
    older: Template | None = None


class Templates:
    """The templates of a list of folders.

    Args:
        folders: searched in order; of several files with one name the first is used. Folders may be
            missing. A function is called for each job, and may read a slow network volume.
    """

    def __init__(self, folders: Sequence[Path] | Callable[[], Sequence[Path]]) -> None:
        self._folders = folders

    def names(self) -> list[str]:
        """Return the names of all templates, sorted."""
        return sorted(self.files())

    def load(self, name: str) -> Template:
        """Read one template.

        Raises:
            UnknownWorkflow: no template has this name; the error suggests similar names.
            InvalidWorkflow: a file of the template is not valid JSON or has a wrong structure.
        """
        files = self.files()
        if name not in files:
            known = sorted(files)
            hint = did_you_mean(name, files, f"there are {', '.join(known) or 'none'}")
            raise UnknownWorkflow(
                f"no workflow is named '{brief(name)}'; {hint}",
                [{"given": brief(name), "known": known}],
            )
        path = files[name]
        params_path = path.with_name(name + PARAMS)
        params = _read(params_path, Params) if params_path.is_file() else Params()
        workflow = _read(path, None)
        if not is_editor_file(workflow):
            workflow = parse(workflow)
            _check(params, workflow, params_path.name)
        return Template(name, workflow, params, self._older(params, files, params_path.name))

    def _older(self, params: Params, files: Mapping[str, Path], file: str) -> Template | None:
        """Read the template that an older ComfyUI runs; it names no other template itself."""
        if not params.older:
            return None
        if params.older not in files:
            raise InvalidWorkflow(
                f"the template file {file} must be corrected: older names '{brief(params.older)}', "
                "which is not a template"
            )
        path = files[params.older]
        params_path = path.with_name(params.older + PARAMS)
        own = _read(params_path, Params) if params_path.is_file() else Params()
        workflow = _read(path, None)
        return Template(
            params.older, workflow if is_editor_file(workflow) else parse(workflow), own
        )

    def files(self) -> dict[str, Path]:
        """Return the file of each template, by the template's name."""
        found: dict[str, Path] = {}
        for folder in self._folders() if callable(self._folders) else self._folders:
            for path in sorted(folder.glob("*.json")):
                if not path.name.endswith(PARAMS):
                    found.setdefault(path.stem, path)
        return found


def choose_template(request: JobInput, templates: Templates) -> Template | None:
    """Load the template that a request names or means; None for a custom workflow.

    Raises:
        UnknownWorkflow: no template has that name.
        InvalidInput: the request lacks what the template requires.
    """
    if isinstance(request.workflow, dict):
        return None
    name = _default_name(request) if request.workflow is None else request.workflow
    template = templates.load(name)
    values = {key: getattr(request, key) for key in JobInput.model_fields}
    values = {**request.parameters, **values}
    missing = [key for key in template.params.required if values.get(key) in (None, ())]
    if missing:
        raise InvalidInput(
            f"workflow '{template.name}' needs {' and '.join(missing)}; add this to the input",
            [{"key": key, "problem": "missing"} for key in missing],
        )
    return template


def template_for_version(template: Template, version: str) -> Template:
    """Return the template, or the one that this older ComfyUI runs in place of it.

    Args:
        template: what the request names.
        version: ComfyUI's; empty: unknown, and new enough.

    Raises:
        ComfyUITooOld: this ComfyUI can run neither.
    """
    if not is_too_old(template.params.requirements, version):
        return template
    if template.older is not None:
        return template_for_version(template.older, version)
    needed = template.params.requirements.comfyui
    raise ComfyUITooOld(
        f"workflow '{template.name}' needs ComfyUI {needed} or newer, and this worker has "
        f"{version}; install a newer ComfyUI, or choose another workflow",
        [{"workflow": template.name, "needs": needed, "installed": version}],
    )


def is_too_old(requirements: Requirements, version: str) -> bool:
    """Whether a ComfyUI of this version is older than what a template requires."""
    needed, installed = parse_version(requirements.comfyui), parse_version(version)
    length = max(len(needed), len(installed))
    padded = [(*numbers, *[0] * (length - len(numbers))) for numbers in (installed, needed)]
    return bool(needed) and bool(installed) and padded[0] < padded[1]


def _default_name(request: JobInput) -> str:
    """Name the template for a request that names none."""
    if request.image is None:
        return "txt2img"
    return "img2img" if request.mask is None else "inpaint"


def _check(params: Params, workflow: Workflow, file: str) -> None:
    """Refuse a ``params.json`` that names inputs or keys that do not exist."""
    problems = [
        f"parameter {name} is {entry.node}.{entry.input}, which the workflow lacks"
        for name, entry in params.parameters.items()
        if entry.input not in workflow.get(entry.node, {}).get("inputs", {})
    ]
    known = {*JobInput.model_fields, *params.parameters}
    unknown = [key for key in params.required if key not in known]
    problems += [f"{key} is required but is not a key of a request" for key in unknown]
    if problems:
        raise InvalidWorkflow(f"the template file {file} must be corrected: {'; '.join(problems)}")


Form = TypeVar("Form", bound=BaseModel)


def _read(path: Path, form: type[Form] | None) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if form is None else form.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(map(str, first["loc"]))
        raise InvalidWorkflow(
            f"the template file {path.name} must be corrected: {location}: {first['msg']}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        first_line = str(error).splitlines()[0]
        raise InvalidWorkflow(
            f"the template file {path.name} cannot be read ({first_line}); correct or remove it"
        ) from error
