"""The command line for workflows: ``python -m comfy_worker templates | schema | convert | ...``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from comfy_common import paths
from comfy_common.closed_pipe import quiet_on_closed_pipe
from comfy_common.console import DRAW_EVERY_S, Console, Step
from comfy_common.exit_codes import FAILED, INTERRUPTED
from comfy_common.text import duration
from comfy_common.workflow_options import FILE_COMMANDS, WORKFLOW_COMMANDS, add_workflow_options
from comfy_worker import cli, logs
from comfy_worker.comfyui.launch import LaunchOptions
from comfy_worker.comfyui.supervisor import ComfyUIInstance, ComfyUISupervisor
from comfy_worker.deadline import Deadline
from comfy_worker.editor import edit
from comfy_worker.errors import InvalidInput, WorkerError
from comfy_worker.models.cached import cached_models
from comfy_worker.planning.json_schema import SchemaRules, template_schema
from comfy_worker.planning.templates import Templates
from comfy_worker.request.schema import input_schema
from comfy_worker.saved_object_info import SavedObjectInfo
from comfy_worker.settings import Settings
from comfy_worker.template_catalog import template_catalog, template_row
from comfy_worker.workflow.node_defs import NodeDefs

ONLY_DEFINITIONS = (
    "check: this reads only the definitions {}. It does not check what a class checks itself, or "
    "the choices of newer lists. With --fresh, ComfyUI is started and checks everything."
)


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
        return FAILED
    except KeyboardInterrupt:
        Console(sys.stderr).say("Stopped.")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfy_worker",
        description="Lists, converts and checks workflows.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, meaning in WORKFLOW_COMMANDS.items():
        add_workflow_options(commands.add_parser(name, help=meaning), name)
    return parser


def _run(options: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    templates = Templates(paths.workflow_folders(settings.volume))
    if options.command == "edit":
        launch = _launch_options(settings)
        return edit(launch, options.name, options.port, options.folder.absolute(), templates)
    if options.command == "schema":
        schema = _schema(options, settings, templates)
        Console(sys.stdout).say(json.dumps(schema, indent=2))
        return 0
    if getattr(options, "lock", False):
        raise InvalidInput("--lock is an option of `python3 -m comfy_setup check`")
    if options.command == "catalog":
        with _node_source(settings, options) as source:
            catalog = json.dumps(template_catalog(settings, templates, source.defs), indent=2)
        Console(sys.stdout).say(catalog)
        return 0
    if options.command in FILE_COMMANDS:
        output = getattr(options, "output", None)
        # ComfyUI takes a while to start, so a missing file is reported without it.
        is_missing = options.file != "-" and not Path(options.file).exists()
        no_classes = nullcontext(cli.NodeSource(NodeDefs({})))
        with no_classes if is_missing else _node_source(settings, options) as source:
            return cli.run(
                options.command, options.file, source, output=output, as_json=options.json
            )
    rows = [template_row(settings, templates, name) for name in templates.names()]
    return _list(rows, as_json=options.json)


def _list(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    """Print the templates. Returns 1 if a template is broken or lacks a model, else 0."""
    console = Console(sys.stdout)
    if as_json:
        console.say(json.dumps(rows, indent=2))
    else:
        console.table(["template", "what it does"], [_cells(row) for row in rows])
    has_problem = any(row["missing"] or row["broken"] for row in rows)
    return 1 if has_problem else 0


def _cells(row: Mapping[str, Any]) -> list[str]:
    lines = [row["description"]]
    if row["too_old"]:
        lines.append(f"- needs ComfyUI {row['requirements']['comfyui']} or newer")
    lines += [f"- lacks models/{need}" for need in row["missing"]]
    return [row["name"], "\n".join(lines)]


def _schema(
    options: argparse.Namespace, settings: Settings, templates: Templates
) -> dict[str, Any]:
    if options.name is None:
        return input_schema(settings.max_batch_size)
    template = templates.load(options.name)
    rules = SchemaRules(settings.max_batch_size, bool(settings.models_allowed_hosts))
    with _node_source(settings, options) as source:
        return template_schema(template, source.defs, rules)


@contextmanager
def _node_source(settings: Settings, options: argparse.Namespace) -> Iterator[cli.NodeSource]:
    """Yield the node definitions: saved ones, or those of a ComfyUI that runs until the end."""
    console = Console(sys.stderr)
    if options.object_info is not None:
        if options.command == "check":
            console.say(ONLY_DEFINITIONS.format(f"in {options.object_info}"))
        yield cli.NodeSource(_read_object_info(options.object_info))
        return
    saved = SavedObjectInfo(paths.CACHE, settings)
    defs = None if options.fresh else saved.read()
    if defs is not None:
        age = f"that this ComfyUI gave {duration(saved.age_s())} ago"
        if options.command == "check":
            console.say(ONLY_DEFINITIONS.format(age))
        else:
            console.say(f"Using the definitions {age}; --fresh asks it again")
        yield cli.NodeSource(defs)
        return
    comfyui = ComfyUISupervisor(_launch_options(settings))
    try:
        with console.step("Starting ComfyUI") as step:
            running = _ready(comfyui, step)
        saved.write(running.defs)
        yield cli.NodeSource(running.defs, running.validate)
    finally:
        comfyui.close()


def _launch_options(settings: Settings) -> LaunchOptions:
    return LaunchOptions(
        settings.comfyui_dir,
        settings.model_roots,
        tuple(paths.custom_node_folders(settings.volume)),
        settings.comfy_args,
        cached_models=cached_models(settings),
        hub_caches=settings.hub_caches,
    )


def _ready(comfyui: ComfyUISupervisor, step: Step) -> ComfyUIInstance:
    """Wait for ComfyUI, and show that time passes."""
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(comfyui.ready, Deadline())
        try:
            while not wait([starting], timeout=DRAW_EVERY_S).done:
                step.tick()
        except BaseException:
            comfyui.close()  # so that the thread ends
            raise
    return starting.result()


def _read_object_info(file: Path) -> NodeDefs:
    try:
        return NodeDefs(dict(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"--object-info must be a file with a response of /object_info ({error})"
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
