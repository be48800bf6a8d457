"""Out-of-distribution detection with frozen features: can images of another dataset be told from the val images?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair
from cgh_bench.frozen.selection import require_different
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.linear import Linear

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

SCORES = ("knn", "mahalanobis", "energy", "msp")


@dataclass(frozen=True)
class OutOfDistribution(Linear):
    """Detect images of another dataset among the val images with four scores; that dataset is never used for fitting.

    `knn`: cosine similarity to the k-th nearest train image (Sun et al., ICML 2022, https://arxiv.org/abs/2204.06507).
    `mahalanobis`: distance to the nearest class mean (Lee et al., NeurIPS 2018). `energy` and `msp`: log-sum-exp of the
    linear probe's logits (Liu et al., NeurIPS 2020, https://arxiv.org/abs/2010.03759) and its maximum probability
    (Hendrycks and Gimpel, ICLR 2017).
    """

    METRICS: ClassVar = (
        *(Metric(f"auroc_{name}", always=name != "mahalanobis") for name in SCORES),
        *(Metric(f"fpr95_{name}", higher_is_better=False, always=name != "mahalanobis") for name in SCORES),
    )

    against: str = ""
    """The other dataset: a name from the catalogue or a folder, of which the val images are taken."""
    k: int = 50
    """Sun et al.: 50 for CIFAR, 1,000 for all of ImageNet; at most the number of train images."""
    mahalanobis: bool = later(True)
    """Whether that score is among them: it needs more train images than the feature has numbers."""

    def check(self, data: DataPair) -> None:
        """Refuse what has no classifier, no other dataset, or the same images in both."""
        super().check(data)
        require_different(data.val, *data.others.values())
        if not 1 <= self.k <= len(data.train):
            raise UserError(f"k={self.k} must be from 1 to the {len(data.train):,} train images")

    def others(self) -> tuple[str, ...]:
        """The dataset that is to be told apart."""
        if not self.against:
            raise UserError("name the out-of-distribution dataset: --set against=FOLDER")
        return (self.against,)

    def effort(self, checkpoint: "Checkpoint", data: DataPair) -> list[str]:
        """The plan of the linear probe; refuses what `run` refuses."""
        self._require_spread(checkpoint, data)
        return super().effort(checkpoint, data)

    def _require_spread(self, checkpoint: "Checkpoint", data: DataPair) -> None:
        """Refuse fewer images than determine a covariance: distances by its inverse would be those of the ridge."""
        count, enough = len(data.train), self.width(checkpoint) + len(data.train.classes)
        if self.mahalanobis and count < enough:
            raise UserError(
                f"mahalanobis inverts the covariance of a feature of {self.width(checkpoint):,} numbers, which "
                f"{count:,} train images do not determine; {enough:,} do, or take a narrower feature, or leave that "
                "score out: --set mahalanobis=false"
            )

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images of the probe. `scores.npz` has every image's scores."""
        import torch

        from cgh_bench.frozen import confidence
        from cgh_bench.frozen.neighbours import shared_neighbours

        self._require_spread(checkpoint, data)
        train, val, others = self.features(checkpoint, data, folders)
        head = self.head(checkpoint, data, folders, seed)
        found: dict[str, list[NDArray[Any]]] = {
            name: [] for name in SCORES if name != "mahalanobis" or self.mahalanobis
        }
        for bank in (val, others):
            logits = head.scores(bank.features).double()
            found["knn"].append(shared_neighbours(train.features, bank.features, self.k)[0][:, -1])
            if self.mahalanobis:
                found["mahalanobis"].append(confidence.mahalanobis(train.features, train.labels, bank.features))
            found["energy"].append(logits.logsumexp(dim=1).numpy())
            found["msp"].append(torch.softmax(logits, dim=1).amax(dim=1).numpy())
        folders.save(
            "scores.npz", **{f"{name}_{i}": part for name, both in found.items() for i, part in enumerate(both)}
        )
        told = {name: confidence.told_apart(known, unknown) for name, (known, unknown) in found.items()}
        return {
            **{f"auroc_{name}": auroc for name, (auroc, _) in told.items()},
            **{f"fpr95_{name}": rate for name, (_, rate) in told.items()},
        }


TASKS = {"ood": OutOfDistribution()}
