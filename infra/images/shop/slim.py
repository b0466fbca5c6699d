"""
Takes away from a Debian image what does not run Python or a shell; meant to be run once, while an image is built.

Perl, the package manager and their libraries are two thirds of such a base, and none of them is ever started on a
cluster.  What stays: Python with its standard library, a shell with the tools that one looks around with, the
libraries that these are linked with, and those that a wheel may count on.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

PYTHON = (3, 11)
PROGRAMS = """
    sh dash bash cat ls env cp mv rm mkdir rmdir chmod ln echo printf grep sed head tail sort uniq wc cut tr tee touch
    sleep timeout test [ true false id date dd df du find xargs stat readlink basename dirname uname hostname mktemp
    nproc seq tar gzip
""".split()  # noqa: SIM905  (a block that reads)
# What PEP 600 lets a wheel take from the system, and what the C library opens by itself.
LIBRARIES = (
    *("ld-linux", "libc.", "libm.", "libdl.", "librt.", "libpthread.", "libutil.", "libresolv.", "libnsl.", "libanl."),
    *("libgcc_s.", "libstdc++.", "libz.", "libexpat.", "libnss_", "libcrypt."),
)
FOLDERS = """
    /etc/apt /etc/perl /root/.cache /usr/include /usr/local/include /usr/lib/apt /usr/lib/dpkg /usr/lib/python3
    /usr/lib/systemd /usr/lib/udev /usr/local/share/man /usr/share/bash-completion /usr/share/locale /usr/share/man
    /usr/share/perl /usr/share/perl5 /usr/share/python-wheels /usr/share/zoneinfo/posix /usr/share/zoneinfo/right
    /var/cache /var/lib/apt /var/lib/dpkg/info /var/log
""".split()  # noqa: SIM905
OF_THE_STANDARD_LIBRARY = "ensurepip idlelib lib2to3 pydoc_data site-packages test tkinter turtledemo".split()  # noqa: SIM905
_SPECIAL_BITS = 0o7000


def main() -> None:
    """Slim the system that this runs in, if the shop's packages run on it at all; else nothing is touched."""
    version, (libc, _) = sys.version_info[:2], platform.libc_ver()
    if version != PYTHON or libc != "glibc":
        has = f"Python {version[0]}.{version[1]} on {libc or 'another C library than glibc'}"
        sys.exit(f"The shop's packages are made for Python {PYTHON[0]}.{PYTHON[1]} on glibc, and this base has {has}.")
    stdlib = Path(sysconfig.get_path("stdlib"))
    kept = [path for path in _programs() if path.name in PROGRAMS or path.name.startswith("python")]
    linked = set(_linked([*kept, *stdlib.glob("lib-dynload/*.so")]))
    for library in list(Path("/usr/lib").glob("*-linux-gnu*/**/*.so*")):
        if library.resolve() not in linked and not library.name.startswith(LIBRARIES):
            library.unlink()
    for program in _programs():
        if program not in kept:
            program.unlink()
    folders = [*map(Path, FOLDERS), *Path("/usr/lib").glob("*-linux-gnu*/perl*")]
    folders += [*(stdlib / name for name in OF_THE_STANDARD_LIBRARY), *stdlib.glob("config-3*")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for path in Path("/usr").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & _SPECIAL_BITS:
            path.chmod(path.stat().st_mode & 0o777)


def _programs() -> list[Path]:
    folders = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
    found = (path for folder in folders for path in sorted(Path(folder).glob("*")))
    return [path for path in found if path.is_symlink() or path.is_file()]


def _linked(files: Iterable[Path]) -> Iterator[Path]:
    """The libraries that *files* are linked with, as files; scripts have none, which is no mistake."""
    said = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        # "libm.so.6 => /lib/…/libm.so.6 (0x…)" or "/lib64/ld-linux….so.2 (0x…)"; headings end with a colon.
        yield from (Path(word).resolve() for word in line.split() if word.startswith("/") and not word.endswith(":"))


if __name__ == "__main__":
    main()
