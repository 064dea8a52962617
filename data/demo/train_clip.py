"""Train a tiny CLIP on stills with captions and save it as hubs keep such models, in `clip/`.

It learns what the balls look like, from stills rendered for it alone: no clip, least of all a test clip, is among them.
Where a caption names a motion it is one drawn at random, for a still does not show any.
"""

import json
from pathlib import Path

import numpy as np
import torch
from scene import COLOURS, MOTIONS, STILLS, draw_background, draw_frame, draw_scene, to_rgb
from settings import FOLDER, Settings, load_settings
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from torch.nn import functional
from tqdm import trange
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

TARGET = FOLDER / "clip"
SIDE = 64  # px of the pictures
LENGTH = 24  # tokens of a caption, at most
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<unk>"
TEMPLATES = (
    "a photo of {}.",
    "a picture of {}.",
    "a picture showing {}.",
    "a video frame of {}.",
    "a still from a video of {}.",
    "a clip of {}.",
    "a scene with {}.",
    "this is {}.",
    "{}",
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The demo's words as tokens; any other word is spelt letter by letter, so that no two texts are the same."""
    words = sorted({word for text in TEMPLATES for word in text.replace(".", "").replace("{}", "").split()})
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)] + [str(digit) for digit in range(10)]
    pieces = [*COLOURS, "ball", *MOTIONS, *words, ".", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([START, END, UNKNOWN, *pieces]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=END,  # as the published CLIPs do
        unk_token=UNKNOWN,
        model_max_length=LENGTH,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """Two small towers; the text tower reads its feature off the first END."""
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": SIDE, "patch_size": 16}
    return CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=64))


def draw_stills(settings: Settings) -> tuple[list[np.ndarray], np.ndarray]:
    """RGB stills, each (h, w, 3) uint8, and the number of the colour in each, (n,)."""
    pictures, colours = [], []
    for number in trange(settings.clip.stills, desc="stills", mininterval=5):
        rng = np.random.default_rng([settings.seed, STILLS, number])
        colour = int(rng.integers(settings.appearances))
        motion = MOTIONS[rng.integers(settings.motions)]
        low, high = settings.frames
        scene = draw_scene(rng, draw_background(rng), settings.colours[colour], motion, (low, high))
        pictures.append(to_rgb(draw_frame(rng, scene, int(rng.integers(scene.frames)))))
        colours.append(colour)
    return pictures, np.array(colours)


def write_caption(rng: np.random.Generator, colour: str) -> str:
    """A caption of a still; in half of them with a motion that says nothing about the picture."""
    words = f"{colour} ball" + (f" {MOTIONS[rng.integers(len(MOTIONS))]}" if rng.random() < 0.5 else "")
    article = "a " if rng.random() < 0.5 else ""
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(article + words)


def train(model: CLIPModel, pixels: torch.Tensor, colours: np.ndarray, settings: Settings) -> float:
    """CLIP's symmetric loss, where every pair of the same colour is a right one. Returns the last step's loss."""
    tokenizer = make_tokenizer()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.clip.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.clip.lr, total_steps=settings.clip.steps + 1)
    rng = np.random.default_rng([settings.seed, STILLS])
    loss = torch.tensor(0.0)
    model.train()
    for _ in trange(settings.clip.steps, desc="tiny CLIP", mininterval=5):
        rows = rng.choice(len(colours), settings.clip.batch, replace=len(colours) < settings.clip.batch)
        captions = [write_caption(rng, settings.colours[colour]) for colour in colours[rows]]
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        image = model.get_image_features(pixels[rows]).pooler_output
        text = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        logits = model.logit_scale.exp() * functional.normalize(image) @ functional.normalize(text).T
        same = torch.from_numpy((colours[rows][:, None] == colours[rows][None, :]).astype(np.float32))
        target = same / same.sum(1, keepdim=True)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return loss.item()


def main() -> None:
    """Train and save."""
    settings = load_settings()
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    tokenizer = make_tokenizer()
    processor = CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False)  # the ball may be anywhere
    model = make_model(tokenizer)
    pictures, colours = draw_stills(settings)
    pixels = torch.cat(
        [processor(torch.from_numpy(p).permute(2, 0, 1), return_tensors="pt")["pixel_values"] for p in pictures]
    )
    loss = train(model, pixels, colours, settings)
    for part in (model, tokenizer, processor):
        part.save_pretrained(TARGET)
    size = sum(file.stat().st_size for file in Path(TARGET).iterdir())
    print(json.dumps({"loss": round(loss, 4), "bytes": size, "stills": len(pictures)}))


if __name__ == "__main__":
    main()
