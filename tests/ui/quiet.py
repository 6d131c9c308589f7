"""Run a browser on an unchanging network:   python tests/ui/quiet.py chromium [ARGUMENT…]

Chromium aborts all loads when a network interface appears or disappears (`net::ERR_NETWORK_CHANGED`), and every
container that another test starts or ends causes that. So the browser gets a separate network namespace with only a
loopback interface. A SOCKS5 proxy (RFC 1928) listens there and connects to this machine's loopback. This is needed
on Linux only: on other systems, containers run in a virtual machine. Users other than root need user namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path

PROXY = ("127.0.0.1", 1080)
PROXY_URL = "socks5://{}:{}".format(*PROXY)

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000  # sched.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1  # bits/ioctls.h, net/if.h
_NO_AUTHENTICATION = b"\x05\x00"
_CONNECTED, _REFUSED, _UNREACHABLE = (bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)) for code in (0, 5, 4))
_LOOPBACK = (b"\x7f\0\0\1", b"127.0.0.1", b"localhost")  # Chromium sends addresses as names
_BELOW_LOOPBACK = b".localhost"
_CHUNK = 65536


def main() -> int:
    here, there = socket.socketpair()
    browser = os.fork()
    if browser == 0:
        if sys.platform == "linux":
            _enter_quiet_network()
        listener = socket.create_server(PROXY)
        socket.send_fds(there, [b"\0"], [listener.fileno()])
        os.execv(shutil.which(sys.argv[1]) or sys.argv[1], sys.argv[1:])
    there.close()
    _, received, _, _ = socket.recv_fds(here, 1, 1)
    if not received:
        return os.waitstatus_to_exitcode(os.waitpid(browser, 0)[1])
    return asyncio.run(_serve(socket.socket(fileno=received[0]), browser))


def _enter_quiet_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user = os.geteuid()
    if libc.unshare(_CLONE_NEWNET if user == 0 else _CLONE_NEWNET | _CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace for the browser could not be made")
    if user != 0:
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        (flags,) = struct.unpack_from("16xH", asked)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


async def _serve(listener: socket.socket, browser: int) -> int:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os.kill, browser, signal.SIGTERM)
    async with await asyncio.start_server(_relay, sock=listener):
        _, status = await asyncio.to_thread(os.waitpid, browser, 0)
    return os.waitstatus_to_exitcode(status)


async def _relay(asking: asyncio.StreamReader, answering: asyncio.StreamWriter) -> None:
    with contextlib.suppress(
        ConnectionError, asyncio.IncompleteReadError
    ):  # errors of either side; the other side is closed below
        host, port = await _read_destination(asking, answering)
        if host not in _LOOPBACK and not host.endswith(_BELOW_LOOPBACK):
            answering.write(_UNREACHABLE)
        else:
            await _connect(port, asking, answering)
    answering.close()


async def _read_destination(asking: asyncio.StreamReader, answering: asyncio.StreamWriter) -> tuple[bytes, int]:
    """The address (four or sixteen bytes, or a name) and the port."""
    _, methods = await asking.readexactly(2)
    await asking.readexactly(methods)
    answering.write(_NO_AUTHENTICATION)
    *_, kind = await asking.readexactly(4)
    length = {1: 4, 4: 16}.get(kind) or (await asking.readexactly(1))[0]
    host = await asking.readexactly(length)
    return host, int.from_bytes(await asking.readexactly(2))


async def _connect(port: int, asking: asyncio.StreamReader, answering: asyncio.StreamWriter) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        answering.write(_REFUSED)
        return
    answering.write(_CONNECTED)
    try:
        await asyncio.gather(_pump(asking, writer), _pump(reader, answering))
    finally:
        writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK):
        target.write(chunk)
        await target.drain()
    target.write_eof()


if __name__ == "__main__":
    sys.exit(main())
