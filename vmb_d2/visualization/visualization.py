"""Drawing many images, one after the other: what fails is reported, the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..data.preprocessing import read_image
from ..errors import ConfigError, ImageReadError, StoreError
from ..output.manifest import has_inclusive_boxes
from ..stores.base import FeatureReader, output_errors
from ..structures.class_names import ClassNames
from ..utils.files import whole_file
from .boxes import shown_boxes
from .drawing import draw_boxes
from .image_files import ImageFiles
from .page import MARK, Page, refuse_other

MISSING_NAMED = 5  # so many images that are missing are named, the others are counted

logger = logging.getLogger(__name__)


@dataclass
class Counts:
    """How many images were drawn, are missing, or failed; and whether the limit left some out."""

    drawn: int = 0
    missing: int = 0
    failed: int = 0
    cut: bool = False


@dataclass
class Visualization:
    """Draws a store's boxes on their images.

    Attributes:
        reader: of the store; its boxes are exclusive where the record of its making says so.
        images: where the images are.
        class_names: of the store's classes and attributes. Attributes without names aren't shown.
        min_confidence: PNGs show the boxes that reach it. A page has all, and filters itself.
        top: boxes an image, at most.
        limit: images to draw, at most; 0 for all.

    Raises:
        ConfigError: a number out of range.
    """

    reader: FeatureReader
    images: ImageFiles
    class_names: ClassNames
    min_confidence: float
    top: int
    limit: int

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            value = self.min_confidence
            raise ConfigError("has to be from 0 to 1", field="min_confidence", value=value)
        if self.top < 1:
            raise ConfigError("has to be at least 1", field="top", value=self.top)
        if self.limit < 0:
            raise ConfigError("has to be at least 0", field="limit", value=self.limit)
        self._inclusive = has_inclusive_boxes(self.reader.path)

    def run(self, names: Iterable[str], folder: Path | None, page: Page | None) -> Counts:
        """Draw the images of these names.

        Args:
            names: of the store.
            folder: gets the PNGs, ``name.png``; it exists. None for no PNGs.
            page: gets every image. None for no page.

        Raises:
            ConfigError: the names don't fit the store.
            OutputError: a PNG, or the page, can't be written; or a PNG would overwrite a file that
                isn't one drawn before.
        """
        counts = Counts()
        with logging_redirect_tqdm():
            for name in tqdm(names, unit="image", disable=None):
                if self.limit and counts.drawn == self.limit:
                    counts.cut = True
                    break
                try:
                    self._draw_one(name, folder, page, counts)
                except (ImageReadError, StoreError) as error:
                    counts.failed += 1
                    logger.warning("failed: %s: %s", name, error)
        return counts

    def _draw_one(self, name: str, folder: Path | None, page: Page | None, counts: Counts) -> None:
        path = self.images.find(name)
        if path is None:
            counts.missing += 1
            if counts.missing <= MISSING_NAMED:
                logger.warning("missing: %s: no image in %s", name, self.images.source)
            return
        regions = self.reader.read(name)
        rgb = read_image(path)
        size = rgb.shape[:2]
        boxes = shown_boxes(regions, size, self.class_names, self.top, self._inclusive)
        if folder is not None:
            least = self.min_confidence
            confident = [b for b in boxes if b.confidence is None or b.confidence >= least]
            _save_png(draw_boxes(rgb, confident), folder / f"{name}.png")
        if page is not None:
            page.add(name, rgb, boxes, len(regions))
        counts.drawn += 1


def _save_png(image: Image.Image, path: Path) -> None:
    """Write the PNG whole or not at all, its folder too. Raises OutputError."""
    refuse_other(path)
    mark = PngInfo()
    mark.add_text("Software", MARK)
    with output_errors(path, "can't be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            image.save(temporary, "PNG", pnginfo=mark)
