"""What an attack is, and what every Python script begins with."""

from typing import NamedTuple

__all__ = ["PRELUDE", "Attack"]


class Attack(NamedTuple):
    """One attack.

    Attributes:
        name: what it tries.
        language: `sh` or `py`; Python has `call(number, *args)`, which reports a BREACH when a system call succeeds.
        code: the script.
        bites: it is harmless, and must report a BREACH where there is no isolation.
    """

    name: str
    language: str
    code: str
    bites: bool = False


PRELUDE = """
import ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
CANARY, PORT, SOCKET, ABSTRACT, HOST_PID = (os.environ[n] for n in ("CANARY", "PORT", "SOCKET", "ABSTRACT", "HOST_PID"))
def breach(*what): print("BREACH", *what, flush=True)
def call(number, *args):
    result = libc.syscall(number, *args)
    if result >= 0: breach("system call", number, "returned", result)
    return result
def one_byte(path): return open(path, "rb").read(1)
def attempt(action, *args, **kw):
    try: result = action(*args, **kw)
    except Exception as error: return error
    breach(getattr(action, "__name__", action), args, "worked"); return result
"""
