"""Commands for the desk: ``python -m comfy_worker templates | schema | convert | check | inspect``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_common import paths
from comfy_common.closed_pipe import quiet_on_closed_pipe
from comfy_worker import cli as desk
from comfy_worker import logs
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.supervisor import ComfyUI
from comfy_worker.deadline import Stop
from comfy_worker.errors import InvalidInput, WorkerError
from comfy_worker.planning.json_schema import template_schema
from comfy_worker.planning.templates import Templates
from comfy_worker.settings import Settings
from comfy_worker.workflow.node_defs import NodeDefs

ONLY_DECLARATIONS = (
    "check: only the declarations in {} are read; what a class checks itself, and the choices of newer lists, "
    "are not checked. Without --object-info a ComfyUI is started and checks everything."
)
DESK = {
    "convert": "a workflow as the editor saves it, in API format",
    "check": "what of a workflow this ComfyUI would refuse",
    "inspect": "a workflow's parameters, and what its nodes are for",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 1 where the command found something missing or wrong.
    """
    return quiet_on_closed_pipe(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m comfy_worker", description="Looks at workflows from the desk."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    listing = commands.add_parser("templates", help="the templates, and what this machine lacks to run each")
    listing.add_argument("--json", action="store_true", help="as JSON")
    schema = commands.add_parser("schema", help="a template's JSON Schema")
    schema.add_argument("name", metavar="NAME", help="a template")
    schema.add_argument(
        "--object-info", type=Path, metavar="FILE", help="ComfyUI's /object_info, else it is started"
    )
    for name, meaning in DESK.items():
        command = commands.add_parser(name, help=meaning)
        command.add_argument(
            "file", metavar="FILE", help="a workflow in any form, a folder of them, or - for stdin"
        )
        command.add_argument(
            "--object-info", type=Path, metavar="FILE", help="ComfyUI's /object_info, else it is started"
        )
        command.add_argument("--json", action="store_true", help="as JSON, by file")
        if name == "convert":
            command.add_argument("--output", type=Path, metavar="FILE", help="where to write it, else to stdout")
    options = parser.parse_args(arguments)
    logs.configure("WARNING")
    try:
        settings = Settings.from_env(os.environ)
        templates = Templates(paths.workflow_folders(settings.volume))
        if options.command == "schema":
            template = templates.load(options.name)
            with _node_source(settings, options.object_info) as source:
                print(json.dumps(template_schema(template, source.defs), indent=2))
            return 0
        if options.command in DESK:
            output = getattr(options, "output", None)
            with _node_source(settings, options.object_info) as source:
                if options.command == "check" and source.validate is None:
                    print(ONLY_DECLARATIONS.format(options.object_info), file=sys.stderr)
                return desk.run(options.command, options.file, source, output=output, as_json=options.json)
        return _list([_row(settings, templates, name) for name in templates.names()], as_json=options.json)
    except WorkerError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1


def _row(settings: Settings, templates: Templates, name: str) -> dict[str, Any]:
    """What there is to say of one template; of a broken one, what is wrong with it."""
    try:
        params = templates.load(name).params
    except WorkerError as error:
        return {"name": name, "description": str(error), "missing": [], "broken": True}
    roots = (settings.comfyui_dir / "models", *settings.model_roots)
    needs = [f"{need.folder}/{need.file}" for need in params.needs]
    missing = [need for need in needs if not any((root / need).is_file() for root in roots)]
    return {"name": name, "description": params.description, "missing": missing, "broken": False}


def _list(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    """Print the templates; 1 where one is broken or lacks a model."""
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            print(f"{row['name']:{width}}  {row['description']}")
            for need in row["missing"]:
                print(f"{'':{width}}  - lacks models/{need}")
    return 1 if any(row["missing"] or row["broken"] for row in rows) else 0


@contextmanager
def _node_source(settings: Settings, object_info: Path | None) -> Iterator[desk.NodeSource]:
    """The node classes of a file, or of a ComfyUI that runs while the block lasts."""
    if object_info is not None:
        yield desk.NodeSource(_read_object_info(object_info))
        return
    comfyui = ComfyUI(
        LaunchOptions(
            settings.comfyui_dir,
            settings.model_roots,
            tuple(paths.custom_node_folders(settings.volume)),
            settings.comfy_args,
        )
    )
    try:
        running = comfyui.ready(Stop())
        yield desk.NodeSource(running.defs, running.validate)
    finally:
        comfyui.close()


def _read_object_info(file: Path) -> NodeDefs:
    try:
        return NodeDefs(dict(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"--object-info must be a file with the answer of /object_info ({error})") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
