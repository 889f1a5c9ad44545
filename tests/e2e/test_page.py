"""The page in a browser: what a person drops, reads and presses, on a desk and on a phone.

`make test-e2e` runs it; Chromium is Debian's, or what `$CHROMIUM` names.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from carray.inference.reliability import FILE, Reliability
from carray.runs_folder import RunsFolder
from carray.serving.app import build_app
from carray.serving.gauges import Gauges
from carray.serving.limits import Limits
from carray.serving.served import ServedModel
from tests.serving.calibrated import package
from tests.trained import Trained

playwright = pytest.importorskip("playwright.sync_api", reason="`make install` brings playwright")
expect = playwright.expect

__all__ = ["package"]
pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)
LOOK, BACK = "Show where it looked", "Show the photograph"
GRAVE = ("serious", "critical")
DROP = """data => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], "mine.png", { type: "image/png" }));
  return carried;
}"""


@contextmanager
def serving(runs: Path) -> Iterator[str]:
    """Serve the model `toy` on a port of its own, in a thread; yield the address."""
    gauges = Gauges()
    model = ServedModel(RunsFolder(runs), "toy", Limits(), "cpu", gauges.batched)
    app = build_app({"toy": model}, gauges, Limits())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def address(package: Path) -> Iterator[str]:
    with serving(package.parents[1]) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: `apt-get install chromium`, or name it: $CHROMIUM")
    with playwright.sync_playwright() as driver:
        is_root = os.geteuid() == 0  # for whom Chromium has no sandbox
        opened = driver.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=not is_root)
        yield opened
        opened.close()


@pytest.fixture
def photograph(trained: Trained) -> Path:
    return Path(trained.manifest.included["path"].iloc[trained.manifest.rows("train")[0]])


@contextmanager
def opened(browser: Any, address: str, size: str = "desk", **options: Any) -> Iterator[Any]:
    """Open the page; nothing may go wrong on it, nor be asked for elsewhere."""
    context = browser.new_context(viewport=SIZES[size], **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("request", lambda asked: elsewhere(asked.url, address) and wrong.append(asked.url))
    page.on("filechooser", lambda chooser: None)  # known to the browser before a key is pressed
    page.goto(address)
    expect(page.locator("#what")).to_contain_text("classes")
    yield page
    context.close()
    assert wrong == []


def elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def drop(page: Any, photograph: Path) -> None:
    data = base64.b64encode(photograph.read_bytes()).decode()
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(DROP, data)})
    expect(page.locator(".card h2")).to_be_visible()


@pytest.mark.parametrize("size", SIZES)
def test_a_dropped_photograph_is_answered(
    browser: Any, address: str, photograph: Path, trained: Trained, size: str
) -> None:
    with opened(browser, address, size) as page:
        drop(page, photograph)
        names = [name.replace("_", " ") for name in trained.manifest.classes]
        shown = page.locator(".guess .name").all_inner_texts()
        assert len(shown) == 5
        assert set(shown) <= set(names)
        expect(page.locator("#status")).to_contain_text(f"mine.png: {shown[0]}, ")
        expect(page.locator(".card")).to_contain_text("toy, version 1")
        expect(page.locator(".alike li")).to_have_count(4)
        widths = page.locator(".alike img").evaluate_all(
            "all => all.map((one) => one.naturalWidth)"
        )
        assert widths == [128] * 4
        page.get_by_role("button", name=LOOK).click()
        heat = page.get_by_alt_text("Your photograph, coloured where")
        expect(heat).to_be_visible()
        assert heat.evaluate("one => one.naturalWidth") == 448
        with Image.open(photograph) as image:
            box = heat.bounding_box()
            assert box["width"] / box["height"] == pytest.approx(
                image.width / image.height, rel=0.02
            )
        across = "() => document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(across) <= 0, "nothing is cut off at the right"
        assert page.get_by_text("Take a photograph").is_visible() == (size == "phone")


def test_all_can_be_done_by_keyboard(browser: Any, address: str, photograph: Path) -> None:
    with opened(browser, address) as page:
        page.keyboard.press("Tab")
        expect(page.locator("#files")).to_be_focused()
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files([photograph, photograph])
        expect(page.locator("#status")).to_have_text("2 of 2 photographs answered.")
        page.keyboard.press("Tab")
        button = page.get_by_role("button", name=LOOK).first
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=BACK)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=BACK)).to_have_count(0)
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.locator("#clear")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#files")).to_be_focused()
        expect(page.locator(".card")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious(
    browser: Any, address: str, photograph: Path, size: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="`make install`")
    options = {"color_scheme": scheme, "bypass_csp": True}  # axe's own script needs that
    with opened(browser, address, size, **options) as page:
        for step in (lambda: None, lambda: drop(page, photograph)):
            step()
            found = axe.Axe().run(page).response["violations"]
            assert [(each["id"], each["nodes"]) for each in found if each["impact"] in GRAVE] == []


def test_what_is_unknown_or_broken_is_said_plainly(
    browser: Any, package: Path, photograph: Path, tmp_path: Path
) -> None:
    shutil.copytree(package.parent, tmp_path / "models")
    file = tmp_path / "models" / "toy" / FILE
    Reliability.read(file).model_copy(update={"energy_limit": -1e9}).write(file)
    broken = tmp_path / "notes.png"
    broken.write_text("no image")
    with serving(tmp_path) as address, opened(browser, address) as page:
        drop(page, photograph)
        expect(page.locator(".card h2")).to_have_text("Unknown: not like any car that I know")
        expect(page.locator(".card .unknown")).to_contain_text("unlike those that the model")
        expect(page.locator("#status")).to_contain_text("unknown")
    with serving(tmp_path) as address, expected_refusal(browser, address) as page:
        page.set_input_files("#files", [broken])
        expect(page.locator(".card .bad")).to_contain_text("it is no image that can be read")


@contextmanager
def expected_refusal(browser: Any, address: str) -> Iterator[Any]:
    """Open the page where the browser logs the refusal as an error of its own."""
    with browser.new_context(viewport=SIZES["desk"]) as context:
        page = context.new_page()
        page.goto(address)
        yield page
