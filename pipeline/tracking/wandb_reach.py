"""Whether Weights & Biases can be reached from here, found out within seconds."""

import os
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    import wandb

CONNECT_TIMEOUT_S = 3.0


def why_offline(mode: str | None, settings: "wandb.Settings") -> str | None:
    """What keeps W&B offline; ``mode`` is what was chosen for this run. None where nothing does."""
    if (mode or settings.mode) in ("offline", "dryrun"):
        return "as chosen"
    if no_key := why_no_key(settings):
        return f"{no_key}; see wandb login"
    return why_unreachable(settings)


def why_no_key(settings: "wandb.Settings") -> str | None:
    """What is wrong with the API key of this server; None where there is one."""
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        credentials = wbauth.authenticate_session(
            host=settings.base_url, source="multipruner", prompt=False, update_session=False
        )
    except AuthenticationError as error:
        return one_line(error)
    return "no API key" if credentials is None else None


def why_unreachable(settings: "wandb.Settings") -> str | None:
    """What a short attempt to connect failed with; None where something listens.

    Without it, W&B finds out at the end of its timeouts.
    """
    host, port = _first_hop(settings)
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"no connection to {host}:{port}: {error.strerror or str(error)}"
    return None


def _first_hop(settings: "wandb.Settings") -> tuple[str, int]:
    """Host and port that requests to the server go to: its own, or a proxy's."""
    url = urlsplit(settings.base_url)
    chosen = settings.https_proxy if url.scheme == "https" else settings.http_proxy
    proxy = chosen or getproxies().get(url.scheme)
    if proxy and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def one_line(error: BaseException | str) -> str:
    """The first line of an error, without the API key."""
    text = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
    key = os.environ.get("WANDB_API_KEY")
    text = text.replace(key, "***") if key else text
    return re.sub(r"\b[0-9a-f]{40,}\b", "***", text)[:300]
