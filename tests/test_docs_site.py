"""The documentation as a site (`make docs` builds it, then runs these) and as files beside the code."""

import re
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = ROOT / "site"
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Tag → its attribute that a browser loads with the page."""


def named(nav):
    """Pages of a navigation, in its order."""
    for entry in nav:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else named(value)


def test_every_page_is_in_the_navigation_once():
    nav = yaml.safe_load("nav:" + (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])["nav"]
    assert sorted(named(nav)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_name_of_an_api_page_exists():
    names = [name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    assert len(names) > 40
    for name in names:
        module, _, last = name.rpartition(".")
        assert hasattr(import_module(module), last) or import_module(name), name


def anchors(page):
    """Anchors of a page's headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS.rglob("*.md")], ids=lambda page: page.stem)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)):
        if not re.match("https?:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
            assert page.name == "README.md" or target.is_relative_to(DOCS), f"{link} leads out of the site"


class Loads(HTMLParser):
    """Addresses that a page loads."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in LOADED and not (tag == "link" and given.get("rel") in ("canonical", "next", "prev")):
            self.found.append(given.get(LOADED[tag]) or "")


@pytest.mark.skipif(not SITE.exists(), reason="make docs builds the site")
def test_the_site_loads_nothing_from_elsewhere():
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 30
    loads = {address for page in pages for address in Loads(page).found}
    assert any(address.endswith(".js") for address in loads)
    for sheet in SITE.rglob("*.css"):
        loads.update(re.findall(r"""url\(["']?([^)"']+)""", sheet.read_text()))
    assert [address for address in loads if re.match("(https?:)?//", address)] == []
    assert not any('class="mermaid"' in page.read_text() for page in pages)  # its script would come from elsewhere
