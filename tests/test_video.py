"""What a user meets when videos are probed and read: right numbers, exact vectors and frames, speaking refusals."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from moclip.errors import MoclipError, VideoError
from moclip.video import frames as frames_module
from moclip.video import vector_records
from moclip.video import vectors as vectors_module
from moclip.video.clip_files import VIDEO_SUFFIXES
from moclip.video.decoding import B_FRAME
from moclip.video.frames import _read_in_order, read_frames
from moclip.video.geometry import upright_picture
from moclip.video.h264 import is_idr, packet_croppings, stream_croppings
from moclip.video.mvextractor_backend import InexactError
from moclip.video.probe import probe
from moclip.video.vector_records import VECTOR_COLUMNS
from moclip.video.vectors import choose_backend, has_mvextractor, read_vectors, vector_windows
from tests.clips import encode, moving_texture

FILM = moving_texture(30, (112, 144))
needs_mvextractor = pytest.mark.skipif(not has_mvextractor(), reason="mvextractor is not installed here")

# name: (file, codec, B-frames, further options of `encode`)
KINDS: dict[str, tuple[str, str, int, dict[str, object]]] = {
    "mpeg4": ("a.avi", "mpeg4", 0, {}),
    "mpeg4 four vectors, quarter pel": ("a.mp4", "mpeg4", 0, {"options": {"flags": "+mv4+qpel"}}),
    "mpeg4 B": ("a.mp4", "mpeg4", 2, {}),
    "mpeg4 B in avi": ("a.avi", "mpeg4", 2, {}),
    "h264": ("a.mp4", "libx264", 0, {}),
    "h264 baseline": ("a.mkv", "libx264", 0, {"options": {"profile": "baseline"}}),
    "h264 B": ("a.mp4", "libx264", 3, {}),
    "h264 B in mkv": ("a.mkv", "libx264", 2, {}),
    "h264 B in avi": ("a.avi", "libx264", 2, {}),
    "h264 B, many references, open GOP": (
        "a.mp4",
        "libx264",
        3,
        {"options": {"x264-params": "bframes=3:ref=4:b-pyramid=normal:open-gop=1"}},
    ),
    "h264 variable frame rate": ("a.mp4", "libx264", 2, {"skip_times": (5, 6, 20)}),
    "mpeg1": ("a.mkv", "mpeg1video", 0, {}),
    "mpeg2 B": ("a.mkv", "mpeg2video", 2, {}),
}


def clip_of_kind(kind: str, folder: Path) -> Path:
    name, codec, b_frames, more = KINDS[kind]
    return encode(folder / name, FILM, codec, b_frames=b_frames, **more)  # type: ignore[arg-type]


def plain_decode(path: Path) -> list[tuple[np.ndarray, str, np.ndarray]]:
    """Each frame's RGB, type and raw vectors (rows as in `video.COLUMNS`), with no option but to export them."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for frame in container.decode(stream):
            side = frame.side_data.get("MOTION_VECTORS")
            rows = np.zeros((0, 10), np.int32)
            if side is not None:
                found = side.to_ndarray()
                rows = np.stack([found[name].astype(np.int32) for name in VECTOR_COLUMNS], axis=1)
            frames.append((frame.to_ndarray(format="rgb24"), "?IPB"[int(frame.pict_type)], rows))
    return frames


@pytest.mark.parametrize("kind", KINDS)
def test_probe_counts_what_decodes(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    info, frames = probe(path), plain_decode(path)
    assert info.frames == len(frames) == len(FILM)
    assert (info.width, info.height) == (144, 112)
    assert info.gop == 12
    assert info.has_b == any(kind == "B" for _, kind, _ in frames)


@pytest.mark.parametrize("kind", KINDS)
def test_pyav_vectors_are_those_of_a_plain_decode(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    vectors = read_vectors(path, "pyav")
    expected = plain_decode(path)
    assert bytes(vectors.frame_types).decode() == "".join(kind for _, kind, _ in expected)
    for number, (_, letter, rows) in enumerate(expected):
        if kind.startswith("mpeg4") and letter == "B":  # FFmpeg has none for these, whatever it exports
            rows = rows[:0]
        np.testing.assert_array_equal(vectors.blocks[vectors.frame == number], rows)


@needs_mvextractor
@pytest.mark.parametrize("kind", KINDS)
def test_mvextractor_agrees_with_pyav_where_it_is_taken(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    info = probe(path)
    chosen = read_vectors(path, choose_backend(info.codec, info.has_b, "mvextractor"))
    exact = read_vectors(path, "pyav")
    np.testing.assert_array_equal(chosen.blocks, exact.blocks)
    np.testing.assert_array_equal(chosen.frame, exact.frame)
    np.testing.assert_array_equal(chosen.frame_types, exact.frame_types)


def test_windows_join_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip_of_kind("h264 B", tmp_path)
    whole = read_vectors(path, "pyav")
    monkeypatch.setattr(vector_records, "WINDOW_FRAMES", 7)
    assert [len(part.frame_types) for part in vector_windows(path, "pyav")] == [7, 7, 7, 7, 2]
    again = read_vectors(path, "pyav")
    np.testing.assert_array_equal(again.blocks, whole.blocks)
    np.testing.assert_array_equal(again.frame, whole.frame)


@needs_mvextractor
def test_mvextractor_is_taken_only_where_it_is_exact() -> None:
    asked = [("mpeg4", False), ("mpeg4", True), ("h264", False), ("h264", True), ("wmv2", False)]
    taken = [choose_backend(codec, has_b, "mvextractor") for codec, has_b in asked]
    assert taken == ["mvextractor", "mvextractor", "mvextractor", "pyav", "pyav"]
    assert {choose_backend(codec, has_b) for codec, has_b in asked} == {"pyav"}


def test_an_unknown_or_missing_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "has_mvextractor", lambda: False)
    assert choose_backend("mpeg4", False) == "pyav"
    with pytest.raises(MoclipError, match="not installed"):
        choose_backend("mpeg4", False, "mvextractor")
    with pytest.raises(MoclipError, match="unknown backend 'fast'"):
        choose_backend("mpeg4", False, "fast")


@needs_mvextractor
def test_b_frame_that_the_index_missed_is_noticed(tmp_path: Path) -> None:
    path = clip_of_kind("h264 B", tmp_path)
    with pytest.raises(InexactError):
        list(vector_windows(path, "mvextractor", refuse_b=True))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_decoding_everything(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    expected = [rgb for rgb, _, _ in plain_decode(path)]
    for wanted in ([0], [29], [11, 12, 13], [25, 3, 3, 14], list(range(30))):
        for seekable in (False, probe(path).seekable):
            found = read_frames(path, wanted, seekable)
            np.testing.assert_array_equal(found, np.stack([expected[i] for i in wanted]))


@pytest.mark.parametrize("kind", ["mpeg4", "mpeg4 B", "h264 B", "h264 variable frame rate"])
def test_stills_are_read_by_seeking(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip_of_kind(kind, tmp_path)
    expected = [rgb for rgb, _, _ in plain_decode(path)]
    monkeypatch.setattr(frames_module, "_read_in_order", lambda *_: pytest.fail("read from the start"))
    assert probe(path).seekable
    np.testing.assert_array_equal(read_frames(path, [27, 13], True), np.stack([expected[27], expected[13]]))


def test_frame_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = clip_of_kind("mpeg4", tmp_path)
    for seekable in (False, True):
        with pytest.raises(VideoError, match="frame 30 is beyond"):
            read_frames(path, [0, 30], seekable)
    with pytest.raises(VideoError, match="frame -1"):
        read_frames(path, [-1])


@pytest.mark.parametrize("codec", [("libx265", "hevc"), ("mjpeg", "mjpeg"), ("libvpx-vp9", "vp9")])
def test_codec_without_vectors_is_named(codec: tuple[str, str], tmp_path: Path) -> None:
    encoder, name = codec
    if encoder not in av.codecs_available:
        pytest.skip(f"no encoder {encoder} here")
    pixels = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
    path = encode(tmp_path / "a b.mkv", FILM[:4], encoder, pix_fmt=pixels)
    with pytest.raises(VideoError, match=f"codec {name} exports no motion vectors") as caught:
        probe(path)
    line = f"ffmpeg -i '{path}' -c:v mpeg4 -q:v 1 -g 12 -bf 0 '{path.with_name('a b-mpeg4.avi')}'"
    assert caught.value.fix == f"re-encode it: {line}"


def test_single_frame_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FILM[:1])
    with pytest.raises(VideoError, match="1 frame: a clip needs at least 2 to have motion"):
        probe(path)


INVALID = "Invalid data found when processing input"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"hello, I am a text file\n" * 50, INVALID),
        (np.random.default_rng(0).bytes(5000), INVALID),
    ],
)
def test_file_that_is_no_video_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert caught.value.where == str(path)
    assert caught.value.fix
    assert caught.value.what == f"not a video file ({why})"
    assert "\n" not in caught.value.what


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        probe(tmp_path / "nowhere.mp4")


def test_sound_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        probe(path)


def test_file_cut_short_keeps_its_good_frames(tmp_path: Path) -> None:
    whole = clip_of_kind("mpeg4", tmp_path)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    count = probe(cut).frames
    assert 2 <= count < len(FILM)
    short, full = read_vectors(cut, "pyav"), read_vectors(whole, "pyav")
    sure = min(len(short.frame_types), count) - 1  # the last picture may be half there
    assert sure >= 5
    np.testing.assert_array_equal(short.blocks[short.frame < sure], full.blocks[full.frame < sure])


def test_video_of_intra_frames_only_has_no_vectors(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FILM[:5], gop=1)
    with pytest.raises(VideoError, match="no motion vectors in any frame"):
        read_vectors(path, "pyav")


def test_odd_size_is_kept(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_texture(6, (81, 95)), "libx264", pix_fmt="yuv444p", b_frames=2)
    info = probe(path)
    assert (info.width, info.height) == (95, 81)
    assert read_frames(path, [5]).shape == (1, 81, 95, 3)


def real_clips() -> list[Path]:
    root = os.environ.get("MOCLIP_REAL_DATA")
    if not root:
        return []
    return sorted(path for path in Path(root).rglob("*") if path.suffix in (*VIDEO_SUFFIXES, ".m4v"))


@pytest.mark.slow
@pytest.mark.skipif(not real_clips(), reason="MOCLIP_REAL_DATA names no folder of real clips")
def test_real_clips_read_alike_whatever_the_way() -> None:
    rng = np.random.default_rng(0)
    for path in real_clips()[::6]:
        info = probe(path)
        wanted = sorted(int(i) for i in rng.choice(info.frames, 3, replace=False))
        in_order = dict(_read_in_order(path, wanted, upright_picture))
        found = read_frames(path, wanted, info.seekable)
        np.testing.assert_array_equal(found, np.stack([in_order[i] for i in wanted]))
        exact = read_vectors(path, "pyav")
        assert len(exact.frame_types) == info.frames
        assert (B_FRAME in exact.frame_types) == info.has_b
        if has_mvextractor() and choose_backend(info.codec, info.has_b, "mvextractor") == "mvextractor":
            np.testing.assert_array_equal(read_vectors(path, "mvextractor").blocks, exact.blocks)


# --------------------------------------------------------------------------------- H.264's sequence parameter sets


def unsigned(value: int) -> str:
    """The bits of ue(v) (ITU-T H.264, section 9.1)."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def signed(value: int) -> str:
    return unsigned(2 * value - 1 if value > 0 else -2 * value)


def parameter_set(profile: int, before_order: str, order: str, frames_only: bool, cropping: str) -> bytes:
    frames = "1" if frames_only else "01"
    bits = f"{profile:08b}{0:08b}{30:08b}" + unsigned(0) + before_order + unsigned(0) + order
    bits += unsigned(1) + "0" + unsigned(4) + unsigned(3) + frames + "1" + cropping + "1"
    padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return b"\0\0\1\x67" + int(padded, 2).to_bytes(len(padded) // 8, "big")


CROPPED = "1" + "".join(map(unsigned, (3, 5, 1, 2)))
LISTS = {  # in the first list every number is written, the second ends early, the others are absent
    8: "1" + "1" + 16 * signed(1) + "1" + signed(-8) + "0000" + "1" + 64 * signed(0) + "0",
    12: "1" + "1" + 16 * signed(1) + "1" + signed(-8) + "0000" + "1" + 64 * signed(0) + "00000",
}
ORDERS = {0: unsigned(0) + unsigned(4), 1: unsigned(1) + "0" + signed(-3) + signed(2) + unsigned(2) + 2 * signed(7)}


@pytest.mark.parametrize(
    ("profile", "before_order", "units"),
    [
        (66, "", (2, 2)),
        (100, unsigned(1) + unsigned(0) + unsigned(0) + "0" + "0", (2, 2)),
        (100, unsigned(1) + unsigned(0) + unsigned(0) + "0" + LISTS[8], (2, 2)),
        (122, unsigned(2) + unsigned(2) + unsigned(2) + "0" + LISTS[8], (2, 1)),
        (244, unsigned(3) + "0" + unsigned(0) + unsigned(0) + "0" + LISTS[12], (1, 1)),
        (244, unsigned(3) + "1" + unsigned(0) + unsigned(0) + "0" + LISTS[12], (1, 1)),
    ],
)
@pytest.mark.parametrize("order", [*ORDERS.values(), unsigned(2)])
@pytest.mark.parametrize("frames_only", [True, False])
def test_cropping_is_found_behind_all_that_may_come_before_it(
    profile: int, before_order: str, units: tuple[int, int], order: str, frames_only: bool
) -> None:
    """Chroma formats, scaling lists, picture orders, fields: section 7.3.2.1.1, cropping units by 7.4.2.1.1."""
    across, down = units[0], units[1] * (1 if frames_only else 2)
    header = parameter_set(profile, before_order, order, frames_only, CROPPED)
    assert stream_croppings(header) == [(3 * across, 5 * across, 1 * down, 2 * down)]
    assert stream_croppings(parameter_set(profile, before_order, order, frames_only, "0")) == [(0, 0, 0, 0)]


@pytest.mark.parametrize("length_size", [1, 2, 4])
def test_units_behind_their_lengths_are_those_behind_start_codes(length_size: int) -> None:
    """An avcC box tells the size of the lengths in its fifth byte (ISO/IEC 14496-15, section 5.3.3.1)."""
    parameters = parameter_set(66, "", unsigned(2), True, CROPPED)[3:]
    units = [b"\x09\xf0", parameters, b"\x65\x88\x84"]
    numbers = len(parameters).to_bytes(2, "big") + parameters
    box = bytes((1, 66, 0, 30, 0xFC | length_size - 1, 0xE1)) + numbers
    by_length = b"".join(len(unit).to_bytes(length_size, "big") + unit for unit in units)
    by_start_code = b"".join(b"\0\0\1" + unit for unit in units)
    assert stream_croppings(box) == packet_croppings(by_length, box) == packet_croppings(by_start_code, b"")
    assert stream_croppings(box) == [(6, 10, 2, 4)]
    assert is_idr(by_length, box)
    assert not is_idr(by_length[: -length_size - 3], box)
