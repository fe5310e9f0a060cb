"""Serving the page: to this machine alone unless there is a password, and nothing from elsewhere.

Gradio's own `launch` reads a dozen variables of the environment, some of which would share the page or folders; so the
page is mounted in an application of ours.
"""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio import processing_utils
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csvi.errors import CsviError
from csvi.search.app.desk import Desk
from csvi.search.app.page import TEMPLATES, build_page

USER = "csvi"
"""Name to log in with, beside the password."""
LARGEST_UPLOAD = 20 * 2**20
"""Bytes of the file of a probe."""
HEADERS = {
    # Gradio builds functions from text, and its parts carry their styles in them
    "content-security-policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer: the browser loads nothing from elsewhere, and no other page shows this one in a frame."""


def check_open_to(host: str, password: str | None) -> None:
    """Raises `CsviError` if others than this machine could ask without a password."""
    if password is not None and not password:
        raise CsviError("the password is empty: give one, or none at all")
    if not (is_loopback(host) or password):
        raise CsviError(
            f"--host {host} opens the gallery to other machines: set a password in the environment variable "
            "CSVI_PASSWORD, or leave --host out"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """The page, which listens once it is made and answers while it runs; a context manager, which closes it.

    Args:
        desk: what the page asks.
        host: name or address to listen at.
        port: a free one; 0 takes any.
        password: that lets a visitor in.
        hint: a sentence below the page's title.

    Raises:
        CsviError: the port is taken, or other machines could ask without a password.
    """

    def __init__(self, desk: Desk, host: str, port: int, password: str | None = None, hint: str = ""):
        check_open_to(host, password)
        self._open = contextlib.ExitStack()
        try:
            self._socket = self._open.enter_context(_listening(host, port))
            uploads = self._open.enter_context(tempfile.TemporaryDirectory(prefix="csvi-app-"))
            self._open.enter_context(_rules(uploads))
            app = _application(build_page(desk, Path(uploads), hint), host, password)
            self._server = uvicorn.Server(
                uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
            )
        except BaseException:
            self._open.close()
            raise
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self) -> None:
        """Answer until `stop`, or a signal, which is raised again."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def _application(page: gr.Blocks, host: str, password: str | None) -> FastAPI:
    # a stranger's page may have its own name resolved to 127.0.0.1, which the browser then takes for the same site
    names = ["localhost", "127.0.0.1", "[::1]", host] if is_loopback(host) else ["*"]
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)],
    )
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        auth=(USER, password) if password else None,
        auth_message=f"The name is {USER}.",
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=(TEMPLATES / "page.css").read_text(),
        js=(TEMPLATES / "page.js").read_text(),
    )
    page.has_launched = True  # else Gradio takes a browser's word for which files it has uploaded
    return app


class _Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CsviError(f"cannot listen at {host}, port {port} ({reason}): give another --port or --host") from error
    with listener:
        yield listener


@contextlib.contextmanager
def _rules(uploads: str) -> Iterator[None]:
    """Let Gradio keep uploads in a folder, fetch and tell nothing, and take no other setting from the environment."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GRADIO_")}
    os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
    fetch = processing_utils.async_ssrf_protected_download
    processing_utils.async_ssrf_protected_download = _fetch_nothing
    try:
        yield
    finally:
        processing_utils.async_ssrf_protected_download = fetch
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]
        os.environ |= before


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    """Stands in for what fetches the address that a browser may give in place of a file."""
    raise CsviError("a probe must be a file")
