"""Pre-trains the miniature's own CLIP contrastively, on renderings of single objects and captions with synonyms.

The result is a state dict of ``clip.model.CLIP`` in the format of OpenAI's files, so that the code for the real CLIP
(reading the text tower, freezing it, encoding bare labels) also works for this one.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lseg_utils.files import write_aside
from lseg_utils.progress import progress_bar
from lseg_utils.results import write_json
from miniature.drawing import draw_single
from miniature.names import LABELS, with_synonyms, wordings
from miniature.world import CLIP_STEPS

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # does not concern our users
    import clip
    from clip.model import CLIP

TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a picture of the {}", "a drawing of one {}", "here is some {}")
CONTEXT_LENGTH = 16
VOCABULARY = 49408  # OpenAI's byte pair encoding
EMBEDDING = 64
IMAGE_SIZE = 32
SYNONYM_PROBABILITY = 0.5
VERSION = 2  # increase it when the same settings give other weights, so that old files are replaced


@dataclass(frozen=True)
class ClipSettings:
    """How the tiny CLIP is trained.

    seed: of the weights, renderings and captions. steps: of AdamW, one rendering of each label in each.
    renderings: of each label, drawn once and picked from at random. width: of the text tower, a multiple of 64.
    """

    seed: int
    steps: int = CLIP_STEPS
    renderings: int = 100
    learning_rate: float = 1.5e-3
    width: int = 64


def make_clip(folder: Path, settings: ClipSettings) -> tuple[Path, dict[str, float], bool]:
    """Train ``<folder>/clip_tiny.pt`` and write it, unless it exists with exactly these settings.

    ``clip_tiny.json`` contains the settings and the retrieval accuracies. Returns the path of the weights, the
    accuracies (see :func:`retrieval`), and whether they were made now.
    """
    target, notes = folder / "clip_tiny.pt", folder / "clip_tiny.json"
    wanted = {"version": VERSION, **asdict(settings)}
    if target.is_file() and notes.is_file():
        found = json.loads(notes.read_text(encoding="utf-8"))
        if found["settings"] == wanted:
            return target, found["retrieval"], False
    state, accuracies = train_clip(settings)
    notes.unlink(missing_ok=True)  # a kill between the two files must not leave old notes next to new weights
    with write_aside(target) as aside:
        torch.save(state, aside)
    write_json(notes, {"settings": wanted, "retrieval": accuracies})
    return target, accuracies, True


def build_clip(width: int, vocabulary: int = VOCABULARY, context_length: int = CONTEXT_LENGTH) -> CLIP:
    """A CLIP with a small ModifiedResNet for 32x32 images and a text tower of three layers, random weights."""
    model = CLIP(
        embed_dim=EMBEDDING,
        image_resolution=IMAGE_SIZE,
        vision_layers=(1, 1, 1, 1),
        vision_width=16,
        vision_patch_size=None,
        context_length=context_length,
        vocab_size=vocabulary,
        transformer_width=width,
        transformer_heads=width // 64,
        transformer_layers=3,
    )
    # CLIP starts its image blocks as identities and its words close to zero, which suits long trainings. In a few
    # hundred steps it learns colours only and never leaves that plateau; from here it learns shapes too.
    for block in (model.visual.layer1, model.visual.layer2, model.visual.layer3, model.visual.layer4):
        nn.init.ones_(block[0].bn3.weight)
    nn.init.normal_(model.token_embedding.weight, std=0.4)
    return model


class Captions:
    """Every caption of every label, tokenised once, with the tokens that occur numbered anew from 0 in their old order.

    The order keeps the end token the greatest, which is how CLIP finds it. ``used``: the tokens of CLIP's vocabulary,
    (U,); ``rows``: caption -> its new token numbers, (L,) with L the longest caption's length. Cutting the padding
    behind L off is exact: the tower is causal and read at the end token.
    """

    def __init__(self, texts: Sequence[str]):
        texts = list(dict.fromkeys(texts))
        tokens = clip.tokenize(texts, context_length=CONTEXT_LENGTH).long()
        self.used, numbered = tokens.unique(return_inverse=True)
        self.longest = int(tokens.argmax(dim=1).max()) + 1
        self.rows = dict(zip(texts, numbered[:, : self.longest], strict=True))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, L) token numbers of captions."""
        return torch.stack([self.rows[text] for text in texts])


def all_captions() -> list[str]:
    """Each template with each wording of each label."""
    names = [" ".join(words) for label in LABELS for words in itertools.product(*wordings(label))]
    return [template.format(name) for template in TEMPLATES for name in names]


def draw_caption(label: str, rng: np.random.Generator) -> str:
    """A random template; each word of the label is a synonym with probability ``SYNONYM_PROBABILITY``."""
    words = [choices[int(rng.random() < SYNONYM_PROBABILITY)] for choices in wordings(label)]
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(" ".join(words))


def render(count: int, rng: np.random.Generator) -> Tensor:
    """``count`` renderings of each of the 40 labels: (40, count, 3, 32, 32) float32 in [-1, 1]."""
    pictures = [
        [draw_single(label, IMAGE_SIZE, rng) for _ in range(count)]
        for label in progress_bar(LABELS, desc="renderings for the tiny CLIP", unit="label")
    ]
    return torch.from_numpy(np.array(pictures)).permute(0, 1, 4, 2, 3).float().div(127.5).sub(1)


def train_clip(settings: ClipSettings) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Train a CLIP, leaving torch's global random state as it was; bit for bit the same with as many threads.

    Every batch contains one rendering of each label, so that no two of its captions mean the same. Only the rows of the
    token embedding that captions use are trained: AdamW over all 49408 would take most of the time and change none
    of the others by more than weight decay.

    Returns OpenAI's state dict (float32) and the retrieval accuracies of :func:`retrieval` on new renderings.
    """
    rng = np.random.default_rng([settings.seed, 2])
    images = render(settings.renderings, rng)
    captions = Captions(all_captions())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        full = build_clip(settings.width)
        model = build_clip(settings.width, len(captions.used), captions.longest).train()
    _fit(model, images, captions, settings, rng)
    accuracies = retrieval(model.eval(), captions, np.random.default_rng([settings.seed, 3]))
    return full_state(model, full, captions), accuracies


def full_state(model: CLIP, full: CLIP, captions: Captions) -> dict[str, Tensor]:
    """The trained weights in the shapes of the full vocabulary and context; what no caption used stays random."""
    state = full.state_dict()
    for name, value in model.state_dict().items():
        if name == "token_embedding.weight":
            state[name][captions.used] = value
        elif name == "positional_embedding":
            state[name][: captions.longest] = value
        else:
            state[name] = value
    return {name: value.clone() for name, value in state.items()}


@torch.inference_mode()
def retrieval(model: CLIP, captions: Captions, rng: np.random.Generator, count: int = 10) -> dict[str, float]:
    """How often a new rendering's nearest text among all 40 labels is its own, 0..1.

    Four wordings: canonical names and synonyms, bare as LSeg reads them, and averaged over the templates as CLIP's
    zero-shot classifiers are.
    """
    images = render(count, rng)
    features = torch.stack([F.normalize(model.encode_image(batch), dim=-1) for batch in images])  # (40, count, C)
    wordings_of = {"canonical": list(LABELS), "synonyms": [with_synonyms(label) for label in LABELS]}
    result = {}
    for wording, names in wordings_of.items():
        for how, templates in (("bare", TEMPLATES[:1]), ("templates", TEMPLATES)):
            encoded = (model.encode_text(captions([template.format(name) for name in names])) for template in templates)
            text = sum(F.normalize(vectors, dim=-1) for vectors in encoded)
            nearest = (features @ F.normalize(text, dim=-1).T).argmax(dim=-1)  # (40, count)
            result[f"{wording}, {how}"] = (nearest == torch.arange(len(LABELS))[:, None]).float().mean().item()
    return result


def _fit(model: CLIP, images: Tensor, captions: Captions, settings: ClipSettings, rng: np.random.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.2, fused=True)
    warmup = min(20, settings.steps // 2)

    def factor(step: int) -> float:
        done = max(0, step - warmup) / max(1, settings.steps - warmup)
        return min((step + 1) / (warmup + 1), 0.5 + 0.5 * math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    target = torch.arange(len(LABELS))
    bar = progress_bar(range(settings.steps), desc="tiny CLIP", unit="step")
    for _ in bar:
        picked = images[target, torch.from_numpy(rng.integers(images.shape[1], size=len(LABELS)))]
        per_image, per_text = model(picked, captions([draw_caption(label, rng) for label in LABELS]))
        loss = (F.cross_entropy(per_image, target) + F.cross_entropy(per_text, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))  # as CLIP's paper does (section 2.5)
        bar.set_postfix(loss=f"{loss.item():.3f}")
