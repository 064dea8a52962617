"""Clips of one scene are one source with `dataset.group: lookalike`, whatever their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moclip.data.clip_folder import scan_folder
from moclip.data.index import build_index
from moclip.data.scene_groups import ALIKE, join_look_alikes, read_thumbnails
from moclip.errors import DatasetError
from tests.clips import encode
from tests.conftest import run, set_keys

SCENES = 6


def film(scene: int, step: int) -> np.ndarray:
    """Six frames of a scene that stands still, with a small square that moves: uint8 (6, 64, 96, 3)."""
    coarse = np.random.default_rng(scene).integers(0, 256, (4, 6, 3), np.uint8)
    frames = np.repeat(coarse.repeat(16, axis=0).repeat(16, axis=1)[None], 6, axis=0)
    for number, frame in enumerate(frames):
        left = 40 + step * number
        frame[28:36, left : left + 8] = 255 - frame[28:36, left : left + 8]
    return frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, six scenes each, two clips a scene; the names do not tell the scenes."""
    root = tmp_path_factory.mktemp("scenes")
    for number, label in enumerate(("Left", "Right")):
        for scene in range(SCENES):
            for take in range(2):
                name = root / label / f"clip{2 * scene + take:02d}.avi"
                name.parent.mkdir(exist_ok=True)
                encode(name, film(100 * number + scene, (3 + take) if number else -3 - take))
    return root


def table_of(root: Path, join: bool) -> pd.DataFrame:
    return build_index(root, scan_folder(root), None, 0.3, 0.3, 0, join_scenes=join)


def test_clips_of_one_scene_are_one_group_and_never_divided(clips: Path) -> None:
    apart, joined = table_of(clips, False), table_of(clips, True)
    scenes = joined["class"] + joined["id"].str.extract(r"(\d+)\.avi")[0].astype(int).floordiv(2).astype(str)
    assert apart["group"].nunique() == 2 * SCENES, "each name is its own source, in both classes"
    assert joined.groupby(scenes)["group"].nunique().max() == 1
    assert joined.groupby(scenes)["split"].nunique().max() == 1
    assert apart.groupby(scenes)["split"].nunique().max() > 1, "else this test says nothing"


def test_thumbnails_are_of_unit_length_and_a_lost_clip_is_like_nothing(clips: Path) -> None:
    rows = table_of(clips, False)
    rows.loc[0, "path"] = "Left/gone.avi"
    found = read_thumbnails(clips, rows, workers=2)
    np.testing.assert_allclose(np.linalg.norm(found[1:], axis=1), 1, atol=1e-5)
    assert not found[0].any()
    np.testing.assert_array_equal(found, read_thumbnails(clips, rows, workers=1))


@pytest.mark.slow
def test_real_clips_of_different_sources_are_not_joined(real_data: Path) -> None:
    """Surveillance clips whose names tell the source: about an eighth of the pairs of one source look alike."""
    root = real_data / "fight_surv/videos"
    rows = table_of(root, False)
    thumbnails = read_thumbnails(root, rows, workers=2)
    alike = thumbnails @ thumbnails.T >= ALIKE
    source = rows["group"].to_numpy()  # gNN is one footage in both classes
    pairs, same = np.triu(np.ones_like(alike), 1).astype(bool), source[:, None] == source[None]
    assert not (alike & pairs & ~same).any()
    assert 0.08 < alike[pairs & same].mean() < 0.2


def test_groups_are_joined_along_chains() -> None:
    angles = np.deg2rad([0, 20, 40, 120])  # each like the next, but for the last
    thumbnails = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = pd.Series(["d", "b", "c", "a"])
    assert join_look_alikes(groups, thumbnails).tolist() == ["b", "b", "b", "a"]
    same_source = pd.Series(["x", "b", "c", "x"])  # a source joins what only its clips are like
    assert set(join_look_alikes(same_source, thumbnails)) == {"b"}


def test_clips_that_all_look_alike_have_no_scene_to_hold_out(tmp_path: Path) -> None:
    for label in ("Left", "Right"):
        for number in range(3):
            (tmp_path / label).mkdir(exist_ok=True)
            encode(tmp_path / label / f"{number}.avi", film(1, number + 1))
    with pytest.raises(DatasetError, match="all 6 clips look alike") as refused:
        table_of(tmp_path, True)
    assert "dataset.group=name" in str(refused.value.fix)


@pytest.mark.slow
def test_the_key_is_read_and_an_index_of_the_other_kind_is_stale(project: Path, clips: Path) -> None:
    set_keys(project / "params.yaml", {"dataset.root": str(clips), "dataset.splits": str(clips)})
    run("moclip", "index", cwd=project)
    apart = pd.read_parquet(project / "data/index.parquet")["group"]
    set_keys(project / "params.yaml", {"dataset.group": "lookalike"})
    done = run("moclip", "extract_mv", cwd=project, code=1)
    assert 'it was made with dataset.group: "name", and params.yaml says "lookalike"' in done.stderr
    run("moclip", "index", cwd=project)
    assert pd.read_parquet(project / "data/index.parquet")["group"].nunique() < apart.nunique()
