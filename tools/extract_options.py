"""The types and names of tools/extract.py's options. conf/extract.yaml has their meanings."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, ListConfig

from vmb_d2.config import ALIASES
from vmb_d2.errors import ConfigError

# Files, folders and URLs: taken as they are typed, see arguments.py.
PATHS = (
    "model.weights",
    "model.config_file",
    "input.dir",
    "input.list",
    "input.exclude_list",
    "boxes.file",
    "output.dir",
    "output.class_names",
    "cache_dir",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.launcher.submitit_folder",
)


@dataclass
class ModelOptions:
    name: str = MISSING
    weights: str | None = MISSING
    config_file: str | None = None  # a VMB yaml instead of the built-in description
    unsafe_load: bool = False  # also load pickled objects, which can run any code


@dataclass
class InputOptions:
    dir: str | None = None
    list: Any = None
    recursive: bool = False
    extensions: Any = field(default_factory=lambda: ["png", "jpg", "jpeg"])
    names: str | None = None
    exclude_list: str | None = None
    start_index: int = 0
    end_index: int | None = None
    max_failures: int | None = None


@dataclass
class ShardOptions:
    index: int | None = None
    count: int | None = None


@dataclass
class BoxesOptions:
    file: str | None = None
    format: str | None = None
    normalized: bool | None = None
    inclusive: bool | None = None


@dataclass
class OutputOptions:
    dir: str = MISSING
    format: Any = "mmf"
    dtype: str = "float32"
    clip_boxes: bool | None = None
    class_names: str | None = None
    allow_mismatch: bool = False
    foreign: str = "keep"


@dataclass
class ExtractOptions:
    feature_name: Any = None
    num_features: int = 100
    min_features: int | None = None
    max_features: int | None = None
    confidence_threshold: float = 0.0
    background: bool = False
    batch_size: Any = 1
    batching: str = "bucketed"
    workers: int | None = None


@dataclass
class ExtractConfig:
    model: ModelOptions = field(default_factory=ModelOptions)
    input: InputOptions = field(default_factory=InputOptions)
    shard: ShardOptions = field(default_factory=ShardOptions)
    boxes: BoxesOptions = field(default_factory=BoxesOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    device: str = "auto"
    precision: str = "fp32"
    cache_dir: str | None = None


def register() -> None:
    """Make the types known to Hydra, as ``extract_schema``, and MMF's names of the models."""
    store = ConfigStore.instance().store
    store(name="extract_schema", node=ExtractConfig)
    for alias, name in ALIASES.items():
        store(group="model", name=alias, node={"defaults": [name]})


@functools.cache
def option_names() -> dict[str, str]:
    """The option of each parameter of the library that an error can name in backticks.

    A parameter is named as the last part of the option, or, where several options end so, as
    ``group_option``.
    """
    keys = []
    for group in dataclasses.fields(ExtractConfig):
        options = group.default_factory
        if dataclasses.is_dataclass(options):
            keys += [f"{group.name}.{option.name}" for option in dataclasses.fields(options)]
    leaves = Counter(key.partition(".")[2] for key in keys)
    names = {key.partition(".")[2]: key for key in keys if leaves[key.partition(".")[2]] == 1}
    return {**names, **{key.replace(".", "_"): key for key in keys}, "model_name": "model"}


def strings(value: Any, field: str) -> list[str]:
    """The strings of an option that takes one or a list of them; none where it is null.

    Raises ConfigError where it is something else.
    """
    values = list(value) if isinstance(value, ListConfig) else [] if value is None else [value]
    for item in values:
        if not isinstance(item, (str, int)) or isinstance(item, bool) or item == "":
            reason = "has to be a value or a list of them, as in [a,b]"
            raise ConfigError(reason, field=field, value=value)
    return [str(item) for item in values]
