"""Who a client is in a rehearsal: throw-away secrets in a folder that goes with it, and no way to the real ones."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from cloudtune.rehearsal.keys import Key, make_key
from cloudtune.rehearsal.quiet import quiet

#: Where tools look for a configuration, besides below the home.
_FILES = {
    "AWS_CONFIG_FILE": ".aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials",
    "BOTO_CONFIG": ".boto",
    "DOCKER_CONFIG": ".docker",
    "KUBECONFIG": ".kube/config",
    "NETRC": ".netrc",
    "OCI_CLI_CONFIG_FILE": ".oci/config",
    "OCI_CONFIG_FILE": ".oci/config",
    "XDG_CONFIG_HOME": ".config",
}
#: Git must neither read the user's helpers nor ask anybody.
_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_TERMINAL_PROMPT": "0"}


class Identity:
    """A user that exists in one rehearsal alone; leaving the block removes all that is known of it.

    ``home`` is the home that its clients see. What a stand-in gives out beyond secrets and a key (access keys, a config
    file, a kubeconfig) it writes there with :meth:`write`.
    """

    #: Who is seen to have made things.
    name = "rehearsed"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cloudtune-rehearsal-"))  # of mode 0700
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self._remove = weakref.finalize(self, shutil.rmtree, str(self.folder), ignore_errors=True)
        self._secrets: dict[str, str] = {}
        self._key: Key | None = None
        self._lock = threading.Lock()

    def secret(self, name: str, *, length: int = 40) -> str:
        """Return the secret of this name: letters and digits by chance, the same each time."""
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        with self._lock:
            if name not in self._secrets:
                self._secrets[name] = "".join(secrets.choice(alphabet) for _ in range(length))
            return self._secrets[name]

    @property
    def key(self) -> Key:
        """The RSA key, made when it is first asked for."""
        with self._lock:
            if self._key is None:
                self._key = make_key()
            return self._key

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file below the home, which nobody else can read, and return where it is."""
        place = self.home / path
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = text.encode() if isinstance(text, str) else text
        with open(place, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        return place

    def environment(self, given: Mapping[str, str], *, shell: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables for a client: the shell's without any cloud in them, this home, and what is given.

        ``given`` holds what the stand-ins want their clients to see: endpoints, regions, access keys.
        """
        base = quiet(os.environ if shell is None else shell)
        files = {name: str(self.home / path) for name, path in _FILES.items()}
        return {**base, **_GIT, **files, "HOME": str(self.home), **given}

    @contextlib.contextmanager
    def applied(self, given: Mapping[str, str]) -> Iterator[None]:
        """Let this process be such a client for a while: SDKs read the variables of the process they run in."""
        before = dict(os.environ)
        try:
            os.environ.clear()
            os.environ.update(self.environment(given, shell=before))
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def close(self) -> None:
        """Remove the folder."""
        self._remove()

    def __enter__(self) -> Identity:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
