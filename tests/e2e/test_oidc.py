"""A login through a real provider (oidc-provider from npm), as a browser does it."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest

from e2e.deployment import Deployment, sign_in, wait_until

pytestmark = pytest.mark.e2e
HERE = Path(__file__).parent / "provider"
BUILD = Path(__file__).parents[2] / "build" / "provider"
SECRET = "a-secret-of-the-tests"


@pytest.fixture(scope="module")
def provider_program() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm, for a real provider of logins")
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "provider.mjs"):
        shutil.copy(HERE / name, BUILD)
    if not (BUILD / "node_modules").exists():
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=BUILD, capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("the real provider of logins could not be installed from npm")
    return BUILD / "provider.mjs"


def pass_through(browser: httpx2.Client, address: str, ours: str) -> httpx2.Response:
    """Follow redirects and the provider's two forms (login, consent) until we are back at our own server."""
    answer = browser.get(address)
    for _ in range(20):
        if answer.is_redirect:
            address = urljoin(address, answer.headers["Location"])
            if address.startswith(ours) and "/oidc/callback" not in address:
                return answer
            answer = browser.get(address)
            continue
        form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        assert form, answer.text
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert prompt
        address = urljoin(address, form[1])
        answer = browser.post(address, data={"prompt": prompt[1], "login": "ann", "password": "any"})
    raise AssertionError("the provider leads nowhere")


def test_a_browser_signs_in_through_a_real_provider(tmp_path, provider_program):
    deployment = Deployment(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        deployment.address = f"127.0.0.1:{chosen.getsockname()[1]}"
    deployment.url = f"http://{deployment.address}"
    with (tmp_path / "provider.log").open("w") as log:
        provider = subprocess.Popen(
            ["node", provider_program, f"{deployment.url}/api/v2/users/oidc/callback"],
            env=os.environ | {"CLIENT_SECRET": SECRET},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        issuer = wait_until(
            "the provider", lambda: re.search(r"^http://127\S+$", (tmp_path / "provider.log").read_text(), re.MULTILINE)
        )[0]
        (tmp_path / "secret").write_text(SECRET)
        deployment.start_server(
            "",
            "--oidc-issuer-url",
            issuer,
            "--oidc-client-id",
            "coder",
            "--oidc-client-secret-file",
            f"{tmp_path}/secret",
        )
        sign_in(deployment)
        with httpx2.Client(headers={"Accept": "text/html"}, timeout=30) as browser:
            start = f"{deployment.url}/api/v2/users/oidc/callback?redirect=/workspaces"
            back = pass_through(browser, start, deployment.url)
            assert back.headers["Location"] == "/workspaces", deployment.log("server")
            me = browser.get(f"{deployment.url}/api/v2/users/me").json()
        assert (me["username"], me["email"], me["login_type"]) == ("ann", "ann@example.com", "oidc")
        assert SECRET not in deployment.log("server")
    finally:
        provider.kill()
        provider.wait()
        deployment.close()
