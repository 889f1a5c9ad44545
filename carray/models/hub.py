"""Hugging Face's hub: whether it answers, and what a model there is (`hf-hub:OWNER/NAME`)."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

from carray.errors import ConfigError
from carray.models.names import HUB

REACH_SECONDS = 5.0  # the hub's own client retries for nearly a minute where there is no network


def hub_error(endpoint: str | None = None) -> str:
    """Return "" where Hugging Face's hub answers, else why not, within `REACH_SECONDS`."""
    from huggingface_hub import constants

    endpoint = endpoint or constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return ""  # it answered
    except OSError as error:
        return f"{endpoint} can't be reached: {getattr(error, 'reason', error)}"
    return ""


def hub_source(name: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture and timm's pretrained configuration of `hf-hub:OWNER/NAME`.

    Its `config.json` is taken from the hub's cache, or downloaded.

    Raises:
        ConfigError: it is neither here nor to be had, or no model of timm.
    """
    from huggingface_hub import try_to_load_from_cache
    from timm.models import load_model_config_from_hf

    repository, _, revision = name.removeprefix(HUB).partition("@")
    cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    why = "" if isinstance(cached, str) else hub_error()
    if not why:
        try:
            config, architecture, _ = load_model_config_from_hf(name.removeprefix(HUB))
            return architecture, config
        except (OSError, ValueError, KeyError, AssertionError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
    raise ConfigError(
        f"backbone {name!r} can't be had from the hub ({why}); mend the name or the network, or "
        "bring the file of its weights, set pretrained to it, and name the backbone as "
        "timm.list_models() does"
    )
