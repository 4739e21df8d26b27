"""A real S3 server process (moto's), one per test process, and stores over it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import IO, Any

import httpx

from infra.fleet import die_with_parent, free_port
from store.objects.factory import make_object_store
from store.objects.port import ObjectStore
from store.objects.settings import ObjectSettings

ACCESS_KEY = "AKIAEXAMPLEOFTESTS01"
SECRET_KEY = "the-secret-of-the-tests"
SESSION_TOKEN = "the-session-token-of-the-tests"
_START_SECONDS_MAX = 90.0


class S3Server:
    """One server with its objects in memory. Without `checks_credentials` it lets everybody in."""

    def __init__(self, directory: Path, *, checks_credentials: bool = False) -> None:
        """directory: for its log."""
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._log: IO[bytes] = (directory / "s3.log").open("ab")
        self._environment = dict(os.environ)
        self._checks_credentials = checks_credentials
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS_MAX
        while True:
            try:
                httpx.get(f"{self.endpoint}/moto-api/", timeout=5)
                break
            except httpx.HTTPError:
                assert self._process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, f"the S3 server did not answer in {_START_SECONDS_MAX:.0f} s"
                time.sleep(0.05)
        if self._checks_credentials:
            httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=b"0", timeout=30).raise_for_status()

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def make_bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        httpx.put(f"{self.endpoint}/{name}", timeout=30).raise_for_status()
        return name

    def content(self, bucket: str, path: str) -> bytes | None:
        """What the server has at a path of a bucket, asked without obstore; None when nothing."""
        answer = httpx.get(f"{self.endpoint}/{bucket}/{path}", headers={"Authorization": "AWS any:any"}, timeout=60)
        return answer.content if answer.status_code == 200 else None

    def unfinished_uploads(self, bucket: str) -> int:
        """Uploads in parts that were begun and neither completed nor aborted."""
        return httpx.get(f"{self.endpoint}/{bucket}?uploads", timeout=60).text.count("<UploadId>")


def s3_settings(bucket: str, endpoint: str, **changes: Any) -> ObjectSettings:
    """Settings for a bucket of the server, under a prefix; patient, since test machines are slow."""
    # Any: fields of ObjectSettings, of many types.
    return ObjectSettings(url=f"s3://{bucket}/some/prefix", endpoint=endpoint, **changes)


def s3_store(bucket: str, endpoint: str, **changes: Any) -> ObjectStore:
    """A store over `s3_settings`."""
    return make_object_store(s3_settings(bucket, endpoint, **changes))
