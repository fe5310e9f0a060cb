"""Runs and features under the protocols of every layout, on files that `csvi synth` wrote; evaluations on disk."""

import copy
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

import csvi
from csvi.analysis.tables import print_evaluation
from csvi.config import DataConfig
from csvi.data import protocols_of, read_benchmark
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.evaluate import Refinement, evaluate_protocols
from csvi.evaluate.protocols import Trial
from csvi.fabric import make_fabric
from csvi.methods import build_method
from csvi.runs import Evaluation, Options, Run, evaluate_features, evaluate_run
from csvi.runs.embeddings import embed, read_embeddings
from csvi.runs.evaluation import evaluated, kept_evaluation, save_evaluation
from csvi.runs.statistics import differing_settings, summarize

PROTOCOLS = {
    "sysu": [f"{mode} {shots}" for mode in ("all-search", "indoor-search") for shots in ("single-shot", "multi-shot")],
    "regdb": ["visible to thermal", "thermal to visible"],
    "llcm": ["infrared to visible", "visible to infrared", "llcm-swapped"],
    "folder": ["infrared to visible", "visible to infrared"],
}


def evaluate(folder, options=None):
    return evaluate_run(Run.open(folder, options or Options()))


@pytest.mark.slow
def test_a_run_is_tested_under_the_protocols_of_its_dataset(root, untrained, tmp_path):
    run = Run.open(untrained(tmp_path / "run", root))
    evaluation = evaluate_run(run)
    assert [result.protocol for result in evaluation.protocols] == PROTOCOLS[root.name]
    assert evaluation.synthetic
    assert evaluation.protocols == evaluate_protocols(protocols_of(run.benchmark), run.embeddings, run.benchmark.test)
    for result in evaluation.protocols:
        assert not result.refinements
        for spread in result.metrics.values():
            assert 0 <= spread.low <= spread.mean <= spread.high <= 1
    file = save_evaluation(evaluation, run)
    assert file.name == "evaluation.json"
    assert json.loads(file.read_text())["protocols"] == json.loads(
        json.dumps([asdict(r) for r in evaluation.protocols])
    )
    assert Evaluation.load(run.folder) == Evaluation.load(file) == evaluation


def test_features_get_the_metrics_of_the_run_they_come_from(root, untrained, tmp_path):
    run = Run.open(untrained(tmp_path / "run", root))
    expected = evaluate_run(run)
    order = np.random.default_rng(0).permutation(len(run.benchmark.test))
    paths = np.array([record.path for record in run.benchmark.test])
    np.savez(tmp_path / "f.npz", embedding=run.embeddings.numpy()[order], path=paths[order])
    evaluation = evaluate_features(f"{tmp_path}/f.npz", Options(root=root))
    assert evaluation.layout == root.name
    assert evaluation.protocols == expected.protocols


@pytest.mark.slow
def test_what_an_evaluation_leaves_is_what_features_read(root, untrained, tmp_path):
    run = Run.open(untrained(tmp_path / "run", root))
    evaluation = evaluated(run)
    file = tmp_path / "run" / "embeddings.npz"
    with np.load(file) as arrays:
        assert arrays["embedding"].shape == run.embeddings.shape
        assert arrays["path"].tolist() == [record.path for record in run.benchmark.test]
    assert evaluate_features(file, Options(root=str(root))).protocols == evaluation.protocols


@pytest.mark.slow
def test_refinements_are_named_and_never_overwrite_the_plain_result(root, untrained, tmp_path):
    folder = untrained(tmp_path / "run", root)
    options = Options(flip=True, refinement=Refinement(rerank=True, expand=2))
    runs = [Run.open(folder), Run.open(folder, options)]
    plain, refined = (evaluate_run(run) for run in runs)
    for result in refined.protocols:
        assert [name.split(" (")[0] for name in result.refinements] == [
            "flip averaging",
            "query expansion",
            "k-reciprocal re-ranking",
        ]
    names = [save_evaluation(*both).name for both in zip((plain, refined), runs, strict=True)]
    assert names == ["evaluation.json", "evaluation-flip-averaging-query-expansion-2-k-reciprocal-re-ranking.json"]
    assert {file.name for file in folder.glob("embeddings*")} == {"embeddings.npz", "embeddings-flip-averaging.npz"}
    assert kept_evaluation(runs[0]) == plain
    assert kept_evaluation(runs[1]) == refined


def test_flip_averaging_does_not_know_left_from_right(config):
    net = build_method(config, identities=5).net
    image, modality = torch.randn(6, 3, 48, 24), torch.tensor([0, 1, 0, 1, 1, 0])
    fabric = make_fabric(config.precision)

    def embedded(image, flip):
        return embed(net, [Batch(image, modality, modality)], fabric, flip)

    both = embedded(image, flip=True)
    assert not torch.allclose(both, embedded(image, flip=False), atol=1e-3)
    torch.testing.assert_close(both, embedded(image.flip(3), flip=True))
    torch.testing.assert_close(both.unflatten(1, (3, -1)).norm(dim=2), torch.ones(6, 3))


@pytest.mark.slow
@pytest.mark.parametrize("root", ["regdb"], indirect=True)
def test_the_ten_models_of_regdb_have_one_mean(root, untrained, tmp_path):
    runs = [Run.open(untrained(tmp_path / f"regdb-{fold}", root, fold=fold)) for fold in range(1, 11)]
    evaluations = [evaluate_run(run) for run in runs]
    assert differing_settings(evaluations) == []
    assert evaluations[0].settings["method.backbone"] == "mobilenet_v2"
    summary = summarize(evaluations)
    assert summary.folds == list(range(1, 11))
    for p, protocol in enumerate(PROTOCOLS["regdb"]):
        values = [evaluation.protocols[p].metrics["mAP"].mean for evaluation in evaluations]
        mean = summary.metrics[protocol]["mAP"]
        assert mean.runs == values
        assert mean.mean == pytest.approx(np.mean(values))
        assert mean.std == pytest.approx(np.std(values, ddof=1))
    assert len({run.embeddings.sum().item() for run in runs}) == 10


@pytest.mark.parametrize("root", ["sysu"], indirect=True)
def test_no_mean_over_galleries_that_were_drawn_otherwise(root, untrained, tmp_path):
    a, b = (untrained(tmp_path / name, root) for name in "ab")
    with pytest.raises(CsviError, match=r"would mean nothing: .*galleries: seeded and official"):
        summarize([evaluate(a), evaluate(b, Options(gallery="official"))])


@pytest.mark.slow
@pytest.mark.parametrize("root", ["sysu"], indirect=True)
def test_refined_rankings_have_no_table_of_cameras(root, untrained, tmp_path):
    folder = untrained(tmp_path / "run", root)
    assert evaluate(folder, Options(flip=True)).camera_pairs
    for refinement in (Refinement(rerank=True), Refinement(expand=2)):
        assert evaluate(folder, Options(refinement=refinement)).camera_pairs == []


@pytest.mark.parametrize("root", ["folder"], indirect=True)
def test_a_run_counts_once_and_all_see_the_same_images(root, untrained, tmp_path):
    evaluation = evaluate(untrained(tmp_path / "run", root))
    with pytest.raises(CsviError, match="was given twice"):
        summarize([evaluation, evaluation])
    with pytest.raises(CsviError, match="the test images differ"):
        summarize([evaluation, replace(evaluation, model="other", fingerprint="0")])


@pytest.fixture
def constant_features(sysu_root, tmp_path):
    """Embeddings that are all zero."""
    paths = [record.path for record in read_benchmark(DataConfig(root=str(sysu_root))).test]
    np.savez(tmp_path / "f.npz", embedding=np.zeros((len(paths), 4), np.float32), path=paths)
    return tmp_path / "f.npz"


def test_embeddings_that_are_all_equal_are_told_once(constant_features, sysu_root, coseg_run, caplog):
    evaluate_features(constant_features, Options(root=sysu_root))
    assert [message[:25] for message in caplog.messages] == ["all embeddings are equal:"]
    caplog.clear()
    evaluate(coseg_run)
    assert caplog.messages == []


def test_queries_are_not_expanded_by_more_images_than_there_are(constant_features, sysu_root):
    expanded = Options(root=sysu_root, refinement=Refinement(expand=17))
    with pytest.raises(CsviError, match=r"^--expand 17: the gallery holds 16 images$"):
        evaluate_features(constant_features, expanded)


def test_features_need_a_root_and_no_flip(tmp_path):
    with pytest.raises(CsviError, match=r"--data\.root"):
        evaluate_features(tmp_path / "f.npz", Options())
    with pytest.raises(CsviError, match="--flip averages while embedding"):
        evaluate_features(tmp_path / "f.npz", Options(root=str(tmp_path), flip=True))


@pytest.fixture
def counted(monkeypatch):
    """How often test images were embedded."""
    calls = []

    def count(*arguments, embed=embed):
        calls.append(arguments)
        return embed(*arguments)

    monkeypatch.setattr("csvi.runs.embeddings.embed", count)
    return calls


@pytest.fixture
def own(sysu_root, tmp_path):
    """A dataset that a test may change."""
    return shutil.copytree(sysu_root, tmp_path / "data")


def test_embeddings_are_used_again_and_give_the_very_same(coseg_run, tmp_path, counted):
    folder = shutil.copytree(coseg_run, tmp_path / "run")
    first = Evaluation.load(folder)
    assert first.masks
    (folder / "evaluation.json").unlink()
    run = Run.open(folder)
    assert kept_evaluation(run) is None
    again = evaluated(run)
    assert not counted
    assert again.protocols == first.protocols
    assert again.masks == first.masks
    assert again.seconds["embedding"] == 0
    assert kept_evaluation(Run.open(folder)) == again
    assert evaluated(Run.open(folder)) == again
    assert torch.equal(Run.open(folder).embeddings, run.embeddings)
    assert not counted


@pytest.mark.slow
def test_embeddings_of_other_weights_images_or_settings_are_not_used(baseline_run, own, tmp_path, counted):
    folder = shutil.copytree(baseline_run, tmp_path / "run")
    elsewhere = Options(root=str(own), cache=str(tmp_path / "cache"))
    evaluated(Run.open(folder))
    evaluated(Run.open(folder))
    assert not counted
    evaluated(Run.open(folder, elsewhere))  # the same images, copied: their times are the same
    evaluated(Run.open(folder, elsewhere))
    assert len(counted) <= 1

    def embeds(change, options=elsewhere, settings=None):
        """Whether a change makes embeddings be computed again, and then be kept."""
        evaluated(Run.open(folder, options))
        counted.clear()
        change()
        run = Run.open(folder, options)
        assert kept_evaluation(run) is None
        assert run.kept_embeddings() is None
        evaluated(run)
        assert len(counted) == 1
        evaluated(Run.open(folder, options))
        assert len(counted) == 1

    image = own / Run.open(folder, elsewhere).benchmark.test[0].path
    embeds(lambda: image.write_bytes(image.read_bytes() + b"\0"))
    weights = folder / "model.safetensors"
    embeds(lambda: weights.write_bytes(bytes([*weights.read_bytes()[:-1], 7])))
    settings = folder / "config.yaml"
    embeds(lambda: settings.write_text(settings.read_text().replace("precision: 32-true", "precision: bf16-mixed")))
    run = Run.open(folder, replace(elsewhere, flip=True))
    assert run.embeddings_file.name == "embeddings-flip-averaging.npz" or "flip" in run.embeddings_file.name
    assert kept_evaluation(run) is None
    assert run.kept_embeddings() is None


def test_an_evaluation_is_not_loaded_for_weights_that_it_is_not_of(baseline_run, tmp_path):
    folder = shutil.copytree(baseline_run, tmp_path / "run")
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes([*weights.read_bytes()[:-1], 7]))
    for path in (folder, folder / "evaluation.json"):
        with pytest.raises(CsviError, match=r"is of other weights than the run has now: evaluate it again, csvi eval"):
            Evaluation.load(path)


def test_an_evaluation_on_other_data_of_the_same_name_is_not_replaced_without_a_word(baseline_run, tmp_path, caplog):
    run = Run.open(shutil.copytree(baseline_run, tmp_path / "run"))
    evaluation = Evaluation.load(baseline_run)
    save_evaluation(replace(evaluation, root="/moved"), run)
    assert not caplog.messages
    file = save_evaluation(replace(evaluation, root="/other", fingerprint="f"), run)
    assert caplog.messages == [f"{file} was of /moved: the evaluation on /other replaces it"]


def test_another_gallery_ranks_the_same_embeddings(baseline_run, tmp_path, counted):
    folder = shutil.copytree(baseline_run, tmp_path / "run")
    plain = evaluated(Run.open(folder))
    refined = evaluated(Run.open(folder, Options(refinement=Refinement(expand=2))))
    assert refined.protocols != plain.protocols
    assert Evaluation.load(folder) == plain
    assert not counted


@pytest.mark.slow
def test_masks_from_elsewhere_are_compared_anew(coseg_run, sysu_root, tmp_path, counted):
    folder, masks = shutil.copytree(coseg_run, tmp_path / "run"), tmp_path / "masks"
    shutil.copytree(sysu_root / "masks", masks)
    first = evaluated(Run.open(folder))
    assert kept_evaluation(Run.open(folder)) == first
    run = Run.open(folder, Options(masks=str(masks)))
    assert kept_evaluation(run) is None
    assert evaluated(run).masks == first.masks
    assert not counted


@pytest.fixture
def compared(own, coseg_run, tmp_path):
    """Opens the run on the dataset that a test has changed."""
    folder = shutil.copytree(coseg_run, tmp_path / "run")
    return lambda **options: Run.open(folder, Options(root=str(own), cache=str(tmp_path / "cache"), **options))


def masks_of(root, cameras, identities="*"):
    return sorted((root / "masks").glob(f"cam[{cameras}]/{identities}/*.png"))


@pytest.fixture
def left_half(monkeypatch):
    """The left half of every image is predicted as a person, and nowhere is it certain."""
    half = torch.full((48, 24), 0.2)
    half[:, :12] = 0.9
    monkeypatch.setattr(
        Run, "masks_by_identity", lambda run: [([i], half[None]) for i in range(len(run.benchmark.test))]
    )
    return half.numpy() > 0.5


def test_masks_of_nobody_have_no_part_in_the_iou_and_are_counted(own, compared, left_half, capsys):
    nobody = masks_of(own, "36", "0013")
    infrared = [file for file in masks_of(own, "36") if file.parent.name >= "0013"]  # who is tested
    for file in nobody:
        Image.new("L", (24, 48)).save(file)
    evaluation = evaluate_run(compared())
    found = evaluation.masks["infrared"]
    true = [np.asarray(Image.open(file)) > 127 for file in infrared if file not in nobody]
    ious = [(mask & left_half).sum() / (mask | left_half).sum() for mask in true]
    assert (found.images, found.without_person, found.predicted_without) == (28, 4, 0.5)
    assert found.iou == pytest.approx(np.mean(ious), abs=1e-6)
    assert found.constant_iou < 1
    print_evaluation(evaluation)
    shown = capsys.readouterr().out
    assert "4 of 32 infrared masks show nobody and are left out; 50.0 % of the pixels" in shown
    assert "visible masks show nobody" not in shown


def test_a_modality_whose_masks_show_nobody_has_no_iou_and_that_is_said(own, compared, caplog):
    for file in masks_of(own, "36"):
        Image.new("L", (24, 48)).save(file)
    assert set(evaluate_run(compared()).masks) == {"visible"}
    assert "no mask of the infrared test images shows a person" in caplog.text


@pytest.mark.slow
def test_masks_that_are_none_are_said_before_anything_is_embedded(own, compared, counted):
    """Labels are black as grey, and black masks against black ones had an intersection over union of 1.000."""
    for file in masks_of(own, "1-6"):
        Image.fromarray(np.asarray(Image.open(file)) // 255 * 7).save(file)
    with pytest.raises(CsviError, match=r"^the visible masks need --data\.mask_values nonzero: "):
        evaluate_run(compared())
    assert not counted
    by_setting = evaluate_run(compared(mask_values="nonzero"))
    assert by_setting.masks == evaluated(Run.open(compared().folder)).masks


def test_masks_that_some_images_lack_are_told(own, compared, caplog):
    masks_of(own, "3", "0013")[0].unlink()
    assert evaluate_run(compared()).masks == {}
    assert "1 of 96 test images have no mask, such as cam3/0013/0001.jpg: predicted ones are not" in caplog.text


def test_another_reading_of_masks_is_another_evaluation(compared):
    run = compared()
    evaluation = evaluated(run)
    assert kept_evaluation(compared()) == evaluation
    assert kept_evaluation(compared(mask_values="nonzero")) is None


def test_embeddings_are_kept_bit_for_bit(baseline_run, tmp_path, monkeypatch):
    """All in one place but for what 16 bits could not tell."""
    folder = shutil.copytree(baseline_run, tmp_path / "run")
    (folder / "embeddings.npz").unlink()
    run = Run.open(folder)
    identity = torch.tensor([record.identity for record in run.benchmark.test])
    exact = torch.nn.functional.one_hot(identity).float() / 2**14 + 1
    monkeypatch.setattr("csvi.runs.embeddings.embed", lambda *_: exact)
    evaluation = evaluate_run(run)
    save_evaluation(evaluation, run)
    assert evaluation.protocols[0].metrics["mAP"].mean == 1
    paths = [record.path for record in run.benchmark.test]
    assert torch.equal(read_embeddings(folder / "embeddings.npz", paths), exact)


def test_camera_pairs_are_of_the_first_protocol_that_has_results(baseline_run, monkeypatch):
    def with_one_that_cannot_be_answered(*given):
        protocols = protocols_of(*given)
        return [replace(protocols[0], name="nothing", trials=[Trial([0], [])]), *protocols]

    expected = evaluated(Run.open(baseline_run))
    monkeypatch.setattr("csvi.runs.evaluation.protocols_of", with_one_that_cannot_be_answered)
    found = evaluate_run(Run.open(baseline_run))
    assert found.protocols == expected.protocols
    assert found.camera_pairs == expected.camera_pairs != []


@pytest.mark.parametrize("options", [Options(), Options(gallery="official"), Options(refinement=Refinement(expand=1))])
def test_the_protocols_that_are_asked_for_are_ranked_once(baseline_run, tmp_path, monkeypatch, options):
    folder, asked = shutil.copytree(baseline_run, tmp_path / "run"), []
    (folder / "embeddings.npz").unlink()

    def some_protocols(benchmark, split, gallery):
        return [replace(protocol, gallery=gallery or "seeded") for protocol in protocols_of(benchmark, split, trials=2)]

    def evaluate_these(protocols, embeddings, images, refinement):
        asked.append((protocols[0].gallery, refinement))
        return evaluate_protocols(protocols, embeddings, images, refinement)

    monkeypatch.setattr("csvi.runs.evaluation.protocols_of", some_protocols)
    monkeypatch.setattr("csvi.runs.evaluation.evaluate_protocols", evaluate_these)
    run = Run.open(folder, options)
    evaluation = evaluate_run(run)
    gallery = options.gallery or "seeded"
    assert asked == [(gallery, options.refinement)]
    expected = evaluate_protocols(
        some_protocols(run.benchmark, "test", options.gallery), run.embeddings, run.benchmark.test, options.refinement
    )
    assert evaluation.protocols == expected
    assert evaluation.seconds["ranking"] > 0


@pytest.mark.slow
def test_a_damaged_file_of_embeddings_is_written_anew(baseline_run, tmp_path, counted):
    folder = shutil.copytree(baseline_run, tmp_path / "run")
    whole = (folder / "embeddings.npz").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no archive"):
        (folder / "embeddings.npz").write_bytes(content)
        (folder / "evaluation.json").unlink()
        counted.clear()
        evaluated(Run.open(folder))
        assert len(counted) == 1
        with np.load(folder / "embeddings.npz") as arrays, np.load(baseline_run / "embeddings.npz") as before:
            assert (arrays["embedding"] == before["embedding"]).all()


PEOPLE = 8
NO_EVALUATION = (
    rf"is no evaluation of csvi {csvi.__version__} \(.*\): give a run folder, or the evaluation\.json of one"
)


@pytest.fixture(scope="module")
def good(baseline_run):
    return Evaluation.load(baseline_run)


@pytest.fixture
def plain(good):
    """What JSON holds of it."""
    return json.loads(json.dumps(asdict(good)))


def test_load(good, plain, tmp_path):
    file = tmp_path / "evaluation.json"
    with pytest.raises(CsviError, match=f"evaluate it first, csvi evaluate {tmp_path}$"):
        Evaluation.load(tmp_path)
    with pytest.raises(CsviError, match=f"evaluate it first, csvi evaluate {tmp_path}$"):
        Evaluation.load(tmp_path / "evaluation-official.json")
    with pytest.raises(CsviError, match=r"no .*nowhere: evaluate it first, csvi evaluate .*nowhere$"):
        Evaluation.load(tmp_path / "nowhere")
    file.write_text(json.dumps(plain))
    assert Evaluation.load(tmp_path) == Evaluation.load(file) == good
    assert good.save(tmp_path / "again.json").read_text() == json.dumps(plain, indent=1) + "\n"
    for content in (
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"protocols": 3}',
        '{"protocols": []}',
        *(json.dumps(plain | {"protocols": protocols}) for protocols in ([], {}, [3], [{}])),
    ):
        file.write_text(content)
        with pytest.raises(CsviError, match=NO_EVALUATION):
            Evaluation.load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CsviError, match=NO_EVALUATION):
        Evaluation.load(file)
    del plain["protocols"][1]["by_identity"]
    file.write_text(json.dumps(plain | {"version": "0.0.9"}))
    with pytest.raises(CsviError, match=r"has no by_identity.*evaluate it again if another version wrote it"):
        Evaluation.load(file)


def test_load_what_is_printed(good, plain, tmp_path):
    file = tmp_path / "printed.json"
    file.write_text(json.dumps({"evaluations": [plain], "summary": None, "differing_settings": []}))
    assert Evaluation.load(file) == good
    for several in ([], [plain, plain]):
        file.write_text(json.dumps({"evaluations": several, "summary": None}))
        with pytest.raises(CsviError, match=rf"printed\.json holds {len(several)} evaluations: give a file with one"):
            Evaluation.load(file)
    for content in ({"evaluations": [3]}, {"evaluations": {}}, {"evaluations": [[plain]]}, {"evaluations": [{}]}):
        file.write_text(json.dumps(content))
        with pytest.raises(CsviError, match=NO_EVALUATION):
            Evaluation.load(file)


@pytest.mark.parametrize(
    "changes",
    [
        *({key: value} for key in ("identity", "queries", "sums") for value in (None, 3, "x", {}, [], ["a"] * PEOPLE)),
        {"identity": [1]},
        {"queries": [1]},
        {"queries": [0] * PEOPLE},
        {"queries": [True] * PEOPLE},
        {"queries": [0.5] * PEOPLE},
        {"queries": [10**400] * PEOPLE},
        {"identity": [], "queries": [], "sums": {name: [] for name in ("R1", "mAP", "mINP")}},
        {"sums": {"R1": [1.0] * PEOPLE}},
        {"sums": {name: [1.0] * PEOPLE for name in ("R1", "mAP")} | {"mINP": [1.0]}},
        {"sums": {name: [float("nan")] * PEOPLE for name in ("R1", "mAP", "mINP")}},
        {"sums": {name: [10**400] * PEOPLE for name in ("R1", "mAP", "mINP")}},
        {"sums": dict.fromkeys(("R1", "mAP", "mINP"))},
    ],
)
def test_damaged_evaluations(plain, tmp_path, changes):
    """Changes of what the second protocol says of each identity; None leaves it out."""
    by_identity = plain["protocols"][1]["by_identity"]
    assert len(by_identity["identity"]) == PEOPLE
    sums = changes.get("sums")
    if isinstance(sums, dict) and sums.keys() == {"R1", "mAP", "mINP"}:  # nothing but its length or numbers is wrong
        changes = {**changes, "sums": {"R10": sums["R1"], "R20": sums["R1"], **sums}}
    changed = {key: value for key, value in (by_identity | changes).items() if value is not None}
    plain["protocols"][1]["by_identity"] = changed
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(plain))
    with pytest.raises(CsviError, match=rf"evaluation\.json {NO_EVALUATION}, and evaluate it again"):
        Evaluation.load(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"benchmark": 3},
        {"synthetic": "no"},
        {"fold": "one"},
        {"fold": [1]},
        {"fingerprint": 3},
        {"fingerprint": None},
        {"key": 3},
        {"protocols": "all"},
        {"protocols": [{"protocol": 3, "gallery": "all"}]},
        {"protocols": [{"protocol": "all"}]},
        {"masks": {"visible": {"images": 1}}},
        {"seconds": {"embedding": "1"}},
        {"mine": 1},
    ],
)
def test_what_is_no_evaluation(plain, tmp_path, changes):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(plain | changes))
    with pytest.raises(CsviError, match=NO_EVALUATION):
        Evaluation.load(file)


def test_files_that_are_no_evaluation_in_other_ways(plain, tmp_path, monkeypatch):
    file = tmp_path / "evaluation.json"
    file.write_text("[" * 100_000)
    with pytest.raises(CsviError, match=NO_EVALUATION):
        Evaluation.load(file)
    for changes in ({"by_identity": {}}, {"by_identity": None}, {"refinements": 3}, {"refinements": [3]}):
        changed = copy.deepcopy(plain)
        changed["protocols"][0] |= changes
        file.write_text(json.dumps(changed))
        with pytest.raises(CsviError, match=NO_EVALUATION):
            Evaluation.load(file)

    def deny(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(file), "read_text", deny)
    with pytest.raises(CsviError, match=r"^cannot read .*evaluation.json: Permission denied$"):
        Evaluation.load(file)


def test_a_protocol_by_name(good):
    assert good.result() is good.protocols[0]
    assert good.result("indoor-search single-shot").protocol == "indoor-search single-shot"
    with pytest.raises(CsviError, match="not evaluated under 'tracking': choose one of all-search single-shot, "):
        good.result("tracking")
