"""People's own images, in two folders and in a table."""

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csvi.config import DataConfig
from csvi.data import recognise
from csvi.data.files import path_inside
from csvi.data.folder import Folder, split_of
from csvi.data.records import DISTRACTOR, Counts, ImageRecord, Modality
from csvi.data.training_set import training_records
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
    split = {"anna": "train", "ben": "train", "1": "train", "2": "test", "größe": "test", "行人": "test"}
    assert {name: split_of(name) for name in split} == split
    shares = [split_of(str(name)) for name in range(10_000)]
    assert [round(shares.count(split) / 10_000, 2) for split in ("train", "val", "test")] == [0.6, 0.1, 0.3]


@pytest.mark.parametrize(
    "alike",
    [("1{}", "0001{}"), ("é{}", unicodedata.normalize("NFD", "É{}")), ("a {}", "A  {} ")],
)
def test_names_that_look_alike_are_never_split(alike):
    for number in range(50):  # by chance, some of these would be
        assert len({split_of(name.format(number)) for name in alike}) == 1


def test_two_unicode_forms_of_a_name_are_one_person(root):
    """A Mac copied the infrared folders, Linux the visible ones."""
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    add(root, f"visible/{composed}/1.jpg", f"infrared/{decomposed}/1.jpg", "visible/ben/1.jpg", "infrared/ben/1.jpg")
    benchmark = read(root)
    numbers = {benchmark.name_of(r.identity): r.identity for r in everyone(benchmark)}
    assert numbers.keys() == {composed, "ben"}
    paths = {r.path for r in everyone(benchmark) if r.identity == numbers[composed]}
    assert paths == {f"visible/{composed}/1.jpg", f"infrared/{decomposed}/1.jpg"}
    assert all(benchmark.file(r).is_file() for r in everyone(benchmark))


def test_two_unicode_forms_of_a_name_in_two_splits_are_refused(root):
    lines = ["a.jpg,Zo\u00eb,visible,train", "b.jpg,Zoe\u0308,infrared,test"]
    with pytest.raises(CsviError, match=r"identity Zoë \(written as 'Zoe\\u0308' and as 'Zo\\xeb', two Unicode forms"):
        table(root, "path,identity,modality,split", *lines)


def test_paths_are_opened_in_the_unicode_form_they_have_on_disk(root):
    add(root, "Zoe\u0308/e\u0301.jpg", "Zo\u00eb/u\u0308.png")
    lines = ["Zo\u00eb/\u00e9.jpg,1,visible,Zo\u00eb/\u00fc.png", "Zo\u00eb/nowhere.jpg,1,infrared,"]
    (found, missing) = everyone(table(root, "path,identity,modality,mask", *lines))
    assert (root / found.path).is_file()
    assert found.mask.is_file()
    assert missing.path == "Zo\u00eb/nowhere.jpg"
    with pytest.raises(CsviError, match=r"^line 3 .* names .* again"):
        table(root, "path,identity,modality", "Zo\u00eb/\u00e9.jpg,1,visible", "Zoe\u0308/e\u0301.jpg,1,visible")


def test_people_are_called_by_their_names(root):
    add(root, "visible/0042/1.jpg", "visible/7/1.jpg")
    (root / "infrared").mkdir()
    assert {r.identity: read(root).name_of(r.identity) for r in everyone(read(root))} == {42: "0042", 7: "7"}
    add(root, "visible/anna/1.jpg")
    assert sorted(read(root).name_of(r.identity) for r in everyone(read(root))) == ["0042", "7", "anna"]


@pytest.mark.parametrize("name", ["-1", "0000"])
def test_distractors_are_of_nobody_and_in_test(root, name):
    add(root, f"visible/{name}/1.jpg", "visible/0001/1.jpg", "infrared/0001/1.jpg")
    benchmark = read(root)
    assert [r.path for r in benchmark.test if r.identity == DISTRACTOR] == [f"visible/{name}/1.jpg"]
    assert {r.identity for r in everyone(benchmark)} == {1, DISTRACTOR}
    assert benchmark.name_of(DISTRACTOR) == name
    assert sum(Counts.of(records).identities for records in benchmark.splits.values()) == 1


def test_distractors_are_never_trained_on_and_may_be_in_several_splits(root):
    lines = ["a.jpg,anna,visible,train", "b.jpg,anna,infrared,train", "c.jpg,eve,visible,test"]
    nobody = [f"{split}.jpg,-1,visible,{split}" for split in ("train", "val", "test")]
    benchmark = table(root, "path,identity,modality,split", *lines, *nobody)
    assert [len(records) for records in benchmark.splits.values()] == [3, 1, 2]
    assert [r.path for r in training_records(benchmark, DataConfig())] == ["a.jpg", "b.jpg"]


def test_files_that_are_not_read_are_told(root):
    add(
        root,
        "visible/anna/1.jpg",
        "infrared/anna/1.gif",
        "infrared/anna/2.GIF",
        "infrared/anna/notes",
        "infrared/ben/1.pgm",
    )
    add(root, "visible/anna/.DS_Store", "visible/anna/Thumbs.db", "visible/anna/desktop.ini", "visible/anna/._1.gif")
    benchmark = read(root)
    assert benchmark.unread == {".gif": ["infrared/anna/1.gif", "infrared/anna/2.GIF"], "": ["infrared/anna/notes"]}
    assert {r.path for r in everyone(benchmark)} == {"visible/anna/1.jpg", "infrared/ben/1.pgm"}


def test_images_in_no_persons_folder_are_told(root):
    add(root, "visible/loose.jpg", "visible/anna/1.jpg", "infrared/anna/day1/1.jpg", "infrared/anna/day1/cam/2.jpg")
    (root / "visible/anna/again").symlink_to(root / "visible")
    assert sorted(read(root).misplaced) == [
        "infrared/anna/day1/1.jpg",
        "infrared/anna/day1/cam/2.jpg",
        "visible/loose.jpg",
    ]


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "@Recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found"])
def test_folders_of_file_servers_are_no_people(root, folder):
    add(root, "visible/anna/1.jpg", f"visible/{folder}/1.jpg", f"infrared/anna/{folder}/1.jpg", "infrared/anna/1.jpg")
    benchmark = read(root)
    assert {benchmark.name_of(r.identity) for r in everyone(benchmark)} == {"anna"}
    assert (benchmark.unread, benchmark.misplaced) == ({}, [])


@pytest.mark.parametrize("between", [";", "\t", ","])
@pytest.mark.parametrize("before", ["", "sep={}\r\n", '"sep={}"\r\n', "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_with_any_separator(root, between, before, encoding):
    """As Excel saves it in half of Europe, as "Unicode text", or for itself; it leaves empty lines at the end."""
    lines = [
        ["Path", " Identity", "MODALITY ", "Camera"],
        ["a,1.jpg", "Zoë", "Visible", "2"],
        ["b.jpg", "Zoë", "infrared", "1"],
        [""] * 4,
    ]
    quoted = [[f'"{field}"' if between in field else field for field in line] for line in lines]
    text = before.format(between) + "\r\n".join(between.join(line) for line in quoted)
    records = everyone(table(root, text, encoding=encoding))
    assert [(r.path, r.camera) for r in records] == [("a,1.jpg", 2), ("b.jpg", 1)]
    with pytest.raises(CsviError, match=rf"^line {5 + bool(before)} of .*images.csv has the modality 'day'"):
        table(root, text, between.join(["c.jpg", "ben", "day", "1"]), newline="\r\n")


def test_cameras_may_have_names(root):
    header = "path,identity,camera,modality"
    benchmark = table(root, header, "a.jpg,1,gate,visible", "b.jpg,1,3,infrared", "c.jpg,1,gate,infrared")
    assert [r.camera for r in everyone(benchmark)] == [2, 1, 2]
    assert benchmark.cameras == {1: "3", 2: "gate"}
    assert benchmark.name_of_camera(2) == "gate"
    numbered = table(root, header, "a.jpg,1,07,visible", "b.jpg,1,8,infrared")
    assert [(r.camera, numbered.name_of_camera(r.camera)) for r in everyone(numbered)] == [(7, "cam7"), (8, "cam8")]
    alike = table(root, header, "a.jpg,1,07,visible", "b.jpg,1,7,infrared")  # two, as of crops; csvi check names them
    assert [r.camera for r in everyone(alike)] == [1, 2]
    assert alike.cameras == {1: "07", 2: "7"}


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
        ("", r"no column path: .* its first line must hold path, identity, modality and, if you like, camera"),
        ("path,identity\na.jpg,1", r"images.csv has no column modality"),
        ("path;identity\na.jpg;1", r"no column modality: with semicolons between fields, its first line must "),
        ("path|identity|modality", r"no column path: with commas between .*, and holds 'path\|identity\|modality'$"),
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
        CsviError, match=r"^cannot read .*images.csv as text \(byte 12 is not UTF-8\): save it as UTF-8$"
    ):
        table(root, "path,identité,modality", encoding="latin-1")


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
    add(root, "visible/anna/day1/1.jpg")
    with pytest.raises(CsviError, match=r"^no images in .*people but visible/anna/day1/1.jpg, which is not read: put"):
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
