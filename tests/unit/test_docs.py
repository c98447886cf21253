"""The docs match the code: tables, paths, links and the picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from comfy_common.paths import REPO
from docs.tools import draw_architecture, make_tables

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
# Phrases that readers stumbled over. Write a plain sentence instead: subject, verb, object.
BANNED_PHRASES = re.compile(
    r"\b(houses?|rooms?|desks?|doors?|neighbours?|anew|is told|are told|goes by|go by|of which"
    r"|but for|is no|are no|what is to be|knows nothing)\b",
    re.IGNORECASE,
)
# Words that look like a path and are none of this repository's.
NOT_OURS = re.compile(r"[{}<>*$~ ]|\.\.\.|^/|^https?:|^NAME|^runtime/")


def page_name(page: Path) -> str:
    return page.stem


def test_tables_match_the_code() -> None:
    stale = sorted(path.name for path in make_tables.stale_files())
    assert stale == [], "run `.venv/bin/python -m docs.tools.make_tables`"


def test_every_table_has_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    used = [match["name"] for match in make_tables.MARKED_TABLE.finditer(text)]
    assert sorted(used) == sorted(make_tables.TABLES)


@pytest.mark.parametrize("page", [*PAGES, REPO / "CHANGELOG.md"], ids=page_name)
def test_sentences_are_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # A request's prompt may have such a word too.
    lines = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    # Names of files and tests may have such a word.
    prose = [re.sub(r"`[^`]*`", "", line) for line in lines]
    assert [line for line in prose if BANNED_PHRASES.search(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [name for name in targets if not (page.parent / name).exists()] == []


@pytest.mark.parametrize("page", [*PAGES[:2], REPO / "docs" / "architecture.md"], ids=page_name)
def test_named_paths_exist(page: Path) -> None:
    """Every word in code marks that has a slash or ends in .py is a path of the repository."""
    words = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    paths = [word for word in words if re.fullmatch(r"[\w./-]+/[\w./-]*|[\w./-]+\.py", word)]
    ours = [word for word in paths if not NOT_OURS.search(word)]
    assert [word for word in ours if not (REPO / word).exists()] == []


@pytest.mark.parametrize(
    "page", [REPO / "CONTRIBUTING.md", REPO / "docs" / "architecture.md"], ids=page_name
)
def test_named_symbols_exist(page: Path) -> None:
    """Every identifier in code marks occurs in the code: a renamed function is renamed in the docs too."""
    words = re.findall(r"`([A-Za-z_]+)`", page.read_text(encoding="utf-8"))
    symbols = {word for word in words if re.search(r"[a-z]_[a-z]|[a-z][A-Z]|^[A-Z]", word)}
    folders = [REPO / name for name in ("comfy_common", "comfy_setup", "comfy_worker", "tests")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    missing = [symbol for symbol in sorted(symbols) if not re.search(rf"\b{symbol}\b", code)]
    assert missing == []


def test_packages_import_only_downwards() -> None:
    """The picture has no arrow that points up, so no circle of imports between packages."""
    rows = {name: index for index, row in enumerate(draw_architecture.ROWS) for name in row}
    upward = [pair for pair in draw_architecture.arrows() if rows[pair[0]] >= rows[pair[1]]]
    assert upward == []


def test_ci_runs_every_hook() -> None:
    hooks = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    script = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    commands = [
        hook["entry"].removesuffix(" --force-exclude") for hook in hooks["repos"][0]["hooks"]
    ]
    assert [command for command in commands if f"\n{command}" not in script] == []
