"""Where programs come from, against a local server that behaves as a release site does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import ChecksumMismatch, CommandFailed, DownloadFailed, NoSpace, ToolMissing
from labkit.settings import Settings, load_settings
from labkit.stack import apt
from labkit.stack.acquire import acquire, acquire_all, find, remedy
from labkit.stack.catalogue import Component
from labkit.stack.download import check_space, fetch_verified, mirrored
from labkit.stack.progress import Event
from tests.stack.conftest import run_in_background
from tests.stack.release_site import ReleaseSite, serve, tarball

GOOD = "#!/bin/sh\necho 'gadget, version 2.4.1'\n"
OLD = "#!/bin/sh\necho 'gadget, version 1.0.0'\n"


@pytest.fixture
def site() -> Iterator[ReleaseSite]:
    with serve() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"cache_dir": tmp_path / "cache"})


def gadget(site: ReleaseSite, *more: dict[str, object]) -> Component:
    """A component whose program is on *site*, and after that in the sources *more*."""
    release = {
        "kind": "release",
        "version": "2.4.1",
        "url": f"{site.url}/v@{{version}}/gadget-@{{os}}-@{{arch}}.tar.gz",
        "checksums": f"{site.url}/v@{{version}}/sha256sums.txt",
        "binary": "gadget/gadget",
        "megabytes": 1,
    }
    return Component.model_validate(
        {
            "name": "gadget",
            "title": "Gadget",
            "about": "a test",
            "profiles": ["core"],
            "memory_mb": 1,
            "ports": {},
            "ready": {"running_s": 0, "within_s": 1},
            "argv": ["@{bin.gadget}"],
            "program": {
                "commands": ["labkit-test-gadget"],
                "accepted": ">=2,<3",
                "version": {"args": ["--version"], "pattern": r"version (\d+\.\d+\.\d+)"},
                "sources": [release, *more],
            },
        }
    )


def publish(site: ReleaseSite, script: str = GOOD, **options: bytes) -> str:
    """Put the gadget on *site*; returns its path there."""
    import platform

    arch = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
    name = f"gadget-{sys.platform}-{arch}.tar.gz"
    site.publish("v2.4.1", name, tarball("gadget", "gadget", script), **options)
    return f"/v2.4.1/{name}"


def kept(settings: Settings) -> list[str]:
    """Everything below the component's place in the cache but its lock."""
    home = settings.cache_dir / "components" / "gadget"
    return sorted(p.name for p in home.iterdir() if p.name != ".lock") if home.exists() else []


def test_a_release_is_fetched_verified_and_kept(site: ReleaseSite, settings: Settings) -> None:
    """The program runs, says its version, and is found in the cache without a further request."""
    publish(site)

    installed = acquire(gadget(site), settings)

    assert installed.version == "2.4.1"
    assert installed.source == "release"
    assert run([installed.path, "--version"], timeout_s=5) == "gadget, version 2.4.1\n"
    asked = len(site.asked)
    assert acquire(gadget(site), settings) == installed
    assert len(site.asked) == asked


def test_a_download_cut_in_the_middle_leaves_nothing(site: ReleaseSite, settings: Settings) -> None:
    """A connection that ends early is an error that gives both sizes; no part of the file is kept."""
    site.cut.add(publish(site))

    with pytest.raises(ToolMissing, match=r"the connection (ended|broke) after [\d,]+ (of [\d,]+ )?bytes"):
        acquire(gadget(site), settings)

    assert kept(settings) == []
    assert find(gadget(site), settings) is None


def test_a_cut_download_succeeds_at_the_next_try(site: ReleaseSite, settings: Settings) -> None:
    """After a cut connection nothing stands in the way of trying again."""
    path = publish(site)
    site.cut.add(path)
    with pytest.raises(ToolMissing):
        acquire(gadget(site), settings)
    site.cut.clear()

    assert acquire(gadget(site), settings).version == "2.4.1"


def test_a_wrong_checksum_is_refused_and_deleted(site: ReleaseSite, settings: Settings) -> None:
    """A file that is not the one the publisher lists is not kept, and the reason says both sums."""
    publish(site, listed=b"something else")

    with pytest.raises(ToolMissing) as caught:
        acquire(gadget(site), settings)

    assert "SHA-256" in str(caught.value)
    assert kept(settings) == []


def test_a_file_that_changed_with_its_list_is_refused(site: ReleaseSite, tmp_path: Path) -> None:
    """The sum of an address is remembered: a later, other file with a matching list is still refused."""
    target, remembered = tmp_path / "a.bin", tmp_path / "sums.json"
    site.publish("v1", "a.bin", b"first")
    fetch_verified(f"{site.url}/v1/a.bin", f"{site.url}/v1/sha256sums.txt", target, remembered=remembered)
    site.publish("v1", "a.bin", b"second")

    with pytest.raises(ChecksumMismatch, match="an earlier download of this address"):
        fetch_verified(f"{site.url}/v1/a.bin", f"{site.url}/v1/sha256sums.txt", target, remembered=remembered)

    assert not target.exists()


def test_a_list_without_the_file_is_an_error(site: ReleaseSite, tmp_path: Path) -> None:
    """A file that the publisher's list does not name is not downloaded unverified."""
    site.publish("v1", "a.bin", b"first")
    site.files["/v1/b.bin"] = b"unlisted"

    with pytest.raises(DownloadFailed, match=r"it has no SHA-256 of b\.bin"):
        fetch_verified(
            f"{site.url}/v1/b.bin", f"{site.url}/v1/sha256sums.txt", tmp_path / "b", remembered=tmp_path / "sums.json"
        )


def test_a_mirror_is_asked_first_and_the_origin_after_it(site: ReleaseSite, tmp_path: Path) -> None:
    """A mirror without the file does not end the search; a mirror with it spares the origin."""
    site.publish("v1", "a.bin", b"content")
    url, sums = f"{site.url}/v1/a.bin", f"{site.url}/v1/sha256sums.txt"
    with serve() as mirror:
        fetch_verified(url, sums, tmp_path / "a", remembered=tmp_path / "sums.json", mirror=mirror.url)
        assert mirror.asked == ["/v1/sha256sums.txt"]
        mirror.files.update(site.files)
        site.asked.clear()
        fetch_verified(url, sums, tmp_path / "b", remembered=tmp_path / "sums.json", mirror=mirror.url)

    assert (tmp_path / "b").read_bytes() == b"content"
    assert site.asked == []


def test_a_folder_serves_as_offline_bundle(site: ReleaseSite, tmp_path: Path) -> None:
    """A mirror may be a folder with the same paths: no network is touched."""
    site.publish("v1", "a.bin", b"content")
    for path, content in site.files.items():
        file = tmp_path / "bundle" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    site.asked.clear()

    fetch_verified(
        f"{site.url}/v1/a.bin",
        f"{site.url}/v1/sha256sums.txt",
        tmp_path / "a",
        remembered=tmp_path / "sums.json",
        mirror=str(tmp_path / "bundle"),
    )

    assert (tmp_path / "a").read_bytes() == b"content"
    assert site.asked == []


def test_mirrored_without_a_mirror_is_the_address_itself() -> None:
    """No mirror, no detour."""
    assert mirrored("https://github.com/a", "") == ["https://github.com/a"]


def test_a_wrong_version_on_path_is_passed_over_and_named(
    site: ReleaseSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program on PATH in another version is not used; when nothing else helps, the error names it."""
    old = tmp_path / "bin" / "labkit-test-gadget"
    old.parent.mkdir()
    old.write_text(OLD)
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(ToolMissing) as caught:
        acquire(gadget(site), settings)
    assert f"{old} is version 1.0.0, not accepted" in str(caught.value)

    publish(site)
    assert acquire(gadget(site), settings).source == "release"


def test_an_accepted_version_on_path_is_used_as_it_is(
    site: ReleaseSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine has is used, and nothing is fetched."""
    program = tmp_path / "bin" / "labkit-test-gadget"
    program.parent.mkdir()
    program.write_text(GOOD)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    installed = acquire(gadget(site), settings)

    assert (installed.path, installed.source) == (program, "PATH")
    assert site.asked == []


def test_a_release_in_another_version_than_promised_is_not_kept(site: ReleaseSite, settings: Settings) -> None:
    """What was fetched must say an accepted version before it enters the cache."""
    publish(site, OLD)

    with pytest.raises(ToolMissing, match=r"it says version 1\.0\.0"):
        acquire(gadget(site), settings)

    assert kept(settings) == []


def test_a_release_that_does_not_run_is_not_kept(site: ReleaseSite, settings: Settings) -> None:
    """A file that cannot be executed never becomes a program."""
    publish(site, "#!/nonexistent/interpreter\n")

    with pytest.raises(ToolMissing):
        acquire(gadget(site), settings)

    assert kept(settings) == []


FETCH = """
    import sys
    from pathlib import Path
    from labkit.settings import load_settings
    from labkit.stack.acquire import acquire_all
    from labkit.stack.catalogue import Component
    gadget = Component.model_validate_json(sys.argv[1])
    acquire_all([gadget], load_settings({"cache_dir": Path(sys.argv[2])}))
"""


def test_ctrl_c_in_the_middle_of_a_download_ends_it_at_once(site: ReleaseSite, settings: Settings) -> None:
    """The download runs in a thread, which does not hear Ctrl-C: it is told, and keeps nothing."""
    site.slow.add(publish(site, GOOD + "# " + "".join(random.choices("abcdefgh", k=400_000))))
    argv = run_in_background(FETCH, gadget(site).model_dump_json(), str(settings.cache_dir))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(site.asked) == 2, "the download has begun", timeout_s=30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert "KeyboardInterrupt" in said
    assert kept(settings) == []


def test_an_archive_that_leads_out_of_its_folder_is_refused(site: ReleaseSite, settings: Settings) -> None:
    """A name with `..` is an attack or a broken archive: nothing is written outside, nothing is kept."""
    path = publish(site)
    name = path.rsplit("/", 1)[-1]
    site.publish("v2.4.1", name, tarball("gadget/../../../outside", "gadget", GOOD))

    with pytest.raises(ToolMissing, match="leads out of its folder"):
        acquire(gadget(site), settings)

    assert list(settings.cache_dir.parent.rglob("outside")) == []
    assert kept(settings) == []


def test_the_error_lists_every_source_and_what_to_do(site: ReleaseSite, settings: Settings) -> None:
    """`ToolMissing` says what was tried, in order, and ends with the remedy."""
    with pytest.raises(ToolMissing) as caught:
        acquire(gadget(site), settings)

    assert [line.split(":")[0] for line in caught.value.tried] == ["PATH", "release 2.4.1"]
    assert "HTTP 404" in caught.value.tried[1]
    assert str(caught.value).endswith(remedy(gadget(site)))


def test_one_missing_program_does_not_keep_the_others(site: ReleaseSite, settings: Settings) -> None:
    """Several are fetched side by side; each failure is reported by name."""
    publish(site)
    absent = gadget(site).model_copy(
        update={
            "name": "absent",
            "program": gadget(site).program.model_copy(update={"sources": ()}),  # type: ignore[union-attr]
        }
    )
    events: list[Event] = []

    found, missing = acquire_all([gadget(site), absent], settings, events.append)

    assert list(found) == ["gadget"]
    assert list(missing) == ["absent"]
    assert [e.kind for e in events if "Gadget" in e.what] == ["started", "done"]


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    """`NoSpace` gives need, free space and the variables that choose another disk."""
    with pytest.raises(NoSpace, match="LABKIT_CACHE_DIR") as caught:
        check_space("Installing Gadget", tmp_path / "not" / "yet", 1e12)

    assert caught.value.free_mb > 0


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny disk needs root")
def test_a_disk_that_fills_up_leaves_no_part_of_the_file(site: ReleaseSite, tmp_path: Path) -> None:
    """ENOSPC in the middle of a download is `NoSpace`, and the part is removed."""
    site.publish("v1", "big.bin", os.urandom(3_000_000))
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True, timeout=10)
    try:
        with pytest.raises(NoSpace):
            fetch_verified(
                f"{site.url}/v1/big.bin",
                f"{site.url}/v1/sha256sums.txt",
                disk / "big.bin",
                remembered=tmp_path / "sums.json",
            )
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


@pytest.mark.live
@pytest.mark.skipif(not apt.available(), reason="this system has no apt")
def test_packages_are_unpacked_and_nothing_is_installed(tmp_path: Path) -> None:
    """A package's program runs from where it was unpacked; the system's own list of packages is untouched."""
    before = run(["dpkg-query", "-W"], timeout_s=30)

    apt.unpack(["prometheus-node-exporter"], tmp_path / "root", state=load_settings().cache_dir / "apt")

    said = run([tmp_path / "root/usr/bin/prometheus-node-exporter", "--version"], timeout_s=10)
    assert "node_exporter, version" in said
    assert run(["dpkg-query", "-W"], timeout_s=30) == before


def test_a_link_into_a_package_of_the_system_is_mended(tmp_path: Path) -> None:
    """A package links to files of another that is installed and was not unpacked: the link leads to the system's."""
    link = tmp_path / "usr/share/pages/python"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../bin/env")
    nowhere = link.with_name("nowhere")
    nowhere.symlink_to("../labkit-no-such-file")

    apt._mend_links(tmp_path)

    assert link.resolve() == Path("/usr/bin/env").resolve()
    assert not nowhere.exists()


@pytest.mark.skipif(not apt.available(), reason="this system has no apt")
def test_an_update_that_fetched_nothing_is_a_failure_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apt exits with 0 when it could fetch no list; that must not count as fresh for twelve hours."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text("#!/bin/sh\nexit 0\n")
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")

    for _ in range(2):
        with pytest.raises(CommandFailed, match="it fetched no list of packages"):
            apt.unpack(["redis-server"], tmp_path / "root", state=tmp_path / "apt")


def test_relocation_keeps_the_length_and_refuses_another_build(tmp_path: Path) -> None:
    """A compiled-in path becomes relative to the working directory; a program without it is refused."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF..open /usr/share/gadget/page.tmpl..")
    length = program.stat().st_size

    apt.relocate(program, ["/usr/share/gadget"])

    assert program.read_bytes() == b"\x7fELF..open usr//share/gadget/page.tmpl.."
    assert program.stat().st_size == length
    with pytest.raises(ToolMissing, match="no /usr/share/other in it"):
        apt.relocate(program, ["/usr/share/other"])
