# SPDX-License-Identifier: MIT
"""How FLAM answers requests, what its rows say, and what its variants share, on tiny networks."""

import pytest
import torch
import torch.nn.functional as F
from flam_models import DIM

from fm_bench.errors import UserError
from fm_bench.methods.flam import EMBEDDERS, FLAM, INSTANCES, MANIPULATION


def test_15_requests(flam, images):
    model = flam()
    x = model.feature(images)
    nothing = torch.zeros(6, 11)
    assert torch.equal(model.embed_query(images, nothing), x)
    mixed = nothing.clone()
    mixed[1] = model.schema.indicator([("colour", "green")])
    mixed[2] = model.schema.indicator([("gender", "men")])  # no target
    found = model.embed_query(images, mixed)
    assert (found == x).all(1).tolist() == [True, False, True, True, True, True]
    code = model.embedders.dictionary[1, 2]
    assert torch.allclose(found[1], model.generators.one(1, x[1:2], code.expand(1, -1))[0], atol=1e-6)
    gallery = F.normalize(torch.randn(50, DIM), dim=-1)
    order = torch.cdist(found, gallery).argsort(1)
    assert len(order.unique(dim=0)) > 1
    for length in (0.1, 7.0):
        assert torch.equal(torch.cdist(length * found, gallery).argsort(1), order), "only the direction counts"
    assert torch.allclose(found.norm(dim=-1), torch.ones(6), atol=1e-5)
    assert torch.allclose(model.embed_gallery(images).norm(dim=-1), torch.ones(6), atol=1e-5)


def test_two_requests_go_through_one_generator_after_the_other(flam, images):
    model = flam()
    request = model.schema.indicator([("pattern", "striped"), ("category", "skirt")]).expand(6, -1)
    x, d = model.feature(images), model.embedders.dictionary
    first = model.generators.one(0, x, d[0, 2].expand(6, -1))
    assert torch.allclose(
        model.embed_query(images, request), model.generators.one(2, first, d[2, 1].expand(6, -1)), atol=1e-6
    )


# ------------------------------------------------------------------ settings, and what stages share


def test_a_discriminator_of_no_layers_is_refused(flam):
    with pytest.raises(UserError, match="judge_hidden is empty"):
        flam(judge_hidden=[])


def test_readers_of_the_row_are_told(flam):
    def told(said, **options):
        return any(said in note for note in flam(**options).row_notes)

    assert told("values beyond the 3 most frequent are answered by the feature as it is", values=3)
    assert not told("most frequent", values=4)
    assert not told("most frequent")
    assert told("without their labels, in the place of the paper's private photos")
    assert told("chosen on validation requests")
    assert told("most items have one photo", pairs="labels")
    assert not told("one photo")


def test_what_variants_share(flam):
    first = flam()
    for stage, other, same in (
        (INSTANCES, {"targets": "all", "code": 3}, True),
        (INSTANCES, {"dim": 9}, False),
        (INSTANCES, {"pairs": "labels"}, False),
        (EMBEDDERS, {"match": "target", "lr": 1.0, "hidden": 3}, True),
        (EMBEDDERS, {"targets": "all"}, False),
        (EMBEDDERS, {"values": 3}, False),
        (EMBEDDERS, {"margin": 0.5}, False),
        (EMBEDDERS, {"negatives": "random"}, False),
        (EMBEDDERS, {"embedders_lr": 0.5}, False),
        (EMBEDDERS, {"code": 3}, False),
        (EMBEDDERS, {"embedder_hidden": 3}, False),
        (EMBEDDERS, {"features": "attributes"}, False),
        (EMBEDDERS, {"dim": 9}, False),
        (MANIPULATION, {"match": "target"}, False),
    ):
        assert (flam(**other).stage_config(stage) == first.stage_config(stage)) == same, (stage.name, other)


def test_what_stages_leave(flam):
    model = flam()
    names = {stage.name: {name.partition(".")[0] for name in model.stage_state(stage)} for stage in FLAM.stages}
    assert names == {
        "attributes": {"backbone", "heads"},
        "instances": {"backbone", "projection", "classifier"},
        "embedders": {"embedders"},
        "manipulation": {"generators", "discriminators"},
    }
    assert "embedders.known" in model.stage_state(EMBEDDERS)
