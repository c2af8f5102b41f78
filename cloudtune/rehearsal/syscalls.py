"""The few system calls of Linux that make a room for a node; the standard library has them from Python 3.12 or not."""

from __future__ import annotations

import ctypes
import os
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000

_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
#: The same number on every architecture: it was added after the tables were joined.
_SYS_MOUNT_SETATTR = 442

_libc: Any = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """``struct mount_attr`` of the kernel."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def unshare(flags: int) -> None:
    """Give this process namespaces of its own."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount something at an existing place."""
    words = [os.fsencode(word) if word is not None else None for word in (source, target, kind, options)]
    _check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {target}")


def bind(source: str, target: str) -> None:
    """Show what is at the source, with all that is mounted below it, at the target too."""
    mount(source, target, None, MS_BIND | MS_REC)


def make_read_only(target: str) -> bool:
    """Forbid changes below a mount, whatever is mounted there; False where the kernel (before 5.12) cannot."""
    wish = _MountAttributes(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    arguments = (ctypes.c_int(_AT_FDCWD), os.fsencode(target), ctypes.c_uint(_AT_RECURSIVE))
    size = ctypes.c_size_t(ctypes.sizeof(wish))
    return int(_libc.syscall(ctypes.c_long(_SYS_MOUNT_SETATTR), *arguments, ctypes.byref(wish), size)) == 0


def enter_root(folder: str) -> None:
    """Make a folder the root of this process and its children, and let go of the old one."""
    os.chdir(folder)
    if _libc.pivot_root(b".", b".") == 0:
        _check(_libc.umount2(b".", _MNT_DETACH), "umount /")
    else:
        os.chroot(".")  # the root of a machine that runs from its memory cannot be pivoted
    os.chdir("/")


def die_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when the thread that started it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def _check(result: int, deed: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{deed}: {os.strerror(code)}")
