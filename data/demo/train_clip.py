"""Train a tiny CLIP on stills and captions and write it to `clip/` in the hub's format.

It stands in for `openai/clip-vit-base-patch32`, so that the demo downloads nothing. The same code loads both. It is
trained on stills rendered for it, not on clips. A still does not show the motion, so a caption names a random motion or
none, and images and texts are matched by colour. A large CLIP also knows that "rising" and "falling" differ. This one
learns it from captions: training pulls the features of two captions with the same colour and motion together, and
others apart.
"""

import re
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scene import COLOURS, MOTIONS, STILLS, Bytes, draw_background, draw_frame, draw_scene, to_rgb
from settings import FOLDER, Settings, load_settings
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

SIDE = 64  # px
MAX_TOKENS = 77
HELD_OUT = 96  # stills to report on
BACKGROUND_STILLS = 8  # stills that share a background

SUBJECTS = ("a", "the", "one", "my", "a person with a", "a small", "a large")
TEMPLATES = (
    "{}",
    "{}.",
    "a photo of {}",
    "a photo of {}.",
    "a picture of {}.",
    "a video of {}.",
    "a video frame of {}",
    "a frame of a video of {}",
    "a still of {}",
    "an image that shows {}.",
    "an example of {}.",
    "a demonstration of {}.",
    "a blurry photo of {}.",
    "this is {}.",
    "there is {} in the scene.",
    "a clip: {}, in front of a texture.",
)
CAPTION_MOTIONS = ("", *MOTIONS)  # the motion that a caption names; "": none
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def draw_caption(rng: np.random.Generator, colour: str, motion: str) -> str:
    """Return a random caption that names the colour and, unless it is empty, the motion."""
    words = [colour, "ball", motion]
    # Half of the captions contain random words, so that a user's own prompts work.
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            words.insert(rng.integers(len(words) + 1), "".join(rng.choice(LETTERS, rng.integers(2, 7))))
    subject = f"{rng.choice(SUBJECTS)} " if rng.random() < 0.7 else ""
    return str(rng.choice(TEMPLATES)).format(subject + " ".join(filter(None, words)))


def draw_stills(settings: Settings, stream: int, count: int) -> tuple[list[Bytes], list[int]]:
    """Return RGB stills (h, w, 3) at random moments of random motions, and the index of each still's colour."""
    images, labels = [], []
    for number in tqdm(range(count), desc="stills", unit="still", mininterval=1, disable=None):
        rng = np.random.default_rng([settings.seed, STILLS, stream, number])
        if number % BACKGROUND_STILLS == 0:
            background = draw_background(rng)
        label = number % settings.appearances
        scene = draw_scene(rng, background, settings.colours[label], str(rng.choice(MOTIONS)), (24, 32))
        images.append(to_rgb(draw_frame(rng, scene, int(rng.integers(scene.frames)))))
        labels.append(label)
    return images, labels


def make_tokenizer() -> CLIPTokenizer:
    """Return CLIP's byte-level BPE: one token for each word of the captions, letters for any other text."""
    texts = [*TEMPLATES, *SUBJECTS, *COLOURS, *MOTIONS, "ball"]
    words = [[*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(re.findall(r"[a-z]+", " ".join(texts))))]
    letters = sorted(ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    merges = learn_merges(words)
    vocab = {token: number for number, token in enumerate([*tokens, *map("".join, merges)])}
    return CLIPTokenizer(vocab, merges, model_max_length=MAX_TOKENS)


def learn_merges(words: list[list[str]]) -> list[tuple[str, str]]:
    """Return the merges that make each word one token.

    Written here because the library's trainer breaks ties differently in each run.
    """
    merges = []
    while pairs := Counter(pair for word in words for pair in pairwise(word)):
        left, right = pair = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(pair)
        for word in words:
            for i in range(len(word) - 2, -1, -1):
                if word[i : i + 2] == [left, right]:
                    word[i : i + 2] = [left + right]
    return merges


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return a CLIP with two layers per encoder."""
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "projection_dim": 64,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**tower, "image_size": SIDE, "patch_size": 16, "projection_dim": 64}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return CLIP's symmetric loss over (B, B) logits. All pairs with the same label are positives."""
    same = (labels[:, None] == labels[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def zero_shot(model: CLIPModel, tokenizer: CLIPTokenizer, pixels: Tensor, colours: list[str]) -> Tensor:
    """Return the index (B,) of the colour whose prompt is nearest to each image."""
    tokens = tokenizer([f"a photo of a {colour} ball" for colour in colours], padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(pixel_values=pixels, **tokens).logits_per_image.argmax(1)


def train(settings: Settings, folder: Path) -> None:
    """Render stills, train on them, report on held-out ones, and save the model."""
    rng = np.random.default_rng([settings.seed, STILLS])
    torch.manual_seed(settings.seed)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    images, labels = draw_stills(settings, 0, settings.clip.stills)
    pixels = processor(images, return_tensors="pt")["pixel_values"]  # (N, 3, SIDE, SIDE)
    colours = torch.tensor(labels)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).train()

    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.clip.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.clip.lr, total_steps=settings.clip.steps)
    bar = tqdm(range(settings.clip.steps), desc="train", unit="step", mininterval=1, disable=None)
    for _ in bar:
        batch = rng.integers(len(images), size=settings.clip.batch)
        motions = rng.choice(len(CAPTION_MOTIONS), len(batch), p=[0.2, *[0.8 / len(MOTIONS)] * len(MOTIONS)])
        named = [
            (settings.colours[labels[i]], CAPTION_MOTIONS[motion]) for i, motion in zip(batch, motions, strict=True)
        ]
        captions = [draw_caption(rng, *words) for words in [*named, *named]]
        tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        output = model(pixel_values=pixels[batch], **tokens)
        first, second = output.logits_per_text.chunk(2)
        texts, other_texts = output.text_embeds.chunk(2)
        loss = (contrastive_loss(first, colours[batch]) + contrastive_loss(second, colours[batch])) / 2
        scenes = colours[batch] * len(CAPTION_MOTIONS) + torch.from_numpy(motions)
        loss = loss + contrastive_loss(model.logit_scale.exp() * texts @ other_texts.T, scenes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    images, labels = draw_stills(settings, 1, HELD_OUT)
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    right = zero_shot(model.eval(), tokenizer, pixels, settings.colours) == torch.tensor(labels)
    print(
        f"train_clip: {settings.clip.steps} steps; colour of held-out stills: {right.float().mean().item():.3f} right"
    )

    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    # The order of sums depends on the number of threads, and a model this small gains nothing from a second one.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()  # of `save_pretrained`, which takes no time
    train(load_settings(), FOLDER / "clip")
