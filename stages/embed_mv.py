"""Stage `embed_mv`: the trained, frozen MV-TSN over every clip, once -> data/features/mv_embed.zarr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.options import RayAddress
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import numpy as np

    from moclip.inference.encode import EncodingPart
    from moclip.store.resumable import ResumableParts


@stage(
    "seed",
    "store",
    "dataset.shots",
    "dataset.base_to_new",
    "tsn.crops",
    "tsn.flip",
    "embed.views",
    "embed.batch",
    "evaluate.protocol",
    "evaluate.crop",
)
def embed_mv(params: Params, ray: RayAddress = None) -> None:
    """Run the trained MV-TSN over every clip and keep its features and logits.

    Goes on where a killed run stood. Writes data/features/mv_embed.zarr: group `protocol` with `features` (clips,
    width) and `logits` (clips, classes) of every clip under evaluate.protocol, and group `views` with `features` (train
    clips, embed.views, width), augmented; with a URL in `store` they go there, and mv_embed.zarr is a link to them.
    """
    with while_importing():
        import numpy as np

        from moclip.files.links import folder_to_fill
        from moclip.inference.encode import EncodingPart
        from moclip.models.mv_tsn import load_mv_tsn
        from moclip.store.features import ArrayLayout, write_group_in_pieces
        from moclip.store.resumable import part_slices
        from moclip.video.clip_files import file_md5
        from pipeline.embedding import COLUMNS, embed_parts, embedding_task, protocol_parts
        from pipeline.inputs import Inputs
        from pipeline.provenance import clips_digest
        from pipeline.seeding import seed_everything

    seed_everything(params.seed)
    inputs = Inputs(params)
    inputs.artifacts.check_model(paths.MV_TSN, "train_mv")
    model, reader = load_mv_tsn(paths.MV_TSN), inputs.artifacts.field_reader()
    everyone, train = (rows[COLUMNS] for rows in (inputs.motion_rows(), inputs.motion_rows("train")))
    scales = tuple(params.tsn.crops)
    given = embedding_task(params, paths.MV_TSN, "embed_mv", reader, [everyone, train], scales, params.tsn.flip)
    protocol = protocol_parts(everyone)
    views = [
        [EncodingPart(f"view{view}-{n:06d}", train.iloc[rows], view) for view in range(params.embed.views)]
        for n, rows in enumerate(part_slices(len(train)))
    ]
    parts = embed_parts("embed_mv", given, [*protocol, *(part for several in views for part in several)], ray)
    keys = ("embed.views", "evaluate.protocol", "evaluate.crop", "tsn.crops", "tsn.flip")
    about = inputs.artifacts.model_record(*keys) | {
        "clips": clips_digest(inputs.clips.usable),
        "model": file_md5(paths.MV_TSN),
        "field_bytes": 2 * int(np.prod(reader.grid)),
    }
    rows = {
        "features": ArrayLayout((model.width,), "<f4", ("feature",)),
        "logits": ArrayLayout((len(model.config.classes),), "<f4", ("class",)),
    }
    stacked = {"features": ArrayLayout((params.embed.views, model.width), "<f4", ("view", "feature"))}
    with folder_to_fill(paths.MV_EMBED, params.store or None) as store:
        pieces = parts.arrays([part.name for part in protocol])
        write_group_in_pieces(store / "protocol", list(everyone["id"]), rows, pieces, about)
        write_group_in_pieces(store / "views", list(train["id"]), stacked, _stacked(parts, views), {})
    parts.end()
    print_note(f"embed_mv: {len(everyone)} clips under {params.evaluate.protocol}, {params.embed.views} views of train")


def _stacked(parts: ResumableParts, views: list[list[EncodingPart]]) -> Iterator[Mapping[str, np.ndarray]]:
    """The views of each part's clips side by side: (clips, views, width)."""
    import numpy as np

    for several in views:
        arrays = parts.arrays([part.name for part in several])
        yield {"features": np.stack([one["features"] for one in arrays], axis=1)}


if __name__ == "__main__":
    embed_mv()
