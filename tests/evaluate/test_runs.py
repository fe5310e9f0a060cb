"""Runs and features under the protocols of every layout, on files that `csvi synth` wrote."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from csvi.config import Config, DataConfig, ModelConfig, SynthConfig, save_config
from csvi.data import LAYOUTS, read_benchmark
from csvi.errors import CsviError
from csvi.evaluate import Refinement, evaluate_protocols, protocols_of
from csvi.evaluate.embed import embed
from csvi.evaluate.runs import EvaluationOptions, evaluate_features, evaluate_run, save_evaluation
from csvi.evaluate.summary import differing_settings, summarize_runs
from csvi.fabric import make_fabric
from csvi.model.network import build_network
from csvi.model.saved import save_network
from csvi.synth import write_benchmark

PROTOCOLS = {
    "sysu": [f"{mode} {shots}" for mode in ("all-search", "indoor-search") for shots in ("single-shot", "multi-shot")],
    "regdb": ["visible to thermal", "thermal to visible"],
    "llcm": ["infrared to visible", "visible to infrared", "llcm-swapped"],
    "folder": ["infrared to visible", "visible to infrared"],
}


@pytest.fixture(scope="module", params=LAYOUTS)
def root(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / request.param
    write_benchmark(folder, SynthConfig(layout=request.param, preset="tiny", height=48, width=24, processes=1))
    return folder


def untrained(folder, root, cache, **data):
    """A run folder of a network as it was born."""
    folder.mkdir(parents=True, exist_ok=True)
    config = Config(
        data=DataConfig(root=str(root), dataset=root.name, height=48, width=24, workers=0, cache=str(cache), **data),
        model=ModelConfig(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16, auxiliary="none"),
        precision="32-true",
    )
    torch.manual_seed(config.data.trial)
    save_network(build_network(config, identities=5), folder)
    save_config(config, folder / "config.yaml")
    return folder


def test_a_run_is_tested_under_the_protocols_of_its_dataset(root, tmp_path, cache_folder):
    run = untrained(tmp_path / "run", root, cache_folder)
    outcome = evaluate_run(run)
    evaluation = outcome.evaluation
    assert [result.protocol for result in evaluation.protocols] == PROTOCOLS[root.name]
    assert evaluation.synthetic
    assert evaluation.protocols == evaluate_protocols(
        protocols_of(outcome.benchmark), outcome.embeddings, outcome.benchmark.test
    )
    for result in evaluation.protocols:
        assert not result.refinements
        for spread in result.figures.values():
            assert 0 <= spread.low <= spread.mean <= spread.high <= 1
    file = save_evaluation(evaluation, run)
    assert file.name == "evaluation.json"
    assert json.loads(file.read_text())["protocols"] == json.loads(
        json.dumps([dataclasses.asdict(result) for result in evaluation.protocols])
    )


def test_features_get_the_figures_of_the_run_they_come_from(root, tmp_path, cache_folder):
    outcome = evaluate_run(untrained(tmp_path / "run", root, cache_folder))
    order = np.random.default_rng(0).permutation(len(outcome.benchmark.test))
    paths = np.array([record.path for record in outcome.benchmark.test])
    np.savez(tmp_path / "f.npz", embedding=outcome.embeddings.numpy()[order], path=paths[order])
    evaluation = evaluate_features(tmp_path / "f.npz", EvaluationOptions(root=str(root)))
    assert evaluation.dataset == root.name
    assert evaluation.protocols == outcome.evaluation.protocols


def test_refinements_are_named_and_never_overwrite_the_plain_result(root, tmp_path, cache_folder):
    run = untrained(tmp_path / "run", root, cache_folder)
    plain = evaluate_run(run).evaluation
    options = EvaluationOptions(flip=True, refinement=Refinement(rerank=True, expand=2))
    refined = evaluate_run(run, options).evaluation
    for result in refined.protocols:
        assert [name.split(" (")[0] for name in result.refinements] == [
            "flip averaging",
            "query expansion",
            "k-reciprocal re-ranking",
        ]
    names = {save_evaluation(evaluation, run).name for evaluation in (plain, refined)}
    assert names == {"evaluation.json", "evaluation-flip-averaging-query-expansion-k-reciprocal-re-ranking.json"}


def test_flip_averaging_does_not_know_left_from_right(config):
    net = build_network(config, identities=5).net
    image, modality = torch.randn(6, 3, 48, 24), torch.tensor([0, 1, 0, 1, 1, 0])
    fabric = make_fabric(config)

    def embedded(image, flip):
        return embed(net, [{"image": image, "modality": modality}], fabric, flip)

    both = embedded(image, flip=True)
    assert not torch.allclose(both, embedded(image, flip=False), atol=1e-3)
    torch.testing.assert_close(both, embedded(image.flip(3), flip=True))
    torch.testing.assert_close(both.unflatten(1, (3, -1)).norm(dim=2), torch.ones(6, 3))


@pytest.mark.parametrize("root", ["regdb"], indirect=True)
def test_the_ten_models_of_regdb_have_one_mean(root, tmp_path, cache_folder):
    runs = [untrained(tmp_path / f"regdb-{trial}", root, cache_folder, trial=trial) for trial in range(1, 11)]
    outcomes = [evaluate_run(run) for run in runs]
    assert differing_settings([outcome.config for outcome in outcomes]) == []
    summary = summarize_runs([outcome.evaluation for outcome in outcomes])
    assert summary.trials == list(range(1, 11))
    for p, protocol in enumerate(PROTOCOLS["regdb"]):
        values = [outcome.evaluation.protocols[p].figures["mAP"].mean for outcome in outcomes]
        mean = summary.figures[protocol]["mAP"]
        assert mean.runs == values
        assert mean.mean == pytest.approx(np.mean(values))
        assert mean.std == pytest.approx(np.std(values, ddof=1))
    assert len({outcome.embeddings.sum().item() for outcome in outcomes}) == 10


@pytest.mark.parametrize("root", ["sysu"], indirect=True)
def test_no_mean_over_different_things(root, tmp_path, cache_folder):
    a, b = (untrained(tmp_path / name, root, cache_folder) for name in "ab")
    outcome = evaluate_run(a)
    other = dataclasses.replace(outcome.evaluation, model="b", benchmark="another")
    with pytest.raises(CsviError, match="different datasets"):
        summarize_runs([outcome.evaluation, other])
    other = evaluate_run(b, EvaluationOptions(gallery="official")).evaluation
    with pytest.raises(CsviError, match="different datasets"):
        summarize_runs([outcome.evaluation, other])
    config = dataclasses.replace(outcome.config, model=ModelConfig(backbone="resnet18"), seed=7)
    assert differing_settings([outcome.config, config]) == [
        f"model.{name}" for name in ("backbone", "weights", "parts", "part_dim", "auxiliary")
    ]


@pytest.mark.parametrize("root", ["llcm"], indirect=True)
def test_another_dataset_than_the_one_trained_on(root, tmp_path, cache_folder, sysu_root):
    run = untrained(tmp_path / "run", root, cache_folder)
    outcome = evaluate_run(run, EvaluationOptions(root=str(sysu_root)))
    assert outcome.evaluation.dataset == "sysu"
    assert save_evaluation(outcome.evaluation, run, outcome.elsewhere).name == "evaluation-on-sysu.json"


@pytest.mark.parametrize("root", ["folder"], indirect=True)
def test_a_model_alone_is_told_what_to_be_tested_on(root, tmp_path, cache_folder):
    run = untrained(tmp_path / "run", root, cache_folder)
    expected = evaluate_run(run)
    (run / "config.yaml").unlink()
    with pytest.raises(CsviError, match=r"of a model alone, say what to test it on with --data\.root"):
        evaluate_run(run)
    outcome = evaluate_run(run, EvaluationOptions(root=str(root), cache=str(cache_folder)))
    assert (outcome.config.data.height, outcome.config.data.width) == (48, 24)
    assert outcome.evaluation.dataset == "folder"
    torch.testing.assert_close(outcome.embeddings, expected.embeddings, atol=0.05, rtol=0)  # another precision


@pytest.mark.parametrize("root", ["folder"], indirect=True)
@pytest.mark.parametrize("side", ["a", [1], None, True, 48.0, 0, -48, 4096, 10**20])
@pytest.mark.parametrize("name", ["height", "width"])
def test_a_model_of_strangers_names_a_size_for_images(root, tmp_path, cache_folder, name, side):
    run = untrained(tmp_path / "run", root, cache_folder)
    (run / "config.yaml").unlink()
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(settings | {name: side}))
    with pytest.raises(CsviError, match=r"config\.json"):
        evaluate_run(run, EvaluationOptions(root=str(root), cache=str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("root", ["regdb"], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvaluationOptions(gallery="official"), "galleries of .* are all, not official"),
        (EvaluationOptions(trial=11), "split 11: evaluate it on its own"),
        (EvaluationOptions(dataset="llcm"), "set --data.dataset regdb"),
        (EvaluationOptions(root="~nobody-at-all/data"), "~nobody-at-all/data begins with the name of nobody"),
    ],
)
def test_bad_options(root, tmp_path, cache_folder, options, message):
    with pytest.raises(CsviError, match=message):
        evaluate_run(untrained(tmp_path / "run", root, cache_folder), options)


def test_features_need_a_root_and_no_flip(tmp_path):
    with pytest.raises(CsviError, match=r"--data\.root"):
        evaluate_features(tmp_path / "f.npz", EvaluationOptions())
    with pytest.raises(CsviError, match="--flip averages while embedding"):
        evaluate_features(tmp_path / "f.npz", EvaluationOptions(root=str(tmp_path), flip=True))


@pytest.mark.parametrize("root", ["regdb"], indirect=True)
def test_a_model_is_not_tested_on_people_it_was_trained_on(root, tmp_path, cache_folder):
    run = untrained(tmp_path / "run", root, cache_folder, trial=2)
    assert evaluate_run(run).evaluation.trial == 2
    with pytest.raises(CsviError, match="was trained on split 2, whose people are tested in split 1"):
        evaluate_run(run, EvaluationOptions(trial=1))


@pytest.mark.parametrize("root", ["sysu"], indirect=True)
def test_other_data_do_not_overwrite_the_result_and_moved_data_do(root, tmp_path, cache_folder):
    run = untrained(tmp_path / "run", root, cache_folder)
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(root, moved)
    shutil.copytree(root, other)
    first = min(record.path for record in read_benchmark(DataConfig(root=str(other))).test)
    (other / first).write_bytes((other / first).read_bytes() + b"\0")
    names = []
    for folder in (root, moved, other):
        outcome = evaluate_run(run, EvaluationOptions(root=str(folder)))
        names.append(save_evaluation(outcome.evaluation, run, outcome.elsewhere).name)
    assert names == ["evaluation.json", "evaluation.json", "evaluation-on-other.json"]
    shutil.move(root, tmp_path / "gone")  # then its last evaluation says what it was
    try:
        assert evaluate_run(run, EvaluationOptions(root=str(other))).elsewhere
        assert not evaluate_run(run, EvaluationOptions(root=str(moved))).elsewhere
    finally:
        shutil.move(tmp_path / "gone", root)


@pytest.mark.parametrize("root", ["sysu"], indirect=True)
def test_refined_rankings_have_no_table_of_cameras(root, tmp_path, cache_folder):
    run = untrained(tmp_path / "run", root, cache_folder)
    assert evaluate_run(run, EvaluationOptions(flip=True)).evaluation.camera_pairs
    for refinement in (Refinement(rerank=True), Refinement(expand=2)):
        assert evaluate_run(run, EvaluationOptions(refinement=refinement)).evaluation.camera_pairs == []


@pytest.mark.parametrize("root", ["folder"], indirect=True)
def test_a_run_counts_once_and_all_see_the_same_images(root, tmp_path, cache_folder):
    evaluation = evaluate_run(untrained(tmp_path / "run", root, cache_folder)).evaluation
    with pytest.raises(CsviError, match="was given twice"):
        summarize_runs([evaluation, evaluation])
    other = dataclasses.replace(evaluation, model="other", fingerprint="0")
    with pytest.raises(CsviError, match="tested on different images"):
        summarize_runs([evaluation, other])


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CsviError, match="there is no such folder"):
        evaluate_run("nowhere", EvaluationOptions(root="data"))
