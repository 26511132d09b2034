"""From images to MMF's region features."""

from __future__ import annotations

from . import modeling  # noqa: F401  (prepares detectron2 for the imports below)

# isort: split

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import ImageList, Instances
from PIL import Image
from torch import Tensor

from .checkpoint.pretrained import fingerprint, load_described_model
from .checkpoint.released import released_model, released_weights
from .config import VMBModel, describe_model
from .data.batching import bucketed_batches
from .data.preprocessing import ImageSource, NetworkImage, load
from .modeling import VMBRCNN
from .selection.options import RegionOptions
from .selection.read_out import chosen_regions, given_regions
from .structures.regions import RegionFeatures
from .utils.devices import arithmetic, check_precision, device_of, dtype_of


class RegionFeatureExtractor:
    """Gives the region features of images.

        extractor = RegionFeatureExtractor.from_pretrained("x152")
        regions = extractor("photo.jpg")

    Args:
        model: in evaluation mode, on its device, in float32. It is left as it is.
        options: which features of which regions to give.
        description: what the model is, for records; None where nobody knows.
        precision: the network's arithmetic, of ``precision.PRECISIONS``. Boxes, scores and
            features are float32 in all of them.

    Attributes:
        model: the model given; in other precisions than float32 a copy, in the form that is run.
        feature_names: the features given, the first one as ``RegionFeatures.features``.

    Raises:
        ConfigError: the model doesn't have a feature asked for, or its device the precision.
    """

    def __init__(
        self,
        model: VMBRCNN,
        options: RegionOptions | None = None,
        description: VMBModel | None = None,
        precision: str = "fp32",
    ):
        check_precision(precision, model.device)
        self.model = model
        if precision != "fp32":  # which does what the original does, layer by layer
            self.weights_sha256 = fingerprint(model)
            self.model = model.for_inference(dtype_of(precision), torch.channels_last)
        self.precision = precision
        self.options = options or RegionOptions()
        self.description = description
        self.feature_names = self.options.choose_features(model.feature_names)

    @functools.cached_property
    def weights_sha256(self) -> str:
        """Hex, of the weights of the model given. It takes a second where it is asked for first."""
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
        **options,
    ) -> RegionFeatureExtractor:
        """Load a model.

        Args:
            model: ``"x152"``, ``"x101"`` (or MMF's ``"X-152"``, ``"X-101"``), ``"r101_c4"``,
                ``"x152_c4"``; the path of a VMB yaml; or None where ``weights`` is a converted
                checkpoint, which knows what it is of.
            weights: path or URL of a VMB or of a converted checkpoint. None for the released
                weights of ``x152`` and ``x101``, which are fetched once, with the yaml beside them:
                see :func:`vmb_d2.checkpoint.released.released_model`.
            device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
            cache_dir: for downloads and conversions; None for ``$VMB_D2_CACHE`` or
                ``~/.cache/vmb_d2``.
            unsafe_load: load pickled objects too, which can run any code.
            precision: ``"fp32"`` or ``"bf16"``, on a GPU also ``"tf32"`` and ``"fp16"``.
            **options: of :class:`vmb_d2.selection.RegionOptions`, such as ``num_features=36``.

        Raises:
            ConfigError, DownloadError, CheckpointError: see their texts.
        """
        description = None if model is None else describe_model(model)
        chosen = RegionOptions(**options)
        if description is not None:
            chosen.choose_features(description.feature_names)  # before a long download
        device = device_of(device)
        check_precision(precision, device)
        if weights is None:
            weights = released_weights(model)
            description = released_model(model, cache_dir)
        network, description = load_described_model(
            weights, description, device=device, cache_dir=cache_dir, unsafe=unsafe_load
        )
        return cls(network, chosen, description, precision)

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource],
        boxes=None,
        batch_size: int = 1,
    ) -> RegionFeatures | list[RegionFeatures]:
        """Extract the regions of one image, or of each of several.

        Args:
            images: a path, a PIL image, or a uint8 array of (H, W, 3) in RGB order (OpenCV's
                images are BGR: turn them round with ``image[:, :, ::-1]``); or a list of those.
            boxes: instead of the proposals, for each image an array or tensor (n, 4) of inclusive
                boxes x1, y1, x2, y2 in original pixels; for a list of images a list of those.
            batch_size: images of one padded size that go through the network together, at most.
                It doesn't change features.

        Returns:
            RegionFeatures, or a list of them for a list of images, in its order.

        Raises:
            ImageReadError: an image can't be read.
            ValueError, TypeError: an image or boxes are of another kind.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return self([images], None if boxes is None else [boxes], batch_size)[0]
        images = list(images)
        given = [None] * len(images) if boxes is None else [_as_boxes(b) for b in boxes]
        if len(given) != len(images):
            raise ValueError(f"boxes of {len(given)} images for {len(images)} images")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: has to be at least 1")
        results: list[RegionFeatures | None] = [None] * len(images)
        loaded = ((i, load(image)) for i, image in enumerate(images))
        for batch in bucketed_batches(loaded, batch_size, lambda item: item[1].padded_size):
            numbers = [i for i, _ in batch.images]
            regions = self.extract_batch(
                [image for _, image in batch.images],
                batch.padded_size,
                None if boxes is None else [given[i] for i in numbers],
            )
            for i, result in zip(numbers, regions, strict=True):
                results[i] = result
        return results

    @torch.inference_mode()
    def extract_batch(
        self,
        images: Sequence[NetworkImage],
        padded_size: tuple[int, int],
        boxes: Sequence[Tensor] | None = None,
    ) -> list[RegionFeatures]:
        """Extract the regions of preprocessed images.

        Args:
            images: a batch.
            padded_size: (height, width) in network pixels, multiples of 32, to pad each image to.
                Proposals are clipped to it.
            boxes: for each image, inclusive boxes (n, 4) in original pixels to take instead of
                proposals. All are given back, in their order.
        """
        batch = self.to_network(images, padded_size)
        if boxes is None:
            return self.read_out(self.network(batch), images)
        scaled = [b * image.scale for b, image in zip(boxes, images, strict=True)]
        return self.read_out(self.network(batch, scaled), images, boxes)

    def to_network(self, images: Sequence[NetworkImage], padded_size: tuple[int, int]) -> ImageList:
        """The first step of :meth:`extract_batch`: a batch, padded, on the model's device."""
        device = self.model.device
        batch = pad(images, padded_size, pinned=device.type == "cuda")
        return batch.to(device, non_blocking=True)

    @torch.inference_mode()
    def network(self, batch: ImageList, boxes: Sequence[Tensor] | None = None) -> list[Instances]:
        """The second: what :meth:`VMBRCNN.regions` gives; ``boxes`` are in network pixels."""
        arguments = [batch, self.feature_names]
        if boxes is not None:
            arguments.append(boxes)
        with arithmetic(self.precision):
            return self.model.regions(*arguments)

    @torch.inference_mode()
    def read_out(
        self,
        regions: Sequence[Instances],
        images: Sequence[NetworkImage],
        boxes: Sequence[Tensor] | None = None,
    ) -> list[RegionFeatures]:
        """The third: the regions to keep of :meth:`network`'s, or all of given ``boxes``."""
        names = self.feature_names
        if boxes is None:
            return chosen_regions(regions, images, names, self.options)
        return given_regions(regions, images, boxes, names, self.options.background)


def pad(images: Sequence[NetworkImage], size: tuple[int, int], pinned: bool = False) -> ImageList:
    """Images in the top left corners of zeros of ``size`` (height, width).

    ``pinned``: in memory that a GPU reads by itself.
    """
    tensor = torch.zeros((len(images), 3, *size), pin_memory=pinned)
    for target, image in zip(tensor, images, strict=True):
        height, width = image.tensor.shape[-2:]
        target[:, :height, :width] = image.tensor
    return ImageList(tensor, [tuple(image.tensor.shape[-2:]) for image in images])


def _as_boxes(boxes) -> Tensor:
    tensor = torch.as_tensor(np.asarray(boxes), dtype=torch.float32)
    if tensor.numel() == 0:
        return tensor.reshape(0, 4)
    if tensor.ndim != 2 or tensor.shape[1] != 4:
        raise ValueError(f"boxes of shape {tuple(tensor.shape)}: they are (n, 4)")
    return tensor
