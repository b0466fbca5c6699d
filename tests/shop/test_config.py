"""The environment of a service: complete, typed, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import ConfigInvalid
from labkit.settings import files_root
from labkit.shop.config import SERVICES, VARIABLES, load_config
from labkit.shop.faults import FAULTS
from labkit.shop.flags import FLAGS

GATEWAY = {
    "SHOP_PORT": "8080",
    "SHOP_CATALOG_URLS": "http://a:1, http://b:2/",
    "SHOP_PAYMENTS_URLS": "http://c:3",
    "SHOP_CART_URL": "http://d:4",
    "SHOP_ORDERS_URL": "http://e:5",
}
CATALOG = {"SHOP_PORT": "8081", "SHOP_MARIADB_URL": "mysql://shop:from%2Furl@db/shop"}


def test_every_missing_variable_is_listed_at_once():
    """A gateway without any variable is told all five that it needs."""
    with pytest.raises(ConfigInvalid) as caught:
        load_config("gateway", {})
    assert [str(problem).split()[0] for problem in caught.value.problems] == list(GATEWAY)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("SHOP_PORT", "80800", "1 to 65535"),
        ("SHOP_PORT", "http", "1 to 65535"),
        ("SHOP_CART_URL", "redis://d:4", "http://"),
        ("SHOP_CATALOG_URLS", " , ", "got none"),
        ("SHOP_LOG_LEVEL", "loud", "debug, info"),
        ("SHOP_ACCESS_LOG_EVERY", "0", "from 1 up"),
        ("SHOP_ADMIN_TOKEN_FILE", "/nowhere", "cannot be read"),
        ("SHOP_CATLOG_URLS", "http://a", "did you mean SHOP_CATALOG_URLS?"),
    ],
)
def test_a_wrong_variable_is_named_with_what_was_expected(name: str, value: str, part: str):
    """The message has the variable and the values that it takes."""
    with pytest.raises(ConfigInvalid, match=name) as caught:
        load_config("gateway", GATEWAY | {name: value})
    assert part in str(caught.value)


def test_an_unknown_service_is_met_with_the_nearest():
    """A typo in the service gets a suggestion."""
    with pytest.raises(ConfigInvalid, match="did you mean payments"):
        load_config("payment", {})


def test_a_service_needs_only_its_own_variables():
    """The gateway starts without addresses of MariaDB and Redis, and normalises its own."""
    config = load_config("gateway", GATEWAY)
    assert config.catalog_urls == ("http://a:1", "http://b:2")
    assert (config.mariadb, config.redis_url, config.instance) == (None, "", "gateway-1")


def test_the_password_file_wins_over_the_address_and_neither_is_shown(tmp_path: Path):
    """A password comes from its file if there is one, and never appears in a text of the configuration."""
    (tmp_path / "password").write_text("from file\n")
    first = load_config("catalog", CATALOG)
    second = load_config("catalog", CATALOG | {"SHOP_MARIADB_PASSWORD_FILE": str(tmp_path / "password")})
    assert first.mariadb is not None
    assert first.mariadb.password == "from/url"
    assert second.mariadb is not None
    assert second.mariadb.password == "from file"
    assert "from" not in repr(first) + repr(second)


def test_an_admin_port_without_a_token_is_refused(tmp_path: Path):
    """There is no way to run the admin API open: no file, and an empty file, are both mistakes."""
    (tmp_path / "token").write_text("\n")
    for extra in ({}, {"SHOP_ADMIN_TOKEN_FILE": str(tmp_path / "token")}):
        with pytest.raises(ConfigInvalid, match="SHOP_ADMIN_TOKEN_FILE"):
            load_config("payments", {"SHOP_PORT": "1", "SHOP_ADMIN_PORT": "2", **extra})


def test_every_variable_of_the_table_is_documented():
    """docs/shop.md names every variable, flag and fault, so the page cannot fall behind."""
    page = (files_root() / "docs" / "shop.md").read_text(encoding="utf-8")
    names = [v.name for v in VARIABLES] + [f.name for f in FLAGS] + list(FAULTS) + list(SERVICES)
    assert [name for name in names if f"`{name}`" not in page] == []
