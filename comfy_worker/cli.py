"""The commands on workflow files: ``convert``, ``check`` and ``inspect``.

Files are found, read and reported here; ``workflow/`` does the work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from comfy_common.console import Console
from comfy_common.node_map import packs_of
from comfy_worker.errors import InvalidWorkflow, WorkerError
from comfy_worker.inputs.embedded_workflow import workflow_of_picture
from comfy_worker.models.catalog import listed_models
from comfy_worker.planning.templates import PARAMS
from comfy_worker.request.embedded_workflow import with_embedded_workflow
from comfy_worker.request.schema import JobInput
from comfy_worker.workflow.check.preflight import Validate, check
from comfy_worker.workflow.convert.to_api import Converted, read_workflow, resolve_variants
from comfy_worker.workflow.edit.describe import describe
from comfy_worker.workflow.model_files import CheckContext, model_files
from comfy_worker.workflow.model_names import is_model
from comfy_worker.workflow.node_defs import NodeDefs
from comfy_worker.workflow.replaced_classes import with_present_classes
from comfy_worker.workflow.roles.find import find_roles

__all__ = ["COMMANDS", "NodeSource", "run"]

PICTURES = (".png", ".webp")

Report = dict[str, Any]
# The worker's own nodes need no pack.
OUR_NODES = "custom_nodes.comfy_worker_nodes"


@dataclass(frozen=True)
class NodeSource:
    """Where the commands learn what ComfyUI has.

    Attributes:
        defs: the node definitions.
        validate: asks a running ComfyUI what is wrong with a workflow; None: no ComfyUI runs, and
            ``check`` reads only the definitions.
    """

    defs: NodeDefs
    validate: Validate | None = None


def run(
    command: str,
    file: str,
    source: NodeSource,
    *,
    output: Path | None = None,
    as_json: bool = False,
) -> int:
    """Run a command on a file, on every file of a folder, or on stdin.

    Args:
        command: one of :data:`COMMANDS`.
        file: a path, or ``-`` for stdin.
        source: the node definitions, and ComfyUI if it runs.
        output: where ``convert`` writes: a file, or for a folder a folder; stdout if None.
        as_json: print one JSON object with a report for each file.

    Returns:
        The exit code: 1 if a file has a problem, else 0.
    """
    reports = {name: _report(command, read, source) for name, read in _files(file)}
    if not reports:
        reports = {file: _failed("there is no workflow in this folder")}
    if output is not None:
        is_folder = Path(file).is_dir() or output.is_dir()
        for name, report in reports.items():
            file_name = Path(name).with_suffix(".json").name
            if "workflow" in report:
                _write(report, output / file_name if is_folder else output)
    if as_json:
        Console(sys.stdout).say(_as_json(reports))
    else:
        for name, report in reports.items():
            if command == "convert" and output is None and "workflow" in report:
                Console(sys.stdout).say(_as_json(report["workflow"]))
            _print_report(command, name, report)
    has_problem = any(report["findings"] for report in reports.values())
    return 1 if has_problem else 0


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _write(report: Report, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{_as_json(report['workflow'])}\n", encoding="utf-8")
    except OSError as error:
        report |= _failed(str(error))


def _failed(problem: str) -> Report:
    return {"findings": [{"problem": problem}], "error": problem}


def _files(file: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The names of the files, each with a function that reads it."""
    path = Path(file)
    if file == "-":
        yield "stdin", sys.stdin.buffer.read
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.suffix in (".json", *PICTURES) and not entry.name.endswith(PARAMS):
                yield str(entry), entry.read_bytes
    else:
        yield file, path.read_bytes


def _parsed(data: bytes) -> Any:
    """The workflow in a file, or in the request that a file contains."""
    if data[:4] in (b"\x89PNG", b"RIFF"):
        return workflow_of_picture(data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidWorkflow(
            f"it is neither JSON nor a picture that ComfyUI saved ({error})"
        ) from None
    job_input = value.get("input") if isinstance(value, dict) else None
    if not isinstance(job_input, dict) or "workflow" not in job_input:
        return value
    return with_embedded_workflow(JobInput.read({"workflow": job_input["workflow"]})).workflow


def _report(command: str, read: Callable[[], bytes], source: NodeSource) -> Report:
    """Run a command on one file; an error becomes a finding."""
    try:
        converted = read_workflow(_parsed(read()), source.defs)
        converted = replace(
            converted, workflow=with_present_classes(converted.workflow, source.defs)
        )
        resolve_variants(converted.workflow, converted.variants, seed=0)
        return COMMANDS[command](converted, source)
    except WorkerError as error:
        failed = _failed(f"{error.code}: {error}")
        return {**failed, "findings": error.details or failed["findings"]}
    except OSError as error:
        return _failed(error.strerror or str(error))


def _sources(converted: Converted) -> CheckContext:
    listed = listed_models()
    names = frozenset(f"{need.folder}/{need.file}" for need in listed)
    # Input files come with a job, so none can be missing here.
    return CheckContext(
        (*converted.needs, *listed),
        names,
        converted.packs,
        find_packs=packs_of,
        has_input=lambda _name: True,
        commands={name: name for name in names},
    )


def _convert(converted: Converted, source: NodeSource) -> Report:
    """The workflow in API format; the findings are nodes whose class is not installed."""
    findings = check(converted.workflow, source.defs, _sources(converted)).findings
    return {
        "workflow": converted.workflow,
        "findings": [finding for finding in findings if finding["type"] == "unknown_class"],
    }


def _check(converted: Converted, source: NodeSource) -> Report:
    checked = check(converted.workflow, source.defs, _sources(converted), source.validate)
    # ComfyUI finds that they are missing; they come with a job.
    findings = [finding for finding in checked.findings if finding["type"] != "missing_input_file"]
    return {
        "findings": findings,
        "warnings": list(checked.warnings),
        "nodes": _nodes_of_packs(converted, source.defs),
        "needs": _model_needs(converted, source.defs),
    }


def _nodes_of_packs(converted: Converted, defs: NodeDefs) -> list[dict[str, Any]]:
    """The classes of a workflow that ComfyUI itself does not have, each with its pack."""
    nodes = []
    for class_type in dict.fromkeys(node["class_type"] for node in converted.workflow.values()):
        declared = defs.get(class_type)
        module = "" if declared is None else declared.python_module
        folder = module.removeprefix("custom_nodes.") if module != OUR_NODES else module
        if declared is not None and folder == module:
            continue
        pack = converted.packs.get(class_type, "")
        node = {
            "class_type": class_type,
            "pack": pack,
            "version": converted.pack_versions.get(pack, ""),
            "installed_as": folder,
        }
        nodes.append(node)
    return nodes


def _model_needs(converted: Converted, defs: NodeDefs) -> list[dict[str, Any]]:
    """The model files of a workflow, also those that nodes of unknown classes name."""
    needs = [asdict(need) for need in model_files(converted.workflow, defs, _sources(converted))]
    known = {need["file"].rpartition("/")[2] for need in needs}
    for node in converted.workflow.values():
        values = [] if node["class_type"] in defs else node["inputs"].values()
        for value in filter(is_model, values):
            file = value.replace("\\", "/")
            if file.rpartition("/")[2] not in known:
                known.add(file.rpartition("/")[2])
                needs.append({"folder": "", "file": file, "url": None})
    return needs


def _inspect(converted: Converted, source: NodeSource) -> Report:
    defs = source.defs
    roles = find_roles(converted.workflow, defs)
    return {
        "parameters": describe(converted.workflow, roles, defs),
        "roles": roles.outline(),
        "needs": [
            asdict(need) for need in model_files(converted.workflow, defs, _sources(converted))
        ],
        "findings": [],
    }


COMMANDS: dict[str, Callable[[Converted, NodeSource], Report]] = {
    "convert": _convert,
    "check": _check,
    "inspect": _inspect,
}


def _print_report(command: str, name: str, report: Report) -> None:
    """Print a report for people. Problems of a conversion go to stderr, all else to stdout."""
    console = Console(sys.stderr if command == "convert" else sys.stdout)
    if "error" in report:
        console.say(f"{name}: {report['error']}")
        return
    for finding in report["findings"]:
        where = f"node {finding['node_id']} ({finding['title']}): " if finding["node_id"] else ""
        console.say(f"{name}: {where}{finding['problem']}; {finding['would_do']}")
    for warning in report.get("warnings", ()):
        console.say(f"{name}: warning: {warning}")
    if command == "check" and not report["findings"]:
        console.say(f"{name}: nothing is wrong")
    if command == "inspect":
        console.say(f"{name}:")
        header, *rows = _rows(report)
        console.table(header, rows)


def _rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    """The parameters, then the roles and model files, in four columns."""
    yield "parameter", "now", "takes", "in"
    for name, entry in report["parameters"].items():
        yield name, _short(entry.get("default", "")), _takes(entry), " ".join(entry["places"])
    for word in ("ambiguous", "left"):
        for name, inputs in report["roles"][word].items():
            yield name, "", word, " ".join(inputs)
    for role in ("samplers", "outputs"):
        yield role, "", "", " ".join(report["roles"][role])
    for need in report["needs"]:
        source = f"  {need['url']}" if need["url"] else ""
        yield "needs", "", need["folder"], f"{need['file']}{source}"


def _takes(entry: Mapping[str, Any]) -> str:
    """Which values a parameter takes."""
    if "enum" in entry:
        choices = len(entry["enum"])
        return f"one of {choices}" if choices else "none is installed"
    value_type = entry.get("type", "")
    low, high = entry.get("minimum"), entry.get("maximum")
    if low is None and high is None:
        return str(value_type)
    lower = "" if low is None else low
    upper = "" if high is None else high
    return f"{value_type} {lower}..{upper}".strip()


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
