"""report.html: what stands in it, that nothing of the data runs, and how it looks to a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_browser import browser
from report_world import HOSTILE, World, report_input
from test_report_chain import summarized, two_data_sets

from btrm.report.html import render_report, write_report
from btrm.report.report_input import ReportInput
from btrm.report.tables import read_summary

SMALL = World(
    steps=(50, 100, 150),
    datasets=("test", """va'"></svg><script>window.hit=9</script>"""),
    seeds=(0, 1),
    n_pairs=120,
    n_samples=3,
    others=("""m'"><svg onload="window.hit=8">""",),
)
SECTIONS = ["summary", "curves", "comparisons", "checkpoints", "parts", "outcomes", "worst", "made"]


class Reader(HTMLParser):
    """Collects elements, their attributes and the text of each id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return render_report("a run", report_input(SMALL))


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_every_section_is_there_and_the_contents_lead_to_it(read: Reader) -> None:
    ids = [attributes["id"] for tag, attributes in read.elements if tag == "section"]
    assert ids == ["headline", *SECTIONS]
    links = [attributes["href"] for attributes in read.having("a")]
    assert links == [f"#{name}" for name in ids[1:]]


def test_every_picture_says_in_words_what_it_shows(read: Reader) -> None:
    pictures = [attributes for attributes in read.having("svg") if attributes.get("aria-hidden") != "true"]
    assert len(pictures) == 2 * 5 + 12 * 5  # learning curves, and panels of each checkpoint on each data set
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in pictures)


def test_ids_are_unique(read: Reader) -> None:
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_anywhere(page: str, read: Reader) -> None:
    for _, attributes in read.elements:
        for name in ("src", "href", "srcset", "action", "data", "xlink:href", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), attributes
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert set(re.findall(r"url\(([^)]*)\)", style)) == {"#hatch", "#dots"}
    assert "@import" not in style
    policy = next(a["content"] or "" for a in read.having("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_only_our_script_and_elements_are_there(read: Reader) -> None:
    assert len(read.having("script")) == len(read.having("style")) == 1
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"img", "iframe", "object", "embed", "base", "form", "textarea", "plaintext"}
    assert not [a for _, a in read.elements if any(name.startswith("on") or name == "style" for name in a)]


def test_texts_of_the_data_are_there_as_text(read: Reader) -> None:
    for text in HOSTILE:
        printable = re.split("[^ -~]", text)
        assert all(part in read.text for part in printable), text
    assert "⟨U+202E⟩" in read.text  # what turns the direction of writing is seen instead


def test_a_selection_on_the_test_set_is_marked(page: str) -> None:
    said = "Selected on its own test set."
    assert said not in page
    assert said in render_report("a run", report_input(World(steps=(50, 100), n_pairs=50, own_test_set=True)))


def test_it_is_told_how_the_numbers_were_made(read: Reader) -> None:
    for said in ("120 labelled pairs", "2 seeds (0, 1)", "3 samples a side", "intention to treat", "ln 2 = 0.693"):
        assert said in read.text


def test_the_same_tables_make_the_same_page() -> None:
    assert render_report("r", report_input(SMALL)) == render_report("r", report_input(SMALL))


def test_a_bare_table_makes_a_page() -> None:
    full = report_input(World(steps=(), datasets=("test",), seeds=(0,), n_pairs=30, n_samples=1))
    read = Reader(render_report("bare", ReportInput(records=full.records, evals=full.evals)))
    sections = [attributes["id"] for tag, attributes in read.elements if tag == "section"]
    assert sections == ["headline", "summary", "outcomes", "made"]


def test_many_checkpoints_stay_readable_and_small(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    world = World(steps=range(10, 1310, 10), datasets=("test",), seeds=(0,), n_pairs=40, n_samples=1)
    write_report(path, "many", report_input(world, hostile=False))
    assert path.stat().st_size < 5e6
    read = Reader(path.read_text(encoding="utf-8"))
    assert "120 of 132, evenly spread" in read.text
    panels = [a for a in read.having("details") if a.get("class") == "cell"]
    assert len(panels) == 120


DRAWN = """
(() => {
  const shown = [...document.querySelectorAll('svg:not(.defs)')].filter((svg) => svg.checkVisibility());
  const wrong = shown.filter((svg) => {
    const box = svg.getBoundingClientRect();
    const paths = [...svg.querySelectorAll('path')];
    return box.width < 10 || box.height < 10 || paths.length === 0
      || paths.some((path) => !path.getAttribute('d') || /NaN|undefined|inf/.test(path.getAttribute('d')))
      || !paths.some((path) => path.getTotalLength() > 0);
  });
  return { shown: shown.length, wrong: wrong.map((svg) => svg.outerHTML) };
})()
"""
SORTED = """
(() => {
  const table = document.getElementById('summary-table');
  const place = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === 'accuracy');
  const number = (cell) => Number(cell.dataset.key ?? cell.textContent);
  const told = () => [...table.tBodies[0].rows].map((row) => number(row.cells[place]));
  const button = table.tHead.rows[0].cells[place].querySelector('button');
  button.click(); const down = told();
  button.click(); const up = told();
  return { down, up, sort: table.tHead.rows[0].cells[place].getAttribute('aria-sort') };
})()
"""
CHOSEN = """
(() => {
  const choice = document.getElementById('choice');
  choice.value = 'cell2';
  choice.dispatchEvent(new Event('change'));
  return [...document.querySelectorAll('details.cell')].filter((cell) => cell.checkVisibility()).map((cell) => cell.id);
})()
"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.slow
def test_a_browser_draws_it_without_a_complaint(page: str, tmp_path: Path) -> None:
    """The real Chromium: silent console, nothing loaded, charts with size, sorting, choosing, hostile texts inert."""
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    with browser(tmp_path) as tab:
        tab.open(path.as_uri())
        drawn = tab.value(DRAWN)
        assert drawn["shown"] > 40 and drawn["wrong"] == []
        sorted_ = tab.value(SORTED)
        assert sorted_["down"] == sorted(sorted_["down"], reverse=True) and sorted_["sort"] == "ascending"
        assert sorted_["up"] == sorted(sorted_["up"])
        assert tab.value(CHOSEN) == ["cell2"]
        tab.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.value(DRAWN)["wrong"] == []
        assert tab.value("window.hit ?? 'inert'") == "inert"
        assert tab.value("document.title") == "a run: evaluation"
        assert tab.value(WIDE) == 0
        tab.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
        assert tab.value(WIDE) == 0  # a narrow window scrolls tables, not the page
        assert tab.complaints() == []
        assert [url for url in tab.requests() if not url.startswith("data:")] == [path.as_uri()]


@pytest.mark.slow
def test_it_reads_without_javascript(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    with browser(tmp_path, "--blink-settings=scriptEnabled=false") as tab:
        tab.open(path.as_uri())
        root = tab.ask("DOM.getDocument")["root"]["nodeId"]
        shown = tab.ask("DOM.querySelectorAll", nodeId=root, selector="details.cell > summary")["nodeIds"]
        assert len(shown) == 12
        for node in shown:
            assert tab.ask("DOM.getBoxModel", nodeId=node)["model"]["height"] > 0
        assert tab.ask("DOM.querySelectorAll", nodeId=root, selector="th button")["nodeIds"] == []
        assert tab.complaints() == []


@pytest.mark.slow
def test_the_policy_stops_what_would_have_got_in(page: str, tmp_path: Path) -> None:
    """Were a text ever not escaped, the browser would still refuse it, and say so."""
    path = tmp_path / "report.html"
    inside = "<img src=x onerror='window.hit=1'><script>window.hit=2</script>"
    path.write_text(page.replace("<main>", f"<main>{inside}"), encoding="utf-8", errors="replace")
    with browser(tmp_path) as tab:
        tab.open(path.as_uri())
        assert tab.value("window.hit ?? 'inert'") == "inert"
        assert len(tab.complaints()) >= 2
        assert tab.value("document.querySelectorAll('th button').length") > 0  # and our own script did run


@pytest.mark.slow
def test_a_real_run_is_told_whole(tmp_path: Path) -> None:
    """Judgements through the real stages: what they write is what the page shows, and the browser draws it."""
    root = tmp_path / "study"
    summarized(root, two_data_sets(root, lacking=("checkpoint-50", "test", 1)))
    text = (root / "report.html").read_text(encoding="utf-8")
    read = Reader(text)
    sections = [attributes["id"] for tag, attributes in read.elements if tag == "section"]
    assert sections == ["headline", *(name for name in SECTIONS if name != "parts")]  # no subsets in these data
    row = next(r for r in read_summary(root / "summary.csv") if r["selected"] == "on validation")
    low, high = float(row["accuracy_low"]), float(row["accuracy_high"])
    assert f"[{low:.3f}, {high:.3f}] 95 %" in read.text and "best, selected on validation" in read.text
    assert "checkpoint-50 on test: seed 1" in read.text and "400 resamples" in read.text
    with browser(tmp_path) as tab:
        tab.open((root / "report.html").as_uri())
        tab.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.value(DRAWN)["wrong"] == []
        assert tab.complaints() == []
