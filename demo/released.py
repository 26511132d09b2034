"""`make demo-released`: the released ResNeXt-152 on real photographs, and what it sees there.

Weights, yaml and class names are downloaded once, into the cache that tools/extract.py has too.
"""

import logging
import sys
from pathlib import Path

from steps import draw, extract, output_folder

from vmb_d2.errors import VMBError
from vmb_d2.stores.mmf import MMFReader
from vmb_d2.structures.class_names import ClassNames, class_names_or_numbers
from vmb_d2.utils.downloads import cache_folder

WHAT_TO_SEE = """
With the released weights you should see a cat in chelsea.png, a cup and a table in coffee.png, a
man in camera.png, and on the page boxes that fit their names. Names that have nothing to do with
the photographs mean that weights and network don't fit each other."""


def print_most_confident(features: Path, classes: ClassNames):
    """Print the five classes of each photograph of which a region is the most confident."""
    reader = MMFReader(features)
    for name in sorted(reader.names()):
        best = reader.read(name).cls_prob.max(axis=0)
        names = classes.for_columns(len(best))
        shown = (f"{names[i]} {best[i]:.2f}" for i in (-best).argsort(kind="stable")[:5])
        print(f"{name}: {', '.join(shown)}")


def main():
    logging.getLogger("iopath").setLevel(logging.CRITICAL)  # what fails is said by the warning
    folder = output_folder(__doc__) / "released"
    features = extract(folder, "model=x152")
    classes = class_names_or_numbers(None, cache_folder())
    print("\nThe five most confident classes of each photograph, with their probabilities:\n")
    print_most_confident(features, classes)
    print()
    draw(folder, "--classes", classes.source or "none")
    print(WHAT_TO_SEE)


if __name__ == "__main__":
    try:
        main()
    except VMBError as error:
        sys.exit(str(error))
