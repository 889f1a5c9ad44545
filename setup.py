"""What pyproject.toml cannot say: packages are found, and `search_spaces/` travels in `carray`."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["carray*"]), "carray.search_spaces"])
