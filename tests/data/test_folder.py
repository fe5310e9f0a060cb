"""People's own images, in two folders and in a table."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csvi.data import recognise
from csvi.data.files import path_inside
from csvi.data.folder import Folder, split_of
from csvi.data.records import ImageRecord, Modality
from csvi.errors import CsviError

read = Folder().read
HEADER = "path,identity,camera,modality,split,mask,time"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "people"


def add(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def table(root, *lines, newline="\n", encoding="utf-8"):
    root.mkdir(exist_ok=True)
    (root / "images.csv").write_bytes(newline.join(lines).encode(encoding))
    return read(root)


def everyone(benchmark):
    return [record for records in benchmark.splits.values() for record in records]


def test_two_folders(root):
    for name in ("anna", "ben", "行人 7"):
        add(root, f"visible/{name}/2.jpg", f"visible/{name}/1.PNG", f"infrared/{name}/1.jpg")
    add(root, "visible/.hidden/1.jpg", "visible/loose.jpg", "visible/anna/notes.txt", "visible/ben/deeper/1.jpg")
    benchmark = read(root)
    assert (benchmark.name, benchmark.root) == ("people", root)
    records = sorted(everyone(benchmark), key=lambda r: (r.modality, r.path))
    assert [(r.path, r.identity, r.camera, r.modality) for r in records] == [
        (f"{folder}/{name}/{file}", identity, camera, Modality(camera - 1))
        for folder, camera, files in (("visible", 1, ("1.PNG", "2.jpg")), ("infrared", 2, ("1.jpg",)))
        for identity, name in enumerate(("anna", "ben", "行人 7"))
        for file in files
    ]
    for split, members in benchmark.splits.items():
        assert all(split_of(r.path.split("/")[1]) == split for r in members)
    assert recognise(root) == "folder"


def test_split_by_name_stays_as_documented():
    """These may never change: people who trained a model would test it on whom it was trained on."""
    split = {"anna": "train", "ben": "train", "0001": "val", "0002": "train", "Größe": "train", "行人": "test"}
    assert {name: split_of(name) for name in split} == split
    shares = [split_of(str(name)) for name in range(10_000)]
    assert [round(shares.count(split) / 10_000, 2) for split in ("train", "val", "test")] == [0.6, 0.1, 0.3]


def test_names_that_are_numbers_are_kept(root):
    add(root, "visible/0042/1.jpg", "infrared/0042/1.jpg", "visible/7/1.jpg")
    assert {r.path.split("/")[1]: r.identity for r in everyone(read(root))} == {"0042": 42, "7": 7}
    add(root, "visible/07/1.jpg")  # 7 again, but not the same name
    assert {r.path.split("/")[1]: r.identity for r in everyone(read(root))} == {"0042": 0, "07": 1, "7": 2}


def test_root_and_masks(root, monkeypatch):
    add(root, "visible/1/1.jpg", "infrared/1/1.jpg", "masks/infrared/1/1.png")
    monkeypatch.chdir(root.parent)
    benchmark = read("people/")
    assert benchmark.root == root
    assert [r.mask for r in everyone(benchmark)] == [None, root / "masks/infrared/1/1.png"]


def test_the_tables_mask_goes_before_the_folders_but_not_before_one_that_is_given(root, tmp_path):
    add(root, "a.png", "masks/a.png", "masks/b.png")
    add(tmp_path / "given", "a.png")
    benchmark = table(root, HEADER, "a.jpg,1,,visible,train,a.png,", "b.jpg,1,,infrared,train,,")
    assert [r.mask for r in benchmark.train] == [root / "a.png", root / "masks/b.png"]
    given = read(root, masks=tmp_path / "given")
    assert [r.mask for r in given.train] == [tmp_path / "given/a.png", None]


def test_table(root):
    benchmark = table(
        root,
        HEADER,
        "a/0001.jpg,anna,1,visible,train,a/0001.png,2024-05-01T12:00:00",
        "b/0001.jpg,anna,4,infrared,train,,",
        "c.jpg,Zoë,2,infrared,test,,2024-05-01",
        "d.jpg,ben,1,visible,val,,",
    )
    assert benchmark.train == [
        ImageRecord("a/0001.jpg", 1, 1, Modality.VISIBLE, root / "a/0001.png", "2024-05-01T12:00:00"),
        ImageRecord("b/0001.jpg", 1, 4, Modality.INFRARED),
    ]
    assert benchmark.test == [ImageRecord("c.jpg", 0, 2, Modality.INFRARED, None, "2024-05-01")]
    assert benchmark.val == [ImageRecord("d.jpg", 2, 1, Modality.VISIBLE)]
    assert recognise(root) == "folder"


def test_cameras_are_named_for_all_images_or_for_none(root):
    without = table(root, HEADER, "a.jpg,1,,visible,train,,", "b.jpg,1,,infrared,train,,")
    assert [r.camera for r in without.train] == [1, 2]
    with pytest.raises(CsviError, match=r"line 3 of .*images.csv .*name it for all images or for none"):
        table(root, HEADER, "a.jpg,1,,visible,train,,", "b.jpg,1,1,infrared,train,,")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_table_as_people_have_it(root, newline, encoding):
    """Other order, columns left out, quotes, spaces around, backslashes, blank lines."""
    benchmark = table(
        root,
        " modality ,identity, path",
        "",
        'visible,"Doe, Jane","my images\\1, ""front"".jpg"',
        "infrared, 7 , ./x//2.jpg",
        "",
        newline=newline,
        encoding=encoding,
    )
    records = {r.path: (r.identity, r.camera) for r in everyone(benchmark)}
    assert records == {'my images/1, "front".jpg': (1, 1), "x/2.jpg": (0, 2)}
    for split, members in benchmark.splits.items():
        assert all(split_of({0: "7", 1: "Doe, Jane"}[r.identity]) == split for r in members)


def test_table_goes_before_folders(root):
    add(root, "visible/anna/1.jpg", "infrared/anna/1.jpg")
    assert [r.path for r in everyone(table(root, "path,identity,modality", "x.jpg,1,visible"))] == ["x.jpg"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.jpg,,1,visible,train,,", r"names no identity"),
        ("b.jpg,ben,1,thermal,train,,", r"has the modality 'thermal': choose one of visible, infrared"),
        ("b.jpg,ben,1,,train,,", r"has the modality '': choose one of"),
        ("b.jpg,ben,1,visible,query,,", r"has the split 'query': choose one of train, val, test"),
        ("b.jpg,ben,-1,visible,train,,", r"has the camera '-1': it must be an integer from 0 to 999999999"),
        ("b.jpg,ben,1.5,visible,train,,", r"has the camera '1.5'"),
        ("b.jpg,ben,9999999999,visible,train,,", r"has the camera '9999999999'"),
        ("b.jpg,ben,left,visible,train,,", r"has the camera 'left'"),
        ("b.jpg,ben,1,visible,train,,noon", r"has the time 'noon': write it as 2024-05-01T12:00:00"),
        ("b.jpg,ben,1,visible,train,,2024-13-01", r"has the time '2024-13-01'"),
        (",ben,1,visible,train,,", r"names '': paths must be relative"),
        ("/b.jpg,ben,1,visible,train,,", r"names '/b.jpg': paths must be relative"),
        ("../b.jpg,ben,1,visible,train,,", r"names '../b.jpg': paths must be relative"),
        ("C:\\b.jpg,ben,1,visible,train,,", r".*: paths must be relative"),
        ("\\\\host\\b.jpg,ben,1,visible,train,,", r".*: paths must be relative"),
        ("b\0.jpg,ben,1,visible,train,,", r".*: paths must be relative"),
        ("b.jpg,ben,1,visible,train,../m.png,", r"names '../m.png': paths must be relative"),
        ("b.jpg,ben,1,visible,train,", r"has not as many fields as the header, 7"),
        ("b.jpg,ben,1,visible,train,,,", r"has not as many fields as the header, 7"),
        ("./a.jpg,ben,1,visible,train,,", r"names a.jpg again: every image must be listed once"),
        ('b.jpg,"ben"x,1,visible,train,,', r"is not one of a table with commas: "),
        ("b.jpg," + 200_000 * "b" + ",1,visible,train,,", r"is not one of a table with commas: field larger"),
    ],
)
def test_bad_line(root, line, message):
    with pytest.raises(CsviError, match=rf"^line 3 of .*images.csv {message}"):
        table(root, HEADER, "a.jpg,anna,1,visible,train,,", line, "c.jpg,anna,2,infrared,train,,", newline="\r\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"images.csv has no column path: its columns are path, identity, modality and, if you like, camera"),
        ("path,identity\na.jpg,1", r"images.csv has no column modality"),
        ("path;identity;modality", r"images.csv has no column path"),
        ("path,identity,modality,age\na.jpg,1,visible,30", r"images.csv has the column 'age'"),
        ("path,identity,modality,path\na.jpg,1,visible,b.jpg", r"images.csv has one twice"),
        ("path,identity,modality\n", r"^no images in .*people: put them into visible/IDENTITY and infrared/IDENTITY"),
        ('path,identity,modality\na.jpg,1,"visible', r"^line 2 of .*images.csv is not one of a table .*unexpected end"),
    ],
)
def test_bad_table(root, content, message):
    with pytest.raises(CsviError, match=message):
        table(root, content)


def test_table_that_is_not_text(root):
    with pytest.raises(
        CsviError, match=r"^cannot read .*images.csv as text \(byte 0 is not UTF-8\): save it as UTF-8$"
    ):
        table(root, HEADER, encoding="utf-16")


def test_identity_in_two_splits(root):
    with pytest.raises(CsviError, match=r"^identity ben is in train of .*images.csv and in test of .*images.csv: "):
        table(root, "path,identity,modality,split", "a.jpg,ben,visible,train", "b.jpg,ben,infrared,test")


def test_missing_folders(root):
    with pytest.raises(
        CsviError, match=r"people is not a folder: give the folder of your images, the one that holds visible and infr"
    ):
        read(root)
    add(root, "visible/anna/1.jpg")
    with pytest.raises(CsviError, match=r"^no .*people/infrared: give a folder that holds visible and infrared, or "):
        read(root)
    (root / "infrared").mkdir()
    (root / "visible/anna/1.jpg").unlink()
    with pytest.raises(CsviError, match=r"^no images in .*people: put them into"):
        read(root)


def test_folder_that_leads_to_itself(root):
    add(root, "visible/anna/1.jpg")
    (root / "infrared").mkdir()
    (root / "infrared" / "ben").symlink_to("ben")
    with pytest.raises(CsviError, match=r"^cannot list .*infrared: Too many levels of symbolic links"):
        read(root)


CELLS = st.sampled_from(
    [
        "",
        "a.jpg",
        "b/1.jpg",
        "anna",
        "7",
        "visible",
        "infrared",
        "train",
        "test",
        "../x",
        '"',
        '"a,b"',
        "1",
        "\0",
        "é",
        "2024-05-01",
    ]
)
LINES = st.lists(st.lists(CELLS, min_size=2, max_size=8).map(",".join), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    st.binary(max_size=60)
    | LINES.map(lambda lines: "\n".join(["path,identity,modality,camera", *lines]).encode())
    | st.tuples(st.permutations(["path", "identity", "modality", "split"]), LINES).map(
        lambda t: "\r\n".join([",".join(t[0]), *t[1]]).encode()
    )
)
def test_any_table_is_read_or_named(root, content):
    root.mkdir(exist_ok=True)
    (root / "images.csv").write_bytes(content)
    try:
        records = everyone(read(root))
    except CsviError as error:
        assert str(root) in str(error)  # noqa: PT017
    else:
        assert records
        assert all(path_inside(r.path, "") == r.path and 0 <= r.identity < 10**9 for r in records)
