"""Index arrays in files, and the checks of loaded arrays.

Files hold codes, offsets and ids without padding and tiling. A matching digest shows that a file is unchanged, not that
its content is valid, so everything that searches rely on is checked again.
"""

from typing import Any

import numpy as np

from jaxhash.core.checks import check_codes, check_ids, check_num_bits
from jaxhash.files.archive import Archive, Arrays
from jaxhash.files.header import AnyPath, CorruptFileError
from jaxhash.index.hash_index import HashIndex, check_size, sorted_arrays


def index_to_arrays(index: Any) -> tuple[dict[str, Any], Arrays]:
    """Returns the content of an index file: JSON data, and arrays by name."""
    if not isinstance(index, HashIndex):
        raise TypeError(f"index must be a HashIndex, got {type(index).__name__}")
    codes, offsets, ids = sorted_arrays(index)
    return {"index": {"num_bits": index.num_bits, "multi": bool(index.multi)}}, {
        "index.codes": codes,
        "index.offsets": offsets,
        "index.ids": ids,
    }


def read_sorted(path: AnyPath, archive: Archive) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, bool]:
    """Returns the arguments of `index_from_sorted` from an archive; raises `CorruptFileError` if they are invalid."""
    try:
        num_bits, multi = read_settings(archive)
        codes, offsets, ids = (archive.arrays[f"index.{name}"] for name in ("codes", "offsets", "ids"))
        codes = check_codes("codes", codes, num_bits)
        check_sorted(codes, offsets, ids, num_bits, multi)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: index: {error!r}" if isinstance(error, KeyError) else f"{path}: {error}"
        ) from None
    return codes, offsets, ids, num_bits, multi


def read_settings(archive: Archive) -> tuple[int, bool]:
    """Returns `num_bits` and `multi` of a saved index; raises `KeyError`, `TypeError` or `ValueError` if invalid."""
    num_bits, multi = (archive.meta["index"][name] for name in ("num_bits", "multi"))
    if not isinstance(multi, bool):
        raise TypeError(f"multi must be true or false, got {multi!r}")
    return check_num_bits(num_bits), multi


def check_sorted(codes: np.ndarray, offsets: np.ndarray, ids: np.ndarray, num_bits: int, multi: bool = False) -> None:
    """Raises unless codes, offsets and ids are sorted as `build_index` sorts them."""
    if codes.ndim != 2 or offsets.shape != (len(codes) + 1,) or offsets.dtype != np.int32 or ids.dtype != np.int32:
        raise ValueError(f"codes {codes.shape}, offsets {offsets.dtype}{offsets.shape} and ids {ids.dtype} don't match")
    check_ids(ids, len(ids), distinct=not multi)
    check_size(len(ids), num_bits)
    if offsets[0] != 0 or offsets[-1] != len(ids) or not (offsets[1:] > offsets[:-1]).all():
        raise ValueError(f"offsets must rise from 0 to the number of items, {len(ids)}")
    if not _codes_ascend(codes):
        raise ValueError("codes must be distinct and in ascending order")
    if len(codes) < len(ids) and not _ids_ascend(offsets, ids):
        raise ValueError("ids must ascend within each code")


def _ids_ascend(offsets: np.ndarray, ids: np.ndarray) -> bool:
    """Returns whether ids ascend within each code, given valid offsets."""
    ascending = ids[1:] > ids[:-1]
    ascending[offsets[1:-1] - 1] = True  # steps from one code to the next
    return bool(ascending.all())


def _codes_ascend(codes: np.ndarray) -> bool:
    """Returns whether codes uint32 `[u, w]` are distinct and in ascending order."""
    tied: Any = slice(1, None)  # positions of codes that equal their predecessors in all words so far
    before: Any = slice(None, -1)
    for word in codes.T:
        if (word[tied] < word[before]).any():
            return False
        equal = np.flatnonzero(word[tied] == word[before])
        tied = equal + 1 if isinstance(tied, slice) else tied[equal]
        before = tied - 1
    return not len(tied)
