"""A clip from its file to its class, beside the bare work in it: decode, CLIP's and MV-TSN's forward passes.

    make demo && make bench-predict          (or: python -m benchmarks.predict --out FILE)

Theirs is a loop that decodes all pictures with their motion vectors (PyAV, one thread), keeps one, and runs both
networks on inputs prepared beforehand: no fields, no cropping, no resizing, no head. Two sets of models: those of the
last `dvc repro`, which are tiny, and untrained ones of the paper's shapes (EfficientNet-B0 at 224 px on 32 segments,
CLIP ViT-B/32). Starting up is in neither.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

from benchmarks.common import ROOT, Row, arguments, by_turns, real_clips, real_data, report
from moclip.data.crops import crop_and_resize, protocol_crops
from moclip.inference.clip_input import ClipInput
from moclip.inference.predictor import Predictor
from moclip.models.clip_encoder import ClipEncoder
from moclip.models.fusion import ConcatFusion, FusionConfig
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.video.clip_files import find_clips
from moclip.video.probe import probe
from pipeline import params, paths
from pipeline.commands.predict import load_predictor

OVERHEAD = 1.15
CLIPS = 10


def chosen_clips() -> dict[str, list[Path]]:
    """Real clips where there are any, else the demo's; evenly over the classes."""
    folder = real_data()
    if folder is None:
        return {"demo": evenly(find_clips([Path("data/demo/videos")]))}
    return {
        "fight_surv (H.264)": evenly(real_clips(folder)),
        "UCF-101 AVI (MPEG-4)": sorted((folder / "codecs").glob("*.avi"))[:1],
    }


def evenly(clips: Sequence[Path]) -> list[Path]:
    return [clips[place] for place in np.linspace(0, len(clips) - 1, min(CLIPS, len(clips))).astype(int)]


def papers_shapes(predictor: Predictor, folder: Path, quick: bool) -> Predictor:
    """The predictor with untrained models of the paper's shapes: for their cost."""
    tokenizer, shallow = predictor.clip.tokenizer, {"num_hidden_layers": 1}
    reading = shallow | {"eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config=reading, vision_config=shallow if quick else {})  # the defaults are ViT-B/32
    CLIPModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer.name_or_path).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    clip = ClipEncoder(str(folder), predictor.device)
    network = MvTsn(MvTsnConfig("efficientnet_b0", predictor.classes, 224, 0.5)).eval().to(predictor.device)
    about = FusionConfig(network.width, clip.width, 512, len(predictor.classes), 0.5)
    head = ConcatFusion(about).eval().to(predictor.device)
    text = np.ones((len(predictor.classes), clip.width), np.float32)
    views = dataclasses.replace(predictor.views, segments=2 if quick else 32)
    return dataclasses.replace(predictor, mv_tsn=network, fusion=head, clip=clip, text=text, views=views)


def bare(predictor: Predictor, path: Path) -> Callable[[], None]:
    """Decoding and both forward passes of one clip, on inputs that lie ready."""
    read = predictor.read(path)
    shown, pixels = prepared(predictor, read)
    middle = probe(path).frames // 2

    def run() -> None:
        decode(path, middle)
        with torch.inference_mode():
            predictor.mv_tsn.features(shown).cpu()  # waits for a GPU
            predictor.clip.model.get_image_features(pixels).pooler_output.cpu()

    return run


def prepared(predictor: Predictor, read: ClipInput) -> tuple[torch.Tensor, torch.Tensor]:
    boxes = protocol_crops((read.levels.shape[-2], read.levels.shape[-1]), predictor.views.crop, predictor.views.crops)
    fields = torch.from_numpy(read.levels).to(predictor.device).repeat_interleave(predictor.views.crops, dim=0)
    shown = crop_and_resize(fields, boxes.tile(len(read.levels)), predictor.mv_tsn.config.size)
    stills = [torch.from_numpy(still).permute(2, 0, 1) for still in read.stills]
    pixels = predictor.clip.processor(images=stills, return_tensors="pt")["pixel_values"]
    return shown, pixels.to(predictor.device)


def decode(path: Path, middle: int) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for number, picture in enumerate(container.decode(stream)):
            if number == middle:
                picture.to_ndarray(format="rgb24")


def rows_of(title: str, predictor: Predictor, clips: Sequence[Path], times: int) -> list[Row]:
    loops = [bare(predictor, path) for path in clips]

    def whole() -> None:
        for path in clips:
            predictor(path)

    def ahead() -> None:
        for _ in predictor.predict(clips, os.cpu_count() or 1):
            pass

    def theirs() -> None:
        for loop in loops:
            loop()

    whole()  # whatever is slow the first time
    took = by_turns({"predict": whole, "predict, reading ahead": ahead, "bare": theirs}, times)
    each = {name: 1e3 * seconds / len(clips) for name, seconds in took.items()}
    return [
        Row(f"{title}: clip to class / bare work", each["predict"], each["bare"], "ms/clip", OVERHEAD, at_most=True),
        Row(f"{title}: the same, threads reading ahead", each["predict, reading ahead"], each["bare"], "ms/clip"),
    ]


def main() -> None:
    """Print the table and write the JSON."""
    parser = arguments(__doc__)
    parser.add_argument("--project", type=Path, default=ROOT, help="where dvc repro has left models")
    given = parser.parse_args()
    os.chdir(given.project)
    predictor = load_predictor(params.load(paths.PARAMS))
    clips = {name: files[:1] if given.quick else files for name, files in chosen_clips().items()}
    times = 1 if given.quick else 15
    rows = [row for name, files in clips.items() for row in rows_of(f"{name}, last models", predictor, files, times)]
    with tempfile.TemporaryDirectory() as folder:
        large = papers_shapes(predictor, Path(folder), given.quick)
        for name, files in clips.items():
            rows += rows_of(f"{name}, paper's shapes", large, files, 1 if given.quick else 3)
    facts = {
        "clips": {name: len(files) for name, files in clips.items()},
        "frames a clip": {name: float(np.mean([probe(p).frames for p in files])) for name, files in clips.items()},
        "threads": torch.get_num_threads(),
    }
    out = given.out or (None if given.quick else ROOT / "benchmarks/results/predict.json")
    report("from a clip to its class", rows, [], facts, out)


if __name__ == "__main__":
    main()
