"""An object store of one's own: Moto's server, which speaks S3's API, as a process on a port of its own.

It keeps what it is given in memory, and takes no key but its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from types import TracebackType
from typing import Any, Final, Self

import boto3
import httpx
from botocore.config import Config

__all__ = ["S3Server"]

_STARTS_WITHIN_SECONDS: Final = 60.0
_REGION: Final = "us-east-1"
_POLICY: Final = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}]}'
)


class S3Server:
    """A server on loopback, for as long as the `with` block lasts.

    Attributes:
        endpoint: its address.
        key, secret: of its only user, who may do anything with any bucket.
    """

    def __init__(self) -> None:
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.key = self.secret = ""

    def __enter__(self) -> Self:
        # Its input is a pipe that ends with this process, however that ends; the server then ends too.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "TZ": "UTC"},
        )
        try:
            self._wait()
            self._close_to_strangers()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def url_options(self) -> dict[str, Any]:
        """What fsspec, or a studio's `storage_options`, needs for a URL of this server."""
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": _REGION},
        }

    def check_keys(self, wanted: bool) -> None:
        """Has keys and signatures checked, or not: Moto cannot read a signed address while it checks them.

        Who comes without either is refused all the same.
        """
        patience = b"0" if wanted else b"inf"
        httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=patience, trust_env=False).raise_for_status()

    def new_bucket(self) -> str:
        """Makes an empty bucket, and returns its URL."""
        name = f"kling-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def client(self, service: str = "s3") -> Any:
        """A client of Amazon's own, under the server's only key."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=_REGION,
            aws_access_key_id=self.key or "nobody",
            aws_secret_access_key=self.secret or "nobody",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def _wait(self) -> None:
        until = time.monotonic() + _STARTS_WITHIN_SECONDS
        while True:
            try:
                httpx.get(f"{self.endpoint}/moto-api/", trust_env=False).raise_for_status()
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return

    def _close_to_strangers(self) -> None:
        """Makes the user, and from then on has keys and signatures checked."""
        iam = self.client("iam")
        iam.create_user(UserName="kling")
        iam.put_user_policy(UserName="kling", PolicyName="any-bucket", PolicyDocument=_POLICY)
        made = iam.create_access_key(UserName="kling")["AccessKey"]
        self.key, self.secret = made["AccessKeyId"], made["SecretAccessKey"]
        self.check_keys(True)

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


_PROGRAM: Final = """
import os, sys, threading

def end_with_parent():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=end_with_parent, daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
