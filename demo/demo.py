"""`make demo`: the full ResNeXt-152 on real photographs, held against the original's features.

The released weights may be out of reach, so the network gets synthetic ones: those with which the
goldens were recorded from the original code. What the features say is meaningless; that they are
the same is not.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from reference import goldens  # noqa: E402

from vmb_d2.fidelity import distance  # noqa: E402
from vmb_d2.inputs import list_images  # noqa: E402
from vmb_d2.stores.mmf import MMFReader  # noqa: E402

WORK = ROOT / "demo" / "output"
FEATURES = WORK / "features"
MODEL = "x152"
COLUMNS = "{:<13} {:>9} {:>9} {:>13} {:>15} {:>13}"


def run(*command):
    print("$", "python", *(str(c).replace(f"{ROOT}/", "") for c in command), flush=True)
    status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def make_weights() -> Path:
    """Write the synthetic checkpoint (0.8 GB) in VMB's layout, unless it is there."""
    weights = WORK / f"{MODEL}_synthetic.pth"
    if not weights.exists():
        listing = goldens.REFERENCE / "state_dicts" / f"{MODEL}.json"
        part = weights.with_suffix(".part")
        run(goldens.REFERENCE / "synthetic_weights.py", listing, part)
        part.rename(weights)
    return weights


def print_distances() -> bool:
    """Print the table; True if every golden is met within the tolerances that the tests state."""
    print("\nDistance to the features that the original code gave (original pixels; L2):\n")
    head = ("image", "features", "boxes", "boxes matched", "box distance", "feature error")
    print(COLUMNS.format(*head))
    met = True
    for image in map(Path, list_images(ROOT / "demo")):
        regions = MMFReader(FEATURES).read(image.stem)
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
    WORK.mkdir(exist_ok=True)
    shutil.rmtree(FEATURES, ignore_errors=True)
    weights = make_weights()
    run(
        "tools/extract.py",
        f"model={MODEL}",
        f"model.weights={weights}",
        "input.dir=demo",
        f"output.dir={FEATURES}",
        f"cache_dir={WORK / 'cache'}",
    )
    met = print_distances()
    print("The original's features." if met else "NOT the original's features.")
    print(f"They are in {FEATURES.relative_to(ROOT)}; `rm -r {WORK.relative_to(ROOT)}` frees 2 GB.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
