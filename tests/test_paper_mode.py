# SPDX-License-Identifier: MIT
"""Paper mode: the settings are those the papers print, variants follow them, and it runs."""

import pytest
from commands import bench

from fm_bench.config import configure
from fm_bench.leaderboard.record import load


def test_variants_follow_paper_mode():
    plain = configure("amnet", "garments", "paper", "paper", 0).hyper
    for variant, change in (("no-memory", {"memory": False}), ("no-ranking", {"classification_weight": 1.0})):
        assert configure(f"amnet/{variant}", "garments", "paper", "paper", 0).hyper == plain | change


GAN = {
    "generator_widths": [64, 128, 256],
    "blocks": 4,
    "encoder_widths": [64, 128, 256, 512, 512],
    "gamma": 1.0,
    "mu": 1.0,
    "lambda_": 1.0,
    "margin": 0.2,
    "shift": 1.0,
    "class_loss": "probability",
    "classify": "target",
    "saturating": True,
    "mask_equal": False,
    "fresh_batches": True,
    "discriminator_lr": 0.0002,
    "generator_lr": 0.0002,
    "betas": (0.5, 0.999),
}
JOINT = {
    "backbone": "alexnet",
    "weights": None,
    "images_per_value": None,
    "attributes_lr": 0.05,
    "attributes_head_lr": 0.05,
    "weight_decay": 0.0005,
    "dim": 512,
    "margin": 0.2,
    "step": 1.0,
    "lr": 0.02,
    "new_lr": 3.0,
}


@pytest.mark.parametrize(
    ("spec", "hyper", "batch_size"),
    [
        ("amgan-p", GAN | {"scheme": "pair"}, 128),
        ("amgan-t", GAN | {"scheme": "triplet"}, 128),
        ("amgan-p/no-vse", GAN | {"scheme": "pair", "gamma": 0.0}, 128),
        ("amgan-p/no-l1", GAN | {"scheme": "pair", "mu": 0.0}, 128),
        ("amgan-t/no-cls", GAN | {"scheme": "triplet", "lambda_": 0.0}, 128),
        ("cgan-p", GAN | {"scheme": "pair"}, 128),
        ("cgan-t", GAN | {"scheme": "triplet"}, 128),
        ("fcd", JOINT, 64),
    ],
)
def test_paper_mode_of_amgan_and_its_baselines_is_what_is_printed(spec, hyper, batch_size):
    config = configure(spec, "garments", "paper", "paper", 0)
    assert config.hyper == hyper
    assert config.loader.batch_size == batch_size
    common = configure(spec, "garments", "paper", "common", 0)
    assert common.hyper != hyper


EXTRACTOR = {
    "backbone": "resnet50",
    "weights": "imagenet",
    "images_per_value": None,
    "attributes_lr": 0.05,
    "attributes_head_lr": 0.05,
    "weight_decay": 0.0005,
    "features": "instances",
    "stand_in": "labels",
    "dim": 1024,
    "classes": 1000,
    "instance_margin": 0.3,
    "instances_lr": 0.05,
    "targets": "three",
    "values": 10,
    "embedder_hidden": 256,
    "margin": 0.2,
    "negatives": "random",
}
GENERATORS = EXTRACTOR | {
    "code": 32,
    "embedders_lr": 0.001,
    "hidden": 1024,
    "judge_hidden": [512, 256],
    "residual": False,
    "shared_generator": False,
    "match": "all",
    "online_sampling": True,
    "dictionary_share": 0.0,
    "saturating": True,
    "norm": "l2",
    "d_fits_fake": False,
    "adversarial_weight": 1.0,
    "match_weight": 1.0,
    "target_weight": None,
    "cycle_weight": 1.0,
    "lr": 0.0002,
}
PARTS = EXTRACTOR | {"part": 341, "dropout": 0.5, "lr": 0.001}
STEPS = {"embedders": (256, 20, None), "manipulation": (256, 1, 50)}


@pytest.mark.parametrize(
    ("spec", "hyper", "steps"),
    [
        ("flam", GENERATORS, STEPS),
        # a classifier has no triplets to set up
        (
            "cls-concat",
            PARTS | {"parts": "classifiers", "margin": 1.0, "negatives": "hardest"},
            {"slots": (256, 20, None)},
        ),
        ("emb-concat", PARTS | {"parts": "embedders"}, {"slots": (256, 20, None)}),
    ],
)
def test_paper_mode_of_flam_and_its_baselines_is_what_is_printed(spec, hyper, steps):
    config = configure(spec, "garments", "paper", "paper", 0)
    assert config.hyper == hyper
    stages = {name: (of.batch_size, of.passes, of.epochs) for name, of in config.stages.items() if of.batch_size}
    assert stages == steps
    common = configure(spec, "garments", "paper", "common", 0)
    assert common.hyper != hyper


@pytest.mark.parametrize("mode", ["paper", "common"])
def test_variants_of_flam_differ_in_what_their_names_say(mode):
    plain = configure("flam", "garments", "paper", mode, 0).hyper
    for variant, change in (
        ("m-os-adv", {}),
        ("m-adv", {"online_sampling": False}),
        ("m", {"online_sampling": False, "adversarial_weight": 0.0}),
        ("s-adv", {"online_sampling": False, "match": "target"}),
        ("shared-generator", {"shared_generator": True}),
        ("attribute-features", {"features": "attributes"}),
        ("all-attributes", {"targets": "all", "target_weight": 8.0}),
    ):
        assert configure(f"flam/{variant}", "garments", "paper", mode, 0).hyper == plain | change, variant
        assert change.items().isdisjoint(plain.items()), variant


@pytest.mark.parametrize(
    ("variant", "backbone"),
    [
        ("resnet50", "resnet50"),
        ("seresnet50", "seresnet50"),
        ("seresnext50", "seresnext50_32x4d"),
        ("inception-resnet-v2", "inception_resnet_v2"),
        ("densenet121", "densenet121"),
    ],
)
def test_backbones_of_table_5_are_told_apart_in_both_modes(variant, backbone):
    for mode in ("paper", "common"):
        plain = configure("flam", "garments", "quick", mode, 0).hyper
        config = configure(f"flam/{variant}", "garments", "quick", mode, 0)
        assert config.hyper == plain | {"backbone": backbone}
        assert config.stages["instances"].share == (1 if mode == "paper" else 0.12)


@pytest.mark.slow
def test_paper_mode_runs(tmp_path):
    options = [
        "--mode",
        "paper",
        "--method.weights",
        "null",
        "--method.backbone",
        "resnet10t",
        "--method.images_per_value",
        "3",
    ]
    assert bench("amnet", *options, out=tmp_path / "run") == 0
    record = load(tmp_path / "run" / "record.json")
    assert record.mode == "paper"
    assert record.config["hyper"]["normalize"] is False


def test_paper_mode_of_amgan_runs(tmp_path):
    small = ["--method.generator_widths", "[4, 6, 8]", "--method.blocks", "1", "--method.encoder_widths", "[4, 6, 8]"]
    asked = ["--mode", "paper", "--budget", "300", "--evaluation.protocols", "[manipulate-1]", *small]
    assert bench("amgan-t", *asked, out=tmp_path / "run") == 0
    record = load(tmp_path / "run" / "record.json")
    assert record.mode == "paper"
    assert record.config["hyper"] | {"betas": (0.5, 0.999)} == GAN | {
        "scheme": "triplet",
        "generator_widths": [4, 6, 8],
        "blocks": 1,
        "encoder_widths": [4, 6, 8],
    }
    assert any("probability itself, as printed" in note for note in record.notes)
