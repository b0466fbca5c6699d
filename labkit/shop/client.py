"""`ShopAdmin`: the admin side of a running shop, as `lab.shop` offers it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labkit._http import request
from labkit.errors import InvalidValue, NotRunning, RequestFailed, UnknownName
from labkit.shop.faults import FAULTS
from labkit.shop.flags import FLAGS, Value
from labkit.shop.names import QUEUES, queue_keys

if TYPE_CHECKING:
    import redis

__all__ = ["ShopAdmin"]


_HOW = "Use the `lab.shop` of a lab that is up: `labkit.connect()`."


class ShopAdmin:
    """
    Flags, faults, deploys and queues of all replicas.

    Args:
        admin_urls: replica → address of its admin API, for example `{"catalog-1": "http://127.0.0.1:8181"}`.
        token: the bearer token that all of them expect.
        redis_url: redis://host:port/db of the queues; empty if they are out of reach.
    """

    def __init__(self, admin_urls: Mapping[str, str], token: str, *, redis_url: str = "") -> None:
        self._urls = dict(admin_urls)
        self._headers = {"Authorization": f"Bearer {token.strip()}"}
        self._redis_url = redis_url

    def __repr__(self) -> str:
        return f"ShopAdmin({', '.join(self._urls)})"

    def instances(self, of: str = "") -> list[str]:
        """
        The names of the replicas.

        Args:
            of: a replica (`catalog-1`), a service (`catalog`: all its replicas) or empty for all.

        Raises:
            UnknownName: no replica and no service is called that.
        """
        found = [name for name in self._urls if of in {"", name, _service(name)}]
        if not found:
            raise UnknownName("replica or service", of, known=[*self._urls, *{_service(n) for n in self._urls}])
        return found

    def state(self, of: str = "") -> dict[str, dict[str, Any]]:
        """Replica → version, flags and active faults; *of* as in `instances`."""
        return {name: self._call("GET", name, "state") for name in self.instances(of)}

    def cpu_s(self, of: str = "") -> float:
        """
        Seconds of processor that the replicas have used since each started, in user and kernel mode together.

        Args:
            of: a replica or a service; all if empty.
        """
        return sum(float(state["cpu_s"]) for state in self.state(of).values())

    def flags(self, of: str = "") -> dict[str, dict[str, Value]]:
        """Replica → flag → value; *of* as in `instances`."""
        found: dict[str, dict[str, Value]] = {}
        for name in self.instances(of):
            found[name] = {flag["name"]: flag["value"] for flag in self._call("GET", name, "flags")}
        return found

    def set_flag(self, flag: str, value: Value, *, on: str = "") -> list[str]:
        """
        Set *flag* on every replica that has it.

        Args:
            flag: its name.
            value: of the flag's type.
            on: only these replicas; as in `instances`.

        Returns:
            The replicas where it was set.

        Raises:
            UnknownName: no replica among them has such a flag.
            InvalidValue: the flag does not take this value.
            NotRunning: a replica does not answer.
        """
        having = self._having(flag, on)
        for name in having:
            self._call("PUT", name, f"flags/{flag}", {"value": value})
        return having

    def restore_flag(self, flag: str, *, on: str = "") -> list[str]:
        """Set *flag* back to its default; as `set_flag` otherwise."""
        having = self._having(flag, on)
        for name in having:
            self._call("DELETE", name, f"flags/{flag}")
        return having

    def faults(self, of: str = "") -> dict[str, list[dict[str, Any]]]:
        """Replica → the faults in force there, each with its parameters and the seconds it has left."""
        return {name: self._call("GET", name, "faults")["active"] for name in self.instances(of)}

    def inject(self, fault: str, *, on: str, **parameters: object) -> dict[str, dict[str, Any]]:
        """
        Start a fault; `undo`, `reset`, a restart of the replica and the time end it.

        A fault ends by itself after `for_s` seconds, 900 if not given.

        Args:
            fault: latency, error, hang, cpu, memory or crash.
            on: replicas, as in `instances`; never empty, so that nobody breaks everything by leaving a word out.
            parameters: of the fault, as in docs/shop.md: `ms`, `share`, `endpoint`, `status`, `for_s` …

        Returns:
            Replica → the parameters in force there.

        Raises:
            UnknownName: the fault, a parameter or the replica is not known.
            InvalidValue: a parameter is out of bounds.
            NotRunning: a replica does not answer.
        """
        _known_fault(fault)
        if not on:
            raise InvalidValue("on", expected=f"a replica or service among {', '.join(self._urls)}", got=on)
        return {name: self._call("PUT", name, f"faults/{fault}", parameters) for name in self.instances(on)}

    def undo(self, fault: str, *, on: str = "") -> list[str]:
        """End a fault; returns the replicas where it was in force.  Errors as in `inject`."""
        _known_fault(fault)
        return [name for name in self.instances(on) if self._call("DELETE", name, f"faults/{fault}")["was_active"]]

    def deploy(self, version: str, *, on: str, actor: str = "labkit") -> list[dict[str, Any]]:
        """Deploy *version* to the replicas *on*, one after the other; returns the lines of the deploy log."""
        body = {"version": version, "actor": actor}
        return [self._call("POST", name, "deploy", body) for name in self.instances(on)]

    def deploy_log(self) -> list[dict[str, Any]]:
        """
        Every deploy so far, oldest first: time, service, instance, version, previous, actor.

        Every replica is asked for its log, which it may share with others; each deploy is there once.  What only a
        replica knows that does not answer is missing.

        Returns:
            An empty list when nothing was deployed since the lab began.

        Raises:
            NotRunning: no replica answers.
        """
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        silent: list[str] = []
        for name in self._urls:
            try:
                found |= {tuple(map(str, entry.values())): entry for entry in self._call("GET", name, "deploys")}
            except NotRunning as error:
                silent.append(f"{name}: {error.seen}")
        if len(silent) == len(self._urls):
            raise NotRunning("The deploy log cannot be read", seen="; ".join(silent) or "there is no replica", how=_HOW)
        return sorted(found.values(), key=lambda entry: str(entry["time"]))

    def queue_lengths(self) -> dict[str, int]:
        """Queue → jobs that wait in it."""
        with self._redis() as connection:
            return {queue: int(connection.llen(queue)) for queue in QUEUES}

    def purge_queues(self) -> int:
        """Throw away every job; returns how many there were."""
        with self._redis() as connection:
            jobs = sum(int(connection.llen(key)) for key in queue_keys())
            connection.delete(*queue_keys())
        return jobs

    def reset(self) -> list[str]:
        """
        The healthy baseline: faults gone, flags at their defaults, versions as started, queues empty.

        Returns:
            The replicas that were reset.

        Raises:
            NotRunning: a replica or Redis does not answer; the others were reset all the same.
        """
        silent: list[str] = []
        for name in self._urls:
            try:
                self._call("POST", name, "reset")
            except NotRunning as error:
                silent.append(f"{name}: {error.seen}")
        if self._redis_url:
            try:
                self.purge_queues()
            except NotRunning as error:
                silent.append(f"redis: {error.seen}")
        if silent:
            raise NotRunning(
                "Not every replica was reset", seen="; ".join(silent), how="Run `labkit status`, then reset again."
            )
        return list(self._urls)

    def _having(self, flag: str, on: str) -> list[str]:
        """The replicas among *on* whose service reads *flag*; asks none of them."""
        instances = self.instances(on)
        services = {_service(name) for name in instances}
        known = {f.name: f.service for f in FLAGS if not f.service or f.service in services}
        if flag not in known:
            raise UnknownName(f"flag of {on or 'the shop'}", flag, known=list(known))
        return [name for name in instances if known[flag] in {"", _service(name)}]

    def _call(self, method: str, instance: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        url = f"{self._urls[instance]}/admin/{path}"
        try:
            answer = request(method, url, json=body, headers=self._headers, timeout_s=3, ok=(404, 422))
        except RequestFailed as error:
            if error.status is None:
                raise NotRunning(
                    f"{instance} does not answer on its admin port",
                    seen=error.reason,
                    how=f"See `labkit logs {instance}`.",
                ) from error
            raise
        said = answer.json()
        if answer.status_code == 404:
            known: Sequence[str] = said.get("known", ())
            raise UnknownName(f"name that {instance} knows", path.rpartition("/")[2], known=known)
        if answer.status_code == 422:
            raise InvalidValue(f"{path.rpartition('/')[2]} on {instance}", expected=said["error"], got=body)
        return said

    @contextmanager
    def _redis(self) -> Iterator[redis.Redis]:
        if not self._redis_url:
            raise NotRunning("The queues cannot be reached", seen="the address of Redis is not known here", how=_HOW)
        import redis  # noqa: PLC0415  (a quarter of a second that only the queues need)

        try:
            with redis.Redis.from_url(self._redis_url, socket_timeout=3, socket_connect_timeout=3) as connection:
                yield connection
        except redis.RedisError as error:
            raise NotRunning("The queues cannot be reached", seen=str(error), how=_HOW) from error


def _known_fault(name: str) -> None:
    if name not in FAULTS:
        raise UnknownName("fault", name, known=list(FAULTS))


def _service(instance: str) -> str:
    head, _, number = instance.rpartition("-")
    return head if head and number.isdigit() else instance
