# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from seekrec.errors import ConfigurationError, DataError
from seekrec.identifiers import DualRQVAEConfig, DualRQVAEModel, DualRQVAEOutput

ABLATIONS = {
    "gensar": {},
    "no shared levels": {"num_shared_levels": 0, "num_specific_levels": 3},
    "all shared": {"num_shared_levels": 3, "num_specific_levels": 0},
    "tiger": {"views": ["semantic"], "num_shared_levels": 0, "num_specific_levels": 3},
    "collaborative only": {"views": ["collaborative"], "num_shared_levels": 0, "num_specific_levels": 3},
}


def small_config(**settings) -> DualRQVAEConfig:
    defaults = {
        "semantic_size": 6,
        "collaborative_size": 5,
        "hidden_sizes": [7],
        "latent_size": 3,
        "num_shared_levels": 1,
        "num_specific_levels": 2,
        "codebook_size": 4,
    }
    return DualRQVAEConfig(**{**defaults, **settings})


def vectors(num_items: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(num_items, 6)).astype(np.float32),
        (generator.normal(size=(num_items, 5)) * 30 + 4).astype(np.float32),
    )


def started(**settings) -> DualRQVAEModel:
    model = DualRQVAEModel(small_config(**settings))
    model.initialize_codebooks(*vectors())
    return model


def nearest(residual, codebook):
    return min(range(len(codebook)), key=lambda code: ((residual - codebook[code]) ** 2).sum())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_losses_and_codes_equal_the_equations_item_by_item(reduction):
    # Equations 2 to 10 written down for one item at a time, in numpy; the batch is the mean of its items.
    model = started(reduction=reduction).eval()
    semantic, collaborative = vectors(8, seed=1)
    output = model(torch.from_numpy(semantic), torch.from_numpy(collaborative))
    shared = model.stacks["shared"].codebooks.detach().numpy()
    specific = {view: model.stacks[view].codebooks.detach().numpy() for view in ("semantic", "collaborative")}
    alpha, size = 0.25, 3
    reconstruction, quantization = [], []
    for row in range(8):
        given, latent, chosen = {}, {}, {}
        for view, own in (("semantic", semantic[row]), ("collaborative", collaborative[row])):
            scaler = model.scaler(view)
            given[view] = (own - scaler.center.numpy()) / scaler.scale.item()
            latent[view] = model.encoders[view](torch.from_numpy(given[view])).detach().numpy()
        # In value both terms of equation 9 are the same squared norm, one times 1 and one times alpha.
        levels, residual = [], np.concatenate([latent["semantic"], latent["collaborative"]])
        total, shared_codes = np.zeros(2 * size), []
        for codebook in shared:
            code = nearest(residual, codebook)
            shared_codes.append(code)
            levels.append(residual - codebook[code])
            total, residual = total + codebook[code], residual - codebook[code]
        errors = []
        for view, part in (("semantic", slice(0, size)), ("collaborative", slice(size, 2 * size))):
            left, quantized, codes = residual[part], total[part], list(shared_codes)
            for codebook in specific[view]:
                code = nearest(left, codebook)
                codes.append(code)
                levels.append(left - codebook[code])
                quantized, left = quantized + codebook[code], left - codebook[code]
            chosen[view] = codes
            restored = model.decoders[view](torch.from_numpy(quantized.astype(np.float32))).detach().numpy()
            errors.append(given[view] - restored)
        reduce = np.sum if reduction == "sum" else np.mean
        reconstruction.append(sum(reduce(error**2) for error in errors))
        terms = [(1 + alpha) * reduce(level**2) for level in levels]
        quantization.append(sum(terms) if reduction == "sum" else np.mean(terms))
        assert output.semantic_codes[row].tolist() == chosen["semantic"]
        assert output.collaborative_codes[row].tolist() == chosen["collaborative"]
    assert output.reconstruction_loss.item() == pytest.approx(np.mean(reconstruction), rel=1e-4)
    assert output.quantization_loss.item() == pytest.approx(np.mean(quantization), rel=1e-4)
    assert output.loss.item() == pytest.approx(np.mean(reconstruction) + np.mean(quantization), rel=1e-4)


def test_straight_through():
    # The decoder sees codewords, so the reconstruction cannot move the codebooks; the encoder gets the decoder's
    # gradient as if quantization were the identity.
    model = started()
    semantic, collaborative = (torch.from_numpy(own) for own in vectors(8, seed=1))
    model(semantic, collaborative).reconstruction_loss.backward()
    assert all(stack.codebooks.grad is None for stack in model.stacks.values())
    scaled = model.scaler("semantic")(semantic)
    quantized = torch.from_numpy(model.encode(semantic, collaborative).codes["semantic"])
    latent = torch.from_numpy(model.codebooks().quantized("semantic", quantized.numpy())).requires_grad_()
    (scaled - model.decoders["semantic"](latent)).square().sum(dim=1).mean().backward()
    by_hand = torch.autograd.grad(
        model.encoders["semantic"](scaled), model.encoders["semantic"][0].weight, grad_outputs=latent.grad
    )[0]
    torch.testing.assert_close(model.encoders["semantic"][0].weight.grad, by_hand)


def test_codebooks_move_towards_items_and_items_towards_codebooks():
    # Equation 9 with one level: d/de of |z - e|^2 is 2 (e - z), and d/dz of alpha |z - e|^2 is 2 alpha (z - e).
    model = DualRQVAEModel(small_config(**{**ABLATIONS["tiger"], "num_specific_levels": 1, "codebook_size": 2}))
    stack = model.stacks["semantic"]
    stack.codebooks.data = torch.tensor([[[0.0, 0, 0], [9, 9, 9]]])
    latent = torch.tensor([[1.0, 2, 0]], requires_grad=True)
    stack(latent)[3].sum().backward()
    assert stack.codebooks.grad.tolist() == [[[-2, -4, 0], [0, 0, 0]]]
    assert latent.grad.tolist() == [[0.5, 1, 0]]


@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations(settings, tmp_path):
    model = started(**settings)
    model(*map(torch.from_numpy, vectors())).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    encoded = model.encode(*vectors())
    views = model.config.views
    assert list(encoded.codes) == views
    assert all(own.shape == (40, 3) for own in encoded.codes.values())
    if len(views) == 2:
        is_equal = encoded.codes["semantic"] == encoded.codes["collaborative"]
        assert is_equal[:, : model.config.num_shared_levels].all()
        assert is_equal.all() == (model.config.num_specific_levels == 0)
    model.save_pretrained(tmp_path)
    loaded = DualRQVAEModel.from_pretrained(tmp_path)
    assert all(torch.equal(own, loaded.state_dict()[name]) for name, own in model.state_dict().items())
    assert all((loaded.encode(*vectors()).codes[view] == encoded.codes[view]).all() for view in views)


def test_encode_agrees_with_forward_and_reconstruct_too():
    model = started().eval()
    output = model(*map(torch.from_numpy, vectors()))
    encoded = model.encode(*vectors())
    assert (output.semantic_codes.numpy() == encoded.codes["semantic"]).all()
    assert (output.collaborative_codes.numpy() == encoded.codes["collaborative"]).all()
    restored = model.reconstruct(encoded.codes)
    np.testing.assert_allclose(restored["semantic"], output.semantic_reconstruction.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(
        restored["collaborative"], output.collaborative_reconstruction.detach().numpy(), atol=1e-3
    )


def test_start_on_all_items_is_saved(tmp_path):
    fresh = DualRQVAEModel(small_config())
    assert not fresh.has_codebooks
    with pytest.raises(ConfigurationError, match="codebooks of this DualRQVAEModel were never initialised"):
        fresh.encode(*vectors())
    fresh.initialize_codebooks(*vectors())
    fresh.save_pretrained(tmp_path)
    assert DualRQVAEModel.from_pretrained(tmp_path).has_codebooks


def test_start_uses_every_code_of_the_first_level():
    # 4 codes on 40 different items: k-means leaves no cluster empty.
    assert len(np.unique(started().encode(*vectors()).codes["semantic"][:, 0])) == 4


def test_scale_of_a_view_does_not_matter():
    model, semantic, collaborative = DualRQVAEModel(small_config()), *vectors()
    codes = []
    for factor in (1, 1000):
        model.initialize_codebooks(semantic, collaborative * factor + factor)
        codes.append(model.encode(semantic, collaborative * factor + factor).codes)
    assert all((codes[0][view] == codes[1][view]).all() for view in codes[0])


def test_training_counts_codes_and_evaluation_does_not():
    model = started()
    batch = tuple(map(torch.from_numpy, vectors()))
    model.eval()(*batch)
    assert model.stacks["shared"].code_counts.sum() == 0
    model.train()(*batch)
    model(*batch)
    assert model.stacks["shared"].code_counts.sum() == 80
    codes = model.encode(*vectors()).codes["semantic"][:, 0]
    assert (model.stacks["shared"].code_counts[0].numpy() == 2 * np.bincount(codes, minlength=4)).all()


def test_dead_codes_are_moved_to_residuals_and_live_ones_stay():
    model = started()
    stack = model.stacks["shared"]
    with torch.no_grad():
        stack.codebooks[0, 2] = 1e6
    model.train()(*map(torch.from_numpy, vectors()))
    before = stack.codebooks.detach().clone()
    moved = model.revive_dead_codes(*vectors(), seed=5)
    assert moved["shared"].tolist() == [[False, False, True, False]]
    assert torch.equal(stack.codebooks[0, [0, 1, 3]], before[0, [0, 1, 3]])
    # The new place of a code of the first level is the latent vector of an item, which then takes this code.
    latents = np.concatenate(
        list(model.latents(dict(zip(model.config.views, vectors(), strict=True))).values()), axis=1
    )
    distances = np.abs(latents - stack.codebooks[0, 2].detach().numpy()).max(axis=1)
    assert distances.min() == 0
    assert model.encode(*vectors()).codes["semantic"][distances.argmin(), 0] == 2
    assert stack.code_counts.sum() == 0


def test_revival_depends_on_the_seed_alone():
    places = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        model = started()
        with torch.no_grad():
            model.stacks["semantic"].codebooks[:, :2] = 1e6
        model.train()(*map(torch.from_numpy, vectors()))
        model.revive_dead_codes(*vectors(), seed=seed)
        places.append(model.stacks["semantic"].codebooks.detach().clone())
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[0], places[2])
    assert all((own.abs() < 1e5).all() for own in places)


def test_nothing_is_revived_before_anything_is_counted():
    model = started()
    assert not any(own.any() for own in model.revive_dead_codes(*vectors()).values())


def test_output_is_a_model_output():
    output = started(**ABLATIONS["tiger"]).eval()(torch.from_numpy(vectors()[0]), return_dict=False)
    assert len(output) == 5
    assert isinstance(started().eval()(*map(torch.from_numpy, vectors())), DualRQVAEOutput)


def test_a_missing_view_is_refused():
    with pytest.raises(DataError, match=r"`collaborative` is missing, but `views` is \['semantic', 'collaborative'\]"):
        started()(torch.from_numpy(vectors()[0]))
    with pytest.raises(DataError, match="`collaborative` is missing"):
        started().encode(vectors()[0])


def test_nothing_to_start_from():
    with pytest.raises(DataError, match="`semantic` contains no item"):
        DualRQVAEModel(small_config()).initialize_codebooks(np.ones((0, 6)), np.ones((0, 5)))
