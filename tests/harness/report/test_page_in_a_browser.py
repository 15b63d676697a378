"""The report's page in headless Chromium without network: it draws, filters, sorts, shows samples, prints."""

import base64
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from boltzbench.harness import Status
from boltzbench.harness.api.records import Measurement, Record, Run
from boltzbench.harness.report import page as report
from boltzbench.harness.report.history_page import history_html
from boltzbench.harness.results.history import read_history
from boltzbench.harness.results.predictions import Expectation, Predictions, Profiled
from support.timed_runs import timed_run, write

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WANTING = [
    what
    for what, found in (
        ("chromium", CHROMIUM),
        ("chromedriver (Debian: apt-get install chromium-driver)", DRIVER),
        ("selenium", importlib.util.find_spec("selenium")),
    )
    if not found
]
pytestmark = pytest.mark.skipif(bool(WANTING), reason=f"needs {', '.join(WANTING)}")

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def synthetic():
    """A synthetic run, unsorted in every column: three sizes, two implementations, a failure, a warning."""
    records = []
    for n, milliseconds in ((1 << 20, 9), (1 << 10, 10), (1 << 15, 1)):
        for name, factor in (("torch", 4), ("a_rather_long_implementation", 1)):
            label = f"chains={n} visible=4096 hidden=4096 sweeps=10 bfloat16"
            measurements = []
            for mode in ("cold", "hot"):
                median = factor * milliseconds * 1e-3 * (1.1 if mode == "cold" else 1)
                samples = tuple(median * (1 + 0.001 * (i * 37 % 11)) for i in range(40))
                rates = (n / median, "unit updates", 8 * n / median, 4 * n / median)
                warned = ("made up",) if n == 1 << 15 and mode == "hot" and factor == 1 else ()
                measurements.append(
                    Measurement("Synthetic", mode, samples, median, median, 1.01 * median, *rates, suspicions=warned)
                )
            case = {"case": label, "purpose": "bench", "sizes": {"chains": n}, "dtype": "bfloat16"}
            records.append(
                Record("gibbs", name, "torch", "p", status=Status.PASSED, measurements=tuple(measurements), **case)
            )
    records.append(Record("lse", "torch", "torch", "p", "n=3", "check", Status.ERROR, "boom " * 40 + "x" * 300))
    ceilings = {"read": 4e9, "copy": 3e9, "fma": 1e10, "bfloat16 matrix": 1e12}
    environment = {"device": "cuda:0", "gpu": {"name": "Synthetic GPU", "uuid": "GPU-" + "0" * 80}}
    return Run(2, "complete", environment, tuple(records), ceilings=ceilings)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    run = synthetic()
    page = report.html([("now", run)], against=("then", run), predictions=predictions(run))
    path.write_text(page, encoding="utf-8")
    return path


def predictions(run):
    """What a profile might expect of every case: a long name, and twice the speed of the slower implementation."""
    cases = {}
    for each in run.records[:-1]:
        rate = each.sizes["chains"] / 2e-3
        expected = Expectation("sweeps " * 9, "H200", "unit updates", rate, 0.8 * rate, 1.2 * rate, "latency")
        cases[each.operation, each.implementation, each.case] = Profiled("", expected)
    return Predictions("Synthetic GPU", cases)


@pytest.fixture(scope="module")
def driver():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


class Browser:
    """The page at one width and in one colour scheme, with the logs of the browser."""

    def __init__(self, driver, file, width, scheme):
        self.driver = driver
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for kind in ("browser", "performance"):
            driver.get_log(kind)
        driver.get(Path(file).as_uri())
        # plotly.js finishes its deferred work within two frames.
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def choose(self, selector, value):
        self.js(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}))",
            selector,
            value,
        )

    def column(self, title):
        """The texts of the visible cells under a heading."""
        return self.js(
            "const heads = [...document.querySelectorAll('#table thead th')];"
            "const at = heads.findIndex((head) => head.textContent.trim() === arguments[0]);"
            "return [...document.querySelectorAll('#table tbody tr:not([hidden])')]"
            ".map((row) => row.cells[at].textContent.trim())",
            title,
        )

    def head(self, title):
        (head,) = (each for each in self.all("#table thead th") if each.text.strip(" ↑↓↕") == title)
        return head

    def requested(self):
        """The addresses of all that was asked for since the page was opened."""
        messages = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def browse(driver, file):
    return lambda width=1280, scheme="light", page=file: Browser(driver, page, width, scheme)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws_everything_and_requests_nothing(browse, file, width, scheme):
    page = browse(width, scheme)
    assert page.driver.get_log("browser") == []
    plots = page.all("[data-figure]")
    assert len(plots) == 3
    for plot in plots:
        assert plot.find_elements("css selector", ".main-svg .trace .point")
    assert page.requested() == [file.as_uri()]
    assert page.js("return document.documentElement.scrollWidth") <= width
    verdicts = page.js("return [...document.querySelectorAll('#predicted td:nth-child(2)')].map(e => e.innerText)")
    assert (len(verdicts), {*verdicts}) == (6, {"✗ below", "✗ above"})


def test_requests_and_errors_of_a_page_are_detected(browse, file, tmp_path):
    broken = tmp_path / "broken.html"
    text = file.read_text()
    broken.write_text(
        text.replace("default-src 'none';", "img-src http: data:;").replace("; img-src data: blob:", "")
        + "<img src='http://nowhere.invalid/x.png'><script>throw new Error('seen')</script>"
    )
    page = browse(page=broken)
    assert any("seen" in each["message"] for each in page.driver.get_log("browser"))
    assert "http://nowhere.invalid/x.png" in page.requested()


def test_the_policy_of_the_page_blocks_requests(browse, file, tmp_path):
    leaking = tmp_path / "leaking.html"
    leaking.write_text(file.read_text() + "<img src='http://nowhere.invalid/x.png'>")
    page = browse(page=leaking)
    assert any("Content Security Policy" in each["message"] for each in page.driver.get_log("browser"))


def test_filters_narrow_the_rows_and_reset_brings_them_back(browse):
    page = browse()
    assert len(page.column("case")) == 13
    assert page.one("#count").text == "13 of 13 rows"
    page.choose("[data-field=implementation]", "torch")
    assert page.column("implementation") == ["torch"] * 7
    page.choose("[data-field=mode]", "hot")
    assert page.column("median") == ["36.0 ms", "40.0 ms", "4.00 ms"]
    assert page.one("#count").text == "3 of 13 rows"
    page.one("#filters [type=reset]").click()
    page.driver.execute_async_script("setTimeout(arguments[0])")
    assert page.one("#count").text == "13 of 13 rows"
    page.one("#search").send_keys("CHAINS=32768 hot")
    assert page.column("median") == ["4.00 ms", "1.00 ms"]
    page.one("#search").clear()
    page.choose("[data-field=status]", "error")
    assert page.column("operation") == ["lse"]
    page.choose("[data-field=status]", "")
    page.one("#warned").click()
    assert page.column("median") == ["1.00 ms"]


def test_headings_sort_by_value_with_the_keyboard_too(browse):
    from selenium.webdriver.common.keys import Keys

    page = browse()
    page.choose("[data-field=mode]", "hot")
    head = page.head("median")
    head.find_element("tag name", "button").click()
    ascending = ["1.00 ms", "4.00 ms", "9.00 ms", "10.0 ms", "36.0 ms", "40.0 ms"]
    assert page.column("median") == ascending
    assert head.get_attribute("aria-sort") == "ascending"
    head.find_element("tag name", "button").send_keys(Keys.ENTER)
    assert page.column("median") == ascending[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    page.head("case").find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "none"
    sizes = [int(case.split("=")[1].split()[0]) for case in page.column("case")]
    assert sizes == sorted(sizes)


def test_rows_without_a_value_stay_last(browse):
    page = browse()
    for _ in range(2):
        page.head("median").find_element("tag name", "button").click()
        assert page.column("operation")[-1] == "lse"


@pytest.mark.parametrize("width", [1280, 390])
def test_samples_are_drawn_on_demand(browse, width):
    page = browse(width)
    assert not page.one("#samples").is_displayed()
    button = page.all("button.samples")[3]
    page.js("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", button)
    button.click()
    assert page.one("#samples").is_displayed()
    assert page.one("#samples-title").text == "gibbs, a_rather_long_implementation, hot"
    assert "9.00 ms" in page.one("#samples-facts").text
    assert len(page.all("#samples-plot .scatterlayer .point")) == 40
    assert page.all("#samples-plot .barlayer .point")
    box = page.one("#samples").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.one("#samples form button").click()
    assert not page.one("#samples").is_displayed()
    assert page.driver.get_log("browser") == []


def test_a_compressed_page_is_the_same(browse, tmp_path, monkeypatch):
    from selenium.webdriver.support.ui import WebDriverWait

    monkeypatch.setattr(report, "LARGE", 1000)
    monkeypatch.setattr(report, "MOST_SAMPLES", 240)
    packed = tmp_path / "packed.html"
    packed.write_text(report.html([("now", synthetic())]), encoding="utf-8")
    assert "chains=32768" not in packed.read_text()
    page = browse(page=packed)
    WebDriverWait(page.driver, 30).until(lambda _: page.all("#count") and page.one("#count").text == "13 of 13 rows")
    assert len(page.column("case")) == 13
    assert len(page.all("[data-figure] .main-svg .trace .point")) > 0
    button = page.all("button.samples")[3]
    page.js("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", button)
    button.click()
    assert "40; one of 2 is shown" in page.one("#samples-facts").text
    assert len(page.all("#samples-plot .scatterlayer .point")) == 20
    shown = page.js("return document.getElementById('samples-plot').data[0]")
    assert (shown["dx"], len(shown["y"])) == (2, 20)
    assert page.driver.get_log("browser") == []
    assert page.requested() == [packed.as_uri()]


def test_the_unit_of_throughput_can_be_chosen(browse):
    page = browse()
    read = "return document.querySelector('.throughput [data-figure]').data[0].y"
    items = page.js(read)
    page.choose("select.quantity", "bytes")
    assert page.js(read) == pytest.approx([8 * rate for rate in items])
    assert page.one(".throughput .ytitle").get_attribute("textContent") == "B/s"
    page.choose("select.quantity", "")
    assert page.js(read) == items


def test_bars_take_the_chosen_unit(browse, tmp_path):
    one = synthetic()
    page = tmp_path / "bars.html"
    page.write_text(report.html([("now", replace(one, records=one.records[:2]))]), encoding="utf-8")
    page = browse(page=page)
    assert page.all(".throughput [data-figure] .barlayer .point")
    read = "const f = document.querySelector('.throughput [data-figure]'); return [f.data[0].text[0], f.data[0].x[0]]"
    items, length = page.js(read)
    page.choose("select.quantity", "bytes")
    assert page.one(".throughput .xtitle").get_attribute("textContent") == "B/s"
    assert page.js(read)[1] == length
    assert page.js(read)[0] != items
    assert page.driver.get_log("browser") == []


def luminance(colour):
    """Of ``rgb(...)`` or ``color(srgb ...)``, as a browser gives them."""
    if colour.startswith("color(srgb"):
        red, green, blue = (float(part) for part in colour.rstrip(")").split()[1:4])
    else:
        red, green, blue = (int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_page_and_plots_follow_the_colour_scheme(browse, scheme, dark):
    page = browse(scheme=scheme)
    ground = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.2) is dark
    for selector in (".xtick text", ".ytick text", ".legendtext", ".xtitle"):
        ink = page.js(f"return getComputedStyle(document.querySelector('.plot {selector}')).fill")
        assert abs(luminance(ink) - luminance(ground)) > 0.6, selector
    cells = "[...document.querySelectorAll('.cell.timed')].map((each) => getComputedStyle(each))"
    tints = page.js(f"return {cells}.map((look) => [look.backgroundColor, look.color])")
    assert len(tints) == 2
    assert all(abs(luminance(tint) - luminance(ink)) > 0.4 for tint, ink in tints)
    grid = page.js("return getComputedStyle(document.querySelector('.plot .gridlayer path')).stroke")
    assert 0.05 < abs(luminance(grid) - luminance(ground)) < 0.3


def test_print_is_light_complete_and_without_controls(browse):
    page = browse(scheme="dark")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert luminance(page.js("return getComputedStyle(document.body).backgroundColor")) > 0.9
    assert luminance(page.js("return getComputedStyle(document.querySelector('.plot .xtick text')).fill")) < 0.2
    assert not page.one("#filters").is_displayed()
    assert page.one("#table").is_displayed()
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert page.js("return document.querySelector('.plot .main-svg').getBoundingClientRect().width") == 660
    page.js("dispatchEvent(new Event('afterprint'))")
    assert page.js("return document.querySelector('.plot .main-svg').getBoundingClientRect().width") != 660
    pdf = page.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
    assert page.driver.get_log("browser") == []


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_a_history_draws_changed_cases_at_once_and_others_when_they_are_opened(browse, tmp_path, width, scheme):
    generator = np.random.default_rng(1)
    for day in range(12):
        slow = 1.5 if day > 9 else 1.0
        times = {
            "softmax torch n=3": 1e-3,
            "softmax a_rather_long_implementation n=3": 2e-3 * slow,
            "sgld torch n=4": 1.0,
        }
        write(tmp_path / "runs", timed_run(times, day, generator))
    path = tmp_path / "history.html"
    path.write_text(history_html(read_history(tmp_path / "runs")))
    page = browse(width, scheme, path)
    drawn = "return [...document.querySelectorAll('.plot')].map((e) => e.querySelectorAll('.point').length)"
    assert page.js(drawn) == [24, 0]
    page.js("document.querySelector('details').open = true")
    page.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert page.js(drawn) == [24, 12]
    assert page.js("return document.documentElement.scrollWidth") <= width
    assert page.driver.get_log("browser") == []
    assert page.requested() == [path.as_uri()]
