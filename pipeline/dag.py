"""The commands of `moclip` with the line that `moclip --help` shows for each."""

from __future__ import annotations

STAGES: dict[str, str] = {
    "transcode": "Re-encode every clip to MPEG-4 Part 2, if index.transcode is set.",
    "index": "Find the clips, their classes and splits, and probe each file.",
    "extract_mv": "Read every clip's motion vectors into the store of motion fields.",
    "clip_text": "Encode the class prompts with CLIP's text tower.",
    "clip_image": "Encode one or a few frames of each clip with CLIP's image tower.",
    "train_mv": "Train MV-TSN on the motion vectors.",
    "train_image": "Train the baseline: an image classifier on RGB pictures of the motion fields.",
    "embed_mv": "Run the trained MV-TSN on every clip and store its features and logits.",
    "embed_image": "Run the image baseline on every clip and store its logits.",
    "train_probe": "Train a linear probe on the cached motion features, as a baseline.",
    "train_fusion": "Train the fusion head on the cached features, and choose the stream to trust.",
    "evaluate": "Score the test split: zero-shot CLIP, motion alone, fusion, and their cost.",
    "report": "Write the results as one static page.",
}
"""The stages in the order of the DAG. Each is in `stages/<name>.py`."""

COMMANDS: dict[str, str] = {
    "train": "Train on a folder of clips: make a project, run all stages, and print the results.",
    "new": "Make a project for your clips in a folder of its own.",
    "estimate": "Estimate the time, disk and memory of `dvc repro`, stage by stage.",
    "import": "Turn lists of other projects (Kinetics, MMAction2, ActivityNet) into a manifest.",
    "advise": "Tell what the data set suffers from, and what to do about it.",
    "prompts": "Show the texts that stand for each class in the text encoder.",
    "similar": "Show the clips that are most similar to a clip.",
    "duplicates": "Show clips that are copies of each other, also re-encoded ones.",
    "suspects": "Show clips whose label may be wrong.",
    "label-next": "Choose the clips to annotate next.",
    "crossval": "Show the accuracy that cross-validation expects, per stream and class.",
    "timing": "Measure how long a clip takes from file to class, step by step.",
    "sweep": "Run a grid of parameters with several seeds as DVC experiments, and compare them.",
    "compare": "Compare two experiments on the test clips that both have.",
    "predict": "Predict the action in clips, with the models that `dvc repro` trained.",
    "timeline": "Find which action happens when in long videos or a live stream.",
    "draw": "Draw clips' motion vectors: arrows, colours, animations.",
    "export": "Write the trained models to one folder that works without DVC, or upload it to the model hub.",
    "doctor": "Check this machine and this project, and how exactly motion vectors are read here.",
}
"""The commands that are not stages. Each is in `pipeline/commands/<name>.py`, except for `MODULES`."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "Start here": ("train", "new", "use", "import", "doctor", "estimate", "advise", "metrics", "predict", "timeline"),
    "Look at clips and labels": ("draw", "similar", "duplicates", "suspects", "label-next", "prompts"),
    "Compare and share": ("sweep", "compare", "crossval", "timing", "export"),
    "Stages, in the order in which `dvc repro` runs them": tuple(STAGES),
    "The store of motion fields": ("store",),
}
"""The commands as `moclip --help` groups them."""

MODULES = {"import": "import_lists"}
"""The modules and functions of commands whose name Python reserves."""
