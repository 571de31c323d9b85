from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthocond.artifacts.atomic_files import (
    DiskError,
    canonical_json,
    make_folder,
    parse_json,
    read_bytes,
    remove_folder,
    remove_parts,
    require_writable,
    safe_name,
    sha256,
    write_bytes,
    write_folder,
)
from orthocond.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_canonical_json_keeps_every_value_and_is_one_form(value):
    data = canonical_json(value)
    assert parse_json(data) == value
    assert canonical_json(parse_json(data)) == data


def test_canonical_json_does_not_see_the_order_of_keys_or_how_a_number_is_spelled():
    assert canonical_json({"b": 2.0, "a": (1,)}) == canonical_json({"a": [1.0], "b": 2})
    assert canonical_json(1.5) != canonical_json(1)
    assert canonical_json(True) != canonical_json(1)


def test_numbers_that_are_not_finite_survive():
    back = parse_json(canonical_json([math.inf, -math.inf, math.nan]))
    assert back[:2] == [math.inf, -math.inf] and math.isnan(back[2])


def test_sha256_is_the_known_one():
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"abc") == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
        (b"9" * 100_000, "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"", "is not valid JSON"),
    ],
    ids=["lists", "objects", "digits", "truncated", "encoding", "empty"],
)
def test_absurd_json_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(data)


def test_a_file_is_read_up_to_the_limit(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("123456")
    with pytest.raises(OSError, match="is larger than 5 bytes"):
        read_bytes(path, limit=5)
    assert read_bytes(path, limit=6) == b"123456"


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "target").write_text("secret")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")  # to open one naively would wait for ever
    with pytest.raises(OSError, match="is a link where a file is expected"):
        read_bytes(tmp_path / "link")
    with pytest.raises(OSError, match="is not a regular file"):
        read_bytes(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"directory|regular"):
        read_bytes(tmp_path)


def test_write_bytes_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.csv"
    for data in (b"first", b"", b"second" * 100_000):
        write_bytes(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / "a").symlink_to(outside)
    write_bytes(tmp_path / "a", b"new")
    assert outside.read_text() == "kept" and not (tmp_path / "a").is_symlink()


def test_a_part_that_is_a_link_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / f".a.{os.getpid()}.part").symlink_to(outside)
    with pytest.raises(UserError, match=r"^cannot write"):
        write_bytes(tmp_path / "a", b"new")
    assert outside.read_text() == "kept"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    write_bytes(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [(errno.ENOSPC, DiskError, 1), (errno.EDQUOT, DiskError, 1), (errno.EACCES, UserError, 2)],
)
def test_an_error_names_the_path_and_tells_a_full_disk_from_wrong_usage(
    tmp_path, monkeypatch, code, kind, exit_code
):
    def refuse(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=r"^cannot write '.*a': \w.*$") as caught:
        write_bytes(tmp_path / "a", b"")
    assert type(caught.value) is kind
    assert getattr(caught.value, "exit_code", 2) == exit_code
    assert os.listdir(tmp_path) == []


def test_write_folder_makes_it_whole_and_never_over_another(tmp_path):
    path = tmp_path / "f"
    write_folder(path, {"a": b"1", "b": b"2"})
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {"a": b"1", "b": b"2"}
    with pytest.raises(UserError, match=r"^cannot write .*not empty"):
        write_folder(path, {"a": b"3"})
    assert (path / "a").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["f"]


def test_make_folder_makes_those_above_and_says_what_is_in_the_way(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write '.*file.*': (Not a directory|File exists)"):
        make_folder(tmp_path / "file" / "below")


def test_removing_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    write_folder(outside, {"a": b"kept"})
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / ".x.1.part").symlink_to(outside)
    (inside / ".y.1.part").mkdir()
    (inside / ".y.1.part" / "half").touch()
    (inside / ".z.1.part").touch()
    (inside / "kept").touch()
    (inside / "5").symlink_to(outside)
    remove_parts(inside)
    remove_folder(inside / "5")
    assert os.listdir(inside) == ["kept"]
    assert (outside / "a").read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "/a", "a\n", "a b", "-a", "ä", "a" * 101])
def test_names_that_point_outside_the_folder_are_refused(name):
    with pytest.raises(UserError, match=r"^data '.*' can't be part of a folder's name") as caught:
        safe_name("data", name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [".", "", "/", ".."])
@pytest.mark.parametrize("write", [require_writable, lambda path: write_bytes(path, b"")])
def test_a_path_without_a_name_cannot_be_written(tmp_path, monkeypatch, name, write):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(UserError, match=r"^cannot write '(\.|/|\.\.)': \w"):
        write(Path(name))
    assert not list(tmp_path.rglob("*.part"))


def test_only_a_regular_file_is_given_up_for_results(tmp_path):
    """Refuse what writing would replace by a file, such as /dev/stdout."""
    (tmp_path / "file").write_text("old")
    require_writable(tmp_path / "file")
    require_writable(tmp_path / "new" / "file")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe"):
        with pytest.raises(UserError, match=rf"write '.*{name}': is there already, and is not a"):
            require_writable(tmp_path / name)
    assert (tmp_path / "file").read_text() == "old"


def test_nothing_is_created_with_other_rights_than_the_umask_gives(tmp_path: Path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
