"""`metrics.jsonl`: one line a step, whatever happened in between."""

import errno
import json

import pytest
import torch

from csvi.errors import CsviError
from csvi.runs.metrics_log import MetricsLog, read_metrics
from csvi.train.nonfinite import NonFinite

FINITE = torch.tensor(True)


def terms(step):
    return {"identity": torch.tensor(float(step)), "center": torch.tensor(0.5)}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_step_has_a_line_with_the_terms_and_their_sum(tmp_path):
    log = MetricsLog(tmp_path, 0, batch_size=64)
    for step in range(1, 24):
        log.losses(step, 0.01, terms(step), FINITE)
    log.close()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 24))
    for line in lines(tmp_path):
        assert line.pop("train/images_per_second") > 0
        step = line.pop("step")
        assert line == {
            "train/loss": step + 0.5, "train/identity": step, "train/center": 0.5, "train/lr": 0.01
        }  # fmt: skip


def test_terms_are_returned_every_ten_steps_of_the_run(tmp_path):
    """Not of the epoch or of the log, so that whoever looks every hundred steps is served."""
    log = MetricsLog(tmp_path, 13, batch_size=64)
    returned = {}
    for step in range(14, 45):
        latest = log.losses(step, 0.01, terms(step), FINITE)
        if latest:
            returned[step] = latest
        if step == 33:
            log.flush()  # an epoch ends
    log.close()
    assert returned == {step: {"identity": step, "center": 0.5} for step in (20, 30, 40)}


def test_a_resumed_log_drops_what_came_after_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path, 0, 64)
    for step in range(1, 11):
        log.losses(step, 0.01, terms(step), FINITE)
        if step % 5 == 0:
            log.flush()
            log.write(step, {"val/R1": step / 10})
    log.close()
    log = MetricsLog(tmp_path, 5, 64)
    log.losses(6, 0.01, terms(60), FINITE)
    log.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 5, 6]
    assert lines(tmp_path)[-1]["train/identity"] == 60


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path):
    log = MetricsLog(tmp_path, 0, 64)
    log.write(1, {"val/R1": 0.5})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "val/R')
    log = MetricsLog(tmp_path, 1, 64)
    log.write(2, {"val/R1": 0.7})
    log.close()
    assert lines(tmp_path) == [{"step": 1, "val/R1": 0.5}, {"step": 2, "val/R1": 0.7}]


def written(run, steps):
    log = MetricsLog(run, 0, 64)
    for step in range(1, steps + 1):
        log.losses(step, 0.01, terms(step), FINITE)
    log.close()
    return run / "metrics.jsonl"


def test_a_validation_that_is_to_be_done_again_is_dropped(tmp_path):
    written(tmp_path, 4)
    log = MetricsLog(tmp_path, 4, 64)
    log.write(4, {"val/R1": 0.5})
    log.close()
    MetricsLog(tmp_path, 4, 64, validated=True).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 4]
    MetricsLog(tmp_path, 4, 64, validated=False).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\0\0\n\0", b"\xff\xfe\n", b'{"step": "7"}\n{"step": 8}\n', b"[1]\n"])
def test_what_a_power_cut_left_at_the_end_is_dropped(tmp_path, tail):
    file = written(tmp_path, 4)
    whole = file.read_bytes()
    file.write_bytes(whole + tail)
    MetricsLog(tmp_path, 4, 64).close()
    assert file.read_bytes() == whole


def test_steps_that_are_missing_are_told(tmp_path):
    file = written(tmp_path, 4)
    with pytest.raises(CsviError, match=r"metrics\.jsonl is damaged or not of csvi: step 6 is missing, move it away"):
        MetricsLog(tmp_path, 6, 64)
    assert len(lines(tmp_path)) == 4
    file.unlink()
    MetricsLog(tmp_path, 6, 64).close()


def test_a_disk_that_is_full_ends_tensorboard_events_and_not_the_run(tmp_path, caplog, monkeypatch):
    log = MetricsLog(tmp_path, 0, 64)

    def full(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log.board.records, "write", full)
    log.write(1, {"val/R1": 0.5})
    log.write(2, {"val/R1": 0.6})
    log.close()
    assert len(lines(tmp_path)) == 2
    assert caplog.text.count("no more TensorBoard events: No space left on device") == 1


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_is_named_with_its_step(bad):
    log = MetricsLog(None, 0, 64, NonFinite().check)
    log.losses(1, 0.01, terms(1), FINITE)
    log.losses(2, 0.01, terms(2) | {"center": torch.tensor(float(bad))}, FINITE)
    with pytest.raises(CsviError, match=r"the center loss of step 2 is not finite: .* a lower --train\.lr"):
        log.flush()


def test_other_processes_keep_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = MetricsLog(None, 0, 64)
    for step in range(1, 11):
        latest = log.losses(step, 0.01, terms(step), FINITE)
    log.close()
    assert latest == {"identity": 10, "center": 0.5}
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_has_the_same_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path, 0, 64)
    for step in range(1, 4):
        log.losses(step, 0.25, terms(step), FINITE)
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(lines(tmp_path)[0]) - {"step"}
    assert [(e.step, e.value) for e in events.Scalars("train/identity")] == [(1, 1), (2, 2), (3, 3)]


def test_steps_that_were_skipped_are_marked_and_hold_only_numbers(tmp_path):
    asked = []

    def check(step, found, finite, processes):
        asked.append((step, finite, processes))
        return step == 2

    log = MetricsLog(tmp_path, 0, 64, check)
    for step in range(1, 4):
        spoilt = {"center": torch.tensor(float("nan"))} if step == 2 else {}
        log.losses(step, 0.01, terms(step) | spoilt, torch.tensor(step != 2))
    log.close()
    assert asked == [(1, True, []), (2, False, []), (3, True, [])]  # on its own, as others may be lost
    assert [line.get("train/skipped") for line in lines(tmp_path)] == [None, 1, None]
    assert not {"train/loss", "train/center"} & lines(tmp_path)[1].keys()


def test_the_processes_whose_losses_are_not_finite_are_told_by_step():
    told = []
    log = MetricsLog(None, 0, 64, lambda *found: told.append(found[2:]), of_processes=lambda own: [own, [True, False]])
    log.losses(1, 0.01, terms(1), FINITE)
    log.losses(2, 0.01, {"center": torch.tensor(float("inf"))}, FINITE)
    log.flush()
    assert told == [(True, [1]), (True, [0])]


def test_one_metric_is_read_by_name(tmp_path):
    log = MetricsLog(tmp_path, 0, 64)
    for step in range(1, 5):
        log.losses(step, 0.01, terms(step), FINITE)
        if step % 2 == 0:
            log.flush()
            log.write(step, {"val/R1": step / 10})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "val/R1": 0.')  # a kill broke it off
    assert read_metrics(tmp_path, "val/R1") == ([2, 4], [0.2, 0.4])
    assert read_metrics(tmp_path, "train/identity") == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert read_metrics(tmp_path, "nothing") == read_metrics(tmp_path / "nowhere", "val/R1") == ([], [])


@pytest.mark.parametrize(
    "line", ["{", "[1]", "{}", '{"step": "x"}', '{"step": 1, "val/R1": "high"}', "3", '{"step": 1e999}']
)
def test_lines_of_anything_else_are_one_sentence(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(CsviError, match=r"metrics\.jsonl is damaged or not of csvi"):
        read_metrics(tmp_path, "val/R1")
