"""Damaged and forged forms of saved files, made from a source of random choices."""

import copy
import json
from pathlib import Path

import forgery

GOLDEN = Path(__file__).parents[1] / "whole" / "golden" / "v1"

# Values that parsers and allocators have stumbled over.
VALUES = [
    *(0, 1, -1, 2, 17, 2**15, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**12, 10**30),
    *(
        True,
        False,
        None,
        0.5,
        1e999,
        -0.0,
        "",
        "x",
        "<u4",
        "|O",
        ">i4",
        "V8",
        "index",
        "model",
        "sigmoid",
        "\0",
        "\ud800",
    ),
    *([], {}, [0], [1, 1], [2**40, 2**40], [-1], [None], ["<u4"], [[]], {"": {}}, {"dtype": "<u4"}, [1] * 100),
]


def seeds():
    """Small files of every kind."""
    return [(GOLDEN / f"{kind}.npz") for kind in ("index", "model", "retriever", "images", "vectors")]


def mutated(choices, files):
    """One damaged or forged file; `choices` is a `random.Random`."""
    path = choices.choice(files)
    ways = [_bytes_changed, _bytes_changed_and_sealed, _header_changed, _members_changed]
    return choices.choice(ways)(choices, path)


def _bytes_changed(choices, path):
    """As damage does it, or an attacker who knows the places of the archive's numbers."""
    content = bytearray(path.read_bytes())
    for _ in range(choices.randint(1, 6)):
        place, way = _place(choices, content), choices.randrange(5)
        if way == 0:
            content[place : place + 1] = bytes([choices.randrange(256)])
        elif way == 1:
            content[place : place + 4] = choices.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"PK\1\2"])
        elif way == 2:
            del content[place : place + choices.randrange(1, 200)]
        elif way == 3:
            content[place:place] = choices.randbytes(choices.randrange(1, 200))
        else:
            other = _place(choices, content)
            content[place:place] = content[other : other + choices.randrange(1, 400)]
    return bytes(content)


def _place(choices, content):
    """Anywhere, but often in the header or in the directory."""
    marks = [
        content.find(b"PK\3\4", choices.randrange(len(content) + 1)),
        content.find(b"PK\1\2"),
        content.find(b"PK\5\6"),
    ]
    mark = choices.choice([0, *(mark for mark in marks if mark >= 0)])
    if choices.random() < 0.5:
        return min(len(content), mark + choices.randrange(80))
    return choices.randrange(len(content) + 1)


def _bytes_changed_and_sealed(choices, path):
    return forgery.sealed(_bytes_changed(choices, path))


def _header_changed(choices, path):
    """Another value somewhere in the JSON, or text that is none."""
    members = forgery.parts(path)
    header = json.loads(members["header.json"])
    for _ in range(choices.randint(1, 3)):
        _change_one(choices, header)
    text = json.dumps(header).encode(errors="surrogatepass")
    if choices.random() < 0.2:
        place = choices.randrange(len(text) + 1)
        text = (
            text[:place] + choices.choice([b"", b"{", b"[" * 3000, b"NaN", b"1" * 5000, b"\xff", b'"']) + text[place:]
        )
    members["header.json"] = text
    return forgery.sealed(forgery.archive(members.items()))


def _change_one(choices, tree):
    """Walks down a tree of JSON at random and changes where it stops."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = choices.choice(keys)
        if isinstance(tree[key], (dict, list)) and tree[key] and choices.random() < 0.8:
            tree = tree[key]
            continue
        way = choices.randrange(4)
        if way == 0:
            del tree[key]
        elif way == 1 and isinstance(tree, dict):
            tree[choices.choice(["index.ids", "index.codes", "x", "rngs", "dtype", ""])] = tree[key]
        else:
            tree[key] = copy.deepcopy(choices.choice(VALUES))  # the next change may be inside it
        return


def _members_changed(choices, path):
    """Arrays of other contents and sizes, missing, doubled or in another order."""
    members = list(forgery.parts(path).items())
    for _ in range(choices.randint(1, 3)):
        number, way = choices.randrange(len(members)), choices.randrange(5)
        name, content = members[number]
        if way == 0 and len(members) > 1:
            del members[number]
        elif way == 1:
            members.insert(choices.randrange(len(members) + 1), members[number])
        elif way == 2:
            members.insert(0, members.pop(number))
        elif len(content) > 128:  # past the npy header, so that only the meaning is wrong
            changed, place = bytearray(content), choices.randrange(128, len(content))
            changed[place : place + 4] = choices.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", choices.randbytes(4)])[
                : len(content) - place
            ]
            members[number] = (name, bytes(changed))
    return forgery.sealed(forgery.archive(members))
