"""The page's routes and the page as one file; what it does in a browser is tested in e2e."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from comfy_local.endpoint import LocalEndpoint
from comfy_local.page import single_file
from comfy_local.page.__main__ import main
from comfy_local.page.single_file import STATIC, module_order
from tests.page_endpoint import CATALOG, KEY, let_it_start, page_endpoint

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
DECLARED = re.compile(
    r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+|\[[^\]]*\])", re.M
)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[LocalEndpoint]:
    with page_endpoint(tmp_path) as started:
        yield started


def test_the_files_are_served_with_a_policy(endpoint: LocalEndpoint) -> None:
    content_types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    for path in STATIC.iterdir():
        name = "" if path.name == "index.html" else f"page/{path.name}"
        answer = requests.get(f"{endpoint.page_url}{name}", timeout=10)
        assert answer.content == path.read_bytes()
        assert answer.headers["Content-Type"] == f"{content_types[path.suffix]}; charset=utf-8"
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["page/absent.js", "page/..%2f__init__.py", "page/routes.py"])
def test_other_files_are_not_served(endpoint: LocalEndpoint, name: str) -> None:
    answer = requests.get(f"{endpoint.page_url}{name}", timeout=10)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_the_templates_come_when_comfyui_is_up(endpoint: LocalEndpoint, tmp_path: Path) -> None:
    early = requests.get(f"{endpoint.url}/templates", headers=AUTHORIZED, timeout=10)
    assert (early.status_code, early.headers["Retry-After"]) == (503, "2")
    let_it_start(tmp_path)
    while (answer := requests.get(f"{endpoint.url}/templates", headers=AUTHORIZED, timeout=10)).status_code == 503:  # fmt: skip
        pass
    (row,) = answer.json()["templates"]
    assert "schema" not in row
    assert answer.json()["files"] == CATALOG["files"]
    template = requests.get(f"{endpoint.url}/templates/txt2img", headers=AUTHORIZED, timeout=10)
    assert template.json() == CATALOG["templates"][0]
    none = requests.get(f"{endpoint.url}/templates/absent", headers=AUTHORIZED, timeout=10)
    assert (none.status_code, none.json()) == (404, {"error": "there is no template 'absent'"})
    page = requests.get(f"{endpoint.url}/page.html", headers=AUTHORIZED, timeout=10)
    assert page.text == single_file(CATALOG)


@pytest.mark.parametrize("route", ["templates", "templates/txt2img", "page.html"])
def test_the_list_wants_the_key(endpoint: LocalEndpoint, route: str) -> None:
    assert requests.get(f"{endpoint.url}/{route}", timeout=10).status_code == 401


def test_one_file_has_everything_inside() -> None:
    page = single_file(CATALOG)
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert 'src="page/' not in page
    assert 'href="page/' not in page
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    (data,) = re.findall(r'id="catalog">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == CATALOG


def test_no_two_modules_declare_a_name() -> None:
    names = [
        name
        for module in module_order()
        for name in DECLARED.findall((STATIC / module).read_text(encoding="utf-8"))
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert sorted(module_order()) == sorted(path.name for path in STATIC.glob("*.js"))


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        found = re.findall(
            r"(?:src|href|url|import|from)[=( ]*['\"]?https?://[^'\")]+", path.read_text()
        )
        assert found == [], path.name


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps(CATALOG))
    assert main([str(tmp_path / "catalog.json"), str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == single_file(CATALOG)


@pytest.mark.parametrize("text", ["", "no JSON", "3"])
def test_a_catalog_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "catalog.json").write_text(text)
    assert main([str(tmp_path / "catalog.json"), str(tmp_path / "page.html")]) == 1
    assert "The page could not be written" in capsys.readouterr().err
