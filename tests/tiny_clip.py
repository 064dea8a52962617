"""A CLIP of two layers with random weights, in the hub's format: quick to make and to load."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from moclip.models.encoders.base import TextEncoder
from moclip.models.encoders.registry import load_encoder
from moclip.models.encoders.source import EncoderSource

MAX_TOKENS = 40
SIDE = 32


def tiny_clip(folder: Path, seed: int = 0, width: int = 64) -> Path:
    """Write it. It reads `MAX_TOKENS` tokens, a letter each; its tokenizer does not say so, as some do not."""
    letters = sorted(ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer({token: number for number, token in enumerate(tokens)}, [])
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = {**tower, "image_size": SIDE, "patch_size": 16, "projection_dim": width}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def load_clip(name: str, device: str | torch.device = "cpu", revision: str | None = None) -> TextEncoder:
    """Load an encoder of pictures and texts."""
    encoder = load_encoder(EncoderSource(name, revision=revision), device)
    assert isinstance(encoder, TextEncoder)
    return encoder
