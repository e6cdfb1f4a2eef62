"""The reference, `notebooks/reference.md`, from the docstrings. To make it anew: `python tests/helpers/reference.py`

Signatures are read from the source, so that they are the same on every version of Python, with types as they are
written there. Nothing of jaxhash is run but its table of public names.
"""

import ast
import collections
from pathlib import Path

import jaxhash as jh

PACKAGE = Path(jh.__file__).parent
REFERENCE = PACKAGE.parent / "notebooks" / "reference.md"
WIDTH = 88

HEAD = """# Reference

All public names, by folder, with the first paragraph of each docstring. `help(jh.search)` shows a whole docstring. In
shapes, n is the number of items, q of queries, b of bits, w = ceil(b / 32) of words, k of neighbours. This file is made
from the docstrings by `python tests/helpers/reference.py`.
"""


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


def describe_name(name, module):
    """The section of a public name."""
    tree, path = read_module(module)
    *_, node = (part for part in tree.body if getattr(part, "name", None) == name)  # after its overloads
    signature = class_signature(node, tree) if isinstance(node, ast.ClassDef) else function_signature(node, name)
    return f"### `{name}`\n\n```python\n{signature}\n```\n\n{first_paragraph(node)}\n\n[{path}](../{path})\n"


def list_groups():
    """The public names of each folder or file, functions before classes, as `(name, module)`."""
    groups = collections.defaultdict(list)
    for module, names in jh._MODULES.items():
        groups[module.partition(".")[0]] += [(name, module) for name in names]
    return {
        group: sorted(members, key=lambda member: (member[0][0].isupper(), member)) for group, members in groups.items()
    }


def make_reference():
    """The whole text."""
    contents, sections, seen = [], [], collections.Counter()
    for group, members in list_groups().items():
        tree, _ = read_module(group)
        sections.append(f"## `jaxhash.{group}`\n\n{to_markdown(ast.get_docstring(tree))}\n")
        links = []
        for name, module in members:
            # Of headings that differ only in case, later ones are numbered by GitHub.
            anchor = name.lower() + (f"-{seen[name.lower()]}" if seen[name.lower()] else "")
            seen[name.lower()] += 1
            links.append(f"[`{name}`](#{anchor})")
            sections.append(describe_name(name, module))
        contents.append(f"- [`jaxhash.{group}`](#jaxhash{group}): {', '.join(links)}")
    return "\n".join([HEAD, *contents, "", *sections])


if __name__ == "__main__":
    REFERENCE.write_text(make_reference())
