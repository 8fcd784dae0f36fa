"""The servers of the API's tests."""

import pytest

pytest.register_assert_rewrite("compat.client", "compat.replay")

from api.conftest import access_url, bare, deployment, live, server, settings  # noqa: E402

__all__ = ["access_url", "bare", "deployment", "live", "server", "settings"]
