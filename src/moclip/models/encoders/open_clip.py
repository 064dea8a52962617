"""Models of open_clip, an extra package (`pip install moclip[openclip]`): EVA, DFN, ViTamin, PE-Core, MobileCLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moclip.errors import ModelError
from moclip.models.encoders.base import TextEncoder
from moclip.models.encoders.checks import report_load_errors
from moclip.models.encoders.preparing import TransformedPictures
from moclip.models.encoders.source import EncoderSource


class OpenClipEncoder(TextEncoder):
    """A model of open_clip, from its hub (hf-hub:ID) or a folder with open_clip_config.json."""

    text_parts = (
        "text.",
        "transformer.",
        "token_embedding",
        "positional_embedding",
        "ln_final",
        "text_projection",
        "logit_",
    )
    model: Any

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        super().__init__(source, device)
        try:
            import open_clip
        except ImportError:
            raise ModelError(
                "the package open_clip is not installed", where=source.model, fix="pip install 'moclip[openclip]'"
            ) from None
        if source.revision:
            what = "open_clip takes no revision"
            raise ModelError(what, where=source.model, fix="set clip.revision=false, or download it into a folder")
        name = f"local-dir:{source.model}" if Path(source.model).exists() else source.model
        with report_load_errors(source.model):
            model, transform = open_clip.create_model_from_pretrained(name)
            self.tokenizer: Any = open_clip.get_tokenizer(name)
        self._place(model)
        self.preparer = TransformedPictures(transform)
        self.scale = float(self.model.logit_scale.exp())
        bias = getattr(self.model, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias)
        self.max_tokens = int(self.model.context_length)

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        return self.model.encode_image(prepared["pixels"])

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"input_ids": self.tokenizer(list(texts), context_length=self.max_tokens)}

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        return self.model.encode_text(tokens["input_ids"])

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_model

        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / "open_clip_model.safetensors"))
        for file in _folder(self.source).iterdir():
            if file.suffix in (".json", ".txt", ".model"):  # the configuration, and the tokenizer's files
                (folder / file.name).write_bytes(file.read_bytes())


def _folder(source: EncoderSource) -> Path:
    """Return the folder of a model: its own, or that in the hub's cache."""
    if Path(source.model).is_dir():
        return Path(source.model)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model"]
    return Path(snapshot_download(source.model.removeprefix("hf-hub:"), allow_patterns=patterns))
