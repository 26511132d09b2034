"""The types of tools/extract.py's options. Their values and meanings are in conf/extract.yaml."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


class Batching(enum.Enum):
    bucketed = "bucketed"
    mmf = "mmf"

    def __str__(self) -> str:  # for ${extract.batching} in a path
        return self.value


@dataclass
class ModelOptions:
    name: str = MISSING
    weights: str = MISSING
    config_file: str | None = None  # a VMB yaml instead of the built-in description
    unsafe_load: bool = False  # also load pickled objects, which can run any code


@dataclass
class InputOptions:
    dir: str = MISSING
    exclude_list: str | None = None
    start_index: int = 0
    end_index: int | None = None


@dataclass
class OutputOptions:
    dir: str = MISSING


@dataclass
class ExtractOptions:
    feature_name: str | None = None
    num_features: int = 100
    confidence_threshold: float = 0.0
    background: bool = False
    batch_size: int = 1
    batching: Batching = Batching.bucketed


@dataclass
class ExtractConfig:
    model: ModelOptions = field(default_factory=ModelOptions)
    input: InputOptions = field(default_factory=InputOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    device: str = "auto"
    cache_dir: str | None = None


def register() -> None:
    """Make the types known to Hydra, as ``extract_schema``."""
    ConfigStore.instance().store(name="extract_schema", node=ExtractConfig)
