"""Requests to a server of visrag: answers or VisragErrors, tried again where waiting helps, and its events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from .errors import AccessError, FileChanged, LimitError, ServerError, UsageError, VisragError, error_of

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 5
LONGEST_WAIT = 30.0  # seconds: where a server asks for a longer one, the error is raised at once
SILENCE = 60.0  # seconds without even a sign of life, after which a stream of events counts as broken
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # reached without the environment's proxy


class Connection:
    """A server and the key to it. For any number of threads. ``timeout``: seconds in which something must come."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        import httpx

        self.url = url.rstrip("/")
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise UsageError(f"{url}: is no URL ({error})") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise UsageError(f"{url}: is no URL of a server: give http://HOST:PORT")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise UsageError("the key holds what no key does: give it as visrag keys create shows it")
        headers = {} if key is None else {"Authorization": f"Bearer {key.strip()}"}
        local = parsed.host in LOOPBACK
        self._timeout = timeout
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=not local)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON at a path. ``parameters``: those that are None are left out, lists are repeated."""
        return self._json(self.send("GET", path, parameters))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that is answered to a JSON body."""
        return self._json(self.send("POST", path, body=body))

    def upload(self, path: str, file: IO[bytes], fields: Mapping[str, str]) -> Any:
        """Send a file as multipart, read as it is sent: the JSON that is answered. Raises also OSError where it cannot
        be read, FileChanged."""
        return self._json(self._tried("POST", path, {"data": fields, "files": {"file": ("file", file)}}, file))

    def send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """An answer that is no error. Raises every VisragError that the server tells of, AccessError, LimitError,
        ServerError."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        return self._tried(method, path, {"params": given or None, "json": body})

    def events(self, path: str) -> Iterator[Any]:
        """The data of server-sent events as they come; None for a sign of life. Raises ServerError where the stream
        breaks, and what ``send`` raises."""
        import httpx

        timeout = httpx.Timeout(self._timeout, read=max(self._timeout, SILENCE))
        with self._mapped(path), self._client.stream("GET", path, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise self._error(response)
            data: list[str] = []
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif line.startswith(":"):
                    yield None
                elif not line and data:
                    yield json.loads("\n".join(data))
                    data = []

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Raises ServerError where an answer is not of the form that this version knows."""
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            why = f"gave an answer that this version of visrag does not understand ({error!r})"
            raise ServerError(f"{self.url}: {why}: give both the same version") from error

    def _tried(
        self, method: str, path: str, content: Mapping[str, Any], file: IO[bytes] | None = None
    ) -> httpx.Response:
        """Every request of the API may be sent twice: what it asks for is then done already."""
        import httpx

        for attempt in range(1, ATTEMPTS + 1):
            if file is not None:
                file.seek(0)
            try:
                with self._mapped(path):
                    response = self._client.request(method, path, **content)
            except ServerError as error:
                broken = isinstance(error.__cause__, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)
                if not broken or attempt == ATTEMPTS:
                    raise
                time.sleep(0.1 * 2**attempt)
                continue
            if response.is_success or (method == "DELETE" and attempt > 1 and response.status_code == 404):
                return response
            wait = _retry_after(response)
            if wait is None or wait > LONGEST_WAIT or attempt == ATTEMPTS:
                break
            time.sleep(wait)
        raise self._error(response)

    @contextmanager
    def _mapped(self, path: str) -> Iterator[None]:
        """What goes wrong on the way → ServerError, FileChanged; text that is no Unicode → UsageError."""
        import h11
        import httpx

        try:
            yield
        except httpx.ConnectError as error:
            cure = "start it there (visrag serve), or correct the URL"
            raise ServerError(f"{self.url}: cannot be reached ({error}): {cure}") from error
        except httpx.TimeoutException as error:
            cure = "try again, or give a longer timeout"
            raise ServerError(f"{self.url}{path}: nothing came for {self._timeout:g} s: {cure}") from error
        except (httpx.LocalProtocolError, h11.LocalProtocolError) as error:  # other than the length that was said
            raise FileChanged("was changed while it was sent: send it again") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            why = str(error) or type(error).__name__
            raise ServerError(f"{self.url}{path}: the connection broke ({why}): try again") from error
        except UnicodeEncodeError as error:
            raise UsageError(f"{error.object[:80]!r}: holds what is no Unicode, and cannot be sent") from error

    def _json(self, response: httpx.Response) -> Any:
        with self.understood():
            return response.json()

    def _error(self, response: httpx.Response) -> VisragError:
        """The error that an answer tells of."""
        try:
            problem = response.json()
            code, detail = problem["code"], problem["detail"]
        except (ValueError, KeyError, TypeError):
            where = f", with {response.headers['location']}" if "location" in response.headers else ""
            why = f"answers {response.status_code}{where}, and not as a server of visrag does: correct the URL"
            return ServerError(f"{response.request.url.copy_with(query=None)}: {why}")
        if code == "access" and response.status_code == 401:
            return AccessError(f"{self.url}: wants another key, or any: visrag keys create on its machine makes one")
        if code == "limit":
            return LimitError(detail, _retry_after(response))
        with self.understood():
            return error_of(code, detail, problem)


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds after which a server wants to be asked again; None where asking again does not help."""
    try:
        return max(0.0, float(response.headers["retry-after"])) if response.status_code in (429, 503) else None
    except (KeyError, ValueError):
        return None
