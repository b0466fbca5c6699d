"""The lab's life, on real processes of a small catalogue."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from labkit._http import is_up
from labkit._wait import wait_until
from labkit.errors import ComponentDied, NotReady, PortInUse
from labkit.stack import guard
from labkit.stack.local import LocalRuntime
from labkit.stack.ports import port_is_free
from labkit.stack.runtime import Hooks
from labkit.stack.state import State, lab_processes
from tests.stack.conftest import component, run_in_background

pytestmark = pytest.mark.live
Stack = Callable[..., LocalRuntime]

# What a learner's process does: start the lab as its owner, say so, and wait to be killed.
OWNER = """
    import os, sys, threading
    from pathlib import Path
    from labkit.settings import load_settings
    from labkit.stack.local import LocalRuntime
    from labkit.stack.runtime import Hooks
    settings = load_settings({"run_dir": Path(sys.argv[1]), "port_offset": int(sys.argv[3])})
    runtime = LocalRuntime(settings, catalogue=Path(sys.argv[2]))
    def progress(event):
        print(event, flush=True)
    try:
        runtime.up(owner=os.getpid(), hooks=Hooks(), progress=progress)
    except KeyboardInterrupt:
        sys.exit(130)
    print("UP", flush=True)
    threading.Event().wait(60)
"""


def url(runtime: LocalRuntime) -> str:
    """The address of the component `web`."""
    return f"http://127.0.0.1:{8900 + runtime.settings.port_offset}/"


@contextmanager
def an_owner(runtime: LocalRuntime) -> Iterator[subprocess.Popen[str]]:
    """A process that starts the lab of *runtime* and owns it; killed at the end of the block."""
    assert runtime.catalogue is not None
    argv = run_in_background(OWNER, str(runtime.run_dir), str(runtime.catalogue), str(runtime.settings.port_offset))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Lines of *process* up to the one that holds *text*."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if text in line:
            return lines
    raise AssertionError(f"the process ended before it said {text!r}; it said {lines}")


def assert_gone(lab_id: str, runtime: LocalRuntime) -> None:
    """Nothing of the lab runs, nothing listens, and the run directory says so."""
    wait_until(lambda: not lab_processes(lab_id), "no process of the lab is left", timeout_s=25)
    wait_until(lambda: State.load(runtime.run_dir) is None, "lab.json is gone", timeout_s=5)
    assert port_is_free(8900 + runtime.settings.port_offset)


def test_up_starts_and_down_leaves_nothing(stack: Stack) -> None:
    """After `up` the component answers; after `down` no process, no listener and no lab.json is left."""
    runtime = stack()
    state, started = runtime.up(owner=None, hooks=Hooks())

    assert started
    assert is_up(url(runtime))
    assert runtime.down()
    assert_gone(state.lab_id, runtime)


def test_up_twice_is_one_lab(stack: Stack) -> None:
    """A second `up` joins: same lab id, same process, nothing started."""
    runtime = stack()
    first, _ = runtime.up(owner=None, hooks=Hooks())
    pids = {row.name: row.pid for row in runtime.status()}

    second, started = runtime.up(owner=None, hooks=Hooks())

    assert not started
    assert second.lab_id == first.lab_id
    assert {row.name: row.pid for row in runtime.status()} == pids
    runtime.down()


def test_down_twice_is_fine(stack: Stack) -> None:
    """The second `down` finds nothing and says so."""
    runtime = stack()
    runtime.up(owner=None, hooks=Hooks())

    assert runtime.down()
    assert not runtime.down()


def test_two_labs_run_side_by_side(stack: Stack, tmp_path: Path) -> None:
    """Two run directories with two port offsets are two labs; stopping one leaves the other."""
    one = stack()
    two = stack(run_dir=tmp_path / "second", port_offset=one.settings.port_offset + 1)
    one.up(owner=None, hooks=Hooks())
    two.up(owner=None, hooks=Hooks())

    one.down()

    assert not is_up(url(one))
    assert is_up(url(two))
    two.down()


def test_a_taken_port_names_its_owner_and_starts_nothing(stack: Stack) -> None:
    """`PortInUse` has port, process id and name of the listener, and what to do."""
    runtime = stack()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 8900 + runtime.settings.port_offset))
        taken.listen()
        with pytest.raises(PortInUse) as caught:
            runtime.up(owner=None, hooks=Hooks())

    assert caught.value.pid == os.getpid()
    assert "--port-offset" in str(caught.value)
    assert State.load(runtime.run_dir) is None


def test_a_component_that_dies_at_start_is_quoted_and_all_is_stopped(stack: Stack) -> None:
    """`ComponentDied` carries the component's last words; what had started is stopped again."""
    code = "import sys; print('cannot read the recipe'); sys.exit(3)"
    runtime = stack(broken=component("broken", code=code, needs="[web]"))

    with pytest.raises(ComponentDied) as caught:
        runtime.up(owner=None, hooks=Hooks())

    assert caught.value.component == "broken"
    assert "cannot read the recipe" in str(caught.value)
    assert "labkit logs broken" in str(caught.value)
    assert port_is_free(8900 + runtime.settings.port_offset)
    assert State.load(runtime.run_dir) is None


def test_a_component_that_never_becomes_ready_is_named_with_what_was_last_seen(stack: Stack) -> None:
    """`NotReady` has the probe, the limit and the component's last words; all is stopped again."""
    slow = component(
        "slow",
        code="import time; print('warming up', flush=True); time.sleep(60)",
        ready="{tcp: http, within_s: 2}",
        ports="{http: 8950}",
    )
    runtime = stack(slow=slow)

    with pytest.raises(NotReady) as caught:
        runtime.up(owner=None, hooks=Hooks())

    assert "slow is ready" in str(caught.value)
    assert "warming up" in str(caught.value)
    assert State.load(runtime.run_dir) is None


def test_a_failing_hook_stops_everything(stack: Stack) -> None:
    """An error in what the caller adds to a start passes through, and the lab is stopped."""
    runtime = stack()

    def fail(_layout: object) -> None:
        raise RuntimeError("no history today")

    with pytest.raises(RuntimeError, match="no history today"):
        runtime.up(owner=None, hooks=Hooks(after={"web": fail}))

    assert State.load(runtime.run_dir) is None
    assert port_is_free(8900 + runtime.settings.port_offset)


@pytest.mark.parametrize("moment", ["start web", "start guard", "start slow"])
def test_interrupt_at_any_moment_of_up_leaves_nothing(stack: Stack, moment: str) -> None:
    """Ctrl-C while components start: exit by KeyboardInterrupt, and nothing of the lab is left."""
    code = "import time; time.sleep(60)"
    runtime = stack(slow=component("slow", code=code, needs="[web]", ready="{running_s: 15, within_s: 30}"))
    with an_owner(runtime) as process:
        wait_until(lambda: State.load(runtime.run_dir) is not None, "the lab is starting", timeout_s=20, every_s=0.01)
        state = State.load(runtime.run_dir)
        assert state is not None
        if moment != "start slow":
            read_until(process, moment)
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=30) == 130
    assert_gone(state.lab_id, runtime)


def test_kill_9_of_the_starting_process_ends_the_lab_at_once(stack: Stack) -> None:
    """A process killed in the middle of `up` cannot clean up: the guard does."""
    code = "import time; time.sleep(60)"
    runtime = stack(slow=component("slow", code=code, needs="[web]", ready="{running_s: 30, within_s: 40}"))
    with an_owner(runtime) as process:
        read_until(process, "start web")
        state = State.load(runtime.run_dir)
        assert state is not None
        process.kill()
        process.wait()

    assert_gone(state.lab_id, runtime)


def test_kill_9_of_the_owner_ends_the_lab_after_its_grace(stack: Stack) -> None:
    """The guard ends a lab whose owner was killed, and leaves a note that says why."""
    runtime = stack()
    with an_owner(runtime) as process:
        read_until(process, "UP")
        state = State.load(runtime.run_dir)
        assert state is not None
        process.kill()
        process.wait()

    assert_gone(state.lab_id, runtime)
    assert f"its owner, process {process.pid}, died" in (runtime.run_dir / "ended.json").read_text()


def test_a_lab_whose_owner_died_can_be_taken_over_within_the_grace(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` by a restarted kernel takes the lab over: it then belongs to the new process and lives on."""
    monkeypatch.setenv("LABKIT_OWNER_GRACE_S", "30s")
    runtime = stack()
    with an_owner(runtime) as process:
        read_until(process, "UP")
        process.kill()
        process.wait()

    state, started = runtime.up(owner=os.getpid(), hooks=Hooks())

    assert not started
    assert state.owner is not None
    assert state.owner.pid == os.getpid()
    assert is_up(url(runtime))
    runtime.down()


def test_a_lab_that_was_rejoined_in_the_last_moment_is_not_ended(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard decided to end an orphan; before it did, somebody took the lab over: it lives."""
    monkeypatch.setenv("LABKIT_OWNER_GRACE_S", "30s")
    runtime = stack()
    with an_owner(runtime) as process:
        read_until(process, "UP")
        process.kill()
        process.wait()
    runtime.up(owner=os.getpid(), hooks=Hooks())

    guard.main(["guard", str(runtime.run_dir), "--end", "its owner died"])

    assert is_up(url(runtime))
    runtime.down()


def test_kill_9_of_the_supervisor_ends_the_lab(stack: Stack) -> None:
    """Children that supervisord leaves as orphans are stopped by the guard."""
    runtime = stack()
    state, _ = runtime.up(owner=None, hooks=Hooks())
    assert state.supervisor is not None
    os.kill(state.supervisor.pid, signal.SIGKILL)

    assert_gone(state.lab_id, runtime)
    assert "its supervisor died" in (runtime.run_dir / "ended.json").read_text()


def test_up_works_after_kill_9_of_supervisor_and_guard(stack: Stack) -> None:
    """With nobody left to clean up, the next `up` stops the orphans and starts a new lab."""
    runtime = stack()
    state, _ = runtime.up(owner=None, hooks=Hooks())
    assert state.supervisor is not None
    guard_pid = next(row.pid for row in runtime.status() if row.name == "guard")
    orphan = next(row.pid for row in runtime.status() if row.name == "web")
    os.kill(state.supervisor.pid, signal.SIGKILL)
    assert guard_pid is not None
    os.kill(guard_pid, signal.SIGKILL)
    wait_until(lambda: not state.alive(), "the supervisor is gone", timeout_s=5)

    again, started = runtime.up(owner=None, hooks=Hooks())

    assert started
    assert again.lab_id != state.lab_id
    assert orphan not in [row.pid for row in runtime.status()]
    assert not lab_processes(state.lab_id)
    runtime.down()


def test_a_killed_component_is_started_again(stack: Stack) -> None:
    """What dies is restarted, as a kubelet restarts a container."""
    runtime = stack()
    runtime.up(owner=None, hooks=Hooks())
    before = next(row.pid for row in runtime.status() if row.name == "web")
    assert before is not None
    os.kill(before, signal.SIGKILL)

    wait_until(
        lambda: [r for r in runtime.status() if r.name == "web" and r.ready and r.pid != before],
        "web runs again under another process id",
        timeout_s=15,
    )
    runtime.down()


def test_a_killed_guard_is_started_again(stack: Stack) -> None:
    """The guard is itself guarded."""
    runtime = stack()
    runtime.up(owner=None, hooks=Hooks())
    before = next(row.pid for row in runtime.status() if row.name == "guard")
    assert before is not None
    os.kill(before, signal.SIGKILL)

    wait_until(
        lambda: [r for r in runtime.status() if r.name == "guard" and r.pid not in (None, before)],
        "the guard runs again",
        timeout_s=10,
    )
    runtime.down()


def test_an_unused_lab_ends_when_its_time_is_over(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `ttl_s` seconds without use the guard ends the lab and says so."""
    monkeypatch.setenv("LABKIT_TTL_S", "2s")
    runtime = stack()
    state, _ = runtime.up(owner=None, hooks=Hooks())

    assert_gone(state.lab_id, runtime)
    assert "nobody used it for 2 s" in (runtime.run_dir / "ended.json").read_text()


def test_a_lab_in_use_outlives_its_time(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use renews the time to live: a lab used every half second is there after twice its time."""
    monkeypatch.setenv("LABKIT_TTL_S", "2s")
    runtime = stack()
    runtime.up(owner=None, hooks=Hooks())
    end = time.monotonic() + 4

    def used() -> bool:
        runtime.up(owner=None, hooks=Hooks())
        return time.monotonic() > end

    wait_until(used, "four seconds of use", timeout_s=10, every_s=0.5)
    assert is_up(url(runtime))
    runtime.down()


def test_a_stopped_process_does_not_hold_up_down(stack: Stack) -> None:
    """A component hung by SIGSTOP cannot react to a signal; `down` ends it all the same."""
    runtime = stack()
    state, _ = runtime.up(owner=None, hooks=Hooks())
    pid = next(row.pid for row in runtime.status() if row.name == "web")
    assert pid is not None
    psutil.Process(pid).suspend()

    runtime.down()

    assert_gone(state.lab_id, runtime)


def test_a_long_run_directory_works(stack: Stack, tmp_path: Path) -> None:
    """A path too long for a Unix socket is no obstacle: the sockets move to a short folder."""
    runtime = stack(run_dir=tmp_path / ("x" * 60) / ("y" * 60))
    runtime.up(owner=None, hooks=Hooks())

    assert is_up(url(runtime))
    runtime.down()


def test_nothing_waits_for_what_needs_nothing(stack: Stack) -> None:
    """A component starts after what it needs and not before."""
    order: list[str] = []
    runtime = stack(late=component("late", code="import time; time.sleep(60)", needs="[web]"))

    runtime.up(owner=None, hooks=Hooks(), progress=lambda e: order.append(f"{e.kind} {e.what}"))

    assert order.index("done start web") < order.index("started start late")
    runtime.down()
