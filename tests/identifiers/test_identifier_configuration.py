# SPDX-License-Identifier: Apache-2.0
import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from seekrec.identifiers import DualRQVAEConfig, ResidualKMeansConfig


def test_defaults_are_those_of_the_paper():
    # GenSAR 3.2 and its released code: 2 + 2 levels of 256, latents of 32, layers 512-256-128-64, alpha 0.25.
    config = DualRQVAEConfig()
    assert (config.num_shared_levels, config.num_specific_levels, config.codebook_size) == (2, 2, 256)
    assert (config.hidden_sizes, config.latent_size, config.commitment_weight) == ([512, 256, 128, 64], 32, 0.25)
    assert (config.reduction, config.num_levels) == ("sum", 4)


@pytest.mark.parametrize("config_class", [DualRQVAEConfig, ResidualKMeansConfig])
def test_saved_and_loaded_is_equal(config_class, tmp_path):
    config = config_class(views=("semantic",), num_shared_levels=0, num_specific_levels=3, semantic_size=7)
    config.save_pretrained(tmp_path)
    loaded = config_class.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.input_sizes == {"semantic": 7}


def test_input_sizes_follow_the_order_of_concatenation():
    assert list(DualRQVAEConfig(semantic_size=3, collaborative_size=2).input_sizes.items()) == [
        ("semantic", 3),
        ("collaborative", 2),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": ["collaborative", "semantic"]}, r"`views` is \['collaborative', 'semantic'\]; use one of"),
        ({"views": []}, r"`views` is \[\]"),
        ({"views": ["semantic", "semantic"]}, "use one of"),
        (
            {"views": ["semantic"]},
            "`num_shared_levels` is 2, but `views` contains only 'semantic'.*num_specific_levels=4",
        ),
        ({"num_shared_levels": 0, "num_specific_levels": 0}, "both 0; an identifier needs a level"),
        ({"num_shared_levels": -1}, "`num_shared_levels` is -1; it must be at least 0"),
        ({"codebook_size": 1}, "`codebook_size` is 1; it must be at least 2"),
        ({"semantic_size": 0}, "`semantic_size` is 0; it must be at least 1"),
        ({"latent_size": 0}, "`latent_size` is 0"),
        ({"commitment_weight": -0.5}, "`commitment_weight` is -0.5; it must be at least 0"),
        ({"hidden_sizes": [8, 0]}, r"`hidden_sizes` is \[8, 0\]; every width must be at least 1"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(StrictDataclassClassValidationError) as error:
        DualRQVAEConfig(**settings)
    assert error.match("validate_")
    with pytest.raises(ValueError, match=message):
        raise error.value.__cause__


@pytest.mark.parametrize("settings", [{"codebook_size": "256"}, {"reduction": "max"}, {"views": "semantic"}])
def test_wrong_types_are_refused(settings):
    with pytest.raises(StrictDataclassFieldValidationError, match=next(iter(settings))):
        DualRQVAEConfig(**settings)
