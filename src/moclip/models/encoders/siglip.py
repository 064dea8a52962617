"""SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786), of fixed resolution and NaFlex.

They were trained with a sigmoid, so their scores have a bias. Texts are padded to the full length, which the text tower
was trained with: it reads the feature at the last position.
"""

from __future__ import annotations

from torch import Tensor

from moclip.models.encoders.image_text import ImageTextEncoder
from moclip.models.encoders.preparing import Preparer, ProcessedPictures


class SiglipEncoder(ImageTextEncoder):
    """SigLIP. Its tokenizer makes texts lower-case itself. Also SigLIP 2 of fixed resolution, whose does not."""

    padding = "max_length"
    lower_case = True

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        return self.model.get_text_features(input_ids=tokens["input_ids"]).pooler_output  # padding is read, too


class Siglip2Encoder(SiglipEncoder):
    """SigLIP 2 NaFlex: pictures keep their aspect ratio, as a sequence of patches."""

    def _make_preparer(self) -> Preparer:
        return ProcessedPictures(self.processor, ("pixel_values", "pixel_attention_mask", "spatial_shapes"))
