"""The parts of the rig that need neither root nor an engine: image files, cache keys, what runc is given."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import SetupError
from tests.kind.rig import leftovers, runc_wrapper
from tests.kind.rig.cache import Cache, digest
from tests.kind.rig.engine import Engine
from tests.kind.rig.golang import BUILDS, KUBERNETES
from tests.kind.rig.images import Entry, Image, Layer, write_archive, write_layer
from tests.kind.rig.parts import Parts

# As Docker writes it for a privileged container, shortened.
SPEC = {
    "ociVersion": "1.0.2",
    "process": {
        "args": ["sleep", "1"],
        "oomScoreAdj": -500,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}],
        "capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_KILL"],
            "effective": ["CAP_SYS_RESOURCE"],
            "ambient": None,
        },
    },
    "linux": {"resources": {"memory": {"limit": 1}}},
}


def names(tar: Path) -> list[str]:
    """The members of a tar, in their order."""
    with tarfile.open(tar) as opened:
        return opened.getnames()


class TestLayers:
    """What a layer holds."""

    def test_the_same_entries_give_the_same_bytes(self, tmp_path: Path) -> None:
        """Neither the order of entries nor the age, owner and mode of their files changes a layer."""
        source = tmp_path / "source"
        source.write_text("x")
        first = write_layer(tmp_path / "a.tar", [Entry("bin/x", file=source), Entry("etc/y", text="1", mode=0o644)])
        os.utime(source, (1, 1))
        source.chmod(0o600)
        second = write_layer(tmp_path / "b.tar", [Entry("etc/y", text="1", mode=0o644), Entry("bin/x", file=source)])

        assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "b.tar").read_bytes()).hexdigest()

    def test_folders_come_before_what_is_in_them(self, tmp_path: Path) -> None:
        """Folders on the way are added once, and before their contents."""
        write_layer(tmp_path / "a.tar", [Entry("usr/bin/b", text=""), Entry("usr/bin/a", link="b")])

        assert names(tmp_path / "a.tar") == ["usr", "usr/bin", "usr/bin/a", "usr/bin/b"]

    def test_kinds_and_modes_are_kept(self, tmp_path: Path) -> None:
        """A link is a link, a text a file with its mode, a folder may be writable for everybody; root owns all."""
        entries = [Entry("l", link="/t"), Entry("t", text="hello", mode=0o644), Entry("tmp", mode=0o1777)]
        write_layer(tmp_path / "a.tar", entries)
        with tarfile.open(tmp_path / "a.tar") as tar:
            link, text, folder = tar.getmember("l"), tar.getmember("t"), tar.getmember("tmp")
            content = tar.extractfile(text)

            assert content is not None
            assert (content.read(), text.mode, text.uid, text.mtime) == (b"hello", 0o644, 0, 0)
            assert link.issym()
            assert link.linkname == "/t"
            assert folder.isdir()
            assert folder.mode == 0o1777

    def test_of_two_entries_for_one_path_the_later_counts(self, tmp_path: Path) -> None:
        """A file of kind's is replaced by the one that is adapted."""
        write_layer(tmp_path / "a.tar", [Entry("f", text="old"), Entry("f", text="new")])
        with tarfile.open(tmp_path / "a.tar") as tar:
            content = tar.extractfile("f")

            assert content is not None
            assert content.read() == b"new"

    @pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x"])
    def test_a_path_that_leaves_the_image_is_refused(self, tmp_path: Path, path: str) -> None:
        """Such a layer would be unpacked over somebody's machine."""
        with pytest.raises(ValueError, match="relative"):
            write_layer(tmp_path / "a.tar", [Entry(path, text="")])


class TestArchives:
    """What an archive of images holds."""

    @pytest.fixture
    def layer(self, tmp_path: Path) -> Layer:
        """A layer with one file."""
        return write_layer(tmp_path / "layer.tar", [Entry("f", text="1")])

    def test_the_manifest_leads_to_configurations_and_layers(self, tmp_path: Path, layer: Layer) -> None:
        """Each file that the manifest names is there, under the digest of its content."""
        out = tmp_path / "images.tar"
        write_archive(out, [Image("a:1", [layer], entrypoint=["/f"], env={"X": "y"}, stop_signal="SIGTERM")])
        with tarfile.open(out) as tar:
            (item,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            config_bytes = tar.extractfile(item["Config"]).read()  # type: ignore[union-attr]
            layer_bytes = tar.extractfile(item["Layers"][0]).read()  # type: ignore[union-attr]
        config = json.loads(config_bytes)

        assert item["RepoTags"] == ["a:1"]
        assert item["Config"] == f"{hashlib.sha256(config_bytes).hexdigest()}.json"
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer_bytes).hexdigest()}"]
        assert config["config"]["Entrypoint"] == ["/f"]
        assert "X=y" in config["config"]["Env"]
        assert config["config"]["StopSignal"] == "SIGTERM"

    def test_a_shared_layer_is_in_it_once(self, tmp_path: Path, layer: Layer) -> None:
        """Five names of one binary cost the space of one."""
        write_archive(tmp_path / "images.tar", [Image(f"a:{n}", [layer]) for n in range(3)])

        assert sorted(names(tmp_path / "images.tar")) == sorted({*names(tmp_path / "images.tar")})
        assert len([name for name in names(tmp_path / "images.tar") if name.endswith(".tar")]) == 1

    def test_an_image_without_a_layer_is_refused(self, tmp_path: Path) -> None:
        """Engines say "unexpected end of file" to such an archive, and much later."""
        with pytest.raises(ValueError, match="every image a layer"):
            write_archive(tmp_path / "images.tar", [Image("a:1", [])])


class TestCache:
    """What is kept, and by which key."""

    def test_the_key_is_of_contents_and_names(self, tmp_path: Path) -> None:
        """Another content or another name below a folder is another key; the place of the folder is not."""
        for folder in ("a", "b"):
            (tmp_path / folder / "sub").mkdir(parents=True)
            (tmp_path / folder / "sub" / "f").write_text("1")
        same = digest(tmp_path / "a"), digest(tmp_path / "b")
        (tmp_path / "b" / "sub" / "f").write_text("2")
        (tmp_path / "a" / "sub" / "f").rename(tmp_path / "a" / "sub" / "g")

        assert same[0] == same[1]
        assert len({same[0], digest(tmp_path / "a"), digest(tmp_path / "b")}) == 3

    def test_pieces_do_not_run_together(self) -> None:
        """Two parts are not the same as their sum."""
        assert digest("ab", "c") != digest("a", "bc")

    def test_a_path_that_is_missing_has_no_key(self, tmp_path: Path) -> None:
        """It would be the key of whatever else is missing."""
        with pytest.raises(FileNotFoundError):
            digest(tmp_path / "nothing")

    def test_a_thing_is_made_once_per_key(self, tmp_path: Path) -> None:
        """The second time it is found, and under another key it is made again."""
        made: list[Path] = []
        cache = Cache(tmp_path)

        def make(into: Path) -> None:
            made.append(into)
            (into / "f").write_text("1")

        paths = [cache.get("x", key, make, what="make x") for key in ("0" * 16, "0" * 16, "1" * 16)]

        assert len(made) == 2
        assert paths[0] == paths[1]
        assert all((path / "f").read_text() == "1" for path in paths)

    def test_what_failed_is_not_found_later(self, tmp_path: Path) -> None:
        """Half of a thing never counts as the thing."""
        cache = Cache(tmp_path)

        def fail(into: Path) -> None:
            (into / "half").write_text("")
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            cache.get("x", "0" * 16, fail, what="make x")

        assert not cache.path("x", "0" * 16).exists()
        assert not list(tmp_path.glob("**/half"))

    def test_old_keys_that_nobody_uses_go(self, tmp_path: Path) -> None:
        """Of a name, a key unused for a month is deleted, a fresh one and other names stay."""
        cache = Cache(tmp_path)
        for name, key in (("x", "0" * 16), ("x", "1" * 16), ("x-y", "0" * 16)):
            cache.get(name, key, lambda _: None, what="")
        for old in (cache.path("x", "0" * 16), cache.path("x-y", "0" * 16)):
            os.utime(old, (1, 1))
        cache.get("x", "2" * 16, lambda _: None, what="")

        assert not cache.path("x", "0" * 16).exists()
        assert cache.path("x", "1" * 16).exists()
        assert cache.path("x-y", "0" * 16).exists()


class TestBuilds:
    """What decides whether a program is compiled again."""

    def test_versions_variables_and_sources_do(self) -> None:
        """Another version or linked value is another key; two builds never share one."""
        other_version = replace(KUBERNETES, requires={"k8s.io/kubernetes": "1.34.5"})
        other_value = replace(KUBERNETES, variables={})

        assert len({KUBERNETES.key, other_version.key, other_value.key}) == 3
        assert len({build.key for build in BUILDS}) == len(BUILDS)


class TestRunc:
    """What runc is given where a capability is missing."""

    @pytest.fixture
    def runc(self, tmp_path: Path) -> Path:
        """A program that writes its arguments down."""
        program = tmp_path / "runc"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
        program.chmod(0o755)
        return program

    def call(self, runc: Path, *arguments: str | Path) -> str:
        """What runc was called with."""
        wrapper = [sys.executable, "-I", "-S", runc_wrapper.__file__, str(runc)]
        subprocess.run([*wrapper, *map(str, arguments)], check=True, timeout=60)
        return (runc.parent / "said").read_text().strip()

    def test_a_bundle_loses_what_needs_the_capability(self, tmp_path: Path, runc: Path) -> None:
        """`create` changes the bundle's file in these three things alone, and passes its arguments on."""
        (tmp_path / "config.json").write_text(json.dumps(SPEC))

        said = self.call(runc, "--root", "/r", "create", "--bundle", tmp_path, "id")

        assert said == f"--root /r create --bundle {tmp_path} id"
        assert json.loads((tmp_path / "config.json").read_text()) == {
            "ociVersion": "1.0.2",
            "process": {
                "args": ["sleep", "1"],
                "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": [], "ambient": []},
            },
            "linux": {"resources": {"memory": {"limit": 1}}},
        }

    def test_a_process_that_enters_loses_it_too(self, tmp_path: Path, runc: Path) -> None:
        """`exec` changes the file that describes the process, in both spellings of the option."""
        for spelling in (["--process", str(tmp_path / "p")], [f"--process={tmp_path / 'p'}"]):
            (tmp_path / "p").write_text(json.dumps(SPEC["process"]))
            self.call(runc, "exec", *spelling, "id")

            assert "oomScoreAdj" not in json.loads((tmp_path / "p").read_text())

    def test_other_commands_pass_untouched(self, tmp_path: Path, runc: Path) -> None:
        """`delete`, `kill` and `state` have no description to change."""
        (tmp_path / "config.json").write_text(json.dumps(SPEC))

        assert self.call(runc, "delete", "--force", "id") == "delete --force id"
        assert json.loads((tmp_path / "config.json").read_text()) == SPEC

    def test_an_unknown_status_is_no_answer(self) -> None:
        """Without the line about the bounding set nobody knows whether the wrapper is needed."""
        with pytest.raises(ValueError, match="CapBnd"):
            runc_wrapper.is_needed("Name: sh\n")


class TestLeftovers:
    """What is looked for when an engine is taken down."""

    def test_settings_are_put_back(self, tmp_path: Path) -> None:
        """Every setting that a kubelet or the engine changed is what it was, and the others are not written."""
        for name in ("vm", "kernel", "fs/inotify"):
            (tmp_path / name).mkdir(parents=True)
        names = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "fs/inotify/max_user_instances")
        for name, value in zip(names, ("0", "1", "0", "128"), strict=True):
            (tmp_path / name).write_text(f"{value}\n")
        before = leftovers.read_sysctls(tmp_path)
        leftovers.allow_watchers(512, tmp_path)
        assert (tmp_path / "fs/inotify/max_user_instances").read_text() == "512"
        (tmp_path / "kernel/panic").write_text("10\n")
        untouched = (tmp_path / "vm/overcommit_memory").stat().st_mtime_ns
        leftovers.restore_sysctls(before, tmp_path)

        assert leftovers.read_sysctls(tmp_path) == before
        assert (tmp_path / "vm/overcommit_memory").stat().st_mtime_ns == untouched

    def test_mounts_are_listed_from_the_last(self, tmp_path: Path) -> None:
        """A mount on a mount comes first; a folder whose name only begins alike is not below."""
        line = "1 2 0:3 / {} rw - tmpfs tmpfs rw\n"
        table = tmp_path / "mountinfo"
        table.write_text("".join(line.format(p) for p in ("/", "/h", "/h/a", "/h/a/b", "/home")))

        assert leftovers.mounts_below(Path("/h"), table) == [Path("/h/a/b"), Path("/h/a"), Path("/h")]

    def test_a_folder_with_other_things_is_left_alone(self, tmp_path: Path) -> None:
        """`RIG_HOME` by mistake on somebody's folder deletes nothing."""
        (tmp_path / "thesis.tex").write_text("years of work")

        with pytest.raises(SetupError, match="other things in it"):
            Engine(tmp_path).down()

        assert (tmp_path / "thesis.tex").exists()

    def test_a_home_too_long_for_sockets_is_refused(self, tmp_path: Path) -> None:
        """Containerd would say "timeout" to it, 15 seconds later; nothing is made of it."""
        home = tmp_path / ("x" * 60)

        with pytest.raises(SetupError, match="at most 60 characters in RIG_HOME"):
            Engine(home).up(Parts(*[tmp_path] * 6))

        assert not home.exists()

    def test_the_environment_survives_a_shell(self, tmp_path: Path) -> None:
        """What `env` prints is read back by a shell as it was, blanks and quotes included."""
        engine = Engine(tmp_path / "it's here")
        show = '\nprintf %s "$KUBECONFIG"; command -v rig'
        done = subprocess.run(
            ["sh", "-c", engine.shell() + show], capture_output=True, text=True, check=True, timeout=60
        )

        assert done.stdout == f"{engine.home}/kubeconfigrig\n"

    def test_down_without_an_engine_is_nothing(self, tmp_path: Path) -> None:
        """It may be called twice, and where there never was one."""
        Engine(tmp_path / "nothing").down()

        assert Engine(tmp_path / "nothing").status() == [f"no engine in {tmp_path / 'nothing'}"]
