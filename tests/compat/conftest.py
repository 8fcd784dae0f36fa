"""The servers of the API's tests."""

import pytest

pytest.register_assert_rewrite("compat.client", "compat.replay")

from api.conftest import bare, deployment, live, server, settings  # noqa: E402

__all__ = ["bare", "deployment", "live", "server", "settings"]
