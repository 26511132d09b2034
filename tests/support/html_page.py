"""Reading the page that tools/visualize.py writes, with and without a browser."""

import html.parser
import json
import shutil
import subprocess
import tempfile

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def in_browser(test):
    """Mark a test that needs Chromium, which takes a few seconds."""
    return pytest.mark.slow(
        pytest.mark.skipif(not CHROMIUM, reason="no Chromium on the PATH")(test)
    )


class Dom(html.parser.HTMLParser):
    """The elements of a page: by id, with their attributes, and the texts in them."""

    VOID = ("meta", "input", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.elements, self.stack = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in self.VOID:
            self.stack.append(element)

    def handle_endtag(self, tag):
        if tag in [element["tag"] for element in self.stack]:
            while self.stack.pop()["tag"] != tag:
                pass

    def handle_data(self, data):
        for element in self.stack:
            element["text"] += data

    def __getitem__(self, wanted):
        (found,) = [element for element in self.elements if element.get("id") == wanted]
        return found

    def shown(self, kind):
        """Texts, or descriptions, of the elements of a class that aren't hidden."""
        return [
            element["text"] or element.get("aria-label")
            for element in self.elements
            if kind in element.get("class", "").split() and "hidden" not in element
        ]


class Parser(Dom):
    """The page as it is written, with its tags and their attributes."""

    def __init__(self, path):
        super().__init__(path.read_text(encoding="utf-8"))
        self.tags = [
            (element["tag"], {k: v for k, v in element.items() if k not in ("tag", "text")})
            for element in self.elements
        ]

    def texts(self, tag, kind=None):
        return [e["text"] for e in self.elements if (e["tag"], e.get("class")) == (tag, kind)]

    def images(self):
        return [json.loads(text) for text in self.texts("script", "image")]


def browse(path, fragment="", script=""):
    """Open the page in Chromium and return its DOM, after a script of the test."""
    copy = path.with_name(f"browsed_{path.name}")
    text = path.read_text()
    copy.write_text(text.replace("</body>", f"<script>{{{script}}}</script></body>"))
    profile = tempfile.mkdtemp(dir=path.parent)
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *(
            "--disable-sync",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
        ),
        *("--window-size=1300,900", "--virtual-time-budget=2000", "--dump-dom"),
        f"{copy.as_uri()}{fragment}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shutil.rmtree(profile, ignore_errors=True)
    return Dom(done.stdout)
