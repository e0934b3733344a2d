"""An interpreter that asks a chat model behind an address that speaks OpenAI's chat completions.

The key comes from the environment and goes to that address alone: it is in no dialogue, no message and no error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mezzotint import Edit, UserError

if TYPE_CHECKING:
    from mezzotint import Dialogue

__all__ = ["KEY", "read_by_endpoint"]

KEY: Final = "MEZZOTINT_CHAT_KEY"
"""The variable of the environment that holds the key, if the address wants one."""
REPAIRS: Final = 2
LONGEST: Final = 256 * 1024  # bytes of an answer
LOCAL: Final = ("localhost", "127.0.0.1", "::1")


def read_by_endpoint(
    dialogue: Dialogue,
    said: str,
    *,
    inputs: Mapping[str, Mapping[str, Any]],
    url: str = "",
    model: str = "",
    timeout: str = "60",
) -> Edit:
    """What was said, as a chat model reads it. A bad answer is sent back to be mended, at most twice.

    url: of the service, e.g. http://localhost:8080/v1. model: which of its models. timeout: seconds for an answer.
    Raises: UserError: no address, no answer in time, a refusal, nonsense, an answer that is too long.
    """
    from mezzotint_dialogue.answers import compiled, messages, read_answer

    address, seconds = _address(url), _seconds(timeout)
    told = messages(dialogue, said, inputs)
    complaint = ""
    for _ in range(1 + REPAIRS):
        text = _said_back(
            _post(address, {"model": model, "messages": told, "temperature": 0, **_format()}, seconds)
        )
        try:
            return compiled(dialogue, inputs, read_answer(text))
        except UserError as error:
            complaint = str(error)
            told = [*told, {"role": "assistant", "content": text[:2000]}, {"role": "user", "content": complaint}]
    raise UserError(f"the chat model gave no usable answer in {1 + REPAIRS} tries; the last time {complaint}")


def _format() -> dict[str, Any]:
    from mezzotint_dialogue.answers import SCHEMA

    return {"response_format": {"type": "json_schema", "json_schema": {"name": "edit", "schema": SCHEMA}}}


def _address(url: str) -> str:
    """Raises: UserError: no address, or one that a key must not go to."""
    from urllib.parse import urlsplit

    if not url:
        raise UserError("the interpreter `endpoint` wants an address: --setting url=http://localhost:8080/v1")
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise UserError("url: wanted an address such as http://localhost:8080/v1 or https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"url: wanted a plain address without a name, a password or a query; a key belongs in {KEY}"
        )
    if os.environ.get(KEY) and parts.scheme == "http" and host not in LOCAL:
        raise UserError(
            f"url: with a key in {KEY} wanted https, or an address on this machine: {host} would get it in clear"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/chat/completions"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise UserError(f"timeout: wanted seconds, above 0 and at most 3600, got {text!r}")
    return seconds


def _post(address: str, body: Mapping[str, Any], seconds: float) -> bytes:
    """Raises: UserError: no connection, no answer in time, another status than 200, too long an answer."""
    import time
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        """A redirect could take the key elsewhere: it is an error."""

        def redirect_request(self, *given: Any) -> None:
            return None

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key := os.environ.get(KEY):
        if not key.isascii() or any(character.isspace() for character in key):
            raise UserError(f"{KEY} holds what cannot be a key: a space, a line's end or a letter beyond ASCII")
        headers["Authorization"] = f"Bearer {key}"
    request = Request(address, json.dumps(body).encode(), headers, method="POST")
    until = time.monotonic() + seconds
    parts: list[bytes] = []
    try:
        with build_opener(Stay).open(request, timeout=seconds) as response:
            while part := response.read1(65536):
                parts.append(part)
                if sum(map(len, parts)) > LONGEST:
                    raise UserError(
                        f"the chat endpoint's answer is longer than {LONGEST // 1024} KiB; it was not read"
                    )
                if time.monotonic() > until:
                    raise TimeoutError
    except HTTPError as error:
        error.close()
        raise UserError(_refused(error.code)) from None
    except TimeoutError:
        raise UserError(_late(seconds)) from None
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise UserError(_late(seconds)) from None
        raise UserError(f"no connection to the chat endpoint {address}: {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise UserError(f"the chat endpoint {address} broke off: {type(error).__name__}") from None
    return b"".join(parts)


def _late(seconds: float) -> str:
    return f"the chat endpoint gave no answer within {seconds:g} s; --setting timeout=SECONDS waits longer"


def _refused(status: int) -> str:
    """A status in words; what the service wrote is not shown, it may repeat what was sent."""
    advice = {
        401: f"it wants a key: set {KEY}",
        403: f"the key in {KEY} may not do this",
        404: "there is no such address or model; see --setting url= and model=",
        429: "it is asked too often; try again later",
    }
    other = "it redirects; give the address that it redirects to" if 300 <= status < 400 else "try again later"
    return f"the chat endpoint answered {status}: {advice.get(status, other)}"


def _said_back(data: bytes) -> str:
    """The text in a completion. Raises: UserError: a refusal, or what is no completion."""
    try:
        choice = json.loads(data)["choices"][0]
        message = choice["message"]
        refusal, text = message.get("refusal"), message.get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise UserError("the chat endpoint answered with something that is no chat completion") from None
    if isinstance(refusal, str) and refusal:
        raise UserError(f"the chat model refuses: {refusal[:300]}")
    if choice.get("finish_reason") == "content_filter":
        raise UserError("the chat endpoint's filter stopped the answer; say it in other words")
    if not isinstance(text, str):
        raise UserError("the chat endpoint answered with something that is no chat completion")
    return text
