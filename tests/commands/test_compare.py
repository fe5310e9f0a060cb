"""What `csvi compare` averages, and what it says of runs that differ in more than the method."""

import shutil

from csvi.cli import main


def test_runs_of_different_methods_are_no_group(coseg_run, baseline_run, sysu_root, tmp_path, capsys):
    assert main(["compare", str(coseg_run), "--against", str(coseg_run / "evaluation.json")]) == 1
    assert "given twice" in capsys.readouterr().err
    copied = shutil.copytree(baseline_run, tmp_path / "copied")
    for sides in ([coseg_run, baseline_run, "--against", copied], [copied, "--against", coseg_run, baseline_run]):
        assert main(["compare", *map(str, sides)]) == 1
        printed = capsys.readouterr()
        assert f"no mean over {coseg_run}, {baseline_run}, as their settings differ: method.name, " in printed.err
        assert printed.out == ""


def test_embeddings_of_other_code_know_no_settings(coseg_run, baseline_run, sysu_root, tmp_path, capsys):
    files = [shutil.copy(run / "embeddings.npz", tmp_path / f"{run.name}.npz") for run in (coseg_run, baseline_run)]
    for file in files:
        assert main(["evaluate", f"--features={file}", f"--data.root={sysu_root}"]) == 0
    others = [str(file.with_suffix(".evaluation.json")) for file in files]
    capsys.readouterr()
    assert main(["compare", str(coseg_run), "--against", *others]) == 0
    assert "they differ in" not in capsys.readouterr().out
    assert main(["compare", others[0], "--against", str(coseg_run), others[1]]) == 1
    assert f"as the settings of {files[1]} are not known" in capsys.readouterr().err


def test_what_else_differs_stands_below_the_table(coseg_run, baseline_run, tmp_path, capsys):
    assert main(["compare", str(baseline_run), str(coseg_run)]) == 0
    assert "they differ in" not in capsys.readouterr().out
    longer = shutil.copytree(coseg_run, tmp_path / "longer")
    config = longer / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 2\n").replace("height: 48", "height: 64"))
    assert main(["evaluate", str(longer)]) == 0
    capsys.readouterr()
    assert main(["compare", str(baseline_run), str(longer)]) == 0
    assert "Beside the method's name they differ in: data.height, train.epochs\n" in capsys.readouterr().out
