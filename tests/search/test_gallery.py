"""Galleries in Milvus Lite and behind an address: what is kept, what is refused, and what a broken one says."""

import contextlib
import dataclasses
import fcntl
import json
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pymilvus import DataType

from csvi.errors import CsviError
from csvi.search.fill import Choices, add_features, gallery_for_features
from csvi.search.gallery import NO_TIME, Entry, Gallery, facts_of, metric_of, open_gallery, path_in, seconds_of
from csvi.search.milvus import Milvus
from csvi.search.query import Where, search


@pytest.fixture
def features(make_features):
    return make_features()


def filled(uri, features, **choices):
    """A gallery of these embeddings, open."""
    gallery = gallery_for_features(uri, features, Choices(**choices))
    add_features(gallery, features)
    return gallery


def test_what_is_added_is_there_when_the_gallery_is_opened_again(uri, features):
    with filled(uri, features) as gallery:
        assert len(gallery) == 60
    with open_gallery(uri) as gallery:
        assert len(gallery) == 60
        entries = list(gallery.entries())
        assert [entry.path for entry in entries] == features.path.tolist()
        assert entries[8] == Entry("c/00008.jpg", "visible", "3", "2024-05-01T12:00:08", "t2")
        assert entries[0] == Entry("c/00000.jpg", "infrared", "", "", "")
        assert gallery.counts()["infrared", "3"] == 4
        assert gallery.facts.fingerprint == features.facts["fingerprint"]
        assert (gallery.facts.metric, gallery.facts.index, gallery.facts.root) == ("cosine", "FLAT", "/crops")
        assert gallery.bytes_on_disk > 60 * 8 * 4


def test_the_same_image_twice_is_once_and_the_last_one_counts(uri, features):
    with filled(uri, features) as gallery:
        assert add_features(gallery, features).new == 0
        moved = dataclasses.replace(features, camera=np.array(["9", *features.camera[1:]]))
        again = add_features(gallery, moved)
        assert (again.new, again.replaced, again.there, len(gallery)) == (0, 1, 59, 60)
        assert gallery.there(["c/00000.jpg"])["c/00000.jpg"].camera == "9"
        turned = dataclasses.replace(moved, embedding=-features.embedding)
        assert add_features(gallery, turned, again=True).replaced == len(gallery) == 60
        assert search(gallery, -features.embedding[:1], 1)[0].path == "c/00000.jpg"


def test_embeddings_of_another_model_are_refused(uri, make_features):
    filled(uri, make_features()).close()
    with pytest.raises(CsviError, match=r"by a run \(0123456789abcdef, 8 numbers\).* by b \(ffff"):
        gallery_for_features(uri, make_features(name="b", fingerprint="f" * 16), Choices())
    with pytest.raises(CsviError, match=r"8 numbers\).* 9 numbers\)"):
        gallery_for_features(uri, make_features(dim=9), Choices())
    with open_gallery(uri) as gallery:
        assert len(gallery) == 60


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"metric": "l2"}, "has the metric cosine"), ({"root": Path("/")}, "has the root /crops")],
)
def test_a_gallery_is_never_turned_into_another_kind(uri, features, choice, message):
    filled(uri, features).close()
    with pytest.raises(CsviError, match=message):
        gallery_for_features(uri, features, Choices(**choice))
    open_gallery(uri).close()  # nobody holds it


def test_the_metric_ranks_as_the_euclidean_distance_does(features):
    assert metric_of(3 * features.embedding) == "cosine"
    assert metric_of(features.embedding.astype(np.float16)) == "cosine"
    assert metric_of(features.embedding * np.arange(1, 61)[:, None]) == "l2"


def test_the_metric_is_cosine_though_a_network_divides_by_lengths_in_bfloat16(make_features):
    embeddings = torch.from_numpy(make_features(2000, dim=256, lengths=np.linspace(1, 3, 2000)[:, None]).embedding)
    lengths = embeddings.bfloat16().norm(dim=1, keepdim=True)
    assert lengths.dtype == torch.bfloat16
    assert metric_of((embeddings / lengths).bfloat16().float().numpy()) == "cosine"


def test_the_metric_is_l2_if_lengths_differ_a_little_where_embeddings_hardly_do(features):
    embeddings = features.embedding / 500 + np.eye(8, dtype=np.float32)[0]
    lengths = np.linalg.norm(embeddings, axis=1)
    assert np.ptp(lengths) < 0.01 * lengths.max()
    assert metric_of(embeddings) == "l2"
    assert metric_of(embeddings / lengths[:, None]) == "cosine"


def test_the_metric_of_few_embeddings_is_l2(features):
    assert metric_of(features.embedding[:16]) == "cosine"
    for few in (1, 15):
        assert metric_of(features.embedding[:few]) == "l2"


def test_images_are_removed_and_stay_away(uri, features):
    with filled(uri, features) as gallery:
        gallery.remove(["c/00003.jpg", "c/00004.jpg", "never there.jpg"])
        assert len(gallery) == 58
    with open_gallery(uri) as gallery:
        assert len(gallery) == 58
        assert gallery.there(["c/00003.jpg", "c/00005.jpg"]).keys() == {"c/00005.jpg"}
        assert search(gallery, features.embedding[3:4], 1)[0].path != "c/00003.jpg"
        gallery.drop()
    with pytest.raises(CsviError, match=r"no gallery 'csvi' in .*: make it with csvi index add"):
        open_gallery(uri)


NAMES = ["it's.jpg", 'a "b".jpg', "back\\slash.jpg", "new\nline.jpg", "tab\t.jpg", "größe 🙂.jpg", '"] or path != "']


def test_paths_may_hold_anything(uri, make_features, monkeypatch):
    features = dataclasses.replace(make_features(len(NAMES)), path=np.array(NAMES), camera=np.array(NAMES))
    with filled(uri, features) as gallery:
        assert gallery.there(NAMES).keys() == set(NAMES)
        for name, vector in zip(NAMES, features.embedding, strict=True):
            assert [hit.path for hit in search(gallery, vector[None], 9, Where(cameras=[name]))] == [name]
        for page in (1, 2, 100):  # the path that a page ends with is the condition of the next one
            monkeypatch.setattr("csvi.search.gallery.PAGE", page)
            assert [entry.path for entry in gallery.entries()] == sorted(NAMES)
        assert [entry.path for entry in gallery.entries(Where(cameras=NAMES[:3]).condition)] == sorted(NAMES[:3])
        gallery.remove([NAMES[-1]])
        assert [entry.path for entry in gallery.entries()] == sorted(NAMES[:-1])


def test_what_milvus_cannot_keep_is_left_out_and_named(uri, make_features):
    path = np.array(["a.jpg", "no utf-8 \udcff.jpg", "b" * 5000 + ".jpg"])
    features = dataclasses.replace(make_features(3), path=path)
    with gallery_for_features(uri, features, Choices()) as gallery:
        added = add_features(gallery, features)
        assert list(added.left_out.values()) == ["has a name that is not UTF-8", "has a path that is too long"]
        assert [entry.path for entry in gallery.entries()] == ["a.jpg"]


@pytest.fixture
def address(tmp_path):
    """Address of a Milvus server: Milvus Lite's own."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server"))
    yield f"http://127.0.0.1:{port}"
    server.stop(grace=0)
    database.close()


def test_a_server_answers_as_a_file_does(uri, address, features):
    wheres = [Where(), Where(cameras=["1", "2"], modality="visible"), Where(since=1714564810, tracks=["t4", "t5"])]
    with filled(uri, features) as file, filled(address, features) as server:
        assert (file.facts.index, server.facts.index) == ("FLAT", "HNSW")
        assert server.bytes_on_disk is None
        assert file.counts() == server.counts()
        for where in wheres:
            for by_track in (False, True):
                of_file, of_server = (search(g, features.embedding[:2], 7, where, by_track) for g in (file, server))
                assert [hit.path for hit in of_file] == [hit.path for hit in of_server] != []
                assert np.allclose([hit.distance for hit in of_file], [hit.distance for hit in of_server], atol=1e-6)
        server.remove(["c/00001.jpg"])
    with open_gallery(address) as server:
        assert len(server) == 59


@pytest.mark.parametrize("index", ["HNSW", "HNSW_SQ"])
def test_another_index_is_built_when_it_is_asked_for(uri, make_features, index):
    features = make_features(300)
    filled(uri, features).close()
    with filled(uri, features, index=index) as gallery:
        assert gallery.facts.index == index
    built = list(Path(uri).rglob("*.idx"))
    assert [index.lower() in file.name for file in built] == [True]
    with open_gallery(uri) as gallery:
        assert gallery.facts.index == index
        found = [search(gallery, vector[None], 1)[0].path for vector in features.embedding[:20]]
        assert found == features.path[:20].tolist()
    with filled(uri, features, index="FLAT") as gallery:
        assert not list(Path(uri).rglob("*.idx"))
        assert search(gallery, features.embedding[:1], 1)[0].path == features.path[0]


def test_an_approximate_index_finds_all_images_that_meet_narrow_conditions(uri, make_features, monkeypatch):
    monkeypatch.setattr("csvi.search.gallery.CANDIDATES_IF_FILTERED", 4)
    features = make_features(2000, 64)
    with filled(uri, features, index="HNSW") as gallery:
        hits = search(gallery, features.embedding[:1], 20, Where(tracks=[f"t{n}" for n in (7, 50, 301, 499)]))
        assert len(hits) == 16


def test_an_approximate_index_finds_all_images_if_all_are_asked_for(uri, make_features):
    features = make_features(300)
    with filled(uri, features, index="HNSW") as gallery:
        assert len(search(gallery, features.embedding[:1], 300)) == 300
        where = Where(cameras=["3"], tracks=[f"t{n}" for n in range(70, 75)])
        assert {hit.camera for hit in search(gallery, -features.embedding[:1], 9, where)} == {"3"}


def test_embeddings_that_are_no_numbers_are_refused(uri, features):
    entry = Entry("nan.jpg", "visible", "", "", "")
    with filled(uri, features) as gallery:
        for wrong in (np.nan, np.inf):
            vector = np.full((1, 8), wrong, np.float32)
            with pytest.raises(CsviError, match="a run made embeddings that hold NaN or infinity"):
                gallery.add(vector, [entry])
            with pytest.raises(CsviError, match="NaN or infinity"):
                gallery.nearest(vector[0], 1)
        assert len(gallery) == 60


def test_embeddings_of_another_length_are_refused(uri, features):
    with filled(uri, features) as gallery:
        with pytest.raises(CsviError, match=r"of 8 numbers, and these have the shape \(1, 5\): use its model"):
            search(gallery, np.ones((1, 5), np.float32), 3)
        with pytest.raises(CsviError, match="of 8 numbers"):
            gallery.add(np.ones((1, 5), np.float32), [Entry("short.jpg", "visible", "", "", "")])
        assert len(gallery) == 60


def test_names_that_no_gallery_has_are_one_sentence(uri, features):
    with filled(uri, features) as gallery, pytest.raises(CsviError, match=r"^'\\udcff' is not UTF-8"):
        gallery.nearest(features.embedding[0], 1, Where(cameras=["\udcff"]).condition)
    for name in ("", "../x", "a b", "1a", "\udcff"):
        with pytest.raises(CsviError, match="is no name of a collection"):
            open_gallery(uri, name)


def test_an_index_that_was_cut_off_is_built_anew(uri, make_features):
    features = make_features(300)
    filled(uri, features, index="HNSW").close()
    (file,) = Path(uri).rglob("*.idx")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with open_gallery(uri) as gallery:
        assert search(gallery, features.embedding[:1], 1)[0].path == features.path[0]
    (file,) = Path(uri).rglob("*.idx")
    assert len(file.read_bytes()) == len(whole)


def test_rows_are_not_there_twice_after_a_kill_between_writing_them_and_removing_their_log(uri, features, tmp_path):
    killed = tmp_path / "killed.db"
    entries = [Entry(path, "visible", "", "", "") for path in features.path.tolist()]
    with gallery_for_features(uri, features, Choices()) as gallery:
        gallery.add(features.embedding[:30], entries[:30])
        (log,) = Path(uri).rglob("wal_data_*.arrow")
        shutil.copy(log, tmp_path)
        gallery.settle()  # writes the rows, and removes their log
        gallery.add(features.embedding[30:], entries[30:])
        shutil.copytree(uri, killed)
    shutil.copy(tmp_path / log.name, killed / log.relative_to(uri))
    with open_gallery(str(killed)) as gallery:
        assert len(gallery) == len(list(gallery.entries())) == 60


def test_a_gallery_whose_making_was_cut_off_is_made(uri, features):
    (Path(uri) / "collections" / "csvi").mkdir(parents=True)
    with filled(uri, features) as gallery:
        assert len(gallery) == 60


def test_what_milvus_lite_cannot_keep_is_refused_before_anything_is_made(uri, features):
    with pytest.raises(CsviError, match="32 bits alone: leave --half out"):
        gallery_for_features(uri, features, Choices(half=True))
    with pytest.raises(CsviError, match="no index DISKANN"):
        gallery_for_features(uri, features, Choices(index="DISKANN"))
    with pytest.raises(CsviError, match="no gallery /"):
        open_gallery(uri)


def test_an_index_of_a_server_looks_at_all_images_where_too_few_were_found():
    """No server with DISKANN is at hand: what one is asked."""
    asked, count = [], 500

    class Client:
        def search(self, *_, search_params, **__):
            asked.append(search_params["params"])
            return [[]]

        def query(self, *_, **__):
            return [{"count(*)": count}]

    gallery = object.__new__(Gallery)
    gallery.facts = SimpleNamespace(half=False, dim=8, metric="l2", index="DISKANN")
    gallery._milvus = SimpleNamespace(speaking=lambda what: contextlib.nullcontext())
    gallery._client, gallery._collection = Client(), "csvi"
    gallery.nearest(np.ones(8, np.float32), 10)
    assert asked == [{"search_list": 128}, {"search_list": 500}]
    count = 3_000_000
    gallery.nearest(np.ones(8, np.float32), 16_384)
    assert asked[2:] == [{"search_list": 16_384}, {"search_list": 65_535}]


def test_embeddings_are_looked_up_some_at_a_time_and_none_of_no_image(uri, features, monkeypatch):
    monkeypatch.setattr("csvi.search.gallery.NAMED", 7)
    paths = ["none.jpg", *features.path[::-1].tolist()]
    with filled(uri, features) as gallery:
        asked, query = [], gallery._client.query
        monkeypatch.setattr(gallery._client, "query", lambda *a, **k: asked.append(k["filter"]) or query(*a, **k))
        np.testing.assert_allclose(gallery.embeddings(paths), features.embedding[::-1], atol=1e-6)
        assert len(asked) == 9
        assert gallery.embeddings([]).shape == (0, 8)
        assert len(asked) == 9


def test_sixteen_bits_are_sent_as_such(make_features):
    """No server with them is at hand: what is sent to one."""
    sent = []

    class Client:
        def upsert(self, collection, rows):
            sent.extend(rows)

    features = make_features(3)
    gallery = object.__new__(Gallery)
    gallery.facts = SimpleNamespace(half=True, dim=8, metric="l2")
    gallery._milvus = SimpleNamespace(speaking=lambda what: contextlib.nullcontext())
    gallery._client, gallery._collection = Client(), "csvi"
    gallery.add(features.embedding, [Entry(path, "visible", "", "", "") for path in features.path.tolist()])
    assert [row["embedding"].dtype for row in sent] == [np.float16] * 3
    beyond = np.array([[1e5, *[1] * 7]], np.float32)
    with pytest.raises(CsviError, match="numbers beyond 65,504, which 16 bits cannot hold: leave --half out"):
        gallery.add(beyond, [Entry("beyond.jpg", "visible", "", "", "")])
    assert len(sent) == 3
    gallery.facts.metric = "cosine"  # whose embeddings are brought to length 1 first
    gallery.add(beyond, [Entry("beyond.jpg", "visible", "", "", "")])
    assert sent[3]["embedding"].tolist() == np.array([1, *[1e-5] * 7], np.float16).tolist()


def no_file(folder):
    return str(folder / "gallery.db"), "no gallery .*: make it with csvi index add"


def no_suffix(folder):
    return str(folder / "gallery"), "no name of a gallery: name a file that ends in .db, or a server"


def another_folder(folder):
    (folder / "gallery.db").mkdir()
    (folder / "gallery.db" / "letter.txt").write_text("dear")
    return str(folder / "gallery.db"), "a folder that holds something else"


def another_file(folder):
    (folder / "gallery.db").write_bytes(b"SQLite format 3\0")
    return str(folder / "gallery.db"), "is a file, and no gallery"


def another_scheme(folder):
    return "htp://localhost", "no Milvus at htp://localhost .*: start the server, or name a file"


def no_port(folder):
    return "http://localhost:port", "no Milvus at http://localhost:port .*: start the server"


def no_server(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return (
        f"http://user:secret@127.0.0.1:{port}",
        rf"no Milvus at http://127.0.0.1:{port} \((?!.*secret).*start the server",
    )


def no_collection(folder):
    with contextlib.closing(Milvus(str(folder / "gallery.db"), new=True)):
        pass
    return str(folder / "gallery.db"), "no gallery 'csvi' in"


def another_collection(folder):
    with Milvus(str(folder / "gallery.db"), new=True) as milvus:
        milvus.client.create_collection("csvi", dimension=4)
    return str(folder / "gallery.db"), "the collection 'csvi' in .* is none of csvi: name another with --collection"


@pytest.mark.parametrize(
    "make",
    [
        no_file, no_suffix, another_folder, another_file, another_scheme, no_port, no_server, no_collection,
        another_collection,
    ],
)  # fmt: skip
def test_what_is_no_gallery_is_one_sentence(tmp_path, make, capfd):
    uri, message = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CsviError, match=message) as raised:
        open_gallery(uri)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert capfd.readouterr() == ("", "")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "ip"}, r"the gallery 'csvi' in .* is of an earlier csvi \(metric ip\): fill it anew, in another"),
        ({"metric": "ip", "index": "IVF_SQ8"}, r"of an earlier csvi \(metric ip, index IVF_SQ8\)"),
        ({"index": "IVF_FLAT"}, r"of an earlier csvi \(index IVF_FLAT\)"),
        ({"metric": "hamming"}, "is none of csvi"),
        ({"index": ["IVF_FLAT"]}, "is none of csvi"),
    ],
)
def test_a_gallery_of_an_earlier_csvi_is_named_so(uri, features, change, message):
    with filled(uri, features) as gallery:
        facts = json.dumps(dataclasses.asdict(gallery.facts) | change)
        gallery._client.alter_collection_properties("csvi", {"csvi": facts})
    for opened in (lambda: open_gallery(uri), lambda: facts_of(uri), lambda: filled(uri, features)):
        with pytest.raises(CsviError, match=message):
            opened()


def test_a_new_gallery_needs_its_folder(tmp_path, features):
    with pytest.raises(CsviError, match=r"no folder .*: make it"):
        gallery_for_features(str(tmp_path / "none" / "gallery.db"), features, Choices())


def test_two_processes_cannot_open_one_file(uri, features, capfd):
    filled(uri, features).close()
    with (Path(uri) / "LOCK").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process does
        with pytest.raises(CsviError, match="is in use by another process: wait for it, or end it"):
            open_gallery(uri)
    assert capfd.readouterr() == ("", "")
    open_gallery(uri).close()


@pytest.mark.parametrize("name", ["schema.json", "manifest.json", "*.parquet"])
def test_a_damaged_gallery_is_one_sentence(uri, features, name, capfd):
    filled(uri, features).close()
    for file in Path(uri).rglob(f"{name}*"):
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(
        CsviError, match=r"cannot read the gallery .* if it is damaged, remove it, and add the images again$"
    ):
        open_gallery(uri)
    assert capfd.readouterr() == ("", "")


def test_without_the_extra_it_is_one_sentence(uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(CsviError, match=r"pip install 'csvi\[search\]'"):
        open_gallery(uri)


def test_facts_stand_with_the_collection(uri, features):
    filled(uri, features).close()
    with Milvus(uri) as milvus:
        described = milvus.client.describe_collection("csvi")
    assert json.loads(described["properties"]["csvi"])["name"] == "a run"
    kinds = {field["name"]: field["type"] for field in described["fields"]}
    assert (kinds["embedding"], kinds["seconds"]) == (DataType.FLOAT_VECTOR, DataType.INT64)


def test_times_are_seconds_of_utc():
    assert seconds_of("2024-05-01T12:00:00") == seconds_of("2024-05-01T14:00:00+02:00") == 1714564800
    assert seconds_of("2024-05-01T12:00:00.9") == 1714564800
    assert seconds_of("1970-01-01T00:00:00+08:00") == -28800
    assert seconds_of("") == NO_TIME < seconds_of("0001-01-02")


def test_paths_are_relative_to_the_root():
    assert path_in(Path("/crops"), "/crops/cam1/a.jpg") == "cam1/a.jpg"
    assert path_in(Path("/crops"), "/crops/cam1/../b.jpg") == "b.jpg"
    for outside in ("/crops2/a.jpg", "/crops/../a.jpg"):
        with pytest.raises(CsviError, match="lies outside of /crops, the root of the gallery"):
            path_in(Path("/crops"), outside)
