"""The generated protobuf modules belong to the schemas beside them."""

import subprocess
import sys
from pathlib import Path

from coder.wire.proto import agent_pb2, tailnet_pb2

ROOT = Path(__file__).parents[3]


def test_the_generated_modules_are_up_to_date():
    check = subprocess.run(
        [sys.executable, ROOT / "scripts/proto.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stderr) == (0, "")


def test_the_packages_have_the_names_that_calls_are_made_with():
    assert tailnet_pb2.DESCRIPTOR.services_by_name["Tailnet"].full_name == "coder.tailnet.v2.Tailnet"
    assert agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name == "coder.agent.v2.Agent"
