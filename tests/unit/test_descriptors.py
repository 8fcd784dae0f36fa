"""The limit of open files."""

import resource
import subprocess
import sys

import pytest

from coder import descriptors

SHOWN = """
import resource
from coder import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
before = descriptors.inherited()
print(descriptors.raise_limit(), before, descriptors.inherited(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_becomes_the_hard_one():
    shown = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["512", "None", "256", "512", "512"]


def test_a_system_that_refuses_keeps_its_limit(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
