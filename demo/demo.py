"""`make demo`: the full ResNeXt-152 on real photographs, held against the original's features.

The released weights may be out of reach, so the network gets synthetic ones: those with which the
goldens were recorded from the original code. What the features say is meaningless; that they are
the same is not. So the page of the photographs has numbers in place of class names.
"""

import sys
from pathlib import Path

from steps import ROOT, draw, extract, output_folder

sys.path.insert(0, str(ROOT))

from reference import goldens
from vmb_d2.comparison.fidelity import distance
from vmb_d2.data.image_list import list_images
from vmb_d2.stores.mmf import MMFReader

MODEL = "x152"
COLUMNS = "{:<13} {:>9} {:>9} {:>13} {:>15} {:>13}"


def print_distances(features: Path) -> bool:
    """Print the table; True if every golden is met within the tolerances that the tests state."""
    print("\nDistance to the features that the original code gave (original pixels; L2):\n")
    head = ("image", "features", "boxes", "boxes matched", "box distance", "feature error")
    print(COLUMNS.format(*head))
    met = True
    for image in map(Path, list_images(ROOT / "demo")):
        regions = MMFReader(features).read(image.stem)
        shape = "{}x{}".format(*regions.features.shape)
        golden = goldens.REFERENCE / "golden" / f"{MODEL}.seed0.bs1.{image.name}.npz"
        if not golden.exists():
            print(COLUMNS.format(image.name, shape, regions.num_boxes, "-", "-", "-"))
            continue
        d = distance(goldens.load(golden), regions)
        matched = f"{d.matched}/{d.regions}"
        figures = (matched, f"{d.box:.1e} px", f"{d.features:.1e}")
        print(COLUMNS.format(image.name, shape, regions.num_boxes, *figures))
        met &= d.matched_share >= 0.999 and d.features < 2e-5 and d.same_class == d.matched
    print("\n(-: no golden was recorded of this image with this model)")
    return met


def main() -> int:
    output = output_folder(__doc__)
    weights = f"model.weights={output / f'{MODEL}_synthetic.pth'}"  # as the Makefile makes it
    features = extract(output, f"model={MODEL}", weights, f"cache_dir={output / 'cache'}")
    met = print_distances(features)
    print("The original's features." if met else "NOT the original's features.")
    print(f"They are in {features}; `rm -r {output}` frees 2 GB.")
    draw(output, "--classes", "none")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
