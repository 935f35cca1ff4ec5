"""The root of a sandbox that has no image: empty folders, links, three files, and parts of the host, read-only."""

import io
import tarfile
from functools import cache
from pathlib import Path

from .spec import SandboxSpec

__all__ = ["host_paths", "skeleton_archive"]

_FOLDERS = ("usr", "etc", "proc", "dev", "sys", "tmp", "run", "var", "workspace")
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64")
_SHOWN_ETC = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "perl",
    "python3*",
)
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/sh\nagent:x:1000:1000:agent:/tmp:/bin/sh\n",
    "group": "root:x:0:\nagent:x:1000:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@cache
def skeleton_archive() -> bytes:
    """Returns a tar archive of the folders, links and files."""
    links = {name: str(path.readlink()) for name in _SYSTEM if (path := Path(f"/{name}")).is_symlink()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in _FOLDERS:
            _add(tar, name, tarfile.DIRTYPE)
        for name, target in {**links, "var/tmp": "/tmp"}.items():
            _add(tar, name, tarfile.SYMTYPE, link=target)
        for name, text in _ETC.items():
            _add(tar, f"etc/{name}", tarfile.REGTYPE, content=text.encode())
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, *, link: str = "", content: bytes = b"") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    tar.addfile(info, io.BytesIO(content))


def host_paths(spec: SandboxSpec) -> list[str]:
    """Returns what of the host is shown, read-only and under the same paths."""
    paths = [path for name in _SYSTEM if not (path := Path(f"/{name}")).is_symlink()]
    paths += [path for pattern in _SHOWN_ETC for path in Path("/etc").glob(pattern)]
    return [str(path) for path in (*paths, *spec.readonly) if Path(path).exists()]
