"""The files of the page: an installed wheel has them all, and none of them names another host or makes HTML of text."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "model/serve/page"
FILES = sorted(path for path in PAGE.iterdir() if path.is_file())
# What turns a string into markup or code. The page makes elements and text nodes alone.
MARKUP = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|createContextualFragment"
INLINE = r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+="


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_names_no_other_host_and_makes_no_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    hosts = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))
    assert [host for host in hosts if host != "http://www.w3.org/2000/svg"] == []
    assert re.findall(MARKUP, text) == []
    if path.suffix == ".html":
        assert (
            re.findall(INLINE, text) == []
        )  # the Content-Security-Policy allows neither scripts nor styles in the page


def test_every_asset_that_is_named_exists() -> None:
    named = {
        name
        for path in FILES
        for name in re.findall(r"[\"'](?:/page|\.)/([\w.-]+)[\"']", path.read_text(encoding="utf-8"))
    }
    assert named
    assert sorted(named - {path.name for path in FILES}) == []


def test_wheel_has_every_file_of_the_page(tmp_path: Path) -> None:
    for name in ("flows", "tasks", "model"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "import setuptools; setuptools.setup(script_args=['-q', 'bdist_wheel', '-d', 'made'])"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("made/*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("model/serve/page/")}
    assert packed == {f"model/serve/page/{path.name}" for path in FILES}
