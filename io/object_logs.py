"""Compute logs in an object store.

    <prefix>/<run id>/<file>/<offset>     what an attempt at a step wrote, once it is over
    <prefix>/<run id>/<file>/running      what the attempt that goes on has written so far
    <prefix>/<run id>/<stream>/rest       what no step wrote, once the run is over

The local files are removed when all of theirs is up. An object store that does not answer fails no run: the files stay.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.catalog.config import EnvVar, resolve
from headwater.catalog.errors import HeadwaterError
from headwater.catalog.records import LogSlice
from headwater.catalog.settings import AzureLogs, GCSLogs, S3Logs
from headwater.io.compute_logs import MAX_STEP_BYTES, STREAMS, read_rest, read_slices
from headwater.io.object_store import ObjectStore

#: Settings that are options of the object store, as `headwater.io.object_options` names them.
_OPTIONS = {
    S3Logs: {
        "access_key_id": "access_key_id",
        "secret_access_key": "secret_access_key",
        "session_token": "session_token",
        "region": "region",
        "endpoint": "endpoint",
        "endpoint_url": "endpoint",
        "use_ssl": "use_ssl",
    },
    GCSLogs: {
        "service_account_key": "service_account_key",
        "service_account_path": "service_account",
        "application_credentials": "application_credentials",
    },
    AzureLogs: {
        "storage_account": "account_name",
        "access_key": "account_key",
        "client_id": "client_id",
        "client_secret": "client_secret",
        "tenant_id": "tenant_id",
        "sas_token": "sas_key",
        "endpoint": "endpoint",
    },
}
Remote = S3Logs | GCSLogs | AzureLogs


def address_of(settings: Remote) -> str:
    """`s3://bucket/prefix`. Raises `ConfigError` for a variable that is not set."""
    scheme = {S3Logs: "s3", GCSLogs: "gs", AzureLogs: "az"}[type(settings)]
    bucket = settings.container if isinstance(settings, AzureLogs) else settings.bucket
    found = [_resolved(text) for text in (bucket, settings.prefix)]
    return f"{scheme}://{found[0]}/{found[1].strip('/')}".rstrip("/")


def options_of(settings: Remote) -> dict[str, Any]:
    """How the object store is reached. Raises `ConfigError` for a variable that is not set."""
    named = {name: value for name in _OPTIONS[type(settings)] if (value := getattr(settings, name)) is not None}
    options: dict[str, Any] = {_OPTIONS[type(settings)][name]: value for name, value in named.items()}
    checked = not settings.allow_invalid_certificates and getattr(settings, "verify", True)
    options |= {"allow_http": settings.allow_http, "verify": checked, "timeout": settings.timeout}
    return resolve({name: value for name, value in options.items() if value is not None}, "compute_logs:config")


def _resolved(text: str) -> str:
    return str(text.resolve("compute_logs:config") if isinstance(text, EnvVar) else text)


class ObjectComputeLogManager:
    """Keeps output in an object store, and in local files as long as the run goes on."""

    def __init__(
        self, address: str, options: Mapping[str, Any], local_dir: Path, *, upload_interval: float = 30
    ) -> None:
        self._store = ObjectStore(address, options)
        self._local = local_dir
        self._interval = upload_interval

    def folder(self, run_id: str) -> Path:
        """Where a run's files lie until they are up."""
        return self._local / run_id

    def keeper(self, run_id: str, redact: Callable[[bytes], bytes]) -> "Uploads":
        """Uploads, in a thread of their own."""
        return Uploads(self._store, self.folder(run_id), run_id, redact, self._interval)

    def read_slices(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """From the local files where they are still there, else from the object store."""
        folder = self.folder(run_id)
        for piece in slices:
            if (folder / piece.file).exists():
                yield from read_slices(folder, [piece], stream)
            elif piece.stream == stream and piece.size:
                yield from self._object(f"{run_id}/{piece.file}/{piece.offset}")

    def read_rest(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """From the local files where they are still there, else from the object store.

        Of a run that was killed on another machine, that is what its last steps had printed when they were last sent.
        """
        folder = self.folder(run_id)
        if folder.exists():
            yield from read_rest(folder, slices, stream)
            return
        yield from self._object(f"{run_id}/{stream}/rest")
        for path in self._store.paths(run_id):
            if path.endswith(f"{stream}/running"):
                yield from self._object(path)

    def _object(self, path: str) -> Iterator[bytes]:
        try:
            yield self._store.read_bytes(path)
        except FileNotFoundError:
            return


class Uploads:
    """Sends one run's output to an object store: each step's when it is over, a running one's at intervals."""

    def __init__(
        self, store: ObjectStore, folder: Path, run_id: str, redact: Callable[[bytes], bytes], interval: float
    ) -> None:
        self._store = store
        self._folder = folder
        self._run_id = run_id
        self._redact = redact
        self._interval = interval
        self._slices: list[LogSlice] = []
        self._waiting: list[LogSlice] = []
        #: Bytes that were sent of each file's running step.
        self._sent: dict[str, int] = {}
        self._problem: HeadwaterError | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="headwater-log-uploads", daemon=True)
        self._thread.start()

    def keep(self, slices: Sequence[LogSlice]) -> None:
        """Have these sent."""
        with self._wake:
            self._slices.extend(slices)
            self._waiting.extend(one for one in slices if one.size)
            self._wake.notify()

    def close(self) -> str | None:
        """Send what is left, and remove the local files. What went wrong, if anything did."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._problem = None  # whatever it was, it may be over
        self._try(self._finish)
        if self._problem is None:
            return None
        return f"What was printed stays in {self._folder}, as it could not be uploaded: {self._problem.message}"

    def _work(self) -> None:
        while True:
            with self._wake:
                if not self._waiting and not self._closing:
                    self._wake.wait(self._interval)
                idle, closing = not self._waiting, self._closing
            if closing:
                return
            # Where nothing gets through, it is tried again when the run is over: requests take long to fail.
            if self._problem is None:
                self._try(self._send_running if idle else self._send_waiting)
            elif not idle:
                with self._wake:
                    self._wake.wait(self._interval)

    def _try(self, send: Callable[[], None]) -> None:
        try:
            send()
        except HeadwaterError as error:
            self._problem = error
        except OSError as error:
            self._problem = HeadwaterError(str(error))

    def _finish(self) -> None:
        self._send_waiting()
        for stream in STREAMS:
            rest = b"".join(_first(read_rest(self._folder, self._slices, stream), MAX_STEP_BYTES))
            if rest:
                self._store.replace(f"{self._run_id}/{stream}/rest", self._redact(rest))
        for file in list(self._sent):
            self._forget_running(file)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send_waiting(self) -> None:
        while self._waiting:
            one = self._waiting[0]
            data = b"".join(read_slices(self._folder, [one], one.stream))
            self._store.replace(f"{self._run_id}/{one.file}/{one.offset}", self._redact(data))
            with self._wake:
                del self._waiting[0]
            self._forget_running(one.file)

    def _send_running(self) -> None:
        """What was written behind the last step that is over, the middle left out where it is much."""
        ends: dict[str, int] = {}
        for one in list(self._slices):
            ends[one.file] = max(ends.get(one.file, 0), one.offset + one.size)
        for path in sorted(self._folder.glob("*std*")):
            start, size = ends.get(path.name, 0), path.stat().st_size
            if size - start > 0 and size != self._sent.get(path.name):
                half = MAX_STEP_BYTES // 2
                with path.open("rb") as file:
                    data = os.pread(file.fileno(), min(size - start, half), start)
                    if size - start > half:
                        begin = max(start + half, size - half)
                        data += os.pread(file.fileno(), size - begin, begin)
                self._store.replace(f"{self._run_id}/{path.name}/running", self._redact(data))
                self._sent[path.name] = size

    def _forget_running(self, file: str) -> None:
        if self._sent.pop(file, None) is not None:
            self._store.delete(f"{self._run_id}/{file}/running")


def _first(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    for piece in pieces:
        if limit <= 0:
            return
        yield piece[:limit]
        limit -= len(piece)
