"""One shop for all tests of this room: it starts once and is put back to health after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.shop.otlp_receiver import Receiver
from tests.shop.shop_stack import ShopStack


@pytest.fixture(scope="session")
def trace_store() -> Iterator[Receiver]:
    """Where the shop of these tests sends its spans."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def running_shop(tmp_path_factory: pytest.TempPathFactory, trace_store: Receiver) -> Iterator[ShopStack]:
    """MariaDB, Redis, toxiproxy and eight replicas as processes."""
    stack = ShopStack(tmp_path_factory.mktemp("shop"), otlp_url=trace_store.url)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def shop(running_shop: ShopStack) -> Iterator[ShopStack]:
    """The shop at rest; whatever a test breaks is mended after it."""
    yield running_shop
    running_shop.mend()
