"""
How the forwarder proves who it is: whatever the kubeconfig says, read by the `kubernetes` client.

Client certificates, tokens, token files and programs that print credentials all work.  Credentials that ran out are
read again: an expired token of a program before it is used, everything else when the API server refused it.
"""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger
from requests.utils import should_bypass_proxies
from yaml import YAMLError

from labkit.errors import ConfigInvalid, UnknownName

__all__ = ["Access", "Credentials", "check_context"]

# A program that prints credentials may ask a service far away: not more often than this, in seconds.
_RELOAD_EVERY_S = 2.0
# What the client raises about a kubeconfig: its own error, or what it stumbled upon.
_UNUSABLE = (ConfigException, YAMLError, OSError, ValueError, TypeError, AttributeError, KeyError)


@dataclass(frozen=True, slots=True)
class Access:
    """What one request to the API server needs; *generation* counts how often credentials were read."""

    url: str
    headers: dict[str, str]
    tls: ssl.SSLContext | bool
    server_name: str | None
    proxy: str | None
    generation: int


def check_context(kubeconfig: str, context: str) -> None:
    """
    Make sure that the kubeconfig has the context.

    Raises:
        ConfigInvalid: there is no kubeconfig, or it cannot be read.
        UnknownName: it has no such context; the message lists those it has.
    """
    source = kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    how = "Run `kubectl config get-contexts` to see what kubectl finds."
    try:
        merged = KubeConfigMerger(source).config
        names = [str(each["name"]) for each in merged.value["contexts"]] if merged is not None else []
    except _UNUSABLE as error:
        raise ConfigInvalid(source, problems=[str(error)], how=how) from error
    if merged is None:
        raise ConfigInvalid(source, problems=["there is no such file"], how=how)
    if context not in names:
        raise UnknownName("context", context, known=names, how=f"They are those of {source}.")


class Credentials:
    """
    The credentials of one context.  Its methods may block (a program may run) and may be called from any thread.

    Args:
        kubeconfig: path; the user's own if empty.  It is read, never written.
        context: one of its contexts.
    """

    def __init__(self, kubeconfig: str, context: str) -> None:
        self._kubeconfig, self._context = kubeconfig, context
        self._lock = threading.Lock()
        self._configuration: Configuration | None = None
        self._tls: ssl.SSLContext | bool = True
        self._generation = 0
        self._read_at = float("-inf")

    def access(self, *, refused: int | None = None) -> Access:
        """
        What a request needs now.

        Args:
            refused: the generation that the API server did not take: credentials are read again, unless somebody
                did so since, or it was just done.

        Raises:
            ConfigInvalid: the kubeconfig cannot be used any more.
        """
        with self._lock:
            due = time.monotonic() - self._read_at >= _RELOAD_EVERY_S
            configuration = self._configuration
            if configuration is None or (refused == self._generation and due):
                configuration = self._configuration = self._read()
            # Runs the program again if what it printed has expired.
            bearer = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
            return Access(
                url=configuration.host,
                headers={"Authorization": bearer} if bearer else {},
                tls=self._tls,
                server_name=configuration.tls_server_name,
                proxy=_proxy(configuration),
                generation=self._generation,
            )

    def _read(self) -> Configuration:
        self._read_at = time.monotonic()
        configuration = Configuration()
        try:
            # The client writes keys into files, since that is what OpenSSL reads; they are gone after the block.
            with TemporaryDirectory(prefix="labkit-") as folder:
                load_kube_config(
                    self._kubeconfig or None, self._context, configuration, persist_config=False, temp_file_path=folder
                )
                self._tls = _tls(configuration)
        except _UNUSABLE as error:
            source = self._kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
            raise ConfigInvalid(source, problems=[f"context {self._context!r}: {error}"]) from error
        self._generation += 1
        return configuration


def _tls(configuration: Configuration) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    # From 3.13 Python is stricter than Kubernetes: authorities that clusters make lack what it asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:  # `insecure-skip-tls-verify`: the user's own choice
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(Path(configuration.cert_file), configuration.key_file or None)
    return context


def _proxy(configuration: Configuration) -> str | None:
    proxy, host = configuration.proxy, urlsplit(configuration.host).hostname
    if not proxy or host in {"127.0.0.1", "localhost", "::1"}:
        return None
    return None if should_bypass_proxies(configuration.host, no_proxy=configuration.no_proxy) else str(proxy)
