"""The command line options that describe a job, for `run` and `submit`, and the input they make.

Standard library only: `submit` also works before anything is installed.
"""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_common import paths
from comfy_common.errors import SetupError

__all__ = [
    "FORMATS",
    "INPUT_KEYS",
    "TEXT_KEYS",
    "add_job_options",
    "add_submit_options",
    "apply_setting",
    "file_as_text",
    "input_from_json",
    "job_input",
    "typed_value",
    "with_files",
    "with_format",
]

# The keys of a job's input, as comfy_worker.request.schema declares them; a test compares the two.
# `--set` writes any other name into `parameters`.
PARAMETER_KEYS = (
    *("prompt", "negative_prompt", "seed", "steps", "cfg", "guidance", "sampler", "scheduler"),
    *("denoise", "width", "height", "length", "fps", "batch_size", "checkpoint", "vae"),
)
OTHER_KEYS = (
    *("workflow", "image", "mask", "images", "clip_skip", "loras", "controlnets", "parameters"),
    *("overrides", "output", "response", "validate_only"),
)
INPUT_KEYS = frozenset({*PARAMETER_KEYS, *OTHER_KEYS})
# Their values are texts, even if they look like a number.
TEXT_KEYS = frozenset(
    {
        *("prompt", "negative_prompt", "workflow", "checkpoint", "vae", "sampler", "scheduler"),
        *("image", "mask", "response"),
    }
)
# The keys that take a picture: a file, a URL or base64.
PICTURE_KEYS = ("image", "mask")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
# The format of pictures by the ending of a file.
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
LONGEST_PATH = 4096


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a job.

    Args:
        parser: of the command.
    """
    group = parser.add_argument_group("the job")
    group.add_argument("--prompt", metavar="TEXT", help="the prompt")
    group.add_argument(
        "--template",
        metavar="NAME|FILE",
        help="a template's name; or a workflow file in any format, or a picture that ComfyUI saved",
    )
    group.add_argument("--image", metavar="FILE", help="the start image: a file or a URL")
    group.add_argument(
        "--mask", metavar="FILE", help="the mask, white where the image changes: a file or a URL"
    )
    group.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="NAME[:STRENGTH]",
        help="add a LoRA, such as style:0.8; may be repeated",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="any key of the input, such as steps=8 or output.quality=80; a template's own "
        "parameter; or an input of a node, such as 12.scale_by=2; may be repeated",
    )
    group.add_argument(
        "--input", default="", metavar="JSON", help="the job's input as JSON, or @FILE"
    )


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `submit`.

    Args:
        parser: of the command.
    """
    target = parser.add_argument_group("the endpoint")
    target.add_argument(
        "--endpoint",
        default="",
        metavar="ID",
        help="a RunPod endpoint's id; needs RUNPOD_API_KEY (default: the local endpoint, "
        "http://127.0.0.1:8000/v2/local)",
    )
    target.add_argument("--url", default="", metavar="URL", help="another endpoint's URL")
    add_job_options(parser)
    many = parser.add_argument_group("many jobs")
    many.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="run every job of a JSONL or CSV file; the options above are defaults for all of "
        "them. A second call leaves out what is done",
    )
    many.add_argument(
        "--at-once",
        type=int,
        default=4,
        metavar="N",
        help="how many jobs are sent at once (default: %(default)s)",
    )
    result = parser.add_argument_group("the result")
    result.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help="the first file's path; .jpg, .webp or .png sets the format",
    )
    result.add_argument(
        "--folder",
        type=Path,
        default=paths.OUTPUT,
        metavar="FOLDER",
        help="where files are saved, under names that are free (default: output/)",
    )
    result.add_argument("--json", action="store_true", help="print one JSON object per job")
    result.add_argument("--quiet", action="store_true", help="print only the names of the files")


def job_input(options: argparse.Namespace) -> dict[str, Any]:
    """Build a job's input from the options.

    Args:
        options: with the options of :func:`add_job_options`. They win over `--input`.

    Returns:
        The input. It has a `workflow` only if an option names one.

    Raises:
        SetupError: a value cannot be used; one line for the user.
    """
    found = input_from_json(options.input)
    if options.template:
        found["workflow"] = _workflow(options.template)
    if options.prompt is not None:
        found["prompt"] = options.prompt
    for key in PICTURE_KEYS:
        text = getattr(options, key)
        if text is not None:
            found[key] = file_as_text(text, Path(), f"--{key}")
    if options.lora:
        found["loras"] = [*_list(found.get("loras")), *map(_lora, options.lora)]
    for setting in options.settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise SetupError(f"--set {setting} must have the form KEY=VALUE, such as steps=8")
        apply_setting(found, key, text, Path(), f"--set {key}")
    return found


def input_from_json(text: str) -> dict[str, Any]:
    """Read the input of a job from the command line.

    Args:
        text: JSON, or @ and the name of a file with JSON; empty for no input.

    Returns:
        The input.

    Raises:
        SetupError: the text is not a JSON object, or the file cannot be read.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(f"--input: {text[1:]} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SetupError(f"--input: {text[1:]} is not UTF-8 text: {error}") from error
    try:
        value = json.loads(text or "{}")
        json.dumps(value, allow_nan=False)  # Python reads NaN and 1e400, which JSON does not allow
    except ValueError as error:
        raise SetupError(f"--input is not JSON: {error}") from error
    except RecursionError as error:
        raise SetupError("--input is nested too deeply") from error
    if not isinstance(value, dict):
        raise SetupError(
            '--input must be a JSON object, such as {"prompt": "a lighthouse", "steps": 20}'
        )
    return value


def file_as_text(text: str, folder: Path, source: str) -> str:
    """Return a picture as a request holds it.

    Args:
        text: a file, a URL, a data URI or base64.
        folder: the folder that a relative file name starts from.
        source: where the text stands, for an error.

    Returns:
        A data URI if the text names a file, else the text.

    Raises:
        SetupError: the text looks like a file, but there is none, or it cannot be read.
    """
    if text.startswith(("http://", "https://", "data:", "s3://")) or len(text) > LONGEST_PATH:
        return text
    path = folder / Path(text).expanduser()
    if not path.is_file() and not text.lower().endswith(PICTURE_ENDINGS):
        return text
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{source}: {path} cannot be read: {error.strerror}") from error
    mime_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


def apply_setting(found: dict[str, Any], key: str, text: str, folder: Path, source: str) -> None:
    """Write one value into an input.

    Args:
        found: the input, which is changed.
        key: a key of the input; `output.X`; a template's own parameter; or `NODE.INPUT`.
        text: the value.
        folder: the folder that a relative file name starts from.
        source: where the value stands, for an error.

    Raises:
        SetupError: the value names a file that cannot be read.
    """
    key = key.strip()
    group, dot, name = key.rpartition(".")
    if not dot and key in PICTURE_KEYS:
        found[key] = file_as_text(text, folder, source)
    elif not dot and key in INPUT_KEYS:
        found[key] = typed_value(key, text)
    elif group == "output":
        _entries(found, "output")[name] = typed_value("", text)
    elif group in ("", "parameters"):
        _entries(found, "parameters")[name or key] = typed_value("", text)
    else:
        _entries(found, "overrides")[key] = typed_value("", text)


def with_files(job_input: Mapping[str, Any], folder: Path, source: str) -> dict[str, Any]:
    """Replace the names of picture files in an input by their content.

    Args:
        job_input: may name files under `image`, `mask`, `images` and `controlnets`.
        folder: the folder that a relative file name starts from.
        source: where the input stands, for an error.

    Raises:
        SetupError: a file cannot be read.
    """
    found = dict(job_input)
    for key in PICTURE_KEYS:
        if isinstance(found.get(key), str):
            found[key] = file_as_text(found[key], folder, source)
    for key in ("images", "controlnets"):
        entries = []
        for entry in _list(found.get(key)):
            if isinstance(entry, dict) and isinstance(entry.get("image"), str):
                entry = {**entry, "image": file_as_text(entry["image"], folder, source)}
            entries.append(entry)
        if entries:
            found[key] = entries
    return found


def typed_value(key: str, text: str) -> Any:
    """Read a value from a text: JSON if it is JSON, unless the key takes texts.

    Args:
        key: a key of the input.
        text: such as `8`, `true`, `[1, 2]` or `euler`.
    """
    if key in TEXT_KEYS:
        return text
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def with_format(job_input: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Choose the format of the pictures by the ending of the output file.

    Args:
        job_input: the job's input.
        output: the file for the first picture, None if the user named no file.

    Returns:
        The input, with `output.format` if the file's ending says one.

    Raises:
        SetupError: the input asks for another format than the file's ending.
    """
    options = job_input.get("output") or {}
    if output is None or not isinstance(options, dict):
        return dict(job_input)
    wanted = FORMATS.get(output.suffix.lower())
    if wanted is None:
        return dict(job_input)
    chosen = options.get("format") or wanted
    if chosen != wanted:
        raise SetupError(
            f"--output {output.name} and the input's output.format {chosen} differ: leave one out"
        )
    return {**job_input, "output": {**options, "format": wanted}}


def _workflow(text: str) -> Any:
    """Return a template's name, or the workflow in a file."""
    path = Path(text).expanduser()
    is_file = len(text) <= LONGEST_PATH and path.is_file()
    is_picture = text.lower().endswith(PICTURE_ENDINGS)
    if is_picture:
        return file_as_text(text, Path(), "--template")
    if not is_file and not text.endswith(".json") and "/" not in text:
        return text
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"--template: {text} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SetupError(f"--template: {text} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SetupError(f"--template: {text} is not a workflow: it holds no JSON object")
    return value


def _lora(text: str) -> dict[str, Any]:
    """Read `name` or `name:0.8`. A URL has colons of its own."""
    name, colon, strength = text.rpartition(":")
    if not colon or strength.startswith("//"):
        return {"name": text}
    try:
        return {"name": name, "strength": float(strength)}
    except ValueError:
        raise SetupError(
            f"--lora {text}: the strength must be a number, as in {name or 'style'}:0.8"
        ) from None


def _entries(found: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object under a key of the input, which is created if it is missing."""
    entries = found.get(key)
    found[key] = dict(entries) if isinstance(entries, dict) else {}
    chosen: dict[str, Any] = found[key]
    return chosen


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []
