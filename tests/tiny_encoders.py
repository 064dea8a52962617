"""Encoders of every family with random weights, in their hub's format: quick to make and to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as hf
from safetensors.torch import save_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SIDE = 32
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PICTURES = {**TOWER, "image_size": SIDE, "patch_size": 16}
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,"
VOCABULARY = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *LETTERS])}
FRAMES = 4


def letter_tokenizer(length: int = 40) -> hf.PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each letter. It marks beginning and end, and tells case apart."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=length,
    )


def _text(**more: Any) -> dict[str, Any]:
    marks = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return {**TOWER, "vocab_size": len(VOCABULARY) + 8, "max_position_embeddings": 40, **marks, **more}


def _square(processor: Any) -> Any:
    """Return an image processor that crops pictures to the side of the tiny models."""
    return processor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def tiny_encoder(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a model of a family, which `FAMILIES` lists, into `folder`."""
    torch.manual_seed(seed)
    model, parts = FAMILIES[family]()
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _clip() -> tuple[Any, list[Any]]:
    config = hf.CLIPConfig(text_config=_text(), vision_config=PICTURES, projection_dim=12)
    return hf.CLIPModel(config), [letter_tokenizer(), _square(hf.CLIPImageProcessor)]


def _metaclip2() -> tuple[Any, list[Any]]:
    config = hf.MetaClip2Config(text_config=_text(), vision_config=PICTURES, projection_dim=12)
    return hf.MetaClip2Model(config), [letter_tokenizer(), _square(hf.CLIPImageProcessor)]


def _altclip() -> tuple[Any, list[Any]]:
    text = _text(project_dim=12, max_position_embeddings=42, type_vocab_size=1)
    config = hf.AltCLIPConfig(text_config=text, vision_config=PICTURES, projection_dim=12)
    return hf.AltCLIPModel(config), [letter_tokenizer(), _square(hf.CLIPImageProcessor)]


def _chinese_clip() -> tuple[Any, list[Any]]:
    config = hf.ChineseCLIPConfig(text_config=_text(), vision_config=PICTURES, projection_dim=12)
    processor = hf.ChineseCLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    return hf.ChineseCLIPModel(config), [letter_tokenizer(), processor]


def _siglip() -> tuple[Any, list[Any]]:
    config = hf.SiglipConfig(text_config=_text(projection_size=16), vision_config=PICTURES)
    return hf.SiglipModel(config), [letter_tokenizer(), hf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})]


def _siglip2() -> tuple[Any, list[Any]]:
    vision = {**TOWER, "patch_size": 16, "num_patches": 16}
    config = hf.Siglip2Config(text_config=_text(projection_size=16), vision_config=vision)
    return hf.Siglip2Model(config), [letter_tokenizer(), hf.Siglip2ImageProcessor(patch_size=16, max_num_patches=16)]


def _xclip() -> tuple[Any, list[Any]]:
    vision = {**PICTURES, "num_frames": FRAMES, "mit_hidden_size": 12, "mit_intermediate_size": 16}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    text = _text()
    config = hf.XCLIPConfig(text_config=text, vision_config=vision, projection_dim=12, prompt_num_attention_heads=2)
    return hf.XCLIPModel(config), [letter_tokenizer(), _square(hf.CLIPImageProcessor)]


def _dinov2() -> tuple[Any, list[Any]]:
    return hf.Dinov2Model(hf.Dinov2Config(**PICTURES)), [_square(hf.BitImageProcessor)]


def _vit_classifier() -> tuple[Any, list[Any]]:
    processor = hf.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return hf.ViTForImageClassification(hf.ViTConfig(**PICTURES, num_labels=3)), [processor]


def _convnext() -> tuple[Any, list[Any]]:
    config = hf.ConvNextConfig(hidden_sizes=[8, 8, 8, 12], depths=[1, 1, 1, 1])
    return hf.ConvNextModel(config), [hf.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=1.0)]


FAMILIES = {
    "clip": _clip,
    "metaclip_2": _metaclip2,
    "altclip": _altclip,
    "chinese_clip": _chinese_clip,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "xclip": _xclip,
    "dinov2": _dinov2,
    "vit": _vit_classifier,
    "convnext": _convnext,
}


def tiny_open_clip(folder: Path) -> Path:
    """Write a model of open_clip."""
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": SIDE, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    settings = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CLIP(**settings)
    folder.mkdir()
    save_model(model, str(folder / "open_clip_model.safetensors"))
    prepared = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": settings, "preprocess_cfg": prepared}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def tiny_timm(file: Path, name: str = "test_efficientnet") -> Path:
    """Write the weights of a timm model, with its classifier, as the hub has them."""
    torch.manual_seed(0)
    save_model(timm.create_model(name, num_classes=1000), str(file))
    return file
