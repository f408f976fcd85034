"""What could go wrong with addresses: a host taken apart in the wrong place, one page taken for two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.web.urls import hosts_above, normalise, pages_above, registered_domain, split_address


def rules(path):
    """The rules of the Public Suffix List that are for registries and plain: no wildcards, no exceptions."""
    lines = path.read_text(encoding="utf-8").partition("===BEGIN PRIVATE DOMAINS===")[0].splitlines()
    return [line.strip() for line in lines if line and not line.startswith(("//", "*", "!"))]


def test_what_is_registered_is_one_label_below_a_public_suffix(shared_data):
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
def test_registered_domains(host, registered):
    assert registered_domain(host) == registered


def test_hosts_and_pages_above():
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
def test_what_does_not_change_the_page_is_left_out(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize("other", ["http://example.com/A", "http://example.com/a?b", "http://example.com:8080/a"])
def test_what_changes_the_page_stays(other):
    assert normalise("http://example.com/a") != normalise(other)


@given(st.text(max_size=60) | st.text("htp:/[]@?#.%:1a", max_size=30))
def test_no_address_is_too_bad_to_be_split(url):
    parts = split_address(url)
    assert isinstance(normalise(url), str)
    if parts is not None:
        host = parts.hostname or ""
        assert host
        assert next(iter(hosts_above(host))) == host
        list(pages_above(host, parts.path, parts.query))
