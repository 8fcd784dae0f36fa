"""A browser as far as pages need one."""

import re

import httpx2

URL = "http://coder.test:3000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": URL}


class Browser:
    """Keeps cookies and sends forms as a browser would."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def see(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers=headers)

    async def send(self, path: str, fields: dict[str, str], at: str | None = None, **headers: str) -> httpx2.Response:
        page = await self.see(at or path)
        token = re.search(r'name="form_token" value="([0-9a-f]*)"', page.text)
        assert token, page.text
        return await self.post(path, {"form_token": token[1], **fields}, **headers)

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> httpx2.Response:
        return await self.http.post(path, data=fields, headers=SAME | headers)
