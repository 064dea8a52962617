"""Stage `embed_image`: run the trained image baseline on every clip -> data/baselines/image_logits."""

from __future__ import annotations

from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.io import write_unused
from pipeline.options import RayAddress
from pipeline.params import Params
from pipeline.stage import stage


@stage(
    "seed",
    "store",
    "dataset.shots",
    "dataset.base_to_new",
    "baselines.image",
    "embed.batch",
    "fit.folds",
    "fit.refit",
    "evaluate.protocol",
    "evaluate.crop",
)
def embed_image(params: Params, ray: RayAddress = None) -> None:
    """Run the image baseline on every clip and store its logits.

    Resumes a killed run. Writes data/baselines/image_logits with `logits` (clips, classes) of every clip under
    evaluate.protocol. With fit.refit or fit.folds, the groups `fold1`, `fold2`, ... have those of the clips held out,
    by the networks that did not see them. If `store` is a URL, they go there and image_logits is a link. If
    baselines.image is false, the folder has only unused.txt.
    """
    if params.baselines.image is False:
        write_unused(paths.IMAGE_LOGITS, "baselines.image is false")
        print_note("embed_image: nothing to do, baselines.image is false")
        return
    _embed(params, ray)


def _embed(params: Params, ray: str | None) -> None:
    with while_importing():
        from moclip.files.links import folder_to_fill
        from moclip.models.flops import segment_cost
        from moclip.models.mv_tsn import load_mv_tsn
        from moclip.video.clip_files import file_md5
        from pipeline.embedding import embed_image_baseline
        from pipeline.inputs import Inputs
        from pipeline.provenance import clips_digest, made_with
        from pipeline.seeding import seed_everything

    seed_everything(params.seed)
    inputs = Inputs(params)
    inputs.artifacts.check_model(paths.IMAGE_MODEL, "train_image")
    clips = inputs.motion_rows()
    reader = inputs.artifacts.field_reader()
    embedded = [embed_image_baseline(params, paths.IMAGE_MODEL, "", reader, clips, ray)]
    for number, fold in enumerate(inputs.clips.folds() if inputs.clips.refits else [], start=1):
        held_out = clips[clips["id"].isin(fold.held_out)]
        file = paths.image_fold_model(number)
        embedded.append(embed_image_baseline(params, file, f"fold{number}", reader, held_out, ray))
    attributes = {
        "made_with": made_with(params, "baselines.image", "evaluate.protocol", "evaluate.crop"),
        "clips": clips_digest(inputs.clips.usable),
        "model": file_md5(paths.IMAGE_MODEL),
        "cost": segment_cost(load_mv_tsn(paths.IMAGE_MODEL, "train_image")),
    }
    with folder_to_fill(paths.IMAGE_LOGITS, params.store or None) as store:
        for network in embedded:
            network.write_logits(store, len(inputs.clips.classes), attributes)
    for network in embedded:
        network.parts.remove()
    print_note(f"embed_image: {counted(len(clips), 'clip')}, {params.evaluate.protocol} views of each")


if __name__ == "__main__":
    embed_image()
