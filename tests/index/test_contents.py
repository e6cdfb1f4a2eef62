"""The checks of loaded arrays."""

import numpy as np
import pytest
from samples import collection

import jaxhash as jh
from jaxhash.files.archive import Archive, write_archive
from jaxhash.index.hash_index import sorted_arrays


def refuse(tmp_path, **changes):
    """Returns why `load_index` refuses a file with a right digest and changed arrays."""
    table, offsets, ids = sorted_arrays(collection(17, 20).index)
    arrays = {"index.codes": table, "index.offsets": offsets, "index.ids": ids}
    meta = changes.pop("meta", {"index": {"num_bits": 17, "multi": False}})
    write_archive(tmp_path / "forged", Archive("index", meta, arrays | changes))
    with pytest.raises(jh.CorruptFileError) as caught:
        jh.load_index(tmp_path / "forged")
    return str(caught.value)


def test_arrays_that_no_build_gives_are_refused(tmp_path):
    table, offsets, ids = sorted_arrays(collection(17, 20).index)
    swapped, doubled, padded = table[::-1].copy(), table.copy(), table.copy()
    doubled[1] = doubled[0]
    padded[0, 0] |= 1
    late, short = offsets.copy(), offsets.copy()
    late[0], short[-1] = 1, 19
    falling = offsets.copy()
    falling[1] = falling[2] + 1
    assert "ascending" in refuse(tmp_path, **{"index.codes": swapped})
    assert "ascending" in refuse(tmp_path, **{"index.codes": doubled})
    assert "padding bits" in refuse(tmp_path, **{"index.codes": padded})
    assert "offsets must rise" in refuse(tmp_path, **{"index.offsets": late})
    assert "offsets must rise" in refuse(tmp_path, **{"index.offsets": short})
    assert "offsets must rise" in refuse(tmp_path, **{"index.offsets": falling})
    assert "don't match" in refuse(tmp_path, **{"index.offsets": offsets[:-1]})
    assert "more than once" in refuse(tmp_path, **{"index.ids": np.zeros(20, np.int32)})
    assert "between 0" in refuse(tmp_path, **{"index.ids": ids - 30_000})
    assert "don't match" in refuse(tmp_path, **{"index.ids": ids.astype(np.uint32)})


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"multi": False}, "num_bits"),
        ({"num_bits": 0, "multi": False}, "num_bits"),
        ({"num_bits": 40, "multi": False}, "words"),
        ({"num_bits": 17}, "KeyError('multi')"),
        ({"num_bits": 17, "multi": None}, "multi must be true or false, got None"),
        ({"num_bits": 17, "multi": 1}, "multi must be true or false, got 1"),
    ],
)
def test_a_header_without_its_two_fields_is_refused(meta, words, tmp_path):
    assert words in refuse(tmp_path, meta={"index": meta})


def test_ids_that_do_not_ascend_within_a_code_are_refused(tmp_path):
    arrays = {
        "index.codes": np.array([[0], [1 << 31]], np.uint32),
        "index.offsets": np.array([0, 2, 4], np.int32),
        "index.ids": np.array([5, 7, 1, 2], np.int32),
    }
    write_archive(tmp_path / "f", Archive("index", {"index": {"num_bits": 1, "multi": False}}, arrays))
    assert jh.describe(jh.load_index(tmp_path / "f")).num_items == 4
    arrays["index.ids"] = np.array([7, 5, 1, 2], np.int32)
    write_archive(tmp_path / "f", Archive("index", {"index": {"num_bits": 1, "multi": False}}, arrays))
    with pytest.raises(jh.CorruptFileError, match="ascend within"):
        jh.load_index(tmp_path / "f")
