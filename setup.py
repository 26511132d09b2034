"""What pyproject.toml can't say: that tools/ and conf/ have other names in the wheel."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithoutBenchmark(build_py):
    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        left_out = [("vmb_d2_tools", "benchmark"), ("vmb_d2_tools", "gpu")]
        return [module for module in modules if module[:2] not in left_out]


setup(
    packages=[
        *find_packages(include=["vmb_d2", "vmb_d2.*", "weights_conversion"]),
        *("vmb_d2_tools", "vmb_d2_tools.conf"),
    ],
    package_dir={"vmb_d2_tools": "tools", "vmb_d2_tools.conf": "conf"},
    cmdclass={"build_py": BuildWithoutBenchmark},
)
