"""What a browser would find in a page."""

import base64
from html.parser import HTMLParser

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text):
        super().__init__()
        self.declaration, self.tags, self.texts, self.images, self.tables, self.links = "", [], [], [], [], []
        self.open = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_decl(self, decl):
        self.declaration = decl

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif data.strip():
            self.texts.append((self.open[-1], data.strip()))


def png_of(image):
    """The bytes behind an image's data URI."""
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    return base64.b64decode(data, validate=True)
