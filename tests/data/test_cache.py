"""Images are decoded once, whoever asks; what is wrong with one of them is said, and nothing is left half-written."""

import errno
import os
import pickle
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csvi.data.cache as module
from csvi.data.cache import cached_images, cached_masks
from csvi.data.images import read_image
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError


@pytest.fixture
def root(tmp_path):
    """Four 20 x 10 images of one colour each, with masks of one value each."""
    root = tmp_path / "root"
    (root / "masks").mkdir(parents=True)
    for n in range(4):
        Image.new("RGB", (10, 20), (60 * n, 10, 200)).save(root / f"{n}.png")
        Image.new("L", (10, 20), 80 * n).save(root / f"masks/{n}.png")
    return root


@pytest.fixture
def records(root):
    return [ImageRecord(f"{n}.png", n, 1, Modality.VISIBLE, root / f"masks/{n}.png") for n in range(4)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """Files that were decoded, in a list that grows."""
    files = []
    monkeypatch.setattr(module, "read_image", lambda file, *rest: files.append(file) or read_image(file, *rest))
    return files


def both(root, records, folder):
    return cached_images(root, records, 8, 4, folder), cached_masks(root, records, 8, 4, folder)


def test_images_and_masks_in_the_order_of_the_records(root, records, folder):
    images, masks = both(root, records[::-1], folder)
    assert images.shape == (4, 8, 4, 3)
    assert masks.shape == (4, 8, 4)
    assert len(images) == len(masks) == 4
    for i, n in enumerate((3, 2, 1, 0)):
        assert (images[i] == (60 * n, 10, 200)).all()
        assert (masks[i] == 80 * n).all()
    assert np.array_equal(images[-1], images[3])
    for index in (4, -5):
        with pytest.raises(IndexError):
            images[index]


def test_nothing_is_decoded_twice(root, records, folder, decoded):
    first = cached_images(root, records, 8, 4, folder)
    assert sorted(decoded) == [root / f"{n}.png" for n in range(4)]
    second = cached_images(root, records, 8, 4, folder)
    assert len(decoded) == 4
    assert np.array_equal(list(first), list(second))


def test_masks_are_added_to_images_that_are_there(root, records, folder, decoded):
    cached_images(root, records, 8, 4, folder)
    decoded.clear()
    both(root, records, folder)
    assert sorted(decoded) == [root / f"masks/{n}.png" for n in range(4)]
    assert sorted(file.name.split("-")[0] for file in folder.iterdir()) == ["images", "masks"]


def test_a_cache_is_an_array_that_numpy_reads(root, records, folder):
    images, masks = both(root, records, folder)
    for cache in (images, masks):
        assert np.array_equal(np.load(cache.file), list(cache))


def test_no_file_is_mapped(root, records, folder):
    cache = cached_images(root, records, 8, 4, folder)
    cache[0][:] = 1  # one's own
    assert (cache[0] == (0, 10, 200)).all()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(folder) not in maps.read_text()


def test_a_changed_file_is_decoded_again(root, records, folder):
    both(root, records, folder)
    Image.new("RGB", (10, 20), (1, 2, 3)).save(root / "2.png")
    assert (cached_images(root, records, 8, 4, folder)[2] == (1, 2, 3)).all()
    stat = (root / "masks/1.png").stat()
    Image.new("L", (10, 20), 81).save(root / "masks/1.png")  # as long as the one before
    assert (root / "masks/1.png").stat().st_size == stat.st_size
    os.utime(root / "masks/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert (cached_masks(root, records, 8, 4, folder)[1] == 81).all()


def test_masks_are_compared_again_with_an_image_that_changed(root, records, folder):
    both(root, records, folder)
    Image.new("RGB", (11, 20)).save(root / "2.png")
    with pytest.raises(CsviError, match=r"2\.png is of 10x20 pixels and its image .*2\.png of 11x20"):
        cached_masks(root, records, 8, 4, folder)


@pytest.mark.parametrize("change", ["height", "width", "records", "order", "root"])
def test_another_request_has_a_cache_of_its_own(root, records, folder, change, tmp_path):
    first = cached_images(root, records, 8, 4, folder)
    if change == "root":
        shutil.copytree(root, tmp_path / "copy")
        root = tmp_path / "copy"
    second = cached_images(
        root,
        {"records": records[:3], "order": records[::-1]}.get(change, records),
        9 if change == "height" else 8,
        5 if change == "width" else 4,
        folder,
    )
    assert second.file != first.file
    assert first[0][0, 0, 0] == 0
    assert second[0][0, 0, 0] == (180 if change == "order" else 0)


def test_images_do_not_depend_on_masks(root, records, folder):
    bare = [ImageRecord(record.path, record.identity, 1, Modality.VISIBLE) for record in records]
    assert cached_images(root, bare, 8, 4, folder).file == cached_images(root, records, 8, 4, folder).file
    with pytest.raises(CsviError, match=r"3\.png has no mask"):
        cached_masks(root, records[:3] + bare[3:], 8, 4, folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("not an image"),
        lambda file: file.write_bytes(file.read_bytes()[:50]),
        lambda file: file.unlink(),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["empty", "text", "truncated", "missing", "folder"],
)
@pytest.mark.parametrize("name", ["2.png", "masks/2.png"])
def test_an_unreadable_image_is_named_and_leaves_no_cache(root, records, folder, damage, name):
    damage(root / name)
    cached = cached_masks if name.startswith("masks") else cached_images
    with pytest.raises(CsviError, match=f"cannot read the image {root / name}: .") as caught:
        cached(root, records, 8, 4, folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_mask_of_another_size_is_named_and_leaves_no_cache(root, records, folder):
    Image.new("L", (10, 19)).save(root / "masks/3.png")
    with pytest.raises(CsviError, match=r"masks/3\.png is of 10x19 pixels and its image .*3\.png of 10x20"):
        cached_masks(root, records, 8, 4, folder)
    assert list(folder.iterdir()) == []


def test_a_repaired_image_is_all_it_takes_to_go_on(root, records, folder):
    whole = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(whole[:50])
    with pytest.raises(CsviError):
        cached_images(root, records, 8, 4, folder)
    (root / "2.png").write_bytes(whole)
    assert len(cached_images(root, records, 8, 4, folder)) == 4


def test_an_interrupted_fill_leaves_no_cache(root, records, folder, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached_images(root, records, 8, 4, folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written(root, records, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CsviError, match=r"cannot write the image cache in .*file/cache .*--data\.cache"):
        cached_images(root, records, 8, 4, tmp_path / "file" / "cache")


def test_processes_that_fill_the_same_cache_at_once_agree(root, records, folder):
    with ThreadPoolExecutor(8) as pool:
        caches = list(pool.map(lambda _: cached_images(root, records, 8, 4, folder), range(8)))
    assert {cache.file for cache in caches} == set(folder.iterdir())
    assert len({np.stack(list(cache)).tobytes() for cache in caches}) == 1


def test_another_process_may_finish_first(root, records, folder, monkeypatch):
    fill = module._fill

    def slow(partial, *rest):
        monkeypatch.setattr(module, "_fill", fill)
        cached_images(root, records, 8, 4, folder)
        fill(partial, *rest)

    monkeypatch.setattr(module, "_fill", slow)
    cache = cached_images(root, records, 8, 4, folder)
    assert [cache.file] == list(folder.iterdir())
    assert (cache[3] == (180, 10, 200)).all()


def test_a_cache_is_on_the_disk_before_it_has_its_name(root, records, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(file.name for file in folder.iterdir()))
    cache = cached_images(root, records, 8, 4, folder)
    assert re.fullmatch(rf"{cache.file.name}\.[0-9a-f]{{32}}\.part", seen[0])
    assert seen[1:] == [cache.file.name]  # the folder's turn


def test_pickled_cache_opens_the_file_again(root, records, folder):
    cache = cached_images(root, records * 50, 64, 32, folder)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 1000
    assert np.array_equal(list(pickle.loads(pickled)), list(cache))


def test_an_open_cache_may_be_removed(root, records, folder):
    cache = cached_images(root, records, 8, 4, folder)
    cache.file.unlink()
    assert (cache[3] == (180, 10, 200)).all()
    assert (cached_images(root, records, 8, 4, folder)[3] == (180, 10, 200)).all()


@pytest.mark.parametrize("length", [0, 50, 200])
def test_a_damaged_cache_is_named(root, records, folder, length):
    cache = cached_images(root, records, 8, 4, folder)
    os.truncate(cache.file, length)
    with pytest.raises(CsviError, match=f"{cache.file} .*remove it"):
        cached_images(root, records, 8, 4, folder)
    with pytest.raises(CsviError, match=f"{cache.file} ends too early: remove it"):
        cache[3]


def age(file, days):
    os.utime(file, (time.time() - days * 86400,) * 2)


def test_what_is_not_used_for_long_goes_when_the_next_is_written(root, records, folder, caplog):
    old, used, young = (cached_images(root, records[:n], 8, 4, folder).file for n in (1, 2, 3))
    others = [folder / "images.npy", folder / "notes.txt", folder / "images-of-mine.npy"]
    left_behind = folder / f"{old.name}.{'0' * 32}.part"
    for file in (*others, left_behind):
        file.touch()
    for file in (old, used, left_behind, *others):
        age(file, 31)
    age(young, 29)
    cached_images(root, records[:2], 8, 4, folder)  # used: it is young again
    assert old.exists()
    with caplog.at_level("INFO", "csvi"):
        written = cached_images(root, records, 8, 4, folder).file
    assert set(folder.iterdir()) == {used, young, written, *others}
    assert "removed 2 caches not used for 30 days, 0.0 GB" in caplog.text


def test_images_are_resized_smoothly(tmp_path):
    stripes = np.zeros((40, 20), np.uint8)
    stripes[::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 10, 5, "RGB")
    assert image.shape == (10, 5, 3)
    assert abs(image.astype(int) - 100).max() < 15  # antialiased: no stripe survives


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (10, 20), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert (read_image(tmp_path / f"a.{suffix}", 8, 4, "RGB") == 255).all()


def test_a_full_disk_is_an_error_before_pixels_are_written(root, records, folder, decoded, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(CsviError, match="No space left on device"):
        cached_images(root, records, 8, 4, folder)
    assert list(folder.iterdir()) == decoded == []


def test_masks_of_ones_and_zeros_are_refused(root, records, folder):
    for n in range(4):
        Image.new("L", (10, 20), 1).save(root / f"masks/{n}.png")
    with pytest.raises(CsviError, match="write the person as 255"):
        cached_masks(root, records, 8, 4, folder)
    assert list(folder.iterdir()) == []


def test_what_cannot_be_read_may_be_skipped_and_is_never_forgotten(root, records, folder, decoded):
    (root / "1.png").write_text("not an image")
    (root / "2.png").unlink()
    skipping = cached_images(root, records, 8, 4, folder, skip=True)
    assert list(skipping.bad) == [1, 2]
    assert skipping.bad[1] == f"cannot read the image {root / '1.png'}: it is not an image"
    assert (skipping[3] == (180, 10, 200)).all()
    times = len(decoded)
    assert cached_images(root, records, 8, 4, folder, skip=True).bad == skipping.bad
    with pytest.raises(CsviError, match=r"1\.png: it is not an image"):
        cached_images(root, records, 8, 4, folder)
    assert len(decoded) == times
    Image.new("RGB", (10, 20)).save(root / "1.png")
    assert list(cached_images(root, records, 8, 4, folder, skip=True).bad) == [2]


def test_masks_that_cannot_be_read_may_be_skipped(root, records, folder):
    records[0] = replace(records[0], mask=None)
    Image.new("L", (20, 20), 255).save(root / "masks/1.png")
    (root / "masks/2.png").write_bytes(b"")
    bad = cached_masks(root, records, 8, 4, folder, skip=True).bad
    assert list(bad) == [0, 1, 2]
    assert bad[0] == f"the image {root / '0.png'} has no mask"
    assert "must be of one size" in bad[1]
    assert bad[2].endswith("masks/2.png: it is empty")


def test_a_list_without_a_lost_image_has_another_cache(root, records, folder):
    (root / "1.png").unlink()
    assert len(cached_images(root, records, 8, 4, folder, skip=True)) == 4
    assert len(cached_images(root, [*records[:1], *records[2:]], 8, 4, folder)) == 3
