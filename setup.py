"""What pyproject.toml can't say: packages are found, and `search_spaces/` travels inside `carray`."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["carray*"]), "carray.search_spaces"])
