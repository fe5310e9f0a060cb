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
from csvi.config import DataConfig
from csvi.data.cache import EMPTY, cached_images, cached_masks
from csvi.data.images import BadImage, TroubleReading, read_image
from csvi.data.masks import Mask
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError


@pytest.fixture
def root(tmp_path):
    """Four 20 x 10 images of one colour each, with masks of a band in the middle, of 4 to 16 rows."""
    root = tmp_path / "root"
    (root / "masks").mkdir(parents=True)
    for n in range(4):
        Image.new("RGB", (10, 20), (60 * n, 10, 200)).save(root / f"{n}.png")
        put_mask(root / f"masks/{n}.png", 4 + 4 * n)
    return root


def put_mask(file, rows):
    mask = np.zeros((20, 10), np.uint8)
    mask[10 - rows // 2 : 10 + rows // 2] = 255
    Image.fromarray(mask).save(file, compress_level=0)  # all of one length


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
    monkeypatch.setattr(module, "Mask", lambda file: files.append(file) or Mask(file))
    return files


def at(folder, height=8, width=4, **settings):
    """Settings of a cache of tiny images."""
    data = DataConfig(cache=str(folder), **settings)
    data.height, data.width = height, width
    return data


def both(root, records, folder):
    return cached_images(root, records, at(folder)), cached_masks(root, records, at(folder))


def test_images_and_masks_in_the_order_of_the_records(root, records, folder):
    images, masks = both(root, records[::-1], folder)
    assert images.shape == (4, 8, 4, 3)
    assert masks.shape == (4, 8, 4)
    assert len(images) == len(masks) == 4
    for i, n in enumerate((3, 2, 1, 0)):
        assert (images[i] == (60 * n, 10, 200)).all()
        with Image.open(root / f"masks/{n}.png") as mask:
            assert np.array_equal(masks[i], mask.resize((4, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(images[-1], images[3])
    for index in (4, -5):
        with pytest.raises(IndexError):
            images[index]


def test_nothing_is_decoded_twice(root, records, folder, decoded):
    first = cached_images(root, records, at(folder))
    assert sorted(decoded) == [root / f"{n}.png" for n in range(4)]
    second = cached_images(root, records, at(folder))
    assert len(decoded) == 4
    assert np.array_equal(list(first), list(second))


def test_masks_are_added_to_images_that_are_there(root, records, folder, decoded):
    cached_images(root, records, at(folder))
    decoded.clear()
    both(root, records, folder)
    assert sorted(decoded) == [root / f"masks/{n}.png" for n in range(4)]
    assert sorted(file.name.split("-")[0] for file in folder.iterdir()) == ["images", "masks"]


def test_a_cache_is_an_array_that_numpy_reads(root, records, folder):
    images, masks = both(root, records, folder)
    for cache in (images, masks):
        assert np.array_equal(np.load(cache.file), list(cache))


def test_no_file_is_mapped(root, records, folder):
    cache = cached_images(root, records, at(folder))
    cache[0][:] = 1  # one's own
    assert (cache[0] == (0, 10, 200)).all()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(folder) not in maps.read_text()


def test_a_changed_file_is_decoded_again(root, records, folder):
    both(root, records, folder)
    Image.new("RGB", (10, 20), (1, 2, 3)).save(root / "2.png")
    assert (cached_images(root, records, at(folder))[2] == (1, 2, 3)).all()
    stat = (root / "masks/1.png").stat()
    put_mask(root / "masks/1.png", 20)
    assert (root / "masks/1.png").stat().st_size == stat.st_size
    os.utime(root / "masks/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert (cached_masks(root, records, at(folder))[1] == 255).all()


def test_masks_are_compared_again_with_an_image_that_changed(root, records, folder):
    both(root, records, folder)
    Image.new("RGB", (11, 20)).save(root / "2.png")
    with pytest.raises(CsviError, match=r"2\.png is of 10x20 pixels and its image .*2\.png of 11x20"):
        cached_masks(root, records, at(folder))


@pytest.mark.parametrize("change", ["height", "width", "range", "records", "order", "root"])
def test_another_request_has_a_cache_of_its_own(root, records, folder, change, tmp_path):
    first = cached_images(root, records, at(folder))
    if change == "root":
        shutil.copytree(root, tmp_path / "copy")
        root = tmp_path / "copy"
    second = cached_images(
        root,
        {"records": records[:3], "order": records[::-1]}.get(change, records),
        at(
            folder,
            9 if change == "height" else 8,
            5 if change == "width" else 4,
            infrared_range="0,9" if change == "range" else "auto",
        ),
    )
    assert second.file != first.file
    assert first[0][0, 0, 0] == 0
    assert second[0][0, 0, 0] == (180 if change == "order" else 0)


def test_images_do_not_depend_on_masks(root, records, folder):
    bare = [ImageRecord(record.path, record.identity, 1, Modality.VISIBLE) for record in records]
    assert cached_images(root, bare, at(folder)).file == cached_images(root, records, at(folder)).file
    with pytest.raises(CsviError, match=r"3\.png has no mask"):
        cached_masks(root, records[:3] + bare[3:], at(folder))


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
        cached(root, records, at(folder))
    assert "\n" not in str(caught.value)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_mask_of_another_size_is_named_and_leaves_no_cache(root, records, folder):
    Image.new("L", (10, 19)).save(root / "masks/3.png")
    with pytest.raises(CsviError, match=r"masks/3\.png is of 10x19 pixels and its image .*3\.png of 10x20"):
        cached_masks(root, records, at(folder))
    assert list(folder.iterdir()) == []


def test_a_repaired_image_is_all_it_takes_to_go_on(root, records, folder):
    whole = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(whole[:50])
    with pytest.raises(CsviError):
        cached_images(root, records, at(folder))
    (root / "2.png").write_bytes(whole)
    assert len(cached_images(root, records, at(folder))) == 4


def test_an_interrupted_fill_leaves_no_cache(root, records, folder, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached_images(root, records, at(folder))
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written(root, records, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CsviError, match=r"cannot write the image cache in .*file/cache .*--data\.cache"):
        cached_images(root, records, at(tmp_path / "file" / "cache"))


def test_processes_that_fill_the_same_cache_at_once_agree(root, records, folder):
    with ThreadPoolExecutor(8) as pool:
        caches = list(pool.map(lambda _: cached_images(root, records, at(folder)), range(8)))
    assert {cache.file for cache in caches} == set(folder.iterdir())
    assert len({np.stack(list(cache)).tobytes() for cache in caches}) == 1


def test_another_process_may_finish_first(root, records, folder, monkeypatch):
    fill = module._fill

    def slow(partial, *rest):
        monkeypatch.setattr(module, "_fill", fill)
        cached_images(root, records, at(folder))
        fill(partial, *rest)

    monkeypatch.setattr(module, "_fill", slow)
    cache = cached_images(root, records, at(folder))
    assert [cache.file] == list(folder.iterdir())
    assert (cache[3] == (180, 10, 200)).all()


def test_a_cache_is_on_the_disk_before_it_has_its_name(root, records, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(file.name for file in folder.iterdir()))
    cache = cached_images(root, records, at(folder))
    assert re.fullmatch(rf"\.{cache.file.name}\.[0-9a-f]{{32}}\.partial", seen[0])
    assert seen[1:] == [cache.file.name]  # the folder's turn


def test_pickled_cache_opens_the_file_again(root, records, folder):
    cache = cached_images(root, records * 50, at(folder, 64, 32))
    pickled = pickle.dumps(cache)
    assert len(pickled) < 1000
    assert np.array_equal(list(pickle.loads(pickled)), list(cache))


def test_an_open_cache_may_be_removed(root, records, folder):
    cache = cached_images(root, records, at(folder))
    cache.file.unlink()
    assert (cache[3] == (180, 10, 200)).all()
    assert (cached_images(root, records, at(folder))[3] == (180, 10, 200)).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        "text",
        {"of another type": np.zeros((4, 8, 4, 3), np.uint16)},
        {"of a type as long": np.zeros((4, 8, 4, 3), np.int8)},
        {"of another shape": np.zeros((4, 4, 8, 3), np.uint8)},
        {"fewer": np.zeros((3, 8, 4, 3), np.uint8)},
        {"flat": np.zeros((4, 96), np.uint8)},
        {"scalar": np.uint8(0)},
        {"objects": np.array([{}], object)},
        50,
        200,
        -1,
    ],
    ids=str,
)
def test_a_damaged_cache_is_written_anew(root, records, folder, content, caplog):
    cache = cached_images(root, records, at(folder))
    whole = cache.file.read_bytes()
    if isinstance(content, dict):
        np.save(cache.file, *content.values(), allow_pickle=True)
        with cache.file.open("ab") as file:
            file.write(bytes(4))  # as behind the pixels
    else:
        cut = whole[:content] if isinstance(content, int) else content
        cache.file.write_bytes(cut.encode() if isinstance(cut, str) else cut)
    with pytest.raises(CsviError, match=f"{cache.file} is not what was written: remove it"):
        pickle.loads(pickle.dumps(cache))
    assert (cached_images(root, records, at(folder))[3] == (180, 10, 200)).all()
    assert cache.file.read_bytes() == whole
    assert f"{cache.file} is not what was written: it is written anew" in caplog.text


@pytest.mark.parametrize(
    "other", [os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero"), lambda file: file.symlink_to(file)]
)
def test_what_is_no_file_is_no_cache(root, records, folder, other):
    file = cached_images(root, records, at(folder)).file
    file.unlink()
    other(file)
    with pytest.raises(CsviError, match=f"cannot write the image cache in {folder} .*: choose another"):
        cached_images(root, records, at(folder))


def test_a_cache_that_is_cut_while_it_is_open_is_named(root, records, folder):
    cache = cached_images(root, records, at(folder))
    os.truncate(cache.file, 200)
    with pytest.raises(CsviError, match=f"{cache.file} ends too early: remove it"):
        cache[3]


def age(file, days):
    os.utime(file, (time.time() - days * 86400,) * 2)


def test_what_is_not_used_for_long_goes_when_the_next_is_written(root, records, folder, caplog):
    old, used, young = (cached_images(root, records[:n], at(folder)).file for n in (1, 2, 3))
    others = [folder / "images.npy", folder / "notes.txt", folder / "images-of-mine.npy"]
    left_behind = folder / f".{old.name}.{'0' * 32}.partial"
    for file in (*others, left_behind):
        file.touch()
    for file in (old, used, left_behind, *others):
        age(file, 31)
    age(young, 29)
    cached_images(root, records[:2], at(folder))  # used: it is young again
    assert old.exists()
    with caplog.at_level("INFO", "csvi"):
        written = cached_images(root, records, at(folder)).file
    assert set(folder.iterdir()) == {used, young, written, *others}
    assert "removed 2 caches not used for 30 days, 0.0 GB" in caplog.text


def test_images_are_resized_smoothly(tmp_path):
    stripes = np.zeros((40, 20), np.uint8)
    stripes[::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 10, 5)
    assert image.shape == (10, 5, 3)
    assert abs(image.astype(int) - 100).max() < 15  # antialiased: no stripe survives


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (10, 20), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert (read_image(tmp_path / f"a.{suffix}", 8, 4) == 255).all()


def test_a_full_disk_is_an_error_before_pixels_are_written(root, records, folder, decoded, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(CsviError, match="No space left on device"):
        cached_images(root, records, at(folder))
    assert list(folder.iterdir()) == decoded == []


def labels(file, rows):
    """As a human parser writes them: a band of three labels in a palette of colours."""
    mask = np.zeros((20, 10), np.uint8)
    mask[10 - rows // 2 : 10 + rows // 2] = np.arange(10) % 3 + 1
    image = Image.fromarray(mask)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 128])
    image.save(file)


def test_labels_leave_no_cache_and_as_such_are_the_true_masks(root, records, folder, tmp_path):
    true = cached_masks(root, records, at(folder))
    for n in range(4):
        labels(root / f"masks/{n}.png", 4 + 4 * n)
    other = tmp_path / "other"
    with pytest.raises(CsviError, match=r"^the visible masks need --data\.mask_values nonzero: they look like "):
        cached_masks(root, records, at(other))
    assert list(other.iterdir()) == []
    assert np.array_equal(list(cached_masks(root, records, at(other, mask_values="nonzero"))), list(true))


def test_each_modality_is_judged_by_itself(root, records, folder):
    """Infrared masks may be of another kind than the visible ones; together they would be no majority."""
    labels(root / "masks/3.png", 16)
    records[3] = replace(records[3], modality=Modality.INFRARED)
    with pytest.raises(CsviError, match=r"^the infrared masks need --data\.mask_values nonzero"):
        cached_masks(root, records, at(folder))


def test_another_reading_has_a_cache_of_its_own(root, records, folder):
    files = {cached_masks(root, records, at(folder, mask_values=values)).file for values in (255, "nonzero")}
    assert len(files) == 2


def test_masks_of_nobody_are_known_also_from_a_cache_that_was_there(root, records, folder):
    """Be it that the person is too small to be seen at the size asked for."""
    speck = np.zeros((20, 10), np.uint8)
    speck[9, 4] = 255
    Image.fromarray(speck).save(root / "masks/2.png")
    put_mask(root / "masks/3.png", 0)
    (root / "masks/1.png").unlink()
    for _ in range(2):
        masks = cached_masks(root, records, at(folder), skip=True)
        assert (masks.marked(EMPTY), list(masks.bad)) == ([2, 3], [1])


def test_what_cannot_be_read_may_be_skipped_and_is_never_forgotten(root, records, folder, decoded):
    (root / "1.png").write_text("not an image")
    (root / "2.png").unlink()
    skipping = cached_images(root, records, at(folder), skip=True)
    assert list(skipping.bad) == [1, 2]
    assert skipping.bad[1] == f"cannot read the image {root / '1.png'}: it is not an image"
    assert (skipping[3] == (180, 10, 200)).all()
    decoded.clear()
    assert cached_images(root, records, at(folder), skip=True).bad == skipping.bad
    assert decoded == [root / "1.png", root / "2.png"]
    with pytest.raises(CsviError, match=r"1\.png: it is not an image"):
        cached_images(root, records, at(folder))
    assert decoded[2:] == [root / "1.png"]
    Image.new("RGB", (10, 20)).save(root / "1.png")
    assert list(cached_images(root, records, at(folder), skip=True).bad) == [2]


@pytest.mark.parametrize("skip", [True, False])
def test_no_image_is_bad_because_it_once_was(root, records, folder, monkeypatch, skip):
    def deny(file, *rest):
        if file.name == "1.png":
            raise BadImage(file, "cannot be read: Permission denied")
        return read_image(file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_image", deny)
        assert list(cached_images(root, records, at(folder), skip=True).bad) == [1]
    cache = cached_images(root, records, at(folder), skip=skip)
    assert cache.bad == {}
    assert (cache[1] == (60, 10, 200)).all()
    assert list(folder.iterdir()) == [cache.file]


def fail_with(error):
    def read(*_):
        raise error

    return read


@pytest.mark.parametrize("error", [MemoryError(), TroubleReading(Path("a"), "could not be read this time")])
def test_what_is_not_an_images_fault_is_never_skipped(root, records, folder, monkeypatch, error):
    monkeypatch.setattr(module, "read_image", fail_with(error))
    with pytest.raises(type(error)):
        cached_images(root, records, at(folder), skip=True)
    assert list(folder.iterdir()) == []


def test_which_image_has_which_mask_makes_another_cache(root, records, folder):
    mask = root / "masks/3.png"
    for own, bad in (([mask, None], [1]), ([None, mask], [0])):
        pair = [replace(record, mask=file) for record, file in zip(records, own, strict=False)]
        cache = cached_masks(root, pair, at(folder), skip=True)
        assert list(cache.bad) == bad
        assert [cache[i].max() for i in range(2)] == [255 if file else 0 for file in own]


def test_a_name_that_is_no_text(records, folder, tmp_path):
    try:
        root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        root.mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    Image.new("RGB", (10, 20)).save(root / "0.png")
    assert len(cached_images(root, records[:1], at(folder))) == 1


def test_masks_that_cannot_be_read_may_be_skipped(root, records, folder):
    records[0] = replace(records[0], mask=None)
    Image.new("L", (20, 20), 255).save(root / "masks/1.png")
    (root / "masks/2.png").write_bytes(b"")
    bad = cached_masks(root, records, at(folder), skip=True).bad
    assert list(bad) == [0, 1, 2]
    assert bad[0] == f"the image {root / '0.png'} has no mask"
    assert "must be of one size" in bad[1]
    assert bad[2].endswith("masks/2.png: it is empty")


def test_a_list_without_a_lost_image_has_another_cache(root, records, folder):
    (root / "1.png").unlink()
    assert len(cached_images(root, records, at(folder), skip=True)) == 4
    assert len(cached_images(root, [*records[:1], *records[2:]], at(folder))) == 3
