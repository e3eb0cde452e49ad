"""Pages of HTML: their elements, and what a browser makes of them."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Page(HTMLParser):
    """The elements of a page, and whether they nest."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def assert_needs_nothing_else(self):
        for tag, attributes in self.elements:
            assert tag not in ("link", "iframe", "object")
            assert tag != "script" or not attributes  # its few lines are in the page
            for name in ("src", "href", "srcset", "data"):
                assert attributes.get(name, "data:").startswith("data:")


def in_a_browser(path, weight, profile):
    """The document after its script has run, opened at a weight."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-sync", f"--user-data-dir={profile}"),
        *("--virtual-time-budget=2000", "--dump-dom"),
        f"{path.resolve().as_uri()}#weight={weight:.4g}",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
