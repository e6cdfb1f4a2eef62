"""The reference, `notebooks/reference.md`, from the docstrings. To make it anew: `python tests/helpers/reference.py`

Signatures are read from the source, so that they are the same on every version of Python, with types as they are
written there.
"""

import ast
import importlib
from pathlib import Path

import jaxhash as jh

PACKAGE = Path(jh.__file__).parent
REFERENCE = PACKAGE.parent / "notebooks" / "reference.md"
NAME = "jaxhash."
WIDTH = 88

HEAD = """# Reference

All public names, by package, with the first paragraph of each docstring. `help(jh.search)` shows a whole docstring. A
heading is the name as used after `import jaxhash as jh`; names at the top, such as `jh.search`, are in their package,
too. In shapes, n is the number of items, q of queries, b of bits, w = ceil(b / 32) of words, k of neighbors. This file
is made from the docstrings by `python tests/helpers/reference.py`.
"""

# The packages and modules that list their public names in `__all__`.
FACES = ("codes", "index", "query", "metrics", "models", "training", "retriever", "datasets", "files")


class Constants(ast.NodeTransformer):
    """Puts a module's numbers and strings in place of their names."""

    def __init__(self, tree):
        assigned = [part for part in tree.body if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant)]
        self.values = {part.targets[0].id: part.value for part in assigned}

    def visit_Name(self, node):
        return self.values.get(node.id, node)


def read_module(name):
    """The syntax tree of a module or package, by its name within jaxhash, and its path within the repository."""
    path = PACKAGE / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text())
    return Constants(tree).visit(tree), path.relative_to(PACKAGE.parent).as_posix()


def call(name, arguments, returns=""):
    """A signature on one line, or on one for each argument if it is long."""
    arguments = [text.replace("'", '"') for text in arguments]
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){returns}"])


def function_signature(node, name):
    """The signature of a function as it is called: without `self`."""
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + spec.defaults
    arguments = [argument(*pair) for pair in zip(positional, defaults, strict=True) if pair[0].arg != "self"]
    if spec.vararg or spec.kwonlyargs:
        arguments.append(f"*{argument(spec.vararg)}" if spec.vararg else "*")
    arguments += [argument(*pair) for pair in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    if spec.kwarg:
        arguments.append(f"**{argument(spec.kwarg)}")
    return call(name, arguments, f" -> {ast.unparse(node.returns)}" if node.returns and name != "__init__" else "")


def argument(node, default=None):
    """An argument or a field with its type and its default."""
    name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
    typed = f"{name}: {ast.unparse(node.annotation)}" if node.annotation else name
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
        factory = default.keywords[0].value
        default = factory.body if isinstance(factory, ast.Lambda) else ast.Call(factory, [], [])
    return f"{typed} = {ast.unparse(default)}" if default else typed


def fields_of(node, tree):
    """The fields of a dataclass or named tuple, those of bases in the same module first; none of other classes."""
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    if not node.decorator_list and "NamedTuple" not in bases:
        return {}
    fields = {}
    for base in tree.body:
        fields |= fields_of(base, tree) if isinstance(base, ast.ClassDef) and base.name in bases else {}
    own = [part for part in node.body if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part)]
    return fields | {field.target.id: field for field in own}


def class_signature(node, tree):
    """How an object is made: by `__init__`, or from its fields; of an exception only what it derives from."""
    made = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
    if node.name.endswith(("Error", "Warning")) or not (made or fields_of(node, tree)):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    if made:
        return function_signature(made, node.name).partition(" -> ")[0]
    return call(node.name, [argument(field, field.value) for field in fields_of(node, tree).values()])


def first_paragraph(node):
    """The first paragraph of a docstring."""
    return (ast.get_docstring(node) or "").partition("\n\n")[0]


def to_markdown(text):
    """A docstring with its examples fenced."""
    blocks = text.split("\n\n")
    fenced = [f"```python\n{block}\n```" if block.startswith(">>> ") else block for block in blocks]
    return "\n\n".join(fenced)


def list_homes(face):
    """The module that defines each public name of a package or module, by name; functions come before classes."""
    tree, _ = read_module(face)
    imported = (node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NAME))
    homes = {alias.name: node.module.removeprefix(NAME) for node in imported for alias in node.names}
    names = sorted(importlib.import_module(NAME + face).__all__, key=lambda name: (name[0].isupper(), name))
    return {name: homes.get(name, face) for name in names}


def usual_name(name, face):
    """A public name as it is used."""
    return f"jh.{name}" if name in jh.__all__ else f"jh.{face}.{name}"


def describe_name(name, face, module):
    """The section of a public name."""
    tree, path = read_module(module)
    *_, node = (part for part in tree.body if getattr(part, "name", None) == name)  # after its overloads
    signature = class_signature(node, tree) if isinstance(node, ast.ClassDef) else function_signature(node, name)
    heading = f"### `{usual_name(name, face)}`"
    return f"{heading}\n\n```python\n{signature}\n```\n\n{first_paragraph(node)}\n\n[{path}](../{path})\n"


def make_reference():
    """The whole text."""
    contents, sections = [], []
    for face in FACES:
        tree, _ = read_module(face)
        sections.append(f"## `jaxhash.{face}`\n\n{to_markdown(ast.get_docstring(tree))}\n")
        links = []
        for name, module in list_homes(face).items():
            anchor = usual_name(name, face).lower().replace(".", "")
            links.append(f"[`{name}`](#{anchor})")
            sections.append(describe_name(name, face, module))
        contents.append(f"- [`jaxhash.{face}`](#jaxhash{face}): {', '.join(links)}")
    return "\n".join([HEAD, *contents, "", *sections])


if __name__ == "__main__":
    REFERENCE.write_text(make_reference())
