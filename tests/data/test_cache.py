"""Images are decoded once, whoever asks; what is wrong with one of them is said, and nothing is left half-written."""

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import csvi.data.cache as module
from csvi.data.cache import cached_images, read_image
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


def test_images_and_masks_in_the_order_of_the_records(root, records, folder):
    cache = cached_images(root, records[::-1], 8, 4, folder)
    assert cache.images.shape == (4, 8, 4, 3)
    assert cache.masks.shape == (4, 8, 4)
    for i, n in enumerate((3, 2, 1, 0)):
        assert (cache.images[i] == (60 * n, 10, 200)).all()
        assert (cache.masks[i] == 80 * n).all()
    assert len(cache) == 4


def test_nothing_is_decoded_twice(root, records, folder, decoded):
    first = cached_images(root, records, 8, 4, folder)
    assert len(decoded) == 8
    second = cached_images(root, records, 8, 4, folder)
    assert len(decoded) == 8
    assert np.array_equal(first.images, second.images)


def test_cache_is_a_read_only_memory_map(root, records, folder):
    cache = cached_images(root, records, 8, 4, folder)
    assert isinstance(cache.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0] = 1


def test_a_changed_file_is_decoded_again(root, records, folder):
    cached_images(root, records, 8, 4, folder)
    Image.new("RGB", (10, 20), (1, 2, 3)).save(root / "2.png")
    assert (cached_images(root, records, 8, 4, folder).images[2] == (1, 2, 3)).all()
    stat = (root / "masks/1.png").stat()
    Image.new("L", (10, 20), 81).save(root / "masks/1.png")  # as long as the one before
    assert (root / "masks/1.png").stat().st_size == stat.st_size
    os.utime(root / "masks/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert (cached_images(root, records, 8, 4, folder).masks[1] == 81).all()


@pytest.mark.parametrize("change", ["height", "width", "records", "order", "masks"])
def test_another_request_has_a_cache_of_its_own(root, records, folder, change):
    first = cached_images(root, records, 8, 4, folder)
    second = cached_images(
        root,
        {"records": records[:3], "order": records[::-1]}.get(change, records),
        9 if change == "height" else 8,
        5 if change == "width" else 4,
        folder,
        masks=change != "masks",
    )
    assert second.folder != first.folder
    assert first.images[0, 0, 0, 0] == 0
    assert second.images[0, 0, 0, 0] == (180 if change == "order" else 0)


def test_masks_are_optional(root, records, folder):
    assert cached_images(root, records, 8, 4, folder, masks=False).masks is None
    bare = [ImageRecord(record.path, record.identity, 1, Modality.VISIBLE) for record in records]
    assert cached_images(root, bare, 8, 4, folder).masks is None
    assert cached_images(root, records[:3] + bare[3:], 8, 4, folder).masks is None


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
    with pytest.raises(CsviError, match=f"cannot read the image {root / name}: .") as caught:
        cached_images(root, records, 8, 4, folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_mask_of_another_size_is_named_and_leaves_no_cache(root, records, folder):
    Image.new("L", (10, 19)).save(root / "masks/3.png")
    with pytest.raises(CsviError, match=r"masks/3\.png is of 10x19 pixels and its image .*3\.png of 10x20"):
        cached_images(root, records, 8, 4, folder)
    assert list(folder.iterdir()) == []
    assert len(cached_images(root, records, 8, 4, folder, masks=False)) == 4


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
    assert {cache.folder for cache in caches} == set(folder.iterdir())
    assert len({cache.images.tobytes() for cache in caches}) == 1


def test_another_process_may_finish_first(root, records, folder, monkeypatch):
    fill = module._fill

    def slow(partial, *rest):
        monkeypatch.setattr(module, "_fill", fill)
        cached_images(root, records, 8, 4, folder)
        fill(partial, *rest)

    monkeypatch.setattr(module, "_fill", slow)
    cache = cached_images(root, records, 8, 4, folder)
    assert [cache.folder] == list(folder.iterdir())


def test_pickled_cache_maps_the_files_again(root, records, folder):
    cache = cached_images(root, records * 50, 64, 32, folder)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 1000 < cache.images.nbytes
    assert np.array_equal(pickle.loads(pickled).images, cache.images)


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
        cached_images(root, records, 8, 4, folder)
    assert list(folder.iterdir()) == []
