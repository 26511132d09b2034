"""Reading the page that tools/visualize.py writes."""

import html.parser
import json


class Parser(html.parser.HTMLParser):
    """Collects tags with their attributes, and the content of scripts, styles and titles."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.content = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.content.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        self.content.append([None, {}, ""])

    def handle_data(self, data):
        if self.content:
            self.content[-1][2] += data

    def texts(self, tag, kind=None):
        return [text for t, a, text in self.content if t == tag and a.get("class") == kind]

    def images(self):
        return [json.loads(text) for text in self.texts("script", "image")]
