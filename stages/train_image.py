"""Stage `train_image`: train the image baseline on motion drawn as RGB -> data/baselines/image, model and curves."""

from __future__ import annotations

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.io import write_unused
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import RECIPE_KEYS


@stage("dataset.shots", "dataset.base_to_new", "dataset.unknown", "baselines.image", *RECIPE_KEYS)
def train_image(params: Params) -> None:
    """Train the baseline: an image classifier on RGB pictures of the motion fields.

    Trains like MV-TSN, but on one picture per clip and epoch. Starts from ImageNet weights if tsn.pretrained is hub. A
    killed run resumes from its last checkpoint. Writes data/baselines/image with `model.safetensors` and `curves`, and
    with fit.refit or fit.folds the network of each fold; with only unused.txt if baselines.image is false.
    """
    backbone = params.baselines.image
    if backbone is False:
        write_unused(paths.IMAGE_BASELINE, "baselines.image is false")
        print_note("train_image: nothing to do, baselines.image is false")
        return
    _train(params, backbone)


def _train(params: Params, backbone: str) -> None:
    with while_importing():
        from moclip.files.atomic import atomic_folder
        from moclip.models.device import pick_device
        from moclip.training.distributed import World
        from moclip.training.objective import chosen_by
        from pipeline.inputs import Inputs
        from pipeline.network_fit import NetworkFit, describe_clips, image_config
        from pipeline.provenance import FIELD_KEYS

    inputs = Inputs(params)
    config = image_config(params, backbone, inputs.clips.classes)
    pretrained = "hub" if params.tsn.pretrained == "hub" else False
    world = World(pick_device())
    print_note(f"train_image: {backbone}, {describe_clips(inputs)}, {world.device}")
    with atomic_folder(paths.IMAGE_BASELINE) as folder:
        fit = NetworkFit("train_image", inputs, config, pretrained, 1, world, folder / "curves")
        fitted = fit.run()
        record = fit.record("baselines.image", *FIELD_KEYS)
        fitted.network.save(folder / paths.IMAGE_MODEL.name, record)
        for number, network in enumerate(fitted.folds, start=1):
            network.save(folder / paths.image_fold_model(number).name, record)
    fit.remove_checkpoints()  # not before the model is saved
    print_note(f"train_image: best epoch {fitted.best['epoch'] + 1:.0f}, {chosen_by(fitted.best)}")


if __name__ == "__main__":
    train_image()
