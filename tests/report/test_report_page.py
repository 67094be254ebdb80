"""The report's page in a browser: it draws, sorts, filters and fits, and asks the network for nothing."""

import time

import pytest
from chromium import PROGRAM, Page
from fabricate import sweep_of_many

from kdx.report.collect import collect
from kdx.report.groups import group_runs
from kdx.report.write import write_report

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on PATH")


@pytest.fixture
def kd(tiny):
    return tiny("method=kd")


@pytest.fixture
def many(tmp_path, kd):
    """24 groups of 2 seeds."""
    sweep_of_many(tmp_path / "runs", kd, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 2)
    return tmp_path / "runs"


CELLS = "[...document.querySelectorAll('#results > table > tbody > tr > td:nth-child(%d)')]"
NUMBERS = CELLS + ".map((cell) => parseFloat(cell.textContent))"


@needs_chromium
def test_the_page_sorts_filters_and_fits(many, tmp_path):
    write_report([many], tmp_path / "out", "A sweep", predict=False, pictures=False)
    with Page((tmp_path / "out" / "index.html").as_uri(), 1280, 900, tmp_path / "profile") as page:
        assert page.run("document.querySelector('h1').textContent") == "A sweep"
        head = page.run("[...document.querySelectorAll('#results th')].map((c) => c.textContent)")
        accuracy = head.index("top-1 % ↑") + 1
        values = page.run(NUMBERS % accuracy)
        assert len(values) == 24
        # the page rounds as the tables do
        shown = page.run(CELLS % accuracy + ".map((cell) => cell.textContent)")
        summaries = [group.summary("test/top1") for group in group_runs(collect([many]).runs).groups]
        assert sorted(shown) == sorted(s.show(100, 2) for s in summaries if s is not None)
        assert values == sorted(values, reverse=True)
        page.run("document.querySelector('#results [data-sort=\"test/top1\"]').click()")
        assert page.run(NUMBERS % accuracy) == sorted(values)
        page.run("document.querySelector('#results [data-sort=\"temperature\"]').click()")
        temperatures = page.run(NUMBERS % (head.index("temperature") + 1))
        assert temperatures == sorted(temperatures)
        page.run(
            "const filter = document.querySelector('#filter'); filter.value = 'temperature>=8 lr=0.1';"
            "filter.dispatchEvent(new Event('input'));"
            "new Promise((done) => setTimeout(done, 400))"
        )
        assert page.run(NUMBERS % (head.index("temperature") + 1)) == [8, 16, 32]
        assert page.run("document.querySelector('#shown').textContent") == "3 of 24 groups"
        # one temperature sweep is left in view, and none of the learning rate
        assert page.run("document.querySelectorAll('#sweeps figure').length") == 1
        page.run("document.querySelector('#results tbody tr').click()")
        assert page.run("document.querySelectorAll('#results .detail tbody tr').length") == 2
        page.run("document.querySelector('#every').open = true; new Promise((done) => setTimeout(done, 200))")
        assert page.run("document.querySelectorAll('#runs tbody tr').length") == 6
        differs = "[...document.querySelectorAll('#difference tbody td:first-child')].map((c) => c.textContent)"
        page.run("(s => { s.value = 1; s.dispatchEvent(new Event('change')); })(document.querySelector('#run-b'))")
        assert set(page.run(differs)) == {"seed", "data_seed"}
        for width in (1280, 400):
            page.resize(width, 900)
            page.run("new Promise((done) => setTimeout(done, 300))")
            assert page.run("document.documentElement.scrollWidth") <= width
        assert page.complaints == []


@pytest.mark.slow
def test_the_time_of_a_report_grows_with_its_runs_and_not_faster(tmp_path, kd):
    def seconds(name: str, temperatures: int) -> float:
        count = sweep_of_many(tmp_path / name, kd, [float(t) for t in range(1, temperatures + 1)], 5)
        assert count == 20 * temperatures
        # of this process, beside another measurement: a busy machine slows both
        began = time.process_time()
        write_report([tmp_path / name], tmp_path / f"page of {name}", "Many", predict=False, pictures=True)
        return time.process_time() - began

    seconds("first", 1)  # imports
    few, many = seconds("few", 10), seconds("many", 50)
    assert many < 12 * few  # five times the runs; each with each would be 25 times
    page = tmp_path / "page of many" / "index.html"
    assert page.stat().st_size < 8e6
    if PROGRAM is not None:
        with Page(page.as_uri(), 1280, 900, tmp_path / "profile") as shown:
            assert shown.complaints == []
