"""Names the packages of the tree, which pyproject.toml cannot derive: the three folders install below `boltzbench`."""

from setuptools import find_packages, setup

FOLDERS = ("harness", "kernels", "plugins")

setup(packages=[f"boltzbench.{name}" for name in find_packages(include=[*FOLDERS, *(f"{each}.*" for each in FOLDERS)])])
