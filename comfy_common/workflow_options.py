"""The options of the commands on templates and workflow files.

Two programs parse them: comfy_setup before the virtual environment exists, and comfy_worker in it.
Standard library only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from comfy_common import paths

__all__ = ["FILE_COMMANDS", "WORKFLOW_COMMANDS", "add_workflow_options"]

# By command, what it does.
WORKFLOW_COMMANDS = {
    "edit": "open ComfyUI's own page; what is saved there becomes a template",
    "templates": "list the templates, and what each one is missing here",
    "schema": "print the JSON Schema of a request's input",
    "catalog": "print all templates with their schemas, for the page as one file",
    "check": "list what prevents a workflow from running here",
    "inspect": "show a workflow's parameters and the roles of its nodes",
    "convert": "convert a workflow from ComfyUI's editor to API format",
}
EDIT_PORT = 8188
# Those that read workflow files.
FILE_COMMANDS = ("check", "inspect", "convert")


def add_workflow_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a command.

    Args:
        parser: of the command.
        command: one of `WORKFLOW_COMMANDS`.
    """
    if command == "edit":
        _add_edit(parser)
        return
    if command == "templates":
        parser.add_argument("--json", action="store_true", help="print JSON")
        return
    if command == "schema":
        parser.add_argument(
            "name",
            metavar="NAME",
            nargs="?",
            help="a template (default: the schema of a request for any workflow)",
        )
    elif command in FILE_COMMANDS:
        parser.add_argument(
            "file",
            metavar="FILE",
            help="a workflow in any format, a picture that ComfyUI saved, a folder, or - for stdin",
        )
        parser.add_argument(
            "--json", action="store_true", help="print JSON with one entry per file"
        )
    if command == "check":
        parser.add_argument(
            "--lock",
            action="store_true",
            help="write the node packs and models that it needs into custom_nodes.txt and "
            "models.txt",
        )
    if command == "convert":
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="where to write (default: stdout)"
        )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--object-info",
        type=Path,
        metavar="FILE",
        help="a saved /object_info response (default: the last one of this ComfyUI, if its models "
        "and node packs have not changed since)",
    )
    source.add_argument("--fresh", action="store_true", help="start ComfyUI and ask it")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a template to open")
    parser.add_argument(
        "--port",
        type=int,
        default=EDIT_PORT,
        help="the port of this machine's loopback address (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=paths.REPO / "workflows",
        metavar="FOLDER",
        help="where saved workflows go (default: workflows/)",
    )
