"""A mixture of softmaxes whose vocabulary is split over processes, trained on real text.

    pip install 'zeta-nn[examples]'
    torchrun --nproc-per-node 2 examples/vocab_parallel.py [--steps 50] [--out head.pt]

Every process holds the whole body, a part of the output layer's words, and their gradients and
optimiser state. All processes read the same text; to read different text on different groups of
processes, take a mesh of two dimensions and wrap the model in FSDP2 or DDP on the other one.

Shape suffixes: B texts, L words of each, D features.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from language_model import load_text
from zeta.distributed import clip_grad_norm_, full_state_dict, vocab_parallel
from zeta.nn import MixtureOfSoftmaxes

K, D = 4, 64
BATCH, LENGTH = 16, 32


class Body(nn.Module):
    """Embedding and GRU: the features of every word's past."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, D)
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, words_BL: Tensor) -> Tensor:
        """(B, L) words as (B, L, D)."""
        features_BLD: Tensor = self.gru(self.embedding(words_BL))[0]
        return features_BLD


def batch(text_N: Tensor) -> tuple[Tensor, Tensor]:
    """Random pieces of the text, and the word after each word; both (B, L)."""
    starts_B = torch.randint(len(text_N) - LENGTH - 1, (BATCH,))
    pieces = torch.stack([text_N[start : start + LENGTH + 1] for start in starts_B.tolist()])
    return pieces[:, :-1], pieces[:, 1:]


def main() -> None:
    """Train, then show that the parts make up one whole layer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--vocabulary", type=int, default=13_000)
    parser.add_argument("--out", type=Path, help="where to save the whole model's state dict")
    options = parser.parse_args()
    if "RANK" not in os.environ:
        sys.exit(
            "vocab_parallel: start it by torchrun --nproc-per-node 2 examples/vocab_parallel.py"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))

    torch.manual_seed(0)  # the same weights and the same text on every process
    body = Body(options.vocabulary).to(device)
    whole = MixtureOfSoftmaxes(K, D, options.vocabulary, decoder="shared").to(device)
    head = vocab_parallel(whole, mesh)
    model = nn.Sequential(body, head)
    print(f"process {dist.get_rank()} holds words {head.shard.start} to {head.shard.stop - 1}")

    text_N = load_text(options.vocabulary)["train"].to(device)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(1, options.steps + 1):
        words_BL, next_BL = batch(text_N)
        loss = head.loss(body(words_BL), next_BL)
        optimiser.zero_grad()
        loss.backward()
        clip_grad_norm_(model, 1.0)  # torch's own would see one process's words alone
        optimiser.step()
        if dist.get_rank() == 0 and (step % 10 == 0 or step == options.steps):
            print(f"step {step}: loss {loss.item():.4f}")

    words_BL, next_BL = batch(text_N)
    with torch.no_grad():
        features_BLD = body(words_BL)
        loss = head.loss(features_BLD, next_BL)
    state = full_state_dict(model)  # all processes together, as above
    if dist.get_rank() == 0:
        whole.load_state_dict({n[2:]: value for n, value in state.items() if n.startswith("1.")})
        alone = whole.loss(features_BLD, next_BL)
        print(f"loss of the parts {loss:.6f}, of one whole layer {alone:.6f}")
        if options.out:
            torch.save(state, options.out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
