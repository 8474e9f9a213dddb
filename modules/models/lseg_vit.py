"""The official place of ``forward_vit``, for programs that import it from here; see ``lseg_net``."""

from .lseg_net import forward_vit

__all__ = ["forward_vit"]
