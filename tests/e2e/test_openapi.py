"""Whatever fits the API's description of itself is answered, and never by an error of ours."""

import warnings
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from e2e.deployment import Deployment, running

pytestmark = pytest.mark.e2e

EXAMPLES = 4
ENDS_THE_SESSION = "/users/logout"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("openapi"), "--dangerous-disable-rate-limits", agent=False) as made:
        yield made


def test_requests_that_fit_the_description_never_make_the_server_fail(site: Deployment):
    token = (site.place / "config" / "session").read_text().strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_url(f"{site.url}/api/openapi.json")
    failed: list[str] = []
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith(ENDS_THE_SESSION):
            continue
        tried += 1

        @seed(7)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def call(case) -> None:
            answer = case.call(headers={"Coder-Session-Token": token}, timeout=10)
            if answer.status_code >= 500:
                failed.append(f"{case.method} {case.formatted_path} {case.query} {case.body!r}: {answer.text[:200]}")

        call()
    assert failed == []
    assert tried > 50
