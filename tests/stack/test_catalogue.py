"""The catalogue and the layout that is made from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from labkit.errors import ConfigInvalid
from labkit.settings import PROFILES, files_root, load_settings
from labkit.stack.acquire import Installed
from labkit.stack.catalogue import load_catalogue, profile_components
from labkit.stack.plan import Layout, ports_of, socket_dir
from tests.stack.conftest import WEB, component


def write(folder: Path, **components: str) -> Path:
    """A catalogue of these files."""
    for name, text in components.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def layout(tmp_path: Path, *, offset: int = 0, without: tuple[str, ...] = (), profile: str = "core") -> Layout:
    """The layout of a profile, as if every program but *without* were here."""
    components = profile_components(profile)
    programs = {
        name: Installed(name, Path(f"/opt/{name}/bin/{name}"), "1.0.0", "PATH")
        for name, c in components.items()
        if c.program is not None and name not in without
    }
    settings = load_settings({"run_dir": tmp_path / "run", "port_offset": offset})
    return Layout(components, programs, settings)


def test_every_component_of_the_installation_is_valid_and_complete() -> None:
    """Each file loads, says what is lost without it or that it is required, and its configuration files exist."""
    for name, found in load_catalogue().items():
        assert found.required or found.without, name
        for source in found.files:
            assert (files_root() / "infra" / source).is_file(), source


@pytest.mark.parametrize("profile", PROFILES)
def test_no_two_components_share_a_port(tmp_path: Path, profile: str) -> None:
    """Components of a profile and the links of toxiproxy all listen on ports of their own."""
    ports = [
        port
        for c in profile_components(profile).values()
        for roles in ports_of(c, 0).values()
        for port in roles.values()
    ] + list(layout(tmp_path).link_ports.values())

    assert [port for port, count in Counter(ports).items() if count > 1] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_can_be_laid_out(tmp_path: Path, profile: str) -> None:
    """All text of its components and files is filled in, and nothing is told to listen beyond loopback."""
    made = layout(tmp_path, profile=profile)
    made.write_files()
    texts = [" ".join((*i.argv, *i.env.values())) for i in made.instances.values()]
    texts += [path.read_text() for path in made.etc.rglob("*") if path.is_file()]

    assert [text for text in texts if "@{" in text or "0.0.0.0" in text or "[::]" in text] == []  # noqa: S104  (what must not be there)


def test_a_misspelt_key_is_named_with_its_place_and_the_right_one(tmp_path: Path) -> None:
    """`ConfigInvalid` has file, line, column and the nearest correct name."""
    write(tmp_path, web=WEB.replace("title: Web", "titel: Web"))

    with pytest.raises(ConfigInvalid) as caught:
        load_catalogue(tmp_path)

    assert "web.yaml" in str(caught.value)
    assert "line 3, column 1: `titel` is not a known key; did you mean `title`?" in str(caught.value)


def test_every_mistake_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    """Two mistakes, two lines of the message."""
    write(tmp_path, web=WEB.replace("memory_mb: 10", "memory_mb: ten").replace("about: answers\n", ""))

    with pytest.raises(ConfigInvalid, match=": 2 mistakes") as caught:
        load_catalogue(tmp_path)

    assert "`about` is missing" in str(caught.value)
    assert "`memory_mb`" in str(caught.value)


def test_text_that_is_not_yaml_is_located(tmp_path: Path) -> None:
    """A syntax error has line and column."""
    write(tmp_path, web="name: [web\ntitle: x\n")

    with pytest.raises(ConfigInvalid, match=r"line 2, column 6: not YAML"):
        load_catalogue(tmp_path)


def test_a_need_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    """`needs` is checked against the other files."""
    write(tmp_path, web=WEB, app=component("app", code="pass", needs="[wed]"))

    with pytest.raises(ConfigInvalid, match=r"did you mean 'web'\?"):
        load_catalogue(tmp_path)


def test_a_circle_of_needs_is_shown(tmp_path: Path) -> None:
    """Components that need one another cannot start; the circle is written out."""
    write(tmp_path, a=component("a", code="pass", needs="[b]"), b=component("b", code="pass", needs="[a]"))

    with pytest.raises(ConfigInvalid, match="a → b → a"):
        profile_components("core", tmp_path)


@pytest.mark.parametrize("profile", PROFILES)
def test_each_component_comes_after_what_it_needs(profile: str) -> None:
    """The order of the profile is a possible order of starting; what it lacks, nobody waits for."""
    components, seen = profile_components(profile), set()
    for name, found in components.items():
        assert set(found.needs) & set(components) <= seen, name
        seen.add(name)


def test_replicas_have_names_and_ports_of_their_own(tmp_path: Path) -> None:
    """`catalog` with two replicas is catalog-1 and catalog-2 on consecutive ports."""
    made = layout(tmp_path, offset=500)

    assert made.ports["catalog-1"]["http"] == 8581
    assert made.ports["catalog-2"]["http"] == 8582


def test_links_lead_through_toxiproxy_or_directly_without_it(tmp_path: Path) -> None:
    """Without toxiproxy the shop still runs: services reach one another directly."""
    through, direct = layout(tmp_path), layout(tmp_path / "2", without=("toxiproxy",))

    assert "8281" in through.instances["gateway"].env["SHOP_CATALOG_URLS"]
    assert "8081" in direct.instances["gateway"].env["SHOP_CATALOG_URLS"]


def test_the_rendered_scrape_configuration_lists_every_replica(tmp_path: Path) -> None:
    """Each service instance of the catalogue is a target with its own name; no placeholder is left."""
    made = layout(tmp_path, offset=100)
    made.write_files()

    text = (made.etc / "prometheus" / "full.yml").read_text()
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    targets = {t["labels"]["instance"]: t["targets"][0] for t in jobs["shop"]["static_configs"]}

    shop = {name: made.address(name) for name, i in made.instances.items() if i.argv[1:3] == ("-m", "labkit.shop")}
    assert targets == shop
    assert "@{" not in text


def test_an_unknown_name_in_a_file_is_located(tmp_path: Path) -> None:
    """A typo in a configuration template gives line, column and the nearest name."""
    made = layout(tmp_path)
    found = made.components["prometheus"]

    with pytest.raises(ConfigInvalid) as caught:
        made.render("a: 1\nb: '@{address.gatewya}'\n", found, "prometheus", source="infra/x.yml")

    assert "line 2, column 5: `gatewya` is not a name that files may use; did you mean 'gateway'?" in str(caught.value)


def test_secrets_are_made_once_and_readable_by_the_owner_only(tmp_path: Path) -> None:
    """A second layout of the same run directory has the same secrets; the files have mode 600."""
    first, second = layout(tmp_path), layout(tmp_path)

    assert first.secrets == second.secrets
    assert len(set(first.secrets.values())) == len(first.secrets) > 0
    for name in first.secrets:
        assert (first.run / "secrets" / name).stat().st_mode & 0o777 == 0o600


def test_another_seed_has_data_of_its_own(tmp_path: Path) -> None:
    """A lab with another seed neither sees nor destroys the data of the first."""
    components = profile_components("core")
    folders = {
        seed: Layout(components, {}, load_settings({"run_dir": tmp_path, "seed": seed})).data("prometheus")
        for seed in (1, 2)
    }

    assert folders[1] != folders[2]


def test_socket_paths_are_short_enough() -> None:
    """The folder of sockets stays below the limit of the system whatever the run directory is."""
    assert len(str(socket_dir(Path("/" + "x" * 300)))) < 80


@pytest.mark.parametrize(
    ("profile", "without", "to", "port"),
    [
        ("core", (), "otlp", ":4318"),
        ("jaeger-opensearch", (), "opensearch", ":9200"),
        ("jaeger-opensearch", ("opensearch",), "nowhere", ""),
    ],
)
def test_the_shipper_sends_to_the_store_that_is_there(
    tmp_path: Path, profile: str, without: tuple[str, ...], to: str, port: str
) -> None:
    """Each kind of store has offsets of its own; without a store of logs the shipper is told so."""
    argv = layout(tmp_path, profile=profile, without=without).instances["shipper"].argv
    given = dict(zip(argv[3::2], argv[4::2], strict=True))

    assert (given["--to"], given["--url"].removeprefix("http://127.0.0.1")) == (to, port)
    assert given["--offsets"].endswith("offsets-opensearch-1.json" if to == "opensearch" else "offsets.json")
