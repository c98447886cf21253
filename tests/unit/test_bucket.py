"""What an endpoint URL, the settings and a job's ``s3Config`` say of a bucket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_worker.deadline import Deadline
from comfy_worker.errors import DeliveryFailed, InvalidSettings, InvalidValue, JobTimedOut
from comfy_worker.request.s3_config import parse_s3_config
from comfy_worker.response import job_uploader as uploader_module
from comfy_worker.response.job_uploader import job_uploader
from comfy_worker.s3_location import parse_endpoint
from comfy_worker.settings import Settings

R2 = "0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"
ASKED = {
    "accessId": "AKIA",
    "accessSecret": "s3cret",
    "endpointUrl": "https://s3.example.com",
    "bucketName": "art",
}
BUCKET = parse_s3_config(ASKED)
SET = {
    "BUCKET_ENDPOINT_URL": "https://art.s3.eu-central-1.amazonaws.com",
    "BUCKET_ACCESS_KEY_ID": "AKIA",
    "BUCKET_SECRET_ACCESS_KEY": "s3cret",
}


@pytest.mark.parametrize(
    ("url", "name", "endpoint", "bucket", "virtual", "region"),
    [
        ("https://b.s3.eu-west-1.amazonaws.com", "", "https://s3.eu-west-1.amazonaws.com", "b", True, "eu-west-1"),
        ("https://my.b.s3.amazonaws.com/", "", "https://s3.amazonaws.com", "my.b", True, ""),
        ("https://b.s3.us-west-004.wasabisys.com", "b", "https://s3.us-west-004.wasabisys.com", "b", True,
         "us-west-004"),
        ("https://s3.fr-par.scw.cloud/b", "", "https://s3.fr-par.scw.cloud", "b", False, "fr-par"),
        ("https://s3.fr-par.scw.cloud/b", "b", "https://s3.fr-par.scw.cloud", "b", False, "fr-par"),
        ("https://b.nyc3.digitaloceanspaces.com", "", "https://nyc3.digitaloceanspaces.com", "b", True, "nyc3"),
        ("https://nyc3.digitaloceanspaces.com", "b", "https://nyc3.digitaloceanspaces.com", "b", False, "nyc3"),
        (f"https://b.{R2}", "", f"https://{R2}", "b", True, ""),
        (f"https://{R2}", "b", f"https://{R2}", "b", False, ""),
        ("http://127.0.0.1:9000/b", "", "http://127.0.0.1:9000", "b", False, ""),
        ("https://minio.s3.example.com", "b", "https://minio.s3.example.com", "b", False, ""),
        ("https://x.supabase.co/storage/v1/s3", "b", "https://x.supabase.co/storage/v1/s3", "b", False, ""),
    ],
)  # fmt: skip
def test_a_url_says_service_bucket_and_region(
    url: str, name: str, endpoint: str, bucket: str, virtual: bool, region: str
) -> None:
    found = parse_endpoint(url, name)
    assert found == {
        "endpoint_url": endpoint,
        "name": bucket,
        "virtual_hosted": virtual,
        "region": region,
    }


@pytest.mark.parametrize(
    "url",
    [
        "art",
        "ftp://host/art",
        "https://",
        "https://a b/art",
        "https://s3.example.com",
        "https://host/a/b",
        "http://[::1",
        "http://[v1]x/art",
    ],
)
def test_urls_without_a_bucket_are_reported(url: str) -> None:
    with pytest.raises(ValueError, match=r"should be a URL|does not contain the name of a bucket"):
        parse_endpoint(url, "")


@pytest.mark.parametrize(
    ("url", "name"), [("http://" + "a" * 10**6, "b"), ("https://host", "b" * 10**6)]
)
def test_long_words_are_refused_by_their_length(url: str, name: str) -> None:
    with pytest.raises(ValueError, match="at most 1000 characters") as caught:
        parse_endpoint(url, name)
    assert len(str(caught.value)) < 200


def test_settings_make_a_bucket() -> None:
    bucket = Settings.from_env(
        {**SET, "BUCKET_PREFIX": "/made/", "BUCKET_URL_EXPIRY_S": "60"}
    ).bucket
    assert bucket is not None
    assert (bucket.name, bucket.region, bucket.url_expiry_s) == ("art", "eu-central-1", 60)
    assert bucket.key("job-1", "a.png") == "made/job-1/a.png"
    assert "s3cret" not in repr(bucket)
    assert Settings.from_env({}).bucket is None


@pytest.mark.parametrize("left_out", SET)
def test_storage_that_is_half_configured_stops_the_worker(left_out: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({name: value for name, value in SET.items() if name != left_out})
    assert [detail["setting"] for detail in caught.value.details] == [left_out]
    assert "s3cret" not in str(caught.value.to_result())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"BUCKET_ENDPOINT_URL": "https://s3.example.com"}, "BUCKET_ENDPOINT_URL"),
        ({"BUCKET_URL_EXPIRY_S": "604801"}, "BUCKET_URL_EXPIRY_S"),
        ({"BUCKET_PUBLIC_URL": "cdn.example.com"}, "BUCKET_PUBLIC_URL"),
    ],
)
def test_storage_that_makes_no_sense_stops_the_worker(changed: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidSettings, match=named):
        Settings.from_env({**SET, **changed})


def test_a_prefix_alone_is_no_storage() -> None:
    with pytest.raises(InvalidSettings, match="BUCKET_ENDPOINT_URL"):
        Settings.from_env({"BUCKET_PREFIX": "made"})


def test_a_job_may_bring_its_own() -> None:
    bucket = parse_s3_config(ASKED)
    assert (bucket.endpoint_url, bucket.name, bucket.access_key_id) == (
        "https://s3.example.com",
        "art",
        "AKIA",
    )


@pytest.mark.parametrize(
    "config",
    [
        "art",
        *({**ASKED, key: ""} for key in ASKED),
        {**ASKED, "bucketName": 7},
        {**ASKED, "bucketName": "a b"},
        {**ASKED, "endpointUrl": "x"},
    ],
)
def test_invalid_s3_configs_are_reported(config: Any) -> None:
    with pytest.raises(InvalidValue, match="s3Config"):
        parse_s3_config(config)


@pytest.fixture
def silent_names() -> Iterator[Any]:
    """A name server that never answers."""
    over = threading.Event()

    def resolve(*_: Any, **__: Any) -> list[Any]:
        over.wait(60)
        return []

    yield resolve
    over.set()


def test_silent_name_servers_cannot_outlast_the_job(silent_names: Any) -> None:
    with pytest.raises(JobTimedOut):
        job_uploader(
            BUCKET, allow_private=False, stop=Deadline(timeout_s=0.3), resolve=silent_names
        )


def test_silent_name_servers_are_given_up(
    silent_names: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader_module, "LOOK_UP_LIMIT_S", 0.3)
    with pytest.raises(DeliveryFailed, match=r"no address for s3\.example\.com within 0\.3 s"):
        job_uploader(BUCKET, allow_private=False, resolve=silent_names)


@pytest.mark.parametrize(
    ("addresses", "problem"),
    [
        (["10.0.0.1"], "has an address that is not public"),
        (["93.184.216.34", "127.0.0.1"], "has an address that is not public"),
        ([], "does not exist"),
    ],
)
def test_hosts_without_public_addresses_are_rejected(addresses: list[str], problem: str) -> None:
    def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    with pytest.raises(InvalidValue, match=problem):
        job_uploader(BUCKET, allow_private=False, resolve=resolve)
