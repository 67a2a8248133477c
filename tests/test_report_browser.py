"""chex-report's page in a real browser: Debian's chromium, headless."""

from __future__ import annotations

import csv
import json
import select
import socket
import time
from pathlib import Path

import browser as driver
import pytest
from browser import contrast, luminance
from conftest import need_tool, run
from PIL import Image
from report_data import METHODS, eval_rows, write, write_pictures, write_runs, write_study

from chextools.reporting.parts import MAIN
from chextools.tasks import CHEXPERT, STUDY

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    tools = need_tool("chromedriver"), need_tool("chromium")
    with driver.started(*tools, tmp_path_factory.mktemp("browser") / "profile") as window:
        yield window


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_page) -> Path:
    """Every section: five methods, human benchmark, two floors, the study's tables, a gallery, and hostile names."""
    folder = tmp_path_factory.mktemp("page")
    runs = write_runs(folder, METHODS, STUDY)
    runs += [write_pictures(folder), *write_study(folder)]
    runs += write_runs(folder, {"<img src=x onerror=alert(1)>": 0.3}, [*STUDY[:9], EVIL])
    return make_page(folder / "page.html", *runs, "--title", EVIL)


@pytest.fixture(scope="module")
def make_page():
    def make(path: Path, *arguments: object) -> Path:
        result = run("chex-report", *arguments, "-o", path)
        assert result.returncode == 0, result.stderr
        return path

    return make


def shown(browser, page: Path, width: int = 1440, dark: bool = False) -> None:
    browser.view(width, 900, dark)
    browser.open(page)
    browser.js("for (const d of document.querySelectorAll('details')) d.open = true")


def test_it_loads_without_messages_and_asks_for_nothing(browser, page):
    shown(browser, page)
    assert browser.messages() == []
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert asked == [page.resolve().as_uri()]
    assert browser.js("return performance.getEntriesByType('resource').filter(e => !/^data:/.test(e.name)).length") == 0
    ids = browser.js("return [...document.querySelectorAll('section')].map(s => s.id)")
    assert (ids[0], ids[-1], len(ids)) == ("leaderboard", "settings", 12)
    assert browser.js("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_the_policy_stops_what_would_get_in(browser, page):
    """An injected script, style, image or request is refused, were a name ever not escaped."""
    shown(browser, page)
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = """
            const add = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
            add('script', {text: 'window.broken = 1'});
            add('script', {src: arguments[0]});
            add('img', {src: arguments[0]});
            document.body.insertAdjacentHTML('beforeend', '<p id=p style="top: 0" onclick="window.broken = 2">p</p>');
            document.getElementById('p').click();
            fetch(arguments[0]).catch(() => 0);
        """
        browser.js(script, f"http://127.0.0.1:{server.getsockname()[1]}/")
        asked, _, _ = select.select([server], [], [], 0.5)
    assert asked == []
    assert browser.js("return window.broken") is None
    refused = [message for message in browser.messages() if "Content Security Policy" in message]
    assert len(refused) >= 6


def test_hostile_names_stay_text(browser, page):
    shown(browser, page)
    assert browser.js("return document.scripts.length") == 1
    assert browser.js("return document.querySelector('h1').textContent") == EVIL
    assert browser.js("return document.title") == EVIL
    cells = browser.js("return [...document.querySelectorAll('td')].map(c => c.textContent)")
    assert EVIL in cells
    texts = browser.js("return [...document.querySelectorAll('svg text, svg title')].map(t => t.textContent)")
    assert any("alert" in text for text in texts)


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_overflows(browser, page, width):
    """Nothing is wider than the screen but tables, which scroll within their own frame; and no text is cut."""
    shown(browser, page, width)
    assert browser.js("return document.documentElement.scrollWidth") == width
    outside = browser.js("""
        return [...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll table, .skip, caption'))
            .filter(e => { const b = e.getBoundingClientRect();
                           return b.width && (b.right > innerWidth + 0.5 || b.left < -0.5); })
            .map(e => e.outerHTML.slice(0, 120))
    """)
    assert outside == []
    cut = browser.js("""
        return [...document.querySelectorAll('svg text')].filter(t => {
            const b = t.getBoundingClientRect(), s = t.closest('svg').getBoundingClientRect();
            return b.left < s.left - 1 || b.right > s.right + 1 || b.top < s.top - 1 || b.bottom > s.bottom + 1;
        }).map(t => t.textContent)
    """)
    assert cut == []


def column(browser, number: int) -> list[str]:
    script = "return [...document.querySelectorAll('#leaderboard tbody tr')].map(r => r.cells[arguments[0]].{})"
    return browser.js(script.format("dataset.v || r.cells[arguments[0]].textContent"), number)


def means(browser, number: int) -> list[float]:
    """The means of a column of the leaderboard; None where undefined."""
    return [float(v.partition(",")[0]) if v[0] != "," else None for v in column(browser, number)]


def test_it_is_ranked_and_sorts_by_mouse_and_keyboard(browser, page):
    shown(browser, page)
    assert means(browser, 1) == sorted(means(browser, 1), reverse=True)
    browser.click("#leaderboard thead th:nth-child(3) button")
    hits = means(browser, 2)
    assert hits == sorted(hits, reverse=True)
    sorts = "return [...document.querySelectorAll('#leaderboard thead th')].map(t => t.ariaSort)"
    assert browser.js(sorts) == [None, None, "descending", None, None]
    browser.click("#leaderboard thead th:nth-child(3) button")
    assert means(browser, 2) == sorted(hits)
    browser.js("document.querySelector('#leaderboard thead th button').focus()")
    browser.press(driver.ENTER)
    names = column(browser, 0)
    assert names == sorted(names, key=str.lower)
    assert browser.js(sorts) == ["ascending", None, None, None, None]
    browser.press(driver.TAB, driver.TAB, driver.TAB, driver.SPACE)  # to AUROC, which some runs lack: they come last
    aurocs = means(browser, 3)
    known = [value for value in aurocs if value is not None]
    assert aurocs == sorted(known, reverse=True) + [None] * (len(aurocs) - len(known)) and None in aurocs


def test_a_name_opens_its_details(browser, page):
    browser.view(1440)
    browser.open(page)
    assert browser.js("return document.querySelectorAll('#runs details[open]').length") == 0
    browser.js("document.querySelector('#leaderboard tbody a').focus()")
    browser.press(driver.ENTER)
    time.sleep(0.2)
    name = browser.js("return document.querySelector('#leaderboard tbody a').textContent")
    assert name == "human"
    assert browser.js("return document.querySelector('#runs details[open] summary').textContent").split()[0] == name
    assert browser.js("return document.activeElement.textContent").split()[0] == name


@pytest.fixture(scope="module")
def pictured(tmp_path_factory, make_page) -> Path:
    """Two runs, of one of which there are pictures of two tasks."""
    folder = tmp_path_factory.mktemp("pictured")
    one, two = (folder / name for name in ("one", "two"))
    for made in (one, two):
        made.mkdir()
        write(made / "rows.jsonl", eval_rows(0.4, STUDY[:3]))
    write_pictures(one, 8)
    return make_page(folder / "page.html", one, two)


def test_a_number_and_a_mark_lead_to_the_pictures_of_that_run_and_task(browser, pictured):
    browser.view(1440)
    browser.open(pictured)
    link = "#tasks td a[href='#pictures-1-1']"
    assert browser.js(f'return document.querySelectorAll("{link}").length') == len(MAIN)
    assert browser.js("return document.querySelectorAll(\"#tasks svg a[href='#pictures-1-1']\").length") == len(MAIN)
    browser.js("document.querySelectorAll('.pictures').forEach(d => d.open = false)")
    browser.click(link)
    time.sleep(0.2)
    assert browser.js("return [...document.querySelectorAll('.pictures[open]')].map(d => d.id)") == ["pictures-1-1"]
    assert browser.js("return document.activeElement.textContent").startswith(STUDY[0])
    assert browser.js("return document.querySelector('.pictures[open] h3').textContent") == "Best"


def test_one_metric_and_one_task_can_be_looked_at(browser, pictured):
    browser.view(1440)
    browser.open(pictured)
    seen = "return [...document.querySelectorAll('%s')].filter(e => e.checkVisibility()).length"
    assert browser.js(seen % "#iou_by_run_and_task, #tasks figure") == len(MAIN)
    heads = seen % "#tasks .table[data-metric=mIoU] thead th"
    assert browser.js(heads) == 5  # run, three tasks, average
    choose = "const s = document.forms.filter.elements[arguments[0]]; s.value = arguments[1];"
    choose += "s.dispatchEvent(new Event('change', {bubbles: true}))"
    browser.js(choose, "task", STUDY[1])
    assert browser.js(heads) == 3
    assert browser.js(seen % "#tasks .table[data-metric=mIoU] tbody tr:first-child > *") == 3
    browser.js(choose, "metric", "Hit rate")
    assert browser.js(seen % "#tasks figure") == 1 and browser.js(heads) == 0
    browser.js(choose, "metric", "")
    browser.js(choose, "task", "")
    assert browser.js(heads) == 5


def test_each_section_has_a_permanent_link(browser, page):
    browser.open(page)
    links = browser.js("return [...document.querySelectorAll('h2 .here')].map(a => a.getAttribute('href'))")
    assert links == browser.js("return [...document.querySelectorAll('section')].map(s => '#' + s.id)")


def test_every_table_is_a_csv(browser, page):
    shown(browser, page)
    assert browser.js("return document.querySelectorAll('table').length") == browser.js(
        "return document.querySelectorAll('.table > .bar > .csv').length"
    )
    browser.click("#leaderboard .csv")
    target = browser.downloads / "leaderboard.csv"
    for _ in range(100):
        if target.exists():
            break
        time.sleep(0.05)
    with target.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    by_run = {row["run"]: row for row in rows}
    wanted = [json.loads(line) for line in (page.parent / "gradcam.jsonl").read_text().splitlines()]
    (mean,) = [row["mean"] for row in wanted if (row["metric"], row["task"]) == ("iou", "Average")]
    assert float(by_run["gradcam"]["iou"]) == pytest.approx(mean, rel=1e-5)
    assert by_run["gradcam"]["iou_rank"] == "1" and by_run["human"]["iou_rank"] == ""
    assert [row["run"] for row in rows] == column(browser, 0)


def test_a_screen_reader_is_told_what_a_cell_is_of(browser, page):
    shown(browser, page)
    heads = """return [...document.querySelectorAll('tbody tr')].filter(row =>
        !row.querySelector('th[scope=row], td[role=rowheader]') && row.cells[0].dataset.v === undefined).length"""
    assert browser.js(heads) == 0
    assert browser.js("return document.querySelectorAll('thead th:not([scope=col])').length") == 0
    names = browser.js("return [...document.querySelectorAll('.csv')].map(button => button.ariaLabel)")
    captions = browser.js("return [...document.querySelectorAll('caption')].map(caption => caption.textContent)")
    assert names == [f"Download CSV: {caption}" for caption in captions]
    browser.open(page)
    browser.press(driver.TAB)
    assert browser.js("return document.activeElement.textContent") == "Skip to the results"


def test_a_csv_holds_no_formulas(browser, make_page, tmp_path):
    runs = write_runs(tmp_path, {"=HYPERLINK(1)": 0.3, "+b": 0.4}, STUDY[:2])
    shown(browser, make_page(tmp_path / "page.html", *runs))
    text = browser.js("return csv(document.querySelector('#leaderboard table'))")
    assert '"\'=HYPERLINK(1)"' in text and '"\'+b"' in text


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(browser, page, dark):
    """WCAG 2.1, 1.4.3: at least 4.5:1 between a text and what it lies on; 3:1 for the marks of figures (1.4.11)."""
    shown(browser, page, dark=dark)
    paper, text, marks = browser.js("""
        const visible = e => e.getClientRects().length;
        const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        const all = [...document.body.querySelectorAll('*')].filter(visible);
        const color = e => e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color;
        return [getComputedStyle(document.body).backgroundColor, [...new Set(all.filter(own).map(color))],
                [...new Set([...document.querySelectorAll('svg circle, svg [class^=k-s], svg .f-s0')].map(e => {
                    const s = getComputedStyle(e); return s.stroke === 'none' ? s.fill : s.stroke; }))]]
    """)
    backgrounds = browser.js("""return [...new Set([...document.body.querySelectorAll('*')]
        .filter(e => !(e instanceof HTMLImageElement)).map(e => getComputedStyle(e).backgroundColor))]""")
    assert set(backgrounds) <= {"rgba(0, 0, 0, 0)", paper}
    assert len(text) >= 3
    assert {color: contrast(color, paper) for color in text if contrast(color, paper) < 4.5} == {}
    low = {color: contrast(color, paper) for color in marks if color != paper and contrast(color, paper) < 3}
    assert low == {}
    dark_paper = luminance(paper) < 0.1
    assert dark_paper == dark


def test_every_figure_says_what_it_shows(browser, page):
    shown(browser, page)
    figures = browser.js("""return [...document.querySelectorAll('svg')].map(s => [s.getAttribute('role'),
        document.getElementById(s.getAttribute('aria-labelledby')).textContent,
        document.getElementById(s.getAttribute('aria-describedby')).textContent])""")
    assert len(figures) > 15
    assert all(role == "img" and len(title) > 8 and len(description) > 15 for role, title, description in figures)
    assert all(len(alt) > 20 for alt in browser.js("return [...document.images].map(i => i.alt)"))
    ids = browser.js("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    unnamed = "return [...document.querySelectorAll('button, a, summary')].filter(e => !e.textContent.trim()).length"
    assert browser.js(unnamed) == 0
    assert browser.js("return [...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")[:2] == [1, 2]


def test_a_hundred_runs_of_fourteen_tasks(browser, make_page, tmp_path):
    methods = {f"run-{k:03d}": 0.2 + 0.003 * k for k in range(100)} | {"human": 0.55, "centre": 0.15}
    path = make_page(
        tmp_path / "page.html", *write_runs(tmp_path, methods, CHEXPERT, more=("precision", "recall")), "-q"
    )
    assert path.stat().st_size < 5_000_000
    browser.view(1440)
    assert browser.load_seconds(path) < 2
    browser.click("#leaderboard thead th button")
    assert column(browser, 0)[0] == "centre"
    browser.view(360)
    assert browser.js("return document.documentElement.scrollWidth") == 360


def test_it_prints(browser, page, tmp_path):
    browser.view(1000)
    browser.open(page)
    document = browser.pdf()
    assert document.startswith(b"%PDF") and document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") > 3


def test_the_plots_are_drawn_alike(browser, tmp_path, make_page):
    """A figure's PNG, drawn by Pillow, shows what the browser makes of its SVG."""
    runs = write_runs(tmp_path, METHODS, STUDY[:5])
    make_page(tmp_path / "page.html", *runs, "--plots", tmp_path / "plots")
    svg = tmp_path / "plots" / "iou_by_task.svg"
    ours = Image.open(svg.with_suffix(".png")).convert("L")
    width, height = ours.width // 4, ours.height // 4
    browser.view(width, height)
    browser.open(svg)
    (tmp_path / "shot.png").write_bytes(browser.screenshot())
    theirs = Image.open(tmp_path / "shot.png").convert("L").resize((width // 2, height // 2), Image.Resampling.BOX)
    ours = ours.resize(theirs.size, Image.Resampling.BOX)
    difference = [abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes())]
    right = [abs(a - b) for k, (a, b) in enumerate(zip(ours.tobytes(), theirs.tobytes())) if k % ours.width > 70]
    assert sum(difference) / len(difference) < 8  # letters are of different fonts
    assert sum(right) / len(right) < 4 and sum(d > 100 for d in right) / len(right) < 0.01
