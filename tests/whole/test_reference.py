import ast
import importlib
import re

import reference

import jaxhash as jh

SOURCE = """
WIDTH = 2

def few(a, b: int = WIDTH, *rest, c='x', **more) -> int: ...

@dataclass
class Record(Base):
    name: str
    size: int = 3
    KIND: ClassVar[int] = 0

@dataclass
class Larger(Record):
    size: int = 4
    more: int = field(default_factory=lambda: 5)
    rest: tuple = field(default_factory=tuple)

class Made(Record):
    def __init__(self, size: int): ...

class Settings(Base):
    size: int = 3

class SizeError(ValueError):
    def __init__(self, size): ...
"""


def test_signatures_by_hand():
    tree = ast.parse(SOURCE)
    tree = reference.Constants(tree).visit(tree)
    _, few, *classes = tree.body
    assert reference.function_signature(few, "few") == 'few(a, b: int = 2, *rest, c = "x", **more) -> int'
    assert [reference.class_signature(node, tree) for node in classes] == [
        "Record(name: str, size: int = 3)",
        "Larger(name: str, size: int = 4, more: int = 5, rest: tuple = tuple())",
        "Made(size: int)",
        "class Settings(Base)",
        "class SizeError(ValueError)",
    ]


def test_a_long_signature_has_a_line_for_each_argument():
    assert reference.call("f", ["a" * 50, "b" * 50]) == f"f(\n    {'a' * 50},\n    {'b' * 50},\n)"


def test_examples_are_fenced():
    assert reference.to_markdown("Adds.\n\n>>> 1 + 1\n2\n\nMore.") == "Adds.\n\n```python\n>>> 1 + 1\n2\n```\n\nMore."


def test_the_reference_is_made_from_the_docstrings_of_today():
    made = reference.make_reference()
    assert reference.REFERENCE.read_text() == made, "make it anew: python tests/helpers/reference.py"


def test_each_public_name_has_one_section_and_one_link_to_it():
    text = reference.REFERENCE.read_text()
    headings = re.findall(r"^### `([\w.]+)`$", text, re.MULTILINE)
    faces = {face: importlib.import_module(f"jaxhash.{face}").__all__ for face in reference.FACES}
    assert sorted(headings) == sorted(reference.usual_name(name, face) for face in faces for name in faces[face])
    assert len(headings) == len(set(headings))
    links = re.findall(r"\[`\w+`\]\(#([\w-]+)\)", text)
    assert sorted(links) == sorted(heading.lower().replace(".", "") for heading in headings)


def test_names_at_the_top_are_those_of_the_packages():
    assert len(jh.__all__) <= 55
    for name in jh.__all__:
        (face,) = (face for face in reference.FACES if name in importlib.import_module(f"jaxhash.{face}").__all__)
        assert getattr(jh, name) is getattr(importlib.import_module(f"jaxhash.{face}"), name)


def test_names_of_packages_exist_and_are_described():
    for face in reference.FACES:
        package = importlib.import_module(f"jaxhash.{face}")
        assert package.__all__ == sorted(package.__all__)
        for name in package.__all__:
            assert getattr(package, name).__doc__, name
