"""Stage `embed_mv`: run the trained MV-TSN on every clip -> data/features/mv_embed.zarr."""

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
    """Run the trained MV-TSN on every clip and store its features and logits.

    Resumes a killed run. Writes data/features/mv_embed.zarr: group `protocol` with `features` (clips, width) and
    `logits` (clips, classes) of every clip under evaluate.protocol, and group `views` with `features` (train clips,
    embed.views, width) of augmented views. If `store` is a URL, they go there and mv_embed.zarr is a link.
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
    clips, train = (rows[COLUMNS] for rows in (inputs.motion_rows(), inputs.motion_rows("train")))
    scales = tuple(params.tsn.crops)
    task = embedding_task(params, paths.MV_TSN, "embed_mv", reader, [clips, train], scales, params.tsn.flip)
    protocol = protocol_parts(clips)
    views = [  # for each slice of the clips, a part per view
        [EncodingPart(f"view{view}-{n:06d}", train.iloc[rows], view) for view in range(params.embed.views)]
        for n, rows in enumerate(part_slices(len(train)))
    ]
    folder = embed_parts("embed_mv", task, [*protocol, *(part for parts in views for part in parts)], ray)
    keys = ("embed.views", "evaluate.protocol", "evaluate.crop", "tsn.crops", "tsn.flip")
    attributes = inputs.artifacts.model_record(*keys) | {
        "clips": clips_digest(inputs.clips.usable),
        "model": file_md5(paths.MV_TSN),
        "field_bytes": 2 * int(np.prod(reader.grid)),
    }
    layouts = {
        "features": ArrayLayout((model.width,), "<f4", ("feature",)),
        "logits": ArrayLayout((len(model.config.classes),), "<f4", ("class",)),
    }
    view_layouts = {"features": ArrayLayout((params.embed.views, model.width), "<f4", ("view", "feature"))}
    with folder_to_fill(paths.MV_EMBED, params.store or None) as store:
        pieces = folder.arrays([part.name for part in protocol])
        write_group_in_pieces(store / "protocol", list(clips["id"]), layouts, pieces, attributes)
        write_group_in_pieces(store / "views", list(train["id"]), view_layouts, _stack_views(folder, views), {})
    folder.remove()
    print_note(f"embed_mv: {len(clips)} clips under {params.evaluate.protocol}, {params.embed.views} views of train")


def _stack_views(folder: ResumableParts, views: list[list[EncodingPart]]) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield `features` (clips, views, width) for each slice of the clips."""
    import numpy as np

    for parts in views:
        arrays = folder.arrays([part.name for part in parts])
        yield {"features": np.stack([part_arrays["features"] for part_arrays in arrays], axis=1)}


if __name__ == "__main__":
    embed_mv()
