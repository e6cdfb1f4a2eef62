"""Do the tests find small faults? `python tests/mutation.py jaxhash/query/hits.py ... [--count 10] [--seed 0]`

Changes one comparison, operator or number of a module at a time, in a copy of the checkout, and runs the tests of that
module: `tests/query/test_hits.py`, or all of `tests/query` if there is no such file. Prints the changes that no test
noticed: a test is missing there, or the change makes no difference (a faster way, a size of a block).
"""

import argparse
import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 300  # seconds; tests that take longer loop for ever, so the change is noticed
OPERATORS = [
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.FloorDiv),
    (ast.LShift, ast.RShift),
    (ast.BitAnd, ast.BitOr),
    (ast.And, ast.Or),
]
SWAPPED = dict(OPERATORS) | {second: first for first, second in OPERATORS}


def changes_of(node):
    """Yields functions that change a node, each in one way."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPPED:
        yield lambda node: setattr(node, "op", SWAPPED[type(node.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield lambda node: node.ops.__setitem__(0, SWAPPED[type(node.ops[0])]())
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda node: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield lambda node: setattr(node, "value", node.value + 1)


def code_nodes(tree):
    """The nodes of a module's code in a fixed order, without annotations, whose changes would be noticed anyway."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.BinOp):
            node.annotation = ast.Name("object")
    return list(ast.walk(tree))


def mutants(source, count, rng):
    """Some changed forms of a module: the line, and what it says before and after; and the whole text."""
    tree = ast.parse(source)
    places = [(place, way) for place, node in enumerate(code_nodes(tree)) for way, _ in enumerate(changes_of(node))]
    for place, way in rng.sample(places, min(count, len(places))):
        changed = copy.deepcopy(tree)
        node = code_nodes(changed)[place]
        before = ast.unparse(node)
        list(changes_of(node))[way](node)
        yield node.lineno, f"{before}  ->  {ast.unparse(node)}", ast.unparse(changed)


def tests_of(module):
    """The tests of a module, by its path within the checkout."""
    inside = Path("tests", *module.parts[1:-1])
    own = inside / f"test_{module.stem.removeprefix('_')}.py"
    return own if (ROOT / own).exists() else inside


def passes(folder, tests):
    """Whether tests pass in a copy of the checkout."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", str(tests)]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=LIMIT, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", type=Path, help="paths within the checkout")
    parser.add_argument("--count", type=int, default=10, help="changes of each module, chosen at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng, found, tried = random.Random(options.seed), 0, 0  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copytree(ROOT, Path(folder) / "copy", ignore=shutil.ignore_patterns(".*", "venv"))
        for module in options.modules:
            source, tests = (ROOT / module).read_text(), tests_of(module)
            if not passes(copied, tests):
                raise SystemExit(f"{tests} fails without any change")
            for line, change, text in mutants(source, options.count, rng):
                (copied / module).write_text(text)
                noticed = not passes(copied, tests)
                tried, found = tried + 1, found + noticed
                if not noticed:
                    print(f"{module}:{line}: {change}", flush=True)
            (copied / module).write_text(source)
    print(f"{found} of {tried} changes were noticed")


if __name__ == "__main__":
    main()
