"""The simulation of docs/scaling.md: single jobs whose times can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import fleet
from benchmarks.fleet import AFTER, PREFETCH, REQUEST_COUNT, TWO, Endpoint, simulate

# A job in 100 hours: each finds no worker, or only the active one.
RARE = 1 / 6000
PLAIN = Endpoint(gpu_spread=0.0, cold_start_s=20, prepare_s=1, gpu_s=5, deliver_s=3)


def test_a_lone_job_waits_for_a_start() -> None:
    delayed = simulate(PLAIN, RARE, 5)
    assert delayed.p50_s == pytest.approx(4 + 20 + 1)
    assert delayed.starts == 100
    counted = simulate(replace(PLAIN, scaler=REQUEST_COUNT, scaler_value=1), RARE, 5)
    assert counted.p50_s == pytest.approx(20 + 1)


def test_an_active_worker_answers_at_once() -> None:
    figures = simulate(replace(PLAIN, active_workers=1), RARE, 5)
    assert figures.p50_s == pytest.approx(1)
    assert figures.most_workers == 1


def test_a_worker_is_paid_until_it_stops() -> None:
    figures = simulate(replace(PLAIN, price_s=1.0), RARE, 5)
    # Start, preparation, GPU, delivery and idle timeout, in full seconds.
    assert figures.dollars == pytest.approx((20 + 1 + 5 + 3 + 5) * 1000)
    assert figures.busy == pytest.approx(5 / 34)


@pytest.mark.parametrize(("take", "second_s"), [(AFTER, 1 + 5 + 3 + 1), (PREFETCH, 6), (TWO, 6)])
def test_when_the_second_job_reaches_the_gpu(take: str, second_s: float) -> None:
    one_worker = replace(PLAIN, take=take, active_workers=1, max_workers=1, cold_start_s=0)
    figures = simulate(one_worker, 60_000, 2)  # both arrive within milliseconds
    assert figures.p99_s == pytest.approx(second_s, abs=0.1)


def test_no_more_workers_than_the_maximum() -> None:
    assert simulate(replace(PLAIN, max_workers=3), 600, 50).most_workers == 3


def test_the_same_seed_gives_the_same_figures() -> None:
    assert simulate(Endpoint(), 30, 100) == simulate(Endpoint(), 30, 100)
    assert simulate(Endpoint(), 30, 100) != simulate(Endpoint(), 30, 100, seed=2)


def test_tables_and_chart_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, chart, figures = tmp_path / "page.md", tmp_path / "chart.svg", tmp_path / "figures.json"
    page.write_text("a\n<!-- fleet: rules -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
    monkeypatch.setattr(fleet, "PAGE", page)
    monkeypatch.setattr(fleet, "CHART", chart)
    monkeypatch.setattr(fleet, "LOADS", dict.fromkeys(fleet.LOADS, 10.0))
    assert fleet.main(["--jobs", "20", "--write", "--json", str(figures)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("a\n<!-- fleet: rules -->\n| jobs | next job |")
    assert text.endswith("|\n<!-- end -->\nb\n")
    assert "old" not in text
    assert chart.read_text(encoding="utf-8").count("<polyline") == 10
    assert '"most_workers"' in figures.read_text(encoding="utf-8")
