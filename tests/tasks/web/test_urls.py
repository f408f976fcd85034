"""Addresses: hosts taken apart in the right place, equal pages recognised, and bounds that hostile URLs cannot pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.web import urls
from tasks.web.urls import hosts_above, normalise, pages_above, registered_domain, split_address
from tests.support.cost import grows_linearly, peak_bytes


def rules(path):
    """The rules of the Public Suffix List that are for registries and plain: no wildcards, no exceptions."""
    lines = path.read_text(encoding="utf-8").partition("===BEGIN PRIVATE DOMAINS===")[0].splitlines()
    return [line.strip() for line in lines if line and not line.startswith(("//", "*", "!"))]


def test_registered_domain_is_one_label_below_a_public_suffix(shared_data):
    suffixes = rules(shared_data / "url/public_suffix_list.dat")
    right = sum(
        registered_domain(f"a.b.{suffix}") == f"b.{suffix}" and registered_domain(suffix) in ("", suffix)
        for suffix in suffixes
    )
    assert len(suffixes) > 6_000
    assert right / len(suffixes) > 0.98  # the list of the package is of another day


@pytest.mark.parametrize(
    ("host", "registered"),
    [
        ("www.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),  # *.kobe.jp
        ("www.city.kobe.jp", "city.kobe.jp"),  # !city.kobe.jp
        ("me.github.io", "github.io"),  # a private suffix is no registry's
        ("co.uk", ""),
        ("127.0.0.1", ""),
        ("localhost", ""),
        ("", ""),
        ("www.食狮.公司.cn", "食狮.公司.cn"),
        ("www.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
    ],
)
def test_registered_domain_follows_wildcards_exceptions_and_idna(host, registered):
    assert registered_domain(host) == registered


def test_hosts_and_pages_above_list_what_covers_a_page():
    assert list(hosts_above("a.b.example.co.uk")) == ["a.b.example.co.uk", "b.example.co.uk", "example.co.uk"]
    assert list(hosts_above("10.1.2.3")) == ["10.1.2.3"]
    assert list(pages_above("www.x.org", "/A//b/", "Q=1")) == [
        *("www.x.org/a", "www.x.org/a/b", "www.x.org/a/b?q=1"),
        *("x.org/a", "x.org/a/b", "x.org/a/b?q=1"),
    ]
    assert list(pages_above("x.org", "/", "q")) == ["x.org/?q"]
    assert len(list(pages_above("x.org", "/a" * 100_000))) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://example.com/a/", "https://example.com:443/a"),
        ("http://EXAMPLE.com/a?b=1&utm_source=x", "http://example.com/a?b=1#top"),
        ("http://example.com/?fbclid=x", "http://example.com"),
    ],
)
def test_normalise_removes_what_does_not_change_the_page(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize("other", ["http://example.com/A", "http://example.com/a?b", "http://example.com:8080/a"])
def test_normalise_keeps_what_changes_the_page(other):
    assert normalise("http://example.com/a") != normalise(other)


@given(st.text(max_size=60) | st.text("htp:/[]@?#.%:1a", max_size=30))
def test_functions_of_urls_bear_any_string(url):
    parts = split_address(url)
    assert isinstance(normalise(url), str)
    if parts is not None:
        host = parts.hostname or ""
        assert host
        assert next(iter(hosts_above(host))) == host
        list(pages_above(host, parts.path, parts.query))


@pytest.mark.parametrize(
    ("url", "is_split"),
    [
        (f"http://{'a' * 253}/", True),
        (f"http://{'a' * 254}/", False),
        (f"http://{'a.' * 126}com/", False),
        (f"http://{'a.' * 500_000}com/", False),
        (f"http://a.example/{'b' * (8192 - 17)}", True),
        (f"http://a.example/{'b' * (8193 - 17)}", False),
        (f"http://a{chr(0x301) * 300}.example/", False),
        (f"h\ttp:/\n/a{chr(0x301) * 5000}.example/", False),
        (f"http://a.example/{chr(0x301) * 5000}", True),
    ],
    ids=range(9),
)
def test_split_address_refuses_urls_and_hosts_that_are_too_long(url, is_split):
    assert bool(split_address(url)) == is_split
    assert isinstance(normalise(url), str)


def test_registered_domain_of_a_long_host_is_not_kept_in_memory():
    urls._registered_domain.cache_clear()
    assert registered_domain("a." * 1_000_000 + "com") == ""
    assert list(hosts_above("a." * 1_000_000 + "com")) == []
    assert list(pages_above("a." * 1_000_000 + "com", "/b")) == []
    assert urls._registered_domain.cache_info().currsize == 0


HOSTILE = ["a.", "a", "\u0301\u0327", "@", "[", "]", "%", ":", "/", "?", "#", "&utm_a=", "xn--", "中", "."]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("prefix", ["http://", "http://a.example/", "http://a.example/?", ""])
def test_urls_take_time_and_memory_in_proportion_to_their_length(prefix, piece):
    def use_all(url):
        parts = split_address(url)
        normalise(url)
        return parts and sum(
            map(len, [*hosts_above(parts.hostname), *pages_above(parts.hostname, parts.path, parts.query)])
        )

    short, long = (prefix + piece * (num // len(piece)) for num in (50_000, 800_000))
    assert grows_linearly(use_all, short, long, 16)
    assert peak_bytes(use_all, long) < 10_000_000
