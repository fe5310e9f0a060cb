"""The page in a browser: Debian's Chromium, driven by Playwright; skipped where either is not installed."""

import contextlib
import csv
import io
import re
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from csvi.search.app.desk import Session
from csvi.search.app.server import LARGEST_UPLOAD, Server
from csvi.search.gallery import Entry
from csvi.search.query import Where

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(desk):
    with Server(desk, "127.0.0.1", 0, hint="Nobody real.") as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        yield server.address
        server.stop()
        thread.join()


PATIENCE = 60_000
"""Milliseconds for whatever the page is to say or do: on two busy cores a search takes several seconds."""

JUDGED = "**/gradio_api/run/*"
"""What the page asks when something is said to be right or wrong."""

UPLOADED = {"content_type": "text/event-stream", "body": 'data: {"msg": "done"}\n\n'}
"""Gradio's progress of an upload, which it answers with 404 instead where the upload was over first."""


@pytest.fixture(scope="module")
def browser():
    sync_api.expect.set_options(timeout=PATIENCE)
    with (
        sync_api.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]) as browser,
    ):
        yield browser


@contextlib.contextmanager
def opened(browser, address):
    """The page; raises at its end if it asked anything of elsewhere, or failed in anything."""
    asked, failed = [], []
    with browser.new_page(viewport={"width": 1280, "height": 900}) as page:
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
        page.route("**/upload_progress?*", lambda route: route.fulfill(**UPLOADED))
        page.goto(address)
        page.get_by_role("button", name="Search", exact=True).wait_for()
        yield page
    assert [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []
    assert failed == []


@pytest.fixture
def page(browser, address):
    """The page as it opens."""
    with opened(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def probe(sysu_root, records):
    return sysu_root / records[3].path


@pytest.fixture(scope="module")
def asked(browser, address, probe):
    """A page on which a probe has been dropped, for all tests that search with it."""
    with opened(browser, address) as page:
        drop(page, probe)
        said(page, "20 of 96 images, in ")
        yield page


def drop(page, *files):
    page.locator("#probes input[type=file]").set_input_files(files)


def said(page, words):
    """Wait until the page says this."""
    sync_api.expect(page.get_by_role("status").filter(has_text=words)).to_be_visible()


def answers_of(page):
    return page.get_by_role("list", name="Answers").get_by_role("listitem")


def seen(picture):
    """What is to be seen in the middle of an element on the screen: (h, w, 3)."""
    shown = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
    return np.asarray(shown, np.float64)[8:-8, 8:-8]


def search(page):
    page.get_by_role("button", name="Search", exact=True).click()


def test_a_probe_is_dropped_and_the_answers_are_to_be_seen(asked, desk, probe):
    session = Session()
    desk.search(session, [str(probe)], "detect", Where(), 20, False)
    names = [image.get_attribute("alt") for image in answers_of(asked).get_by_role("img").all()]
    for rank, (name, hit) in enumerate(zip(names, session.answers, strict=True), 1):
        assert name.startswith(f"rank {rank}, similarity {hit.similarity:.3f}, camera {hit.camera}, {hit.modality}")
    files = {names[n]: desk.root / session.answers[n].path for n in (0, 1, 5)} | {"probe 1, visible": probe}
    for name, file in files.items():
        shown = seen(asked.get_by_alt_text(name))
        expected = Image.open(file).resize((shown.shape[1] + 16, shown.shape[0] + 16))
        expected = np.asarray(expected, np.float64)[8:-8, 8:-8]
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.95, name


def test_one_click_shows_what_the_network_looks_at(asked):
    crop = answers_of(asked).nth(2).get_by_role("button", name="rank 3,")
    dialog = asked.get_by_role("dialog", name="What the network looks at")
    for _ in range(2):  # the very same again, too
        crop.click()
        sync_api.expect(dialog).to_be_visible()
        names = [image.get_attribute("alt") for image in dialog.get_by_role("img").all()]
        assert names == ["rank 3", "heatmap of rank 3", "probe 1", "heatmap of probe 1"]
        heat = seen(dialog.get_by_alt_text("heatmap of rank 3"))
        assert np.ptp(heat, axis=2).mean() > 50  # colours that no crop has
        dialog.get_by_role("button", name="Close").click()
        sync_api.expect(dialog).to_be_hidden()


def test_what_is_right_and_wrong_refines_the_search_and_is_in_the_list(asked):
    def judge(rank, verdict):
        group = asked.get_by_role("group", name=f"Rank {rank} is", exact=True)
        with asked.expect_response(JUDGED):
            group.get_by_role("button", name=verdict).click()

    for rank, verdict in ((2, "right"), (3, "right"), (5, "wrong"), (3, "wrong"), (7, "right"), (7, "right")):
        judge(rank, verdict)
    asked.get_by_role("button", name="Refine").click()
    said(asked, "ms; 1 right and 2 wrong.")
    with asked.expect_download() as download:
        asked.get_by_role("button", name="Save list").click()
    assert download.value.suggested_filename == "answers.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert sorted(row["verdict"] for row in rows if row["verdict"]) == ["right", "wrong", "wrong"]
    for row in filter(lambda row: row["rank"], rows):
        group = asked.get_by_role("group", name=f"Rank {row['rank']} is", exact=True)
        pressed = group.locator("[aria-pressed=true]").all_inner_texts()
        assert pressed == [row["verdict"]] * bool(row["verdict"])
    asked.get_by_role("button", name="Forget verdicts").click()
    said(asked, re.compile(r" ms\.$"))
    assert asked.locator("[aria-pressed=true]").count() == 0


def test_everything_has_a_name(asked):
    nameless = asked.evaluate(
        """() => [...document.querySelectorAll('input, textarea, select, button, img')].filter(each =>
            each.checkVisibility() && !each.labels?.length && !each.alt && !each.getAttribute('aria-label')
            && !each.textContent.trim() && !each.querySelector('[alt]')).map(each => each.outerHTML)"""
    )
    assert nameless == []


def test_statistics_are_a_tab(asked):
    asked.get_by_role("tab", name="Gallery").click()
    row = asked.get_by_role("table", name="Images by camera and modality").get_by_role("row", name="3, infrared")
    sync_api.expect(row.get_by_role("cell", name="16")).to_be_visible()
    sync_api.expect(asked.get_by_role("table", name="Images by day").get_by_role("row")).to_have_count(3)
    asked.get_by_role("tab", name="Search").click()


def test_a_phone_shows_all_of_the_page(asked):
    asked.set_viewport_size({"width": 390, "height": 844})
    assert asked.evaluate("document.documentElement.scrollWidth") <= 390
    left = [answers_of(asked).nth(n).bounding_box()["x"] for n in range(6)]
    assert len(set(left)) == 3  # columns
    asked.set_viewport_size({"width": 1280, "height": 900})


def test_images_that_are_gone_are_said_and_named(asked, desk, tmp_path, monkeypatch):
    monkeypatch.setattr(desk, "root", tmp_path)
    search(asked)
    said(asked, "20 cannot be shown: the image cam")
    assert answers_of(asked).count() == 20
    assert answers_of(asked).locator("img").count() == 0


def test_an_empty_gallery_is_one_sentence(asked, desk, gallery_of, sysu_root, tmp_path, monkeypatch):
    with gallery_of(tmp_path / "empty.db", sysu_root) as gallery:
        monkeypatch.setattr(desk, "gallery", gallery)
        search(asked)
        said(asked, "is empty: add images with csvi index add")
    assert answers_of(asked).count() == 0


def test_names_are_text_and_nothing_else(page, probe, desk, gallery_of, embeddings, tmp_path, monkeypatch):
    """Whoever fills a gallery names images, cameras and tracks, and whoever asks names probes."""
    name = "<img src=. onerror=hacked()>{{hacked}}${hacked()}`"
    entry = Entry(f"{name}.jpg", "visible", f"<b>{name}", "", f"<i>{name}")
    shutil.copy(probe, tmp_path / f"{name}.jpg")
    with gallery_of(
        tmp_path / "hostile.db", tmp_path, embeddings[:2], [entry, replace(entry, path="gone" + name)]
    ) as rows:
        monkeypatch.setattr(desk, "gallery", rows)
        monkeypatch.setattr(desk, "root", tmp_path)
        drop(page, tmp_path / f"{name}.jpg")
        said(page, f"1 cannot be shown: the image gone{name} is not there")
        sync_api.expect(answers_of(page).filter(has_text=f"camera <b>{name}")).to_have_count(2)
        page.get_by_role("tab", name="Gallery").click()
        page.get_by_role("button", name="Count again").click()
        sync_api.expect(page.get_by_role("rowheader", name=name)).to_be_visible()
        (tmp_path / f"{name}.txt").write_text("nobody")
        page.get_by_role("tab", name="Search").click()
        drop(page, tmp_path / f"{name}.txt")
        said(page, "is not an image: drop another image")
    assert page.locator("[onerror]").count() == 0


def test_what_is_no_probe_is_one_sentence(page, tmp_path):
    search(page)
    said(page, "there is no probe: drop an image of the person to look for")
    (tmp_path / "large.png").write_bytes(bytes(LARGEST_UPLOAD + 1))
    drop(page, tmp_path / "large.png")
    sync_api.expect(page.get_by_text("File(s) exceed the maximum allowed size of 20.0 Mb")).to_be_visible()
    (tmp_path / "notes.txt").write_text("nobody")
    drop(page, tmp_path / "notes.txt")
    said(page, "the probe notes.txt is not an image: drop another image")


def test_all_is_done_with_the_keyboard(page, probe):
    def focus(role, name, **more):
        target = page.get_by_role(role, name=name, **more).first
        for _ in range(60):
            page.keyboard.press("Tab")
            if target.count() and target.evaluate("each => each === document.activeElement"):
                return target
        raise AssertionError(f"Tab does not reach {name}")

    page.on("filechooser", lambda chooser: chooser.set_files(probe))
    focus("button", "upload")
    page.keyboard.press("Enter")
    said(page, "20 of 96 images")
    focus("radio", "infrared")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_alt_text("probe 1, infrared")).to_be_visible()
    focus("textbox", "Since")
    page.keyboard.type("2024-05-02")
    page.keyboard.press("Enter")
    said(page, "5 of 96 images")
    crop = focus("button", "rank 1,")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    sync_api.expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    sync_api.expect(dialog).to_be_hidden()
    assert crop.evaluate("each => each === document.activeElement")
    right = focus("button", "right", exact=True)
    with page.expect_response(JUDGED):
        page.keyboard.press("Space")
    assert right.get_attribute("aria-pressed") == "true"
    focus("button", "Refine")
    page.keyboard.press("Enter")
    said(page, "1 right and 0 wrong")
