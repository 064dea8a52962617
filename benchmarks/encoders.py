"""Cost of the image towers in docs/encoders.md: `python -m benchmarks.encoders [--speed]`.

Each architecture is built from a configuration in this file, with random weights, so nothing is downloaded. Parameters,
multiply-adds and width are counted on the `meta` device. `--speed` also runs each tower on one core, in float32
and batches of 16, and counts processor time: other work on the machine changes it less than the time that passes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import transformers as hf
from torch import Tensor, nn

from benchmarks.common import describe_processor
from moclip.models.flops import count_parameters, multiply_adds

BATCH, SECONDS = 16, 5.0  # pictures; processor time for each tower, in at least one batch
MOST = 100e9  # towers with more multiply-adds are not timed
NAFLEX_SIDE, XCLIP_FRAMES = 16, 8


def vit(hidden: int, layers: int, heads: int, inner: int) -> dict[str, Any]:
    """Return the sizes of a transformer by the names that configurations have for them."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (hidden, layers, heads, inner), strict=True))


SMALL, BASE, LARGE = vit(384, 12, 6, 1536), vit(768, 12, 12, 3072), vit(1024, 24, 16, 4096)
SO400M = vit(1152, 27, 16, 4304)


class Tower(NamedTuple):
    """How to build an image tower, the shape of its input, and how many pictures that holds."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 224, 224)
    pictures: int = 1


class Features(nn.Module):
    """A model of `transformers` that returns its features only, with a projection if `width` is given."""

    def __init__(self, model: Any, width: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.projection = nn.Linear(model.config.hidden_size, width, bias=False) if width else nn.Identity()

    def forward(self, pixels: Tensor) -> Any:
        return self.projection(self.model(pixels).pooler_output)


class NaFlex(nn.Module):
    """SigLIP 2 NaFlex on square pictures of 256 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.model = hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**BASE, num_patches=NAFLEX_SIDE**2, patch_size=16))

    def forward(self, patches: Tensor) -> Any:
        shapes = torch.tensor([[NAFLEX_SIDE] * 2] * len(patches), device="cpu")  # the model reads the numbers
        return self.model(patches, None, shapes).pooler_output  # no mask: no patch is padding


class XClipVideo(nn.Module):
    """X-CLIP's part for videos: image tower, attention between frames, projection."""

    def __init__(self) -> None:
        super().__init__()
        vision = {**BASE, "patch_size": 32, "num_frames": XCLIP_FRAMES, "mit_hidden_size": 512}
        self.model = model = hf.XCLIPModel(hf.XCLIPConfig(vision_config=vision))
        del model.text_model, model.text_projection, model.logit_scale
        del model.prompts_visual_layernorm, model.prompts_visual_projection, model.prompts_generator

    def forward(self, videos: Tensor) -> Any:
        return self.model.get_video_features(videos).pooler_output


def of_hf(kind: str, width: int | None = None, side: int = 224, **options: Any) -> Tower:
    model, config = getattr(hf, f"{kind}Model"), getattr(hf, f"{kind}Config")(**options)
    return Tower(lambda: Features(model(config), width), (3, side, side))


def of_timm(name: str, width: int, side: int = 224) -> Tower:
    return Tower(lambda: timm.create_model(name, num_classes=width), (3, side, side))


TOWERS = {  # by the names in docs/encoders.md
    "ViT-B/32": of_hf("CLIPVision", 512, patch_size=32, **BASE),
    "ViT-B/16": of_hf("CLIPVision", 512, patch_size=16, **BASE),
    "ViT-L/14": of_hf("CLIPVision", 768, patch_size=14, **LARGE),
    "SigLIP B/16": of_hf("SiglipVision", patch_size=16, **BASE),
    "SigLIP so400m/14, 224 px": of_hf("SiglipVision", patch_size=14, **SO400M),
    "SigLIP so400m/14, 384 px": of_hf("SiglipVision", side=384, image_size=384, patch_size=14, **SO400M),
    "SigLIP 2 B/16 NaFlex": Tower(NaFlex, (NAFLEX_SIDE**2, 3 * 16 * 16)),
    "EVA02 B/16": of_timm("eva02_base_patch16_clip_224", 512),
    "ViTamin-B": of_timm("vitamin_base_224", 512),
    "PE-Core B/16": of_timm("vit_pe_core_base_patch16_224", 1024),
    "MobileCLIP2-S0": of_timm("fastvit_mci0", 512, 256),
    "MobileCLIP2-S2": of_timm("fastvit_mci2", 512, 256),
    "DINOv2 S/14": of_hf("Dinov2", image_size=518, patch_size=14, **SMALL),
    "DINOv2 B/14": of_hf("Dinov2", image_size=518, patch_size=14, **BASE),
    "DINOv3 S/16": of_hf("DINOv3ViT", num_register_tokens=4, **SMALL),
    "DINOv3 B/16": of_hf("DINOv3ViT", num_register_tokens=4, **BASE),
    "mobilenetv2_100": of_timm("mobilenetv2_100", 0),
    "X-CLIP B/32": Tower(XClipVideo, (XCLIP_FRAMES, 3, 224, 224), XCLIP_FRAMES),
}


def count(tower: Tower) -> tuple[int, int, int]:
    """Return a tower's parameters, its multiply-adds for one picture, and the width of its features."""
    with torch.device("meta"), torch.inference_mode():  # counting needs only shapes
        model = tower.build().eval().requires_grad_(False)
        pixels = torch.zeros(1, *tower.shape)
        widths: list[int] = []
        model.register_forward_hook(lambda _module, _inputs, features: widths.append(features.shape[-1]))
        adds = multiply_adds(model, pixels) // tower.pictures
        return count_parameters(model), adds, widths[-1]


@torch.inference_mode()
def pictures_per_second(tower: Tower) -> float:
    """Return how many pictures the tower takes in a second of processor time, on one core."""
    torch.set_num_threads(1)
    model, pixels = tower.build().eval(), torch.randn(BATCH // tower.pictures, *tower.shape)
    model(pixels[:1])
    begun, pictures = time.process_time(), 0
    while pictures == 0 or time.process_time() - begun < SECONDS:
        model(pixels)
        pictures += BATCH
    return pictures / (time.process_time() - begun)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="also time each tower")
    timed = parser.parse_args().speed
    print(f"{describe_processor()}, 1 of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| tower | parameters, M | multiply-adds, G | width | pictures/s |\n|---|---|---|---|---|", flush=True)
    for name, tower in TOWERS.items():
        parameters, adds, width = count(tower)
        speed = f"{pictures_per_second(tower):.2g}" if timed and adds <= MOST else ""
        print(f"| {name} | {parameters / 1e6:.3g} | {adds / 1e9:.3g} | {width} | {speed} |", flush=True)


if __name__ == "__main__":
    main()
