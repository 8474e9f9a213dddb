"""The networks alone: plain ``nn.Module`` objects that know nothing of Lightning, files or flags."""

from modules.models.lseg_net import LSegNet
from modules.models.zoo import BACKBONES, TEXT_TOWERS, build_lseg

__all__ = ["BACKBONES", "TEXT_TOWERS", "LSegNet", "build_lseg"]
