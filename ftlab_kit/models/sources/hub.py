"""The Hugging Face hub. A hub that can't be reached costs five seconds, not minutes."""

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

    # of whichever httpx the installed client stands on
    transport_error = HfHubHTTPError.__bases__[0]
    if origin.hub_id is None:
        raise Unavailable(f"{origin.id} is not on the hub.")
    if constants.HF_HUB_OFFLINE:
        raise Unavailable("the hub is switched off by HF_HUB_OFFLINE.")
    trouble = unreachable(f"{constants.ENDPOINT}/api/models/{origin.hub_id}")
    if trouble:
        raise Unavailable(f"{constants.ENDPOINT} can't be reached ({trouble}).")
    try:
        snapshot_download(
            origin.hub_id,
            local_dir=folder,
            allow_patterns=FILES,
            ignore_patterns=["consolidated*", "original/*"],
            etag_timeout=PATIENCE_S,
        )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes, to go on from
    except HfHubHTTPError as error:
        refused = error.response is not None and error.response.status_code in (401, 403)
        cure = " Accept its licence on the hub and log in with: hf auth login." if refused else ""
        words = f"the hub refuses {origin.hub_id} ({_first_line(error)}).{cure}"
        raise Unavailable(words) from error
    except (OSError, transport_error) as error:
        if getattr(error, "errno", None) is not None:
            raise  # this machine's own trouble, such as a full disk
        words = f"the hub broke off while fetching {origin.hub_id} ({_first_line(error)})."
        raise Unavailable(words) from error


def unreachable(url: str) -> str | None:
    """Return why a page of the hub does not answer within the patience, or None if it does.

    It is asked by the hub's own client, with the proxies that are set; any answer will do.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import get_session

    trouble = [f"no answer within {PATIENCE_S:g} s"]

    def knock() -> None:
        try:
            get_session().head(url, timeout=PATIENCE_S)
            trouble.clear()
        except (OSError, HfHubHTTPError.__bases__[0]) as error:
            trouble[0] = _first_line(error)

    # a thread, because looking up a name obeys no time-out
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return trouble[0] if trouble else None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
