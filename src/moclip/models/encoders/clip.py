"""CLIP (arXiv 2103.00020), and models of its format: OpenAI's, LAION's, MetaCLIP 1."""

from __future__ import annotations

from moclip.errors import ModelError
from moclip.models.encoders.image_text import ImageTextEncoder

LEGACY_EOS_TOKEN = 2
"""The `eos_token_id` in early CLIPs' config.json, which is wrong; the tower then takes the highest token as the end."""


class ClipEncoder(ImageTextEncoder):
    """A CLIP. Its text tower reads the feature of a text at the token that ends it."""

    def check_companions(self) -> None:
        super().check_companions()
        end, tower_end = self.tokenizer.eos_token_id, self.model.config.text_config.eos_token_id
        if tower_end not in (end, LEGACY_EOS_TOKEN):
            what = f"its text tower ends a text at token {tower_end}, its tokenizer at {end}"
            raise ModelError(what, where=self.source.model, fix="use tokenizer and weights of the same model")
