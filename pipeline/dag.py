"""The commands of `moclip` with the line that `moclip --help` shows for each."""

from __future__ import annotations

STAGES: dict[str, str] = {
    "transcode": "Re-encode every clip to MPEG-4, if index.transcode is set.",
    "index": "Find the clips, their classes and splits, and check each file.",
    "extract_mv": "Read every clip's motion vectors into the store.",
    "clip_text": "Encode the class names with CLIP or another encoder of texts.",
    "clip_image": "Encode a few frames of each clip with CLIP or another encoder.",
    "train_mv": "Train MV-TSN on the motion vectors.",
    "train_image": "Train the image baseline on pictures of the motion fields.",
    "embed_mv": "Run the trained MV-TSN on every clip and store its features.",
    "embed_image": "Run the image baseline on every clip and store its logits.",
    "train_probe": "Train the linear probe, a baseline, on MV-TSN's features.",
    "train_fusion": "Train the fusion head, and choose the stream to trust.",
    "evaluate": "Score the test clips with each stream, and write metrics/.",
    "report": "Write the results as one page, data/report/index.html.",
}
"""The stages in the order of the DAG. Each is in `stages/<name>.py`."""

COMMANDS: dict[str, str] = {
    "train": "Train on your clips: make a project, run it, print the results.",
    "new": "Make a project for your clips in a folder of its own.",
    "estimate": "Estimate the time, disk and memory of `dvc repro`, stage by stage.",
    "import": "Turn lists of Kinetics, MMAction2 or ActivityNet into a manifest.",
    "advise": "Tell what the data set suffers from, and what to do about it.",
    "prompts": "Show the texts that stand for each class in the text encoder.",
    "similar": "Show the clips that are most similar to a clip.",
    "duplicates": "Show clips that are copies of each other, also re-encoded ones.",
    "suspects": "Show clips whose label may be wrong.",
    "label-next": "Choose the clips to annotate next.",
    "crossval": "Show the accuracy that cross-validation expects.",
    "timing": "Measure how long a clip takes from file to class, step by step.",
    "sweep": "Run a grid of parameters with several seeds and compare the runs.",
    "compare": "Compare two experiments on the test clips that both have.",
    "predict": "Predict the action in clips with the trained models.",
    "timeline": "Find which action happens when in long videos or a live stream.",
    "app": "Serve a web page to try the models on clips, videos or a webcam.",
    "draw": "Draw clips' motion vectors: arrows, colours, animations.",
    "export": "Write the trained models to one folder, or upload it to the hub.",
    "doctor": "Check this machine and this project, and say what to fix.",
}
"""The commands that are not stages. Each is in `pipeline/commands/<name>.py`, except for `MODULES`."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "Start here": ("train", "new", "use", "import", "doctor", "estimate", "advise", "metrics"),
    "Use the models": ("predict", "timeline", "app", "export"),
    "Look at clips and labels": ("draw", "similar", "duplicates", "suspects", "label-next", "prompts"),
    "Compare": ("sweep", "compare", "crossval", "timing"),
    "Stages, in the order in which `dvc repro` runs them": tuple(STAGES),
    "The store of motion fields": ("store",),
}
"""The commands as `moclip --help` groups them."""

MODULES = {"import": "import_lists"}
"""The modules and functions of commands whose name Python reserves."""
