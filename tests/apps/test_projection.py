"""Principal components by hand, in a stream, with text, and as colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from apps.predict.projection import PCAFit, PixelPCA
from lseg_utils.errors import InputError


def cloud(count: int = 4000) -> torch.Tensor:
    """Points whose variances along the axes of a turned frame are 16, 9, 4, 1 and 0; their mean is not 0."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    points = (points - points.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.T))).T
    return points * torch.tensor([4.0, 3, 2, 1, 0]) @ frame().T + torch.arange(5.0)


def frame() -> torch.Tensor:
    matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.qr(matrix)[0]


def fitted(points: torch.Tensor, dimensions: int, parts: int = 1) -> PixelPCA:
    fit = PCAFit()
    for part in points.chunk(parts):
        fit.add(part)
    return fit.finish(dimensions)


def test_the_axes_of_a_cloud_are_found() -> None:
    pca = fitted(cloud(), 4)
    np.testing.assert_allclose(pca.mean, np.arange(5), atol=1e-5)
    np.testing.assert_allclose(np.abs(pca.components @ frame().numpy()[:, :4]), np.eye(4), atol=1e-3)
    np.testing.assert_allclose(pca.explained, np.array([16, 9, 4, 1]) / 30, atol=1e-3)
    assert (pca.components[range(4), np.abs(pca.components).argmax(1)] > 0).all()


def test_in_parts_or_at_once_is_the_same() -> None:
    one, many = fitted(cloud(), 3), fitted(cloud(), 3, parts=7)
    np.testing.assert_allclose(one.components, many.components, atol=1e-6)


def test_all_components_keep_all_products_with_text() -> None:
    points, text = cloud().float(), np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    pca = fitted(points, 5)
    text_components, offset = pca.project_text(text)
    found = pca.project(points).numpy() @ text_components.T + offset
    np.testing.assert_allclose(found, points.numpy() @ text.T, atol=1e-4)


def test_projection_takes_the_mean_off_and_keeps_the_shape() -> None:
    pca = fitted(cloud(), 3)
    assert pca.project(torch.zeros(2, 3, 5)).shape == (2, 3, 3)
    torch.testing.assert_close(pca.project(torch.arange(5.0)), torch.zeros(3), atol=1e-5, rtol=0)


def test_colours_use_the_whole_scale_and_few_pixels_leave_it() -> None:
    pca = fitted(cloud(), 3, parts=10)
    colours = pca.colours(pca.project(cloud().float()).view(40, 100, 3))
    assert colours.dtype == np.uint8 and colours.shape == (40, 100, 3)
    assert colours.min() == 0 and colours.max() == 255
    assert ((colours == 0) | (colours == 255)).mean() < 0.05


def test_a_constant_cloud_has_colours_too() -> None:
    pca = fitted(torch.ones(10, 5), 3)
    assert np.isfinite(pca.components).all()
    assert len(np.unique(pca.colours(pca.project(torch.ones(2, 2, 5))))) == 1


def test_too_few_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="3 components .* 2 pixels"):
        fitted(torch.ones(2, 5), 3)
    with pytest.raises(InputError, match=" 0 pixels"):
        PCAFit().finish(3)


def test_saved_with_text_and_read_again(tmp_path: Path) -> None:
    pca, path = fitted(cloud(), 3), tmp_path / "pca.npz"
    text = np.eye(2, 5, dtype=np.float32)
    pca.save(path, ["a", "b"], text)
    again = PixelPCA.load(path)
    np.testing.assert_array_equal(again.components, pca.components)
    with np.load(path) as file:
        assert file["labels"].tolist() == ["a", "b"] and file["text_components"].shape == (2, 3)
        np.testing.assert_allclose(file["text_offset"], text @ pca.mean)
    (tmp_path / "other.npz").write_text("hello")
    with pytest.raises(InputError, match=r"other\.npz contains no basis"):
        PixelPCA.load(tmp_path / "other.npz")


def test_a_basis_keeps_what_distinguishes_texts():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(5000, 12, generator=generator) * torch.linspace(3, 0.1, 12)
    text = torch.eye(12)[[10, 11]]  # they differ where pixels differ least
    fit = PCAFit()
    fit.add(pixels)
    alone, both = fit.finish(4), fit.finish(4, text)
    difference = (text[0] - text[1]).numpy()
    kept = [
        float(np.linalg.norm(basis.components @ difference) / np.linalg.norm(difference)) for basis in (alone, both)
    ]
    assert kept[0] < 0.1 and kept[1] > 0.99
    assert both.explained.sum() < alone.explained.sum() <= 1
    np.testing.assert_allclose(both.components @ both.components.T, np.eye(4), atol=1e-5)
    np.testing.assert_array_equal(fit.finish(4, text[:1]).components, alone.components)  # one text differs from none
