"""Similarity preservation in closed form."""

import torch

from kdx.losses.relations.sp import similarities, similarity_preservation


def test_the_mean_is_the_frobenius_norm_over_b_squared():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3, 2, 2).double(), torch.randn(6, 5).double()
    grams = [f.flatten(1) @ f.flatten(1).T for f in (student, teacher)]
    ours, theirs = (g / g.norm(dim=1, keepdim=True) for g in grams)
    expected = torch.linalg.matrix_norm(ours - theirs).square() / 36
    torch.testing.assert_close(similarity_preservation(student, teacher).mean(), expected)


def test_alike_against_apart():
    # a teacher that tells two samples apart, a student that does not: rows (1, 0) and (1, 1) / sqrt 2
    rows = similarity_preservation(torch.ones(2, 3), torch.eye(2))
    torch.testing.assert_close(rows, torch.full((2,), ((1 - 0.5**0.5) ** 2 + 0.5) / 2))


def test_rotation_and_scale_do_not_matter():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5).double(), torch.randn(6, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5).double())
    expected = similarity_preservation(student, teacher)
    torch.testing.assert_close(similarity_preservation(3 * student @ rotation, teacher), expected)


def test_a_dead_sample_has_no_similarity_and_no_huge_gradient():
    features = torch.randn(4, 3)
    features[2] = 0
    assert similarities(features)[2].tolist() == [0.0] * 4
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(similarity_preservation(features, torch.randn(4, 3)).sum(), features)
    assert gradient.abs().max() < 1e3


def test_a_batch_of_one_has_nothing_to_preserve():
    assert similarity_preservation(torch.randn(1, 3), torch.randn(1, 5)).tolist() == [0.0]
