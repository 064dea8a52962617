"""Stage `embed_mv`: the trained, frozen MV-TSN over every clip, once -> data/features/mv_embed.zarr."""

from __future__ import annotations

import numpy as np

from moclip.device import pick_device
from moclip.features import write_group
from moclip.files import folder_aside
from moclip.mv_training import embed, embed_view
from moclip.mv_tsn import load_mv_tsn
from pipeline import console, paths
from pipeline.inputs import Inputs
from pipeline.params import Params
from pipeline.seed import seed_everything
from pipeline.stage import stage


@stage(
    "seed",
    "dataset.shots",
    "dataset.base_to_new",
    "tsn.crops",
    "tsn.flip",
    "embed.views",
    "embed.batch",
    "evaluate.protocol",
    "evaluate.crop",
)
def embed_mv(params: Params) -> None:
    """Run the trained MV-TSN over every clip and keep its features and logits.

    Writes data/features/mv_embed.zarr: group `protocol` with `features` (clips, width) and `logits` (clips, classes) of
    every clip under evaluate.protocol, and group `views` with `features` (train clips, embed.views, width), augmented.
    """
    seed_everything(params.seed)
    inputs = Inputs.learning(params)
    model, fields, device = load_mv_tsn(paths.MV_TSN), inputs.fields(), pick_device()
    segments, crops = params.evaluate.views
    everyone, train = inputs.motion_clips(), inputs.motion_clips("train")
    views = []
    with console.progress("embed_mv", len(everyone) + params.embed.views * len(train)) as advance:
        features, logits = embed(
            model,
            fields,
            everyone,
            segments,
            crops,
            params.evaluate.crop,
            params.embed.batch,
            device,
            advance,
        )
        for view in range(params.embed.views):
            generator = np.random.default_rng([params.seed, view])
            views.append(
                embed_view(
                    model,
                    fields,
                    train,
                    segments,
                    tuple(params.tsn.crops),
                    params.tsn.flip,
                    params.embed.batch,
                    device,
                    generator,
                    advance,
                )
            )
    with folder_aside(paths.MV_EMBED) as store:
        write_group(
            store / "protocol",
            list(inputs.motion_rows()["id"]),
            {"features": (features, ("feature",)), "logits": (logits, ("class",))},
            {
                "protocol": params.evaluate.protocol,
                "classes": list(model.config.classes),
                "cost": model.segment_cost(),
                "field_bytes": 2 * int(np.prod(fields.grid)),
            },
        )
        write_group(
            store / "views",
            list(inputs.motion_rows("train")["id"]),
            {"features": (np.stack(views, axis=1), ("view", "feature"))},
            {},
        )
    console.note(
        f"embed_mv: {len(everyone)} clips under {params.evaluate.protocol}, {params.embed.views} views of train"
    )


if __name__ == "__main__":
    embed_mv()
