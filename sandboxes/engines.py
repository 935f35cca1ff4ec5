"""Container engines: dockerd, or podman through the same interface."""

import contextlib
import hashlib
import os
import socket
from functools import cached_property
from pathlib import Path
from typing import Any

from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError, SandboxError

from .cgroups import owner_lives
from .once import once
from .skeleton import skeleton_archive

__all__ = ["LABEL", "Engine", "engine_at", "sweep_containers"]

LABEL = "agentenv.owner"
"""The label by which a container names the process it belongs to."""

_SKELETON = "agentenv-skeleton"
_POOLS = 4096  # the SDK has one for each address it asks; closing one that is in use would break that request
_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")


class Engine:
    """An engine that answers.

    Args:
        client: of the Docker SDK.

    Attributes:
        client: of the Docker SDK.
        api: its low-level half.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.api: Any = client.api

    @cached_property
    def is_podman(self) -> bool:
        """Whether it is podman, which differs in places."""
        parts: list[dict[str, str]] = self.client.version().get("Components") or []
        return any("podman" in part.get("Name", "").lower() for part in parts)

    @cached_property
    def skeleton_image(self) -> str:
        """The id of an image with nothing but folders, links and a few small files; made unless it exists."""
        data = skeleton_archive()
        repository = f"{_SKELETON}-{hashlib.sha256(data).hexdigest()[:12]}"  # podman's interface drops a tag
        name = f"{repository}:latest"
        found = self._find_image(name)
        if not found:
            self.api.import_image_from_data(data, repository=repository, tag="latest")
            found = self._find_image(name)
        return found

    def _find_image(self, name: str) -> str:
        """Returns the id of an image, whatever the engine put before its name; `""` where there is none."""
        for image in self.api.images():
            if any(tag.rpartition("/")[2] == name for tag in image["RepoTags"] or ()):
                return str(image["Id"])
        return ""

    def remove(self, container: str) -> None:
        """Ends and removes a container, if it still is there."""
        from docker.errors import APIError

        if self.is_podman:  # it would wait ten seconds for the guest to end by itself
            with contextlib.suppress(APIError, OSError):
                self.api.kill(container)
        with contextlib.suppress(APIError, OSError):
            self.api.remove_container(container, force=True)

    def sweep(self) -> list[str]:
        """Removes containers whose owner no longer lives; returns their names."""
        from docker.errors import APIError

        removed: list[str] = []
        for container in self.client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
            if not owner_lives(container.labels[LABEL]):
                with contextlib.suppress(APIError, OSError):
                    container.remove(force=True)
                    removed.append(f"container {container.name}")
        return removed


@once
def engine_at(url: str | None) -> Engine:
    """Returns the engine at `url`; for `None`, at `DOCKER_HOST`, or else the first that answers at a usual place.

    Raises:
        MissingDependencyError: the SDK is not installed.
        SandboxError: no engine answers.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        msg = f"the docker back end needs the Docker SDK: {install_module('docker')}"
        raise MissingDependencyError(msg) from error
    given = url or os.environ.get("DOCKER_HOST")
    urls = [given] if given else [f"unix://{path}" for path in _SOCKETS if Path(path).exists()]
    reasons: list[str] = []
    for address in urls:
        try:
            _knock(address)
            client: Any = docker.DockerClient(base_url=address, timeout=120, num_pools=_POOLS)
            client.api.headers["Connection"] = "close"  # or an idle connection stays for each container there was
            client.ping()
        except (DockerException, OSError) as error:
            reasons.append(f"{address}: {error}")
        else:
            engine = Engine(client)
            engine.sweep()
            return engine
    msg = (
        f"no container engine answers ({'; '.join(reasons) or 'no socket was found'}): start dockerd or "
        "`podman system service`, and set DOCKER_HOST where its socket is not at a usual place"
    )
    raise SandboxError(msg)


def _knock(address: str) -> None:
    """Raises `OSError` where nobody listens at a Unix socket: the SDK would leave its own half of it open."""
    kind, _, path = address.partition("://")
    if kind in {"unix", "http+unix"}:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)


def sweep_containers() -> list[str]:
    """Removes containers whose owner no longer lives; returns their names. None where no engine answers."""
    try:
        return engine_at(None).sweep()
    except (SandboxError, ImportError):
        return []
