"""What holds on the processor holds on a GPU: the same trainings, the same store, the same studies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from program import ONE, QUICK, inarch, rows, without_cost
from torch import nn
from toy import write_images, write_source
from workbench import SETTINGS, deepest, method_trial, needs_deeper, quick_selection, small, workbench  # noqa: F401

from inarch.data import Augmentation, PixelSize, Views, open_dataset
from inarch.environment import same_settings_afterwards
from inarch.features.plan import Plan
from inarch.features.shelf import Shelf
from inarch.features.store import Keeping
from inarch.launch.here import TRIAL, Workbench
from inarch.launch.plan import MARGIN, candidates, measured_plan
from inarch.methods import METHODS, make_method, method_class
from inarch.network import captured as module
from inarch.network.captured import Passes, Tape, captured
from inarch.network.card import InputSpec
from inarch.network.grafts import GRAFT_NAMES, Configuration
from inarch.network.stages import stage_network
from inarch.training.fit import Trained, Watch, predict, train, train_together
from inarch.training.trial import Trial

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NAMES = [method.name for method in METHODS]
PAIRS = [(method, "joined") for method in NAMES] + [("fine-tuning", graft) for graft in GRAFT_NAMES]
BF16 = Plan(frozen="bf16", trained="bf16")
SAME_PASSES = [pair for pair in PAIRS if method_class(pair[0]).same_passes]


@pytest.fixture(autouse=True)
def whole_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in fp32 as on a processor, not in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def a_trial(method: str, graft: str, cut: int = 1) -> Trial:
    return method_trial(method, graft, cut, epochs=3)


@contextmanager
def bench_on(folder: Path, device: str, graft: str = "joined", keeping: Keeping | None = None) -> Iterator[Workbench]:
    """A workbench whose network has no dropout: its masks are another device's own."""
    with workbench(folder, epochs=3, device=device, keeping=keeping, deeper=needs_deeper(graft)) as bench:
        for layer in bench._network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        yield bench


@pytest.mark.parametrize(("method", "graft"), [pair for pair in PAIRS if pair[0] != "stochnorm"])  # another dropout
def test_a_training_on_a_gpu_comes_to_what_it_comes_to_on_a_processor(
    tmp_path: Path, method: str, graft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the same views, which else differ by a level here and there.
    monkeypatch.setattr(Views, "_made_on", lambda *_: False)
    trial, found = a_trial(method, graft), {}
    for device in ("cpu", "cuda"):
        with bench_on(tmp_path / device, device, graft) as bench:
            bench.run([trial], Watch())
            (record,) = bench.folder.ledger.records(TRIAL)
            found[device] = record.arrays["validation"]
            if device == "cuda":
                restored = predict(bench.restore(trial), bench.store, "validation")
                np.testing.assert_allclose(restored, found[device], atol=1e-5)
                assert all(weight.is_cuda for weight in bench.restore(trial).parameters())
    np.testing.assert_allclose(found["cuda"], found["cpu"], atol=2e-3)


@pytest.mark.parametrize("method", NAMES)
def test_every_method_trains_in_bf16_with_a_disk(tmp_path: Path, method: str) -> None:
    trial = a_trial(method, "joined")
    trial = replace(trial, settings=replace(trial.settings, epochs=6, precision="bf16", frozen_precision="bf16"))
    keeping = Keeping((1, 2, 3), shelf=Shelf(tmp_path / "shelf"))
    with workbench(tmp_path, epochs=6, device="cuda", plan=BF16, keeping=keeping) as bench:
        epochs = train(bench.network(trial), trial, bench.store, make_method(method), Watch()).epochs
    assert epochs[-1].training_loss < epochs[0].training_loss - 0.05


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(("method", "graft"), PAIRS)
def test_two_runs_are_equal_bit_for_bit(tmp_path: Path, method: str, graft: str, cut: int) -> None:
    trial, found = a_trial(method, graft, cut), []
    for keeping in (Keeping((1, 2, 3)), Keeping((1, 2, 3), shelf=Shelf(tmp_path / "shelf"))):
        with workbench(tmp_path, epochs=3, device="cuda", keeping=keeping, deeper=needs_deeper(graft)) as bench:
            network = bench.network(trial)
            with same_settings_afterwards():
                train(network, trial, bench.store, make_method(method), Watch())
            found.append({name: value.clone() for name, value in network.state_dict().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("plan", [Plan(), BF16])
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(("method", "graft"), SAME_PASSES)
def test_steps_that_are_played_back_come_to_the_same_bits(
    tmp_path: Path, method: str, graft: str, cut: int, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = counted_passes(monkeypatch)
    trial, found = a_trial(method, graft, cut), []
    for playing in (False, True):
        here = replace(plan, captured=playing)
        with workbench(tmp_path, epochs=3, device="cuda", plan=here, deeper=needs_deeper(graft)) as bench:
            network = bench.network(trial)  # with dropout, whose masks must be the same ones
            with same_settings_afterwards():
                train(network, trial, bench.store, make_method(method), Watch())
            found.append({name: value.clone() for name, value in network.state_dict().items()})
            assert bool(played) == (playing and bool(network.old_parameters()) and not network.taps)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_capture_that_served_another_trial_comes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = counted_passes(monkeypatch)
    last, another = (a_trial("fine-tuning", graft, cut=0) for graft in ("joined", "retain"))
    deeper, not_played_back = a_trial("fine-tuning", "retain", cut=1), a_trial("delta", "retain", cut=0)
    found, steps = [], []
    for trials in ([last], [another, last], [another, deeper, last], [another, not_played_back, last]):
        with workbench(tmp_path / str(len(found)), device="cuda", plan=replace(BF16, captured=True)) as bench:
            with same_settings_afterwards():
                for trial in trials:
                    played.clear()
                    bench.run([trial], Watch())
            found.append(bench.validation(last))
            steps.append(len(played))
    assert steps[0] > 0
    assert steps == [steps[0]] * len(steps)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def counted_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that are played back from now on."""
    played: list[int] = []

    def counting(segment: nn.Module, example: torch.Tensor) -> Passes:
        passes = captured(segment, example)

        def play(x: torch.Tensor) -> torch.Tensor:
            played.append(len(x))
            return passes(x)

        return play

    monkeypatch.setattr(module, "captured", counting)
    return played


def test_a_real_network_in_bf16_is_played_back_to_the_same_bits() -> None:
    network = timm.create_model("resnet18", num_classes=7, drop_rate=0.2).cuda().train()
    network.to(memory_format=torch.channels_last)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(8, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    labels, found = torch.arange(8, device="cuda") % 7, []
    with same_settings_afterwards():
        for playing in (False, True):
            network.load_state_dict(start)
            torch.manual_seed(3)
            optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=True)
            tape = Tape()
            for _ in range(4):
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    passes = tape.passes(0, network, images) if playing else network
                    logits = passes(images)
                assert (passes is not network) == playing
                nn.functional.cross_entropy(logits.float(), labels).backward()
                optimiser.step()
            found.append({name: value.clone() for name, value in network.state_dict().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


class Waiting(nn.Module):
    """Drops out, and waits for the GPU, which no capture can hold: for a value, or for all that it does."""

    def __init__(self, value: bool) -> None:
        super().__init__()
        self.layer, self.value = nn.Linear(4, 4), value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.dropout(self.layer(x), 0.5, self.training)
        if self.value:
            return x * float(x.sum())
        torch.cuda.synchronize()
        return 2 * x


@pytest.mark.parametrize("value", [True, False])
def test_a_network_that_cannot_be_captured_trains_all_the_same(value: bool) -> None:
    segment, x = Waiting(value).cuda().train(), torch.randn(8, 4, device="cuda")
    random = torch.cuda.get_rng_state()
    with pytest.raises(RuntimeError):
        captured(segment, x)
    assert torch.equal(random, torch.cuda.get_rng_state())
    passes = Tape().passes(0, segment, x)
    assert passes is segment
    passes(x).sum().backward()
    assert segment.layer.weight.grad is not None
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    good = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).cuda().train()
    assert Tape().passes(0, good, x) is not good


def test_a_plan_for_small_batches_plays_back_steps_and_says_what_that_gains() -> None:
    network = timm.create_model("resnet18", num_classes=7).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    spec = InputSpec(3, 64, 64, (0.5,) * 3, (0.5,) * 3)
    staged = stage_network(network, "fc", spec.example())
    decision = measured_plan(network, staged, spec.example(8), "cuda", candidates("cuda"))
    assert decision.captured_gain is not None
    assert decision.captured_gain > MARGIN, "steps of 8 small images wait for the calls"
    assert decision.plan.captured
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_stored_activations_are_those_that_are_computed_again(tmp_path: Path) -> None:
    positions, found = np.arange(20)[::-1].copy(), []
    for keeping in (Keeping(()), Keeping((1, 2)), Keeping((1, 2), shelf=Shelf(tmp_path / "shelf"))):
        with workbench(tmp_path, device="cuda", keeping=keeping) as bench:
            found += [[bench.store.read(2, "train", positions, 0).cpu() for _ in range(2)]]
    for first, again in found[1:]:
        assert torch.equal(first, again)
        assert torch.allclose(first, found[0][0], rtol=0.02, atol=0.02)  # which did not pass through bf16 at cut 1
    assert torch.equal(found[1][0], found[2][0])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("free", [True, False])
def test_views_made_on_a_gpu_are_those_of_a_processor_but_for_rounding(
    tmp_path: Path, free: bool, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not free:  # pixels go to the GPU batch by batch
        monkeypatch.setattr("inarch.data.device_views.SHARE", 0.0)
    write_images(tmp_path / "images", a_class=12)
    dataset = open_dataset(tmp_path / "images", keep=PixelSize(20, 20))
    assert dataset.pixels is not None
    wanted = InputSpec(3, 16, 16, (0.0,) * 3, (1 / 255,) * 3, interpolation)
    views = Views(dataset.pixels, dataset.row_digests(), wanted, Augmentation(colour_jitter=0.3))
    rows = dataset.rows("train")
    found = views.training(rows, 3, "cuda")
    assert found.is_cuda
    assert float((found.cpu() - views.training(rows, 3)).abs().max()) < 2.5
    torch.testing.assert_close(views.evaluation(rows, "cuda").cpu(), views.evaluation(rows), rtol=0, atol=1e-3)


def test_trials_trained_together_come_to_what_they_come_to_alone(tmp_path: Path) -> None:
    configurations = (Configuration("retain", "l2"), Configuration("deepen", "batch", (7, 5)))
    trials = [
        Trial(c, 3, "fine-tuning", 0.0, rate, 1, replace(SETTINGS, epochs=3))
        for c in configurations for rate in (0.01, 0.05)
    ]  # fmt: skip
    with bench_on(tmp_path, "cuda") as bench:
        networks = [bench.network(trial) for trial in trials]
        methods = [make_method("fine-tuning") for _ in trials]
        together = train_together(networks, trials, bench.store, methods, Watch())
        alone = [train(bench.network(t), t, bench.store, make_method("fine-tuning"), Watch()) for t in trials]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Trained)
        np.testing.assert_allclose(one.validation, other.validation, atol=1e-4)


def test_training_leaves_the_random_state_of_the_gpu_as_it_was(tmp_path: Path) -> None:
    with workbench(tmp_path, device="cuda") as bench:
        before = torch.cuda.get_rng_state(), torch.get_rng_state()
        trial = a_trial("fine-tuning", "joined", cut=0)
        train(bench.network(trial), trial, bench.store, make_method("fine-tuning"), Watch())
        assert torch.equal(before[0], torch.cuda.get_rng_state())
        assert torch.equal(before[1], torch.get_rng_state())


def test_a_study_on_a_gpu_goes_on_where_it_was_and_its_model_predicts(tmp_path: Path) -> None:
    write_source(tmp_path / "source")
    write_images(tmp_path / "images", a_class=20)
    source, run = ("--source", tmp_path / "source" / "toy.json"), tmp_path / "run"
    command = ["fit", tmp_path / "images", *source, "--out", run, *QUICK, "--seeds", "2", "--profile"]
    ran = inarch(*command)
    assert ran.exit_code == 0, ran.said
    results = json.loads((run / "results.json").read_text())
    assert results["cost"]["environment"]["device"] == "cuda"
    trained = rows(run)
    again = inarch(*command, "--device", "cuda")
    assert again.exit_code == 0, again.said
    assert rows(run) == trained
    ran = inarch(*command, "--device", "cpu")
    assert ran.exit_code == 2
    assert "this run was begun on cuda" in ran.said
    tables = {}
    for device in ("cuda", "cpu"):
        predicted = inarch("predict", run, tmp_path / "images", "--out", tmp_path / f"{device}.csv", "--device", device)
        assert predicted.exit_code == 0, predicted.said
        tables[device] = [line.split(",")[1] for line in (tmp_path / f"{device}.csv").read_text().splitlines()]
    assert np.mean([a == b for a, b in zip(*tables.values(), strict=True)]) > 0.9


def test_the_same_command_in_two_folders_gives_the_same_results(tmp_path: Path) -> None:
    write_source(tmp_path / "source")
    write_images(tmp_path / "images", a_class=20)
    found = []
    for run in ("one", "other"):
        command = ["fit", tmp_path / "images", "--source", tmp_path / "source" / "toy.json", "--out", tmp_path / run]
        ran = inarch(*command, *QUICK, "--seeds", "2")
        assert ran.exit_code == 0, ran.said
        found.append(without_cost(json.loads((tmp_path / run / "results.json").read_text())))
    assert found[0] == found[1]


def test_a_comparison_and_a_ranking_run_on_a_gpu(tmp_path: Path) -> None:
    write_source(tmp_path / "source")
    write_images(tmp_path / "images", a_class=20)
    source = ("--source", tmp_path / "source" / "toy.json")
    compared = inarch(
        "compare", tmp_path / "images", *source, "--out", tmp_path / "compared", "--methods", "fine-tuning,bss",
        "--shots", "5", "--seeds", "2", *QUICK, "--device", "cuda",
    )  # fmt: skip
    assert compared.exit_code == 0, compared.said
    ranked = inarch("rank", tmp_path / "images", *source, "--device", "cuda")
    assert ranked.exit_code == 0, ranked.said


def test_the_least_study_gives_heat_maps_on_a_gpu(tmp_path: Path) -> None:
    write_source(tmp_path / "source")
    write_images(tmp_path / "images", a_class=20)
    run = tmp_path / "run"
    ran = inarch("fit", tmp_path / "images", "--source", tmp_path / "source" / "toy.json", "--out", run, *ONE)
    assert ran.exit_code == 0, ran.said
    drawn = inarch(
        "predict", run, tmp_path / "images" / "red", "--out", tmp_path / "p.csv", "--heatmaps", tmp_path / "h"
    )
    assert drawn.exit_code == 0, drawn.said
    assert any((tmp_path / "h").rglob("*.png"))
