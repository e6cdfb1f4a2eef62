"""An index in shards beside the whole one, on 8 devices of the host: run by `test_devices.py` in its own process."""

import gc
import os
import re
import threading
import weakref
from functools import partial

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversions import make_cases
from kinds import make_cases as make_kinds
from samples import collection, same

import jaxhash as jh
from jaxhash.core.batching import one_at_a_time
from jaxhash.files import archive
from jaxhash.index import parts, sharding
from jaxhash.index.hash_index import cache_of
from jaxhash.query import radius_search_several, search_several
from jaxhash.query.bags import find_best
from jaxhash.query.plan import LIMITS

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
AUTO = jax.sharding.AxisType.Auto


def mesh_of(*lengths, names=("shards", "copies")):
    devices = np.array(jax.devices()[: int(np.prod(lengths))]).reshape(lengths)
    return jax.sharding.Mesh(devices, names[: len(lengths)], axis_types=(AUTO,) * len(lengths))


def answers(index, queries, k, radius):
    return (
        jh.search(index, queries, k=k),
        jh.radius_search(index, queries, radius=radius),
        jh.radius_search_padded(index, queries, radius=radius, max_results=k),
    )


@pytest.mark.parametrize(
    ("num_shards", "n", "num_bits"),
    [(1, 5000, 24), (3, 5000, 24), (8, 5000, 24), (8, 5, 24), (4, 5, 24), (2, 0, 24), (2, 301, 64), (3, 301, 64)],
)
def test_shards_answer_as_the_whole(num_shards, n, num_bits):
    index, queries, *_ = collection(num_bits, n, 9)
    sharded = jh.shard_index(index, mesh_of(num_shards))
    assert sharded.num_shards == num_shards
    assert int(np.asarray(sharded.num_items).sum()) == n
    for found, expected in zip(answers(sharded, queries, 20, 3), answers(index, queries, 20, 3), strict=True):
        same(found, expected)


def test_any_k_and_any_shape_of_queries():
    index, queries, *_ = collection(64, 301, 9)
    sharded = jh.shard_index(index, mesh_of(3))
    for k, shaped in [(1, queries[0]), (400, queries), (400, queries[:0]), (400, queries.reshape(3, 3, 2))]:
        same(jh.search(sharded, shaped, k=k), jh.search(index, shaped, k=k))
    many = np.tile(queries, (60, 1))
    same(jh.search(sharded, many, k=3), jh.search(index, many, k=3))


@pytest.mark.parametrize("n", [0, 1, 5, 5000])
def test_shards_are_described_as_the_whole(n):
    index = collection(24, n).index
    sharded = jh.shard_index(index, mesh_of(4))
    assert jh.describe(sharded) == jh.describe(index)


def test_shards_are_prepared_one_by_one():
    codes = np.random.default_rng(0).integers(0, 2**32, (400_000, 1), dtype=np.uint32)
    sharded = jh.shard_index(jh.build_index(codes, 32), mesh_of(2))
    assert jh.describe(jh.prepare(sharded, k=1)).tables == ()
    tables = jh.describe(jh.prepare(sharded, radius=2)).tables
    each = [jh.describe(shard).tables for shard in sharding.local_shards(sharded).values()]
    assert [[table[:2] for table in row] for row in each] == [[table[:2] for table in tables]] * 2
    assert sum(row[0].num_bytes for row in each) == tables[0].num_bytes


@pytest.mark.parametrize(("n", "num_tables"), [(2, 1), (3000, 1), (3000, 4)])
def test_shards_are_probed_as_the_whole(n, num_tables):
    index, queries, *_ = collection(33, n, 9)
    sharded = jh.shard_index(index, mesh_of(4, 2))
    tables = jh.build_tables(sharded, radius=4, num_tables=num_tables)
    for array in (tables.bitmap, tables.directory, tables.starts):
        assert {len(piece.data) for piece in array.addressable_shards} == {len(array) // 4}
    search = partial(jh.radius_search_padded, radius=4, max_results=20)
    found = search(sharded, queries, tables=tables, max_candidates=4096)
    assert found.complete.all()
    same(found, search(index, queries))
    inside = jax.jit(lambda *args: search(*args[:2], tables=args[2], max_candidates=4096))
    same(inside(sharded, queries, tables), found)
    with pytest.raises(ValueError, match="tables must be built from this index"):
        search(index, queries, tables=tables)


@pytest.mark.parametrize("method", ["auto", "scan", "probe", "multi_index"])
def test_shards_find_the_same_by_every_method(method):
    index, queries, *_ = collection(33, 3000, 9)
    found = jh.radius_search(jh.shard_index(index, mesh_of(4)), queries, radius=4, method=method)
    same(found, jh.radius_search(index, queries, radius=4))


def test_one_code_for_all_items_leaves_the_other_shards_empty():
    index = jh.build_index(np.zeros((3000, 1), np.uint32), 24)
    sharded = jh.shard_index(index, mesh_of(8))
    assert sorted(np.asarray(sharded.num_codes)) == [0] * 7 + [1]
    for found, expected in zip(*(answers(i, np.zeros((2, 1), np.uint32), 9, 0) for i in (sharded, index)), strict=True):
        same(found, expected)


def test_shards_inside_the_callers_jit_and_vmap():
    index, queries, *_ = collection(64, 301, 9)
    sharded = jh.shard_index(index, mesh_of(4))
    expected = jh.search(index, queries, k=5)
    same(jax.jit(partial(jh.search, k=5))(sharded, queries), expected)
    same(jax.jit(lambda x: jh.search(sharded, x, k=5))(queries), expected)
    same(jax.jit(lambda: jh.search(sharded, queries, k=5))(), expected)
    same(jax.vmap(partial(jh.search, k=5), in_axes=(None, 0))(sharded, queries), expected)
    padded = partial(jh.radius_search_padded, radius=5, max_results=4)
    same(jax.jit(padded)(sharded, queries), padded(index, queries))


def test_shards_are_copied_along_other_axes_of_the_mesh():
    index, queries, *_ = collection(64, 301, 9)
    for lengths in ((2, 4), (4, 2)):
        sharded = jh.shard_index(index, mesh_of(*lengths))
        for found, expected in zip(answers(sharded, queries, 7, 9), answers(index, queries, 7, 9), strict=True):
            same(found, expected)


def test_retrieving_from_shards():
    model = jh.Autoencoder(12, 20, (16,))
    images = np.random.default_rng(0).integers(0, 256, (500, 12), dtype=np.uint8)
    whole = jh.Retriever(model, jh.build_index(jh.encode(model, images), 20))
    sharded = jh.Retriever(model, jh.shard_index(whole.index, mesh_of(8)))
    expected = jh.retrieve(whole, images[:37], k=5)
    same(jh.retrieve(sharded, images[:37], k=5), expected)
    same(jax.jit(partial(jh.retrieve, k=5))(sharded, images[:37]), expected)


@pytest.mark.parametrize("n", [5000, 50_000])
def test_only_k_items_a_device_travel(n):
    index, queries, *_ = collection(64, n, 9)
    sharded = jh.shard_index(index, mesh_of(8))
    text = jax.jit(partial(jh.search, k=5)).lower(sharded, queries).compile().as_text()
    operations = r"all-gather|all-reduce|all-to-all|reduce-scatter|collective-\w+|send|recv"
    travelling = re.findall(rf"= (\S+) ({operations})(?:-start)?\(", text)
    # From each of 8 devices, a distance and an id for each of 5 items and 9 queries.
    assert [(shape.split("{")[0], name) for shape, name in travelling] == [(f"s32[8,{9 * 5 * 2}]", "all-gather")]


def test_one_batch_shape_is_compiled_once():
    index, queries, *_ = collection(64, 301, 9)
    sharded, traces = jh.shard_index(index, mesh_of(8)), 0

    @jax.jit
    def nearest(index, queries):
        nonlocal traces
        traces += 1
        return jh.search(index, queries, k=3)

    nearest(sharded, queries)
    nearest(jh.shard_index(collection(64, 290).index, mesh_of(8)), queries)
    assert traces == 1


def test_threads_may_share_shards():
    index, queries, *_ = collection(64, 5000, 600)
    sharded = jh.shard_index(index, mesh_of(8))
    expected, found = jh.search(index, queries, k=5), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: jh.search(sharded, queries, k=5)}), daemon=True)
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    for result in found.values():
        same(result, expected)


def test_queries_on_another_device_are_moved_to_the_index():
    index, queries, *_ = collection(64, 301, 9)
    elsewhere = jax.device_put(queries, jax.devices()[-1])
    assert elsewhere.devices() != index.codes.devices()
    same(jh.search(index, elsewhere, k=3), jax.device_put(jh.search(index, queries, k=3)))


@pytest.mark.parametrize("lead", [(), (3,), (512,)])
def test_results_are_on_the_device_of_index_and_queries(lead):
    device = jax.devices()[-1]
    for name, case in make_kinds(lead, partial(jax.device_put, device=device)).items():
        expected = case.function(case.queries, *case.beside)
        found = case.function(jax.device_put(case.queries, device), *case.beside)
        assert {array.sharding for array in found} == {jax.sharding.SingleDeviceSharding(device)}, name
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_conversions_leave_codes_on_their_device():
    device = jax.devices()[-1]
    for convert, arrays, expected in make_cases((3,), 30).values():
        found = convert(*jax.device_put(arrays, device))
        assert found.devices() == {device}
        np.testing.assert_array_equal(found, expected)


def test_shards_are_searched_by_weights_as_the_whole():
    index, queries, *_ = collection(64, 301, 9)
    weights = np.random.default_rng(0).integers(0, 16, (len(queries), 64))
    expected = jh.search(index, queries, weights=weights, k=7)
    for num_shards in (1, 3, 8):
        sharded = jh.shard_index(index, mesh_of(num_shards))
        same(jh.search(sharded, queries, weights=weights, k=7), expected)
        same(jax.jit(lambda s, q, w: jh.search(s, q, weights=w, k=7))(sharded, queries, weights), expected)


def test_shards_are_searched_among_allowed_items_as_the_whole():
    index, queries, *_ = collection(64, 301, 9)
    sharded = jh.shard_index(index, mesh_of(8))
    masks = [np.random.default_rng(0).random(903) < share for share in (0.5, 0, 1, 0.01)]
    weights = np.random.default_rng(0).integers(0, 16, (len(queries), 64))
    for allowed in masks:
        for search in (
            partial(jh.search, k=7),
            partial(jh.radius_search, radius=5),
            partial(jh.radius_search_padded, radius=5, max_results=4),
            partial(jh.search, weights=weights, k=7),
        ):
            same(search(sharded, queries, allowed=allowed), search(index, queries, allowed=allowed))
    traced = jax.jit(lambda index, allowed: jh.search(index, queries, k=7, allowed=allowed))
    for allowed in masks:
        same(traced(sharded, allowed), jh.search(index, queries, k=7, allowed=allowed))
    largest = int(np.asarray(index.ids).max())
    with pytest.raises(ValueError, match=f"allowed has {largest} entries, but the index holds the id {largest}"):
        jh.search(sharded, queries, k=7, allowed=masks[0][:largest])


def test_the_filter_of_the_last_mask_is_kept():
    index, queries, *_ = collection(64, 301, 700)
    sharded, allowed = jh.shard_index(index, mesh_of(4, 2)), np.arange(903) % 3 == 0
    expected, filters = jh.search(index, queries, k=3, allowed=allowed), []
    for mask in (allowed, allowed.copy()):
        same(jh.search(sharded, queries, k=3, allowed=mask), expected)
        filters.append(cache_of(sharded).last_filter[1])
    assert filters[0] is filters[1]
    same(jh.search(sharded, queries, k=3, allowed=~allowed), jh.search(index, queries, k=3, allowed=~allowed))


def several_codes():
    """Items with several codes each, often in different shards, and bags of codes to look for."""
    rng = np.random.default_rng(0)
    codes = np.asarray(jh.pack_bits(rng.random((2000, 20)) < 0.2))
    return jh.build_index(codes, 20, ids=rng.integers(0, 1200, 2000), multi=True), codes[:30].reshape(3, 10, 1)


def test_shards_with_several_codes_an_item_answer_as_the_whole(tmp_path):
    index, bags = several_codes()
    sharded = jh.shard_index(index, mesh_of(3))
    allowed = np.random.default_rng(0).random(1200) < 0.5
    searches = (
        partial(jh.search, k=50, allowed=allowed),
        partial(jh.radius_search, radius=4),
        partial(jh.radius_search_padded, radius=4, max_results=9),
    )
    for search in searches:
        same(search(sharded, bags[0]), search(index, bags[0]))
    for mask in (None, allowed):
        found = jh.bag_search(sharded, bags, radius=4, k=300, allowed=mask)
        same(found, jh.bag_search(index, bags, radius=4, k=300, allowed=mask))
        few = find_best(sharded, bags[0], 4, 300, mask, LIMITS._replace(bag_codes=4, bag_ids=600))
        same(few, (found.scores[0], found.ids[0]))
    assert jh.describe(sharded)[:6] == jh.describe(index)[:6]
    jh.save_index(tmp_path / "index", sharded)
    same(jh.load_index(tmp_path / "index"), index)
    again = jh.load_sharded_index(tmp_path / "index", sharded.mesh)
    same(again, sharded)
    assert again.multi


def test_shards_are_searched_as_one_with_other_indexes():
    a, queries, *_ = collection(64, 301, 9)
    b = collection(64, 200).index
    sharded = jh.shard_index(a, mesh_of(3))
    masks = [np.arange(903) % 2 == 0, None]
    for search in (partial(search_several, k=20), partial(radius_search_several, radius=9, method="probe")):
        find = partial(search, queries=queries, id_offsets=[2**31, 0])
        for allowed in (None, masks):
            same(find([sharded, b], allowed=allowed), find([a, b], allowed=allowed))
    assert jh.describe(sharded).tables


def test_an_error_in_one_shard_reaches_the_caller():
    index, queries, *_ = collection(64, 301, 9)
    sharded = jh.shard_index(index, mesh_of(4))
    shards = sharding.local_shards(sharded)
    whole, shards[2] = shards[2], jax.tree.map(jnp.copy, shards[2])
    shards[2].codes.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        jh.radius_search(sharded, queries, radius=3, method="scan")
    shards[2] = whole
    same(jh.radius_search(sharded, queries, radius=3), jh.radius_search(index, queries, radius=3))


def test_a_failed_batch_leaves_the_way_free():
    def fail(part):
        raise RuntimeError(part)

    with pytest.raises(RuntimeError, match="first"):
        one_at_a_time(fail, ["first", "second"])
    assert one_at_a_time(len, ["next"]) == [4]


def test_what_cannot_be_sharded_is_refused():
    index, queries, *_ = collection(64, 301, 9)
    sharded = jh.shard_index(index, mesh_of(8))
    explicit = jax.make_mesh((8,), ("shards",), axis_types=(jax.sharding.AxisType.Explicit,))
    for wrong, message in [
        (lambda: jh.shard_index(index, explicit), "must be of the type Auto"),
        (
            lambda: jh.shard_index(index, mesh_of(8), axis_name="devices"),
            "axis_name must be an axis of the mesh, shards, got",
        ),
        (lambda: jh.search(sharded, queries, k=1, method="probe"), "probe is for a HashIndex"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
    for wrong, message in [
        (lambda: jh.shard_index(queries, mesh_of(8)), "index must be a HashIndex"),
        (lambda: jh.shard_index(index, jax.devices()), "mesh must be a jax.sharding.Mesh"),
        (lambda: jh.add_items(sharded, queries), "shard the whole index again"),
        (lambda: jh.remove_items(sharded, [0]), "shard the whole index again"),
        (lambda: jh.merge_indexes(index, sharded), "b must be a HashIndex, got ShardedIndex"),
        (lambda: jh.duplicate_groups(sharded, radius=2), "load_index for an index saved in parts"),
        (lambda: jh.save_retriever("x.npz", jh.Retriever(jh.Autoencoder(9, 64, ()), sharded)), "save_index, and make"),
        (lambda: jh.describe(queries), "index must be a HashIndex or a ShardedIndex, got ndarray"),
    ]:
        with pytest.raises(TypeError, match=message):
            wrong()


def test_a_shard_larger_than_a_device_can_address_is_refused():
    with pytest.raises(ValueError, match="more than the 2\\^31 words"):
        sharding.assemble_shards(lambda number: None, 2**30, 2**30, 64, mesh_of(8), "shards", multi=False)


def parts_of(path):
    return sorted(file.name for file in path.parent.iterdir() if file != path)


@pytest.mark.parametrize("n", [5000, 301, 5, 0])
def test_parts_load_onto_any_number_of_devices(n, tmp_path):
    index, queries, *_ = collection(24, n, 9)
    expected, path = jh.search(index, queries, k=20), tmp_path / "index"
    jh.save_index(path, jh.shard_index(index, mesh_of(3)))
    assert len(parts_of(path)) == min(n, 3)
    jax.tree.map(np.testing.assert_array_equal, jh.load_index(path), index)
    for num_shards in (1, 2, 8):
        sharded = jh.load_sharded_index(path, mesh_of(num_shards))
        assert sharded.num_shards == num_shards
        assert int(np.asarray(sharded.num_items).sum()) == n
        same(jh.search(sharded, queries, k=20), expected)
    jh.save_index(path, index)
    same(jh.search(jh.load_sharded_index(path, mesh_of(8)), queries, k=20), expected)


def test_reloaded_parts_have_the_same_arrays_and_files(tmp_path):
    sharded = jh.shard_index(collection(24, 5000).index, mesh_of(4))
    path, again = tmp_path / "index", tmp_path / "again" / "index"
    again.parent.mkdir()
    jh.save_index(path, sharded)
    loaded = jh.load_sharded_index(path, mesh_of(4))
    jax.tree.map(np.testing.assert_array_equal, loaded, sharded)
    jh.save_index(again, loaded)
    assert parts_of(again) == [name for name in parts_of(path) if name != "again"]
    assert again.read_bytes() == path.read_bytes()


def test_no_more_is_in_memory_than_the_parts_of_one_shard(tmp_path, monkeypatch):
    path, seen, most = tmp_path / "index", [], []
    jh.save_index(path, jh.shard_index(collection(24, 5000).index, mesh_of(8)))
    read_sorted = parts.read_sorted

    def counting(*arguments):
        gc.collect()
        table, *rest = read_sorted(*arguments)
        seen.append(weakref.ref(table))
        most.append(sum(known() is not None for known in seen))
        return table, *rest

    monkeypatch.setattr(parts, "read_sorted", counting)
    jh.load_sharded_index(path, mesh_of(4))
    assert len(seen) == 8
    assert max(most) <= 3  # those of one shard, and the last one before


def test_the_old_version_stays_until_the_list_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "index"
    old, new = collection(24, 301).index, collection(24, 290).index
    jh.save_index(path, jh.shard_index(old, mesh_of(3)))
    files = parts_of(path)

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(parts, "_save_manifest", fail)
        with pytest.raises(OSError, match="disk full"):
            jh.save_index(path, jh.shard_index(new, mesh_of(2)))
    assert set(files) < set(parts_of(path))
    jax.tree.map(np.testing.assert_array_equal, jh.load_index(path), old)
    jh.save_index(path, jh.shard_index(new, mesh_of(2)))
    jax.tree.map(np.testing.assert_array_equal, jh.load_index(path), new)
    assert len(parts_of(path)) == 2


def test_a_damaged_exchanged_or_missing_part_is_noticed(tmp_path):
    path, other = tmp_path / "index", tmp_path / "index2"
    jh.save_index(path, jh.shard_index(collection(24, 301).index, mesh_of(3)))
    jh.save_index(other, jh.shard_index(collection(24, 290).index, mesh_of(2)))
    mine, theirs = (sorted(tmp_path.glob(f"{name}.*"))[1] for name in ("index", "index2"))
    whole = mine.read_bytes()
    for content, message in [
        (whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], "damaged|digest"),
        (theirs.read_bytes(), "is not the saved file"),
        (None, "is missing"),
    ]:
        mine.unlink() if content is None else mine.write_bytes(content)
        for load in (jh.load_index, partial(jh.load_sharded_index, mesh=mesh_of(2))):
            with pytest.raises(jh.CorruptFileError, match=message):
                load(path)


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("starts", [0, 100, 290]),
        ("ranks", [0, 2, 1]),
        ("items", [5, 6, 7]),
        ("parts", ["../index"]),
        ("parts", None),
        ("multi", 0),
        ("multi", None),
    ],
)
def test_a_forged_list_is_refused(name, forged, tmp_path):
    path = tmp_path / "index"
    jh.save_index(path, jh.shard_index(collection(24, 301).index, mesh_of(3)))
    listing = archive.read_archive(path, parts.PARTS)
    if name in listing.meta["index"]:
        listing.meta["index"][name] = forged
    else:
        listing.arrays[name] = np.array(forged, np.int32)
    archive.write_archive(path, listing)
    with pytest.raises(jh.CorruptFileError, match="list of parts"):
        jh.load_index(path)


def test_marks_that_do_not_fit_the_parts_are_refused(tmp_path):
    path = tmp_path / "index"
    jh.save_index(path, jh.shard_index(jh.build_index(np.zeros((9, 1), np.uint32), 24), mesh_of(2)))
    listing = archive.read_archive(path, parts.PARTS)
    listing.arrays["items"] = np.array([0, 8], np.int32)
    archive.write_archive(path, listing)
    with pytest.raises(jh.CorruptFileError, match="marks don't match its parts"):
        jh.load_sharded_index(path, mesh_of(2))


def test_codes_spread_over_devices_give_the_same_results():
    codes = np.random.default_rng(0).integers(0, 2**32, (504, 2), dtype=np.uint32)
    spread = jax.device_put(codes, jax.sharding.NamedSharding(mesh_of(8), jax.sharding.PartitionSpec("shards")))
    assert len(spread.sharding.device_set) == 8
    index = jh.build_index(codes, 64)
    jax.tree.map(np.testing.assert_array_equal, jh.build_index(spread, 64), index)
    same(jh.search(index, spread, k=3), jh.search(index, codes, k=3))
    same(jh.add_items(index, spread[:8], ids=range(600, 608)), jh.add_items(index, codes[:8], ids=range(600, 608)))
