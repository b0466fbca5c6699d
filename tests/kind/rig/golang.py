"""Programs compiled from Go modules: kind, Kubernetes, CoreDNS, and three small ones of ours."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from labkit._proc import run
from labkit.stack import golang
from tests.kind.rig.cache import digest

__all__ = ["BUILDS", "KIND", "KUBERNETES", "KUBERNETES_VERSION", "GoBuild", "compile_programs", "module_folder"]

# The last minor that runs on cgroup v1 without being persuaded (1.35 refuses it by default).
KUBERNETES_VERSION = "1.34.4"
KIND_VERSION = "0.33.0"
# The release that kubeadm 1.34 names.
COREDNS_VERSION = "1.12.1"

_SOURCES = Path(__file__).parent / "go"
# On two busy cores; a quiet machine needs a fifth of it.
_TIMEOUT_S = 5400


@dataclass(frozen=True, slots=True)
class GoBuild:
    """
    Programs of one Go module of ours, which requires the modules that they come from.

    Args:
        name: of the module, and of its folder under `go/` if it has sources of ours.
        requires: version by module, without the `v`.
        programs: package by the name of the program; packages of ours begin with `./`.
        variables: what the linker sets, by package and variable.
        staging: a module whose requirements of v0.0.0 are published as v0.X.Y of its own v1.X.Y, as those of
            Kubernetes are; `go install module@version` refuses such a module.
    """

    name: str
    requires: dict[str, str]
    programs: dict[str, str]
    variables: dict[str, str]
    staging: str = ""

    @property
    def key(self) -> str:
        """The digest of all that decides what comes out, but the Go toolchain."""
        text = json.dumps([self.requires, self.programs, self.variables, self.staging], sort_keys=True)
        sources = _SOURCES / self.name
        return digest(text, *([sources] if sources.is_dir() else []))


KIND = GoBuild("kind", {"sigs.k8s.io/kind": KIND_VERSION}, {"kind": "sigs.k8s.io/kind"}, {})
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
KUBERNETES = GoBuild(
    "kubernetes",
    {"k8s.io/kubernetes": KUBERNETES_VERSION},
    {"kubernetes": "./all", "kubeadm": "./kubeadm"},
    # Without these the programs call themselves v0.0.0, and kubeadm refuses them.
    {
        f"{package}.{variable}": value
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in {
            "gitVersion": f"v{KUBERNETES_VERSION}",
            "gitMajor": _MAJOR,
            "gitMinor": _MINOR,
            "gitTreeState": "clean",
        }.items()
    },
    staging="k8s.io/kubernetes",
)
# A module of its own: it does not compile with the client-go of Kubernetes 1.34.
COREDNS = GoBuild("coredns", {"github.com/coredns/coredns": COREDNS_VERSION}, {"coredns": "."}, {})
# `kind export logs` asks it for the state of a node's containers.
CRICTL = GoBuild("crictl", {"sigs.k8s.io/cri-tools": "1.34.0"}, {"crictl": "sigs.k8s.io/cri-tools/cmd/crictl"}, {})
PAUSE = GoBuild("pause", {}, {"pause": "."}, {})
BUILDS = (KIND, PAUSE, COREDNS, CRICTL, KUBERNETES)


def compile_programs(build: GoBuild, into: Path, *, cache: Path) -> None:
    """
    Compile the programs of *build* into the folder *into*.

    Args:
        build: what.
        into: an existing folder.
        cache: labkit's cache; modules and compiled packages are kept below it.

    Raises:
        CommandFailed: Go or a module could not be had, or a program does not compile.
    """
    go, env = golang.toolchain(cache)
    with tempfile.TemporaryDirectory(prefix="rig-go-") as temporary:
        module = Path(temporary) / build.name
        if (_SOURCES / build.name).is_dir():
            shutil.copytree(_SOURCES / build.name, module)
        else:
            module.mkdir()
        (module / "go.mod").write_text(_go_mod(build, cache), encoding="utf-8")
        ldflags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in build.variables.items())])
        for program, package in build.programs.items():
            argv = [go, "build", "-mod=mod", "-ldflags", ldflags, "-o", into / program, package]
            run(argv, timeout_s=_TIMEOUT_S, cwd=module, env=env)


def module_folder(module: str, version: str, *, cache: Path) -> Path:
    """Where the unpacked sources of a module lie; it is downloaded if it is not here."""
    return Path(_download(module, version, cache)["Dir"])


def _go_mod(build: GoBuild, cache: Path) -> str:
    lines = [f"module labkit.invalid/{build.name}", "", "go 1.24.0", "", "godebug default=go1.24", ""]
    lines += [f"require {module} v{version}" for module, version in build.requires.items()]
    if build.staging:
        go, env = golang.toolchain(cache)
        version = build.requires[build.staging]
        theirs = _download(build.staging, version, cache)["GoMod"]
        required = json.loads(run([go, "mod", "edit", "-json", theirs], timeout_s=60, env=env))["Require"]
        published = f"v0.{version.partition('.')[2]}"
        lines += [f"replace {r['Path']} => {r['Path']} {published}" for r in required if r["Version"] == "v0.0.0"]
    return "\n".join(lines) + "\n"


def _download(module: str, version: str, cache: Path) -> dict[str, str]:
    go, env = golang.toolchain(cache)
    with tempfile.TemporaryDirectory(prefix="rig-go-") as empty:
        argv = [go, "mod", "download", "-json", f"{module}@v{version}"]
        answer: dict[str, str] = json.loads(run(argv, timeout_s=600, cwd=Path(empty), env=env))
    return answer
