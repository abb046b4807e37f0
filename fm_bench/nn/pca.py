# SPDX-License-Identifier: MIT
"""Principal component analysis whose result is part of a checkpoint."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW = 0.2
"""Below this share of all components, searching for the first ones alone is several times faster than finding all."""


class PrincipalComponents(nn.Module):
    """The projection of features onto the directions in which they vary most, without whitening.

    It is fitted once, on training features, and never trained: mean and components are buffers. With as many outputs
    as inputs it is a rotation and changes no distance. Fitted on fewer features than it has outputs, the rest of the
    outputs stays at zero, which changes no distance either.

    Args:
        inputs: ``D``, length of the features.
        outputs: ``K``, number of components; more than ``D`` count as ``D``.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("components", torch.zeros(min(inputs, outputs), inputs))

    @property
    def dim(self) -> int:
        """``K``, the length of the outputs."""
        return len(self.components)

    def fit(self, features: Tensor, seed: int = 0) -> None:
        """Finds the components of ``features (n, D)``, which are training features only.

        They are exact unless few of many are asked for; those are searched by randomised projections (Halko et al.).

        Args:
            features: at least two rows.
            seed: of the projections.
        """
        from sklearn.decomposition import PCA  # half a second to import, which most runs do not need

        size = min(features.shape)
        count = min(self.dim, size)
        solver = "randomized" if count < _FEW * size else "covariance_eigh" if size == features.shape[1] else "full"
        pca = PCA(count, svd_solver=solver, iterated_power=3, random_state=seed % 2**32, copy=False)
        mean = features.mean(dim=0)
        pca.fit((features - mean).cpu().numpy())  # centred here, since not every solver keeps its digits otherwise
        self.components.zero_()
        self.components[:count] = torch.from_numpy(pca.components_)
        self.mean.copy_(mean)

    def forward(self, features: Tensor) -> Tensor:
        """``(n, D)`` features to ``(n, K)``, the most varying direction first."""
        return F.linear(features - self.mean, self.components)
