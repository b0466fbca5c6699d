"""
Programs assembled from Maven artifacts and a small launcher of ours, which the JDK on PATH compiles.

The result is a folder: the jars, the compiled launcher, an archive of loaded classes (it halves the start), and a
script that runs them with whatever `java` is on PATH.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from labkit._proc import run
from labkit.settings import files_root
from labkit.stack.catalogue import MavenSource

__all__ = ["assemble", "missing_tools", "recipe"]

_RESOLVE_TIMEOUT_S = 900
_COMPILE_TIMEOUT_S = 120
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_TOOLS = ("mvn", "java", "javac", "jar")
HOW = "Install Maven and a JDK of version 17 or later (Debian: `apt-get install maven default-jdk-headless`)."


def missing_tools(oldest: int) -> str:
    """Which of Maven and the JDK is not on PATH, or too old, in a few words; an empty text if all is there."""
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)} on PATH"
    said = run(["javac", "-version"], timeout_s=30)
    found = re.search(r"(\d+)", said)
    return "" if found and int(found.group(1)) >= oldest else f"needs Java {oldest}; javac is {said.strip()}"


def recipe(source: MavenSource) -> str:
    """What the program of *source* is made of, as a short text: another launcher or option is another text."""
    ours = [(files_root() / "infra" / name).read_bytes() for name in (source.launcher, *source.files)]
    return hashlib.sha256(b"\0".join([source.model_dump_json().encode(), *ours])).hexdigest()[:16]


def assemble(source: MavenSource, folder: Path, command: str, *, cache: Path) -> None:
    """
    Put the program of *source* into *folder*; the script *command* in it starts the launcher.

    Args:
        source: artifacts, launcher and Java options.
        folder: exists; may be renamed afterwards, all paths inside are relative.
        command: name of the script.
        cache: labkit's cache; artifacts are kept below it.

    Raises:
        CommandFailed: an artifact could not be had, or the launcher did not compile or run.
    """
    library = folder / "lib"
    (folder / "pom.xml").write_text(_project(source), encoding="utf-8")
    resolve = ["mvn", "-q", "-B", f"-Dmaven.repo.local={cache / 'm2'}", _PLUGIN, "-DincludeScope=runtime"]
    run([*resolve, f"-DoutputDirectory={library}"], timeout_s=_RESOLVE_TIMEOUT_S, cwd=folder, how=HOW)
    _compile(source, library)
    jars = ":".join(f"lib/{jar.name}" for jar in sorted(library.glob("*.jar")))
    for config in source.files:
        shutil.copy(files_root() / "infra" / config, folder)
    options = [*source.java, "-cp", jars, Path(source.launcher).stem]
    _script(folder / command, options)
    if source.warm:
        _record_classes(source, folder, jars)
        _script(folder / command, ["-XX:SharedArchiveFile=classes.jsa", "-Xlog:cds=off", *options])


def _project(source: MavenSource) -> str:
    rows = []
    for coordinate in source.artifacts:
        group, artifact, version = (
            escape(part.replace("@{version}", source.version)) for part in coordinate.split(":")
        )
        rows.append(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>\n'
        "<groupId>labkit</groupId><artifactId>program</artifactId><version>1</version><packaging>pom</packaging>\n"
        "<dependencies>\n" + "\n".join(rows) + "\n</dependencies></project>\n"
    )


def _compile(source: MavenSource, library: Path) -> None:
    """The launcher as one more jar: the archive of classes does not accept folders."""
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".classes-") as classes:
        code = files_root() / "infra" / source.launcher
        run(["javac", "-cp", f"{library}/*", "-d", classes, code], timeout_s=_COMPILE_TIMEOUT_S, how=HOW)
        run(["jar", "--create", "--file", library / "launcher.jar", "-C", classes, "."], timeout_s=_COMPILE_TIMEOUT_S)


def _record_classes(source: MavenSource, folder: Path, jars: str) -> None:
    """Run the launcher once and keep the classes that it loaded, ready to be mapped into memory."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".warm-") as data:
        warm = [part.replace("@{data}", data) for part in source.warm]
        argv = ["java", *source.java, "-XX:ArchiveClassesAtExit=classes.jsa", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
        run([*argv, "-cp", jars, Path(source.launcher).stem, *warm], timeout_s=_COMPILE_TIMEOUT_S, cwd=folder)


def _script(path: Path, options: list[str]) -> None:
    arguments = " ".join(f"'{option}'" for option in options)
    path.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" && exec java {arguments} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
