"""The root of a sandbox that has no image: empty folders, links, a few files, and parts of the host, read-only."""

import io
import tarfile
from functools import cache
from pathlib import Path

from .guest.root import SHOWN, SHOWN_ETC, WRITTEN_ETC
from .spec import SandboxSpec

__all__ = ["host_paths", "skeleton_archive"]

_FOLDERS = ("usr", "etc", "proc", "dev", "sys", "tmp", "run", "var", "workspace")


@cache
def skeleton_archive() -> bytes:
    """Returns a tar archive of the folders, links and files."""
    links = {name: str(path.readlink()) for name in SHOWN if (path := Path(f"/{name}")).is_symlink()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in _FOLDERS:
            _add(tar, name, tarfile.DIRTYPE)
        for name, target in {**links, "var/tmp": "/tmp"}.items():
            _add(tar, name, tarfile.SYMTYPE, link=target)
        for name, text in WRITTEN_ETC.items():
            _add(tar, f"etc/{name}", tarfile.REGTYPE, content=text.encode())
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, *, link: str = "", content: bytes = b"") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    tar.addfile(info, io.BytesIO(content))


def host_paths(spec: SandboxSpec) -> list[str]:
    """Returns what of the host is shown, read-only and under the same paths."""
    paths = [path for name in SHOWN if not (path := Path(f"/{name}")).is_symlink()]
    paths += [path for pattern in SHOWN_ETC for path in Path("/etc").glob(pattern)]
    return [str(path) for path in (*paths, *spec.readonly) if Path(path).exists()]
