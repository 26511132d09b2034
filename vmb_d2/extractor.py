"""From images to region features."""

from __future__ import annotations

from . import modeling  # noqa: F401  (prepares detectron2 for the imports below)

# isort: split

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .checkpoint.pretrained import fingerprint, load_described_model
from .checkpoint.released import released_model, released_name
from .checkpoint.sources import model_beside
from .config import RELEASED_WEIGHTS, VMBModel, describe_model
from .config.input_step import MMF_INPUT
from .config.read_out import MMF_READ_OUT
from .data.batching import bucketed_batches
from .data.preprocessing import ImageSource, NetworkImage, load
from .errors import ConfigError
from .modeling import VMBRCNN, NetworkBatch, NetworkOutput
from .modeling.compiled import compiled
from .modeling.memory_format import fastest_memory_formats, with_memory_formats
from .modeling.winograd import with_winograd
from .selection.options import RegionOptions
from .selection.read_out import chosen_regions, given_regions
from .structures.regions import RegionFeatures
from .utils.devices import arithmetic, check_compile, check_precision, clock, device_of, dtype_of


class RegionFeatureExtractor:
    """Extracts the region features of images.

        extractor = RegionFeatureExtractor.from_pretrained("x152")
        regions = extractor.extract("photo.jpg")

    Args:
        model: in evaluation mode, on its device, in float32. It is not changed.
        options: which features of which regions to extract.
        description: of the model; None for a model of VMB, of which no more is known.
        precision: arithmetic of the network, one of ``PRECISIONS``. Boxes, scores and features
            are float32 in all of them.
        compile: how backbone and RPN head run, one of ``COMPILE_MODES``; see
            :func:`vmb_d2.modeling.compiled.compiled`.
        layer_by_layer: in fp32, compute each layer as the original does. Otherwise, without
            ``compile``, other forms are taken on the CPU in fp32 where they are faster and as near
            to it: :mod:`vmb_d2.modeling.winograd` and :attr:`VMBRCNN.is_exact_for_inference`. On a
            GPU :meth:`use_memory_formats` may be called.

    Attributes:
        model: the model given, or a copy in another form.
        layer_by_layer: whether no such form is taken, as always with ``compile`` and on the CPU in
            bf16.
        feature_names: the features extracted; the first one is ``RegionFeatures.features``.
        input_step: how an image becomes the network's input.
        read_out: how regions are chosen.

    Raises:
        ConfigError: the model doesn't have a feature, or its device the precision or ``compile``.
    """

    def __init__(
        self,
        model: VMBRCNN,
        options: RegionOptions | None = None,
        description: VMBModel | None = None,
        precision: str = "fp32",
        compile: str = "off",
        layer_by_layer: bool = False,
    ):
        check_precision(precision, model.device)
        check_compile(compile, model.device, precision)
        self.model = model
        on_cpu = model.device.type == "cpu"
        in_other_forms = compile == "off" and (precision == "fp32" or not on_cpu)
        self.layer_by_layer = layer_by_layer or not in_other_forms
        on_cpu_in_fp32 = on_cpu and not self.layer_by_layer
        folds = precision != "fp32" or (on_cpu_in_fp32 and model.is_exact_for_inference)
        if folds or compile != "off":  # its copy has other weights, or other names for them
            self.weights_sha256 = fingerprint(model)
        if folds:
            self.model = model.for_inference(dtype_of(precision))
        if on_cpu_in_fp32:
            self.model = with_winograd(self.model)
        if compile != "off":
            self.model = compiled(self.model, compile)
        self.precision = precision
        self.compile = compile
        self.options = options or RegionOptions()
        self.description = description
        self.feature_names = self.options.choose_features(model.feature_names)
        self.input_step = description.input if description else MMF_INPUT
        own_read_out = description.read_out if description else MMF_READ_OUT
        self.read_out_rule = self.options.rule(own_read_out)

    @functools.cached_property
    def weights_sha256(self) -> str:
        """Hex SHA-256 of the weights of the model given."""
        return fingerprint(self.model)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | VMBModel | None = "x152",
        *,
        weights: str | Path | None = None,
        device: str | torch.device = "auto",
        cache_dir: str | Path | None = None,
        unsafe_load: bool = False,
        precision: str = "fp32",
        compile: str = "off",
        layer_by_layer: bool = False,
        input_changes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RegionFeatureExtractor:
        """Load a model.

        Args:
            model: ``"x152"``, ``"x101"`` (or MMF's ``"X-152"``, ``"X-101"``), ``"r101_c4"``,
                ``"x152_c4"``, ``"vinvl"``, ``"frcnn_vg"``, ``"bua"``; the path of the original's
                yaml; or None where ``weights`` is a converted checkpoint, which contains its own
                description.
            weights: path or URL of an original or of a converted checkpoint; or a folder or
                OWNER/NAME of Hugging Face's hub with ``pytorch_model.bin`` and ``config.yaml``,
                which describes it where ``model`` is None or ``"frcnn_vg"``. None for the released
                weights of ``x152``, ``x101`` and ``frcnn_vg``, which are downloaded once, with the
                yaml beside them: see :func:`vmb_d2.checkpoint.released.released_model`.
            device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
            cache_dir: for downloads and conversions; None for ``$VMB_D2_CACHE`` or
                ``~/.cache/vmb_d2``.
            unsafe_load: load pickled objects too, which can run any code.
            precision: ``"fp32"`` or ``"bf16"``, on a GPU also ``"tf32"`` and ``"fp16"``.
            compile: how backbone and RPN head run: ``"off"``, ``"inductor"`` (``torch.compile``),
                on a GPU also ``"graphs"`` (CUDA graphs).
            layer_by_layer: see the class.
            input_changes: other values of fields of :class:`vmb_d2.config.input_step.InputStep`
                than the model's own, such as ``{"channel_order": "rgb"}``.
            **options: of :class:`vmb_d2.selection.options.RegionOptions`, such as
                ``num_features=36``.

        Raises:
            ConfigError: an option, or the description of the model.
            DownloadError: the weights can't be downloaded.
            CheckpointError: the weights can't be read, or are not those of the model.
        """
        chosen = RegionOptions(**options)
        description = None if model is None else describe_model(model)
        if weights is not None and model in (None, "frcnn_vg"):
            description = model_beside(weights, cache_dir) or description
        if description is not None:  # before a long download
            chosen.choose_features(description.feature_names)
            chosen.rule(description.read_out)
        device = device_of(device)
        check_precision(precision, device)
        check_compile(compile, device, precision)
        if weights is None:
            name = released_name(model)
            weights, description = RELEASED_WEIGHTS[name], released_model(name, cache_dir)
        network, description = load_described_model(
            weights, description, device=device, cache_dir=cache_dir, unsafe=unsafe_load
        )
        description = description.with_input(input_changes or {})
        return cls(network, chosen, description, precision, compile, layer_by_layer)

    @overload
    def extract(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, images: ImageSource, boxes: Any = None, batch_size: int = 1
    ) -> RegionFeatures: ...

    @overload
    def extract(
        self, images: Sequence[ImageSource], boxes: Any = None, batch_size: int = 1
    ) -> list[RegionFeatures]: ...

    def extract(self, images, boxes=None, batch_size=1):
        """Extract the regions of one image, or of each of several.

        Args:
            images: a path, a PIL image, or a uint8 array of shape (H, W, 3) in RGB order (for
                OpenCV's BGR images: ``image[:, :, ::-1]``); or a list of these.
            boxes: used instead of the proposals. For one image an array or tensor (n, 4) of
                boxes x1, y1, x2, y2 in original pixels, of the model's convention: inclusive, of
                ``frcnn_vg`` exclusive; for a list of images a list of these.
            batch_size: largest number of images of one padded size that go through the network
                together. It doesn't change features.

        Returns:
            RegionFeatures; for a list of images a list of them, in its order.

        Raises:
            ImageReadError: an image can't be read.
            ConfigError: ``batch_size`` is not positive.
            ValueError, TypeError: an image or boxes of another kind.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return self.extract([images], None if boxes is None else [boxes], batch_size)[0]
        if batch_size < 1:
            raise ConfigError("has to be at least 1", field="batch_size", value=batch_size)
        given = None if boxes is None else [_as_boxes(b) for b in boxes]
        if given is not None and len(given) != len(images):
            raise ValueError(f"boxes of {len(given)} images for {len(images)} images")
        results: dict[int, RegionFeatures] = {}
        loaded = ((i, load(image, self.input_step)) for i, image in enumerate(images))
        for batch in bucketed_batches(loaded, batch_size, lambda item: item[1].padded_size):
            numbers = [i for i, _ in batch.images]
            regions = self.extract_batch(
                [image for _, image in batch.images],
                batch.padded_size,
                None if given is None else [given[i] for i in numbers],
            )
            results.update(zip(numbers, regions, strict=True))
        return [results[i] for i in range(len(results))]

    @torch.inference_mode()
    def extract_batch(
        self,
        images: Sequence[NetworkImage],
        padded_size: tuple[int, int],
        boxes: Sequence[Tensor] | None = None,
        batch: NetworkBatch | None = None,
    ) -> list[RegionFeatures]:
        """Extract the regions of preprocessed images.

        Args:
            images: a batch.
            padded_size: (height, width) in network pixels to which each image is padded.
            boxes: for each image, boxes (n, 4) of the model's convention in original pixels, used
                instead of proposals. All of them are returned, in their order.
            batch: what :meth:`to_network` gave for the images, where it was called before.
        """
        batch = self.to_network(images, padded_size) if batch is None else batch
        if boxes is None:
            return self.read_out(self.network(batch), images)
        convention = self.model.box_convention
        if convention.clips_given:
            sized = zip(boxes, images, strict=True)
            boxes = [convention.clip(b, (image.height, image.width)) for b, image in sized]
        scaled = [b * b.new_tensor(i.scales * 2) for b, i in zip(boxes, images, strict=True)]
        return self.read_out(self.network(batch, scaled), images, boxes)

    def to_network(
        self, images: Sequence[NetworkImage], padded_size: tuple[int, int]
    ) -> NetworkBatch:
        """Step 1 of :meth:`extract_batch`: pad a batch and copy it to the model's device."""
        device = self.model.device
        batch = pad(images, padded_size, pinned=device.type == "cuda")
        return batch.to(device, non_blocking=True)

    @torch.inference_mode()
    def network(self, batch: NetworkBatch, boxes: Sequence[Tensor] | None = None) -> NetworkOutput:
        """Step 2: run :meth:`VMBRCNN.regions`; ``boxes`` are in network pixels."""
        deltas = boxes is None and self.read_out_rule.regressed
        with arithmetic(self.precision):
            return self.model.regions(batch, self.feature_names, boxes, deltas)

    def fastest_memory_formats(self, image: NetworkImage, batch_size: int) -> dict[str, str]:
        """For :meth:`use_memory_formats`, measured on an image, so many times in a batch."""
        batch = self.to_network([image] * batch_size, image.padded_size)
        with arithmetic(self.precision):
            return fastest_memory_formats(self.model, batch, clock(self.model.device))

    def use_memory_formats(self, formats: Mapping[str, str]) -> None:
        """See :func:`vmb_d2.modeling.memory_format.with_memory_formats`; features change as by
        rounding."""
        self.model = with_memory_formats(self.model, formats)

    @torch.inference_mode()
    def read_out(
        self,
        output: NetworkOutput,
        images: Sequence[NetworkImage],
        boxes: Sequence[Tensor] | None = None,
    ) -> list[RegionFeatures]:
        """Step 3: choose regions of :meth:`network`'s (of given ``boxes`` all), as NumPy arrays."""
        names, background = self.feature_names, self.options.background
        with arithmetic(self.precision):  # attributes are computed here
            if boxes is not None:
                return given_regions(self.model, output, images, boxes, names, background)
            rule = self.read_out_rule
            return chosen_regions(self.model, output, images, names, rule, background)


def pad(
    images: Sequence[NetworkImage], size: tuple[int, int], pinned: bool = False
) -> NetworkBatch:
    """Pad images with zeros at the right and bottom to ``size`` (height, width).

    ``pinned``: in page-locked memory.
    """
    tensor = torch.zeros((len(images), 3, *size), pin_memory=pinned)
    for target, image in zip(tensor, images, strict=True):
        height, width = image.tensor.shape[-2:]
        target[:, :height, :width] = image.tensor
    sizes = [(int(image.tensor.shape[-2]), int(image.tensor.shape[-1])) for image in images]
    return NetworkBatch(tensor, sizes, [image.scales[0] for image in images])


def _as_boxes(boxes: Any) -> Tensor:
    tensor = torch.as_tensor(np.asarray(boxes), dtype=torch.float32)
    if tensor.numel() == 0:
        return tensor.reshape(0, 4)
    if tensor.ndim != 2 or tensor.shape[1] != 4:
        raise ValueError(f"boxes of shape {tuple(tensor.shape)}: they are (n, 4)")
    return tensor
