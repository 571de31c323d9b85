from __future__ import annotations

import os
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from image_tree import write_image, write_tree
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from orthocond.data import load_data
from orthocond.data.folder import MAX_PIXELS, list_folder, open_image, read_images
from orthocond.errors import UserError


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "images", ("b", "a", "c"))


def test_files_are_sorted_and_labelled_by_class_name(tree):
    (tree / "train" / "a" / "notes.txt").write_text("no image")
    (tree / "train" / ".cache").mkdir()
    classes, train, test = list_folder(tree, None)
    assert classes == ["a", "b", "c"]
    assert [(path.parent.name, label) for path, label in train[::4]] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
    ]
    assert len(train) == len(test) == 12 and train[0][0].name == "0.png"
    assert list_folder(tree, 2)[0] == ["a", "b"]


def test_images_in_nested_folders_belong_to_their_class(tree):
    flat = list_folder(tree, None)[1]
    (tree / "train" / "b" / "more").mkdir()
    shutil.copy(tree / "train" / "b" / "0.png", tree / "train" / "b" / "more" / "9.png")
    nested = list_folder(tree, None)[1]
    assert [s for s in nested if s[0].parent.name != "more"] == flat
    assert [label for path, label in nested if path.parent.name == "more"] == [1]


def test_links_are_followed_but_not_in_a_circle(tree, tmp_path):
    flat = list_folder(tree, None)[1]
    (tmp_path / "more").mkdir()
    (tree / "train" / "b" / "0.png").rename(tmp_path / "more" / "0.png")
    (tree / "train" / "b" / "linked").symlink_to(tmp_path / "more")
    linked = list_folder(tree, None)[1]
    assert len(linked) == len(flat) and [k for _, k in linked] == [k for _, k in flat]
    for target in (".", "..", tree):
        (tree / "val" / "c" / "loop").symlink_to(target)
        with pytest.raises(UserError, match=r"/val/c/loop' is a link to a folder that contains it"):
            list_folder(tree, None)
        (tree / "val" / "c" / "loop").unlink()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png': it is not a regular file$"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_without_images_is_refused(tree, part):
    for path in (tree / part / "b").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=rf"^there are no images in '.*{part}/b': allowed are"):
        list_folder(tree, None)


@pytest.mark.parametrize(("kind", "name"), [("uint16", "a.png"), ("float32", "a.tiff")])
def test_values_of_more_than_8_bits_are_refused(tmp_path, kind, name):
    Image.fromarray(np.full((16, 16), 1000, kind)).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}' has more than 8 bits .*: convert it to 8 bits$"):
        open_image(tmp_path / name)


def test_pixels_equal_those_of_the_files(tree):
    data = load_data(f"folder:{tree}")
    expected = np.asarray(Image.open(tree / "val" / "b" / "2.png"))
    assert torch.equal(
        data.evaluation.images[6].permute(1, 2, 0), torch.from_numpy(expected.copy())
    )
    assert data.name == "images" and data.size == 16 and data.evaluation.labels[6] == 1


def test_a_folder_test_is_used_where_there_is_no_folder_val(tree):
    (tree / "val").rename(tree / "test")
    assert load_data(f"folder:{tree}").eval_count == 12


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_are_read_as_three_channels(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    write_image(path, mode=mode)
    assert read_images([(path, 0)], None).images.shape == (1, 3, 16, 16)


def test_the_middle_square_is_scaled(tmp_path):
    wide = Image.new("RGB", (48, 16))
    wide.paste((200, 100, 50), (14, 0, 34, 16))  # the square, and as far as the filter reads
    wide.save(tmp_path / "wide.png")
    images = read_images([(tmp_path / "wide.png", 0)], 8).images
    assert torch.equal(images, torch.tensor([200, 100, 50]).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"wide.png' is 48 x 16, not square: set data.size$"):
        read_images([(tmp_path / "wide.png", 0)], None)


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tree, tmp_path):
    first = load_data(f"folder:{tree}").fingerprint
    shutil.copytree(tree, tmp_path / "copy" / "images")
    assert load_data(f"folder:{tmp_path / 'copy' / 'images'}").fingerprint == first
    shutil.copy(tree / "train" / "a" / "0.png", tree / "train" / "a" / "1.png")
    assert load_data(f"folder:{tree}").fingerprint != first


def spoil(tree, how):
    if how == "no val":
        shutil.rmtree(tree / "val")
    elif how == "no train":
        shutil.rmtree(tree / "train")
    elif how == "another class":
        (tree / "val" / "c").rename(tree / "val" / "d")
    elif how == "one class":
        for part in ("train", "val"):
            shutil.rmtree(tree / part / "b")
            shutil.rmtree(tree / part / "c")
    elif how == "no classes":
        for part in ("train", "val"):
            shutil.rmtree(tree / part)
            (tree / part).mkdir()
    elif how == "no images":
        for path in (tree / "val").rglob("*.png"):
            path.unlink()
    elif how == "truncated":
        write_image(tree / "train" / "b" / "x.jpg", 64)
        data = (tree / "train" / "b" / "x.jpg").read_bytes()
        (tree / "train" / "b" / "x.jpg").write_bytes(data[: len(data) // 2])
    elif how == "text":
        (tree / "train" / "b" / "x.png").write_text("no image")
    elif how == "empty":
        (tree / "train" / "b" / "x.png").touch()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no val", r"needs train/, and val/ or test/ beside it"),
        ("no train", r"needs train/, and val/ or test/ beside it"),
        ("another class", r"^train/ and val/ of image folder .* only one of them has 'c'$"),
        ("one class", r"has 1 classes: at least 2 are needed"),
        ("no classes", r"has 0 classes: at least 2 are needed"),
        ("no images", r"there are no images in '.*val': allowed are \.jpg, "),
        ("truncated", r"cannot read image '.*train/b/x\.jpg': image file is truncated"),
        ("text", r"cannot read image '.*train/b/x\.png': cannot identify"),
        ("empty", r"cannot read image '.*train/b/x\.png': cannot identify"),
    ],
)
def test_a_bad_folder_tree_is_reported_in_one_line(tree, how, message):
    spoil(tree, how)
    with pytest.raises(UserError, match=message) as error:
        load_data(f"folder:{tree}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P6\n8 x\n255\n", "invalid literal"),
        (b"P3\n1 1\n255\n1 2 999\n", "Channel value too large"),
        (b"P6\n8", "Reached EOF"),
    ],
)
def test_a_damaged_header_is_reported_in_one_line(tmp_path, data, reason):
    (tmp_path / "a.ppm").write_bytes(data)
    with pytest.raises(UserError, match=rf"^cannot read image '.*a\.ppm': .*{reason}"):
        open_image(tmp_path / "a.ppm")


def test_an_image_with_too_long_a_text_is_refused(tmp_path):
    text = PngInfo()
    text.add_text("comment", "x" * (2 << 20), zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(UserError, match=r"a\.png': Decompressed data too large"):
        open_image(tmp_path / "a.png")


def test_postscript_under_the_name_of_an_image_is_not_run(tmp_path, monkeypatch):
    """Pillow runs the program gs of the path on such a file."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what an earlier search has found
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(UserError, match=r"a\.png' is a PostScript program, and was not run"):
        open_image(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (MAX_PIXELS + 1, 1)])
def test_an_image_that_claims_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path, width, height
):
    """Refuse an image that would be 7.5 GB when decoded (50,000 x 50,000 RGB)."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    tracemalloc.start()
    try:
        with pytest.raises(
            UserError, match=r"bomb\.png'.*(allowed|exceeds limit|could be)"
        ) as error:
            open_image(tmp_path / "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
