"""pip's settings handed on to uv, and uv's output read as progress."""

from __future__ import annotations

import io

import pytest

from comfy_common.console import Step
from comfy_setup.uv import Progress, settings_from_pip


def test_a_mirror_is_handed_on() -> None:
    config = (
        "global.cert='/etc/ssl/mine.pem'\n"
        "global.index-url='https://mirror.example/simple'\n"
        "global.trusted-host='mirror.example other.example'\n"
        "global.proxy='http://proxy.example:3128'\n"
        "global.timeout='60'\n"
    )
    assert settings_from_pip(config, {}) == {
        "SSL_CERT_FILE": "/etc/ssl/mine.pem",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INSECURE_HOST": "mirror.example other.example",
        "ALL_PROXY": "http://proxy.example:3128",
        "UV_HTTP_TIMEOUT": "60",
    }


def test_further_indexes_are_searched_as_pip_does() -> None:
    config = "global.extra-index-url='\\nfile:///a\\nfile:///b'\nglobal.find-links='/w /v'"
    assert settings_from_pip(config, {}) == {
        "UV_INDEX": "file:///a file:///b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/w,/v",
    }


def test_pip_settings_have_the_right_priority() -> None:
    config = ":env:.index-url='https://env/'\nglobal.index-url='https://global/'\ninstall.index-url='https://install/'\n"
    assert settings_from_pip(config, {})["UV_DEFAULT_INDEX"] == "https://env/"
    install_first = config.partition("\n")[2]
    assert settings_from_pip(install_first, {})["UV_DEFAULT_INDEX"] == "https://install/"


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_is_set_for_uv_stays(variable: str) -> None:
    assert settings_from_pip("global.index-url='https://pip/'", {variable: "https://uv/"}) == {}


def test_settings_unknown_to_uv_are_left_out() -> None:
    assert (
        settings_from_pip(
            ":env:.disable-pip-version-check='1'\nglobal.cert=''\ndownload.timeout='3'\n", {}
        )
        == {}
    )


def test_downloads_are_counted_in_bytes() -> None:
    step = Step("Installing", io.StringIO())
    progress = Progress(step)
    for line in (
        "Resolved 2 packages in 1s",
        "Downloading torch (800.0MiB)",
        "Downloading scipy (200.0MiB)",
    ):
        progress.read(line)
    assert (step.note, step.fraction) == ("0 of 2 downloads, 0 kB of 1.0 GB", 0)
    progress.read(" Downloaded torch")
    assert (step.note, step.fraction) == ("1 of 2 downloads, 839 MB of 1.0 GB", 0.8)
    progress.read("Prepared 2 packages in 3s")
    assert (step.note, step.fraction) == ("installing them", None)
    progress.read("Installed 2 packages in 10ms")
    assert step.note == "2 packages are installed, compiling them to bytecode"


def test_lines_of_another_kind_change_nothing() -> None:
    step = Step("Installing", io.StringIO())
    for line in (
        "Using Python 3.11.7 environment at: .venv",
        " + torch==2.10.0",
        "warning: x",
        " Downloaded torch",
    ):
        Progress(step).read(line)
    assert step.fraction is None
