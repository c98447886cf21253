"""The command line for workflows: ``python -m comfy_worker templates | schema | convert | ...``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_common import hub_cache, paths
from comfy_common.closed_pipe import quiet_on_closed_pipe
from comfy_common.console import Console
from comfy_worker import cli, logs
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.supervisor import ComfyUISupervisor
from comfy_worker.comfyui.version import ComfyUIVersion
from comfy_worker.deadline import Deadline
from comfy_worker.errors import InvalidInput, WorkerError
from comfy_worker.models.cached import cached_models
from comfy_worker.planning.json_schema import SchemaRules, template_schema
from comfy_worker.planning.templates import Templates, is_too_old
from comfy_worker.request.schema import input_schema
from comfy_worker.settings import Settings
from comfy_worker.workflow.model_files import ModelFile
from comfy_worker.workflow.node_defs import NodeDefs

ONLY_DEFINITIONS = (
    "check: this reads only the definitions in {}. It does not check what a class checks itself, "
    "or the choices of newer lists. Without --object-info, ComfyUI is started and checks "
    "everything."
)
COMMANDS = {
    "convert": "convert a workflow from ComfyUI's editor to API format",
    "check": "list what prevents a workflow from running on this ComfyUI",
    "inspect": "show a workflow's parameters and the roles of its nodes",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 1 if the command found a problem.
    """
    return quiet_on_closed_pipe(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    logs.configure("WARNING")
    try:
        return _run(options)
    except WorkerError as error:
        Console(sys.stderr).say(f"{error.code}: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfy_worker",
        description="Lists, converts and checks workflows.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    listing = commands.add_parser(
        "templates", help="list the templates, and their models that are missing on this machine"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    schema = commands.add_parser("schema", help="print the JSON Schema of a request's input")
    schema.add_argument(
        "name", metavar="NAME", nargs="?", help="a template (default: the schema for any workflow)"
    )
    _add_object_info(schema)
    for name, meaning in COMMANDS.items():
        command = commands.add_parser(name, help=meaning)
        command.add_argument(
            "file", metavar="FILE", help="a workflow in any format, a folder, or - for stdin"
        )
        _add_object_info(command)
        command.add_argument(
            "--json", action="store_true", help="print JSON with one entry per file"
        )
        if name == "convert":
            command.add_argument(
                "--output", type=Path, metavar="FILE", help="where to write (default: stdout)"
            )
    return parser


def _add_object_info(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--object-info",
        type=Path,
        metavar="FILE",
        help="a saved /object_info response (default: start ComfyUI and ask it)",
    )


def _run(options: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    templates = Templates(paths.workflow_folders(settings.volume))
    if options.command == "schema":
        schema = _schema(options, settings, templates)
        Console(sys.stdout).say(json.dumps(schema, indent=2))
        return 0
    if options.command in COMMANDS:
        output = getattr(options, "output", None)
        with _node_source(settings, options.object_info) as source:
            if options.command == "check" and source.validate is None:
                Console(sys.stderr).say(ONLY_DEFINITIONS.format(options.object_info))
            return cli.run(
                options.command, options.file, source, output=output, as_json=options.json
            )
    rows = [_row(settings, templates, name) for name in templates.names()]
    return _list(rows, as_json=options.json)


def _row(settings: Settings, templates: Templates, name: str) -> dict[str, Any]:
    """Return the list entry of a template. For a broken template, the description is its error."""
    try:
        params = templates.load(name).params
    except WorkerError as error:
        return {
            "name": name,
            "description": str(error),
            "missing": [],
            "broken": True,
            "too_old": False,
        }
    too_old = is_too_old(params.requirements, ComfyUIVersion.in_folder(settings.comfyui_dir).name)
    missing = [
        f"{need.folder}/{need.file}" for need in params.needs if not _is_installed(need, settings)
    ]
    return {
        "name": name,
        "title": params.title,
        "description": params.description,
        "requirements": params.requirements.model_dump(),
        "too_old": too_old,
        "missing": missing,
        "broken": False,
    }


def _is_installed(need: ModelFile, settings: Settings) -> bool:
    roots = (settings.comfyui_dir / "models", *settings.model_roots)
    if any((root / need.folder / need.file).is_file() for root in roots):
        return True
    cached = hub_cache.find_url(need.url or "", settings.hub_snapshots, settings.hf_endpoint)
    return cached is not None


def _list(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    """Print the templates. Returns 1 if a template is broken or lacks a model, else 0."""
    console = Console(sys.stdout)
    if as_json:
        console.say(json.dumps(rows, indent=2))
    else:
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            console.say(f"{row['name']:{width}}  {row['description']}")
            if row["too_old"]:
                needed = row["requirements"]["comfyui"]
                console.say(f"{'':{width}}  - needs ComfyUI {needed} or newer")
            for need in row["missing"]:
                console.say(f"{'':{width}}  - lacks models/{need}")
    has_problem = any(row["missing"] or row["broken"] for row in rows)
    return 1 if has_problem else 0


def _schema(
    options: argparse.Namespace, settings: Settings, templates: Templates
) -> dict[str, Any]:
    if options.name is None:
        return input_schema(settings.max_batch_size)
    template = templates.load(options.name)
    rules = SchemaRules(settings.max_batch_size, bool(settings.models_allowed_hosts))
    with _node_source(settings, options.object_info) as source:
        return template_schema(template, source.defs, rules)


@contextmanager
def _node_source(settings: Settings, object_info: Path | None) -> Iterator[cli.NodeSource]:
    """Yield the node definitions: from a file, or from a ComfyUI that runs until the block ends."""
    if object_info is not None:
        yield cli.NodeSource(_read_object_info(object_info))
        return
    comfyui = ComfyUISupervisor(
        LaunchOptions(
            settings.comfyui_dir,
            settings.model_roots,
            tuple(paths.custom_node_folders(settings.volume)),
            settings.comfy_args,
            cached_models=cached_models(settings),
            hub_caches=settings.hub_caches,
        )
    )
    try:
        running = comfyui.ready(Deadline())
        yield cli.NodeSource(running.defs, running.validate)
    finally:
        comfyui.close()


def _read_object_info(file: Path) -> NodeDefs:
    try:
        return NodeDefs(dict(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"--object-info must be a file with a response of /object_info ({error})"
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
