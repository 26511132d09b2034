from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = {}
exec((ROOT / "vmb_d2" / "version.py").read_text(), VERSION)

setup(
    name="vmb-d2",
    version=VERSION["__version__"],
    description="The region features of vqa-maskrcnn-benchmark, on Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["vmb_d2", "vmb_d2.*", "weights_conversion"]),
    package_data={
        "vmb_d2.config": ["models/*.yaml"],
        "vmb_d2.visualization": ["page.*"],
    },
    # detectron2 is not named: no package index serves it under its own name, and a user's own
    # build must stay in place. `make install` installs it; `import vmb_d2` says when it is missing.
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "fvcore>=0.1.5",
        "iopath>=0.1.9",
        "numpy>=1.24",
        "opencv-python-headless>=4.8",
        "pillow>=10.1",
        "pyyaml>=6.0",
        "tqdm>=4.60",
        "lmdb>=1.4",
        "h5py>=3.8,!=3.15.*",
    ],
    extras_require={
        "app": [
            "hydra-core>=1.3,<1.4",
            "omegaconf>=2.3,<2.4",
            "hydra-submitit-launcher>=1.2,<1.3",
            "submitit>=1.5.4,<1.6",
        ]
    },
)
