"""The Python blocks of README.md run as tests, one after the other, in a folder of their own."""

import contextlib

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("readme")):
        yield


pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["README.md"], fixtures=["own_folder"]).pytest()
