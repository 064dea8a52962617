"""The typed model of params.yaml: which keys exist, their types, ranges, defaults and meaning.

Define a key here and nowhere else. Options of commands, the comments in params.yaml and docs/parameters.md follow from
it. The defaults are the paper's recipe for UCF-101 (arXiv 2509.17084). Presets hold what differs from them. Stages
use no defaults: every key must be in params.yaml, because DVC only sees what is there.
"""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from moclip.errors import MoclipError
from moclip.models.encoders.source import TIMM
from moclip.models.heads.registry import HEADS
from pipeline.yaml_text import load_yaml

NO_FILE = "data/none"
"""The value of an optional path that is not used: DVC needs a dependency that exists."""


class ParamError(MoclipError):
    """A key of params.yaml (or its option) is unknown, missing, of the wrong type or out of range."""


def _number(value: Any) -> Any:
    """Convert text such as `1e-4`, which YAML 1.1 does not read as a number. pydantic refuses other text."""
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
Text = Annotated[str, Field(strict=True, pattern=r"\S")]
Flag = Annotated[bool, Field(strict=True)]


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Group):
    """The clips, their classes and splits."""

    root: Text = Field(description="folder of videos: <root>/<class>/<clip>")
    splits: Text = Field(
        description="folder of the split lists; without lists: folders train and test, else clips are split by group"
    )
    manifest: Text = Field(
        default=NO_FILE,
        description=f"table of clips with the columns path and label; {NO_FILE}: the clips in dataset.root",
        json_schema_extra={"allowed": f"{NO_FILE} | a .csv, .parquet or .jsonl file"},
    )
    follow_links: Flag = Field(
        default=False, description="true: also read links that lead out of the root; links within it are always read"
    )
    split: Whole = Field(
        default=1, ge=1, le=9, description="which official split: trainlist0<k>.txt and testlist0<k>.txt"
    )
    val_fraction: Real = Field(
        default=0.1, gt=0, lt=0.9, description="share of train held out, by group, to choose epochs on"
    )
    test_fraction: Real = Field(
        default=0.3, gt=0, lt=0.9, description="share of the clips in test where there are no lists"
    )
    group: Literal["name", "lookalike"] = Field(
        default="name",
        description="a clip's source: the gNN in its name; lookalike: also joins clips whose middle frames look alike",
    )
    shots: Literal[False] | Annotated[Whole, Field(ge=1, le=1000)] = Field(
        default=False,
        description="clips per class in train and val, few-shot; larger sets contain smaller ones; false: all clips",
    )
    seeds: list[Annotated[Whole, Field(ge=0, le=2**31 - 1)]] = Field(
        default=[0, 1, 2], min_length=1, description="seeds that `moclip sweep` repeats each run with"
    )
    base_to_new: Flag = Field(default=False, description="train on the first half of the classes, score both halves")
    unknown: list[Text] = Field(
        default=[],
        description="classes left out of training and validation; their test clips measure `moclip predict --reject`",
    )
    background: Literal[False] | Text = Field(
        default=False,
        description="class that means none of the others: where it wins, `moclip predict --reject` says unknown",
        json_schema_extra={"allowed": "false | the name of a class"},
    )
    balance: Literal["none", "loss", "sampler"] = Field(
        default="none",
        description="for classes of unequal size; loss: rare classes weigh more; sampler: are drawn more often",
    )
    phrases: Text = Field(
        default=NO_FILE, description=f"JSON file class -> phrases for the prompts; {NO_FILE}: class names"
    )


class Index(Group):
    """Which files motion is read from."""

    transcode: Literal[False, "mpeg4"] = Field(
        default=False, description="mpeg4: read motion from clips re-encoded as CoViAR did (MPEG-4, 340 x 256 px)"
    )


class Mv(Group):
    """Motion vectors and the fields made of them."""

    backend: Literal["auto", "mvextractor", "pyav"] = Field(
        default="auto",
        description="reader of the vectors; auto and pyav: PyAV; mvextractor: where it is exact, else PyAV",
    )
    canvas: tuple[Annotated[Whole, Field(ge=32)], Annotated[Whole, Field(ge=32)]] = Field(
        default=(240, 320), description="height and width that every field is scaled to, in px"
    )
    cell: Whole = Field(default=8, ge=4, le=64, description="side of a grid cell on the canvas, in px")
    clip: Real = Field(
        default=20, gt=0, le=1000, description="displacement at which a field saturates (int8 127), in px"
    )
    accumulate: Literal[False, "grid", "pixel"] = Field(
        default="pixel",
        description="trace each P-frame back to its I-frame: per pixel as CoViAR does, or faster on the grid",
    )
    per: Literal["frame", "second"] = Field(
        default="frame",
        description="displacements per frame, or per 1/30 s, so that clips of all frame rates mean the same motion",
    )
    shard: Whole = Field(
        default=8192, ge=64, multiple_of=16, description="frames per shard; extraction works and resumes by shard"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Mv:
        if any(side % self.cell for side in self.canvas):
            raise ValueError(f"canvas must be whole cells: sides that are multiples of mv.cell = {self.cell}")
        if self.per == "second" and self.accumulate:
            raise ValueError("per: second needs accumulate: false, because traced displacements span many frames")
        return self


class Clip(Group):
    """The frozen encoder, such as a CLIP: features of pictures and of class prompts."""

    model: Literal[False] | Text = Field(
        default="openai/clip-vit-base-patch32",
        description="encoder: hub id, local folder, hf-hub:ID (open_clip) or timm:NAME; false: none, motion alone",
        json_schema_extra={"allowed": "false | a hub id | a local folder | hf-hub:ID | timm:NAME"},
    )
    models: list[Text] = Field(
        default=[],
        description="further encoders, whose features stand beside those of clip.model; local folders below clip.files",
    )
    files: Text = Field(
        default=NO_FILE,
        description="for DVC to watch: a local encoder, or the weights of timm:NAME (a file, or a folder with them); "
        f"with a hub id {NO_FILE}",
    )
    revision: Literal[False] | Text = Field(
        default=False,
        description="branch, tag or commit of a hub id; false: the newest",
        json_schema_extra={"allowed": "false | a branch, tag or commit"},
    )
    prompts: Text = Field(
        default="data/prompts.json", description="JSON file: a list of prompt templates that contain {}"
    )
    frames: Whole = Field(
        default=1, ge=1, le=64, description="RGB frames per video, one from each of this many equal parts"
    )
    choice: Literal["middle", "random"] = Field(
        default="random", description="which frame of each part; random depends on the seed"
    )
    pool: Literal["frames", "clip"] = Field(
        default="frames", description="clip: all frames of a clip through the encoder at once, as X-CLIP needs"
    )
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        default="fp32", description="type of the encoder's weights; auto: fp16 on a GPU, fp32 on a CPU"
    )
    batch: Whole = Field(default=256, ge=1, le=4096, description="pictures per forward pass")


class LrMult(Group):
    """Learning-rate multipliers of the parts of MV-TSN."""

    head: Real = Field(default=1, ge=0, le=100, description="learning-rate multiplier of the classifier")
    stem: Real = Field(
        default=0.1,
        ge=0,
        le=100,
        description="learning-rate multiplier of the input BatchNorm and the first convolution",
    )
    rest: Real = Field(default=0.01, ge=0, le=100, description="learning-rate multiplier of the rest of the backbone")


class Tsn(Group):
    """MV-TSN, the network on motion vectors."""

    backbone: Text = Field(default="efficientnet_b0", description="name of a timm model")
    pretrained: Literal[False, "hub"] | Text = Field(
        default="hub",
        description="ImageNet weights to start from",
        json_schema_extra={"allowed": "false | hub | a weights file"},
    )
    files: Text = Field(default=NO_FILE, description=f"the same weights file, for DVC to watch; {NO_FILE} otherwise")
    size: Whole = Field(default=224, ge=16, le=512, description="side of the network's square input, in px")
    stem_stride: Literal[1, 2] = Field(
        default=2, description="stride of the first convolution; 1: twice the resolution and the cost"
    )
    segments: Whole = Field(default=3, ge=1, le=32, description="segments per clip in training")
    stack: Whole = Field(
        default=1, ge=1, le=9, description="neighbouring fields that the network sees of each segment, as channels"
    )
    moments: Whole = Field(
        default=1,
        ge=1,
        le=8,
        description="moments of the features over time; 1: their mean, which knows no order; 3: also what comes first",
    )
    stabilise: Literal[False, "median", "affine"] = Field(
        default=False,
        description="take the camera's motion out of each field: its median, or a robust affine fit; false: keep it",
    )
    epochs: Whole = Field(
        default=200,
        ge=1,
        le=10000,
        description="epochs; each is a pass over the training clips, or longer (min_steps)",
    )
    min_steps: Whole = Field(
        default=0,
        ge=0,
        le=10**6,
        description="least steps of the optimiser in all; for them, an epoch goes through the clips again",
    )
    batch: Whole = Field(default=80, ge=1, le=4096, description="clips per step of the optimiser")
    accumulate: Whole = Field(
        default=1, ge=1, le=4096, description="parts that a batch is split into, to need less memory"
    )
    optimiser: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description="adam: the paper's; adamw decouples the weight decay; sgd has momentum 0.9"
    )
    lr: Real = Field(default=0.01, gt=0, le=10, description="highest learning rate, before lr_mult")
    eps: Real = Field(default=0.001, gt=0, le=1, description="epsilon of adam and adamw")
    weight_decay: Real = Field(default=0.0001, ge=0, le=1, description="weight decay; not on biases and norms")
    lr_mult: LrMult = LrMult()
    schedule: Literal["steps", "cosine", "onecycle"] = Field(
        default="steps",
        description="steps: the learning rate falls at lr_steps; cosine: to 0, with every step; onecycle: up and down",
    )
    lr_steps: list[Annotated[Whole, Field(ge=1)]] = Field(
        default=[80, 160], description="epochs at which the schedule `steps` divides the learning rate by 10"
    )
    warmup: Real = Field(
        default=0, ge=0, lt=1, description="share of the training in which the learning rate rises from about 0"
    )
    label_smoothing: Real = Field(
        default=0, ge=0, lt=1, description="share of each training label that is spread over all classes"
    )
    ema: Real = Field(
        default=0,
        ge=0,
        lt=1,
        description="decay of a moving average of the weights, which is then validated and saved; 0: none",
    )
    dropout: Real = Field(default=0.5, ge=0, lt=1, description="dropout in front of the classifier")
    crops: list[Annotated[Real, Field(gt=0, le=1)]] = Field(
        default=[1, 0.875, 0.75], min_length=1, description="sides of the multi-scale crops, shares of the short side"
    )
    flip: Literal["auto", True, False] = Field(
        default=True,
        description="mirror half of the training clips; auto: where classes allow it, and TurnLeft becomes TurnRight",
        json_schema_extra={"allowed": "auto | true | false"},
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="autocast type in training; auto: bf16 or fp16 on a GPU, fp32 on a CPU"
    )
    compile: Flag = Field(default=False, description="train through torch.compile; needs a C++ compiler")


class Fit(Group):
    """How train and val are used to choose epochs, and to train the final networks."""

    folds: Literal[False] | Annotated[Whole, Field(ge=2, le=20)] = Field(
        default=False,
        description="choose epochs by cross-validation over so many folds of train and val; false: on val alone",
    )
    refit: Flag = Field(
        default=False,
        description="with the epoch chosen, train again on train and val together; always with folds, never with shots",
    )


class Embed(Group):
    """Features of the trained MV-TSN."""

    views: Whole = Field(default=4, ge=1, le=100, description="augmented views per training clip")
    batch: Whole = Field(default=512, ge=1, le=4096, description="fields per forward pass")


class Fusion(Group):
    """The fusion head on motion, picture and text features."""

    head: Literal[*HEADS] = Field(  # type: ignore[valid-type]
        default="concat", description="; ".join(f"{name}: {about}" for name, (_, about) in HEADS.items())
    )
    pooling: Literal["mean", "attention", "temporal"] = Field(
        default="mean",
        description="pooling of a clip's frames, if clip.frames is above 1; temporal: a transformer on their order",
    )
    blend: Literal["few_shot", True, False] = Field(
        default="few_shot",
        description="head concat: mix in zero-shot, with a weight chosen on validation; few_shot: with dataset.shots",
        json_schema_extra={"allowed": "few_shot | true | false"},
    )
    cache_tune: Flag = Field(default=False, description="head cache: train its keys; false: only choose its settings")
    hidden: Whole = Field(default=512, ge=1, le=65536, description="width of the hidden layer")
    dropout: Real = Field(default=0.5, ge=0, lt=1, description="dropout after the hidden layer")
    lr: Real = Field(default=0.0001, gt=0, le=10, description="AdamW's learning rate")
    weight_decay: Real = Field(default=0.01, ge=0, le=10, description="AdamW's weight decay")
    epochs: Whole = Field(default=100, ge=1, le=10000, description="passes over the training clips")
    batch: Whole = Field(default=64, ge=1, le=65536, description="clips per step of the optimiser")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="autocast type in training; auto: bf16 or fp16 on a GPU, bf16 on a CPU with bf16 units",
    )

    @model_validator(mode="after")
    def _pooling_of_the_cache(self) -> Fusion:
        if self.head == "cache" and self.pooling != "mean":
            raise ValueError("pooling must be mean with head: cache, whose keys are means of stills")
        return self


class Baselines(Group):
    """What motion and fusion are compared with."""

    image: Literal[False] | Text = Field(
        default="resnet18",
        description="network of timm to train on RGB pictures of the fields, one per clip, with the tsn settings",
        json_schema_extra={"allowed": "false | a timm model, such as resnet18"},
    )


class Evaluate(Group):
    """How test clips are scored."""

    protocol: Annotated[str, Field(strict=True, pattern=r"^[1-9]\d{0,2}x(1|5|10)$")] = Field(
        default="32x1",
        description="views of a test clip, segments x crops; 10 crops are 5 places, each also mirrored",
        json_schema_extra={"allowed": "SEGMENTSxCROPS with 1, 5 or 10 crops, such as 32x1 or 25x10"},
    )
    crop: Real = Field(default=0.875, gt=0, le=1, description="side of the test crop, a share of the short side")
    reject_score: Literal["auto", "probability", "energy", "distance"] = Field(
        default="auto",
        description="what `moclip predict --reject` goes by; auto: distance, or probability with few validation clips",
    )
    reject_coverage: Real = Field(
        default=0.95,
        gt=0,
        le=1,
        description="least share of the validation clips that `moclip predict --reject` must answer",
    )
    reject_false_alarms: Real = Field(
        default=1.0,
        ge=0,
        le=1,
        description="below 1, in place of reject_coverage: most of dataset.background's validation clips it may answer",
    )

    @property
    def views(self) -> tuple[int, int]:
        """The protocol's segments and crops."""
        segments, crops = self.protocol.split("x")
        return int(segments), int(crops)


class Report(Group):
    """The report page."""

    clips: Whole = Field(
        default=8, ge=0, le=100, description="clips of each kind in the gallery: gains, errors, random"
    )


class Params(Group):
    """Everything that params.yaml holds."""

    seed: Whole = Field(default=0, ge=0, le=2**31 - 1, description="seed of splits, frames, weights and augmentation")
    store: Literal[False] | Annotated[str, Field(strict=True, pattern=r"^(s3|gs|file)://.+")] = Field(
        default=False,
        description="where features are stored: false: data/features; a URL: there, linked from data/features",
        json_schema_extra={"allowed": "false | s3://BUCKET/FOLDER | gs://... | file:///FOLDER"},
    )
    dataset: Dataset
    index: Index = Index()
    mv: Mv = Mv()
    clip: Clip = Clip()
    fit: Fit = Fit()
    tsn: Tsn = Tsn()
    embed: Embed = Embed()
    fusion: Fusion = Fusion()
    baselines: Baselines = Baselines()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()


def load(path: Path = Path("params.yaml"), overrides: dict[str, Any] | None = None) -> Params:
    """Read and check params.yaml. `overrides` maps full keys ("fusion.lr") to values that replace those in the file.

    Raises ParamError if the file is missing or belongs to another pipeline, and for unknown, missing, ill-typed or
    out-of-range keys.
    """
    raw = read_raw(path)
    _check_is_project(raw, path)
    model = validate(raw, source=str(path))
    _check_watched(model, source=str(path))
    _check_false_alarms(model, source=str(path))
    return validate(with_values(raw, overrides), source="option") if overrides else model


def with_values(raw: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a parameter tree with full keys ("tsn.size") set."""
    tree = copy.deepcopy(raw)
    for key, value in values.items():
        *parents, leaf = key.split(".")
        group = tree
        for parent in parents:
            group = group[parent]
        group[leaf] = value
    return tree


def read_raw(path: Path) -> dict[str, Any]:
    """Read params.yaml as a tree, unchecked. Raises ParamError if it is missing, no file, or not a YAML mapping."""
    try:
        raw = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing_file_error(path) from None
    except IsADirectoryError:
        raise ParamError("a folder, not a file", where=path, fix="move it away, then: moclip use") from None
    except UnicodeDecodeError:
        fix = "save it as UTF-8, or write a new one: moclip use"
        raise ParamError("not text in UTF-8", where=path, fix=fix) from None
    except yaml.YAMLError as error:
        raise _yaml_error(error, path) from None
    if not isinstance(raw, dict):
        raise ParamError("holds no groups of parameters", where=path, fix="write a new one: moclip use demo")
    return raw


def _yaml_error(error: yaml.YAMLError, path: Path) -> ParamError:
    """Return what is wrong with a YAML file, in which line."""
    problem, mark = getattr(error, "problem", None) or str(error), getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    fix = "indent with spaces, not with tabs" if "'\\t'" in problem else "correct it; `git diff` shows your edits"
    return ParamError(f"not valid YAML{where}: {' '.join(problem.split())}", where=path, fix=fix)


def missing_file_error(path: Path, otherwise: str = "") -> ParamError:
    """Return the error for a missing params.yaml: how to get one, or what to do `otherwise`."""
    what = "not found"
    fix = "run from the project's root, or make a project: moclip new DIR --clips DIR (the demo's: moclip use demo)"
    if above := project_above():
        what, fix = f"{what}: this is not the project's folder", f"run it there: cd {above}"
    return ParamError(what, where=path, fix=f"{fix}\n  {otherwise}" if otherwise else fix)


def check_project_folder(path: Path = Path("params.yaml")) -> None:
    """Raise ParamError if this is not a project's folder."""
    _check_is_project(read_raw(path), path)


def project_above() -> Path | None:
    """Return the nearest project folder above this one."""
    return next((folder for folder in Path.cwd().parents if _is_project_folder(folder)), None)


def _is_project_folder(folder: Path) -> bool:
    path = folder / "params.yaml"
    try:
        return path.is_file() and is_project(read_raw(path))
    except (ParamError, OSError, UnicodeDecodeError):
        return False


def is_project(raw: dict[str, Any]) -> bool:
    """Return whether parameters are of this pipeline. The pipeline in data/demo has a params.yaml of its own."""
    return not raw.keys().isdisjoint(("dataset", "mv"))


def _check_is_project(raw: dict[str, Any], path: Path) -> None:
    if not is_project(raw) and (above := project_above()):
        what = "of another pipeline: this is not the project's folder"
        raise ParamError(what, where=path, fix=f"run it there: cd {above}")


def validate(raw: dict[str, Any], source: str) -> Params:
    """Check a tree that holds every key. Raises ParamError that names each wrong key, its value and what is allowed."""
    model = validate_partial(raw, source)
    if lines := [f"{key}: missing; {_allowed(key)}; the default is {default}" for key, default in _missing_keys(model)]:
        raise ParamError("\n  ".join(lines), where=source)
    return model


def validate_partial(raw: dict[str, Any], source: str) -> Params:
    """Check a tree that may leave out keys with a default. Raises ParamError as `validate` does."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        # pydantic reports a union once per alternative; one line per key is enough
        lines = list(dict.fromkeys(_explain(dict(item)) for item in error.errors()))
        raise ParamError("\n  ".join(lines), where=source) from None


def _missing_keys(group: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys that a tree left out, each with its default."""
    for name, value in group:
        if isinstance(value, BaseModel):
            yield from _missing_keys(value, f"{prefix}{name}.")
        elif name not in group.model_fields_set:
            yield f"{prefix}{name}", value


def parse_value(text: str) -> Any:
    """Parse the value of an option as YAML, so that `64`, `true` and `[1, .875]` mean the same as in params.yaml."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return text


def all_keys() -> list[str]:
    """Return every key in full, in the order of the model: "seed", "store", "dataset.root", ..."""
    return list(_fields(Params))


def unknown_key_error(key: str) -> ParamError:
    """Return the error for a key that does not exist, with a similar key."""
    parts, model = key.split("."), Params
    for depth, part in enumerate(parts[:-1]):
        if part not in model.model_fields or not hasattr(model.model_fields[part].annotation, "model_fields"):
            return ParamError(f"{key}: unknown key{_suggest(parts[: depth + 1])}")
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return ParamError(f"{key}: unknown key{_suggest(parts)}")


def describe(key: str) -> tuple[str, str]:
    """Return a key's description and the values it allows, in words."""
    field = _fields(Params).get(key)
    return (field.description or "") if field else "", _allowed(key)


def default_of(key: str) -> Any:
    """Return a key's default, None if it has none."""
    field = _fields(Params)[key]
    return None if field.is_required() else field.default


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a group of keys, None for a key."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def value_at(tree: dict[str, Any], key: str) -> Any:
    """Return the value of a full key ("tsn.size") in a parameter tree, None if it has none."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _fields(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Return the field of every key in full."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        if group := group_of(field):
            found |= _fields(group, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


def _explain(error: dict[str, Any]) -> str:
    """Return a line on one of pydantic's errors: the key, its value and what is allowed."""
    names = [str(part) for part in error["loc"]]
    key = _known_key(names)
    if error["type"] == "extra_forbidden":
        return f"{'.'.join(names)} = {error['input']!r}: unknown key{_suggest(names)}"
    if error["type"] == "missing":
        return f"{'.'.join(names)}: missing; {_allowed(key) or 'see the presets (moclip use --help)'}"
    if error["type"] == "value_error":
        return f"{'.'.join(names)}: {error['ctx']['error']}"
    if not _allowed(key):
        return f"{'.'.join(names)} = {error['input']!r}: this must be a group of keys"
    where = ".".join(names) if names[-1].isdigit() else key
    return f"{where} = {error['input']!r}: allowed is {_allowed(key)}"


def _known_key(names: list[str]) -> str:
    """Return the key in pydantic's location, which may continue with a list item or a branch of a union."""
    known = _fields(Params)
    for end in range(len(names), 0, -1):
        if ".".join(names[:end]) in known:
            return ".".join(names[:end])
    return ".".join(names)


def _suggest(names: list[str]) -> str:
    """Return the end of an "unknown key" message: a similar key, or all keys of the group."""
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
    """Return the values that a key allows, in words; "" for a group of keys."""
    node = _schema()
    definitions = node.get("$defs", {})
    for part in key.split("."):
        node = node.get("properties", {}).get(part, {})
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
    return "" if not node or "properties" in node else _words(node)


def _words(node: dict[str, Any]) -> str:
    """Return the values that a JSON schema allows, in words."""
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
        each = _words(node["items"])
        return "a list of texts" if each == "text" else f"a list, each {each}"
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
            ("ge", ">="),  # pydantic's names for the bounds of list items
            ("gt", ">"),
            ("le", "<="),
        )
        if bound in node
    ]
    if "multipleOf" in node:
        limits.append(f"a multiple of {node['multipleOf']}")
    return f"{name} {' and '.join(limits)}".strip()


def _check_watched(params: Params, source: str) -> None:
    """Check that DVC watches every local file that a stage reads, and that a local encoder has no revision."""
    clip = params.clip
    if clip.revision and clip.model and Path(clip.model).exists():
        raise ParamError(
            f"clip.revision = {clip.revision!r}, but clip.model = {clip.model!r} is a local folder",
            where=source,
            fix="set clip.revision to false: only hub models have revisions",
        )
    if clip.models and (clip.model is False or len({clip.model, *clip.models}) <= len(clip.models)):
        what = f"clip.models = {clip.models} adds to clip.model = {clip.model!r}"
        raise ParamError(f"{what}: name each encoder once, the first in clip.model", where=source)
    for name in clip.models:
        if Path(name).exists() and not _is_below(name, clip.files):
            raise ParamError(
                f"clip.models has the folder {name}, which is not below clip.files = {clip.files}",
                where=source,
                fix="put all local encoders below one folder, and set clip.files to it, so that DVC sees them change",
            )
    if clip.model and not clip.model.startswith(TIMM) and not _is_below(clip.model, clip.files):
        _check_same_file("clip.files", clip.files, "clip.model", clip.model, source)
    if isinstance(params.tsn.pretrained, str):
        _check_same_file("tsn.files", params.tsn.files, "tsn.pretrained", params.tsn.pretrained, source)


def _check_false_alarms(params: Params, source: str) -> None:
    """Check that there is a class whose clips raise false alarms."""
    rate = params.evaluate.reject_false_alarms
    if rate < 1 and params.dataset.background is False:
        what = f"evaluate.reject_false_alarms = {rate:g}, but no class is the background"
        raise ParamError(what, where=source, fix="set dataset.background to a class of clips of nothing in particular")


def _is_below(path: str, folder: str) -> bool:
    """Return whether a folder holds a path that exists, or is that path."""
    return folder != NO_FILE and Path(path).exists() and Path(path).resolve().is_relative_to(Path(folder).resolve())


def _check_same_file(watching_key: str, watched: str, key: str, read: str, source: str) -> None:
    """Raise ParamError unless `watched` is the file or folder that a stage reads, or `NO_FILE` if that is of a hub."""
    if read == watched or (not Path(read).exists() and watched == NO_FILE):
        return
    wanted = read if Path(read).exists() else NO_FILE
    raise ParamError(
        f"{watching_key} = {watched!r}, but {key} = {read!r}: DVC would not see it change",
        where=source,
        fix=f"set {watching_key} to {wanted}",
    )
