"""A store that others write to: names that lead out of it, and manifests and pointers that are not what they should be.

Each is refused with one line, and nothing outside the store is read, written or deleted.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import UserError
from tasks.artifacts import store as store_module
from tasks.artifacts.files import Hashes
from tasks.artifacts.manifest import MANIFEST, Artifact, FileRecord, Manifest, check_path
from tasks.artifacts.remote import object_key
from tasks.artifacts.store import DamagedArtifact, Store

ID = "one/0123456789abcdef"
TEXT = b"inside"
SHA256 = "0" * 64  # of a file that is never read

BAD_NAMES = {
    "empty": "",
    "dot": ".",
    "parent": "..",
    "two levels up": "../../x",
    "up from inside": "a/../../../x",
    "absolute": "/tmp/x",
    "doubled slash": "a//b",
    "slash at the end": "a/",
    "dot inside": "a/./b",
    "Windows drive": "C:\\x",
    "Windows drive with slashes": "C:/x",
    "Windows drive without a slash": "C:x",
    "Windows parent": "..\\..\\x",
    "Windows share": "\\\\host\\share",
    "NUL": "a\0b",
    "line end": "a\nb",
    "escape": "a\x1b[2Jb",
    "too long": "x" * 256,
    "too long in bytes": "語" * 86,
    "escape in one byte": "a\x9b2Jb",
    "line end of Unicode": "a\u2028b",
    "lone surrogate": "a\ud800",
}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder next to the store, which has to stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "x").write_bytes(TEXT)
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"x": TEXT}
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", "store", "cache", "remote"}


def finished(root: Path, **changes: object) -> dict[str, object]:
    """Write an artifact of one file under `root`; `changes` are made to its manifest."""
    folder = root / ID
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").write_bytes(TEXT)
    values = {
        "kind": "Documents",
        "stage": "one",
        "stage_version": 1,
        "fingerprint": ID.partition("/")[2],
        "inputs": {},
        "input_digests": {},
        "config": {},
        "files": [record("text", folder / "text")],
        "counts": {},
        "metrics": {},
        "provenance": {},
        **changes,
    }
    (folder / MANIFEST).write_text(json.dumps(values))
    return values


def record(path: str, of: Path | None = None) -> dict[str, object]:
    sha256 = Hashes(Path("/nonexistent")).of(of) if of else SHA256
    return {"path": path, "bytes": len(TEXT), "sha256": sha256}


def refused(error: pytest.ExceptionInfo[UserError]) -> str:
    """The message of an error, which must be one line of a readable length."""
    message = str(error.value)
    assert message
    assert message.isprintable()
    assert len(message) < 600
    return message


def test_the_undamaged_artifact_of_these_tests_opens(store: Store) -> None:
    finished(store.root)
    assert store.open(ID, Artifact).files("text") == [store.root / ID / "text"]


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_manifest_whose_file_leads_out_is_refused(store: Store, outside: Path, name: str) -> None:
    finished(store.root, files=[record(name)])
    with pytest.raises(DamagedArtifact, match=r"is not a manifest \((files\.0\.path|.* end of hex escape)") as error:
        store.open(ID, Artifact)
    assert "run its stage again" in refused(error)


@pytest.mark.parametrize("name", ["manifest.json", ".state/x", "lease", ".lease.1/x"])
def test_a_manifest_that_lists_the_store_s_own_files_is_refused(store: Store, name: str) -> None:
    finished(store.root, files=[record(name)])
    with pytest.raises(DamagedArtifact, match="that the store needs for itself") as error:
        store.open(ID, Artifact)
    refused(error)


@pytest.mark.parametrize("template", ["{}", "{}/0123", "one/{}"])
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_an_artifact_id_that_leads_out_is_refused(store: Store, outside: Path, template: str, name: str) -> None:
    artifact_id = template.format(name)
    for use in (store.folder, store.find, store.discard, store.prepare, lambda given: store.open(given, Artifact)):
        with pytest.raises(UserError) as error:
            use(artifact_id)
        refused(error)
    assert not store.root.exists()


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_latest_pointer_that_leads_out_is_refused(store: Store, outside: Path, name: str) -> None:
    pointer = store.root / "recipes" / "tiny" / "one"
    pointer.parent.mkdir(parents=True)
    pointer.write_bytes(name.encode(errors="surrogatepass"))
    with pytest.raises(DamagedArtifact, match="does not hold a fingerprint: delete it") as error:
        store.latest("tiny", "one")
    refused(error)


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_recipe_or_stage_name_that_leads_out_is_refused(store: Store, outside: Path, name: str) -> None:
    manifest = Manifest.model_validate(finished(store.root))
    for use in (
        lambda: store.latest(name, "one"),
        lambda: store.latest("tiny", name),
        lambda: store.set_latest(name, manifest),
    ):
        with pytest.raises(UserError) as error:
            use()
        refused(error)
    assert not store.has_recipe(name)
    assert not (store.root / "recipes").exists()


def test_a_pointer_that_is_a_huge_file_is_refused(store: Store) -> None:
    pointer = store.root / "recipes" / "tiny" / "one"
    pointer.parent.mkdir(parents=True)
    with pointer.open("wb") as stream:
        stream.truncate(2**33)
    with pytest.raises(DamagedArtifact) as error:
        store.latest("tiny", "one")
    refused(error)


@pytest.mark.parametrize("which", ["stage", "artifact", "file", "folder", "manifest", "recipe", "pointer"])
def test_a_link_that_leads_out_is_refused(store: Store, outside: Path, which: str) -> None:
    (store.root / "one").mkdir(parents=True)
    link, target = {
        "stage": (store.root / "one", outside),
        "artifact": (store.root / ID, outside),
        "file": (store.root / ID / "text", outside / "x"),
        "folder": (store.root / ID / "documents", outside),
        "manifest": (store.root / ID / MANIFEST, outside / "x"),
        "recipe": (store.root / "recipes" / "tiny", outside),
        "pointer": (store.root / "recipes" / "tiny" / "x", outside / "x"),
    }[which]
    if which in ("file", "folder", "manifest"):
        of = {"folder": [record("documents/x", outside / "x")]}.get(which)
        finished(store.root, **({"files": of} if of else {}))
        link.unlink(missing_ok=True)
    elif which == "stage":
        link.rmdir()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    uses = (lambda: store.latest("tiny", "x"),)
    if which not in ("recipe", "pointer"):
        uses = (lambda: store.open(ID, Artifact), lambda: store.prepare(ID))
    for use in uses:
        with pytest.raises(DamagedArtifact, match=r"delete (it|/)") as error:
            use()
        refused(error)


@pytest.mark.parametrize("which", ["file", "folder"])
def test_discard_deletes_a_link_and_not_what_it_leads_to(store: Store, outside: Path, which: str) -> None:
    finished(store.root)
    (store.root / ID / "link").symlink_to(outside / "x" if which == "file" else outside)
    store.discard(ID)
    assert not list((store.root / ID).iterdir())


def test_discard_of_an_artifact_that_is_a_link_is_refused(store: Store, outside: Path) -> None:
    (store.root / "one").mkdir(parents=True)
    (store.root / ID).symlink_to(outside)
    with pytest.raises(DamagedArtifact):
        store.discard(ID)


def test_links_that_form_a_circle_are_refused(store: Store) -> None:
    finished(store.root)
    text = store.root / ID / "text"
    text.unlink()
    text.symlink_to(text)
    with pytest.raises(DamagedArtifact) as error:
        store.open(ID, Artifact)
    refused(error)


def test_a_named_pipe_in_place_of_a_file_is_refused_and_not_waited_for(store: Store) -> None:
    finished(store.root)
    for name, use in (("text", lambda: store.open(ID, Artifact)), (MANIFEST, lambda: store.find(ID))):
        (store.root / ID / name).unlink()
        os.mkfifo(store.root / ID / name)
        with pytest.raises(DamagedArtifact, match="regular file") as error:
            use()
        refused(error)


@pytest.mark.parametrize(
    "changes", [{"stage": "two"}, {"fingerprint": "fedcba9876543210"}], ids=["stage", "fingerprint"]
)
def test_the_manifest_of_another_artifact_is_refused(store: Store, changes: dict[str, object]) -> None:
    finished(store.root, **changes)
    with pytest.raises(DamagedArtifact, match=f"is the manifest of .*, not of {ID}") as error:
        store.find(ID)
    refused(error)


MALFORMED = {
    "empty": b"",
    "cut": b'{"kind": "Documents", "stage"',
    "not JSON": b"\x00\xff\xfe",
    "not UTF-8": '{"kind": "é"}'.encode("latin-1"),
    "null": b"null",
    "a list": b"[1, 2]",
    "a number": b"1e999",
    "no fields": b"{}",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"config": ' + b'{"a": ' * 100_000,
    "a long number": b'{"stage_version": ' + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_manifest_is_refused(store: Store, content: bytes) -> None:
    (store.root / ID).mkdir(parents=True)
    (store.root / ID / MANIFEST).write_bytes(content)
    with pytest.raises(DamagedArtifact, match=r"is not a manifest .*run its stage again") as error:
        store.find(ID)
    refused(error)


@pytest.mark.parametrize(
    "files",
    [
        [record("a"), record("a")],
        [record("a"), record("a/b")],
        [{**record("a"), "bytes": -1}],
        [{**record("a"), "sha256": "../../x"}],
        [{**record("a"), "bytes": 1.5}],
        [{"path": "a"}],
        "text",
    ],
    ids=["a file twice", "a file and a folder", "negative size", "no sha256", "half a byte", "no size", "no list"],
)
def test_a_manifest_with_impossible_files_is_refused(store: Store, files: object) -> None:
    finished(store.root, files=files)
    with pytest.raises(DamagedArtifact, match=r"is not a manifest \(files") as error:
        store.find(ID)
    refused(error)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2Jb", "a" * 100_000], ids=["line end", "escape", "long"])
@pytest.mark.parametrize("field", ["kind", "role", "input", "count"])
def test_a_manifest_s_text_reaches_no_terminal_unchecked(store: Store, field: str, text: str) -> None:
    changes = {
        "kind": {"kind": text},
        "role": {"inputs": {text: "../x"}},
        "input": {"inputs": {"documents": text}},
        "count": {"counts": {text: "many"}},
    }[field]
    finished(store.root, **changes)
    with pytest.raises(DamagedArtifact) as error:
        store.find(ID)
    refused(error)


def test_a_huge_manifest_is_refused_without_being_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(store.root)
    with (store.root / ID / MANIFEST).open("r+b") as stream:
        stream.truncate(store_module.MAX_MANIFEST_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(DamagedArtifact, match="has 268435457 bytes") as error:
        store.find(ID)
    refused(error)


def test_manifests_leaves_out_a_damaged_one_with_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    finished(store.root)
    (store.root / "two" / "00").mkdir(parents=True)
    (store.root / "two" / "00" / MANIFEST).write_text("{")
    assert [manifest.id for manifest in store.manifests()] == [ID]
    assert "two/00/manifest.json is not a manifest" in caplog.text


def uploaded(root: Path, **changes: object) -> Path:
    """Write an artifact of one file as a remote store has it. Returns the path of the file's object."""
    (values,) = [finished(root, **changes)]
    (file,) = [FileRecord.model_validate(file) for file in values["files"]]  # type: ignore[attr-defined]
    path = root / object_key(ID, file)
    path.parent.mkdir(exist_ok=True)
    (root / ID / "text").unlink()
    path.write_bytes(TEXT)
    return path


class TestRemoteStore:
    """The same of a store at a URL, whose files are copied to this machine."""

    @pytest.fixture
    def remote(self, tmp_path: Path) -> Store:
        return Store(f"file://{tmp_path}/remote", tmp_path / "cache")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return tmp_path / "remote"

    def test_a_good_artifact_is_copied(self, remote: Store, source: Path) -> None:
        uploaded(source)
        assert remote.open(ID, Artifact).files("text")[0].read_bytes() == TEXT

    @pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
    def test_a_manifest_whose_file_leads_out_copies_nothing(
        self, remote: Store, source: Path, outside: Path, name: str
    ) -> None:
        finished(source, files=[record(name)])
        with pytest.raises(DamagedArtifact) as error:
            remote.open(ID, Artifact)
        refused(error)
        assert {path.name for path in (remote.root / ID).iterdir()} <= {MANIFEST, ".lease.readers"}

    def test_a_link_in_the_copies_is_not_written_through(self, remote: Store, source: Path, outside: Path) -> None:
        uploaded(source, files=[record("documents/y", outside / "x")])
        (remote.root / ID).mkdir(parents=True)
        (remote.root / ID / "documents").symlink_to(outside)
        with pytest.raises(DamagedArtifact, match="link that leads out") as error:
            remote.open(ID, Artifact)
        refused(error)

    def test_a_file_larger_than_its_record_is_not_copied(self, remote: Store, source: Path) -> None:
        uploaded(source).write_bytes(TEXT * 1000)
        with pytest.raises(DamagedArtifact, match="has 6000 bytes, where 6 are the most") as error:
            remote.open(ID, Artifact)
        refused(error)
        assert not (remote.root / ID / "text").exists()

    def test_a_file_that_differs_from_its_record_is_refused(self, remote: Store, source: Path) -> None:
        uploaded(source).write_bytes(TEXT.swapcase())
        with pytest.raises(DamagedArtifact, match="sha256 differs") as error:
            remote.open(ID, Artifact)
        refused(error)

    def test_a_file_that_is_not_there_is_named(self, remote: Store, source: Path) -> None:
        uploaded(source).unlink()
        with pytest.raises(DamagedArtifact, match=f"{ID}/text-[0-9a-f]{{16}} was deleted.*--force one") as error:
            remote.open(ID, Artifact)
        refused(error)

    @pytest.mark.parametrize("name", ["../../x", "/tmp/x", "", "a\0b", "x" * 2000])
    def test_a_pointer_that_leads_out_is_refused(self, remote: Store, source: Path, outside: Path, name: str) -> None:
        (source / "recipes" / "tiny").mkdir(parents=True)
        (source / "recipes" / "tiny" / "one").write_text(name)
        with pytest.raises(DamagedArtifact) as error:
            remote.latest("tiny", "one")
        refused(error)

    @pytest.mark.parametrize("artifact_id", ["../../outside", "one/..", "/outside/x", "..", "one/../../outside"])
    def test_discard_of_an_id_that_leads_out_is_refused(
        self, remote: Store, source: Path, outside: Path, artifact_id: str
    ) -> None:
        with pytest.raises(UserError) as error:
            remote.discard(artifact_id)
        refused(error)

    def test_a_store_s_password_is_in_no_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (fsspec.filesystem("memory"), "/elsewhere"))
        store = Store("https://user:PASSWORD@host/store", tmp_path / "cache")
        for use in (lambda: store.open(ID, Artifact), lambda: store.latest("tiny", "one")):
            with pytest.raises(UserError, match="https://host/store") as error:
                use()
            assert "PASSWORD" not in refused(error)


PIECES = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "a", "C:", "\0", "~", "\n", "é", "manifest.json", " ", "\u2028", "lease"])
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@given(PIECES)
def test_check_path_accepts_only_paths_inside(path: str) -> None:
    try:
        accepted = check_path(path)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    root = "/store/one/0123"
    assert os.path.normpath(f"{root}/{accepted}") == f"{root}/{accepted}"
    assert not Path(accepted).is_absolute()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES)
def test_no_id_makes_the_store_leave_its_folder(tmp_path: Path, artifact_id: str) -> None:
    store = Store(str(tmp_path / "store"))
    with suppress(UserError):
        assert store.folder(artifact_id).resolve().parent.parent == store.root.resolve()
    with suppress(UserError):
        store.discard(artifact_id)
        store.find(artifact_id)
    assert not list(tmp_path.iterdir())


@given(st.builds(dict, path=PIECES, bytes=st.integers(), sha256=st.text(max_size=64)))
def test_a_file_record_of_any_values_is_valid_or_a_value_error(values: dict[str, object]) -> None:
    with suppress(ValueError):
        assert FileRecord.model_validate(values).bytes >= 0


def test_a_manifest_without_the_input_that_is_asked_for_is_one_line() -> None:
    manifest = Manifest(
        kind="SFTModel",
        stage="sft",
        stage_version=1,
        fingerprint="0123456789abcdef",
        inputs={"base": ID},
        input_digests={},
        config={},
        files=[],
        counts={},
        metrics={},
        provenance={},
    )
    assert manifest.input("base") == ID
    with pytest.raises(UserError, match="sft/0123456789abcdef names no tokenizer") as error:
        manifest.input("tokenizer")
    assert "\n" not in str(error.value) and "--force" in str(error.value)
