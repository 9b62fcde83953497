"""The Python blocks of README, CONTRIBUTING and the manual run as tests, each page in a folder of its own."""

import contextlib

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("page")):
        yield


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    excludes=["docs/try.md"],  # each program by itself, with its output: tests/test_docs.py
    fixtures=["own_folder"],
).pytest()
