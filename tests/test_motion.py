"""The field is what the definition says, cell by cell; traces lead back to the I-frame; int8 loses half a level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moclip.motion.accumulate import ACCUMULATE, accumulate_grid, accumulate_pixels, last_trace
from moclip.motion.field import motion_field
from moclip.motion.quantise import dequantise, quantise
from moclip.motion.windows import motion_fields
from moclip.video import vector_records
from moclip.video.decoding import B_FRAME, I_FRAME, P_FRAME
from moclip.video.geometry import Geometry
from moclip.video.vector_records import RECORD, VECTOR_COLUMNS, DecodedFrame, Vectors, gather_windows
from moclip.video.vectors import read_vectors
from tests import reference
from tests.clips import encode, moving_texture

I, P, B = I_FRAME, P_FRAME, B_FRAME  # noqa: E741


def frames_of(vectors: Vectors) -> list[reference.Frame]:
    """The vectors as the reference wants them."""
    picture = np.zeros((vectors.height, vectors.width, 3), np.uint8)
    return [
        reference.Frame(picture, chr(kind), vectors.blocks[vectors.frame == number].tolist())
        for number, kind in enumerate(vectors.frame_types)
    ]


@st.composite
def frames_of_blocks(draw: st.DrawFn, frames: int = 2) -> Vectors:
    """Macroblocks as codecs make them: each intra, or cut into 16x16, 16x8, 8x16 or 8x8, past, future or both.

    In every other video none is cut.
    """
    height, width = draw(st.integers(9, 50)), draw(st.integers(9, 50))
    cuts = draw(st.sampled_from([[(16, 16), (16, 8), (8, 16), (8, 8)], [(16, 16)]]))
    types = [I, *draw(st.lists(st.sampled_from([P, B]), min_size=1, max_size=frames))]
    rows, frame = [], []
    for number, kind in enumerate(types[1:], 1):
        for top in range(0, height, 16):
            for left in range(0, width, 16):
                w, h = draw(st.sampled_from(cuts))
                for y in range(top, top + 16, h):
                    for x in range(left, left + 16, w):
                        sources = draw(st.sampled_from([(), (-1,), (-1,), (1,), (1, -1), (-1, 1)]))
                        for source in sources if kind == B else sources[:1] and (-1,):
                            mx, my = draw(st.tuples(*[st.integers(-40, 40) | st.just(0)] * 2))
                            scale = draw(st.sampled_from([1, 2, 4]))
                            cx, cy = x + w // 2, y + h // 2
                            rows.append([source, w, h, cx + mx // scale, cy + my // scale, cx, cy, mx, my, scale])
                            frame.append(number)
    blocks = np.array(rows, np.int32).reshape(-1, 10)
    return Vectors(blocks, np.array(frame, np.int32), np.array(types, np.uint8), width, height)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    frames_of_blocks(), st.sampled_from([((24, 32), 8), ((30, 22), 8), ((17, 40), 5), ((16, 16), 16), ((12, 10), 8)])
)
def test_field_is_the_definition(vectors: Vectors, grid: tuple[tuple[int, int], int]) -> None:
    canvas, cell = grid
    np.testing.assert_allclose(
        motion_field(vectors, canvas, cell), reference.field(frames_of(vectors), canvas, cell), rtol=0, atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(frames_of_blocks())
def test_field_at_the_pictures_own_size_is_the_definition(vectors: Vectors) -> None:
    canvas = (vectors.height, vectors.width)
    np.testing.assert_allclose(
        motion_field(vectors, canvas), reference.field(frames_of(vectors), canvas, 8), rtol=0, atol=1e-6
    )


class Side(bytes):
    """Motion vectors as PyAV hands over FFmpeg's."""

    @property
    def buffer_size(self) -> int:
        return len(self)


def decoded(vectors: Vectors) -> list[DecodedFrame]:
    """Frames as they come out of the decoder, with these vectors."""
    records = np.zeros(len(vectors.blocks), RECORD)
    for column, name in enumerate(VECTOR_COLUMNS):
        records[name] = vectors.blocks[:, column]
    sides = [Side(records[vectors.frame == number].tobytes()) for number in range(len(vectors.frame_types))]
    geometry = Geometry(vectors.width, vectors.height, vectors.orientation)
    kinds = zip(vectors.frame_types.tolist(), sides, strict=True)
    return [DecodedFrame(None, kind, side or None, kind != I, geometry) for kind, side in kinds]


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(frames_of_blocks(frames=4), st.sampled_from(ACCUMULATE))
def test_leaving_out_still_blocks_keeps_the_fields(vectors: Vectors, accumulate: bool | str) -> None:
    frames, canvas, cell = decoded(vectors), (24, 32), 8
    all_, moving = ([*gather_windows(frames, moving_only)] for moving_only in (False, True))
    np.testing.assert_array_equal(all_[0].blocks, vectors.blocks)
    assert len(moving[0].blocks) <= len(vectors.blocks)
    ((whole, _),) = motion_fields([vectors], canvas, cell, accumulate)
    ((less, _),) = motion_fields(moving, canvas, cell, accumulate)
    np.testing.assert_array_equal(less, whole)


def test_blocks_that_stand_still_are_left_out() -> None:
    def block(source: int, left: int, moved: int) -> list[int]:
        return [source, 16, 16, left + 8, 8, left + 8, 8, moved, 0, 4]

    rows = [block(-1, 0, 0), block(-1, 16, 4), block(-1, 32, 0), block(1, 32, 4), block(-1, 48, 0), block(1, 48, 0)]
    vectors = Vectors(np.array(rows, np.int32), np.zeros(6, np.int32), np.array([B], np.uint8), 64, 16)
    (moving,) = gather_windows(decoded(vectors), moving_only=True)
    np.testing.assert_array_equal(moving.blocks, vectors.blocks[[1, 2, 3]])


def test_content_that_moves_right_and_down_has_positive_displacement(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_texture(8, (240, 320), (4, 2)))
    field = motion_field(read_vectors(path, "pyav"))
    assert field.shape == (8, 2, 30, 40)
    assert not field[0].any()
    np.testing.assert_allclose(np.median(field[1:], axis=(0, 2, 3)), [4, 2], atol=0.5)


def test_field_scales_with_the_picture(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_texture(8, (120, 160), (3, 2)))
    field = motion_field(read_vectors(path, "pyav"), (240, 320))
    np.testing.assert_allclose(np.median(field[1:], axis=(0, 2, 3)), [6, 4], atol=0.5)


def test_macroblocks_outside_the_picture_are_left_out() -> None:
    inside, outside = [-1, 16, 16, 0, 0, 8, 8, -4, 0, 4], [-1, 16, 16, 0, 0, 40, 8, -8, 0, 4]
    vectors = Vectors(np.array([inside, outside], np.int32), np.zeros(2, np.int32), np.array([P]), 16, 16)
    np.testing.assert_array_equal(motion_field(vectors, (16, 16))[0, 0], np.ones((2, 2)))


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("beyond", [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_blocks_just_beyond_the_picture_are_left_out(size: int, beyond: tuple[int, int]) -> None:
    """They must not come round at the other side, nor in the next or last frame."""
    x, y = (32 + size // 2 if step > 0 else -(size // 2) if step < 0 else 16 + size // 2 for step in beyond)
    outside = [-1, size, size, 0, 0, x, y, -8, -8, 4]
    inside = [-1, 8, 8, 0, 0, 4, 4, -4, 0, 4]
    blocks, frame, types = np.array([inside, outside, inside], np.int32), np.array([0, 1, 2]), np.array([P, P, P])
    field = motion_field(Vectors(blocks, frame.astype(np.int32), types, 32, 32), (32, 32), 8)
    expected = np.zeros((3, 2, 4, 4))
    expected[0::2, 0, 0, 0] = 1
    np.testing.assert_array_equal(field, expected)


def test_a_frame_with_more_vectors_than_the_buffer_holds_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[-1, 8, 8, 0, 0, 8 * n + 4, 4, n + 1, 0, 4] for n in range(40)]
    frame = np.array([0] + [1] * 34 + [2] * 5, np.int32)
    given = Vectors(np.array(rows, np.int32), frame, np.array([P, P, P], np.uint8), 320, 8)
    monkeypatch.setattr(vector_records, "WINDOW_BYTES", 2 * RECORD.itemsize)
    found = [*gather_windows(decoded(given))]
    np.testing.assert_array_equal(np.concatenate([window.blocks for window in found]), given.blocks)
    assert [chr(kind) for window in found for kind in window.frame_types] == ["P", "P", "P"]


# ----------------------------------------------------------------------------------------------- accumulation


def slow_trace(fields: np.ndarray, types: list[int], canvas: tuple[int, int], cell: int) -> np.ndarray:
    out = np.zeros_like(fields)
    last = np.zeros(fields.shape[1:])
    for t, kind in enumerate(types):
        for row in range(fields.shape[2]):
            for column in range(fields.shape[3]):
                if kind == I:
                    continue
                dx, dy = fields[t, :, row, column]
                x = (column * cell + min(column * cell + cell, canvas[1])) / 2 - dx
                y = (row * cell + min(row * cell + cell, canvas[0])) / 2 - dy
                if 0 <= x < canvas[1] and 0 <= y < canvas[0]:
                    out[t, :, row, column] = last[:, int(y // cell), int(x // cell)] + (dx, dy)
                else:
                    out[t, :, row, column] = last[:, row, column]
        if kind != B:
            last = out[t].copy()
    return out


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.sampled_from([I, P, P, P, B]), min_size=1, max_size=8), st.integers(0, 8))
def test_traces_lead_back_to_the_i_frame(seed: int, kinds: list[int], cut: int) -> None:
    canvas, cell = (30, 44), 8
    fields = np.random.default_rng(seed).normal(0, 8, (len(kinds), 2, 4, 6))
    types = np.array(kinds, np.uint8)
    whole = accumulate_grid(fields, types, canvas, cell)
    np.testing.assert_allclose(whole, slow_trace(fields, kinds, canvas, cell), rtol=0, atol=1e-9)
    first = accumulate_grid(fields[:cut], types[:cut], canvas, cell)
    before = last_trace(first, types[:cut])
    rest = accumulate_grid(fields[cut:], types[cut:], canvas, cell, before)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


@settings(max_examples=40, deadline=None)
@given(frames_of_blocks(frames=4), st.sampled_from([((24, 32), 8), ((17, 40), 5)]), st.integers(0, 5))
def test_pixels_are_traced_as_coviar_does(vectors: Vectors, grid: tuple[tuple[int, int], int], cut: int) -> None:
    whole, _ = accumulate_pixels(vectors, *grid)
    np.testing.assert_allclose(whole, reference.traced(frames_of(vectors), *grid), rtol=0, atol=1e-6)
    first, last = accumulate_pixels(part_of(vectors, 0, cut), *grid)
    rest, _ = accumulate_pixels(part_of(vectors, cut, 99), *grid, last)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


def part_of(vectors: Vectors, start: int, stop: int) -> Vectors:
    here = (vectors.frame >= start) & (vectors.frame < stop)
    return replace(
        vectors,
        blocks=vectors.blocks[here],
        frame=vectors.frame[here] - start,
        frame_types=vectors.frame_types[start:stop],
    )


def test_steady_motion_adds_up_within_a_gop() -> None:
    fields = np.zeros((5, 2, 30, 40))
    fields[:, 0] = 2.0
    traces = accumulate_grid(fields, np.array([I, P, P, I, P], np.uint8))
    np.testing.assert_array_equal(traces[:, 0, 15, 20], [0, 2, 4, 0, 2])


# ---------------------------------------------------------------------------------------------------- storage


def test_int8_keeps_a_field_within_half_a_level() -> None:
    fields = np.random.default_rng(0).uniform(-20, 20, (3, 2, 4, 5))
    stored = quantise(fields, 20.0)
    assert stored.dtype == np.int8
    np.testing.assert_allclose(dequantise(stored, 20.0), fields, atol=20 / 127 / 2 + 1e-5)


def test_int8_saturates_and_never_reaches_minus_128() -> None:
    stored = quantise(np.array([-1e6, -20.1, 0, 20.1, 1e6]), 20.0)
    np.testing.assert_array_equal(stored, [-127, -127, 0, 127, 127])
