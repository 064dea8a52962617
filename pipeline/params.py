"""The typed model of params.yaml: the one place that says which keys exist, of what type and in what range.

Called by `pipeline.stage` for every stage command and by `moclip use`. There are no defaults here: each value stands
in params.yaml (the presets carry whole sets), so that what DVC sees is all there is.
"""

from __future__ import annotations

import copy
import difflib
import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from moclip.errors import MoclipError

NO_FILE = "data/none"
"""Named where an optional input is absent: DVC wants a dependency that exists."""


class ParamError(MoclipError):
    """A key of params.yaml (or its option) is unknown, missing, of the wrong type or out of range."""


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text: take it as the number it is. Leave `true` and other text to be refused."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Real = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Flag = Annotated[bool, Field(strict=True)]


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Group):
    root: Text = Field(description="folder of videos, <root>/<class>/<clip>")
    splits: Text = Field(description="folder of the split lists; where it holds none, a seeded split by group")
    split: Whole = Field(ge=1, le=9, description="which official split: trainlist0<k>.txt, testlist0<k>.txt")
    val_fraction: Real = Field(gt=0, lt=0.9, description="share of train held out, by group, to choose epochs on")
    test_fraction: Real = Field(gt=0, lt=0.9, description="share of test where there are no split lists")
    shots: Literal[False] | Annotated[Whole, Field(ge=1, le=1000)] = Field(
        description="few-shot: clips a class to train on, and to choose epochs on; false: all. 2 contains 1"
    )
    seeds: list[Annotated[Whole, Field(ge=0, le=2**31 - 1)]] = Field(
        min_length=1, description="values of seed that `moclip sweep` repeats each run with, for mean and deviation"
    )
    base_to_new: Flag = Field(description="train on the first half of the classes, score the other half too")
    phrases: Text = Field(description=f"JSON file class -> phrases for the prompts; {NO_FILE}: the split class name")


class Index(Group):
    transcode: Literal[False, "mpeg4"] = Field(
        description="mpeg4: motion from clips re-encoded as CoViAR did, MPEG-4 at 340 x 256 px; false: from the clips"
    )


class Mv(Group):
    backend: Literal["auto", "mvextractor", "pyav"] = Field(
        description="reader of the vectors: auto and pyav are PyAV; mvextractor where that is exact, else PyAV"
    )
    canvas: tuple[Annotated[Whole, Field(ge=32)], Annotated[Whole, Field(ge=32)]] = Field(
        description="height and width in px that every field is scaled to"
    )
    cell: Whole = Field(ge=4, le=64, description="px of the canvas a grid cell covers")
    clip: Real = Field(gt=0, le=1000, description="px at which a displacement saturates (int8 127)")
    accumulate: Literal[False, "grid", "pixel"] = Field(
        description="trace each P-frame back to its I-frame: pixel by pixel as CoViAR, or faster on the grid"
    )
    shard: Whole = Field(ge=64, multiple_of=16, description="frames in a shard, the unit of work and of resuming")

    @model_validator(mode="after")
    def _whole_cells(self) -> Mv:
        if any(side % self.cell for side in self.canvas):
            raise ValueError(f"canvas must be whole cells: sides that are multiples of mv.cell = {self.cell}")
        return self


class Clip(Group):
    model: Text = Field(description="CLIP: a hub id such as openai/clip-vit-base-patch32, or a local folder")
    files: Text = Field(description=f"the local folder again, for DVC to watch; {NO_FILE} with a hub id")
    revision: Literal[False] | Text = Field(
        description="of a hub id: the branch, tag or commit to take; false: the newest",
        json_schema_extra={"allowed": "false | a branch, tag or commit"},
    )
    prompts: Text = Field(description="JSON file with a list of prompt templates holding {}")
    frames: Whole = Field(ge=1, le=64, description="RGB frames a video, evenly spaced")
    choice: Literal["middle", "random"] = Field(description="which frame of each of the equal parts (random: seeded)")
    batch: Whole = Field(ge=1, le=4096, description="pictures in a forward pass")


class LrMult(Group):
    head: Real = Field(ge=0, le=100, description="learning-rate multiplier of the classifier")
    stem: Real = Field(ge=0, le=100, description="of the input BatchNorm and the first convolution")
    rest: Real = Field(ge=0, le=100, description="of the rest of the backbone")


class Tsn(Group):
    backbone: Text = Field(description="timm model name")
    pretrained: Literal[False, "hub"] | Text = Field(
        description="ImageNet weights to start from",
        json_schema_extra={"allowed": "false | hub | a weights file"},
    )
    files: Text = Field(description=f"the local weights file again, for DVC to watch; {NO_FILE} otherwise")
    size: Whole = Field(ge=16, le=512, description="px of the square the network sees")
    stem_stride: Literal[1, 2] = Field(description="of the first convolution; 1: at twice the resolution and cost")
    segments: Whole = Field(ge=1, le=32, description="segments a clip in training")
    epochs: Whole = Field(ge=1, le=10000, description="passes over the training clips")
    batch: Whole = Field(ge=1, le=4096, description="clips in a step")
    accumulate: Whole = Field(ge=1, le=4096, description="parts a batch goes through in, to fit into less memory")
    lr: Real = Field(gt=0, le=10, description="Adam's learning rate, before the multipliers")
    eps: Real = Field(gt=0, le=1, description="Adam's epsilon")
    weight_decay: Real = Field(ge=0, le=1, description="not on biases and norms")
    lr_mult: LrMult
    lr_steps: list[Annotated[Whole, Field(ge=1)]] = Field(description="epochs at which the rate falls tenfold")
    dropout: Real = Field(ge=0, lt=1, description="in front of the classifier")
    crops: list[Annotated[Real, Field(gt=0, le=1)]] = Field(
        min_length=1, description="multi-scale crops, shares of the short side"
    )
    flip: Flag = Field(description="mirror half of the training clips (and negate dx)")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        description="autocast's type in training; auto: bf16 or fp16 on a GPU, fp32 on a CPU"
    )
    compile: Flag = Field(description="train through torch.compile; wants a compiler")


class Embed(Group):
    views: Whole = Field(ge=1, le=100, description="augmented views of each training clip")
    batch: Whole = Field(ge=1, le=4096, description="fields in a forward pass")


class Fusion(Group):
    head: Literal["concat", "text"] = Field(
        description="concat: the paper's; text: by the class names' CLIP features, also of classes not trained on"
    )
    pooling: Literal["mean", "attention"] = Field(description="of a clip's frames, where clip.frames is above 1")
    hidden: Whole = Field(ge=1, le=65536, description="width of the hidden layer")
    dropout: Real = Field(ge=0, lt=1, description="behind the hidden layer")
    lr: Real = Field(gt=0, le=10, description="AdamW's learning rate")
    weight_decay: Real = Field(ge=0, le=10, description="AdamW's")
    epochs: Whole = Field(ge=1, le=10000, description="passes over the training clips")
    batch: Whole = Field(ge=1, le=65536, description="clips in a step")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        description="autocast's type in training; auto: bf16 or fp16 on a GPU, bf16 on a CPU that multiplies it"
    )


class Baselines(Group):
    image: Literal[False] | Text = Field(
        description="timm model that classifies RGB pictures of the motion fields; trained as tsn.* says, one a clip",
        json_schema_extra={"allowed": "false | a timm model, such as resnet18"},
    )


class Evaluate(Group):
    protocol: Annotated[str, Field(strict=True, pattern=r"^[1-9]\d{0,2}x(1|5|10)$")] = Field(
        description="views of a test clip; 32x1 is the paper's, 10 crops are five places, each also flipped",
        json_schema_extra={"allowed": "SEGMENTSxCROPS with 1, 5 or 10 crops, such as 32x1 or 25x10"},
    )
    crop: Real = Field(gt=0, le=1, description="side of the test crop, a share of the short side")

    @property
    def views(self) -> tuple[int, int]:
        """The protocol's segments and crops."""
        segments, crops = self.protocol.split("x")
        return int(segments), int(crops)


class Report(Group):
    clips: Whole = Field(ge=0, le=100, description="clips of each kind in the page's gallery: gains, errors, random")


class Params(Group):
    seed: Whole = Field(ge=0, le=2**31 - 1, description="of the splits, the frames, the weights, the augmentation")
    store: Literal[False] | Annotated[str, Field(strict=True, pattern=r"^(s3|gs|file)://.+")] = Field(
        description="where features lie: false: in data/features; a URL: there, with a link in data/features",
        json_schema_extra={"allowed": "false | s3://BUCKET/FOLDER | gs://... | file:///FOLDER"},
    )
    dataset: Dataset
    index: Index
    mv: Mv
    clip: Clip
    tsn: Tsn
    embed: Embed
    fusion: Fusion
    baselines: Baselines
    evaluate: Evaluate
    report: Report


def load(path: Path = Path("params.yaml"), overrides: dict[str, Any] | None = None) -> Params:
    """Read and check params.yaml; `overrides` maps full keys ("fusion.lr") to values that go before it.

    Raises ParamError for a missing file, one of another pipeline, or for the first unknown, missing, ill-typed or
    out-of-range keys.
    """
    raw = read_raw(path)
    _check_ours(raw, path)
    model = validate(raw, source=str(path))
    _check_watched(model, source=str(path))
    return validate(changed(raw, overrides), source="option") if overrides else model


def changed(raw: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a parameter tree with full keys ("tsn.size") set."""
    tree = copy.deepcopy(raw)
    for key, value in values.items():
        *parents, leaf = key.split(".")
        group = tree
        for parent in parents:
            group = group[parent]
        group[leaf] = value
    return tree


def read_raw(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path) from None
    except yaml.YAMLError as error:
        raise ParamError(f"not valid YAML: {' '.join(str(error).split())}", where=path) from None
    if not isinstance(raw, dict):
        raise ParamError("holds no groups of parameters", where=path, fix="write a new one: moclip use demo")
    return raw


def missing(path: Path, otherwise: str = "") -> ParamError:
    """The error that says how to come by a params.yaml, or what to do without."""
    what = "not found"
    fix = "run from the project's root, or write one: moclip use demo (or: moclip use folder --root DIR)"
    if above := project_above():
        what, fix = f"{what}: this is not the project's folder", f"run it there: cd {above}"
    return ParamError(what, where=path, fix=f"{fix}\n  {otherwise}" if otherwise else fix)


def check_folder(path: Path = Path("params.yaml")) -> None:
    """Raise ParamError where this is not a project's folder, so that nothing can be found in it."""
    _check_ours(read_raw(path), path)


def project_above() -> Path | None:
    """The nearest of the folders above this one that is a project's."""
    return next((folder for folder in Path.cwd().parents if _is_project(folder)), None)


def _is_project(folder: Path) -> bool:
    path = folder / "params.yaml"
    try:
        return path.is_file() and is_ours(read_raw(path))
    except (ParamError, OSError, UnicodeDecodeError):
        return False


def is_ours(raw: dict[str, Any]) -> bool:
    """Whether parameters are of this pipeline: the demo's clips are made by one with a params.yaml of its own."""
    return not raw.keys().isdisjoint(("dataset", "mv"))


def _check_ours(raw: dict[str, Any], path: Path) -> None:
    if not is_ours(raw) and (above := project_above()):
        what = "of another pipeline: this is not the project's folder"
        raise ParamError(what, where=path, fix=f"run it there: cd {above}")


def validate(raw: dict[str, Any], source: str) -> Params:
    """Check a raw mapping. Raises ParamError naming each key in full, its value and what is allowed."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        # a union reports once per alternative: one line a key is enough
        lines = list(dict.fromkeys(_explain(dict(item)) for item in error.errors()))
        raise ParamError("\n  ".join(lines), where=source) from None


def option_value(text: str) -> Any:
    """The value of a command-line option, read as YAML would be, so that `64`, `true` and `[1, .875]` mean the same."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def every_key() -> list[str]:
    """Every key in full, in the order of the model: "seed", "dataset.root", ..."""
    return list(_walk(Params))


def unknown(key: str) -> ParamError:
    """The error that names a key which does not exist, with one near to it."""
    parts, model = key.split("."), Params
    for depth, part in enumerate(parts[:-1]):
        if part not in model.model_fields or not hasattr(model.model_fields[part].annotation, "model_fields"):
            return ParamError(f"{key}: unknown key{_suggest(parts[: depth + 1])}")
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return ParamError(f"{key}: unknown key{_suggest(parts)}")


def describe(key: str) -> tuple[str, str]:
    """A key's description and what it allows, in words: for `--help` and the README's table."""
    field = _field(key)
    return (field.description or "") if field else "", _allowed(key)


def _walk(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _walk(field.annotation, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


def _field(key: str) -> Any:
    return _walk(Params).get(key)


def _explain(error: dict[str, Any]) -> str:
    names = [str(part) for part in error["loc"]]
    key = _longest_known(names)
    if error["type"] == "extra_forbidden":
        return f"{'.'.join(names)} = {error['input']!r}: unknown key{_suggest(names)}"
    if error["type"] == "missing":
        return f"{'.'.join(names)}: missing; {_allowed(key) or 'see the presets (moclip use --help)'}"
    if error["type"] == "value_error":
        return f"{'.'.join(names)}: {error['ctx']['error']}"
    if not _allowed(key):
        return f"{'.'.join(names)} = {error['input']!r}: a group of keys is wanted here"
    place = ".".join(names) if key.startswith("mv.canvas") or names[-1].isdigit() else key
    return f"{place} = {error['input']!r}: allowed is {_allowed(key)}"


def _longest_known(names: list[str]) -> str:
    """The key within pydantic's location, which goes on into list items and the branches of a union."""
    known = _walk(Params)
    for end in range(len(names), 0, -1):
        if ".".join(names[:end]) in known:
            return ".".join(names[:end])
    return ".".join(names)


def _suggest(names: list[str]) -> str:
    prefix = ".".join(names[:-1])
    model: Any = Params
    for part in names[:-1]:
        model = model.model_fields[part].annotation
    near = difflib.get_close_matches(names[-1], list(model.model_fields), n=1)
    if near:
        return f"; did you mean {f'{prefix}.' if prefix else ''}{near[0]}?"
    return f"; {prefix or 'the top level'} has {', '.join(model.model_fields)}"


@functools.cache
def _schema() -> dict[str, Any]:
    return Params.model_json_schema()


def _allowed(key: str) -> str:
    node = _schema()
    definitions = node.get("$defs", {})
    for part in key.split("."):
        node = node.get("properties", {}).get(part, {})
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
    return "" if not node or "properties" in node else _words(node)


def _words(node: dict[str, Any]) -> str:
    if "allowed" in node:
        return str(node["allowed"])
    if "anyOf" in node:
        return " or ".join(_words(branch) for branch in node["anyOf"])
    if "enum" in node:
        return " | ".join("false" if value is False else str(value) for value in node["enum"])
    if "const" in node:
        return "false" if node["const"] is False else str(node["const"])
    kind = node.get("type")
    if kind == "array":
        if "prefixItems" in node:
            return f"[height, width], each {_words(node['prefixItems'][0])}"
        return f"a list, each {_words(node['items'])}"
    name = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}[str(kind)]
    if "minimum" in node and "maximum" in node:
        return f"{name} from {node['minimum']} to {node['maximum']}"
    limits = [
        f"{sign} {node[bound]}"
        for bound, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
            ("ge", ">="),  # pydantic writes an item's bounds so
            ("gt", ">"),
            ("le", "<="),
        )
        if bound in node
    ]
    if "multipleOf" in node:
        limits.append(f"a multiple of {node['multipleOf']}")
    return f"{name} {' and '.join(limits)}".strip()


def _check_watched(params: Params, source: str) -> None:
    """A local folder that a stage reads must also be the dependency that DVC watches, or `dvc repro` would lie.

    And it has no revisions.
    """
    if params.clip.revision and Path(params.clip.model).exists():
        raise ParamError(
            f"clip.revision = {params.clip.revision!r}, but clip.model = {params.clip.model!r} is a local folder",
            where=source,
            fix="set clip.revision to false: revisions are of hub models",
        )
    for group, read, watched in (
        ("clip", params.clip.model, params.clip.files),
        ("tsn", params.tsn.pretrained, params.tsn.files),
    ):
        key = "model" if group == "clip" else "pretrained"
        if isinstance(read, str) and read != watched and (Path(read).exists() or watched not in (NO_FILE, read)):
            wanted = read if Path(read).exists() else NO_FILE
            raise ParamError(
                f"{group}.files = {watched!r}, but {group}.{key} = {read!r}: DVC would not see it change",
                where=source,
                fix=f"set {group}.files to {wanted}",
            )
