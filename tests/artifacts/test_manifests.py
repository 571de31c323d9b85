from __future__ import annotations

import pytest

from orthocond.artifacts.atomic_files import canonical_json
from orthocond.artifacts.manifests import (
    MANIFEST,
    Damage,
    parse_hashed,
    read_sealed,
    seal,
    with_hash,
)

ABOUT = {"run": "a", "step": 3}
FILES = {"x.csv": b"1,2\n", "y.json": b"{}\n"}
LIMITS = {"x.csv": 100, "y.json": None}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / MANIFEST).write_bytes(seal(ABOUT, FILES))
    return tmp_path


def damage(folder, about=ABOUT):
    with pytest.raises(Damage) as caught:
        read_sealed(folder, about, LIMITS)
    return caught.value


def test_a_folder_with_a_valid_manifest_is_read(folder):
    manifest, files = read_sealed(folder, ABOUT, LIMITS)
    assert files == FILES
    assert manifest["run"] == "a"


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_flipped_bit_and_every_truncation_is_named(folder, name):
    path = folder / name
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert damage(folder).file == name
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert damage(folder).file == name
    path.write_bytes(data + b"\n")
    assert damage(folder).file == name
    path.unlink()
    assert str(damage(folder)) == f"{name} is missing"


@pytest.mark.parametrize("about", [{"run": "b", "step": 3}, {"run": "a", "step": 4}])
def test_a_manifest_of_another_kind_is_refused(folder, about):
    assert damage(folder, about).file == MANIFEST


@pytest.mark.parametrize("name", ["../x.csv", "/etc/passwd", "x.csv\n", "", "z.csv"])
def test_names_that_the_program_does_not_know_are_never_opened(folder, name):
    (folder / MANIFEST).write_bytes(seal(ABOUT, {"x.csv": FILES["x.csv"], name: b""}))
    assert str(damage(folder)) == f"{MANIFEST} does not name exactly the files x.csv, y.json"


@pytest.mark.parametrize("files", [None, [], "x.csv", {"x.csv": None, "y.json": None}])
def test_a_manifest_of_another_shape_is_refused(folder, files):
    (folder / MANIFEST).write_bytes(with_hash({**ABOUT, "files": files}, "sha256"))
    damage(folder)


def test_links_and_large_files_are_refused(folder):
    (folder / "x.csv").rename(folder / "elsewhere")
    (folder / "x.csv").symlink_to("elsewhere")
    assert str(damage(folder)) == "x.csv can't be read: is a link where a file is expected"
    (folder / "x.csv").unlink()
    with (folder / "x.csv").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file of 1 TiB
    assert str(damage(folder)) == "x.csv can't be read: is larger than 100 bytes"


@pytest.mark.parametrize(
    "data", [b"", b"[1]\n", b"[" * 50_000, b'{"a": ' * 400 + b"1" + b"}" * 400, canonical_json({})]
)
def test_a_manifest_without_its_own_hash_is_refused(data):
    with pytest.raises(ValueError, match=r"^(is|does) not|^is nested too deeply"):
        parse_hashed(data, "hash")


def test_the_same_value_in_another_form_is_refused():
    data = with_hash({"a": 1}, "hash")
    assert parse_hashed(data, "hash")["a"] == 1
    for other in (data.replace(b"  ", b" "), data + b" ", data.replace(b": 1", b": 1.0")):
        with pytest.raises(ValueError, match=r"^does not match the hash in it$"):
            parse_hashed(other, "hash")
