"""All that setuptools has to know is in pyproject.toml."""

from setuptools import setup

setup()
