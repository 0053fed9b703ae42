"""The contestants themselves, on toy images with a toy network."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import write_images, write_source

import finetune
import peers
from inarch.launch.here import Workbench
from inarch.training.trial import TrainingSettings
from ours import Wanted, in_study, timed, trial_of


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Class folders below `train`, `val` and `test`."""
    for split, count in (("train", 16), ("val", 4), ("test", 6)):
        write_images(tmp_path / "images" / split, a_class=count)
    return tmp_path / "images"


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The toy source; what Inarch remembers of the machine stays in this test."""
    monkeypatch.setenv("INARCH_CACHE", str(tmp_path / "cache"))
    return str(write_source(tmp_path / "source"))


def test_single_trials_run_on_the_bench_of_a_study(images: Path, card: str, tmp_path: Path) -> None:
    def work(bench: Workbench, settings: TrainingSettings) -> tuple[TrainingSettings, list[tuple[float, float]]]:
        trials = [trial_of(graft, 1, 5, settings, (0.01, 0.1)) for graft in ("retain", "deepen")]
        return settings, [timed(bench, trial) for trial in trials]

    wanted = Wanted(images, card, 3, colour_jitter=0.0, options={"epochs": 2, "batch_size": 8})
    for _ in range(2):  # a second call begins anew
        settings, results = in_study(wanted, tmp_path / "run", work)
        assert (settings.epochs, settings.augmentation.colour_jitter) == (2, 0.0)
        assert all(seconds > 0 and 0 <= accuracy <= 1 for seconds, accuracy in results)


# What peers warn about is theirs.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("contestant", list(peers.CONTESTANTS))
def test_every_contestant_trains_and_is_tested(images: Path, card: str, tmp_path: Path, contestant: str) -> None:
    if contestant not in finetune.installed():
        pytest.skip(f"needs {', '.join(peers.NEEDS[contestant])}: pip install '.[benchmarks]'")
    found = peers.fine_tune(
        contestant, images=str(images), source=card, run=str(tmp_path / "run"), epochs=8, rate=0.01, batch_size=8,
        seed=0, image_size=None, device="cpu",
    )  # fmt: skip
    assert len(found["seconds_of_epochs"]) == 8
    assert all(seconds > 0 for seconds in found["seconds_of_epochs"])
    assert found["seconds"] == pytest.approx(sum(found["seconds_of_epochs"]))
    assert found["images_per_second"] == pytest.approx(8 * 48 / found["seconds"])
    if contestant == "inarch":
        # The toy: convolutions at 16 x 16 and 8 x 8, its classifier, and three classes.
        forward = 2 * (16 * 16 * 8 * 27 + 8 * 8 * 12 * 72 + 12 * 3)
        of_images = 2 * 16 * 16 * 8 * 27  # a gradient that nobody asks for
        assert found["operations_an_image"] == 3 * forward - of_images
        assert (
            finetune.utilisation(found, 2.0)
            == 2 * (3 * forward - of_images) / found["operations_per_second_of_products"]
        )
    # Three classes, each with a colour channel of its own: chance is a third.
    assert found["test_accuracy"] > 0.5
