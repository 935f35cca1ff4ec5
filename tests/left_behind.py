"""What an agent can leave in its workspace, to see whether its own grading survives it: programs in Python, by name."""

from agentenv.sandboxes import Limits

__all__ = ["LEFT_BEHIND", "LIMITS", "program"]

LIMITS = Limits(file_size=200 << 30, disk=64 << 20, files=20_000)
"""Limits under which all of these can be made."""

_NEST = """
def nest(name, depth):
    for _ in range(depth):
        os.mkdir(name)
        os.chdir(name)
"""
_FILL = """
def fill(make):
    for number in range(many(30_000)):
        try:
            make(number)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EDQUOT), error
            return
"""

LEFT_BEHIND: dict[str, str] = {
    "folders nested deeper than recursion, descriptors and paths go": f"""{_NEST}
nest("d", many(19_000))
open("bottom.py", "w").write("here")
""",
    "deep folders with the longest of names": f"""{_NEST}
nest("n" * 255, many(6_000))
open("n" * 251 + ".py", "w").write("x")
""",
    "many long names in a deep folder": f"""{_NEST}
nest("n" * 255, 5)
for number in range(many(12_000)):
    open(f"{{number:0255}}", "w").close()
""",
    "a deep comb": f"""{_NEST}
for number in range(many(3_000)):
    open("tooth", "w").write(str(number))
    os.mkdir("side")
    open("side/tooth", "w").write(str(number))
    nest("back", 1)
""",
    "twelve thousand folders in a folder in a folder": """
for number in range(many(12_000)):
    os.makedirs(f"a/b/{number}")
""",
    "names that are not UTF-8, and names with a meaning": r"""
strange = (b"\xff\xfe", b"\xed\xa0\x80", b"\x01", b"new\nline", b"e\xcc\x81")
for name in (*strange, b"-rf", b"@0", b" ", b"\\", b"~", b"$(id)", b"..."):
    open(name, "wb").write(name)
    os.mkdir(name + b".d")
    os.symlink(name, name + b".l")
os.symlink(b"\xff" * 4000, "to nowhere")
open("\N{SNOWMAN}" * 85, "w").close()
""",
    "files and folders closed to everybody": """
os.makedirs("closed/inner/more")
for number in range(3):
    open(f"closed/inner/{number}", "w").write("x")
for path, mode in (("closed/inner/0", 0), ("closed/inner/1", 0o222), ("closed/inner/more", 0), ("closed/inner", 0o600)):
    os.chmod(path, mode)
os.makedirs("blind/inner")
os.chmod("blind", 0o300)
os.chmod("closed", 0)
""",
    "a closed workspace": "os.chmod('.', 0)",
    "a file of 100 GB without content": "open('huge.py', 'w').close(); os.truncate('huge.py', 100 << 30)",
    "ten thousand files of 100 MB without content": """
for number in range(many(10_000)):
    open(f"{number}", "w").close()
    os.truncate(f"{number}", 100 << 20)
""",
    "a file with a page here and there": """
with open("pages", "wb") as file:
    for number in range(3_000):
        file.seek(number * 100_000)
        file.write(b"x")
    file.truncate(1 << 30)
""",
    "ten thousand names of a file of 20 MB": """
open("first", "wb").write(os.urandom(20 << 20))
os.mkdir("names")
for number in range(many(10_000)):
    os.link("first", f"names/{number}")
""",
    "seven thousand files with two names each, far apart": f"""{_NEST}
os.makedirs("left")
os.makedirs("right")
left = os.open("left", os.O_RDONLY)
os.chdir("right")
nest("d", many(1_000))
for number in range(many(7_000)):
    open(f"{{number}}", "w").write(str(number))
    os.link(f"{{number}}", f"{{number}}", dst_dir_fd=left)
""",
    "pipes, sockets, links to everywhere": """
import socket
os.mkfifo("pipe.py")
os.mkfifo("closed pipe")
os.chmod("closed pipe", 0)
os.symlink("loop", "loop")
os.symlink("/", "root")
os.symlink("/proc/self/mem", "memory.py")
os.symlink("..", "above")
try:
    socket.socket(socket.AF_UNIX).bind("socket.py")
except OSError:
    pass  # not everywhere
""",
    "extended attributes, those of overlays among them": """
os.mkdir("d")
open("d/f", "w").write("x")
for name in ("user.x", *(f"user.overlay.{name}" for name in ("opaque", "whiteout", "redirect", "metacopy"))):
    for path in (".", "d", "d/f"):
        try:
            os.setxattr(path, name, b"y")
        except OSError:
            pass  # not everywhere
""",
    "as many files as there may be": f"{_FILL}\nfill(lambda number: open(f'{{number}}', 'w').close())",
    "as many names of two files as there may be": f"""{_FILL}
open("a", "w").write("x")
open("b", "w").write("y")
fill(lambda number: os.link("ab"[number % 2], str(number)))
""",
    "as many bytes as there may be": f"""{_FILL}
block = os.urandom(1 << 18)
def add(number):
    assert number < 300
    with open(f"{{number}}", "wb") as file:
        file.write(block)
if os.statvfs(".").f_blocks * os.statvfs(".").f_frsize < 1 << 30:
    fill(add)
""",
    "everything of the task removed, and folders for files": """
import shutil
for name in os.listdir("."):
    shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
os.makedirs("calc.py/inner")
open("inner", "w").write("was a folder")
""",
}
"""The mess, by what it is."""


def program(name: str, *, scale: float = 1.0) -> str:
    """Returns one of these programs; with a small `scale`, it makes fewer files."""
    return f"import errno, os\ndef many(number):\n    return int(number * {scale})\n{LEFT_BEHIND[name]}"
