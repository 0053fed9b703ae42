"""Every method and graft in one line and with its paper, in the order of `METHODS` and `GRAFTS` in their packages.

Apart from methods and grafts themselves so that the command line can list them without waiting for PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from inarch.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """A method or a graft as people meet it: its name on the command line, what it does, and where it comes from."""

    name: str
    line: str
    paper: str
    keeps_layer: bool = False


METHODS = (
    Entry(
        "fine-tuning",
        "everything behind the cut is trained, old layers at their own rate",
        "Yosinski et al., NeurIPS 2014, arXiv 1411.1792",
    ),
    Entry(
        "linear-probe",
        "everything old stays frozen, new layers alone are trained",
        "Kornblith, Shlens, Le, CVPR 2019, arXiv 1805.08974",
    ),
    Entry(
        "lp-ft",
        "a linear probe, then fine-tuning from what it has learned",
        "Kumar et al., ICLR 2022, arXiv 2202.10054",
    ),
    Entry(
        "gradual",
        "stages are unfrozen one after the other, from the last to the first",
        "Howard, Ruder, ACL 2018, arXiv 1801.06146",
    ),
    Entry(
        "layer-decay",
        "the earlier a stage, the slower it learns",
        "Howard, Ruder, ACL 2018, arXiv 1801.06146",
    ),
    Entry(
        "l2-sp",
        "weights decay towards the source network's instead of towards zero",
        "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483",
    ),
    Entry(
        "delta",
        "feature maps stay near the source network's where they matter",
        "Li et al., ICLR 2019, arXiv 1901.09229",
    ),
    Entry(
        "bss",
        "the smallest singular values of a batch of features are pushed to zero",
        "Chen et al., NeurIPS 2019",
    ),
    Entry(
        "stochnorm",
        "batch normalisation takes batch or moving statistics at random",
        "Kou et al., NeurIPS 2020",
    ),
    Entry(
        "co-tuning",
        "related source classes are a second label for every image",
        "You et al., NeurIPS 2020",
    ),
    Entry(
        "lwf",
        "source logits stay near those of the original network",
        "Li, Hoiem, ECCV 2016, arXiv 1606.09282",
    ),
    Entry(
        "rifle",
        "the last layer starts anew in the middle of training",
        "Li et al., ICML 2020, arXiv 2007.03349",
    ),
    Entry(
        "bi-tuning",
        "contrastive losses on features and on a projection of them",
        "Zhong et al., arXiv 2011.06182",
    ),
    Entry(
        "auto-rgn",
        "weights learn as fast as their gradients are large beside them",
        "Lee et al., ICLR 2023, arXiv 2210.11466",
    ),
    Entry(
        "subtuning",
        "a few stages train, chosen one by one; the others stay frozen",
        "Kaplun et al., arXiv 2302.06354",
    ),
    Entry(
        "lora",
        "old weights stay; low-rank updates of them are trained and added",
        "Hu et al., ICLR 2022, arXiv 2106.09685",
    ),
    Entry(
        "wise-ft",
        "the mean of the weights before (a linear probe) and after fine-tuning",
        "Wortsman et al., CVPR 2022, arXiv 2109.01903",
    ),
    Entry(
        "soup",
        "the mean of the weights of those of three fine-tunings that agree",
        "Wortsman et al., ICML 2022, arXiv 2203.05482",
    ),
)

_GROWING = "Wang, Ramanan, Hebert, CVPR 2017, arXiv 1907.07844"
_KEEPING = "Shermin et al., PSIVT 2019, arXiv 1903.10150"
_OWN = "Inarch"

GRAFTS = (
    Entry(
        "replace",
        "a new classifier in place of the classification layer",
        "Yosinski et al., NeurIPS 2014, arXiv 1411.1792",
    ),
    Entry(
        "retain",
        "the classification layer kept, a new classifier behind it",
        "Shermin et al., arXiv 1903.10150, arXiv 1811.07459",
        keeps_layer=True,
    ),
    Entry("deepen", "the classification layer kept, new layers behind it", _KEEPING, keeps_layer=True),
    Entry("joined", "the classification layer kept, a new classifier on its logits and input", _OWN, keeps_layer=True),
    Entry("da-cnn", "a new layer and a new classifier in place of the classification layer", _GROWING),
    Entry("wa-cnn", "new units beside the penultimate ones, a new classifier on both", _GROWING),
    Entry("dwa-cnn", "new units beside the penultimate ones, a new layer, a new classifier", _GROWING),
    Entry("wwa-cnn", "new units beside those of the last two layers, then a new classifier", _GROWING),
    Entry(
        "head2toe",
        "a new classifier on a tenth of all stages' features, by a group lasso",
        "Evci et al., ICML 2022, arXiv 2201.03529",
        keeps_layer=True,
    ),
    Entry(
        "sharpened",
        "the classification layer kept, a classifier on sharpened probabilities",
        _OWN,
        keeps_layer=True,
    ),
    Entry("residual", "a classifier from a linear discriminant on, gated source logits added", _OWN, keeps_layer=True),
    Entry(
        "deepen-joined",
        "the classification layer kept, new layers behind its logits and input",
        _OWN,
        keeps_layer=True,
    ),
)


def known(name: str) -> str:
    """The name of a method as it is; an unknown one is a `UsageError`."""
    names = [entry.name for entry in METHODS]
    if name not in names:
        raise UsageError(f"There is no method called '{name}'.", f"Choose one of: {', '.join(names)}.")
    return name
