"""Prediction of one clip: compare latency, compute and memory with zero-shot CLIP on 8 frames and with X-CLIP.

    python -m benchmarks.predict [--quick] [--out FILE]

Models have random weights: this compares what they cost, not how good their answers are.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from benchmarks.common import UCF_SIZE, make_clips, print_progress, real_clips, real_data
from benchmarks.comparison import Part, Run, peak_memory, run_as_program, step_timer
from moclip.inference.clip_input import FieldSettings, ViewSettings
from moclip.inference.predictor import Predictor
from moclip.models.class_texts import ClassTexts
from moclip.models.encoders.registry import load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.models.flops import fusion_cost, segment_cost
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.video.frames import read_frames
from moclip.video.probe import probe

FRAMES, CLIPS = 8, 10  # frames that the others see; real clips of H.264
CLASSES = tuple(f"class {number}" for number in range(101))
OURS, FAST, LITE = "ours", "ours, onnxruntime", "ours, preset folder, onnxruntime"
ZERO_SHOT, X_CLIP = "zero-shot CLIP, 8 frames", "X-CLIP base/32, 8 frames"
SETUP = {
    OURS: "`Predictor`: EfficientNet-B0 at 224 px on 32 segments, ViT-B/32 on one frame, the head; untrained weights",
    FAST: "the same with the runtime onnxruntime",
    LITE: "the same with MV-TSN as in the preset `folder`: 64 px, 8 segments of 3 fields",
    ZERO_SHOT: "`transformers` CLIP ViT-B/32, random weights; PyAV decodes up to the last of 8 frames, features' mean",
    X_CLIP: "`transformers` XCLIPModel with the configuration of base-patch32, random weights: cost only; the text "
    "side, also its video-conditioned prompts, is not counted",
}
Answer = Callable[[str], object]


def measure(part: Part) -> None:
    """Measure all three on the same clips, one clip at a time, in turns."""
    part.setup |= SETUP
    real = real_data()
    if real is None or part.quick:
        paths = make_clips(part.folder, "mpeg4", UCF_SIZE, 1 if part.quick else 4, 24 if part.quick else 160)
    else:
        h264 = real_clips(real)
        picked = np.linspace(0, len(h264) - 1, CLIPS).astype(int)
        paths = [*sorted((real / "codecs").glob("*.avi")), *(h264[number] for number in picked)]
    clips = [str(path) for path in paths]
    part.facts["clips"] = {"clips": len(clips), "frames": float(np.mean([probe(path).frames for path in paths]))}
    makers: dict[str, Callable[[], Answer]] = {
        OURS: functools.partial(models, part.quick),
        FAST: lambda: models(part.quick).with_runtime("onnxruntime"),
        LITE: lambda: folder_models(True, part.quick).with_runtime("onnxruntime"),
    }
    if part.quick:
        part.leave_out(f"zero-shot CLIP, X-CLIP, {FAST}", "not in the quick form")
        del makers[FAST]
    else:
        makers |= {ZERO_SHOT: zero_shot_answer, X_CLIP: x_clip_answer}
    latency(part, makers, clips)
    step_shares(part, clips)
    if not part.quick:
        part.facts["cost"] = costs()
        gmacs = {name: cost["multiply_adds"] / 1e9 for name, cost in part.facts["cost"].items()}
        held = {name: peak_memory(hold, makers[name], clips[0]) for name in (OURS, ZERO_SHOT, X_CLIP)}
        idle = peak_memory(hold, nothing, clips[0])
        for name in (ZERO_SHOT, X_CLIP):
            part.add_figure("multiply-adds a clip", "G", gmacs[OURS], gmacs[name], who=(OURS, name), less=True)
            part.add_figure("peak memory of a process", "MiB", held[OURS], held[name], who=(OURS, name), less=True)
        part.add_figure("peak memory with the imports alone", "MiB", idle)


def latency(part: Part, makers: dict[str, Callable[[], Answer]], clips: Sequence[str]) -> None:
    """Time rounds in which every contender labels the same clip."""
    answers = {name: make() for name, make in makers.items()}
    print_progress(f"{len(answers)} ways from a clip to its label")
    runs: dict[str, Run] = {
        name: functools.partial(label_next, answer, itertools.cycle(clips)) for name, answer in answers.items()
    }
    turns = part.turns(runs, 110, least=len(clips), most=5 * len(clips), spread=0.0)
    for name, seconds in turns.seconds.items():
        for share in (90, 99):
            value = 1e3 * float(np.percentile(seconds, share))
            part.add_figure(f"{name}: {share}th percentile", "ms a clip", value, rounds=turns.rounds)
    for name in runs:
        if name not in (OURS, FAST, LITE):
            for ours in (OURS, FAST, LITE):
                part.add_ratio("a clip to its label", turns, ours, name, "ms a clip")


def label_next(answer: Answer, clips: Iterator[str]) -> None:
    answer(next(clips))


def step_shares(part: Part, clips: Sequence[str]) -> None:
    """Return the share of each step in a prediction's time."""
    predictor = models(part.quick)
    spent: dict[str, float] = {}
    clock = functools.partial(step_timer, spent)
    for path in clips:
        with clock("decode, field"):
            read = predictor.read(path)
        predictor.classify(read, clock)
    whole = sum(spent.values())
    names = {"mv_tsn": "MV-TSN", "clip": "CLIP", "fusion": "head"}
    part.facts["shares"] = {names.get(name, name): round(seconds / whole, 4) for name, seconds in spent.items()}


def models(tiny: bool = False) -> Predictor:
    """Return a predictor with untrained models of the paper's shapes, or with tiny ones."""
    with tempfile.TemporaryDirectory() as folder:
        write_clip(folder, tiny)
        clip = load_encoder(EncoderSource(folder))
    config = MvTsnConfig("test_resnet" if tiny else "efficientnet_b0", CLASSES, 224, 0.5)
    network = MvTsn(config).eval().to(memory_format=torch.channels_last)
    head = ConcatFusion(FusionConfig(network.width, clip.width, 512, len(CLASSES), 0.5)).eval()
    return Predictor(
        mv_tsn=network,
        fusion=head,
        encoder=clip,
        classes=CLASSES,
        texts=ClassTexts(np.ones((len(CLASSES), clip.width), np.float32), 100.0, 0.0, ("{}",)),
        fields=FieldSettings(False, (240, 320), 8, 20.0, False),
        views=ViewSettings(2 if tiny else 32, 1, 0.875, 1, "middle", 0),
    )


def folder_models(with_clip: bool, quick: bool) -> Predictor:
    """Return untrained models of the preset `folder`: MV-TSN at 64 px, 8 segments of 3 fields."""
    base = models(quick)
    torch.manual_seed(0)
    config = MvTsnConfig("mobilenetv4_conv_small_050", CLASSES, 64, 0.2, channels=6, moments=3)
    network = MvTsn(config).eval()
    picture = base.encoder.width if with_clip and base.encoder else 1
    return dataclasses.replace(
        base,
        mv_tsn=network,
        fusion=ConcatFusion(FusionConfig(network.width, picture, 128, len(CLASSES), 0.5)).eval(),
        encoder=base.encoder if with_clip else None,
        texts=base.texts if with_clip else None,
        views=dataclasses.replace(base.views, segments=8, stack=3, stills=int(with_clip)),
    )


def write_clip(folder: str, tiny: bool) -> None:
    """Write an untrained CLIP with the image tower ViT-B/32, or with a tiny one."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    small = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4}
    text = {"num_hidden_layers": 1, "bos_token_id": 0, "eos_token_id": 1}
    text |= small | {"vocab_size": 4} if tiny else {}
    CLIPModel(CLIPConfig(text_config=text, vision_config=small if tiny else {})).save_pretrained(folder)
    CLIPTokenizer({"<|startoftext|>": 0, "<|endoftext|>": 1, "w": 2, "k</w>": 3}, []).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)


def nothing() -> Answer:
    return str


def zero_shot_answer() -> Answer:
    from transformers import CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1})).eval()
    return _label_frames(lambda pixels: model.get_image_features(pixels).pooler_output.mean(0))


def x_clip_answer() -> Answer:
    from transformers import XCLIPConfig, XCLIPModel

    model = XCLIPModel(XCLIPConfig(text_config={"num_hidden_layers": 1})).eval()
    return _label_frames(lambda pixels: model.get_video_features(pixels[None]).pooler_output[0])


def _label_frames(features: Callable[[torch.Tensor], torch.Tensor]) -> Answer:
    """Return a function that labels a clip from the features of its frames' pixels (frames, 3, rows, columns)."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()

    @torch.inference_mode()
    def answer(path: str) -> int:
        numbers = np.linspace(0, probe(path).frames - 1, FRAMES).astype(int)
        shown = [torch.from_numpy(picture).permute(2, 0, 1) for picture in read_frames(path, numbers)]
        found = features(processor(images=shown, return_tensors="pt")["pixel_values"])
        return int((found @ torch.ones(len(found), len(CLASSES))).argmax())

    return answer


def hold(make: Callable[[], Answer], path: str) -> None:
    make()(path)


def costs() -> dict[str, dict[str, int]]:
    """Return the multiply-adds per clip and the parameters of each contender, without the text side."""
    from benchmarks.encoders import TOWERS, count  # imports more of `transformers` than a prediction needs

    network = MvTsn(MvTsnConfig("efficientnet_b0", CLASSES, 224, 0.5))
    segment = segment_cost(network)
    head = fusion_cost(ConcatFusion(FusionConfig(network.width, 512, 512, len(CLASSES), 0.5)))
    tower, picture, _ = count(TOWERS["ViT-B/32"])
    video_side, frame, _ = count(TOWERS["X-CLIP B/32"])
    return {
        OURS: {
            "parameters": segment["parameters"] + tower + head["parameters"],
            "multiply_adds": 32 * segment["multiply_adds"] + picture + head["multiply_adds"],
        },
        ZERO_SHOT: {"parameters": tower, "multiply_adds": FRAMES * picture},
        X_CLIP: {"parameters": video_side, "multiply_adds": FRAMES * frame},
    }


if __name__ == "__main__":
    run_as_program("predict", __doc__)
