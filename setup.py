"""Lets older tools run the build; all metadata is in setup.cfg."""

from setuptools import setup

setup()
