"""What the page can be asked, without the page: answers, verdicts, pictures of nothing but the gallery's own images."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from csvi.analysis.heatmaps import activation_energy, heatmap, overlay
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.runs import Run
from csvi.search.app.desk import Desk, Session
from csvi.search.embedder import Embedder
from csvi.search.gallery import Entry, Facts, Hit, make_gallery
from csvi.search.onnx_embedder import OnnxEmbedder
from csvi.search.query import Where

EVERYWHERE = Where()


@pytest.fixture
def ask(desk, sysu_root, records):
    """Asks with test images, by their numbers; gives the session."""

    def ask(*numbers, session=None, where=EVERYWHERE, top=10, by_track=False, spectrum="detect"):
        session = session or Session()
        files = [str(sysu_root / records[n].path) for n in numbers]
        desk.search(session, files, spectrum, where, top, by_track)
        return session

    return ask


def ranking(query, embeddings, records):
    """Paths of all records, best first, by numpy."""
    similarity = embeddings @ query / np.linalg.norm(query) / np.linalg.norm(embeddings, axis=1)
    return [records[n].path for n in np.lexsort(([r.path for r in records], -similarity))]


def test_answers_are_ranked_by_the_average_of_the_probes(ask, embeddings, records):
    session = ask(3, 5)
    assert [hit.path for hit in session.answers] == ranking(embeddings[[3, 5]].mean(0), embeddings, records)[:10]


def test_answers_meet_the_conditions(ask):
    where = Where(cameras=["1", "2"], modality="visible", since=1714602600, until=1714604400)
    answers = ask(3, where=where, top=100).answers
    assert answers
    assert {hit.camera for hit in answers} <= {"1", "2"}
    assert all("2024-05-01T22:30" <= hit.time[:16] <= "2024-05-01T23:00" for hit in answers)
    tracks = [hit.track for hit in ask(3, by_track=True).answers]
    assert len(set(tracks)) == len(tracks) == 10


def test_the_modality_of_probes_is_told_or_taken_as_given(ask, records):
    infrared = next(n for n, record in enumerate(records) if record.modality == Modality.INFRARED)
    assert [probe.modality for probe in ask(infrared).probes] == [Modality.INFRARED]
    assert [probe.modality for probe in ask(infrared, spectrum="visible").probes] == [Modality.VISIBLE]


def test_verdicts_refine_the_search_by_rocchio(ask, embeddings, records):
    session = ask(3)
    before = ranking(embeddings[3], embeddings, records)
    assert [hit.path for hit in session.answers] == before[:10]
    session.judge(2, True)
    session.judge(5, True)
    session.judge(9, False)
    ask(3, session=session, top=50)
    row = {record.path: embedding for record, embedding in zip(records, embeddings, strict=True)}
    right, wrong = (row[before[1]] + row[before[4]]) / 2, row[before[8]]
    after = ranking(embeddings[3] + 0.75 * right - 0.15 * wrong, embeddings, records)
    assert [hit.path for hit in session.answers] == after[:50] != before[:50]


def test_a_verdict_can_be_taken_back(ask):
    session = ask(3)
    before = session.answers
    session.judge(2, True)
    session.judge(2, False)
    assert (session.judged(True), session.judged(False)) == ([], [before[1].path])
    session.judge(2, None)
    assert ask(3, session=session).answers == before


def test_verdicts_stay_under_other_conditions_and_go_with_the_probes(ask):
    session = ask(3)
    session.judge(1, True)
    ask(3, session=session, where=Where(modality="infrared"), spectrum="visible")
    assert len(session.judged(True)) == 1
    ask(4, session=session)
    assert session.verdicts == {}


def test_the_list_holds_answers_and_all_that_was_judged(ask):
    session = ask(3, top=3)
    session.judge(1, True)
    session.judge(3, False)
    judged = [session.answers[0], session.answers[2]]
    camera = next(c for c in "123456" if c not in {hit.camera for hit in judged})
    ask(3, session=session, where=Where(cameras=[camera]), top=2)
    rows = list(csv.DictReader(io.StringIO(session.as_csv())))
    assert list(rows[0]) == ["rank", "path", "modality", "camera", "time", "track", "similarity", "verdict"]
    assert [(row["rank"], row["verdict"]) for row in rows] == [("1", ""), ("2", ""), ("", "right"), ("", "wrong")]
    assert [row["path"] for row in rows[2:]] == [hit.path for hit in judged]
    assert rows[2]["similarity"] == f"{judged[0].similarity:.4f}"
    assert rows[0]["time"] == session.answers[0].time


@pytest.mark.parametrize("rank", [0, 11, -1, "1", None, 1.0, [1]])
def test_a_rank_that_is_none_is_one_sentence(ask, desk, rank):
    session = ask(3)
    with pytest.raises(CsviError, match="no such answer"):
        session.judge(rank, True)
    with pytest.raises(CsviError, match="no such answer"):
        desk.look(session, rank)


def test_probes_that_are_none_are_one_sentence(desk, sysu_root, records, tmp_path, ask):
    session, image = ask(3), str(sysu_root / records[0].path)
    (tmp_path / "notes.txt").write_text("nobody")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for files, message in (
        ([], "there is no probe: drop an image"),
        ([image, str(tmp_path / "notes.txt")], "^the probe notes.txt is not an image: drop another image$"),
        ([str(tmp_path / "empty.jpg")], "the probe empty.jpg is empty"),
        ([str(tmp_path / "gone.jpg")], "the probe gone.jpg is not there"),
        ([image] * 33, "there are 33 probes: give at most 32"),
    ):
        with pytest.raises(CsviError, match=message):
            desk.search(session, files, "detect", EVERYWHERE, 5, False)
        assert session.answers == []  # those before would be taken for the new ones
    for top in (0, 101):
        with pytest.raises(CsviError, match="ask for 1 to 100 answers"):
            desk.search(session, [image], "detect", EVERYWHERE, top, False)
    with pytest.raises(CsviError, match="no image meets these conditions"):
        desk.search(session, [image], "detect", Where(cameras=["9"]), 5, False)


def test_an_empty_gallery_is_one_sentence(gallery_of, embedder, sysu_root, records, tmp_path):
    with gallery_of(tmp_path / "empty.db", sysu_root) as gallery:
        desk = Desk(gallery, embedder)
        with pytest.raises(CsviError, match="is empty: add images with csvi index add"):
            desk.search(Session(), [str(sysu_root / records[0].path)], "detect", EVERYWHERE, 5, False)
        assert desk.statistics().images == 0


def test_a_gallery_of_another_model_is_one_sentence(embedder, tmp_path):
    facts = Facts("f" * 16, "another", embedder.dim, "cosine", "FLAT", False, str(tmp_path))
    with make_gallery(str(tmp_path / "other.db"), facts) as gallery, pytest.raises(CsviError, match="by another"):
        Desk(gallery, embedder)


def test_probes_are_read_in_the_range_of_the_gallery(gallery_of, embedder, tmp_path):
    with gallery_of(tmp_path / "deep.db", tmp_path) as gallery:
        gallery.change(infrared_range="7500,8400")
        desk = Desk(gallery, embedder)
        assert (desk.data.infrared_range, embedder.data.infrared_range) == ("7500,8400", "auto")
        Image.fromarray(np.full((48, 24), 7950, np.uint16)).save(tmp_path / "deep.png")
        hit = Hit("deep.png", "infrared", "", "", "", similarity=0.5, distance=0.5)
        assert abs(int(np.asarray(desk.crop(hit)).mean()) - 127) <= 1


@pytest.fixture
def secret(tmp_path):
    """A gallery's root, beside which lies an image that is nobody's business."""
    root = tmp_path / "root"
    (root / "cam1").mkdir(parents=True)
    for file in (root / "cam1" / "own.png", tmp_path / "secret.png"):
        Image.new("RGB", (24, 48), "red").save(file)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "own-link.png").symlink_to(root / "cam1" / "own.png")
    (root / "notes.png").write_text("nobody")
    return root


def test_images_of_the_root_alone_are_shown(desk, embedder, secret, tmp_path):
    def card(path, root=secret):
        hit = Hit(path, "visible", "1", "", "", similarity=0.5, distance=0.5)
        asked = Desk(desk.gallery, embedder)
        asked.root = root
        (card,) = asked.cards([hit])
        assert bool(card.source) != bool(card.trouble)
        return card

    for path in ("cam1/own.png", "own-link.png", "cam1/../cam1/own.png"):
        assert card(path).source.startswith("data:image/jpeg;base64,")
    outside = ["../secret.png", "cam1/../../secret.png", str(tmp_path / "secret.png"), "link.png", "folder/secret.png"]
    for path in [*outside, "../../etc/passwd", "/etc/passwd", "loop.png", "a\0b", "~/x", "x" * 5000]:
        assert "leads out of" in card(path).trouble or path in ("~/x", "x" * 5000)
    assert card("notes.png").trouble == "the image notes.png is not an image"
    assert card("gone.png").trouble == "the image gone.png is not there"
    linked = tmp_path / "linked"
    linked.symlink_to(secret)
    assert card("cam1/own.png", linked).source


def test_rows_that_lead_out_of_the_root_are_answers_without_a_picture(
    gallery_of, embedder, embeddings, secret, sysu_root, records, tmp_path
):
    paths = ["../secret.png", "../../../../etc/passwd", "cam1/own.png"]
    entries = [Entry(path, "visible", "1", "", "") for path in paths]
    with gallery_of(tmp_path / "hostile.db", secret, embeddings[:3], entries) as gallery:
        desk, session = Desk(gallery, embedder), Session()
        desk.search(session, [str(sysu_root / records[0].path)], "detect", EVERYWHERE, 5, False)
        cards = {hit.path: card for hit, card in zip(session.answers, desk.cards(session.answers), strict=True)}
        assert {path for path, card in cards.items() if card.source} == {"cam1/own.png"}
        rank = 1 + [hit.path for hit in session.answers].index("../secret.png")
        with pytest.raises(CsviError, match="leads out of"):
            desk.look(session, rank)


def test_heatmaps_are_those_of_figure_6(ask, desk, coseg_run, records, monkeypatch):
    shown = []
    monkeypatch.setattr("csvi.search.app.desk.as_source", lambda image: shown.append(image) or "")
    session = ask(3)
    assert len(desk.look(session, 2)) == len(shown) == 4
    run = Run.open(coseg_run)
    number = {record.path: n for n, record in enumerate(records)}
    drawn = [records[number[session.answers[1].path]], records[3]]
    heat = heatmap(activation_energy(run, run.batch(drawn)), 48, 24, 16)
    for record, values, image, picture in zip(drawn, heat.numpy(), shown[::2], shown[1::2], strict=True):
        assert (np.asarray(image) == run.image(record)).all()
        expected = overlay(run.image(record), values) * 255
        assert np.abs(np.asarray(picture) - expected).max() <= 1


@pytest.mark.parametrize(
    ("kind", "message"), [(OnnxEmbedder, "shows no heatmaps: open the page with --run"), (Embedder, "has no features")]
)
def test_a_model_without_heatmaps_is_one_sentence(ask, desk, embedder, kind, message):
    other = kind.__new__(kind)
    other.__dict__ |= {
        name: getattr(embedder, name) for name in ("fingerprint", "name", "dim", "data", "height", "width")
    }
    with pytest.raises(CsviError, match=message):
        Desk(desk.gallery, other).look(ask(3), 1)


def test_statistics_count_cameras_hours_and_days(desk, records):
    statistics = desk.statistics()
    assert (statistics.images, statistics.counted) == (96, 96)
    assert statistics.cameras == list("123456")
    assert statistics.modalities["3", "infrared"] == 16
    assert statistics.modalities.total() == 96
    minutes = [22 * 60 + 30 + n for n in range(96) if n % 7]
    assert statistics.hours == {hour: sum(m // 60 % 24 == hour for m in minutes) for hour in (22, 23, 0)}
    assert statistics.days == {
        "2024-05-01": sum(m < 1440 for m in minutes),
        "2024-05-02": sum(m >= 1440 for m in minutes),
    }
