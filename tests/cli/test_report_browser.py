"""report.html in a browser: it loads nothing, logs nothing, and its table sorts."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def report(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("report") / "run")
    assert evaluate.main([f"checkpoint={run}", "split=train"]) == 0
    return Path(run) / "evaluation/synthetic-train-native/report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The page; whatever it says on the console or asks for fails the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert [line for line in said if not line.startswith("data:")] == [report.as_uri()]


def sort_by(page: Any, title: str) -> None:
    page.locator("#case-table th button").get_by_text(title, exact=True).click()


def column(page: Any, number: int) -> list[str]:
    cells = page.locator(f"#case-table tbody td:nth-child({number + 1})")
    return list(cells.all_inner_texts())


def test_every_picture_is_drawn(page: Any) -> None:
    pictures = page.locator("img")
    widths = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 6 * 4 + 6  # six cases, and six charts
    assert min(widths) > 0


def test_a_click_sorts_the_cases_and_another_one_backwards(page: Any, report: Path) -> None:
    rows = list(csv.DictReader((report.parent / "per_case.csv").open()))
    heads = page.locator("#case-table thead th").all_inner_texts()
    for key, title in {"dice": "Dice", "hd95": "HD95 (px)"}.items():
        sort_by(page, title)
        values = [float(text) for text in column(page, heads.index(title))]
        assert values == pytest.approx(sorted(float(row[key]) for row in rows), abs=0.006)
        sort_by(page, title)
        assert [float(t) for t in column(page, heads.index(title))] == values[::-1]


def test_names_sort_as_people_count(page: Any) -> None:
    sort_by(page, "case")
    page.evaluate("document.querySelector('#case-table tbody td').textContent = 'train_10'")
    sort_by(page, "case")
    assert column(page, 0)[0] == "train_10"


def test_a_case_leads_to_its_pictures(page: Any) -> None:
    link = page.locator("#case-table tbody a").first
    name = link.inner_text()
    link.click()
    target = page.locator("article:target")
    assert name in target.inner_text()
    assert target.bounding_box()["y"] == pytest.approx(0, abs=200)


def test_it_fits_a_narrow_window(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


@pytest.mark.parametrize("width", [1280, 800])
def test_the_page_is_as_wide_as_the_window(page: Any, width: int) -> None:
    """Wide tables scroll within their box."""
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.locator(".wide").evaluate_all("found => found.map(one => one.clientWidth)")
    assert max(boxes) <= width
