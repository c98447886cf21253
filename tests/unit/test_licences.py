"""The list of licences fits the lock files, and the packages that are installed here."""

from __future__ import annotations

from email.message import Message

import pytest

from docs.tools import make_licences


def test_the_list_is_current_for_the_locks() -> None:
    command = "run `.venv/bin/python -m docs.tools.make_licences`"
    assert make_licences.stale_rows() == [], command


def test_every_package_has_a_licence() -> None:
    rows = make_licences.read_page()
    assert [name for name, (licence, _) in rows.items() if licence == "not stated"] == []
    assert {images for _, images in rows.values()} == {"CUDA 13", "CUDA 12", "CUDA 13 and CUDA 12"}
    assert rows["torch"][0] == "BSD-3-Clause"


def test_a_changed_lock_makes_the_list_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {**make_licences.locked_names(), "packaging": ["CUDA 12"], "no-such-package": []}
    del names["torch"]
    monkeypatch.setattr(make_licences, "locked_names", lambda: names)
    assert make_licences.stale_rows() == ["no-such-package", "packaging", "torch"]


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("License", "Apache-2.0")], "Apache-2.0"),
        ([("License", "a" * 99), ("Classifier", "License :: OSI Approved :: ISC")], "ISC"),
        ([("License", "UNKNOWN")], None),
        ([("Classifier", "Programming Language :: Python")], None),
    ],
)
def test_a_licence_is_read_from_metadata(
    headers: list[tuple[str, str]], licence: str | None
) -> None:
    message = Message()
    for name, value in headers:
        message[name] = value
    assert next(make_licences._stated(message), None) == licence
