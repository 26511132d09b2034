"""The types and names of tools/extract.py's options.

Their default values and meanings are in conf/extract.yaml.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any, get_type_hints

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
    "output.attribute_names",
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
    dir: str | None
    list: Any
    recursive: bool
    extensions: Any
    names: str | None
    exclude_list: str | None
    start_index: int
    end_index: int | None
    max_failures: int | None
    short_side: int | None
    long_side: int | None
    rounding: str | None
    resize: str | None
    channel_order: str | None
    decoder: str | None


@dataclass
class ShardOptions:
    index: int | None
    count: int | None


@dataclass
class BoxesOptions:
    file: str | None
    format: str | None
    normalized: bool | None
    inclusive: bool | None


@dataclass
class OutputOptions:
    dir: str
    format: Any
    dtype: str
    clip_boxes: bool | None
    class_names: str | None
    attribute_names: str | None
    allow_mismatch: bool
    foreign: str


@dataclass
class ExtractOptions:
    feature_name: Any
    num_features: int | None
    min_features: int | None
    max_features: int | None
    confidence_threshold: float | None
    background: bool
    batch_size: Any
    batching: str
    workers: int | None
    compile: str
    layer_by_layer: bool


@dataclass
class ExtractConfig:
    model: ModelOptions
    input: InputOptions
    shard: ShardOptions
    boxes: BoxesOptions
    output: OutputOptions
    extract: ExtractOptions
    read_out: str | None
    device: str
    precision: str
    cache_dir: str | None


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
    groups = get_type_hints(ExtractConfig).items()
    keys = [
        f"{group}.{option.name}"
        for group, options in groups
        if dataclasses.is_dataclass(options)
        for option in dataclasses.fields(options)
    ]
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
