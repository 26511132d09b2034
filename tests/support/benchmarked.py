"""Narrow images, on which a tiny model is quick."""

from PIL import Image

from reference import goldens
from vmb_d2.data.image_list import list_images, name_images

WIDTH, HEIGHT = 600, 9  # resized to 1333 x 20, padded to 1344 x 32


def strips(folder, count=3, height=HEIGHT):
    """Strips cut from a photograph, as images of a run."""
    folder.mkdir(exist_ok=True)
    photograph = Image.open(goldens.image_path("coffee.png"))
    for i in range(count):
        top = 40 * i + 100
        strip = photograph.crop((0, top, WIDTH, top + height))
        strip.save(folder / f"strip_{height}_{i}.png")
    return name_images(list_images(folder))
