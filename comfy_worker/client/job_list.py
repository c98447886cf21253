"""Reads a list of jobs from a JSONL or CSV file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_common.errors import SetupError
from comfy_common.job_options import apply_setting, with_files

__all__ = ["Row", "read_rows"]

CSV_ENDINGS = (".csv", ".tsv")
DELIMITERS = ",;\t"
POLICY = "policy"


@dataclass(frozen=True)
class Row:
    """One job of a list.

    Attributes:
        number: counted from 1, as the list orders them.
        source: where it stands, such as `list.jsonl:3`.
        values: the job's input as the list writes it; pictures may be file names.
        folder: the folder that relative file names start from.
        policy: RunPod's `executionTimeout` and `ttl`.
        key: names the row in the state file: equal rows have equal keys but for a number.
    """

    number: int
    source: str
    values: Mapping[str, Any]
    folder: Path
    policy: Mapping[str, Any]
    key: str

    def job_input(self) -> dict[str, Any]:
        """The job's input, with the content of its pictures.

        Raises:
            SetupError: a file cannot be read.
        """
        return with_files(self.values, self.folder, self.source)


def read_rows(file: Path, defaults: Mapping[str, Any]) -> list[Row]:
    """Read a list of jobs.

    Args:
        file: JSONL (one input as a JSON object a line, or RunPod's `{"input", "policy"}`), or CSV
            whose columns are named like the keys of `--set`.
        defaults: the values of keys that a row does not have.

    Raises:
        SetupError: the file, or a row of it, cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{file} is not UTF-8 text: {error}") from error
    read = _csv_rows if file.suffix.lower() in CSV_ENDINGS else _json_rows
    rows = []
    seen: Counter[str] = Counter()
    for number, (line, values, policy) in enumerate(read(file, text), 1):
        complete = {**defaults, **values}
        row = Row(number, f"{file}:{line}", complete, file.parent, policy, "")
        digest = _digest([row.job_input(), policy])
        seen[digest] += 1
        rows.append(
            Row(number, row.source, complete, file.parent, policy, f"{digest}-{seen[digest]}")
        )
    if not rows:
        raise SetupError(f"{file} has no job in it")
    return rows


Line = tuple[int, Mapping[str, Any], Mapping[str, Any]]


def _json_rows(file: Path, text: str) -> Iterator[Line]:
    # Not splitlines(): JSON texts may hold other characters that it splits at.
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
            json.dumps(value, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise SetupError(f"{file}:{line} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise SetupError(f'{file}:{line} must be a JSON object, such as {{"prompt": "a dog"}}')
        inner = value.get("input")
        if not isinstance(inner, dict):
            yield line, value, {}
            continue
        policy = value.get(POLICY)
        yield line, inner, policy if isinstance(policy, dict) else {}


def _csv_rows(file: Path, text: str) -> Iterator[Line]:
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if not all(name.strip() for name in names):
            raise SetupError(f"{file}:1 must name every column, such as prompt,steps,seed")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _csv_values(file, reader.line_num, names, cells), {}
    except csv.Error as error:
        raise SetupError(f"{file}:{reader.line_num} is not CSV: {error}") from error


def _csv_values(file: Path, line: int, names: list[str], cells: Iterable[str]) -> Mapping[str, Any]:
    row = list(cells)
    if len(row) > len(names):
        raise SetupError(f"{file}:{line} has {len(row)} cells, but the header has {len(names)}")
    values: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=False):
        if cell != "":
            apply_setting(values, name, cell, file.parent, f"{file}:{line}")
    return values


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
