"""Attacks that try to reach anything through sockets."""

from .attack import Attack

__all__ = ["NETWORK"]

NETWORK = [
    Attack(
        "TCP to the world",
        "py",
        r"""
        s = socket.socket()
        s.settimeout(2)
        attempt(s.connect, ('1.1.1.1', 53))
        """,
    ),
    Attack(
        "UDP to the world",
        "py",
        r"""
        s = socket.socket(type=socket.SOCK_DGRAM)
        s.settimeout(1)
        attempt(s.sendto, b'x', ('1.1.1.1', 53))
        """,
    ),
    Attack(
        "DNS",
        "py",
        r"""
        attempt(socket.getaddrinfo, 'example.com', 80)
        """,
    ),
    Attack(
        "a service on the host's loopback",
        "py",
        r"""
        s = socket.socket()
        s.settimeout(2)
        attempt(s.connect, ('127.0.0.1', int(PORT)))
        """,
        bites=True,
    ),
    Attack(
        "an abstract Unix socket of the host",
        "py",
        r"""
        s = socket.socket(socket.AF_UNIX)
        attempt(s.connect, chr(0) + ABSTRACT)
        """,
        bites=True,
    ),
    Attack(
        "a Unix socket in the host's files",
        "py",
        r"""
        for path in (
            SOCKET,
            '/var/run/docker.sock',
            '/run/docker.sock',
            '/run/dbus/system_bus_socket',
            '/run/systemd/private',
        ):
            attempt(socket.socket(socket.AF_UNIX).connect, path)
        """,
        bites=True,
    ),
    Attack(
        "AF_VSOCK to the hypervisor",
        "py",
        r"""
        attempt(socket.socket, 40, socket.SOCK_STREAM)
        """,
    ),
    Attack(
        "AF_ALG into the kernel's ciphers",
        "py",
        r"""
        attempt(socket.socket, 38, socket.SOCK_SEQPACKET)
        """,
    ),
    Attack(
        "raw and packet sockets",
        "py",
        r"""
        attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
        attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
        """,
    ),
    Attack(
        "rare address families",
        "py",
        r"""
        for family in (4, 5, 9, 11, 15, 29, 31, 44):
            attempt(socket.socket, family, socket.SOCK_DGRAM)
        """,
    ),
    Attack(
        "netlink besides routing",
        "py",
        r"""
        for kind in (4, 5, 6, 9, 12, 16):
            attempt(socket.socket, 16, socket.SOCK_RAW, kind)
        """,
    ),
    Attack(
        "make a network interface",
        "py",
        r"""
        s = socket.socket(16, socket.SOCK_RAW, 0)
        body = struct.pack('BxHiII', 0, 0, 0, 0, 0) + struct.pack('HH', 10, 3) + b'evil0\0\0\0'
        body += struct.pack('HH', 16, 18) + struct.pack('HH', 9, 1) + b'dummy\0\0\0'
        s.send(struct.pack('IHHII', 16 + len(body), 16, 0x605, 1, 0) + body)
        code = struct.unpack_from('i', s.recv(4096), 16)[0]
        if code == 0: breach('interface made')
        """,
    ),
]
