# SPDX-License-Identifier: MIT
"""What a claim of a paper is."""

import dataclasses
from typing import NamedTuple

AMGAN, AMNET, DARN, FLAM, FSN = (
    "Yang et al., SIGIR 2020",
    "Zhao et al., CVPR 2017",
    "Huang et al., ICCV 2015",
    "Shin et al., BMVC 2019",
    "Ak et al., CVPR 2018",
)
"""The papers, as pages and tables cite them."""


class Measure(NamedTuple):
    """A number that a run has: of which method, which metric, and of which requests.

    Attributes:
        method: as on the command line.
        metric: e.g. ``accuracy@20``.
        attributes: only requests that change one of these; none for all requests.
        alike: whether every one of these attributes counts alike, however many requests change it.
    """

    method: str
    metric: str
    attributes: tuple[str, ...] = ()
    alike: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """``x`` beats ``y`` on ``metric`` of ``protocol``; ``y`` may have a metric or a protocol of its own.

    Attributes:
        id: short name, shared by the metrics of one claim; a headline with the rows of the full list it summarises.
        statement: the claim in words.
        x, y: methods as on the command line.
        metric: what is compared.
        reported: the paper's numbers, x against y.
        source: where they are printed.
        protocol, protocol_y: where x and y are judged; y where x is unless it is given.
        lower: whether lower values are better.
        tie: the printed difference where it is so small, about .01 or less, that only the reverse would speak against
            the claim, e.g. ``.005``; empty where it is not.
        metric_y: what y is judged on, if not on ``metric``.
        attributes: the claim is about requests that change one of these, by their names in our data.
        alike: whether it is about the mean of these attributes' own means, and not of all their requests.
    """

    id: str
    statement: str
    x: str
    y: str
    metric: str
    reported: str
    source: str
    protocol: str = "manipulate-1"
    protocol_y: str = ""
    lower: bool = False
    tie: str = ""
    metric_y: str = ""
    attributes: tuple[str, ...] = ()
    alike: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocol_y", self.protocol_y or self.protocol)
        object.__setattr__(self, "metric_y", self.metric_y or self.metric)

    @property
    def of_x(self) -> Measure:
        """What is read of x."""
        return Measure(self.x, self.metric, self.attributes, self.alike)

    @property
    def of_y(self) -> Measure:
        """What is read of y."""
        return Measure(self.y, self.metric_y, self.attributes, self.alike)
