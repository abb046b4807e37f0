# SPDX-License-Identifier: MIT
"""AMGAN's requests, prototypes and settings: invariants 1, 2, 14 and 18 of the paper, on tiny networks."""

import math
import re
from functools import partial

import pytest
import torch
from amgan_models import ATTRIBUTES, pictures, quadruplets, tiny
from torch import nn

from fm_bench.attributes import AttributeSchema
from fm_bench.data.batches import QuadrupletBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError
from fm_bench.methods.amgan import AMGAN
from fm_bench.nn.prototypes import Generator, MetricEncoder, from_pixels, replicate, to_pixels
from fm_bench.results import load_model, save_model

build = partial(tiny, AMGAN)


# ------------------------------------------------------------------ 1, 2 and 14: the request


def test_invariant_1_worked_request_and_none():
    generator = Generator(3, [4, 4, 2], 1)
    generator.semantics.data = torch.tensor([[1.0, 0, 2], [0, 3, 4]])
    asked = generator.request(torch.tensor([[1.0, 0, 1], [0, 0, 0]]))
    assert torch.equal(asked, torch.tensor([[1.5, 2], [0, 0]]))
    asked.sum().backward()
    assert torch.isfinite(generator.semantics.grad).all()


def test_invariant_2_replicated_maps_are_constant_over_the_picture():
    request = torch.randn(2, 5)
    maps = replicate(request, torch.zeros(2, 5, 3, 4))
    assert maps.shape == (2, 5, 3, 4)
    assert maps.var(dim=(2, 3)).eq(0).all()
    assert torch.equal(maps[:, :, 0, 0], request)


def test_invariant_14_edited_labels(tmp_path):
    schema = AttributeSchema.from_dict({"a": list("xyz"), "b": list("pqrs"), "c": list("abcdefg")})
    wanted = torch.zeros(14)
    wanted[3 + 3] = 1  # the second attribute, its value 3
    assert torch.equal(schema.edit(torch.tensor([2, 0, 5]), wanted), torch.tensor([2, 3, 5]))

    dataset = GarmentsReader(train=160, val=150, test=60).read()
    datamodule = FashionDataModule(dataset, image_size=(16, 16), batch_size=16, cache=tmp_path, changes=[1, 2])
    datamodule.setup("fit")
    datamodule.use(QuadrupletBatch, count=64)
    values = [(m, v) for m, size in enumerate(datamodule.schema.sizes) for v in range(size)]
    counts = set()
    for batch in datamodule.train_dataloader():
        assert torch.equal(batch.reference_labels, torch.from_numpy(dataset.catalog.labels[batch.index]).long())
        for h, f, e in zip(batch.indicator, batch.reference_labels.tolist(), batch.target_labels.tolist(), strict=True):
            ones = h.nonzero().flatten().tolist()
            edited = dict(enumerate(f)) | dict(values[column] for column in ones)
            assert list(edited.values()) == e, "e* is the target's, not the request's doing"
            assert len(ones) == sum(a != b for a, b in zip(f, e, strict=True))
            counts.add(len(ones))
    assert counts == {1, 2}


# ------------------------------------------------------------------ searching and drawing


@pytest.mark.parametrize("size", [(64, 64), (80, 64), (33, 47)])
@pytest.mark.parametrize("count", [1, 3])
def test_invariant_18_shapes_and_range(size, count):
    model = AMGAN(ATTRIBUTES, "pair", [4, 6, 8], 1, [4, 4, 6, 8, 512]).eval()
    images = pictures(count, *size)
    asked = model.schema.indicator([("colour", "red")]).expand(count, -1)
    with torch.no_grad():
        drawn = model.prototypes(images, asked)
        assert drawn.shape == images.shape
        assert drawn.abs().max() <= 1
        assert model.embed_query(images, asked).shape == (count, 512)
        assert model.embed_gallery(images).shape == (count, 512)


def test_a_request_of_nothing_searches_with_the_picture_itself():
    model = build().eval()
    images = pictures()
    indicator = quadruplets(model.schema).indicator
    nothing = indicator.sum(-1) == 0
    assert nothing.any()
    assert not nothing.all()
    with torch.no_grad():
        query, plain = model.embed_query(images, indicator), model.embed_gallery(images)
        assert torch.allclose(query[nothing], plain[nothing], atol=1e-6)
        assert not torch.isclose(query[~nothing], plain[~nothing]).all(-1).any()
        assert torch.equal(model.embed_query(images, indicator * 0), plain)
        assert torch.allclose(model.draw(images, indicator)[nothing], images[nothing], atol=1e-5)


def test_pixels_and_normalised_pictures():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    pixels = to_pixels(normalise(images))
    assert torch.allclose(pixels, images / 127.5 - 1, atol=1e-5)
    assert torch.allclose(from_pixels(pixels), normalise(images), atol=1e-5)


def test_what_is_drawn_depends_on_the_request():
    model = build().eval()
    images = pictures()
    one, other = (
        model.draw(images, model.schema.indicator([change]).expand(6, -1))
        for change in (("colour", "red"), ("fit", "long"))
    )
    assert not torch.allclose(one, other)


def test_encoder_embeds_one_picture_as_it_does_many():
    encoder = MetricEncoder([4, 6, 10])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    images = pictures()
    assert torch.allclose(encoder(images)[:1], encoder(images[:1]), atol=1e-5)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gamma": -1.0}, "--method.gamma is -1.0: give at least 0"),
        ({"mu": -0.5}, "--method.mu is -0.5: give at least 0"),
        ({"lambda_": -1.0}, "--method.lambda_ is -1.0: give at least 0"),
        ({"margin": -0.1}, "--method.margin is -0.1: give at least 0"),
        ({"margin": math.nan}, "--method.margin is nan: give at least 0"),
        ({"blocks": -1}, "--method.blocks is -1: give at least 0"),
        ({"generator_widths": [4, 6]}, "--method.generator_widths is [4, 6]: give three widths"),
        ({"encoder_widths": []}, "--method.encoder_widths is []: give at least one width"),
        ({"betas": [0.5]}, "--method.betas is [0.5]: give two numbers"),
        ({"image_size": (32, 7)}, "pictures of 32 x 7 cannot be halved 3 times: raise --loader.image_size to 8"),
        ({"image_size": (3, 3), "encoder_widths": [4]}, "pictures of 3 x 3 cannot be halved 2 times"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(options, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        build(**options)


@pytest.mark.parametrize("widths", [[4], [4, 6, 10], [4, 4, 6, 8, 10]])
def test_the_smallest_pictures_that_are_let_through_can_be_searched_and_drawn(widths):
    size = 2 ** max(2, len(widths))
    model = build(encoder_widths=widths, image_size=(size, size)).eval()
    images = pictures(2, size, size)
    asked = model.schema.indicator([("colour", "red")]).expand(2, -1)
    with torch.no_grad():
        assert model.embed_query(images, asked).shape == (2, widths[-1])
        assert model.draw(images, asked).shape == images.shape
    with pytest.raises(UserError, match="cannot be halved"):
        build(encoder_widths=widths, image_size=(size, size - 1))


@pytest.mark.parametrize("size", [None, (16, 12)])
def test_models_load_whether_or_not_they_know_their_pictures_size(tmp_path, size):
    """Runs from before the size was known have no such setting."""
    model = build(image_size=size)
    if size is None:
        del model.hparams["image_size"]
    save_model(model, tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt", "amgan-t").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_row_says_which_class_term_was_trained():
    assert "cross-entropy" in build().row_notes[0]
    assert "probability itself, as printed" in build(class_loss="probability").row_notes[0]
    assert build(lambda_=0).row_notes == []
