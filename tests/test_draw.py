"""`moclip draw` shows what moves and where to, in every style and form, for any clip in any folder."""

from __future__ import annotations

import re
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from moclip.drawing.animation import LONGEST_SIDE, write_animation
from moclip.drawing.arrows import draw_arrows
from moclip.drawing.colours import YELLOW as ARROW_YELLOW
from moclip.drawing.colours import component_colours, readable_limit
from moclip.errors import MoclipError, VideoError
from moclip.models.mv_tsn import FieldToRgb
from tests.clips import encode, moving_texture
from tests.conftest import run, run_fresh

SIZE = (96, 128)  # height and width: drawn five times as large
WAYS = {"right": (3, 0), "down": (0, 3), "left": (-3, 0), "up": (0, -3)}
LEGEND = 56  # px at the foot of a picture 640 px wide
YELLOW = np.array(ARROW_YELLOW)


def drawn(*words: str | Path, cwd: Path, code: int = 0) -> str:
    return run("moclip", "draw", *words, cwd=cwd, code=code).stdout


def image(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def film(path: Path) -> np.ndarray:
    """All pictures of a video as they decode: (frames, height, width, 3)."""
    with av.open(str(path)) as container:
        return np.stack([picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]).astype(int)


def loop(path: Path) -> tuple[list[np.ndarray], int, list[int]]:
    """Pictures of a GIF or WebP, how often it plays (0: for ever), and the ms of each."""
    pictures, times = [], []
    with Image.open(path) as animation:
        for number in range(getattr(animation, "n_frames", 1)):
            animation.seek(number)
            pictures.append(np.asarray(animation.convert("RGB")).astype(int))
            times.append(animation.info["duration"])
        return pictures, animation.info["loop"], times


def content(picture: np.ndarray) -> np.ndarray:
    return picture[:-LEGEND]


def colour(picture: np.ndarray) -> np.ndarray:
    """What most of a picture looks like."""
    return np.median(content(picture).reshape(-1, 3), axis=0)


def wheel(picture: np.ndarray, way: str) -> np.ndarray:
    """The colour at one edge of the disc in the legend."""
    strip = picture[-LEGEND:]
    reach = 20
    dx, dy = np.sign(WAYS[way]) * reach
    return strip[28 + dy, 35 + dx]


def close(one: np.ndarray, other: np.ndarray, least: float = 0.97) -> bool:
    """Whether two colours are of one hue: their directions from black."""
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-9)) >= least


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip for each way its content moves, 16 frames with a key frame every 6, in a folder without params.yaml."""
    folder = tmp_path_factory.mktemp("moving")
    (folder / "clips").mkdir()
    for way, step in WAYS.items():
        encode(folder / f"clips/{way}.avi", moving_texture(16, SIZE, step), gop=6)
    return folder


# ------------------------------------------------------------------------------------------------ what is seen


@pytest.fixture(scope="module")
def coloured(moving: Path) -> Path:
    drawn("clips", "--style", "hsv", "--alone", "--as", "png", "--frames", "3:9", cwd=moving)
    return moving / "drawings" / "clips"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_colours_match_the_legends_directions(coloured: Path, way: str) -> None:
    picture = image(coloured / f"{way}.avi.hsv/0004_P.png")
    seen = colour(picture)
    assert seen.max() > 60
    assert [other for other in WAYS if close(seen, wheel(picture, other))] == [way]


def test_right_is_red_and_down_yellow(coloured: Path) -> None:
    """As in Baker et al.'s coding, which readers know."""
    assert close(colour(image(coloured / "right.avi.hsv/0004_P.png")), np.array([255, 0, 0]))
    assert close(colour(image(coloured / "down.avi.hsv/0004_P.png")), np.array([255, 234, 0]))


def test_pictures_are_named_by_number_and_type_and_an_i_frame_shows_no_motion(coloured: Path) -> None:
    folder = coloured / "right.avi.hsv"
    assert names(folder) == ["0003_P.png", "0004_P.png", "0005_P.png", "0006_I.png", "0007_P.png", "0008_P.png"]
    assert content(image(folder / "0006_I.png")).max() == 0
    assert colour(image(folder / "0007_P.png")).max() > 60
    written = [(image(folder / name)[-LEGEND:, 320:] > 200).all(axis=-1).sum() for name in ("0006_I.png", "0007_P.png")]
    assert written[0] > written[1] + 50, "no vectors, says the legend"


@pytest.mark.slow
@pytest.mark.parametrize("b_frames", [0, 2])
def test_animations_show_the_motion_before_where_a_frame_has_none(tmp_path: Path, b_frames: int) -> None:
    encode(tmp_path / "clip.avi", moving_texture(16, SIZE, (1, 0)), gop=6, b_frames=b_frames)
    drawn("clip.avi", "--style", "hsv", "--alone", "--limit", "3", "--frames", ":13", "--out", "out", cwd=tmp_path)
    pictures = film(next((tmp_path / "out").rglob("*.mp4")))
    assert len(pictures) == 13
    assert all(close(colour(picture), np.array([255, 0, 0])) and colour(picture)[0] > 60 for picture in pictures)


def test_h264_b_frames_show_their_own_motion(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", moving_texture(12, SIZE, (3, 0)), "libx264", b_frames=2)
    drawn("clip.mp4", "--style", "hsv", "--alone", "--as", "png", "--out", "out", cwd=tmp_path)
    shown = [image(path) for path in (tmp_path / "out").rglob("*_B.png")]
    assert shown
    assert all(close(colour(picture), wheel(picture, "right")) for picture in shown)


def test_a_turned_clip_is_drawn_as_it_is_shown(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", moving_texture(6, SIZE, (3, 0)), "libx264", rotation=90)
    drawn("clip.mp4", "--style", "hsv", "--alone", "--as", "png", "--frames", "2:3", "--out", "out", cwd=tmp_path)
    picture = image(next((tmp_path / "out").rglob("0002_P.png")))
    height, width = content(picture).shape[:2]
    assert height / width == pytest.approx(128 / 96, abs=0.05)
    assert close(colour(picture), np.array([103, 0, 255])), "right, turned by 90 degrees to the left, is up"


def test_stabilised_pans_stand_still(moving: Path, coloured: Path) -> None:
    words = ("--style", "hsv", "--alone", "--as", "png", "--frames", "4:5", "--stabilise", "--out", "still")
    drawn("clips/right.avi", *words, cwd=moving)
    still = image(moving / "still/clips/right.avi.hsv/0004_P.png")
    assert colour(still).max() == 0
    assert content(still).max() > 60, "the square still goes its way"
    panning = image(coloured / "right.avi.hsv/0004_P.png")
    assert (still[-LEGEND:, 320:] != panning[-LEGEND:, 320:]).any(), "the legend says so"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright clip whose right half moves to the right."""
    folder = tmp_path_factory.mktemp("half")
    pictures = moving_texture(8, SIZE, (4, 0)) // 4 + 190
    pictures[:, :, :64] = pictures[0, :, :64]
    encode(folder / "clip.avi", pictures)
    return folder


def test_arrows_lie_where_it_moves_over_the_frame(half: Path) -> None:
    drawn("clip.avi", "--as", "png", "--frames", "4:5", "--out", "arrows", cwd=half)
    picture = image(next((half / "arrows").rglob("0004_P.png")))
    yellow = (np.abs(content(picture) - YELLOW).max(axis=-1) < 40).mean(axis=0)
    assert yellow[:300].max() == 0
    assert yellow[360:].mean() > 0.01
    assert (content(picture)[:, 360:].max(axis=-1) < 40).any(), "a dark rim, which a white wall asks for"
    ground = content(picture)[:, :300].mean()
    assert 120 < ground < 200, "the frame is there, a little darker"
    assert (np.abs(picture[-LEGEND:, :100] - YELLOW).max(axis=-1) < 40).any(), "an arrow in the legend"


def test_colours_lie_over_the_grey_frame(half: Path) -> None:
    drawn("clip.avi", "--style", "hsv", "--as", "png", "--frames", "4:5", "--out", "over", cwd=half)
    picture = content(image(next((half / "over").rglob("0004_P.png"))))
    still, moves = picture[:, :300], picture[:, 380:]
    assert (still.max(axis=-1) - still.min(axis=-1)).max() <= 2, "grey"
    assert 80 < still.mean() < 140
    assert moves[..., 0].mean() > moves[..., 1].mean() + 50


def test_an_arrows_head_is_where_it_points() -> None:
    field = np.zeros((2, 4, 4))
    for way, step in WAYS.items():
        field[0], field[1] = step
        shown = draw_arrows(np.zeros((320, 320, 3), np.uint8), field, limit=3, cell=80).astype(int)
        one = np.abs(shown[:160, :160] - YELLOW).max(axis=-1) < 40
        across = one.sum(axis=0 if step[0] else 1)
        widest, middle = across.argmax(), np.flatnonzero(across).mean()
        assert (widest > middle) == (sum(step) > 0), way


def test_arrows_grow_with_the_motion_up_to_the_limit() -> None:
    def span(px: float) -> int:
        field = np.zeros((2, 4, 4))
        field[0, :2, :2] = px
        shown = draw_arrows(np.zeros((320, 320, 3), np.uint8), field, limit=8, cell=80).astype(int)
        return int((np.abs(shown - YELLOW).max(axis=-1) < 40).any(axis=0).sum())

    assert span(0) == span(0.1) == 0
    assert span(4) == pytest.approx(span(8) / 2, abs=2)
    assert span(80) == span(8)


def test_components_are_the_networks_picture() -> None:
    fields = np.random.default_rng(0).normal(0, 4, (5, 2, 6, 7))
    seen = FieldToRgb()(torch.from_numpy(np.clip(fields / 5, -1, 1)).float())
    normal = FieldToRgb()
    expected = (seen * normal.std + normal.mean).permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(component_colours(fields, 5) - expected).max() <= 0.51
    assert component_colours(fields[0], 5).shape == (6, 7, 3)


def test_components_show_right_in_red_and_down_in_green(moving: Path) -> None:
    drawn("clips", "--style", "components", "--as", "png", "--frames", "4:5", "--out", "rgb", cwd=moving)
    mean = {way: colour(image(moving / f"rgb/clips/{way}.avi.components/0004_P.png")) for way in WAYS}
    assert mean["right"][0] > 140 > 116 > mean["left"][0]
    assert mean["down"][1] > 140 > 116 > mean["up"][1]
    assert all(seen[2] > 20 for seen in mean.values())
    legend = image(moving / "rgb/clips/right.avi.components/0004_P.png")[-LEGEND:]
    assert all((np.abs(legend - 255 * np.eye(3)[channel]).max(axis=-1) < 5).any() for channel in range(3))


def test_mean_and_max_over_time(tmp_path: Path) -> None:
    quiet = np.repeat(moving_texture(1, SIZE), 11, axis=0)
    encode(tmp_path / "clip.avi", np.concatenate([quiet[1:], moving_texture(11, SIZE, (4, 0))]), gop=5)
    words = ("clip.avi", "--style", "components", "--limit", "4", "--out", "out")
    for form in ("mean", "max"):
        drawn(*words, "--as", form, cwd=tmp_path)
    mean, longest = (
        colour(image(next((tmp_path / "out").rglob(f"*.components.{form}.png")))) for form in ("mean", "max")
    )
    assert mean[0] == pytest.approx(127.5 * (1 + 8 / 16), abs=8), "moves in 8 of the 16 frames that have vectors"
    assert longest[0] >= 250


# ------------------------------------------------------------------------------------------------------- scale


def test_strength_is_up_to_the_limit_and_the_output_names_it(moving: Path) -> None:
    words = ("clips/right.avi", "--style", "hsv", "--alone", "--as", "png", "--frames", "4:5")
    printed = drawn(*words, "--limit", "6", "--out", "six", cwd=moving)
    assert " 1 frame, 6 px a frame" in printed
    six = image(moving / "six/clips/right.avi.hsv/0004_P.png")
    assert colour(six)[0] == pytest.approx(255 * 3 / 6, abs=6)
    drawn(*words, "--limit", "3", "--out", "three", cwd=moving)
    three = image(moving / "three/clips/right.avi.hsv/0004_P.png")
    assert colour(three)[0] >= 250
    assert (six[-LEGEND:] != three[-LEGEND:]).any(), "the legend names the px"


def test_the_scale_is_the_clips_own_and_can_be_read(moving: Path) -> None:
    printed = re.findall(
        r"(\S+) px a frame", drawn("clips", "--as", "mean", "--style", "hsv", "--out", "own", cwd=moving)
    )
    assert len(printed) == 4
    assert all(float(px) >= 1 for px in printed)
    lengths = np.concatenate([np.zeros(500), np.ones(90), np.linspace(1.1, 4.4, 10)])
    assert readable_limit(lengths) == 3.0, "95 of 100 are below 2.6"
    values, counts = np.unique(lengths, return_counts=True)
    assert readable_limit(values, counts) == 3.0
    assert readable_limit(lengths * 10) == 30.0
    assert readable_limit(lengths / 100) == readable_limit(np.zeros(9)) == 1.0


# ------------------------------------------------------------------------------------------------------- forms


@pytest.mark.slow
def test_animations_have_every_frame_in_time(moving: Path) -> None:
    for form in ("mp4", "gif", "webp"):
        drawn("clips/right.avi", "--as", form, "--frames", ":9", "--out", "forms", cwd=moving)
    plain = moving / "forms/clips/right.avi.arrows.mp4"
    pictures = film(plain)
    assert pictures.shape == (9, SIZE[0] * 5 + LEGEND, SIZE[1] * 5, 3)
    with av.open(str(plain)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate or 0) == pytest.approx(25)
    for form in ("gif", "webp"):
        shown, plays, times = loop(plain.with_suffix(f".{form}"))
        assert (len(shown), plays, times) == (9, 0, [40] * 9)
        assert np.abs(np.stack(shown) - pictures).mean() < 8, "the same pictures"


def test_an_animation_keeps_colours(tmp_path: Path) -> None:
    colours = np.zeros((4, 64, 66, 3), np.uint8)
    colours[0], colours[1], colours[2], colours[3] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
    for suffix in (".mp4", ".gif", ".webp"):
        path = tmp_path / f"a{suffix}"
        assert write_animation(path, iter(colours), 10) == 4
        shown = film(path) if suffix == ".mp4" else np.stack(loop(path)[0])
        assert np.abs(shown - colours.astype(int)).max() <= 12, suffix


@pytest.mark.slow
def test_odd_sizes_get_an_even_mp4(tmp_path: Path) -> None:
    encode(tmp_path / "odd.avi", moving_texture(4, (97, 131), (2, 0)))
    drawn("odd.avi", "--out", "out", cwd=tmp_path)
    shape = film(next((tmp_path / "out").rglob("*.mp4"))).shape
    assert shape[2] == 131 * 5 + 1
    assert shape[1] % 2 == 0


def test_pictures_are_written_as_they_come(tmp_path: Path) -> None:
    """A long clip does not fit into memory."""
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def pictures() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for number in range(20):
            one = np.full((16, 16, 3), number, np.uint8)
            weakref.finalize(one, gone)
            alive += 1
            most = max(most, alive)
            yield one

    for suffix in (".mp4", ".gif", ".webp"):
        write_animation(tmp_path / f"a{suffix}", pictures(), 25)
    assert most <= 4


PEAK = """
import sys
from pathlib import Path
from moclip.drawing.clip import draw_clip
from moclip.drawing.drawn_frames import Drawing
draw_clip(Path(sys.argv[1]), Path("out"), Drawing("hsv"))
about = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(about["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    peaks = []
    for frames in (10, 60):
        clip = encode(tmp_path / f"{frames}.avi", np.tile(moving_texture(10, (360, 640)), (frames // 10, 1, 1, 1)))
        peaks.append(int(run_fresh("python", "-c", PEAK, clip, cwd=tmp_path).stdout))
    assert peaks[1] < peaks[0] + 30, "MB; 50 pictures more are 35, and their copies"


@pytest.mark.parametrize("suffix", LONGEST_SIDE)
def test_a_drawing_may_be_as_large_as_its_format_allows(suffix: str, tmp_path: Path) -> None:
    longest = LONGEST_SIDE[suffix]
    black = np.zeros((16, longest + 1, 3), np.uint8)
    assert write_animation(tmp_path / f"a{suffix}", [black[:, 1:]] * 2, 25) == 2
    for picture in (black, black.transpose(1, 0, 2)):
        with pytest.raises(VideoError, match=f"{longest:,} px at most on a side"):
            write_animation(tmp_path / f"b{suffix}", [picture], 25)


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    def pictures(count: int) -> Iterator[np.ndarray]:
        yield from np.zeros((count, 16, 16, 3), np.uint8)
        if count == 3:
            raise RuntimeError("no more")

    write_animation(tmp_path / "a.gif", pictures(2), 25)
    with pytest.raises(RuntimeError):
        write_animation(tmp_path / "a.gif", pictures(3), 25)
    assert names(tmp_path) == ["a.gif"]
    assert len(loop(tmp_path / "a.gif")[0]) == 2
    for name in ("a.avi", "a"):
        with pytest.raises(MoclipError, match=r"\.mp4, \.gif or \.webp"):
            write_animation(tmp_path / name, pictures(2), 25)


# ------------------------------------------------------------------------------------------------------- clips


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_workers(moving: Path) -> None:
    for workers in ("1", "2"):
        drawn("clips", "-j", workers, "--frames", ":8", "--out", f"j{workers}", cwd=moving)
    assert names(moving / "j1") == names(moving / "j2")
    assert len(names(moving / "j1")) == 4
    assert all(
        (moving / "j1" / name).read_bytes() == (moving / "j2" / name).read_bytes() for name in names(moving / "j1")
    )


@pytest.mark.slow
def test_clips_of_the_same_name_do_not_collide(moving: Path, tmp_path: Path) -> None:
    for name in ("a/clip.avi", "b/clip.avi"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(moving / "clips/right.avi", tmp_path / name)
    encode(tmp_path / "a/clip.mkv", moving_texture(4, SIZE))
    words = ("--as", "mean", "--style", "components")
    printed = drawn("a", "b", *words, "--out", "at_once", cwd=tmp_path)
    assert len(names(tmp_path / "at_once")) == 3
    assert all(f"at_once/{name}" in printed for name in names(tmp_path / "at_once"))
    for name in ("a/clip.avi", "b/clip.avi"):
        drawn(name, *words, "--out", "one_by_one", cwd=tmp_path)
    assert names(tmp_path / "one_by_one") == ["a/clip.avi.components.mean.png", "b/clip.avi.components.mean.png"]


@pytest.mark.slow
def test_a_broken_clip_is_named_and_the_others_are_drawn(moving: Path, tmp_path: Path) -> None:
    shutil.copy(moving / "clips/right.avi", tmp_path / "good.avi")
    (tmp_path / "bad.mp4").write_text("no video")
    encode(tmp_path / "hevc.mp4", moving_texture(4, SIZE), "libx265")
    done = run("moclip", "draw", tmp_path, "--out", tmp_path / "out", cwd=tmp_path)
    assert [name.rsplit("/", 1)[-1] for name in names(tmp_path / "out")] == ["good.avi.arrows.mp4"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert any("bad.mp4: not a video file" in line for line in errors)
    assert any("hevc.mp4: codec hevc exports no motion vectors" in line for line in errors)
    assert f"\n  re-encode it: ffmpeg -i {tmp_path}/hevc.mp4 -c:v mpeg4" in done.stderr
    none = run(
        "moclip", "draw", tmp_path / "bad.mp4", tmp_path / "hevc.mp4", "--out", tmp_path / "no", cwd=tmp_path, code=1
    )
    assert "no clip could be drawn" in none.stderr
    assert not (tmp_path / "no").exists()


def test_a_single_broken_clip_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    assert "bad.mp4: not a video file" in run("moclip", "draw", "bad.mp4", cwd=tmp_path, code=1).stderr
    assert names(tmp_path) == ["bad.mp4"]


@pytest.mark.slow
def test_drawing_again_replaces(moving: Path) -> None:
    for part in (":6", ":3"):
        drawn("clips/up.avi", "--as", "png", "--frames", part, "--out", "again", cwd=moving)
    assert names(moving / "again") == [f"clips/up.avi.arrows/{name}.png" for name in ("0000_I", "0001_P", "0002_P")]


@pytest.mark.parametrize(
    ("words", "expected_text"),
    [
        (("--frames", "5"), "--frames"),
        (("--frames", "7:7"), "--frames"),
        (("--frames", "16:"), "it has 16 frames, none from 16 on"),
        (("--as", "mean", "--frames", "0:1"), "none of these frames has motion vectors"),
        (("--limit", "0"), "--limit"),
        (("--style", "components", "--over"), "--over"),
        (("--out", "clips/right.avi"), "cannot be written"),
    ],
)
def test_clips_that_cannot_be_drawn_are_refused(moving: Path, words: tuple[str, ...], expected_text: str) -> None:
    stderr = run("moclip", "draw", "clips/right.avi", *words, cwd=moving, code=1).stderr
    assert expected_text in stderr
    assert "internal error" not in stderr


@pytest.mark.slow
def test_a_real_clip(real_data: Path, tmp_path: Path) -> None:
    drawn(real_data / "codecs/v_Basketball_g01_c01.avi", "--style", "hsv", "--frames", "50:75", "--quiet", cwd=tmp_path)
    pictures = film(tmp_path / "drawings/codecs/v_Basketball_g01_c01.avi.hsv.mp4")
    assert pictures.shape == (25, 480 + LEGEND, 640, 3)
    saturation = content(pictures[14]).max(axis=-1) - content(pictures[14]).min(axis=-1)
    assert 0.001 < (saturation > 100).mean() < 0.1, "the player, in colour"
