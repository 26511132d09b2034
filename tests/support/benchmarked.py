"""What the benchmark's tests share: narrow images, and a clock that they turn themselves."""

import json

from PIL import Image

from reference import goldens
from vmb_d2.data.image_list import list_images, name_images

WIDTH, HEIGHT = 600, 9  # resized to 1333 x 20, padded to 1344 x 32: a tiny model is quick there


def strips(folder, count=3, height=HEIGHT):
    """Strips cut from a photograph, as images of a run."""
    folder.mkdir(exist_ok=True)
    photograph = Image.open(goldens.image_path("coffee.png"))
    for i in range(count):
        top = 40 * i + 100
        strip = photograph.crop((0, top, WIDTH, top + height))
        strip.save(folder / f"strip_{height}_{i}.png")
    return name_images(list_images(folder))


class Clock:
    """Stands still until it is turned."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def turned_by(self, seconds, function):
        """``function``, which takes so long."""

        def slow(*args, **kwargs):
            self.seconds += seconds
            return function(*args, **kwargs)

        return slow


def numbers(content):
    """All numbers in what JSON gives, with the way to each."""
    content = json.loads(content) if isinstance(content, str) else content
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from ((f"{key}.{way}", number) for way, number in numbers(value))
        elif isinstance(value, (int, float)):
            yield key, value
