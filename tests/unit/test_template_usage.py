"""The share of use that the docs state is computed from ComfyUI's index, and from every template."""

from __future__ import annotations

import pytest

from docs.tools.template_usage import OFFICIAL, covered_percent, family_uses, official_templates
from tests import shipped


def test_each_template_has_its_official_one() -> None:
    assert sorted(OFFICIAL) == shipped.NAMES
    assert {name for name in OFFICIAL.values() if name} <= official_templates().keys()


def test_shares_of_all_families_are_whole() -> None:
    assert sum(found.percent for found in family_uses()) == pytest.approx(100)
    assert sum(usage for _, usage in official_templates().values()) == 163921


def test_three_quarters_of_use_are_covered() -> None:
    assert covered_percent() >= 75


def test_a_family_without_a_template_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = covered_percent()
    monkeypatch.setitem(OFFICIAL, "krea2", None)
    krea = next(found for found in family_uses() if found.family == "Krea 2")
    assert krea.templates == ()
    assert covered_percent() == pytest.approx(before - krea.percent)
