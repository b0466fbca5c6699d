"""Which cluster a lab goes to, and when somebody must say so first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from labkit.errors import ConfigInvalid, NotConfirmed, UnknownName
from labkit.stack.contexts import TRUST, Context, confirm, contexts, is_of_this_machine, needs_asking, resolve

LOOPBACK = "https://127.0.0.1:6443"
FAR = "https://k8s.example.com"


def kubeconfig(path: Path, *names: str, server: str = LOOPBACK, namespace: str = "") -> Path:
    """A file with contexts of these names, each with a cluster and a user of its own."""
    content = {
        "clusters": [{"name": f"{name}-cluster", "cluster": {"server": server}} for name in names],
        "contexts": [
            {"name": name, "context": {"cluster": f"{name}-cluster", "user": f"{name}-user", "namespace": namespace}}
            for name in names
        ],
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


class TestResolve:
    """Contexts of the files of kubectl."""

    def test_a_context_by_its_name(self, tmp_path: Path) -> None:
        """With all that is asked about; the current context does not matter."""
        path = kubeconfig(tmp_path / "config", "kind-labkit", "shop")

        assert resolve("shop", path) == Context(path, "shop", "shop-cluster", LOOPBACK, "shop-user", "")

    def test_a_near_miss_is_named(self, tmp_path: Path) -> None:
        """Also what there is besides."""
        path = kubeconfig(tmp_path / "config", "kind-labkit", "shop-staging")
        with pytest.raises(UnknownName, match=r"did you mean 'shop-staging'\? Known: kind-labkit, shop-staging"):
            resolve("shop-stagin", path)

    def test_no_file(self, tmp_path: Path) -> None:
        """The message says where it was looked for, and that a local lab needs none."""
        with pytest.raises(ConfigInvalid, match=r"(?s)nowhere.*no such file.*`labkit up`"):
            resolve("shop", tmp_path / "nowhere")

    def test_the_environment_names_files_and_the_first_wins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As kubectl reads them; one that does not exist is passed over."""
        one = kubeconfig(tmp_path / "one", "shop", server=LOOPBACK)
        two = kubeconfig(tmp_path / "two", "shop", "other", server=FAR, namespace="two")
        monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "none"), str(one), str(two)]))

        assert [(ref.context, ref.server, ref.namespace, ref.kubeconfig) for ref in contexts()] == [
            ("shop", LOOPBACK, "", None),
            ("other", FAR, "two", None),
        ]

    def test_the_home_directory_is_the_last_resort(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without KUBECONFIG, ~/.kube/config."""
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".kube").mkdir()
        kubeconfig(tmp_path / ".kube" / "config", "shop")

        assert [ref.context for ref in contexts()] == ["shop"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"contexts: [", "it is no YAML in line 1"),
            (b"- a\n", "a mapping with `contexts` is expected"),
            (b"contexts: [{}]\n", "`contexts` is no list of entries with `name` and `context`"),
            (b"contexts: 3\n", "`contexts` is no list"),
            (b"\xff\xfe\x00", "it is no text"),
        ],
    )
    def test_an_unreadable_file(self, tmp_path: Path, content: bytes, said: str) -> None:
        """File, line where there is one, and what is wrong."""
        path = tmp_path / "config"
        path.write_bytes(content)
        with pytest.raises(ConfigInvalid, match=r"config: 1 mistake") as caught:
            contexts(path)

        assert said in str(caught.value)

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        """What the system says is passed on."""
        with pytest.raises(ConfigInvalid, match="it cannot be read: Is a directory"):
            contexts(tmp_path)

    def test_an_empty_file_has_no_contexts(self, tmp_path: Path) -> None:
        """It is what `kubectl config delete-context` leaves."""
        path = tmp_path / "config"
        path.write_text("")

        assert contexts(path) == []
        with pytest.raises(UnknownName, match="Known: none"):
            resolve("shop", path)

    def test_a_context_without_a_server(self, tmp_path: Path) -> None:
        """The cluster that it names is not there."""
        path = tmp_path / "config"
        path.write_text("contexts: [{name: shop, context: {cluster: gone}}]")
        with pytest.raises(ConfigInvalid, match="names the cluster 'gone', which has no server"):
            resolve("shop", path)


class TestThisMachine:
    """Loopback, and nothing that only looks like it."""

    @pytest.mark.parametrize(
        "server",
        [LOOPBACK, "https://localhost:6443", "https://[::1]:6443", "https://127.8.9.1", "https://0.0.0.0:6443",
         "https://LOCALHOST.:1", "https://kind.localhost", "127.0.0.1:6443"],
    )  # fmt: skip
    def test_loopback(self, server: str) -> None:
        """All its spellings."""
        assert is_of_this_machine(server)

    @pytest.mark.parametrize(
        "server",
        ["https://10.0.0.1:6443", "https://192.168.49.2:8443", "https://localhost.example.com", "", "https://",
         "https://127.0.0.1.example.com", "https://example.com/127.0.0.1", "https://127.0.0.1@example.com",
         "https://kubernetes.docker.internal:6443"],
    )  # fmt: skip
    def test_everything_else(self, server: str) -> None:
        """Also a server that is not named, and names that nobody promised."""
        assert not is_of_this_machine(server)

    def test_docker_desktop(self) -> None:
        """Its name for loopback counts in its own context only."""
        assert is_of_this_machine("https://kubernetes.docker.internal:6443", "docker-desktop")


class TestAsking:
    """When somebody must say that a cluster is meant."""

    @pytest.mark.parametrize(
        "name", ["prod", "shop-prod", "eu_production_1", "PRD", "shopProd2", "prod1", "live.example", "arn:x/prod-eks"]
    )
    def test_names_of_production(self, name: str) -> None:
        """As words inside the names of context, cluster, server and user, also behind a tunnel on loopback."""
        assert f"the context's name `{name}` looks like production" in needs_asking(name, "c", LOOPBACK)
        assert "cluster's name" in needs_asking("c", name, LOOPBACK)
        assert "user's name" in needs_asking("c", "c", LOOPBACK, user=name)
        assert "namespace's name" in needs_asking("c", "c", LOOPBACK, namespace=name)

    @pytest.mark.parametrize(
        "name", ["product-team", "olive", "reproduce", "liveness", "non-prod", "kind-dev", "Delivery"]
    )
    def test_names_that_are_none(self, name: str) -> None:
        """Parts of words do not count."""
        assert needs_asking(name, name, LOOPBACK) == ""

    def test_every_server_beyond_loopback(self) -> None:
        """Whatever its name; both reasons are told when there are two."""
        assert needs_asking("dev", "dev", FAR) == f"its API server {FAR} is not on this machine"
        both = needs_asking("dev", "dev", "https://api.prod.example.com")
        assert both.endswith("not on this machine, and the server's name `api.prod.example.com` looks like production")


class TestConfirm:
    """Nobody is assumed to have said yes."""

    far = Context(None, "shop-prod", "shop", FAR, "me", "")
    near = Context(None, "kind-labkit", "kind-labkit", LOOPBACK, "kind-labkit", "")

    def test_a_cluster_of_this_machine_needs_none(self) -> None:
        """Nobody is asked."""
        confirm(self.near, "lab", ask=lambda _: pytest.fail("asked"), environ={})

    def test_without_a_terminal_it_is_refused_with_both_ways_to_say_yes(self) -> None:
        """Reason and ways are in the message."""
        with pytest.raises(
            NotConfirmed, match=rf"not on this machine.*production.*--yes-this-cluster.*{TRUST}=shop-prod"
        ):
            confirm(self.far, "lab", environ={})

    def test_the_ways_to_say_yes(self) -> None:
        """The option, the exact name, the answer."""
        confirm(self.far, "lab", yes=True, environ={})
        confirm(self.far, "lab", environ={TRUST: "shop-prod"})
        asked: list[str] = []
        confirm(self.far, "lab-ana", environ={}, ask=lambda question: not asked.append(question))  # type: ignore[func-returns-value]
        assert "lab-ana" in asked[0]
        assert FAR in asked[0]

    @pytest.mark.parametrize("trusted", ["shop", "shop-prod ", "*", "1", "yes"])
    def test_another_name_is_no_yes(self, trusted: str) -> None:
        """Trust is for one context, to the letter; what was set is shown."""
        with pytest.raises(NotConfirmed, match="names another one"):
            confirm(self.far, "lab", environ={TRUST: trusted})

    def test_a_no_is_a_no(self) -> None:
        """Nothing was made."""
        with pytest.raises(NotConfirmed, match="the answer was no"):
            confirm(self.far, "lab", environ={}, ask=lambda _: False)
