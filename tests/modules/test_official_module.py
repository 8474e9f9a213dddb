"""Programs that load LSegModule with the official keywords and test with the official evaluators."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

import callers
from additional_utils import encoding_models
from additional_utils.models import LSeg_MultiEvalModule, crop_image, flip_image, pad_image, resize_image
from checkpoint_files import official_content, official_file
from encoding_ext import MultiScaleEvaluator
from lseg_utils.errors import InputError
from modules.lseg_module import LSegModule
from modules.models.lseg_net import LSegEncNet, LSegNet
from modules.training.optimization import OptimizationConfig
from tiny import pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")
FIVE = ["dog", "grass", "sky", "a red car", "other"]
KEYWORDS = {
    **{"data_path": "nowhere", "dataset": "ade20k", "backbone": "tiny_vit", "aux": False, "num_features": 256},
    **{"aux_weight": 0, "se_loss": False, "se_weight": 0, "base_lr": 0, "batch_size": 1, "max_epochs": 0},
    **{"ignore_index": 255, "dropout": 0.0, "scale_inv": False, "augment": False, "no_batchnorm": False},
    **{"widehead": True, "widehead_hr": False, "map_locatin": "cpu", "arch_option": 0, "strict": True},
    **{"block_depth": 0, "activation": "lrelu"},
}


@pytest.fixture
def ours():
    return tiny_net("tiny_vit", labels=None)


@pytest.fixture
def module(ours, tmp_path):
    return LSegModule.load_from_checkpoint(checkpoint_path=official_file(ours, tmp_path / "demo.ckpt"), **KEYWORDS)


@pytest.fixture
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    return np.kron(noise, np.ones((10, 10, 1), np.uint8))  # (80, 60, 3)


def test_the_official_keywords(module, ours):
    assert isinstance(module.net, LSegNet) and not module.training
    assert (module.mean, module.std, module._up_kwargs["align_corners"]) == ([0.5] * 3, [0.5] * 3, True)
    labels = module.get_labels("ade20k")
    assert (len(labels), labels[0], labels[-1], module.num_classes) == (150, "wall", "flag", 150)
    image = module.val_transform(np.zeros((64, 96, 3), np.uint8))[None]
    assert image.shape == (1, 3, 64, 96) and (image == -1).all()
    images = pictures(1, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(module.evaluate(images), ours(images, labels), atol=1e-4, rtol=0)
        torch.testing.assert_close(module.evaluate_random(images, FIVE), ours(images, FIVE), atol=1e-4, rtol=0)
        torch.testing.assert_close(module(images, labelset=FIVE), ours(images, FIVE), atol=1e-4, rtol=0)
        torch.testing.assert_close(module.net(images), ours(images, labels), atol=1e-4, rtol=0)
    for part in ("pretrained", "scratch"):
        assert any(name.endswith("weight") for name in getattr(module.net, part).state_dict())


def test_other_options(ours, tmp_path):
    file = official_file(ours, tmp_path / "demo.ckpt")
    module = LSegModule.load_from_checkpoint(file, dataset="citys", labels=["cat"])
    assert (module.base_size, module.crop_size, module.num_classes) == (2048, 768, 1)
    with pytest.raises(InputError, match="widehaed"):
        LSegModule.load_from_checkpoint(file, widehaed=True)
    with pytest.raises(InputError, match="citys_objectInfo150"):
        module.get_labels("citys")
    (tmp_path / "bad.ckpt").write_bytes(b"PK")
    with pytest.raises(InputError, match="bad.ckpt"):
        LSegModule.load_from_checkpoint(tmp_path / "bad.ckpt", **{**KEYWORDS, "strict": False})


def test_a_loaded_module_trains_and_is_saved(module):
    module.train()
    logits = module.net.half_logits(pictures(2, 32, 64), FIVE)
    module.loss(logits, torch.randint(0, 5, (2, 32, 64))).backward()
    assert module.net.scratch.head1.weight.grad.isfinite().all()


def fit(module: LSegModule, epochs: int, resume: str | None = None) -> pl.Trainer:
    """Train on two batches an epoch, up to so many epochs."""
    masks = torch.randint(0, 5, (2, 32, 32), generator=torch.Generator().manual_seed(2))
    batch = {"image": pictures(2, 32, 32), "mask": masks, "index": [0, 1], "skipped": ["", ""]}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader([batch, batch], batch_size=None), ckpt_path=resume)
    return trainer


def test_lightning_trains_and_resumes_it(ours, tmp_path):
    official, last = official_file(ours, tmp_path / "demo.ckpt"), str(tmp_path / "last.ckpt")

    def load(path: str) -> LSegModule:
        """With a rate at which weights move."""
        module = LSegModule.load_from_checkpoint(path, **KEYWORDS)
        module.config = OptimizationConfig(base_lr=0.01, max_epochs=2)
        return module

    undisturbed = load(official)
    fit(undisturbed, 2)
    fit(load(official), 1).save_checkpoint(last)
    resumed = load(last)
    assert fit(resumed, 2, last).current_epoch == 2
    start, weights = load(official).net.state_dict(), undisturbed.net.state_dict()
    for name, tensor in resumed.net.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=1e-5, msg=name)
    assert not torch.equal(start["scratch.head1.weight"], weights["scratch.head1.weight"])
    without_classes = tmp_path / "official.ckpt"  # with them, torch.load refuses the file before
    torch.save({**official_content(ours), "callbacks": {}}, without_classes)
    with pytest.raises(InputError, match=r"train_lseg\.py"):
        fit(load(official), 2, str(without_classes))


@pytest.mark.parametrize("size", [(40, 60), (130, 70)])
def test_the_multi_scale_test(module, ours, size):
    module.base_size, module.crop_size = 104, 96
    images = pictures(2, *size)
    expected = MultiScaleEvaluator(lambda x: ours(x, FIVE), 5, 104, 96, scales=[0.5, 1.25])(images[:1])
    evaluator = LSeg_MultiEvalModule(module, device_ids=[0], scales=[0.5, 1.25], flip=True).eval()
    found = evaluator.parallel_forward(images, FIVE)
    assert len(found) == 2 and not found[0].is_inference()
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=0)
    own = evaluator.parallel_forward([images[0]])[0]
    assert own.shape == (1, 150, *size)
    same = encoding_models.MultiEvalModule(module, 150, scales=[0.5, 1.25]).parallel_forward([images[0]])[0]
    torch.testing.assert_close(same, own, atol=1e-4, rtol=0)


@pytest.mark.parametrize("flavour", ["dff", "feature_3dgs"])
def test_embeddings_of_the_multi_scale_test(module, ours, picture, flavour):
    module.base_size, module.crop_size, module.flavour = 104, 96, flavour
    evaluator = encoding_models.MultiEvalModule(module, 150, scales=[0.75, 1.0, 1.25, 1.75])
    with torch.no_grad():
        look = {"dff": lambda x: F.normalize(callers.twice(ours.embed(x)), dim=1)}
        look["feature_3dgs"] = lambda x: callers.twice(ours.embed(x))
        image = callers.normalised(picture)
        expected = callers.over_scales(image, look[flavour], 104, 96)
        found = evaluator.parallel_forward(image, return_feature=True)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_embeddings_of_openscene(module, ours, picture):
    module.flavour = "openscene"
    module.base_size = module.crop_size = 160
    evaluator = LSeg_MultiEvalModule(module, scales=[1], flip=True)
    with torch.no_grad():
        found = evaluator.parallel_forward(callers.normalised(picture), "")[0]
        torch.testing.assert_close(found, callers.openscene(ours.embed, picture), atol=1e-4, rtol=0)
    assert found.shape[2:] == picture.shape[:2]
    module.base_size = 104
    with pytest.raises(ValueError, match="160"):
        LSeg_MultiEvalModule(module, scales=[1]).parallel_forward(callers.normalised(picture))


def test_windows_as_vlmaps_calls_them(ours, picture):
    net = LSegEncNet.of(ours)
    helpers, image = {"mode": "bilinear", "align_corners": True}, callers.normalised(picture)
    height, width, crop, stride = 104, 78, 96, 64
    image = pad_image(resize_image(image, height, width, **helpers), [0.5] * 3, [0.5] * 3, crop)
    assert image.shape[2:] == (104, 96) and (image[..., 78:] == -1).all()
    total, count = torch.zeros(1, net.out_c, 104, 96), torch.zeros(1, 1, 104, 96)
    with torch.no_grad():
        for top in (0, stride):
            bottom = min(top + crop, 104)
            piece = pad_image(crop_image(image, top, bottom, 0, 96), [0.5] * 3, [0.5] * 3, crop)
            pixels, _ = net(piece, ["example"])
            total[:, :, top:bottom] += crop_image(pixels, 0, bottom - top, 0, 96)
            count[:, :, top:bottom] += 1
        expected = callers.vlmaps(ours.embed, picture, 104, 96)
    torch.testing.assert_close((total / count)[..., :104, :78], expected, atol=1e-4, rtol=0)
    assert torch.equal(flip_image(flip_image(image)), image)
