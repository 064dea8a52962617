"""The parts of the library that stages share: features on disk, sampling, crops, networks, scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from moclip.data.crops import Crops, crop_and_resize, protocol_crops, random_crops
from moclip.data.fusion_data import FusionData
from moclip.data.sampling import motion_frames, segment_frames, still_frames
from moclip.data.selection import base_classes
from moclip.errors import DatasetError, ModelError, StoreError
from moclip.evaluation.metrics import (
    base_to_new,
    bootstrap_interval,
    calibration_error,
    complementarity,
    mean_class_accuracy,
    score_sum,
    top_k,
)
from moclip.models.class_texts import phrase, read_phrases, read_prompts
from moclip.models.flops import count_parameters, multiply_adds, segment_cost
from moclip.models.fusion import FusionConfig
from moclip.models.heads.base import Dropout, HiddenFusion
from moclip.models.heads.concat import ConcatFusion
from moclip.models.heads.text import TextFusion
from moclip.models.mv_tsn import FieldToRgb, MvTsn, MvTsnConfig, load_mv_tsn, parameter_groups
from moclip.store.features import Features, write_features
from moclip.training.fusion import FusionRecipe, train_fusion_head

GRID = (30, 40)


# ---------------------------------------------------------------------------------------------- features on disk


def stored(folder: Path) -> Path:
    values = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    ids = [f"class/clip{n}.avi" for n in range(1000)]
    write_features(folder / "f.zarr", ids, {"features": (values, ("feature",))}, {"model": "m"})
    return folder / "f.zarr"


def test_features_come_back_by_id(tmp_path: Path) -> None:
    features = Features(stored(tmp_path), "clip_image")
    rows = features.rows("features", ["class/clip7.avi", "class/clip0.avi"])
    np.testing.assert_array_equal(rows, [[21, 22, 23], [0, 1, 2]])
    assert features.attributes["model"] == "m"


def test_a_missing_feature_is_an_error_that_names_the_clip(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"class/gone\.avi.*clip_image|class/gone\.avi"):
        Features(stored(tmp_path), "clip_image").rows("features", ["class/clip1.avi", "class/gone.avi"])


def test_a_lost_chunk_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    path = stored(tmp_path)
    next((path / "features/c").rglob("0")).unlink() if (path / "features/c/0").is_file() else shutil.rmtree(
        path / "features/c/0"
    )
    with pytest.raises(StoreError, match=r"no number is stored for class/clip0\.avi"):
        Features(path, "clip_image").array("features")


def test_a_single_number_that_is_missing_is_an_error(tmp_path: Path) -> None:
    features = np.ones((3, 4), np.float32)
    features[1, 2] = np.nan
    write_features(tmp_path / "f.zarr", ["a", "b", "c"], {"features": (features, ("feature",))}, {})
    with pytest.raises(StoreError, match="no number is stored for b"):
        Features(tmp_path / "f.zarr", "clip_image").array("features")


def test_a_flipped_byte_is_an_error(tmp_path: Path) -> None:
    path = stored(tmp_path)
    chunk = next(file for file in (path / "features/c").rglob("*") if file.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        Features(path, "clip_image").array("features")


def test_no_store_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="run: moclip embed_mv"):
        Features(tmp_path / "none.zarr", "embed_mv")


# ----------------------------------------------------------------------------------------------------- sampling


def test_each_segment_gives_a_frame_of_its_own_part() -> None:
    lengths = np.array([96, 7, 3, 2, 1])
    middle = segment_frames(lengths, 3)
    np.testing.assert_array_equal(middle[0], [16, 48, 80])
    drawn = np.stack([segment_frames(lengths, 3, np.random.default_rng(seed)) for seed in range(200)])
    for part in range(3):
        assert drawn[:, 0, part].min() == 32 * part
        assert drawn[:, 0, part].max() == 32 * part + 31
    assert (drawn < lengths[None, :, None]).all()
    assert (drawn >= 0).all()


def test_an_i_frame_takes_the_motion_before_it() -> None:
    types = np.frombuffer(b"IPPIPPIIPPIII", dtype=np.uint8)
    target = motion_frames(types, np.array([0, 6, 10]), np.array([6, 4, 3]), np.ones(3, bool))
    assert target.tolist() == [1, 1, 2, 2, 4, 5, 8, 8, 8, 9, 10, 11, 12]


def test_sampling_skips_b_frames_without_vectors() -> None:
    types = np.frombuffer(b"IBPBPIBPBP", dtype=np.uint8)
    target = motion_frames(types, np.array([0, 5]), np.array([5, 5]), np.array([True, False]))
    assert target.tolist() == [1, 1, 2, 3, 4, 7, 7, 7, 7, 9]


def test_random_stills_depend_on_seed_and_clip_alone() -> None:
    first = still_frames(100, 4, "random", 0, "a/b.avi")
    assert first.tolist() == still_frames(100, 4, "random", 0, "a/b.avi").tolist()
    assert first.tolist() != still_frames(100, 4, "random", 1, "a/b.avi").tolist()
    assert first.tolist() != still_frames(100, 4, "random", 0, "a/c.avi").tolist()
    assert [frame // 25 for frame in first] == [0, 1, 2, 3]
    assert still_frames(9, 1, "middle", 0, "a").tolist() == [4]


# -------------------------------------------------------------------------------------------------------- crops


def fields(count: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, (count, 2, *GRID), dtype=torch.int8, generator=generator)


@pytest.mark.parametrize("size", [24, 64, 224])
def test_pictures_equal_crop_resize_flip_done_plainly(size: int) -> None:
    batch = fields()
    top, left = np.array([0, 3, 5, 10, 0, 2]), np.array([0, 4, 10, 1, 20, 7])
    height, width = np.array([30, 20, 25, 20, 30, 22]), np.array([40, 24, 30, 33, 20, 28])
    flip = np.array([False, True, False, True, True, False])
    shown = crop_and_resize(batch, Crops(top * 1.0, left * 1.0, height * 1.0, width * 1.0, flip), size)
    for n in range(len(batch)):
        cut = batch[n : n + 1, :, top[n] : top[n] + height[n], left[n] : left[n] + width[n]].float() / 127
        plain = functional.interpolate(cut, (size, size), mode="bilinear", align_corners=False)[0]
        if flip[n]:
            plain = plain.flip(-1)
            plain[0] = -plain[0]
        torch.testing.assert_close(shown[n], plain, atol=1e-5, rtol=0)


def test_multi_scale_crops_stay_inside_and_cover_the_scales() -> None:
    crops = random_crops(4000, GRID, (1, 0.875, 0.75), True, np.random.default_rng(0))
    assert (crops.top >= 0).all()
    assert (crops.left >= 0).all()
    assert (crops.top + crops.height <= 30 + 1e-9).all()
    assert (crops.left + crops.width <= 40 + 1e-9).all()
    assert sorted(set(crops.height.tolist())) == [22.5, 26.25, 30.0]
    assert not np.any(np.abs(crops.height - crops.width) > 3.76), "at most one step of scale apart"
    assert 0.45 < crops.flip.mean() < 0.55
    inside = crops.height < 30  # else there is one place from top to bottom
    places = {
        (round(4 * top / (30 - height)), round(4 * left / (40 - width)))
        for top, left, height, width in zip(
            crops.top[inside], crops.left[inside], crops.height[inside], crops.width[inside], strict=True
        )
    }
    edges = {(down, across) for down in (0, 2, 4) for across in (0, 2, 4)}
    assert places == edges | {(1, 1), (1, 3), (3, 1), (3, 3)}, "corners, edges, the centre, and the quarter points"


def test_ten_crops_are_five_places_each_also_flipped() -> None:
    crops = protocol_crops(GRID, 0.875, 10)
    assert crops.flip.tolist() == [False] * 5 + [True] * 5
    places = list(zip(crops.top.tolist(), crops.left.tolist(), strict=True))
    assert places[:5] == places[5:]
    assert len(set(places)) == 5
    assert protocol_crops(GRID, 1, 1).left.tolist() == [5.0]


# ----------------------------------------------------------------------------------------------------- networks


def network(backbone: str = "test_resnet") -> MvTsn:
    torch.manual_seed(0)
    return MvTsn(MvTsnConfig(backbone, ("a", "b", "c"), 32, 0.5))


def test_logits_are_the_mean_over_the_segments() -> None:
    model = network().eval()
    shown = torch.randn(2, 3, 2, 32, 32)
    whole = model(shown)
    single = torch.stack([model(shown[:, part : part + 1]) for part in range(3)]).mean(0)
    torch.testing.assert_close(whole, single)


@pytest.mark.parametrize("backbone", ["test_resnet", "efficientnet_b0", "mobilenetv3_small_050"])
def test_optimiser_groups_follow_the_recipe(backbone: str) -> None:
    model = network(backbone)
    groups = parameter_groups(model, lr=0.01, weight_decay=1e-4, lr_mult_head=1, lr_mult_stem=0.1, lr_mult_rest=0.01)
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(model.parameters())), "every parameter, once"
    assert rates[model.head.weight] == 0.01
    assert rates[model.input_norm.weight] == pytest.approx(0.001)
    named = dict(model.backbone.named_parameters())
    first = next(name for name, parameter in named.items() if parameter.ndim == 4)
    assert rates[named[first]] == pytest.approx(0.001), "the first convolution is the stem"
    last = [parameter for parameter in named.values() if parameter.ndim == 4][-1]
    assert rates[last] == pytest.approx(0.0001)
    for parameter, value in decay.items():
        assert value == (1e-4 if parameter.ndim > 1 else 0)


def test_networks_come_back_from_disk(tmp_path: Path) -> None:
    model = network().eval()
    model.save(tmp_path / "m.safetensors")
    again = load_mv_tsn(tmp_path / "m.safetensors")
    assert again.config == model.config
    shown = torch.randn(1, 2, 2, 32, 32)
    torch.testing.assert_close(again(shown), model(shown))


@pytest.mark.parametrize("head", ["concat", "text"])
def test_a_head_learns_in_bfloat16_what_it_learns_in_float32(head: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(3, (120,))
    stills = functional.normalize(torch.eye(16)[labels] + 0.3 * torch.randn(120, 16), dim=1)[:, None]
    data = FusionData(torch.randn(120, 1, 8), stills, labels)
    text = functional.normalize(torch.eye(16)[:3] + 0.1 * torch.randn(3, 16), dim=1)
    ends = {}
    for precision in ("fp32", "bf16"):
        model = heads(8, 16, text)[head]
        recipe = FusionRecipe(lr=0.01, weight_decay=0.01, epochs=8, batch=32, seed=0, precision=precision)
        best = train_fusion_head(model, data, data, recipe, torch.device("cpu"), lambda row: None)
        assert best["val_top1"] > 0.95
        ends[precision] = model.hidden.weight.detach()
    assert ends["bf16"].dtype == torch.float32, "the weights stay"
    assert not torch.equal(ends["fp32"], ends["bf16"])
    assert (ends["bf16"] - ends["fp32"]).abs().mean() < 0.01


def test_the_papers_head_has_the_papers_parameters() -> None:
    assert count_parameters(ConcatFusion(FusionConfig(1280, 512, 512, 101, 0.5))) == 969_829


def heads(motion: int, picture: int, text: torch.Tensor, pooling: str = "mean") -> dict[str, HiddenFusion]:
    torch.manual_seed(0)
    config = FusionConfig(motion, picture, 64, len(text), 0.1, pooling)
    return {"concat": ConcatFusion(config), "text": TextFusion(config, text, 20.0)}


def test_the_text_head_begins_as_zero_shot_clip() -> None:
    text, stills = (functional.normalize(torch.randn(shape), dim=-1) for shape in ((5, 16), (7, 3, 16)))
    head = heads(8, 16, text)["text"].eval()
    zero_shot = 20.0 * functional.normalize(stills.mean(1), dim=1) @ text.T
    torch.testing.assert_close(head(torch.randn(7, 8), stills), zero_shot)


def test_the_text_head_scores_classes_that_it_never_saw() -> None:
    """Colour (seen in the still) x motion (in the vectors); of six pairs it trains on four, and names the others."""
    torch.manual_seed(0)
    colours, moves, width = torch.randn(2, 24), torch.randn(3, 24), 24
    pairs = [(colour, move) for colour in range(2) for move in range(3)]
    text = functional.normalize(torch.stack([colours[c] + moves[m] for c, m in pairs]), dim=1)
    base = torch.tensor([0, 1, 2, 3])  # (1, 1) and (1, 2) are never seen
    known = torch.randn(3, 10)

    def clips(labels: torch.Tensor) -> FusionData:
        colour, move = (torch.tensor(pairs)[labels, part] for part in (0, 1))
        motion = known[move] + 0.3 * torch.randn(len(labels), 10)
        still = functional.normalize(colours[colour] + 0.3 * torch.randn(len(labels), width), dim=1)
        return FusionData(motion[:, None], still[:, None], labels)

    train, val = (clips(base[torch.randint(4, (count,))]) for count in (200, 40))
    new = clips(torch.tensor([4, 5]).repeat(50))
    right = {}
    for name, head in heads(10, width, text).items():
        recipe = FusionRecipe(lr=0.003, weight_decay=0.01, epochs=40, batch=32, seed=0)
        best = train_fusion_head(head, train, val, recipe, torch.device("cpu"), lambda row: None)
        assert best["val_top1"] > 0.95, name
        with torch.inference_mode():
            logits = head(new.motion[:, 0], new.stills)
        right[name] = base_to_new(logits.numpy(), new.labels.numpy(), 4)["new"]
    assert right["text"] > 0.9
    assert right["concat"] < 0.7, "it has no means to tell them apart"


def test_training_learns_nothing_of_classes_that_do_not_occur() -> None:
    torch.manual_seed(0)
    stills = functional.normalize(torch.randn(40, 1, 12), dim=2)
    data = FusionData(torch.randn(40, 1, 6), stills, torch.randint(3, (40,)))
    text = functional.normalize(torch.randn(5, 12), dim=1)
    other = torch.cat([text[:3], functional.normalize(torch.randn(2, 12), dim=1)])
    ends = []
    for names in (text, other):
        head = heads(6, 12, names)["text"]
        recipe = FusionRecipe(lr=0.01, weight_decay=0.01, epochs=3, batch=16, seed=0)
        train_fusion_head(head, data, data, recipe, torch.device("cpu"), lambda row: None)
        ends.append(head.state_dict())
    assert torch.equal(ends[0]["residual.weight"], ends[1]["residual.weight"])
    assert ends[0]["residual.weight"].abs().max() > 0


def test_attention_begins_as_the_mean_and_learns_which_still_matters() -> None:
    """One still of four shows the class, the others an empty scene, and the mean is mostly scene."""
    torch.manual_seed(0)
    classes, scene = functional.normalize(torch.randn(4, 16), dim=1), functional.normalize(torch.randn(16), dim=0)

    def clips(count: int) -> FusionData:
        labels = torch.randint(4, (count,))
        stills = scene + 0.2 * torch.randn(count, 4, 16)
        stills[torch.arange(count), torch.randint(4, (count,))] = 0.5 * classes[labels] + 0.15 * torch.randn(count, 16)
        return FusionData(torch.randn(count, 1, 6), functional.normalize(stills, dim=2), labels)

    train, val = clips(400), clips(200)
    text = functional.normalize(torch.randn(4, 16), dim=1)
    same = [heads(6, 16, text, pooling)["concat"].eval() for pooling in ("mean", "attention")]
    same[1].load_state_dict(same[0].state_dict(), strict=False)
    torch.testing.assert_close(*(head(val.motion[:, 0], val.stills) for head in same))
    top1 = {}
    for pooling in ("mean", "attention"):
        recipe = FusionRecipe(lr=0.01, weight_decay=0.01, epochs=40, batch=64, seed=0)
        head = heads(6, 16, text, pooling)["concat"]
        best = train_fusion_head(head, train, val, recipe, torch.device("cpu"), lambda row: None)
        top1[pooling] = best["val_top1"]
    assert top1["attention"] > top1["mean"] + 0.1


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, ones = Dropout(0.3), torch.ones(1000, 100)
    shown = drop(ones)
    assert (shown == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert shown.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(drop.eval()(ones), ones)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "resnet10t", "efficientnet_b0"])
def test_a_stem_without_stride_doubles_the_resolution(backbone: str) -> None:
    torch.manual_seed(0)
    plain, fine = (MvTsn(MvTsnConfig(backbone, ("a", "b"), 64, 0.5, stem_stride=stride)) for stride in (2, 1))
    assert fine.state_dict().keys() == plain.state_dict().keys(), "the same weights fit"
    assert segment_cost(fine)["multiply_adds"] == pytest.approx(4 * segment_cost(plain)["multiply_adds"], rel=0.05)


def test_a_stem_that_has_no_stride_of_two_is_named() -> None:
    with pytest.raises(ModelError, match=r"vit_tiny_patch16_224.*no stride of 2"):
        MvTsn(MvTsnConfig("vit_tiny_patch16_224", ("a", "b"), 224, 0.5, stem_stride=1))


def test_motion_as_a_picture() -> None:
    """Still is mid-grey without blue; right is redder, down greener, and the faster the bluer."""
    fields = torch.zeros(1, 2, 1, 4)
    fields[0, :, 0] = torch.tensor([[0, 1, 0, -1], [0, 0, 0.5, -1]])
    picture = FieldToRgb()
    rgb = (picture(fields) * picture.std + picture.mean)[0, :, 0].T
    expected = [[0.5, 0.5, 0], [1, 0.5, 1], [0.5, 0.75, 0.5], [0, 0, 1]]
    torch.testing.assert_close(rgb, torch.tensor(expected), atol=1e-6, rtol=0)
    model = MvTsn(MvTsnConfig("resnet18", ("a", "b"), 32, 0.5, channels=3))
    assert dict(model.named_parameters())["backbone.conv1.weight"].shape[1] == 3
    assert not any(name.startswith("input_norm") for name, _ in model.named_parameters())


def test_the_papers_network_costs_what_the_paper_says() -> None:
    model = MvTsn(MvTsnConfig("efficientnet_b0", tuple("abc"), 224, 0.5))
    assert model.width == 1280
    segment = segment_cost(model)["multiply_adds"]
    assert segment == pytest.approx(0.381e9, rel=0.005)
    with torch.device("meta"):
        tower = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, projection_dim=512))  # ViT-B/32
        picture = multiply_adds(tower, torch.zeros(1, 3, 224, 224))
    assert 32 * segment + picture == pytest.approx(16.6e9, rel=0.005), "the paper prints 16.9, taking 0.39 a segment"


@pytest.mark.slow
def test_real_weights_from_a_file_without_a_hub(real_data: Path) -> None:
    weights = real_data / "weights/mobilenetv2_100_imagenet.safetensors"
    config = MvTsnConfig("mobilenetv2_100", ("a", "b"), 64, 0.5)
    model, fresh = (MvTsn(config, given).state_dict() for given in (str(weights), False))
    assert model["backbone.conv_stem.weight"].shape[1] == 2
    assert not torch.allclose(model["backbone.conv_head.weight"], fresh["backbone.conv_head.weight"])
    again = MvTsn(config, str(weights)).state_dict()
    torch.testing.assert_close(again["backbone.conv_head.weight"], model["backbone.conv_head.weight"])


def test_weights_of_another_network_are_refused_and_its_own_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(7)
    own = timm.create_model("test_resnet")
    save_file({name: value.contiguous() for name, value in own.state_dict().items()}, tmp_path / "whole.safetensors")
    rest = {name: value.contiguous() for name, value in own.state_dict().items() if not name.startswith("layer4.")}
    save_file(rest, tmp_path / "rest.safetensors")
    torch.manual_seed(0)
    unused = torch.rand(3), MvTsn(MvTsnConfig("test_resnet", ("a", "b"), 64, 0.5)), torch.rand(3)
    torch.manual_seed(0)
    assert torch.rand(3).equal(unused[0])
    loaded = MvTsn(MvTsnConfig("test_resnet", ("a", "b"), 64, 0.5), str(tmp_path / "whole.safetensors"))
    assert torch.rand(3).equal(unused[2]), "the check draws no random numbers"
    assert loaded.backbone.state_dict()["layer4.0.conv1.weight"].equal(own.state_dict()["layer4.0.conv1.weight"])
    for backbone, file, reason in (
        ("test_resnet", "rest", r"3 of the weights are not in the file: layer4\.0\.conv1\.weight"),
        ("test_efficientnet", "whole", "cannot load the weights: they are of another network"),
    ):
        with pytest.raises(ModelError, match=reason):
            MvTsn(MvTsnConfig(backbone, ("a", "b"), 64, 0.5), str(tmp_path / f"{file}.safetensors"))


@pytest.mark.parametrize(
    ("backbone", "pretrained", "expected_text"),
    [
        ("efficientnet_b99", False, "no such timm model"),
        ("test_resnet", "/nowhere.safetensors", "no such weights file"),
        ("test_resnet", __file__, "not a .safetensors file"),
    ],
)
def test_a_wrong_backbone_or_weights_are_named(backbone: str, pretrained: bool | str, expected_text: str) -> None:
    with pytest.raises(ModelError, match=expected_text):
        MvTsn(MvTsnConfig(backbone, ("a", "b"), 64, 0.5), pretrained)


# ------------------------------------------------------------------------------------------------ text and scores


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HorseRiding", "horse riding"),
        ("YoYo", "yo yo"),
        ("brush_hair", "brush hair"),
        ("noFight", "no fight"),
        ("TaiChi", "tai chi"),
        ("Swing", "swing"),
    ],
)
def test_a_class_name_becomes_words(name: str, words: str) -> None:
    assert phrase(name) == words


def test_prompts_and_phrases_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(["a {}", "b"]))
    with pytest.raises(DatasetError, match="exactly one"):
        read_prompts(path)
    path.write_text(json.dumps({"HorseRiding": ["riding a horse", "on horseback"]}))
    assert read_phrases(path, ["HorseRiding", "YoYo"]) == {
        "HorseRiding": ["riding a horse", "on horseback"],
        "YoYo": ["yo yo"],
    }
    path.write_text("{")
    with pytest.raises(DatasetError, match="not valid JSON"):
        read_phrases(path, ["A"])


def test_scores_by_hand() -> None:
    logits = np.array([[3, 2, 1], [1, 2, 3], [2, 2, 0], [0, 2, 2.0]])
    labels = np.array([0, 0, 1, 2])
    assert top_k(logits, labels, 1) == 0.25, "a tie goes to the lower class, as argmax has it"
    assert top_k(logits, labels, 1) == (logits.argmax(1) == labels).mean()
    assert top_k(logits, labels, 2) == 0.75
    assert top_k(logits, labels, 5) == 1
    assert mean_class_accuracy(logits.argmax(1), labels) == pytest.approx(0.5 / 3)


def test_calibration_by_hand() -> None:
    sure = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]))
    labels = np.array([0, 1, 1, 0])  # of the three at 0.9 two are right; the one at 0.6 is right
    expected = 3 / 4 * abs(0.9 - 2 / 3) + 1 / 4 * abs(0.6 - 1)
    assert calibration_error(sure, labels) == pytest.approx(expected)
    assert calibration_error(1000 * np.eye(3), np.arange(3)) == 0


@pytest.mark.slow
def test_the_interval_covers_the_truth_and_knows_that_clips_of_a_source_are_alike() -> None:
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(40), 10)
    covered = widths = alone = 0.0
    for trial in range(40):
        right = np.repeat(rng.random(40) < 0.7, 10)  # a source is right or wrong as a whole
        low, high = bootstrap_interval(right[:, None], sources, trial, draws=1000)[0]
        covered += low <= 0.7 <= high
        widths += high - low
        low, high = bootstrap_interval(right[:, None], np.arange(400), trial, draws=1000)[0]
        alone += high - low
    assert covered >= 34
    assert widths > 2.5 * alone
    both = np.stack([np.ones(5, bool), np.arange(5) == 0], axis=1)
    assert bootstrap_interval(both, np.arange(5), 0).tolist() == [[1, 1], [0, 0.6]]


def test_the_streams_shares_add_up() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    shares = complementarity(np.array([0, 1, 0, 1, 0]), np.array([0, 0, 2, 2, 0]), labels)
    assert shares == pytest.approx({"both": 0.2, "mv_tsn_only": 0.2, "zero_shot_only": 0.2, "neither": 0.4})


def test_base_to_new_by_hand() -> None:
    logits = np.array([[2, 1, 9, 0], [1, 2, 0, 9], [0, 9, 1, 2], [9, 0, 2, 1], [0, 0, 3, 1]], dtype=float)
    labels = np.array([0, 0, 3, 3, 2])
    # within its own half: right, wrong | right, wrong, right
    found = base_to_new(logits, labels, 2)
    assert found == {"base": 0.5, "new": pytest.approx(2 / 3), "harmonic_mean": pytest.approx(4 / 7)}
    assert base_to_new(logits[1:2], labels[1:2], 2)["base"] == 0
    assert [base_classes(count) for count in (2, 5, 101)] == [1, 3, 51]


def test_summed_scores_are_the_mean_of_the_probabilities() -> None:
    one, two = np.log(np.array([[0.7, 0.2, 0.1]])), np.log(np.array([[0.1, 0.6, 0.3]]))
    summed = score_sum(one + 5, two)  # logits are free of a constant
    np.testing.assert_allclose(np.exp(summed), [[0.4, 0.4, 0.2]], rtol=1e-6)
    assert score_sum(1e4 * np.eye(3), 1e4 * np.eye(3)).argmax(1).tolist() == [0, 1, 2]
