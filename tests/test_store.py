"""The store keeps places stable, reads what was written, and never passes damage off as motion."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from pathlib import Path

import google_crc32c
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore
from zstandard import ZstdCompressor

from moclip.errors import StoreError
from moclip.files.atomic import write_atomically
from moclip.files.folders import Folder
from moclip.store.layout import (
    CHUNK_FRAMES,
    MISSING,
    PARTS_FOLDER,
    UNWRITTEN,
    drop_store,
    encode_shard,
    field_array_options,
    shard_name,
    write_metadata,
)
from moclip.store.plain_reader import PlainReader
from moclip.store.reader import FieldReader
from moclip.store.slots import plan_slots
from moclip.store.table import field_checksum, read_table, rows_of, write_table
from moclip.store.verify import verify_store

GRID = (3, 4)
SHARD = 64
I, P = ord("I"), ord("P")  # noqa: E741

# -------------------------------------------------------------------------------------------- writing, reading

LENGTHS = {"a": 30, "b": 20, "c": 13, "long": 100}


def make_store(folder: Path) -> tuple[Path, pd.DataFrame, dict[str, np.ndarray]]:
    """A store of random fields as `extract` would write it."""
    rng = np.random.default_rng(0)
    slots = plan_slots(pd.DataFrame({"id": list(LENGTHS), "md5": "m", "frames": list(LENGTHS.values())}), shard=SHARD)
    frames = int(-(-(slots["offset"] + slots["slots"]).max() // SHARD)) * SHARD
    whole = np.full((frames, 2, *GRID), MISSING, np.int8)
    types = np.zeros(frames, np.uint8)
    fields, rows = {}, []
    for row in rows_of(slots):
        length = LENGTHS[row.id]
        fields[row.id] = rng.integers(-127, 128, (length, 2, *GRID)).astype(np.int8)
        fields[row.id][length // 2] = 0  # a still frame is stored as such
        here = slice(row.offset, row.offset + length)
        whole[here], types[here] = fields[row.id], [I] + [P] * (length - 1)
        check = field_checksum(fields[row.id], types[here])
        rows.append({**row._asdict(), "md5": "m", "length": length, "backend": "pyav", "status": "ok"})
        rows[-1] |= {"reason": "", "checksum": check, "key": "k"}
    rows.append({**rows[0], "id": "broken", "status": "failed", "reason": "it is torn", "length": 0})
    path = folder / "mv.zarr"
    for number in range(frames // SHARD):
        piece = whole[number * SHARD : (number + 1) * SHARD]
        write_atomically(path / shard_name(number), encode_shard(piece))
    write_metadata(path, types, GRID, SHARD, {"units": "px", "scale": 0.5})
    write_table(folder / "mv.parquet", pd.DataFrame(rows))
    return path, read_table(folder / "mv.parquet"), fields


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, pd.DataFrame, dict[str, np.ndarray]]:
    return make_store(tmp_path)


def test_reader_gives_back_every_field(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    path, table, fields = made
    reader = FieldReader(path, table)
    for name, expected in fields.items():
        np.testing.assert_array_equal(reader.read_video(name), expected)
        assert reader.length(name) == len(expected) == len(reader.frame_types(name))
        assert bytes(reader.frame_types(name)[:2]) == b"IP"
        frames = reader.offset(name) + np.array([[4, 0, 2], [1, 1, 3]])
        batch = reader.read(frames)
        assert batch.shape == (2, 3, 2, *GRID)
        np.testing.assert_array_equal(batch, expected[frames - reader.offset(name)])
    whole = reader.read_all()
    np.testing.assert_array_equal(whole[reader.offset("long") :][:100], fields["long"])
    assert reader.attributes["units"] == "px"
    assert reader.grid == GRID
    assert len(reader) == len(whole)


def test_reader_is_a_data_set_for_torch(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    path, table, fields = made
    reader = FieldReader(path, table)
    start = reader.offset("a")
    np.testing.assert_array_equal(reader[start + 3], fields["a"][3])
    items = reader.__getitems__([start + 3, start])
    np.testing.assert_array_equal(items, fields["a"][[3, 0]])
    pending = [reader.read_async(np.array([start + n])) for n in range(3)]
    np.testing.assert_array_equal(np.concatenate([p.result() for p in pending]), fields["a"][:3])
    assert reader.read(np.zeros((0, 3), np.int64)).shape == (0, 3, 2, *GRID)


def test_shard_is_what_zarr_itself_would_write(tmp_path: Path) -> None:
    fields = np.random.default_rng(1).integers(-9, 9, (SHARD, 2, *GRID)).astype(np.int8)
    fields[16:32] = MISSING
    array = zarr.create_array(
        LocalStore(tmp_path / "x"), shape=fields.shape, dtype="int8", **field_array_options(fields.shape, SHARD)
    )
    array[:] = fields
    assert (tmp_path / "x/c/0/0/0/0").read_bytes() == encode_shard(fields)


def test_store_opens_as_plain_zarr(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    path, table, fields = made
    group = zarr.open_group(path, mode="r")
    array, types = group["field"], group["frame_type"]
    offset = FieldReader(path, table).offset("b")
    np.testing.assert_array_equal(array[offset : offset + 20], fields["b"])
    assert array.metadata.dimension_names == ("frame", "component", "row", "column")
    assert types.metadata.dimension_names == ("frame",)
    assert types[offset] == I
    assert array.attrs["scale"] == 0.5


def test_store_opens_in_xarray(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    path, table, fields = made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xarray.open_zarr(path)
    assert opened["field"].dims == ("frame", "component", "row", "column")
    assert opened["frame_type"].dims == ("frame",)
    assert opened["field"].attrs["scale"] == 0.5
    offset = FieldReader(path, table).offset("b")
    read = opened["field"].isel(frame=slice(offset, offset + 20)).values
    assert read.dtype == np.int8
    np.testing.assert_array_equal(read, fields["b"])


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    make_store(tmp_path / "one")
    make_store(tmp_path / "two")
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "two")
    )
    assert one == two
    assert not any(".tmp" in str(path) for path in one)


def test_reader_travels_to_spawned_processes(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    path, table, fields = made
    reader = FieldReader(path, table)
    reader.read_video("a")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(reader.read_video, ("b",)), fields["b"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read_video("b"), fields["b"])


@pytest.mark.parametrize("parent_reads", [True, False])
def test_reader_works_in_forked_processes(
    parent_reads: bool, made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]
) -> None:
    path, table, fields = made
    reader = FieldReader(path, table)
    if parent_reads:
        reader.read_video("a")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply_async(reader.read_video, ("long",)).get(20), fields["long"])


# --------------------------------------------------------------------------------------------------- damage


def test_unknown_and_failed_videos_are_named(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    reader = FieldReader(*made[:2])
    with pytest.raises(StoreError, match="no motion field of the video nobody"):
        reader.read_video("nobody")
    with pytest.raises(StoreError, match=r"broken: its extraction failed \(it is torn\)"):
        reader.offset("broken")


def test_frame_of_no_video_is_refused(made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]) -> None:
    reader = FieldReader(*made[:2])
    with pytest.raises(StoreError, match="belongs to no video"):
        reader.read(np.array([reader.offset("c") + 13]))
    with pytest.raises(StoreError, match="no frame"):
        reader.read(np.array([len(reader)]))
    with pytest.raises(StoreError, match="no frame -1"):
        reader.read(np.array([-1]))


@pytest.mark.parametrize("cache_bytes", [0, 64 << 20])
def test_missing_shard_is_an_error_that_names_its_videos(
    cache_bytes: int, made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]
) -> None:
    path, table, fields = made
    (path / shard_name(shard_of(table, "a"))).unlink()
    reader = FieldReader(path, table, cache_bytes)
    with pytest.raises(StoreError, match="missing or damaged; it holds the videos a, b") as caught:
        reader.read_video("b")
    assert "run the extraction again" in (caught.value.fix or "")
    np.testing.assert_array_equal(reader.read_video("long"), fields["long"])


def shard_of(table: pd.DataFrame, name: str) -> int:
    return int(table.loc[table["id"] == name, "shard"].tolist()[0])


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_a_flipped_byte_in_the_store_is_an_error_that_names_the_clip(seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path, table, _ = make_store(Path(folder))
        assert verify_store(path, table) == []
        file = path / shard_name(shard_of(table, "long") + 1)
        flip(file, seed % file.stat().st_size)
        problems = verify_store(path, table)
        assert [line.split(":")[0] for line in problems] == ["long"]
        with pytest.raises(StoreError, match="it holds the videos long"):
            FieldReader(path, table).read_video("long")


def test_verify_notices_swapped_fields(
    made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]],
) -> None:
    path, table, fields = made
    piece = np.full((SHARD, 2, *GRID), MISSING, np.int8)
    piece[: len(fields["c"])] = -fields["c"]
    number = shard_of(table, "c")
    write_atomically(path / shard_name(number), encode_shard(piece))
    assert verify_store(path, table) == ["c: the stored fields differ from the extracted ones (checksum)"]


@pytest.mark.parametrize("chunk", [b"not zstd", ZstdCompressor().compress(bytes(50)), b""])
def test_a_chunk_that_holds_no_fields_is_damage_although_its_checksum_is_right(
    chunk: bytes, made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]]
) -> None:
    path, table, fields = made
    number = shard_of(table, "c")
    index = np.full((SHARD // CHUNK_FRAMES, 2), UNWRITTEN, "<u8")
    index[0] = 0, len(chunk) + 4
    parts = (part + google_crc32c.value(part).to_bytes(4, "little") for part in (chunk, index.tobytes()))
    write_atomically(path / shard_name(number), b"".join(parts))
    assert [line.split(":")[0] for line in verify_store(path, table)] == ["c"]
    with pytest.raises(StoreError, match="a shard is damaged"):
        PlainReader(Folder(path), GRID, SHARD).read(np.array([number * SHARD]))
    np.testing.assert_array_equal(FieldReader(path, table).read_video("long"), fields["long"])


def test_a_missing_store_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no table of motion fields"):
        FieldReader(tmp_path / "mv.zarr", tmp_path / "mv.parquet")
    (tmp_path / "mv.parquet").write_text("nonsense")
    with pytest.raises(StoreError, match="not a table"):
        read_table(tmp_path / "mv.parquet")


def test_interrupted_extraction_is_not_read(
    made: tuple[Path, pd.DataFrame, dict[str, np.ndarray]],
) -> None:
    path, table, _ = made
    (path / PARTS_FOLDER).mkdir()
    with pytest.raises(StoreError, match="is unfinished"):
        FieldReader(path, table)


def test_folder_of_something_else_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is not a store"):
        drop_store(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
