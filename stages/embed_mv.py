"""Stage `embed_mv`: run the trained MV-TSN on every clip -> data/features/mv_embed.zarr."""

from __future__ import annotations

from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.options import RayAddress
from pipeline.params import Params
from pipeline.stage import stage


@stage(
    "seed",
    "store",
    "dataset.shots",
    "dataset.base_to_new",
    "tsn.stack",
    "tsn.crops",
    "tsn.flip",
    "embed.views",
    "embed.batch",
    "fit.folds",
    "fit.refit",
    "evaluate.protocol",
    "evaluate.crop",
)
def embed_mv(params: Params, ray: RayAddress = None) -> None:
    """Run the trained MV-TSN on every clip and store its features and logits.

    Resumes a killed run. Writes data/features/mv_embed.zarr: group `protocol` with `features` (clips, width) and
    `logits` (clips, classes) of every clip under evaluate.protocol, and group `views` with `features` (train clips,
    embed.views, width) of augmented views. With fit.refit or fit.folds, the groups `fold1`, `fold2`, ... have both for
    the networks that did not see the clips held out: `protocol` of these, `views` of the others. If `store` is a URL,
    they go there and mv_embed.zarr is a link.
    """
    with while_importing():
        import numpy as np

        from moclip.files.links import folder_to_fill
        from moclip.models.flops import segment_cost
        from moclip.video.clip_files import file_md5
        from pipeline.embedding import embed_network
        from pipeline.inputs import Inputs
        from pipeline.provenance import clips_digest
        from pipeline.seeding import seed_everything

    seed_everything(params.seed)
    inputs = Inputs(params)
    inputs.artifacts.check_model(paths.MV_TSN, "train_mv")
    clips = inputs.motion_rows()
    reader = inputs.artifacts.field_reader()
    embedded = []
    for number, of_network in enumerate(inputs.clips.embedded()):
        scored, augmented = (clips[clips["id"].isin(ids)] for ids in (of_network.scored, of_network.augmented))
        file = paths.fold_model(number) if number else paths.MV_TSN
        embedded.append(embed_network(params, file, of_network.group, reader, scored, augmented, ray))
    keys = ("embed.views", "evaluate.protocol", "evaluate.crop", "tsn.crops", "tsn.flip")
    attributes = inputs.artifacts.model_record(*keys) | {
        "clips": clips_digest(inputs.clips.usable),
        "model": file_md5(paths.MV_TSN),
        "field_bytes": 2 * params.tsn.stack * int(np.prod(reader.grid)),
        "cost": segment_cost(embedded[0].model),
    }
    with folder_to_fill(paths.MV_EMBED, params.store or None) as store:
        for network in embedded:
            network.write(store, attributes)
    for network in embedded:
        network.parts.remove()
    print_note(
        f"embed_mv: {counted(len(clips), 'clip')}, {params.evaluate.protocol} views of each; "
        f"{counted(params.embed.views, 'augmented view')} of each training clip"
    )


if __name__ == "__main__":
    embed_mv()
