"""Time of the network per cutout, beside a textbook partial convolution, in one process.

The textbook layer convolves the mask in every channel, one cutout at a time in float32; its weights
are the same. Rounds of all variants alternate, and the least time of each counts.

example: python benchmarks/inference.py --widths 1 0.5 --batches 1 16 64
"""

import argparse
import time

import torch
from torch import nn
from torch.nn import functional as F

from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.partial_conv import PartialConvTranspose2d
from csr_astro.nn.unet import PartialConvUNet, memory_format


class Textbook(nn.Module):
    """The layers of a network as Liu et al. (2018) write them, masks with all channels."""

    def __init__(self, network):
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder

    @staticmethod
    def layer(block, x, mask):
        """One partial convolution, BatchNorm and ReLU."""
        conv = block.conv
        transposed = isinstance(conv, PartialConvTranspose2d)
        convolve = F.conv_transpose2d if transposed else F.conv2d
        options = {'stride': conv.stride, 'padding': conv.padding}
        ones = torch.ones_like(conv.weight)
        n_valid = convolve(mask, ones, **options)
        output = convolve(x * mask, conv.weight, **options)
        new_mask = (n_valid > 0).float()
        output = output * conv.n_window / n_valid.clamp(min=1) * new_mask
        if conv.bias is not None:
            output = output + conv.bias[:, None, None] * new_mask
        return block.activation(block.norm(output)), new_mask

    def forward(self, x, mask):
        """Predict, (B, 1, H, W)."""
        skips = []
        for block in self.encoder:
            x, mask = self.layer(block, x, mask)
            skips.append((x, mask))
        skips.pop()
        x, mask = self.layer(self.decoder[0], x, mask)
        for block in self.decoder[1:]:
            skip, skip_mask = skips.pop()
            x, mask = self.layer(
                block, torch.cat([x, skip], dim=1), torch.cat([mask, skip_mask], dim=1)
            )
        return x


def cutouts(n, seed=0):
    """Noise with a disc cut out of each, (n, 1, 96, 96)."""
    image = torch.randn(n, 1, 96, 96, generator=torch.Generator().manual_seed(seed))
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing='ij')
    mask = ((x - 48) ** 2 + (y - 48) ** 2 > 81).float().expand(n, 1, 96, 96).clone()
    return image * mask, mask


def seconds(function, n_calls):
    """Wall seconds of a call."""
    start = time.perf_counter()
    for _ in range(n_calls):
        function()
    return (time.perf_counter() - start) / n_calls


def main():
    """Print one row per width, precision and batch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--widths', type=float, nargs='+', default=[1.0, 0.5, 0.25])
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 4, 16, 64, 256])
    parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'])
    parser.add_argument('--rounds', type=int, default=3, help='[%(default)s]')
    parser.add_argument('--threads', type=int, help='of PyTorch [all cores]')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f'{torch.get_num_threads()} threads, torch {torch.__version__}')
    print(f'{"width":>5s} {"dtype":9s} {"batch":>5s} {"ms/cutout":>9s} {"textbook/this":>13s}')
    for width in args.widths:
        torch.manual_seed(0)
        network = PartialConvUNet(width).eval()
        textbook = Textbook(network)
        variants = {}
        for dtype in args.dtypes:
            model = Inpainter(network, fill='none', dtype=getattr(torch, dtype)).eval()
            model = model.to(memory_format=memory_format(torch.device('cpu')))
            for batch in args.batches:
                inputs = cutouts(batch)
                variants[dtype, batch] = (
                    lambda model=model, inputs=inputs: model.predict_normalized(*inputs)
                )
        one = cutouts(1)
        variants['textbook', 1] = lambda textbook=textbook, one=one: textbook(*one)
        with torch.inference_mode():
            least = dict.fromkeys(variants, float('inf'))
            for _ in range(args.rounds):
                for (dtype, batch), function in variants.items():
                    found = seconds(function, max(1, 4 // batch)) / batch
                    least[dtype, batch] = min(found, least[dtype, batch])
        for (dtype, batch), found in least.items():
            print(f'{width:5g} {dtype:9s} {batch:5d} {1e3 * found:9.2f} '
                  f'{least["textbook", 1] / found:13.2f}')


if __name__ == '__main__':
    main()
