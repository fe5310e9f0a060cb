"""A run, opened: on which dataset it is tested, what it was trained on, and what is refused."""

import dataclasses
import json
import shutil

import pytest
import torch

from csvi.config import DataConfig
from csvi.data import read_benchmark
from csvi.data.records import DISTRACTOR
from csvi.errors import CsviError
from csvi.evaluate import Refinement
from csvi.runs import Options, Run, evaluate_run
from csvi.runs.evaluation import evaluation_file, save_evaluation


@pytest.mark.parametrize("root", ["llcm"], indirect=True)
def test_another_dataset_than_the_one_trained_on(root, untrained, tmp_path, sysu_root):
    run = Run.open(untrained(tmp_path / "run", root), Options(root=str(sysu_root)))
    evaluation = evaluate_run(run)
    assert evaluation.layout == "sysu"
    assert save_evaluation(evaluation, run).name == "evaluation-on-sysu.json"
    assert run.embeddings_file.name == "embeddings-on-sysu.npz"
    assert run.embeddings_file.is_file()


@pytest.mark.parametrize("root", ["folder"], indirect=True)
def test_a_model_alone_is_told_what_to_be_tested_on(root, untrained, tmp_path, cache_folder):
    folder = untrained(tmp_path / "run", root)
    expected = Run.open(folder).embeddings
    (folder / "config.yaml").unlink()
    with pytest.raises(CsviError, match=r"of a model alone, say what to test it on with --data\.root"):
        Run.open(folder)
    run = Run.open(folder, Options(root=root, cache=cache_folder))
    assert run.config is None
    assert (run.data.height, run.data.width) == (48, 24)
    assert evaluate_run(run).layout == "folder"
    torch.testing.assert_close(run.embeddings, expected, atol=0.05, rtol=0)  # another precision
    for what in (lambda: run.method, lambda: run.training_set):
        with pytest.raises(CsviError, match="is a model alone"):
            what()


def test_a_run_that_has_only_begun_is_told(tmp_path):
    (tmp_path / ".lock").touch()
    with pytest.raises(CsviError, match=f"no training has left anything in {tmp_path} yet"):
        Run.open(tmp_path)
    (tmp_path / "masks.json").touch()  # as of another command that locks its folder
    with pytest.raises(CsviError, match="is not the folder of a run"):
        Run.open(tmp_path)


@pytest.mark.parametrize("root", ["folder"], indirect=True)
@pytest.mark.parametrize("side", ["a", [1], None, True, 48.0, 0, -48, 4096, 10**20])
@pytest.mark.parametrize("name", ["height", "width"])
def test_a_model_of_strangers_names_a_size_for_images(root, untrained, tmp_path, name, side):
    folder = untrained(tmp_path / "run", root)
    (folder / "config.yaml").unlink()
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {name: side}))
    with pytest.raises(CsviError, match=r"config\.json"):
        evaluate_run(Run.open(folder, Options(root=str(root), cache=str(tmp_path / "cache"))))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("root", ["regdb"], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(gallery="official"), "galleries of .* are all, not official"),
        (Options(fold=11), r"has the folds 1 to 10: there is no --data\.fold 11"),
        (Options(layout="llcm"), "set --data.layout regdb"),
        (Options(root="~nobody-at-all/data"), "~nobody-at-all/data begins with the name of nobody"),
    ],
)
def test_bad_options(root, untrained, tmp_path, options, message):
    with pytest.raises(CsviError, match=message):
        evaluate_run(Run.open(untrained(tmp_path / "run", root), options))


@pytest.mark.parametrize("root", ["regdb"], indirect=True)
def test_a_model_is_not_tested_on_people_it_was_trained_on(root, untrained, tmp_path):
    folder = untrained(tmp_path / "run", root, fold=2)
    assert evaluate_run(Run.open(folder)).fold == 2
    with pytest.raises(CsviError, match="was trained on fold 2, whose people are tested in fold 1"):
        Run.open(folder, Options(fold=1))
    copied = shutil.copytree(root, tmp_path / "copied")
    with pytest.raises(CsviError, match="was trained on fold 2, whose people are tested in fold 1"):
        Run.open(folder, Options(root=str(copied), fold=1))
    image = copied / read_benchmark(DataConfig(root=str(copied), layout="regdb", fold=2)).test[0].path
    image.write_bytes(image.read_bytes() + b"\0")  # other people, as far as can be told
    assert Run.open(folder, Options(root=str(copied), fold=3)).file_of("evaluation.json").name == (
        "evaluation-on-copied-fold-3.json"
    )


def test_a_dataset_of_one_fold_has_no_second(coseg_run):
    with pytest.raises(CsviError, match=r"^SYSU-MM01 has one fold: there is no --data\.fold 2$"):
        evaluate_run(Run.open(coseg_run, Options(fold=2)))


@pytest.mark.slow
@pytest.mark.parametrize("root", ["sysu"], indirect=True)
def test_other_data_do_not_overwrite_the_result_and_moved_data_do(root, untrained, tmp_path):
    folder = untrained(tmp_path / "run", root)
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(root, moved)
    shutil.copytree(root, other)
    first = min(record.path for record in read_benchmark(DataConfig(root=str(other))).test)
    (other / first).write_bytes((other / first).read_bytes() + b"\0")
    names = []
    for data in (root, moved, other):
        run = Run.open(folder, Options(root=str(data)))
        names.append(save_evaluation(evaluate_run(run), run).name)
    assert names == ["evaluation.json", "evaluation.json", "evaluation-on-other.json"]
    shutil.move(root, tmp_path / "gone")  # then its last evaluation says what it was
    try:
        assert Run.open(folder, Options(root=str(other))).elsewhere
        assert not Run.open(folder, Options(root=str(moved))).elsewhere
    finally:
        shutil.move(tmp_path / "gone", root)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CsviError, match="there is no such folder"):
        Run.open("nowhere", Options(root="data"))
    with pytest.raises(CsviError, match="there is no such folder here: of a model of the Hub, say what"):
        Run.open("runs/typo")


def test_everything_is_made_once(coseg_run):
    run = Run.open(coseg_run)
    assert run.net is run.method.net
    assert not run.method.training
    for name in ("benchmark", "fabric", "training_set", "embeddings", "method", "net"):
        assert getattr(run, name) is getattr(run, name)
    assert run.training_set.labels == {identity: identity - 1 for identity in range(1, 9)}


def test_a_model_that_was_passed_on(coseg_run, tmp_path):
    """Without what training added it is tested as before; what needs the rest says so."""
    folder = shutil.copytree(coseg_run, tmp_path / "run")
    (folder / "method.safetensors").unlink()
    run = Run.open(folder)
    assert not run.has_method
    assert torch.equal(run.embed(), Run.open(coseg_run).embed())
    for what in (lambda: run.method, lambda: run.training_set):
        with pytest.raises(CsviError, match=r"method\.safetensors is missing"):
            what()


def test_other_identities_than_it_was_trained_on(coseg_run, sysu_root, tmp_path):
    root = shutil.copytree(sysu_root, tmp_path / "data")
    (root / "exp" / "train_id.txt").write_text("1,2,3,4,5,6,7")
    run = Run.open(coseg_run, Options(root=str(root), cache=str(tmp_path / "cache")))
    with pytest.raises(CsviError, match=r"was trained on other identities than .* has now"):
        run.training_set  # noqa: B018


def test_the_own_root_keeps_its_masks_and_another_has_its_own(coseg_run, sysu_root, tmp_path, monkeypatch):
    data = dataclasses.replace(Run.open(coseg_run).data, masks="elsewhere")
    monkeypatch.chdir(sysu_root.parent)
    for root in (data.root, f"{data.root}/", sysu_root.name):
        assert Options(root=root).applied_to(data).masks == "elsewhere"
    assert Options(root=tmp_path).applied_to(data).masks is None


def test_masks_by_identity_are_the_methods_own(coseg_run):
    run = Run.open(coseg_run)
    seen = []
    for index, masks in run.masks_by_identity({14, 20}):
        records = [run.benchmark.test[i] for i in index]
        assert len({record.identity for record in records}) == 1
        seen.append(records[0].identity)
        expected = run.method.predict_masks(run.batch(records))
        torch.testing.assert_close(masks, expected[:, 0].detach())
        assert masks.shape == (12, 48, 24)
    assert seen == [14, 20]


def test_masks_of_distractors_and_of_many_images_are_predicted_in_small_batches(coseg_run, monkeypatch):
    monkeypatch.setattr("csvi.runs.run.TOGETHER", 6)
    run = Run.open(coseg_run)
    test = [dataclasses.replace(r, identity=DISTRACTOR) if r.identity == 20 else r for r in run.benchmark.test]
    run.benchmark = dataclasses.replace(run.benchmark, test=test)
    found = list(run.masks_by_identity({14, DISTRACTOR}))
    people = [[test[i] for i in index] for index, _ in found]
    assert [[r.identity for r in records] for records in people] == [[DISTRACTOR]] * 12 + [[14] * 6] * 2
    assert all(sum(r.modality for r in records) == 2 for records in people[12:])  # infrared ones, of 4 among 12
    assert len({r.path for records in people for r in records}) == 24
    assert list(run.masks_by_identity(set())) == []


def test_names_of_files_say_what_is_not_as_usual(coseg_run):
    def names(**options):
        run = Run.open(coseg_run, Options(**options))
        return evaluation_file(run).name, run.embeddings_file.name

    assert names() == ("evaluation.json", "embeddings.npz")
    assert names(gallery="official") == ("evaluation-official.json", "embeddings.npz")
    assert names(flip=True) == ("evaluation-flip-averaging.json", "embeddings-flip-averaging.npz")
    for refinement, name in (
        (Refinement(rerank=True), "k-reciprocal-re-ranking"),
        (Refinement(expand=2), "query-expansion-2"),
        (Refinement(True, 5, 2.5, k1=30), "query-expansion-5-alpha-2.5-k-reciprocal-re-ranking-k1-30"),
    ):
        assert names(refinement=refinement) == (f"evaluation-{name}.json", "embeddings.npz")


@pytest.mark.parametrize("root", ["regdb"], indirect=True)
def test_folds_of_another_dataset_have_files_of_their_own(root, coseg_run):
    runs = [Run.open(coseg_run, Options(root=root, fold=fold)) for fold in (1, 2)]
    assert [evaluation_file(run).name for run in runs] == [
        "evaluation-on-regdb.json",
        "evaluation-on-regdb-fold-2.json",
    ]
    assert runs[1].embeddings_file.name == "embeddings-on-regdb-fold-2.npz"
