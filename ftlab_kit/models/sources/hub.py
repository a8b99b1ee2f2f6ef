"""The Hugging Face hub. If it can't be reached, that costs five seconds, not minutes."""

import shutil
import threading
from pathlib import Path

from ftlab_kit.errors import Unavailable
from ftlab_kit.models.catalogue import Entry

PATIENCE_S = 5.0
FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model"]


def fetch(origin: Entry, folder: Path) -> None:
    """Download a snapshot of the catalogue entry's repository.

    Raises:
        Unavailable: The hub is switched off, can't be reached, or refuses the repository.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # the HTTP library's own error, from whichever library the installed client uses
    transport_error = HfHubHTTPError.__bases__[0]
    if origin.hub_id is None:
        raise Unavailable(f"{origin.id} is not on the hub.")
    if constants.HF_HUB_OFFLINE:
        raise Unavailable("the hub is switched off by HF_HUB_OFFLINE.")
    reason = unreachable(f"{constants.ENDPOINT}/api/models/{origin.hub_id}")
    if reason:
        raise Unavailable(f"{constants.ENDPOINT} can't be reached ({reason}).")
    try:
        snapshot_download(
            origin.hub_id,
            local_dir=folder,
            allow_patterns=FILES,
            ignore_patterns=["consolidated*", "original/*"],
            etag_timeout=PATIENCE_S,
        )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    except HfHubHTTPError as error:
        is_gated = error.response is not None and error.response.status_code in (401, 403)
        fix = " Accept its licence on the hub and log in with: hf auth login." if is_gated else ""
        raise Unavailable(
            f"the hub refuses {origin.hub_id} ({_first_line(error)}).{fix}"
        ) from error
    except (OSError, transport_error) as error:
        if getattr(error, "errno", None) is not None:
            raise  # a problem of this machine, such as a full disk
        raise Unavailable(
            f"the connection broke while fetching {origin.hub_id} ({_first_line(error)})."
        ) from error


def unreachable(url: str) -> str | None:
    """Return why a page of the hub does not answer within PATIENCE_S, or None if it does.

    The hub's own client sends the request, through the proxies that are set; any response counts.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import get_session

    reasons = [f"no answer within {PATIENCE_S:g} s"]

    def send_request() -> None:
        try:
            get_session().head(url, timeout=PATIENCE_S)
            reasons.clear()
        except (OSError, HfHubHTTPError.__bases__[0]) as error:
            reasons[0] = _first_line(error)

    # in a thread, because a DNS lookup ignores the timeout
    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return reasons[0] if reasons else None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
