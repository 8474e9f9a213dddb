"""The multi-scale test with the module's own labels, or of embeddings, under its official import path."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from encoding_ext.views import TEST_SCALES

from .models import Evaluator, crop_image, flip_image, pad_image, resize_image

__all__ = ["MultiEvalModule", "crop_image", "flip_image", "pad_image", "resize_image"]


class MultiEvalModule(Evaluator):
    """The published test over ``module.evaluate``; ``nclass``: number of its labels."""

    def __init__(
        self,
        module: nn.Module,
        nclass: int,
        device_ids: Sequence[int] | None = None,
        flip: bool = True,
        scales: Sequence[float] = TEST_SCALES,
    ) -> None:
        super().__init__(module, flip, scales)
        self.nclass = nclass

    def forward(self, image: Tensor, return_feature: bool = False) -> Tensor:
        """(1, 3, H, W) normalised -> (1, nclass, H, W), the sum of scores; or of embeddings, (1, C, H, W).

        Embeddings are those of DFF and Feature-3DGS, which average mirror images; ``module.flavour`` chooses.
        """
        if not return_feature:
            return self._scores(image, self.nclass, self.module.evaluate)
        dimensions = self.module.net.text_encoder.embed_dim
        total = self._scores(image, dimensions, lambda crops: self.module.evaluate(crops, return_feature=True))
        return total / 2 if self.flip else total
