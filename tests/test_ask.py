"""What the commands find that ask the feature store: similar clips, copies, doubtful labels, clips to annotate."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from moclip.data.label_choice import choose_next, uncertainty
from moclip.data.near_copies import TIMES, copy_pairs, course_of_motion
from moclip.errors import StoreError
from moclip.evaluation.label_suspicion import commonest_label, neighbour_disagreement, suspicion
from moclip.store.features import to_unit_length, write_features
from moclip.store.neighbours import FeatureRows, nearest, open_array
from moclip.video.frames import read_pictures
from moclip.video.probe import probe
from tests.clips import encode
from tests.conftest import run, set_keys

# ------------------------------------------------------------------------------------------------------- the search


def plain_search(
    features: list[np.ndarray], queries: list[np.ndarray], count: int, own: np.ndarray, sources: np.ndarray
) -> list[list[tuple[int, float]]]:
    """What `nearest` finds, clip by clip."""
    found = []
    for number, source in enumerate(own):
        cosines = []
        for row, other in enumerate(sources):
            if other != source:
                each = [
                    np.dot(query[number], part[row]) / np.linalg.norm(query[number]) / np.linalg.norm(part[row])
                    for query, part in zip(queries, features, strict=True)
                ]
                cosines.append((row, float(np.mean(each))))
        found.append(sorted(cosines, key=lambda one: -one[1])[:count])
    return found


@pytest.mark.parametrize("kinds", [1, 2])
def test_the_search_finds_what_a_double_loop_finds(kinds: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(kinds)
    features = [rng.normal(size=(90, width)).astype(np.float32) for width in (7, 5)[:kinds]]
    stored = [features[0], np.stack([features[-1], 3 * features[-1]], axis=1)][:kinds]  # the mean of stills
    for number, values in enumerate(stored):
        names = ("still", "feature")[-values.ndim + 1 :]
        write_features(tmp_path / str(number), [f"{n}" for n in range(90)], {"features": (values, names)}, {})
    rows = np.array([row for row in range(90) if row % 7])
    parts = [FeatureRows(open_array(tmp_path / str(n), "", "features"), rows) for n in range(kinds)]
    own, sources = rng.integers(0, 9, 11), rng.integers(0, 9, len(rows))
    queries = [to_unit_length(rng.normal(size=(11, part.shape[1])).astype(np.float32)) for part in features]
    wanted = plain_search([part[rows] for part in features], queries, 6, own, sources)
    for block in (1, 64, 1000, 1 << 20):
        best, cosines = nearest(parts, queries, 6, (own, sources), block_bytes=block)
        assert best.tolist() == [[row for row, _ in one] for one in wanted]
        np.testing.assert_allclose(cosines, [[cosine for _, cosine in one] for one in wanted], atol=1e-6)


def test_where_clips_are_few_the_rest_is_empty() -> None:
    part = FeatureRows(np.array([[3.0, 0], [0, 0], [0, 2]], np.float32))
    best, cosines = nearest([part], [np.array([[1.0, 0]], np.float32)], 5, (np.array([9]), np.array([0, 0, 9])))
    assert best.tolist() == [[0, 1, -1, -1, -1]]
    assert cosines[0].tolist() == [1, 0, -np.inf, -np.inf, -np.inf], "features of 0 are like nothing"


def test_chosen_rows_are_read_in_their_order() -> None:
    array = np.eye(4, dtype=np.float32)
    for rows in ([1, 2, 0], [2, 1, 0], [0, 1, 3], [3, 3, 2]):
        assert np.array_equal(FeatureRows(array, np.array(rows)).read(0, 3), array[rows])


def test_a_row_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "store", shape=(4, 3), dtype="f4", chunks=(1, 3), fill_value=np.nan)
    array[:3] = 1
    part = FeatureRows(array, where="here")
    assert part.read(0, 3).shape == (3, 3)
    with pytest.raises(StoreError, match="no number is stored in row 3"):
        part.read(0, 4)


# --------------------------------------------------------------------------------------------- copies, without a file


def test_the_course_of_motion_is_of_place_and_time_and_not_of_i_frames() -> None:
    rng = np.random.default_rng(0)
    fields = rng.integers(-9, 9, (64, 2, 12, 16)).astype(np.int8)
    types = np.full(64, ord("P"))
    course = course_of_motion(fields, types)
    assert np.linalg.norm(course) == pytest.approx(1)
    np.testing.assert_allclose(course_of_motion(fields * 2, types), course, atol=1e-6)
    with_i, noisy = types.copy(), fields.copy()
    with_i[::8], noisy[::8] = ord("I"), 100
    still = fields.copy()
    still[::8] = 0
    assert course_of_motion(noisy, with_i) @ course_of_motion(still, with_i) == pytest.approx(1)
    assert course_of_motion(fields[::-1], types) @ course < 0.3
    assert course_of_motion(np.repeat(fields, 2, axis=0), np.repeat(types, 2)) @ course == pytest.approx(1)
    short = course_of_motion(fields[: TIMES // 2], types[: TIMES // 2])
    assert np.isfinite(short).all()
    assert not course_of_motion(fields * 0, types).any()


def test_copies_agree_in_every_look_and_in_their_motion() -> None:
    rng = np.random.default_rng(1)
    one, two, motion = (to_unit_length(rng.normal(size=(6, 40)).astype(np.float32)) for _ in range(3))
    one[3], two[3], motion[3] = one[0], two[0], motion[0]  # a copy of 0
    one[4], two[4] = one[1], two[1]  # looks like 1, moves otherwise
    one[5], motion[5] = one[2], motion[2]  # moves like 2, looks like it in one frame only
    for block in (1, 2, 5, 100):
        pairs, looks, courses = copy_pairs([one, two], motion, block=block)
        assert pairs.tolist() == [[0, 3]]
        np.testing.assert_allclose([looks[0], courses[0]], 1, atol=1e-5)
    assert copy_pairs([one, two], motion, least=-1)[0].tolist() == [[0, 3], [1, 4]]


# ------------------------------------------------------------------------------------------------- doubtful labels


def test_neighbours_only_count_as_far_as_a_class_has_other_clips() -> None:
    neighbours = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1], [1, -1, -1, -1], [0, 1, 1, 2]])
    labels, others = np.array([0, 0, 1, 1, 2]), np.array([9, 9, 1, 9, 0])
    np.testing.assert_allclose(neighbour_disagreement(neighbours, labels, others), [0.5, 1, 0, 0, np.nan])
    assert commonest_label(neighbours, 3).tolist() == [0, 1, 0, 1, 1]


def test_the_score_is_the_mean_of_what_is_known() -> None:
    nan = np.nan
    np.testing.assert_allclose(
        suspicion(np.array([0.2, nan, 1, nan]), np.array([0.6, 0.3, nan, nan])), [0.4, 0.3, 1, nan]
    )


# ------------------------------------------------------------------------------------------------- clips to annotate


def test_the_next_clip_is_uncertain_and_far_from_all_that_came_before() -> None:
    rng = np.random.default_rng(2)
    features = to_unit_length(rng.normal(size=(30, 4)).astype(np.float32))
    shares = rng.dirichlet(np.ones(5), 30)
    labelled = to_unit_length(rng.normal(size=(3, 4)).astype(np.float32))
    unsure = uncertainty(shares)
    assert uncertainty(np.full((1, 5), 0.2))[0] == pytest.approx(1)
    assert uncertainty(np.eye(5)[:1])[0] == pytest.approx(0, abs=1e-9)
    chosen, distances = choose_next([features], unsure, (features @ labelled.T).max(axis=1), 12)
    before = list(labelled)
    for clip, distance in zip(chosen, distances, strict=True):
        far = [(1 - max(float(one @ other) for other in before)) / 2 for one in features]
        gains = [far[row] * unsure[row] if row not in chosen[: len(before) - 3] else -1 for row in range(30)]
        assert clip == int(np.argmax(gains))
        assert distance == pytest.approx(far[clip], abs=1e-6)
        before.append(features[clip])
    assert sorted(choose_next([features], unsure, np.full(30, -1.0), 99)[0]) == list(range(30))
    alike = np.ones((4, 1), np.float32)
    assert sorted(choose_next([alike], np.ones(4), np.full(4, -1.0), 4)[0]) == [0, 1, 2, 3], "none twice"


# ---------------------------------------------------------------------------------------------------- the commands


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def mean_features(project: Path, kind: str = "both") -> tuple[list[str], dict[str, np.ndarray]]:
    """The ids and features of all clips, read without the commands' code."""
    motion = zarr.open_group(project / "data/features/mv_embed.zarr/protocol", mode="r")
    ids, features = list(map(str, motion["id"][:])), {"motion": to_unit_length(np.asarray(motion["features"]))}
    if kind == "motion":
        return ids, features
    pictures = zarr.open_group(project / "data/features/clip_image.zarr", mode="r")
    assert list(pictures["id"][:]) == ids
    return ids, {"picture": to_unit_length(np.asarray(pictures["features"]).mean(axis=1)), **features}


def test_similar_clips_of_a_clip_and_of_its_file_somewhere_else(finished: Path, tmp_path: Path) -> None:
    ids, features = mean_features(finished)
    asked = len(ids) // 2
    cosines = np.mean([part @ part[asked] for part in features.values()], axis=0)
    cosines[asked] = -2
    wanted = [ids[row] for row in np.argsort(-cosines)[:5]]
    out = run("moclip", "similar", ids[asked], "-k", "5", "--csv", tmp_path / "a.csv", cwd=finished).stdout
    assert f"most similar to {ids[asked]}, by picture and motion, of {len(ids)} clips" in out
    rows = rows_of(tmp_path / "a.csv")
    assert [row["clip"] for row in rows] == wanted
    assert [float(row["cosine"]) for row in rows] == pytest.approx(sorted(cosines)[:-6:-1], abs=1e-4)
    assert all(row["clip"] in out for row in rows)
    copy = tmp_path / f"elsewhere{Path(ids[asked]).suffix}"
    shutil.copy(finished / "data/demo/videos" / ids[asked], copy)
    page = tmp_path / "page.html"
    run("moclip", "similar", copy, "-k", "6", "--csv", tmp_path / "b.csv", "--page", page, cwd=finished)
    again = rows_of(tmp_path / "b.csv")
    assert again[0]["clip"] == ids[asked], "the file's own features are found first"
    assert float(again[0]["cosine"]) == pytest.approx(1, abs=1e-4)
    assert {row["clip"] for row in again[1:]} == set(wanted)
    check_page(page, 7)


def test_a_file_whose_name_is_not_text_is_refused(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"a\xff.avi")
    file.touch()
    error = run("moclip", "similar", file, cwd=finished, code=1).stderr
    assert error == f"error: {tmp_path}/a\\xff.avi: its name is not UTF-8\n  rename it, or give it by a link\n"


def check_page(page: Path, clips: int) -> None:
    text = page.read_text()
    assert text.count("<article") == clips
    assert text.count("data:image/jpeg") == text.count("data:image/webp") == clips, "a still and its motion each"
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text), "nothing from outside"
    assert "url(" not in text
    assert 'name="viewport"' in text


def test_one_kind_of_features_alone(finished: Path, tmp_path: Path) -> None:
    ids, features = mean_features(finished)
    for kind, part in features.items():
        run("moclip", "similar", ids[0], "-k", "1", "--by", kind, "--csv", tmp_path / "a.csv", cwd=finished)
        assert rows_of(tmp_path / "a.csv")[0]["clip"] == ids[int(np.argmax(part[1:] @ part[0])) + 1]


def test_without_an_encoder_motion_alone_is_compared(project: Path, tmp_path: Path) -> None:
    set_keys(project / "params.yaml", {"clip.model": False, "clip.files": "data/none"})
    for stage in ("clip_text", "clip_image", "train_fusion"):
        run("moclip", stage, cwd=project)
    ids, features = mean_features(project, "motion")
    cosines = features["motion"][1:] @ features["motion"][0]
    out = run("moclip", "similar", ids[0], "-k", "1", cwd=project).stdout
    assert "by motion, of" in out
    assert rows_of(project / "ask/similar.csv")[0]["clip"] == ids[int(np.argmax(cosines)) + 1]
    wrong = run("moclip", "similar", ids[0], "--by", "picture", cwd=project, code=1).stderr
    assert "clip.model is false" in wrong
    (project / "data/predictions.parquet").unlink()
    assert "by motion" in run("moclip", "suspects", cwd=project).stdout
    clip = tmp_path / f"pool/clip{Path(ids[0]).suffix}"
    clip.parent.mkdir()
    shutil.copy(project / "data/demo/videos" / ids[0], clip)
    run("moclip", "label-next", "1", "--pool", clip.parent, cwd=project)
    assert rows_of(project / "ask/label-next.csv")[0]["clip"] == str(clip)


def test_errors_say_what_to_do(project: Path) -> None:
    ids, _ = mean_features(project)
    wrong = run("moclip", "similar", f"{ids[3]}x", cwd=project, code=1).stderr
    assert f"did you mean {ids[3]}?" in wrong
    assert "Traceback" not in wrong
    every = run("moclip", "label-next", "3", cwd=project, code=1).stderr
    assert every.startswith("error: --pool unlabelled: every clip is in a list")
    set_keys(project / "params.yaml", {"evaluate.protocol": "4x1"})
    stale = run("moclip", "similar", ids[0], cwd=project, code=1).stderr
    assert "evaluate.protocol" in stale
    assert "dvc repro embed_mv" in stale
    set_keys(project / "params.yaml", {"evaluate.protocol": "3x1", "mv.clip": 10})
    assert "dvc repro extract_mv" in run("moclip", "duplicates", cwd=project, code=1).stderr
    set_keys(project / "params.yaml", {"mv.clip": 20})
    shutil.rmtree(project / "data/features/mv_embed.zarr")
    for command in (("suspects", "--by", "both"), ("similar", ids[0], "--by", "motion")):
        assert "run: moclip embed_mv" in run("moclip", *command, cwd=project, code=1).stderr
    assert "by picture, of" in run("moclip", "similar", ids[0], cwd=project).stdout


@pytest.fixture
def with_copies(project: Path) -> tuple[Path, str, str]:
    """A project in which a train clip is in test, too, re-encoded, and another one with the same bytes is in train.

    A third new clip cannot be read.
    """
    videos, splits = project / "data/demo/videos", project / "data/demo/splits"
    (first, _), (second, label) = (line.split() for line in (splits / "trainlist01.txt").read_text().splitlines()[:2])
    again = str(Path(first).with_name("v_Again_g90_c01.mp4"))
    same = str(Path(second).with_name(f"v_Same_g91_c01{Path(second).suffix}"))
    pictures = np.stack(read_pictures(videos / first, range(probe(videos / first).frames)))
    encode(videos / again, pictures, "libx264")
    shutil.copy(videos / second, videos / same)
    broken = str(Path(second).with_name("v_Broken_g92_c01.avi"))
    (videos / broken).write_bytes(b"no video")
    for name, line in (("testlist01.txt", f"{again}\n{broken}"), ("trainlist01.txt", f"{same} {label}")):
        text = (splits / name).read_text().rstrip("\n")
        (splits / name).write_text(f"{text}\n{line}\n")
    for stage in ("index", "extract_mv"):
        run("moclip", stage, cwd=project)
    return project, first, again


def test_copies_across_splits_come_first(with_copies: tuple[Path, str, str]) -> None:
    project, first, again = with_copies
    out = run("moclip", "duplicates", cwd=project).stdout
    rows = rows_of(project / "ask/duplicates.csv")
    leaks = [row for row in rows if row["splits"] in ("train/val", "train/test", "val/test")]
    assert rows[: len(leaks)] == leaks
    found = [row for row in leaks if again in (row["clip"], row["copy"])]
    assert [(row["kind"], row["clip"], row["copy"], row["splits"][-4:]) for row in found] == [
        ("re-encoded", first, again, "test")
    ]
    assert float(found[0]["picture"]) > 0.998
    assert 0.9 < float(found[0]["motion"]) < 1
    same = [row for row in rows if row["kind"] == "same file"]
    assert ["Same" in row["copy"] or "Same" in row["clip"] for row in same] == [True]
    assert same[0]["splits"] in ("train", "train/val")
    assert (same[0]["picture"], same[0]["motion"]) == ("1.0", "1.0")
    assert len({frozenset((row["clip"], row["copy"])) for row in rows}) == len(rows), "each pair once"
    assert f"{len(rows)} pairs of copies" in out
    assert re.search(r"1 of \d+ clips left out, without features: 1 x ", out), "the broken clip is counted"


def test_a_wrong_label_is_the_first_suspect(project: Path) -> None:
    """The features of the project are replaced by some that tell the classes apart."""
    index = pd.read_parquet(project / "data/index.parquet")
    clips = index[index["status"] == "ok"].sort_values("id")
    tested = clips[clips["split"] == "test"]
    sources = tested["class"] + tested["group"]
    wrong = set(tested["id"][sources == sources[sources.duplicated()].iloc[0]])  # all clips of one source
    assert len(wrong) > 1
    rng = np.random.default_rng(0)
    shown = clips.set_index("id")["label"].where(
        ~clips.set_index("id").index.isin(wrong), lambda label: (label + 1) % 4
    )
    centres = rng.normal(size=(4, 4096))
    for group in ("protocol", "views"):
        store = zarr.open_group(project / f"data/features/mv_embed.zarr/{group}", mode="r+")
        features = store["features"]
        of_clip = centres[shown[list(map(str, store["id"][:]))], : features.shape[-1]]
        of_view = of_clip if features.ndim == 2 else of_clip[:, None]
        features[:] = of_view + 0.1 * rng.normal(size=features.shape)
    (project / "data/predictions.parquet").unlink()
    (project / "data/validation.parquet").unlink()
    out = run("moclip", "suspects", "-n", "3", "--by", "motion", "--page", "ask/page.html", cwd=project).stdout
    check_page(project / "ask/page.html", 3)
    rows = rows_of(project / "ask/suspects.csv")
    first = rows[: len(wrong)]
    assert {row["clip"] for row in first} == wrong
    for row in first:  # the other clip of its source, with the same wrong label, does not count
        assert (row["score"], row["prediction"], row["features"]) == ("1.0", "", "held out")
    names = sorted(set(clips["class"]))
    assert rows[0]["suggested"] == names[(names.index(rows[0]["class"]) + 1) % 4]
    assert float(rows[len(wrong)]["score"]) < 0.5
    assert "set fit.folds" in out


def test_predictions_by_networks_that_did_not_see_a_clip_count_too(finished: Path, tmp_path: Path) -> None:
    run("moclip", "suspects", "-n", "99", "--csv", tmp_path / "a.csv", cwd=finished)
    rows = {row["clip"]: row for row in rows_of(tmp_path / "a.csv")}
    head = json.loads(run("python", "-c", TRUSTED, cwd=finished).stdout)
    for name in ("validation", "predictions"):
        table = pd.read_parquet(finished / f"data/{name}.parquet")
        logits = np.stack(table[head["stream"]].to_list()).astype(float) / head["temperature"]
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for clip, label, share in zip(table["id"], table["label"], shares, strict=True):
            row = rows[clip]
            assert float(row["prediction"]) == pytest.approx(1 - share[label], abs=2e-4)
            assert float(row["score"]) == pytest.approx((float(row["neighbours"]) + 1 - share[label]) / 2, abs=2e-4)
            assert row["features"] == "held out"
    train = [row for row in rows.values() if row["split"] == "train"]
    assert train
    assert all(row["prediction"] == "" and row["features"] == "trained on" for row in train)
    scores = [float(row["score"]) for row in rows.values()]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1


TRUSTED = """
import json
from moclip.models.fusion import load_fusion
from pipeline import paths
from pipeline.verdict import trusted_stream
stream = trusted_stream()
print(json.dumps({"stream": stream, "temperature": load_fusion(paths.FUSION).temperature(stream)}))
"""


def test_the_next_clips_to_annotate_are_read_like_predictions(project: Path) -> None:
    videos = project / "data/demo/videos"
    names = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.avi"))[:4]
    (videos / "unlabelled").mkdir()
    for number, name in enumerate(names):
        shutil.copy(videos / name, videos / f"unlabelled/{number}.avi")
    (videos / "unlabelled/broken.avi").write_bytes(b"no video")
    run("moclip", "index", cwd=project)
    done = run("moclip", "label-next", "3", "--page", "ask/page.html", cwd=project)
    rows = rows_of(project / "ask/label-next.csv")
    assert len(rows) == 3
    assert "1 of 5 clips left out, not readable" in done.stdout
    answers = json.loads(run("moclip", "predict", videos / "unlabelled", "--top", "1", "--json", cwd=project).stdout)
    best = {Path(one["clip"]).name: one[one["trusted"]][0] for one in answers if "trusted" in one}
    for row in rows:
        answer = best[Path(row["clip"]).name]
        assert row["clip"].startswith("unlabelled/")
        assert row["predicted"] == answer["class"]
        assert float(row["probability"]) == pytest.approx(answer["probability"], abs=2e-4)
        assert float(row["score"]) == pytest.approx(float(row["uncertainty"]) * float(row["distance"]), abs=1e-4)
        assert float(row["distance"]) == pytest.approx(0, abs=1e-3), "all are copies of clips with a label"
    check_page(project / "ask/page.html", 3)
    folder = run("moclip", "label-next", "1", "--pool", videos / names[0].split("/")[0], cwd=project)
    assert "annotate next: 1 of" in folder.stdout
