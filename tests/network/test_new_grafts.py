"""Grafts from other papers, and this project's own, compute the formulas that their docstrings give."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F
from toy import DEEPER, SIDE, toy_network
from workbench import small

from inarch.catalogue import GRAFTS as ENTRIES
from inarch.errors import UsageError
from inarch.network import head2toe
from inarch.network.adapted import AdaptedNetwork, stage, stored_cut
from inarch.network.graft import as_vectors, side_by_side, vector_width
from inarch.network.grafts import (
    DEFAULT_GRAFTS,
    GRAFT_NAMES,
    GRAFTS,
    Configuration,
    Widths,
    build_graft,
    configurations,
    graft_class,
)
from inarch.network.head2toe import grid, group_lasso_scores, on_grid
from inarch.network.linear_start import linear_discriminant, tempering
from inarch.network.stacked import stackable

# Penultimate features f, source logits z, and the activations one (g) and two (e) stages before f.
F_, Z = torch.linspace(-1, 1, 20).reshape(4, 5).sin(), torch.linspace(-2, 3, 28).reshape(4, 7).cos()
G, E = torch.linspace(0, 4, 24).reshape(4, 6).cos(), torch.linspace(1, 5, 16).reshape(4, 4).sin()
ONE, TWO = Widths(5, 7, 3, ((6, 2, 2),)), Widths(5, 7, 3, ((4, 4, 4), (6, 2, 2)))


def h(x: np.ndarray) -> np.ndarray:
    return 20 * x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def u(state: dict[str, Tensor], name: str, x: np.ndarray) -> np.ndarray:
    """ReLU(V x + d) with the weights under a name."""
    return np.maximum(0, linear(state, name, x))


def linear(state: dict[str, Tensor], name: str, x: np.ndarray) -> np.ndarray:
    return x @ state[f"{name}.weight"].double().numpy().T + state[f"{name}.bias"].double().numpy()


def both(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1)


def of_paper(name: str, state: dict[str, Tensor]) -> np.ndarray:
    """The formulas of `grown.py`, with h the scaled L2 normalisation, written out in NumPy."""
    f, g, e = (x.double().numpy() for x in (F_, G, E))
    match name:
        case "da-cnn":
            seen = h(u(state, "body.new.0.0", h(f)))
        case "wa-cnn":
            seen = both(h(f), h(u(state, "body.widened.new.0", g)))
        case "dwa-cnn":
            seen = h(u(state, "body.new.0", both(h(f), h(u(state, "body.widened.new.0", g)))))
        case _:
            wide = both(h(g), h(u(state, "body.before.new.0", e)))
            seen = both(h(f), h(u(state, "body.last.new.0", wide)))
    return linear(state, "classifier", seen)


@pytest.mark.parametrize("name", ["da-cnn", "wa-cnn", "dwa-cnn", "wwa-cnn"])
def test_grown_networks_compute_what_the_paper_writes(name: str) -> None:
    earlier = {"da-cnn": (), "wa-cnn": (G,), "dwa-cnn": (G,), "wwa-cnn": (E, G)}[name]
    widths = {"da-cnn": Widths(5, 7, 3), "wwa-cnn": TWO}.get(name, ONE)
    graft = build_graft(small(name), widths, 0)
    expected = torch.from_numpy(of_paper(name, graft.state_dict())).float()
    torch.testing.assert_close(graft(F_, None, *earlier), expected, rtol=1e-4, atol=1e-4)


def test_new_units_have_the_sizes_that_were_asked_for_and_old_ones_stand_beside_them() -> None:
    graft = build_graft(Configuration("wwa-cnn", "none", (9, 11)), TWO, 0)
    shapes = {name: tuple(p.shape) for name, p in graft.named_parameters() if p.ndim == 2}
    assert shapes == {
        "body.before.new.0.weight": (9, 4),
        "body.last.new.0.weight": (11, 6 + 9),
        "classifier.weight": (3, 5 + 11),
    }


def test_sizes_are_the_grafts_own_where_none_are_named_and_one_size_serves_all_its_layers() -> None:
    assert [c.hidden for c in configurations(("da-cnn", "wa-cnn", "dwa-cnn", "retain"), ("l2",), ())] == [
        (2048,), (1024,), (1024, 2048), (),
    ]  # fmt: skip
    assert [c.hidden for c in configurations(("deepen", "dwa-cnn"), ("l2",), ((64,),))] == [(64,), (64, 64)]
    with pytest.raises(UsageError, match=r"--hidden 64,32: wa-cnn has 1 new layers, not 2"):
        configurations(("wa-cnn",), ("l2",), ((64, 32),))


def test_a_network_with_too_few_stages_is_refused_by_its_number_of_stages() -> None:
    staged = stage(toy_network().eval(), "10", torch.randn(2, 3, SIDE, SIDE))
    with pytest.raises(UsageError, match=r"wwa-cnn reads activations .* only 3 stages"):
        AdaptedNetwork(staged, small("wwa-cnn"), Widths(12, 6, 4), cut=0, seed=0)


def test_maps_whose_channels_stand_last_are_refused_where_they_would_be_averaged() -> None:
    shapes = [(96, 8, 8), (8, 8, 96), (192,), (6,)]
    with pytest.raises(UsageError, match=r"head2toe .* stage 2 gives, 8 x 8 x 96, the channels seem to stand last"):
        graft_class("head2toe").require(shapes)
    graft_class("retain").require(shapes)
    graft_class("wa-cnn").require([(8, 8, 96), (96, 8, 8), (192,), (6,)])


def test_stored_activations_lie_before_the_first_stage_that_the_graft_reads() -> None:
    assert stored_cut(small("da-cnn"), 9, 10) == 9
    assert stored_cut(small("wa-cnn"), 9, 10) == 8
    assert stored_cut(small("wwa-cnn"), 9, 10) == 7
    assert stored_cut(small("wwa-cnn"), 2, 10) == 2
    assert stored_cut(small("head2toe"), 10, 10) == 1
    assert stored_cut(small("sharpened"), 10, 10) == 10
    assert stored_cut(small("residual"), 10, 10) == 9
    assert stored_cut(small("deepen-joined"), 10, 10) == 9


@pytest.mark.parametrize("name", ["wa-cnn", "wwa-cnn", "head2toe"])
def test_what_a_graft_reads_on_the_way_is_what_the_source_network_makes_there(name: str) -> None:
    images = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    source = toy_network(DEEPER).eval()
    staged = stage(source, "12", images)
    maps = [source[:k](images).detach() for k in (4, 6)]  # behind the first and the second stage
    for cut in range(4):
        network = AdaptedNetwork(staged, small(name), Widths(12, 6, 4), cut=cut, seed=0).eval()
        with torch.no_grad():
            features, _, *earlier = network.graft_inputs(network.prefix(images))
        torch.testing.assert_close(features, source[:12](images))
        expected = maps[1:] if name == "wa-cnn" else maps
        for found, wanted in zip(earlier, expected, strict=True):
            torch.testing.assert_close(found, on_grid(wanted) if name == "head2toe" else wanted.mean(dim=(2, 3)))


def test_maps_and_tokens_are_averaged_and_vectors_stay() -> None:
    maps, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    torch.testing.assert_close(as_vectors(maps), maps.mean(dim=(2, 3)))
    torch.testing.assert_close(as_vectors(tokens), tokens.mean(dim=1))
    assert [vector_width(tuple(x.shape[1:])) for x in (maps, tokens, maps[:, :, 0, 0])] == [3, 3, 3]


def test_what_members_share_is_repeated_beside_what_they_have_each() -> None:
    shared, own = torch.randn(4, 2), torch.randn(3, 4, 5)
    found = side_by_side(shared, own)
    assert found.shape == (3, 4, 7)
    for member in range(3):
        torch.testing.assert_close(found[member], torch.cat([shared, own[member]], dim=1))


# Head2Toe


def test_a_stage_is_averaged_to_the_largest_grid_that_leaves_at_most_512_numbers() -> None:
    assert grid((8, 64, 64)) == (8, 8, 8)
    assert grid((256, 4, 4)) == (256, 1, 1)
    assert grid((2048, 7, 7)) == (2048, 1, 1)
    assert grid((32, 3, 3)) == (32, 3, 3)
    assert grid((197, 192)) == (2, 192)
    assert grid((100,)) == (100,)
    x = torch.arange(2 * 8 * 16 * 16, dtype=torch.float32).reshape(2, 8, 16, 16)
    torch.testing.assert_close(on_grid(x), F.avg_pool2d(x, 2).flatten(1))


def test_the_classifier_sees_the_kept_features_with_every_stage_at_length_one() -> None:
    widths = Widths(5, 7, 3, ((6,), (4,)))
    graft = build_graft(Configuration("head2toe", "none"), widths, 0)
    kept = [0, 3]  # of the first stage, whose kept numbers are brought to length one; a tenth of 22 is 2
    graft.body.get_buffer("chosen").copy_(torch.tensor(kept))  # type: ignore[union-attr]
    seen = G[:, kept] / G[:, kept].norm(dim=1, keepdim=True)
    torch.testing.assert_close(graft(F_, Z, G, E), F.linear(seen, graft.classifier.weight, graft.classifier.bias))
    graft.body.get_buffer("chosen").copy_(torch.tensor([2, 12]))  # type: ignore[union-attr]
    lonely = torch.stack([G[:, 2].sign(), F_[:, 2].sign()], dim=1)
    torch.testing.assert_close(graft(F_, Z, G, E), F.linear(lonely, graft.classifier.weight, graft.classifier.bias))


def informative(images: int = 90, features: int = 30, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Noise, but for two features that tell three classes apart."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 3
    x = noise * torch.randn(images, features, generator=random)
    x[:, 7] += labels - 1.0
    x[:, 19] += (labels == 1) * 1.0
    return x, labels


def test_the_group_lasso_finds_the_features_that_tell_classes_apart_and_twice_the_same() -> None:
    x, labels = informative(images=600, noise=0.6)
    scores = group_lasso_scores(x, labels, 3, 0)
    assert set(scores.topk(2).indices.tolist()) == {7, 19}
    assert torch.equal(scores, group_lasso_scores(x, labels, 3, 0))


def test_a_strong_penalty_leaves_fewer_features_than_a_weak_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = informative()
    found = []
    for penalty in (0.0, 0.05):
        monkeypatch.setattr(head2toe, "PENALTY", penalty)
        scores = group_lasso_scores(x, labels, 3, 0).sqrt()
        found.append(float(scores.sort().values[:20].mean() / scores.max()))
    assert found[1] < found[0] / 3


# This project's own


def test_sharpened_reads_probabilities_at_a_learned_temperature() -> None:
    graft = build_graft(Configuration("sharpened", "none"), Widths(5, 7, 3), 0)
    w, b = graft.classifier.weight, graft.classifier.bias
    torch.testing.assert_close(graft(None, Z), F.linear(Z.softmax(dim=1), w, b))
    with torch.no_grad():
        graft.get_parameter("probabilities.log_temperature").fill_(float(np.log(0.5)))
    torch.testing.assert_close(graft(None, Z), F.linear((2 * Z).softmax(dim=1), w, b))


@pytest.mark.parametrize("hidden", [(8,), (8, 6)])
def test_deepen_joined_has_new_layers_behind_features_and_logits(hidden: tuple[int, ...]) -> None:
    graft = build_graft(Configuration("deepen-joined", "l2", hidden), Widths(5, 7, 3), 0)
    state = graft.state_dict()
    seen = both(h(F_.double().numpy()), h(Z.double().numpy()))
    for number in range(len(hidden)):
        seen = h(u(state, f"body.new.{number}.0", seen))
    expected = torch.from_numpy(linear(state, "classifier", seen)).float()
    torch.testing.assert_close(graft(F_, Z), expected, rtol=1e-4, atol=1e-4)


def test_residual_is_its_linear_part_until_gates_open() -> None:
    graft = build_graft(Configuration("residual", "l2"), Widths(5, 7, 3), 0)
    straight = F.linear(F_, graft.classifier.weight, graft.classifier.bias)
    torch.testing.assert_close(graft(F_, Z), straight)
    gates = torch.tensor([0.5, 0.0, -1.0])
    with torch.no_grad():
        graft.get_parameter("gate.gate").copy_(gates)
    normal = 20 * Z / Z.norm(dim=1, keepdim=True)
    more = F.linear(normal, graft.get_parameter("more.weight"), graft.get_parameter("more.bias"))
    torch.testing.assert_close(graft(F_, Z), straight + gates * more)


def test_residual_starts_at_the_linear_discriminant_of_the_training_features() -> None:
    x, labels = informative()
    graft = build_graft(Configuration("residual", "l2"), Widths(30, 7, 3), 0)
    parts = [(some, torch.zeros(len(some), 7)) for some in x.split(20)]
    graft.start(lambda: parts, labels, 0)
    predicted = graft(x, torch.zeros(len(x), 7)).argmax(dim=1)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x.numpy(), labels.numpy())
    agree = (predicted.numpy() == reference.predict(x.numpy())).mean()
    assert agree > 0.95
    assert float((predicted == labels).float().mean()) > 0.9


def test_without_shrinkage_the_discriminant_is_that_of_scikit_learn_up_to_its_tempering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inarch.network.linear_start.ledoit_wolf", lambda x, assume_centered: (x.T @ x / len(x), 0.0))
    x, labels = (part.numpy() for part in informative())
    found = linear_discriminant(x, labels, 3)
    assert found is not None
    reference = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(x.astype(np.float64), labels)
    expected = both(reference.coef_, reference.intercept_[:, None])
    expected = expected - expected.mean(axis=0)
    factor = tempering(x @ reference.coef_.T + reference.intercept_, labels)
    assert 0 < factor <= 1
    np.testing.assert_allclose(both(found[0], found[1][:, None]), factor * expected, rtol=1e-3, atol=1e-4)


def test_tempering_is_the_best_of_many_factors() -> None:
    x, labels = (part.numpy() for part in informative())
    logits = 30 * x[:, :3]
    logits[np.arange(len(labels)), labels] += 20
    smooth = np.full((len(labels), 3), 0.1 / 3) + 0.9 * np.eye(3)[labels]

    def loss(factor: float) -> float:
        z = torch.from_numpy(factor * logits)
        return float(F.cross_entropy(z, torch.from_numpy(smooth)))

    best = min(np.geomspace(1e-3, 1, 400), key=loss)
    assert tempering(logits, labels) == pytest.approx(best, rel=0.03)


def test_a_class_without_images_is_never_the_answer_and_nothing_is_told_from_one_class() -> None:
    x, labels = (part.numpy() for part in informative())
    found = linear_discriminant(x, labels, 4)
    assert found is not None
    weight, bias = found
    assert not weight[3].any()
    assert not (x @ weight.T + bias).argmax(axis=1).tolist().count(3)
    assert linear_discriminant(x, np.zeros(len(x), dtype=int), 4) is None
    assert linear_discriminant(x[:2], np.arange(2), 4) is None


# All of them


def test_the_catalogue_names_every_graft_in_order_each_once() -> None:
    assert tuple(entry.name for entry in ENTRIES) == GRAFT_NAMES
    assert len(set(GRAFT_NAMES)) == len(GRAFT_NAMES)
    assert GRAFT_NAMES[: len(DEFAULT_GRAFTS)] == DEFAULT_GRAFTS == ("replace", "retain", "deepen", "joined")
    assert all(entry.line and entry.paper for entry in ENTRIES)
    assert [entry.keeps_layer for entry in ENTRIES] == [graft.keeps_layer for graft in GRAFTS]


@pytest.mark.parametrize("name", GRAFT_NAMES)
def test_every_graft_says_whether_it_stacks_and_comes_back_from_a_pickle_as_it_was(name: str) -> None:
    graft = build_graft(small(name), TWO if name in ("wwa-cnn", "head2toe") else ONE, 3)
    again = pickle.loads(pickle.dumps(graft))
    assert type(again) is type(graft)
    assert graft.stacks == stackable(graft)
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in graft.state_dict().items())
